import { describe, expect, test } from "bun:test";
import { IoStatus } from "../../../../src/errors.ts";
import {
  AdminOpcode,
  AnaState,
  FeatureId,
  IoOpcode,
  LogPageId,
  Status,
} from "../../../../src/nvme/constants.ts";
import {
  decodeActiveNamespaces,
  decodeAnaLog,
  decodeIdentifyController,
  decodeIdentifyNamespace,
  decodeNamespaceDescriptors,
} from "../../../../src/nvme/identify-decode.ts";
import { GatedBdev } from "../../../support/gated-bdev.ts";
import { type Completion, pattern, type RawHost, sqe } from "../../../support/raw-host.ts";
import { NQN, withTarget } from "../../../support/target.ts";

const ALL = 0xffffffff;
const RETAIN = 1 << 15;

function identify(host: RawHost, cns: number, nsid = 0, csi = 0, room = 4096): Promise<Completion> {
  return host.command(sqe(AdminOpcode.IDENTIFY, nsid, [cns, csi << 24]), { room });
}

function logPage(
  host: RawHost,
  id: number,
  bytes: number,
  more: { nsid?: number; offset?: number; flags?: number } = {},
): Promise<Completion> {
  const dwords = bytes / 4 - 1;
  const dword10 = id | (more.flags ?? 0) | ((dwords & 0xffff) << 16);
  const words = [dword10, dwords >>> 16, more.offset ?? 0];
  return host.command(sqe(AdminOpcode.GET_LOG_PAGE, more.nsid ?? ALL, words), { room: bytes });
}

function setFeature(host: RawHost, id: number, value: number, nsid = 0): Promise<Completion> {
  return host.command(sqe(AdminOpcode.SET_FEATURES, nsid, [id, value]));
}

function getFeature(
  host: RawHost,
  id: number,
  nsid = 0,
  select = 0,
  dword11 = 0,
): Promise<Completion> {
  return host.command(sqe(AdminOpcode.GET_FEATURES, nsid, [id | (select << 8), dword11]));
}

describe("Identify", () => {
  test("of the controller", () => {
    withTarget(async (t) => {
      const { host, controllerId } = await t.admin();
      const { status, data } = await identify(host, 1);
      expect(status).toBe(0);
      const c = decodeIdentifyController(data);
      expect([c.serial, c.model, c.firmware, c.controllerId, c.subsystemNqn]).toEqual([
        "SERIAL",
        "model",
        "1.0",
        controllerId,
        NQN,
      ]);
      expect([c.mdts, c.inCapsuleBytes, c.reportsAna, c.anaGroups]).toEqual([8, 8192, true, 1]);
      expect([c.supportsReservations, c.supportsWriteZeroes, c.volatileCache]).toEqual([
        true,
        true,
        true,
      ]);
    });
  });

  test("of the namespace, by every structure", () => {
    withTarget(async (t) => {
      const { host } = await t.admin();
      const ns = decodeIdentifyNamespace((await identify(host, 0, 1)).data);
      expect([ns.blockCount, ns.blockSize, ns.anaGroup]).toEqual([16384, 512, 1]);
      const { uuid, nguid } = decodeNamespaceDescriptors((await identify(host, 3, 1)).data);
      expect(uuid).toBe(t.bdev.uuid);
      expect(nguid).toBe(t.bdev.uuid.replaceAll("-", ""));
      expect(ns.nguid).toBe(nguid!);
      expect((await identify(host, 5, 1)).data.every((byte) => byte === 0)).toBe(true);
      expect((await identify(host, 6)).status).toBe(0);
      const independent = (await identify(host, 8, 1)).data;
      expect([independent[1], independent[14]]).toEqual([1, 1]);
      expect((await identify(host, 0xffff001c)).status).toBe(0);
    });
  });

  test("the identity of the namespace can be another than the device's", () => {
    const uuid = "11111111-2222-4333-8444-555555555555";
    withTarget(
      async (t) => {
        const { host } = await t.admin();
        expect(decodeNamespaceDescriptors((await identify(host, 3, 1)).data).uuid).toBe(uuid);
        const data = (await identify(host, 0, 1)).data;
        expect(data[24]! & 1).toBe(0); // NSFEAT: not thin
      },
      { subsystem: { namespace: { uuid, thin: false } } },
    );
  });

  test("of lists", () => {
    withTarget(async (t) => {
      const { host } = await t.admin();
      for (const cns of [2, 7]) {
        expect(decodeActiveNamespaces((await identify(host, cns, 0)).data)).toEqual([1]);
        expect(decodeActiveNamespaces((await identify(host, cns, 1)).data)).toEqual([]);
        expect((await identify(host, cns, 0xfffffffe)).status).toBe(Status.INVALID_NAMESPACE);
        expect((await identify(host, cns, ALL)).status).toBe(Status.INVALID_NAMESPACE);
      }
    });
  });

  test("of what does not exist", () => {
    withTarget(async (t) => {
      const { host } = await t.admin();
      for (const cns of [0, 3, 5, 8]) {
        for (const nsid of [0, 2, ALL]) {
          expect((await identify(host, cns, nsid)).status).toBe(Status.INVALID_NAMESPACE);
        }
      }
      for (const cns of [4, 9, 0x10, 0x13, 0x20, 0xff]) {
        const { status, dnr } = await identify(host, cns, 1);
        expect([cns, status, dnr]).toEqual([cns, Status.INVALID_FIELD, true]);
      }
      expect((await identify(host, (77 << 16) | 0x1c)).status).toBe(Status.INVALID_FIELD);
      for (const cns of [5, 6, 7]) {
        expect((await identify(host, cns, 1, 2)).status).toBe(Status.INVALID_FIELD);
      }
      for (const room of [0, 4, 4092, 8192]) {
        expect((await identify(host, 1, 0, 0, room)).status).toBe(Status.DATA_SGL_LENGTH_INVALID);
      }
    });
  });
});

