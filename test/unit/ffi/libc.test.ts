import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  blockDeviceBytes,
  blockDeviceLogicalBytes,
  blockDevicePhysicalBytes,
  closeFd,
  discardBlockDevice,
  encodeSockaddr,
  eventFd,
  isIpAddress,
  listenTcp,
  localAddress,
  NativeError,
  OpenFlag,
  openFd,
  peerAddress,
  setAffinity,
  shutdownSocket,
  tcpSocket,
  threadId,
  tryLockFd,
  tuneConnection,
  wakeEventFd,
} from "../../../ffi/index.ts";
import { canMakeLoopDevices, makeLoopDevice } from "../../support/loop-device.ts";
import { withReactor } from "../../support/reactor.ts";
import { connectedPair } from "../../support/tcp.ts";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "trilith-libc-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

/** The errno name that `run` fails with. */
function failure(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof NativeError) return error.message;
    throw error;
  }
  throw new Error("it did not fail");
}

describe("descriptors", () => {
  test("open creates with a mode, refuses what exists when told, and close ends it", () => {
    const path = join(folder, "created");
    const fd = openFd(path, OpenFlag.RDWR | OpenFlag.CREAT | OpenFlag.EXCL, 0o640);
    expect(statSync(path).mode & 0o777).toBe(0o640);
    expect(failure(() => openFd(path, OpenFlag.RDWR | OpenFlag.CREAT | OpenFlag.EXCL))).toEndWith(
      "EEXIST",
    );
    closeFd(fd);
    expect(failure(() => closeFd(fd))).toBe(`close fd ${fd}: errno 9`);
  });

  test("an error names the file", () => {
    expect(failure(() => openFd("/no/such/file", OpenFlag.RDONLY))).toBe(
      "open /no/such/file: ENOENT",
    );
  });

  test("a descriptor does not reach programs that are started", () => {
    const O_CLOEXEC = 0o2000000;
    const [file, socket] = [
      openFd("/dev/null", OpenFlag.RDONLY),
      tcpSocket("::1", { nonBlocking: false }),
    ];
    for (const fd of [file, eventFd(), socket]) {
      const flags = /flags:\s+(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))![1]!;
      expect(Number.parseInt(flags, 8) & O_CLOEXEC).toBe(O_CLOEXEC);
      closeFd(fd);
    }
  });

  test("one lock excludes another, until it is closed", () => {
    const path = join(folder, "locked");
    writeFileSync(path, "");
    const [first, second] = [openFd(path, OpenFlag.RDWR), openFd(path, OpenFlag.RDWR)];
    expect(tryLockFd(first)).toBe(true);
    expect(tryLockFd(first)).toBe(true);
    expect(tryLockFd(second)).toBe(false);
    closeFd(first);
    expect(tryLockFd(second)).toBe(true);
    closeFd(second);
    expect(failure(() => tryLockFd(second))).toStartWith("flock");
  });

  test("an eventfd counts wake-ups, and a full one is no error", () => {
    const fd = eventFd();
    for (let i = 0; i < 3; i++) wakeEventFd(fd);
    const info = readFileSync(`/proc/self/fdinfo/${fd}`, "utf8");
    expect(info).toMatch(/eventfd-count:\s+3\n/);
    closeFd(fd);
    expect(failure(() => wakeEventFd(fd))).toStartWith("write eventfd");
  });
});

describe("threads", () => {
  test("the main thread's id is the process's", () => {
    expect(threadId()).toBe(process.pid);
  });

  test("a thread is bound to the CPUs it is given", () => {
    const allowed = () =>
      /Cpus_allowed_list:\s+(\S+)/.exec(readFileSync("/proc/thread-self/status", "utf8"))![1]!;
    const before = allowed()
      .split(",")
      .flatMap((part) => {
        const [from, to] = part.split("-").map(Number) as [number, number | undefined];
        return Array.from({ length: (to ?? from) - from + 1 }, (_, i) => from + i);
      });
    const one = before.at(-1)!;
    setAffinity([one]);
    expect(allowed()).toBe(String(one));
    setAffinity(before);
    expect(failure(() => setAffinity([1023]))).toStartWith("sched_setaffinity 1023: EINVAL");
    for (const bad of [-1, 1024, 0.5, Number.NaN]) {
      expect(failure(() => setAffinity([bad]))).toContain("EINVAL");
    }
  });
});

