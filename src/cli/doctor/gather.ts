/** Finds out about this machine what `trilith doctor` judges. Changes nothing. */
import {
  accessSync,
  constants,
  existsSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statfsSync,
  statSync,
} from "node:fs";
import { release } from "node:os";
import { dirname, join } from "node:path";
import { listBlockDevices } from "../../engine/main/block-devices.ts";
import { ARENA_BYTES_MIN } from "../../engine/reactor/limits.ts";
import type { Facts, PortUser } from "./facts.ts";

/** How long a command of the system may take. */
const COMMAND_MS = 5_000;
/** State of a listening socket in /proc/net/tcp (include/net/tcp_states.h). */
const TCP_LISTEN = "0A";

function read(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null; // Not there, or not for us: the caller knows what that means.
  }
}

/** What a command prints; null when it is not there, fails or hangs. */
async function output(command: readonly string[]): Promise<string | null> {
  const program = Bun.which(command[0]!, { PATH: `${process.env.PATH}:/usr/sbin:/sbin` });
  if (program === null) return null;
  const child = Bun.spawn([program, ...command.slice(1)], {
    stdout: "pipe",
    stderr: "ignore",
    stdin: "ignore",
    timeout: COMMAND_MS,
    env: { ...process.env, LC_ALL: "C" },
  });
  const text = await new Response(child.stdout).text();
  return (await child.exited) === 0 ? text : null;
}

function nvmeTcp(kernel: string): Facts["nvmeTcp"] {
  if (existsSync("/sys/module/nvme_tcp")) {
    return read("/proc/modules")?.includes("nvme_tcp ") === true ? "loaded" : "built in";
  }
  const folder = `/lib/modules/${kernel}`;
  if (read(`${folder}/modules.builtin`)?.includes("/nvme-tcp.ko") === true) return "built in";
  return read(`${folder}/modules.dep`)?.includes("/nvme-tcp.ko") === true ? "available" : "missing";
}

/** Makes a ring and registers memory with it, as a reactor does, and lets go of both. */
async function ioUringError(): Promise<string | null> {
  try {
    const { Reactor } = await import("../../engine/reactor/reactor.ts");
    new Reactor({ index: 0, arenaBytes: ARENA_BYTES_MIN }).close();
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function hugePages(): Facts["hugePages"] {
  const info = read("/proc/meminfo") ?? "";
  const value = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(info)?.[1] ?? 0);
  const enabled = read("/sys/kernel/mm/transparent_hugepage/enabled") ?? "";
  const mode = /\[(always|madvise|never)\]/.exec(enabled)?.[1];
  return {
    total: value("HugePages_Total"),
    free: value("HugePages_Free"),
    sizeBytes: value("Hugepagesize") * 1024,
    transparent: (mode as "always" | "madvise" | "never" | undefined) ?? null,
  };
}

/** Soft limit of this process, null when there is none. */
function limit(name: string): number | null {
  const row = new RegExp(`^${name}\\s+(\\S+)`, "m").exec(read("/proc/self/limits") ?? "");
  return row === null || row[1] === "unlimited" ? null : Number(row[1]);
}

/** Sockets that listen: inode by port, from a table of /proc/net. */
function listening(table: string | null): [port: number, inode: string][] {
  return (table ?? "").split("\n").flatMap((line): [number, string][] => {
    const fields = line.trim().split(/\s+/);
    if (fields[3] !== TCP_LISTEN) return [];
    return [[Number.parseInt(fields[1]!.split(":").at(-1)!, 16), fields[9]!]];
  });
}

/** The process behind each socket, of those whose descriptors can be seen. */
function socketOwners(): Map<string, PortUser> {
  const owners = new Map<string, PortUser>();
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    let descriptors: string[];
    try {
      descriptors = readdirSync(`/proc/${pid}/fd`);
    } catch {
      continue; // It has ended, or belongs to somebody else.
    }
    for (const descriptor of descriptors) {
      let target: string;
      try {
        target = readlinkSync(`/proc/${pid}/fd/${descriptor}`);
      } catch {
        continue; // Closed meanwhile.
      }
      const inode = /^socket:\[(\d+)\]$/.exec(target)?.[1];
      if (inode === undefined) continue;
      // From source the program is Bun with our file; its command line says so.
      const line = (read(`/proc/${pid}/cmdline`) ?? "").split("\0");
      const isOurs = line.some((word) => /(^|\/)trilith$|\/src\/main\.ts$/.test(word));
      const name = isOurs ? "trilith" : (read(`/proc/${pid}/comm`)?.trim() ?? null);
      owners.set(inode, { pid: Number(pid), command: name });
    }
  }
  return owners;
}

function listeners(): Map<number, PortUser> {
  const owners = socketOwners();
  const found = new Map<number, PortUser>();
  for (const table of ["/proc/net/tcp", "/proc/net/tcp6"]) {
    for (const [port, inode] of listening(read(table))) {
      found.set(port, owners.get(inode) ?? { pid: null, command: null });
    }
  }
  return found;
}

