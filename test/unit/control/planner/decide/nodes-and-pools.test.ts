import { describe, expect, test } from "bun:test";
import type { CreatePoolRequest } from "../../../../../src/control/control.ts";
import {
  addWatch,
  checkExpandPool,
  cordonNode,
  cordonPool,
  createPool,
  createSnapshot,
  createVolume,
  deregisterAppNode,
  destroyPool,
  drainNode,
  labelNode,
  labelPool,
  nodeRemovalImpact,
  poolRemovalImpact,
  publishVolume,
  registerAppNode,
  removeNode,
  removeWatch,
  uncordonNode,
  unlabelNode,
  unlabelPool,
} from "../../../../../src/control/planner/decide/index.ts";
import {
  CORDON_LABELS_MAX,
  LABELS_MAX,
  WATCHES_MAX,
} from "../../../../../src/control/planner/limits.ts";
import { drainRemainder } from "../../../../../src/control/planner/reconcile/drain-progress.ts";
import { planFor } from "../../../../../src/control/planner/reconcile/index.ts";
import {
  GiB,
  PlannedCluster,
  refusal,
  volumeRequest,
} from "../../../../support/planned-cluster.ts";
import { nexusRecord } from "../../../../support/store-records.ts";

const nothing = { changes: [], events: [] };
const gently = { purge: false, acceptVolumeLoss: false, acceptSnapshotLoss: false };
const purge = { ...gently, purge: true };
const purgeAll = { purge: true, acceptVolumeLoss: true, acceptSnapshotLoss: true };

function volumeOn(cluster: PlannedCluster, nodes: readonly string[]): string {
  const uuid = cluster.uuid();
  const topology = {
    node: { explicit: { allowedNodes: nodes, preferredNodes: [] } },
    pool: null,
  };
  const request = volumeRequest(uuid, { replicaCount: nodes.length, topology });
  cluster.run((state, uuids) => createVolume(state, request, uuids));
  cluster.carryOut();
  return uuid;
}

function publish(cluster: PlannedCluster, uuid: string, nodeId: string): void {
  const request = {
    uuid,
    publishContext: {},
    nodeId,
    reuseExisting: false,
    republish: false,
    frontendNode: null,
  };
  cluster.run((state, uuids) => publishVolume(state, request, uuids));
  cluster.carryOut();
}

describe("cordons", () => {
  test("are set once per label and taken away again", () => {
    const cluster = PlannedCluster.ofNodes(1);
    const node = () => cluster.stored.nodes.get("node-1")!;
    const { events } = cluster.run((state) => cordonNode(state, "node-1", "repair"));
    expect(events).toHaveLength(1);
    expect(node().cordonLabels).toEqual(["repair"]);
    const again = refusal(() => cordonNode(cluster.state(), "node-1", "repair"));
    expect(again.code).toBe("FailedPrecondition");
    cluster.run((state) => cordonNode(state, "node-1", "audit"));
    cluster.run((state) => uncordonNode(state, "node-1", "repair"));
    expect(node().cordonLabels).toEqual(["audit"]);
    const absent = refusal(() => uncordonNode(cluster.state(), "node-1", "repair"));
    expect(absent.code).toBe("FailedPrecondition");
    expect(absent.remedy).toContain("audit");
    expect(refusal(() => cordonNode(cluster.state(), "nobody", "x")).code).toBe("NotFound");
    expect(refusal(() => cordonNode(cluster.state(), "node-1", "")).code).toBe("InvalidArgument");
  });

  test("are bounded", () => {
    const cluster = PlannedCluster.ofNodes(1);
    const cordonLabels = Array.from({ length: CORDON_LABELS_MAX }, (_, n) => `c${n}`);
    cluster.edit("nodes", "node-1", { cordonLabels });
    const error = refusal(() => cordonNode(cluster.state(), "node-1", "one-more"));
    expect(error.code).toBe("ResourceExhausted");
  });
});

