/**
 * The way out of a lost majority: one node goes on alone with what it has. What only the others had is
 * lost, and they must never be started again with their old data: they join anew, empty.
 */
import type { Database } from "bun:sqlite";
import { TrilithError } from "../../errors.ts";
import { LogStore, raftIdIn } from "./log-store.ts";

export interface StoredRaft {
  readonly raftId: string;
  readonly voters: readonly string[];
  readonly learners: readonly string[];
  readonly term: number;
  /** Of the last entry of the log. Among nodes, the one with the highest term, then index, has most. */
  readonly lastTerm: number;
  readonly lastIndex: number;
  readonly commitIndex: number;
  readonly appliedIndex: number;
}

function openStored(db: Database): LogStore {
  const raftId = raftIdIn(db);
  const log = raftId === null ? null : new LogStore(db, raftId);
  if (log !== null && !log.isBlank) return log;
  throw new TrilithError(
    "FailedPrecondition",
    "this data directory was never part of a cluster",
    "use the data directory of a node that was",
  );
}

/** What a stopped node has stored. Throws `FailedPrecondition` when nothing, `Corrupted`. */
export function describeRaft(db: Database): StoredRaft {
  const log = openStored(db);
  return {
    raftId: log.raftId,
    voters: log.members.conf.voters,
    learners: log.members.conf.learners,
    term: log.state.term,
    lastTerm: log.termOf(log.lastIndex),
    lastIndex: log.lastIndex,
    commitIndex: log.state.commit,
    appliedIndex: log.applied,
  };
}

/**
 * Makes a stopped node the only member of its cluster, as `raftId`, which was never used before. Its
 * whole log counts as committed. Returns what it was before. Throws as `describeRaft`, and
 * `InvalidArgument` for a raft id that was used.
 */
export function recoverRaft(db: Database, raftId: string, context: string): StoredRaft {
  const before = describeRaft(db);
  const log = openStored(db);
  const { conf, removed } = log.members;
  const isUsed = [before.raftId, ...conf.voters, ...conf.learners, ...removed].includes(raftId);
  if (raftId === "" || isUsed) {
    throw new TrilithError(
      "InvalidArgument",
      `raft id ${raftId} was used before`,
      "take a new one",
    );
  }
  db.transaction(() => log.recover(raftId, context))();
  return before;
}
