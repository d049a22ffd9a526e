/** Nodes, hosts and disks as the API shows them. */
import type { ClusterState } from "../../control/cluster-state.ts";
import type { AppNodeRecord, NodeRecord } from "../../control/model.ts";
import { nodeStatus } from "../../control/planner/status.ts";
import type { BlockDevice as EngineBlockDevice } from "../../engine/rpc/bdevs.ts";
import type { AppNode, BlockDevice, CordonDrainState, Node } from "../schemas/index.ts";
import { timeText } from "./time.ts";

function cordonDrainState(node: NodeRecord): CordonDrainState | undefined {
  const cordonlabels = [...node.cordonLabels];
  const drainlabels = [...node.drainLabels];
  if (drainlabels.length > 0) {
    const state = { cordonlabels, drainlabels };
    return node.drainPhase === "drained" ? { drainedstate: state } : { drainingstate: state };
  }
  return cordonlabels.length > 0 ? { cordonedstate: { cordonlabels } } : undefined;
}

/** A node, with what is known of its engine. */
export function renderNode(state: ClusterState, node: NodeRecord): Node {
  const observed = state.observed.get(node.id);
  const cordondrainstate = cordonDrainState(node);
  const shared = {
    grpcEndpoint: node.engineEndpoint,
    id: node.id,
    node_nqn: node.hostNqn,
    version: node.version,
  };
  return {
    id: node.id,
    spec: {
      ...shared,
      labels: { ...node.labels },
      ...(cordondrainstate === undefined ? {} : { cordondrainstate }),
    },
    state: {
      ...shared,
      version: observed?.info?.version ?? node.version,
      status: nodeStatus(state, node.id),
      ...(observed?.lastSeenMs == null ? {} : { lastSeen: timeText(observed.lastSeenMs) }),
    },
  };
}

export function renderAppNode(record: AppNodeRecord): AppNode {
  const { id, endpoint, labels } = record;
  return { id, spec: { id, endpoint, labels: { ...labels } } };
}

const SECTOR_BYTES = 512;

/** A disk as its engine describes it; its size is counted in blocks of 512 bytes, as Mayastor does. */
export function renderBlockDevice(device: EngineBlockDevice): BlockDevice {
  const { filesystem, partition, isRotational, unavailableReason } = device;
  return {
    available: device.available,
    connection_type: device.connectionType,
    devlinks: device.devlinks,
    devmajor: device.devmajor,
    devminor: device.devminor,
    devname: device.devname,
    devpath: device.devpath,
    devtype: device.devtype,
    model: device.model,
    size: Math.floor(device.sizeBytes / SECTOR_BYTES),
    ...(isRotational === null ? {} : { is_rotational: isRotational }),
    ...(filesystem === null ? {} : { filesystem }),
    ...(partition === null ? {} : { partition }),
    ...(unavailableReason === "" ? {} : { unavailable_reason: unavailableReason }),
  };
}
