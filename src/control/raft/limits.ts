/** Every bound of raft. All can be set by who opens a node, so that tests reach them. */

export interface RaftLimits {
  /** Length of a tick; elections and heartbeats are counted in ticks. */
  readonly tickMs: number;
  readonly heartbeatTicks: number;
  /** A follower that hears nothing for one to two times this many ticks asks for votes. */
  readonly electionTicks: number;
  /** Longest command, in UTF-16 units. A longer one is refused with `InvalidArgument`. */
  readonly commandLengthMax: number;
  /** Proposals that wait to be put into the log; beyond it they are refused with `Unavailable`. */
  readonly proposalsQueuedMax: number;
  /** Proposals put into the log with one transaction. */
  readonly proposalsPerBatch: number;
  /** What may be in the log without being committed, in UTF-16 units; beyond it proposals wait. */
  readonly uncommittedLengthMax: number;
  /** Reads that wait for an answer; beyond it they are refused with `Unavailable`. */
  readonly readsMax: number;
  /** Messages that wait to be looked at; beyond it they are dropped, as a network might. */
  readonly inboxMax: number;
  /** Longest message that is looked at; a longer one is dropped. */
  readonly messageBytesMax: number;
  /** Entries in one message to a follower, in UTF-16 units; at least one goes in any case. */
  readonly appendLengthMax: number;
  /** Messages with entries under way to one follower. */
  readonly appendsInFlightMax: number;
  /** Committed entries applied in one transaction, in UTF-16 units; at least one is. */
  readonly applyLengthMax: number;
  /** The log is cut when it is longer than this: in entries, or in UTF-16 units. */
  readonly logEntriesMax: number;
  readonly logLengthMax: number;
  /** What is left of it then, for followers that lag behind; others get a snapshot. */
  readonly logEntriesKept: number;
  readonly logLengthKept: number;
  /** While snapshots are sent the log may grow this many times longer, so that they are of use. */
  readonly logGrowthWhileSending: number;
  /** Snapshots sent at the same time. */
  readonly snapshotsSentMax: number;
  /** A snapshot that is under way for longer has failed. */
  readonly snapshotTimeoutMs: number;
  /** No further attempt for this long after one could not be made: the disk is full, mostly. */
  readonly snapshotPauseMs: number;
  /** A member that said nothing for this many heartbeats does not count as there. */
  readonly silentHeartbeatsMax: number;
  /** How long a change of the members, or of the leader, may take. */
  readonly changeTimeoutMs: number;
  /** How long a learner may take to catch up when it is to be promoted. */
  readonly promoteTimeoutMs: number;
  /** A learner has caught up when it lacks at most this many entries. */
  readonly promoteLagMax: number;
}

export const defaultRaftLimits: RaftLimits = {
  tickMs: 100,
  heartbeatTicks: 1,
  electionTicks: 10,
  commandLengthMax: 4 << 20,
  proposalsQueuedMax: 8_192,
  proposalsPerBatch: 1_024,
  uncommittedLengthMax: 16 << 20,
  readsMax: 16_384,
  inboxMax: 4_096,
  messageBytesMax: 32 << 20,
  appendLengthMax: 1 << 20,
  appendsInFlightMax: 32,
  applyLengthMax: 1 << 20,
  logEntriesMax: 20_000,
  logLengthMax: 16 << 20,
  logEntriesKept: 5_000,
  logLengthKept: 4 << 20,
  logGrowthWhileSending: 4,
  snapshotsSentMax: 2,
  snapshotTimeoutMs: 300_000,
  snapshotPauseMs: 5_000,
  silentHeartbeatsMax: 5,
  changeTimeoutMs: 10_000,
  promoteTimeoutMs: 60_000,
  promoteLagMax: 100,
};

/**
 * The write-ahead log is copied into the database when it has this many pages (of 4 KiB). That writes
 * pages all over the file, and the thread waits for the disk: so it comes rarely, and pages that changed
 * many times are copied once.
 */
export const WAL_PAGES_MAX = 4_000;
