/**
 * What a disk carries, so that a pool is never made over somebody's data. Pure, but for `probeDisk`.
 *
 * The head (the first MiB and a little) and the tail (the last MiB) are read. A known signature is
 * named; anything else that is not zero counts as unknown data.
 */
import { bdevBytes } from "../bdev/bdev.ts";
import type { PoolDevice } from "./device.ts";
import { PROBE_HEAD_BYTES, PROBE_TAIL_BYTES } from "./limits.ts";
import { decodeSuperblock, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS } from "./superblock.ts";

/** What was found on a disk. */
export type DiskContent =
  | { readonly kind: "blank" }
  | { readonly kind: "pool"; readonly name: string; readonly uuid: string }
  | { readonly kind: "foreign"; readonly what: string };

/** Head and tail of a disk. */
export interface DiskEnds {
  readonly head: Uint8Array;
  readonly tail: Uint8Array;
  readonly deviceBytes: number;
}

interface Signature {
  readonly what: string;
  /** Byte offset, or how to compute it from the size of the disk. */
  readonly at: number | ((deviceBytes: number) => number);
  readonly magic: string | readonly number[];
  /** A further condition. */
  readonly also?: (head: Uint8Array) => boolean;
}

/** ZFS uberblocks: 128 places of 1 KiB in the first label, any of which may be in use. */
const ZFS_UBERBLOCKS_AT = 128 << 10;
const zfsSignatures: readonly Signature[] = Array.from({ length: 128 }, (_, i) => [
  { what: "a ZFS pool", at: ZFS_UBERBLOCKS_AT + i * 1024, magic: [0x0c, 0xb1, 0xba, 0, 0] },
  {
    what: "a ZFS pool",
    at: ZFS_UBERBLOCKS_AT + i * 1024,
    magic: [0, 0, 0, 0, 0, 0xba, 0xb1, 0x0c],
  },
]).flat();

/** md superblocks: 0.90 at the last whole 64 KiB but one, 1.0 at the last 4 KiB that leaves 8 KiB. */
const md090At = (bytes: number) => Math.floor(bytes / 65536) * 65536 - 65536;
const md10At = (bytes: number) => Math.floor((bytes - 8192) / 4096) * 4096;

/**
 * Signatures in the order in which they are looked for: what is specific first. Offsets and magics
 * are those of the formats' own headers (ext4 `s_magic`, XFS `sb_magicnum`, btrfs `magic`, LVM2 label,
 * md superblock 0.90 and 1.x, LUKS phdr, swap header, ZFS uberblock, blobstore super block, ...).
 */
const signatures: readonly Signature[] = [
  { what: "an SPDK blobstore (a pool of another storage system)", at: 0, magic: "SPDKBLOB" },
  { what: "a LUKS encrypted volume", at: 0, magic: [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe] },
  { what: "an XFS file system", at: 0, magic: "XFSB" },
  { what: "a Ceph BlueStore device", at: 0, magic: "bluestore block device" },
  { what: "a btrfs file system", at: 0x10040, magic: "_BHRfS_M" },
  ...zfsSignatures,
  { what: "an LVM physical volume", at: 0, magic: "LABELONE" },
  { what: "an LVM physical volume", at: 512, magic: "LABELONE" },
  { what: "an LVM physical volume", at: 1024, magic: "LABELONE" },
  { what: "an LVM physical volume", at: 1536, magic: "LABELONE" },
  { what: "a Linux RAID member (mdraid)", at: 0, magic: [0xfc, 0x4e, 0x2b, 0xa9] },
  { what: "a Linux RAID member (mdraid)", at: 4096, magic: [0xfc, 0x4e, 0x2b, 0xa9] },
  { what: "a Linux RAID member (mdraid)", at: md10At, magic: [0xfc, 0x4e, 0x2b, 0xa9] },
  { what: "a Linux RAID member (mdraid)", at: md090At, magic: [0xfc, 0x4e, 0x2b, 0xa9] },
  { what: "swap space", at: 4086, magic: "SWAPSPACE2" },
  { what: "swap space", at: 4086, magic: "SWAP-SPACE" },
  {
    what: "a bcache device",
    at: 4096 + 24,
    magic: [0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca],
  },
  { what: "an f2fs file system", at: 1024, magic: [0x10, 0x20, 0xf5, 0xf2] },
  { what: "a ReiserFS file system", at: 0x10034, magic: "ReIsEr" },
  { what: "an ISO 9660 image", at: 0x8001, magic: "CD001" },
  { what: "an NTFS file system", at: 3, magic: "NTFS    " },
  { what: "an exFAT file system", at: 3, magic: "EXFAT   " },
  { what: "a FAT file system", at: 54, magic: "FAT1" },
  { what: "a FAT file system", at: 82, magic: "FAT32" },
  { what: "a VMFS volume", at: 1 << 20, magic: [0x0d, 0xd0, 0x01, 0xc0] },
  { what: "a qcow2 image", at: 0, magic: [0x51, 0x46, 0x49, 0xfb] },
  { what: "an ext2, ext3 or ext4 file system", at: 0x438, magic: [0x53, 0xef] },
  { what: "a GPT partition table", at: 512, magic: "EFI PART" },
  { what: "a GPT partition table", at: 4096, magic: "EFI PART" },
  { what: "the backup of a GPT partition table", at: (bytes) => bytes - 512, magic: "EFI PART" },
  { what: "the backup of a GPT partition table", at: (bytes) => bytes - 4096, magic: "EFI PART" },
  { what: "an MBR partition table", at: 510, magic: [0x55, 0xaa], also: hasPartition },
  { what: "a boot sector", at: 510, magic: [0x55, 0xaa] },
];

