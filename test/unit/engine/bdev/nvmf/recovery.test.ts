/** Time-outs, lost connections, reconnecting, and what a controller tells on its own. */
import { describe, expect, test } from "bun:test";
import type { BdevEvent } from "../../../../../src/engine/bdev/bdev.ts";
import type { NvmfBdev } from "../../../../../src/engine/bdev/nvmf/nvmf-bdev.ts";
import { IoOp } from "../../../../../src/engine/reactor/io-table.ts";
import { IoStatus, TrilithError } from "../../../../../src/errors.ts";
import { FAKE_UUID, type FakeCommand, FakeTarget } from "./fake-target.ts";
import { pattern, type Setting, withFakeTarget } from "./setting.ts";

const READ = 2;
const ABORT = 8;
const KEEP_ALIVE = 0x18;
const KIB = 1024;

/** Lets the target swallow I/O commands with this opcode; returns those swallowed. */
function swallow(s: Setting, opcode: number): FakeCommand[] {
  const swallowed: FakeCommand[] = [];
  s.target.onCommand = (c) => {
    if (c.queueId < 1 || c.opcode !== opcode) return false;
    swallowed.push(c);
    return true;
  };
  return swallowed;
}

function events(bdev: NvmfBdev): BdevEvent[] {
  const seen: BdevEvent[] = [];
  bdev.listen((event) => seen.push(event));
  return seen;
}

describe("time-outs", () => {
  test("a command out of time is aborted, and the connection stays", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open({ ioTimeoutMs: 20 });
      const swallowed = swallow(s, READ);
      const read = s.start(bdev, IoOp.READ, 0, 4096);
      const write = await s.run(bdev, IoOp.WRITE, 0, pattern(512, 1));
      expect(write.status).toBe(IoStatus.OK);
      await s.until("the read has come", () => swallowed.length === 1);
      const victim = swallowed[0]!;
      const which = (1 | (victim.cid << 16)) >>> 0;
      // A slow machine may make other commands run out of time too.
      const aborts = () =>
        s.target.commands.filter((c) => c.opcode === ABORT && c.dwords[0] === which);
      await s.until("an Abort comes", () => aborts().length > 0);
      expect(read.status).toBeUndefined();
      victim.connection.respond(victim.cid, 0x007);
      await s.until("the read ends", () => read.status !== undefined);
      expect(read.status).toBe(IoStatus.TIMEOUT);
      read.free();
      s.target.onCommand = undefined;
      expect((await s.run(bdev, IoOp.READ, 0, 512)).status).toBe(IoStatus.OK);
      expect([bdev.losses, aborts().length]).toEqual([0, 1]);
      await bdev.close();
    });
  });

  test("a command that ends after its Abort was sent ends as it says", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open({ ioTimeoutMs: 20 });
      const swallowed = swallow(s, READ);
      const read = s.start(bdev, IoOp.READ, 0, 4096);
      await s.until("an Abort comes", () => s.target.commands.some((c) => c.opcode === ABORT));
      s.target.serve(swallowed[0]!);
      await s.until("the read ends", () => read.status === IoStatus.OK);
      read.free();
      expect(bdev.losses).toBe(0);
      await bdev.close();
    });
  });

  test("when the Abort does not help the controller is reset: the others end UNAVAILABLE", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open({ ioTimeoutMs: 20, abortGraceMs: 20 });
      swallow(s, READ);
      const read = s.start(bdev, IoOp.READ, 0, 4096);
      await s.until("an Abort comes", () => s.target.commands.some((c) => c.opcode === ABORT));
      const young = s.start(bdev, IoOp.READ, 8192, 4096);
      await s.until("both end", () => read.status !== undefined && young.status !== undefined);
      // The second may have been aborted too by the time of the reset.
      expect(read.status).toBe(IoStatus.TIMEOUT);
      expect([IoStatus.TIMEOUT, IoStatus.UNAVAILABLE] as number[]).toContain(young.status!);
      read.free();
      young.free();
      s.target.onCommand = undefined;
      await s.until("it is connected again", () => bdev.state === "live");
      expect((await s.run(bdev, IoOp.READ, 0, 512)).status).toBe(IoStatus.OK);
      expect(bdev.losses).toBe(1);
      await bdev.close();
    });
  });

  test("keep-alives go on, and one without an answer resets the controller", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open({ keepAliveMs: 200 });
      const sent = () => s.target.commands.filter((c) => c.opcode === KEEP_ALIVE).length;
      await s.until("several keep-alives have come", () => sent() >= 4);
      expect(bdev.losses).toBe(0);
      s.target.onCommand = (c) => c.opcode === KEEP_ALIVE;
      await s.until("the controller is reset", () => bdev.losses > 0);
      s.target.onCommand = undefined;
      await s.until("it is connected again", () => bdev.state === "live");
      await bdev.close();
    });
  });

  test("a keep-alive that fails resets the controller", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open({ keepAliveMs: 200 });
      s.target.onCommand = (c) => {
        if (c.opcode !== KEEP_ALIVE) return false;
        s.target.onCommand = undefined;
        c.connection.respond(c.cid, 0x006);
        return true;
      };
      await s.until("the controller is reset", () => bdev.losses === 1);
      await s.until("it is connected again", () => bdev.state === "live");
      await bdev.close();
    });
  });
});

