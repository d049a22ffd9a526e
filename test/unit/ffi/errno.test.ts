import { describe, expect, test } from "bun:test";
import { constants } from "node:os";
import { Errno, errnoName, explainSetupFailure, NativeError } from "../../../ffi/index.ts";

describe("errno", () => {
  test("values are this platform's", () => {
    const platform = constants.errno as unknown as Record<string, number | undefined>;
    let compared = 0;
    for (const [name, value] of Object.entries(Errno)) {
      const known = platform[name];
      if (known === undefined) continue;
      expect(`${name}=${value}`).toBe(`${name}=${known}`);
      compared++;
    }
    expect(compared).toBeGreaterThan(30);
  });

  test("has a name whatever its sign, and a number when it is unknown", () => {
    expect(errnoName(28)).toBe("ENOSPC");
    expect(errnoName(-28)).toBe("ENOSPC");
    expect(errnoName(4000)).toBe("errno 4000");
  });

  test("a failed call says which call, what about, and why", () => {
    const error = new NativeError("open", -2, "/dev/nothing");
    expect(error.message).toBe("open /dev/nothing: ENOENT");
    expect(error.call).toBe("open");
    expect(error.errno).toBe(2);
    expect(error).toBeInstanceOf(Error);
  });

  test("a refused ring says what refuses it and what to do", () => {
    const texts: [errno: number, text: RegExp][] = [
      [Errno.EPERM, /seccomp|sysctl/],
      [Errno.ENOSYS, /has no io_uring: 6\.1 or newer/],
      [Errno.EINVAL, /lacks io_uring features: 6\.1 or newer/],
      [Errno.ENOMEM, /RLIMIT_MEMLOCK/],
      [Errno.EMFILE, /RLIMIT_NOFILE/],
      [Errno.ENFILE, /RLIMIT_NOFILE/],
      [Errno.EIO, /refused to make a ring/],
    ];
    for (const [errno, text] of texts) {
      const error = explainSetupFailure(errno);
      expect(error.message).toMatch(text);
      expect(error.message).toEndWith(errnoName(errno));
      expect(error.call).toBe("io_uring_setup");
    }
  });
});
