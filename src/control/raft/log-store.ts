/**
 * What raft keeps: log, hard state, members, and how far the log is applied and cut. In `raft_*` tables
 * of the node's one SQLite file, so that it changes in the same transaction as the tables that the
 * commands act on. The log is held in memory as well; its length is bounded.
 *
 *   raft_log(idx, term, type, data, crc)    one row per entry; crc covers the other four
 *   raft_meta(name, value, crc)             JSON; crc covers name and value
 *     identity  { version, raftId, incarnation }    incarnation: how often the node was opened
 *     hard      { term, vote, commit, applied }     applied: the state of all other tables
 *     members   { conf, contexts, removed }         as of applied
 *     start     { index, term }                     the entry before the first of the log
 */
import type { Database, Statement } from "bun:sqlite";
import { TrilithError } from "../../errors.ts";
import { crc32cOfText } from "./crc32c.ts";
import {
  ConfState,
  Entry,
  ErrCompacted,
  ErrUnavailable,
  HardState,
  type Snapshot,
  type Storage,
} from "./engine.ts";
import { WAL_PAGES_MAX } from "./limits.ts";
import { confStateOf, isEntryData } from "./wire.ts";

const FORMAT_VERSION = 1;

/** Weight of an entry besides its text, in UTF-16 units. */
const ENTRY_OVERHEAD = 32;

/** Who is in the cluster, as of the applied index. */
export interface Members {
  readonly conf: ConfState;
  /** What was given when a member was added, by raft id. */
  readonly contexts: ReadonlyMap<string, string>;
  /** Raft ids that were removed. They never come back. */
  readonly removed: ReadonlySet<string>;
}

interface Position {
  readonly index: number;
  readonly term: number;
}

export interface HardAndApplied {
  readonly term: number;
  readonly vote: string;
  readonly commit: number;
  readonly applied: number;
}

function corrupted(what: string): TrilithError {
  return new TrilithError(
    "Corrupted",
    `the replicated store is damaged: ${what}`,
    "check the disk; then remove this node from the cluster on another node, empty its data directory " +
      "and join it again. If it is the only node left, restore its data directory from a backup or run " +
      "`trilith cluster rebuild-from-disks`",
  );
}

function textOf(data: unknown): string | null {
  return data === null || typeof data === "string" ? data : JSON.stringify(data);
}

/** Length of an entry as the limits count it. */
export function lengthOf(entry: Entry): number {
  return ENTRY_OVERHEAD + (textOf(entry.data)?.length ?? 0);
}

function crcOfEntry(index: number, term: number, type: number, text: string | null): number {
  return crc32cOfText(`${index} ${term} ${type} ${text === null ? "-" : `=${text}`}`);
}

interface LogRow {
  readonly idx: number;
  readonly term: number;
  readonly type: number;
  readonly data: string | null;
  readonly crc: number;
}

function entryOfRow(row: LogRow): Entry {
  const { idx, term, type, data, crc } = row;
  if (crcOfEntry(idx, term, type, data) !== crc) {
    throw corrupted(`log entry ${idx} does not match its checksum`);
  }
  const value: unknown = type === 0 || data === null ? data : JSON.parse(data);
  if (!isEntryData(type, value)) throw corrupted(`log entry ${idx} has type ${type}`);
  return new Entry({ index: idx, term, type, data: value });
}

/** Makes the tables when they are not there. */
export function createRaftTables(db: Database): void {
  db.run(
    "CREATE TABLE IF NOT EXISTS raft_log (idx INTEGER PRIMARY KEY, term INTEGER NOT NULL, " +
      "type INTEGER NOT NULL, data TEXT, crc INTEGER NOT NULL) STRICT",
  );
  db.run(
    "CREATE TABLE IF NOT EXISTS raft_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL, " +
      "crc INTEGER NOT NULL) STRICT, WITHOUT ROWID",
  );
}

/** Sets what makes a commit durable; the file is one node's and nobody else's. */
export function makeDurable(db: Database): void {
  db.run("PRAGMA journal_mode = WAL");
  db.run(`PRAGMA wal_autocheckpoint = ${WAL_PAGES_MAX}`);
  syncEachCommit(db, true);
}

/** Whether a COMMIT waits for the disk itself; otherwise that is up to `disk.ts`. Not in a transaction. */
export function syncEachCommit(db: Database, isOn: boolean): void {
  db.run(`PRAGMA synchronous = ${isOn ? "FULL" : "NORMAL"}`);
}

/** The raft id that a file belongs to; null when it belongs to none yet. Throws `Corrupted`. */
export function raftIdIn(db: Database): string | null {
  createRaftTables(db);
  const identity = readMeta(db, "identity") as { raftId: string } | null;
  return identity?.raftId ?? null;
}

