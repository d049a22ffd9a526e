/** Routes and shapes of replicas, their snapshots and clones. */
import * as v from "valibot";
import { AllowedHosts, Bytes, Count, Name, Share, Size, Tag, Uuid } from "./fields.ts";
import { routes } from "./route.ts";
import { ShareNbd, ShareProtocol } from "./shares.ts";

/** A replica's place in its volume, as it is written on the disk (DESIGN 6). */
export const ReplicaSync = v.object({
  volumeUuid: v.string(),
  /** Epoch of the volume that last wrote to it. */
  epoch: Count,
  /** Generation of the set of in-sync replicas that counts it in; 0: a full rebuild is needed. */
  generation: Count,
  /** Its write-intent log is complete since this generation. */
  baseGeneration: Count,
  /** Its last nexus was closed in an orderly way. */
  clean: v.boolean(),
  /**
   * The machine was started anew since it was last written to: writes that were acknowledged and not
   * flushed may be gone. Absent: not known (an older version).
   */
  mayLack: v.optional(v.boolean()),
  dirtyRegions: Count,
});

export const Replica = v.object({
  uuid: v.string(),
  name: v.string(),
  poolName: v.string(),
  poolUuid: v.string(),
  kind: v.picklist(["regular", "snapshot", "clone"]),
  /** That of its pool. */
  state: v.picklist(["online", "degraded", "faulted", "offline"]),
  sizeBytes: Bytes,
  blockSize: Count,
  thin: v.boolean(),
  /** What its creator relates it to. */
  entityId: v.string(),
  /** Snapshot that it is a clone of; null when it is none. */
  snapshotUuid: v.nullable(v.string()),
  /** Where to reach it: its NVMe share, else `bdev:///` for a nexus of the same engine. */
  uri: v.string(),
  shares: v.array(Share),
  /** Nexus of this engine that has it as a child; null when there is none. */
  claimedBy: v.nullable(v.string()),
  space: v.object({
    capacityBytes: Bytes,
    allocatedBytes: Bytes,
    allocatedBytesSnapshots: Bytes,
    allocatedBytesAllSnapshots: Bytes,
    clusterSizeBytes: Bytes,
    clusters: Count,
    allocatedClusters: Count,
  }),
  sync: ReplicaSync,
  reactor: Count,
});
export type Replica = v.InferOutput<typeof Replica>;

export const Snapshot = v.object({
  uuid: v.string(),
  name: v.string(),
  /** Replica that it was taken of. */
  sourceUuid: v.string(),
  poolName: v.string(),
  poolUuid: v.string(),
  sizeBytes: Bytes,
  txnId: v.string(),
  entityId: v.string(),
  /** Milliseconds since 1970. */
  createdAtMs: Count,
  /** Bytes it refers to, alone or not. */
  referencedBytes: Bytes,
  /** Bytes that its predecessors do not hold. */
  allocatedBytes: Bytes,
  predecessorBytes: Bytes,
  /** Bytes that deleting it would free. */
  exclusiveBytes: Bytes,
  clones: v.array(v.string()),
  reactor: Count,
});
export type Snapshot = v.InferOutput<typeof Snapshot>;

const uuidParams = v.strictObject({ uuid: Uuid });

/** Who may connect and under which name, with the defaults of a replica. */
const replicaShare = v.strictObject({ allowedHosts: v.optional(AllowedHosts) });