/** True when one of the four MBR entries names a partition (type and sector count not zero). */
function hasPartition(head: Uint8Array): boolean {
  for (let entry = 446; entry < 510; entry += 16) {
    const sectors = head[entry + 12]! | head[entry + 13]! | head[entry + 14]! | head[entry + 15]!;
    if (head[entry + 4] !== 0 && sectors !== 0) return true;
  }
  return false;
}

function matches(ends: DiskEnds, signature: Signature): boolean {
  const at = typeof signature.at === "number" ? signature.at : signature.at(ends.deviceBytes);
  const tailAt = ends.deviceBytes - ends.tail.byteLength;
  const inHead = at < ends.head.byteLength;
  const bytes = inHead ? ends.head : ends.tail;
  const from = inHead ? at : at - tailAt;
  const magic =
    typeof signature.magic === "string"
      ? new TextEncoder().encode(signature.magic)
      : Uint8Array.from(signature.magic);
  if (from < 0 || from + magic.byteLength > bytes.byteLength) return false;
  for (let i = 0; i < magic.byteLength; i++) if (bytes[from + i] !== magic[i]) return false;
  return signature.also?.(ends.head) ?? true;
}

/** A pool of ours, whole or damaged, or null. */
function ownPool(ends: DiskEnds): DiskContent | null {
  let found: DiskContent | null = null;
  for (const offset of SUPERBLOCK_OFFSETS) {
    if (offset + SUPERBLOCK_BYTES > ends.head.byteLength) continue;
    const copy = decodeSuperblock(ends.head.subarray(offset, offset + SUPERBLOCK_BYTES));
    if (copy.kind === "valid") {
      return { kind: "pool", name: copy.superblock.name, uuid: copy.superblock.uuid };
    }
    if (copy.kind === "unsupported") {
      found = { kind: "foreign", what: `pool ${copy.name} of a newer version (${copy.why})` };
    } else if (copy.kind === "damaged") {
      found ??= { kind: "foreign", what: `a pool whose superblock is damaged (${copy.why})` };
    }
  }
  return found;
}

function firstNonZero(bytes: Uint8Array): number {
  for (let i = 0; i < bytes.byteLength; i++) if (bytes[i] !== 0) return i;
  return -1;
}

/** Says what the ends of a disk hold. */
export function identify(ends: DiskEnds): DiskContent {
  const own = ownPool(ends);
  if (own !== null) return own;
  for (const signature of signatures) {
    if (matches(ends, signature)) return { kind: "foreign", what: signature.what };
  }
  const head = firstNonZero(ends.head);
  if (head >= 0) return { kind: "foreign", what: `unknown data at byte ${head}` };
  const tail = firstNonZero(ends.tail);
  if (tail < 0) return { kind: "blank" };
  const at = ends.deviceBytes - ends.tail.byteLength + tail;
  return { kind: "foreign", what: `unknown data at byte ${at}` };
}

/** Reads the ends of a disk and says what they hold. Throws the device's error. */
export async function probeDisk(device: PoolDevice): Promise<DiskContent> {
  const deviceBytes = bdevBytes(device.bdev);
  const headBytes = Math.min(PROBE_HEAD_BYTES, deviceBytes);
  const tailBytes = Math.min(PROBE_TAIL_BYTES, deviceBytes);
  return identify({
    head: await device.readBytes(0, headBytes),
    tail: await device.readBytes(deviceBytes - tailBytes, tailBytes),
    deviceBytes,
  });
}
