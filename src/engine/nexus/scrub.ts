/**
 * A scrub: walks the volume in segments and compares the in-sync children while hosts read and write.
 *
 * A segment is read from every child at once, without keeping host writes away: most are equal. Where
 * they differ the range is locked and looked at again block by block (`scrub-blocks.ts`), so that a
 * write that was on its way is not taken for a difference, and hosts wait only there. It gives way to
 * rebuilds, to whatever pauses the nexus, and to hosts whose latency rises.
 */
import { IoStatus } from "../../errors.ts";
import { IoOp } from "../reactor/io-table.ts";
import type { Timer } from "../reactor/timers.ts";
import type { Child } from "./child.ts";
import { deviceIo, type RebuildMemory } from "./child-io.ts";
import { HostPressure } from "./host-pressure.ts";
import {
  SCRUB_BLOCK_BYTES,
  SCRUB_BLOCKS_PER_LOCK,
  SCRUB_MAPS_MS,
  SCRUB_RETRY_MS,
  SCRUB_SEGMENT_BYTES,
  SCRUB_SKIPS_PER_TURN,
} from "./limits.ts";
import { type Allocation, bitAt } from "./replica-link.ts";
import {
  type BlocksHost,
  type Copy,
  doubtfulBlocks,
  examineBlock,
  isMediaError,
  type Segment,
} from "./scrub-blocks.ts";
import {
  addFinding,
  type ScrubCounts,
  type ScrubFinding,
  type ScrubRecord,
  type ScrubState,
  type ScrubWait,
} from "./scrub-record.ts";

/** What a scrub asks of its nexus. */
export interface ScrubHost extends BlocksHost {
  readonly memory: RebuildMemory;
  readonly sizeBytes: number;
  /** The nexus has ended: nothing more is to be done. */
  readonly hasEnded: boolean;
  /** In-sync children with a device. */
  children(): Child[];
  /** Which clusters a child holds data in; undefined when that is not known. */
  allocationOf(child: Child): Promise<Allocation | undefined>;
  /** Keeps host writes away from the segment that the offset lies in; resolves with the unlock. */
  lock(offset: number): Promise<() => void>;
  /** A segment without difference was passed. */
  passed(): void;
  /** Ranges are being made equal by somebody else, so that they may differ for a moment. */
  readonly isReconciling: boolean;
  /** Requests of hosts that ended, and the time they took. */
  hostLoad(): { readonly requests: number; readonly latencyNs: number };
  clockMs(): number;
  /** Something new was found; what goes on from it is not told again. */
  found(finding: ScrubFinding): void;
}

export interface ScrubPlan {
  readonly id: string;
  /** Where to begin, and what was counted before that. */
  readonly offsetBytes: number;
  readonly counts: ScrubCounts;
  /** 0: no limit. */
  readonly bytesPerSec: number;
  /** False: differences are reported and left alone. */
  readonly isRepairing: boolean;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

export class ScrubJob {
  readonly plan: ScrubPlan;
  readonly #host: ScrubHost;
  readonly #pressure = new HostPressure();
  readonly #counts: Mutable<ScrubCounts>;
  readonly #findings: ScrubFinding[] = [];
  /** Why it must not go on, by whoever said so; with a count each. */
  readonly #suspensions = new Map<ScrubWait, number>();
  #bytesPerSecLimit: number;
  #state: ScrubState = "running";
  #error: string | undefined;
  #waitsFor: ScrubWait | null = null;
  #offset: number;
  #childUris: readonly string[] = [];
  /** The maps of which clusters hold data, and when and of whom they were read. */
  #maps: readonly Allocation[] | null = null;
  #mapsAtNs = Number.NEGATIVE_INFINITY;
  #mapsOf = "";
  #freeAtNs = 0;
  #isBusy = false;
  #busyNs = 0;
  #comparedHere = 0;
  #wake: (() => void) | null = null;
  readonly #idleWaiters: (() => void)[] = [];
  readonly #startMs: number;
  #endMs: number | undefined;

  constructor(host: ScrubHost, plan: ScrubPlan) {
    this.#host = host;
    this.plan = plan;
    this.#bytesPerSecLimit = plan.bytesPerSec;
    this.#counts = { ...plan.counts };
    this.#offset = Math.floor(plan.offsetBytes / SCRUB_SEGMENT_BYTES) * SCRUB_SEGMENT_BYTES;
    this.#startMs = host.clockMs();
  }

  // ------------------------------------------------------------------------------------ from outside

  /** 0: no limit. Nobody goes on waiting by a rate that does not hold any more. */
  set bytesPerSecLimit(limit: number) {
    this.#bytesPerSecLimit = limit;
    this.#freeAtNs = 0;
    this.#wake?.();
  }

  get hasEnded(): boolean {
    return this.#state !== "running" && this.#state !== "paused";
  }

