/**
 * NodePublishVolume and NodeUnpublishVolume: a staged volume appears at the path of a pod, as a bind
 * mount of the staged file system, or of the device node onto a file.
 */
import { TrilithError } from "../../errors.ts";
import { blockDeviceNumber } from "../../host/holders.ts";
import { isReadOnly, type Mount, mountsAt } from "../../host/mountinfo.ts";
import { QUICK_LIMIT_MS } from "./limits.ts";
import { bindMount, makeReadOnly, makeTarget, removeTarget, unmountAll } from "./mounting.ts";
import { type Access, isSameAccess, type StageRecord } from "./records.ts";
import { findConnected, type NodeParts } from "./stage.ts";
import { isMountOf, mountsOf, readMounts, runOrFail } from "./system.ts";

export interface PublishRequest {
  readonly volumeUuid: string;
  readonly stagingPath: string;
  readonly targetPath: string;
  readonly access: Access;
  readonly readOnly: boolean;
}

function notStaged({ volumeUuid, stagingPath }: PublishRequest): TrilithError {
  return new TrilithError(
    "FailedPrecondition",
    `volume ${volumeUuid} is not staged at ${stagingPath}`,
    "NodeStageVolume comes first; after a reboot the kubelet calls it again by itself",
  );
}

function conflict({ volumeUuid, targetPath }: PublishRequest, what: string): TrilithError {
  return new TrilithError(
    "Conflict",
    `volume ${volumeUuid} at ${targetPath}: ${what}`,
    "it has to be unpublished there before it can be published in another way",
  );
}

/** The stage that is published, with its mount when it has one. */
async function findStage(
  parts: NodeParts,
  request: PublishRequest,
): Promise<{ readonly record: StageRecord; readonly mount: Mount | null }> {
  const { volumeUuid, stagingPath, access } = request;
  const record = parts.records.read(volumeUuid) ?? (await recordOfMount(parts, request));
  if (record === null || record.stagingPath !== stagingPath) throw notStaged(request);
  if (!isSameAccess(record.access, access)) {
    throw conflict(request, "it is staged in another way than is asked for here");
  }
  const [mount] = mountsAt(await readMounts(), stagingPath);
  if (access.kind === "mount" && mount === undefined) throw notStaged(request);
  return { record, mount: mount ?? null };
}

/**
 * The record that a stage would have left, from what is mounted and connected: a driver in a container may
 * have lost its own while mounts and connections stayed. Null when that is not what is asked for.
 */
async function recordOfMount(
  parts: NodeParts,
  { volumeUuid, stagingPath, access }: PublishRequest,
): Promise<StageRecord | null> {
  const device = (await findConnected(parts.agent, volumeUuid))?.device ?? null;
  if (device === null) return null;
  const mounts = await readMounts();
  const [mount] = mountsAt(mounts, stagingPath);
  const isStaged =
    access.kind === "mount"
      ? mount !== undefined && mount.fsType === access.fsType && (await isMountOf(mount, device))
      : (await mountsOf(mounts, device)).length === 0;
  if (!isStaged) return null;
  return { volumeUuid, stagingPath, access, readOnly: false, publications: [] };
}

/** Keeps in mind that a publication is complete. */
function remember(parts: NodeParts, record: StageRecord, request: PublishRequest): void {
  const { targetPath, readOnly } = request;
  const others = record.publications.filter((one) => one.targetPath !== targetPath);
  parts.records.write({ ...record, publications: [...others, { targetPath, readOnly }] });
}

