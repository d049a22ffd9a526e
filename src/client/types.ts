/**
 * The objects of the REST API as they travel (mayastor-v0-openapi.yaml; mayastor.md 1.2). The
 * mixture of cases is the wire format. Optional fields may also be null. What stands below
 * "additions" is ours, beside the contract.
 */

type Maybe<T> = T | null | undefined;
export type Labels = Readonly<Record<string, string>>;

/** A way by which hosts reach a volume (an addition). */
export interface VolumePath {
  readonly node: string;
  readonly role: "target" | "standby";
  readonly state: "serving" | "listening" | "pending";
  readonly uri: string;
  readonly hosts?: Maybe<number>;
}

export type NodeStatus = "Unknown" | "Online" | "Offline";
export interface CordonDrainState {
  readonly cordonedstate?: Maybe<{ readonly cordonlabels: readonly string[] }>;
  readonly drainingstate?: Maybe<DrainState>;
  readonly drainedstate?: Maybe<DrainState>;
}
export interface DrainState {
  readonly cordonlabels: readonly string[];
  readonly drainlabels: readonly string[];
}
export interface NodeSpec {
  readonly grpcEndpoint: string;
  readonly id: string;
  readonly labels?: Maybe<Labels>;
  readonly cordondrainstate?: Maybe<CordonDrainState>;
  readonly node_nqn?: Maybe<string>;
  readonly version?: Maybe<string>;
}
export interface NodeState {
  readonly grpcEndpoint: string;
  readonly id: string;
  readonly status: NodeStatus;
  readonly node_nqn?: Maybe<string>;
  readonly version?: Maybe<string>;
}
export interface Node {
  readonly id: string;
  readonly spec?: Maybe<NodeSpec>;
  readonly state?: Maybe<NodeState>;
}

export type SpecStatus = "Creating" | "Created" | "Deleting" | "Deleted";
export type PoolStatus = "Unknown" | "Online" | "Degraded" | "Faulted";
export interface PoolSpec {
  readonly disks: readonly string[];
  readonly id: string;
  readonly labels?: Maybe<Labels>;
  readonly node: string;
  readonly status: SpecStatus;
  /** Addition: nothing new is placed on it. */
  readonly cordoned?: Maybe<boolean>;
}
export interface PoolState {
  readonly capacity: number;
  readonly disks: readonly string[];
  readonly id: string;
  readonly node: string;
  readonly status: PoolStatus;
  readonly used: number;
  readonly committed?: Maybe<number>;
  /** Additions. */
  readonly disk_capacity?: Maybe<number>;
  readonly cluster_size?: Maybe<number>;
  /** Why it is not online. */
  readonly reason?: Maybe<string>;
}
export interface Pool {
  readonly id: string;
  readonly spec?: Maybe<PoolSpec>;
  readonly state?: Maybe<PoolState>;
}

export type Protocol = "none" | "nvmf" | "iscsi" | "nbd";
export type ChildState = "Unknown" | "Online" | "Degraded" | "Faulted";
export interface Child {
  readonly rebuildProgress?: Maybe<number>;
  readonly state: ChildState;
  readonly state_reason?: Maybe<string>;
  readonly uri: string;
}
export interface Nexus {
  readonly children: readonly Child[];
  readonly deviceUri: string;
  readonly node: string;
  readonly rebuilds: number;
  readonly protocol: Protocol;
  readonly size: number;
  readonly state: "Unknown" | "Online" | "Degraded" | "Faulted" | "ShuttingDown" | "Shutdown";
  readonly uuid: string;
}

export interface ReplicaUsage {
  readonly capacity: number;
  readonly allocated: number;
  readonly allocated_snapshots: number;
  readonly allocated_all_snapshots: number;
}
export interface ReplicaTopology {
  readonly node?: Maybe<string>;
  readonly pool?: Maybe<string>;
  readonly state: "Unknown" | "Online" | "Degraded" | "Faulted";
  readonly "child-status"?: Maybe<ChildState>;
  readonly "child-status-reason"?: Maybe<string>;
  readonly usage?: Maybe<ReplicaUsage>;
  readonly "rebuild-progress"?: Maybe<number>;
  /** Addition: it holds all that was acknowledged. */
  readonly healthy?: Maybe<boolean>;
}
export interface LabelledTopology {
  readonly exclusion: Labels;
  readonly inclusion: Labels;
  readonly affinity_key?: Maybe<readonly string[]>;
}
export interface ExplicitTopology {
  readonly allowed_nodes: readonly string[];
  readonly preferred_nodes: readonly string[];
}
export type NodeTopology =
  | { readonly explicit: ExplicitTopology }
  | { readonly labelled: LabelledTopology };
