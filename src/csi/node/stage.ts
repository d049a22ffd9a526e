/**
 * NodeStageVolume and NodeUnstageVolume: a volume is connected, made ready and mounted for this node,
 * and taken away again once nobody uses it. Every step looks at what is there, so that a call that was
 * cut off anywhere is finished by repeating it.
 */
import { TrilithError } from "../../errors.ts";
import { blockDeviceNumber } from "../../host/holders.ts";
import type { ConnectedVolume, ConnectRequest, HostAgent } from "../../host/host.ts";
import { isReadOnly, type Mount, mountsAt } from "../../host/mountinfo.ts";
import type { Log } from "../../ops/log.ts";
import { checkGoesOn, type RunCommand } from "./command.ts";
import { type FileSystem, fileSystemOf } from "./file-systems.ts";
import { prepareDevice } from "./format.ts";
import { GROW_LIMIT_MS, POLL_MS, RELEASE_LIMIT_MS } from "./limits.ts";
import { busyError, makeTarget, mountDevice, unmountAll } from "./mounting.ts";
import { type Access, isSameAccess, type StageRecord, type StageRecords } from "./records.ts";
import {
  bindsOf,
  isDeviceFree,
  isDeviceGone,
  isMountOf,
  mountsOf,
  readMounts,
  runOrFail,
} from "./system.ts";

/** What staging and publishing stand on. */
export interface NodeParts {
  readonly agent: HostAgent;
  readonly run: RunCommand;
  readonly records: StageRecords;
  readonly log: Log;
}

export interface StageRequest {
  readonly connect: ConnectRequest;
  readonly stagingPath: string;
  readonly access: Access;
  /** Nothing is written on this node; other nodes may read at the same time. */
  readonly readOnly: boolean;
  readonly fsId?: string | undefined;
  readonly formatOptions: readonly string[];
}

/** A volume that is connected, with its device. */
interface Attached {
  readonly device: string;
  readonly sizeBytes: number;
}

function conflict(volumeUuid: string, what: string): TrilithError {
  return new TrilithError(
    "Conflict",
    `volume ${volumeUuid} ${what}`,
    "it has to be unstaged on this node before it can be used in another way",
  );
}

function describe(access: Access): string {
  return access.kind === "block" ? "a raw block device" : `${access.fsType} [${access.flags}]`;
}

/** Refuses what contradicts an earlier stage; true when that stage is complete as far as is recorded. */
function isStagedAlready(request: StageRequest, record: StageRecord | null): boolean {
  if (record === null) return false;
  const { volumeUuid } = request.connect;
  if (record.stagingPath !== request.stagingPath) {
    throw conflict(volumeUuid, `is staged at ${record.stagingPath} on this node`);
  }
  if (!isSameAccess(record.access, request.access) || record.readOnly !== request.readOnly) {
    throw conflict(
      volumeUuid,
      `is staged at ${record.stagingPath} as ${describe(record.access)}${record.readOnly ? ", read-only" : ""}, which is not what is asked for`,
    );
  }
  return true;
}

function deviceOf(volume: ConnectedVolume): Attached {
  const { device, sizeBytes } = volume;
  if (device !== null && sizeBytes !== null) return { device, sizeBytes };
  throw new TrilithError(
    "Unavailable",
    `the kernel shows no block device of volume ${volume.volumeUuid} yet`,
    "it is tried again; if this goes on, look at the volume's target (`trilith get volumes`)",
  );
}

/** Mount options of a stage: the caller's, and the file system's own. */
function stageOptions(
  fileSystem: FileSystem,
  flags: readonly string[],
  readOnly: boolean,
): string[] {
  const options = [...flags, ...fileSystem.mountOptions(flags)];
  if (readOnly) options.push("ro", ...fileSystem.untouched);
  return [...new Set(options)];
}

async function mountStage(
  parts: NodeParts,
  request: StageRequest,
  attached: Attached,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { access, stagingPath, readOnly, connect } = request;
  if (access.kind === "block") return;
  const { device } = attached;
  const fileSystem = fileSystemOf(access.fsType);
  const isReader = readOnly || access.flags.includes("ro");
  const { run, log } = parts;
  const { formatted } = await prepareDevice(
    {
      volumeUuid: connect.volumeUuid,
      ...attached,
      fileSystem,
      fsId: request.fsId,
      formatOptions: request.formatOptions,
      readOnly: isReader,
      scratchPath: parts.records.scratchPath(connect.volumeUuid),
    },
    { run, log, signal },
  );
  checkGoesOn(signal, "staging");
  await mountDevice(run, {
    device,
    path: stagingPath,
    fsType: fileSystem.type,
    options: stageOptions(fileSystem, access.flags, readOnly),
    remedy: fileSystem.repairHint(device),
  });
  if (formatted || isReader) return;
  // The volume may have grown, or be a clone larger than its source, since it was last mounted.
  const grow = fileSystem.grow(device, stagingPath);
  await runOrFail(
    run,
    grow,
    { limitMs: GROW_LIMIT_MS, completes: true },
    "look at the kernel's log",
  );
}

