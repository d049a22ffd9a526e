/** Asks an API in this process; holds every answer to our document and to the contract. */
import { expect } from "bun:test";
import type { Api } from "../../../src/api/app.ts";
import { openApiDocument } from "../../../src/api/document.ts";
import { operations } from "../../../src/api/operations/index.ts";
import { pathPattern } from "../../../src/api/request.ts";
import { expectContract } from "./expect-contract.ts";
import { answerProblems, type OpenApi } from "./schema-check.ts";

export const document = openApiDocument() as unknown as OpenApi;

/** A body, which tests look into; its form is judged by its schema. */
export interface Json {
  readonly [name: string]: Json;
}

export interface Answer {
  readonly status: number;
  readonly body: Json;
  readonly headers: Headers;
}

/** The template of the operation that a path belongs to; undefined: none. */
export function templateOf(method: string, path: string): string | undefined {
  return operations
    .filter((one) => one.method === method.toLowerCase() && pathPattern(one.path).test(path))
    .sort((a, b) => a.path.split("{").length - b.path.split("{").length)[0]?.path;
}

/** Throws when an answer is not as the documents say. */
export function expectDocumented(
  method: string,
  template: string,
  status: number,
  body: unknown,
): void {
  const operation = document.paths[template]![method.toLowerCase()]!;
  const problems = answerProblems(document, operation, status, body);
  expect({ answer: `${method} ${template} ${status}`, problems }).toEqual({
    answer: `${method} ${template} ${status}`,
    problems: [],
  });
  expectContract(method, template, status, body);
}

export type Ask = (
  method: string,
  path: string,
  body?: unknown,
  headers?: Record<string, string>,
) => Promise<Answer>;

/** Asks `/v0<path>`. A body that is no string is sent as JSON. */
export function askApi(api: Api): Ask {
  return async (method, path, body, headers = {}) => {
    const text = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
    const response = await api.request(`/v0${path}`, {
      method,
      headers: {
        ...(text === undefined ? {} : { "content-type": "application/json" }),
        ...headers,
      },
      ...(text === undefined ? {} : { body: text }),
    });
    const answered = await response.text();
    const parsed = answered === "" ? undefined : JSON.parse(answered);
    const template = templateOf(method, path.split("?")[0]!);
    if (template !== undefined) expectDocumented(method, template, response.status, parsed);
    return { status: response.status, body: parsed, headers: response.headers };
  };
}
