/**
 * The journal on disk: a ring of 4 KiB blocks, written to two places (the ring and its mirror), so
 * that one damaged block never loses what was acknowledged. Pure. Little-endian.
 *
 * | at | bytes | field of a block                                                    |
 * |----|-------|---------------------------------------------------------------------|
 * | 0  | 4     | magic `TJB1`                                                        |
 * | 4  | 4     | CRC-32C of the block with this field zero                           |
 * | 8  | 4     | tag of the pool (superblock)                                        |
 * | 12 | 4     | CRC of the block before it (its field at 4): a chain                |
 * | 16 | 8     | number of the block, counted from 1; it lies at number mod ring     |
 * | 24 | 8     | number of the first block of its commit                             |
 * | 32 | 4     | incarnation: counts the imports of the pool                         |
 * | 36 | 2     | blocks of its commit, 1 to 32                                       |
 * | 38 | 2     | bytes of records in it                                              |
 * | 40 | 24    | zero                                                                |
 * | 64 | 4032  | records (records.ts); they run on from block to block of a commit   |
 *
 * At most one commit is in flight, and it is acknowledged when both copies of all its blocks are
 * durable. So after a crash only the last commit can be incomplete. Reading takes either valid copy
 * of each block and stops at the first commit that is not whole:
 *
 * - What is left of a torn commit is never taken for a later one: the chain runs through the blocks
 *   that were written instead of it. Where the two copies hold different valid blocks, neither
 *   commit was acknowledged; the one of the higher incarnation is tried first.
 * - A valid block of a commit that begins after the place where reading stopped proves that what is
 *   missing there had been complete: that is damage, and `Corrupted`, never a silent loss.
 */
import { crc32cOf } from "../../../ffi/index.ts";
import { assert } from "../../assert.ts";
import { corrupted } from "./codec.ts";
import { COMMIT_BLOCKS_MAX } from "./limits.ts";

export const JOURNAL_BLOCK_BYTES = 4096;
const HEADER_BYTES = 64;
export const JOURNAL_PAYLOAD_BYTES = JOURNAL_BLOCK_BYTES - HEADER_BYTES;
/** Bytes of records that one commit takes. */
export const COMMIT_BYTES_MAX = COMMIT_BLOCKS_MAX * JOURNAL_PAYLOAD_BYTES;

const MAGIC = 0x31424a54; // "TJB1"
const TWO_32 = 2 ** 32;

/** Where the journal goes on. */
export interface JournalPosition {
  /** Number of the next block. */
  readonly seq: number;
  /** CRC of the block before it. */
  readonly chain: number;
}

/**
 * Encodes a commit into `out` (32 blocks, native memory): `records[0, length)` in as many blocks as
 * it takes. Returns the position after it.
 */
export function encodeCommit(
  out: Uint8Array,
  view: DataView,
  at: number,
  records: Uint8Array,
  length: number,
  tag: number,
  incarnation: number,
  position: JournalPosition,
): JournalPosition {
  const blocks = commitBlocks(length);
  assert(blocks <= COMMIT_BLOCKS_MAX, "a commit has a bounded number of blocks");
  let chain = position.chain;
  for (let i = 0; i < blocks; i++) {
    const block = at + i * JOURNAL_BLOCK_BYTES;
    const from = i * JOURNAL_PAYLOAD_BYTES;
    const bytes = Math.min(JOURNAL_PAYLOAD_BYTES, length - from);
    const seq = position.seq + i;
    out.fill(0, block, block + JOURNAL_BLOCK_BYTES);
    view.setUint32(block, MAGIC, true);
    view.setUint32(block + 8, tag, true);
    view.setUint32(block + 12, chain, true);
    view.setUint32(block + 16, seq % TWO_32, true);
    view.setUint32(block + 20, Math.floor(seq / TWO_32), true);
    view.setUint32(block + 24, position.seq % TWO_32, true);
    view.setUint32(block + 28, Math.floor(position.seq / TWO_32), true);
    view.setUint32(block + 32, incarnation, true);
    view.setUint16(block + 36, blocks, true);
    view.setUint16(block + 38, bytes, true);
    out.set(records.subarray(from, from + bytes), block + HEADER_BYTES);
    chain = crc32cOf(out.subarray(block, block + JOURNAL_BLOCK_BYTES));
    view.setUint32(block + 4, chain, true);
  }
  return { seq: position.seq + blocks, chain };
}

