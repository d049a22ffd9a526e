/** Reads, writes and the other commands as they appear on the wire. */
import { describe, expect, test } from "bun:test";
import type { NvmfBdev } from "../../../../../src/engine/bdev/nvmf/nvmf-bdev.ts";
import { IoFlag, IoOp } from "../../../../../src/engine/reactor/io-table.ts";
import { IoStatus } from "../../../../../src/errors.ts";
import type { FakeCommand, HostData } from "./fake-target.ts";
import { pattern, type Setting, withFakeTarget } from "./setting.ts";

const KIB = 1024;

/** Writes and reads back, and compares with what the target's memory holds. */
async function roundTrip(s: Setting, bdev: NvmfBdev, offset: number, length: number) {
  const bytes = pattern(length, length);
  expect((await s.run(bdev, IoOp.WRITE, offset, bytes)).status).toBe(IoStatus.OK);
  const stored = s.target.memory.subarray(offset, offset + length);
  expect(Buffer.compare(stored, bytes)).toBe(0);
  const back = await s.run(bdev, IoOp.READ, offset, length);
  expect(back.status).toBe(IoStatus.OK);
  expect(Buffer.compare(back.bytes, bytes)).toBe(0);
}

const SIZES = [512, 4 * KIB, 8 * KIB, 8 * KIB + 512, 16 * KIB, 128 * KIB, 257 * KIB, 1024 * KIB];

