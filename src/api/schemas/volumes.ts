/** Shapes of volumes and their snapshots (mayastor.md 1.2). */
import * as v from "valibot";
import {
  AnyName,
  Bytes,
  Count,
  LabelKey,
  Labels,
  Percent,
  ShownLabels,
  Size,
  SpecStatus,
  Text,
  Time,
  Uuid,
  VolumeShareProtocol,
} from "./fields.ts";
import { ChildState, ChildStateReason, Nexus } from "./nexuses.ts";
import { ReplicaState } from "./pools.ts";
import { ScrubSummary } from "./scrubs.ts";

const int32 = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0x7fff_ffff));
const uint8 = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(255));

export const LabelledTopology = v.object({
  exclusion: Labels,
  inclusion: Labels,
  affinity_key: v.optional(v.array(LabelKey)),
});
export const ExplicitNodeTopology = v.object({
  allowed_nodes: v.array(AnyName),
  preferred_nodes: v.array(AnyName),
});
/** Exactly one of the two. */
export const NodeTopology = v.union([
  v.strictObject({ explicit: ExplicitNodeTopology }),
  v.strictObject({ labelled: LabelledTopology }),
]);
export const PoolTopology = v.strictObject({ labelled: LabelledTopology });
export const Topology = v.object({
  node_topology: v.optional(NodeTopology),
  pool_topology: v.optional(PoolTopology),
});

export const VolumePolicy = v.object({ self_heal: v.boolean() });
export const AffinityGroup = v.object({ id: v.pipe(Text, v.minLength(1)) });

const volumeBody = {
  policy: VolumePolicy,
  replicas: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(255)),
  size: Size,
  thin: v.boolean(),
  topology: v.optional(Topology),
  labels: v.optional(Labels),
  affinity_group: v.optional(AffinityGroup),
  max_snapshots: v.optional(int32),
} as const;
export const CreateVolumeBody = v.object(volumeBody);
/** As `CreateVolumeBody`; what is left out has a default. */
export const NewVolumeBody = v.strictObject({
  ...volumeBody,
  uuid: v.optional(Uuid),
  policy: v.optional(VolumePolicy, { self_heal: true }),
  thin: v.optional(v.boolean(), false),
});
/** Milliseconds; null: as the cluster's setting says. */
export const SetFaultedChildWaitBody = v.strictObject({ wait: v.nullable(Count) });
export const SetVolumePropertyBody = v.object({ max_snapshots: int32 });
export const ResizeVolumeBody = v.object({ size: Size });
export const PublishVolumeBody = v.object({
  publish_context: v.record(v.string(), v.string()),
  protocol: VolumeShareProtocol,
  node: v.optional(AnyName),
  reuse_existing: v.optional(v.boolean()),
  republish: v.optional(v.boolean()),
  frontend_node: v.optional(AnyName),
});

export const VolumeContentSource = v.strictObject({
  snapshot: v.object({ snapshot: Uuid, volume: Uuid }),
});
export const NodeAccessInfo = v.object({ name: v.string(), nqn: v.string() });
export const VolumeTarget = v.object({
  node: v.string(),
  protocol: v.optional(VolumeShareProtocol),
  frontend_nodes: v.optional(v.array(NodeAccessInfo)),
});
export const VolumeOperationState = v.object({
  operation: v.picklist([
    "Create",
    "Destroy",
    "Share",
    "Unshare",
    "SetReplica",
    "RemoveUnusedReplica",
    "Publish",
    "Republish",
    "Unpublish",
    "CreateSnapshot",
    "DestroySnapshot",
    "Resize",
    "SetVolumeProperty",
  ]),
  result: v.optional(v.boolean()),
});
export const VolumeSpec = v.object({
  labels: v.optional(ShownLabels),
  num_replicas: uint8,
  operation: v.optional(VolumeOperationState),
  size: Bytes,
  status: SpecStatus,
  target: v.optional(VolumeTarget),
  uuid: Uuid,
  topology: v.optional(
    v.object({
      node_topology: v.optional(
        v.union([
          v.strictObject({
            explicit: v.object({
              allowed_nodes: v.array(v.string()),
              preferred_nodes: v.array(v.string()),
            }),
          }),
          v.strictObject({
            labelled: v.object({
              exclusion: ShownLabels,
              inclusion: ShownLabels,
              affinity_key: v.optional(v.array(v.string())),
            }),
          }),
        ]),
      ),
      pool_topology: v.optional(
        v.strictObject({
          labelled: v.object({
            exclusion: ShownLabels,
            inclusion: ShownLabels,
            affinity_key: v.optional(v.array(v.string())),
          }),
        }),
      ),
    }),
  ),
  policy: VolumePolicy,
  thin: v.boolean(),
  as_thin: v.optional(v.boolean()),
  affinity_group: v.optional(v.object({ id: v.string() })),
  content_source: v.optional(VolumeContentSource),
  num_snapshots: Count,
  max_snapshots: v.optional(int32),
  /** Milliseconds that a replica may be away before another is built, if the volume has its own. Ours. */
  faulted_child_wait: v.optional(Count),
});

