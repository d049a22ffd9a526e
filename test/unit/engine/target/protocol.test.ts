import { describe, expect, test } from "bun:test";
import { crc32cOf } from "../../../../ffi/index.ts";
import { IoOpcode, Status } from "../../../../src/nvme/constants.ts";
import { encodeIc, encodeTermReq, PduFlag, PduType, TermError } from "../../../../src/nvme/pdu.ts";
import { type Pdu, pattern, RawHost, type RawHostOptions, sqe } from "../../../support/raw-host.ts";
import { type TargetFixture, withTarget } from "../../../support/target.ts";

const BLOCK = 512;
const MIB = 1 << 20;

/** Bytes with some of them replaced. */
function changed(bytes: Uint8Array, at: number, ...values: readonly number[]): Uint8Array {
  const copy = bytes.slice();
  copy.set(values, at);
  return copy;
}

function words32(value: number): readonly number[] {
  return [value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24];
}

/** The termination request that must come, and the end of the connection behind it. */
async function terminated(
  host: RawHost,
): Promise<{ status: number; info: number; quoted: Uint8Array }> {
  let pdu: Pdu | null;
  do pdu = await host.nextPdu();
  while (pdu !== null && pdu.type !== PduType.C2H_TERM_REQ);
  if (pdu === null) throw new Error("no termination request");
  const { view, bytes } = pdu;
  expect([bytes[1], bytes[2], bytes[3]]).toEqual([0, 24, 0]);
  expect(await host.nextPdu()).toBeNull();
  return {
    status: view.getUint16(8, true),
    info: view.getUint32(10, true),
    quoted: bytes.subarray(24),
  };
}

/** A host that is connected and does nothing wrong: it must not notice. */
async function bystander(t: TargetFixture): Promise<() => Promise<void>> {
  const { io } = await t.both();
  return async () => {
    const { status } = await io.command(sqe(IoOpcode.READ, 1, [0, 0, 7]), { room: 4096 });
    expect(status).toBe(0);
  };
}

const request = encodeIc("request", {
  version: 0,
  dataAlign: 0,
  headerDigest: false,
  dataDigest: false,
  max: 0,
});

describe("a negotiation that breaks the rules ends the connection", () => {
  const cases: readonly (readonly [string, Uint8Array, number, number])[] = [
    ["version 1", changed(request, 8, 1), TermError.UNSUPPORTED_PARAMETER, 8],
    ["alignment 32", changed(request, 10, 32), TermError.INVALID_HEADER_FIELD, 10],
    ["header length 127", changed(request, 2, 127), TermError.INVALID_HEADER_FIELD, 2],
    ["length 124", changed(request, 4, 124), TermError.INVALID_HEADER_FIELD, 4],
    ["length 2^32 - 1", changed(request, 4, 255, 255, 255, 255), TermError.INVALID_HEADER_FIELD, 4],
    [
      "a command before it",
      changed(new Uint8Array(72), 0, 4, 0, 72, 0, 72),
      TermError.PDU_SEQUENCE,
      0,
    ],
    ["data before it", changed(new Uint8Array(28), 0, 6, 4, 24, 24, 28), TermError.PDU_SEQUENCE, 0],
    ["an answer instead", changed(request, 0, 1), TermError.INVALID_HEADER_FIELD, 0],
    ["an unknown type", changed(request, 0, 0x77), TermError.INVALID_HEADER_FIELD, 0],
  ];
  for (const [what, bytes, status, info] of cases) {
    test(what, () => {
      withTarget(async (t) => {
        const check = await bystander(t);
        const host = t.keep(await RawHost.socket(t.reactor, t.address));
        host.receive();
        await host.send(bytes);
        const end = await terminated(host);
        expect([end.status, end.info]).toEqual([status, info]);
        expect(Buffer.from(end.quoted).equals(Buffer.from(bytes.subarray(0, 128)))).toBe(true);
        await check();
      });
    });
  }

  test("a second one", () => {
    withTarget(async (t) => {
      const host = t.keep(await RawHost.negotiate(t.reactor, t.address));
      await host.send(request);
      expect((await terminated(host)).status).toBe(TermError.PDU_SEQUENCE);
    });
  });

  test("data before Connect", () => {
    withTarget(async (t) => {
      const host = t.keep(await RawHost.negotiate(t.reactor, t.address));
      await host.send(
        host.h2cData({ cid: 1, tag: 1, offset: 0, data: pattern(512, 1), last: true }),
      );
      expect((await terminated(host)).status).toBe(TermError.PDU_SEQUENCE);
    });
  });
});

