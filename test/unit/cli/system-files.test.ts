import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { systemFiles, writeSystemFiles } from "../../../src/cli/system-files.ts";
import { TrilithError } from "../../../src/errors.ts";
import { tempFolders } from "../../support/temp-folder.ts";

const folder = tempFolders();
const sources = join(import.meta.dir, "../../../systemd");

describe("system files", () => {
  test("are all there is in systemd/, unchanged", () => {
    const texts = readdirSync(sources).map((name) => readFileSync(join(sources, name), "utf8"));
    expect(Object.values(systemFiles).sort()).toEqual(texts.sort());
  });

  test("are written below a root, readable by all, over what was there", () => {
    const root = folder();
    writeSystemFiles(root);
    const [first] = Object.keys(systemFiles);
    writeFileSync(join(root, first!), "changed by hand");
    writeSystemFiles(root);
    for (const [path, text] of Object.entries(systemFiles)) {
      expect(readFileSync(join(root, path), "utf8")).toBe(text);
      expect(statSync(join(root, path)).mode & 0o777).toBe(0o644);
    }
    const left = readdirSync(root, { recursive: true }).filter((name) =>
      String(name).endsWith(".new"),
    );
    expect(left).toEqual([]);
  });

  test("need a root that exists", () => {
    const missing = join(folder(), "nosuch");
    expect(() => writeSystemFiles(missing)).toThrow(TrilithError);
    const file = join(folder(), "file");
    writeFileSync(file, "");
    expect(() => writeSystemFiles(file)).toThrow("is not a directory");
  });
});
