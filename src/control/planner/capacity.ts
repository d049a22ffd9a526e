/**
 * What pools have room for (mayastor.md 5.1, 5.2): the commitment rules of thick and thin replicas. Pure.
 *
 * Engines report what is there; replicas that are recorded and not made yet (or not grown yet) take
 * their room as well. So room is never promised twice, however many creations are under way, provided
 * that each decision touches the pools it takes room in.
 */
import type { ClusterSettings, ClusterState, EnginePool, EngineReplica } from "../cluster-state.ts";
import type { PoolId, PoolRecord, ReplicaRecord, Uuid } from "../model.ts";
import { DEVICE_ALIGNMENT_BYTES, THIN_FREE_BYTES_MIN } from "./limits.ts";

/** Size of the device of a volume or replica: whole blocks of every pool's block size. */
export function deviceBytes(sizeBytes: number): number {
  return Math.ceil(sizeBytes / DEVICE_ALIGNMENT_BYTES) * DEVICE_ALIGNMENT_BYTES;
}

/** Room of a pool in bytes, with everything counted in that is recorded. */
export interface PoolRoom {
  readonly poolId: PoolId;
  readonly capacityBytes: number;
  readonly usedBytes: number;
  /** Never below 0. */
  readonly freeBytes: number;
  /** Sizes of all replicas, and what snapshots hold alone. */
  readonly committedBytes: number;
  readonly clusterBytes: number;
  /** Replicas that are recorded in it. */
  readonly replicas: number;
}

function wholeClusters(bytes: number, clusterBytes: number): number {
  return Math.ceil(bytes / clusterBytes) * clusterBytes;
}

/** A room that was summed, and what it was summed of. */
interface Summed {
  readonly pool: PoolRecord;
  readonly recorded: ReadonlySet<Uuid> | undefined;
  readonly seenReplicas: ReadonlyMap<Uuid, EngineReplica>;
  readonly room: PoolRoom;
}

/**
 * Rooms by what the engine reports of the pool. Records and reports never change in place, so a sum
 * stays right while its parts are the same objects. That a replica's size or provisioning changed does
 * not show in them: whoever changes those touches the pool.
 */
const summed = new WeakMap<EnginePool, Summed>();

/** Room of a pool as last reported; null: its engine has never reported it. */
export function poolRoom(state: ClusterState, poolId: PoolId): PoolRoom | null {
  const pool = state.stored.pools.get(poolId);
  const observed = pool === undefined ? undefined : state.observed.get(pool.nodeId);
  const seen = observed?.pools.get(poolId);
  if (pool === undefined || observed === undefined || seen === undefined) return null;
  const recorded = state.stored.replicasOfPool.get(poolId);
  const known = summed.get(seen);
  if (
    known?.pool === pool &&
    known.recorded === recorded &&
    known.seenReplicas === observed.replicas
  ) {
    return known.room;
  }
  const room = sumRoom(state, seen, recorded ?? new Set(), observed.replicas);
  summed.set(seen, { pool, recorded, seenReplicas: observed.replicas, room });
  return room;
}

function sumRoom(
  state: ClusterState,
  seen: EnginePool,
  recorded: ReadonlySet<Uuid>,
  seenReplicas: ReadonlyMap<Uuid, EngineReplica>,
): PoolRoom {
  const sums = { pendingUsed: 0, pendingCommitted: 0, heldUsed: 0, heldCommitted: 0 };
  for (const uuid of recorded) {
    const replica = state.stored.replicas.get(uuid);
    if (replica !== undefined) addReplica(sums, replica, seen, seenReplicas.get(uuid));
  }
  // Pools and replicas are asked one after the other: what is recorded is a floor beneath a stale sum.
  const usedBytes = Math.max(seen.usedBytes + sums.pendingUsed, sums.heldUsed);
  return {
    poolId: seen.name,
    capacityBytes: seen.capacityBytes,
    usedBytes,
    freeBytes: Math.max(0, seen.capacityBytes - usedBytes),
    committedBytes: Math.max(seen.committedBytes + sums.pendingCommitted, sums.heldCommitted),
    clusterBytes: seen.clusterSizeBytes,
    replicas: recorded.size,
  };
}

interface Sums {
  pendingUsed: number;
  pendingCommitted: number;
  heldUsed: number;
  heldCommitted: number;
}

