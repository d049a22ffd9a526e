/**
 * Versions of the tables. Version N is what the first N migrations make. A new store begins at version
 * 1 everywhere; further versions come through the log (`migrate` command), when every member knows
 * them, so that all members change their tables at the same place of the log.
 */
import type { Database } from "bun:sqlite";
import { TrilithError } from "../../errors.ts";
import initial from "./migrations/0000_initial.sql" with { type: "text" };

/** SQL of each migration, as drizzle-kit generated it, in order. */
export const storeMigrations: readonly string[] = [initial];

/** The newest version of the tables that this executable knows. */
export const SCHEMA_VERSION_KNOWN = storeMigrations.length;
/** The version that every new store begins with. */
const SCHEMA_VERSION_FIRST = 1;

/** Version of the tables in a database; 0 when there are none. */
export function schemaVersion(db: Database): number {
  const present = db
    .prepare("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'meta'")
    .get();
  if (present === null) return 0;
  const row = db.prepare("SELECT value FROM meta WHERE name = 'schema_version'").get();
  return (row as { value: number } | null)?.value ?? 0;
}

/**
 * Brings the tables to `version`, inside the transaction that is open. Nothing happens when they are
 * there already. `FailedPrecondition` when the version is not among the migrations.
 */
export function migrateTo(db: Database, version: number, migrations: readonly string[]): void {
  if (version > migrations.length) {
    throw new TrilithError(
      "FailedPrecondition",
      `the store is of version ${version}, this executable knows up to ${migrations.length}`,
      "install the version of Trilith that the other nodes run",
    );
  }
  for (let from = schemaVersion(db); from < version; from++) {
    for (const statement of migrations[from]!.split("--> statement-breakpoint")) db.run(statement);
    db.prepare(
      "INSERT INTO meta (name, value) VALUES ('schema_version', ?) " +
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    ).run(from + 1);
  }
}

/** Makes the tables of a database that has none, and refuses one of a version not known here. */
export function prepareTables(db: Database, migrations: readonly string[]): void {
  const wanted = Math.max(SCHEMA_VERSION_FIRST, schemaVersion(db));
  const prepare = () => migrateTo(db, wanted, migrations);
  if (db.inTransaction) prepare();
  else db.transaction(prepare)();
}
