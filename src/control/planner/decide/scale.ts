/** Replica count, size, snapshots allowed, and the places of replicas: what changes of a volume. */
import { TrilithError } from "../../../errors.ts";
import type { ClusterState } from "../../cluster-state.ts";
import type { NodeRecord, PoolId, ReplicaRecord, Uuid, VolumeRecord } from "../../model.ts";
import { deviceBytes, largestAllocation, poolRoom, whyNoRoomToGrow } from "../capacity.ts";
import { REPLICAS_MAX } from "../limits.ts";
import { ownWait, waitRecord } from "../patience.ts";
import { nodesOfSingleReplicas } from "../placement/groups.ts";
import { requirePools } from "../placement/place.ts";
import { removalOrder } from "../placement/replica-choice.ts";
import type { Change, Decision } from "../plan.ts";
import { isReplicaUsable, replicasOf, targetNexus, volumeStatus } from "../status.ts";
import { checkMaxSnapshots, checkReplicaCount, checkSize } from "./arguments.ts";
import { event, type FreshUuids, fresh, nothing, put, touch } from "./changes.ts";
import {
  invalid,
  notFound,
  precondition,
  requireCreated,
  requirePool,
  requireReplica,
  requireVolume,
} from "./errors.ts";
import { replicaHosts } from "./publish.ts";
import { newReplica, placementOf, touchPlaces } from "./volumes.ts";

function living(state: ClusterState, volume: VolumeRecord): ReplicaRecord[] {
  return replicasOf(state, volume.uuid).filter(({ status }) => status !== "Deleting");
}

/** Nothing was ever written: a new replica holds all there is. */
function isBlank(volume: VolumeRecord): boolean {
  return volume.epoch === 0 && volume.contentSource === null;
}

/** One more replica of a volume in a place, served to the volume's nexus. */
function furtherReplica(
  state: ClusterState,
  volume: VolumeRecord,
  uuid: Uuid,
  place: { readonly pool: { readonly id: string }; readonly node: NodeRecord },
): ReplicaRecord {
  const nexusNode = volume.target === null ? null : state.stored.nodes.get(volume.target.nodeId);
  return {
    ...newReplica(state, volume, uuid, place, isBlank(volume)),
    allowedHosts: replicaHosts(state, place.node.id, nexusNode ?? null),
  };
}

/**
 * Records another replica count: one more (placed at once; the volume must be Online) or one less
 * (`victim`: which replica goes; null: the planner chooses). Throws `InvalidArgument`,
 * `FailedPrecondition` (that count already, more than one step, not Online, the last healthy replica,
 * an affinity group that would lose its distance), `ResourceExhausted` (no pool for one more).
 */
export function setReplicaCount(
  state: ClusterState,
  uuid: Uuid,
  count: number,
  victim: Uuid | null,
  uuids: FreshUuids,
): Decision {
  checkReplicaCount(count);
  const volume = requireVolume(state, uuid);
  if (count === volume.replicaCount) {
    throw precondition(`volume ${uuid} is to have ${count} replicas already`, "");
  }
  if (Math.abs(count - volume.replicaCount) > 1) {
    throw precondition(
      `volume ${uuid} has ${volume.replicaCount} replicas: ${count} is more than one step away`,
      "change the count by one at a time",
    );
  }
  requireApart(state, volume);
  return count > volume.replicaCount
    ? scaleUp(state, volume, victim, uuids)
    : scaleDown(state, volume, victim);
}

/**
 * Throws `FailedPrecondition` while a replica moves within its node: another count could let both, or
 * the wrong one, stay.
 */
function requireApart(state: ClusterState, volume: VolumeRecord): void {
  const replicas = living(state, volume);
  const victim = replicas.find(({ uuid }) => uuid === volume.victimReplica);
  const twin = replicas.find((one) => one !== victim && one.nodeId === victim?.nodeId);
  if (victim === undefined || twin === undefined) return;
  throw precondition(
    `volume ${volume.uuid}: replica ${victim.uuid} is moving from ${victim.poolId} to ${twin.poolId}`,
    "wait until that is done",
  );
}

