/**
 * Who keeps a file system or a block device busy: which processes have files of it open, work in it or
 * run from it, and who has it mounted in a mount namespace of its own. Reads /proc and nothing else; in
 * particular no file of the file system in question is looked at, which might hang.
 */
import { readdir, readFile, readlink, stat } from "node:fs/promises";
import { type Mount, parseMountinfo } from "./mountinfo.ts";

export interface Holder {
  readonly pid: number;
  /** Name of the program. */
  readonly command: string;
  /** What it does with it: `has /data/log open`, `works in /data`, `has it mounted at /data`. */
  readonly what: string;
}

/** What is held: a mount, a file system, a block device. */
export interface Held {
  /** One mount by its id, whatever other mounts the file system has. */
  readonly mountId?: number;
  /** `major:minor` of the file system, in whichever mounts. */
  readonly mounted?: string;
  /** `major:minor` of the block device. */
  readonly device?: string;
}

/** `major:minor` of a device number (makedev(3)). */
export function deviceNumber(rdev: number): string {
  const number = BigInt(rdev);
  const major = ((number >> 8n) & 0xfffn) | ((number >> 32n) & ~0xfffn);
  const minor = (number & 0xffn) | ((number >> 12n) & ~0xffn);
  return `${major}:${minor}`;
}

/** `major:minor` of a block device by its path; null when there is none. */
export async function blockDeviceNumber(path: string): Promise<string | null> {
  try {
    const found = await stat(path);
    return found.isBlockDevice() ? deviceNumber(found.rdev) : null;
  } catch {
    return null; // Nothing there.
  }
}

/** True when using a file below this mount keeps busy what is asked about. */
function isHeldBy(held: Held, mount: Mount | undefined): boolean {
  if (mount === undefined) return false;
  return mount.id === held.mountId || mount.device === held.mounted;
}

/** Processes come and go while they are looked at: what cannot be read any more is not there. */
async function ifThere<T>(read: Promise<T>): Promise<T | null> {
  try {
    return await read;
  } catch {
    return null;
  }
}

async function heldFile(
  pid: number,
  descriptor: string,
  held: Held,
  mounts: ReadonlyMap<number, Mount>,
): Promise<string | null> {
  const target = await ifThere(readlink(`/proc/${pid}/fd/${descriptor}`));
  if (target === null || !target.startsWith("/")) return null;
  if (held.mounted !== undefined || held.mountId !== undefined) {
    const info = await ifThere(readFile(`/proc/${pid}/fdinfo/${descriptor}`, "utf8"));
    const mountId = Number(/^mnt_id:\s+(\d+)/m.exec(info ?? "")?.[1] ?? -1);
    if (isHeldBy(held, mounts.get(mountId))) return `has ${target} open`;
  }
  // A device node is not part of the file system on it, and looking at it waits for nothing.
  if (held.device === undefined || !target.startsWith("/dev/")) return null;
  const number = await blockDeviceNumber(`/proc/${pid}/fd/${descriptor}`);
  return number === held.device ? `has ${target} open` : null;
}

/** The mount that a path lies in. */
function mountAround(path: string, mounts: readonly Mount[]): Mount | undefined {
  let innermost: Mount | undefined;
  for (const mount of mounts) {
    const inside =
      path === mount.path || path.startsWith(mount.path === "/" ? "/" : `${mount.path}/`);
    if (inside && (innermost === undefined || mount.path.length >= innermost.path.length)) {
      innermost = mount;
    }
  }
  return innermost;
}

async function useOf(pid: number, held: Held, ownNamespace: string | null): Promise<string | null> {
  const mounts = parseMountinfo((await ifThere(readFile(`/proc/${pid}/mountinfo`, "utf8"))) ?? "");
  const descriptors = (await ifThere(readdir(`/proc/${pid}/fd`))) ?? [];
  const byId = new Map(mounts.map((mount) => [mount.id, mount]));
  for (const descriptor of descriptors) {
    const file = await heldFile(pid, descriptor, held, byId);
    if (file !== null) return file;
  }
  for (const [link, verb] of [
    ["cwd", "works in"],
    ["exe", "runs"],
    ["root", "has as its root"],
  ] as const) {
    const path = await ifThere(readlink(`/proc/${pid}/${link}`));
    if (path !== null && isHeldBy(held, mountAround(path, mounts))) return `${verb} ${path}`;
  }
  const elsewhere = mounts.find(({ device }) => device === held.mounted);
  if (elsewhere === undefined) return null;
  const namespace = await ifThere(readlink(`/proc/${pid}/ns/mnt`));
  return namespace === null || namespace === ownNamespace
    ? null
    : `has it mounted at ${elsewhere.path} in a namespace of its own`;
}

/** Processes that hold it, at most `most` of them; this process is left out. */
export async function findHolders(held: Held, most: number): Promise<Holder[]> {
  const ownNamespace = await ifThere(readlink("/proc/self/ns/mnt"));
  const holders: Holder[] = [];
  for (const name of await readdir("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    const what = await useOf(pid, held, ownNamespace);
    if (what === null) continue;
    const command = (await ifThere(readFile(`/proc/${pid}/comm`, "utf8")))?.trim() ?? "?";
    holders.push({ pid, command, what });
    if (holders.length >= most) break;
  }
  return holders;
}

/** `fio (process 17) has /data/x open, ...`; empty when nobody was found. */
export function holdersText(holders: readonly Holder[]): string {
  return holders.map(({ pid, command, what }) => `${command} (process ${pid}) ${what}`).join(", ");
}
