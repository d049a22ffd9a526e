/** Publication of volumes: where they are served, to whom, and how that moves. */
import { TrilithError } from "../../../errors.ts";
import { hostNqnOf, nqnOf, SEVERAL_HOSTS } from "../../../names.ts";
import type { ClusterState } from "../../cluster-state.ts";
import type { PublishRequest } from "../../control.ts";
import type {
  FrontendNode,
  NexusRecord,
  NodeId,
  NodeRecord,
  Uuid,
  VolumeRecord,
  VolumeTarget,
} from "../../model.ts";
import { deviceBytes } from "../capacity.ts";
import {
  CONTROLLER_ID_MAX,
  CONTROLLER_IDS_PER_NODE,
  FRONTEND_NODES_MAX,
  PUBLISH_CONTEXT_MAX,
  PUBLISH_CONTEXT_TEXT_MAX,
} from "../limits.ts";
import {
  chooseChildren,
  chooseTargetNode,
  requireTargetNode,
  whyNoTarget,
} from "../placement/target.ts";
import type { Change, Decision } from "../plan.ts";
import {
  nexusesOf,
  nexusStatus,
  nodeStatus,
  observedNexus,
  replicasOf,
  targetNexus,
} from "../status.ts";
import { checkNqn, checkText } from "./arguments.ts";
import { event, type FreshUuids, fresh, isEqual, nothing, put, touch } from "./changes.ts";
import { invalid, notFound, precondition, requireVolume } from "./errors.ts";

/**
 * Controller ids that a node gives out for whatever volume, as its target or as a standby: a range for each
 * member number. To a host each path of a volume is a controller of one and the same subsystem, and ids that
 * met would make it refuse a path (mayastor.md 4.4); and as the range is the node's own, hosts keep
 * their controllers when the target comes to the node or leaves it. Member numbers are never given out
 * twice; those that are a multiple of 1,023 apart share a range.
 */
export function controllerIdsOf({ raftId }: Pick<NodeRecord, "raftId">): {
  min: number;
  max: number;
} {
  const ranges = Math.floor((CONTROLLER_ID_MAX - 1) / CONTROLLER_IDS_PER_NODE);
  const min = Number((BigInt(raftId) - 1n) % BigInt(ranges)) * CONTROLLER_IDS_PER_NODE + 1;
  return { min, max: min + CONTROLLER_IDS_PER_NODE - 1 };
}

/** Hosts that a nexus admits; empty: every host. */
function hostsOf(state: ClusterState, frontendNodes: readonly FrontendNode[]): string[] {
  return state.settings.restrictHosts ? frontendNodes.map(({ nqn }) => nqn) : [];
}

/**
 * Serves the volume's replicas to a nexus's node, and to no other: those that lie on the node itself
 * need no network. Null: no nexus.
 */
function serveReplicas(
  state: ClusterState,
  volume: VolumeRecord,
  node: NodeRecord | null,
): Change[] {
  const changes: Change[] = [];
  for (const replica of replicasOf(state, volume.uuid)) {
    if (replica.status === "Deleting") continue;
    const allowedHosts = replicaHosts(state, replica.nodeId, node);
    if (isEqual(replica.allowedHosts, allowedHosts)) continue;
    changes.push(put("replicas", { ...replica, allowedHosts }));
  }
  return changes;
}

/** `allowedHosts` of a replica on a node whose volume's nexus is on `nexusNode`; null: no nexus. */
export function replicaHosts(
  state: ClusterState,
  replicaNodeId: NodeId,
  nexusNode: NodeRecord | null,
): readonly string[] | null {
  if (nexusNode === null || nexusNode.id === replicaNodeId) return null;
  return state.settings.restrictHosts ? [nexusNode.hostNqn] : [];
}

/**
 * A new target of a volume on a node: epoch and incarnation rise, the nexus is recorded `Creating`, the
 * former one (if any) `Shutdown`, replicas are served to the new node. Also for whoever moves targets
 * by himself (drain, failover). Throws `FailedPrecondition` without a healthy replica.
 */
