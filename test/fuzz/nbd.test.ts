/** Clients that send garbage, and clients that send anything that is right: the server bears both. */
import { expect, test } from "bun:test";
import { Op, shutdownSocket } from "../../ffi/index.ts";
import {
  decodeContextRequest,
  decodeInfoRequest,
  NbdCommand,
  NbdOption,
} from "../../src/engine/nbd/protocol.ts";
import type { GatedBdev } from "../support/gated-bdev.ts";
import { encodeRequest, fields, lengthAndText, type NbdClient } from "../support/nbd-client.ts";
import { MEMORY_BYTES, type NbdFixture, withNbd } from "../support/nbd-fixture.ts";
import { type Random, withSeed } from "../support/random.ts";

const SHUT_WR = 1;
const SESSIONS = 400;
const ROUNDS = 60;
const BATCH_MAX = 24;
const names = ["volume", "slow", "other", "", "x".repeat(300), "\u{1f480}"];

function option(type: number, data: Uint8Array): Uint8Array {
  return fields("IHAVEOPT", [32, type], [32, data.byteLength], data);
}

function randomOption(random: Random): Uint8Array {
  const name = random.pick(names);
  const queries = random.below(4);
  switch (random.below(6)) {
    case 0:
      return option(random.pick([3, 5, 8, 11, 99]), fields());
    case 1: {
      const texts = Array.from({ length: queries }, () =>
        lengthAndText(random.pick(["base:", "base:allocation", "qemu:x", ""])),
      );
      const data = fields(lengthAndText(name), [32, queries], ...texts);
      return option(random.pick([9, 10]), data);
    }
    case 2:
      return option(NbdOption.INFO, fields(lengthAndText(name), [16, 1], [16, random.below(5)]));
    case 3:
      return option(random.below(12), random.bytes(random.below(200)));
    case 4:
      return option(NbdOption.STRUCTURED_REPLY, fields());
    default:
      return option(random.pick([3, 6, 9]), new Uint8Array(random.below(70_000)));
  }
}

function randomRequest(random: Random): Uint8Array {
  const type = random.below(9);
  const aligned = random.chance(0.8);
  const scale = aligned ? 512 : 1;
  const near = random.pick([0, MEMORY_BYTES - 65536, MEMORY_BYTES]);
  const offset = near + random.below(100) * scale;
  const length = random.chance(0.05) ? random.below(3 << 20) : random.below(40) * scale;
  const flags = random.chance(0.3) ? random.below(64) : 0;
  const data =
    type === NbdCommand.WRITE ? new Uint8Array(length).fill(random.below(256)) : undefined;
  const request = { type, flags, offset, length, cookie: BigInt(random.below(1 << 30)) };
  return encodeRequest(data === undefined ? request : { ...request, data });
}

/** What a client may say, piece by piece, before anything is spoilt. */
function randomSession(random: Random): Uint8Array[] {
  const said: Uint8Array[] = [fields([32, random.chance(0.9) ? 3 : random.below(5)])];
  for (let i = random.below(6); i > 0; i--) said.push(randomOption(random));
  const name = random.chance(0.9) ? random.pick(["volume", "slow"]) : random.pick(names);
  if (random.chance(0.5)) said.push(option(NbdOption.EXPORT_NAME, fields(name)));
  else said.push(option(NbdOption.GO, fields(lengthAndText(name), [16, 0])));
  for (let i = random.below(30); i > 0; i--) said.push(randomRequest(random));
  if (random.chance(0.2)) said.push(encodeRequest({ type: NbdCommand.DISC }));
  return said;
}

function spoil(random: Random, piece: Uint8Array): Uint8Array {
  const copy = piece.slice();
  const header = Math.min(copy.byteLength, 40);
  switch (random.below(5)) {
    case 0:
      copy[random.below(header)] = random.below(256);
      return copy;
    case 1:
      return copy.subarray(0, random.below(copy.byteLength));
    case 2:
      return fields(copy, random.bytes(random.between(1, 40)));
    case 3:
      return random.bytes(random.between(1, 100));
    default:
      copy.fill(0xff, random.below(header), header);
      return copy;
  }
}

