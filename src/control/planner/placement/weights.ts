/**
 * Which of the pools that can take a replica is best (mayastor.md 5.2): pool status first, then named
 * preference, then a weighted score, then the id, so that the same state gives the same order. Pure.
 */
import type { ClusterState } from "../../cluster-state.ts";
import { type Candidate, namedNodesOf, type PlacementRequest } from "./filters.ts";
import { groupReplicas } from "./groups.ts";

/** Weight of each term. A term is 1 for the best and 0 for the worst that can be. */
const thickWeights = { replicas: 40, free: 60, overCommit: 0, groupPool: 15, groupNode: 25 };
const thinWeights = { replicas: 25, free: 40, overCommit: 35, groupPool: 10, groupNode: 15 };

/** A candidate and its score, from 0 to 1. */
export interface Ranked extends Candidate {
  readonly score: number;
  /** Before the score: of lower rank are healthy pools, and of these those on preferred nodes. */
  readonly rank: number;
}

/** 1 for the fewest, 0 for the most; 1 for all when they are equal. */
function fewest(value: number, most: number, least: number): number {
  return most === least ? 1 : (most - value) / (most - least);
}

/** Scores of candidates in their order. Weights of terms that do not apply are left out. */
function scores(
  state: ClusterState,
  request: PlacementRequest,
  candidates: readonly Candidate[],
): number[] {
  const weights = request.thin ? thinWeights : thickWeights;
  const { affinityGroup, volumeUuid } = request;
  const group = affinityGroup === null ? null : groupReplicas(state, affinityGroup, volumeUuid);
  const replicas = candidates.map(({ room }) => room.replicas);
  const inPool = candidates.map(({ pool }) => group?.byPool.get(pool.id) ?? 0);
  const onNode = candidates.map(({ node }) => group?.byNode.get(node.id) ?? 0);
  const most = (values: readonly number[]) => values.reduce((a, b) => Math.max(a, b), 0);
  const least = (values: readonly number[]) => values.reduce((a, b) => Math.min(a, b), Infinity);
  const bounds = [replicas, inPool, onNode].map((values) => [most(values), least(values)] as const);
  const [replicaBounds, poolBounds, nodeBounds] = [bounds[0]!, bounds[1]!, bounds[2]!];
  const freeMost = Math.max(1, most(candidates.map(({ room }) => room.freeBytes)));
  const groupWeight = group === null ? 0 : weights.groupPool + weights.groupNode;
  const total = weights.replicas + weights.free + weights.overCommit + groupWeight;

  return candidates.map(({ room }, at) => {
    const limit = (state.settings.poolCommitmentPercent * room.capacityBytes) / 100;
    const headroom = Math.max(0, 1 - room.committedBytes / Math.max(1, limit));
    let score = weights.replicas * fewest(replicas[at]!, ...replicaBounds);
    score += weights.free * (room.freeBytes / freeMost);
    score += weights.overCommit * headroom;
    if (group !== null) {
      score += weights.groupPool * fewest(inPool[at]!, ...poolBounds);
      score += weights.groupNode * fewest(onNode[at]!, ...nodeBounds);
    }
    return score / total;
  });
}

/** Candidates with their scores, in the order they came in. */
export function scorePools(
  state: ClusterState,
  request: PlacementRequest,
  candidates: readonly Candidate[],
): Ranked[] {
  const points = scores(state, request, candidates);
  const { preferred } = namedNodesOf(request.topology);
  return candidates.map(({ pool, node, room, status }, at) => {
    const wellness = status === "Online" ? 0 : 2;
    const preference = preferred.includes(node.id) ? 0 : 1;
    return { pool, node, room, status, score: points[at]!, rank: wellness + preference };
  });
}

/** Negative when `a` is the better one; never 0 for two pools. */
export function compareRanked(a: Ranked, b: Ranked): number {
  return a.rank - b.rank || b.score - a.score || (a.pool.id < b.pool.id ? -1 : 1);
}
