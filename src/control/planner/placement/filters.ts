/**
 * Which pools can take a new replica of a volume, each filter by itself (mayastor.md 5.2). Pure.
 * A filter says why it removes a pool, so that an operator learns what to change.
 */
import type { ClusterState } from "../../cluster-state.ts";
import type {
  LabelledTopology,
  NodeId,
  NodeRecord,
  PoolId,
  PoolRecord,
  ReplicaRecord,
  Topology,
  Uuid,
} from "../../model.ts";
import { type PoolRoom, poolRoom, type RoomNeeded, whyNoRoom } from "../capacity.ts";
import { isNodeCordoned, nodeStatus, type PoolStatus, poolStatus } from "../status.ts";
import { nodesOfSingleReplicas } from "./groups.ts";
import { whyLabelsConflict, whyLabelsExclude } from "./labels.ts";

/** What replicas are to be placed for. */
export interface PlacementRequest {
  /** The volume: its replicas stay apart from each other. */
  readonly volumeUuid: Uuid;
  readonly sizeBytes: number;
  readonly thin: boolean;
  readonly replicaCount: number;
  readonly topology: Topology | null;
  readonly affinityGroup: string | null;
  /** Replicas to find pools for. */
  readonly count: number;
  /** Replicas of the volume that stay where they are: new ones avoid their nodes. */
  readonly staying: readonly ReplicaRecord[];
  /** What a new replica will hold at once (`largestAllocation`); 0 for a new volume. */
  readonly allocatedBytes: number;
  readonly commitmentPercent: number;
  /** Only these pools; null: any. */
  readonly onlyPools: ReadonlySet<PoolId> | null;
  /** Never these. */
  readonly notPools: ReadonlySet<PoolId>;
}

/** A pool with what filters and weights look at. */
export interface Candidate {
  readonly pool: PoolRecord;
  readonly node: NodeRecord;
  readonly room: PoolRoom;
  readonly status: PoolStatus;
}

export type FilterName =
  | "chosen pools"
  | "pool lifecycle"
  | "node status"
  | "node cordon"
  | "pool cordon"
  | "allowed nodes"
  | "one replica per node"
  | "node labels"
  | "pool status"
  | "pool labels"
  | "room"
  | "affinity group"
  | "compatibility";

/** A pool that was not taken, the filter that removed it, and why. */
export interface Rejection {
  readonly poolId: PoolId;
  readonly filter: FilterName;
  readonly reason: string;
}

const noLabels: LabelledTopology = { exclusion: {}, inclusion: {}, affinityKey: [] };

/** The labels that nodes must have; empty when the request is about names or nothing. */
export function nodeLabelsOf(topology: Topology | null): LabelledTopology {
  const node = topology?.node ?? null;
  return node !== null && "labelled" in node ? node.labelled : noLabels;
}

export function poolLabelsOf(topology: Topology | null): LabelledTopology {
  return topology?.pool ?? noLabels;
}

/** Nodes that the request names; `allowed` empty: every node. */
export function namedNodesOf(topology: Topology | null): {
  readonly allowed: readonly NodeId[];
  readonly preferred: readonly NodeId[];
} {
  const node = topology?.node ?? null;
  if (node === null || !("explicit" in node)) return { allowed: [], preferred: [] };
  return { allowed: node.explicit.allowedNodes, preferred: node.explicit.preferredNodes };
}

/** Where a replica lies, as far as conflicts go. */
export interface Place {
  readonly pool: PoolRecord;
  readonly node: NodeRecord;
}

/** Why two replicas of one volume cannot lie in these two pools; null: they can. */
export function whyTogetherNot(a: Place, b: Place, topology: Topology | null): string | null {
  if (a.node.id === b.node.id) return `on the same node (${a.node.id})`;
  return (
    whyLabelsConflict(a.node.labels, b.node.labels, nodeLabelsOf(topology)) ??
    whyLabelsConflict(a.pool.labels, b.pool.labels, poolLabelsOf(topology))
  );
}

