/**
 * What a verifying load has written, and the check of what it reads.
 *
 * Every device block describes itself, little-endian:
 * | byte      | holds                                                                     |
 * |-----------|---------------------------------------------------------------------------|
 * | 0-3       | 0x56424c54                                                                |
 * | 4-7       | seed of the load                                                          |
 * | 8-15      | number of the block on the device                                         |
 * | 16-19     | generation: how often its unit had been written, this time included       |
 * | 20..n-5   | noise, another piece of it for every block and generation                 |
 * | n-4..n-1  | CRC-32C of everything before                                              |
 *
 * A unit is what one request moves. For each the ledger knows the last generation whose write
 * succeeded and the last one that was tried; a block is right when its generation lies between them
 * (after a failed write both the old and the new data are allowed, block by block).
 */
import { copyMemory, crc32c } from "../../../ffi/index.ts";
import { assert } from "../../assert.ts";
import { TrilithError } from "../../errors.ts";
import type { Arena } from "../reactor/arena.ts";
import { MISMATCHES_KEPT, NOISE_BYTES, VERIFY_UNITS_MAX } from "./limits.ts";
import type { Random } from "./random.ts";

const MAGIC = 0x56424c54;
const HEADER_BYTES = 20;
const CRC_BYTES = 4;
const TWO_32 = 4294967296;
const WRITING = 255;
const READERS_MAX = 254;

/** A block that was not what it had to be. */
export interface Mismatch {
  /** Byte offset on the device. */
  readonly offset: number;
  readonly kind: "not ours" | "damaged" | "misplaced" | "stale" | "from the future";
  /** Generations that would have been right. */
  readonly expected: string;
  /** What was found, in words. */
  readonly found: string;
}

export class Ledger {
  readonly mismatches: Mismatch[] = [];
  mismatchCount = 0;
  /** Blocks compared. */
  blocksVerified = 0;

  readonly #arena: Arena;
  readonly #blockSize: number;
  readonly #blocksPerUnit: number;
  readonly #firstBlock: number;
  readonly #seed: number;
  readonly #noise: number;
  readonly #written: Uint32Array;
  readonly #tried: Uint32Array;
  readonly #users: Uint8Array;

  /** `noise` is arena memory of `NOISE_BYTES`, filled with random bytes. */
  constructor(
    arena: Arena,
    noise: number,
    seed: number,
    blockSize: number,
    unitBytes: number,
    offset: number,
    units: number,
  ) {
    if (units > VERIFY_UNITS_MAX) {
      throw new TrilithError(
        "InvalidArgument",
        `verification keeps track of at most ${VERIFY_UNITS_MAX} requests' worth of data`,
        `give a --size of at most ${VERIFY_UNITS_MAX * unitBytes} bytes`,
      );
    }
    this.#arena = arena;
    this.#noise = noise;
    this.#seed = seed | 0;
    this.#blockSize = blockSize;
    this.#blocksPerUnit = unitBytes / blockSize;
    this.#firstBlock = offset / blockSize;
    this.#written = new Uint32Array(units);
    this.#tried = new Uint32Array(units);
    this.#users = new Uint8Array(units);
  }

  get units(): number {
    return this.#tried.length;
  }

  /** Claims the unit for a request. False: another request is in its way. */
  claim(unit: number, isWrite: boolean): boolean {
    const users = this.#users[unit]!;
    if (isWrite ? users !== 0 : users >= READERS_MAX) return false;
    this.#users[unit] = isWrite ? WRITING : users + 1;
    return true;
  }

  /** True when the unit was ever written to, successfully or not. */
  touched(unit: number): boolean {
    return this.#tried[unit] !== 0;
  }

