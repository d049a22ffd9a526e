/** Reads the parts of a request and checks them by an operation's schemas. */
import * as v from "valibot";
import { TrilithError } from "../errors.ts";
import { HttpError } from "./errors.ts";
import { BODY_BYTES_MAX } from "./limits.ts";
import type { AnyOperation, PartSchema } from "./operation.ts";

type Part = Record<string, unknown>;

/** What is wrong with a value, with the path to it. */
function complaint(where: string, issue: v.BaseIssue<unknown>): string {
  const path = v.getDotPath(issue);
  if (issue.type === "strict_object" && issue.expected === "never") {
    return `${where} has an unknown field "${path ?? ""}"`;
  }
  if (issue.expected !== null && issue.received === "undefined") {
    return `${where} lacks the field "${path ?? ""}"`;
  }
  return path === null
    ? `${where}: ${issue.message}`
    : `${where}, field "${path}": ${issue.message}`;
}

function fieldsOf(schema: unknown): string[] {
  const entries = (schema as { entries?: object }).entries;
  return entries === undefined ? [] : Object.keys(entries);
}

interface SchemaParts {
  readonly type: string;
  readonly wrapped?: SchemaParts;
  readonly entries?: Readonly<Record<string, SchemaParts>>;
  readonly value?: SchemaParts;
}

/**
 * Where a list stands in the place of an object; null: nowhere. To valibot a list is an object like
 * others: without required fields it would do.
 */
function misplacedList(schema: SchemaParts | undefined, value: unknown, at: string): string | null {
  if (schema === undefined || typeof value !== "object" || value === null) return null;
  if (schema.wrapped !== undefined) return misplacedList(schema.wrapped, value, at);
  const isObject = schema.entries !== undefined || schema.type === "record";
  if (!isObject) return null;
  if (Array.isArray(value)) return at;
  for (const [name, one] of Object.entries(value)) {
    const inner = schema.entries === undefined ? schema.value : schema.entries[name];
    const found = misplacedList(inner, one, at === "" ? name : `${at}.${name}`);
    if (found !== null) return found;
  }
  return null;
}

/** Checks one part; throws `code` and names field and reason. */
function checked(
  code: "InvalidArgument" | "Deserialize",
  where: string,
  schema: v.GenericSchema<unknown, unknown>,
  value: unknown,
): unknown {
  const list = misplacedList(schema as unknown as SchemaParts, value, "");
  if (list !== null) {
    const field = list === "" ? where : `${where}, field "${list}"`;
    throw new TrilithError(code, `${field}: a list where an object is expected`);
  }
  const parsed = v.safeParse(schema, value);
  if (parsed.success) return parsed.output;
  const known = fieldsOf(schema);
  const remedy = known.length === 0 ? "" : `known fields: ${known.join(", ")}`;
  throw new TrilithError(code, complaint(where, parsed.issues[0]), remedy);
}

const segmentPattern = /\{([a-z_]+)\}/g;

/**
 * A pattern that takes a raw path apart by a template of OpenAPI. A parameter is one segment, except
 * `child_id`, a URI that may stand there with its slashes, and `key` before `=`, which ends at the
 * first `=`.
 */
export function pathPattern(template: string): RegExp {
  let source = "";
  let from = 0;
  for (const match of template.matchAll(segmentPattern)) {
    source += template.slice(from, match.index).replace(/[.*+?^$()|[\]\\]/g, "\\$&");
    const name = match[1]!;
    const chars = name === "child_id" ? ".+" : name === "key" ? "[^/=]+" : "[^/]+";
    source += `(?<${name}>${name === "value" ? "[^/]*" : chars})`;
    from = match.index + match[0].length;
  }
  return new RegExp(`^${source}${template.slice(from)}$`);
}

/** Parameters of the path, percent-decoded. Null: the path is of another form. */
export function pathParams(pattern: RegExp, path: string): Record<string, string> | null {
  const found = pattern.exec(path);
  if (found === null) return null;
  const params: Record<string, string> = {};
  for (const [name, text] of Object.entries(found.groups ?? {})) {
    try {
      params[name] = decodeURIComponent(text);
    } catch {
      throw new TrilithError("InvalidArgument", `the path's "${name}" is not percent-encoded well`);
    }
  }
  return params;
}

function isList(schema: PartSchema, name: string): boolean {
  const entry = schema.entries[name] as { type: string; wrapped?: { type: string } } | undefined;
  return entry?.type === "array" || entry?.wrapped?.type === "array";
}

