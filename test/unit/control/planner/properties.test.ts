/**
 * Decisions on random clusters: whatever is asked for, in whatever order, with whatever nodes away and
 * however many decisions made on one view, the rules of placement hold.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import type { ClusterState, StoreView } from "../../../../src/control/cluster-state.ts";
import type { LabelledTopology, Labels, Topology, Uuid } from "../../../../src/control/model.ts";
import { deviceBytes } from "../../../../src/control/planner/capacity.ts";
import {
  createSnapshot,
  createVolume,
  destroyVolume,
  moveReplica,
  publishVolume,
  resizeVolume,
  restoreVolume,
  setReplicaCount,
  unpublishVolume,
} from "../../../../src/control/planner/decide/index.ts";
import { replicaToRemove } from "../../../../src/control/planner/placement/replica-choice.ts";
import type { Decision } from "../../../../src/control/planner/plan.ts";
import { TrilithError } from "../../../../src/errors.ts";
import {
  GiB,
  MiB,
  PlannedCluster,
  Refused,
  volumeRequest,
} from "../../../support/planned-cluster.ts";
import { type Random, withSeed } from "../../../support/random.ts";

setDefaultTimeout(120_000);

/** Clusters that are tried; `TRILITH_CLUSTERS` for longer searches. */
const CLUSTERS = Number(process.env.TRILITH_CLUSTERS ?? "40");
const STEPS = 60;
const CLUSTER_BYTES = 4 * MiB;

type Operation = (state: ClusterState, uuids: Uuid[]) => Decision;

// ------------------------------------------------------------------------------------ random clusters

function randomLabels(random: Random): Labels {
  const labels: Record<string, string> = {};
  if (random.chance(0.8)) labels.zone = random.pick(["a", "b", "c"]);
  if (random.chance(0.5)) labels.disk = random.pick(["ssd", "hdd"]);
  return labels;
}

function randomCluster(random: Random): PlannedCluster {
  const cluster = new PlannedCluster();
  const nodes = random.between(1, 7);
  for (let n = 1; n <= nodes; n += 1) {
    cluster.addNode(`node-${n}`, { labels: randomLabels(random) });
    for (let p = random.below(4); p > 0; p -= 1) {
      const labels = randomLabels(random);
      cluster.addPool(`pool-${n}-${p}`, `node-${n}`, random.between(1, 12) * GiB, { labels });
    }
  }
  return cluster;
}

function randomLabelled(random: Random): LabelledTopology {
  const value = (key: string) => random.pick(key === "zone" ? ["a", "b", "c", ""] : ["ssd", ""]);
  const pickOf = (chance: number): Record<string, string> => {
    const labels: Record<string, string> = {};
    for (const key of ["zone", "disk"]) if (random.chance(chance)) labels[key] = value(key);
    return labels;
  };
  const affinityKey = random.chance(0.2) ? [random.pick(["zone", "disk"])] : [];
  return { inclusion: pickOf(0.2), exclusion: pickOf(0.2), affinityKey };
}

function randomTopology(random: Random): Topology | null {
  if (random.chance(0.4)) return null;
  const pool = random.chance(0.5) ? randomLabelled(random) : null;
  if (random.chance(0.3)) return { node: null, pool };
  if (random.chance(0.5)) return { node: { labelled: randomLabelled(random) }, pool };
  const allowedNodes = ["node-1", "node-2", "node-3"].filter(() => random.chance(0.7));
  return { node: { explicit: { allowedNodes, preferredNodes: allowedNodes.slice(0, 1) } }, pool };
}

function randomVolume(random: Random, uuid: Uuid) {
  return volumeRequest(uuid, {
    sizeBytes: random.between(1, 3 * 1024) * MiB + random.below(3),
    replicaCount: random.between(1, 4),
    thin: random.chance(0.5),
    topology: randomTopology(random),
    affinityGroup: random.chance(0.3) ? random.pick(["g1", "g2"]) : null,
  });
}

