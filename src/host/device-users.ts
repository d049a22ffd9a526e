/** Who uses a block device: mounts (of any mount namespace), devices stacked on it, swap, open files. */
import {
  closeSync,
  constants,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
} from "node:fs";
import { USERS_NAMED } from "./limits.ts";

/** A disk and its partitions, as the kernel numbers and names them. */
export interface DeviceNames {
  /** `259:1`. */
  readonly devs: ReadonlySet<string>;
  /** `/dev/nvme0n1`. */
  readonly paths: ReadonlySet<string>;
}

/** A path as mountinfo writes it: space, tab, newline and backslash in octal. */
function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}

/** Where a device is mounted, by a text of `/proc/<pid>/mountinfo` (proc(5)). */
export function mountsIn(mountinfo: string, names: DeviceNames): string[] {
  const found: string[] = [];
  for (const line of mountinfo.split("\n")) {
    const [before, after] = line.split(" - ");
    const fields = before!.split(" ");
    const source = after?.split(" ")[1] ?? "";
    // File systems of several devices have a number of their own: the source names one of theirs.
    const isOurs = names.devs.has(fields[2] ?? "") || names.paths.has(unescaped(source));
    if (isOurs && fields[4] !== undefined) found.push(unescaped(fields[4]));
  }
  return found;
}

/** Devices of `/proc/swaps` that are the one named. */
export function swapsIn(swaps: string, names: DeviceNames): string[] {
  return swaps
    .split("\n")
    .map((line) => unescaped(line.split(/\s+/, 1)[0]!))
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

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
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

/** Mounts that any process sees, each once; and processes that have the device itself open. */
function processUsers(names: DeviceNames): string[] {
  const mounts = new Set<string>();
  const openers: string[] = [];
  const seenNamespaces = new Set<string>();
  for (const pid of namesIn("/proc").filter((name) => /^\d+$/.test(name))) {
    const namespace = linkOf(`/proc/${pid}/ns/mnt`);
    if (namespace !== "" && !seenNamespaces.has(namespace)) {
      seenNamespaces.add(namespace);
      for (const at of mountsIn(textOf(`/proc/${pid}/mountinfo`), names)) mounts.add(at);
    }
    const isOpen = namesIn(`/proc/${pid}/fd`).some((fd) =>
      names.paths.has(linkOf(`/proc/${pid}/fd/${fd}`)),
    );
    if (isOpen && Number(pid) !== process.pid) {
      openers.push(`process ${pid} (${textOf(`/proc/${pid}/comm`).trim()}) has it open`);
    }
  }
  return [...[...mounts].map((at) => `it is mounted at ${at}`), ...openers];
}

/** What uses a disk, in words; empty when nothing does. */
export function usersOfDisk(disk: string): string[] {
  const names = namesOfDisk(disk);
  const swaps = swapsIn(textOf("/proc/swaps"), names).map((path) => `${path} is swapped to`);
  const users = [...processUsers(names), ...holdersOf(names), ...swaps];
  if (users.length > USERS_NAMED) {
    return [...users.slice(0, USERS_NAMED), `${users.length - USERS_NAMED} more`];
  }
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
