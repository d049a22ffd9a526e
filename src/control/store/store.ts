/**
 * The replicated store as the rest of the control process sees it. Implemented over raft; types only.
 */
import type { StoreView } from "../cluster-state.ts";
import type { NewEvent, StoredEvent } from "../model.ts";
import type { Change } from "../planner/plan.ts";

/** What a transaction works on: a fixed view. Whatever it decides is checked against it when applied. */
export interface Proposal {
  readonly changes: readonly Change[];
  readonly events: readonly NewEvent[];
}

export interface TransactOptions {
  /**
   * Names the request. A transaction whose key was applied before is not applied again: it has the
   * outcome of the first. Kept for a day.
   */
  readonly idempotencyKey?: string;
  readonly timeoutMs?: number;
}

export interface ClusterMember {
  readonly raftId: string;
  readonly nodeId: string;
  readonly isVoter: boolean;
  readonly isLeader: boolean;
  /** Highest log index it is known to hold; known to the leader only. */
  readonly matchIndex: number | null;
}

export interface StoreStatus {
  readonly raftId: string;
  readonly role: "leader" | "follower" | "candidate" | "learner";
  readonly term: number;
  readonly leader: string | null;
  readonly commitIndex: number;
  readonly appliedIndex: number;
  readonly firstIndex: number;
  readonly members: readonly ClusterMember[];
}

export interface Store {
  /** What is applied here now. On a follower it may lag behind. */
  view(): StoreView;
  /** The view after everything that was acknowledged before the call (raft's ReadIndex). */
  latest(): Promise<StoreView>;
  /**
   * Runs `decide` on the latest applied view, proposes what it returns, and tries again with a newer
   * view when a record that the changes touch has changed meanwhile. Resolves when it is committed and
   * applied here. Only on the leader: elsewhere `Unavailable`. `Timeout` means that the outcome is not
   * known; a repetition with the same key is safe, and has the value of the first, as JSON.
   *
   * Changes that make or remove records others depend on (nodes, pools, volumes, replicas, nexuses,
   * snapshots) are decided one after the other, each seeing the ones before: what `decide` concludes
   * from the absence of a record holds until it is applied. `Conflict` when a change was made from
   * another revision of its record than the view has.
   */
  transact<T>(
    decide: (view: StoreView) => Proposal & { readonly value: T },
    options?: TransactOptions,
  ): Promise<T>;
  /**
   * Called after each command that was applied here, in order, with the names of the records that it
   * touched (`volumes/<uuid>`: table and key); and after a snapshot came in, with those of all records.
   */
  subscribe(listener: (touched: ReadonlySet<string>, view: StoreView) => void): () => void;
  /**
   * Called with each event as it is applied, in order. When a snapshot came in, with all that happened
   * meanwhile, as far as that is kept.
   */
  onEvent(listener: (event: StoredEvent) => void): () => void;
  /** Events after `sinceId`, oldest first, at most `limit`; and the oldest id that is kept. */
  events(sinceId: number, limit: number): { events: StoredEvent[]; oldestId: number };
  status(): StoreStatus;
  isLeader(): boolean;
  /**
   * Called when this node becomes leader (with the term), once everything that was committed before is
   * applied here; and when it stops being it (null).
   */
  onLeadership(listener: (term: number | null) => void): () => void;
}
