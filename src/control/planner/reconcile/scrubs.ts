/**
 * Scrubs: a published volume's replicas are compared by its nexus, now and then and on request. Where it
 * is goes into the store now and then, so that it is taken up from there when the volume moves or an
 * engine restarts. Those whose last pass is longest ago come first; so many at a time, of volumes
 * that are well.
 *
 * A volume that is not published has no nexus and is not compared: nobody writes to it either.
 */
import type { EngineNexus } from "../../cluster-state.ts";
import type { VolumeRecord } from "../../model.ts";
import type { Warning, Work } from "../plan.ts";
import {
  begunScrub,
  keepScrub,
  keptScrub,
  type ScrubFinding,
  scrubKey,
  standingFindings,
  unacknowledgedBytes,
  type VolumeScrub,
  volumeOfScrubKey,
} from "../scrub-record.ts";
import { targetNexus, volumeStatus } from "../status.ts";
import { derivedUuid } from "./derived-uuid.ts";
import { SCRUB_CHECKPOINT_MS } from "./limits.ts";
import type { Planning } from "./planning.ts";
import { engine, event, remove, store, work } from "./steps.ts";
import { replicaOfUri } from "./uris.ts";

type EngineScrub = NonNullable<EngineNexus["scrub"]>;

/** Works that keep the scrub of a volume as it is wanted. */
export function planScrub(p: Planning, volume: VolumeRecord): Work | null {
  if (volume.status !== "Created") return null;
  const kept = keptScrub(p.stored, volume.uuid);
  const nexus = servingNexus(p, volume);
  const seen = nexus?.scrub ?? undefined;
  const isOurs = seen !== undefined && seen.id === kept?.pass.id;
  // Another one than is wanted, or one that is not wanted any more.
  if (seen !== undefined && isActive(seen) && !(isOurs && kept?.state === "Running")) {
    return stopped(volume, nexus!);
  }
  if (isOurs && kept !== undefined && kept.state !== "Completed") {
    if (seen.state === "completed") return completed(p, volume, kept, seen);
    if (!isActive(seen) && isNews(kept, seen)) return checkpoint(p, volume, kept, seen);
  }
  if (kept?.state !== "Running") {
    return isDue(p, volume, kept) && mayBegin(p, volume) ? begun(p, volume, kept) : null;
  }
  // An engine of before there were scrubs does not name one.
  if (nexus === undefined || nexus.scrub === undefined) return null;
  if (!isOurs || !isActive(seen)) {
    return isComparable(nexus) ? started(p, volume, nexus, kept) : null;
  }
  return steered(p, volume, nexus, kept, seen) ?? noted(p, volume, kept, seen);
}

/** Forgets the scrubs of volumes that are gone. */
export function planForgottenScrub(p: Planning, volumeUuid: string): Work | null {
  const key = scrubKey(volumeUuid);
  const setting = p.stored.settings.get(key);
  if (setting === undefined || p.stored.volumes.has(volumeUuid)) return null;
  return work(
    `scrub/${volumeUuid}`,
    store("its volume is gone", [remove("settings", key, setting)]),
  );
}

function servingNexus(p: Planning, volume: VolumeRecord): EngineNexus | undefined {
  const record = volume.target === null ? undefined : targetNexus(p.state, volume);
  return record === undefined || record.phase !== "Open" ? undefined : p.nexus(record);
}

function isActive({ state }: EngineScrub): boolean {
  return state === "running" || state === "paused";
}

function isComparable(nexus: EngineNexus): boolean {
  return nexus.children.filter(({ state }) => state === "online").length >= 2;
}

// --------------------------------------------------------------------------------------- beginning

/** When the next scrub is due; undefined: never. */
export function dueAtMs(
  intervalMs: number,
  volume: VolumeRecord,
  kept: VolumeScrub | undefined,
): number | undefined {
  if (intervalMs === 0 || volume.replicaCount < 2) return undefined;
  const stoppedMs = kept?.state === "Stopped" ? kept.updatedAtMs : 0;
  const since = Math.max(kept?.completed?.endedAtMs ?? volume.createdAtMs, stoppedMs);
  return since + intervalMs;
}

