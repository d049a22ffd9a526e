/**
 * Schemas of the records of `model.ts`. The leader checks every record against them before it
 * proposes: what is in the log is well-formed, and members apply it without judging it again (an older
 * and a newer version must not come to different results).
 */
import * as v from "valibot";
import type { NewEvent, SpecStatus, TableName, Tables } from "../model.ts";
import { KEY_LENGTH_MAX, SETTING_LENGTH_MAX, TEXT_LENGTH_MAX } from "./limits.ts";

/** SQLite would give back other texts than it was given: cut off at NUL, or with other characters. */
const storable = v.check(
  (text: string) => text.isWellFormed() && !text.includes("\0"),
  "holds characters that cannot be stored",
);
const Text = v.pipe(v.string(), v.maxLength(TEXT_LENGTH_MAX), storable);
/** Keys of records, and what refers to them. */
export const Id = v.pipe(v.string(), v.minLength(1), v.maxLength(KEY_LENGTH_MAX), storable);
const Count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const Flag = v.boolean();
const TextMap = v.record(Text, Text);
const Status = v.picklist(["Creating", "Created", "Deleting"] satisfies SpecStatus[]);

const Labelled = v.strictObject({
  exclusion: TextMap,
  inclusion: TextMap,
  affinityKey: v.array(Text),
});

const Topology = v.strictObject({
  node: v.nullable(
    v.union([
      v.strictObject({
        explicit: v.strictObject({ allowedNodes: v.array(Id), preferredNodes: v.array(Id) }),
      }),
      v.strictObject({ labelled: Labelled }),
    ]),
  ),
  pool: v.nullable(Labelled),
});

const Target = v.strictObject({
  nexusUuid: Id,
  nodeId: Id,
  protocol: v.literal("nvmf"),
  frontendNodes: v.array(v.strictObject({ name: Text, nqn: Text })),
  publishContext: TextMap,
});

const Operation = v.strictObject({
  operation: v.picklist([
    "Create",
    "Destroy",
    "Share",
    "Unshare",
    "SetReplica",
    "RemoveUnusedReplica",
    "Publish",
    "Republish",
    "Unpublish",
    "CreateSnapshot",
    "DestroySnapshot",
    "Resize",
    "SetVolumeProperty",
  ]),
  result: v.nullable(Flag),
});

const nodeRecord = v.strictObject({
  revision: Count,
  id: Id,
  raftId: Id,
  peerEndpoint: Text,
  engineEndpoint: Text,
  hostNqn: Text,
  version: Text,
  labels: TextMap,
  cordonLabels: v.array(Text),
  drainLabels: v.array(Text),
  drainPhase: v.picklist(["none", "draining", "drained"]),
  evacuate: Flag,
  createdAtMs: Count,
});

const poolRecord = v.strictObject({
  revision: Count,
  id: Id,
  uuid: Id,
  nodeId: Id,
  disks: v.array(Text),
  labels: TextMap,
  status: Status,
  clusterSizeBytes: v.nullable(Count),
  force: Flag,
  cordoned: Flag,
  createdAtMs: Count,
});

const volumeRecord = v.strictObject({
  revision: Count,
  uuid: Id,
  sizeBytes: Count,
  replicaCount: Count,
  thin: Flag,
  asThin: Flag,
  selfHeal: Flag,
  topology: v.nullable(Topology),
  labels: TextMap,
  affinityGroup: v.nullable(Text),
  maxSnapshots: v.nullable(Count),
  contentSource: v.nullable(v.strictObject({ snapshotUuid: Id, volumeUuid: Id })),
  status: Status,
  target: v.nullable(Target),
  epoch: Count,
  incarnation: Count,
  cleanShutdown: Flag,
  victimReplica: v.nullable(Id),
  operation: v.nullable(Operation),
  createdAtMs: Count,
});

const replicaRecord = v.strictObject({
  revision: Count,
  uuid: Id,
  volumeUuid: v.nullable(Id),
  poolId: Id,
  nodeId: Id,
  sizeBytes: Count,
  thin: Flag,
  kind: v.picklist(["Regular", "SnapshotClone"]),
  snapshotUuid: v.nullable(Id),
  status: Status,
  healthy: Flag,
  faultedAtMs: v.nullable(Count),
  allowedHosts: v.nullable(v.array(Text)),
  createdAtMs: Count,
});

const nexusRecord = v.strictObject({
  revision: Count,
  uuid: Id,
  volumeUuid: v.nullable(Id),
  name: Text,
  nodeId: Id,
  sizeBytes: Count,
  epoch: Count,
  children: v.array(v.strictObject({ uri: Text, replicaUuid: v.nullable(Id) })),
  status: Status,
  phase: v.picklist(["Open", "Shutdown"]),
  share: v.picklist(["none", "nvmf"]),
  allowedHosts: v.array(Text),
  controllerIds: v.strictObject({ min: Count, max: Count }),
  createdAtMs: Count,
});

const snapshotRecord = v.strictObject({
  revision: Count,
  uuid: Id,
  volumeUuid: Id,
  sizeBytes: Count,
  status: Status,
  txnId: Count,
  replicas: v.array(
    v.strictObject({ uuid: Id, sourceUuid: Id, poolId: Id, nodeId: Id, status: Status }),
  ),
  takenAtMs: v.nullable(Count),
  createdAtMs: Count,
});

const appNodeRecord = v.strictObject({ revision: Count, id: Id, endpoint: Text, labels: TextMap });

const watchRecord = v.strictObject({ revision: Count, id: Id, volumeUuid: Id, callback: Text });

const rebuildRecord = v.strictObject({
  revision: Count,
  id: Id,
  volumeUuid: Id,
  nexusUuid: Id,
  childUri: Text,
  sourceUri: Text,
  state: v.picklist(["Stopped", "Failed", "Completed"]),
  blocksTotal: Count,
  blocksRecovered: Count,
  blocksTransferred: Count,
  blocksRemaining: Count,
  blockSize: Count,
  isPartial: Flag,
  startTimeMs: Count,
  endTimeMs: Count,
});

const tokenRecord = v.strictObject({
  revision: Count,
  id: Id,
  secretSha256: Text,
  kind: v.picklist(["join", "api"]),
  expiresAtMs: Count,
  note: Text,
});

const settingRecord = v.strictObject({
  revision: Count,
  key: Id,
  value: v.pipe(v.string(), v.maxLength(SETTING_LENGTH_MAX), storable),
});

/** A schema per table; that each yields the record of the model is checked by the compiler. */
export const recordSchemas: { readonly [T in TableName]: v.GenericSchema<unknown, Tables[T]> } = {
  nodes: nodeRecord,
  pools: poolRecord,
  volumes: volumeRecord,
  replicas: replicaRecord,
  nexuses: nexusRecord,
  snapshots: snapshotRecord,
  appNodes: appNodeRecord,
  watches: watchRecord,
  rebuildHistory: rebuildRecord,
  tokens: tokenRecord,
  settings: settingRecord,
};

/** An event as it is proposed. */
export const EventSchema = v.strictObject({
  category: v.picklist([
    "Pool",
    "Volume",
    "Nexus",
    "Replica",
    "Node",
    "HighAvailability",
    "HostInitiator",
    "Snapshot",
    "Clone",
    "Cluster",
  ] satisfies NewEvent["category"][]),
  action: Id,
  target: Text,
  nodeId: v.nullable(Id),
  component: Text,
  message: Text,
});