/** Sends pieces, cut at random; the server may end the connection at any time. */
async function say(random: Random, client: NbdClient, pieces: Uint8Array[]): Promise<void> {
  let bytes = fields(...pieces);
  while (bytes.byteLength > 0) {
    const n = random.chance(0.5) ? bytes.byteLength : random.between(1, bytes.byteLength);
    try {
      await client.send(bytes.subarray(0, n));
    } catch {
      return;
    }
    bytes = bytes.subarray(n);
  }
}

/** The bystander's data is as it was, and it is served. */
async function expectUnharmed(nbd: NbdFixture, data: Uint8Array): Promise<void> {
  const client = await nbd.connect();
  await client.enter("bystander");
  expect(await client.readSimple(0, data.byteLength)).toEqual(data);
  await client.request({ type: NbdCommand.DISC });
  await client.rest();
}

test("garbage ends the connection that sends it, and nothing else", () => {
  withSeed(import.meta.path, (random) =>
    withNbd(async (nbd) => {
      nbd.memory("volume");
      nbd.gated("slow");
      nbd.memory("bystander");
      const data = random.bytes(8192);
      const client = await nbd.connect();
      await client.enter("bystander");
      await client.errorOf({ type: NbdCommand.WRITE, data });
      shutdownSocket(client.fd);
      for (let session = 0; session < SESSIONS; session++) {
        const pieces = randomSession(random).map((piece) =>
          random.chance(0.1) ? spoil(random, piece) : piece,
        );
        const bad = await nbd.connect();
        // Some do not listen to what they are told.
        const heard = random.chance(0.7) ? bad.rest() : undefined;
        await say(random, bad, pieces);
        if (heard === undefined) shutdownSocket(bad.fd);
        else await nbd.reactor.submit(Op.SHUTDOWN, bad.fd, 0, SHUT_WR, 0, 0);
        await heard;
        bad.close();
        await nbd.until(() => nbd.server.connections.size === 0);
        if (session % 50 === 0) await expectUnharmed(nbd, data);
      }
      await expectUnharmed(nbd, data);
    }),
  );
});

interface Expected {
  readonly kind: "read" | "plain";
  readonly length: number;
  readonly data: Uint8Array;
  readonly offset: number;
}

/** A batch of requests on ranges that do not overlap, and what each is to be answered with. */
function randomBatch(random: Random, model: Uint8Array, cookies: Map<bigint, Expected>) {
  const pieces: Uint8Array[] = [];
  let at = random.below(1000) * 512;
  const count = random.between(1, BATCH_MAX);
  for (let i = 0; i < count && at < model.byteLength - 512; i++) {
    const isLong = random.chance(0.04);
    const blocks = isLong
      ? random.between(1, 6000)
      : random.between(1, random.pick([1, 8, 40, 300]));
    const length = Math.min(blocks * 512, model.byteLength - at);
    const cookie = (BigInt(random.below(2 ** 31)) << 32n) | BigInt(i);
    const type = random.pick([NbdCommand.READ, NbdCommand.WRITE, NbdCommand.WRITE_ZEROES]);
    const range = { type, cookie, offset: at, flags: random.pick([0, 0, 1]) };
    if (type === NbdCommand.READ) {
      const data = model.slice(at, at + length);
      cookies.set(cookie, { kind: "read", length, data, offset: at });
      pieces.push(encodeRequest({ ...range, length }));
    } else {
      cookies.set(cookie, { kind: "plain", length, data: fields(), offset: at });
      const isWrite = type === NbdCommand.WRITE;
      model.fill(isWrite ? random.below(256) : 0, at, at + length);
      if (isWrite) for (let b = at; b < at + length; b += 512) model[b] = random.below(256);
      const data = isWrite ? { data: model.slice(at, at + length) } : { length };
      pieces.push(encodeRequest({ ...range, ...data }));
    }
    at += length + random.below(20) * 512;
  }
  return pieces;
}

