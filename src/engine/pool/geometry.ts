/** Changes of a pool's geometry: more room for checkpoints, a larger disk, the end of the pool. */
import { TrilithError } from "../../errors.ts";
import { type Bdev, bdevBytes } from "../bdev/bdev.ts";
import type { Extent } from "./area.ts";
import type { PoolCore } from "./core.ts";
import { must, type PoolDevice } from "./device.ts";
import { checkClusterCount, checkpointSlotBytes, objectCheckpointBytes } from "./layout.ts";
import { EXTENTS_MAX, GRANULE_BYTES, PROBE_HEAD_BYTES, PROBE_TAIL_BYTES } from "./limits.ts";
import { attributeBytes } from "./records.ts";
import type { PoolObject } from "./state.ts";
import { encodeSuperblock, SUPERBLOCK_OFFSETS, type Superblock } from "./superblock.ts";

/** Slots are doubled as long as that takes no more than this share of the free clusters. */
const GENEROUS_SHARE = 16;
const RETRY_MS = 1;

type Slots = [Extent[], Extent[]];

/** A device whose size can be looked at again (files and block devices). */
function rescan(bdev: Bdev): void {
  const device = bdev as Bdev & { rescan?: () => number };
  if (typeof device.rescan === "function") device.rescan();
}

export class Geometry {
  readonly #core: PoolCore;

  constructor(core: PoolCore) {
    this.#core = core;
  }