function randomOperation(random: Random, cluster: PlannedCluster): Operation {
  const volumes = [...cluster.stored.volumes.keys()];
  const fresh = cluster.uuid();
  if (volumes.length === 0 || random.chance(0.4)) {
    const request = randomVolume(random, fresh);
    return (state, uuids) => createVolume(state, request, uuids);
  }
  const uuid = random.pick(volumes);
  const volume = cluster.stored.volumes.get(uuid)!;
  const replicas = [...(cluster.stored.replicasOfVolume.get(uuid) ?? [])];
  const snapshots = [...cluster.stored.snapshots.values()];
  const up = random.chance(0.6);
  const publishRequest = {
    uuid,
    publishContext: {},
    nodeId: random.chance(0.3) ? "node-1" : null,
    reuseExisting: random.chance(0.3),
    republish: random.chance(0.4),
    frontendNode: null,
  };
  const larger = volume.sizeBytes + random.between(1, 1024) * MiB;
  const operations: Operation[] = [
    (state) => destroyVolume(state, uuid),
    (state, uuids) => publishVolume(state, publishRequest, uuids),
    (state) => unpublishVolume(state, uuid, up),
    (state, uuids) =>
      setReplicaCount(state, uuid, volume.replicaCount + (up ? 1 : -1), null, uuids),
    (state) => resizeVolume(state, uuid, larger),
    (state, uuids) => createSnapshot(state, uuid, fresh, uuids),
  ];
  if (replicas.length > 0) {
    const replica = random.pick(replicas);
    operations.push((state, uuids) => moveReplica(state, replica, null, uuids));
  }
  if (snapshots.length > 0) {
    const { uuid: from, sizeBytes } = random.pick(snapshots);
    const request = { ...randomVolume(random, fresh), sizeBytes, thin: true };
    operations.push((state, uuids) => restoreVolume(state, from, request, uuids));
  }
  return random.pick(operations);
}

/** Something happens outside of decisions: nodes go and come, work is carried out, replicas go stale. */
function disturb(random: Random, cluster: PlannedCluster): void {
  if (random.chance(0.5)) {
    cluster.carryOut();
    giveUpExtra(cluster);
  }
  const nodeId = random.pick([...cluster.stored.nodes.keys()]);
  if (random.chance(0.15)) {
    cluster.setNode(nodeId, random.pick(["Online", "Online", "Offline", "Unknown"] as const));
  }
  if (random.chance(0.05)) {
    const cordonLabels = random.chance(0.5) ? ["x"] : [];
    cluster.edit("nodes", nodeId, { cordonLabels });
  }
  if (random.chance(0.05)) cluster.edit("nodes", nodeId, { labels: randomLabels(random) });
  const volumes = [...cluster.stored.volumes.values()].filter(({ status }) => status === "Created");
  if (volumes.length > 0 && random.chance(0.3)) cluster.rebuild(random.pick(volumes).uuid);
}

/** What reconciliation does about replicas that are too many. */
function giveUpExtra(cluster: PlannedCluster): void {
  for (const volume of [...cluster.stored.volumes.values()]) {
    if (volume.status !== "Created") continue;
    const victim = replicaToRemove(cluster.state(), volume);
    if (victim === null) continue;
    cluster.edit("replicas", victim.uuid, { status: "Deleting" });
    cluster.edit("volumes", volume.uuid, { victimReplica: null });
  }
}

// --------------------------------------------------------------------------------------------- the rules

/** Judges labels by itself, from the meaning in the contract. */
function fitsAlone(labels: Labels, topology: LabelledTopology): boolean {
  const included = Object.entries(topology.inclusion).every(
    ([key, value]) => key in labels && (value === "" || labels[key] === value),
  );
  const excluded = Object.entries(topology.exclusion).some(
    ([key, value]) => value !== "" && labels[key] === value,
  );
  return included && !excluded;
}

function fitTogether(all: readonly Labels[], topology: LabelledTopology): boolean {
  const valuesOf = (key: string) => all.map((labels) => labels[key]);
  const spread = Object.entries(topology.exclusion).every(([key, value]) => {
    return value !== "" || new Set(valuesOf(key)).size === all.length;
  });
  return spread && topology.affinityKey.every((key) => new Set(valuesOf(key)).size <= 1);
}

function replicasThatStay(stored: StoreView, volumeUuid: Uuid) {
  const victim = stored.volumes.get(volumeUuid)?.victimReplica;
  return [...(stored.replicasOfVolume.get(volumeUuid) ?? [])]
    .map((uuid) => stored.replicas.get(uuid)!)
    .filter(({ uuid, status }) => status !== "Deleting" && uuid !== victim);
}

function checkNodes(stored: StoreView): void {
  for (const { uuid } of stored.volumes.values()) {
    const nodes = replicasThatStay(stored, uuid).map(({ nodeId }) => nodeId);
    expect(new Set(nodes).size).toBe(nodes.length);
  }
}

