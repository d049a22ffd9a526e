/** Cordons, drains, labels and removal of nodes. */
import { TrilithError } from "../../../errors.ts";
import type { ClusterState } from "../../cluster-state.ts";
import type { DrainRequest, ForcedRemoval, RemovalImpact } from "../../control.ts";
import type { NexusRecord, NodeId, NodeRecord, PoolId } from "../../model.ts";
import { poolsOf, removalChanges, removalImpact, requireAccepted } from "../impact.ts";
import { CORDON_LABELS_MAX } from "../limits.ts";
import type { Change, Decision } from "../plan.ts";
import { nodeStatus, replicasOf } from "../status.ts";
import { checkText } from "./arguments.ts";
import { event, isEqual, nothing, put, remove, touch } from "./changes.ts";
import { precondition, requireNode, requirePool } from "./errors.ts";
import { withLabel, withoutLabel } from "./labels.ts";

function checkRoom(node: NodeRecord): void {
  const labels = node.cordonLabels.length + node.drainLabels.length;
  if (labels < CORDON_LABELS_MAX) return;
  throw new TrilithError(
    "ResourceExhausted",
    `node ${node.id} has ${labels} cordon and drain labels, which is the most`,
    "remove some first",
  );
}

/** Throws `FailedPrecondition` when the label is there already, as a cordon or a drain. */
export function cordonNode(state: ClusterState, id: NodeId, label: string): Decision {
  checkText("cordon label", label);
  const node = requireNode(state, id);
  if (node.cordonLabels.includes(label) || node.drainLabels.includes(label)) {
    throw precondition(`node ${id} has cordon label ${label} already`, "");
  }
  checkRoom(node);
  const cordonLabels = [...node.cordonLabels, label];
  const said = event("Node", "StateChange", id, `cordoned with label ${label}`, id);
  return { changes: [put("nodes", { ...node, cordonLabels })], events: [said] };
}

/** Takes a cordon or a drain label away; the last drain label ends the drain. */
export function uncordonNode(state: ClusterState, id: NodeId, label: string): Decision {
  const node = requireNode(state, id);
  const isDrain = node.drainLabels.includes(label);
  if (!isDrain && !node.cordonLabels.includes(label)) {
    throw precondition(
      `node ${id} has no cordon label ${label}`,
      `it has: ${[...node.cordonLabels, ...node.drainLabels].join(", ") || "none"}`,
    );
  }
  const cordonLabels = node.cordonLabels.filter((one) => one !== label);
  const drainLabels = node.drainLabels.filter((one) => one !== label);
  const ends = isDrain && drainLabels.length === 0;
  const next: NodeRecord = {
    ...node,
    cordonLabels,
    drainLabels,
    drainPhase: ends ? "none" : node.drainPhase,
    evacuate: ends ? false : node.evacuate,
  };
  const said = event("Node", "StateChange", id, `label ${label} removed`, id);
  return { changes: [put("nodes", next)], events: [said] };
}

/**
 * Begins a drain; one with the same label and extent is confirmed, and `evacuate` extends one. Throws
 * `FailedPrecondition` when the label is a cordon's.
 */
export function drainNode(state: ClusterState, request: DrainRequest): Decision {
  const { nodeId, label, evacuate } = request;
  checkText("drain label", label);
  const node = requireNode(state, nodeId);
  if (node.cordonLabels.includes(label)) {
    throw precondition(`node ${nodeId} has cordon label ${label}`, "use another label");
  }
  const isThere = node.drainLabels.includes(label);
  if (isThere && (node.evacuate || !evacuate)) return nothing;
  if (!isThere) checkRoom(node);
  const next: NodeRecord = {
    ...node,
    drainLabels: isThere ? node.drainLabels : [...node.drainLabels, label],
    drainPhase: "draining",
    evacuate: node.evacuate || evacuate,
  };
  const what = next.evacuate ? "targets and replicas" : "targets";
  const message = `drain with label ${label} begins: ${what} move away`;
  return {
    changes: [put("nodes", next)],
    events: [event("Node", "StateChange", nodeId, message, nodeId)],
  };
}

export function labelNode(
  state: ClusterState,
  id: NodeId,
  key: string,
  value: string,
  overwrite: boolean,
): Decision {
  const node = requireNode(state, id);
  const labels = withLabel(`node ${id}`, node.labels, key, value, overwrite);
  const said = event("Node", "StateChange", id, `label ${key}=${value} set`, id);
  return { changes: [put("nodes", { ...node, labels })], events: [said] };
}

export function unlabelNode(state: ClusterState, id: NodeId, key: string): Decision {
  const node = requireNode(state, id);
  const labels = withoutLabel(`node ${id}`, node.labels, key);
  const said = event("Node", "StateChange", id, `label ${key} removed`, id);
  return { changes: [put("nodes", { ...node, labels })], events: [said] };
}

