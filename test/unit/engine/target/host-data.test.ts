import { describe, expect, test } from "bun:test";
import { IoOp } from "../../../../src/engine/reactor/io-table.ts";
import { AdminOpcode, AnaState, IoOpcode, Status } from "../../../../src/nvme/constants.ts";
import { abortCommand } from "../../../../src/nvme/host-commands.ts";
import { PduType } from "../../../../src/nvme/pdu.ts";
import { GatedBdev } from "../../../support/gated-bdev.ts";
import {
  type Completion,
  type Payload,
  type Pdu,
  pattern,
  type RawHost,
  type RawHostOptions,
  sqe,
} from "../../../support/raw-host.ts";
import { type TargetFixture, withTarget } from "../../../support/target.ts";

const BLOCK = 512;
const BLOCKS = 16384;
const MIB = 1 << 20;
const manual: RawHostOptions = { answersR2t: false };
const gated = { bdev: (reactor: TargetFixture["reactor"]) => new GatedBdev(reactor, BLOCKS) };

/** Starts a write whose data is to be asked for; the R2T is answered by the test. */
function begin(
  io: RawHost,
  block: number,
  data: Uint8Array,
): { cid: number; done: Promise<Completion> } {
  const payload: Payload = { data, byR2t: true };
  const words = io.entry(sqe(IoOpcode.WRITE, 1, [block, 0, data.byteLength / BLOCK - 1]), payload);
  return { cid: words[0]! >>> 16, done: io.commandAs(words, payload) };
}

async function r2t(io: RawHost): Promise<Pdu> {
  const pdu = await io.nextPdu();
  if (pdu?.type !== PduType.R2T) throw new Error(`no R2T but ${pdu?.type}`);
  return pdu;
}

function read(io: RawHost, block: number, blocks: number): Promise<Completion> {
  return io.command(sqe(IoOpcode.READ, 1, [block, 0, blocks - 1]), { room: blocks * BLOCK });
}

describe("an R2T", () => {
  test("asks for all the data of its command, under a tag of its own", () => {
    withTarget(async (t) => {
      const { io } = await t.both(manual);
      const writes = [1, 2, 3].map((n) => ({
        data: pattern(n * 16384, n),
        ...begin(io, n * 64, pattern(n * 16384, n)),
      }));
      const asked = [await r2t(io), await r2t(io), await r2t(io)];
      expect(
        asked.map((pdu) => [
          pdu.view.getUint16(8, true),
          pdu.view.getUint32(12, true),
          pdu.view.getUint32(16, true),
        ]),
      ).toEqual(writes.map(({ cid, data }) => [cid, 0, data.byteLength]));
      expect(new Set(asked.map((pdu) => pdu.view.getUint16(10, true))).size).toBe(3);
      // Answered in another order than they were asked in.
      for (const i of [1, 2, 0]) {
        await io.answerR2t(asked[i]!, writes[i]!.data);
        expect((await writes[i]!.done).status).toBe(0);
      }
      for (const [i, { data }] of writes.entries()) {
        const back = await read(io, (i + 1) * 64, data.byteLength / BLOCK);
        expect(Buffer.from(back.data).equals(Buffer.from(data))).toBe(true);
      }
    });
  });

  test("is answered in pieces of at most MAXH2CDATA", () => {
    withTarget(
      async (t) => {
        const { io } = await t.both();
        const data = pattern(MIB, 3);
        const { done } = begin(io, 0, data);
        expect((await done).status).toBe(0);
        expect(Buffer.from((await read(io, 0, 2048)).data).equals(Buffer.from(data))).toBe(true);
      },
      { target: { h2cDataBytes: 4096 } },
    );
  });

  test("data that comes byte by byte, and other commands between its PDUs", () => {
    withTarget(async (t) => {
      const { io } = await t.both(manual);
      const data = pattern(16384, 8);
      const { cid, done } = begin(io, 0, data);
      const tag = (await r2t(io)).view.getUint16(10, true);
      for (let offset = 0; offset < data.byteLength; offset += 4096) {
        const last = offset + 4096 === data.byteLength;
        const pdu = io.h2cData({ cid, tag, offset, data: data.slice(offset, offset + 4096), last });
        // The header in two pieces, the first bytes of the data one by one, then the rest.
        for (const [from, to] of [
          [0, 10],
          [10, 24],
          [24, 25],
          [25, 27],
          [27, 1000],
          [1000, pdu.length],
        ] as const) {
          await io.send(pdu.slice(from, to));
          await t.reactor.sleep(0);
        }
        expect((await read(io, 100, 1)).status).toBe(0);
      }
      expect((await done).status).toBe(0);
      expect(Buffer.from((await read(io, 0, 32)).data).equals(Buffer.from(data))).toBe(true);
    });
  });

  test("the access is checked again when the data has come", () => {
    withTarget(async (t) => {
      const { io } = await t.both(manual);
      const data = pattern(16384, 1);
      const { done } = begin(io, 0, data);
      const asked = await r2t(io);
      t.subsystem.setAnaState(AnaState.INACCESSIBLE);
      await io.answerR2t(asked, data);
      expect((await done).status).toBe(Status.ANA_INACCESSIBLE);
      t.subsystem.setAnaState(AnaState.OPTIMIZED);
      expect((await read(io, 0, 1)).data.every((byte) => byte === 0)).toBe(true);
    });
  });

  test("commands with other data are asked for it, too", () => {
    withTarget(async (t) => {
      const { io, admin } = await t.both();
      const ranges = new Uint8Array(new Uint32Array([0, 1, 0, 0]).buffer);
      const dsm = sqe(IoOpcode.DATASET_MANAGEMENT, 1, [0, 4]);
      expect((await io.command(dsm, { data: ranges, byR2t: true })).status).toBe(0);
      const behaviour = pattern(512, 4);
      const set = sqe(AdminOpcode.SET_FEATURES, 0, [0x16]);
      expect((await admin.command(set, { data: behaviour, byR2t: true })).status).toBe(0);
      const get = await admin.command(sqe(AdminOpcode.GET_FEATURES, 0, [0x16]), { room: 512 });
      expect(Buffer.from(get.data).equals(Buffer.from(behaviour))).toBe(true);
    });
  });
});

