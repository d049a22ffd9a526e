/**
 * How every operation is carried out: a pure decision is committed as one transaction, the executor is
 * woken for the subject, and the goal is waited for.
 */
import { createHash } from "node:crypto";
import { TrilithError } from "../../errors.ts";
import type { ClusterSettings, ClusterState } from "../cluster-state.ts";
import type { RequestContext } from "../control.ts";
import type { PathReports } from "../path-reports.ts";
import { decisionUuids, type FreshUuids } from "../planner/decide/changes.ts";
import type { Change, Decision } from "../planner/plan.ts";
import type { Store } from "../store/store.ts";
import { FIRST_NEWS_MS, IDEMPOTENCY_KEY_MAX } from "./limits.ts";
import type { Execution, Membership, Observation } from "./ports.ts";
import { makeSettingsReader } from "./settings.ts";
import { type Goal, markFailures, type WaitParts, waitFor } from "./wait.ts";

export interface ServiceParts {
  readonly store: Store;
  readonly observation: Observation;
  readonly execution: Execution;
  readonly membership: Membership;
  readonly pathReports: PathReports;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  readonly newUuid: () => string;
}

export type Decide = (state: ClusterState, uuids: FreshUuids) => Decision;

/** One operation that is asked for. */
export interface Operation<T> {
  /** Its name and all it was given: what makes two requests the same. */
  readonly name: string;
  readonly request: readonly unknown[];
  readonly context: RequestContext;
  readonly decide: Decide;
  /** Whose plan is to be carried out; null: nobody has to do anything. */
  readonly subject: string | null;
  /** Null: done as soon as it is recorded. */
  readonly goal: Goal<T> | null;
}

/** What the store remembers of a request with an idempotency key. */
interface Remembered {
  readonly digest: string;
}

/** JSON in which the order of an object's keys does not matter. */
function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}

function digestOf(name: string, request: readonly unknown[]): string {
  return createHash("sha256")
    .update(canonicalJson([name, request]))
    .digest("hex");
}

function checkKey(key: string): void {
  if (key.length <= IDEMPOTENCY_KEY_MAX && /^[\x21-\x7e]+$/.test(key)) return;
  throw new TrilithError(
    "InvalidArgument",
    `an idempotency key has 1 to ${IDEMPOTENCY_KEY_MAX} printable characters without spaces`,
    "a UUID is a good one",
  );
}

export class Operations {
  readonly parts: ServiceParts;
  readonly #settings: (view: ClusterState["stored"]["settings"]) => ClusterSettings;
  readonly #ending = new AbortController();

  constructor(parts: ServiceParts) {
    this.parts = parts;
    this.#settings = makeSettingsReader();
  }

  /** Nobody waits any more; what was begun goes on elsewhere. */
  end(): void {
    this.#ending.abort();
  }

  /** What waiting needs. */
  get waits(): WaitParts {
    return { ...this.parts, state: () => this.state(), ending: this.#ending.signal };
  }

  /** The cluster as this member sees it now. */
  state(stored = this.parts.store.view()): ClusterState {
    const nowMs = this.parts.now();
    return {
      nowMs,
      settings: this.#settings(stored.settings),
      stored,
      observed: this.parts.observation.observation(),
      hostPaths: this.parts.pathReports.current(nowMs),
    };
  }

  /** After everything that was acknowledged before; with news of every node, if it comes soon. */
  async latestState(): Promise<ClusterState> {
    return this.state(await this.parts.store.latest());
  }

  /** Carries it out; see `waitFor` for how it rejects after the decision was committed. */
  async carryOut<T>(operation: Operation<T>): Promise<T | undefined> {
    const { context, goal, subject } = operation;
    await this.#firstNews();
    const { waits } = this;
    const marks = goal === null ? null : markFailures(waits, goal);
    await this.commit(operation);
    if (subject !== null) this.parts.execution.wake(subject, context.requestId);
    if (goal === null || marks === null) return undefined;
    return waitFor(waits, goal, marks, context.signal);
  }

  /** Commits the decision, once per idempotency key. */
  async commit(
    operation: Pick<Operation<unknown>, "name" | "request" | "context" | "decide">,
  ): Promise<void> {
    const { idempotencyKey } = operation.context;
    if (idempotencyKey !== undefined) checkKey(idempotencyKey);
    const mine: Remembered = { digest: digestOf(operation.name, operation.request) };
    const remembered = await this.parts.store.transact(
      (view) => {
        const uuids = Array.from({ length: decisionUuids }, () => this.parts.newUuid());
        const { changes, events } = operation.decide(this.state(view), uuids);
        return { changes, events, value: mine };
      },
      idempotencyKey === undefined ? {} : { idempotencyKey },
    );
    if (remembered.digest === mine.digest) return;
    throw new TrilithError(
      "InvalidArgument",
      "the idempotency key was used for another request",
      "use a new key for each request, and the same only to repeat it",
    );
  }

  /** Commits changes that need neither plan nor waiting. */
  record(
    name: string,
    request: readonly unknown[],
    context: RequestContext,
    changes: (state: ClusterState) => readonly Change[],
  ): Promise<void> {
    const decide = (state: ClusterState) => ({ changes: changes(state), events: [] });
    return this.commit({ name, request, context, decide });
  }

  /** Only the leader talks to engines. */
  requireLeader(): void {
    const { store } = this.parts;
    if (store.isLeader()) return;
    throw new TrilithError(
      "Unavailable",
      "this node does not lead the cluster",
      "repeat the request",
    );
  }

  /**
   * A new leader has not heard of the nodes yet, and would refuse what it could do in a moment: waits
   * until it knows of each whether it is there, for a while at most.
   */
  #firstNews(): Promise<void> {
    const { store, observation } = this.parts;
    const isKnown = () => {
      const observed = observation.observation();
      for (const id of store.view().nodes.keys()) {
        const status = observed.get(id)?.status;
        if (status === undefined || status === "Unknown") return false;
      }
      return true;
    };
    const isOver = () => store.status().role !== "leader" || (store.isLeader() && isKnown());
    if (isOver()) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    const look = () => {
      if (isOver()) resolve();
    };
    const timer = setTimeout(resolve, FIRST_NEWS_MS);
    const forget = [observation.onChange(look), store.onLeadership(look), store.subscribe(look)];
    return promise.finally(() => {
      clearTimeout(timer);
      for (const one of forget) one();
    });
  }
}
