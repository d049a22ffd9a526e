/** Command line of the benchmarks. */
import { tmpdir } from "node:os";
import { parseArgs } from "node:util";
import { executablePath } from "../support/executable.ts";
import { fullPace, type Pace, quickPace } from "./limits.ts";

export interface Options {
  /** Build directory of an SPDK; null: compare with what Debian has. */
  readonly spdk: string | null;
  readonly json: boolean;
  /** Only rows whose names contain one of these; none: all rows. */
  readonly only: readonly string[];
  readonly list: boolean;
  readonly pace: Pace;
  /** Folder for the files that are measured: on the disk to be measured. */
  readonly folder: string;
  readonly executable: string;
  /** Another build, measured as a peer; null: none. */
  readonly baseline: string | null;
  /** CPU of what serves, CPU of what puts load on it. */
  readonly serverCore: number;
  readonly loadCore: number;
  /** Everything that is measured runs before anything else on the machine (SCHED_RR). */
  readonly realtime: boolean;
  /** Rounds during which the two cores are further apart than this do not count; null: all do. */
  readonly coreToCoreNs: number | null;
}

export const usage = `npm run bench -- [options]

Measures the executable beside its peers and prints one table. Ratios are ours to theirs, medians
over pairs of measurements that followed each other; the range of the pairs stands beside it.

  --spdk <folder>     build directory of an SPDK: compare with its nvmf_tgt, under spdk_nvme_perf
  --only <words>      only rows whose names contain one of these (comma-separated)
  --list              names of the rows
  --quick             shorter and fewer measurements, smaller files
  --reps <n>          measurements of each row
  --seconds <n>       duration of one measurement
  --dir <folder>      where to put the files of file devices (default: ${tmpdir()})
  --cores <a,b>       CPU of the servers and CPU of the load (default: 0,1)
  --within <ns>       count only rounds with the two cores at most so far apart (see "core to core")
  --realtime          run what is measured before anything else on the machine (SCHED_RR; root).
                      For a machine that others use: steadier rates, but worse tails, and nothing
                      else gets on meanwhile. File devices are measured without it.
  --executable <path> executable to measure (default: dist/trilith)
  --baseline <path>   another build of the executable, as a further peer (memory, NBD, mirrors)
  --json              print {"rows": [...]} instead of the table`;

/** A mistake on the command line; the message is for the user. */
export class UsageError extends Error {}

function count(text: string | undefined, name: string): number | undefined {
  if (text === undefined) return undefined;
  if (!/^[1-9]\d{0,4}$/.test(text)) throw new UsageError(`${name} is not a number: ${text}`);
  return Number(text);
}

function cores(text: string | undefined): readonly [number, number] {
  const match = /^(\d{1,4}),(\d{1,4})$/.exec(text ?? "0,1");
  if (match === null) throw new UsageError(`--cores is not like 0,1: ${text}`);
  return [Number(match[1]), Number(match[2])];
}

const flags = {
  spdk: { type: "string" },
  only: { type: "string" },
  list: { type: "boolean" },
  quick: { type: "boolean" },
  reps: { type: "string" },
  seconds: { type: "string" },
  dir: { type: "string" },
  cores: { type: "string" },
  realtime: { type: "boolean" },
  within: { type: "string" },
  executable: { type: "string" },
  baseline: { type: "string" },
  json: { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const;

/** Reads the command line. Throws `UsageError`; null when only help is asked for. */
export function readOptions(args: readonly string[]): Options | null {
  let values: ReturnType<typeof parseArgs<{ options: typeof flags }>>["values"];
  try {
    values = parseArgs({ args: [...args], options: flags }).values;
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
  if (values.help === true) return null;
  const base = values.quick === true ? quickPace : fullPace;
  const [serverCore, loadCore] = cores(values.cores);
  return {
    spdk: values.spdk ?? null,
    json: values.json === true,
    only: values.only?.split(",").map((word) => word.trim()) ?? [],
    list: values.list === true,
    pace: {
      ...base,
      repetitions: count(values.reps, "--reps") ?? base.repetitions,
      seconds: count(values.seconds, "--seconds") ?? base.seconds,
    },
    folder: values.dir ?? tmpdir(),
    executable: values.executable ?? executablePath(),
    baseline: values.baseline ?? null,
    serverCore,
    loadCore,
    realtime: values.realtime === true,
    coreToCoreNs: count(values.within, "--within") ?? null,
  };
}
