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
  const served = Object.entries(volumes).map(([blockSize, nqn]) => ({
    nqn,
    device: disks.disk(`disk-${blockSize}`, SIZE_MIB, `blk_size=${blockSize}`),
  }));
  engine = await TestEngine.start(served);
  guest = await Guest.boot();
}, SET_UP_TIMEOUT_MS);

afterAll(async () => {
  await guest?.stop();
  await engine?.end();
  disks.remove();
});

afterEach(() => guest.ok("detach_all"));

/** Arguments: file system, block device. */
const SCRIPT = `
  wipefs -qa $2
  # Nothing is left for ext4 to write by itself later: what is allocated is measured.
  case $1 in
    ext4) mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 $2 ;;
    *) mkfs.$1 -q $2 ;;
  esac
  mount $2 /mnt
  verified_io /mnt 16m --fsync=64
  # Through the page cache, with enough small files to make the journal work.
  mkdir /mnt/files
  head -c 400000 /dev/urandom | (cd /mnt/files && split -b 2000)
  (cd /mnt/files && sha256sum * >/tmp/sums)
  sync
  mark full
  # ext4 trims what its journal has freed.
  rm /mnt/verified*
  sync
  fstrim -v /mnt
  mark trimmed
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
  const allocated = new Map<string, number>();
  await guest.ok(SCRIPT, {
    args: [fileSystem, device],
    onMark: (when) => {
      allocated.set(when, disks.allocatedBytes(`disk-${blockSize}`));
      return "";
    },
  });
  // The disk is a sparse file: trimming has given back at least the removed file's 16 MiB.
  expect(allocated.get("full")! - allocated.get("trimmed")!).toBeGreaterThanOrEqual(16 << 20);
});

test("the kernel complained of nothing", () => {
  expect(guest.complaints()).toEqual([]);
});
