/**
 * Checks values against the schemas of an OpenAPI 3.0 document: the part of JSON Schema that the
 * contract and our own document use. A keyword that it does not know is an error, so that nothing is
 * checked less than it seems.
 */

export interface JsonSchema {
  readonly [keyword: string]: unknown;
}

interface Media {
  readonly schema: JsonSchema;
}
export interface OpenApiOperation {
  readonly operationId: string;
  readonly parameters?: readonly Record<string, unknown>[];
  readonly requestBody?: { readonly content: Record<string, Media>; readonly required?: boolean };
  readonly responses: Readonly<
    Record<string, { readonly $ref?: string; readonly content?: Record<string, Media> }>
  >;
}
export interface OpenApi {
  readonly paths: Readonly<Record<string, Readonly<Record<string, OpenApiOperation>>>>;
  readonly components: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
}

/** Keywords that say nothing about a value. */
const silent = new Set([
  "description",
  "example",
  "default",
  "title",
  "discriminator",
  "$ref",
  "nullable",
]);

/** What a `$ref` leads to. */
export function resolveRef<T>(document: OpenApi, given: T): T {
  const ref = (given as { $ref?: string }).$ref;
  if (ref === undefined) return given;
  const [, , section = "", name = ""] = ref.split("/");
  const found = document.components[section]?.[name];
  if (found === undefined) throw new Error(`${ref} leads nowhere`);
  return resolveRef(document, found as T);
}

const formats: Readonly<Record<string, (text: string) => boolean>> = {
  uuid: (text) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text),
  "date-time": (text) =>
    /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/.test(text) &&
    !Number.isNaN(Date.parse(text)),
  uri: (text) => URL.canParse(text),
  url: () => true,
};
const numberFormats: Readonly<Record<string, readonly [min: number, max: number]>> = {
  int32: [-(2 ** 31), 2 ** 31 - 1],
  int64: [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
  uint64: [0, Number.MAX_SAFE_INTEGER],
  uint8: [0, 255],
};

function isOfType(type: unknown, value: unknown): boolean {
  switch (type) {
    case "object":
      return typeof value === "object" && value !== null && !Array.isArray(value);
    case "array":
      return Array.isArray(value);
    case "integer":
      return Number.isInteger(value);
    default:
      return typeof value === type;
  }
}

type Check = (argument: never, value: never, at: string, schema: JsonSchema) => string[];

/** Problems of `value`, each with its place; none: it fits. */
export function schemaProblems(
  document: OpenApi,
  given: JsonSchema,
  value: unknown,
  at = "$",
): string[] {
  const inner = (schema: JsonSchema, one: unknown, place: string) =>
    schemaProblems(document, schema, one, place);
  const fits = (schema: JsonSchema) => inner(schema, value, at).length === 0;
  const unless = (ok: boolean, text: string) => (ok ? [] : [`${at}: ${text}`]);
  const shown = JSON.stringify(value)?.slice(0, 80);
  const checks: Readonly<Record<string, Check>> = {
    type: (type: string) => unless(isOfType(type, value), `${shown} is no ${type}`),
    enum: (allowed: unknown[]) => unless(allowed.includes(value), `${shown} is none of ${allowed}`),
    format(format: string) {
      if (typeof value === "string") {
        return unless(formats[format]?.(value) ?? false, `${shown} is no ${format}`);
      }
      if (typeof value !== "number") return [];
      const [min, max] = numberFormats[format] ?? [1, 0];
      return unless(value >= min && value <= max, `${shown} is no ${format}`);
    },
    pattern: (pattern: string, text: string) =>
      unless(typeof text !== "string" || new RegExp(pattern).test(text), `${shown} !~ ${pattern}`),
    minLength: (n: number, text: string) => unless((text?.length ?? n) >= n, "too short"),
    maxLength: (n: number, text: string) => unless((text?.length ?? n) <= n, "too long"),
    minimum: (n: number, x: number) => unless(typeof x !== "number" || x >= n, `below ${n}`),
    maximum: (n: number, x: number) => unless(typeof x !== "number" || x <= n, `above ${n}`),
    minItems: (n: number, list: unknown[]) => unless((list?.length ?? n) >= n, "too few"),
    maxItems: (n: number, list: unknown[]) => unless((list?.length ?? n) <= n, "too many"),
    minProperties: (n: number, object: object) =>
      unless(Object.keys(object ?? {}).length >= n, "too few fields"),
    items: (schema: JsonSchema, list: unknown) =>
      Array.isArray(list) ? list.flatMap((one, n) => inner(schema, one, `${at}[${n}]`)) : [],
    allOf: (all: JsonSchema[]) => all.flatMap((schema) => inner(schema, value, at)),
    anyOf: (any: JsonSchema[]) => unless(any.some(fits), "fits none of its forms"),
    oneOf: (one: JsonSchema[]) =>
      unless(one.filter(fits).length === 1, `fits ${one.filter(fits).length} of its forms`),
    required(names: string[], object: Record<string, unknown>, _at, schema) {
      if (!isOfType("object", object)) return [];
      // The contract requires names that it does not describe; they never exist (mayastor.md 1.2).
      const described = schema.properties as object | undefined;
      return names
        .filter((name) => described === undefined || name in described)
        .flatMap((name) => unless(object[name] !== undefined, `.${name} is missing`));
    },
    properties(properties: Record<string, JsonSchema>, object: Record<string, unknown>) {
      if (!isOfType("object", object)) return [];
      return Object.entries(properties).flatMap(([name, schema]) =>
        object[name] === undefined ? [] : inner(schema, object[name], `${at}.${name}`),
      );
    },
    additionalProperties(rest: JsonSchema | boolean, object: Record<string, unknown>, _at, schema) {
      if (!isOfType("object", object) || rest === true) return [];
      const known = (schema.properties ?? {}) as object;
      const others = Object.entries(object).filter(([name]) => !(name in known));
      if (rest === false) return others.map(([name]) => `${at}.${name} is not known`);
      return others.flatMap(([name, one]) => inner(rest as JsonSchema, one, `${at}.${name}`));
    },
  };
  const schema = resolveRef(document, given);
  if (schema.nullable === true && value === null) return [];
  return Object.entries(schema).flatMap(([keyword, argument]) => {
    if (silent.has(keyword)) return [];
    const check = checks[keyword];
    if (check === undefined) throw new Error(`${at}: keyword ${keyword} is not checked`);
    return check(argument as never, value as never, at, schema);
  });
}

/** What an answer has that the document does not allow. */
export function answerProblems(
  document: OpenApi,
  operation: OpenApiOperation,
  status: number,
  body: unknown,
): string[] {
  const range = `${Math.floor(status / 100)}XX`;
  const given = operation.responses[String(status)] ?? operation.responses[range];
  if (given === undefined) return [`status ${status} is not known`];
  const schema = resolveRef(document, given).content?.["application/json"]?.schema;
  if (schema === undefined) return body === undefined ? [] : ["there is a body, and none is known"];
  return schemaProblems(document, schema, body);
}
