import { describe, expect, test } from "bun:test";
import type { AllocationSource } from "../../../../src/engine/nbd/extents.ts";
import {
  GATHER_BYTES_MAX,
  PIECE_BYTES_MAX,
  WRITE_BYTES_MAX,
} from "../../../../src/engine/nbd/limits.ts";
import { CommandFlag, NbdCommand, NbdError } from "../../../../src/engine/nbd/protocol.ts";
import { nbdErrorOf } from "../../../../src/engine/nbd/requests.ts";
import { IoOp } from "../../../../src/engine/reactor/io-table.ts";
import { IoStatus } from "../../../../src/errors.ts";
import { encodeRequest, type NbdClient } from "../../../support/nbd-client.ts";
import { MEMORY_BYTES, type NbdFixture, withNbd } from "../../../support/nbd-fixture.ts";
import { Random } from "../../../support/random.ts";

const { READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS } = NbdCommand;
const random = new Random(1);

/** A client in the transmission phase of "volume". */
async function enter(nbd: NbdFixture, options: { structured?: boolean; context?: boolean } = {}) {
  const client = await nbd.connect();
  await client.enter("volume", options);
  return client;
}

/** The data of a read whatever the kind of reply; checks every chunk on the way. */
async function read(client: NbdClient, offset: number, length: number, structured: boolean) {
  if (!structured) return client.readSimple(offset, length);
  await client.request({ type: READ, offset, length, cookie: 77n });
  const out = new Uint8Array(length);
  let filled = 0;
  for (;;) {
    const chunk = await client.answer();
    if (chunk.kind !== "chunk" || chunk.type !== 1) throw new Error("not a chunk of data");
    expect(chunk.cookie).toBe(77n);
    const at = Number(chunk.payload.getBigUint64(0)) - offset;
    expect(at).toBe(filled);
    out.set(chunk.bytes.subarray(8), at);
    filled += chunk.bytes.byteLength - 8;
    if ((chunk.flags & 1) !== 0) break;
  }
  expect(filled).toBe(length);
  return out;
}

/** Byte for byte the same; `toEqual` takes seconds over megabytes. */
function expectSame(found: Uint8Array, expected: Uint8Array): void {
  expect(found.byteLength).toBe(expected.byteLength);
  expect(Buffer.compare(found, expected)).toBe(0);
}

/** Every kind of reply over devices that work at once and devices that take their time. */
const kinds = [
  [false, false],
  [false, true],
  [true, false],
  [true, true],
] as const;
const device = (nbd: NbdFixture, synchronous: boolean) =>
  synchronous ? nbd.memory("volume") : nbd.gated("volume");