/** Query parameters: each once, except lists. */
function queryPart(schema: PartSchema | undefined, search: URLSearchParams): Part {
  const query: Part = {};
  for (const name of new Set(search.keys())) {
    const values = search.getAll(name);
    if (schema !== undefined && isList(schema, name)) query[name] = values;
    else if (values.length === 1) query[name] = values[0];
    else throw new TrilithError("InvalidArgument", `query parameter "${name}" is given twice`);
  }
  return query;
}

function tooLarge(): HttpError {
  return new HttpError(
    413,
    `the body has more than ${BODY_BYTES_MAX} bytes`,
    "send less: no request needs that much",
  );
}

/** The text of a body. 413 as soon as it is known to be too long. */
async function bodyText(request: Request): Promise<string> {
  const declared = Number(request.headers.get("content-length") ?? Number.NaN);
  if (declared > BODY_BYTES_MAX) throw tooLarge();
  // No more comes than was announced; without taking it apart it is a good deal cheaper.
  const whole = declared >= 0 ? await request.bytes() : null;
  if (whole !== null && whole.byteLength > BODY_BYTES_MAX) throw tooLarge();
  if (whole === null && request.body === null) return "";
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let bytes = 0;
  let text = "";
  try {
    if (whole !== null) return decoder.decode(whole);
    for await (const chunk of request.body as ReadableStream<Uint8Array>) {
      bytes += chunk.byteLength;
      if (bytes > BODY_BYTES_MAX) throw tooLarge();
      text += decoder.decode(chunk, { stream: true });
    }
    return text + decoder.decode();
  } catch (error) {
    if (error instanceof TypeError) {
      throw new TrilithError("Deserialize", "the body is not UTF-8 text");
    }
    throw error;
  }
}

/** The JSON in a body; undefined when there is none. */
async function bodyPart(request: Request): Promise<unknown> {
  const text = await bodyText(request);
  if (text === "") return undefined;
  const type = request.headers.get("content-type") ?? "";
  if (!/^application\/json\s*(;|$)/i.test(type)) {
    throw new HttpError(415, `the body's content type is "${type}"`, "send application/json");
  }
  try {
    return JSON.parse(text) as unknown;
  } catch {
    throw new TrilithError("Deserialize", "the body is not valid JSON");
  }
}

/** Fields at the top of an object that a lenient schema drops. */
function ignoredFields(schema: unknown, value: unknown): string[] {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return [];
  const known = new Set(fieldsOf(schema));
  return known.size === 0 ? [] : Object.keys(value).filter((name) => !known.has(name));
}

export interface CheckedRequest {
  readonly params: unknown;
  readonly query: unknown;
  readonly body: unknown;
  /** Names that the operation does not know and has not looked at. */
  readonly ignored: readonly string[];
}

/** Reads and checks a request. `path` is the raw path without `/v0`. */
export async function checkedRequest(
  operation: AnyOperation,
  pattern: RegExp,
  path: string,
  request: Request,
): Promise<CheckedRequest> {
  const given = pathParams(pattern, path);
  if (given === null) throw new TrilithError("NotFound", `there is no ${path}`);
  const search = new URL(request.url).searchParams;
  const params =
    operation.params === undefined
      ? {}
      : checked("InvalidArgument", "the path", operation.params, given);
  const parts = { query: {} as unknown, body: undefined as unknown };
  const ignored: string[] = [];
  const querySchema = operation.query ?? (operation.contract ? undefined : v.strictObject({}));
  const rawQuery = operation.params !== undefined && "child_id" in operation.params.entries;
  if (querySchema !== undefined && !rawQuery) {
    const query = queryPart(querySchema, search);
    parts.query = checked("InvalidArgument", "the query", querySchema, query);
    ignored.push(...ignoredFields(querySchema, query));
  } else if (!rawQuery) ignored.push(...search.keys());
  if (operation.body !== undefined) {
    let body = await bodyPart(request);
    if (body === undefined && operation.bodyOptional === true) body = {};
    if (body === undefined) {
      throw new TrilithError("Deserialize", "the request has no body", "send a JSON object");
    }
    parts.body = checked("Deserialize", "the body", operation.body, body);
    ignored.push(...ignoredFields(operation.body, body));
  }
  return { params, ...parts, ignored };
}