describe("addresses", () => {
  const good = ["127.0.0.1", "0.0.0.0", "255.255.255.255", "::", "::1", "fe80::1:2", "1::8"];
  const alsoGood = [
    "2001:db8:0:0:1:0:0:1",
    "::ffff:10.0.0.1",
    "1:2:3:4:5:6:7:8",
    "1:2:3:4:5:6:7::",
  ];
  const bad = ["", "localhost", "127.0.0", "127.0.0.256", "1.2.3.4.5", "1.2.3.-4", " 127.0.0.1"];
  const alsoBad = [":", ":::", "1::2::3", "1:2:3:4:5:6:7", "12345::", "1:2:3:4:5:6:7:8::", "::g"];

  test("numeric ones are told from everything else", () => {
    for (const text of [...good, ...alsoGood])
      expect(`${text} ${isIpAddress(text)}`).toEndWith("true");
    for (const text of [...bad, ...alsoBad])
      expect(`${text} ${isIpAddress(text)}`).toEndWith("false");
  });

  test("are laid out as the kernel reads them", () => {
    const v4 = encodeSockaddr({ address: "10.1.2.3", port: 8420 });
    expect(v4.byteLength).toBe(16);
    expect([...v4.memory.u8.subarray(0, 8)]).toEqual([2, 0, 0x20, 0xe4, 10, 1, 2, 3]);
    const v6 = encodeSockaddr({ address: "fd00::1:10.0.0.1", port: 1 });
    expect(v6.byteLength).toBe(28);
    expect([...v6.memory.u8.subarray(0, 4)]).toEqual([10, 0, 0, 1]);
    expect([...v6.memory.u8.subarray(8, 24)]).toEqual([
      0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 10, 0, 0, 1,
    ]);
    expect(failure(() => encodeSockaddr({ address: "disk1", port: 1 }))).toContain(
      '"disk1": EINVAL',
    );
  });

  for (const address of ["127.0.0.1", "127.0.0.2", "::1"]) {
    test(`a socket listens on ${address} and says where`, () => {
      const fd = listenTcp({ address, port: 0 }, 4);
      const at = localAddress(fd);
      expect(at.address).toBe(address === "::1" ? "0:0:0:0:0:0:0:1" : address);
      expect(at.port).toBeGreaterThan(0);
      expect(failure(() => listenTcp({ address, port: at.port }, 4))).toBe(
        `bind ${address}:${at.port}: EADDRINUSE`,
      );
      closeFd(fd);
    });
  }

  test("one that is not this machine's is refused by name", () => {
    expect(failure(() => listenTcp({ address: "192.0.2.1", port: 0 }, 4))).toBe(
      "bind 192.0.2.1:0: EADDRNOTAVAIL",
    );
  });

  test("both ends of a connection know each other", () => {
    withReactor(async (reactor) => {
      const [a, b] = await connectedPair(reactor);
      tuneConnection(a);
      expect(peerAddress(a)).toEqual(localAddress(b));
      expect(peerAddress(b)).toEqual(localAddress(a));
      shutdownSocket(a);
      shutdownSocket(a);
      closeFd(a);
      closeFd(b);
    });
    const unconnected = tcpSocket("127.0.0.1", { nonBlocking: true });
    shutdownSocket(unconnected); // ENOTCONN is what was wanted
    expect(failure(() => peerAddress(unconnected))).toContain("ENOTCONN");
    closeFd(unconnected);
  });
});

describe("block devices", () => {
  test("what is none has no size", () => {
    const fd = openFd("/dev/null", OpenFlag.RDONLY);
    expect(failure(() => blockDeviceBytes(fd))).toStartWith("ioctl(BLKGETSIZE64)");
    closeFd(fd);
  });

  for (const sectorBytes of [512, 4096] as const) {
    test.skipIf(!canMakeLoopDevices)(
      `a disk of ${sectorBytes}-byte sectors says its size, grows, and discards`,
      () => {
        const disk = makeLoopDevice(8 << 20, sectorBytes);
        try {
          const fd = openFd(disk.path, OpenFlag.RDWR | OpenFlag.EXCL);
          expect(blockDeviceBytes(fd)).toBe(8 << 20);
          expect(blockDeviceLogicalBytes(fd)).toBe(sectorBytes);
          expect(blockDevicePhysicalBytes(fd)).toBeGreaterThanOrEqual(sectorBytes);
          expect(failure(() => openFd(disk.path, OpenFlag.RDWR | OpenFlag.EXCL))).toEndWith(
            "EBUSY",
          );
          expect(discardBlockDevice(fd, 0, 1 << 20)).toBe(true);
          expect(failure(() => discardBlockDevice(fd, 1, 512))).toContain("EINVAL");
          disk.resize(16 << 20);
          expect(blockDeviceBytes(fd)).toBe(16 << 20);
          closeFd(fd);
        } finally {
          disk.remove();
        }
      },
    );
  }
});
