/** What a drained node still has that is to leave, and what each thing waits for. Pure. */
import { TrilithError } from "../../../errors.ts";
import type { ClusterState } from "../../cluster-state.ts";
import type { NexusRecord, NodeRecord, ReplicaRecord, Uuid, VolumeRecord } from "../../model.ts";
import { newTarget } from "../decide/publish.ts";
import { chooseTargetNode } from "../placement/target.ts";
import { childOfReplica } from "./children.ts";
import { staysWhenDrained } from "./move.ts";
import { newReplica } from "./place.ts";
import { noFailures, Planning } from "./planning.ts";

export interface DrainRemainder {
  /**
   * `closing`: a former target whose engine has not ended it yet. `opening`: a target on another node that
   * is not open yet, and is opened with a replica of this one.
   */
  readonly kind: "target" | "closing" | "opening" | "replica";
  /** Of the nexus, or of the replica. */
  readonly uuid: Uuid;
  readonly volumeUuid: Uuid | null;
  readonly waitsFor: string;
  /** It does not leave unless somebody does something. */
  readonly isStuck: boolean;
}

/** Why a target cannot leave its node; null: nothing is in its way. */
function whyNoMove(p: Planning, volume: VolumeRecord, node: NodeRecord): string | null {
  try {
    const other = chooseTargetNode(p.state, volume, new Set([node.id]));
    newTarget(p.state, volume, other, volume.target!, volume.target!.nexusUuid);
    return null;
  } catch (error) {
    if (error instanceof TrilithError && error.code === "FailedPrecondition") return error.message;
    throw error;
  }
}

/** Volumes that the node serves and that are to be served elsewhere. */
export function* leavingVolumes(p: Planning, node: NodeRecord): Generator<VolumeRecord> {
  for (const volume of p.stored.volumes.values()) {
    if (volume.target?.nodeId === node.id && !staysWhenDrained(p, volume)) yield volume;
  }
}

/** Former targets that the node's engine has not ended yet, as long as it answers. */
export function* closingNexuses(p: Planning, node: NodeRecord): Generator<NexusRecord> {
  if (p.isGone(node.id)) return;
  for (const nexus of p.stored.nexuses.values()) {
    if (nexus.nodeId === node.id && nexus.phase === "Shutdown") yield nexus;
  }
}

function targets(p: Planning, node: NodeRecord): DrainRemainder[] {
  const found: DrainRemainder[] = [];
  for (const volume of leavingVolumes(p, node)) {
    const why = whyNoMove(p, volume, node);
    found.push({
      kind: "target",
      uuid: volume.target!.nexusUuid,
      volumeUuid: volume.uuid,
      waitsFor: why ?? "being opened on another node",
      isStuck: why !== null,
    });
  }
  for (const { uuid, volumeUuid } of closingNexuses(p, node)) {
    const waitsFor = "being closed: the volume is served elsewhere already";
    found.push({ kind: "closing", uuid, volumeUuid, waitsFor, isStuck: false });
  }
  for (const { uuid, volumeUuid, nodeId } of openingElsewhere(p, node)) {
    const waitsFor = `being opened on ${nodeId}`;
    found.push({ kind: "opening", uuid, volumeUuid, waitsFor, isStuck: false });
  }
  return found;
}

/**
 * Targets that are being opened elsewhere with a replica of the node: were its engine to stop now, hosts
 * would wait until that is noticed.
 */
export function* openingElsewhere(p: Planning, node: NodeRecord): Generator<NexusRecord> {
  for (const nexus of p.stored.nexuses.values()) {
    if (nexus.status !== "Creating" || nexus.nodeId === node.id || nexus.volumeUuid === null)
      continue;
    const volume = p.stored.volumes.get(nexus.volumeUuid);
    if (volume?.target?.nexusUuid !== nexus.uuid || p.failures.has(`volume/${volume.uuid}`))
      continue;
    if (p.replicasOf(volume).some((replica) => replica.nodeId === node.id)) yield nexus;
  }
}

/** How far the successor of a replica is. */
function successorOf(p: Planning, volume: VolumeRecord, replica: ReplicaRecord): string | null {
  if (volume.victimReplica !== replica.uuid) return null;
  for (const other of p.replicasOf(volume)) {
    if (other === replica || other.status === "Deleting" || other.healthy) continue;
    const queued = p.whyQueued(other);
    if (queued !== null) return `its copy in ${other.poolId}, which waits: ${queued}`;
    for (const nexus of p.nexusesOf(volume)) {
      const seen = nexus.phase === "Open" ? p.nexus(nexus) : undefined;
      const rebuild = seen && childOfReplica(seen, other)?.rebuild;
      if (rebuild == null) continue;
      return `its copy in ${other.poolId} (${Math.floor(rebuild.progressPercent)} %)`;
    }
    return `its copy in ${other.poolId}`;
  }
  return "its removal: all others hold everything";
}

function replicas(p: Planning, node: NodeRecord): DrainRemainder[] {
  const found: DrainRemainder[] = [];
  for (const replica of p.stored.replicas.values()) {
    const volume = p.stored.volumes.get(replica.volumeUuid ?? "");
    if (replica.nodeId !== node.id || volume === undefined) continue;
    const { uuid } = replica;
    const add = (waitsFor: string, isStuck: boolean): void => {
      found.push({ kind: "replica", uuid, volumeUuid: volume.uuid, waitsFor, isStuck });
    };
    const successor =
      replica.status === "Deleting" ? "its removal" : successorOf(p, volume, replica);
    if (successor !== null) {
      add(successor, false);
      continue;
    }
    if (volume.victimReplica !== null) {
      add(`its turn: replica ${volume.victimReplica} of the volume moves first`, false);
      continue;
    }
    const staying = p
      .replicasOf(volume)
      .filter((other) => other !== replica && other.status !== "Deleting");
    const made = newReplica(p, volume, { staying, notPools: new Set([replica.poolId]) });
    if ("why" in made) add(`a place for another: ${made.why}`, true);
    else add("a copy, which is about to be begun", false);
  }
  return found;
}

/** What is left on a node that is drained; empty when it is not, or nothing is. */
export function drainRemainder(state: ClusterState, node: NodeRecord): DrainRemainder[] {
  if (node.drainPhase === "none") return [];
  const p = new Planning(state, noFailures);
  return [...targets(p, node), ...(node.evacuate ? replicas(p, node) : [])];
}
