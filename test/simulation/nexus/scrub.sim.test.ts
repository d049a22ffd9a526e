/**
 * Scrubs of replicas that rot: bytes are changed and blocks become unreadable below a nexus that hosts
 * write to, while it is scrubbed again and again, stopped, taken up, paused, and its device grows.
 *
 * What must hold: no acknowledged write is lost or undone; what was not changed below is never said to
 * differ; of two copies none is ever written by a scrub but where it could not be read; of three or more all
 * are equal to what hosts wrote after the last scrub, which finds exactly what was changed.
 *
 * More seeds: TRILITH_SIM_RUNS=1000, from TRILITH_SIM_FIRST=500 on. One seed: TRILITH_SEED=7.
 */
import { expect, test } from "bun:test";
import type { Nexus, ScrubFinding, ScrubRecord } from "../../../src/engine/nexus/index.ts";
import type { Reactor } from "../../../src/engine/reactor/reactor.ts";
import { IoStatus } from "../../../src/errors.ts";
import { Random, testSeed } from "../../support/random.ts";
import { SimReplica } from "../../support/sim-child.ts";
import { SimHost, SimVolume } from "../../support/sim-nexus.ts";
import { makeSimReactor } from "../../support/sim-reactor.ts";

const MIB = 1 << 20;
const BYTES = 8 * MIB;
const BLOCK = 4096;
const BLOCKS = BYTES / BLOCK;
const WRITERS = 4;
const PASSES = 4;
const ROT_PER_PASS = 12;
const noCounts = {
  comparedBytes: 0,
  skippedBytes: 0,
  mismatchedBytes: 0,
  repairedBytes: 0,
  transientBytes: 0,
};

/** What a block holds after its `version`th write. */
function pattern(block: number, version: number): Uint8Array {
  const bytes = new Uint8Array(BLOCK);
  new Uint32Array(bytes.buffer).fill((block << 12) ^ version);
  return bytes;
}

class Run {
  readonly reactor: Reactor;
  readonly random: Random;
  readonly replicas: SimReplica[];
  readonly volume: SimVolume;
  /** Writes of each block that were acknowledged. */
  readonly versions = new Uint32Array(BLOCKS);
  /** Blocks that were changed below, once at most, and on one replica. */
  readonly rotten = new Set<number>();
  readonly found: ScrubFinding[] = [];
  nexus!: Nexus;
  isWriting = true;
  #scrubs = 0;

  constructor(reactor: Reactor, random: Random) {
    this.reactor = reactor;
    this.random = random;
    const copies = random.between(2, 4);
    this.replicas = Array.from({ length: copies }, (_, i) => {
      const isLocal = i === 0 && random.chance(0.5);
      return new SimReplica(reactor, random, { name: `r${i}`, bytes: BYTES, isLocal });
    });
    // Answers of one replica come later than those of the others, so that writes are on their way.
    random.pick(this.replicas).maxDelayMs = random.between(2, 30);
    this.volume = new SimVolume(reactor, this.replicas);
    this.volume.onEvent = (event) => {
      if (event.kind === "scrub-mismatch") this.found.push(event.finding);
    };
  }

  async open(sizeBytes: number): Promise<void> {
    for (const { data, written } of this.replicas) {
      for (let block = 0; block < BLOCKS; block++) data.set(pattern(block, 0), block * BLOCK);
      written.fill(1);
    }
    this.nexus = await this.volume.open(this.replicas, sizeBytes);
  }

  get blocks(): number {
    return this.nexus.core.sizeBytes / BLOCK;
  }

  /** Writes blocks of its own, some at a time, again and again the same few. */
  async writer(index: number): Promise<void> {
    const { random } = this;
    while (this.isWriting) {
      const count = random.between(1, 6);
      const near = random.chance(0.7) ? 64 : this.blocks / WRITERS;
      const first = index * (this.blocks / WRITERS) + random.below(Math.floor(near) - count);
      const start = Math.floor(first);
      const bytes = new Uint8Array(count * BLOCK);
      for (let i = 0; i < count; i++) {
        bytes.set(pattern(start + i, this.versions[start + i]! + 1), i * BLOCK);
      }
      const status = await new SimHost(this.nexus).write(start * BLOCK, bytes);
      if (status !== IoStatus.OK) throw new Error(`a write ended with ${status}`);
      for (let i = 0; i < count; i++) this.versions[start + i] = this.versions[start + i]! + 1;
      await this.reactor.sleep(random.next() * 4);
    }
  }

  /** Changes a block on one replica, or makes it unreadable there. */
  rot(): number | undefined {
    const { random } = this;
    const block = random.below(this.blocks);
    if (this.rotten.has(block)) return undefined;
    this.rotten.add(block);
    const replica = random.pick(this.replicas);
    const at = block * BLOCK + random.below(BLOCK);
    if (random.chance(0.3)) replica.badBlocks.add(Math.floor(at / replica.blockSize));
    else replica.data[at] = replica.data[at]! ^ 0x5a;
    return block;
  }

