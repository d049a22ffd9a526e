/**
 * Random and damaged PDU streams against a real target on a reactor: never a crash, a hang, a leak, or
 * a byte of somebody else. `TRILITH_SEED` replays a run, `TRILITH_FUZZ_ROUNDS` makes it longer.
 */
import { expect, test } from "bun:test";
import { openMemoryBdev } from "../../src/engine/bdev/memory.ts";
import { type ReservationState, Reservations } from "../../src/engine/target/reservations.ts";
import { Subsystem } from "../../src/engine/target/subsystem.ts";
import type { VendorCommand } from "../../src/engine/target/vendor.ts";
import { AdminOpcode, AnaState, DISCOVERY_NQN, IoOpcode } from "../../src/nvme/constants.ts";
import { abortCommand, connectCommand, connectData } from "../../src/nvme/host-commands.ts";
import { encodeIc, encodeTermReq, PduType } from "../../src/nvme/pdu.ts";
import { GatedBdev } from "../support/gated-bdev.ts";
import { Random, withSeed } from "../support/random.ts";
import {
  CC_ENABLED,
  connectQueue,
  HOST_NQN,
  hostIdOf,
  pattern,
  RawHost,
  sqe,
} from "../support/raw-host.ts";
import { NQN, type TargetFixture, withTarget } from "../support/target.ts";

const ROUNDS = Number(process.env.TRILITH_FUZZ_ROUNDS ?? 150);
const SEEDS = 3;
const SAFE_NQN = `${NQN}:safe`;
const BLOCK = 512;
const PATIENCE_MS = 20;

const adminOpcodes = [...Object.values(AdminOpcode), 0x7f, 0x00, 0x80, 0xff];
const ioOpcodes = [...Object.values(IoOpcode), 0x7f, 0x7e, 0xc0, 0xc1, 0xc2, 0xc3, 0xff];
const numbers = [
  0, 1, 2, 7, 8, 0x7f, 0xff, 0x100, 0x7fff, 0xffff, 0x10000, 0x3fff, 0x4000, 0x7fffffff, 0x80000000,
  0xfffffffe, 0xffffffff,
];

class Fuzzer {
  readonly #random: Random;
  readonly #t: TargetFixture;

  constructor(random: Random, t: TargetFixture) {
    this.#random = random;
    this.#t = t;
  }

