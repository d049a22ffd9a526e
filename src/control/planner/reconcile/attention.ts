/**
 * What an operator has to know and no step says: nodes that are away, pools that are nearly full, volumes
 * with less than they should have and why, copies that are being made. Only warns, plans nothing.
 */
import type { EngineNexus } from "../../cluster-state.ts";
import type { NodeRecord, PoolRecord, ReplicaRecord, VolumeRecord } from "../../model.ts";
import { keptScrub } from "../scrub-record.ts";
import { type VolumeStatus, volumeStatus } from "../status.ts";
import { childOfReplica } from "./children.ts";
import { planHostPaths } from "./host-paths.ts";
import { POOL_FULL_PERCENT } from "./limits.ts";
import type { Planning } from "./planning.ts";
import { scrubWarnings } from "./scrubs.ts";
import { isServing } from "./target.ts";

/** Warns of everything that needs attention and was not warned of yet: to be called last. */
export function planAttention(p: Planning): void {
  for (const node of p.stored.nodes.values()) ofNode(p, node);
  for (const pool of p.stored.pools.values()) ofPool(p, pool);
  for (const volume of p.stored.volumes.values()) {
    ofVolume(p, volume);
    planHostPaths(p, volume);
    const scrub = keptScrub(p.stored, volume.uuid);
    if (scrub !== undefined) p.warnings.push(...scrubWarnings(volume, scrub));
  }
  ofFailures(p);
}

