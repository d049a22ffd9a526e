/** Records for tests, complete with defaults, so that a test names only what it is about. */
import type {
  NewEvent,
  NexusRecord,
  NodeRecord,
  PoolRecord,
  ReplicaRecord,
  SnapshotRecord,
  VolumeRecord,
} from "../../src/control/model.ts";

const GIB = 2 ** 30;

export function nodeRecord(id: string, changes: Partial<NodeRecord> = {}): NodeRecord {
  return {
    revision: 0,
    id,
    raftId: id.replace(/\D/g, "") || "1",
    peerEndpoint: `127.0.0.1:${8430}`,
    engineEndpoint: "127.0.0.1:10124",
    hostNqn: `nqn.2019-05.io.openebs:node-name:${id}`,
    version: "0.1.0",
    labels: {},
    cordonLabels: [],
    drainLabels: [],
    drainPhase: "none",
    evacuate: false,
    createdAtMs: 1_700_000_000_000,
    ...changes,
  };
}

export function poolRecord(
  id: string,
  nodeId: string,
  changes: Partial<PoolRecord> = {},
): PoolRecord {
  return {
    revision: 0,
    id,
    uuid: `uuid-of-${id}`,
    nodeId,
    disks: [`/dev/disk/by-id/${id}`],
    labels: {},
    status: "Created",
    clusterSizeBytes: null,
    force: false,
    cordoned: false,
    createdAtMs: 1_700_000_000_000,
    ...changes,
  };
}

export function volumeRecord(uuid: string, changes: Partial<VolumeRecord> = {}): VolumeRecord {
  return {
    revision: 0,
    uuid,
    sizeBytes: GIB,
    replicaCount: 1,
    thin: false,
    asThin: false,
    selfHeal: true,
    topology: null,
    labels: {},
    affinityGroup: null,
    maxSnapshots: null,
    contentSource: null,
    status: "Created",
    target: null,
    epoch: 0,
    incarnation: 0,
    cleanShutdown: true,
    victimReplica: null,
    operation: null,
    createdAtMs: 1_700_000_000_000,
    ...changes,
  };
}

export function replicaRecord(
  uuid: string,
  volumeUuid: string | null,
  poolId: string,
  changes: Partial<ReplicaRecord> = {},
): ReplicaRecord {
  return {
    revision: 0,
    uuid,
    volumeUuid,
    poolId,
    nodeId: "node-1",
    sizeBytes: GIB,
    thin: false,
    kind: "Regular",
    snapshotUuid: null,
    status: "Created",
    healthy: true,
    faultedAtMs: null,
    allowedHosts: null,
    createdAtMs: 1_700_000_000_000,
    ...changes,
  };
}

export function nexusRecord(uuid: string, changes: Partial<NexusRecord> = {}): NexusRecord {
  return {
    revision: 0,
    uuid,
    volumeUuid: null,
    name: uuid,
    nodeId: "node-1",
    sizeBytes: GIB,
    epoch: 1,
    children: [],
    status: "Created",
    phase: "Open",
    share: "none",
    allowedHosts: [],
    controllerIds: { min: 1, max: 2 },
    createdAtMs: 1_700_000_000_000,
    ...changes,
  };
}

export function snapshotRecord(
  uuid: string,
  volumeUuid: string,
  changes: Partial<SnapshotRecord> = {},
): SnapshotRecord {
  return {
    revision: 0,
    uuid,
    volumeUuid,
    sizeBytes: GIB,
    status: "Created",
    txnId: 1,
    replicas: [],
    takenAtMs: 1_700_000_000_000,
    createdAtMs: 1_700_000_000_000,
    ...changes,
  };
}

export function newEvent(target: string, changes: Partial<NewEvent> = {}): NewEvent {
  return {
    category: "Volume",
    action: "Create",
    target,
    nodeId: null,
    component: "api",
    message: `${target} is made`,
    ...changes,
  };
}
