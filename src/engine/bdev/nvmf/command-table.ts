/**
 * Commands in flight on one queue. A command is an index into typed arrays; its id on the wire is
 * that index with a generation above it, so that an answer to a command that is over, or a second
 * answer, finds nobody.
 */
import { assert } from "../../../assert.ts";
import { LARGE_READ_BYTES_MIN, QUEUE_DEPTH_MAX } from "./limits.ts";

const INDEX_BITS = 10;
const INDEX_MASK = (1 << INDEX_BITS) - 1;
const GENERATION_MASK = 63;
const NONE = -1;

/** States of a command. */
export const CommandState = {
  FREE: 0,
  /** Sent, or queued to be sent; no answer yet. */
  ACTIVE: 1,
  /** As ACTIVE, and an Abort for it was sent. */
  ABORTING: 2,
  /** Answered, but its data is still being sent: the buffer cannot be given back yet. */
  ANSWERED: 3,
} as const;

/** Which way a command's data moves. */
export const Direction = { NONE: 0, OUT: 1, IN: 2 } as const;
export type Direction = (typeof Direction)[keyof typeof Direction];

export class CommandTable {
  readonly depth: number;
  readonly state: Uint8Array;
  /** Command id on the wire. */
  readonly cid: Int32Array;
  /** What the user calls the command: a request slot (0 and up), or a control command (negative). */
  readonly tag: Int32Array;
  readonly direction: Uint8Array;
  /** Arena offset and length of its data. */
  readonly dataAt: Int32Array;
  readonly dataBytes: Int32Array;
  /** Bytes received, or asked for by R2Ts. */
  readonly dataDone: Int32Array;
  /** R2Ts received and not answered in full. */
  readonly r2ts: Uint8Array;
  /** Set when data arrived damaged. */
  readonly damaged: Uint8Array;
  /** The stream's count of bytes sent at which all of the command's data has left. */
  readonly sentMark: Float64Array;
  /** Reactor time at which something is done about the command not ending. */
  readonly deadlineNs: Float64Array;
  /** Order in which commands were started. */
  readonly order: Float64Array;
  /** Of an ANSWERED command: its status and the first two dwords of its completion. */
  readonly status: Int32Array;
  readonly dword0: Int32Array;
  readonly dword1: Int32Array;

  /** Reads of `LARGE_READ_BYTES_MIN` and more among the commands in flight. */
  largeReads = 0;

  readonly #free: Int32Array;
  readonly #generation: Uint8Array;
  #freeCount: number;
  #orders = 0;

  constructor(depth: number) {
    assert(depth >= 1 && depth <= QUEUE_DEPTH_MAX, "queue depth within its limits");
    this.depth = depth;
    this.state = new Uint8Array(depth);
    this.cid = new Int32Array(depth).fill(NONE);
    this.tag = new Int32Array(depth);
    this.direction = new Uint8Array(depth);
    this.dataAt = new Int32Array(depth);
    this.dataBytes = new Int32Array(depth);
    this.dataDone = new Int32Array(depth);
    this.r2ts = new Uint8Array(depth);
    this.damaged = new Uint8Array(depth);
    this.sentMark = new Float64Array(depth);
    this.deadlineNs = new Float64Array(depth);
    this.order = new Float64Array(depth);
    this.status = new Int32Array(depth);
    this.dword0 = new Int32Array(depth);
    this.dword1 = new Int32Array(depth);
    this.#free = Int32Array.from({ length: depth }, (_, i) => depth - 1 - i);
    this.#generation = new Uint8Array(depth);
    this.#freeCount = depth;
  }

  /** Commands in flight. */
  get inFlight(): number {
    return this.depth - this.#freeCount;
  }

  get full(): boolean {
    return this.#freeCount === 0;
  }

  /** Takes an index; the table must not be full. */
  take(
    tag: number,
    direction: number,
    dataAt: number,
    dataBytes: number,
    deadlineNs: number,
  ): number {
    assert(this.#freeCount > 0, "a command is started only when the queue has room");
    const index = this.#free[--this.#freeCount]!;
    const generation = (this.#generation[index]! + 1) & GENERATION_MASK;
    this.#generation[index] = generation;
    this.state[index] = CommandState.ACTIVE;
    this.cid[index] = index | (generation << INDEX_BITS);
    this.tag[index] = tag;
    this.direction[index] = direction;
    this.dataAt[index] = dataAt;
    this.dataBytes[index] = dataBytes;
    this.dataDone[index] = 0;
    this.r2ts[index] = 0;
    this.damaged[index] = 0;
    this.sentMark[index] = 0;
    this.deadlineNs[index] = deadlineNs;
    this.order[index] = this.#orders++;
    if (direction === Direction.IN && dataBytes >= LARGE_READ_BYTES_MIN) this.largeReads++;
    return index;
  }

  /** Index of the command with this id that awaits an answer, or -1. */
  find(cid: number): number {
    const index = cid & INDEX_MASK;
    if (index >= this.depth || this.cid[index] !== cid) return NONE;
    return this.state[index] === CommandState.ANSWERED ? NONE : index;
  }

  /** Gives an index back. */
  release(index: number): void {
    assert(this.state[index] !== CommandState.FREE, "a released command was in flight");
    this.state[index] = CommandState.FREE;
    if (this.direction[index] === Direction.IN && this.dataBytes[index]! >= LARGE_READ_BYTES_MIN) {
      this.largeReads--;
    }
    this.cid[index] = NONE;
    this.#free[this.#freeCount++] = index;
  }

  /** Indexes in flight, in the order in which they were started. */
  inOrder(): number[] {
    const list: number[] = [];
    for (let i = 0; i < this.depth; i++) if (this.state[i] !== CommandState.FREE) list.push(i);
    return list.sort((a, b) => this.order[a]! - this.order[b]!);
  }
}
