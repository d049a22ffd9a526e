/** What is planned for given states. */
import { describe, expect, test } from "bun:test";
import type { ClusterSettings, ObservedNode } from "../../../../src/control/cluster-state.ts";
import type { NexusRecord, ReplicaRecord, VolumeRecord } from "../../../../src/control/model.ts";
import type { Change, Step } from "../../../../src/control/planner/plan.ts";
import { drainRemainder } from "../../../../src/control/planner/reconcile/drain-progress.ts";
import { type Failures, plan, planFor } from "../../../../src/control/planner/reconcile/index.ts";
import {
  NOW_MS,
  seenChild,
  seenNexus,
  seenNode,
  seenPool,
  seenReplica,
  servedUri,
  shareTo,
  stateOf,
} from "../../../support/control/states.ts";
import {
  nexusRecord,
  nodeRecord,
  poolRecord,
  replicaRecord,
  snapshotRecord,
  volumeRecord,
} from "../../../support/store-records.ts";

const id = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, "0")}`;
const VOLUME = id(1);
const NEXUS = id(2);
const NODES = ["n1", "n2", "n3", "n4"];
const MIB = 1 << 20;
const SIZE = 64 * MIB;

const nqn = (node: string) => `nqn.2019-05.io.openebs:node-name:${node}`;
const pools = NODES.map((node) => poolRecord(`p-${node}`, node));

/** Steps in few words: `n1 createPool`, `store pools`. */
function words(steps: readonly Step[] | undefined): string[] {
  return (steps ?? []).map((step) =>
    step.kind === "engine"
      ? `${step.nodeId} ${step.call.method}`
      : `store ${step.changes.map(({ table }) => table).join(" ")}`,
  );
}

function putOf<T>(steps: readonly Step[] | undefined, table: Change["table"]): T[] {
  return (steps ?? []).flatMap((step) =>
    step.kind === "store"
      ? step.changes.flatMap((change) =>
          change.table === table && "put" in change ? [change.put as T] : [],
        )
      : [],
  );
}

/** A published volume of three replicas on n1 (with the nexus), n2 and n3; n4 has room. */
function published(options: {
  readonly volume?: Partial<VolumeRecord>;
  readonly nexus?: Partial<NexusRecord>;
  readonly replicas?: readonly Partial<ReplicaRecord>[];
  /** Children of the nexus as reported; null: there is no nexus. */
  readonly children?: readonly Parameters<typeof seenChild>[1][] | null;
  readonly away?: readonly string[];
  readonly nodes?: Partial<Record<string, Partial<ObservedNode>>>;
  readonly records?: readonly Change[];
  readonly settings?: Partial<ClusterSettings>;
}) {
  const target = {
    nexusUuid: NEXUS,
    nodeId: "n1",
    protocol: "nvmf",
    frontendNodes: [],
    publishContext: {},
  } as const;
  const volume = volumeRecord(VOLUME, {
    sizeBytes: SIZE,
    replicaCount: 3,
    thin: true,
    target,
    epoch: 4,
    incarnation: 2,
    ...options.volume,
  });
  const replicas = ["n1", "n2", "n3"].map((node, i) =>
    replicaRecord(id(10 + i), VOLUME, `p-${node}`, {
      nodeId: node,
      sizeBytes: SIZE,
      thin: true,
      allowedHosts: node === "n1" ? null : [nqn("n1")],
      ...options.replicas?.[i],
    }),
  );
  const uris = replicas.map((r) => (r.nodeId === "n1" ? `bdev:///${r.uuid}` : servedUri(r)));
  const nexus = nexusRecord(NEXUS, {
    volumeUuid: VOLUME,
    nodeId: "n1",
    sizeBytes: SIZE,
    epoch: 4,
    share: "nvmf",
    children: uris.map((uri, i) => ({ uri, replicaUuid: replicas[i]!.uuid })),
    ...options.nexus,
  });
  const children = uris.map((uri, i) => seenChild(uri, options.children?.[i]));
  const nodes = NODES.map((node) => {
    const own = replicas.filter(({ nodeId, status }) => nodeId === node && status !== "Creating");
    const nexuses = node === "n1" && options.children !== null ? [seenNexus(nexus, children)] : [];
    return seenNode(
      node,
      {
        pools: pools.filter(({ nodeId }) => nodeId === node).map((pool) => seenPool(pool)),
        replicas: own.map((replica) => seenReplica(replica)),
        nexuses,
      },
      {
        ...(options.away?.includes(node) === true ? { status: "Offline" as const } : {}),
        ...options.nodes?.[node],
      },
    );
  });
  return stateOf(
    [
      ...NODES.map(
        (node): Change => ({ table: "nodes", put: nodeRecord(node, { hostNqn: nqn(node) }) }),
      ),
      ...pools.map((pool): Change => ({ table: "pools", put: pool })),
      { table: "volumes", put: volume },
      ...replicas.map((replica): Change => ({ table: "replicas", put: replica })),
      { table: "nexuses", put: nexus },
      ...(options.records ?? []),
    ],
    nodes,
    options.settings,
  );
}

