/**
 * Keeps a second control process, and `trilith cluster recover`, out of a data directory that is in use.
 * The lock is SQLite's own on an empty database: the kernel gives it back however the process ends.
 */
import { Database } from "bun:sqlite";
import { TrilithError } from "../../errors.ts";
import { pathsIn } from "./data-dir.ts";

/** Locks a data directory; returns what unlocks it. `InUse` when another process has it. */
export function lockDataDir(dataDir: string): () => void {
  const path = pathsIn(dataDir).lock;
  let db: Database | undefined;
  try {
    db = new Database(path, { create: true });
    db.run("PRAGMA busy_timeout = 0");
    db.run("PRAGMA journal_mode = MEMORY");
    db.run("PRAGMA locking_mode = EXCLUSIVE");
    db.run("BEGIN EXCLUSIVE");
  } catch (error) {
    db?.close();
    if ((error as { code?: unknown }).code !== "SQLITE_BUSY") throw error;
    throw new TrilithError(
      "InUse",
      `the data directory ${dataDir} is used by another control process`,
      `stop it first (\`systemctl stop trilith\`); see \`fuser -v ${path}\``,
    );
  }
  const held = db;
  return () => held.close();
}
