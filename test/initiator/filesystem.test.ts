/** File systems on a volume: made, mounted, written with verification, trimmed, checked. */
import { afterAll, afterEach, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { DiskFolder, IO_PORT, nqnOf, TestEngine } from "./engine.ts";
import { SET_UP_TIMEOUT_MS, TEST_TIMEOUT_MS } from "./limits.ts";
import { Guest } from "./vm.ts";

/** mkfs.xfs makes nothing below 300 MiB. */
const SIZE_MIB = 512;
const volumes = { 512: nqnOf("blocks-512"), 4096: nqnOf("blocks-4096") };

const disks = new DiskFolder();
let engine: TestEngine;
let guest: Guest;

setDefaultTimeout(TEST_TIMEOUT_MS);

beforeAll(async () => {
  const subsystems = Object.entries(volumes).map(([blockSize, nqn]) => ({
    nqn,
    device: disks.disk(`disk-${blockSize}`, SIZE_MIB, `blk_size=${blockSize}`),
  }));
  engine = await TestEngine.start({ subsystems });
  guest = await Guest.boot();
}, SET_UP_TIMEOUT_MS);

afterAll(async () => {
  await guest?.stop();
  await engine?.stop();
  disks.remove();
});

afterEach(() => guest.ok("detach_all"));

/** Arguments: file system, block device. */
const SCRIPT = `
  wipefs -qa $2
  mkfs.$1 -q $2
  mount $2 /mnt
  verified_io /mnt 32m --fsync=64
  # Through the page cache, with enough small files to make the journal work.
  mkdir /mnt/files
  for i in $(seq 200); do head -c $((i * 100)) /host/functions.sh >/mnt/files/$i; done
  (cd /mnt/files && sha256sum * >/tmp/sums)
  sync
  rm /mnt/verified*
  fstrim -v /mnt
  umount /mnt
  case $1 in
    ext4) e2fsck -fn $2 ;;
    xfs) xfs_repair -n $2 ;;
  esac
  mount $2 /mnt
  (cd /mnt/files && sha256sum --quiet -c /tmp/sums)
  umount /mnt
`;

test.each([
  ["ext4", 512, ""],
  ["ext4", 4096, "-g -G"],
  ["xfs", 512, "-g -G"],
  ["xfs", 4096, ""],
] as const)("%s on blocks of %d bytes %s", async (fileSystem, blockSize, digests) => {
  const nqn = volumes[blockSize];
  const device = await guest.ok(`attach ${nqn} ${engine.address} ${IO_PORT} ${digests}`);
  const output = await guest.ok(SCRIPT, {
    args: [fileSystem, device],
  });
  const trimmed = /\((\d+) bytes\) trimmed/.exec(output);
  expect(Number(trimmed?.[1])).toBeGreaterThan((SIZE_MIB / 2) << 20);
  await guest.ok(`detach ${nqn}`);
});

test("trimming gives the space of the disk back", () => {
  // 32 MiB of data and two file systems have been written to each disk; the files are sparse.
  for (const blockSize of [512, 4096]) {
    expect(disks.allocatedBytes(`disk-${blockSize}`)).toBeLessThan((SIZE_MIB / 8) << 20);
  }
});

test("the kernel complained of nothing", () => {
  expect(guest.complaints()).toEqual([]);
});
