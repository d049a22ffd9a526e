/**
 * Where the metadata of a new pool goes, and how much room a checkpoint may need. Pure.
 *
 * | place                         | what                                                     |
 * |-------------------------------|----------------------------------------------------------|
 * | 0, and 1 MiB                  | superblock copies A and B (each with its 64 KiB granule) |
 * | from 64 KiB on, around 1 MiB  | journal ring, checkpoint slot X                          |
 * | the last clusters             | mirror ring, checkpoint slot Y                           |
 *
 * The two halves lie at the two ends, so that whatever overwrites the head of a disk (a partition
 * table, a stray `dd`) leaves copy B, a complete journal and one checkpoint slot.
 *
 * A pool that grows, or holds more replicas than the slots have room for, takes further clusters for
 * both slots (`Pool`); the rings never need to grow, a full ring only waits for a checkpoint.
 */
import { TrilithError } from "../../errors.ts";
import type { Extent } from "./area.ts";
import {
  BITMAP_CHUNK_BYTES,
  CLUSTER_BYTES_MAX,
  CLUSTER_BYTES_MIN,
  GRANULE_BYTES,
  INTENT_REGION_BYTES,
  JOURNAL_BYTES_MAX,
  JOURNAL_BYTES_MIN,
  JOURNAL_DISK_SHARE,
  MAP_CHUNK_ENTRIES,
  POOL_CLUSTERS_MAX,
} from "./limits.ts";
import { SUPERBLOCK_OFFSETS } from "./superblock.ts";

/** Extents of a new pool. */
export interface Layout {
  readonly clusterCount: number;
  readonly slots: readonly [readonly Extent[], readonly Extent[]];
  readonly rings: readonly [readonly Extent[], readonly Extent[]];
}

/** Header bytes of a checkpoint page, and what the last record that does not fit may leave unused. */
const PAGE_OVERHEAD_BYTES = 64;
const RECORD_OVERHEAD_BYTES = 64;
const SMALL_RECORD_BYTES = Math.max(MAP_CHUNK_ENTRIES * 4, BITMAP_CHUNK_BYTES) + 64;

function granules(bytes: number): number {
  return Math.ceil(bytes / GRANULE_BYTES) * GRANULE_BYTES;
}

/**
 * Bytes that one replica or snapshot takes in a checkpoint at most: its attributes, every cluster
 * mapped somewhere else, every region dirty. Counted so that sums over objects are safe.
 */
export function objectCheckpointBytes(
  sizeBytes: number,
  clusterBytes: number,
  attributeBytes: number,
): number {
  const clusters = Math.ceil(sizeBytes / clusterBytes);
  const mapBytes = clusters * 4 + Math.ceil(clusters / MAP_CHUNK_ENTRIES) * RECORD_OVERHEAD_BYTES;
  const intentBytes = Math.ceil(sizeBytes / INTENT_REGION_BYTES / 8);
  const intentRecords = Math.ceil(intentBytes / BITMAP_CHUNK_BYTES);
  // A long attribute record may leave most of a page unused: it counts as a page.
  const head = attributeBytes > SMALL_RECORD_BYTES / 2 ? GRANULE_BYTES : attributeBytes;
  return head + mapBytes + intentBytes + (intentRecords + 2) * RECORD_OVERHEAD_BYTES;
}

/** Size of the slots that hold checkpoints of `objectBytes` (their sum) in a pool of so many clusters. */
export function checkpointSlotBytes(objectBytes: number, clusterCount: number): number {
  const zeroedBytes = Math.ceil(clusterCount / 8);
  const records = Math.ceil(zeroedBytes / BITMAP_CHUNK_BYTES) + 2;
  const payload = objectBytes + zeroedBytes + records * RECORD_OVERHEAD_BYTES;
  const perPage = GRANULE_BYTES - PAGE_OVERHEAD_BYTES - SMALL_RECORD_BYTES;
  return (Math.ceil(payload / perPage) + 1) * GRANULE_BYTES;
}

/** Throws `InvalidArgument` unless it is a power of two within the limits. */
export function checkClusterBytes(clusterBytes: number): void {
  const isPower = Number.isInteger(clusterBytes) && Number.isInteger(Math.log2(clusterBytes));
  if (!isPower || clusterBytes < CLUSTER_BYTES_MIN || clusterBytes > CLUSTER_BYTES_MAX) {
    throw new TrilithError(
      "InvalidArgument",
      `cluster size ${clusterBytes} is not a power of two from 64 KiB to 1 GiB`,
      "4 MiB suits most disks",
    );
  }
}