describe("a lost connection", () => {
  test("fail: what is in flight or waits, and what comes meanwhile, ends UNAVAILABLE", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open({ queueDepth: 4, reconnectDelayMs: 30 });
      const states: string[] = [];
      bdev.listenState((state) => states.push(state));
      swallow(s, READ);
      const reads = Array.from({ length: 20 }, (_, i) => s.start(bdev, IoOp.READ, i * 512, 512));
      await s.until("the queue is full", () => s.target.ioCommands(READ).length === 4);
      s.target.drop();
      await s.until("all end", () => reads.every((r) => r.status !== undefined));
      expect(reads.every((r) => r.status === IoStatus.UNAVAILABLE)).toBe(true);
      expect(bdev.state).toBe("reconnecting");
      const late = s.start(bdev, IoOp.WRITE, 0, pattern(512, 1));
      expect(late.status).toBe(IoStatus.UNAVAILABLE);
      for (const r of [...reads, late]) r.free();
      s.target.onCommand = undefined;
      await s.until("it is connected again", () => bdev.state === "live");
      expect(states).toEqual(["reconnecting", "live"]);
      expect((await s.run(bdev, IoOp.READ, 0, 512)).status).toBe(IoStatus.OK);
      await bdev.close();
    });
  });

  test("retry: everything is sent again in its order, with what came meanwhile behind it", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open({ queueDepth: 4, onLoss: "retry", reconnectDelayMs: 10 });
      swallow(s, READ);
      const reads = Array.from({ length: 10 }, (_, i) => s.start(bdev, IoOp.READ, i * 512, 512));
      await s.until("the queue is full", () => s.target.ioCommands(READ).length === 4);
      s.target.drop();
      await s.until("the loss is noticed", () => bdev.state === "reconnecting");
      reads.push(s.start(bdev, IoOp.READ, 10 * 512, 512));
      expect(reads.every((r) => r.status === undefined)).toBe(true);
      s.target.onCommand = undefined;
      s.target.commands.length = 0;
      await s.until("all end", () => reads.every((r) => r.status === IoStatus.OK));
      const lbas = s.target.ioCommands(READ).map((c) => c.dwords[0]!);
      expect(lbas).toEqual(Array.from({ length: 11 }, (_, i) => i));
      for (const r of reads) r.free();
      await bdev.close();
    });
  });

  test("retry: a request in pieces, partly sent, and long operations start again", () => {
    withFakeTarget(async (s) => {
      s.target.facts.mdts = 4; // 64 KiB
      s.target.facts.wzsl = 4;
      const bdev = await s.open({ queueDepth: 4, onLoss: "retry" });
      const bytes = pattern(1024 * KIB, 5);
      s.target.memory.fill(0x55);
      let served = 0;
      s.target.onCommand = (c) => {
        if (c.queueId < 1) return false;
        if (served++ < 3) return false;
        s.target.onCommand = undefined;
        s.target.drop();
        return true;
      };
      const write = s.start(bdev, IoOp.WRITE, 0, bytes);
      const zero = s.start(bdev, IoOp.WRITE_ZEROES, 2048 * KIB, 1024 * KIB);
      const discard = s.start(bdev, IoOp.DISCARD, 0, 512);
      await s.until("all end", () => [write, zero, discard].every((r) => r.status !== undefined));
      expect([write.status, zero.status, discard.status]).toEqual([0, 0, 0]);
      expect(Buffer.compare(s.target.memory.subarray(0, 1024 * KIB), bytes)).toBe(0);
      const zeroed = s.target.memory.subarray(2048 * KIB, 3072 * KIB);
      expect(zeroed.every((b) => b === 0)).toBe(true);
      expect(s.target.memory.subarray(3072 * KIB).every((b) => b === 0x55)).toBe(true);
      expect(bdev.losses).toBe(1);
      write.free();
      await bdev.close();
    });
  });

  test("retry: large writes cut off in the middle of their data arrive whole in the end", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open({ onLoss: "retry" });
      const all = Array.from({ length: 3 }, (_, i) => pattern(1024 * KIB, i));
      const writes = all.map((bytes, i) => s.start(bdev, IoOp.WRITE, i * 1024 * KIB, bytes));
      for (let cut = 1; cut <= 3; cut++) {
        const before = s.target.hostData.length;
        await s.until("some data has come", () => s.target.hostData.length > before + 1);
        s.target.drop();
      }
      await s.until("all end", () => writes.every((w) => w.status === IoStatus.OK));
      all.forEach((bytes, i) => {
        const stored = s.target.memory.subarray(i * 1024 * KIB, (i + 1) * 1024 * KIB);
        expect(Buffer.compare(stored, bytes)).toBe(0);
      });
      for (const w of writes) w.free();
      await bdev.close();
    });
  });

  test("attempts go on while nobody listens, and succeed when somebody does", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open({ onLoss: "retry", reconnectDelayMaxMs: 4 });
      const { port } = s.target;
      await s.target.stop();
      const read = s.start(bdev, IoOp.READ, 0, 512);
      const logged = s.logs.length;
      await s.until("several attempts have failed", () => s.logs.length > logged + 3);
      expect(read.status).toBeUndefined();
      const second = new FakeTarget(s.reactor, port);
      await s.until("the read ends", () => read.status === IoStatus.OK);
      read.free();
      await bdev.close();
      await second.stop();
    });
  });

  test("after the controller loss time-out the device is gone", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open({ onLoss: "retry", controllerLossMs: 40, reconnectDelayMaxMs: 4 });
      const seen = events(bdev);
      await s.target.stop();
      const waiting = s.start(bdev, IoOp.READ, 0, 512);
      await s.until("it gives up", () => bdev.state === "gone");
      expect(waiting.status).toBe(IoStatus.DEVICE_GONE);
      expect(seen.map((e) => e.kind)).toEqual(["removed"]);
      const late = s.start(bdev, IoOp.WRITE, 0, pattern(512, 1));
      expect(late.status).toBe(IoStatus.DEVICE_GONE);
      waiting.free();
      late.free();
      await bdev.close();
      expect(bdev.state).toBe("closed");
    });
  });

  test("without a controller loss time-out no attempt is made", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open({ controllerLossMs: 0 });
      const seen = events(bdev);
      const connections = s.target.connections.length;
      s.target.drop();
      await s.until("it gives up", () => bdev.state === "gone");
      expect(seen.map((e) => e.kind)).toEqual(["removed"]);
      expect(s.target.connections.length).toBe(connections);
      await bdev.close();
    });
  });

  test("another namespace behind the same name is not taken for the old one", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open({ onLoss: "retry" });
      const seen = events(bdev);
      s.target.facts.uuid = FAKE_UUID.replace("6", "7");
      s.target.drop();
      await s.until("it gives up", () => bdev.state === "gone");
      expect(seen.map((e) => e.kind)).toEqual(["removed"]);
      await s.until("connections are closed", () => s.target.open.length === 0);
      await bdev.close();
    });
  });

  test("a namespace that grew while nobody was connected", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open();
      const seen = events(bdev);
      s.target.facts.blockCount = 10_000;
      s.target.drop();
      await s.until("it is seen", () => bdev.blockCount === 10_000);
      expect(seen).toEqual([{ kind: "resized", blockCount: 10_000 }]);
      await bdev.close();
    });
  });

  test("close while reconnecting, while an attempt hangs, and with requests waiting", () => {
    withFakeTarget(async (s) => {
      const pausing = await s.open({ reconnectDelayMs: 60_000, reconnectDelayMaxMs: 60_000 });
      s.target.drop();
      await s.until("the loss is noticed", () => pausing.state === "reconnecting");
      await pausing.close();

      const hanging = await s.open({ onLoss: "retry" });
      s.target.onIcRequest = () => true;
      const before = s.target.connections.length;
      s.target.drop();
      const waiting = s.start(hanging, IoOp.READ, 0, 512);
      await s.until("an attempt hangs", () => s.target.connections.length > before);
      await hanging.close();
      expect(waiting.status).toBe(IoStatus.DEVICE_GONE);
      waiting.free();
    });
  });

  test("close waits for what is in flight, and survives the connection's end meanwhile", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open({ onLoss: "retry" });
      const swallowed = swallow(s, READ);
      const read = s.start(bdev, IoOp.READ, 0, 512);
      await s.until("the read has come", () => swallowed.length === 1);
      const closed = bdev.close();
      s.target.drop();
      await closed;
      expect(read.status).toBe(IoStatus.DEVICE_GONE);
      read.free();
    });
  });

  test("a reset that is asked for", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open({ onLoss: "retry" });
      const swallowed = swallow(s, READ);
      const read = s.start(bdev, IoOp.READ, 0, 512);
      await s.until("the read has come", () => swallowed.length === 1);
      s.target.onCommand = undefined;
      bdev.reset("test");
      await s.until("the read ends", () => read.status === IoStatus.OK);
      expect(bdev.losses).toBe(1);
      read.free();
      await bdev.close();
    });
  });
});

