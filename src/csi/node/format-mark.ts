/**
 * The mark of a file system that is being made. Before mkfs begins, one block near the end of the
 * device says so, durably; it is taken away, durably, before the file system is mounted for the first
 * time. Whatever a device with this mark holds has therefore never been mounted, and may be made anew:
 * a node that loses its power in the middle of mkfs leaves nothing that nobody dares to touch.
 *
 * | offset | bytes | field |
 * |---|---|---|
 * | 0 | 32 | `trilith: mkfs has not ended`, zeroes |
 * | 32 | 36 | UUID of the volume, text |
 * | 68 | 4028 | zeroes |
 *
 * It lies 3 MiB before the end: none of mkfs.ext4, mkfs.xfs and mkfs.btrfs writes there, while all of
 * them wipe the beginning and the end. Should one write over it after all, the only loss is that a
 * file system cut off half way has to be dealt with by hand.
 */
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { TrilithError } from "../../errors.ts";

const BLOCK_BYTES = 4096;
const FROM_END_BYTES = 3 << 20;
/** A smaller device has no place for it, and is not given one. */
const DEVICE_BYTES_MIN = 8 << 20;
const TITLE = "trilith: mkfs has not ended";
const UUID_OFFSET = 32;

/** Where the mark lies on a device of this size; null when it is too small for one. */
export function markOffset(sizeBytes: number): number | null {
  if (sizeBytes < DEVICE_BYTES_MIN) return null;
  return Math.floor((sizeBytes - FROM_END_BYTES) / BLOCK_BYTES) * BLOCK_BYTES;
}

/** The mark's block. */
export function encodeMark(volumeUuid: string): Uint8Array {
  const block = Buffer.alloc(BLOCK_BYTES);
  block.write(TITLE, 0, "latin1");
  block.write(volumeUuid, UUID_OFFSET, "latin1");
  return block;
}

async function withDevice<T>(
  device: string,
  flags: number,
  action: (handle: FileHandle) => Promise<T>,
): Promise<T> {
  const handle = await open(device, flags);
  try {
    return await action(handle);
  } finally {
    await handle.close();
  }
}

async function write(device: string, block: Uint8Array, offset: number): Promise<void> {
  await withDevice(device, constants.O_RDWR, async (handle) => {
    const { bytesWritten } = await handle.write(block, 0, block.length, offset);
    if (bytesWritten !== block.length) {
      throw new TrilithError(
        "DeviceIo",
        `${device}: only ${bytesWritten} of ${block.length} bytes could be written`,
        "look at the kernel's log for errors of the device",
      );
    }
    await handle.sync();
  });
}

/** True when the device says that a file system for this volume was begun and never mounted. */
export async function isMarked(
  device: string,
  sizeBytes: number,
  volumeUuid: string,
): Promise<boolean> {
  const offset = markOffset(sizeBytes);
  if (offset === null) return false;
  const found = await withDevice(device, constants.O_RDONLY, async (handle) => {
    const block = Buffer.alloc(BLOCK_BYTES);
    const { bytesRead } = await handle.read(block, 0, BLOCK_BYTES, offset);
    return block.subarray(0, bytesRead);
  });
  return found.equals(encodeMark(volumeUuid));
}

/** Writes the mark; it is on the disk when this resolves. */
export async function setMark(
  device: string,
  sizeBytes: number,
  volumeUuid: string,
): Promise<void> {
  const offset = markOffset(sizeBytes);
  if (offset !== null) await write(device, encodeMark(volumeUuid), offset);
}

/** Takes the mark away, where it still is; that is on the disk when this resolves. */
export async function clearMark(
  device: string,
  sizeBytes: number,
  volumeUuid: string,
): Promise<void> {
  const offset = markOffset(sizeBytes);
  if (offset === null || !(await isMarked(device, sizeBytes, volumeUuid))) return;
  await write(device, new Uint8Array(BLOCK_BYTES), offset);
}
