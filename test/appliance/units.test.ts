import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SOCKET_DEFAULT } from "../../src/client/endpoint.ts";
import { executablePath, projectRoot, runCommand } from "../support/executable.ts";
import { tempFolders } from "../support/temp-folder.ts";

const folder = tempFolders();
/** Those that start with the machine, and one for machines that attach volumes; with what each may expose. */
const exposures = {
  "trilith.service": 15,
  "trilith-engine.service": 20,
  "trilith-host.service": 50,
  "trilith-csi.service": 60,
};
const units = Object.keys(exposures) as (keyof typeof exposures)[];
const textOf = (name: string) => readFileSync(join(projectRoot, "systemd", name), "utf8");

/** The units in a folder of their own, with the executable's path on this machine. */
function unitsForHere(): string[] {
  const place = folder();
  return units.map((name) => {
    const path = join(place, name);
    writeFileSync(path, textOf(name).replaceAll("/usr/bin/trilith", executablePath()));
    return path;
  });
}

/** Values of a setting, in order. */
function settings(unit: string, name: string): string[] {
  return [...textOf(unit).matchAll(new RegExp(`^${name}=(.*)$`, "gm"))].map((match) => match[1]!);
}

/** System calls that a filter group stands for. */
function callsOf(group: string, seen = new Set<string>()): Set<string> {
  const calls = new Set<string>();
  if (seen.has(group)) return calls;
  seen.add(group);
  const listed = runCommand(["systemd-analyze", "syscall-filter", group]).stdout;
  for (const [, name] of listed.matchAll(/^ {4}(@?[a-z][\w-]*)$/gm)) {
    if (name!.startsWith("@")) for (const call of callsOf(name!, seen)) calls.add(call);
    else calls.add(name!);
  }
  return calls;
}