describe("a drain", () => {
  const drain = (cluster: PlannedCluster, label: string, evacuate = false) =>
    cluster.run((state) => drainNode(state, { nodeId: "node-1", label, evacuate }));

  test("begins, is confirmed, extends, and ends with its last label", () => {
    const cluster = PlannedCluster.ofNodes(1);
    const node = () => cluster.stored.nodes.get("node-1")!;
    drain(cluster, "upgrade");
    const begun = { drainLabels: ["upgrade"], drainPhase: "draining", evacuate: false } as const;
    expect(node()).toMatchObject(begun);
    expect(drain(cluster, "upgrade")).toEqual(nothing);
    cluster.edit("nodes", "node-1", { drainPhase: "drained" });
    drain(cluster, "upgrade", true);
    expect(node()).toMatchObject({ ...begun, evacuate: true });
    expect(drain(cluster, "upgrade")).toEqual(nothing);
    drain(cluster, "second");
    cluster.run((state) => uncordonNode(state, "node-1", "upgrade"));
    expect(node()).toMatchObject({ drainLabels: ["second"], drainPhase: "draining" });
    cluster.run((state) => uncordonNode(state, "node-1", "second"));
    expect(node()).toMatchObject({ drainLabels: [], drainPhase: "none", evacuate: false });
  });

  test("has labels of its own", () => {
    const cluster = PlannedCluster.ofNodes(1);
    cluster.run((state) => cordonNode(state, "node-1", "x"));
    expect(refusal(() => drain(cluster, "x")).code).toBe("FailedPrecondition");
    drain(cluster, "y");
    expect(refusal(() => cordonNode(cluster.state(), "node-1", "y")).code).toBe(
      "FailedPrecondition",
    );
  });
});

describe("labels", () => {
  for (const what of ["node", "pool"] as const) {
    const set = what === "node" ? labelNode : labelPool;
    const unset = what === "node" ? unlabelNode : unlabelPool;
    const id = `${what}-1`;

    test(`of a ${what}: the same value is there already, another needs overwrite`, () => {
      const cluster = PlannedCluster.ofNodes(1);
      const labels = () => cluster.stored[`${what}s`].get(id)!.labels;
      cluster.run((state) => set(state, id, "openebs.io/zone", "a", false));
      const code = (value: string, overwrite: boolean) =>
        refusal(() => set(cluster.state(), id, "openebs.io/zone", value, overwrite)).code;
      expect(code("a", false)).toBe("AlreadyExists");
      expect(code("a", true)).toBe("AlreadyExists");
      expect(code("b", false)).toBe("FailedPrecondition");
      cluster.run((state) => set(state, id, "openebs.io/zone", "b", true));
      expect(labels()).toEqual({ "openebs.io/zone": "b" });
      cluster.run((state) => unset(state, id, "openebs.io/zone"));
      expect(labels()).toEqual({});
      const gone = refusal(() => unset(cluster.state(), id, "openebs.io/zone"));
      expect(gone.code).toBe("FailedPrecondition");
      expect(refusal(() => set(cluster.state(), "nobody", "a", "b", false)).code).toBe("NotFound");
      expect(refusal(() => unset(cluster.state(), "nobody", "a")).code).toBe("NotFound");
    });

    test(`of a ${what}: 63 characters, letters and digits at the ends, one slash in the key`, () => {
      const cluster = PlannedCluster.ofNodes(1);
      const long = "x".repeat(63);
      for (const [key, value] of [
        [long, long],
        [`${long}/${long}`, "1"],
        ["a-b_c.d", "A-b_C.9"],
        ["k", "v"],
      ] as const) {
        expect(() => set(cluster.state(), id, key, value, false)).not.toThrow();
      }
      for (const [key, value] of [
        [`${long}x`, "v"],
        ["k", `${long}x`],
        ["", "v"],
        ["k", ""],
        ["-k", "v"],
        ["k-", "v"],
        ["k", ".v"],
        ["k", "v_"],
        ["a/b/c", "v"],
        ["/b", "v"],
        ["a b", "v"],
        ["k", "ü"],
      ] as const) {
        const error = refusal(() => set(cluster.state(), id, key, value, false));
        expect([key, value, error.code]).toEqual([key, value, "InvalidArgument"]);
      }
    });

    test(`of a ${what} are bounded`, () => {
      const cluster = PlannedCluster.ofNodes(1);
      const full = Object.fromEntries(Array.from({ length: LABELS_MAX }, (_, n) => [`k${n}`, "v"]));
      cluster.edit(`${what}s`, id, { labels: full });
      expect(refusal(() => set(cluster.state(), id, "new", "v", false)).code).toBe(
        "InvalidArgument",
      );
      expect(() => set(cluster.state(), id, "k0", "w", true)).not.toThrow();
    });
  }
});

