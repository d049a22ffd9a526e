/**
 * Metrics of I/O: of pools, of replicas, and of volumes that are published on this node (their
 * nexuses). Mayastor's six gauges per thing, cumulative since the engine's start (mayastor.md 6), and
 * ours: counters by operation, and latencies as histograms.
 */
import type { OpStats } from "../../engine/rpc/stats.ts";
import { counter, gauge, histogram } from "./definition.ts";
import type { EngineReading } from "./engine-source.ts";
import type { Distribution, Exposition } from "./exposition.ts";

const operations = ["read", "write", "flush", "writeZeroes", "discard"] as const;
const operationNames = {
  read: "read",
  write: "write",
  flush: "flush",
  writeZeroes: "write_zeroes",
  discard: "discard",
} as const;
/** Operations whose latencies are exported: the others are rare. */
const timedOperations = ["read", "write", "flush"] as const;

type ReadWrite = Readonly<Record<(typeof operations)[number], OpStats>>;

/** `theirs` begins Mayastor's names, `ours` begins ours. */
function ioMetrics(theirs: string, thing: string, ...labels: string[]) {
  const since = "since the engine's start";
  const ours = `trilith_${theirs.replace("diskpool", "pool")}`;
  return {
    bytesRead: gauge(`${theirs}_bytes_read`, `Bytes read from the ${thing} ${since}`, ...labels),
    readOps: gauge(`${theirs}_num_read_ops`, `Reads from the ${thing} ${since}`, ...labels),
    bytesWritten: gauge(
      `${theirs}_bytes_written`,
      `Bytes written to the ${thing} ${since}`,
      ...labels,
    ),
    writeOps: gauge(`${theirs}_num_write_ops`, `Writes to the ${thing} ${since}`, ...labels),
    readLatencyUs: gauge(
      `${theirs}_read_latency_us`,
      `Sum of the latencies of reads from the ${thing} ${since}, in microseconds`,
      ...labels,
    ),
    writeLatencyUs: gauge(
      `${theirs}_write_latency_us`,
      `Sum of the latencies of writes to the ${thing} ${since}, in microseconds`,
      ...labels,
    ),
    operations: counter(`${ours}_operations_total`, `Operations of the ${thing}`, ...labels, "op"),
    bytes: counter(`${ours}_io_bytes_total`, `Bytes that operations covered`, ...labels, "op"),
    errors: counter(`${ours}_io_errors_total`, `Operations that failed`, ...labels, "op"),
    latency: histogram(
      `${ours}_latency_seconds`,
      `Latency of operations of the ${thing}`,
      ...labels,
      "op",
    ),
  };
}

type IoMetrics = ReturnType<typeof ioMetrics>;

const REPLICA = ["node", "name", "pv_name", "pool_name", "pool_uuid"];

export const ioOfPools = ioMetrics("diskpool", "pool", "node", "name");
export const ioOfVolumes = ioMetrics("volume", "volume", "node", "pv_name");
export const ioOfReplicas = ioMetrics("replica", "replica", ...REPLICA);

/**
 * Bounds of the histograms: entry b of the engine's holds latencies below 2^b * 1.024 us. What is
 * below the first or above the last of these is not told apart any more.
 */
const FIRST_BUCKET = 4;
const LAST_BUCKET = 22;
const US = 1e-6;
const latencyBounds: readonly number[] = Array.from(
  { length: LAST_BUCKET - FIRST_BUCKET + 1 },
  (_, i) => Number((2 ** (FIRST_BUCKET + i) * 1.024 * US).toPrecision(9)),
);

/** The engine's histogram in seconds. */
export function latencyDistribution({ latencyCounts, latencyUs }: OpStats): Distribution {
  const counts = new Array<number>(latencyBounds.length + 1).fill(0);
  latencyCounts.forEach((count, entry) => {
    const bucket = Math.min(Math.max(entry, FIRST_BUCKET), LAST_BUCKET + 1) - FIRST_BUCKET;
    counts[bucket] = counts[bucket]! + count;
  });
  return { bounds: latencyBounds, counts, sum: latencyUs * US };
}

function collectThing(out: Exposition, m: IoMetrics, of: readonly string[], io: ReadWrite): void {
  out.add(m.bytesRead, of, io.read.bytes);
  out.add(m.readOps, of, io.read.ops);
  out.add(m.bytesWritten, of, io.write.bytes);
  out.add(m.writeOps, of, io.write.ops);
  out.add(m.readLatencyUs, of, io.read.latencyUs);
  out.add(m.writeLatencyUs, of, io.write.latencyUs);
  for (const operation of operations) {
    const labels = [...of, operationNames[operation]];
    out.add(m.operations, labels, io[operation].ops);
    out.add(m.bytes, labels, io[operation].bytes);
    out.add(m.errors, labels, io[operation].errors);
  }
  for (const operation of timedOperations) {
    const labels = [...of, operationNames[operation]];
    out.addDistribution(m.latency, labels, latencyDistribution(io[operation]));
  }
}

/** Name of the persistent volume of Kubernetes that a volume is; empty when there is no volume. */
export function persistentVolumeName(volumeUuid: string): string {
  return volumeUuid === "" ? "" : `pvc-${volumeUuid}`;
}

export function collectIo(out: Exposition, reading: EngineReading): void {
  const node = reading.info.nodeName;
  const nexuses = new Map(reading.nexuses.map((nexus) => [nexus.uuid, nexus]));
  const replicas = new Map(reading.replicas.map((replica) => [replica.uuid, replica]));
  for (const stats of reading.stats) {
    if (stats.kind === "pool") collectThing(out, ioOfPools, [node, stats.name], stats);
    if (stats.kind === "nexus") {
      // One that was closed meanwhile is no volume of this node any more.
      const nexus = nexuses.get(stats.name);
      if (nexus === undefined) continue;
      collectThing(out, ioOfVolumes, [node, persistentVolumeName(nexus.volumeUuid)], stats);
    }
    if (stats.kind === "replica") {
      const replica = replicas.get(stats.name);
      if (replica === undefined) continue;
      const { sync, poolName, poolUuid } = replica;
      const pv = persistentVolumeName(sync.volumeUuid);
      collectThing(out, ioOfReplicas, [node, replica.uuid, pv, poolName, poolUuid], stats);
    }
  }
}
