/** States of a nexus and its children, as they are reported (and named by Mayastor). */

/** What a child is to its nexus. */
export type ChildPhase =
  /** Being opened. */
  | "opening"
  /** Holds every acknowledged write; reads and writes go to it. */
  | "in-sync"
  /** Takes writes and is being brought up to date. */
  | "rebuilding"
  /** A write failed; it takes no more, and the loss is not recorded yet. */
  | "failing"
  /** Takes no part. */
  | "out";

/** Why a child takes no part, or is not in sync. */
export type ChildReason =
  | "none"
  | "closed"
  | "cannot-open"
  | "out-of-sync"
  | "rebuild-failed"
  | "io-failure"
  | "by-client"
  | "no-space"
  | "timed-out"
  | "offline";

export type ChildState = "online" | "degraded" | "faulted" | "unknown";
export type NexusState =
  | "unknown"
  | "init"
  | "online"
  | "degraded"
  | "faulted"
  | "shutting-down"
  | "shutdown";

/** The state a child is reported in. */
export function childState(phase: ChildPhase, reason: ChildReason): ChildState {
  switch (phase) {
    case "opening":
      return "unknown";
    case "in-sync":
      return "online";
    case "rebuilding":
      return "degraded";
    case "failing":
      return "faulted";
    case "out": {
      const isDegraded =
        reason === "closed" ||
        reason === "no-space" ||
        reason === "offline" ||
        reason === "out-of-sync";
      return isDegraded ? "degraded" : "faulted";
    }
  }
}