export const VolumeStatus = v.picklist(["Unknown", "Online", "Degraded", "Faulted", "Shutdown"]);
export const ReplicaUsage = v.object({
  capacity: Bytes,
  allocated: Bytes,
  allocated_snapshots: Bytes,
  allocated_all_snapshots: Bytes,
});
export const ReplicaTopology = v.object({
  node: v.optional(v.string()),
  pool: v.optional(v.string()),
  state: ReplicaState,
  "child-status": v.optional(ChildState),
  "child-status-reason": v.optional(ChildStateReason),
  usage: v.optional(ReplicaUsage),
  "rebuild-progress": v.optional(Percent),
  /** It holds all that was acknowledged. */
  healthy: v.optional(v.boolean()),
});
export const VolumeUsage = v.object({
  capacity: Bytes,
  allocated: Bytes,
  allocated_replica: Bytes,
  allocated_snapshots: Bytes,
  allocated_all_snapshots: Bytes,
  total_allocated: Bytes,
  total_allocated_replicas: Bytes,
  total_allocated_snapshots: Bytes,
});
export const VolumeHealth = v.object({
  cleanShutdown: v.boolean(),
  healthyReplicas: Count,
  cleanReplicas: Count,
  onlineHealthyReplicas: Count,
  onlineCleanReplicas: Count,
  liveHealthyReplicas: Count,
});
export const VolumeState = v.object({
  target: v.optional(Nexus),
  size: Bytes,
  status: VolumeStatus,
  uuid: Uuid,
  replica_topology: v.record(Uuid, ReplicaTopology),
  usage: v.optional(VolumeUsage),
  health: v.optional(VolumeHealth),
  /** Ours. Absent before the first one. */
  scrub: v.optional(ScrubSummary),
});
export const Volume = v.object({ spec: VolumeSpec, state: VolumeState });
const nextToken = v.optional(v.pipe(v.number(), v.integer()));
export const Volumes = v.object({ entries: v.array(Volume), next_token: nextToken });

export const ReplicaSnapshot = v.object({ uuid: Uuid, source_id: Uuid, status: SpecStatus });
export const VolumeSnapshotMetadata = v.object({
  status: SpecStatus,
  timestamp: v.optional(Time),
  size: Bytes,
  spec_size: Bytes,
  total_allocated_size: Bytes,
  txn_id: v.string(),
  transactions: v.record(v.string(), v.array(ReplicaSnapshot)),
  num_restores: Count,
  num_snapshot_replicas: Count,
});
export const VolumeSnapshotSpec = v.object({ uuid: Uuid, source_volume: Uuid });
export const VolumeSnapshotDefinition = v.object({
  metadata: VolumeSnapshotMetadata,
  spec: VolumeSnapshotSpec,
});
const replicaSnapshot = {
  uuid: Uuid,
  source_id: Uuid,
  pool_id: v.string(),
  pool_uuid: Uuid,
} as const;
export const OnlineReplicaSnapshotState = v.object({
  ...replicaSnapshot,
  timestamp: Time,
  size: Bytes,
  allocated_size: Bytes,
  predecessor_alloc_size: Bytes,
});
export const OfflineReplicaSnapshotState = v.object(replicaSnapshot);
export const ReplicaSnapshotState = v.union([
  v.strictObject({ online: OnlineReplicaSnapshotState }),
  v.strictObject({ offline: OfflineReplicaSnapshotState }),
]);
export const VolumeSnapshotState = v.object({
  uuid: Uuid,
  allocated_size: Bytes,
  source_volume: Uuid,
  timestamp: v.optional(Time),
  ready_as_source: v.boolean(),
  replica_snapshots: v.array(ReplicaSnapshotState),
});
export const VolumeSnapshot = v.object({
  definition: VolumeSnapshotDefinition,
  state: VolumeSnapshotState,
});
export const VolumeSnapshots = v.object({
  entries: v.array(VolumeSnapshot),
  next_token: nextToken,
});

/** A way by which hosts reach a volume. */
export const VolumePath = v.object({
  node: v.string(),
  role: v.picklist(["target", "standby"]),
  /** `listening`: a host may be connected, and is sent to the path that serves. `pending`: not there now. */
  state: v.picklist(["serving", "listening", "pending"]),
  /** `nvmf+tcp://address:port/nqn?uuid=`. */
  uri: v.string(),
  /** Host connections, of standbys. */
  hosts: v.optional(Count),
});
export type VolumePath = v.InferOutput<typeof VolumePath>;
