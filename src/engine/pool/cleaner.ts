/**
 * Brings freed clusters back: waits until no request is under way to them, tells the disk that they
 * are free, and keeps a stock of free clusters zeroed, durably, ahead of demand. Only zeroed clusters
 * are ever handed to a replica, so a crash can uncover zeroes and never another replica's bytes.
 */
import { IoStatus } from "../../errors.ts";
import type { PoolDevice } from "./device.ts";
import type { Epochs } from "./epochs.ts";
import {
  REAP_ENTRIES_PER_TURN,
  ZERO_AHEAD_BYTES,
  ZERO_RETRY_MS,
  ZERO_RUN_BYTES,
} from "./limits.ts";
import type { Space } from "./space.ts";

export interface CleanerOptions {
  readonly device: PoolDevice;
  readonly space: Space;
  readonly epochs: Epochs;
  readonly clusterBytes: number;
  /** How many operations wait for a free cluster now. */
  readonly demand: () => number;
  /** Free clusters have become ready. */
  readonly onSupply: () => void;
  /** Zeroing failed; operations that wait should fail. */
  readonly onFailure: (status: IoStatus) => void;
  readonly spawn: (task: () => Promise<void>) => void;
}

export class Cleaner {
  readonly #options: CleanerOptions;
  #reclaiming = false;
  #zeroing = false;
  #reaping = false;
  #stopped = false;
  #retryAtNs = 0;
  #idle: (() => void)[] = [];

  constructor(options: CleanerOptions) {
    this.#options = options;
  }

  /** True when everything that was given up has come back. */
  get isReclaimed(): boolean {
    return !this.#reclaiming && !this.#options.space.hasReleased;
  }

  /** Looks for work: clusters in limbo, deleted objects, a stock below its mark. */
  kick(): void {
    if (this.#stopped) return;
    const { space, spawn } = this.#options;
    if (space.hasReleased && !this.#reclaiming) {
      this.#reclaiming = true;
      spawn(() => this.#reclaim());
    }
    if (!this.#zeroing && this.#shortfall() > 0) {
      this.#zeroing = true;
      spawn(() => this.#zero());
    }
  }

  /** Gives back the clusters of deleted objects, a bounded number per turn. */
  reap(): void {
    if (this.#reaping) return;
    this.#reaping = true;
    this.#options.spawn(async () => {
      while (!this.#options.space.reap(REAP_ENTRIES_PER_TURN)) {
        this.kick();
        await this.#options.device.reactor.sleep(0);
      }
      this.#reaping = false;
      this.kick();
      this.#tellIdle();
    });
  }

  /** Stops taking up work; resolves when what is under way has ended. */
  stop(): Promise<void> {
    this.#stopped = true;
    return this.idle();
  }

  /** Resolves when there is nothing to be done. */
  async idle(): Promise<void> {
    while (this.#reclaiming || this.#zeroing || this.#reaping) {
      await new Promise<void>((resolve) => {
        this.#idle.push(resolve);
      });
    }
  }

  #tellIdle(): void {
    const idle = this.#idle;
    this.#idle = [];
    for (const resolve of idle) resolve();
  }

  /** Zeroed clusters that are missing: demand, and a stock ahead of it. */
  #shortfall(): number {
    const { space, clusterBytes, demand, device } = this.#options;
    if (space.dirty === 0) return 0;
    const wanted = demand();
    if (wanted > space.zeroed) return wanted - space.zeroed;
    if (device.reactor.now < this.#retryAtNs) return 0;
    const stock = Math.max(1, Math.floor(ZERO_AHEAD_BYTES / clusterBytes));
    return Math.max(0, stock - space.zeroed);
  }

  /** Waits for the requests to clusters that were given up; then they are free, or their own again. */
  async #reclaim(): Promise<void> {
    const { space, epochs, device, clusterBytes } = this.#options;
    while (space.hasReleased && !this.#stopped) {
      const { limbo, lone } = space.takeReleased();
      await epochs.grace();
      space.unshare(lone);
      for (let i = 0; i < limbo.length; ) {
        let end = i + 1;
        while (end < limbo.length && limbo[end] === limbo[end - 1]! + 1) end++;
        // Advice: what the disk makes of it is its business.
        await device.discard(limbo[i]! * clusterBytes, (end - i) * clusterBytes);
        i = end;
      }
      space.limboOver(limbo);
      this.#options.onSupply();
      this.kick();
    }
    this.#reclaiming = false;
    this.#tellIdle();
  }

  /** Zeroes dirty clusters until the stock is full. */
  async #zero(): Promise<void> {
    const { space, device, clusterBytes, onFailure, onSupply } = this.#options;
    const runMax = Math.max(1, Math.floor(ZERO_RUN_BYTES / clusterBytes));
    for (;;) {
      const wanted = this.#stopped ? 0 : this.#shortfall();
      const run = wanted === 0 ? null : space.takeDirtyRun(Math.min(wanted, runMax));
      if (run === null) break;
      const [first, count] = run;
      let status = await device.zero(first * clusterBytes, count * clusterBytes, true);
      if (status === IoStatus.OK) status = await device.flush();
      space.zeroingOver(first, count, status === IoStatus.OK);
      if (status === IoStatus.OK) onSupply();
      else {
        this.#retryAtNs = device.reactor.now + ZERO_RETRY_MS * 1e6;
        onFailure(status);
      }
    }
    this.#zeroing = false;
    this.#tellIdle();
  }
}
