/** Holds answers to Mayastor's contract (`test/data/mayastor-v0-openapi.yaml`, Apache-2.0, OpenEBS). */
import { expect } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { answerProblems, type OpenApi } from "./schema-check.ts";

export const contract = Bun.YAML.parse(
  readFileSync(join(import.meta.dir, "../../data/mayastor-v0-openapi.yaml"), "utf8"),
) as OpenApi;

/**
 * Fails when an answer is not of the contract. `pathTemplate` as the contract has it, without `/v0`;
 * `body` undefined when there is none. Paths that the contract does not know are not judged.
 */
export function expectContract(
  method: string,
  pathTemplate: string,
  status: number,
  body: unknown,
): void {
  const operation = contract.paths[pathTemplate]?.[method.toLowerCase()];
  if (operation === undefined) return;
  expect({
    answer: `${method} ${pathTemplate} ${status}`,
    problems: answerProblems(contract, operation, status, body),
  }).toEqual({ answer: `${method} ${pathTemplate} ${status}`, problems: [] });
}
