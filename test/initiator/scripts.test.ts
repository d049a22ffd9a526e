/** The shell scripts that run in guests: found clean by shellcheck. */
import { expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";

test.each(readdirSync(join(import.meta.dir, "guest")))("guest/%s", (name) => {
  const checked = Bun.spawnSync(["shellcheck", join(import.meta.dir, "guest", name)]);
  expect(checked.stdout.toString()).toBe("");
  expect(checked.exitCode).toBe(0);
});
