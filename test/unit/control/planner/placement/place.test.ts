import { describe, expect, test } from "bun:test";
import type { CreateVolumeRequest } from "../../../../../src/control/control.ts";
import type { LabelledTopology, Topology } from "../../../../../src/control/model.ts";
import { createVolume } from "../../../../../src/control/planner/decide/index.ts";
import { REJECTIONS_NAMED } from "../../../../../src/control/planner/limits.ts";
import {
  GiB,
  PlannedCluster,
  refusal,
  volumeRequest,
} from "../../../../support/planned-cluster.ts";

function labelled(changes: Partial<LabelledTopology>): LabelledTopology {
  return { exclusion: {}, inclusion: {}, affinityKey: [], ...changes };
}
function onNodes(changes: Partial<LabelledTopology>): Topology {
  return { node: { labelled: labelled(changes) }, pool: null };
}
function inPools(changes: Partial<LabelledTopology>): Topology {
  return { node: null, pool: labelled(changes) };
}

/** Pools that a new volume's replicas are recorded in, in order of their ids. */
function recorded(cluster: PlannedCluster, changes: Partial<CreateVolumeRequest>): string[] {
  const uuid = cluster.uuid();
  cluster.run((state, uuids) => createVolume(state, volumeRequest(uuid, changes), uuids));
  return poolsOf(cluster, uuid);
}

/** The same, and everything is carried out. */
function placed(cluster: PlannedCluster, changes: Partial<CreateVolumeRequest>): string[] {
  const pools = recorded(cluster, changes);
  cluster.carryOut();
  return pools;
}

function poolsOf(cluster: PlannedCluster, volumeUuid: string): string[] {
  const replicas = [...(cluster.stored.replicasOfVolume.get(volumeUuid) ?? [])];
  return replicas.map((uuid) => cluster.stored.replicas.get(uuid)!.poolId).sort();
}

function refused(cluster: PlannedCluster, changes: Partial<CreateVolumeRequest>) {
  return refusal(() => recorded(cluster, changes));
}

describe("each filter removes a pool, and says why", () => {
  const cases: [name: string, change: (cluster: PlannedCluster) => void, why: string][] = [
    ["a node that is away", (c) => c.setNode("node-1", "Offline"), "node node-1 is Offline"],
    ["a node not heard of", (c) => c.setNode("node-1", "Unknown"), "node node-1 is Unknown"],
    [
      "a cordoned node",
      (c) => c.edit("nodes", "node-1", { cordonLabels: ["repair"] }),
      "node cordoned (repair)",
    ],
    [
      "a draining node",
      (c) => c.edit("nodes", "node-1", { drainLabels: ["upgrade"] }),
      "node cordoned (upgrade)",
    ],
    ["a cordoned pool", (c) => c.edit("pools", "pool-1", { cordoned: true }), "pool cordoned"],
    [
      "a pool to be deleted",
      (c) => c.edit("pools", "pool-1", { status: "Deleting" }),
      "pool is being deleted",
    ],
    [
      "a pool not made yet",
      (c) => c.edit("pools", "pool-1", { status: "Creating" }),
      "pool is still being created",
    ],
    [
      "a faulted pool",
      (c) => {
        c.engines.get("node-1")!.pools.get("pool-1")!.state = "faulted";
      },
      "pool is Faulted",
    ],
    [
      "a full pool",
      (c) => {
        c.engines.get("node-1")!.pools.get("pool-1")!.capacityBytes = GiB / 2;
      },
      "no room (its capacity is 512.0 MiB, 1.0 GiB needed)",
    ],
  ];
  for (const [name, change, why] of cases) {
    test(name, () => {
      const cluster = PlannedCluster.ofNodes(2);
      change(cluster);
      expect(recorded(cluster, { replicaCount: 1 })).toEqual(["pool-2"]);
      const before = cluster.stored;
      const error = refused(cluster, { replicaCount: 2 });
      expect(error.code).toBe("ResourceExhausted");
      expect(error.message).toContain("too few pools: 2 needed, 1 found");
      expect(error.message).toContain(`pool-1: ${why}`);
      expect(error.remedy).not.toBe("");
      expect(cluster.stored).toBe(before);
    });
  }

  test("no pools at all", () => {
    const error = refused(new PlannedCluster(), {});
    expect(error.message).toContain("1 needed, 0 found; there are no pools");
    const one = refused(PlannedCluster.ofNodes(1), { replicaCount: 2 });
    expect(one.message).toContain("2 needed, 1 found; there are no other pools");
  });

  test("a second pool of a node that got a replica", () => {
    const cluster = PlannedCluster.ofNodes(2);
    cluster.addPool("pool-2b", "node-2", 100 * GiB);
    const error = refused(cluster, { replicaCount: 3 });
    expect(error.message).toContain("3 needed, 2 found");
    expect(error.message).toMatch(/pool-2b?: on the same node \(node-2\) as pool-2b?/);
  });

  test("of many pools so many are named, the others counted by filter", () => {
    const cluster = PlannedCluster.ofNodes(REJECTIONS_NAMED + 7);
    for (const { id } of cluster.stored.nodes.values()) {
      cluster.edit("nodes", id, { cordonLabels: ["all"] });
    }
    const { message } = refused(cluster, {});
    expect(message.match(/node cordoned/g)?.length).toBe(REJECTIONS_NAMED);
    expect(message).toContain("7 more by node cordon");
  });
});

