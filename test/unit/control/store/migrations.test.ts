/** Tables of several versions: what they are made of, and members that know different ones. */
import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { getTableColumns, getTableName, is } from "drizzle-orm";
import { getTableConfig, SQLiteTable } from "drizzle-orm/sqlite-core";
import { encodeCommand } from "../../../../src/control/store/command.ts";
import { StoreMachine } from "../../../../src/control/store/machine.ts";
import {
  migrateTo,
  SCHEMA_VERSION_KNOWN,
  storeMigrations,
} from "../../../../src/control/store/migrations.ts";
import * as schema from "../../../../src/control/store/schema.ts";
import { keepUpgraded, upgradeOnce, versionForAll } from "../../../../src/control/store/upgrade.ts";
import { openOneMember } from "../../../support/control/one-member.ts";
import { poolRecord, volumeRecord } from "../../../support/store-records.ts";
import { tempFolders } from "../../../support/temp-folder.ts";

const makeFolder = tempFolders();

test("the migrations make what the schema describes", () => {
  const db = new Database(":memory:");
  migrateTo(db, SCHEMA_VERSION_KNOWN, storeMigrations);
  const tables = Object.values(schema).filter((value) => is(value, SQLiteTable)) as SQLiteTable[];
  const names = db
    .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    .values()
    .flat();
  expect(tables.map(getTableName).sort()).toEqual(names as string[]);
  for (const table of tables) {
    const name = getTableName(table);
    const rows = db.prepare(`PRAGMA table_info("${name}")`).all() as {
      name: string;
      type: string;
      notnull: number;
      pk: number;
    }[];
    const made = rows.map((row) => [row.name, row.type.toLowerCase(), row.notnull === 1, row.pk]);
    const described = Object.values(getTableColumns(table)).map((column) => [
      column.name,
      column.getSQLType(),
      column.notNull,
      column.primary ? 1 : 0,
    ]);
    expect([name, ...made]).toEqual([name, ...described]);
    const indexes = db.prepare(`PRAGMA index_list("${name}")`).all() as { name: string }[];
    const own = indexes.map((index) => index.name).filter((index) => !index.startsWith("sqlite_"));
    const wanted = getTableConfig(table).indexes.map(({ config }) => config.name);
    expect(own.sort()).toEqual(wanted.sort());
  }
  db.close();
});

/** A history in which `max_snapshots` of volumes came with the second version. */
const older = [storeMigrations[0]!.replace("\t`max_snapshots` integer,\n", "")];
const newer = [...older, "ALTER TABLE `volumes` ADD `max_snapshots` integer;"];

class Member {
  readonly db = new Database(":memory:");
  readonly machine: StoreMachine;
  #index = 0;

  constructor(migrations: readonly string[]) {
    this.machine = new StoreMachine(migrations);
    this.machine.restored(this.db, 0);
  }

