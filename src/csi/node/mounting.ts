/** Mounts and unmounts, with errors that say who is in the way and what the kernel lacks. */
import { mkdir, rm, rmdir, stat, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { TrilithError } from "../../errors.ts";
import { findHolders, type Held, holdersText } from "../../host/holders.ts";
import { type Mount, mountsAt } from "../../host/mountinfo.ts";
import { type CommandResult, commandFailed, type RunCommand } from "./command.ts";
import { HOLDERS_NAMED_MAX, MOUNT_LIMIT_MS, SYNC_LIMIT_MS, UNMOUNT_LIMIT_MS } from "./limits.ts";
import { isDeviceGone, readMounts } from "./system.ts";

/** umount's status when the kernel refused (umount(8)). */
const BUSY = /target is busy|device is busy/;

function mountFailed(
  command: readonly string[],
  result: CommandResult,
  fsType: string,
  remedy: string,
): TrilithError {
  if (/unknown filesystem type/.test(result.said)) {
    return new TrilithError(
      "FailedPrecondition",
      `the kernel of this node cannot mount ${fsType}: ${result.said}`,
      `load its module (modprobe ${fsType}; Debian's cloud kernels have it in linux-image-amd64), or use another fsType`,
    );
  }
  if (/bad option|bad usage|unknown mount option/.test(result.said) && !/superblock/.test(remedy)) {
    const error = commandFailed(command, result, `look at mountOptions of the class; ${remedy}`);
    return new TrilithError("FailedPrecondition", error.message, error.remedy);
  }
  return commandFailed(command, result, remedy);
}

/** Mounts a file system. The mount is made whole or not at all; a caller who gives up is told after. */
export async function mountDevice(
  run: RunCommand,
  mount: {
    readonly device: string;
    readonly path: string;
    readonly fsType: string;
    readonly options: readonly string[];
    readonly remedy: string;
  },
): Promise<void> {
  const { device, path, fsType, options, remedy } = mount;
  const flags = options.length === 0 ? [] : ["-o", options.join(",")];
  const command = ["mount", "-t", fsType, ...flags, device, path];
  const result = await run(command, { limitMs: MOUNT_LIMIT_MS, completes: true });
  if (result.status !== 0) throw mountFailed(command, result, fsType, remedy);
}

/** Makes what is at `source` appear at `target`, which exists. */
export async function bindMount(run: RunCommand, source: string, target: string): Promise<void> {
  const command = ["mount", "--bind", source, target];
  const result = await run(command, { limitMs: MOUNT_LIMIT_MS, completes: true });
  if (result.status !== 0) {
    throw commandFailed(command, result, "look at the kernel's log and at both paths on the node");
  }
}

/** Has nothing be written through the mount at `path`, others of the file system aside. */
export async function makeReadOnly(run: RunCommand, path: string): Promise<void> {
  const command = ["mount", "-o", "remount,bind,ro", path];
  const result = await run(command, { limitMs: MOUNT_LIMIT_MS, completes: true });
  if (result.status !== 0) throw commandFailed(command, result, "look at the kernel's log");
}

/** The error for something that is in use, naming who uses it. */
export async function busyError(what: string, held: Held): Promise<TrilithError> {
  const holders = holdersText(await findHolders(held, HOLDERS_NAMED_MAX));
  return new TrilithError(
    "InUse",
    `${what} is busy${holders === "" ? "" : `: ${holders}`}`,
    holders === ""
      ? "the kernel itself may hold it (a loop device, swap, an NFS export): look at losetup -a, swapon and exportfs"
      : "end these processes, or wait for their end; nothing is lost meanwhile",
  );
}

/** Writes out what is in memory of the file system at `path`, and says when that failed. */
async function writeOut(run: RunCommand, path: string): Promise<void> {
  const command = ["sync", "-f", path];
  const result = await run(command, { limitMs: SYNC_LIMIT_MS, completes: true });
  if (result.status === 0) return;
  throw new TrilithError(
    "DeviceIo",
    `${path}: not everything that was written to it reached the volume: ${result.said}`,
    "the application must not count on its last writes; once this was said it is unmounted when it is asked for again",
  );
}

/**
 * Takes away every mount at exactly `path`, the uppermost first. What is in memory is written out
 * before, and a failure of that is an error before anything is unmounted. Never lazily: `InUse` says who
 * is in the way. Nothing mounted there is no error.
 */
export async function unmountAll(
  run: RunCommand,
  path: string,
  options: { readonly writesOut: boolean },
): Promise<void> {
  for (;;) {
    const [top] = mountsAt(await readMounts(), path);
    if (top === undefined) return;
    if (options.writesOut && !(await isDeviceGone(top))) await writeOut(run, path);
    await unmountTop(run, top);
  }
}

async function unmountTop(run: RunCommand, mount: Mount): Promise<void> {
  const command = ["umount", mount.path];
  const result = await run(command, { limitMs: UNMOUNT_LIMIT_MS, completes: true });
  if (result.status === 0) return;
  // Somebody else may have done it meanwhile.
  if (!(await readMounts()).some(({ id }) => id === mount.id)) return;
  if (BUSY.test(result.said)) throw await busyError(mount.path, { mountId: mount.id });
  throw commandFailed(command, result, "look at the kernel's log");
}

/** What is at a path; null when nothing is. A folder of a dead file system counts as a folder. */
export async function kindOfPath(path: string): Promise<"folder" | "file" | "device" | null> {
  try {
    const found = await stat(path);
    if (found.isDirectory()) return "folder";
    return found.isBlockDevice() ? "device" : "file";
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return null;
    if (code === "EIO" || code === "ESTALE") return "folder";
    throw error;
  }
}

/** Makes the place that a volume is to appear at: a folder, or an empty file for a raw block device. */
export async function makeTarget(path: string, kind: "folder" | "file"): Promise<void> {
  const there = await kindOfPath(path);
  if (there !== null && (there === "folder") !== (kind === "folder")) {
    throw new TrilithError(
      "Conflict",
      `${path} is a ${there}, and a ${kind} is needed there`,
      "remove it on the node when it is left over from an earlier use",
    );
  }
  if (kind === "folder") {
    await mkdir(path, { recursive: true, mode: 0o750 });
    return;
  }
  await mkdir(dirname(path), { recursive: true, mode: 0o750 });
  await writeFile(path, "", { flag: "a", mode: 0o660 });
}

/** Removes the place of a volume that is no longer there: an empty folder or file, nothing else. */
export async function removeTarget(path: string): Promise<void> {
  const there = await kindOfPath(path);
  if (there === null) return;
  if (there === "folder") {
    try {
      await rmdir(path);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "ENOENT") return;
      if (code !== "ENOTEMPTY" && code !== "EEXIST") throw error;
      throw new TrilithError(
        "FailedPrecondition",
        `${path} holds files that are not on the volume, and is not removed`,
        "look at them on the node, move them where they belong, and remove the folder",
      );
    }
    return;
  }
  const { size } = await stat(path);
  if (there === "file" && size > 0) {
    throw new TrilithError(
      "FailedPrecondition",
      `${path} is a file of ${size} bytes that is not the volume, and is not removed`,
      "look at it on the node and remove it when it is not needed",
    );
  }
  await rm(path, { force: true });
}
