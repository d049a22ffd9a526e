import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { copyMemory } from "../../../../ffi/index.ts";
import { AssertionError } from "../../../../src/assert.ts";
import { Arena } from "../../../../src/engine/reactor/arena.ts";
import {
  ARENA_BYTES_MIN,
  BUFFER_BYTES_MAX,
  BUFFER_BYTES_MIN,
} from "../../../../src/engine/reactor/limits.ts";
import { withSeed } from "../../../support/random.ts";

describe("arena", () => {
  let arena: Arena;
  beforeEach(() => {
    arena = new Arena(ARENA_BYTES_MIN);
  });
  afterEach(() => {
    arena.close();
  });

  /** Takes pieces of one size until there are no more. */
  function takeAll(byteLength: number): number[] {
    const taken: number[] = [];
    for (let at = arena.alloc(byteLength, 0); at >= 0; at = arena.alloc(byteLength, 0)) {
      taken.push(at);
    }
    return taken;
  }

  test("refuses a size that is not a multiple of 2 MiB or beyond its limits", () => {
    expect(() => new Arena(ARENA_BYTES_MIN + 4096)).toThrow(AssertionError);
    expect(() => new Arena(ARENA_BYTES_MIN / 2)).toThrow(AssertionError);
    expect(() => new Arena(2 ** 31)).toThrow(AssertionError);
  });

  test("begins empty, zeroed, and page-aligned", () => {
    expect(arena.freeBytes).toBe(ARENA_BYTES_MIN);
    expect(arena.address % 4096).toBe(0);
    expect(arena.u8.every((byte) => byte === 0)).toBe(true);
  });

  test("hands out the smallest power of two that holds the length", () => {
    const sizes: [asked: number, given: number][] = [
      [1, 4096],
      [4096, 4096],
      [4097, 8192],
      [65536, 65536],
      [65537, 131072],
      [600_000, 1 << 20],
      [1 << 20, 1 << 20],
    ];
    for (const [asked, given] of sizes) {
      const before = arena.freeBytes;
      const at = arena.alloc(asked, 0);
      expect(arena.sizeOf(at)).toBe(given);
      expect(at % given).toBe(0);
      expect(before - arena.freeBytes).toBe(given);
    }
  });

  test("the views and the address are the same memory", () => {
    const from = arena.alloc(4096, 0);
    const to = arena.alloc(4096, 0);
    arena.u8.fill(0xa5, from, from + 4096);
    copyMemory(arena.address + to, arena.address + from, 4096);
    expect(arena.u32[to >> 2]).toBe(0xa5a5a5a5);
    expect(arena.i32[(to + 4092) >> 2]).toBe(0xa5a5a5a5 | 0);
  });

  for (const byteLength of [4096, 16384, BUFFER_BYTES_MAX]) {
    test(`can be used up in pieces of ${byteLength} and given back whole`, () => {
      const taken = takeAll(byteLength);
      expect(taken.length).toBe(ARENA_BYTES_MIN / byteLength);
      expect(new Set(taken).size).toBe(taken.length);
      expect(arena.freeBytes).toBe(0);
      for (const at of taken) arena.free(at);
      expect(arena.freeBytes).toBe(ARENA_BYTES_MIN);
      // Small pieces merge again: the largest ones can all be had.
      expect(takeAll(BUFFER_BYTES_MAX).length).toBe(ARENA_BYTES_MIN / BUFFER_BYTES_MAX);
    });
  }

  test("a piece in use keeps only its own megabyte from being merged", () => {
    const taken = takeAll(4096);
    for (const at of taken) if (at !== 3 << 20) arena.free(at);
    expect(takeAll(BUFFER_BYTES_MAX).length).toBe(ARENA_BYTES_MIN / BUFFER_BYTES_MAX - 1);
  });

  test("leaves what `keepFree` asks for", () => {
    const keepFree = 1 << 20;
    let count = 0;
    while (arena.alloc(4096, keepFree) >= 0) count++;
    expect(count).toBe((ARENA_BYTES_MIN - keepFree) / 4096);
    expect(arena.freeBytes).toBe(keepFree);
    expect(arena.alloc(4096, 0)).toBeGreaterThanOrEqual(0);
  });

  test("says when something was given back", () => {
    const at = arena.alloc(4096, 0);
    expect(arena.freed).toBe(false);
    arena.free(at);
    expect(arena.freed).toBe(true);
  });

  test("a defect of the caller is an assertion", () => {
    const at = arena.alloc(8192, 0);
    expect(() => arena.free(at + 4096)).toThrow(AssertionError);
    expect(() => arena.free(at + 1)).toThrow(AssertionError);
    expect(() => arena.free(-1)).toThrow(AssertionError);
    expect(() => arena.free(ARENA_BYTES_MIN)).toThrow(AssertionError);
    expect(() => arena.alloc(0, 0)).toThrow(AssertionError);
    expect(() => arena.alloc(BUFFER_BYTES_MAX + 1, 0)).toThrow(AssertionError);
    arena.free(at);
    expect(() => arena.free(at)).toThrow(AssertionError);
  });

  test("random use never hands out the same byte twice and loses none", () => {
    withSeed(import.meta.path, (random) => {
      const owner = new Int32Array(ARENA_BYTES_MIN / BUFFER_BYTES_MIN).fill(-1);
      const pieces = new Map<number, number>();
      let refusals = 0;
      const hasRoomFor = (asked: number): boolean => {
        const pages = 2 ** Math.ceil(Math.log2(Math.max(asked, 4096) / 4096));
        for (let first = 0; first < owner.length; first += pages) {
          if (owner.subarray(first, first + pages).every((id) => id === -1)) return true;
        }
        return false;
      };
      const paint = (at: number, size: number, from: number, to: number) => {
        for (let page = at / 4096; page < (at + size) / 4096; page++) {
          if (owner[page] !== from) throw new Error(`page ${page} belongs to ${owner[page]}`);
          owner[page] = to;
        }
      };
      for (let step = 0; step < 20_000; step++) {
        // Phases that mostly take and phases that mostly give, so that both ends are reached.
        const taking = step % 2_000 < 1_000 ? 0.7 : 0.3;
        if (random.chance(taking)) {
          const asked = 1 + random.below(BUFFER_BYTES_MAX >> random.below(9));
          const at = arena.alloc(asked, 0);
          if (at < 0) {
            refusals++;
            if (hasRoomFor(asked)) throw new Error(`no piece of ${asked} though there is one`);
            continue;
          }
          const size = arena.sizeOf(at);
          expect(size).toBeGreaterThanOrEqual(asked);
          paint(at, size, -1, step);
          pieces.set(at, step);
        } else if (pieces.size > 0) {
          const at = random.pick([...pieces.keys()]);
          paint(at, arena.sizeOf(at), pieces.get(at)!, -1);
          pieces.delete(at);
          arena.free(at);
        }
        const used = [...pieces.keys()].reduce((sum, at) => sum + arena.sizeOf(at), 0);
        if (arena.freeBytes !== ARENA_BYTES_MIN - used) throw new Error("free bytes miscounted");
      }
      expect(refusals).toBeGreaterThan(0);
      for (const at of pieces.keys()) arena.free(at);
      expect(takeAll(BUFFER_BYTES_MAX).length).toBe(ARENA_BYTES_MIN / BUFFER_BYTES_MAX);
    });
  });
});
