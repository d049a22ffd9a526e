/** Creation (also out of a snapshot) and destruction of volumes. */
import { TrilithError } from "../../../errors.ts";
import type { ClusterState } from "../../cluster-state.ts";
import type { CreateVolumeRequest } from "../../control.ts";
import type { NodeRecord, PoolRecord, ReplicaRecord, Uuid, VolumeRecord } from "../../model.ts";
import { LABELS_MAX } from "../limits.ts";
import type { PlacementRequest } from "../placement/filters.ts";
import { requirePools } from "../placement/place.ts";
import type { Change, Decision } from "../plan.ts";
import { nexusesOf, replicasOf } from "../status.ts";
import {
  checkMaxSnapshots,
  checkReplicaCount,
  checkSize,
  checkText,
  checkTopology,
  checkUuid,
} from "./arguments.ts";
import { differing, event, type FreshUuids, fresh, nothing, put, touch } from "./changes.ts";
import { conflict, deleting, invalid, notFound } from "./errors.ts";

/** Throws `InvalidArgument` for what can be judged by itself. */
export function checkVolumeRequest(request: CreateVolumeRequest): void {
  checkUuid("volume", request.uuid);
  checkSize(`volume ${request.uuid}`, request.sizeBytes);
  checkReplicaCount(request.replicaCount);
  checkMaxSnapshots(request.maxSnapshots);
  checkTopology(request.topology);
  if (request.affinityGroup !== null) checkText("affinity group", request.affinityGroup);
  if (Object.keys(request.labels).length > LABELS_MAX)
    throw invalid(`more than ${LABELS_MAX} labels`);
}

/**
 * True: an equal volume is there. Throws `Conflict` when one is there that differs (in what was asked
 * for, or in what it was made of), `Deleting` when it is on its way out.
 */
export function confirmsVolume(
  state: ClusterState,
  request: CreateVolumeRequest,
  snapshotUuid: Uuid | null,
): boolean {
  const there = state.stored.volumes.get(request.uuid);
  if (there === undefined) return false;
  if (there.status === "Deleting") throw deleting(`volume ${request.uuid}`);
  const fields = differing(request, { ...there });
  if ((there.contentSource?.snapshotUuid ?? null) !== snapshotUuid) fields.push("contentSource");
  if (fields.length > 0) throw conflict(`volume ${request.uuid}`, fields);
  return true;
}

/** Throws `Aborted` when as many volumes as allowed are being created. */
export function checkCreateLimit(state: ClusterState): void {
  const limit = state.settings.maxVolumeCreates;
  let under = 0;
  for (const { status } of state.stored.volumes.values()) if (status === "Creating") under += 1;
  if (under < limit) return;
  throw new TrilithError(
    "Aborted",
    `${under} volumes are being created, ${limit} at a time are allowed`,
    "try again in a moment",
  );
}

export function newVolume(
  state: ClusterState,
  request: CreateVolumeRequest,
  contentSource: VolumeRecord["contentSource"],
): VolumeRecord {
  return {
    ...request,
    revision: 0,
    asThin: false,
    contentSource,
    status: "Creating",
    target: null,
    epoch: 0,
    incarnation: 0,
    cleanShutdown: true,
    victimReplica: null,
    operation: { operation: "Create", result: null },
    createdAtMs: state.nowMs,
  };
}

/** Replicas of this volume are thin: by request, or since its first snapshot. */
export function isThin(volume: VolumeRecord): boolean {
  return volume.thin || volume.asThin;
}

/** A replica that is to be made. `healthy`: it holds all there is, for nothing was written yet. */
export function newReplica(
  state: ClusterState,
  volume: VolumeRecord,
  uuid: Uuid,
  place: { readonly pool: { readonly id: string }; readonly node: { readonly id: string } },
  healthy: boolean,
): ReplicaRecord {
  return {
    revision: 0,
    uuid,
    volumeUuid: volume.uuid,
    poolId: place.pool.id,
    nodeId: place.node.id,
    sizeBytes: volume.sizeBytes,
    thin: isThin(volume),
    kind: "Regular",
    snapshotUuid: null,
    status: "Creating",
    healthy,
    faultedAtMs: null,
    allowedHosts: null,
    createdAtMs: state.nowMs,
  };
}

/** What to ask the placement for a volume; `staying` replicas keep their places. */
export function placementOf(
  state: ClusterState,
  volume: VolumeRecord,
  count: number,
  staying: readonly ReplicaRecord[],
  allocatedBytes: number,
): PlacementRequest {
  const { volumeCommitmentInitialPercent, volumeCommitmentPercent } = state.settings;
  return {
    volumeUuid: volume.uuid,
    sizeBytes: volume.sizeBytes,
    thin: isThin(volume),
    replicaCount: volume.replicaCount,
    topology: volume.topology,
    affinityGroup: volume.affinityGroup,
    count,
    staying,
    allocatedBytes,
    commitmentPercent:
      staying.length === 0 ? volumeCommitmentInitialPercent : volumeCommitmentPercent,
    onlyPools: null,
    notPools: new Set(),
  };
}

/**
 * Touches the pools that places take room in, and the nodes when a single replica of an affinity group
 * goes there: another one of the group, in another pool of the node, would not be seen otherwise.
 */
export function touchPlaces(
  volume: VolumeRecord,
  places: readonly { readonly pool: PoolRecord; readonly node: NodeRecord }[],
): Change[] {
  const pools = places.map(({ pool }) => touch("pools", pool));
  if (volume.affinityGroup === null || volume.replicaCount > 1) return pools;
  return [...pools, ...places.map(({ node }) => touch("nodes", node))];
}

/**
 * Records a volume and its replicas as `Creating`. Throws `InvalidArgument`, `Conflict`, `Deleting`,
 * `Aborted` (too many creations), `ResourceExhausted` (too few pools, with what removed each).
 */
export function createVolume(
  state: ClusterState,
  request: CreateVolumeRequest,
  uuids: FreshUuids,
): Decision {
  checkVolumeRequest(request);
  if (confirmsVolume(state, request, null)) return nothing;
  checkCreateLimit(state);
  const volume = newVolume(state, request, null);
  const placement = placementOf(state, volume, volume.replicaCount, [], 0);
  const places = requirePools(state, placement, `volume ${volume.uuid}`);
  const changes: Change[] = [put("volumes", volume)];
  places.forEach((place, at) => {
    changes.push(put("replicas", newReplica(state, volume, fresh(uuids, at), place, true)));
  });
  return { changes: [...changes, ...touchPlaces(volume, places)], events: [] };
}

/**
 * Records that a volume goes: its target is taken down, its replicas are destroyed; snapshots of it
 * stay. One that is going is confirmed. Throws `NotFound`.
 */
export function destroyVolume(state: ClusterState, uuid: Uuid): Decision {
  const volume = state.stored.volumes.get(uuid);
  if (volume === undefined) throw notFound(`volume ${uuid}`, "volumes");
  if (volume.status === "Deleting") return nothing;
  const changes: Change[] = [
    put("volumes", {
      ...volume,
      status: "Deleting",
      target: null,
      operation: { operation: "Destroy", result: null },
    }),
  ];
  for (const nexus of nexusesOf(state, uuid)) {
    if (nexus.phase === "Open") changes.push(put("nexuses", { ...nexus, phase: "Shutdown" }));
  }
  for (const replica of replicasOf(state, uuid)) {
    if (replica.status === "Deleting") continue;
    changes.push(put("replicas", { ...replica, status: "Deleting", allowedHosts: null }));
  }
  const message = "its destruction was asked for";
  return { changes, events: [event("Volume", "StateChange", uuid, message)] };
}
