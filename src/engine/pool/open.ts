/** Making and opening pools. */
import { randomUUID } from "node:crypto";
import { TrilithError } from "../../errors.ts";
import { type Bdev, bdevBytes } from "../bdev/bdev.ts";
import { isUuid } from "../bdev/uri.ts";
import { ARENA_RESERVE_BYTES } from "../reactor/limits.ts";
import { Area } from "./area.ts";
import { checkName } from "./attributes.ts";
import {
  type CheckpointHeader,
  PAGE_BYTES,
  PAGE_HEADER_BYTES,
  PAGE_PAYLOAD_BYTES,
  sealPage,
} from "./checkpoint-format.ts";
import { CheckpointSource } from "./checkpoint-source.ts";
import { corrupted, uuidBytes } from "./codec.ts";
import { PoolCore } from "./core.ts";
import { must, PoolDevice } from "./device.ts";
import { wipeEnds } from "./geometry.ts";
import { Journal, journalSlots } from "./journal.ts";
import { JOURNAL_BLOCK_BYTES } from "./journal-format.ts";
import { planLayout } from "./layout.ts";
import { CHECK_ERRORS_MAX, CLUSTER_BYTES_DEFAULT, GRANULE_BYTES } from "./limits.ts";
import { chooseSuperblock, type LoadedPool, loadPool, readSuperblocks, slotBytes } from "./load.ts";
import { Pool } from "./pool.ts";
import { type DiskContent, probeDisk } from "./probe.ts";
import { RecordEncoder } from "./records.ts";
import { PoolState } from "./state.ts";
import { encodeSuperblock, SUPERBLOCK_OFFSETS, type Superblock } from "./superblock.ts";
import { verifyState } from "./verify.ts";

/** A pool to be made, or imported if it is there already. */
export interface CreatePool {
  readonly name: string;
  /** Given: a pool of the same name counts as the same only with this UUID. */
  readonly uuid?: string;
  /** Default 4 MiB. */
  readonly clusterBytes?: number;
  /** Overwrites whatever the disk holds, another pool included. */
  readonly force?: boolean;
  /** Size of each journal ring; default by the size of the disk. */
  readonly journalBytes?: number;
  /** Whether closing the pool closes the base device. Default true. */
  readonly closeBdev?: boolean;
}

/** The pool that is expected on a disk. */
export interface ImportPool {
  readonly name?: string;
  readonly uuid?: string;
  readonly closeBdev?: boolean;
}

/**
 * Makes a pool on a device, or imports it when the device holds it already. Errors:
 * `InvalidArgument` (name, UUID, cluster size; disk too small, with the smallest possible),
 * `ForeignDisk` (names what the disk holds), `Conflict` (the pool is there with another cluster
 * size), `ResourceExhausted` (too many clusters; reactor out of memory or slots), and those of
 * `importPool`. The device stays open when it throws.
 */
export async function createPool(bdev: Bdev, request: CreatePool): Promise<Pool> {
  const { name, uuid = randomUUID(), clusterBytes = CLUSTER_BYTES_DEFAULT } = request;
  checkName("pool name", name);
  if (!isUuid(uuid)) {
    throw new TrilithError("InvalidArgument", `pool UUID "${uuid}" is not a UUID in lower case`);
  }
  const device = new PoolDevice(bdev);
  try {
    const content = await probeDisk(device);
    const isSame =
      content.kind === "pool" &&
      content.name === name &&
      (request.uuid === undefined || content.uuid === request.uuid);
    if (!isSame) {
      if (content.kind !== "blank" && request.force !== true) throw foreign(bdev, content);
      await format(device, { ...request, name, uuid, clusterBytes }, content.kind !== "blank");
    } else if (request.clusterBytes !== undefined) {
      const present = chooseSuperblock(await readSuperblocks(device), bdev.name);
      if (present.clusterBytes !== request.clusterBytes) {
        throw new TrilithError(
          "Conflict",
          `pool ${name} on ${bdev.name} has clusters of ${present.clusterBytes} bytes, not ${request.clusterBytes}`,
        );
      }
    }
  } finally {
    device.release();
  }
  return importPool(bdev, { ...request, name });
}

