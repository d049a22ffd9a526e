/**
 * Random requests, made of our own OpenAPI document: valid ones, and valid ones with one thing wrong.
 * Whatever comes, there is no 5xx that means a defect, every answer is as the documents say, and a
 * refused request changes nothing.
 */
import { expect, test } from "bun:test";
import { createApi } from "../../../src/api/app.ts";
import { document, expectDocumented, templateOf } from "../../support/api/api-client.ts";
import { furnishedCluster, ids } from "../../support/api/furnished-cluster.ts";
import { recordingControl } from "../../support/api/recording-control.ts";
import { type JsonSchema, resolveRef, schemaProblems } from "../../support/api/schema-check.ts";
import type { PlannedCluster } from "../../support/planned-cluster.ts";
import { type Random, withSeed } from "../../support/random.ts";

const REQUESTS = 3_000;
/** Requests to one cluster before it is made anew. */
const PER_CLUSTER = 60;

const words = ["node-1", "node-2", "node-4", "pool-1", "pool-3", "app-1", "a", "x/y", "é", "a b"];
const uuids = Object.values(ids).filter((one) => typeof one === "string");

/** Text that fits a pattern of ours, as far as the words that are known do; else a plain one. */
function text(random: Random, schema: JsonSchema): string {
  if (schema.format === "uuid") return random.pick(uuids);
  if (schema.format === "date-time") return "2026-01-01T00:00:00Z";
  const pattern = schema.pattern as string | undefined;
  const fitting = words.filter((word) => pattern === undefined || new RegExp(pattern).test(word));
  if (fitting.length > 0) return random.pick(fitting);
  if (pattern?.startsWith("^nqn") === true) return "nqn.2019-05.io.openebs:x";
  return "http://127.0.0.1:1/x";
}

function integer(random: Random, schema: JsonSchema): number {
  const least = (schema.minimum as number | undefined) ?? 0;
  const most = (schema.maximum as number | undefined) ?? 2 ** 41;
  const near = [least, least + 1, least + 2, 3, 2 ** 20, 2 ** 30, 2 ** 31, most];
  return Math.min(most, Math.max(least, random.pick(near)));
}

/** A value that fits a schema. */
function valid(random: Random, given: JsonSchema, depth = 0): unknown {
  const schema = resolveRef(document, given);
  if (schema.nullable === true && random.chance(0.2)) return null;
  const forms = (schema.anyOf ?? schema.oneOf) as JsonSchema[] | undefined;
  if (forms !== undefined) return valid(random, random.pick(forms), depth + 1);
  if (schema.enum !== undefined) return random.pick(schema.enum as unknown[]);
  switch (schema.type) {
    case "string":
      return text(random, schema);
    case "integer":
      return integer(random, schema);
    case "number":
      return random.below(1000) / 8;
    case "boolean":
      return random.chance(0.5);
    case "array": {
      const least = (schema.minItems as number | undefined) ?? 0;
      const list = Array.from({ length: random.between(least, least + 2) });
      return list.map(() => valid(random, schema.items as JsonSchema, depth + 1));
    }
    default: {
      const required = new Set(schema.required as string[] | undefined);
      const object: Record<string, unknown> = {};
      for (const [name, one] of Object.entries((schema.properties ?? {}) as object)) {
        if (required.has(name) || random.chance(0.5)) object[name] = valid(random, one, depth + 1);
      }
      if (typeof schema.additionalProperties === "object" && random.chance(0.5)) {
        object.key = valid(random, schema.additionalProperties as JsonSchema, depth + 1);
      }
      return object;
    }
  }
}

const junk: readonly unknown[] = [
  null,
  "",
  "\u0000",
  "x".repeat(5000),
  -1,
  1.5,
  1e308,
  Number.MAX_SAFE_INTEGER,
  true,
  [],
  [[]],
  {},
  { __proto__: null, constructor: 1 },
  "../../etc/passwd",
  "%",
  "𝕊",
];

/** The value with one thing in it replaced, removed or added. */
function spoiled(random: Random, value: unknown): unknown {
  if (typeof value !== "object" || value === null || random.chance(0.15)) return random.pick(junk);
  if (Array.isArray(value)) {
    if (value.length === 0) return [random.pick(junk)];
    const at = random.below(value.length);
    return value.map((one, index) => (index === at ? spoiled(random, one) : one));
  }
  const entries = Object.entries(value);
  if (entries.length === 0 || random.chance(0.1)) return { ...value, later: random.pick(junk) };
  const at = random.below(entries.length);
  if (random.chance(0.2)) return Object.fromEntries(entries.filter((_one, index) => index !== at));
  return Object.fromEntries(
    entries.map(([name, one], index) => [name, index === at ? spoiled(random, one) : one]),
  );
}

interface Asked {
  readonly method: string;
  readonly template: string;
  readonly path: string;
  readonly body: string | undefined;
  readonly headers: Record<string, string>;
  /** Everything fits the document. */
  readonly isValid: boolean;
  /** The body does not. */
  readonly hasWrongBody: boolean;
}

