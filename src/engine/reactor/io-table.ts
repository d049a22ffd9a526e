/**
 * Requests of one reactor. A request is an integer, its slot; its fields are entries of typed
 * arrays. Nothing is allocated per request.
 *
 * A request travels down through layers (nexus, replica, device) and its completion travels back
 * up: each layer that wants to see the completion pushes itself as an owner before it passes the
 * request on, and `complete` pops and calls the last one pushed.
 */
import { assert } from "../../assert.ts";
import { IO_DEPTH, IO_SLOTS } from "./limits.ts";

/** What a request asks of a block device. */
export const IoOp = {
  NONE: 0,
  READ: 1,
  WRITE: 2,
  FLUSH: 3,
  WRITE_ZEROES: 4,
  DISCARD: 5,
} as const;
export type IoOp = (typeof IoOp)[keyof typeof IoOp];

/** Names of the operations, by number. */
export const ioOpNames = ["none", "read", "write", "flush", "write-zeroes", "discard"] as const;

/** Flags of a request. */
export const IoFlag = {
  /** The data is on stable storage when the request completes. */
  FUA: 1,
  /** With WRITE_ZEROES: the range may be deallocated as long as it reads as zeroes. */
  UNMAP: 2,
  /** Rebuild or other background work, not a host's command. */
  BACKGROUND: 4,
} as const;

/** Whoever waits for a request. */
export interface IoOwner {
  /** The request has ended with `io.status[slot]`. The owner frees the slot or passes it on. */
  ioDone(slot: number): void;
}

const FREE_DEPTH = 255;

export class IoTable {
  readonly capacity = IO_SLOTS;
  readonly op = new Uint8Array(IO_SLOTS);
  readonly flags = new Uint8Array(IO_SLOTS);
  /** An `IoStatus`, valid once the request has ended. */
  readonly status = new Uint8Array(IO_SLOTS);
  /** Byte offset on the device it is submitted to. A layer that maps addresses rewrites it. */
  readonly offset = new Float64Array(IO_SLOTS);
  /** Length in bytes. Reads and writes: at most 1 MiB. */
  readonly length = new Float64Array(IO_SLOTS);
  /** Arena offset of the data, or -1 for operations without data. */
  readonly buffer = new Int32Array(IO_SLOTS);
  /** Time in ns (the reactor's `now`) at which the slot was taken. */
  readonly startedNs = new Float64Array(IO_SLOTS);
  /** For the device that serves the request: two numbers of its own while it does. */
  readonly deviceA = new Int32Array(IO_SLOTS);
  readonly deviceB = new Int32Array(IO_SLOTS);
  /** For whoever took the slot: the request it serves, and three numbers of its own. */
  readonly parent = new Int32Array(IO_SLOTS);
  readonly tagA = new Int32Array(IO_SLOTS);
  readonly tagB = new Int32Array(IO_SLOTS);
  readonly tagC = new Int32Array(IO_SLOTS);
  /** A link for queues of requests; -1 ends one. */
  readonly next = new Int32Array(IO_SLOTS);

  readonly #owners: (IoOwner | null)[] = new Array<IoOwner | null>(IO_SLOTS * IO_DEPTH).fill(null);
  readonly #depth = new Uint8Array(IO_SLOTS).fill(FREE_DEPTH);
  readonly #free = new Int32Array(IO_SLOTS);
  #freeCount = IO_SLOTS;
  #promised = 0;
  /** Set when slots were given back since the reactor last looked. */
  freed = false;

  constructor() {
    for (let i = 0; i < IO_SLOTS; i++) this.#free[i] = IO_SLOTS - 1 - i;
  }

  /** Slots not in use. */
  get free(): number {
    return this.#freeCount;
  }

  /**
   * Promises `count` slots to a request about to be admitted, so that no layer below can find the
   * table empty. False: try again when slots were freed.
   */
  promise(count: number): boolean {
    if (this.#promised + count > IO_SLOTS) return false;
    this.#promised += count;
    return true;
  }

  /** Takes a promise back, when the request it was made for has ended. */
  release(count: number): void {
    this.#promised -= count;
    this.freed = true;
    assert(this.#promised >= 0, "promised slots do not go negative");
  }

  /**
   * Takes a promise back that was made a moment ago and not used, for want of something else.
   * Nobody is told: whoever withdraws and waits would otherwise wake itself, over and over.
   */
  withdraw(count: number): void {
    this.#promised -= count;
    assert(this.#promised >= 0, "promised slots do not go negative");
  }

  /** Takes a slot (covered by a promise) and fills its fields. */
  take(
    op: number,
    offset: number,
    length: number,
    buffer: number,
    flags: number,
    nowNs: number,
  ): number {
    assert(this.#freeCount > 0, "a promised slot is free");
    const slot = this.#free[--this.#freeCount]!;
    this.#depth[slot] = 0;
    this.op[slot] = op;
    this.flags[slot] = flags;
    this.status[slot] = 0;
    this.offset[slot] = offset;
    this.length[slot] = length;
    this.buffer[slot] = buffer;
    this.startedNs[slot] = nowNs;
    return slot;
  }

  /** Gives a slot back. */
  give(slot: number): void {
    assert(this.#depth[slot] === 0, "a freed request has no owner left");
    this.#depth[slot] = FREE_DEPTH;
    this.#free[this.#freeCount++] = slot;
  }

  /** Pushes an owner: the next `complete` of the slot calls it. */
  push(slot: number, owner: IoOwner): void {
    const depth = this.#depth[slot]!;
    assert(depth < IO_DEPTH, "request passes a bounded number of layers");
    this.#owners[slot * IO_DEPTH + depth] = owner;
    this.#depth[slot] = depth + 1;
  }

  /** Ends the request at this layer with `status` and tells the owner pushed last. */
  complete(slot: number, status: number): void {
    const depth = this.#depth[slot]! - 1;
    assert(depth >= 0 && depth < IO_DEPTH, "completed request is in flight");
    this.#depth[slot] = depth;
    this.status[slot] = status;
    this.#owners[slot * IO_DEPTH + depth]!.ioDone(slot);
  }

  /** True while the slot is in use by anybody. */
  inUse(slot: number): boolean {
    return slot >= 0 && slot < IO_SLOTS && this.#depth[slot] !== FREE_DEPTH;
  }
}
