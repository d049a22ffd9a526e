/** What CSI's messages of the Node service ask for, checked. `InvalidArgument` names the field. */
import { isAbsolute, normalize } from "node:path";
import { TrilithError } from "../../errors.ts";
import {
  VolumeCapability_AccessMode_Mode as Mode,
  type VolumeCapability,
} from "../generated/csi_pb.js";
import { fileSystemOf } from "./file-systems.ts";
import type { Access } from "./records.ts";

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
/** Longest list of mount flags, which is a page of the kernel's (mount(2)). */
const FLAGS_CHARS_MAX = 4_000;

export function invalid(field: string, what: string, remedy: string): TrilithError {
  return new TrilithError("InvalidArgument", `${field} ${what}`, remedy);
}

/** A volume's id as it is asked for; it need not be one of ours. */
export function volumeIdOf(id: string): string {
  if (id === "") throw invalid("volume_id", "is missing", "name the volume");
  return id;
}

/** The UUID that a volume's id is; null for one that no volume of ours can have. */
export function uuidOf(id: string): string | null {
  return UUID.test(id) ? id.toLowerCase() : null;
}

/** An absolute path without its own detours. */
export function pathOf(field: string, path: string): string {
  if (path === "") throw invalid(field, "is missing", "name a path on the node");
  if (!isAbsolute(path) || path.includes("\0")) {
    throw invalid(field, `is "${path}", which is not an absolute path`, "name one from / on");
  }
  const plain = normalize(path);
  return plain.length > 1 ? plain.replace(/\/+$/, "") : plain;
}

/** A path at which a volume is said to be; one that is no path of a node is one where nothing is. */
export function volumePathOf(path: string): string {
  if (path === "" || isAbsolute(path)) return pathOf("volume_path", path);
  throw new TrilithError(
    "NotFound",
    `no volume is at "${path}", which is not an absolute path`,
    "name the path that the volume was staged or published at",
  );
}

function checkFlags(flags: readonly string[]): string[] {
  const words = flags.flatMap((flag) => flag.split(",")).filter((flag) => flag !== "");
  const wrong = words.find((flag) => /[\s\0]/.test(flag) || flag.startsWith("-"));
  if (wrong !== undefined || words.join().length > FLAGS_CHARS_MAX) {
    throw invalid(
      "mount_flags",
      wrong === undefined ? "are too long" : `hold "${wrong}"`,
      "look at mountOptions of the StorageClass or PersistentVolume",
    );
  }
  return words;
}

/** How a volume is to be used on this node. */
export interface Use {
  readonly access: Access;
  /** Nothing is written from here: the access mode is one of readers. */
  readonly readOnly: boolean;
  /** Only one pod at a time may use it (ReadWriteOncePod). */
  readonly singlePublication: boolean;
}

const readers: ReadonlySet<Mode> = new Set([
  Mode.SINGLE_NODE_READER_ONLY,
  Mode.MULTI_NODE_READER_ONLY,
]);
const severalWriters: ReadonlySet<Mode> = new Set([
  Mode.MULTI_NODE_SINGLE_WRITER,
  Mode.MULTI_NODE_MULTI_WRITER,
]);

/** What a capability asks for. */
export function useOf(capability: VolumeCapability | undefined): Use {
  const type = capability?.accessType;
  if (capability === undefined || type === undefined || type.case === undefined) {
    throw invalid("volume_capability", "is missing", "say how the volume is to be used");
  }
  const mode = capability.accessMode?.mode ?? Mode.UNKNOWN;
  if (mode === Mode.UNKNOWN) {
    throw invalid("volume_capability.access_mode", "is missing", "say who uses the volume");
  }
  const readOnly = readers.has(mode);
  const singlePublication = mode === Mode.SINGLE_NODE_SINGLE_WRITER;
  if (type.case === "block") return { access: { kind: "block" }, readOnly, singlePublication };
  if (severalWriters.has(mode)) {
    throw invalid(
      "volume_capability",
      "asks for a file system that is written from several nodes, which would destroy it",
      "use ReadWriteOnce, or a raw block volume",
    );
  }
  const fsType = fileSystemOf(type.value.fsType).type;
  const flags = checkFlags(type.value.mountFlags);
  return { access: { kind: "mount", fsType, flags }, readOnly, singlePublication };
}
