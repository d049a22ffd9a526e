/** What is known about the sources that are being built. */
import { spawnSync } from "node:child_process";
import { dirname } from "node:path";
import manifest from "../package.json" with { type: "json" };

export const root = dirname(import.meta.dir);
export const { version } = manifest;

function git(...args: string[]): string | undefined {
  const result = spawnSync("git", args, { cwd: root, encoding: "utf8" });
  return result.status === 0 ? result.stdout.trim() : undefined;
}

/** The commit, with `-dirty` when one of `paths` differs from it, `unknown` outside git. */
export function commitOf(paths: readonly string[]): string {
  const id = git("rev-parse", "--short=12", "HEAD");
  if (id === undefined) return "unknown";
  const changes = git("status", "--porcelain", "--", ...paths);
  return changes === "" ? id : `${id}-dirty`;
}

/** When the commit was made, so that what is made of it can carry the same date every time. */
export function commitDate(): Date {
  const seconds = git("show", "-s", "--format=%ct", "HEAD");
  return seconds === undefined ? new Date() : new Date(Number(seconds) * 1000);
}
