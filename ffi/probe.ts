/** Says in words why io_uring does not work here, and what to do about it. */
import { readFileSync } from "node:fs";
import { release } from "node:os";
import { Errno, NativeError } from "./errno.ts";

/** Oldest kernel with everything the reactor uses (DEFER_TASKRUN came with 6.1). */
export const KERNEL_MIN = "6.1";

function readSetting(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return undefined; // An older kernel without the setting.
  }
}

function reason(errno: number): string {
  const disabled = readSetting("/proc/sys/kernel/io_uring_disabled");
  switch (errno) {
    case Errno.EPERM:
      if (disabled === "2") {
        return "io_uring is switched off: run `sysctl kernel.io_uring_disabled=0`";
      }
      if (disabled === "1") {
        return (
          "io_uring is limited to privileged processes: run as root, or as a member of the " +
          "group in kernel.io_uring_group, or `sysctl kernel.io_uring_disabled=0`"
        );
      }
      return (
        "io_uring is blocked, most likely by a seccomp profile (a container's default profile " +
        "does that): allow io_uring_setup, io_uring_enter and io_uring_register"
      );
    case Errno.ENOSYS:
      return `this kernel (${release()}) has no io_uring: ${KERNEL_MIN} or newer is needed`;
    case Errno.EINVAL:
      return (
        `this kernel (${release()}) lacks io_uring features: ` + `${KERNEL_MIN} or newer is needed`
      );
    case Errno.ENOMEM:
      return (
        "not enough lockable memory for the ring: raise RLIMIT_MEMLOCK " +
        "(`LimitMEMLOCK=infinity` in the unit, `ulimit -l unlimited` in a shell)"
      );
    case Errno.EMFILE:
    case Errno.ENFILE:
      return "no file descriptor left for the ring: raise RLIMIT_NOFILE";
    default:
      return "the kernel refused to make a ring";
  }
}

/** The error of a failed `io_uring_setup`, with cause and remedy in its message. */
export function explainSetupFailure(errno: number): NativeError {
  return new NativeError("io_uring_setup", errno, `(${reason(errno)})`);
}
