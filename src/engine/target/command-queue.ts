/**
 * What I/O queues and admin queues have in common: taking commands into request slots, getting their
 * data in, sending results out, and answering when there is room.
 */
import { copyMemory } from "../../../ffi/index.ts";
import { assert } from "../../assert.ts";
import { SglId, STATUS_DNR, Status } from "../../nvme/constants.ts";
import type { Arena } from "../reactor/arena.ts";
import { IoOp, type IoOwner, type IoTable } from "../reactor/io-table.ts";
import { ARENA_RESERVE_BYTES } from "../reactor/limits.ts";
import type { CommandHandler, Connection } from "./connection.ts";
import { GATHER_BYTES_MAX, TRANSFER_BYTES_MAX } from "./limits.ts";

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

const NONE = -1;
const CDW_WORDS = 8;

/** The command words of requests that are not plain reads or writes. One per reactor. */
export class CommandWords {
  readonly #words: Uint32Array;
  constructor(slots: number) {
    this.#words = new Uint32Array(slots * CDW_WORDS);
  }

  /** Keeps opcode, namespace id and command dwords 10 to 15 of the entry at arena word `w`. */
  keep(slot: number, u32: Uint32Array, w: number): void {
    const to = slot * CDW_WORDS;
    this.#words[to] = u32[w]! & 0xff;
    this.#words[to + 1] = u32[w + 1]!;
    for (let i = 0; i < 6; i++) this.#words[to + 2 + i] = u32[w + 10 + i]!;
  }

  opcode(slot: number): number {
    return this.#words[slot * CDW_WORDS]!;
  }

  namespaceId(slot: number): number {
    return this.#words[slot * CDW_WORDS + 1]!;
  }

  /** Command dword 10 .. 15. */
  dword(slot: number, number: 10 | 11 | 12 | 13 | 14 | 15): number {
    return this.#words[slot * CDW_WORDS + number - 8]!;
  }
}

export abstract class CommandQueue implements CommandHandler, IoOwner {
  readonly connection: Connection;
  readonly io: IoTable;
  readonly arena: Arena;
  readonly words: CommandWords;
  readonly entries: number;
  /** The host does not look at SQHD; reads may then end without a response capsule. */
  readonly flowControlOff: boolean;
  /** Commands taken and not yet answered. */
  inFlight = 0;
  sqHead = 0;

  // Requests that wait for room to be answered, oldest first; their NVMe status is in `parent`.
  #pendingHead = NONE;
  #pendingTail = NONE;
  #closed = false;
  #headUnsaid = 0;

  constructor(connection: Connection, entries: number, flowControlOff: boolean) {
    this.connection = connection;
    this.io = connection.io;
    this.arena = connection.arena;
    this.words = connection.target.words;
    this.entries = entries;
    this.flowControlOff = flowControlOff;
  }

  abstract onCapsule(sqe: number, data: number, dataBytes: number): boolean;
  /** Carries out a command whose host data, if any, is in `io.buffer[slot]`. Ends with `finish`. */
  protected abstract execute(slot: number): void;
  abstract ioDone(slot: number): void;
  /** Slots promised for one request of this queue. */
  protected abstract readonly slotsPerCommand: number;
  /** Called when the connection is closed and nothing of the queue is in flight. */
  protected abstract onDrained(): void;

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
    this.words.keep(slot, arena.u32, w);
    if (toController && sglBytes > 0 && data < 0) {
      if (!connection.requestHostData(slot)) {
        this.#giveSlot(slot, true);
        return false;
      }
      this.begin();
      return true;
    }
    this.begin();
    if (data >= 0) copyMemory(arena.address + buffer, arena.address + data, sglBytes);
    if (toHost && sglBytes > 0) arena.u8.fill(0, buffer, buffer + sglBytes);
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
    if (sglBytes > TRANSFER_BYTES_MAX) return Status.DATA_SGL_LENGTH_INVALID | STATUS_DNR;
    if (sglBytes === 0) return 0;
    const id = this.arena.u8[sqe + 39]!;
    if (toController && data >= 0) {
      if (id !== SglId.DATA_BLOCK_OFFSET) return Status.SGL_DESCRIPTOR_TYPE_INVALID | STATUS_DNR;
      return sglBytes === dataBytes ? 0 : Status.DATA_SGL_LENGTH_INVALID | STATUS_DNR;
    }
    if (id !== SglId.TRANSPORT_DATA_BLOCK) return Status.SGL_DESCRIPTOR_TYPE_INVALID | STATUS_DNR;
    return 0;
  }

  onHostData(slot: number, intact: boolean): void {
    if (intact) this.execute(slot);
    else this.finish(slot, Status.TRANSIENT_TRANSPORT_ERROR, 0, 0);
  }

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
    const { io } = this;
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
    const success = dw0 === 0 && this.headMayLag();
    const stream = connection.stream;
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
    if (!stream.sendRoom || !connection.sendData(buffer, length, cid, success)) return false;
    // The buffer is the stream's now. The response behind large data may have to wait on its own.
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

  /** Answers what waited for room, oldest first. */
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
  }

  #giveSlot(slot: number, freeBuffer: boolean): void {
    const { io } = this;
    const kind = io.tagA[slot]! & DATA_KIND_MASK;
    if (freeBuffer && kind === DataKind.OWN) this.arena.free(io.buffer[slot]!);
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

  /** True once the connection is gone; what is still in flight is then dropped when it ends. */
  protected get closed(): boolean {
    return this.#closed;
  }

  onClosed(awaiting: readonly number[]): void {
    this.#closed = true;
    const slots = [...awaiting];
    for (let slot = this.#pendingHead; slot !== NONE; slot = this.io.next[slot]!) slots.push(slot);
    this.#pendingHead = NONE;
    const idle = this.inFlight === 0;
    for (const slot of slots) this.release(slot, true);
    if (idle) this.onDrained();
  }
}