describe("topology by names", () => {
  test("only allowed nodes are used; an empty list allows all", () => {
    const cluster = PlannedCluster.ofNodes(3);
    const topology = (allowedNodes: string[], preferredNodes: string[] = []): Topology => {
      return { node: { explicit: { allowedNodes, preferredNodes } }, pool: null };
    };
    expect(placed(cluster, { topology: topology(["node-3"]) })).toEqual(["pool-3"]);
    expect(placed(cluster, { topology: topology([]), replicaCount: 3 })).toHaveLength(3);
    const error = refused(cluster, { topology: topology(["node-3"]), replicaCount: 2 });
    expect(error.message).toContain("pool-1: node node-1 is not allowed");
  });

  test("preferred nodes come first, although they are fuller", () => {
    const cluster = PlannedCluster.ofNodes(3);
    const topology: Topology = {
      node: { explicit: { allowedNodes: [], preferredNodes: ["node-2"] } },
      pool: null,
    };
    for (let n = 0; n < 3; n += 1) expect(placed(cluster, { topology })).toEqual(["pool-2"]);
  });
});

describe("topology by labels", () => {
  function zones(): PlannedCluster {
    const cluster = new PlannedCluster();
    const labels = [
      { zone: "a", "openebs.io/disk": "ssd" },
      { zone: "a" },
      { zone: "b" },
      { zone: "b" },
      {},
    ];
    labels.forEach((label, at) => {
      const n = at + 1;
      cluster.addNode(`node-${n}`, { labels: label as Record<string, string> });
      cluster.addPool(`pool-${n}`, `node-${n}`, 100 * GiB, {
        labels: label as Record<string, string>,
      });
    });
    return cluster;
  }

  for (const [what, topologyOf] of [
    ["node", onNodes],
    ["pool", inPools],
  ] as const) {
    test(`${what} labels: included with a value, with any value, excluded`, () => {
      const b = topologyOf({ inclusion: { zone: "b" } });
      expect(placed(zones(), { topology: b, replicaCount: 2 })).toEqual(["pool-3", "pool-4"]);
      const key = topologyOf({ inclusion: { "openebs.io/disk": "" } });
      expect(placed(zones(), { topology: key })).toEqual(["pool-1"]);
      const notA = topologyOf({ exclusion: { zone: "a" } });
      const found = ["pool-3", "pool-4", "pool-5"];
      expect(placed(zones(), { topology: notA, replicaCount: 3 })).toEqual(found);
      const error = refused(zones(), { topology: b, replicaCount: 3 });
      expect(error.message).toMatch(/pool-1: .*label zone=a, b needed/);
      expect(error.message).toMatch(/pool-5: .*no label zone/);
    });

    test(`${what} labels: spread over different values of a key`, () => {
      const topology = topologyOf({ exclusion: { zone: "" } });
      const pools = placed(zones(), { topology, replicaCount: 2 });
      expect(pools.map((id) => (id < "pool-3" ? "a" : "b"))).toEqual(["a", "b"]);
      expect(pools).not.toContain("pool-5");
      const error = refused(zones(), { topology, replicaCount: 3 });
      expect(error.message).toContain("3 needed, 2 found");
      expect(error.message).toMatch(/pool-5: .*no label zone to spread over/);
      expect(error.message).toContain("same zone=");
    });

    test(`${what} labels: all in one value of a key, whichever has enough`, () => {
      const cluster = zones();
      // The best single pool is the only one of its zone: the search goes on to another zone.
      cluster.addNode("node-6", { labels: { zone: "c" } });
      cluster.addPool("pool-6", "node-6", 900 * GiB, { labels: { zone: "c" } });
      const topology = topologyOf({ affinityKey: ["zone"] });
      expect(placed(cluster, { topology })).toEqual(["pool-6"]);
      const pools = placed(cluster, { topology, replicaCount: 2 });
      expect([
        ["pool-1", "pool-2"],
        ["pool-3", "pool-4"],
      ]).toContainEqual(pools);
    });
  }

  test("node and pool constraints that only one combination satisfies are found", () => {
    const cluster = new PlannedCluster();
    // Nodes spread by rack, pools by tray: greedy choice of the roomiest pool leads nowhere.
    const layout = [
      ["r1", "t1", 900],
      ["r1", "t2", 100],
      ["r2", "t1", 100],
    ] as const;
    layout.forEach(([rack, tray, size], at) => {
      cluster.addNode(`node-${at + 1}`, { labels: { rack } });
      cluster.addPool(`pool-${at + 1}`, `node-${at + 1}`, size * GiB, { labels: { tray } });
    });
    const topology: Topology = {
      node: { labelled: labelled({ exclusion: { rack: "" } }) },
      pool: labelled({ exclusion: { tray: "" } }),
    };
    expect(placed(cluster, { topology, replicaCount: 2 })).toEqual(["pool-2", "pool-3"]);
  });

  test("the one value of a key that has enough is found among hundreds", () => {
    const cluster = new PlannedCluster();
    for (let n = 0; n < 403; n += 1) {
      // Two nodes of each rack, and three of the last; the others have more space.
      cluster.addNode(`node-${n}`, { labels: { rack: `r${Math.min(n >> 1, 200)}` } });
      cluster.addPool(`pool-${n}`, `node-${n}`, (n < 400 ? 200 : 100) * GiB);
    }
    const topology = onNodes({ affinityKey: ["rack"] });
    const pools = recorded(cluster, { topology, replicaCount: 3 });
    expect(pools).toEqual(["pool-400", "pool-401", "pool-402"]);
    expect(refused(cluster, { topology, replicaCount: 4 }).message).toContain("4 needed, 3 found");
  });

  test("pool labels and node labels hold at the same time", () => {
    const topology: Topology = {
      node: { labelled: labelled({ inclusion: { zone: "a" } }) },
      pool: labelled({ inclusion: { "openebs.io/disk": "ssd" } }),
    };
    expect(placed(zones(), { topology })).toEqual(["pool-1"]);
    expect(refused(zones(), { topology, replicaCount: 2 }).code).toBe("ResourceExhausted");
  });
});