/** Throws unless so many clusters can be managed. */
export function checkClusterCount(clusterCount: number, clusterBytes: number): void {
  if (clusterCount <= POOL_CLUSTERS_MAX) return;
  let larger = clusterBytes;
  while (clusterCount * (clusterBytes / larger) > POOL_CLUSTERS_MAX) larger *= 2;
  throw new TrilithError(
    "ResourceExhausted",
    `the disk has ${clusterCount} clusters of ${clusterBytes} bytes, a pool at most ${POOL_CLUSTERS_MAX}`,
    `use a larger cluster size, at least ${larger} bytes`,
  );
}

/** Size of each journal ring for a disk. */
export function journalBytesFor(deviceBytes: number): number {
  const share = deviceBytes / JOURNAL_DISK_SHARE;
  const power = 2 ** Math.floor(Math.log2(share));
  return Math.min(JOURNAL_BYTES_MAX, Math.max(JOURNAL_BYTES_MIN, power));
}

const RESERVED = new Set(SUPERBLOCK_OFFSETS.map((offset) => offset / GRANULE_BYTES));

/** Takes `bytes` from granule `from` on, around the superblocks; returns the extents and the next granule. */
function takeGranules(from: number, bytes: number): { extents: Extent[]; next: number } {
  const extents: Extent[] = [];
  let granule = from;
  let left = bytes / GRANULE_BYTES;
  while (left > 0) {
    if (RESERVED.has(granule)) {
      granule++;
      continue;
    }
    const start = granule;
    while (left > 0 && !RESERVED.has(granule)) {
      granule++;
      left--;
    }
    extents.push({ offset: start * GRANULE_BYTES, bytes: (granule - start) * GRANULE_BYTES });
  }
  return { extents, next: granule };
}

/**
 * Plans a new pool. Throws `InvalidArgument` with the smallest possible disk when this one is too
 * small, `ResourceExhausted` when it has too many clusters.
 */
export function planLayout(
  deviceBytes: number,
  clusterBytes: number,
  journalBytes = journalBytesFor(deviceBytes),
): Layout {
  checkClusterBytes(clusterBytes);
  const clusterCount = Math.floor(deviceBytes / clusterBytes);
  checkClusterCount(clusterCount, clusterBytes);
  // Room for one replica over the whole pool with every cluster somewhere else, and then some.
  const wholePool = objectCheckpointBytes(clusterCount * clusterBytes, clusterBytes, 4096);
  const slotBytes = checkpointSlotBytes(wholePool + 4 * GRANULE_BYTES, clusterCount);
  const ring = takeGranules(1, granules(journalBytes));
  const front = takeGranules(ring.next, slotBytes);
  const frontClusters = Math.ceil((front.next * GRANULE_BYTES) / clusterBytes);
  const rearBytes = granules(journalBytes) + slotBytes;
  const rearClusters = Math.ceil(rearBytes / clusterBytes);
  const copyB = SUPERBLOCK_OFFSETS[1] / clusterBytes;
  const head = Math.max(frontClusters, Math.floor(copyB) + 1);
  const minimum = (head + rearClusters + 1) * clusterBytes;
  if (clusterCount * clusterBytes < minimum) {
    throw new TrilithError(
      "InvalidArgument",
      `the disk has ${deviceBytes} bytes, too few for a pool with clusters of ${clusterBytes} bytes`,
      `give it at least ${minimum} bytes, or a smaller cluster size`,
    );
  }
  // Slot X takes what is left of its last cluster, which serves nothing else.
  const spare = frontClusters * clusterBytes - front.next * GRANULE_BYTES;
  const x = takeGranules(ring.next, slotBytes + spareWithoutReserved(front.next, spare));
  const rear = (clusterCount - rearClusters) * clusterBytes;
  const mirror: Extent = { offset: rear, bytes: granules(journalBytes) };
  const y: Extent = {
    offset: rear + mirror.bytes,
    bytes: rearClusters * clusterBytes - mirror.bytes,
  };
  return { clusterCount, slots: [x.extents, [y]], rings: [ring.extents, [mirror]] };
}

function spareWithoutReserved(fromGranule: number, bytes: number): number {
  let spare = bytes;
  for (const granule of RESERVED) {
    if (granule >= fromGranule && granule < fromGranule + bytes / GRANULE_BYTES) {
      spare -= GRANULE_BYTES;
    }
  }
  return spare;
}
