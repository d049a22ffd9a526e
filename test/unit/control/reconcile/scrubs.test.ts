import { beforeEach, describe, expect, test } from "bun:test";
import type { ClusterState, EngineNexus } from "../../../../src/control/cluster-state.ts";
import { publishVolume } from "../../../../src/control/planner/decide/publish.ts";
import {
  acknowledgeScrub,
  startScrub,
  stopScrub,
} from "../../../../src/control/planner/decide/scrubs.ts";
import { createVolume } from "../../../../src/control/planner/decide/volumes.ts";
import type { Step, Work } from "../../../../src/control/planner/plan.ts";
import { plan, planFor } from "../../../../src/control/planner/reconcile/index.ts";
import { isWithin } from "../../../../src/control/planner/reconcile/scrubs.ts";
import { keptScrub, type VolumeScrub } from "../../../../src/control/planner/scrub-record.ts";
import type { TrilithError } from "../../../../src/errors.ts";
import { furnishedCluster, ids } from "../../../support/api/furnished-cluster.ts";
import { GiB, PlannedCluster } from "../../../support/planned-cluster.ts";

type EngineScrub = NonNullable<EngineNexus["scrub"]>;

const DAY_MS = 24 * 60 * 60_000;
const volume = ids.published;
const subject = `scrub/${volume}`;
let cluster: PlannedCluster;
/** What the engine says of the scrub of the volume's nexus; null: that there was none. */
let seen: EngineScrub | null;
let rebuilds: number;

beforeEach(() => {
  cluster = furnishedCluster();
  // The pools are the ones that the engines report.
  for (const id of cluster.stored.pools.keys()) {
    cluster.edit("pools", id, { uuid: `uuid-of-${id}` });
  }
  seen = null;
  rebuilds = 0;
});

/** The cluster, with `seen` in the nexus of the volume. */
function state(): ClusterState {
  const given = cluster.state();
  const observed = new Map(given.observed);
  for (const [id, node] of given.observed) {
    const nexuses = new Map(node.nexuses);
    for (const [uuid, nexus] of node.nexuses) {
      if (nexus.volumeUuid !== volume) continue;
      // All its children are well.
      const children = nexus.children.map((child) => ({
        ...child,
        state: "online" as const,
        reason: "none" as const,
        rebuild: null,
      }));
      nexuses.set(uuid, { ...nexus, state: "online", children, rebuilds, scrub: seen });
    }
    observed.set(id, { ...node, nexuses });
  }
  return { ...given, observed };
}

const next = (): Work | null => planFor(state(), subject).work;
const kept = (): VolumeScrub => keptScrub(cluster.stored, volume)!;

function onlyStep(): Step {
  const work = next();
  expect(work?.steps).toHaveLength(1);
  return work!.steps[0]!;
}

/** The call of the engine that is to be made now. */
function call() {
  const step = onlyStep();
  if (step.kind !== "engine") throw new Error(`a step of the store: ${step.reason}`);
  return step.call;
}

/** Carries a step of the store out. */
function stored(): string {
  const step = onlyStep();
  if (step.kind !== "store") throw new Error(`a call of an engine: ${step.reason}`);
  cluster.put(...step.changes);
  return step.reason;
}

function start(options: { isAnew?: boolean; isRepairing?: boolean } = {}): void {
  const request = { isAnew: false, isRepairing: true, ...options };
  cluster.run((_state, uuids) => startScrub(state(), volume, request, uuids));
}

/** The engine has begun what it was called for. */
function begin(): EngineScrub {
  const { method, input } = call();
  if (method !== "startScrub") throw new Error(`${method} is called`);
  seen = {
    id: input.id,
    state: "running",
    waitsFor: null,
    offsetBytes: input.offsetBytes ?? 0,
    sizeBytes: GiB,
    progressPercent: 0,
    childUris: [],
    bytesPerSecLimit: input.bytesPerSecLimit ?? 0,
    bytesPerSec: 0,
    etaMs: null,
    startTimeMs: cluster.nowMs,
    endTimeMs: null,
    ...input.counts!,
    findings: [],
    error: null,
  };
  return seen;
}

const finding = (offsetBytes: number, isRepaired: boolean): EngineScrub["findings"][number] => ({
  offsetBytes,
  lengthBytes: 4096,
  kind: "mismatch",
  isRepaired,
  childUris: [`bdev:///${ids.absent}`],
  reason: isRepaired ? "" : "no majority of the copies agrees",
});

