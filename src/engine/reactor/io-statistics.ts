/**
 * Counters of requests (of a namespace, a child, an export): operations, bytes, errors, and a latency
 * histogram per operation. Latency is seen by the reactor: from the turn in which a command was taken to the turn in which it
 * ended, in buckets of powers of two of about a microsecond.
 */
import type { IoTable } from "../reactor/io-table.ts";

/** Operations counted: the values of `IoOp`. */
const OPS = 8;
/** Bucket b counts latencies below 2^b * 1.024 us; the last one everything above. */
export const LATENCY_BUCKETS = 32;

export class IoStatistics {
  readonly ops = new Float64Array(OPS);
  readonly bytes = new Float64Array(OPS);
  readonly errors = new Float64Array(OPS);
  readonly latencyNs = new Float64Array(OPS);
  readonly latency = new Float64Array(OPS * LATENCY_BUCKETS);

  /** Counts a request that ended. */
  count(io: IoTable, slot: number, nowNs: number): void {
    const op = io.op[slot]!;
    this.ops[op] = this.ops[op]! + 1;
    this.bytes[op] = this.bytes[op]! + io.length[slot]!;
    if (io.status[slot] !== 0) this.errors[op] = this.errors[op]! + 1;
    const tookNs = nowNs - io.startedNs[slot]!;
    this.latencyNs[op] = this.latencyNs[op]! + tookNs;
    const bucket = op * LATENCY_BUCKETS + 32 - Math.clz32(Math.min(tookNs / 1024, 0x7fffffff));
    this.latency[bucket] = this.latency[bucket]! + 1;
  }

  reset(): void {
    for (const field of [this.ops, this.bytes, this.errors, this.latencyNs, this.latency]) {
      field.fill(0);
    }
  }
}
