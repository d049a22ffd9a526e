/**
 * The disks and partitions of this machine, and which of them could become a pool: from sysfs, the
 * mount table, udev's database when there is one, and the devices' own first and last MiB.
 */
import { type FileHandle, open, readdir, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { PROBE_HEAD_BYTES, PROBE_TAIL_BYTES } from "../pool/limits.ts";
import { type DiskContent, identify } from "../pool/probe.ts";
import type { BlockDevice } from "../rpc/bdevs.ts";
import { readFilesystem } from "./filesystem.ts";

/** Where the machine is described; a test gives its own. */
export interface Places {
  readonly sys: string;
  readonly dev: string;
  readonly proc: string;
  readonly udev: string;
}

const machine: Places = { sys: "/sys/class/block", dev: "/dev", proc: "/proc", udev: "/run/udev" };

const SECTOR_BYTES = 512;
/** Kinds of devices that are no disks, by the beginning of their names. */
const NOT_DISKS = /^(ram|zram|sr|fd|nbd|md|dm-)/;

async function text(path: string): Promise<string | undefined> {
  try {
    return (await readFile(path, "utf8")).trim();
  } catch {
    return undefined; // Not every device has every attribute.
  }
}

async function names(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch {
    return [];
  }
}

/** Mount points by `major:minor`, and `swap` for swap space, by device path. */
async function mounts(proc: string): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (const line of ((await text(join(proc, "self/mountinfo"))) ?? "").split("\n")) {
    const fields = line.split(" ");
    const [, , device, , point] = fields;
    if (device === undefined || point === undefined || found.has(device)) continue;
    const plain = point.replace(/\\(\d{3})/g, (_all, octal: string) =>
      String.fromCharCode(Number.parseInt(octal, 8)),
    );
    found.set(device, plain);
  }
  for (const line of ((await text(join(proc, "swaps"))) ?? "").split("\n").slice(1)) {
    const [path] = line.split(/\s+/);
    if (path !== undefined && path !== "") found.set(path, "[SWAP]");
  }
  return found;
}

/** What udev knows of a device, by property; empty without udev. */
async function udevOf(udev: string, number: string) {
  const properties = new Map<string, string>();
  const links: string[] = [];
  for (const line of ((await text(join(udev, "data", `b${number}`))) ?? "").split("\n")) {
    const [, name, value] = /^E:([^=]+)=(.*)$/.exec(line) ?? [];
    if (name !== undefined && value !== undefined) properties.set(name, value);
    else if (line.startsWith("S:")) links.push(`/dev/${line.slice(2)}`);
  }
  return { properties, links };
}

/** Reads both ends of a device; null when it cannot be read (no medium, an I/O error). */
async function readEnds(path: string, deviceBytes: number) {
  let file: FileHandle | null = null;
  try {
    file = await open(path, "r");
    const head = new Uint8Array(Math.min(PROBE_HEAD_BYTES, deviceBytes));
    const tail = new Uint8Array(Math.min(PROBE_TAIL_BYTES, deviceBytes));
    await file.read(head, 0, head.byteLength, 0);
    await file.read(tail, 0, tail.byteLength, deviceBytes - tail.byteLength);
    return { head, tail, deviceBytes };
  } catch {
    return null;
  } finally {
    await file?.close();
  }
}

function contentReason(content: DiskContent): string {
  switch (content.kind) {
    case "blank":
      return "";
    case "pool":
      return `it holds pool ${content.name} (${content.uuid})`;
    case "foreign":
      return `it holds ${content.what}`;
  }
}

function connectionOf(sysPath: string, bus: string | undefined): string {
  if (bus !== undefined) return bus;
  for (const kind of ["nvme", "virtio", "usb", "ata", "scsi", "mmc"]) {
    if (sysPath.includes(`/${kind}`)) return kind;
  }
  return sysPath.includes("/devices/virtual/") ? "virtual" : "";
}

