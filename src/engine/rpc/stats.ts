/** Routes and shapes of I/O statistics. */
import * as v from "valibot";
import { Bytes, Count } from "./fields.ts";
import { routes } from "./route.ts";

/** Counters of one kind of operation since the last reset. */
export const OpStats = v.object({
  ops: Count,
  bytes: Bytes,
  errors: Count,
  /** Sum of all latencies. */
  latencyUs: v.number(),
  /**
   * Operations by latency: entry b counts those below 2^b * 1.024 microseconds and not in an entry
   * before; the last one everything above. Zeroes at the end are left out.
   */
  latencyCounts: v.array(Count),
});
export type OpStats = v.InferOutput<typeof OpStats>;

export const StatsKind = v.picklist(["pool", "replica", "nexus", "child", "subsystem", "nbd"]);
export type StatsKind = v.InferOutput<typeof StatsKind>;

/**
 * Counters of one thing. What hosts asked for over any protocol is counted for a subsystem or NBD
 * export, for the nexus or replica behind it, and for the pool of the replica.
 */
export const IoStats = v.object({
  kind: StatsKind,
  /** Name of a pool or export, UUID of a replica or nexus, NQN of a subsystem, URI of a child. */
  name: v.string(),
  /** UUID of the nexus that a child belongs to; null for everything else. */
  nexusUuid: v.nullable(v.string()),
  read: OpStats,
  write: OpStats,
  flush: OpStats,
  writeZeroes: OpStats,
  discard: OpStats,
  reactor: Count,
});
export type IoStats = v.InferOutput<typeof IoStats>;

const query = v.strictObject({ kind: v.optional(StatsKind), name: v.optional(v.string()) });

export const statsRoutes = routes({
  listStats: {
    method: "GET",
    path: "/v1/stats",
    summary: "Operations, bytes, errors and latencies",
    query,
    result: v.array(IoStats),
  },
  resetStats: {
    method: "DELETE",
    path: "/v1/stats",
    summary: "Sets counters to zero",
    query,
  },
});
