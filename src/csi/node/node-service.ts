/**
 * The Node service of CSI: what a kubelet asks for on its own machine. Owns what is mounted and staged
 * for volumes here; connections are the host agent's. Reaches the cluster through the agent and the
 * publish context alone.
 *
 * Calls of one volume do not overlap (`ABORTED`). A call whose caller gives up ends at the next point
 * where nothing is half done; repeating it goes on from there. What the answers are: CSI 1.12, "Node
 * Service RPC"; the codes are those of `errors.ts`.
 */
import { TrilithError } from "../../errors.ts";
import type { ConnectOptions } from "../../host/host.ts";
import {
  NodeServiceCapability_RPC_Type as Capability,
  VolumeUsage_Unit as Unit,
} from "../generated/csi_pb.js";
import type { NodeHandlers, NodeServiceOptions } from "../handlers.ts";
import { publishedVolumeOf } from "../publish-context.ts";
import { type RunCommand, runCommand } from "./command.ts";
import { expandVolume } from "./expand.ts";
import { publishVolume, unpublishVolume } from "./publish.ts";
import { RECORDS_DIR_DEFAULT, stageRecords } from "./records.ts";
import { pathOf, type Use, useOf, uuidOf, volumeIdOf, volumePathOf } from "./requests.ts";
import { type NodeParts, stageVolume, unstageVolume } from "./stage.ts";
import { type VolumeStatistics, volumeStatistics } from "./statistics.ts";
import { volumeTurns } from "./volume-turns.ts";

export interface NodeSettings {
  /** Volumes that Kubernetes may attach to this node; 0: as many as it likes. */
  readonly maxVolumes?: number;
  /** Folder of what is remembered until the next reboot. */
  readonly recordsDir?: string;
  readonly run?: RunCommand;
}

/**
 * How volumes are connected whose class does not say: a lost path is tried for 33 minutes (mayastor.md 3.3),
 * every two seconds, and silence is a loss after five.
 */
const connectDefaults: ConnectOptions = {
  ctrlLossTmoSeconds: 1980,
  reconnectDelaySeconds: 2,
  keepAliveTmoSeconds: 5,
};

const capabilities: readonly Capability[] = [
  Capability.STAGE_UNSTAGE_VOLUME,
  Capability.GET_VOLUME_STATS,
  Capability.EXPAND_VOLUME,
  Capability.VOLUME_CONDITION,
  Capability.SINGLE_NODE_MULTI_WRITER,
];

/** The UUID of a volume that has to exist. */
function existing(id: string): string {
  const uuid = uuidOf(volumeIdOf(id));
  if (uuid !== null) return uuid;
  throw new TrilithError(
    "NotFound",
    `there is no volume "${id}"`,
    "volume handles of this driver are UUIDs",
  );
}

/** Words of the class's `formatOptions`, which go to mkfs as they are. */
function formatOptionsOf(context: Readonly<Record<string, string>>): string[] {
  return (context.formatOptions ?? "").split(/\s+/).filter((word) => word !== "");
}

function refuseSecondPublication(parts: NodeParts, uuid: string, target: string, use: Use): void {
  if (!use.singlePublication) return;
  const others = parts.records.read(uuid)?.publications ?? [];
  const other = others.find(({ targetPath }) => targetPath !== target);
  if (other === undefined) return;
  throw new TrilithError(
    "FailedPrecondition",
    `volume ${uuid} is for one pod at a time, and is published at ${other.targetPath}`,
    "end the other pod first, or use ReadWriteOnce",
  );
}

function usagesOf({ bytes, inodes }: VolumeStatistics) {
  return [
    ...(bytes === null ? [] : [{ unit: Unit.BYTES, ...bytes }]),
    ...(inodes === null ? [] : [{ unit: Unit.INODES, ...inodes }]),
  ];
}

