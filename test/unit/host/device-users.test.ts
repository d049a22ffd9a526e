/** Who uses a device, from what the kernel shows of mounts and swap. */
import { expect, test } from "bun:test";
import {
  type DeviceNames,
  mountsOf,
  swapsIn,
  usersOfDisk,
} from "../../../src/host/device-users.ts";
import { parseMountinfo } from "../../../src/host/mountinfo.ts";

const names: DeviceNames = {
  devs: new Set(["259:1", "259:2"]),
  paths: new Set(["/dev/nvme0n1", "/dev/nvme0n1p1"]),
};

const MOUNTS = String.raw`22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
23 22 0:20 / /proc rw - proc proc rw
30 22 259:2 / /mnt/a\040b rw master:3 propagate_from:4 - xfs /dev/nvme0n1p1 rw,attr2
31 22 0:45 / /srv rw - btrfs /dev/nvme0n1 rw,space_cache
32 22 259:11 / /other rw - ext4 /dev/nvme0n11 rw
garbage
`;

test("mounts are found by number and, of file systems with numbers of their own, by source", () => {
  expect(mountsOf(parseMountinfo(MOUNTS), names)).toEqual(["/", "/mnt/a b", "/srv"]);
  expect(mountsOf([], names)).toEqual([]);
});

test("swap is found by name", () => {
  const swaps =
    "Filename\tType\tSize\n/dev/nvme0n1p1  partition 1 0 -2\n/dev/sda2 partition 1 0 -3\n";
  expect(swapsIn(swaps, names)).toEqual(["/dev/nvme0n1p1"]);
});

test("a disk that is not there has no users", async () => {
  expect(await usersOfDisk("nvme4095n1")).toEqual([]);
});