export const replicaRoutes = routes({
  createReplica: {
    method: "PUT",
    path: "/v1/replicas/:uuid",
    summary: "Makes a replica in a pool, or confirms the one that is there",
    params: uuidParams,
    body: v.strictObject({
      poolName: Name,
      /** Unique in the pool. Default: the UUID. */
      name: v.optional(Name),
      /** A multiple of the block size; the device has exactly this size. */
      sizeBytes: Size,
      thin: v.optional(v.boolean(), false),
      entityId: v.optional(Tag),
      volumeUuid: v.optional(Uuid),
      /** Share it over this protocol from the start. */
      share: v.optional(v.picklist(["none", "nvmf"]), "none"),
      allowedHosts: v.optional(AllowedHosts),
    }),
    result: Replica,
  },
  destroyReplica: {
    method: "DELETE",
    path: "/v1/replicas/:uuid",
    summary: "Destroys a replica that no nexus of this engine uses; its snapshots stay",
    params: uuidParams,
  },
  listReplicas: {
    method: "GET",
    path: "/v1/replicas",
    summary: "Replicas and clones, without snapshots",
    query: v.strictObject({ poolName: v.optional(Name), entityId: v.optional(Tag) }),
    result: v.array(Replica),
  },
  getReplica: {
    method: "GET",
    path: "/v1/replicas/:uuid",
    summary: "One replica",
    params: uuidParams,
    result: Replica,
  },
  resizeReplica: {
    method: "PUT",
    path: "/v1/replicas/:uuid/size",
    summary: "Grows a replica",
    params: uuidParams,
    body: v.strictObject({ sizeBytes: Size }),
    result: Replica,
  },
  setReplicaAttributes: {
    method: "PUT",
    path: "/v1/replicas/:uuid/attributes",
    summary: "Changes what a replica is labelled with, or how it is provisioned",
    params: uuidParams,
    body: v.strictObject({
      name: v.optional(Name),
      entityId: v.optional(Tag),
      volumeUuid: v.optional(Uuid),
      thin: v.optional(v.boolean()),
    }),
    result: Replica,
  },
  shareReplicaNvmf: {
    method: "PUT",
    path: "/v1/replicas/:uuid/shares/nvmf",
    summary: "Serves a replica over NVMe/TCP, or changes who may connect; lasts over restarts",
    params: uuidParams,
    body: replicaShare,
    result: Replica,
  },
  shareReplicaNbd: {
    method: "PUT",
    path: "/v1/replicas/:uuid/shares/nbd",
    summary: "Serves a replica over NBD until the engine stops",
    params: uuidParams,
    body: ShareNbd,
    result: Replica,
  },
  unshareReplica: {
    method: "DELETE",
    path: "/v1/replicas/:uuid/shares/:protocol",
    summary: "Stops serving a replica",
    params: v.strictObject({ uuid: Uuid, protocol: ShareProtocol }),
    result: Replica,
  },
  wipeReplica: {
    method: "POST",
    path: "/v1/replicas/:uuid/wipe",
    summary: "Zeroes a replica that nobody uses, or reads all of it and returns its checksum",
    params: uuidParams,
    body: v.strictObject({
      method: v.picklist(["none", "write-zeroes", "checksum"]),
    }),
    result: v.object({
      wipedBytes: Bytes,
      /** CRC32C of all bytes, with `checksum`. */
      checksum: v.nullable(Count),
    }),
  },
});

export const snapshotRoutes = routes({
  createSnapshot: {
    method: "PUT",
    path: "/v1/snapshots/:uuid",
    summary: "Takes a snapshot of a replica, or confirms the one that was taken",
    params: uuidParams,
    body: v.strictObject({
      /** The replica. */
      sourceUuid: Uuid,
      /** Unique in the pool. Default: the UUID. */
      name: v.optional(Name),
      txnId: v.optional(Tag),
      entityId: v.optional(Tag),
      /** Milliseconds since 1970. Default: now. */
      createdAtMs: v.optional(Count),
    }),
    result: Snapshot,
  },
  destroySnapshot: {
    method: "DELETE",
    path: "/v1/snapshots/:uuid",
    summary: "Destroys a snapshot; clones of it stay",
    params: uuidParams,
  },
  listSnapshots: {
    method: "GET",
    path: "/v1/snapshots",
    summary: "Snapshots",
    query: v.strictObject({ poolName: v.optional(Name), sourceUuid: v.optional(Uuid) }),
    result: v.array(Snapshot),
  },
  getSnapshot: {
    method: "GET",
    path: "/v1/snapshots/:uuid",
    summary: "One snapshot",
    params: uuidParams,
    result: Snapshot,
  },
  createClone: {
    method: "PUT",
    path: "/v1/snapshots/:uuid/clones/:cloneUuid",
    summary: "Makes a writable, thin replica of a snapshot, or confirms it",
    params: v.strictObject({ uuid: Uuid, cloneUuid: Uuid }),
    body: v.strictObject({
      name: v.optional(Name),
      entityId: v.optional(Tag),
      volumeUuid: v.optional(Uuid),
    }),
    result: Replica,
  },
  listClones: {
    method: "GET",
    path: "/v1/snapshots/:uuid/clones",
    summary: "Clones of a snapshot",
    params: uuidParams,
    result: v.array(Replica),
  },
});
