/**
 * Engines as processes of their own, for tests of whole clusters: each on a loopback address that no
 * other test takes, with a data directory that goes away with it. They are killed the hard way and
 * started again on the same address and data.
 */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Subprocess } from "bun";
import { type EngineClient, engineClient } from "../../src/engine/rpc/client.ts";
import { TrilithError } from "../../src/errors.ts";
import { projectRoot } from "./executable.ts";

const PATIENCE_MS = 25_000;
const POLL_MS = 20;
export const NVMF_PORT = 8420;
const RPC_PORT = 10124;
export const NBD_PORT = 10809;

let addressesTaken = 0;

/** A loopback address that no other process of the tests takes: made of this process' id. */
export function takeAddress(): string {
  addressesTaken++;
  if (addressesTaken > 254) throw new Error("one test process has 254 addresses");
  return `127.${192 + ((process.pid >> 8) & 31)}.${process.pid & 255}.${addressesTaken}`;
}

/** Command that runs `trilith`: the executable when one is named, else the source. */
export function trilithCommand(): string[] {
  const executable = process.env.TRILITH_EXECUTABLE;
  if (executable !== undefined && executable !== "") return [executable];
  return [process.execPath, join(projectRoot, "src/main.ts")];
}

/** Asks until `isSo`, and returns the answer. */
export async function until<T>(
  what: string,
  ask: () => Promise<T> | T,
  isSo: (answer: T) => boolean,
): Promise<T> {
  const untilMs = performance.now() + PATIENCE_MS;
  for (;;) {
    const answer = await ask();
    if (isSo(answer)) return answer;
    if (performance.now() > untilMs) {
      throw new Error(`${what}: not within ${PATIENCE_MS} ms; last: ${JSON.stringify(answer)}`);
    }
    await Bun.sleep(POLL_MS);
  }
}

const running = new Set<EngineProcess>();
process.on("exit", () => {
  for (const engine of running) engine.endNow();
});

/** Ends every engine that is still there. For `afterEach`. */
export async function endEngines(): Promise<void> {
  for (const engine of [...running]) {
    await engine.kill();
    engine.endNow();
  }
}

export interface EngineProcessOptions {
  /** Further options of `trilith engine`. */
  readonly options?: readonly string[];
  /** Another verb than `engine`, with its own options. */
  readonly verb?: readonly string[];
}

export class EngineProcess {
  readonly address = takeAddress();
  readonly folder = mkdtempSync(join(tmpdir(), "trilith-engine-"));
  readonly rpcUrl = `http://${this.address}:${RPC_PORT}`;
  readonly rpc: EngineClient = engineClient(this.rpcUrl);
  readonly hostNqn = `nqn.2019-05.io.openebs:node-name:${this.address}`;
  readonly #options: EngineProcessOptions;
  #process: Subprocess<"pipe", number, number> | null = null;

  constructor(options: EngineProcessOptions = {}) {
    this.#options = options;
    running.add(this);
  }

  get logPath(): string {
    return join(this.folder, "log");
  }

  log(): string {
    return readFileSync(this.logPath, "utf8");
  }

  get pid(): number {
    if (this.#process === null) throw new Error(`the engine of ${this.address} does not run`);
    return this.#process.pid;
  }

  /** Starts the process, without waiting for anything. */
  spawn(): Subprocess {
    const log = openSync(this.logPath, "a");
    // The engine stops when its standard input ends: it does not outlive the test.
    const command = [
      ...trilithCommand(),
      ...(this.#options.verb ?? ["engine", "--stop-on-stdin-end"]),
      ...["--data-dir", join(this.folder, "data"), "--node-name", this.address],
      ...["--listen", this.address, "--rpc", `${this.address}:${RPC_PORT}`],
      ...(this.#options.options ?? ["--reactors", "1", "--discovery-port", "none"]),
    ];
    this.#process = Bun.spawn(command, { stdin: "pipe", stdout: log, stderr: log });
    closeSync(log);
    return this.#process;
  }

  /** Starts the engine and waits until it answers. */
  async start(): Promise<this> {
    const child = this.spawn();
    const untilMs = performance.now() + PATIENCE_MS;
    for (;;) {
      try {
        await this.rpc.getInfo({}, { timeoutMs: 1000 });
        return this;
      } catch (error) {
        const isOver = child.exitCode !== null || performance.now() > untilMs;
        if (!(error instanceof TrilithError) || isOver) {
          throw new Error(`the engine of ${this.address} does not start:\n${this.log()}`);
        }
      }
      await Bun.sleep(POLL_MS);
    }
  }

  /** Ends the engine as a power failure would. */
  async kill(): Promise<void> {
    this.#process?.kill("SIGKILL");
    await this.#process?.exited;
    this.#process = null;
  }

  /** Has the engine end in order; returns its exit status. */
  async stop(): Promise<number> {
    const child = this.#process;
    if (child === null) throw new Error(`the engine of ${this.address} does not run`);
    child.kill("SIGTERM");
    const status = await child.exited;
    this.#process = null;
    return status;
  }

  /** Waits until the process has ended by itself; returns its exit status. */
  async ended(): Promise<number> {
    const child = this.#process;
    if (child === null) throw new Error(`the engine of ${this.address} does not run`);
    const status = await child.exited;
    this.#process = null;
    return status;
  }

  /** For the end of the test: kills what runs and removes the folder. */
  endNow(): void {
    running.delete(this);
    this.#process?.kill("SIGKILL");
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** Path of a sparse file that is a disk. */
  disk(name = "disk.img", bytes = 256 << 20): string {
    const path = join(this.folder, name);
    closeSync(openSync(path, "a"));
    truncateSync(path, bytes);
    return path;
  }
}
