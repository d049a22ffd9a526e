import { describe, expect, test } from "bun:test";
import { IoStatus } from "../../../../src/errors.ts";
import { AnaState, IoOpcode, Status } from "../../../../src/nvme/constants.ts";
import { GatedBdev } from "../../../support/gated-bdev.ts";
import { pattern, type RawHost, sqe } from "../../../support/raw-host.ts";
import { withTarget } from "../../../support/target.ts";

const BLOCK = 512;
const BLOCKS = 16384;
const FUA = 1 << 30;
const DEAC = 1 << 25;

function read(io: RawHost, block: number, blocks: number) {
  return io.command(sqe(IoOpcode.READ, 1, [block, 0, blocks - 1]), { room: blocks * BLOCK });
}

function write(io: RawHost, block: number, data: Uint8Array, byR2t = false) {
  const blocks = data.byteLength / BLOCK;
  return io.command(sqe(IoOpcode.WRITE, 1, [block, 0, blocks - 1]), { data, byR2t });
}

/** Runs the body over a memory device, which is synchronous, and over one that is not. */
function overBoth(name: string, body: Parameters<typeof withTarget>[0]): void {
  test(`${name} (synchronous device)`, () => withTarget(body));
  test(`${name} (asynchronous device)`, () => {
    withTarget(body, { bdev: (reactor) => new GatedBdev(reactor, BLOCKS) });
  });
}

describe("reads and writes", () => {
  for (const [blocks, byR2t] of [
    [1, false],
    [8, false],
    [16, false],
    [8, true],
    [32, true],
    [64, true],
    [2048, true],
  ] as const) {
    overBoth(`${blocks} blocks, data ${byR2t ? "when asked for" : "in the capsule"}`, async (t) => {
      const { io } = await t.both();
      const data = pattern(blocks * BLOCK, blocks);
      expect((await write(io, 24, data, byR2t)).status).toBe(0);
      const back = await read(io, 24, blocks);
      expect(back.status).toBe(0);
      expect(Buffer.from(back.data).equals(Buffer.from(data))).toBe(true);
      expect((await read(io, 23, 1)).data.every((byte) => byte === 0)).toBe(true);
    });
  }

  overBoth("many at once come back with their own data", async (t) => {
    const { io } = await t.both();
    const all = Array.from({ length: 100 }, (_, i) => pattern((1 + (i % 40)) * BLOCK, i));
    const wrote = await Promise.all(all.map((data, i) => write(io, i * 64, data, i % 3 === 0)));
    expect(wrote.map((c) => c.status)).toEqual(all.map(() => 0));
    const back = await Promise.all(all.map((data, i) => read(io, i * 64, data.byteLength / BLOCK)));
    back.forEach(({ data }, i) => {
      expect(Buffer.from(data).equals(Buffer.from(all[i]!))).toBe(true);
    });
  });

  test("FUA reaches the device", () => {
    withTarget(
      async (t) => {
        const { io } = await t.both();
        const data = pattern(BLOCK, 1);
        await io.command(sqe(IoOpcode.WRITE, 1, [0, 0, FUA]), { data });
        await io.command(sqe(IoOpcode.WRITE, 1, [0, 0, FUA]), { data, byR2t: true });
        await io.command(sqe(IoOpcode.WRITE, 1, [0, 0, 0]), { data });
        await io.command(sqe(IoOpcode.WRITE_ZEROES, 1, [0, 0, FUA]), {});
        const { seen } = t.bdev as GatedBdev;
        expect(seen.map(({ op, fua }) => [op, fua])).toEqual([
          ["write", true],
          ["write", true],
          ["write", false],
          ["write-zeroes", true],
        ]);
      },
      { bdev: (reactor) => new GatedBdev(reactor, BLOCKS) },
    );
  });

  test("errors of the device become NVMe statuses", () => {
    withTarget(
      async (t) => {
        const { io } = await t.both();
        const bdev = t.bdev as GatedBdev;
        const cases: readonly (readonly ["read" | "write", number, number, boolean])[] = [
          ["read", IoStatus.DEVICE_IO, Status.UNRECOVERED_READ_ERROR, false],
          ["write", IoStatus.DEVICE_IO, Status.WRITE_FAULT, false],
          ["write", IoStatus.NO_SPACE, Status.CAPACITY_EXCEEDED, true],
          ["read", IoStatus.DEVICE_GONE, Status.NAMESPACE_NOT_READY, false],
          ["write", IoStatus.RESERVATION_CONFLICT, Status.RESERVATION_CONFLICT, false],
          ["write", IoStatus.SUPERSEDED, Status.INTERNAL_PATH_ERROR, false],
          ["read", IoStatus.UNAVAILABLE, Status.INTERNAL_PATH_ERROR, false],
        ];
        for (const [op, failure, status, dnr] of cases) {
          bdev.failures.push(failure);
          const { status: got, dnr: gotDnr } = await (op === "read"
            ? read(io, 0, 1)
            : write(io, 0, pattern(BLOCK, 0)));
          expect([op, failure, got, gotDnr]).toEqual([op, failure, status, dnr]);
        }
        expect((await read(io, 0, 1)).status).toBe(0);
      },
      { bdev: (reactor) => new GatedBdev(reactor, BLOCKS) },
    );
  });
});

