import { describe, expect, test } from "bun:test";
import { createServer } from "node:net";
import { diagnose, type Finding, type Role } from "../../../src/cli/doctor/checks.ts";
import type { Facts } from "../../../src/cli/doctor/facts.ts";
import { gatherFacts, portsIn } from "../../../src/cli/doctor/gather.ts";
import { tempFolders } from "../../support/temp-folder.ts";
import { runLine } from "./fixtures.ts";

const folder = tempFolders();

/** A machine on which all is well. */
const well: Facts = {
  kernel: "6.1.0-26-amd64",
  nvmeTcp: "loaded",
  nvmeMultipath: true,
  nvmeCli: true,
  ioUringError: null,
  hugePages: { total: 0, free: 0, sizeBytes: 2 << 20, transparent: "madvise" },
  memlockBytes: null,
  openFiles: 1_048_576,
  memory: { totalBytes: 8 * 2 ** 30, availableBytes: 4 * 2 ** 30 },
  isRoot: true,
  listeners: new Map(),
  disks: [
    { path: "/dev/sda", sizeBytes: 2 ** 38, available: false, reason: "it is mounted at /" },
    { path: "/dev/sdb", sizeBytes: 2 ** 40, available: true, reason: "" },
  ],
  clock: { synchronized: true, by: "chrony" },
  firewall: { kind: "none", openPorts: null },
  dataDir: {
    path: "/var/lib/trilith",
    exists: true,
    mode: 0o750,
    freeBytes: 20 * 2 ** 30,
    writable: true,
  },
};

function finding(check: string, change: Partial<Facts>): Finding {
  return diagnose({ ...well, ...change }, "both").find((one) => one.check === check)!;
}

const listener = (port: number, command: string | null) =>
  new Map([[port, { pid: command === null ? null : 42, command }]]);
const needed = [8420, 8009, 10124, 10126];

const cases: [
  check: string,
  what: string,
  change: Partial<Facts>,
  status: Finding["status"],
  remedy: RegExp,
][] = [
  ["kernel", "too old", { kernel: "5.15.0" }, "missing", /newer kernel/],
  ["kernel", "of a new line", { kernel: "10.0.1" }, "ok", /^$/],
  ["kernel", "of the oldest line that will do", { kernel: "6.1" }, "ok", /^$/],
  ["kernel", "just too old", { kernel: "6.0.19" }, "missing", /newer kernel/],
  [
    "io_uring",
    "switched off",
    {
      ioUringError:
        "io_uring_setup: EPERM (io_uring is switched off: run `sysctl kernel.io_uring_disabled=0`)",
    },
    "missing",
    /^sysctl kernel.io_uring_disabled=0$/,
  ],
  [
    "io_uring",
    "blocked by a profile",
    {
      ioUringError:
        "io_uring_setup: EPERM (io_uring is blocked, most likely by a seccomp profile (a container's " +
        "default profile does that): allow io_uring_setup, io_uring_enter and io_uring_register)",
    },
    "missing",
    /^allow io_uring_setup, io_uring_enter and io_uring_register$/,
  ],
  ["nvme-tcp", "not loaded", { nvmeTcp: "available" }, "missing", /^modprobe nvme-tcp$/],
  ["nvme-tcp", "built in", { nvmeTcp: "built in" }, "ok", /^$/],
  [
    "nvme-tcp",
    "not there",
    { nvmeTcp: "missing" },
    "missing",
    /linux-modules-extra-6.1.0-26-amd64/,
  ],
  ["nvme multipath", "off", { nvmeMultipath: false }, "missing", /multipath=Y/],
  ["nvme multipath", "unknown", { nvmeMultipath: null }, "warning", /modprobe/],
  ["nvme-cli", "not installed", { nvmeCli: false }, "warning", /install nvme-cli/],
  [
    "huge pages",
    "off altogether",
    { hugePages: { ...well.hugePages, transparent: "never" } },
    "warning",
    /madvise > /,
  ],
  ["huge pages", "reserved", { hugePages: { ...well.hugePages, total: 64, free: 60 } }, "ok", /^$/],
  ["locked memory", "limited", { memlockBytes: 8 << 20, isRoot: false }, "warning", /^ulimit -l/],
  ["locked memory", "limited for root", { memlockBytes: 8 << 20 }, "ok", /^$/],
  ["open files", "limited", { openFiles: 1024 }, "warning", /^ulimit -n 65536$/],
  [
    "memory",
    "scarce",
    { memory: { totalBytes: 2 ** 29, availableBytes: 2 ** 28 } },
    "warning",
    /add memory/,
  ],
  ["ports", "taken by another", { listeners: listener(8420, "nvmf_tgt") }, "missing", /ps -p 42/],
  ["ports", "taken by ourselves", { listeners: listener(8420, "trilith") }, "ok", /^$/],
  ["ports", "taken by somebody unseen", { listeners: listener(8081, null) }, "warning", /^sudo/],
  ["ports", "of others", { listeners: listener(22, "sshd") }, "ok", /^$/],
  ["disks", "all in use", { disks: [well.disks[0]!] }, "warning", /wipefs/],
  ["disks", "absent", { disks: [] }, "warning", /add a disk/],
  ["clock", "not set", { clock: { synchronized: false, by: "timedatectl" } }, "warning", /set-ntp/],
  ["clock", "unknown", { clock: { synchronized: null, by: null } }, "warning", /timesync-status/],
  [
    "firewall",
    "closed",
    { firewall: { kind: "ufw", openPorts: [8420] } },
    "warning",
    /^ufw allow 8420,8009,10124,10126\/tcp$/,
  ],
  ["firewall", "open enough", { firewall: { kind: "nftables", openPorts: needed } }, "ok", /^$/],
  [
    "firewall",
    "of firewalld",
    { firewall: { kind: "firewalld", openPorts: null } },
    "warning",
    /--add-port=10126\/tcp && firewall-cmd --reload$/,
  ],
  ["firewall", "unknown", { firewall: { kind: "unknown", openPorts: null } }, "warning", /^sudo/],
  [
    "data directory",
    "full",
    { dataDir: { ...well.dataDir, freeBytes: 1000 } },
    "missing",
    /make room/,
  ],
  [
    "data directory",
    "open to all",
    { dataDir: { ...well.dataDir, mode: 0o755 } },
    "missing",
    /^chmod 750/,
  ],
  [
    "data directory",
    "somebody else's",
    { dataDir: { ...well.dataDir, writable: false } },
    "warning",
    /^sudo/,
  ],
  [
    "data directory",
    "not there yet",
    { dataDir: { ...well.dataDir, exists: false, mode: 0 } },
    "ok",
    /^$/,
  ],
];