describe("a command capsule that breaks the rules ends the connection", () => {
  const plain = (host: RawHost) => host.capsule(host.entry(sqe(IoOpcode.FLUSH, 1)));
  const loaded = (host: RawHost) =>
    host.capsule(
      host.entry(sqe(IoOpcode.WRITE, 1, [0, 0, 0]), { data: pattern(BLOCK, 1) }),
      pattern(BLOCK, 1),
    );
  const FIELD = TermError.INVALID_HEADER_FIELD;
  const cases: readonly (readonly [
    string,
    (host: RawHost) => Uint8Array,
    number,
    number,
    RawHostOptions?,
  ])[] = [
    ["header length 64", (h) => changed(plain(h), 2, 64), FIELD, 2],
    ["length 71", (h) => changed(plain(h), 4, 71), FIELD, 4],
    ["length 0", (h) => changed(plain(h), 4, 0), FIELD, 4],
    ["length 2^31", (h) => changed(plain(h), 4, 0, 0, 0, 128), FIELD, 4],
    ["length 1 MiB", (h) => changed(loaded(h), 4, ...words32(MIB)), FIELD, 4],
    ["data without an offset", (h) => changed(loaded(h), 3, 0), FIELD, 3],
    ["data inside the header", (h) => changed(loaded(h), 3, 68), FIELD, 3],
    ["data at an odd place", (h) => changed(loaded(h), 3, 73), FIELD, 3],
    ["data behind its end", (h) => changed(loaded(h).slice(0, 76), 3, 200, 76, 0, 0, 0), FIELD, 3],
    ["flags that do not exist", (h) => changed(plain(h), 1, 0x80), FIELD, 1],
    [
      "a digest that was not agreed on",
      (h) => changed(plain(h), 1, PduFlag.HEADER_DIGEST),
      FIELD,
      1,
    ],
    [
      "no flag for the header digest",
      (h) => changed(plain(h), 1, 0),
      FIELD,
      1,
      { headerDigest: true },
    ],
    [
      "no flag for the data digest",
      (h) => changed(loaded(h), 1, 0),
      FIELD,
      1,
      { dataDigest: true },
    ],
    ["a response from a host", (h) => changed(plain(h), 0, 5), FIELD, 0],
    ["an R2T from a host", (h) => changed(plain(h), 0, 9), FIELD, 0],
    ["a termination by a controller", (h) => changed(plain(h), 0, 3), FIELD, 0],
    ["type 8", (h) => changed(plain(h), 0, 8), FIELD, 0],
  ];
  for (const [what, make, status, info, options] of cases) {
    test(what, () => {
      withTarget(async (t) => {
        const check = await bystander(t);
        const { admin, io } = await t.both(options);
        await io.send(make(io));
        const end = await terminated(io);
        expect([end.status, end.info]).toEqual([status, info]);
        // The queue alone ends; its controller stays.
        expect((await admin.command(sqe(0x18, 0))).status).toBe(0);
        await check();
      });
    });
  }

  test("a wrong header digest, which is quoted", () => {
    withTarget(async (t) => {
      const { io } = await t.both({ headerDigest: true });
      const bytes = plain(io);
      bytes[20] = bytes[20]! ^ 1;
      await io.send(bytes);
      const end = await terminated(io);
      const found = new DataView(bytes.buffer).getUint32(72, true);
      expect([end.status, end.info]).toEqual([TermError.HEADER_DIGEST, found]);
    });
  });

  test("more commands than the queue has entries", () => {
    withTarget(async (t) => {
      const { controllerId } = await t.admin();
      const io = await t.io(controllerId, 1, { entries: 4, answersR2t: false });
      const payload = { data: pattern(16384, 1), byR2t: true };
      for (let i = 0; i < 5; i++) {
        const words = io.entry(sqe(IoOpcode.WRITE, 1, [0, 0, 31]), payload);
        await io.send(io.capsule(words));
      }
      expect((await terminated(io)).status).toBe(TermError.PDU_SEQUENCE);
    });
  });
});

