/** Hosts with several paths (path-host.ts), as processes of their own. */
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import type { Subprocess } from "bun";
import { waitUntil } from "./cluster.ts";
import type { PathHostOptions, PathHostReport } from "./path-host.ts";

/** Keep-alive time-out of the paths. */
const KEEP_ALIVE_MS = 5_000;

const running = new Set<PathHost>();
process.on("exit", () => {
  for (const host of running) host.end();
});

/** Ends every host that is still there. */
export function endPathHosts(): void {
  for (const host of [...running]) host.end();
}

export class PathHost {
  readonly #process: Subprocess<"ignore", "pipe", "inherit">;
  #last: PathHostReport | null = null;
  #gapMs = 0;

  /** `within`: put before the command, such as to run in another network namespace. */
  constructor(
    paths: Pick<PathHostOptions, "writers" | "readers"> & Partial<PathHostOptions>,
    within: readonly string[] = [],
  ) {
    const hostId = randomUUID();
    const hostNqn = `nqn.2014-08.org.nvmexpress:uuid:${hostId}`;
    const usual = { keepAliveMs: KEEP_ALIVE_MS, depth: 1, base: 0 };
    const options: PathHostOptions = { hostNqn, hostId, ...usual, ...paths };
    // setpriv has the kernel end it when this process dies in a way that leaves no time to.
    const command = ["setpriv", "--pdeathsig", "KILL", "--", ...within, process.execPath];
    command.push(join(import.meta.dir, "path-host.ts"), JSON.stringify(options));
    this.#process = Bun.spawn(command, { stdio: ["ignore", "pipe", "inherit"] });
    running.add(this);
    void this.#listen();
  }

  async #listen(): Promise<void> {
    const decoder = new TextDecoder();
    let rest = "";
    for await (const chunk of this.#process.stdout) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = lines.pop()!;
      for (const line of lines) {
        this.#last = JSON.parse(line) as PathHostReport;
        this.#gapMs = Math.max(this.#gapMs, this.#last.gapMs);
      }
    }
  }

  /** What it reported last. */
  get report(): PathHostReport {
    if (this.#last === null) throw new Error("the host has not reported yet");
    return this.#last;
  }

  /** Longest time without an acknowledged write since the last call, in ms. */
  takeGapMs(): number {
    const gapMs = this.#gapMs;
    this.#gapMs = 0;
    return gapMs;
  }

  /** Waits until `isSo` of a report. */
  until(what: string, isSo: (report: PathHostReport) => boolean): Promise<unknown> {
    return waitUntil(
      what,
      () => {
        if (this.#process.exitCode !== null) throw new Error("the host has ended");
        return this.#last;
      },
      (report) => report !== null && isSo(report),
    );
  }

  /** Waits until `count` more writes are acknowledged. */
  async writes(count: number): Promise<void> {
    await this.until("the first report", () => true);
    const until = this.report.writes + count;
    await this.until(`${count} writes more`, ({ writes }) => writes >= until);
  }

  end(): void {
    running.delete(this);
    this.#process.kill("SIGKILL");
  }
}
