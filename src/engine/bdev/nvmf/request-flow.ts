/**
 * The way of requests through one namespace: which commands they become, how those that find no room
 * wait, and how they end.
 *
 * A request that is longer than what one command carries goes out in pieces. Reads and writes send
 * all pieces at once; zeroing and discarding one after the other, behind what waits, so that a long
 * range does not keep other requests out. Waiting requests are linked through `io.next`.
 *
 * Per request: `deviceA` is what has been issued (reads and writes: bytes; zeroing and discarding:
 * pieces that have ended); `deviceB` holds
 * | bits  | holds                                                         |
 * |-------|---------------------------------------------------------------|
 * | 0-11  | commands in flight for it                                     |
 * | 12    | one of them was lost with its connection                      |
 * | 13    | ... and had timed out                                         |
 * | 16-23 | I/O status of the first command that failed                   |
 * | 24-31 | index of its Dataset Management range                         |
 */
import { assert } from "../../../assert.ts";
import { IoStatus } from "../../../errors.ts";
import { IoOpcode } from "../../../nvme/constants.ts";
import { DSM_DEALLOCATE, DSM_RANGE_BYTES, IoDword12 } from "../../../nvme/host-commands.ts";
import type { Arena, Waiter } from "../../reactor/arena.ts";
import { IoFlag, IoOp, type IoTable } from "../../reactor/io-table.ts";
import { BUFFER_BYTES_MAX } from "../../reactor/limits.ts";
import type { Reactor } from "../../reactor/reactor.ts";
import { Direction } from "./command-table.ts";
import type { Controller, ControllerIo } from "./controller.ts";
import { DISCARD_BYTES_MAX, DISCARDS_MAX, WRITE_ZEROES_BLOCKS_MAX, ZERO_BYTES } from "./limits.ts";
import type { NvmfSettings } from "./options.ts";
import type { QueuePair } from "./queue-pair.ts";
import { nvmeIoStatus, STATUS_CODE_MASK } from "./status.ts";

const NONE = -1;
const COUNT_MASK = 0xfff;
const LOST = 1 << 12;
const TIMED_OUT = 1 << 13;
const STATUS_SHIFT = 16;
const STATUS_BITS = 0xff << STATUS_SHIFT;
const RANGE_SHIFT = 24;
const BELOW_RANGE = (1 << RANGE_SHIFT) - 1;
const TWO_32 = 4294967296;

/** Arena memory that a flow needs for its Dataset Management ranges. */
export const FLOW_BYTES = DISCARDS_MAX * DSM_RANGE_BYTES;

export class RequestFlow implements ControllerIo, Waiter {
  /** Requests that have not ended. */
  outstanding = 0;
  /** Called when the last outstanding request has ended. */
  onDrained: (() => void) | null = null;

  readonly #reactor: Reactor;
  readonly #io: IoTable;
  readonly #arena: Arena;
  readonly #nsid: number;
  readonly #blockSize: number;
  readonly #retries: boolean;
  readonly #ioTimeoutNs: number;
  readonly #ranges: number;
  readonly #freeRanges = Uint8Array.from({ length: DISCARDS_MAX }, (_, i) => i);
  #freeRangeCount = DISCARDS_MAX;
  #controller: Controller;
  #queues: readonly QueuePair[] = [];
  #nextQueue = 0;
  #pieceBytes = 0;
  #zeroPieceBytes = 0;
  #discardPieceBytes = 0;
  #writesZeroes = false;
  #deallocates = false;
  #zeroBuffer = NONE;
  #waitHead = NONE;
  #waitTail = NONE;
  #retryHead = NONE;
  #retryTail = NONE;
  #waitingForMemory = false;

  /** `ranges` is arena memory of `FLOW_BYTES`, the flow's until `close`. */
  constructor(reactor: Reactor, controller: Controller, settings: NvmfSettings, ranges: number) {
    this.#reactor = reactor;
    this.#io = reactor.io;
    this.#arena = reactor.arena;
    this.#nsid = controller.namespace.nsid;
    this.#blockSize = controller.namespace.blockSize;
    this.#retries = settings.onLoss === "retry";
    this.#ioTimeoutNs = settings.ioTimeoutMs * 1e6;
    this.#ranges = ranges;
    this.#controller = controller;
    this.begin(controller);
  }