function timeOf(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`;
}

function ofNode(p: Planning, { id }: NodeRecord): void {
  const seen = p.state.observed.get(id);
  if (seen?.status !== "Offline") return;
  const since = seen.offlineSinceMs === null ? "" : ` since ${timeOf(seen.offlineSinceMs)}`;
  p.warn(
    "critical",
    `node/${id}`,
    `its engine cannot be reached${since}`,
    `on ${id}: systemctl status trilith-engine trilith; if it is lost for good: trilith node remove ${id} --purge`,
  );
}

function ofPool(p: Planning, pool: PoolRecord): void {
  const seen = p.pool(pool);
  if (seen === undefined || seen.capacityBytes === 0) return;
  const percent = Math.floor((seen.usedBytes / seen.capacityBytes) * 100);
  if (percent < POOL_FULL_PERCENT) return;
  // What was promised and fits needs no more room.
  if (seen.committedBytes <= seen.capacityBytes) return;
  p.warn(
    "warning",
    `pool/${pool.id}`,
    `it is ${percent} % full and has promised more than it holds`,
    `grow its disk and run: trilith expand pool ${pool.id}; or move replicas: trilith move replica`,
  );
}

// -------------------------------------------------------------------------------------------- volumes

function ofVolume(p: Planning, volume: VolumeRecord): void {
  if (volume.status !== "Created") return;
  const status = volumeStatus(p.state, volume);
  if (status === "Online") return;
  const nexus = nexusOf(p, volume);
  const causes = p.replicasOf(volume).flatMap((replica) => causeOf(p, replica, nexus));
  if (volume.target !== null && nexus === undefined && p.isGone(volume.target.nodeId)) {
    causes.push({ text: `node ${volume.target.nodeId}, which serves it, is away`, remedy: "node" });
  }
  // Without a cause it is on its way: being opened, or not looked at yet.
  if (causes.length === 0 && status !== "Faulted") return;
  const texts = causes.map(({ text }) => text).join("; ");
  p.warn(
    severityOf(status, causes),
    `volume/${volume.uuid}`,
    `the volume is ${status.toLowerCase()}${texts === "" ? "" : `: ${texts}`}`,
    remedyOf(p, volume, causes),
  );
}

/** What keeps a replica from taking part, and what kind of thing helps. */
interface Cause {
  readonly text: string;
  readonly remedy: "node" | "pool" | "rebuild" | "other";
}

function severityOf(status: VolumeStatus, causes: readonly Cause[]) {
  if (status === "Faulted" || status === "Unknown") return "critical";
  return causes.every(({ remedy }) => remedy === "rebuild") ? "info" : "warning";
}

function nexusOf(p: Planning, volume: VolumeRecord): EngineNexus | undefined {
  for (const record of p.nexusesOf(volume)) {
    if (record.phase !== "Open") continue;
    const nexus = p.nexus(record);
    if (nexus !== undefined) return nexus;
  }
  return undefined;
}

function causeOf(p: Planning, replica: ReplicaRecord, nexus: EngineNexus | undefined): Cause[] {
  if (replica.status === "Deleting") return [];
  const { nodeId, poolId, status } = replica;
  const name = `the replica in ${poolId} on ${nodeId}`;
  const cause = (text: string, remedy: Cause["remedy"]): Cause[] => [
    { text: `${name} ${text}`, remedy },
  ];
  if (p.isGone(nodeId)) return cause("is away with its node", "node");
  // A leader that has just begun has not heard of every node: no alarm before it has.
  if (p.online(nodeId) === undefined) return [];
  if (status === "Creating") return cause("is being made", "rebuild");
  const pool = p.pool(p.stored.pools.get(poolId));
  if (pool === undefined) return cause("is away: its pool is not open", "pool");
  const seen = p.replica(replica);
  if (seen === undefined) return cause("is not in its pool any more", "other");
  if (!isServing(seen)) return cause(`is ${seen.state} with its pool`, "pool");
  const child = nexus === undefined ? undefined : childOfReplica(nexus, replica);
  const queued = p.whyQueued(replica);
  if (queued !== null) return cause(`waits for its turn to be rebuilt: ${queued}`, "rebuild");
  if (child === undefined) return replica.healthy ? [] : cause("lacks data", "other");
  if (child.state === "online") return [];
  const { rebuild, reason } = child;
  if (rebuild !== null) {
    return cause(`is being rebuilt (${Math.floor(rebuild.progressPercent)} %)`, "rebuild");
  }
  if (child.state === "degraded" && reason === "out-of-sync" && nexus!.rebuilds > 0) {
    return cause("waits for its rebuild", "rebuild");
  }
  return cause(`is ${child.state} (${reason})`, reason === "no-space" ? "pool" : "other");
}

function remedyOf(p: Planning, volume: VolumeRecord, causes: readonly Cause[]): string {
  const has = (remedy: Cause["remedy"]) => causes.some((cause) => cause.remedy === remedy);
  const show = `trilith get volume-replica-topology ${volume.uuid}`;
  if (has("node")) {
    const heals = volume.selfHeal ? "" : ", or replace the replica: self-healing is off";
    const places = [volume.target, ...p.replicasOf(volume)].map((one) => one?.nodeId ?? "");
    const away = [...new Set(places)].filter((id) => id !== "" && p.isGone(id)).sort();
    return `bring back ${away.join(", ")} (copies catch up by themselves)${heals}; see ${show}`;
  }
  if (has("pool")) return `see the pool: trilith get pools, trilith get warnings; ${show}`;
  if (has("rebuild")) return "nothing; watch it with: trilith status --watch";
  return `see ${show}`;
}

// ------------------------------------------------------------------------------------------- failures

/** Steps that failed of subjects that nothing else was said of. */
function ofFailures(p: Planning): void {
  if (p.failures.size === 0) return;
  const said = new Set(p.warnings.map(({ subject }) => subject));
  for (const [subject, failure] of p.failures) {
    if (said.has(subject) || !isRecorded(p, subject)) continue;
    const remedy = failure.remedy === "" ? "see the control process's log" : failure.remedy;
    p.warn("warning", subject, `what is to be done fails: ${failure.message}`, remedy);
  }
}

function isRecorded(p: Planning, subject: string): boolean {
  const slash = subject.indexOf("/");
  const key = subject.slice(slash + 1);
  const { stored } = p;
  switch (subject.slice(0, slash)) {
    case "pool":
      return stored.pools.has(key);
    case "replica":
      return stored.replicas.has(key);
    case "nexus":
      return stored.nexuses.has(key);
    case "volume":
    case "scrub":
      return stored.volumes.has(key);
    case "snapshot":
      return stored.snapshots.has(key);
    default:
      return false;
  }
}
