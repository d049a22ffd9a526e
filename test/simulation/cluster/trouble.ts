/**
 * Troubles of a simulated cluster, at random, and the rule that keeps every run recoverable (the atlas): what
 * takes data away or out of reach for good (a power loss: what no flush has covered; a disk) strikes only
 * while every replica of every volume has all that was acknowledged and can be read, and until that is so
 * again nothing keeps the other replicas away. Everything else may strike at any time; everything ends.
 */

import { IoStatus } from "../../../src/errors.ts";
import type { Cluster } from "./cluster.ts";
import type { Machine } from "./machine.ts";

/** How long a process that was killed takes to be started again. */
const RESTART_MAX_MS = 6_000;
/** Some stay away longer than nodes are waited for. */
const LONG_AWAY_MS = 40_000;
const LONG_AWAY_CHANCE = 0.15;
const GAP_MAX_MS = 9_000;

type Trouble = (cluster: Cluster, machine: Machine) => void;

function awayMs(cluster: Cluster): number {
  const { random } = cluster.world;
  return random.next() * (random.chance(LONG_AWAY_CHANCE) ? LONG_AWAY_MS : RESTART_MAX_MS);
}

function later(cluster: Cluster, delayMs: number, run: () => void): void {
  cluster.world.after(delayMs, null, run);
}

function killEngine(cluster: Cluster, machine: Machine): void {
  machine.killEngine();
  later(cluster, awayMs(cluster), () => machine.startEngine());
}

function killControl(cluster: Cluster, machine: Machine): void {
  machine.killControl();
  later(cluster, awayMs(cluster), () => machine.startControl());
}

function killBoth(cluster: Cluster, machine: Machine): void {
  machine.killEngine();
  machine.killControl();
  const delayMs = awayMs(cluster);
  later(cluster, delayMs, () => {
    machine.startEngine();
    machine.startControl();
  });
}

function crashInTransaction(cluster: Cluster, machine: Machine): void {
  if (machine.control === null) return;
  machine.db.crashAt = cluster.world.random.pick(["before-commit", "after-commit", "before-sync"]);
}

function pause(cluster: Cluster, machine: Machine): void {
  const { world } = cluster;
  const which = world.random.below(3);
  const processes = [machine.engine?.process, machine.control?.process].filter(
    (process, at) => process !== undefined && (which === 2 || which === at),
  );
  const durationMs = world.random.next() * (world.random.chance(0.3) ? 25_000 : 4_000);
  for (const process of processes) {
    if (process === undefined || process.isPaused) continue;
    world.note(`${process.name} stands still for ${Math.round(durationMs)} ms`);
    process.pause();
    later(cluster, durationMs, () => process.resume());
  }
}

function cut(cluster: Cluster, machine: Machine): void {
  const { network, world, machines } = cluster;
  const { random } = world;
  const others = [...machines.filter((one) => one !== machine).map(({ name }) => name), "host"];
  const style = random.below(3);
  const ways: string[] = [];
  const chosen = style === 0 ? others : [random.pick(others)];
  for (const other of chosen) {
    const isOneWay = style === 2;
    if (!isOneWay || random.chance(0.5)) ways.push(`${machine.name}>${other}`);
    if (!isOneWay || ways.length === 0) ways.push(`${other}>${machine.name}`);
  }
  const durationMs = random.next() * (random.chance(0.2) ? 40_000 : 8_000);
  world.note(`cut for ${Math.round(durationMs)} ms: ${ways.join(" ")}`);
  for (const way of ways) network.cuts.add(way);
  later(cluster, durationMs, () => {
    for (const way of ways) network.cuts.delete(way);
    world.note(`joined: ${ways.join(" ")}`);
  });
}

function badNetwork(cluster: Cluster): void {
  const { network, world } = cluster;
  network.loss = world.random.next() * 0.1;
  network.slowMs = world.random.next() * 60;
  world.note(`bad network: loss ${network.loss.toFixed(3)}, ${network.slowMs.toFixed(0)} ms`);
  later(cluster, world.random.next() * 10_000, () => {
    network.loss = 0;
    network.slowMs = 0;
  });
}

function slowDisk(cluster: Cluster, machine: Machine): void {
  const { world } = cluster;
  machine.disk.maxDelayMs = world.random.next() * 80;
  world.note(`${machine.name}: slow disk, ${machine.disk.maxDelayMs.toFixed(0)} ms`);
  later(cluster, world.random.next() * 10_000, () => {
    machine.disk.maxDelayMs = 0.6;
  });
}

function jumpClock(cluster: Cluster, machine: Machine): void {
  const byMs = (cluster.world.random.next() - 0.5) * 120_000;
  cluster.world.note(`${machine.name}: its clock jumps by ${Math.round(byMs)} ms`);
  machine.jumpClock(byMs);
}

