/** NodeExpandVolume: the kernel learns the volume's new size, and the file system grows into it. */
import { TrilithError } from "../../errors.ts";
import type { HostAgent } from "../../host/host.ts";
import { isReadOnly, mountsAt } from "../../host/mountinfo.ts";
import { abortedBy } from "./command.ts";
import { knownFileSystem } from "./file-systems.ts";
import { GROW_LIMIT_MS, GROWN_LIMIT_MS, POLL_MS } from "./limits.ts";
import { kindOfPath } from "./mounting.ts";
import { findConnected, type NodeParts } from "./stage.ts";
import { isMountOf, readMounts, runOrFail } from "./system.ts";

export interface ExpandRequest {
  readonly volumeUuid: string;
  readonly volumePath: string;
  /** What the volume is to have at least; 0: whatever it has. */
  readonly requiredBytes: number;
  /** What it may have at most; 0: no limit. */
  readonly limitBytes: number;
}

/** The error for a path where a volume is not. */
export function notAt(volumeUuid: string, path: string): TrilithError {
  return new TrilithError(
    "NotFound",
    `volume ${volumeUuid} is not at ${path} on this node`,
    "it has to be staged and published there first",
  );
}

/** Has the kernel look until the device is as large as asked for. */
async function grownDevice(
  agent: HostAgent,
  request: ExpandRequest,
  knownBytes: number,
  signal: AbortSignal | undefined,
): Promise<number> {
  const { volumeUuid, requiredBytes } = request;
  // The target tells the kernel when a volume grows; then there is nothing to wait for.
  if (requiredBytes > 0 && knownBytes >= requiredBytes) return knownBytes;
  const untilMs = performance.now() + GROWN_LIMIT_MS;
  for (;;) {
    const bytes = await agent.rescan(volumeUuid);
    if (bytes >= requiredBytes) return bytes;
    if (signal?.aborted === true) throw abortedBy(signal, "expanding");
    if (performance.now() > untilMs) {
      throw new TrilithError(
        "FailedPrecondition",
        `the device of volume ${volumeUuid} has ${bytes} bytes, and ${requiredBytes} are asked for`,
        "the volume itself has to be expanded first (ControllerExpandVolume, `trilith resize volume`)",
      );
    }
    await Bun.sleep(POLL_MS);
  }
}

/** Expands; resolves with the device's bytes. A volume that is large enough already stays as it is. */
export async function expandVolume(
  parts: NodeParts,
  request: ExpandRequest,
  signal?: AbortSignal,
): Promise<number> {
  const { volumeUuid, volumePath, limitBytes } = request;
  const volume = await findConnected(parts.agent, volumeUuid);
  const device = volume?.device ?? null;
  if (device === null) throw notAt(volumeUuid, volumePath);
  const [mount] = mountsAt(await readMounts(), volumePath);
  const isMounted = mount !== undefined && (await isMountOf(mount, device));
  const isBlock = parts.records.read(volumeUuid)?.access.kind === "block";
  if (!isMounted && (!isBlock || (await kindOfPath(volumePath)) === null)) {
    throw notAt(volumeUuid, volumePath);
  }
  const bytes = await grownDevice(parts.agent, request, volume?.sizeBytes ?? 0, signal);
  if (limitBytes > 0 && bytes > limitBytes) {
    throw new TrilithError(
      "OutOfRange",
      `volume ${volumeUuid} has ${bytes} bytes, more than the ${limitBytes} that are allowed`,
      "volumes are not made smaller",
    );
  }
  if (!isMounted) return bytes;
  const fileSystem = knownFileSystem(mount.fsType);
  if (fileSystem === undefined) return bytes;
  if (isReadOnly(mount)) {
    throw new TrilithError(
      "FailedPrecondition",
      `the file system of volume ${volumeUuid} at ${volumePath} is read-only and cannot grow`,
      "it grows by itself when it is staged for writing",
    );
  }
  const command = fileSystem.grow(device, volumePath);
  const options = { limitMs: GROW_LIMIT_MS, completes: true } as const;
  await runOrFail(parts.run, command, options, "look at the kernel's log");
  return bytes;
}