  /** Scrubs all of it, with interruptions if `isDisturbed`; returns the record at the end. */
  async scrub(isDisturbed: boolean): Promise<ScrubRecord> {
    const { random, nexus, reactor } = this;
    const { scrubs } = nexus;
    const bytesPerSec = isDisturbed ? random.pick([0, 16 * MIB, 64 * MIB]) : 0;
    const plan = { bytesPerSec, isRepairing: true } as const;
    scrubs.start({ ...plan, id: String(++this.#scrubs), offsetBytes: 0, counts: noCounts });
    let interruptions = isDisturbed ? random.below(6) : 0;
    for (;;) {
      await reactor.sleep(random.next() * 60);
      const record = scrubs.current();
      if (record.endTimeMs !== undefined) {
        expect(record.state).toBe("completed");
        expect(record.comparedBytes + record.skippedBytes).toBe(nexus.core.sizeBytes);
        return record;
      }
      if (isDisturbed && random.chance(0.5)) this.rot();
      if (interruptions <= 0) continue;
      interruptions--;
      const what = random.below(3);
      if (what === 0) {
        const { offsetBytes, ...counts } = await scrubs.stop();
        scrubs.start({ ...plan, id: String(++this.#scrubs), offsetBytes, counts });
      } else if (what === 1) {
        scrubs.pause();
        await reactor.sleep(random.next() * 50);
        scrubs.resume();
      } else {
        await nexus.pause();
        await reactor.sleep(random.next() * 50);
        nexus.resume();
      }
    }
  }

  /** Blocks that the replicas do not hold alike, or that one of them cannot read. */
  unequal(): number[] {
    const [first, ...others] = this.replicas;
    const blocks: number[] = [];
    for (let block = 0; block < this.blocks; block++) {
      const at = block * BLOCK;
      const mine = first!.data.subarray(at, at + BLOCK);
      const isEqual = others.every(
        ({ data }) => Buffer.compare(mine, data.subarray(at, at + BLOCK)) === 0,
      );
      if (!isEqual || this.replicas.some((replica) => isBad(replica, block))) blocks.push(block);
    }
    return blocks;
  }

  /** Every replica, or in the blocks given at least one, holds what hosts wrote last. */
  checkWritten(but: ReadonlySet<number>): void {
    for (let block = 0; block < this.blocks; block++) {
      const right = pattern(block, this.versions[block]!);
      const holders = this.replicas.filter(
        ({ data }) =>
          Buffer.compare(data.subarray(block * BLOCK, (block + 1) * BLOCK), right) === 0,
      ).length;
      const isEnough = but.has(block)
        ? holders >= this.replicas.length - 1
        : holders === this.replicas.length;
      if (!isEnough) {
        throw new Error(
          `block ${block}: ${holders} of ${this.replicas.length} hold its last write`,
        );
      }
    }
  }
}

function isBad({ badBlocks, blockSize }: SimReplica, block: number): boolean {
  for (let b = (block * BLOCK) / blockSize; b < ((block + 1) * BLOCK) / blockSize; b++) {
    if (badBlocks.has(b)) return true;
  }
  return false;
}

function blocksOf(findings: readonly ScrubFinding[]): number[] {
  return findings.flatMap(({ offsetBytes, lengthBytes }) =>
    Array.from({ length: lengthBytes / BLOCK }, (_, i) => offsetBytes / BLOCK + i),
  );
}

async function simulate(run: Run): Promise<void> {
  const { random, replicas } = run;
  const isGrowing = random.chance(0.3);
  await run.open(isGrowing ? BYTES - 5 * BLOCK : BYTES);
  const writers = Array.from({ length: WRITERS }, (_, i) => run.writer(i));
  const working = Promise.all(writers);
  for (let pass = 0; pass < PASSES; pass++) {
    for (let i = 0; i < ROT_PER_PASS; i++) run.rot();
    const scrubbed = run.scrub(true);
    if (isGrowing && pass === 1) await run.nexus.resize(BYTES);
    await scrubbed;
  }
  run.isWriting = false;
  await working;
  // Whatever was said to differ had been changed.
  for (const block of blocksOf(run.found)) {
    if (!run.rotten.has(block)) throw new Error(`block ${block} was said to differ for nothing`);
  }
  for (let i = 0; i < ROT_PER_PASS; i++) run.rot();
  const before = run.unequal();
  const copies = replicas.map(({ data }) => data.slice());
  const bad = new Set(before.filter((block) => replicas.some((one) => isBad(one, block))));
  const last = await run.scrub(false);
  if (last.findings.length < 64) {
    expect(blocksOf(last.findings).sort((a, b) => a - b)).toEqual(before);
  }
  expect(last.mismatchedBytes).toBe(before.length * BLOCK);
  const left = run.unequal();
  if (replicas.length === 2) {
    // Only what could not be read has been written: of two that differ nobody knows which is right.
    expect(left).toEqual(before.filter((block) => !bad.has(block)));
    replicas.forEach(({ data }, i) => {
      for (const block of left) {
        const at = block * BLOCK;
        expect(
          Buffer.compare(data.subarray(at, at + BLOCK), copies[i]!.subarray(at, at + BLOCK)),
        ).toBe(0);
      }
    });
  } else expect(left).toEqual([]);
  expect(last.repairedBytes).toBe((before.length - left.length) * BLOCK);
  run.checkWritten(new Set(left));
  expect(run.nexus.state).toBe("online");
  await run.nexus.close();
}

function runOnce(seed: number): void {
  const sim = makeSimReactor();
  const { reactor } = sim;
  const free = reactor.io.free;
  const freeBytes = reactor.arena.freeBytes;
  try {
    sim.runUntil(simulate(new Run(reactor, new Random(seed))));
    sim.runUntil(reactor.sleep(10_000));
    expect(reactor.io.free).toBe(free);
    expect(reactor.arena.freeBytes).toBe(freeBytes);
  } catch (error) {
    console.error(`replay: TRILITH_SEED=${seed} bun test test/simulation/nexus/scrub.sim.test.ts`);
    throw error;
  } finally {
    sim.close();
  }
}

test("what rots under a nexus is found, and made good where a majority is left", () => {
  if (process.env.TRILITH_SEED !== undefined) {
    runOnce(testSeed());
    return;
  }
  const runs = Number(process.env.TRILITH_SIM_RUNS ?? 20);
  const first = Number(process.env.TRILITH_SIM_FIRST ?? 1);
  for (let seed = first; seed < first + runs; seed++) runOnce(seed);
}, 600_000);
