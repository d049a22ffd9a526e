/**
 * The nexus of a published volume: opened with the replicas that are known to hold everything, shared
 * to its hosts, opened again after its engine restarted, moved off a node that is drained.
 *
 * Two nexuses of one volume never both acknowledge: each opening has an epoch of its own that was
 * committed before, replicas obey the highest they have seen, and the recorder refuses lower ones.
 */
import type { EngineNexus, EngineReplica } from "../../cluster-state.ts";
import type { NexusRecord, ReplicaRecord, VolumeRecord } from "../../model.ts";
import { deviceBytes } from "../capacity.ts";
import type { Work } from "../plan.ts";
import { followedHosts, switchedOver } from "./failover.ts";
import { leftByHosts } from "./host-paths.ts";
import { CHILDREN_MAX, CREATE_PATIENCE_MS, WHOLE_REPLICA_WAIT_MS } from "./limits.ts";
import { movedTarget } from "./move.ts";
import { isBegun, type Planning } from "./planning.ts";
import { engine, event, put, store, work } from "./steps.ts";
import { childUri, replicaOfUri, sameHosts, servedTo } from "./uris.ts";

/** A nexus that is open as its record wants it. */
export interface OpenTarget {
  readonly kind: "open";
  readonly record: NexusRecord;
  readonly nexus: EngineNexus;
}

export type TargetState =
  | { readonly kind: "none" }
  | { readonly kind: "waiting" }
  | { readonly kind: "work"; readonly work: Work }
  | OpenTarget;

const waiting: TargetState = { kind: "waiting" };

export function planTarget(p: Planning, volume: VolumeRecord): TargetState {
  const { target } = volume;
  if (target === null) return { kind: "none" };
  return planServing(p, volume, p.stored.nexuses.get(target.nexusUuid));
}

/** Brings the nexus of a record into being, and keeps it as it is to be. */
export function planServing(
  p: Planning,
  volume: VolumeRecord,
  record: NexusRecord | undefined,
): TargetState {
  const subject = `volume/${volume.uuid}`;
  if (record === undefined || record.phase !== "Open") {
    p.warn("critical", subject, "its target has no nexus", `republish the volume`);
    return waiting;
  }
  const moved = movedTarget(p, volume, record) ?? switchedOver(p, volume, record);
  if (moved !== null) return { kind: "work", work: moved };
  const node = p.online(record.nodeId);
  if (node === undefined) {
    if (p.isGone(record.nodeId) && volume.target !== null && !p.state.settings.switchOver) {
      p.warn(
        "critical",
        subject,
        `node ${record.nodeId}, which serves it, cannot be reached`,
        "bring the node back, or publish the volume elsewhere (switch-over is off)",
      );
    }
    return waiting;
  }
  const nexus = node.nexuses.get(record.uuid);
  const next = nexus === undefined ? missing(p, volume, record) : present(p, volume, record, nexus);
  if (next === "waiting") return waiting;
  if (next !== null) return { kind: "work", work: next };
  const followed =
    followedHosts(p, volume, record, nexus!) ?? leftByHosts(p, volume, record, nexus!);
  if (followed !== null) return { kind: "work", work: followed };
  return { kind: "open", record, nexus: nexus! };
}

/** Something is there under the nexus's UUID: is it what is wanted? */
function present(
  p: Planning,
  volume: VolumeRecord,
  record: NexusRecord,
  nexus: EngineNexus,
): Work | "waiting" | null {
  const subject = `volume/${volume.uuid}`;
  const { uuid, nodeId } = record;
  const isOver = nexus.state === "shutdown" || nexus.state === "shutting-down";
  if (nexus.epoch !== record.epoch || isOver) {
    const reason = isOver ? "it has ended" : `it is of epoch ${nexus.epoch}, not ${record.epoch}`;
    const call = { method: "destroyNexus", input: { uuid } } as const;
    return work(subject, engine(nodeId, call, reason, ["NotFound"]));
  }
  if (record.status === "Creating") return work(subject, opened(record));
  if (nexus.isPaused) {
    const isFrozen = p.snapshotsOf(volume).some(({ status }) => status === "Creating");
    const call = { method: "resumeNexus", input: { uuid } } as const;
    if (!isFrozen)
      return work(subject, engine(nodeId, call, "nobody needs it paused", ["FailedPrecondition"]));
  }
  const share = shared(record, nexus);
  return share === null ? null : work(subject, share);
}

function opened(record: NexusRecord) {
  return store(
    "the nexus is open",
    [put("nexuses", { ...record, status: "Created" })],
    [event("Nexus", "Create", record.uuid, record.nodeId)],
  );
}

