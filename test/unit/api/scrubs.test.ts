/** Scrubs through the API: every answer is held to our document by `askApi`. */
import { beforeEach, expect, test } from "bun:test";
import { createApi } from "../../../src/api/app.ts";
import { keepScrub, keptScrub } from "../../../src/control/planner/scrub-record.ts";
import { type Ask, askApi } from "../../support/api/api-client.ts";
import { furnishedCluster, ids } from "../../support/api/furnished-cluster.ts";
import { type RecordingControl, recordingControl } from "../../support/api/recording-control.ts";
import { GiB, type PlannedCluster } from "../../support/planned-cluster.ts";

let cluster: PlannedCluster;
let control: RecordingControl;
let ask: Ask;
const path = `/volumes/${ids.published}/scrub`;

beforeEach(() => {
  cluster = furnishedCluster();
  control = recordingControl(cluster);
  ask = askApi(createApi(control, { log: () => {} }));
});

test("a volume that was never scrubbed says so, and when it is due", async () => {
  cluster.settings = { ...cluster.settings, scrubIntervalMs: 1000 };
  const { status, body } = await ask("GET", path);
  expect(status).toBe(200);
  expect(body as unknown).toEqual({
    volume: ids.published,
    state: "never",
    size: GiB,
    compared: 0,
    skipped: 0,
    mismatched: 0,
    repaired: 0,
    progressPercent: 0,
    position: 0,
    findings: [],
    unacknowledged: 0,
    nextAt: new Date(cluster.stored.volumes.get(ids.published)!.createdAtMs + 1000).toISOString(),
  });
  expect((await ask("GET", "/scrubs")).body).toEqual([] as never);
  expect((await ask("GET", `/volumes/${ids.absent}/scrub`)).status).toBe(404);
});

test("it is begun, shown with the volume, and stopped", async () => {
  const begun = await ask("POST", path);
  expect(begun.status).toBe(202);
  expect(begun.body as unknown).toMatchObject({ state: "waiting", waitsFor: "its nexus" });
  expect(control.calls).toMatchObject([
    { name: "startScrub", given: [ids.published, { isAnew: false, isRepairing: true }] },
  ]);
  expect((await ask("POST", path, { restart: true, repair: false })).status).toBe(202);
  expect(control.calls[1]!.given[1]).toEqual({ isAnew: true, isRepairing: false });
  expect((await ask("POST", path, { fast: true })).status).toBe(400);
  const list = (await ask("GET", "/scrubs")).body as unknown as { volume: string }[];
  expect(list.map(({ volume }) => volume)).toEqual([ids.published]);
  const shown = (await ask("GET", `/volumes/${ids.published}`)).body as never as {
    state: { scrub: object };
  };
  expect(shown.state.scrub).toMatchObject({ state: "waiting", progressPercent: 0 });
  const all = (await ask("GET", "/volumes?max_entries=0")).body as never as {
    entries: { spec: { uuid: string }; state: { scrub?: object } }[];
  };
  const withScrub = all.entries.filter(({ state }) => state.scrub !== undefined);
  expect(withScrub.map(({ spec }) => spec.uuid)).toEqual([ids.published]);
  const screen = (await ask("GET", "/status")).body as never as { scrubs: { volume: string }[] };
  expect(screen.scrubs.map(({ volume }) => volume)).toEqual([ids.published]);
  const stopped = await ask("DELETE", path);
  expect(stopped.body as unknown).toMatchObject({ state: "stopped" });
});

test("what it found is shown by replica, and repairs are acknowledged", async () => {
  await ask("POST", path);
  const kept = keptScrub(cluster.stored, ids.published)!;
  const common = { lengthBytes: 4096, kind: "mismatch", replicas: [ids.absent] } as const;
  const pass = {
    ...kept.pass,
    counts: { ...kept.pass.counts, comparedBytes: GiB, mismatchedBytes: 8192, repairedBytes: 4096 },
    findings: [
      { ...common, offsetBytes: 0, isRepaired: true, reason: "" },
      { ...common, offsetBytes: 4096, isRepaired: false, reason: "no majority" },
    ],
  };
  const completed = { ...pass, endedAtMs: cluster.nowMs };
  const done = { ...kept, state: "Completed" as const, pass, completed };
  cluster.put(keepScrub(cluster.stored, ids.published, done));
  expect((await ask("GET", path)).body as unknown).toMatchObject({
    state: "completed",
    progressPercent: 100,
    compared: GiB,
    completedAt: new Date(cluster.nowMs).toISOString(),
    findings: [
      { offset: 0, length: 4096, kind: "mismatch", repaired: true, replicas: [ids.absent] },
      { offset: 4096, repaired: false, reason: "no majority" },
    ],
    unacknowledged: 4096,
  });
  const known = await ask("POST", `${path}/acknowledge`);
  expect(known.body as unknown).toMatchObject({ unacknowledged: 0 });
  expect((await ask("POST", `/volumes/${ids.plain}/scrub/acknowledge`)).status).toBe(404);
});

test("what cannot be compared is refused with what to do", async () => {
  const { status, body } = await ask("POST", `/volumes/${ids.thin}/scrub`);
  expect(status).toBe(412);
  expect(body as unknown).toMatchObject({
    kind: "NotPublished",
    remedy: `publish it: trilith publish volume ${ids.thin}`,
  });
});
