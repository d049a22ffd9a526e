/**
 * The store (`store.ts`) over raft: reads from the view in memory, and transactions that are decided
 * here and applied everywhere. Owns the folder `store/`, which imports the model, raft's and the
 * planner's types, and errors.
 */
import { type ErrorCode, TrilithError } from "../../errors.ts";
import type { Log } from "../../ops/log.ts";
import type { StoreView } from "../cluster-state.ts";
import type { StoredEvent, TableName } from "../model.ts";
import type { Change } from "../planner/plan.ts";
import type { RaftNode } from "../raft/raft.ts";
import { type Check, encodeCommand } from "./command.ts";
import {
  EVENTS_PER_CALL_MAX,
  READ_TIMEOUT_MS,
  READY_RETRY_MS,
  TRANSACT_ATTEMPTS_MAX,
  TRANSACT_TIMEOUT_MS,
} from "./limits.ts";
import { type Lock, makeLock, withinTime } from "./lock.ts";
import type { Outcome, StoreMachine } from "./machine.ts";
import type { ClusterMember, Proposal, Store, StoreStatus, TransactOptions } from "./store.ts";
import { keyOf } from "./tables.ts";
import type { TableView } from "./view.ts";

export interface StoreOptions {
  readonly machine: StoreMachine;
  /** Made with `machine`, which has its tables already. */
  readonly raft: RaftNode;
  readonly log: Log;
  /** Milliseconds since 1970. Default: the wall clock. */
  readonly now?: () => number;
  /** Told how long each proposal took, and whether its outcome is known. */
  readonly proposed?: (ms: number, applied: boolean) => void;
}

export interface ReplicatedStore extends Store {
  /** Brings the tables to a newer version on every member. Only when all of them know it. */
  migrate(toVersion: number): Promise<void>;
  /** Version of the tables. */
  schemaVersion(): number;
  /** Leads no more as far as listeners are told, and listens to raft no more. */
  close(): void;
}

/** Records of these tables are made and removed one transaction at a time (see `Store.transact`). */
const structuralTables: ReadonlySet<TableName> = new Set([
  "nodes",
  "pools",
  "volumes",
  "replicas",
  "nexuses",
  "snapshots",
]);

function isStructural(changes: readonly Change[]): boolean {
  return changes.some(
    (change) =>
      structuralTables.has(change.table) && ("remove" in change || change.put.revision === 0),
  );
}

function changeKey(change: Change): string {
  return "remove" in change ? change.remove : keyOf(change.table, change.put);
}

/** What the changes were made from. `Conflict` when that is not what the view has. */
function checksOf(view: TableView, changes: readonly Change[]): Check[] {
  const checks = new Map<string, Check>();
  for (const change of changes) {
    const { table } = change;
    const key = changeKey(change);
    const found = view.revisionOf(table, key);
    const expected = "remove" in change ? (change.revision ?? found) : change.put.revision;
    const name = `${table}/${key}`;
    if (checks.has(name)) throw new TrilithError("Internal", `${name} is changed twice at once`);
    if (expected !== found) {
      throw new TrilithError(
        "Conflict",
        `${name} has changed meanwhile (revision ${found} instead of ${expected})`,
        "read it again and repeat the request",
      );
    }
    checks.set(name, { table, key, revision: expected });
  }
  return [...checks.values()];
}

function notLeader(leader: string | null): TrilithError {
  return leader === null
    ? new TrilithError("Unavailable", "the cluster has no leader", "check that most nodes run")
    : new TrilithError("Unavailable", `node ${leader} leads the cluster, not this one`);
}

function mapCode(error: unknown, from: ErrorCode, to: ErrorCode): unknown {
  if (!(error instanceof TrilithError) || error.code !== from) return error;
  return new TrilithError(to, error.message, error.remedy);
}

/** One call of `transact`, while it is worked on. */
interface Attempted<T> {
  readonly decide: (view: StoreView) => Proposal & { readonly value: T };
  readonly key: string | undefined;
  readonly deadlineMs: number;
}

interface Decided<T> {
  readonly proposal: Proposal & { readonly value: T };
  readonly checks: readonly Check[];
}

/** It changes nothing, and nobody asked to have that remembered. */
function isNothing(decided: Decided<unknown>, key: string | undefined): boolean {
  const { changes, events } = decided.proposal;
  return changes.length === 0 && events.length === 0 && key === undefined;
}

class Leadership {
  /** Term of which everything before is applied here; null: not the leader, or not yet. */
  readyTerm: number | null = null;
  /** Resolves when the present term is ready or over. */
  settled: Promise<void> = Promise.resolve();
}

class RaftStore implements ReplicatedStore {
  readonly #machine: StoreMachine;
  readonly #raft: RaftNode;
  readonly #log: Log;
  readonly #now: () => number;
  readonly #proposed: NonNullable<StoreOptions["proposed"]>;
  readonly #leadership = new Leadership();
  readonly #lock: Lock = makeLock("transaction");
  readonly #subscribers = new Set<(touched: ReadonlySet<string>, view: StoreView) => void>();
  readonly #eventListeners = new Set<(event: StoredEvent) => void>();
  readonly #leadershipListeners = new Set<(term: number | null) => void>();
  readonly #stopListening: () => void;
  #isClosed = false;
  #reading: Promise<StoreView> | null = null;
  #nextReading: Promise<StoreView> | null = null;
  /** Ends the read that this leader has asked for: when it leads no more nobody may ever answer it. */
  #giveUpReading: ((error: TrilithError) => void) | null = null;

