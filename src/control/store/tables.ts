/**
 * How records become rows and rows records: read off the drizzle schema, so that there is one
 * description of a table. Statements are prepared for the columns that the tables have *now*: a member
 * whose version knows more of them than the cluster has agreed on writes and reads the older form.
 */
import type { Database, SQLQueryBindings, Statement } from "bun:sqlite";
import { getTableColumns, getTableName } from "drizzle-orm";
import type { SQLiteColumn, SQLiteTable } from "drizzle-orm/sqlite-core";
import type { TableName, Tables } from "../model.ts";
import * as schema from "./schema.ts";

/** The compiler holds the columns against the fields of the model. */
type Shapes = {
  readonly [T in TableName]: {
    readonly table: SQLiteTable & { readonly $inferSelect: Tables[T] };
    readonly key: keyof Tables[T] & string;
  };
};

const shapes: Shapes = {
  nodes: { table: schema.nodes, key: "id" },
  pools: { table: schema.pools, key: "id" },
  volumes: { table: schema.volumes, key: "uuid" },
  replicas: { table: schema.replicas, key: "uuid" },
  nexuses: { table: schema.nexuses, key: "uuid" },
  snapshots: { table: schema.snapshots, key: "uuid" },
  appNodes: { table: schema.appNodes, key: "id" },
  watches: { table: schema.watches, key: "id" },
  rebuildHistory: { table: schema.rebuildHistory, key: "id" },
  tokens: { table: schema.tokens, key: "id" },
  settings: { table: schema.settings, key: "key" },
};

export const tableNames = Object.keys(shapes) as readonly TableName[];

/** The key of a record. */
export function keyOf<T extends TableName>(table: T, record: Tables[T]): string {
  return (record as unknown as Record<string, string>)[shapes[table].key]!;
}

interface Field {
  readonly name: string;
  readonly column: SQLiteColumn;
}

/** Columns of a drizzle table that the database has. */
function fieldsOf(db: Database, table: SQLiteTable): { present: Field[]; absent: Field[] } {
  const name = getTableName(table);
  const rows = db.prepare(`PRAGMA table_info("${name}")`).all() as { name: string }[];
  const have = new Set(rows.map((row) => row.name));
  const all = Object.entries(getTableColumns(table)).map(([field, column]) => ({
    name: field,
    column: column as SQLiteColumn,
  }));
  return {
    present: all.filter(({ column }) => have.has(column.name)),
    absent: all.filter(({ column }) => !have.has(column.name)),
  };
}

function toDriver(column: SQLiteColumn, value: unknown): SQLQueryBindings {
  if (value === null || value === undefined) return null;
  return column.mapToDriverValue(value) as SQLQueryBindings;
}

function fromDriver(column: SQLiteColumn, value: unknown): unknown {
  return value === null ? null : column.mapFromDriverValue(value);
}

/**
 * The same text for equal texts: most texts of records are ids of other records, states and kinds, and
 * SQLite makes a new one of each field of each row.
 */
function shared(texts: Map<string, string>, value: unknown): unknown {
  if (typeof value !== "string") return value;
  const known = texts.get(value);
  if (known !== undefined) return known;
  texts.set(value, value);
  return value;
}

/** Statements of one table of records. */
export interface RecordTable<T extends TableName> {
  /** Revision of the record with that key, 0 when there is none. */
  revision(key: string): number;
  /** Writes the record with `revision`, and returns it as it is stored: fields without column are gone. */
  put(record: Tables[T], revision: number): Tables[T];
  remove(key: string): void;
  /** All records, in the order of keys. `texts` holds what `shared` shares. */
  all(texts?: Map<string, string>): Iterable<Tables[T]>;
}

function openTable<T extends TableName>(db: Database, name: T): RecordTable<T> {
  const { table, key } = shapes[name];
  const { present, absent } = fieldsOf(db, table);
  const sqlName = `"${getTableName(table)}"`;
  const keyColumn = `"${present.find((field) => field.name === key)!.column.name}"`;
  const columns = present.map(({ column }) => `"${column.name}"`);
  const updates = columns.filter((column) => column !== keyColumn);
  const select: Statement = db.prepare(`SELECT revision FROM ${sqlName} WHERE ${keyColumn} = ?`);
  const upsert: Statement = db.prepare(
    `INSERT INTO ${sqlName} (${columns.join(", ")}) VALUES (${columns.map(() => "?").join(", ")}) ` +
      `ON CONFLICT (${keyColumn}) DO UPDATE SET ` +
      updates.map((column) => `${column} = excluded.${column}`).join(", "),
  );
  const remove: Statement = db.prepare(`DELETE FROM ${sqlName} WHERE ${keyColumn} = ?`);
  const recordOf = (read: (field: Field, index: number) => unknown): Tables[T] => {
    const record: Record<string, unknown> = {};
    present.forEach((field, index) => {
      record[field.name] = read(field, index);
    });
    for (const { name: field, column } of absent) record[field] = column.default ?? null;
    return record as unknown as Tables[T];
  };
  return {
    revision(recordKey) {
      return (select.get(recordKey) as { revision: number } | null)?.revision ?? 0;
    },
    put(record, revision) {
      const given = record as unknown as Record<string, unknown>;
      const stored = recordOf(({ name: field }) =>
        field === "revision" ? revision : (given[field] ?? null),
      );
      const fields = stored as unknown as Record<string, unknown>;
      upsert.run(...present.map(({ name: field, column }) => toDriver(column, fields[field])));
      return stored;
    },
    remove(recordKey) {
      remove.run(recordKey);
    },
    *all(texts = new Map<string, string>()) {
      const rows = db.prepare(
        `SELECT ${columns.join(", ")} FROM ${sqlName} ORDER BY ${keyColumn}`,
      ) as Statement<Record<string, unknown>, []>;
      for (const row of rows.iterate()) {
        yield recordOf(({ column }) => shared(texts, fromDriver(column, row[column.name])));
      }
    },
  };
}

export type RecordTables = { readonly [T in TableName]: RecordTable<T> };

/** Prepares the statements of all tables of records. */
export function openTables(db: Database): RecordTables {
  const entries = tableNames.map((name) => [name, openTable(db, name)]);
  return Object.fromEntries(entries) as RecordTables;
}