function isDue(p: Planning, volume: VolumeRecord, kept: VolumeScrub | undefined): boolean {
  if (volume.target === null) return false;
  const dueMs = dueAtMs(p.state.settings.scrubIntervalMs, volume, kept);
  return dueMs !== undefined && dueMs <= p.nowMs && isWithin(p.state.settings.scrubWindow, p.nowMs);
}

/** Whether a time of the day (UTC) lies in `HH:MM-HH:MM`, which may go over midnight. */
export function isWithin(window: string | null, nowMs: number): boolean {
  if (window === null) return true;
  const [from = 0, to = 0] = window.split("-").map((text) => {
    const [hours = 0, minutes = 0] = text.split(":").map(Number);
    return hours * 60 + minutes;
  });
  const now = Math.floor(nowMs / 60_000) % 1440;
  return from <= to ? now >= from && now < to : now >= from || now < to;
}

/** Of the volumes that are due and well those that were scrubbed longest ago, as many as may be. */
function mayBegin(p: Planning, volume: VolumeRecord): boolean {
  p.scrubsToBegin ??= chosen(p);
  return p.scrubsToBegin.has(volume.uuid);
}

/** It runs, or may at any moment. One that has to wait for replicas or hosts keeps nobody waiting. */
function takesPlace(p: Planning, volume: VolumeRecord): boolean {
  if (volume.target === null || keptScrub(p.stored, volume.uuid)?.state !== "Running") return false;
  const nexus = servingNexus(p, volume);
  return nexus === undefined || isComparable(nexus);
}

function chosen(p: Planning): ReadonlySet<string> {
  const { maxScrubs, maxScrubsPerNode, scrubIntervalMs } = p.state.settings;
  const perNode = new Map<string, number>();
  let running = 0;
  for (const key of p.stored.settings.keys()) {
    const uuid = volumeOfScrubKey(key);
    const volume = uuid === undefined ? undefined : p.stored.volumes.get(uuid);
    if (volume === undefined || !takesPlace(p, volume)) continue;
    running++;
    const { nodeId } = volume.target!;
    perNode.set(nodeId, (perNode.get(nodeId) ?? 0) + 1);
  }
  const due: { readonly volume: VolumeRecord; readonly dueMs: number }[] = [];
  for (const volume of p.stored.volumes.values()) {
    const kept = keptScrub(p.stored, volume.uuid);
    if (kept?.state === "Running" || !isDue(p, volume, kept) || !isWell(p, volume)) continue;
    due.push({ volume, dueMs: dueAtMs(scrubIntervalMs, volume, kept)! });
  }
  due.sort((a, b) => a.dueMs - b.dueMs || (a.volume.uuid < b.volume.uuid ? -1 : 1));
  const chosen = new Set<string>();
  for (const { volume } of due) {
    const nodeId = volume.target!.nodeId;
    const here = perNode.get(nodeId) ?? 0;
    if (running + chosen.size >= maxScrubs || here >= maxScrubsPerNode) continue;
    chosen.add(volume.uuid);
    perNode.set(nodeId, here + 1);
  }
  return chosen;
}

function isWell(p: Planning, volume: VolumeRecord): boolean {
  if (volume.status !== "Created" || volumeStatus(p.state, volume) !== "Online") return false;
  const nexus = servingNexus(p, volume);
  return nexus?.scrub !== undefined && nexus.rebuilds === 0 && isComparable(nexus);
}

function begun(p: Planning, volume: VolumeRecord, kept: VolumeScrub | undefined): Work {
  const scrub = begunScrub(kept, {
    id: derivedUuid("scrub", volume.uuid, p.nowMs),
    nowMs: p.nowMs,
    sizeBytes: volume.sizeBytes,
    cause: "schedule",
    isRepairing: true,
    isAnew: false,
  });
  return work(
    `scrub/${volume.uuid}`,
    store(
      "its last scrub is long ago",
      [keepScrub(p.stored, volume.uuid, scrub)],
      [event("Volume", "ScrubBegin", volume.uuid, volume.target?.nodeId ?? null, "by schedule")],
    ),
  );
}

