/**
 * What the service needs from observer, executor and membership: nothing else of them is known here.
 * Types only.
 */
import type { EngineClient } from "../../engine/rpc/client.ts";
import type { TrilithError } from "../../errors.ts";
import type { ObservedNode } from "../cluster-state.ts";
import type { NodeId } from "../model.ts";

/** A step of a subject's work that did not succeed. It is tried again as long as it is planned. */
export interface StepFailure {
  /** Rises with every failure of any subject while this process lives: tells new from old. */
  readonly sequence: number;
  readonly error: TrilithError;
}

export interface Observation {
  /** What the engines report, by node. A new map whenever something changed; never changed in place. */
  observation(): ReadonlyMap<NodeId, ObservedNode>;
  /** Called after `observation()` has become another map, and after each failure of a step. */
  onChange(listener: () => void): () => void;
  /** The engine of a node; throws `NotFound` for an unknown node. Calls may reject with `Unavailable`. */
  engine(nodeId: NodeId): EngineClient;
  /** Reads a node anew; false: it could not be read. Never rejects. */
  refresh(nodeId: NodeId): Promise<boolean>;
}

export interface Execution {
  /**
   * Plans again and carries out, this subject (`volume/<uuid>`, ... as in `Work`) first. Never throws.
   * The request id goes into the log of what is done.
   */
  wake(subject: string, requestId?: string): void;
  /** Null: its last work succeeded, or there was none since this node leads. */
  lastFailure(subject: string): StepFailure | null;
}

export interface Membership {
  createToken(
    kind: "join" | "api",
    validMs: number,
    note: string,
  ): Promise<{ id: string; token: string; expiresAtMs: number }>;
  transferLeadership(toNode: NodeId): Promise<void>;
  /** Takes a node's raft member and record away; whatever else it had is gone already. */
  removeMember(nodeId: NodeId): Promise<void>;
}
