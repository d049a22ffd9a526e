/** What the planner hands to whoever carries it out. Types only. */
import type { EngineInput, EngineMethod } from "../../engine/rpc/contract.ts";
import type { ErrorCode } from "../../errors.ts";
import type { NewEvent, NodeId, TableName, Tables } from "../model.ts";

/**
 * One change of a record. A put replaces all of it; its `revision` is that of the record it was made
 * from (0: there must be none), and the store refuses it when the record has changed since. A removal
 * may name the revision that it expects; without, it is that of the view of the transaction.
 */
export type Change = {
  readonly [T in TableName]:
    | { readonly table: T; readonly put: Tables[T] }
    | { readonly table: T; readonly remove: string; readonly revision?: number };
}[TableName];

/** A call of an engine's RPC. */
export type EngineCall = {
  readonly [M in EngineMethod]: { readonly method: M; readonly input: EngineInput<M> };
}[EngineMethod];

/**
 * One thing to do, and why. Every step may be done twice, and may be the last thing that its leader
 * ever did: what it was to bring about is planned again from what is found then.
 */
export type Step =
  | {
      /**
       * A transaction of the store; refused when a record changed since the state was read. A record
       * that an earlier step of the same work has put counts as read after that step.
       */
      readonly kind: "store";
      readonly changes: readonly Change[];
      readonly events: readonly NewEvent[];
      readonly reason: string;
    }
  | {
      readonly kind: "engine";
      readonly nodeId: NodeId;
      readonly call: EngineCall;
      /** Codes of errors that mean it is done already (`NotFound` of a deletion). */
      readonly doneWhen: readonly string[];
      /** Without answer for so long it has failed. Default: the executor's. */
      readonly timeoutMs?: number;
      readonly reason: string;
    };

/**
 * Steps of one subject, in order: each is begun when the one before has succeeded. Work of different
 * subjects may run at the same time, one work per subject.
 */
export interface Work {
  /**
   * `volume/<uuid>`, `pool/<id>`, `node/<id>`, `snapshot/<uuid>`, `replica/<uuid>`, `nexus/<uuid>`,
   * `standby/<volume uuid>`, `scrub/<volume uuid>`.
   */
  readonly subject: string;
  readonly steps: readonly Step[];
  /** Carried out when the first step has succeeded and the steps have ended, also when one failed. */
  readonly cleanup?: readonly Step[];
  /** The work gives up what was asked for, because of this: whoever waits for the subject is told. */
  readonly failure?: {
    readonly code: ErrorCode;
    readonly message: string;
    readonly remedy: string;
  };
}

/** Something that needs an operator's attention. */
export interface Warning {
  readonly severity: "info" | "warning" | "critical";
  readonly subject: string;
  readonly message: string;
  /** The command that fixes it, or what to do. */
  readonly remedy: string;
}

export interface Plan {
  readonly works: readonly Work[];
  readonly warnings: readonly Warning[];
  /** When to plan again though nothing has happened by then; null: no need. */
  readonly wakeAtMs: number | null;
}

/** What an operation of the API changes at once; the rest follows from the next plans. */
export interface Decision {
  readonly changes: readonly Change[];
  readonly events: readonly NewEvent[];
}
