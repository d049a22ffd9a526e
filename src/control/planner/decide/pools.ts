/** Creation, destruction, labels and cordons of pools. */
import { TrilithError } from "../../../errors.ts";
import type { ClusterState } from "../../cluster-state.ts";
import type { CreatePoolRequest, ForcedRemoval } from "../../control.ts";
import type { NodeId, PoolId, PoolRecord } from "../../model.ts";
import { removalChanges, requireAccepted } from "../impact.ts";
import type { Decision } from "../plan.ts";
import { hasFailed, nodeStatus } from "../status.ts";
import { checkLabels, checkName } from "./arguments.ts";
import {
  differing,
  event,
  type FreshUuids,
  fresh,
  nothing,
  put,
  remove,
  touch,
} from "./changes.ts";
import {
  conflict,
  deleting,
  invalid,
  notFound,
  precondition,
  requireCreated,
  requirePool,
} from "./errors.ts";
import { withLabel, withoutLabel } from "./labels.ts";

/** `1 replica`, `2 replicas`. */
function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

/** Cluster sizes that engines take. */
const CLUSTER_BYTES_MIN = 64 << 10;
const CLUSTER_BYTES_MAX = 1 << 30;

function checkClusterSize(bytes: number | null): void {
  if (bytes === null) return;
  const isPower = Number.isInteger(bytes) && bytes > 0 && (bytes & (bytes - 1)) === 0;
  if (isPower && bytes >= CLUSTER_BYTES_MIN && bytes <= CLUSTER_BYTES_MAX) return;
  throw invalid(`cluster size ${bytes} is not a power of two from 64 KiB to 1 GiB`);
}

/** The path or name of a disk without the parameters of its URI: what makes it the same disk. */
function diskName(uri: string): string {
  const path = uri.split("?")[0]!;
  return path.replace(/^(aio|uring):\/\/(?=\/)/, "");
}

/**
 * Records a pool as `Creating`; an equal one is confirmed. Throws `InvalidArgument`,
 * `FailedPrecondition` (no such node, or it is away), `Conflict`, `InUse` (the disk), `Deleting`.
 */
export function createPool(
  state: ClusterState,
  request: CreatePoolRequest,
  uuids: FreshUuids,
): Decision {
  const { poolId, nodeId, disks, labels, clusterSizeBytes } = request;
  checkName("pool", poolId);
  checkLabels(labels);
  checkClusterSize(clusterSizeBytes);
  const [disk] = disks;
  if (disk === undefined || disks.length > 1) {
    throw invalid(`pool ${poolId}: a pool has exactly one disk, not ${disks.length}`);
  }
  const there = state.stored.pools.get(poolId);
  if (there !== undefined) {
    if (there.status === "Deleting") throw deleting(`pool ${poolId}`);
    const fields = differing({ nodeId, disks, labels }, there);
    if (clusterSizeBytes !== null && clusterSizeBytes !== there.clusterSizeBytes) {
      fields.push("clusterSizeBytes");
    }
    if (fields.length > 0) throw conflict(`pool ${poolId}`, fields);
    return nothing;
  }
  const node = state.stored.nodes.get(nodeId);
  const remedy = "name a node that is Online: trilith get nodes";
  if (node === undefined) throw precondition(`node ${nodeId} does not exist`, remedy);
  const status = nodeStatus(state, nodeId);
  if (status !== "Online") throw precondition(`node ${nodeId} is ${status}`, remedy);
  for (const id of state.stored.poolsOfNode.get(nodeId) ?? []) {
    const used = state.stored.pools.get(id)?.disks.some((one) => diskName(one) === diskName(disk));
    if (used !== true) continue;
    throw new TrilithError("InUse", `disk ${disk} belongs to pool ${id}`, "take another disk");
  }
  const pool = {
    revision: 0,
    id: poolId,
    uuid: fresh(uuids, 0),
    nodeId,
    disks,
    labels,
    status: "Creating",
    clusterSizeBytes,
    force: request.force,
    cordoned: false,
    createdAtMs: state.nowMs,
  } as const;
  return { changes: [put("pools", pool), touch("nodes", node)], events: [] };
}

/**
 * Records that a pool goes. It must be empty (`InUse` otherwise) and its node answer
 * (`FailedPrecondition` otherwise). With `purge` the pool is forgotten with all that is in it, what
 * that costs having been accepted; nothing is asked of its node, which must be away, or have it neither
 * open nor working.
 */
