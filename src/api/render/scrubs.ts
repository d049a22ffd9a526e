/** Scrubs of volumes as the API shows them: what is kept of one, and what its engine says at present. */
import type { ClusterState, EngineNexus } from "../../control/cluster-state.ts";
import type { VolumeRecord } from "../../control/model.ts";
import { caughtUp, dueAtMs } from "../../control/planner/reconcile/scrubs.ts";
import {
  keptScrub,
  type ScrubFinding,
  standingFindings,
  unacknowledgedBytes,
  type VolumeScrub,
} from "../../control/planner/scrub-record.ts";
import { observedNexus, targetNexus } from "../../control/planner/status.ts";
import type { ScrubSummary, VolumeScrub as Shown } from "../schemas/index.ts";
import { timeText } from "./time.ts";

type EngineScrub = NonNullable<EngineNexus["scrub"]>;

/** What the engine says of the scrub that is kept; undefined when it says nothing of it now. */
function seenScrub(
  state: ClusterState,
  volume: VolumeRecord,
  kept: VolumeScrub,
): EngineScrub | undefined {
  const record = targetNexus(state, volume);
  const seen = record === undefined ? undefined : observedNexus(state, record)?.scrub;
  return seen?.id === kept.pass.id ? seen : undefined;
}

function stateOf(kept: VolumeScrub, seen: EngineScrub | undefined): Shown["state"] {
  if (kept.state === "Completed") return "completed";
  if (kept.state === "Stopped") return "stopped";
  if (seen?.state === "paused") return "paused";
  if (seen?.state === "completed") return "completed";
  return seen?.state === "running" && seen.waitsFor === null ? "running" : "waiting";
}

function percentOf({ state, offsetBytes, sizeBytes }: VolumeScrub): number {
  if (state === "Completed" || sizeBytes === 0) return 100;
  return Math.floor((offsetBytes * 100) / sizeBytes);
}

function renderFinding(finding: ScrubFinding): Shown["findings"][number] {
  const { offsetBytes, lengthBytes, kind, isRepaired, replicas, reason } = finding;
  return {
    offset: offsetBytes,
    length: lengthBytes,
    kind,
    repaired: isRepaired,
    replicas: [...replicas],
    ...(reason === "" ? {} : { reason }),
  };
}

/** The scrub of a volume, also of one that never had any. */
export function renderScrub(state: ClusterState, volume: VolumeRecord): Shown {
  const stored = keptScrub(state.stored, volume.uuid);
  const dueMs = dueAtMs(state.settings.scrubIntervalMs, volume, stored);
  const next =
    stored?.state === "Running" || dueMs === undefined ? {} : { nextAt: timeText(dueMs) };
  if (stored === undefined) {
    const nothing = { compared: 0, skipped: 0, mismatched: 0, repaired: 0 };
    const none = { progressPercent: 0, position: 0, findings: [], unacknowledged: 0 };
    return {
      volume: volume.uuid,
      state: "never",
      size: volume.sizeBytes,
      ...nothing,
      ...none,
      ...next,
    };
  }
  const seen = seenScrub(state, volume, stored);
  const kept = seen === undefined ? stored : caughtUp(stored, seen, stored.updatedAtMs);
  const { counts, startedAtMs } = kept.pass;
  const shownState = stateOf(stored, seen);
  const isActive = seen !== undefined && stored.state === "Running";
  const node = stored.state === "Running" ? volume.target?.nodeId : undefined;
  const waitsFor = shownState !== "waiting" ? null : (seen?.waitsFor ?? "its nexus");
  return {
    volume: volume.uuid,
    state: shownState,
    ...(waitsFor === null ? {} : { waitsFor }),
    ...(node === undefined ? {} : { node }),
    cause: kept.cause,
    progressPercent: percentOf(kept),
    position: kept.offsetBytes,
    size: kept.sizeBytes,
    compared: counts.comparedBytes,
    skipped: counts.skippedBytes,
    mismatched: counts.mismatchedBytes,
    repaired: counts.repairedBytes,
    ...(isActive ? { bytesPerSec: seen.bytesPerSec } : {}),
    ...(isActive && seen.etaMs !== null ? { etaMs: seen.etaMs } : {}),
    startedAt: timeText(startedAtMs),
    ...(kept.completed === null ? {} : { completedAt: timeText(kept.completed.endedAtMs) }),
    ...next,
    findings: standingFindings(kept).map(renderFinding),
    unacknowledged: unacknowledgedBytes(kept),
  };
}

/** What a volume shows of its scrub; undefined before it had one. */
export function renderScrubSummary(
  state: ClusterState,
  volume: VolumeRecord,
): ScrubSummary | undefined {
  const stored = keptScrub(state.stored, volume.uuid);
  if (stored === undefined) return undefined;
  const { counts } = stored.pass;
  return {
    state: stateOf(stored, seenScrub(state, volume, stored)),
    progressPercent: percentOf(stored),
    ...(stored.completed === null ? {} : { completedAt: timeText(stored.completed.endedAtMs) }),
    mismatched: counts.mismatchedBytes,
    repaired: counts.repairedBytes,
  };
}