async function describe(
  name: string,
  places: Places,
  mounted: ReadonlyMap<string, string>,
): Promise<BlockDevice | null> {
  const sys = join(places.sys, name);
  const number = await text(join(sys, "dev"));
  const sizeBytes = Number((await text(join(sys, "size"))) ?? 0) * SECTOR_BYTES;
  if (number === undefined || sizeBytes === 0) return null;
  const devname = join(places.dev, name.replaceAll("!", "/"));
  const { properties, links } = await udevOf(places.udev, number);
  const partitionNumber = await text(join(sys, "partition"));
  const inside = await names(sys);
  const hasPartitions = inside.some((entry) => entry.startsWith(name) && entry !== name);
  const holders = await names(join(sys, "holders"));
  const ends = await readEnds(devname, sizeBytes);
  const mountpoint = mounted.get(number) ?? mounted.get(devname) ?? "";
  const isReadOnly = (await text(join(sys, "ro"))) === "1";
  const content = ends === null ? null : identify(ends);
  const reasons = [
    mountpoint === "" ? "" : `it is mounted at ${mountpoint}`,
    hasPartitions ? "it has partitions" : "",
    holders.length === 0 ? "" : `it is used by ${holders.join(", ")}`,
    isReadOnly ? "it is read-only" : "",
    content === null ? "it cannot be read" : contentReason(content),
  ];
  const reason = reasons.find((text) => text !== "") ?? "";
  const rotational = await text(join(sys, "queue/rotational"));
  const sysPath = await readlink(sys).catch(() => "");
  const [major, minor] = number.split(":").map(Number);
  const parent = partitionNumber === undefined ? null : sysPath.split("/").at(-2);
  return {
    devname,
    devtype: partitionNumber === undefined ? "disk" : "partition",
    devmajor: major!,
    devminor: minor!,
    model: (await text(join(sys, "device/model"))) ?? properties.get("ID_MODEL") ?? "",
    devpath: sysPath.replace(/^(\.\.\/)+/, "/"),
    devlinks: links,
    sizeBytes,
    isRotational: rotational === undefined ? null : rotational === "1",
    connectionType: connectionOf(sysPath, properties.get("ID_BUS")),
    available: reason === "",
    unavailableReason: reason,
    ...(content?.kind === "pool" ? { pool: { name: content.name, uuid: content.uuid } } : {}),
    filesystem: filesystemOf(ends, properties, mountpoint),
    partition:
      parent == null
        ? null
        : {
            parent: join(places.dev, parent),
            number: Number(partitionNumber),
            name: properties.get("ID_PART_ENTRY_NAME") ?? "",
            scheme: properties.get("ID_PART_ENTRY_SCHEME") ?? "",
            typeid: properties.get("ID_PART_ENTRY_TYPE") ?? "",
            uuid: properties.get("ID_PART_ENTRY_UUID") ?? "",
          },
  };
}

function filesystemOf(
  ends: { readonly head: Uint8Array } | null,
  properties: ReadonlyMap<string, string>,
  mountpoint: string,
): BlockDevice["filesystem"] {
  const fstype = properties.get("ID_FS_TYPE");
  if (fstype !== undefined && fstype !== "") {
    return {
      fstype,
      label: properties.get("ID_FS_LABEL") ?? "",
      uuid: properties.get("ID_FS_UUID") ?? "",
      mountpoint,
    };
  }
  const found = ends === null ? null : readFilesystem(ends.head);
  return found === null ? null : { ...found, mountpoint };
}

/**
 * Disks and partitions in the order of their names. Without `all`, only those that nobody uses and
 * on which nothing is written. Devices that are no disks (RAM disks, optical drives, mapped devices)
 * are left out, and so are loop devices that no file is behind.
 */
export async function listBlockDevices(all: boolean, places = machine): Promise<BlockDevice[]> {
  const mounted = await mounts(places.proc);
  const found = (await names(places.sys)).filter((name) => !NOT_DISKS.test(name)).sort();
  const described = await Promise.all(found.map((name) => describe(name, places, mounted)));
  const devices = described.filter((device) => device !== null);
  return all ? devices : devices.filter(({ available }) => available);
}