export function newTarget(
  state: ClusterState,
  volume: VolumeRecord,
  node: NodeRecord,
  to: Pick<VolumeTarget, "frontendNodes" | "publishContext">,
  nexusUuid: Uuid,
): Change[] {
  const epoch = volume.epoch + 1;
  const incarnation = volume.incarnation + 1;
  const nexus: NexusRecord = {
    revision: 0,
    uuid: nexusUuid,
    volumeUuid: volume.uuid,
    name: volume.uuid,
    nodeId: node.id,
    sizeBytes: deviceBytes(volume.sizeBytes),
    epoch,
    children: chooseChildren(state, volume, node.id),
    status: "Creating",
    phase: "Open",
    share: "nvmf",
    allowedHosts: hostsOf(state, to.frontendNodes),
    controllerIds: controllerIdsOf(node),
    createdAtMs: state.nowMs,
  };
  const target: VolumeTarget = {
    nexusUuid,
    nodeId: node.id,
    protocol: "nvmf",
    frontendNodes: to.frontendNodes,
    publishContext: to.publishContext,
  };
  const isMove = volume.target !== null;
  const operation = isMove ? "Republish" : "Publish";
  const changes: Change[] = [
    put("volumes", {
      ...volume,
      target,
      epoch,
      incarnation,
      operation: { operation, result: null },
    }),
    put("nexuses", nexus),
    touch("nodes", node),
  ];
  return [...changes, ...shutDown(state, volume), ...serveReplicas(state, volume, node)];
}

/** The volume's nexus becomes a former target. */
function shutDown(state: ClusterState, volume: VolumeRecord): Change[] {
  return nexusesOf(state, volume.uuid)
    .filter(({ phase }) => phase === "Open")
    .map((nexus) => put("nexuses", { ...nexus, phase: "Shutdown" }));
}

function checkPublishRequest(request: PublishRequest): void {
  const entries = Object.entries(request.publishContext);
  if (entries.length > PUBLISH_CONTEXT_MAX) {
    throw invalid(`the publish context has more than ${PUBLISH_CONTEXT_MAX} entries`);
  }
  if (entries.some(([key, value]) => key.length + value.length > PUBLISH_CONTEXT_TEXT_MAX)) {
    throw invalid(`an entry of the publish context is longer than ${PUBLISH_CONTEXT_TEXT_MAX}`);
  }
  if (request.frontendNode !== null) {
    checkText("front-end node", request.frontendNode.name);
    checkNqn("NQN of the front-end node", request.frontendNode.nqn);
  }
}

function alreadyPublished(volume: VolumeRecord, target: VolumeTarget): TrilithError {
  const hosts = target.frontendNodes.map(({ name }) => name).join(", ") || "every host";
  return new TrilithError(
    "AlreadyPublished",
    `volume ${volume.uuid} is published on node ${target.nodeId} to ${hosts}`,
    "unpublish it first, or ask to republish it",
  );
}

/** The target that is there is what the request asks for. */
function isAsAsked(request: PublishRequest, target: VolumeTarget): boolean {
  const frontendNodes = request.frontendNode === null ? [] : [request.frontendNode];
  const isForHosts =
    isEqual(frontendNodes, target.frontendNodes) ||
    (isForSeveral(request) &&
      target.frontendNodes.some((one) => isEqual(one, request.frontendNode)));
  return (
    (request.nodeId === null || request.nodeId === target.nodeId) &&
    isForHosts &&
    isEqual(request.publishContext, target.publishContext)
  );
}

/** The publication may be for several hosts at once, each named by a request of its own. */
function isForSeveral({ publishContext, frontendNode }: PublishRequest): boolean {
  return publishContext[SEVERAL_HOSTS] === "true" && frontendNode !== null;
}

/**
 * Records where a volume is to be served. Throws `NotFound`, `InvalidArgument`, `FailedPrecondition`
 * (no node, or no healthy replica), `AlreadyPublished` (an equal publication that is still under way,
 * or that `reuseExisting` asks for, is confirmed; one for several hosts gets another); `republish` moves
 * it.
 */
export function publishVolume(
  state: ClusterState,
  request: PublishRequest,
  uuids: FreshUuids,
): Decision {
  checkPublishRequest(request);
  const volume = requireVolume(state, request.uuid);
  if (request.republish) return republishVolume(state, volume, request, uuids);
  if (volume.target !== null) {
    const isUnderWay = targetNexus(state, volume)?.status === "Creating";
    if ((isUnderWay || request.reuseExisting) && isAsAsked(request, volume.target)) return nothing;
    const isSameKind = isEqual(request.publishContext, volume.target.publishContext);
    if (request.reuseExisting && isForSeveral(request) && isSameKind) {
      return shareVolume(state, volume.uuid, request.frontendNode);
    }
    throw alreadyPublished(volume, volume.target);
  }
  const node =
    request.nodeId === null
      ? chooseTargetNode(state, volume, new Set())
      : requireTargetNode(state, request.nodeId);
  const frontendNodes = request.frontendNode === null ? [] : [request.frontendNode];
  const to = { frontendNodes, publishContext: request.publishContext };
  const changes = newTarget(state, volume, node, to, fresh(uuids, 0));
  const message = `to be published on node ${node.id}`;
  return { changes, events: [event("Volume", "StateChange", volume.uuid, message, node.id)] };
}

