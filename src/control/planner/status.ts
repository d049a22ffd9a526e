/**
 * Statuses as the API shows them: desired records and what the engines report, put together. Pure.
 *
 * They are honest: what cannot be asked is `Unknown`, whatever it was before, and an unpublished volume
 * is judged by the pools that hold its replicas (mayastor.md 5.3 counts records only).
 */
import type { ClusterState, EngineNexus, EnginePool, EngineReplica } from "../cluster-state.ts";
import type {
  NexusRecord,
  NodeId,
  NodeRecord,
  PoolRecord,
  ReplicaRecord,
  Uuid,
  VolumeRecord,
} from "../model.ts";

export type NodeStatus = "Unknown" | "Online" | "Offline";
export type PoolStatus = "Unknown" | "Online" | "Degraded" | "Faulted";
export type ReplicaStatus = "Unknown" | "Online" | "Degraded" | "Faulted";
export type NexusStatus =
  | "Unknown"
  | "Online"
  | "Degraded"
  | "Faulted"
  | "ShuttingDown"
  | "Shutdown";
export type VolumeStatus = "Unknown" | "Online" | "Degraded" | "Faulted" | "Shutdown";

/** A node that nobody has heard of is `Unknown`. */
export function nodeStatus(state: ClusterState, nodeId: NodeId): NodeStatus {
  return state.observed.get(nodeId)?.status ?? "Unknown";
}

/** Nothing new is placed on it: it carries a cordon or a drain label. */
export function isNodeCordoned(node: NodeRecord): boolean {
  return node.cordonLabels.length > 0 || node.drainLabels.length > 0;
}

/** `online` and the like as the API spells it; what is `offline` to its own engine has lost its disk. */
function statusOfEngine(state: EngineReplica["state"]): PoolStatus {
  switch (state) {
    case "online":
      return "Online";
    case "degraded":
      return "Degraded";
    case "faulted":
    case "offline":
      return "Faulted";
  }
}

/** Of a pool, or a replica in it: nothing in it can be read or written until it is imported anew: its disk failed, or is gone. */
export function hasFailed({ state }: Pick<EnginePool | EngineReplica, "state">): boolean {
  return state === "faulted" || state === "offline";
}

/**
 * A pool is `Unknown` while its node cannot be asked or it has not been made yet, and `Faulted` when
 * its engine answers and does not have it (its disk is gone, or it has not been imported yet).
 */
export function poolStatus(state: ClusterState, pool: PoolRecord): PoolStatus {
  const observed = state.observed.get(pool.nodeId);
  if (observed?.status !== "Online") return "Unknown";
  const seen = observed.pools.get(pool.id);
  if (seen !== undefined) return statusOfEngine(seen.state);
  return pool.status === "Created" ? "Faulted" : "Unknown";
}

/** What the replica's engine reports of it; undefined: nothing now. */
export function observedReplica(
  state: ClusterState,
  replica: ReplicaRecord,
): EngineReplica | undefined {
  const observed = state.observed.get(replica.nodeId);
  return observed?.status === "Online" ? observed.replicas.get(replica.uuid) : undefined;
}

/** A replica is as well as its pool is; `Faulted` when its pool is open and does not hold it. */
export function replicaStatus(state: ClusterState, replica: ReplicaRecord): ReplicaStatus {
  const observed = state.observed.get(replica.nodeId);
  if (observed?.status !== "Online") return "Unknown";
  const seen = observed.replicas.get(replica.uuid);
  if (seen !== undefined) return statusOfEngine(seen.state);
  return replica.status === "Creating" ? "Unknown" : "Faulted";
}

/** What the nexus's engine reports of it; undefined: nothing now. */
export function observedNexus(state: ClusterState, nexus: NexusRecord): EngineNexus | undefined {
  const observed = state.observed.get(nexus.nodeId);
  return observed?.status === "Online" ? observed.nexuses.get(nexus.uuid) : undefined;
}