function scaleUp(
  state: ClusterState,
  before: VolumeRecord,
  victim: Uuid | null,
  uuids: FreshUuids,
): Decision {
  if (victim !== null) throw invalid("a replica to give up is named, and the count goes up");
  const status = volumeStatus(state, before);
  if (status !== "Online") {
    throw precondition(
      `volume ${before.uuid} is ${status}`,
      "wait until it is Online: trilith get volume",
    );
  }
  const volume: VolumeRecord = {
    ...before,
    replicaCount: before.replicaCount + 1,
    operation: { operation: "SetReplica", result: null },
  };
  const staying = living(state, before);
  const message = `replica count from ${before.replicaCount} to ${volume.replicaCount}`;
  const events = [event("Volume", "StateChange", volume.uuid, message)];
  // A replica that was about to be given up is kept instead.
  if (staying.length >= volume.replicaCount) {
    return { changes: [put("volumes", { ...volume, victimReplica: null })], events };
  }
  const allocated = largestAllocation(state, staying);
  const placement = placementOf(state, volume, 1, staying, allocated);
  const [place] = requirePools(state, placement, `volume ${volume.uuid}`);
  const replica = furtherReplica(state, volume, fresh(uuids, 0), place!);
  const changes: Change[] = [
    put("volumes", { ...volume, victimReplica: null }),
    put("replicas", replica),
    ...touchPlaces(volume, [place!]),
  ];
  return { changes, events };
}

function scaleDown(state: ClusterState, volume: VolumeRecord, victim: Uuid | null): Decision {
  const count = volume.replicaCount - 1;
  const replicas = living(state, volume);
  if (victim !== null && !replicas.some(({ uuid }) => uuid === victim)) {
    throw notFound(`replica ${victim} of volume ${volume.uuid}`, `volume-replica-topology`);
  }
  const goes = replicas.length > count ? chooseVictim(state, volume, count, victim) : null;
  const next: VolumeRecord = {
    ...volume,
    replicaCount: count,
    victimReplica: goes?.uuid ?? null,
    operation: { operation: "SetReplica", result: null },
  };
  const which = goes === null ? "" : `, replica ${goes.uuid} in ${goes.poolId} to be given up`;
  const message = `replica count from ${volume.replicaCount} to ${count}${which}`;
  // The replica that remains of an affinity group is to meet no other single one on its node.
  const places = replicas
    .filter((replica) => replica !== goes)
    .flatMap(({ poolId, nodeId }) => {
      const pool = state.stored.pools.get(poolId);
      const node = state.stored.nodes.get(nodeId);
      return pool === undefined || node === undefined ? [] : [{ pool, node }];
    });
  const isLonely = next.affinityGroup !== null && count === 1;
  return {
    changes: [put("volumes", next), ...(isLonely ? touchPlaces(next, places) : [])],
    events: [event("Volume", "StateChange", volume.uuid, message)],
  };
}

/** The first that may go. One that was named is the only one asked. */
function chooseVictim(
  state: ClusterState,
  volume: VolumeRecord,
  count: number,
  victim: Uuid | null,
): ReplicaRecord {
  const order = removalOrder(state, { ...volume, replicaCount: count, victimReplica: null });
  const asked = victim === null ? order : order.filter(({ uuid }) => uuid === victim);
  let refusal: TrilithError | null = null;
  for (const replica of asked) {
    const others = order.filter((other) => other !== replica);
    const why = whyCannotGo(state, volume, count, replica, others);
    if (why === null) return replica;
    refusal ??= why;
  }
  throw refusal ?? notFound(`a replica of volume ${volume.uuid}`, "volume-replica-topology");
}

function whyCannotGo(
  state: ClusterState,
  volume: VolumeRecord,
  count: number,
  replica: ReplicaRecord,
  others: readonly ReplicaRecord[],
): TrilithError | null {
  if (!others.some((other) => isReplicaUsable(state, other))) {
    return precondition(
      `volume ${volume.uuid}: without replica ${replica.uuid} in ${replica.poolId} no healthy one is left`,
      "wait until another replica is rebuilt or back",
    );
  }
  if (volume.affinityGroup === null || count !== 1) return null;
  const taken = nodesOfSingleReplicas(state, volume.affinityGroup, volume.uuid);
  const clash = others.find(({ nodeId }) => taken.has(nodeId));
  if (clash === undefined) return null;
  return precondition(
    `volume ${volume.uuid}: node ${clash.nodeId} has the only replica of another volume of affinity group ${volume.affinityGroup}`,
    "keep two replicas, or move one to another node first",
  );
}

