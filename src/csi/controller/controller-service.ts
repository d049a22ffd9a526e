/** The Controller service: volumes are made, published and told of through the cluster's HTTP API. */
import { ControllerServiceCapability_RPC_Type as Rpc } from "../generated/csi_pb.js";
import type { ControllerHandlers } from "../handlers.ts";
import { getCapacity } from "./capacity.ts";
import { createVolume } from "./create-volume.ts";
import type { ControllerParts } from "./parts.ts";
import { controllerPublish, controllerUnpublish } from "./publish.ts";
import { createSnapshot, deleteSnapshot, getSnapshot, listSnapshots } from "./snapshots.ts";
import {
  deleteVolume,
  expandVolume,
  getVolume,
  listVolumes,
  validateCapabilities,
} from "./volumes.ts";

/** What is offered. ModifyVolume and groups of snapshots are not, as the cluster has neither. */
const rpcs: readonly Rpc[] = [
  Rpc.CREATE_DELETE_VOLUME,
  Rpc.PUBLISH_UNPUBLISH_VOLUME,
  Rpc.LIST_VOLUMES,
  Rpc.LIST_VOLUMES_PUBLISHED_NODES,
  Rpc.GET_VOLUME,
  Rpc.VOLUME_CONDITION,
  Rpc.GET_CAPACITY,
  Rpc.CREATE_DELETE_SNAPSHOT,
  Rpc.LIST_SNAPSHOTS,
  Rpc.GET_SNAPSHOT,
  Rpc.EXPAND_VOLUME,
  Rpc.SINGLE_NODE_MULTI_WRITER,
];

/** The Controller service. */
export function controllerService(parts: ControllerParts): ControllerHandlers {
  return {
    createVolume: (request, call) => createVolume(parts, request, call),
    deleteVolume: (request, call) => deleteVolume(parts, request, call),
    controllerPublishVolume: (request, call) => controllerPublish(parts, request, call),
    controllerUnpublishVolume: (request, call) => controllerUnpublish(parts, request, call),
    validateVolumeCapabilities: (request) => validateCapabilities(parts, request),
    listVolumes: (request) => listVolumes(parts, request),
    getCapacity: (request) => getCapacity(parts, request),
    controllerGetVolume: (request) => getVolume(parts, request),
    controllerExpandVolume: (request, call) => expandVolume(parts, request, call),
    createSnapshot: (request, call) => createSnapshot(parts, request, call),
    deleteSnapshot: (request, call) => deleteSnapshot(parts, request, call),
    getSnapshot: (request) => getSnapshot(parts, request),
    listSnapshots: (request) => listSnapshots(parts, request),
    controllerGetCapabilities: async () => ({
      capabilities: rpcs.map((type) => ({ type: { case: "rpc", value: { type } } as const })),
    }),
  };
}
