/**
 * What a pool asks of its disk apart from I/O: is it still there, and does it answer again after it
 * failed? It does when the pool's superblock can be read
 * from it and written back as it is, durably.
 */
import { TrilithError } from "../../errors.ts";
import type { Bdev } from "../bdev/bdev.ts";
import type { PoolCore } from "./core.ts";
import { PoolDevice } from "./device.ts";
import { readSuperblocks } from "./load.ts";
import { SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS } from "./superblock.ts";

/** `gone`: the device will never answer again; another one may have taken its place. */
export type DiskAnswer = "answers" | "fails" | "gone";

/** Asks the disk behind a device. Nobody else may write to the pool meanwhile. */
export async function diskAnswer(device: PoolDevice, poolUuid: string): Promise<DiskAnswer> {
  try {
    const copies = await readSuperblocks(device);
    const valid = copies.flatMap((copy) => (copy.kind === "valid" ? [copy.superblock] : []));
    if (valid.length === 0 || valid.some(({ uuid }) => uuid !== poolUuid)) return "fails";
    // With one good copy left only reading is tried: a torn write must not cost the last one.
    if (valid.length === copies.length) {
      const [, second] = SUPERBLOCK_OFFSETS;
      await device.writeBytes(second, await device.readBytes(second, SUPERBLOCK_BYTES));
    }
    return "answers";
  } catch (error) {
    if (!(error instanceof TrilithError)) throw error;
    return error.code === "DeviceGone" ? "gone" : "fails";
  }
}

/** Reads the superblock of an open pool; faults it when its disk does not have it. Never rejects. */
export async function checkDisk(core: PoolCore, isClosed: () => boolean): Promise<void> {
  const { uuid } = core.superblock;
  try {
    const copies = await readSuperblocks(core.device);
    if (copies.some((copy) => copy.kind === "valid" && copy.superblock.uuid === uuid)) return;
    const none = new Error("it carries no superblock of this pool any more");
    if (!isClosed()) core.failMetadata(none, `the disk ${core.bdev.name}`);
  } catch (error) {
    if (!(error instanceof TrilithError)) throw error;
    if (!isClosed()) core.failMetadata(error, "the superblock cannot be read");
  }
}

/** As `diskAnswer`, for a device that no pool has open. */
export async function deviceAnswer(bdev: Bdev, poolUuid: string): Promise<DiskAnswer> {
  const device = new PoolDevice(bdev);
  try {
    return await diskAnswer(device, poolUuid);
  } finally {
    device.release();
  }
}
