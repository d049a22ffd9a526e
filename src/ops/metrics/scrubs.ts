/** Metrics of scrubs, exported by the leader: whatever node compares, their series stay. */
import type { ClusterState } from "../../control/cluster-state.ts";
import type { VolumeRecord } from "../../control/model.ts";
import { gauge } from "./definition.ts";
import type { Exposition } from "./exposition.ts";
import { persistentVolumeName } from "./io.ts";

export const scrubMetrics = {
  completed: gauge(
    "trilith_volume_scrub_completed_timestamp_seconds",
    "When all replicas of the volume were last compared to the end, as seconds since 1970",
    "pv_name",
  ),
  progress: gauge(
    "trilith_volume_scrub_progress_ratio",
    "Share of the volume that its scrub has looked at, 0 to 1; absent while none runs",
    "pv_name",
  ),
  compared: gauge(
    "trilith_volume_scrub_compared_bytes",
    "Bytes that the last or present scrub has compared",
    "pv_name",
  ),
  mismatched: gauge(
    "trilith_volume_scrub_mismatched_bytes",
    "Bytes that the last or present scrub has found to differ or not to be readable",
    "pv_name",
  ),
  repaired: gauge(
    "trilith_volume_scrub_repaired_bytes",
    "Bytes of these that were repaired from the majority of the replicas",
    "pv_name",
  ),
  unrepaired: gauge(
    "trilith_volume_scrub_unrepaired_bytes",
    "Bytes known to differ between the replicas, with no majority to repair them from",
    "pv_name",
  ),
} as const;

/** What is known of the scrub of a volume. */
export interface ScrubReading {
  readonly isRunning: boolean;
  readonly progressRatio: number;
  readonly completedAtMs: number | null;
  readonly comparedBytes: number;
  readonly mismatchedBytes: number;
  readonly repairedBytes: number;
  readonly unrepairedBytes: number;
}

/** Undefined: the volume never had one. */
export type ScrubReader = (state: ClusterState, volume: VolumeRecord) => ScrubReading | undefined;

export function collectScrub(
  out: Exposition,
  volume: VolumeRecord,
  scrub: ScrubReading | undefined,
): void {
  if (scrub === undefined) return;
  const m = scrubMetrics;
  const of = [persistentVolumeName(volume.uuid)];
  if (scrub.completedAtMs !== null) out.add(m.completed, of, scrub.completedAtMs / 1000);
  if (scrub.isRunning) out.add(m.progress, of, scrub.progressRatio);
  out.add(m.compared, of, scrub.comparedBytes);
  out.add(m.mismatched, of, scrub.mismatchedBytes);
  out.add(m.repaired, of, scrub.repairedBytes);
  out.add(m.unrepaired, of, scrub.unrepairedBytes);
}