describe("data", () => {
  for (const digests of ["", "?hdgst", "?ddgst", "?hdgst&ddgst"]) {
    for (const align of [0, 31]) {
      test(`round trips with "${digests}", data aligned to ${(align + 1) * 4}`, () => {
        withFakeTarget(async (s) => {
          s.target.facts.icAlign = align;
          const bdev = await s.open({}, digests);
          for (const length of SIZES) await roundTrip(s, bdev, 64 * KIB, length);
          await bdev.close();
        });
      });
    }
  }

  for (const dribbleBytes of [1, 7, 4099]) {
    test(`round trips when the target sends ${dribbleBytes} bytes at a time`, () => {
      withFakeTarget(async (s) => {
        const bdev = await s.open({}, "?hdgst&ddgst");
        for (const connection of s.target.open) connection.dribbleBytes = dribbleBytes;
        await roundTrip(s, bdev, 0, 512);
        await roundTrip(s, bdev, 4 * KIB, dribbleBytes === 1 ? 2 * KIB : 48 * KIB);
        await bdev.close();
      });
    });
  }

  test("writes travel in the capsule as far as the controller takes them there", () => {
    withFakeTarget(async (s) => {
      s.target.facts.ioccsz = 4 + (16 * KIB) / 16;
      const bdev = await s.open({}, "?ddgst");
      for (const length of [4 * KIB, 8 * KIB, 16 * KIB, 16 * KIB + 512]) {
        await roundTrip(s, bdev, 0, length);
      }
      const writes = s.target.ioCommands(1);
      expect(writes.map((c) => [c.sglId, c.data.byteLength])).toEqual([
        [0x01, 4 * KIB],
        [0x01, 8 * KIB],
        [0x01, 16 * KIB],
        [0x5a, 0],
      ]);
      await bdev.close();
    });
  });

  test("a controller without in-capsule data gets all of it by R2T", () => {
    withFakeTarget(async (s) => {
      s.target.facts.ioccsz = 4;
      const bdev = await s.open();
      await roundTrip(s, bdev, 0, 512);
      expect((await s.run(bdev, IoOp.DISCARD, 4096, 8192)).status).toBe(IoStatus.OK);
      expect(s.target.ioCommands(1)[0]!.sglId).toBe(0x5a);
      await bdev.close();
    });
  });

  test("host data respects MAXH2CDATA, and the last PDU of each R2T says so", () => {
    withFakeTarget(async (s) => {
      s.target.facts.icMaxH2c = 12 * KIB;
      const bdev = await s.open();
      s.target.onCommand = (c) => {
        if (c.opcode !== 1 || c.queueId < 1) return false;
        c.connection.requestWriteData(c, s.target.placeOf(c).at, 32 * KIB);
        return true;
      };
      await roundTrip(s, bdev, 8 * KIB, 80 * KIB);
      const parts = s.target.hostData.map((p) => [p.offset, p.bytes.byteLength, p.isLast]);
      expect(parts).toEqual([
        [0, 12 * KIB, false],
        [12 * KIB, 12 * KIB, false],
        [24 * KIB, 8 * KIB, true],
        [32 * KIB, 12 * KIB, false],
        [44 * KIB, 12 * KIB, false],
        [56 * KIB, 8 * KIB, true],
        [64 * KIB, 12 * KIB, false],
        [76 * KIB, 4 * KIB, true],
      ]);
      await bdev.close();
    });
  });

  test("a tiny MAXH2CDATA makes more PDUs than one send takes", () => {
    withFakeTarget(async (s) => {
      s.target.facts.icMaxH2c = 4 * KIB;
      const bdev = await s.open({}, "?hdgst&ddgst");
      await roundTrip(s, bdev, 0, 1024 * KIB);
      expect(s.target.hostData.length).toBe(256);
      await bdev.close();
    });
  });

  test("R2Ts may come in any order and one by one", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open();
      s.target.onCommand = (c) => {
        if (c.opcode !== 1 || c.queueId < 1) return false;
        const { at } = s.target.placeOf(c);
        c.connection.writes.set(c.cid, { command: c, at, left: c.sglBytes });
        for (const offset of [32 * KIB, 0, 48 * KIB, 16 * KIB]) {
          c.connection.sendR2t(c.cid, offset, 16 * KIB);
        }
        return true;
      };
      await roundTrip(s, bdev, 0, 64 * KIB);
      await bdev.close();
    });
  });

  test("read data comes in several PDUs, interleaved with another command's", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open({}, "?ddgst");
      const a = pattern(64 * KIB, 1);
      const b = pattern(64 * KIB, 2);
      const reads: FakeCommand[] = [];
      s.target.onCommand = (c) => {
        if (c.opcode !== 2 || c.queueId < 1) return false;
        reads.push(c);
        if (reads.length < 2) return true;
        const step = 24 * KIB;
        for (let at = 0; at < a.byteLength; at += step) {
          const isLast = at + step >= a.byteLength;
          c.connection.sendData(reads[0]!.cid, at, a.slice(at, at + step), isLast ? 4 : 0);
          c.connection.sendData(reads[1]!.cid, at, b.slice(at, at + step), isLast ? 12 : 0);
        }
        c.connection.respond(reads[0]!.cid);
        return true;
      };
      const first = s.start(bdev, IoOp.READ, 0, a.byteLength);
      const second = s.start(bdev, IoOp.READ, 128 * KIB, b.byteLength);
      await s.until("both end", () => first.status === 0 && second.status === 0);
      expect(Buffer.compare(first.bytes(), a)).toBe(0);
      expect(Buffer.compare(second.bytes(), b)).toBe(0);
      first.free();
      second.free();
      await bdev.close();
    });
  });

  for (const digests of ["", "?hdgst&ddgst"]) {
    test(`large reads one after the other, and small ones between them, "${digests}"`, () => {
      withFakeTarget(async (s) => {
        const bdev = await s.open({ queueDepth: 6 }, digests);
        s.target.memory.set(pattern(s.target.memory.byteLength, 8));
        for (let round = 0; round < 3; round++) {
          const lengths = [128, 64, 256, 128, 4, 128, 128, 68, 128].map((n) => n * KIB);
          const reads = lengths.map((n, i) => s.start(bdev, IoOp.READ, i * 4096, n));
          await s.until("all end", () => reads.every((r) => r.status === IoStatus.OK));
          reads.forEach((read, i) => {
            const expected = s.target.memory.subarray(i * 4096, i * 4096 + lengths[i]!);
            expect([i, Buffer.compare(read.bytes(), expected)]).toEqual([i, 0]);
            read.free();
          });
        }
        await bdev.close();
      });
    });
  }

  test("requests longer than MDTS are split, and end once", () => {
    withFakeTarget(async (s) => {
      s.target.facts.mdts = 4; // 64 KiB
      const bdev = await s.open();
      await roundTrip(s, bdev, 512, 1024 * KIB - 512);
      const writes = s.target.ioCommands(1).map((c) => s.target.placeOf(c));
      expect(writes.length).toBe(16);
      expect(writes.map((w) => w.at)).toEqual(writes.map((_, i) => 512 + i * 64 * KIB));
      expect(writes[15]!.length).toBe(64 * KIB - 512);
      await bdev.close();
    });
  });

  test("one failing piece fails the request, when all of its commands have ended", () => {
    withFakeTarget(async (s) => {
      s.target.facts.mdts = 4;
      const bdev = await s.open();
      let held: FakeCommand | undefined;
      s.target.onCommand = (c) => {
        if (c.queueId < 1 || c.opcode !== 2) return false;
        const { at } = s.target.placeOf(c);
        if (at === 64 * KIB) {
          c.connection.respond(c.cid, 0x281);
          return true;
        }
        if (at !== 0) return false;
        held = c;
        return true;
      };
      const read = s.start(bdev, IoOp.READ, 0, 256 * KIB);
      await s.until("all but one are answered", () => s.target.ioCommands(2).length === 4);
      await s.reactor.sleep(2);
      expect(read.status).toBeUndefined();
      s.target.serve(held!);
      await s.until("it ends", () => read.status !== undefined);
      expect(read.status).toBe(IoStatus.DEVICE_IO);
      read.free();
      await bdev.close();
    });
  });

  test("a request ends only when its data has left, even if it was answered before", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open();
      const { io } = s.target;
      const count = 14;
      const commands: FakeCommand[] = [];
      s.target.finishWrite = () => {};
      s.target.onCommand = (c) => {
        if (c.opcode !== 1 || c.queueId < 1) return false;
        // The target asks for all of the data, and then stops reading.
        commands.push(c);
        c.connection.requestWriteData(c, 0);
        if (commands.length === count) io.stream.block();
        return true;
      };
      const bytes = Array.from({ length: count }, (_, i) => pattern(1024 * KIB, i));
      const writes = bytes.map((b) => s.start(bdev, IoOp.WRITE, 0, b));
      await s.until("all commands have come", () => commands.length === count);
      // It fails them all, while the data of some is stuck in the connection.
      for (const c of commands) io.respond(c.cid, 0x281);
      let ended = -1;
      const endedNow = () => writes.filter((w) => w.status !== undefined).length;
      while (ended !== endedNow()) {
        ended = endedNow();
        for (const w of writes) if (w.status !== undefined) w.overwrite();
        await s.reactor.sleep(5);
      }
      expect(ended).toBeLessThan(count);
      io.stream.unblock();
      await s.until("all end", () => endedNow() === count);
      expect(writes.every((w) => w.status === IoStatus.DEVICE_IO)).toBe(true);
      // What arrived is what was written, not what the buffers held after their requests had ended.
      expect(s.target.hostData.length).toBeGreaterThan(0);
      const sent = (i: number, part: HostData) =>
        bytes[i]!.subarray(part.offset, part.offset + part.bytes.byteLength);
      for (const part of s.target.hostData) {
        const i = commands.findIndex((c) => c.cid === part.cid);
        expect([i, Buffer.compare(part.bytes, sent(i, part))]).toEqual([i, 0]);
      }
      for (const w of writes) w.free();
      await bdev.close();
    });
  });
});