describe("creation of a pool", () => {
  const ask = (changes: Partial<CreatePoolRequest> = {}): CreatePoolRequest => ({
    nodeId: "node-1",
    poolId: "fresh",
    disks: ["/dev/sdb"],
    labels: {},
    clusterSizeBytes: null,
    force: false,
    ...changes,
  });

  test("records it as Creating with an identity of its own", () => {
    const cluster = PlannedCluster.ofNodes(1);
    const uuids = cluster.uuids();
    const request = ask({ labels: { a: "b" }, clusterSizeBytes: 1 << 20, force: true });
    cluster.put(...createPool(cluster.state(), request, uuids).changes);
    expect(cluster.stored.pools.get("fresh")).toMatchObject({
      uuid: uuids[0]!,
      nodeId: "node-1",
      disks: ["/dev/sdb"],
      labels: { a: "b" },
      status: "Creating",
      clusterSizeBytes: 1 << 20,
      force: true,
      cordoned: false,
    });
    expect(createPool(cluster.state(), request, [])).toEqual(nothing);
    expect(createPool(cluster.state(), ask({ labels: { a: "b" } }), [])).toEqual(nothing);
    cluster.carryOut();
    expect(createPool(cluster.state(), request, [])).toEqual(nothing);
    for (const changes of [
      { disks: ["/dev/sdc"] },
      { labels: {} },
      { nodeId: "node-2" },
      { clusterSizeBytes: 1 << 21 },
    ]) {
      const error = refusal(() => createPool(cluster.state(), { ...request, ...changes }, []));
      expect(error.code).toBe("Conflict");
      expect(error.message).toContain(Object.keys(changes)[0]!);
    }
  });

  test("takes a disk that no other pool of the node has, however it is spelt", () => {
    const cluster = PlannedCluster.ofNodes(2);
    const make = (changes: Partial<CreatePoolRequest>) =>
      cluster.run((state, uuids) => createPool(state, ask(changes), uuids));
    make({});
    for (const disk of ["/dev/sdb", "uring:///dev/sdb", "aio:///dev/sdb?blk_size=512"]) {
      const error = refusal(() => make({ poolId: "other", disks: [disk] }));
      expect(error.code).toBe("InUse");
    }
    make({ poolId: "elsewhere", nodeId: "node-2" });
    expect(cluster.stored.pools.has("elsewhere")).toBe(true);
  });

  test("needs a node that answers, one disk, well-formed names", () => {
    const cluster = PlannedCluster.ofNodes(1);
    const code = (changes: Partial<CreatePoolRequest>) =>
      refusal(() => createPool(cluster.state(), ask(changes), cluster.uuids())).code;
    expect(code({ nodeId: "nobody" })).toBe("FailedPrecondition");
    expect(code({ disks: [] })).toBe("InvalidArgument");
    expect(code({ disks: ["/a", "/b"] })).toBe("InvalidArgument");
    expect(code({ poolId: "a b" })).toBe("InvalidArgument");
    expect(code({ labels: { "a b": "c" } })).toBe("InvalidArgument");
    expect(code({ clusterSizeBytes: 100 })).toBe("InvalidArgument");
    expect(code({ clusterSizeBytes: 3 << 20 })).toBe("InvalidArgument");
    cluster.setNode("node-1", "Offline");
    expect(code({})).toBe("FailedPrecondition");
  });
});

