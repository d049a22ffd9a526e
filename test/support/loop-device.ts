/** Loop devices over temporary files: real block devices for tests that run as root. */
import { spawnSync } from "node:child_process";
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** True when this process may make loop devices. */
export const canMakeLoopDevices = process.getuid?.() === 0;

export interface LoopDevice {
  readonly path: string;
  /** Changes the size of the file behind it, and tells the device. */
  resize(bytes: number): void;
  remove(): void;
}

function losetup(...args: string[]): string {
  const result = spawnSync("losetup", args, { encoding: "utf8" });
  if (result.status !== 0) throw new Error(`losetup ${args.join(" ")}: ${result.stderr}`);
  return result.stdout.trim();
}

/** A loop device of `bytes` bytes with the given sector size, over a sparse file. */
export function makeLoopDevice(bytes: number, sectorBytes: 512 | 4096 = 512): LoopDevice {
  const folder = mkdtempSync(join(tmpdir(), "trilith-loop-"));
  const file = join(folder, "disk");
  const fd = openSync(file, "w");
  ftruncateSync(fd, bytes);
  closeSync(fd);
  const path = losetup("--find", "--show", "--sector-size", String(sectorBytes), file);
  return {
    path,
    resize(newBytes) {
      const again = openSync(file, "r+");
      ftruncateSync(again, newBytes);
      closeSync(again);
      losetup("--set-capacity", path);
    },
    remove() {
      losetup("--detach", path);
      rmSync(folder, { recursive: true });
    },
  };
}