/** A nexus that its engine does not know (any more) is `Unknown`: nobody serves it. */
export function nexusStatus(state: ClusterState, nexus: NexusRecord): NexusStatus {
  const seen = observedNexus(state, nexus);
  switch (seen?.state) {
    case "online":
      return "Online";
    case "degraded":
      return "Degraded";
    case "faulted":
      return "Faulted";
    case "shutting-down":
      return "ShuttingDown";
    case "shutdown":
      return "Shutdown";
    default:
      return "Unknown";
  }
}

/** Replicas that a volume owns, by UUID: an order that does not change. */
export function replicasOf(state: ClusterState, volumeUuid: Uuid): ReplicaRecord[] {
  const found: ReplicaRecord[] = [];
  for (const uuid of state.stored.replicasOfVolume.get(volumeUuid) ?? []) {
    const replica = state.stored.replicas.get(uuid);
    if (replica === undefined) continue;
    // There are few, and listings ask for those of every volume: put in place one by one.
    let at = found.length;
    while (at > 0 && found[at - 1]!.uuid > uuid) at -= 1;
    if (at === found.length) found.push(replica);
    else found.splice(at, 0, replica);
  }
  return found;
}

/** Nexuses that belong to a volume, former targets with them, by UUID. */
export function nexusesOf(state: ClusterState, volumeUuid: Uuid): NexusRecord[] {
  const found: NexusRecord[] = [];
  for (const uuid of state.stored.nexusesOfVolume.get(volumeUuid) ?? []) {
    const nexus = state.stored.nexuses.get(uuid);
    if (nexus !== undefined) found.push(nexus);
  }
  return found.sort((a, b) => (a.uuid < b.uuid ? -1 : 1));
}

/** The nexus that a volume is published through; undefined: it is not published. */
export function targetNexus(state: ClusterState, volume: VolumeRecord): NexusRecord | undefined {
  return volume.target === null ? undefined : state.stored.nexuses.get(volume.target.nexusUuid);
}

function publishedStatus(state: ClusterState, volume: VolumeRecord): VolumeStatus {
  const nexus = targetNexus(state, volume);
  if (nexus === undefined) return "Unknown";
  const status = nexusStatus(state, nexus);
  if (status === "ShuttingDown") return "Shutdown";
  if (status !== "Online") return status;
  const children = observedNexus(state, nexus)?.children.length;
  return children === volume.replicaCount ? "Online" : "Degraded";
}

/** A replica that holds everything and whose pool serves it. */
export function isReplicaUsable(state: ClusterState, replica: ReplicaRecord): boolean {
  if (!replica.healthy || replica.status !== "Created") return false;
  const status = replicaStatus(state, replica);
  return status === "Online" || status === "Degraded";
}

function unpublishedStatus(state: ClusterState, volume: VolumeRecord): VolumeStatus {
  let usable = 0;
  let unheard = 0;
  for (const replica of replicasOf(state, volume.uuid)) {
    if (isReplicaUsable(state, replica)) usable += 1;
    else if (replica.healthy && nodeStatus(state, replica.nodeId) === "Unknown") unheard += 1;
  }
  if (usable >= volume.replicaCount) return "Online";
  // A leader that has just begun has not heard of every node: no alarm before it has.
  if (unheard > 0 && (usable === 0 || usable + unheard >= volume.replicaCount)) return "Unknown";
  return usable === 0 ? "Faulted" : "Degraded";
}

/**
 * A published volume is what its nexus is, and `Degraded` while that has another number of children
 * than wanted; an unpublished one what its usable replicas make of it. One that is still being
 * created is `Unknown`.
 */
export function volumeStatus(state: ClusterState, volume: VolumeRecord): VolumeStatus {
  if (volume.status === "Creating") return "Unknown";
  return volume.target !== null ? publishedStatus(state, volume) : unpublishedStatus(state, volume);
}

/** How well a volume's data is kept: what the REST `health` block shows. */
export interface VolumeHealth {
  /** The last nexus was closed in an orderly way: healthy replicas are equal bit by bit. */
  readonly cleanShutdown: boolean;
  /** Replicas that hold all that was acknowledged, reachable or not. */
  readonly healthyReplicas: number;
  /** Healthy replicas that need no comparison when the next nexus opens. */
  readonly cleanReplicas: number;
  readonly onlineHealthyReplicas: number;
  readonly onlineCleanReplicas: number;
  /** Healthy replicas that take part in I/O now, or could without a publication. */
  readonly liveHealthyReplicas: number;
}