async function disks(): Promise<Facts["disks"]> {
  const devices = await listBlockDevices(true);
  return devices
    .filter(({ devtype }) => devtype === "disk")
    .map((device) => ({
      path: device.devname,
      sizeBytes: device.sizeBytes,
      available: device.available,
      reason: device.unavailableReason,
    }));
}

async function clock(): Promise<Facts["clock"]> {
  const shown = await output(["timedatectl", "show", "-p", "NTPSynchronized", "--value"]);
  if (shown !== null && /^(yes|no)$/.test(shown.trim())) {
    return { synchronized: shown.trim() === "yes", by: "timedatectl" };
  }
  if (existsSync("/run/systemd/timesync/synchronized")) {
    return { synchronized: true, by: "systemd-timesyncd" };
  }
  const tracking = await output(["chronyc", "-n", "tracking"]);
  if (tracking === null) return { synchronized: null, by: null };
  return { synchronized: /Leap status\s*:\s*Normal/.test(tracking), by: "chrony" };
}

/** Single ports and ranges in a firewall's listing, e.g. `8420/tcp`, `8000:9000`. */
export function portsIn(text: string, wanted: readonly number[]): number[] {
  const ranges = [...text.matchAll(/\b(\d{1,5})(?:[:-](\d{1,5}))?\b/g)].map((match) => [
    Number(match[1]),
    Number(match[2] ?? match[1]),
  ]);
  return wanted.filter((port) => ranges.some(([low, high]) => port >= low! && port <= high!));
}

async function firewall(isRoot: boolean, wanted: readonly number[]): Promise<Facts["firewall"]> {
  if ((await output(["firewall-cmd", "--state"]))?.trim() === "running") {
    const open = await output(["firewall-cmd", "--list-ports"]);
    return { kind: "firewalld", openPorts: open === null ? null : portsIn(open, wanted) };
  }
  const ufw = await output(["ufw", "status"]);
  if (ufw !== null && /^Status: active/m.test(ufw)) {
    const open = ufw.split("\n").filter((line) => /\bALLOW\b/.test(line));
    return { kind: "ufw", openPorts: portsIn(open.join("\n"), wanted) };
  }
  const closes = (text: string) => /hook input[^}]*policy (drop|reject)/s.test(text);
  const rules = await output(["nft", "list", "ruleset"]);
  if (rules !== null) {
    if (!closes(rules)) return { kind: "none", openPorts: null };
    const open = rules.split("\n").filter((line) => /\baccept\b/.test(line));
    return { kind: "nftables", openPorts: portsIn(open.join("\n"), wanted) };
  }
  const chain = await output(["iptables", "-S", "INPUT"]);
  if (chain !== null) {
    const shuts =
      /^-P INPUT (DROP|REJECT)/m.test(chain) || /^-A INPUT -j (DROP|REJECT)/m.test(chain);
    if (!shuts) return { kind: "none", openPorts: null };
    const open = chain.split("\n").filter((line) => /-j ACCEPT/.test(line) && /dport/.test(line));
    return { kind: "iptables", openPorts: portsIn(open.join("\n"), wanted) };
  }
  const tables = (read("/proc/net/ip_tables_names") ?? "").trim();
  if (isRoot && tables === "") return { kind: "none", openPorts: null };
  return { kind: "unknown", openPorts: null };
}

function dataDir(path: string): Facts["dataDir"] {
  const stat = statSync(path, { throwIfNoEntry: false });
  let existing = path;
  while (!existsSync(existing)) existing = dirname(existing);
  const space = statfsSync(existing);
  let writable = true;
  try {
    accessSync(existing, constants.W_OK);
  } catch {
    writable = false; // The answer that was asked for.
  }
  return {
    path,
    exists: stat !== undefined,
    mode: (stat?.mode ?? 0) & 0o777,
    freeBytes: space.bavail * space.bsize,
    writable,
  };
}

function memory(): Facts["memory"] {
  const info = read("/proc/meminfo") ?? "";
  const bytes = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(info)?.[1] ?? 0) * 1024;
  return { totalBytes: bytes("MemTotal"), availableBytes: bytes("MemAvailable") };
}

/** All facts about this machine; `ports` are those whose way through the firewall matters. */
export async function gatherFacts(data: string, ports: readonly number[]): Promise<Facts> {
  const kernel = release();
  const isRoot = process.getuid?.() === 0;
  const multipath = read("/sys/module/nvme_core/parameters/multipath");
  const sbin = ["/usr/sbin", "/sbin", "/usr/local/sbin"];
  return {
    kernel,
    nvmeTcp: nvmeTcp(kernel),
    nvmeMultipath: multipath === null ? null : multipath.trim() === "Y",
    nvmeCli: Bun.which("nvme") !== null || sbin.some((folder) => existsSync(join(folder, "nvme"))),
    ioUringError: await ioUringError(),
    hugePages: hugePages(),
    memlockBytes: limit("Max locked memory"),
    openFiles: limit("Max open files"),
    memory: memory(),
    isRoot,
    listeners: listeners(),
    disks: await disks(),
    clock: await clock(),
    firewall: await firewall(isRoot, ports),
    dataDir: dataDir(data),
  };
}
