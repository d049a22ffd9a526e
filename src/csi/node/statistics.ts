/** NodeGetVolumeStats: how full a volume is, and whether all is well with it on this node. */
import { statfs } from "node:fs/promises";
import { TrilithError } from "../../errors.ts";
import { blockDeviceNumber } from "../../host/holders.ts";
import { isReadOnlyFileSystem, type Mount, mountsAt } from "../../host/mountinfo.ts";
import { notAt } from "./expand.ts";
import { STATISTICS_LIMIT_MS } from "./limits.ts";
import { findConnected, type NodeParts } from "./stage.ts";
import { isDeviceGone, isMountOf, readMounts } from "./system.ts";

export interface Usage {
  readonly total: bigint;
  readonly used: bigint;
  readonly available: bigint;
}

export interface VolumeStatistics {
  /** Bytes; of a raw block device the total alone counts. Null when the file system does not answer. */
  readonly bytes: Usage | null;
  readonly inodes: Usage | null;
  /** What is wrong; empty when all is well. */
  readonly problem: string;
}

/** Questions to file systems that have not been answered yet, by path: one that hangs is asked once. */
const asked = new Map<string, Promise<FileSystemFigures>>();

interface FileSystemFigures {
  readonly bytes: Usage;
  readonly inodes: Usage;
}

async function readFigures(path: string): Promise<FileSystemFigures> {
  const figures = await statfs(path, { bigint: true });
  const { bsize, blocks, bfree, bavail, files, ffree } = figures;
  return {
    bytes: { total: blocks * bsize, used: (blocks - bfree) * bsize, available: bavail * bsize },
    inodes: { total: files, used: files - ffree, available: ffree },
  };
}

/** The file system's figures; `Timeout` when it does not answer. */
async function figuresOf(path: string): Promise<FileSystemFigures> {
  let answer = asked.get(path);
  if (answer === undefined) {
    answer = readFigures(path).finally(() => asked.delete(path));
    asked.set(path, answer);
  }
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new TrilithError("Timeout", `the file system at ${path} does not answer`)),
      STATISTICS_LIMIT_MS,
    );
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
    // Nobody else may be listening when it fails later.
    answer.catch(() => undefined);
  }
}

async function statisticsOfMount(
  parts: NodeParts,
  volumeUuid: string,
  mount: Mount,
): Promise<VolumeStatistics> {
  const problems: string[] = [];
  const paths = parts.agent.problems().get(volumeUuid);
  if (paths !== undefined) problems.push(paths.message);
  const record = parts.records.read(volumeUuid);
  const isReader =
    record?.readOnly === true ||
    (record?.access.kind === "mount" && record.access.flags.includes("ro"));
  if (await isDeviceGone(mount)) {
    problems.push("the block device is gone: the pod has to be started anew");
  } else if (isReadOnlyFileSystem(mount) && !isReader) {
    problems.push(
      "the file system has become read-only after an error: stop the pod, so that it is checked when it is staged again",
    );
  }
  let figures: FileSystemFigures | null = null;
  try {
    figures = await figuresOf(mount.path);
  } catch (error) {
    problems.push(error instanceof Error ? error.message : String(error));
  }
  return {
    bytes: figures?.bytes ?? null,
    inodes: figures?.inodes ?? null,
    problem: problems.join("; "),
  };
}

/** Figures and condition of a volume at one of its paths; `NotFound` when it is not there. */
export async function volumeStatistics(
  parts: NodeParts,
  volumeUuid: string,
  volumePath: string,
): Promise<VolumeStatistics> {
  const record = parts.records.read(volumeUuid);
  const volume = await findConnected(parts.agent, volumeUuid);
  if (record === null && volume === undefined) throw notAt(volumeUuid, volumePath);
  const device = volume?.device ?? null;
  const [mount] = mountsAt(await readMounts(), volumePath);
  if (mount === undefined) throw notAt(volumeUuid, volumePath);
  if (record?.access.kind !== "block") {
    const isIts = device === null ? await isDeviceGone(mount) : await isMountOf(mount, device);
    if (!isIts && !(await isDeviceGone(mount))) throw notAt(volumeUuid, volumePath);
    return await statisticsOfMount(parts, volumeUuid, mount);
  }
  const isIts =
    device !== null && (await blockDeviceNumber(volumePath)) === (await blockDeviceNumber(device));
  const total = BigInt(volume?.sizeBytes ?? 0);
  const problem = isIts
    ? (parts.agent.problems().get(volumeUuid)?.message ?? "")
    : "the block device is gone: the pod has to be started anew";
  return { bytes: { total, used: 0n, available: 0n }, inodes: null, problem };
}
