/** `trilith demo`: what `npm start` runs. */
import { randomInt } from "node:crypto";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { Command, InvalidArgumentError } from "commander";
import { connectCommand, Demo, failureOf, resultText } from "../demo/demo.ts";
import type { CliContext } from "./context.ts";

interface DemoCliOptions {
  readonly dataDir: string;
  readonly once?: true;
  readonly keep?: true;
  readonly act: number;
  readonly seed?: number;
}

function seconds(text: string): number {
  const value = Number(text);
  if (!(value > 0 && value <= 3600)) {
    throw new InvalidArgumentError(`"${text}" is not a number of seconds.`);
  }
  return value;
}

function seed(text: string): number {
  if (!/^\d{1,10}$/.test(text)) throw new InvalidArgumentError(`"${text}" is not a whole number.`);
  return Number(text) >>> 0;
}

/** Resolves with the first signal that asks the process to end. */
function interrupted(): Promise<void> {
  return new Promise((done) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => done());
  });
}

async function run(context: CliContext, options: DemoCliOptions): Promise<void> {
  const demo = new Demo({
    dataDir: resolve(options.dataDir),
    actMs: options.act * 1000,
    seed: options.seed ?? randomInt(2 ** 32),
    print: context.print,
  });
  let failed = true;
  const stop = interrupted().then(() => {
    failed = false;
  });
  try {
    const played = demo.play().then((result) => {
      context.print(`\n${resultText(result)}\n`);
      const failure = failureOf(result);
      if (failure !== undefined) throw failure;
      failed = false;
      context.print(`  ${connectCommand(result.volumeUri)}\n`);
      if (options.once === true) return undefined;
      context.print("The volume stays published. Ctrl-C ends it.");
      return stop;
    });
    await Promise.race([played, stop]);
  } finally {
    await demo.end();
    if (options.keep === true) context.print(`kept: ${resolve(options.dataDir)}`);
    else if (failed) context.print(`logs and disks are left in ${resolve(options.dataDir)}`);
    else demo.remove();
  }
}

/** The `demo` verb. */
export function demoCommand(context: CliContext): Command {
  return new Command("demo")
    .description(
      "Starts three nodes on 127.0.0.1, .2 and .3 and a volume mirrored over them, writes and\n" +
        "verifies while nodes are killed and brought back, and shows what came of it.",
    )
    .option("--data-dir <path>", "where disks and logs lie", join(tmpdir(), "trilith-demo"))
    .option("--once", "end after the verification instead of staying up")
    .option("--keep", "leave disks and logs where they are")
    .option("--act <seconds>", "length of each quiet stretch", seconds, 4)
    .option("--seed <n>", "seed of the sequence of requests (default: a random one)", seed)
    .action((options: DemoCliOptions) => run(context, options));
}
