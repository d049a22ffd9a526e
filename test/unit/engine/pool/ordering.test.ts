/** Orders in which a pool must do things, shown by a disk that holds requests back. */
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
import { expectSound, isZero, KIB, MIB, pattern, until } from "./fixture.ts";

const C = 64 * KIB;
/** Turns after which a request that is not held back has surely ended. */
const TURNS = 200;

async function turns(reactor: Reactor): Promise<void> {
  for (let i = 0; i < TURNS; i++) await reactor.sleep(0);
}

async function setUp(reactor: Reactor, sizeMb = 16) {
  const disk = new SimDisk({ reactor, image: new Uint8Array(sizeMb * MIB).fill(0), seed: 9 });
  const pool = await createPool(disk, { name: "p", clusterBytes: C, closeBdev: false });
  return { disk, pool };
}

function make(pool: Pool, name: string, sizeBytes = 2 * MIB): Promise<Replica> {
  return pool.createReplica({ uuid: randomUUID(), name, sizeBytes, thin: true });
}

/** True for requests to the journal's rings. */
function isJournal(pool: Pool): (offset: number) => boolean {
  const rings = pool.core.superblock.rings.flat();
  return (offset) => rings.some((e) => offset >= e.offset && offset < e.offset + e.bytes);
}

/** A promise's outcome, or undefined as long as there is none. */
function watch<T>(promise: Promise<T>): { value: T | undefined } {
  const state: { value: T | undefined } = { value: undefined };
  promise.then(
    (value) => {
      state.value = value;
    },
    () => {},
  );
  return state;
}

test("data goes to a new cluster only when both copies of its record are on the disk", () => {
  withReactor(async (reactor) => {
    for (const copy of [0, 1]) {
      const { disk, pool } = await setUp(reactor);
      const r = await make(pool, "r");
      await pool.core.cleaner.idle();
      const ring = pool.core.superblock.rings[copy]![0]!;
      const data: number[] = [];
      disk.stalled = (op, offset) => {
        const isRing = offset >= ring.offset && offset < ring.offset + ring.bytes;
        if (op === IoOp.WRITE && !isJournal(pool)(offset)) data.push(offset);
        return op === IoOp.WRITE && isRing;
      };
      const write = watch(probeBdev(r).write(0, pattern(512, 1)));
      await turns(reactor);
      expect([write.value, data]).toEqual([undefined, []]);
      expect((await probeBdev(r).read(0, 512)).bytes).toEqual(new Uint8Array(512));
      disk.release();
      await until(reactor, () => write.value !== undefined);
      expect(write.value).toBe(IoStatus.OK);
      await pool.export();
    }
  });
});

test("only clusters that were zeroed and flushed are mapped", () => {
  withReactor(async (reactor) => {
    for (const held of [IoOp.WRITE_ZEROES, IoOp.FLUSH]) {
      const image = new Uint8Array(16 * MIB).fill(0xcc); // What the disk held before.
      const disk = new SimDisk({ reactor, image, seed: 9 });
      const creating = createPool(disk, {
        name: "p",
        clusterBytes: C,
        force: true,
        closeBdev: false,
      });
      const pool = await creating;
      disk.stalled = (op) => op === held;
      const r = await make(pool, "r", 16 * MIB);
      // Use up what had been zeroed before: at most one run.
      const writes = Array.from({ length: 200 }, (_, i) =>
        watch(probeBdev(r).write(i * C, pattern(512, i))),
      );
      await turns(reactor);
      expect(writes.at(-1)!.value).toBeUndefined();
      const mapped = r.object.mapped;
      await turns(reactor);
      expect(r.object.mapped).toBe(mapped);
      disk.release();
      await until(reactor, () => writes.every(({ value }) => value !== undefined));
      for (let i = 0; i < 200; i++) {
        if (writes[i]!.value !== IoStatus.OK) continue;
        const { bytes } = await probeBdev(r).read(i * C, C);
        expect(isZero(bytes.subarray(512))).toBe(true);
      }
      await pool.export();
    }
  });
});

