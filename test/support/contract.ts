/** What Mayastor's contract says about requests and answers, found by their paths. */
import { contract } from "./api/expect-contract.ts";
import { answerProblems, type OpenApiOperation, schemaProblems } from "./api/schema-check.ts";

/** The contract's operation for a request (`path` without `/v0`), fixed segments before parameters. */
export function contractOperation(method: string, path: string): OpenApiOperation | null {
  const found = Object.entries(contract.paths)
    .flatMap(([template, methods]) => {
      const operation = methods[method.toLowerCase()];
      return operation === undefined ? [] : [{ template, operation }];
    })
    .filter(({ template }) => {
      const source = template.replace(/[.*+?^$()|[\]\\]/g, "\\$&").replace(/\{[a-z_]+\}/g, "[^/]+");
      return new RegExp(`^${source}$`).test(path);
    })
    .sort((a, b) => a.template.split("{").length - b.template.split("{").length);
  return found[0]?.operation ?? null;
}

/** What an answer has that the contract does not allow; null: the contract has no such operation. */
export function contractProblems(
  method: string,
  path: string,
  status: number,
  body: unknown,
): string[] | null {
  const operation = contractOperation(method, path);
  return operation === null ? null : answerProblems(contract, operation, status, body);
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
    .filter((one) => one.in === "query" && one.required === true)
    .filter(({ name }) => !search.has(String(name)))
    .map(({ name }) => `the query lacks ${name}`);
  const schema = operation.requestBody?.content["application/json"]?.schema;
  if (schema === undefined) return missing;
  return [...missing, ...schemaProblems(contract, schema, body, "body")];
}
