import { describe, expect, test } from "bun:test";
import {
  allocNative,
  CRC32C_START,
  crc32c,
  crc32cFinish,
  crc32cOf,
  crc32cUpdate,
} from "../../../ffi/index.ts";
import { withSeed } from "../../support/random.ts";

/** The definition, bit by bit: reflected polynomial 0x82F63B78. */
function crc32cByDefinition(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  }
  return ~crc >>> 0;
}

describe("CRC-32C", () => {
  // RFC 3720, appendix B.4, and the check value of the catalogue of parametrised CRCs.
  const vectors: [name: string, bytes: Uint8Array, crc: number][] = [
    ["nothing", new Uint8Array(0), 0],
    ["123456789", new TextEncoder().encode("123456789"), 0xe3069283],
    ["32 zeroes", new Uint8Array(32), 0x8a9136aa],
    ["32 ones", new Uint8Array(32).fill(0xff), 0x62a8ab43],
    ["0 to 31", Uint8Array.from({ length: 32 }, (_, i) => i), 0x46dd794e],
    ["31 to 0", Uint8Array.from({ length: 32 }, (_, i) => 31 - i), 0x113fdb5c],
  ];
  for (const [name, bytes, crc] of vectors) {
    test(`of ${name}`, () => {
      expect(crc32cOf(bytes)).toBe(crc);
      expect(crc32cByDefinition(bytes)).toBe(crc);
    });
  }

  test("agrees with its definition at every length and alignment, whole and in parts", () => {
    withSeed(import.meta.path, (random) => {
      const memory = allocNative(2048);
      for (let round = 0; round < 400; round++) {
        const start = random.below(64);
        const length = random.below(1500);
        memory.u8.set(random.bytes(length), start);
        const bytes = memory.u8.slice(start, start + length);
        const want = crc32cByDefinition(bytes);
        expect(crc32c(memory.address + start, length)).toBe(want);
        expect(crc32cOf(bytes)).toBe(want);
        const cut = random.below(length + 1);
        let state = crc32cUpdate(CRC32C_START, memory.address + start, cut);
        state = crc32cUpdate(state, memory.address + start + cut, length - cut);
        expect(crc32cFinish(state)).toBe(want);
      }
    });
  });
});