const warnings = () => plan(state()).warnings.filter((one) => one.subject === `volume/${volume}`);

describe("a scrub on request", () => {
  test("is begun on the volume's nexus, followed now and then, and remembered when it ends", () => {
    start();
    const running = begin();
    expect(next()).toBeNull();
    seen = { ...running, offsetBytes: 4 << 20, comparedBytes: 4 << 20 };
    expect(next()).toBeNull();
    cluster.nowMs += 30_000;
    expect(stored()).toBe("how far its scrub is");
    expect(kept()).toMatchObject({ state: "Running", offsetBytes: 4 << 20 });
    expect(next()).toBeNull();
    seen = { ...seen, state: "completed", offsetBytes: GiB, comparedBytes: GiB };
    expect(stored()).toBe("its scrub has come to its end");
    expect(kept()).toMatchObject({
      state: "Completed",
      completed: { endedAtMs: cluster.nowMs, counts: { comparedBytes: GiB } },
    });
    expect(next()).toBeNull();
    expect(warnings()).toEqual([]);
  });

  test("is taken up from where it was when the engine knows nothing of it any more", () => {
    start();
    seen = { ...begin(), offsetBytes: 8 << 20, comparedBytes: 7 << 20, skippedBytes: 1 << 20 };
    cluster.nowMs += 30_000;
    stored();
    seen = null;
    expect(call()).toMatchObject({
      method: "startScrub",
      input: {
        id: kept().pass.id,
        offsetBytes: 8 << 20,
        counts: { comparedBytes: 7 << 20, skippedBytes: 1 << 20 },
      },
    });
  });

  test("what it finds is kept at once, and again when it ends early", () => {
    start();
    seen = { ...begin(), offsetBytes: 1 << 20, mismatchedBytes: 4096, repairedBytes: 4096 };
    seen.findings = [finding(8192, true)];
    stored();
    expect(kept().pass.findings).toEqual([
      {
        offsetBytes: 8192,
        lengthBytes: 4096,
        kind: "mismatch",
        isRepaired: true,
        replicas: [ids.absent],
        reason: "",
      },
    ]);
    seen = { ...seen, state: "stopped", offsetBytes: 2 << 20, error: "fewer than two" };
    expect(stored()).toBe("how far its scrub is");
    // Then it is begun again, if there is something to compare.
    expect(call().method).toBe("startScrub");
  });

  test("is stopped, and goes on there; anew it begins at the beginning", () => {
    start();
    seen = { ...begin(), offsetBytes: 5 << 20, comparedBytes: 5 << 20 };
    cluster.run(() => stopScrub(state(), volume));
    expect(call()).toMatchObject({ method: "stopScrub" });
    seen = { ...seen, state: "stopped", offsetBytes: 6 << 20, comparedBytes: 6 << 20 };
    stored();
    expect(next()).toBeNull();
    expect(kept()).toMatchObject({ state: "Stopped", offsetBytes: 6 << 20 });
    const { id } = kept().pass;
    start();
    expect(kept().pass.id).not.toBe(id);
    expect(call()).toMatchObject({ input: { offsetBytes: 6 << 20 } });
    begin();
    start({ isAnew: true });
    // What runs is another one now: it ends first.
    expect(call()).toMatchObject({ method: "stopScrub" });
    seen!.state = "stopped";
    expect(call()).toMatchObject({ input: { offsetBytes: 0, counts: { comparedBytes: 0 } } });
  });

  test("one that ended while it was being stopped has ended", () => {
    start();
    seen = { ...begin(), state: "completed", offsetBytes: GiB };
    cluster.run(() => stopScrub(state(), volume));
    stored();
    expect(kept().state).toBe("Completed");
  });

  test("a change of the rate reaches one that runs", () => {
    start();
    begin();
    cluster.settings = { ...cluster.settings, scrubBytesPerSec: 1 << 20 };
    expect(call()).toMatchObject({
      method: "configureScrub",
      input: { bytesPerSecLimit: 1 << 20 },
    });
  });

  test("is refused for a volume that is not served or has one replica", () => {
    const codeOf = (uuid: string): string => {
      try {
        startScrub(state(), uuid, { isAnew: false, isRepairing: true }, cluster.uuids());
        return "none";
      } catch (error) {
        return (error as TrilithError).code;
      }
    };
    expect(codeOf(ids.absent)).toBe("NotFound");
    expect(codeOf(ids.thin)).toBe("NotPublished");
    cluster.edit("volumes", volume, { replicaCount: 1 });
    expect(codeOf(volume)).toBe("FailedPrecondition");
  });

  test("an engine of before there were scrubs is not asked", () => {
    start();
    expect(planFor(cluster.state(), subject).work).toBeNull();
  });

  test("what is kept of it goes with its volume", () => {
    start();
    const { revision } = cluster.stored.volumes.get(volume)!;
    cluster.put({ table: "volumes", remove: volume, revision });
    expect(stored()).toBe("its volume is gone");
    expect(keptScrub(cluster.stored, volume)).toBeUndefined();
  });
});

