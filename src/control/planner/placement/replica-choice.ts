/** Which replica of a volume is attached to its nexus next, and which is given up first. Pure. */
import type { ClusterState } from "../../cluster-state.ts";
import type { ReplicaRecord, VolumeRecord } from "../../model.ts";
import { poolRoom } from "../capacity.ts";
import { childOf, isNodeCordoned, isReplicaUsable, replicaStatus, replicasOf } from "../status.ts";
import { namedNodesOf, nodeLabelsOf, poolLabelsOf } from "./filters.ts";
import { groupReplicas } from "./groups.ts";
import { whyLabelsExclude } from "./labels.ts";

/** Compares by the first number that differs, then by UUID. */
function byRank<T extends { readonly replica: ReplicaRecord; readonly rank: readonly number[] }>(
  a: T,
  b: T,
): number {
  const at = a.rank.findIndex((value, index) => value !== b.rank[index]);
  if (at >= 0) return a.rank[at]! - b.rank[at]!;
  return a.replica.uuid < b.replica.uuid ? -1 : 1;
}

function ranked(
  replicas: readonly ReplicaRecord[],
  rankOf: (replica: ReplicaRecord) => readonly number[],
): ReplicaRecord[] {
  return replicas
    .map((replica) => ({ replica, rank: rankOf(replica) }))
    .sort(byRank)
    .map(({ replica }) => replica);
}

function freeBytes(state: ClusterState, replica: ReplicaRecord): number {
  return poolRoom(state, replica.poolId)?.freeBytes ?? 0;
}

/**
 * Replicas that are there and not children of the volume's nexus, best to attach first: on its node,
 * healthy, in the pool with most free space (Mayastor takes the least, against its own comment).
 */
export function replicasToAttach(state: ClusterState, volume: VolumeRecord): ReplicaRecord[] {
  const nexus =
    volume.target === null ? undefined : state.stored.nexuses.get(volume.target.nexusUuid);
  if (nexus === undefined) return [];
  const attached = new Set(nexus.children.map(({ replicaUuid }) => replicaUuid));
  const waiting = replicasOf(state, volume.uuid).filter((replica) => {
    const status = replicaStatus(state, replica);
    const there = status === "Online" || status === "Degraded";
    return there && replica.status === "Created" && !attached.has(replica.uuid);
  });
  return ranked(waiting, (replica) => [
    replica.nodeId === nexus.nodeId ? 0 : 1,
    replica.healthy ? 0 : 1,
    -freeBytes(state, replica),
  ]);
}

/** The topology of the volume, or a cordon, would not let a new replica be placed where this one is. */
function isMisplaced(state: ClusterState, volume: VolumeRecord, replica: ReplicaRecord): boolean {
  const pool = state.stored.pools.get(replica.poolId);
  const node = state.stored.nodes.get(replica.nodeId);
  if (pool === undefined || node === undefined) return true;
  if (pool.cordoned || isNodeCordoned(node)) return true;
  const { allowed } = namedNodesOf(volume.topology);
  if (allowed.length > 0 && !allowed.includes(node.id)) return true;
  return (
    whyLabelsExclude(node.labels, nodeLabelsOf(volume.topology)) !== null ||
    whyLabelsExclude(pool.labels, poolLabelsOf(volume.topology)) !== null
  );
}

/** Progress of a replica's rebuild in percent; null: it is no child that takes part or is rebuilt. */
function rebuildPercent(
  state: ClusterState,
  volume: VolumeRecord,
  replica: ReplicaRecord,
): number | null {
  const child = childOf(state, volume, replica.uuid);
  if (child === undefined || child.state === "faulted" || child.state === "unknown") return null;
  return child.state === "online" ? 100 : (child.rebuild?.progressPercent ?? 0);
}

/**
 * How much a replica is worth, least first: lacks data and nobody brings it up to date; holds all but
 * is out of reach (the others went on without it); is being rebuilt; holds all and serves.
 */
function worth(state: ClusterState, volume: VolumeRecord, replica: ReplicaRecord): number {
  if (isReplicaUsable(state, replica)) return 3;
  if (rebuildPercent(state, volume, replica) !== null) return 2;
  return replica.healthy ? 1 : 0;
}

/**
 * Replicas of a volume, first to give up first: the volume's victim, then the one that is worth least,
 * where none would be placed now, with the rebuild that is least advanced; and of equal ones what is
 * not on the nexus's node, shares its node with most of the affinity group, has the fullest pool.
 */
export function removalOrder(state: ClusterState, volume: VolumeRecord): ReplicaRecord[] {
  const replicas = replicasOf(state, volume.uuid).filter(({ status }) => status !== "Deleting");
  const group =
    volume.affinityGroup === null
      ? null
      : groupReplicas(state, volume.affinityGroup, volume.uuid).byNode;
  return ranked(replicas, (replica) => [
    replica.uuid === volume.victimReplica ? 0 : 1,
    worth(state, volume, replica),
    isMisplaced(state, volume, replica) ? 0 : 1,
    rebuildPercent(state, volume, replica) ?? -1,
    replica.nodeId === volume.target?.nodeId ? 1 : 0,
    -(group?.get(replica.nodeId) ?? 0),
    freeBytes(state, replica),
  ]);
}

/**
 * The replica to give up when a volume has more than it should; null: it has not, or what remains
 * would not do yet. One that serves goes only when as many others serve as the volume wants (a replica
 * is moved by building another first); any other when at least one other serves.
 */
export function replicaToRemove(state: ClusterState, volume: VolumeRecord): ReplicaRecord | null {
  const order = removalOrder(state, volume);
  const [first, ...others] = order;
  if (first === undefined || order.length <= volume.replicaCount) return null;
  const serving = others.filter((replica) => isReplicaUsable(state, replica)).length;
  const needed = isReplicaUsable(state, first) ? volume.replicaCount : 1;
  return serving >= needed ? first : null;
}