describe("asynchronous events", () => {
  const NAMESPACE_CHANGED = 2 | (0 << 8) | (4 << 16);
  const ANA_CHANGED = 2 | (3 << 8) | (0x0c << 16);
  const waits = (s: Setting) =>
    s.until("an event request is outstanding", () => s.target.eventRequests.length === 1);

  test("only those offered are enabled", () => {
    withFakeTarget(async (s) => {
      s.target.facts.oaes = 0x100 | 0x800 | 0x200;
      const bdev = await s.open();
      const set = s.target.commands.find((c) => c.opcode === 9 && (c.dwords[0]! & 0xff) === 0x0b);
      expect(set?.dwords[1]).toBe(0x900);
      await bdev.close();
    });
  });

  test("the namespace grew, shrank, and vanished", () => {
    withFakeTarget(async (s) => {
      s.target.facts.oaes = 0x100;
      const bdev = await s.open();
      const seen = events(bdev);
      for (const blockCount of [9000, 5000]) {
        await waits(s);
        s.target.facts.blockCount = blockCount;
        s.target.event(NAMESPACE_CHANGED);
        await s.until("it is seen", () => bdev.blockCount === blockCount);
      }
      // The page that announces the change is read: that is what makes the controller tell again.
      expect(s.target.commands.filter((c) => c.opcode === 2).length).toBe(2);
      expect((await s.run(bdev, IoOp.READ, 4999 * 512, 512)).status).toBe(IoStatus.OK);
      const beyond = await s.run(bdev, IoOp.READ, 5000 * 512, 512);
      expect(beyond.status).toBe(IoStatus.OUT_OF_RANGE);
      await waits(s);
      const swallowed = swallow(s, READ);
      const read = s.start(bdev, IoOp.READ, 0, 512);
      await s.until("the read has come", () => swallowed.length === 1);
      s.target.facts.blockCount = 0;
      s.target.event(NAMESPACE_CHANGED);
      await s.until("it is gone", () => bdev.state === "gone" && read.status !== undefined);
      expect(seen.map((e) => e.kind)).toEqual(["resized", "resized", "removed"]);
      read.free();
      await bdev.close();
    });
  });

  test("a namespace that is invalid now is gone", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open();
      const seen = events(bdev);
      await waits(s);
      s.target.onCommand = (c) => {
        if (c.queueId !== 0 || c.opcode !== 6 || (c.dwords[0] !== 0 && c.dwords[0] !== 3))
          return false;
        c.connection.respond(c.cid, 0x400b);
        return true;
      };
      s.target.event(NAMESPACE_CHANGED);
      await s.until("it is gone", () => bdev.state === "gone");
      expect(seen.map((e) => e.kind)).toEqual(["removed"]);
      await bdev.close();
    });
  });

  test("what cannot be read after an event is read after a reconnect", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open();
      await waits(s);
      s.target.onCommand = (c) => {
        if (c.queueId !== 0 || c.opcode !== 6) return false;
        s.target.onCommand = undefined;
        c.connection.respond(c.cid, 0x006);
        return true;
      };
      s.target.facts.blockCount = 9000;
      s.target.event(NAMESPACE_CHANGED);
      await s.until("it is seen", () => bdev.blockCount === 9000 && bdev.state === "live");
      expect(bdev.losses).toBe(1);
      await bdev.close();
    });
  });

  test("the ANA state decides whether requests are sent", () => {
    withFakeTarget(async (s) => {
      s.target.facts.oaes = 0x800;
      s.target.facts.cmic = 8;
      const bdev = await s.open();
      for (const anaState of [3, 4, 15]) {
        await waits(s);
        s.target.facts.anaState = anaState;
        s.target.event(ANA_CHANGED);
        await s.until("it is seen", () => bdev.state === "inaccessible");
        const before = s.target.ioCommands(READ).length;
        expect((await s.run(bdev, IoOp.READ, 0, 512)).status).toBe(IoStatus.UNAVAILABLE);
        expect(s.target.ioCommands(READ).length).toBe(before);
        await waits(s);
        s.target.facts.anaState = 2;
        s.target.event(ANA_CHANGED);
        await s.until("it is seen", () => bdev.state === "live");
        expect((await s.run(bdev, IoOp.READ, 0, 512)).status).toBe(IoStatus.OK);
      }
      await bdev.close();
    });
  });

  test("a device may be opened while its namespace is inaccessible", () => {
    withFakeTarget(async (s) => {
      s.target.facts.cmic = 8;
      s.target.facts.anaState = 3;
      const bdev = await s.open();
      expect(bdev.state).toBe("inaccessible");
      expect((await s.run(bdev, IoOp.READ, 0, 512)).status).toBe(IoStatus.UNAVAILABLE);
      await bdev.close();
    });
  });
});

