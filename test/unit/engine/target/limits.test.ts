import { describe, expect, test } from "bun:test";
import { SEND_QUEUE_BYTES_MAX } from "../../../../src/engine/reactor/limits.ts";
import type { Reactor } from "../../../../src/engine/reactor/reactor.ts";
import { recvBuffersOf } from "../../../../src/engine/reactor/tcp-stream.ts";
import { READ_BYTES_MAX } from "../../../../src/engine/target/limits.ts";
import { IoOpcode } from "../../../../src/nvme/constants.ts";
import { GatedBdev } from "../../../support/gated-bdev.ts";
import { pattern, RawHost, sqe } from "../../../support/raw-host.ts";
import { type FixtureOptions, type TargetFixture, withTarget } from "../../../support/target.ts";

const MIB = 1 << 20;
const devices: readonly (readonly [string, FixtureOptions["bdev"]])[] = [
  ["a synchronous device", undefined],
  ["an asynchronous device", (reactor: Reactor) => new GatedBdev(reactor, 16384)],
];

/** Sends `count` commands in one piece without waiting for anything. */
async function flood(io: RawHost, count: number, opcode: number, blocks: number): Promise<void> {
  const bytes = blocks * 512;
  const isWrite = opcode === IoOpcode.WRITE;
  const payload = isWrite ? { data: pattern(bytes, 1), byR2t: true } : { room: bytes };
  const capsules = Array.from({ length: count }, () =>
    io.capsule(io.entry(sqe(opcode, 1, [0, 0, blocks - 1]), payload)),
  );
  await io.send(Buffer.concat(capsules));
}

/** An I/O queue whose host never receives anything after Connect. */
async function deaf(t: TargetFixture, controllerId: number, queueId: number): Promise<RawHost> {
  const io = await t.io(controllerId, queueId, { answersR2t: false });
  io.pause();
  return io;
}

describe("a host that takes no data", () => {
  for (const [what, bdev] of devices) {
    test(`holds a bounded part of the memory, and disturbs nobody (${what})`, () => {
      withTarget(
        async (t) => {
          const { io, controllerId } = await t.both();
          const { arena } = t.reactor;
          const before = arena.freeBytes;
          const slow = await deaf(t, controllerId, 2);
          await flood(slow, 100, IoOpcode.READ, 2048);
          let least = arena.freeBytes;
          // It has stopped taking commands: everything that it may hold, it holds.
          const connection = [...t.target.connections].find((c) => c.stream.sendingSinceNs > 0);
          await t.until(() => {
            least = Math.min(least, arena.freeBytes);
            return [...t.target.connections].some(
              (c) => c.stream.blocked && c.readBytes + c.stream.sendBytes >= SEND_QUEUE_BYTES_MAX,
            );
          });
          expect(connection?.stream.closing ?? false).toBe(false);
          for (let i = 0; i < 50; i++) {
            const { status } = await io.command(sqe(IoOpcode.READ, 1, [0, 0, 2047]), { room: MIB });
            expect(status).toBe(0);
            least = Math.min(least, arena.freeBytes);
          }
          expect(before - least).toBeLessThan(READ_BYTES_MAX + SEND_QUEUE_BYTES_MAX + 8 * MIB);
        },
        bdev === undefined ? {} : { bdev },
      );
    });

    test(`is closed when many like it leave nothing for others (${what})`, () => {
      withTarget(
        async (t) => {
          const { io, controllerId } = await t.both();
          for (let queueId = 2; queueId < 14; queueId++) {
            await flood(await deaf(t, controllerId, queueId), 100, IoOpcode.READ, 2048);
          }
          // Sooner or later there is room again: this host is served, and it stays connected.
          for (let i = 0; i < 20; i++) {
            const { status } = await io.command(sqe(IoOpcode.READ, 1, [0, 0, 2047]), { room: MIB });
            expect(status).toBe(0);
          }
        },
        { ...(bdev === undefined ? {} : { bdev }), target: { limits: { stalledMs: 200 } } },
      );
    });
  }
});

