/** Finds records of the store, with the errors of the API when they are not there. */
import type { ClusterState, StoreView } from "../control/cluster-state.ts";
import type {
  NexusRecord,
  NodeRecord,
  PoolRecord,
  ReplicaRecord,
  SnapshotRecord,
  VolumeRecord,
} from "../control/model.ts";
import { notFound } from "./errors.ts";

function found<T>(record: T | undefined, what: string, id: string): T {
  if (record === undefined) throw notFound(what, id);
  return record;
}

export function nodeOf(state: ClusterState, id: string): NodeRecord {
  return found(state.stored.nodes.get(id), "node", id);
}

/** A pool; `nodeId`, when it is given, is the node that it has to be on. */
export function poolOf(state: ClusterState, id: string, nodeId?: string): PoolRecord {
  const pool = found(state.stored.pools.get(id), "pool", id);
  if (nodeId !== undefined && pool.nodeId !== nodeId) throw notFound(`pool on ${nodeId}`, id);
  return pool;
}

export function replicaOf(
  state: ClusterState,
  uuid: string,
  where: { readonly poolId?: string; readonly nodeId?: string } = {},
): ReplicaRecord {
  const replica = found(state.stored.replicas.get(uuid), "replica", uuid);
  if (where.poolId !== undefined && replica.poolId !== where.poolId) {
    throw notFound(`replica in pool ${where.poolId}`, uuid);
  }
  if (where.nodeId !== undefined && replica.nodeId !== where.nodeId) {
    throw notFound(`replica on ${where.nodeId}`, uuid);
  }
  return replica;
}

export function nexusOf(state: ClusterState, uuid: string, nodeId?: string): NexusRecord {
  const nexus = found(state.stored.nexuses.get(uuid), "nexus", uuid);
  if (nodeId !== undefined && nexus.nodeId !== nodeId) throw notFound(`nexus on ${nodeId}`, uuid);
  return nexus;
}

export function volumeOf(state: ClusterState, uuid: string): VolumeRecord {
  return found(state.stored.volumes.get(uuid), "volume", uuid);
}

/** A snapshot; `volumeUuid`, when it is given, is the volume that it has to be of. */
export function snapshotOf(state: ClusterState, uuid: string, volumeUuid?: string): SnapshotRecord {
  const snapshot = found(state.stored.snapshots.get(uuid), "snapshot", uuid);
  if (volumeUuid !== undefined && snapshot.volumeUuid !== volumeUuid) {
    throw notFound(`snapshot of volume ${volumeUuid}`, uuid);
  }
  return snapshot;
}

/** Tables that are listed. */
type Listed = "nodes" | "pools" | "replicas" | "nexuses" | "volumes" | "snapshots" | "appNodes";
type RecordOf<T extends Listed> = StoreView[T] extends ReadonlyMap<string, infer R> ? R : never;

interface Sorted {
  readonly appliedIndex: number;
  readonly records: readonly unknown[];
}
const sortedOf = new WeakMap<ReadonlyMap<string, unknown>, Sorted>();

/** All records of a table by key: an order that pages can be cut from. */
export function sorted<T extends Listed>(view: StoreView, name: T): readonly RecordOf<T>[] {
  const table: ReadonlyMap<string, unknown> = view[name];
  const known = sortedOf.get(table);
  if (known?.appliedIndex === view.appliedIndex)
    return known.records as unknown as readonly RecordOf<T>[];
  const records = [...table.keys()].sort().map((key) => table.get(key)!);
  sortedOf.set(table, { appliedIndex: view.appliedIndex, records });
  return records as unknown as readonly RecordOf<T>[];
}

export interface Page<T> {
  readonly entries: readonly T[];
  readonly next_token?: number;
}

/** A page of a list (mayastor.md 1.1): the token is an offset; 0 entries means all. */
export function pageOf<T>(
  list: readonly T[],
  query: { readonly max_entries: number; readonly starting_token: number },
): Page<T> {
  const { max_entries, starting_token } = query;
  const end = max_entries === 0 ? list.length : starting_token + max_entries;
  const entries = list.slice(starting_token, end);
  return end < list.length ? { entries, next_token: end } : { entries };
}
