/** Which ways of using a volume there are: access modes, file systems, raw block devices. Pure. */
import { TrilithError } from "../../errors.ts";
import {
  VolumeCapability_AccessMode_Mode as Mode,
  type VolumeCapability,
} from "../generated/csi_pb.js";

/** One node at a time writes. */
const singleNode: ReadonlySet<Mode> = new Set([
  Mode.SINGLE_NODE_WRITER,
  Mode.SINGLE_NODE_READER_ONLY,
  Mode.SINGLE_NODE_SINGLE_WRITER,
  Mode.SINGLE_NODE_MULTI_WRITER,
]);

/** File systems that volumes are formatted with; empty: the driver's own choice. */
const fileSystems: ReadonlySet<string> = new Set(["", "ext4", "xfs", "btrfs"]);

type Capability = Pick<VolumeCapability, "accessType" | "accessMode">;

/** Several nodes may have the volume at once, and none of them writes. */
export function isForSeveralNodes({ accessMode }: Capability): boolean {
  return accessMode?.mode === Mode.MULTI_NODE_READER_ONLY;
}

export function isBlock({ accessType }: Capability): boolean {
  return accessType.case === "block";
}

/** Why a volume cannot be used so; null: it can. */
export function whyUnsupported(capability: Capability): string | null {
  const { accessType, accessMode } = capability;
  if (accessType.case === undefined) return "the access type (mount or block) is missing";
  if (accessMode === undefined) return "the access mode is missing";
  if (accessType.case === "mount" && !fileSystems.has(accessType.value.fsType)) {
    return `the file system ${accessType.value.fsType} is not one of ext4, xfs, btrfs`;
  }
  if (singleNode.has(accessMode.mode)) return null;
  const mode = Mode[accessMode.mode] ?? String(accessMode.mode);
  if (accessMode.mode !== Mode.MULTI_NODE_READER_ONLY) {
    return `the access mode ${mode} is not offered: one node writes at a time (ReadWriteOnce)`;
  }
  return accessType.case === "block"
    ? `the access mode ${mode} is offered for file systems only: a raw device could be written to`
    : null;
}

/** Throws `InvalidArgument` unless there are capabilities, each of which can be had. */
export function checkCapabilities(capabilities: readonly Capability[]): void {
  if (capabilities.length === 0) {
    throw new TrilithError("InvalidArgument", "the request has no volume capabilities");
  }
  for (const capability of capabilities) {
    const why = whyUnsupported(capability);
    if (why !== null) throw new TrilithError("InvalidArgument", why);
  }
}
