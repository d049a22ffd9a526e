/**
 * The engine's HTTP API (port 10124): a Hono app made of the contract's table of routes. It checks
 * every request, calls the handler, and turns what it throws into the closed list of errors.
 */
import { type Context, Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import * as v from "valibot";
import { facesOf, TrilithError, toErrorBody } from "../errors.ts";
import type { Log } from "../ops/log.ts";
import { acceptedRequestId, REQUEST_ID_HEADER, withRequestId } from "../ops/request-id.ts";
import { engineContract } from "./rpc/contract.ts";
import { RPC_BODY_BYTES_MAX } from "./rpc/limits.ts";
import type { Contract, Handlers, PartSchema, Route } from "./rpc/route.ts";

type Part = Record<string, unknown>;

/** Checks one part of a request; throws `InvalidArgument` that names field and reason. */
function checked(where: string, schema: PartSchema | undefined, part: Part): Part {
  if (schema === undefined) {
    const [name] = Object.keys(part);
    if (name === undefined) return {};
    throw new TrilithError("InvalidArgument", `${where} has an unknown field "${name}"`);
  }
  const parsed = v.safeParse(schema, part);
  if (parsed.success) return parsed.output;
  const issue = parsed.issues[0];
  const path = v.getDotPath(issue);
  const unknown = issue.type === "strict_object" && issue.expected === "never";
  throw new TrilithError(
    "InvalidArgument",
    unknown
      ? `${where} has an unknown field ${path === null ? "" : `"${path}"`}`
      : `${where}, field "${path ?? ""}": ${issue.message}`,
    `known fields: ${Object.keys(schema.entries).join(", ")}`,
  );
}

/** Query parameters, each at most once. */
function queryOf(c: Context): Part {
  const query: Part = {};
  for (const [name, values] of Object.entries(c.req.queries())) {
    if (values.length > 1) {
      throw new TrilithError("InvalidArgument", `query parameter "${name}" is given twice`);
    }
    query[name] = values[0];
  }
  return query;
}

/** The JSON object in a request's body; an empty body is an empty object. */
async function bodyOf(c: Context): Promise<Part> {
  const text = await c.req.text();
  if (text === "") return {};
  const type = c.req.header("content-type") ?? "";
  if (!/^application\/json\s*(;|$)/i.test(type)) {
    throw new TrilithError(
      "InvalidArgument",
      `the body's content type is "${type}"`,
      "send application/json",
    );
  }
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    throw new TrilithError("InvalidArgument", "the body is not valid JSON");
  }
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    throw new TrilithError("InvalidArgument", "the body is not a JSON object");
  }
  return body as Part;
}

/** Splits one flat request into its parts by the route, and checks them. For callers without HTTP. */
export function checkedRequest(route: Route, input: Part): Part {
  const parts: Record<"params" | "query" | "body", Part> = { params: {}, query: {}, body: {} };
  for (const [name, value] of Object.entries(input)) {
    if (route.params !== undefined && name in route.params.entries) parts.params[name] = value;
    else if (route.query !== undefined && name in route.query.entries) parts.query[name] = value;
    else parts.body[name] = value;
  }
  return {
    ...checked("the path", route.params, parts.params),
    ...checked("the query", route.query, parts.query),
    ...checked("the body", route.body, parts.body),
  };
}

async function answer(
  c: Context,
  route: Route,
  handler: (request: Part) => Promise<unknown>,
): Promise<Response> {
  const params = checked("the path", route.params, c.req.param());
  const query = checked("the query", route.query, queryOf(c));
  const body = checked("the body", route.body, await bodyOf(c));
  const result = await handler({ ...params, ...query, ...body });
  if (route.result === undefined) return c.body(null, 204);
  return c.json(result as object);
}

/** Turns whatever was thrown into an answer. */
function failure(c: Context, error: unknown, log: Log): Response {
  const body = toErrorBody(error);
  if (body.kind === "Internal") {
    log("error", "request failed", { path: c.req.path, error: body.message, stack: body.details });
  }
  const { http } = facesOf(body.kind);
  // Stack traces are for the log.
  const shown = body.kind === "Internal" ? { ...body, details: "see the engine's log" } : body;
  return c.json(shown, http as 400);
}

/**
 * Runs the request under the id that its caller gave, and logs it: changes, which are few, at `info`,
 * what only reads at `debug`.
 */
async function traced(c: Context, next: () => Promise<void>, log: Log): Promise<void> {
  const id = acceptedRequestId(c.req.header(REQUEST_ID_HEADER));
  const run = async (): Promise<void> => {
    const startedMs = performance.now();
    await next();
    log(c.req.method === "GET" ? "debug" : "info", "request", {
      method: c.req.method,
      path: c.req.path,
      status: c.res.status,
      ms: Math.round(performance.now() - startedMs),
    });
  };
  await withRequestId(id, run);
}

/** The app that serves `contract` by `handlers`. */
export function contractApp<C extends Contract>(
  contract: C,
  handlers: Handlers<C>,
  log: Log,
): Hono {
  const app = new Hono();
  const tooLarge = () => {
    throw new TrilithError("InvalidArgument", `a body has at most ${RPC_BODY_BYTES_MAX} bytes`);
  };
  app.use((c, next) => traced(c, next, log));
  app.use(bodyLimit({ maxSize: RPC_BODY_BYTES_MAX, onError: tooLarge }));
  app.use(async (c, next) => {
    // Browsers name the page that asks; no page has business here (cross-site requests, DNS rebinding).
    if (c.req.header("origin") !== undefined) {
      throw new TrilithError("PermissionDenied", "requests from web pages are not admitted");
    }
    await next();
  });
  for (const [name, route] of Object.entries<Route>(contract)) {
    const handler = handlers[name as keyof C] as unknown as (request: Part) => Promise<unknown>;
    app.on(route.method, route.path, (c) => answer(c, route, handler));
  }
  app.notFound((c) => {
    const what = `there is no ${c.req.method} ${c.req.path}`;
    return c.json(toErrorBody(new TrilithError("NotFound", what, "see /v1/openapi.json")), 404);
  });
  app.onError((error, c) => failure(c, error, log));
  return app;
}

/** The engine's app. */
export function engineApp(handlers: Handlers<typeof engineContract>, log: Log): Hono {
  return contractApp(engineContract, handlers, log);
}