function started(p: Planning, volume: VolumeRecord, nexus: EngineNexus, kept: VolumeScrub): Work {
  const { pass, offsetBytes } = kept;
  const input = {
    uuid: nexus.uuid,
    id: pass.id,
    offsetBytes: Math.min(offsetBytes, nexus.sizeBytes),
    counts: { ...pass.counts },
    bytesPerSecLimit: p.state.settings.scrubBytesPerSec,
    repair: kept.isRepairing,
  };
  const reason = offsetBytes > 0 ? "its scrub goes on where it was" : "it is to be scrubbed";
  const call = { method: "startScrub", input } as const;
  return work(`scrub/${volume.uuid}`, engine(volume.target!.nodeId, call, reason));
}

// ------------------------------------------------------------------------------------ while it runs

/** Its rate and its pauses as the settings want them. */
function steered(
  p: Planning,
  volume: VolumeRecord,
  nexus: EngineNexus,
  kept: VolumeScrub,
  seen: EngineScrub,
): Work | null {
  const { scrubBytesPerSec, scrubWindow } = p.state.settings;
  const subject = `scrub/${volume.uuid}`;
  const nodeId = volume.target!.nodeId;
  const { uuid } = nexus;
  if (seen.bytesPerSecLimit !== scrubBytesPerSec) {
    const input = { uuid, bytesPerSecLimit: scrubBytesPerSec };
    const call = { method: "configureScrub", input } as const;
    return work(subject, engine(nodeId, call, "another rate is set"));
  }
  const isToRun = kept.cause === "request" || isWithin(scrubWindow, p.nowMs);
  if (isToRun === (seen.state === "running")) return null;
  const call = { method: isToRun ? "resumeScrub" : "pauseScrub", input: { uuid } } as const;
  const reason = isToRun ? "it is time to scrub" : "it is not the time to scrub";
  return work(subject, engine(nodeId, call, reason));
}

function stopped(volume: VolumeRecord, nexus: EngineNexus): Work {
  const call = { method: "stopScrub", input: { uuid: nexus.uuid } } as const;
  const step = engine(volume.target!.nodeId, call, "it is to be scrubbed no more", ["NotFound"]);
  return work(`scrub/${volume.uuid}`, step);
}

/** Something that must not be lost: more than a position. */
function isNews({ pass, offsetBytes }: VolumeScrub, seen: EngineScrub): boolean {
  return (
    seen.mismatchedBytes !== pass.counts.mismatchedBytes ||
    seen.repairedBytes !== pass.counts.repairedBytes ||
    (!isActive(seen) && seen.offsetBytes !== offsetBytes)
  );
}

function noted(
  p: Planning,
  volume: VolumeRecord,
  kept: VolumeScrub,
  seen: EngineScrub,
): Work | null {
  const isOld = p.nowMs >= kept.updatedAtMs + SCRUB_CHECKPOINT_MS;
  const hasMoved = seen.offsetBytes !== kept.offsetBytes;
  return isNews(kept, seen) || (isOld && hasMoved) ? checkpoint(p, volume, kept, seen) : null;
}

/** What is kept with what the engine has come to. */
export function caughtUp(kept: VolumeScrub, seen: EngineScrub, nowMs: number): VolumeScrub {
  const { comparedBytes, skippedBytes, mismatchedBytes, repairedBytes, transientBytes } = seen;
  return {
    ...kept,
    pass: {
      ...kept.pass,
      counts: { comparedBytes, skippedBytes, mismatchedBytes, repairedBytes, transientBytes },
      findings: together(kept.pass.findings, seen.findings.map(findingOf)),
    },
    offsetBytes: seen.offsetBytes,
    sizeBytes: seen.sizeBytes,
    updatedAtMs: nowMs,
  };
}

function findingOf({ childUris, ...finding }: EngineScrub["findings"][number]): ScrubFinding {
  return { ...finding, replicas: childUris.map((uri) => replicaOfUri(uri) ?? uri) };
}

