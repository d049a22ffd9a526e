import { expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { closeSync, ftruncateSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type DiskEnds, identify } from "../../../../src/engine/pool/probe.ts";
import { tempFolders } from "../../../support/temp-folder.ts";
import { KIB, MIB } from "./fixture.ts";

const folder = tempFolders();
const HEAD = MIB + 64 * KIB;

/** The ends of a disk of 64 MiB that carries `bytes` at `at`. */
function disk(at: number, bytes: readonly number[] | string, deviceBytes = 64 * MIB): DiskEnds {
  const image = new Uint8Array(deviceBytes);
  const data = typeof bytes === "string" ? [...Buffer.from(bytes, "latin1")] : bytes;
  image.set(data, at < 0 ? deviceBytes + at : at);
  return endsOf(image);
}

function endsOf(image: Uint8Array): DiskEnds {
  return {
    head: image.subarray(0, HEAD),
    tail: image.subarray(image.byteLength - MIB),
    deviceBytes: image.byteLength,
  };
}

function foreign(ends: DiskEnds): string {
  const content = identify(ends);
  return content.kind === "foreign" ? content.what : content.kind;
}

test("a disk of zeroes is blank", () => {
  expect(identify(endsOf(new Uint8Array(64 * MIB)))).toEqual({ kind: "blank" });
});

test("signatures are named", () => {
  const md = [0xfc, 0x4e, 0x2b, 0xa9];
  const cases: [string, number, readonly number[] | string][] = [
    ["SPDK blobstore", 0, "SPDKBLOB"],
    ["LUKS", 0, "LUKS\xba\xbe"],
    ["XFS", 0, "XFSB"],
    ["BlueStore", 0, "bluestore block device\n"],
    ["btrfs", 0x10040, "_BHRfS_M"],
    ["ZFS", 0x20000, [0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0]],
    ["ZFS", 0x20000 + 127 * 1024, [0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0]],
    ["ZFS", 0x20000 + 5 * 1024, [0, 0, 0, 0, 0, 0xba, 0xb1, 0x0c]],
    ["LVM", 512, "LABELONE"],
    ["LVM", 1536, "LABELONE"],
    ["RAID", 0, md],
    ["RAID", 4096, md],
    ["RAID", -8192, md],
    ["RAID", -65536, md],
    ["swap", 4086, "SWAPSPACE2"],
    ["bcache", 4120, [0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca]],
    ["f2fs", 1024, [0x10, 0x20, 0xf5, 0xf2]],
    ["ReiserFS", 0x10034, "ReIsErFs"],
    ["ISO 9660", 0x8001, "CD001"],
    ["NTFS", 3, "NTFS    "],
    ["exFAT", 3, "EXFAT   "],
    ["FAT", 82, "FAT32   "],
    ["FAT", 54, "FAT16   "],
    ["VMFS", MIB, [0x0d, 0xd0, 0x01, 0xc0]],
    ["qcow2", 0, "QFI\xfb"],
    ["ext2", 0x438, [0x53, 0xef]],
    ["GPT", 512, "EFI PART"],
    ["GPT", 4096, "EFI PART"],
    ["backup of a GPT", -512, "EFI PART"],
    ["backup of a GPT", -4096, "EFI PART"],
    ["boot sector", 510, [0x55, 0xaa]],
  ];
  for (const [what, at, bytes] of cases) expect(foreign(disk(at, bytes))).toContain(what);
});

test("the end of a disk of odd size is found", () => {
  const md = [0xfc, 0x4e, 0x2b, 0xa9];
  const size = 64 * MIB + 7 * 512;
  expect(foreign(disk(64 * MIB - 64 * KIB, md, size))).toContain("RAID"); // 0.90
  expect(foreign(disk(64 * MIB - 8 * KIB, md, size))).toContain("RAID"); // 1.0
});

test("an MBR with a partition is told from a mere boot sector", () => {
  const entry = [0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0, 1, 0];
  expect(foreign(disk(446, [...entry, ...new Array<number>(48).fill(0), 0x55, 0xaa]))).toBe(
    "an MBR partition table",
  );
});

test("anything else that is not zero is unknown data, and says where", () => {
  expect(foreign(disk(12345, [1]))).toBe("unknown data at byte 12345");
  expect(foreign(disk(-1, [1]))).toBe(`unknown data at byte ${64 * MIB - 1}`);
  // What lies between the ends is not looked at.
  expect(foreign(disk(30 * MIB, [1]))).toBe("blank");
});

test("what the real tools make is recognised", () => {
  const make = (what: string, command: string, ...args: string[]) => {
    const path = join(folder(), "image");
    const fd = openSync(path, "w");
    ftruncateSync(fd, 64 * MIB);
    closeSync(fd);
    const result = spawnSync(command, [...args, path], { encoding: "utf8" });
    expect([command, result.status, result.stderr]).toEqual([command, 0, expect.any(String)]);
    expect(foreign(endsOf(new Uint8Array(readFileSync(path))))).toContain(what);
  };
  make("ext2, ext3 or ext4", "/sbin/mkfs.ext4", "-q", "-F");
  make("swap", "/sbin/mkswap", "-q");
});
