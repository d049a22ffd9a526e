/** The rebuilds of one nexus: one at a time, the others wait their turn; what has ended is remembered. */
import { IoStatus, TrilithError } from "../../errors.ts";
import { IoOp } from "../reactor/io-table.ts";
import type { Child } from "./child.ts";
import { deviceIo } from "./child-io.ts";
import type { NexusCore } from "./core.ts";
import {
  REBUILD_HISTORY_MAX,
  SEGMENT_BYTES_DEFAULT,
  SEGMENT_BYTES_MAX,
  SEGMENT_BYTES_MIN,
} from "./limits.ts";
import { RangeLocks } from "./range-locks.ts";
import { type RebuildHost, RebuildJob, type RebuildRecord } from "./rebuild.ts";
import { type HostTotals, RebuildPace } from "./rebuild-pace.ts";
import { RegionState } from "./regions.ts";
import type { Allocation } from "./replica-link.ts";
import type { ChildReason } from "./states.ts";

/** What the rebuilds ask of the membership. */
export interface RebuildsUser {
  promoteRebuilt(child: Child): Promise<boolean>;
  /** Resolves when no loss is waiting to be recorded. */
  settled(): Promise<void>;
  lose(index: number, reason: ChildReason): void;
  childFailed(index: number, status: number): void;
}

/** A scrub, which gives way to rebuilds: both lock ranges, and one at a time may. */
export interface ScrubThatYields {
  suspend(reason: "rebuild"): Promise<void>;
  unsuspend(reason: "rebuild"): void;
}

/** How rebuilds are done; both can be changed at any time and apply from the next segment or job. */
export interface RebuildSettings {
  segmentBytes: number;
  /** 0: no limit. */
  bytesPerSec: number;
}

function isMediaError(status: number): boolean {
  return status === IoStatus.DEVICE_IO || status === IoStatus.CORRUPTED;
}

export class Rebuilds implements RebuildHost {
  readonly #core: NexusCore;
  readonly #user: RebuildsUser;
  readonly #scrub: ScrubThatYields;
  readonly #queue = new Map<Child, readonly number[] | undefined>();
  readonly #history: RebuildRecord[] = [];
  readonly #pace = new RebuildPace();
  readonly settings: RebuildSettings = { segmentBytes: SEGMENT_BYTES_DEFAULT, bytesPerSec: 0 };
  #current: { readonly child: Child; readonly job: RebuildJob } | null = null;
  #running: Promise<void> | null = null;
  #nextSource = 0;

  constructor(core: NexusCore, user: RebuildsUser, scrub: ScrubThatYields) {
    this.#core = core;
    this.#user = user;
    this.#scrub = scrub;
  }

  // --------------------------------------------------------------------- what a job asks of its host

  get reactor() {
    return this.#core.reactor;
  }

  get memory() {
    return this.#core.context.rebuildMemory;
  }

  get blockSize(): number {
    return this.#core.blockSize;
  }

  clockMs(): number {
    return this.#core.context.clockMs();
  }

  source() {
    const children = this.#core.inSync().filter((child) => child.device !== null);
    const local = children.filter((child) => child.isLocal);
    const among = local.length > 0 ? local : children;
    const child = among[this.#nextSource++ % Math.max(1, among.length)];
    if (child === undefined) return undefined;
    return { uri: child.uri, device: child.device!, index: child.index };
  }

  sourceFailed(index: number, status: number): void {
    const others = this.#core
      .present()
      .filter((child) => child.index !== index)
      .filter((child) => child.phase === "in-sync" || child.consistent);
    // The last child is not given up for a range that cannot be read; the rebuild fails instead.
    if (!(others.length === 0 && isMediaError(status))) this.#user.childFailed(index, status);
  }

  isKept(index: number): boolean {
    return this.#core.children[index]?.phase === "in-sync";
  }

  isDirty(region: number): boolean {
    return this.#core.regions.stateOf(region) !== RegionState.CLEAN;
  }

  /** What hosts have asked of the children, as far as it went to them: rebuilds' own requests do not count. */
  #hostTotals(): HostTotals {
    let ops = 0;
    let latencyNs = 0;
    for (const { statistics } of this.#core.present()) {
      for (const op of [IoOp.READ, IoOp.WRITE]) {
        ops += statistics.ops[op]!;
        latencyNs += statistics.latencyNs[op]!;
      }
    }
    return { ops, latencyNs };
  }

  restNs(workedNs: number): number {
    const { now } = this.reactor;
    if (this.#pace.isDue(now)) this.#pace.sample(this.#hostTotals(), now);
    return this.#pace.restNs(workedNs);
  }

  // ------------------------------------------------------------------------------------- operation

  /** Queues a child that takes part in writes already; `regions` undefined means all of it. */
  add(child: Child, regions: readonly number[] | undefined): void {
    this.#queue.set(child, regions);
    this.pump();
  }

  /** Starts the next rebuild when none runs. */
  pump(): void {
    if (this.#running !== null || this.#core.ended !== null) return;
    const next = this.#queue.entries().next();
    if (next.done === true) return;
    const [child, regions] = next.value;
    this.#queue.delete(child);
    this.#running = this.#run(child, regions).finally(() => {
      this.#running = null;
      this.#current = null;
      this.pump();
    });
  }