function readMeta(db: Database, name: string): unknown {
  const row = db
    .query<{ value: string; crc: number }, [string]>(
      "SELECT value, crc FROM raft_meta WHERE name = ?",
    )
    .get(name);
  if (row === null) return null;
  if (crc32cOfText(`${name} ${row.value}`) !== row.crc) {
    throw corrupted(`its record "${name}" does not match its checksum`);
  }
  return JSON.parse(row.value);
}

export class LogStore implements Storage {
  readonly raftId: string;
  /** Grows each time the node is opened: answers to an earlier life can be told apart. */
  readonly incarnation: number;
  readonly #db: Database;
  readonly #insertEntry: Statement;
  readonly #putMeta: Statement;
  /** Entries after `#start`, without a gap. */
  #entries: Entry[] = [];
  #length = 0;
  #start: Position = { index: 0, term: 0 };
  #state: HardAndApplied = { term: 0, vote: "", commit: 0, applied: 0 };
  #members: Members = { conf: new ConfState(), contexts: new Map(), removed: new Set() };
  /** Makes the snapshot that the engine asks for; set by the node. */
  snapshotSource: () => [Snapshot, Error | null] = () => {
    throw new TrilithError("Internal", "raft: no source of snapshots");
  };

  /**
   * Opens what is stored for `raftId`, or starts empty. Throws `Corrupted` when a checksum or the
   * order of the log is wrong, `FailedPrecondition` when the file belongs to another member.
   */
  constructor(db: Database, raftId: string) {
    this.#db = db;
    this.raftId = raftId;
    makeDurable(db);
    createRaftTables(db);
    this.#insertEntry = db.prepare("INSERT INTO raft_log VALUES (?, ?, ?, ?, ?)");
    this.#putMeta = db.prepare("INSERT OR REPLACE INTO raft_meta VALUES (?, ?, ?)");
    const identity = this.#readMeta("identity") as { raftId: string; incarnation: number } | null;
    if (identity !== null && identity.raftId !== raftId) {
      throw new TrilithError(
        "FailedPrecondition",
        `the data directory belongs to raft member ${identity.raftId}, not ${raftId}`,
        "start with the data directory of this node, or with an empty one and join again",
      );
    }
    this.incarnation = (identity?.incarnation ?? 0) + 1;
    this.#load();
    this.#writeMeta("identity", { version: FORMAT_VERSION, raftId, incarnation: this.incarnation });
  }

  get applied(): number {
    return this.#state.applied;
  }

  get state(): HardAndApplied {
    return this.#state;
  }

  get members(): Members {
    return this.#members;
  }

  get firstIndex(): number {
    return this.#start.index + 1;
  }

  get lastIndex(): number {
    return this.#start.index + this.#entries.length;
  }

  /** Entries in the log and their length in UTF-16 units. */
  get size(): { readonly entries: number; readonly length: number } {
    return { entries: this.#entries.length, length: this.#length };
  }

  /** True when the node was never part of a cluster. */
  get isBlank(): boolean {
    return this.#start.index === 0 && this.#entries.length === 0 && this.#state.term === 0;
  }

  #readMeta(name: string): unknown {
    return readMeta(this.#db, name);
  }

  #writeMeta(name: string, value: unknown): void {
    const text = JSON.stringify(value);
    this.#putMeta.run(name, text, crc32cOfText(`${name} ${text}`));
  }

