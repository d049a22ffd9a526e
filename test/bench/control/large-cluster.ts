/**
 * A large cluster at rest: records as the store holds them, and engines that report exactly what is
 * wanted, so that the planner looks at everything and finds nothing to do.
 */
import type {
  EngineNexus,
  EnginePool,
  EngineReplica,
  ObservedNode,
} from "../../../src/control/cluster-state.ts";
import type {
  NexusRecord,
  NodeRecord,
  PoolRecord,
  ReplicaRecord,
  VolumeRecord,
} from "../../../src/control/model.ts";
import { deviceBytes } from "../../../src/control/planner/capacity.ts";
import {
  nexusRecord,
  nodeRecord,
  poolRecord,
  replicaRecord,
  volumeRecord,
} from "../../support/store-records.ts";
import {
  LARGE_NODES,
  LARGE_POOLS,
  LARGE_PUBLISHED,
  LARGE_REPLICAS,
  LARGE_VOLUMES,
} from "./limits.ts";

const GIB = 2 ** 30;
const CLUSTER_BYTES = 4 << 20;

export interface LargeCluster {
  readonly nodes: readonly NodeRecord[];
  readonly pools: readonly PoolRecord[];
  readonly volumes: readonly VolumeRecord[];
  readonly replicas: readonly ReplicaRecord[];
  readonly nexuses: readonly NexusRecord[];
}

function uuid(kind: number, n: number): string {
  return `${kind.toString(16).padStart(8, "0")}-0000-4000-8000-${n.toString(16).padStart(12, "0")}`;
}

const nodeName = (n: number): string => `node-${(n % LARGE_NODES) + 1}`;
const poolName = (n: number): string => `pool-${(n % LARGE_POOLS) + 1}`;
const hostNqn = (node: string): string => `nqn.2019-05.io.openebs:node-name:${node}`;
const APP_HOST = hostNqn("app-1");

function addressOf(node: string): string {
  return `10.0.0.${node.slice("node-".length)}`;
}

function shareUri(node: string, id: string): string {
  return `nvmf+tcp://${addressOf(node)}:8420/nqn.2019-05.io.openebs:${id}?uuid=${id}`;
}

/** Replica `r` of volume `v`: volumes go round the pools, and pools round the nodes. */
function replicaOf(v: number, r: number): ReplicaRecord {
  const pool = v * LARGE_REPLICAS + r;
  const isPublished = v < LARGE_PUBLISHED;
  const nexusNode = nodeName(v * LARGE_REPLICAS);
  const node = nodeName(pool);
  return replicaRecord(uuid(2, v * LARGE_REPLICAS + r), uuid(1, v), poolName(pool), {
    nodeId: node,
    thin: true,
    allowedHosts: isPublished && node !== nexusNode ? [hostNqn(nexusNode)] : null,
  });
}

function nexusOf(v: number, replicas: readonly ReplicaRecord[]): NexusRecord {
  const nodeId = nodeName(v * LARGE_REPLICAS);
  return nexusRecord(uuid(3, v), {
    volumeUuid: uuid(1, v),
    name: uuid(1, v),
    nodeId,
    share: "nvmf",
    allowedHosts: [APP_HOST],
    controllerIds: { min: 1, max: 2 },
    children: replicas.map((replica) => ({
      uri:
        replica.nodeId === nodeId
          ? `bdev:///${replica.uuid}`
          : shareUri(replica.nodeId, replica.uuid),
      replicaUuid: replica.uuid,
    })),
  });
}

/** The records. */
export function largeCluster(): LargeCluster {
  const nodes = Array.from({ length: LARGE_NODES }, (_, n) => {
    const name = nodeName(n);
    return nodeRecord(name, {
      labels: { zone: `zone-${n % 3}` },
      engineEndpoint: `${addressOf(name)}:10124`,
      peerEndpoint: `${addressOf(name)}:10126`,
    });
  });
  const pools = Array.from({ length: LARGE_POOLS }, (_, n) => poolRecord(poolName(n), nodeName(n)));
  const volumes: VolumeRecord[] = [];
  const replicas: ReplicaRecord[] = [];
  const nexuses: NexusRecord[] = [];
  for (let v = 0; v < LARGE_VOLUMES; v++) {
    const own = Array.from({ length: LARGE_REPLICAS }, (_, r) => replicaOf(v, r));
    replicas.push(...own);
    const isPublished = v < LARGE_PUBLISHED;
    const nexus = isPublished ? nexusOf(v, own) : null;
    if (nexus !== null) nexuses.push(nexus);
    volumes.push(
      volumeRecord(uuid(1, v), {
        replicaCount: LARGE_REPLICAS,
        thin: true,
        labels: { app: `app-${v % 50}` },
        target:
          nexus === null
            ? null
            : {
                nexusUuid: nexus.uuid,
                nodeId: nexus.nodeId,
                protocol: "nvmf",
                frontendNodes: [{ name: "app-1", nqn: APP_HOST }],
                publishContext: {},
              },
        epoch: isPublished ? 1 : 0,
        incarnation: isPublished ? 1 : 0,
        cleanShutdown: !isPublished,
      }),
    );
  }
  return { nodes, pools, volumes, replicas, nexuses };
}

