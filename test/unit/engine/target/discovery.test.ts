import { describe, expect, test } from "bun:test";
import {
  AdminOpcode,
  DISCOVERY_NQN,
  IoOpcode,
  LogPageId,
  Status,
} from "../../../../src/nvme/constants.ts";
import { decodeIdentifyController } from "../../../../src/nvme/identify-decode.ts";
import { connect, HOST_NQN, RawHost, sqe } from "../../../support/raw-host.ts";
import { NQN, type TargetFixture, withTarget } from "../../../support/target.ts";

const UNIQUE_NQN = "nqn.2019-05.io.openebs:discovery:node-1";
const named = { target: { discovery: { nqn: UNIQUE_NQN, serial: "D", model: "discovery" } } };

async function discovery(
  t: TargetFixture,
  more: { hostNqn?: string; keepAliveMs?: number; subsystemNqn?: string } = {},
): Promise<RawHost> {
  return (await t.admin({ subsystemNqn: DISCOVERY_NQN, ...more })).host;
}

async function readLog(host: RawHost, bytes: number, offset = 0, flags = 0) {
  const dword10 = LogPageId.DISCOVERY | flags | ((bytes / 4 - 1) << 16);
  return host.command(sqe(AdminOpcode.GET_LOG_PAGE, 0, [dword10, 0, offset]), { room: bytes });
}

function text(bytes: Uint8Array, from: number, to: number): string {
  return Buffer.from(bytes.subarray(from, to))
    .toString()
    .replace(/[\0 ]+$/, "");
}

/** Generation and entries of the whole page. */
async function entries(host: RawHost) {
  const header = (await readLog(host, 1024)).data;
  const view = new DataView(header.buffer);
  const count = Number(view.getBigUint64(8, true));
  const page = count === 0 ? new Uint8Array(0) : (await readLog(host, count * 1024, 1024)).data;
  const list = Array.from({ length: count }, (_, i) => {
    const entry = page.subarray(i * 1024, (i + 1) * 1024);
    return {
      transport: entry[0],
      family: entry[1],
      subtype: entry[2],
      requirements: entry[3],
      port: text(entry, 32, 64),
      nqn: text(entry, 256, 512),
      address: text(entry, 512, 768),
    };
  });
  return { generation: Number(view.getBigUint64(0, true)), list };
}

const data = {
  generation: 7,
  ports: [
    { address: "192.0.2.1", port: 8420 },
    { address: "2001:db8::1", port: 8009 },
  ],
  subsystems: [
    { nqn: NQN, hosts: undefined },
    { nqn: `${NQN}:private`, hosts: [HOST_NQN] },
  ],
};

describe("the discovery log page", () => {
  test("names every subsystem at every port, and the service itself", () => {
    withTarget(async (t) => {
      t.target.discovery!.setData(data);
      const { generation, list } = await entries(await discovery(t));
      expect(generation).toBe(7);
      const at = (family: number, address: string, port: string) => ({
        transport: 3,
        family,
        requirements: 0,
        port,
        address,
      });
      const first = at(1, "192.0.2.1", "8420");
      const second = at(2, "2001:db8::1", "8009");
      expect(list).toEqual([
        { ...first, subtype: 3, nqn: UNIQUE_NQN },
        { ...first, subtype: 2, nqn: NQN },
        { ...first, subtype: 2, nqn: `${NQN}:private` },
        { ...second, subtype: 3, nqn: UNIQUE_NQN },
        { ...second, subtype: 2, nqn: NQN },
        { ...second, subtype: 2, nqn: `${NQN}:private` },
      ]);
    }, named);
  });

  test("tells a host only of what it may connect to", () => {
    withTarget(async (t) => {
      t.target.discovery!.setData(data);
      const { list } = await entries(await discovery(t, { hostNqn: `${HOST_NQN}-other` }));
      expect(list.map(({ nqn }) => nqn)).toEqual([DISCOVERY_NQN, NQN, DISCOVERY_NQN, NQN]);
    });
  });

  test("refers to other services", () => {
    withTarget(async (t) => {
      const referrals = [{ nqn: DISCOVERY_NQN, address: "192.0.2.9", port: 8009 }];
      t.target.discovery!.setData({ generation: 1, ports: [], subsystems: [], referrals });
      const { list } = await entries(await discovery(t));
      expect(list.map(({ subtype, address }) => [subtype, address])).toEqual([[1, "192.0.2.9"]]);
    });
  });

  test("is the same in whatever pieces it is read", () => {
    withTarget(async (t) => {
      const subsystems = Array.from({ length: 50 }, (_, i) => ({
        nqn: `${NQN}:${i}`,
        hosts: undefined,
      }));
      t.target.discovery!.setData({ ...data, subsystems });
      const host = await discovery(t);
      const length = 1024 * 103;
      const whole = Buffer.from((await readLog(host, length)).data);
      for (const step of [4, 1020, 4096, 10_000]) {
        const from = step === 4 ? 2040 : 0;
        const to = step === 4 ? 2060 : length;
        for (let at = from; at < to; at += step) {
          const n = Math.min(step, to - at);
          const part = (await readLog(host, n, at)).data;
          expect(Buffer.from(part).equals(whole.subarray(at, at + n))).toBe(true);
        }
      }
      const end = await readLog(host, 64, length);
      expect([end.status, end.data.every((byte) => byte === 0)]).toEqual([0, true]);
      expect((await readLog(host, 64, length + 4)).status).toBe(Status.INVALID_FIELD);
    });
  });

  test("a change is told to hosts that stay, once until they look", () => {
    withTarget(async (t) => {
      const host = await discovery(t, { keepAliveMs: 30_000 });
      const set = await host.command(sqe(AdminOpcode.SET_FEATURES, 0, [0x0b, 1 << 31]));
      expect(set.status).toBe(0);
      const event = () => host.command(sqe(AdminOpcode.ASYNC_EVENT_REQUEST, 0));
      const first = event();
      t.target.discovery!.setData(data);
      expect((await first).dword0).toBe(0x70f002);
      const second = event();
      t.target.discovery!.setData({ ...data, generation: 8 });
      expect((await entries(host)).generation).toBe(8);
      t.target.discovery!.setData({ ...data, generation: 9, subsystems: [] });
      expect((await second).dword0).toBe(0x70f002);
      expect((await entries(host)).list).toHaveLength(2);
    });
  });
});

