/** The recorder of child faults: what it refuses, what it keeps, and the same over HTTP. */
import { afterEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { type RecorderServer, serveRecorder } from "../../../src/engine/main/recorder-server.ts";
import type { NexusRecord } from "../../../src/engine/nexus/index.ts";
import { openFileRecorder, openHttpRecorder, type Recorder } from "../../../src/engine/recorder.ts";
import { tempFolders } from "../../support/temp-folder.ts";

const tempFolder = tempFolders();
const VOLUME = "0c3d6b1e-5a3f-4a57-9d8e-1f2a3b4c5d6e";
const NEXUS = "00000000-0000-4000-8000-000000000001";
const OTHER = "00000000-0000-4000-8000-000000000002";
const AT = new Date("2026-01-31T12:00:00Z");

const ends: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

function record(change: Partial<NexusRecord> = {}): NexusRecord {
  return {
    volumeUuid: VOLUME,
    nexusUuid: NEXUS,
    epoch: 1,
    children: [
      { uri: "bdev:///a", healthy: true },
      { uri: "bdev:///b", healthy: true },
    ],
    cleanShutdown: false,
    ...change,
  };
}

function openFile(path = join(tempFolder(), "records.sqlite")): Recorder {
  const recorder = openFileRecorder(path, () => AT);
  ends.push(() => recorder.close());
  return recorder;
}

function openHttp(): Recorder {
  const server: RecorderServer = serveRecorder(
    openFile(),
    { address: "127.0.0.1", port: 0 },
    () => {},
  );
  ends.push(() => server.stop());
  return openHttpRecorder(server.url, 5000);
}

for (const [name, open] of [
  ["in a file", openFile],
  ["over HTTP", openHttp],
] as const) {
  describe(`a recorder ${name}`, () => {
    test("keeps the latest record of each volume", async () => {
      const recorder = open();
      await recorder.record(record());
      const lost = [
        { uri: "bdev:///a", healthy: true },
        { uri: "bdev:///b", healthy: false },
      ];
      await recorder.record(record({ children: lost }));
      const kept = { ...record({ children: lost }), recordedAt: AT.toISOString() };
      expect<unknown>(await recorder.get(VOLUME)).toEqual(kept);
      expect<unknown>(await recorder.list()).toEqual([kept]);
    });

    test("turns superseded nexuses away and keeps what it has", async () => {
      const recorder = open();
      await recorder.record(record({ epoch: 2, nexusUuid: OTHER }));
      for (const late of [record(), record({ epoch: 2 })]) {
        await expect(recorder.record(late)).rejects.toMatchObject({ code: "Superseded" });
      }
      expect((await recorder.get(VOLUME)).nexusUuid).toBe(OTHER);
      await recorder.record(record({ epoch: 3 }));
      expect((await recorder.get(VOLUME)).epoch).toBe(3);
    });

    test("never records the last healthy child as lost", async () => {
      const recorder = open();
      await recorder.record(record());
      const none = record({ children: [{ uri: "bdev:///a", healthy: false }] });
      await expect(recorder.record(none)).rejects.toMatchObject({ code: "InvalidArgument" });
      expect((await recorder.get(VOLUME)).children).toHaveLength(2);
    });

    test("forgets a volume once", async () => {
      const recorder = open();
      await recorder.record(record());
      await recorder.forget(VOLUME);
      await expect(recorder.forget(VOLUME)).rejects.toMatchObject({ code: "NotFound" });
      await expect(recorder.get(VOLUME)).rejects.toMatchObject({ code: "NotFound" });
      expect(await recorder.list()).toEqual([]);
    });
  });
}

describe("a recorder's file", () => {
  test("holds what was recorded after it was closed", async () => {
    const path = join(tempFolder(), "records.sqlite");
    const first = openFileRecorder(path, () => AT);
    await first.record(record({ cleanShutdown: true }));
    first.close();
    expect((await openFile(path).get(VOLUME)).cleanShutdown).toBe(true);
  });

  test("holds what was recorded when its process is killed right after", async () => {
    const path = join(tempFolder(), "records.sqlite");
    const script = `
      const { openFileRecorder } = await import("${join(import.meta.dir, "../../../src/engine/recorder.ts")}");
      const recorder = openFileRecorder(process.argv[1], () => new Date());
      await recorder.record(${JSON.stringify(record({ epoch: 9 }))});
      process.kill(process.pid, "SIGKILL");`;
    const child = Bun.spawn([process.execPath, "-e", script, path], { stdio: ["ignore", 2, 2] });
    await child.exited;
    expect(child.signalCode).toBe("SIGKILL");
    expect((await openFile(path).get(VOLUME)).epoch).toBe(9);
  });

  test("of a newer version is refused", async () => {
    const path = join(tempFolder(), "records.sqlite");
    openFileRecorder(path, () => AT).close();
    const { Database } = await import("bun:sqlite");
    const db = new Database(path);
    db.run("PRAGMA user_version = 99");
    db.close();
    expect(() => openFileRecorder(path, () => AT)).toThrow("newer version");
  });
});

test("a recorder that does not answer is Unavailable", async () => {
  const recorder = openHttpRecorder("http://127.0.0.1:1", 1000);
  await expect(recorder.record(record())).rejects.toMatchObject({ code: "Unavailable" });
});
