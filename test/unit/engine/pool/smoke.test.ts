import { expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { importPool } from "../../../../src/engine/pool/index.ts";
import { IoOp } from "../../../../src/engine/reactor/io-table.ts";
import { probeBdev, withReactor } from "../../../support/reactor.ts";
import { expectSound, KIB, pattern, smallPool } from "./fixture.ts";

test("smoke", () => {
  withReactor(async (reactor) => {
    const { bdev, pool } = await smallPool(reactor);
    const uuid = randomUUID();
    const r = await pool.createReplica({ uuid, name: "r1", sizeBytes: 1000 * KIB, thin: true });
    const probe = probeBdev(r);
    const bytes = pattern(200 * KIB, 1);
    expect(await probe.write(30 * KIB, bytes)).toBe(0);
    expect((await probe.read(30 * KIB, 200 * KIB)).bytes).toEqual(bytes);
    expect((await probe.read(600 * KIB, 64 * KIB)).bytes).toEqual(new Uint8Array(64 * KIB));
    await expectSound(pool);
    const s = await pool.createSnapshot(uuid, { uuid: randomUUID(), name: "s1" });
    const other = pattern(100 * KIB, 2);
    expect(await probe.write(0, other)).toBe(0);
    expect((await probeBdev(s).read(30 * KIB, 200 * KIB)).bytes).toEqual(bytes);
    await expectSound(pool);
    expect(await probe.control(IoOp.DISCARD, 0, 1000 * KIB)).toBe(0);
    await expectSound(pool);
    await pool.export();
    const again = await importPool(bdev, { closeBdev: false });
    const r2 = again.get(uuid);
    expect((await probeBdev(again.get(s.uuid)).read(30 * KIB, 200 * KIB)).bytes).toEqual(bytes);
    expect((await probeBdev(r2).read(0, 1000 * KIB)).bytes).toEqual(new Uint8Array(1000 * KIB));
    await expectSound(again);
    await again.destroy();
  });
});
