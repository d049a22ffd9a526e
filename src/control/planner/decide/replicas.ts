/** Replicas that are made by hand: they belong to no volume, and nobody heals or moves them. */
import { TrilithError } from "../../../errors.ts";
import type { ClusterState } from "../../cluster-state.ts";
import type { CreateReplicaRequest } from "../../control.ts";
import type { PoolId, ReplicaRecord, Uuid } from "../../model.ts";
import { poolRoom, whyNoRoom } from "../capacity.ts";
import type { Decision } from "../plan.ts";
import { nodeStatus } from "../status.ts";
import { checkNqn, checkSize, checkUuid } from "./arguments.ts";
import { differing, event, isEqual, nothing, put, touch } from "./changes.ts";
import {
  conflict,
  deleting,
  notFound,
  precondition,
  requireCreated,
  requirePool,
  requireReplica,
} from "./errors.ts";

function checkHosts(hosts: readonly string[]): void {
  for (const nqn of hosts) checkNqn("allowed host", nqn);
}

/** Hosts without order and repetition. */
function hostSet(hosts: readonly string[] | null): readonly string[] | null {
  return hosts === null ? null : [...new Set(hosts)].sort();
}

/**
 * Records a replica as `Creating`; an equal one is confirmed. Throws `InvalidArgument`, `NotFound` (the
 * pool), `Conflict`, `Deleting`, `FailedPrecondition` (its node is away), `ResourceExhausted`.
 */
export function createReplica(state: ClusterState, request: CreateReplicaRequest): Decision {
  const { poolId, uuid, sizeBytes, thin, share } = request;
  checkUuid("replica", uuid);
  checkSize(`replica ${uuid}`, sizeBytes);
  checkHosts(request.allowedHosts);
  const allowedHosts = share ? hostSet(request.allowedHosts) : null;
  const there = state.stored.replicas.get(uuid);
  if (there !== undefined) {
    if (there.status === "Deleting") throw deleting(`replica ${uuid}`);
    const known = { ...there, allowedHosts: hostSet(there.allowedHosts) };
    const wanted = { poolId, sizeBytes, thin, ...(share ? { allowedHosts } : {}) };
    const fields = differing(wanted, known);
    if (fields.length > 0) throw conflict(`replica ${uuid}`, fields);
    return nothing;
  }
  const pool = requirePool(state, poolId, null);
  requireCreated(`pool ${poolId}`, pool);
  const status = nodeStatus(state, pool.nodeId);
  const room = poolRoom(state, poolId);
  if (status !== "Online" || room === null) {
    throw precondition(`pool ${poolId}: its node ${pool.nodeId} is ${status}`, "bring it back");
  }
  const percent = state.settings.volumeCommitmentInitialPercent;
  const needed = { sizeBytes, thin, allocatedBytes: 0, commitmentPercent: percent };
  const tight = whyNoRoom(state.settings, room, needed);
  if (tight !== null) {
    throw new TrilithError(
      "ResourceExhausted",
      `replica ${uuid}: ${poolId}: no room (${tight})`,
      "choose another pool, or make room in this one",
    );
  }
  const replica: ReplicaRecord = {
    revision: 0,
    uuid,
    volumeUuid: null,
    poolId,
    nodeId: pool.nodeId,
    sizeBytes,
    thin,
    kind: "Regular",
    snapshotUuid: null,
    status: "Creating",
    healthy: true,
    faultedAtMs: null,
    allowedHosts,
    createdAtMs: state.nowMs,
  };
  return { changes: [put("replicas", replica), touch("pools", pool)], events: [] };
}

/** Throws `InUse` for a replica of a volume: that is changed through its volume. */
function requireOwnerless(replica: ReplicaRecord, remedy: string): void {
  if (replica.volumeUuid === null) return;
  throw new TrilithError(
    "InUse",
    `replica ${replica.uuid} belongs to volume ${replica.volumeUuid}`,
    remedy,
  );
}

/** Nexuses made by hand that have the replica as a child. */
function nexusWith(state: ClusterState, uuid: Uuid): string | null {
  for (const nexus of state.stored.nexuses.values()) {
    if (nexus.children.some(({ replicaUuid }) => replicaUuid === uuid)) return nexus.uuid;
  }
  return null;
}

/** Throws `NotFound`, `InUse` (a volume's, or a child of a nexus). One that is going is confirmed. */
export function destroyReplica(state: ClusterState, uuid: Uuid, poolId: PoolId | null): Decision {
  const there = state.stored.replicas.get(uuid);
  if (there === undefined || (poolId !== null && there.poolId !== poolId)) {
    const where = poolId === null ? "" : ` in pool ${poolId}`;
    throw notFound(`replica ${uuid}${where}`, "volume-replica-topologies");
  }
  if (there.status === "Deleting") return nothing;
  requireOwnerless(there, "lower the volume's replica count, or move the replica");
  const nexus = nexusWith(state, uuid);
  if (nexus !== null) {
    throw new TrilithError(
      "InUse",
      `replica ${uuid} is a child of nexus ${nexus}`,
      "remove the child or destroy the nexus first",
    );
  }
  return { changes: [put("replicas", { ...there, status: "Deleting" })], events: [] };
}

/** An equal share is confirmed. Throws `AlreadyShared` when it is shared to others. */
export function shareReplica(
  state: ClusterState,
  uuid: Uuid,
  poolId: PoolId | null,
  hosts: readonly string[],
): Decision {
  checkHosts(hosts);
  const replica = requireReplica(state, uuid, poolId);
  requireOwnerless(replica, "it is shared to the node that serves its volume");
  const allowedHosts = hostSet(hosts);
  if (isEqual(hostSet(replica.allowedHosts), allowedHosts)) return nothing;
  if (replica.allowedHosts !== null) {
    throw new TrilithError(
      "AlreadyShared",
      `replica ${uuid} is shared to ${replica.allowedHosts.join(", ") || "every host"}`,
      "unshare it first",
    );
  }
  const said = event("Replica", "StateChange", uuid, "to be shared", replica.nodeId);
  return { changes: [put("replicas", { ...replica, allowedHosts })], events: [said] };
}

/** Throws `NotShared`. */
export function unshareReplica(state: ClusterState, uuid: Uuid, poolId: PoolId | null): Decision {
  const replica = requireReplica(state, uuid, poolId);
  requireOwnerless(replica, "it is shared to the node that serves its volume");
  if (replica.allowedHosts === null) {
    throw new TrilithError("NotShared", `replica ${uuid} is not shared`);
  }
  const said = event("Replica", "StateChange", uuid, "to be shared no more", replica.nodeId);
  return { changes: [put("replicas", { ...replica, allowedHosts: null })], events: [said] };
}