  apply(text: string): void {
    this.#index++;
    const outcome = this.db.transaction(() => this.machine.apply(this.db, this.#index, text))();
    this.machine.applied(this.#index, outcome);
  }

  rows(): unknown {
    return this.db.prepare("SELECT * FROM volumes ORDER BY uuid").all();
  }
}

function putVolume(uuid: string, maxSnapshots: number): string {
  const put = volumeRecord(uuid, { maxSnapshots });
  return encodeCommand({
    kind: "transaction",
    nowMs: 1,
    checks: [],
    changes: [{ table: "volumes", put }],
    events: [],
    request: null,
  });
}

describe("members of two versions", () => {
  test("hold the same tables, of the older version, until all are of the newer", () => {
    expect(older[0]).not.toContain("max_snapshots");
    const oldMember = new Member(older);
    const newMember = new Member(newer);
    const both = [oldMember, newMember];
    for (const member of both) member.apply(putVolume("v1", 5));
    expect(newMember.rows()).toEqual(oldMember.rows());
    expect(newMember.machine.view().tables.volumes.get("v1")?.maxSnapshots).toBeNull();

    // The older one is replaced by the newer version, which opens what is there.
    const replaced = new StoreMachine(newer);
    replaced.restored(oldMember.db, 1);
    expect(replaced.schemaVersion()).toBe(1);
    const migrate = encodeCommand({ kind: "migrate", nowMs: 2, toVersion: 2 });
    newMember.apply(migrate);
    newMember.apply(putVolume("v2", 7));
    for (const [at, text] of [migrate, putVolume("v2", 7)].entries()) {
      const outcome = replaced.apply(oldMember.db, 2 + at, text);
      replaced.applied(2 + at, outcome);
    }
    expect(oldMember.rows()).toEqual(newMember.rows());
    for (const machine of [replaced, newMember.machine]) {
      expect(machine.schemaVersion()).toBe(2);
      expect(machine.view().tables.volumes.get("v1")?.maxSnapshots).toBeNull();
      expect(machine.view().tables.volumes.get("v2")?.maxSnapshots).toBe(7);
    }
  });

  test("one migration that comes twice changes nothing the second time", () => {
    const member = new Member(newer);
    const migrate = encodeCommand({ kind: "migrate", nowMs: 2, toVersion: 2 });
    member.apply(migrate);
    member.apply(putVolume("v1", 3));
    member.apply(migrate);
    expect(member.machine.view().tables.volumes.get("v1")?.maxSnapshots).toBe(3);
  });

  test("go to the newest version that every one of them knows", () => {
    const versions = new Map([
      ["1", 3],
      ["2", 2],
      ["3", 3],
    ]);
    expect(versionForAll(1, ["1", "2", "3"], versions)).toBe(2);
    expect(versionForAll(1, ["1", "3"], versions)).toBe(3);
    expect(versionForAll(1, ["1", "4"], versions)).toBe(1);
    expect(versionForAll(3, ["1", "2"], versions)).toBe(3);
  });
});

test("fields that no column is there for are left out of the record too", () => {
  const member = new Member(older);
  const put = { ...poolRecord("p1", "n1"), later: 1 };
  member.apply(
    JSON.stringify({
      kind: "transaction",
      nowMs: 1,
      checks: [],
      changes: [{ table: "pools", put }],
      events: [],
      request: null,
    }),
  );
  expect(member.machine.view().tables.pools.get("p1")).toEqual(
    poolRecord("p1", "n1", { revision: 1 }),
  );
});

describe("the leader", () => {
  const makeUpgrade = () => {
    const folder = makeFolder();
    const member = openOneMember(folder, newer);
    const known = new Map([["1", 1]]);
    const options = {
      store: member.store,
      knownVersion: 2,
      memberVersions: async () => known,
      log: () => {},
    };
    return { folder, member, known, options };
  };

  test("goes to a version once every member knows it, and restarts with it", async () => {
    const { folder, member, known, options } = makeUpgrade();
    await member.store.latest();
    expect(await upgradeOnce(options)).toBe(false);
    expect(member.store.schemaVersion()).toBe(1);
    known.set("1", 2);
    expect(await upgradeOnce(options)).toBe(true);
    expect(member.store.schemaVersion()).toBe(2);
    await member.store.transact(() => ({
      changes: [{ table: "volumes", put: volumeRecord("v1", { maxSnapshots: 4 }) }],
      events: [],
      value: null,
    }));
    await member.close();
    const again = openOneMember(folder, newer);
    expect(again.store.schemaVersion()).toBe(2);
    expect(again.store.view().volumes.get("v1")?.maxSnapshots).toBe(4);
    await again.close();
    expect(() => openOneMember(folder, older)).toThrow("version 2");
  });

  test("does so by itself when it begins to lead", async () => {
    const { member, known, options } = makeUpgrade();
    known.set("1", 2);
    const { promise, resolve } = Promise.withResolvers<void>();
    member.store.subscribe(() => {
      if (member.store.schemaVersion() === 2) resolve();
    });
    const stop = keepUpgraded(options);
    await promise;
    stop();
    await member.close();
  });
});