describe("a discovery controller", () => {
  test("is reached by the well-known name and by its own", () => {
    withTarget(async (t) => {
      for (const subsystemNqn of [DISCOVERY_NQN, UNIQUE_NQN]) {
        const host = await discovery(t, { subsystemNqn });
        const { data } = await host.command(sqe(AdminOpcode.IDENTIFY, 0, [1]), { room: 4096 });
        expect([data[111], decodeIdentifyController(data).subsystemNqn]).toEqual([2, UNIQUE_NQN]);
      }
    }, named);
  });

  test("has no I/O queues, no namespaces, and few commands", () => {
    withTarget(async (t) => {
      const { host, controllerId } = await t.admin({ subsystemNqn: DISCOVERY_NQN });
      const io = t.keep(await RawHost.negotiate(t.reactor, t.address));
      const refused = await connect(io, { subsystemNqn: DISCOVERY_NQN, controllerId, queueId: 1 });
      expect(refused.status).toBe(Status.CONNECT_INVALID_PARAMETERS);
      for (const cns of [0, 2, 3, 5, 6, 7, 8, 0x1c]) {
        const { status } = await host.command(sqe(AdminOpcode.IDENTIFY, 1, [cns]), { room: 4096 });
        expect(status).toBe(Status.INVALID_FIELD);
      }
      for (const id of [2, 3, 4, 5, 0x0c, 0x80]) {
        const { status } = await host.command(sqe(AdminOpcode.GET_LOG_PAGE, 0, [(15 << 16) | id]), {
          room: 64,
        });
        expect(status).toBe(Status.INVALID_LOG_PAGE);
      }
      for (const id of [1, 2, 6, 7, 0x16, 0x81, 0x82, 0x83]) {
        expect((await host.command(sqe(AdminOpcode.GET_FEATURES, 0, [id]))).status).toBe(
          Status.INVALID_FIELD,
        );
        expect((await host.command(sqe(AdminOpcode.SET_FEATURES, 0, [id]))).status).toBe(
          Status.INVALID_FIELD,
        );
      }
      expect((await host.command(sqe(IoOpcode.WRITE, 1))).status).toBe(Status.INVALID_OPCODE);
    });
  });

  test("without a keep-alive time-out ends when nothing is asked of it", () => {
    withTarget(
      async (t) => {
        const host = await discovery(t);
        await host.ended();
        expect(t.target.discovery!.controllers.size).toBe(0);
      },
      { target: { limits: { discoveryIdleMs: 30 } } },
    );
  });

  test("is not there when the target has no discovery", () => {
    withTarget(
      async (t) => {
        const host = t.keep(await RawHost.negotiate(t.reactor, t.address));
        const { status } = await connect(host, { subsystemNqn: DISCOVERY_NQN });
        expect(status).toBe(Status.CONNECT_INVALID_PARAMETERS);
      },
      { target: { discovery: undefined } },
    );
  });
});