describe("more data than there is memory for", () => {
  for (const [writes, bytes] of [
    [40, MIB],
    [100, 256 << 10],
    [127, 16 << 10],
  ] as const) {
    test(`${writes} writes of ${bytes >> 10} KiB at once all end`, () => {
      withTarget(async (t) => {
        const { io } = await t.both();
        const commands = Array.from({ length: writes }, (_, i) =>
          begin(io, (i % 8) * 2048, pattern(bytes, i)),
        );
        // Commands with their data in the capsule come between and behind them.
        const small = Array.from({ length: 8 }, (_, i) => {
          const data = pattern(4096, i);
          return io.command(sqe(IoOpcode.WRITE, 1, [16000, 0, 7]), { data });
        });
        const ended = await Promise.all([...commands.map((c) => c.done), ...small]);
        expect(ended.map((c) => c.status)).toEqual(ended.map(() => 0));
      });
    });
  }

  test("several connections with more than the whole memory each", () => {
    withTarget(async (t) => {
      const { controllerId } = await t.admin();
      const queues = await Promise.all([1, 2, 3].map((id) => t.io(controllerId, id)));
      const all = queues.flatMap((io, q) =>
        Array.from(
          { length: 40 },
          (_, i) => begin(io, ((q + i) % 8) * 2048, pattern(MIB, q + i)).done,
        ),
      );
      const reads = queues.flatMap((io) =>
        Array.from({ length: 20 }, (_, i) => read(io, (i % 8) * 2048, 2048)),
      );
      const ended = await Promise.all([...all, ...reads]);
      expect(ended.map((c) => c.status)).toEqual(ended.map(() => 0));
    });
  });

  test("commands without room are parked, and what waits for hosts stays within its share", () => {
    withTarget(async (t) => {
      const { io, controllerId } = await t.both(manual);
      const other = await t.io(controllerId, 2);
      const writes = Array.from({ length: 24 }, (_, i) => ({
        data: pattern(MIB, i),
        ...begin(io, 0, pattern(MIB, i)),
      }));
      // The last command of the queue is a read: when it is answered, all have been taken.
      expect((await read(io, 0, 1)).status).toBe(0);
      const asked = io.inbox.length;
      expect(asked).toBeGreaterThan(0);
      expect(asked).toBeLessThan(24);
      expect(t.target.hostData.bytes).toBe(asked * MIB);
      // Others are served meanwhile, by every way.
      expect(
        (await other.command(sqe(IoOpcode.WRITE, 1, [0, 0, 7]), { data: pattern(4096, 1) })).status,
      ).toBe(0);
      expect((await read(other, 0, 2048)).status).toBe(0);
      for (const { data, done } of writes) {
        await io.answerR2t(await r2t(io), data);
        expect((await done).status).toBe(0);
      }
      expect(t.target.hostData.bytes).toBe(0);
    });
  });

  test("commands without end do not keep a parked one waiting", () => {
    withTarget(async (t) => {
      const { io, controllerId } = await t.both(manual);
      const held = Array.from({ length: 20 }, (_, i) => begin(io, 0, pattern(MIB, i)));
      expect((await read(io, 0, 1)).status).toBe(0);
      const asked = io.inbox.splice(0);
      expect(asked.length).toBeLessThan(20);
      const parked = held[asked.length]!;
      const busy = await t.io(controllerId, 2);
      let isOver = false;
      const load = (async () => {
        while (!isOver) await read(busy, 0, 8);
      })();
      await io.answerR2t(asked[0]!, pattern(MIB, 0));
      const next = await r2t(io);
      expect(next.view.getUint16(8, true)).toBe(parked.cid);
      isOver = true;
      await load;
    });
  });
});

