import { describe, expect, test } from "bun:test";
import { shutdownSocket } from "../../../../ffi/index.ts";
import {
  PIECE_BYTES_MAX,
  REQUEST_BYTES_MAX,
  REQUESTS_MAX,
} from "../../../../src/engine/nbd/limits.ts";
import { NbdCommand } from "../../../../src/engine/nbd/protocol.ts";
import type { Arena } from "../../../../src/engine/reactor/arena.ts";
import {
  BUFFER_BYTES_MAX,
  BUFFER_BYTES_MIN,
  CLOSE_LINGER_MS,
  SEND_CHUNK_BYTES,
  SEND_QUEUE_BYTES_MAX,
} from "../../../../src/engine/reactor/limits.ts";
import { IoStatus } from "../../../../src/errors.ts";
import { encodeRequest, fields, type NbdClient } from "../../../support/nbd-client.ts";
import { type NbdFixture, withNbd } from "../../../support/nbd-fixture.ts";
import { Random } from "../../../support/random.ts";

const { READ, WRITE, DISC, FLUSH, WRITE_ZEROES } = NbdCommand;
const random = new Random(2);

async function enter(nbd: NbdFixture, name = "volume", structured = false): Promise<NbdClient> {
  const client = await nbd.connect();
  await client.enter(name, { structured });
  return client;
}

/** The client is gone without a word. */
function vanish(client: NbdClient): void {
  shutdownSocket(client.fd);
}

/** Takes all memory of an arena but `leave` bytes; returns what gives it back. */
function exhaust(arena: Arena, leave = 0): () => void {
  const taken: number[] = [];
  for (let size = BUFFER_BYTES_MAX; size >= BUFFER_BYTES_MIN; size >>= 1) {
    for (let at = arena.alloc(size, leave); at >= 0; at = arena.alloc(size, leave)) taken.push(at);
  }
  return () => {
    for (const at of taken) arena.free(at);
  };
}

/** Lets everything happen that can: another connection is served several times over. */
async function settle(nbd: NbdFixture): Promise<void> {
  if (nbd.server.export("other") === undefined) nbd.memory("other");
  const other = await enter(nbd, "other");
  for (let i = 0; i < 5; i++) expect(await other.errorOf({ type: FLUSH })).toBe(0);
  vanish(other);
}

/** Resolves when the one connection there is has stopped reading. */
async function isBlocked(nbd: NbdFixture): Promise<void> {
  const [connection] = nbd.server.connections;
  await nbd.until(() => connection!.stream.blocked);
}

describe("a client that vanishes", () => {
  test("leaves nothing behind once the device has ended its requests", () => {
    withNbd(async (nbd) => {
      const bdev = nbd.gated("volume");
      bdev.gate = true;
      const client = await enter(nbd);
      await client.request({ type: READ, length: 65536 });
      await client.request({ type: WRITE, data: random.bytes(65536) });
      await client.request({ type: FLUSH });
      await bdev.came(3);
      vanish(client);
      await settle(nbd);
      await nbd.until(() => nbd.server.connections.size === 1);
      bdev.open();
      await nbd.until(() => nbd.server.connections.size === 0);
    });
  });

  const half = encodeRequest({ type: WRITE, data: random.bytes(1 << 20) }).subarray(0, 600_000);
  const bytes: [string, Uint8Array][] = [
    ["a header", half.subarray(0, 20)],
    ["a small payload", encodeRequest({ type: WRITE, data: random.bytes(4096) }).subarray(0, 3000)],
    ["a large payload", half],
    ["a payload to be dropped", encodeRequest({ type: WRITE, offset: 1, data: half })],
    [
      "a long write",
      encodeRequest({ type: WRITE, data: random.bytes(5 << 20) }).subarray(0, 3 << 20),
    ],
    [
      "its first piece",
      encodeRequest({ type: WRITE, data: random.bytes(5 << 20) }).subarray(0, 999),
    ],
    [
      "between two pieces",
      encodeRequest({ type: WRITE, data: random.bytes(5 << 20) }).subarray(0, 28 + (2 << 20)),
    ],
  ];
  test.each(bytes)("in the middle of %s leaves nothing behind", (_what, sent) => {
    withNbd(async (nbd) => {
      const bdev = nbd.gated("volume");
      const atOnce = await enter(nbd);
      await atOnce.send(sent);
      vanish(atOnce);
      await nbd.until(() => nbd.server.connections.size === 0);
      bdev.gate = true;
      const late = await enter(nbd);
      await late.send(sent);
      await settle(nbd);
      vanish(late);
      await settle(nbd);
      bdev.open();
      await nbd.until(() => nbd.server.connections.size === 0);
    });
  });

  test.each([
    ["a long read that is under way", READ, false],
    ["a long structured read that is under way", READ, true],
    ["long zeroes that are under way", WRITE_ZEROES, false],
  ])("during %s leaves nothing behind", (_what, type, structured) => {
    withNbd(async (nbd) => {
      const bdev = nbd.gated("volume");
      bdev.gate = true;
      const client = await enter(nbd, "volume", structured);
      await client.request({ type, length: 80 << 20 });
      await bdev.came(1);
      bdev.pass();
      await bdev.came(2);
      vanish(client);
      await settle(nbd);
      bdev.open();
      await nbd.until(() => nbd.server.connections.size === 0);
      expect(bdev.seen.length).toBe(2);
    });
  });

  test("during long zeroes on a device that works at once leaves nothing behind", () => {
    withNbd(async (nbd) => {
      nbd.memory("volume");
      const client = await enter(nbd);
      await client.request({ type: WRITE_ZEROES, length: 100 << 20 });
      vanish(client);
      await nbd.until(() => nbd.server.connections.size === 0);
    });
  });

  test("with a long read half sent leaves nothing behind", () => {
    withNbd(async (nbd) => {
      nbd.memory("volume");
      for (const structured of [false, true]) {
        const client = await enter(nbd, "volume", structured);
        await client.request({ type: READ, length: 100 << 20 });
        await client.take(1 << 20);
        vanish(client);
        await nbd.until(() => nbd.server.connections.size === 0);
      }
    });
  });
});

