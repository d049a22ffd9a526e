/** Shapes of nexuses, their children and rebuilds (mayastor.md 1.2). */
import * as v from "valibot";
import {
  Bytes,
  Count,
  DeviceUri,
  Percent,
  Protocol,
  Size,
  SpecStatus,
  Time,
  Uuid,
} from "./fields.ts";

export const ChildState = v.picklist(["Unknown", "Online", "Degraded", "Faulted"]);
export const ChildStateReason = v.picklist(["OutOfSpace"]);
export const Child = v.object({
  rebuildProgress: v.optional(Percent),
  state: ChildState,
  state_reason: v.optional(ChildStateReason),
  uri: v.string(),
});

export const NexusState = v.picklist([
  "Unknown",
  "Online",
  "Degraded",
  "Faulted",
  "ShuttingDown",
  "Shutdown",
]);
export const CreateNexusBody = v.object({
  size: Size,
  children: v.pipe(v.array(DeviceUri), v.minLength(1), v.maxLength(8)),
});
export const Nexus = v.object({
  children: v.array(Child),
  deviceUri: v.string(),
  node: v.string(),
  rebuilds: v.pipe(v.number(), v.integer(), v.minValue(0)),
  protocol: Protocol,
  size: Bytes,
  state: NexusState,
  uuid: Uuid,
});
export const NexusSpec = v.object({
  children: v.array(v.string()),
  managed: v.boolean(),
  node: v.string(),
  owner: v.optional(Uuid),
  share: Protocol,
  size: Bytes,
  status: SpecStatus,
  uuid: Uuid,
});

export const RebuildJobState = v.picklist([
  "Init",
  "Rebuilding",
  "Stopped",
  "Paused",
  "Failed",
  "Completed",
]);
const rebuild = {
  childUri: v.string(),
  srcUri: v.string(),
  rebuildJobState: RebuildJobState,
  blocksTotal: Bytes,
  blocksRecovered: Bytes,
  blocksTransferred: Bytes,
  blocksRemaining: Bytes,
  blockSize: Bytes,
  isPartial: v.boolean(),
  startTime: Time,
} as const;
export const RebuildRecord = v.object({ ...rebuild, endTime: Time });
export const RebuildHistory = v.object({ targetUuid: Uuid, records: v.array(RebuildRecord) });

/** A rebuild that runs. Ours. */
export const RunningRebuild = v.object({
  ...rebuild,
  /** Replica that is brought up to date; absent for a device that is none. */
  replica: v.optional(Uuid),
  progressPercent: v.number(),
  bytesPerSec: v.number(),
  /** Estimated time that is left; absent before there is a rate. */
  etaMs: v.optional(v.number()),
});
/** A rebuild that waits for others to end. Ours. */
export const QueuedRebuild = v.object({
  volume: Uuid,
  replica: Uuid,
  node: v.string(),
  pool: v.string(),
  /** Good copies that the volume has left: the fewer, the sooner its turn comes. */
  goodCopies: Count,
  /** When the replica was lost, or made. */
  since: Time,
  /** Which limit it waits for. */
  reason: v.string(),
});
/** Rebuilds of a volume, running and ended, also while it is not published. Ours. */
export const VolumeRebuilds = v.object({
  volume: Uuid,
  running: v.array(RunningRebuild),
  queued: v.optional(v.array(QueuedRebuild)),
  history: v.array(RebuildRecord),
});
