/** The address of a nexus that hosts connect to. */
import { expect, test } from "bun:test";
import { renderNexus } from "../../../src/api/render/nexuses.ts";
import { seenNexus, seenNode, stateOf } from "../../support/control/states.ts";
import { nexusRecord, nodeRecord } from "../../support/store-records.ts";

const NEXUS = "00000000-0000-4000-8000-000000000002";
const HOST = "nqn.2014-08.org.nvmexpress:uuid:1";

function uriFor(allowedHosts: readonly string[], deviceUri: string): string {
  const nexus = nexusRecord(NEXUS, { nodeId: "n1", share: "nvmf", allowedHosts });
  const seen = { ...seenNexus(nexus, []), deviceUri };
  const state = stateOf(
    [
      { table: "nodes", put: nodeRecord("n1") },
      { table: "nexuses", put: nexus },
    ],
    [seenNode("n1", { nexuses: [seen] })],
  );
  return renderNexus(state, nexus).deviceUri;
}

test("names the host when only one is let in", () => {
  expect(uriFor([HOST], "nvmf+tcp://a:8420/nqn?uuid=1")).toBe(
    `nvmf+tcp://a:8420/nqn?uuid=1&hostnqn=${HOST}`,
  );
  expect(uriFor([HOST], "nvmf+tcp://a:8420/nqn")).toBe(`nvmf+tcp://a:8420/nqn?hostnqn=${HOST}`);
  expect(uriFor(["nqn.2014-08.org:a&b"], "nvmf://a/nqn")).toBe(
    "nvmf://a/nqn?hostnqn=nqn.2014-08.org:a%26b",
  );
});

test("is as it is when every host, or several, are let in, or nothing is served", () => {
  expect(uriFor([], "nvmf://a/nqn")).toBe("nvmf://a/nqn");
  expect(uriFor([HOST, "nqn.b"], "nvmf://a/nqn")).toBe("nvmf://a/nqn");
  expect(uriFor([HOST], "")).toBe("");
});
