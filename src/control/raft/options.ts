/** What a member is opened with. */
import type { Database } from "bun:sqlite";
import type { RaftClock } from "./clock.ts";
import type { Disk } from "./disk.ts";
import type { RaftLimits } from "./limits.ts";
import type { RaftTransport, StateMachine } from "./raft.ts";

export interface RaftNodeOptions {
  /** Never used again for another member or another disk. */
  readonly raftId: string;
  /** The node's file; it stays the caller's, who closes it after `stop`. */
  readonly db: Database;
  /** For files of snapshots; those named `raft-snapshot-*` in it are the node's. */
  readonly folder: string;
  readonly stateMachine: StateMachine;
  readonly transport: RaftTransport;
  /**
   * Begins a cluster with this node as its only voter, when nothing is stored yet. Without it a node
   * with nothing stored waits until it is added to a cluster.
   */
  readonly bootstrap?: { readonly context: string };
  readonly limits?: Partial<RaftLimits>;
  readonly clock?: RaftClock;
  /** Makes commits of `db` durable. Default: the file's. */
  readonly disk?: Disk;
  /** 0 <= x < 1. */
  readonly random?: () => number;
  /** Called once when the cluster has removed this node; it has stopped then. */
  readonly onRemoved?: () => void;
  /**
   * Called once when the node cannot go on: the disk failed, or a defect. It has stopped then, and what
   * is stored is whole. Without it the error is thrown where nobody catches it, which ends the process.
   */
  readonly onFailure?: (error: unknown) => void;
  /** Told of what failed and is tried again: worth a line in the log. */
  readonly onProblem?: (what: string, error: unknown) => void;
}
