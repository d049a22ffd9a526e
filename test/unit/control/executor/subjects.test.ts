/** Which subjects are planned again after a change. */
import { expect, test } from "bun:test";
import { affectedBy } from "../../../../src/control/executor/subjects.ts";
import type { Change } from "../../../../src/control/planner/plan.ts";
import { stateOf } from "../../../support/control/states.ts";
import { nexusRecord, nodeRecord, replicaRecord } from "../../../support/store-records.ts";

const NEXUS = "00000000-0000-4000-8000-000000000002";
const REPLICA = "00000000-0000-4000-8000-000000000003";

test("a node that is drained is looked at when a nexus or a replica on it is gone", () => {
  const node: Change = { table: "nodes", put: nodeRecord("n1") };
  const before = stateOf(
    [
      node,
      { table: "nexuses", put: nexusRecord(NEXUS, { nodeId: "n1" }) },
      { table: "replicas", put: replicaRecord(REPLICA, null, "p1", { nodeId: "n1" }) },
    ],
    [],
  ).stored;
  const after = stateOf([node], []).stored;
  const touchedBy = (name: string) => affectedBy(new Set([name]), before, after).subjects;
  expect(touchedBy(`nexuses/${NEXUS}`)).toContain("node/n1");
  expect(touchedBy(`replicas/${REPLICA}`)).toContain("node/n1");
});
