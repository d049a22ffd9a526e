/**
 * Import of damaged pools. Whatever happens to the metadata on a disk, import ends with an error or
 * with a pool in which every byte is right; it never crashes, hangs, or shows bytes that belong
 * somewhere else. Damage inside data clusters cannot be noticed: blocks carry no checksums.
 *
 * More than the default: `POOL_FUZZ_RUNS=20000 bun test test/fuzz/pool.test.ts`.
 */
import { expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { crc32cOf } from "../../ffi/index.ts";
import type { Extent } from "../../src/engine/pool/area.ts";
import { checkPool, createPool, importPool, type Pool } from "../../src/engine/pool/index.ts";
import { SUPERBLOCK_OFFSETS, type Superblock } from "../../src/engine/pool/superblock.ts";
import type { Reactor } from "../../src/engine/reactor/reactor.ts";
import { IoStatus, TrilithError } from "../../src/errors.ts";
import { fillSectors } from "../simulation/pool/model.ts";
import { expectUsable } from "../simulation/pool/recovered.ts";
import { SECTOR_BYTES, SimDisk } from "../simulation/pool/sim-disk.ts";
import { readVersions } from "../simulation/pool/workload.ts";
import { type Random, withSeed } from "../support/random.ts";
import { probeBdev, withReactor } from "../support/reactor.ts";
import { expectSound, KIB, MIB } from "../unit/engine/pool/fixture.ts";

const runs = Number(process.env.POOL_FUZZ_RUNS ?? 400);
const C = 64 * KIB;
const BLOCK = 4096;
const PAGE = 64 * KIB;
/** What import may say of a disk that was tampered with. */
const REFUSALS = new Set(["Corrupted", "NotFound", "FailedPrecondition"]);

interface Sample {
  readonly image: Uint8Array;
  readonly superblock: Superblock;
  /** What each replica and snapshot holds, by UUID: family and version of each sector. */
  readonly content: Map<string, { family: number; versions: Uint32Array; epoch: number }>;
  /** A replica whose last changes may be lost when both copies of the journal's end are hit. */
  readonly last: string;
  /** Blocks of metadata in use. */
  readonly blocks: number[];
}

async function write(pool: Pool, uuid: string, family: number, version: number, random: Random) {
  const replica = pool.get(uuid);
  const sectors = replica.sizeBytes / SECTOR_BYTES;
  for (let i = 0; i < 12; i++) {
    const from = random.below(sectors);
    const count = Math.min(sectors - from, 1 + random.below(300));
    const bytes = new Uint8Array(count * SECTOR_BYTES);
    fillSectors(bytes, family, version, from, count);
    expect(await probeBdev(replica).write(from * SECTOR_BYTES, bytes)).toBe(IoStatus.OK);
  }
}

/** A pool that was never closed: two checkpoints, a journal to replay, all kinds of records. */
async function makeSample(reactor: Reactor, random: Random): Promise<Sample> {
  const disk = new SimDisk({ reactor, image: new Uint8Array(12 * MIB), seed: 1, pace: 1 });
  const pool = await createPool(disk, { name: "fuzz", clusterBytes: C, closeBdev: false });
  const make = (name: string, sizeBytes: number, thin: boolean) =>
    pool.createReplica({ uuid: randomUUID(), name, sizeBytes, thin });
  const a = await make("a", 2 * MIB + 512, true);
  const b = await make("b", MIB, false);
  await write(pool, a.uuid, 1, 1, random);
  await pool.checkpoint();
  const s = await pool.createSnapshot(a.uuid, { uuid: randomUUID(), name: "s" });
  await write(pool, a.uuid, 1, 2, random);
  await write(pool, b.uuid, 2, 3, random);
  const reservation = new Uint8Array(12_000).fill(5);
  await pool.setAttributes(b.uuid, { reservation, epoch: 4 });
  await pool.checkpoint();
  const c = await pool.createClone(s.uuid, { uuid: randomUUID(), name: "c" });
  await write(pool, c.uuid, 1, 4, random);
  await a.intent.markDirty([{ first: 0, count: 1 }]);
  await probeBdev(b).control(5, 0, 512 * KIB);
  await pool.resize(b.uuid, 2 * MIB);
  await pool.setAttributes(b.uuid, { reservation: reservation.fill(6), epoch: 5 });
  const d = await make("d", C, true);
  for (let epoch = 1; epoch < 12; epoch++) await pool.setAttributes(d.uuid, { epoch });
  const content: Sample["content"] = new Map();
  for (const [replica, family] of [
    [a, 1] as const,
    [b, 2] as const,
    [s, 1] as const,
    [c, 1] as const,
    [d, 3] as const,
  ]) {
    const versions = await readVersions(reactor, replica, family);
    content.set(replica.uuid, { family, versions, epoch: replica.attributes.epoch });
  }
  const { superblock, journal } = pool.core;
  return {
    image: disk.image,
    superblock,
    content,
    last: d.uuid,
    blocks: blocksInUse(superblock, journal.position.seq),
  };
}

/** The metadata blocks that matter: superblocks, journal up to its end, the heads of both slots. */
function blocksInUse(superblock: Superblock, seq: number): number[] {
  const blocks = [...SUPERBLOCK_OFFSETS];
  const add = ({ offset }: Extent, bytes: number) => {
    for (let at = 0; at < bytes; at += BLOCK) blocks.push(offset + at);
  };
  for (const [first] of superblock.rings) add(first!, (seq + 4) * BLOCK);
  for (const [first] of superblock.slots) add(first!, PAGE);
  return blocks;
}

type Mutation = (image: Uint8Array, sample: Sample, random: Random) => Uint8Array;

/** Damage that checksums notice. */
const damage: readonly Mutation[] = [
  function flipBits(image, { blocks }, random) {
    for (let i = random.between(1, 8); i > 0; i--) {
      const at = random.pick(blocks) + random.below(BLOCK);
      image[at] = image[at]! ^ (1 << random.below(8));
    }
    return image;
  },
  function zeroBlocks(image, { blocks }, random) {
    for (let i = random.between(1, 3); i > 0; i--) {
      const at = random.pick(blocks);
      image.fill(0, at, at + BLOCK);
    }
    return image;
  },
  function garbageBlock(image, { blocks }, random) {
    image.set(random.bytes(BLOCK), random.pick(blocks));
    return image;
  },
  function tornBlock(image, { blocks }, random) {
    const at = random.pick(blocks) + random.below(8) * SECTOR_BYTES;
    image.set(random.bytes(SECTOR_BYTES), at);
    return image;
  },
  function swapBlocks(image, { blocks }, random) {
    const [a, b] = [random.pick(blocks), random.pick(blocks)];
    const kept = image.slice(a, a + BLOCK);
    image.copyWithin(a, b, b + BLOCK);
    image.set(kept, b);
    return image;
  },
  function copyBlock(image, { blocks }, random) {
    const from = random.pick(blocks);
    image.copyWithin(random.pick(blocks), from, from + BLOCK);
    return image;
  },
  function truncate(image, _sample, random) {
    return image.slice(
      0,
      random.below(image.byteLength / SECTOR_BYTES - 1) * SECTOR_BYTES + SECTOR_BYTES,
    );
  },
  function wipeArea(image, { superblock }, random) {
    const areas = [...superblock.rings, ...superblock.slots];
    for (const { offset, bytes } of random.pick(areas)) image.fill(0, offset, offset + bytes);
    return image;
  },
];

function seal(image: Uint8Array, at: number, length: number, crcAt: number): void {
  const view = new DataView(image.buffer, image.byteOffset + at, length);
  view.setUint32(crcAt, 0, true);
  view.setUint32(crcAt, crc32cOf(image.subarray(at, at + length)), true);
}

/** Changes that carry a checksum that fits: a fault of software, or malice. */
const forgeries: readonly Mutation[] = [
  function forgeCheckpoint(image, { superblock }, random) {
    for (const [first] of superblock.slots) {
      const at = first!.offset;
      const length = new DataView(image.buffer, at).getUint32(40, true);
      for (let i = random.between(1, 6); i > 0; i--) {
        const place = at + (random.chance(0.2) ? 8 + random.below(56) : 64 + random.below(length));
        image[place] = random.chance(0.5)
          ? random.below(256)
          : image[place]! ^ (1 << random.below(8));
      }
      seal(image, at, PAGE, 4);
    }
    return image;
  },
  function forgeSuperblock(image, _sample, random) {
    const place = random.chance(0.5) ? 8 + random.below(88) : 896 + random.below(6 * 16);
    const value = random.below(256);
    for (const at of SUPERBLOCK_OFFSETS) {
      image[at + place] = value;
      seal(image, at, BLOCK, 12);
    }
    return image;
  },
  function forgeJournal(image, { superblock }, random) {
    // The blocks behind it no longer chain to a changed block: change the last ones.
    const [ring, mirror] = superblock.rings.map((extents) => extents[0]!.offset);
    const view = new DataView(image.buffer);
    let seq = 1;
    while (view.getUint32(ring! + (seq + 1) * BLOCK + 16, true) === seq + 1) seq++;
    const edits = Array.from({ length: random.between(1, 4) }, () => [
      random.chance(0.3) ? 16 + random.below(48) : 64 + random.below(200),
      random.below(256),
    ]);
    for (const at of [ring! + seq * BLOCK, mirror! + seq * BLOCK]) {
      for (const [place, value] of edits) image[at + place!] = value!;
      seal(image, at, BLOCK, 4);
    }
    return image;
  },
];

/** Imports an image; null when import refuses it. Whatever else happens fails the test. */
async function tryImport(reactor: Reactor, image: Uint8Array): Promise<Pool | null> {
  const disk = new SimDisk({ reactor, image, seed: 2, pace: 1 });
  const report = await checkPool(disk);
  try {
    const pool = await importPool(disk, { closeBdev: false });
    expect(["sound", "degraded"]).toContain(report.verdict);
    return pool;
  } catch (error) {
    if (!(error instanceof TrilithError) || !REFUSALS.has(error.code)) throw error;
    expect(["damaged", "absent"]).toContain(report.verdict);
    return null;
  }
}

async function expectRight(pool: Pool, sample: Sample): Promise<void> {
  for (const [uuid, expected] of sample.content) {
    const replica = pool.find(uuid);
    if (replica === undefined) throw new Error(`${uuid} is lost`);
    const versions = await readVersions(pool.reactor, replica, expected.family);
    if (
      Buffer.compare(new Uint8Array(versions.buffer), new Uint8Array(expected.versions.buffer)) !==
      0
    ) {
      throw new Error(`${replica.name} does not hold what it held`);
    }
    if (uuid !== sample.last) expect(replica.attributes.epoch).toBe(expected.epoch);
  }
  expect(pool.replicas().length + pool.snapshots().length).toBe(sample.content.size);
}

test("a damaged pool is refused, or right in every byte", () => {
  withSeed(import.meta.path, (random) =>
    withReactor(async (reactor) => {
      const sample = await makeSample(reactor, random);
      const outcomes = { refused: 0, imported: 0 };
      for (let run = 0; run < runs; run++) {
        const mutate = random.pick(damage);
        const image = mutate(sample.image.slice(), sample, random);
        try {
          const pool = await tryImport(reactor, image);
          if (pool === null) {
            outcomes.refused++;
            continue;
          }
          outcomes.imported++;
          await expectRight(pool, sample);
          await expectSound(pool);
          if (run % 16 === 0) await expectUsable(pool, random);
          await pool.export();
        } catch (error) {
          console.error(`in run ${run}, ${mutate.name}`);
          throw error;
        }
      }
      // Both outcomes occur, or the test tests nothing.
      expect(outcomes.refused).toBeGreaterThan(0);
      expect(outcomes.imported).toBeGreaterThan(0);
    }),
  );
}, 3_600_000);

test("metadata that was forged with matching checksums never crashes an import", () => {
  withSeed(import.meta.path, (random) =>
    withReactor(async (reactor) => {
      const sample = await makeSample(reactor, random);
      for (let run = 0; run < runs; run++) {
        const mutate = random.pick(forgeries);
        const image = mutate(sample.image.slice(), sample, random);
        try {
          const pool = await tryImport(reactor, image);
          if (pool === null) continue;
          // What it says cannot be checked, but it must be consistent in itself and work.
          await expectSound(pool);
          for (const replica of pool.replicas().slice(0, 3)) {
            const length = Math.min(replica.sizeBytes, C);
            expect((await probeBdev(replica).read(0, length)).status).toBe(IoStatus.OK);
          }
          await pool.export();
        } catch (error) {
          console.error(`in run ${run}, ${mutate.name}`);
          throw error;
        }
      }
    }),
  );
}, 3_600_000);
