import { describe, expect, test } from "bun:test";
import { register } from "../../../../src/engine/target/reservation-state.ts";
import { type ReservationState, Reservations } from "../../../../src/engine/target/reservations.ts";
import { AdminOpcode, IoOpcode, LogPageId, Status } from "../../../../src/nvme/constants.ts";
import {
  type CommandWithData,
  type ReservationType,
  reservationAcquireCommand,
  reservationRegisterCommand,
  reservationReleaseCommand,
  reservationReportCommand,
} from "../../../../src/nvme/host-commands.ts";
import { decodeReservationReport } from "../../../../src/nvme/identify-decode.ts";
import { RegisterAction } from "../../../../src/nvme/reservations.ts";
import { GatedBdev } from "../../../support/gated-bdev.ts";
import { hostIdOf, pattern, type RawHost, sqe } from "../../../support/raw-host.ts";
import { type TargetFixture, withTarget } from "../../../support/target.ts";

const BLOCK = 512;

class Host {
  readonly admin: RawHost;
  readonly io: RawHost;
  readonly key: bigint;

  constructor(admin: RawHost, io: RawHost, key: bigint) {
    this.admin = admin;
    this.io = io;
    this.key = key;
  }

  static async connect(t: TargetFixture, n: number, answersR2t = true): Promise<Host> {
    const hostNqn = `nqn.2014-08.org.nvmexpress:uuid:host-${n}`;
    const { admin, io } = await t.both({ hostNqn, hostId: hostIdOf(n), answersR2t });
    return new Host(admin, io, BigInt(n));
  }

  async #send({ sqe: words, data }: CommandWithData): Promise<number> {
    return (await this.io.command(words, { data })).status;
  }

  register(persist?: boolean): Promise<number> {
    const base = { action: "register", currentKey: 0n, newKey: this.key } as const;
    return this.#send(
      reservationRegisterCommand(1, persist === undefined ? base : { ...base, persist }),
    );
  }

  unregister(): Promise<number> {
    return this.#send(
      reservationRegisterCommand(1, { action: "unregister", currentKey: this.key, newKey: 0n }),
    );
  }

  acquire(type: number): Promise<number> {
    const command = {
      action: "acquire",
      type: type as ReservationType,
      currentKey: this.key,
    } as const;
    return this.#send(reservationAcquireCommand(1, command));
  }

  preempt(type: number, preemptKey: bigint, aborts = false): Promise<number> {
    const action = aborts ? "preempt-and-abort" : "preempt";
    const command = {
      action,
      type: type as ReservationType,
      currentKey: this.key,
      preemptKey,
    } as const;
    return this.#send(reservationAcquireCommand(1, command));
  }

  release(type: number): Promise<number> {
    const command = {
      action: "release",
      type: type as ReservationType,
      currentKey: this.key,
    } as const;
    return this.#send(reservationReleaseCommand(1, command));
  }

  async report() {
    const { data } = await this.io.command(reservationReportCommand(1, 1024), { room: 1024 });
    return decodeReservationReport(data);
  }

  async read(): Promise<number> {
    return (await this.io.command(sqe(IoOpcode.READ, 1, [0, 0, 0]), { room: BLOCK })).status;
  }

  async write(): Promise<number> {
    return (await this.io.command(sqe(IoOpcode.WRITE, 1, [0, 0, 0]), { data: pattern(BLOCK, 1) }))
      .status;
  }

  /** Dword 0 of the next asynchronous event. */
  async event(): Promise<number> {
    return (await this.admin.command(sqe(AdminOpcode.ASYNC_EVENT_REQUEST, 0))).dword0;
  }

  /** Type and number of further pages of the oldest reservation notification. */
  async notification(): Promise<[number, number]> {
    const dword10 = LogPageId.RESERVATION_NOTIFICATION | (15 << 16);
    const { data } = await this.admin.command(
      sqe(AdminOpcode.GET_LOG_PAGE, 0xffffffff, [dword10]),
      { room: 64 },
    );
    return [data[8]!, data[9]!];
  }
}

