import { describe, expect, test } from "bun:test";
import {
  allocNative,
  copyMemory,
  cString,
  equalMemory,
  fillMemory,
  mapMemory,
  unmapMemory,
  viewNative,
} from "../../../ffi/index.ts";

describe("memory that native code sees", () => {
  test("is zeroed, rounded up to eight bytes, and seen alike by all its views", () => {
    const memory = allocNative(13);
    expect(memory.byteLength).toBe(16);
    expect([...memory.u8]).toEqual(new Array(16).fill(0));
    memory.view.setUint32(4, 0x80000001, true);
    expect(memory.u32[1]).toBe(0x80000001);
    expect(memory.i32[1]).toBe(-0x7fffffff);
    expect(viewNative(memory.address, 16).u8[4]).toBe(1);
  });

  test("stays where it is, however often it is used and whatever is collected", () => {
    // A small typed array with storage of its own would have moved by now (see ffi/memory.ts).
    const memory = allocNative(16);
    for (let i = 1; i <= 50_000; i++) {
      const value = i & 0xff;
      fillMemory(memory.address, value, 16);
      if (memory.u8[0] !== value || memory.u8[15] !== value) throw new Error(`moved at ${i}`);
      if (i % 10_000 === 0) Bun.gc(true);
    }
  });

  test("is copied and compared by address", () => {
    const a = allocNative(64);
    const b = allocNative(64);
    a.u8.set(Array.from({ length: 64 }, (_, i) => i));
    expect(equalMemory(a.address, b.address, 64)).toBe(false);
    copyMemory(b.address, a.address, 64);
    expect(equalMemory(a.address, b.address, 64)).toBe(true);
    b.u8[63] = 0;
    expect(equalMemory(a.address, b.address, 63)).toBe(true);
    expect(equalMemory(a.address, b.address, 64)).toBe(false);
  });

  test("holds text with its final NUL, in UTF-8", () => {
    const text = cString("pool-ä");
    expect([...text.u8.subarray(0, 8)]).toEqual([...Buffer.from("pool-ä"), 0]);
  });

  for (const huge of [false, true]) {
    test(`is mapped ${huge ? "with" : "without"} large pages, zeroed and writable to its end`, () => {
      const byteLength = 4 << 20;
      const memory = mapMemory(byteLength, { huge });
      if (!huge) expect(memory.hugePages).toBe("none");
      expect(memory.byteLength).toBe(byteLength);
      expect(memory.address % 4096).toBe(0);
      expect(memory.u32[(byteLength >> 2) - 1]).toBe(0);
      memory.u8[byteLength - 1] = 9;
      expect(equalMemory(memory.address, memory.address + byteLength - 4096, 4096)).toBe(false);
      unmapMemory(memory);
    });
  }

  test("that there is not enough of is an error with the call and the errno", () => {
    expect(() => mapMemory(2 ** 50, { huge: false })).toThrow(
      /mmap 1125899906842624 bytes: ENOMEM/,
    );
  });
});