describe("a command that is refused", () => {
  const cases: readonly (readonly [string, number, readonly number[], number, number])[] = [
    ["reads behind the end", IoOpcode.READ, [BLOCKS, 0, 0], BLOCK, Status.LBA_OUT_OF_RANGE],
    ["reads across the end", IoOpcode.READ, [BLOCKS - 1, 0, 1], 1024, Status.LBA_OUT_OF_RANGE],
    ["reads at 2^63", IoOpcode.READ, [0, 0x80000000, 0], BLOCK, Status.LBA_OUT_OF_RANGE],
    ["reads at 2^64 - 1", IoOpcode.READ, [-1, -1, 0xffff], BLOCK, Status.INVALID_FIELD],
    ["reads one block at 2^64 - 1", IoOpcode.READ, [-1, -1, 0], BLOCK, Status.LBA_OUT_OF_RANGE],
    ["has a longer buffer", IoOpcode.READ, [0, 0, 0], 1024, Status.DATA_SGL_LENGTH_INVALID],
    ["has a shorter buffer", IoOpcode.READ, [0, 0, 7], 1024, Status.DATA_SGL_LENGTH_INVALID],
    ["has no buffer", IoOpcode.READ, [0, 0, 7], 0, Status.DATA_SGL_LENGTH_INVALID],
    ["reads more than MDTS", IoOpcode.READ, [0, 0, 2048], 2049 * BLOCK, Status.INVALID_FIELD],
    ["has an unknown opcode", 0x7e, [], 0, Status.INVALID_OPCODE],
    ["has an opcode of Copy", IoOpcode.COPY, [], 0, Status.INVALID_OPCODE],
    ["is of Fabrics", 0x7f, [], 0, Status.INVALID_OPCODE],
    ["is vendor specific without a hook", 0xc0, [], 0, Status.INVALID_OPCODE],
    ["zeroes behind the end", IoOpcode.WRITE_ZEROES, [1, 0, 0xffff], 0, Status.LBA_OUT_OF_RANGE],
    ["verifies behind the end", IoOpcode.VERIFY, [BLOCKS, 0, 0], 0, Status.LBA_OUT_OF_RANGE],
    ["verifies more than MDTS", IoOpcode.VERIFY, [0, 0, 2048], 0, Status.INVALID_FIELD],
  ];
  for (const [what, opcode, dwords, room, status] of cases) {
    test(`because it ${what}`, () => {
      withTarget(async (t) => {
        const { io } = await t.both();
        const completion = await io.command(sqe(opcode, 1, dwords), { room });
        expect([completion.status, completion.dnr]).toEqual([status, true]);
        expect((await read(io, 0, 1)).status).toBe(0);
      });
    });
  }

  for (const nsid of [0, 2, 0xfffffffe, 0xffffffff]) {
    test(`because of namespace ${nsid}`, () => {
      withTarget(async (t) => {
        const { io } = await t.both();
        const { status } = await io.command(sqe(IoOpcode.READ, nsid, [0, 0, 0]), { room: BLOCK });
        expect(status).toBe(Status.INVALID_NAMESPACE);
        const flush = await io.command(sqe(IoOpcode.FLUSH, nsid));
        expect(flush.status).toBe(nsid === 0xffffffff ? 0 : Status.INVALID_NAMESPACE);
      });
    });
  }

  test("because of how its data is described", () => {
    withTarget(async (t) => {
      const { io } = await t.both();
      const data = pattern(BLOCK, 1);
      const writeEntry = () => io.entry(sqe(IoOpcode.WRITE, 1, [0, 0, 0]), { data });
      // Data in the capsule, announced as data to be asked for.
      let words = writeEntry();
      const bytes = new Uint8Array(words.buffer);
      bytes[39] = 0x5a;
      await io.send(io.capsule(words, data));
      const response = (await io.nextPdu())!;
      expect(response.view.getUint16(22, true) >>> 1).toBe(
        Status.SGL_DESCRIPTOR_TYPE_INVALID | 0x4000,
      );
      // An offset into the capsule, a length that is not that of the data, a PRP.
      words = writeEntry();
      words[6] = 4;
      expect((await io.commandAs(words, { data })).status).toBe(Status.SGL_OFFSET_INVALID);
      words = writeEntry();
      words[8] = 0xffffffff | 0;
      expect((await io.commandAs(words, { data })).status).toBe(Status.DATA_SGL_LENGTH_INVALID);
      words = writeEntry();
      words[0] = words[0]! & ~0xff00;
      expect((await io.commandAs(words, { data })).status).toBe(Status.INVALID_FIELD);
      // A fused command.
      words = writeEntry();
      words[0] = words[0]! | 0x100;
      expect((await io.commandAs(words, { data })).status).toBe(Status.INVALID_FIELD);
      // A keyed descriptor on a read.
      words = io.entry(sqe(IoOpcode.READ, 1, [0, 0, 0]), { room: BLOCK });
      new Uint8Array(words.buffer)[39] = 0x40;
      expect((await io.commandAs(words)).status).toBe(Status.SGL_DESCRIPTOR_TYPE_INVALID);
      expect((await read(io, 0, 1)).data.every((byte) => byte === 0)).toBe(true);
    });
  });

  test("because the group is not accessible, in the words of its state", () => {
    withTarget(async (t) => {
      const { io } = await t.both();
      for (const [state, status] of [
        [AnaState.INACCESSIBLE, Status.ANA_INACCESSIBLE],
        [AnaState.PERSISTENT_LOSS, Status.ANA_PERSISTENT_LOSS],
        [AnaState.CHANGE, Status.ANA_TRANSITION],
        [AnaState.NON_OPTIMIZED, 0],
      ] as const) {
        t.subsystem.setAnaState(state);
        const completions = [
          await read(io, 0, 1),
          await write(io, 0, pattern(BLOCK, 1)),
          await io.command(sqe(IoOpcode.FLUSH, 1)),
          await io.command(sqe(IoOpcode.WRITE_ZEROES, 1, [0, 0, 0])),
          await io.command(sqe(IoOpcode.RESERVATION_REPORT, 1, [15, 1]), { room: 64 }),
        ];
        expect(completions.map((c) => [c.status, c.dnr])).toEqual(
          completions.map(() => [status, false]),
        );
      }
    });
  });
});

