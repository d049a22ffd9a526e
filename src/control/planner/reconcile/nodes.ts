/** Nodes that are being drained: done when nothing that has to leave is left. */
import type { NodeRecord } from "../../model.ts";
import { uncordonNode } from "../decide/nodes.ts";
import type { Work } from "../plan.ts";
import { outlived } from "../stopping.ts";
import { closingNexuses, leavingVolumes, openingElsewhere } from "./drain-progress.ts";
import type { Planning } from "./planning.ts";
import { event, put, store, work } from "./steps.ts";

/** Drains for the stop of an engine end when another process answers in its place. */
function reclaimed(p: Planning, node: NodeRecord): Work | null {
  const present = p.online(node.id)?.info?.instanceUuid;
  if (present === undefined) return null;
  const [label] = outlived(node.drainLabels, present);
  if (label === undefined) return null;
  const { changes, events } = uncordonNode(p.state, node.id, label);
  return work(`node/${node.id}`, store("its engine is back", changes, events));
}

function isAny(found: Iterator<unknown>): boolean {
  return found.next().done !== true;
}

export function planNode(p: Planning, node: NodeRecord): Work | null {
  const back = reclaimed(p, node);
  if (back !== null) return back;
  if (node.drainPhase !== "draining") return null;
  if (isAny(leavingVolumes(p, node)) || isAny(closingNexuses(p, node))) return null;
  if (!p.isGone(node.id) && isAny(openingElsewhere(p, node))) return null;
  if (node.evacuate) {
    for (const replica of p.stored.replicas.values()) {
      if (replica.nodeId === node.id && replica.volumeUuid !== null) return null;
    }
  }
  const step = store(
    "nothing that has to leave is left",
    [put("nodes", { ...node, drainPhase: "drained" })],
    [event("Node", "StateChange", node.id, node.id, "drained")],
  );
  return work(`node/${node.id}`, step);
}
