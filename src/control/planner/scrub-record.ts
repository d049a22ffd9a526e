/**
 * What is kept of the scrub of a volume: a setting of its own per volume, as JSON. It says what is wanted
 * (that one runs), how far it is, so that another node takes it up from there, and what was found.
 */
import type { ScrubCounts } from "../../engine/rpc/scrubs.ts";
import type { ClusterState, StoreView } from "../cluster-state.ts";
import type { SettingRecord, Uuid, VolumeRecord } from "../model.ts";
import type { Change } from "./plan.ts";

export const noCounts: ScrubCounts = {
  comparedBytes: 0,
  skippedBytes: 0,
  mismatchedBytes: 0,
  repairedBytes: 0,
  transientBytes: 0,
};

/** A range that was not equal, or could not be read. */
export interface ScrubFinding {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly kind: "mismatch" | "unreadable";
  readonly isRepaired: boolean;
  /** Repaired: those that were rewritten. Else those that differ from each other, or cannot be read. */
  readonly replicas: readonly Uuid[];
  readonly reason: string;
}

/** A pass over the whole volume, or as far as it has come. */
export interface ScrubPass {
  readonly id: Uuid;
  readonly startedAtMs: number;
  readonly counts: ScrubCounts;
  readonly findings: readonly ScrubFinding[];
  /** Of the repaired bytes an operator knows so many. */
  readonly acknowledgedBytes: number;
}

export interface VolumeScrub {
  /** `Stopped`: by a user; the next one goes on from there. */
  readonly state: "Running" | "Stopped" | "Completed";
  readonly cause: "schedule" | "request";
  /** Differences are repaired where a majority agrees. */
  readonly isRepairing: boolean;
  readonly pass: ScrubPass;
  readonly offsetBytes: number;
  readonly sizeBytes: number;
  /** When the above was last brought up to date. */
  readonly updatedAtMs: number;
  /** The last pass that came to its end. */
  readonly completed: (ScrubPass & { readonly endedAtMs: number }) | null;
}

const PREFIX = "scrub/";

export function scrubKey(volumeUuid: Uuid): string {
  return `${PREFIX}${volumeUuid}`;
}

/** The volume whose scrub a setting holds; undefined for other settings. */
export function volumeOfScrubKey(key: string): Uuid | undefined {
  return key.startsWith(PREFIX) ? key.slice(PREFIX.length) : undefined;
}

const parsed = new WeakMap<SettingRecord, VolumeScrub>();

/** What is kept of a volume; undefined before its first scrub. */
export function keptScrub(view: StoreView, volumeUuid: Uuid): VolumeScrub | undefined {
  const setting = view.settings.get(scrubKey(volumeUuid));
  if (setting === undefined) return undefined;
  let scrub = parsed.get(setting);
  if (scrub === undefined) {
    scrub = JSON.parse(setting.value) as VolumeScrub;
    parsed.set(setting, scrub);
  }
  return scrub;
}

/** The change that keeps it. */
export function keepScrub(view: StoreView, volumeUuid: Uuid, scrub: VolumeScrub): Change {
  const key = scrubKey(volumeUuid);
  const revision = view.settings.get(key)?.revision ?? 0;
  return { table: "settings", put: { key, value: JSON.stringify(scrub), revision } };
}

/** A scrub that is to run now: what was stopped goes on, unless it is to begin anew. */
export function begunScrub(
  before: VolumeScrub | undefined,
  given: {
    readonly id: Uuid;
    readonly nowMs: number;
    readonly sizeBytes: number;
    readonly cause: VolumeScrub["cause"];
    readonly isRepairing: boolean;
    readonly isAnew: boolean;
  },
): VolumeScrub {
  const { id, nowMs, sizeBytes, cause, isRepairing } = given;
  const goesOn = before !== undefined && before.state === "Stopped" && !given.isAnew;
  return {
    state: "Running",
    cause,
    isRepairing,
    pass: goesOn
      ? { ...before.pass, id }
      : { id, startedAtMs: nowMs, counts: noCounts, findings: [], acknowledgedBytes: 0 },
    offsetBytes: goesOn ? before.offsetBytes : 0,
    sizeBytes,
    updatedAtMs: nowMs,
    completed: before?.completed ?? null,
  };
}

/** What is known to be so now: of what the present pass has not looked at again, the last one's. */
export function standingFindings(scrub: VolumeScrub): readonly ScrubFinding[] {
  const { completed, pass, offsetBytes, state } = scrub;
  if (state === "Completed") return completed?.findings ?? [];
  const older = (completed?.findings ?? []).filter((one) => one.offsetBytes >= offsetBytes);
  return [...pass.findings, ...older];
}

/** What metrics tell of the scrub of a volume; undefined when there was none. */
export function scrubReading({ stored }: ClusterState, volume: VolumeRecord) {
  const scrub = keptScrub(stored, volume.uuid);
  if (scrub === undefined) return undefined;
  const { comparedBytes, mismatchedBytes, repairedBytes } = scrub.pass.counts;
  const unrepaired = standingFindings(scrub).filter(({ isRepaired }) => !isRepaired);
  return {
    isRunning: scrub.state === "Running",
    progressRatio: scrub.sizeBytes === 0 ? 1 : scrub.offsetBytes / scrub.sizeBytes,
    completedAtMs: scrub.completed?.endedAtMs ?? null,
    comparedBytes,
    mismatchedBytes,
    repairedBytes,
    unrepairedBytes: unrepaired.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0),
  };
}

/** Repaired bytes that nobody has acknowledged. */
export function unacknowledgedBytes(scrub: VolumeScrub): number {
  const of = (pass: ScrubPass | null): number =>
    pass === null ? 0 : Math.max(0, pass.counts.repairedBytes - pass.acknowledgedBytes);
  const { completed, pass, state } = scrub;
  return of(completed) + (state === "Completed" ? 0 : of(pass));
}