describe("other commands", () => {
  overBoth("flush", async (t) => {
    const { io } = await t.both();
    expect((await io.command(sqe(IoOpcode.FLUSH, 1))).status).toBe(0);
    expect((await io.command(sqe(IoOpcode.FLUSH, 0xffffffff))).status).toBe(0);
  });

  overBoth("write zeroes", async (t) => {
    const { io } = await t.both();
    await write(io, 0, pattern(64 * BLOCK, 5), true);
    expect((await io.command(sqe(IoOpcode.WRITE_ZEROES, 1, [1, 0, 61]))).status).toBe(0);
    const { data } = await read(io, 0, 64);
    const expected = pattern(64 * BLOCK, 5).fill(0, BLOCK, 63 * BLOCK);
    expect(Buffer.from(data).equals(Buffer.from(expected))).toBe(true);
  });

  test("write zeroes may deallocate", () => {
    withTarget(
      async (t) => {
        const { io } = await t.both();
        await io.command(sqe(IoOpcode.WRITE_ZEROES, 1, [0, 0, DEAC | 7]));
        await io.command(sqe(IoOpcode.WRITE_ZEROES, 1, [0, 0, 7]));
        const { seen } = t.bdev as GatedBdev;
        expect(seen.map(({ length, unmap }) => [length, unmap])).toEqual([
          [4096, true],
          [4096, false],
        ]);
      },
      { bdev: (reactor) => new GatedBdev(reactor, BLOCKS) },
    );
  });

  function ranges(list: readonly (readonly [number, number])[]): Uint8Array {
    const words = new Uint32Array(list.length * 4);
    list.forEach(([block, blocks], i) => {
      words.set([0, blocks, block, 0], i * 4);
    });
    return new Uint8Array(words.buffer);
  }

  overBoth("dataset management deallocates up to 256 ranges", async (t) => {
    const { io } = await t.both();
    await write(io, 0, pattern(1024 * BLOCK, 9), true);
    const list = Array.from({ length: 256 }, (_, i) => [i * 4, i % 3] as const);
    const data = ranges(list);
    const { status } = await io.command(sqe(IoOpcode.DATASET_MANAGEMENT, 1, [255, 4]), { data });
    expect(status).toBe(0);
    const expected = pattern(1024 * BLOCK, 9);
    for (const [block, blocks] of list) expected.fill(0, block * BLOCK, (block + blocks) * BLOCK);
    const back = await read(io, 0, 1024);
    expect(Buffer.from(back.data).equals(Buffer.from(expected))).toBe(true);
  });

  test("dataset management checks every range first, and ignores other attributes", () => {
    withTarget(async (t) => {
      const { io } = await t.both();
      await write(io, 0, pattern(BLOCK, 9));
      const dsm = (data: Uint8Array, last: number, attributes: number) =>
        io.command(sqe(IoOpcode.DATASET_MANAGEMENT, 1, [last, attributes]), { data });
      const good = [0, 1] as const;
      expect((await dsm(ranges([good, [BLOCKS, 1]]), 1, 4)).status).toBe(Status.LBA_OUT_OF_RANGE);
      expect((await dsm(ranges([good, [1, 0xffffffff]]), 1, 4)).status).toBe(
        Status.LBA_OUT_OF_RANGE,
      );
      expect((await dsm(ranges([good]), 1, 4)).status).toBe(Status.DATA_SGL_LENGTH_INVALID);
      expect((await dsm(ranges([good]), 0, 3)).status).toBe(0);
      const none = await io.command(sqe(IoOpcode.DATASET_MANAGEMENT, 1, [0, 4]));
      expect(none.status).toBe(Status.DATA_SGL_LENGTH_INVALID);
      expect(Buffer.from((await read(io, 0, 1)).data).equals(Buffer.from(pattern(BLOCK, 9)))).toBe(
        true,
      );
      // Hosts may send more room than they use.
      const padded = new Uint8Array(4096);
      padded.set(ranges([good]));
      expect((await dsm(padded, 0, 4)).status).toBe(0);
      expect((await read(io, 0, 1)).data.every((byte) => byte === 0)).toBe(true);
    });
  });

  for (const blocks of [1, 16, 64, 2048]) {
    overBoth(`compare of ${blocks} blocks`, async (t) => {
      const { io } = await t.both();
      const data = pattern(blocks * BLOCK, 3);
      await write(io, 8, data, blocks > 16);
      const compare = (with_: Uint8Array) =>
        io.command(sqe(IoOpcode.COMPARE, 1, [8, 0, blocks - 1]), {
          data: with_,
          byR2t: blocks > 16,
        });
      expect((await compare(data)).status).toBe(0);
      const other = data.slice();
      other[other.length - 1]! ^= 1;
      const { status, dnr } = await compare(other);
      expect([status, dnr]).toEqual([Status.COMPARE_FAILURE, true]);
      const short = await io.command(sqe(IoOpcode.COMPARE, 1, [8, 0, blocks]), {
        data,
        byR2t: blocks > 16,
      });
      expect(short.status).not.toBe(0);
    });
  }

  overBoth("verify", async (t) => {
    const { io } = await t.both();
    expect((await io.command(sqe(IoOpcode.VERIFY, 1, [0, 0, 2047]))).status).toBe(0);
  });
});