/** Throws `OutOfRange` when there are more snapshots already. An equal number is confirmed. */
export function setMaxSnapshots(state: ClusterState, uuid: Uuid, max: number | null): Decision {
  checkMaxSnapshots(max);
  const volume = requireVolume(state, uuid);
  if (volume.maxSnapshots === max) return nothing;
  const there = state.stored.snapshotsOfVolume.get(uuid)?.size ?? 0;
  if (max !== null && max < there) {
    throw new TrilithError(
      "OutOfRange",
      `volume ${uuid} has ${there} snapshots, more than ${max}`,
      "delete snapshots first",
    );
  }
  const operation = { operation: "SetVolumeProperty", result: true } as const;
  const message = `at most ${max ?? "any number of"} snapshots`;
  return {
    changes: [put("volumes", { ...volume, maxSnapshots: max, operation })],
    events: [event("Volume", "StateChange", uuid, message)],
  };
}

/** Longest time that a replica may be waited for. */
const WAIT_MS_MAX = 7 * 24 * 60 * 60_000;

/**
 * Records how long a replica of the volume may be away before another is built; null: as long as the
 * cluster's setting says. An equal wait is confirmed.
 */
export function setFaultedChildWait(state: ClusterState, uuid: Uuid, ms: number | null): Decision {
  const volume = requireVolume(state, uuid);
  if (ms !== null && !(Number.isSafeInteger(ms) && ms >= 0 && ms <= WAIT_MS_MAX)) {
    throw invalid(`a wait of ${ms} ms is not from 0 to ${WAIT_MS_MAX} ms (a week)`);
  }
  const own = ownWait(state.stored, uuid);
  if (ms === null ? own === undefined : own?.value === String(ms)) return nothing;
  // The volume's record is put too: its replicas are judged anew.
  const changes: Change[] = [touch("volumes", volume)];
  if (ms !== null) changes.push(put("settings", waitRecord(state.stored, uuid, ms)));
  else changes.push({ table: "settings", remove: own!.key, revision: own!.revision });
  const message =
    ms === null ? "replicas are waited for as everywhere" : `replicas are waited for ${ms} ms`;
  return { changes, events: [event("Volume", "StateChange", uuid, message)] };
}

/**
 * Records a larger size for a volume, its replicas and its nexus. Throws `NotAcceptable` (not larger),
 * `FailedPrecondition` (a replica is not there, or lacks data), `ResourceExhausted` (no room, with the
 * pools that have none).
 */
export function resizeVolume(state: ClusterState, uuid: Uuid, sizeBytes: number): Decision {
  checkSize(`volume ${uuid}`, sizeBytes);
  const volume = requireVolume(state, uuid);
  if (sizeBytes <= volume.sizeBytes) {
    throw new TrilithError(
      "NotAcceptable",
      `volume ${uuid} has ${volume.sizeBytes} bytes: ${sizeBytes} is not more`,
      "volumes only grow",
    );
  }
  const replicas = living(state, volume);
  const status = volumeStatus(state, volume);
  const absent = replicas.find((replica) => !isReplicaUsable(state, replica));
  if (status !== "Online" || absent !== undefined) {
    const which = absent === undefined ? "" : `; replica ${absent.uuid} in ${absent.poolId} is not`;
    throw precondition(
      `volume ${uuid} is ${status}: all its replicas have to be there and up to date${which}`,
      "wait until it is Online and no rebuild runs",
    );
  }
  const tight = replicas.flatMap((replica) => {
    const room = poolRoom(state, replica.poolId);
    const why =
      room === null ? "not reported" : whyNoRoomToGrow(state.settings, room, replica, sizeBytes);
    return why === null ? [] : [`${replica.poolId}: no room (${why})`];
  });
  if (tight.length > 0) {
    throw new TrilithError(
      "ResourceExhausted",
      `volume ${uuid} cannot grow to ${sizeBytes} bytes; ${tight.join("; ")}`,
      "grow these pools, or move the replicas to pools with room",
    );
  }
  const operation = { operation: "Resize", result: null } as const;
  const changes: Change[] = [put("volumes", { ...volume, sizeBytes, operation })];
  const nexus = targetNexus(state, volume);
  if (nexus !== undefined) {
    changes.push(put("nexuses", { ...nexus, sizeBytes: deviceBytes(sizeBytes) }));
  }
  for (const replica of replicas) {
    changes.push(put("replicas", { ...replica, sizeBytes }));
    const pool = state.stored.pools.get(replica.poolId);
    if (pool !== undefined) changes.push(touch("pools", pool));
  }
  const message = `to grow from ${volume.sizeBytes} to ${sizeBytes} bytes`;
  return { changes, events: [event("Volume", "StateChange", uuid, message)] };
}

