/**
 * The replicated store as one map in memory: what stands on it can be tested without raft. Checks
 * revisions as the real one does. Leadership is given and taken by the test.
 */

import type { StoreView } from "../../../src/control/cluster-state.ts";
import type { StoredEvent, TableName, Tables } from "../../../src/control/model.ts";
import type { Change } from "../../../src/control/planner/plan.ts";
import type { Proposal, Store, StoreStatus } from "../../../src/control/store/store.ts";
import { keyOf, type RecordTables, tableNames } from "../../../src/control/store/tables.ts";
import { TableView, type Touched, touchedName } from "../../../src/control/store/view.ts";
import { TrilithError } from "../../../src/errors.ts";

const ATTEMPTS_MAX = 10;

function emptyTables(): RecordTables {
  const entries = tableNames.map((name) => [name, { all: () => [] }]);
  return Object.fromEntries(entries) as unknown as RecordTables;
}

export class MemoryStore implements Store {
  #view = TableView.load(emptyTables(), 0);
  #index = 0;
  #isLeader = true;
  readonly #events: StoredEvent[] = [];
  readonly #listeners = new Set<(touched: ReadonlySet<string>, view: StoreView) => void>();
  readonly #leadership = new Set<(term: number | null) => void>();
  readonly #eventListeners = new Set<(event: StoredEvent) => void>();
  /** Called before each transaction is applied; may throw. */
  beforeApply: (proposal: Proposal) => void = () => {};
  /** Called between a decision and its application: others may be faster. */
  meanwhile: () => void = () => {};

  view(): StoreView {
    return this.#view.tables;
  }

  async latest(): Promise<StoreView> {
    await Promise.resolve();
    return this.view();
  }

  async transact<T>(decide: (view: StoreView) => Proposal & { readonly value: T }): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      if (!this.#isLeader) throw new TrilithError("Unavailable", "this node does not lead");
      const proposal = decide(this.view());
      await Promise.resolve(); // Others may come in between, as with the real one.
      if (!this.#isLeader) throw new TrilithError("Timeout", "leadership was lost");
      this.meanwhile();
      this.beforeApply(proposal);
      if (this.#apply(proposal)) return proposal.value;
      if (attempt === ATTEMPTS_MAX) throw new TrilithError("Conflict", "records keep changing");
    }
  }

  /** Writes records as they are, for the beginning of a test. */
  seed(...records: Change[]): void {
    if (!this.#apply({ changes: records, events: [] })) throw new Error("seeded twice");
  }

  #apply({ changes, events }: Proposal): boolean {
    for (const change of changes) {
      const isPut = "put" in change;
      const key = isPut ? keyOf(change.table, change.put) : change.remove;
      const now = this.#view.revisionOf(change.table, key);
      const expected = isPut ? change.put.revision : (change.revision ?? now);
      if (now !== expected) return false;
    }
    this.#index++;
    const touched = changes.map((change) => {
      const { table } = change;
      if (!("put" in change)) return { table, key: change.remove, record: null };
      const record = { ...change.put, revision: this.#index } as Tables[TableName];
      return { table, key: keyOf(table, record), record };
    }) as Touched[];
    this.#view = this.#view.with(this.#index, touched);
    for (const event of events) {
      const stored = { ...event, id: this.#events.length + 1, atMs: this.#index };
      this.#events.push(stored);
      for (const listener of this.#eventListeners) listener(stored);
    }
    const names = new Set(touched.map(({ table, key }) => touchedName(table, key)));
    for (const listener of [...this.#listeners]) listener(names, this.view());
    return true;
  }

  subscribe(listener: (touched: ReadonlySet<string>, view: StoreView) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  events(sinceId: number, limit: number): { events: StoredEvent[]; oldestId: number } {
    return { events: this.#events.slice(sinceId, sinceId + limit), oldestId: 1 };
  }

  onEvent(listener: (event: StoredEvent) => void): () => void {
    this.#eventListeners.add(listener);
    return () => this.#eventListeners.delete(listener);
  }

  status(): StoreStatus {
    throw new Error("a store in memory has no raft");
  }

  isLeader(): boolean {
    return this.#isLeader;
  }

  onLeadership(listener: (term: number | null) => void): () => void {
    this.#leadership.add(listener);
    return () => this.#leadership.delete(listener);
  }

  setLeader(isLeader: boolean): void {
    if (isLeader === this.#isLeader) return;
    this.#isLeader = isLeader;
    for (const listener of [...this.#leadership]) listener(isLeader ? this.#index : null);
  }
}
