/** Little-endian encoding of what a pool keeps on disk. Decoding trusts nothing: bounds come first. */
import { assert } from "../../assert.ts";
import { TrilithError } from "../../errors.ts";

const TWO_32 = 2 ** 32;
const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));
const utf8Encoder = new TextEncoder();
const utf8Decoder = new TextDecoder("utf-8", { fatal: true });

/** What is on the disk contradicts itself. */
export function corrupted(what: string): TrilithError {
  return new TrilithError(
    "Corrupted",
    what,
    "run `trilith pool check` on the disk; rebuild its replicas from healthy copies elsewhere",
  );
}

/** UTF-8 of `text`. */
export function utf8(text: string): Uint8Array {
  return utf8Encoder.encode(text);
}

/** The 16 bytes of a lower-case UUID. */
export function uuidBytes(uuid: string): Uint8Array {
  const bytes = new Uint8Array(16);
  const digits = uuid.replaceAll("-", "");
  assert(digits.length === 32, `"${uuid}" is a UUID`);
  for (let i = 0; i < 16; i++) bytes[i] = Number.parseInt(digits.slice(i * 2, i * 2 + 2), 16);
  return bytes;
}

/** The UUID whose 16 bytes stand at `at`. */
export function uuidText(bytes: Uint8Array, at: number): string {
  let text = "";
  for (let i = 0; i < 16; i++) {
    if (i === 4 || i === 6 || i === 8 || i === 10) text += "-";
    text += HEX[bytes[at + i]!]!;
  }
  return text;
}

/** Writes fields one after the other into a buffer it owns; reused by `reset`. */
export class Encoder {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  at = 0;

  constructor(byteLength: number) {
    this.bytes = new Uint8Array(new ArrayBuffer(byteLength));
    this.view = new DataView(this.bytes.buffer);
  }

  reset(): this {
    this.at = 0;
    return this;
  }

  u8(value: number): this {
    this.view.setUint8(this.at, value);
    this.at += 1;
    return this;
  }

  u16(value: number): this {
    this.view.setUint16(this.at, value, true);
    this.at += 2;
    return this;
  }

  u32(value: number): this {
    this.view.setUint32(this.at, value, true);
    this.at += 4;
    return this;
  }

  u64(value: number): this {
    assert(value >= 0 && value <= Number.MAX_SAFE_INTEGER, "a count fits 53 bits");
    this.view.setUint32(this.at, value % TWO_32, true);
    this.view.setUint32(this.at + 4, Math.floor(value / TWO_32), true);
    this.at += 8;
    return this;
  }

  raw(bytes: Uint8Array): this {
    this.bytes.set(bytes, this.at);
    this.at += bytes.byteLength;
    return this;
  }

  /** Length in two bytes, then the bytes. */
  sized(bytes: Uint8Array): this {
    return this.u16(bytes.byteLength).raw(bytes);
  }

  uuid(uuid: string): this {
    return this.raw(uuidBytes(uuid));
  }
}

/** Reads fields one after the other; throws `Corrupted` where they leave the bounds. */
export class Decoder {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  at: number;
  end: number;

  constructor(bytes: Uint8Array, at = 0, end = bytes.byteLength) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = at;
    this.end = end;
  }

  get left(): number {
    return this.end - this.at;
  }

  #take(count: number): number {
    const at = this.at;
    if (at + count > this.end) throw corrupted("a structure ends before its last field");
    this.at = at + count;
    return at;
  }

  u8(): number {
    return this.view.getUint8(this.#take(1));
  }

  u16(): number {
    return this.view.getUint16(this.#take(2), true);
  }

  u32(): number {
    return this.view.getUint32(this.#take(4), true);
  }

  u64(): number {
    const at = this.#take(8);
    const high = this.view.getUint32(at + 4, true);
    if (high >= 2 ** 21) throw corrupted("a number exceeds 53 bits");
    return high * TWO_32 + this.view.getUint32(at, true);
  }

  /** A copy of the next `count` bytes. */
  raw(count: number): Uint8Array {
    const at = this.#take(count);
    return this.bytes.slice(at, at + count);
  }

  sized(): Uint8Array {
    return this.raw(this.u16());
  }

  uuid(): string {
    return uuidText(this.bytes, this.#take(16));
  }

  /** Text of `count` bytes of UTF-8. */
  text(count: number): string {
    return textOf(this.raw(count));
  }

  /** Throws unless everything was read. */
  finish(what: string): void {
    if (this.at !== this.end) throw corrupted(`${what} is longer than its fields`);
  }
}

/** Text of UTF-8 bytes; throws `Corrupted` when they are not UTF-8. */
export function textOf(bytes: Uint8Array): string {
  try {
    return utf8Decoder.decode(bytes);
  } catch {
    throw corrupted("a text is not UTF-8");
  }
}
