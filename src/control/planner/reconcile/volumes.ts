/** Volumes: brought into being, kept as wanted, and taken away with all that belongs to them. */
import type { NexusRecord, ReplicaRecord, VolumeRecord } from "../../model.ts";
import { deviceBytes } from "../capacity.ts";
import { ownWait } from "../patience.ts";
import type { Change, Work } from "../plan.ts";
import { planChildren } from "./children.ts";
import { beginCopy, copyingNexus, endCopy } from "./copying.ts";
import { planCounts } from "./counts.ts";
import { CREATE_PATIENCE_MS } from "./limits.ts";
import { newReplica } from "./place.ts";
import { isRefused, type Planning, type SubjectFailure } from "./planning.ts";
import { event, givingUp, put, remove, store, work } from "./steps.ts";
import { planServing, planTarget } from "./target.ts";

export function planVolume(p: Planning, volume: VolumeRecord): Work | null {
  switch (volume.status) {
    case "Creating":
      return creating(p, volume);
    case "Created":
      return created(p, volume);
    case "Deleting":
      return deleting(p, volume);
  }
}

function subjectOf(volume: VolumeRecord): string {
  return `volume/${volume.uuid}`;
}

// --------------------------------------------------------------------------------------- creation

function creating(p: Planning, volume: VolumeRecord): Work | null {
  const subject = subjectOf(volume);
  const replicas = p.replicasOf(volume).filter(({ status }) => status !== "Deleting");
  const isComplete =
    replicas.length >= volume.replicaCount && replicas.every(({ status }) => status === "Created");
  if (isComplete) {
    const step = store(
      "all its replicas are there",
      [put("volumes", { ...volume, status: "Created", operation: null })],
      [event("Volume", "Create", volume.uuid, null)],
    );
    return work(subject, step);
  }
  const isLate = p.nowMs - volume.createdAtMs > CREATE_PATIENCE_MS;
  p.wakeAt(volume.createdAtMs + CREATE_PATIENCE_MS + 1);
  for (const replica of replicas) {
    const cause = whyNotMade(p, replica);
    if (cause === undefined || !(isLate || isRefused(cause) || p.isGone(replica.nodeId))) continue;
    const other = isLate ? undefined : elsewhere(p, volume, replica);
    return other ?? givingUp(subject, cause, rollback(volume, replicas, cause));
  }
  if (!isLate) return null;
  const cause: SubjectFailure = {
    code: "Timeout",
    message: `${replicas.length} of ${volume.replicaCount} replicas could be made in time`,
    remedy: "see `trilith get nodes` and `trilith get pools`",
  };
  return givingUp(subject, cause, rollback(volume, replicas, cause));
}

/** What keeps a replica from being made. */
function whyNotMade(p: Planning, replica: ReplicaRecord): SubjectFailure | undefined {
  if (replica.status !== "Creating") return undefined;
  if (p.isGone(replica.nodeId)) {
    return {
      code: "Unavailable",
      message: `node ${replica.nodeId} cannot be reached`,
      remedy: `check trilith-engine.service on ${replica.nodeId}`,
    };
  }
  return p.failures.get(`replica/${replica.uuid}`);
}

/** Gives up a replica that cannot be made for one in another pool. */
function elsewhere(p: Planning, volume: VolumeRecord, failed: ReplicaRecord): Work | undefined {
  if (failed.kind === "SnapshotClone") return undefined;
  const all = p.replicasOf(volume);
  const staying = all.filter((r) => r.status !== "Deleting" && r.uuid !== failed.uuid);
  const notPools = new Set(all.filter((r) => !staying.includes(r)).map(({ poolId }) => poolId));
  const other = newReplica(p, volume, { staying, notPools });
  if ("why" in other) return undefined;
  const step = store(`pool ${failed.poolId} cannot take its replica`, [
    put("volumes", volume),
    put("replicas", { ...failed, status: "Deleting" }),
    ...other.changes,
  ]);
  return work(subjectOf(volume), step);
}

function rollback(volume: VolumeRecord, replicas: readonly ReplicaRecord[], cause: SubjectFailure) {
  return store(`creating failed: ${cause.message}`, [
    put("volumes", { ...volume, status: "Deleting" }),
    ...replicas.map((replica) => put("replicas", { ...replica, status: "Deleting" })),
  ]);
}

// ---------------------------------------------------------------------------------------- running

function created(p: Planning, volume: VolumeRecord): Work | null {
  const growth = grown(p, volume);
  if (growth !== null) return growth;
  const target = planTarget(p, volume);
  switch (target.kind) {
    case "work":
      return target.work;
    case "waiting":
      return null;
    case "none":
      return unpublished(p, volume);
    case "open":
      return (
        planChildren(p, volume, target) ?? planCounts(p, volume, target) ?? finished(p, volume)
      );
  }
}

