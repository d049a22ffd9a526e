/**
 * The store as raft's state machine: commands change the tables, deterministically, inside raft's own
 * SQLite transaction; afterwards the view in memory follows. Whoever has applied the same commands has
 * the same rows, byte for byte: times come from the command, ids from the tables, and a command that
 * is refused changes nothing on any member.
 */
import type { Database } from "bun:sqlite";
import { assert, unreachable } from "../../assert.ts";
import type { StoredEvent } from "../model.ts";
import type { StateMachine } from "../raft/raft.ts";
import { type Check, decodeCommand, type TransactionCommand } from "./command.ts";
import { EVENTS_KEPT } from "./limits.ts";
import { migrateTo, prepareTables, schemaVersion, storeMigrations } from "./migrations.ts";
import { openStatements, type StoreStatements } from "./statements.ts";
import { keyOf } from "./tables.ts";
import { TableView, type Touched, touchedName } from "./view.ts";

/** What became of a command; the proposer gets it. */
export type Outcome =
  | {
      readonly kind: "applied";
      readonly touched: readonly Touched[];
      readonly events: readonly StoredEvent[];
    }
  /** The request was applied before: JSON of what it was answered. */
  | { readonly kind: "repeated"; readonly outcome: string }
  /** A record was not as expected. */
  | { readonly kind: "conflict"; readonly check: Check; readonly found: number }
  | { readonly kind: "migrated"; readonly version: number };

/** Hears what was applied, in order. */
export interface MachineListener {
  applied(
    touched: ReadonlySet<string>,
    events: readonly StoredEvent[],
    view: TableView,
    index: number,
  ): void;
}

const NOTHING: ReadonlySet<string> = new Set();

export class StoreMachine implements StateMachine {
  readonly #migrations: readonly string[];
  #database: Database | null = null;
  #statements: StoreStatements | null = null;
  #view: TableView | null = null;
  #listener: MachineListener | null = null;
  #lastEventId = 0;

  /** `migrations`: other than those of this executable, for tests. */
  constructor(migrations: readonly string[] = storeMigrations) {
    this.#migrations = migrations;
  }

  /** The newest version of the tables that is known here. */
  get knownVersion(): number {
    return this.#migrations.length;
  }

  /** Sets who hears of changes. */
  listen(listener: MachineListener): void {
    assert(this.#listener === null, "a store machine has one listener");
    this.#listener = listener;
  }

  view(): TableView {
    assert(this.#view !== null, "the store machine was given its tables");
    return this.#view;
  }

  /** Statements on the tables as they are now. */
  statements(): StoreStatements {
    assert(this.#statements !== null, "the store machine was given its tables");
    return this.#statements;
  }

  /** Version of the tables. */
  schemaVersion(): number {
    assert(this.#database !== null, "the store machine was given its tables");
    return schemaVersion(this.#database);
  }

  restored(db: Database, appliedIndex: number): void {
    const former = this.#view;
    prepareTables(db, this.#migrations);
    this.#open(db);
    this.#view = TableView.load(this.statements().tables, appliedIndex);
    const since = this.#lastEventId;
    const { events } = this.statements();
    this.#lastEventId = events.range().newestId;
    if (former === null) return;
    const touched = former.names().union(this.#view.names());
    // What happened meanwhile is told, as far as it is kept.
    const missed = events.after(since, EVENTS_KEPT);
    this.#listener?.applied(touched, missed, this.#view, appliedIndex);
  }

  #open(db: Database): void {
    this.#database = db;
    this.#statements = openStatements(db);
  }

  apply(db: Database, index: number, text: string): Outcome {
    if (db !== this.#database) this.#open(db);
    const command = decodeCommand(text);
    switch (command.kind) {
      case "transaction":
        return applyTransaction(this.statements(), index, command);
      case "migrate":
        migrateTo(db, command.toVersion, this.#migrations);
        this.#open(db);
        return { kind: "migrated", version: schemaVersion(db) };
      default:
        return unreachable(command);
    }
  }

  applied(index: number, result: unknown): void {
    const outcome = result as Outcome;
    if (outcome.kind === "migrated") {
      // New columns: the records in memory get them too.
      this.#view = TableView.load(this.statements().tables, index);
      this.#listener?.applied(this.#view.names(), [], this.#view, index);
      return;
    }
    if (outcome.kind !== "applied") {
      this.#view = this.view().with(index, []);
      this.#listener?.applied(NOTHING, [], this.#view, index);
      return;
    }
    this.#view = this.view().with(index, outcome.touched);
    this.#lastEventId = outcome.events.at(-1)?.id ?? this.#lastEventId;
    const names = new Set(outcome.touched.map(({ table, key }) => touchedName(table, key)));
    this.#listener?.applied(names, outcome.events, this.#view, index);
  }
}

function applyTransaction(
  statements: StoreStatements,
  index: number,
  command: TransactionCommand,
): Outcome {
  const { tables, requests, events } = statements;
  if (command.request !== null) {
    const outcome = requests.outcome(command.request.key);
    if (outcome !== null) return { kind: "repeated", outcome };
  }
  for (const check of command.checks) {
    const found = tables[check.table].revision(check.key);
    if (found !== check.revision) return { kind: "conflict", check, found };
  }
  const touched = command.changes.map((change): Touched => {
    // The table and its record belong together, which the compiler cannot follow through an index.
    const table = tables[change.table] as (typeof tables)["nodes"];
    if ("remove" in change) {
      table.remove(change.remove);
      return { table: change.table, key: change.remove, record: null };
    }
    const record = table.put(change.put as Parameters<typeof table.put>[0], index);
    const key = keyOf(change.table, change.put);
    return { table: change.table, key, record } as unknown as Touched;
  });
  const stored = events.append(command.events, command.nowMs);
  if (command.request !== null) requests.remember(command.request, index, command.nowMs);
  return { kind: "applied", touched, events: stored };
}
