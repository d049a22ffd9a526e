/** Running a program in another root directory, with the process and device file systems only. */
import { type CommandResult, runCommand } from "./executable.ts";

/** True when this process may change its root. */
export const canChangeRoot = process.getuid?.() === 0;

const ENTER = `
  mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" &&
  mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" || exit 99
  root=$1; shift
  exec env -i "$(command -v chroot)" "$root" "$@"`;

/**
 * Runs `command` with `root` as its root, read-only, without environment, in mount and process
 * namespaces of its own. `root` holds the folders `proc` and `dev`.
 */
export function runInRoot(root: string, ...command: string[]): CommandResult {
  return runCommand([
    "unshare",
    "--mount",
    "--pid",
    "--fork",
    "sh",
    "-c",
    ENTER,
    "sh",
    root,
    ...command,
  ]);
}
