/** What files and disks do beyond the conformance suite: refusals, sharing, growth, loss. */
import { describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { BdevEvent } from "../../../../src/engine/bdev/bdev.ts";
import { openFileBdev } from "../../../../src/engine/bdev/file.ts";
import { openBdev } from "../../../../src/engine/bdev/open.ts";
import type { FileUri } from "../../../../src/engine/bdev/uri.ts";
import { IoOp } from "../../../../src/engine/reactor/io-table.ts";
import type { Reactor } from "../../../../src/engine/reactor/reactor.ts";
import { IoStatus, TrilithError } from "../../../../src/errors.ts";
import { canMakeLoopDevices, makeLoopDevice } from "../../../support/loop-device.ts";
import { probeBdev, withReactor } from "../../../support/reactor.ts";

const MIB = 1 << 20;

function withFolder(body: (reactor: Reactor, folder: string) => Promise<void>): void {
  const folder = mkdtempSync(join(tmpdir(), "trilith-file-"));
  try {
    withReactor((reactor) => body(reactor, folder));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function makeFile(folder: string, bytes: number, name = "disk"): string {
  const path = join(folder, name);
  writeFileSync(path, "");
  truncateSync(path, bytes);
  return path;
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof TrilithError) return error.code;
    throw error;
  }
  return "opened";
}

const uriOf = (path: string): FileUri => ({
  driver: "uring",
  path,
  blockSize: undefined,
  uuid: undefined,
});

describe("file device", () => {
  test("refuses what is missing, empty, or no device", () => {
    withFolder(async (reactor, folder) => {
      expect(await codeOf(openBdev(reactor, join(folder, "none")))).toBe("NotFound");
      expect(await codeOf(openBdev(reactor, makeFile(folder, 0)))).toBe("InvalidArgument");
      expect(await codeOf(openBdev(reactor, makeFile(folder, 511)))).toBe("InvalidArgument");
      mkdirSync(join(folder, "folder"));
      expect(await codeOf(openBdev(reactor, join(folder, "folder")))).toBe("InvalidArgument");
      expect(await codeOf(openBdev(reactor, "/dev/null"))).toBe("InvalidArgument");
      expect(reactor.handlerCount).toBe(0);
    });
  });

  test("is held by one at a time", () => {
    withFolder(async (reactor, folder) => {
      const path = makeFile(folder, MIB);
      const first = await openBdev(reactor, path);
      expect(await codeOf(openBdev(reactor, path))).toBe("InUse");
      await first.close();
      const second = await openBdev(reactor, path);
      await second.close();
    });
  });

  test("bytes beyond the last whole block are not part of it", () => {
    withFolder(async (reactor, folder) => {
      const bdev = await openBdev(reactor, `uring://${makeFile(folder, MIB + 1000)}?blk_size=4096`);
      expect(bdev.blockCount).toBe(256);
      const status = (await probeBdev(bdev).read(MIB, 4096)).status;
      expect(status).toBe(IoStatus.OUT_OF_RANGE);
      await bdev.close();
    });
  });

  test("sees growth when it looks again, and refuses to shrink", () => {
    withFolder(async (reactor, folder) => {
      const path = makeFile(folder, MIB);
      const bdev = openFileBdev(reactor, uriOf(path));
      const events: BdevEvent[] = [];
      const stop = bdev.listen((event) => events.push(event));
      expect(bdev.rescan()).toBe(2048);
      truncateSync(path, 2 * MIB);
      expect(bdev.rescan()).toBe(4096);
      expect(events).toEqual([{ kind: "resized", blockCount: 4096 }]);
      const probe = probeBdev(bdev);
      expect(await probe.write(2 * MIB - 512, new Uint8Array(512).fill(1))).toBe(IoStatus.OK);
      stop();
      truncateSync(path, MIB);
      expect(() => bdev.rescan()).toThrow("shrank");
      truncateSync(path, 3 * MIB);
      bdev.rescan();
      expect(events.length).toBe(1);
      await bdev.close();
    });
  });

  test("a file cut short under it gives an error, not someone else's bytes", () => {
    withFolder(async (reactor, folder) => {
      const path = makeFile(folder, MIB);
      const bdev = await openBdev(reactor, path);
      truncateSync(path, MIB / 2);
      const { status } = await probeBdev(bdev).read(MIB / 2, 4096);
      expect(status).toBe(IoStatus.DEVICE_IO);
      await bdev.close();
    });
  });

  // Mounting needs root, as loop devices do.
  test.if(canMakeLoopDevices)("a full file system is NO_SPACE", () => {
    withFolder(async (reactor, folder) => {
      const mount = join(folder, "small");
      mkdirSync(mount);
      const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", mount]);
      expect(mounted.status).toBe(0);
      try {
        const bdev = await openBdev(reactor, makeFile(mount, 4 * MIB));
        const probe = probeBdev(bdev);
        const statuses = new Set<number>();
        for (let at = 0; at < 4 * MIB; at += 256 << 10) {
          statuses.add(await probe.write(at, new Uint8Array(256 << 10).fill(7)));
        }
        expect([...statuses].sort()).toEqual([IoStatus.OK, IoStatus.NO_SPACE]);
        // Discarding gives the space back.
        expect(await probe.control(IoOp.DISCARD, 0, 4 * MIB)).toBe(IoStatus.OK);
        expect(await probe.write(3 * MIB, new Uint8Array(4096))).toBe(IoStatus.OK);
        await bdev.close();
      } finally {
        spawnSync("umount", [mount]);
      }
    });
  });
});

describe.if(canMakeLoopDevices)("disk", () => {
  test("cannot have blocks smaller than its sectors", () => {
    withReactor(async (reactor) => {
      const loop = makeLoopDevice(8 * MIB, 4096);
      try {
        expect(await codeOf(openBdev(reactor, `uring://${loop.path}?blk_size=512`))).toBe(
          "InvalidArgument",
        );
        const bdev = await openBdev(reactor, loop.path);
        expect(bdev.blockSize).toBe(4096);
        expect(await codeOf(openBdev(reactor, loop.path))).toBe("InUse");
        await bdev.close();
      } finally {
        loop.remove();
      }
    });
  });

  test("grows", () => {
    withReactor(async (reactor) => {
      const loop = makeLoopDevice(8 * MIB);
      try {
        const bdev = openFileBdev(reactor, uriOf(loop.path));
        const events: BdevEvent[] = [];
        bdev.listen((event) => events.push(event));
        loop.resize(16 * MIB);
        expect(bdev.rescan()).toBe(32768);
        expect(events).toEqual([{ kind: "resized", blockCount: 32768 }]);
        await bdev.close();
      } finally {
        loop.remove();
      }
    });
  });
});