describe("destruction of a pool", () => {
  test("goes through when it is empty and its node answers", () => {
    const cluster = PlannedCluster.ofNodes(2);
    const destroy = (nodeId: string | null = null) =>
      cluster.run((state) => destroyPool(state, "pool-1", nodeId, gently));
    expect(refusal(() => destroy("node-2")).code).toBe("NotFound");
    cluster.setNode("node-1", "Offline");
    expect(refusal(() => destroy()).code).toBe("FailedPrecondition");
    cluster.setNode("node-1", "Online");
    const uuid = volumeOn(cluster, ["node-1"]);
    const used = refusal(() => destroy());
    expect(used.code).toBe("InUse");
    expect(used.message).toContain("holds 1 replica and 0 snapshots");
    cluster.put(
      { table: "volumes", remove: uuid },
      { table: "replicas", remove: [...cluster.stored.replicasOfVolume.get(uuid)!][0]! },
    );
    const engine = cluster.engines.get("node-1")!.pools.get("pool-1")!;
    engine.state = "faulted";
    expect(refusal(() => destroy()).remedy).toContain("trilith delete pool pool-1 --purge");
    engine.state = "online";
    destroy("node-1");
    expect(cluster.stored.pools.get("pool-1")?.status).toBe("Deleting");
    expect(destroy()).toEqual(nothing);
    cluster.carryOut();
    expect(refusal(() => destroy()).code).toBe("NotFound");
  });

  test("that was never made on a node that is away just forgets it", () => {
    const cluster = PlannedCluster.ofNodes(1);
    cluster.edit("pools", "pool-1", { status: "Creating" });
    cluster.setNode("node-1", "Offline");
    cluster.run((state) => destroyPool(state, "pool-1", null, gently));
    expect(cluster.stored.pools.size).toBe(0);
  });

  test("by force forgets it with what is in it, once the losses are accepted", () => {
    const cluster = PlannedCluster.ofNodes(3);
    const lost = volumeOn(cluster, ["node-1"]);
    const degraded = volumeOn(cluster, ["node-1", "node-2"]);
    const snapshot = cluster.uuid();
    cluster.run((state, uuids) => createSnapshot(state, lost, snapshot, uuids));
    const kept = cluster.uuid();
    cluster.run((state, uuids) => createSnapshot(state, degraded, kept, uuids));
    cluster.carryOut();
    publish(cluster, lost, "node-3");
    const impact = poolRemovalImpact(cluster.state(), "pool-1");
    expect(impact).toMatchObject({
      volumesLost: [lost],
      volumesDegraded: [degraded],
      snapshotsLost: [snapshot],
    });
    expect(impact.replicasLost).toHaveLength(2);

    const destroy = (force: typeof purge) =>
      cluster.run((state) => destroyPool(state, "pool-1", null, force));
    expect(refusal(() => destroy(purge)).code).toBe("InUse"); // Its node has it: nothing to force.
    // It is open and has failed: nobody can read it, and its losses are to be accepted.
    cluster.engines.get("node-1")!.pools.get("pool-1")!.state = "faulted";
    expect(refusal(() => destroy(purge)).code).toBe("FailedPrecondition");
    // Its disk is lost, or cannot be imported: its node answers, and will never have it again.
    cluster.engines.get("node-1")!.pools.delete("pool-1");
    expect(refusal(() => destroy(gently)).remedy).toContain("trilith delete pool pool-1 --purge");
    expect(refusal(() => destroy(purge)).code).toBe("FailedPrecondition");
    cluster.setNode("node-1", "Offline");
    const error = refusal(() => destroy(purge));
    expect(error.code).toBe("FailedPrecondition");
    expect(error.message).toContain(lost);
    expect(error.message).toContain(snapshot);
    expect(error.remedy).toContain("--accept-volume-loss --accept-snapshot-loss");
    const half = refusal(() => destroy({ ...purge, acceptVolumeLoss: true }));
    expect(half.message).not.toContain(lost);
    destroy(purgeAll);
    expect(cluster.stored.pools.has("pool-1")).toBe(false);
    expect(cluster.stored.snapshots.has(snapshot)).toBe(false);
    expect(cluster.stored.snapshots.get(kept)?.replicas).toHaveLength(1);
    expect(cluster.stored.volumes.get(lost)).toMatchObject({ status: "Deleting", target: null });
    expect(cluster.stored.replicasOfVolume.get(degraded)?.size).toBe(1);
    cluster.carryOut();
    expect(cluster.stored.volumes.has(lost)).toBe(false);
  });

  test("an unhealthy replica elsewhere does not save a volume", () => {
    const cluster = PlannedCluster.ofNodes(2);
    const uuid = volumeOn(cluster, ["node-1", "node-2"]);
    for (const id of cluster.stored.replicasOfVolume.get(uuid)!) {
      const { nodeId } = cluster.stored.replicas.get(id)!;
      if (nodeId === "node-2") cluster.edit("replicas", id, { healthy: false });
    }
    expect(poolRemovalImpact(cluster.state(), "pool-1").volumesLost).toEqual([uuid]);
    expect(poolRemovalImpact(cluster.state(), "pool-2").volumesDegraded).toEqual([uuid]);
  });
});

