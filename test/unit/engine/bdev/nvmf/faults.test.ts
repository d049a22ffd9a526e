/** A controller that breaks the protocol: what ends a command, and what ends the connection. */
import { describe, expect, test } from "bun:test";
import { nvmeIoStatus } from "../../../../../src/engine/bdev/nvmf/status.ts";
import { IoOp } from "../../../../../src/engine/reactor/io-table.ts";
import { IoStatus, ioStatusNvme } from "../../../../../src/errors.ts";
import type { FakeCommand } from "./fake-target.ts";
import { pattern, type Setting, withFakeTarget } from "./setting.ts";

const KIB = 1024;

/** Has `answer` deal with the next read or write on an I/O queue, once. Flushes are not answered. */
function once(s: Setting, answer: (command: FakeCommand) => void): void {
  s.target.onCommand = (c) => {
    if (c.queueId > 0 && c.opcode === 0) return true;
    if (c.queueId < 1 || (c.opcode !== 1 && c.opcode !== 2)) return false;
    s.target.onCommand = undefined;
    answer(c);
    return true;
  };
}

describe("statuses", () => {
  const cases: readonly (readonly [number, IoStatus])[] = [
    [0x001, IoStatus.UNSUPPORTED],
    [0x002, IoStatus.INVALID],
    [0x004, IoStatus.DEVICE_IO],
    [0x006, IoStatus.DEVICE_IO],
    [0x00b, IoStatus.DEVICE_GONE],
    [0x080, IoStatus.OUT_OF_RANGE],
    [0x081, IoStatus.NO_SPACE],
    [0x082, IoStatus.DEVICE_GONE],
    [0x083, IoStatus.RESERVATION_CONFLICT],
    [0x280, IoStatus.DEVICE_IO],
    [0x281, IoStatus.DEVICE_IO],
    [0x285, IoStatus.MISCOMPARE],
    [0x300, IoStatus.UNAVAILABLE],
    [0x302, IoStatus.UNAVAILABLE],
    [0x303, IoStatus.UNAVAILABLE],
    [0x7ff, IoStatus.DEVICE_IO],
  ];
  test("become what the table says, with and without DNR", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open();
      for (const [status, expected] of cases) {
        for (const dnr of [0, 0x4000]) {
          once(s, (c) => c.connection.respond(c.cid, status | dnr));
          const { status: got } = await s.run(bdev, IoOp.READ, 0, 512);
          expect([status, got]).toEqual([status, expected]);
        }
      }
      expect(bdev.losses).toBe(0);
      await bdev.close();
    });
  });

  test("a failure keeps failing on its way through our own target's table", () => {
    ioStatusNvme.forEach((nvme, status) => {
      if (status !== IoStatus.OK) expect(nvmeIoStatus[nvme]).not.toBe(IoStatus.OK);
    });
  });

  test("success without all the data is an error of the command alone", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open();
      once(s, (c) => c.connection.respond(c.cid));
      expect((await s.run(bdev, IoOp.READ, 0, 4096)).status).toBe(IoStatus.DEVICE_IO);
      once(s, (c) => {
        c.connection.sendData(c.cid, 0, pattern(2048, 1), 4);
        c.connection.respond(c.cid);
      });
      expect((await s.run(bdev, IoOp.READ, 0, 4096)).status).toBe(IoStatus.DEVICE_IO);
      once(s, (c) => c.connection.respond(c.cid));
      const write = await s.run(bdev, IoOp.WRITE, 0, pattern(64 * KIB, 2));
      expect(write.status).toBe(IoStatus.DEVICE_IO);
      expect(bdev.losses).toBe(0);
      await bdev.close();
    });
  });

  test("a wrong data digest fails the read, with and without a response, and nothing else", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open({}, "?ddgst");
      for (const length of [512, 64 * KIB]) {
        for (const flags of [4, 12]) {
          once(s, (c) => {
            c.connection.sendData(c.cid, 0, pattern(length, 1), flags, "data");
            if (flags === 4) c.connection.respond(c.cid);
          });
          const bad = await s.run(bdev, IoOp.READ, 0, length);
          expect(bad.status).toBe(IoStatus.DEVICE_IO);
          expect((await s.run(bdev, IoOp.READ, 0, length)).status).toBe(IoStatus.OK);
        }
      }
      expect(bdev.losses).toBe(0);
      await bdev.close();
    });
  });
});

