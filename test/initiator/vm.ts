/**
 * A Linux host to serve: Debian's kernel in QEMU, under software emulation, that reaches this
 * machine's loopback addresses and runs scripts which tests give it.
 *
 *   const guest = await Guest.boot();
 *   await guest.ok(`nvme discover -t tcp -a 127.0.0.1 -s 8420`);
 *   await guest.stop();
 *
 * Scripts run in bash with `set -eu -o pipefail` and the functions of guest/functions.sh. A guest
 * has several lanes (virtio ports); a script has one to itself for its input and output, so that
 * scripts may run at once. A guest powers off when this process goes away.
 */
import { randomUUID } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Subprocess } from "bun";
import { executablePath } from "../support/executable.ts";
import { CpioArchive } from "./cpio.ts";
import { guestImage, KERNEL_DEFAULT } from "./guest-image.ts";
import { Lane, type ScriptHandlers } from "./lane.ts";
import {
  BOOT_TIMEOUT_MS,
  CONSOLE_LINES_QUOTED,
  COPY_TIMEOUT_MS,
  GUEST_CPUS,
  GUEST_LANES,
  GUEST_MEMORY_MIB,
  OUTPUT_LINES_QUOTED,
  POWER_OFF_TIMEOUT_MS,
  SCRIPT_TIMEOUT_MS,
} from "./limits.ts";

export interface GuestOptions {
  /** Debian package of the kernel. */
  readonly kernelPackage?: string;
  /** Host NQN and host id as one UUID; a random one by default. */
  readonly hostUuid?: string;
  /** Command that runs QEMU elsewhere, such as in another network namespace. */
  readonly within?: readonly string[];
}

export interface ScriptOptions extends ScriptHandlers {
  /** `$1`, `$2` and so on. */
  readonly args?: readonly string[];
  readonly timeoutMs?: number;
}

/** How a script ended: its exit status and everything it wrote. */
export interface ScriptResult {
  readonly status: number;
  readonly output: string;
}

// The rate of the TSC is found out while the guest boots. On a loaded machine that goes wrong by whole
// factors, and all of the guest's time-outs with it; the ACPI timer has a fixed rate.
const KERNEL_ARGUMENTS = [
  "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic nokaslr mitigations=off clocksource=acpi_pm",
  "no_timer_check random.trust_cpu=on audit=0 selinux=0 apparmor=0 nvme_core.multipath=Y",
].join(" ");

/** Where a guest has the product's executable, see `Guest.install`; `trilith` is guest/trilith.sh. */
const EXECUTABLE = "/opt/trilith/trilith";

/** What the kernel says when I/O failed, data was damaged, something hung, or it stumbled itself. */
const COMPLAINT = new RegExp(
  [
    "I/O error|lost (async|sync) page write|critical \\w+ error|digest error|identifiers changed",
    "blocked for more than|BUG:|WARNING:|Call Trace|Oops|general protection",
    "EXT4-fs (error|warning)|JBD2.*error|XFS .*(error|corrupt|shut ?down)",
  ].join("|"),
  "i",
);

/** Guests of this process that have not been stopped. */
const running = new Set<Guest>();
process.on("exit", () => {
  for (const guest of running) guest.kill();
});

export class Guest {
  readonly hostUuid: string;
  readonly hostNqn: string;
  readonly #folder: string;
  readonly #lanes: readonly Lane[];
  readonly #idle: Lane[];
  readonly #waiting: ((lane: Lane) => void)[] = [];
  readonly #process: Subprocess;
  /** Why the guest cannot be used any more; empty while it can. */
  #ended = "";