  /** Goes on with an association that has been opened. */
  begin(controller: Controller): void {
    const { identity, limits, namespace } = controller;
    const blockSize = this.#blockSize;
    this.#controller = controller;
    this.#queues = controller.queues;
    this.#nextQueue = 0;
    const transferBytes = Math.min(controller.transferBytes, BUFFER_BYTES_MAX);
    this.#pieceBytes = Math.floor(transferBytes / blockSize) * blockSize;
    this.#deallocates = namespace.writeZeroesDeallocates;
    this.#zeroPieceBytes = Math.min(ZERO_BYTES, this.#pieceBytes);
    this.#writesZeroes = identity.supportsWriteZeroes;
    if (this.#writesZeroes) {
      const { writeZeroesSize } = limits;
      const limit = writeZeroesSize === 0 ? Infinity : controller.pageBytes * 2 ** writeZeroesSize;
      this.#zeroPieceBytes = Math.min(WRITE_ZEROES_BLOCKS_MAX * blockSize, limit);
    }
    const rangeBlocks = limits.dsmRangeBlocks === 0 ? Infinity : limits.dsmRangeBlocks;
    this.#discardPieceBytes = Math.min(DISCARD_BYTES_MAX, rangeBlocks * blockSize);
  }

  /** Gives its memory back. Nothing is outstanding. */
  close(): void {
    assert(this.outstanding === 0, "a closed flow has no requests");
    this.#arena.free(this.#ranges);
    if (this.#zeroBuffer !== NONE) this.#arena.free(this.#zeroBuffer);
  }

  // -------------------------------------------------------------------------------- issuing

  /** Takes a request whose range has been checked. */
  submit(slot: number): void {
    const io = this.#io;
    this.outstanding++;
    io.deviceA[slot] = 0;
    io.deviceB[slot] = 0;
    if (this.#waitHead !== NONE || !this.#issue(slot)) this.#wait(slot);
  }

  /** Queues the commands of a request as far as there is room. True when all of it is queued. */
  #issue(slot: number): boolean {
    const op = this.#io.op[slot]!;
    if (op === IoOp.READ || op === IoOp.WRITE) return this.#issueTransfer(slot, op === IoOp.WRITE);
    if (op === IoOp.WRITE_ZEROES) return this.#issueZeroes(slot);
    if (op === IoOp.DISCARD) return this.#issueDiscard(slot);
    return this.#start(slot, IoOpcode.FLUSH, Direction.NONE, 0, 0, 0, 0, 0);
  }

  #issueTransfer(slot: number, isWrite: boolean): boolean {
    const io = this.#io;
    const blockSize = this.#blockSize;
    const length = io.length[slot]!;
    const buffer = io.buffer[slot]!;
    const fua = (io.flags[slot]! & IoFlag.FUA) !== 0 ? IoDword12.FUA : 0;
    const opcode = isWrite ? IoOpcode.WRITE : IoOpcode.READ;
    const direction = isWrite ? Direction.OUT : Direction.IN;
    let done = io.deviceA[slot]!;
    while (done < length) {
      const bytes = Math.min(this.#pieceBytes, length - done);
      const lba = (io.offset[slot]! + done) / blockSize;
      const dword12 = (bytes / blockSize - 1) | fua;
      if (!this.#start(slot, opcode, direction, buffer + done, bytes, lba, dword12, 0))
        return false;
      done += bytes;
      io.deviceA[slot] = done;
    }
    return true;
  }

  #issueZeroes(slot: number): boolean {
    const io = this.#io;
    const blockSize = this.#blockSize;
    const done = io.deviceA[slot]! * this.#zeroPieceBytes;
    const bytes = Math.min(this.#zeroPieceBytes, io.length[slot]! - done);
    const lba = (io.offset[slot]! + done) / blockSize;
    let dword12 = bytes / blockSize - 1;
    if ((io.flags[slot]! & IoFlag.FUA) !== 0) dword12 |= IoDword12.FUA;
    if (this.#writesZeroes) {
      const unmap = (io.flags[slot]! & IoFlag.UNMAP) !== 0 && this.#deallocates;
      if (unmap) dword12 |= IoDword12.DEALLOCATE;
      return this.#start(slot, IoOpcode.WRITE_ZEROES, Direction.NONE, 0, 0, lba, dword12, 0);
    }
    if (this.#zeroBuffer === NONE) {
      this.#zeroBuffer = this.#arena.alloc(ZERO_BYTES, 0);
      if (this.#zeroBuffer === NONE) {
        this.#waitForMemory();
        return false;
      }
      this.#arena.u8.fill(0, this.#zeroBuffer, this.#zeroBuffer + ZERO_BYTES);
    }
    const { WRITE } = IoOpcode;
    return this.#start(slot, WRITE, Direction.OUT, this.#zeroBuffer, bytes, lba, dword12, 0);
  }

  /** One Dataset Management command with one range (NVM Command Set, 3.2.3). */
  #issueDiscard(slot: number): boolean {
    if (this.#freeRangeCount === 0) return false;
    const io = this.#io;
    const blockSize = this.#blockSize;
    const done = io.deviceA[slot]! * this.#discardPieceBytes;
    const bytes = Math.min(this.#discardPieceBytes, io.length[slot]! - done);
    const lba = (io.offset[slot]! + done) / blockSize;
    const range = this.#freeRanges[this.#freeRangeCount - 1]!;
    const at = this.#ranges + range * DSM_RANGE_BYTES;
    const i32 = this.#arena.i32;
    const w = at >> 2;
    i32[w] = 0;
    i32[w + 1] = bytes / blockSize;
    i32[w + 2] = lba;
    i32[w + 3] = lba / TWO_32;
    const { DATASET_MANAGEMENT } = IoOpcode;
    const length = DSM_RANGE_BYTES;
    if (!this.#start(slot, DATASET_MANAGEMENT, Direction.OUT, at, length, 0, 0, DSM_DEALLOCATE)) {
      return false;
    }
    this.#freeRangeCount--;
    io.deviceB[slot] = (io.deviceB[slot]! & BELOW_RANGE) | (range << RANGE_SHIFT);
    return true;
  }

  /** Starts one command of a request on a queue that has room. `lba` fills dwords 10 and 11. */
  #start(
    slot: number,
    opcode: number,
    direction: number,
    dataAt: number,
    dataBytes: number,
    lba: number,
    dword12: number,
    dword11: number,
  ): boolean {
    const queues = this.#queues;
    const deadlineNs = this.#reactor.now + this.#ioTimeoutNs;
    const high = (lba / TWO_32) | dword11;
    for (let tried = 0; tried < queues.length; tried++) {
      const queue = queues[this.#nextQueue]!;
      this.#nextQueue = this.#nextQueue + 1 < queues.length ? this.#nextQueue + 1 : 0;
      const index = queue.start(
        slot,
        opcode,
        this.#nsid,
        direction,
        dataAt,
        dataBytes,
        deadlineNs,
        lba,
        high,
        dword12,
        0,
        0,
        0,
      );
      if (index >= 0) {
        this.#io.deviceB[slot] = this.#io.deviceB[slot]! + 1;
        if (!this.#controller.watching) this.#controller.watch();
        return true;
      }
    }
    return false;
  }

  // -------------------------------------------------------------------------------- waiting

  #wait(slot: number): void {
    const { next } = this.#io;
    next[slot] = NONE;
    if (this.#waitHead === NONE) this.#waitHead = slot;
    else next[this.#waitTail] = slot;
    this.#waitTail = slot;
  }

  #unwait(): number {
    const slot = this.#waitHead;
    this.#waitHead = this.#io.next[slot]!;
    return slot;
  }

  /** Issues waiting requests while there is room. */
  pump(): void {
    const io = this.#io;
    while (this.#waitHead !== NONE) {
      const slot = this.#waitHead;
      if ((io.deviceB[slot]! & STATUS_BITS) !== 0) {
        // A piece has failed: the rest is not sent, and the request ends with its last command.
        this.#unwait();
        io.deviceA[slot] = io.length[slot]!;
        if ((io.deviceB[slot]! & COUNT_MASK) === 0) this.#settle(slot);
      } else if (this.#issue(slot)) {
        assert(this.#waitHead === slot, "a request that is being issued stays first");
        this.#unwait();
      } else return;
    }
  }

  #waitForMemory(): void {
    if (this.#waitingForMemory) return;
    this.#waitingForMemory = true;
    this.#reactor.waitForResources(this);
  }

  resume(): void {
    this.#waitingForMemory = false;
    this.pump();
  }

  ioRoom(): void {
    if (this.#waitHead !== NONE) this.pump();
  }

  // ------------------------------------------------------------------------------ completions

  ioDone(slot: number, status: number): void {
    const io = this.#io;
    let state = io.deviceB[slot]! - 1;
    if (status !== 0 && (state & STATUS_BITS) === 0) {
      state |= nvmeIoStatus[status & STATUS_CODE_MASK]! << STATUS_SHIFT;
    }
    io.deviceB[slot] = state;
    if ((state & COUNT_MASK) === 0) this.#settle(slot);
    if (this.#waitHead !== NONE) this.pump();
  }

  ioLost(slot: number, timedOut: boolean): void {
    const io = this.#io;
    const state = (io.deviceB[slot]! - 1) | LOST | (timedOut ? TIMED_OUT : 0);
    io.deviceB[slot] = state;
    if ((state & COUNT_MASK) === 0) this.#settle(slot);
  }

  /** No command of the request is in flight any more: it goes on, starts again, or ends. */
  #settle(slot: number): void {
    const io = this.#io;
    const op = io.op[slot]!;
    const state = io.deviceB[slot]!;
    const isTransfer = op === IoOp.READ || op === IoOp.WRITE;
    const length = io.length[slot]!;
    if (op === IoOp.DISCARD) this.#freeRanges[this.#freeRangeCount++] = state >>> RANGE_SHIFT;
    const status = ((state & STATUS_BITS) >> STATUS_SHIFT) as IoStatus;
    const isWaiting = isTransfer && io.deviceA[slot]! < length;
    if ((state & LOST) !== 0 && status === IoStatus.OK) {
      this.#settleLost(slot, isWaiting, (state & TIMED_OUT) !== 0);
      return;
    }
    if (isWaiting) return;
    if (status !== IoStatus.OK || isTransfer || op === IoOp.FLUSH) {
      this.#end(slot, status);
      return;
    }
    const pieces = io.deviceA[slot]! + 1;
    const pieceBytes = op === IoOp.DISCARD ? this.#discardPieceBytes : this.#zeroPieceBytes;
    io.deviceA[slot] = pieces;
    io.deviceB[slot] = 0;
    if (pieces * pieceBytes >= length) this.#end(slot, IoStatus.OK);
    else if (this.#waitHead !== NONE || !this.#issue(slot)) this.#wait(slot);
  }

  /** Commands of the request were lost with their connection. A waiting one is left where it waits. */
  #settleLost(slot: number, isWaiting: boolean, timedOut: boolean): void {
    const io = this.#io;
    if (this.#retries) {
      io.deviceA[slot] = 0;
      io.deviceB[slot] = 0;
      if (!isWaiting) this.#retryLater(slot);
    } else if (!isWaiting) this.#end(slot, timedOut ? IoStatus.TIMEOUT : IoStatus.UNAVAILABLE);
  }

  #retryLater(slot: number): void {
    const { next } = this.#io;
    next[slot] = NONE;
    if (this.#retryHead === NONE) this.#retryHead = slot;
    else next[this.#retryTail] = slot;
    this.#retryTail = slot;
  }

  #end(slot: number, status: IoStatus): void {
    this.outstanding--;
    this.#io.complete(slot, status);
    if (this.outstanding === 0) this.onDrained?.();
  }

  // ------------------------------------------------------------------ the end of an association

  /** The association has ended; none of its commands is in flight any more. */
  suspend(): void {
    this.#queues = [];
  }

  /** Ends everything that waits or was lost. None of it has a command in flight. */
  failWaiting(status: IoStatus): void {
    this.requeueLost();
    while (this.#waitHead !== NONE) this.#end(this.#unwait(), status);
  }

  /** Puts requests that were lost in front of those that wait; all of them start from the beginning. */
  requeueLost(): void {
    const { next, deviceA } = this.#io;
    if (this.#retryHead !== NONE) {
      next[this.#retryTail] = this.#waitHead;
      if (this.#waitHead === NONE) this.#waitTail = this.#retryTail;
      this.#waitHead = this.#retryHead;
      this.#retryHead = NONE;
    }
    // The next association may have other limits, so progress counted in pieces means nothing.
    for (let slot = this.#waitHead; slot !== NONE; slot = next[slot]!) deviceA[slot] = 0;
  }
}