describe("Abort", () => {
  /** Sends Abort; true when the command was aborted. */
  async function abort(admin: RawHost, queueId: number, cid: number): Promise<boolean> {
    const { status, dword0 } = await admin.command(abortCommand(queueId, cid));
    expect(status).toBe(0);
    return (dword0 & 1) === 0;
  }

  test("ends a write that waits for its data, whose data may still come", () => {
    withTarget(async (t) => {
      const { admin, io } = await t.both(manual);
      const data = pattern(16384, 7);
      const { cid, done } = begin(io, 0, data);
      const asked = await r2t(io);
      expect(await abort(admin, 1, cid)).toBe(true);
      expect((await done).status).toBe(Status.ABORT_REQUESTED);
      expect(t.target.hostData.bytes).toBe(0);
      await io.answerR2t(asked, data);
      expect((await read(io, 0, 1)).data.every((byte) => byte === 0)).toBe(true);
      await t.until(() => t.reactor.io.free === t.reactor.io.capacity);
    });
  });

  test("while its data is on the way", () => {
    withTarget(async (t) => {
      const { admin, io } = await t.both(manual);
      const data = pattern(65536, 7);
      const { cid, done } = begin(io, 0, data);
      const tag = (await r2t(io)).view.getUint16(10, true);
      const half = data.byteLength / 2;
      const first = io.h2cData({ cid, tag, offset: 0, data: data.slice(0, half), last: false });
      const second = io.h2cData({ cid, tag, offset: half, data: data.slice(half), last: true });
      await io.send(first.slice(0, 20000));
      await t.until(() => isReceiving(t));
      expect(await abort(admin, 1, cid)).toBe(true);
      expect((await done).status).toBe(Status.ABORT_REQUESTED);
      await io.send(first.slice(20000));
      await io.send(second);
      expect((await read(io, 0, 1)).data.every((byte) => byte === 0)).toBe(true);
      await t.until(() => t.reactor.io.free === t.reactor.io.capacity);
    });
  });

  /** True while some connection receives data that it asked for. */
  function isReceiving(t: TargetFixture): boolean {
    return Array.from({ length: t.reactor.io.capacity }, (_, slot) => slot).some((slot) =>
      [...t.target.connections].some((c) => c.receivesFor(slot)),
    );
  }

  test("ends a parked write", () => {
    withTarget(async (t) => {
      const { admin, io } = await t.both(manual);
      const writes = Array.from({ length: 16 }, () => begin(io, 0, pattern(MIB, 1)));
      expect((await read(io, 0, 1)).status).toBe(0);
      const parked = writes[14]!;
      expect(await abort(admin, 1, parked.cid)).toBe(true);
      expect((await parked.done).status).toBe(Status.ABORT_REQUESTED);
      // The others go on, the aborted one is not asked for.
      for (const write of writes) {
        if (write === parked) continue;
        const asked = await r2t(io);
        expect(asked.view.getUint16(8, true)).toBe(write.cid);
        await io.answerR2t(asked, pattern(MIB, 1));
        expect((await write.done).status).toBe(0);
      }
    });
  });

  test("what a device has begun is not aborted", () => {
    withTarget(async (t) => {
      const { admin, io } = await t.both();
      const bdev = t.bdev as GatedBdev;
      bdev.gate = true;
      const words = io.entry(sqe(IoOpcode.READ, 1, [0, 0, 0]), { room: BLOCK });
      const reading = io.commandAs(words);
      await bdev.came(1);
      expect(await abort(admin, 1, words[0]! >>> 16)).toBe(false);
      bdev.open();
      expect((await reading).status).toBe(0);
    }, gated);
  });

  test("nor what does not exist", () => {
    withTarget(async (t) => {
      const { admin } = await t.both();
      expect(await abort(admin, 1, 999)).toBe(false);
      expect(await abort(admin, 77, 1)).toBe(false);
      expect(await abort(admin, 0, 999)).toBe(false);
    });
  });

  test("ends an event request", () => {
    withTarget(async (t) => {
      const { host } = await t.admin();
      const words = host.entry(sqe(AdminOpcode.ASYNC_EVENT_REQUEST, 0));
      const event = host.commandAs(words);
      expect(await abort(host, 0, words[0]! >>> 16)).toBe(true);
      expect((await event).status).toBe(Status.ABORT_REQUESTED);
    });
  });
});

