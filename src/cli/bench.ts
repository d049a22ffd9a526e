/** `trilith bench <uri>`: load on one block device from this process, with latencies and verification. */
import { randomInt, randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { Command, InvalidArgumentError, Option } from "commander";
import { openBdev } from "../engine/bdev/open.ts";
import type { LatencySummary } from "../engine/bench/histogram.ts";
import {
  type Load,
  type LoadPattern,
  type LoadResult,
  type LoadStats,
  loadPatterns,
  startLoad,
} from "../engine/bench/load.ts";
import {
  ARENA_BYTES_DEFAULT,
  ARENA_BYTES_MAX,
  BUFFER_BYTES_MIN,
} from "../engine/reactor/limits.ts";
import { Reactor } from "../engine/reactor/reactor.ts";
import { type ErrorCode, TrilithError } from "../errors.ts";
import { nodeHostNqn } from "../names.ts";
import { type CliContext, printResult } from "./context.ts";

interface BenchOptions {
  readonly rw: LoadPattern;
  readonly mix: number;
  readonly bs: number;
  readonly qd: number;
  readonly jobs: number;
  readonly runtime: number;
  readonly offset?: number;
  readonly size?: number;
  readonly verify?: true;
  readonly rate?: number;
  readonly seed?: number;
  readonly hostnqn?: string;
  readonly lossTimeout: number;
  readonly json?: boolean;
}

/** Bytes from `4096`, `4k`, `1m`, `2GiB`: powers of 1024. */
export function parseBytes(text: string): number {
  const match = /^(\d{1,15})([kmgt]?)(?:i?b)?$/i.exec(text);
  if (match === null)
    throw new InvalidArgumentError(`"${text}" is not a size like 4096, 4k or 2g.`);
  const power = " kmgt".indexOf(match[2] === "" ? " " : match[2]!.toLowerCase());
  return Number(match[1]) * 1024 ** power;
}

function parseCount(text: string): number {
  if (!/^\d{1,10}$/.test(text)) throw new InvalidArgumentError(`"${text}" is not a whole number.`);
  return Number(text);
}

/** Milliseconds from `10`, `10s`, `500ms`, `2m`. */
export function parseDuration(text: string): number {
  const match = /^(\d{1,9})(ms|s|m|h)?$/.exec(text);
  if (match === null) throw new InvalidArgumentError(`"${text}" is not a duration like 10s or 2m.`);
  const units: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
  return Number(match[1]) * units[match[2] ?? "s"]!;
}

function bytesText(bytes: number): string {
  const names = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let i = 0;
  while (value >= 1024 && i < names.length - 1) {
    value /= 1024;
    i++;
  }
  return `${Number.isInteger(value) ? value : value.toFixed(value < 10 ? 2 : 1)} ${names[i]}`;
}

function countText(value: number): string {
  if (value >= 1e6) return `${(value / 1e6).toFixed(2)}M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(1)}k`;
  return value.toFixed(0);
}

function timeText(ns: number): string {
  if (ns < 1e6) return `${(ns / 1e3).toFixed(1)} us`;
  if (ns < 1e9) return `${(ns / 1e6).toFixed(2)} ms`;
  return `${(ns / 1e9).toFixed(2)} s`;
}

/** One line about the time since `before`. */
function progressLine(before: LoadStats, now: LoadStats, startedNs: number): string {
  const seconds = Math.max((now.elapsedNs - before.elapsedNs) / 1e9, 1e-9);
  const total = ((now.elapsedNs - startedNs) / 1e9).toFixed(0);
  if (now.phase === "final") return `${total} s  final pass: ${now.blocksVerified} blocks verified`;
  const perSecond = (field: "reads" | "writes" | "readBytes" | "writeBytes"): number =>
    (now[field] - before[field]) / seconds;
  const parts = [`${total} s`];
  if (now.reads > 0) {
    parts.push(`read ${countText(perSecond("reads"))}/s ${bytesText(perSecond("readBytes"))}/s`);
  }
  if (now.writes > 0) {
    parts.push(`write ${countText(perSecond("writes"))}/s ${bytesText(perSecond("writeBytes"))}/s`);
  }
  if (now.errorCount > 0) parts.push(`errors ${now.errorCount}`);
  if (now.mismatches > 0) parts.push(`MISMATCHES ${now.mismatches}`);
  return parts.join("  ");
}

/** Shows progress on a terminal once per second until the load is done. */
function showProgress(reactor: Reactor, load: Load): () => void {
  if (!process.stderr.isTTY) return () => {};
  let before = load.stats();
  let timer = reactor.after(1000, tick);
  function tick(): void {
    const now = load.stats();
    process.stderr.write(`\r\x1b[K${progressLine(before, now, 0)}`);
    before = now;
    timer = reactor.after(1000, tick);
  }
  return () => {
    timer.cancel();
    process.stderr.write("\r\x1b[K");
  };
}

function latencyRow(name: string, count: number, bytes: number, l: LatencySummary, s: number) {
  const times = [l.minNs, l.avgNs, l.p50Ns, l.p90Ns, l.p99Ns, l.p999Ns, l.maxNs].map(timeText);
  const cells = [countText(count / s), `${bytesText(bytes / s)}/s`, ...times];
  return name.padEnd(6) + cells.map((cell) => cell.padStart(12)).join("");
}

/** The result as a table for people. */
export function resultText(result: LoadResult): string {
  const seconds = result.elapsedNs / 1e9;
  const head = ["IOPS", "bandwidth", "min", "avg", "p50", "p90", "p99", "p99.9", "max"];
  const lines = [" ".repeat(6) + head.map((cell) => cell.padStart(12)).join("")];
  if (result.reads > 0) {
    lines.push(latencyRow("read", result.reads, result.readBytes, result.readLatency, seconds));
  }
  if (result.writes > 0) {
    lines.push(latencyRow("write", result.writes, result.writeBytes, result.writeLatency, seconds));
  }
  const errors = Object.entries(result.errors).map(([code, count]) => `${code} ${count}`);
  lines.push(`errors: ${errors.length === 0 ? "none" : errors.join(", ")}`);
  if (result.blocksVerified > 0 || result.mismatches > 0) {
    lines.push(`verified: ${result.blocksVerified} blocks, ${result.mismatches} mismatches`);
  }
  if (result.unreadable > 0) lines.push(`unreadable in the final pass: ${result.unreadable}`);
  for (const m of result.firstMismatches) {
    lines.push(`  at byte ${m.offset}: ${m.kind}: ${m.found} instead of ${m.expected}`);
  }
  return lines.join("\n");
}

/** What is wrong with a result: mismatches before failed requests; undefined when nothing is. */
export function complaintOf(result: LoadResult, uri: string): TrilithError | undefined {
  if (result.mismatches > 0) {
    return new TrilithError("Miscompare", `${uri}: ${result.mismatches} blocks read back wrong`);
  }
  const [code] = Object.keys(result.errors) as ErrorCode[];
  if (code !== undefined) {
    return new TrilithError(code, `${uri}: ${result.errorCount} requests failed`);
  }
  if (result.unreadable === 0) return undefined;
  return new TrilithError("DeviceIo", `${uri}: ${result.unreadable} units could not be read back`);
}

/** Arena that holds the buffers of all requests beside what connections need. */
function arenaBytesFor(options: BenchOptions): number {
  const perRequest = 2 ** Math.ceil(Math.log2(Math.max(options.bs, BUFFER_BYTES_MIN)));
  const buffers = perRequest * options.qd * options.jobs;
  const wanted = Math.max(ARENA_BYTES_DEFAULT, buffers * 1.5 + ARENA_BYTES_DEFAULT / 2);
  return Math.min(Math.ceil(wanted / (2 << 20)) * (2 << 20), ARENA_BYTES_MAX);
}

async function run(reactor: Reactor, uri: string, options: BenchOptions): Promise<LoadResult> {
  const host = { nqn: options.hostnqn ?? nodeHostNqn(hostname()), id: randomUUID() };
  const bdev = await openBdev(reactor, uri, {
    host,
    nvmf: { onLoss: "retry", controllerLossMs: options.lossTimeout },
  });
  try {
    const load = startLoad({
      bdev,
      pattern: options.rw,
      readPercent: options.mix,
      requestBytes: options.bs,
      queueDepth: options.qd,
      jobs: options.jobs,
      runtimeMs: options.runtime,
      verify: options.verify === true,
      seed: options.seed ?? randomInt(2 ** 32),
      ...(options.offset === undefined ? {} : { offset: options.offset }),
      ...(options.size === undefined ? {} : { size: options.size }),
      ...(options.rate === undefined ? {} : { ratePerSec: options.rate }),
    });
    const endProgress = showProgress(reactor, load);
    const result = await load.done;
    endProgress();
    return result;
  } finally {
    await bdev.close();
  }
}

/** The `bench` verb. Any mismatch or failed request is an error after the result is printed. */
export function benchCommand(context: CliContext): Command {
  return new Command("bench")
    .description("put load on a block device (any device URI) and measure it")
    .argument("<uri>", "device, e.g. nvmf+tcp://10.0.0.1:8420/nqn... or /dev/sdb")
    .addOption(
      new Option("--rw <pattern>", "pattern of the load").choices(loadPatterns).default("randread"),
    )
    .option("--mix <percent>", "share of reads in randrw and rw", parseCount, 70)
    .option("--bs <size>", "bytes per request", parseBytes, 4096)
    .option("--qd <n>", "requests in flight per job", parseCount, 32)
    .option("--jobs <n>", "jobs", parseCount, 1)
    .option("--runtime <time>", "duration, e.g. 10s", parseDuration, 10_000)
    .option("--offset <size>", "first byte of the range", parseBytes)
    .option("--size <size>", "length of the range (default: the whole device)", parseBytes)
    .option("--verify", "write self-describing blocks and check all that is read")
    .option("--rate <n>", "requests per second", parseCount)
    .option("--seed <n>", "seed of the sequence of requests (default: a random one)", parseCount)
    .option("--hostnqn <nqn>", "host NQN to connect with (default: this node's)")
    .option(
      "--loss-timeout <time>",
      "how long a lost connection is tried again; requests fail after that",
      parseDuration,
      60_000,
    )
    .option("--json", "print the result as JSON")
    .action((uri: string, options: BenchOptions) => {
      const reactor = new Reactor({ index: 0, arenaBytes: arenaBytesFor(options) });
      try {
        const result = reactor.runUntil(run(reactor, uri, options));
        printResult(context, options, result, () => resultText(result));
        const complaint = complaintOf(result, uri);
        if (complaint !== undefined) throw complaint;
      } finally {
        reactor.close();
      }
    });
}