/** Where the replicas that stay lie; one whose pool is forgotten does not count. */
export function placesOf(state: ClusterState, replicas: readonly ReplicaRecord[]): Place[] {
  return replicas.flatMap((replica) => {
    const pool = state.stored.pools.get(replica.poolId);
    const node = state.stored.nodes.get(replica.nodeId);
    return pool === undefined || node === undefined ? [] : [{ pool, node }];
  });
}

type Judge = (pool: PoolRecord) => Candidate | Rejection;

/** What judges pools for a request: what is the same for all of them is looked up once. */
function judgeOf(state: ClusterState, request: PlacementRequest): Judge {
  const { topology } = request;
  const { allowed } = namedNodesOf(topology);
  const nodeLabels = nodeLabelsOf(topology);
  const poolLabels = poolLabelsOf(topology);
  const staying = placesOf(state, request.staying);
  const needed: RoomNeeded = request;
  const lonely =
    request.affinityGroup !== null && request.replicaCount === 1
      ? nodesOfSingleReplicas(state, request.affinityGroup, request.volumeUuid)
      : null;

  return (pool) => {
    const no = (filter: FilterName, reason: string): Rejection => {
      return { poolId: pool.id, filter, reason };
    };
    if (request.onlyPools !== null && !request.onlyPools.has(pool.id)) {
      return no("chosen pools", "not among the pools that can be used");
    }
    if (request.notPools.has(pool.id)) return no("chosen pools", "not to be used");
    if (pool.status === "Creating") return no("pool lifecycle", "pool is still being created");
    if (pool.status === "Deleting") return no("pool lifecycle", "pool is being deleted");
    const node = state.stored.nodes.get(pool.nodeId);
    if (node === undefined) return no("node status", `node ${pool.nodeId} is not known`);
    const heard = nodeStatus(state, node.id);
    if (heard !== "Online") return no("node status", `node ${node.id} is ${heard}`);
    if (isNodeCordoned(node)) {
      const labels = [...node.cordonLabels, ...node.drainLabels].join(", ");
      return no("node cordon", `node cordoned (${labels})`);
    }
    if (pool.cordoned) return no("pool cordon", "pool cordoned");
    if (allowed.length > 0 && !allowed.includes(node.id)) {
      return no("allowed nodes", `node ${node.id} is not allowed`);
    }
    for (const place of staying) {
      if (place.node.id !== node.id) continue;
      const reason = `node ${node.id} has a replica of the volume (in ${place.pool.id})`;
      return no("one replica per node", reason);
    }
    const nodeMisfit = whyLabelsExclude(node.labels, nodeLabels);
    if (nodeMisfit !== null) return no("node labels", `node ${node.id}: ${nodeMisfit}`);
    const status = poolStatus(state, pool);
    if (status !== "Online" && status !== "Degraded") return no("pool status", `pool is ${status}`);
    const poolMisfit = whyLabelsExclude(pool.labels, poolLabels);
    if (poolMisfit !== null) return no("pool labels", poolMisfit);
    for (const place of staying) {
      const conflict = whyTogetherNot({ pool, node }, place, topology);
      if (conflict !== null) return no("compatibility", `${conflict} as ${place.pool.id}`);
    }
    if (lonely?.has(node.id) === true) {
      return no("affinity group", `node ${node.id} has another volume of the affinity group`);
    }
    const room = poolRoom(state, pool.id);
    if (room === null) return no("pool status", "its engine has not reported it yet");
    const tight = whyNoRoom(state.settings, room, needed);
    if (tight !== null) return no("room", `no room (${tight})`);
    return { pool, node, room, status };
  };
}

/** Puts every pool of the cluster through the filters, in the order of their ids. */
export function filterPools(
  state: ClusterState,
  request: PlacementRequest,
): { readonly candidates: Candidate[]; readonly rejected: Rejection[] } {
  const judge = judgeOf(state, request);
  const candidates: Candidate[] = [];
  const rejected: Rejection[] = [];
  const pools = [...state.stored.pools.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
  for (const pool of pools) {
    const verdict = judge(pool);
    if ("filter" in verdict) rejected.push(verdict);
    else candidates.push(verdict);
  }
  return { candidates, rejected };
}
