/** Moves of a volume's target to another node: a new nexus in a new epoch, the old one shut down. */
import type { NexusRecord, NodeId, VolumeRecord } from "../../model.ts";
import type { Work } from "../plan.ts";
import { isNodeCordoned } from "../status.ts";
import { derivedUuid } from "./derived-uuid.ts";
import type { Planning } from "./planning.ts";
import { event, put, store, work } from "./steps.ts";

/** A target on a node that is being drained is moved, when there is another node for it. */
export function movedTarget(p: Planning, volume: VolumeRecord, record: NexusRecord): Work | null {
  const node = p.stored.nodes.get(record.nodeId);
  if (node === undefined || node.drainPhase === "none" || staysWhenDrained(p, volume)) return null;
  const to = otherNode(p, volume, record.nodeId);
  if (to === null) {
    p.warn(
      "warning",
      `volume/${volume.uuid}`,
      `node ${node.id} is drained and no other node can serve it`,
      "uncordon a node",
    );
    return null;
  }
  return work(`volume/${volume.uuid}`, moved(p, volume, record, to, `node ${node.id} is drained`));
}

/** The target of a volume whose only replica lies on the drained node, and stays there, stays too. */
export function staysWhenDrained(p: Planning, volume: VolumeRecord): boolean {
  const nodeId = volume.target?.nodeId;
  const node = nodeId === undefined ? undefined : p.stored.nodes.get(nodeId);
  if (node === undefined || node.evacuate) return false;
  const replicas = p.replicasOf(volume).filter(({ status }) => status !== "Deleting");
  return replicas.length === 1 && replicas[0]!.nodeId === node.id;
}

/** The node to move to: one with a healthy replica before others, then the one with fewest targets. */
function otherNode(p: Planning, volume: VolumeRecord, from: NodeId): NodeId | null {
  const targets = new Map<NodeId, number>();
  for (const { target } of p.stored.volumes.values()) {
    if (target !== null) targets.set(target.nodeId, (targets.get(target.nodeId) ?? 0) + 1);
  }
  const healthy = new Set(
    p
      .replicasOf(volume)
      .filter((r) => r.healthy && r.status === "Created")
      .map((r) => r.nodeId),
  );
  let best: { readonly id: NodeId; readonly rank: number } | null = null;
  for (const node of p.stored.nodes.values()) {
    if (node.id === from || isNodeCordoned(node) || p.online(node.id) === undefined) continue;
    const rank = (healthy.has(node.id) ? 0 : 1e6) + (targets.get(node.id) ?? 0);
    if (best === null || rank < best.rank || (rank === best.rank && node.id < best.id)) {
      best = { id: node.id, rank };
    }
  }
  return best?.id ?? null;
}

/** Controller ids come in ranges, one per incarnation, so that paths never share one. */
const CONTROLLER_ID_RANGES = 16;
const CONTROLLER_IDS = 0xffef;

export function controllerIdsOf(incarnation: number): {
  readonly min: number;
  readonly max: number;
} {
  const size = Math.floor(CONTROLLER_IDS / CONTROLLER_ID_RANGES);
  const min = 1 + (incarnation % CONTROLLER_ID_RANGES) * size;
  return { min, max: min + size - 1 };
}

function moved(p: Planning, volume: VolumeRecord, from: NexusRecord, to: NodeId, why: string) {
  const epoch = Math.max(volume.epoch, from.epoch) + 1;
  const incarnation = volume.incarnation + 1;
  const uuid = derivedUuid("nexus", volume.uuid, epoch);
  const next: NexusRecord = {
    ...from,
    revision: 0,
    uuid,
    nodeId: to,
    epoch,
    status: "Creating",
    phase: "Open",
    controllerIds: controllerIdsOf(incarnation),
    createdAtMs: p.nowMs,
  };
  const target = { ...volume.target!, nexusUuid: uuid, nodeId: to };
  return store(
    `${why}: its target moves to ${to}`,
    [
      put("volumes", { ...volume, epoch, incarnation, target }),
      put("nexuses", { ...from, phase: "Shutdown" }),
      put("nexuses", next),
    ],
    [event("HighAvailability", "SwitchOver", volume.uuid, to, why)],
  );
}
