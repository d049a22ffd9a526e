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
import { hasRoom, type PoolRoom, poolRoom, whyNoRoom } from "../capacity.ts";
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

/** A pool that was not taken, the filter that removed it, and why (put into words when asked for). */
export interface Rejection {
  readonly poolId: PoolId;
  readonly filter: FilterName;
  readonly reason: () => string;
}

const noLabels: LabelledTopology = { exclusion: {}, inclusion: {}, affinityKey: [] };

/** It asks for nothing. */
function isEmpty({ exclusion, inclusion, affinityKey }: LabelledTopology): boolean {
  const keys = Object.keys(exclusion).length + Object.keys(inclusion).length;
  return keys + affinityKey.length === 0;
}

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

/** A pool and its node, and what removes it whatever is asked for. */
interface PoolRow {
  readonly pool: PoolRecord;
  readonly candidate: Candidate | null;
  readonly rejection: Rejection | null;
}

const rowsByState = new WeakMap<ClusterState, readonly PoolRow[]>();
const sortedPools = new WeakMap<ClusterState["stored"]["pools"], readonly PoolRecord[]>();

/** Every pool, in the order of ids, with what does not depend on a request. Looked up once per state. */
function poolRows(state: ClusterState): readonly PoolRow[] {
  const known = rowsByState.get(state);
  if (known !== undefined) return known;
  const { pools } = state.stored;
  const sorted =
    sortedPools.get(pools) ?? [...pools.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
  sortedPools.set(pools, sorted);
  const rows = sorted.map((pool) => rowOf(state, pool));
  rowsByState.set(state, rows);
  return rows;
}

function rowOf(state: ClusterState, pool: PoolRecord): PoolRow {
  const no = (filter: FilterName, reason: () => string): PoolRow => {
    return { pool, candidate: null, rejection: { poolId: pool.id, filter, reason } };
  };
  if (pool.status === "Creating") return no("pool lifecycle", () => "pool is still being created");
  if (pool.status === "Deleting") return no("pool lifecycle", () => "pool is being deleted");
  const node = state.stored.nodes.get(pool.nodeId);
  if (node === undefined) return no("node status", () => `node ${pool.nodeId} is not known`);
  const heard = nodeStatus(state, node.id);
  if (heard !== "Online") return no("node status", () => `node ${node.id} is ${heard}`);
  if (isNodeCordoned(node)) {
    const labels = () => [...node.cordonLabels, ...node.drainLabels].join(", ");
    return no("node cordon", () => `node cordoned (${labels()})`);
  }
  if (pool.cordoned) return no("pool cordon", () => "pool cordoned");
  const status = poolStatus(state, pool);
  if (status !== "Online" && status !== "Degraded") {
    return no("pool status", () => `pool is ${status}`);
  }
  const room = poolRoom(state, pool.id);
  if (room === null) return no("pool status", () => "its engine has not reported it yet");
  return { pool, candidate: { pool, node, room, status }, rejection: null };
}

/** Puts every pool of the cluster through the filters, in the order of their ids. */
export function filterPools(
  state: ClusterState,
  request: PlacementRequest,
): { readonly candidates: Candidate[]; readonly rejected: Rejection[] } {
  const judge = judgeOf(state, request);
  const candidates: Candidate[] = [];
  const rejected: Rejection[] = [];
  for (const { pool, candidate, rejection } of poolRows(state)) {
    const no = whyNotAsked(pool, request) ?? rejection ?? (candidate && judge(candidate));
    if (no !== null) rejected.push(no);
    else if (candidate !== null) candidates.push(candidate);
  }
  return { candidates, rejected };
}

/** The request names pools, and this is none of them. */
function whyNotAsked(pool: PoolRecord, request: PlacementRequest): Rejection | null {
  const { onlyPools, notPools } = request;
  const isAsked = onlyPools === null || onlyPools.has(pool.id);
  if (isAsked && !notPools.has(pool.id)) return null;
  const reason = () => (isAsked ? "not to be used" : "not among the pools that can be used");
  return { poolId: pool.id, filter: "chosen pools", reason };
}

/** What judges pools by a request: what is the same for all of them is looked up once. */
function judgeOf(
  state: ClusterState,
  request: PlacementRequest,
): (candidate: Candidate) => Rejection | null {
  const { topology } = request;
  const { allowed } = namedNodesOf(topology);
  const nodeLabels = nodeLabelsOf(topology);
  const poolLabels = poolLabelsOf(topology);
  const [nodesMatter, poolsMatter] = [!isEmpty(nodeLabels), !isEmpty(poolLabels)];
  const staying = placesOf(state, request.staying);
  const taken = new Map(staying.map((place) => [place.node.id, place.pool.id]));
  const lonely =
    request.affinityGroup !== null && request.replicaCount === 1
      ? nodesOfSingleReplicas(state, request.affinityGroup, request.volumeUuid)
      : null;

  return ({ pool, node, room }) => {
    const no = (filter: FilterName, reason: () => string): Rejection => {
      return { poolId: pool.id, filter, reason };
    };
    if (allowed.length > 0 && !allowed.includes(node.id)) {
      return no("allowed nodes", () => `node ${node.id} is not allowed`);
    }
    const there = taken.get(node.id);
    if (there !== undefined) {
      const reason = () => `node ${node.id} has a replica of the volume (in ${there})`;
      return no("one replica per node", reason);
    }
    const nodeMisfit = nodesMatter ? whyLabelsExclude(node.labels, nodeLabels) : null;
    if (nodeMisfit !== null) return no("node labels", () => `node ${node.id}: ${nodeMisfit}`);
    const poolMisfit = poolsMatter ? whyLabelsExclude(pool.labels, poolLabels) : null;
    if (poolMisfit !== null) return no("pool labels", () => poolMisfit);
    for (const place of nodesMatter || poolsMatter ? staying : []) {
      const conflict = whyTogetherNot({ pool, node }, place, topology);
      if (conflict !== null) return no("compatibility", () => `${conflict} as ${place.pool.id}`);
    }
    if (lonely?.has(node.id) === true) {
      const reason = () => `node ${node.id} has another volume of the affinity group`;
      return no("affinity group", reason);
    }
    if (hasRoom(state.settings, room, request)) return null;
    const reason = () => `no room (${whyNoRoom(state.settings, room, request)})`;
    return no("room", reason);
  };
}
