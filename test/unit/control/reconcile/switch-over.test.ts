/** Standbys and switch-over: what is planned for given states. */
import { describe, expect, test } from "bun:test";
import type { EngineStandby, ObservedNode } from "../../../../src/control/cluster-state.ts";
import type {
  NexusRecord,
  NodeRecord,
  ReplicaRecord,
  VolumeRecord,
} from "../../../../src/control/model.ts";
import { controllerIdsOf } from "../../../../src/control/planner/decide/index.ts";
import type { Change, Step, Work } from "../../../../src/control/planner/plan.ts";
import { pathsOf, plan, planFor } from "../../../../src/control/planner/reconcile/index.ts";
import {
  FOLLOW_WAIT_MS,
  HOLD_DOWN_MS,
  HOSTS_LOST_GAP_MS,
  HOSTS_LOST_HOLD_MS,
  REPUBLISH_WAIT_MS,
} from "../../../../src/control/planner/reconcile/limits.ts";
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
import {
  nexusRecord,
  nodeRecord,
  poolRecord,
  replicaRecord,
  volumeRecord,
} from "../../../support/store-records.ts";

const id = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, "0")}`;
const VOLUME = id(1);
const NEXUS = id(2);
const FORMER = id(3);
const NODES = ["n1", "n2", "n3", "n4"] as const;
type Name = (typeof NODES)[number];
const SIZE = 64 << 20;
const HOST = "nqn.2014-08.org.example:host";

interface Situation {
  readonly volume?: Partial<VolumeRecord>;
  readonly nexus?: Partial<NexusRecord>;
  /** A former target that still has a record, on this node. */
  readonly former?: Name;
  readonly formerRecord?: Partial<NexusRecord>;
  /** Nodes that have replicas; those named in `unhealthy` lack data. */
  readonly replicasOn?: readonly Name[];
  readonly unhealthy?: readonly Name[];
  readonly nodes?: Partial<Record<Name, Partial<NodeRecord>>>;
  /** Standbys by node, with what differs from what is wanted. */
  readonly standbys?: Partial<Record<Name, Partial<EngineStandby>>>;
  /** How long each has been Offline. */
  readonly away?: Partial<Record<Name, number>>;
  /** The nexus is not reported. */
  readonly noNexus?: boolean;
  /** Engines that know no standbys. */
  readonly older?: readonly Name[];
  readonly switchOver?: boolean;
  /** Controllers that hosts have at the target. */
  readonly controllers?: number | undefined;
  /** What hosts say: by host, since when (ms ago) each node is lost to it; null: it is connected there. */
  readonly hosts?: Readonly<Record<string, Partial<Record<Name, number | null>>>>;
}

function standby(node: NodeRecord, changes: Partial<EngineStandby> = {}): EngineStandby {
  return {
    volumeUuid: VOLUME,
    nqn: `nqn.2019-05.io.openebs:${VOLUME}`,
    state: "listening",
    sizeBytes: SIZE,
    blockSize: 512,
    allowedHosts: [HOST],
    controllerIds: controllerIdsOf(node),
    controllers: 0,
    uri: `nvmf+tcp://${node.id}:8420/nqn`,
    reactor: 0,
    ...changes,
  };
}

