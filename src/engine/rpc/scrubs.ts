/** Routes and shapes of scrubs: the comparison of a nexus's children while hosts go on. */
import * as v from "valibot";
import { Bytes, Count, Name, Uuid } from "./fields.ts";
import { routes } from "./route.ts";

const countEntries = {
  /** Read from every in-sync child and compared. */
  comparedBytes: Bytes,
  /** Not read: no child holds data there. */
  skippedBytes: Bytes,
  /** Found different or unreadable with host writes kept away, and those of them that were repaired. */
  mismatchedBytes: Bytes,
  repairedBytes: Bytes,
  /** Differed only until it was looked at with host writes kept away. */
  transientBytes: Bytes,
} as const;

export const ScrubCounts = v.object(countEntries);
export type ScrubCounts = v.InferOutput<typeof ScrubCounts>;

/** A range where children were not equal, or one could not be read. */
export const ScrubFinding = v.object({
  offsetBytes: Bytes,
  lengthBytes: Bytes,
  kind: v.picklist(["mismatch", "unreadable"]),
  isRepaired: v.boolean(),
  /** Repaired: those that were rewritten. Else: those that differ from each other or cannot be read. */
  childUris: v.array(v.string()),
  /** Why it was not repaired; empty when it was. */
  reason: v.string(),
});
export type ScrubFinding = v.InferOutput<typeof ScrubFinding>;

/** A scrub while it runs, and after it. */
export const Scrub = v.object({
  /** Given by whoever started it. */
  id: v.string(),
  state: v.picklist(["running", "paused", "stopped", "failed", "completed"]),
  /** What it waits for; null: for nothing. */
  waitsFor: v.nullable(v.picklist(["rebuild", "nexus-paused", "resize", "host-latency", "memory"])),
  /** Everything below has been looked at. */
  offsetBytes: Bytes,
  sizeBytes: Bytes,
  /** 0 to 100. */
  progressPercent: v.number(),
  childUris: v.array(v.string()),
  /** 0: no limit. */
  bytesPerSecLimit: Count,
  bytesPerSec: v.number(),
  /** Estimated time that is left; null before there is a rate. */
  etaMs: v.nullable(v.number()),
  /** Milliseconds since 1970. */
  startTimeMs: Count,
  endTimeMs: v.nullable(Count),
  ...countEntries,
  /** The first ones; of more only the bytes are counted. */
  findings: v.array(ScrubFinding),
  /** Why it ended before its end. */
  error: v.nullable(v.string()),
});
export type Scrub = v.InferOutput<typeof Scrub>;

const uuidParams = v.strictObject({ uuid: Uuid });

export const scrubRoutes = routes({
  startScrub: {
    method: "PUT",
    path: "/v1/nexuses/:uuid/scrub",
    summary: "Starts to compare the children of a nexus, or confirms the scrub of that id",
    params: uuidParams,
    body: v.strictObject({
      id: Name,
      /** Where to begin: to take one up again. */
      offsetBytes: v.optional(Bytes, 0),
      /** What it had counted before. */
      counts: v.optional(v.strictObject(countEntries)),
      /** 0: no limit. */
      bytesPerSecLimit: v.optional(Count, 0),
      /** False: differences are reported and left alone. */
      repair: v.optional(v.boolean(), true),
    }),
    result: Scrub,
  },
  getScrub: {
    method: "GET",
    path: "/v1/nexuses/:uuid/scrub",
    summary: "The scrub of a nexus that runs, else the last that ended",
    params: uuidParams,
    result: Scrub,
  },
  stopScrub: {
    method: "DELETE",
    path: "/v1/nexuses/:uuid/scrub",
    summary: "Ends a scrub where it is; it can be taken up again from its offset",
    params: uuidParams,
    result: Scrub,
  },
  pauseScrub: {
    method: "POST",
    path: "/v1/nexuses/:uuid/scrub/pause",
    summary: "Pauses a scrub",
    params: uuidParams,
    result: Scrub,
  },
  resumeScrub: {
    method: "POST",
    path: "/v1/nexuses/:uuid/scrub/resume",
    summary: "Resumes a paused scrub",
    params: uuidParams,
    result: Scrub,
  },
  configureScrub: {
    method: "PUT",
    path: "/v1/nexuses/:uuid/scrub/rate",
    summary: "Limits the bandwidth of a scrub",
    params: uuidParams,
    body: v.strictObject({ bytesPerSecLimit: Count }),
    result: Scrub,
  },
});