export function destroyPool(
  state: ClusterState,
  id: PoolId,
  nodeId: NodeId | null,
  force: ForcedRemoval,
): Decision {
  const pool = state.stored.pools.get(id);
  if (pool === undefined || (nodeId !== null && pool.nodeId !== nodeId)) {
    throw notFound(nodeId === null ? `pool ${id}` : `pool ${id} on node ${nodeId}`, "pools");
  }
  const status = nodeStatus(state, pool.nodeId);
  const isOpen = status === "Online" && worksFor(state, pool);
  if (force.purge && !isOpen) {
    requireAccepted(state, [id], force, `pool ${id}`);
    const { changes } = removalChanges(state, [id]);
    const message = `forgotten with all that it held; node ${pool.nodeId} was not asked`;
    return { changes, events: [event("Pool", "Delete", id, message, pool.nodeId)] };
  }
  if (pool.status === "Deleting") return nothing;
  const replicas = state.stored.replicasOfPool.get(id)?.size ?? 0;
  const snapshots = snapshotsInPool(state, id);
  if (replicas + snapshots > 0) {
    throw new TrilithError(
      "InUse",
      `pool ${id} holds ${counted(replicas, "replica")} and ${counted(snapshots, "snapshot")}`,
      isOpen
        ? "move or delete them first: trilith get pool, trilith drain node"
        : `it cannot be reached; if its disk is lost: trilith delete pool ${id} --purge`,
    );
  }
  const seen = state.observed.get(pool.nodeId)?.pools.get(id);
  if (status === "Online" && seen?.uuid === pool.uuid && hasFailed(seen)) {
    throw precondition(
      `pool ${id} cannot be wiped: ${seen.stateReason || `it is ${seen.state}`}`,
      `wait until its disk works again; if it is lost: trilith delete pool ${id} --purge`,
    );
  }
  if (pool.status === "Creating" && status !== "Online") {
    // It may have been made: its disk then carries an empty pool that can be imported or overwritten.
    return { changes: [remove("pools", id, pool.revision)], events: [] };
  }
  if (status !== "Online") {
    throw precondition(
      `pool ${id}: its node ${pool.nodeId} is ${status}`,
      "wait until the node is back, or purge the pool",
    );
  }
  return { changes: [put("pools", { ...pool, status: "Deleting" })], events: [] };
}

/** The engine of its node has this pool open, and it has not failed. */
function worksFor(state: ClusterState, { id, uuid, nodeId }: PoolRecord): boolean {
  const seen = state.observed.get(nodeId)?.pools.get(id);
  return seen?.uuid === uuid && !hasFailed(seen);
}

/** Replica snapshots that are recorded in a pool. */
export function snapshotsInPool(state: ClusterState, id: PoolId): number {
  let count = 0;
  for (const { replicas } of state.stored.snapshots.values()) {
    for (const { poolId } of replicas) if (poolId === id) count += 1;
  }
  return count;
}

/** Throws `AlreadyExists` for the same value, `FailedPrecondition` for another without `overwrite`. */
export function labelPool(
  state: ClusterState,
  id: PoolId,
  key: string,
  value: string,
  overwrite: boolean,
): Decision {
  const pool = requirePool(state, id, null);
  const labels = withLabel(`pool ${id}`, pool.labels, key, value, overwrite);
  const said = event("Pool", "StateChange", id, `label ${key}=${value} set`, pool.nodeId);
  return { changes: [put("pools", { ...pool, labels })], events: [said] };
}

/** Throws `FailedPrecondition` when there is no such label. */
export function unlabelPool(state: ClusterState, id: PoolId, key: string): Decision {
  const pool = requirePool(state, id, null);
  const labels = withoutLabel(`pool ${id}`, pool.labels, key);
  const said = event("Pool", "StateChange", id, `label ${key} removed`, pool.nodeId);
  return { changes: [put("pools", { ...pool, labels })], events: [said] };
}

/** Takes or gives back a pool as a place for new replicas. Throws `FailedPrecondition` when it is so. */
export function cordonPool(state: ClusterState, id: PoolId, cordoned: boolean): Decision {
  const pool = requirePool(state, id, null);
  if (pool.cordoned === cordoned) {
    throw precondition(`pool ${id} is ${cordoned ? "cordoned already" : "not cordoned"}`, "");
  }
  const said = event("Pool", "StateChange", id, cordoned ? "cordoned" : "uncordoned", pool.nodeId);
  return { changes: [put("pools", { ...pool, cordoned })], events: [said] };
}

/** Throws unless the pool can be told to grow now; what it grows by is its engine's to find out. */
export function checkExpandPool(state: ClusterState, id: PoolId): NodeId {
  const pool = requirePool(state, id, null);
  requireCreated(`pool ${id}`, pool);
  const status = nodeStatus(state, pool.nodeId);
  if (status === "Online") return pool.nodeId;
  throw new TrilithError(
    "Unavailable",
    `pool ${id}: its node ${pool.nodeId} is ${status}`,
    "try again when the node is back",
  );
}
