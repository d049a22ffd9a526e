/**
 * Snapshots of volumes: one of every replica at one and the same moment. An attempt is recorded before
 * it begins (`txnId` above 1); one that is found begun and unfinished is given up, because nobody can
 * tell any more whether its parts were taken at the same moment.
 */
import type { ReplicaSnapshotRecord, SnapshotRecord, VolumeRecord } from "../../model.ts";
import type { Step, Work } from "../plan.ts";
import { childOfReplica } from "./children.ts";
import { CREATE_PATIENCE_MS, PAUSED_CALL_MS } from "./limits.ts";
import { isBegun, type Planning, type SubjectFailure } from "./planning.ts";
import { engine, event, givingUp, put, remove, store, unchanged, work } from "./steps.ts";
import { isServing } from "./target.ts";

export function planSnapshot(p: Planning, snapshot: SnapshotRecord): Work | null {
  switch (snapshot.status) {
    case "Creating":
      return creating(p, snapshot);
    case "Created":
      return null;
    case "Deleting":
      return deleting(p, snapshot);
  }
}

function giveUp(p: Planning, snapshot: SnapshotRecord, cause: SubjectFailure): Work {
  const step = store(`it could not be taken: ${cause.message}`, [
    put("snapshots", { ...snapshot, status: "Deleting" }),
  ]);
  const known = p.failures.get(`snapshot/${snapshot.uuid}`);
  return givingUp(`snapshot/${snapshot.uuid}`, known ?? cause, step);
}

function creating(p: Planning, snapshot: SnapshotRecord): Work | null {
  const subject = `snapshot/${snapshot.uuid}`;
  const volume = p.stored.volumes.get(snapshot.volumeUuid);
  const cause = (message: string): SubjectFailure => {
    return { code: "Aborted", message, remedy: "take another snapshot" };
  };
  if (isBegun(snapshot)) return giveUp(p, snapshot, cause("it was interrupted"));
  if (volume?.status !== "Created") return giveUp(p, snapshot, cause("its volume is gone"));
  // One at a time: the end of one's pause would be the end of the other's.
  const others = p.snapshotsOf(volume).filter(({ uuid }) => uuid !== snapshot.uuid);
  if (others.some(isBegun)) return null;
  if (volume.target === null && !volume.cleanShutdown && snapshot.replicas.length > 1) {
    // Writes that were never acknowledged may have reached some of its replicas and not others.
    const why = "the replicas may differ: the volume was not closed in order";
    return giveUp(p, snapshot, {
      ...cause(why),
      remedy: "publish the volume and snapshot it then",
    });
  }
  const ready =
    volume.target === null ? quietSteps(p, volume, snapshot) : pausedSteps(p, volume, snapshot);
  if (typeof ready === "string") {
    const untilMs = snapshot.createdAtMs + CREATE_PATIENCE_MS;
    p.wakeAt(untilMs + 1);
    return p.nowMs > untilMs ? giveUp(p, snapshot, cause(ready)) : null;
  }
  const begun = { ...snapshot, txnId: snapshot.txnId + 1 };
  const begin = store("it is about to be taken", [
    put("snapshots", begun),
    unchanged("volumes", volume),
  ]);
  const taken: SnapshotRecord = {
    ...begun,
    status: "Created",
    takenAtMs: p.nowMs,
    replicas: snapshot.replicas.map((one) => ({ ...one, status: "Created" })),
  };
  // The volume's record tells whether a child was lost or the nexus moved while it was taken.
  const done = store(
    "it is taken of every replica",
    [put("snapshots", taken), unchanged("volumes", volume)],
    [event("Snapshot", "Create", snapshot.uuid, null)],
  );
  const { steps, cleanup } = ready;
  return { subject, steps: [begin, ...steps, done], cleanup };
}

interface Taking {
  readonly steps: readonly Step[];
  readonly cleanup: readonly Step[];
}

/** Hosts feel the pause: what is done in it is not waited for long. */
function inTime(step: Step): Step {
  return step.kind === "engine" ? { ...step, timeoutMs: PAUSED_CALL_MS } : step;
}

