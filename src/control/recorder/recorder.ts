/**
 * Keeps which children of a nexus are healthy in the replicated store (DESIGN 6.2): what nexuses ask
 * before they acknowledge a write that a lost child lacks. On the leader through the store, elsewhere
 * by asking the leader. Imports the store's and the recorder's types, and the planner's record keys.
 *
 * A record and a raised epoch cannot cross: every record puts the volume's record, so that it is
 * refused and judged anew when the volume has changed since it was looked at.
 */
import type { Recorder } from "../../engine/recorder.ts";
import type { VolumeRecord as ChildrenRecord } from "../../engine/rpc/records.ts";
import { TrilithError } from "../../errors.ts";
import type { Log } from "../../ops/log.ts";
import type { StoreView } from "../cluster-state.ts";
import type {
  NewEvent,
  NexusRecord,
  ReplicaRecord,
  SettingRecord,
  VolumeRecord,
} from "../model.ts";
import type { Change } from "../planner/plan.ts";
import { childrenRecord, recordKey } from "../planner/reconcile/records.ts";
import { replicaOfUri } from "../planner/reconcile/uris.ts";
import type { Proposal, Store } from "../store/store.ts";

/** What a nexus wants recorded. */
export type RecordRequest = Omit<ChildrenRecord, "recordedAt">;

export interface ControlRecorderOptions {
  readonly store: Store;
  /** Hands a record to the leader; for when this node does not lead. */
  readonly forward: (request: RecordRequest) => Promise<void>;
  /** Milliseconds since 1970. */
  readonly nowMs: () => number;
  readonly log: Log;
}

/** Nexuses ask again after 5 s without answer. */
const TRANSACT_TIMEOUT_MS = 4_000;

function superseded(request: RecordRequest, epoch: number): TrilithError {
  return new TrilithError(
    "Superseded",
    `volume ${request.volumeUuid}: nexus ${request.nexusUuid} of epoch ${request.epoch} is ` +
      `superseded by epoch ${epoch}`,
    "publish the volume again",
  );
}

function notHealthy(request: RecordRequest): TrilithError {
  return new TrilithError(
    "InvalidArgument",
    `volume ${request.volumeUuid}: the last healthy child is never recorded as lost`,
  );
}

/** What a record changes of a volume. Throws when it may not follow what is known. */
export function decideVolumeRecord(
  view: StoreView,
  volume: VolumeRecord,
  request: RecordRequest,
  nowMs: number,
): Proposal {
  const nexus = view.nexuses.get(request.nexusUuid);
  checkEpoch(volume, nexus, request);
  const healthyBy = new Map<string, boolean>();
  for (const { uri, healthy } of request.children) {
    const uuid = replicaOfUri(uri);
    if (uuid !== null) healthyBy.set(uuid, healthy);
  }
  const changes: Change[] = [
    { table: "volumes", put: { ...volume, cleanShutdown: request.cleanShutdown } },
  ];
  const events: NewEvent[] = [];
  let healthyLeft = 0;
  for (const uuid of view.replicasOfVolume.get(volume.uuid) ?? []) {
    const replica = view.replicas.get(uuid);
    if (replica === undefined) continue;
    // A replica that the nexus does not have lacks what is written from now on.
    const healthy = healthyBy.get(uuid) ?? false;
    if (healthy && replica.status !== "Deleting") healthyLeft++;
    if (healthy === replica.healthy) continue;
    changes.push({
      table: "replicas",
      put: { ...replica, healthy, faultedAtMs: healthy ? null : nowMs },
    });
    events.push(healthEvent(replica, healthy));
  }
  if (healthyLeft === 0) throw notHealthy(request);
  return { changes, events };
}

function healthEvent(replica: ReplicaRecord, healthy: boolean): NewEvent {
  return {
    category: "Replica",
    action: "StateChange",
    target: replica.uuid,
    nodeId: replica.nodeId,
    component: "engine",
    message: healthy ? "holds everything again" : "lacks what is written from now on",
  };
}

function checkEpoch(
  volume: VolumeRecord,
  nexus: NexusRecord | undefined,
  request: RecordRequest,
): void {
  if (request.epoch < volume.epoch) throw superseded(request, volume.epoch);
  const isKnown = nexus?.volumeUuid === volume.uuid && nexus.epoch === request.epoch;
  if (isKnown && request.epoch === volume.epoch) return;
  if (request.epoch === volume.epoch) throw superseded(request, volume.epoch);
  throw new TrilithError(
    "FailedPrecondition",
    `volume ${volume.uuid}: epoch ${request.epoch} is not known, ${volume.epoch} is the highest`,
    "the store is older than this nexus: publish the volume again with a higher epoch",
  );
}