function shared(record: NexusRecord, nexus: EngineNexus | null) {
  const { uuid, nodeId, share, allowedHosts, controllerIds } = record;
  const served = nexus === null ? null : servedTo(nexus);
  const wanted = share === "nvmf" ? allowedHosts : null;
  if (sameHosts(served, wanted)) return null;
  if (wanted === null) {
    const call = { method: "unshareNexus", input: { uuid, protocol: "nvmf" } } as const;
    return engine(nodeId, call, "no host is to reach it", ["NotFound"]);
  }
  const hosts = wanted.length === 0 ? {} : { allowedHosts: [...wanted] };
  const input = { uuid, ...hosts, controllerIds: { ...controllerIds } };
  const reason = served === null ? "hosts are to reach it" : "other hosts are to reach it";
  return engine(nodeId, { method: "shareNexusNvmf", input }, reason);
}

// ---------------------------------------------------------------------------------------- opening

function missing(p: Planning, volume: VolumeRecord, record: NexusRecord): Work | "waiting" {
  const subject = `volume/${volume.uuid}`;
  if (record.status === "Created") {
    // It was open and may have served: its successor is to be told from it.
    const epoch = Math.max(volume.epoch, record.epoch) + 1;
    const step = store(
      "its engine has restarted: it is opened again in a new epoch",
      [
        put("volumes", { ...volume, epoch }),
        put("nexuses", { ...record, epoch, status: "Creating" }),
      ],
      [event("Nexus", "StateChange", record.uuid, record.nodeId, "engine restarted")],
    );
    return work(subject, step);
  }
  return served(p, volume, record) ?? opening(p, volume, record);
}

/** Has the replicas served to the nexus's node, and to nobody else. */
function served(p: Planning, volume: VolumeRecord, record: NexusRecord): Work | null {
  const changes = p
    .replicasOf(volume)
    .filter(({ status }) => status === "Created")
    .flatMap((replica) => {
      const hosts = hostsOf(p, replica, record);
      if (sameHosts(replica.allowedHosts, hosts)) return [];
      return [put("replicas", { ...replica, allowedHosts: hosts })];
    });
  if (changes.length === 0) return null;
  const reason = `the nexus on ${record.nodeId} is to reach them`;
  return work(`volume/${volume.uuid}`, store(reason, changes));
}

/** Who a replica is to be served to while the volume's nexus is the one given. */
export function hostsOf(
  p: Planning,
  replica: ReplicaRecord,
  nexus: NexusRecord,
): readonly string[] | null {
  if (replica.nodeId === nexus.nodeId) return null;
  if (!p.state.settings.restrictHosts) return [];
  const hostNqn =
    p.online(nexus.nodeId)?.info?.hostNqn ?? p.stored.nodes.get(nexus.nodeId)?.hostNqn;
  return hostNqn === undefined ? [] : [hostNqn];
}

export type Readiness =
  | { readonly kind: "ready"; readonly uri: string }
  /** It will be there soon, by what is under way. */
  | { readonly kind: "soon" }
  | { readonly kind: "away" };

const soon: Readiness = { kind: "soon" };
const away: Readiness = { kind: "away" };

/** Whether a nexus can take a replica as a child now. */
export function readiness(p: Planning, replica: ReplicaRecord, nexus: NexusRecord): Readiness {
  if (replica.status !== "Created" || p.isGone(replica.nodeId)) return away;
  const node = p.online(replica.nodeId);
  if (node === undefined) return soon; // Nobody has asked it yet.
  const pool = p.stored.pools.get(replica.poolId);
  if (pool === undefined || pool.status !== "Created") return away;
  if (p.pool(pool) === undefined) return p.failures.has(`pool/${pool.id}`) ? away : soon;
  const observed = p.replica(replica);
  if (observed === undefined) {
    // One that was made a moment ago may not have been seen yet; one that is older is not there.
    const untilMs = replica.createdAtMs + CREATE_PATIENCE_MS;
    if (p.nowMs > untilMs) return away;
    p.wakeAt(untilMs + 1);
    return soon;
  }
  if (!isServing(observed)) return away;
  const isAsWanted =
    observed.sizeBytes >= deviceBytes(nexus.sizeBytes) &&
    sameHosts(servedTo(observed), replica.allowedHosts);
  const uri = childUri(replica, observed, nexus.nodeId);
  if (isAsWanted && uri !== undefined) return { kind: "ready", uri };
  return p.failures.has(`replica/${replica.uuid}`) ? away : soon;
}

export function isServing(observed: EngineReplica): boolean {
  return observed.state === "online" || observed.state === "degraded";
}