describe("queueing", () => {
  test("no more than the queue's depth are sent; the rest follow in order", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open({ queueDepth: 8 });
      const held: FakeCommand[] = [];
      s.target.onCommand = (c) => {
        if (c.queueId < 1 || c.opcode !== 2) return false;
        held.push(c);
        return true;
      };
      const reads = Array.from({ length: 50 }, (_, i) => s.start(bdev, IoOp.READ, i * 512, 512));
      for (let served = 0; served < 50; served++) {
        const wanted = Math.min(50, served + 8);
        await s.until("the queue fills up", () => held.length === wanted);
        await s.reactor.sleep(0);
        expect(held.length).toBe(wanted);
        s.target.serve(held[served]!);
      }
      await s.until("all end", () => reads.every((r) => r.status === 0));
      expect(held.map((c) => c.dwords[0])).toEqual(held.map((_, i) => i));
      for (const r of reads) r.free();
      await bdev.close();
    });
  });

  test("command ids in flight differ, and an id is not soon used again", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open({ queueDepth: 1 });
      for (let i = 0; i < 70; i++) await s.run(bdev, IoOp.READ, 0, 512);
      const cids = s.target.ioCommands(2).map((c) => c.cid);
      expect(new Set(cids.slice(0, 60)).size).toBe(60);
      await bdev.close();
    });
  });

  test("requests are spread over the I/O queues", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open({}, "?queues=4");
      for (let i = 0; i < 40; i++) await s.run(bdev, IoOp.READ, i * 512, 512);
      const perQueue = [1, 2, 3, 4].map(
        (id) => s.target.ioCommands(2).filter((c) => c.queueId === id).length,
      );
      expect(perQueue).toEqual([10, 10, 10, 10]);
      await bdev.close();
    });
  });
});

