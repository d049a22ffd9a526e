/** Judges what was found out about a machine: pure, one function per check. */
import { humanSize } from "../output/size.ts";
import type { Facts } from "./facts.ts";

/** What the machine is to do: keep data, mount volumes, or both. */
export type Role = "storage" | "host" | "both";

export interface Finding {
  readonly check: string;
  /** `missing`: it will not work so. `warning`: it will, less well or not for everything. */
  readonly status: "ok" | "warning" | "missing";
  readonly message: string;
  /** The command that fixes it, or what to do; empty when nothing is to be done. */
  readonly remedy: string;
}

type Judgement = Omit<Finding, "check">;

/** Oldest kernel with all that the reactor uses (io_uring's DEFER_TASKRUN came with it). */
const KERNEL_MIN: readonly [number, number] = [6, 1];
/** Least memory a node should have: engine, control process, and the page cache of its store. */
const MEMORY_MIN_BYTES = 1 << 30;
/** Locked memory that an engine with four reactors asks for. */
const MEMLOCK_MIN_BYTES = 4 * (64 << 20) + (16 << 20);
const OPEN_FILES_MIN = 65_536;
/** The store, its log and one snapshot of it. */
const DATA_FREE_MIN_BYTES = 1 << 30;

/** Ports that a node listens on, and which of them other machines have to reach. */
export const nodePorts: readonly { port: number; use: string; fromOutside: boolean }[] = [
  { port: 8420, use: "NVMe/TCP", fromOutside: true },
  { port: 8009, use: "NVMe discovery", fromOutside: true },
  { port: 10124, use: "engine RPC", fromOutside: true },
  { port: 10126, use: "cluster peers", fromOutside: true },
  { port: 8081, use: "HTTP API", fromOutside: false },
  { port: 9502, use: "metrics", fromOutside: false },
];

const ok = (message: string): Judgement => ({ status: "ok", message, remedy: "" });
const warning = (message: string, remedy: string): Judgement => ({
  status: "warning",
  message,
  remedy,
});
const missing = (message: string, remedy: string): Judgement => ({
  status: "missing",
  message,
  remedy,
});

function kernel({ kernel }: Facts): Judgement {
  const match = /^(\d+)\.(\d+)/.exec(kernel);
  if (match === null) return warning(`version "${kernel}" is not understood`, "uname -r");
  const [major, minor] = [Number(match[1]), Number(match[2])];
  const [majorMin, minorMin] = KERNEL_MIN;
  if (major > majorMin || (major === majorMin && minor >= minorMin)) return ok(kernel);
  return missing(
    `${kernel} is too old: ${KERNEL_MIN.join(".")} or newer is needed`,
    "install a newer kernel (Debian 12 and Ubuntu 23.04 have one) and boot it",
  );
}

