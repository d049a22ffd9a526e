import { describe, expect, test } from "bun:test";
import { AdminOpcode, Status } from "../../../../src/nvme/constants.ts";
import {
  connectCommand,
  connectData,
  identifyCommand,
  keepAliveCommand,
  propertyGetCommand,
  propertySetCommand,
} from "../../../../src/nvme/host-commands.ts";
import { PduType } from "../../../../src/nvme/pdu.ts";
import {
  CC_ENABLED,
  type ConnectOptions,
  connect,
  HOST_NQN,
  hostIdOf,
  RawHost,
  sqe,
} from "../../../support/raw-host.ts";
import {
  type FixtureOptions,
  NQN,
  type TargetFixture,
  withTarget,
} from "../../../support/target.ts";

const CC = 0x14;
const CSTS = 0x1c;
const IN_DATA = 1 << 16;

async function negotiated(t: TargetFixture): Promise<RawHost> {
  return t.keep(await RawHost.negotiate(t.reactor, t.address));
}

describe("Connect", () => {
  test("makes a controller, and queues for it", () => {
    withTarget(async (t) => {
      const { controllerId } = await t.admin();
      expect(t.subsystem.controllers.size).toBe(1);
      const controller = t.subsystem.controllers.get(controllerId)!;
      expect([controller.hostNqn, controller.hostId]).toEqual([
        HOST_NQN,
        Buffer.from(hostIdOf(1)).toString("hex"),
      ]);
      await t.io(controllerId, 1);
      await t.io(controllerId, 128);
      expect([...controller.queues.keys()]).toEqual([1, 128]);
    });
  });

  test("controller ids come from the subsystem's range, and run out", () => {
    withTarget(
      async (t) => {
        const made = [await t.admin(), await t.admin(), await t.admin()];
        expect(made.map((m) => m.controllerId)).toEqual([7, 8, 9]);
        const host = await negotiated(t);
        const { status } = await connect(host, { subsystemNqn: NQN });
        expect(status).toBe(Status.CONNECT_CONTROLLER_BUSY);
        await made[1]!.host.close();
        await t.until(() => t.subsystem.controllers.size === 2);
        expect((await t.admin()).controllerId).toBe(8);
      },
      { subsystem: { controllerIds: { min: 7, max: 9 } } },
    );
  });

  const refused: readonly (readonly [
    string,
    Partial<ConnectOptions>,
    number,
    number,
    FixtureOptions?,
  ])[] = [
    [
      "an unknown subsystem",
      { subsystemNqn: "nqn.2019-05.io.openebs:other" },
      Status.CONNECT_INVALID_PARAMETERS,
      IN_DATA | 256,
    ],
    [
      "a static controller id",
      { controllerId: 1 },
      Status.CONNECT_INVALID_PARAMETERS,
      IN_DATA | 16,
    ],
    ["a queue of one entry", { entries: 1 }, Status.CONNECT_INVALID_PARAMETERS, 44],
    ["an admin queue of 129 entries", { entries: 129 }, Status.CONNECT_INVALID_PARAMETERS, 44],
    [
      "an I/O queue of an unknown controller",
      { queueId: 1, controllerId: 77 },
      Status.CONNECT_INVALID_PARAMETERS,
      IN_DATA | 16,
    ],
    [
      "a host that is not admitted",
      {},
      Status.CONNECT_INVALID_HOST,
      0,
      { subsystem: { hosts: ["nqn.2014-08.org.nvmexpress:other"] } },
    ],
    [
      "a host without a name, where names are asked for",
      { hostNqn: "" },
      Status.CONNECT_INVALID_HOST,
      0,
      { subsystem: { hosts: [HOST_NQN] } },
    ],
  ];
  for (const [what, options, status, dword0, fixture] of refused) {
    test(`refuses ${what}, and closes the connection`, () => {
      withTarget(async (t) => {
        const host = await negotiated(t);
        const completion = await connect(host, { subsystemNqn: NQN, ...options });
        expect([completion.status, completion.dnr, completion.dword0]).toEqual([
          status,
          // What is not here now may be in a moment: hosts shall go on asking for it.
          what !== "an unknown subsystem",
          dword0,
        ]);
        await host.ended();
        expect(t.subsystem.controllers.size).toBe(0);
      }, fixture);
    });
  }

  test("refuses names without an end, and other record formats", () => {
    withTarget(async (t) => {
      const data = connectData({
        hostId: hostIdOf(1),
        hostNqn: HOST_NQN,
        subsystemNqn: NQN,
        controllerId: 0xffff,
      });
      for (const at of [256, 512]) {
        const host = await negotiated(t);
        const broken = data.slice().fill(0x61, at, at + 256);
        const completion = await host.command(connectCommand(0, 32, 0), { data: broken });
        expect([completion.status, completion.dword0]).toEqual([
          Status.CONNECT_INVALID_PARAMETERS,
          IN_DATA | at,
        ]);
      }
      const host = await negotiated(t);
      const entry = connectCommand(0, 32, 0);
      entry[10] = 1;
      const { status } = await host.command(entry, { data });
      expect(status).toBe(Status.CONNECT_INCOMPATIBLE_FORMAT);
      const short = await negotiated(t);
      const cut = await short.command(connectCommand(0, 32, 0), { data: data.slice(0, 512) });
      expect(cut.status).toBe(Status.DATA_SGL_LENGTH_INVALID);
    });
  });

  test("an I/O queue belongs to the host that made the controller", () => {
    withTarget(async (t) => {
      const { controllerId } = await t.admin();
      for (const other of [{ hostNqn: `${HOST_NQN}0` }, { hostId: hostIdOf(2) }]) {
        const host = await negotiated(t);
        const options = { subsystemNqn: NQN, controllerId, queueId: 1, ...other };
        const { status } = await connect(host, options);
        expect(status).toBe(Status.CONNECT_INVALID_PARAMETERS);
      }
    });
  });

  test("a queue id is used once at a time, and within the limit", () => {
    withTarget(async (t) => {
      const { controllerId } = await t.admin();
      const first = await t.io(controllerId, 3);
      for (const queueId of [3, 129]) {
        const host = await negotiated(t);
        const completion = await connect(host, { subsystemNqn: NQN, controllerId, queueId });
        expect([completion.status, completion.dword0]).toEqual([
          Status.CONNECT_INVALID_PARAMETERS,
          42,
        ]);
      }
      await first.close();
      await t.until(() => t.subsystem.controllers.get(controllerId)!.queues.size === 0);
      await t.io(controllerId, 3);
    });
  });

  test("I/O queues wait for the controller to be enabled", () => {
    withTarget(async (t) => {
      const { host, controllerId } = await t.admin({ isLeftDisabled: true });
      const options = { subsystemNqn: NQN, controllerId, queueId: 1 };
      expect((await connect(await negotiated(t), options)).status).not.toBe(0);
      expect((await host.command(propertySetCommand(CC, CC_ENABLED))).status).toBe(0);
      expect((await connect(await negotiated(t), options)).status).toBe(0);
    });
  });

  test("any other command first is a sequence error", () => {
    withTarget(async (t) => {
      const host = await negotiated(t);
      const { status } = await host.command(identifyCommand(1, 0), { room: 4096 });
      expect(status).toBe(Status.COMMAND_SEQUENCE_ERROR);
      await host.ended();
    });
  });

  test("Connect a second time is a sequence error", () => {
    withTarget(async (t) => {
      const { host } = await t.admin();
      expect((await connect(host, { subsystemNqn: NQN })).status).toBe(
        Status.COMMAND_SEQUENCE_ERROR,
      );
    });
  });

  test("a connection that says nothing is closed", () => {
    withTarget(
      async (t) => {
        const silent = t.keep(await RawHost.socket(t.reactor, t.address));
        await silent.ended();
        const undecided = await negotiated(t);
        await undecided.ended();
        expect(t.target.connections.size).toBe(0);
      },
      { target: { limits: { handshakeMs: 20 } } },
    );
  });

  test("the time limit ends with Connect", () => {
    withTarget(
      async (t) => {
        const { host } = await t.admin();
        // A connection that came later meets the limit; this one does not.
        const silent = t.keep(await RawHost.socket(t.reactor, t.address));
        await silent.ended();
        expect((await host.command(keepAliveCommand())).status).toBe(0);
      },
      { target: { limits: { handshakeMs: 20 } } },
    );
  });
});