describe("doctor", () => {
  test("finds nothing on a machine where all is well", () => {
    expect(diagnose(well, "both").filter(({ status }) => status !== "ok")).toEqual([]);
  });

  for (const [check, what, change, status, remedy] of cases) {
    test(`judges ${check}: ${what}`, () => {
      const found = finding(check, change);
      expect(found.status).toBe(status);
      expect(found.remedy).toMatch(remedy);
      // Whatever is wrong comes with what to do about it.
      expect(found.remedy !== "").toBe(status !== "ok");
    });
  }

  test("asks of a machine only what it is to do", () => {
    const bare: Facts = { ...well, nvmeTcp: "missing", nvmeMultipath: false, nvmeCli: false };
    const wrong = (role: Role) => diagnose(bare, role).some(({ status }) => status === "missing");
    expect([wrong("storage"), wrong("host"), wrong("both")]).toEqual([false, true, true]);
    expect(diagnose(well, "host").map(({ check }) => check)).not.toContain("disks");
  });

  test("reads single ports and ranges out of a firewall's rules", () => {
    expect(portsIn("tcp dport { 22, 8420, 10000-10130 } accept", needed)).toEqual([
      8420, 10124, 10126,
    ]);
    expect(portsIn("8009/tcp ALLOW", needed)).toEqual([8009]);
    expect(portsIn("nothing", needed)).toEqual([]);
  });

  test("sees this machine as it is", async () => {
    const data = folder();
    const server = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    const { port } = server.address() as { port: number };
    try {
      const facts = await gatherFacts(data, needed);
      expect(facts.kernel).toBe((await Bun.file("/proc/sys/kernel/osrelease").text()).trim());
      // The tests of the engine need io_uring, so it is there.
      expect(facts.ioUringError).toBeNull();
      expect(facts.listeners.get(port)?.pid).toBe(process.pid);
      expect(facts.memory.totalBytes).toBeGreaterThan(2 ** 27);
      expect(facts.dataDir).toMatchObject({
        path: data,
        exists: true,
        mode: 0o700,
        writable: true,
      });
      expect(facts.dataDir.freeBytes).toBeGreaterThan(0);
      expect(diagnose(facts, "both").length).toBe(14);
    } finally {
      server.close();
    }
  });

  test("prints its findings, and ends with a status that says whether something is missing", async () => {
    const args = ["doctor", "--data-dir", folder(), "-o", "json"];
    const json = await runLine(args);
    const { ok, findings } = JSON.parse(json.out) as { ok: boolean; findings: Finding[] };
    expect(json.status).toBe(ok ? 0 : 6);
    expect(ok).toBe(findings.every(({ status }) => status !== "missing"));
    const text = await runLine(args.slice(0, 3));
    expect(text.status).toBe(json.status);
    for (const { check, remedy } of findings) {
      expect(text.out).toContain(check);
      expect(text.out).toContain(remedy);
    }
  });
});
