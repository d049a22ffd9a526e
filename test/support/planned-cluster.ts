/**
 * A cluster for tests of decisions: the store's real view, engines that are plain values, and a short
 * stand-in for reconciliation that carries out at once whatever is recorded. Nothing waits, nothing is
 * random.
 */
import type {
  ClusterSettings,
  ClusterState,
  EngineNexus,
  EnginePool,
  EngineReplica,
  ObservedNode,
  StoreView,
} from "../../src/control/cluster-state.ts";
import type { CreateVolumeRequest } from "../../src/control/control.ts";
import type { NodeRecord, PoolRecord, ReplicaRecord, Uuid } from "../../src/control/model.ts";
import { deviceBytes } from "../../src/control/planner/capacity.ts";
import { decisionUuids } from "../../src/control/planner/decide/index.ts";
import type { Change, Decision } from "../../src/control/planner/plan.ts";
import { keyOf, type RecordTables, tableNames } from "../../src/control/store/tables.ts";
import { TableView, type Touched } from "../../src/control/store/view.ts";
import { TrilithError } from "../../src/errors.ts";
import { nodeRecord, poolRecord } from "./store-records.ts";

export const MiB = 2 ** 20;
export const GiB = 2 ** 30;
const CLUSTER_BYTES = 4 * MiB;

export const defaultSettings: ClusterSettings = {
  poolCommitmentPercent: 250,
  volumeCommitmentPercent: 40,
  volumeCommitmentInitialPercent: 40,
  snapshotCommitmentPercent: 40,
  faultedChildWaitMs: 600_000,
  maxRebuilds: null,
  maxRebuildsPerNode: null,
  maxVolumeCreates: 10,
  nodeDeadlineMs: 10_000,
  restrictHosts: true,
  switchOver: true,
  // Records of tests are old by the clock of their state: what is due would be begun unasked.
  scrubIntervalMs: 0,
  scrubBytesPerSec: 64 << 20,
  maxScrubs: 4,
  maxScrubsPerNode: 1,
  scrubWindow: null,
};

/** UUIDs that count upwards: `00000000-0000-4000-8000-<n>`. */
export function testUuid(n: number): Uuid {
  return `00000000-0000-4000-8000-${n.toString(16).padStart(12, "0")}`;
}

interface Engine {
  status: ObservedNode["status"];
  readonly pools: Map<string, { capacityBytes: number; state: EnginePool["state"] }>;
  readonly replicas: Map<Uuid, { record: ReplicaRecord; allocatedBytes: number }>;
  readonly nexuses: Map<Uuid, EngineNexus>;
}

function emptyTables(): RecordTables {
  const entries = tableNames.map((name) => [name, { all: () => [] }]);
  return Object.fromEntries(entries) as unknown as RecordTables;
}

/** A transaction that the store would refuse. */
export class Refused extends Error {}

export class PlannedCluster {
  #view = TableView.load(emptyTables(), 0);
  #index = 0;
  #uuids = 0;
  readonly engines = new Map<string, Engine>();
  settings: ClusterSettings = defaultSettings;
  nowMs = 1_700_000_000_000;

  get stored(): StoreView {
    return this.#view.tables;
  }

