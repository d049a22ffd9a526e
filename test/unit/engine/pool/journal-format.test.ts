import { expect, test } from "bun:test";
import {
  encodeCommit,
  JOURNAL_BLOCK_BYTES,
  JOURNAL_PAYLOAD_BYTES,
  type JournalPosition,
  JournalReader,
} from "../../../../src/engine/pool/journal-format.ts";
import { pattern } from "./fixture.ts";

const BLOCKS = 128;
const TAG = 77;

/** Two rings in memory, written as the running journal writes them. */
class Rings {
  readonly copies = [
    new Uint8Array(BLOCKS * JOURNAL_BLOCK_BYTES),
    new Uint8Array(BLOCKS * JOURNAL_BLOCK_BYTES),
  ];
  position: JournalPosition = { seq: 1, chain: 0 };
  incarnation = 1;

  encode(records: Uint8Array): { blocks: Uint8Array[]; next: JournalPosition } {
    const out = new Uint8Array(32 * JOURNAL_BLOCK_BYTES);
    const view = new DataView(out.buffer);
    const { length } = records;
    const next = encodeCommit(out, view, 0, records, length, TAG, this.incarnation, this.position);
    const blocks: Uint8Array[] = [];
    for (let i = 0; i < next.seq - this.position.seq; i++) {
      blocks.push(out.slice(i * JOURNAL_BLOCK_BYTES, (i + 1) * JOURNAL_BLOCK_BYTES));
    }
    return { blocks, next };
  }

  put(copy: 0 | 1, seq: number, block: Uint8Array): void {
    this.copies[copy]!.set(block, (seq % BLOCKS) * JOURNAL_BLOCK_BYTES);
  }

  /** Writes a commit; `survives` says which blocks reach which copy. */
  commit(records: Uint8Array, survives: (copy: 0 | 1, i: number) => boolean = () => true): void {
    const { blocks, next } = this.encode(records);
    for (const copy of [0, 1] as const) {
      for (const [i, block] of blocks.entries()) {
        if (survives(copy, i)) this.put(copy, this.position.seq + i, block);
      }
    }
    this.position = next;
  }

  spoil(copy: 0 | 1, seq: number): void {
    const at = (seq % BLOCKS) * JOURNAL_BLOCK_BYTES + 1000;
    this.copies[copy]![at] = this.copies[copy]![at]! ^ 0x10;
  }

  /** All commits from `position` on, and where they end. */
  read(position: JournalPosition = { seq: 1, chain: 0 }, incarnation = 0) {
    const reader = new JournalReader(this.copies[0]!, this.copies[1]!, TAG);
    const commits: Uint8Array[] = [];
    const damaged: number[] = [];
    let at = position;
    for (;;) {
      const commit = reader.read(at, incarnation);
      if (commit === null) break;
      commits.push(commit.records);
      damaged.push(...commit.damaged.map(({ seq }) => seq));
      at = { seq: at.seq + commit.blocks, chain: commit.chain };
    }
    return { reader, commits, damaged, end: at };
  }
}

const big = (blocks: number, tag: number) => pattern(blocks * JOURNAL_PAYLOAD_BYTES - 5, tag);

test("commits of one and many blocks are read back in order, over the end of the ring", () => {
  const rings = new Rings();
  const written: Uint8Array[] = [];
  for (let i = 0; i < 60; i++) {
    const records = i % 3 === 0 ? big(5, i) : pattern(10 + i, i);
    written.push(records);
    rings.commit(records);
  }
  // Only what the ring still holds can be read: start where the last lap began.
  let seq = 1;
  let first = 0;
  const starts = written.map((records) => {
    const start = seq;
    seq += Math.ceil(records.length / JOURNAL_PAYLOAD_BYTES);
    return start;
  });
  while (starts[first]! <= rings.position.seq - BLOCKS) first++;
  const at = (starts[first]! - 1) % BLOCKS;
  const chain = new DataView(rings.copies[0]!.buffer).getUint32(at * JOURNAL_BLOCK_BYTES + 4, true);
  const { commits, end, reader } = rings.read({ seq: starts[first]!, chain });
  expect(commits).toEqual(written.slice(first));
  expect(end).toEqual(rings.position);
  reader.checkEnd(end.seq);
});

