/** Calls to the CSI node service with the fields that tests care about, and the rest filled in. */
import { create } from "@bufbuild/protobuf";
import {
  VolumeCapability_AccessMode_Mode as Mode,
  NodeExpandVolumeRequestSchema,
  NodeGetVolumeStatsRequestSchema,
  NodePublishVolumeRequestSchema,
  NodeStageVolumeRequestSchema,
  NodeUnpublishVolumeRequestSchema,
  NodeUnstageVolumeRequestSchema,
  VolumeCapabilitySchema,
} from "../../src/csi/generated/csi_pb.js";
import type { NodeHandlers } from "../../src/csi/handlers.ts";
import { nodeHostNqn, nqnOf } from "../../src/names.ts";

/** How a volume is asked for: `block`, or a file system. */
export interface WantedUse {
  readonly fsType?: string;
  readonly flags?: readonly string[];
  readonly block?: boolean;
  readonly mode?: Mode;
}

export function capabilityOf({ fsType = "", flags = [], block = false, mode }: WantedUse) {
  return create(VolumeCapabilitySchema, {
    accessMode: { mode: mode ?? Mode.SINGLE_NODE_WRITER },
    accessType: block
      ? { case: "block", value: {} }
      : { case: "mount", value: { fsType, mountFlags: [...flags] } },
  });
}

/** What ControllerPublishVolume would have answered. */
export function publishContext(volumeId: string, further: Record<string, string> = {}) {
  return {
    uri: `nvmf+tcp://127.0.0.1:8420/${nqnOf(volumeId)}`,
    nqn: nqnOf(volumeId),
    hostNqn: nodeHostNqn("node-a"),
    paths: "127.0.0.1:8420",
    ...further,
  };
}

/** The calls of one kubelet. */
export function kubelet(node: NodeHandlers, signal: AbortSignal = new AbortController().signal) {
  const call = (method: string) => ({ method, signal });
  return {
    stage: (
      volumeId: string,
      stagingTargetPath: string,
      use: WantedUse,
      further: Record<string, string> = {},
    ) =>
      node.nodeStageVolume(
        create(NodeStageVolumeRequestSchema, {
          volumeId,
          stagingTargetPath,
          volumeCapability: capabilityOf(use),
          publishContext: publishContext(volumeId, further),
        }),
        call("NodeStageVolume"),
      ),
    unstage: (volumeId: string, stagingTargetPath: string) =>
      node.nodeUnstageVolume(
        create(NodeUnstageVolumeRequestSchema, { volumeId, stagingTargetPath }),
        call("NodeUnstageVolume"),
      ),
    publish: (
      volumeId: string,
      stagingTargetPath: string,
      targetPath: string,
      use: WantedUse,
      readonly = false,
    ) =>
      node.nodePublishVolume(
        create(NodePublishVolumeRequestSchema, {
          volumeId,
          stagingTargetPath,
          targetPath,
          readonly,
          volumeCapability: capabilityOf(use),
          publishContext: publishContext(volumeId),
        }),
        call("NodePublishVolume"),
      ),
    unpublish: (volumeId: string, targetPath: string) =>
      node.nodeUnpublishVolume(
        create(NodeUnpublishVolumeRequestSchema, { volumeId, targetPath }),
        call("NodeUnpublishVolume"),
      ),
    stats: (volumeId: string, volumePath: string) =>
      node.nodeGetVolumeStats(
        create(NodeGetVolumeStatsRequestSchema, { volumeId, volumePath }),
        call("NodeGetVolumeStats"),
      ),
    expand: (volumeId: string, volumePath: string, requiredBytes: number) =>
      node.nodeExpandVolume(
        create(NodeExpandVolumeRequestSchema, {
          volumeId,
          volumePath,
          capacityRange: { requiredBytes: BigInt(requiredBytes) },
        }),
        call("NodeExpandVolume"),
      ),
  };
}