describe("Get Log Page", () => {
  test("tells which pages there are, and they are there", () => {
    withTarget(async (t) => {
      const { host } = await t.admin();
      const { data } = await logPage(host, LogPageId.SUPPORTED, 1024);
      const view = new DataView(data.buffer);
      const supported = Array.from({ length: 256 }, (_, id) => id).filter(
        (id) => view.getUint32(id * 4, true) !== 0,
      );
      expect(supported).toEqual([0, 1, 2, 3, 4, 5, 0x0c, 0x80]);
      for (let id = 0; id < 256; id++) {
        const { status } = await logPage(host, id, 64);
        expect([id, status]).toEqual([id, supported.includes(id) ? 0 : Status.INVALID_LOG_PAGE]);
      }
    });
  });

  test("errors: the commands that failed, newest first", () => {
    withTarget(async (t) => {
      const { admin, io } = await t.both();
      const words = io.entry(sqe(IoOpcode.READ, 1, [99999, 0, 0]), { room: 512 });
      await io.commandAs(words);
      await admin.command(sqe(AdminOpcode.IDENTIFY, 0, [0xff]), { room: 4096 });
      const { data } = await logPage(admin, LogPageId.ERROR, 192);
      const view = new DataView(data.buffer);
      const entry = (i: number) => ({
        count: Number(view.getBigUint64(i * 64, true)),
        queue: view.getUint16(i * 64 + 8, true),
        cid: view.getUint16(i * 64 + 10, true),
        status: view.getUint16(i * 64 + 12, true) >>> 1,
      });
      expect(entry(0)).toMatchObject({ count: 2, queue: 0, status: Status.INVALID_FIELD | 0x4000 });
      expect(entry(1)).toEqual({
        count: 1,
        queue: 1,
        cid: words[0]! >>> 16,
        status: Status.LBA_OUT_OF_RANGE | 0x4000,
      });
      expect(entry(2).count).toBe(0);
      // It is a ring: many failures later the newest are still there.
      for (let i = 0; i < 100; i++)
        await io.command(sqe(IoOpcode.READ, 1, [99999, 0, 0]), { room: 512 });
      const late = new DataView((await logPage(admin, LogPageId.ERROR, 4096)).data.buffer);
      expect([0, 1, 63].map((i) => Number(late.getBigUint64(i * 64, true)))).toEqual([
        102, 101, 39,
      ]);
    });
  });

  test("health: what was read and written", () => {
    withTarget(async (t) => {
      const { admin, io } = await t.both();
      await io.command(sqe(IoOpcode.WRITE, 1, [0, 0, 2047]), {
        data: pattern(1 << 20, 1),
        byR2t: true,
      });
      await io.command(sqe(IoOpcode.READ, 1, [0, 0, 0]), { room: 512 });
      for (const nsid of [0, 1, ALL]) {
        const view = new DataView(
          (await logPage(admin, LogPageId.HEALTH, 512, { nsid })).data.buffer,
        );
        expect([32, 48, 64, 80].map((at) => Number(view.getBigUint64(at, true)))).toEqual([
          1, 3, 1, 1,
        ]);
      }
      const other = await logPage(admin, LogPageId.HEALTH, 512, { nsid: 2 });
      expect(other.status).toBe(Status.INVALID_NAMESPACE);
    });
  });

  test("firmware, and the effects of commands", () => {
    withTarget(async (t) => {
      const { host } = await t.admin();
      const firmware = (await logPage(host, LogPageId.FIRMWARE_SLOT, 512)).data;
      expect([firmware[0], Buffer.from(firmware.subarray(8, 16)).toString()]).toEqual([
        1,
        "1.0     ",
      ]);
      const effects = new DataView(
        (await logPage(host, LogPageId.COMMAND_EFFECTS, 4096)).data.buffer,
      );
      expect(effects.getUint32(AdminOpcode.IDENTIFY * 4, true)).toBe(1);
      expect(effects.getUint32(1024 + IoOpcode.WRITE * 4, true)).toBe(3);
      expect(effects.getUint32(1024 + IoOpcode.READ * 4, true)).toBe(1);
      expect(effects.getUint32(1024 + IoOpcode.COPY * 4, true)).toBe(0);
    });
  });

  test("ANA, with and without namespaces", () => {
    withTarget(async (t) => {
      const { host } = await t.admin();
      const full = (await logPage(host, LogPageId.ANA, 52)).data;
      expect([...decodeAnaLog(full)]).toEqual([[1, AnaState.OPTIMIZED]]);
      expect(new DataView(full.buffer).getUint32(48, true)).toBe(1);
      t.subsystem.setAnaState(AnaState.INACCESSIBLE);
      const short = (await logPage(host, LogPageId.ANA, 48, { flags: 1 << 8 })).data;
      const view = new DataView(short.buffer);
      expect([view.getUint16(8, true), view.getUint32(20, true), short[32]]).toEqual([
        1,
        0,
        AnaState.INACCESSIBLE,
      ]);
      expect([view.getBigUint64(0, true), view.getBigUint64(24, true)]).toEqual([1n, 1n]);
    });
  });

  test("from an offset, beyond the end, and in lengths that do not fit", () => {
    withTarget(async (t) => {
      const { host } = await t.admin();
      const whole = (await logPage(host, LogPageId.COMMAND_EFFECTS, 4096)).data;
      const part = (await logPage(host, LogPageId.COMMAND_EFFECTS, 64, { offset: 1024 })).data;
      expect(Buffer.from(part).equals(Buffer.from(whole.subarray(1024, 1088)))).toBe(true);
      const over = (await logPage(host, LogPageId.ANA, 4096)).data;
      expect(over.byteLength).toBe(4096);
      expect(over.subarray(52).every((byte) => byte === 0)).toBe(true);
      const statuses = [
        (await logPage(host, LogPageId.ANA, 64, { offset: 56 })).status,
        (await logPage(host, LogPageId.ANA, 64, { offset: 2 })).status,
        (await host.command(sqe(AdminOpcode.GET_LOG_PAGE, 0, [(15 << 16) | 2]), { room: 60 }))
          .status,
        (await host.command(sqe(AdminOpcode.GET_LOG_PAGE, 0, [(15 << 16) | 2]), { room: 68 }))
          .status,
        (await host.command(sqe(AdminOpcode.GET_LOG_PAGE, 0, [(15 << 16) | 2]))).status,
        (await host.command(sqe(AdminOpcode.GET_LOG_PAGE, 0, [-65534, 0xffff]), { room: 64 }))
          .status,
        (
          await host.command(sqe(AdminOpcode.GET_LOG_PAGE, 0, [(15 << 16) | 2, 0, 0, 0, 1 << 23]), {
            room: 64,
          })
        ).status,
      ];
      const length = Status.DATA_SGL_LENGTH_INVALID;
      const field = Status.INVALID_FIELD;
      expect(statuses).toEqual([field, field, length, length, length, length, field]);
    });
  });
});

