/**
 * What the replicated store holds: the cluster's desired state, one record type per table. Types
 * only, shared by store, planner, executor and API. Field names are Mayastor's where it has one
 * (mayastor.md 1.2); times are milliseconds since 1970 by the clock of the leader that wrote them.
 */

export type NodeId = string;
export type PoolId = string;
export type Uuid = string;
export type Labels = Readonly<Record<string, string>>;

/** Where a resource is in its life. What is `Creating` or `Deleting` is finished by the executor. */
export type SpecStatus = "Creating" | "Created" | "Deleting";

/** What every record carries. */
export interface StoredRecord {
  /** Raft index of the transaction that wrote it last; the store sets it. 0: not stored yet. */
  readonly revision: number;
}

export interface NodeRecord extends StoredRecord {
  /** Name of the node, unique in the cluster. */
  readonly id: NodeId;
  /** The node's member number in raft: never given out twice. */
  readonly raftId: string;
  /** `address:port` of its control process for other nodes (raft, forwarded requests; mutual TLS). */
  readonly peerEndpoint: string;
  /** `address:port` of its engine's RPC. */
  readonly engineEndpoint: string;
  readonly hostNqn: string;
  readonly version: string;
  readonly labels: Labels;
  /** Reasons, one label each, not to place anything new on it. */
  readonly cordonLabels: readonly string[];
  /** Reasons to move away what is on it; each counts as a cordon too. */
  readonly drainLabels: readonly string[];
  readonly drainPhase: "none" | "draining" | "drained";
  /** Draining moves replicas away too. */
  readonly evacuate: boolean;
  readonly createdAtMs: number;
}

export interface PoolRecord extends StoredRecord {
  readonly id: PoolId;
  /** What the disk carries; given out when the pool is created. */
  readonly uuid: Uuid;
  readonly nodeId: NodeId;
  /** URIs of its disks: exactly one. */
  readonly disks: readonly string[];
  readonly labels: Labels;
  readonly status: SpecStatus;
  /** Absent: the engine's default. */
  readonly clusterSizeBytes: number | null;
  /** While it is `Creating`: take the disk whatever it holds. Put false with `Created`. */
  readonly force: boolean;
  readonly cordoned: boolean;
  readonly createdAtMs: number;
}

/** Labels that must be there (`inclusion`), must not (`exclusion`; "" is any value), or must agree. */
export interface LabelledTopology {
  readonly exclusion: Labels;
  readonly inclusion: Labels;
  /** Keys whose values are equal on all chosen. */
  readonly affinityKey: readonly string[];
}

export type NodeTopology =
  | {
      readonly explicit: {
        readonly allowedNodes: readonly NodeId[];
        readonly preferredNodes: readonly NodeId[];
      };
    }
  | { readonly labelled: LabelledTopology };

export interface Topology {
  readonly node: NodeTopology | null;
  readonly pool: LabelledTopology | null;
}

/** A host that a volume is published to. */
export interface FrontendNode {
  readonly name: string;
  readonly nqn: string;
}

/** Where a volume is published. */
export interface VolumeTarget {
  readonly nexusUuid: Uuid;
  readonly nodeId: NodeId;
  readonly protocol: "nvmf";
  readonly frontendNodes: readonly FrontendNode[];
  readonly publishContext: Readonly<Record<string, string>>;
}

export type VolumeOperation =
  | "Create"
  | "Destroy"
  | "Share"
  | "Unshare"
  | "SetReplica"
  | "RemoveUnusedReplica"
  | "Publish"
  | "Republish"
  | "Unpublish"
  | "CreateSnapshot"
  | "DestroySnapshot"
  | "Resize"
  | "SetVolumeProperty";

export interface VolumeRecord extends StoredRecord {
  readonly uuid: Uuid;
  readonly sizeBytes: number;
  readonly replicaCount: number;
  readonly thin: boolean;
  /** Thick by request, thin since its first snapshot. */
  readonly asThin: boolean;
  readonly selfHeal: boolean;
  readonly topology: Topology | null;
  readonly labels: Labels;
  readonly affinityGroup: string | null;
  readonly maxSnapshots: number | null;
  readonly contentSource: { readonly snapshotUuid: Uuid; readonly volumeUuid: Uuid } | null;
  readonly status: SpecStatus;
  /** Set while published, or while that is being brought about. */
  readonly target: VolumeTarget | null;
  /** Highest epoch given out; raised at every publish and move (DESIGN 6.5). */
  readonly epoch: number;
  /** Number of publishes and moves so far: chooses the range of controller ids. */
  readonly incarnation: number;
  /** The last nexus was closed in an orderly way: all healthy replicas are equal. */
  readonly cleanShutdown: boolean;
  /** Replica that is not to be kept when the count goes down; set by scale-down with a chosen victim. */
  readonly victimReplica: Uuid | null;
  /** What is under way, for people. */
  readonly operation: {
    readonly operation: VolumeOperation;
    readonly result: boolean | null;
  } | null;
  readonly createdAtMs: number;
}