describe.each(kinds)("structured replies %p, synchronous device %p:", (structured, synchronous) => {
  test.each([
    ["a block", 512],
    ["what is gathered into the send chunk", GATHER_BYTES_MAX],
    ["what is sent from where it lies", GATHER_BYTES_MAX + 512],
    ["more than a receive buffer", 600 << 10],
    ["what a device takes at once", PIECE_BYTES_MAX],
    ["a block more than a device takes at once", PIECE_BYTES_MAX + 512],
    ["many pieces", 5 * PIECE_BYTES_MAX + 1536],
  ])("writes and reads back %s", (_what, length) => {
    withNbd(async (nbd) => {
      device(nbd, synchronous);
      const client = await enter(nbd, { structured });
      const data = random.bytes(length);
      const offset = 3 * 512;
      expect(await client.errorOf({ type: WRITE, offset, data })).toBe(0);
      expectSame(await read(client, offset, length, structured), data);
      expect(await read(client, 0, offset, structured)).toEqual(new Uint8Array(offset));
      const after = await read(client, offset + length, 512, structured);
      expect(after).toEqual(new Uint8Array(512));
    });
  });

  test("answers many requests sent at once, each with its cookie", () => {
    withNbd(async (nbd) => {
      device(nbd, synchronous);
      const client = await enter(nbd, { structured });
      const blocks = Array.from({ length: 300 }, () => random.bytes(512));
      for (const [i, data] of blocks.entries()) {
        await client.request({ type: WRITE, offset: i * 512, data, cookie: BigInt(i) << 40n });
      }
      const seen = new Set<bigint>();
      for (const _ of blocks) {
        const answer = await client.answer();
        expect(answer).toMatchObject({ kind: "simple", error: 0 });
        seen.add(answer.cookie >> 40n);
      }
      expect(seen.size).toBe(300);
      const all = await read(client, 0, 300 * 512, structured);
      expect(all).toEqual(new Uint8Array(Buffer.concat(blocks)));
    });
  });

  test("zeroes, trims and flushes", () => {
    withNbd(async (nbd) => {
      device(nbd, synchronous);
      const client = await enter(nbd, { structured });
      await client.errorOf({ type: WRITE, data: new Uint8Array(8192).fill(9) });
      const fua = CommandFlag.FUA;
      const noHole = CommandFlag.NO_HOLE;
      const requests = [
        { type: WRITE_ZEROES, offset: 512, length: 512 },
        { type: WRITE_ZEROES, offset: 1024, length: 512, flags: noHole | fua },
        { type: TRIM, offset: 2048, length: 512 },
        { type: TRIM, offset: 4096, length: 512, flags: fua },
        { type: FLUSH },
        { type: FLUSH, flags: fua },
      ];
      for (const request of requests) expect(await client.errorOf(request)).toBe(0);
      const data = await read(client, 0, 8192, structured);
      const nines = (block: number) => data[block * 512] === 9;
      expect(Array.from({ length: 16 }, (_, block) => nines(block))).toEqual(
        Array.from({ length: 16 }, (_, block) => ![1, 2, 4, 8].includes(block)),
      );
    });
  });

  test("zeroes more than is given to a device at once", () => {
    withNbd(async (nbd) => {
      device(nbd, synchronous);
      const client = await enter(nbd, { structured });
      const end = 40 << 20;
      for (const offset of [0, 36 << 20, end]) {
        expect(await client.errorOf({ type: WRITE, offset, data: random.bytes(512) })).toBe(0);
      }
      const length = end - 512;
      expect(await client.errorOf({ type: WRITE_ZEROES, offset: 512, length })).toBe(0);
      expect(await read(client, 36 << 20, 512, structured)).toEqual(new Uint8Array(512));
      for (const offset of [0, end]) {
        expect(await read(client, offset, 512, structured)).not.toEqual(new Uint8Array(512));
      }
    });
  });

  test("refuses what it must and goes on", () => {
    withNbd(async (nbd) => {
      device(nbd, synchronous);
      const client = await enter(nbd, { structured });
      const end = MEMORY_BYTES;
      const data = new Uint8Array(1024);
      const df = structured ? [] : [[{ type: READ, length: 512, flags: CommandFlag.DF }, 22]];
      const cases = [
        [{ type: READ, offset: end, length: 512 }, 22],
        [{ type: READ, offset: end - 512, length: 1024 }, 22],
        [{ type: READ, offset: 2n ** 64n - 512n, length: 512 }, 22],
        [{ type: READ, offset: 1, length: 512 }, 22],
        [{ type: READ, offset: 0, length: 511 }, 22],
        [{ type: READ, offset: 0, length: 0 }, 22],
        [{ type: READ, length: 512, flags: CommandFlag.NO_HOLE }, 22],
        [{ type: WRITE, offset: end - 512, data }, 28],
        [{ type: WRITE, offset: 256, data }, 22],
        [{ type: WRITE, data: new Uint8Array(700) }, 22],
        [{ type: WRITE, offset: 0 }, 22],
        [{ type: WRITE, flags: 0x8000, data }, 22],
        [{ type: WRITE_ZEROES, offset: end, length: 512 }, 28],
        [{ type: WRITE_ZEROES, offset: 1, length: 512 }, 22],
        [{ type: TRIM, offset: end, length: 512 }, 22],
        [{ type: TRIM, offset: 0, length: 0 }, 22],
        [{ type: FLUSH, offset: 512 }, 22],
        [{ type: FLUSH, flags: CommandFlag.NO_HOLE }, 22],
        [{ type: CACHE, length: 512 }, 22],
        [{ type: BLOCK_STATUS, length: 512 }, 22],
        [{ type: 8, length: 512 }, 22],
        [{ type: 0xffff, length: 512 }, 22],
        ...df,
      ] as [Parameters<NbdClient["errorOf"]>[0], number][];
      for (const [request, error] of cases) {
        expect([request, await client.errorOf(request)]).toEqual([request, error]);
      }
      expect(await read(client, 0, 4096, structured)).toEqual(new Uint8Array(4096));
    });
  });

  test("drops the payload of refused writes, however long", () => {
    withNbd(async (nbd) => {
      device(nbd, synchronous);
      const client = await enter(nbd, { structured });
      // The payload looks like requests: taken for one, it would be answered.
      const trap = new Uint8Array(3 << 20).fill(0x25);
      expect(await client.errorOf({ type: WRITE, offset: 1, data: trap })).toBe(22);
      expect(await client.errorOf({ type: WRITE, offset: MEMORY_BYTES, data: trap })).toBe(28);
      expect(await client.errorOf({ type: FLUSH })).toBe(0);
    });
  });

  test("keeps a read-only export as it is", () => {
    withNbd(async (nbd) => {
      const options = { readOnly: true };
      if (synchronous) nbd.memory("volume", options);
      else nbd.gated("volume", options);
      const client = await enter(nbd, { structured });
      const data = new Uint8Array(2 << 20).fill(1);
      expect(await client.errorOf({ type: WRITE, data })).toBe(1);
      expect(await client.errorOf({ type: WRITE_ZEROES, length: 512 })).toBe(1);
      expect(await client.errorOf({ type: TRIM, length: 512 })).toBe(1);
      expect(await client.errorOf({ type: FLUSH })).toBe(0);
      expect(await read(client, 0, 512, structured)).toEqual(new Uint8Array(512));
    });
  });

  test("ends the connection on garbage and on a write that is far too long", () => {
    withNbd(async (nbd) => {
      device(nbd, synchronous);
      const good = await enter(nbd, { structured });
      const garbage = await enter(nbd, { structured });
      await garbage.send(new Uint8Array(28).fill(0x42));
      expect(await garbage.rest()).toEqual(new Uint8Array(0));
      const long = await enter(nbd, { structured });
      await long.request({ type: WRITE, length: 0x7fffffff });
      expect(await long.rest()).toEqual(new Uint8Array(0));
      const longInside = await enter(nbd, { structured });
      await longInside.request({ type: WRITE, length: WRITE_BYTES_MAX + 512 });
      expect(await longInside.rest()).toEqual(new Uint8Array(0));
      const longBad = await enter(nbd, { structured });
      await longBad.request({ type: WRITE, offset: 1, length: 0xffffffff });
      expect(await longBad.rest()).toEqual(new Uint8Array(0));
      expect(await good.errorOf({ type: FLUSH })).toBe(0);
    });
  });

  test("carries out what came before DISC, answers it, and ends the connection", () => {
    withNbd(async (nbd) => {
      device(nbd, synchronous);
      const client = await enter(nbd, { structured });
      const data = random.bytes(4096);
      await client.request({ type: WRITE, offset: 0, data, cookie: 1n });
      await client.request({ type: WRITE, offset: 4096, data, cookie: 2n });
      await client.request({ type: DISC });
      const cookies = [(await client.answer()).cookie, (await client.answer()).cookie];
      expect(cookies.sort()).toEqual([1n, 2n]);
      expect(await client.rest()).toEqual(new Uint8Array(0));
      const again = await enter(nbd, { structured });
      expect(await read(again, 4096, 4096, structured)).toEqual(data);
    });
  });

  test("takes a request in single bytes", () => {
    withNbd(async (nbd) => {
      device(nbd, synchronous);
      const client = await enter(nbd, { structured });
      const data = random.bytes(512);
      for (const byte of encodeRequest({ type: WRITE, offset: 512, data })) {
        await client.send(Uint8Array.of(byte));
      }
      expect(await client.answer()).toMatchObject({ error: 0 });
      expect(await read(client, 512, 512, structured)).toEqual(data);
    });
  });
});