describe("features", () => {
  test("are set and read back, and have a default", () => {
    withTarget(async (t) => {
      const { host } = await t.admin();
      for (const [id, value, initial, nsid] of [
        [FeatureId.ARBITRATION, 0x01020304, 0, 0],
        [FeatureId.WRITE_ATOMICITY, 1, 0, 0],
        [FeatureId.TEMPERATURE_THRESHOLD, 330, 0x157, 0],
        [FeatureId.ERROR_RECOVERY, 7, 0, 1],
        [FeatureId.ASYNC_EVENT_CONFIGURATION, 0x900, 0, 0],
        [FeatureId.RESERVATION_NOTIFICATION_MASK, 0x0a, 0, 1],
      ] as const) {
        expect((await getFeature(host, id, nsid)).dword0).toBe(initial);
        expect((await setFeature(host, id, value, nsid)).status).toBe(0);
        expect((await getFeature(host, id, nsid)).dword0).toBe(value);
        expect((await getFeature(host, id, nsid, 1)).dword0).toBe(initial);
        expect((await getFeature(host, id, nsid, 2)).dword0).toBe(initial);
        expect((await getFeature(host, id, nsid, 3)).dword0).toBe(4 | (nsid === 1 ? 2 : 0));
        expect((await getFeature(host, id, nsid, 4)).status).toBe(Status.INVALID_FIELD);
        const saved = await host.command(
          sqe(AdminOpcode.SET_FEATURES, nsid, [id | (1 << 31), value]),
        );
        expect(saved.status).toBe(Status.FEATURE_NOT_SAVEABLE);
      }
    });
  });

  test("belong to the controller or to a namespace", () => {
    withTarget(async (t) => {
      const { host } = await t.admin();
      expect((await setFeature(host, FeatureId.ARBITRATION, 1, 1)).status).toBe(
        Status.FEATURE_NOT_NAMESPACE_SPECIFIC,
      );
      expect((await setFeature(host, FeatureId.ARBITRATION, 1, ALL)).status).toBe(0);
      expect((await setFeature(host, FeatureId.ERROR_RECOVERY, 1, 2)).status).toBe(
        Status.INVALID_NAMESPACE,
      );
      expect((await setFeature(host, FeatureId.ERROR_RECOVERY, 1, ALL)).status).toBe(0);
    });
  });

  test("take only values that mean something", () => {
    withTarget(async (t) => {
      const { host } = await t.admin();
      for (const [id, value, status] of [
        [FeatureId.POWER_MANAGEMENT, 0, 0],
        [FeatureId.POWER_MANAGEMENT, 1, Status.INVALID_FIELD],
        [FeatureId.TEMPERATURE_THRESHOLD, 1 << 16, Status.INVALID_FIELD],
        [FeatureId.VOLATILE_WRITE_CACHE, 1, 0],
        [FeatureId.VOLATILE_WRITE_CACHE, 0, Status.FEATURE_NOT_CHANGEABLE],
        [FeatureId.ASYNC_EVENT_CONFIGURATION, 1 << 9, Status.INVALID_FIELD],
        [FeatureId.ASYNC_EVENT_CONFIGURATION, 1 << 31, Status.INVALID_FIELD],
        [0x08, 0, Status.INVALID_FIELD],
        [0x09, 0, Status.INVALID_FIELD],
        [0x0c, 0, Status.INVALID_FIELD],
        [0x84, 0, Status.INVALID_FIELD],
        [0xff, 0, Status.INVALID_FIELD],
      ] as const) {
        expect([id, value, (await setFeature(host, id, value)).status]).toEqual([
          id,
          value,
          status,
        ]);
      }
      for (const id of [0, 3, 0x08, 0x09, 0x84, 0xc0]) {
        expect((await getFeature(host, id)).status).toBe(Status.INVALID_FIELD);
      }
      expect((await setFeature(host, FeatureId.ERROR_RECOVERY, 1 << 16, 1)).status).toBe(
        Status.INVALID_FIELD,
      );
    });
  });

  test("number of queues, before there are any", () => {
    withTarget(async (t) => {
      const { host, controllerId } = await t.admin();
      expect((await setFeature(host, FeatureId.NUMBER_OF_QUEUES, 0xfffefffe)).dword0).toBe(
        0x7f007f,
      );
      expect((await setFeature(host, FeatureId.NUMBER_OF_QUEUES, 0x00030001)).dword0).toBe(0x10001);
      expect((await getFeature(host, FeatureId.NUMBER_OF_QUEUES)).dword0).toBe(0x10001);
      expect((await setFeature(host, FeatureId.NUMBER_OF_QUEUES, 0xffff)).status).toBe(
        Status.INVALID_FIELD,
      );
      await t.io(controllerId, 2);
      const refused = await t.io(controllerId, 3).then(() => "connected", String);
      expect(refused).toContain("Connect: 182");
      expect((await setFeature(host, FeatureId.NUMBER_OF_QUEUES, 1)).status).toBe(
        Status.COMMAND_SEQUENCE_ERROR,
      );
    });
  });

  test("host identifier and host behaviour", () => {
    withTarget(async (t) => {
      const { host } = await t.admin();
      const get = (dword11: number, room: number) =>
        host.command(sqe(AdminOpcode.GET_FEATURES, 0, [FeatureId.HOST_IDENTIFIER, dword11]), {
          room,
        });
      const id = await get(1, 16);
      const [controller] = t.subsystem.controllers.values();
      expect(Buffer.from(id.data).toString("hex")).toBe(controller!.hostId);
      expect((await get(0, 8)).status).toBe(Status.INVALID_FIELD);
      expect((await get(1, 8)).status).toBe(Status.DATA_SGL_LENGTH_INVALID);
      const set = sqe(AdminOpcode.SET_FEATURES, 0, [FeatureId.HOST_IDENTIFIER, 1]);
      expect((await host.command(set, { data: new Uint8Array(16) })).status).toBe(
        Status.COMMAND_SEQUENCE_ERROR,
      );
      const behaviour = sqe(AdminOpcode.SET_FEATURES, 0, [FeatureId.HOST_BEHAVIOR]);
      expect((await host.command(behaviour, { data: pattern(512, 1) })).status).toBe(0);
      expect((await host.command(behaviour, { data: pattern(256, 1) })).status).toBe(
        Status.DATA_SGL_LENGTH_INVALID,
      );
    });
  });
});