describe("a data PDU that breaks the rules ends the connection", () => {
  interface Asked {
    readonly io: RawHost;
    readonly cid: number;
    readonly tag: number;
  }
  const data = pattern(16384, 1);
  const all = ({ io, cid, tag }: Asked) => io.h2cData({ cid, tag, offset: 0, data, last: true });
  const FIELD = TermError.INVALID_HEADER_FIELD;
  const cases: readonly (readonly [
    string,
    (asked: Asked) => Uint8Array,
    number,
    number,
    RawHostOptions?,
  ])[] = [
    ["another command id", (a) => changed(all(a), 8, 0xee, 0xee), FIELD, 8],
    ["another tag", (a) => changed(all(a), 10, ...words32(a.tag ^ 1).slice(0, 2)), FIELD, 10],
    ["tag 65535", (a) => changed(all(a), 10, 255, 255), FIELD, 10],
    ["an offset that leaves a gap", (a) => changed(all(a), 12, 0, 4), TermError.OUT_OF_RANGE, 12],
    ["an offset of 2^31", (a) => changed(all(a), 12, 0, 0, 0, 128), TermError.OUT_OF_RANGE, 12],
    [
      "more than was asked for",
      ({ io, cid, tag }) =>
        io.h2cData({ cid, tag, offset: 0, data: pattern(16388, 1), last: true }),
      TermError.OUT_OF_RANGE,
      12,
    ],
    [
      "more than MAXH2CDATA",
      (a) => changed(changed(all(a), 16, ...words32(MIB + 4)), 4, ...words32(24 + MIB + 4)),
      TermError.TRANSFER_LIMIT,
      16,
    ],
    ["a length of 2^31", (a) => changed(all(a), 16, 0, 0, 0, 128), TermError.TRANSFER_LIMIT, 16],
    ["a length of zero", (a) => changed(all(a), 16, 0, 0, 0, 0), FIELD, 16],
    ["an odd length", (a) => changed(all(a), 16, 1, 0, 0, 0), FIELD, 16],
    ["lengths that differ", (a) => changed(all(a), 4, 0, 1), FIELD, 4],
    ["header length 28", (a) => changed(all(a), 2, 28), FIELD, 2],
    ["data inside the header", (a) => changed(all(a), 3, 20), FIELD, 3],
    ["data at an odd place", (a) => changed(all(a), 3, 26), FIELD, 3],
    ["no end where it ends", (a) => changed(all(a), 1, 0), FIELD, 1],
    [
      "an end where it does not end",
      ({ io, cid, tag }) => io.h2cData({ cid, tag, offset: 0, data: pattern(4096, 1), last: true }),
      FIELD,
      1,
    ],
    ["flags that do not exist", (a) => changed(all(a), 1, 0x84), FIELD, 1],
    [
      "no flag for the digest",
      (a) => changed(all(a), 1, PduFlag.LAST),
      FIELD,
      1,
      { dataDigest: true },
    ],
  ];
  for (const [what, make, status, info, options] of cases) {
    test(what, () => {
      withTarget(async (t) => {
        const check = await bystander(t);
        const { io } = await t.both({ ...options, answersR2t: false });
        const payload = { data, byR2t: true };
        const words = io.entry(sqe(IoOpcode.WRITE, 1, [0, 0, 31]), payload);
        io.commandAs(words, payload).catch(() => {});
        const tag = (await io.nextPdu())!.view.getUint16(10, true);
        await io.send(make({ io, cid: words[0]! >>> 16, tag }));
        const end = await terminated(io);
        expect([end.status, end.info]).toEqual([status, info]);
        await check();
        expect(t.subsystem.namespace.statistics.ops[2]).toBe(0);
      });
    });
  }

  test("a tag of another connection", () => {
    withTarget(async (t) => {
      const { io, controllerId } = await t.both({ answersR2t: false });
      const other = await t.io(controllerId, 2);
      const payload = { data, byR2t: true };
      const words = io.entry(sqe(IoOpcode.WRITE, 1, [0, 0, 31]), payload);
      io.commandAs(words, payload).catch(() => {});
      const tag = (await io.nextPdu())!.view.getUint16(10, true);
      await other.send(other.h2cData({ cid: words[0]! >>> 16, tag, offset: 0, data, last: true }));
      const end = await terminated(other);
      expect([end.status, end.info]).toEqual([FIELD, 10]);
    });
  });

  test("a wrong header digest", () => {
    withTarget(async (t) => {
      const { io } = await t.both({ headerDigest: true, answersR2t: false });
      const payload = { data, byR2t: true };
      const words = io.entry(sqe(IoOpcode.WRITE, 1, [0, 0, 31]), payload);
      io.commandAs(words, payload).catch(() => {});
      const tag = (await io.nextPdu())!.view.getUint16(10, true);
      const pdu = io.h2cData({ cid: words[0]! >>> 16, tag, offset: 0, data, last: true });
      await io.send(changed(pdu, 24, pdu[24]! ^ 1));
      expect((await terminated(io)).status).toBe(TermError.HEADER_DIGEST);
    });
  });
});

describe("a termination by the host", () => {
  test("ends the connection without an answer", () => {
    withTarget(async (t) => {
      const check = await bystander(t);
      const { io } = await t.both();
      await io.send(encodeTermReq("host", TermError.PDU_SEQUENCE, 0, new Uint8Array(24)));
      expect(await io.nextPdu()).toBeNull();
      await check();
    });
  });
});

describe("nothing follows a termination request", () => {
  test("whatever ends meanwhile", () => {
    withTarget(async (t) => {
      const { io } = await t.both();
      const read = io.capsule(io.entry(sqe(IoOpcode.READ, 1, [0, 0, 2047]), { room: MIB }));
      const broken = changed(io.capsule(io.entry(sqe(IoOpcode.FLUSH, 1))), 2, 1);
      await io.send(Buffer.concat([read, read, broken, read, read]));
      expect((await terminated(io)).status).toBe(TermError.INVALID_HEADER_FIELD);
    });
  });
});