describe("a pool", () => {
  test("is cordoned and uncordoned, each once", () => {
    const cluster = PlannedCluster.ofNodes(1);
    const cordon = (on: boolean) => cluster.run((state) => cordonPool(state, "pool-1", on));
    expect(refusal(() => cordon(false)).code).toBe("FailedPrecondition");
    cordon(true);
    expect(cluster.stored.pools.get("pool-1")?.cordoned).toBe(true);
    expect(refusal(() => cordon(true)).code).toBe("FailedPrecondition");
    cordon(false);
    expect(cluster.stored.pools.get("pool-1")?.cordoned).toBe(false);
  });

  test("is expanded by its node, when that answers", () => {
    const cluster = PlannedCluster.ofNodes(1);
    expect(checkExpandPool(cluster.state(), "pool-1")).toBe("node-1");
    cluster.setNode("node-1", "Offline");
    expect(refusal(() => checkExpandPool(cluster.state(), "pool-1")).code).toBe("Unavailable");
    cluster.edit("pools", "pool-1", { status: "Creating" });
    expect(refusal(() => checkExpandPool(cluster.state(), "pool-1")).code).toBe("Aborted");
    expect(refusal(() => checkExpandPool(cluster.state(), "nowhere")).code).toBe("NotFound");
  });
});

describe("removal of a node", () => {
  const drop = (cluster: PlannedCluster, force = gently) =>
    cluster.run((state) => removeNode(state, "node-1", force));

  test("that holds and serves nothing", () => {
    const cluster = PlannedCluster.ofNodes(2);
    expect(refusal(() => drop(cluster)).code).toBe("FailedPrecondition");
    expect(refusal(() => drop(cluster, purgeAll)).message).toContain("Online");
    cluster.run((state) => destroyPool(state, "pool-1", null, gently));
    cluster.carryOut();
    drop(cluster);
    expect(cluster.stored.nodes.has("node-1")).toBe(false);
    expect(refusal(() => drop(cluster)).code).toBe("NotFound");
  });

  test("by force: pools, targets and replicas are forgotten, volumes it served are moved", () => {
    const cluster = PlannedCluster.ofNodes(3);
    const lost = volumeOn(cluster, ["node-1"]);
    const degraded = volumeOn(cluster, ["node-1", "node-2"]);
    const served = volumeOn(cluster, ["node-2", "node-3"]);
    for (const uuid of [lost, degraded, served]) publish(cluster, uuid, "node-1");
    cluster.put({ table: "nexuses", put: nexusRecord(cluster.uuid(), { nodeId: "node-1" }) });
    cluster.setNode("node-1", "Offline");
    const impact = nodeRemovalImpact(cluster.state(), "node-1");
    expect(impact).toMatchObject({ volumesLost: [lost], volumesDegraded: [degraded] });
    expect(impact.volumesMoved).toEqual([degraded, served].sort());
    expect(impact.volumesUnpublished).toEqual([]);
    expect(refusal(() => drop(cluster)).code).toBe("FailedPrecondition");
    expect(refusal(() => drop(cluster, purge)).message).toContain(lost);
    drop(cluster, purgeAll);
    expect(cluster.stored.nodes.size).toBe(2);
    expect(cluster.stored.pools.size).toBe(2);
    // What it served is moved by what comes next, as from any node that is away.
    expect([...cluster.stored.nexuses.values()].map(({ volumeUuid }) => volumeUuid).sort()).toEqual(
      [degraded, served].sort(),
    );
    for (const uuid of [degraded, served]) {
      const { work } = planFor(cluster.state(), `volume/${uuid}`);
      const moved = work!.steps.flatMap((step) => (step.kind === "store" ? step.changes : []));
      const target = moved.find((one) => one.table === "volumes" && "put" in one);
      expect(target).toMatchObject({ put: { status: "Created", target: {} } });
      const { nodeId } = (target as { put: { target: { nodeId: string } } }).put.target;
      expect(["node-2", "node-3"]).toContain(nodeId);
    }
    cluster.carryOut();
    expect(cluster.stored.volumes.has(lost)).toBe(false);
    const size = (uuid: string) => cluster.stored.replicasOfVolume.get(uuid)?.size;
    expect([size(degraded), size(served)]).toEqual([1, 2]);
  });
});