const faulted = { state: "faulted", reason: "io-failure" } as const;
const out = { state: "degraded", reason: "out-of-sync" } as const;

test("a cluster that is as wanted needs nothing", () => {
  const made = plan(published({}));
  expect(made).toEqual({ works: [], warnings: [], wakeAtMs: null });
});

describe("pools", () => {
  const failing: Failures = new Map([
    ["pool/p", { code: "ForeignDisk", message: "holds ext4", remedy: "" }],
  ]);
  const state = (
    changes: Parameters<typeof poolRecord>[2],
    seen?: string,
    status: ObservedNode["status"] = "Online",
  ) => {
    const pool = poolRecord("p", "n1", { createdAtMs: NOW_MS, ...changes });
    const there = seen === undefined ? [] : [seenPool({ ...pool, uuid: seen })];
    return stateOf(
      [
        { table: "nodes", put: nodeRecord("n1") },
        { table: "pools", put: pool },
      ],
      [seenNode("n1", { pools: there }, { status })],
    );
  };

  test("are made once, and given up when that cannot be", () => {
    const creating = state({ status: "Creating", force: true });
    expect(words(planFor(creating, "pool/p").work?.steps)).toEqual([
      "n1 createPool",
      "store pools",
    ]);
    expect(putOf(planFor(creating, "pool/p").work?.steps, "pools")).toMatchObject([
      { status: "Created", force: false },
    ]);
    const { work } = planFor(creating, "pool/p", failing);
    expect(putOf(work?.steps, "pools")).toMatchObject([{ status: "Deleting" }]);
    expect(work?.failure?.code).toBe("ForeignDisk");
  });

  test("whose disk somebody else holds are given up at once, with nothing to undo", () => {
    const creating = state({ status: "Creating" });
    const held: Failures = new Map([
      ["pool/p", { code: "InUse", message: "held by another engine", remedy: "" }],
    ]);
    const { work } = planFor(creating, "pool/p", held);
    expect(work?.steps).toMatchObject([{ changes: [{ table: "pools", remove: "p" }] }]);
    expect(work?.failure).toMatchObject({ code: "InUse" });
  });

  describe("that have failed", () => {
    const pool = poolRecord("p", "n1");
    const failed = (seen: Parameters<typeof seenPool>[1], records: readonly Change[]) =>
      stateOf(
        [{ table: "nodes", put: nodeRecord("n1") }, ...records],
        [seenNode("n1", { pools: [seenPool(pool, seen)] })],
      );
    const known: readonly Change[] = [{ table: "pools", put: pool }];

    test("are told of, and opened anew when their disk has answered for long enough", () => {
      for (const state of ["faulted", "offline"] as const) {
        for (const disk of ["failed", "answering"] as const) {
          const { work, warnings } = planFor(failed({ state, disk }, known), "pool/p");
          expect(work).toBeNull();
          expect(warnings).toMatchObject([{ severity: "critical" }]);
          expect(warnings[0]!.message.includes("answers again")).toBe(disk === "answering");
        }
        const { work } = planFor(failed({ state, disk: "steady" }, known), "pool/p");
        expect(work?.steps).toMatchObject([
          { call: { method: "importPool", input: { name: "p", uuid: pool.uuid } } },
        ]);
      }
      // One that an older engine reports is left to its operator.
      expect(planFor(failed({ state: "faulted" }, known), "pool/p").work).toBeNull();
      expect(planFor(failed({ state: "degraded" }, known), "pool/p").work).toBeNull();
    });

    test("are closed when they were forgotten, also under the name of another", () => {
      const words_ = (records: readonly Change[], seen: Parameters<typeof seenPool>[1]) =>
        words(planFor(failed(seen, records), "pool/p").work?.steps);
      const another = poolRecord("p", "n1", { uuid: "of-another", status: "Creating" });
      expect(words_([], { state: "faulted" })).toEqual(["n1 exportPool"]);
      expect(plan(failed({ state: "faulted" }, [])).works).toMatchObject([{ subject: "pool/p" }]);
      expect(words_([{ table: "pools", put: another }], { state: "faulted" })).toEqual([
        "n1 exportPool",
      ]);
      // One that works may be anybody's.
      expect(words_([], { state: "online" })).toEqual([]);
    });

    test("keep what is to be deleted in them until they are back", () => {
      const gone = replicaRecord(id(10), null, "p", { nodeId: "n1", status: "Deleting" });
      const records = [...known, { table: "replicas", put: gone } as const];
      const subject = `replica/${gone.uuid}`;
      expect(planFor(failed({ state: "faulted" }, records), subject).work).toBeNull();
      expect(planFor(failed({}, records), subject).work).not.toBeNull();
    });
  });

  test("that exist are imported, never made", () => {
    expect(words(planFor(state({}), "pool/p").work?.steps)).toEqual(["n1 importPool"]);
    expect(planFor(state({}, "uuid-of-p"), "pool/p").work).toBeNull();
    expect(planFor(state({}, undefined, "Offline"), "pool/p").work).toBeNull();
  });

  test("of the same name that are another's are left alone", () => {
    const deleting = { status: "Deleting" } as const;
    const own = planFor(state(deleting, "uuid-of-p"), "pool/p").work;
    expect(words(own?.steps)).toEqual(["n1 destroyPool", "store pools"]);
    const foreign = planFor(state(deleting, "somebody else's"), "pool/p").work;
    expect(words(foreign?.steps)).toEqual(["store pools"]);
    expect(planFor(state({}, "somebody else's"), "pool/p").warnings[0]?.severity).toBe("critical");
    expect(planFor(state(deleting, undefined, "Offline"), "pool/p").work).toBeNull();
  });
});