export interface Topology {
  readonly node_topology?: Maybe<NodeTopology>;
  readonly pool_topology?: Maybe<{ readonly labelled: LabelledTopology }>;
}
export type VolumeStatus = "Unknown" | "Online" | "Degraded" | "Faulted" | "Shutdown";
export interface VolumeSpec {
  readonly labels?: Maybe<Labels>;
  readonly num_replicas: number;
  readonly operation?: Maybe<{ readonly operation: string; readonly result?: Maybe<boolean> }>;
  readonly size: number;
  readonly status: SpecStatus;
  readonly target?: Maybe<{
    readonly node: string;
    readonly protocol?: Maybe<"nvmf" | "iscsi">;
    readonly frontend_nodes?: Maybe<readonly { readonly name: string; readonly nqn: string }[]>;
  }>;
  readonly uuid: string;
  readonly topology?: Maybe<Topology>;
  readonly policy: { readonly self_heal: boolean };
  readonly thin: boolean;
  readonly as_thin?: Maybe<boolean>;
  readonly affinity_group?: Maybe<{ readonly id: string }>;
  readonly content_source?: Maybe<{
    readonly snapshot?: Maybe<{ readonly snapshot: string; readonly volume: string }>;
  }>;
  readonly num_snapshots: number;
  readonly max_snapshots?: Maybe<number>;
  /** Addition: milliseconds that a replica may be away, if the volume has its own. */
  readonly faulted_child_wait?: Maybe<number>;
}
export interface VolumeUsage {
  readonly capacity: number;
  readonly allocated: number;
  readonly allocated_replica: number;
  readonly allocated_snapshots: number;
  readonly allocated_all_snapshots: number;
  readonly total_allocated: number;
  readonly total_allocated_replicas: number;
  readonly total_allocated_snapshots: number;
}
export interface VolumeState {
  readonly target?: Maybe<Nexus>;
  readonly size: number;
  readonly status: VolumeStatus;
  readonly uuid: string;
  readonly replica_topology: Readonly<Record<string, ReplicaTopology>>;
  readonly usage?: Maybe<VolumeUsage>;
}
export interface Volume {
  readonly spec: VolumeSpec;
  readonly state: VolumeState;
}
/** One page of a listing. */
export interface Page<T> {
  readonly entries: readonly T[];
  readonly next_token?: Maybe<number>;
}

export interface ReplicaSnapshotIds {
  readonly uuid: string;
  readonly source_id: string;
  readonly pool_id: string;
  readonly pool_uuid: string;
}
export interface OnlineReplicaSnapshot extends ReplicaSnapshotIds {
  readonly timestamp: string;
  readonly size: number;
  readonly allocated_size: number;
  readonly predecessor_alloc_size: number;
}
export interface ReplicaSnapshotState {
  readonly online?: Maybe<OnlineReplicaSnapshot>;
  readonly offline?: Maybe<ReplicaSnapshotIds>;
}
export interface VolumeSnapshot {
  readonly definition: {
    readonly metadata: {
      readonly status: SpecStatus;
      readonly timestamp?: Maybe<string>;
      readonly size: number;
      readonly spec_size: number;
      readonly total_allocated_size: number;
      readonly txn_id: string;
      readonly transactions: Readonly<Record<string, readonly unknown[]>>;
      readonly num_restores: number;
      readonly num_snapshot_replicas: number;
    };
    readonly spec: { readonly uuid: string; readonly source_volume: string };
  };
  readonly state: {
    readonly uuid: string;
    readonly allocated_size: number;
    readonly source_volume: string;
    readonly timestamp?: Maybe<string>;
    readonly ready_as_source: boolean;
    readonly replica_snapshots: readonly ReplicaSnapshotState[];
  };
}