describe("a controller", () => {
  test("tells its properties", () => {
    withTarget(async (t) => {
      const { host } = await t.admin({ isLeftDisabled: true });
      const get = (offset: number, bytes: 4 | 8) => host.command(propertyGetCommand(offset, bytes));
      const cap = await get(0, 8);
      // MQES 1023, CQR, TO 20; CSS bit 0 (37 of CAP).
      expect([cap.dword0, cap.dword1]).toEqual([0x140103ff, 0x20]);
      expect((await get(8, 4)).dword0).toBe(0x20000);
      expect((await get(CC, 4)).dword0).toBe(0);
      expect((await get(CSTS, 4)).dword0).toBe(0);
      expect((await get(0x20, 4)).dword0).toBe(0);
      for (const [offset, bytes] of [
        [0, 4],
        [CC, 8],
        [0x24, 8],
        [0x1000, 4],
      ] as const) {
        expect((await get(offset, bytes)).status).toBe(Status.INVALID_FIELD);
      }
      for (const offset of [0, 8, CSTS, 0x20]) {
        const { status } = await host.command(propertySetCommand(offset, 1));
        expect(status).toBe(Status.INVALID_FIELD);
      }
    });
  });

  test("takes other commands only when it is enabled", () => {
    withTarget(async (t) => {
      const { host } = await t.admin({ isLeftDisabled: true });
      const identify = () => host.command(identifyCommand(1, 0), { room: 4096 });
      expect((await identify()).status).toBe(Status.COMMAND_SEQUENCE_ERROR);
      await host.command(propertySetCommand(CC, CC_ENABLED));
      expect((await host.command(propertyGetCommand(CSTS, 4))).dword0).toBe(1);
      expect((await identify()).status).toBe(0);
    });
  });

  for (const [what, value] of [
    ["wrong entry sizes", 1],
    ["another command set", CC_ENABLED | (6 << 4)],
    ["another page size", CC_ENABLED | (1 << 7)],
    ["another arbitration", CC_ENABLED | (1 << 11)],
  ] as const) {
    test(`enabled with ${what} reports a fatal status`, () => {
      withTarget(async (t) => {
        const { host } = await t.admin({ isLeftDisabled: true });
        await host.command(propertySetCommand(CC, value));
        expect((await host.command(propertyGetCommand(CSTS, 4))).dword0).toBe(2);
        // Disabled and enabled rightly, it works.
        await host.command(propertySetCommand(CC, 0));
        await host.command(propertySetCommand(CC, CC_ENABLED));
        expect((await host.command(propertyGetCommand(CSTS, 4))).dword0).toBe(1);
      });
    });
  }

  test("a shutdown is complete at once", () => {
    withTarget(async (t) => {
      const { host } = await t.admin();
      await host.command(propertySetCommand(CC, CC_ENABLED | (1 << 14)));
      expect((await host.command(propertyGetCommand(CSTS, 4))).dword0).toBe(1 | 8);
      await host.command(propertySetCommand(CC, 0));
      expect((await host.command(propertyGetCommand(CSTS, 4))).dword0).toBe(0);
    });
  });

  test("a reset ends its I/O queues and event requests, and forgets its features", () => {
    withTarget(async (t) => {
      const { admin, io, controllerId } = await t.both();
      const event = admin.command(sqe(AdminOpcode.ASYNC_EVENT_REQUEST, 0));
      await admin.command(sqe(AdminOpcode.SET_FEATURES, 0, [0x0b, 0x900]));
      await admin.command(propertySetCommand(CC, 0));
      expect((await event).status).toBe(Status.ABORT_REQUESTED);
      await io.ended();
      await admin.command(propertySetCommand(CC, CC_ENABLED));
      const feature = await admin.command(sqe(AdminOpcode.GET_FEATURES, 0, [0x0b]));
      expect(feature.dword0).toBe(0);
      await t.io(controllerId, 1);
    });
  });

  test("left disabled it ends", () => {
    withTarget(
      async (t) => {
        const { host } = await t.admin();
        await host.command(propertySetCommand(CC, 0));
        await host.ended();
        expect(t.subsystem.controllers.size).toBe(0);
      },
      { target: { limits: { disabledMs: 20 } } },
    );
  });

  test("ends with its admin queue, and takes its I/O queues along", () => {
    withTarget(async (t) => {
      const { admin, io } = await t.both();
      await admin.close();
      await io.ended();
      await t.until(() => t.subsystem.controllers.size === 0);
    });
  });
});

