/**
 * The engines that guests connect to: real `trilith engine` processes, told what to do over their
 * RPC. The only file that knows how they are started, killed and started again.
 */
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Subprocess } from "bun";
import { openFileRecorder, recorderHandlers } from "../../src/engine/recorder.ts";
import { type EngineClient, engineClient } from "../../src/engine/rpc/client.ts";
import type { AnaStateName } from "../../src/engine/rpc/fields.ts";
import { recorderContract } from "../../src/engine/rpc/records.ts";
import { contractApp } from "../../src/engine/rpc.ts";
import { ENGINE_POLL_MS, ENGINE_TIMEOUT_MS, LOG_LINES_QUOTED } from "./limits.ts";

/** Ports of I/O and of discovery alone; the engine's own defaults. */
export const IO_PORT = 8420;
export const DISCOVERY_PORT = 8009;
const RPC_PORT = 10124;

const NQN_PREFIX = "nqn.2019-05.io.openebs:";

/** The NQN of a test's subsystem. */
export function nqnOf(name: string): string {
  return NQN_PREFIX + name;
}

/** A device and how it is served. */
export interface ServedDevice {
  readonly nqn: string;
  /** URI of the device. */
  readonly device: string;
  /** Host NQNs admitted; every host without it. */
  readonly hosts?: readonly string[];
  /** Engines that serve the same NQN have ranges of their own. */
  readonly controllerIds?: { readonly min: number; readonly max: number };
  readonly anaState?: AnaStateName;
}

let addressesTaken = 0;

/** A loopback address that no other process of the tests takes: made from this process' id. */
function takeAddress(): string {
  addressesTaken++;
  if (addressesTaken > 254) throw new Error("one test process has 254 addresses");
  return `127.${64 + ((process.pid >> 8) & 127)}.${process.pid & 255}.${addressesTaken}`;
}

function engineCommand(): string[] {
  const executable = process.env.TRILITH_EXECUTABLE;
  if (executable !== undefined && executable !== "") return [executable];
  return [process.execPath, join(import.meta.dir, "../../src/main.ts")];
}

/** Engines of this process that have not been stopped. */
const running = new Set<TestEngine>();
process.on("exit", () => {
  for (const engine of running) engine.discard();
});

export class TestEngine {
  readonly address = takeAddress();
  readonly rpc: EngineClient = engineClient(`http://${this.address}:${RPC_PORT}`);
  readonly #served: readonly ServedDevice[];
  readonly #folder = mkdtempSync(join(tmpdir(), "trilith-engine-"));
  readonly #anaStates = new Map<string, AnaStateName>();
  /** Names of the devices by NQN. */
  readonly #devices = new Map<string, string>();
  readonly #recorder: string | undefined;
  #process: Subprocess | null = null;

  private constructor(served: readonly ServedDevice[], recorder: string | undefined) {
    this.#served = served;
    this.#recorder = recorder;
    for (const { nqn, anaState } of served) this.#anaStates.set(nqn, anaState ?? "optimized");
    running.add(this);
  }

  /** Starts an engine on an address of its own and has it serve `served`. */
  static async start(
    served: readonly ServedDevice[],
    options: { readonly recorder?: string } = {},
  ): Promise<TestEngine> {
    const engine = new TestEngine(served, options.recorder);
    await engine.start();
    return engine;
  }