describe("other commands", () => {
  const FUA = 0x40000000;
  const DEAC = 0x02000000;

  test("FUA, flush, and flush as a formality without a volatile cache", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open();
      await s.run(bdev, IoOp.WRITE, 0, pattern(512, 1), IoFlag.FUA);
      await s.run(bdev, IoOp.WRITE, 0, pattern(512, 1));
      expect(s.target.ioCommands(1).map((c) => c.dwords[2])).toEqual([FUA, 0]);
      expect((await s.run(bdev, IoOp.FLUSH, 0, 0)).status).toBe(IoStatus.OK);
      expect(s.target.ioCommands(0).length).toBe(1);
      await bdev.close();
      s.target.facts.vwc = 0;
      const durable = await s.open();
      expect(durable.volatileCache).toBe(false);
      expect((await s.run(durable, IoOp.FLUSH, 0, 0)).status).toBe(IoStatus.OK);
      expect(s.target.ioCommands(0).length).toBe(1);
      await durable.close();
    });
  });

  test("addresses beyond 2^32 blocks", () => {
    withFakeTarget(async (s) => {
      s.target.facts.blockCount = 2 ** 33;
      s.target.onCommand = (c) => {
        if (c.queueId < 1) return false;
        if (c.opcode === 2) c.connection.sendData(c.cid, 0, new Uint8Array(512), 12);
        else c.connection.respond(c.cid);
        return true;
      };
      const bdev = await s.open();
      const block = 2 ** 32 + 5;
      expect((await s.run(bdev, IoOp.READ, block * 512, 512)).status).toBe(IoStatus.OK);
      expect(s.target.ioCommands(2)[0]!.dwords.slice(0, 2)).toEqual([5, 1]);
      expect((await s.run(bdev, IoOp.DISCARD, block * 512, 512)).status).toBe(IoStatus.OK);
      const range = new DataView(s.target.ioCommands(9)[0]!.data.buffer);
      expect(range.getBigUint64(8, true)).toBe(BigInt(block));
      await bdev.close();
    });
  });

  test("Write Zeroes in pieces of 65,536 blocks, with FUA and deallocation", () => {
    withFakeTarget(async (s) => {
      s.target.facts.blockCount = 1 << 20;
      s.target.onCommand = (c) => {
        if (c.queueId < 1) return false;
        c.connection.respond(c.cid);
        return true;
      };
      const bdev = await s.open();
      const blocks = 65536 * 2 + 100;
      const flags = IoFlag.UNMAP | IoFlag.FUA;
      const done = await s.run(bdev, IoOp.WRITE_ZEROES, 512, blocks * 512, flags);
      expect(done.status).toBe(IoStatus.OK);
      const sent = s.target.ioCommands(8).map((c) => [c.dwords[0], c.dwords[2]]);
      const bits = FUA | DEAC;
      expect(sent).toEqual([
        [1, (bits | 0xffff) >>> 0],
        [65537, (bits | 0xffff) >>> 0],
        [131073, (bits | 99) >>> 0],
      ]);
      await bdev.close();
    });
  });

  test("Write Zeroes keeps to WZSL, and does not deallocate where that is not offered", () => {
    withFakeTarget(async (s) => {
      s.target.facts.wzsl = 5; // 128 KiB
      s.target.facts.dlfeat = 1;
      const bdev = await s.open();
      await s.run(bdev, IoOp.WRITE, 0, pattern(1024 * KIB, 3));
      const done = await s.run(bdev, IoOp.WRITE_ZEROES, 0, 512 * KIB, IoFlag.UNMAP);
      expect(done.status).toBe(IoStatus.OK);
      expect(s.target.ioCommands(8).map((c) => c.dwords[2])).toEqual([255, 255, 255, 255]);
      expect(s.target.memory.subarray(0, 512 * KIB).every((b) => b === 0)).toBe(true);
      const rest = pattern(1024 * KIB, 3).subarray(512 * KIB);
      expect(Buffer.compare(s.target.memory.subarray(512 * KIB, 1024 * KIB), rest)).toBe(0);
      await bdev.close();
    });
  });

  test("zeroes are written where Write Zeroes is not supported", () => {
    withFakeTarget(async (s) => {
      s.target.facts.oncs = 0x04;
      const bdev = await s.open();
      const all = pattern(1024 * KIB, 4);
      await s.run(bdev, IoOp.WRITE, 0, all);
      const done = await s.run(bdev, IoOp.WRITE_ZEROES, 512, 150 * KIB, IoFlag.FUA);
      expect(done.status).toBe(IoStatus.OK);
      expect(s.target.ioCommands(8).length).toBe(0);
      all.fill(0, 512, 512 + 150 * KIB);
      expect(Buffer.compare(s.target.memory.subarray(0, 1024 * KIB), all)).toBe(0);
      const zeroing = s.target.ioCommands(1).slice(1);
      expect(zeroing.every((c) => (c.dwords[2]! & FUA) !== 0)).toBe(true);
      await bdev.close();
    });
  });

  test("discards as Dataset Management, in pieces; a formality where that is not supported", () => {
    withFakeTarget(async (s) => {
      s.target.facts.blockCount = 2 ** 23; // 4 GiB
      const bdev = await s.open();
      const length = 2 ** 31 + 4096;
      expect((await s.run(bdev, IoOp.DISCARD, 1024, length)).status).toBe(IoStatus.OK);
      const ranges = s.target.ioCommands(9).map((c) => {
        const view = new DataView(c.data.buffer);
        expect([c.data.byteLength, c.dwords[0], c.dwords[1]]).toEqual([16, 0, 4]);
        return [Number(view.getBigUint64(8, true)), view.getUint32(4, true)];
      });
      expect(ranges).toEqual([
        [2, 2 ** 21],
        [2 + 2 ** 21, 2 ** 21],
        [2 + 2 ** 22, 8],
      ]);
      await bdev.close();
      s.target.facts.dmrsl = 1000;
      const limited = await s.open();
      s.target.commands.length = 0;
      expect((await s.run(limited, IoOp.DISCARD, 0, 2500 * 512)).status).toBe(IoStatus.OK);
      expect(s.target.ioCommands(9).length).toBe(3);
      await limited.close();
      s.target.facts.oncs = 0x08;
      const without = await s.open();
      s.target.commands.length = 0;
      expect((await s.run(without, IoOp.DISCARD, 0, 4096)).status).toBe(IoStatus.OK);
      expect(s.target.ioCommands(9).length).toBe(0);
      await without.close();
    });
  });

  test("hundreds of discards at once", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open();
      const all = Array.from({ length: 700 }, (_, i) => s.start(bdev, IoOp.DISCARD, i * 512, 512));
      await s.until("all end", () => all.every((d) => d.status === IoStatus.OK));
      const lbas = s.target
        .ioCommands(9)
        .map((c) => new DataView(c.data.buffer).getUint32(8, true));
      expect(lbas).toEqual(Array.from({ length: 700 }, (_, i) => i));
      await bdev.close();
    });
  });
});
