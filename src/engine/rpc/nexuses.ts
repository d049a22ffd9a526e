/** Routes and shapes of nexuses, their children and rebuilds. */
import * as v from "valibot";
import { AnaStateName, Bytes, Count, Name, Share, Size, Uri, Uuid } from "./fields.ts";
import { routes } from "./route.ts";
import { Scrub } from "./scrubs.ts";
import { ShareNbd, ShareNvmf, ShareProtocol } from "./shares.ts";

/** Progress of a rebuild, or its outcome. Blocks are the nexus's. */
export const Rebuild = v.object({
  childUri: v.string(),
  /** Child that it copies from, at present or last; empty before it has begun. */
  srcUri: v.string(),
  state: v.picklist(["init", "rebuilding", "paused", "stopped", "failed", "completed"]),
  blocksTotal: Count,
  /** Blocks dealt with, and those of them that had to be written. */
  blocksRecovered: Count,
  blocksTransferred: Count,
  blocksRemaining: Count,
  blockSize: Count,
  /** 0 to 100. */
  progressPercent: v.number(),
  /** From the write-intent log alone; else all of the volume is looked at. */
  isPartial: v.boolean(),
  /** Milliseconds since 1970. */
  startTimeMs: Count,
  endTimeMs: v.nullable(Count),
  bytesPerSec: v.number(),
  /** Estimated time that is left; null before there is a rate. */
  etaMs: v.nullable(v.number()),
  error: v.nullable(v.string()),
});
export type Rebuild = v.InferOutput<typeof Rebuild>;

export const NexusChild = v.object({
  uri: v.string(),
  state: v.picklist(["online", "degraded", "faulted", "unknown"]),
  reason: v.picklist([
    "none",
    "closed",
    "cannot-open",
    "out-of-sync",
    "rebuild-failed",
    "io-failure",
    "by-client",
    "no-space",
    "timed-out",
    "offline",
  ]),
  /** On this node: reads prefer it. */
  isLocal: v.boolean(),
  /** The rebuild that runs now; null when none does. */
  rebuild: v.nullable(Rebuild),
});
export type NexusChild = v.InferOutput<typeof NexusChild>;

export const Nexus = v.object({
  uuid: v.string(),
  name: v.string(),
  volumeUuid: v.string(),
  epoch: Count,
  generation: Count,
  sizeBytes: Bytes,
  blockSize: Count,
  state: v.picklist([
    "unknown",
    "init",
    "online",
    "degraded",
    "faulted",
    "shutting-down",
    "shutdown",
  ]),
  children: v.array(NexusChild),
  /** How hosts reach it over NVMe; empty when it is not shared so. */
  deviceUri: v.string(),
  shares: v.array(Share),
  /** NVMe controllers that hosts have here. Absent: an engine of before this was told. */
  controllers: v.optional(Count),
  /** Rebuilds that run or wait. */
  rebuilds: Count,
  dirtyRegions: Count,
  /** Host requests that wait for something other than a disk. */
  waitingRequests: Count,
  isPaused: v.boolean(),
  /**
   * Children that are to be in sync before the write-intent log is cleaned; 0: those that it has. Absent:
   * an engine of before this could be said.
   */
  wantedChildren: v.optional(Count),
  /** The scrub that runs, or the last one. Absent: an engine of before there were scrubs. */
  scrub: v.optional(v.nullable(Scrub)),
  reactor: Count,
});
export type Nexus = v.InferOutput<typeof Nexus>;

const uuidParams = v.strictObject({ uuid: Uuid });
/** A child is named by its URI, percent-encoded in the path. */
const childParams = v.strictObject({ uuid: Uuid, childUri: Uri });

/** Highest epoch: reservation keys have room for so many. */
const EPOCH_MAX = 2 ** 36;

const nexusLife = routes({
  createNexus: {
    method: "PUT",
    path: "/v1/nexuses/:uuid",
    summary: "Opens a nexus over its children, or confirms the one that is open",
    params: uuidParams,
    body: v.strictObject({
      /** Default: the nexus's own UUID (a nexus without a volume). */
      volumeUuid: v.optional(Uuid),
      /** Default: the volume's UUID. */
      name: v.optional(Name),
      /** Default: size of the smallest child. */
      sizeBytes: v.optional(Size),
      /** Raised at every publish or move: whoever has an older one is shut out. */
      epoch: v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(EPOCH_MAX)),
      children: v.pipe(
        v.array(
          v.strictObject({
            uri: Uri,
            /** What the durable record says. */
            healthy: v.optional(v.boolean(), true),
          }),
        ),
        v.minLength(1),
        v.maxLength(8),
      ),
    }),
    result: Nexus,
  },
  destroyNexus: {
    method: "DELETE",
    path: "/v1/nexuses/:uuid",
    summary: "Closes a nexus in order and forgets it; its children keep their data",
    params: uuidParams,
  },
  shutdownNexus: {
    method: "POST",
    path: "/v1/nexuses/:uuid/shutdown",
    summary: "Closes a nexus in order; it stays listed until it is destroyed",
    params: uuidParams,
    result: Nexus,
  },
  listNexuses: {
    method: "GET",
    path: "/v1/nexuses",
    summary: "Nexuses",
    query: v.strictObject({ volumeUuid: v.optional(Uuid), name: v.optional(Name) }),
    result: v.array(Nexus),
  },
  getNexus: {
    method: "GET",
    path: "/v1/nexuses/:uuid",
    summary: "One nexus",
    params: uuidParams,
    result: Nexus,
  },
  resizeNexus: {
    method: "PUT",
    path: "/v1/nexuses/:uuid/size",
    summary: "Grows a nexus whose children have grown",
    params: uuidParams,
    body: v.strictObject({ sizeBytes: Size }),
    result: Nexus,
  },
  wantNexusChildren: {
    method: "PUT",
    path: "/v1/nexuses/:uuid/wanted-children",
    summary: "Says how many children are to be in sync before the write-intent log is cleaned",
    params: uuidParams,
    body: v.strictObject({ count: v.pipe(Count, v.maxValue(8)) }),
    result: Nexus,
  },
  pauseNexus: {
    method: "POST",
    path: "/v1/nexuses/:uuid/pause",
    summary: "Keeps host requests waiting; none is under way when it is answered",
    params: uuidParams,
    result: Nexus,
  },
  resumeNexus: {
    method: "POST",
    path: "/v1/nexuses/:uuid/resume",
    summary: "Lets host requests through again",
    params: uuidParams,
    result: Nexus,
  },
});

