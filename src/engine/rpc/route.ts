/**
 * How the engine's HTTP API is described: one table of routes, each with its schemas. The server
 * checks requests with them, the client takes its types from them, and the OpenAPI document is made
 * of them. Imports valibot only.
 *
 * A request has up to three parts (path parameters, query, JSON body). Their field names differ from
 * each other, and handlers and client see all of them as one flat object.
 */
import type * as v from "valibot";

type Entries = v.ObjectEntries;
/** A part of a request. Unknown fields are refused. */
export type PartSchema = v.StrictObjectSchema<Entries, undefined>;
export type ResultSchema = v.GenericSchema<unknown, unknown>;

export type RouteMethod = "GET" | "PUT" | "POST" | "DELETE";

/** One route. Parts that are absent are refused when they are not empty. */
export interface Route {
  readonly method: RouteMethod;
  /** Hono's notation: `/v1/pools/:name`. */
  readonly path: string;
  /** One line for people; ends up in the OpenAPI document. */
  readonly summary: string;
  readonly params?: PartSchema;
  readonly query?: PartSchema;
  readonly body?: PartSchema;
  /** What a successful answer carries (200); without it the answer is 204 and empty. */
  readonly result?: ResultSchema;
}

export type Contract = Readonly<Record<string, Route>>;

type PartIn<P> = P extends v.GenericSchema ? v.InferInput<P> : unknown;
type PartOut<P> = P extends v.GenericSchema ? v.InferOutput<P> : unknown;
type Flat<T> = { [K in keyof T]: T[K] } & {};
type Field<R, K extends string> = R extends { readonly [P in K]: infer S } ? S : undefined;

/** What a caller hands to a route: all parts in one object, before defaults are filled in. */
export type RouteInput<R> = Flat<
  PartIn<Field<R, "params">> & PartIn<Field<R, "query">> & PartIn<Field<R, "body">>
>;
/** What a handler receives: all parts in one object, checked and with defaults filled in. */
export type RouteRequest<R> = Flat<
  PartOut<Field<R, "params">> & PartOut<Field<R, "query">> & PartOut<Field<R, "body">>
>;
/** What a handler returns and a caller gets. */
export type RouteResult<R> =
  Field<R, "result"> extends v.GenericSchema<unknown, infer Output> ? Output : undefined;

/** Whoever carries the routes of a contract out. */
export type Handlers<C extends Contract> = {
  readonly [K in keyof C]: (request: RouteRequest<C[K]>) => Promise<RouteResult<C[K]>>;
};

/** Keeps the exact types of a table of routes. */
export function routes<const C extends Contract>(table: C): C {
  return table;
}
