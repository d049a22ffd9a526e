/**
 * Shapes of errors, watches and the whole store (mayastor.md 1.2), and of what is ours beside the
 * contract: events, cluster membership, plan, warnings, status, impact of a removal.
 */
import * as v from "valibot";
import { Bytes, Count, Name, SpecStatus, Text, Time, Uuid } from "./fields.ts";
import { NexusSpec, QueuedRebuild, RunningRebuild } from "./nexuses.ts";
import { NodeStatus } from "./nodes.ts";
import { PoolSpec, PoolStatus, ReplicaSpec } from "./pools.ts";
import { VolumeScrub } from "./scrubs.ts";
import { VolumeSpec, VolumeStatus } from "./volumes.ts";

/** Kinds of errors as clients know them (mayastor.md 1.3). */
export const errorKinds = [
  "Timeout",
  "Deserialize",
  "Internal",
  "InvalidArgument",
  "DeadlineExceeded",
  "NotFound",
  "AlreadyExists",
  "PermissionDenied",
  "ResourceExhausted",
  "FailedPrecondition",
  "NotShared",
  "NotPublished",
  "AlreadyPublished",
  "AlreadyShared",
  "Aborted",
  "OutOfRange",
  "Unimplemented",
  "Unavailable",
  "Unauthenticated",
  "Unauthorized",
  "Conflict",
  "FailedPersist",
  "Deleting",
  "InUse",
  "CapacityLimitExceeded",
  "NotAcceptable",
] as const;
export type ErrorKind = (typeof errorKinds)[number];

export const RestJsonError = v.object({
  /** More about it; may be empty. */
  details: v.string(),
  /** What happened. */
  message: v.string(),
  kind: v.picklist(errorKinds),
  /** What to do about it; may be empty. Ours. */
  remedy: v.optional(v.string()),
});
export type RestJsonError = v.InferOutput<typeof RestJsonError>;

/** `resource`: id of what is watched. */
export const RestWatch = v.object({ callback: v.string(), resource: v.string() });
export const Specs = v.object({
  nexuses: v.array(NexusSpec),
  pools: v.array(PoolSpec),
  replicas: v.array(ReplicaSpec),
  volumes: v.array(VolumeSpec),
});
export const JsonGeneric = v.looseObject({});

/** Something that happened. Ids rise by one from event to event, the same on every node. */
export const Event = v.object({
  id: Bytes,
  at: Time,
  category: v.string(),
  action: v.string(),
  target: v.string(),
  node: v.optional(v.string()),
  component: v.string(),
  message: v.string(),
});
export const Events = v.object({
  events: v.array(Event),
  /** To be given as `since` next time. */
  next: Bytes,
  /** The oldest that is kept: events between `since` and it are gone. */
  oldest: Bytes,
});

export const Member = v.object({
  node: v.string(),
  raftId: v.string(),
  voter: v.boolean(),
  leader: v.boolean(),
  /** Highest log index that it is known to hold; known to the leader only. */
  matchIndex: v.optional(Bytes),
});
export const Raft = v.object({
  raftId: v.string(),
  role: v.picklist(["leader", "follower", "candidate", "learner"]),
  term: Bytes,
  /** Raft id of the leader. */
  leader: v.optional(v.string()),
  commitIndex: Bytes,
  appliedIndex: Bytes,
  firstIndex: Bytes,
});
/** The cluster as the node that answers sees it. */
export const Cluster = v.object({
  /** Name of the leader's node; absent: there is none. */
  leader: v.optional(v.string()),
  members: v.array(Member),
  raft: Raft,
});
export const NewTokenBody = v.strictObject({
  kind: v.optional(v.picklist(["join", "api"]), "join"),
  validSeconds: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1))),
  note: v.optional(Text, ""),
});
/** `token` is shown once: only a digest of it is stored. */
export const NewToken = v.object({ id: v.string(), token: v.string(), expiresAt: Time });
/** A token without its secret, which nobody knows any more. */
export const Token = v.object({
  id: v.string(),
  kind: v.picklist(["join", "api"]),
  expiresAt: Time,
  note: v.string(),
});
export const TransferBody = v.strictObject({ node: Name });

const RebuildAction = v.picklist(["create", "present", "left"]);
export const RebuildBody = v.strictObject({
  /** False: only say what would be written. */
  apply: v.optional(v.boolean(), false),
  /** Pools on devices that are no disks of their machine, e.g. files. */
  disks: v.optional(
    v.pipe(
      v.array(v.strictObject({ node: Name, pool: Name, uri: v.pipe(Text, v.minLength(1)) })),
      v.maxLength(1_000),
    ),
    [],
  ),
});
/** What disks hold, and which records are made of it. */
export const RebuildReport = v.object({
  applied: v.boolean(),
  pools: v.array(
    v.object({ id: v.string(), node: v.string(), uuid: v.string(), action: RebuildAction }),
  ),
  volumes: v.array(
    v.object({
      uuid: v.string(),
      sizeBytes: Bytes,
      /** The number of replicas that were found: how many there should be is on no disk. */
      replicaCount: Count,
      healthyReplicas: Count,
      thin: v.boolean(),
      epoch: Bytes,
      /** Node that serves it now; absent: none does. */
      servedBy: v.optional(v.string()),
      action: RebuildAction,
    }),
  ),
  /** Records of these that are made. */
  replicas: Count,
  snapshots: Count,
  nexuses: Count,
  problems: v.array(v.string()),
});

