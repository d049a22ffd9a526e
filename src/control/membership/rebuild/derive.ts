/**
 * Makes records of what the disks say, when the store is lost. Pure.
 *
 * | record   | taken from the disks | not on any disk, and therefore |
 * |----------|----------------------|--------------------------------|
 * | pool     | name, UUID, node, disk, cluster size | labels: none |
 * | replica  | UUID, volume, size, thin, who may connect; healthy: its generation is the volume's highest | - |
 * | volume   | UUID, size, epoch, closed in order | replica count: how many were found; labels, topology, limits of snapshots, affinity: none; self-healing: on |
 * | snapshot | UUID, replicas, time | - |
 * | nexus    | one that serves its volume at the highest epoch is kept as the volume's target | hosts are named by their NQNs |
 *
 * Records that are there already stay as they are.
 */
import type { EngineNexus, EngineReplica, StoreView } from "../../cluster-state.ts";
import type {
  NexusRecord,
  NodeId,
  NodeRecord,
  PoolRecord,
  ReplicaRecord,
  SnapshotRecord,
  Uuid,
  VolumeRecord,
  VolumeTarget,
} from "../../model.ts";
import { controllerIdsOf } from "../../planner/decide/publish.ts";
import type { Change } from "../../planner/plan.ts";
import type { FoundNode, Rebuild, RebuiltPool, RebuiltVolume } from "./found.ts";

const uuidPattern = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g;

function isUuid(text: string): boolean {
  return text.match(uuidPattern)?.[0] === text;
}

interface PlacedReplica {
  readonly replica: EngineReplica;
  readonly nodeId: NodeId;
}

interface PlacedNexus {
  readonly nexus: EngineNexus;
  readonly nodeId: NodeId;
}

/** Collects what is wrong, for people. */
type Tell = (problem: string) => void;

/** Pools that may get records: those whose name is found once. */
function choosePools(view: StoreView, found: readonly FoundNode[], nowMs: number, tell: Tell) {
  const byId = new Map<string, { nodeId: NodeId; record: PoolRecord }[]>();
  for (const { nodeId, pools } of found) {
    for (const pool of pools) {
      const record: PoolRecord = {
        id: pool.name,
        uuid: pool.uuid,
        nodeId,
        disks: pool.disks,
        labels: {},
        status: "Created",
        clusterSizeBytes: pool.clusterSizeBytes,
        force: false,
        cordoned: false,
        createdAtMs: nowMs,
        revision: 0,
      };
      byId.set(pool.name, [...(byId.get(pool.name) ?? []), { nodeId, record }]);
    }
  }
  const report: RebuiltPool[] = [];
  const usable = new Set<string>();
  const changes: Change[] = [];
  for (const [id, places] of byId) {
    const stored = view.pools.get(id);
    for (const { nodeId, record } of places) {
      const isStored = stored?.uuid === record.uuid && stored.nodeId === nodeId;
      const isAlone = places.length === 1;
      const action = isStored ? "present" : isAlone && stored === undefined ? "create" : "left";
      report.push({ id, nodeId, uuid: record.uuid, action });
      if (action !== "left") usable.add(`${nodeId}/${id}`);
      if (action === "create") changes.push({ table: "pools", put: record });
      if (action !== "left") continue;
      const why = isAlone
        ? `a record of another pool of that name is there (on ${stored?.nodeId})`
        : `there are pools of that name on ${places.map((place) => place.nodeId).join(" and ")}`;
      tell(`pool ${id} on ${nodeId} gets no record, nor does what is in it: ${why}`);
    }
  }
  return { report, usable, changes };
}

/** Volume that a replica belongs to; null: none that it names. */
function volumeOf(replica: EngineReplica): Uuid | null {
  const { volumeUuid } = replica.sync;
  if (isUuid(volumeUuid)) return volumeUuid;
  return isUuid(replica.entityId) ? replica.entityId : null;
}

function replicaRecord(
  { replica, nodeId }: PlacedReplica,
  volumeUuid: Uuid | null,
  healthy: boolean,
  nowMs: number,
): ReplicaRecord {
  const share = replica.shares.find(({ protocol }) => protocol === "nvmf");
  return {
    uuid: replica.uuid,
    volumeUuid,
    poolId: replica.poolName,
    nodeId,
    sizeBytes: replica.sizeBytes,
    thin: replica.thin,
    kind: replica.kind === "clone" ? "SnapshotClone" : "Regular",
    snapshotUuid: replica.snapshotUuid,
    status: "Created",
    healthy,
    faultedAtMs: healthy ? null : nowMs,
    allowedHosts: share === undefined ? null : (share.allowedHosts ?? []),
    createdAtMs: nowMs,
    revision: 0,
  };
}

