/** Warnings of members that do not answer. */
import { expect, test } from "bun:test";
import { memberWarnings } from "../../../../src/control/membership/attention.ts";

function of(voters: number, away: readonly number[]) {
  const ids = Array.from({ length: voters }, (_, i) => String(i + 1));
  const members = ids.map((raftId) => ({
    raftId,
    nodeId: `n${raftId}`,
    isVoter: true,
    isLeader: raftId === "1",
    matchIndex: 1,
  }));
  const links = ids.slice(1).map((raftId) => ({
    raftId,
    isConnected: !away.includes(Number(raftId)),
  }));
  return memberWarnings({ raftId: "1", members }, links);
}

test("members that all answer are not spoken of", () => {
  expect(of(1, [])).toEqual([]);
  expect(of(3, [])).toEqual([]);
  expect(of(5, [])).toEqual([]);
});

test("one that is away is named, critical when the store can spare no other", () => {
  expect(of(3, [2])).toMatchObject([{ severity: "critical", subject: "node/n2" }]);
  expect(of(5, [2])).toMatchObject([{ severity: "warning", subject: "node/n2" }]);
  expect(of(5, [2])[0]?.message).toContain("goes on without 1 more");
  expect(of(5, [2, 3]).map(({ severity }) => severity)).toEqual(["critical", "critical"]);
});

test("two voters can spare none", () => {
  expect(of(2, [])).toMatchObject([{ severity: "info", subject: "store" }]);
  expect(of(2, [2])).toMatchObject([{ severity: "critical", subject: "node/n2" }]);
});
