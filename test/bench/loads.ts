/** The programs that put load on what is measured, and what they report. */
import { LOAD_GRACE_MS, PERF_MIB } from "./limits.ts";
import { type Place, runProgram } from "./processes.ts";

/** What is asked of a device. */
export interface Load {
  readonly pattern: "randread" | "randwrite" | "randrw" | "read" | "write";
  readonly blockBytes: number;
  readonly depth: number;
}

/** What a load measured. */
export interface Sample {
  readonly iops: number;
  readonly bytesPerSec: number;
  readonly avgUs: number;
  /** Null where the program does not tell. */
  readonly p99Us: number | null;
  readonly p999Us: number | null;
}

/** An NVMe/TCP subsystem. */
export interface Subsystem {
  readonly address: string;
  readonly port: number;
  readonly nqn: string;
}

function timeoutMs(seconds: number): number {
  return seconds * 1000 + LOAD_GRACE_MS;
}

function blockText(load: Load): string {
  return load.blockBytes % 1024 === 0 ? `${load.blockBytes / 1024}k` : String(load.blockBytes);
}

/** Name of a load as it stands in the names of rows: `4k randread qd 32`. */
export function loadName(load: Load): string {
  return `${blockText(load)} ${load.pattern} qd ${load.depth}`;
}

// ------------------------------------------------------------------------------- trilith bench

/** The executable's own load generator on a device URI. */
export async function trilithLoad(
  executable: string,
  uri: string,
  load: Load,
  seconds: number,
  place: Place,
): Promise<Sample> {
  const command = [executable, "bench", uri, "--json", "--rw", load.pattern];
  command.push("--bs", String(load.blockBytes), "--qd", String(load.depth));
  command.push("--mix", "50", "--runtime", `${seconds}s`);
  const result = JSON.parse(await runProgram(command, place, timeoutMs(seconds))) as {
    elapsedNs: number;
    reads: number;
    writes: number;
    latency: { avgNs: number; p99Ns: number; p999Ns: number };
  };
  const iops = ((result.reads + result.writes) / result.elapsedNs) * 1e9;
  return {
    iops,
    bytesPerSec: iops * load.blockBytes,
    avgUs: result.latency.avgNs / 1e3,
    p99Us: result.latency.p99Ns / 1e3,
    p999Us: result.latency.p999Ns / 1e3,
  };
}

// ------------------------------------------------------------------------------ spdk_nvme_perf

export interface PerfOptions {
  /** Path of `spdk_nvme_perf`, and what its environment wants. */
  readonly program: string;
  readonly memoryArguments: readonly string[];
  readonly env: Record<string, string>;
  /** Called before each run. */
  readonly prepare: () => void;
  readonly headerDigest?: boolean;
  readonly dataDigest?: boolean;
  /** Percentiles are measured too, at a small cost to the rate. */
  readonly percentiles?: boolean;
}

/** Value of a percentile in perf's latency summary, in us. */
function perfPercentile(text: string, percent: string): number | null {
  const match = new RegExp(`^\\s*${percent.replace(".", "\\.")}\\d*%\\s*:\\s*([\\d.]+)us`, "m");
  const found = match.exec(text);
  return found === null ? null : Number(found[1]);
}

/** SPDK's NVMe/TCP initiator, which polls, on a subsystem. */
export async function perfLoad(
  options: PerfOptions,
  subsystem: Subsystem,
  load: Load,
  seconds: number,
  place: Place,
): Promise<Sample> {
  const { address, port, nqn } = subsystem;
  const mask = `0x${(1n << BigInt(place.core)).toString(16)}`;
  const command = [options.program, ...options.memoryArguments, "-s", String(PERF_MIB)];
  command.push("-c", mask, "-q", String(load.depth), "-o", String(load.blockBytes));
  command.push("-w", load.pattern, "-t", String(seconds));
  if (load.pattern === "randrw") command.push("-M", "50");
  if (options.headerDigest === true) command.push("-H");
  if (options.dataDigest === true) command.push("-I");
  if (options.percentiles === true) command.push("-L");
  command.push("-r", `trtype:TCP adrfam:IPv4 traddr:${address} trsvcid:${port} subnqn:${nqn}`);
  options.prepare();
  const text = await runProgram(command, place, timeoutMs(seconds), options.env);
  const total = /^Total\s*:\s*([\d.]+)\s+[\d.]+\s+([\d.]+)/m.exec(text);
  if (total === null || /errors occurred|completed with error/.test(text)) {
    throw new Error(`spdk_nvme_perf reported no result or errors:\n${text.slice(-2000)}`);
  }
  return {
    iops: Number(total[1]),
    bytesPerSec: Number(total[1]) * load.blockBytes,
    avgUs: Number(total[2]),
    p99Us: perfPercentile(text, "99.0"),
    p999Us: perfPercentile(text, "99.9"),
  };
}

// ----------------------------------------------------------------------------------------- fio

interface FioSide {
  readonly iops: number;
  readonly bw_bytes: number;
  readonly clat_ns: { readonly mean: number; readonly percentile?: Record<string, number> };
}

async function fioLoad(
  engineArguments: readonly string[],
  load: Load,
  seconds: number,
  place: Place,
  folder: string,
): Promise<Sample> {
  const command = ["fio", "--name=load", "--output-format=json", ...engineArguments];
  command.push(`--rw=${load.pattern}`, `--bs=${load.blockBytes}`, `--iodepth=${load.depth}`);
  command.push("--time_based", `--runtime=${seconds}`, "--randrepeat=0", "--norandommap");
  command.push("--thread", "--group_reporting", `--aux-path=${folder}`, "--eta=never");
  const text = await runProgram(command, place, timeoutMs(seconds));
  // Engines may print lines of their own before the report.
  const report = JSON.parse(text.slice(text.indexOf("{"))) as {
    jobs: { error: number; read: FioSide; write: FioSide }[];
  };
  const job = report.jobs[0]!;
  if (job.error !== 0) throw new Error(`fio: error ${job.error}`);
  const busy = [job.read, job.write].filter(({ iops }) => iops > 0);
  const iops = busy.reduce((sum, side) => sum + side.iops, 0);
  const worst = (percent: string): number | null => {
    const values = busy.map(({ clat_ns }) => clat_ns.percentile?.[percent] ?? 0);
    return values.length === 0 ? null : Math.max(...values) / 1e3;
  };
  return {
    iops,
    bytesPerSec: busy.reduce((sum, side) => sum + side.bw_bytes, 0),
    avgUs: busy.reduce((sum, side) => sum + side.clat_ns.mean * side.iops, 0) / iops / 1e3,
    p99Us: worst("99.000000"),
    p999Us: worst("99.900000"),
  };
}

/** fio's NBD engine on an export: `nbd://address:port/name`. */
export function fioNbd(
  uri: string,
  load: Load,
  seconds: number,
  place: Place,
  folder: string,
): Promise<Sample> {
  return fioLoad(["--ioengine=nbd", `--uri=${uri}`], load, seconds, place, folder);
}

/** fio's io_uring engine with O_DIRECT on a file, without any server. */
export function fioFile(
  path: string,
  load: Load,
  seconds: number,
  place: Place,
  folder: string,
): Promise<Sample> {
  const engine = ["--ioengine=io_uring", "--direct=1", `--filename=${path}`];
  return fioLoad(engine, load, seconds, place, folder);
}
