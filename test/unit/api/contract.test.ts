/** Our OpenAPI document beside Mayastor's: nothing of the contract is missing or different. */
import { describe, expect, test } from "bun:test";
import { operations } from "../../../src/api/operations/index.ts";
import { document } from "../../support/api/api-client.ts";
import { contract } from "../../support/api/expect-contract.ts";
import { type JsonSchema, type OpenApi, resolveRef } from "../../support/api/schema-check.ts";

interface Flat {
  readonly path: string;
  readonly method: string;
}
function flat(spec: OpenApi): Flat[] {
  return Object.entries(spec.paths).flatMap(([path, item]) =>
    Object.keys(item).map((method) => ({ path, method })),
  );
}

function parametersOf(spec: OpenApi, { path, method }: Flat) {
  const given = spec.paths[path]![method]!.parameters ?? [];
  return given
    .map((one) => resolveRef(spec, one))
    .filter((one) => one.in !== "header")
    .map((one) => ({ name: one.name as string, where: one.in, schema: one.schema as JsonSchema }));
}

function typeOf(spec: OpenApi, schema: JsonSchema): unknown {
  return resolveRef(spec, schema).type;
}

/** Fields and which of them are required; the contract's required names that it does not describe left out. */
function fieldsOf(spec: OpenApi, name: string) {
  const schema = resolveRef(spec, spec.components.schemas![name] as JsonSchema);
  const properties = (schema.properties ?? {}) as Record<string, JsonSchema>;
  const forms = (schema.oneOf ?? []) as JsonSchema[];
  // The only form there is: what it requires is required.
  const always = forms.length === 1 ? forms[0]!.required : [];
  const required = [...((schema.required ?? []) as string[]), ...(always as string[])].filter(
    (one) => one in properties,
  );
  return { properties, required, enum: schema.enum as string[] | undefined };
}

describe("every operation of the contract", () => {
  test("is there, with the same id", () => {
    const ours = new Map(operations.map((one) => [`${one.method} ${one.path}`, one]));
    const missing = flat(contract).filter(({ path, method }) => {
      const there = ours.get(`${method} ${path}`);
      return there?.id !== contract.paths[path]![method]!.operationId;
    });
    expect(missing).toEqual([]);
  });

  test("takes the same parameters", () => {
    for (const one of flat(contract)) {
      const ours = parametersOf(document, one);
      for (const { name, where, schema } of parametersOf(contract, one)) {
        const found = ours.find((other) => other.name === name && other.where === where);
        expect(`${one.method} ${one.path} ${name} ${typeOf(document, found?.schema ?? {})}`).toBe(
          `${one.method} ${one.path} ${name} ${typeOf(contract, schema)}`,
        );
      }
    }
  });

  test("demands no query parameter that the contract does not demand", () => {
    for (const { path, method } of flat(contract)) {
      const demanded = (spec: OpenApi) =>
        (spec.paths[path]![method]!.parameters ?? [])
          .map((one) => resolveRef(spec, one))
          .filter((one) => one.in === "query" && one.required === true)
          .map((one) => one.name as string);
      const allowed = new Set(demanded(contract));
      expect(demanded(document).filter((name) => !allowed.has(name))).toEqual([]);
    }
  });

  test("answers with the same statuses and shapes", () => {
    const shape = (spec: OpenApi, schema: JsonSchema | undefined): unknown => {
      if (schema === undefined) return "nothing";
      if (schema.$ref !== undefined) return String(schema.$ref).split("/").pop();
      if (schema.type === "array") return [shape(spec, schema.items as JsonSchema)];
      return schema.type;
    };
    for (const { path, method } of flat(contract)) {
      const theirs = contract.paths[path]![method]!;
      const ours = document.paths[path]![method]!;
      for (const [status, response] of Object.entries(theirs.responses)) {
        const there = ours.responses[status];
        expect({ path, method, status, there: there !== undefined }).toEqual({
          path,
          method,
          status,
          there: true,
        });
        if (!status.startsWith("2")) continue;
        const media = (one: typeof response | undefined) =>
          one?.content?.["application/json"]?.schema;
        const wanted = shape(contract, media(response));
        const made = shape(document, media(there));
        // A free object has no name with us.
        expect({ path, method, made }).toEqual({
          path,
          method,
          made: wanted === "JsonGeneric" ? made : wanted,
        });
      }
    }
  });

  test("takes the same bodies", () => {
    for (const { path, method } of flat(contract)) {
      const theirs = contract.paths[path]![method]!.requestBody;
      if (theirs === undefined) continue;
      const name = (body: typeof theirs) =>
        String(body.content["application/json"]!.schema.$ref).split("/").pop();
      const ours = document.paths[path]![method]!.requestBody!;
      if (name(theirs) === "JsonGeneric") continue;
      expect(`${path} ${name(ours)}`).toBe(`${path} ${name(theirs)}`);
    }
  });
});

