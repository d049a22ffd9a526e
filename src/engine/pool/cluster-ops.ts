/**
 * Operations on entries of cluster maps that need a record: mapping a cluster at the first write,
 * copying a shared one before a write, unmapping. Requests that need the outcome wait in the
 * operation's queue and go on, in their order, when it is over.
 *
 * An entry with an operation under way is marked BUSY. Writes to it wait; reads go on from the
 * cluster it had, which stays as it is until no request is under way to it.
 */
import { assert } from "../../assert.ts";
import { IoStatus } from "../../errors.ts";
import type { PoolCore } from "./core.ts";
import type { CommitWaiter } from "./journal.ts";
import { CLUSTER_OPS_MAX, COPIES_MAX, COPY_BYTES } from "./limits.ts";
import { RecordEncoder } from "./records.ts";
import type { Replica } from "./replica.ts";
import { BUSY, CLUSTER_MASK, SHARED, UNMAPPED, UNMAPPED_BUSY } from "./state.ts";

const NONE = -1;
const SCRATCH_BYTES = 64;

/** One operation on entries [start, start + count) of a replica. */
export class ClusterOp implements CommitWaiter {
  replica: Replica | null = null;
  kind: "map" | "copy" | "unmap" = "map";
  start = 0;
  count = 0;
  /** The cluster taken for it, or -1. */
  cluster = NONE;
  /** Queue of waiting requests, linked by `io.next`. */
  head = NONE;
  tail = NONE;
  readonly #ops: ClusterOps;

  constructor(ops: ClusterOps) {
    this.#ops = ops;
  }

  committed(isDurable: boolean): void {
    this.#ops.onCommitted(this, isDurable);
  }
}

export class ClusterOps {
  readonly #core: PoolCore;
  readonly #all: ClusterOp[] = [];
  readonly #free: ClusterOp[] = [];
  readonly #record = new RecordEncoder(SCRATCH_BYTES);
  /** Operations that wait for a free cluster, oldest first. */
  #starved: ClusterOp[] = [];
  /** Copies that wait for their turn, oldest first. */
  readonly #copyQueue: ClusterOp[] = [];
  #copies = 0;
  /** Requests that wait for an operation to become free. */
  #head = NONE;
  #tail = NONE;

  constructor(core: PoolCore) {
    this.#core = core;
    for (let i = 0; i < CLUSTER_OPS_MAX; i++) {
      const op = new ClusterOp(this);
      this.#all.push(op);
      this.#free.push(op);
    }
  }

  /** Operations that wait for a cluster. */
  get demand(): number {
    return this.#starved.length;
  }

  /** The operation under way on an entry that is BUSY. */
  find(replica: Replica, index: number): ClusterOp {
    for (const op of this.#all) {
      if (op.replica === replica && index >= op.start && index < op.start + op.count) return op;
    }
    assert(false, "a busy entry has an operation");
  }

  /** True when one more operation can be begun. */
  get hasFree(): boolean {
    return this.#free.length > 0;
  }

  /**
   * Begins to make an entry writable: maps it, or copies it when it is shared. Not OK: it was not
   * begun, NO_SPACE. `hasFree` must be true.
   */
  beginWritable(replica: Replica, index: number): IoStatus {
    const { object } = replica;
    const entry = object.map[index]!;
    assert(entry === UNMAPPED || (entry >= 0 && (entry & BUSY) === 0), "the entry is idle");
    if (!this.#core.space.admit(object)) return IoStatus.NO_SPACE;
    const op = this.#begin(replica, entry < 0 ? "map" : "copy", index, 1);
    this.#supply(op);
    if (op.cluster === NONE) {
      this.#starved.push(op);
      this.#core.cleaner.kick();
    }
    return IoStatus.OK;
  }

  /** Begins to unmap entries, none of them BUSY; returns the operation. `hasFree` must be true. */
  beginUnmap(replica: Replica, start: number, count: number): ClusterOp {
    const op = this.#begin(replica, "unmap", start, count);
    const record = this.#record.reset().unmap(replica.object.id, start, count);
    this.#core.journal.append(record.bytes, record.at, op);
    return op;
  }

  #begin(replica: Replica, kind: ClusterOp["kind"], start: number, count: number): ClusterOp {
    const op = this.#free.pop()!;
    op.replica = replica;
    op.kind = kind;
    op.start = start;
    op.count = count;
    op.cluster = NONE;
    op.head = NONE;
    op.tail = NONE;
    replica.ops++;
    const { map } = replica.object;
    for (let i = start; i < start + count; i++) {
      map[i] = map[i]! < 0 ? UNMAPPED_BUSY : map[i]! | BUSY;
    }
    return op;
  }

  /** Puts a request at the end of an operation's queue. */
  wait(op: ClusterOp, slot: number): void {
    const { next } = this.#core.io;
    next[slot] = NONE;
    if (op.tail === NONE) op.head = slot;
    else next[op.tail] = slot;
    op.tail = slot;
  }

