/** Raft as its users see it: commands in, the same transactions on every member. Types only. */
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
}

export interface RaftNode {
  /** Puts a command into the log. Resolves with what `apply` returned here once it is applied. */
  propose(command: string, timeoutMs: number): Promise<{ index: number; result: unknown }>;
  /** Resolves when everything that was committed before the call is applied here. */
  readIndex(timeoutMs: number): Promise<number>;
  /** A message from another member. */
  receive(bytes: Uint8Array): void;
  /** A snapshot that came whole and verified; the node moves the file away or removes it. */
  receiveSnapshot(message: Uint8Array, path: string): Promise<void>;
  addLearner(raftId: string, context: string): Promise<void>;
  /** Makes a learner a voter once it has caught up. */
  promote(raftId: string): Promise<void>;
  remove(raftId: string): Promise<void>;
  transferLeadership(toRaftId: string): Promise<void>;
  status(): Omit<StoreStatus, "members"> & {
    readonly voters: readonly string[];
    readonly learners: readonly string[];
    /** Known to the leader only. */
    readonly matchIndexOf: ReadonlyMap<string, number>;
    /** What was given with each member when it was added. */
    readonly contextOf?: ReadonlyMap<string, string>;
  };
  onLeadership(listener: (term: number | null) => void): () => void;
  stop(): Promise<void>;
}