describe("weights", () => {
  test("free space and few replicas attract: volumes spread evenly over equal pools", () => {
    const cluster = PlannedCluster.ofNodes(4);
    const counts = new Map<string, number>();
    for (let n = 0; n < 20; n += 1) {
      for (const id of placed(cluster, { replicaCount: 2 })) {
        counts.set(id, (counts.get(id) ?? 0) + 1);
      }
    }
    expect([...counts.values()].sort()).toEqual([10, 10, 10, 10]);
  });

  test("of two pools on one node the better one is taken", () => {
    for (const [small, large] of [
      ["pool-a", "pool-b"],
      ["pool-b", "pool-a"],
    ] as const) {
      const cluster = new PlannedCluster();
      cluster.addNode("node-1");
      cluster.addPool(small, "node-1", 50 * GiB);
      cluster.addPool(large, "node-1", 300 * GiB);
      expect(placed(cluster, {})).toEqual([large]);
    }
  });

  test("more free space wins", () => {
    const cluster = PlannedCluster.ofNodes(2);
    cluster.addNode("node-0");
    cluster.addPool("pool-0", "node-0", 300 * GiB);
    expect(placed(cluster, {})).toEqual(["pool-0"]);
  });

  test("a healthy pool comes before a degraded one, although that has more space", () => {
    const cluster = PlannedCluster.ofNodes(2);
    const engine = cluster.engines.get("node-1")!;
    engine.pools.set("pool-1", { capacityBytes: 900 * GiB, state: "degraded" });
    expect(placed(cluster, {})).toEqual(["pool-2"]);
    expect(placed(cluster, { replicaCount: 2 })).toEqual(["pool-1", "pool-2"]);
  });

  test("thin volumes avoid pools that have promised much", () => {
    const cluster = PlannedCluster.ofNodes(2);
    const big = { thin: true, sizeBytes: 90 * GiB };
    const [first] = placed(cluster, big);
    const [second] = placed(cluster, big);
    expect(second).not.toBe(first);
  });

  test("equal pools are taken in the order of their ids", () => {
    expect(placed(PlannedCluster.ofNodes(9), {})).toEqual(["pool-1"]);
  });
});

describe("affinity groups", () => {
  test("single replicas of a group never share a node", () => {
    const cluster = PlannedCluster.ofNodes(3);
    const request = { affinityGroup: "db", replicaCount: 1 };
    const pools = [0, 1, 2].map(() => placed(cluster, request)[0]!);
    expect(pools.sort()).toEqual(["pool-1", "pool-2", "pool-3"]);
    const error = refused(cluster, request);
    expect(error.message).toContain("has another volume of the affinity group");
    expect(placed(cluster, { affinityGroup: "other" })).toHaveLength(1);
  });

  test("replicas of a group keep away from each other as far as there is a choice", () => {
    const cluster = PlannedCluster.ofNodes(4);
    const request = { affinityGroup: "db", replicaCount: 2 };
    const [first, second] = [placed(cluster, request), placed(cluster, request)];
    expect([...first, ...second].sort()).toEqual(["pool-1", "pool-2", "pool-3", "pool-4"]);
    expect(placed(cluster, request)).toHaveLength(2);
  });
});