function ioUring({ ioUringError }: Facts): Judgement {
  if (ioUringError === null) return ok("a ring with registered memory can be made");
  // The engine's own message says what to do: `sysctl …`, a seccomp profile, a limit.
  const remedy =
    /run `([^`]+)`/.exec(ioUringError)?.[1] ?? /: (allow .*|raise .*)\)?$/.exec(ioUringError)?.[1];
  return missing(ioUringError, remedy?.replace(/\)$/, "") ?? "dmesg | tail");
}

function nvmeTcp({ nvmeTcp, kernel }: Facts): Judgement {
  if (nvmeTcp === "loaded" || nvmeTcp === "built in") return ok(nvmeTcp);
  if (nvmeTcp === "available") {
    return missing("the module is there, but not loaded", "modprobe nvme-tcp");
  }
  return missing(
    `the kernel has no module nvme-tcp: volumes cannot be attached on this machine`,
    `apt-get install linux-modules-extra-${kernel}  (Ubuntu), or a kernel with CONFIG_NVME_TCP`,
  );
}

function multipath({ nvmeMultipath }: Facts): Judgement {
  if (nvmeMultipath === true) return ok("native NVMe multipath is on");
  if (nvmeMultipath === null) {
    return warning("nvme_core is not loaded, so it cannot be told", "modprobe nvme-tcp");
  }
  return missing(
    "native NVMe multipath is off: I/O stops when a volume moves to another node",
    "echo 'options nvme_core multipath=Y' > /etc/modprobe.d/trilith.conf, then reboot",
  );
}

function nvmeCli({ nvmeCli }: Facts): Judgement {
  if (nvmeCli) return ok("installed");
  return warning(
    "the command nvme is not installed: volumes are attached by hand with it",
    "apt-get install nvme-cli  (dnf install nvme-cli)",
  );
}

function hugePages({ hugePages }: Facts): Judgement {
  const { total, free, sizeBytes, transparent } = hugePages;
  if (total > 0)
    return ok(`${free} of ${total} reserved pages of ${humanSize(sizeBytes)} are free`);
  if (transparent === "never") {
    return warning(
      "none are reserved and transparent ones are off: buffers use small pages",
      "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
    );
  }
  return ok("none are reserved; transparent ones are used, and none are needed");
}

function memlock({ memlockBytes, isRoot }: Facts): Judgement {
  if (memlockBytes === null) return ok("unlimited");
  if (memlockBytes >= MEMLOCK_MIN_BYTES) return ok(humanSize(memlockBytes));
  if (isRoot) return ok(`${humanSize(memlockBytes)}, which does not bind root`);
  return warning(
    `${humanSize(memlockBytes)} in this shell; an engine wants ${humanSize(MEMLOCK_MIN_BYTES)} ` +
      "(under systemd it has no limit)",
    "ulimit -l unlimited",
  );
}

function openFiles({ openFiles }: Facts): Judgement {
  if (openFiles === null || openFiles >= OPEN_FILES_MIN)
    return ok(String(openFiles ?? "unlimited"));
  return warning(
    `${openFiles} in this shell; each connection and device takes one (under systemd: 1048576)`,
    `ulimit -n ${OPEN_FILES_MIN}`,
  );
}

function memory({ memory }: Facts): Judgement {
  const text = `${humanSize(memory.availableBytes)} of ${humanSize(memory.totalBytes)} available`;
  if (memory.totalBytes >= MEMORY_MIN_BYTES) return ok(text);
  return warning(`${text}; less than ${humanSize(MEMORY_MIN_BYTES)} is tight`, "add memory");
}

function ports({ listeners }: Facts): Judgement {
  const ours: string[] = [];
  const taken: string[] = [];
  const unseen: string[] = [];
  let pid: number | null = null;
  for (const { port, use } of nodePorts) {
    const user = listeners.get(port);
    if (user === undefined) continue;
    if (user.command === null) unseen.push(`${port} (${use})`);
    else if (/trilith/.test(user.command)) ours.push(String(port));
    else {
      taken.push(`${port} (${use}) by ${user.command}`);
      pid ??= user.pid;
    }
  }
  if (taken.length > 0) {
    return missing(
      `in use: ${taken.join(", ")}`,
      `stop it (ps -p ${pid}), or give trilith other ports (trilith engine --help)`,
    );
  }
  if (unseen.length > 0) {
    return warning(
      `in use by somebody whose processes cannot be seen: ${unseen.join(", ")}`,
      "sudo trilith doctor",
    );
  }
  return ok(ours.length === 0 ? "all are free" : `trilith listens on ${ours.join(", ")}`);
}

function disks({ disks }: Facts): Judgement {
  const free = disks.filter(({ available }) => available);
  if (free.length > 0) {
    const list = free.map(({ path, sizeBytes }) => `${path} (${humanSize(sizeBytes)})`);
    return ok(`free for pools: ${list.join(", ")}`);
  }
  const first = disks.find(({ reason }) => reason !== "");
  const why = first === undefined ? "" : `, e.g. ${first.path}: ${first.reason}`;
  return warning(
    `none of ${disks.length} is free for a pool${why}`,
    "add a disk, or clear one that is not needed: wipefs -a <disk>",
  );
}

function clock({ clock }: Facts): Judgement {
  if (clock.synchronized === true) return ok(`synchronized${clock.by ? ` (${clock.by})` : ""}`);
  if (clock.synchronized === null) {
    return warning("whether it is synchronized could not be told", "timedatectl timesync-status");
  }
  return warning(
    "it is not synchronized: times of events and certificates will be off",
    "timedatectl set-ntp true  (or apt-get install chrony)",
  );
}

function firewall({ firewall }: Facts): Judgement {
  if (firewall.kind === "none") return ok("none is active");
  const needed = nodePorts.filter(({ fromOutside }) => fromOutside).map(({ port }) => port);
  const commands: Partial<Record<Facts["firewall"]["kind"], string>> = {
    firewalld:
      `firewall-cmd --permanent ${needed.map((port) => `--add-port=${port}/tcp`).join(" ")}` +
      " && firewall-cmd --reload",
    ufw: `ufw allow ${needed.join(",")}/tcp`,
    nftables: `nft add rule inet filter input tcp dport { ${needed.join(", ")} } accept`,
    iptables: `iptables -I INPUT -p tcp -m multiport --dports ${needed.join(",")} -j ACCEPT`,
  };
  const remedy = commands[firewall.kind] ?? "sudo trilith doctor";
  if (firewall.openPorts === null) {
    return warning(
      firewall.kind === "unknown"
        ? "whether there is one could not be told"
        : `${firewall.kind} is active; which ports it lets in could not be told`,
      firewall.kind === "unknown" ? "sudo trilith doctor" : remedy,
    );
  }
  const open = new Set(firewall.openPorts);
  const closed = needed.filter((port) => !open.has(port));
  if (closed.length === 0) return ok(`${firewall.kind} lets the ports in`);
  return warning(
    `${firewall.kind} keeps other nodes and hosts from port${closed.length > 1 ? "s" : ""} ` +
      closed.join(", "),
    remedy,
  );
}

function dataDir({ dataDir }: Facts): Judgement {
  const { path, exists, mode, freeBytes, writable } = dataDir;
  if (freeBytes < DATA_FREE_MIN_BYTES) {
    return missing(
      `${path} has ${humanSize(freeBytes)} free; ${humanSize(DATA_FREE_MIN_BYTES)} is needed`,
      `make room: du -xh --max-depth=1 ${path}`,
    );
  }
  const free = `${humanSize(freeBytes)} free`;
  if (!exists) return ok(`${path} does not exist yet, and is made at the first start; ${free}`);
  if ((mode & 0o027) !== 0) {
    return missing(
      `${path} has mode ${mode.toString(8)}: others could read keys or change data`,
      `chmod 750 ${path}`,
    );
  }
  if (!writable) {
    return warning(`${path} cannot be written to by this user; ${free}`, "sudo trilith doctor");
  }
  return ok(`${path}, mode ${mode.toString(8)}, ${free}`);
}

const checks: readonly (readonly [
  name: string,
  judge: (facts: Facts) => Judgement,
  roles: readonly Role[],
])[] = [
  ["kernel", kernel, ["storage", "host", "both"]],
  ["io_uring", ioUring, ["storage", "both"]],
  ["nvme-tcp", nvmeTcp, ["host", "both"]],
  ["nvme multipath", multipath, ["host", "both"]],
  ["nvme-cli", nvmeCli, ["host", "both"]],
  ["memory", memory, ["storage", "both"]],
  ["huge pages", hugePages, ["storage", "both"]],
  ["locked memory", memlock, ["storage", "both"]],
  ["open files", openFiles, ["storage", "both"]],
  ["ports", ports, ["storage", "both"]],
  ["disks", disks, ["storage", "both"]],
  ["clock", clock, ["storage", "host", "both"]],
  ["firewall", firewall, ["storage", "both"]],
  ["data directory", dataDir, ["storage", "both"]],
];

/** All that matters to a machine of the role, in a fixed order. */
export function diagnose(facts: Facts, role: Role): Finding[] {
  return checks
    .filter(([, , roles]) => roles.includes(role))
    .map(([check, judge]) => ({ check, ...judge(facts) }));
}