/** What is mounted at the staging path already: this volume as asked for, nothing, or an error. */
async function findStageMount(
  parts: NodeParts,
  request: StageRequest,
  device: string,
): Promise<Mount | null> {
  const { stagingPath, access, connect, readOnly } = request;
  const [top] = mountsAt(await readMounts(), stagingPath);
  if (top === undefined) return null;
  if (!(await isMountOf(top, device))) {
    if (!(await isDeviceGone(top))) {
      throw conflict(
        connect.volumeUuid,
        `cannot be staged at ${stagingPath}: ${top.source} is mounted there`,
      );
    }
    parts.log("warn", "a mount whose device is gone is taken away", { path: stagingPath });
    await unmountAll(parts.run, stagingPath, { writesOut: false });
    return null;
  }
  if (access.kind === "block") {
    throw conflict(
      connect.volumeUuid,
      `is mounted at ${stagingPath}, and a raw block device is asked for`,
    );
  }
  const wanted = fileSystemOf(access.fsType).type;
  const isReader = readOnly || access.flags.includes("ro");
  // An ext4 that met an error is read-only by itself: that is told by the volume's condition.
  if (top.fsType !== wanted || (isReader && !isReadOnly(top))) {
    throw conflict(
      connect.volumeUuid,
      `is mounted at ${stagingPath} as ${top.fsType}, which is not what is asked for`,
    );
  }
  return top;
}

async function stageConnected(
  parts: NodeParts,
  request: StageRequest,
  attached: Attached,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { stagingPath, access, connect, readOnly } = request;
  const mounted = await findStageMount(parts, request, attached.device);
  if (mounted === null && access.kind === "mount") {
    const [elsewhere] = await mountsOf(await readMounts(), attached.device);
    if (elsewhere !== undefined) {
      throw conflict(connect.volumeUuid, `is mounted at ${elsewhere.path} on this node`);
    }
    await makeTarget(stagingPath, "folder");
    await mountStage(parts, request, attached, signal);
  }
  const former = parts.records.read(connect.volumeUuid);
  parts.records.write({
    volumeUuid: connect.volumeUuid,
    stagingPath,
    access,
    readOnly,
    publications: former?.publications ?? [],
  });
}

/** After these the caller comes back to go on: what was done so far is worth keeping. */
const continuing: ReadonlySet<unknown> = new Set(["Aborted", "Timeout", "Unavailable"]);

/** True when nothing on this machine uses the volume's device. */
async function isUnused(parts: NodeParts, volumeUuid: string, device: string): Promise<boolean> {
  if (parts.records.read(volumeUuid) !== null) return false;
  const mounts = await readMounts();
  return (await mountsOf(mounts, device)).length + bindsOf(mounts, device).length === 0;
}

/** The connected volume as the kernel has it now, or undefined. */
export async function findConnected(
  agent: HostAgent,
  volumeUuid: string,
): Promise<ConnectedVolume | undefined> {
  return (await agent.list()).find((volume) => volume.volumeUuid === volumeUuid);
}

/**
 * Stages a volume. Errors: those of `HostAgent.connect` and `prepareDevice`; `Conflict` when it is
 * staged in another way. An error that repeating cannot mend leaves no connection behind.
 */
export async function stageVolume(
  parts: NodeParts,
  request: StageRequest,
  signal?: AbortSignal,
): Promise<void> {
  const { volumeUuid } = request.connect;
  if (request.access.kind === "mount") fileSystemOf(request.access.fsType);
  const isRepeated = isStagedAlready(request, parts.records.read(volumeUuid));
  const attached = deviceOf(await parts.agent.connect(request.connect, signal));
  try {
    await stageConnected(parts, request, attached, signal);
  } catch (error) {
    const code = error instanceof TrilithError ? error.code : "Internal";
    if (
      !isRepeated &&
      !continuing.has(code) &&
      (await isUnused(parts, volumeUuid, attached.device))
    ) {
      await parts.agent.disconnect(volumeUuid).catch((failure: unknown) => {
        parts.log("warn", "a volume that could not be staged stays connected", {
          volume: volumeUuid,
          error: failure,
        });
      });
    }
    throw error;
  }
}

/** Waits until nobody holds the device; a file system is let go of some time after its unmount. */
async function waitUntilFree(device: string): Promise<boolean> {
  const untilMs = performance.now() + RELEASE_LIMIT_MS;
  while (!(await isDeviceFree(device))) {
    if (performance.now() > untilMs) return false;
    await Bun.sleep(POLL_MS);
  }
  return true;
}

/**
 * Takes a volume away from this node: written out, unmounted, disconnected, in this order, each only
 * after the one before has succeeded. Not staged is no error. `InUse` says who uses it still.
 */
export async function unstageVolume(
  parts: NodeParts,
  volumeUuid: string,
  stagingPath: string,
): Promise<void> {
  const volume = await findConnected(parts.agent, volumeUuid);
  const device = volume?.device ?? null;
  const number = device === null ? null : await blockDeviceNumber(device);
  if (device !== null && number !== null) {
    const mounts = await readMounts();
    const uses = [...(await mountsOf(mounts, device)), ...bindsOf(mounts, device)];
    const others = uses.filter((mount) => mount.path !== stagingPath);
    if (others.length > 0) {
      throw new TrilithError(
        "InUse",
        `volume ${volumeUuid} is mounted at ${others.map(({ path }) => path).join(", ")}`,
        "it has to be unpublished there before it can be unstaged",
      );
    }
  }
  await unmountAll(parts.run, stagingPath, { writesOut: true });
  if (device !== null && number !== null && !(await waitUntilFree(device))) {
    throw await busyError(`${device} of volume ${volumeUuid}`, { mounted: number, device: number });
  }
  await parts.agent.disconnect(volumeUuid);
  parts.records.remove(volumeUuid);
}