describe("the units", () => {
  test("are without fault for systemd-analyze", () => {
    const result = runCommand(["systemd-analyze", "verify", "--man=no", ...unitsForHere()]);
    expect(result.stderr).toBe("");
    expect(result.status).toBe(0);
  });

  for (const [index, name] of units.entries()) {
    test(`${name} exposes little`, () => {
      // 0 is nothing, 10 everything. What both need (the network, memory that is written and executed)
      // costs 1.3, the engine's block devices 0.3 more; the agent is root and sees all file systems.
      const threshold = exposures[name]; // in tenths
      const options = ["--offline=true", "--no-pager", `--threshold=${threshold}`];
      const path = unitsForHere()[index]!;
      const result = runCommand(["systemd-analyze", "security", ...options, path]);
      expect(result.stdout).toContain("Overall exposure level");
      expect(result.status).toBe(0);
    });

    test(`${name} runs a verb that exists`, () => {
      const [command] = settings(name, "ExecStart");
      const [executable, ...verb] = command!.split(" ");
      expect(executable).toBe("/usr/bin/trilith");
      expect(runCommand([executablePath(), ...verb, "--help"]).status).toBe(0);
    });
  }

  test("the engine's filter lets through what rings and memory need, and no privileged call", () => {
    const allowed = new Set<string>();
    for (const filter of settings("trilith-engine.service", "SystemCallFilter")) {
      const groups = filter.replace(/^~/, "").split(" ");
      for (const call of groups.flatMap((group) => [...callsOf(group)])) {
        if (filter.startsWith("~")) allowed.delete(call);
        else allowed.add(call);
      }
    }
    const needed = [
      "io_uring_setup",
      "io_uring_enter",
      "io_uring_register",
      "memfd_create",
      "mmap",
    ];
    const also = [
      "madvise",
      "sched_setaffinity",
      "eventfd2",
      "flock",
      "ioctl",
      "socket",
      "fallocate",
    ];
    expect([...needed, ...also].filter((call) => !allowed.has(call))).toEqual([]);
    const forbidden = ["mount", "init_module", "setuid", "chown", "reboot", "ptrace", "bpf"];
    expect(forbidden.filter((call) => allowed.has(call))).toEqual([]);
  });

  test("the engine may use every block device, compile code, and lock memory", () => {
    const unit = "trilith-engine.service";
    expect(settings(unit, "DeviceAllow")).toEqual(["block-* rw"]);
    expect(settings(unit, "PrivateDevices")).toEqual([]);
    expect(settings(unit, "MemoryDenyWriteExecute")).toEqual([]);
    expect(settings(unit, "LimitMEMLOCK")).toEqual(["infinity"]);
    expect(settings(unit, "SupplementaryGroups")).toEqual(["disk"]);
    expect(settings(unit, "CapabilityBoundingSet")).toEqual([""]);
  });

  test("the control process has its socket where clients look for it, and no device", () => {
    const unit = "trilith.service";
    expect(settings(unit, "Environment")).toEqual([`TRILITH_REST_SOCKET=${SOCKET_DEFAULT}`]);
    expect(SOCKET_DEFAULT).toStartWith(`/run/${settings(unit, "RuntimeDirectory")[0]}/`);
    expect(settings(unit, "PrivateDevices")).toEqual(["yes"]);
    expect(settings(unit, "MemoryDenyWriteExecute")).toEqual([]);
    expect(settings(unit, "CapabilityBoundingSet")).toEqual([""]);
    // The engine goes on when this unit is stopped.
    expect(settings(unit, "Requires")).toEqual([]);
    expect(settings(unit, "BindsTo")).toEqual([]);
  });

  test("at shutdown the engine stops while the control process is there to move what it serves", () => {
    // What starts later stops earlier.
    expect(settings("trilith-engine.service", "After")).toContain("trilith.service");
    expect(settings("trilith.service", "After").join(" ")).not.toContain("trilith-engine");
  });

  test("the user is made, with the group that owns disks", () => {
    const root = folder();
    for (const name of ["etc", "usr/lib/sysusers.d"]) {
      runCommand(["mkdir", "-p", join(root, name)]);
    }
    writeFileSync(join(root, "etc/group"), "root:x:0:\ndisk:x:6:\n");
    writeFileSync(join(root, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n");
    const conf = join(projectRoot, "systemd/trilith.sysusers.conf");
    const result = runCommand(["systemd-sysusers", `--root=${root}`, conf]);
    expect(`${result.stderr} ${result.status}`).toEndWith(" 0");
    expect(readFileSync(join(root, "etc/passwd"), "utf8")).toMatch(
      /^trilith:x:\d+:\d+:Trilith storage:\/var\/lib\/trilith:.*nologin$/m,
    );
    expect(readFileSync(join(root, "etc/group"), "utf8")).toMatch(/^disk:x:6:trilith$/m);
  });

  test("directories are made", () => {
    const root = folder();
    runCommand(["mkdir", "-p", join(root, "etc")]);
    writeFileSync(
      join(root, "etc/passwd"),
      "root:x:0:0::/:/bin/sh\ntrilith:x:990:990::/:/bin/sh\n",
    );
    writeFileSync(join(root, "etc/group"), "root:x:0:\ntrilith:x:990:\n");
    const conf = join(projectRoot, "systemd/trilith.tmpfiles.conf");
    const args = ["systemd-tmpfiles", "--create", `--root=${root}`, conf];
    expect(runCommand(args).status).toBe(0);
    expect(readdirSync(join(root, "etc"))).toContain("trilith");
    expect(readdirSync(join(root, "var/lib"))).toEqual(["trilith"]);
  });

  test("the agent ends after remote file systems are unmounted, and before the network does", () => {
    const unit = "trilith-host.service";
    expect(settings(unit, "Before")).toEqual(["remote-fs-pre.target"]);
    expect(settings(unit, "Wants")[0]!.split(" ")).toContain("remote-fs-pre.target");
    expect(settings(unit, "After")[0]!.split(" ")).toContain("network-online.target");
    expect(settings(unit, "KillMode")).toEqual(["mixed"]);
    // With a mount namespace it would see others' mounts late, and might keep what they unmount.
    for (const name of ["ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateMounts"]) {
      expect(settings(unit, name)).toEqual([]);
    }
  });

  test("the preset names them, and the module is the NVMe/TCP host's", () => {
    const preset = textOf("80-trilith.preset").split("\n");
    const [control, engine, host, csi] = units;
    expect(preset).toContain(`enable ${control}`);
    expect(preset).toContain(`enable ${engine}`);
    expect(preset).toContain(`disable ${host}`);
    expect(preset).toContain(`disable ${csi}`);
    expect(textOf("trilith.modules-load.conf")).toMatch(/^nvme-tcp$/m);
  });
});