/** A volume that nobody uses: its replicas may be copied all the same. */
function unpublished(p: Planning, volume: VolumeRecord): Work | null {
  const copying = copyingNexus(p, volume);
  if (copying === undefined) {
    return (
      unserved(p, volume) ??
      planCounts(p, volume, null) ??
      beginCopy(p, volume) ??
      finished(p, volume)
    );
  }
  const target = planServing(p, volume, copying);
  switch (target.kind) {
    case "work":
      return target.work;
    case "open":
      return (
        planChildren(p, volume, target) ??
        planCounts(p, volume, target) ??
        endCopy(p, volume, copying, target)
      );
    case "none":
    case "waiting":
      return endCopy(p, volume, copying, null);
  }
}

/** What was under way for people to see has come to its end. */
function finished(p: Planning, volume: VolumeRecord): Work | null {
  const { operation } = volume;
  if (operation === null) return null;
  if (p.snapshotsOf(volume).some(({ status }) => status !== "Created")) return null;
  const living = p.replicasOf(volume);
  if (living.length !== volume.replicaCount) return null;
  const step = store(`${operation.operation} is done`, [
    put("volumes", { ...volume, operation: null }),
  ]);
  return work(subjectOf(volume), step);
}

/** Records that lag behind the volume's size. */
function grown(p: Planning, volume: VolumeRecord): Work | null {
  const { sizeBytes } = volume;
  const changes: Change[] = [];
  for (const replica of p.replicasOf(volume)) {
    if (replica.status === "Deleting" || replica.sizeBytes >= sizeBytes) continue;
    changes.push(put("replicas", { ...replica, sizeBytes }));
  }
  for (const nexus of p.nexusesOf(volume)) {
    if (nexus.phase !== "Open" || nexus.sizeBytes >= sizeBytes) continue;
    changes.push(put("nexuses", { ...nexus, sizeBytes: deviceBytes(sizeBytes) }));
  }
  if (changes.length === 0) return null;
  return work(subjectOf(volume), store("the volume has grown", changes));
}

/** Replicas of a volume that is not published are served to nobody, once nothing uses them. */
function unserved(p: Planning, volume: VolumeRecord): Work | null {
  if (!isQuiet(p, volume)) return null;
  const changes = p
    .replicasOf(volume)
    .filter((r) => r.status === "Created" && r.allowedHosts !== null)
    .map((r) => put("replicas", { ...r, allowedHosts: null }));
  if (changes.length === 0) return null;
  return work(subjectOf(volume), store("the volume is not published", changes));
}

/** No former nexus of the volume can still be at work on a node that answers or may answer. */
export function isQuiet(p: Planning, volume: VolumeRecord): boolean {
  return p.nexusesOf(volume).every((nexus) => p.isGone(nexus.nodeId));
}

// --------------------------------------------------------------------------------------- deletion

function deleting(p: Planning, volume: VolumeRecord): Work | null {
  const subject = subjectOf(volume);
  const nexuses = p.nexusesOf(volume);
  const open = nexuses.filter(({ phase }) => phase === "Open");
  if (volume.target !== null || open.length > 0) {
    const step = store("the volume is to be deleted: nobody uses it any more", [
      put("volumes", { ...volume, target: null }),
      ...open.map((nexus: NexusRecord) => put("nexuses", { ...nexus, phase: "Shutdown" })),
    ]);
    return work(subject, step);
  }
  const isWaitedFor = (nodeId: string) => !p.isGone(nodeId);
  if (nexuses.some(({ nodeId }) => isWaitedFor(nodeId))) return null;
  const replicas = p.replicasOf(volume);
  const kept = replicas.filter(({ status }) => status !== "Deleting");
  if (kept.length > 0) {
    const changes = kept.map((r) => put("replicas", { ...r, status: "Deleting" }));
    return work(
      subject,
      store("the volume is to be deleted", [put("volumes", volume), ...changes]),
    );
  }
  if (replicas.some(({ nodeId }) => isWaitedFor(nodeId))) return null;
  // What lies on nodes that are away stays on record as `Deleting`, to be destroyed when they return.
  const watches = [...p.stored.watches.values()].filter((w) => w.volumeUuid === volume.uuid);
  const wait = ownWait(p.stored, volume.uuid);
  const history = [...p.stored.rebuildHistory.values()].filter((h) => h.volumeUuid === volume.uuid);
  const step = store(
    "nothing of the volume is left",
    [
      remove("volumes", volume.uuid, volume),
      ...watches.map((watch) => remove("watches", watch.id, watch)),
      ...(wait === undefined ? [] : [remove("settings", wait.key, wait)]),
      ...history.map((entry) => remove("rebuildHistory", entry.id, entry)),
    ],
    [event("Volume", "Delete", volume.uuid, null)],
  );
  return work(subject, step);
}