export interface ReplicaRecord extends StoredRecord {
  readonly uuid: Uuid;
  /** Null: made by hand, no volume owns it. */
  readonly volumeUuid: Uuid | null;
  readonly poolId: PoolId;
  readonly nodeId: NodeId;
  readonly sizeBytes: number;
  readonly thin: boolean;
  readonly kind: "Regular" | "SnapshotClone";
  /** Snapshot that it is to be cloned from. */
  readonly snapshotUuid: Uuid | null;
  readonly status: SpecStatus;
  /**
   * It holds all that was acknowledged, as far as the last confirmed record of a nexus says. A volume
   * that was never published has healthy replicas only.
   */
  readonly healthy: boolean;
  /** When it was recorded unhealthy, or was last seen to be away; null while it is well. */
  readonly faultedAtMs: number | null;
  /** Served over NVMe/TCP to these hosts; null: not served. Empty: to every host. */
  readonly allowedHosts: readonly string[] | null;
  readonly createdAtMs: number;
}

export interface NexusChildRecord {
  readonly uri: string;
  /** Null: a device that is not a replica. */
  readonly replicaUuid: Uuid | null;
}

export interface NexusRecord extends StoredRecord {
  readonly uuid: Uuid;
  /** Null: made by hand, no volume owns it. */
  readonly volumeUuid: Uuid | null;
  readonly name: string;
  readonly nodeId: NodeId;
  readonly sizeBytes: number;
  readonly epoch: number;
  readonly children: readonly NexusChildRecord[];
  readonly status: SpecStatus;
  /** `Shutdown`: superseded or unpublished; it is destroyed as soon as its node can be reached. */
  readonly phase: "Open" | "Shutdown";
  readonly share: "none" | "nvmf";
  /** Empty: every host. */
  readonly allowedHosts: readonly string[];
  readonly controllerIds: { readonly min: number; readonly max: number };
  readonly createdAtMs: number;
}

export interface ReplicaSnapshotRecord {
  readonly uuid: Uuid;
  /** Replica that it is taken of. */
  readonly sourceUuid: Uuid;
  readonly poolId: PoolId;
  readonly nodeId: NodeId;
  readonly status: SpecStatus;
}

export interface SnapshotRecord extends StoredRecord {
  readonly uuid: Uuid;
  readonly volumeUuid: Uuid;
  /** Size of the volume when it was taken. */
  readonly sizeBytes: number;
  readonly status: SpecStatus;
  /** Counts attempts: the snapshots of one attempt belong together. */
  readonly txnId: number;
  readonly replicas: readonly ReplicaSnapshotRecord[];
  /** When it was taken; null while it is not. */
  readonly takenAtMs: number | null;
  readonly createdAtMs: number;
}

/** A host that mounts volumes, and where its agent answers. */
export interface AppNodeRecord extends StoredRecord {
  readonly id: string;
  readonly endpoint: string;
  readonly labels: Labels;
}

export interface WatchRecord extends StoredRecord {
  /** `<volume uuid> <callback>`. */
  readonly id: string;
  readonly volumeUuid: Uuid;
  readonly callback: string;
}

/** A rebuild that ended, kept beyond the nexus that ran it. */
export interface RebuildHistoryRecord extends StoredRecord {
  /** `<nexus uuid> <start time> <child uri>`. */
  readonly id: string;
  readonly volumeUuid: Uuid;
  readonly nexusUuid: Uuid;
  readonly childUri: string;
  readonly sourceUri: string;
  readonly state: "Stopped" | "Failed" | "Completed";
  readonly blocksTotal: number;
  readonly blocksRecovered: number;
  readonly blocksTransferred: number;
  readonly blocksRemaining: number;
  readonly blockSize: number;
  readonly isPartial: boolean;
  readonly startTimeMs: number;
  readonly endTimeMs: number;
}

/** A token that lets nodes join. Only a digest of its secret is stored. */
export interface TokenRecord extends StoredRecord {
  readonly id: string;
  readonly secretSha256: string;
  readonly kind: "join" | "api";
  readonly expiresAtMs: number;
  readonly note: string;
}

/** A cluster-wide setting. */
export interface SettingRecord extends StoredRecord {
  readonly key: string;
  /** JSON. */
  readonly value: string;
}

/** The tables of the store, by name. */
export interface Tables {
  readonly nodes: NodeRecord;
  readonly pools: PoolRecord;
  readonly volumes: VolumeRecord;
  readonly replicas: ReplicaRecord;
  readonly nexuses: NexusRecord;
  readonly snapshots: SnapshotRecord;
  readonly appNodes: AppNodeRecord;
  readonly watches: WatchRecord;
  readonly rebuildHistory: RebuildHistoryRecord;
  readonly tokens: TokenRecord;
  readonly settings: SettingRecord;
}
export type TableName = keyof Tables;

/** Events as Mayastor names them (mayastor.md 5.7), with ours beside. */
export interface NewEvent {
  readonly category:
    | "Pool"
    | "Volume"
    | "Nexus"
    | "Replica"
    | "Node"
    | "HighAvailability"
    | "HostInitiator"
    | "Snapshot"
    | "Clone"
    | "Cluster";
  /** `Create`, `Delete`, `StateChange`, `RebuildBegin`, `AddChild`, ... */
  readonly action: string;
  /** Id of what it happened to. */
  readonly target: string;
  readonly nodeId: NodeId | null;
  /** Which part says so: `planner`, `api`, `engine`, `raft`. */
  readonly component: string;
  readonly message: string;
}
export interface StoredEvent extends NewEvent {
  /** Rises by one from event to event, the same on every node. */
  readonly id: number;
  readonly atMs: number;
}
