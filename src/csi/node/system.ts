/** What the node service sees of the machine: its mounts, its devices, its programs. */
import { constants } from "node:fs";
import { open, readFile, stat } from "node:fs/promises";
import { basename } from "node:path";
import { blockDeviceNumber } from "../../host/holders.ts";
import { type Mount, parseMountinfo } from "../../host/mountinfo.ts";
import { type CommandOptions, commandFailed, type RunCommand } from "./command.ts";

/** All mounts of this process's namespace, in the kernel's order. */
export async function readMounts(): Promise<Mount[]> {
  return parseMountinfo(await readFile("/proc/self/mountinfo", "utf8"));
}

/** True when a mount is of a file system on this block device. btrfs shows a number of its own. */
export async function isMountOf(mount: Mount, device: string): Promise<boolean> {
  const number = await blockDeviceNumber(device);
  if (number === null) return false;
  if (mount.device === number) return true;
  return mount.fsType === "btrfs" && (await blockDeviceNumber(mount.source)) === number;
}

/** Mounts of file systems on this block device. */
export async function mountsOf(mounts: readonly Mount[], device: string): Promise<Mount[]> {
  const isIts = await Promise.all(mounts.map((mount) => isMountOf(mount, device)));
  return mounts.filter((_, index) => isIts[index]);
}

/** Where a raw block device is published: its node is mounted there. */
export function bindsOf(mounts: readonly Mount[], device: string): Mount[] {
  const root = `/${basename(device)}`;
  return mounts.filter((mount) => mount.fsType === "devtmpfs" && mount.root === root);
}

/** True when the device below a mounted file system is no longer there. */
export async function isDeviceGone(mount: Mount): Promise<boolean> {
  if (mount.fsType === "btrfs") return (await blockDeviceNumber(mount.source)) === null;
  if (mount.device.startsWith("0:")) return false;
  return (await stat(`/sys/dev/block/${mount.device}`).catch(() => null)) === null;
}

/** True when nobody has the device mounted or claimed: the kernel gives it to us alone. */
export async function isDeviceFree(device: string): Promise<boolean> {
  try {
    const handle = await open(device, constants.O_RDONLY | constants.O_EXCL);
    await handle.close();
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EBUSY") return false;
    throw error;
  }
}

/** Runs a command that has to succeed; returns what it printed. */
export async function runOrFail(
  run: RunCommand,
  command: readonly string[],
  options: CommandOptions,
  remedy: string,
): Promise<string> {
  const result = await run(command, options);
  if (result.status !== 0) throw commandFailed(command, result, remedy);
  return result.stdout;
}