test("either copy of each block suffices, and the loss is reported", () => {
  const rings = new Rings();
  for (let i = 0; i < 10; i++) rings.commit(big(3, i));
  for (let seq = 1; seq <= 30; seq += 2) rings.spoil((seq % 4 === 1 ? 0 : 1) as 0 | 1, seq);
  const { commits, damaged, reader, end } = rings.read();
  expect(commits.length).toBe(10);
  expect(commits[7]).toEqual(big(3, 7));
  expect(damaged).toEqual(Array.from({ length: 15 }, (_, i) => 1 + i * 2));
  reader.checkEnd(end.seq);
});

test("a torn commit is left out, whatever of it is there", () => {
  for (let lost = 0; lost < 4; lost++) {
    const rings = new Rings();
    rings.commit(pattern(9, 1));
    rings.commit(big(4, 2), (_copy, i) => i !== lost);
    const { commits, end, reader } = rings.read();
    expect(commits.length).toBe(1);
    expect(end.seq).toBe(2);
    reader.checkEnd(end.seq);
  }
});

test("a commit whose blocks are only in one copy each is whole", () => {
  const rings = new Rings();
  rings.commit(big(4, 2), (copy, i) => i % 2 === copy);
  expect(rings.read().commits).toEqual([big(4, 2)]);
});

test("a block lost in both copies below later commits is damage, never a shorter journal", () => {
  for (const lost of [1, 2, 3, 4, 5]) {
    const rings = new Rings();
    rings.commit(pattern(9, 1));
    rings.commit(big(3, 2));
    rings.commit(pattern(9, 3));
    rings.commit(pattern(9, 4));
    rings.spoil(0, lost);
    rings.spoil(1, lost);
    const { reader, end } = rings.read();
    expect(end.seq).toBe(lost === 1 ? 1 : lost <= 4 ? 2 : 5);
    expect(() => reader.checkEnd(end.seq)).toThrow("missing in both copies");
  }
});

test("what is left of a torn commit never joins what was written in its place", () => {
  const rings = new Rings();
  rings.commit(pattern(9, 1));
  const torn = rings.position;
  rings.commit(big(6, 2), (_copy, i) => i !== 0);
  // After the restart the journal goes on at the same place with a shorter commit.
  rings.position = torn;
  rings.incarnation = 2;
  rings.commit(big(2, 3));
  const { commits, end, reader } = rings.read();
  expect(commits).toEqual([pattern(9, 1), big(2, 3)]);
  reader.checkEnd(end.seq);
});

test("the same, within one incarnation: the chain alone tells them apart", () => {
  const rings = new Rings();
  rings.commit(pattern(9, 1));
  const torn = rings.position;
  rings.commit(big(3, 2), (_copy, i) => i !== 0);
  rings.position = torn;
  // Only the first block of the new commit arrives: the others must not be taken from the old one.
  rings.commit(big(3, 3), (_copy, i) => i === 0);
  const { commits } = rings.read();
  expect(commits).toEqual([pattern(9, 1)]);
});

test("where the copies differ, the newer incarnation counts", () => {
  for (const newer of [0, 1] as const) {
    const rings = new Rings();
    rings.commit(pattern(9, 1));
    const torn = rings.position;
    // A commit of three blocks of which one copy got the first.
    rings.commit(big(3, 2), (copy, i) => copy !== newer && i === 0);
    rings.position = torn;
    rings.incarnation = 2;
    rings.commit(pattern(30, 3), (copy) => copy === newer);
    const { commits, damaged } = rings.read();
    expect(commits).toEqual([pattern(9, 1), pattern(30, 3)]);
    expect(damaged).toEqual([2]);
  }
});

test("blocks of another pool, an earlier lap or a wrong place do not count", () => {
  const rings = new Rings();
  rings.commit(pattern(9, 1));
  const { blocks } = rings.encode(pattern(9, 2));
  rings.put(0, rings.position.seq + 1, blocks[0]!); // one place off
  expect(rings.read().commits.length).toBe(1);
  const other = new JournalReader(rings.copies[0]!, rings.copies[1]!, TAG + 1);
  expect(other.read({ seq: 1, chain: 0 }, 0)).toBeNull();
  expect(other.incarnation).toBe(0);
});

test("a later incarnation of the checkpoint hides blocks of an earlier one", () => {
  const rings = new Rings();
  rings.commit(pattern(9, 1));
  const reader = new JournalReader(rings.copies[0]!, rings.copies[1]!, TAG);
  expect(reader.read({ seq: 1, chain: 0 }, 2)).toBeNull();
  expect(reader.read({ seq: 1, chain: 0 }, 1)).not.toBeNull();
});
