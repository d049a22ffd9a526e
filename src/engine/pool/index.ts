/**
 * Pools and replicas: the on-disk format, allocation, journal, thick and thin replicas, snapshots and
 * clones. Imports the reactor, block devices, errors and ffi; nothing above it.
 *
 * Start with `createPool` and `importPool`; `Pool` makes and finds `Replica`s, which are block
 * devices. The format is described where it is written: superblock.ts, journal-format.ts,
 * checkpoint-format.ts, records.ts, attributes.ts, layout.ts.
 */
export { type DiskAnswer, deviceAnswer } from "./answer.ts";
export type { Attributes, ShareProtocol } from "./attributes.ts";
export {
  type CheckedReplica,
  type CheckedStructure,
  type CheckVerdict,
  checkExitStatus,
  checkPool,
  formatReport,
  type PoolReport,
  runPoolCheck,
} from "./check.ts";
export type { PoolHealth, PoolStatus } from "./core.ts";
export type { Intent, RegionRange } from "./intent.ts";
export type { CommitWaiter } from "./journal.ts";
export {
  CLUSTER_BYTES_DEFAULT,
  CLUSTER_BYTES_MAX,
  CLUSTER_BYTES_MIN,
  INTENT_REGION_BYTES,
  RESERVATION_BYTES_MAX,
} from "./limits.ts";
export { type CreatePool, createPool, type ImportPool, importPool, probePool } from "./open.ts";
export type {
  CreateClone,
  CreateReplica,
  CreateSnapshot,
  Pool,
  PoolInfo,
  ReplicaChanges,
} from "./pool.ts";
export type { DiskContent } from "./probe.ts";
export type { Replica, ReplicaKind } from "./replica.ts";
export type { SnapshotUsage, SpaceUsage } from "./usage.ts";
