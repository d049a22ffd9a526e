/**
 * Crash consistency: a random workload runs over a simulated disk that records everything; then, for
 * many moments, the disk is rebuilt as a crash at that moment may leave it, the pool is imported, and
 * everything in it is compared with what its users were promised.
 *
 * More than the default: `POOL_CRASH_SEEDS=100 POOL_CRASH_POINTS=200 bun test test/simulation/pool`.
 */
import { expect, test } from "bun:test";
import { createPool, type Pool } from "../../../src/engine/pool/index.ts";
import type { Reactor } from "../../../src/engine/reactor/reactor.ts";
import { Random } from "../../support/random.ts";
import { withReactor } from "../../support/reactor.ts";
import { expectSound, KIB, MIB } from "../../unit/engine/pool/fixture.ts";
import type { ModelDevice } from "./model.ts";
import { damageOneCopy, expectModel, expectUsable, rebase, recover } from "./recovered.ts";
import { SimDisk } from "./sim-disk.ts";
import { Workload } from "./workload.ts";

const only = process.env.POOL_CRASH_SEED;
const seeds = Number(process.env.POOL_CRASH_SEEDS ?? 6);
const points = Number(process.env.POOL_CRASH_POINTS ?? 60);
const onlyPoint = process.env.POOL_CRASH_POINT;
/** Every so many crashes the recovered pool goes on to another workload and further crashes. */
const GO_ON_EVERY = 12;
const POINTS_OF_SECOND_RUN = 4;

interface Run {
  readonly reactor: Reactor;
  readonly disk: SimDisk;
  readonly pool: Pool;
  readonly devices: ModelDevice[];
  readonly random: Random;
  readonly version: number;
  readonly family: number;
  /** When control operations were under way. */
  readonly windows: (readonly [number, number])[];
}

/** How a run differs by seed: room, cluster size, parallelism, growth. */
function settingsOf(seed: number) {
  const random = new Random(seed ^ 0x51ed);
  const clusterBytes = random.pick([64 * KIB, 64 * KIB, 128 * KIB]);
  const diskBytes = random.pick([10, 12, 16]) * MIB;
  return {
    clusterBytes,
    diskBytes,
    growTo: random.chance(0.5) ? diskBytes + 6 * MIB + random.below(32) * 512 : undefined,
    workers: random.pick([1, 4, 12]),
    pace: random.pick([0.3, 0.6, 1]),
    slow: random.pick([0, 0.03, 0.1]),
    sectorsMax: random.pick([700, 2500]),
    operations: 900,
  };
}

async function start(reactor: Reactor, seed: number): Promise<Run> {
  const settings = settingsOf(seed);
  const random = new Random(seed);
  const disk = new SimDisk({
    reactor,
    image: new Uint8Array(settings.diskBytes),
    seed,
    record: true,
    pace: settings.pace,
    slow: settings.slow,
  });
  const { clusterBytes } = settings;
  const pool = await createPool(disk, {
    name: "crash",
    clusterBytes,
    journalBytes: 512 * KIB,
    closeBdev: false,
  });
  return { reactor, disk, pool, devices: [], random, version: 1, family: 1, windows: [] };
}

async function work(run: Run, seed: number, operations: number, grow: boolean): Promise<Run> {
  const { growTo, workers, sectorsMax } = settingsOf(seed);
  const { reactor, disk, pool, random, devices, version, family, windows } = run;
  const workload = new Workload({
    reactor,
    disk,
    pool,
    random,
    devices,
    sectorsMax,
    operations,
    workers,
    firstVersion: version,
    firstFamily: family,
    windows,
    ...(grow && growTo !== undefined ? { growTo } : {}),
  });
  await workload.run();
  return { ...run, version: workload.version, family: workload.family };
}

/** A moment of a run: any, or one at which a control operation was under way. */
function momentOf(run: Run, from: number, random: Random): number {
  const [first, last] =
    run.windows.length > 0 && random.chance(0.5)
      ? random.pick(run.windows)
      : ([from, run.disk.clock] as const);
  return first + random.below(last - first + 1);
}

/** Crashes a run at one moment and checks what is left of it; returns the pool, still open. */
async function crash(run: Run, from: number, point: number, seed: number) {
  const random = new Random(seed * 7919 + point);
  const moment = momentOf(run, from, random);
  const style = random.below(6);
  const survivors = style === 0 ? "all" : style === 1 ? "none" : random;
  const image = run.disk.crash(moment, survivors);
  if (random.chance(0.4)) await damageOneCopy(run.reactor, image, random);
  const recovered = await recover(run.reactor, image, seed + point, true);
  await expectModel(recovered.pool, run.devices, moment);
  return { ...recovered, random };
}

async function finish(pool: Pool, random: Random): Promise<void> {
  await expectUsable(pool, random);
  await expectSound(pool);
  await pool.export();
}

async function crashAndGoOn(run: Run, from: number, point: number, seed: number): Promise<void> {
  const { pool, disk, random } = await crash(run, from, point, seed);
  if (point % GO_ON_EVERY !== 0) return finish(pool, random);
  const { reactor, version, family } = run;
  const devices = await rebase(pool, run.devices);
  const start = disk.clock;
  const second = await work(
    { reactor, disk, pool, devices, random, version, family, windows: [] },
    seed,
    150,
    false,
  );
  for (let again = 0; again < POINTS_OF_SECOND_RUN; again++) {
    const third = await crash(second, start, again, seed * 31 + point);
    await finish(third.pool, third.random);
  }
  await pool.export();
}

async function runSeed(reactor: Reactor, seed: number): Promise<void> {
  const empty = await start(reactor, seed);
  const from = empty.disk.clock;
  const run = await work(empty, seed, settingsOf(seed).operations, true);
  await expectSound(run.pool);
  // Every turn of the journal, its checkpoints and both slots are part of the run.
  expect(run.pool.core.checkpointer.count).toBeGreaterThan(2);
  const all = Array.from({ length: points }, (_, point) => point);
  const chosen = onlyPoint === undefined ? all : [Number(onlyPoint)];
  for (const point of chosen) {
    try {
      await crashAndGoOn(run, from, point, seed);
    } catch (error) {
      console.error(
        `replay: POOL_CRASH_SEED=${seed} POOL_CRASH_POINT=${point} bun test test/simulation/pool/crash.test.ts`,
      );
      throw error;
    }
  }
  await run.pool.export();
}

const list = only === undefined ? Array.from({ length: seeds }, (_, i) => i + 1) : [Number(only)];
for (const seed of list) {
  test(`crashes of a pool, seed ${seed}`, () => {
    console.log(`replay: POOL_CRASH_SEED=${seed} bun test test/simulation/pool/crash.test.ts`);
    withReactor((reactor) => runSeed(reactor, seed));
  }, 600_000);
}
