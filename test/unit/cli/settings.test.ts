import { describe, expect, test } from "bun:test";
import { againstApi, status } from "./fixtures.ts";

const run = againstApi();
const settings = {
  poolCommitmentPercent: 250,
  volumeCommitmentPercent: 40,
  volumeCommitmentInitialPercent: 40,
  snapshotCommitmentPercent: 40,
  faultedChildWaitMs: 600_000,
  maxRebuilds: null,
  maxVolumeCreates: 10,
  nodeDeadlineMs: 1500,
  restrictHosts: true,
  switchOver: true,
  scrubIntervalMs: 30 * 24 * 3_600_000,
  scrubBytesPerSec: 64 << 20,
  maxScrubs: 4,
  maxScrubsPerNode: 1,
  scrubWindow: null,
};
const answers = {
  "GET /settings": { body: settings },
  "PUT /settings": { body: settings },
  "GET /warnings": { body: status.warnings },
};

describe("settings", () => {
  test("are listed by the names that they are changed by", async () => {
    const ran = await run("get settings", answers);
    const rows = ran.out.split("\n").map((line) => line.split(/ {2,}/));
    expect(rows).toEqual([
      ["NAME", "VALUE"],
      ["pool-commitment-percent", "250"],
      ["volume-commitment-percent", "40"],
      ["volume-commitment-initial-percent", "40"],
      ["snapshot-commitment-percent", "40"],
      ["faulted-child-wait", "10m"],
      ["max-rebuilds", "none"],
      ["max-volume-creates", "10"],
      ["node-deadline", "1500ms"],
      ["restrict-hosts", "true"],
      ["switch-over", "true"],
      ["scrub-interval", "30d"],
      ["scrub-bytes-per-sec", "67108864"],
      ["max-scrubs", "4"],
      ["max-scrubs-per-node", "1"],
      ["scrub-window", "none"],
    ]);
    expect(JSON.parse((await run("get settings -o json", answers)).out)).toEqual(settings);
  });

  const changes: [line: string, body: object][] = [
    ["node-deadline 3s", { nodeDeadlineMs: 3000 }],
    ["node-deadline 1500ms", { nodeDeadlineMs: 1500 }],
    ["nodeDeadlineMs 2", { nodeDeadlineMs: 2000 }],
    ["max-rebuilds 4", { maxRebuilds: 4 }],
    ["max-rebuilds none", { maxRebuilds: null }],
    ["pool-commitment-percent default", { poolCommitmentPercent: null }],
    ["restrict-hosts false", { restrictHosts: false }],
    ["scrub-interval 14d", { scrubIntervalMs: 14 * 24 * 3_600_000 }],
    ["scrub-window 22:00-06:00", { scrubWindow: "22:00-06:00" }],
    ["scrub-window none", { scrubWindow: null }],
  ];
  for (const [line, body] of changes) {
    test(`are changed: ${line}`, async () => {
      const ran = await run(`set setting ${line}`, answers);
      expect([ran.status, ran.err]).toEqual([0, ""]);
      expect(ran.out).toBe(`Setting ${line.split(" ")[0]} set successfully`);
      expect(ran.api.asked.at(-1)).toMatchObject({ method: "PUT", path: "/settings", body });
    });
  }

  const wrong: [line: string, status: number, says: RegExp][] = [
    ["nosuch 1", 4, /there are: faulted-child-wait, max-rebuilds/],
    ["restrict-hosts maybe", 2, /give true or false, or default/],
    ["node-deadline soon", 2, /give a duration/],
    ["max-rebuilds many", 2, /give a whole number/],
  ];
  for (const [line, exit, says] of wrong) {
    test(`stay as they are: ${line}`, async () => {
      const ran = await run(`set setting ${line}`, answers);
      expect(ran.status).toBe(exit);
      expect(ran.err).toMatch(says);
      expect(ran.api.asked.map(({ method }) => method)).toEqual(["GET"]);
    });
  }
});

test("warnings are listed with what to do", async () => {
  const ran = await run("get warnings", answers);
  expect(ran.out.split("\n")[2]).toMatch(
    /^critical +node\/node-3 +it has been offline for 12 minutes +systemctl start trilith$/,
  );
});
