/** Routes and shapes of pools. */
import * as v from "valibot";
import { Bytes, Count, Name, Size, Uri, Uuid } from "./fields.ts";
import { routes } from "./route.ts";

export const PoolState = v.picklist(["online", "degraded", "faulted", "offline"]);

export const Pool = v.object({
  name: v.string(),
  uuid: v.string(),
  /** URIs of its disks: exactly one. */
  disks: v.array(v.string()),
  state: PoolState,
  /** Why it is not online; empty when it is. */
  stateReason: v.string(),
  /**
   * The disk of a pool that has failed: it does not answer, it answers again, or it has done so for
   * long enough that importing the pool again is worth while. Absent while the pool works.
   */
  disk: v.optional(v.picklist(["failed", "answering", "steady"])),
  readErrors: Count,
  writeErrors: Count,
  metadataErrors: Count,
  blockSize: Count,
  clusterSizeBytes: Bytes,
  /** Bytes that can hold data. */
  capacityBytes: Bytes,
  /** Bytes that hold data or are reserved for thick replicas. */
  usedBytes: Bytes,
  /** Sizes of all replicas, and what snapshots hold alone. */
  committedBytes: Bytes,
  metadataBytes: Bytes,
  /** Size of the disk. Larger than what the pool takes of it: the pool can grow. */
  diskCapacityBytes: Bytes,
  replicas: Count,
  snapshots: Count,
  reactor: Count,
});
export type Pool = v.InferOutput<typeof Pool>;

/** Result of an offline check (`trilith pool check`). */
export const PoolCheck = v.object({
  disk: v.string(),
  /** `degraded`: all data is there, a redundant copy of metadata is damaged. */
  verdict: v.picklist(["sound", "degraded", "damaged", "absent"]),
  name: v.string(),
  uuid: v.string(),
  clusterSizeBytes: Bytes,
  clusters: Count,
  metadataClusters: Count,
  usedClusters: Count,
  freeClusters: Count,
  reservedClusters: Count,
  structures: v.array(
    v.object({
      name: v.string(),
      state: v.picklist(["good", "unused", "stale", "damaged"]),
      detail: v.string(),
    }),
  ),
  replicas: v.array(
    v.object({
      uuid: v.string(),
      name: v.string(),
      kind: v.picklist(["replica", "snapshot", "clone"]),
      sizeBytes: Bytes,
      thin: v.boolean(),
      allocatedBytes: Bytes,
      sharedBytes: Bytes,
      dirtyRegions: Count,
      volumeUuid: v.string(),
      epoch: Count,
      healthGeneration: Count,
      clean: v.boolean(),
    }),
  ),
  errors: v.array(v.string()),
  warnings: v.array(v.string()),
});
export type PoolCheck = v.InferOutput<typeof PoolCheck>;

const nameParams = v.strictObject({ name: Name });
/** Exactly one disk, as in Mayastor; a list, so that more can come. */
const Disks = v.pipe(v.array(Uri), v.length(1, "a pool has exactly one disk"));

export const poolRoutes = routes({
  createPool: {
    method: "PUT",
    path: "/v1/pools/:name",
    summary: "Makes a pool on a disk, or imports or confirms the one that is there",
    params: nameParams,
    body: v.strictObject({
      disks: Disks,
      /** Default: a random one. Given, a pool that is there counts as the same only with it. */
      uuid: v.optional(Uuid),
      /** A power of two from 64 KiB to 1 GiB. Default: 4 MiB. */
      clusterSizeBytes: v.optional(Size),
      /** Overwrites whatever the disk holds. */
      force: v.optional(v.boolean(), false),
    }),
    result: Pool,
  },
  importPool: {
    method: "POST",
    path: "/v1/pools/:name/import",
    summary: "Opens the pool that a disk holds, anew when it is open and has failed",
    params: nameParams,
    body: v.strictObject({ disks: Disks, uuid: v.optional(Uuid) }),
    result: Pool,
  },
  exportPool: {
    method: "POST",
    path: "/v1/pools/:name/export",
    summary: "Closes a pool in order and leaves its disk as it is",
    params: nameParams,
  },
  destroyPool: {
    method: "DELETE",
    path: "/v1/pools/:name",
    summary: "Destroys a pool with all replicas and snapshots in it",
    params: nameParams,
  },
  growPool: {
    method: "POST",
    path: "/v1/pools/:name/grow",
    summary: "Takes in what the disk has grown by",
    params: nameParams,
    result: v.object({ previous: Pool, current: Pool }),
  },
  listPools: {
    method: "GET",
    path: "/v1/pools",
    summary: "Pools that are open",
    query: v.strictObject({ name: v.optional(Name), uuid: v.optional(Uuid) }),
    result: v.array(Pool),
  },
  getPool: {
    method: "GET",
    path: "/v1/pools/:name",
    summary: "One pool",
    params: nameParams,
    result: Pool,
  },
  checkPool: {
    method: "POST",
    path: "/v1/pool-checks",
    summary: "Verifies the pool on a disk that is not in use; writes nothing",
    body: v.strictObject({ disk: Uri }),
    result: PoolCheck,
  },
});
