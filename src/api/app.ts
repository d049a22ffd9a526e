/**
 * The HTTP API as a Hono app: finds the operation, admits and checks the request, hands it to the
 * leader when that is another node, calls the operation, and shows what it throws. Owns no state.
 */
import { randomUUID } from "node:crypto";
import { type Context, Hono } from "hono";
import type { ClusterState } from "../control/cluster-state.ts";
import type { Control, RequestContext } from "../control/control.ts";
import { TrilithError } from "../errors.ts";
import { acceptedRequestId, REQUEST_ID_HEADER, withRequestId } from "../ops/request-id.ts";
import { type Admission, admitsAll, assertAdmitted, type TokenVerifier } from "./admission.ts";
import { openApiDocument } from "./document.ts";
import { HttpError, shownError } from "./errors.ts";
import { explorerHeaders, explorerPage } from "./explorer.ts";
import { type Forwarding, leadersAnswer, leadershipOf } from "./forwarding.ts";
import { IDEMPOTENCY_KEY_CHARS_MAX, TARGET_CHARS_MAX } from "./limits.ts";
import { type AnyOperation, isMutation, JsonText, type Scope } from "./operation.ts";
import { operations } from "./operations/index.ts";
import { checkedRequest, pathPattern } from "./request.ts";

const PREFIX = "/v0";
export const STALE_HEADER = "Trilith-Stale";
export const IGNORED_HEADER = "Trilith-Ignored-Fields";

/** One request that was answered, for logs and metrics. */
export interface Answered {
  /** Id of the operation; empty when there is none of that path and method. */
  readonly operation: string;
  readonly method: string;
  readonly status: number;
  readonly durationMs: number;
  readonly requestId: string;
}

export interface ApiOptions extends Forwarding {
  /** What is known of the cluster here, for reads without a leader. Default: the control's. */
  readonly localState?: () => ClusterState;
  readonly verifyToken?: TokenVerifier;
  /** What is missing before this node can serve; empty: nothing. Default: a leader. */
  readonly unready?: () => readonly string[];
  readonly answered?: (answer: Answered) => void;
}

interface Env {
  readonly Bindings: { readonly admission?: Admission };
  readonly Variables: { requestId: string; operation: string };
}
type Ctx = Context<Env>;
export type Api = Hono<Env>;

/** Hono's notation of a template; parameters are taken apart by `pathPattern`. */
function honoPath(template: string): string {
  const segments = template.split("/").map((segment, index) => {
    if (segment === "{child_id}") return `:p${index}{.+}`;
    if (/^\{[a-z_]+\}$/.test(segment)) return `:p${index}`;
    if (!segment.includes("{")) return segment;
    const source = segment.replace(/\{[a-z_]+\}/g, "[^/]+");
    return `:p${index}{${source === "[^/]+=[^/]+" ? "[^/]+=[^/]*" : source}}`;
  });
  return PREFIX + segments.join("/");
}

/** Fixed segments come before parameters, so that `/volumes/snapshots` is no volume. */
function bySpecificity(a: AnyOperation, b: AnyOperation): number {
  const rank = (path: string) =>
    path
      .split("/")
      .map((segment) => (segment.startsWith("{") ? "2" : segment.includes("{") ? "1" : "0"))
      .join("");
  return rank(a.path) < rank(b.path) ? -1 : rank(a.path) > rank(b.path) ? 1 : 0;
}

function contextOf(c: Ctx, operation: AnyOperation): RequestContext {
  const requestId = c.get("requestId");
  const signal = c.req.raw.signal;
  const key = isMutation(operation) ? c.req.header("idempotency-key") : undefined;
  if (key === undefined) return { requestId, signal };
  if (!/^[\x21-\x7e]+$/.test(key) || key.length > IDEMPOTENCY_KEY_CHARS_MAX) {
    throw new TrilithError(
      "InvalidArgument",
      "Idempotency-Key is not of 1 to 255 printable characters without spaces",
      "a UUID is a good one",
    );
  }
  return { requestId, signal, idempotencyKey: key };
}

/** The rows of the table, as requests are matched with them. */
const table = [...operations]
  .sort(bySpecificity)
  .map((operation) => ({ operation, pattern: pathPattern(operation.path) }));

/** Gives every request its id, and tells log and metrics how it ended. */
async function observed(options: ApiOptions, c: Ctx, next: () => Promise<void>): Promise<void> {
  const startMs = performance.now();
  const requestId = acceptedRequestId(c.req.header(REQUEST_ID_HEADER)) ?? randomUUID();
  c.set("requestId", requestId);
  c.set("operation", "");
  await withRequestId(requestId, next);
  c.res.headers.set(REQUEST_ID_HEADER, requestId);
  c.res.headers.set("X-Content-Type-Options", "nosniff");
  const durationMs = performance.now() - startMs;
  const { method } = c.req;
  const { status } = c.res;
  options.answered?.({ operation: c.get("operation"), method, status, durationMs, requestId });
  const level = method === "GET" || method === "HEAD" ? "debug" : "info";
  const ms = Number(durationMs.toFixed(1));
  options.log(level, "request", { requestId, method, path: c.req.path, status, ms });
}

