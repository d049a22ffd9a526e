import { describe, expect, test } from "bun:test";
import type { VolumeScrub } from "../../../src/client/types.ts";
import { againstApi, status, VOLUME } from "./fixtures.ts";

const run = againstApi();
const MIB = 1 << 20;

function scrub(changes: Partial<VolumeScrub> = {}): VolumeScrub {
  return {
    volume: VOLUME,
    state: "running",
    node: "node-1",
    progressPercent: 25,
    position: 16 * MIB,
    size: 64 * MIB,
    compared: 12 * MIB,
    skipped: 4 * MIB,
    mismatched: 0,
    repaired: 0,
    bytesPerSec: 8 * MIB,
    etaMs: 6_000,
    startedAt: "2026-11-21T10:00:00.000Z",
    findings: [],
    unacknowledged: 0,
    ...changes,
  };
}

const completed = scrub({
  state: "completed",
  progressPercent: 100,
  position: 64 * MIB,
  compared: 60 * MIB,
  completedAt: "2026-11-21T10:01:00.000Z",
});
const repaired = {
  offset: 8192,
  length: 4096,
  kind: "mismatch",
  repaired: true,
  replicas: ["00000000-0000-4000-8000-0000000000aa"],
} as const;
const path = `/volumes/${VOLUME}/scrub`;

/** Answers one after another; the last one stays. */
function inTurn<T>(...bodies: T[]): () => { body: T } {
  let next = 0;
  return () => ({ body: bodies[Math.min(next++, bodies.length - 1)]! });
}

describe("scrub volume", () => {
  test("begins one, and says where to look", async () => {
    const ran = await run(`scrub volume ${VOLUME} --restart --no-repair`, {
      [`POST ${path}`]: { status: 202, body: scrub() },
    });
    expect([ran.status, ran.err]).toEqual([0, ""]);
    expect(ran.out).toBe(`Volume ${VOLUME} is being scrubbed; see how far: trilith get scrubs`);
    expect(ran.api.asked[0]).toMatchObject({ body: { restart: true, repair: false } });
  });

  test("waits until it has ended, and says what came of it", async () => {
    const ended = { ...completed, findings: [repaired], mismatched: 4096, repaired: 4096 };
    const ran = await run(
      `scrub volume ${VOLUME} --wait`,
      {
        [`POST ${path}`]: { status: 202, body: scrub() },
        [`GET ${path}`]: inTurn(scrub(), ended),
      },
      { sleep: async () => {} },
    );
    expect([ran.status, ran.err]).toEqual([0, ""]);
    expect(ran.out).toBe(
      `Scrub of volume ${VOLUME} completed: 60MiB compared, 4MiB never written, 4KiB repaired`,
    );
  });

  test("exits with 7 when something differs and could not be repaired", async () => {
    const bad = { ...repaired, repaired: false, reason: "no majority of the copies agrees" };
    const ran = await run(
      `scrub volume ${VOLUME} --wait`,
      {
        [`POST ${path}`]: { status: 202, body: scrub() },
        [`GET ${path}`]: { body: { ...completed, findings: [bad] } },
      },
      { sleep: async () => {} },
    );
    expect(ran.status).toBe(7);
    expect(ran.err).toContain("4KiB differ and were not repaired");
    expect(ran.err).toContain(`see trilith get scrub ${VOLUME}`);
  });

  test("stops one, and acknowledges what was repaired", async () => {
    const stopped = await run(`scrub volume ${VOLUME} --stop`, {
      [`DELETE ${path}`]: { body: scrub({ state: "stopped" }) },
    });
    expect(stopped.out).toBe(`Scrub of volume ${VOLUME} stopped at 25 %`);
    const known = await run(`scrub volume ${VOLUME} --acknowledge`, {
      [`POST ${path}/acknowledge`]: { body: completed },
    });
    expect(known.out).toBe(`Repairs of volume ${VOLUME} acknowledged`);
  });
});

describe("get scrubs", () => {
  const rows = (text: string) => text.split("\n").map((line) => line.trim().split(/ {2,}/));

  test("lists them", async () => {
    const waiting = scrub({ state: "waiting", waitsFor: "rebuild" });
    const ran = await run("get scrubs", { "GET /scrubs": { body: [waiting, completed] } });
    expect(rows(ran.out).map((row) => row.slice(1, 4))).toEqual([
      ["STATE", "PROGRESS", "NODE"],
      ["waiting (rebuild)", "25 %", "node-1"],
      ["completed", "100 %", "node-1"],
    ]);
  });

  test("shows what one has found", async () => {
    const body = { ...completed, findings: [repaired] };
    const ran = await run(`get scrub ${VOLUME}`, { [`GET ${path}`]: { body } });
    const [id] = repaired.replicas;
    expect(rows(ran.out)[4]).toEqual(["8192", "4096", "mismatch", "true", id, "<none>"]);
    expect(ran.out).toContain("4KiB repaired");
    const json = await run(`get scrub ${VOLUME} -o json`, { [`GET ${path}`]: { body } });
    expect(JSON.parse(json.out)).toEqual(body);
  });
});

test("the status screen shows those that run, and no section when none does", async () => {
  const scrubs = [scrub(), scrub({ state: "waiting", waitsFor: "rebuild" })];
  const ran = await run("status", { "GET /status": { body: { ...status, scrubs } } });
  const lines = ran.out.split("\n").map((line) => line.trim());
  const at = lines.indexOf("Scrubs");
  expect(lines.slice(at + 2, at + 4).map((line) => line.split(/ {2,}/))).toEqual([
    [VOLUME, "node-1", "[#####---------------] 25%", "25 % running, 8MiB/s, 6s left"],
    [VOLUME, "node-1", "[#####---------------] 25%", "25 % waits for rebuild"],
  ]);
  expect((await run("status", { "GET /status": { body: status } })).out).not.toContain("Scrubs");
});
