/**
 * The I/O path of a nexus: every host request is sent to its children and comes back when all of
 * them have answered. Nothing here allocates or waits; decisions that take time (recording a lost
 * child, marking regions, joining a child) are the control side's, which this asks through
 * `NexusControl` and which opens and closes the gate.
 *
 * A write may be acknowledged when every in-sync child has completed it and no lost child is
 * waiting to be recorded (DESIGN 6.1, 6.2). Until then it is held.
 */
import { assert } from "../../assert.ts";
import { IoStatus } from "../../errors.ts";
import type { Bdev } from "../bdev/bdev.ts";
import type { IoStatistics } from "../reactor/io-statistics.ts";
import { IoOp, type IoOwner, type IoTable } from "../reactor/io-table.ts";
import type { Reactor } from "../reactor/reactor.ts";
import type { RangeLocks } from "./range-locks.ts";
import type { Regions } from "./regions.ts";

const NONE = -1;

/** What the I/O path asks of the control side. */
export interface NexusControl {
  /** A child failed a request with `status`; the masks are to be changed before this returns. */
  childFailed(index: number, status: number): void;
  /** Regions are wanted dirty; `Regions.takeWanted` names them. Called once per batch. */
  regionsWanted(): void;
  /** Requests come and the read lease is to be renewed. Called again and again until it is. */
  leaseWanted(): void;
  /** A child answered that a newer nexus holds it. */
  superseded(): void;
  /** Every in-sync child refused a write for lack of space: the range may differ between them. */
  writeRefused(offset: number, length: number): void;
}

/** Per-request fields of nexus requests, shared by all nexuses of one reactor. */
export class NexusRequests {
  /** Children still to answer. */
  readonly remaining: Uint8Array;
  /** Children that the request was sent to, and those that completed it. */
  readonly sent: Uint8Array;
  readonly done: Uint8Array;
  /** A status of a child that failed it, 0 when none did. */
  readonly failure: Uint8Array;
  /** Count of devices attached when it was sent: a device attached later has not failed it. */
  readonly attachments: Int32Array;

  constructor(io: IoTable) {
    this.remaining = new Uint8Array(io.capacity);
    this.sent = new Uint8Array(io.capacity);
    this.done = new Uint8Array(io.capacity);
    this.failure = new Uint8Array(io.capacity);
    this.attachments = new Int32Array(io.capacity);
  }
}

/** A queue of request slots linked by `io.next`. */
class SlotQueue {
  readonly #io: IoTable;
  #head = NONE;
  #tail = NONE;
  length = 0;

  constructor(io: IoTable) {
    this.#io = io;
  }

  push(slot: number): void {
    this.#io.next[slot] = NONE;
    if (this.#head === NONE) this.#head = slot;
    else this.#io.next[this.#tail] = slot;
    this.#tail = slot;
    this.length++;
  }

  /** Takes everything out; the slots are linked from the one returned (-1: none). */
  takeAll(): number {
    const head = this.#head;
    this.#head = NONE;
    this.#tail = NONE;
    this.length = 0;
    return head;
  }
}

/** Status that says nothing about the child: the request itself was at fault. */
function isRequestFault(status: number): boolean {
  return (
    status === IoStatus.OUT_OF_RANGE ||
    status === IoStatus.INVALID ||
    status === IoStatus.UNSUPPORTED
  );
}

export class IoPath implements IoOwner {
  readonly io: IoTable;
  readonly reactor: Reactor;
  readonly regions: Regions;
  readonly requests: NexusRequests;
  /** Per child index; null where there is none. */
  readonly bdevs: (Bdev | null)[] = [];
  readonly statistics: (IoStatistics | null)[] = [];
  /** Children that take writes, and those of them that are in sync. Bit i is child i. */
  writeMask = 0;
  syncMask = 0;
  /** Lost children whose loss is not recorded yet: nothing may be acknowledged, nor read. */
  failingMask = 0;
  /** Until when reads may be answered, and from when on the lease is to be renewed (read-lease.ts). */
  readUntilNs = Number.POSITIVE_INFINITY;
  renewAtNs = Number.POSITIVE_INFINITY;
  /** In-sync children that reads go to, local ones only when there are any. */
  readers: number[] = [];
  /** Set while a rebuild runs. */
  locks: RangeLocks | null = null;
  /** Requests sent to children and not yet answered by all. */
  inFlight = 0;
  /** Requests in flight per child. */
  readonly childInFlight: number[] = [];

