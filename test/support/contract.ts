/**
 * Checks answers against Mayastor's contract (`test/data/mayastor-v0-openapi.yaml`, Apache-2.0): the
 * part of JSON Schema that it uses.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

interface Schema {
  readonly $ref?: string;
  readonly allOf?: readonly Schema[];
  readonly oneOf?: readonly Schema[];
  readonly type?: string;
  readonly format?: string;
  readonly enum?: readonly unknown[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: boolean | Schema;
  readonly items?: Schema;
  readonly minimum?: number;
  readonly maximum?: number;
}
interface Response {
  readonly $ref?: string;
  readonly content?: Readonly<Record<string, { readonly schema: Schema }>>;
}
interface ContractOperation {
  readonly responses: Readonly<Record<string, Response>>;
  readonly requestBody?: {
    readonly content: Readonly<Record<string, { readonly schema: Schema }>>;
  };
  readonly parameters?: readonly {
    readonly name: string;
    readonly in: string;
    readonly required?: boolean;
  }[];
}
interface Contract {
  readonly paths: Readonly<Record<string, Readonly<Record<string, ContractOperation>>>>;
  readonly components: {
    readonly schemas: Readonly<Record<string, Schema>>;
    readonly responses: Readonly<Record<string, Response>>;
  };
}

const file = join(import.meta.dir, "../data/mayastor-v0-openapi.yaml");
export const contract = Bun.YAML.parse(readFileSync(file, "utf8")) as Contract;

function resolve(schema: Schema): Schema {
  const name = /^#\/components\/schemas\/(.+)$/.exec(schema.$ref ?? "")?.[1];
  if (name === undefined) return schema;
  const found = contract.components.schemas[name];
  if (found === undefined) throw new Error(`the contract has no schema ${name}`);
  return resolve(found);
}

const formats: Readonly<Record<string, RegExp>> = {
  uuid: /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i,
  "date-time": /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/,
};

function isOfType(type: string, value: unknown): boolean {
  switch (type) {
    case "object":
      return typeof value === "object" && value !== null && !Array.isArray(value);
    case "array":
      return Array.isArray(value);
    case "integer":
      return Number.isSafeInteger(value);
    default:
      return typeof value === type;
  }
}

/** What is wrong with `value`, each with its place; empty: nothing. */
export function schemaProblems(given: Schema, value: unknown, place = "$"): string[] {
  const schema = resolve(given);
  const problems: string[] = [];
  for (const part of schema.allOf ?? []) problems.push(...schemaProblems(part, value, place));
  if (schema.oneOf !== undefined) {
    const fitting = schema.oneOf.filter((part) => schemaProblems(part, value, place).length === 0);
    if (fitting.length !== 1) problems.push(`${place}: fits ${fitting.length} of its forms`);
  }
  if (schema.type !== undefined && !isOfType(schema.type, value)) {
    return [...problems, `${place}: ${JSON.stringify(value)} is no ${schema.type}`];
  }
  if (schema.enum !== undefined && !schema.enum.includes(value)) {
    problems.push(`${place}: ${JSON.stringify(value)} is none of ${schema.enum.join(", ")}`);
  }
  if (typeof value === "string" && schema.format !== undefined) {
    if (formats[schema.format]?.test(value) === false) {
      problems.push(`${place}: "${value}" is no ${schema.format}`);
    }
  }
  if (typeof value === "number") {
    if (value < (schema.minimum ?? Number.NEGATIVE_INFINITY)) problems.push(`${place}: too small`);
    if (value > (schema.maximum ?? Number.POSITIVE_INFINITY)) problems.push(`${place}: too large`);
  }
  if (Array.isArray(value) && schema.items !== undefined) {
    const { items } = schema;
    value.forEach((one, index) => {
      problems.push(...schemaProblems(items, one, `${place}[${index}]`));
    });
  } else if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    problems.push(...objectProblems(schema, value as Record<string, unknown>, place));
  }
  return problems;
}

function objectProblems(schema: Schema, value: Record<string, unknown>, place: string): string[] {
  const properties = schema.properties ?? {};
  // The contract requires some names that it does not describe; they never exist (mayastor.md 1.2).
  const required = (schema.required ?? []).filter(
    (name) => schema.properties === undefined || name in properties,
  );
  const problems = required
    .filter((name) => value[name] === undefined)
    .map((name) => `${place}.${name} is missing`);
  for (const [name, one] of Object.entries(value)) {
    const known = properties[name];
    if (known !== undefined) problems.push(...schemaProblems(known, one, `${place}.${name}`));
    else if (typeof schema.additionalProperties === "object") {
      problems.push(...schemaProblems(schema.additionalProperties, one, `${place}.${name}`));
    } else if (schema.additionalProperties === false) {
      problems.push(`${place}.${name} is not known`);
    }
  }
  return problems;
}

/** The contract's operation for a request (`path` without `/v0`), fixed segments before parameters. */
export function contractOperation(method: string, path: string): ContractOperation | null {
  const candidates = Object.keys(contract.paths)
    .filter((template) => contract.paths[template]![method.toLowerCase()] !== undefined)
    .filter((template) => {
      const source = template.replace(/[.*+?^$()|[\]\\]/g, "\\$&").replace(/\{[a-z_]+\}/g, "[^/]+");
      return new RegExp(`^${source}$`).test(path);
    })
    .sort((a, b) => a.split("{").length - b.split("{").length);
  const [best] = candidates;
  return best === undefined ? null : contract.paths[best]![method.toLowerCase()]!;
}

/** What an answer has that the contract does not allow; null: the contract has no such operation. */
export function contractProblems(
  method: string,
  path: string,
  status: number,
  body: unknown,
): string[] | null {
  const operation = contractOperation(method, path);
  if (operation === null) return null;
  const responses = operation.responses;
  const response = responses[String(status)] ?? responses[`${Math.floor(status / 100)}XX`];
  if (response === undefined) return [`status ${status} is not of the contract`];
  const shared = /^#\/components\/responses\/(.+)$/.exec(response.$ref ?? "")?.[1];
  const { content } = shared === undefined ? response : contract.components.responses[shared]!;
  const schema = content?.["application/json"]?.schema;
  if (schema === undefined) return body === undefined ? [] : ["a body, where there is to be none"];
  return schemaProblems(schema, body);
}

/** What a request has that the contract does not allow. */
export function requestProblems(
  method: string,
  path: string,
  search: URLSearchParams,
  body: unknown,
): string[] {
  const operation = contractOperation(method, path);
  if (operation === null) return [];
  const missing = (operation.parameters ?? [])
    .filter((one) => one.in === "query" && one.required === true && !search.has(one.name))
    .map(({ name }) => `the query lacks ${name}`);
  const schema = operation.requestBody?.content["application/json"]?.schema;
  return schema === undefined ? missing : [...missing, ...schemaProblems(schema, body, "body")];
}
