import { expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { importPool, type Pool, type Replica } from "../../../../src/engine/pool/index.ts";
import { IoOp } from "../../../../src/engine/reactor/io-table.ts";
import { IoStatus } from "../../../../src/errors.ts";
import { probeBdev, withReactor } from "../../../support/reactor.ts";
import { codeOf, errorOf, expectSound, KIB, MIB, pattern, smallPool } from "./fixture.ts";

const C = 64 * KIB;

function make(pool: Pool, sizeBytes: number, thin = true): Promise<Replica> {
  return pool.createReplica({ uuid: randomUUID(), name: "r", sizeBytes, thin });
}

const read = async (r: Replica, at: number, length: number) =>
  (await probeBdev(r).read(at, length)).bytes;

test("a snapshot keeps what was there; its source goes on", () => {
  withReactor(async (reactor) => {
    const { bdev, pool } = await smallPool(reactor);
    const r = await make(pool, 512 * KIB);
    await probeBdev(r).write(0, pattern(4 * C, 1));
    const request = {
      uuid: randomUUID(),
      name: "s",
      txnId: "t1",
      entityId: "e1",
      createdAtMs: 1234,
    };
    const s = await pool.createSnapshot(r.uuid, request);
    expect(pool.info().usedBytes).toBe(4 * C);
    expect([s.kind, s.sizeBytes, s.thin]).toEqual(["Snapshot", 512 * KIB, true]);
    expect(s.attributes).toMatchObject({
      name: "s",
      txnId: "t1",
      entityId: "e1",
      createdAtMs: 1234,
      sourceUuid: r.uuid,
    });
    expect(pool.snapshots(r)).toEqual([s]);
    // A write into one cluster copies that one; a write to an unmapped one maps it.
    await probeBdev(r).write(C + 512, pattern(512, 9));
    await probeBdev(r).write(6 * C, pattern(C, 3));
    expect(pool.info().usedBytes).toBe(6 * C);
    const expected = pattern(4 * C, 1);
    expect(await read(s, 0, 4 * C)).toEqual(expected);
    expect(await read(s, 6 * C, C)).toEqual(new Uint8Array(C));
    expected.set(pattern(512, 9), C + 512);
    expect(await read(r, 0, 4 * C)).toEqual(expected);
    // A discard takes nothing from the snapshot.
    await probeBdev(r).control(IoOp.DISCARD, 0, 512 * KIB);
    expect(await read(r, 0, 512 * KIB)).toEqual(new Uint8Array(512 * KIB));
    expect(await read(s, 0, 4 * C)).toEqual(pattern(4 * C, 1));
    expect(pool.info().usedBytes).toBe(4 * C);
    await expectSound(pool);
    await pool.export();
    const again = await importPool(bdev, { closeBdev: false });
    expect(await read(again.get(s.uuid), 0, 4 * C)).toEqual(pattern(4 * C, 1));
    await expectSound(again);
    await again.export();
  });
});

test("a snapshot cannot be written, resized or snapshotted", () => {
  withReactor(async (reactor) => {
    const { pool } = await smallPool(reactor);
    const r = await make(pool, MIB);
    await probeBdev(r).write(0, pattern(C, 1));
    const s = await pool.createSnapshot(r.uuid, { uuid: randomUUID(), name: "s" });
    expect(await probeBdev(s).write(0, pattern(512, 1))).toBe(IoStatus.UNSUPPORTED);
    expect(await probeBdev(s).write(5 * C, pattern(512, 1))).toBe(IoStatus.UNSUPPORTED);
    expect(await probeBdev(s).control(IoOp.DISCARD, 0, C)).toBe(IoStatus.UNSUPPORTED);
    expect(await probeBdev(s).control(IoOp.WRITE_ZEROES, 0, 512)).toBe(IoStatus.UNSUPPORTED);
    expect(await probeBdev(s).control(IoOp.FLUSH)).toBe(IoStatus.OK);
    expect(await codeOf(pool.resize(s.uuid, 2 * MIB))).toBe("FailedPrecondition");
    const twice = pool.createSnapshot(s.uuid, { uuid: randomUUID(), name: "t" });
    expect(await codeOf(twice)).toBe("InvalidArgument");
    const again = pool.createSnapshot(r.uuid, { uuid: s.uuid, name: "s" });
    expect(await codeOf(again)).toBe("AlreadyExists");
    const other = pool.createSnapshot(r.uuid, { uuid: s.uuid, name: "x" });
    expect(await codeOf(other)).toBe("Conflict");
    const ofNothing = pool.createSnapshot(randomUUID(), { uuid: randomUUID(), name: "y" });
    expect(await codeOf(ofNothing)).toBe("NotFound");
    await pool.export();
  });
});

test("clones are writable and independent, and outlive their snapshot", () => {
  withReactor(async (reactor) => {
    const { bdev, pool } = await smallPool(reactor);
    const r = await make(pool, MIB);
    await probeBdev(r).write(0, pattern(4 * C, 1));
    const s = await pool.createSnapshot(r.uuid, { uuid: randomUUID(), name: "s" });
    const a = await pool.createClone(s.uuid, { uuid: randomUUID(), name: "a" });
    const b = await pool.createClone(s.uuid, { uuid: randomUUID(), name: "b" });
    expect([a.kind, a.thin, a.attributes.sourceUuid]).toEqual(["SnapshotClone", true, s.uuid]);
    await probeBdev(a).write(512, pattern(512, 7));
    await probeBdev(b).write(C, pattern(C, 8));
    await probeBdev(r).write(0, pattern(C, 9));
    const [ofA, ofB] = [pattern(4 * C, 1), pattern(4 * C, 1)];
    ofA.set(pattern(512, 7), 512);
    ofB.set(pattern(C, 8), C);
    const check = async (p: Pool) => {
      expect(await read(p.get(a.uuid), 0, 4 * C)).toEqual(ofA);
      expect(await read(p.get(b.uuid), 0, 4 * C)).toEqual(ofB);
      await expectSound(p);
    };
    await check(pool);
    // Deleting a snapshot that has clones is possible and takes effect at once.
    await pool.delete(s.uuid);
    expect(pool.snapshots()).toEqual([]);
    await check(pool);
    await pool.delete(r.uuid);
    await check(pool);
    const notASnapshot = pool.createClone(a.uuid, { uuid: randomUUID(), name: "c" });
    expect(await codeOf(notASnapshot)).toBe("InvalidArgument");
    // Snapshots of clones work as those of replicas do.
    const sa = await pool.createSnapshot(a.uuid, { uuid: randomUUID(), name: "sa" });
    await probeBdev(a).write(0, pattern(4 * C, 5));
    expect(await read(sa, 0, 4 * C)).toEqual(ofA);
    await pool.export();
    const again = await importPool(bdev, { closeBdev: false });
    expect(await read(again.get(sa.uuid), 0, 4 * C)).toEqual(ofA);
    expect(await read(again.get(b.uuid), 0, 4 * C)).toEqual(ofB);
    for (const replica of [...again.replicas(), ...again.snapshots()]) {
      await again.delete(replica.uuid);
    }
    expect(again.info().usedBytes).toBe(0);
    await expectSound(again);
    await again.export();
  });
});

test("once nothing shares a cluster any more it is written in place", () => {
  withReactor(async (reactor) => {
    const { pool } = await smallPool(reactor);
    const r = await make(pool, MIB);
    await probeBdev(r).write(0, pattern(C, 1));
    const cluster = r.object.map[0]!;
    const s = await pool.createSnapshot(r.uuid, { uuid: randomUUID(), name: "s" });
    await pool.delete(s.uuid);
    await expectSound(pool);
    await probeBdev(r).write(0, pattern(512, 2));
    expect(r.object.map[0]).toBe(cluster);
    await expectSound(pool);
    await pool.export();
  });
});

test("a snapshot of a thick replica reserves the room to rewrite it, or fails", () => {
  withReactor(async (reactor) => {
    const { pool } = await smallPool(reactor, 8);
    const capacity = pool.info().capacityBytes;
    const clusters = capacity / C;
    const r = await make(pool, Math.floor(clusters * 0.4) * C, false);
    const size = r.sizeBytes;
    for (let at = 0; at < size; at += C) await probeBdev(r).write(at, pattern(C, at));
    const s = await pool.createSnapshot(r.uuid, { uuid: randomUUID(), name: "s" });
    expect([r.thin, pool.info().usedBytes]).toEqual([false, 2 * size]);
    await expectSound(pool);
    const filler = await pool.createReplica({
      uuid: randomUUID(),
      name: "filler",
      sizeBytes: capacity,
      thin: true,
    });
    let at = 0;
    while ((await probeBdev(filler).write(at, pattern(512, 1))) === IoStatus.OK) at += C;
    expect(at).toBe(capacity - 2 * size);
    // Writes to a thick replica never run out of space, snapshots or not.
    for (let w = 0; w < size; w += C) {
      expect(await probeBdev(r).write(w, pattern(512, w))).toBe(IoStatus.OK);
    }
    await expectSound(pool);
    const error = await errorOf(pool.createSnapshot(r.uuid, { uuid: randomUUID(), name: "t" }));
    expect([error.code, error.message]).toEqual(["NoSpace", expect.stringContaining("snapshot t")]);
    expect(await probeBdev(r).write(0, pattern(512, 5))).toBe(IoStatus.OK);
    await pool.delete(s.uuid);
    await pool.delete(filler.uuid);
    await pool.createSnapshot(r.uuid, { uuid: randomUUID(), name: "t" });
    await expectSound(pool);
    await pool.export();
  });
});

test("usage counts every cluster once over a replica and its snapshots", () => {
  withReactor(async (reactor) => {
    const { pool } = await smallPool(reactor);
    const r = await make(pool, MIB);
    await probeBdev(r).write(0, pattern(4 * C, 1));
    expect(pool.usage(r)).toMatchObject({ allocatedBytes: 4 * C, allocatedBytesSnapshots: 0 });
    const s1 = await pool.createSnapshot(r.uuid, { uuid: randomUUID(), name: "s1" });
    expect(pool.usage(r)).toEqual({
      capacityBytes: MIB,
      allocatedBytes: 0,
      allocatedBytesSnapshots: 4 * C,
      allocatedBytesAllSnapshots: 4 * C,
      clusterBytes: C,
      clusters: 16,
      allocatedClusters: 0,
    });
    await probeBdev(r).write(0, pattern(512, 2));
    await probeBdev(r).write(8 * C, pattern(2 * C, 2));
    const s2 = await pool.createSnapshot(r.uuid, { uuid: randomUUID(), name: "s2" });
    await probeBdev(r).write(C, pattern(512, 3));
    expect(pool.usage(r)).toMatchObject({
      allocatedBytes: C,
      allocatedBytesSnapshots: 7 * C,
      allocatedBytesAllSnapshots: 7 * C,
    });
    expect(pool.snapshotUsage(s1)).toEqual({
      referencedBytes: 4 * C,
      allocatedBytes: 4 * C,
      predecessorBytes: 0,
      exclusiveBytes: C, // cluster 0 is only in s1
    });
    expect(pool.snapshotUsage(s2)).toEqual({
      referencedBytes: 6 * C,
      allocatedBytes: 3 * C,
      predecessorBytes: 4 * C,
      exclusiveBytes: 0,
    });
    const clone = await pool.createClone(s1.uuid, { uuid: randomUUID(), name: "c" });
    await probeBdev(clone).write(15 * C, pattern(512, 4));
    expect(pool.usage(clone)).toMatchObject({
      allocatedBytes: C,
      allocatedBytesSnapshots: 0,
      allocatedBytesAllSnapshots: 4 * C, // s2 is none of its past
    });
    const ofSecond = await pool.createClone(s2.uuid, { uuid: randomUUID(), name: "d" });
    await probeBdev(ofSecond).write(8 * C, pattern(512, 4));
    const sd = await pool.createSnapshot(ofSecond.uuid, { uuid: randomUUID(), name: "sd" });
    await probeBdev(ofSecond).write(8 * C, pattern(512, 5));
    expect(pool.usage(ofSecond)).toMatchObject({
      allocatedBytes: C,
      allocatedBytesSnapshots: C,
      allocatedBytesAllSnapshots: 8 * C,
    });
    expect(pool.snapshotUsage(sd)).toMatchObject({ allocatedBytes: C, predecessorBytes: 7 * C });
    await pool.delete(ofSecond.uuid);
    await pool.delete(sd.uuid);
    const { usedBytes } = pool.info();
    expect(usedBytes).toBe(9 * C);
    await pool.delete(s1.uuid);
    expect(pool.usage(r).allocatedBytesSnapshots).toBe(6 * C);
    await expectSound(pool);
    await pool.export();
  });
});
