/**
 * Measures the executable beside its peers and prints one table: see `usage` in options.ts.
 *
 * It decides nothing: a row below its aim is marked, and the exit status is 0 as long as every row
 * could be measured. Everything it starts is ended, and huge pages are given back, however it ends.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Bench, type Group } from "./bench.ts";
import { endurance } from "./cases/endurance.ts";
import { file } from "./cases/file.ts";
import { digests, memory } from "./cases/memory.ts";
import { nbd } from "./cases/nbd.ts";
import { nexus } from "./cases/nexus.ts";
import { pool } from "./cases/pool.ts";
import { idle, start } from "./cases/rest.ts";
import { attaches } from "./control/attaches.ts";
import { commits } from "./control/commits.ts";
import { creates } from "./control/creates.ts";
import { decisions } from "./control/decisions.ts";
import { healing } from "./control/healing.ts";
import { large } from "./control/large.ts";
import { pauses } from "./control/pauses.ts";
import { cpuModel, loadAverage } from "./machine.ts";
import { type Options, readOptions, UsageError, usage } from "./options.ts";
import { tableText } from "./rows.ts";

const groups: readonly Group[] = [
  memory,
  nbd,
  file,
  nexus,
  pool,
  digests,
  endurance,
  idle,
  start,
  commits,
  creates,
  attaches,
  decisions,
  large,
  pauses,
  healing,
];

function optionsOrExit(): Options {
  try {
    const options = readOptions(process.argv.slice(2));
    if (options !== null) return options;
    console.log(usage);
    process.exit(0);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(`bench: ${error.message}\n\n${usage}`);
    process.exit(2);
  }
}

async function run(options: Options): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), "trilith-bench-"));
  const memoryFolder = mkdtempSync("/dev/shm/trilith-bench-");
  process.on("exit", () => {
    for (const path of [folder, memoryFolder]) rmSync(path, { recursive: true, force: true });
  });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => process.exit(130));
  }
  const bench = new Bench(options, folder, memoryFolder, (text) => console.error(text));
  console.error(`${cpuModel()}, load average ${loadAverage()}, ${new Date().toISOString()}`);
  for (const group of groups) {
    if (!group.rows.some((name) => bench.wants(name))) continue;
    try {
      await group.run(bench);
    } catch (error) {
      bench.fail(group.rows[0]!, error);
    }
  }
  if (options.json) console.log(JSON.stringify({ rows: bench.rows }, null, 2));
  else console.log(tableText(bench.rows));
  return bench.failures.length === 0 ? 0 : 1;
}

const options = optionsOrExit();
if (options.list) {
  for (const group of groups) for (const name of group.rows) console.log(name);
} else {
  process.exit(await run(options));
}
