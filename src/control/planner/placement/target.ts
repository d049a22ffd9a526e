/** Which node serves a volume (mayastor.md 5.2), and through which children. Pure. */
import { TrilithError } from "../../../errors.ts";
import { endpointText, nqnOf } from "../../../names.ts";
import type { ClusterState } from "../../cluster-state.ts";
import type {
  NexusChildRecord,
  NodeId,
  NodeRecord,
  ReplicaRecord,
  VolumeRecord,
} from "../../model.ts";
import { deviceBytes } from "../capacity.ts";
import {
  isNodeCordoned,
  isReplicaUsable,
  nodeStatus,
  observedReplica,
  replicasOf,
} from "../status.ts";
import { namedNodesOf } from "./filters.ts";
import { groupTargets } from "./groups.ts";

type Nexuses = ClusterState["stored"]["nexuses"];
const targetsOfNexuses = new WeakMap<Nexuses, ReadonlyMap<NodeId, number>>();

/** Targets by node, those of all volumes. */
function targetCounts(state: ClusterState): ReadonlyMap<NodeId, number> {
  let counts = targetsOfNexuses.get(state.stored.nexuses);
  if (counts === undefined) {
    const made = new Map<NodeId, number>();
    for (const { nodeId, phase } of state.stored.nexuses.values()) {
      if (phase === "Open") made.set(nodeId, (made.get(nodeId) ?? 0) + 1);
    }
    counts = made;
    targetsOfNexuses.set(state.stored.nexuses, counts);
  }
  return counts;
}

/** Why a node cannot get a target; null: it can. */
export function whyNoTarget(state: ClusterState, node: NodeRecord): string | null {
  const status = nodeStatus(state, node.id);
  if (status !== "Online") return `node ${node.id} is ${status}`;
  if (isNodeCordoned(node)) {
    return `node ${node.id} is cordoned (${[...node.cordonLabels, ...node.drainLabels].join(", ")})`;
  }
  return null;
}

/** Throws `FailedPrecondition` unless the node can get a target. */
export function requireTargetNode(state: ClusterState, nodeId: NodeId): NodeRecord {
  const node = state.stored.nodes.get(nodeId);
  const why = node === undefined ? `node ${nodeId} does not exist` : whyNoTarget(state, node);
  if (node !== undefined && why === null) return node;
  throw new TrilithError(
    "FailedPrecondition",
    `${why}: it cannot serve a volume`,
    "name another node, or none to have one chosen",
  );
}

/**
 * Nodes that could serve the volume, best first: fewest targets of its affinity group, preferred by its
 * topology, with a healthy replica of it (reads stay local), fewest targets, lowest id.
 */
export function rankTargetNodes(
  state: ClusterState,
  volume: VolumeRecord,
  not: ReadonlySet<NodeId>,
): NodeRecord[] {
  const group =
    volume.affinityGroup === null
      ? new Map<NodeId, number>()
      : groupTargets(state, volume.affinityGroup, volume.uuid);
  const { preferred } = namedNodesOf(volume.topology);
  const usable = replicasOf(state, volume.uuid).filter((one) => isReplicaUsable(state, one));
  const holders = new Set(usable.map(({ nodeId }) => nodeId));
  const counts = targetCounts(state);
  const rank = ({ id }: NodeRecord): readonly number[] => [
    group.get(id) ?? 0,
    preferred.includes(id) ? 0 : 1,
    holders.has(id) ? 0 : 1,
    counts.get(id) ?? 0,
  ];
  return [...state.stored.nodes.values()]
    .filter((node) => !not.has(node.id) && whyNoTarget(state, node) === null)
    .map((node) => ({ node, rank: rank(node) }))
    .sort((a, b) => {
      const at = a.rank.findIndex((value, index) => value !== b.rank[index]);
      if (at >= 0) return a.rank[at]! - b.rank[at]!;
      return a.node.id < b.node.id ? -1 : 1;
    })
    .map(({ node }) => node);
}

/** The best node to serve the volume, never one of `not`. Throws `FailedPrecondition` without one. */
export function chooseTargetNode(
  state: ClusterState,
  volume: VolumeRecord,
  not: ReadonlySet<NodeId>,
): NodeRecord {
  const [best] = rankTargetNodes(state, volume, not);
  if (best !== undefined) return best;
  const reasons = [...state.stored.nodes.values()]
    .sort((a, b) => (a.id < b.id ? -1 : 1))
    .map((node) => whyNoTarget(state, node) ?? `node ${node.id} serves it now`);
  throw new TrilithError(
    "FailedPrecondition",
    `volume ${volume.uuid}: no node can serve it; ${reasons.join("; ") || "there are no nodes"}`,
    "bring a node back, or uncordon one",
  );
}

/**
 * How a nexus on a node reaches a replica: as a device of its own engine, else over NVMe/TCP, by the
 * URI that the replica's engine gives it once it is shared. Null: that engine has never been heard of.
 */
export function childUri(
  state: ClusterState,
  nexusNodeId: NodeId,
  replica: ReplicaRecord,
): string | null {
  if (replica.nodeId === nexusNodeId) return `bdev:///${replica.uuid}`;
  const info = state.observed.get(replica.nodeId)?.info ?? null;
  const port = info?.nvmf[0]?.port;
  if (info === null || port === undefined) return null;
  return `nvmf+tcp://${endpointText(info.address, port)}/${nqnOf(replica.uuid)}?uuid=${replica.uuid}`;
}

/**
 * Children of a new nexus: healthy replicas that are there and large enough, those on the nexus's node
 * first. Throws `FailedPrecondition` when there is none: nothing then holds all that was acknowledged.
 */
export function chooseChildren(
  state: ClusterState,
  volume: VolumeRecord,
  nexusNodeId: NodeId,
): NexusChildRecord[] {
  const replicas = replicasOf(state, volume.uuid);
  const bytes = deviceBytes(volume.sizeBytes);
  const children = replicas
    .filter((replica) => isReplicaUsable(state, replica))
    .filter((replica) => (observedReplica(state, replica)?.sizeBytes ?? 0) >= bytes)
    .sort((a, b) => Number(b.nodeId === nexusNodeId) - Number(a.nodeId === nexusNodeId))
    .flatMap((replica) => {
      const uri = childUri(state, nexusNodeId, replica);
      return uri === null ? [] : [{ uri, replicaUuid: replica.uuid }];
    });
  if (children.length > 0) return children;
  const states = replicas.map((replica) => {
    const health = replica.healthy ? "healthy" : "unhealthy";
    return `${replica.uuid} in ${replica.poolId} on ${replica.nodeId} (${nodeStatus(state, replica.nodeId)}): ${health}`;
  });
  throw new TrilithError(
    "FailedPrecondition",
    `volume ${volume.uuid}: no healthy replica can be reached; ${states.join("; ") || "it has none"}`,
    "bring back a node or pool with a healthy replica",
  );
}
