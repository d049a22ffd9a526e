/**
 * The running journal: collects records, commits them in groups, applies them when they are durable.
 *
 * Records are queued during a turn and leave together at its end, at most one commit at a time; what
 * is queued meanwhile makes up the next one. A commit is durable when both copies are; only then do
 * its records change the pool's memory, in the order in which they were queued, and only then is
 * anybody told. When the ring is full, commits wait for the next checkpoint.
 *
 * A write that fails in one copy leaves the commit in the other: the pool is degraded and goes on.
 * A write that fails in both ends the journal: nothing is acknowledged any more.
 */
import { assert } from "../../assert.ts";
import { IoStatus } from "../../errors.ts";
import type { Bdev } from "../bdev/bdev.ts";
import { IoFlag, IoOp, type IoOwner } from "../reactor/io-table.ts";
import type { Reactor, TurnEnd } from "../reactor/reactor.ts";
import type { Timer } from "../reactor/timers.ts";
import type { Area } from "./area.ts";
import {
  COMMIT_BYTES_MAX,
  commitBlocks,
  encodeCommit,
  JOURNAL_BLOCK_BYTES,
  type JournalPosition,
} from "./journal-format.ts";
import { COMMIT_BLOCKS_MAX, JOURNAL_QUEUE_BYTES_MAX, LAZY_COMMIT_MS } from "./limits.ts";
import { RECORD_HEADER_BYTES } from "./records.ts";

/** Waits for records. */
export interface CommitWaiter {
  /** The records are durable and applied, or (`false`) the journal has failed. */
  committed(isDurable: boolean): void;
}

/** The pool around a journal. */
export interface JournalHost {
  /** Applies durable records. */
  apply(records: Uint8Array, from: number, to: number): void;
  /** A commit is through: time to look whether a checkpoint is due. */
  afterCommit(): void;
  /** The ring is full until a checkpoint is taken. */
  ringFull(): void;
  /** Both copies of a commit failed. */
  journalFailed(status: IoStatus): void;
  /** One copy of a commit failed. */
  journalDegraded(copy: number, status: IoStatus): void;
}

export interface JournalOptions {
  readonly bdev: Bdev;
  readonly rings: readonly [Area, Area];
  readonly tag: number;
  readonly incarnation: number;
  readonly position: JournalPosition;
  /** Blocks from this number on must stay readable. */
  readonly retainedFrom: number;
  readonly host: JournalHost;
}

const COPIES = 2;
/** Each copy of a commit may wrap and may meet the ends of extents. */
const PIECES_PER_COPY = 4;
const QUEUE_BYTES_MIN = 64 << 10;

export class Journal implements TurnEnd, IoOwner {
  queued = false;
  /** The state in memory contains everything before it. */
  position: JournalPosition;
  readonly incarnation: number;
  readonly ringBlocks: number;
  readonly #reactor: Reactor;
  readonly #options: JournalOptions;
  readonly #buffer: number;
  readonly #slots: number;
  #retainedFrom: number;
  #queue = new Uint8Array(QUEUE_BYTES_MIN);
  #queuedBytes = 0;
  readonly #waiters: { readonly end: number; readonly waiter: CommitWaiter }[] = [];
  /** Somebody waits for what is queued. */
  #urgent = false;
  #lazyTimer: Timer | null = null;
  #flightBytes = 0;
  #next: JournalPosition;
  #pieces = 0;
  readonly #copyStatus = new Uint8Array(COPIES);
  #isFull = false;
  #failed = false;
  #drained: (() => void)[] = [];

  /** The caller has checked that the reactor has the memory; the slots are promised by `slotsOf`. */
  constructor(options: JournalOptions, buffer: number) {
    this.#options = options;
    this.#reactor = options.bdev.reactor;
    this.#buffer = buffer;
    this.#slots = journalSlots(options.bdev);
    this.position = options.position;
    this.#next = options.position;
    this.#retainedFrom = options.retainedFrom;
    this.incarnation = options.incarnation;
    this.ringBlocks = options.rings[0].bytes / JOURNAL_BLOCK_BYTES;
  }

