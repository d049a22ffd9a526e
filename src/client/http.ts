/**
 * One request to the HTTP API: sent, repeated when that is safe, its answer parsed, its error made
 * a `TrilithError` with a remedy.
 */
import { randomUUID } from "node:crypto";
import { accessSync, constants } from "node:fs";
import { type ErrorCode, errorCodes, TrilithError } from "../errors.ts";
import type { Endpoint } from "./endpoint.ts";
import { ATTEMPTS_MAX, CHANGE_TIMEOUT_MIN_MS, RETRY_PAUSE_MS } from "./limits.ts";

export interface HttpOptions {
  readonly endpoint: Endpoint;
  readonly timeoutMs: number;
  /** The time limit was given by the user: it holds for changes too. */
  readonly timeoutGiven: boolean;
  /** Bearer token, for endpoints that ask for one. */
  readonly token?: string;
  /** Certificate authority (PEM) that the endpoint's certificate is checked against. */
  readonly ca?: string;
  /** What carries requests: for who is in the API's own process. Default: the network. */
  readonly fetch?: (url: string, init: RequestInit) => Promise<Response>;
  /** Pause between attempts; replaced in tests. */
  readonly sleep?: (ms: number) => Promise<void>;
}

export type Method = "GET" | "PUT" | "POST" | "DELETE";
export type Query = Readonly<Record<string, string | number | boolean | null | undefined>>;

export interface HttpRequest {
  readonly method: Method;
  /** Below the base, e.g. `/v0/nodes`. */
  readonly path: string;
  readonly query?: Query;
  readonly body?: unknown;
}

/** What an error answer carries: the contract's `RestJsonError`, and our remedy. */
interface ErrorAnswer {
  readonly kind?: string;
  readonly message?: string;
  readonly details?: string;
  readonly remedy?: string;
}

const codeByStatus: Readonly<Record<number, ErrorCode>> = {
  400: "InvalidArgument",
  401: "Unauthenticated",
  403: "Unauthorized",
  404: "NotFound",
  406: "NotAcceptable",
  408: "Timeout",
  409: "Conflict",
  412: "FailedPrecondition",
  416: "OutOfRange",
  422: "AlreadyExists",
  501: "Unimplemented",
  503: "Unavailable",
  504: "DeadlineExceeded",
  507: "ResourceExhausted",
};

/** What helps against an error whose sender named no remedy. */
const remedies: Partial<Record<ErrorCode, string>> = {
  NotFound: "see what there is: `trilith get volumes`, `get pools`, `get nodes`",
  Unavailable: "the cluster has no leader or the node is not ready: `trilith status`, then again",
  FailedPersist: "the cluster could not commit the change: `trilith status`, then again",
  ResourceExhausted: "see what room there is: `trilith get pools`",
  CapacityLimitExceeded: "see what room there is: `trilith get pools`",
  NoSpace: "see what room there is: `trilith get pools`",
  Unauthenticated: "give a token: TRILITH_TOKEN=<token>, made with `trilith token create`",
  PermissionDenied: "give a token: TRILITH_TOKEN=<token>, or run as root on a node",
  Timeout: "see what came of it with `trilith status`; a longer limit is set with --timeout",
  DeadlineExceeded:
    "see what came of it with `trilith status`; a longer limit is set with --timeout",
  NotPublished: "publish it: `trilith publish volume <id>`",
  Internal: "see the journal: `journalctl -u trilith -e`, and take a bundle: `trilith dump system`",
};

function errorCodeOf(kind: string | undefined, status: number): ErrorCode {
  const known = errorCodes.find((code) => code === kind);
  return known ?? codeByStatus[status] ?? "Internal";
}

/** The error that an answer stands for. */
export function errorOfAnswer(status: number, text: string, endpoint: Endpoint): TrilithError {
  let answer: ErrorAnswer | null = null;
  try {
    answer = JSON.parse(text) as ErrorAnswer;
  } catch {
    // Whoever answered (a proxy, another program) does not speak our language.
  }
  if (answer === null || typeof answer !== "object" || typeof answer.kind !== "string") {
    const first = text.trim().split("\n")[0]?.slice(0, 200) ?? "";
    const what = `${endpoint.name} answered ${status}${first === "" ? "" : `: ${first}`}`;
    return new TrilithError(
      errorCodeOf(undefined, status),
      what,
      "is that the address of a trilith API? Name another one with --rest",
    );
  }
  const code = errorCodeOf(answer.kind, status);
  const message = answer.message ?? "";
  const details = answer.details ?? "";
  const what =
    message === "" || details.includes(message)
      ? details || answer.kind
      : details === "" || message.includes(details)
        ? message
        : `${message}: ${details}`;
  return new TrilithError(code, what, answer.remedy || remedies[code] || "");
}

/** A path that is there, but not for this user. */
function isForbidden(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return false;
  } catch (error) {
    return (error as { code?: string }).code === "EACCES";
  }
}

