/**
 * Carries out what the planner plans, on the leader: one work per subject at a time. It holds nothing
 * that a successor would need: whatever it was doing when it died is planned again from what is found.
 * Imports planner, store and observer.
 */

import type { EngineClient } from "../../engine/rpc/client.ts";
import { TrilithError } from "../../errors.ts";
import type { Log } from "../../ops/log.ts";
import { withRequestId } from "../../ops/request-id.ts";
import type { ClusterSettings, ClusterState, ObservedNode, StoreView } from "../cluster-state.ts";
import type { NodeId, NodeRecord } from "../model.ts";
import type { EngineEventListener, NodeChange } from "../observer/observer.ts";
import type { Plan, Warning, Work } from "../planner/plan.ts";
import { plan, planFor } from "../planner/reconcile/index.ts";
import type { Execution, StepFailure } from "../service/ports.ts";
import type { Store } from "../store/store.ts";
import { EngineNotes } from "./engine-notes.ts";
import { FULL_PLAN_GAP_MS, FULL_PLAN_MS, WORKS_MAX, WORKS_PER_NODE_MAX } from "./limits.ts";
import { SubjectMemory } from "./memory.ts";
import { runWork } from "./run-work.ts";
import { type Affected, affectedBy, affectedByNode, kindOf, nodesOf } from "./subjects.ts";

/** What the executor asks of the observer. */
export interface ExecutorObserver {
  observation(): ReadonlyMap<NodeId, ObservedNode>;
  engine(nodeId: NodeId): EngineClient;
  refresh(nodeId: NodeId): Promise<boolean>;
  onNodeChange(listener: (change: NodeChange) => void): () => void;
  onEngineEvent(listener: EngineEventListener): () => void;
  setNodes(nodes: ReadonlyMap<NodeId, NodeRecord>): void;
  /** Forgets everything: this node does not lead any more. */
  stop(): void;
  /** Tells those who wait for observations, because a step has failed. */
  tell(): void;
}

export interface ExecutorOptions {
  readonly store: Store;
  readonly observer: ExecutorObserver;
  readonly settings: (view: StoreView) => ClusterSettings;
  /** What hosts say of their paths; default: nothing. */
  readonly hostPaths?: (nowMs: number) => NonNullable<ClusterState["hostPaths"]>;
  readonly log: Log;
  /** Milliseconds since 1970. */
  readonly nowMs: () => number;
  /** Milliseconds by a clock that never jumps. Default: that of the process. */
  readonly monotonicMs?: () => number;
  /** Told of its work, for metrics. */
  readonly instruments?: ExecutorInstruments;
}

export interface ExecutorInstruments {
  /** Everything was planned, which took so long. */
  planned(ms: number, plan: Plan): void;
  /** A step ended. `call`: `store` or the engine's method; `code`: of its error, null without one. */
  stepped(call: string, ms: number, code: string | null): void;
}

/** One time of leadership. */
interface Run {
  readonly end: AbortController;
  /** The view is known to hold all that was committed before: works may begin. */
  isReady: boolean;
  lastView: StoreView;
}

const LATEST_RETRY_MS = 500;

export class Executor implements Execution {
  readonly #options: ExecutorOptions;
  readonly #monotonicMs: () => number;
  readonly #memory = new SubjectMemory();
  readonly #notes: EngineNotes;
  readonly #urgent = new Set<string>();
  readonly #queue = new Set<string>();
  readonly #active = new Map<string, Promise<void>>();
  readonly #busy = new Map<NodeId, number>();
  /** Nodes that a subject's last work called and that have not been read since. */
  readonly #unread = new Map<string, Set<NodeId>>();
  /** When subjects want to be planned again, by the wall clock. */
  readonly #due = new Map<string, number>();
  readonly #requests = new Map<string, string>();
  readonly #unlisten: (() => void)[] = [];
  #run: Run | null = null;
  #fullPlanned = Number.NEGATIVE_INFINITY;
  #lastWarnings: readonly Warning[] = [];
  #fullWanted = false;
  #fullDueMs: number | null = null;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #isPumping = false;