/** The error for a path that there is not, or that does not know the method (sets `Allow` then). */
function notThere(c: Ctx): TrilithError {
  const path = new URL(c.req.url).pathname;
  const inner = path.startsWith(PREFIX) ? path.slice(PREFIX.length) : "";
  const allowed = table
    .filter(({ pattern }) => pattern.test(inner))
    .map(({ operation }) => operation.method.toUpperCase());
  const remedy = "see / or /openapi.json for what there is";
  if (allowed.length === 0) {
    return new TrilithError("NotFound", `there is no ${c.req.method} ${path}`, remedy);
  }
  c.header("Allow", [...new Set(allowed)].join(", "));
  return new HttpError(405, `${path} does not know ${c.req.method}`, remedy);
}

/** What an operation may use. A state without a leader is what is known here, and said to be. */
function scopeOf(control: Control, options: ApiOptions, c: Ctx, operation: AnyOperation): Scope {
  const localState = options.localState ?? (() => control.localState());
  const isStale = operation.served === "leader" && leadershipOf(options) !== "here";
  const stale = (): ClusterState => {
    c.header(STALE_HEADER, "true");
    return localState();
  };
  const latest = async (): Promise<ClusterState> => {
    try {
      return await control.state();
    } catch (error) {
      // Leadership was lost meanwhile. A change that was made is there all the same.
      const isLost = error instanceof TrilithError && error.code === "Unavailable";
      if (!isLost) throw error;
      return stale();
    }
  };
  return {
    control,
    context: contextOf(c, operation),
    state: isStale ? async () => stale() : latest,
    request: c.req.raw,
  };
}

function shown(c: Ctx, operation: AnyOperation, result: unknown): Response {
  if (result instanceof Response) return result;
  if (operation.result === undefined) return c.body(null, 204);
  if (result instanceof JsonText) {
    return c.body(result.text, operation.status as 200, { "content-type": "application/json" });
  }
  return c.json(result as object, operation.status as 200);
}

/** Adds what stands beside the operations. */
function addPages(app: Api, control: Control, options: ApiOptions): void {
  const unready =
    options.unready ?? (() => (control.raft().leader === null ? ["there is no leader"] : []));
  // Without a token: it is the same everywhere, and where one is needed the page asks for it.
  app.get("/", (c) => c.html(explorerPage(), 200, explorerHeaders));
  app.get("/livez", (c) => c.json({ status: "ok", reasons: [] }));
  app.get("/readyz", (c) => {
    const reasons = [...unready()];
    const ready = reasons.length === 0;
    return c.json({ status: ready ? "ok" : "not ready", reasons }, ready ? 200 : 503);
  });
  app.use(async (c, next) => {
    if (c.req.url.length > TARGET_CHARS_MAX) throw new HttpError(414, "the URI is too long");
    await assertAdmitted(c.req.raw, c.env?.admission ?? admitsAll, options.verifyToken);
    await next();
  });
  app.get("/openapi.json", (c) => c.json(openApiDocument()));
  app.get(`${PREFIX}/api/spec`, (c) => c.json(openApiDocument()));
  app.get(`${PREFIX}/swagger-ui`, (c) => c.redirect("/"));
}

/** Builds the app. */
export function createApi(control: Control, options: ApiOptions): Api {
  const { log } = options;
  const failure = (c: Ctx, error: unknown): Response => {
    const requestId = c.get("requestId");
    const [body, status] = shownError(error, requestId);
    if (body.kind === "Internal") {
      log("error", "request failed", { requestId, path: c.req.path, error });
    }
    if (status === 401) c.header("WWW-Authenticate", "Bearer");
    return c.json(body, status as 400);
  };
  const serve = async (c: Ctx, operation: AnyOperation, pattern: RegExp): Promise<Response> => {
    c.set("operation", operation.id);
    const path = new URL(c.req.url).pathname.slice(PREFIX.length);
    const forwarded = await leadersAnswer(options, c.req.raw, operation, c.get("requestId"));
    if (forwarded !== null) return forwarded;
    const scope = scopeOf(control, options, c, operation);
    const { ignored, ...request } = await checkedRequest(operation, pattern, path, c.req.raw);
    if (ignored.length > 0) c.header(IGNORED_HEADER, ignored.map(encodeURIComponent).join(", "));
    return shown(c, operation, await operation.handle(request, scope));
  };
  const app: Api = new Hono<Env>();
  app.use((c, next) => observed(options, c, next));
  addPages(app, control, options);
  for (const { operation, pattern } of table) {
    app.on(operation.method, honoPath(operation.path), (c) => serve(c, operation, pattern));
  }
  app.notFound((c) => failure(c, notThere(c)));
  app.onError((error, c) => failure(c, error));
  return app;
}
