/**
 * What a host is to be connected to, kept across restarts of the agent: a JSON file that is replaced whole.
 * Several processes change it (the agent, `trilith host`, the CSI node service), each under a lock.
 */
import { mkdirSync, readFileSync, statSync } from "node:fs";
import { dirname } from "node:path";
import * as v from "valibot";
import { Errno, NativeError } from "../../ffi/errno.ts";
import { closeFd, OpenFlag, openFd, tryLockFd } from "../../ffi/libc.ts";
import { TrilithError } from "../errors.ts";
import { writeFileWhole } from "../ops/durable-file.ts";
import { STATE_BYTES_MAX, STATE_LOCK_MS, WAIT_POLL_MS } from "./limits.ts";

export const STATE_FILE_DEFAULT = "/var/lib/trilith/host.json";

const Whole = v.pipe(v.number(), v.integer());
const Options = v.strictObject({
  ctrlLossTmoSeconds: v.exactOptional(Whole),
  reconnectDelaySeconds: v.exactOptional(Whole),
  keepAliveTmoSeconds: v.exactOptional(Whole),
  fastIoFailTmoSeconds: v.exactOptional(Whole),
  ioQueues: v.exactOptional(Whole),
  queueDepth: v.exactOptional(Whole),
  headerDigest: v.exactOptional(v.boolean()),
  dataDigest: v.exactOptional(v.boolean()),
});
const Wanted = v.strictObject({
  volumeUuid: v.pipe(v.string(), v.uuid()),
  nqn: v.pipe(v.string(), v.nonEmpty()),
  hostNqn: v.pipe(v.string(), v.nonEmpty()),
  options: Options,
  /** The last known; the cluster is asked for newer ones. */
  paths: v.array(v.strictObject({ address: v.string(), port: Whole })),
});
const State = v.strictObject({ version: v.literal(1), volumes: v.array(Wanted) });

/** A volume that is to stay connected. */
export type WantedVolume = v.InferOutput<typeof Wanted>;
export interface HostState {
  readonly volumes: readonly WantedVolume[];
}

const MODE = 0o600;

/** Reads the file; without it nothing is wanted. `Corrupted` when somebody has put something else there. */
export function readState(path: string): HostState {
  const size = statSync(path, { throwIfNoEntry: false })?.size;
  if (size === undefined) return { volumes: [] };
  try {
    if (size > STATE_BYTES_MAX) throw new Error(`it has ${size} bytes`);
    const { volumes } = v.parse(State, JSON.parse(readFileSync(path, "utf8")));
    return { volumes };
  } catch (error) {
    throw new TrilithError(
      "Corrupted",
      `the host's state file ${path} cannot be understood: ${(error as Error).message}`,
      `move it away; connections stay, and \`trilith host connect\` takes volumes into a new one`,
    );
  }
}

/** Opens a lock file. `PermissionDenied` when this user may not. */
function openLock(path: string): number {
  try {
    return openFd(path, OpenFlag.RDWR | OpenFlag.CREAT, MODE);
  } catch (error) {
    const errno = error instanceof NativeError ? error.errno : 0;
    if (errno !== Errno.EACCES && errno !== Errno.EROFS) throw error;
    throw new TrilithError("PermissionDenied", `${path} cannot be written`, "run it as root");
  }
}

function lockedFd(path: string): number | null {
  const fd = openLock(path);
  if (tryLockFd(fd)) return fd;
  closeFd(fd);
  return null;
}

/** Changes the file; others who do wait meanwhile. Returns what stands in it now. */
export async function changeState(
  path: string,
  change: (volumes: readonly WantedVolume[]) => readonly WantedVolume[],
): Promise<HostState> {
  mkdirSync(dirname(path), { recursive: true });
  const untilMs = performance.now() + STATE_LOCK_MS;
  let lock = lockedFd(`${path}.lock`);
  while (lock === null) {
    if (performance.now() > untilMs) {
      throw new TrilithError(
        "Timeout",
        `another process holds ${path}.lock`,
        `fuser -v ${path}.lock`,
      );
    }
    await Bun.sleep(WAIT_POLL_MS);
    lock = lockedFd(`${path}.lock`);
  }
  try {
    const former = readState(path);
    const volumes = [...change(former.volumes)];
    const text = `${JSON.stringify({ version: 1, volumes }, null, 2)}\n`;
    writeFileWhole(path, text, MODE);
    return { volumes };
  } finally {
    closeFd(lock);
  }
}

/**
 * The right to keep the file's connections, which one process has at a time; null while another has it.
 * The kernel takes it back however the process ends.
 */
export function takeKeeping(path: string): (() => void) | null {
  mkdirSync(dirname(path), { recursive: true });
  const fd = lockedFd(`${path}.keeper`);
  return fd === null ? null : () => closeFd(fd);
}