test("a cluster that was given up is not used while requests to it are under way", () => {
  withReactor(async (reactor) => {
    const { disk, pool } = await setUp(reactor, 3);
    const r = await make(pool, "r", C);
    await probeBdev(r).write(0, pattern(C, 1));
    const cluster = r.object.map[0]!;
    // A write to the cluster hangs on the disk while the host discards it.
    disk.stalled = (op, offset) => op === IoOp.WRITE && offset === cluster * C;
    const hanging = watch(probeBdev(r).write(0, pattern(512, 7)));
    expect(await probeBdev(r).control(IoOp.DISCARD, 0, C)).toBe(IoStatus.OK);
    const other = await make(pool, "other", pool.info().capacityBytes);
    const writes = Array.from({ length: other.object.map.length }, (_, i) =>
      watch(probeBdev(other).write(i * C, pattern(512, 2))),
    );
    await turns(reactor);
    expect(hanging.value).toBeUndefined();
    expect(writes.filter(({ value }) => value === undefined).length).toBe(1);
    expect([...other.object.map]).not.toContain(cluster);
    disk.release();
    await until(reactor, () => writes.every(({ value }) => value === IoStatus.OK));
    for (let i = 0; i < other.object.map.length; i++) {
      const { bytes } = await probeBdev(other).read(i * C, C);
      expect(isZero(bytes.subarray(512))).toBe(true);
    }
    await expectSound(pool);
    await pool.export();
  });
});

test("a read under way never sees what the other owner of a shared cluster writes", () => {
  withReactor(async (reactor) => {
    const { disk, pool } = await setUp(reactor);
    const r = await make(pool, "r");
    await probeBdev(r).write(0, pattern(C, 1));
    const s = await pool.createSnapshot(r.uuid, { uuid: randomUUID(), name: "s" });
    const clone = await pool.createClone(s.uuid, { uuid: randomUUID(), name: "c" });
    await pool.delete(s.uuid);
    const at = (r.object.map[0]! & 0xffff) * C;
    // The clone reads; the read hangs on the disk. Meanwhile the clone gives the cluster up.
    disk.stalled = (op, offset, length) => op === IoOp.READ && offset === at && length === 4096;
    const reading = probeBdev(clone).read(0, 4096);
    expect(await probeBdev(clone).control(IoOp.DISCARD, 0, C)).toBe(IoStatus.OK);
    // Now the cluster is the source's alone, but it must not be written in place yet.
    expect(await probeBdev(r).write(0, pattern(4096, 9))).toBe(IoStatus.OK);
    disk.release();
    expect((await reading).bytes).toEqual(pattern(C, 1).slice(0, 4096));
    expect((await probeBdev(r).read(0, 4096)).bytes).toEqual(pattern(4096, 9));
    await expectSound(pool);
    await pool.export();
  });
});

test("while a cluster is copied its writes wait, its reads do not", () => {
  withReactor(async (reactor) => {
    const { disk, pool } = await setUp(reactor);
    const r = await make(pool, "r");
    await probeBdev(r).write(0, pattern(2 * C, 1));
    const s = await pool.createSnapshot(r.uuid, { uuid: randomUUID(), name: "s" });
    await pool.core.cleaner.idle();
    disk.stalled = (op, offset) => op === IoOp.WRITE && !isJournal(pool)(offset);
    const first = watch(probeBdev(r).write(512, pattern(512, 2)));
    const second = watch(probeBdev(r).write(1024, pattern(512, 3)));
    const discard = watch(probeBdev(r).control(IoOp.DISCARD, 2048, 512));
    await turns(reactor);
    expect([first.value, second.value, discard.value]).toEqual([undefined, undefined, undefined]);
    expect((await probeBdev(r).read(0, C)).bytes).toEqual(pattern(2 * C, 1).slice(0, C));
    disk.release();
    await until(reactor, () => [first, second, discard].every(({ value }) => value === 0));
    const expected = pattern(2 * C, 1);
    expected.set(pattern(512, 2), 512);
    expected.set(pattern(512, 3), 1024);
    expected.fill(0, 2048, 2560);
    expect((await probeBdev(r).read(0, 2 * C)).bytes).toEqual(expected);
    expect((await probeBdev(s).read(0, 2 * C)).bytes).toEqual(pattern(2 * C, 1));
    await expectSound(pool);
    await pool.export();
  });
});