  constructor(options: ExecutorOptions) {
    this.#options = options;
    this.#monotonicMs = options.monotonicMs ?? (() => performance.now());
    const { store, log, observer } = options;
    this.#notes = new EngineNotes({ store, log, engine: (id) => observer.engine(id) });
  }

  /** Follows the store's leadership from now on. */
  start(): void {
    const { store, observer } = this.#options;
    this.#unlisten.push(
      store.onLeadership((term) => {
        if (term === null) this.#stand();
        else this.#lead();
      }),
      store.subscribe((touched, view) => this.#stored(touched, view)),
      observer.onNodeChange((change) => this.#observed(change)),
      observer.onEngineEvent((nodeId, event, isNew) => {
        if (this.#run !== null) this.#notes.note(nodeId, event, isNew);
      }),
    );
    if (store.isLeader()) this.#lead();
  }

  /** Ends everything; resolves when no step is under way. */
  async stop(): Promise<void> {
    for (const unlisten of this.#unlisten.splice(0)) unlisten();
    this.#stand();
    await Promise.all(this.#active.values());
  }

  // --------------------------------------------------------------------------------- for operations

  wake(subject: string, requestId?: string): void {
    if (this.#run === null) return;
    if (requestId !== undefined) this.#requests.set(subject, requestId);
    this.#memory.hurry(subject);
    this.#urgent.add(subject);
    this.#pumpSoon();
  }

  lastFailure(subject: string): StepFailure | null {
    return this.#memory.lastFailure(subject);
  }

  /** What was to be warned of when everything was planned last: some seconds ago at most. */
  get lastWarnings(): readonly Warning[] {
    return this.#lastWarnings;
  }

  /** What would be done now, and what is to be warned of. */
  planNow(state: ClusterState): Plan {
    return plan(state, this.#memory.failures);
  }

  /** The cluster as it is seen here now. */
  state(): ClusterState {
    const { store, observer, settings, hostPaths } = this.#options;
    const nowMs = this.#options.nowMs();
    // Observations are older than the records: a thing without a record has none any more.
    const observed = observer.observation();
    const stored = store.view();
    const reported = hostPaths === undefined ? {} : { hostPaths: hostPaths(nowMs) };
    return { nowMs, settings: settings(stored), stored, observed, ...reported };
  }

  /** Nothing is under way and nothing waits to be planned. */
  get isIdle(): boolean {
    return (
      this.#active.size === 0 &&
      this.#urgent.size === 0 &&
      this.#queue.size === 0 &&
      !this.#fullWanted
    );
  }

  // -------------------------------------------------------------------------------------- leadership

  #lead(): void {
    this.#stand();
    const { store, observer } = this.#options;
    const run: Run = { end: new AbortController(), isReady: false, lastView: store.view() };
    this.#run = run;
    observer.setNodes(run.lastView.nodes);
    void this.#becomeReady(run);
  }

  async #becomeReady(run: Run): Promise<void> {
    const { store, observer, log } = this.#options;
    while (this.#run === run) {
      try {
        const view = await store.latest();
        if (this.#run !== run) return;
        run.lastView = view;
        run.isReady = true;
        observer.setNodes(view.nodes);
        this.#wantAll();
        return;
      } catch (error) {
        log("warn", "the latest state is not known yet", { error: String(error) });
        await new Promise((resolve) => setTimeout(resolve, LATEST_RETRY_MS));
      }
    }
  }

  #stand(): void {
    if (this.#run === null) return;
    this.#run.end.abort();
    this.#run = null;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#urgent.clear();
    this.#queue.clear();
    this.#due.clear();
    this.#unread.clear();
    this.#requests.clear();
    this.#memory.clear();
    this.#notes.clear();
    this.#fullWanted = false;
    this.#fullDueMs = null;
    this.#lastWarnings = [];
    this.#options.observer.stop();
  }

  // ------------------------------------------------------------------------------------ what happens

  #stored(touched: ReadonlySet<string>, view: StoreView): void {
    const run = this.#run;
    if (run === null) return;
    const affected = affectedBy(touched, run.lastView, view);
    if (view.nodes !== run.lastView.nodes) this.#options.observer.setNodes(view.nodes);
    run.lastView = view;
    this.#want(affected);
  }

  #observed(change: NodeChange): void {
    if (this.#run === null) return;
    if (change.isWhole) this.#memory.hurryAll();
    this.#want(affectedByNode(change, this.#options.store.view()));
  }

  #want({ subjects, all }: Affected): void {
    for (const subject of subjects) this.#queue.add(subject);
    if (all) this.#wantAll();
    else if (subjects.size > 0) this.#pumpSoon();
  }

  #wantAll(): void {
    this.#fullWanted = true;
    this.#pumpSoon();
  }

  // ------------------------------------------------------------------------------------ planning, doing

  #pumpSoon(): void {
    if (this.#isPumping || this.#run === null) return;
    this.#isPumping = true;
    queueMicrotask(() => {
      this.#isPumping = false;
      this.#pump();
    });
  }

  #pump(): void {
    const run = this.#run;
    if (run === null || !run.isReady) return;
    this.#planAll();
    for (const subjects of [this.#urgent, this.#queue]) {
      for (const subject of [...subjects]) {
        if (this.#active.size >= WORKS_MAX) break;
        if (this.#active.has(subject)) continue; // Looked at again when its work has ended.
        if (this.#memory.notBeforeMs(subject) > this.#monotonicMs()) continue;
        if (this.#begin(run, subject) !== "later") subjects.delete(subject);
      }
    }
    this.#setTimer();
  }

  /** Plans everything when that is due: the subjects with something to do are looked at each. */
  #planAll(): void {
    const now = this.#monotonicMs();
    const isDue =
      now - this.#fullPlanned >= FULL_PLAN_MS ||
      (this.#fullDueMs !== null && this.#options.nowMs() >= this.#fullDueMs);
    if (!isDue && !this.#fullWanted) return;
    if (now - this.#fullPlanned < FULL_PLAN_GAP_MS) return;
    this.#fullWanted = false;
    const made = plan(this.state(), this.#memory.failures);
    this.#fullPlanned = this.#monotonicMs();
    this.#options.instruments?.planned(this.#fullPlanned - now, made);
    this.#fullDueMs = made.wakeAtMs;
    this.#lastWarnings = made.warnings;
    for (const { subject } of made.works) this.#queue.add(subject);
    // What has failed and has nothing to do any more is forgotten: others judge by it.
    for (const subject of this.#memory.failures.keys()) this.#queue.add(subject);
  }

  /** Plans one subject and begins its work. "later": it cannot be worked on yet. */
  #begin(run: Run, subject: string): "begun" | "nothing" | "later" {
    const { observer } = this.#options;
    const unread = this.#unread.get(subject);
    if (unread !== undefined) {
      const pending = [...unread].filter(
        (nodeId) => observer.observation().get(nodeId)?.status === "Online",
      );
      if (pending.length > 0) {
        this.#track(subject, this.#read(subject, pending));
        return "later";
      }
      this.#unread.delete(subject);
    }
    this.#due.delete(subject);
    const { work, wakeAtMs } = planFor(this.state(), subject, this.#memory.failures);
    if (wakeAtMs !== null) this.#due.set(subject, wakeAtMs);
    if (work === null) {
      this.#memory.rested(subject);
      this.#requests.delete(subject);
      return "nothing";
    }
    const nodes = nodesOf(work);
    for (const id of nodes) if ((this.#busy.get(id) ?? 0) >= WORKS_PER_NODE_MAX) return "later";
    this.#track(subject, this.#carryOut(run, work, nodes));
    return "begun";
  }

  #track(subject: string, working: Promise<void>): void {
    const tracked = working.finally(() => {
      this.#active.delete(subject);
      this.#pumpSoon();
    });
    this.#active.set(subject, tracked);
  }

  async #carryOut(run: Run, work: Work, nodes: ReadonlySet<NodeId>): Promise<void> {
    const { store, observer, log } = this.#options;
    const { subject } = work;
    for (const id of nodes) this.#busy.set(id, (this.#busy.get(id) ?? 0) + 1);
    try {
      const requestId = this.#requests.get(subject);
      const { instruments } = this.#options;
      const context = {
        store,
        engine: (id: NodeId) => observer.engine(id),
        log,
        signal: run.end.signal,
        monotonicMs: this.#monotonicMs,
        requestId,
        ...(instruments === undefined ? {} : { instruments }),
      };
      // Under the id of the request that it is for, not of the one that happened to wake it.
      const outcome = await withRequestId(requestId, () => runWork(work, context));
      if (this.#run !== run) return;
      const now = this.#monotonicMs();
      const { failure } = work;
      if (outcome.kind === "failed") {
        this.#memory.failed(subject, kindOf(work), outcome.error, now);
      } else if (outcome.kind === "done") {
        this.#memory.succeeded(subject, kindOf(work), now);
        if (failure !== undefined) {
          const { code, message, remedy } = failure;
          this.#memory.gaveUp(subject, new TrilithError(code, message, remedy));
        }
      }
      if (nodes.size > 0) {
        this.#unread.set(subject, new Set(nodes));
        await this.#read(subject, [...nodes]);
      }
      if (this.#run !== run) return;
      this.#queue.add(subject);
      this.#wakeRelated(subject, outcome.kind === "failed");
      if (outcome.kind === "failed" || failure !== undefined) observer.tell();
    } finally {
      for (const id of nodes) this.#busy.set(id, (this.#busy.get(id) ?? 1) - 1);
    }
  }

  /** Reads the nodes that were called: until that is done the subject is not planned again. */
  async #read(subject: string, nodes: readonly NodeId[]): Promise<void> {
    const { observer } = this.#options;
    const results = await Promise.all(nodes.map((id) => observer.refresh(id)));
    const unread = this.#unread.get(subject);
    if (unread === undefined) return;
    nodes.forEach((id, index) => {
      if (results[index] === true) unread.delete(id);
    });
    if (unread.size === 0) this.#unread.delete(subject);
    else await new Promise((resolve) => setTimeout(resolve, LATEST_RETRY_MS));
  }

  /** A replica's failure may be what its volume gives up for. */
  #wakeRelated(subject: string, hasFailed: boolean): void {
    if (!hasFailed) return;
    const view = this.#options.store.view();
    const [kind, key = ""] = subject.split("/");
    const record =
      kind === "replica"
        ? view.replicas.get(key)
        : kind === "nexus"
          ? view.nexuses.get(key)
          : undefined;
    if (record?.volumeUuid != null) this.#queue.add(`volume/${record.volumeUuid}`);
  }

  // ------------------------------------------------------------------------------------------- time

  #setTimer(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    const now = this.#monotonicMs();
    const wallNow = this.#options.nowMs();
    let inMs = Math.max(0, FULL_PLAN_MS - (now - this.#fullPlanned));
    if (this.#fullDueMs !== null) inMs = Math.min(inMs, this.#fullDueMs - wallNow);
    if (this.#fullWanted) inMs = Math.min(inMs, FULL_PLAN_GAP_MS - (now - this.#fullPlanned));
    for (const subjects of [this.#urgent, this.#queue]) {
      for (const subject of subjects) {
        if (this.#active.has(subject)) continue;
        const waitMs = this.#memory.notBeforeMs(subject) - now;
        if (waitMs > 0) inMs = Math.min(inMs, waitMs);
      }
    }
    for (const [subject, dueMs] of this.#due) {
      if (dueMs <= wallNow) {
        this.#due.delete(subject);
        this.#queue.add(subject);
        inMs = 0;
      } else inMs = Math.min(inMs, dueMs - wallNow);
    }
    this.#timer = setTimeout(() => this.#pump(), Math.max(1, inMs));
  }
}
