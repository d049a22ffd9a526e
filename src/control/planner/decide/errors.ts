/** The errors that several decisions share, with their remedies. */
import { TrilithError } from "../../../errors.ts";
import type { ClusterState } from "../../cluster-state.ts";
import type {
  NexusRecord,
  NodeId,
  NodeRecord,
  PoolId,
  PoolRecord,
  ReplicaRecord,
  SnapshotRecord,
  Uuid,
  VolumeRecord,
} from "../../model.ts";

export function invalid(what: string, remedy = ""): TrilithError {
  return new TrilithError("InvalidArgument", what, remedy);
}

export function notFound(what: string, list: string): TrilithError {
  return new TrilithError("NotFound", `${what} does not exist`, `list them: trilith get ${list}`);
}

export function precondition(what: string, remedy: string): TrilithError {
  return new TrilithError("FailedPrecondition", what, remedy);
}

export function deleting(what: string): TrilithError {
  return new TrilithError("Deleting", `${what} is being deleted`, "wait until it is gone");
}

/** Something of the same name is there and differs in `fields`. */
export function conflict(what: string, fields: readonly string[]): TrilithError {
  return new TrilithError(
    "Conflict",
    `${what} exists with other parameters (${fields.join(", ")})`,
    "use another id, or ask for what is there",
  );
}

/** What is still being created can be confirmed and deleted; anything else has to wait. */
function creating(what: string): TrilithError {
  return new TrilithError("Aborted", `${what} is still being created`, "try again in a moment");
}

export function requireNode(state: ClusterState, id: NodeId): NodeRecord {
  const node = state.stored.nodes.get(id);
  if (node === undefined) throw notFound(`node ${id}`, "nodes");
  return node;
}

/** A pool that is not being deleted. `nodeId` null: on whatever node it is. */
export function requirePool(state: ClusterState, id: PoolId, nodeId: NodeId | null): PoolRecord {
  const pool = state.stored.pools.get(id);
  if (pool === undefined) throw notFound(`pool ${id}`, "pools");
  if (nodeId !== null && pool.nodeId !== nodeId) {
    throw notFound(`pool ${id} on node ${nodeId}`, "pools");
  }
  if (pool.status === "Deleting") throw deleting(`pool ${id}`);
  return pool;
}

/** A volume that is there and finished. */
export function requireVolume(state: ClusterState, uuid: Uuid): VolumeRecord {
  const volume = state.stored.volumes.get(uuid);
  if (volume === undefined) throw notFound(`volume ${uuid}`, "volumes");
  if (volume.status === "Deleting") throw deleting(`volume ${uuid}`);
  if (volume.status === "Creating") throw creating(`volume ${uuid}`);
  return volume;
}

/** A replica; `poolId` null: in whatever pool it is. One that is being deleted is an error. */
export function requireReplica(
  state: ClusterState,
  uuid: Uuid,
  poolId: PoolId | null,
): ReplicaRecord {
  const replica = state.stored.replicas.get(uuid);
  if (replica === undefined) throw notFound(`replica ${uuid}`, "volume-replica-topologies");
  if (poolId !== null && replica.poolId !== poolId) {
    throw notFound(`replica ${uuid} in pool ${poolId}`, "volume-replica-topologies");
  }
  if (replica.status === "Deleting") throw deleting(`replica ${uuid}`);
  return replica;
}

/** A nexus that is not a former target; `nodeId` null: on whatever node it is. */
export function requireNexus(state: ClusterState, uuid: Uuid, nodeId: NodeId | null): NexusRecord {
  const nexus = state.stored.nexuses.get(uuid);
  if (nexus === undefined) throw notFound(`nexus ${uuid}`, "volumes");
  if (nodeId !== null && nexus.nodeId !== nodeId) {
    throw notFound(`nexus ${uuid} on node ${nodeId}`, "volumes");
  }
  if (nexus.status === "Deleting" || nexus.phase === "Shutdown") throw deleting(`nexus ${uuid}`);
  return nexus;
}

export function requireSnapshot(state: ClusterState, uuid: Uuid): SnapshotRecord {
  const snapshot = state.stored.snapshots.get(uuid);
  if (snapshot === undefined) throw notFound(`snapshot ${uuid}`, "volume-snapshots");
  return snapshot;
}

/** Throws `Aborted` unless the resource is finished. */
export function requireCreated(
  what: string,
  record: { readonly status: "Creating" | "Created" | "Deleting" },
): void {
  if (record.status === "Creating") throw creating(what);
}