/** What a record of a nexus without a volume changes. */
function decideStandalone(
  view: StoreView,
  nexus: NexusRecord,
  request: RecordRequest,
  nowMs: number,
): Proposal {
  if (request.epoch < nexus.epoch) throw superseded(request, nexus.epoch);
  if (!request.children.some(({ healthy }) => healthy)) throw notHealthy(request);
  const key = recordKey(nexus.uuid);
  const { revision = 0 } = view.settings.get(key) ?? {};
  const value = JSON.stringify({ ...request, recordedAt: new Date(nowMs).toISOString() });
  const setting: SettingRecord = { key, revision, value };
  return {
    changes: [
      { table: "nexuses", put: nexus },
      { table: "settings", put: setting },
    ],
    events: [],
  };
}

function unknown(volumeUuid: string): TrilithError {
  return new TrilithError("NotFound", `volume ${volumeUuid} is not known`);
}

/** What is recorded of a volume, or of a nexus without one. */
function recordOf(view: StoreView, uuid: string): ChildrenRecord {
  const volume = view.volumes.get(uuid);
  if (volume === undefined) {
    const record = childrenRecord(view.settings, uuid);
    if (record === undefined) throw unknown(uuid);
    return record;
  }
  const nexuses = [...(view.nexusesOfVolume.get(uuid) ?? [])].flatMap(
    (key) => view.nexuses.get(key) ?? [],
  );
  const nexus = nexuses.find(({ epoch }) => epoch === volume.epoch);
  const children = [...(view.replicasOfVolume.get(uuid) ?? [])].flatMap((key) => {
    const replica = view.replicas.get(key);
    if (replica === undefined) return [];
    const uri = nexus?.children.find((c) => c.replicaUuid === key)?.uri ?? `bdev:///${key}`;
    return [{ uri, healthy: replica.healthy }];
  });
  return {
    volumeUuid: uuid,
    nexusUuid: nexus?.uuid ?? volume.target?.nexusUuid ?? uuid,
    epoch: volume.epoch,
    children,
    cleanShutdown: volume.cleanShutdown,
    recordedAt: new Date(0).toISOString(),
  };
}

/** A recorder over the replicated store. */
export function controlRecorder(options: ControlRecorderOptions): Recorder {
  const { store, forward, nowMs, log } = options;
  return {
    async record({ volumeUuid, nexusUuid, epoch, children, cleanShutdown }) {
      const plain = children.map(({ uri, healthy }) => ({ uri, healthy }));
      const request = { volumeUuid, nexusUuid, epoch, children: plain, cleanShutdown };
      if (!store.isLeader()) return forward(request);
      await store.transact(
        (view) => {
          const volume = view.volumes.get(volumeUuid);
          if (volume !== undefined) {
            return { ...decideVolumeRecord(view, volume, request, nowMs()), value: undefined };
          }
          const nexus = view.nexuses.get(nexusUuid);
          if (nexus === undefined || nexus.volumeUuid !== null) throw unknown(volumeUuid);
          return { ...decideStandalone(view, nexus, request, nowMs()), value: undefined };
        },
        { timeoutMs: TRANSACT_TIMEOUT_MS },
      );
      const lost = plain.filter(({ healthy }) => !healthy).map(({ uri }) => uri);
      log("info", "children recorded", {
        volume: volumeUuid,
        nexus: nexusUuid,
        epoch,
        lost,
        cleanShutdown,
      });
    },
    list: async () => {
      const view = store.view();
      const records: ChildrenRecord[] = [];
      for (const uuid of view.volumes.keys()) records.push(recordOf(view, uuid));
      for (const nexus of view.nexuses.values()) {
        const record =
          nexus.volumeUuid === null ? childrenRecord(view.settings, nexus.uuid) : undefined;
        if (record !== undefined) records.push(record);
      }
      return records;
    },
    get: async (volumeUuid) => recordOf(store.view(), volumeUuid),
    forget: (volumeUuid) =>
      Promise.reject(
        new TrilithError(
          "FailedPrecondition",
          `what is recorded of ${volumeUuid} goes with the volume`,
          `trilith delete volume ${volumeUuid}`,
        ),
      ),
    close: () => {},
  };
}