  /** A UUID that was not given out before. */
  uuid(): Uuid {
    this.#uuids += 1;
    return testUuid(this.#uuids);
  }

  /** As many as a decision may need. */
  uuids(): Uuid[] {
    return Array.from({ length: decisionUuids }, () => this.uuid());
  }

  addNode(id: string, changes: Partial<NodeRecord> = {}): void {
    this.engines.set(id, {
      status: "Online",
      pools: new Map(),
      replicas: new Map(),
      nexuses: new Map(),
    });
    this.put({ table: "nodes", put: nodeRecord(id, changes) });
  }

  /** A pool that is there, of so many bytes. */
  addPool(
    id: string,
    nodeId: string,
    capacityBytes: number,
    changes: Partial<PoolRecord> = {},
  ): void {
    this.engines.get(nodeId)!.pools.set(id, { capacityBytes, state: "online" });
    this.put({ table: "pools", put: poolRecord(id, nodeId, changes) });
  }

  /** Nodes `node-1` ... each with a pool `pool-1` ... */
  static ofNodes(count: number, capacityBytes = 100 * GiB): PlannedCluster {
    const cluster = new PlannedCluster();
    for (let n = 1; n <= count; n += 1) {
      cluster.addNode(`node-${n}`);
      cluster.addPool(`pool-${n}`, `node-${n}`, capacityBytes);
    }
    return cluster;
  }

  /** Writes as the store does: every put names the revision that it was made from. */
  put(...changes: readonly Change[]): void {
    const keys = new Set<string>();
    for (const change of changes) {
      const isPut = "put" in change;
      const key = isPut ? keyOf(change.table, change.put) : change.remove;
      const now = this.#view.revisionOf(change.table, key);
      const expected = isPut ? change.put.revision : (change.revision ?? now);
      const name = `${change.table}/${key}`;
      if (now !== expected) throw new Refused(`${name} has revision ${now}, not ${expected}`);
      if (keys.has(name)) throw new Refused(`${name} is changed twice`);
      keys.add(name);
    }
    this.#index += 1;
    const touched = changes.map((change) => {
      const { table } = change;
      if (!("put" in change)) return { table, key: change.remove, record: null };
      return {
        table,
        key: keyOf(table, change.put),
        record: { ...change.put, revision: this.#index },
      };
    }) as Touched[];
    this.#view = this.#view.with(this.#index, touched);
  }

  apply(decision: Decision): Decision {
    if (decision.changes.length > 0) this.put(...decision.changes);
    return decision;
  }

  /** Decides on the state as it is and applies that. */
  run(decide: (state: ClusterState, uuids: Uuid[]) => Decision): Decision {
    return this.apply(decide(this.state(), this.uuids()));
  }

  setNode(id: string, status: ObservedNode["status"]): void {
    this.engines.get(id)!.status = status;
  }

  edit<T extends "volumes" | "replicas" | "nexuses" | "pools" | "nodes" | "snapshots">(
    table: T,
    key: string,
    // biome-ignore lint/complexity/noBannedTypes: the fields are the table's; the store checks nothing else.
    changes: Partial<StoreView[T] extends ReadonlyMap<string, infer R> ? R : {}>,
  ): void {
    const before = this.stored[table].get(key);
    this.put({ table, put: { ...before!, ...changes } } as Change);
  }

  // ------------------------------------------------------------------------------------- engines

  #usedBytes(engine: Engine, poolId: string): number {
    let used = 0;
    for (const { record, allocatedBytes } of engine.replicas.values()) {
      if (record.poolId !== poolId) continue;
      const thick = Math.ceil(deviceBytes(record.sizeBytes) / CLUSTER_BYTES) * CLUSTER_BYTES;
      used += record.thin ? allocatedBytes : thick;
    }
    return used;
  }

  #observedPool(engine: Engine, id: string): EnginePool {
    const { capacityBytes, state } = engine.pools.get(id)!;
    const inside = [...engine.replicas.values()].filter(({ record }) => record.poolId === id);
    return {
      name: id,
      uuid: `uuid-of-${id}`,
      disks: [`/dev/disk/by-id/${id}`],
      state,
      stateReason: "",
      readErrors: 0,
      writeErrors: 0,
      metadataErrors: 0,
      blockSize: 512,
      clusterSizeBytes: CLUSTER_BYTES,
      capacityBytes,
      usedBytes: this.#usedBytes(engine, id),
      committedBytes: inside.reduce((sum, { record }) => sum + deviceBytes(record.sizeBytes), 0),
      metadataBytes: 0,
      diskCapacityBytes: capacityBytes,
      replicas: inside.length,
      snapshots: 0,
      reactor: 0,
    };
  }

