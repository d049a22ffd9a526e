import { describe, expect, test } from "bun:test";
import { closeFd, listenTcp, localAddress } from "../../../../ffi/index.ts";
import type { Bdev, BdevEvent, BdevListener } from "../../../../src/engine/bdev/bdev.ts";
import { openMemoryBdev } from "../../../../src/engine/bdev/memory.ts";
import type { Reactor } from "../../../../src/engine/reactor/reactor.ts";
import { recvBuffersOf } from "../../../../src/engine/reactor/tcp-stream.ts";
import { Subsystem } from "../../../../src/engine/target/subsystem.ts";
import { type HandedOver, Target } from "../../../../src/engine/target/target.ts";
import type { VendorCommand } from "../../../../src/engine/target/vendor.ts";
import { TrilithError } from "../../../../src/errors.ts";
import {
  AdminOpcode,
  AnaState,
  IoOpcode,
  LogPageId,
  Status,
} from "../../../../src/nvme/constants.ts";
import {
  decodeActiveNamespaces,
  decodeIdentifyNamespace,
} from "../../../../src/nvme/identify-decode.ts";
import { GatedBdev } from "../../../support/gated-bdev.ts";
import { connect, HOST_NQN, hostIdOf, pattern, RawHost, sqe } from "../../../support/raw-host.ts";
import { NQN, type TargetFixture, withTarget } from "../../../support/target.ts";

const BLOCK = 512;
const gated = { bdev: (reactor: Reactor) => new GatedBdev(reactor, 16384) };

/** A memory device that grows and goes when the test says so. */
function changing(reactor: Reactor): {
  bdev: Bdev;
  tell: (event: BdevEvent, blockCount?: number) => void;
} {
  const memory = openMemoryBdev(reactor, {
    driver: "malloc",
    name: "c",
    blockSize: 512,
    blockCount: 16384,
    uuid: undefined,
  });
  const listeners = new Set<BdevListener>();
  let blockCount = 1024;
  const bdev: Bdev = Object.create(memory, {
    blockCount: { get: () => blockCount },
    listen: {
      value: (listener: BdevListener) => {
        listeners.add(listener);
        return () => listeners.delete(listener);
      },
    },
  });
  return {
    bdev,
    tell: (event) => {
      if (event.kind === "resized") blockCount = event.blockCount;
      for (const listener of [...listeners]) listener(event);
    },
  };
}

describe("a namespace", () => {
  test("that grows is announced, and can be used to its new end", () => {
    let device: ReturnType<typeof changing> | undefined;
    withTarget(
      async (t) => {
        const { admin, io } = await t.both();
        await admin.command(sqe(AdminOpcode.SET_FEATURES, 0, [0x0b, 1 << 8]));
        const event = admin.command(sqe(AdminOpcode.ASYNC_EVENT_REQUEST, 0));
        const read = () => io.command(sqe(IoOpcode.READ, 1, [2047, 0, 0]), { room: BLOCK });
        expect((await read()).status).toBe(Status.LBA_OUT_OF_RANGE);
        device!.tell({ kind: "resized", blockCount: 2048 });
        expect((await event).dword0).toBe(0x040002);
        expect((await read()).status).toBe(0);
        const { data } = await admin.command(sqe(AdminOpcode.IDENTIFY, 1, [0]), { room: 4096 });
        expect(decodeIdentifyNamespace(data).blockCount).toBe(2048);
        const changed = async () => {
          const dword10 = LogPageId.CHANGED_NAMESPACES | (1023 << 16);
          const page = await admin.command(sqe(AdminOpcode.GET_LOG_PAGE, 0, [dword10]), {
            room: 4096,
          });
          return decodeActiveNamespaces(page.data);
        };
        expect(await changed()).toEqual([1]);
        expect(await changed()).toEqual([]);
      },
      {
        bdev: (reactor) => {
          device = changing(reactor);
          return device.bdev;
        },
      },
    );
  });

  test("whose device is removed is announced, and is no longer there", () => {
    let device: ReturnType<typeof changing> | undefined;
    withTarget(
      async (t) => {
        const { admin, io } = await t.both();
        await admin.command(sqe(AdminOpcode.SET_FEATURES, 0, [0x0b, 1 << 8]));
        const event = admin.command(sqe(AdminOpcode.ASYNC_EVENT_REQUEST, 0));
        device!.tell({ kind: "removed", reason: "pulled" });
        expect((await event).dword0).toBe(0x040002);
        const list = await admin.command(sqe(AdminOpcode.IDENTIFY, 0, [2]), { room: 4096 });
        expect(decodeActiveNamespaces(list.data)).toEqual([]);
        const ns = await admin.command(sqe(AdminOpcode.IDENTIFY, 1, [0]), { room: 4096 });
        expect(ns.data.every((byte) => byte === 0)).toBe(true);
        const read = await io.command(sqe(IoOpcode.READ, 1, [0, 0, 0]), { room: BLOCK });
        expect(read.status).toBe(Status.INVALID_NAMESPACE);
      },
      {
        bdev: (reactor) => {
          device = changing(reactor);
          return device.bdev;
        },
      },
    );
  });
});

