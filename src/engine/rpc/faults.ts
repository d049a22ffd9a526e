/** Routes and shapes of fault injection: a test aid that costs nothing when it is not used. */
import * as v from "valibot";
import { BdevName } from "./bdevs.ts";
import { Bytes, Count, Name, Uri, Uuid } from "./fields.ts";
import { routes } from "./route.ts";

/** Where faults are injected. */
export const FaultTarget = v.variant("kind", [
  /** An opened device, by name. */
  v.strictObject({ kind: v.literal("bdev"), name: BdevName }),
  /** The disk of a pool, by the pool's name. */
  v.strictObject({ kind: v.literal("pool"), name: Name }),
  v.strictObject({ kind: v.literal("replica"), uuid: Uuid }),
  v.strictObject({ kind: v.literal("nexus"), uuid: Uuid }),
  /** What a nexus sends to one of its children. */
  v.strictObject({ kind: v.literal("child"), nexusUuid: Uuid, uri: Uri }),
]);
export type FaultTarget = v.InferOutput<typeof FaultTarget>;

/** Statuses that a request can be made to end with. */
export const FaultStatus = v.picklist([
  "device-io",
  "no-space",
  "timeout",
  "device-gone",
  "reservation-conflict",
  "aborted",
  "unavailable",
]);
export type FaultStatus = v.InferOutput<typeof FaultStatus>;

const DELAY_MS_MAX = 600_000;

/** What happens to a request. */
export const FaultAction = v.variant("kind", [
  /** It ends with a status, without reaching the device. */
  v.strictObject({
    kind: v.literal("error"),
    status: v.optional(FaultStatus, "device-io"),
  }),
  v.strictObject({
    kind: v.literal("delay"),
    delayMs: v.pipe(v.number(), v.minValue(0), v.maxValue(DELAY_MS_MAX)),
  }),
  /** It is kept until the fault is removed, and goes on then. */
  v.strictObject({ kind: v.literal("stall") }),
  /** Only its first bytes (rounded to blocks; default: half of it) are written, then it fails. */
  v.strictObject({
    kind: v.literal("torn-write"),
    keepBytes: v.optional(Bytes),
    status: v.optional(FaultStatus, "device-io"),
  }),
]);
export type FaultAction = v.InferOutput<typeof FaultAction>;

const faultEntries = {
  target: FaultTarget,
  action: FaultAction,
  /** Operations that are affected. Default: all. */
  ops: v.optional(
    v.pipe(
      v.array(v.picklist(["read", "write", "flush", "write-zeroes", "discard"])),
      v.minLength(1),
      v.maxLength(5),
    ),
  ),
  /** Only requests that touch this range of bytes. Flushes touch every range. */
  range: v.optional(v.strictObject({ offsetBytes: Bytes, lengthBytes: Bytes })),
  /** Requests that pass first. */
  after: v.optional(Count, 0),
  /** Requests that are affected at most. Default: no limit. */
  count: v.optional(Count),
  /** Each request is affected with this probability. */
  probability: v.optional(v.pipe(v.number(), v.minValue(0), v.maxValue(1)), 1),
  /** Seed of the probability: 32 bits. */
  seed: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0xffffffff)), 1),
} as const;

/** What to inject, as an engine carries it out. */
export const FaultRule = v.object({ id: v.string(), ...faultEntries });
export type FaultRule = v.InferOutput<typeof FaultRule>;

export const Fault = v.object({
  ...FaultRule.entries,
  /** Requests that met the conditions of operation and range, and those that were affected. */
  matched: Count,
  injected: Count,
  /** Requests that it keeps at present. */
  held: Count,
  reactor: Count,
});
export type Fault = v.InferOutput<typeof Fault>;

const idParams = v.strictObject({ id: Name });

export const faultRoutes = routes({
  createFault: {
    method: "PUT",
    path: "/v1/faults/:id",
    summary: "Injects faults into a device or a child of a nexus",
    params: idParams,
    body: v.strictObject(faultEntries),
    result: Fault,
  },
  listFaults: {
    method: "GET",
    path: "/v1/faults",
    summary: "Faults that are injected",
    result: v.array(Fault),
  },
  destroyFault: {
    method: "DELETE",
    path: "/v1/faults/:id",
    summary: "Ends a fault; requests that it keeps go on",
    params: idParams,
  },
});