describe("removing an export", () => {
  test("waits for what is under way, answers it, and ends the connections to it alone", () => {
    withNbd(async (nbd) => {
      const bdev = nbd.gated("volume");
      nbd.memory("other");
      bdev.gate = true;
      const one = await enter(nbd);
      const two = await enter(nbd);
      const other = await enter(nbd, "other");
      await one.request({ type: WRITE, data: random.bytes(4096), cookie: 1n });
      await one.request({ type: READ, length: 3 << 20, cookie: 2n });
      await two.request({ type: FLUSH, cookie: 3n });
      await bdev.came(3);
      let isRemoved = false;
      const removed = nbd.server.removeExport("volume").then(() => {
        isRemoved = true;
      });
      // What comes now is not looked at any more.
      await two.request({ type: FLUSH, cookie: 4n });
      await settle(nbd);
      expect(isRemoved).toBe(false);
      bdev.open();
      expect(await one.answer()).toMatchObject({ cookie: 1n, error: 0 });
      expect(await one.answer()).toMatchObject({ cookie: 2n, error: 0 });
      expect((await one.rest()).byteLength).toBe(3 << 20);
      expect(await two.answer()).toMatchObject({ cookie: 3n, error: 0 });
      expect(await two.rest()).toEqual(new Uint8Array(0));
      await removed;
      expect(bdev.held).toEqual([]);
      expect(await other.errorOf({ type: FLUSH })).toBe(0);
    });
  });

  test.each([
    ["a payload", 100 << 10, 50_000],
    ["a long write", 3 << 20, 1_500_000],
    ["the last piece of a long write", 3 << 20, (3 << 20) - 100],
  ])("does not wait for %s that stays away", (_what, length, sent) => {
    withNbd(async (nbd) => {
      nbd.gated("volume");
      const client = await enter(nbd);
      await client.errorOf({ type: FLUSH });
      await client.send(
        encodeRequest({ type: WRITE, data: random.bytes(length) }).subarray(0, sent),
      );
      await settle(nbd);
      await nbd.server.removeExport("volume");
      expect(await client.rest()).toEqual(new Uint8Array(0));
    });
  });

  test.each([
    ["a device that works at once", true, 1 << 20],
    ["a device that takes its time", false, 1 << 20],
    ["a long read", false, 60 << 20],
  ])("gives up on a client that does not read, %s", (_what, synchronous, length) => {
    withNbd(async (nbd) => {
      const { reactor, server } = nbd;
      if (synchronous) nbd.memory("volume");
      else nbd.gated("volume");
      const client = await enter(nbd);
      // More than all buffers on the way hold.
      for (let i = 0; i < 150; i++) await client.request({ type: READ, length });
      const [connection] = server.connections;
      await nbd.until(() => !connection!.stream.sendRoom);
      await settle(nbd);
      let isRemoved = false;
      const removed = server.removeExport("volume").then(() => {
        isRemoved = true;
      });
      await settle(nbd);
      expect(isRemoved).toBe(false);
      reactor.now += (CLOSE_LINGER_MS + 1) * 1e6;
      reactor.timers.runDue(reactor.now);
      await removed;
    });
  });
});