describe("protocol errors end the connection with a termination request", () => {
  const HEADER_FIELD = 1;
  const SEQUENCE = 2;
  const DIGEST = 3;
  const RANGE = 4;

  /** `misbehave` answers a command; the request must fail, and the device must come back. */
  const breaks = (
    title: string,
    term: number,
    op: number,
    misbehave: (c: FakeCommand) => void,
    parameters = "",
  ): void => {
    test(title, () => {
      withFakeTarget(async (s) => {
        const bdev = await s.open({}, parameters);
        const { io } = s.target;
        const bystander = s.start(bdev, IoOp.FLUSH, 0, 0);
        once(s, misbehave);
        const length = 64 * KIB;
        const data = op === IoOp.WRITE ? pattern(length, 3) : length;
        expect((await s.run(bdev, op, 0, data)).status).toBe(IoStatus.UNAVAILABLE);
        await s.until("the bystander ends", () => bystander.status !== undefined);
        expect(bystander.status).toBe(IoStatus.UNAVAILABLE);
        bystander.free();
        await s.until("the connection is closed", () => io.closed);
        expect(io.termStatus).toBe(term);
        await s.until("it is connected again", () => bdev.state === "live");
        expect(bdev.losses).toBe(1);
        expect((await s.run(bdev, IoOp.READ, 0, 512)).status).toBe(IoStatus.OK);
        await bdev.close();
      });
    });
  };

  const { READ, WRITE } = IoOp;
  const piece = pattern(4096, 1);
  breaks("a response with an unknown command id", HEADER_FIELD, READ, (c) => {
    c.connection.respond(c.cid ^ 0x400);
  });
  breaks("a response with an index beyond the queue", HEADER_FIELD, READ, (c) => {
    c.connection.respond(0x3fe);
  });
  breaks("data for an unknown command", HEADER_FIELD, READ, (c) => {
    c.connection.sendData(c.cid ^ 1, 0, piece);
  });
  breaks("data for a write", SEQUENCE, WRITE, (c) => c.connection.sendData(c.cid, 0, piece));
  breaks("an R2T for a read", SEQUENCE, READ, (c) => c.connection.sendR2t(c.cid, 0, 4096));
  breaks("data beyond the request", RANGE, READ, (c) => {
    c.connection.sendData(c.cid, 0, pattern(64 * KIB + 4, 1));
  });
  breaks("data out of order", RANGE, READ, (c) => c.connection.sendData(c.cid, 8192, piece));
  breaks("the same data twice", RANGE, READ, (c) => {
    c.connection.sendData(c.cid, 0, piece, 0);
    c.connection.sendData(c.cid, 0, piece, 0);
  });
  breaks("SUCCESS before all data has come", HEADER_FIELD, READ, (c) => {
    c.connection.sendData(c.cid, 0, piece, 12);
  });
  breaks("SUCCESS without LAST", HEADER_FIELD, READ, (c) => {
    c.connection.sendData(c.cid, 0, pattern(64 * KIB, 1), 8);
  });
  breaks("an R2T beyond the request", RANGE, WRITE, (c) => {
    c.connection.sendR2t(c.cid, 32 * KIB, 64 * KIB);
  });
  breaks("an R2T of nothing", RANGE, WRITE, (c) => c.connection.sendR2t(c.cid, 0, 0));
  breaks("R2Ts for more than all data", RANGE, WRITE, (c) => {
    c.connection.writes.set(c.cid, { command: c, at: 0, left: c.sglBytes });
    c.connection.sendR2t(c.cid, 0, 64 * KIB);
    c.connection.sendR2t(c.cid, 0, 4096);
  });
  breaks("an R2T for an unknown command", HEADER_FIELD, WRITE, (c) => {
    c.connection.sendR2t(c.cid ^ 0x800, 0, 4096);
  });
  breaks("a PDU type that a controller never sends", HEADER_FIELD, READ, (c) => {
    c.connection.sendPdu(4, 0, new Array<number>(16).fill(0));
  });
  breaks("an unknown PDU type", HEADER_FIELD, READ, (c) => c.connection.sendPdu(0x7e, 0, []));
  breaks("a second ICResp", SEQUENCE, READ, (c) => {
    c.connection.sendRaw(Uint8Array.of(1, 0, 128, 0, 128, 0, 0, 0, ...new Array(120).fill(0)));
  });
  breaks("a response whose length is wrong", HEADER_FIELD, READ, (c) => {
    c.connection.sendRaw(Uint8Array.of(5, 0, 24, 0, 28, 0, 0, 0, ...new Array(20).fill(0)));
  });
  breaks("a response whose header length is wrong", HEADER_FIELD, READ, (c) => {
    c.connection.sendRaw(Uint8Array.of(5, 0, 20, 0, 20, 0, 0, 0, ...new Array(12).fill(0)));
  });
  breaks("a digest flag that was not agreed on", HEADER_FIELD, READ, (c) => {
    c.connection.sendRaw(Uint8Array.of(5, 1, 24, 0, 28, 0, 0, 0, ...new Array(20).fill(0)));
  });
  breaks(
    "a missing digest flag",
    HEADER_FIELD,
    READ,
    (c) => {
      c.connection.sendRaw(Uint8Array.of(5, 0, 24, 0, 24, 0, 0, 0, ...new Array(16).fill(0)));
    },
    "?hdgst",
  );
  breaks("data that starts inside the header", HEADER_FIELD, READ, (c) => {
    c.connection.sendRaw(Uint8Array.of(7, 4, 24, 16, 28, 0, 0, 0, ...new Array(20).fill(0)));
  });
  breaks("a data PDU shorter than its data", HEADER_FIELD, READ, (c) => {
    const pdu = new Uint8Array(24);
    const view = new DataView(pdu.buffer);
    pdu.set([7, 4, 24, 24]);
    view.setUint32(4, 24, true);
    view.setUint16(8, c.cid, true);
    view.setUint32(16, 4096, true);
    c.connection.sendRaw(pdu);
  });
  breaks(
    "a wrong header digest of a response",
    DIGEST,
    READ,
    (c) => {
      c.connection.sendPdu(5, 0, [0, 0, 0, c.cid], undefined, "header");
    },
    "?hdgst",
  );
  breaks(
    "a wrong header digest of data",
    DIGEST,
    READ,
    (c) => {
      c.connection.sendData(c.cid, 0, piece, 4, "header");
    },
    "?hdgst&ddgst",
  );
  breaks(
    "a wrong header digest of an R2T",
    DIGEST,
    WRITE,
    (c) => {
      c.connection.sendPdu(9, 0, [c.cid | (1 << 16), 0, 4096, 0], undefined, "header");
    },
    "?hdgst",
  );

  test("more R2Ts at once than were allowed", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open();
      const { io } = s.target;
      // The data of other writes fills the connection, so that no R2T can be answered.
      io.stream.block();
      const writes = Array.from({ length: 16 }, (_, i) =>
        s.start(bdev, IoOp.WRITE, 0, pattern(1024 * KIB, i)),
      );
      const commands: FakeCommand[] = [];
      s.target.onCommand = (c) => {
        if (c.queueId < 1 || c.opcode !== 1) return false;
        commands.push(c);
        c.connection.writes.set(c.cid, { command: c, at: 0, left: 2 ** 30 });
        if (commands.length < 16) c.connection.sendR2t(c.cid, 0, 1024 * KIB);
        else {
          io.stream.block();
          for (let i = 0; i < 5; i++) c.connection.sendR2t(c.cid, i * 4096, 4096);
        }
        return true;
      };
      io.stream.unblock();
      await s.until("the requests end", () => writes.every((w) => w.status !== undefined));
      expect(writes.every((w) => w.status === IoStatus.UNAVAILABLE)).toBe(true);
      for (const w of writes) w.free();
      io.stream.unblock();
      await s.until("the connection is closed", () => io.closed);
      await s.until("it is connected again", () => bdev.state === "live");
      await bdev.close();
      expect(s.logs.some((line) => line.includes("data transfer limit exceeded"))).toBe(true);
    });
  });

  test("the controller's own termination request", () => {
    withFakeTarget(async (s) => {
      const reasons: string[] = [];
      const bdev = await s.open();
      bdev.listenState((_state, reason) => reasons.push(reason));
      once(s, (c) => {
        c.connection.sendPdu(3, 0, [4, 0, 0, 0]);
        c.connection.stream.closeAfterSend("test");
      });
      expect((await s.run(bdev, IoOp.READ, 0, 512)).status).toBe(IoStatus.UNAVAILABLE);
      expect(reasons[0]).toContain("terminated by the controller: data transfer out of range");
      await s.until("it is connected again", () => bdev.state === "live");
      await bdev.close();
    });
  });
});