describe("the submission queue head", () => {
  test("reaches a host that uses flow control in time", () => {
    withTarget(async (t) => {
      const { controllerId } = await t.admin();
      const io = await t.io(controllerId, 1, { entries: 8 });
      let silent = 0;
      let head = 1;
      for (let i = 0; i < 50; i++) {
        const { sqHead } = await read(io, 0, 1);
        head = (head + 1) % 8;
        if (sqHead === undefined) silent++;
        else {
          expect(sqHead).toBe(head);
          silent = 0;
        }
        expect(silent).toBeLessThan(7);
      }
    });
  });
});

describe("statistics", () => {
  test("count operations, bytes, errors", () => {
    withTarget(
      async (t) => {
        const { io } = await t.both();
        await write(io, 0, pattern(8 * BLOCK, 1));
        await read(io, 0, 4);
        (t.bdev as GatedBdev).failures.push(IoStatus.DEVICE_IO);
        await read(io, 0, 1);
        const { ops, bytes, errors } = t.subsystem.namespace.statistics;
        expect([ops[1], bytes[1], errors[1]]).toEqual([2, 5 * BLOCK, 1]);
        expect([ops[2], bytes[2], errors[2]]).toEqual([1, 8 * BLOCK, 0]);
      },
      { bdev: (reactor) => new GatedBdev(reactor, BLOCKS) },
    );
  });
});
