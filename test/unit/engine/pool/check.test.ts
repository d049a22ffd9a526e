import { expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { closeSync, ftruncateSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openBdev } from "../../../../src/engine/bdev/open.ts";
import {
  checkExitStatus,
  checkPool,
  createPool,
  formatReport,
  importPool,
  type PoolReport,
  runPoolCheck,
} from "../../../../src/engine/pool/index.ts";
import { JOURNAL_BLOCK_BYTES } from "../../../../src/engine/pool/journal-format.ts";
import type { Reactor } from "../../../../src/engine/reactor/reactor.ts";
import { SimDisk } from "../../../simulation/pool/sim-disk.ts";
import { probeBdev, withReactor } from "../../../support/reactor.ts";
import { tempFolders } from "../../../support/temp-folder.ts";
import { errorOf, KIB, MIB, pattern } from "./fixture.ts";

const C = 64 * KIB;
const folder = tempFolders();

/** An image with a replica, a snapshot and a clone, and what is known about it. */
async function sample(reactor: Reactor) {
  const disk = new SimDisk({ reactor, image: new Uint8Array(16 * MIB), seed: 2 });
  const pool = await createPool(disk, { name: "p", clusterBytes: C, closeBdev: false });
  const volumeUuid = randomUUID();
  const r = await pool.createReplica({
    uuid: randomUUID(),
    name: "r",
    sizeBytes: MIB,
    thin: false,
    attributes: { volumeUuid, epoch: 3, healthGeneration: 4, clean: true },
  });
  await probeBdev(r).write(0, pattern(3 * C, 1));
  const s = await pool.createSnapshot(r.uuid, { uuid: randomUUID(), name: "s" });
  const c = await pool.createClone(s.uuid, { uuid: randomUUID(), name: "c" });
  await probeBdev(c).write(0, pattern(512, 2));
  await r.intent.markDirty([{ first: 0, count: 1 }]);
  await pool.export();
  // Something after the checkpoint of the export, so that there is a journal to replay.
  const again = await importPool(disk, { closeBdev: false });
  await again.setAttributes(c.uuid, { epoch: 1 });
  await again.setAttributes(c.uuid, { epoch: 2 });
  const { superblock } = again.core;
  const end = again.core.journal.position.seq;
  return { image: disk.image, superblock, end, r, s, c, volumeUuid };
}

async function check(reactor: Reactor, image: Uint8Array): Promise<PoolReport> {
  const disk = new SimDisk({ reactor, image: image.slice(), seed: 2 });
  const report = await checkPool(disk);
  expect(Buffer.compare(disk.image, image)).toBe(0); // It writes nothing.
  return report;
}

test("a sound pool is described in full", () => {
  withReactor(async (reactor) => {
    const { image, r, s, c, volumeUuid } = await sample(reactor);
    const report = await check(reactor, image);
    expect(report).toMatchObject({
      verdict: "sound",
      name: "p",
      clusterBytes: C,
      clusters: 256,
      usedClusters: 4,
      reservedClusters: 16,
      errors: [],
      warnings: [],
    });
    expect(report.usedClusters + report.freeClusters + report.metadataClusters).toBe(256);
    expect(report.structures.map(({ name, state }) => `${name}: ${state}`)).toEqual([
      "superblock A: good",
      "superblock B: good",
      "checkpoint slot X: stale",
      "checkpoint slot Y: good",
      "journal ring: good",
      "journal mirror: good",
    ]);
    const common = { sizeBytes: MIB, allocatedBytes: 3 * C };
    expect(report.replicas).toMatchObject([
      {
        ...common,
        uuid: r.uuid,
        kind: "replica",
        thin: false,
        sharedBytes: 3 * C,
        dirtyRegions: 1,
        volumeUuid,
        epoch: 3,
        healthGeneration: 4,
        clean: true,
      },
      { ...common, uuid: s.uuid, kind: "snapshot", sharedBytes: 3 * C },
      { ...common, uuid: c.uuid, kind: "clone", thin: true, sharedBytes: 2 * C, epoch: 2 },
    ]);
    expect(checkExitStatus(report)).toBe(0);
    const text = formatReport(report).join("\n");
    for (const part of ["pool p", "snapshot s", "clone", "196608 allocated", "sim: sound"]) {
      expect(text).toContain(part);
    }
  });
});

test("damage that redundancy covers is a warning", () => {
  withReactor(async (reactor) => {
    const { image, superblock, end } = await sample(reactor);
    const rings = superblock.rings.map((extents) => extents[0]!.offset);
    const block = (end - 1) * JOURNAL_BLOCK_BYTES;
    const places: [string, number][] = [
      ["superblock A", 200],
      ["superblock B", MIB + 200],
      ["checkpoint slot Y", superblock.slots[1]![0]!.offset + 99],
      ["checkpoint slot X", superblock.slots[0]![0]!.offset + 99],
      ["journal ring", rings[0]! + block + 99],
      ["journal mirror", rings[1]! + block + 99],
    ];
    for (const [name, at] of places) {
      const damaged = image.slice();
      damaged[at] = damaged[at]! ^ 1;
      const report = await check(reactor, damaged);
      expect([name, report.verdict, report.errors]).toEqual([name, "degraded", []]);
      expect(report.warnings).toEqual([expect.stringContaining(name)]);
      expect(report.replicas[2]).toMatchObject({ epoch: 2 });
      expect(checkExitStatus(report)).toBe(3);
    }
  });
});

test("damage that redundancy does not cover is an error", () => {
  withReactor(async (reactor) => {
    const { image, superblock, end } = await sample(reactor);
    const twice = async (a: number, b: number) => {
      const damaged = image.slice();
      damaged.fill(0x55, a, a + 64);
      damaged.fill(0x55, b, b + 64);
      const report = await check(reactor, damaged);
      expect([report.verdict, checkExitStatus(report)]).toEqual(["damaged", 7]);
      return report.errors.join();
    };
    const [x, y] = superblock.slots.map((extents) => extents[0]!.offset);
    expect(await twice(x! + 100, y! + 100)).toContain("no whole checkpoint");
    const [ring, mirror] = superblock.rings.map((extents) => extents[0]!.offset);
    const block = (end - 2) * JOURNAL_BLOCK_BYTES;
    expect(await twice(ring! + block + 64, mirror! + block + 64)).toContain("journal is damaged");
    expect(await twice(100, MIB + 100)).toContain("superblock");
  });
});

test("a disk without a pool is absent, and what it holds is named", () => {
  withReactor(async (reactor) => {
    const image = new Uint8Array(16 * MIB);
    const blank = await check(reactor, image);
    expect([blank.verdict, checkExitStatus(blank)]).toEqual(["absent", 4]);
    image.set(Buffer.from("XFSB"));
    expect((await check(reactor, image)).errors[0]).toContain("an XFS file system");
  });
});

test("the command checks a file and prints text or JSON", () => {
  const path = join(folder(), "disk");
  withReactor(async (reactor) => {
    writeFileSync(path, (await sample(reactor)).image);
  });
  const before = readFileSync(path);
  const lines: string[] = [];
  const print = (line: string) => lines.push(line);
  expect(runPoolCheck(path, { json: false, print })).toBe(0);
  expect(lines.at(-1)).toBe(`${path}: sound`);
  lines.length = 0;
  expect(runPoolCheck(`uring://${path}`, { json: true, print })).toBe(0);
  expect(JSON.parse(lines.join("\n"))).toMatchObject({ verdict: "sound", name: "p" });
  expect(Buffer.compare(readFileSync(path), before)).toBe(0);
  expect(() => runPoolCheck("malloc:///x?size_mb=16", { json: false, print })).toThrow(
    "not a disk",
  );
  expect(() => runPoolCheck("/does/not/exist", { json: false, print })).toThrow("does not exist");
});

test("a pool that an engine has open is in use", () => {
  withReactor(async (reactor) => {
    const path = join(folder(), "disk");
    const fd = openSync(path, "w");
    ftruncateSync(fd, 16 * MIB);
    closeSync(fd);
    const pool = await createPool(await openBdev(reactor, path), { name: "p", clusterBytes: C });
    const opening = (async () => runPoolCheck(path, { json: false, print: () => {} }))();
    expect((await errorOf(opening)).code).toBe("InUse");
    await pool.export();
  });
});