/** The error of a request that got no answer. */
function unanswered(error: unknown, options: HttpOptions, timeoutMs: number): TrilithError {
  const { name } = options.endpoint;
  const { code, message } = error as { code?: string; message?: string };
  if (error instanceof Error && (error.name === "TimeoutError" || error.name === "AbortError")) {
    return new TrilithError(
      "Timeout",
      `no answer from ${name} within ${timeoutMs / 1000} s`,
      remedies.Timeout,
    );
  }
  const text = `${code ?? ""} ${message ?? String(error)}`;
  if (options.endpoint.unix !== undefined && isForbidden(options.endpoint.unix)) {
    return new TrilithError(
      "PermissionDenied",
      `${name} may not be opened`,
      "run as root, or take the loopback: --rest http://127.0.0.1:8081",
    );
  }
  const refused = /ConnectionRefused|ECONNREFUSED|FailedToOpenSocket|ENOENT/.test(text);
  if (/certificate|CERT|self.signed|TLS/i.test(text)) {
    return new TrilithError(
      "Unavailable",
      `${name} cannot be trusted: ${message}`,
      "name the cluster's certificate authority with --ca",
    );
  }
  const remedy =
    options.endpoint.unix !== undefined ||
    /\/\/(127\.|localhost|\[::1\])/.test(options.endpoint.url)
      ? "start it with `systemctl start trilith`, or name a node with --rest http://<node>:8081"
      : "check the address and that trilith runs there: `systemctl status trilith`";
  const why = refused ? "nothing listens there" : (message ?? String(error));
  return new TrilithError("Unavailable", `${name} cannot be reached: ${why}`, remedy);
}

function queryText(query: Query | undefined): string {
  const parts = Object.entries(query ?? {}).filter(
    ([, value]) => value !== undefined && value !== null,
  );
  if (parts.length === 0) return "";
  return `?${parts.map(([k, v]) => `${k}=${encodeURIComponent(String(v))}`).join("&")}`;
}

/** Time that one request is given. */
export function timeLimitMs(options: HttpOptions, method: Method): number {
  if (method === "GET" || options.timeoutGiven) return options.timeoutMs;
  return Math.max(options.timeoutMs, CHANGE_TIMEOUT_MIN_MS);
}

/** Starts a request and returns its answer as it comes in. Throws only for want of an answer. */
export async function send(
  options: HttpOptions,
  request: HttpRequest,
  headers: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<Response> {
  const { endpoint } = options;
  const url = `${endpoint.url}${request.path}${queryText(request.query)}`;
  const carry = options.fetch ?? ((to: string, init: RequestInit) => fetch(to, init));
  return await carry(url, {
    method: request.method,
    headers: {
      ...(options.token === undefined ? {} : { authorization: `Bearer ${options.token}` }),
      ...(request.body === undefined ? {} : { "content-type": "application/json" }),
      ...headers,
    },
    ...(request.body === undefined ? {} : { body: JSON.stringify(request.body) }),
    ...(endpoint.unix === undefined ? {} : { unix: endpoint.unix }),
    ...(options.ca === undefined ? {} : { tls: { ca: options.ca } }),
    redirect: "follow",
    signal,
  });
}

/**
 * Sends a request and returns what the answer holds; undefined for one without a body. A request
 * that changes something carries an idempotency key, so that it may be sent again when the
 * connection broke or the cluster was between two leaders: it is carried out once.
 */
export async function request(options: HttpOptions, asked: HttpRequest): Promise<unknown> {
  const timeoutMs = timeLimitMs(options, asked.method);
  const signal = AbortSignal.timeout(timeoutMs);
  const requestId = randomUUID();
  const headers: Record<string, string> = { accept: "application/json", "x-request-id": requestId };
  if (asked.method !== "GET") headers["idempotency-key"] = requestId;
  const sleep = options.sleep ?? Bun.sleep;
  let pauseMs = RETRY_PAUSE_MS;
  for (let attempt = 1; ; attempt++) {
    let failure: TrilithError;
    try {
      const response = await send(options, asked, headers, signal);
      const text = await response.text();
      if (response.ok) return text === "" ? undefined : parseAnswer(text, options.endpoint);
      failure = errorOfAnswer(response.status, text, options.endpoint);
      if (response.status !== 503) throw failure;
    } catch (error) {
      if (error === undefined || error instanceof TrilithError) throw error;
      failure = unanswered(error, options, timeoutMs);
      // Nobody there, or no permission: it will be the same in a moment.
      const broken = /ECONNRESET|ConnectionClosed|EPIPE|closed unexpectedly/.test(
        `${(error as { code?: string }).code} ${(error as Error).message}`,
      );
      if (!broken) throw failure;
    }
    if (attempt >= ATTEMPTS_MAX || signal.aborted) throw failure;
    await sleep(pauseMs);
    pauseMs *= 2;
  }
}

function parseAnswer(text: string, endpoint: Endpoint): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new TrilithError(
      "Unavailable",
      `${endpoint.name} answered something that is no JSON: ${text.trim().slice(0, 80)}`,
      "is that the address of a trilith API? Name another one with --rest",
    );
  }
}
