/**
 * Runs simulations of the whole cluster: `npm run simulate -- --seeds N [--from S] [--trace]`. The last line says how many
 * seeds, how many simulated hours and how many violations; the exit status is 1 at the first violation,
 * which is printed with what happened before it and the command that replays it.
 */
import { parseArgs } from "node:util";
import { runSeed, Violation } from "./run.ts";

const NOTES_SHOWN = 120;
/** Seeds of one process: what a run leaves behind is given back to the machine with its process. */
const SEEDS_PER_PROCESS = 20;
const LAST_LINE = /^(\d+) seeds, ([\d.]+) simulated hours, (\d+) violations$/;

interface Outcome {
  readonly seeds: number;
  readonly hours: number;
  readonly violations: number;
}

/** Runs seeds here, until one is violated. */
function runHere(from: number, count: number, isTraced: boolean): Outcome {
  let simulatedMs = 0;
  for (let seed = from; seed < from + count; seed++) {
    try {
      const result = runSeed(seed, isTraced ? { onNote: (line) => console.log(line) } : {});
      simulatedMs += result.simulatedMs;
      console.log(
        `seed ${seed}: ${result.writes} writes, ${result.reads} reads, ` +
          `longest ${Math.round(result.worstMs)} ms, ${result.trace}`,
      );
    } catch (error) {
      if (error instanceof Violation && !isTraced) {
        for (const line of error.notes.slice(-NOTES_SHOWN)) console.log(line);
      }
      console.log(`seed ${seed}: ${error instanceof Error ? error.message : String(error)}`);
      console.log(`replay: npm run simulate -- --seeds 1 --from ${seed}`);
      return { seeds: seed - from + 1, hours: simulatedMs / 3_600_000, violations: 1 };
    }
  }
  return { seeds: count, hours: simulatedMs / 3_600_000, violations: 0 };
}

/** Runs seeds in a process of their own. */
async function runElsewhere(from: number, count: number): Promise<Outcome> {
  const command = [process.execPath, import.meta.path, "--seeds", `${count}`, "--from", `${from}`];
  const child = Bun.spawn(command, { stdout: "pipe", stderr: "inherit" });
  let rest = "";
  let last: RegExpMatchArray | null = null;
  const decoder = new TextDecoder();
  for await (const bytes of child.stdout) {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      last = line.match(LAST_LINE);
      if (last === null) console.log(line);
    }
  }
  await child.exited;
  if (last === null) return { seeds: count, hours: 0, violations: 1 }; // It has died.
  return { seeds: Number(last[1]), hours: Number(last[2]), violations: Number(last[3]) };
}

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "1" },
    from: { type: "string", default: "1" },
    trace: { type: "boolean", default: false },
  },
});
const count = Number(values.seeds);
const from = Number(values.from);
if (!Number.isSafeInteger(count) || count < 1 || !Number.isSafeInteger(from) || from < 0) {
  console.error("usage: npm run simulate -- --seeds <count> [--from <seed>] [--trace]");
  process.exit(2);
}

const sum = { seeds: 0, hours: 0, violations: 0 };
while (sum.seeds < count && sum.violations === 0) {
  const next = from + sum.seeds;
  const left = Math.min(count - sum.seeds, SEEDS_PER_PROCESS);
  const isHere = count <= SEEDS_PER_PROCESS;
  const done = isHere ? runHere(next, left, values.trace) : await runElsewhere(next, left);
  sum.seeds += done.seeds;
  sum.hours += done.hours;
  sum.violations += done.violations;
}
console.log(
  `${sum.seeds} seeds, ${sum.hours.toFixed(3)} simulated hours, ${sum.violations} violations`,
);
process.exit(sum.violations === 0 ? 0 : 1);