/** A volume that is served by n1, with replicas on n1, n2 and n3. */
function situation(options: Situation = {}) {
  const { replicasOn = ["n1", "n2", "n3"], unhealthy = [], standbys = {}, away = {} } = options;
  const nodes = NODES.map((node) => nodeRecord(node, options.nodes?.[node] ?? {}));
  const byName = new Map(nodes.map((node) => [node.id, node]));
  const volume = volumeRecord(VOLUME, {
    sizeBytes: SIZE,
    replicaCount: replicasOn.length,
    epoch: 4,
    incarnation: 2,
    target: {
      nexusUuid: NEXUS,
      nodeId: "n1",
      protocol: "nvmf",
      frontendNodes: [{ name: "host", nqn: HOST }],
      publishContext: {},
    },
    ...options.volume,
  });
  const replicas = replicasOn.map((node, i) =>
    replicaRecord(id(10 + i), VOLUME, `p-${node}`, {
      nodeId: node,
      sizeBytes: SIZE,
      healthy: !unhealthy.includes(node),
      allowedHosts: node === "n1" ? null : ["nqn.2019-05.io.openebs:node-name:n1"],
    }),
  );
  const children = replicas.map((replica) =>
    replica.nodeId === "n1" ? `bdev:///${replica.uuid}` : servedUri(replica),
  );
  const nexus = nexusRecord(NEXUS, {
    volumeUuid: VOLUME,
    nodeId: "n1",
    sizeBytes: SIZE,
    epoch: 4,
    status: "Created",
    share: "nvmf",
    allowedHosts: [HOST],
    controllerIds: controllerIdsOf(byName.get("n1")!),
    children: children.map((uri, i) => ({ uri, replicaUuid: replicas[i]!.uuid })),
    ...options.nexus,
  });
  const formerNode = options.former === undefined ? undefined : byName.get(options.former)!;
  const formers =
    formerNode === undefined
      ? []
      : [
          nexusRecord(FORMER, {
            volumeUuid: VOLUME,
            nodeId: formerNode.id,
            sizeBytes: SIZE,
            epoch: 3,
            status: "Created",
            phase: "Shutdown",
            share: "nvmf",
            allowedHosts: [HOST],
            controllerIds: controllerIdsOf(formerNode),
            children: [],
            ...options.formerRecord,
          }),
        ];
  const records: Change[] = [
    ...nodes.map((put) => ({ table: "nodes", put }) as const),
    ...NODES.map((node) => ({ table: "pools", put: poolRecord(`p-${node}`, node) }) as const),
    { table: "volumes", put: volume },
    ...replicas.map((put) => ({ table: "replicas", put }) as const),
    ...[nexus, ...formers].map((put) => ({ table: "nexuses", put }) as const),
  ];
  const seen = NODES.map((name): ObservedNode => {
    const own = [nexus, ...formers].filter(({ nodeId }) => nodeId === name);
    const has = {
      pools: [seenPool(poolRecord(`p-${name}`, name))],
      replicas: replicas.filter(({ nodeId }) => nodeId === name).map((r) => seenReplica(r)),
      nexuses:
        options.noNexus === true
          ? []
          : own.map((record) =>
              seenNexus(
                record,
                children.map((uri) => seenChild(uri)),
                {
                  blockSize: 512,
                  ...(options.controllers === undefined
                    ? {}
                    : { controllers: options.controllers }),
                },
              ),
            ),
    };
    const given = standbys[name];
    const made = given === undefined ? [] : [standby(byName.get(name)!, given)];
    const known =
      options.older?.includes(name) === true
        ? {}
        : { standbys: new Map(made.map((one) => [one.volumeUuid, one])) };
    const sinceMs = away[name];
    const status =
      sinceMs === undefined
        ? {}
        : ({ status: "Offline", offlineSinceMs: NOW_MS - sinceMs } as const);
    return seenNode(name, has, { ...known, ...status });
  });
  const hosts = Object.entries(options.hosts ?? {}).map(([host, paths]) => ({
    hostNqn: host,
    hostName: host.slice(host.lastIndexOf(":") + 1),
    paths: Object.entries(paths).map(([address, lostForMs]) => ({
      address,
      port: 8420,
      lostSinceMs: lostForMs === null ? null : NOW_MS - lostForMs,
    })),
  }));
  const state = stateOf(records, seen, { switchOver: options.switchOver ?? true });
  return { ...state, hostPaths: new Map([[VOLUME, hosts]]) };
}

const about = (kind: string, options: Situation, key: string = VOLUME) =>
  planFor(situation(options), `${kind}/${key}`);