describe("the schedule", () => {
  const interval = (scrubIntervalMs: number) => {
    cluster.settings = { ...cluster.settings, scrubIntervalMs };
  };

  test("begins one when the last is long ago, not before, and never when it is off", () => {
    interval(30 * DAY_MS);
    cluster.edit("volumes", volume, { createdAtMs: cluster.nowMs - 30 * DAY_MS + 1 });
    expect(next()).toBeNull();
    cluster.nowMs += 1;
    expect(stored()).toBe("its last scrub is long ago");
    seen = { ...begin(), state: "completed" };
    stored();
    expect(next()).toBeNull();
    cluster.nowMs += 30 * DAY_MS;
    interval(0);
    expect(next()).toBeNull();
    interval(30 * DAY_MS);
    expect(stored()).toBe("its last scrub is long ago");
  });

  test("waits for a volume that is not well, and leaves those alone that are not served", () => {
    interval(DAY_MS);
    cluster.edit("volumes", volume, { createdAtMs: 0 });
    expect(next()).not.toBeNull();
    rebuilds = 1;
    expect(next()).toBeNull();
    rebuilds = 0;
    cluster.setNode("node-1", "Offline");
    expect(next()).toBeNull();
    cluster.setNode("node-1", "Online");
    cluster.edit("volumes", ids.thin, { createdAtMs: 0 });
    expect(planFor(state(), `scrub/${ids.thin}`).work).toBeNull();
  });

  test("keeps to the time of the day, on request it runs at any", () => {
    const at = (hours: number, minutes = 0) => Date.UTC(2026, 10, 21, hours, minutes);
    expect(
      [at(21, 59), at(22), at(3), at(5, 59), at(6)].map((ms) => isWithin("22:00-06:00", ms)),
    ).toEqual([false, true, true, true, false]);
    expect(isWithin("09:30-10:00", at(9, 45))).toBe(true);
    expect(isWithin("09:30-10:00", at(10))).toBe(false);
    interval(DAY_MS);
    cluster.settings = { ...cluster.settings, scrubWindow: "22:00-06:00" };
    cluster.edit("volumes", volume, { createdAtMs: 0 });
    cluster.nowMs = at(12);
    expect(next()).toBeNull();
    cluster.nowMs = at(23);
    stored();
    begin();
    cluster.nowMs = at(23) + 7 * 60 * 60_000;
    expect(call().method).toBe("pauseScrub");
    seen!.state = "paused";
    expect(next()).toBeNull();
    cluster.nowMs += 16 * 60 * 60_000;
    expect(call().method).toBe("resumeScrub");
  });
});

