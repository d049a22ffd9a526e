/** Snapshots as files: whole, checked, put in place in one go. */
import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  verifySnapshotFile,
  withSnapshotFile,
  writeSnapshotFile,
} from "../../../../src/control/raft/snapshot-file.ts";
import { tempFolders } from "../../../support/temp-folder.ts";

const folder = tempFolders();

/** Every kind of table, and what stands on tables. */
const SCHEMA = [
  "CREATE TABLE nodes (id TEXT PRIMARY KEY, label TEXT) WITHOUT ROWID",
  "CREATE TABLE volumes (id INTEGER PRIMARY KEY, node TEXT NOT NULL REFERENCES nodes (id), " +
    "size INTEGER NOT NULL, doubled INTEGER GENERATED ALWAYS AS (size * 2) STORED)",
  "CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT)",
  "CREATE TABLE heap (a TEXT, b BLOB)",
  'CREATE TABLE "odd ""name" ("a b" TEXT, "select" REAL)',
  "CREATE INDEX by_size ON volumes (size)",
  "CREATE UNIQUE INDEX heap_a ON heap (a) WHERE a IS NOT NULL",
  "CREATE VIEW large AS SELECT id FROM volumes WHERE size > 10",
  "CREATE TRIGGER counted AFTER INSERT ON volumes BEGIN INSERT INTO events (what) VALUES (new.id); END",
];

function source(path = ":memory:"): Database {
  const db = new Database(path);
  db.run("PRAGMA foreign_keys = ON");
  for (const sql of SCHEMA) db.run(sql);
  db.run("CREATE TABLE raft_log (idx INTEGER PRIMARY KEY, data TEXT)");
  db.run("INSERT INTO raft_log VALUES (1, 'stays here')");
  db.run("INSERT INTO nodes VALUES ('n1', 'ä'), ('n2', NULL)");
  db.run("INSERT INTO volumes (id, node, size) VALUES (7, 'n1', 5), (3, 'n2', 50)");
  db.run("INSERT INTO events (what) VALUES ('x')");
  db.run("DELETE FROM events WHERE what = 'x'");
  db.run("INSERT INTO heap VALUES (NULL, x'00ff'), ('b', NULL), ('a', x'')");
  db.run("DELETE FROM heap WHERE a = 'b'");
  db.run(`INSERT INTO "odd ""name" VALUES ('q', 1.5)`);
  return db;
}

/** Everything in a file but raft's tables: schema, rows with their ids, counters. */
function contentOf(db: Database): unknown {
  const schema = db
    .query<{ type: string; name: string; sql: string }, []>(
      "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL " +
        "AND tbl_name NOT LIKE 'raft_%' ORDER BY type, name",
    )
    .all();
  const rows = schema
    .filter(({ type }) => type === "table")
    .map(({ name, sql }) => {
      const rowId = sql.includes("WITHOUT ROWID") ? "" : "rowid AS row_id, ";
      return [name, db.query(`SELECT ${rowId}* FROM "${name.replaceAll('"', '""')}"`).all()];
    });
  return { schema, rows, view: db.query("SELECT * FROM large").all() };
}

test("has everything but raft's tables, the same in every row", () => {
  const path = join(folder(), "snapshot.db");
  const db = source();
  writeSnapshotFile(db, path);
  const file = new Database(path);
  expect(contentOf(file)).toEqual(contentOf(db));
  expect(file.query("SELECT * FROM sqlite_schema WHERE name LIKE 'raft_%'").all()).toEqual([]);
  expect(file.query("PRAGMA integrity_check").all()).toEqual([{ integrity_check: "ok" }]);
  file.close();
});

test("takes the place of other tables, and leaves raft's and the settings alone", () => {
  const path = join(folder(), "snapshot.db");
  const from = source();
  writeSnapshotFile(from, path);
  const to = source(join(folder(), "node.db"));
  to.run("INSERT INTO volumes (id, node, size) VALUES (9, 'n1', 9)");
  to.run("CREATE TABLE extra (a TEXT)");
  to.run("CREATE VIEW extra_view AS SELECT a FROM extra");
  withSnapshotFile(to, path, (replace) => to.transaction(replace)());
  expect(contentOf(to)).toEqual(contentOf(from));
  expect(to.query("SELECT data FROM raft_log").all()).toEqual([{ data: "stays here" }]);
  expect(to.query("PRAGMA foreign_keys").get()).toEqual({ foreign_keys: 1 });
  // Counters go on where they were, triggers work.
  to.run("INSERT INTO volumes (id, node, size) VALUES (10, 'n1', 9)");
  from.run("INSERT INTO volumes (id, node, size) VALUES (10, 'n1', 9)");
  expect(contentOf(to)).toEqual(contentOf(from));
  to.close();
});

test("leaves everything as it was when the transaction does not end", () => {
  const path = join(folder(), "snapshot.db");
  writeSnapshotFile(source(), path);
  const to = source();
  to.run("DELETE FROM volumes");
  const before = contentOf(to);
  const broken = () =>
    withSnapshotFile(to, path, (replace) =>
      to.transaction(() => {
        replace();
        throw new Error("power is gone");
      })(),
    );
  expect(broken).toThrow("power is gone");
  expect(contentOf(to)).toEqual(before);
});

test("an empty database makes a file too", () => {
  const path = join(folder(), "snapshot.db");
  const empty = new Database(":memory:");
  const digest = writeSnapshotFile(empty, path);
  verifySnapshotFile(path, digest);
  const to = source();
  withSnapshotFile(to, path, (replace) => to.transaction(replace)());
  expect(to.query("SELECT name FROM sqlite_schema WHERE name = 'volumes'").all()).toEqual([]);
});

test("a damaged or a short file is refused", () => {
  const path = join(folder(), "snapshot.db");
  const digest = writeSnapshotFile(source(), path);
  verifySnapshotFile(path, digest);
  const bytes = readFileSync(path);
  bytes[bytes.length >> 1]! ^= 1;
  writeFileSync(path, bytes);
  expect(() => verifySnapshotFile(path, digest)).toThrow("arrived damaged");
  writeFileSync(path, bytes.subarray(0, 4096));
  expect(() => verifySnapshotFile(path, digest)).toThrow("4096 bytes");
});

test("no file is left when it cannot be made", () => {
  const path = join(folder(), "snapshot.db");
  const db = source();
  db.run("BEGIN");
  expect(() => writeSnapshotFile(db, path)).toThrow();
  expect(existsSync(path)).toBe(false);
});