const CONFLICT = Status.RESERVATION_CONFLICT;

describe("hosts with reservations", () => {
  test("are kept apart by every type, whatever the command", () => {
    withTarget(async (t) => {
      const holder = await Host.connect(t, 1);
      const registrant = await Host.connect(t, 2);
      const stranger = await Host.connect(t, 3);
      await holder.register();
      await registrant.register();
      const access = async (host: Host) => {
        const data = new Uint8Array(new Uint32Array([0, 1, 0, 0]).buffer);
        const io = host.io;
        const reads = [
          await host.read(),
          (await io.command(sqe(IoOpcode.COMPARE, 1, [0, 0, 0]), { data: new Uint8Array(BLOCK) }))
            .status,
          (await io.command(sqe(IoOpcode.VERIFY, 1, [0, 0, 0]))).status,
        ];
        const writes = [
          (await io.command(sqe(IoOpcode.WRITE, 1, [0, 0, 0]), { data: new Uint8Array(BLOCK) }))
            .status,
          (await io.command(sqe(IoOpcode.WRITE_ZEROES, 1, [0, 0, 0]))).status,
          (await io.command(sqe(IoOpcode.DATASET_MANAGEMENT, 1, [0, 4]), { data })).status,
          (await io.command(sqe(IoOpcode.FLUSH, 1))).status,
        ];
        expect(new Set(reads).size).toBe(1);
        expect(new Set(writes).size).toBe(1);
        return [reads[0], writes[0]];
      };
      const NO = CONFLICT;
      const rules: readonly (readonly [number, readonly number[], readonly number[]])[] = [
        [1, [0, NO], [0, NO]],
        [2, [NO, NO], [NO, NO]],
        [3, [0, 0], [0, NO]],
        [4, [0, 0], [NO, NO]],
        [5, [0, 0], [0, NO]],
        [6, [0, 0], [NO, NO]],
      ];
      for (const [type, ofRegistrant, ofStranger] of rules) {
        expect(await holder.acquire(type)).toBe(0);
        expect([type, await access(holder)]).toEqual([type, [0, 0]]);
        expect([type, await access(registrant)]).toEqual([type, [...ofRegistrant]]);
        expect([type, await access(stranger)]).toEqual([type, [...ofStranger]]);
        expect(await holder.release(type)).toBe(0);
        expect(await access(stranger)).toEqual([0, 0]);
      }
    });
  });

  test("that connect later, or with another controller, meet the same rules", () => {
    withTarget(async (t) => {
      const holder = await Host.connect(t, 1);
      await holder.register();
      await holder.acquire(2);
      const again = await Host.connect(t, 1);
      const late = await Host.connect(t, 2);
      expect([await again.write(), await late.read()]).toEqual([0, CONFLICT]);
      // The registration stays when the host's controllers have gone.
      for (const host of [holder, again]) {
        await host.io.close();
        await host.admin.close();
      }
      await t.until(() => t.subsystem.controllers.size === 1);
      expect(await late.read()).toBe(CONFLICT);
      const report = await late.report();
      expect(report.registrants.map((r) => [r.controllerId, r.holdsReservation])).toEqual([
        [0xffff, true],
      ]);
    });
  });

  test("see who is registered", () => {
    withTarget(async (t) => {
      const [a, b] = [await Host.connect(t, 1), await Host.connect(t, 2)];
      await a.register();
      await b.register();
      await b.acquire(3);
      const report = await a.report();
      expect([report.generation, report.type, report.persistent]).toEqual([2, 3, false]);
      expect(
        report.registrants.map((r) => [r.key, r.holdsReservation, r.hostId.replaceAll("-", "")]),
      ).toEqual([
        [1n, false, Buffer.from(hostIdOf(1)).toString("hex")],
        [2n, true, Buffer.from(hostIdOf(2)).toString("hex")],
      ]);
      const short = await a.io.command(reservationReportCommand(1, 64), { room: 64 });
      expect([short.status, short.data[5]]).toEqual([0, 2]);
      const plain = await a.io.command(sqe(IoOpcode.RESERVATION_REPORT, 1, [15, 0]), { room: 64 });
      expect(plain.status).toBe(Status.HOST_ID_INCONSISTENT);
      const wrong = await a.io.command(sqe(IoOpcode.RESERVATION_REPORT, 1, [15, 1]), { room: 128 });
      expect(wrong.status).toBe(Status.DATA_SGL_LENGTH_INVALID);
    });
  });

  test("send too little data and are refused", () => {
    withTarget(async (t) => {
      const { io } = await Host.connect(t, 1);
      for (const [opcode, bytes] of [
        [IoOpcode.RESERVATION_REGISTER, 8],
        [IoOpcode.RESERVATION_ACQUIRE, 12],
        [IoOpcode.RESERVATION_RELEASE, 4],
      ] as const) {
        const { status } = await io.command(sqe(opcode, 1), { data: new Uint8Array(bytes) });
        expect(status).toBe(Status.DATA_SGL_LENGTH_INVALID);
        expect((await io.command(sqe(opcode, 1))).status).toBe(Status.DATA_SGL_LENGTH_INVALID);
        const other = await io.command(sqe(opcode, 2), { data: new Uint8Array(16) });
        expect(other.status).toBe(Status.INVALID_NAMESPACE);
      }
    });
  });
});

