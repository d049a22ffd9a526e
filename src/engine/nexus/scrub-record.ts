/** What a scrub reports: its progress, what it counted, and what it found. Types and small sums only. */
import { SCRUB_FINDINGS_MAX } from "./limits.ts";

export type ScrubState = "running" | "paused" | "stopped" | "failed" | "completed";

/** What a running scrub waits for. */
export type ScrubWait = "rebuild" | "nexus-paused" | "resize" | "host-latency" | "memory";

/** Bytes that were dealt with; they go on counting when a scrub is taken up again elsewhere. */
export interface ScrubCounts {
  /** Read from every in-sync child and compared. */
  readonly comparedBytes: number;
  /** Not read, because no child holds data there. */
  readonly skippedBytes: number;
  /** Found different, or not readable on some child, with host writes kept away. */
  readonly mismatchedBytes: number;
  /** Of these: made equal again, and read back. */
  readonly repairedBytes: number;
  /** Differed at first and no more with host writes kept away: written to meanwhile, or misread. */
  readonly transientBytes: number;
}

/** A range where children were not equal, or could not be read. */
export interface ScrubFinding {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly kind: "mismatch" | "unreadable";
  readonly isRepaired: boolean;
  /** Repaired: the children that were rewritten. Else: those that differ from each other or fail. */
  readonly childUris: readonly string[];
  /** Why it was not repaired; empty when it was. */
  readonly reason: string;
}

/** A scrub as it is reported, while it runs and after it. */
export interface ScrubRecord extends ScrubCounts {
  /** Given by whoever started it. */
  readonly id: string;
  readonly state: ScrubState;
  /** Null: it is at it, or has ended. */
  readonly waitsFor: ScrubWait | null;
  /** Everything below has been looked at. */
  readonly offsetBytes: number;
  readonly sizeBytes: number;
  /** Children that are compared at present, or were at last. */
  readonly childUris: readonly string[];
  /** 0: no limit. */
  readonly bytesPerSecLimit: number;
  /** Of what was compared, over the time in which it was not paused. */
  readonly bytesPerSec: number;
  /** Estimated time left in ms; undefined before there is a rate. */
  readonly etaMs: number | undefined;
  /** Milliseconds since 1970. */
  readonly startTimeMs: number;
  readonly endTimeMs: number | undefined;
  /** The first `SCRUB_FINDINGS_MAX`. */
  readonly findings: readonly ScrubFinding[];
  /** Why it ended before its end. */
  readonly error: string | undefined;
}

function isSame(a: ScrubFinding, b: ScrubFinding): boolean {
  return (
    a.kind === b.kind &&
    a.isRepaired === b.isRepaired &&
    a.reason === b.reason &&
    a.childUris.join("\n") === b.childUris.join("\n")
  );
}

/** Adds a finding, joined with the last one when it goes on where that ends. True: it is kept by itself. */
export function addFinding(findings: ScrubFinding[], finding: ScrubFinding): boolean {
  const last = findings.at(-1);
  const goesOn =
    last !== undefined &&
    last.offsetBytes + last.lengthBytes === finding.offsetBytes &&
    isSame(last, finding);
  if (goesOn) {
    const lengthBytes = last.lengthBytes + finding.lengthBytes;
    findings[findings.length - 1] = { ...last, lengthBytes };
    return false;
  }
  if (findings.length >= SCRUB_FINDINGS_MAX) return false;
  findings.push(finding);
  return true;
}