function calls(work: Work | null): string[] {
  return (work?.steps ?? []).map((step: Step) =>
    step.kind === "engine" ? `${step.nodeId} ${step.call.method}` : "store",
  );
}

function inputOf(work: Work | null, at = 0): Record<string, unknown> {
  const step = work?.steps[at];
  return step?.kind === "engine" ? { ...step.call.input } : {};
}

/** What a store step puts into a table. */
function putsOf<T>(work: Work | null, table: Change["table"]): T[] {
  return (work?.steps ?? []).flatMap((step) =>
    step.kind === "store"
      ? step.changes.flatMap((c) => (c.table === table && "put" in c ? [c.put as T] : []))
      : [],
  );
}

describe("standbys", () => {
  test("are made one after the other, on nodes with healthy replicas first, with their own ids", () => {
    const { work } = about("standby", {});
    expect(calls(work)).toEqual(["n2 createStandby"]);
    expect(inputOf(work)).toEqual({
      volumeUuid: VOLUME,
      sizeBytes: SIZE,
      blockSize: 512,
      controllerIds: { min: 65, max: 128 },
      allowedHosts: [HOST],
      replicaUuid: id(11),
    });
    expect(calls(about("standby", { standbys: { n2: {} } }).work)).toEqual(["n3 createStandby"]);
    expect(about("standby", { standbys: { n2: {}, n3: {} } }).work).toBeNull();
    const all = plan(situation()).works.filter(({ subject }) => subject.startsWith("standby/"));
    expect(all.map(calls)).toEqual([["n2 createStandby"]]);
  });

  test("are elsewhere when a replica lacks data, its node is away, cordoned, drained or too old", () => {
    const reasons: Situation[] = [
      { unhealthy: ["n2"], standbys: { n3: {} } },
      { away: { n2: 1 }, standbys: { n3: {} } },
      { nodes: { n2: { cordonLabels: ["x"] } }, standbys: { n3: {} } },
      { nodes: { n2: { drainLabels: ["x"] } }, standbys: { n3: {} } },
      { older: ["n2"], standbys: { n3: {} } },
    ];
    const places = reasons.map((options) => calls(about("standby", options).work));
    // Without data it is as good as any other node: the first by name.
    expect(places).toEqual([
      ["n2 createStandby"],
      ["n4 createStandby"],
      ["n4 createStandby"],
      ["n4 createStandby"],
      ["n4 createStandby"],
    ]);
  });

  test("stay where they are among equals, and leave for a node with the data when that has one", () => {
    const equals = { replicasOn: ["n1"], standbys: { n3: {}, n4: {} } } as const;
    expect(about("standby", equals).work).toBeNull();
    const better = { standbys: { n2: {}, n4: {} } };
    expect(calls(about("standby", better).work)).toEqual(["n3 createStandby"]);
    const both = { standbys: { n2: {}, n3: {}, n4: {} } };
    expect(calls(about("standby", both).work)).toEqual(["n4 removeStandby"]);
  });

  test("follow the size and the hosts of their volume", () => {
    const differences: Partial<EngineStandby>[] = [
      { sizeBytes: SIZE / 2 },
      { allowedHosts: null },
      { controllerIds: { min: 1, max: 64 } },
      { state: "serving" },
    ];
    for (const n2 of differences) {
      const { work } = about("standby", { standbys: { n2, n3: {} } });
      expect(calls(work)).toEqual(["n2 createStandby"]);
    }
  });

  test("are left alone while the target is on its way", () => {
    const standbys = { n2: {}, n3: {}, n4: {} };
    expect(about("standby", { standbys, noNexus: true }).work).toBeNull();
    expect(about("standby", { standbys, away: { n1: 1 } }).work).toBeNull();
    expect(about("standby", { standbys, nexus: { status: "Creating" } }).work).toBeNull();
  });

  test("go with the publication, with the sharing and with the volume", () => {
    const standbys = { n2: {}, n3: {} };
    const gone: Situation[] = [
      { standbys, volume: { target: null } },
      { standbys, volume: { status: "Deleting" } },
      { standbys, nexus: { share: "none" } },
    ];
    for (const options of gone) {
      const { work } = about("standby", options);
      expect(calls(work)).toEqual(["n2 removeStandby", "n3 removeStandby"]);
    }
    const other = { standbys: { n2: { volumeUuid: id(99) } } };
    expect(calls(planFor(situation(other), `standby/${id(99)}`).work)).toEqual([
      "n2 removeStandby",
    ]);
    const subjects = plan(situation(other)).works.map(({ subject }) => subject);
    expect(subjects).toContain(`standby/${id(99)}`);
  });

  test("are not promised beside a target that has ids of an older version", () => {
    const old = { controllerIds: { min: 1, max: 2 } };
    expect(about("standby", { nexus: old }).work).toBeNull();
    expect(
      pathsOf(situation({ nexus: old }), situation().stored.volumes.get(VOLUME)!),
    ).toHaveLength(1);
  });

  test("and the target are the paths of a volume", () => {
    const state = situation({ standbys: { n3: { controllers: 2 } } });
    const paths = pathsOf(state, state.stored.volumes.get(VOLUME)!);
    expect(paths.map(({ nodeId, role, state: is, hosts }) => [nodeId, role, is, hosts])).toEqual([
      ["n1", "target", "serving", null],
      ["n3", "standby", "listening", 2],
      ["n2", "standby", "pending", null],
    ]);
    expect(paths[2]!.uri).toBe(
      `nvmf+tcp://n2:8420/nqn.2019-05.io.openebs:${VOLUME}?uuid=${VOLUME}`,
    );
  });
});