describe("a host that sends no data", () => {
  test("is closed when another waits for the memory it was promised", () => {
    withTarget(
      async (t) => {
        const { io, controllerId } = await t.both();
        const silent = await t.io(controllerId, 2, { answersR2t: false });
        await flood(silent, 100, IoOpcode.WRITE, 2048);
        await t.until(() => t.target.hostData.bytes >= 8 * MIB);
        const { status } = await io.command(sqe(IoOpcode.WRITE, 1, [0, 0, 2047]), {
          data: pattern(MIB, 2),
          byR2t: true,
        });
        expect(status).toBe(0);
        await silent.ended();
      },
      { target: { limits: { stalledMs: 200 } } },
    );
  });

  test("stays when nobody waits", () => {
    withTarget(
      async (t) => {
        const { admin, controllerId } = await t.both();
        const silent = await t.io(controllerId, 2, { answersR2t: false });
        await flood(silent, 2, IoOpcode.WRITE, 2048);
        await t.until(() => silent.inbox.length === 2);
        const { now } = t.reactor;
        await t.until(() => t.reactor.now > now + 0.1e9);
        for (const asked of silent.inbox.splice(0)) await silent.answerR2t(asked, pattern(MIB, 1));
        await t.until(() => silent.inbox.length === 2);
        expect(silent.inbox.map(({ type, view }) => [type, view.getUint16(22, true)])).toEqual([
          [5, 0],
          [5, 0],
        ]);
        expect((await admin.command(sqe(0x18, 0))).status).toBe(0);
      },
      { target: { limits: { stalledMs: 20 } } },
    );
  });
});

describe("hosts that stop within a PDU", () => {
  test("are closed when others find no receive buffer", () => {
    withTarget(
      async (t) => {
        const { admin, io } = await t.both();
        const buffers = recvBuffersOf(t.reactor);
        const halves: RawHost[] = [];
        for (let i = 0; i < buffers.count; i++) {
          const half = t.keep(await RawHost.negotiate(t.reactor, t.address));
          await half.send(new Uint8Array([4, 0, 72]));
          halves.push(half);
        }
        await t.until(() => buffers.free === 0);
        expect((await io.command(sqe(IoOpcode.FLUSH, 1))).status).toBe(0);
        expect((await admin.command(sqe(0x18, 0))).status).toBe(0);
        expect(t.log.some(({ fields }) => fields?.reason === "stalled while memory is short")).toBe(
          true,
        );
      },
      { target: { limits: { stalledMs: 200 } } },
    );
  });
});

describe("a flood of connections", () => {
  test("beyond the limit is closed at once", () => {
    withTarget(
      async (t) => {
        const { admin, io } = await t.both();
        const third = t.keep(await RawHost.negotiate(t.reactor, t.address));
        const fourth = t.keep(await RawHost.socket(t.reactor, t.address));
        await fourth.ended();
        expect(t.target.connections.size).toBe(3);
        await third.close();
        await t.until(() => t.target.connections.size === 2);
        expect((await io.command(sqe(IoOpcode.FLUSH, 1))).status).toBe(0);
        expect((await admin.command(sqe(0x18, 0))).status).toBe(0);
        t.keep(await RawHost.negotiate(t.reactor, t.address));
      },
      { target: { limits: { connections: 3 } } },
    );
  });

  test("that never says Connect gives way to those that do", () => {
    withTarget(
      async (t) => {
        const { io } = await t.both();
        const silent: RawHost[] = [];
        for (let i = 0; i < 50; i++)
          silent.push(t.keep(await RawHost.socket(t.reactor, t.address)));
        const { io: late } = await t.both();
        expect((await late.command(sqe(IoOpcode.FLUSH, 1))).status).toBe(0);
        expect((await io.command(sqe(IoOpcode.FLUSH, 1))).status).toBe(0);
        expect(t.target.connections.size).toBeLessThanOrEqual(4 + 8);
        await silent[0]!.ended();
      },
      { target: { limits: { handshakes: 8 } } },
    );
  });
});
