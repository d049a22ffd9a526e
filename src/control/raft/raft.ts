/**
 * Raft as its users see it: commands in, the same transactions on every member. Types only. The folder
 * owns log, elections, members and snapshots, and imports nothing but `src/errors.ts`; `raft-node.ts`
 * opens a member, `recovery.ts` is the way out of a lost majority.
 */
import type { Database } from "bun:sqlite";
import type { StoreStatus } from "../store/store.ts";

/**
 * What committed commands act on. Lives in the same SQLite file as raft's log, so that log, hard state
 * and effect of a command are one transaction. Tables whose names begin with `raft_` are raft's own.
 */
export interface StateMachine {
  /**
   * Applies a committed command inside the transaction that is open. Depends on nothing but its
   * arguments and the tables: no clock, no randomness. What it returns is what the proposer gets.
   * When it throws, the transaction is undone and the node fails; it would fail again each time it is
   * started. A command that cannot be carried out is to be answered with a result.
   */
  apply(db: Database, index: number, command: string): unknown;
  /** After the transaction, in order: what was applied. Here caches and listeners are brought up to date. */
  applied(index: number, result: unknown): void;
  /** The tables were replaced by those of a snapshot, or were read for the first time. */
  restored(db: Database, appliedIndex: number): void;
}

/** Carries messages between members; may lose, delay, duplicate and reorder them. */
export interface RaftTransport {
  /** Sends one message. `bytes` is the node's own encoding. Never throws, never blocks. */
  send(toRaftId: string, bytes: Uint8Array): void;
  /**
   * Streams a snapshot file to a member, and resolves when that has it whole and verified; rejects
   * otherwise. `message` belongs to it.
   */
  sendSnapshot(toRaftId: string, message: Uint8Array, path: string): Promise<void>;
  /** What was given to `send` so far leaves now: the thread is about to do something else for a while. */
  flush?(): void;
}

export interface RaftNode {
  /**
   * Puts a command into the log; on the leader only. Resolves with what `apply` returned here once it is
   * applied. Rejects with `Unavailable` when it certainly never takes effect, `Timeout` when that is not
   * known (it may, even later), `InvalidArgument` when it is too long or not well-formed text.
   */
  propose(command: string, timeoutMs: number): Promise<{ index: number; result: unknown }>;
  /**
   * Resolves when everything that was committed before the call is applied here; on any member. Rejects
   * with `Unavailable`.
   */
  readIndex(timeoutMs: number): Promise<number>;
  /** A message from another member. */
  receive(bytes: Uint8Array): void;
  /** A snapshot that came whole and verified; the node moves the file away or removes it. */
  receiveSnapshot(message: Uint8Array, path: string): Promise<void>;
  /**
   * Adds a member that does not vote, on the leader only, as the other changes. `FailedPrecondition` for
   * a raft id that was removed before: it never comes back. All changes are done already when they are
   * so: they can be repeated after a `Timeout`, which says that it is not known what became of one.
   */
  addLearner(raftId: string, context: string): Promise<void>;
  /** Makes a learner a voter once it has caught up; waits for that. */
  promote(raftId: string): Promise<void>;
  /**
   * Removes a member, also the leader itself. Waits until a majority of those that would be left was
   * heard of lately, else `FailedPrecondition`; the last voter stays.
   */
  remove(raftId: string): Promise<void>;
  /** Hands leadership to a voter; proposals are refused meanwhile. `Unavailable` when it does not take it. */
  transferLeadership(toRaftId: string): Promise<void>;
  status(): Omit<StoreStatus, "members"> & {
    readonly voters: readonly string[];
    readonly learners: readonly string[];
    /** Known to the leader only. */
    readonly matchIndexOf: ReadonlyMap<string, number>;
    /** What was given with each member when it was added. */
    readonly contextOf?: ReadonlyMap<string, string>;
  };
  /**
   * Called with the term when this node leads and has applied everything of earlier leaders, with null
   * when that ends. `status().role` says `leader` a little earlier. What is returned ends it.
   */
  onLeadership(listener: (term: number | null) => void): () => void;
  /** Answers everything that waits, and does nothing any more. The file is the caller's to close. */
  stop(): Promise<void>;
}