/**
 * Records a successor of a replica in another pool (null: the best), and the replica as the one to be
 * given up: that happens when the successor holds everything. Successor and predecessor may lie on one
 * node, all others not. Throws `NotFound`, `FailedPrecondition`, `InUse` (another move of the volume is
 * under way), `ResourceExhausted`. A repetition is confirmed.
 */
export function moveReplica(
  state: ClusterState,
  uuid: Uuid,
  toPool: PoolId | null,
  uuids: FreshUuids,
): Decision {
  const replica = requireReplica(state, uuid, null);
  if (replica.volumeUuid === null) {
    throw precondition(`replica ${uuid} belongs to no volume`, "only replicas of volumes move");
  }
  const volume = requireVolume(state, replica.volumeUuid);
  requireCreated(`replica ${uuid}`, replica);
  const replicas = living(state, volume);
  if (volume.victimReplica !== null) return confirmMove(volume, replicas, uuid, toPool);
  if (toPool === replica.poolId) throw invalid(`replica ${uuid} is in pool ${toPool}`);
  if (toPool !== null) requireCreated(`pool ${toPool}`, requirePool(state, toPool, null));
  if (replicas.length !== volume.replicaCount || replicas.length >= REPLICAS_MAX) {
    throw precondition(
      `volume ${volume.uuid} has ${replicas.length} replicas of ${volume.replicaCount}: one cannot be moved`,
      "wait until it has as many as it should, fewer than the most a volume can have",
    );
  }
  if (!isBlank(volume) && !replicas.some((one) => isReplicaUsable(state, one))) {
    throw precondition(
      `volume ${volume.uuid} has no healthy replica to copy from`,
      "bring one back first",
    );
  }
  const staying = replicas.filter((other) => other !== replica);
  const allocated = largestAllocation(state, replicas);
  const placement = {
    ...placementOf(state, volume, 1, staying, allocated),
    commitmentPercent: state.settings.volumeCommitmentPercent,
    onlyPools: toPool === null ? null : new Set([toPool]),
    notPools: new Set([replica.poolId]),
  };
  const [place] = requirePools(state, placement, `replica ${uuid}`);
  const successor = furtherReplica(state, volume, fresh(uuids, 0), place!);
  const changes: Change[] = [
    put("volumes", {
      ...volume,
      victimReplica: uuid,
      operation: { operation: "SetReplica", result: null },
    }),
    put("replicas", successor),
    touch("replicas", replica),
    ...touchPlaces(volume, [place!]),
  ];
  const message = `to move from pool ${replica.poolId} to ${place!.pool.id} as ${successor.uuid}`;
  return { changes, events: [event("Replica", "StateChange", uuid, message, replica.nodeId)] };
}

function confirmMove(
  volume: VolumeRecord,
  replicas: readonly ReplicaRecord[],
  uuid: Uuid,
  toPool: PoolId | null,
): Decision {
  const isArriving = replicas.some(
    (one) => one.uuid !== uuid && (toPool === null || one.poolId === toPool),
  );
  if (volume.victimReplica === uuid && replicas.length > volume.replicaCount && isArriving) {
    return nothing;
  }
  throw new TrilithError(
    "InUse",
    `volume ${volume.uuid} is giving up replica ${volume.victimReplica}`,
    "wait until that is done",
  );
}
