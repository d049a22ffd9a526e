/**
 * Chooses pools for new replicas of a volume: filters, ranks, and searches for the best ones that go
 * together. Pure; the same state gives the same pools.
 */
import { TrilithError } from "../../../errors.ts";
import type { ClusterState } from "../../cluster-state.ts";
import { REJECTIONS_NAMED, SEARCH_STEPS_MAX } from "../limits.ts";
import {
  filterPools,
  nodeLabelsOf,
  type PlacementRequest,
  poolLabelsOf,
  type Rejection,
  whyTogetherNot,
} from "./filters.ts";
import { spreadKeys, valuesText } from "./labels.ts";
import { compareRanked, type Ranked, scorePools } from "./weights.ts";

export type { PlacementRequest, Rejection } from "./filters.ts";

/** Pools for a request, and why each other pool was not taken. */
export interface Placement {
  /** Best first; fewer than asked for when no more go together. */
  readonly chosen: readonly Ranked[];
  readonly rejected: readonly Rejection[];
}

/**
 * Candidates that agree on every label they have to agree on, best first: no set of pools reaches over
 * two of these. The one with the best candidate comes first.
 */
function agreeing(request: PlacementRequest, scored: readonly Ranked[]): Ranked[][] {
  const nodeKeys = nodeLabelsOf(request.topology).affinityKey;
  const poolKeys = poolLabelsOf(request.topology).affinityKey;
  const sets = new Map<string, Ranked[]>();
  for (const one of scored) {
    const values = valuesText(one.node.labels, nodeKeys) + valuesText(one.pool.labels, poolKeys);
    const set = sets.get(values);
    if (set === undefined) sets.set(values, [one]);
    else set.push(one);
  }
  return [...sets.values()]
    .map((set) => bestOfEachKind(request, set))
    .sort(([a], [b]) => compareRanked(a!, b!));
}

/**
 * Of pools that conflict with the same others only the best can matter: pools of one node, or of all
 * nodes with the same values of the labels to spread over, as far as their own labels do not tell them
 * apart. Best first.
 */
function bestOfEachKind(request: PlacementRequest, agreed: readonly Ranked[]): Ranked[] {
  const nodeKeys = spreadKeys(nodeLabelsOf(request.topology));
  const poolKeys = spreadKeys(poolLabelsOf(request.topology));
  const best = new Map<string, Ranked>();
  for (const one of agreed) {
    const place = nodeKeys.length === 0 ? one.node.id : valuesText(one.node.labels, nodeKeys);
    const kind = poolKeys.length === 0 ? place : place + valuesText(one.pool.labels, poolKeys);
    const other = best.get(kind);
    if (other === undefined || compareRanked(one, other) < 0) best.set(kind, one);
  }
  return [...best.values()].sort(compareRanked);
}

/**
 * The first `count` in the order of rank that go together, by depth-first search; the largest set that
 * was found when there are not so many.
 */
function searchTogether(request: PlacementRequest, ranked: readonly Ranked[]): readonly Ranked[] {
  const { count, topology } = request;
  let best: readonly Ranked[] = [];
  let steps = 0;
  const extend = (chosen: readonly Ranked[], from: number): boolean => {
    if (chosen.length > best.length) best = chosen;
    if (best.length >= count) return true;
    for (let at = from; at < ranked.length; at += 1) {
      steps += 1;
      if (steps > SEARCH_STEPS_MAX) return true;
      if (chosen.length + ranked.length - at <= best.length) return false;
      const next = ranked[at]!;
      if (chosen.some((other) => whyTogetherNot(next, other, topology) !== null)) continue;
      if (extend([...chosen, next], at + 1)) return true;
    }
    return false;
  };
  if (count > 0) extend([], 0);
  return best.slice(0, count);
}

/** The first set that is large enough; the largest when none is. */
function choose(request: PlacementRequest, scored: readonly Ranked[]): readonly Ranked[] {
  let largest: readonly Ranked[] = [];
  for (const agreed of agreeing(request, scored)) {
    const found = searchTogether(request, agreed);
    if (found.length >= request.count) return found;
    if (found.length > largest.length) largest = found;
  }
  return largest;
}

/** Why candidates that passed every filter were not taken although more are needed. */
function leftOver(
  request: PlacementRequest,
  scored: readonly Ranked[],
  chosen: readonly Ranked[],
): Rejection[] {
  const taken = new Set(chosen.map(({ pool }) => pool.id));
  return scored.flatMap((candidate) => {
    if (taken.has(candidate.pool.id)) return [];
    const poolId = candidate.pool.id;
    for (const other of chosen) {
      const conflict = whyTogetherNot(candidate, other, request.topology);
      if (conflict === null) continue;
      const reason = () => `${conflict} as ${other.pool.id}`;
      return [{ poolId, filter: "compatibility", reason }];
    }
    return [{ poolId, filter: "compatibility", reason: () => "does not go with others" }];
  });
}

/** Chooses pools; does not throw when there are too few. */
export function placeReplicas(state: ClusterState, request: PlacementRequest): Placement {
  const { candidates, rejected } = filterPools(state, request);
  const scored = scorePools(state, request, candidates);
  const chosen = choose(request, scored);
  if (chosen.length >= request.count) return { chosen, rejected };
  return { chosen, rejected: [...leftOver(request, scored, chosen), ...rejected] };
}

/**
 * What removed the pools: each by its name and reason, those beyond a bound counted by filter. `found`: so
 * many were taken.
 */
export function describeRejections(rejected: readonly Rejection[], found = 0): string {
  if (rejected.length === 0) return found === 0 ? "there are no pools" : "there are no other pools";
  const named = rejected
    .slice(0, REJECTIONS_NAMED)
    .map(({ poolId, reason }) => `${poolId}: ${reason()}`);
  const counts = new Map<string, number>();
  for (const { filter } of rejected.slice(REJECTIONS_NAMED)) {
    counts.set(filter, (counts.get(filter) ?? 0) + 1);
  }
  const counted = [...counts].map(([filter, count]) => `${count} more by ${filter}`);
  return [...named, ...counted].join("; ");
}

/** What would make room, by the filter that removed most. */
function remedyOf(rejected: readonly Rejection[]): string {
  const removed = new Set(rejected.map(({ filter }) => filter));
  const remedies: string[] = [];
  if (removed.has("room")) remedies.push("grow a pool or free space in one");
  if (removed.has("node cordon")) remedies.push("uncordon a node");
  if (removed.has("pool cordon")) remedies.push("uncordon a pool");
  if (removed.has("node status") || removed.has("pool status")) {
    remedies.push("bring back a node or pool that is away");
  }
  if (removed.has("node labels") || removed.has("pool labels")) {
    remedies.push("label nodes or pools as the volume's topology asks");
  }
  remedies.push(
    "create a pool on a node that has none of the volume's replicas: " +
      "trilith create pool <name> <disk> --node <node>",
  );
  return remedies.join("; or ");
}

/** Chooses pools for all that is asked for, or throws `ResourceExhausted` with what was in the way. */
export function requirePools(
  state: ClusterState,
  request: PlacementRequest,
  what: string,
): readonly Ranked[] {
  const { chosen, rejected } = placeReplicas(state, request);
  if (chosen.length >= request.count) return chosen;
  throw new TrilithError(
    "ResourceExhausted",
    `${what}: too few pools: ${request.count} needed, ${chosen.length} found; ` +
      describeRejections(rejected, chosen.length),
    remedyOf(rejected),
  );
}
