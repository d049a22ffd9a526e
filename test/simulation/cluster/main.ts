/**
 * Runs simulations of the whole cluster: `npm run simulate -- --seeds N [--from S] [--trace]`. The last line says how many
 * seeds, how many simulated hours and how many violations; the exit status is 1 at the first violation,
 * which is printed with what happened before it and the command that replays it.
 */
import { parseArgs } from "node:util";
import { runSeed, Violation } from "./run.ts";

const NOTES_SHOWN = 120;

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

const startedMs = Date.now();
let simulatedMs = 0;
let seeds = 0;
let violations = 0;
for (let seed = from; seed < from + count && violations === 0; seed++) {
  seeds++;
  // What earlier seeds have left is given back only when nothing runs.
  await Bun.sleep(0);
  Bun.gc(true);
  try {
    const onNote = values.trace ? { onNote: (line: string) => console.log(line) } : {};
    const result = runSeed(seed, onNote);
    simulatedMs += result.simulatedMs;
    const seconds = ((Date.now() - startedMs) / 1_000).toFixed(0);
    console.log(
      `seed ${seed}: ${result.writes} writes, ${result.reads} reads, longest ${Math.round(result.worstMs)} ms, ` +
        `${result.trace} (${seconds} s)`,
    );
  } catch (error) {
    violations++;
    if (error instanceof Violation && !values.trace) {
      for (const line of error.notes.slice(-NOTES_SHOWN)) console.log(line);
    }
    console.log(`seed ${seed}: ${error instanceof Error ? error.message : String(error)}`);
    console.log(`replay: npm run simulate -- --seeds 1 --from ${seed}`);
  }
}
const hours = (simulatedMs / 3_600_000).toFixed(2);
console.log(`${seeds} seeds, ${hours} simulated hours, ${violations} violations`);
process.exit(violations === 0 ? 0 : 1);
