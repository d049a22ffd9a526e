/**
 * Keeps one child process running: starts it again when it ends, with growing pauses while it ends
 * soon after its start, and stops it in an orderly way.
 */
import type { Log } from "./log.ts";

const PAUSE_MS_MIN = 200;
const PAUSE_MS_MAX = 10_000;
/** A child that ran this long starts with short pauses again. */
const STEADY_MS = 30_000;
/** Time to end after SIGTERM before SIGKILL. */
const STOP_MS = 60_000;

export interface SuperviseOptions {
  readonly name: string;
  readonly command: readonly string[];
  readonly log: Log;
  /** Exit statuses that another start would only repeat: the supervision ends. */
  readonly finalStatuses: readonly number[];
  readonly env?: Readonly<Record<string, string | undefined>>;
}

export interface Supervised {
  /** Process id of the child that runs, undefined between two. */
  readonly pid: number | undefined;
  /** Starts so far. */
  readonly starts: number;
  /** Resolves with the child's last exit status when the supervision has ended. */
  readonly ended: Promise<number>;
  /** Sends a signal to the child. */
  signal(name: NodeJS.Signals): void;
  /** Ends the child and the supervision. */
  stop(): Promise<void>;
}

/** Starts the child and keeps it running. */
export function supervise(options: SuperviseOptions): Supervised {
  const { name, command, log } = options;
  let child: ReturnType<typeof spawnChild> | undefined;
  let stopping = false;
  let wake: (() => void) | undefined;
  let starts = 0;

  function spawnChild() {
    // The pipe at its standard input tells the child when this process is gone.
    return Bun.spawn([...command], {
      stdin: "pipe",
      stdout: "inherit",
      stderr: "inherit",
      ...(options.env === undefined ? {} : { env: options.env }),
    });
  }

  const pause = (ms: number): Promise<void> =>
    new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });

  const keepRunning = async (): Promise<number> => {
    let pauseMs = PAUSE_MS_MIN;
    for (;;) {
      const startedMs = performance.now();
      child = spawnChild();
      starts++;
      log("info", `${name} started`, { pid: child.pid });
      const status = await child.exited;
      const signal = child.signalCode;
      child = undefined;
      if (stopping) return status;
      log("error", `${name} ended`, { status, signal: signal ?? undefined });
      if (signal === null && options.finalStatuses.includes(status)) return status;
      if (performance.now() - startedMs > STEADY_MS) pauseMs = PAUSE_MS_MIN;
      await pause(pauseMs);
      if (stopping) return status;
      pauseMs = Math.min(pauseMs * 2, PAUSE_MS_MAX);
    }
  };

  const ended = keepRunning();
  return {
    get pid() {
      return child?.pid;
    },
    get starts() {
      return starts;
    },
    ended,
    signal: (signal) => child?.kill(signal),
    async stop() {
      stopping = true;
      wake?.();
      child?.kill("SIGTERM");
      const timer = setTimeout(() => {
        log("error", `${name} does not end: killed`, { afterMs: STOP_MS });
        child?.kill("SIGKILL");
      }, STOP_MS);
      await ended;
      clearTimeout(timer);
    },
  };
}