function powerLoss(cluster: Cluster, machine: Machine): void {
  if (cluster.options.replicas < 2 || !cluster.isSettled()) return;
  cluster.isLacking = true;
  machine.losePower();
  later(cluster, awayMs(cluster), () => {
    machine.powerUp();
    machine.startEngine();
    machine.startControl();
  });
}

/** Every machine at once: even what was acknowledged may be lost, unless a flush has covered it. */
function powerCut(cluster: Cluster): void {
  if (!cluster.isSettled()) return;
  cluster.isLacking = true;
  for (const machine of cluster.machines) machine.losePower();
  for (const { workload } of cluster.volumes) workload.checker.powerCut();
  for (const machine of cluster.machines) {
    later(cluster, awayMs(cluster), () => {
      machine.powerUp();
      machine.startEngine();
      machine.startControl();
    });
  }
}

function failDisk(cluster: Cluster, { disk }: Machine): void {
  const { world } = cluster;
  if (cluster.options.replicas < 2 || !cluster.isSettled()) return;
  cluster.isLacking = true;
  world.note(`${disk.name}: fails`);
  disk.failure = IoStatus.DEVICE_IO;
  later(cluster, world.random.next() * 15_000, () => {
    world.note(`${disk.name}: works again`);
    disk.failure = IoStatus.OK;
  });
}

function pullDisk(cluster: Cluster, { disk }: Machine): void {
  if (cluster.options.replicas < 2 || !cluster.isSettled()) return;
  cluster.isLacking = true;
  cluster.world.note(`${disk.name}: pulled out`);
  disk.remove();
  later(cluster, cluster.world.random.next() * 15_000, () => {
    cluster.world.note(`${disk.name}: put back`);
    disk.putBack();
  });
}

function spoilSector(cluster: Cluster, { disk }: Machine): void {
  if (cluster.options.replicas < 2 || !cluster.isSettled()) return;
  cluster.isLacking = true;
  disk.spoilSector();
  cluster.world.note(`${disk.name}: sector ${[...disk.badSectors]} cannot be read`);
  later(cluster, cluster.world.random.next() * 20_000, () => disk.badSectors.clear());
}

/** A blank disk in the place of one: the pool is forgotten and made anew, as an operator would do it. */
function swapDisk(cluster: Cluster, machine: Machine): void {
  if (cluster.options.replicas < 2 || !cluster.isSettled()) return;
  cluster.isLacking = true;
  cluster.world.note(`${machine.disk.name}: swapped for a blank one`);
  machine.disk.swap();
  later(cluster, 2_000, () => cluster.makePoolAnew(machine));
}

const troubles: readonly {
  readonly weight: number;
  readonly trouble: Trouble;
  /** Keeps no replica away. */
  readonly isHarmless?: boolean;
}[] = [
  { weight: 4, trouble: killEngine },
  { weight: 3, trouble: killControl, isHarmless: true },
  { weight: 2, trouble: killBoth },
  { weight: 1, trouble: crashInTransaction, isHarmless: true },
  { weight: 3, trouble: pause },
  { weight: 4, trouble: cut },
  { weight: 2, trouble: badNetwork },
  { weight: 1, trouble: slowDisk, isHarmless: true },
  { weight: 1, trouble: jumpClock, isHarmless: true },
  { weight: 3, trouble: powerLoss },
  { weight: 1, trouble: powerCut },
  { weight: 2, trouble: failDisk },
  { weight: 1, trouble: pullDisk },
  { weight: 1, trouble: spoilSector },
  { weight: 1, trouble: swapDisk },
];

/** Has troubles come for so long. */
export function beginTroubles(cluster: Cluster, durationMs: number): void {
  const { world, machines } = cluster;
  const { random } = world;
  const untilMs = world.nowMs + durationMs;
  const total = troubles.reduce((sum, { weight }) => sum + weight, 0);
  const next = (): void => {
    const gapMs = random.chance(0.2) ? random.next() * 200 : random.next() * GAP_MAX_MS;
    later(cluster, gapMs, () => {
      if (world.nowMs >= untilMs) return;
      let roll = random.next() * total;
      const chosen = troubles.find(({ weight }) => {
        roll -= weight;
        return roll < 0;
      })!;
      if (cluster.isLacking && cluster.isSettled()) cluster.isLacking = false;
      if (!cluster.isLacking || chosen.isHarmless === true) {
        chosen.trouble(cluster, random.pick(machines));
      }
      next();
    });
  };
  next();
}

/** Ends everything that troubles have left. */
export function endTroubles(cluster: Cluster): void {
  const { network, machines, world } = cluster;
  world.note("--- troubles end");
  network.cuts.clear();
  network.loss = 0;
  network.slowMs = 0;
  for (const machine of machines) {
    machine.disk.maxDelayMs = 0.6;
    machine.disk.failure = IoStatus.OK;
    machine.disk.badSectors.clear();
    machine.disk.putBack();
    machine.db.crashAt = null;
    if (!machine.isOn) machine.powerUp();
    machine.startEngine();
    machine.startControl();
    machine.engine?.process.resume();
    machine.control?.process.resume();
  }
}
