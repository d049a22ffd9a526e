/**
 * Switch-over: the target of a volume whose node is Offline goes to another node.
 *
 * That no acknowledged write is lost, and no two targets acknowledge, does not rest on the node being
 * dead; it may serve hosts on its side of a partition, or wake up later:
 *
 * 1. The new epoch is committed before anything else is done (`newTarget`, one transaction). A leader that
 *    has lost its quorum cannot commit it, so it moves nothing. From then on the recorder refuses the
 *    former epoch: the old nexus can have no further child recorded as lost.
 * 2. The new nexus is opened with replicas that are recorded as healthy, and before it lets the first
 *    request in it has claimed each of them with its epoch (reservation, and epoch on the disk) and had
 *    every replica that it does not have recorded as unhealthy.
 * 3. The old nexus acknowledges a write only when all children that are recorded as healthy have it, or
 *    the loss of the others is recorded (DESIGN 6.1, 6.2). One of those is now claimed by the new
 *    epoch, since the new nexus has at least one of them: it refuses the write, or cannot be reached, and
 *    that cannot be recorded any more (1). So whatever was acknowledged before is on the replicas that the
 *    new nexus has, and nothing is acknowledged after. The old nexus finds out that it is superseded.
 * 4. The record of the volume that the decision was made from is part of the transaction. The recorder
 *    writes it too: had the old nexus lost a child and acknowledged since, the transaction is refused.
 *
 * Nor does the old nexus answer reads with old data: it does so only while it holds leases that the replicas'
 * engines let run out before they answer the new nexus's claims (engine/nexus/read-lease.ts). Nothing here
 * has to wait for that.
 */
import type { EngineNexus } from "../../cluster-state.ts";
import type { NexusRecord, VolumeRecord } from "../../model.ts";
import { rankTargetNodes } from "../placement/target.ts";
import type { Work } from "../plan.ts";
import { FOLLOW_WAIT_MS, HOLD_DOWN_MS, REPUBLISH_WAIT_MS } from "./limits.ts";
import { movedTo } from "./move.ts";
import type { Planning } from "./planning.ts";
import { hostsAt } from "./standby.ts";

/**
 * The move of a target whose node is away, or null: it is not (long enough), or nobody else can serve.
 * Where hosts are connected already it is made after a short wait, which keeps a node that comes and goes
 * from sending volumes around; else hosts may know that one path alone, and the node has longer to come back.
 */
export function switchedOver(p: Planning, volume: VolumeRecord, record: NexusRecord): Work | null {
  const { nodeId } = record;
  if (volume.target === null || !p.state.settings.switchOver || !p.isGone(nodeId)) return null;
  const subject = `volume/${volume.uuid}`;
  const candidates = rankTargetNodes(p.state, volume, new Set([nodeId]));
  const connected = candidates.filter((node) => hostsAt(p, volume, node) > 0);
  // One that was removed from the cluster never comes back.
  const seen = p.stored.nodes.has(nodeId) ? p.state.observed.get(nodeId) : undefined;
  const sinceMs = seen?.offlineSinceMs ?? p.nowMs - REPUBLISH_WAIT_MS;
  const dueMs = sinceMs + (connected.length > 0 ? HOLD_DOWN_MS : REPUBLISH_WAIT_MS);
  if (p.nowMs < dueMs) {
    p.wakeAt(dueMs);
    return null;
  }
  const why = `node ${nodeId} cannot be reached`;
  const move = movedTo(p, volume, [...connected, ...candidates], why);
  if (move !== null) return move;
  const healthy = p.replicasOf(volume).filter((replica) => replica.healthy);
  const places = [...new Set(healthy.map((replica) => replica.nodeId))].sort().join(", ");
  const message =
    candidates.length === 0
      ? `${why}, and no other node can serve it`
      : `${why}, and no other replica that holds all its data can be reached`;
  p.warn("critical", subject, message, `bring back a node of ${places || nodeId}`);
  return null;
}

/**
 * A target that was moved and that no host has come to, while hosts are connected to a standby, goes there:
 * they know no other way, such as a host with a single path whose node has come back.
 */
export function followedHosts(
  p: Planning,
  volume: VolumeRecord,
  record: NexusRecord,
  nexus: EngineNexus,
): Work | null {
  const isMoved = volume.target !== null && volume.incarnation > 1 && record.share === "nvmf";
  if (!isMoved || !p.state.settings.switchOver || nexus.controllers !== 0) return null;
  const candidates = rankTargetNodes(p.state, volume, new Set([record.nodeId]));
  const connected = candidates.filter((node) => hostsAt(p, volume, node) > 0);
  if (connected.length === 0) return null;
  const dueMs = record.createdAtMs + FOLLOW_WAIT_MS;
  if (p.nowMs >= dueMs) return movedTo(p, volume, connected, "its hosts are connected elsewhere");
  p.wakeAt(dueMs);
  return null;
}