  /** Fills the buffer at `at` with the next generation of a claimed unit. */
  fill(unit: number, at: number): void {
    assert(this.#users[unit] === WRITING, "a unit that is filled was claimed for writing");
    const generation = this.#tried[unit]! + 1;
    this.#tried[unit] = generation;
    const { i32, address } = this.#arena;
    const blockSize = this.#blockSize;
    const noiseBytes = blockSize - HEADER_BYTES - CRC_BYTES;
    let block = this.#firstBlock + unit * this.#blocksPerUnit;
    let to = at;
    for (let i = 0; i < this.#blocksPerUnit; i++) {
      const w = to >> 2;
      i32[w] = MAGIC;
      i32[w + 1] = this.#seed;
      i32[w + 2] = block;
      i32[w + 3] = block / TWO_32;
      i32[w + 4] = generation;
      const mixed = (Math.imul(block, 0x9e3779b1) + Math.imul(generation, 0x85ebca6b)) >>> 0;
      const from = (mixed % (NOISE_BYTES - noiseBytes)) & ~3;
      copyMemory(address + to + HEADER_BYTES, address + this.#noise + from, noiseBytes);
      i32[(to + blockSize - CRC_BYTES) >> 2] = crc32c(address + to, blockSize - CRC_BYTES);
      block++;
      to += blockSize;
    }
  }

  /** A write of a claimed unit has ended. */
  wrote(unit: number, succeeded: boolean): void {
    this.#users[unit] = 0;
    if (succeeded) this.#written[unit] = this.#tried[unit]!;
  }

  /** A read of a claimed unit has ended; when it succeeded, its data at `at` is checked. */
  read(unit: number, at: number, succeeded: boolean): void {
    this.#users[unit] = this.#users[unit]! - 1;
    if (!succeeded || !this.touched(unit)) return;
    const firstBlock = this.#firstBlock + unit * this.#blocksPerUnit;
    for (let i = 0; i < this.#blocksPerUnit; i++) {
      this.#check(unit, firstBlock + i, at + i * this.#blockSize);
    }
  }

  #check(unit: number, block: number, at: number): void {
    const { i32, u32, address } = this.#arena;
    const w = at >> 2;
    const blockSize = this.#blockSize;
    const written = this.#written[unit]!;
    const tried = this.#tried[unit]!;
    this.blocksVerified++;
    if (i32[w] !== MAGIC || i32[w + 1] !== this.#seed) {
      // Before the first write that succeeded, what was on the device before is right too.
      if (written > 0) this.#note(block, unit, "not ours", `starts ${this.#bytesAt(at)}`);
      return;
    }
    const crc = crc32c(address + at, blockSize - CRC_BYTES);
    const generation = u32[w + 4]!;
    const found = u32[w + 2]! + u32[w + 3]! * TWO_32;
    if (u32[(at + blockSize - CRC_BYTES) >> 2] !== crc) {
      this.#note(block, unit, "damaged", `generation ${generation} with a wrong checksum`);
    } else if (found !== block) {
      this.#note(block, unit, "misplaced", `block ${found}, generation ${generation}`);
    } else if (generation < written) {
      this.#note(block, unit, "stale", `generation ${generation}`);
    } else if (generation > tried) {
      this.#note(block, unit, "from the future", `generation ${generation}`);
    }
  }

  #bytesAt(at: number): string {
    return Buffer.from(this.#arena.u8.subarray(at, at + 16)).toString("hex");
  }

  #note(block: number, unit: number, kind: Mismatch["kind"], found: string): void {
    this.mismatchCount++;
    if (this.mismatches.length >= MISMATCHES_KEPT) return;
    const written = this.#written[unit]!;
    const tried = this.#tried[unit]!;
    this.mismatches.push({
      offset: block * this.#blockSize,
      kind,
      expected: written === tried ? `generation ${written}` : `generation ${written} to ${tried}`,
      found,
    });
  }
}

/** Arena memory of `NOISE_BYTES` with random bytes. Throws `ResourceExhausted` when there is none. */
export function makeNoise(arena: Arena, random: Random): number {
  const noise = arena.alloc(NOISE_BYTES, 0);
  if (noise < 0) throw new TrilithError("ResourceExhausted", "the reactor's arena is full");
  for (let w = noise >> 2; w < (noise + NOISE_BYTES) >> 2; w++) arena.i32[w] = random.next();
  return noise;
}
