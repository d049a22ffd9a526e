/**
 * Requests to change who is in the cluster or who leads it. Level-triggered: a request is looked at
 * until the state shows that it is fulfilled, it is impossible, or its time is over. The log takes one
 * change of the members at a time.
 */
import { TrilithError } from "../../errors.ts";
import {
  ConfChange,
  ConfChangeType,
  type ConfState,
  Entry,
  EntryType,
  Message,
  MessageType,
  ProgressStateType,
  type RawNode,
  StateType,
} from "./engine.ts";
import type { RaftLimits } from "./limits.ts";
import type { LogStore, Members } from "./log-store.ts";

export type ChangeKind = "add-learner" | "promote" | "remove" | "transfer";

interface Request {
  readonly kind: ChangeKind;
  readonly raftId: string;
  readonly context: string;
  readonly deadlineMs: number;
  readonly resolve: () => void;
  readonly reject: (error: TrilithError) => void;
  /** True once it may take effect without us. */
  isUnderWay: boolean;
  /** What it waits for; null when nothing but the log. */
  waitsFor: string | null;
}

const changeTypes = {
  "add-learner": ConfChangeType.ConfChangeAddLearnerNode,
  promote: ConfChangeType.ConfChangeAddNode,
  remove: ConfChangeType.ConfChangeRemoveNode,
} as const;

function hasVoter(conf: ConfState, raftId: string): boolean {
  return conf.voters.includes(raftId);
}

function hasLearner(conf: ConfState, raftId: string): boolean {
  return conf.learners.includes(raftId);
}

/**
 * Why a committed change has no effect; null when it has. Every member decides this alike: it depends
 * on nothing but the members at that place of the log.
 */
export function whyWithoutEffect(change: ConfChange, { conf, removed }: Members): string | null {
  const { type, nodeId } = change;
  switch (type) {
    case ConfChangeType.ConfChangeAddLearnerNode:
      if (removed.has(nodeId))
        return `${nodeId} was removed and cannot come back under this raft id`;
      return hasVoter(conf, nodeId) ? `${nodeId} is a voter already` : null;
    case ConfChangeType.ConfChangeAddNode:
      return hasLearner(conf, nodeId) ? null : `${nodeId} is not a learner`;
    case ConfChangeType.ConfChangeRemoveNode:
      if (!hasVoter(conf, nodeId) && !hasLearner(conf, nodeId)) return `${nodeId} is not a member`;
      if (hasVoter(conf, nodeId) && conf.voters.length === 1) return `${nodeId} is the last voter`;
      return null;
    default:
      return `its type ${type} is unknown`;
  }
}

/** The members after a change that was carried out. */
export function membersAfter(change: ConfChange, before: Members, conf: ConfState): Members {
  const contexts = new Map(before.contexts);
  const removed = new Set(before.removed);
  if (change.type === ConfChangeType.ConfChangeRemoveNode) {
    contexts.delete(change.nodeId);
    removed.add(change.nodeId);
  } else if (change.type === ConfChangeType.ConfChangeAddLearnerNode) {
    contexts.set(change.nodeId, String(change.context ?? ""));
  }
  return { conf, contexts, removed };
}

export class Changes {
  readonly #raw: RawNode;
  readonly #log: LogStore;
  readonly #limits: RaftLimits;
  readonly #isThere: (raftId: string) => boolean;
  #requests: Request[] = [];

  /** `isThere` says whether a member was heard of lately. */
  constructor(
    raw: RawNode,
    log: LogStore,
    limits: RaftLimits,
    isThere: (raftId: string) => boolean,
  ) {
    this.#isThere = isThere;
    this.#raw = raw;
    this.#log = log;
    this.#limits = limits;
  }

  request(kind: ChangeKind, raftId: string, context: string, nowMs: number): Promise<void> {
    const { changeTimeoutMs, promoteTimeoutMs } = this.#limits;
    const deadlineMs = nowMs + (kind === "promote" ? promoteTimeoutMs : changeTimeoutMs);
    return new Promise((resolve, reject) => {
      const fixed = { kind, raftId, context, deadlineMs, resolve, reject };
      this.#requests.push({ ...fixed, isUnderWay: false, waitsFor: null });
    });
  }

