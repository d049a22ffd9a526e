/** What the agent asks of its kernel, and Linux as it is. */
import { existsSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { TrilithError } from "../errors.ts";
import { ownCommand } from "../ops/executable.ts";
import { deviceFile, usersOfDisk } from "./device-users.ts";
import {
  FABRICS_DEVICE,
  type FabricsAnswer,
  type FabricsConnection,
  fabricsError,
  fabricsOptions,
  missingModule,
} from "./fabrics.ts";
import { hostIdFor, readHostFacts } from "./identity.ts";
import { type KernelView, parseKernelView } from "./kernel-view.ts";
import { CONNECT_CALL_MS } from "./limits.ts";
import { readSysfs } from "./sysfs.ts";
import { type UeventWatch, watchUevents } from "./uevents.ts";

export interface HostKernel {
  /** Has the kernel able to connect. `FailedPrecondition` when it is not and cannot be made to. */
  prepare(): Promise<void>;
  view(): KernelView;
  /** The host id that goes with a host NQN. */
  hostId(hostNqn: string): string;
  /** Makes a connection; resolves with the controller's name. Errors: see `fabricsError`. */
  connect(connection: FabricsConnection): Promise<string>;
  /** Ends a controller; one that is gone is no error. */
  remove(controller: string): Promise<void>;
  /** Has the namespaces of a controller looked at again, soon. */
  rescan(controller: string): Promise<void>;
  /** What uses a disk, in words. */
  users(disk: string): Promise<readonly string[]>;
  /** `/dev/nvme0n1` once it is there. */
  deviceFile(disk: string): string | null;
  /** Calls `changed` when something may have changed. Throws where nobody tells. */
  watch(changed: () => void): UeventWatch;
}

const MODULE_FOLDER = "/sys/module/nvme_tcp";
const MULTIPATH_PARAMETER = "/sys/module/nvme_core/parameters/multipath";

async function loadModule(): Promise<boolean> {
  for (const program of ["modprobe", "/sbin/modprobe", "/usr/sbin/modprobe"]) {
    try {
      const child = Bun.spawn([program, "nvme-tcp"], { stdio: ["ignore", "ignore", "ignore"] });
      return (await child.exited) === 0;
    } catch {
      // Not in this place.
    }
  }
  return false;
}

async function prepare(): Promise<void> {
  if (!existsSync(MODULE_FOLDER)) {
    const isLoaded = process.getuid?.() === 0 && (await loadModule());
    // Where the device is there the kernel may still load, or have built in, what it needs.
    if (!isLoaded && !existsSync(FABRICS_DEVICE)) throw missingModule();
  }
  if (!existsSync(FABRICS_DEVICE)) throw missingModule();
  if (isMultipathOff()) {
    throw new TrilithError(
      "FailedPrecondition",
      "native NVMe multipath is off: each path would be a disk of its own, and I/O would stop when a volume moves",
      "echo 'options nvme_core multipath=Y' > /etc/modprobe.d/trilith.conf, then reboot",
    );
  }
}

function isMultipathOff(): boolean {
  try {
    return readFileSync(MULTIPATH_PARAMETER, "utf8").trim() === "N";
  } catch {
    // Kernels without the parameter decide for themselves.
    return false;
  }
}

/**
 * In a process of its own: the kernel keeps whoever connects waiting until somebody answers, and an agent
 * has other paths to look after.
 */
async function connect(connection: FabricsConnection): Promise<string> {
  const child = Bun.spawn([...ownCommand(), "host", "kernel-connect"], {
    stdin: Buffer.from(fabricsOptions(connection)),
    stdout: "pipe",
    stderr: "ignore",
    timeout: CONNECT_CALL_MS,
    killSignal: "SIGKILL",
  });
  const [text] = await Promise.all([child.stdout.text(), child.exited]);
  if (text === "") throw fabricsError(connection, "ETIMEDOUT", "no answer");
  const answer = JSON.parse(text) as FabricsAnswer;
  if ("controller" in answer) return answer.controller;
  throw fabricsError(connection, answer.error, answer.message);
}

/** Writes to a controller's attribute. False when there is no such controller. */
async function writeAttribute(controller: string, name: string): Promise<boolean> {
  try {
    await writeFile(`/sys/class/nvme/${controller}/${name}`, "1");
    return true;
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    if (code === "ENOENT" || code === "ENODEV") return false;
    if (code === "EACCES" || code === "EPERM" || code === "EROFS") {
      throw new TrilithError("PermissionDenied", `${controller}: ${message}`, "run it as root");
    }
    throw new TrilithError("Unavailable", `${controller}: ${message}`, "see `dmesg | tail`");
  }
}

const view = (): KernelView => parseKernelView(readSysfs());

/** The kernel of this machine. */
export const linuxKernel: HostKernel = {
  prepare,
  view,
  hostId: (hostNqn) => hostIdFor(hostNqn, readHostFacts(), view()),
  connect,
  remove: async (controller) => void (await writeAttribute(controller, "delete_controller")),
  rescan: async (controller) => void (await writeAttribute(controller, "rescan_controller")),
  users: usersOfDisk,
  deviceFile,
  watch: watchUevents,
};