  constructor(options: StoreOptions) {
    this.#machine = options.machine;
    this.#raft = options.raft;
    this.#log = options.log;
    this.#now = options.now ?? Date.now;
    this.#proposed = options.proposed ?? (() => {});
    this.#machine.listen({
      applied: (touched, events, view) => this.#tell(touched, events, view.tables),
    });
    this.#stopListening = this.#raft.onLeadership((term) => this.#led(term));
    const status = this.#raft.status();
    if (status.role === "leader") this.#led(status.term);
  }

  #tell(touched: ReadonlySet<string>, events: readonly StoredEvent[], view: StoreView): void {
    for (const listener of [...this.#subscribers]) this.#safely(() => listener(touched, view));
    for (const event of events) {
      for (const listener of [...this.#eventListeners]) this.#safely(() => listener(event));
    }
  }

  /** What listens must not come between raft and its tables: an error of it is logged. */
  #safely(call: () => void): void {
    try {
      call();
    } catch (error) {
      this.#log("error", "a listener of the store failed", { error });
    }
  }

  #led(term: number | null): void {
    const leadership = this.#leadership;
    const wasReady = leadership.readyTerm !== null;
    leadership.readyTerm = null;
    this.#giveUpReading?.(notLeader(this.#raft.status().leader));
    if (term !== null) {
      leadership.settled = this.#becomeReady(term);
      return;
    }
    leadership.settled = Promise.resolve();
    if (wasReady) this.#tellLeadership(null);
  }

  /** Waits until all of former terms is applied, so that decisions of this one see it. */
  async #becomeReady(term: number): Promise<void> {
    const isStill = () => {
      const status = this.#raft.status();
      return !this.#isClosed && status.role === "leader" && status.term === term;
    };
    while (isStill()) {
      try {
        await this.#raft.readIndex(READ_TIMEOUT_MS);
      } catch (error) {
        this.#log("warn", "a new leader waits for its log", { term, error });
        await Bun.sleep(READY_RETRY_MS);
        continue;
      }
      if (!isStill()) return;
      this.#leadership.readyTerm = term;
      this.#tellLeadership(term);
      return;
    }
  }

  #tellLeadership(term: number | null): void {
    for (const listener of [...this.#leadershipListeners]) this.#safely(() => listener(term));
  }

  view(): StoreView {
    return this.#machine.view().tables;
  }

  latest(): Promise<StoreView> {
    // A read that is under way may have taken its index before this call; the one after it has not.
    if (this.#reading === null) return this.#read();
    const wasLeader = this.isLeader();
    this.#nextReading ??= this.#reading
      .catch(() => undefined)
      .then(() => {
        this.#nextReading = null;
        if (wasLeader && !this.isLeader()) throw notLeader(this.#raft.status().leader);
        return this.#reading ?? this.#read();
      });
    return this.#nextReading;
  }

  #read(): Promise<StoreView> {
    const asked = this.#raft.readIndex(READ_TIMEOUT_MS);
    const answered = this.isLeader() ? this.#untilDeposed(asked) : asked;
    const reading = answered
      .then(
        () => this.view(),
        (error: unknown) => Promise.reject(mapCode(error, "Timeout", "Unavailable")),
      )
      .finally(() => {
        this.#reading = null;
      });
    this.#reading = reading;
    return reading;
  }

  /** As `asked`, but rejects at once when this node leads no more. */
  #untilDeposed(asked: Promise<number>): Promise<number> {
    return new Promise<number>((resolve, reject) => {
      this.#giveUpReading = reject;
      asked.then(resolve, reject).finally(() => {
        if (this.#giveUpReading === reject) this.#giveUpReading = null;
      });
    });
  }

  async transact<T>(
    decide: (view: StoreView) => Proposal & { readonly value: T },
    options: TransactOptions = {},
  ): Promise<T> {
    const timeoutMs = options.timeoutMs ?? TRANSACT_TIMEOUT_MS;
    const deadlineMs = performance.now() + timeoutMs;
    await this.#lead(timeoutMs);
    const key = options.idempotencyKey;
    const call: Attempted<T> = { decide, key, deadlineMs };
    for (let attempt = 1; attempt <= TRANSACT_ATTEMPTS_MAX; attempt++) {
      const done = this.#answered<T>(key) ?? (await this.#attempt(call, attempt > 1));
      if (done !== null) return done.value;
    }
    throw new TrilithError(
      "Conflict",
      "what the request changes was changed by others again and again",
      "repeat the request",
    );
  }

  /** Resolves when this node leads and has caught up; `Unavailable` when it does not lead. */
  async #lead(timeoutMs: number): Promise<void> {
    if (this.isLeader()) return;
    const late = () => new TrilithError("Unavailable", "this node has just become leader");
    await withinTime(this.#leadership.settled, timeoutMs, late);
    if (!this.isLeader()) throw notLeader(this.#raft.status().leader);
  }

  /**
   * Decides and proposes once; null: what it decided on has changed meanwhile. What others came
   * before queues up with the next attempt, so that many who change one record all get their turn.
   */
  async #attempt<T>(call: Attempted<T>, isQueued: boolean): Promise<{ value: T } | null> {
    let decided: Decided<T> | null = null;
    try {
      decided = this.#decided(call);
    } catch {
      // It is decided again below, by what is certainly the latest state.
    }
    if (decided === null || isNothing(decided, call.key)) {
      // Nothing will pass through the log, so make sure by other means that this node still leads.
      await this.latest();
      decided = this.#decided(call);
    }
    if (!isQueued && !isStructural(decided.proposal.changes)) return this.#propose(call, decided);
    const release = await this.#lock.acquire(call.deadlineMs - performance.now());
    try {
      return await this.#propose(call, this.#decided(call));
    } finally {
      release();
    }
  }

  /** What is to be proposed, made of the view of now. */
  #decided<T>(call: Attempted<T>): Decided<T> {
    const view = this.#machine.view();
    const proposal = call.decide(view.tables);
    return { proposal, checks: checksOf(view, proposal.changes) };
  }

  /** What the request with this key was answered; null when it was not applied before. */
  #answered<T>(key: string | undefined): { value: T } | null {
    if (key === undefined) return null;
    const outcome = this.#machine.statements().requests.outcome(key);
    return outcome === null ? null : { value: JSON.parse(outcome) as T };
  }

  /** Between deciding and proposing nothing may be awaited: proposals are in the order of decisions. */
  async #propose<T>(call: Attempted<T>, decided: Decided<T>): Promise<{ value: T } | null> {
    const { key } = call;
    const { changes, events, value } = decided.proposal;
    if (isNothing(decided, key)) return { value };
    const command = encodeCommand({
      kind: "transaction",
      nowMs: Math.trunc(this.#now()),
      checks: decided.checks,
      changes,
      events,
      request: key === undefined ? null : { key, outcome: JSON.stringify(value ?? null) },
    });
    const left = call.deadlineMs - performance.now();
    if (left <= 0) throw new TrilithError("Timeout", "the request was not begun in time");
    const startedMs = performance.now();
    let isApplied = false;
    let result: unknown;
    try {
      ({ result } = await this.#raft.propose(command, left));
      isApplied = true;
    } finally {
      this.#proposed(performance.now() - startedMs, isApplied);
    }
    const outcome = result as Outcome;
    if (outcome.kind === "repeated") return { value: JSON.parse(outcome.outcome) as T };
    return outcome.kind === "applied" ? { value } : null;
  }

  async migrate(toVersion: number): Promise<void> {
    await this.#lead(TRANSACT_TIMEOUT_MS);
    const nowMs = Math.trunc(this.#now());
    await this.#raft.propose(
      encodeCommand({ kind: "migrate", nowMs, toVersion }),
      TRANSACT_TIMEOUT_MS,
    );
  }

  schemaVersion(): number {
    return this.#machine.schemaVersion();
  }

  subscribe(listener: (touched: ReadonlySet<string>, view: StoreView) => void): () => void {
    this.#subscribers.add(listener);
    return () => this.#subscribers.delete(listener);
  }

  onEvent(listener: (event: StoredEvent) => void): () => void {
    this.#eventListeners.add(listener);
    return () => this.#eventListeners.delete(listener);
  }

  events(sinceId: number, limit: number): { events: StoredEvent[]; oldestId: number } {
    const { events } = this.#machine.statements();
    return {
      events: events.after(sinceId, Math.min(limit, EVENTS_PER_CALL_MAX)),
      oldestId: events.range().oldestId,
    };
  }

  status(): StoreStatus {
    const { voters, learners, matchIndexOf, contextOf, ...status } = this.#raft.status();
    // A member is added with its node's name before its record is there.
    const names = new Map<string, string>(contextOf);
    for (const node of this.view().nodes.values()) names.set(node.raftId, node.id);
    const member = (raftId: string, isVoter: boolean): ClusterMember => ({
      raftId,
      nodeId: names.get(raftId) ?? "",
      isVoter,
      isLeader: raftId === status.leader,
      matchIndex: matchIndexOf.get(raftId) ?? null,
    });
    const members = [
      ...voters.map((raftId) => member(raftId, true)),
      ...learners.map((raftId) => member(raftId, false)),
    ];
    return { ...status, members };
  }

  isLeader(): boolean {
    if (this.#leadership.readyTerm === null) return false;
    return this.#raft.status().role === "leader";
  }

  onLeadership(listener: (term: number | null) => void): () => void {
    this.#leadershipListeners.add(listener);
    return () => this.#leadershipListeners.delete(listener);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    // Whoever waits for what this leader was to do waits no more.
    this.#led(null);
    this.#stopListening();
  }
}

/** The store over a raft node. */
export function openStore(options: StoreOptions): ReplicatedStore {
  return new RaftStore(options);
}