describe("a target whose node is away", () => {
  const connected = { n2: { controllers: 0 }, n3: { controllers: 1 } };

  test("goes to where hosts are connected, in a new epoch", () => {
    const { work } = about("volume", { standbys: connected, away: { n1: HOLD_DOWN_MS } });
    expect(calls(work)).toEqual(["store"]);
    const [volume] = putsOf<VolumeRecord>(work, "volumes");
    expect(volume).toMatchObject({ epoch: 5, incarnation: 3, target: { nodeId: "n3" } });
    const nexuses = putsOf<NexusRecord>(work, "nexuses");
    expect(nexuses).toHaveLength(2);
    expect(nexuses.find(({ uuid }) => uuid === NEXUS)).toMatchObject({ phase: "Shutdown" });
    expect(nexuses.find(({ uuid }) => uuid !== NEXUS)).toMatchObject({
      nodeId: "n3",
      epoch: 5,
      status: "Creating",
      phase: "Open",
      controllerIds: { min: 129, max: 192 },
    });
    const [step] = work!.steps;
    expect(step).toMatchObject({
      events: [{ category: "HighAvailability", action: "SwitchOver", target: VOLUME }],
    });
    const served = putsOf<ReplicaRecord>(work, "replicas");
    expect(served.find(({ nodeId }) => nodeId === "n3")?.allowedHosts).toBeNull();
  });

  test("stays for a moment, longer when no host is known to have another path", () => {
    const early = about("volume", { standbys: connected, away: { n1: HOLD_DOWN_MS - 1 } });
    expect([early.work, early.wakeAtMs]).toEqual([null, NOW_MS + 1]);
    const alone = { standbys: { n2: {}, n3: {} } };
    const waits = about("volume", { ...alone, away: { n1: REPUBLISH_WAIT_MS - 5 } });
    expect([waits.work, waits.wakeAtMs]).toEqual([null, NOW_MS + 5]);
    const moves = about("volume", { ...alone, away: { n1: REPUBLISH_WAIT_MS } });
    expect(putsOf<VolumeRecord>(moves.work, "volumes")[0]?.target?.nodeId).toBe("n2");
  });

  test("waits for its node when no other replica that can be reached has everything", () => {
    const lost: Situation[] = [
      { unhealthy: ["n2", "n3"] },
      { replicasOn: ["n1"] },
      { unhealthy: ["n2"], away: { n1: 60_000, n3: 60_000 } },
    ];
    for (const options of lost) {
      const state = { away: { n1: 60_000 }, ...options, standbys: connected };
      const { work, warnings } = about("volume", state);
      expect(work).toBeNull();
      expect(warnings[0]).toMatchObject({ severity: "critical", subject: `volume/${VOLUME}` });
      expect(warnings[0]?.remedy).toStartWith("bring back a node of n1");
    }
  });

  test("does not go to a cordoned node, nor anywhere when switch-over is off", () => {
    const cordoned = { n3: { cordonLabels: ["x"] } };
    const options = { standbys: connected, away: { n1: REPUBLISH_WAIT_MS } };
    const { work } = about("volume", { ...options, nodes: cordoned });
    expect(putsOf<VolumeRecord>(work, "volumes")[0]?.target?.nodeId).toBe("n2");
    const off = about("volume", { ...options, switchOver: false });
    expect(off.work).toBeNull();
    expect(off.warnings[0]?.remedy).toContain("switch-over is off");
  });

  test("that is moved by hand or drain prefers where hosts are connected, too", () => {
    const nodes = { n1: { drainLabels: ["x"], drainPhase: "draining" } } as const;
    const { work } = about("volume", { standbys: connected, nodes });
    expect(putsOf<VolumeRecord>(work, "volumes")[0]?.target?.nodeId).toBe("n3");
  });
});

