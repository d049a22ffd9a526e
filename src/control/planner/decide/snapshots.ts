/** Snapshots of volumes, and volumes out of them. */
import { TrilithError } from "../../../errors.ts";
import type { ClusterState } from "../../cluster-state.ts";
import type { CreateVolumeRequest } from "../../control.ts";
import type { SnapshotRecord, Uuid, VolumeRecord } from "../../model.ts";
import { poolRoom, whyNoRoomForSnapshot } from "../capacity.ts";
import { SNAPSHOT_ATTEMPTS_MAX } from "../limits.ts";
import { requirePools } from "../placement/place.ts";
import type { Change, Decision } from "../plan.ts";
import { isReplicaUsable, replicasOf, volumeStatus } from "../status.ts";
import { checkUuid } from "./arguments.ts";
import { event, type FreshUuids, fresh, nothing, put, touch } from "./changes.ts";
import {
  deleting,
  invalid,
  notFound,
  precondition,
  requireSnapshot,
  requireVolume,
} from "./errors.ts";
import {
  checkCreateLimit,
  checkVolumeRequest,
  confirmsVolume,
  newReplica,
  newVolume,
  placementOf,
  touchPlaces,
} from "./volumes.ts";

/**
 * Records a snapshot of all replicas of a volume as `Creating`; the volume is thin from then on. Throws
 * `NotFound`, `Conflict` (the id is another volume's snapshot), `OutOfRange` (as many as allowed),
 * `FailedPrecondition` (a replica is missing or lacks data), `ResourceExhausted` (no room, or too many
 * attempts that are not finished).
 */
export function createSnapshot(
  state: ClusterState,
  volumeUuid: Uuid,
  uuid: Uuid,
  uuids: FreshUuids,
): Decision {
  checkUuid("snapshot", uuid);
  const there = state.stored.snapshots.get(uuid);
  if (there !== undefined) {
    if (there.status === "Deleting") throw deleting(`snapshot ${uuid}`);
    if (there.volumeUuid === volumeUuid) return nothing;
    throw new TrilithError(
      "Conflict",
      `snapshot ${uuid} is one of volume ${there.volumeUuid}`,
      "use another id",
    );
  }
  const volume = requireVolume(state, volumeUuid);
  checkSnapshotCounts(state, volume);
  const replicas = replicasOf(state, volumeUuid).filter(({ status }) => status !== "Deleting");
  const usable = replicas.filter((replica) => isReplicaUsable(state, replica));
  const status = volumeStatus(state, volume);
  if (usable.length < volume.replicaCount || (volume.target !== null && status !== "Online")) {
    throw precondition(
      `volume ${volumeUuid} is ${status}: ${usable.length} of its ${volume.replicaCount} replicas are healthy and there`,
      "wait until it is Online",
    );
  }
  if (volume.target === null && !volume.cleanShutdown && usable.length > 1) {
    // Writes that were never acknowledged may have reached some of its replicas and not others.
    throw precondition(
      `volume ${volumeUuid} was not closed in order: its replicas may differ`,
      "publish it, and snapshot it then",
    );
  }
  const tight = usable.flatMap(({ poolId }) => {
    const room = poolRoom(state, poolId);
    const why =
      room === null ? "not reported" : whyNoRoomForSnapshot(state.settings, room, volume.sizeBytes);
    return why === null ? [] : [`${poolId}: no room (${why})`];
  });
  if (tight.length > 0) {
    throw new TrilithError(
      "ResourceExhausted",
      `volume ${volumeUuid} cannot be snapshotted; ${tight.join("; ")}`,
      "free space in these pools, or grow them",
    );
  }
  const snapshot: SnapshotRecord = {
    revision: 0,
    uuid,
    volumeUuid,
    sizeBytes: volume.sizeBytes,
    status: "Creating",
    txnId: 1,
    replicas: usable.map((replica, at) => ({
      uuid: fresh(uuids, at),
      sourceUuid: replica.uuid,
      poolId: replica.poolId,
      nodeId: replica.nodeId,
      status: "Creating",
    })),
    takenAtMs: null,
    createdAtMs: state.nowMs,
  };
  const operation = { operation: "CreateSnapshot", result: null } as const;
  const changes: Change[] = [
    put("snapshots", snapshot),
    put("volumes", { ...volume, asThin: volume.asThin || !volume.thin, operation }),
  ];
  for (const { poolId } of usable) {
    const pool = state.stored.pools.get(poolId);
    if (pool !== undefined) changes.push(touch("pools", pool));
  }
  return { changes, events: [] };
}

