/** The scrub of one nexus: at most one at a time, and the range locks that it needs now and then. */
import { assert } from "../../assert.ts";
import { IoStatus, TrilithError } from "../../errors.ts";
import { IoOp } from "../reactor/io-table.ts";
import type { Child, ChildDevice } from "./child.ts";
import type { NexusCore } from "./core.ts";
import { SCRUB_CALM_SEGMENTS, SCRUB_SEGMENT_BYTES } from "./limits.ts";
import { RangeLocks } from "./range-locks.ts";
import type { Allocation } from "./replica-link.ts";
import { type ScrubHost, ScrubJob, type ScrubPlan } from "./scrub.ts";
import type { ScrubFinding, ScrubRecord, ScrubWait } from "./scrub-record.ts";

/** What the scrub asks of the nexus's other parts. */
export interface ScrubsUser {
  childFailed(index: number, status: number): void;
  superseded(reason: string): void;
  /** A range is being made equal after a refused write. */
  isReconciling(): boolean;
}

export class Scrubs implements ScrubHost {
  readonly #core: NexusCore;
  readonly #user: ScrubsUser;
  #job: ScrubJob | null = null;
  #running: Promise<void> | null = null;
  /** Jobs that may have something under way: the last one, and one that is just ending. */
  readonly #unfinished = new Set<ScrubJob>();
  #locks: RangeLocks | null = null;
  /** Segments without difference since the locks were last used. */
  #calm = 0;
  /** What keeps a scrub waiting, whether or not there is one. */
  readonly #suspensions: ScrubWait[] = [];
  /** The devices that the present segment is read from. */
  readonly #devices = new Map<Child, ChildDevice>();

  constructor(core: NexusCore, user: ScrubsUser) {
    this.#core = core;
    this.#user = user;
  }

  // --------------------------------------------------------------------------- what a job asks of its host

  get reactor() {
    return this.#core.reactor;
  }

  get regions() {
    return this.#core.regions;
  }

  get memory() {
    return this.#core.context.rebuildMemory;
  }

  get sizeBytes(): number {
    return this.#core.sizeBytes;
  }

  get hasEnded(): boolean {
    return this.#core.ended !== null;
  }

  get isReconciling(): boolean {
    return this.#user.isReconciling();
  }

  clockMs(): number {
    return this.#core.context.clockMs();
  }

  children(): Child[] {
    const children = this.#core.inSync().filter(({ device }) => device !== null);
    this.#devices.clear();
    for (const child of children) this.#devices.set(child, child.device!);
    return children;
  }

  isCompared(child: Child): boolean {
    return child.phase === "in-sync" && this.#devices.get(child) === child.device;
  }

  async allocationOf(child: Child): Promise<Allocation | undefined> {
    try {
      return await child.device?.link?.readAllocation();
    } catch (error) {
      if (error instanceof TrilithError && error.code !== "Internal") return undefined;
      throw error;
    }
  }

  hostLoad() {
    let requests = 0;
    let latencyNs = 0;
    for (const { statistics } of this.#core.present()) {
      for (const op of [IoOp.READ, IoOp.WRITE]) {
        requests += statistics.ops[op]!;
        latencyNs += statistics.latencyNs[op]!;
      }
    }
    return { requests, latencyNs };
  }

  childLost(child: Child, status: number): void {
    if (status === IoStatus.RESERVATION_CONFLICT || status === IoStatus.SUPERSEDED) {
      this.#user.superseded(`child ${child.uri} is reserved by a newer nexus`);
    } else if (this.isCompared(child) && this.#core.inSync().length > 1) {
      this.#user.childFailed(child.index, status);
    }
  }

