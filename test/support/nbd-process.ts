/** The server of `nbd-server.ts` as a process, for tests with programs as clients. */
import { expect } from "bun:test";
import { join } from "node:path";

const script = join(import.meta.dir, "nbd-server.ts");

export class NbdProcess {
  readonly port: number;
  readonly #process: Bun.Subprocess<"pipe", "pipe", "inherit">;
  readonly #lines: AsyncIterator<string>;

  private constructor(
    process: Bun.Subprocess<"pipe", "pipe", "inherit">,
    lines: AsyncIterator<string>,
    port: number,
  ) {
    this.#process = process;
    this.#lines = lines;
    this.port = port;
  }

  /** Starts a server with exports given as name and device URI (`#ro` behind it: read-only). */
  static async start(exports: Record<string, string>): Promise<NbdProcess> {
    const specs = Object.entries(exports).map(([name, uri]) => `${name}=${uri}`);
    const process = Bun.spawn(["bun", script, ...specs], {
      stdin: "pipe",
      stdout: "pipe",
      stderr: "inherit",
    });
    const lines = linesOf(process.stdout);
    const first = await lines.next();
    if (first.done === true) throw new Error("the NBD server did not start");
    return new NbdProcess(process, lines, JSON.parse(first.value).port);
  }

  uri(name: string): string {
    return `nbd://127.0.0.1:${this.port}/${name}`;
  }

  /** Gives a command and returns its answer. */
  async command(line: string): Promise<Record<string, unknown>> {
    this.#process.stdin.write(`${line}\n`);
    this.#process.stdin.flush();
    const { value, done } = await this.#lines.next();
    if (done === true) throw new Error("the NBD server is gone");
    return JSON.parse(value);
  }

  /** Resolves when the server has no connection any more. */
  async untilIdle(): Promise<void> {
    while ((await this.command("stats")).connections !== 0) await Bun.sleep(5);
  }

  /** Ends the server, which must have given everything back. */
  async stop(): Promise<void> {
    this.#process.stdin.end();
    const { value } = await this.#lines.next();
    expect(JSON.parse(value ?? "null")).toEqual({ slots: 0, bytes: 0, handlers: 0 });
    expect(await this.#process.exited).toBe(0);
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stream) {
    text += decoder.decode(chunk, { stream: true });
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
      yield text.slice(0, end);
      text = text.slice(end + 1);
    }
  }
}

export interface Outcome {
  readonly code: number;
  readonly out: string;
}

/** Runs a program to its end; `out` is everything it printed. */
export async function run(...command: string[]): Promise<Outcome> {
  const process = Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [out, err, code] = await Promise.all([
    new Response(process.stdout).text(),
    new Response(process.stderr).text(),
    process.exited,
  ]);
  return { code, out: out + err };
}

/** Runs a program that must succeed and returns what it printed. */
export async function succeed(...command: string[]): Promise<string> {
  const { code, out } = await run(...command);
  if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}:\n${out}`);
  return out;
}
