/** The store's own tables (events, requests, meta), and those of the records, as prepared statements. */
import type { Database } from "bun:sqlite";
import type { NewEvent, StoredEvent } from "../model.ts";
import { EVENTS_KEPT, REQUEST_KEPT_MS, REQUESTS_KEPT, REQUESTS_PRUNED_AT_ONCE } from "./limits.ts";
import { openTables, type RecordTables } from "./tables.ts";

export interface EventStatements {
  /** Stores events under the next ids and drops those beyond `EVENTS_KEPT`. */
  append(events: readonly NewEvent[], atMs: number): StoredEvent[];
  /** Events after an id, oldest first. */
  after(sinceId: number, limit: number): StoredEvent[];
  /** Id of the oldest event that is kept, and of the newest ever. 0: none. */
  range(): { oldestId: number; newestId: number };
}

export interface RequestStatements {
  /** JSON of what a request was answered; null when its key is not known (any more). */
  outcome(key: string): string | null;
  remember(request: { key: string; outcome: string }, revision: number, atMs: number): void;
}

export interface StoreStatements {
  readonly tables: RecordTables;
  readonly events: EventStatements;
  readonly requests: RequestStatements;
}

interface Counter {
  get(): number;
  set(value: number): void;
}

/** A number of the `meta` table; 0 while it is not there. */
function openCounter(db: Database, name: string): Counter {
  const get = db.prepare("SELECT value FROM meta WHERE name = ?");
  const set = db.prepare(
    "INSERT INTO meta (name, value) VALUES (?, ?) " +
      "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
  );
  return {
    get: () => (get.get(name) as { value: number } | null)?.value ?? 0,
    set: (value) => {
      set.run(name, value);
    },
  };
}

interface EventRow {
  readonly id: number;
  readonly at_ms: number;
  readonly category: NewEvent["category"];
  readonly action: string;
  readonly target: string;
  readonly node_id: string | null;
  readonly component: string;
  readonly message: string;
}

function eventOf(row: EventRow): StoredEvent {
  const { id, category, action, target, component, message } = row;
  return { id, atMs: row.at_ms, category, action, target, nodeId: row.node_id, component, message };
}

function openEvents(db: Database): EventStatements {
  const last = openCounter(db, "last_event_id");
  const insert = db.prepare(
    "INSERT INTO events (id, at_ms, category, action, target, node_id, component, message) " +
      "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
  );
  const prune = db.prepare("DELETE FROM events WHERE id <= ?");
  const after = db.prepare("SELECT * FROM events WHERE id > ? ORDER BY id LIMIT ?");
  const oldest = db.prepare("SELECT min(id) AS id FROM events");
  return {
    append(events, atMs) {
      if (events.length === 0) return [];
      let id = last.get();
      const stored = events.map((event): StoredEvent => {
        id++;
        const { category, action, target, nodeId, component, message } = event;
        insert.run(id, atMs, category, action, target, nodeId, component, message);
        return { id, atMs, category, action, target, nodeId, component, message };
      });
      last.set(id);
      prune.run(id - EVENTS_KEPT);
      return stored;
    },
    after: (sinceId, limit) => (after.all(sinceId, limit) as EventRow[]).map(eventOf),
    range: () => ({
      oldestId: (oldest.get() as { id: number | null }).id ?? 0,
      newestId: last.get(),
    }),
  };
}

function openRequests(db: Database): RequestStatements {
  const count = openCounter(db, "requests");
  const outcome = db.prepare("SELECT outcome FROM requests WHERE key = ?");
  const insert = db.prepare(
    "INSERT INTO requests (key, revision, at_ms, outcome) VALUES (?, ?, ?, ?)",
  );
  const prune = db.prepare(
    "DELETE FROM requests WHERE key IN " +
      "(SELECT key FROM requests WHERE at_ms < ? ORDER BY at_ms, key LIMIT ?)",
  );
  const forget = db.prepare(
    "DELETE FROM requests WHERE key IN (SELECT key FROM requests ORDER BY at_ms, key LIMIT ?)",
  );
  return {
    outcome: (key) => (outcome.get(key) as { outcome: string } | null)?.outcome ?? null,
    remember({ key, outcome: answer }, revision, atMs) {
      let kept = count.get();
      kept -= prune.run(atMs - REQUEST_KEPT_MS, REQUESTS_PRUNED_AT_ONCE).changes;
      if (kept >= REQUESTS_KEPT) kept -= forget.run(kept - REQUESTS_KEPT + 1).changes;
      insert.run(key, revision, atMs, answer);
      count.set(kept + 1);
    },
  };
}

/** Prepares all statements for the tables as they are now. */
export function openStatements(db: Database): StoreStatements {
  return { tables: openTables(db), events: openEvents(db), requests: openRequests(db) };
}
