/**
 * A small state machine for raft's tests: keys with texts, and a checksum over everything applied so far,
 * so that two nodes that applied the same have the same row, and others do not.
 */
import type { Database } from "bun:sqlite";
import type { StateMachine } from "../../../src/control/raft/raft.ts";

export type KvCommand =
  | { readonly op: "set"; readonly key: string; readonly value: string }
  | { readonly op: "cas"; readonly key: string; readonly from: string; readonly value: string };

/** Sees what is applied; a simulation checks here. */
export interface KvWatcher {
  applying?(index: number, command: string): void;
  /** `chain` stands for all commands up to `index`. */
  reached?(index: number, chain: string): void;
}

export function createKvTables(db: Database): void {
  db.run("CREATE TABLE IF NOT EXISTS kv (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID");
  db.run("CREATE TABLE IF NOT EXISTS chain (id INTEGER PRIMARY KEY, value TEXT NOT NULL)");
}

export function kvGet(db: Database, key: string): string {
  const row = db.query<{ value: string }, [string]>("SELECT value FROM kv WHERE key = ?").get(key);
  return row?.value ?? "";
}

export function kvChain(db: Database): string {
  return db.query<{ value: string }, []>("SELECT value FROM chain").get()?.value ?? "";
}

/** Results: for `set` true, for `cas` whether the value was the expected one. */
export function kvMachine(watcher: KvWatcher = {}): StateMachine {
  return {
    apply(db, index, command) {
      watcher.applying?.(index, command);
      const parsed = JSON.parse(command) as KvCommand;
      const chain = String(Bun.hash.crc32(`${kvChain(db)} ${index} ${command}`));
      db.query("INSERT OR REPLACE INTO chain VALUES (1, ?)").run(chain);
      const isMatch = parsed.op === "set" || kvGet(db, parsed.key) === parsed.from;
      if (isMatch) {
        db.query("INSERT OR REPLACE INTO kv VALUES (?, ?)").run(parsed.key, parsed.value);
      }
      watcher.reached?.(index, chain);
      return isMatch;
    },
    applied() {},
    restored(db, appliedIndex) {
      createKvTables(db);
      const chain = kvChain(db);
      if (chain !== "") watcher.reached?.(appliedIndex, chain);
    },
  };
}