test("a snapshot waits for the writes under way and holds later ones back, not reads", () => {
  withReactor(async (reactor) => {
    const { disk, pool } = await setUp(reactor);
    const r = await make(pool, "r");
    await probeBdev(r).write(0, pattern(C, 1));
    const at = (r.object.map[0]! & 0xffff) * C;
    disk.stalled = (op, offset) => op === IoOp.WRITE && offset === at;
    const before = watch(probeBdev(r).write(0, pattern(512, 2)));
    const snapshot = watch(pool.createSnapshot(r.uuid, { uuid: randomUUID(), name: "s" }));
    await turns(reactor);
    const after = watch(probeBdev(r).write(4096, pattern(512, 3)));
    await turns(reactor);
    expect([before.value, snapshot.value, after.value]).toEqual([undefined, undefined, undefined]);
    expect((await probeBdev(r).read(4096, 512)).status).toBe(IoStatus.OK);
    disk.release();
    await until(reactor, () => after.value !== undefined && snapshot.value !== undefined);
    const expected = pattern(C, 1);
    expected.set(pattern(512, 2), 0);
    expect((await probeBdev(snapshot.value!).read(0, C)).bytes).toEqual(expected);
    expected.set(pattern(512, 3), 4096);
    expect((await probeBdev(r).read(0, C)).bytes).toEqual(expected);
    await expectSound(pool);
    await pool.export();
  });
});

test("a write is in a snapshot as a whole or not at all", () => {
  withReactor(async (reactor) => {
    const { disk, pool } = await setUp(reactor);
    const r = await make(pool, "r");
    await probeBdev(r).write(0, pattern(C, 1)); // Cluster 0 is mapped, the next ones are not.
    await pool.core.cleaner.idle();
    disk.stalled = (op, offset) => op === IoOp.WRITE && isJournal(pool)(offset);
    const across = watch(probeBdev(r).write(0, pattern(4 * C, 2)));
    await turns(reactor);
    const snapshot = watch(pool.createSnapshot(r.uuid, { uuid: randomUUID(), name: "s" }));
    await turns(reactor);
    expect([across.value, snapshot.value]).toEqual([undefined, undefined]);
    disk.release();
    await until(reactor, () => snapshot.value !== undefined);
    expect(across.value).toBe(IoStatus.OK);
    expect((await probeBdev(snapshot.value!).read(0, 4 * C)).bytes).toEqual(pattern(4 * C, 2));
    await pool.export();
  });
});

test("holds follow each other, and each waits for what the one before kept back", () => {
  withReactor(async (reactor) => {
    const { pool } = await setUp(reactor);
    const r = await make(pool, "r");
    await probeBdev(r).write(0, pattern(C, 1));
    await r.hold();
    const kept = watch(probeBdev(r).write(0, pattern(512, 2)));
    const second = watch(r.hold().then(() => "held"));
    await turns(reactor);
    expect([kept.value, second.value]).toEqual([undefined, undefined]);
    r.unhold();
    await until(reactor, () => second.value !== undefined);
    expect(kept.value).toBe(IoStatus.OK);
    const later = watch(probeBdev(r).write(0, pattern(512, 3)));
    await turns(reactor);
    expect(later.value).toBeUndefined();
    r.unhold();
    await until(reactor, () => later.value === IoStatus.OK);
    await pool.export();
  });
});

test("what is held back when a replica is closed ends as gone", () => {
  withReactor(async (reactor) => {
    const { pool } = await setUp(reactor);
    const r = await make(pool, "r");
    await r.hold();
    const kept = watch(probeBdev(r).write(0, pattern(512, 2)));
    await turns(reactor);
    await pool.delete(r.uuid);
    r.unhold();
    await until(reactor, () => kept.value !== undefined);
    expect(kept.value).toBe(IoStatus.DEVICE_GONE);
    await expectSound(pool);
    await pool.export();
  });
});