describe("asynchronous events", () => {
  const event = (host: RawHost) => host.command(sqe(AdminOpcode.ASYNC_EVENT_REQUEST, 0));

  test("more requests than the limit are refused", () => {
    withTarget(async (t) => {
      const { host } = await t.admin();
      for (let i = 0; i < 4; i++) event(host).catch(() => {});
      expect((await event(host)).status).toBe(Status.ASYNC_EVENT_LIMIT_EXCEEDED);
    });
  });

  test("a change of the group is told once, until its log page is read", () => {
    withTarget(async (t) => {
      const { host } = await t.admin();
      await setFeature(host, FeatureId.ASYNC_EVENT_CONFIGURATION, 1 << 11);
      const first = event(host);
      t.subsystem.setAnaState(AnaState.NON_OPTIMIZED);
      expect((await first).dword0).toBe(0x0c0302);
      // Masked: two more changes, and a request that stays open.
      let isTold = false;
      const second = event(host).then((completion) => {
        isTold = true;
        return completion;
      });
      t.subsystem.setAnaState(AnaState.INACCESSIBLE);
      await logPage(host, LogPageId.ANA, 52, { flags: RETAIN });
      t.subsystem.setAnaState(AnaState.OPTIMIZED);
      await logPage(host, LogPageId.HEALTH, 512);
      expect(isTold).toBe(false);
      await logPage(host, LogPageId.ANA, 52);
      t.subsystem.setAnaState(AnaState.INACCESSIBLE);
      expect((await second).dword0).toBe(0x0c0302);
    });
  });

  test("an event waits for a request; one of each kind", () => {
    withTarget(async (t) => {
      const { host } = await t.admin();
      await setFeature(host, FeatureId.ASYNC_EVENT_CONFIGURATION, (1 << 11) | (1 << 8));
      for (let i = 0; i < 50; i++) {
        t.subsystem.setAnaState(i % 2 === 0 ? AnaState.CHANGE : AnaState.OPTIMIZED);
      }
      expect((await event(host)).dword0).toBe(0x0c0302);
      let isTold = false;
      event(host).then(
        () => {
          isTold = true;
        },
        () => {},
      );
      await logPage(host, LogPageId.ANA, 52);
      expect(isTold).toBe(false);
    });
  });

  test("what is not enabled is not told", () => {
    withTarget(async (t) => {
      const { host } = await t.admin();
      let isTold = false;
      event(host).then(
        () => {
          isTold = true;
        },
        () => {},
      );
      t.subsystem.setAnaState(AnaState.INACCESSIBLE);
      await setFeature(host, FeatureId.ASYNC_EVENT_CONFIGURATION, 1 << 11);
      expect(isTold).toBe(false);
    });
  });

  test("an internal error is told, and logged", () => {
    withTarget(
      async (t) => {
        const { admin, io } = await t.both();
        const told = event(admin);
        (t.bdev as GatedBdev).failures.push(IoStatus.TIMEOUT);
        const { status } = await io.command(sqe(IoOpcode.FLUSH, 1));
        expect(status).toBe(Status.INTERNAL_ERROR);
        expect((await told).dword0).toBe(0x010400);
      },
      { bdev: (reactor) => new GatedBdev(reactor, 1024) },
    );
  });
});

