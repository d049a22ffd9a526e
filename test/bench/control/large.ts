/** The control plane of a large cluster: its planner, its listings, its memory. */
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Bench, Group } from "../bench.ts";
import { residentBytes } from "../machine.ts";
import { median, plainRow } from "../rows.ts";
import type { LargeReport } from "./large-process.ts";
import {
  FILL_TIMEOUT_MS,
  LARGE_NODES,
  LARGE_POOLS,
  LARGE_ROUNDS,
  LARGE_VOLUMES,
  SETTLE_MS,
} from "./limits.ts";

const MIB = 1 << 20;
const size = `${LARGE_NODES} nodes, ${LARGE_POOLS} pools, ${LARGE_VOLUMES} volumes`;
const names = {
  plan: `control: planner pass, ${size}`,
  list: `control: API list of ${LARGE_VOLUMES} volumes`,
  rest: `control: memory at rest, ${size}`,
  memory: `control: memory after listings, ${size}`,
} as const;

function child(mode: "fill" | "serve", folder: string) {
  return Bun.spawn([process.execPath, join(import.meta.dir, "large-process.ts"), mode, folder], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
  });
}

async function fill(folder: string): Promise<void> {
  const filling = child("fill", folder);
  const late = setTimeout(() => filling.kill("SIGKILL"), FILL_TIMEOUT_MS);
  const status = await filling.exited;
  clearTimeout(late);
  if (status !== 0) throw new Error("the large cluster could not be stored");
}

/** The first line that a process prints. */
async function firstLine(stream: ReadableStream<Uint8Array>): Promise<string> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of stream) {
    text += decoder.decode(chunk, { stream: true });
    const end = text.indexOf("\n");
    if (end >= 0) return text.slice(0, end);
  }
  throw new Error(`the process ended without a report: ${text}`);
}

async function listMs(url: string): Promise<number> {
  const startMs = performance.now();
  const response = await fetch(`${url}/v0/volumes?max_entries=0`);
  const { entries } = (await response.json()) as { entries: unknown[] };
  const tookMs = performance.now() - startMs;
  if (entries.length !== LARGE_VOLUMES) throw new Error(`${entries.length} volumes are listed`);
  return tookMs;
}

async function run(bench: Bench): Promise<void> {
  const folder = mkdtempSync(join(bench.options.folder, "trilith-bench-large-"));
  try {
    await fill(folder);
    const serving = child("serve", folder);
    try {
      const report = JSON.parse(await firstLine(serving.stdout)) as LargeReport;
      if (report.works > 0)
        throw new Error(`the plan has ${report.works} works: it is not at rest`);
      await Bun.sleep(SETTLE_MS);
      const restMib = residentBytes(serving.pid) / MIB;
      const lists: number[] = [];
      for (let round = 0; round < LARGE_ROUNDS; round++) lists.push(await listMs(report.url));
      await Bun.sleep(SETTLE_MS);
      const rows = [
        { case: names.plan, unit: "ms", atMost: 200, value: report.planMs },
        { case: names.list, unit: "ms", atMost: 100, value: median(lists) },
        { case: names.rest, unit: "MiB", atMost: 150, value: restMib },
        {
          case: names.memory,
          unit: "MiB",
          atMost: null,
          value: residentBytes(serving.pid) / MIB,
        },
      ];
      for (const { case: name, unit, atMost, value } of rows) {
        if (!bench.wants(name)) continue;
        const aim = atMost === null ? {} : { aim: { atMost } };
        bench.add(plainRow({ case: name, unit, ...aim }, value));
      }
    } finally {
      serving.kill("SIGKILL");
      await serving.exited;
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export const large: Group = { rows: Object.values(names), run };
