/**
 * Snapshots: an SQLite file with all tables but raft's own, and its SHA-256. Made from, and put in
 * place of, the tables of the node's file within one transaction of that: whoever opens the file
 * after a crash finds all of the old tables or all of the new.
 */
import { Database } from "bun:sqlite";
import { closeSync, fsyncSync, openSync, readSync, rmSync } from "node:fs";
import { TrilithError } from "../../errors.ts";

const READ_BYTES = 1 << 20;
/** Name under which the snapshot's file is attached. */
const ATTACHED = "raft_snapshot";

export interface FileDigest {
  readonly sizeBytes: number;
  /** SHA-256 in hexadecimal digits. */
  readonly sha256: string;
}

/** Size and checksum of a file. */
export function digestOf(path: string): FileDigest {
  const hasher = new Bun.CryptoHasher("sha256");
  const buffer = new Uint8Array(READ_BYTES);
  const file = openSync(path, "r");
  try {
    let sizeBytes = 0;
    for (;;) {
      const count = readSync(file, buffer, 0, buffer.length, null);
      if (count === 0) return { sizeBytes, sha256: hasher.digest("hex") };
      hasher.update(buffer.subarray(0, count));
      sizeBytes += count;
    }
  } finally {
    closeSync(file);
  }
}

interface SchemaRow {
  readonly type: string;
  readonly name: string;
  readonly sql: string | null;
}

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** Everything in a schema that is not raft's or SQLite's own: tables first, then what stands on them. */
function schemaOf(db: Database, schema: string): { tables: SchemaRow[]; others: SchemaRow[] } {
  const rows = db
    .query<SchemaRow, []>(
      `SELECT type, name, sql FROM ${schema}.sqlite_schema WHERE sql IS NOT NULL ` +
        "AND substr(tbl_name, 1, 5) <> 'raft_' AND substr(name, 1, 7) <> 'sqlite_' ORDER BY rowid",
    )
    .all();
  const isTable = (row: SchemaRow) => row.type === "table";
  return { tables: rows.filter(isTable), others: rows.filter((row) => !isTable(row)) };
}

interface ColumnRow {
  readonly name: string;
  readonly type: string;
  readonly pk: number;
  /** 0 for a column that is stored; others are generated. */
  readonly hidden: number;
}

/** The columns to copy; with the row's id when nothing else stands for it, so that order stays. */
function columnsOf(db: Database, schema: string, table: string): string {
  const columns = db.query<ColumnRow, []>(`PRAGMA ${schema}.table_xinfo(${quoted(table)})`).all();
  const listed = db
    .query<{ wr: number }, []>(`PRAGMA ${schema}.table_list(${quoted(table)})`)
    .get();
  const keys = columns.filter((column) => column.pk > 0);
  const isRowId = keys.length === 1 && keys[0]!.type.toUpperCase() === "INTEGER";
  const names = columns.filter((column) => column.hidden === 0).map((c) => quoted(c.name));
  return (listed?.wr === 1 || isRowId ? names : ["rowid", ...names]).join(", ");
}

function copyRows(db: Database, from: string, to: string, tables: readonly SchemaRow[]): void {
  for (const { name } of tables) {
    const columns = columnsOf(db, from, name);
    const table = quoted(name);
    db.run(`INSERT INTO ${to}.${table} (${columns}) SELECT ${columns} FROM ${from}.${table}`);
  }
  const hasCounters = db
    .query(`SELECT 1 FROM ${from}.sqlite_schema WHERE name = 'sqlite_sequence'`)
    .get();
  if (hasCounters === null) return;
  db.run(`DELETE FROM ${to}.sqlite_sequence`);
  db.run(
    `INSERT INTO ${to}.sqlite_sequence SELECT * FROM ${from}.sqlite_sequence ` +
      "WHERE substr(name, 1, 5) <> 'raft_'",
  );
}

function runAll(db: Database, rows: readonly SchemaRow[]): void {
  for (const { sql } of rows) db.run(sql!);
}

/**
 * Writes the tables of `db` (not raft's) into a new file, durable when it returns. No transaction may
 * be open on `db`.
 */
export function writeSnapshotFile(db: Database, path: string): FileDigest {
  rmSync(path, { force: true });
  const { tables, others } = schemaOf(db, "main");
  const file = new Database(path, { create: true });
  try {
    file.run("PRAGMA journal_mode = OFF");
    file.run("PRAGMA synchronous = OFF");
    runAll(file, tables);
    if (tables.length === 0) file.run("PRAGMA user_version = 1"); // A file without a table has no bytes.
    file.close();
    db.run(`ATTACH ? AS ${ATTACHED}`, [path]);
    try {
      db.run(`PRAGMA ${ATTACHED}.journal_mode = OFF`);
      db.run(`PRAGMA ${ATTACHED}.synchronous = OFF`);
      db.transaction(() => copyRows(db, "main", ATTACHED, tables))();
    } finally {
      db.run(`DETACH ${ATTACHED}`);
    }
    const again = new Database(path);
    runAll(again, others);
    again.close();
    const descriptor = openSync(path, "r");
    fsyncSync(descriptor);
    closeSync(descriptor);
    return digestOf(path);
  } catch (error) {
    rmSync(path, { force: true });
    throw error;
  }
}

/** Throws `Corrupted` when a file is not what was sent. */
export function verifySnapshotFile(path: string, expected: FileDigest): void {
  const found = digestOf(path);
  if (found.sizeBytes === expected.sizeBytes && found.sha256 === expected.sha256) return;
  throw new TrilithError(
    "Corrupted",
    `a snapshot of ${expected.sizeBytes} bytes arrived damaged (${found.sizeBytes} bytes)`,
    "it is sent again by itself; if this recurs, check memory and network of both nodes",
  );
}

/**
 * Runs `transaction` with a snapshot at hand, to be put in place by `replace`, which is to be called
 * once within a transaction. Whatever becomes of that is not this function's.
 */
export function withSnapshotFile(
  db: Database,
  path: string,
  transaction: (replace: () => void) => void,
): void {
  const keys = db.query<{ foreign_keys: number }, []>("PRAGMA foreign_keys").get()!.foreign_keys;
  // Dropping a table would delete row by row, against every reference. Cannot be set in a transaction.
  db.run("PRAGMA foreign_keys = OFF");
  db.run(`ATTACH ? AS ${ATTACHED}`, [path]);
  try {
    transaction(() => replaceTables(db));
  } finally {
    db.run(`DETACH ${ATTACHED}`);
    db.run(`PRAGMA foreign_keys = ${keys}`);
  }
}

function replaceTables(db: Database): void {
  const old = schemaOf(db, "main");
  const isView = (row: SchemaRow) => row.type === "view";
  for (const { name } of old.others.filter(isView)) db.run(`DROP VIEW main.${quoted(name)}`);
  for (const { name } of old.tables) db.run(`DROP TABLE main.${quoted(name)}`);
  const { tables, others } = schemaOf(db, ATTACHED);
  runAll(db, tables);
  copyRows(db, ATTACHED, "main", tables);
  runAll(db, others);
}
