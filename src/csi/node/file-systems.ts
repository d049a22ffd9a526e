/**
 * The file systems a volume may have, and what differs between them: how one is made, looked after
 * before a mount, given another UUID, mounted, and grown. What is common to all is in `format.ts`.
 */
import { TrilithError } from "../../errors.ts";

export interface FileSystem {
  readonly type: string;
  /** Least size of a device, in bytes; mkfs says less clearly that it is too small. */
  readonly bytesMin: number;
  /** Nothing is discarded: a blank device has nothing to give back. `force` overwrites what is there. */
  mkfs(device: string, options: MkfsOptions): readonly string[];
  /** What is run before every writable mount, or null: the kernel repairs what can be repaired itself. */
  readonly check: ((device: string) => readonly string[]) | null;
  /** The check's highest exit status with which the file system may be mounted. */
  readonly checkedStatusMax: number;
  /** What to do by hand with one that cannot be mounted. */
  readonly repairHint: (device: string) => string;
  /** Gives an unmounted file system another UUID; `mountsFirst` when its log has to be empty for that. */
  changeUuid(device: string, uuid: string): readonly (readonly string[])[];
  readonly mountsFirst: boolean;
  /** Options of every mount, unless `given` says otherwise. */
  mountOptions(given: readonly string[]): readonly string[];
  /** Options of a mount by which not even a journal is written: others read at the same time. */
  readonly untouched: readonly string[];
  /** Grows a mounted file system to its device's size; does nothing when it has it. */
  grow(device: string, mountPath: string): readonly string[];
}

export interface MkfsOptions {
  readonly uuid?: string | undefined;
  readonly force: boolean;
  readonly further: readonly string[];
}

const MIB = 1 << 20;

const ext4: FileSystem = {
  type: "ext4",
  bytesMin: MIB,
  mkfs: (device, { uuid, force, further }) => [
    "mkfs.ext4",
    "-q",
    ...(force ? ["-F"] : []),
    // Blocks kept back for root are of no use on a volume of one application.
    ...["-m", "0", "-E", "nodiscard"],
    ...(uuid === undefined ? [] : ["-U", uuid]),
    ...further,
    device,
  ],
  check: (device) => ["e2fsck", "-p", device],
  // 1: errors were corrected; 2 asks for a reboot, which is about a root file system (e2fsck(8)).
  checkedStatusMax: 3,
  repairHint: (device) => `run \`e2fsck -f ${device}\` on the node and answer its questions`,
  changeUuid: (device, uuid) => [
    // tune2fs wants a file system that was checked since its last mount.
    ["e2fsck", "-f", "-y", device],
    ["tune2fs", "-U", uuid, device],
  ],
  mountsFirst: false,
  mountOptions: (given) =>
    // mke2fs's own default is to go on writing after an error.
    given.some((option) => option.startsWith("errors=")) ? [] : ["errors=remount-ro"],
  untouched: ["noload"],
  grow: (device) => ["resize2fs", device],
};

const xfs: FileSystem = {
  type: "xfs",
  bytesMin: 300 * MIB,
  mkfs: (device, { uuid, force, further }) => [
    "mkfs.xfs",
    "-q",
    "-K",
    ...(force ? ["-f"] : []),
    ...(uuid === undefined ? [] : ["-m", `uuid=${uuid}`]),
    ...further,
    device,
  ],
  // xfs replays its log at mount, and fsck.xfs does nothing.
  check: null,
  checkedStatusMax: 0,
  repairHint: (device) =>
    `run \`xfs_repair -n ${device}\` on the node to see what is wrong, then \`xfs_repair ${device}\``,
  // What xfs_admin -U runs, which is a script and would need a shell.
  changeUuid: (device, uuid) => [["xfs_db", "-x", "-c", `uuid ${uuid}`, device]],
  mountsFirst: true,
  // A clone has the UUID of what it was cloned from, and both may be on one node.
  mountOptions: (given) => (given.includes("nouuid") ? [] : ["nouuid"]),
  untouched: ["norecovery"],
  grow: (_device, mountPath) => ["xfs_growfs", mountPath],
};

const btrfs: FileSystem = {
  type: "btrfs",
  bytesMin: 109 * MIB,
  mkfs: (device, { uuid, force, further }) => [
    "mkfs.btrfs",
    "-q",
    "-K",
    ...(force ? ["-f"] : []),
    ...(uuid === undefined ? [] : ["-U", uuid]),
    ...further,
    device,
  ],
  check: null,
  checkedStatusMax: 0,
  repairHint: (device) =>
    `run \`btrfs check --readonly ${device}\` on the node to see what is wrong`,
  changeUuid: (device, uuid) => [["btrfstune", "-f", "-M", uuid, device]],
  mountsFirst: true,
  mountOptions: () => [],
  untouched: ["rescue=nologreplay"],
  grow: (_device, mountPath) => ["btrfs", "filesystem", "resize", "max", mountPath],
};

const fileSystems: ReadonlyMap<string, FileSystem> = new Map(
  [ext4, xfs, btrfs].map((fileSystem) => [fileSystem.type, fileSystem]),
);

/** What a volume gets whose class and claim name no file system. */
export const FS_TYPE_DEFAULT = "ext4";

/** The file system of this name; `InvalidArgument` lists the known ones. */
export function fileSystemOf(type: string): FileSystem {
  const name = type === "" ? FS_TYPE_DEFAULT : type;
  const found = fileSystems.get(name);
  if (found !== undefined) return found;
  throw new TrilithError(
    "InvalidArgument",
    `fsType "${type}" is not known`,
    `known are ${[...fileSystems.keys()].join(", ")}; set fsType in the StorageClass`,
  );
}

/** The file system that the kernel mounts under this name, if it is one of ours. */
export function knownFileSystem(type: string): FileSystem | undefined {
  return fileSystems.get(type);
}