  #objectBytes(except: PoolObject | null): number {
    const { state, clusterBytes } = this.#core;
    let bytes = 0;
    for (const object of state.objects.values()) {
      if (object === except) continue;
      const attributes = attributeBytes(object.attributes);
      bytes += objectCheckpointBytes(object.sizeBytes, clusterBytes, attributes);
    }
    return bytes;
  }

  #slotBytes(): number {
    const [x, y] = this.#core.slots;
    return Math.min(x.bytes, y.bytes);
  }

  /**
   * Makes sure that any checkpoint fits once there is one more object of `bytes`, or once `replaced`
   * takes `bytes`. Extends the slots if need be, before anything else happens. Throws `NoSpace`.
   */
  async ensureRoom(bytes: number, replaced: PoolObject | null): Promise<void> {
    const { superblock, clusterBytes, space } = this.#core;
    const objects = this.#objectBytes(replaced) + bytes;
    const needed = checkpointSlotBytes(objects, superblock.clusterCount);
    const present = this.#slotBytes();
    if (needed <= present) return;
    const generous = Math.max(needed, present * 2);
    const isCheap = (generous - present) * 2 * GENEROUS_SHARE <= space.available * clusterBytes;
    await this.#extend(isCheap ? generous : needed);
  }

  /** Takes clusters until both slots have `needed` bytes. */
  async #extend(needed: number): Promise<void> {
    const { space, clusterBytes, superblock, reactor } = this.#core;
    const slots: Slots = [[...superblock.slots[0]], [...superblock.slots[1]]];
    const missing = (slot: 0 | 1) => needed - bytesOf(slots[slot]);
    const clusters = Math.ceil((missing(0) + missing(1)) / clusterBytes);
    if (clusters > space.available) throw noRoom(superblock.name, clusters * clusterBytes);
    while (missing(0) > 0 || missing(1) > 0) {
      const wanted = Math.ceil((Math.max(0, missing(0)) + Math.max(0, missing(1))) / clusterBytes);
      const run =
        space.available > 0 ? space.takeMetadataRun(Math.min(wanted, space.available)) : null;
      if (run !== null) {
        splitRun(slots, run[0] * clusterBytes, run[1] * clusterBytes);
        continue;
      }
      // What is free is still on its way through the cleaner.
      if (space.available <= 0 || this.#core.isFaulted) throw noRoom(superblock.name, clusterBytes);
      await reactor.sleep(RETRY_MS);
    }
    await this.#adopt({ ...superblock, slots });
  }

  /** Writes a new superblock and takes over what it says about the slots. */
  async #adopt(changes: Superblock): Promise<void> {
    const core = this.#core;
    const { slots, rings } = changes;
    const extents = [...slots, ...rings].flat().length;
    if (extents > EXTENTS_MAX) {
      throw new TrilithError(
        "NoSpace",
        `the metadata of pool ${changes.name} is in too many pieces to grow`,
        "move its replicas to another pool and create it anew",
      );
    }
    const next: Superblock = { ...changes, generation: core.superblock.generation + 1 };
    try {
      for (const offset of SUPERBLOCK_OFFSETS) {
        await core.device.writeBytes(offset, encodeSuperblock(next));
      }
    } catch (error) {
      core.failMetadata(error, "the superblock could not be written");
      throw error;
    }
    core.superblock = next;
    for (const slot of [0, 1] as const) {
      const area = core.slots[slot];
      const fresh = slots[slot].reduce((sum, extent) => sum + extent.bytes, 0) - area.bytes;
      if (fresh > 0) area.replace(slots[slot]);
    }
    core.state.entriesMax = Math.floor(this.#slotBytes() / 4);
  }

  /**
   * Takes in what the disk has grown by. Throws `FailedPrecondition` when it shrank,
   * `ResourceExhausted` when it has too many clusters, `NoSpace` when the metadata finds no room.
   */
  async grow(): Promise<void> {
    const { bdev, superblock, clusterBytes, space, state } = this.#core;
    rescan(bdev);
    const deviceBytes = bdevBytes(bdev);
    const clusterCount = Math.floor(deviceBytes / clusterBytes);
    if (clusterCount <= superblock.clusterCount) return;
    checkClusterCount(clusterCount, clusterBytes);
    const needed = checkpointSlotBytes(this.#objectBytes(null), clusterCount);
    const slots: Slots = [[...superblock.slots[0]], [...superblock.slots[1]]];
    const missing = Math.max(0, needed - this.#slotBytes());
    const metadata = Math.ceil((missing * 2) / clusterBytes);
    const first = superblock.clusterCount;
    if (metadata > clusterCount - first) throw noRoom(superblock.name, metadata * clusterBytes);
    if (metadata > 0) splitRun(slots, first * clusterBytes, metadata * clusterBytes);
    // The disk must know the new clusters before anything refers to one.
    await this.#adopt({ ...superblock, slots, clusterCount, deviceBytes });
    state.clusterCount = clusterCount;
    space.grow(clusterCount, metadata);
    this.#core.cleaner.kick();
    this.#core.ops.onSupply();
  }

  /** Wipes the pool off its disk: what is looked at before a pool is made is zeroes afterwards. */
  async wipe(): Promise<void> {
    await wipeEnds(this.#core.device);
  }
}

/** Zeroes head and tail of a disk durably; the head, with the superblocks, first. */
export async function wipeEnds(device: PoolDevice): Promise<void> {
  const { bdev } = device;
  const deviceBytes = bdevBytes(bdev);
  const head = Math.min(PROBE_HEAD_BYTES, deviceBytes);
  const tail = Math.min(PROBE_TAIL_BYTES, deviceBytes);
  const doing = `wiping ${bdev.name}`;
  must(await device.zero(0, head, false), doing);
  must(await device.flush(), doing);
  must(await device.zero(deviceBytes - tail, tail, false), doing);
  must(await device.flush(), doing);
}

function bytesOf(extents: readonly Extent[]): number {
  return extents.reduce((sum, extent) => sum + extent.bytes, 0);
}

function noRoom(pool: string, bytes: number): TrilithError {
  return new TrilithError(
    "NoSpace",
    `pool ${pool} lacks ${bytes} bytes for its metadata`,
    "grow the pool, or delete replicas or snapshots",
  );
}

/** Gives a run of disk to both slots in halves, or to the shorter one when it cannot be halved. */
function splitRun(slots: Slots, offset: number, bytes: number): void {
  if (bytes >= GRANULE_BYTES * 2) {
    const half = Math.floor(bytes / GRANULE_BYTES / 2) * GRANULE_BYTES;
    append(slots[0], { offset, bytes: half });
    append(slots[1], { offset: offset + half, bytes: bytes - half });
  } else append(bytesOf(slots[0]) <= bytesOf(slots[1]) ? slots[0] : slots[1], { offset, bytes });
}

function append(extents: Extent[], extent: Extent): void {
  const last = extents.at(-1);
  if (last !== undefined && last.offset + last.bytes === extent.offset) {
    extents[extents.length - 1] = { offset: last.offset, bytes: last.bytes + extent.bytes };
  } else extents.push(extent);
}