function checkCapacity(cluster: PlannedCluster, takers: ReadonlySet<string>): void {
  const { stored, settings } = cluster;
  for (const pool of stored.pools.values()) {
    const replicas = [...(stored.replicasOfPool.get(pool.id) ?? [])].map(
      (uuid) => stored.replicas.get(uuid)!,
    );
    const { capacityBytes } = cluster.engines.get(pool.nodeId)!.pools.get(pool.id)!;
    const thick = replicas.filter(({ thin }) => !thin);
    const clusters = (bytes: number) => Math.ceil(deviceBytes(bytes) / CLUSTER_BYTES);
    const reserved = thick.reduce((sum, one) => sum + clusters(one.sizeBytes) * CLUSTER_BYTES, 0);
    expect(reserved).toBeLessThanOrEqual(capacityBytes);
    const promisesThin = replicas.some(({ uuid, thin }) => thin && takers.has(uuid));
    if (!promisesThin) continue;
    const committed = replicas.reduce((sum, one) => sum + deviceBytes(one.sizeBytes), 0);
    const limit = (capacityBytes * settings.poolCommitmentPercent) / 100;
    expect(committed).toBeLessThan(limit);
  }
}

/** What a decision has placed suits the volume's topology, the cordons and the affinity group. */
function checkPlaces(stored: StoreView, state: ClusterState, decision: Decision): void {
  for (const change of decision.changes) {
    if (change.table !== "replicas" || !("put" in change) || change.put.revision !== 0) continue;
    const { volumeUuid, nodeId, poolId } = change.put;
    const volume = stored.volumes.get(volumeUuid!)!;
    const [node, pool] = [state.stored.nodes.get(nodeId)!, state.stored.pools.get(poolId)!];
    expect(state.observed.get(nodeId)?.status).toBe("Online");
    expect(node.cordonLabels).toEqual([]);
    expect(pool.nodeId).toBe(nodeId);
    if (volume.affinityGroup !== null && volume.replicaCount === 1) {
      checkApart(stored, volume.uuid, volume.affinityGroup, nodeId);
    }
    const { node: nodes = null, pool: pools = null } = volume.topology ?? {};
    if (pools !== null) expect(fitsAlone(pool.labels, pools)).toBe(true);
    if (nodes === null) continue;
    if ("labelled" in nodes) {
      expect(fitsAlone(node.labels, nodes.labelled)).toBe(true);
    } else if (nodes.explicit.allowedNodes.length > 0) {
      expect(nodes.explicit.allowedNodes).toContain(nodeId);
    }
  }
}

function checkApart(stored: StoreView, uuid: Uuid, group: string, nodeId: string): void {
  for (const other of stored.volumes.values()) {
    if (other.uuid === uuid || other.affinityGroup !== group || other.replicaCount !== 1) continue;
    for (const replica of replicasThatStay(stored, other.uuid)) {
      expect(replica.nodeId).not.toBe(nodeId);
    }
  }
}

/** Of a volume that has just been created all replicas together suit the topology. */
function checkSets(stored: StoreView, decision: Decision): void {
  for (const change of decision.changes) {
    if (change.table !== "volumes" || !("put" in change) || change.put.revision !== 0) continue;
    const { uuid, topology, replicaCount } = change.put;
    const replicas = replicasThatStay(stored, uuid);
    expect(replicas).toHaveLength(replicaCount);
    const nodes = replicas.map(({ nodeId }) => stored.nodes.get(nodeId)!.labels);
    const pools = replicas.map(({ poolId }) => stored.pools.get(poolId)!.labels);
    if (topology?.pool) expect(fitTogether(pools, topology.pool)).toBe(true);
    if (topology?.node && "labelled" in topology.node) {
      expect(fitTogether(nodes, topology.node.labelled)).toBe(true);
    }
  }
}

/** Epochs only rise, and a volume has one open nexus, the one of its target. */
function checkTargets(stored: StoreView, epochs: Map<Uuid, number>): void {
  for (const { uuid, epoch, target } of stored.volumes.values()) {
    expect(epoch).toBeGreaterThanOrEqual(epochs.get(uuid) ?? 0);
    epochs.set(uuid, epoch);
    const open = [...(stored.nexusesOfVolume.get(uuid) ?? [])]
      .map((id) => stored.nexuses.get(id)!)
      .filter(({ phase }) => phase === "Open");
    expect(open.map((nexus) => nexus.uuid)).toEqual(target === null ? [] : [target.nexusUuid]);
    for (const nexus of open) {
      expect(nexus.epoch).toBe(epoch);
      expect(nexus.children.length).toBeGreaterThan(0);
    }
  }
}

