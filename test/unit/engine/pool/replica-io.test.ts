import { expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import type { Pool, Replica } from "../../../../src/engine/pool/index.ts";
import { createPool } from "../../../../src/engine/pool/index.ts";
import { IoFlag, IoOp } from "../../../../src/engine/reactor/io-table.ts";
import { ioPromise } from "../../../../src/engine/reactor/reactor.ts";
import { IoStatus } from "../../../../src/errors.ts";
import { SimDisk } from "../../../simulation/pool/sim-disk.ts";
import { type Random, withSeed } from "../../../support/random.ts";
import { probeBdev, withReactor } from "../../../support/reactor.ts";
import { expectSound, isZero, KIB, MIB, pattern, smallPool } from "./fixture.ts";

function thin(pool: Pool, sizeBytes: number): Promise<Replica> {
  return pool.createReplica({ uuid: randomUUID(), name: "r", sizeBytes, thin: true });
}

const zeroes = (length: number): Uint8Array => new Uint8Array(length);

test("a replica has exactly the size asked for, and describes itself", () => {
  withReactor(async (reactor) => {
    const { pool } = await smallPool(reactor);
    const r = await thin(pool, 100 * KIB + 512);
    expect([r.sizeBytes, r.blockCount, r.blockSize]).toEqual([100 * KIB + 512, 201, 512]);
    expect([r.driver, r.kind, r.name, r.thin]).toEqual(["replica", "Regular", "r", true]);
    expect(r.uri).toBe(`bdev:///${r.uuid}?uuid=${r.uuid}`);
    const probe = probeBdev(r);
    expect(await probe.write(100 * KIB, pattern(512, 1))).toBe(IoStatus.OK);
    expect(await probe.write(100 * KIB + 512, pattern(512, 1))).toBe(IoStatus.OUT_OF_RANGE);
    expect(await probe.write(100 * KIB, pattern(1024, 1))).toBe(IoStatus.OUT_OF_RANGE);
    expect((await probe.read(64 * KIB, 36 * KIB + 1024)).status).toBe(IoStatus.OUT_OF_RANGE);
    expect(await probe.control(IoOp.DISCARD, 0, 100 * KIB + 1024)).toBe(IoStatus.OUT_OF_RANGE);
    await pool.export();
  });
});

test("requests that are not whole blocks are refused on both ways", () => {
  withReactor(async (reactor) => {
    const { pool } = await smallPool(reactor);
    const r = await thin(pool, MIB);
    const probe = probeBdev(r);
    for (const isMapped of [false, true]) {
      if (isMapped) expect(await probe.write(0, pattern(64 * KIB, 1))).toBe(IoStatus.OK);
      expect(await probe.write(100, pattern(512, 1))).toBe(IoStatus.INVALID);
      expect(await probe.write(512, pattern(100, 1))).toBe(IoStatus.INVALID);
      expect((await probe.read(1, 512)).status).toBe(IoStatus.INVALID);
      expect(await probe.control(IoOp.WRITE_ZEROES, 1, 512)).toBe(IoStatus.INVALID);
    }
    await pool.export();
  });
});

test("what was never written reads as zeroes and takes no space", () => {
  withReactor(async (reactor) => {
    const { pool } = await smallPool(reactor);
    const r = await thin(pool, MIB);
    const probe = probeBdev(r);
    expect((await probe.read(0, MIB)).bytes).toEqual(zeroes(MIB));
    expect(pool.info().usedBytes).toBe(0);
    expect(r.allocationBitmap()).toEqual(new Uint8Array(2));
    expect(r.isAllocated(0, MIB)).toBe(false);
    await probe.write(200 * KIB, pattern(512, 1));
    expect(pool.info().usedBytes).toBe(64 * KIB);
    expect(r.allocationBitmap()).toEqual(Uint8Array.of(8, 0));
    expect([r.isAllocated(0, 192 * KIB), r.isAllocated(192 * KIB, 512)]).toEqual([false, true]);
    expect(r.isAllocated(128 * KIB, 65 * KIB)).toBe(true);
    const around = zeroes(64 * KIB);
    around.set(pattern(512, 1), 8 * KIB);
    expect((await probe.read(192 * KIB, 64 * KIB)).bytes).toEqual(around);
    await pool.export();
  });
});

test("a discard of whole clusters gives them back, of parts zeroes them", () => {
  withReactor(async (reactor) => {
    const { pool } = await smallPool(reactor);
    const r = await thin(pool, MIB + 8 * KIB);
    const probe = probeBdev(r);
    for (const op of [IoOp.DISCARD, IoOp.WRITE_ZEROES]) {
      const content = pattern(MIB, 4);
      await probe.write(0, content);
      await probe.write(MIB, pattern(8 * KIB, 5));
      expect(pool.info().usedBytes).toBe(17 * 64 * KIB);
      // From the middle of cluster 1 to the middle of cluster 4: 2 and 3 go.
      expect(await probe.control(op, 100 * KIB, 180 * KIB)).toBe(IoStatus.OK);
      expect(pool.info().usedBytes).toBe(15 * 64 * KIB);
      content.fill(0, 100 * KIB, 280 * KIB);
      expect((await probe.read(0, MIB)).bytes).toEqual(content);
      expect(r.allocationBitmap()[0]).toBe(0b11110011);
      // The last cluster counts as whole although it is partial.
      expect(await probe.control(op, MIB, 8 * KIB)).toBe(IoStatus.OK);
      expect(pool.info().usedBytes).toBe(14 * 64 * KIB);
      expect(await probe.control(op, 0, MIB + 8 * KIB)).toBe(IoStatus.OK);
      expect(pool.info().usedBytes).toBe(0);
      expect((await probe.read(0, MIB)).bytes).toEqual(zeroes(MIB));
      await expectSound(pool);
    }
    await pool.export();
  });
});

test("given-back clusters come back as zeroes, to whoever gets them", () => {
  withReactor(async (reactor) => {
    const { pool } = await smallPool(reactor, 4);
    const capacity = pool.info().capacityBytes;
    const a = await thin(pool, capacity);
    for (let round = 0; round < 3; round++) {
      for (let at = 0; at < capacity; at += 64 * KIB) {
        expect(await probeBdev(a).write(at, pattern(64 * KIB, at + round))).toBe(IoStatus.OK);
      }
      expect(await probeBdev(a).control(IoOp.DISCARD, 0, capacity)).toBe(IoStatus.OK);
      const b = await pool.createReplica({
        uuid: randomUUID(),
        name: "b",
        sizeBytes: capacity,
        thin: true,
      });
      for (let at = 0; at < capacity; at += 64 * KIB) {
        expect(await probeBdev(b).write(at + 512, pattern(512, 1))).toBe(IoStatus.OK);
        const { bytes } = await probeBdev(b).read(at, 64 * KIB);
        bytes.fill(0, 512, 1024);
        expect(isZero(bytes)).toBe(true);
      }
      await pool.delete(b.uuid);
    }
    await expectSound(pool);
    await pool.export();
  });
});

test("flush and FUA reach the disk", () => {
  withReactor(async (reactor) => {
    const disk = new SimDisk({ reactor, image: zeroes(16 * MIB), seed: 1, record: true });
    const pool = await createPool(disk, { name: "p", clusterBytes: 64 * KIB, closeBdev: false });
    const r = await thin(pool, MIB);
    const probe = probeBdev(r);
    const at = () => (r.object.map[0]! & 0xffff) * 64 * KIB;
    expect(await probe.write(0, pattern(4096, 1))).toBe(IoStatus.OK);
    await pool.core.cleaner.idle();
    expect(await probe.write(4096, pattern(4096, 2))).toBe(IoStatus.OK);
    expect(await probe.write(8192, pattern(4096, 3), IoFlag.FUA)).toBe(IoStatus.OK);
    const on = (image: Uint8Array, offset: number): Uint8Array =>
      image.slice(at() + offset, at() + offset + 4096);
    const before = disk.crash(disk.clock, "none");
    expect(on(before, 4096)).toEqual(zeroes(4096));
    expect(on(before, 8192)).toEqual(pattern(4096, 3));
    expect(await probe.control(IoOp.FLUSH)).toBe(IoStatus.OK);
    expect(on(disk.crash(disk.clock, "none"), 4096)).toEqual(pattern(4096, 2));
    await pool.export();
  });
});

test("neighbouring clusters are read and written in one piece", () => {
  withReactor(async (reactor) => {
    const disk = new SimDisk({ reactor, image: zeroes(16 * MIB), seed: 1 });
    const pool = await createPool(disk, { name: "p", clusterBytes: 64 * KIB, closeBdev: false });
    const r = await thin(pool, MIB);
    const probe = probeBdev(r);
    expect(await probe.write(0, pattern(MIB, 1))).toBe(IoStatus.OK);
    await pool.core.cleaner.idle();
    const before = [...disk.counts];
    expect((await probe.read(0, MIB)).bytes).toEqual(pattern(MIB, 1));
    expect(await probe.write(0, pattern(MIB, 2))).toBe(IoStatus.OK);
    expect(disk.counts[IoOp.READ]! - before[IoOp.READ]!).toBe(1);
    expect(disk.counts[IoOp.WRITE]! - before[IoOp.WRITE]!).toBe(1);
    await pool.export();
  });
});

/** Writes every cluster of a replica once, in random order, so that neighbours are apart. */
async function scatter(r: Replica, random: Random, model: Uint8Array): Promise<void> {
  const clusters = Array.from({ length: Math.ceil(r.sizeBytes / (64 * KIB)) }, (_, i) => i);
  while (clusters.length > 0) {
    const [c] = clusters.splice(random.below(clusters.length), 1);
    const at = c! * 64 * KIB;
    const bytes = pattern(Math.min(64 * KIB, r.sizeBytes - at), c! + 1);
    model.set(bytes, at);
    expect(await probeBdev(r).write(at, bytes)).toBe(IoStatus.OK);
  }
}

test("requests over scattered clusters are put together rightly, many at once", () => {
  withSeed(import.meta.path, (random) =>
    withReactor(async (reactor) => {
      const disk = new SimDisk({ reactor, image: zeroes(16 * MIB), seed: random.below(1 << 30) });
      const pool = await createPool(disk, { name: "p", clusterBytes: 64 * KIB, closeBdev: false });
      const r = await thin(pool, 2 * MIB + 512);
      const model = zeroes(r.sizeBytes);
      await scatter(r, random, model);
      const part = r.sizeBytes / 8 - ((r.sizeBytes / 8) % 512);
      const work = async (base: number) => {
        for (let i = 0; i < 25; i++) {
          const at = base + random.below(part / 512) * 512;
          const length = Math.min(base + part - at, (1 + random.below(400)) * 512);
          const dice = random.below(3);
          if (dice === 0) {
            const bytes = pattern(length, random.below(1000));
            model.set(bytes, at);
            expect(await probeBdev(r).write(at, bytes)).toBe(IoStatus.OK);
          } else if (dice === 1) {
            model.fill(0, at, at + length);
            expect(await probeBdev(r).control(IoOp.DISCARD, at, length)).toBe(IoStatus.OK);
          }
          const { bytes } = await probeBdev(r).read(at, length);
          expect(Buffer.compare(bytes, model.subarray(at, at + length))).toBe(0);
        }
      };
      await Promise.all(Array.from({ length: 8 }, (_, i) => work(i * part)));
      await expectSound(pool);
      await pool.export();
    }),
  );
});

test("a request that goes straight through has only its offset changed, and takes no slot", () => {
  withReactor(async (reactor) => {
    const { pool } = await smallPool(reactor);
    const r = await thin(pool, MIB);
    const { io, arena } = reactor;
    await probeBdev(r).write(64 * KIB, pattern(64 * KIB, 1));
    await pool.core.cleaner.idle();
    const buffer = arena.alloc(4096, 0);
    io.promise(r.slotsPerIo + 1);
    const slot = io.take(IoOp.READ, 64 * KIB + 4096, 4096, buffer, 0, reactor.now);
    const { free } = io;
    const status = ioPromise(reactor, slot, (s) => {
      r.submit(s);
      expect(io.free).toBe(free + 1); // A memory device has ended it already.
      expect(io.offset[s]).toBe(r.object.map[1]! * 64 * KIB + 4096);
      expect([io.length[s], io.buffer[s], io.op[s]]).toEqual([4096, buffer, IoOp.READ]);
    });
    expect(await status).toBe(IoStatus.OK);
    io.release(r.slotsPerIo + 1);
    arena.free(buffer);
    await pool.export();
  });
});