function foreign(bdev: Bdev, content: DiskContent): TrilithError {
  const what =
    content.kind === "pool"
      ? `the pool ${content.name} (${content.uuid})`
      : content.kind === "foreign"
        ? content.what
        : "nothing";
  return new TrilithError(
    "ForeignDisk",
    `${bdev.name} holds ${what}`,
    "if it is no longer needed, wipe the disk (`wipefs -a`) or create the pool with force",
  );
}

/** What a disk holds: nothing, a pool, or something else. Throws the device's error. */
export async function probePool(bdev: Bdev): Promise<DiskContent> {
  const device = new PoolDevice(bdev);
  try {
    return await probeDisk(device);
  } finally {
    device.release();
  }
}

/** Writes an empty pool. The superblocks come last: a crash before leaves no pool. */
async function format(
  device: PoolDevice,
  request: CreatePool & { readonly uuid: string; readonly clusterBytes: number },
  wipe: boolean,
): Promise<void> {
  const { bdev } = device;
  const { name, uuid, clusterBytes, journalBytes } = request;
  const deviceBytes = bdevBytes(bdev);
  const layout = planLayout(deviceBytes, clusterBytes, journalBytes);
  const doing = `making pool ${name} on ${bdev.name}`;
  if (wipe) await wipeEnds(device);
  const tag = new DataView(uuidBytes(randomUUID()).buffer).getUint32(0, true);
  const superblock: Superblock = {
    name,
    uuid,
    tag,
    blockSize: bdev.blockSize,
    clusterBytes,
    clusterCount: layout.clusterCount,
    deviceBytes,
    generation: 1,
    compatible: 0,
    slots: layout.slots,
    rings: layout.rings,
  };
  for (const { offset, bytes } of layout.rings.flat()) {
    must(await device.zero(offset, bytes, false), doing);
  }
  for (const slot of layout.slots) {
    must(await device.zero(slot[0]!.offset, GRANULE_BYTES, false), doing);
  }
  await writeFirstCheckpoint(device, superblock);
  must(await device.flush(), doing);
  for (const offset of SUPERBLOCK_OFFSETS) {
    await device.writeBytes(offset, encodeSuperblock(superblock));
  }
}

async function writeFirstCheckpoint(device: PoolDevice, superblock: Superblock): Promise<void> {
  const { blockSize, clusterBytes, clusterCount, tag, slots } = superblock;
  const state = new PoolState(blockSize, clusterBytes, clusterCount, slotBytes(superblock) / 4);
  const e = new RecordEncoder(PAGE_PAYLOAD_BYTES);
  new CheckpointSource(state, new Uint8Array(0)).fill(e);
  const page = new Uint8Array(new ArrayBuffer(PAGE_BYTES));
  page.set(e.bytes.subarray(0, e.at), PAGE_HEADER_BYTES);
  sealPage(page, new DataView(page.buffer), 0, tag, {
    number: 1,
    position: { seq: 1, chain: 0 },
    incarnation: 0,
    page: 0,
    length: e.at,
    last: true,
  });
  await device.writeBytes(slots[0][0]!.offset, page);
}

/**
 * Opens the pool on a device after every structure was verified. Errors: `NotFound` (no pool, or
 * another one than expected), `Corrupted`, `FailedPrecondition` (the disk shrank, the format is
 * newer), `ResourceExhausted` (reactor out of memory or slots), the device's own. The device stays
 * open when it throws.
 */
