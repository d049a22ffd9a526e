/** Nexuses that are made by hand, over any devices: they belong to no volume. */
import { TrilithError } from "../../../errors.ts";
import type { ClusterState } from "../../cluster-state.ts";
import type { CreateNexusRequest } from "../../control.ts";
import type { NexusChildRecord, NexusRecord, NodeId, Uuid } from "../../model.ts";
import { CONTROLLER_ID_MAX, REPLICAS_MAX } from "../limits.ts";
import type { Decision } from "../plan.ts";
import { nodeStatus } from "../status.ts";
import { checkSize, checkUuid } from "./arguments.ts";
import { differing, event, nothing, put, touch } from "./changes.ts";
import { conflict, deleting, invalid, notFound, precondition, requireNexus } from "./errors.ts";

const uuidInUri = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/;

/** The child that a URI names. Throws `InUse` when it is a replica of a volume. */
function childOfUri(state: ClusterState, uri: string): NexusChildRecord {
  if (uri === "") throw invalid("a child's URI is empty");
  const named = uuidInUri.exec(uri.toLowerCase())?.[0];
  const replica = named === undefined ? undefined : state.stored.replicas.get(named);
  if (replica === undefined) return { uri, replicaUuid: null };
  if (replica.volumeUuid !== null) {
    throw new TrilithError(
      "InUse",
      `replica ${replica.uuid} belongs to volume ${replica.volumeUuid}`,
      "publish the volume instead",
    );
  }
  return { uri, replicaUuid: replica.uuid };
}

function checkChildren(uris: readonly string[]): void {
  if (uris.length < 1 || uris.length > REPLICAS_MAX) {
    throw invalid(`${uris.length} children, not 1 to ${REPLICAS_MAX}`);
  }
  if (new Set(uris).size !== uris.length) throw invalid("a child is named twice");
}

/** Records a nexus as `Creating`; an equal one is confirmed. */
export function createNexus(state: ClusterState, request: CreateNexusRequest): Decision {
  const { uuid, nodeId, sizeBytes, children } = request;
  checkUuid("nexus", uuid);
  checkSize(`nexus ${uuid}`, sizeBytes);
  checkChildren(children);
  const there = state.stored.nexuses.get(uuid);
  if (there !== undefined) {
    if (there.status === "Deleting" || there.phase === "Shutdown") throw deleting(`nexus ${uuid}`);
    const known = { ...there, children: there.children.map(({ uri }) => uri) };
    const fields = differing({ nodeId, sizeBytes, children }, known);
    if (fields.length > 0) throw conflict(`nexus ${uuid}`, fields);
    return nothing;
  }
  const node = state.stored.nodes.get(nodeId);
  const status = nodeStatus(state, nodeId);
  if (node === undefined || status !== "Online") {
    const why = node === undefined ? "does not exist" : `is ${status}`;
    throw precondition(`node ${nodeId} ${why}`, "name a node that is Online");
  }
  const nexus: NexusRecord = {
    revision: 0,
    uuid,
    volumeUuid: null,
    name: uuid,
    nodeId,
    sizeBytes,
    epoch: 1,
    children: children.map((uri) => childOfUri(state, uri)),
    status: "Creating",
    phase: "Open",
    share: "none",
    allowedHosts: [],
    controllerIds: { min: 1, max: CONTROLLER_ID_MAX },
    createdAtMs: state.nowMs,
  };
  return { changes: [put("nexuses", nexus), touch("nodes", node)], events: [] };
}

/** Throws `InUse` for a volume's nexus: that is changed through its volume. */
function requireOwnerless(nexus: NexusRecord, remedy: string): void {
  if (nexus.volumeUuid === null) return;
  throw new TrilithError("InUse", `nexus ${nexus.uuid} serves volume ${nexus.volumeUuid}`, remedy);
}

/** Throws `NotFound`, `InUse`. One that is going is confirmed. */
export function destroyNexus(state: ClusterState, uuid: Uuid, nodeId: NodeId | null): Decision {
  const there = state.stored.nexuses.get(uuid);
  if (there === undefined || (nodeId !== null && there.nodeId !== nodeId)) {
    throw notFound(`nexus ${uuid}${nodeId === null ? "" : ` on node ${nodeId}`}`, "volumes");
  }
  if (there.status === "Deleting" || there.phase === "Shutdown") return nothing;
  requireOwnerless(there, "unpublish the volume");
  return { changes: [put("nexuses", { ...there, status: "Deleting" })], events: [] };
}

/** A nexus that is shared is confirmed. */
export function shareNexus(state: ClusterState, uuid: Uuid, nodeId: NodeId | null): Decision {
  const nexus = requireNexus(state, uuid, nodeId);
  requireOwnerless(nexus, "share the volume");
  if (nexus.share === "nvmf") return nothing;
  const said = event("Nexus", "StateChange", uuid, "to be shared", nexus.nodeId);
  return { changes: [put("nexuses", { ...nexus, share: "nvmf" })], events: [said] };
}

/** Throws `NotShared`. */
export function unshareNexus(state: ClusterState, uuid: Uuid, nodeId: NodeId | null): Decision {
  const nexus = requireNexus(state, uuid, nodeId);
  requireOwnerless(nexus, "unshare the volume");
  if (nexus.share === "none") throw new TrilithError("NotShared", `nexus ${uuid} is not shared`);
  const said = event("Nexus", "StateChange", uuid, "to be shared no more", nexus.nodeId);
  return { changes: [put("nexuses", { ...nexus, share: "none" })], events: [said] };
}

/** A child that is there is confirmed. Throws `ResourceExhausted` beyond what a nexus can have. */
export function addNexusChild(
  state: ClusterState,
  uuid: Uuid,
  nodeId: NodeId | null,
  uri: string,
): Decision {
  const nexus = requireNexus(state, uuid, nodeId);
  requireOwnerless(nexus, "raise the volume's replica count, or move a replica");
  if (nexus.children.some((child) => child.uri === uri)) return nothing;
  const child = childOfUri(state, uri);
  if (nexus.children.length >= REPLICAS_MAX) {
    throw new TrilithError(
      "ResourceExhausted",
      `nexus ${uuid} has ${nexus.children.length} children, which is the most`,
      "remove one first",
    );
  }
  const said = event("Nexus", "AddChild", uuid, `${uri} to be added`, nexus.nodeId);
  const children = [...nexus.children, child];
  return { changes: [put("nexuses", { ...nexus, children })], events: [said] };
}

/** Throws `NotFound`, `FailedPrecondition` (the last child). */
export function removeNexusChild(
  state: ClusterState,
  uuid: Uuid,
  nodeId: NodeId | null,
  uri: string,
): Decision {
  const nexus = requireNexus(state, uuid, nodeId);
  requireOwnerless(nexus, "lower the volume's replica count, or move a replica");
  const children = nexus.children.filter((child) => child.uri !== uri);
  if (children.length === nexus.children.length) {
    throw notFound(`child ${uri} of nexus ${uuid}`, "volumes");
  }
  if (children.length === 0) {
    throw precondition(`${uri} is the last child of nexus ${uuid}`, "destroy the nexus instead");
  }
  const said = event("Nexus", "RemoveChild", uuid, `${uri} to be removed`, nexus.nodeId);
  return { changes: [put("nexuses", { ...nexus, children })], events: [said] };
}
