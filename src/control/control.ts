/**
 * What the control plane offers to its API: the cluster's state to read, and one function per
 * operation. Operations resolve when the cluster has done what was asked (or, where the contract says
 * so, has begun it), and reject with a `TrilithError`. Types only.
 */
import type { ClusterSettings, ClusterState } from "./cluster-state.ts";
import type { NamedDisk, RebuildReport } from "./membership/rebuild/found.ts";
import type { FrontendNode, Labels, NodeId, PoolId, StoredEvent, Topology, Uuid } from "./model.ts";
import type { ScrubRequest } from "./planner/decide/scrubs.ts";
import type { Plan } from "./planner/plan.ts";
import type { ClusterMember, StoreStatus } from "./store/store.ts";

/** Who asks. */
export interface RequestContext {
  /** Appears in the logs of every part that works on the request. */
  readonly requestId: string;
  readonly idempotencyKey?: string;
  /** The caller has gone: waiting ends, what was begun goes on. */
  readonly signal?: AbortSignal;
}

export interface CreatePoolRequest {
  readonly nodeId: NodeId;
  readonly poolId: PoolId;
  readonly disks: readonly string[];
  readonly labels: Labels;
  readonly clusterSizeBytes: number | null;
  /** Take the disk even if it holds something else. */
  readonly force: boolean;
}

export interface CreateReplicaRequest {
  readonly poolId: PoolId;
  readonly uuid: Uuid;
  readonly sizeBytes: number;
  readonly thin: boolean;
  readonly share: boolean;
  readonly allowedHosts: readonly string[];
}

export interface CreateNexusRequest {
  readonly nodeId: NodeId;
  readonly uuid: Uuid;
  readonly sizeBytes: number;
  readonly children: readonly string[];
}

export interface CreateVolumeRequest {
  readonly uuid: Uuid;
  readonly sizeBytes: number;
  readonly replicaCount: number;
  readonly thin: boolean;
  readonly selfHeal: boolean;
  readonly topology: Topology | null;
  readonly labels: Labels;
  readonly affinityGroup: string | null;
  readonly maxSnapshots: number | null;
}

export interface PublishRequest {
  readonly uuid: Uuid;
  readonly publishContext: Readonly<Record<string, string>>;
  readonly nodeId: NodeId | null;
  readonly reuseExisting: boolean;
  readonly republish: boolean;
  readonly frontendNode: FrontendNode | null;
}

/** What removing something by force would cost. */
export interface RemovalImpact {
  readonly volumesLost: readonly Uuid[];
  readonly volumesDegraded: readonly Uuid[];
  readonly snapshotsLost: readonly Uuid[];
  readonly replicasLost: readonly Uuid[];
  /** Of a node: volumes that it serves, which other nodes serve then. */
  readonly volumesMoved?: readonly Uuid[];
  /** Of a node: volumes that it serves, and that nobody serves then (switch-over is off). */
  readonly volumesUnpublished?: readonly Uuid[];
}

export interface ForcedRemoval {
  /** Forget the resource although its node cannot be asked. */
  readonly purge: boolean;
  readonly acceptVolumeLoss: boolean;
  readonly acceptSnapshotLoss: boolean;
}

export interface DrainRequest {
  readonly nodeId: NodeId;
  readonly label: string;
  readonly evacuate: boolean;
}

/** Everything that a host has to say of its paths: the volumes of which it has lost some. */
export interface PathReport {
  readonly hostNqn: string;
  readonly hostName: string;
  readonly volumes: readonly {
    readonly uuid: Uuid;
    readonly paths: readonly {
      readonly address: string;
      readonly port: number;
      readonly isLost: boolean;
    }[];
  }[];
}

/** Settings by name, with their new values. */
export type SettingsChange = { readonly [K in keyof ClusterSettings]?: ClusterSettings[K] | null };

/** The operations. Where a function is said to return a string it is a device URI. */
export interface Control {
  /** The cluster as the leader sees it: after everything that was acknowledged before the call. */
  state(): Promise<ClusterState>;
  /** What this member has now, whether there is a leader or not. Only the leader observes engines. */
  localState(): ClusterState;
  /** What the planner would do now, and what it warns of. */
  plan(): Promise<Plan>;
  events(sinceId: number, limit: number): { events: StoredEvent[]; oldestId: number };
  /** Called with each event as it is applied. */
  onEvent(listener: (event: StoredEvent) => void): () => void;

  /** Takes what a host says of its paths; for the leader. */
  reportPaths(report: PathReport, context: RequestContext): Promise<void>;

  cordonNode(id: NodeId, label: string, context: RequestContext): Promise<void>;
  /** Takes away a cordon or a drain label. */
  uncordonNode(id: NodeId, label: string, context: RequestContext): Promise<void>;
  /** Begins a drain. */
  drainNode(request: DrainRequest, context: RequestContext): Promise<void>;
  labelNode(
    id: NodeId,
    key: string,
    value: string,
    overwrite: boolean,
    context: RequestContext,
  ): Promise<void>;
  unlabelNode(id: NodeId, key: string, context: RequestContext): Promise<void>;
  removeNode(id: NodeId, force: ForcedRemoval, context: RequestContext): Promise<void>;
  nodeRemovalImpact(id: NodeId): Promise<RemovalImpact>;

