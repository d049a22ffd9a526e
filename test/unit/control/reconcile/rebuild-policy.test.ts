/** Which rebuilds begin and which wait; replicas that return after they were given up; waits of volumes. */
import { describe, expect, test } from "bun:test";
import type { ClusterSettings, EngineReplica } from "../../../../src/control/cluster-state.ts";
import type { NexusRecord, ReplicaRecord } from "../../../../src/control/model.ts";
import { setFaultedChildWait } from "../../../../src/control/planner/decide/index.ts";
import { faultedChildWaitMs } from "../../../../src/control/planner/patience.ts";
import type { Change, Step } from "../../../../src/control/planner/plan.ts";
import { plan, planFor } from "../../../../src/control/planner/reconcile/index.ts";
import { queuedRebuilds } from "../../../../src/control/planner/reconcile/rebuild-queue.ts";
import {
  NOW_MS,
  seenChild,
  seenNexus,
  seenNode,
  seenPool,
  seenReplica,
  servedUri,
  stateOf,
} from "../../../support/control/states.ts";
import { PlannedCluster, refusal } from "../../../support/planned-cluster.ts";
import {
  nexusRecord,
  nodeRecord,
  poolRecord,
  replicaRecord,
  volumeRecord,
} from "../../../support/store-records.ts";

const MIB = 1 << 20;
const SIZE = 64 * MIB;
const NODES = ["n1", "n2", "n3", "n4"];
const id = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, "0")}`;
const nqn = (node: string) => `nqn.2019-05.io.openebs:node-name:${node}`;

interface ReplicaOf {
  readonly node: string;
  readonly record?: Partial<ReplicaRecord>;
  /** As its engine reports it; null: it is not there. */
  readonly seen?: Partial<EngineReplica> | null;
  /** Of the child; null: it is none. */
  readonly child?: Parameters<typeof seenChild>[1] | null;
}

interface VolumeOf {
  readonly number: number;
  readonly replicas: readonly ReplicaOf[];
  readonly count?: number;
  /** Rebuilds that its nexus counts. */
  readonly rebuilds?: number;
  readonly wantedChildren?: number;
}

/** Volumes published on n1; replicas have UUIDs of the volume's number times 10, and up. */
function clusterOf(volumes: readonly VolumeOf[], settings: Partial<ClusterSettings> = {}) {
  const records: Change[] = [];
  const seen = new Map(NODES.map((node) => [node, [] as EngineReplica[]]));
  const nexuses = volumes.map(({ number, replicas, count, rebuilds = 0, wantedChildren }) => {
    const uuid = id(number);
    const nexusUuid = id(number * 10 + 9);
    const target = {
      nexusUuid,
      nodeId: "n1",
      protocol: "nvmf",
      frontendNodes: [],
      publishContext: {},
    } as const;
    const owned = replicas.filter(({ record }) => record?.status !== "Deleting").length;
    const volume = volumeRecord(uuid, {
      sizeBytes: SIZE,
      replicaCount: count ?? owned,
      thin: true,
      target,
      epoch: 4,
      incarnation: 2,
    });
    const made = replicas.map((one, i) => {
      const record = replicaRecord(id(number * 10 + i), uuid, `p-${one.node}`, {
        nodeId: one.node,
        sizeBytes: SIZE,
        thin: true,
        allowedHosts: one.node === "n1" ? null : [nqn("n1")],
        ...one.record,
      });
      if (one.seen !== null) seen.get(one.node)!.push(seenReplica(record, one.seen));
      return record;
    });
    const children = made.flatMap((record, i) => {
      const child = replicas[i]!.child;
      if (child === null) return [];
      const uri = record.nodeId === "n1" ? `bdev:///${record.uuid}` : servedUri(record);
      return [{ replicaUuid: record.uuid, seen: seenChild(uri, child) }];
    });
    const nexus: NexusRecord = nexusRecord(nexusUuid, {
      volumeUuid: uuid,
      nodeId: "n1",
      sizeBytes: SIZE,
      epoch: 4,
      share: "nvmf",
      children: children.map(({ replicaUuid, seen: { uri } }) => ({ uri, replicaUuid })),
    });
    records.push(
      { table: "volumes", put: volume },
      { table: "nexuses", put: nexus },
      ...made.map((put): Change => ({ table: "replicas", put })),
    );
    const isWhole = children.every((child) => child.seen.state === "online");
    const state = isWhole ? ("online" as const) : ("degraded" as const);
    const changes = {
      rebuilds,
      state,
      ...(wantedChildren === undefined ? {} : { wantedChildren }),
    };
    return seenNexus(
      nexus,
      children.map((child) => child.seen),
      changes,
    );
  });
  const pools = NODES.map((node) => poolRecord(`p-${node}`, node));
  return stateOf(
    [
      ...NODES.map((n): Change => ({ table: "nodes", put: nodeRecord(n, { hostNqn: nqn(n) }) })),
      ...pools.map((put): Change => ({ table: "pools", put })),
      ...records,
    ],
    NODES.map((node, i) =>
      seenNode(node, {
        pools: [seenPool(pools[i]!)],
        replicas: seen.get(node)!,
        nexuses: node === "n1" ? nexuses : [],
      }),
    ),
    settings,
  );
}