export const Warning = v.object({
  severity: v.picklist(["info", "warning", "critical"]),
  /** `volume/<uuid>`, `pool/<id>`, `node/<id>`, ... */
  subject: v.string(),
  message: v.string(),
  /** The command that fixes it, or what to do. */
  remedy: v.string(),
});
/** What the planner would do now, and why. */
export const PlanStep = v.object({
  kind: v.picklist(["store", "engine"]),
  reason: v.string(),
  /** Node and method of a call of an engine. */
  node: v.optional(v.string()),
  method: v.optional(v.string()),
  /** Records that a transaction puts or removes: `put volumes/<uuid>`. */
  changes: v.optional(v.array(v.string())),
});
export const PlanView = v.object({
  works: v.array(v.object({ subject: v.string(), steps: v.array(PlanStep) })),
  warnings: v.array(Warning),
  wakeAt: v.optional(Time),
});

export const RemovalImpact = v.object({
  volumesLost: v.array(Uuid),
  volumesDegraded: v.array(Uuid),
  snapshotsLost: v.array(Uuid),
  replicasLost: v.array(Uuid),
  /** Of a node: volumes that it serves, and that others serve then, or nobody. */
  volumesMoved: v.optional(v.array(Uuid)),
  volumesUnpublished: v.optional(v.array(Uuid)),
});

/** How far a drain is. */
export const DrainProgress = v.object({
  node: v.string(),
  phase: v.picklist(["none", "draining", "drained"]),
  remaining: v.array(
    v.object({
      kind: v.picklist(["target", "closing", "opening", "replica"]),
      /** Of the nexus or replica. */
      uuid: Uuid,
      volume: v.optional(Uuid),
      waitsFor: v.string(),
      /** It does not leave unless somebody does something. */
      isStuck: v.boolean(),
    }),
  ),
});

/** What a one-screen status needs. */
export const Status = v.object({
  at: Time,
  cluster: Cluster,
  nodes: v.array(
    v.object({
      id: v.string(),
      status: NodeStatus,
      version: v.string(),
      cordoned: v.boolean(),
      drain: v.picklist(["none", "draining", "drained"]),
      pools: Count,
      replicas: Count,
      targets: Count,
    }),
  ),
  pools: v.array(
    v.object({
      id: v.string(),
      node: v.string(),
      status: PoolStatus,
      capacity: Bytes,
      used: Bytes,
      committed: Bytes,
      cordoned: v.boolean(),
      replicas: Count,
    }),
  ),
  volumes: v.object({
    total: Count,
    byStatus: v.record(VolumeStatus, Count),
    published: Count,
    sizeBytes: Bytes,
    /** Volumes that are not well, as many as fit. */
    attention: v.array(
      v.object({
        uuid: Uuid,
        status: VolumeStatus,
        spec: SpecStatus,
        replicas: Count,
        replicasWanted: Count,
        node: v.optional(v.string()),
      }),
    ),
  }),
  snapshots: Count,
  rebuilds: v.object({
    total: Count,
    running: v.array(v.object({ volume: Uuid, node: v.string(), rebuild: RunningRebuild })),
    /** Those that wait for their turn, the next one first; `queuedTotal` counts all of them. */
    queuedTotal: v.optional(Count),
    queued: v.optional(v.array(QueuedRebuild)),
  }),
  /** Scrubs that run or wait; absent: none does. */
  scrubs: v.optional(v.array(VolumeScrub)),
  warnings: v.array(Warning),
});

/** Cluster-wide settings; null of `maxRebuilds` and `maxRebuildsPerNode`: no limit. */
export const Settings = v.object({
  poolCommitmentPercent: Count,
  volumeCommitmentPercent: Count,
  volumeCommitmentInitialPercent: Count,
  snapshotCommitmentPercent: Count,
  faultedChildWaitMs: Count,
  maxRebuilds: v.nullable(Count),
  maxRebuildsPerNode: v.optional(v.nullable(Count)),
  maxVolumeCreates: Count,
  nodeDeadlineMs: Count,
  restrictHosts: v.boolean(),
  switchOver: v.boolean(),
  scrubIntervalMs: Count,
  scrubBytesPerSec: Count,
  maxScrubs: Count,
  maxScrubsPerNode: Count,
  scrubWindow: v.nullable(v.string()),
});
const given = v.optional(v.nullable(Count));
/** New values; null goes back to the default (of `maxRebuilds` and `maxRebuildsPerNode`: to no limit). */
export const SettingsBody = v.strictObject({
  poolCommitmentPercent: given,
  volumeCommitmentPercent: given,
  volumeCommitmentInitialPercent: given,
  snapshotCommitmentPercent: given,
  faultedChildWaitMs: given,
  maxRebuilds: given,
  maxRebuildsPerNode: given,
  maxVolumeCreates: given,
  nodeDeadlineMs: given,
  restrictHosts: v.optional(v.nullable(v.boolean())),
  switchOver: v.optional(v.nullable(v.boolean())),
  scrubIntervalMs: given,
  scrubBytesPerSec: given,
  maxScrubs: given,
  maxScrubsPerNode: given,
  scrubWindow: v.optional(v.nullable(Text)),
});

export const MoveReplicaBody = v.strictObject({
  /** Where to; left out: a good pool is chosen. */
  pool: v.optional(Name),
});
export const NewSnapshotBody = v.strictObject({ uuid: v.optional(Uuid) });
export const Health = v.object({
  status: v.picklist(["ok", "not ready"]),
  /** What is missing; empty when nothing is. */
  reasons: v.array(v.string()),
});
