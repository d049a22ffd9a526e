/** What a host is to be connected to, in a file that several processes change. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { TrilithError } from "../../../src/errors.ts";
import {
  changeState,
  readState,
  takeKeeping,
  type WantedVolume,
} from "../../../src/host/state-file.ts";
import { HOST_NQN, NQN, VOLUME } from "../../support/host-kernel.ts";
import { tempFolders } from "../../support/temp-folder.ts";

const newFolder = tempFolders();
const volume = (n: number): WantedVolume => ({
  volumeUuid: `${VOLUME.slice(0, -4)}${String(n).padStart(4, "0")}`,
  nqn: NQN,
  hostNqn: HOST_NQN,
  options: { ctrlLossTmoSeconds: -1, headerDigest: true },
  paths: [{ address: "10.0.0.1", port: 8420 }],
});

describe("the state file", () => {
  test("holds what was put in, for its owner alone, in a folder that it makes", async () => {
    const path = join(newFolder(), "deep/host.json");
    expect(readState(path)).toEqual({ volumes: [] });
    await changeState(path, () => [volume(1)]);
    await changeState(path, (volumes) => [...volumes, volume(2)]);
    expect(readState(path)).toEqual({ volumes: [volume(1), volume(2)] });
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(readdirSync(join(path, "..")).sort()).toEqual(["host.json", "host.json.lock"]);
  });

  test("loses no change of several who make one at once", async () => {
    const path = join(newFolder(), "host.json");
    const numbers = Array.from({ length: 20 }, (_, i) => i);
    await Promise.all(numbers.map((n) => changeState(path, (volumes) => [...volumes, volume(n)])));
    const uuids = readState(path).volumes.map(({ volumeUuid }) => volumeUuid);
    expect(uuids.sort()).toEqual(numbers.map((n) => volume(n).volumeUuid));
  });

  test("that is not understood is refused by name, and stays as it is", async () => {
    const path = join(newFolder(), "host.json");
    const wrong = [
      "",
      "{",
      "[]",
      '{"version":2,"volumes":[]}',
      JSON.stringify({ version: 1, volumes: [{ ...volume(1), more: 1 }] }),
      JSON.stringify({ version: 1, volumes: [{ ...volume(1), volumeUuid: "x" }] }),
    ];
    for (const text of wrong) {
      writeFileSync(path, text);
      expect(() => readState(path)).toThrow(TrilithError);
      const change = changeState(path, () => []);
      expect(change).rejects.toMatchObject({ code: "Corrupted" });
      await change.catch(() => {});
      expect(readFileSync(path, "utf8")).toBe(text);
    }
  });

  test("in a place where nothing can be written is refused, with what to do", async () => {
    // In sysfs nobody makes a file, not even root.
    const refused = await changeState("/sys/kernel/host.json", () => []).catch((error) => error);
    expect(refused).toMatchObject({ code: "PermissionDenied", remedy: "run it as root" });
    expect(refused.message).toContain("/sys/kernel/host.json.lock");
  });

  test("is kept by one at a time", () => {
    const path = join(newFolder(), "new/host.json");
    const give = takeKeeping(path);
    expect(give).not.toBeNull();
    expect(takeKeeping(path)).toBeNull();
    give!();
    const again = takeKeeping(path);
    expect(again).not.toBeNull();
    again!();
  });
});
