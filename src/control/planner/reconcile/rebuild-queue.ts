/**
 * Which rebuilds may begin and which wait, where their number is limited. Those that wait keep their
 * write-intent: waiting costs time, never a full copy. The volume with the fewest good copies left comes
 * first, then who has waited longest.
 */
import type { ClusterState } from "../../cluster-state.ts";
import type { NodeId, ReplicaRecord, Uuid, VolumeRecord } from "../../model.ts";
import { hasFailed, isReplicaUsable, observedReplica, replicasOf } from "../status.ts";
import { replicaOfUri } from "./uris.ts";

/** Rebuilds that run, or that an engine has queued. */
interface Load {
  total: number;
  readonly perNode: Map<NodeId, number>;
  /** Replicas that are being rebuilt. */
  readonly replicas: Set<Uuid>;
}

/** A replica that lacks data, can be reached, and is not being rebuilt. */
export interface WaitingRebuild {
  readonly volume: VolumeRecord;
  readonly replica: ReplicaRecord;
  /** Nodes that would be kept busy: the nexus's and the replica's. */
  readonly nodes: readonly NodeId[];
  /** Copies that are good and can be reached. */
  readonly goodCopies: number;
  /** When it was recorded lost, or made. */
  readonly sinceMs: number;
}

export interface QueuedRebuild extends WaitingRebuild {
  /** Which limit it waits for. */
  readonly reason: string;
}

function count(load: Load, nodes: Iterable<NodeId>): void {
  load.total++;
  for (const node of new Set(nodes)) load.perNode.set(node, (load.perNode.get(node) ?? 0) + 1);
}

function loadOf(state: ClusterState): Load {
  const load: Load = { total: 0, perNode: new Map(), replicas: new Set() };
  for (const node of state.observed.values()) {
    if (node.status !== "Online") continue;
    for (const nexus of node.nexuses.values()) {
      let left = nexus.rebuilds;
      // Those that run come first: of the others that look alike as many wait as the engine counts.
      const children = [...nexus.children].sort(
        (a, b) => Number(b.rebuild !== null) - Number(a.rebuild !== null),
      );
      for (const child of children) {
        if (left === 0) break;
        if (child.state !== "degraded" || child.reason !== "out-of-sync") continue;
        const uuid = replicaOfUri(child.uri);
        const replica = uuid === null ? undefined : state.stored.replicas.get(uuid);
        if (uuid !== null) load.replicas.add(uuid);
        count(load, [node.id, ...(replica === undefined ? [] : [replica.nodeId])]);
        left--;
      }
      for (; left > 0; left--) count(load, [node.id]);
    }
  }
  return load;
}

function waitingOf(state: ClusterState, load: Load, volume: VolumeRecord): WaitingRebuild[] {
  if (volume.status !== "Created") return [];
  const replicas = replicasOf(state, volume.uuid);
  const lacking = replicas.filter((replica) => {
    if (replica.healthy || replica.status !== "Created" || load.replicas.has(replica.uuid))
      return false;
    const seen = observedReplica(state, replica);
    return replica.uuid !== volume.victimReplica && seen !== undefined && !hasFailed(seen);
  });
  if (lacking.length === 0) return [];
  const goodCopies = replicas.filter((replica) => isReplicaUsable(state, replica)).length;
  return lacking.map((replica) => ({
    volume,
    replica,
    nodes: [replica.nodeId, ...(volume.target === null ? [] : [volume.target.nodeId])],
    goodCopies,
    sinceMs: replica.faultedAtMs ?? replica.createdAtMs,
  }));
}

/** Who comes first. */
function byUrgency(a: WaitingRebuild, b: WaitingRebuild): number {
  return (
    a.goodCopies - b.goodCopies ||
    a.sinceMs - b.sinceMs ||
    (a.replica.uuid < b.replica.uuid ? -1 : 1)
  );
}

function whyFull(state: ClusterState, load: Load, nodes: readonly NodeId[]): string | null {
  const { maxRebuilds, maxRebuildsPerNode } = state.settings;
  if (maxRebuilds !== null && load.total >= maxRebuilds) {
    return `${load.total} of at most ${maxRebuilds} rebuilds run in the cluster (setting max-rebuilds)`;
  }
  if (maxRebuildsPerNode === null) return null;
  const busy = nodes.find((node) => (load.perNode.get(node) ?? 0) >= maxRebuildsPerNode);
  if (busy === undefined) return null;
  return `${load.perNode.get(busy)} of at most ${maxRebuildsPerNode} rebuilds run on ${busy} (setting max-rebuilds-per-node)`;
}

/** Rebuilds that have to wait for others, by replica; whoever is not among them may begin now. */
export function queuedRebuilds(state: ClusterState): ReadonlyMap<Uuid, QueuedRebuild> {
  const { maxRebuilds, maxRebuildsPerNode } = state.settings;
  const queued = new Map<Uuid, QueuedRebuild>();
  if (maxRebuilds === null && maxRebuildsPerNode === null) return queued;
  const load = loadOf(state);
  const waiting = [...state.stored.volumes.values()]
    .flatMap((volume) => waitingOf(state, load, volume))
    .sort(byUrgency);
  for (const one of waiting) {
    const reason = whyFull(state, load, one.nodes);
    if (reason !== null) queued.set(one.replica.uuid, { ...one, reason });
    else count(load, one.nodes);
  }
  return queued;
}

/** Why no further rebuild of a nexus that no volume owns may begin on a node; null: it may. */
export function whyNoRebuild(state: ClusterState, nodeId: NodeId): string | null {
  return whyFull(state, loadOf(state), [nodeId]);
}