describe("what reaches the device", () => {
  test("FUA, holes and flushes as they were asked for", () => {
    withNbd(async (nbd) => {
      const bdev = nbd.gated("volume");
      const client = await enter(nbd);
      const data = new Uint8Array(512);
      const { FUA, NO_HOLE } = CommandFlag;
      await client.errorOf({ type: WRITE, data });
      await client.errorOf({ type: WRITE, data, flags: FUA });
      await client.errorOf({ type: WRITE_ZEROES, length: 512 });
      await client.errorOf({ type: WRITE_ZEROES, length: 512, flags: NO_HOLE | FUA });
      await client.errorOf({ type: TRIM, length: 512 });
      await client.errorOf({ type: TRIM, length: 512, flags: FUA });
      await client.errorOf({ type: FLUSH });
      await client.request({ type: READ, length: 512, flags: FUA });
      await client.answer();
      const seen = bdev.seen.map(({ op, fua, unmap }) => [op, fua, unmap]);
      expect(seen).toEqual([
        ["write", false, false],
        ["write", true, false],
        ["write-zeroes", false, true],
        ["write-zeroes", true, false],
        ["discard", false, false],
        ["discard", false, false],
        ["flush", false, false],
        ["flush", false, false],
        ["read", false, false],
      ]);
    });
  });

  test("a long range comes in pieces, one flush at its end", () => {
    withNbd(async (nbd) => {
      const bdev = nbd.gated("volume");
      const client = await enter(nbd);
      const length = (100 << 20) + 512;
      await client.errorOf({ type: TRIM, offset: 512, length, flags: CommandFlag.FUA });
      const seen = bdev.seen.map(({ op, offset, length }) => [op, offset, length]);
      expect(seen).toEqual([
        ["discard", 512, 32 << 20],
        ["discard", 512 + (32 << 20), 32 << 20],
        ["discard", 512 + (64 << 20), 32 << 20],
        ["discard", 512 + (96 << 20), (4 << 20) + 512],
        ["flush", 0, 0],
      ]);
    });
  });

  test("fast zeroes only where zeroing is fast", () => {
    withNbd(async (nbd) => {
      nbd.gated("volume", { fastZeroes: false });
      const slow = await enter(nbd);
      const request = { type: WRITE_ZEROES, length: 512, flags: CommandFlag.FAST_ZERO };
      expect(await slow.errorOf(request)).toBe(NbdError.ENOTSUP);
      await nbd.server.removeExport("volume");
      nbd.memory("volume");
      const fast = await enter(nbd);
      expect(await fast.errorOf(request)).toBe(0);
    });
  });

  test("answers may overtake each other", () => {
    withNbd(async (nbd) => {
      const bdev = nbd.gated("volume");
      bdev.gate = true;
      const client = await enter(nbd);
      for (const cookie of [1n, 2n, 3n]) await client.request({ type: FLUSH, cookie });
      await bdev.came(3);
      for (const [index, cookie] of [
        [1, 2n],
        [1, 3n],
        [0, 1n],
      ] as const) {
        bdev.pass(index);
        expect(await client.answer()).toEqual({ kind: "simple", error: 0, cookie });
      }
    });
  });
});