export async function importPool(bdev: Bdev, expected: ImportPool = {}): Promise<Pool> {
  const device = new PoolDevice(bdev);
  const { reactor } = bdev;
  const slots = journalSlots(bdev);
  let journalBuffer = -1;
  let hasSlots = false;
  try {
    const loaded = await loadPool(device);
    checkExpected(loaded.superblock, expected, bdev);
    const { superblock, state } = loaded;
    const verified = verifyState(state, superblock, CHECK_ERRORS_MAX);
    const [problem] = verified.errors;
    if (problem !== undefined) throw corrupted(`pool ${superblock.name}: ${problem}`);
    hasSlots = reactor.io.promise(slots);
    journalBuffer = reactor.arena.alloc(Journal.bufferBytes, ARENA_RESERVE_BYTES);
    if (!hasSlots || journalBuffer < 0) {
      throw new TrilithError(
        "ResourceExhausted",
        `the reactor has no memory or request slots left for pool ${superblock.name}`,
        "give the engine a larger arena, or spread pools over more reactors",
      );
    }
    // What was read may still be in the disk's cache only, written before a crash of this process.
    must(await device.flush(), `importing pool ${superblock.name}`);
    await repair(device, loaded);
    const core = new PoolCore({
      device,
      superblock,
      state,
      references: verified.references,
      metadata: verified.metadata,
      zeroed: loaded.zeroed,
      newest: newestHeader(loaded),
      newestSlot: loaded.slot,
      position: loaded.end,
      retainedFrom: retainedFrom(loaded),
      incarnation: loaded.incarnation + 1,
      journalBuffer,
    });
    const isOneSlotLost = loaded.slots.some((slot) => slot.header === null && slot.why !== "");
    if (isOneSlotLost || core.checkpointer.isDue) core.checkpointer.start();
    core.cleaner.kick();
    return new Pool(core, expected.closeBdev ?? true);
  } catch (error) {
    if (journalBuffer >= 0) reactor.arena.free(journalBuffer);
    if (hasSlots) reactor.io.release(slots);
    device.release();
    throw error;
  }
}

function checkExpected(superblock: Superblock, expected: ImportPool, bdev: Bdev): void {
  const { name, uuid } = superblock;
  const isOther =
    (expected.name !== undefined && expected.name !== name) ||
    (expected.uuid !== undefined && expected.uuid !== uuid);
  if (!isOther) return;
  throw new TrilithError(
    "NotFound",
    `${bdev.name} holds the pool ${name} (${uuid}), not ${expected.name ?? expected.uuid}`,
  );
}

/** The next checkpoint must be newer than any that was ever written. */
function newestHeader(loaded: LoadedPool): CheckpointHeader {
  const header = loaded.slots[loaded.slot].header!;
  const numbers = loaded.slots.map((slot) => slot.header?.number ?? 0);
  return { ...header, number: Math.max(...numbers) };
}

/** The journal is kept from the older checkpoint on, as long as there is one. */
function retainedFrom(loaded: LoadedPool): number {
  const seqs = loaded.slots.flatMap((slot) =>
    slot.header === null ? [] : [slot.header.position.seq],
  );
  return Math.min(loaded.slots[loaded.slot].header!.position.seq, ...seqs);
}

/** Restores redundancy: superblock copies that differ, journal blocks of which one copy is bad. */
async function repair(device: PoolDevice, loaded: LoadedPool): Promise<void> {
  const { superblock, copies, reader, damaged } = loaded;
  for (const [i, copy] of copies.entries()) {
    const isCurrent = copy.kind === "valid" && copy.superblock.generation === superblock.generation;
    if (!isCurrent) await device.writeBytes(SUPERBLOCK_OFFSETS[i]!, encodeSuperblock(superblock));
  }
  const rings = superblock.rings.map((extents) => new Area(extents));
  for (const { seq, good } of damaged) {
    const bad = rings[1 - good]!;
    const at = (seq * JOURNAL_BLOCK_BYTES) % bad.bytes;
    await device.writeBytes(bad.offsetOf(at), reader.blockBytes(seq, good));
  }
}
