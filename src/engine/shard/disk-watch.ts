/**
 * Watches the disk of a pool that has failed, until the pool is closed: does it answer again, and for
 * how long by now? Nothing is done with the pool here; whoever decides reads `state` and imports it
 * again.
 *
 * A disk that comes and goes has to answer for longer each time before it counts as steady: rebuilding
 * from and to it, only to lose it again, costs more than waiting.
 */
import { TrilithError } from "../../errors.ts";
import { deviceAnswer, type Pool } from "../pool/index.ts";
import type { Timer } from "../reactor/timers.ts";
import { DISK_PROBE_MS, DISK_STEADY_MS, DISK_STEADY_MS_MAX, FLAP_MEMORY_MS } from "./limits.ts";
import type { ShardContext } from "./shard.ts";

/** `failed`: it does not answer. `answering`: it does. `steady`: it has for long enough. */
export type DiskState = "failed" | "answering" | "steady";

/** How often the disks of pools have failed lately, by the pool's UUID. */
export class Flaps {
  readonly #known = new Map<string, { times: number; lastNs: number }>();
  readonly #steadyMs: number;

  constructor(steadyMs = DISK_STEADY_MS) {
    this.#steadyMs = steadyMs;
  }

  /** A disk has failed; returns for how long it has to answer before it counts as steady. */
  failed(poolUuid: string, nowNs: number): number {
    const known = this.#known.get(poolUuid);
    const isRecent = known !== undefined && nowNs - known.lastNs < FLAP_MEMORY_MS * 1e6;
    const times = isRecent ? known.times + 1 : 1;
    this.#known.set(poolUuid, { times, lastNs: nowNs });
    return Math.min(DISK_STEADY_MS_MAX, this.#steadyMs * 2 ** (times - 1));
  }
}

export class DiskWatch {
  state: DiskState = "failed";
  readonly #context: ShardContext;
  readonly #pool: Pool;
  readonly #disk: string;
  readonly #steadyMs: number;
  #answeringSinceNs: number | null = null;
  #timer: Timer;
  #isStopped = false;
  #probing: Promise<void> = Promise.resolve();

  /** `disk` is the URI that the pool's disk is opened by; `steadyMs` comes from `Flaps`. */
  constructor(context: ShardContext, pool: Pool, disk: string, steadyMs: number) {
    this.#context = context;
    this.#pool = pool;
    this.#disk = disk;
    this.#steadyMs = steadyMs;
    this.#timer = context.reactor.after(this.#periodMs, () => this.#look());
  }

  get #periodMs(): number {
    return Math.min(DISK_PROBE_MS, this.#steadyMs / 4);
  }

  /** Ends it; resolves when it has nothing under way with the disk any more. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#timer.cancel();
    await this.#probing;
  }

  #look(): void {
    const { reactor } = this.#context;
    this.#probing = this.#probe().then((answers) => {
      if (this.#isStopped) return;
      this.#answered(answers);
      this.#timer = reactor.after(this.#periodMs, () => this.#look());
    });
    reactor.background(this.#probing);
  }

  #answered(answers: boolean): void {
    const { reactor, log } = this.#context;
    const before = this.state;
    if (!answers) {
      this.#answeringSinceNs = null;
      this.state = "failed";
    } else {
      this.#answeringSinceNs ??= reactor.now;
      const forMs = (reactor.now - this.#answeringSinceNs) / 1e6;
      this.state = forMs >= this.#steadyMs ? "steady" : "answering";
    }
    if (this.state === before) return;
    log("info", "disk of a failed pool", { pool: this.#pool.name, disk: this.state });
  }

  async #probe(): Promise<boolean> {
    const answer = await this.#pool.diskAnswer();
    // A disk that was pulled out never comes back as the device that it was.
    return answer === "answers" || (answer === "gone" && (await this.#isBackAnew()));
  }

  async #isBackAnew(): Promise<boolean> {
    const { reactor, options, openBdev } = this.#context;
    try {
      const bdev = await openBdev(reactor, this.#disk, { host: options.host });
      try {
        return (await deviceAnswer(bdev, this.#pool.uuid)) === "answers";
      } finally {
        await bdev.close();
      }
    } catch (error) {
      if (error instanceof TrilithError) return false;
      throw error;
    }
  }
}