async function publishMount(
  parts: NodeParts,
  request: PublishRequest,
  record: StageRecord,
  stage: Mount,
): Promise<void> {
  const { targetPath, stagingPath } = request;
  const readOnly = request.readOnly || isReadOnly(stage);
  let [there] = mountsAt(await readMounts(), targetPath);
  if (there !== undefined && there.device !== stage.device) {
    throw conflict(request, `${there.source} is mounted there`);
  }
  if (there === undefined) {
    await makeTarget(targetPath, "folder");
    await bindMount(parts.run, stagingPath, targetPath);
    [there] = mountsAt(await readMounts(), targetPath);
  } else {
    const complete = record.publications.find((one) => one.targetPath === targetPath);
    // A call for reading only that was cut off has left it writable, and is finished here.
    const differs = complete !== undefined && complete.readOnly !== request.readOnly;
    if (differs || (isReadOnly(there) && !readOnly)) {
      throw conflict(request, `it is published ${isReadOnly(there) ? "read-only" : "writable"}`);
    }
  }
  if (readOnly && there !== undefined && !isReadOnly(there)) {
    await makeReadOnly(parts.run, targetPath);
  }
}

async function publishBlock(
  parts: NodeParts,
  request: PublishRequest,
  record: StageRecord,
): Promise<void> {
  const { targetPath, volumeUuid, readOnly } = request;
  const device = (await findConnected(parts.agent, volumeUuid))?.device ?? null;
  const number = device === null ? null : await blockDeviceNumber(device);
  if (device === null || number === null) throw notStaged(request);
  const others = record.publications.filter((one) => one.targetPath !== targetPath);
  if (others.some((one) => one.readOnly !== readOnly)) {
    throw conflict(request, "the device is published elsewhere on this node for other access");
  }
  const complete = record.publications.find((one) => one.targetPath === targetPath);
  if (complete !== undefined && complete.readOnly !== readOnly) {
    throw conflict(request, `it is published ${complete.readOnly ? "read-only" : "writable"}`);
  }
  const [there] = mountsAt(await readMounts(), targetPath);
  if (there !== undefined && (await blockDeviceNumber(targetPath)) !== number) {
    throw conflict(request, `${there.source}${there.root} is mounted there`);
  }
  await setReadOnly(parts, device, readOnly || record.readOnly);
  if (there !== undefined) return;
  await makeTarget(targetPath, "file");
  await bindMount(parts.run, device, targetPath);
}

/**
 * Publishes. `FailedPrecondition`: it is not staged; `Conflict`: it is published there in another way,
 * or something else is mounted there.
 */
export async function publishVolume(parts: NodeParts, request: PublishRequest): Promise<void> {
  const { record, mount } = await findStage(parts, request);
  if (request.access.kind === "block") await publishBlock(parts, request, record);
  else if (mount !== null) await publishMount(parts, request, record, mount);
  remember(parts, record, request);
}

/** Takes a volume away from a pod's path. Not published is no error; `InUse` says who uses it. */
export async function unpublishVolume(
  parts: NodeParts,
  volumeUuid: string | null,
  targetPath: string,
): Promise<void> {
  // The staged mount stays, so that nothing has to be written out here.
  await unmountAll(parts.run, targetPath, { writesOut: false });
  await removeTarget(targetPath);
  const record = volumeUuid === null ? null : parts.records.read(volumeUuid);
  if (record === null) return;
  const publications = record.publications.filter((one) => one.targetPath !== targetPath);
  if (publications.length === record.publications.length) return;
  if (record.access.kind === "block" && publications.length === 0)
    await makeWritable(parts, record);
  parts.records.write({ ...record, publications });
}

/** The device takes writes again once nobody is to read it only. */
async function makeWritable(parts: NodeParts, { volumeUuid }: StageRecord): Promise<void> {
  const device = (await findConnected(parts.agent, volumeUuid))?.device ?? null;
  if (device !== null) await setReadOnly(parts, device, false);
}

/** A device node cannot be made read-only by its mount: the device itself is. */
async function setReadOnly(parts: NodeParts, device: string, readOnly: boolean): Promise<void> {
  const command = ["blockdev", readOnly ? "--setro" : "--setrw", device];
  const options = { limitMs: QUICK_LIMIT_MS, completes: true } as const;
  await runOrFail(parts.run, command, options, "look at the kernel's log");
}
