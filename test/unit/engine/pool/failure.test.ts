import { expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import {
  createPool,
  importPool,
  type Pool,
  type Replica,
} from "../../../../src/engine/pool/index.ts";
import { IoOp } from "../../../../src/engine/reactor/io-table.ts";
import type { Reactor } from "../../../../src/engine/reactor/reactor.ts";
import { IoStatus } from "../../../../src/errors.ts";
import { SimDisk } from "../../../simulation/pool/sim-disk.ts";
import { probeBdev, withReactor } from "../../../support/reactor.ts";
import { codeOf, expectSound, KIB, MIB, pattern, until } from "./fixture.ts";

const C = 64 * KIB;

interface Setting {
  readonly disk: SimDisk;
  readonly pool: Pool;
  readonly r: Replica;
}

/** A pool with a replica of 1 MiB whose first cluster is mapped. */
async function setUp(reactor: Reactor): Promise<Setting> {
  const disk = new SimDisk({ reactor, image: new Uint8Array(16 * MIB), seed: 9 });
  const pool = await createPool(disk, { name: "p", clusterBytes: C, closeBdev: false });
  const r = await pool.createReplica({ uuid: randomUUID(), name: "r", sizeBytes: MIB, thin: true });
  expect(await probeBdev(r).write(0, pattern(C, 1))).toBe(IoStatus.OK);
  await pool.core.cleaner.idle();
  return { disk, pool, r };
}

const ringOf = (pool: Pool, copy: 0 | 1) => pool.core.superblock.rings[copy]![0]!;
const isIn = (offset: number, extent: { offset: number; bytes: number }) =>
  offset >= extent.offset && offset < extent.offset + extent.bytes;

test("read errors reach the host and are counted, and the pool goes on", () => {
  withReactor(async (reactor) => {
    const { disk, pool, r } = await setUp(reactor);
    const probe = probeBdev(r);
    disk.failure = (op) => (op === IoOp.READ ? IoStatus.DEVICE_IO : IoStatus.OK);
    expect((await probe.read(0, 512)).status).toBe(IoStatus.DEVICE_IO);
    expect((await probe.read(0, 2 * C)).status).toBe(IoStatus.DEVICE_IO);
    disk.failure = () => IoStatus.OK;
    expect(pool.health).toMatchObject({ status: "Online", readErrors: 2, writeErrors: 0 });
    expect(await probe.write(0, pattern(512, 2))).toBe(IoStatus.OK);
    expect(await probe.write(5 * C, pattern(512, 2))).toBe(IoStatus.OK);
    await expectSound(pool);
    await pool.export();
  });
});

test("a write or flush that fails faults the pool at once, and its users are told", () => {
  withReactor(async (reactor) => {
    for (const failing of [IoOp.WRITE, IoOp.FLUSH]) {
      const { disk, pool, r } = await setUp(reactor);
      const probe = probeBdev(r);
      const told: string[] = [];
      r.listen(({ kind }) => told.push(kind));
      disk.failure = (op) => (op === failing ? IoStatus.TIMEOUT : IoStatus.OK);
      const status =
        failing === IoOp.WRITE
          ? await probe.write(0, pattern(512, 2))
          : await probe.control(failing);
      expect(status).toBe(IoStatus.TIMEOUT);
      expect(pool.health).toMatchObject({ status: "Faulted", writeErrors: 1 });
      expect(told).toEqual(["removed"]);
      // What the disk says later changes nothing: its pool has to be imported again.
      disk.failure = () => IoStatus.OK;
      expect(await probe.write(0, pattern(512, 2))).toBe(IoStatus.DEVICE_IO);
      expect(await pool.diskAnswer()).toBe("answers");
      await pool.export();
      const again = await importPool(disk, { closeBdev: false });
      expect((await probeBdev(again.get(r.uuid)).read(0, C)).bytes).toEqual(pattern(C, 1));
      await again.export();
    }
  });
});

test("a disk that nobody uses is looked at: one that is gone, another's, or silent has failed", () => {
  withReactor(async (reactor) => {
    const ways: readonly ((setting: Setting) => Promise<void> | void)[] = [
      ({ disk }) => {
        disk.failure = () => IoStatus.DEVICE_IO;
      },
      ({ disk }) => {
        for (const offset of [0, 1 << 20]) disk.image.fill(0, offset, offset + 4096);
      },
      ({ pool }) => pool.diskStalled(31_000),
    ];
    for (const fail of ways) {
      const setting = await setUp(reactor);
      const { disk, pool, r } = setting;
      const told: string[] = [];
      r.listen(({ kind }) => told.push(kind));
      await pool.checkDisk();
      expect(pool.health.status).toBe("Online");
      await fail(setting);
      await pool.checkDisk();
      expect(pool.health.status).toBe("Faulted");
      expect(told).toEqual(["removed"]);
      expect(await probeBdev(r).write(0, pattern(512, 2))).toBe(IoStatus.DEVICE_IO);
      disk.failure = () => IoStatus.OK;
      await pool.export();
    }
  });
});

test("a journal that fails in one copy degrades the pool; nothing is lost", () => {
  withReactor(async (reactor) => {
    for (const copy of [0, 1] as const) {
      const { disk, pool, r } = await setUp(reactor);
      const seen: string[] = [];
      pool.onHealth((health) => seen.push(health.status));
      disk.failure = (op, offset) =>
        op === IoOp.WRITE && isIn(offset, ringOf(pool, copy)) ? IoStatus.DEVICE_IO : IoStatus.OK;
      expect(await probeBdev(r).write(3 * C, pattern(C, 3))).toBe(IoStatus.OK);
      await pool.setAttributes(r.uuid, { epoch: 5 });
      expect(seen).toEqual(["Degraded"]);
      expect(pool.health.reason).toContain(copy === 0 ? "the journal:" : "mirror");
      const copyOfDisk = new SimDisk({ reactor, image: disk.image.slice(), seed: 1 });
      const again = await importPool(copyOfDisk, { closeBdev: false });
      expect(again.get(r.uuid).attributes.epoch).toBe(5);
      expect((await probeBdev(again.get(r.uuid)).read(3 * C, C)).bytes).toEqual(pattern(C, 3));
      await again.export();
      await pool.export();
    }
  });
});

test("a journal that cannot be written makes the pool read-only, and lies to nobody", () => {
  withReactor(async (reactor) => {
    const { disk, pool, r } = await setUp(reactor);
    const probe = probeBdev(r);
    const seen: string[] = [];
    pool.onHealth((health) => seen.push(health.status));
    disk.failure = (op, offset) =>
      op === IoOp.WRITE && (isIn(offset, ringOf(pool, 0)) || isIn(offset, ringOf(pool, 1)))
        ? IoStatus.DEVICE_IO
        : IoStatus.OK;
    const failing = await Promise.all([
      probe.write(3 * C, pattern(C, 3)),
      probe.write(4 * C, pattern(C, 4)),
      probe.control(IoOp.DISCARD, 0, C),
      codeOf(r.intent.markDirty([{ first: 0, count: 1 }])),
      codeOf(pool.setAttributes(r.uuid, { epoch: 5 })),
    ]);
    expect(failing).toEqual([
      IoStatus.DEVICE_IO,
      IoStatus.DEVICE_IO,
      IoStatus.DEVICE_IO,
      "DeviceIo",
      "DeviceIo",
    ]);
    expect(pool.health.status).toBe("Faulted");
    expect(pool.health.reason).toContain("the journal could not be written");
    expect(seen).toEqual(["Faulted"]);
    // What is there can be read; nothing can be written, mapped or not.
    expect((await probe.read(0, C)).bytes).toEqual(pattern(C, 1));
    expect(await probe.write(0, pattern(512, 1))).toBe(IoStatus.DEVICE_IO);
    expect(await probe.write(8 * C, pattern(512, 1))).toBe(IoStatus.DEVICE_IO);
    expect(r.attributes.epoch).toBe(0);
    const request = { uuid: randomUUID(), name: "x", sizeBytes: C, thin: true };
    expect(await codeOf(pool.createReplica(request))).toBe("DeviceIo");
    expect(await codeOf(pool.delete(r.uuid))).toBe("DeviceIo");
    const snapshot = pool.createSnapshot(r.uuid, { uuid: randomUUID(), name: "s" });
    expect(await codeOf(snapshot)).toBe("DeviceIo");
    await pool.export();
    disk.failure = () => IoStatus.OK;
    const again = await importPool(disk, { closeBdev: false });
    expect(again.get(r.uuid).attributes.epoch).toBe(0);
    expect(await probeBdev(again.get(r.uuid)).write(3 * C, pattern(C, 3))).toBe(IoStatus.OK);
    await expectSound(again);
    await again.export();
  });
});

test("a checkpoint that cannot be written faults the pool; the one before it serves", () => {
  withReactor(async (reactor) => {
    const { disk, pool, r } = await setUp(reactor);
    await pool.checkpoint();
    const slots = pool.core.superblock.slots.map((extents) => extents[0]!);
    disk.failure = (op, offset) =>
      op === IoOp.WRITE && slots.some((slot) => isIn(offset, slot))
        ? IoStatus.DEVICE_IO
        : IoStatus.OK;
    expect(await codeOf(pool.checkpoint())).toBe("DeviceIo");
    expect(pool.health).toMatchObject({ status: "Faulted" });
    expect(await probeBdev(r).write(5 * C, pattern(512, 1))).toBe(IoStatus.DEVICE_IO);
    await pool.export();
    disk.failure = () => IoStatus.OK;
    const again = await importPool(disk, { closeBdev: false });
    expect((await probeBdev(again.get(r.uuid)).read(0, C)).bytes).toEqual(pattern(C, 1));
    await expectSound(again);
    await again.export();
  });
});

test("a disk that goes away ends everything with DEVICE_GONE", () => {
  withReactor(async (reactor) => {
    const { disk, pool, r } = await setUp(reactor);
    const probe = probeBdev(r);
    const events: string[] = [];
    r.listen((event) => events.push(event.kind));
    const underWay = [
      probe.write(0, pattern(512, 1)),
      probe.write(9 * C, pattern(512, 1)),
      probe.control(IoOp.FLUSH),
      probe.control(IoOp.DISCARD, 0, 4 * C),
    ];
    disk.remove();
    expect(new Set(await Promise.all(underWay))).toEqual(new Set([IoStatus.DEVICE_GONE]));
    expect(events).toEqual(["removed"]);
    expect(pool.health).toMatchObject({ status: "Offline" });
    expect((await probe.read(0, 512)).status).toBe(IoStatus.DEVICE_GONE);
    expect((await probe.read(2 * C, C)).status).toBe(IoStatus.OK); // never written: zeroes
    expect(await probe.write(0, pattern(512, 1))).toBe(IoStatus.DEVICE_GONE);
    expect(await probe.control(IoOp.FLUSH)).toBe(IoStatus.DEVICE_GONE);
    expect(await codeOf(pool.setAttributes(r.uuid, { epoch: 1 }))).toBe("DeviceGone");
    await pool.export();
    expect(reactor.io.free).toBe(reactor.io.capacity);
  });
});

test("a disk that ends requests with DEVICE_GONE is taken at its word", () => {
  withReactor(async (reactor) => {
    const { disk, pool, r } = await setUp(reactor);
    disk.failure = () => IoStatus.DEVICE_GONE;
    expect((await probeBdev(r).read(0, 512)).status).toBe(IoStatus.DEVICE_GONE);
    expect(pool.health.status).toBe("Offline");
    await pool.export();
  });
});

test("a cluster that cannot be zeroed fails the write, not the pool", () => {
  withReactor(async (reactor) => {
    const disk = new SimDisk({ reactor, image: new Uint8Array(16 * MIB), seed: 9 });
    let isMade = false;
    disk.failure = (op, offset) => {
      isMade ||= op === IoOp.WRITE && offset === MIB; // the last superblock
      return isMade && op === IoOp.WRITE_ZEROES ? IoStatus.DEVICE_IO : IoStatus.OK;
    };
    const pool = await createPool(disk, { name: "p", clusterBytes: C, closeBdev: false });
    const r = await pool.createReplica({
      uuid: randomUUID(),
      name: "r",
      sizeBytes: MIB,
      thin: true,
    });
    expect(await probeBdev(r).write(0, pattern(512, 1))).toBe(IoStatus.DEVICE_IO);
    expect(await probeBdev(r).write(0, pattern(2 * C, 1))).toBe(IoStatus.DEVICE_IO);
    expect(pool.info().usedBytes).toBe(0);
    expect(pool.health.status).toBe("Online");
    expect(pool.health.writeErrors).toBeGreaterThan(0);
    disk.failure = () => IoStatus.OK;
    expect(await probeBdev(r).write(0, pattern(512, 1))).toBe(IoStatus.OK);
    await expectSound(pool);
    await pool.export();
  });
});

test("a copy that fails leaves the shared cluster as it was", () => {
  withReactor(async (reactor) => {
    const { disk, pool, r } = await setUp(reactor);
    const s = await pool.createSnapshot(r.uuid, { uuid: randomUUID(), name: "s" });
    for (const failing of [IoOp.READ, IoOp.WRITE, IoOp.FLUSH]) {
      const used = pool.info().usedBytes;
      disk.failure = (op, offset) =>
        op === failing && !isIn(offset, ringOf(pool, 0)) && !isIn(offset, ringOf(pool, 1))
          ? IoStatus.DEVICE_IO
          : IoStatus.OK;
      expect(await probeBdev(r).write(512, pattern(512, 2))).toBe(IoStatus.DEVICE_IO);
      disk.failure = () => IoStatus.OK;
      expect(pool.info().usedBytes).toBe(used);
      expect((await probeBdev(r).read(0, C)).bytes).toEqual(pattern(C, 1));
      await expectSound(pool);
    }
    expect(await probeBdev(r).write(512, pattern(512, 2))).toBe(IoStatus.OK);
    expect((await probeBdev(s).read(0, C)).bytes).toEqual(pattern(C, 1));
    await expectSound(pool);
    await pool.export();
  });
});

test("a flush that fails ends the snapshot, and writes go on", () => {
  withReactor(async (reactor) => {
    const { disk, pool, r } = await setUp(reactor);
    disk.failure = (op) => (op === IoOp.FLUSH ? IoStatus.DEVICE_IO : IoStatus.OK);
    const failed = pool.createSnapshot(r.uuid, { uuid: randomUUID(), name: "s" });
    expect(await codeOf(failed)).toBe("DeviceIo");
    disk.failure = () => IoStatus.OK;
    expect(pool.snapshots()).toEqual([]);
    expect(await probeBdev(r).write(0, pattern(512, 2))).toBe(IoStatus.OK);
    await expectSound(pool);
    await pool.export();
  });
});

test("a superblock that cannot be written faults the pool", () => {
  withReactor(async (reactor) => {
    const { disk, pool } = await setUp(reactor);
    disk.failure = (op, offset) => (op === IoOp.WRITE && offset === MIB ? IoStatus.DEVICE_IO : 0);
    disk.grow(20 * MIB);
    await until(reactor, () => pool.health.status === "Faulted");
    expect(pool.health.reason).toContain("superblock");
    await pool.export();
    disk.failure = () => IoStatus.OK;
    const again = await importPool(disk, { closeBdev: false });
    await expectSound(again);
    await again.export();
  });
});

test("errors while a pool is made or imported are the device's, and leave nothing behind", () => {
  withReactor(async (reactor) => {
    const free = reactor.arena.freeBytes;
    const disk = new SimDisk({ reactor, image: new Uint8Array(16 * MIB), seed: 9 });
    const options = { name: "p", clusterBytes: C, closeBdev: false };
    for (const failing of [IoOp.READ, IoOp.WRITE, IoOp.WRITE_ZEROES, IoOp.FLUSH]) {
      disk.failure = (op) => (op === failing ? IoStatus.DEVICE_IO : IoStatus.OK);
      expect(await codeOf(createPool(disk, { ...options, force: true }))).toBe("DeviceIo");
    }
    disk.failure = () => IoStatus.OK;
    await (await createPool(disk, { ...options, force: true })).export();
    for (const failing of [IoOp.READ, IoOp.FLUSH]) {
      disk.failure = (op) => (op === failing ? IoStatus.TIMEOUT : IoStatus.OK);
      expect(await codeOf(importPool(disk))).toBe("Timeout");
    }
    expect(reactor.io.free).toBe(reactor.io.capacity);
    expect(reactor.arena.freeBytes).toBe(free);
  });
});