describe("closing the server", () => {
  test("ends handshakes at once and transmissions when their requests are answered", () => {
    withNbd(async (nbd) => {
      const bdev = nbd.gated("volume");
      bdev.gate = true;
      const shaking = await nbd.connect();
      await shaking.greet();
      const client = await enter(nbd);
      await client.request({ type: FLUSH });
      await bdev.came(1);
      const closed = nbd.server.close();
      expect(await shaking.rest()).toEqual(new Uint8Array(0));
      bdev.open();
      expect(await client.answer()).toMatchObject({ error: 0 });
      expect(await client.rest()).toEqual(new Uint8Array(0));
      await closed;
      expect(() => nbd.memory("late")).toThrow("being closed");
    });
  });
});

describe("limits", () => {
  test("requests under way are bounded, and the rest follow", () => {
    withNbd(async (nbd) => {
      const bdev = nbd.gated("volume");
      bdev.gate = true;
      const client = await enter(nbd);
      const flushes = Array.from({ length: REQUESTS_MAX + 44 }, (_, i) =>
        encodeRequest({ type: FLUSH, cookie: BigInt(i) }),
      );
      await client.send(fields(...flushes));
      await bdev.came(REQUESTS_MAX);
      await settle(nbd);
      expect(bdev.seen.length).toBe(REQUESTS_MAX);
      bdev.pass();
      await bdev.came(REQUESTS_MAX + 1);
      bdev.open();
      const cookies = new Set<bigint>();
      for (const _ of flushes) cookies.add((await client.answer()).cookie);
      expect(cookies.size).toBe(flushes.length);
    });
  });

  test("memory of requests under way is bounded, and the rest follow", () => {
    withNbd(async (nbd) => {
      const { arena } = nbd.reactor;
      const bdev = nbd.gated("volume");
      bdev.gate = true;
      const client = await enter(nbd);
      const freeBytes = arena.freeBytes;
      const count = 30;
      for (let i = 0; i < count; i++) await client.request({ type: READ, length: 1 << 20 });
      await bdev.came(REQUEST_BYTES_MAX / PIECE_BYTES_MAX);
      await settle(nbd);
      expect(bdev.seen.length).toBe(REQUEST_BYTES_MAX / PIECE_BYTES_MAX);
      expect(freeBytes - arena.freeBytes).toBeLessThanOrEqual(REQUEST_BYTES_MAX + SEND_CHUNK_BYTES);
      bdev.open();
      for (let i = 0; i < count; i++) {
        expect(await client.answer()).toMatchObject({ error: 0 });
        await client.take(1 << 20);
      }
    });
  });

  test.each([4096, 65536, 1 << 20, 30 << 20])(
    "a client that does not read gets bounded memory, reads of %d bytes",
    (length) => {
      withNbd(async (nbd) => {
        const { arena } = nbd.reactor;
        nbd.memory("volume");
        const client = await enter(nbd);
        const freeBytes = arena.freeBytes;
        const count = Math.ceil((60 << 20) / length);
        const requests = Array.from({ length: count }, (_, i) =>
          encodeRequest({ type: READ, length, cookie: BigInt(i) }),
        );
        await client.send(fields(...requests.slice(0, 5000)));
        await settle(nbd);
        const held = freeBytes - arena.freeBytes;
        expect(held).toBeLessThanOrEqual(SEND_QUEUE_BYTES_MAX + 4 * PIECE_BYTES_MAX);
        for (const [i] of requests.slice(0, 5000).entries()) {
          expect(await client.answer()).toEqual({ kind: "simple", error: 0, cookie: BigInt(i) });
          await client.take(length);
        }
        expect(await client.errorOf({ type: FLUSH })).toBe(0);
      });
    },
  );

  test.each([
    ["read", { type: READ, length: 65536 }],
    ["small read", { type: READ, length: 512 }],
    ["long read", { type: READ, length: 3 << 20 }],
    ["write", { type: WRITE, data: random.bytes(65536) }],
    ["long write", { type: WRITE, data: random.bytes(3 << 20) }],
    ["refused request", { type: READ, offset: 1, length: 512 }],
    ["flush", { type: FLUSH }],
  ])("a %s waits for memory and is then carried out", (_what, request) => {
    withNbd(async (nbd) => {
      const { arena } = nbd.reactor;
      nbd.gated("volume");
      const client = await enter(nbd);
      await client.errorOf({ type: FLUSH });
      const giveBack = exhaust(arena);
      await client.request(request);
      await isBlocked(nbd);
      // Nothing pretends to have been given back: the reactor sleeps meanwhile.
      expect([nbd.reactor.io.freed, arena.freed]).toEqual([false, false]);
      giveBack();
      const answer = await client.answer();
      expect(answer.kind === "simple" && answer.error).toBe("offset" in request ? 22 : 0);
    });
  });

  test("answers that wait for memory are given in the end, and in order", () => {
    withNbd(async (nbd) => {
      const { arena } = nbd.reactor;
      const bdev = nbd.gated("volume");
      bdev.gate = true;
      const client = await enter(nbd, "volume", true);
      await client.request({ type: READ, length: 4096, cookie: 1n });
      await client.request({ type: FLUSH, cookie: 2n });
      await client.request({ type: READ, length: 65536, cookie: 3n });
      await client.request({ type: READ, length: 512, cookie: 4n });
      await bdev.came(4);
      const giveBack = exhaust(arena);
      bdev.failures.push(IoStatus.OK, IoStatus.OK, IoStatus.OK, IoStatus.DEVICE_IO);
      bdev.open();
      expect(bdev.held).toEqual([]);
      giveBack();
      const answers = [await client.answer(), await client.answer()];
      answers.push(await client.answer(), await client.answer());
      expect(answers.map(({ cookie }) => cookie)).toEqual([1n, 2n, 3n, 4n]);
      expect(answers[3]).toMatchObject({ type: 0x8001 });
    });
  });

  test("a client that vanishes while its answers wait for memory leaves nothing behind", () => {
    withNbd(async (nbd) => {
      const bdev = nbd.gated("volume");
      bdev.gate = true;
      const client = await enter(nbd);
      await client.request({ type: READ, length: 4096 });
      await client.request({ type: READ, length: 2 << 20 });
      await bdev.came(2);
      const giveBack = exhaust(nbd.reactor.arena);
      bdev.open();
      expect(bdev.held).toEqual([]);
      const [connection] = nbd.server.connections;
      // The stream does not receive while it is blocked; its first answer finds the client gone.
      vanish(client);
      giveBack();
      await nbd.until(() => connection!.stream.closing);
      await nbd.until(() => nbd.server.connections.size === 0);
    });
  });

  test("requests wait for slots and are then carried out", () => {
    withNbd(async (nbd) => {
      const { io } = nbd.reactor;
      nbd.gated("volume");
      const client = await enter(nbd);
      expect(io.promise(io.capacity)).toBe(true);
      for (const cookie of [1n, 2n]) await client.request({ type: FLUSH, cookie });
      await client.request({ type: READ, length: 2 << 20, cookie: 3n });
      await isBlocked(nbd);
      io.release(io.capacity);
      for (const cookie of [1n, 2n, 3n]) {
        expect(await client.answer()).toEqual({ kind: "simple", error: 0, cookie });
      }
      await client.take(2 << 20);
    });
  });

  test("a handshake waits for memory and goes on", () => {
    withNbd(async (nbd) => {
      nbd.memory("volume");
      const giveBack = exhaust(nbd.reactor.arena);
      const client = await nbd.connect();
      giveBack();
      await client.enter("volume");
      expect(await client.errorOf({ type: FLUSH })).toBe(0);
    });
  });
});

