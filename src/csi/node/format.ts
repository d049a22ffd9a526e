/**
 * Gets a device ready to be mounted: makes a file system on a blank one, and only there; looks after
 * one that is there; gives it the UUID it is to have.
 */
import { mkdir, readdir, rmdir } from "node:fs/promises";
import { basename } from "node:path";
import { TrilithError } from "../../errors.ts";
import type { Log } from "../../ops/log.ts";
import { checkGoesOn, commandFailed, type RunCommand } from "./command.ts";
import type { FileSystem } from "./file-systems.ts";
import { clearMark, isMarked, setMark } from "./format-mark.ts";
import { CHECK_LIMIT_MS, FORMAT_LIMIT_MS, MOUNT_LIMIT_MS, UNMOUNT_LIMIT_MS } from "./limits.ts";
import { type Content, foreignContent, probeDevice } from "./signatures.ts";
import { isDeviceFree, runOrFail } from "./system.ts";

export interface PrepareRequest {
  readonly volumeUuid: string;
  readonly device: string;
  readonly sizeBytes: number;
  readonly fileSystem: FileSystem;
  /** UUID that the file system is to have; absent: any. */
  readonly fsId?: string | undefined;
  readonly formatOptions: readonly string[];
  /** Nothing may be written to the device. */
  readonly readOnly: boolean;
  /** Empty folder of this volume, in which it may be mounted for a moment. */
  readonly scratchPath: string;
}

export interface Preparation {
  readonly run: RunCommand;
  readonly log: Log;
  readonly signal: AbortSignal | undefined;
}

const DEVICE_REMEDY =
  "look at the kernel's log for errors of the device and at the volume (`trilith get volumes`)";

/** Makes a file system where nothing is, or where a mark says that making one was cut off. */
async function format(
  request: PrepareRequest,
  isHalfMade: boolean,
  by: Preparation,
): Promise<void> {
  const { volumeUuid, device, sizeBytes, fileSystem, fsId: uuid } = request;
  if (sizeBytes < fileSystem.bytesMin) {
    throw new TrilithError(
      "OutOfRange",
      `${device} has ${sizeBytes} bytes, too few for ${fileSystem.type}`,
      `ask for a volume of at least ${fileSystem.bytesMin} bytes, or for another fsType`,
    );
  }
  const force = isHalfMade;
  const command = fileSystem.mkfs(device, { uuid, force, further: request.formatOptions });
  by.log("info", "volume is formatted", {
    volume: volumeUuid,
    device,
    type: fileSystem.type,
    force,
  });
  checkGoesOn(by.signal, "formatting");
  await setMark(device, sizeBytes, volumeUuid);
  // From here on nothing is given up half way; what is cut off all the same, the mark tells of.
  const options = { limitMs: FORMAT_LIMIT_MS, completes: true } as const;
  await runOrFail(
    by.run,
    command,
    options,
    request.formatOptions.length === 0
      ? DEVICE_REMEDY
      : `look at the class's formatOptions (${request.formatOptions.join(" ")}) and at the kernel's log`,
  );
  // mkfs has written through the page cache, and its own fsync at the end covers what it wrote.
  await clearMark(device, sizeBytes, volumeUuid);
}

/** Lets the file system's own program repair what it may without being asked. */
async function check(request: PrepareRequest, by: Preparation): Promise<void> {
  const { device, fileSystem } = request;
  const command = fileSystem.check?.(device);
  if (command === undefined) return;
  const result = await by.run(command, { limitMs: CHECK_LIMIT_MS, completes: true });
  if (result.status <= fileSystem.checkedStatusMax) {
    if (result.status !== 0)
      by.log("warn", "file system was repaired", { device, said: result.said });
    return;
  }
  throw new TrilithError(
    "Corrupted",
    `the ${fileSystem.type} on ${device} has errors that are not repaired unasked: ${result.said}`,
    fileSystem.repairHint(device),
  );
}

