/**
 * How much of a pool each replica and snapshot takes. Pure.
 *
 * Every physical cluster is counted for the oldest object of its family that refers to it: what a
 * snapshot holds is counted there, what was written since is counted for the replica. Sums over a
 * replica and its snapshots count no cluster twice.
 */
import { KIND_SNAPSHOT } from "./records.ts";
import { CLUSTER_MASK, type PoolObject, type PoolState } from "./state.ts";

/** Space of one replica, as Mayastor's ReplicaSpaceUsage reports it. */
export interface SpaceUsage {
  readonly capacityBytes: number;
  /** Bytes of the replica alone; all of its capacity when it is thick. */
  readonly allocatedBytes: number;
  /** Bytes that snapshots of this replica hold. */
  readonly allocatedBytesSnapshots: number;
  /** The same with those of everything it was cloned from. */
  readonly allocatedBytesAllSnapshots: number;
  readonly clusterBytes: number;
  readonly clusters: number;
  readonly allocatedClusters: number;
}

/** Space of one snapshot. */
export interface SnapshotUsage {
  /** Bytes it refers to, alone or not. */
  readonly referencedBytes: number;
  /** Bytes that came with it: what its predecessors do not hold. */
  readonly allocatedBytes: number;
  /** Bytes that its predecessors hold, without this one. */
  readonly predecessorBytes: number;
  /** Bytes that deleting it would free. */
  readonly exclusiveBytes: number;
}

/** Snapshots that were taken of an object, oldest first. */
export function snapshotsOf(state: PoolState, object: PoolObject): PoolObject[] {
  const family = state.families.get(object.family) ?? [];
  return family
    .filter((other) => other.kind === KIND_SNAPSHOT && other.origin === object.id)
    .sort((a, b) => a.id - b.id);
}

/** Distinct clusters that the objects refer to and `except` do not. */
function distinctClusters(objects: readonly PoolObject[], except: readonly PoolObject[]): number {
  const seen = new Set<number>();
  const longest = Math.max(0, ...objects.map((object) => object.map.length));
  let count = 0;
  // Objects of a family share a cluster at one index only, so each index can be counted alone.
  for (let i = 0; i < longest; i++) {
    seen.clear();
    for (const object of except) if (i < object.map.length) seen.add(clusterAt(object, i));
    seen.add(-1);
    for (const object of objects) {
      if (i >= object.map.length) continue;
      const cluster = clusterAt(object, i);
      if (seen.has(cluster)) continue;
      seen.add(cluster);
      count++;
    }
  }
  return count;
}

function clusterAt(object: PoolObject, index: number): number {
  const entry = object.map[index]!;
  return entry < 0 ? -1 : entry & CLUSTER_MASK;
}

/** Everything an object was made from that still exists, nearest first. */
function ancestorsOf(state: PoolState, object: PoolObject): PoolObject[] {
  const ancestors: PoolObject[] = [];
  let origin = state.objects.get(object.origin);
  while (origin !== undefined) {
    ancestors.push(origin);
    origin = state.objects.get(origin.origin);
  }
  return ancestors;
}

/** Snapshots from which the content of an object comes: its own and those of its ancestors. */
function allSnapshotsOf(state: PoolState, object: PoolObject): PoolObject[] {
  const found = new Set(snapshotsOf(state, object));
  for (const ancestor of ancestorsOf(state, object)) {
    if (ancestor.kind === KIND_SNAPSHOT) found.add(ancestor);
    for (const snapshot of snapshotsOf(state, ancestor)) {
      // Snapshots that were taken after the clone was made have nothing to do with it.
      if (snapshot.id < object.id) found.add(snapshot);
    }
  }
  return [...found];
}

interface SnapshotBytes {
  readonly version: number;
  readonly own: number;
  readonly all: number;
}

const kept = new WeakMap<PoolObject, SnapshotBytes>();

/** Clusters held by snapshots. Snapshots do not change, so this is counted once per set of objects. */
function snapshotClusters(state: PoolState, object: PoolObject, all: PoolObject[]): SnapshotBytes {
  const found = kept.get(object);
  if (found !== undefined && found.version === state.version) return found;
  const counted: SnapshotBytes = {
    version: state.version,
    own: distinctClusters(snapshotsOf(state, object), []),
    all: distinctClusters(all, []),
  };
  kept.set(object, counted);
  return counted;
}

/** Clusters of a replica that none of the snapshots it comes from holds. */
function ownClusters(state: PoolState, object: PoolObject, all: PoolObject[]): number {
  if (all.length === 0) return object.mapped;
  const family = state.families.get(object.family) ?? [];
  const isOnly = family.every((other) => other === object || other.kind === KIND_SNAPSHOT);
  // Without clones around, what is shared is shared with snapshots.
  return isOnly ? object.mapped - object.shared : distinctClusters([object], all);
}

/**
 * Space of a replica. Takes constant time, but for replicas with clones around them, and for the
 * first call after an object was made or deleted.
 */
export function replicaUsage(state: PoolState, object: PoolObject): SpaceUsage {
  const { clusterBytes } = state;
  const all = allSnapshotsOf(state, object);
  const snapshots = snapshotClusters(state, object, all);
  const clusters = object.map.length;
  const allocated = object.thin ? ownClusters(state, object, all) : clusters;
  return {
    capacityBytes: object.sizeBytes,
    allocatedBytes: allocated * clusterBytes,
    allocatedBytesSnapshots: snapshots.own * clusterBytes,
    allocatedBytesAllSnapshots: snapshots.all * clusterBytes,
    clusterBytes,
    clusters,
    allocatedClusters: allocated,
  };
}

/** Space of a snapshot. */
export function snapshotUsage(state: PoolState, object: PoolObject): SnapshotUsage {
  const { clusterBytes } = state;
  const source = state.objects.get(object.origin);
  const family = state.families.get(object.family) ?? [];
  const predecessors = (source === undefined ? family : snapshotsOf(state, source)).filter(
    (other) =>
      other.kind === KIND_SNAPSHOT && other.origin === object.origin && other.id < object.id,
  );
  return {
    referencedBytes: object.mapped * clusterBytes,
    allocatedBytes: distinctClusters([object], predecessors) * clusterBytes,
    predecessorBytes: distinctClusters(predecessors, []) * clusterBytes,
    exclusiveBytes: (object.mapped - object.shared) * clusterBytes,
  };
}
