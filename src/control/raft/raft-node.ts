/**
 * A member of the cluster: the raft core, the node's SQLite file, the state machine and the transport,
 * joined. May import what lies in this folder and `src/errors.ts`; knows nothing of what commands mean.
 *
 * Everything happens in turns. A turn takes what came in (messages, proposals, reads) to the core and
 * carries out what that says: per Ready ONE transaction with log, hard state and the effect of committed
 * commands; after it the messages; after them the answers. Where `durability.ts` says so, messages and
 * answers come when the transaction is on the disk, and the next turn after them.
 */
import type { Database } from "bun:sqlite";
import { rmSync } from "node:fs";
import { TrilithError } from "../../errors.ts";
import { type ChangeKind, Changes, membersAfter, whyWithoutEffect } from "./changes.ts";
import { type RaftClock, systemClock } from "./clock.ts";
import { type Disk, diskOf } from "./disk.ts";
import { mayGoEarly, needsDisk } from "./durability.ts";
import {
  ConfChange,
  ConfState,
  Entry,
  EntryType,
  Message,
  MessageType,
  type RawNode,
  type Ready,
  type Snapshot,
  type SnapshotStatus,
  StateType,
  startEngine,
} from "./engine.ts";
import { defaultRaftLimits, type RaftLimits } from "./limits.ts";
import { LogStore, syncEachCommit } from "./log-store.ts";
import type { RaftNodeOptions } from "./options.ts";
import { notApplied, type Outcome, Proposals } from "./proposals.ts";
import type { RaftNode, StateMachine } from "./raft.ts";
import { Reads } from "./reads.ts";
import { withSnapshotFile } from "./snapshot-file.ts";
import { SnapshotSender } from "./snapshot-sender.ts";
import { membersOf, Snapshots } from "./snapshots.ts";
import {
  decodeMessage,
  encodeMessage,
  encodeRemovedNotice,
  isAccepted,
  REMOVED_NOTICE,
} from "./wire.ts";

/**
 * Opens a member on what its file holds. The state machine's `restored` is called before this returns.
 * Throws `Corrupted` or `FailedPrecondition` when the file cannot be used.
 */
export function openRaftNode(options: RaftNodeOptions): RaftNode {
  return new Member(options);
}

/** Something that came in: a message, for a snapshot with its file. */
interface Incoming {
  readonly message: Message;
  readonly path: string | null;
  /** Called when it was dealt with. */
  readonly done: () => void;
}

interface Applied {
  readonly entry: Entry;
  readonly result: unknown;
  /** False for entries that are raft's own. */
  readonly isCommand: boolean;
}

type Life = "running" | "stopped" | "removed" | "failed";

/** A Ready that is written, and becomes durable. */
interface Written {
  readonly ready: Ready;
  /** To be sent then. */
  readonly messages: readonly Message[];
  /** To be answered then. */
  readonly applied: readonly Applied[] | null;
}

class Member implements RaftNode {
  readonly #options: RaftNodeOptions;
  readonly #limits: RaftLimits;
  readonly #clock: RaftClock;
  readonly #db: Database;
  readonly #disk: Disk;
  readonly #machine: StateMachine;
  readonly #log: LogStore;
  readonly #raw: RawNode;
  readonly #snapshots: Snapshots;
  readonly #proposals = new Proposals();
  readonly #reads: Reads;
  readonly #changes: Changes;
  readonly #stopTicks: () => void;
  readonly #sender: SnapshotSender;
  readonly #listeners = new Set<(term: number | null) => void>();
  #inbox: Incoming[] = [];
  /** When each other member last said something. */
  readonly #heardAtMs = new Map<string, number>();
  /** The file of the snapshot that the core is being given. */
  #snapshotPath: string | null = null;
  #life: Life = "running";
  #isTurnDue = false;
  #isInTurn = false;
  /** What waits for the disk: until it is there the core is given nothing. */
  #written: Written | null = null;
  /** Up to where the state machine's users have been told; the tables may be ahead of it. */
  #shownIndex = 0;
  /** A tick came meanwhile. */
  #isTickDue = false;
  /** Ticks without a leader. */
  #ticksAlone = 0;
  /** The term that was told to listeners; null when told that we do not lead. */
  #ledTerm: number | null = null;