/**
 * Moves a published volume, or makes its target anew. With `reuseExisting` a target that serves stays,
 * and one that does not is made again on its node when that answers; without, another node takes over.
 * Throws `NotPublished`, and `PermissionDenied` when the front-end node is not one it is published to.
 */
function republishVolume(
  state: ClusterState,
  volume: VolumeRecord,
  request: PublishRequest,
  uuids: FreshUuids,
): Decision {
  const { target } = volume;
  if (target === null) throw notPublished(volume.uuid);
  checkFrontend(volume.uuid, target, request.frontendNode);
  const current = state.stored.nodes.get(target.nodeId);
  const nexus = targetNexus(state, volume);
  const status = nexus === undefined ? "Unknown" : nexusStatus(state, nexus);
  if (request.reuseExisting && (status === "Online" || status === "Degraded")) return nothing;
  let node: NodeRecord;
  if (request.nodeId !== null) {
    node = requireTargetNode(state, request.nodeId);
  } else if (
    request.reuseExisting &&
    current !== undefined &&
    whyNoTarget(state, current) === null
  ) {
    node = current;
  } else {
    node = chooseTargetNode(state, volume, new Set([target.nodeId]));
  }
  const changes = newTarget(state, volume, node, target, fresh(uuids, 0));
  const message = `target to move from node ${target.nodeId} to ${node.id}`;
  const moved = event("HighAvailability", "SwitchOver", volume.uuid, message, node.id);
  return { changes, events: [moved] };
}

function checkFrontend(uuid: Uuid, target: VolumeTarget, frontend: FrontendNode | null): void {
  if (frontend === null || target.frontendNodes.length === 0) return;
  if (target.frontendNodes.some(({ name }) => name === frontend.name)) return;
  const hosts = target.frontendNodes.map(({ name }) => name).join(", ");
  throw new TrilithError(
    "PermissionDenied",
    `volume ${uuid} is published to ${hosts}, not to ${frontend.name}`,
    "unpublish it and publish it to that host",
  );
}

function notPublished(uuid: Uuid): TrilithError {
  return new TrilithError("NotPublished", `volume ${uuid} is not published`, "publish it first");
}

/**
 * Records that a volume is to be served no more. A node that does not answer is an error
 * (`FailedPrecondition`) unless it is forced: then the target there is forgotten until it does. With
 * `fromHost` (a name or an NQN) it is that host's publication that ends, and only that: a request that
 * comes late changes nothing for whom it is published to by now. Nothing is forced on hosts that are
 * connected to a node that answers. Throws `NotPublished`.
 */
export function unpublishVolume(
  state: ClusterState,
  uuid: Uuid,
  force: boolean,
  fromHost: string | null = null,
): Decision {
  const volume = requireVolume(state, uuid);
  const { target } = volume;
  if (target === null) throw notPublished(uuid);
  if (fromHost !== null) {
    const nqn = hostNqnOf(fromHost);
    const others = target.frontendNodes.filter((one) => one.name !== fromHost && one.nqn !== nqn);
    if (others.length === target.frontendNodes.length) throw notPublishedTo(volume, fromHost);
    if (others.length > 0) return shutOut(state, volume, target, others, fromHost);
  }
  const status = nodeStatus(state, target.nodeId);
  if (status !== "Online" && !force) {
    throw precondition(
      `volume ${uuid}: node ${target.nodeId}, which serves it, is ${status}`,
      "wait until it is back, or unpublish with force",
    );
  }
  const connected = targetControllers(state, volume);
  if (force && fromHost === null && status === "Online" && connected > 0) {
    throw precondition(
      `volume ${uuid}: ${connected} connections of hosts to node ${target.nodeId} are open; forced, it would be taken from under them`,
      `on each host: umount, then nvme disconnect -n ${nqnOf(uuid)}; then: trilith unpublish volume ${uuid}`,
    );
  }
  const changes: Change[] = [
    put("volumes", {
      ...volume,
      target: null,
      operation: { operation: "Unpublish", result: null },
    }),
    ...shutDown(state, volume),
    ...serveReplicas(state, volume, null),
  ];
  const message = `to be unpublished from node ${target.nodeId}${force ? " by force" : ""}`;
  return {
    changes,
    events: [event("Volume", "StateChange", uuid, message, target.nodeId)],
  };
}

