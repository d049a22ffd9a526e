/**
 * The programs that are measured: started on a core, suspended while another's turn is, and ended
 * by their ids however the benchmark ends.
 */
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Subprocess } from "bun";
import { LINES_QUOTED, POLL_MS, STOP_TIMEOUT_MS } from "./limits.ts";

/** Programs of this process that have not ended. */
const running = new Set<Subprocess>();

process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

export interface Place {
  readonly core: number;
  readonly realtime: boolean;
}

/** Where the scheduler likes. */
export type Anywhere = { readonly core: null; readonly realtime: false };

/** `command` on one core, or anywhere; the kernel ends it when this process dies in a way that leaves no time. */
function placed(command: readonly string[], place: Place | Anywhere): string[] {
  const prefix = ["setpriv", "--pdeathsig", "KILL", "--"];
  if (place.core !== null) prefix.push("taskset", "-c", String(place.core));
  if (place.realtime) prefix.push("chrt", "--rr", "1");
  return [...prefix, ...command];
}

function spawn(
  command: readonly string[],
  stdout: number | "pipe",
  stderr: number | "pipe",
  env: Record<string, string>,
): Subprocess {
  const child = Bun.spawn([...command], {
    stdin: "ignore",
    stdout,
    stderr,
    env: { ...process.env, ...env },
    onExit: () => {
      running.delete(child);
    },
  });
  running.add(child);
  return child;
}

export class Service {
  readonly pid: number;
  readonly logPath: string;
  readonly #name: string;
  readonly #child: Subprocess;

  /** Starts a server whose output goes to a file in `folder`. */
  constructor(
    name: string,
    command: readonly string[],
    place: Place | Anywhere,
    folder: string,
    env: Record<string, string> = {},
  ) {
    this.#name = name;
    this.logPath = join(folder, `${name}-${running.size}-${Date.now()}.log`);
    const log = openSync(this.logPath, "w");
    this.#child = spawn(placed(command, place), log, log, env);
    closeSync(log);
    this.pid = this.#child.pid;
  }

  get hasEnded(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  /** Waits until `probe` answers true. Throws when the server ends before, or after `timeoutMs`. */
  async serves(probe: () => Promise<boolean>, timeoutMs: number, pollMs = POLL_MS): Promise<void> {
    const deadline = Date.now() + timeoutMs;
    while (!(await probe())) {
      if (this.hasEnded) throw this.failure("has ended");
      if (Date.now() > deadline) throw this.failure("does not serve");
      await Bun.sleep(pollMs);
    }
  }

  failure(what: string): Error {
    const lines = readFileSync(this.logPath, "utf8").trimEnd().split("\n");
    return new Error(`${this.#name} ${what}\n${lines.slice(-LINES_QUOTED).join("\n")}`);
  }

  /** Keeps a server that polls from taking its core while others are measured. */
  suspend(): void {
    this.#child.kill("SIGSTOP");
  }

  resume(): void {
    this.#child.kill("SIGCONT");
  }

  /** Asks the server to end, and ends it when it does not. */
  async stop(): Promise<void> {
    if (this.hasEnded) return;
    this.#child.kill("SIGTERM");
    this.resume();
    const late = setTimeout(() => this.#child.kill("SIGKILL"), STOP_TIMEOUT_MS);
    await this.#child.exited;
    clearTimeout(late);
  }
}

/** Runs a program to its end and returns what it printed. Throws when it fails or takes too long. */
export async function runProgram(
  command: readonly string[],
  place: Place,
  timeoutMs: number,
  env: Record<string, string> = {},
): Promise<string> {
  const child = spawn(placed(command, place), "pipe", "pipe", env);
  const late = setTimeout(() => child.kill("SIGKILL"), timeoutMs);
  const [stdout, stderr] = await Promise.all([
    new Response(child.stdout as ReadableStream).text(),
    new Response(child.stderr as ReadableStream).text(),
  ]);
  await child.exited;
  clearTimeout(late);
  if (child.exitCode === 0) return stdout;
  const how = child.exitCode === null ? `was ended (${child.signalCode})` : "failed";
  const lines = `${stdout}\n${stderr}`.trim().split("\n").slice(-LINES_QUOTED);
  throw new Error(`${command.join(" ")} ${how}\n${lines.join("\n")}`);
}
