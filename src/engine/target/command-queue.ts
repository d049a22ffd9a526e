/**
 * What I/O queues and admin queues have in common: taking commands into request slots, getting their
 * data in, sending results out, and answering when there is room.
 *
 * Room is taken in an order that cannot deadlock. A command whose data the host still has to send
 * may wait for memory only while its connection goes on receiving, because the data of commands
 * before it comes behind it in the same stream; so it is parked. Everything else may hold the
 * connection up: what it waits for is given back by devices and by hosts that receive.
 */
import { copyMemory } from "../../../ffi/index.ts";
import { assert } from "../../assert.ts";
import { SglId, STATUS_DNR, Status } from "../../nvme/constants.ts";
import type { Arena } from "../reactor/arena.ts";
import { IoOp, type IoOwner, type IoTable } from "../reactor/io-table.ts";
import { ARENA_RESERVE_BYTES } from "../reactor/limits.ts";
import type { CommandHandler, Connection } from "./connection.ts";
import { GATHER_BYTES_MAX, TRANSFER_BYTES_MAX } from "./limits.ts";
import { ParkedCommands } from "./parked-commands.ts";
import { RequestState, type RequestTable } from "./request-table.ts";

/** How a request's data is held, in the bits of `tagA` above the command id. */
export const DataKind = {
  NONE: 0,
  /** In an arena buffer that belongs to the request. */
  OWN: 1 << 16,
  /** In the send chunk, behind room for its header; the device is synchronous. */
  IN_CHUNK: 2 << 16,
  /** In the receive buffer; the device is synchronous. */
  IN_RECEIVE: 3 << 16,
} as const;
export const DATA_KIND_MASK = 3 << 16;
/** `tagA` bit: on success the request returns the data in its buffer. */
const RETURNS_DATA = 1 << 18;
/** `tagA` bit: taken by `start`, so its command words are kept; plain reads and writes are not. */
export const KEPT_WORDS = 1 << 19;
/** `tagA` bit: the buffer counts as data on its way to the host (`Connection.readBytes`). */
export const READ_COUNTED = 1 << 20;

const NONE = -1;

export abstract class CommandQueue implements CommandHandler, IoOwner {
  readonly connection: Connection;
  readonly io: IoTable;
  readonly arena: Arena;
  readonly requests: RequestTable;
  readonly entries: number;
  /** The host does not look at SQHD; reads may then end without a response capsule. */
  readonly flowControlOff: boolean;
  /** Names the queue's requests in `RequestTable.queueOf`. */
  readonly number: number;
  /** Commands taken and not yet answered. */
  inFlight = 0;
  /** Connect was the queue's first command, in entry 0. */
  sqHead = 1;

  readonly #parked: ParkedCommands;
  #unparking = false;
  // Requests that wait for room to be answered, oldest first; their NVMe status is in `parent`.
  #pendingHead = NONE;
  #pendingTail = NONE;
  #closed = false;
  #headUnsaid = 0;
  /** Requests aborted while they waited for data that the host may still send. */
  #discarding = 0;
  /** Requests that `fence` waits for, and whom it tells. */
  #fenced = 0;
  #onFenced: (() => void)[] = [];

  constructor(connection: Connection, entries: number, flowControlOff: boolean) {
    this.connection = connection;
    this.io = connection.io;
    this.arena = connection.arena;
    this.requests = connection.target.requests;
    this.entries = entries;
    this.flowControlOff = flowControlOff;
    this.number = this.requests.nextQueue();
    this.#parked = new ParkedCommands(entries);
  }

  abstract readonly queueId: number;
  abstract onCapsule(sqe: number, data: number, dataBytes: number): boolean;
  /** Carries out a command whose host data, if any, is in `io.buffer[slot]`. Ends with `finish`. */
  protected abstract execute(slot: number): void;
  abstract ioDone(slot: number): void;
  abstract onHostLeft(): void;
  /** Slots promised for one request of this queue. */
  protected abstract readonly slotsPerCommand: number;
  /** Called when the connection is closed and nothing of the queue is in flight. */
  protected abstract onDrained(): void;
  /** A command failed: for the error log. `slot` is -1 for one that never became a request. */
  protected abstract onFailure(cid: number, status: number, slot: number, dw0: number): void;

  // ------------------------------------------------------------------------------------- taking

  /** Counts a command in and moves the submission queue head, as every taken command does. */
  protected begin(): void {
    this.inFlight++;
    this.sqHead = this.sqHead + 1 >= this.entries ? 0 : this.sqHead + 1;
  }