  /** Has a request wait until an operation can be begun. */
  waitForFree(slot: number): void {
    const { next } = this.#core.io;
    next[slot] = NONE;
    if (this.#tail === NONE) this.#head = slot;
    else next[this.#tail] = slot;
    this.#tail = slot;
  }

  /** Gives the operation a cluster, if one is ready, and sets it going. */
  #supply(op: ClusterOp): void {
    const { space } = this.#core;
    if (op.kind === "map") {
      op.cluster = space.takeZeroed();
      if (op.cluster !== NONE) this.#commitMap(op);
      return;
    }
    const wasDirty = space.dirty > 0;
    op.cluster = space.takeAny();
    if (op.cluster === NONE) return;
    // Before the first byte goes into a cluster that is on record as zeroes, the record is taken back.
    if (wasDirty) this.#queueCopy(op);
    else {
      const record = this.#record.reset().taint(op.cluster);
      this.#core.journal.append(record.bytes, record.at, {
        committed: (isDurable) => {
          if (isDurable) this.#queueCopy(op);
          else this.onCommitted(op, false);
        },
      });
    }
  }

  #commitMap(op: ClusterOp): void {
    const { journal, cleaner } = this.#core;
    const record = this.#record.reset().mapRun(op.replica!.object.id, op.start, 1, op.cluster);
    journal.append(record.bytes, record.at, op);
    cleaner.kick();
  }

  /** Free clusters have become ready. */
  onSupply(): void {
    const starved = this.#starved;
    this.#starved = [];
    for (const op of starved) {
      this.#supply(op);
      if (op.cluster === NONE) this.#starved.push(op);
    }
  }

  /** No clusters will become ready soon: whoever waits for one fails. */
  onNoSupply(status: IoStatus): void {
    const starved = this.#starved;
    this.#starved = [];
    for (const op of starved) this.#finish(op, status);
  }

  // -------------------------------------------------------------------------------- copying

  #queueCopy(op: ClusterOp): void {
    this.#copyQueue.push(op);
    this.#startCopies();
  }

  #startCopies(): void {
    while (this.#copies < COPIES_MAX && this.#copyQueue.length > 0) {
      const op = this.#copyQueue.shift()!;
      this.#copies++;
      this.#core.spawn(async () => {
        const status = await this.#copy(op);
        this.#copies--;
        if (status === IoStatus.OK) this.#commitMap(op);
        else this.#finish(op, status);
        this.#startCopies();
      });
    }
  }

  /** Copies the shared cluster as a whole and makes the copy durable. */
  async #copy(op: ClusterOp): Promise<IoStatus> {
    const { device, clusterBytes, reactor } = this.#core;
    const from = (op.replica!.object.map[op.start]! & CLUSTER_MASK) * clusterBytes;
    const to = op.cluster * clusterBytes;
    const step = Math.min(COPY_BYTES, clusterBytes);
    const buffer = await device.buffer(step);
    let status: IoStatus = IoStatus.OK;
    for (let at = 0; at < clusterBytes && status === IoStatus.OK; at += step) {
      status = await device.read(from + at, step, buffer);
      if (status === IoStatus.OK) status = await device.write(to + at, step, buffer);
    }
    reactor.arena.free(buffer);
    return status === IoStatus.OK ? device.flush() : status;
  }

  // ------------------------------------------------------------------------------ finishing

  /** The record of an operation is durable, or the journal has failed. */
  onCommitted(op: ClusterOp, isDurable: boolean): void {
    this.#finish(op, isDurable ? IoStatus.OK : this.#core.refusal());
  }

  /** Ends an operation and lets those who wait for it go on, or fail. */
  #finish(op: ClusterOp, status: IoStatus): void {
    const replica = op.replica!;
    const { io, spans } = this.#core;
    if (status !== IoStatus.OK) this.#undo(op);
    let slot = op.head;
    op.replica = null;
    this.#free.push(op);
    replica.ops--;
    while (slot !== NONE) {
      const next = io.next[slot]!;
      spans.resume(slot, status);
      slot = next;
    }
    this.#resumeWaiting();
    if (replica.ops === 0) replica.onOpsDone();
  }

  /** Takes back what an operation that failed has marked and taken. */
  #undo(op: ClusterOp): void {
    const { space, journal } = this.#core;
    const { object } = op.replica!;
    for (let i = op.start; i < op.start + op.count; i++) {
      const entry = object.map[i]!;
      object.map[i] = entry < 0 ? UNMAPPED : entry & ~BUSY;
    }
    if (op.kind === "unmap") return;
    if (op.cluster === NONE) space.retract(object);
    // A record that may or may not be on the disk keeps its cluster out of use until the next import.
    else if (!journal.failed) space.putBack(object, op.cluster, false);
  }

  #resumeWaiting(): void {
    const { io, spans } = this.#core;
    while (this.#head !== NONE && this.#free.length > 0) {
      const slot = this.#head;
      this.#head = io.next[slot]!;
      if (this.#head === NONE) this.#tail = NONE;
      spans.resume(slot, IoStatus.OK);
    }
  }
}

/** True when a write to the entry needs an operation first, and none is under way. */
export function needsWritable(entry: number): boolean {
  return entry === UNMAPPED || (entry >= 0 && (entry & BUSY) === 0 && (entry & SHARED) !== 0);
}