  /** Creates or imports; an equal pool is confirmed. */
  createPool(request: CreatePoolRequest, context: RequestContext): Promise<void>;
  destroyPool(
    id: PoolId,
    nodeId: NodeId | null,
    force: ForcedRemoval,
    context: RequestContext,
  ): Promise<void>;
  poolRemovalImpact(id: PoolId): Promise<RemovalImpact>;
  labelPool(
    id: PoolId,
    key: string,
    value: string,
    overwrite: boolean,
    context: RequestContext,
  ): Promise<void>;
  unlabelPool(id: PoolId, key: string, context: RequestContext): Promise<void>;
  cordonPool(id: PoolId, cordoned: boolean, context: RequestContext): Promise<void>;
  /** Takes in what the pool's disk has grown by. */
  expandPool(id: PoolId, context: RequestContext): Promise<void>;

  createReplica(request: CreateReplicaRequest, context: RequestContext): Promise<void>;
  destroyReplica(uuid: Uuid, poolId: PoolId | null, context: RequestContext): Promise<void>;
  shareReplica(
    uuid: Uuid,
    poolId: PoolId | null,
    allowedHosts: readonly string[],
    context: RequestContext,
  ): Promise<string>;
  unshareReplica(uuid: Uuid, poolId: PoolId | null, context: RequestContext): Promise<void>;

  createNexus(request: CreateNexusRequest, context: RequestContext): Promise<void>;
  destroyNexus(uuid: Uuid, nodeId: NodeId | null, context: RequestContext): Promise<void>;
  shareNexus(uuid: Uuid, nodeId: NodeId | null, context: RequestContext): Promise<string>;
  unshareNexus(uuid: Uuid, nodeId: NodeId | null, context: RequestContext): Promise<void>;
  addNexusChild(
    uuid: Uuid,
    nodeId: NodeId | null,
    childUri: string,
    context: RequestContext,
  ): Promise<void>;
  removeNexusChild(
    uuid: Uuid,
    nodeId: NodeId | null,
    childUri: string,
    context: RequestContext,
  ): Promise<void>;

  /** Creates, or confirms an equal volume. */
  createVolume(request: CreateVolumeRequest, context: RequestContext): Promise<void>;
  /** Makes a volume of a snapshot. */
  restoreVolume(
    snapshotUuid: Uuid,
    request: CreateVolumeRequest,
    context: RequestContext,
  ): Promise<void>;
  destroyVolume(uuid: Uuid, context: RequestContext): Promise<void>;
  publishVolume(request: PublishRequest, context: RequestContext): Promise<void>;
  /** `fromHost`: only that host's publication ends (its name, or its NQN). */
  unpublishVolume(
    uuid: Uuid,
    force: boolean,
    fromHost: string | null,
    context: RequestContext,
  ): Promise<void>;
  shareVolume(uuid: Uuid, frontendHost: string | null, context: RequestContext): Promise<string>;
  unshareVolume(uuid: Uuid, context: RequestContext): Promise<void>;
  setReplicaCount(
    uuid: Uuid,
    count: number,
    victim: Uuid | null,
    context: RequestContext,
  ): Promise<void>;
  setMaxSnapshots(uuid: Uuid, max: number | null, context: RequestContext): Promise<void>;
  /** How long a replica may be away before another is built; null: as the cluster's setting says. */
  setFaultedChildWait(uuid: Uuid, ms: number | null, context: RequestContext): Promise<void>;
  resizeVolume(uuid: Uuid, sizeBytes: number, context: RequestContext): Promise<void>;
  /** Forgets nexuses of former targets. */
  destroyShutdownTargets(uuid: Uuid, context: RequestContext): Promise<void>;
  /** Builds a copy in another pool (null: a good one), then gives the old one up. Begun when it resolves. */
  moveReplica(uuid: Uuid, toPool: PoolId | null, context: RequestContext): Promise<void>;

  /** Has the replicas of a volume compared; begun when it resolves. */
  startScrub(uuid: Uuid, request: ScrubRequest, context: RequestContext): Promise<void>;
  /** Stops that where it is; the next one goes on from there. */
  stopScrub(uuid: Uuid, context: RequestContext): Promise<void>;
  /** What scrubs have repaired is known, and not warned of any more. */
  acknowledgeScrub(uuid: Uuid, context: RequestContext): Promise<void>;

  createSnapshot(volumeUuid: Uuid, snapshotUuid: Uuid, context: RequestContext): Promise<void>;
  destroySnapshot(
    snapshotUuid: Uuid,
    volumeUuid: Uuid | null,
    context: RequestContext,
  ): Promise<void>;

  registerAppNode(
    id: string,
    endpoint: string,
    labels: Labels,
    context: RequestContext,
  ): Promise<void>;
  deregisterAppNode(id: string, context: RequestContext): Promise<void>;
  addWatch(volumeUuid: Uuid, callback: string, context: RequestContext): Promise<void>;
  removeWatch(volumeUuid: Uuid, callback: string, context: RequestContext): Promise<void>;

  /** Disks of a node, by its engine. */
  blockDevices(nodeId: NodeId, all: boolean): Promise<readonly unknown[]>;

  /** Changes cluster-wide settings; `null` goes back to the default where null is no value. */
  changeSettings(changes: SettingsChange, context: RequestContext): Promise<ClusterSettings>;

  members(): readonly ClusterMember[];
  raft(): StoreStatus;
  createToken(
    kind: "join" | "api",
    validMs: number,
    note: string,
    context: RequestContext,
  ): Promise<{ id: string; token: string; expiresAtMs: number }>;
  transferLeadership(toNode: NodeId, context: RequestContext): Promise<void>;
  /**
   * Makes records of the pools, replicas, volumes and snapshots that disks hold and the store does not
   * know: the way out when the store is lost. `apply` false: only says what would be made.
   */
  rebuildFromDisks(
    disks: readonly NamedDisk[],
    apply: boolean,
    context: RequestContext,
  ): Promise<RebuildReport>;
}