  /**
   * True when a read may end with its data alone (SUCCESS flag), which carries no SQHD. A host that
   * uses flow control must still hear of the head in time: it can have `entries - 1` commands out
   * since it last did, so every half queue a full response is sent.
   */
  protected headMayLag(): boolean {
    if (this.flowControlOff) return true;
    if (this.#headUnsaid + 1 >= this.entries >> 1) {
      this.#headUnsaid = 0;
      return false;
    }
    this.#headUnsaid++;
    return true;
  }

  /** Answers a command that never became a request. False: no room. */
  protected refuse(cid: number, status: number): boolean {
    const head = this.sqHead + 1 >= this.entries ? 0 : this.sqHead + 1;
    if (!this.connection.respond(cid, status, head, 0, 0)) return false;
    this.sqHead = head;
    this.onFailure(cid, status, NONE, 0);
    return true;
  }

  /**
   * Takes a command of any kind into a slot, brings its host data in, and executes it. Direction of
   * the data is told by the opcode's low two bits (Base 2.0, figure 88). False: no room.
   */
  protected start(sqe: number, data: number, dataBytes: number): boolean {
    const { arena, io, connection } = this;
    const w = sqe >> 2;
    const first = arena.i32[w]!;
    const cid = first >>> 16;
    const toController = (first & 3) === 1;
    const toHost = (first & 3) === 2;
    const sglBytes = toController || toHost ? arena.u32[w + 8]! : 0;
    const refusal = this.#dataRefusal(sqe, sglBytes, toController, data, dataBytes);
    if (refusal !== 0) return this.refuse(cid, refusal);
    const awaitsData = toController && sglBytes > 0 && data < 0;
    if (awaitsData) return this.takeByR2t(sqe, IoOp.NONE, 0, sglBytes, 0);
    if (!io.promise(this.slotsPerCommand)) return false;
    let buffer = NONE;
    if (sglBytes > 0) {
      buffer = arena.alloc(sglBytes, ARENA_RESERVE_BYTES);
      if (buffer < 0) {
        io.release(this.slotsPerCommand);
        return false;
      }
    }
    const slot = io.take(IoOp.NONE, 0, sglBytes, buffer, 0, connection.reactor.now);
    io.tagA[slot] = cid | KEPT_WORDS | (buffer < 0 ? DataKind.NONE : DataKind.OWN);
    this.requests.keep(slot, arena.u32, w);
    this.begin();
    if (data >= 0 && sglBytes > 0) {
      copyMemory(arena.address + buffer, arena.address + data, sglBytes);
    }
    if (toHost && sglBytes > 0) arena.u8.fill(0, buffer, buffer + sglBytes);
    this.own(slot);
    this.execute(slot);
    return true;
  }

