/** What forgetting pools or nodes by force would cost, and the changes that forget them. Pure. */
import { TrilithError } from "../../errors.ts";
import type { ClusterState } from "../cluster-state.ts";
import type { ForcedRemoval, RemovalImpact } from "../control.ts";
import type { NodeId, PoolId, ReplicaRecord, Uuid } from "../model.ts";
import type { Change } from "./plan.ts";
import { replicasOf } from "./status.ts";

/** Pools of a node, in the order of their ids. */
export function poolsOf(state: ClusterState, nodeId: NodeId): PoolId[] {
  return [...(state.stored.poolsOfNode.get(nodeId) ?? [])].sort();
}

function replicasIn(state: ClusterState, poolIds: readonly PoolId[]): ReplicaRecord[] {
  return poolIds.flatMap((poolId) =>
    [...(state.stored.replicasOfPool.get(poolId) ?? [])].sort().flatMap((uuid) => {
      const replica = state.stored.replicas.get(uuid);
      return replica === undefined ? [] : [replica];
    }),
  );
}

/**
 * A volume is lost when none of its healthy replicas lies elsewhere, a snapshot when none of its
 * replica snapshots does; a volume that keeps a healthy replica is degraded.
 */
export function removalImpact(state: ClusterState, poolIds: readonly PoolId[]): RemovalImpact {
  const gone = new Set(poolIds);
  const replicas = replicasIn(state, poolIds);
  const volumes = new Set<Uuid>();
  for (const { volumeUuid } of replicas) if (volumeUuid !== null) volumes.add(volumeUuid);
  const volumesLost: Uuid[] = [];
  const volumesDegraded: Uuid[] = [];
  for (const uuid of [...volumes].sort()) {
    // What is being deleted anyway is no loss.
    if (state.stored.volumes.get(uuid)?.status === "Deleting") continue;
    const remaining = replicasOf(state, uuid).some(
      ({ poolId, healthy, status }) => !gone.has(poolId) && healthy && status === "Created",
    );
    (remaining ? volumesDegraded : volumesLost).push(uuid);
  }
  const snapshotsLost: Uuid[] = [];
  for (const snapshot of state.stored.snapshots.values()) {
    const here = snapshot.replicas.some(({ poolId }) => gone.has(poolId));
    if (here && snapshot.replicas.every(({ poolId }) => gone.has(poolId))) {
      snapshotsLost.push(snapshot.uuid);
    }
  }
  return {
    volumesLost,
    volumesDegraded,
    snapshotsLost: snapshotsLost.sort(),
    replicasLost: replicas.map(({ uuid }) => uuid),
  };
}

/** Throws `FailedPrecondition` with the losses unless they have been accepted. */
export function requireAccepted(
  state: ClusterState,
  poolIds: readonly PoolId[],
  force: ForcedRemoval,
  what: string,
): void {
  const { volumesLost, snapshotsLost } = removalImpact(state, poolIds);
  const losses: string[] = [];
  const flags: string[] = [];
  if (volumesLost.length > 0 && !force.acceptVolumeLoss) {
    losses.push(`volumes ${volumesLost.join(", ")}`);
    flags.push("--accept-volume-loss");
  }
  if (snapshotsLost.length > 0 && !force.acceptSnapshotLoss) {
    losses.push(`snapshots ${snapshotsLost.join(", ")}`);
    flags.push("--accept-snapshot-loss");
  }
  if (losses.length === 0) return;
  throw new TrilithError(
    "FailedPrecondition",
    `forgetting ${what} would lose ${losses.join(" and ")}`,
    `save what is needed; accept the loss with ${flags.join(" ")}`,
  );
}

/**
 * Changes that forget pools with their replicas and replica snapshots. Volumes and snapshots that are
 * lost with them go too; of a lost volume everything goes.
 */
export function removalChanges(
  state: ClusterState,
  poolIds: readonly PoolId[],
): { readonly changes: Change[] } {
  const gone = new Set(poolIds);
  const impact = removalImpact(state, poolIds);
  const changes: Change[] = [];
  for (const id of poolIds) {
    const pool = state.stored.pools.get(id);
    if (pool !== undefined) changes.push({ table: "pools", remove: id, revision: pool.revision });
  }
  for (const uuid of impact.replicasLost) {
    const { revision } = state.stored.replicas.get(uuid)!;
    changes.push({ table: "replicas", remove: uuid, revision });
  }
  for (const uuid of impact.volumesLost) changes.push(...loseVolume(state, uuid, gone));
  for (const uuid of impact.volumesDegraded) {
    const volume = state.stored.volumes.get(uuid);
    if (volume === undefined) continue;
    const victim = volume.victimReplica;
    const lostVictim = victim !== null && impact.replicasLost.includes(victim);
    changes.push({
      table: "volumes",
      put: lostVictim ? { ...volume, victimReplica: null } : volume,
    });
  }
  const lost = new Set(impact.snapshotsLost);
  for (const snapshot of state.stored.snapshots.values()) {
    const { uuid, revision } = snapshot;
    const replicas = snapshot.replicas.filter(({ poolId }) => !gone.has(poolId));
    if (lost.has(uuid)) changes.push({ table: "snapshots", remove: uuid, revision });
    else if (replicas.length < snapshot.replicas.length) {
      changes.push({ table: "snapshots", put: { ...snapshot, replicas } });
    }
  }
  return { changes };
}

/** What remains of a lost volume: unhealthy replicas elsewhere and its nexuses are to be destroyed. */
function loseVolume(state: ClusterState, uuid: Uuid, gone: ReadonlySet<PoolId>): Change[] {
  const volume = state.stored.volumes.get(uuid);
  if (volume === undefined) return [];
  const changes: Change[] = [
    { table: "volumes", put: { ...volume, status: "Deleting", target: null } },
  ];
  for (const replica of replicasOf(state, uuid)) {
    if (gone.has(replica.poolId) || replica.status === "Deleting") continue;
    changes.push({
      table: "replicas",
      put: { ...replica, status: "Deleting", allowedHosts: null },
    });
  }
  for (const nexusUuid of state.stored.nexusesOfVolume.get(uuid) ?? []) {
    const nexus = state.stored.nexuses.get(nexusUuid);
    if (nexus === undefined || nexus.phase === "Shutdown") continue;
    changes.push({ table: "nexuses", put: { ...nexus, phase: "Shutdown" } });
  }
  return changes;
}
