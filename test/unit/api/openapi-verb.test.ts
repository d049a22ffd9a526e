/** `trilith openapi` prints what a node serves. */
import { expect, test } from "bun:test";
import { openApiDocument } from "../../../src/api/document.ts";
import { runCli } from "../../../src/cli/run.ts";

async function printed(...args: string[]): Promise<string> {
  const lines: string[] = [];
  const context = { print: (text: string) => lines.push(text), printError: () => {} };
  expect(await runCli("trilith", ["openapi", ...args], context)).toBe(0);
  return lines.join("\n");
}

test("the document is printed as JSON, or as YAML", async () => {
  expect(JSON.parse(await printed())).toEqual(openApiDocument());
  expect(Bun.YAML.parse(await printed("-o", "yaml"))).toEqual(openApiDocument());
});