// ------------------------------------------------------------------------------------------------ runs

function shuffled<K, V>(random: Random, map: ReadonlyMap<K, V>): Map<K, V> {
  const entries = [...map];
  for (let at = entries.length - 1; at > 0; at -= 1) {
    const other = random.below(at + 1);
    [entries[at], entries[other]] = [entries[other]!, entries[at]!];
  }
  return new Map(entries);
}

/** The same state, its maps in another order. */
function reordered(random: Random, state: ClusterState): ClusterState {
  const maps = Object.entries(state.stored).map(([name, value]) => {
    return [name, value instanceof Object && "get" in value ? shuffled(random, value) : value];
  });
  const stored = Object.fromEntries(maps) as StoreView;
  return { ...state, stored, observed: shuffled(random, state.observed) };
}

/** The decision, or null when it is refused as the contract knows it. */
function attempt(operation: Operation, state: ClusterState, uuids: Uuid[]): Decision | null {
  try {
    return operation(state, uuids);
  } catch (error) {
    if (!(error instanceof TrilithError)) throw error;
    expect(error.code).not.toBe("Internal");
    expect(error.message).not.toMatch(/undefined|NaN|\[object/);
    return null;
  }
}

/** Replicas that take room with a decision: new ones, and those that grow. */
function roomTakers(before: StoreView, decision: Decision): Set<string> {
  const uuids = decision.changes.flatMap((change) => {
    if (change.table !== "replicas" || !("put" in change)) return [];
    const { uuid, sizeBytes } = change.put;
    return sizeBytes > (before.replicas.get(uuid)?.sizeBytes ?? 0) ? [uuid] : [];
  });
  return new Set(uuids);
}

/** Decides several operations on one view; those that meet are refused by the store and made again. */
function runTogether(cluster: PlannedCluster, operations: readonly Operation[]): number {
  const state = cluster.state();
  const uuids = operations.map(() => cluster.uuids());
  const decisions = operations.map((operation, at) => attempt(operation, state, uuids[at]!));
  let applied = 0;
  decisions.forEach((first, at) => {
    let decision = first;
    let before = state;
    for (let tries = 0; decision !== null; tries += 1) {
      expect(tries).toBeLessThan(3);
      try {
        cluster.apply(decision);
        break;
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        before = cluster.state();
        decision = attempt(operations[at]!, before, uuids[at]!);
      }
    }
    if (decision === null || decision.changes.length === 0) return;
    applied += 1;
    checkNodes(cluster.stored);
    checkCapacity(cluster, roomTakers(before.stored, decision));
    checkPlaces(cluster.stored, before, decision);
    checkSets(cluster.stored, decision);
  });
  return applied;
}

describe("random clusters", () => {
  test("no rule of placement is ever broken", () => {
    withSeed(import.meta.path, (random) => {
      let applied = 0;
      for (let run = 0; run < CLUSTERS; run += 1) {
        const cluster = randomCluster(random);
        const epochs = new Map<Uuid, number>();
        for (let step = 0; step < STEPS; step += 1) {
          const count = random.chance(0.3) ? random.between(2, 5) : 1;
          const operations = Array.from({ length: count }, () => randomOperation(random, cluster));
          applied += runTogether(cluster, operations);
          checkTargets(cluster.stored, epochs);
          disturb(random, cluster);
        }
      }
      // The clusters are not all too small to do anything.
      expect(applied).toBeGreaterThan(CLUSTERS * 5);
    });
  });

  test("a decision depends on the state alone, not on the order of its maps, and leaves it as it is", () => {
    withSeed(import.meta.path, (random) => {
      let decided = 0;
      for (let run = 0; run < CLUSTERS / 2; run += 1) {
        const cluster = randomCluster(random);
        for (let step = 0; step < STEPS / 2; step += 1) {
          const operation = randomOperation(random, cluster);
          const uuids = cluster.uuids();
          const state = cluster.state();
          const text = JSON.stringify([...state.stored.volumes, ...state.stored.replicas]);
          const decision = attempt(operation, state, uuids);
          expect(attempt(operation, reordered(random, state), uuids)).toEqual(decision);
          expect(JSON.stringify([...state.stored.volumes, ...state.stored.replicas])).toBe(text);
          if (decision !== null) {
            decided += 1;
            cluster.apply(decision);
          }
          disturb(random, cluster);
        }
      }
      expect(decided).toBeGreaterThan(CLUSTERS);
    });
  });

  test("a creation asked for again is confirmed without a change, at any moment", () => {
    withSeed(import.meta.path, (random) => {
      let confirmed = 0;
      for (let run = 0; run < CLUSTERS; run += 1) {
        const cluster = randomCluster(random);
        for (let step = 0; step < 10; step += 1) {
          const request = randomVolume(random, cluster.uuid());
          const operation: Operation = (state, uuids) => createVolume(state, request, uuids);
          const decision = attempt(operation, cluster.state(), cluster.uuids());
          if (decision === null) continue;
          cluster.apply(decision);
          if (random.chance(0.5)) cluster.carryOut();
          const again = createVolume(cluster.state(), request, cluster.uuids());
          expect(again).toEqual({ changes: [], events: [] });
          confirmed += 1;
          disturb(random, cluster);
        }
      }
      expect(confirmed).toBeGreaterThan(CLUSTERS);
    });
  });

  test("as many replicas as can be placed are placed: a search by trial finds no more", () => {
    withSeed(import.meta.path, (random) => {
      let placeable = 0;
      for (let run = 0; run < CLUSTERS * 3; run += 1) {
        const cluster = randomCluster(random);
        const request = { ...randomVolume(random, cluster.uuid()), sizeBytes: MiB };
        if (contradictsItself(request.topology)) continue;
        const decision = attempt(
          (state, uuids) => createVolume(state, request, uuids),
          cluster.state(),
          cluster.uuids(),
        );
        const possible = canPlace(cluster.stored, request.replicaCount, request.topology);
        expect(decision !== null).toBe(possible);
        if (possible) placeable += 1;
      }
      expect(placeable).toBeGreaterThan(CLUSTERS / 2);
    });
  });
});

/** It is refused whatever the cluster is like. */
function contradictsItself(topology: Topology | null): boolean {
  const { node = null, pool = null } = topology ?? {};
  const rules = [pool, node !== null && "labelled" in node ? node.labelled : null];
  return rules.some((rule) => {
    if (rule === null) return false;
    const both = Object.entries(rule.inclusion).some(
      ([key, value]) => value !== "" && rule.exclusion[key] === value,
    );
    return both || rule.affinityKey.some((key) => rule.exclusion[key] === "");
  });
}

/** Tries every set of pools; an empty cluster with room for everything. */
function canPlace(stored: StoreView, count: number, topology: Topology | null): boolean {
  const nodes = topology?.node ?? null;
  const nodeLabels = nodes !== null && "labelled" in nodes ? nodes.labelled : null;
  const allowed = nodes !== null && "explicit" in nodes ? nodes.explicit.allowedNodes : [];
  const poolLabels = topology?.pool ?? null;
  const needed = (rule: LabelledTopology) => [
    ...Object.keys(rule.exclusion).filter((key) => rule.exclusion[key] === ""),
    ...rule.affinityKey,
  ];
  const has = (labels: Labels, rule: LabelledTopology | null) =>
    rule === null || (fitsAlone(labels, rule) && needed(rule).every((key) => key in labels));
  const pools = [...stored.pools.values()].filter((pool) => {
    const node = stored.nodes.get(pool.nodeId)!;
    const isAllowed = allowed.length === 0 || allowed.includes(node.id);
    return isAllowed && has(node.labels, nodeLabels) && has(pool.labels, poolLabels);
  });
  const rest = (from: number, chosen: typeof pools): boolean => {
    const owners = chosen.map(({ nodeId }) => stored.nodes.get(nodeId)!);
    if (new Set(owners).size < owners.length) return false;
    if (
      nodeLabels &&
      !fitTogether(
        owners.map(({ labels }) => labels),
        nodeLabels,
      )
    )
      return false;
    if (
      poolLabels &&
      !fitTogether(
        chosen.map(({ labels }) => labels),
        poolLabels,
      )
    )
      return false;
    if (chosen.length === count) return true;
    for (let at = from; at < pools.length; at += 1) {
      if (rest(at + 1, [...chosen, pools[at]!])) return true;
    }
    return false;
  };
  return rest(0, []);
}