  readonly #control: NexusControl;
  /** Devices attached so far, and per child how many there were when it got its own. */
  #attachments = 0;
  readonly #attachedAt: number[] = [];
  #gateClosed = true;
  #nextReader = 0;
  #wantAsked = false;
  /** Set by `stop`: everything ends with this status instead of being sent or held. */
  #stopStatus = 0;
  /** Hosts are turned away: what would be held ends UNAVAILABLE, which sends them to other paths. */
  #turnsAway = false;
  /** Requests that came while the gate was closed, or found no child. */
  readonly #gated: SlotQueue;
  /** Writes whose regions are not dirty yet, or whose range is locked. */
  readonly #unmarked: SlotQueue;
  readonly #locked: SlotQueue;
  /**
   * Writes answered by all children that may not be acknowledged yet; and reads while a loss is not
   * recorded or the read lease is over. A child that cannot be reached may have been taken by a newer nexus, which hosts write to:
   * what the others hold is told only when the record says that there is none.
   */
  readonly #held: SlotQueue;
  /** Control work that waits for requests to end; each looks again by itself. */
  readonly #idleWaiters: (() => void)[] = [];

  constructor(reactor: Reactor, requests: NexusRequests, regions: Regions, control: NexusControl) {
    this.reactor = reactor;
    this.io = reactor.io;
    this.requests = requests;
    this.regions = regions;
    this.#control = control;
    this.#gated = new SlotQueue(this.io);
    this.#unmarked = new SlotQueue(this.io);
    this.#locked = new SlotQueue(this.io);
    this.#held = new SlotQueue(this.io);
  }

  /** Requests that wait for something other than a child. */
  get waiting(): number {
    return this.#gated.length + this.#unmarked.length + this.#locked.length + this.#held.length;
  }

  // ------------------------------------------------------------------------------ dispatching

  /** Takes a request that has passed the range checks. */
  submit(slot: number): void {
    if (this.#stopStatus !== 0) {
      this.io.complete(slot, this.#stopStatus);
      return;
    }
    if (this.#gateClosed || this.#turnsAway) {
      this.#keep(this.#gated, slot);
      return;
    }
    const op = this.io.op[slot]!;
    if (op === IoOp.READ) {
      if (this.failingMask === 0) this.#read(slot, 0);
      else this.#held.push(slot);
    } else if (op === IoOp.FLUSH) this.#sendToAll(slot, this.writeMask);
    else this.#write(slot);
  }

  #read(slot: number, tried: number): void {
    const readers = this.readers;
    const count = readers.length;
    for (let i = 0; i < count; i++) {
      this.#nextReader = this.#nextReader + 1 >= count ? 0 : this.#nextReader + 1;
      const index = readers[this.#nextReader]!;
      if ((tried & (1 << index)) !== 0) continue;
      this.requests.sent[slot] = tried | (1 << index);
      this.requests.remaining[slot] = 1;
      this.inFlight++;
      this.#sendToChild(slot, index);
      return;
    }
    this.#readFromAny(slot, tried);
  }

  /** Every reader was tried: what is left are in-sync children that are not preferred for reads. */
  #readFromAny(slot: number, tried: number): void {
    const left = this.syncMask & ~tried;
    if (left !== 0) {
      const index = 31 - Math.clz32(left);
      this.requests.sent[slot] = tried | (1 << index);
      this.requests.remaining[slot] = 1;
      this.inFlight++;
      this.#sendToChild(slot, index);
      return;
    }
    if (this.syncMask !== 0) {
      // All that were tried have left, and another has come back meanwhile.
      this.#read(slot, 0);
      return;
    }
    // No child has it now. The host's request waits for one to come back (DESIGN 6.2).
    assert(this.#gateClosed, "without an in-sync child the gate is closed");
    this.#gated.push(slot);
  }

  #write(slot: number): void {
    if (this.reactor.now >= this.renewAtNs) this.#control.leaseWanted();
    const offset = this.io.offset[slot]!;
    const length = this.io.length[slot]!;
    if (this.locks?.blocks(offset, length) === true) {
      this.locks.turnedAway(offset, length);
      this.#locked.push(slot);
      return;
    }
    if (!this.regions.begin(offset, length)) {
      this.#unmarked.push(slot);
      this.#askForRegions();
      return;
    }
    this.locks?.begin(offset, length);
    this.#sendToAll(slot, this.writeMask);
  }

  #askForRegions(): void {
    if (this.#wantAsked || !this.regions.hasWanted) return;
    this.#wantAsked = true;
    this.#control.regionsWanted();
  }

  #sendToAll(slot: number, mask: number): void {
    const { requests } = this;
    assert(mask !== 0, "an open gate means there is a child");
    requests.sent[slot] = mask;
    requests.done[slot] = 0;
    requests.failure[slot] = 0;
    requests.attachments[slot] = this.#attachments;
    let count = 0;
    for (let left = mask; left !== 0; left &= left - 1) count++;
    requests.remaining[slot] = count;
    this.inFlight++;
    for (let index = 0, left = mask; left !== 0; index++, left >>= 1) {
      if ((left & 1) !== 0) this.#sendToChild(slot, index);
    }
  }

