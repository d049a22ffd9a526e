/**
 * The raft core: the only file that knows the package it comes from (`@coaty/consensus.raft`, the port
 * of etcd's raft in its folder `ported/`, with the changes in images/patches). A state machine without
 * I/O: messages and ticks in; what to persist, apply and send out.
 *
 * What it asks of its user: a Ready's entries are persisted before or with the application of its
 * committed entries; messages go out after that; every snapshot sent is reported; contexts of reads are
 * strings; what comes over the wire becomes objects of these classes again.
 */
import { setLogger } from "@coaty/consensus.raft/ported/logger";
import { type Ready, SnapshotStatus } from "@coaty/consensus.raft/ported/node";
import { RaftConfig, StateType } from "@coaty/consensus.raft/ported/raft";
import {
  ConfChange,
  ConfChangeType,
  ConfState,
  Entry,
  EntryType,
  HardState,
  Message,
  MessageType,
  Snapshot,
} from "@coaty/consensus.raft/ported/raftpb/raft.pb";
import { RawNode } from "@coaty/consensus.raft/ported/rawnode";
import { ReadOnly } from "@coaty/consensus.raft/ported/readonly";
import {
  ErrCompacted,
  ErrSnapshotTemporarilyUnavailable,
  ErrUnavailable,
  type Storage,
} from "@coaty/consensus.raft/ported/storage";
import { ProgressStateType } from "@coaty/consensus.raft/ported/tracker/state";
import { TrilithError } from "../../errors.ts";

export {
  ConfChange,
  ConfChangeType,
  ConfState,
  Entry,
  EntryType,
  ErrCompacted,
  ErrSnapshotTemporarilyUnavailable,
  ErrUnavailable,
  HardState,
  Message,
  MessageType,
  ProgressStateType,
  type RawNode,
  type Ready,
  Snapshot,
  SnapshotStatus,
  StateType,
  type Storage,
};

if (!("heartbeatCtx" in ReadOnly.prototype)) {
  throw new TrilithError(
    "Internal",
    "the raft package is installed without this project's patch",
    "run `npm run setup`",
  );
}

/** Fills printf-like places the way the engine uses them. */
function format(text: string, values: readonly unknown[]): string {
  let at = 0;
  return text.replace(/%[sdvox]/g, () => String(values[at++]));
}

function panic(text: string, ...values: unknown[]): never {
  throw new TrilithError("Internal", `raft: ${format(text, values)}`);
}

const silent = () => {};

setLogger({
  debugf: silent,
  infof: silent,
  warningf: silent,
  errorf: silent,
  fatalf: panic,
  panicf: panic,
});

export interface EngineOptions {
  readonly raftId: string;
  readonly storage: Storage;
  /** Highest index that is applied already. */
  readonly applied: number;
  readonly electionTicks: number;
  readonly heartbeatTicks: number;
  readonly appendLengthMax: number;
  readonly appendsInFlightMax: number;
  readonly applyLengthMax: number;
  /** 0 <= x < 1: spreads elections. */
  readonly random: () => number;
}

/** A raft core on what the storage holds. Throws `Internal` when that contradicts itself. */
export function startEngine(options: EngineOptions): RawNode {
  const config = new RaftConfig({
    id: options.raftId,
    electionTick: options.electionTicks,
    heartbeatTick: options.heartbeatTicks,
    storage: options.storage,
    applied: options.applied,
    maxSizePerMsg: options.appendLengthMax,
    maxCommittedSizePerReady: options.applyLengthMax,
    maxInflightMsgs: options.appendsInFlightMax,
    checkQuorum: true,
    preVote: true,
    // A proposal that is forwarded may be applied twice or never, and nobody can tell.
    disableProposalForwarding: true,
  });
  // The patch adds it; the package's types do not know it.
  Object.assign(config, { random: options.random });
  return RawNode.NewRawNode(config);
}