test("a node that is forgotten where targets do not move leaves its volumes unpublished", () => {
  const cluster = PlannedCluster.ofNodes(3);
  cluster.settings = { ...cluster.settings, switchOver: false };
  const served = volumeOn(cluster, ["node-2", "node-3"]);
  publish(cluster, served, "node-1");
  cluster.setNode("node-1", "Offline");
  const impact = nodeRemovalImpact(cluster.state(), "node-1");
  expect(impact).toMatchObject({ volumesMoved: [], volumesUnpublished: [served] });
  cluster.run((state) => removeNode(state, "node-1", purge));
  expect(cluster.stored.nexuses.size).toBe(0);
  expect(cluster.stored.volumes.get(served)).toMatchObject({ status: "Created", target: null });
  for (const id of cluster.stored.replicasOfVolume.get(served)!) {
    expect(cluster.stored.replicas.get(id)?.allowedHosts).toBeNull();
  }
});

describe("app nodes", () => {
  test("register, register again, and leave", () => {
    const cluster = PlannedCluster.ofNodes(1);
    const register = (endpoint: string, labels = {}) =>
      cluster.run((state) => registerAppNode(state, "app-1", endpoint, labels));
    register("10.0.0.9:10199");
    expect(register("10.0.0.9:10199")).toEqual(nothing);
    register("10.0.0.8:10199", { a: "b" });
    expect(cluster.stored.appNodes.get("app-1")).toMatchObject({
      endpoint: "10.0.0.8:10199",
      labels: { a: "b" },
    });
    expect(refusal(() => register("")).code).toBe("InvalidArgument");
    cluster.run((state) => deregisterAppNode(state, "app-1"));
    expect(refusal(() => deregisterAppNode(cluster.state(), "app-1")).code).toBe("NotFound");
  });
});

describe("watches", () => {
  test("are of a volume and a callback, once, and bounded", () => {
    const cluster = PlannedCluster.ofNodes(1, 100 * GiB);
    const uuid = volumeOn(cluster, ["node-1"]);
    const url = "https://example.test/changed";
    const add = (callback: string) => cluster.run((state) => addWatch(state, uuid, callback));
    add(url);
    expect(add(url)).toEqual(nothing);
    expect(refusal(() => add("ftp://x")).code).toBe("InvalidArgument");
    expect(refusal(() => addWatch(cluster.state(), cluster.uuid(), url)).code).toBe("NotFound");
    for (let n = 1; n < WATCHES_MAX; n += 1) add(`${url}/${n}`);
    expect(refusal(() => add(`${url}/more`)).code).toBe("ResourceExhausted");
    cluster.run((state) => removeWatch(state, uuid, url));
    expect(refusal(() => removeWatch(cluster.state(), uuid, url)).code).toBe("NotFound");
  });
});

describe("what a drained node still has", () => {
  const left = (cluster: PlannedCluster, id = "node-1") =>
    drainRemainder(cluster.state(), cluster.stored.nodes.get(id)!);

  test("is told with what it waits for, and whether that comes by itself", () => {
    const cluster = PlannedCluster.ofNodes(3);
    const served = volumeOn(cluster, ["node-1", "node-2"]);
    publish(cluster, served, "node-1");
    expect(left(cluster)).toEqual([]);
    cluster.run((state) => drainNode(state, { nodeId: "node-1", label: "x", evacuate: true }));
    expect(left(cluster)).toMatchObject([
      { kind: "target", volumeUuid: served, isStuck: false },
      // The volume is allowed on these two nodes only.
      { kind: "replica", volumeUuid: served, isStuck: true },
    ]);
    cluster.edit("volumes", served, { topology: null });
    expect(left(cluster)[1]).toMatchObject({ kind: "replica", isStuck: false });
    // Nowhere to go: the others are cordoned, or have a replica already.
    for (const other of ["node-2", "node-3"]) {
      cluster.run((state) => cordonNode(state, other, "busy"));
    }
    const [target, replica] = left(cluster);
    expect(target).toMatchObject({ isStuck: true });
    expect(target!.waitsFor).toContain("node-2 is cordoned (busy)");
    expect(replica).toMatchObject({ isStuck: true });
    expect(replica!.waitsFor).toContain("a place for another");
  });

  test("is no target that stays with its only replica", () => {
    const cluster = PlannedCluster.ofNodes(2);
    const single = volumeOn(cluster, ["node-1"]);
    publish(cluster, single, "node-1");
    cluster.run((state) => drainNode(state, { nodeId: "node-1", label: "x", evacuate: false }));
    expect(left(cluster)).toEqual([]);
  });
});
