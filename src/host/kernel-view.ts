/**
 * The NVMe controllers that the kernel has, as sysfs shows them: a pure parser over the attributes of
 * `/sys/class/nvme` and `/sys/class/nvme-subsystem` (Linux, drivers/nvme/host/sysfs.c), read by `sysfs.ts`.
 *
 *   nvme/nvme3/{subsysnqn,transport,address,state,hostnqn,hostid,ctrl_loss_tmo}
 *   nvme/nvme3/nvme0c3n1/{ana_state,uuid,nsid,size}          a path of a namespace (hidden disk)
 *   nvme-subsystem/nvme-subsys0/subsysnqn
 *   nvme-subsystem/nvme-subsys0/nvme0n1/{uuid,nsid,size,dev} the disk of all its paths together
 */
import type { ConnectedPath } from "./host.ts";

/** Text of attributes by their path below `/sys/class`. What could not be read is not there. */
export type SysfsTree = ReadonlyMap<string, string>;

/** A namespace as one controller shows it. */
export interface KernelNamespace {
  /** `nvme0c3n1`, or `nvme3n1` where the kernel has no multipath. */
  readonly name: string;
  readonly uuid: string;
  readonly ana: ConnectedPath["ana"];
  readonly sizeBytes: number;
}

export interface KernelController {
  readonly name: string;
  readonly nqn: string;
  readonly transport: string;
  readonly address: string;
  readonly port: number;
  readonly state: string;
  readonly hostNqn: string;
  readonly hostId: string;
  readonly namespaces: readonly KernelNamespace[];
}

/** A disk that applications use. */
export interface KernelDisk {
  readonly name: string;
  readonly nqn: string;
  readonly uuid: string;
  readonly sizeBytes: number;
  /** `259:1`. */
  readonly dev: string;
}

export interface KernelView {
  readonly controllers: readonly KernelController[];
  readonly disks: readonly KernelDisk[];
}

/** `size` is in sectors of 512 bytes whatever the block size is. */
const SECTOR_BYTES = 512;

const anaStates: ReadonlySet<string> = new Set([
  "optimized",
  "non-optimized",
  "inaccessible",
  "persistent-loss",
  "change",
]);

function anaOf(text: string | undefined): ConnectedPath["ana"] {
  return anaStates.has(text ?? "") ? (text as ConnectedPath["ana"]) : "unknown";
}

/** The values of `traddr=10.0.0.1,trsvcid=8420,src_addr=10.0.0.9`. */
function parseAddress(text: string): { address: string; port: number } {
  const parts = new Map(
    text.split(",").map((part) => {
      const equals = part.indexOf("=");
      return [part.slice(0, equals), part.slice(equals + 1)];
    }),
  );
  return { address: parts.get("traddr") ?? "", port: Number(parts.get("trsvcid") ?? 0) };
}

const byNumber = (a: { name: string }, b: { name: string }) =>
  a.name.localeCompare(b.name, "en", { numeric: true });

/** Folders below `folder` whose names match. */
function foldersIn(tree: SysfsTree, folder: string, name: RegExp): string[] {
  const found = new Set<string>();
  for (const path of tree.keys()) {
    if (!path.startsWith(`${folder}/`)) continue;
    const first = path.slice(folder.length + 1).split("/", 1)[0]!;
    if (name.test(first)) found.add(first);
  }
  return [...found];
}

/** What the kernel has, by ascending numbers. */
export function parseKernelView(tree: SysfsTree): KernelView {
  const text = (path: string): string | undefined => tree.get(path)?.trim();
  const sizeAt = (path: string): number => Number(text(`${path}/size`) ?? 0) * SECTOR_BYTES;
  const controllers: KernelController[] = [];
  const disks: KernelDisk[] = [];
  for (const name of foldersIn(tree, "nvme", /^nvme\d+$/)) {
    const at = `nvme/${name}`;
    const nqn = text(`${at}/subsysnqn`) ?? "";
    const namespaces: KernelNamespace[] = [];
    for (const namespace of foldersIn(tree, at, /^nvme\d+(c\d+)?n\d+$/)) {
      const below = `${at}/${namespace}`;
      const uuid = text(`${below}/uuid`) ?? "";
      const sizeBytes = sizeAt(below);
      const ana = anaOf(text(`${below}/ana_state`));
      namespaces.push({ name: namespace, uuid, ana, sizeBytes });
      // Without multipath each path is a disk of its own.
      if (!/c\d+n/.test(namespace)) {
        disks.push({ name: namespace, nqn, uuid, sizeBytes, dev: text(`${below}/dev`) ?? "" });
      }
    }
    controllers.push({
      name,
      nqn,
      transport: text(`${at}/transport`) ?? "",
      ...parseAddress(text(`${at}/address`) ?? ""),
      state: text(`${at}/state`) ?? "unknown",
      hostNqn: text(`${at}/hostnqn`) ?? "",
      hostId: text(`${at}/hostid`) ?? "",
      namespaces: namespaces.sort(byNumber),
    });
  }
  for (const subsystem of foldersIn(tree, "nvme-subsystem", /^nvme-subsys\d+$/)) {
    const at = `nvme-subsystem/${subsystem}`;
    const nqn = text(`${at}/subsysnqn`) ?? "";
    for (const name of foldersIn(tree, at, /^nvme\d+n\d+$/)) {
      const below = `${at}/${name}`;
      const uuid = text(`${below}/uuid`) ?? "";
      disks.push({ name, nqn, uuid, sizeBytes: sizeAt(below), dev: text(`${below}/dev`) ?? "" });
    }
  }
  return { controllers: controllers.sort(byNumber), disks: disks.sort(byNumber) };
}

/** Controllers of a subsystem. */
export function controllersOf(view: KernelView, nqn: string): KernelController[] {
  return view.controllers.filter((controller) => controller.nqn === nqn);
}

/** The disk of a volume: that of its subsystem whose namespace has its UUID. */
export function diskOf(view: KernelView, nqn: string, volumeUuid: string): KernelDisk | undefined {
  return view.disks.find((disk) => disk.nqn === nqn && disk.uuid === volumeUuid);
}

/** A controller over which I/O flows, or would: it is connected and its namespace may be used there. */
export function isServing(controller: KernelController, volumeUuid: string): boolean {
  if (controller.state !== "live") return false;
  const namespace = controller.namespaces.find(({ uuid }) => uuid === volumeUuid);
  if (namespace === undefined) return false;
  return namespace.ana !== "inaccessible" && namespace.ana !== "persistent-loss";
}

/** A controller as the agent's users see it. */
export function pathOf(controller: KernelController): ConnectedPath {
  const { name, address, port, state, namespaces } = controller;
  return { controller: name, address, port, state, ana: namespaces[0]?.ana ?? "unknown" };
}
