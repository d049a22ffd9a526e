import { expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { crc32cOf } from "../../../../ffi/index.ts";
import { type Bdev, bdevBytes } from "../../../../src/engine/bdev/bdev.ts";
import { openBdev } from "../../../../src/engine/bdev/open.ts";
import { createPool, importPool, type Pool, probePool } from "../../../../src/engine/pool/index.ts";
import { decodeSuperblock, encodeSuperblock } from "../../../../src/engine/pool/superblock.ts";
import { SimDisk } from "../../../simulation/pool/sim-disk.ts";
import { probeBdev, withReactor } from "../../../support/reactor.ts";
import { codeOf, errorOf, expectSound, KIB, MIB, memory, pattern } from "./fixture.ts";

const options = { name: "p", clusterBytes: 64 * KIB, closeBdev: false };

/** Changes one copy of the superblock and gives it a checksum that fits. */
async function alter(bdev: Bdev, at: number, change: (view: DataView) => void): Promise<void> {
  const probe = probeBdev(bdev);
  const { bytes } = await probe.read(at, 4096);
  const view = new DataView(bytes.buffer);
  change(view);
  view.setUint32(12, 0, true);
  view.setUint32(12, crc32cOf(bytes), true);
  await probe.write(at, bytes);
}

test("a new pool is empty, and says how large it is", () => {
  withReactor(async (reactor) => {
    const bdev = memory(reactor, 64);
    const pool = await createPool(bdev, { name: "first", closeBdev: false });
    const info = pool.info();
    expect(info).toMatchObject({
      name: "first",
      clusterBytes: 4 * MIB,
      blockSize: 512,
      capacityBytes: 56 * MIB,
      usedBytes: 0,
      committedBytes: 0,
      metadataBytes: 8 * MIB,
      diskBytes: 64 * MIB,
      replicaCount: 0,
      snapshotCount: 0,
      health: { status: "Online", reason: "" },
    });
    expect(pool.replicas()).toEqual([]);
    await expectSound(pool);
    await pool.export();
    expect(pool.isClosed).toBe(true);
    expect(await codeOf(pool.grow())).toBe("NotFound");
  });
});

test("creating again imports; another identity is refused by name; force overwrites", () => {
  withReactor(async (reactor) => {
    const bdev = memory(reactor, 16);
    const uuid = randomUUID();
    const first = await createPool(bdev, { ...options, uuid });
    const r = await first.createReplica({
      uuid: randomUUID(),
      name: "r",
      sizeBytes: MIB,
      thin: true,
    });
    await first.export();
    const second = await createPool(bdev, { ...options, uuid });
    expect(second.uuid).toBe(uuid);
    expect(second.find(r.uuid)?.name).toBe("r");
    await second.export();
    const third = await createPool(bdev, options); // Without a UUID the name decides.
    expect(third.uuid).toBe(uuid);
    await third.export();

    const byName = await errorOf(createPool(bdev, { ...options, name: "q" }));
    expect(byName.code).toBe("ForeignDisk");
    expect(byName.message).toContain(`pool p (${uuid})`);
    const byUuid = createPool(bdev, { ...options, uuid: randomUUID() });
    expect(await codeOf(byUuid)).toBe("ForeignDisk");
    const bySize = createPool(bdev, { ...options, clusterBytes: 128 * KIB });
    expect(await codeOf(bySize)).toBe("Conflict");

    const forced = await createPool(bdev, { ...options, name: "q", force: true });
    expect(forced.uuid).not.toBe(uuid);
    expect(forced.replicas()).toEqual([]);
    await expectSound(forced);
    await forced.export();
  });
});

test("a foreign disk is refused with what it holds, and untouched", () => {
  withReactor(async (reactor) => {
    const bdev = memory(reactor, 16);
    const probe = probeBdev(bdev);
    const sector = new Uint8Array(512);
    sector.set(Buffer.from("EFI PART"));
    await probe.write(512, sector);
    await probe.write(15 * MIB, pattern(4096, 3));
    const error = await errorOf(createPool(bdev, options));
    expect([error.code, error.message]).toEqual([
      "ForeignDisk",
      expect.stringContaining("GPT partition table"),
    ]);
    expect(error.remedy).toContain("force");
    expect((await probe.read(512, 512)).bytes).toEqual(sector);
    expect((await probe.read(0, 512)).bytes).toEqual(new Uint8Array(512));
    expect(await probePool(bdev)).toMatchObject({ kind: "foreign" });
    const pool = await createPool(bdev, { ...options, force: true });
    await pool.export();
    // What could bring the old owner back is gone from both ends.
    expect((await probe.read(15 * MIB + 512, 512)).bytes).toEqual(new Uint8Array(512));
  });
});

test("importing a disk without a pool, or with another one, is NotFound", () => {
  withReactor(async (reactor) => {
    const bdev = memory(reactor, 16);
    expect(await codeOf(importPool(bdev))).toBe("NotFound");
    const pool = await createPool(bdev, options);
    await pool.export();
    expect(await codeOf(importPool(bdev, { name: "other" }))).toBe("NotFound");
    expect(await codeOf(importPool(bdev, { uuid: randomUUID() }))).toBe("NotFound");
    const again = await importPool(bdev, { name: "p", uuid: pool.uuid, closeBdev: false });
    await again.destroy();
    expect(await codeOf(importPool(bdev))).toBe("NotFound");
    expect(await probePool(bdev)).toEqual({ kind: "blank" });
  });
});

test("bad parameters are refused before anything is written", () => {
  withReactor(async (reactor) => {
    const bdev = memory(reactor, 16);
    for (const wrong of [
      { ...options, name: "" },
      { ...options, name: "a b" },
      { ...options, uuid: "x" },
      { ...options, clusterBytes: 100_000 },
      { ...options, clusterBytes: 16 * MIB },
    ]) {
      expect(await codeOf(createPool(bdev, wrong))).toBe("InvalidArgument");
    }
    const error = await errorOf(createPool(bdev, { ...options, clusterBytes: 8 * MIB }));
    expect(error.remedy).toMatch(/at least \d+ bytes/);
    expect(await probePool(bdev)).toEqual({ kind: "blank" });
    // Nothing of the reactor is left in use.
    expect(reactor.io.free).toBe(reactor.io.capacity);
  });
});

test("a disk that shrank, or was opened with larger blocks, is refused", () => {
  withReactor(async (reactor) => {
    const image = new Uint8Array(16 * MIB);
    const disk = new SimDisk({ reactor, image, seed: 1 });
    const pool = await createPool(disk, options);
    await pool.export();
    const smaller = new SimDisk({ reactor, image: image.slice(0, 12 * MIB), seed: 1 });
    const shrunk = await errorOf(importPool(smaller));
    expect([shrunk.code, shrunk.message]).toEqual([
      "FailedPrecondition",
      expect.stringContaining("shrunk"),
    ]);
    const other = await openBdev(reactor, `malloc:///x?size_mb=16&blk_size=4096`);
    const probe = probeBdev(other);
    for (let at = 0; at < 16 * MIB; at += MIB) await probe.write(at, image.slice(at, at + MIB));
    const blocks = await errorOf(importPool(other));
    expect([blocks.code, blocks.remedy]).toEqual([
      "FailedPrecondition",
      expect.stringContaining("blk_size=512"),
    ]);
  });
});

test("features and versions of the future are refused, not misread", () => {
  withReactor(async (reactor) => {
    for (const at of [0, MIB]) {
      const bdev = memory(reactor, 16);
      await (await createPool(bdev, options)).export();
      await alter(bdev, at, (view) => view.setUint32(16, 1, true));
      const error = await errorOf(importPool(bdev));
      expect([error.code, error.message]).toEqual([
        "FailedPrecondition",
        expect.stringContaining("encryption"),
      ]);
      expect(await codeOf(createPool(bdev, options))).toBe("FailedPrecondition");
    }
  });
});

test("one damaged superblock copy is repaired; two are Corrupted", () => {
  withReactor(async (reactor) => {
    for (const at of [0, MIB]) {
      const bdev = memory(reactor, 16);
      await (await createPool(bdev, options)).export();
      const probe = probeBdev(bdev);
      const good = (await probe.read(at, 4096)).bytes;
      await probe.write(at, pattern(4096, 1));
      const pool = await importPool(bdev, { closeBdev: false });
      expect((await probe.read(at, 4096)).bytes).toEqual(good);
      await pool.export();
      const copies = [0, MIB];
      for (const copy of copies) {
        const { bytes } = await probe.read(copy, 4096);
        bytes[500] = 1;
        await probe.write(copy, bytes);
      }
      expect(await codeOf(importPool(bdev))).toBe("Corrupted");
      const created = await errorOf(createPool(bdev, options));
      expect([created.code, created.message]).toEqual([
        "ForeignDisk",
        expect.stringContaining("superblock is damaged"),
      ]);
    }
  });
});

test("superblocks of two pools on one disk are Corrupted", () => {
  withReactor(async (reactor) => {
    const bdev = memory(reactor, 16);
    await (await createPool(bdev, options)).export();
    const probe = probeBdev(bdev);
    const copy = decodeSuperblock((await probe.read(0, 4096)).bytes);
    if (copy.kind !== "valid") throw new Error("no superblock");
    const other = encodeSuperblock({ ...copy.superblock, uuid: randomUUID(), generation: 99 });
    await probe.write(MIB, other);
    expect(await codeOf(importPool(bdev))).toBe("Corrupted");
  });
});

test("everything about a pool comes back, after an export and without one", () => {
  withReactor(async (reactor) => {
    const bdev = memory(reactor, 16);
    const pool = await createPool(bdev, options);
    const uuid = randomUUID();
    const attributes = {
      volumeUuid: randomUUID(),
      entityId: "entity",
      epoch: 12,
      healthGeneration: 34,
      dirtyBaseGeneration: 33,
      clean: true,
      share: "nvmf" as const,
      allowedHosts: ["nqn.one", "nqn.two"],
      reservation: pattern(1000, 5),
    };
    const r = await pool.createReplica({
      uuid,
      name: "r",
      sizeBytes: MIB + 512,
      thin: true,
      attributes,
    });
    await probeBdev(r).write(300 * KIB, pattern(100 * KIB, 8));
    await r.intent.markDirty([{ first: 0, count: 1 }]);
    const check = async (p: Pool) => {
      const found = p.get(uuid);
      expect(found.sizeBytes).toBe(MIB + 512);
      expect(found.attributes).toMatchObject({ name: "r", ...attributes });
      expect(found.intent.isDirty(0)).toBe(true);
      const back = await probeBdev(found).read(300 * KIB, 100 * KIB);
      expect(back.bytes).toEqual(pattern(100 * KIB, 8));
      await expectSound(p);
    };
    await check(pool);
    // Without an export: only journal and superblock. The open pool is not used any further.
    const unclean = await importPool(bdev, { closeBdev: false });
    await check(unclean);
    await unclean.export();
    const clean = await importPool(bdev, { closeBdev: false });
    await check(clean);
    await clean.export();
  });
});

test("a pool on a file keeps the file, and closing it releases the file", () => {
  withReactor(async (reactor) => {
    const bdev = await openBdev(reactor, "malloc:///d?size_mb=16");
    const pool = await createPool(bdev, { name: "p", clusterBytes: 64 * KIB });
    expect(bdevBytes(bdev)).toBe(16 * MIB);
    await pool.export();
    expect((await probeBdev(bdev).read(0, 512)).status).not.toBe(0);
  });
});