/** A former nexus that is closed in order first, as long as that goes well. */
function isFormerClosing(p: Planning, volume: VolumeRecord, record: NexusRecord): boolean {
  return p.nexusesOf(volume).some((former) => {
    if (former.uuid === record.uuid) return false;
    const observed = p.nexus(former);
    if (observed === undefined || observed.state === "shutdown") return false;
    // On the same engine there can be only one; elsewhere the new epoch shuts it out in any case.
    return former.nodeId === record.nodeId || !p.failures.has(`nexus/${former.uuid}`);
  });
}

function opening(p: Planning, volume: VolumeRecord, record: NexusRecord): Work | "waiting" {
  const subject = `volume/${volume.uuid}`;
  if (isFormerClosing(p, volume, record)) return "waiting";
  // A snapshot is being taken of replicas that nobody writes to.
  if (p.snapshotsOf(volume).some(isBegun)) return "waiting";
  const replicas = p.replicasOf(volume).filter(({ status }) => status !== "Deleting");
  const children: { uri: string; healthy: boolean; isLocal: boolean }[] = [];
  let isSoon = false;
  for (const replica of replicas) {
    const state = readiness(p, replica, record);
    if (state.kind === "soon" && replica.healthy) isSoon = true;
    if (state.kind !== "ready") continue;
    const isLocal = replica.nodeId === record.nodeId;
    children.push({ uri: state.uri, healthy: replica.healthy, isLocal });
  }
  if (isSoon) return "waiting";
  if (!children.some(({ healthy }) => healthy)) {
    p.warn(
      "critical",
      subject,
      "no replica that holds all its data can be reached",
      `bring back a node of ${replicas
        .filter(({ healthy }) => healthy)
        .map(({ nodeId }) => nodeId)
        .join(", ")}`,
    );
    return "waiting";
  }
  if (mayWholeReturn(p, volume, replicas, children)) return "waiting";
  children.sort((a, b) => rank(a) - rank(b));
  const chosen = children.slice(0, CHILDREN_MAX);
  const { uuid, epoch, name, sizeBytes, nodeId } = record;
  const input = {
    uuid,
    volumeUuid: volume.uuid,
    ...(name === "" ? {} : { name }),
    sizeBytes,
    epoch,
    children: chosen.map(({ uri, healthy }) => ({ uri, healthy })),
  };
  const open = engine(nodeId, { method: "createNexus", input }, "the volume is published here");
  const share = shared(record, null);
  const listed = chosen.map(({ uri }) => ({ uri, replicaUuid: replicaOfUri(uri) }));
  const done = opened({ ...record, children: listed });
  return work(subject, open, done, ...(share === null ? [] : [share]));
}

/**
 * True while all healthy replicas at hand may lack acknowledged writes, because their machines were
 * started anew, and one that is away need not: opened without it, the volume would lose those writes for
 * good. Bounded, because it may never come back; what a volume loses then is what a disk loses that is
 * switched off before it was flushed.
 */
function mayWholeReturn(
  p: Planning,
  volume: VolumeRecord,
  replicas: readonly ReplicaRecord[],
  children: readonly { readonly uri: string }[],
): boolean {
  const atHand = new Set(children.map(({ uri }) => replicaOfUri(uri)));
  const healthy = replicas.filter((replica) => replica.healthy);
  const away = healthy.filter(({ uuid }) => !atHand.has(uuid));
  if (away.length === 0) return false;
  let untilMs = 0;
  for (const replica of healthy) {
    if (!atHand.has(replica.uuid)) continue;
    if (p.replica(replica)?.sync.mayLack !== true) return false;
    const startedMs = Date.parse(p.online(replica.nodeId)?.info?.startedAt ?? "");
    if (startedMs > 0) untilMs = Math.max(untilMs, startedMs + WHOLE_REPLICA_WAIT_MS);
  }
  if (p.nowMs >= untilMs) return false;
  p.wakeAt(untilMs);
  const nodes = away.map(({ nodeId }) => nodeId).join(", ");
  p.warn(
    "critical",
    `volume/${volume.uuid}`,
    "its replicas at hand may lack writes that were acknowledged before their nodes lost power; " +
      `one that has them is waited for, up to ${WHOLE_REPLICA_WAIT_MS / 1000} s`,
    `bring back a node of ${nodes}`,
  );
  return true;
}

/** Healthy ones first, of those the local one. */
function rank(child: { readonly healthy: boolean; readonly isLocal: boolean }): number {
  return (child.healthy ? 0 : 2) + (child.isLocal ? 0 : 1);
}