describe("a target that was moved", () => {
  const standbys = { n2: { controllers: 0 }, n3: { controllers: 1 } };
  const at = (createdAtMs: number, changes: Situation = {}) =>
    about("volume", { standbys, controllers: 0, ...changes, nexus: { createdAtMs } });

  test("goes to where its hosts are when none has come to it for a while", () => {
    const { work } = at(NOW_MS - FOLLOW_WAIT_MS);
    expect(putsOf<VolumeRecord>(work, "volumes")[0]).toMatchObject({
      epoch: 5,
      target: { nodeId: "n3" },
    });
    const early = at(NOW_MS - FOLLOW_WAIT_MS + 7);
    expect([early.work, early.wakeAtMs]).toEqual([null, NOW_MS + 7]);
  });

  test("stays where hosts are, where none is anywhere, and where it was published first", () => {
    const stays: Situation[] = [
      { controllers: 1 },
      { controllers: undefined },
      { standbys: { n2: {}, n3: {} } },
      { volume: { incarnation: 1 } },
      { switchOver: false },
      { nodes: { n3: { cordonLabels: ["x"] } } },
    ];
    for (const changes of stays) expect(at(0, changes).work).toBeNull();
  });
});

describe("a former target", () => {
  test("stays as a standby when it is closed, although its node is being drained", () => {
    for (const n4 of [{}, { drainLabels: ["x"], drainPhase: "draining" } as const]) {
      const { work } = about("nexus", { former: "n4", nodes: { n4 } }, FORMER);
      expect(calls(work)).toEqual(["n4 createStandby", "n4 destroyNexus", "store"]);
      expect(inputOf(work)).toMatchObject({ volumeUuid: VOLUME, blockSize: 512 });
    }
  });

  test("is closed as before when nothing of it can stay", () => {
    const plain = ["n4 destroyNexus", "store"];
    const others: Situation[] = [
      { older: ["n4"] },
      { noNexus: true },
      { volume: { target: null } },
      { formerRecord: { controllerIds: { min: 1, max: 2 } } },
      { formerRecord: { share: "none" } },
    ];
    for (const options of others) {
      expect(calls(about("nexus", { former: "n4", ...options }, FORMER).work)).toEqual(plain);
    }
    const failed = new Map([
      [`nexus/${FORMER}`, { code: "ResourceExhausted", message: "", remedy: "" } as const],
    ]);
    const again = planFor(situation({ former: "n4" }), `nexus/${FORMER}`, failed);
    expect(calls(again.work)).toEqual(plain);
    expect(about("nexus", { former: "n4", away: { n4: 1 } }, FORMER).work).toBeNull();
  });
});

