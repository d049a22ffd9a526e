/** Type, label and UUID of the file system on a device, from its first bytes. Pure. */

export interface FoundFilesystem {
  readonly fstype: string;
  readonly label: string;
  readonly uuid: string;
}

function ascii(bytes: Uint8Array, at: number, length: number): string {
  const end = bytes.indexOf(0, at);
  const stop = end >= at && end < at + length ? end : at + length;
  return new TextDecoder().decode(bytes.subarray(at, stop));
}

function uuidAt(bytes: Uint8Array, at: number): string {
  const hex = Buffer.from(bytes.subarray(at, at + 16)).toString("hex");
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    hex.slice(12, 16),
    hex.slice(16, 20),
    hex.slice(20),
  ].join("-");
}

/** ext2..4 superblock at 1024: s_magic at 0x38, features at 0x5c.., s_uuid 0x68, s_volume_name 0x78. */
function readExt(head: Uint8Array): FoundFilesystem | null {
  const at = 1024;
  if (head[at + 0x38] !== 0x53 || head[at + 0x39] !== 0xef) return null;
  const view = new DataView(head.buffer, head.byteOffset + at, 1024);
  const compat = view.getUint32(0x5c, true);
  const incompat = view.getUint32(0x60, true);
  const HAS_JOURNAL = 4;
  const EXTENTS_64BIT_FLEX = 0x40 | 0x80 | 0x200;
  const fstype =
    (incompat & EXTENTS_64BIT_FLEX) !== 0 ? "ext4" : (compat & HAS_JOURNAL) !== 0 ? "ext3" : "ext2";
  return { fstype, label: ascii(head, at + 0x78, 16), uuid: uuidAt(head, at + 0x68) };
}

/** XFS superblock at 0: magic "XFSB", sb_uuid at 32, sb_fname at 108. */
function readXfs(head: Uint8Array): FoundFilesystem | null {
  if (ascii(head, 0, 4) !== "XFSB") return null;
  return { fstype: "xfs", label: ascii(head, 108, 12), uuid: uuidAt(head, 32) };
}

/** btrfs superblock at 64 KiB: fsid at 0x20, magic at 0x40, label at 0x12b. */
function readBtrfs(head: Uint8Array): FoundFilesystem | null {
  const at = 0x10000;
  if (ascii(head, at + 0x40, 8) !== "_BHRfS_M") return null;
  return { fstype: "btrfs", label: ascii(head, at + 0x12b, 256), uuid: uuidAt(head, at + 0x20) };
}

/** Swap header at 1024, its magic at the end of the first page: uuid at 1036, label at 1052. */
function readSwap(head: Uint8Array): FoundFilesystem | null {
  if (ascii(head, 4086, 10) !== "SWAPSPACE2") return null;
  return { fstype: "swap", label: ascii(head, 1052, 16), uuid: uuidAt(head, 1036) };
}

/** What `head`, the first 68 KiB or more of a device, says; null when it is none of the known ones. */
export function readFilesystem(head: Uint8Array): FoundFilesystem | null {
  if (head.byteLength < 0x10000 + 0x1000) return null;
  return readExt(head) ?? readXfs(head) ?? readBtrfs(head) ?? readSwap(head);
}
