/**
 * A cluster of one without a log, in place of raft: proposals are applied in SQLite transactions, in
 * the order they came, several at a time. Leadership is taken and given by the test.
 */
import { Database } from "bun:sqlite";
import type { RaftNode, StateMachine } from "../../src/control/raft/raft.ts";
import { TrilithError } from "../../src/errors.ts";

interface Waiting {
  readonly command: string;
  readonly resolve: (answer: { index: number; result: unknown }) => void;
  readonly reject: (error: TrilithError) => void;
}

export interface LocalRaft extends RaftNode {
  readonly db: Database;
  /** All commands that were applied, in order. */
  readonly commands: readonly string[];
  lead(isLeader: boolean): void;
  /** While held, proposals wait; with `reads`, reads are never answered. */
  hold(what?: "proposals" | "reads"): void;
  release(): void;
  /** Proposals that wait. */
  waiting(): number;
  /** The next proposals are applied, but their answers get lost (`Timeout`). */
  loseAnswers(count: number): void;
}

export interface LocalRaftOptions {
  /** Default: in memory. */
  readonly path?: string;
  /** Not `FULL`: for tests that do not lose power. */
  readonly synchronous?: "FULL" | "OFF";
}

/** Opens the file and hands its tables to the machine; leads from the start. */
export function localRaft(machine: StateMachine, options: LocalRaftOptions = {}): LocalRaft {
  const db = new Database(options.path ?? ":memory:", { create: true, strict: true });
  db.run("PRAGMA journal_mode = WAL");
  db.run(`PRAGMA synchronous = ${options.synchronous ?? "OFF"}`);
  db.run("CREATE TABLE IF NOT EXISTS raft_local (one INTEGER PRIMARY KEY, applied INTEGER)");
  db.run("INSERT OR IGNORE INTO raft_local (one, applied) VALUES (1, 0)");
  const { applied } = db.prepare("SELECT applied FROM raft_local").get() as { applied: number };
  const setApplied = db.prepare("UPDATE raft_local SET applied = ?");
  let index = applied;
  let term = 1;
  let isLeader = true;
  let isHeld = false;
  let isSilent = false;
  let lost = 0;
  let isStopped = false;
  const queue: Waiting[] = [];
  const commands: string[] = [];
  const listeners = new Set<(term: number | null) => void>();
  machine.restored(db, index);

  const flush = () => {
    if (isHeld || isStopped || queue.length === 0) return;
    const batch = queue.splice(0);
    const results: { index: number; result: unknown }[] = [];
    db.transaction(() => {
      for (const { command } of batch) {
        index++;
        results.push({ index, result: machine.apply(db, index, command) });
      }
      setApplied.run(index);
    })();
    batch.forEach(({ command, resolve, reject }, at) => {
      const answer = results[at]!;
      commands.push(command);
      machine.applied(answer.index, answer.result);
      if (lost > 0) {
        lost--;
        reject(new TrilithError("Timeout", "the answer was lost"));
      } else resolve(answer);
    });
  };

  const refuseWaiting = () => {
    for (const { reject } of queue.splice(0)) {
      reject(new TrilithError("Unavailable", "this node does not lead any more"));
    }
  };

  const unsupported = () => Promise.reject(new TrilithError("Unimplemented", "a cluster of one"));
  return {
    db,
    commands,
    lead(leads) {
      if (leads === isLeader) return;
      isLeader = leads;
      if (leads) term++;
      else refuseWaiting();
      for (const listener of listeners) listener(leads ? term : null);
    },
    hold(what = "proposals") {
      isHeld = true;
      isSilent = what === "reads";
    },
    release() {
      isHeld = false;
      isSilent = false;
      flush();
    },
    waiting: () => queue.length,
    loseAnswers(count) {
      lost = count;
    },
    propose(command) {
      if (!isLeader) return Promise.reject(new TrilithError("Unavailable", "does not lead"));
      const { promise, resolve, reject } = Promise.withResolvers<{
        index: number;
        result: unknown;
      }>();
      queue.push({ command, resolve, reject });
      setImmediate(flush);
      return promise;
    },
    async readIndex() {
      await Promise.resolve();
      // Nobody answers: as at a leader that has lost its majority.
      if (isHeld && isSilent) await new Promise(() => {});
      if (!isLeader) throw new TrilithError("Unavailable", "no leader");
      return index;
    },
    receive() {},
    receiveSnapshot: unsupported,
    addLearner: unsupported,
    promote: unsupported,
    remove: unsupported,
    transferLeadership: unsupported,
    status: () => ({
      raftId: "1",
      role: isLeader ? "leader" : "follower",
      term,
      leader: isLeader ? "1" : null,
      commitIndex: index,
      appliedIndex: index,
      firstIndex: index + 1,
      voters: ["1"],
      learners: [],
      matchIndexOf: new Map([["1", index]]),
    }),
    onLeadership(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    async stop() {
      if (isStopped) return;
      isStopped = true;
      refuseWaiting();
      db.close();
    },
  };
}