describe("every shape of the contract", () => {
  const bodies = Object.keys(contract.components.schemas!).filter((name) =>
    /Body$|^RegisterAppNode$/.test(name),
  );
  const shared = Object.keys(contract.components.schemas!).filter(
    (name) => name in document.components.schemas!,
  );

  test("is there under its name, unless it is a plain value or a part of another", () => {
    const missing = Object.keys(contract.components.schemas!).filter(
      (name) => !shared.includes(name),
    );
    expect(missing.sort()).toEqual(
      [
        "AppNodeId",
        "AppNodeState",
        "CordonLabels",
        "DrainLabels",
        "HostNqn",
        "NodeId",
        "PoolId",
        "PoolUuid",
        "ReplicaId",
        "ReplicaSnapshotStatus",
        "SnapshotAsSource",
        "SnapshotId",
        "VolumeId",
        "WatchCallback",
      ].sort(),
    );
  });

  test("has the same values where it is a list of values", () => {
    for (const name of shared) {
      const theirs = fieldsOf(contract, name).enum;
      if (theirs === undefined) continue;
      expect([name, ...(fieldsOf(document, name).enum ?? [])].sort()).toEqual(
        [name, ...theirs].sort(),
      );
    }
  });

  test("has all fields, and always those that clients count on", () => {
    /** Parts of the contract that never come from us: what they would say is not known or not so. */
    const left = new Set(["AppNode.state", "NexusSpec.operation", "ReplicaSpec.operation"]);
    for (const name of shared) {
      const theirs = fieldsOf(contract, name);
      const ours = fieldsOf(document, name);
      // Shapes that are one of several forms carry their fields in the forms.
      if (Object.keys(ours.properties).length === 0) continue;
      const missing = Object.keys(theirs.properties)
        .filter((field) => !(field in ours.properties))
        .map((field) => `${name}.${field}`)
        .filter((field) => !left.has(field));
      expect(missing).toEqual([]);
      if (bodies.includes(name)) {
        const more = ours.required.filter((field) => !theirs.required.includes(field));
        expect(more.map((field) => `${name}.${field}`)).toEqual([]);
      } else {
        const less = theirs.required.filter((field) => !ours.required.includes(field));
        expect(less.map((field) => `${name}.${field}`)).toEqual([]);
      }
    }
  });
});

describe("our document", () => {
  test("leads nowhere by no reference", () => {
    const refs = JSON.stringify(document).match(/#\/components\/\w+\/\w+/g) ?? [];
    for (const $ref of new Set(refs)) expect(resolveRef(document, { $ref })).toBeDefined();
  });

  test("names every operation once", () => {
    const names = operations.map(({ id }) => id);
    expect(new Set(names).size).toBe(names.length);
    const places = operations.map(({ method, path }) => `${method} ${path}`);
    expect(new Set(places).size).toBe(places.length);
  });

  test("describes every parameter of a path, and no other", () => {
    for (const { path, method } of flat(document)) {
      const inPath = [...path.matchAll(/\{([a-z_]+)\}/g)].map(([, name]) => name!);
      const described = parametersOf(document, { path, method })
        .filter(({ where }) => where === "path")
        .map(({ name }) => name);
      expect([path, ...described].sort()).toEqual([path, ...inPath].sort());
    }
  });

  test("carries an idempotency key with every change", () => {
    for (const { path, method } of flat(document)) {
      const keyed = JSON.stringify(document.paths[path]![method]!.parameters).includes(
        "IdempotencyKey",
      );
      expect(`${method} ${path} ${keyed}`).toBe(`${method} ${path} ${method !== "get"}`);
    }
  });
});
