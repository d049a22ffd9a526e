/**
 * Reads a pool from its disk: superblock, newest whole checkpoint, journal. Writes nothing; import
 * and the offline check both stand on it.
 */
import { TrilithError } from "../../errors.ts";
import { type Bdev, bdevBytes } from "../bdev/bdev.ts";
import { Area, type Extent } from "./area.ts";
import {
  type CheckpointHeader,
  type CheckpointPage,
  openPage,
  PAGE_BYTES,
  PAGE_HEADER_BYTES,
  sameCheckpoint,
} from "./checkpoint-format.ts";
import { corrupted } from "./codec.ts";
import type { PoolDevice } from "./device.ts";
import { type JournalPosition, JournalReader } from "./journal-format.ts";
import { forEachRecord } from "./records.ts";
import { applyRecord, PoolState, type StateEffects } from "./state.ts";
import {
  decodeSuperblock,
  SUPERBLOCK_BYTES,
  SUPERBLOCK_OFFSETS,
  type Superblock,
  type SuperblockCopy,
} from "./superblock.ts";

/** What lies in a checkpoint slot. */
export interface SlotContent {
  /** The whole checkpoint in it, or null. */
  readonly header: CheckpointHeader | null;
  readonly pages: number;
  /** Why there is none: "" when the slot was never written. */
  readonly why: string;
}

/** A pool as its disk has it. */
export interface LoadedPool {
  readonly superblock: Superblock;
  readonly copies: readonly [SuperblockCopy, SuperblockCopy];
  readonly state: PoolState;
  /** Bitmap of clusters that are zeroes if they are free. */
  readonly zeroed: Uint8Array;
  readonly slots: readonly [SlotContent, SlotContent];
  /** The slot that was loaded. */
  readonly slot: 0 | 1;
  readonly reader: JournalReader;
  /** Where the journal goes on. */
  readonly end: JournalPosition;
  readonly incarnation: number;
  /** Commits and blocks replayed, and blocks of which only one copy was good. */
  readonly commits: number;
  readonly damaged: readonly { readonly seq: number; readonly good: 0 | 1 }[];
}

/** Reads both superblock copies. */
export async function readSuperblocks(
  device: PoolDevice,
): Promise<readonly [SuperblockCopy, SuperblockCopy]> {
  const copies: SuperblockCopy[] = [];
  for (const offset of SUPERBLOCK_OFFSETS) {
    if (offset + SUPERBLOCK_BYTES > bdevBytes(device.bdev)) copies.push({ kind: "absent" });
    else copies.push(decodeSuperblock(await device.readBytes(offset, SUPERBLOCK_BYTES)));
  }
  return [copies[0]!, copies[1]!];
}

/**
 * The superblock that counts. Throws `NotFound` when there is no pool, `Corrupted` when no copy is
 * valid or they are of two pools, `FailedPrecondition` when the format is newer.
 */
export function chooseSuperblock(
  copies: readonly [SuperblockCopy, SuperblockCopy],
  disk: string,
): Superblock {
  let best: Superblock | null = null;
  for (const copy of copies) {
    if (copy.kind === "unsupported") {
      throw new TrilithError(
        "FailedPrecondition",
        `pool ${copy.name} on ${disk} needs what this version does not have: ${copy.why}`,
        "use the version that wrote it, or a newer one",
      );
    }
    if (copy.kind !== "valid") continue;
    if (best !== null && best.uuid !== copy.superblock.uuid) {
      throw corrupted(`${disk} carries superblocks of two pools, ${best.name} and another`);
    }
    if (best === null || copy.superblock.generation > best.generation) best = copy.superblock;
  }
  if (best !== null) return best;
  for (const copy of copies) {
    if (copy.kind === "damaged") throw corrupted(`the superblock on ${disk}: ${copy.why}`);
  }
  throw new TrilithError(
    "NotFound",
    `there is no pool on ${disk}`,
    "create one with `create pool`",
  );
}

/** Throws unless the disk fits the superblock. */
export function checkDisk(superblock: Superblock, bdev: Bdev): void {
  const { name, clusterBytes, clusterCount, blockSize } = superblock;
  if (bdev.blockSize > blockSize) {
    throw new TrilithError(
      "FailedPrecondition",
      `pool ${name} has blocks of ${blockSize} bytes, its disk ${bdev.name} now ${bdev.blockSize}`,
      `open the disk with blk_size=${blockSize}`,
    );
  }
  if (bdevBytes(bdev) < clusterBytes * clusterCount) {
    throw new TrilithError(
      "FailedPrecondition",
      `pool ${name} needs ${clusterBytes * clusterCount} bytes, its disk ${bdev.name} has shrunk to ${bdevBytes(bdev)}`,
      "restore the size of the disk: what lay beyond its end is missing",
    );
  }
}

/** Bytes that a checkpoint may take: those of the smaller slot. */
export function slotBytes(superblock: Superblock): number {
  const [x, y] = superblock.slots.map((extents) => new Area(extents).bytes);
  return Math.min(x!, y!);
}

interface ReadSlot extends SlotContent {
  readonly records: readonly Uint8Array[];
}

/** Reads the checkpoint in a slot. */
async function readSlot(
  device: PoolDevice,
  extents: readonly Extent[],
  tag: number,
): Promise<ReadSlot> {
  const area = new Area(extents);
  const records: Uint8Array[] = [];
  let header: CheckpointPage | null = null;
  const pages = area.bytes / PAGE_BYTES;
  for (let i = 0; i < pages; i++) {
    const bytes = await device.readBytes(area.offsetOf(i * PAGE_BYTES), PAGE_BYTES);
    const page = openPage(bytes, tag);
    if (page === null) {
      const blank = i === 0 && bytes.every((byte) => byte === 0);
      const why = blank ? "" : `page ${i} is not valid`;
      return { header: null, pages: i, why, records: [] };
    }
    if (page.page !== i || (header !== null && !sameCheckpoint(header, page))) {
      return { header: null, pages: i, why: `page ${i} is of another checkpoint`, records: [] };
    }
    header ??= page;
    records.push(bytes.subarray(PAGE_HEADER_BYTES, PAGE_HEADER_BYTES + page.length));
    if (page.last) return { header, pages: i + 1, why: "", records };
  }
  return { header: null, pages, why: "its last page is missing", records: [] };
}

