/**
 * Applies the patches of `images/patches` to installed npm packages. Plain Node without packages.
 *
 * A patch fits exactly or not at all: every line of context must stand where the patch says. Files
 * are kept as they came (`.unpatched` in the package), and each run patches those, so that it can be
 * repeated, be ended anywhere, and take a newer patch.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

const STAMP = ".patched";
const ORIGINALS = ".unpatched";

/** Written whole or not at all. */
function replaceFile(path, content) {
  mkdirSync(dirname(path), { recursive: true });
  const partial = `${path}.${process.pid}`;
  writeFileSync(partial, content);
  renameSync(partial, path);
}

/** A unified diff as `{ path, hunks: [{ start, lines }] }`; text before and between is skipped. */
function parsePatch(text) {
  const files = [];
  let left = 0;
  for (const line of text.split("\n")) {
    const path = /^\+\+\+ b\/(.*)$/.exec(line);
    const range = /^@@ -(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? @@/.exec(line);
    if (left > 0) {
      files.at(-1).hunks.at(-1).lines.push(line);
      left -= line[0] === " " ? 2 : 1;
    } else if (path !== null) {
      files.push({ path: path[1], hunks: [] });
    } else if (range !== null) {
      files.at(-1).hunks.push({ start: Number(range[1]), lines: [] });
      left = Number(range[2] ?? 1) + Number(range[3] ?? 1);
    }
  }
  if (left !== 0) throw new Error("the patch is cut off");
  return files;
}

/** The text of a file with the hunks applied; throws when a line is not what the patch expects. */
function applyHunks(text, { path, hunks }) {
  const from = text.split("\n");
  const to = [];
  let at = 0;
  for (const { start, lines } of hunks) {
    while (at < start - 1) to.push(from[at++]);
    for (const line of lines) {
      const content = line.slice(1);
      if (line[0] !== "+" && from[at++] !== content) {
        throw new Error(`${path}:${at} is not what the patch expects: ${content.trim()}`);
      }
      if (line[0] !== "-") to.push(content);
    }
  }
  return [...to, ...from.slice(at)].join("\n");
}

/**
 * Patches an installed package. Returns false when it was patched already. Throws when the package
 * has another version than the patch is for, or does not fit it; nothing is changed then.
 */
export function patchPackage(packageFolder, version, patchPath) {
  const patch = readFileSync(patchPath, "utf8");
  const stamp = createHash("sha256").update(patch).digest("hex");
  const stampPath = join(packageFolder, STAMP);
  if (existsSync(stampPath) && readFileSync(stampPath, "utf8") === stamp) return false;
  const installed = JSON.parse(readFileSync(join(packageFolder, "package.json"), "utf8")).version;
  if (installed !== version) throw new Error(`version ${installed} is installed, not ${version}`);
  const patched = parsePatch(patch).map((file) => {
    const kept = join(packageFolder, ORIGINALS, file.path);
    const target = join(packageFolder, file.path);
    const original = readFileSync(existsSync(kept) ? kept : target, "utf8");
    return { kept, target, original, result: applyHunks(original, file) };
  });
  for (const { kept, original } of patched) replaceFile(kept, original);
  for (const { target, result } of patched) replaceFile(target, result);
  replaceFile(stampPath, stamp);
  return true;
}