const nexusShares = routes({
  shareNexusNvmf: {
    method: "PUT",
    path: "/v1/nexuses/:uuid/shares/nvmf",
    summary: "Publishes a nexus over NVMe/TCP, or changes who may connect and its ANA state",
    params: uuidParams,
    body: ShareNvmf,
    result: Nexus,
  },
  shareNexusNbd: {
    method: "PUT",
    path: "/v1/nexuses/:uuid/shares/nbd",
    summary: "Publishes a nexus over NBD",
    params: uuidParams,
    body: ShareNbd,
    result: Nexus,
  },
  unshareNexus: {
    method: "DELETE",
    path: "/v1/nexuses/:uuid/shares/:protocol",
    summary: "Ends the publication of a nexus",
    params: v.strictObject({ uuid: Uuid, protocol: ShareProtocol }),
    result: Nexus,
  },
  getNexusAnaState: {
    method: "GET",
    path: "/v1/nexuses/:uuid/ana-state",
    summary: "ANA state of a nexus that is published over NVMe/TCP",
    params: uuidParams,
    result: v.object({ anaState: AnaStateName }),
  },
  setNexusAnaState: {
    method: "PUT",
    path: "/v1/nexuses/:uuid/ana-state",
    summary: "Changes the ANA state; hosts are told",
    params: uuidParams,
    body: v.strictObject({ anaState: AnaStateName }),
    result: v.object({ anaState: AnaStateName }),
  },
});

const nexusChildren = routes({
  addNexusChild: {
    method: "PUT",
    path: "/v1/nexuses/:uuid/children/:childUri",
    summary: "Adds a child and rebuilds it",
    params: childParams,
    result: Nexus,
  },
  removeNexusChild: {
    method: "DELETE",
    path: "/v1/nexuses/:uuid/children/:childUri",
    summary: "Removes a child for good",
    params: childParams,
    result: Nexus,
  },
  onlineNexusChild: {
    method: "POST",
    path: "/v1/nexuses/:uuid/children/:childUri/online",
    summary: "Brings a child back and rebuilds what it has missed",
    params: childParams,
    result: Nexus,
  },
  offlineNexusChild: {
    method: "POST",
    path: "/v1/nexuses/:uuid/children/:childUri/offline",
    summary: "Takes a child out of use for a while",
    params: childParams,
    result: Nexus,
  },
  faultNexusChild: {
    method: "POST",
    path: "/v1/nexuses/:uuid/children/:childUri/fault",
    summary: "Faults a child",
    params: childParams,
    result: Nexus,
  },
});

const rebuilds = routes({
  startRebuild: {
    method: "POST",
    path: "/v1/nexuses/:uuid/children/:childUri/rebuild/start",
    summary: "Rebuilds a child that is out of sync (the same as bringing it online)",
    params: childParams,
    result: Nexus,
  },
  stopRebuild: {
    method: "POST",
    path: "/v1/nexuses/:uuid/children/:childUri/rebuild/stop",
    summary: "Stops a rebuild; the child takes no part until it is brought online",
    params: childParams,
    result: Nexus,
  },
  pauseRebuild: {
    method: "POST",
    path: "/v1/nexuses/:uuid/children/:childUri/rebuild/pause",
    summary: "Pauses the rebuild that runs",
    params: childParams,
    result: Rebuild,
  },
  resumeRebuild: {
    method: "POST",
    path: "/v1/nexuses/:uuid/children/:childUri/rebuild/resume",
    summary: "Resumes a paused rebuild",
    params: childParams,
    result: Rebuild,
  },
  getRebuild: {
    method: "GET",
    path: "/v1/nexuses/:uuid/children/:childUri/rebuild",
    summary: "The rebuild of a child that runs, else the last that ended",
    params: childParams,
    result: Rebuild,
  },
  listRebuilds: {
    method: "GET",
    path: "/v1/nexuses/:uuid/rebuilds",
    summary: "Rebuilds of a nexus: running, waiting, ended",
    params: uuidParams,
    result: v.object({
      running: v.array(Rebuild),
      /** URIs of children that wait for theirs. */
      waiting: v.array(v.string()),
      history: v.array(Rebuild),
      segmentBytes: Bytes,
      /** 0: no limit. */
      bytesPerSecLimit: Count,
    }),
  },
  configureRebuilds: {
    method: "PUT",
    path: "/v1/nexuses/:uuid/rebuilds",
    summary: "Limits the bandwidth of rebuilds, or sets the size of their segments",
    params: uuidParams,
    body: v.strictObject({
      segmentBytes: v.optional(Size),
      /** 0: no limit. */
      bytesPerSecLimit: v.optional(Count),
    }),
    result: v.object({ segmentBytes: Bytes, bytesPerSecLimit: Count }),
  },
});

export const nexusRoutes = {
  ...nexusLife,
  ...nexusShares,
  ...nexusChildren,
  ...rebuilds,
} as const;