describe("a subsystem", () => {
  test("taken out ends its controllers, after what is under way", () => {
    withTarget(async (t) => {
      const bdev = t.bdev as GatedBdev;
      const { admin, io } = await t.both();
      bdev.gate = true;
      io.command(sqe(IoOpcode.WRITE, 1, [0, 0, 0]), { data: pattern(BLOCK, 1) }).catch(() => {});
      await bdev.came(1);
      let isOut = false;
      const out = t.target.removeSubsystem(NQN).then(() => {
        isOut = true;
      });
      await admin.ended();
      await io.ended();
      const late = t.keep(await RawHost.negotiate(t.reactor, t.address));
      expect((await connect(late, { subsystemNqn: NQN })).status).toBe(
        Status.CONNECT_INVALID_PARAMETERS,
      );
      expect(isOut).toBe(false);
      expect(() => t.target.addSubsystem(t.subsystem)).toThrow(TrilithError);
      bdev.open();
      await out;
      expect(t.target.subsystem(NQN)).toBeUndefined();
      const error = await t.target.removeSubsystem(NQN).catch((e: unknown) => e);
      expect(error).toBeInstanceOf(TrilithError);
    }, gated);
  });

  test("ends the hosts that it no longer admits, and only those", () => {
    withTarget(async (t) => {
      const a = await t.both();
      const b = await t.both({ hostNqn: `${HOST_NQN}-b`, hostId: hostIdOf(2) });
      t.subsystem.setHosts([`${HOST_NQN}-b`]);
      await a.admin.ended();
      await a.io.ended();
      expect((await b.io.command(sqe(IoOpcode.FLUSH, 1))).status).toBe(0);
      const again = t.keep(await RawHost.negotiate(t.reactor, t.address));
      expect((await connect(again, { subsystemNqn: NQN })).status).toBe(
        Status.CONNECT_INVALID_HOST,
      );
      t.subsystem.setHosts(undefined);
      await t.both();
    });
  });

  test("keeps serving what a device has begun when its group changes", () => {
    withTarget(async (t) => {
      const bdev = t.bdev as GatedBdev;
      const { io } = await t.both();
      bdev.gate = true;
      const begun = io.command(sqe(IoOpcode.READ, 1, [0, 0, 0]), { room: BLOCK });
      await bdev.came(1);
      t.subsystem.setAnaState(AnaState.INACCESSIBLE);
      const late = await io.command(sqe(IoOpcode.READ, 1, [0, 0, 0]), { room: BLOCK });
      expect(late.status).toBe(Status.ANA_INACCESSIBLE);
      bdev.open();
      expect((await begun).status).toBe(0);
    }, gated);
  });
});