export function nodeRemovalImpact(state: ClusterState, id: NodeId): RemovalImpact {
  requireNode(state, id);
  const impact = removalImpact(state, poolsOf(state, id));
  const lost = new Set(impact.volumesLost);
  const served = [...state.stored.nexuses.values()]
    .filter((nexus) => nexus.nodeId === id && isServing(state, nexus))
    .flatMap(({ volumeUuid }) => (volumeUuid === null || lost.has(volumeUuid) ? [] : [volumeUuid]))
    .sort();
  return state.settings.switchOver
    ? { ...impact, volumesMoved: served, volumesUnpublished: [] }
    : { ...impact, volumesMoved: [], volumesUnpublished: served };
}

/** The nexus is the target of a published volume. */
function isServing(state: ClusterState, { uuid, volumeUuid, phase }: NexusRecord): boolean {
  const target = state.stored.volumes.get(volumeUuid ?? "")?.target;
  return phase === "Open" && target?.nexusUuid === uuid;
}

export function poolRemovalImpact(state: ClusterState, id: PoolId): RemovalImpact {
  requirePool(state, id, null);
  return removalImpact(state, [id]);
}

/**
 * Forgets a node. It must hold no pool and serve nothing; with `purge` a node that is not Online is
 * forgotten with its pools and targets, what that costs having been accepted: volumes that it served
 * move to other nodes, or are unpublished where switch-over is off. Throws `NotFound`, `FailedPrecondition`.
 */
export function removeNode(state: ClusterState, id: NodeId, force: ForcedRemoval): Decision {
  const node = requireNode(state, id);
  const pools = poolsOf(state, id);
  const nexuses = [...state.stored.nexuses.values()].filter(({ nodeId }) => nodeId === id);
  const status = nodeStatus(state, id);
  if (!force.purge && pools.length + nexuses.length > 0) {
    throw precondition(
      `node ${id} has ${pools.length} pools and ${nexuses.length} targets`,
      "drain it with --evacuate and delete its pools first; or, when it will not come back: trilith node remove <node> --purge",
    );
  }
  if (force.purge && status === "Online" && pools.length + nexuses.length > 0) {
    throw precondition(
      `node ${id} is Online: it is not forgotten with what it has`,
      "drain it with --evacuate and delete its pools, or shut it down first",
    );
  }
  requireAccepted(state, pools, force, `node ${id}`);
  const { changes } = removalChanges(state, pools);
  const lost = new Set(force.purge ? removalImpact(state, pools).volumesLost : []);
  for (const nexus of nexuses) {
    if (state.settings.switchOver && isServing(state, nexus) && !lost.has(nexus.volumeUuid ?? "")) {
      // Its node is gone for good: reconciliation moves it as it does those of nodes that are away.
      changes.push(touch("nexuses", nexus));
      continue;
    }
    // The nexus of a lost volume has been put already: the later change takes its place.
    dropChange(changes, "nexuses", nexus.uuid);
    changes.push(remove("nexuses", nexus.uuid, nexus.revision));
    if (nexus.phase === "Open" && nexus.volumeUuid !== null && !lost.has(nexus.volumeUuid)) {
      withdraw(state, nexus.volumeUuid, changes);
    }
  }
  changes.push(remove("nodes", id, node.revision));
  const said = event("Node", "Delete", id, `removed with ${pools.length} pools`, id);
  return { changes, events: [said] };
}

function dropChange(changes: Change[], table: "nexuses" | "volumes", key: string): void {
  const at = changes.findIndex(
    (change) => change.table === table && "put" in change && keyOf(change) === key,
  );
  if (at >= 0) changes.splice(at, 1);
}

function keyOf(change: Change): string {
  if ("remove" in change) return change.remove;
  return "uuid" in change.put ? change.put.uuid : "id" in change.put ? change.put.id : "";
}

/** A volume whose target is forgotten is unpublished; its remaining replicas are served to nobody. */
function withdraw(state: ClusterState, volumeUuid: string, changes: Change[]): void {
  const volume = state.stored.volumes.get(volumeUuid);
  if (volume === undefined) return;
  const at = changes.findIndex((one) => one.table === "volumes" && keyOf(one) === volumeUuid);
  const earlier = at >= 0 ? changes.splice(at, 1)[0] : undefined;
  const base =
    earlier !== undefined && "put" in earlier && earlier.table === "volumes" ? earlier.put : volume;
  changes.push(put("volumes", { ...base, target: null }));
  for (const replica of replicasOf(state, volumeUuid)) {
    const isChanged = changes.some(
      (one) => one.table === "replicas" && keyOf(one) === replica.uuid,
    );
    if (isChanged || isEqual(replica.allowedHosts, null)) continue;
    changes.push(put("replicas", { ...replica, allowedHosts: null }));
  }
}