describe("errors of the device", () => {
  const statuses = Object.entries(IoStatus).filter(([, status]) => status !== 0);

  test("become what the protocol has for them", () => {
    const errors = Object.fromEntries(statuses.map(([n, s]) => [n, nbdErrorOf(IoOp.WRITE, s)]));
    expect(errors).toEqual({
      DEVICE_IO: NbdError.EIO,
      NO_SPACE: NbdError.ENOSPC,
      OUT_OF_RANGE: NbdError.EINVAL,
      INVALID: NbdError.EINVAL,
      UNSUPPORTED: NbdError.EINVAL,
      TIMEOUT: NbdError.EIO,
      DEVICE_GONE: NbdError.EIO,
      RESERVATION_CONFLICT: NbdError.EPERM,
      ABORTED: NbdError.EIO,
      MISCOMPARE: NbdError.EIO,
      CORRUPTED: NbdError.EIO,
      SUPERSEDED: NbdError.ESHUTDOWN,
      UNAVAILABLE: NbdError.EIO,
    });
    expect(nbdErrorOf(IoOp.DISCARD, IoStatus.UNSUPPORTED)).toBe(0);
  });

  test.each([false, true])("are told, structured replies %p", (structured) => {
    withNbd(async (nbd) => {
      const bdev = nbd.gated("volume");
      const client = await enter(nbd, { structured });
      for (const request of [
        { type: READ, length: 512 },
        { type: READ, length: 64 << 10 },
        { type: READ, length: 3 << 20 },
        { type: WRITE, data: new Uint8Array(512) },
        { type: WRITE, data: new Uint8Array(3 << 20) },
        { type: FLUSH },
        { type: TRIM, length: 512, flags: CommandFlag.FUA },
        { type: TRIM, length: 40 << 20 },
        { type: WRITE_ZEROES, length: 512 },
      ]) {
        bdev.failures.push(IoStatus.DEVICE_IO);
        expect(await client.errorOf(request)).toBe(NbdError.EIO);
        expect(bdev.failures).toEqual([]);
      }
      expect(await client.errorOf({ type: FLUSH })).toBe(0);
    });
  });

  test("say what is the matter when there is a place for it", () => {
    withNbd(async (nbd) => {
      const bdev = nbd.gated("volume");
      const client = await enter(nbd, { structured: true });
      bdev.failures.push(IoStatus.SUPERSEDED);
      await client.request({ type: READ, length: 512 });
      const answer = await client.answer();
      if (answer.kind !== "chunk") throw new Error("a read is answered with chunks");
      expect([answer.flags, answer.type]).toEqual([1, 0x8001]);
      expect(answer.payload.getUint32(0)).toBe(NbdError.ESHUTDOWN);
      expect(new TextDecoder().decode(answer.bytes.subarray(6))).toContain("moved elsewhere");
    });
  });

  test("of the flush behind a trim are told", () => {
    withNbd(async (nbd) => {
      const bdev = nbd.gated("volume");
      bdev.gate = true;
      const client = await enter(nbd);
      await client.request({ type: TRIM, length: 512, flags: CommandFlag.FUA });
      await bdev.came(1);
      bdev.pass();
      await bdev.came(2);
      bdev.failures.push(IoStatus.DEVICE_IO);
      bdev.pass();
      expect(await client.answer()).toMatchObject({ error: NbdError.EIO });
    });
  });

  test("in the middle of a long structured read are told behind the data", () => {
    withNbd(async (nbd) => {
      const bdev = nbd.gated("volume");
      bdev.gate = true;
      const client = await enter(nbd, { structured: true });
      await client.request({ type: READ, length: 3 << 20 });
      await bdev.came(1);
      bdev.pass();
      expect(await client.answer()).toMatchObject({ type: 1, flags: 0 });
      await bdev.came(2);
      bdev.failures.push(IoStatus.DEVICE_IO);
      bdev.open();
      expect(await client.answer()).toMatchObject({ type: 0x8001, flags: 1 });
      expect(await client.errorOf({ type: FLUSH })).toBe(0);
    });
  });

  test("in the middle of a long simple read end the connection", () => {
    withNbd(async (nbd) => {
      const bdev = nbd.gated("volume");
      bdev.gate = true;
      const client = await enter(nbd);
      await client.request({ type: READ, length: 3 << 20 });
      await bdev.came(1);
      bdev.pass();
      expect(await client.answer()).toMatchObject({ error: 0 });
      await client.take(1 << 20);
      await bdev.came(2);
      bdev.failures.push(IoStatus.DEVICE_IO);
      bdev.open();
      expect(await client.rest()).toEqual(new Uint8Array(0));
    });
  });

  test("in a piece of a long write are told once all of it has ended", () => {
    withNbd(async (nbd) => {
      const bdev = nbd.gated("volume");
      bdev.gate = true;
      const client = await enter(nbd);
      await client.request({ type: WRITE, data: new Uint8Array(3 << 20) });
      await bdev.came(3);
      bdev.failures.push(IoStatus.OK, IoStatus.NO_SPACE, IoStatus.DEVICE_IO);
      bdev.open();
      expect(await client.answer()).toMatchObject({ error: NbdError.ENOSPC });
    });
  });
});

