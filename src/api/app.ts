/**
 * The HTTP API as a Hono app: finds the operation, admits and checks the request, hands it to the
 * leader when that is another node, calls the operation, and shows what it throws. Owns no state.
 */
import { randomUUID } from "node:crypto";
import { type Context, Hono } from "hono";
import type { ClusterState } from "../control/cluster-state.ts";
import type { Control, RequestContext } from "../control/control.ts";
import { TrilithError } from "../errors.ts";
import type { Log } from "../ops/log.ts";
import { acceptedRequestId, REQUEST_ID_HEADER, withRequestId } from "../ops/request-id.ts";
import { type Admission, admitsAll, assertAdmitted, type TokenVerifier } from "./admission.ts";
import { openApiDocument } from "./document.ts";
import { HttpError, shownError } from "./errors.ts";
import { explorerHeaders, explorerPage } from "./explorer.ts";
import { IDEMPOTENCY_KEY_CHARS_MAX, TARGET_CHARS_MAX } from "./limits.ts";
import { type AnyOperation, isMutation, JsonText, type Scope } from "./operation.ts";
import { operations } from "./operations/index.ts";
import { checkedRequest, pathPattern } from "./request.ts";

const PREFIX = "/v0";
/** Set on what was handed on once: it is not handed on again. */
export const FORWARDED_HEADER = "Trilith-Forwarded";
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

export interface ApiOptions {
  readonly log: Log;
  /** Where the leader is: this node, another one, or nowhere. Default: here. */
  readonly leadership?: () => "here" | "elsewhere" | "none";
  /** Has the leader answer. Null, or a rejection: it cannot be reached. */
  readonly forward?: (request: Request) => Promise<Response> | null;
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
  if (!/^[\x20-\x7e]+$/.test(key) || key.length > IDEMPOTENCY_KEY_CHARS_MAX) {
    throw new TrilithError(
      "InvalidArgument",
      "Idempotency-Key is not of 1 to 255 printable characters",
    );
  }
  return { requestId, signal, idempotencyKey: key };
}

function noLeader(): TrilithError {
  return new TrilithError(
    "Unavailable",
    "the cluster has no leader that can be reached from here",
    "see `trilith cluster status`: a majority of the members has to be up and connected",
  );
}

/** Builds the app. */
export function createApi(control: Control, options: ApiOptions): Api {
  const { log } = options;
  const leadership = options.leadership ?? (() => "here" as const);
  const localState = options.localState ?? (() => control.localState());
  const unready =
    options.unready ?? (() => (control.raft().leader === null ? ["there is no leader"] : []));

  const failure = (c: Ctx, error: unknown): Response => {
    const requestId = c.get("requestId");
    const [body, status] = shownError(error, requestId);
    if (body.kind === "Internal") {
      log("error", "request failed", { requestId, path: c.req.path, error });
    }
    if (status === 401) c.header("WWW-Authenticate", "Bearer");
    return c.json(body, status as 400);
  };

  /** The leader's answer; null when this node is to answer. */
  const leadersAnswer = async (c: Ctx, operation: AnyOperation): Promise<Response | null> => {
    if (operation.served === "here" || leadership() === "here") return null;
    const wasForwarded = c.req.header(FORWARDED_HEADER) !== undefined;
    if (leadership() === "elsewhere" && !wasForwarded && options.forward !== undefined) {
      const headers = new Headers(c.req.raw.headers);
      headers.set(FORWARDED_HEADER, "1");
      headers.set(REQUEST_ID_HEADER, c.get("requestId"));
      // The token was checked here; the leader trusts its peers, and needs no secret.
      headers.delete("authorization");
      headers.delete("origin");
      try {
        const answer = await options.forward(new Request(c.req.raw, { headers }));
        if (answer !== null) return new Response(answer.body, answer);
      } catch (error) {
        log("warn", "leader not reached", { requestId: c.get("requestId"), error });
        // It may have begun: only whoever asked knows whether to ask again.
        if (isMutation(operation)) throw noLeader();
      }
    }
    if (isMutation(operation)) throw noLeader();
    return null;
  };

  const scopeOf = (c: Ctx, operation: AnyOperation): Scope => {
    const stale = operation.served === "leader" && leadership() !== "here";
    if (stale) c.header(STALE_HEADER, "true");
    return {
      control,
      context: contextOf(c, operation),
      state: stale ? async () => localState() : () => control.state(),
      request: c.req.raw,
    };
  };

  const serve = async (c: Ctx, operation: AnyOperation, pattern: RegExp): Promise<Response> => {
    c.set("operation", operation.id);
    const path = new URL(c.req.url).pathname.slice(PREFIX.length);
    const forwarded = await leadersAnswer(c, operation);
    if (forwarded !== null) return forwarded;
    const scope = scopeOf(c, operation);
    const { ignored, ...request } = await checkedRequest(operation, pattern, path, c.req.raw);
    if (ignored.length > 0) c.header(IGNORED_HEADER, ignored.map(encodeURIComponent).join(", "));
    const result = await operation.handle(request, scope);
    if (result instanceof Response) return result;
    if (operation.result === undefined) return c.body(null, 204);
    if (result instanceof JsonText) {
      return c.body(result.text, operation.status as 200, { "content-type": "application/json" });
    }
    return c.json(result as object, operation.status as 200);
  };

  const app: Api = new Hono<Env>();
  app.use(async (c, next) => {
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
    const operation = c.get("operation");
    options.answered?.({ operation, method, status, durationMs, requestId });
    const level = method === "GET" || method === "HEAD" ? "debug" : "info";
    const ms = Number(durationMs.toFixed(1));
    log(level, "request", { requestId, method, path: c.req.path, status, ms });
  });
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
  const table = [...operations]
    .sort(bySpecificity)
    .map((operation) => ({ operation, pattern: pathPattern(operation.path) }));
  for (const { operation, pattern } of table) {
    app.on(operation.method, honoPath(operation.path), (c) => serve(c, operation, pattern));
  }
  app.notFound((c) => {
    const path = new URL(c.req.url).pathname;
    const inner = path.startsWith(PREFIX) ? path.slice(PREFIX.length) : "";
    const allowed = table
      .filter(({ pattern }) => pattern.test(inner))
      .map(({ operation }) => operation.method.toUpperCase());
    const remedy = "see / or /openapi.json for what there is";
    if (allowed.length === 0) {
      return failure(
        c,
        new TrilithError("NotFound", `there is no ${c.req.method} ${path}`, remedy),
      );
    }
    c.header("Allow", [...new Set(allowed)].join(", "));
    return failure(c, new HttpError(405, `${path} does not know ${c.req.method}`, remedy));
  });
  app.onError((error, c) => failure(c, error));
  return app;
}
