/**
 * Metrics of the cluster, exported by the leader alone: only there is it known how nodes fare. Where
 * another node becomes leader, its series begin and the former ones end.
 */
import type { ClusterState } from "../../control/cluster-state.ts";
import type { VolumeRecord } from "../../control/model.ts";
import type { Warning } from "../../control/planner/plan.ts";
import { gauge } from "./definition.ts";
import type { Exposition } from "./exposition.ts";
import { persistentVolumeName } from "./io.ts";
import { collectScrub, type ScrubReader } from "./scrubs.ts";

export const clusterMetrics = {
  nodeOnline: gauge("mayastor_node_online", "1 when the node's engine answers", "node_id"),
  nodeCordoned: gauge(
    "mayastor_node_cordoned",
    "1 when nothing new is placed on the node",
    "node_id",
  ),
  nodeDraining: gauge("mayastor_node_draining", "1 while the node is drained", "node_id"),
  nodes: gauge("trilith_cluster_nodes", "Nodes by status", "status"),
  pools: gauge("trilith_cluster_pools", "Pools that the cluster knows"),
  volumes: gauge("trilith_cluster_volumes", "Volumes by status", "status"),
  replicas: gauge("trilith_cluster_replicas", "Replicas that the cluster knows"),
  snapshots: gauge("trilith_cluster_snapshots", "Snapshots of volumes"),
  volumeStatus: gauge(
    "trilith_volume_status",
    "State of the volume: 0 unknown, 1 online, 2 degraded, 3 faulted",
    "pv_name",
  ),
  volumeSize: gauge("trilith_volume_size_bytes", "Size of the volume", "pv_name"),
  replicasDesired: gauge(
    "trilith_volume_replicas_desired",
    "Replicas that the volume is to have",
    "pv_name",
  ),
  replicasHealthy: gauge(
    "trilith_volume_replicas_healthy",
    "Replicas of the volume that hold all its data, on nodes that answer or not",
    "pv_name",
  ),
  volumePublished: gauge(
    "trilith_volume_published",
    "1 when the volume is published on some node",
    "pv_name",
  ),
  warnings: gauge(
    "trilith_warnings",
    "Things that need an operator's attention (`trilith status` lists them)",
    "severity",
  ),
} as const;

export type VolumeStatusName = "Unknown" | "Online" | "Degraded" | "Faulted" | "Shutdown";

export interface ClusterReading {
  readonly state: ClusterState;
  readonly warnings: readonly Warning[];
  readonly scrubOf: ScrubReader;
  readonly volumeStatus: (state: ClusterState, volume: VolumeRecord) => VolumeStatusName;
}

const volumeStatusNumber: Readonly<Record<VolumeStatusName, number>> = {
  Unknown: 0,
  Online: 1,
  Degraded: 2,
  Faulted: 3,
  Shutdown: 0,
};

function collectNodes(out: Exposition, { stored, observed }: ClusterState): void {
  const m = clusterMetrics;
  for (const status of ["Online", "Offline", "Unknown"]) out.add(m.nodes, [status], 0);
  for (const node of stored.nodes.values()) {
    const status = observed.get(node.id)?.status ?? "Unknown";
    const isDraining = node.drainLabels.length > 0 && node.drainPhase !== "drained";
    const isCordoned = node.cordonLabels.length + node.drainLabels.length > 0;
    out.add(m.nodes, [status], 1);
    out.add(m.nodeOnline, [node.id], status === "Online" ? 1 : 0);
    out.add(m.nodeCordoned, [node.id], isCordoned ? 1 : 0);
    out.add(m.nodeDraining, [node.id], isDraining ? 1 : 0);
  }
}

function healthyReplicas({ stored }: ClusterState, uuid: string): number {
  let healthy = 0;
  for (const id of stored.replicasOfVolume.get(uuid) ?? []) {
    const replica = stored.replicas.get(id);
    if (replica?.healthy === true && replica.status === "Created") healthy++;
  }
  return healthy;
}

export function collectCluster(out: Exposition, reading: ClusterReading): void {
  const m = clusterMetrics;
  const { state, warnings } = reading;
  const { stored } = state;
  collectNodes(out, state);
  out.add(m.pools, [], stored.pools.size);
  out.add(m.replicas, [], stored.replicas.size);
  out.add(m.snapshots, [], stored.snapshots.size);
  for (const status of Object.keys(volumeStatusNumber)) out.add(m.volumes, [status], 0);
  for (const volume of stored.volumes.values()) {
    const status = reading.volumeStatus(state, volume);
    const pv = [persistentVolumeName(volume.uuid)];
    out.add(m.volumes, [status], 1);
    out.add(m.volumeStatus, pv, volumeStatusNumber[status]);
    out.add(m.volumeSize, pv, volume.sizeBytes);
    out.add(m.replicasDesired, pv, volume.replicaCount);
    out.add(m.replicasHealthy, pv, healthyReplicas(state, volume.uuid));
    collectScrub(out, volume, reading.scrubOf(state, volume));
    out.add(m.volumePublished, pv, volume.target === null ? 0 : 1);
  }
  for (const severity of ["info", "warning", "critical"]) {
    const count = warnings.filter((warning) => warning.severity === severity).length;
    out.add(m.warnings, [severity], count);
  }
}
