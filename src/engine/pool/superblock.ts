/**
 * The superblock: identity and geometry of a pool, in two copies of 4 KiB, A at byte 0 and B at
 * byte 1 MiB. Little-endian.
 *
 * | at  | bytes | field                                                                      |
 * |-----|-------|----------------------------------------------------------------------------|
 * | 0   | 8     | magic `TRILITHP`                                                           |
 * | 8   | 4     | format version, 1                                                          |
 * | 12  | 4     | CRC-32C of the 4 KiB with this field zero                                  |
 * | 16  | 4     | incompatible features: import refuses unknown bits                         |
 * | 20  | 4     | compatible features: unknown bits are ignored and kept                     |
 * | 24  | 16    | pool UUID                                                                  |
 * | 40  | 4     | tag: random per creation; journal blocks and checkpoint pages carry it     |
 * | 44  | 4     | block size, 512 or 4096                                                    |
 * | 48  | 8     | cluster size in bytes                                                      |
 * | 56  | 8     | clusters; cluster i lies at i * cluster size                               |
 * | 64  | 8     | size of the disk in bytes when the geometry was last set                   |
 * | 72  | 8     | generation: the valid copy with the higher one counts                      |
 * | 80  | 8     | extents of checkpoint slot X, slot Y, journal ring, mirror ring (u16 each) |
 * | 88  | 2     | bytes of the name                                                          |
 * | 90  | 6     | zero                                                                       |
 * | 96  | 128   | name, UTF-8                                                                |
 * | 224 | 672   | zero; room for the parameters of encryption                                |
 * | 896 | 3200  | extents in that order: offset u64, length u64, multiples of 64 KiB         |
 *
 * The places of magic, version and checksum never change. The superblock is written when the pool
 * is made and when its geometry changes (growth, more metadata room): both copies, one after the
 * other, each durable before the next. Which checkpoint is the newest is not recorded here:
 * checkpoints describe themselves (checkpoint-format.ts), so a checkpoint needs no second switch
 * that could be torn or damaged.
 *
 * Incompatible features with a reserved meaning: bit 0, clusters are encrypted (XTS); bit 1, blocks
 * carry checksums. This version knows neither.
 */
import { crc32cOf } from "../../../ffi/index.ts";
import { assert } from "../../assert.ts";
import { Area, type Extent } from "./area.ts";
import { Decoder, Encoder, uuidText } from "./codec.ts";
import {
  CLUSTER_BYTES_MAX,
  CLUSTER_BYTES_MIN,
  COMMIT_BLOCKS_MAX,
  EXTENTS_MAX,
  GRANULE_BYTES,
  NAME_BYTES_MAX,
  POOL_CLUSTERS_MAX,
} from "./limits.ts";

export const SUPERBLOCK_BYTES = 4096;
/** Places of copies A and B. */
export const SUPERBLOCK_OFFSETS = [0, 1 << 20] as const;
export const FORMAT_VERSION = 1;

/** Incompatible features by bit. */
export const FEATURE_NAMES: ReadonlyMap<number, string> = new Map([
  [1, "encryption"],
  [2, "block checksums"],
]);
/** Incompatible features that this version reads and writes. */
const KNOWN_FEATURES = 0;

const MAGIC = "TRILITHP";
const CRC_AT = 12;
const NAME_AT = 96;
const EXTENTS_AT = 896;
const UUID_AT = 24;

/** Identity and geometry. */
export interface Superblock {
  readonly name: string;
  readonly uuid: string;
  readonly tag: number;
  readonly blockSize: number;
  readonly clusterBytes: number;
  readonly clusterCount: number;
  readonly deviceBytes: number;
  readonly generation: number;
  readonly compatible: number;
  /** Checkpoint slots X and Y. */
  readonly slots: readonly [readonly Extent[], readonly Extent[]];
  /** Journal ring and its mirror, equal in size. */
  readonly rings: readonly [readonly Extent[], readonly Extent[]];
}

/** What was found where a copy should be. */
export type SuperblockCopy =
  | { readonly kind: "absent" }
  | { readonly kind: "damaged"; readonly why: string }
  | {
      readonly kind: "unsupported";
      readonly why: string;
      readonly name: string;
      readonly uuid: string;
    }
  | { readonly kind: "valid"; readonly superblock: Superblock };

/** The 4 KiB of a superblock. */
export function encodeSuperblock(superblock: Superblock): Uint8Array {
  const { slots, rings } = superblock;
  const areas = [slots[0], slots[1], rings[0], rings[1]];
  const extents = areas.flat();
  assert(extents.length <= EXTENTS_MAX, "extents fit the superblock");
  const name = new TextEncoder().encode(superblock.name);
  assert(name.byteLength > 0 && name.byteLength <= NAME_BYTES_MAX, "pool name fits");
  const e = new Encoder(SUPERBLOCK_BYTES);
  e.raw(new TextEncoder().encode(MAGIC)).u32(FORMAT_VERSION).u32(0).u32(0);
  e.u32(superblock.compatible).uuid(superblock.uuid).u32(superblock.tag);
  e.u32(superblock.blockSize).u64(superblock.clusterBytes).u64(superblock.clusterCount);
  e.u64(superblock.deviceBytes).u64(superblock.generation);
  for (const area of areas) e.u16(area.length);
  e.u16(name.byteLength);
  e.at = NAME_AT;
  e.raw(name);
  e.at = EXTENTS_AT;
  for (const extent of extents) e.u64(extent.offset).u64(extent.bytes);
  e.view.setUint32(CRC_AT, crc32cOf(e.bytes), true);
  return e.bytes;
}