function observedPool({ id, uuid: poolUuid, disks }: PoolRecord, replicas: number): EnginePool {
  return {
    name: id,
    uuid: poolUuid,
    disks: [...disks],
    state: "online",
    stateReason: "",
    readErrors: 0,
    writeErrors: 0,
    metadataErrors: 0,
    blockSize: 512,
    clusterSizeBytes: CLUSTER_BYTES,
    capacityBytes: 1000 * GIB,
    usedBytes: replicas * CLUSTER_BYTES,
    committedBytes: replicas * GIB,
    metadataBytes: CLUSTER_BYTES,
    diskCapacityBytes: 1001 * GIB,
    replicas,
    snapshots: 0,
    reactor: 0,
  };
}

function nvmfShare(node: string, id: string, hosts: readonly string[]) {
  return {
    protocol: "nvmf" as const,
    uri: shareUri(node, id),
    nqn: `nqn.2019-05.io.openebs:${id}`,
    allowedHosts: hosts.length === 0 ? null : [...hosts],
    anaState: "optimized" as const,
  };
}

function observedReplica(record: ReplicaRecord): EngineReplica {
  const { uuid: id, nodeId, poolId, volumeUuid, allowedHosts } = record;
  return {
    uuid: id,
    name: id,
    poolName: poolId,
    poolUuid: `uuid-of-${poolId}`,
    kind: "regular",
    state: "online",
    sizeBytes: deviceBytes(record.sizeBytes),
    blockSize: 512,
    thin: true,
    entityId: volumeUuid ?? "",
    snapshotUuid: null,
    uri: allowedHosts === null ? `bdev:///${id}` : shareUri(nodeId, id),
    shares: allowedHosts === null ? [] : [nvmfShare(nodeId, id, allowedHosts)],
    claimedBy: null,
    space: {
      capacityBytes: deviceBytes(record.sizeBytes),
      allocatedBytes: CLUSTER_BYTES,
      allocatedBytesSnapshots: 0,
      allocatedBytesAllSnapshots: 0,
      clusterSizeBytes: CLUSTER_BYTES,
      clusters: Math.ceil(deviceBytes(record.sizeBytes) / CLUSTER_BYTES),
      allocatedClusters: 1,
    },
    sync: {
      volumeUuid: volumeUuid ?? "",
      epoch: 1,
      generation: 1,
      baseGeneration: 1,
      clean: true,
      dirtyRegions: 0,
    },
    reactor: 0,
  };
}

function observedNexus(record: NexusRecord): EngineNexus {
  const share = nvmfShare(record.nodeId, record.volumeUuid!, record.allowedHosts);
  return {
    uuid: record.uuid,
    name: record.name,
    volumeUuid: record.volumeUuid!,
    epoch: record.epoch,
    generation: 1,
    sizeBytes: deviceBytes(record.sizeBytes),
    blockSize: 512,
    state: "online",
    children: record.children.map(({ uri }) => ({
      uri,
      state: "online",
      reason: "none",
      isLocal: uri.startsWith("bdev:"),
      rebuild: null,
    })),
    deviceUri: share.uri,
    shares: [share],
    rebuilds: 0,
    dirtyRegions: 0,
    waitingRequests: 0,
    isPaused: false,
    reactor: 0,
  };
}

function observedInfo(id: string, n: number): NonNullable<ObservedNode["info"]> {
  return {
    nodeName: id,
    version: "0.1.0",
    commit: "",
    bun: "",
    apiVersions: ["v1"],
    instanceUuid: uuid(4, n),
    pid: 1,
    startedAt: new Date(0).toISOString(),
    hostNqn: hostNqn(id),
    hostId: uuid(5, n),
    address: addressOf(id),
    nvmf: [{ address: addressOf(id), port: 8420 }],
    discovery: [],
    nbd: [],
    rpc: [],
    reactors: 1,
    features: {
      asymmetricNamespaceAccess: true,
      nbd: true,
      writeIntentLog: true,
      replicaSnapshots: true,
      poolGrow: true,
    },
  };
}

/** As it comes from an engine: read from JSON, so that its texts are the observer's own and whole. */
function asReported<T>(value: T): T {
  return JSON.parse(JSON.stringify(value)) as T;
}

/** What the engines report, `nowMs` being when they were heard of last. */
export function observedEngines(
  { nodes, pools, replicas, nexuses }: LargeCluster,
  nowMs: number,
): Map<string, ObservedNode> {
  const perPool = Map.groupBy(replicas, ({ poolId }) => poolId);
  const perNode = {
    pools: Map.groupBy(pools, ({ nodeId }) => nodeId),
    replicas: Map.groupBy(replicas, ({ nodeId }) => nodeId),
    nexuses: Map.groupBy(nexuses, ({ nodeId }) => nodeId),
  };
  return new Map(
    nodes.map(({ id }, n): [string, ObservedNode] => {
      const own = {
        pools: perNode.pools.get(id) ?? [],
        replicas: perNode.replicas.get(id) ?? [],
        nexuses: perNode.nexuses.get(id) ?? [],
      };
      const report = asReported({
        info: observedInfo(id, n),
        pools: own.pools.map((pool) => observedPool(pool, perPool.get(pool.id)?.length ?? 0)),
        replicas: own.replicas.map(observedReplica),
        nexuses: own.nexuses.map(observedNexus),
      });
      return [
        id,
        {
          id,
          status: "Online",
          lastSeenMs: nowMs,
          offlineSinceMs: null,
          info: report.info,
          pools: new Map(report.pools.map((pool) => [pool.name, pool])),
          replicas: new Map(report.replicas.map((replica) => [replica.uuid, replica])),
          snapshots: new Map(),
          nexuses: new Map(report.nexuses.map((nexus) => [nexus.uuid, nexus])),
        },
      ];
    }),
  );
}
