/** Every block device against the one suite of block devices. */
import { describe, expect, test } from "bun:test";
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openBdev } from "../../src/engine/bdev/open.ts";
import { IoOp } from "../../src/engine/reactor/io-table.ts";
import type { Reactor } from "../../src/engine/reactor/reactor.ts";
import { IoStatus } from "../../src/errors.ts";
import { canMakeLoopDevices, makeLoopDevice } from "../support/loop-device.ts";
import { probeBdev, withReactor } from "../support/reactor.ts";
import { type BdevUnderTest, bdevConformance } from "./bdev-suite.ts";

const BYTES = 16 << 20;

/** A file of `BYTES` in a folder of its own under `parent`. */
async function fileDevice(
  reactor: Reactor,
  parent: string,
  parameters: string,
): Promise<BdevUnderTest> {
  const folder = mkdtempSync(join(parent, "trilith-bdev-"));
  const path = join(folder, "disk");
  const fd = openSync(path, "w");
  ftruncateSync(fd, BYTES);
  closeSync(fd);
  const uri = `uring://${path}${parameters}`;
  return {
    bdev: await openBdev(reactor, uri),
    reopen: () => openBdev(reactor, uri),
    dispose: () => rmSync(folder, { recursive: true }),
  };
}

for (const blockSize of [512, 4096]) {
  bdevConformance(
    `malloc, blocks of ${blockSize}`,
    async (reactor) => ({
      bdev: await openBdev(reactor, `malloc:///disk?size_mb=16&blk_size=${blockSize}`),
      dispose: () => {},
    }),
    { keepsData: false },
  );
  bdevConformance(
    `file, blocks of ${blockSize}`,
    (reactor) => fileDevice(reactor, tmpdir(), `?blk_size=${blockSize}`),
    { keepsData: true },
  );
  // Loop devices need root.
  if (canMakeLoopDevices) {
    bdevConformance(
      `loop device, sectors of ${blockSize}`,
      async (reactor) => {
        const loop = makeLoopDevice(BYTES, blockSize === 512 ? 512 : 4096);
        try {
          return {
            bdev: await openBdev(reactor, loop.path),
            reopen: () => openBdev(reactor, loop.path),
            dispose: () => loop.remove(),
          };
        } catch (error) {
          loop.remove();
          throw error;
        }
      },
      { keepsData: true },
    );
  }
}

bdevConformance("file in memory (tmpfs)", (reactor) => fileDevice(reactor, "/dev/shm", ""), {
  keepsData: true,
});

describe("block device: null", () => {
  test("takes everything, keeps nothing, reads zeroes", () => {
    withReactor(async (reactor) => {
      const bdev = await openBdev(reactor, "null:///nothing?size_mb=8");
      const probe = probeBdev(bdev);
      expect(await probe.write(4096, new Uint8Array(8192).fill(7))).toBe(IoStatus.OK);
      const { status, bytes } = await probe.read(0, 1 << 20);
      expect(status).toBe(IoStatus.OK);
      expect(bytes.every((byte) => byte === 0)).toBe(true);
      expect(await probe.control(IoOp.FLUSH)).toBe(IoStatus.OK);
      expect(await probe.control(IoOp.DISCARD, 0, 8 << 20)).toBe(IoStatus.OK);
      expect((await probe.read(8 << 20, 512)).status).toBe(IoStatus.OUT_OF_RANGE);
      await bdev.close();
    });
  });
});