describe("a connection that ends", () => {
  test("while commands wait for data, are parked, are aborted, and while data is on the way", () => {
    withTarget(async (t) => {
      const { admin, io } = await t.both(manual);
      const writes = Array.from({ length: 24 }, (_, i) => begin(io, 0, pattern(MIB, i)));
      expect((await read(io, 0, 1)).status).toBe(0);
      const asked = io.inbox.splice(0);
      await admin.command(abortCommand(1, writes[1]!.cid));
      const tag = asked[0]!.view.getUint16(10, true);
      const pdu = io.h2cData({
        cid: writes[0]!.cid,
        tag,
        offset: 0,
        data: pattern(MIB, 0),
        last: true,
      });
      await io.send(pdu.slice(0, 300_000));
      await io.close();
      await t.until(() => t.subsystem.controllers.values().next().value!.queues.size === 0);
      expect(t.target.hostData.bytes).toBe(0);
      expect(t.reactor.io.free).toBe(t.reactor.io.capacity);
    });
  });

  test("while a device works for it: the queue ends when the device is done", () => {
    withTarget(async (t) => {
      const { io, controllerId } = await t.both();
      const bdev = t.bdev as GatedBdev;
      bdev.gate = true;
      const data = pattern(65536, 1);
      io.command(sqe(IoOpcode.WRITE, 1, [0, 0, 127]), { data, byR2t: true }).catch(() => {});
      io.command(sqe(IoOpcode.READ, 1, [0, 0, 127]), { room: 65536 }).catch(() => {});
      io.command(sqe(IoOpcode.COMPARE, 1, [0, 0, 7]), { data: pattern(4096, 1) }).catch(() => {});
      io.command(sqe(IoOpcode.FLUSH, 1)).catch(() => {});
      await bdev.came(4);
      await io.close();
      const controller = t.subsystem.controllers.get(controllerId)!;
      await t.until(() => t.target.connections.size === 1);
      expect(controller.queues.size).toBe(1);
      bdev.open();
      await t.until(() => controller.queues.size === 0);
      expect(bdev.seen.map(({ op }) => op).toSorted()).toEqual(["flush", "read", "read", "write"]);
    }, gated);
  });

  test("within every kind of PDU", () => {
    withTarget(async (t) => {
      const data = pattern(8192, 1);
      for (const cut of [1, 7, 8, 40, 71, 72, 73, 5000, 8263]) {
        const { io, admin } = await t.both();
        const words = io.entry(sqe(IoOpcode.WRITE, 1, [0, 0, 15]), { data });
        await io.send(io.capsule(words, data).slice(0, cut));
        await io.close();
        await admin.close();
        await t.until(() => t.target.connections.size === 0);
      }
      expect(
        (
          await (await t.both()).io.command(sqe(IoOpcode.READ, 1, [0, 0, 0]), { room: BLOCK })
        ).data.every((b) => b === 0),
      ).toBe(true);
      expect(t.subsystem.namespace.statistics.ops[IoOp.WRITE]).toBe(0);
    });
  });
});