  #load(): void {
    this.#start = (this.#readMeta("start") as Position | null) ?? this.#start;
    this.#state = (this.#readMeta("hard") as HardAndApplied | null) ?? this.#state;
    const members = this.#readMeta("members") as {
      conf: unknown;
      contexts: [string, string][];
      removed: string[];
    } | null;
    if (members !== null) {
      this.#members = {
        conf: confStateOf(members.conf),
        contexts: new Map(members.contexts),
        removed: new Set(members.removed),
      };
    }
    const rows = this.#db.query<LogRow, []>("SELECT * FROM raft_log ORDER BY idx").iterate();
    for (const row of rows) {
      const entry = entryOfRow(row);
      if (entry.index !== this.lastIndex + 1) {
        throw corrupted(`log entry ${this.lastIndex + 1} is missing`);
      }
      this.#entries.push(entry);
      this.#length += lengthOf(entry);
    }
    const { commit, applied } = this.#state;
    if (applied < this.#start.index || commit < applied || this.lastIndex < commit) {
      throw corrupted(
        `log ${this.firstIndex}..${this.lastIndex}, committed ${commit}, applied ${applied}`,
      );
    }
  }

  // ------------------------------------------------------------------- what the engine reads

  InitialState(): [HardState, ConfState, Error | null] {
    const { term, vote, commit } = this.#state;
    return [new HardState({ term, vote, commit }), this.#members.conf, null];
  }

  /** Entries `low` <= index < `high`, at most `lengthMax` of them in UTF-16 units, but at least one. */
  Entries(low: number, high: number, lengthMax: number): [Entry[], Error | null] {
    if (low <= this.#start.index) return [[], new ErrCompacted()];
    if (high > this.lastIndex + 1) return [[], new ErrUnavailable()];
    const from = low - this.firstIndex;
    let length = 0;
    let to = from;
    while (to < high - this.firstIndex) {
      length += lengthOf(this.#entries[to]!);
      if (to > from && length > lengthMax) break;
      to++;
    }
    return [this.#entries.slice(from, to), null];
  }

  Term(index: number): [number, Error | null] {
    if (index === this.#start.index) return [this.#start.term, null];
    if (index < this.#start.index) return [0, new ErrCompacted()];
    const entry = this.#entries[index - this.firstIndex];
    return entry === undefined ? [0, new ErrUnavailable()] : [entry.term, null];
  }

  LastIndex(): [number, Error | null] {
    return [this.lastIndex, null];
  }

  FirstIndex(): [number, Error | null] {
    return [this.firstIndex, null];
  }

  Snapshot(): [Snapshot, Error | null] {
    return this.snapshotSource();
  }

  /** Term of an entry, or of the one before the log. 0 when it is not known. */
  termOf(index: number): number {
    return this.Term(index)[0];
  }

  // ------------------------------------------- what the node writes, inside its transaction

  /** Appends entries; those that stand at their indexes, and all after, go. */
  append(entries: readonly Entry[]): void {
    const first = entries[0];
    if (first === undefined) return;
    if (first.index <= this.#start.index || first.index > this.lastIndex + 1) {
      throw new TrilithError("Internal", `raft: append at ${first.index} to ..${this.lastIndex}`);
    }
    if (first.index <= this.lastIndex) {
      this.#db.query("DELETE FROM raft_log WHERE idx >= ?").run(first.index);
      for (const gone of this.#entries.splice(first.index - this.firstIndex)) {
        this.#length -= lengthOf(gone);
      }
    }
    for (const entry of entries) {
      const { index, term, type } = entry;
      const text = textOf(entry.data);
      this.#insertEntry.run(index, term, type, text, crcOfEntry(index, term, type, text));
      this.#entries.push(entry);
      this.#length += lengthOf(entry);
    }
  }

  saveState(state: HardAndApplied): void {
    this.#state = state;
    this.#writeMeta("hard", state);
  }

  saveMembers(members: Members): void {
    this.#members = members;
    this.#writeMeta("members", {
      conf: members.conf,
      contexts: [...members.contexts],
      removed: [...members.removed],
    });
  }

  /** Replaces the log by an empty one that goes on after `start`: a snapshot came, or a cluster begins. */
  restart(start: Position, members: Members, state: HardAndApplied): void {
    this.#db.run("DELETE FROM raft_log");
    this.#entries = [];
    this.#length = 0;
    this.#start = start;
    this.#writeMeta("start", start);
    this.saveMembers(members);
    this.saveState(state);
  }

  /**
   * Makes this node the only member, under a raft id that was never used: everything in the log counts
   * as committed, but for changes of the members, which are taken out. To be opened anew after it.
   */
  recover(raftId: string, context: string): void {
    const { conf, removed } = this.#members;
    const tail = this.#entries.slice(this.applied - this.#start.index);
    this.append(
      tail.map(({ index, term, type, data }) =>
        type === 0 ? new Entry({ index, term, type, data }) : new Entry({ index, term }),
      ),
    );
    this.saveMembers({
      conf: new ConfState({ voters: [raftId] }),
      contexts: new Map([[raftId, context]]),
      removed: new Set([...removed, ...conf.voters, ...conf.learners, this.raftId]),
    });
    this.saveState({ ...this.#state, vote: "", commit: this.lastIndex });
    const { incarnation } = this;
    this.#writeMeta("identity", { version: FORMAT_VERSION, raftId, incarnation });
  }

  /** Forgets entries up to `index`, which is applied. */
  compact(index: number): void {
    if (index <= this.#start.index) return;
    if (index > this.#state.applied) {
      throw new TrilithError("Internal", `raft: cut at ${index}, applied ${this.#state.applied}`);
    }
    const start = { index, term: this.termOf(index) };
    this.#db.query("DELETE FROM raft_log WHERE idx <= ?").run(index);
    for (const gone of this.#entries.splice(0, index - this.#start.index)) {
      this.#length -= lengthOf(gone);
    }
    this.#start = start;
    this.#writeMeta("start", start);
  }

  /**
   * Where to cut so that at most `entries` and `length` remain of what is applied; an index that is
   * not after the log's start when nothing is to be cut.
   */
  cutFor(entries: number, length: number): number {
    let index = this.#state.applied;
    let kept = this.lastIndex - index;
    let keptLength = 0;
    while (index > this.#start.index && kept < entries) {
      keptLength += lengthOf(this.#entries[index - this.firstIndex]!);
      if (keptLength > length) break;
      kept++;
      index--;
    }
    return index;
  }
}