/** Effects while loading: only what is known to be zeroes needs to be followed. */
class LoadEffects implements StateEffects {
  readonly zeroedBits: Uint8Array;
  endedObjects = -1;
  endedMapped = -1;
  mappedCount = 0;

  constructor(clusterCount: number) {
    this.zeroedBits = new Uint8Array(Math.ceil(clusterCount / 8));
  }

  created(): void {}
  deleted(): void {}
  mapWillChange(): void {}
  intentsWillChange(): void {}
  changed(): void {}

  mapped(_object: unknown, _index: number, _before: number, cluster: number): void {
    if (cluster < 0) return;
    this.mappedCount++;
    this.tainted(cluster);
  }

  tainted(cluster: number): void {
    const at = cluster >> 3;
    this.zeroedBits[at] = this.zeroedBits[at]! & ~(1 << (cluster & 7));
  }

  zeroed(firstByte: number, bits: Uint8Array): void {
    this.zeroedBits.set(bits, firstByte);
  }

  ended(objects: number, mapped: number): void {
    this.endedObjects = objects;
    this.endedMapped = mapped;
  }
}

function applyCheckpoint(superblock: Superblock, slot: ReadSlot): [PoolState, LoadEffects] {
  const { blockSize, clusterBytes, clusterCount } = superblock;
  const entriesMax = Math.floor(slotBytes(superblock) / 4);
  const state = new PoolState(blockSize, clusterBytes, clusterCount, entriesMax);
  const effects = new LoadEffects(clusterCount);
  for (const records of slot.records) {
    forEachRecord(records, 0, records.byteLength, (type, payload) => {
      if (effects.endedObjects >= 0) throw corrupted("records follow the end of a checkpoint");
      applyRecord(state, type, payload, effects);
    });
  }
  if (effects.endedObjects !== state.objects.size || effects.endedMapped !== effects.mappedCount) {
    throw corrupted("a checkpoint does not hold what its last record counts");
  }
  return [state, effects];
}

/** Loads the newest checkpoint that is whole. */
function chooseCheckpoint(
  superblock: Superblock,
  slots: readonly [ReadSlot, ReadSlot],
): { slot: 0 | 1; state: PoolState; effects: LoadEffects } {
  const order: (0 | 1)[] = [0, 1];
  order.sort((a, b) => (slots[b].header?.number ?? 0) - (slots[a].header?.number ?? 0));
  let problem: unknown = null;
  for (const slot of order) {
    if (slots[slot].header === null) continue;
    try {
      const [state, effects] = applyCheckpoint(superblock, slots[slot]);
      return { slot, state, effects };
    } catch (error) {
      if (!(error instanceof TrilithError)) throw error;
      problem = error;
    }
  }
  if (problem !== null) throw problem;
  const why = slots.map((s, i) => `slot ${"XY"[i]}: ${s.why || "never written"}`).join("; ");
  throw corrupted(`pool ${superblock.name} has no whole checkpoint (${why})`);
}

/**
 * Reads the pool on a device. Throws `NotFound` (no pool), `FailedPrecondition` (newer format, disk
 * shrunk), `Corrupted` (damage that redundancy does not cover), or the device's error. The state's
 * references are not verified yet: `verifyState` does.
 */
export async function loadPool(device: PoolDevice): Promise<LoadedPool> {
  const disk = device.bdev.name;
  const copies = await readSuperblocks(device);
  const superblock = chooseSuperblock(copies, disk);
  checkDisk(superblock, device.bdev);
  const slots = [
    await readSlot(device, superblock.slots[0], superblock.tag),
    await readSlot(device, superblock.slots[1], superblock.tag),
  ] as const;
  const { slot, state, effects } = chooseCheckpoint(superblock, slots);
  const header = slots[slot].header!;
  const rings: Uint8Array[] = [];
  for (const extents of superblock.rings) rings.push(await readArea(device, extents));
  const reader = new JournalReader(rings[0]!, rings[1]!, superblock.tag);
  let position = header.position;
  let commits = 0;
  const damaged: { seq: number; good: 0 | 1 }[] = [];
  let incarnation = header.incarnation;
  for (;;) {
    const commit = reader.read(position, incarnation);
    if (commit === null) break;
    const { records } = commit;
    forEachRecord(records, 0, records.byteLength, (type, payload) => {
      applyRecord(state, type, payload, effects);
    });
    incarnation = Math.max(incarnation, commit.incarnation);
    position = { seq: position.seq + commit.blocks, chain: commit.chain };
    damaged.push(...commit.damaged);
    commits++;
  }
  reader.checkEnd(position.seq);
  return {
    superblock,
    copies,
    state,
    zeroed: effects.zeroedBits,
    slots,
    slot,
    reader,
    end: position,
    incarnation: Math.max(incarnation, reader.incarnation),
    commits,
    damaged,
  };
}

async function readArea(device: PoolDevice, extents: readonly Extent[]): Promise<Uint8Array> {
  const area = new Area(extents);
  const out = new Uint8Array(new ArrayBuffer(area.bytes));
  let at = 0;
  for (const extent of extents) {
    out.set(await device.readBytes(extent.offset, extent.bytes), at);
    at += extent.bytes;
  }
  return out;
}