describe("keep alive", () => {
  test("a silent host is given up, with all its queues", () => {
    withTarget(async (t) => {
      const { admin, io } = await t.both({ keepAliveMs: 1 });
      // The time-out is rounded up to the granularity of a second.
      expect([...t.subsystem.controllers.values()][0]!.keepAliveMs).toBe(1000);
      await admin.ended();
      await io.ended();
      expect(t.log.some(({ fields }) => fields?.reason === "keep-alive time-out")).toBe(true);
    });
  });

  test("any command on any queue is a sign of life", () => {
    withTarget(async (t) => {
      const { admin, io, controllerId } = await t.both({ keepAliveMs: 1000 });
      const controller = t.subsystem.controllers.get(controllerId)!;
      // Another controller, made later, says nothing: when it has ended, so would this one have.
      const { host: silent } = await t.admin({ keepAliveMs: 1000 });
      let isOver = false;
      const over = silent.ended().then(() => {
        isOver = true;
      });
      while (!isOver) await io.command(sqe(0, 1));
      await over;
      expect(controller.ended).toBe(false);
      expect((await admin.command(keepAliveCommand())).status).toBe(0);
    });
  });

  test("feature 0Fh changes and stops it", () => {
    withTarget(async (t) => {
      const { host, controllerId } = await t.admin({ keepAliveMs: 1000 });
      await host.command(sqe(AdminOpcode.SET_FEATURES, 0, [0x0f, 0]));
      const controller = t.subsystem.controllers.get(controllerId)!;
      expect(controller.keepAliveMs).toBe(0);
      const { host: silent } = await t.admin({ keepAliveMs: 1000 });
      await silent.ended();
      expect(controller.ended).toBe(false);
      await host.command(sqe(AdminOpcode.SET_FEATURES, 0, [0x0f, 1001]));
      expect((await host.command(sqe(AdminOpcode.GET_FEATURES, 0, [0x0f]))).dword0).toBe(2000);
    });
  });
});

describe("negotiation", () => {
  test("answers with MAXH2CDATA and the digests asked for", () => {
    withTarget(
      async (t) => {
        const host = t.keep(
          await RawHost.negotiate(t.reactor, t.address, { headerDigest: true, dataDigest: true }),
        );
        expect(host.maxH2cData).toBe(65536);
        expect((await connect(host, { subsystemNqn: NQN })).status).toBe(0);
      },
      { target: { h2cDataBytes: 65536 } },
    );
  });

  test("the answer is an ICResp of version 0", () => {
    withTarget(async (t) => {
      const host = t.keep(await RawHost.socket(t.reactor, t.address));
      host.receive();
      const request = new Uint8Array(128);
      request.set([PduType.IC_REQ, 0, 128, 0, 128]);
      await host.send(request);
      const { bytes } = (await host.nextPdu())!;
      expect([...bytes.subarray(0, 16)]).toEqual([
        ...[PduType.IC_RESP, 0, 128, 0, 128, 0, 0, 0],
        ...[0, 0, 0, 0, 0, 0, 16, 0],
      ]);
      expect(bytes.subarray(16).every((byte) => byte === 0)).toBe(true);
    });
  });
});
