/**
 * Runs the system's programs: with a limit of time, with what they say in the error, and without
 * leaving anything behind that is half done.
 *
 * A command is either *interruptible*, and ends when the caller gives up, or it goes on to its end (or
 * its limit) and the caller is told afterwards: mkfs, a repair, a change of UUID. In both cases nothing
 * is returned or thrown before the process has ended, because whoever comes next must not meet it. A
 * process that waits for a device in the kernel cannot be killed; the call waits with it.
 */
import { TrilithError } from "../../errors.ts";
import { OUTPUT_BYTES_MAX, SAID_CHARS_MAX } from "./limits.ts";

export interface CommandOptions {
  readonly limitMs: number;
  /** The caller's: what is interruptible ends with it. */
  readonly signal?: AbortSignal | undefined;
  /** It goes on when the caller gives up. */
  readonly completes?: true;
}

export interface CommandResult {
  /** Exit status; 128 + number for one that a signal ended. */
  readonly status: number;
  readonly stdout: string;
  /** What it said on standard error, else on standard output; shortened. */
  readonly said: string;
}

export type RunCommand = (
  command: readonly string[],
  options: CommandOptions,
) => Promise<CommandResult>;

/** Where administrators' programs lie, whatever PATH a service was started with. */
const SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** Debian's package of each program that may be missing. */
const packages: Readonly<Record<string, string>> = {
  blkid: "util-linux",
  blockdev: "util-linux",
  mount: "mount",
  umount: "mount",
  sync: "coreutils",
  "mkfs.ext4": "e2fsprogs",
  e2fsck: "e2fsprogs",
  resize2fs: "e2fsprogs",
  tune2fs: "e2fsprogs",
  "mkfs.xfs": "xfsprogs",
  xfs_growfs: "xfsprogs",
  xfs_db: "xfsprogs",
  "mkfs.btrfs": "btrfs-progs",
  btrfs: "btrfs-progs",
  btrfstune: "btrfs-progs",
};

/** Full path of a program; `FailedPrecondition` says which package has it. */
function programPath(name: string): string {
  const path = Bun.which(name, { PATH: `${process.env.PATH ?? ""}:${SEARCH}` });
  if (path !== null) return path;
  throw new TrilithError(
    "FailedPrecondition",
    `this node has no program ${name}`,
    `install it (Debian: apt-get install ${packages[name] ?? name}) and try again`,
  );
}

function shortened(text: string): string {
  const line = text.trim().replace(/\s*\n\s*/g, "; ");
  return line.length <= SAID_CHARS_MAX ? line : `...${line.slice(-SAID_CHARS_MAX)}`;
}

/** Reads to the end, and keeps the first part. */
async function readText(stream: ReadableStream<Uint8Array>): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const bytes of stream) {
    if (text.length < OUTPUT_BYTES_MAX) text += decoder.decode(bytes, { stream: true });
  }
  return text;
}

/** An error for a caller that has given up. */
export function abortedBy(signal: AbortSignal | undefined, what: string): TrilithError {
  const reason = signal?.reason;
  if (reason instanceof TrilithError) return reason;
  return new TrilithError(
    "Aborted",
    `${what}: the caller has given up`,
    "it is tried again; what was done so far is kept",
  );
}

/** Throws when the caller has given up: called between two steps, never in one. */
export function checkGoesOn(signal: AbortSignal | undefined, what: string): void {
  if (signal?.aborted === true) throw abortedBy(signal, what);
}

/**
 * Runs a program to its end. A status other than 0 is a result, not an error. Errors:
 * `FailedPrecondition` (no such program), `Timeout` (killed at its limit), `Aborted` (by the signal).
 */
export const runCommand: RunCommand = async (command, options) => {
  const name = command[0]!;
  const { signal, limitMs } = options;
  checkGoesOn(signal, name);
  const child = Bun.spawn([programPath(name), ...command.slice(1)], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, PATH: `${process.env.PATH ?? ""}:${SEARCH}`, LC_ALL: "C" },
  });
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    child.kill("SIGKILL");
  }, limitMs);
  const giveUp = () => child.kill("SIGKILL");
  const interruptible = options.completes !== true;
  if (interruptible) signal?.addEventListener("abort", giveUp);
  try {
    const [stdout, stderr] = await Promise.all([readText(child.stdout), readText(child.stderr)]);
    const status = await child.exited;
    const said = shortened(stderr.trim() === "" ? stdout : stderr);
    if (late) {
      throw new TrilithError(
        "Timeout",
        `${name} did not end within ${limitMs / 1000} s${said === "" ? "" : `: ${said}`}`,
        "look whether the volume's target answers (`trilith get volumes`) and at the kernel's log",
      );
    }
    if (interruptible && signal?.aborted === true && child.signalCode !== null) {
      throw abortedBy(signal, name);
    }
    return { status, stdout, said };
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", giveUp);
  }
};

/** The error of a command that failed. */
export function commandFailed(
  command: readonly string[],
  result: CommandResult,
  remedy: string,
): TrilithError {
  const said = result.said === "" ? `status ${result.status}` : result.said;
  return new TrilithError("Internal", `${command.join(" ")}: ${said}`, remedy);
}