export interface RebuildRecord {
  readonly childUri: string;
  readonly srcUri: string;
  readonly rebuildJobState: string;
  readonly blocksTotal: number;
  readonly blocksRecovered: number;
  readonly blocksTransferred: number;
  readonly blocksRemaining: number;
  readonly blockSize: number;
  readonly isPartial: boolean;
  readonly startTime: string;
  readonly endTime: string;
}
export interface RebuildHistory {
  readonly targetUuid: string;
  readonly records: readonly RebuildRecord[];
}

export interface BlockDevice {
  readonly available: boolean;
  readonly connection_type: string;
  readonly devlinks: readonly string[];
  readonly devmajor: number;
  readonly devminor: number;
  readonly devname: string;
  readonly devpath: string;
  readonly devtype: string;
  readonly filesystem?: Maybe<{
    readonly fstype: string;
    readonly label: string;
    readonly mountpoint: string;
    readonly uuid: string;
  }>;
  readonly is_rotational?: Maybe<boolean>;
  readonly model: string;
  readonly partition?: Maybe<{
    readonly name: string;
    readonly number: number;
    readonly parent: string;
    readonly scheme: string;
    readonly typeid: string;
    readonly uuid: string;
  }>;
  /** In blocks of 512 bytes. */
  readonly size: number;
  /** Addition: why it is not available. */
  readonly unavailable_reason?: Maybe<string>;
}

export interface AppNode {
  readonly id: string;
  readonly spec: {
    readonly id: string;
    readonly endpoint: string;
    readonly labels?: Maybe<Labels>;
  };
  readonly state?: Maybe<{
    readonly id: string;
    readonly endpoint: string;
    readonly status: "Online" | "Offline";
  }>;
}

/** Addition: what a host says of its paths to the volumes of which it has lost some. */
export interface PathReportBody {
  readonly host: string;
  readonly name: string;
  readonly volumes: readonly {
    readonly volume: string;
    readonly paths: readonly {
      readonly address: string;
      readonly port: number;
      readonly state: "live" | "lost";
    }[];
  }[];
}
export interface CreatePoolBody {
  readonly disks: readonly string[];
  readonly labels?: Labels;
  /** Additions. */
  readonly cluster_size?: number;
  readonly force?: boolean;
}
export interface CreateVolumeBody {
  readonly policy: { readonly self_heal: boolean };
  readonly replicas: number;
  readonly size: number;
  readonly thin: boolean;
  readonly topology?: Topology;
  readonly labels?: Labels;
  readonly affinity_group?: { readonly id: string };
  readonly max_snapshots?: number;
}
export interface PublishVolumeBody {
  readonly publish_context: Readonly<Record<string, string>>;
  readonly protocol: "nvmf";
  readonly node?: string;
  readonly reuse_existing?: boolean;
  readonly republish?: boolean;
  readonly frontend_node?: string;
}

// Additions.

export interface ClusterEvent {
  readonly id: number;
  readonly at: string;
  readonly category: string;
  readonly action: string;
  readonly target: string;
  readonly node?: Maybe<string>;
  readonly component: string;
  readonly message: string;
}
export interface ClusterEvents {
  readonly events: readonly ClusterEvent[];
  /** To be given as `since` next time. */
  readonly next: number;
  /** The oldest that is kept. */
  readonly oldest: number;
}

export interface Warning {
  readonly severity: "info" | "warning" | "critical";
  /** `volume/<uuid>`, `pool/<id>`, `node/<id>`, ... */
  readonly subject: string;
  readonly message: string;
  readonly remedy: string;
}

export interface Member {
  readonly node: string;
  readonly raftId: string;
  readonly voter: boolean;
  readonly leader: boolean;
  readonly matchIndex?: Maybe<number>;
}
export interface Cluster {
  readonly leader?: Maybe<string>;
  readonly members: readonly Member[];
  readonly raft: {
    readonly raftId: string;
    readonly role: string;
    readonly term: number;
    readonly commitIndex: number;
    readonly appliedIndex: number;
  };
}

