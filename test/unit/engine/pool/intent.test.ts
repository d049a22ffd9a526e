import { expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import {
  createPool,
  importPool,
  type Pool,
  type Replica,
} from "../../../../src/engine/pool/index.ts";
import { IoOp } from "../../../../src/engine/reactor/io-table.ts";
import { SimDisk } from "../../../simulation/pool/sim-disk.ts";
import { withReactor } from "../../../support/reactor.ts";
import { codeOf, KIB, MIB, smallPool, until } from "./fixture.ts";

function make(pool: Pool, sizeBytes = 40 * MIB): Promise<Replica> {
  return pool.createReplica({ uuid: randomUUID(), name: "r", sizeBytes, thin: true });
}

const dirty = (r: Replica) =>
  Array.from({ length: r.intent.regionCount }, (_, i) => i).filter((i) => r.intent.isDirty(i));

test("marks are durable when they resolve, and found again", () => {
  withReactor(async (reactor) => {
    const { bdev, pool } = await smallPool(reactor);
    const r = await make(pool);
    expect([r.intent.regionCount, r.intent.dirtyCount]).toEqual([10, 0]);
    await r.intent.markDirty([
      { first: 1, count: 2 },
      { first: 9, count: 1 },
    ]);
    expect(dirty(r)).toEqual([1, 2, 9]);
    expect([...r.intent.bitmap]).toEqual([0b110, 0b10]);
    const crashed = await importPool(bdev, { closeBdev: false });
    const found = crashed.get(r.uuid);
    expect([dirty(found), found.intent.dirtyCount]).toEqual([[1, 2, 9], 3]);
    await crashed.export(); // now by way of a checkpoint
    const again = await importPool(bdev, { closeBdev: false });
    expect(dirty(again.get(r.uuid))).toEqual([1, 2, 9]);
    await again.export();
  });
});

test("a marked region needs no second record", () => {
  withReactor(async (reactor) => {
    const { pool } = await smallPool(reactor);
    const r = await make(pool);
    await r.intent.markDirty([{ first: 0, count: 10 }]);
    const { seq } = pool.core.journal.position;
    await r.intent.markDirty([{ first: 3, count: 4 }]);
    expect(pool.core.journal.position.seq).toBe(seq);
    await pool.export();
  });
});

test("clearing is lazy, and comes to the disk with the next commit", () => {
  withReactor(async (reactor) => {
    const { bdev, pool } = await smallPool(reactor);
    const r = await make(pool);
    await r.intent.markDirty([{ first: 0, count: 3 }]);
    r.intent.clearDirty([{ first: 1, count: 1 }]);
    expect(dirty(r)).toEqual([0, 2]);
    const early = await importPool(bdev, { closeBdev: false });
    expect(dirty(early.get(r.uuid))).toEqual([0, 1, 2]);
    await pool.setAttributes(r.uuid, { epoch: 1 });
    const late = await importPool(bdev, { closeBdev: false });
    expect(dirty(late.get(r.uuid))).toEqual([0, 2]);
    await late.export();
  });
});

test("clearing reaches the disk by itself after a while, and at an export", () => {
  withReactor(async (reactor) => {
    const { bdev, pool } = await smallPool(reactor);
    const r = await make(pool);
    await r.intent.markDirty([{ first: 0, count: 3 }]);
    const { seq } = pool.core.journal.position;
    r.intent.clearDirty([{ first: 0, count: 1 }]);
    await until(reactor, () => pool.core.journal.position.seq > seq);
    r.intent.clearDirty([{ first: 1, count: 1 }]);
    await pool.export();
    const again = await importPool(bdev, { closeBdev: false });
    expect(dirty(again.get(r.uuid))).toEqual([2]);
    await again.export();
  });
});

test("a mark after a clear that is still lazy wins, a clear during a mark is left out", () => {
  withReactor(async (reactor) => {
    const disk = new SimDisk({ reactor, image: new Uint8Array(16 * MIB), seed: 3 });
    const pool = await createPool(disk, { name: "p", clusterBytes: 64 * KIB, closeBdev: false });
    const r = await make(pool);
    await r.intent.markDirty([{ first: 0, count: 1 }]);
    r.intent.clearDirty([{ first: 0, count: 1 }]);
    const marking = r.intent.markDirty([{ first: 0, count: 1 }]);
    expect(r.intent.isDirty(0)).toBe(false); // not yet durable
    r.intent.clearDirty([{ first: 0, count: 1 }]);
    await marking;
    expect(r.intent.isDirty(0)).toBe(true);
    await pool.export();
    const copy = new SimDisk({ reactor, image: disk.image.slice(), seed: 3 });
    const again = await importPool(copy, { closeBdev: false });
    expect(again.get(r.uuid).intent.isDirty(0)).toBe(true);
    await again.export();
  });
});

test("marks of one turn share a commit", () => {
  withReactor(async (reactor) => {
    const { pool } = await smallPool(reactor);
    const r = await make(pool, 400 * MIB);
    const { seq } = pool.core.journal.position;
    await Promise.all(
      Array.from({ length: 90 }, (_, i) => r.intent.markDirty([{ first: i, count: 1 }])),
    );
    expect(pool.core.journal.position.seq).toBe(seq + 1);
    expect(r.intent.dirtyCount).toBe(90);
    await pool.export();
  });
});

test("regions follow a resize; those that do not exist are refused", () => {
  withReactor(async (reactor) => {
    const { pool } = await smallPool(reactor);
    const r = await make(pool, 4 * MIB);
    await r.intent.markDirty([{ first: 0, count: 1 }]);
    for (const wrong of [
      { first: 1, count: 1 },
      { first: 0, count: 2 },
      { first: -1, count: 1 },
      { first: 0, count: 0 },
      { first: 0.5, count: 1 },
    ]) {
      expect(await codeOf(r.intent.markDirty([wrong]))).toBe("OutOfRange");
      expect(() => r.intent.clearDirty([wrong])).toThrow("regions");
    }
    await pool.resize(r.uuid, 100 * MIB + 512);
    expect(r.intent.regionCount).toBe(26);
    expect(r.intent.isDirty(25)).toBe(false);
    await r.intent.markDirty([{ first: 25, count: 1 }]);
    expect(dirty(r)).toEqual([0, 25]);
    await pool.export();
  });
});

test("many ranges at once become several records", () => {
  withReactor(async (reactor) => {
    const { bdev, pool } = await smallPool(reactor, 64);
    const regions = 20_000;
    const r = await make(pool, regions * 4 * MIB);
    await r.intent.markDirty([{ first: 0, count: regions }]);
    const every = Array.from({ length: regions / 2 }, (_, i) => ({ first: i * 2, count: 1 }));
    r.intent.clearDirty(every);
    await pool.export();
    const again = await importPool(bdev, { closeBdev: false });
    expect(again.get(r.uuid).intent.dirtyCount).toBe(regions / 2);
    expect(again.get(r.uuid).intent.isDirty(1)).toBe(true);
    expect(again.get(r.uuid).intent.isDirty(0)).toBe(false);
    await again.export();
  });
});

test("marks cost no request to the data path's device but the journal's own", () => {
  withReactor(async (reactor) => {
    const disk = new SimDisk({ reactor, image: new Uint8Array(16 * MIB), seed: 3 });
    const pool = await createPool(disk, { name: "p", clusterBytes: 64 * KIB, closeBdev: false });
    const r = await make(pool);
    await pool.core.cleaner.idle();
    const before = [...disk.counts];
    await r.intent.markDirty([{ first: 0, count: 1 }]);
    expect(disk.counts[IoOp.WRITE]! - before[IoOp.WRITE]!).toBe(2); // ring and mirror
    expect(disk.counts[IoOp.FLUSH]!).toBe(before[IoOp.FLUSH]!);
    await pool.export();
  });
});
