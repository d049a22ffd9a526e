/**
 * How much of its time a rebuild works, so that hosts do not feel it: the latency of their requests is
 * compared with what it was while nothing was rebuilt. It may reach a multiple of that; above, the
 * rebuild works less, below it works more, and with hosts idle it works all the time. Pure: whoever
 * samples passes counters and times in.
 */
import {
  PACE_FACTOR_CALM,
  PACE_FACTOR_MAX,
  PACE_INTERVAL_MS,
  PACE_OPS_MIN,
  PACE_SHARE_MIN,
} from "./limits.ts";

/** Counters of the requests of hosts so far: how many have ended, and how long they took together. */
export interface HostTotals {
  readonly ops: number;
  readonly latencyNs: number;
}

export class RebuildPace {
  /** Part of its time that the rebuild works. */
  share = 1;
  #calmNs: number | null = null;
  #last: HostTotals = { ops: 0, latencyNs: 0 };
  #lastNs: number | null = null;

  /** Latency of hosts' requests while nothing is rebuilt; null: not known yet. */
  get calmNs(): number | null {
    return this.#calmNs;
  }

  /** A rebuild begins: what happened since the last one ended says what is normal. */
  begin(totals: HostTotals, nowNs: number): void {
    const ops = totals.ops - this.#last.ops;
    if (ops >= PACE_OPS_MIN) this.#calmNs = (totals.latencyNs - this.#last.latencyNs) / ops;
    this.share = 1;
    this.#mark(totals, nowNs);
  }

  /** A rebuild has ended. */
  end(totals: HostTotals, nowNs: number): void {
    this.#mark(totals, nowNs);
  }

  #mark(totals: HostTotals, nowNs: number): void {
    this.#last = totals;
    this.#lastNs = nowNs;
  }

  /** True when it is time for another sample. */
  isDue(nowNs: number): boolean {
    return this.#lastNs === null || nowNs - this.#lastNs >= PACE_INTERVAL_MS * 1e6;
  }

  /** Takes in what hosts did since the last sample. */
  sample(totals: HostTotals, nowNs: number): void {
    const ops = totals.ops - this.#last.ops;
    const latencyNs = totals.latencyNs - this.#last.latencyNs;
    this.#mark(totals, nowNs);
    // Few requests say nothing, and few feel it; counters that went back were reset.
    if (ops < PACE_OPS_MIN || latencyNs < 0) {
      this.share = Math.min(1, this.share * 1.5);
      return;
    }
    const meanNs = latencyNs / ops;
    // Never higher than what was seen under a rebuild: that is no worse than calm.
    this.#calmNs = this.#calmNs === null ? meanNs : Math.min(this.#calmNs, meanNs);
    const factor = meanNs / this.#calmNs;
    if (factor > PACE_FACTOR_MAX) this.share = Math.max(PACE_SHARE_MIN, this.share * 0.7);
    else if (factor < PACE_FACTOR_CALM) this.share = Math.min(1, this.share * 1.1);
  }

  /** How long to rest after having worked for `workedNs`. */
  restNs(workedNs: number): number {
    return workedNs * (1 / this.share - 1);
  }
}