  private constructor(folder: string, lanes: readonly Lane[], qemu: Subprocess, uuid: string) {
    this.#folder = folder;
    this.#lanes = lanes;
    this.#idle = [...lanes];
    this.#process = qemu;
    this.hostUuid = uuid;
    this.hostNqn = hostNqnOf(uuid);
    running.add(this);
    void qemu.exited.then((status) => this.#end(`the guest is gone (QEMU's status: ${status})`));
  }

  /** Starts a guest and waits until it runs scripts. Builds the image when it is the first. */
  static async boot(options: GuestOptions = {}): Promise<Guest> {
    const image = await guestImage(options.kernelPackage ?? KERNEL_DEFAULT);
    const folder = mkdtempSync(join(tmpdir(), "trilith-guest-"));
    const uuid = options.hostUuid ?? randomUUID();
    const initrd = join(folder, "initrd");
    // The kernel unpacks both archives, the second over the first.
    writeFileSync(initrd, readFileSync(image.initramfs));
    for (const part of overlay(uuid)) writeFileSync(initrd, part, { flag: "a" });
    const lanes = Array.from({ length: GUEST_LANES }, (_, i) => new Lane(join(folder, `lane${i}`)));
    const command = qemuCommand(folder, image.kernel, initrd, lanes, options.within ?? []);
    const qemu = Bun.spawn(command, {
      stdio: ["ignore", "ignore", Bun.file(join(folder, "qemu.log"))],
    });
    const guest = new Guest(folder, lanes, qemu, uuid);
    try {
      await guest.ok("true", { timeoutMs: BOOT_TIMEOUT_MS });
    } catch (error) {
      await guest.stop();
      throw error;
    }
    rmSync(initrd);
    return guest;
  }

  /** Runs a script and returns how it ended. Throws only when the guest fails or time runs out. */
  async run(script: string, options: ScriptOptions = {}): Promise<ScriptResult> {
    if (this.#ended !== "") throw this.#failure(this.#ended);
    const lane = this.#idle.pop() ?? (await new Promise<Lane>((take) => this.#waiting.push(take)));
    const timeoutMs = options.timeoutMs ?? SCRIPT_TIMEOUT_MS;
    const late = setTimeout(() => {
      this.#end(`no end within ${timeoutMs / 1000} s of the script\n${indent(script)}`, lane);
      this.kill();
    }, timeoutMs);
    const args = (options.args ?? []).map(quote).join(" ");
    try {
      if (this.#ended !== "") throw this.#failure(this.#ended);
      return await lane.run(`set -eu -o pipefail\nset -- ${args}\n${script}\n`, options);
    } finally {
      clearTimeout(late);
      const next = this.#waiting.shift();
      if (next === undefined) this.#idle.push(lane);
      else next(lane);
    }
  }

  /** Runs a script that must succeed and returns its output without the last line end. */
  async ok(script: string, options: ScriptOptions = {}): Promise<string> {
    const result = await this.run(script, options);
    if (result.status === 0) return result.output.replace(/\n$/, "");
    const said = lastLines(result.output, OUTPUT_LINES_QUOTED);
    throw this.#failure(`status ${result.status} of the script\n${indent(script)}\n${said}`);
  }

  /** Runs a command that must succeed and print JSON; what it says on standard error is dropped. */
  async json(command: string): Promise<unknown> {
    const output = await this.ok(`{ ${command}\n} 2>/run/said || { cat /run/said; exit 1; }`);
    try {
      return JSON.parse(output);
    } catch {
      throw this.#failure(`not JSON, from ${command}:\n${output}`);
    }
  }

  /**
   * Gives the guest a copy of a file of this machine. It comes over the guest's network: an executable of
   * 120 MB takes a few seconds, and memory of the guest as long as it is there.
   */
  async copyIn(from: string, to: string, mode = "644"): Promise<void> {
    const server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      idleTimeout: 0,
      fetch: () => new Response(Bun.file(from)),
    });
    try {
      const url = `http://127.0.0.1:${server.port}/`;
      const script = 'mkdir -p "$(dirname "$2")"; wget -q -O "$2" "$1"; chmod "$3" "$2"';
      await this.ok(script, { args: [url, to, mode], timeoutMs: COPY_TIMEOUT_MS });
      const there = Number(await this.ok('stat -c %s "$1"', { args: [to] }));
      if (there !== Bun.file(from).size) throw this.#failure(`${to} came in part: ${there} bytes`);
    } finally {
      await server.stop(true);
    }
  }

  /** Gives the guest the product's executable: from then on scripts may call `trilith`. */
  async install(): Promise<void> {
    await this.copyIn(executablePath(), EXECUTABLE, "755");
  }

  /** Lines of the kernel's log so far. */
  kernelLog(): string[] {
    const text = readFileSync(join(this.#folder, "console"), "utf8");
    return text.replaceAll("\r", "").split("\n");
  }

  /** Lines of the kernel's log that tell of an error nobody should have seen. */
  complaints(): string[] {
    return this.kernelLog().filter((line) => COMPLAINT.test(line));
  }

  /** Powers the guest off, or ends it when it does not, and removes what it leaves. */
  async stop(): Promise<void> {
    for (const lane of this.#lanes) lane.close();
    const late = setTimeout(() => this.kill(), POWER_OFF_TIMEOUT_MS);
    await this.#process.exited;
    clearTimeout(late);
    running.delete(this);
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** Ends the virtual machine at once, as if its power were cut. */
  kill(): void {
    this.#process.kill("SIGKILL");
  }

  /** Fails what runs and what waits; `cause` is the lane whose script is to blame, if any. */
  #end(reason: string, cause?: Lane): void {
    if (this.#ended !== "") return;
    this.#ended = reason;
    cause?.fail(this.#failure(`${reason}\n${lastLines(cause.output, OUTPUT_LINES_QUOTED)}`));
    for (const lane of this.#lanes) lane.fail(this.#failure(reason));
  }

  #failure(what: string): Error {
    const kernel = lastLines(this.kernelLog().join("\n"), CONSOLE_LINES_QUOTED);
    const qemu = readFileSync(join(this.#folder, "qemu.log"), "utf8");
    const parts = [`guest: ${what}`, "the kernel's last words:", kernel];
    if (qemu !== "") parts.push("QEMU:", indent(qemu));
    return new Error(parts.join("\n"));
  }
}

/** Files of the guest that belong to the tests, not to the image. */
function overlay(uuid: string): readonly Uint8Array[] {
  const archive = new CpioArchive();
  const source = (name: string) => readFileSync(join(import.meta.dir, "guest", name));
  archive.file("init", source("init.sh"), 0o755);
  archive.file("host/lane.sh", source("lane.sh"), 0o755);
  archive.file("host/functions.sh", source("functions.sh"));
  archive.file("bin/trilith", source("trilith.sh"), 0o755);
  archive.file("etc/nvme/hostnqn", `${hostNqnOf(uuid)}\n`);
  archive.file("etc/nvme/hostid", `${uuid}\n`);
  return archive.finish();
}

/** The host NQN that belongs to a host id. */
export function hostNqnOf(uuid: string): string {
  return `nqn.2014-08.org.nvmexpress:uuid:${uuid}`;
}

function qemuCommand(
  folder: string,
  kernel: string,
  initrd: string,
  lanes: readonly Lane[],
  within: readonly string[],
): string[] {
  // setpriv has the kernel end QEMU when this process dies in a way that leaves no time to.
  const command = ["setpriv", "--pdeathsig", "KILL", "--", ...within, "qemu-system-x86_64"];
  command.push("-machine", "pc", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max,la57=off");
  command.push("-smp", String(GUEST_CPUS), "-m", String(GUEST_MEMORY_MIB));
  command.push("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot");
  command.push("-kernel", kernel, "-initrd", initrd, "-append", KERNEL_ARGUMENTS);
  command.push("-serial", `file:${join(folder, "console")}`);
  command.push("-device", "virtio-rng-pci");
  command.push("-netdev", "user,id=net0,ipv6=off");
  command.push("-device", "virtio-net-pci,netdev=net0,romfile=");
  command.push("-device", "virtio-serial-pci");
  for (const [i, lane] of lanes.entries()) {
    command.push("-chardev", `socket,id=lane${i},path=${lane.path}`);
    command.push("-device", `virtserialport,chardev=lane${i},name=lane${i}`);
  }
  return command;
}

/** `text` as one word of a shell command. */
export function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function indent(text: string): string {
  return text
    .trimEnd()
    .split("\n")
    .map((line) => `  | ${line}`)
    .join("\n");
}

function lastLines(text: string, count: number): string {
  return indent(text.trimEnd().split("\n").slice(-count).join("\n"));
}