function addReplica(
  sums: Sums,
  replica: ReplicaRecord,
  pool: EnginePool,
  seen:
    | { readonly sizeBytes: number; readonly space: { readonly allocatedBytes: number } }
    | undefined,
): void {
  const cluster = pool.clusterSizeBytes;
  const bytes = deviceBytes(replica.sizeBytes);
  const missing = Math.max(0, bytes - (seen?.sizeBytes ?? 0));
  sums.pendingCommitted += missing;
  sums.heldCommitted += bytes;
  if (replica.thin) {
    sums.heldUsed += seen?.space.allocatedBytes ?? 0;
    return;
  }
  const seenBytes = wholeClusters(seen?.sizeBytes ?? 0, cluster);
  sums.pendingUsed += Math.max(0, wholeClusters(bytes, cluster) - seenBytes);
  sums.heldUsed += wholeClusters(bytes, cluster);
}

/** What a replica would take. */
export interface RoomNeeded {
  readonly sizeBytes: number;
  readonly thin: boolean;
  /** What it will hold at once: that of the replica it is a copy of. */
  readonly allocatedBytes: number;
  /** Room that a thin replica needs beyond that, of its size. */
  readonly commitmentPercent: number;
}

function gib(bytes: number): string {
  if (bytes >= 2 ** 30) return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  if (bytes >= 2 ** 20) return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  return `${bytes} B`;
}

/** A pool has room for a new replica. */
export function hasRoom(settings: ClusterSettings, room: PoolRoom, needed: RoomNeeded): boolean {
  return whyNoRoom(settings, room, needed) === null;
}

/** Why a pool has no room for a new replica; null: it has. */
export function whyNoRoom(
  settings: ClusterSettings,
  room: PoolRoom,
  needed: RoomNeeded,
): string | null {
  const bytes = deviceBytes(needed.sizeBytes);
  if (bytes > room.capacityBytes) {
    return `its capacity is ${gib(room.capacityBytes)}, ${gib(bytes)} needed`;
  }
  if (!needed.thin) {
    const reserved = wholeClusters(bytes, room.clusterBytes);
    return reserved <= room.freeBytes
      ? null
      : `${gib(room.freeBytes)} free, ${gib(reserved)} needed`;
  }
  if (room.freeBytes <= THIN_FREE_BYTES_MIN) {
    return `${gib(room.freeBytes)} free, a thin replica needs more than ${gib(THIN_FREE_BYTES_MIN)}`;
  }
  const overCommitted = whyOverCommitted(settings, room, bytes);
  if (overCommitted !== null) return overCommitted;
  const spare = needed.allocatedBytes + (bytes * needed.commitmentPercent) / 100;
  const free = Math.min(spare, bytes);
  return room.freeBytes > free ? null : `${gib(room.freeBytes)} free, ${gib(free)} needed`;
}

/** Why `bytes` more cannot be promised of a pool to thin replicas; null: they can. */
function whyOverCommitted(settings: ClusterSettings, room: PoolRoom, bytes: number): string | null {
  const limit = (settings.poolCommitmentPercent * room.capacityBytes) / 100;
  return room.committedBytes + bytes < limit
    ? null
    : `${gib(room.committedBytes)} committed, limit ${gib(limit)} (${settings.poolCommitmentPercent}% of its capacity)`;
}

/** Why a replica in this pool cannot grow from one size to another; null: it can. */
export function whyNoRoomToGrow(
  settings: ClusterSettings,
  room: PoolRoom,
  replica: { readonly sizeBytes: number; readonly thin: boolean },
  sizeBytes: number,
): string | null {
  const before = deviceBytes(replica.sizeBytes);
  const after = deviceBytes(sizeBytes);
  if (after > room.capacityBytes) {
    return `its capacity is ${gib(room.capacityBytes)}, ${gib(after)} needed`;
  }
  if (replica.thin) return whyOverCommitted(settings, room, after - before);
  const more = wholeClusters(after, room.clusterBytes) - wholeClusters(before, room.clusterBytes);
  return more <= room.freeBytes ? null : `${gib(room.freeBytes)} free, ${gib(more)} needed`;
}

/** Why a snapshot of a replica of this size cannot be taken in the pool; null: it can. */
export function whyNoRoomForSnapshot(
  settings: ClusterSettings,
  room: PoolRoom,
  sizeBytes: number,
): string | null {
  const needed = (deviceBytes(sizeBytes) * settings.snapshotCommitmentPercent) / 100;
  return room.freeBytes > needed ? null : `${gib(room.freeBytes)} free, ${gib(needed)} needed`;
}

/** Most that any replica of the volume holds: what a copy of it will hold. */
export function largestAllocation(state: ClusterState, replicas: readonly ReplicaRecord[]): number {
  let largest = 0;
  for (const replica of replicas) {
    const seen = state.observed.get(replica.nodeId)?.replicas.get(replica.uuid);
    largest = Math.max(largest, seen?.space.allocatedBytes ?? 0);
  }
  return largest;
}