describe("digests", () => {
  const kinds: readonly RawHostOptions[] = [
    { headerDigest: true },
    { dataDigest: true },
    { headerDigest: true, dataDigest: true },
    { headerDigest: true, dataDigest: true, dataAlign: 31 },
    { dataAlign: 31 },
    { dataDigest: true, dataAlign: 15 },
    { headerDigest: true, dataAlign: 1 },
  ];
  for (const options of kinds) {
    const { headerDigest: h = false, dataDigest: d = false, dataAlign = 0 } = options;
    test(`header ${h}, data ${d}, alignment ${dataAlign}: both ways, in capsules and in data PDUs`, () => {
      for (const h2cDataBytes of [MIB, 4096]) {
        withTarget(
          async (t) => {
            const { io } = await t.both(options);
            for (const blocks of [1, 8, 16, 32, 33, 128, 2048]) {
              for (const byR2t of blocks > 16 ? [true] : [true, false]) {
                const data = pattern(blocks * BLOCK, blocks);
                const range = [7, 0, blocks - 1];
                const wrote = await io.command(sqe(IoOpcode.WRITE, 1, range), { data, byR2t });
                const read = await io.command(sqe(IoOpcode.READ, 1, range), {
                  room: data.byteLength,
                });
                expect([wrote.status, read.status]).toEqual([0, 0]);
                expect(Buffer.from(read.data).equals(Buffer.from(data))).toBe(true);
              }
            }
          },
          { target: { h2cDataBytes } },
        );
      }
    });
  }

  test("the data starts where the host wants it", () => {
    withTarget(async (t) => {
      const { io } = await t.both({ dataAlign: 31, headerDigest: true });
      const words = io.entry(sqe(IoOpcode.READ, 1, [0, 0, 0]), { room: BLOCK });
      // Not taken by a command, so that the PDU itself can be looked at.
      await io.send(io.capsule(words));
      const { bytes, view } = (await io.nextPdu())!;
      expect([bytes[2], bytes[3], view.getUint32(4, true)]).toEqual([24, 128, 128 + BLOCK]);
      expect(bytes.subarray(28, 128).every((byte) => byte === 0)).toBe(true);
    });
  });

  test("data in a capsule that was damaged is refused and not written, and may be sent again", () => {
    withTarget(async (t) => {
      const { io } = await t.both({ dataDigest: true });
      for (const opcode of [IoOpcode.WRITE, IoOpcode.DATASET_MANAGEMENT]) {
        const data = pattern(BLOCK, 1);
        const words = io.entry(sqe(opcode, 1, [0, 0, 0]), { data });
        const capsule = io.capsule(words, data);
        capsule[100] = capsule[100]! ^ 1;
        await io.send(capsule);
        const { view } = (await io.nextPdu())!;
        expect(view.getUint16(22, true) >>> 1).toBe(Status.TRANSIENT_TRANSPORT_ERROR);
      }
      expect(t.subsystem.namespace.statistics.ops[2]).toBe(0);
    });
  });

  test("a damaged data PDU fails its command, whichever it is", () => {
    for (const bad of [0, 1, 2, 3]) {
      withTarget(async (t) => {
        const { io } = await t.both({ dataDigest: true, answersR2t: false });
        const data = pattern(4 * 65536, 1);
        const payload = { data, byR2t: true };
        const words = io.entry(sqe(IoOpcode.WRITE, 1, [0, 0, 511]), payload);
        const written = io.commandAs(words, payload);
        const cid = words[0]! >>> 16;
        const tag = (await io.nextPdu())!.view.getUint16(10, true);
        for (let i = 0; i < 4; i++) {
          const offset = i * 65536;
          const part = data.slice(offset, offset + 65536);
          const pdu = io.h2cData({ cid, tag, offset, data: part, last: i === 3 });
          if (i === bad) pdu[pdu.length - 5] = pdu[pdu.length - 5]! ^ 1;
          await io.send(pdu);
        }
        expect((await written).status).toBe(Status.TRANSIENT_TRANSPORT_ERROR);
        expect(t.subsystem.namespace.statistics.ops[2]).toBe(0);
        // The slot is clean for the next command.
        const again = io.entry(sqe(IoOpcode.WRITE, 1, [0, 0, 511]), payload);
        const second = io.commandAs(again, payload);
        await io.answerR2t((await io.nextPdu())!, data);
        expect((await second).status).toBe(0);
      });
    }
  });

  test("are CRC-32C: the golden value of 32 zeroes", () => {
    expect(crc32cOf(new Uint8Array(32))).toBe(0x8a9136aa);
  });
});