  /** Runs to the end, never rejects. */
  async run(): Promise<void> {
    while (!this.hasEnded) {
      if (this.#host.hasEnded) this.stop("the nexus has ended");
      else if (this.#state === "paused" || this.#suspensions.size > 0) await this.#rest(null);
      else if (this.#offset >= this.#host.sizeBytes) this.#state = "completed";
      else await this.#advance();
    }
    this.#waitsFor = null;
    this.#endMs = this.#host.clockMs();
  }

  /** Ends it before its end. What is under way with a segment is finished. Idempotent. */
  stop(error: string | undefined, state: "stopped" | "failed" = "stopped"): void {
    if (this.hasEnded) return;
    this.#state = state;
    this.#error = error;
    this.#wake?.();
  }

  pause(): void {
    if (this.#state === "running") this.#state = "paused";
    this.#wake?.();
  }

  resume(): void {
    if (this.#state === "paused") this.#state = "running";
    this.#wake?.();
  }

  /** Has it wait for something; resolves when nothing of it is under way. */
  async suspend(reason: ScrubWait): Promise<void> {
    this.#suspensions.set(reason, (this.#suspensions.get(reason) ?? 0) + 1);
    while (this.#isBusy) await new Promise<void>((resolve) => this.#idleWaiters.push(resolve));
  }

  unsuspend(reason: ScrubWait): void {
    const left = (this.#suspensions.get(reason) ?? 1) - 1;
    if (left > 0) this.#suspensions.set(reason, left);
    else this.#suspensions.delete(reason);
    this.#wake?.();
  }

  record(): ScrubRecord {
    const seconds = this.#busyNs / 1e9;
    const bytesPerSec = seconds > 0 ? this.#comparedHere / seconds : 0;
    const left = Math.max(0, this.#host.sizeBytes - this.#offset);
    const [suspendedFor] = this.#suspensions.keys();
    return {
      ...this.#counts,
      id: this.plan.id,
      state: this.#state,
      waitsFor: this.hasEnded ? null : (suspendedFor ?? this.#waitsFor),
      offsetBytes: Math.min(this.#offset, this.#host.sizeBytes),
      sizeBytes: this.#host.sizeBytes,
      childUris: this.#childUris,
      bytesPerSecLimit: this.#bytesPerSecLimit,
      bytesPerSec: Math.round(bytesPerSec),
      etaMs: bytesPerSec > 0 ? Math.round((left / bytesPerSec) * 1000) : undefined,
      startTimeMs: this.#startMs,
      endTimeMs: this.#endMs,
      findings: [...this.#findings],
      error: this.#error,
    };
  }

  // --------------------------------------------------------------------------------------- the walk

  /** Waits for `ms` (null: without end) or until something has changed. */
  async #rest(ms: number | null): Promise<void> {
    let timer: Timer | null = null;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      if (ms !== null) timer = this.#host.reactor.after(ms, resolve);
    });
    this.#wake = null;
    (timer as Timer | null)?.cancel();
  }

  /** One step: waits for what has to be waited for, or deals with what comes next. */
  async #advance(): Promise<void> {
    const { reactor } = this.#host;
    const children = this.#host.children();
    this.#childUris = children.map(({ uri }) => uri);
    if (children.length < 2) {
      this.stop("fewer than two children are in sync");
      return;
    }
    const fromNs = reactor.now;
    if (await this.#mapsAreOld(children)) return;
    if (await this.#skip()) return;
    const load = this.#host.hostLoad();
    const pauseMs = this.#pressure.pauseMs(reactor.now, load.requests, load.latencyNs);
    if (pauseMs > 0) {
      this.#waitsFor = this.#pressure.isYielding ? "host-latency" : null;
      await this.#rest(pauseMs);
    } else if (this.#freeAtNs > reactor.now) {
      this.#waitsFor = null;
      await this.#rest((this.#freeAtNs - reactor.now) / 1e6);
    } else await this.#compareNext(children);
    this.#busyNs += reactor.now - fromNs;
  }

  /** Asks the children which clusters hold data, now and then. True: that was done. */
  async #mapsAreOld(children: readonly Child[]): Promise<boolean> {
    const { reactor } = this.#host;
    const of = this.#childUris.join("\n");
    if (of === this.#mapsOf && reactor.now < this.#mapsAtNs + SCRUB_MAPS_MS * 1e6) return false;
    const maps = await Promise.all(children.map((child) => this.#host.allocationOf(child)));
    this.#maps = maps.every((map) => map !== undefined) ? maps : null;
    this.#mapsOf = of;
    this.#mapsAtNs = reactor.now;
    return true;
  }

  #hasData(offset: number, length: number): boolean {
    if (this.#maps === null) return true;
    for (const { clusterBytes, bitmap } of this.#maps) {
      const last = Math.floor((offset + length - 1) / clusterBytes);
      for (let c = Math.floor(offset / clusterBytes); c <= last; c++) {
        if (bitAt(bitmap, c)) return true;
      }
    }
    return false;
  }

  /** A device that grew goes on in the middle of a segment. */
  #lengthAt(offset: number): number {
    const left = SCRUB_SEGMENT_BYTES - (offset % SCRUB_SEGMENT_BYTES);
    return Math.min(left, this.#host.sizeBytes - offset);
  }

  /** Passes over segments that no child holds data in. True: some were. */
  async #skip(): Promise<boolean> {
    let count = 0;
    while (this.#offset < this.#host.sizeBytes && count < SCRUB_SKIPS_PER_TURN) {
      const length = this.#lengthAt(this.#offset);
      if (this.#hasData(this.#offset, length)) break;
      this.#counts.skippedBytes += length;
      this.#offset += length;
      count++;
    }
    if (count === SCRUB_SKIPS_PER_TURN) await this.#host.reactor.sleep(0);
    return count > 0;
  }

  // ----------------------------------------------------------------------------------- one segment

  async #compareNext(children: readonly Child[]): Promise<void> {
    const { reactor, memory } = this.#host;
    const bytes = children.length * SCRUB_SEGMENT_BYTES;
    if (!memory.tryAcquire(bytes)) {
      this.#waitsFor = "memory";
      await this.#rest(SCRUB_RETRY_MS);
      return;
    }
    const copies: Copy[] = [];
    for (const child of children) {
      const buffer = reactor.arena.alloc(SCRUB_SEGMENT_BYTES, 0);
      if (buffer >= 0) copies.push({ child, buffer, status: IoStatus.OK });
    }
    this.#isBusy = true;
    let isDone = false;
    if (copies.length === children.length) {
      this.#waitsFor = null;
      const offset = this.#offset;
      isDone = await this.#compare({ offset, length: this.#lengthAt(offset), copies });
    } else this.#waitsFor = "memory";
    for (const { buffer } of copies) reactor.arena.free(buffer);
    memory.release(bytes);
    this.#isBusy = false;
    for (const resolve of this.#idleWaiters.splice(0)) resolve();
    if (!isDone && !this.hasEnded) await this.#rest(SCRUB_RETRY_MS);
  }

  /** Compares a segment, and looks at what differs. False: it has to be done again. */
  async #compare(segment: Segment): Promise<boolean> {
    const { reactor } = this.#host;
    const { offset, length, copies } = segment;
    this.#throttle(length);
    await Promise.all(
      copies.map(async (copy) => {
        const { bdev } = copy.child.device!;
        copy.status = await deviceIo(bdev, IoOp.READ, offset, length, copy.buffer);
        if (copy.status !== IoStatus.OK && !isMediaError(copy.status)) {
          this.#host.childLost(copy.child, copy.status);
        }
      }),
    );
    const isWhole = copies.every(({ child }) => this.#host.isCompared(child));
    if (!isWhole) return false; // Those that are left are compared anew.
    const doubtful = doubtfulBlocks(reactor, segment);
    if (doubtful.length === 0) this.#host.passed();
    else if (!(await this.#examine(segment, doubtful))) return false;
    this.#counts.comparedBytes += length;
    this.#comparedHere += length;
    this.#offset = offset + length;
    return true;
  }

  /** Spaces segments out to keep within the rate. */
  #throttle(length: number): void {
    const limit = this.#bytesPerSecLimit;
    const { now } = this.#host.reactor;
    this.#freeAtNs = limit === 0 ? 0 : Math.max(this.#freeAtNs, now) + (length / limit) * 1e9;
  }

  /** Looks at doubtful blocks with host writes kept away, some at a time. False: not now. */
  async #examine(segment: Segment, doubtful: readonly number[]): Promise<boolean> {
    const host = this.#host;
    for (let from = 0; from < doubtful.length; from += SCRUB_BLOCKS_PER_LOCK) {
      const unlock = await host.lock(segment.offset);
      try {
        for (const at of doubtful.slice(from, from + SCRUB_BLOCKS_PER_LOCK)) {
          // Whatever makes ranges equal is done with this one when it is done; until then it may differ.
          if (host.hasEnded || host.isReconciling) return false;
          const verdict = await examineBlock(host, segment, at, this.plan.isRepairing);
          if (verdict === "again") return false;
          if (verdict === "equal") {
            this.#counts.transientBytes += Math.min(SCRUB_BLOCK_BYTES, segment.length - at);
          } else this.#found(verdict);
        }
      } finally {
        unlock();
      }
    }
    return true;
  }

  #found(finding: ScrubFinding): void {
    const { lengthBytes, isRepaired, offsetBytes } = finding;
    // A segment that had to be done again is told of once.
    const isKnown = this.#findings.some(
      (f) =>
        !f.isRepaired &&
        !isRepaired &&
        f.offsetBytes <= offsetBytes &&
        offsetBytes + lengthBytes <= f.offsetBytes + f.lengthBytes,
    );
    if (isKnown) return;
    this.#counts.mismatchedBytes += lengthBytes;
    if (isRepaired) this.#counts.repairedBytes += lengthBytes;
    if (addFinding(this.#findings, finding)) this.#host.found(finding);
  }
}