describe("a target whose node serves and that its hosts have lost", () => {
  const other = "nqn.2014-08.org.example:other";
  const standbys = { n2: { controllers: 0 }, n3: { controllers: 1 } };
  const old = { createdAtMs: NOW_MS - HOSTS_LOST_GAP_MS };
  const lost = { n1: HOSTS_LOST_HOLD_MS, n2: 0, n3: null };
  const base: Situation = { standbys, nexus: old, controllers: 1, hosts: { [HOST]: lost } };
  const movesTo = (changes: Partial<Situation>) =>
    putsOf<VolumeRecord>(about("volume", { ...base, ...changes }).work, "volumes")[0]?.target
      ?.nodeId;

  test("goes to the standby that they are connected to", () => {
    expect(movesTo({})).toBe("n3");
  });

  test("stays for a while: connections that were cut are made again, and moves do not follow each other", () => {
    const soon = about("volume", { ...base, hosts: { [HOST]: { ...lost, n1: 1 } } });
    expect(calls(soon.work)).not.toContain("store");
    expect(soon.wakeAtMs).toBe(NOW_MS - 1 + HOSTS_LOST_HOLD_MS);
    const young = about("volume", { ...base, nexus: { createdAtMs: NOW_MS - 5 } });
    expect(calls(young.work)).not.toContain("store");
    expect(young.wakeAtMs).toBe(NOW_MS - 5 + HOSTS_LOST_GAP_MS);
  });

  test("stays where somebody may be served well, or nobody reaches another node", () => {
    const stays: Partial<Situation>[] = [
      { hosts: {} },
      { hosts: { [HOST]: { ...lost, n1: null } } },
      // The standby that they reach is the one without a connection, as its node knows.
      { hosts: { [HOST]: { ...lost, n2: null, n3: 1 } } },
      { hosts: { [HOST]: { n1: lost.n1 } } },
      { nexus: { ...old, allowedHosts: [HOST, other] } },
      { nexus: { ...old, allowedHosts: [] } },
      { nexus: { ...old, allowedHosts: [] }, controllers: undefined },
      { switchOver: false },
    ];
    expect(stays.map(movesTo)).toEqual(stays.map(() => undefined));
  });

  test("goes when all who are admitted, or may be connected, have lost it and reach the same standby", () => {
    const both = { [HOST]: lost, [other]: lost };
    expect(movesTo({ nexus: { ...old, allowedHosts: [HOST, other] }, hosts: both })).toBe("n3");
    expect(movesTo({ nexus: { ...old, allowedHosts: [] }, controllers: 0 })).toBe("n3");
    const apart = { [HOST]: lost, [other]: { ...lost, n2: null, n3: 0 } };
    const nexus = { ...old, allowedHosts: [HOST, other] };
    expect(movesTo({ nexus, hosts: apart })).toBeUndefined();
  });

  test("is warned of, by host and path", () => {
    const { warnings } = plan(situation(base));
    expect(warnings.filter(({ subject }) => subject === `volume/${VOLUME}`)).toContainEqual({
      severity: "warning",
      subject: `volume/${VOLUME}`,
      message: "host host has lost its path to node n1 (n1:8420), node n2 (n2:8420)",
      remedy: "on host: trilith host list; see whether it reaches that address",
    });
    const none = plan(situation({ ...base, hosts: { [HOST]: { n1: 1 } } })).warnings;
    expect(none.find(({ message }) => message.startsWith("host "))?.severity).toBe("critical");
  });
});
