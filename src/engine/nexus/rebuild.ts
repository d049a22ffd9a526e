/**
 * A rebuild: brings one child up to date from the in-sync ones while hosts read and write.
 *
 * The child takes host writes from the start. Each segment is locked against host writes, read from
 * a source, compared or written, and unlocked. A partial rebuild looks at dirty regions only; a full
 * one looks at everything that the source has allocated. What is not allocated at the source is
 * zeroed at the destination if need be.
 */
import { assert } from "../../assert.ts";
import { IoStatus } from "../../errors.ts";
import { IoFlag, IoOp } from "../reactor/io-table.ts";
import type { Reactor } from "../reactor/reactor.ts";
import type { ChildDevice } from "./child.ts";
import { deviceIo, isZero, type RebuildMemory, sameBytes, takeBuffer } from "./child-io.ts";
import { REGION_BYTES, SEGMENTS_PARALLEL } from "./limits.ts";
import type { RangeLocks } from "./range-locks.ts";
import { type Allocation, bitAt } from "./replica-link.ts";

export type RebuildState = "init" | "rebuilding" | "paused" | "stopped" | "failed" | "completed";

/** Progress of a rebuild; the same record is kept as history. Blocks are the device's. */
export interface RebuildRecord {
  readonly childUri: string;
  readonly srcUri: string;
  readonly state: RebuildState;
  readonly blocksTotal: number;
  /** Blocks dealt with. */
  readonly blocksRecovered: number;
  /** Blocks that had to be written. */
  readonly blocksTransferred: number;
  readonly blocksRemaining: number;
  readonly blockSize: number;
  readonly isPartial: boolean;
  /** Milliseconds since 1970. */
  readonly startTimeMs: number;
  readonly endTimeMs: number | undefined;
  readonly bytesPerSec: number;
  /** Estimated time left in ms; undefined before there is a rate. */
  readonly etaMs: number | undefined;
  readonly error: string | undefined;
}

/** What a rebuild asks of its nexus. */
export interface RebuildHost {
  readonly reactor: Reactor;
  readonly memory: RebuildMemory;
  readonly blockSize: number;
  /** A child to read from, or undefined when there is none at the moment. */
  source():
    | { readonly uri: string; readonly device: ChildDevice; readonly index: number }
    | undefined;
  /** A source failed a read. */
  sourceFailed(index: number, status: number): void;
  /** True when the nexus still counts on the child. */
  isKept(index: number): boolean;
  /** True when host writes may have touched the region since the maps were read. */
  isDirty(region: number): boolean;
  clockMs(): number;
  /** How long a task is to rest after it has worked for so long (ns), so that hosts do not suffer. */
  restNs(workedNs: number): number;
}

export interface RebuildPlan {
  readonly childUri: string;
  readonly destination: ChildDevice;
  readonly sizeBytes: number;
  readonly segmentBytes: number;
  /** Regions to look at; undefined: all of them. */
  readonly regions: readonly number[] | undefined;
  /** Which clusters hold data, for a full rebuild. */
  readonly sourceAllocation: Allocation | undefined;
  readonly destinationAllocation: Allocation | undefined;
  /** 0: no limit. */
  readonly bytesPerSec: number;
}

const YIELD_EVERY_SEGMENTS = 1024;
/** Shorter rests are not worth a timer; longer ones are looked at again in between. */
const REST_MS_MIN = 0.05;
const REST_MS_MAX = 1_000;

export class RebuildJob {
  readonly plan: RebuildPlan;
  readonly #host: RebuildHost;
  readonly #locks: RangeLocks;
  readonly #segmentsPerRegion: number;
  readonly #segmentCount: number;
  state: RebuildState = "init";
  #bytesPerSecLimit: number;
  error: string | undefined;
  /** Set when it failed for want of a source, not because of the child being rebuilt. */
  lacksSource = false;
  #sourceUri = "";
  #next = 0;
  #dealtBytes = 0;
  #writtenBytes = 0;
  #startMs = 0;
  #endMs: number | undefined;
  #startNs = 0;
  #pausedNs = 0;
  /** Tasks that wait for the end of a pause, and those that keep to the rate. */
  readonly #resume: (() => void)[] = [];
  readonly #naps = new Set<() => void>();
  #freeAtNs = 0;
  #ending = false;

  constructor(host: RebuildHost, locks: RangeLocks, plan: RebuildPlan) {
    assert(REGION_BYTES % plan.segmentBytes === 0, "segments divide regions");
    this.#host = host;
    this.#locks = locks;
    this.plan = plan;
    this.#bytesPerSecLimit = plan.bytesPerSec;
    this.#segmentsPerRegion = REGION_BYTES / plan.segmentBytes;
    this.#segmentCount =
      plan.regions === undefined
        ? Math.ceil(plan.sizeBytes / plan.segmentBytes)
        : plan.regions.length * this.#segmentsPerRegion;
  }

