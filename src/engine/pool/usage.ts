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
  /** The same with the snapshots that it comes from as a clone. */
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

/**
 * The snapshots that an object's content went through before it branched off: of the snapshot it was
 * cloned from that one and the earlier ones of the same source, and so on upwards. Oldest first.
 */
function ancestry(state: PoolState, object: PoolObject): PoolObject[] {
  const origin = state.objects.get(object.origin);
  if (origin === undefined) return [];
  if (object.kind === KIND_SNAPSHOT) {
    const before = snapshotsOf(state, origin).filter((other) => other.id < object.id);
    return [...ancestry(state, origin), ...before];
  }
  return [...ancestry(state, origin), origin];
}

/**
 * Clusters of `object` that `before` does not have. Along one line of history an index never comes
 * back to a cluster it has left, so comparing neighbours in time is enough to count each once.
 */
function clustersSince(object: PoolObject, before: PoolObject | undefined): number {
  if (before === undefined) return object.mapped;
  const [map, old] = [object.map, before.map];
  let count = 0;
  for (let i = 0; i < map.length; i++) {
    const entry = map[i]!;
    if (entry < 0) continue;
    const oldEntry = i < old.length ? old[i]! : -1;
    if (oldEntry < 0 || (oldEntry & CLUSTER_MASK) !== (entry & CLUSTER_MASK)) count++;
  }
  return count;
}

interface Counted {
  readonly version: number;
  readonly clusters: number;
}

const kept = new WeakMap<PoolObject, Counted>();

/** Clusters that came with a snapshot. Snapshots do not change: counted once per set of objects. */
function broughtBy(state: PoolState, snapshot: PoolObject, before: PoolObject | undefined): number {
  const found = kept.get(snapshot);
  if (found !== undefined && found.version === state.version) return found.clusters;
  const clusters = clustersSince(snapshot, before);
  kept.set(snapshot, { version: state.version, clusters });
  return clusters;
}

/** Clusters that a line of snapshots, oldest first, holds after `before`. */
function broughtByAll(
  state: PoolState,
  line: readonly PoolObject[],
  before: PoolObject | undefined,
): number {
  let clusters = 0;
  let previous = before;
  for (const snapshot of line) {
    clusters += broughtBy(state, snapshot, previous);
    previous = snapshot;
  }
  return clusters;
}

/** Clusters of a replica that none of the snapshots it comes from holds. */
function ownClusters(state: PoolState, object: PoolObject, last: PoolObject | undefined): number {
  const family = state.families.get(object.family) ?? [];
  const isOnly = family.every((other) => other === object || other.kind === KIND_SNAPSHOT);
  // Without clones around, what is shared is shared with snapshots.
  return isOnly ? object.mapped - object.shared : clustersSince(object, last);
}

/**
 * Space of a replica. Takes constant time, but for replicas with clones around them, and for the
 * first call after an object was made or deleted.
 */
export function replicaUsage(state: PoolState, object: PoolObject): SpaceUsage {
  const { clusterBytes } = state;
  const earlier = ancestry(state, object);
  const own = snapshotsOf(state, object);
  const last = own.at(-1) ?? earlier.at(-1);
  const bySnapshots = broughtByAll(state, own, earlier.at(-1));
  const clusters = object.map.length;
  const allocated = object.thin ? ownClusters(state, object, last) : clusters;
  return {
    capacityBytes: object.sizeBytes,
    allocatedBytes: allocated * clusterBytes,
    allocatedBytesSnapshots: bySnapshots * clusterBytes,
    allocatedBytesAllSnapshots:
      (bySnapshots + broughtByAll(state, earlier, undefined)) * clusterBytes,
    clusterBytes,
    clusters,
    allocatedClusters: allocated,
  };
}

/** Space of a snapshot. */
export function snapshotUsage(state: PoolState, object: PoolObject): SnapshotUsage {
  const { clusterBytes } = state;
  const earlier = ancestry(state, object);
  return {
    referencedBytes: object.mapped * clusterBytes,
    allocatedBytes: broughtBy(state, object, earlier.at(-1)) * clusterBytes,
    predecessorBytes: broughtByAll(state, earlier, undefined) * clusterBytes,
    exclusiveBytes: (object.mapped - object.shared) * clusterBytes,
  };
}