  constructor(options: RaftNodeOptions) {
    this.#options = options;
    this.#limits = { ...defaultRaftLimits, ...options.limits };
    this.#clock = options.clock ?? systemClock;
    this.#db = options.db;
    this.#disk = options.disk ?? diskOf(options.db);
    this.#machine = options.stateMachine;
    this.#log = new LogStore(options.db, options.raftId);
    if (options.bootstrap !== undefined && this.#log.isBlank)
      this.#begin(options.bootstrap.context);
    this.#snapshots = new Snapshots(options.db, this.#log, options.folder);
    this.#sender = new SnapshotSender({
      snapshots: this.#snapshots,
      transport: options.transport,
      limits: this.#limits,
      nowMs: () => this.#clock.nowMs(),
      report: (to, status) => this.#reportSnapshot(to, status),
      onProblem: (what, error) => options.onProblem?.(what, error),
    });
    this.#log.snapshotSource = () => this.#sender.describe();
    this.#raw = startEngine({
      ...this.#limits,
      raftId: options.raftId,
      storage: this.#log,
      applied: this.#log.applied,
      random: options.random ?? Math.random,
    });
    this.#reads = new Reads(`${options.raftId}:${this.#log.incarnation}`);
    this.#changes = new Changes(this.#raw, this.#log, this.#limits, (id) => this.#isThere(id));
    this.#machine.restored(this.#db, this.#log.applied);
    this.#shownIndex = this.#log.applied;
    if (this.#log.members.removed.has(options.raftId)) {
      // It ended right after it had learnt of it.
      this.#life = "removed";
      this.#stopTicks = () => {};
      this.#clock.soon(() => options.onRemoved?.());
      return;
    }
    syncEachCommit(this.#db, false);
    this.#stopTicks = this.#clock.every(this.#limits.tickMs, () => this.#tick());
    const { voters } = this.#log.members.conf;
    // Alone, there is nobody to wait for.
    if (voters.length === 1 && voters[0] === options.raftId) this.#raw.campaign();
    this.#turnSoon();
  }

  /** Writes down a cluster whose log begins with this node as its only voter. */
  #begin(context: string): void {
    const { raftId } = this.#options;
    const members = {
      conf: new ConfState({ voters: [raftId] }),
      contexts: new Map([[raftId, context]]),
      removed: new Set<string>(),
    };
    // The log begins after index 1, so that whoever joins gets the tables as they are now.
    const state = { term: 1, vote: "", commit: 1, applied: 1 };
    this.#transaction(() => this.#log.restart({ index: 1, term: 1 }, members, state));
  }

  // ------------------------------------------------------------------------------ requests

  propose(command: string, timeoutMs: number): Promise<Outcome> {
    return new Promise((resolve, reject) => {
      const refusal = this.#refusalOf(command);
      if (refusal !== null) {
        reject(refusal);
        return;
      }
      const deadlineMs = this.#clock.nowMs() + timeoutMs;
      this.#proposals.queue({ command, deadlineMs, resolve, reject });
      this.#turnSoon();
    });
  }

  #refusalOf(command: string): TrilithError | null {
    if (this.#life !== "running") return notApplied(this.#whyEnded());
    if (this.#raw.raft.state !== StateType.StateLeader) return notApplied(this.#whoLeads());
    if (command.length > this.#limits.commandLengthMax) {
      const { commandLengthMax } = this.#limits;
      const what = `a command of ${command.length} characters; at most ${commandLengthMax} are taken`;
      return new TrilithError("InvalidArgument", what, "split the request");
    }
    // Such a text would not come back from a file, or arrive elsewhere, as it was.
    if (!command.isWellFormed() || command.includes("\0")) {
      return new TrilithError("InvalidArgument", "a command that is not well-formed text");
    }
    if (this.#proposals.queuedCount >= this.#limits.proposalsQueuedMax) {
      return notApplied("too many requests wait already");
    }
    return null;
  }

  readIndex(timeoutMs: number): Promise<number> {
    return new Promise((resolve, reject) => {
      if (this.#life !== "running" || this.#reads.count >= this.#limits.readsMax) {
        const why = this.#life === "running" ? "too many reads wait already" : this.#whyEnded();
        reject(new TrilithError("Unavailable", `no up-to-date read: ${why}`));
        return;
      }
      this.#reads.add({ deadlineMs: this.#clock.nowMs() + timeoutMs, resolve, reject });
      this.#turnSoon();
    });
  }

  addLearner(raftId: string, context: string): Promise<void> {
    return this.#change("add-learner", raftId, context);
  }

  promote(raftId: string): Promise<void> {
    return this.#change("promote", raftId);
  }

  remove(raftId: string): Promise<void> {
    return this.#change("remove", raftId);
  }

  transferLeadership(toRaftId: string): Promise<void> {
    return this.#change("transfer", toRaftId);
  }

  #change(kind: ChangeKind, raftId: string, context = ""): Promise<void> {
    if (this.#life !== "running") {
      return Promise.reject(new TrilithError("Unavailable", `${kind}: ${this.#whyEnded()}`));
    }
    if (raftId === "" || !raftId.isWellFormed() || !context.isWellFormed()) {
      return Promise.reject(new TrilithError("InvalidArgument", `${kind}: not a raft id`));
    }
    const outcome = this.#changes.request(kind, raftId, context, this.#clock.nowMs());
    this.#turnSoon();
    return outcome;
  }

  receive(bytes: Uint8Array): void {
    if (this.#inbox.length >= this.#limits.inboxMax) return;
    if (bytes.length > this.#limits.messageBytesMax) return;
    let message: Message;
    try {
      message = decodeMessage(bytes);
    } catch {
      return; // As good as lost. A newer version may send what this one does not know.
    }
    if (isAccepted(message)) this.#take({ message, path: null, done: () => {} });
  }

  async receiveSnapshot(bytes: Uint8Array, path: string): Promise<void> {
    const message = decodeMessage(bytes);
    if (message.type !== MessageType.MsgSnap || message.to !== this.#options.raftId) {
      throw new TrilithError("InvalidArgument", "a snapshot that is not for this node");
    }
    if (this.#life !== "running") throw new TrilithError("Unavailable", this.#whyEnded());
    const accepted = this.#snapshots.accept(message, path);
    await new Promise<void>((done) => this.#take({ message, path: accepted, done }));
  }

  #take(incoming: Incoming): void {
    const { to, from } = incoming.message;
    const isOurs = to === this.#options.raftId && from !== "" && from !== to;
    if (!isOurs || this.#life !== "running") {
      incoming.done();
      return;
    }
    this.#inbox.push(incoming);
    this.#turnSoon();
  }

  onLeadership(listener: (term: number | null) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  status(): ReturnType<RaftNode["status"]> {
    const { raft } = this.#raw;
    const { conf, contexts } = this.#log.members;
    const isLeader = raft.state === StateType.StateLeader && this.#life === "running";
    const matchIndexOf = new Map<string, number>();
    if (isLeader) raft.prs.visit((id, progress) => matchIndexOf.set(id, progress.match));
    return {
      raftId: this.#options.raftId,
      role: isLeader ? "leader" : this.#roleOfOthers(),
      term: raft.term,
      leader: raft.lead === "" || this.#life !== "running" ? null : raft.lead,
      commitIndex: raft.raftLog.committed,
      appliedIndex: this.#shownIndex,
      firstIndex: this.#log.firstIndex,
      voters: [...conf.voters],
      learners: [...conf.learners],
      matchIndexOf,
      contextOf: contexts,
    };
  }

  #roleOfOthers(): "follower" | "candidate" | "learner" {
    const { raft } = this.#raw;
    if (!this.#log.members.conf.voters.includes(this.#options.raftId)) return "learner";
    const isCandidate =
      raft.state === StateType.StateCandidate || raft.state === StateType.StatePreCandidate;
    return isCandidate ? "candidate" : "follower";
  }

  async stop(): Promise<void> {
    this.#end("stopped");
  }

  #whoLeads(): string {
    const { lead } = this.#raw.raft;
    return lead === "" ? "there is no leader" : `this node does not lead, ${lead} does`;
  }

  #whyEnded(): string {
    return this.#life === "removed" ? "this node was removed from the cluster" : "this node stops";
  }

  // --------------------------------------------------------------------------------- turns

  #tick(): void {
    if (this.#life !== "running") return;
    const nowMs = this.#clock.nowMs();
    this.#isTickDue = true;
    this.#guarded(() => {
      this.#proposals.expire(nowMs);
      this.#reads.expire(nowMs);
      this.#sender.expire(nowMs);
    });
    this.#turn();
  }

  #isThere(raftId: string): boolean {
    const { tickMs, heartbeatTicks, silentHeartbeatsMax } = this.#limits;
    const silentMs =
      this.#clock.nowMs() - (this.#heardAtMs.get(raftId) ?? Number.NEGATIVE_INFINITY);
    return silentMs <= silentHeartbeatsMax * heartbeatTicks * tickMs;
  }

  /**
   * A voter that hears from no leader asks for votes, and learns that way when it was removed. A learner
   * has no voice; it gives a sign of life instead, which changes nothing with whoever knows it.
   */
  #callOut(): void {
    const { raftId } = this.#options;
    const { voters } = this.#log.members.conf;
    const { raft } = this.#raw;
    this.#ticksAlone = raft.lead === "" ? this.#ticksAlone + 1 : 0;
    if (voters.includes(raftId) || this.#ticksAlone < 2 * this.#limits.electionTicks) return;
    this.#ticksAlone = 0;
    for (const to of voters) {
      const type = MessageType.MsgHeartbeatResp;
      this.#send(new Message({ type, from: raftId, to, term: raft.term }));
    }
  }

  #turnSoon(): void {
    if (this.#isTurnDue || this.#life !== "running") return;
    this.#isTurnDue = true;
    this.#clock.soon(() => this.#turn());
  }

  #turn(): void {
    this.#isTurnDue = false;
    if (this.#life !== "running" || this.#isInTurn || this.#written !== null) return;
    this.#isInTurn = true;
    this.#guarded(() => this.#takeTurn());
    this.#isInTurn = false;
  }

  /** Ends where something has to wait for the disk: there is another turn when it is there. */
  #takeTurn(): void {
    if (this.#isTickDue) this.#tickCore();
    if (!this.#stepInbox()) return;
    this.#stepProposals();
    if (this.#reads.isQuestionDue) this.#raw.readIndex(this.#reads.ask());
    this.#changes.look(this.#clock.nowMs());
    if (!this.#carryOut()) return;
    this.#changes.look(this.#clock.nowMs());
    if (this.#carryOut()) this.#cutLog();
  }

  #tickCore(): void {
    this.#isTickDue = false;
    this.#raw.tick();
    if (this.#reads.isUnanswered) this.#raw.readIndex(this.#reads.ask());
    this.#callOut();
  }

  /** Gives the core what came in; false when something has to wait for the disk. */
  #stepInbox(): boolean {
    const incoming = this.#inbox.splice(0);
    let at = 0;
    for (; at < incoming.length; at++) {
      const next = incoming[at]!;
      // What came before a snapshot is durable before it.
      if (next.path !== null && !this.#carryOut()) break;
      this.#stepIncoming(next);
      if (this.#written !== null) {
        at++;
        break;
      }
    }
    this.#inbox.unshift(...incoming.slice(at));
    return this.#written === null;
  }

  /** Runs something of the node; when it throws, the node has failed. */
  #guarded(run: () => void): void {
    try {
      run();
    } catch (error) {
      if (this.#life === "failed") return;
      this.#end("failed");
      const { onFailure } = this.#options;
      if (onFailure !== undefined) onFailure(error);
      else
        queueMicrotask(() => {
          throw error;
        });
    }
  }

  #stepIncoming(incoming: Incoming): void {
    const { message, path, done } = incoming;
    const { members } = this.#log;
    this.#heardAtMs.set(message.from, this.#clock.nowMs());
    try {
      if (this.#life !== "running") return;
      if ((message.type as number) === REMOVED_NOTICE) {
        this.#end("removed");
        this.#options.onRemoved?.();
      } else if (members.removed.has(message.from)) {
        const notice = encodeRemovedNotice(message.from, this.#options.raftId);
        this.#options.transport.send(message.from, notice);
      } else if (path === null) {
        this.#raw.step(message);
      } else {
        this.#snapshotPath = path;
        this.#raw.step(message);
        this.#carryOut();
      }
    } finally {
      this.#snapshotPath = null;
      if (path !== null) rmSync(path, { force: true });
      done();
    }
  }

  #stepProposals(): void {
    const { raft } = this.#raw;
    if (this.#proposals.queuedCount === 0) return;
    if (raft.state !== StateType.StateLeader) {
      this.#proposals.rejectQueued(this.#whoLeads());
      return;
    }
    // What is not committed yet is bounded: proposals wait in their queue, and that is bounded too.
    if (raft.uncommittedSize > this.#limits.uncommittedLengthMax) return;
    const batch = this.#proposals.take(this.#limits.proposalsPerBatch);
    const entries = batch.map(({ command }) => new Entry({ data: command }));
    const refusal = raft.Step(new Message({ type: MessageType.MsgProp, from: raft.id, entries }));
    if (refusal !== null) {
      const why = raft.leadTransferee === "" ? refusal.message : "leadership is being handed over";
      for (const proposal of batch) proposal.reject(notApplied(why));
    } else {
      const first = raft.raftLog.lastIndex() - batch.length + 1;
      batch.forEach((proposal, at) => {
        this.#proposals.logged(proposal, first + at, raft.term);
      });
    }
    if (this.#proposals.queuedCount > 0) this.#turnSoon();
  }

  /** Carries out what the core says; false when that has to wait for the disk. */
  #carryOut(): boolean {
    while (this.#life === "running" && this.#written === null && this.#raw.hasReady()) {
      this.#carryOutReady();
    }
    return this.#written === null;
  }

  #carryOutReady(): void {
    const ready = this.#raw.ready();
    const snapshot = ready.snapshot.isEmptySnap() ? null : ready.snapshot;
    const { state, lastIndex } = this.#log;
    const early = mayGoEarly(ready, this.#raw, this.#log);
    for (const message of early) this.#send(message);
    if (early.size > 0) this.#options.transport.flush?.();
    const messages = ready.messages.filter((message) => !early.has(message));
    const applied = this.#persist(ready, snapshot);
    if (snapshot !== null) {
      this.#machine.restored(this.#db, this.#log.applied);
      this.#shownIndex = this.#log.applied;
      this.#proposals.snapshotInstalled(this.#log.applied);
    }
    if (snapshot !== null || !needsDisk(ready, state)) {
      this.#finish({ ready, messages, applied });
      return;
    }
    // What a majority has committed before does not wait for what is new.
    const isSettled = (ready.committedEntries.at(-1)?.index ?? 0) <= lastIndex;
    if (isSettled) this.#answer(ready, applied);
    this.#written = { ready, messages, applied: isSettled ? null : applied };
    this.#disk.sync((error) => this.#synced(error));
  }

  /** What was written is durable. */
  #synced(error: Error | null): void {
    const written = this.#written;
    if (written === null || this.#life !== "running") return;
    this.#written = null;
    this.#isInTurn = true;
    this.#guarded(() => {
      if (error !== null) throw error;
      this.#finish(written);
      this.#changes.look(this.#clock.nowMs());
      this.#cutLog();
    });
    this.#isInTurn = false;
    this.#turn();
  }

  #finish({ ready, messages, applied }: Written): void {
    this.#raw.advance(ready);
    for (const message of messages) this.#send(message);
    if (applied !== null) this.#answer(ready, applied);
    this.#tellLeadership();
    const { removed } = this.#log.members;
    if (removed.has(this.#options.raftId) && this.#life === "running") {
      this.#changes.look(this.#clock.nowMs());
      this.#end("removed");
      this.#options.onRemoved?.();
    }
  }

  #answer(ready: Ready, applied: readonly Applied[]): void {
    for (const { entry, result, isCommand } of applied) {
      if (isCommand) this.#machine.applied(entry.index, result);
      this.#proposals.applied(entry.index, entry.term, result);
    }
    for (const { requestCtx, index } of ready.readStates) {
      this.#reads.answered(requestCtx, index);
    }
    this.#shownIndex = this.#log.applied;
    this.#reads.applied(this.#log.applied);
  }

  /** Writes a Ready and applies what it commits, in one transaction. */
  #persist(ready: Ready, snapshot: Snapshot | null): Applied[] {
    if (snapshot !== null) {
      const path = this.#snapshotPath;
      if (path === null) throw new TrilithError("Internal", "raft: a snapshot without its file");
      syncEachCommit(this.#db, true);
      withSnapshotFile(this.#db, path, (replace) => {
        this.#transaction(() => {
          replace();
          const { index, term } = snapshot.metadata;
          const state = { ...this.#log.state, commit: index, applied: index };
          this.#log.restart({ index, term }, membersOf(snapshot), state);
          this.#write(ready);
        });
      });
      syncEachCommit(this.#db, false);
      return [];
    }
    const hasState = !ready.hardState.isEmptyHardState();
    if (!hasState && ready.entries.length === 0 && ready.committedEntries.length === 0) return [];
    return this.#transaction(() => this.#write(ready));
  }

  #write(ready: Ready): Applied[] {
    this.#log.append(ready.entries);
    const applied = ready.committedEntries.map((entry) => this.#apply(entry));
    const { term, vote, commit } = ready.hardState.isEmptyHardState()
      ? this.#log.state
      : ready.hardState;
    const last = ready.committedEntries.at(-1)?.index ?? this.#log.applied;
    this.#log.saveState({ term, vote, commit, applied: last });
    return applied;
  }

  #apply(entry: Entry): Applied {
    if (entry.type === EntryType.EntryConfChange) {
      const change = new ConfChange(entry.data);
      this.#applyChange(change);
      return { entry, result: undefined, isCommand: false };
    }
    // A leader begins its term with an entry that holds nothing.
    if (entry.data === null) return { entry, result: undefined, isCommand: false };
    const result = this.#machine.apply(this.#db, entry.index, entry.data);
    return { entry, result, isCommand: true };
  }

  #applyChange(change: ConfChange): void {
    const { members } = this.#log;
    if (whyWithoutEffect(change, members) !== null) {
      this.#raw.applyConfChange(new ConfChange({ type: change.type }));
      return;
    }
    const conf = this.#raw.applyConfChange(change);
    this.#log.saveMembers(membersAfter(change, members, conf));
  }

  #transaction<T>(run: () => T): T {
    this.#db.run("BEGIN IMMEDIATE");
    try {
      const result = run();
      this.#db.run("COMMIT");
      return result;
    } catch (error) {
      if (this.#db.inTransaction) this.#db.run("ROLLBACK");
      throw error;
    }
  }

  /** Listeners hear of a leadership when everything of earlier ones is applied here. */
  #tellLeadership(): void {
    const { raft } = this.#raw;
    const leads =
      this.#life === "running" &&
      raft.state === StateType.StateLeader &&
      this.#log.termOf(this.#log.applied) === raft.term;
    const term = leads ? raft.term : null;
    if (term === this.#ledTerm) return;
    // A new term of our own begins only after the old one has ended.
    if (this.#ledTerm !== null && term !== null) this.#tell(null);
    this.#tell(term);
  }

  #tell(term: number | null): void {
    this.#ledTerm = term;
    for (const listener of [...this.#listeners]) listener(term);
  }

  // ------------------------------------------------------------------- messages and snapshots

  #send(message: Message): void {
    if (message.type === MessageType.MsgSnap) this.#sender.send(message);
    else this.#options.transport.send(message.to, encodeMessage(message));
  }

  #reportSnapshot(to: string, status: SnapshotStatus): void {
    if (this.#life !== "running") return;
    this.#guarded(() => this.#raw.reportSnapshot(to, status));
    this.#turnSoon();
  }

  /** Shortens the log when it is long; not what a snapshot that is under way goes on from. */
  #cutLog(): void {
    const { logEntriesMax, logLengthMax, logEntriesKept, logLengthKept } = this.#limits;
    const { entries, length } = this.#log.size;
    if (entries <= logEntriesMax && length <= logLengthMax) return;
    let index = this.#log.cutFor(logEntriesKept, logLengthKept);
    const factor = this.#limits.logGrowthWhileSending;
    const mayGrow = entries <= logEntriesMax * factor && length <= logLengthMax * factor;
    if (mayGrow) index = Math.min(index, this.#snapshots.lowestIndexSent);
    if (index < this.#log.firstIndex) return;
    this.#transaction(() => this.#log.compact(index));
  }

  #end(life: Exclude<Life, "running">): void {
    if (this.#life !== "running") return;
    this.#life = life;
    this.#stopTicks();
    this.#disk.close();
    const why = this.#whyEnded();
    this.#proposals.end(why);
    this.#reads.end(why);
    this.#changes.end(why);
    for (const { path, done } of this.#inbox.splice(0)) {
      if (path !== null) rmSync(path, { force: true });
      done();
    }
    if (this.#ledTerm !== null) this.#tell(null);
  }
}
