/** What the controller tells of volumes, deletes and grows: everything but creation and publication. */
import type { Volume } from "../../client/types.ts";
import { TrilithError } from "../../errors.ts";
import type {
  ControllerExpandVolumeRequest,
  ControllerGetVolumeRequest,
  DeleteVolumeRequest,
  ListVolumesRequest,
  ValidateVolumeCapabilitiesRequest,
} from "../generated/csi_pb.js";
import type { Call } from "../grpc/service.ts";
import { isBlock, whyUnsupported } from "./capabilities.ts";
import { capacityRangeOf } from "./create-volume.ts";
import { isId, noSuch, requiredId } from "./ids.ts";
import { pageAfter } from "./paging.ts";
import {
  accessibleTopology,
  bytes,
  type ControllerParts,
  doneOr,
  orNull,
  publishedNodes,
  volumeCondition,
} from "./parts.ts";

/** Answers DeleteVolume: what is not there is deleted. Throws `FailedPrecondition` while it is published. */
export async function deleteVolume(
  { client, lanes }: ControllerParts,
  { volumeId }: DeleteVolumeRequest,
  call: Call,
): Promise<Record<string, never>> {
  requiredId("volume id", volumeId);
  if (!isId(volumeId)) return {};
  return lanes.run(volumeId, call.signal, async () => {
    const volume = await orNull(client.volume(volumeId));
    if (volume === null) return {};
    const nodes = publishedNodes(volume);
    if (volume.spec.target != null && volume.spec.status === "Created") {
      const to =
        nodes.length === 0 ? `on node ${volume.spec.target.node}` : `to ${nodes.join(", ")}`;
      throw new TrilithError(
        "FailedPrecondition",
        `volume ${volumeId} is still published ${to}`,
        "it can be deleted when it is detached from there",
      );
    }
    call.signal.throwIfAborted();
    await doneOr(["NotFound"], client.deleteVolume(volumeId));
    return {};
  });
}

async function required({ client }: ControllerParts, volumeId: string): Promise<Volume> {
  requiredId("volume id", volumeId);
  const volume = isId(volumeId) ? await orNull(client.volume(volumeId)) : null;
  if (volume === null || volume.spec.status === "Deleted") throw noSuch("volume", volumeId);
  return volume;
}

/** Answers ValidateVolumeCapabilities. Throws `InvalidArgument`, `NotFound`. */
export async function validateCapabilities(
  parts: ControllerParts,
  request: ValidateVolumeCapabilitiesRequest,
) {
  const { volumeId, volumeCapabilities, volumeContext, parameters } = request;
  requiredId("volume id", volumeId);
  if (volumeCapabilities.length === 0) {
    throw new TrilithError("InvalidArgument", "the request has no volume capabilities");
  }
  await required(parts, volumeId);
  const why = volumeCapabilities.map(whyUnsupported).find((text) => text !== null);
  if (why !== undefined) return { message: why ?? "" };
  return { confirmed: { volumeContext, volumeCapabilities, parameters } };
}

function entryOf(volume: Volume) {
  return {
    volume: {
      volumeId: volume.spec.uuid,
      capacityBytes: bytes(volume.spec.size),
      accessibleTopology,
    },
    status: {
      publishedNodeIds: publishedNodes(volume),
      volumeCondition: volumeCondition(volume),
    },
  };
}

/** Answers ListVolumes. Throws `Aborted` for a token that is none, as the specification says. */
export async function listVolumes({ client }: ControllerParts, request: ListVolumesRequest) {
  const { entries, nextToken } = await pageAfter(request, {
    page: (from, count) => client.volumesPage(from, count),
    idOf: ({ spec }: Volume) => spec.uuid,
  });
  return { entries: entries.map(entryOf), nextToken };
}

/** Answers ControllerGetVolume. Throws `NotFound`. */
export async function getVolume(parts: ControllerParts, { volumeId }: ControllerGetVolumeRequest) {
  return entryOf(await required(parts, volumeId));
}

/**
 * Answers ControllerExpandVolume: a volume that is large enough stays as it is. Throws `NotFound`,
 * `OutOfRange`, `ResourceExhausted`, `FailedPrecondition` (a replica is missing).
 */
export async function expandVolume(
  parts: ControllerParts,
  request: ControllerExpandVolumeRequest,
  call: Call,
) {
  const { volumeId, capacityRange, volumeCapability } = request;
  requiredId("volume id", volumeId);
  if (capacityRange === undefined) {
    throw new TrilithError("InvalidArgument", "the request has no capacity range");
  }
  const { requiredBytes, limitBytes } = capacityRangeOf(capacityRange);
  return parts.lanes.run(volumeId, call.signal, async () => {
    let volume = await required(parts, volumeId);
    if (limitBytes > 0 && volume.spec.size > limitBytes) {
      throw new TrilithError(
        "OutOfRange",
        `volume ${volumeId} has ${volume.spec.size} bytes, more than the limit of ${limitBytes}`,
        "volumes only grow",
      );
    }
    if (volume.spec.size < requiredBytes) {
      call.signal.throwIfAborted();
      volume = await parts.client.resizeVolume(volumeId, requiredBytes);
    }
    return {
      capacityBytes: bytes(volume.spec.size),
      nodeExpansionRequired: volumeCapability === undefined || !isBlock(volumeCapability),
    };
  });
}
