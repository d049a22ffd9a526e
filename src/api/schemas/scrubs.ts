/** Shapes of scrubs: the comparison of a volume's replicas. Ours, beside the contract. */
import * as v from "valibot";
import { Bytes, Time, Uuid } from "./fields.ts";

/**
 * `never`: there was none. `waiting`: it is to run and does not yet. Else as it says; `stopped` goes on
 * from its position when it is asked for again.
 */
export const ScrubState = v.picklist([
  "never",
  "waiting",
  "running",
  "paused",
  "stopped",
  "completed",
]);

/** A range where replicas were not equal, or one could not be read. */
export const ScrubFinding = v.object({
  offset: Bytes,
  length: Bytes,
  kind: v.picklist(["mismatch", "unreadable"]),
  repaired: v.boolean(),
  /** Repaired: those that were written anew. Else those that differ from each other or cannot be read. */
  replicas: v.array(v.string()),
  /** Why it was not repaired. */
  reason: v.optional(v.string()),
});

/** What a volume shows of it. */
export const ScrubSummary = v.object({
  state: ScrubState,
  progressPercent: v.number(),
  /** End of the last pass over the whole volume. */
  completedAt: v.optional(Time),
  mismatched: Bytes,
  repaired: Bytes,
});

export const VolumeScrub = v.object({
  volume: Uuid,
  state: ScrubState,
  /** What it waits for: `rebuild`, `host-latency`, ... */
  waitsFor: v.optional(v.string()),
  /** Node that compares. */
  node: v.optional(v.string()),
  cause: v.optional(v.picklist(["schedule", "request"])),
  progressPercent: v.number(),
  /** Everything below has been looked at in this pass. */
  position: Bytes,
  size: Bytes,
  compared: Bytes,
  /** Not read: no replica holds data there. */
  skipped: Bytes,
  mismatched: Bytes,
  repaired: Bytes,
  bytesPerSec: v.optional(v.number()),
  etaMs: v.optional(v.number()),
  startedAt: v.optional(Time),
  completedAt: v.optional(Time),
  /** When the next one is due; absent: only on request. */
  nextAt: v.optional(Time),
  /** What this pass has found, and the last one where this has not been yet. */
  findings: v.array(ScrubFinding),
  /** Repaired bytes that nobody has acknowledged. */
  unacknowledged: Bytes,
});

export const ScrubBody = v.strictObject({
  /** From the beginning, though one was stopped in the middle or runs. */
  restart: v.optional(v.boolean(), false),
  /** False: differences are only reported. */
  repair: v.optional(v.boolean(), true),
});
