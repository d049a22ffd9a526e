/** Data directories of released versions open in this one, with all that they held. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { keyOf } from "../../../../src/control/store/tables.ts";
import { fixtureChanges, fixtureEvents, fixtureRequest } from "../../../fixtures/data-records.ts";
import { openOneMember } from "../../../support/control/one-member.ts";
import { newEvent, volumeRecord } from "../../../support/store-records.ts";
import { tempFolders } from "../../../support/temp-folder.ts";

const fixtures = join(import.meta.dir, "../../../fixtures");
const kept = readdirSync(fixtures).filter(
  (name) => name.startsWith("data-") && !name.includes(".ts"),
);
const makeFolder = tempFolders();

test("the data of this version is kept", () => {
  expect(kept).toContain("data-0.1.0");
});

describe.each(kept)("%s", (name) => {
  test("opens, is read, written and opened again", async () => {
    const folder = makeFolder();
    const image = readFileSync(join(fixtures, name, "store.sqlite.gz"));
    writeFileSync(join(folder, "store.sqlite"), gunzipSync(image));
    const member = openOneMember(folder);
    const view = await member.store.latest();
    for (const change of fixtureChanges) {
      if (!("put" in change)) throw new Error("only records are kept");
      const { revision: _none, ...fields } = change.put;
      const table = view[change.table] as ReadonlyMap<string, unknown>;
      const record = table.get(keyOf(change.table, change.put));
      // Later versions may know more of it, never other things.
      expect(record).toMatchObject(fields);
      expect(record).toHaveProperty("revision", expect.any(Number));
    }
    expect([...view.replicasOfVolume.get("volume-1")!]).toEqual(["replica-1"]);
    const { events, oldestId } = member.store.events(0, 100);
    expect(oldestId).toBe(1);
    expect(events).toHaveLength(fixtureChanges.length);
    for (const event of events) expect(event).toMatchObject(fixtureEvents[0]!);
    const answer = await member.store.transact<unknown>(
      () => ({ changes: [], events: [newEvent("again")], value: null }),
      { idempotencyKey: fixtureRequest.key },
    );
    expect(answer).toEqual(fixtureRequest.answer);

    await member.store.transact(() => ({
      changes: [{ table: "volumes", put: volumeRecord("volume-2") }],
      events: [newEvent("volume-2")],
      value: null,
    }));
    await member.close();
    const again = openOneMember(folder);
    const next = await again.store.latest();
    expect([...next.volumes.keys()].sort()).toEqual(["volume-1", "volume-2"]);
    expect(again.store.events(0, 100).events.at(-1)!.target).toBe("volume-2");
    await again.close();
  });
});