/** Takes one reply, or one chunk of a reply, and checks what it says. */
async function takeAnswer(
  client: NbdClient,
  cookies: Map<bigint, Expected>,
  filled: Map<bigint, number>,
) {
  const answer = await client.answer();
  const expected = cookies.get(answer.cookie);
  if (expected === undefined) throw new Error("an answer to nothing");
  if (answer.kind === "simple") {
    expect(answer.error).toBe(0);
    if (expected.kind === "read") {
      const data = await client.take(expected.length);
      expect(Buffer.compare(data, expected.data)).toBe(0);
    }
    cookies.delete(answer.cookie);
    return;
  }
  expect([expected.kind, answer.type]).toEqual(["read", 1]);
  const from = Number(answer.payload.getBigUint64(0)) - expected.offset;
  const data = answer.bytes.subarray(8);
  expect(Buffer.compare(data, expected.data.subarray(from, from + data.byteLength))).toBe(0);
  const sofar = (filled.get(answer.cookie) ?? 0) + data.byteLength;
  filled.set(answer.cookie, sofar);
  if ((answer.flags & 1) === 0) return;
  expect(sofar).toBe(expected.length);
  cookies.delete(answer.cookie);
}

/** Lets what a device holds back through, in any order, until `done`. */
async function shuffle(random: Random, nbd: NbdFixture, bdev: GatedBdev, done: () => boolean) {
  while (!done()) {
    for (let i = random.below(4); i > 0 && bdev.held.length > 0; i--) {
      bdev.pass(random.below(bdev.held.length));
    }
    await nbd.reactor.sleep(0);
  }
}

test.each([false, true])(
  "every byte is where it belongs, whatever comes in whatever order, structured replies %p",
  (structured) => {
    withSeed(import.meta.path, (random) =>
      withNbd(async (nbd) => {
        const bdev = nbd.gated("slow");
        nbd.memory("fast");
        for (const name of ["slow", "fast"]) {
          bdev.gate = name === "slow";
          const client = await nbd.connect();
          await client.enter(name, { structured });
          const model = new Uint8Array(8 << 20);
          for (let round = 0; round < ROUNDS; round++) {
            const cookies = new Map<bigint, Expected>();
            const filled = new Map<bigint, number>();
            const pieces = randomBatch(random, model, cookies);
            const said = say(random, client, pieces);
            const passed = shuffle(random, nbd, bdev, () => cookies.size === 0);
            while (cookies.size > 0) await takeAnswer(client, cookies, filled);
            await Promise.all([said, passed]);
          }
          const all = new Map<bigint, Expected>([
            [1n, { kind: "read", length: model.byteLength, data: model, offset: 0 }],
          ]);
          bdev.open();
          await client.request({ type: NbdCommand.READ, length: model.byteLength, cookie: 1n });
          const filled = new Map<bigint, number>();
          while (all.size > 0) await takeAnswer(client, all, filled);
        }
      }),
    );
  },
);

test("data of options is decoded or found malformed, never more", () => {
  withSeed(import.meta.path, (random) => {
    for (let i = 0; i < 20_000; i++) {
      const valid = randomOption(random).subarray(16);
      const data = random.chance(0.5) && valid.byteLength > 0 ? spoil(random, valid) : valid;
      for (const decoded of [decodeInfoRequest(data), decodeContextRequest(data)]) {
        if (decoded === undefined) continue;
        const count = "wanted" in decoded ? decoded.wanted.length : decoded.queries.length;
        expect(count).toBeLessThanOrEqual(data.byteLength);
        expect(Buffer.byteLength(decoded.name)).toBeLessThanOrEqual(data.byteLength);
      }
    }
  });
});
