/** Single replicas: made, served, grown, destroyed. What becomes of them is decided with their volume. */
import type { ClusterState } from "../../cluster-state.ts";
import type { NexusRecord, NodeId, ReplicaRecord, Uuid } from "../../model.ts";
import { deviceBytes } from "../capacity.ts";
import type { EngineCall, Work } from "../plan.ts";
import { hasFailed } from "../status.ts";
import { CREATE_PATIENCE_MS } from "./limits.ts";
import { isRefused, type Planning } from "./planning.ts";
import { isReturning } from "./returning.ts";
import { engine, event, givingUp, put, remove, store, work } from "./steps.ts";
import { replicaOfUri, sameHosts, servedTo } from "./uris.ts";

export function planReplica(p: Planning, replica: ReplicaRecord): Work | null {
  switch (replica.status) {
    case "Creating":
      return creating(p, replica);
    case "Created":
      return created(p, replica);
    case "Deleting":
      return deleting(p, replica);
  }
}

/** The engine's snapshot that a replica is cloned from: the one in its own pool. */
export function snapshotInPool(state: ClusterState, replica: ReplicaRecord): Uuid | null {
  if (replica.snapshotUuid === null) return null;
  const snapshot = state.stored.snapshots.get(replica.snapshotUuid);
  if (snapshot === undefined) return replica.snapshotUuid;
  return snapshot.replicas.find(({ poolId }) => poolId === replica.poolId)?.uuid ?? null;
}

function creation(p: Planning, replica: ReplicaRecord): EngineCall | null {
  const { uuid, volumeUuid, poolId, sizeBytes, thin, allowedHosts } = replica;
  const owner = volumeUuid === null ? {} : { volumeUuid, entityId: volumeUuid };
  if (replica.kind === "SnapshotClone") {
    const snapshot = snapshotInPool(p.state, replica);
    if (snapshot === null) return null;
    return { method: "createClone", input: { uuid: snapshot, cloneUuid: uuid, ...owner } };
  }
  const hosts =
    allowedHosts === null || allowedHosts.length === 0 ? {} : { allowedHosts: [...allowedHosts] };
  const share = allowedHosts === null ? {} : ({ share: "nvmf", ...hosts } as const);
  return {
    method: "createReplica",
    input: { uuid, poolName: poolId, sizeBytes: deviceBytes(sizeBytes), thin, ...owner, ...share },
  };
}

function creating(p: Planning, replica: ReplicaRecord): Work | null {
  const subject = `replica/${replica.uuid}`;
  const volume = replica.volumeUuid === null ? undefined : p.stored.volumes.get(replica.volumeUuid);
  if (
    replica.volumeUuid !== null &&
    volume?.status !== "Creating" &&
    volume?.status !== "Created"
  ) {
    return null; // It goes with its volume.
  }
  if (replica.volumeUuid === null) {
    const failure = p.failures.get(subject);
    const isLate = p.nowMs - replica.createdAtMs > CREATE_PATIENCE_MS;
    if (failure !== undefined && (isLate || isRefused(failure))) {
      const step = store(`creating failed: ${failure.message}`, [
        put("replicas", { ...replica, status: "Deleting" }),
      ]);
      return givingUp(subject, failure, step);
    }
  }
  if (p.pool(p.stored.pools.get(replica.poolId)) === undefined) return null;
  const done = store(
    "the replica is there",
    [put("replicas", { ...replica, status: "Created" })],
    [event("Replica", "Create", replica.uuid, replica.nodeId)],
  );
  if (p.replica(replica) !== undefined) return work(subject, done);
  const call = creation(p, replica);
  if (call === null) {
    p.warn(
      "critical",
      subject,
      `there is no snapshot in pool ${replica.poolId} to clone`,
      "restore to pools that hold the snapshot",
    );
    return null;
  }
  return work(subject, engine(replica.nodeId, call, "the replica is to be created"), done);
}

function created(p: Planning, replica: ReplicaRecord): Work | null {
  const observed = p.replica(replica);
  if (observed === undefined || hasFailed(observed)) return null;
  const { uuid, nodeId, allowedHosts } = replica;
  const subject = `replica/${uuid}`;
  const served = servedTo(observed);
  if (!sameHosts(allowedHosts, served)) {
    if (allowedHosts === null) {
      // Taken from a nexus that is being closed it would count as lost: the nexus goes first.
      if (isUsed(p, replica)) return null;
      const call = { method: "unshareReplica", input: { uuid, protocol: "nvmf" } } as const;
      return work(subject, engine(nodeId, call, "nobody is to reach it", ["NotFound"]));
    }
    // Others are let in when the former nexus is closed: shutting it out would break it off.
    if (served !== null && isUsed(p, replica, isClosing)) return null;
    const hosts = allowedHosts.length === 0 ? {} : { allowedHosts: [...allowedHosts] };
    const call = { method: "shareReplicaNvmf", input: { uuid, ...hosts } } as const;
    const reason = served === null ? "it is to be reached" : "others are to reach it";
    return work(subject, engine(nodeId, call, reason));
  }
  const sizeBytes = deviceBytes(replica.sizeBytes);
  if (observed.sizeBytes < sizeBytes) {
    const input = { uuid, sizeBytes };
    return work(subject, engine(nodeId, { method: "resizeReplica", input }, "it is to grow"));
  }
  return null;
}

function deleting(p: Planning, replica: ReplicaRecord): Work | null {
  const { uuid, nodeId } = replica;
  const subject = `replica/${uuid}`;
  const pool = p.stored.pools.get(replica.poolId);
  const forget = store(
    "the replica is gone",
    [remove("replicas", uuid, replica)],
    [event("Replica", "Delete", uuid, nodeId)],
  );
  if (pool === undefined || !p.stored.nodes.has(nodeId)) return work(subject, forget);
  if (isReturning(p, replica)) return null;
  const open = p.pool(pool);
  if (open === undefined || hasFailed(open) || isUsed(p, replica)) return null;
  return work(subject, destruction(nodeId, uuid, "it is to be deleted"), forget);
}

/** A nexus of its volume has it, or may have it: that is closed, or gives it up, first. */
function isUsed(
  p: Planning,
  replica: ReplicaRecord,
  concerns: (p: Planning, record: NexusRecord) => boolean = () => true,
): boolean {
  const nexuses = p.stored.nexusesOfVolume.get(replica.volumeUuid ?? "") ?? [];
  for (const uuid of nexuses) {
    const record = p.stored.nexuses.get(uuid);
    if (record === undefined || p.isGone(record.nodeId) || !concerns(p, record)) continue;
    const node = p.online(record.nodeId);
    if (node === undefined) return true;
    const nexus = node.nexuses.get(uuid);
    if (nexus === undefined || nexus.state === "shutdown") continue;
    if (nexus.children.some(({ uri }) => replicaOfUri(uri) === replica.uuid)) return true;
  }
  return false;
}

/** A former target that is being closed, as long as that goes well. */
function isClosing(p: Planning, { uuid, phase }: NexusRecord): boolean {
  return phase === "Shutdown" && !p.failures.has(`nexus/${uuid}`);
}

/** Also asked for when it was not seen: a creation whose answer was lost may have come to its end since. */
export function destruction(nodeId: NodeId, uuid: Uuid, reason: string) {
  const call = { method: "destroyReplica", input: { uuid } } as const;
  return engine(nodeId, call, reason, ["NotFound"]);
}