describe("connections side by side", () => {
  test("see each other's writes, and a flush on one covers all", () => {
    withNbd(async (nbd) => {
      const bdev = nbd.gated("volume");
      const one = await enter(nbd);
      const two = await enter(nbd);
      const data = random.bytes(512);
      await one.errorOf({ type: WRITE, offset: 512, data });
      expect(await two.readSimple(512, 512)).toEqual(data);
      await two.errorOf({ type: FLUSH });
      expect(bdev.seen.map(({ op }) => op)).toEqual(["write", "read", "flush"]);
    });
  });

  test("DISC of one leaves the other alone", () => {
    withNbd(async (nbd) => {
      nbd.gated("volume");
      const one = await enter(nbd);
      const two = await enter(nbd);
      await one.request({ type: DISC });
      expect(await one.rest()).toEqual(new Uint8Array(0));
      expect(await two.errorOf({ type: FLUSH })).toBe(0);
    });
  });
});

test("requests are counted", () => {
  withNbd(async (nbd) => {
    nbd.gated("volume");
    const { statistics } = nbd.server.export("volume")!;
    const client = await enter(nbd);
    await client.errorOf({ type: WRITE, data: new Uint8Array(1024) });
    await client.readSimple(0, 512);
    await client.errorOf({ type: FLUSH });
    expect([...statistics.ops].slice(0, 4)).toEqual([0, 1, 1, 1]);
    expect([...statistics.bytes].slice(0, 4)).toEqual([0, 512, 1024, 0]);
  });
});
