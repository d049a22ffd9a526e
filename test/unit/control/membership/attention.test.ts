/** Warnings of members that do not answer, and of certificates that end. */
import { expect, test } from "bun:test";
import {
  certificateWarnings,
  memberWarnings,
} from "../../../../src/control/membership/attention.ts";

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

test("certificates that were not renewed are warned of, the more the less is left", () => {
  const dayMs = 86_400_000;
  const nowMs = Date.UTC(2030, 0, 1);
  const ends = (days: number) =>
    certificateWarnings([{ owner: "n2", endsMs: nowMs + days * dayMs }], nowMs);
  expect(ends(30)).toEqual([]);
  expect(ends(10)).toMatchObject([{ severity: "warning", subject: "node/n2" }]);
  expect(ends(10)[0]?.message).toContain("ends in 10 days (2030-01-11)");
  expect(ends(3)).toMatchObject([{ severity: "critical" }]);
  expect(ends(-2)[0]?.message).toContain("ended 2 days ago");
  const authority = certificateWarnings([{ owner: "authority", endsMs: nowMs }], nowMs);
  expect(authority).toMatchObject([{ severity: "critical", subject: "store" }]);
});