/** Mounts and unmounts once, so that the log is played and empty. */
async function emptyLog(request: PrepareRequest, by: Preparation): Promise<void> {
  const { device, fileSystem, scratchPath } = request;
  const options = fileSystem.mountOptions([]);
  await mkdir(scratchPath, { recursive: true, mode: 0o700 });
  const flags = options.length === 0 ? [] : ["-o", options.join(",")];
  const mount = ["mount", "-t", fileSystem.type, ...flags, device, scratchPath];
  const mounting = { limitMs: MOUNT_LIMIT_MS, completes: true } as const;
  await runOrFail(by.run, mount, mounting, fileSystem.repairHint(device));
  const unmounting = { limitMs: UNMOUNT_LIMIT_MS, completes: true } as const;
  await runOrFail(by.run, ["umount", scratchPath], unmounting, DEVICE_REMEDY);
  await rmdir(scratchPath);
}

async function giveUuid(request: PrepareRequest, uuid: string, by: Preparation): Promise<void> {
  const { device, fileSystem } = request;
  by.log("info", "file system gets the volume's UUID", { device, type: fileSystem.type, uuid });
  if (fileSystem.mountsFirst) await emptyLog(request, by);
  for (const command of fileSystem.changeUuid(device, uuid)) {
    checkGoesOn(by.signal, "changing the file system's UUID");
    const result = await by.run(command, { limitMs: CHECK_LIMIT_MS, completes: true });
    const isCheck = command[0] === "e2fsck";
    const statusMax = isCheck ? fileSystem.checkedStatusMax : 0;
    if (result.status > statusMax) {
      throw commandFailed(command, result, fileSystem.repairHint(device));
    }
  }
  // xfs_db says nothing by its status.
  const content = await probeDevice(by.run, device);
  if (content.kind === "file system" && content.uuid.toLowerCase() === uuid.toLowerCase()) return;
  throw new TrilithError(
    "Internal",
    `the ${fileSystem.type} on ${device} could not be given the UUID ${uuid}`,
    fileSystem.repairHint(device),
  );
}

/** btrfs takes two devices with one UUID for two copies of one, and may write to the wrong one. */
async function refuseTwins(request: PrepareRequest, content: Content): Promise<void> {
  if (request.fileSystem.type !== "btrfs" || content.kind !== "file system") return;
  let mounted: string[];
  try {
    mounted = await readdir(`/sys/fs/btrfs/${content.uuid}/devices`);
  } catch {
    return; // None with this UUID is mounted.
  }
  if (mounted.includes(basename(request.device))) return;
  throw new TrilithError(
    "FailedPrecondition",
    `the btrfs on ${request.device} has the UUID of the one on ${mounted.join(", ")}, as a clone has`,
    "set cloneFsIdAsVolumeId in the StorageClass of clones, or use the two on different nodes",
  );
}

/**
 * Makes a device ready; resolves with whether it was formatted now. What it holds is never overwritten:
 * `ForeignDisk` says what was found. Further errors: `Corrupted` (needs a person), `InUse`,
 * `FailedPrecondition` (program missing, blank and read-only), `OutOfRange` (too small).
 */
export async function prepareDevice(
  request: PrepareRequest,
  by: Preparation,
): Promise<{ readonly formatted: boolean }> {
  const { device, sizeBytes, volumeUuid, fileSystem, fsId } = request;
  const content = await probeDevice(by.run, device, by.signal);
  const isHalfMade = content.kind !== "blank" && (await isMarked(device, sizeBytes, volumeUuid));
  if (content.kind === "blank" || isHalfMade) {
    if (request.readOnly) {
      throw new TrilithError(
        "FailedPrecondition",
        `${device} is blank, and the volume is attached for reading only`,
        "attach it once for writing, so that it can be formatted",
      );
    }
    if (!(await isDeviceFree(device))) {
      throw new TrilithError(
        "InUse",
        `${device} is in use and cannot be formatted`,
        "a mkfs that was begun before may still run: it is tried again",
      );
    }
    await format(request, isHalfMade, by);
    return { formatted: true };
  }
  if (content.kind !== "file system" || content.type !== fileSystem.type) {
    throw foreignContent(device, content, fileSystem.type);
  }
  if (!request.readOnly) {
    await check(request, by);
    if (fsId !== undefined && fsId.toLowerCase() !== content.uuid.toLowerCase()) {
      await giveUuid(request, fsId, by);
      return { formatted: false };
    }
  }
  await refuseTwins(request, content);
  return { formatted: false };
}
