/**
 * The conformance suite of block devices: what every implementation of `Bdev` has to do.
 *
 * To add an implementation, call `bdevConformance` with a name and a function that makes a fresh
 * device of at least 8 MiB on the reactor it is given (see bdev.test.ts).
 */
import { describe, expect, test } from "bun:test";
import type { Bdev } from "../../src/engine/bdev/bdev.ts";
import { IoFlag, IoOp, type IoOwner } from "../../src/engine/reactor/io-table.ts";
import type { Reactor } from "../../src/engine/reactor/reactor.ts";
import { IoStatus } from "../../src/errors.ts";
import { type Random, withSeed } from "../support/random.ts";
import { type BdevProbe, probeBdev, withReactor } from "../support/reactor.ts";

const MIB = 1 << 20;

/** A device under test. */
export interface BdevUnderTest {
  readonly bdev: Bdev;
  /** Opens it again after `bdev.close()`: of a device that keeps its data. */
  readonly reopen?: () => Promise<Bdev>;
  /** Takes away whatever stands behind the device, which is closed by then. */
  readonly dispose: () => Promise<void> | void;
}

export type MakeBdev = (reactor: Reactor) => Promise<BdevUnderTest>;

interface Setting {
  readonly reactor: Reactor;
  readonly bdev: Bdev;
  readonly probe: BdevProbe;
  readonly made: BdevUnderTest;
}

