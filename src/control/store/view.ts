/**
 * The tables in memory: views that stay as they were when they were handed out, and are cheap to step
 * forward (see `versioned-map.ts`). Records are never changed in place.
 */
import type { StoreView } from "../cluster-state.ts";
import type { TableName, Tables } from "../model.ts";
import { keyOf, type RecordTables, tableNames } from "./tables.ts";
import { type MapChange, VersionedMap, VersionedSet } from "./versioned-map.ts";

/** A record that was written, or removed (`null`). */
export type Touched = {
  readonly [T in TableName]: {
    readonly table: T;
    readonly key: string;
    readonly record: Tables[T] | null;
  };
}[TableName];

/** How a touched record is named to listeners: `volumes/<uuid>`. */
export function touchedName(table: TableName, key: string): string {
  return `${table}/${key}`;
}

type IndexName =
  | "replicasOfVolume"
  | "replicasOfPool"
  | "nexusesOfVolume"
  | "snapshotsOfVolume"
  | "poolsOfNode";

interface IndexShape<T extends TableName> {
  readonly index: IndexName;
  /** What a record belongs to; null: nothing. */
  readonly by: (record: Tables[T]) => string | null;
}

/** Which indexes a table has. */
const indexShapes: { readonly [T in TableName]?: readonly IndexShape<T>[] } = {
  replicas: [
    { index: "replicasOfVolume", by: (replica) => replica.volumeUuid },
    { index: "replicasOfPool", by: (replica) => replica.poolId },
  ],
  nexuses: [{ index: "nexusesOfVolume", by: (nexus) => nexus.volumeUuid }],
  snapshots: [{ index: "snapshotsOfVolume", by: (snapshot) => snapshot.volumeUuid }],
  pools: [{ index: "poolsOfNode", by: (pool) => pool.nodeId }],
};

const indexNames: readonly IndexName[] = [
  "replicasOfVolume",
  "replicasOfPool",
  "nexusesOfVolume",
  "snapshotsOfVolume",
  "poolsOfNode",
];

type AnyRecord = Tables[TableName];
type RecordMaps = Record<TableName, VersionedMap<AnyRecord>>;
type IndexMaps = Record<IndexName, VersionedMap<VersionedSet>>;
/** Per index and what records belong to: which members come (`true`) or go (`false`). */
type IndexChanges = Map<IndexName, Map<string, Map<string, boolean>>>;

function shapesOf(table: TableName): readonly IndexShape<TableName>[] {
  return (indexShapes[table] ?? []) as readonly IndexShape<TableName>[];
}

function noteMember(
  changes: IndexChanges,
  index: IndexName,
  owner: string,
  key: string,
  isIn: boolean,
): void {
  const owners = changes.get(index) ?? new Map<string, Map<string, boolean>>();
  changes.set(index, owners);
  const members = owners.get(owner) ?? new Map<string, boolean>();
  owners.set(owner, members);
  members.set(key, isIn);
}

function noteIndexes(
  changes: IndexChanges,
  table: TableName,
  key: string,
  before: AnyRecord | undefined,
  after: AnyRecord | null,
): void {
  for (const { index, by } of shapesOf(table)) {
    const from = before === undefined ? null : by(before);
    const to = after === null ? null : by(after);
    if (from === to) continue;
    if (from !== null) noteMember(changes, index, from, key, false);
    if (to !== null) noteMember(changes, index, to, key, true);
  }
}

function steppedIndex(
  map: VersionedMap<VersionedSet>,
  owners: ReadonlyMap<string, ReadonlyMap<string, boolean>>,
): VersionedMap<VersionedSet> {
  const parts: MapChange<VersionedSet>[] = [];
  for (const [owner, members] of owners) {
    const set = (map.get(owner) ?? VersionedSet.of([])).with(members);
    parts.push([owner, set.size === 0 ? undefined : set]);
  }
  return map.with(parts);
}

/** A view, with the types that stepping it forward needs. */
export class TableView {
  readonly appliedIndex: number;
  readonly #records: RecordMaps;
  readonly #indexes: IndexMaps;

  private constructor(appliedIndex: number, records: RecordMaps, indexes: IndexMaps) {
    this.appliedIndex = appliedIndex;
    this.#records = records;
    this.#indexes = indexes;
  }

  /** What the tables hold. */
  static load(tables: RecordTables, appliedIndex: number): TableView {
    const records = {} as RecordMaps;
    const texts = new Map<string, string>();
    const members = Object.fromEntries(
      indexNames.map((index) => [index, new Map<string, string[]>()]),
    ) as Record<IndexName, Map<string, string[]>>;
    for (const table of tableNames) {
      const map = new Map<string, AnyRecord>();
      const shapes = shapesOf(table);
      for (const record of tables[table].all(texts) as Iterable<AnyRecord>) {
        const key = keyOf(table, record);
        map.set(key, record);
        for (const { index, by } of shapes) {
          const owner = by(record);
          if (owner === null) continue;
          const list = members[index].get(owner);
          if (list === undefined) members[index].set(owner, [key]);
          else list.push(key);
        }
      }
      records[table] = VersionedMap.of(map);
    }
    const indexes = {} as IndexMaps;
    for (const index of indexNames) {
      const sets = new Map<string, VersionedSet>();
      for (const [owner, list] of members[index]) sets.set(owner, VersionedSet.of(list));
      indexes[index] = VersionedMap.of(sets);
    }
    return new TableView(appliedIndex, records, indexes);
  }

  /** The view after what a command touched. Only of the newest view. */
  with(appliedIndex: number, touched: readonly Touched[]): TableView {
    if (touched.length === 0) return new TableView(appliedIndex, this.#records, this.#indexes);
    const parts = new Map<TableName, Map<string, AnyRecord | null>>();
    for (const { table, key, record } of touched) {
      const keys = parts.get(table) ?? new Map<string, AnyRecord | null>();
      parts.set(table, keys);
      keys.set(key, record);
    }
    const records = { ...this.#records };
    const changes: IndexChanges = new Map();
    for (const [table, keys] of parts) {
      const map = records[table];
      const steps: MapChange<AnyRecord>[] = [];
      for (const [key, record] of keys) {
        noteIndexes(changes, table, key, map.get(key), record);
        steps.push([key, record ?? undefined]);
      }
      records[table] = map.with(steps);
    }
    const indexes = { ...this.#indexes };
    for (const [index, owners] of changes) indexes[index] = steppedIndex(indexes[index], owners);
    return new TableView(appliedIndex, records, indexes);
  }

  #tables: StoreView | null = null;
  /** The view as everybody else sees it. */
  get tables(): StoreView {
    this.#tables ??= {
      appliedIndex: this.appliedIndex,
      ...this.#records,
      ...this.#indexes,
    } as unknown as StoreView;
    return this.#tables;
  }

  /** Revision of a record, 0 when there is none. */
  revisionOf(table: TableName, key: string): number {
    return this.#records[table].get(key)?.revision ?? 0;
  }

  /** Names of all records. */
  names(): Set<string> {
    const names = new Set<string>();
    for (const table of tableNames) {
      for (const key of this.#records[table].keys()) names.add(touchedName(table, key));
    }
    return names;
  }
}