const calls = (steps: readonly Step[] | undefined) =>
  (steps ?? []).map((step) => (step.kind === "engine" ? step.call.method : "store"));
const back = { state: "faulted", reason: "io-failure" } as const;
const lost = (agoMs: number) => ({ healthy: false, faultedAtMs: NOW_MS - agoMs });
const rebuild = (blocksRemaining: number) =>
  ({ blocksRemaining, blockSize: 512, progressPercent: 10 }) as never;

describe("rebuilds beyond the limits", () => {
  /** A volume with a replica on each of these nodes, the last of which is back. */
  const volume = (number: number, nodes: readonly string[], agoMs: number): VolumeOf => ({
    number,
    replicas: nodes.map((node, i) =>
      i === nodes.length - 1 ? { node, record: lost(agoMs), child: back } : { node },
    ),
  });

  test("wait: the volume with the fewest good copies comes first, then who has waited longest", () => {
    const volumes = [
      volume(1, ["n1", "n2", "n3"], 9_000),
      volume(2, ["n1", "n3"], 1_000),
      volume(3, ["n1", "n2"], 2_000),
    ];
    const orderOf = (settings: Partial<ClusterSettings>) =>
      [...queuedRebuilds(clusterOf(volumes, settings)).values()].map((one) => one.volume.uuid);
    expect(orderOf({ maxRebuilds: null, maxRebuildsPerNode: null })).toEqual([]);
    expect(orderOf({ maxRebuilds: 1 })).toEqual([id(2), id(1)]);
    expect(orderOf({ maxRebuilds: 2 })).toEqual([id(1)]);
    expect(orderOf({ maxRebuilds: 3, maxRebuildsPerNode: null })).toEqual([]);
    const state = clusterOf(volumes, { maxRebuilds: 1 });
    expect(calls(planFor(state, `volume/${id(3)}`).work?.steps)).toEqual(["onlineNexusChild"]);
    for (const other of [1, 2]) expect(planFor(state, `volume/${id(other)}`).work).toBeNull();
    // The same is begun when everything is planned at once, and the others are told of.
    const whole = plan(state);
    expect(whole.works.map(({ subject }) => subject)).toEqual([`volume/${id(3)}`]);
    const warning = whole.warnings.find(({ subject }) => subject === `volume/${id(1)}`);
    expect(warning).toMatchObject({ severity: "info" });
    expect(warning?.message).toContain("waits for its turn to be rebuilt: 1 of at most 1 rebuilds");
  });

  test("are counted for each node that they keep busy", () => {
    const running: VolumeOf = {
      number: 1,
      rebuilds: 1,
      replicas: [
        { node: "n1" },
        {
          node: "n2",
          record: lost(9_000),
          child: { state: "degraded", reason: "out-of-sync", rebuild: rebuild(9) },
        },
      ],
    };
    const state = clusterOf([running, volume(2, ["n1", "n2"], 1), volume(3, ["n1", "n3"], 1)], {
      maxRebuildsPerNode: 1,
    });
    const queued = [...queuedRebuilds(state).values()];
    // n1 serves all of them: it is as busy as it may be.
    expect(queued.map((one) => one.replica.nodeId)).toEqual(["n2", "n3"]);
    expect(queued[0]?.reason).toContain("max-rebuilds-per-node");
    const roomy = clusterOf([running, volume(2, ["n1", "n2"], 1)], { maxRebuildsPerNode: 2 });
    expect(queuedRebuilds(roomy).size).toBe(0);
  });
});

