/** One node of the demonstration: an engine process on a loopback address of its own. */
import { closeSync, mkdirSync, openSync, truncateSync } from "node:fs";
import { join } from "node:path";
import type { Subprocess } from "bun";
import { type EngineClient, engineClient } from "../engine/rpc/client.ts";
import { NVMF_PORT_DEFAULT, RPC_PORT_DEFAULT } from "../engine/settings.ts";
import { TrilithError } from "../errors.ts";
import { nodeHostNqn } from "../names.ts";
import { ownCommand } from "../ops/executable.ts";

const START_MS = 20_000;
const POLL_MS = 50;

export interface DemoNodeOptions {
  /** 1, 2, 3: the last number of its address. */
  readonly number: number;
  readonly dataDir: string;
  readonly poolBytes: number;
  readonly recorder: string;
}

export class DemoNode {
  readonly name: string;
  readonly address: string;
  readonly hostNqn: string;
  readonly rpc: EngineClient;
  readonly #options: DemoNodeOptions;
  readonly #folder: string;
  #process: Subprocess<"pipe", number, number> | null = null;

  constructor(options: DemoNodeOptions) {
    this.#options = options;
    this.name = `node-${options.number}`;
    this.address = `127.0.0.${options.number}`;
    this.hostNqn = nodeHostNqn(this.name);
    this.rpc = engineClient(`http://${this.address}:${RPC_PORT_DEFAULT}`, { timeoutMs: 30_000 });
    this.#folder = join(options.dataDir, this.name);
    mkdirSync(this.#folder, { recursive: true });
  }

  get poolName(): string {
    return `pool-${this.#options.number}`;
  }

  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  get #diskPath(): string {
    return join(this.#folder, "disk.img");
  }

  get logPath(): string {
    return join(this.#folder, "engine.log");
  }

  /** Starts the engine and waits until it answers; then makes its pool, or imports it. */
  async start(): Promise<void> {
    const log = openSync(this.logPath, "a");
    const options = {
      "node-name": this.name,
      "data-dir": join(this.#folder, "data"),
      listen: this.address,
      port: NVMF_PORT_DEFAULT,
      rpc: `${this.address}:${RPC_PORT_DEFAULT}`,
      "discovery-port": "none",
      "nbd-port": "none",
      reactors: 1,
      recorder: this.#options.recorder,
    };
    const flags = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]);
    this.#process = Bun.spawn([...ownCommand(), "engine", "--stop-on-stdin-end", ...flags], {
      stdin: "pipe",
      stdout: log,
      stderr: log,
    });
    closeSync(log);
    await this.#answers(this.#process);
    closeSync(openSync(this.#diskPath, "a"));
    truncateSync(this.#diskPath, this.#options.poolBytes);
    await this.rpc.createPool({ name: this.poolName, disks: [this.#diskPath] });
  }

  async #answers(process: Subprocess): Promise<void> {
    const untilMs = performance.now() + START_MS;
    for (;;) {
      if (process.exitCode !== null || process.signalCode !== null) {
        throw new TrilithError(
          "Unavailable",
          `the engine of ${this.name} ended at once: ${await this.#lastLogLine()}`,
          `see ${this.logPath}`,
        );
      }
      try {
        await this.rpc.getInfo({}, { timeoutMs: 1000 });
        return;
      } catch (error) {
        if (!(error instanceof TrilithError) || performance.now() > untilMs) throw error;
      }
      await Bun.sleep(POLL_MS);
    }
  }

  async #lastLogLine(): Promise<string> {
    const lines = (await Bun.file(this.logPath).text()).trim().split("\n");
    return lines.findLast((line) => line.startsWith("error")) ?? lines.at(-1) ?? "";
  }

  /** Ends the engine as a power failure would: SIGKILL. */
  async kill(): Promise<void> {
    this.#process?.kill("SIGKILL");
    await this.#process?.exited;
    this.#process = null;
  }

  /** Ends the engine in order. */
  async stop(): Promise<void> {
    this.#process?.kill("SIGTERM");
    await this.#process?.exited;
    this.#process = null;
  }
}