/** The engine knows what was found since it took the scrub up; of the same range it knows better. */
function together(
  before: readonly ScrubFinding[],
  now: readonly ScrubFinding[],
): readonly ScrubFinding[] {
  const covers = (a: ScrubFinding, b: ScrubFinding): boolean =>
    a.isRepaired === b.isRepaired &&
    a.offsetBytes <= b.offsetBytes &&
    b.offsetBytes + b.lengthBytes <= a.offsetBytes + a.lengthBytes;
  const kept = before.filter((one) => !now.some((newer) => covers(newer, one)));
  return [...kept, ...now].sort((a, b) => a.offsetBytes - b.offsetBytes);
}

function checkpoint(p: Planning, volume: VolumeRecord, kept: VolumeScrub, seen: EngineScrub): Work {
  const scrub = caughtUp(kept, seen, p.nowMs);
  const step = store("how far its scrub is", [keepScrub(p.stored, volume.uuid, scrub)]);
  return work(`scrub/${volume.uuid}`, step);
}

function completed(p: Planning, volume: VolumeRecord, kept: VolumeScrub, seen: EngineScrub): Work {
  const scrub = caughtUp(kept, seen, p.nowMs);
  const { mismatchedBytes, repairedBytes, comparedBytes } = scrub.pass.counts;
  const done: VolumeScrub = {
    ...scrub,
    state: "Completed",
    completed: { ...scrub.pass, endedAtMs: p.nowMs },
  };
  const message = `compared ${comparedBytes} bytes, mismatched ${mismatchedBytes}, repaired ${repairedBytes}`;
  return work(
    `scrub/${volume.uuid}`,
    store(
      "its scrub has come to its end",
      [keepScrub(p.stored, volume.uuid, done)],
      [event("Volume", "ScrubEnd", volume.uuid, volume.target?.nodeId ?? null, message)],
    ),
  );
}

// ----------------------------------------------------------------------------------------- warnings

const RANGES_NAMED = 3;

function rangesOf(findings: readonly ScrubFinding[]): string {
  const named = findings.slice(0, RANGES_NAMED).map(({ offsetBytes, lengthBytes, replicas }) => {
    return `${lengthBytes} bytes at ${offsetBytes} (replicas ${replicas.join(", ")})`;
  });
  const more = findings.length - named.length;
  return `${named.join("; ")}${more > 0 ? `; and ${more} more ranges` : ""}`;
}

/** What scrubs have found and somebody should know. */
export function scrubWarnings(volume: VolumeRecord, scrub: VolumeScrub): Warning[] {
  const subject = `volume/${volume.uuid}`;
  const warnings: Warning[] = [];
  const bad = standingFindings(scrub).filter(({ isRepaired }) => !isRepaired);
  const show = `see trilith get scrub ${volume.uuid}`;
  if (bad.length > 0) {
    warnings.push({
      severity: "critical",
      subject,
      message: `its replicas differ or cannot be read, and no majority says what is right: ${rangesOf(bad)}`,
      remedy:
        `${show}; find out which replica is wrong, give it up and have it built anew: ` +
        `trilith scale volume ${volume.uuid} ${Math.max(1, volume.replicaCount - 1)} --victim <replica>, ` +
        `then trilith scale volume ${volume.uuid} ${volume.replicaCount} and ` +
        `trilith scrub volume ${volume.uuid} --restart`,
    });
  }
  const repairedBytes = unacknowledgedBytes(scrub);
  if (repairedBytes > 0) {
    const all = [...(scrub.completed?.findings ?? []), ...scrub.pass.findings];
    const wrong = new Set(all.filter((f) => f.isRepaired).flatMap(({ replicas }) => replicas));
    warnings.push({
      severity: "warning",
      subject,
      message: `a scrub has repaired ${repairedBytes} bytes of replicas ${[...wrong].join(", ")} from the majority of the copies`,
      remedy: `look at the disks of these replicas; then: trilith scrub volume ${volume.uuid} --acknowledge`,
    });
  }
  return warnings;
}