  /** 0: no limit. Nobody goes on waiting by a rate that does not hold any more. */
  set bytesPerSecLimit(limit: number) {
    this.#bytesPerSecLimit = limit;
    this.#freeAtNs = 0;
    for (const end of this.#naps) end();
  }

  get isPartial(): boolean {
    return this.plan.regions !== undefined;
  }

  /** Runs to the end; resolves with the final state, never rejects. */
  async run(): Promise<RebuildState> {
    this.state = "rebuilding";
    this.#startMs = this.#host.clockMs();
    this.#startNs = this.#host.reactor.now;
    this.#sourceUri = this.#host.source()?.uri ?? "";
    const tasks: Promise<void>[] = [];
    for (let i = 0; i < SEGMENTS_PARALLEL; i++) tasks.push(this.#work());
    await Promise.all(tasks);
    if (this.state === "rebuilding" || this.state === "paused") this.state = "completed";
    this.#endMs = this.#host.clockMs();
    return this.state;
  }

  /** Ends the job early. Idempotent. */
  stop(state: "stopped" | "failed", error?: string): void {
    if (this.#ending) return;
    this.#ending = true;
    this.state = state;
    this.error = error;
    this.#wake();
    for (const end of this.#naps) end();
    this.#host.memory.giveUp(this);
  }

  /** After the copying: what had to follow it did not work. */
  fail(error: string): void {
    this.state = "failed";
    this.error = error;
  }

  pause(): void {
    if (this.state !== "rebuilding") return;
    this.state = "paused";
    this.#pausedNs -= this.#host.reactor.now;
  }

  resume(): void {
    if (this.state !== "paused") return;
    this.state = "rebuilding";
    this.#pausedNs += this.#host.reactor.now;
    this.#wake();
  }

  #wake(): void {
    for (const resume of this.#resume.splice(0)) resume();
  }

  record(): RebuildRecord {
    const { blockSize } = this.#host;
    const total = this.#totalBytes();
    const left = this.state === "completed" ? 0 : Math.max(0, total - this.#dealtBytes);
    const pausedNs =
      this.state === "paused" ? this.#pausedNs + this.#host.reactor.now : this.#pausedNs;
    const seconds = Math.max(0, this.#host.reactor.now - this.#startNs - pausedNs) / 1e9;
    const bytesPerSec = seconds > 0 && this.#startNs > 0 ? this.#dealtBytes / seconds : 0;
    return {
      childUri: this.plan.childUri,
      srcUri: this.#sourceUri,
      state: this.state,
      blocksTotal: total / blockSize,
      blocksRecovered: (total - left) / blockSize,
      blocksTransferred: this.#writtenBytes / blockSize,
      blocksRemaining: left / blockSize,
      blockSize,
      isPartial: this.isPartial,
      startTimeMs: this.#startMs,
      endTimeMs: this.#endMs,
      bytesPerSec: Math.round(bytesPerSec),
      etaMs: bytesPerSec > 0 ? Math.round((left / bytesPerSec) * 1000) : undefined,
      error: this.error,
    };
  }

  #totalBytes(): number {
    const { regions, sizeBytes } = this.plan;
    if (regions === undefined) return sizeBytes;
    const last = Math.ceil(sizeBytes / REGION_BYTES) - 1;
    const short = regions.includes(last) ? (last + 1) * REGION_BYTES - sizeBytes : 0;
    return regions.length * REGION_BYTES - short;
  }

  /** Byte offset of a segment; its length is `segmentBytes` but for the device's end. */
  #offsetOf(segment: number): number {
    const { regions, segmentBytes } = this.plan;
    if (regions === undefined) return segment * segmentBytes;
    const region = regions[Math.floor(segment / this.#segmentsPerRegion)]!;
    return region * REGION_BYTES + (segment % this.#segmentsPerRegion) * segmentBytes;
  }

  get #isAtWork(): boolean {
    return !this.#ending && this.#next < this.#segmentCount;
  }

  async #work(): Promise<void> {
    const { reactor, memory } = this.#host;
    const { segmentBytes } = this.plan;
    while (this.#isAtWork) {
      // While it is paused others may use the memory.
      if (this.state === "paused") {
        await new Promise<void>((resolve) => this.#resume.push(resolve));
        continue;
      }
      if (!(await memory.acquire(2 * segmentBytes, this))) return;
      const mine = await takeBuffer(reactor, segmentBytes);
      const theirs = await takeBuffer(reactor, segmentBytes);
      await this.#workWith(mine, theirs);
      reactor.arena.free(mine);
      reactor.arena.free(theirs);
      memory.release(2 * segmentBytes);
    }
  }

  /** Deals with segments until there are none left, or none are to be dealt with now. */
  async #workWith(mine: number, theirs: number): Promise<void> {
    const { reactor } = this.#host;
    const { segmentBytes, sizeBytes } = this.plan;
    let done = 0;
    while (this.#isAtWork && this.state !== "paused") {
      const offset = this.#offsetOf(this.#next++);
      const length = Math.min(segmentBytes, sizeBytes - offset);
      if (length <= 0) continue;
      if (!this.#canSkip(offset, length)) await this.#copyLocked(offset, length, mine, theirs);
      this.#dealtBytes += length;
      if (++done % YIELD_EVERY_SEGMENTS === 0) await reactor.sleep(0);
    }
  }

  #hasData(allocation: Allocation | undefined, offset: number, length: number): boolean {
    if (allocation === undefined) return true;
    const first = Math.floor(offset / allocation.clusterBytes);
    const last = Math.floor((offset + length - 1) / allocation.clusterBytes);
    for (let c = first; c <= last; c++) if (bitAt(allocation.bitmap, c)) return true;
    return false;
  }

  /** True when neither side has ever held data there. */
  #canSkip(offset: number, length: number): boolean {
    if (this.isPartial) return false;
    return (
      !this.#hasData(this.plan.sourceAllocation, offset, length) &&
      !this.#hasData(this.plan.destinationAllocation, offset, length) &&
      !this.#host.isDirty(Math.floor(offset / REGION_BYTES))
    );
  }

  async #copyLocked(offset: number, length: number, mine: number, theirs: number): Promise<void> {
    await this.#throttle(length);
    if (this.#ending) return;
    const { reactor } = this.#host;
    const unlock = await this.#locks.acquire(offset, length);
    const startedNs = reactor.now;
    try {
      if (!this.#ending) await this.#copy(offset, length, mine, theirs);
    } finally {
      unlock();
    }
    const restMs = this.#host.restNs(reactor.now - startedNs) / 1e6;
    if (restMs >= REST_MS_MIN && !this.#ending) await this.#nap(Math.min(restMs, REST_MS_MAX));
  }

  /** Keeps within the bandwidth limit by spacing segments out. */
  async #throttle(length: number): Promise<void> {
    const limit = this.#bytesPerSecLimit;
    if (limit === 0) return;
    const { reactor } = this.#host;
    const startNs = Math.max(this.#freeAtNs, reactor.now);
    this.#freeAtNs = startNs + (length / limit) * 1e9;
    if (startNs > reactor.now) await this.#nap((startNs - reactor.now) / 1e6);
  }

  /** Sleeps; a job that ends, or gets another rate, does not sleep on. */
  async #nap(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const end = (): void => {
        timer.cancel();
        this.#naps.delete(end);
        resolve();
      };
      const timer = this.#host.reactor.after(ms, end);
      this.#naps.add(end);
    });
  }

  async #copy(offset: number, length: number, mine: number, theirs: number): Promise<void> {
    const { reactor } = this.#host;
    const { bdev } = this.plan.destination;
    const isHole =
      !this.isPartial &&
      !this.#hasData(this.plan.sourceAllocation, offset, length) &&
      !this.#host.isDirty(Math.floor(offset / REGION_BYTES));
    if (isHole) {
      const flags = IoFlag.UNMAP;
      this.#check(await deviceIo(bdev, IoOp.WRITE_ZEROES, offset, length, -1, flags), length);
      return;
    }
    if (!(await this.#readSource(offset, length, mine))) return;
    const region = Math.floor(offset / REGION_BYTES);
    const mayHoldData = this.#hasData(this.plan.destinationAllocation, offset, length);
    if (this.isPartial || mayHoldData || this.#host.isDirty(region)) {
      const status = await deviceIo(bdev, IoOp.READ, offset, length, theirs);
      // A range that cannot be read may still be written: that is what repairs it.
      if (status === IoStatus.OK && sameBytes(reactor, mine, theirs, length)) return;
    } else if (isZero(reactor, mine, length)) {
      return; // Zeroes where the destination reads as zeroes already: it stays thin.
    }
    this.#check(await deviceIo(bdev, IoOp.WRITE, offset, length, mine), length);
  }

  #check(status: number, length: number): void {
    if (status === IoStatus.OK) this.#writtenBytes += length;
    else this.stop("failed", `writing the child failed (I/O status ${status})`);
  }

  /** Reads a segment from whichever source works. False: the job has ended. */
  async #readSource(offset: number, length: number, buffer: number): Promise<boolean> {
    while (!this.#ending) {
      const source = this.#host.source();
      if (source === undefined) {
        this.lacksSource = true;
        this.stop("failed", "no in-sync child is left to read from");
        return false;
      }
      this.#sourceUri = source.uri;
      const status = await deviceIo(source.device.bdev, IoOp.READ, offset, length, buffer);
      if (status === IoStatus.OK) return true;
      this.#host.sourceFailed(source.index, status);
      if (this.#host.isKept(source.index)) {
        // The nexus keeps it: it is the last one, and this range of it cannot be read.
        this.stop("failed", `reading the source failed (I/O status ${status})`);
      }
    }
    return false;
  }
}
