/**
 * Latency histogram: log-linear, 64 steps per power of two (at most 1.6 % wide), in units of 16 ns
 * up to 68 s, in one typed array. Adding a value allocates nothing.
 */

const UNIT_NS = 16;
const STEP_BITS = 6;
const STEPS = 1 << STEP_BITS;
const BUCKETS = (32 - STEP_BITS) * STEPS + STEPS;
const VALUE_MAX = 0xffffffff;

/** Latencies in ns. All are 0 when nothing was counted. */
export interface LatencySummary {
  readonly count: number;
  readonly minNs: number;
  readonly avgNs: number;
  readonly p50Ns: number;
  readonly p90Ns: number;
  readonly p99Ns: number;
  readonly p999Ns: number;
  readonly maxNs: number;
}

export class Histogram {
  count = 0;
  sumNs = 0;
  minNs = Number.POSITIVE_INFINITY;
  maxNs = 0;
  readonly #buckets = new Float64Array(BUCKETS);

  /** Counts one latency. */
  add(ns: number): void {
    this.count++;
    this.sumNs += ns;
    if (ns < this.minNs) this.minNs = ns;
    if (ns > this.maxNs) this.maxNs = ns;
    const value = Math.min(ns / UNIT_NS, VALUE_MAX) >>> 0;
    let at = value;
    if (value >= STEPS) {
      const shift = 31 - STEP_BITS - Math.clz32(value);
      at = shift * STEPS + (value >>> shift);
    }
    this.#buckets[at] = this.#buckets[at]! + 1;
  }

  /** Counts everything that `other` holds. */
  merge(other: Histogram): void {
    this.count += other.count;
    this.sumNs += other.sumNs;
    this.minNs = Math.min(this.minNs, other.minNs);
    this.maxNs = Math.max(this.maxNs, other.maxNs);
    for (let i = 0; i < BUCKETS; i++) {
      this.#buckets[i] = this.#buckets[i]! + other.#buckets[i]!;
    }
  }

  /** The latency that `share` (0 to 1) of those counted do not exceed, in ns: the middle of its step. */
  percentile(share: number): number {
    if (this.count === 0) return 0;
    const wanted = Math.max(1, Math.ceil(this.count * share));
    let seen = 0;
    for (let at = 0; at < BUCKETS; at++) {
      seen += this.#buckets[at]!;
      if (seen < wanted) continue;
      const shift = at < 2 * STEPS ? 0 : Math.floor(at / STEPS) - 1;
      const low = (at - shift * STEPS) * 2 ** shift * UNIT_NS;
      const middle = low + (2 ** shift * UNIT_NS) / 2;
      return Math.min(Math.max(middle, this.minNs), this.maxNs);
    }
    return this.maxNs;
  }

  summary(): LatencySummary {
    const empty = this.count === 0;
    return {
      count: this.count,
      minNs: empty ? 0 : this.minNs,
      avgNs: empty ? 0 : this.sumNs / this.count,
      p50Ns: this.percentile(0.5),
      p90Ns: this.percentile(0.9),
      p99Ns: this.percentile(0.99),
      p999Ns: this.percentile(0.999),
      maxNs: this.maxNs,
    };
  }
}