describe("long simple reads", () => {
  test("let nothing else between their pieces", () => {
    withNbd(async (nbd) => {
      const bdev = nbd.gated("volume");
      const client = await enter(nbd);
      const data = random.bytes(2 << 20);
      await client.errorOf({ type: WRITE, data });
      bdev.gate = true;
      const before = bdev.seen.length;
      await client.request({ type: FLUSH, cookie: 1n });
      await client.request({ type: READ, length: 2 << 20, cookie: 2n });
      // None of these may be looked at before the read is over: the second one is refused at once.
      await client.request({ type: FLUSH, cookie: 3n });
      await client.request({ type: READ, offset: 1, length: 512, cookie: 4n });
      await bdev.came(before + 2);
      bdev.pass(1); // The first piece of the read.
      await bdev.came(before + 3);
      bdev.pass(0); // The flush, whose answer has to wait.
      bdev.open();
      expect(await client.answer()).toMatchObject({ error: 0, cookie: 2n });
      expectSame(await client.take(2 << 20), data);
      expect(await client.answer()).toMatchObject({ error: 0, cookie: 1n });
      const answers = [await client.answer(), await client.answer()];
      expect(answers.map(({ cookie }) => cookie).sort()).toEqual([3n, 4n]);
    });
  });
});

describe("DF", () => {
  test("keeps an answer in one piece, and refuses what does not fit one", () => {
    withNbd(async (nbd) => {
      nbd.memory("volume");
      const client = await enter(nbd, { structured: true });
      await client.request({ type: READ, length: PIECE_BYTES_MAX, flags: CommandFlag.DF });
      const answer = await client.answer();
      expect(answer).toMatchObject({ type: 1, flags: 1 });
      const request = { type: READ, length: PIECE_BYTES_MAX + 512, flags: CommandFlag.DF };
      expect(await client.errorOf(request)).toBe(NbdError.EOVERFLOW);
    });
  });
});

