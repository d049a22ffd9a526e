/**
 * The cluster as one value: what is stored (desired) and what the engines report (observed). The
 * planner decides on it, the API shows it. Types only.
 */
import type { EngineResult } from "../engine/rpc/contract.ts";
import type {
  AppNodeRecord,
  NexusRecord,
  NodeId,
  NodeRecord,
  PoolId,
  PoolRecord,
  RebuildHistoryRecord,
  ReplicaRecord,
  SettingRecord,
  SnapshotRecord,
  TokenRecord,
  Uuid,
  VolumeRecord,
  WatchRecord,
} from "./model.ts";

export type EngineInfo = EngineResult<"getInfo">;
export type EnginePool = EngineResult<"getPool">;
export type EngineReplica = EngineResult<"getReplica">;
export type EngineSnapshot = EngineResult<"getSnapshot">;
export type EngineNexus = EngineResult<"getNexus">;
export type EngineStandby = EngineResult<"listStandbys">[number];

/**
 * What is known of a node's engine. While it is not Online the maps hold what it reported last.
 */
export interface ObservedNode {
  readonly id: NodeId;
  /** `Unknown`: not heard of since this leader began. */
  readonly status: "Unknown" | "Online" | "Offline";
  readonly lastSeenMs: number | null;
  readonly offlineSinceMs: number | null;
  readonly info: EngineInfo | null;
  /** By pool name, which is the pool's id. */
  readonly pools: ReadonlyMap<PoolId, EnginePool>;
  readonly replicas: ReadonlyMap<Uuid, EngineReplica>;
  readonly snapshots: ReadonlyMap<Uuid, EngineSnapshot>;
  readonly nexuses: ReadonlyMap<Uuid, EngineNexus>;
  /** By volume. Absent: its engine knows no standbys (an older version), and gets none. */
  readonly standbys?: ReadonlyMap<Uuid, EngineStandby>;
}

/** Cluster-wide settings, with defaults filled in. */
export interface ClusterSettings {
  /** A pool may promise thin volumes up to this share of its capacity (percent). */
  readonly poolCommitmentPercent: number;
  /** Room that a thin replica needs beyond what it holds, of its size (percent). */
  readonly volumeCommitmentPercent: number;
  readonly volumeCommitmentInitialPercent: number;
  readonly snapshotCommitmentPercent: number;
  /** How long a replica may be away before another is built. */
  readonly faultedChildWaitMs: number;
  /** Rebuilds at a time in the cluster; null: no limit. */
  readonly maxRebuilds: number | null;
  /** Rebuilds at a time that keep one node busy, as source or destination; null: no limit. */
  readonly maxRebuildsPerNode: number | null;
  /** Volume creations at a time. */
  readonly maxVolumeCreates: number;
  /** Engines that were silent for so long are Offline. */
  readonly nodeDeadlineMs: number;
  /** Hosts that are let in: only those that something was published to, or everybody. */
  readonly restrictHosts: boolean;
  /** A volume is served elsewhere when the node that serves it is Offline. */
  readonly switchOver: boolean;
  /** A published volume's replicas are compared this long after the last time; 0: only on request. */
  readonly scrubIntervalMs: number;
  /** Bandwidth of one scrub; 0: no limit but hosts' latency. */
  readonly scrubBytesPerSec: number;
  /** Scrubs that are begun by schedule at a time, in the cluster and on a node. */
  readonly maxScrubs: number;
  readonly maxScrubsPerNode: number;
  /** Time of the day (UTC, `HH:MM-HH:MM`) in which scrubs of the schedule run; null: always. */
  readonly scrubWindow: string | null;
}

/** Tables of the store as maps by key. Values never change in place. */
export interface StoreView {
  /** Raft index that it is the state after. */
  readonly appliedIndex: number;
  readonly nodes: ReadonlyMap<NodeId, NodeRecord>;
  readonly pools: ReadonlyMap<PoolId, PoolRecord>;
  readonly volumes: ReadonlyMap<Uuid, VolumeRecord>;
  readonly replicas: ReadonlyMap<Uuid, ReplicaRecord>;
  readonly nexuses: ReadonlyMap<Uuid, NexusRecord>;
  readonly snapshots: ReadonlyMap<Uuid, SnapshotRecord>;
  readonly appNodes: ReadonlyMap<string, AppNodeRecord>;
  readonly watches: ReadonlyMap<string, WatchRecord>;
  readonly rebuildHistory: ReadonlyMap<string, RebuildHistoryRecord>;
  readonly tokens: ReadonlyMap<string, TokenRecord>;
  readonly settings: ReadonlyMap<string, SettingRecord>;
  /** Records by what they belong to; kept up to date by the store. Absent key: none. */
  readonly replicasOfVolume: ReadonlyMap<Uuid, ReadonlySet<Uuid>>;
  readonly replicasOfPool: ReadonlyMap<PoolId, ReadonlySet<Uuid>>;
  readonly nexusesOfVolume: ReadonlyMap<Uuid, ReadonlySet<Uuid>>;
  readonly snapshotsOfVolume: ReadonlyMap<Uuid, ReadonlySet<Uuid>>;
  readonly poolsOfNode: ReadonlyMap<NodeId, ReadonlySet<PoolId>>;
}

/** A way to a volume as a host has it. */
export interface HostPath {
  readonly address: string;
  readonly port: number;
  /** Null: it is connected; else since when the host has said that it is not. */
  readonly lostSinceMs: number | null;
}

/** What a host says of its paths to one volume; only hosts say something that have lost one. */
export interface HostPaths {
  readonly hostNqn: string;
  readonly hostName: string;
  readonly paths: readonly HostPath[];
}

export interface ClusterState {
  readonly nowMs: number;
  readonly settings: ClusterSettings;
  readonly stored: StoreView;
  readonly observed: ReadonlyMap<NodeId, ObservedNode>;
  /** By volume. Known to the leader alone, and for a while: hosts repeat what stays so. Absent: nothing. */
  readonly hostPaths?: ReadonlyMap<Uuid, readonly HostPaths[]>;
}
