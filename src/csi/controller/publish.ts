/**
 * ControllerPublishVolume and its end. Both are level-triggered: they make a publication to one node be,
 * or not be. What is published to another node meanwhile is never touched: the cluster itself compares.
 */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { targetAddress } from "../../client/target-address.ts";
import type { Node, PublishVolumeBody, Volume, VolumePath } from "../../client/types.ts";
import { TrilithError } from "../../errors.ts";
import type { VolumePath as HostPath } from "../../host/host.ts";
import { endpointText, hostNqnOf, nqnOf, SEVERAL_HOSTS } from "../../names.ts";
import type {
  ControllerPublishVolumeRequest,
  ControllerPublishVolumeResponseSchema,
  ControllerUnpublishVolumeRequest,
} from "../generated/csi_pb.js";
import type { Call } from "../grpc/service.ts";
import { connectOptionsOf, publishContextOf } from "../publish-context.ts";
import { checkCapabilities, isForSeveralNodes } from "./capabilities.ts";
import { isId, noSuch, requiredId } from "./ids.ts";
import { type ControllerParts, doneOr, orNull } from "./parts.ts";

/** It can serve a volume: then the target is best where the application is. */
function canServe(node: Node | null): boolean {
  const cordons = node?.spec?.cordondrainstate;
  const isCordoned =
    cordons?.cordonedstate != null ||
    cordons?.drainingstate != null ||
    cordons?.drainedstate != null;
  return node?.state?.status === "Online" && !isCordoned;
}

/** Nodes that hold a replica of the volume. */
function holders(volume: Volume): (string | null | undefined)[] {
  return Object.values(volume.state.replica_topology).map(({ node }) => node);
}

/**
 * The node that is to serve a volume that is used from a node: that one, when it is a storage node that
 * can; of a single replica its own, which the cluster finds by itself. Undefined: the cluster chooses.
 */
function targetFor(volume: Volume, nodeId: string, node: Node | null): string | undefined {
  if (!canServe(node)) return undefined;
  return volume.spec.num_replicas > 1 || holders(volume).includes(nodeId) ? nodeId : undefined;
}

function bodyFor(
  request: ControllerPublishVolumeRequest,
  target: string | undefined,
): PublishVolumeBody {
  const isForSeveral =
    request.volumeCapability !== undefined && isForSeveralNodes(request.volumeCapability);
  return {
    publish_context: isForSeveral ? { [SEVERAL_HOSTS]: "true" } : {},
    protocol: "nvmf",
    frontend_node: request.nodeId,
    reuse_existing: true,
    ...(target === undefined ? {} : { node: target }),
  };
}

/** Publishes, or confirms that it is published to this node. */
async function publish(
  { client }: ControllerParts,
  request: ControllerPublishVolumeRequest,
  volume: Volume,
  node: Node | null,
): Promise<Volume> {
  const again = () => client.publishVolume(request.volumeId, bodyFor(request, undefined));
  const target = volume.spec.target == null ? targetFor(volume, request.nodeId, node) : undefined;
  if (target === undefined) return again();
  try {
    return await client.publishVolume(request.volumeId, bodyFor(request, target));
  } catch (error) {
    // The node went away in this moment, or somebody else has published it to this host by now.
    const codes: readonly TrilithError["code"][] = ["FailedPrecondition", "AlreadyPublished"];
    if (!(error instanceof TrilithError) || !codes.includes(error.code)) throw error;
    return again();
  }
}

/** All ways to the volume, that of its target first; of standbys those that are known already. */
function pathsOf(volume: Volume, listed: readonly VolumePath[]): HostPath[] {
  const target = volume.state.target?.deviceUri ?? "";
  const uris = [target, ...listed.map(({ uri }) => uri)].filter((uri) => uri !== "");
  const byEndpoint = new Map<string, HostPath>();
  for (const uri of uris) {
    const { address, port } = targetAddress(uri);
    byEndpoint.set(endpointText(address, port), { address, port: Number(port) });
  }
  return [...byEndpoint.values()];
}

/** A UUID that a clone's file system gets when the class asks for that (mayastor.md 3.1). */
function fsIdOf(volume: Volume, context: Readonly<Record<string, string>>): string | null {
  const isWanted = /^(true|yes|on)$/i.test(context.cloneFsIdAsVolumeId ?? "");
  return isWanted && volume.spec.content_source?.snapshot != null ? volume.spec.uuid : null;
}

function checkPublishRequest(request: ControllerPublishVolumeRequest): void {
  requiredId("volume id", request.volumeId);
  requiredId("node id", request.nodeId);
  if (request.volumeCapability === undefined) {
    throw new TrilithError("InvalidArgument", "the request has no volume capability");
  }
  checkCapabilities([request.volumeCapability]);
  if (request.readonly) {
    throw new TrilithError(
      "InvalidArgument",
      "a volume is not published read-only",
      'mount it read-only: "readOnly" of the pod\'s volume, or the access mode ReadOnlyMany',
    );
  }
  if (!isId(request.volumeId)) throw noSuch("volume", request.volumeId);
}

/**
 * Answers ControllerPublishVolume. Throws `InvalidArgument`, `NotFound` (the volume or the node),
 * `AlreadyPublished` (to another node), and what the API answers.
 */
export async function controllerPublish(
  parts: ControllerParts,
  request: ControllerPublishVolumeRequest,
  call: Call,
): Promise<MessageInitShape<typeof ControllerPublishVolumeResponseSchema>> {
  checkPublishRequest(request);
  const { volumeId, nodeId, volumeContext } = request;
  const { client, lanes } = parts;
  return lanes.run(volumeId, call.signal, async () => {
    const [volume, node, host] = await Promise.all([
      orNull(client.volume(volumeId)),
      orNull(client.node(nodeId)),
      orNull(client.appNode(nodeId)),
    ]);
    if (volume === null) throw noSuch("volume", volumeId);
    if (node === null && host === null) {
      throw new TrilithError(
        "NotFound",
        `there is no node "${nodeId}"`,
        "the driver's node service makes it known when it runs there: `trilith csi --node`",
      );
    }
    call.signal.throwIfAborted();
    const published = await publish(parts, request, volume, node);
    const paths = pathsOf(published, await client.paths(volumeId));
    const publishContext = publishContextOf({
      uri: published.state.target?.deviceUri ?? "",
      connect: {
        volumeUuid: volumeId,
        nqn: nqnOf(volumeId),
        hostNqn: hostNqnOf(nodeId),
        paths,
        options: connectOptionsOf(volumeContext),
      },
      fsId: fsIdOf(published, volumeContext),
      ioTimeout: volumeContext.ioTimeout ?? null,
    });
    return { publishContext };
  });
}

/**
 * Answers ControllerUnpublishVolume. It ends the publication to the node that is named, and no other's; what
 * is not published, or is not there, is as asked. The node that serves it may be away: the volume's next
 * epoch shuts it out.
 */
export async function controllerUnpublish(
  parts: ControllerParts,
  request: ControllerUnpublishVolumeRequest,
  call: Call,
): Promise<Record<string, never>> {
  const { volumeId, nodeId } = request;
  requiredId("volume id", volumeId);
  if (!isId(volumeId)) return {};
  const { client, lanes } = parts;
  const force = true;
  await lanes.run(volumeId, call.signal, () =>
    doneOr(
      ["NotFound", "NotPublished", "Deleting"],
      nodeId === ""
        ? client.unpublishVolume(volumeId, force)
        : client.unpublishVolume(volumeId, force, nodeId),
    ),
  );
  return {};
}