describe("opening a nexus", () => {
  const creating = { nexus: { status: "Creating" }, children: null } as const;

  test("takes what is healthy, the local one first, then shares it", () => {
    const { work } = planFor(
      published({ ...creating, replicas: [{}, { healthy: false }, {}] }),
      `volume/${VOLUME}`,
    );
    expect(words(work?.steps)).toEqual(["n1 createNexus", "store nexuses", "n1 shareNexusNvmf"]);
    expect(work?.steps[0]).toMatchObject({
      call: {
        input: {
          epoch: 4,
          sizeBytes: SIZE,
          children: [
            { uri: `bdev:///${id(10)}`, healthy: true },
            { uri: expect.stringContaining(id(12)), healthy: true },
            { uri: expect.stringContaining(id(11)), healthy: false },
          ],
        },
      },
    });
  });

  test("waits for a node that has not been heard of, not for one that is away", () => {
    const unheard = published({ ...creating, nodes: { n2: { status: "Unknown" } } });
    expect(planFor(unheard, `volume/${VOLUME}`).work).toBeNull();
    const { work } = planFor(published({ ...creating, away: ["n2"] }), `volume/${VOLUME}`);
    expect(work?.steps[0]).toMatchObject({
      call: { method: "createNexus", input: { children: [{}, {}] } },
    });
  });

  test("waits for a replica that was made a moment ago and has not been seen yet", () => {
    const nodes = { n2: seenNode("n2", { pools: [seenPool(pools[1]!)] }) };
    const fresh = published({
      ...creating,
      nodes,
      replicas: [{}, { createdAtMs: NOW_MS - 10 }, {}],
    });
    expect(planFor(fresh, `volume/${VOLUME}`).work).toBeNull();
    const { work } = planFor(published({ ...creating, nodes }), `volume/${VOLUME}`);
    expect(words(work?.steps)[0]).toBe("n1 createNexus");
  });

  describe("with replicas whose machines lost power", () => {
    const lacking = (node: string, startedMsAgo: number, mayLack = true) => {
      const seen = seenNode(node);
      const i = Number(node.slice(1)) - 1;
      const record = replicaRecord(id(10 + i), VOLUME, `p-${node}`, {
        nodeId: node,
        sizeBytes: SIZE,
        allowedHosts: i === 0 ? null : [nqn("n1")],
      });
      const replica = seenReplica(record);
      const startedAt = new Date(NOW_MS - startedMsAgo).toISOString();
      return {
        info: { ...seen.info!, startedAt },
        replicas: new Map([
          [record.uuid, { ...replica, sync: { ...replica.sync, clean: false, mayLack } }],
        ]),
      };
    };
    const subject = `volume/${VOLUME}`;

    test("waits for one that may be whole, but not for ever", () => {
      const nodes = { n1: lacking("n1", 60_000), n2: lacking("n2", 10_000) };
      const state = published({ ...creating, nodes, away: ["n3"] });
      const { work, warnings } = planFor(state, subject);
      expect(work).toBeNull();
      expect(warnings[0]).toMatchObject({
        severity: "critical",
        remedy: "bring back a node of n3",
      });
      expect(plan(state).wakeAtMs).toBe(NOW_MS + 20_000);
      const late = published({
        ...creating,
        nodes: { n1: lacking("n1", 60_000), n2: lacking("n2", 30_000) },
        away: ["n3"],
      });
      expect(words(planFor(late, subject).work?.steps)[0]).toBe("n1 createNexus");
    });

    test("does not wait when one at hand lacks nothing, or none is away that holds all", () => {
      const whole = published({
        ...creating,
        nodes: { n1: lacking("n1", 0), n2: lacking("n2", 0, false) },
        away: ["n3"],
      });
      expect(words(planFor(whole, subject).work?.steps)[0]).toBe("n1 createNexus");
      const known = published({
        ...creating,
        nodes: { n1: lacking("n1", 0), n2: lacking("n2", 0) },
        away: ["n3"],
        replicas: [{}, {}, { healthy: false }],
      });
      expect(words(planFor(known, subject).work?.steps)[0]).toBe("n1 createNexus");
    });
  });

  test("does not happen without a healthy replica", () => {
    const state = published({
      ...creating,
      away: ["n3"],
      replicas: [{ healthy: false }, { healthy: false }, {}],
    });
    const { work, warnings } = planFor(state, `volume/${VOLUME}`);
    expect(work).toBeNull();
    expect(warnings[0]).toMatchObject({ severity: "critical", remedy: "bring back a node of n3" });
  });

  test("has replicas served to its node first", () => {
    const state = published({ ...creating, replicas: [{}, { allowedHosts: [nqn("n4")] }, {}] });
    const { work } = planFor(state, `volume/${VOLUME}`);
    expect(putOf(work?.steps, "replicas")).toMatchObject([
      { uuid: id(11), allowedHosts: [nqn("n1")] },
    ]);
  });

  test("after its engine restarted is in a new epoch", () => {
    const { work } = planFor(published({ children: null }), `volume/${VOLUME}`);
    expect(words(work?.steps)).toEqual(["store volumes nexuses"]);
    expect(putOf(work?.steps, "volumes")).toMatchObject([{ epoch: 5 }]);
    expect(putOf(work?.steps, "nexuses")).toMatchObject([{ epoch: 5, status: "Creating" }]);
  });

  test("waits until the former one is closed where that can be had", () => {
    const former = nexusRecord(id(3), {
      volumeUuid: VOLUME,
      nodeId: "n2",
      epoch: 3,
      phase: "Shutdown",
    });
    const records: Change[] = [{ table: "nexuses", put: former }];
    const there = seenNode("n2", {
      pools: [seenPool(pools[1]!)],
      replicas: [
        seenReplica(
          replicaRecord(id(11), VOLUME, "p-n2", {
            nodeId: "n2",
            sizeBytes: SIZE,
            allowedHosts: [nqn("n1")],
          }),
        ),
      ],
      nexuses: [seenNexus(former, [])],
    });
    const online = published({ ...creating, records, nodes: { n2: there } });
    expect(planFor(online, `volume/${VOLUME}`).work).toBeNull();
    expect(words(planFor(online, `nexus/${id(3)}`).work?.steps)).toEqual([
      "n2 destroyNexus",
      "store nexuses",
    ]);
    const away = published({ ...creating, records, away: ["n2"] });
    expect(words(planFor(away, `volume/${VOLUME}`).work?.steps)[0]).toBe("n1 createNexus");
    expect(planFor(away, `nexus/${id(3)}`).work).toBeNull();
    const stuck: Failures = new Map([
      [`nexus/${id(3)}`, { code: "Timeout", message: "", remedy: "" }],
    ]);
    expect(words(planFor(online, `volume/${VOLUME}`, stuck).work?.steps)[0]).toBe("n1 createNexus");
  });
});