/** The nexus that serves a volume: the one of the highest epoch, when that is open to hosts. */
function servingNexus(nexuses: readonly PlacedNexus[], epoch: number): PlacedNexus | null {
  const [newest] = nexuses.toSorted((a, b) => b.nexus.epoch - a.nexus.epoch);
  if (newest === undefined || newest.nexus.epoch < epoch) return null;
  const { state, shares } = newest.nexus;
  const isOpen = state === "online" || state === "degraded" || state === "faulted";
  return isOpen && shares.some(({ protocol }) => protocol === "nvmf") ? newest : null;
}

function nexusRecord(
  { nexus, nodeId }: PlacedNexus,
  node: Pick<NodeRecord, "raftId">,
  volumeUuid: Uuid,
  replicas: ReadonlySet<Uuid>,
  nowMs: number,
): NexusRecord {
  const share = nexus.shares.find(({ protocol }) => protocol === "nvmf");
  return {
    uuid: nexus.uuid,
    volumeUuid,
    name: nexus.name,
    nodeId,
    sizeBytes: nexus.sizeBytes,
    epoch: nexus.epoch,
    children: nexus.children.map(({ uri }) => ({
      uri,
      replicaUuid: (uri.match(uuidPattern) ?? []).find((uuid) => replicas.has(uuid)) ?? null,
    })),
    status: "Created",
    phase: "Open",
    share: "nvmf",
    allowedHosts: share?.allowedHosts ?? [],
    controllerIds: controllerIdsOf(node),
    createdAtMs: nowMs,
    revision: 0,
  };
}

interface Derived {
  readonly changes: readonly Change[];
  readonly volume: RebuiltVolume;
}

/** Records of one volume with its replicas, and with the nexus that serves it. */
function deriveVolume(
  view: StoreView,
  uuid: Uuid,
  replicas: readonly PlacedReplica[],
  nexuses: readonly PlacedNexus[],
  nowMs: number,
  tell: Tell,
): Derived {
  const generation = Math.max(...replicas.map(({ replica }) => replica.sync.generation));
  const healthy = replicas.filter(({ replica }) => replica.sync.generation === generation);
  const replicaEpoch = Math.max(...replicas.map(({ replica }) => replica.sync.epoch));
  const serving = servingNexus(nexuses, replicaEpoch);
  const epoch = Math.max(replicaEpoch, ...nexuses.map(({ nexus }) => nexus.epoch));
  const sizeBytes = Math.min(...healthy.map(({ replica }) => replica.sizeBytes));
  if (new Set(healthy.map(({ replica }) => replica.sizeBytes)).size > 1) {
    tell(`volume ${uuid}: its replicas differ in size; the smallest counts: grow it to mend them`);
  }
  const { target, nexus } = targetOf(view, uuid, serving, replicas, nowMs);
  const record: VolumeRecord = {
    uuid,
    sizeBytes,
    replicaCount: replicas.length,
    thin: replicas.every(({ replica }) => replica.thin),
    asThin: false,
    selfHeal: true,
    topology: null,
    labels: {},
    affinityGroup: null,
    maxSnapshots: null,
    contentSource: null,
    status: "Created",
    target,
    epoch,
    incarnation: epoch,
    cleanShutdown: serving === null && healthy.every(({ replica }) => replica.sync.clean),
    victimReplica: null,
    operation: null,
    createdAtMs: nowMs,
    revision: 0,
  };
  const isStored = view.volumes.has(uuid);
  const missing = replicas.filter(({ replica }) => !view.replicas.has(replica.uuid));
  if (isStored && missing.length > 0) {
    tell(
      `volume ${uuid} has a record; replicas without one are left: ` +
        missing.map(({ replica }) => replica.uuid).join(", "),
    );
  }
  const volume: RebuiltVolume = {
    uuid,
    sizeBytes,
    replicaCount: replicas.length,
    healthyReplicas: healthy.length,
    thin: record.thin,
    epoch,
    servedBy: serving?.nodeId ?? null,
    action: isStored ? "present" : "create",
  };
  if (isStored) return { volume, changes: [] };
  const changes: Change[] = [
    { table: "volumes", put: record },
    ...missing.map((placed): Change => {
      const isHealthy = healthy.includes(placed);
      return { table: "replicas", put: replicaRecord(placed, uuid, isHealthy, nowMs) };
    }),
    ...(nexus === null || view.nexuses.has(nexus.uuid)
      ? []
      : [{ table: "nexuses", put: nexus } as const]),
  ];
  return { volume, changes };
}

function targetOf(
  view: StoreView,
  volumeUuid: Uuid,
  serving: PlacedNexus | null,
  replicas: readonly PlacedReplica[],
  nowMs: number,
): { readonly target: VolumeTarget | null; readonly nexus: NexusRecord | null } {
  const node = serving === null ? undefined : view.nodes.get(serving.nodeId);
  if (serving === null || node === undefined) return { target: null, nexus: null };
  const uuids = new Set(replicas.map(({ replica }) => replica.uuid));
  const nexus = nexusRecord(serving, node, volumeUuid, uuids, nowMs);
  const target: VolumeTarget = {
    nexusUuid: nexus.uuid,
    nodeId: nexus.nodeId,
    protocol: "nvmf",
    frontendNodes: nexus.allowedHosts.map((nqn) => ({ name: nqn, nqn })),
    publishContext: {},
  };
  return { target, nexus };
}