/** NVMe controllers that hosts have at the target of a volume, as its engine reports them. */
function targetControllers(state: ClusterState, volume: VolumeRecord): number {
  const nexus = targetNexus(state, volume);
  return (nexus === undefined ? undefined : observedNexus(state, nexus)?.controllers) ?? 0;
}

function notPublishedTo({ uuid, target }: VolumeRecord, host: string): TrilithError {
  const hosts = target?.frontendNodes.map(({ name }) => name).join(", ") || "every host";
  return new TrilithError(
    "NotPublished",
    `volume ${uuid} is published to ${hosts}, not to ${host}`,
    "publish it to that host first",
  );
}

/** The target goes on for fewer hosts. */
function shutOut(
  state: ClusterState,
  volume: VolumeRecord,
  target: VolumeTarget,
  frontendNodes: readonly FrontendNode[],
  host: string,
): Decision {
  const operation = { operation: "Unpublish", result: null } as const;
  const changes: Change[] = [
    put("volumes", { ...volume, target: { ...target, frontendNodes }, operation }),
  ];
  const nexus = targetNexus(state, volume);
  if (nexus !== undefined) {
    changes.push(put("nexuses", { ...nexus, allowedHosts: hostsOf(state, frontendNodes) }));
  }
  const message = `to be unpublished from host ${host}`;
  return { changes, events: [event("Volume", "StateChange", volume.uuid, message, target.nodeId)] };
}

/**
 * Admits another host to a published volume and has its nexus shared. `frontendHost` null: as it is.
 * Throws `NotPublished`, `AlreadyShared` (it is, and nothing is to be added).
 */
export function shareVolume(
  state: ClusterState,
  uuid: Uuid,
  frontendHost: FrontendNode | null,
): Decision {
  const volume = requireVolume(state, uuid);
  const nexus = targetNexus(state, volume);
  if (volume.target === null || nexus === undefined) throw notPublished(uuid);
  const known = volume.target.frontendNodes;
  const isKnown = frontendHost === null || known.some(({ nqn }) => nqn === frontendHost.nqn);
  if (nexus.share === "nvmf" && isKnown) {
    throw new TrilithError("AlreadyShared", `volume ${uuid} is shared over NVMe/TCP`);
  }
  if (frontendHost !== null) {
    checkText("front-end node", frontendHost.name);
    checkNqn("NQN of the front-end node", frontendHost.nqn);
  }
  if (!isKnown && known.length >= FRONTEND_NODES_MAX) {
    throw new TrilithError(
      "ResourceExhausted",
      `volume ${uuid} is shared to ${known.length} hosts`,
      "unpublish it from hosts that need it no more",
    );
  }
  // A volume that every host may use stays so: naming one would shut the others out.
  const isOpen = known.length === 0 && nexus.share === "nvmf";
  const frontendNodes = isKnown || isOpen ? known : [...known, frontendHost];
  const allowedHosts = hostsOf(state, frontendNodes);
  const changes: Change[] = [
    put("volumes", {
      ...volume,
      target: { ...volume.target, frontendNodes },
      operation: { operation: "Share", result: null },
    }),
    put("nexuses", { ...nexus, share: "nvmf", allowedHosts }),
  ];
  const message = `to be shared to ${frontendHost?.name ?? "its hosts"}`;
  return { changes, events: [event("Volume", "StateChange", uuid, message, nexus.nodeId)] };
}

/** Ends the sharing of a published volume. Throws `NotPublished`, `NotShared`. */
export function unshareVolume(state: ClusterState, uuid: Uuid): Decision {
  const volume = requireVolume(state, uuid);
  const nexus = targetNexus(state, volume);
  if (nexus === undefined) throw notPublished(uuid);
  if (nexus.share === "none") {
    throw new TrilithError("NotShared", `volume ${uuid} is not shared`, "share it first");
  }
  const changes: Change[] = [
    put("volumes", { ...volume, operation: { operation: "Unshare", result: null } }),
    put("nexuses", { ...nexus, share: "none" }),
  ];
  const message = "to be shared no more";
  return { changes, events: [event("Volume", "StateChange", uuid, message, nexus.nodeId)] };
}

/**
 * Has the former targets of a volume destroyed. They are anyway as soon as their nodes answer; those
 * of nodes that do not answer stay recorded, for they have still to be taken down. Throws `NotFound`.
 */
export function destroyShutdownTargets(state: ClusterState, uuid: Uuid): Decision {
  if (state.stored.volumes.get(uuid) === undefined) throw notFound(`volume ${uuid}`, "volumes");
  return nothing;
}
