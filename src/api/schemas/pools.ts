/** Shapes of pools and replicas (mayastor.md 1.2). */
import * as v from "valibot";
import {
  Bytes,
  DeviceUri,
  Labels,
  Name,
  Nqn,
  Protocol,
  ReplicaShareProtocol,
  ShownLabels,
  Size,
  SpecStatus,
  Uuid,
} from "./fields.ts";

export const PoolStatus = v.picklist(["Unknown", "Online", "Degraded", "Faulted"]);

const poolBody = {
  /** Exactly one. */
  disks: v.pipe(v.array(DeviceUri), v.minLength(1), v.maxLength(16)),
  labels: v.optional(Labels),
  /** Bytes; a power of two from 64 KiB to 1 GiB. Ours. */
  cluster_size: v.optional(Size),
  /** Take the disk even if it holds something else. Ours. */
  force: v.optional(v.boolean(), false),
} as const;
export const CreatePoolBody = v.object(poolBody);
/** As `CreatePoolBody`; the id may be left out. */
export const NewPoolBody = v.strictObject({ id: v.optional(Name), ...poolBody });

export const PoolSpec = v.object({
  disks: v.array(v.string()),
  id: v.string(),
  labels: v.optional(ShownLabels),
  node: v.string(),
  status: SpecStatus,
  /** Takes nothing new. Ours; left out when it is not so. */
  cordoned: v.optional(v.boolean()),
});
export const PoolState = v.object({
  capacity: Bytes,
  disks: v.array(v.string()),
  id: v.string(),
  node: v.string(),
  status: PoolStatus,
  used: Bytes,
  committed: v.optional(Bytes),
  /** Size of the disk; more than the pool takes of it: it can be expanded. Ours. */
  disk_capacity: v.optional(Bytes),
  cluster_size: v.optional(Bytes),
  uuid: v.optional(Uuid),
  /** Why it is not online. Ours. */
  reason: v.optional(v.string()),
});
export const Pool = v.object({
  id: v.string(),
  spec: v.optional(PoolSpec),
  state: v.optional(PoolState),
});

/** What a pool is not to take any more; ours cordons it for all of it. */
export const PoolCordonReq = v.object({
  replicas: v.optional(v.boolean()),
  snapshots: v.optional(v.boolean()),
  restores: v.optional(v.boolean()),
  import: v.optional(v.boolean()),
});

export const ReplicaState = v.picklist(["Unknown", "Online", "Degraded", "Faulted"]);
export const ReplicaKind = v.picklist(["Regular", "Snapshot", "SnapshotClone"]);
export const CreateReplicaBody = v.object({
  size: Size,
  thin: v.boolean(),
  share: v.optional(ReplicaShareProtocol),
  "allowed-hosts": v.optional(v.pipe(v.array(Nqn), v.maxLength(64))),
});
export const ReplicaSpaceUsage = v.object({
  capacity_bytes: Bytes,
  allocated_bytes: Bytes,
  allocated_bytes_snapshots: Bytes,
  allocated_bytes_all_snapshots: v.optional(Bytes),
  cluster_size: Bytes,
  clusters: Bytes,
  allocated_clusters: Bytes,
});
export const Replica = v.object({
  node: v.string(),
  pool: v.string(),
  poolUuid: v.optional(Uuid),
  share: Protocol,
  size: Bytes,
  space: v.optional(ReplicaSpaceUsage),
  state: ReplicaState,
  thin: v.boolean(),
  uri: v.string(),
  uuid: Uuid,
  "allowed-hosts": v.optional(v.array(v.string())),
  kind: ReplicaKind,
});
export const ReplicaSpec = v.object({
  managed: v.boolean(),
  owners: v.object({ nexuses: v.array(Uuid), volume: v.optional(Uuid) }),
  pool: v.string(),
  poolUuid: v.optional(Uuid),
  share: Protocol,
  size: Bytes,
  status: SpecStatus,
  thin: v.boolean(),
  uuid: Uuid,
  kind: v.optional(ReplicaKind),
});
