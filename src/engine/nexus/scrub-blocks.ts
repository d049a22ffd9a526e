/**
 * Blocks that differ between children, or that one cannot read: read again with host writes kept away,
 * judged, and repaired where that is beyond doubt.
 *
 * A block is repaired when every child that can read it agrees (it is then written to those that
 * cannot, which makes a disk replace the bad sector), or when of three or more in-sync children more
 * than half agree. Otherwise nothing is changed: without a majority nobody knows which content is right.
 *
 * A repair marks nothing in the write-intent log, other than a write does. A mark says that after a
 * crash any child's content of the region is as good as another's, and the resync that follows might take the
 * bad one. Unmarked, a crash in the middle leaves the good majority as it was, and the next scrub finds
 * what is left of the difference. The write goes through to the disk, and its region is not cleaned
 * meanwhile.
 */
import { IoStatus } from "../../errors.ts";
import { IoFlag, IoOp } from "../reactor/io-table.ts";
import type { Reactor } from "../reactor/reactor.ts";
import type { Child } from "./child.ts";
import { deviceIo, sameBytes } from "./child-io.ts";
import { SCRUB_BLOCK_BYTES } from "./limits.ts";
import type { Regions } from "./regions.ts";
import type { ScrubFinding } from "./scrub-record.ts";

/** A child of a segment with the arena buffer that its content is read into. */
export interface Copy {
  readonly child: Child;
  readonly buffer: number;
  /** Of the last read. */
  status: number;
}

export interface BlocksHost {
  readonly reactor: Reactor;
  readonly regions: Regions;
  /** Whether it is in sync and on the same device as when the segment was begun. */
  isCompared(child: Child): boolean;
  /** A request to a child failed for want of the child, not of its medium. */
  childLost(child: Child, status: number): void;
}

/** Status that is the medium's: the child itself is there. */
export function isMediaError(status: number): boolean {
  return status === IoStatus.DEVICE_IO || status === IoStatus.CORRUPTED;
}

/** What became of a block: equal now, a finding, or to be looked at again (a region is being cleaned). */
export type Verdict = "equal" | "again" | ScrubFinding;

export interface Segment {
  readonly offset: number;
  readonly length: number;
  readonly copies: readonly Copy[];
}

/** Offsets within the segment of blocks that differ or were not read. */
export function doubtfulBlocks(reactor: Reactor, { length, copies }: Segment): number[] {
  const isAllRead = copies.every(({ status }) => status === IoStatus.OK);
  const isEqual = (at: number, bytes: number): boolean => {
    const first = copies[0]!.buffer + at;
    return copies.every(({ buffer }) => sameBytes(reactor, first, buffer + at, bytes));
  };
  if (isAllRead && isEqual(0, length)) return [];
  const blocks: number[] = [];
  for (let at = 0; at < length; at += SCRUB_BLOCK_BYTES) {
    const bytes = Math.min(SCRUB_BLOCK_BYTES, length - at);
    if (!isAllRead || !isEqual(at, bytes)) blocks.push(at);
  }
  return blocks;
}

/** Copies by equal content of one block, the largest group first. */
function groupsOf(reactor: Reactor, copies: readonly Copy[], at: number, bytes: number): Copy[][] {
  const groups: Copy[][] = [];
  for (const copy of copies) {
    const group = groups.find(([first]) =>
      sameBytes(reactor, first!.buffer + at, copy.buffer + at, bytes),
    );
    if (group === undefined) groups.push([copy]);
    else group.push(copy);
  }
  return groups.sort((a, b) => b.length - a.length);
}

/** The group whose content is right beyond doubt. */
export function majorityOf<T>(groups: readonly (readonly T[])[], unreadable: number) {
  const [first, ...others] = groups;
  if (first === undefined || others.length === 0) return first;
  const all = groups.reduce((sum, group) => sum + group.length, unreadable);
  return first.length * 2 > all ? first : undefined;
}

const urisOf = (copies: readonly Copy[]): string[] => copies.map(({ child }) => child.uri);

/**
 * Judges, and with `isRepairing` repairs, the block at `at` of a segment that is locked against host
 * writes.
 */
export async function examineBlock(
  host: BlocksHost,
  segment: Segment,
  at: number,
  isRepairing: boolean,
): Promise<Verdict> {
  const { reactor } = host;
  const offset = segment.offset + at;
  const bytes = Math.min(SCRUB_BLOCK_BYTES, segment.length - at);
  const copies = segment.copies.filter(({ child }) => host.isCompared(child));
  await Promise.all(copies.map((copy) => readCopy(host, copy, offset, at, bytes)));
  const present = copies.filter(({ child }) => host.isCompared(child));
  const readable = present.filter(({ status }) => status === IoStatus.OK);
  const unreadable = present.filter(({ status }) => isMediaError(status));
  if (readable.length + unreadable.length < 2) return "equal"; // Nothing to compare with any more.
  const groups = groupsOf(reactor, readable, at, bytes);
  if (groups.length === 1 && unreadable.length === 0) return "equal";
  const kind = groups.length > 1 ? "mismatch" : "unreadable";
  const finding = (isRepaired: boolean, of: readonly Copy[], reason: string): ScrubFinding => {
    return {
      offsetBytes: offset,
      lengthBytes: bytes,
      kind,
      isRepaired,
      childUris: urisOf(of),
      reason,
    };
  };
  const right = majorityOf(groups, unreadable.length);
  if (right === undefined) {
    const why = groups.length === 0 ? "no copy can be read" : "no majority of the copies agrees";
    return finding(false, [...groups.flat(), ...unreadable], why);
  }
  const wrong = [...groups.flat(), ...unreadable].filter((copy) => !right.includes(copy));
  if (!isRepairing) return finding(false, wrong, "repairs are switched off");
  if (!host.regions.hold(offset, bytes)) return "again";
  try {
    for (const copy of wrong) {
      const failure = await rewrite(host, copy, right[0]!.buffer, { offset, at, bytes });
      if (failure !== "") return finding(false, wrong, failure);
    }
  } finally {
    host.regions.end(offset, bytes);
  }
  return finding(true, wrong, "");
}

async function readCopy(
  host: BlocksHost,
  copy: Copy,
  offset: number,
  at: number,
  bytes: number,
): Promise<void> {
  const { bdev } = copy.child.device!;
  copy.status = await deviceIo(bdev, IoOp.READ, offset, bytes, copy.buffer + at);
  if (copy.status !== IoStatus.OK && !isMediaError(copy.status)) {
    host.childLost(copy.child, copy.status);
  }
}

/** Writes the right content to a child and reads it back; the reason when that did not work, or "". */
async function rewrite(
  host: BlocksHost,
  copy: Copy,
  from: number,
  { offset, at, bytes }: { offset: number; at: number; bytes: number },
): Promise<string> {
  const { child, buffer } = copy;
  if (!host.isCompared(child)) return "a child was lost while it was repaired";
  const { bdev } = child.device!;
  const status = await deviceIo(bdev, IoOp.WRITE, offset, bytes, from + at, IoFlag.FUA);
  if (status !== IoStatus.OK) {
    const stays = isMediaError(status) || status === IoStatus.NO_SPACE;
    if (!stays) host.childLost(child, status);
    return `writing it failed (I/O status ${status})`;
  }
  if (!host.isCompared(child)) return "a child was lost while it was repaired";
  await readCopy(host, copy, offset, at, bytes);
  if (copy.status !== IoStatus.OK) return `reading it back failed (I/O status ${copy.status})`;
  const isSame = sameBytes(host.reactor, from + at, buffer + at, bytes);
  return isSame ? "" : "it reads otherwise than it was written";
}
