/**
 * Tables of the replicated store: one per record type of `model.ts`, and the store's own (events,
 * requests, meta). Scalars are columns, nested values are JSON. `migrations/` is generated from it (and then
 * named in `migrations.ts`):
 *
 *   drizzle-kit generate --dialect sqlite --schema src/control/store/schema.ts \
 *     --out src/control/store/migrations --name <what-changes>
 *
 * A column that is added later needs a default in SQL: tables of an older version do not have it until
 * every member knows it, and are read as if it held that default.
 */
import { index, integer, sqliteTable, text } from "drizzle-orm/sqlite-core";
import type {
  Labels,
  NewEvent,
  NexusChildRecord,
  NodeRecord,
  RebuildHistoryRecord,
  ReplicaRecord,
  ReplicaSnapshotRecord,
  SpecStatus,
  TokenRecord,
  Topology,
  VolumeOperation,
  VolumeTarget,
} from "../model.ts";

const revision = () => integer("revision").notNull();
const createdAtMs = () => integer("created_at_ms").notNull();
const flag = (name: string) => integer(name, { mode: "boolean" });
const json = <T>(name: string) => text(name, { mode: "json" }).$type<T>();
const status = () => text("status").$type<SpecStatus>().notNull();
const labels = () => json<Labels>("labels").notNull();

export const nodes = sqliteTable("nodes", {
  id: text("id").primaryKey(),
  revision: revision(),
  raftId: text("raft_id").notNull(),
  peerEndpoint: text("peer_endpoint").notNull(),
  engineEndpoint: text("engine_endpoint").notNull(),
  hostNqn: text("host_nqn").notNull(),
  version: text("version").notNull(),
  labels: labels(),
  cordonLabels: json<readonly string[]>("cordon_labels").notNull(),
  drainLabels: json<readonly string[]>("drain_labels").notNull(),
  drainPhase: text("drain_phase").$type<NodeRecord["drainPhase"]>().notNull(),
  evacuate: flag("evacuate").notNull(),
  createdAtMs: createdAtMs(),
});

export const pools = sqliteTable(
  "pools",
  {
    id: text("id").primaryKey(),
    revision: revision(),
    uuid: text("uuid").notNull(),
    nodeId: text("node_id").notNull(),
    disks: json<readonly string[]>("disks").notNull(),
    labels: labels(),
    status: status(),
    clusterSizeBytes: integer("cluster_size_bytes"),
    force: flag("force").notNull(),
    cordoned: flag("cordoned").notNull(),
    createdAtMs: createdAtMs(),
  },
  (table) => [index("pools_node").on(table.nodeId)],
);

export const volumes = sqliteTable("volumes", {
  uuid: text("uuid").primaryKey(),
  revision: revision(),
  sizeBytes: integer("size_bytes").notNull(),
  replicaCount: integer("replica_count").notNull(),
  thin: flag("thin").notNull(),
  asThin: flag("as_thin").notNull(),
  selfHeal: flag("self_heal").notNull(),
  topology: json<Topology>("topology"),
  labels: labels(),
  affinityGroup: text("affinity_group"),
  maxSnapshots: integer("max_snapshots"),
  contentSource: json<{ readonly snapshotUuid: string; readonly volumeUuid: string }>(
    "content_source",
  ),
  status: status(),
  target: json<VolumeTarget>("target"),
  epoch: integer("epoch").notNull(),
  incarnation: integer("incarnation").notNull(),
  cleanShutdown: flag("clean_shutdown").notNull(),
  victimReplica: text("victim_replica"),
  operation: json<{ readonly operation: VolumeOperation; readonly result: boolean | null }>(
    "operation",
  ),
  createdAtMs: createdAtMs(),
});

export const replicas = sqliteTable(
  "replicas",
  {
    uuid: text("uuid").primaryKey(),
    revision: revision(),
    volumeUuid: text("volume_uuid"),
    poolId: text("pool_id").notNull(),
    nodeId: text("node_id").notNull(),
    sizeBytes: integer("size_bytes").notNull(),
    thin: flag("thin").notNull(),
    kind: text("kind").$type<ReplicaRecord["kind"]>().notNull(),
    snapshotUuid: text("snapshot_uuid"),
    status: status(),
    healthy: flag("healthy").notNull(),
    faultedAtMs: integer("faulted_at_ms"),
    allowedHosts: json<readonly string[]>("allowed_hosts"),
    createdAtMs: createdAtMs(),
  },
  (table) => [
    index("replicas_volume").on(table.volumeUuid),
    index("replicas_pool").on(table.poolId),
  ],
);