  async lock(offset: number): Promise<() => void> {
    const { io } = this.#core;
    this.#calm = 0;
    if (this.#locks === null) {
      const locks = new RangeLocks(this.sizeBytes, SCRUB_SEGMENT_BYTES, () => io.rangeUnlocked());
      await this.#core.quiesced(() => {
        assert(io.locks === null, "a scrub and a rebuild do not lock ranges at once");
        io.locks = locks;
        return Promise.resolve();
      });
      this.#locks = locks;
    }
    const start = Math.floor(offset / SCRUB_SEGMENT_BYTES) * SCRUB_SEGMENT_BYTES;
    return this.#locks.acquire(start, Math.min(SCRUB_SEGMENT_BYTES, this.sizeBytes - start));
  }

  passed(): void {
    if (++this.#calm >= SCRUB_CALM_SEGMENTS) this.#giveLocksUp();
  }

  found(finding: ScrubFinding): void {
    this.#core.emit({ kind: "scrub-mismatch", finding });
  }

  /** Host writes need not be counted any more. */
  #giveLocksUp(): void {
    if (this.#locks === null) return;
    const { io } = this.#core;
    assert(io.locks === this.#locks, "the locks are those of the scrub");
    this.#locks = null;
    io.locks = null;
    io.rangeUnlocked();
  }

  // ------------------------------------------------------------------------------------- operation

  /**
   * Starts a scrub, or confirms the one of that id which runs. `FailedPrecondition` when there is
   * nothing to compare, `Conflict` when another one runs.
   */
  start(plan: ScrubPlan): ScrubRecord {
    const core = this.#core;
    const running = this.#job;
    if (running !== null && !running.hasEnded) {
      if (running.plan.id === plan.id) return running.record();
      throw new TrilithError(
        "Conflict",
        `scrub ${running.plan.id} of nexus ${core.identity.name} runs`,
        "stop it first",
      );
    }
    if (core.ended !== null || this.children().length < 2) {
      throw new TrilithError(
        "FailedPrecondition",
        `nexus ${core.identity.name} has fewer than two children in sync: there is nothing to compare`,
        "wait for its rebuilds, or add a replica",
      );
    }
    if (plan.offsetBytes > core.sizeBytes) {
      throw new TrilithError(
        "OutOfRange",
        `offset ${plan.offsetBytes} lies beyond the ${core.sizeBytes} bytes of nexus ${core.identity.name}`,
      );
    }
    const job = new ScrubJob(this, plan);
    const before = this.#running;
    this.#job = job;
    this.#unfinished.add(job);
    for (const reason of this.#suspensions) void job.suspend(reason);
    this.#running = this.#run(job, before);
    return job.record();
  }

  async #run(job: ScrubJob, before: Promise<void> | null): Promise<void> {
    await before;
    this.#core.emit({ kind: "scrub-started", scrub: job.record() });
    await job.run();
    this.#unfinished.delete(job);
    this.#giveLocksUp();
    this.#core.emit({ kind: "scrub-ended", scrub: job.record() });
  }

  /** Has the scrub keep quiet; resolves when nothing of it is under way and no range can be locked. */
  async suspend(reason: ScrubWait): Promise<void> {
    this.#suspensions.push(reason);
    await Promise.all([...this.#unfinished].map((job) => job.suspend(reason)));
    this.#giveLocksUp();
  }

  /** Takes one `suspend` back. */
  unsuspend(reason: ScrubWait): void {
    const at = this.#suspensions.indexOf(reason);
    assert(at >= 0, `the scrub was suspended for ${reason}`);
    this.#suspensions.splice(at, 1);
    for (const job of this.#unfinished) job.unsuspend(reason);
  }

  #current(): ScrubJob {
    if (this.#job !== null) return this.#job;
    throw new TrilithError(
      "NotFound",
      `nexus ${this.#core.identity.name} has not been scrubbed since it was opened`,
    );
  }

  pause(): ScrubRecord {
    this.#current().pause();
    return this.#current().record();
  }

  resume(): ScrubRecord {
    this.#current().resume();
    return this.#current().record();
  }

  /** Ends it where it is; resolves when it has ended. */
  async stop(reason = "it was stopped"): Promise<ScrubRecord> {
    const job = this.#current();
    job.stop(reason);
    await this.#running;
    return job.record();
  }

  configure(bytesPerSecLimit: number): ScrubRecord {
    this.#current().bytesPerSecLimit = bytesPerSecLimit;
    return this.#current().record();
  }

  /** Ends it with the nexus; resolves when nothing of it is under way. */
  async stopAll(): Promise<void> {
    this.#job?.stop("the nexus was closed");
    await this.#running;
  }

  /** The scrub that runs, or the last one; `NotFound` before there was one. */
  current(): ScrubRecord {
    return this.#current().record();
  }

  /** The same; undefined before there was one. */
  record(): ScrubRecord | undefined {
    return this.#job?.record();
  }
}