/** Reads one copy (4 KiB). Never throws. */
export function decodeSuperblock(bytes: Uint8Array): SuperblockCopy {
  assert(bytes.byteLength === SUPERBLOCK_BYTES, "a superblock copy has 4 KiB");
  const magic = new TextDecoder("latin1").decode(bytes.subarray(0, 8));
  if (magic !== MAGIC) return { kind: "absent" };
  const copy = bytes.slice();
  const view = new DataView(copy.buffer);
  const crc = view.getUint32(CRC_AT, true);
  view.setUint32(CRC_AT, 0, true);
  if (crc32cOf(copy) !== crc) return { kind: "damaged", why: "its checksum does not match" };
  const uuid = uuidText(copy, UUID_AT);
  try {
    const why = unsupported(view);
    const name = nameOf(copy, view);
    if (why !== "") return { kind: "unsupported", why, name, uuid };
    const superblock = decodeFields(copy, name);
    const wrong = contradiction(superblock);
    if (wrong !== "") return { kind: "damaged", why: wrong };
    return { kind: "valid", superblock };
  } catch (error) {
    return { kind: "damaged", why: error instanceof Error ? error.message : String(error) };
  }
}

function unsupported(view: DataView): string {
  const version = view.getUint32(8, true);
  if (version !== FORMAT_VERSION) return `format version ${version}`;
  const features = view.getUint32(16, true) & ~KNOWN_FEATURES;
  if (features === 0) return "";
  const names: string[] = [];
  for (let bit = 0; bit < 32; bit++) {
    const mask = (1 << bit) >>> 0;
    if ((features & mask) !== 0) names.push(FEATURE_NAMES.get(mask) ?? `feature bit ${bit}`);
  }
  return names.join(", ");
}

function nameOf(bytes: Uint8Array, view: DataView): string {
  const length = view.getUint16(88, true);
  if (length === 0 || length > NAME_BYTES_MAX) throw new Error("its name has no valid length");
  return new Decoder(bytes, NAME_AT).text(length);
}

function decodeFields(bytes: Uint8Array, name: string): Superblock {
  const d = new Decoder(bytes, 20);
  const compatible = d.u32();
  const uuid = d.uuid();
  const tag = d.u32();
  const blockSize = d.u32();
  const clusterBytes = d.u64();
  const clusterCount = d.u64();
  const deviceBytes = d.u64();
  const generation = d.u64();
  const counts = [d.u16(), d.u16(), d.u16(), d.u16()];
  if (counts.reduce((a, b) => a + b) > EXTENTS_MAX) throw new Error("it lists too many extents");
  d.at = EXTENTS_AT;
  const [x, y, ring, mirror] = counts.map((count) =>
    Array.from({ length: count }, (): Extent => ({ offset: d.u64(), bytes: d.u64() })),
  );
  return {
    name,
    uuid,
    tag,
    blockSize,
    clusterBytes,
    clusterCount,
    deviceBytes,
    generation,
    compatible,
    slots: [x!, y!],
    rings: [ring!, mirror!],
  };
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && 2 ** Math.round(Math.log2(value)) === value;
}

/** What is impossible about the geometry, or "". A matching checksum is no reason to trust it. */
function contradiction(s: Superblock): string {
  if (s.blockSize !== 512 && s.blockSize !== 4096) return `its block size is ${s.blockSize}`;
  const { clusterBytes, clusterCount } = s;
  if (
    !isPowerOfTwo(clusterBytes) ||
    clusterBytes < CLUSTER_BYTES_MIN ||
    clusterBytes > CLUSTER_BYTES_MAX
  ) {
    return `its cluster size is ${clusterBytes}`;
  }
  if (clusterCount < 1 || clusterCount > POOL_CLUSTERS_MAX)
    return `it has ${clusterCount} clusters`;
  const end = clusterCount * clusterBytes;
  if (end > s.deviceBytes) return "its clusters exceed its disk";
  const taken: Extent[] = SUPERBLOCK_OFFSETS.map((offset) => ({ offset, bytes: GRANULE_BYTES }));
  for (const extent of [...s.slots, ...s.rings].flat()) {
    const { offset, bytes } = extent;
    if (bytes === 0 || bytes % GRANULE_BYTES !== 0 || offset % GRANULE_BYTES !== 0) {
      return "an extent is not whole granules";
    }
    if (offset + bytes > end) return "an extent leaves the disk";
    if (taken.some((t) => offset < t.offset + t.bytes && t.offset < offset + bytes)) {
      return "two metadata extents overlap";
    }
    taken.push(extent);
  }
  const [ring, mirror] = s.rings.map((extents) => new Area(extents).bytes);
  if (ring !== mirror) return "its journal rings differ in size";
  if (ring! < COMMIT_BLOCKS_MAX * SUPERBLOCK_BYTES * 4) return "its journal rings are too small";
  if (s.slots[0].length === 0 || s.slots[1].length === 0) return "it has no checkpoint slots";
  return "";
}

/** Clusters that hold metadata, ascending. */
export function metadataClusters(superblock: Superblock): number[] {
  const { clusterBytes } = superblock;
  const clusters = new Set<number>();
  const extents: Extent[] = [...superblock.slots, ...superblock.rings].flat();
  for (const offset of SUPERBLOCK_OFFSETS) extents.push({ offset, bytes: SUPERBLOCK_BYTES });
  for (const { offset, bytes } of extents) {
    const last = Math.floor((offset + bytes - 1) / clusterBytes);
    for (let c = Math.floor(offset / clusterBytes); c <= last; c++) {
      if (c < superblock.clusterCount) clusters.add(c);
    }
  }
  return [...clusters].sort((a, b) => a - b);
}