  /** Bytes of the buffer it is given. */
  static readonly bufferBytes = COMMIT_BLOCKS_MAX * JOURNAL_BLOCK_BYTES;

  get failed(): boolean {
    return this.#failed;
  }

  /** Blocks written since block `seq`. */
  blocksSince(seq: number): number {
    return this.position.seq - seq;
  }

  /**
   * Queues whole records. They are durable and applied when `waiter` is told. With `lazy` they wait
   * for company, a second at most.
   */
  append(records: Uint8Array, length: number, waiter: CommitWaiter | null, lazy = false): void {
    const end = this.#queuedBytes + length;
    assert(end <= JOURNAL_QUEUE_BYTES_MAX, "records waiting for the journal are bounded");
    if (end > this.#queue.byteLength) this.#growQueue(end);
    this.#queue.set(records.subarray(0, length), this.#queuedBytes);
    this.#queuedBytes = end;
    if (waiter !== null) this.#waiters.push({ end, waiter });
    if (!lazy) this.#urgent = true;
    else if (this.#lazyTimer === null && !this.#urgent) {
      this.#lazyTimer = this.#reactor.after(LAZY_COMMIT_MS, () => this.#hurry());
    }
    if (this.#urgent || this.#failed) this.#reactor.atTurnEnd(this);
  }

  #growQueue(bytes: number): void {
    let size = this.#queue.byteLength;
    while (size < bytes) size *= 2;
    const queue = new Uint8Array(size);
    queue.set(this.#queue.subarray(0, this.#queuedBytes));
    this.#queue = queue;
  }

  #hurry(): void {
    this.#lazyTimer = null;
    this.#urgent = true;
    this.#reactor.atTurnEnd(this);
  }

  /** Blocks before `seq` may be overwritten. */
  retainFrom(seq: number): void {
    assert(seq >= this.#retainedFrom, "what was given up is not asked for again");
    this.#retainedFrom = seq;
    if (this.#isFull) this.#reactor.atTurnEnd(this);
  }

  /** Resolves when nothing is queued or under way. */
  drain(): Promise<void> {
    if (this.#queuedBytes === 0 && this.#pieces === 0) return Promise.resolve();
    this.#hurry();
    return new Promise((resolve) => {
      this.#drained.push(resolve);
    });
  }

  /** Takes no more records: whoever waits is told so. For when the disk fails elsewhere. */
  fail(): void {
    this.#failed = true;
    if (this.#pieces === 0) this.#reactor.atTurnEnd(this);
  }

  /** Gives memory and slots back. Nothing may be under way. */
  release(): void {
    assert(this.#pieces === 0, "a closed journal has nothing in flight");
    this.#lazyTimer?.cancel();
    this.#reactor.arena.free(this.#buffer);
    this.#reactor.io.release(this.#slots);
  }

  endTurn(): void {
    if (this.#pieces > 0) return;
    if (this.#failed) this.#refuse();
    else if (this.#urgent && this.#queuedBytes > 0) this.#commit();
  }

  /** Bytes of whole records at the head of the queue that one commit takes. */
  #commitBytes(): number {
    let end = 0;
    while (end < this.#queuedBytes) {
      const length = this.#queue[end + 2]! | (this.#queue[end + 3]! << 8);
      const next = end + RECORD_HEADER_BYTES + length;
      if (next > COMMIT_BYTES_MAX) break;
      end = next;
    }
    assert(end > 0 && end <= this.#queuedBytes, "a record fits a commit");
    return end;
  }

  #commit(): void {
    const bytes = this.#commitBytes();
    const blocks = commitBlocks(bytes);
    this.#isFull = this.position.seq + blocks - this.#retainedFrom > this.ringBlocks;
    if (this.#isFull) {
      this.#options.host.ringFull();
      return;
    }
    this.#lazyTimer?.cancel();
    this.#lazyTimer = null;
    const { tag, rings } = this.#options;
    const { arena } = this.#reactor;
    this.#flightBytes = bytes;
    this.#next = encodeCommit(
      arena.u8,
      arena.memory.view,
      this.#buffer,
      this.#queue,
      bytes,
      tag,
      this.incarnation,
      this.position,
    );
    this.#copyStatus.fill(IoStatus.OK);
    const start = (this.position.seq % this.ringBlocks) * JOURNAL_BLOCK_BYTES;
    const length = blocks * JOURNAL_BLOCK_BYTES;
    const first = Math.min(length, rings[0].bytes - start);
    // Counted up front: a synchronous device ends each piece inside `submit`.
    const pieces = rings.map((ring) => [
      ...ring.pieces(start, first),
      ...ring.pieces(0, length - first),
    ]);
    this.#pieces = pieces[0]!.length + pieces[1]!.length;
    for (let copy = 0; copy < COPIES; copy++) {
      assert(pieces[copy]!.length <= PIECES_PER_COPY, "a commit has a bounded number of pieces");
      let at = this.#buffer;
      for (const piece of pieces[copy]!) {
        this.#write(copy, piece.offset, piece.bytes, at);
        at += piece.bytes;
      }
    }
  }

  #write(copy: number, offset: number, length: number, buffer: number): void {
    const { io, now } = this.#reactor;
    const flags = IoFlag.FUA | IoFlag.BACKGROUND;
    const slot = io.take(IoOp.WRITE, offset, length, buffer, flags, now);
    io.parent[slot] = copy;
    io.push(slot, this);
    this.#options.bdev.submit(slot);
  }

  ioDone(slot: number): void {
    const { io } = this.#reactor;
    const status = io.status[slot]!;
    const copy = io.parent[slot]!;
    io.give(slot);
    if (status !== IoStatus.OK) this.#copyStatus[copy] = status;
    if (--this.#pieces === 0) this.#committed();
  }

  #committed(): void {
    const { host } = this.#options;
    const [a, b] = [this.#copyStatus[0]! as IoStatus, this.#copyStatus[1]! as IoStatus];
    if (a !== IoStatus.OK && b !== IoStatus.OK) {
      this.#failed = true;
      host.journalFailed(a);
      this.#refuse();
      return;
    }
    if (a !== IoStatus.OK) host.journalDegraded(0, a);
    if (b !== IoStatus.OK) host.journalDegraded(1, b);
    const bytes = this.#flightBytes;
    this.position = this.#next; // It is durable, even when the pool has failed meanwhile.
    host.apply(this.#queue, 0, bytes);
    this.#queue.copyWithin(0, bytes, this.#queuedBytes);
    this.#queuedBytes -= bytes;
    const told = this.#takeWaiters(bytes);
    this.#urgent = this.#queuedBytes > 0;
    if (this.#urgent || this.#failed) this.#reactor.atTurnEnd(this);
    for (const waiter of told) waiter.committed(true);
    host.afterCommit();
    this.#tellDrained();
  }

  /** Those whose records end within the first `bytes` of the queue; the others move up. */
  #takeWaiters(bytes: number): CommitWaiter[] {
    let count = 0;
    while (count < this.#waiters.length && this.#waiters[count]!.end <= bytes) count++;
    const told = this.#waiters.splice(0, count).map(({ waiter }) => waiter);
    for (let i = 0; i < this.#waiters.length; i++) {
      const { end, waiter } = this.#waiters[i]!;
      this.#waiters[i] = { end: end - bytes, waiter };
    }
    return told;
  }

  /** After a failure nothing becomes durable any more: all who wait are told so. */
  #refuse(): void {
    this.#queuedBytes = 0;
    const told = this.#waiters.splice(0);
    for (const { waiter } of told) waiter.committed(false);
    this.#tellDrained();
  }

  #tellDrained(): void {
    if (this.#queuedBytes > 0 || this.#pieces > 0) return;
    const drained = this.#drained;
    this.#drained = [];
    for (const resolve of drained) resolve();
  }
}

/** Request slots that a journal on this device needs promised. */
export function journalSlots(bdev: Bdev): number {
  return COPIES * PIECES_PER_COPY * (bdev.slotsPerIo + 1);
}
