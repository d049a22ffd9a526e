/**
 * A checkpoint on disk: all metadata of the pool as of one place in the journal, as records
 * (records.ts) in pages of 64 KiB, one after the other from the start of a slot. Pure.
 *
 * | at | bytes | field of a page                                                   |
 * |----|-------|-------------------------------------------------------------------|
 * | 0  | 4     | magic `TCP1`                                                      |
 * | 4  | 4     | CRC-32C of the page with this field zero                          |
 * | 8  | 4     | tag of the pool (superblock)                                      |
 * | 12 | 4     | number of the page, from 0                                        |
 * | 16 | 8     | number of the checkpoint, from 1                                  |
 * | 24 | 8     | number of the first journal block that it does not contain        |
 * | 32 | 4     | CRC of the journal block before that one: where the chain goes on |
 * | 36 | 4     | incarnation                                                       |
 * | 40 | 4     | bytes of records in the page                                      |
 * | 44 | 4     | 1: last page                                                      |
 * | 48 | 16    | zero                                                              |
 * | 64 | 65472 | whole records                                                     |
 *
 * The slots X and Y are written in turn. A checkpoint counts when all its pages are valid, carry the
 * same header and end with the last page: it describes itself, nothing else points to it. The newest
 * one that is whole is loaded. The journal since the one before it is kept, so a damaged newest
 * checkpoint costs a longer replay and nothing else.
 */
import { crc32cOf } from "../../../ffi/index.ts";
import type { JournalPosition } from "./journal-format.ts";
import { GRANULE_BYTES } from "./limits.ts";

export const PAGE_BYTES = GRANULE_BYTES;
export const PAGE_HEADER_BYTES = 64;
export const PAGE_PAYLOAD_BYTES = PAGE_BYTES - PAGE_HEADER_BYTES;

const MAGIC = 0x31504354; // "TCP1"
const TWO_32 = 2 ** 32;
const LAST = 1;

/** What all pages of one checkpoint have in common. */
export interface CheckpointHeader {
  readonly number: number;
  /** The journal from here on is not contained in it. */
  readonly position: JournalPosition;
  readonly incarnation: number;
}

/** One page as it was read. */
export interface CheckpointPage extends CheckpointHeader {
  readonly page: number;
  readonly length: number;
  readonly last: boolean;
}

/** Completes a page whose `length` bytes of records stand after the header at `at` of `bytes`. */
export function sealPage(
  bytes: Uint8Array,
  view: DataView,
  at: number,
  tag: number,
  page: CheckpointPage,
): void {
  bytes.fill(0, at, at + PAGE_HEADER_BYTES);
  bytes.fill(0, at + PAGE_HEADER_BYTES + page.length, at + PAGE_BYTES);
  const { seq, chain } = page.position;
  view.setUint32(at, MAGIC, true);
  view.setUint32(at + 8, tag, true);
  view.setUint32(at + 12, page.page, true);
  view.setUint32(at + 16, page.number % TWO_32, true);
  view.setUint32(at + 20, Math.floor(page.number / TWO_32), true);
  view.setUint32(at + 24, seq % TWO_32, true);
  view.setUint32(at + 28, Math.floor(seq / TWO_32), true);
  view.setUint32(at + 32, chain, true);
  view.setUint32(at + 36, page.incarnation, true);
  view.setUint32(at + 40, page.length, true);
  view.setUint32(at + 44, page.last ? LAST : 0, true);
  view.setUint32(at + 4, crc32cOf(bytes.subarray(at, at + PAGE_BYTES)), true);
}

/** Reads a page (64 KiB, may be changed while it is checked); null unless it is valid. */
export function openPage(bytes: Uint8Array, tag: number): CheckpointPage | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== MAGIC || view.getUint32(8, true) !== tag) return null;
  const crc = view.getUint32(4, true);
  view.setUint32(4, 0, true);
  const computed = crc32cOf(bytes);
  view.setUint32(4, crc, true);
  if (computed !== crc) return null;
  const u64 = (at: number) => view.getUint32(at, true) + view.getUint32(at + 4, true) * TWO_32;
  const page: CheckpointPage = {
    number: u64(16),
    position: { seq: u64(24), chain: view.getUint32(32, true) },
    incarnation: view.getUint32(36, true),
    page: view.getUint32(12, true),
    length: view.getUint32(40, true),
    last: view.getUint32(44, true) === LAST,
  };
  const sane =
    page.length <= PAGE_PAYLOAD_BYTES &&
    Number.isSafeInteger(page.number) &&
    page.position.seq >= 1 &&
    Number.isSafeInteger(page.position.seq);
  return sane ? page : null;
}

/** True when both pages belong to one checkpoint. */
export function sameCheckpoint(a: CheckpointHeader, b: CheckpointHeader): boolean {
  return (
    a.number === b.number &&
    a.position.seq === b.position.seq &&
    a.position.chain === b.position.chain &&
    a.incarnation === b.incarnation
  );
}