  #sendToChild(slot: number, index: number): void {
    const { io } = this;
    const bdev = this.bdevs[index]!;
    const child = io.take(
      io.op[slot]!,
      io.offset[slot]!,
      io.length[slot]!,
      io.buffer[slot]!,
      io.flags[slot]!,
      this.reactor.now,
    );
    io.parent[child] = slot;
    io.tagA[child] = index;
    io.push(child, this);
    this.childInFlight[index] = this.childInFlight[index]! + 1;
    bdev!.submit(child);
  }

  // ------------------------------------------------------------------------------- completing

  /** A child has answered. */
  ioDone(child: number): void {
    const { io, requests } = this;
    const slot = io.parent[child]!;
    const index = io.tagA[child]!;
    const status = io.status[child]!;
    this.statistics[index]?.count(io, child, this.reactor.now);
    io.give(child);
    const left = this.childInFlight[index]! - 1;
    this.childInFlight[index] = left;
    const remaining = requests.remaining[slot]! - 1;
    requests.remaining[slot] = remaining;
    if (io.op[slot] === IoOp.READ) this.#readDone(slot, index, status);
    else {
      if (status === IoStatus.OK) requests.done[slot] = requests.done[slot]! | (1 << index);
      else requests.failure[slot] = status;
      if (remaining === 0) this.#writeDone(slot);
    }
    if (this.#idleWaiters.length > 0 && (left === 0 || this.inFlight === 0)) this.#tellIdle();
  }

  #readDone(slot: number, index: number, status: number): void {
    this.inFlight--;
    if (status === IoStatus.OK || isRequestFault(status)) {
      if (this.failingMask === 0 && this.reactor.now < this.renewAtNs) {
        this.io.complete(slot, status);
      } else this.#judgeRead(slot, status);
      return;
    }
    const tried = this.requests.sent[slot]!;
    const isMedia = status === IoStatus.DEVICE_IO || status === IoStatus.CORRUPTED;
    if (status === IoStatus.RESERVATION_CONFLICT || status === IoStatus.SUPERSEDED) {
      this.#control.superseded();
    } else if (isMedia && (this.syncMask & ~tried) === 0) {
      // Nobody else has the data: one unreadable range is no reason to hold the whole volume.
      this.io.complete(slot, status);
      return;
    } else this.#control.childFailed(index, status);
    if (this.#stopStatus !== 0) this.io.complete(slot, this.#stopStatus);
    else if (this.#gateClosed) this.#gated.push(slot);
    else this.#read(slot, tried);
  }

  /** A read whose data is there, while a loss is not recorded or the lease is to be renewed. */
  #judgeRead(slot: number, status: number): void {
    const { now } = this.reactor;
    if (now >= this.renewAtNs && this.#stopStatus === 0) this.#control.leaseWanted();
    if (this.failingMask === 0 && now < this.readUntilNs) this.io.complete(slot, status);
    else if (this.#stopStatus !== 0) this.io.complete(slot, this.#stopStatus);
    else this.#keep(this.#held, slot);
  }

  #keep(queue: SlotQueue, slot: number): void {
    if (this.#turnsAway) this.io.complete(slot, IoStatus.UNAVAILABLE);
    else queue.push(slot);
  }

  /** All children have answered a write, flush, write-zeroes or discard. */
  #writeDone(slot: number): void {
    const { io, requests } = this;
    this.inFlight--;
    if (io.op[slot] !== IoOp.FLUSH) {
      const offset = io.offset[slot]!;
      const length = io.length[slot]!;
      this.regions.end(offset, length);
      this.locks?.end(offset, length);
    }
    const failure = requests.failure[slot]!;
    if (failure !== IoStatus.OK && !this.#failed(slot, failure)) return;
    this.#acknowledge(slot);
  }

  /**
   * Deals with a write that some child failed. True when it may go on to be acknowledged or held;
   * false when it has ended here.
   */
  #failed(slot: number, failure: number): boolean {
    const { io, requests } = this;
    if (failure === IoStatus.RESERVATION_CONFLICT || failure === IoStatus.SUPERSEDED) {
      this.#control.superseded();
      io.complete(slot, IoStatus.SUPERSEDED);
      return false;
    }
    const lost = requests.sent[slot]! & ~requests.done[slot]!;
    const nobody = (requests.done[slot]! & this.syncMask) === 0;
    const isRefused = failure === IoStatus.NO_SPACE && io.op[slot] !== IoOp.FLUSH;
    if (nobody && (isRequestFault(failure) || isRefused)) {
      // Every in-sync child refused it alike. The host learns why; the children stay.
      if (isRefused) {
        this.#control.writeRefused(io.offset[slot]!, io.length[slot]!);
      }
      io.complete(slot, failure);
      return false;
    }
    // An unsupported discard is advice not taken: no difference that a reader could see.
    if (failure === IoStatus.UNSUPPORTED && io.op[slot] === IoOp.DISCARD) return true;
    for (let index = 0, left = lost; left !== 0; index++, left >>= 1) {
      if ((left & 1) === 0) continue;
      // The answers of the other children may come long after this one's, which may have been
      // written off and have got another device meanwhile.
      const isFormer = requests.attachments[slot]! < this.#attachedAt[index]!;
      if (!isFormer) this.#control.childFailed(index, failure);
    }
    if (this.#stopStatus === 0) return true;
    io.complete(slot, this.#stopStatus);
    return false;
  }

  /** Acknowledges, holds, or sends again a write that all children have answered; reads again. */
  #acknowledge(slot: number): void {
    const { io, requests } = this;
    if (this.#stopStatus !== 0) {
      io.complete(slot, this.#stopStatus);
      return;
    }
    if (this.failingMask !== 0 || this.syncMask === 0) {
      this.#keep(this.#held, slot);
      return;
    }
    const isRead = io.op[slot] === IoOp.READ;
    if (!isRead && (requests.done[slot]! & this.syncMask) === this.syncMask) {
      io.complete(slot, IoStatus.OK);
      return;
    }
    // Some in-sync child does not have it: it came back after failing it.
    this.submit(slot);
  }

  // ------------------------------------------------------------------------- the control side

  /** Resolves when no request is with any child. */
  async idle(): Promise<void> {
    await this.#until(() => this.inFlight === 0);
  }

  /** Resolves when no request is with the child. */
  async childIdle(index: number): Promise<void> {
    await this.#until(() => (this.childInFlight[index] ?? 0) === 0);
  }

  async #until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      await new Promise<void>((resolve) => this.#idleWaiters.push(resolve));
    }
  }

  #tellIdle(): void {
    for (const resolve of this.#idleWaiters.splice(0)) resolve();
  }

  /** Puts a device behind a child index. Nothing of a former one may be in flight. */
  attach(index: number, bdev: Bdev, statistics: IoStatistics): void {
    assert((this.childInFlight[index] ?? 0) === 0, "a former device has nothing in flight");
    this.bdevs[index] = bdev;
    this.statistics[index] = statistics;
    this.childInFlight[index] = 0;
    this.#attachedAt[index] = ++this.#attachments;
  }

  /** Keeps new requests waiting. Those in flight go on. */
  closeGate(): void {
    this.#gateClosed = true;
  }

  /** Lets requests through again, and those that waited. */
  openGate(): void {
    assert(this.syncMask !== 0 && this.failingMask === 0, "the gate opens on an in-sync child");
    this.#gateClosed = false;
    this.#resubmit(this.#gated);
  }

  get gateClosed(): boolean {
    return this.#gateClosed;
  }

  /** Looks again at writes held for a loss to be recorded. */
  releaseHeld(): void {
    for (let slot = this.#held.takeAll(); slot !== NONE; ) {
      const next = this.io.next[slot]!;
      this.#acknowledge(slot);
      slot = next;
    }
  }

  /** Regions were settled: writes that waited for them try again. */
  regionsSettled(): void {
    this.#wantAsked = false;
    this.#resubmit(this.#unmarked);
    this.#askForRegions();
  }

  /** A range was unlocked: writes that waited for it try again. */
  rangeUnlocked(): void {
    this.#resubmit(this.#locked);
  }

  #resubmit(queue: SlotQueue): void {
    for (let slot = queue.takeAll(); slot !== NONE; ) {
      const next = this.io.next[slot]!;
      this.submit(slot);
      slot = next;
    }
  }

  /** Ends everything that waits, and all that will come, with `status`. What is in flight ends so too. */
  stop(status: number): void {
    this.#stopStatus = status;
    this.#gateClosed = true;
    this.#endWaiting(status);
  }

  /** Ends what waits, and what comes, UNAVAILABLE, until `welcome`. */
  turnAway(): void {
    this.#turnsAway = true;
    this.#endWaiting(IoStatus.UNAVAILABLE);
  }

  welcome(): void {
    this.#turnsAway = false;
  }

  get turnsAway(): boolean {
    return this.#turnsAway;
  }

  #endWaiting(status: number): void {
    for (const queue of [this.#gated, this.#unmarked, this.#locked, this.#held]) {
      for (let slot = queue.takeAll(); slot !== NONE; ) {
        const next = this.io.next[slot]!;
        this.io.complete(slot, status);
        slot = next;
      }
    }
  }
}
