/** Moves of a volume's target to another node: a new nexus in a new epoch, the old one shut down. */
import { TrilithError } from "../../../errors.ts";
import type { NexusRecord, NodeRecord, VolumeRecord } from "../../model.ts";
import { newTarget } from "../decide/publish.ts";
import { rankTargetNodes } from "../placement/target.ts";
import type { Work } from "../plan.ts";
import { derivedUuid } from "./derived-uuid.ts";
import type { Planning } from "./planning.ts";
import { preferConnected } from "./standby.ts";
import { event, store, work } from "./steps.ts";

/** A target on a node that is being drained is moved, when there is another node for it. */
export function movedTarget(p: Planning, volume: VolumeRecord, record: NexusRecord): Work | null {
  const node = p.stored.nodes.get(record.nodeId);
  if (node === undefined || node.drainPhase === "none" || volume.target === null) return null;
  if (staysWhenDrained(p, volume)) return null;
  const ranked = rankTargetNodes(p.state, volume, new Set([node.id]));
  const next = movedTo(p, volume, preferConnected(p, volume, ranked), `node ${node.id} is drained`);
  if (next === null) {
    p.warn(
      "warning",
      `volume/${volume.uuid}`,
      `node ${node.id} is drained and no other node can serve it`,
      "uncordon a node, or wait until a healthy replica can be reached",
    );
  }
  return next;
}

/** The target of a volume whose only replica lies on the drained node, and stays there, stays too. */
export function staysWhenDrained(p: Planning, volume: VolumeRecord): boolean {
  const nodeId = volume.target?.nodeId;
  const node = nodeId === undefined ? undefined : p.stored.nodes.get(nodeId);
  if (node === undefined || node.evacuate) return false;
  const replicas = p.replicasOf(volume).filter(({ status }) => status !== "Deleting");
  return replicas.length === 1 && replicas[0]!.nodeId === node.id;
}

/** Moves the target to the first of the nodes; null: there is none, or no healthy replica to serve. */
export function movedTo(
  p: Planning,
  volume: VolumeRecord,
  nodes: readonly NodeRecord[],
  why: string,
): Work | null {
  const [node] = nodes;
  if (node === undefined || volume.target === null) return null;
  const uuid = derivedUuid("nexus", volume.uuid, volume.epoch + 1);
  try {
    const changes = newTarget(p.state, volume, node, volume.target, uuid);
    const said = event("HighAvailability", "SwitchOver", volume.uuid, node.id, why);
    return work(
      `volume/${volume.uuid}`,
      store(`${why}: its target moves to ${node.id}`, changes, [said]),
    );
  } catch (error) {
    if (error instanceof TrilithError && error.code === "FailedPrecondition") return null;
    throw error;
  }
}
