/** What the cases share: options, places, peers, and how sides are measured beside each other. */
import { coreToCoreNs } from "./core-to-core.ts";
import { NEAR_POLL_MS, NEAR_TIMEOUT_MS, ROUNDS_PER_REPETITION } from "./limits.ts";
import type { Load, Sample } from "./loads.ts";
import type { Options } from "./options.ts";
import type { Place, Service } from "./processes.ts";
import { type Aim, median, pairedRow, plainRow, type Row, shortNumber } from "./rows.ts";
import { Spdk } from "./spdk.ts";

/** Something that is measured beside others: one device behind one server. */
export interface Side {
  readonly name: string;
  measure(load: Load, seconds: number): Promise<Sample>;
  /** What ours is meant to reach relative to this side. */
  aimOf?(load: Load): Aim | undefined;
}

/** A side whose server polls: it runs only while it is measured. */
export function polled(service: Service, side: Side): Side {
  service.suspend();
  return {
    ...side,
    async measure(load, seconds) {
      service.resume();
      try {
        return await side.measure(load, seconds);
      } finally {
        service.suspend();
      }
    },
  };
}

/** A number of a sample that a row shows. */
export interface Metric {
  readonly unit: string;
  readonly of: (sample: Sample) => number;
}

export const iops: Metric = { unit: "IOPS", of: (sample) => sample.iops };
export const mibPerSec: Metric = {
  unit: "MiB/s",
  of: (sample) => sample.bytesPerSec / (1 << 20),
};

/** What rounds of measurements brought: in each, a sample of every side. */
interface Rounds {
  readonly samples: readonly Sample[][];
  readonly coreToCoreNs: number | null;
}

/** A set of rows that share servers. */
export interface Group {
  /** Names of its rows. */
  readonly rows: readonly string[];
  run(bench: Bench): Promise<void>;
}

export class Bench {
  readonly options: Options;
  /** Folder for logs, sockets and the engine's data. */
  readonly folder: string;
  readonly rows: Row[];
  readonly failures: string[];
  readonly server: Place;
  readonly load: Place;
  /** A folder in memory, for files that stand for memory devices. */
  readonly memoryFolder: string;
  readonly #say: (text: string) => void;

  constructor(
    options: Options,
    folder: string,
    memoryFolder: string,
    say: (text: string) => void,
    results: { rows: Row[]; failures: string[] } = { rows: [], failures: [] },
  ) {
    this.rows = results.rows;
    this.failures = results.failures;
    this.options = options;
    this.folder = folder;
    this.server = { core: options.serverCore, realtime: options.realtime };
    this.load = { core: options.loadCore, realtime: options.realtime };
    this.memoryFolder = memoryFolder;
    this.#say = say;
  }

  /** The same, with what is measured at the priority of everything else. */
  withoutRealtime(): Bench {
    const options = { ...this.options, realtime: false };
    return new Bench(options, this.folder, this.memoryFolder, this.#say, this);
  }

  /** True when a row is asked for. */
  wants(name: string): boolean {
    const { only } = this.options;
    return only.length === 0 || only.some((word) => name.includes(word));
  }

  add(...rows: readonly Row[]): void {
    this.rows.push(...rows);
    for (const { case: name, peer, ours, theirs, ratio, unit } of rows) {
      const beside = theirs === null ? "" : `, ${peer} ${shortNumber(theirs)}`;
      const relation = ratio === null ? "" : `, ratio ${ratio.toFixed(2)}`;
      this.#say(`${name}: ${shortNumber(ours)} ${unit}${beside}${relation}`);
    }
  }

  /** A row could not be measured. */
  fail(name: string, error: unknown): void {
    const text = `${name}: ${error instanceof Error ? error.message : String(error)}`;
    this.failures.push(text);
    this.#say(text);
  }

  /** Distance of the two cores now; with a limit on it, as soon as they are that near or time is up. */
  async #distance(): Promise<number | null> {
    const { serverCore, loadCore, coreToCoreNs: limitNs } = this.options;
    const deadline = Date.now() + NEAR_TIMEOUT_MS;
    for (;;) {
      const distance = await coreToCoreNs(serverCore, loadCore);
      if (distance === null || limitNs === null || distance <= limitNs) return distance;
      if (Date.now() > deadline) return distance;
      await Bun.sleep(NEAR_POLL_MS);
    }
  }

  /** One measurement of each side, beginning with the one of this round. */
  async #round(sides: readonly Side[], load: Load, round: number): Promise<Sample[]> {
    const samples: Sample[] = [];
    for (let turn = 0; turn < sides.length; turn++) {
      const index = (round + turn) % sides.length;
      samples[index] = await sides[index]!.measure(load, this.options.pace.seconds);
    }
    return samples;
  }

  /** Rounds until enough of them count. */
  async #rounds(sides: readonly Side[], load: Load): Promise<Rounds> {
    const { pace, serverCore, loadCore, coreToCoreNs: limitNs } = this.options;
    for (const side of sides) await side.measure(load, pace.warmupSeconds);
    const samples: Sample[][] = [];
    const distances: number[] = [];
    const most = limitNs === null ? pace.repetitions : pace.repetitions * ROUNDS_PER_REPETITION;
    for (let round = 0; round < most && samples.length < pace.repetitions; round++) {
      const before = await this.#distance();
      const measured = await this.#round(sides, load, round);
      const after = await coreToCoreNs(serverCore, loadCore);
      // Virtual CPUs may move while they are measured; then the sides had different machines.
      if (limitNs !== null && Math.max(before ?? 0, after ?? 0) > limitNs) continue;
      samples.push(measured);
      if (before !== null && after !== null) distances.push((before + after) / 2);
    }
    if (samples.length === 0) throw new Error(`the cores were never within ${limitNs} ns`);
    return { samples, coreToCoreNs: distances.length === 0 ? null : median(distances) };
  }

  /**
   * Measures `sides`, the first of which is ours, in turn, round after round, each round beginning
   * with another, and adds a row for each peer. A first round, which warms them up, is dropped.
   */
  async compare(
    name: string,
    metric: Metric,
    load: Load,
    [ours, ...peers]: readonly [Side, ...Side[]],
  ): Promise<void> {
    if (!this.wants(name)) return;
    let rounds: Rounds;
    try {
      rounds = await this.#rounds([ours, ...peers], load);
    } catch (error) {
      this.fail(name, error);
      return;
    }
    const frame = { case: name, unit: metric.unit, coreToCoreNs: rounds.coreToCoreNs };
    const valuesOf = (index: number): number[] =>
      rounds.samples.map((samples) => metric.of(samples[index]!));
    if (peers.length === 0) this.add(plainRow(frame, median(valuesOf(0))));
    for (const [index, peer] of peers.entries()) {
      const aim = peer.aimOf?.(load);
      const row = { ...frame, ...(aim === undefined ? {} : { aim }) };
      this.add(pairedRow(row, peer.name, valuesOf(0), valuesOf(index + 1)));
    }
  }

  /** Runs `use` with SPDK, and room for a target of `targetMib`; null without one to compare with. */
  async withSpdk<T>(targetMib: number, use: (spdk: Spdk | null) => Promise<T>): Promise<T> {
    const { spdk: build } = this.options;
    if (build === null) return await use(null);
    const spdk = new Spdk(build, this.folder, targetMib);
    if (!spdk.usesHugePages) this.#say("SPDK runs on ordinary pages: huge ones cannot be had");
    try {
      return await use(spdk);
    } finally {
      spdk.close();
    }
  }
}