  #number(): number {
    const random = this.#random;
    return random.chance(0.8) ? random.pick(numbers) | 0 : random.below(0x100000000) | 0;
  }

  /** A command that may be anything from sound to nonsense, with the data of its capsule. */
  #command(host: RawHost, isAdmin: boolean): { words: Int32Array; data: Uint8Array | undefined } {
    const random = this.#random;
    const opcode = random.pick(isAdmin ? adminOpcodes : ioOpcodes);
    const nsid = random.chance(0.8) ? 1 : this.#number();
    const block = random.below(16384);
    const blocks = random.pick([1, 2, 8, 16, 17, 64, 256, 2048]);
    const isTame = random.chance(0.6);
    const dwords = isTame
      ? [block, 0, blocks - 1]
      : Array.from({ length: 6 }, () => this.#number());
    if (isAdmin && random.chance(0.7)) {
      dwords[0] =
        random.below(256) | (random.chance(0.5) ? 15 << 16 : 0) | (random.chance(0.2) ? 1 << 8 : 0);
    }
    const length = isTame
      ? Math.min(blocks * BLOCK, 1 << 20)
      : random.pick([0, 4, 16, 64, 512, 1024, 4096, 8192]);
    const isSent = (opcode & 3) === 1;
    const data =
      isSent && length <= 8192 && random.chance(0.7) ? pattern(length, block) : undefined;
    const words = host.entry(
      sqe(opcode, nsid, dwords),
      data === undefined ? { room: length } : { data },
      random.chance(0.1) ? random.below(65536) : host.cid(),
    );
    if (random.chance(0.1)) words[8] = this.#number();
    if (random.chance(0.1))
      new Uint8Array(words.buffer)[39] = random.pick([0, 1, 0x40, 0x5a, random.below(256)]);
    if (random.chance(0.05)) words[6] = this.#number();
    if (random.chance(0.05)) words[0] = words[0]! ^ (random.below(256) << 8);
    // Lengths of a log page, and its room, agree more often than chance would have it.
    if (isAdmin && opcode === AdminOpcode.GET_LOG_PAGE && random.chance(0.7)) words[8] = 64;
    return { words, data: data !== undefined && data.byteLength === 0 ? undefined : data };
  }

  /** One PDU or what passes for one. */
  #pdu(host: RawHost, isAdmin: boolean): Uint8Array {
    const random = this.#random;
    const kind = random.below(100);
    if (kind < 80) {
      const { words, data } = this.#command(host, isAdmin);
      return host.capsule(words, data);
    }
    if (kind < 90) {
      const data = pattern(4 * random.between(1, 3000), 1);
      const [cid, tag, offset] = [
        random.below(64),
        16383 - random.below(64),
        random.below(3) * 4096,
      ];
      return host.h2cData({ cid, tag, offset, data, last: random.chance(0.5) });
    }
    if (kind < 93)
      return host.capsule(host.entry(abortCommand(random.below(4), random.below(200))));
    if (kind < 95) {
      const cc = random.pick([0, CC_ENABLED, CC_ENABLED | 0x4000, this.#number()]);
      return host.capsule(host.entry(sqe(0x7f, 0, [0, 0x14, cc])));
    }
    if (kind < 96)
      return encodeTermReq(
        "host",
        random.below(8),
        this.#number(),
        random.bytes(random.below(128)),
      );
    if (kind < 97)
      return encodeIc("request", {
        version: 0,
        dataAlign: 0,
        headerDigest: false,
        dataDigest: false,
        max: 0,
      });
    if (kind < 98) return this.#connect(host);
    return random.bytes(random.below(300));
  }

  #connect(host: RawHost): Uint8Array {
    const random = this.#random;
    const data = connectData({
      hostId: hostIdOf(random.below(3)),
      hostNqn: random.pick([HOST_NQN, ""]),
      subsystemNqn: random.pick([NQN, DISCOVERY_NQN, `${NQN}:none`]),
      controllerId: random.pick([0xffff, 1, 2, 3, random.below(65536)]),
    });
    const words = host.entry(
      connectCommand(
        random.below(4),
        random.pick([1, 2, 32, 128, 1024, 2000]),
        random.pick([0, 1, 100000]),
      ),
      { data },
    );
    return host.capsule(words, data);
  }

  /** Bytes flipped, cut out, doubled or put in. */
  #damage(bytes: Uint8Array): Uint8Array {
    const random = this.#random;
    const copy = bytes.slice();
    switch (random.below(4)) {
      case 0:
        for (let i = random.between(1, 4); i > 0 && copy.length > 0; i--) {
          // Headers are where it hurts.
          const at = random.chance(0.7)
            ? random.below(Math.min(24, copy.length))
            : random.below(copy.length);
          copy[at] = copy[at]! ^ (1 << random.below(8));
        }
        return copy;
      case 1:
        return copy.slice(0, random.below(copy.length + 1));
      case 2:
        return Buffer.concat([copy, copy.subarray(random.below(copy.length + 1))]);
      default:
        return Buffer.concat([random.bytes(random.below(40)), copy]);
    }
  }

  /** One connection's life. */
  async round(): Promise<void> {
    const random = this.#random;
    const t = this.#t;
    const digests = {
      headerDigest: random.chance(0.3),
      dataDigest: random.chance(0.3),
      dataAlign: random.pick([0, 0, 1, 31]),
    };
    const options = { ...digests, answersR2t: false };
    const kind = random.below(10);
    const at = t.address;
    if (kind === 0) {
      const host = await RawHost.socket(t.reactor, at);
      host.receive();
      await host
        .send(this.#damage(encodeIc("request", { version: 0, max: 0, ...digests })))
        .catch(() => {});
      await host.close();
      return;
    }
    if (kind === 1) {
      const host = await RawHost.negotiate(t.reactor, at, options);
      await host
        .send(random.chance(0.5) ? this.#connect(host) : this.#damage(this.#connect(host)))
        .catch(() => {});
      await this.#pour(host, true);
      return;
    }
    const subsystemNqn = kind === 2 ? DISCOVERY_NQN : NQN;
    const hostId = hostIdOf(random.below(3));
    const admin = await connectQueue(t.reactor, at, { subsystemNqn, hostId, ...options });
    if (kind <= 4) {
      await this.#pour(admin.host, true);
      return;
    }
    const { controllerId } = admin;
    const entries = random.pick([2, 16, 128, 1024]);
    const io = await connectQueue(t.reactor, at, {
      subsystemNqn,
      hostId,
      controllerId,
      queueId: 1,
      entries,
      ...options,
    });
    await Promise.all([
      this.#pour(io.host, false),
      random.chance(0.3) ? this.#pour(admin.host, true) : undefined,
    ]);
    await admin.host.close();
  }

  /** Sends a random stream, answers some of what is asked for, and ends in some way. */
  async #pour(host: RawHost, isAdmin: boolean): Promise<void> {
    const random = this.#random;
    const pieces = Array.from({ length: random.between(1, 60) }, () => this.#pdu(host, isAdmin));
    if (random.chance(0.5)) {
      const at = random.below(pieces.length);
      pieces[at] = this.#damage(pieces[at]!);
    }
    const stream = Buffer.concat(pieces);
    try {
      for (let at = 0; at < stream.length; ) {
        const n = random.chance(0.5) ? stream.length : random.between(1, 5000);
        await host.send(stream.subarray(at, at + n));
        at += n;
        if (random.chance(0.3)) await this.#answer(host);
      }
      if (random.chance(0.8)) await this.#answer(host);
      // What was sent in order is taken in order: once this is answered, all of it was. A stream that
      // was cut may leave the target waiting for the rest of a PDU, though.
      if (random.chance(0.5)) {
        const last = host.command(sqe(isAdmin ? AdminOpcode.KEEP_ALIVE : IoOpcode.FLUSH, 1));
        await Promise.race([last, host.ended(), this.#t.reactor.sleep(PATIENCE_MS)]);
      }
    } catch (error) {
      if (!String(error).includes("send:")) throw error;
    }
    await host.close();
  }

  /** Answers the R2Ts that have come, mostly rightly. */
  async #answer(host: RawHost): Promise<void> {
    const random = this.#random;
    for (const pdu of host.inbox.splice(0)) {
      if (pdu.type !== PduType.R2T || random.chance(0.2)) continue;
      const length = pdu.view.getUint32(16, true);
      if (random.chance(0.9)) await host.answerR2t(pdu, pattern(length, 3));
      else {
        const [cid, tag] = [pdu.view.getUint16(8, true), pdu.view.getUint16(10, true)];
        const data = pattern(Math.max(4, random.below(length) & ~3), 3);
        await host.send(
          this.#damage(host.h2cData({ cid, tag, offset: 0, data, last: random.chance(0.5) })),
        );
      }
    }
  }
}

/** A store that takes its time, and a hook that answers now, later, or with an error. */
function helpers(random: Random, later: (run: () => void) => void) {
  let saved: ReservationState | undefined;
  const store = {
    load: () => saved,
    save: (state: ReservationState) =>
      new Promise<void>((resolve, reject) => {
        saved = state;
        later(() => (random.chance(0.9) ? resolve() : reject(new Error("no"))));
      }),
  };
  const vendor = {
    execute: (command: VendorCommand) => {
      const answer = () => command.respond(random.chance(0.8) ? 0 : 2, pattern(command.room, 1));
      if (random.chance(0.5)) answer();
      else later(answer);
    },
  };
  return { reservations: new Reservations(store), vendor };
}

for (let run = 0; run < SEEDS; run++) {
  for (const isAsync of [false, true]) {
    const device = isAsync ? "an asynchronous" : "a synchronous";
    test(`random streams do no harm (${run}, over ${device} device)`, () => {
      withSeed(import.meta.path, (_, seed) => {
        const random = new Random(seed + run * 2 + Number(isAsync));
        let later: (run: () => void) => void = () => {};
        const { reservations, vendor } = helpers(random, (call) => later(call));
        withTarget(
          async (t) => {
            later = (call) => t.reactor.after(0, call);
            await storm(t, random);
          },
          {
            subsystem: { reservations, vendor },
            ...(isAsync ? { bdev: (reactor) => new GatedBdev(reactor, 16384) } : {}),
          },
        );
      });
    }, 120_000);
  }
}

async function storm(t: TargetFixture, random: Random): Promise<void> {
  const safe = openMemoryBdev(t.reactor, {
    driver: "malloc",
    name: "safe",
    blockSize: 512,
    blockCount: 4096,
    uuid: undefined,
  });
  const controllerIds = { min: 1, max: 99 };
  const safeSubsystem = new Subsystem(
    {
      nqn: SAFE_NQN,
      serial: "SAFE",
      model: "safe",
      hosts: undefined,
      controllerIds,
      anaState: AnaState.OPTIMIZED,
    },
    safe,
  );
  t.target.addSubsystem(safeSubsystem);
  const { io } = await t.both({ subsystemNqn: SAFE_NQN });
  const mine = pattern(64 * BLOCK, 77);
  const { status } = await io.command(sqe(IoOpcode.WRITE, 1, [0, 0, 63]), {
    data: mine,
    byR2t: true,
  });
  expect(status).toBe(0);
  const fuzzer = new Fuzzer(random, t);
  for (let i = 0; i < ROUNDS; i++) {
    if (random.chance(0.1)) t.subsystem.setAnaState(random.pick(Object.values(AnaState)));
    if (random.chance(0.5)) t.subsystem.setAnaState(AnaState.OPTIMIZED);
    await Promise.all(Array.from({ length: random.between(1, 3) }, () => fuzzer.round()));
    const back = await io.command(sqe(IoOpcode.READ, 1, [0, 0, 63]), { room: 64 * BLOCK });
    expect(Buffer.from(back.data).equals(Buffer.from(mine))).toBe(true);
  }
  // Nobody is left but the host that did nothing wrong, and nothing is in use.
  await t.until(() => t.target.connections.size === 2 && t.subsystem.controllers.size === 0);
  await t.until(() => t.reactor.io.free === t.reactor.io.capacity);
  expect(t.target.hostData.bytes).toBe(0);
  expect(safeSubsystem.namespace.statistics.ops[2]).toBe(1);
}