describe("vendor commands", () => {
  function hooked(body: (t: TargetFixture, seen: VendorCommand[]) => Promise<void>): void {
    const seen: VendorCommand[] = [];
    const vendor = { execute: (command: VendorCommand) => void seen.push(command) };
    withTarget((t) => body(t, seen), { subsystem: { vendor } });
  }

  test("reach the hook with their data and dwords, and are answered later", () => {
    hooked(async (t, seen) => {
      const { io } = await t.both();
      const data = pattern(8192, 3);
      const toController = io.command(sqe(0xc1, 1, [1, 2, 3, 4, 5, 0xffffffff]), { data });
      const byR2t = io.command(sqe(0xc5, 1), { data: pattern(65536, 4), byR2t: true });
      const toHost = io.command(sqe(0xc2, 1), { room: 8192 });
      const none = io.command(sqe(0xfc, 1));
      await t.until(() => seen.length === 4);
      const [a, b, c, d] = ["c1", "c5", "c2", "fc"].map(
        (opcode) => seen.find((s) => s.opcode.toString(16) === opcode)!,
      );
      expect(([10, 11, 12, 13, 14, 15] as const).map((n) => a!.dword(n))).toEqual([
        1, 2, 3, 4, 5, 0xffffffff,
      ]);
      expect(Buffer.from(a!.data).equals(Buffer.from(data))).toBe(true);
      expect(Buffer.from(b!.data).equals(Buffer.from(pattern(65536, 4)))).toBe(true);
      expect([a!.hostNqn, a!.room, c!.room, d!.data.byteLength]).toEqual([HOST_NQN, 0, 8192, 0]);
      d!.respond(0, undefined, 42);
      c!.respond(0, pattern(100, 9));
      b!.respond(Status.CAPACITY_EXCEEDED | 0x4000);
      a!.respond(0);
      expect([(await toController).status, (await byR2t).status, (await none).dword0]).toEqual([
        0,
        Status.CAPACITY_EXCEEDED,
        42,
      ]);
      const expected = new Uint8Array(8192);
      expected.set(pattern(100, 9));
      expect(Buffer.from((await toHost).data).equals(Buffer.from(expected))).toBe(true);
    });
  });

  test("are bounded", () => {
    hooked(async (t, seen) => {
      const { controllerId } = await t.admin();
      const queues = [
        await t.io(controllerId, 1),
        await t.io(controllerId, 2),
        await t.io(controllerId, 3),
      ];
      const statuses: number[] = [];
      const all = queues.flatMap((io) =>
        Array.from({ length: 100 }, async () => {
          statuses.push((await io.command(sqe(0xc0, 1))).status);
        }),
      );
      // Answered while the hook holds all it may hold: one too many, every time.
      await t.until(() => statuses.length === 44);
      expect(seen).toHaveLength(256);
      expect(new Set(statuses)).toEqual(new Set([Status.COMMAND_INTERRUPTED]));
      for (const command of seen) command.respond(0);
      await Promise.all(all);
      expect(statuses.filter((status) => status === 0)).toHaveLength(256);
    });
  });

  test("may be answered when their host has gone", () => {
    hooked(async (t, seen) => {
      const { io, admin } = await t.both();
      io.command(sqe(0xc2, 1), { room: 4096 }).catch(() => {});
      await t.until(() => seen.length === 1);
      await io.close();
      await admin.close();
      await t.until(() => t.target.connections.size === 0);
      expect(t.subsystem.controllers.size).toBe(1);
      seen[0]!.respond(0, pattern(4096, 1));
      expect(t.subsystem.controllers.size).toBe(0);
      expect(() => seen[0]!.respond(0)).toThrow("answered once");
    });
  });

  test("obey namespace and group", () => {
    hooked(async (t, seen) => {
      const { io } = await t.both();
      expect((await io.command(sqe(0xc0, 2))).status).toBe(Status.INVALID_NAMESPACE);
      expect((await io.command(sqe(0xc3, 1))).status).toBe(Status.INVALID_OPCODE);
      t.subsystem.setAnaState(AnaState.INACCESSIBLE);
      expect((await io.command(sqe(0xc0, 1))).status).toBe(Status.ANA_INACCESSIBLE);
      expect(seen).toHaveLength(0);
    });
  });
});

