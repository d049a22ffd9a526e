/** What the guest consists of: Debian packages, the programs taken from them, kernel modules. */

/** Packages whose files, with those of all they depend on, are at hand when the image is built. */
export const guestPackages: readonly string[] = [
  "bash",
  "btrfs-progs",
  "busybox-static",
  "coreutils",
  "e2fsprogs",
  "fio",
  "iproute2",
  "jq",
  "kmod",
  "mount",
  "nbd-client",
  "nvme-cli",
  "util-linux",
  "xfsprogs",
  "xz-utils",
];

/** Dependencies that no program of the guest uses. */
export const unusedPackages = /^(linux-image-|perl|libperl|python3|libpython3|initramfs)/;

/** Programs, by name. Everything else is Busybox. */
export const guestPrograms: readonly string[] = [
  "bash",
  "blkdiscard",
  "blkid",
  "blockdev",
  "btrfs",
  "btrfstune",
  "date",
  "dd",
  "e2fsck",
  "findmnt",
  "fio",
  "fstrim",
  "head",
  "ip",
  "fsfreeze",
  "jq",
  "lsblk",
  "mkfs.btrfs",
  "mkfs.xfs",
  "mke2fs",
  "mount",
  "nbd-client",
  "nvme",
  "resize2fs",
  "seq",
  "sha256sum",
  "sort",
  "split",
  "stat",
  "sync",
  "tail",
  "timeout",
  "truncate",
  "tune2fs",
  "umount",
  "wipefs",
  "xfs_db",
  "xfs_growfs",
  "xfs_io",
  "xfs_repair",
];

/** Further names of programs. */
export const guestLinks: Readonly<Record<string, string>> = {
  "mkfs.ext4": "mke2fs",
  "fsck.ext4": "e2fsck",
  sh: "bash",
};

/** Libraries that programs load while they run, and those of the product's executable. */
export const loadedLibraries: readonly string[] = [
  "libdl.so.2",
  "libgcc_s.so.1",
  "libm.so.6",
  "libnss_files.so.2",
  "libpthread.so.0",
];

/** Modules loaded at boot, in this order. What a kernel has built in, or has not, is left out. */
export const bootModules: readonly string[] = [
  "virtio_pci",
  "virtio_console",
  "virtio_net",
  "virtio_rng",
  "crc32c_generic",
  "crc32c_intel",
  "nvme-core",
  "nvme-fabrics",
  "nvme-tcp",
];

/** Modules that are there to be loaded when something needs them. */
export const furtherModules: readonly string[] = [
  "btrfs",
  "ext4",
  "xfs",
  "loop",
  "nbd",
  "sch_netem",
  "tls",
  // In-band authentication.
  "hmac",
  "sha256_generic",
  "sha512_generic",
  "dh_generic",
  "gcm",
  "ccm",
  "cmac",
  "ecb",
  "cbc",
  "aes_generic",
];
