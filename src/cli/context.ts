/** The outside world of the verbs: output, input, environment, clock. */
import { createInterface } from "node:readline/promises";

/** What a verb touches of the outside world, so that a test can stand in for it. */
export interface CliContext {
  /** Prints one or more lines to standard output. */
  readonly print: (text: string) => void;
  /** Prints one or more lines to standard error. */
  readonly printError: (text: string) => void;
  /** Exit status of a verb that did what it was asked and whose answer is not a plain "yes". */
  exitStatus?: number;
  /** Environment variables; absent: none. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Standard output when it is a terminal. */
  readonly terminal?: Terminal;
  /** Reads standard input to its end. */
  readonly readInput?: () => Promise<string>;
  /** Asks the user, who is there to answer; true for yes. Absent: nobody is. */
  readonly confirm?: (question: string) => Promise<boolean>;
  /**
   * Calls `act` when the user interrupts (Ctrl-C), instead of ending the process; returns what takes
   * that back.
   */
  readonly onInterrupt?: (act: () => void) => () => void;
  /** Waits; a test may wait less. */
  readonly sleep?: (ms: number) => Promise<void>;
  /** The clock, in milliseconds since 1970. */
  readonly now?: () => number;
}

export interface Terminal {
  readonly columns: number;
  readonly rows: number;
  /** Writes text as it is: control sequences, lines without an end. */
  readonly write: (text: string) => void;
}

function onInterrupt(act: () => void): () => void {
  process.on("SIGINT", act);
  return () => process.off("SIGINT", act);
}

/** Asks on the terminal; whatever is not a clear yes is a no. */
async function confirm(question: string): Promise<boolean> {
  const asking = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return /^y(es)?$/i.test((await asking.question(`${question} [y/N] `)).trim());
  } finally {
    asking.close();
  }
}

export const processContext: CliContext = {
  print: (text) => console.log(text),
  printError: (text) => console.error(text),
  env: process.env,
  ...(process.stdout.isTTY
    ? {
        terminal: {
          get columns() {
            return process.stdout.columns;
          },
          get rows() {
            return process.stdout.rows;
          },
          write: (text: string) => process.stdout.write(text),
        },
      }
    : {}),
  readInput: () => Bun.stdin.text(),
  ...(process.stdin.isTTY && process.stderr.isTTY ? { confirm } : {}),
  onInterrupt,
  sleep: Bun.sleep,
  now: Date.now,
};

/** Prints a result: as JSON with `--json`, else as the text made for people. */
export function printResult(
  context: CliContext,
  options: { readonly json?: boolean },
  result: object,
  text: () => string,
): void {
  context.print(options.json === true ? JSON.stringify(result, null, 2) : text());
}
