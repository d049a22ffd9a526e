/** Replaces a file so that after a crash it is the old one or the new one, whole. */
import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { dirname } from "node:path";

function syncFolder(path: string): void {
  const fd = openSync(dirname(path), "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Writes `text` with the file's final mode from the first byte on. Null removes the file. */
export function writeFileWhole(path: string, text: string | null, mode: number): void {
  if (text === null) {
    rmSync(path, { force: true });
    syncFolder(path);
    return;
  }
  const beside = `${path}.new`;
  // One that a crash has left may have another mode.
  rmSync(beside, { force: true });
  const fd = openSync(beside, "wx", mode);
  try {
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(beside, path);
  syncFolder(path);
}
