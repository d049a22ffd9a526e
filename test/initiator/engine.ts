/**
 * The engine that a guest connects to, as the tests see it: started, told to change, killed,
 * started again. The only file that knows how that is done.
 */
import { mkdtempSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Subprocess } from "bun";
import type { AnaState } from "./ana.ts";
import type { EngineConfig, Order, PathConfig, SubsystemConfig } from "./engine-process.ts";
import { SERVER_TIMEOUT_MS } from "./limits.ts";

export interface EngineOptions {
  readonly subsystems: readonly SubsystemConfig[];
  /** ANA state of each way to the subsystems; one that is optimized by default. */
  readonly paths?: readonly AnaState[];
}

/** Port of I/O and discovery, and the well-known one of discovery alone. */
export const IO_PORT = 8420;
export const DISCOVERY_PORT = 8009;

const NQN_PREFIX = "nqn.2019-05.io.openebs:";

/** The NQN of a test's subsystem. */
export function nqnOf(name: string): string {
  return NQN_PREFIX + name;
}

let addressesTaken = 0;

/** A loopback address that no other process of the tests takes: made from this process' id. */
function takeAddress(): string {
  addressesTaken++;
  if (addressesTaken > 254) throw new Error("one test process has 254 addresses");
  return `127.${64 + ((process.pid >> 8) & 127)}.${process.pid & 255}.${addressesTaken}`;
}

const running = new Set<TestEngine>();
process.on("exit", () => {
  for (const engine of running) void engine.kill();
});

export class TestEngine {
  /** Addresses of the paths, in the order of `EngineOptions.paths`. */
  readonly addresses: readonly string[];
  readonly #config: EngineConfig;
  #process!: Subprocess<"pipe", "pipe", "pipe">;
  #log = "";
  /** Resolves when the engine has said its last. */
  #logEnd: Promise<void> = Promise.resolve();
  /** Lines that the engine wrote and nobody has read, and who waits for the next. */
  #lines: string[] = [];
  #onLine: ((line: string | undefined) => void) | null = null;
  #silent = false;

  private constructor(options: EngineOptions) {
    const paths = (options.paths ?? ["optimized"]).map(
      (anaState): PathConfig => ({
        address: takeAddress(),
        ports: [IO_PORT, DISCOVERY_PORT],
        anaState,
      }),
    );
    this.#config = { subsystems: options.subsystems, paths };
    this.addresses = paths.map((path) => path.address);
  }

  /** Starts an engine and waits until it listens. */
  static async start(options: EngineOptions): Promise<TestEngine> {
    const engine = new TestEngine(options);
    await engine.start();
    return engine;
  }

  /** Address of the first path. */
  get address(): string {
    return this.addresses[0]!;
  }

  /** Starts the engine again after `kill`, with the same devices under the same addresses. */
  async start(): Promise<void> {
    const main = join(import.meta.dir, "engine-process.ts");
    this.#process = Bun.spawn([process.execPath, main, JSON.stringify(this.#config)], {
      stdio: ["pipe", "pipe", "pipe"],
    });
    running.add(this);
    this.#lines = [];
    this.#silent = false;
    this.#log = "";
    this.#logEnd = this.#collectLog(this.#process.stderr);
    void this.#collectLines(this.#process.stdout);
    const said = await this.#line();
    if (said !== "READY") throw this.#failure(`it said "${said}"`);
  }

  /** Changes the ANA state of a path for every subsystem. */
  setAnaState(path: number, state: AnaState): Promise<void> {
    return this.#order({ do: "ana", path, state });
  }

  /** Ends the engine as if its node lost power (SIGKILL) and waits until it is gone. */
  async kill(): Promise<void> {
    running.delete(this);
    this.#process.kill("SIGKILL");
    await this.#process.exited;
  }

  /** Stops the engine in good order. Throws when it had crashed or does not end by itself. */
  async stop(): Promise<void> {
    running.delete(this);
    await this.#process.stdin.end();
    const late = setTimeout(() => this.#process.kill("SIGKILL"), SERVER_TIMEOUT_MS);
    const status = await this.#process.exited;
    clearTimeout(late);
    if (status !== 0) throw this.#failure(`it ended with status ${status}`);
  }

  async #order(order: Order): Promise<void> {
    this.#process.stdin.write(`${JSON.stringify(order)}\n`);
    await this.#process.stdin.flush();
    const answer = await this.#line();
    if (answer !== "ok") throw this.#failure(`${order.do}: ${answer}`);
  }

  /** The next line that the engine writes. */
  async #line(): Promise<string> {
    const late = setTimeout(() => this.#process.kill("SIGKILL"), SERVER_TIMEOUT_MS);
    const line =
      this.#lines.shift() ??
      (this.#silent
        ? undefined
        : await new Promise<string | undefined>((resolve) => {
            this.#onLine = resolve;
          }));
    clearTimeout(late);
    if (line !== undefined) return line;
    await this.#logEnd;
    throw this.#failure(`it ended, or did not answer within ${SERVER_TIMEOUT_MS} ms`);
  }

  async #collectLines(stream: ReadableStream<Uint8Array>): Promise<void> {
    let text = "";
    for await (const bytes of stream) {
      text += Buffer.from(bytes).toString();
      const lines = text.split("\n");
      text = lines.pop()!;
      for (const line of lines) this.#said(line);
    }
    this.#silent = true;
    this.#said(undefined);
  }

  #said(line: string | undefined): void {
    const waiting = this.#onLine;
    this.#onLine = null;
    if (waiting !== null) waiting(line);
    else if (line !== undefined) this.#lines.push(line);
  }

  async #collectLog(stream: ReadableStream<Uint8Array>): Promise<void> {
    for await (const bytes of stream) this.#log += Buffer.from(bytes).toString();
  }

  #failure(what: string): Error {
    return new Error(`engine: ${what}\n${this.#log.trimEnd().split("\n").slice(-40).join("\n")}`);
  }
}

/** A folder of sparse files for engines to serve; removed by `remove`. */
export class DiskFolder {
  readonly path = mkdtempSync(join(tmpdir(), "trilith-disks-"));

  /** Makes a file of `mib` MiB and returns the URI of a device over it. */
  disk(name: string, mib: number, parameters: string): string {
    const path = join(this.path, name);
    writeFileSync(path, "");
    truncateSync(path, mib << 20);
    return `uring://${path}?${parameters}`;
  }

  /** Bytes that a disk's file takes on the file system it lies on. */
  allocatedBytes(name: string): number {
    return statSync(join(this.path, name)).blocks * 512;
  }

  remove(): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}