describe("a replica that was given up while it was away", () => {
  const dirty = (dirtyRegions: number, generation: number, baseGeneration = 0) => ({
    sync: { volumeUuid: id(1), epoch: 4, generation, baseGeneration, clean: false, dirtyRegions },
  });
  const good = (node: string): ReplicaOf => ({ node, seen: dirty(3, 8, 5) });
  const givenUp = (generation: number, record: Partial<ReplicaRecord> = {}): ReplicaOf => ({
    node: "n3",
    record: { healthy: false, status: "Deleting", faultedAtMs: NOW_MS - 9_000, ...record },
    seen: dirty(0, generation),
    child: null,
  });
  const subject = `volume/${id(1)}`;
  const returned = (state: ReturnType<typeof clusterOf>) =>
    planFor(state, subject).work?.steps.flatMap((step) =>
      step.kind === "store"
        ? step.changes.flatMap((one) =>
            one.table === "replicas" && "put" in one ? [[one.put.uuid, one.put.status]] : [],
          )
        : [],
    );

  test("is taken back, not destroyed, where the volume lacks one", () => {
    const state = clusterOf([
      { number: 1, count: 3, replicas: [good("n1"), good("n2"), givenUp(6)] },
    ]);
    expect(returned(state)).toEqual([[id(12), "Created"]]);
    expect(planFor(state, `replica/${id(12)}`).work).toBeNull();
  });

  test("is destroyed where none is lacking, or it never held what counts", () => {
    for (const [count, generation] of [
      [2, 6],
      [3, 0],
    ] as const) {
      const replicas = [good("n1"), good("n2"), givenUp(generation)];
      const state = clusterOf([{ number: 1, count, replicas }]);
      expect(calls(planFor(state, `replica/${id(12)}`).work?.steps)).toEqual([
        "destroyReplica",
        "store",
      ]);
    }
    const healthy = [good("n1"), good("n2"), givenUp(6, { healthy: true })];
    const scaledDown = clusterOf([{ number: 1, count: 3, replicas: healthy }]);
    expect(planFor(scaledDown, `replica/${id(12)}`).work).not.toBeNull();
  });

  test("takes the place of its successor as long as that needs more", () => {
    const successor = (blocksRemaining: number): ReplicaOf => ({
      node: "n4",
      record: { healthy: false },
      seen: dirty(0, 0),
      child: { state: "degraded", reason: "out-of-sync", rebuild: rebuild(blocksRemaining) },
    });
    const of = (blocksRemaining: number, generation: number) =>
      clusterOf([
        {
          number: 1,
          rebuilds: 1,
          replicas: [good("n1"), good("n2"), givenUp(generation), successor(blocksRemaining)],
        },
      ]);
    // Three regions of 4 MiB are missing; 20 MiB or 4 MiB are left of the successor's copy.
    expect(returned(of((20 * MIB) / 512, 6))).toEqual([
      [id(12), "Created"],
      [id(13), "Created"],
    ]);
    const steps = planFor(of((20 * MIB) / 512, 6), subject).work!.steps;
    expect(steps[0]).toMatchObject({
      changes: expect.arrayContaining([
        { table: "volumes", put: expect.objectContaining({ victimReplica: id(13) }) },
      ]),
    });
    expect(returned(of((4 * MIB) / 512, 6))).toBeUndefined();
    // From before the log of the others begins everything would have to be copied.
    expect(returned(of((20 * MIB) / 512, 4))).toBeUndefined();
  });
});

test("engines are told how many replicas there are to be, so that they keep the log for them", () => {
  const replicas = [{ node: "n1" }, { node: "n2" }];
  const of = (wantedChildren?: number) =>
    clusterOf([
      {
        number: 1,
        count: 2,
        replicas,
        ...(wantedChildren === undefined ? {} : { wantedChildren }),
      },
    ]);
  expect(planFor(of(0), `volume/${id(1)}`).work?.steps).toMatchObject([
    { call: { method: "wantNexusChildren", input: { count: 2 } } },
  ]);
  expect(planFor(of(2), `volume/${id(1)}`).work).toBeNull();
  // An older engine does not know the question.
  expect(planFor(of(), `volume/${id(1)}`).work).toBeNull();
});

test("a volume may have a wait of its own", () => {
  const cluster = PlannedCluster.ofNodes(1);
  const uuid = cluster.uuid();
  cluster.put({ table: "volumes", put: volumeRecord(uuid, {}) });
  const set = (ms: number | null) => cluster.run((state) => setFaultedChildWait(state, uuid, ms));
  const wait = () => faultedChildWaitMs(cluster.state(), uuid);
  expect(wait()).toBe(600_000);
  set(5_000);
  expect(wait()).toBe(5_000);
  set(0);
  expect(wait()).toBe(0);
  expect(set(0).changes).toEqual([]);
  set(null);
  expect(wait()).toBe(600_000);
  expect(refusal(() => set(-1)).code).toBe("InvalidArgument");
  expect(refusal(() => set(1e12)).code).toBe("InvalidArgument");
  expect(refusal(() => cluster.run((s) => setFaultedChildWait(s, id(99), 1))).code).toBe(
    "NotFound",
  );
});
