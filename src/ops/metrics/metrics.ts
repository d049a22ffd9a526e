/**
 * Metrics of a node in Prometheus' text format: what its own engine reports at the time of the
 * scrape, and what the control process knows and counts. A source that fails is left out; the rest is
 * exported all the same.
 */
import type { StoreStatus } from "../../control/store/store.ts";
import type { LoopWatch } from "../event-loop.ts";
import type { Log } from "../log.ts";
import { type ClusterReading, collectCluster } from "./cluster.ts";
import type { ControlInstruments } from "./control.ts";
import { collectEngine, engineMetrics } from "./engine-process.ts";
import { type EngineSource, readEngine } from "./engine-source.ts";
import { Exposition } from "./exposition.ts";
import { collectIo } from "./io.ts";
import { SCRAPE_CACHE_MS } from "./limits.ts";
import { collectPools } from "./pools.ts";
import { collectProcess } from "./process.ts";
import { collectRaft } from "./raft.ts";
import { collectNexuses } from "./volumes.ts";

/** Where the numbers come from. What is absent is not exported. */
export interface MetricsSources {
  /** The node's own engine. */
  readonly engine?: EngineSource;
  readonly raft?: () => StoreStatus;
  /** The cluster as the leader sees it; null on every other node. */
  readonly cluster?: () => ClusterReading | null;
  readonly instruments?: ControlInstruments;
  /** This thread's event loop. */
  readonly loop?: LoopWatch;
  readonly log: Log;
  /** Milliseconds since 1970. Default: the wall clock. */
  readonly now?: () => number;
  /** How old an answer may be. Default: `SCRAPE_CACHE_MS`. */
  readonly cacheMs?: number;
}

export interface Metrics {
  /** All samples. Scrapes at the same time, or soon after each other, share one answer. */
  scrape(): Promise<string>;
}

/** Runs one collector; what it throws costs its samples only. */
function attempt(log: Log, what: string, collect: () => void): void {
  try {
    collect();
  } catch (error) {
    log("warn", "metrics are left out", { what, error });
  }
}

async function collectOwnEngine(out: Exposition, engine: EngineSource, log: Log): Promise<void> {
  try {
    const reading = await readEngine(engine);
    out.add(engineMetrics.up, [], 1);
    collectPools(out, reading);
    collectIo(out, reading);
    collectNexuses(out, reading);
    collectEngine(out, reading);
  } catch (error) {
    out.add(engineMetrics.up, [], 0);
    const text = error instanceof Error ? error.message : String(error);
    log("debug", "metrics without the engine's", { error: text });
  }
}

async function collectAll(sources: MetricsSources, nowMs: number): Promise<string> {
  const { engine, raft, cluster, instruments, loop, log } = sources;
  const out = new Exposition();
  if (engine !== undefined) await collectOwnEngine(out, engine, log);
  if (cluster !== undefined) {
    attempt(log, "cluster", () => {
      const reading = cluster();
      if (reading !== null) collectCluster(out, reading);
    });
  }
  if (raft !== undefined) attempt(log, "raft", () => collectRaft(out, raft()));
  if (instruments !== undefined) attempt(log, "control", () => instruments.collect(out));
  attempt(log, "process", () => collectProcess(out, nowMs, loop?.read() ?? null));
  return out.text();
}

/** Metrics of the given sources. */
export function createMetrics(sources: MetricsSources): Metrics {
  const now = sources.now ?? Date.now;
  const cacheMs = sources.cacheMs ?? SCRAPE_CACHE_MS;
  let cached: { readonly atMs: number; readonly text: Promise<string> } | null = null;
  return {
    scrape() {
      const atMs = now();
      if (cached !== null && atMs >= cached.atMs && atMs - cached.atMs < cacheMs) {
        return cached.text;
      }
      const text = collectAll(sources, atMs);
      cached = { atMs, text };
      return text;
    },
  };
}
