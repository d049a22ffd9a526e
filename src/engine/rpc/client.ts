/** Typed client of the engine's API: one function per route of the contract. */
import * as v from "valibot";
import { causedBy, fromErrorBody, TrilithError } from "../../errors.ts";
import { currentRequestId, REQUEST_ID_HEADER } from "../../ops/request-id.ts";
import { type EngineContract, engineContract } from "./contract.ts";
import { ErrorBodySchema } from "./fields.ts";
import type { Contract, Route, RouteInput, RouteResult } from "./route.ts";

type NoInput<R> = Record<string, never> extends RouteInput<R> ? true : false;

/** One function per route; routes without required fields may be called without argument. */
export type Client<C extends Contract> = {
  readonly [K in keyof C]: NoInput<C[K]> extends true
    ? (input?: RouteInput<C[K]>, options?: CallOptions) => Promise<RouteResult<C[K]>>
    : (input: RouteInput<C[K]>, options?: CallOptions) => Promise<RouteResult<C[K]>>;
};

export interface CallOptions {
  readonly signal?: AbortSignal;
  /** Given up with `Timeout` after this long. Default: the client's. */
  readonly timeoutMs?: number;
}

export interface ClientOptions {
  /** Default 60 s. */
  readonly timeoutMs?: number;
  /** Carries requests; default: `fetch`. What it rejects with is passed on when it is typed. */
  readonly send?: (url: string, init: RequestInit) => Promise<Response>;
}

export type EngineClient = Client<EngineContract>;

function names(part: { readonly entries: object } | undefined): string[] {
  return part === undefined ? [] : Object.keys(part.entries);
}

/** The request that a route and its input make. */
function requestOf(
  route: Route,
  input: Record<string, unknown>,
): { path: string; body: string | undefined } {
  const path = route.path.replace(/:(\w+)/g, (_all, name: string) =>
    encodeURIComponent(String(input[name])),
  );
  const query = new URLSearchParams();
  for (const name of names(route.query)) {
    if (input[name] !== undefined) query.set(name, String(input[name]));
  }
  const search = query.size === 0 ? "" : `?${query}`;
  if (route.body === undefined) return { path: path + search, body: undefined };
  const body: Record<string, unknown> = {};
  const apart = new Set([...names(route.params), ...names(route.query)]);
  // Fields that the route does not know are sent too: the engine refuses them by name.
  for (const [name, value] of Object.entries(input)) if (!apart.has(name)) body[name] = value;
  return { path: path + search, body: JSON.stringify(body) };
}

/** The engine's log names the request that a call was made for. */
function headersOf(body: string | undefined): Record<string, string> {
  const requestId = currentRequestId();
  return {
    ...(body === undefined ? {} : { "content-type": "application/json" }),
    ...(requestId === undefined ? {} : { [REQUEST_ID_HEADER]: requestId }),
  };
}

function unreachable(url: string, error: unknown, signal: AbortSignal | undefined): TrilithError {
  const text = error instanceof Error ? error.message : String(error);
  if (error instanceof DOMException && error.name === "TimeoutError") {
    return new TrilithError("Timeout", `${url}: no answer in time`);
  }
  if (signal?.aborted === true) return new TrilithError("Aborted", `${url}: given up`);
  return causedBy(
    new TrilithError("Unavailable", `${url}: ${text}`, "check that the engine runs there"),
    error,
  );
}

/** The typed error that an answer other than 2xx carries. */
async function errorOf(url: string, response: Response): Promise<TrilithError> {
  const text = await response.text();
  try {
    const body = v.safeParse(ErrorBodySchema, JSON.parse(text));
    if (body.success) return fromErrorBody(body.output);
  } catch {
    // Not JSON: something else answered.
  }
  return new TrilithError("Unavailable", `${url}: HTTP ${response.status}: ${text.slice(0, 200)}`);
}

/**
 * A client for any contract. Functions reject with the engine's `TrilithError`, or with
 * `Unavailable`, `Timeout`, `Aborted` when there was no answer, or `Unavailable` when the answer is
 * not of the contract's shape.
 */
export function httpClient<C extends Contract>(
  contract: C,
  baseUrl: string,
  options: ClientOptions = {},
): Client<C> {
  const base = baseUrl.replace(/\/+$/, "");
  const send = options.send ?? fetch;
  const call = async (
    route: Route,
    input: Record<string, unknown> = {},
    callOptions: CallOptions = {},
  ): Promise<unknown> => {
    const { path, body } = requestOf(route, input);
    const url = base + path;
    const timeoutMs = callOptions.timeoutMs ?? options.timeoutMs ?? 60_000;
    const timeout = AbortSignal.timeout(timeoutMs);
    const given = callOptions.signal;
    const signal = given === undefined ? timeout : AbortSignal.any([timeout, given]);
    let response: Response;
    let text: string;
    try {
      response = await send(url, {
        method: route.method,
        signal,
        headers: headersOf(body),
        ...(body === undefined ? {} : { body }),
      });
      if (!response.ok) throw await errorOf(url, response);
      text = await response.text();
    } catch (error) {
      throw error instanceof TrilithError ? error : unreachable(url, error, given);
    }
    if (route.result === undefined) return undefined;
    const parsed = v.safeParse(route.result, JSON.parse(text));
    if (parsed.success) return parsed.output;
    const issue = parsed.issues[0];
    throw new TrilithError(
      "Unavailable",
      `${url}: the answer is not of the expected shape (${v.getDotPath(issue) ?? ""}: ${issue.message})`,
      "check that client and engine are of compatible versions",
    );
  };
  const entries = Object.entries(contract).map(([name, route]) => [
    name,
    (input?: Record<string, unknown>, callOptions?: CallOptions) => call(route, input, callOptions),
  ]);
  return Object.fromEntries(entries) as Client<C>;
}

/** Client of an engine, e.g. `engineClient("http://127.0.0.1:10124")`. */
export function engineClient(baseUrl: string, options: ClientOptions = {}): EngineClient {
  return httpClient(engineContract, baseUrl, options);
}