describe("a preemption", () => {
  const gated = { bdev: (reactor: TargetFixture["reactor"]) => new GatedBdev(reactor, 16384) };

  test("is answered when nothing of the preempted host is under way", () => {
    withTarget(async (t) => {
      const [old, young] = [await Host.connect(t, 1), await Host.connect(t, 2)];
      await old.register();
      await old.acquire(2);
      await young.register();
      const bdev = t.bdev as GatedBdev;
      bdev.gate = true;
      const written = old.write();
      await bdev.came(1);
      let isOver = false;
      const preempted = young.preempt(2, 1n).then((status) => {
        isOver = true;
        return status;
      });
      // Refused from now on, though the preemption is not answered yet.
      await t.until(
        () =>
          t.subsystem.namespace.reservations.state.holder !== undefined &&
          [...t.subsystem.controllers.values()].some(
            (c) => c.denied !== 0 && c.hostNqn.endsWith("1"),
          ),
      );
      expect(await old.write()).toBe(CONFLICT);
      expect(isOver).toBe(false);
      bdev.open();
      expect(await written).toBe(0);
      expect(await preempted).toBe(0);
      expect(await young.write()).toBe(0);
    }, gated);
  });

  test("meets writes that still wait for their data", () => {
    withTarget(async (t) => {
      const [old, young] = [await Host.connect(t, 1, false), await Host.connect(t, 2)];
      await old.register();
      await old.acquire(1);
      await young.register();
      const payload = { data: pattern(16384, 1), byR2t: true };
      const written = old.io.command(sqe(IoOpcode.WRITE, 1, [0, 0, 31]), payload);
      const asked = (await old.io.nextPdu())!;
      expect(await young.preempt(1, 1n)).toBe(0);
      await old.io.answerR2t(asked, payload.data);
      expect((await written).status).toBe(CONFLICT);
    });
  });

  test("with abort ends them", () => {
    withTarget(async (t) => {
      const [old, young] = [await Host.connect(t, 1, false), await Host.connect(t, 2)];
      await old.register();
      await old.acquire(1);
      await young.register();
      const payload = { data: pattern(1 << 20, 1), byR2t: true };
      const writes = Array.from({ length: 20 }, () =>
        old.io.command(sqe(IoOpcode.WRITE, 1, [0, 0, 2047]), payload),
      );
      expect(await old.read()).toBe(0);
      expect(await young.preempt(1, 1n, true)).toBe(0);
      for (const written of writes) expect((await written).status).toBe(Status.PREEMPTED);
    });
  });

  test("does not wait for a reservation command of the preempted host that stands in line", () => {
    let unblock: () => void = () => {};
    const reservations = new Reservations();
    withTarget(
      async (t) => {
        const [old, young] = [await Host.connect(t, 1), await Host.connect(t, 2)];
        await old.register();
        await young.register();
        const unlisten = reservations.listen({
          preempted: () =>
            new Promise<void>((resolve) => {
              unblock = resolve;
            }),
        });
        const preempted = young.preempt(1, 1n);
        await t.until(() => reservations.state.registrants.length === 1);
        const late = old.acquire(1);
        await t.until(() => t.reactor.io.capacity - t.reactor.io.free === 2);
        unblock();
        expect([await preempted, await late]).toEqual([0, CONFLICT]);
        unlisten();
      },
      { subsystem: { reservations } },
    );
  });

  test("is told to the owner, who may take part under a host id of its own", () => {
    const reservations = new Reservations();
    withTarget(
      async (t) => {
        const own = "00".repeat(16);
        const enrol = {
          action: RegisterAction.REGISTER,
          ignoresKey: false,
          persist: undefined,
          currentKey: 0n,
          newKey: 77n,
        } as const;
        expect(await reservations.run((state) => register(state, own, enrol, false))).toBe(0);
        const told: string[][] = [];
        reservations.listen({ preempted: (hosts) => void told.push([...hosts]) });
        const host = await Host.connect(t, 1);
        await host.register();
        expect(await host.preempt(1, 77n)).toBe(0);
        expect(told).toEqual([[own]]);
      },
      { subsystem: { reservations } },
    );
  });
});