  #observedReplica(engine: Engine, uuid: Uuid): EngineReplica {
    const { record, allocatedBytes } = engine.replicas.get(uuid)!;
    const sizeBytes = deviceBytes(record.sizeBytes);
    return {
      uuid,
      name: uuid,
      poolName: record.poolId,
      poolUuid: `uuid-of-${record.poolId}`,
      kind: record.snapshotUuid === null ? "regular" : "clone",
      state: engine.pools.get(record.poolId)?.state ?? "offline",
      sizeBytes,
      blockSize: 512,
      thin: record.thin,
      entityId: "",
      snapshotUuid: record.snapshotUuid,
      uri: `bdev:///${uuid}`,
      shares: [],
      claimedBy: null,
      space: {
        capacityBytes: sizeBytes,
        allocatedBytes,
        allocatedBytesSnapshots: 0,
        allocatedBytesAllSnapshots: 0,
        clusterSizeBytes: CLUSTER_BYTES,
        clusters: Math.ceil(sizeBytes / CLUSTER_BYTES),
        allocatedClusters: Math.ceil(allocatedBytes / CLUSTER_BYTES),
      },
      sync: {
        volumeUuid: record.volumeUuid ?? "",
        epoch: 0,
        generation: 0,
        baseGeneration: 0,
        clean: true,
        dirtyRegions: 0,
      },
      reactor: 0,
    };
  }

  #observedNode(id: string, engine: Engine, at: number): ObservedNode {
    const address = `10.0.0.${at + 1}`;
    return {
      id,
      status: engine.status,
      lastSeenMs: this.nowMs,
      offlineSinceMs: engine.status === "Offline" ? this.nowMs : null,
      info: {
        nodeName: id,
        version: "0.1.0",
        commit: "",
        bun: "",
        apiVersions: ["v1"],
        instanceUuid: id,
        pid: 1,
        startedAt: "",
        hostNqn: `nqn.2019-05.io.openebs:node-name:${id}`,
        hostId: "",
        address,
        nvmf: [{ address, port: 8420 }],
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
      },
      pools: new Map(
        [...engine.pools.keys()].map((pool) => [pool, this.#observedPool(engine, pool)]),
      ),
      replicas: new Map(
        [...engine.replicas.keys()].map((uuid) => [uuid, this.#observedReplica(engine, uuid)]),
      ),
      snapshots: new Map(),
      nexuses: new Map(engine.nexuses),
    };
  }

  state(): ClusterState {
    const observed = [...this.engines].map(
      ([id, engine], at) => [id, this.#observedNode(id, engine, at)] as const,
    );
    return {
      nowMs: this.nowMs,
      settings: this.settings,
      stored: this.stored,
      observed: new Map(observed),
    };
  }

  /** What a thin replica holds. */
  allocate(uuid: Uuid, bytes: number): void {
    this.engines.get(this.stored.replicas.get(uuid)!.nodeId)!.replicas.get(uuid)!.allocatedBytes =
      bytes;
  }

  // ------------------------------------------------------------------------------ reconciliation

  /** Carries out what is recorded, on nodes that answer. */
  carryOut(): void {
    for (const pool of [...this.stored.pools.values()]) this.#carryOutPool(pool);
    this.#carryOutNexuses();
    for (const replica of [...this.stored.replicas.values()]) this.#carryOutReplica(replica);
    for (const snapshot of [...this.stored.snapshots.values()]) {
      const { uuid, status } = snapshot;
      if (status === "Deleting") this.put({ table: "snapshots", remove: uuid });
      if (status !== "Creating") continue;
      const replicas = snapshot.replicas.map((one) => ({ ...one, status: "Created" }) as const);
      this.edit("snapshots", uuid, { status: "Created", replicas, takenAtMs: this.nowMs });
    }
    for (const volume of [...this.stored.volumes.values()]) {
      const { uuid, status } = volume;
      const replicas = this.stored.replicasOfVolume.get(uuid)?.size ?? 0;
      const nexuses = this.stored.nexusesOfVolume.get(uuid)?.size ?? 0;
      if (status === "Creating") this.edit("volumes", uuid, { status: "Created" });
      if (status !== "Deleting" || replicas + nexuses > 0) continue;
      this.put({ table: "volumes", remove: uuid });
    }
  }

  #online(nodeId: string): Engine | null {
    const engine = this.engines.get(nodeId);
    return engine?.status === "Online" ? engine : null;
  }

  #carryOutPool(pool: PoolRecord): void {
    const engine = this.#online(pool.nodeId);
    if (engine === null) return;
    if (pool.status === "Creating") {
      engine.pools.set(pool.id, { capacityBytes: 100 * GiB, state: "online" });
      this.edit("pools", pool.id, { status: "Created", force: false });
    } else if (pool.status === "Deleting") {
      engine.pools.delete(pool.id);
      this.put({ table: "pools", remove: pool.id });
    }
  }

  #carryOutReplica(replica: ReplicaRecord): void {
    const engine = this.#online(replica.nodeId);
    if (engine === null) return;
    const { uuid } = replica;
    if (replica.status === "Deleting") {
      engine.replicas.delete(uuid);
      this.put({ table: "replicas", remove: uuid });
      return;
    }
    const known = engine.replicas.get(uuid);
    engine.replicas.set(uuid, { record: replica, allocatedBytes: known?.allocatedBytes ?? 0 });
    if (replica.status === "Creating") this.edit("replicas", uuid, { status: "Created" });
  }

  #carryOutNexuses(): void {
    for (const nexus of [...this.stored.nexuses.values()]) {
      const engine = this.#online(nexus.nodeId);
      if (engine === null) continue;
      const { uuid } = nexus;
      if (nexus.phase === "Shutdown" || nexus.status === "Deleting") {
        engine.nexuses.delete(uuid);
        this.put({ table: "nexuses", remove: uuid });
        continue;
      }
      if (nexus.status === "Creating") this.edit("nexuses", uuid, { status: "Created" });
      engine.nexuses.set(uuid, {
        uuid,
        name: nexus.name,
        volumeUuid: nexus.volumeUuid ?? uuid,
        epoch: nexus.epoch,
        generation: 1,
        sizeBytes: nexus.sizeBytes,
        blockSize: 512,
        state: "online",
        children: nexus.children.map(({ uri }) => ({
          uri,
          state: "online",
          reason: "none",
          isLocal: uri.startsWith("bdev:"),
          rebuild: null,
        })),
        deviceUri: "",
        shares: [],
        rebuilds: 0,
        dirtyRegions: 0,
        waitingRequests: 0,
        isPaused: false,
        reactor: 0,
      });
    }
  }

  /** Replicas that are made up to date and attached: what a rebuild does. */
  rebuild(volumeUuid: Uuid): void {
    const { target } = this.stored.volumes.get(volumeUuid)!;
    for (const uuid of this.stored.replicasOfVolume.get(volumeUuid) ?? []) {
      const replica = this.stored.replicas.get(uuid)!;
      if (!replica.healthy) this.edit("replicas", uuid, { healthy: true });
      const nexus = target === null ? undefined : this.stored.nexuses.get(target.nexusUuid);
      if (nexus === undefined) continue;
      if (nexus.children.some((child) => child.replicaUuid === uuid)) continue;
      const child = { uri: `nvmf+tcp://rebuilt/${uuid}`, replicaUuid: uuid };
      this.edit("nexuses", nexus.uuid, { children: [...nexus.children, child] });
    }
    this.carryOut();
  }
}

/** What a volume is created with; a test names what it is about. */
export function volumeRequest(
  uuid: Uuid,
  changes: Partial<CreateVolumeRequest> = {},
): CreateVolumeRequest {
  return {
    uuid,
    sizeBytes: GiB,
    replicaCount: 1,
    thin: false,
    selfHeal: true,
    topology: null,
    labels: {},
    affinityGroup: null,
    maxSnapshots: null,
    ...changes,
  };
}

/** The error that a decision ends with; fails when there is none. */
export function refusal(decide: () => unknown): TrilithError {
  try {
    decide();
  } catch (error) {
    if (error instanceof TrilithError) return error;
    throw error;
  }
  throw new Error("it was not refused");
}
