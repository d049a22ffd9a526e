/** Who uses a block device: mounts (of any mount namespace), devices stacked on it, swap, open files. */
import { closeSync, constants, openSync, readdirSync, readFileSync, statSync } from "node:fs";
import { findHolders, holdersText } from "./holders.ts";
import { USERS_NAMED } from "./limits.ts";
import { type Mount, parseMountinfo } from "./mountinfo.ts";

/** A disk and its partitions, as the kernel numbers and names them. */
export interface DeviceNames {
  /** `259:1`. */
  readonly devs: ReadonlySet<string>;
  /** `/dev/nvme0n1`. */
  readonly paths: ReadonlySet<string>;
}

/** Where a device is mounted, of the mounts that this process sees. */
export function mountsOf(mounts: readonly Mount[], names: DeviceNames): string[] {
  // File systems of several devices have a number of their own: the source names one of theirs.
  return mounts
    .filter(({ device, source }) => names.devs.has(device) || names.paths.has(source))
    .map(({ path }) => path);
}

/** Devices of `/proc/swaps` that are the one named. */
export function swapsIn(swaps: string, names: DeviceNames): string[] {
  return swaps
    .split("\n")
    .map((line) => line.split(/\s+/, 1)[0]!)
    .filter((path) => names.paths.has(path));
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function namesIn(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

/** Names and numbers of a disk (`nvme0n1`) and of its partitions. */
export function namesOfDisk(disk: string): DeviceNames {
  const folder = `/sys/class/block/${disk}`;
  const partitions = namesIn(folder).filter((name) => name.startsWith(`${disk}p`));
  const all = [disk, ...partitions];
  const devs = all.map((name) => textOf(`/sys/class/block/${name}/dev`).trim());
  return {
    devs: new Set(devs.filter((dev) => dev !== "")),
    paths: new Set(all.map((name) => `/dev/${name}`)),
  };
}

function holdersOf(names: DeviceNames): string[] {
  return [...names.paths].flatMap((path) =>
    namesIn(`/sys/class/block/${path.slice("/dev/".length)}/holders`).map((holder) => {
      const mapped = textOf(`/sys/class/block/${holder}/dm/name`).trim();
      return `/dev/${mapped === "" ? holder : `mapper/${mapped}`} stands on it`;
    }),
  );
}

/** What uses a disk, in words; empty when nothing does. */
export async function usersOfDisk(disk: string): Promise<string[]> {
  const names = namesOfDisk(disk);
  const mounts = mountsOf(parseMountinfo(textOf("/proc/self/mountinfo")), names);
  const users = mounts.map((at) => `it is mounted at ${at}`);
  for (const dev of names.devs) {
    const holders = await findHolders({ mounted: dev, device: dev }, USERS_NAMED);
    if (holders.length > 0) users.push(holdersText(holders));
  }
  users.push(...holdersOf(names));
  users.push(...swapsIn(textOf("/proc/swaps"), names).map((path) => `${path} is swapped to`));
  return users.length === 0 && isClaimed(disk) ? ["the kernel has it in use"] : users;
}

/** Mounted, stacked upon or swapped to, by whomever: the kernel lets nobody else have it for himself. */
function isClaimed(disk: string): boolean {
  try {
    closeSync(openSync(`/dev/${disk}`, constants.O_RDONLY | constants.O_EXCL));
    return false;
  } catch (error) {
    return (error as { code?: unknown }).code === "EBUSY";
  }
}

/** The block device's file, once it is there. */
export function deviceFile(disk: string): string | null {
  const path = `/dev/${disk}`;
  return statSync(path, { throwIfNoEntry: false })?.isBlockDevice() === true ? path : null;
}