describe("an admin command", () => {
  test("without an SGL, fused, or unknown, is refused", () => {
    withTarget(async (t) => {
      const { host } = await t.admin();
      for (const flags of [0x00, 0x41, 0xc0]) {
        const words = host.entry(sqe(AdminOpcode.KEEP_ALIVE, 0));
        words[0] = (words[0]! & ~0xff00) | (flags << 8);
        expect((await host.commandAs(words)).status).toBe(Status.INVALID_FIELD);
      }
      for (const opcode of [0x00, 0x01, 0x04, 0x05, 0x0d, 0x10, 0x11, 0x80, 0x84, 0xc0]) {
        expect((await host.command(sqe(opcode, 0))).status).toBe(Status.INVALID_OPCODE);
      }
    });
  });

  test("may say that it has data of length zero", () => {
    withTarget(async (t) => {
      const { host } = await t.admin();
      const words = host.entry(sqe(AdminOpcode.SET_FEATURES, 0, [FeatureId.ARBITRATION, 3]));
      new Uint8Array(words.buffer)[39] = 0x01;
      expect((await host.commandAs(words)).status).toBe(0);
    });
  });

  test("may carry 8 KiB", () => {
    withTarget(async (t) => {
      const { host } = await t.admin();
      const data = pattern(8192, 1);
      const { status } = await host.command(sqe(0x81, 0), { data });
      expect(status).toBe(Status.INVALID_OPCODE);
    });
  });

  test("with data of odd length is refused", () => {
    withTarget(async (t) => {
      const { host } = await t.admin();
      const { status } = await identify(host, 1, 0, 0, 4095);
      expect(status).toBe(Status.DATA_SGL_LENGTH_INVALID);
      expect((await identify(host, 1)).status).toBe(0);
    });
  });
});
