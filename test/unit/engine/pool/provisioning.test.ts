import { expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { importPool } from "../../../../src/engine/pool/index.ts";
import { IoOp } from "../../../../src/engine/reactor/io-table.ts";
import { IoStatus } from "../../../../src/errors.ts";
import { probeBdev, withReactor } from "../../../support/reactor.ts";
import { codeOf, errorOf, expectSound, KIB, MIB, pattern, smallPool } from "./fixture.ts";

const C = 64 * KIB;

test("a thick replica has its space for good; thin ones share what is left", () => {
  withReactor(async (reactor) => {
    const { bdev, pool } = await smallPool(reactor, 8);
    const capacity = pool.info().capacityBytes;
    const half = Math.floor(capacity / C / 2) * C;
    const uuid = randomUUID();
    const thick = await pool.createReplica({ uuid, name: "thick", sizeBytes: half, thin: false });
    expect(pool.info()).toMatchObject({ usedBytes: half, committedBytes: half });
    expect(pool.usage(thick)).toMatchObject({
      capacityBytes: half,
      allocatedBytes: half,
      clusters: half / C,
      allocatedClusters: half / C,
    });
    const thin = await pool.createReplica({
      uuid: randomUUID(),
      name: "thin",
      sizeBytes: capacity * 2,
      thin: true,
    });
    expect(pool.info().committedBytes).toBe(half + capacity * 2);
    let written = 0;
    while ((await probeBdev(thin).write(written, pattern(C, written))) === IoStatus.OK)
      written += C;
    expect(written).toBe(capacity - half);
    expect(await probeBdev(thin).write(written, pattern(512, 1))).toBe(IoStatus.NO_SPACE);
    // Full, it stays readable and writable where it is mapped.
    expect((await probeBdev(thin).read(0, C)).bytes).toEqual(pattern(C, 0));
    expect(await probeBdev(thin).write(0, pattern(C, 9))).toBe(IoStatus.OK);
    // The thick one does not notice.
    for (let at = 0; at < half; at += C) {
      expect(await probeBdev(thick).write(at, pattern(C, at + 7))).toBe(IoStatus.OK);
    }
    expect(pool.info().usedBytes).toBe(capacity);
    await expectSound(pool);
    // Space given back by a thick replica is not for others.
    expect(await probeBdev(thick).control(IoOp.DISCARD, 0, half)).toBe(IoStatus.OK);
    expect(await probeBdev(thin).write(written, pattern(512, 1))).toBe(IoStatus.NO_SPACE);
    expect(await probeBdev(thin).control(IoOp.DISCARD, 0, C)).toBe(IoStatus.OK);
    expect(await probeBdev(thin).write(written, pattern(512, 1))).toBe(IoStatus.OK);
    await expectSound(pool);
    await pool.export();
    const again = await importPool(bdev, { closeBdev: false });
    expect(again.info().usedBytes).toBe(capacity);
    await expectSound(again);
    await again.export();
  });
});

test("a thick replica that does not fit is NoSpace, and changes nothing", () => {
  withReactor(async (reactor) => {
    const { pool } = await smallPool(reactor, 8);
    const capacity = pool.info().capacityBytes;
    const big = { uuid: randomUUID(), name: "big", sizeBytes: capacity + C, thin: false };
    const error = await errorOf(pool.createReplica(big));
    expect([error.code, error.message]).toEqual([
      "NoSpace",
      expect.stringContaining(`lacks ${C} bytes`),
    ]);
    expect(pool.info()).toMatchObject({ usedBytes: 0, replicaCount: 0 });
    const all = await pool.createReplica({ ...big, sizeBytes: capacity });
    await expectSound(pool);
    const one = { uuid: randomUUID(), name: "one", sizeBytes: 512, thin: false };
    expect(await codeOf(pool.createReplica(one))).toBe("NoSpace");
    await pool.delete(all.uuid);
    expect(pool.info().usedBytes).toBe(0);
    await pool.createReplica(one);
    await expectSound(pool);
    await pool.export();
  });
});

test("replicas turn thick when there is room, and thin at any time", () => {
  withReactor(async (reactor) => {
    const { pool } = await smallPool(reactor, 8);
    const capacity = pool.info().capacityBytes;
    const a = await pool.createReplica({
      uuid: randomUUID(),
      name: "a",
      sizeBytes: capacity,
      thin: true,
    });
    await probeBdev(a).write(0, pattern(3 * C, 1));
    await pool.setAttributes(a.uuid, { thin: false });
    expect([a.thin, pool.info().usedBytes]).toEqual([false, capacity]);
    await expectSound(pool);
    const b = await pool.createReplica({
      uuid: randomUUID(),
      name: "b",
      sizeBytes: 2 * C,
      thin: true,
    });
    expect(await probeBdev(b).write(0, pattern(512, 1))).toBe(IoStatus.NO_SPACE);
    expect(await codeOf(pool.setAttributes(b.uuid, { thin: false }))).toBe("NoSpace");
    expect(b.thin).toBe(true);
    await pool.setAttributes(a.uuid, { thin: true });
    expect(pool.info().usedBytes).toBe(3 * C);
    expect(await probeBdev(b).write(0, pattern(512, 1))).toBe(IoStatus.OK);
    await expectSound(pool);
    await pool.export();
  });
});

test("duplicates are told apart by their parameters", () => {
  withReactor(async (reactor) => {
    const { pool } = await smallPool(reactor);
    const request = { uuid: randomUUID(), name: "r", sizeBytes: MIB, thin: true };
    await pool.createReplica(request);
    expect(await codeOf(pool.createReplica(request))).toBe("AlreadyExists");
    for (const other of [{ sizeBytes: 2 * MIB }, { thin: false }, { name: "s" }]) {
      expect(await codeOf(pool.createReplica({ ...request, ...other }))).toBe("Conflict");
    }
    const sameName = { ...request, uuid: randomUUID() };
    expect(await codeOf(pool.createReplica(sameName))).toBe("Conflict");
    for (const wrong of [
      { ...sameName, name: "" },
      { ...sameName, name: "n", sizeBytes: 0 },
      { ...sameName, name: "n", sizeBytes: 1000 },
      { ...sameName, name: "n", sizeBytes: -512 },
      { ...sameName, name: "n", uuid: "x" },
      { ...sameName, name: "n", attributes: { epoch: -1 } },
    ]) {
      expect(await codeOf(pool.createReplica(wrong))).toBe("InvalidArgument");
    }
    const vast = { ...sameName, name: "v", sizeBytes: 2 ** 43 };
    expect(await codeOf(pool.createReplica(vast))).toBe("ResourceExhausted");
    expect(await codeOf(pool.delete(randomUUID()))).toBe("NotFound");
    expect(() => pool.get(randomUUID())).toThrow("has no replica");
    await expectSound(pool);
    await pool.export();
  });
});

test("a deleted replica ends what is sent to it and tells its users", () => {
  withReactor(async (reactor) => {
    const { pool } = await smallPool(reactor);
    const r = await pool.createReplica({
      uuid: randomUUID(),
      name: "r",
      sizeBytes: MIB,
      thin: true,
    });
    const events: string[] = [];
    r.listen((event) => events.push(event.kind));
    const probe = probeBdev(r);
    await probe.write(0, pattern(MIB, 1));
    await pool.delete(r.uuid);
    expect(events).toEqual(["removed"]);
    expect((await probe.read(0, 512)).status).toBe(IoStatus.DEVICE_GONE);
    expect(await probe.write(0, pattern(512, 1))).toBe(IoStatus.DEVICE_GONE);
    expect(await probe.control(IoOp.FLUSH)).toBe(IoStatus.DEVICE_GONE);
    expect(await codeOf(r.intent.markDirty([{ first: 0, count: 1 }]))).toBe("NotFound");
    r.intent.clearDirty([{ first: 0, count: 1 }]);
    expect(pool.info()).toMatchObject({ usedBytes: 0, replicaCount: 0 });
    await expectSound(pool);
    await pool.export();
  });
});

test("control operations at the same time do not get into each other's way", () => {
  withReactor(async (reactor) => {
    const { pool } = await smallPool(reactor, 16);
    const uuids = Array.from({ length: 20 }, () => randomUUID());
    await Promise.all(
      uuids.map((uuid, i) =>
        pool.createReplica({ uuid, name: `r${i}`, sizeBytes: C * (i + 1), thin: i % 2 === 0 }),
      ),
    );
    await Promise.all([
      ...uuids.slice(0, 10).map((uuid) => pool.delete(uuid)),
      ...uuids.slice(10).map((uuid, i) => pool.setAttributes(uuid, { epoch: i })),
    ]);
    expect(pool.replicas().map((r) => r.attributes.epoch)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    await expectSound(pool);
    await pool.export();
  });
});