test("a full journal holds allocations back, not I/O to mapped clusters", () => {
  withReactor(async (reactor) => {
    const { disk, pool } = await setUp(reactor);
    const r = await make(pool, "r");
    await probeBdev(r).write(0, pattern(C, 1));
    const slots = pool.core.superblock.slots.flat();
    const isSlot = (offset: number) =>
      slots.some((e) => offset >= e.offset && offset < e.offset + e.bytes);
    disk.stalled = (op, offset) => op === IoOp.WRITE && isSlot(offset); // No checkpoint ends.
    const { ringBlocks } = pool.core.journal;
    const asked = ringBlocks * 2;
    const changes = Array.from({ length: asked }, (_, i) =>
      pool.setAttributes(r.uuid, { epoch: i + 1 }),
    );
    let reached = -1;
    while (r.attributes.epoch > reached) {
      reached = r.attributes.epoch;
      await turns(reactor);
    }
    expect(reached).toBeGreaterThan(ringBlocks / 2);
    expect(reached).toBeLessThan(ringBlocks);
    const waiting = watch(probeBdev(r).write(5 * C, pattern(512, 2)));
    await turns(reactor);
    expect(waiting.value).toBeUndefined();
    expect(await probeBdev(r).write(512, pattern(512, 3))).toBe(IoStatus.OK);
    expect((await probeBdev(r).read(512, 512)).bytes).toEqual(pattern(512, 3));
    expect(await probeBdev(r).control(IoOp.FLUSH)).toBe(IoStatus.OK);
    disk.release();
    await until(reactor, () => waiting.value === IoStatus.OK);
    await Promise.all(changes);
    await expectSound(pool);
    await pool.export();
    const again = await importPool(disk, { closeBdev: false });
    expect(again.get(r.uuid).attributes.epoch).toBe(asked);
    await again.export();
  });
});

test("a checkpoint counts only when it was flushed", () => {
  withReactor(async (reactor) => {
    const { disk, pool } = await setUp(reactor);
    const r = await make(pool, "r");
    await pool.core.cleaner.idle();
    await pool.checkpoint();
    await pool.setAttributes(r.uuid, { epoch: 1 });
    disk.stalled = (op) => op === IoOp.FLUSH;
    const done = pool.checkpoint();
    await turns(reactor);
    expect(pool.core.checkpointer.count).toBe(1);
    disk.release();
    await done;
    expect(pool.core.checkpointer.count).toBe(2);
    await pool.export();
  });
});

test("the journal since the checkpoint before the newest one is kept", () => {
  withReactor(async (reactor) => {
    const { disk, pool } = await setUp(reactor);
    const r = await make(pool, "r");
    const { ringBlocks } = pool.core.journal;
    let epoch = 0;
    // Go round the ring several times; at each checkpoint the newest one may turn out damaged.
    for (let round = 0; round < 6; round++) {
      for (let i = 0; i < ringBlocks / 2; i++) await pool.setAttributes(r.uuid, { epoch: ++epoch });
      await pool.core.checkpointer.idle();
      const image = disk.image.slice();
      const { header, slot } = newest(image, pool);
      expect(header).toBeGreaterThan(1);
      image.fill(0, slot + 100, slot + 200);
      const copy = new SimDisk({ reactor, image, seed: 1 });
      const again = await importPool(copy, { closeBdev: false });
      expect(again.get(r.uuid).attributes.epoch).toBe(epoch);
      await expectSound(again);
      await again.export();
    }
    await pool.export();
  });
});

/** Number and place of the newest checkpoint in an image. */
function newest(image: Uint8Array, pool: Pool): { header: number; slot: number } {
  const view = new DataView(image.buffer);
  const [x, y] = pool.core.superblock.slots.map((extents) => {
    const slot = extents[0]!.offset;
    return { header: view.getUint32(slot + 16, true), slot };
  });
  return x!.header > y!.header ? x! : y!;
}
