/**
 * Mounts as the kernel tells them in /proc/<pid>/mountinfo (proc(5)), parsed. Pure.
 *
 * 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
 * id parent major:minor root mount-point options optional-fields... - type source super-options
 */

export interface Mount {
  readonly id: number;
  readonly parent: number;
  /** `major:minor` of the file system's device, as in `st_dev`; btrfs has one of its own. */
  readonly device: string;
  /** What of the file system is mounted: `/` all of it, for a bind mount the folder or file. */
  readonly root: string;
  readonly path: string;
  /** Options of this mount: `rw`, `ro`, `noatime`, ... */
  readonly options: readonly string[];
  readonly fsType: string;
  readonly source: string;
  /** Options of the file system: `rw`, `ro`, `errors=remount-ro`, ... */
  readonly superOptions: readonly string[];
}

/** Undoes the kernel's escapes of space, tab, line end and backslash. */
function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}

/** All mounts in the kernel's order. Lines that are none are left out. */
export function parseMountinfo(text: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of text.split("\n")) {
    const words = line.split(" ");
    const dash = words.indexOf("-", 6);
    if (dash === -1 || words.length < dash + 4) continue;
    const [id, parent, device, root, path, options] = words as [
      string,
      string,
      string,
      string,
      string,
      string,
    ];
    mounts.push({
      id: Number(id),
      parent: Number(parent),
      device,
      root: unescaped(root),
      path: unescaped(path),
      options: options.split(","),
      fsType: unescaped(words[dash + 1]!),
      source: unescaped(words[dash + 2]!),
      superOptions: words[dash + 3]!.split(","),
    });
  }
  return mounts;
}

/** Mounts at exactly this path, the uppermost, which is the one that is seen, first. */
export function mountsAt(mounts: readonly Mount[], path: string): Mount[] {
  return mounts.filter((mount) => mount.path === path).reverse();
}

/** True when the file system itself takes no writes, whatever the mount says. */
export function isReadOnlyFileSystem(mount: Mount): boolean {
  return mount.superOptions.includes("ro");
}

/** True when nothing can be written through this mount. */
export function isReadOnly(mount: Mount): boolean {
  return mount.options.includes("ro") || isReadOnlyFileSystem(mount);
}
