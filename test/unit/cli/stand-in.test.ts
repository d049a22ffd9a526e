/** The tests of the verbs stand on a stand-in of the API: that it notices what is wrong is tested here. */
import { afterEach, describe, expect, test } from "bun:test";
import { type Answers, apiStandIn, type StandIn } from "../../support/api-stand-in.ts";
import { contractProblems } from "../../support/contract.ts";
import { nodes, runLine, VOLUME, volume } from "./fixtures.ts";

let api: StandIn | undefined;
afterEach(async () => {
  await api?.stop();
});

/** What the stand-in says about a request. */
async function problems(answers: Answers, method: string, path: string, body?: unknown) {
  api = apiStandIn(answers);
  await fetch(`${api.url}/v0${path}`, {
    method,
    ...(body === undefined
      ? {}
      : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
  });
  return api.problems.join("\n");
}

describe("the stand-in complains about a request", () => {
  const wrong: [what: string, method: string, path: string, body: unknown, says: RegExp][] = [
    ["of no operation", "GET", "/nothing", undefined, /the API has no such operation/],
    [
      "without what the contract asks for",
      "GET",
      "/volumes",
      undefined,
      /the query lacks max_entries/,
    ],
    ["with an unknown parameter", "GET", "/nodes?colour=red", undefined, /the API ignores colour/],
    [
      "with a field that is missing",
      "PUT",
      `/volumes/${VOLUME}`,
      { size: 1 },
      /body: .replicas is missing/,
    ],
    [
      "with a field of another type",
      "PUT",
      `/volumes/${VOLUME}/size`,
      { size: "1" },
      /"1" is no integer/,
    ],
    ["with an id that is none", "GET", "/volumes/x", undefined, /the path/],
  ];
  for (const [what, method, path, body, says] of wrong) {
    test(what, async () => {
      const answer = path.startsWith("/volumes/") ? volume : [];
      expect(await problems({ "*": { body: answer } }, method, path, body)).toMatch(says);
    });
  }

  test("that the test did not expect", async () => {
    expect(await problems({}, "GET", "/nodes")).toMatch(/the test has no answer to it/);
  });
});

describe("the stand-in complains about an answer", () => {
  const { spec: _spec, ...specless } = volume;
  const wrong: [what: string, path: string, body: unknown, says: RegExp][] = [
    ["that lacks a field", `/volumes/${VOLUME}`, specless, /spec is missing/],
    [
      "of an unknown enum value",
      "/nodes",
      [{ ...nodes[0], state: { ...nodes[0]!.state!, status: "Well" } }],
      /"Well" is none of/,
    ],
    ["that is of another form", "/nodes", { entries: [] }, /is no array/],
    ["of ours that is wrong", "/warnings", [{ severity: "odd" }], /answer to GET \/warnings/],
  ];
  for (const [what, path, body, says] of wrong) {
    test(what, async () => {
      expect(await problems({ "*": { body } }, "GET", path)).toMatch(says);
    });
  }

  test("but not about one that is right", async () => {
    expect(await problems({ "*": { body: nodes } }, "GET", "/nodes")).toBe("");
  });
});

describe("the contract", () => {
  test("knows errors as well", () => {
    const error = { kind: "NotFound", message: "m", details: "d" };
    expect(contractProblems("GET", "/nodes/x", 404, error)).toEqual([]);
    expect(contractProblems("GET", "/nodes/x", 404, { ...error, kind: "Lost" })).toHaveLength(1);
    expect(contractProblems("GET", "/nodes/x", 302, error)).toEqual(["status 302 is not known"]);
    expect(contractProblems("GET", "/nothing", 200, {})).toBeNull();
  });
});

test("a line of kubectl's plugin is taken with the options that mean something there only", async () => {
  api = apiStandIn({ "GET /nodes": { body: nodes } });
  const args = [
    "-n",
    "mayastor",
    "-k",
    "/k",
    "-j",
    "agent",
    "-r",
    api.url,
    "-o",
    "json",
    "get",
    "nodes",
  ];
  const ran = await runLine(args);
  expect(ran.err).toBe("");
  expect(JSON.parse(ran.out)).toEqual(nodes);
});