/** Blocks that `length` bytes of records take. */
export function commitBlocks(length: number): number {
  return Math.max(1, Math.ceil(length / JOURNAL_PAYLOAD_BYTES));
}

/** The valid blocks of one copy of the ring, by place. */
export class RingCopy {
  readonly bytes: Uint8Array;
  readonly blocks: number;
  /** Number of the block at each place, 0 when the place holds none that is valid. */
  readonly seq: Float64Array;
  readonly start: Float64Array;
  readonly crc: Uint32Array;
  readonly chain: Uint32Array;
  readonly incarnation: Uint32Array;
  readonly commitBlocks: Uint16Array;
  readonly length: Uint16Array;

  constructor(bytes: Uint8Array, tag: number) {
    this.bytes = bytes;
    this.blocks = bytes.byteLength / JOURNAL_BLOCK_BYTES;
    this.seq = new Float64Array(this.blocks);
    this.start = new Float64Array(this.blocks);
    this.crc = new Uint32Array(this.blocks);
    this.chain = new Uint32Array(this.blocks);
    this.incarnation = new Uint32Array(this.blocks);
    this.commitBlocks = new Uint16Array(this.blocks);
    this.length = new Uint16Array(this.blocks);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let place = 0; place < this.blocks; place++) this.#read(view, place, tag);
  }

  #read(view: DataView, place: number, tag: number): void {
    const at = place * JOURNAL_BLOCK_BYTES;
    if (view.getUint32(at, true) !== MAGIC || view.getUint32(at + 8, true) !== tag) return;
    const crc = view.getUint32(at + 4, true);
    view.setUint32(at + 4, 0, true);
    const computed = crc32cOf(this.bytes.subarray(at, at + JOURNAL_BLOCK_BYTES));
    view.setUint32(at + 4, crc, true);
    if (computed !== crc) return;
    const seq = view.getUint32(at + 16, true) + view.getUint32(at + 20, true) * TWO_32;
    const start = view.getUint32(at + 24, true) + view.getUint32(at + 28, true) * TWO_32;
    const blocks = view.getUint16(at + 36, true);
    const length = view.getUint16(at + 38, true);
    // A matching checksum is no reason to trust the fields.
    if (seq < 1 || seq > Number.MAX_SAFE_INTEGER || seq % this.blocks !== place) return;
    if (start > seq || seq - start >= blocks || blocks > COMMIT_BLOCKS_MAX) return;
    if (length > JOURNAL_PAYLOAD_BYTES) return;
    this.seq[place] = seq;
    this.start[place] = start;
    this.crc[place] = crc;
    this.chain[place] = view.getUint32(at + 12, true);
    this.incarnation[place] = view.getUint32(at + 32, true);
    this.commitBlocks[place] = blocks;
    this.length[place] = length;
  }
}

/** A commit as it was read. */
export interface ReadCommit {
  /** Its records. */
  readonly records: Uint8Array;
  readonly blocks: number;
  readonly chain: number;
  readonly incarnation: number;
  /** Blocks of which one copy was missing: (number, copy that is good). */
  readonly damaged: readonly { readonly seq: number; readonly good: 0 | 1 }[];
}

interface Candidate {
  readonly copy: 0 | 1;
  readonly place: number;
}

/** Reads the two copies of a ring from a position on. */
export class JournalReader {
  readonly copies: readonly [RingCopy, RingCopy];
  /** The highest incarnation of any valid block. */
  readonly incarnation: number;

