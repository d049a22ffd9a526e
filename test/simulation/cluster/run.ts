/** One run: a cluster is formed, has troubles under load, must recover, and is compared. */

import { Random } from "../../support/random.ts";
import { Cluster, type ClusterOptions } from "./cluster.ts";
import { beginTroubles, endTroubles } from "./trouble.ts";

/** All requests have an outcome this long after the troubles have ended, and every volume is whole. */
const RECOVERED_WITHIN_MS = 180_000;
const CALM_MS = 5_000;
const LEAST_TROUBLE_MS = 60_000;
const MORE_TROUBLE_MS = 120_000;

export interface RunResult {
  readonly simulatedMs: number;
  readonly trace: string;
  readonly reads: number;
  readonly writes: number;
  readonly worstMs: number;
}

export class Violation extends Error {
  readonly notes: readonly string[];

  constructor(message: string, notes: readonly string[]) {
    super(message);
    this.notes = notes;
  }
}

/** What a seed stands for. */
function optionsOf(seed: number): ClusterOptions {
  const random = new Random(seed ^ 0x5eed);
  const machines = random.chance(0.25) ? 4 : 3;
  return {
    seed,
    machines,
    replicas: random.chance(0.2) ? 2 : 3,
    volumes: random.chance(0.3) ? 2 : 1,
    thin: random.chance(0.5),
    faultedChildWaitMs: random.chance(0.5) ? 600_000 : 20_000,
  };
}

export interface RunOptions {
  /** How long there are troubles; by default the seed says. */
  readonly troubleMs?: number;
  /** Told of every note as it is made. */
  readonly onNote?: (line: string) => void;
}

/** Runs a seed. Throws a `Violation` with the last notes when something is not as it must be. */
export function runSeed(seed: number, options: RunOptions = {}): RunResult {
  const cluster = new Cluster(optionsOf(seed));
  const { world } = cluster;
  world.onNote = options.onNote ?? null;
  const restore = world.install();
  try {
    return run(cluster, options.troubleMs);
  } catch (error) {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    throw new Violation(text, world.notes);
  } finally {
    cluster.close();
    restore();
  }
}

function run(cluster: Cluster, givenMs: number | undefined): RunResult {
  const { world } = cluster;
  cluster.form();
  for (const { workload } of cluster.volumes) world.enter(cluster.host, () => workload.start());
  world.run(2_000);
  const seedMs = LEAST_TROUBLE_MS + world.random.next() * MORE_TROUBLE_MS;
  const troubleMs = givenMs ?? seedMs;
  beginTroubles(cluster, troubleMs);
  world.run(troubleMs);
  endTroubles(cluster);
  recover(cluster);
  world.run(CALM_MS);
  for (const { workload } of cluster.volumes) workload.stop();
  comeToRest(cluster);
  compare(cluster);
  let [reads, writes, worstMs] = [0, 0, 0];
  for (const { workload } of cluster.volumes) {
    reads += workload.checker.reads;
    writes += workload.checker.writes;
    worstMs = Math.max(worstMs, workload.worstMs);
  }
  return { simulatedMs: world.nowMs, trace: world.trace, reads, writes, worstMs };
}

function describe(cluster: Cluster): string {
  return cluster.volumes
    .map((volume) => {
      const { workload } = volume;
      return `${volume.uuid}: ${cluster.whyNotWhole(volume) ?? "whole"}; ${workload.outstanding} requests, the oldest for ${Math.round(workload.oldestMs())} ms; ${workload.host.describe()}`;
    })
    .join("\n");
}

/** What had been begun has an outcome, and every volume is whole again. */
function recover(cluster: Cluster): void {
  const { world } = cluster;
  const endedMs = world.nowMs;
  const isRecovered = (): boolean =>
    cluster.volumes.every(({ workload }) => workload.oldestMs() <= world.nowMs - endedMs) &&
    cluster.isWhole();
  // Looked at once in a while: it costs more than an event does.
  for (let waitedMs = 0; !isRecovered(); waitedMs += 500) {
    if (waitedMs >= RECOVERED_WITHIN_MS) {
      throw new Error(
        `not recovered ${RECOVERED_WITHIN_MS} ms after the troubles\n${describe(cluster)}`,
      );
    }
    world.run(500);
  }
}

/** Nothing is under way any more: hosts have flushed, volumes are whole. */
function comeToRest(cluster: Cluster): void {
  const { world } = cluster;
  let flushed = 0;
  for (const { workload } of cluster.volumes) {
    world.enter(cluster.host, () => workload.flush(() => flushed++));
  }
  const isQuiet = (): boolean =>
    flushed === cluster.volumes.length &&
    cluster.volumes.every(({ workload }) => workload.outstanding === 0) &&
    cluster.isWhole();
  for (let waitedMs = 0; !isQuiet(); waitedMs += 500) {
    if (waitedMs >= RECOVERED_WITHIN_MS) throw new Error(`no rest\n${describe(cluster)}`);
    world.run(500);
  }
}

/** Every block that was written is read once more, and all replicas are the same. */
function compare(cluster: Cluster): void {
  const { world } = cluster;
  for (const volume of cluster.volumes) {
    cluster.compareReplicas(volume);
    const { workload } = volume;
    let underWay = 0;
    world.enter(cluster.host, () => {
      for (const block of workload.checker.written()) {
        underWay++;
        workload.read(block, 1, () => underWay--);
      }
    });
    if (!world.run(RECOVERED_WITHIN_MS, () => underWay === 0))
      throw new Error("the last reads hang");
  }
}