  /** Looks at all requests; to be called after each turn and tick. */
  look(nowMs: number): void {
    if (this.#requests.length === 0) return;
    this.#requests = this.#requests.filter((request) => {
      const verdict = this.#verdictOn(request, nowMs);
      if (verdict === "done") request.resolve();
      else if (verdict !== "wait") request.reject(verdict);
      else if (request.deadlineMs <= nowMs) request.reject(tooLate(request));
      else return true;
      return false;
    });
  }

  /** Refuses all; the node ends. */
  end(why: string): void {
    for (const request of this.#requests.splice(0)) {
      const code = request.isUnderWay ? "Timeout" : "Unavailable";
      request.reject(new TrilithError(code, `${request.kind} of ${request.raftId}: ${why}`));
    }
  }

  #isLeader(): boolean {
    return this.#raw.raft.state === StateType.StateLeader;
  }

  #verdictOn(request: Request, nowMs: number): "done" | "wait" | TrilithError {
    return request.kind === "transfer"
      ? this.#transfer(request, nowMs)
      : this.#changeMembers(request);
  }

  #isDone({ kind, raftId }: Request): boolean {
    const { conf } = this.#log.members;
    switch (kind) {
      case "add-learner":
        return hasLearner(conf, raftId) || hasVoter(conf, raftId);
      case "promote":
        return hasVoter(conf, raftId);
      case "remove":
        return !hasLearner(conf, raftId) && !hasVoter(conf, raftId);
      default:
        return this.#raw.raft.lead === raftId;
    }
  }

  #notLeader(request: Request): TrilithError {
    const { lead } = this.#raw.raft;
    const who = lead === "" ? "there is no leader" : `${lead} leads`;
    const what = `${request.kind} of ${request.raftId}`;
    return request.isUnderWay
      ? new TrilithError("Timeout", `it is not known whether ${what} took effect: ${who} now`)
      : new TrilithError("Unavailable", `${what}: not the leader, ${who}`, "ask the leader");
  }

  #changeMembers(request: Request): "done" | "wait" | TrilithError {
    const { kind, raftId, context } = request;
    const { raft } = this.#raw;
    if (this.#isDone(request)) {
      // Done by somebody, now or before; but only the leader knows that it is so still.
      return this.#isLeader() || request.isUnderWay ? "done" : this.#notLeader(request);
    }
    if (!this.#isLeader()) return this.#notLeader(request);
    const change = new ConfChange({
      type: changeTypes[kind as keyof typeof changeTypes],
      nodeId: raftId,
      context: kind === "add-learner" ? context : null,
    });
    const refusal = whyWithoutEffect(change, this.#log.members);
    if (refusal !== null) return new TrilithError("FailedPrecondition", `${kind}: ${refusal}`);
    request.waitsFor = this.#whatIsMissing(request);
    if (request.waitsFor !== null || raft.pendingConfIndex > this.#log.applied) return "wait";
    const entry = new Entry({ type: EntryType.EntryConfChange, data: change });
    const message = new Message({ type: MessageType.MsgProp, from: raft.id, entries: [entry] });
    const dropped = raft.Step(message);
    const isLogged = dropped === null && message.entries[0]?.type === EntryType.EntryConfChange;
    if (isLogged) request.isUnderWay = true;
    return "wait";
  }

  /** What has to be so before a change is safe; null when it is. */
  #whatIsMissing({ kind, raftId }: Request): string | null {
    const { raft } = this.#raw;
    const { conf } = this.#log.members;
    const progress = raft.prs.progress.get(raftId);
    if (kind === "promote") {
      const lag = this.#log.lastIndex - (progress?.match ?? 0);
      const follows = progress?.state === ProgressStateType.StateReplicate;
      if (follows && lag <= this.#limits.promoteLagMax) return null;
      return `${raftId} has not caught up: it lacks ${lag} log entries`;
    }
    if (kind === "remove" && hasVoter(conf, raftId)) {
      const left = conf.voters.filter((id) => id !== raftId);
      const active = left.filter((id) => id === raft.id || this.#isThere(id)).length;
      if (active > left.length / 2) return null;
      return `without ${raftId} only ${active} of ${left.length} voters would be reachable`;
    }
    return null;
  }

  /** What is left of a transfer's time when a member was not heard of long enough. */
  #patienceMs(): number {
    const { changeTimeoutMs, electionTicks, tickMs } = this.#limits;
    return changeTimeoutMs - electionTicks * tickMs;
  }

  #transfer(request: Request, nowMs: number): "done" | "wait" | TrilithError {
    const { raft } = this.#raw;
    const { raftId } = request;
    if (this.#isDone(request)) return "done";
    if (this.#isLeader()) {
      if (!hasVoter(this.#log.members.conf, raftId)) {
        return new TrilithError("FailedPrecondition", `transfer: ${raftId} is not a voter`);
      }
      if (raft.leadTransferee === raftId) return "wait";
      // Nothing can be proposed meanwhile: it is tried once, with somebody who is there.
      const isThere = this.#isThere(raftId);
      if (request.isUnderWay || (!isThere && request.deadlineMs <= nowMs + this.#patienceMs())) {
        return new TrilithError("Unavailable", `transfer: ${raftId} did not take over`);
      }
      if (!isThere) return "wait";
      this.#raw.transferLeader(raftId);
      request.isUnderWay = true;
      return "wait";
    }
    if (request.isUnderWay && raft.lead === "") return "wait";
    return this.#notLeader(request);
  }
}

function tooLate(request: Request): TrilithError {
  const { kind, raftId, waitsFor, isUnderWay } = request;
  if (waitsFor !== null && !isUnderWay) {
    return new TrilithError("FailedPrecondition", `${kind} of ${raftId}: ${waitsFor}`);
  }
  return new TrilithError(
    "Timeout",
    `${kind} of ${raftId} was not done in time${isUnderWay ? "; it may still be" : ""}`,
    "check that a majority of the nodes runs; then look at the members and repeat it if needed",
  );
}