export const nexuses = sqliteTable(
  "nexuses",
  {
    uuid: text("uuid").primaryKey(),
    revision: revision(),
    volumeUuid: text("volume_uuid"),
    name: text("name").notNull(),
    nodeId: text("node_id").notNull(),
    sizeBytes: integer("size_bytes").notNull(),
    epoch: integer("epoch").notNull(),
    children: json<readonly NexusChildRecord[]>("children").notNull(),
    status: status(),
    phase: text("phase").$type<"Open" | "Shutdown">().notNull(),
    share: text("share").$type<"none" | "nvmf">().notNull(),
    allowedHosts: json<readonly string[]>("allowed_hosts").notNull(),
    controllerIds: json<{ readonly min: number; readonly max: number }>("controller_ids").notNull(),
    createdAtMs: createdAtMs(),
  },
  (table) => [index("nexuses_volume").on(table.volumeUuid)],
);

export const snapshots = sqliteTable(
  "snapshots",
  {
    uuid: text("uuid").primaryKey(),
    revision: revision(),
    volumeUuid: text("volume_uuid").notNull(),
    sizeBytes: integer("size_bytes").notNull(),
    status: status(),
    txnId: integer("txn_id").notNull(),
    replicas: json<readonly ReplicaSnapshotRecord[]>("replicas").notNull(),
    takenAtMs: integer("taken_at_ms"),
    createdAtMs: createdAtMs(),
  },
  (table) => [index("snapshots_volume").on(table.volumeUuid)],
);

export const appNodes = sqliteTable("app_nodes", {
  id: text("id").primaryKey(),
  revision: revision(),
  endpoint: text("endpoint").notNull(),
  labels: labels(),
});

export const watches = sqliteTable("watches", {
  id: text("id").primaryKey(),
  revision: revision(),
  volumeUuid: text("volume_uuid").notNull(),
  callback: text("callback").notNull(),
});

export const rebuildHistory = sqliteTable(
  "rebuild_history",
  {
    id: text("id").primaryKey(),
    revision: revision(),
    volumeUuid: text("volume_uuid").notNull(),
    nexusUuid: text("nexus_uuid").notNull(),
    childUri: text("child_uri").notNull(),
    sourceUri: text("source_uri").notNull(),
    state: text("state").$type<RebuildHistoryRecord["state"]>().notNull(),
    blocksTotal: integer("blocks_total").notNull(),
    blocksRecovered: integer("blocks_recovered").notNull(),
    blocksTransferred: integer("blocks_transferred").notNull(),
    blocksRemaining: integer("blocks_remaining").notNull(),
    blockSize: integer("block_size").notNull(),
    isPartial: flag("is_partial").notNull(),
    startTimeMs: integer("start_time_ms").notNull(),
    endTimeMs: integer("end_time_ms").notNull(),
  },
  (table) => [index("rebuild_history_volume").on(table.volumeUuid)],
);

export const tokens = sqliteTable("tokens", {
  id: text("id").primaryKey(),
  revision: revision(),
  secretSha256: text("secret_sha256").notNull(),
  kind: text("kind").$type<TokenRecord["kind"]>().notNull(),
  expiresAtMs: integer("expires_at_ms").notNull(),
  note: text("note").notNull(),
});

export const settings = sqliteTable("settings", {
  key: text("key").primaryKey(),
  revision: revision(),
  value: text("value").notNull(),
});

/** What happened, oldest first; the store keeps the newest `EVENTS_KEPT`. */
export const events = sqliteTable("events", {
  id: integer("id").primaryKey(),
  atMs: integer("at_ms").notNull(),
  category: text("category").$type<NewEvent["category"]>().notNull(),
  action: text("action").notNull(),
  target: text("target").notNull(),
  nodeId: text("node_id"),
  component: text("component").notNull(),
  message: text("message").notNull(),
});

/** Idempotency keys that were applied, with what their requests were answered. */
export const requests = sqliteTable(
  "requests",
  {
    key: text("key").primaryKey(),
    /** Raft index that applied it. */
    revision: revision(),
    atMs: integer("at_ms").notNull(),
    /** JSON of the value that the transaction resolved with. */
    outcome: text("outcome").notNull(),
  },
  (table) => [index("requests_at").on(table.atMs)],
);

/** Numbers of the store itself: `schema_version`, `last_event_id`. */
export const meta = sqliteTable("meta", {
  name: text("name").primaryKey(),
  value: integer("value").notNull(),
});