/**
 * After an unclean stop one healthy replica is taken as it is and the others are compared with it, so
 * one counts as clean.
 */
export function volumeHealth(state: ClusterState, volume: VolumeRecord): VolumeHealth {
  const { cleanShutdown } = volume;
  let healthy = 0;
  let online = 0;
  let live = 0;
  for (const replica of replicasOf(state, volume.uuid)) {
    if (!replica.healthy) continue;
    healthy += 1;
    const isUsable = isReplicaUsable(state, replica);
    if (isUsable) online += 1;
    const isLive =
      volume.target === null ? isUsable : childOf(state, volume, replica.uuid)?.state === "online";
    if (isLive) live += 1;
  }
  return {
    cleanShutdown,
    healthyReplicas: healthy,
    cleanReplicas: cleanShutdown ? healthy : Math.min(healthy, 1),
    onlineHealthyReplicas: online,
    onlineCleanReplicas: cleanShutdown ? online : Math.min(online, 1),
    liveHealthyReplicas: live,
  };
}

/** The child of a volume's nexus that is this replica, as the engine reports it. */
export function childOf(
  state: ClusterState,
  volume: VolumeRecord,
  replicaUuid: Uuid,
): EngineNexus["children"][number] | undefined {
  const nexus = targetNexus(state, volume);
  const children = nexus === undefined ? undefined : observedNexus(state, nexus)?.children;
  if (nexus === undefined || children === undefined) return undefined;
  let uri: string | undefined;
  for (const child of nexus.children) if (child.replicaUuid === replicaUuid) uri = child.uri;
  for (const child of children) if (child.uri === uri) return child;
  for (const child of children) if (child.uri.includes(replicaUuid)) return child;
  return undefined;
}

/** Space of a volume in bytes, as the contract's VolumeUsage defines each sum. */
export interface VolumeUsage {
  readonly capacityBytes: number;
  /** Of the healthy replica that holds most, with its snapshots. */
  readonly allocatedBytes: number;
  readonly allocatedReplicaBytes: number;
  readonly allocatedSnapshotsBytes: number;
  readonly allocatedAllSnapshotsBytes: number;
  /** Of all replicas together. */
  readonly totalAllocatedBytes: number;
  readonly totalAllocatedReplicasBytes: number;
  readonly totalAllocatedSnapshotsBytes: number;
}

/** Sums what the engines report last of each replica, reachable or not; nothing heard counts as 0. */
export function volumeUsage(state: ClusterState, volume: VolumeRecord): VolumeUsage {
  let allocatedReplica = 0;
  let allocatedSnapshots = 0;
  let allocatedAllSnapshots = 0;
  let allocated = 0;
  let totalReplicas = 0;
  let totalSnapshots = 0;
  for (const replica of replicasOf(state, volume.uuid)) {
    const space = state.observed.get(replica.nodeId)?.replicas.get(replica.uuid)?.space;
    if (space === undefined) continue;
    totalReplicas += space.allocatedBytes;
    totalSnapshots += space.allocatedBytesSnapshots;
    if (!replica.healthy) continue;
    allocated = Math.max(allocated, space.allocatedBytes + space.allocatedBytesSnapshots);
    allocatedReplica = Math.max(allocatedReplica, space.allocatedBytes);
    allocatedSnapshots = Math.max(allocatedSnapshots, space.allocatedBytesSnapshots);
    allocatedAllSnapshots = Math.max(allocatedAllSnapshots, space.allocatedBytesAllSnapshots);
  }
  return {
    capacityBytes: volume.sizeBytes,
    allocatedBytes: allocated,
    allocatedReplicaBytes: allocatedReplica,
    allocatedSnapshotsBytes: allocatedSnapshots,
    allocatedAllSnapshotsBytes: allocatedAllSnapshots,
    totalAllocatedBytes: totalReplicas + totalSnapshots,
    totalAllocatedReplicasBytes: totalReplicas,
    totalAllocatedSnapshotsBytes: totalSnapshots,
  };
}