describe("notifications", () => {
  test("reach the hosts concerned, one page each, in order", () => {
    withTarget(async (t) => {
      const [a, b, c] = [
        await Host.connect(t, 1),
        await Host.connect(t, 2),
        await Host.connect(t, 3),
      ];
      for (const host of [a, b, c]) await host.register();
      await a.acquire(3);
      const event = b.event();
      await a.release(3);
      expect(await event).toBe(0x800006);
      await a.acquire(3);
      await a.release(3);
      await c.preempt(1, 2n);
      const next = b.event();
      expect(await b.notification()).toEqual([2, 2]);
      // More pages are there, so that the event comes again.
      expect(await next).toBe(0x800006);
      expect(await b.notification()).toEqual([2, 1]);
      expect(await b.notification()).toEqual([1, 0]);
      expect(await b.notification()).toEqual([0, 0]);
      expect(await a.notification()).toEqual([0, 0]);
    });
  });

  test("can be masked", () => {
    withTarget(async (t) => {
      const [a, b] = [await Host.connect(t, 1), await Host.connect(t, 2)];
      await a.register();
      await b.register();
      await b.admin.command(sqe(AdminOpcode.SET_FEATURES, 1, [0x82, 1 << 2]));
      await a.acquire(3);
      await a.release(3);
      expect(await b.notification()).toEqual([0, 0]);
      await a.preempt(1, 2n);
      expect(await b.notification()).toEqual([1, 0]);
    });
  });
});

