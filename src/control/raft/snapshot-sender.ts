/**
 * Sends snapshots to members that lag behind the log: a few at a time, each reported to the core whatever
 * becomes of it, because the core sends nothing else to a member that waits for one.
 */
import {
  ErrSnapshotTemporarilyUnavailable,
  type Message,
  type Snapshot,
  SnapshotStatus,
} from "./engine.ts";
import type { RaftLimits } from "./limits.ts";
import type { RaftTransport } from "./raft.ts";
import type { Snapshots } from "./snapshots.ts";
import { encodeMessage } from "./wire.ts";

export interface SnapshotSenderOptions {
  readonly snapshots: Snapshots;
  readonly transport: RaftTransport;
  readonly limits: RaftLimits;
  readonly nowMs: () => number;
  /** Tells the core. */
  readonly report: (to: string, status: SnapshotStatus) => void;
  /** Told of what failed; it is tried again. */
  readonly onProblem: (what: string, error: unknown) => void;
}

/** A snapshot under way. */
interface Sending {
  readonly deadlineMs: number;
  /** Reports what became of it; only the first time counts. */
  readonly end: (status: SnapshotStatus) => void;
}

export class SnapshotSender {
  readonly #options: SnapshotSenderOptions;
  readonly #sending = new Set<Sending>();
  #notBeforeMs = Number.NEGATIVE_INFINITY;

  constructor(options: SnapshotSenderOptions) {
    this.#options = options;
  }

  /** What the core asks for: the snapshot of now, or that none can be sent at the moment. */
  describe(): [Snapshot, Error | null] {
    const { snapshots, limits, nowMs } = this.#options;
    const isBusy = snapshots.sendingCount >= limits.snapshotsSentMax || nowMs() < this.#notBeforeMs;
    return [snapshots.describe(), isBusy ? new ErrSnapshotTemporarilyUnavailable() : null];
  }

  /** Makes the file for a message of the core and sends both. */
  send(message: Message): void {
    const { snapshots, transport, limits, report, onProblem } = this.#options;
    const { to } = message;
    const nowMs = this.#options.nowMs();
    let taken: ReturnType<Snapshots["take"]>;
    try {
      taken = snapshots.take(message);
    } catch (error) {
      // There is no room for it, mostly. The follower stays behind, everything else goes on.
      this.#notBeforeMs = nowMs + limits.snapshotPauseMs;
      onProblem(`a snapshot for raft member ${to} could not be made`, error);
      report(to, SnapshotStatus.SnapshotFailure);
      return;
    }
    const sending: Sending = {
      deadlineMs: nowMs + limits.snapshotTimeoutMs,
      end: (status) => {
        if (!this.#sending.delete(sending)) return;
        taken.release();
        report(to, status);
      },
    };
    this.#sending.add(sending);
    transport.sendSnapshot(to, encodeMessage(taken.message), taken.path).then(
      () => sending.end(SnapshotStatus.SnapshotFinish),
      (error: unknown) => {
        onProblem(`raft member ${to} did not get its snapshot`, error);
        sending.end(SnapshotStatus.SnapshotFailure);
      },
    );
  }

  /** Gives up those that take too long. */
  expire(nowMs: number): void {
    for (const sending of [...this.#sending]) {
      if (sending.deadlineMs <= nowMs) sending.end(SnapshotStatus.SnapshotFailure);
    }
  }
}
