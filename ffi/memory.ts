/**
 * Memory that native code may see. The one place that turns JavaScript memory into an address.
 *
 * Typed arrays of 1,000 bytes or less that own their storage live in the garbage-collected heap and
 * move; an address taken of one goes stale silently. So native code only ever sees either views
 * over an explicit `ArrayBuffer` (from `allocNative`, kept alive by whoever uses the address) or
 * mapped memory (`mapMemory` in libc.ts).
 */
import { type Pointer, ptr, toArrayBuffer } from "bun:ffi";

/** A piece of stable memory: its address and the views over it. Keep the object while C uses it. */
export interface NativeMemory {
  readonly address: number;
  readonly byteLength: number;
  readonly u8: Uint8Array;
  readonly i32: Int32Array;
  readonly u32: Uint32Array;
  readonly view: DataView;
}

/** An address as bun:ffi wants to see it. */
export function pointer(address: number): Pointer {
  return address as Pointer;
}

function viewsOver(address: number, buffer: ArrayBuffer): NativeMemory {
  const words = buffer.byteLength >> 2;
  return {
    address,
    byteLength: buffer.byteLength,
    u8: new Uint8Array(buffer),
    i32: new Int32Array(buffer, 0, words),
    u32: new Uint32Array(buffer, 0, words),
    view: new DataView(buffer),
  };
}

/** Zeroed memory of `byteLength` bytes, rounded up to a multiple of 8, that does not move. */
export function allocNative(byteLength: number): NativeMemory {
  const buffer = new ArrayBuffer((byteLength + 7) & ~7);
  const address: number = ptr(new Uint8Array(buffer));
  return viewsOver(address, buffer);
}

/** Views over memory that native code owns (a mapping). `address` must be 8-byte aligned. */
export function viewNative(address: number, byteLength: number): NativeMemory {
  return viewsOver(address, toArrayBuffer(pointer(address), 0, byteLength));
}

/** A NUL-terminated UTF-8 copy of `text`. */
export function cString(text: string): NativeMemory {
  const bytes = new TextEncoder().encode(text);
  const memory = allocNative(bytes.byteLength + 1);
  memory.u8.set(bytes);
  return memory;
}
