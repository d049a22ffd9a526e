/**
 * How the HTTP API is described: one table of operations, each with its schemas and what it does.
 * The server, the OpenAPI document, the explorer and the tests are all made of it.
 */
import type * as v from "valibot";
import type { ClusterState } from "../control/cluster-state.ts";
import type { Control, RequestContext } from "../control/control.ts";

export type PartSchema =
  | v.ObjectSchema<v.ObjectEntries, undefined>
  | v.StrictObjectSchema<v.ObjectEntries, undefined>;
export type AnySchema = v.GenericSchema<unknown, unknown>;

export type Method = "get" | "put" | "post" | "delete";

/** What an operation works on. */
export interface Scope {
  readonly control: Control;
  readonly context: RequestContext;
  /** The cluster as the leader sees it; what is known here when there is no leader. */
  readonly state: () => Promise<ClusterState>;
  /** The request itself, for streams. */
  readonly request: Request;
}

type Out<P, Else> = P extends v.GenericSchema ? v.InferOutput<P> : Else;

/** A result that is JSON text already. */
export class JsonText {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

/** The checked parts of a request. */
export interface OperationRequest<P, Q, B> {
  readonly params: Out<P, Record<string, never>>;
  readonly query: Out<Q, Record<string, never>>;
  readonly body: Out<B, undefined>;
}

export interface Operation<
  P extends PartSchema | undefined = PartSchema | undefined,
  Q extends PartSchema | undefined = PartSchema | undefined,
  B extends AnySchema | undefined = AnySchema | undefined,
  R extends AnySchema | undefined = AnySchema | undefined,
> {
  /** Unique; Mayastor's where it has one. */
  readonly id: string;
  readonly method: Method;
  /** In OpenAPI's notation, without `/v0`. */
  readonly path: string;
  readonly tag: string;
  /** One line for people. */
  readonly summary: string;
  readonly description?: string;
  /** Of Mayastor's contract: fields it does not know are ignored, as Mayastor does. */
  readonly contract: boolean;
  readonly params?: P;
  readonly query?: Q;
  readonly body?: B;
  /** The body may be left out. */
  readonly bodyOptional?: boolean;
  readonly status: 200 | 201 | 202 | 204;
  /** What a successful answer carries; none with 204. */
  readonly result?: R;
  /**
   * `leader`: followers hand it on. `here`: whoever is asked answers, from what it has.
   */
  readonly served: "leader" | "here";
  /** Media type of the answer when it is not JSON alone. */
  readonly alsoMedia?: string;
  /** May return a whole `Response` (streams), or its result as text. */
  readonly handle: (
    request: OperationRequest<P, Q, B>,
    scope: Scope,
  ) => Promise<Out<R, void> | JsonText | Response>;
}

/** An operation of which only the form is known. */
export type AnyOperation = Omit<Operation, "handle"> & {
  readonly handle: (
    request: { readonly params: unknown; readonly query: unknown; readonly body: unknown },
    scope: Scope,
  ) => Promise<unknown>;
};

type Given<T, Optional extends keyof T> = Omit<T, Optional> & Partial<Pick<T, Optional>>;

function operation(contract: boolean) {
  return <
    const P extends PartSchema | undefined = undefined,
    const Q extends PartSchema | undefined = undefined,
    const B extends AnySchema | undefined = undefined,
    const R extends AnySchema | undefined = undefined,
  >(
    given: Given<Omit<Operation<P, Q, B, R>, "contract">, "status" | "served">,
  ): AnyOperation =>
    ({
      status: given.result === undefined ? 204 : 200,
      served: "leader",
      ...given,
      contract,
    }) as unknown as AnyOperation;
}

/** An operation of Mayastor's contract. */
export const contractOperation = operation(true);
/** An operation beside it. */
export const ownOperation = operation(false);

/** True when the operation changes something. */
export function isMutation(one: Pick<AnyOperation, "method">): boolean {
  return one.method !== "get";
}