  constructor(ring: Uint8Array, mirror: Uint8Array, tag: number) {
    assert(ring.byteLength === mirror.byteLength, "both rings are of one size");
    this.copies = [new RingCopy(ring, tag), new RingCopy(mirror, tag)];
    let incarnation = 0;
    for (const copy of this.copies) {
      for (const value of copy.incarnation) if (value > incarnation) incarnation = value;
    }
    this.incarnation = incarnation;
  }

  /** The copies that hold block `seq` of the commit that began at `start`, chained to `chain`. */
  #candidates(seq: number, start: number, chain: number, after: number): Candidate[] {
    const place = seq % this.copies[0].blocks;
    const found: Candidate[] = [];
    for (const copy of [0, 1] as const) {
      const c = this.copies[copy];
      const fits = c.seq[place] === seq && c.start[place] === start && c.chain[place] === chain;
      if (fits && c.incarnation[place]! >= after) found.push({ copy, place });
    }
    const [a, b] = found;
    if (a !== undefined && b !== undefined) {
      const [first, second] = this.copies;
      if (first.crc[place] === second.crc[place]) return [a];
      if (second.incarnation[place]! > first.incarnation[place]!) return [b, a];
    }
    return found;
  }

  /** True when both copies hold the same valid block `seq` with this CRC. */
  #isWhole(seq: number, crc: number): boolean {
    const place = seq % this.copies[0].blocks;
    return this.copies.every((c) => c.seq[place] === seq && c.crc[place] === crc);
  }

  /** The commit at `position`, or null when none is whole there. */
  read(position: JournalPosition, incarnation: number): ReadCommit | null {
    const { seq } = position;
    for (const first of this.#candidates(seq, seq, position.chain, incarnation)) {
      const commit = this.#readFrom(position, first);
      if (commit !== null) return commit;
    }
    return null;
  }

  #readFrom(position: JournalPosition, first: Candidate): ReadCommit | null {
    const { seq } = position;
    const head = this.copies[first.copy];
    const blocks = head.commitBlocks[first.place]!;
    const incarnation = head.incarnation[first.place]!;
    const parts: Uint8Array[] = [];
    const damaged: { seq: number; good: 0 | 1 }[] = [];
    let chain = position.chain;
    for (let i = 0; i < blocks; i++) {
      const candidates = i === 0 ? [first] : this.#candidates(seq + i, seq, chain, incarnation);
      const taken = candidates.find(({ copy, place }) => {
        const c = this.copies[copy];
        return c.commitBlocks[place] === blocks && c.incarnation[place] === incarnation;
      });
      if (taken === undefined) return null;
      const copy = this.copies[taken.copy];
      chain = copy.crc[taken.place]!;
      if (!this.#isWhole(seq + i, chain)) damaged.push({ seq: seq + i, good: taken.copy });
      const at = taken.place * JOURNAL_BLOCK_BYTES + HEADER_BYTES;
      parts.push(copy.bytes.subarray(at, at + copy.length[taken.place]!));
    }
    const records = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
    let at = 0;
    for (const part of parts) {
      records.set(part, at);
      at += part.byteLength;
    }
    return { records, blocks, chain, incarnation, damaged };
  }

  /** The bytes of block `seq` in the copy that is good. */
  blockBytes(seq: number, copy: 0 | 1): Uint8Array {
    const at = (seq % this.copies[0].blocks) * JOURNAL_BLOCK_BYTES;
    return this.copies[copy].bytes.subarray(at, at + JOURNAL_BLOCK_BYTES);
  }

  /** Throws `Corrupted` when there are valid blocks of commits that began after `end`. */
  checkEnd(end: number): void {
    for (const copy of this.copies) {
      for (let place = 0; place < copy.blocks; place++) {
        if (copy.start[place]! > end) {
          throw corrupted(
            `the journal is damaged: block ${end} is missing in both copies, block ${copy.seq[place]} exists`,
          );
        }
      }
    }
  }
}