/** Records of snapshots: those of one taking belong together (same entity, same transaction). */
function deriveSnapshots(
  view: StoreView,
  found: readonly FoundNode[],
  volumeOfReplica: ReadonlyMap<Uuid, Uuid>,
  usable: ReadonlySet<string>,
  nowMs: number,
  tell: Tell,
): SnapshotRecord[] {
  const byEntity = new Map<Uuid, SnapshotRecord>();
  for (const { nodeId, snapshots } of found) {
    for (const one of snapshots) {
      if (!usable.has(`${nodeId}/${one.poolName}`)) continue;
      const uuid = isUuid(one.entityId) ? one.entityId : one.uuid;
      const volumeUuid = volumeOfReplica.get(one.sourceUuid);
      if (volumeUuid === undefined) {
        tell(`snapshot ${one.uuid} on ${nodeId} gets no record: its replica is not there any more`);
        continue;
      }
      if (view.snapshots.has(uuid)) continue;
      const txnId = Number(one.txnId) || 0;
      const before = byEntity.get(uuid);
      // Another attempt that did not succeed everywhere.
      if (before !== undefined && before.txnId > txnId) continue;
      const { sourceUuid, poolName } = one;
      const taken = {
        ...{ uuid: one.uuid, sourceUuid, nodeId },
        poolId: poolName,
        status: "Created",
      } as const;
      byEntity.set(uuid, {
        uuid,
        volumeUuid,
        sizeBytes: one.sizeBytes,
        status: "Created",
        txnId,
        replicas: [...(before?.txnId === txnId ? before.replicas : []), taken],
        takenAtMs: one.createdAtMs,
        createdAtMs: nowMs,
        revision: 0,
      });
    }
  }
  return [...byEntity.values()];
}

function groupBy<T>(items: readonly T[], keyOf: (item: T) => string | null): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const key = keyOf(item);
    if (key !== null) groups.set(key, [...(groups.get(key) ?? []), item]);
  }
  return groups;
}

/** What is to be put into the store so that it knows what was found. */
export function deriveRecords(
  view: StoreView,
  found: readonly FoundNode[],
  nowMs: number,
): Rebuild {
  const problems = found.flatMap((node) => node.problems);
  const tell: Tell = (problem) => problems.push(problem);
  const pools = choosePools(view, found, nowMs, tell);
  const placed = found.flatMap(({ nodeId, replicas }) =>
    replicas
      .filter(({ poolName }) => pools.usable.has(`${nodeId}/${poolName}`))
      .map((replica): PlacedReplica => ({ replica, nodeId })),
  );
  const nexuses = found.flatMap(({ nodeId, nexuses: all }) =>
    all.map((nexus): PlacedNexus => ({ nexus, nodeId })),
  );
  const byVolume = groupBy(placed, ({ replica }) => volumeOf(replica));
  const nexusesByVolume = groupBy(nexuses, ({ nexus }) => nexus.volumeUuid);
  const derived = [...byVolume].map(([uuid, replicas]) =>
    deriveVolume(view, uuid, replicas, nexusesByVolume.get(uuid) ?? [], nowMs, tell),
  );
  const alone = placed.filter(
    ({ replica }) => volumeOf(replica) === null && !view.replicas.has(replica.uuid),
  );
  const volumeOfReplica = new Map(
    placed.flatMap(({ replica }) => {
      const volume = volumeOf(replica);
      return volume === null ? [] : [[replica.uuid, volume] as const];
    }),
  );
  for (const [uuid, open] of nexusesByVolume) {
    if (byVolume.has(uuid)) continue;
    const where = open.map(({ nodeId }) => nodeId).join(", ");
    tell(`volume ${uuid} is open on ${where}, and none of its replicas was found: it is left`);
  }
  const snapshots = deriveSnapshots(view, found, volumeOfReplica, pools.usable, nowMs, tell);
  const groups: Change[][] = [
    ...derived.map(({ changes }) => [...changes]),
    ...alone.map((one): Change[] => [
      { table: "replicas", put: replicaRecord(one, null, true, nowMs) },
    ]),
    ...snapshots.map((snapshot): Change[] => [{ table: "snapshots", put: snapshot }]),
    pools.changes,
  ].filter((group) => group.length > 0);
  const count = (table: Change["table"]) =>
    groups.flat().filter((change) => change.table === table).length;
  return {
    groups,
    report: {
      pools: pools.report,
      volumes: derived.map(({ volume }) => volume),
      replicas: count("replicas"),
      snapshots: count("snapshots"),
      nexuses: count("nexuses"),
      problems,
    },
  };
}