describe("a connection for a subsystem elsewhere", () => {
  /** Two targets; the second one has the subsystem `NQN:far`, the first knows that. */
  function withTwo(
    body: (t: TargetFixture, far: Target, moved: HandedOver[]) => Promise<void>,
  ): void {
    const moved: HandedOver[] = [];
    let far: Target | undefined;
    const handOver = (connection: HandedOver): void => {
      moved.push(connection);
      far!.takeOver(connection);
    };
    withTarget(
      async (t) => {
        far = new Target(t.reactor, recvBuffersOf(t.reactor), { ...t.target.options, handOver });
        const options = {
          nqn: `${NQN}:far`,
          serial: "S",
          model: "m",
          hosts: undefined,
          controllerIds: { min: 1, max: 9 },
          anaState: AnaState.OPTIMIZED,
        };
        far.addSubsystem(new Subsystem(options, t.bdev));
        t.target.setRoutes(new Map([[`${NQN}:far`, 1]]));
        try {
          await body(t, far, moved);
        } finally {
          await far.close();
        }
      },
      { target: { handOver } },
    );
  }

  test("is passed on, with what was received already", () => {
    for (const digests of [false, true]) {
      withTwo(async (t, far, moved) => {
        const options = { subsystemNqn: `${NQN}:far`, headerDigest: digests, dataDigest: digests };
        const { admin, io } = await t.both(options);
        expect(moved.map((m) => [m.reactorIndex, m.passed])).toEqual([
          [1, 1],
          [1, 1],
        ]);
        expect([t.target.connections.size, far.connections.size]).toEqual([0, 2]);
        const data = pattern(65536, 1);
        expect(
          (await io.command(sqe(IoOpcode.WRITE, 1, [0, 0, 127]), { data, byR2t: true })).status,
        ).toBe(0);
        const read = await io.command(sqe(IoOpcode.READ, 1, [0, 0, 127]), { room: 65536 });
        expect(Buffer.from(read.data).equals(Buffer.from(data))).toBe(true);
        expect((await admin.command(sqe(AdminOpcode.KEEP_ALIVE, 0))).status).toBe(0);
      });
    }
  });

  test("is passed on when Connect comes together with the negotiation and with other commands", () => {
    withTwo(async (t, far) => {
      const host = t.keep(await RawHost.socket(t.reactor, t.address));
      const other = t.keep(await RawHost.negotiate(t.reactor, t.address));
      // The capsules as another connection would send them, all in one piece.
      const request = new Uint8Array(128);
      request.set([0, 0, 128, 0, 128]);
      const { connectCommand, connectData, propertyGetCommand } = await import(
        "../../../../src/nvme/host-commands.ts"
      );
      const connectBytes = connectData({
        hostId: hostIdOf(1),
        hostNqn: HOST_NQN,
        subsystemNqn: `${NQN}:far`,
        controllerId: 0xffff,
      });
      const entry = other.entry(connectCommand(0, 32, 0), { data: connectBytes }, 1);
      const get = other.entry(propertyGetCommand(8, 4), {}, 2);
      await host.send(
        Buffer.concat([request, other.capsule(entry, connectBytes), other.capsule(get)]),
      );
      host.receive();
      const answers = [(await host.nextPdu())!, (await host.nextPdu())!, (await host.nextPdu())!];
      expect(answers.map((pdu) => pdu.type)).toEqual([1, 5, 5]);
      expect(answers[2]!.view.getUint32(8, true)).toBe(0x20000);
      expect(far.connections.size).toBe(1);
    });
  });

  test("outlives the time limit of the handshake that it has left", () => {
    const moved: HandedOver[] = [];
    let far: Target | undefined;
    const handOver = (connection: HandedOver): void => {
      moved.push(connection);
      far!.takeOver(connection);
    };
    withTarget(
      async (t) => {
        far = new Target(t.reactor, recvBuffersOf(t.reactor), { ...t.target.options, handOver });
        far.addSubsystem(
          new Subsystem(
            {
              nqn: `${NQN}:far`,
              serial: "S",
              model: "m",
              hosts: undefined,
              controllerIds: { min: 1, max: 9 },
              anaState: AnaState.OPTIMIZED,
            },
            t.bdev,
          ),
        );
        t.target.setRoutes(new Map([[`${NQN}:far`, 1]]));
        const { host } = await t.admin({ subsystemNqn: `${NQN}:far` });
        const silent = t.keep(await RawHost.socket(t.reactor, t.address));
        await silent.ended();
        expect((await host.command(sqe(AdminOpcode.KEEP_ALIVE, 0))).status).toBe(0);
        await far.close();
      },
      { target: { handOver, limits: { handshakeMs: 30 } } },
    );
  });

  test("is refused where nobody knows better", () => {
    withTwo(async (t, far, moved) => {
      // Two targets that send it back and forth: neither has it.
      t.target.setRoutes(new Map([[`${NQN}:lost`, 1]]));
      far.setRoutes(new Map([[`${NQN}:lost`, 1]]));
      const host = t.keep(await RawHost.negotiate(t.reactor, t.address));
      const { status } = await connect(host, { subsystemNqn: `${NQN}:lost` });
      expect(status).toBe(Status.CONNECT_INVALID_PARAMETERS);
      expect(moved).toHaveLength(2);
    });
  });
});

describe("a target", () => {
  test("that is closed ends everything, whatever is under way", () => {
    withTarget(async (t) => {
      const bdev = t.bdev as GatedBdev;
      const far = new Target(t.reactor, recvBuffersOf(t.reactor), t.target.options);
      const subsystem = new Subsystem(
        {
          nqn: `${NQN}:2`,
          serial: "S",
          model: "m",
          hosts: undefined,
          controllerIds: { min: 1, max: 9 },
          anaState: AnaState.OPTIMIZED,
        },
        bdev,
      );
      far.addSubsystem(subsystem);
      const fd = listenTcp({ address: "127.0.0.1", port: 0 }, 16);
      far.listen(fd);
      const address = localAddress(fd);
      const half = t.keep(await RawHost.socket(t.reactor, address));
      await half.send(new Uint8Array([0, 0, 128]));
      const host = t.keep(await RawHost.negotiate(t.reactor, address, { answersR2t: false }));
      expect((await connect(host, { subsystemNqn: `${NQN}:2` })).status).toBe(0);
      host.command(sqe(AdminOpcode.ASYNC_EVENT_REQUEST, 0)).catch(() => {});
      await t.until(() => far.connections.size === 2);
      await far.close();
      await half.ended();
      await host.ended();
      expect([far.connections.size, subsystem.controllers.size]).toEqual([0, 0]);
      closeFd(fd);
    }, gated);
  });
});