describe("children", () => {
  const subject = `volume/${VOLUME}`;
  const lost = { healthy: false, faultedAtMs: NOW_MS - 1_000 };

  test("that are back are brought online, as many as may be rebuilt at a time", () => {
    const options = { children: [{}, faulted, {}], replicas: [{}, lost, {}] };
    expect(words(planFor(published(options), subject).work?.steps)).toEqual([
      "n1 onlineNexusChild",
    ]);
    const busy = published({ ...options, settings: { maxRebuilds: 1 } });
    expect(words(planFor(busy, subject).work?.steps)).toEqual(["n1 onlineNexusChild"]);
    const other = { ...seenNexus(nexusRecord(id(4), { nodeId: "n2" }), []), rebuilds: 1 };
    const full = published({
      ...options,
      settings: { maxRebuilds: 1 },
      records: [{ table: "nexuses", put: nexusRecord(id(4), { nodeId: "n4", share: "none" }) }],
      nodes: { n4: seenNode("n4", { pools: [seenPool(pools[3]!)], nexuses: [other] }) },
    });
    expect(planFor(full, subject).work).toBeNull();
  });

  test("that wait for their rebuild are left alone, those that were put out are not", () => {
    const state = published({ children: [{}, out, {}], replicas: [{}, lost, {}] });
    const nexus = state.observed.get("n1")!.nexuses.get(NEXUS)! as { rebuilds: number };
    expect(words(planFor(state, subject).work?.steps)).toEqual(["n1 onlineNexusChild"]);
    nexus.rebuilds = 1;
    expect(planFor(state, subject).work).toBeNull();
  });

  test("that are away are waited for, then given up, whether or not there is another place", () => {
    const options = { away: ["n3"], children: [{}, {}, faulted], replicas: [{}, {}, lost] };
    const early = planFor(
      published({ ...options, settings: { faultedChildWaitMs: 5_000 } }),
      subject,
    );
    expect(early.work).toBeNull();
    expect(early.wakeAtMs).toBe(NOW_MS + 4_000);
    const late = { ...options, settings: { faultedChildWaitMs: 500 } };
    expect(words(planFor(published(late), subject).work?.steps)).toEqual(["n1 removeNexusChild"]);
    const nowhere = { ...late, away: ["n3", "n4"] };
    expect(words(planFor(published(nowhere), subject).work?.steps)).toEqual([
      "n1 removeNexusChild",
    ]);
    const patient = published({ ...late, volume: { selfHeal: false } });
    expect(planFor(patient, subject).work).toBeNull();
  });

  test("are given up for good with a check on those that remain", () => {
    const state = published({
      away: ["n3"],
      replicas: [{}, {}, lost],
      settings: { faultedChildWaitMs: 500 },
    });
    const nexus = state.observed.get("n1")!.nexuses.get(NEXUS)!;
    (nexus as { children: unknown[] }).children.pop();
    const record = { ...state.stored.nexuses.get(NEXUS)! };
    const { work } = planFor(state, subject);
    // Its record is brought up to date first.
    expect(putOf<NexusRecord>(work?.steps, "nexuses")[0]?.children).toHaveLength(2);
    (state.stored.nexuses.get(NEXUS) as { children: unknown }).children = record.children.slice(
      0,
      2,
    );
    const { work: next } = planFor(state, subject);
    expect(putOf(next?.steps, "replicas")).toMatchObject([
      { uuid: id(12), status: "Deleting" },
      { uuid: id(10), status: "Created" },
      { uuid: id(11), status: "Created" },
    ]);
  });

  test("that have no room are replaced first and removed afterwards", () => {
    const state = published({
      children: [{}, { state: "degraded", reason: "no-space" }, {}],
      replicas: [{}, lost, {}],
    });
    const { work } = planFor(state, subject);
    expect(putOf(work?.steps, "volumes")).toMatchObject([{ victimReplica: id(11) }]);
    expect(putOf<ReplicaRecord>(work?.steps, "replicas").at(-1)).toMatchObject({
      poolId: "p-n4",
      healthy: false,
    });
  });
});

