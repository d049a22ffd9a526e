/** The patch of the raft package: it fits exactly, can be applied again, and fails loudly otherwise. */
import { expect, test } from "bun:test";
import { cpSync, existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { tempFolders } from "../../../support/temp-folder.ts";

const root = dirname(dirname(dirname(dirname(import.meta.dir))));
const patchPath = join(root, "images/patches/coaty-consensus-raft-1.0.0.patch");
const installed = join(root, "node_modules/@coaty/consensus.raft");
const folder = tempFolders();

const { patchPackage } = (await import(join(root, "images/patch.mjs"))) as {
  patchPackage: (packageFolder: string, version: string, patchPath: string) => boolean;
};

/** The package as npm installs it: what the patch has changed put back. */
function unpatched(): string {
  const copy = join(folder(), "package");
  cpSync(installed, copy, { recursive: true });
  cpSync(join(copy, ".unpatched"), copy, { recursive: true });
  rmSync(join(copy, ".unpatched"), { recursive: true });
  rmSync(join(copy, ".patched"));
  return copy;
}

function textIn(packageFolder: string, file: string): string {
  return readFileSync(join(packageFolder, file), "utf8");
}

test("what is installed is what the patch makes", () => {
  const copy = unpatched();
  expect(textIn(copy, "ported/raft.js")).not.toContain("72d62a1");
  expect(patchPackage(copy, "1.0.0", patchPath)).toBe(true);
  for (const file of ["ported/raft.js", "ported/log.js", "ported/readonly.js"]) {
    expect(textIn(copy, file)).toBe(textIn(installed, file));
  }
});

test("a second time it changes nothing", () => {
  const copy = unpatched();
  patchPackage(copy, "1.0.0", patchPath);
  expect(patchPackage(copy, "1.0.0", patchPath)).toBe(false);
});

test("after an end in the middle it is completed", () => {
  const copy = unpatched();
  const original = textIn(copy, "ported/log.js");
  patchPackage(copy, "1.0.0", patchPath);
  const patched = textIn(copy, "ported/log.js");
  rmSync(join(copy, ".patched"));
  writeFileSync(join(copy, "ported/log.js"), original);
  expect(patchPackage(copy, "1.0.0", patchPath)).toBe(true);
  expect(textIn(copy, "ported/log.js")).toBe(patched);
});

test("a newer patch takes the place of the older", () => {
  const copy = unpatched();
  patchPackage(copy, "1.0.0", patchPath);
  const newer = join(folder(), "newer.patch");
  writeFileSync(
    newer,
    readFileSync(patchPath, "utf8").replace("nothing is formatted", "nothing is"),
  );
  expect(patchPackage(copy, "1.0.0", newer)).toBe(true);
  expect(textIn(copy, "ported/logger.js")).toContain("nothing is that nobody reads");
});

test("a package that is not what it was is left alone", () => {
  const copy = unpatched();
  const changed = textIn(copy, "ported/raft.js").replace(
    "bcastHeartbeat() {",
    "bcastHeartbeat () {",
  );
  writeFileSync(join(copy, "ported/raft.js"), changed);
  expect(() => patchPackage(copy, "1.0.0", patchPath)).toThrow(
    /raft\.js:\d+ is not what the patch/,
  );
  expect(textIn(copy, "ported/raft.js")).toBe(changed);
  expect(existsSync(join(copy, ".patched"))).toBe(false);
});

test("another version is refused", () => {
  const copy = unpatched();
  const manifest = textIn(copy, "package.json").replace('"version": "1.0.0"', '"version": "1.0.1"');
  writeFileSync(join(copy, "package.json"), manifest);
  expect(() => patchPackage(copy, "1.0.0", patchPath)).toThrow("version 1.0.1 is installed");
});

test("a patch that is cut off is refused", () => {
  const cut = join(folder(), "cut.patch");
  const text = readFileSync(patchPath, "utf8");
  writeFileSync(cut, text.slice(0, text.lastIndexOf("\n+")));
  expect(() => patchPackage(unpatched(), "1.0.0", cut)).toThrow("cut off");
});
