/**
 * Looks at the disk of a pool that is not known to have failed: nobody may use it for hours, and a disk
 * that is gone, or does not answer at all, is to be known before it is needed.
 */
import type { Pool } from "../pool/index.ts";
import type { Timer } from "../reactor/timers.ts";
import { DISK_CHECK_MS, DISK_STALL_MS } from "./limits.ts";
import type { ShardContext } from "./shard.ts";

export class DiskCheck {
  readonly #context: ShardContext;
  readonly #pool: Pool;
  #timer: Timer;
  #askedNs: number | null = null;
  #isStopped = false;

  constructor(context: ShardContext, pool: Pool) {
    this.#context = context;
    this.#pool = pool;
    this.#timer = context.reactor.after(DISK_CHECK_MS, () => this.#look());
  }

  stop(): void {
    this.#isStopped = true;
    this.#timer.cancel();
  }

  #look(): void {
    const { reactor } = this.#context;
    if (this.#isStopped) return;
    this.#timer = reactor.after(DISK_CHECK_MS, () => this.#look());
    if (this.#askedNs !== null) {
      const forMs = (reactor.now - this.#askedNs) / 1e6;
      if (forMs >= DISK_STALL_MS) this.#pool.diskStalled(forMs);
      return;
    }
    this.#askedNs = reactor.now;
    const asked = this.#pool.checkDisk().finally(() => {
      this.#askedNs = null;
    });
    reactor.background(asked);
  }
}
