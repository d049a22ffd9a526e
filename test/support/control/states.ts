/** Cluster states for tests of the planner: records as they are named, engines as they report. */
import type {
  ClusterSettings,
  ClusterState,
  EngineNexus,
  EnginePool,
  EngineReplica,
  ObservedNode,
} from "../../../src/control/cluster-state.ts";
import type { NexusRecord, PoolRecord, ReplicaRecord } from "../../../src/control/model.ts";
import type { Change } from "../../../src/control/planner/plan.ts";
import { settingsDefault } from "../../../src/control/service/settings.ts";
import { MemoryStore } from "./memory-store.ts";

export const NOW_MS = 1_800_000_000_000;

/** A pool as its engine reports it. */
export function seenPool({ id, uuid, disks }: PoolRecord, changes: Partial<EnginePool> = {}) {
  const GIB = 2 ** 30;
  return {
    name: id,
    uuid,
    disks: [...disks],
    state: "online",
    stateReason: "",
    clusterSizeBytes: 4 << 20,
    capacityBytes: 100 * GIB,
    usedBytes: 0,
    committedBytes: 0,
    ...changes,
  } as EnginePool;
}

export function shareTo(uri: string, hosts: readonly string[]) {
  const allowedHosts = hosts.length === 0 ? null : [...hosts];
  return { protocol: "nvmf", uri, nqn: "", allowedHosts, anaState: null } as const;
}

/** URI of a replica that is served by its node. */
export function servedUri({ uuid, nodeId }: ReplicaRecord): string {
  return `nvmf+tcp://${nodeId}:8420/nqn.2019-05.io.openebs:${uuid}?uuid=${uuid}`;
}

/** A replica as its engine reports it when it is as its record says. */
export function seenReplica(record: ReplicaRecord, changes: Partial<EngineReplica> = {}) {
  const { uuid, poolId, sizeBytes, allowedHosts, volumeUuid } = record;
  return {
    uuid,
    poolName: poolId,
    poolUuid: `uuid-of-${poolId}`,
    kind: "regular",
    state: "online",
    sizeBytes,
    entityId: volumeUuid ?? "",
    shares: allowedHosts === null ? [] : [shareTo(servedUri(record), allowedHosts)],
    claimedBy: null,
    space: { allocatedBytes: 0 },
    sync: {
      volumeUuid: volumeUuid ?? "",
      epoch: 0,
      generation: 0,
      baseGeneration: 0,
      clean: true,
      dirtyRegions: 0,
    },
    ...changes,
  } as unknown as EngineReplica;
}

type Child = EngineNexus["children"][number];

export function seenChild(uri: string, changes: Partial<Child> = {}): Child {
  return {
    uri,
    state: "online",
    reason: "none",
    isLocal: uri.startsWith("bdev:"),
    rebuild: null,
    ...changes,
  };
}

/** A nexus as its engine reports it when it is as its record says. */
export function seenNexus(
  { uuid, volumeUuid, epoch, sizeBytes, share, allowedHosts }: NexusRecord,
  children: readonly Child[],
  changes: Partial<EngineNexus> = {},
) {
  return {
    uuid,
    name: volumeUuid ?? uuid,
    volumeUuid: volumeUuid ?? uuid,
    epoch,
    sizeBytes,
    state: "online",
    children: [...children],
    shares: share === "none" ? [] : [shareTo("", allowedHosts)],
    rebuilds: 0,
    isPaused: false,
    ...changes,
  } as unknown as EngineNexus;
}

/** A node that answers and has these. */
export function seenNode(
  id: string,
  has: {
    readonly pools?: readonly EnginePool[];
    readonly replicas?: readonly EngineReplica[];
    readonly nexuses?: readonly EngineNexus[];
  } = {},
  changes: Partial<ObservedNode> = {},
): ObservedNode {
  return {
    id,
    status: "Online",
    lastSeenMs: NOW_MS,
    offlineSinceMs: null,
    info: {
      hostNqn: `nqn.2019-05.io.openebs:node-name:${id}`,
      address: id,
      nvmf: [{ address: id, port: 8420 }],
    } as unknown as NonNullable<ObservedNode["info"]>,
    pools: new Map(has.pools?.map((pool) => [pool.name, pool])),
    replicas: new Map(has.replicas?.map((replica) => [replica.uuid, replica])),
    snapshots: new Map(),
    nexuses: new Map(has.nexuses?.map((nexus) => [nexus.uuid, nexus])),
    ...changes,
  };
}

/** The state of these records and nodes. */
export function stateOf(
  records: readonly Change[],
  nodes: readonly ObservedNode[],
  settings: Partial<ClusterSettings> = {},
): ClusterState {
  const store = new MemoryStore();
  store.seed(...records);
  return {
    nowMs: NOW_MS,
    settings: { ...settingsDefault, ...settings },
    stored: store.view(),
    observed: new Map(nodes.map((node) => [node.id, node])),
  };
}
