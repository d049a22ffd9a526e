import { expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { closeSync, ftruncateSync, openSync } from "node:fs";
import { join } from "node:path";
import { openBdev } from "../../../../src/engine/bdev/open.ts";
import { createPool, importPool, type Pool } from "../../../../src/engine/pool/index.ts";
import { IoOp } from "../../../../src/engine/reactor/io-table.ts";
import { IoStatus } from "../../../../src/errors.ts";
import { SimDisk } from "../../../simulation/pool/sim-disk.ts";
import { probeBdev, withReactor } from "../../../support/reactor.ts";
import { tempFolders } from "../../../support/temp-folder.ts";
import { codeOf, expectSound, KIB, MIB, pattern, smallPool, until } from "./fixture.ts";

const C = 64 * KIB;
const folder = tempFolders();

test("a replica grows online, keeps its data and reads zeroes beyond it", () => {
  withReactor(async (reactor) => {
    const { bdev, pool } = await smallPool(reactor);
    const r = await pool.createReplica({
      uuid: randomUUID(),
      name: "r",
      sizeBytes: C + 1024,
      thin: true,
    });
    const events: unknown[] = [];
    r.listen((event) => events.push(event));
    const probe = probeBdev(r);
    await probe.write(0, pattern(C + 1024, 1));
    await pool.resize(r.uuid, 5 * C + 512);
    expect(events).toEqual([{ kind: "resized", blockCount: (5 * C + 512) / 512 }]);
    expect(r.sizeBytes).toBe(5 * C + 512);
    expect((await probe.read(0, C + 1024)).bytes).toEqual(pattern(C + 1024, 1));
    expect((await probe.read(C + 1024, 4 * C - 512)).bytes).toEqual(new Uint8Array(4 * C - 512));
    expect(await probe.write(5 * C, pattern(512, 2))).toBe(IoStatus.OK);
    await pool.resize(r.uuid, 5 * C + 512); // the same again is no change
    expect(events.length).toBe(1);
    expect(await codeOf(pool.resize(r.uuid, 5 * C))).toBe("InvalidArgument");
    expect(await codeOf(pool.resize(r.uuid, 6 * C + 1))).toBe("InvalidArgument");
    expect(await codeOf(pool.resize(randomUUID(), 6 * C))).toBe("NotFound");
    await expectSound(pool);
    await pool.export();
    const again = await importPool(bdev, { closeBdev: false });
    expect(again.get(r.uuid).sizeBytes).toBe(5 * C + 512);
    expect((await probeBdev(again.get(r.uuid)).read(5 * C, 512)).bytes).toEqual(pattern(512, 2));
    await again.export();
  });
});

test("a thick replica grows only into free space", () => {
  withReactor(async (reactor) => {
    const { pool } = await smallPool(reactor, 8);
    const capacity = pool.info().capacityBytes;
    const r = await pool.createReplica({
      uuid: randomUUID(),
      name: "r",
      sizeBytes: C,
      thin: false,
    });
    await probeBdev(r).write(0, pattern(C, 1));
    expect(await codeOf(pool.resize(r.uuid, capacity + C))).toBe("NoSpace");
    expect(pool.info().usedBytes).toBe(C);
    await pool.resize(r.uuid, capacity);
    expect(pool.info().usedBytes).toBe(capacity);
    await expectSound(pool);
    await pool.export();
  });
});

/** Fills whatever is free with a thin replica; returns how much that was. */
async function fill(pool: Pool, name: string): Promise<number> {
  const replica = await pool.createReplica({
    uuid: randomUUID(),
    name,
    sizeBytes: pool.info().capacityBytes,
    thin: true,
  });
  let at = 0;
  while (
    at < replica.sizeBytes &&
    (await probeBdev(replica).write(at, pattern(C, at))) === IoStatus.OK
  ) {
    at += C;
  }
  return at;
}

test("a pool takes in a larger disk online, by itself", () => {
  withReactor(async (reactor) => {
    const disk = new SimDisk({ reactor, image: new Uint8Array(8 * MIB), seed: 5 });
    const pool = await createPool(disk, { name: "p", clusterBytes: C, closeBdev: false });
    const before = pool.info().capacityBytes;
    expect(await fill(pool, "one")).toBe(before);
    disk.grow(20 * MIB + 512);
    await until(reactor, () => pool.info().capacityBytes > before);
    expect(pool.info().capacityBytes).toBe(before + 12 * MIB);
    expect(await fill(pool, "two")).toBe(12 * MIB);
    await expectSound(pool);
    await pool.export();
    const again = await importPool(disk, { closeBdev: false });
    expect(again.info().capacityBytes).toBe(before + 12 * MIB);
    await expectSound(again);
    await again.export();
  });
});

test("a pool on a file grows when asked to", () => {
  withReactor(async (reactor) => {
    const path = join(folder(), "disk");
    const resize = (bytes: number) => {
      const fd = openSync(path, "a");
      ftruncateSync(fd, bytes);
      closeSync(fd);
    };
    resize(8 * MIB);
    const bdev = await openBdev(reactor, path);
    const pool = await createPool(bdev, { name: "p", clusterBytes: C });
    const before = pool.info().capacityBytes;
    expect(await pool.grow()).toBe(before);
    resize(16 * MIB);
    expect(await pool.grow()).toBe(before + 8 * MIB);
    await expectSound(pool);
    resize(4 * MIB);
    expect(await codeOf(pool.grow())).toBe("FailedPrecondition");
    await pool.export();
  });
});

test("new clusters are used only when the disk knows that the pool has them", () => {
  withReactor(async (reactor) => {
    const disk = new SimDisk({ reactor, image: new Uint8Array(8 * MIB), seed: 5, pace: 1 });
    const pool = await createPool(disk, { name: "p", clusterBytes: C, closeBdev: false });
    await fill(pool, "one");
    const replica = pool.replicas()[0]!;
    await pool.resize(replica.uuid, 12 * MIB);
    disk.stalled = (op, offset) => op === IoOp.WRITE && (offset === 0 || offset === MIB);
    disk.grow(12 * MIB);
    for (let i = 0; i < 50; i++) await reactor.sleep(0);
    const at = replica.sizeBytes - C;
    expect(await probeBdev(replica).write(at, pattern(512, 1))).toBe(IoStatus.NO_SPACE);
    disk.release();
    await pool.grow();
    expect(await probeBdev(replica).write(at, pattern(512, 1))).toBe(IoStatus.OK);
    await pool.export();
  });
});

test("metadata takes more room when replicas need it, and the pool can still be imported", () => {
  withReactor(async (reactor) => {
    const { bdev, pool } = await smallPool(reactor, 32);
    const slot = () => Math.min(...pool.core.slots.map((area) => area.bytes));
    const before = { slot: slot(), capacity: pool.info().capacityBytes };
    // 64 GiB in clusters of 64 KiB are a million entries.
    const r = await pool.createReplica({
      uuid: randomUUID(),
      name: "vast",
      sizeBytes: 64 * 1024 * MIB,
      thin: true,
    });
    expect(slot()).toBeGreaterThan(4 * MIB);
    expect(pool.info().capacityBytes).toBeLessThan(before.capacity);
    const far = r.sizeBytes - C;
    await probeBdev(r).write(far, pattern(C, 3));
    await pool.createSnapshot(r.uuid, { uuid: randomUUID(), name: "s" });
    await pool.checkpoint();
    await pool.checkpoint();
    await probeBdev(r).write(far, pattern(C, 4));
    await expectSound(pool);
    await pool.export();
    const again = await importPool(bdev, { closeBdev: false });
    expect((await probeBdev(again.get(r.uuid)).read(far, C)).bytes).toEqual(pattern(C, 4));
    expect((await probeBdev(again.snapshots()[0]!).read(far, C)).bytes).toEqual(pattern(C, 3));
    await expectSound(again);
    await again.export();
  });
});

test("without room for its metadata a replica is not made", () => {
  withReactor(async (reactor) => {
    const { pool } = await smallPool(reactor, 8);
    await fill(pool, "full");
    const vast = { uuid: randomUUID(), name: "vast", sizeBytes: 64 * 1024 * MIB, thin: true };
    expect(await codeOf(pool.createReplica(vast))).toBe("NoSpace");
    expect(pool.replicas().length).toBe(1);
    await expectSound(pool);
    await pool.export();
  });
});

test("growth makes room for the metadata of a pool that was full of it", () => {
  withReactor(async (reactor) => {
    const disk = new SimDisk({ reactor, image: new Uint8Array(8 * MIB), seed: 5, pace: 1 });
    const pool = await createPool(disk, { name: "p", clusterBytes: C, closeBdev: false });
    await fill(pool, "one");
    disk.grow(40 * MIB);
    await pool.grow();
    const vast = { uuid: randomUUID(), name: "vast", sizeBytes: 32 * 1024 * MIB, thin: true };
    const r = await pool.createReplica(vast);
    expect(await probeBdev(r).write(r.sizeBytes - C, pattern(C, 2))).toBe(IoStatus.OK);
    await expectSound(pool);
    await pool.export();
    const again = await importPool(disk, { closeBdev: false });
    await expectSound(again);
    await again.export();
  });
});