function checkSnapshotCounts(state: ClusterState, volume: VolumeRecord): void {
  let kept = 0;
  let open = 0;
  for (const uuid of state.stored.snapshotsOfVolume.get(volume.uuid) ?? []) {
    const snapshot = state.stored.snapshots.get(uuid);
    if (snapshot === undefined || snapshot.status === "Deleting") continue;
    kept += 1;
    if (snapshot.status === "Creating") open += 1;
  }
  if (volume.maxSnapshots !== null && kept >= volume.maxSnapshots) {
    throw new TrilithError(
      "OutOfRange",
      `volume ${volume.uuid} has ${kept} snapshots, ${volume.maxSnapshots} are allowed`,
      "delete a snapshot, or allow more: trilith set volume <id> max-snapshots <n>",
    );
  }
  if (open >= SNAPSHOT_ATTEMPTS_MAX) {
    throw new TrilithError(
      "ResourceExhausted",
      `${open} snapshots of volume ${volume.uuid} are being taken`,
      "try again in a moment",
    );
  }
}

/**
 * Records that a snapshot goes; what clones share with it stays theirs. `volumeUuid` null: of whatever
 * volume. Throws `NotFound`, `InUse` (a volume is being made of it).
 */
export function destroySnapshot(
  state: ClusterState,
  uuid: Uuid,
  volumeUuid: Uuid | null,
): Decision {
  const snapshot = requireSnapshot(state, uuid);
  if (volumeUuid !== null && snapshot.volumeUuid !== volumeUuid) {
    throw notFound(`snapshot ${uuid} of volume ${volumeUuid}`, "volume-snapshots");
  }
  if (snapshot.status === "Deleting") return nothing;
  for (const { status, contentSource, uuid: made } of state.stored.volumes.values()) {
    if (status !== "Creating" || contentSource?.snapshotUuid !== uuid) continue;
    throw new TrilithError(
      "InUse",
      `volume ${made} is being made of snapshot ${uuid}`,
      "wait until that is done",
    );
  }
  const message = `of volume ${snapshot.volumeUuid}: its destruction was asked for`;
  return {
    changes: [put("snapshots", { ...snapshot, status: "Deleting" })],
    events: [event("Snapshot", "StateChange", uuid, message)],
  };
}

/**
 * Records a volume whose replicas are clones of a snapshot's, each in the pool of its origin. Throws as
 * `createVolume`, and `NotFound`, `FailedPrecondition` (the snapshot is not finished),
 * `InvalidArgument` (thick, or more replicas than the snapshot has), `OutOfRange` (another size).
 */
export function restoreVolume(
  state: ClusterState,
  snapshotUuid: Uuid,
  request: CreateVolumeRequest,
  uuids: FreshUuids,
): Decision {
  checkVolumeRequest(request);
  const snapshot = requireSnapshot(state, snapshotUuid);
  if (confirmsVolume(state, request, snapshotUuid)) return nothing;
  if (snapshot.status === "Deleting") throw deleting(`snapshot ${snapshotUuid}`);
  if (snapshot.status === "Creating") {
    throw precondition(`snapshot ${snapshotUuid} is not taken yet`, "wait until it is");
  }
  if (!request.thin) {
    throw invalid(`volume ${request.uuid}: what is made of a snapshot is thin`, "set thin");
  }
  if (request.sizeBytes !== snapshot.sizeBytes) {
    throw new TrilithError(
      "OutOfRange",
      `volume ${request.uuid}: the snapshot has ${snapshot.sizeBytes} bytes, not ${request.sizeBytes}`,
      "ask for the snapshot's size, and resize the volume afterwards",
    );
  }
  const origins = new Map(
    snapshot.replicas.flatMap((one) => (one.status === "Created" ? [[one.poolId, one]] : [])),
  );
  if (request.replicaCount > origins.size) {
    throw invalid(
      `volume ${request.uuid}: snapshot ${snapshotUuid} has ${origins.size} replicas, not ${request.replicaCount}`,
      "ask for as many at most, and raise the count afterwards",
    );
  }
  checkCreateLimit(state);
  const contentSource = { snapshotUuid, volumeUuid: snapshot.volumeUuid };
  const volume = newVolume(state, request, contentSource);
  const placement = {
    ...placementOf(state, volume, volume.replicaCount, [], 0),
    onlyPools: new Set(origins.keys()),
  };
  const places = requirePools(state, placement, `volume ${volume.uuid} of ${snapshotUuid}`);
  const changes: Change[] = [put("volumes", volume), touch("snapshots", snapshot)];
  places.forEach((place, at) => {
    const clone = {
      ...newReplica(state, volume, fresh(uuids, at), place, true),
      kind: "SnapshotClone" as const,
      snapshotUuid: origins.get(place.pool.id)!.uuid,
    };
    changes.push(put("replicas", clone));
  });
  return { changes: [...changes, ...touchPlaces(volume, places)], events: [] };
}