describe("BLOCK_STATUS", () => {
  /** Every other 64 KiB is not allocated. */
  const stripes: AllocationSource = {
    runAt(offset, lengthMax) {
      const stripe = Math.floor(offset / 65536);
      const length = Math.min(lengthMax, (stripe + 1) * 65536 - offset);
      return stripe % 2 === 0 ? length : -length;
    },
  };

  async function extents(client: NbdClient, offset: number, length: number, flags = 0) {
    await client.request({ type: BLOCK_STATUS, offset, length, flags });
    const answer = await client.answer();
    if (answer.kind !== "chunk") throw new Error("not a chunk");
    expect([answer.type, answer.flags, answer.payload.getUint32(0)]).toEqual([5, 1, 1]);
    const out: number[] = [];
    for (let at = 4; at < answer.bytes.byteLength; at += 4) out.push(answer.payload.getUint32(at));
    return out;
  }

  test("tells holes from data", () => {
    withNbd(async (nbd) => {
      nbd.memory("volume", { allocation: stripes });
      const client = await enter(nbd, { structured: true, context: true });
      expect(await extents(client, 512, 131072)).toEqual([65024, 0, 65536, 3, 512, 0]);
      expect(await extents(client, 0, 131072, CommandFlag.REQ_ONE)).toEqual([65536, 0]);
      expect((await extents(client, 0, MEMORY_BYTES)).length).toBe(256);
      const beyond = { type: BLOCK_STATUS, offset: MEMORY_BYTES, length: 512 };
      expect(await client.errorOf(beyond)).toBe(NbdError.EINVAL);
    });
  });

  test("is one extent of data on devices that cannot tell", () => {
    withNbd(async (nbd) => {
      nbd.memory("volume");
      const client = await enter(nbd, { structured: true, context: true });
      expect(await extents(client, 0, MEMORY_BYTES)).toEqual([MEMORY_BYTES, 0]);
    });
  });
});
