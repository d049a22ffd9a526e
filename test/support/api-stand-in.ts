/**
 * An HTTP server that answers as the API would, with what a test gives it. It holds both sides to
 * what was agreed: requests have to be ones that the API's own operations take (and the contract
 * allows), answers have to be of the contract and of the operation's schema.
 */
import * as v from "valibot";
import type { AnyOperation } from "../../src/api/operation.ts";
import { operations } from "../../src/api/operations/index.ts";
import { checkedRequest, pathPattern } from "../../src/api/request.ts";
import { contractProblems, requestProblems } from "./contract.ts";

export interface Asked {
  readonly method: string;
  /** Without `/v0`, as it came. */
  readonly path: string;
  readonly search: string;
  readonly body: unknown;
  readonly headers: Headers;
}

/** An answer: a body with status 200, a status with or without a body, or a whole response. */
export type Answer =
  | { readonly body: unknown; readonly status?: number }
  | { readonly status: number }
  | Response;

/** By `METHOD /path` (without `/v0` and query), else by `*`. */
export type Answers = Readonly<
  Record<string, Answer | ((asked: Asked) => Answer | Promise<Answer>)>
>;

export interface StandIn {
  readonly url: string;
  readonly asked: Asked[];
  /** What was wrong with requests and answers. */
  readonly problems: string[];
  stop(): Promise<void>;
}

function operationFor(method: string, path: string): AnyOperation | undefined {
  return operations
    .filter((one) => one.method === method.toLowerCase() && pathPattern(one.path).test(path))
    .sort((a, b) => a.path.split("{").length - b.path.split("{").length)[0];
}

async function requestComplaints(asked: Asked, request: Request): Promise<string[]> {
  const at = `${asked.method} ${asked.path}${asked.search}`;
  const search = new URLSearchParams(asked.search);
  const found = requestProblems(asked.method, asked.path, search, asked.body);
  const operation = operationFor(asked.method, asked.path);
  if (operation === undefined) found.push("the API has no such operation");
  else {
    try {
      const checked = await checkedRequest(
        operation,
        pathPattern(operation.path),
        asked.path,
        request,
      );
      if (checked.ignored.length > 0) found.push(`the API ignores ${checked.ignored.join(", ")}`);
    } catch (error) {
      found.push((error as Error).message);
    }
  }
  return found.map((text) => `${at}: ${text}`);
}

function answerComplaints(asked: Asked, status: number, body: unknown): string[] {
  const found = contractProblems(asked.method, asked.path, status, body) ?? [];
  const operation = operationFor(asked.method, asked.path);
  if (status < 300 && operation?.result !== undefined) {
    const parsed = v.safeParse(operation.result, body);
    for (const issue of parsed.issues ?? []) {
      found.push(`${v.getDotPath(issue) ?? ""} ${issue.message}`);
    }
  }
  return found.map((text) => `answer to ${asked.method} ${asked.path}: ${text}`);
}

/** Serves the answers on a free port (or a unix socket) until it is stopped. */
export function apiStandIn(answers: Answers, unix?: string): StandIn {
  const asked: Asked[] = [];
  const problems: string[] = [];
  async function answer(request: Request): Promise<Response> {
    const url = new URL(request.url);
    const copy = request.clone() as unknown as Request;
    const text = await request.text();
    const one: Asked = {
      method: request.method,
      path: url.pathname.replace(/^\/v0/, ""),
      search: url.search,
      body: text === "" ? undefined : JSON.parse(text),
      headers: request.headers,
    };
    asked.push(one);
    problems.push(...(await requestComplaints(one, copy)));
    const given = answers[`${one.method} ${one.path}`] ?? answers["*"];
    if (given === undefined) {
      problems.push(`${one.method} ${one.path}: the test has no answer to it`);
      return new Response("no answer", { status: 500 });
    }
    const made = typeof given === "function" ? await given(one) : given;
    if (made instanceof Response) return made;
    const status = made.status ?? 200;
    const body = "body" in made ? made.body : undefined;
    problems.push(...answerComplaints(one, status, body));
    return body === undefined ? new Response(null, { status }) : Response.json(body, { status });
  }
  const server = Bun.serve(
    unix === undefined
      ? { port: 0, hostname: "127.0.0.1", idleTimeout: 0, fetch: answer }
      : { unix, fetch: answer },
  );
  return {
    url: unix === undefined ? `http://127.0.0.1:${server.port}` : `unix:${unix}`,
    asked,
    problems,
    stop: () => server.stop(true),
  };
}
