/** Pools and replicas as the API shows them. */
import type { ClusterState, EngineReplica } from "../../control/cluster-state.ts";
import type { PoolRecord, ReplicaRecord } from "../../control/model.ts";
import { observedReplica, poolStatus, replicaStatus } from "../../control/planner/status.ts";
import type { Pool, PoolSpec, Replica, ReplicaSpec } from "../schemas/index.ts";

export function renderPoolSpec(pool: PoolRecord): PoolSpec {
  return {
    disks: [...pool.disks],
    id: pool.id,
    labels: { ...pool.labels },
    node: pool.nodeId,
    status: pool.status,
    ...(pool.cordoned ? { cordoned: true } : {}),
  };
}

/** A pool. Sizes are those that its engine reported last; its status says whether that still holds. */
export function renderPool(state: ClusterState, pool: PoolRecord): Pool {
  const seen = state.observed.get(pool.nodeId)?.pools.get(pool.id);
  return {
    id: pool.id,
    spec: renderPoolSpec(pool),
    state: {
      capacity: seen?.capacityBytes ?? 0,
      disks: [...(seen?.disks ?? pool.disks)],
      id: pool.id,
      node: pool.nodeId,
      status: poolStatus(state, pool),
      used: seen?.usedBytes ?? 0,
      uuid: pool.uuid,
      ...(seen === undefined
        ? {}
        : {
            committed: seen.committedBytes,
            disk_capacity: seen.diskCapacityBytes,
            cluster_size: seen.clusterSizeBytes,
            ...(seen.stateReason === "" ? {} : { reason: seen.stateReason }),
          }),
    },
  };
}

function renderSpace(space: EngineReplica["space"]): NonNullable<Replica["space"]> {
  return {
    capacity_bytes: space.capacityBytes,
    allocated_bytes: space.allocatedBytes,
    allocated_bytes_snapshots: space.allocatedBytesSnapshots,
    allocated_bytes_all_snapshots: space.allocatedBytesAllSnapshots,
    cluster_size: space.clusterSizeBytes,
    clusters: space.clusters,
    allocated_clusters: space.allocatedClusters,
  };
}

/** Hosts that a replica is served to, as far as they are known. */
function allowedHosts(replica: ReplicaRecord, seen: EngineReplica | undefined): readonly string[] {
  const share = seen?.shares.find(({ protocol }) => protocol === "nvmf");
  return share?.allowedHosts ?? replica.allowedHosts ?? [];
}

/** A replica. Nothing is said of its space before its engine has reported it. */
export function renderReplica(state: ClusterState, replica: ReplicaRecord): Replica {
  const seen = observedReplica(state, replica);
  const last = state.observed.get(replica.nodeId)?.replicas.get(replica.uuid);
  const poolUuid = state.stored.pools.get(replica.poolId)?.uuid;
  const hosts = allowedHosts(replica, seen);
  const isShared =
    seen === undefined
      ? replica.allowedHosts !== null
      : seen.shares.some(({ protocol }) => protocol === "nvmf");
  return {
    node: replica.nodeId,
    pool: replica.poolId,
    ...(poolUuid === undefined ? {} : { poolUuid }),
    share: isShared ? "nvmf" : "none",
    size: seen?.sizeBytes ?? replica.sizeBytes,
    ...(last === undefined ? {} : { space: renderSpace(last.space) }),
    state: replicaStatus(state, replica),
    thin: seen?.thin ?? replica.thin,
    uri: seen?.uri ?? `bdev:///${replica.uuid}?uuid=${replica.uuid}`,
    uuid: replica.uuid,
    ...(hosts.length === 0 ? {} : { "allowed-hosts": [...hosts] }),
    kind: replica.kind,
  };
}

export function renderReplicaSpec(
  state: ClusterState,
  replica: ReplicaRecord,
  nexuses: readonly string[],
): ReplicaSpec {
  const poolUuid = state.stored.pools.get(replica.poolId)?.uuid;
  return {
    managed: replica.volumeUuid !== null,
    owners: {
      nexuses: [...nexuses],
      ...(replica.volumeUuid === null ? {} : { volume: replica.volumeUuid }),
    },
    pool: replica.poolId,
    ...(poolUuid === undefined ? {} : { poolUuid }),
    share: replica.allowedHosts === null ? "none" : "nvmf",
    size: replica.sizeBytes,
    status: replica.status,
    thin: replica.thin,
    uuid: replica.uuid,
    kind: replica.kind,
  };
}