  async #run(child: Child, regions: readonly number[] | undefined): Promise<void> {
    await this.#scrub.suspend("rebuild");
    try {
      await this.#runAlone(child, regions);
    } finally {
      this.#scrub.unsuspend("rebuild");
    }
  }

  async #runAlone(child: Child, regions: readonly number[] | undefined): Promise<void> {
    const core = this.#core;
    const { io } = core;
    const segmentBytes = this.settings.segmentBytes;
    if (child.phase !== "rebuilding" || child.device === null) return;
    const locks = new RangeLocks(core.sizeBytes, segmentBytes, () => io.rangeUnlocked());
    await core.quiesced(() => {
      io.locks = locks;
      return Promise.resolve();
    });
    try {
      const maps = regions === undefined ? await this.#allocations(child) : undefined;
      if (child.device === null) return;
      const job = new RebuildJob(this, locks, {
        childUri: child.uri,
        destination: child.device,
        sizeBytes: core.sizeBytes,
        segmentBytes,
        regions,
        sourceAllocation: maps?.source,
        destinationAllocation: maps?.destination,
        bytesPerSec: this.settings.bytesPerSec,
      });
      this.#current = { child, job };
      core.emit({ kind: "rebuild-started", rebuild: job.record() });
      this.#pace.begin(this.#hostTotals(), this.reactor.now);
      await this.#finish(child, job, await job.run());
    } finally {
      this.#pace.end(this.#hostTotals(), this.reactor.now);
      io.locks = null;
      io.rangeUnlocked();
    }
  }

  /** Which clusters hold data on either side; whoever cannot tell counts as holding everything. */
  async #allocations(child: Child): Promise<{ source?: Allocation; destination?: Allocation }> {
    const read = async (of: Child | undefined): Promise<Allocation | undefined> => {
      try {
        return await of?.device?.link?.readAllocation();
      } catch (error) {
        if (error instanceof TrilithError && error.code !== "Internal") return undefined;
        throw error;
      }
    };
    const from = this.source();
    const sourceChild =
      from === undefined ? undefined : (this.#core.children[from.index] ?? undefined);
    const source = await read(sourceChild);
    const destination = await read(child);
    return {
      ...(source === undefined ? {} : { source }),
      ...(destination === undefined ? {} : { destination }),
    };
  }

  async #finish(child: Child, job: RebuildJob, outcome: string): Promise<void> {
    if (outcome === "completed" && child.device !== null) {
      const status = await deviceIo(child.device.bdev, IoOp.FLUSH, 0, 0, -1);
      if (status !== IoStatus.OK) job.fail(`flushing the child failed (I/O status ${status})`);
      else if (!(await this.#user.promoteRebuilt(child))) {
        job.fail("the child was lost before it could be recorded as healthy");
      }
    }
    if (job.lacksSource && child.consistent) {
      // It holds every acknowledged write itself: it may be what the others are resynced from now.
      await this.#user.settled();
      if (child.phase === "rebuilding") this.#queue.set(child, job.plan.regions);
    } else if (
      job.state !== "completed" &&
      child.phase === "rebuilding" &&
      this.#core.ended === null
    ) {
      this.#user.lose(child.index, job.state === "stopped" ? "out-of-sync" : "rebuild-failed");
    }
    this.#remember(job.record());
    this.#core.emit({ kind: "rebuild-ended", rebuild: job.record() });
  }

  #remember(record: RebuildRecord): void {
    this.#history.push(record);
    if (this.#history.length > REBUILD_HISTORY_MAX) this.#history.shift();
  }

  /** A child takes no more part, or is in sync already: its rebuild has no purpose. */
  childLost(child: Child): void {
    this.#queue.delete(child);
    if (this.#current?.child === child) this.#current.job.stop("failed", "the child was lost");
  }

  /** Stops everything (the nexus closes); resolves when nothing runs any more. */
  async stopAll(): Promise<void> {
    this.#queue.clear();
    this.#current?.job.stop("stopped");
    await this.#running;
  }

  #jobOf(uri: string): RebuildJob {
    if (this.#current?.child.uri !== uri) {
      throw new TrilithError("NotFound", `no rebuild of ${uri} is running`);
    }
    return this.#current.job;
  }

  stop(uri: string): void {
    const child = this.#core.find(uri);
    if (child !== undefined && this.#queue.delete(child)) {
      this.#user.lose(child.index, "out-of-sync");
      return;
    }
    this.#jobOf(uri).stop("stopped");
  }

  pause(uri: string): void {
    this.#jobOf(uri).pause();
  }

  resume(uri: string): void {
    this.#jobOf(uri).resume();
  }

  configure(change: Partial<RebuildSettings>): void {
    const segment = change.segmentBytes;
    if (segment !== undefined) {
      const isPower = Number.isInteger(Math.log2(segment));
      if (!isPower || segment < SEGMENT_BYTES_MIN || segment > SEGMENT_BYTES_MAX) {
        throw new TrilithError(
          "InvalidArgument",
          `rebuild segment of ${segment} bytes is not a power of two from ${SEGMENT_BYTES_MIN} to ${SEGMENT_BYTES_MAX}`,
        );
      }
      this.settings.segmentBytes = segment;
    }
    if (change.bytesPerSec !== undefined) {
      this.settings.bytesPerSec = change.bytesPerSec;
      if (this.#current !== null) this.#current.job.bytesPerSecLimit = change.bytesPerSec;
    }
  }

  /** The running rebuild of a child, if any. */
  progress(uri: string): RebuildRecord | undefined {
    return this.#current?.child.uri === uri ? this.#current.job.record() : undefined;
  }

  /** Children that wait for their rebuild. */
  waiting(): string[] {
    return [...this.#queue.keys()].map((child) => child.uri);
  }

  history(): readonly RebuildRecord[] {
    return this.#history;
  }
}