  /**
   * Starts the engine; after `kill` or `stop` again: with the same address and data directory, and
   * serving the same devices in their last ANA states.
   */
  async start(): Promise<void> {
    // setpriv has the kernel end the engine when this process dies in a way that leaves no time to.
    const command = ["setpriv", "--pdeathsig", "KILL", "--", ...engineCommand(), "engine"];
    command.push("--data-dir", join(this.#folder, "data"), "--node-name", this.address);
    command.push("--listen", this.address, "--rpc", `${this.address}:${RPC_PORT}`);
    command.push("--reactors", "1", "--nbd-port", "none");
    if (this.#recorder !== undefined) command.push("--recorder", this.#recorder);
    const log = Bun.file(this.#logPath);
    this.#process = Bun.spawn(command, { stdio: ["ignore", log, log] });
    await this.#answers();
    for (const { nqn, device } of this.#served) {
      const { name } = await this.rpc.createBdev({ uri: device });
      this.#devices.set(nqn, name);
      await this.#share(nqn);
    }
  }

  /** Changes the ANA state of a subsystem. */
  async setAnaState(nqn: string, state: AnaStateName): Promise<void> {
    this.#anaStates.set(nqn, state);
    await this.#share(nqn);
  }

  /** Ends the engine as if its node lost power (SIGKILL) and waits until it is gone. */
  async kill(): Promise<void> {
    this.#process?.kill("SIGKILL");
    await this.#process?.exited;
    this.#process = null;
  }

  /** Has the engine do nothing until `thaw`, as a machine does that is suspended. */
  freeze(): void {
    this.#process?.kill("SIGSTOP");
  }

  thaw(): void {
    this.#process?.kill("SIGCONT");
  }

  /** Has the engine stop in good order. Throws when it had ended before or ends with an error. */
  async stop(): Promise<void> {
    const engine = this.#process;
    if (engine === null) return;
    engine.kill("SIGTERM");
    const late = setTimeout(() => engine.kill("SIGKILL"), ENGINE_TIMEOUT_MS);
    const status = await engine.exited;
    clearTimeout(late);
    this.#process = null;
    if (status !== 0) throw this.#failure(`it ended with status ${status}`);
  }

  /** Stops the engine, if it runs, and removes what it keeps. Throws as `stop` does. */
  async end(): Promise<void> {
    try {
      await this.stop();
    } finally {
      this.discard();
    }
  }

  /** Ends the engine in whatever state it is and removes what it keeps. */
  discard(): void {
    running.delete(this);
    this.#process?.kill("SIGKILL");
    rmSync(this.#folder, { recursive: true, force: true });
  }

  get #logPath(): string {
    return join(this.#folder, "log");
  }

  /** Waits until the RPC answers. */
  async #answers(): Promise<void> {
    const deadline = Date.now() + ENGINE_TIMEOUT_MS;
    for (;;) {
      try {
        await this.rpc.getInfo();
        return;
      } catch (error) {
        const exitCode = this.#process!.exitCode;
        if (exitCode !== null) throw this.#failure(`it ended with status ${exitCode}`);
        if (Date.now() > deadline) throw this.#failure(`it does not answer: ${error}`);
        await Bun.sleep(ENGINE_POLL_MS);
      }
    }
  }

  async #share(nqn: string): Promise<void> {
    const { hosts, controllerIds } = this.#served.find((served) => served.nqn === nqn)!;
    await this.rpc.shareBdevNvmf({
      name: this.#devices.get(nqn)!,
      nqn,
      anaState: this.#anaStates.get(nqn)!,
      ...(hosts === undefined ? {} : { allowedHosts: [...hosts] }),
      ...(controllerIds === undefined ? {} : { controllerIds }),
    });
  }

  #failure(what: string): Error {
    const log = readFileSync(this.#logPath, "utf8").trimEnd().split("\n");
    return new Error(`engine: ${what}\n${log.slice(-LOG_LINES_QUOTED).join("\n")}`);
  }
}

/** The record of healthy children that engines share, kept by this process. */
export function startRecorder(): { readonly url: string; stop(): void } {
  const folder = mkdtempSync(join(tmpdir(), "trilith-recorder-"));
  const recorder = openFileRecorder(join(folder, "records"), () => new Date());
  const app = contractApp(recorderContract, recorderHandlers(recorder), () => {});
  const server = Bun.serve({ hostname: takeAddress(), port: 0, fetch: app.fetch });
  return {
    url: `http://${server.hostname}:${server.port}`,
    stop() {
      void server.stop(true);
      recorder.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** A folder of sparse files for engines to serve. */
export class DiskFolder {
  readonly path = mkdtempSync(join(tmpdir(), "trilith-disks-"));

  /** Makes a file of `mib` MiB and returns the URI of a device over it. */
  disk(name: string, mib: number, parameters: string): string {
    const path = join(this.path, name);
    writeFileSync(path, "");
    truncateSync(path, mib << 20);
    return `${this.uri(name)}?${parameters}`;
  }

  uri(name: string): string {
    return `uring://${join(this.path, name)}`;
  }

  /** Bytes that a disk's file takes on the file system it lies on. */
  allocatedBytes(name: string): number {
    return statSync(join(this.path, name)).blocks * 512;
  }

  remove(): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}