const everything = Object.entries(document.paths).flatMap(([template, item]) =>
  Object.keys(item).map((method) => ({ template, method })),
);

function plainText(value: unknown): string {
  return typeof value === "string" ? value : (JSON.stringify(value) ?? "");
}

function request(random: Random): Asked {
  const { template, method } = random.pick(everything);
  const operation = document.paths[template]![method]!;
  const wrong = random.chance(0.5) ? random.pick(["path", "query", "body", "headers"]) : "";
  let path = template;
  const query = new URLSearchParams();
  for (const given of operation.parameters ?? []) {
    const {
      name,
      in: where,
      schema,
      required,
    } = resolveRef(document, given) as {
      name: string;
      in: string;
      schema: JsonSchema;
      required: boolean;
    };
    if (where === "header") continue;
    const right = valid(random, schema);
    const value = wrong === where && random.chance(0.5) ? random.pick(junk) : right;
    if (where === "path") {
      const encoded = encodeURIComponent(plainText(value).toWellFormed()) || "%20";
      // Dots alone are taken out of a path by whoever sends it.
      path = path.replace(`{${name}}`, () => encoded.replace(/^\.+$/, "dots"));
    } else if (required || random.chance(0.5)) {
      for (const one of Array.isArray(value) ? value : [value]) query.append(name, plainText(one));
    }
  }
  if (wrong === "query") query.append(random.pick(["later", "force", "since"]), "junk");
  const headers: Record<string, string> = {};
  if (random.chance(0.2)) headers["idempotency-key"] = "k".repeat(random.between(1, 10));
  if (wrong === "headers") headers["idempotency-key"] = "k".repeat(300);
  const schema = operation.requestBody?.content["application/json"]?.schema;
  let body: string | undefined;
  let hasWrongBody = false;
  if (schema !== undefined && method !== "get") {
    const right = valid(random, schema);
    const value = wrong === "body" ? spoiled(random, right) : right;
    body = JSON.stringify(value);
    hasWrongBody = schemaProblems(document, schema, JSON.parse(body)).length > 0;
    if (wrong === "body" && random.chance(0.1)) body = body.slice(0, -1);
    headers["content-type"] = wrong === "headers" ? "text/plain" : "application/json";
  }
  const search = query.toString();
  return {
    method,
    template,
    path: search === "" ? path : `${path}?${search}`,
    body,
    headers,
    isValid: wrong === "",
    hasWrongBody,
  };
}

/** All that is stored, as text. */
function snapshotOf({ stored }: PlannedCluster): string {
  const tables = Object.entries(stored).filter(([, table]) => table instanceof Map);
  return JSON.stringify(tables.map(([name, table]) => [name, [...(table as Map<string, object>)]]));
}

test("random requests: no defect, nothing undocumented, and refusals change nothing", async () => {
  const statuses = new Map<number, number>();
  await withSeed(import.meta.path, async (random) => {
    let cluster = furnishedCluster();
    let api = createApi(recordingControl(cluster), { log: () => {} });
    for (let n = 0; n < REQUESTS; n += 1) {
      if (n % PER_CLUSTER === 0) {
        cluster = furnishedCluster();
        api = createApi(recordingControl(cluster), { log: () => {} });
      }
      const asked = request(random);
      const before = snapshotOf(cluster);
      const response = await api.request(`/v0${asked.path}`, {
        method: asked.method.toUpperCase(),
        headers: asked.headers,
        ...(asked.body === undefined ? {} : { body: asked.body }),
      });
      const answered = await response.text();
      const { status } = response;
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
      const what = `${asked.method} ${asked.path} ${asked.body ?? ""} -> ${status} ${answered}`;
      const body = answered === "" ? undefined : JSON.parse(answered);
      // 501: what is not done at all; 503: a node that is away; 507: no room. Others are defects.
      if (status >= 500 && ![501, 503, 507].includes(status)) throw new Error(what);
      const refusedByShape =
        body?.kind === "Deserialize" || /^the (path|query)/.test(body?.message ?? "");
      if (asked.isValid && refusedByShape) throw new Error(`not as documented: ${what}`);
      if (asked.hasWrongBody && status < 400) throw new Error(`taken all the same: ${what}`);
      // The path may have become that of another operation.
      const template = templateOf(asked.method, asked.path.split("?")[0]!);
      if (template !== undefined) expectDocumented(asked.method, template, status, body);
      if (status >= 400 && snapshotOf(cluster) !== before) throw new Error(`changed: ${what}`);
      if (asked.method === "get" && snapshotOf(cluster) !== before) throw new Error(what);
    }
  });
  // The requests are no good when they are all refused, or none is.
  expect(statuses.get(200)).toBeGreaterThan(REQUESTS / 20);
  expect(statuses.get(400)).toBeGreaterThan(REQUESTS / 20);
  expect(statuses.get(404)).toBeGreaterThan(0);
  expect(statuses.get(412)).toBeGreaterThan(0);
}, 60_000);