describe("persistence", () => {
  class Store {
    saved: ReservationState | undefined;
    saves = 0;
    gate: Promise<void> = Promise.resolve();
    isBroken = false;
    load() {
      return this.saved;
    }
    async save(state: ReservationState) {
      await this.gate;
      if (this.isBroken) throw new Error("no space");
      this.saved = state;
      this.saves++;
    }
  }

  test("without a store cannot be had", () => {
    withTarget(async (t) => {
      const host = await Host.connect(t, 1);
      expect(await host.register(true)).toBe(Status.INVALID_FIELD);
      const data = (await host.admin.command(sqe(AdminOpcode.IDENTIFY, 1, [0]), { room: 4096 }))
        .data;
      expect(data[31]).toBe(0xfe);
      const feature = await host.admin.command(sqe(AdminOpcode.SET_FEATURES, 1, [0x83, 1]));
      expect(feature.status).toBe(Status.INVALID_FIELD);
    });
  });

  test("a command is answered when its state is saved", () => {
    const store = new Store();
    withTarget(
      async (t) => {
        const host = await Host.connect(t, 1);
        let open: () => void = () => {};
        store.gate = new Promise((resolve) => {
          open = resolve;
        });
        let isOver = false;
        const registered = host.register(true).then((status) => {
          isOver = true;
          return status;
        });
        await t.until(() => t.reactor.io.free < t.reactor.io.capacity);
        expect([isOver, t.subsystem.namespace.reservations.state.registrants.length]).toEqual([
          false,
          0,
        ]);
        open();
        expect(await registered).toBe(0);
        expect(store.saved?.registrants).toHaveLength(1);
        const data = (await host.admin.command(sqe(AdminOpcode.IDENTIFY, 1, [0]), { room: 4096 }))
          .data;
        expect(data[31]).toBe(0xff);
      },
      { subsystem: { reservations: new Reservations(store) } },
    );
  });

  test("what was saved is there again, and what did not persist is not", () => {
    const store = new Store();
    for (const persist of [true, false]) {
      withTarget(
        async (t) => {
          const host = await Host.connect(t, 1);
          expect(await host.register(persist)).toBe(0);
          expect(await host.acquire(1)).toBe(0);
        },
        { subsystem: { reservations: new Reservations(store) } },
      );
      const after = new Reservations(store);
      expect([after.state.registrants.length, after.state.type]).toEqual(persist ? [1, 1] : [0, 0]);
      withTarget(
        async (t) => {
          const other = await Host.connect(t, 2);
          expect(await other.write()).toBe(persist ? CONFLICT : 0);
        },
        { subsystem: { reservations: after } },
      );
    }
  });

  test("without persistence nothing is saved; switching it off is", () => {
    const store = new Store();
    withTarget(
      async (t) => {
        const host = await Host.connect(t, 1);
        await host.register();
        await host.acquire(1);
        expect(store.saves).toBe(0);
        const feature = (value: number) =>
          host.admin.command(sqe(AdminOpcode.SET_FEATURES, 1, [0x83, value]));
        expect((await feature(1)).status).toBe(0);
        expect(store.saved?.type).toBe(1);
        const get = await host.admin.command(sqe(AdminOpcode.GET_FEATURES, 1, [0x83]));
        expect(get.dword0).toBe(1);
        expect((await feature(0)).status).toBe(0);
        expect(store.saved?.persistent).toBe(false);
      },
      { subsystem: { reservations: new Reservations(store) } },
    );
  });

  test("a store that fails leaves everything as it was", () => {
    const store = new Store();
    withTarget(
      async (t) => {
        const [a, b] = [await Host.connect(t, 1), await Host.connect(t, 2)];
        await a.register(true);
        await a.acquire(1);
        await b.register();
        store.isBroken = true;
        expect(await b.preempt(1, 1n)).toBe(Status.INTERNAL_ERROR);
        expect([await a.write(), await b.write()]).toEqual([0, CONFLICT]);
        store.isBroken = false;
        expect(await b.preempt(1, 1n)).toBe(0);
        expect([await a.write(), await b.write()]).toEqual([CONFLICT, 0]);
      },
      { subsystem: { reservations: new Reservations(store) } },
    );
  });

  test("a host that goes while its command is saved leaves nothing behind", () => {
    const store = new Store();
    withTarget(
      async (t) => {
        const host = await Host.connect(t, 1);
        let open: () => void = () => {};
        store.gate = new Promise((resolve) => {
          open = resolve;
        });
        host.register(true).catch(() => {});
        await t.until(() => t.reactor.io.free < t.reactor.io.capacity);
        await host.io.close();
        await t.until(() => t.target.connections.size === 1);
        open();
        await t.until(() => t.reactor.io.free === t.reactor.io.capacity);
        expect(store.saves).toBe(1);
      },
      { subsystem: { reservations: new Reservations(store) } },
    );
  });
});