function taking(p: Planning, snapshot: SnapshotRecord, one: ReplicaSnapshotRecord): Step {
  const input = {
    uuid: one.uuid,
    sourceUuid: one.sourceUuid,
    entityId: snapshot.uuid,
    txnId: String(snapshot.txnId + 1),
    createdAtMs: p.nowMs,
  };
  return inTime(engine(one.nodeId, { method: "createSnapshot", input }, "it is to be taken"));
}

/** Why one of the replicas cannot be snapshotted now. */
function whyNotAll(p: Planning, snapshot: SnapshotRecord): string | null {
  for (const { sourceUuid } of snapshot.replicas) {
    const replica = p.stored.replicas.get(sourceUuid);
    if (replica === undefined || replica.status !== "Created" || !replica.healthy) {
      return `replica ${sourceUuid} lacks data`;
    }
    const observed = p.replica(replica);
    if (observed === undefined || !isServing(observed)) return `replica ${sourceUuid} is away`;
  }
  return null;
}

/** Nobody writes: one after the other. No nexus is opened while it is begun (`target.ts`). */
function quietSteps(p: Planning, volume: VolumeRecord, snapshot: SnapshotRecord): Taking | string {
  if (p.nexusesOf(volume).length > 0) return "a former target is not closed yet";
  const why = whyNotAll(p, snapshot);
  if (why !== null) return why;
  return { steps: snapshot.replicas.map((one) => taking(p, snapshot, one)), cleanup: [] };
}

function pausedSteps(p: Planning, volume: VolumeRecord, snapshot: SnapshotRecord): Taking | string {
  const record = p.stored.nexuses.get(volume.target!.nexusUuid);
  const nexus = record === undefined ? undefined : p.nexus(record);
  if (record?.status !== "Created" || nexus?.epoch !== record.epoch) return "it is not served yet";
  const why = whyNotAll(p, snapshot);
  if (why !== null) return why;
  for (const { sourceUuid } of snapshot.replicas) {
    const replica = p.stored.replicas.get(sourceUuid)!;
    if (childOfReplica(nexus, replica)?.state !== "online")
      return `replica ${sourceUuid} takes no part`;
  }
  if (nexus.children.length !== snapshot.replicas.length) return "other replicas have come in";
  const { uuid, nodeId } = record;
  const resume = engine(
    nodeId,
    { method: "resumeNexus", input: { uuid } },
    "requests are to go on",
    ["FailedPrecondition", "NotFound"],
  );
  const pause = inTime(
    engine(nodeId, { method: "pauseNexus", input: { uuid } }, "all replicas are to be equal"),
  );
  const parts = snapshot.replicas.map((one) => taking(p, snapshot, one));
  return { steps: [pause, ...parts, resume], cleanup: [resume] };
}

function deleting(p: Planning, snapshot: SnapshotRecord): Work | null {
  const subject = `snapshot/${snapshot.uuid}`;
  const steps: Step[] = [];
  const kept: ReplicaSnapshotRecord[] = [];
  for (const one of snapshot.replicas) {
    const pool = p.stored.pools.get(one.poolId);
    if (pool === undefined || !p.stored.nodes.has(one.nodeId)) continue; // It went with its pool.
    if (p.pool(pool) === undefined) {
      kept.push(one);
      continue;
    }
    const call = { method: "destroySnapshot", input: { uuid: one.uuid } } as const;
    steps.push(engine(one.nodeId, call, "it is to be deleted", ["NotFound"]));
  }
  if (kept.length === 0) {
    const forget = store(
      "the snapshot is gone",
      [remove("snapshots", snapshot.uuid, snapshot)],
      [event("Snapshot", "Delete", snapshot.uuid, null)],
    );
    return work(subject, ...steps, forget);
  }
  if (steps.length === 0) return null;
  const rest = store("some of it is gone", [put("snapshots", { ...snapshot, replicas: kept })]);
  return work(subject, ...steps, rest);
}
