/**
 * What engines have and nobody has recorded. Records are made before what they stand for, and are
 * younger than observations here: so a thing without record was given up, or is not the cluster's. It
 * is destroyed only when it provably holds nothing that could be missed; of everything else an operator
 * is told.
 */
import type { EngineNexus, EngineReplica, ObservedNode } from "../../cluster-state.ts";
import type { Uuid, VolumeRecord } from "../../model.ts";
import type { Work } from "../plan.ts";
import type { Planning } from "./planning.ts";
import { planStrayPool } from "./pools.ts";
import { destruction } from "./replicas.ts";
import { engine, work } from "./steps.ts";

/** Works for all garbage of the nodes that answer. */
export function planGarbage(p: Planning): Work[] {
  const works: Work[] = [];
  for (const node of p.state.observed.values()) {
    if (node.status !== "Online") continue;
    for (const name of node.pools.keys()) {
      const next = p.stored.pools.has(name) ? null : planStrayPool(p, node.id, name);
      if (next !== null) works.push(next);
    }
    for (const replica of node.replicas.values()) {
      const next = p.stored.replicas.has(replica.uuid) ? null : orphanReplica(p, node, replica);
      if (next !== null) works.push(next);
    }
    for (const nexus of node.nexuses.values()) {
      const next = p.stored.nexuses.has(nexus.uuid) ? null : orphanNexus(p, node, nexus);
      if (next !== null) works.push(next);
    }
  }
  return works;
}

/** Garbage by its UUID. */
export function planOrphan(p: Planning, kind: "replica" | "nexus", uuid: Uuid): Work | null {
  for (const node of p.state.observed.values()) {
    if (node.status !== "Online") continue;
    const replica = kind === "replica" ? node.replicas.get(uuid) : undefined;
    if (replica !== undefined) return orphanReplica(p, node, replica);
    const nexus = kind === "nexus" ? node.nexuses.get(uuid) : undefined;
    if (nexus !== undefined) return orphanNexus(p, node, nexus);
  }
  return null;
}

function orphanReplica(p: Planning, node: ObservedNode, replica: EngineReplica): Work | null {
  const { uuid, sync } = replica;
  const isOurs = sync.volumeUuid !== "" && sync.volumeUuid === replica.entityId;
  const pool = p.stored.pools.get(replica.poolName);
  // A pool that is not recorded as it is may be anybody's.
  if (pool?.uuid !== replica.poolUuid || pool.nodeId !== node.id || pool.status !== "Created")
    return null;
  const subject = `replica/${uuid}`;
  // No nexus has ever had it: its creation was under way when it was given up.
  const isUnused = sync.epoch === 0 && sync.generation === 0 && replica.kind === "regular";
  const volume = p.stored.volumes.get(sync.volumeUuid);
  const isOutdated = volume !== undefined && isBehind(p, volume, replica);
  if (isOurs && replica.claimedBy === null && (isUnused || isOutdated)) {
    const reason = isUnused
      ? "nobody knows it, and it was never used"
      : "its volume went on without it";
    return work(subject, destruction(node.id, uuid, reason));
  }
  p.warn(
    "warning",
    subject,
    `pool ${pool.id} on ${node.id} has a replica that nobody knows (volume ${sync.volumeUuid || "none"})`,
    `if it is not needed, ask the engine of ${node.id} to destroy replica ${uuid}`,
  );
  return null;
}

/** A healthy replica of its volume is there with more than it has: it can only ever be overwritten. */
function isBehind(p: Planning, volume: VolumeRecord, orphan: EngineReplica): boolean {
  return p.replicasOf(volume).some((record) => {
    const other = p.replica(record);
    return (
      record.healthy &&
      record.status === "Created" &&
      other !== undefined &&
      other.sync.generation > orphan.sync.generation
    );
  });
}

function orphanNexus(p: Planning, node: ObservedNode, nexus: EngineNexus): Work | null {
  const { uuid, epoch } = nexus;
  const subject = `nexus/${uuid}`;
  const volume = p.stored.volumes.get(nexus.volumeUuid);
  // The volume's epochs are given out by the store: this one was, and the volume went on.
  const isFormer = volume !== undefined && epoch <= volume.epoch;
  const isUnused = volume === undefined && nexus.shares.length === 0;
  if (isFormer || isUnused || nexus.state === "shutdown") {
    const call = { method: "destroyNexus", input: { uuid } } as const;
    const reason = isFormer ? "its volume went on without it" : "nobody knows it, or can reach it";
    return work(subject, engine(node.id, call, reason, ["NotFound"]));
  }
  p.warn(
    "warning",
    subject,
    `node ${node.id} serves a nexus that nobody knows (volume ${nexus.volumeUuid})`,
    `if it is not needed, ask the engine of ${node.id} to destroy nexus ${uuid}`,
  );
  return null;
}