describe("reservations and vendor commands", () => {
  const KEY = 0x1122334455667788n;
  const words = (c: FakeCommand) => {
    const view = new DataView(c.data.buffer, c.data.byteOffset, c.data.byteLength);
    return Array.from({ length: c.data.byteLength / 8 }, (_, i) => view.getBigUint64(i * 8, true));
  };
  const answerAll = (s: Setting, status: number) => {
    s.target.onCommand = (c) => {
      if (c.queueId < 1) return false;
      c.connection.respond(c.cid, status);
      return true;
    };
  };
  async function codeOf(promise: Promise<unknown>): Promise<string> {
    const error = await promise.then(
      () => undefined,
      (e: unknown) => e,
    );
    if (!(error instanceof TrilithError)) throw new Error(`no typed error: ${String(error)}`);
    return error.code;
  }

  test("go out as the specification has them", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open();
      answerAll(s, 0);
      s.target.commands.length = 0;
      await bdev.reservationRegister({
        action: "register",
        currentKey: 0n,
        newKey: KEY,
        ignoreExistingKey: true,
        persist: true,
      });
      await bdev.reservationRegister({ action: "replace", currentKey: KEY, newKey: 5n });
      const type = 2;
      await bdev.reservationAcquire({ action: "acquire", type, currentKey: KEY });
      await bdev.reservationAcquire({
        action: "preempt-and-abort",
        type,
        currentKey: KEY,
        preemptKey: 9n,
      });
      await bdev.reservationRelease({ action: "clear", type: 1, currentKey: KEY });
      const sent = s.target.ioCommandsAll().map((c) => [c.opcode, c.dwords[0], words(c)]);
      expect(sent).toEqual([
        [0x0d, 0xc0000008, [0n, KEY]],
        [0x0d, 2, [KEY, 5n]],
        [0x11, 0x200, [KEY, 0n]],
        [0x11, 0x202, [KEY, 9n]],
        [0x15, 0x101, [KEY]],
      ]);
      answerAll(s, 0x083);
      const acquire = bdev.reservationAcquire({ action: "acquire", type, currentKey: KEY });
      expect(await codeOf(acquire)).toBe("ReservationConflict");
      answerAll(s, 0x001);
      expect(await codeOf(bdev.reservationReport())).toBe("Unimplemented");
      await bdev.close();
    });
  });

  test("a report is read whole, however many registrants there are", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open();
      const count = 40;
      s.target.onCommand = (c) => {
        if (c.opcode !== 0x0e) return false;
        const page = new Uint8Array(64 + 64 * count);
        const view = new DataView(page.buffer);
        view.setUint32(0, 77, true);
        page[4] = 2;
        view.setUint16(5, count, true);
        page[9] = 1;
        for (let i = 0; i < count; i++) {
          view.setUint16(64 + i * 64, i, true);
          page[64 + i * 64 + 2] = i === 3 ? 1 : 0;
          view.setBigUint64(64 + i * 64 + 8, BigInt(i) + KEY, true);
          page[64 + i * 64 + 16] = i;
        }
        const bytes = (c.dwords[0]! + 1) * 4;
        expect([c.dwords[1], bytes === c.sglBytes]).toEqual([1, true]);
        c.connection.sendData(c.cid, 0, page.subarray(0, bytes), 12);
        return true;
      };
      const report = await bdev.reservationReport();
      expect(report).toMatchObject({ generation: 77, type: 2, persistent: true });
      expect(report.registrants.length).toBe(count);
      expect(report.registrants[3]).toEqual({
        controllerId: 3,
        holdsReservation: true,
        key: KEY + 3n,
        hostId: "03000000-0000-0000-0000-000000000000",
      });
      expect(report.registrants.filter((r) => r.holdsReservation).length).toBe(1);
      await bdev.close();
    });
  });

  test("vendor commands move data either way and bring back their dwords", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open();
      s.target.onCommand = (c) => {
        if (c.opcode < 0x80) return false;
        if (c.opcode === 0xc2) c.connection.sendData(c.cid, 0, pattern(8192, 6), 4);
        c.connection.respond(c.cid, c.opcode === 0xc0 ? 0x1c0 : 0, 0x11, 0x22);
        return true;
      };
      s.target.commands.length = 0;
      const dataOut = pattern(512, 3);
      const out = await bdev.vendorCommand({ opcode: 0xc1, dwords: [1, 2, 3, 4, 5, 6], dataOut });
      expect(out).toMatchObject({ status: 0, dword0: 0x11, dword1: 0x22 });
      const sent = s.target.ioCommandsAll()[0]!;
      expect(sent.dwords).toEqual([1, 2, 3, 4, 5, 6]);
      expect(Buffer.compare(sent.data, dataOut)).toBe(0);
      const back = await bdev.vendorCommand({ opcode: 0xc2, dataInBytes: 8192 });
      expect(Buffer.compare(back.data, pattern(8192, 6))).toBe(0);
      expect((await bdev.vendorCommand({ opcode: 0xc0 })).status).toBe(0x1c0);
      for (const wrong of [
        { opcode: 0x02 },
        { opcode: 0xc1, dataInBytes: 512 },
        { opcode: 0xc2, dataOut },
        { opcode: 0xc1, dataOut: new Uint8Array(3) },
        { opcode: 0xc2, dataInBytes: 2 << 20 },
      ]) {
        expect(await codeOf(bdev.vendorCommand(wrong))).toBe("InvalidArgument");
      }
      await bdev.close();
    });
  });

  test("are rejected when the connection ends, and while there is none", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open({ reconnectDelayMs: 30 });
      s.target.onCommand = (c) => {
        if (c.opcode < 0x80) return false;
        s.target.drop();
        return true;
      };
      expect(await codeOf(bdev.vendorCommand({ opcode: 0xc0 }))).toBe("Unavailable");
      await s.until("the loss is noticed", () => bdev.state === "reconnecting");
      expect(await codeOf(bdev.reservationReport())).toBe("Unavailable");
      await bdev.close();
    });
  });

  test("more of them at once than the queue takes", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open({ queueDepth: 2 });
      s.target.onCommand = (c) => {
        if (c.opcode < 0x80) return false;
        c.connection.respond(c.cid, 0, c.dwords[0]!);
        return true;
      };
      const all = Array.from({ length: 30 }, (_, i) =>
        bdev.vendorCommand({ opcode: 0xc0, dwords: [i] }),
      );
      const done = await Promise.all(all);
      expect(done.map((d) => d.dword0)).toEqual(Array.from({ length: 30 }, (_, i) => i));
      await bdev.close();
    });
  });
});