describe("an unpublished volume's replicas", () => {
  test("are served until the nexus is gone: it would record them as lost", () => {
    const served = replicaRecord(id(11), VOLUME, "p-n2", {
      nodeId: "n2",
      sizeBytes: SIZE,
      thin: true,
      allowedHosts: [nqn("n1")],
    });
    const closing = {
      volume: { target: null },
      nexus: { phase: "Shutdown" },
      replicas: [{}, { allowedHosts: null }, {}],
      nodes: { n2: { replicas: new Map([[served.uuid, seenReplica(served)]]) } },
    } as const;
    const subject = `replica/${served.uuid}`;
    expect(words(planFor(published(closing), `nexus/${NEXUS}`).work?.steps)).toEqual([
      "n1 destroyNexus",
      "store nexuses",
    ]);
    expect(planFor(published(closing), subject).work).toBeNull();
    const closed = planFor(published({ ...closing, children: null }), subject);
    expect(words(closed.work?.steps)).toEqual(["n2 unshareReplica"]);
  });
});

describe("too many replicas", () => {
  const subject = `volume/${VOLUME}`;
  test("one goes when all that remain hold everything", () => {
    const volume = { replicaCount: 2, victimReplica: id(12) };
    expect(words(planFor(published({ volume }), subject).work?.steps)).toEqual([
      "n1 removeNexusChild",
    ]);
    const rebuilding = { ...out, rebuild: {} as never };
    const busy = published({
      volume,
      children: [{}, rebuilding, {}],
      replicas: [{}, { healthy: false }, {}],
    });
    expect(planFor(busy, subject).work).toBeNull();
  });

  test("which one is recorded before anything happens to it", () => {
    const { work } = planFor(published({ volume: { replicaCount: 2 } }), subject);
    expect(words(work?.steps)).toEqual(["store volumes replicas replicas replicas"]);
    expect(putOf<VolumeRecord>(work?.steps, "volumes")[0]?.victimReplica).not.toBeNull();
  });
});