/** Makes the Node service. */
export function nodeService(
  options: NodeServiceOptions,
  settings: NodeSettings = {},
): NodeHandlers {
  const { agent, log, nodeName, topology } = options;
  const parts: NodeParts = {
    agent,
    log,
    run: settings.run ?? runCommand,
    records: stageRecords(settings.recordsDir ?? RECORDS_DIR_DEFAULT),
  };
  const turns = volumeTurns();
  return {
    async nodeStageVolume(request, { method, signal }) {
      volumeIdOf(request.volumeId);
      const stagingPath = pathOf("staging_target_path", request.stagingTargetPath);
      const { access, readOnly } = useOf(request.volumeCapability);
      const uuid = existing(request.volumeId);
      const { connect: asked, fsId } = publishedVolumeOf(uuid, request.publishContext);
      const connect = { ...asked, options: { ...connectDefaults, ...asked.options } };
      const formatOptions = formatOptionsOf({
        ...request.volumeContext,
        ...request.publishContext,
      });
      const stage = { connect, stagingPath, access, readOnly, formatOptions };
      await turns.take(uuid, method, () =>
        stageVolume(parts, { ...stage, fsId: fsId ?? undefined }, signal),
      );
      return {};
    },
    async nodeUnstageVolume(request, { method }) {
      const uuid = uuidOf(volumeIdOf(request.volumeId));
      const stagingPath = pathOf("staging_target_path", request.stagingTargetPath);
      // What cannot be one of ours is not staged.
      if (uuid === null) return {};
      await turns.take(uuid, method, () => unstageVolume(parts, uuid, stagingPath));
      return {};
    },
    async nodePublishVolume(request, { method }) {
      volumeIdOf(request.volumeId);
      const targetPath = pathOf("target_path", request.targetPath);
      const use = useOf(request.volumeCapability);
      if (request.stagingTargetPath === "") {
        throw new TrilithError(
          "FailedPrecondition",
          "staging_target_path is missing",
          "this driver stages volumes: NodeStageVolume comes first",
        );
      }
      const stagingPath = pathOf("staging_target_path", request.stagingTargetPath);
      const uuid = existing(request.volumeId);
      const readOnly = request.readonly || use.readOnly;
      await turns.take(uuid, method, async () => {
        refuseSecondPublication(parts, uuid, targetPath, use);
        const { access } = use;
        await publishVolume(parts, { volumeUuid: uuid, stagingPath, targetPath, access, readOnly });
      });
      return {};
    },
    async nodeUnpublishVolume(request, { method }) {
      const id = volumeIdOf(request.volumeId);
      const targetPath = pathOf("target_path", request.targetPath);
      // A mount is taken away whatever the volume is called: the path is the kubelet's to give.
      const uuid = uuidOf(id) ?? id;
      await turns.take(uuid, method, () => unpublishVolume(parts, uuidOf(id), targetPath));
      return {};
    },
    async nodeGetVolumeStats(request) {
      volumeIdOf(request.volumeId);
      const volumePath = volumePathOf(request.volumePath);
      const uuid = existing(request.volumeId);
      const statistics = await volumeStatistics(parts, uuid, volumePath);
      const { problem } = statistics;
      return {
        usage: usagesOf(statistics),
        volumeCondition: {
          abnormal: problem !== "",
          message: problem === "" ? "all is well" : problem,
        },
      };
    },
    async nodeExpandVolume(request, { method, signal }) {
      volumeIdOf(request.volumeId);
      const volumePath = volumePathOf(request.volumePath);
      const uuid = existing(request.volumeId);
      const { requiredBytes = 0n, limitBytes = 0n } = request.capacityRange ?? {};
      const bytes = await turns.take(uuid, method, () =>
        expandVolume(
          parts,
          {
            volumeUuid: uuid,
            volumePath,
            requiredBytes: Number(requiredBytes),
            limitBytes: Number(limitBytes),
          },
          signal,
        ),
      );
      return { capacityBytes: BigInt(bytes) };
    },
    nodeGetCapabilities: async () => ({
      capabilities: capabilities.map((type) => ({
        type: { case: "rpc", value: { type } } as const,
      })),
    }),
    nodeGetInfo: async () => ({
      nodeId: nodeName,
      maxVolumesPerNode: BigInt(settings.maxVolumes ?? 0),
      accessibleTopology: { segments: { ...topology } },
    }),
  };
}
