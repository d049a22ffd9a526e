/**
 * When what was committed is on the disk. While a member runs, a COMMIT of SQLite only writes into the
 * write-ahead log, and this brings that to the disk without the thread waiting for it: requests are
 * read, and other members write, meanwhile.
 *
 * Transactions stand in the write-ahead log one after the other, each with a checksum that covers all
 * before it: whatever a power loss takes are the last ones. So one call makes everything durable that
 * was committed before it, and a transaction that nobody waits for is durable with the next one that
 * somebody does.
 */
import type { Database } from "bun:sqlite";
import { closeSync, fdatasync, openSync, realpathSync } from "node:fs";

export interface Disk {
  /** Calls once everything that was committed before is on the disk, never before it returns. */
  sync(done: (error: Error | null) => void): void;
  /** Nothing is asked of it any more; what is under way ends by itself. */
  close(): void;
}

/** Nothing is durable in memory, and nothing is to be waited for. */
const memory: Disk = {
  sync: (done) => queueMicrotask(() => done(null)),
  close: () => {},
};

/**
 * The disk below a database in WAL mode. SQLite keeps the one file for its write-ahead log as long as
 * the database is open, and takes no locks on it, so that a descriptor of our own does no harm.
 */
export function diskOf(db: Database): Disk {
  const { filename } = db;
  if (filename === "" || filename === ":memory:") return memory;
  let descriptor: number | null = null;
  let underWay = 0;
  let isClosed = false;
  const closeIfIdle = () => {
    if (!isClosed || underWay > 0 || descriptor === null) return;
    closeSync(descriptor);
    descriptor = null;
  };
  return {
    sync(done) {
      descriptor ??= openSync(`${realpathSync(filename)}-wal`, "r+");
      underWay++;
      fdatasync(descriptor, (error) => {
        underWay--;
        closeIfIdle();
        done(error);
      });
    },
    close() {
      isClosed = true;
      closeIfIdle();
    },
  };
}