describe("garbage", () => {
  const stranger = replicaRecord(id(77), VOLUME, "p-n4", { nodeId: "n4", sizeBytes: SIZE });
  const withStranger = (changes: Parameters<typeof seenReplica>[1]) =>
    published({
      nodes: {
        n4: seenNode("n4", {
          pools: [seenPool(pools[3]!)],
          replicas: [seenReplica(stranger, changes)],
        }),
      },
    });

  test("that was never used is destroyed", () => {
    const { work } = planFor(withStranger({}), `replica/${id(77)}`);
    expect(words(work?.steps)).toEqual(["n4 destroyReplica"]);
  });

  test("that may hold somebody's data is told of, and kept", () => {
    const sync = {
      volumeUuid: id(99),
      epoch: 3,
      generation: 7,
      baseGeneration: 1,
      clean: true,
      dirtyRegions: 0,
    };
    for (const changes of [{ sync }, { sync, entityId: id(99) }, { entityId: "" }]) {
      const { works, warnings } = plan(withStranger(changes));
      expect(works).toEqual([]);
      expect(warnings).toMatchObject([{ subject: `replica/${id(77)}`, severity: "warning" }]);
    }
  });

  test("that its volume left behind is destroyed", () => {
    const behind = {
      volumeUuid: VOLUME,
      epoch: 3,
      generation: 2,
      baseGeneration: 1,
      clean: true,
      dirtyRegions: 0,
    };
    const state = withStranger({ sync: behind });
    expect(plan(state).works).toEqual([]);
    const good = state.observed.get("n2")!.replicas.get(id(11))! as { sync: unknown };
    good.sync = { ...behind, generation: 3 };
    expect(words(plan(state).works[0]?.steps)).toEqual(["n4 destroyReplica"]);
  });

  test("a nexus of an epoch that was given out and is over is closed, an unknown one is not", () => {
    const state = (epoch: number, volumeUuid: string) => {
      const nexus = nexusRecord(id(5), { volumeUuid, nodeId: "n4", epoch, share: "nvmf" });
      return published({
        nodes: {
          n4: seenNode("n4", { pools: [seenPool(pools[3]!)], nexuses: [seenNexus(nexus, [])] }),
        },
      });
    };
    expect(words(plan(state(3, VOLUME)).works[0]?.steps)).toEqual(["n4 destroyNexus"]);
    expect(plan(state(9, VOLUME)).works).toEqual([]);
    expect(plan(state(3, id(98))).works).toEqual([]);
    expect(plan(state(3, id(98))).warnings).toHaveLength(1);
  });
});

