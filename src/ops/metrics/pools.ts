/** Metrics of pools: Mayastor's names (mayastor.md 6), those of its older releases too, and ours. */
import { gauge } from "./definition.ts";
import type { EngineReading } from "./engine-source.ts";
import type { Exposition } from "./exposition.ts";

const POOL = ["node", "name"] as const;
const STATUS = "State of the pool: 0 unknown, 1 online, 2 degraded, 3 faulted";

export const poolMetrics = {
  totalBytes: gauge("diskpool_total_size_bytes", "Bytes of the pool that can hold data", ...POOL),
  usedBytes: gauge(
    "diskpool_used_size_bytes",
    "Bytes of the pool that hold data or are reserved for thick replicas",
    ...POOL,
  ),
  committedBytes: gauge(
    "diskpool_committed_size_bytes",
    "Bytes that the pool has promised: the sizes of all replicas, and what snapshots hold alone",
    ...POOL,
  ),
  status: gauge("diskpool_status", STATUS, ...POOL),
  diskBytes: gauge("diskpool_disk_capacity_bytes", "Size of the pool's disk in bytes", ...POOL),
  ioErrors: gauge(
    "diskpool_io_error_count",
    "Requests that the pool's disk has failed since the pool was opened",
    ...POOL,
  ),
  oldTotalBytes: gauge(
    "disk_pool_total_size_bytes",
    "The same as diskpool_total_size_bytes, under the name of older releases",
    ...POOL,
  ),
  oldUsedBytes: gauge(
    "disk_pool_used_size_bytes",
    "The same as diskpool_used_size_bytes, under the name of older releases",
    ...POOL,
  ),
  oldCommittedBytes: gauge(
    "disk_pool_committed_size_bytes",
    "The same as diskpool_committed_size_bytes, under the name of older releases",
    ...POOL,
  ),
  oldStatus: gauge("disk_pool_status", STATUS, ...POOL),
  metadataBytes: gauge(
    "trilith_pool_metadata_bytes",
    "Bytes of the pool that hold its own records",
    ...POOL,
  ),
  clusterBytes: gauge("trilith_pool_cluster_bytes", "Size of a cluster of the pool", ...POOL),
  replicas: gauge("trilith_pool_replicas", "Replicas and clones in the pool", ...POOL),
  snapshots: gauge("trilith_pool_snapshots", "Snapshots in the pool", ...POOL),
  errors: gauge(
    "trilith_pool_io_errors",
    "Requests that the pool's disk has failed since the pool was opened, by kind",
    ...POOL,
    "kind",
  ),
} as const;

/** As Mayastor numbers them; a pool that is closed is not known to be anything. */
const statusNumber = { offline: 0, online: 1, degraded: 2, faulted: 3 } as const;

export function collectPools(out: Exposition, { info, pools }: EngineReading): void {
  const m = poolMetrics;
  for (const pool of pools) {
    const of = [info.nodeName, pool.name];
    const status = statusNumber[pool.state];
    out.add(m.totalBytes, of, pool.capacityBytes);
    out.add(m.usedBytes, of, pool.usedBytes);
    out.add(m.committedBytes, of, pool.committedBytes);
    out.add(m.status, of, status);
    out.add(m.diskBytes, of, pool.diskCapacityBytes);
    out.add(m.ioErrors, of, pool.readErrors + pool.writeErrors + pool.metadataErrors);
    out.add(m.oldTotalBytes, of, pool.capacityBytes);
    out.add(m.oldUsedBytes, of, pool.usedBytes);
    out.add(m.oldCommittedBytes, of, pool.committedBytes);
    out.add(m.oldStatus, of, status);
    out.add(m.metadataBytes, of, pool.metadataBytes);
    out.add(m.clusterBytes, of, pool.clusterSizeBytes);
    out.add(m.replicas, of, pool.replicas);
    out.add(m.snapshots, of, pool.snapshots);
    out.add(m.errors, [...of, "read"], pool.readErrors);
    out.add(m.errors, [...of, "write"], pool.writeErrors);
    out.add(m.errors, [...of, "metadata"], pool.metadataErrors);
  }
}