function pattern(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = (seed * 2654435761 + 1) >>> 0;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

/** Equality without a diff of megabytes: the index of the first difference, -1 when equal. */
function firstDifference(a: Uint8Array, b: Uint8Array): number {
  if (a.byteLength !== b.byteLength) return Math.min(a.byteLength, b.byteLength);
  if (Buffer.compare(a, b) === 0) return -1;
  return a.findIndex((byte, i) => byte !== b[i]);
}

/** Many requests at once, without promises: `finished` resolves when all have ended. */
class Burst implements IoOwner {
  readonly statuses = new Map<number, number>();
  ended = 0;
  readonly finished: Promise<void>;
  #resolve: () => void = () => {};
  readonly #bdev: Bdev;
  #left: number;

  constructor(bdev: Bdev, count: number) {
    this.#bdev = bdev;
    this.#left = count;
    this.finished = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  /** Submits one request; `tag` names it in `statuses`. */
  submit(tag: number, op: number, offset: number, length: number, buffer: number, flags = 0): void {
    const { io, now } = this.#bdev.reactor;
    if (!io.promise(this.#bdev.slotsPerIo + 1)) throw new Error("request slots are used up");
    const slot = io.take(op, offset, length, buffer, flags, now);
    io.tagA[slot] = tag;
    io.push(slot, this);
    this.#bdev.submit(slot);
  }

  ioDone(slot: number): void {
    const { io } = this.#bdev.reactor;
    const tag = io.tagA[slot]!;
    this.ended++;
    this.statuses.set(tag, io.status[slot]!);
    io.give(slot);
    io.release(this.#bdev.slotsPerIo + 1);
    if (--this.#left === 0) this.#resolve();
  }
}

/** Registers the suite for one implementation. `keepsData`: its `make` gives a `reopen`. */
export function bdevConformance(
  name: string,
  make: MakeBdev,
  options: { readonly keepsData: boolean },
): void {
  /** A test on a fresh device; memory, slots and handlers must all be back afterwards. */
  const check = (title: string, body: (s: Setting) => Promise<void>): void => {
    test(title, () => {
      withReactor(async (reactor) => {
        const handlers = reactor.handlerCount;
        const made = await make(reactor);
        const { arena, io } = reactor;
        const before = { freeBytes: arena.freeBytes, free: io.free };
        const { bdev } = made;
        let isOpen = true;
        const close = bdev.close.bind(bdev);
        Object.defineProperty(bdev, "close", {
          value: () => {
            isOpen = false;
            return close();
          },
        });
        try {
          await body({ reactor, bdev, probe: probeBdev(bdev), made });
          if (isOpen) await bdev.close();
          expect(io.free).toBe(before.free);
          expect(arena.freeBytes).toBeGreaterThanOrEqual(before.freeBytes);
        } finally {
          if (isOpen) await bdev.close();
          await made.dispose();
        }
        expect(reactor.handlerCount).toBe(handlers);
      });
    });
  };

  describe(`block device: ${name}`, () => {
    check("says what it is", async ({ bdev, reactor }) => {
      expect([512, 4096]).toContain(bdev.blockSize);
      expect(bdev.blockCount * bdev.blockSize).toBeGreaterThanOrEqual(8 * MIB);
      expect(bdev.uuid).toMatch(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
      expect(bdev.name).not.toBe("");
      expect(bdev.uri).not.toBe("");
      expect(bdev.reactor).toBe(reactor);
      expect(bdev.slotsPerIo).toBeGreaterThanOrEqual(0);
    });

    check("reads back what was written, at every size and both ends", async ({ bdev, probe }) => {
      const sizes = [1, 2, 3, 8, 9, 16, 17, 32, 33].map((n) => n * bdev.blockSize);
      for (const length of [...sizes, 128 << 10, MIB - bdev.blockSize, MIB]) {
        for (const offset of [0, 3 * bdev.blockSize, probe.bytes - length]) {
          const bytes = pattern(length, length + offset);
          expect(await probe.write(offset, bytes)).toBe(IoStatus.OK);
          const back = await probe.read(offset, length);
          expect(back.status).toBe(IoStatus.OK);
          expect(firstDifference(back.bytes, bytes)).toBe(-1);
        }
      }
    });

    check("leaves the neighbours of a write alone", async ({ bdev, probe }) => {
      const { blockSize } = bdev;
      const around = pattern(64 * blockSize, 1);
      expect(await probe.write(0, around)).toBe(IoStatus.OK);
      for (const blocks of [1, 7, 40]) {
        const inner = pattern(blocks * blockSize, blocks);
        expect(await probe.write(5 * blockSize, inner)).toBe(IoStatus.OK);
        around.set(inner, 5 * blockSize);
        const { bytes } = await probe.read(0, around.byteLength);
        expect(firstDifference(bytes, around)).toBe(-1);
      }
    });

    check("takes data at any address", async ({ bdev, reactor }) => {
      const { arena } = reactor;
      const length = 5 * bdev.blockSize;
      const memory = arena.alloc(64 << 10, 0);
      for (const shift of [0, 4, 512, 1028]) {
        const bytes = pattern(length, shift);
        arena.u8.set(bytes, memory + shift);
        const write = new Burst(bdev, 1);
        write.submit(0, IoOp.WRITE, 8 * bdev.blockSize, length, memory + shift);
        await write.finished;
        arena.u8.fill(0xee, memory, memory + (64 << 10));
        const read = new Burst(bdev, 1);
        read.submit(0, IoOp.READ, 8 * bdev.blockSize, length, memory + shift);
        await read.finished;
        expect([write.statuses.get(0), read.statuses.get(0)]).toEqual([IoStatus.OK, IoStatus.OK]);
        const back = arena.u8.slice(memory + shift, memory + shift + length);
        expect(firstDifference(back, bytes)).toBe(-1);
        expect(arena.u8[memory + shift + length]).toBe(0xee);
      }
      arena.free(memory);
    });

    check("refuses what lies outside or is malformed, and changes nothing", async (s) => {
      const { bdev, probe, reactor } = s;
      const { blockSize } = bdev;
      const before = pattern(8 * blockSize, 5);
      await probe.write(0, before);
      await probe.write(probe.bytes - before.byteLength, before);
      const { OUT_OF_RANGE, INVALID, UNSUPPORTED } = IoStatus;
      const cases: readonly (readonly [number, number, number, number])[] = [
        [IoOp.READ, probe.bytes, blockSize, OUT_OF_RANGE],
        [IoOp.READ, probe.bytes - blockSize, 2 * blockSize, OUT_OF_RANGE],
        [IoOp.WRITE, probe.bytes - blockSize, 2 * blockSize, OUT_OF_RANGE],
        [IoOp.WRITE, -blockSize, blockSize, OUT_OF_RANGE],
        [IoOp.WRITE_ZEROES, blockSize, probe.bytes, OUT_OF_RANGE],
        [IoOp.DISCARD, probe.bytes, blockSize, OUT_OF_RANGE],
        [IoOp.READ, 0, 0, OUT_OF_RANGE],
        [IoOp.READ, 0, blockSize - 1, INVALID],
        [IoOp.WRITE, 1, blockSize, INVALID],
        [IoOp.WRITE, 0, blockSize / 2, INVALID],
        [IoOp.READ, 0, MIB + blockSize, INVALID],
        [IoOp.WRITE_ZEROES, blockSize / 2, blockSize, INVALID],
        [99, 0, blockSize, UNSUPPORTED],
      ];
      const buffer = reactor.arena.alloc(MIB, 0);
      const burst = new Burst(bdev, cases.length);
      cases.forEach(([op, offset, length], i) => {
        burst.submit(i, op, offset, length, buffer);
      });
      await burst.finished;
      expect(cases.map((_, i) => burst.statuses.get(i))).toEqual(cases.map((c) => c[3]));
      reactor.arena.free(buffer);
      const head = await probe.read(0, before.byteLength);
      const tail = await probe.read(probe.bytes - before.byteLength, before.byteLength);
      expect(firstDifference(head.bytes, before)).toBe(-1);
      expect(firstDifference(tail.bytes, before)).toBe(-1);
    });

    check("zeroes ranges of any length, and no more", async ({ bdev, probe }) => {
      const { blockSize } = bdev;
      const span = 6 * MIB;
      for (const flags of [0, IoFlag.UNMAP, IoFlag.FUA]) {
        for (const length of [blockSize, 3 * blockSize, 64 << 10, 5 * MIB]) {
          for (let at = 0; at < span; at += MIB) await probe.write(at, pattern(MIB, at + length));
          const from = 7 * blockSize;
          expect(await probe.control(IoOp.WRITE_ZEROES, from, length, flags)).toBe(IoStatus.OK);
          for (let at = 0; at < span; at += MIB) {
            const expected = pattern(MIB, at + length);
            const first = Math.max(0, from - at);
            const last = Math.min(MIB, from + length - at);
            if (last > first) expected.fill(0, first, last);
            const { bytes } = await probe.read(at, MIB);
            expect(firstDifference(bytes, expected)).toBe(-1);
          }
        }
      }
    });

    check("discards: what was not discarded stays", async ({ bdev, probe }) => {
      const { blockSize } = bdev;
      const bytes = pattern(MIB, 77);
      await probe.write(0, bytes);
      const from = 4096;
      const length = 512 << 10;
      expect(await probe.control(IoOp.DISCARD, from, length)).toBe(IoStatus.OK);
      const back = await probe.read(0, MIB);
      expect(back.status).toBe(IoStatus.OK);
      const head = back.bytes.subarray(0, from);
      const tail = back.bytes.subarray(from + length);
      expect(firstDifference(head, bytes.subarray(0, from))).toBe(-1);
      expect(firstDifference(tail, bytes.subarray(from + length))).toBe(-1);
      const inside = back.bytes.subarray(from, from + length);
      if (bdev.discardZeroes) expect(inside.every((byte) => byte === 0)).toBe(true);
      // Discarded blocks take data again.
      const again = pattern(4 * blockSize, 3);
      expect(await probe.write(from, again)).toBe(IoStatus.OK);
      const { bytes: reread } = await probe.read(from, again.byteLength);
      expect(firstDifference(reread, again)).toBe(-1);
    });

    check("flushes, and writes with FUA", async ({ bdev, probe }) => {
      const bytes = pattern(16 * bdev.blockSize, 9);
      expect(await probe.write(0, bytes, IoFlag.FUA)).toBe(IoStatus.OK);
      expect(await probe.control(IoOp.FLUSH)).toBe(IoStatus.OK);
      const { bytes: back } = await probe.read(0, bytes.byteLength);
      expect(firstDifference(back, bytes)).toBe(-1);
    });

    check("ends every one of many requests at once, exactly once", async ({ bdev, reactor }) => {
      const count = 600;
      const length = Math.max(4096, bdev.blockSize);
      const buffers = Int32Array.from({ length: count }, () => reactor.arena.alloc(length, 0));
      const writes = new Burst(bdev, count);
      for (let i = 0; i < count; i++) {
        reactor.arena.u8.set(pattern(length, i), buffers[i]!);
        writes.submit(i, IoOp.WRITE, i * length, length, buffers[i]!);
      }
      await writes.finished;
      const reads = new Burst(bdev, count);
      for (let i = 0; i < count; i++) {
        reactor.arena.u8.fill(0, buffers[i]!, buffers[i]! + length);
        reads.submit(i, IoOp.READ, i * length, length, buffers[i]!);
      }
      await reads.finished;
      expect([writes.ended, reads.ended]).toEqual([count, count]);
      for (let i = 0; i < count; i++) {
        expect([i, writes.statuses.get(i), reads.statuses.get(i)]).toEqual([i, 0, 0]);
        const back = reactor.arena.u8.slice(buffers[i]!, buffers[i]! + length);
        expect([i, firstDifference(back, pattern(length, i))]).toEqual([i, -1]);
        reactor.arena.free(buffers[i]!);
      }
    });

    check("does as a model does under random requests, many at a time", async (s) => {
      await withSeed(import.meta.path, (random) => againstModel(s, random));
    });

    check("takes new requests from inside a completion", async ({ bdev, reactor }) => {
      const buffer = reactor.arena.alloc(bdev.blockSize, 0);
      const chain = 200;
      let ended = 0;
      const { io } = reactor;
      await new Promise<void>((resolve) => {
        const owner: IoOwner = {
          ioDone(slot) {
            expect(io.status[slot]).toBe(IoStatus.OK);
            io.give(slot);
            ended++;
            if (ended === chain) resolve();
            else submitNext();
          },
        };
        const submitNext = (): void => {
          const op = ended % 2 === 0 ? IoOp.WRITE : IoOp.READ;
          const slot = io.take(op, 0, bdev.blockSize, buffer, 0, reactor.now);
          io.push(slot, owner);
          bdev.submit(slot);
        };
        expect(io.promise(bdev.slotsPerIo + 1)).toBe(true);
        submitNext();
      });
      io.release(bdev.slotsPerIo + 1);
      reactor.arena.free(buffer);
      expect(ended).toBe(chain);
    });

    check("waits for what is outstanding when closed, and is gone afterwards", async (s) => {
      const { bdev, probe, reactor } = s;
      const count = 32;
      const buffers = Array.from({ length: count }, () => reactor.arena.alloc(64 << 10, 0));
      const burst = new Burst(bdev, count);
      buffers.forEach((buffer, i) => {
        burst.submit(i, IoOp.WRITE, i * (64 << 10), 64 << 10, buffer);
      });
      await bdev.close();
      expect(burst.ended).toBe(count);
      for (let i = 0; i < count; i++) expect(burst.statuses.get(i)).toBe(IoStatus.OK);
      for (const buffer of buffers) reactor.arena.free(buffer);
      expect((await probe.read(0, bdev.blockSize)).status).toBe(IoStatus.DEVICE_GONE);
      expect(await probe.control(IoOp.FLUSH)).toBe(IoStatus.DEVICE_GONE);
    });

    if (!options.keepsData) return;
    check("keeps its data when it is closed and opened again", async ({ bdev, probe, made }) => {
      const bytes = pattern(MIB, 21);
      expect(await probe.write(2 * MIB, bytes)).toBe(IoStatus.OK);
      expect(await probe.control(IoOp.FLUSH)).toBe(IoStatus.OK);
      await bdev.close();
      const again = await made.reopen!();
      try {
        expect(again.blockCount).toBe(bdev.blockCount);
        const back = await probeBdev(again).read(2 * MIB, MIB);
        expect(back.status).toBe(IoStatus.OK);
        expect(firstDifference(back.bytes, bytes)).toBe(-1);
      } finally {
        await again.close();
      }
    });
  });
}

/** Random requests on disjoint parts of the device at once, each part compared with a model. */
async function againstModel({ bdev, probe }: Setting, random: Random): Promise<void> {
  const { blockSize } = bdev;
  const partBytes = MIB;
  const parts = 8;
  const blocks = partBytes / blockSize;
  const workOn = async (part: number): Promise<void> => {
    const base = part * partBytes;
    const model = pattern(partBytes, part);
    expect(await probe.write(base, model)).toBe(IoStatus.OK);
    for (let i = 0; i < 40; i++) {
      const from = random.below(blocks);
      const count = random.between(
        1,
        random.chance(0.2) ? blocks - from : Math.min(32, blocks - from),
      );
      const at = from * blockSize;
      const length = count * blockSize;
      const action = random.below(10);
      const flags = random.chance(0.1) ? IoFlag.FUA : 0;
      if (action < 4) {
        const bytes = pattern(length, random.below(1 << 30));
        model.set(bytes, at);
        expect(await probe.write(base + at, bytes, flags)).toBe(IoStatus.OK);
      } else if (action < 8) {
        const back = await probe.read(base + at, length);
        expect(back.status).toBe(IoStatus.OK);
        expect(firstDifference(back.bytes, model.subarray(at, at + length))).toBe(-1);
      } else if (action === 8) {
        const unmap = random.chance(0.5) ? IoFlag.UNMAP : 0;
        model.fill(0, at, at + length);
        const status = await probe.control(IoOp.WRITE_ZEROES, base + at, length, flags | unmap);
        expect(status).toBe(IoStatus.OK);
      } else {
        expect(await probe.control(IoOp.DISCARD, base + at, length)).toBe(IoStatus.OK);
        // What a discarded range holds is the device's affair, so it is written anew.
        const bytes = pattern(length, random.below(1 << 30));
        model.set(bytes, at);
        expect(await probe.write(base + at, bytes)).toBe(IoStatus.OK);
      }
    }
    const back = await probe.read(base, partBytes);
    expect(firstDifference(back.bytes, model)).toBe(-1);
  };
  await Promise.all(Array.from({ length: parts }, (_, part) => workOn(part)));
}