describe("nodes that are drained", () => {
  const draining = (changes: object) => {
    const state = published({});
    Object.assign(state.stored.nodes.get("n1")!, {
      drainLabels: ["x"],
      drainPhase: "draining",
      ...changes,
    });
    return state;
  };

  test("lose their targets, in a new epoch", () => {
    const { work } = planFor(draining({}), `volume/${VOLUME}`);
    expect(putOf(work?.steps, "volumes")).toMatchObject([
      { epoch: 5, incarnation: 3, target: { nodeId: "n2" } },
    ]);
    expect(putOf(work?.steps, "nexuses")).toMatchObject([
      { nodeId: "n2", epoch: 5, status: "Creating" },
      { uuid: NEXUS, phase: "Shutdown" },
    ]);
    expect(planFor(draining({}), "node/n1").work).toBeNull();
  });

  test("are drained when nothing that has to leave is left", () => {
    const state = draining({});
    Object.assign(state.stored.volumes.get(VOLUME)!, { target: null });
    const { work } = planFor(state, "node/n1");
    expect(putOf(work?.steps, "nodes")).toMatchObject([{ drainPhase: "drained" }]);
    Object.assign(state.stored.nodes.get("n1")!, { evacuate: true });
    expect(planFor(state, "node/n1").work).toBeNull();
  });

  test("are not yet drained while a target is being opened elsewhere with a replica of theirs", () => {
    const opening = { nodeId: "n2", status: "Creating" };
    const state = draining({});
    const volume = state.stored.volumes.get(VOLUME)!;
    Object.assign(volume, { target: { ...volume.target!, nodeId: "n2" } });
    Object.assign(state.stored.nexuses.get(NEXUS)!, opening);
    expect(planFor(state, "node/n1").work).toBeNull();
    expect(drainRemainder(state, state.stored.nodes.get("n1")!)).toEqual([
      expect.objectContaining({ kind: "opening", uuid: NEXUS, waitsFor: "being opened on n2" }),
    ]);
    Object.assign(state.stored.nexuses.get(NEXUS)!, { status: "Created" });
    const { work } = planFor(state, "node/n1");
    expect(putOf(work?.steps, "nodes")).toMatchObject([{ drainPhase: "drained" }]);
  });
});

describe("snapshots", () => {
  const parts = (count: number) =>
    Array.from({ length: count }, (_, i) => ({
      uuid: id(40 + i),
      sourceUuid: id(10 + i),
      poolId: `p-n${i + 1}`,
      nodeId: `n${i + 1}`,
      status: "Creating" as const,
    }));
  const snapshot = (changes: object = {}): Change => ({
    table: "snapshots",
    put: snapshotRecord(id(30), VOLUME, {
      status: "Creating",
      replicas: parts(3),
      takenAtMs: null,
      createdAtMs: NOW_MS,
      ...changes,
    }),
  });
  const subject = `snapshot/${id(30)}`;

  test("are taken of every replica while the volume is paused", () => {
    const { work } = planFor(published({ records: [snapshot()] }), subject);
    expect(words(work?.steps)).toEqual([
      "store snapshots volumes",
      "n1 pauseNexus",
      "n1 createSnapshot",
      "n2 createSnapshot",
      "n3 createSnapshot",
      "n1 resumeNexus",
      "store snapshots volumes",
    ]);
    expect(words(work?.cleanup)).toEqual(["n1 resumeNexus"]);
  });

  test("that were interrupted are given up", () => {
    const { work } = planFor(published({ records: [snapshot({ txnId: 2 })] }), subject);
    expect(putOf(work?.steps, "snapshots")).toMatchObject([{ status: "Deleting" }]);
    expect(work?.failure).toBeDefined();
  });

  test("wait for a child that takes no part, but not for ever", () => {
    const options = { children: [{}, faulted, {}], replicas: [{}, { healthy: false }, {}] };
    const { work, wakeAtMs } = planFor(published({ ...options, records: [snapshot()] }), subject);
    expect(work).toBeNull();
    expect(wakeAtMs).toBeGreaterThan(NOW_MS);
    const old = snapshot({ createdAtMs: NOW_MS - 60_000 });
    const { work: late } = planFor(published({ ...options, records: [old] }), subject);
    expect(putOf(late?.steps, "snapshots")).toMatchObject([{ status: "Deleting" }]);
  });
});