  /** NVMe status that refuses a command for how its data is described, or 0. */
  #dataRefusal(
    sqe: number,
    sglBytes: number,
    toController: boolean,
    data: number,
    dataBytes: number,
  ): number {
    if (!this.connection.capsuleIntact) return Status.TRANSIENT_TRANSPORT_ERROR;
    if (sglBytes > TRANSFER_BYTES_MAX || (sglBytes & 3) !== 0) {
      return Status.DATA_SGL_LENGTH_INVALID | STATUS_DNR;
    }
    if (sglBytes === 0) return 0;
    const id = this.arena.u8[sqe + 39]!;
    if (toController && data >= 0) {
      if (id !== SglId.DATA_BLOCK_OFFSET) return Status.SGL_DESCRIPTOR_TYPE_INVALID | STATUS_DNR;
      const w = sqe >> 2;
      const hasOffset = this.arena.i32[w + 6] !== 0 || this.arena.i32[w + 7] !== 0;
      if (hasOffset) return Status.SGL_OFFSET_INVALID | STATUS_DNR;
      return sglBytes === dataBytes ? 0 : Status.DATA_SGL_LENGTH_INVALID | STATUS_DNR;
    }
    if (id !== SglId.TRANSPORT_DATA_BLOCK) return Status.SGL_DESCRIPTOR_TYPE_INVALID | STATUS_DNR;
    return 0;
  }

  /** A device or a hook goes on with the request: it can be found by its queue. */
  protected own(slot: number): void {
    this.requests.queueOf[slot] = this.number;
    this.requests.state[slot] = RequestState.EXECUTES;
  }

  // ---------------------------------------------------------------------------------- host data

  /**
   * Takes a command whose `length` bytes of data the host sends when asked: asks for them now, or
   * parks the command. `op` NONE keeps the command words. False only for a parked command that
   * still finds no room.
   */
  protected takeByR2t(
    sqe: number,
    op: number,
    offset: number,
    length: number,
    flags: number,
  ): boolean {
    const { io, arena, connection, slotsPerCommand } = this;
    const { hostData } = connection.target;
    const isTurn = this.#unparking || this.#parked.length === 0;
    if (!isTurn || !hostData.admits(length, slotsPerCommand) || !io.promise(slotsPerCommand)) {
      return this.#park(sqe);
    }
    const buffer = arena.alloc(length, ARENA_RESERVE_BYTES);
    if (buffer < 0) {
      io.release(slotsPerCommand);
      return this.#park(sqe);
    }
    const slot = io.take(op, offset, length, buffer, flags, connection.reactor.now);
    const words = op === IoOp.NONE ? KEPT_WORDS : 0;
    io.tagA[slot] = (arena.i32[sqe >> 2]! >>> 16) | DataKind.OWN | words;
    if (!connection.requestHostData(slot)) {
      arena.free(buffer);
      io.give(slot);
      io.release(slotsPerCommand);
      return this.#park(sqe);
    }
    if (words !== 0) this.requests.keep(slot, arena.u32, sqe >> 2);
    this.requests.queueOf[slot] = this.number;
    this.requests.state[slot] = RequestState.AWAITS_DATA;
    hostData.begin(arena.sizeOf(buffer), slotsPerCommand);
    this.begin();
    return true;
  }

  #park(sqe: number): boolean {
    if (this.#unparking) return false;
    this.#parked.push(this.arena.i32, sqe >> 2);
    this.begin();
    this.connection.wantRoom();
    return true;
  }

  /** Offers the parked commands again, oldest first. */
  #unpark(): void {
    const { connection, arena } = this;
    const sqe = connection.target.scratch;
    while (this.#parked.length > 0 && !this.#closed) {
      this.#parked.peek(arena.i32, sqe >> 2);
      this.#parked.drop();
      // The command was counted when it was parked; it is counted again when it is taken.
      const head = this.sqHead;
      this.inFlight--;
      this.sqHead = head === 0 ? this.entries - 1 : head - 1;
      this.#unparking = true;
      connection.capsuleIntact = true;
      const taken = this.onCapsule(sqe, NONE, 0);
      this.#unparking = false;
      if (taken) continue;
      this.#parked.putBack();
      this.inFlight++;
      this.sqHead = head;
      connection.wantRoom();
      return;
    }
  }

  /** The data of a request that awaited it is no longer on its way. */
  #hostDataEnds(slot: number): void {
    const buffer = this.io.buffer[slot]!;
    this.connection.target.hostData.end(this.arena.sizeOf(buffer), this.slotsPerCommand);
  }

  onHostData(slot: number, intact: boolean): void {
    this.#hostDataEnds(slot);
    this.requests.state[slot] = RequestState.EXECUTES;
    if (intact) this.execute(slot);
    else this.finish(slot, Status.TRANSIENT_TRANSPORT_ERROR, 0, 0);
  }

  /** A data PDU for an aborted request has passed; `isLast`: no more can come. */
  onDiscarded(slot: number, isLast: boolean): void {
    this.#dropHostData(slot);
    if (!isLast) return;
    this.#discarding--;
    this.#giveSlot(slot, false);
  }

  /** Frees the buffer of a request that will not get its data. */
  #dropHostData(slot: number): void {
    const { io } = this;
    if ((io.tagA[slot]! & DATA_KIND_MASK) === DataKind.NONE) return;
    this.#hostDataEnds(slot);
    this.arena.free(io.buffer[slot]!);
    io.buffer[slot] = NONE;
    io.tagA[slot] = io.tagA[slot]! & ~DATA_KIND_MASK;
  }

  // -------------------------------------------------------------------------------- abort, fence

  /**
   * Ends a command that waits for its data, answering it with `status`. False when there is none
   * with this id, or no room to answer it: what a device has begun cannot be aborted.
   */
  abort(commandId: number, status: number): boolean {
    if (this.#closed || this.connection.stream.closing) return false;
    const slot = this.#findAwaiting(commandId);
    if (slot === NONE) return this.#abortParked(commandId, status);
    if (this.#discarding >= this.entries) return false;
    if (!this.connection.respond(commandId, status, this.sqHead, 0, 0)) return false;
    this.onFailure(commandId, status, slot, 0);
    this.requests.state[slot] = RequestState.DISCARDS_DATA;
    this.#discarding++;
    if (!this.connection.receivesFor(slot)) this.#dropHostData(slot);
    this.inFlight--;
    return true;
  }

  #findAwaiting(commandId: number): number {
    const { state, queueOf } = this.requests;
    for (let slot = 0; slot < queueOf.length; slot++) {
      if (queueOf[slot] !== this.number || state[slot] !== RequestState.AWAITS_DATA) continue;
      if ((this.io.tagA[slot]! & 0xffff) === commandId) return slot;
    }
    return NONE;
  }

  #abortParked(commandId: number, status: number): boolean {
    if (!this.#parked.has(commandId)) return false;
    if (!this.connection.respond(commandId, status, this.sqHead, 0, 0)) return false;
    this.onFailure(commandId, status, NONE, 0);
    this.#parked.remove(commandId);
    this.inFlight--;
    return true;
  }

  /** Aborts every command that waits for its data; those that cannot be answered now stay. */
  abortAwaiting(status: number): void {
    const { state, queueOf } = this.requests;
    for (let slot = 0; slot < queueOf.length; slot++) {
      if (queueOf[slot] !== this.number || state[slot] !== RequestState.AWAITS_DATA) continue;
      this.abort(this.io.tagA[slot]! & 0xffff, status);
    }
    for (const commandId of this.#parked.commandIds()) this.#abortParked(commandId, status);
  }

  /**
   * Calls `done` once every request that a device or a hook has begun by now has ended; possibly
   * before this returns. What still waits for its data is checked again before it is carried out.
   */
  fence(done: () => void): void {
    const { state, queueOf } = this.requests;
    for (let slot = 0; slot < queueOf.length; slot++) {
      if (queueOf[slot] !== this.number || state[slot] !== RequestState.EXECUTES) continue;
      state[slot] = RequestState.FENCED;
      this.#fenced++;
    }
    if (this.#fenced === 0) done();
    else this.#onFenced.push(done);
  }

  #fenceEnded(): void {
    this.#fenced--;
    assert(this.#fenced >= 0, "fenced requests end once");
    if (this.#fenced === 0) for (const done of this.#onFenced.splice(0)) done();
  }

  /** True while the host owes data that it was asked for. */
  get awaitsHost(): boolean {
    const { state, queueOf } = this.requests;
    for (let slot = 0; slot < queueOf.length; slot++) {
      if (queueOf[slot] === this.number && state[slot] === RequestState.AWAITS_DATA) return true;
    }
    return false;
  }

  // ---------------------------------------------------------------------------------- answering

  /** Data that the command returns: `length` bytes from the start of its buffer. */
  protected finishWithData(slot: number, length: number, dw0 = 0): void {
    this.io.length[slot] = length;
    this.io.tagA[slot] = this.io.tagA[slot]! | RETURNS_DATA;
    this.finish(slot, Status.SUCCESS, dw0, 0);
  }

  /**
   * Ends a request: answers the host (now, or when there is room) and gives everything back.
   * `status` is SCT << 8 | SC with STATUS_DNR.
   */
  finish(slot: number, status: number, dw0: number, dw1: number): void {
    const { io, requests } = this;
    const state = requests.state[slot]!;
    requests.state[slot] = RequestState.ENDED;
    if (state === RequestState.FENCED) this.#fenceEnded();
    if (status !== 0) this.onFailure(io.tagA[slot]! & 0xffff, status, slot, dw0);
    io.parent[slot] = status;
    io.tagB[slot] = dw0;
    io.tagC[slot] = dw1;
    if (this.#closed) {
      this.release(slot, true);
      return;
    }
    if (this.#pendingHead !== NONE || !this.#answer(slot)) {
      io.next[slot] = NONE;
      if (this.#pendingHead === NONE) this.#pendingHead = slot;
      else io.next[this.#pendingTail] = slot;
      this.#pendingTail = slot;
      this.connection.waitForRoom();
    }
  }

  /** Queues the answer of an ended request. False: no room, nothing was queued. */
  #answer(slot: number): boolean {
    const { io, connection } = this;
    const tag = io.tagA[slot]!;
    const status = io.parent[slot]!;
    if ((tag & RETURNS_DATA) === 0 || status !== 0) {
      const cid = tag & 0xffff;
      if (!connection.respond(cid, status, this.sqHead, io.tagB[slot]!, io.tagC[slot]!)) {
        return false;
      }
      this.release(slot, true);
      return true;
    }
    return this.#answerWithData(slot, tag & 0xffff);
  }

  #answerWithData(slot: number, cid: number): boolean {
    const { io, connection, arena } = this;
    const length = io.length[slot]!;
    const buffer = io.buffer[slot]!;
    const dw0 = io.tagB[slot]!;
    if (!connection.stream.sendRoom) return false;
    const success = dw0 === 0 && this.headMayLag();
    if (length <= GATHER_BYTES_MAX) {
      const to = connection.reserveData(length);
      if (to < 0) return false;
      copyMemory(arena.address + to, arena.address + buffer, length);
      connection.finishData(to, length, cid, success);
      if (!success && !connection.respond(cid, 0, this.sqHead, dw0, 0)) {
        connection.dropData(length);
        return false;
      }
      this.release(slot, true);
      return true;
    }
    if (!connection.sendData(buffer, length, cid, success)) return false;
    // The buffer is the stream's now. The response behind large data may have to wait on its own.
    if ((io.tagA[slot]! & READ_COUNTED) !== 0) connection.readBytes -= arena.sizeOf(buffer);
    io.tagA[slot] = cid;
    io.buffer[slot] = NONE;
    if (success) {
      this.release(slot, false);
      return true;
    }
    if (!connection.respond(cid, 0, this.sqHead, dw0, 0)) return false;
    this.release(slot, false);
    return true;
  }

  /** Answers what waited for room, oldest first; then offers parked commands again. */
  onRoom(): void {
    while (this.#pendingHead !== NONE) {
      const slot = this.#pendingHead;
      const next = this.io.next[slot]!;
      if (!this.#answer(slot)) {
        this.connection.waitForRoom();
        return;
      }
      this.#pendingHead = next;
      if (next === NONE) this.#pendingTail = NONE;
    }
    if (this.#parked.length > 0) this.#unpark();
  }

  #giveSlot(slot: number, freeBuffer: boolean): void {
    const { io, requests } = this;
    const tag = io.tagA[slot]!;
    if ((tag & DATA_KIND_MASK) === DataKind.OWN) {
      const buffer = io.buffer[slot]!;
      if ((tag & READ_COUNTED) !== 0) this.connection.readBytes -= this.arena.sizeOf(buffer);
      if (freeBuffer) this.arena.free(buffer);
    }
    requests.queueOf[slot] = 0;
    requests.state[slot] = RequestState.NONE;
    io.give(slot);
    io.release(this.slotsPerCommand);
  }

  /** Gives an answered request back and counts it out. */
  protected release(slot: number, freeBuffer: boolean): void {
    this.#giveSlot(slot, freeBuffer);
    this.ended();
  }

  /** A command has been answered; its slot, if it had one, is given back already. */
  protected ended(): void {
    this.inFlight--;
    assert(this.inFlight >= 0, "commands are answered once");
    if (this.#closed && this.inFlight === 0) this.onDrained();
  }

  // ------------------------------------------------------------------------------- the end of it

  /** True once the connection is gone; what is still in flight is then dropped when it ends. */
  protected get closed(): boolean {
    return this.#closed;
  }

  /** Requests that wait for something other than a device, which the close must give back. */
  protected idleRequests(): readonly number[] {
    return [];
  }

  onClosed(): void {
    this.#closed = true;
    const slots = [...this.idleRequests()];
    for (let slot = this.#pendingHead; slot !== NONE; slot = this.io.next[slot]!) slots.push(slot);
    this.#pendingHead = NONE;
    this.#pendingTail = NONE;
    const parked = this.#parked.length;
    this.#parked.clear();
    // One more is held until everything is given back, so that the end is told once.
    this.inFlight += 1 - parked;
    if (this.inFlight > 1 || this.#discarding > 0) this.#giveHostDataUp();
    for (const slot of slots) this.release(slot, true);
    this.ended();
  }

  /** Gives back the requests whose data will not come any more. */
  #giveHostDataUp(): void {
    const { state, queueOf, damaged } = this.requests;
    for (let slot = 0; slot < queueOf.length; slot++) {
      if (queueOf[slot] !== this.number) continue;
      const isAborted = state[slot] === RequestState.DISCARDS_DATA;
      if (!isAborted && state[slot] !== RequestState.AWAITS_DATA) continue;
      damaged[slot] = 0;
      this.#dropHostData(slot);
      if (isAborted) {
        this.#discarding--;
        this.#giveSlot(slot, false);
      } else this.release(slot, false);
    }
  }
}
