/** Routes and shapes about the engine itself: who it is, how it is set, how it fares, what happened. */
import * as v from "valibot";
import { Bytes, Count, QueryCount } from "./fields.ts";
import { routes } from "./route.ts";

export const Endpoint = v.object({ address: v.string(), port: Count });

export const EngineInfo = v.object({
  nodeName: v.string(),
  version: v.string(),
  commit: v.string(),
  bun: v.string(),
  apiVersions: v.array(v.string()),
  /** New at every start: two answers with the same value come from the same process. */
  instanceUuid: v.string(),
  pid: Count,
  startedAt: v.string(),
  hostNqn: v.string(),
  hostId: v.string(),
  /** Address that share URIs carry. */
  address: v.string(),
  nvmf: v.array(Endpoint),
  discovery: v.array(Endpoint),
  nbd: v.array(Endpoint),
  rpc: v.array(Endpoint),
  reactors: Count,
  features: v.object({
    asymmetricNamespaceAccess: v.boolean(),
    nbd: v.boolean(),
    writeIntentLog: v.boolean(),
    replicaSnapshots: v.boolean(),
    poolGrow: v.boolean(),
  }),
});
export type EngineInfo = v.InferOutput<typeof EngineInfo>;

export const EngineSettings = v.object({
  nodeName: v.string(),
  hostNqn: v.string(),
  hostId: v.string(),
  dataDir: v.string(),
  reactors: Count,
  /** CPUs that reactors are bound to, one each; null: not bound. */
  cores: v.nullable(v.array(Count)),
  arenaBytes: Bytes,
  spinNs: Count,
  nvmfListen: v.array(v.string()),
  nvmfPort: Count,
  discoveryPort: v.nullable(Count),
  nbdPort: v.nullable(Count),
  rpcListen: v.array(Endpoint),
  address: v.string(),
  recorder: v.nullable(v.string()),
});

export const ReactorState = v.object({
  index: Count,
  core: v.nullable(Count),
  turns: Count,
  completions: Count,
  busyNs: Count,
  sleeps: Count,
  spins: Count,
  stalls: Count,
  stallNsMax: Count,
  arenaBytes: Bytes,
  arenaFreeBytes: Bytes,
  /** Kind of pages behind the arena. */
  arenaPages: v.picklist(["reserved", "transparent", "none"]),
  slots: Count,
  slotsFree: Count,
  handlers: Count,
  timers: Count,
  connections: Count,
  heapBytes: Bytes,
  bdevs: Count,
  pools: Count,
  nexuses: Count,
  subsystems: Count,
});
export type ReactorState = v.InferOutput<typeof ReactorState>;

export const EngineUsage = v.object({
  uptimeMs: Count,
  /** Processor time since start. */
  userUs: Count,
  systemUs: Count,
  rssBytes: Bytes,
  mainHeapBytes: Bytes,
  /** Turns of the main thread's event loop that took long, and the longest one. */
  mainStalls: v.optional(Count, 0),
  mainStallMsMax: v.optional(v.number(), 0),
  openFiles: Count,
  reactors: v.array(ReactorState),
});
export type EngineUsage = v.InferOutput<typeof EngineUsage>;

/** Something that happened. `subject` is the UUID, name or NQN of what it happened to. */
export const EngineEvent = v.object({
  sequence: Count,
  at: v.string(),
  kind: v.picklist([
    "engine-started",
    "reactor-stalled",
    "bdev-removed",
    "bdev-resized",
    "pool-faulted",
    "child-faulted",
    "child-online",
    "nexus-state",
    "nexus-superseded",
    "rebuild-started",
    "rebuild-ended",
    "scrub-started",
    "scrub-ended",
    "scrub-mismatch",
    "host-connected",
    "host-disconnected",
  ]),
  subject: v.string(),
  message: v.string(),
  reactor: v.nullable(Count),
  fields: v.record(v.string(), v.union([v.string(), v.number(), v.boolean(), v.null()])),
});
export type EngineEvent = v.InferOutput<typeof EngineEvent>;

export const infoRoutes = routes({
  getInfo: {
    method: "GET",
    path: "/v1/info",
    summary: "Who this engine is and what it can do",
    result: EngineInfo,
  },
  getSettings: {
    method: "GET",
    path: "/v1/settings",
    summary: "The settings that are in effect",
    result: EngineSettings,
  },
  getUsage: {
    method: "GET",
    path: "/v1/usage",
    summary: "Memory, processor time, request slots, buffers and stalls",
    result: EngineUsage,
  },
  listEvents: {
    method: "GET",
    path: "/v1/events",
    summary: "Events after `since`; waits up to `waitMs` for one when there is none",
    query: v.strictObject({
      since: v.optional(QueryCount, 0),
      waitMs: v.optional(v.pipe(QueryCount, v.maxValue(60_000)), 0),
      limit: v.optional(v.pipe(QueryCount, v.minValue(1), v.maxValue(1000)), 100),
    }),
    result: v.object({
      instanceUuid: v.string(),
      events: v.array(EngineEvent),
      /** To be given as `since` next time. */
      next: Count,
      /** Events after `since` that are not kept any more. */
      lost: Count,
    }),
  },
});