describe("volumes that are deleted", () => {
  test("go when their nexus and replicas are gone, or are out of reach", () => {
    const volume = { status: "Deleting", target: null } as const;
    const nexus = { phase: "Shutdown" } as const;
    const gone = { status: "Deleting" } as const;
    const replicas = [gone, gone, gone];
    const used = published({ volume, nexus, replicas });
    expect(planFor(used, `volume/${VOLUME}`).work).toBeNull();
    expect(planFor(used, `replica/${id(11)}`).work).toBeNull();
    expect(words(planFor(used, `nexus/${NEXUS}`).work?.steps)).toEqual([
      "n1 destroyNexus",
      "store nexuses",
    ]);
    const closed = published({ volume, nexus, replicas, children: null });
    expect(words(planFor(closed, `replica/${id(11)}`).work?.steps)).toEqual([
      "n2 destroyReplica",
      "store replicas",
    ]);
    const away = published({ volume, nexus, replicas, away: ["n1", "n2", "n3"] });
    expect(words(planFor(away, `volume/${VOLUME}`).work?.steps)).toEqual(["store volumes"]);
  });
});

test("hosts of a nexus are changed without closing it", () => {
  const state = published({ nexus: { allowedHosts: ["nqn.2014-08.org.example:a"] } });
  const nexus = state.observed.get("n1")!.nexuses.get(NEXUS)! as { shares: unknown };
  nexus.shares = [shareTo("", ["nqn.2014-08.org.example:b"])];
  expect(words(planFor(state, `volume/${VOLUME}`).work?.steps)).toEqual(["n1 shareNexusNvmf"]);
});

describe("a volume that nobody uses", () => {
  const subject = `volume/${VOLUME}`;
  const volume = { target: null } as const;
  const added = { healthy: false, faultedAtMs: null };
  const unserved = [{ allowedHosts: null }, { allowedHosts: null }, { allowedHosts: null }];

  test("has a replica that lacks data copied by a nexus that no host reaches", () => {
    const shutdown = { phase: "Shutdown" } as const;
    const replicas = [{}, {}, { ...added, allowedHosts: null }];
    const closed = published({ volume, nexus: shutdown, children: null, replicas });
    // The former nexus is closed first.
    expect(planFor(closed, subject).work).toBeNull();
    const state = published({
      volume,
      nexus: { ...shutdown, nodeId: "gone" },
      children: null,
      replicas: [unserved[0]!, unserved[1]!, { ...unserved[2], ...added }],
    });
    const { work } = planFor(state, subject);
    expect(putOf(work?.steps, "nexuses")).toMatchObject([
      { phase: "Open", status: "Creating", share: "none", epoch: 5, nodeId: "n1" },
    ]);
    expect(putOf(work?.steps, "volumes")).toMatchObject([{ epoch: 5, target: null }]);
  });

  test("keeps a replica that was made a moment ago and has not been seen yet", () => {
    const nodes = { n3: seenNode("n3", { pools: [seenPool(pools[2]!)] }) };
    const nexus = { phase: "Shutdown", nodeId: "gone" } as const;
    const state = published({ volume, nexus, children: null, replicas: unserved, nodes });
    expect(planFor(state, subject).work).toBeNull();
  });

  test("waits with one that was lost, as a published one does", () => {
    const lost = { healthy: false, faultedAtMs: NOW_MS - 1_000, allowedHosts: null };
    const state = published({
      volume,
      nexus: { phase: "Shutdown", nodeId: "gone" },
      children: null,
      replicas: [unserved[0]!, unserved[1]!, lost],
      settings: { faultedChildWaitMs: 5_000 },
    });
    const made = planFor(state, subject);
    expect(made.work).toBeNull();
    expect(made.wakeAtMs).toBe(NOW_MS + 4_000);
  });

  test("has that nexus closed when every replica holds everything", () => {
    const nexus = { share: "none" } as const;
    const busy = published({ volume, nexus, replicas: [{}, {}, added], children: [{}, {}, out] });
    const seen = busy.observed.get("n1")!.nexuses.get(NEXUS)! as { rebuilds: number };
    seen.rebuilds = 1;
    expect(planFor(busy, subject).work).toBeNull();
    const { work } = planFor(published({ volume, nexus }), subject);
    expect(putOf(work?.steps, "nexuses")).toMatchObject([{ uuid: NEXUS, phase: "Shutdown" }]);
  });
});