/** A rebuild that runs; `replica` is what it fills. */
export interface RunningRebuild extends Omit<RebuildRecord, "endTime"> {
  readonly replica?: Maybe<string>;
  readonly progressPercent: number;
  readonly bytesPerSec: number;
  readonly etaMs?: Maybe<number>;
}
/** A rebuild that waits for others to end. */
export interface QueuedRebuild {
  readonly volume: string;
  readonly replica: string;
  readonly node: string;
  readonly pool: string;
  /** Good copies that the volume has left. */
  readonly goodCopies: number;
  readonly since: string;
  readonly reason: string;
}
export interface VolumeRebuilds {
  readonly volume: string;
  readonly running: readonly RunningRebuild[];
  readonly queued?: readonly QueuedRebuild[];
  readonly history: readonly RebuildRecord[];
}

/** What a one-screen status shows. */
export interface ClusterStatus {
  readonly at: string;
  readonly cluster: Cluster;
  readonly nodes: readonly {
    readonly id: string;
    readonly status: NodeStatus;
    readonly version: string;
    readonly cordoned: boolean;
    readonly drain: "none" | "draining" | "drained";
    readonly pools: number;
    readonly replicas: number;
    readonly targets: number;
  }[];
  readonly pools: readonly {
    readonly id: string;
    readonly node: string;
    readonly status: PoolStatus;
    readonly capacity: number;
    readonly used: number;
    readonly committed: number;
    readonly cordoned: boolean;
    readonly replicas: number;
  }[];
  readonly volumes: {
    readonly total: number;
    readonly byStatus: Readonly<Partial<Record<VolumeStatus, number>>>;
    readonly published: number;
    readonly sizeBytes: number;
    readonly attention: readonly {
      readonly uuid: string;
      readonly status: VolumeStatus;
      readonly spec: SpecStatus;
      readonly replicas: number;
      readonly replicasWanted: number;
      readonly node?: Maybe<string>;
    }[];
  };
  readonly snapshots: number;
  readonly rebuilds: {
    readonly total: number;
    readonly running: readonly {
      readonly volume: string;
      readonly node: string;
      readonly rebuild: RunningRebuild;
    }[];
    readonly queuedTotal?: number;
    readonly queued?: readonly QueuedRebuild[];
  };
  /** Scrubs that run or wait. */
  readonly scrubs?: Maybe<readonly VolumeScrub[]>;
  readonly warnings: readonly Warning[];
}

export interface RemovalImpact {
  readonly volumesLost: readonly string[];
  readonly volumesDegraded: readonly string[];
  readonly snapshotsLost: readonly string[];
  readonly replicasLost: readonly string[];
  /** Of a node: what it serves, and others serve then, or nobody. */
  readonly volumesMoved?: readonly string[];
  readonly volumesUnpublished?: readonly string[];
}
/** What a drained node still has that is to leave. */
export interface DrainProgress {
  readonly node: string;
  readonly phase: "none" | "draining" | "drained";
  readonly remaining: readonly {
    readonly kind: "target" | "closing" | "opening" | "replica";
    readonly uuid: string;
    readonly volume?: Maybe<string>;
    readonly waitsFor: string;
    readonly isStuck: boolean;
  }[];
}
/** What to give up with a node or pool that is removed (mayastor.md 1.4). */
export interface PurgeBody {
  readonly purge: boolean;
  readonly accept: boolean;
  readonly accept_volume_loss: boolean;
  readonly accept_snapshot_loss: boolean;
}

/** Settings of the cluster by name. Null: no limit; in a change: back to the default. */
export type Settings = Readonly<Record<string, number | boolean | string | null>>;

/** The comparison of a volume's replicas. */
export interface VolumeScrub {
  readonly volume: string;
  readonly state: "never" | "waiting" | "running" | "paused" | "stopped" | "completed";
  readonly waitsFor?: Maybe<string>;
  readonly node?: Maybe<string>;
  readonly progressPercent: number;
  readonly position: number;
  readonly size: number;
  readonly compared: number;
  readonly skipped: number;
  readonly mismatched: number;
  readonly repaired: number;
  readonly bytesPerSec?: Maybe<number>;
  readonly etaMs?: Maybe<number>;
  readonly startedAt?: Maybe<string>;
  readonly completedAt?: Maybe<string>;
  readonly nextAt?: Maybe<string>;
  readonly findings: readonly {
    readonly offset: number;
    readonly length: number;
    readonly kind: "mismatch" | "unreadable";
    readonly repaired: boolean;
    readonly replicas: readonly string[];
    readonly reason?: Maybe<string>;
  }[];
  readonly unacknowledged: number;
}
