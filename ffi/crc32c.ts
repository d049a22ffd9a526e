/**
 * CRC-32C (Castagnoli, reflected 0x82F63B78), as NVMe/TCP digests (TCP transport 3.3.1.1) and our
 * on-disk structures use it. The work is done by ISA-L, which picks the fastest form for the CPU.
 */
import { openLibrary } from "./library.ts";
import { pointer } from "./memory.ts";

const isal = openLibrary("libisal", {
  crc32_iscsi: { args: ["ptr", "i32", "u32"], returns: "u32" },
});

/** State of an empty running checksum. */
export const CRC32C_START = 0xffffffff;

/** Feeds `length` bytes at `address` (mapped or native memory) into a running state. */
export function crc32cUpdate(state: number, address: number, length: number): number {
  return isal.crc32_iscsi(pointer(address), length, state);
}

/** The checksum of everything fed so far, as an unsigned 32-bit number. */
export function crc32cFinish(state: number): number {
  return ~state >>> 0;
}

/** Checksum of `length` bytes at `address`. */
export function crc32c(address: number, length: number): number {
  return ~isal.crc32_iscsi(pointer(address), length, CRC32C_START) >>> 0;
}

/** Checksum of a typed array's bytes (the call is synchronous, so the array cannot move under it). */
export function crc32cOf(bytes: Uint8Array): number {
  if (bytes.byteLength === 0) return 0;
  return ~isal.crc32_iscsi(bytes, bytes.byteLength, CRC32C_START) >>> 0;
}
