import { describe, expect, test } from "bun:test";
import { deviceNumber, findHolders } from "../../../src/host/holders.ts";
import {
  isReadOnly,
  isReadOnlyFileSystem,
  mountsAt,
  parseMountinfo,
} from "../../../src/host/mountinfo.ts";

const TEXT = `22 1 259:0 / / rw,relatime shared:1 - ext4 /dev/root rw,errors=remount-ro
31 22 0:27 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
40 22 259:4 / /var/lib/kubelet/plugins/kubernetes.io/csi/pv/pvc-1/globalmount rw,relatime shared:99 - xfs /dev/nvme1n1 rw,nouuid,attr2
41 22 259:4 / /var/lib/kubelet/pods/a\\040b/mount ro,relatime shared:99 master:3 propagate_from:2 - xfs /dev/nvme1n1 rw,nouuid
42 41 0:50 / /var/lib/kubelet/pods/a\\040b/mount rw - tmpfs none rw
43 22 0:5 /nvme1n1 /block\\134file rw - devtmpfs udev rw,size=1k
44 22 259:9 / /broken rw - ext4 /dev/nvme2n1 ro,errors=remount-ro
45 22 0:60 /sub\\012vol /sub rw - btrfs /dev/loop1 rw
cut off 259:9
`;

describe("mountinfo", () => {
  const mounts = parseMountinfo(TEXT);

  test("every line that is a mount is read, others are left out", () => {
    expect(mounts.map(({ id }) => id)).toEqual([22, 31, 40, 41, 42, 43, 44, 45]);
    expect(mounts[3]).toEqual({
      id: 41,
      parent: 22,
      device: "259:4",
      root: "/",
      path: "/var/lib/kubelet/pods/a b/mount",
      options: ["ro", "relatime"],
      fsType: "xfs",
      source: "/dev/nvme1n1",
      superOptions: ["rw", "nouuid"],
    });
  });

  test("escapes of the kernel are undone", () => {
    expect(mounts[5]!.path).toBe("/block\\file");
    expect(mounts[7]!.root).toBe("/sub\nvol");
  });

  test("of mounts over each other the one that is seen comes first", () => {
    const at = mountsAt(mounts, "/var/lib/kubelet/pods/a b/mount");
    expect(at.map(({ id }) => id)).toEqual([42, 41]);
    expect(mountsAt(mounts, "/nowhere")).toEqual([]);
  });

  test("a mount may be read-only by itself or by its file system", () => {
    const byId = new Map(mounts.map((mount) => [mount.id, mount]));
    expect([40, 41, 44].map((id) => isReadOnly(byId.get(id)!))).toEqual([false, true, true]);
    expect([40, 41, 44].map((id) => isReadOnlyFileSystem(byId.get(id)!))).toEqual([
      false,
      false,
      true,
    ]);
  });

  test("nothing is made of nothing", () => {
    expect(parseMountinfo("")).toEqual([]);
  });
});

test("device numbers are split as the kernel does", () => {
  expect(deviceNumber(0x10300)).toBe("259:0");
  expect(deviceNumber((259 << 8) | 7)).toBe("259:7");
  // Minor numbers beyond 255 continue at bit 20.
  expect(deviceNumber((259 << 8) | 0x01 | (0x123 << 20))).toBe(`259:${(0x123 << 8) | 1}`);
});

test("a process that has a file system in use is found, by what it does", async () => {
  const child = Bun.spawn(["sleep", "600"], { cwd: "/proc", stdin: "ignore" });
  try {
    const mounts = parseMountinfo(await Bun.file("/proc/self/mountinfo").text());
    const { device } = mountsAt(mounts, "/proc")[0]!;
    const holders = await findHolders({ mounted: device }, 10_000);
    expect(holders.find(({ pid }) => pid === child.pid)).toEqual({
      pid: child.pid,
      command: "sleep",
      what: "works in /proc",
    });
    expect(holders.some(({ pid }) => pid === process.pid)).toBe(false);
    expect(await findHolders({ mounted: "0:0", device: "0:0" }, 10)).toEqual([]);
  } finally {
    child.kill("SIGKILL");
    await child.exited;
  }
});
