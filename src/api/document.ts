/** The OpenAPI document, made of the table of operations and the shapes. Deterministic. */
import { toJsonSchema } from "@valibot/to-json-schema";
import type * as v from "valibot";
import { version } from "../../package.json" with { type: "json" };
import { type AnyOperation, isMutation, type PartSchema } from "./operation.ts";
import { operations } from "./operations/index.ts";
import { shownAs } from "./schemas/fields.ts";
import { components } from "./schemas/index.ts";

type Json = Record<string, unknown>;

/** Names of shapes, by shape: where one appears within another, the document refers to it. */
const nameOf = new Map<object, string>(
  Object.entries(components).map(([name, schema]) => [schema, name]),
);

/** Steps of a pipe over text that JSON Schema cannot say; `documented` says what is shown. */
function isUnsaid(step: object): boolean {
  const { type, requirement } = step as { type: string; requirement?: unknown };
  if (type === "regex") return (requirement as RegExp).flags !== "";
  return ["transform", "to_lower_case", "min_value", "max_value"].includes(type);
}

/** The JSON schema of a shape. A shape that has a name is referred to, unless `open`. */
function jsonSchema(schema: v.GenericSchema<unknown, unknown>, open = false): Json {
  const name = nameOf.get(schema);
  if (name !== undefined && !open) return { $ref: `#/components/schemas/${name}` };
  const made = toJsonSchema(schema as v.GenericSchema, {
    target: "openapi-3.0",
    errorMode: "throw",
    overrideSchema({ valibotSchema }) {
      const inner = valibotSchema === schema ? undefined : nameOf.get(valibotSchema);
      if (inner === undefined && valibotSchema.type === "record") {
        // OpenAPI 3.0 says nothing of keys.
        const { value } = valibotSchema as unknown as { value: v.GenericSchema };
        return { type: "object", additionalProperties: jsonSchema(value) };
      }
      return inner === undefined ? undefined : { $ref: `#/components/schemas/${inner}` };
    },
    overrideAction({ valibotAction, jsonSchema: before }) {
      const shown = shownAs(valibotAction);
      if (shown !== undefined) return { ...shown };
      return before.type === "string" && isUnsaid(valibotAction) ? before : undefined;
    },
  });
  const { $defs: _none, ...rest } = made as Json;
  return rest;
}

interface Entry {
  readonly type: string;
  readonly wrapped?: v.GenericSchema;
  readonly default?: unknown;
}

/** Default of a parameter in the type that the document shows. */
function defaultOf(entry: Entry, schema: Json): Json {
  if (entry.default === undefined) return {};
  const text = String(entry.default);
  if (schema.type === "integer") return { default: Number(text) };
  if (schema.type === "boolean") return { default: text === "true" };
  return { default: text };
}

function parameters(where: "path" | "query", part: PartSchema | undefined): Json[] {
  if (part === undefined) return [];
  return Object.entries(part.entries).map(([name, given]) => {
    const entry = given as unknown as Entry;
    const optional = entry.type === "optional";
    const schema = jsonSchema((optional ? entry.wrapped! : given) as v.GenericSchema);
    return {
      in: where,
      name,
      required: where === "path" || !optional,
      schema: { ...schema, ...defaultOf(entry, schema) },
    };
  });
}

const headerParameters = {
  IdempotencyKey: {
    in: "header",
    name: "Idempotency-Key",
    required: false,
    description:
      "Names the request: repeated with the same key within a day it is carried out once, and ids " +
      "that are generated are the same.",
    schema: { type: "string", minLength: 1, maxLength: 255, pattern: "^[\\x21-\\x7e]+$" },
  },
  RequestId: {
    in: "header",
    name: "X-Request-Id",
    required: false,
    description: "Appears in the logs of every part that works on the request, and in the answer.",
    schema: { type: "string", minLength: 1, maxLength: 128 },
  },
} as const;

function requestBody(operation: AnyOperation): Json {
  if (operation.body === undefined) return {};
  return {
    requestBody: {
      content: { "application/json": { schema: jsonSchema(operation.body) } },
      required: operation.bodyOptional !== true,
    },
  };
}

const statusTexts = { 200: "OK", 201: "Created", 202: "Begun", 204: "OK" } as const;

function responses(operation: AnyOperation): Json {
  const content =
    operation.result === undefined
      ? {}
      : {
          content: {
            "application/json": { schema: jsonSchema(operation.result) },
            ...(operation.alsoMedia === undefined
              ? {}
              : { [operation.alsoMedia]: { schema: { type: "string" } } }),
          },
        };
  return {
    [operation.status]: { description: statusTexts[operation.status], ...content },
    "4XX": { $ref: "#/components/responses/ClientError" },
    "5XX": { $ref: "#/components/responses/ServerError" },
  };
}

function operationObject(operation: AnyOperation): Json {
  const headers = [
    ...(isMutation(operation) ? [{ $ref: "#/components/parameters/IdempotencyKey" }] : []),
    { $ref: "#/components/parameters/RequestId" },
  ];
  return {
    tags: [operation.tag],
    operationId: operation.id,
    summary: operation.summary,
    ...(operation.description === undefined ? {} : { description: operation.description }),
    parameters: [
      ...parameters("path", operation.params),
      ...parameters("query", operation.query),
      ...headers,
    ],
    ...requestBody(operation),
    responses: responses(operation),
    security: [{ JWT: [] }],
    "x-trilith-contract": operation.contract,
  };
}

function pathsObject(): Json {
  const paths: Record<string, Json> = {};
  for (const operation of operations) {
    const item = paths[operation.path] ?? {};
    item[operation.method] = operationObject(operation);
    paths[operation.path] = item;
  }
  return paths;
}

function errorResponse(description: string): Json {
  return {
    description,
    content: { "application/json": { schema: { $ref: "#/components/schemas/RestJsonError" } } },
  };
}

const DESCRIPTION = `The interface of a Trilith cluster. Any node answers.

Operations with \`x-trilith-contract: true\` are those of Mayastor's v0 interface; fields that they do
not know are ignored, and named in the answer's header \`Trilith-Ignored-Fields\`. Other operations
refuse such fields in the query with 400.

\`PUT\` creates, or confirms what is there already and is equal. Requests that change something may
carry \`Idempotency-Key\`. Errors carry what happened (\`message\`), a \`kind\` of a closed list, and what to
do about it (\`remedy\`). While there is no leader, reads are answered from what the node knows, with
the header \`Trilith-Stale: true\`, and changes get 503.

A body has at most 1 MiB (413 beyond it).`;

let made: Json | undefined;

/** The document (OpenAPI 3.0.3, as the contract's). */
export function openApiDocument(): Json {
  made ??= {
    openapi: "3.0.3",
    info: { title: "Trilith", version, description: DESCRIPTION },
    servers: [{ url: "/v0" }],
    paths: pathsObject(),
    components: {
      parameters: headerParameters,
      responses: {
        ClientError: errorResponse("The request is at fault, or the cluster's state forbids it"),
        ServerError: errorResponse("The cluster is at fault, or cannot do it now"),
      },
      schemas: Object.fromEntries(
        Object.entries(components).map(([name, schema]) => [name, jsonSchema(schema, true)]),
      ),
      securitySchemes: { JWT: { type: "http", scheme: "bearer" } },
    },
  };
  return made;
}