describe("several that are due", () => {
  /** Volumes by the node that serves them, made so many days ago; all are well. */
  function withVolumes(wanted: readonly (readonly [node: string, days: number])[]): string[] {
    cluster = PlannedCluster.ofNodes(3);
    for (const id of cluster.stored.pools.keys()) {
      cluster.edit("pools", id, { uuid: `uuid-of-${id}` });
    }
    cluster.settings = { ...cluster.settings, scrubIntervalMs: DAY_MS };
    return wanted.map(([nodeId, days], i) => {
      const uuid = `00000000-0000-4000-9000-0000000001${String(i).padStart(2, "0")}`;
      const request = { uuid, sizeBytes: GiB, replicaCount: 3, thin: true, selfHeal: true };
      const rest = { topology: null, labels: {}, affinityGroup: null, maxSnapshots: null };
      cluster.run((given, uuids) => createVolume(given, { ...request, ...rest }, uuids));
      cluster.carryOut();
      const how = { reuseExisting: false, republish: false, frontendNode: null };
      cluster.run((given, uuids) =>
        publishVolume(given, { uuid, nodeId, publishContext: {}, ...how }, uuids),
      );
      cluster.carryOut();
      cluster.edit("volumes", uuid, { createdAtMs: cluster.nowMs - days * DAY_MS });
      return uuid;
    });
  }

  /** The cluster, with engines that know scrubs and run none. */
  function known(): ClusterState {
    const given = cluster.state();
    const observed = new Map(
      [...given.observed].map(([id, node]) => {
        const nexuses = [...node.nexuses].map(
          ([uuid, nexus]) => [uuid, { ...nexus, scrub: null }] as const,
        );
        return [id, { ...node, nexuses: new Map(nexuses) }] as const;
      }),
    );
    return { ...given, observed };
  }

  /** Volumes whose scrub would be begun now, by what is to be done next. */
  const begun = (): string[] =>
    plan(known())
      .works.filter(({ steps }) => steps[0]?.reason === "its last scrub is long ago")
      .map((work) => work.subject.slice("scrub/".length));

  test("one at a time on a node, so many in the cluster, the oldest first", () => {
    const [young, old, other, third] = withVolumes([
      ["node-1", 2],
      ["node-1", 9],
      ["node-2", 5],
      ["node-3", 3],
    ]);
    expect(begun().sort()).toEqual([old!, other!, third!].sort());
    cluster.settings = { ...cluster.settings, maxScrubs: 2 };
    expect(begun().sort()).toEqual([old!, other!].sort());
    cluster.settings = { ...cluster.settings, maxScrubs: 4, maxScrubsPerNode: 2 };
    expect(begun()).toHaveLength(4);
    // Those that run count, also those on request.
    cluster.settings = { ...cluster.settings, maxScrubs: 2, maxScrubsPerNode: 1 };
    const request = { isAnew: false, isRepairing: true };
    const served = cluster.stored.volumes.get(young!)!.target?.nexusUuid;
    cluster.run((_state, uuids) => startScrub(known(), young!, request, uuids));
    expect(begun()).toEqual([other!]);
    // One whose volume is not served any more takes nobody's place.
    cluster.edit("volumes", young!, { target: null });
    expect(begun().sort()).toEqual([old!, other!].sort());
    cluster.edit("volumes", young!, {
      target: { ...cluster.stored.volumes.get(old!)!.target!, nexusUuid: served! },
    });
    // Planned by itself a volume comes to the same.
    expect(planFor(known(), `scrub/${old}`).work).toBeNull();
    expect(planFor(known(), `scrub/${other}`).work).not.toBeNull();
  });
});

describe("warnings", () => {
  /** A whole pass with these findings. */
  function pass(findings: readonly EngineScrub["findings"][number][]): void {
    start();
    const sum = (isRepaired: boolean) =>
      findings.filter((one) => one.isRepaired || !isRepaired).length * 4096;
    seen = { ...begin(), state: "completed", offsetBytes: GiB, findings: [...findings] };
    seen = { ...seen, mismatchedBytes: sum(false), repairedBytes: sum(true) };
    stored();
  }

  test("of what was repaired stay until they are acknowledged or a pass finds nothing", () => {
    pass([finding(0, true)]);
    expect(warnings()).toMatchObject([{ severity: "warning" }]);
    expect(warnings()[0]!.message).toContain(`repaired 4096 bytes of replicas ${ids.absent}`);
    cluster.run(() => acknowledgeScrub(state(), volume));
    expect(warnings()).toEqual([]);
    pass([finding(0, true)]);
    expect(warnings()).toHaveLength(1);
    pass([]);
    expect(warnings()).toEqual([]);
  });

  test("of what could not be repaired are critical, cannot be acknowledged, and go range by range", () => {
    pass([finding(4096, false), finding(1 << 20, false)]);
    expect(warnings()).toMatchObject([{ severity: "critical" }]);
    expect(warnings()[0]!.message).toContain("4096 bytes at 4096");
    expect(warnings()[0]!.remedy).toContain("--victim <replica>");
    cluster.run(() => acknowledgeScrub(state(), volume));
    expect(warnings()).toHaveLength(1);
    // The next pass has come past the first range, and it is well there.
    start();
    seen = { ...begin(), offsetBytes: 8192 };
    cluster.nowMs += 30_000;
    stored();
    expect(warnings()[0]!.message).not.toContain("at 4096 ");
    expect(warnings()[0]!.message).toContain("4096 bytes at 1048576");
    seen = { ...seen, state: "completed", offsetBytes: GiB };
    stored();
    expect(warnings()).toEqual([]);
  });
});
