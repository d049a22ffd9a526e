import { describe, expect, test } from "bun:test";
import {
  createSnapshot,
  createVolume,
  destroySnapshot,
  moveReplica,
  publishVolume,
  resizeVolume,
  setMaxSnapshots,
  setReplicaCount,
} from "../../../../../src/control/planner/decide/index.ts";
import { replicaToRemove } from "../../../../../src/control/planner/placement/replica-choice.ts";
import { replicasOf, targetNexus } from "../../../../../src/control/planner/status.ts";
import {
  GiB,
  MiB,
  PlannedCluster,
  refusal,
  volumeRequest,
} from "../../../../support/planned-cluster.ts";

const nothing = { changes: [], events: [] };

function withVolume(replicaCount: number, changes = {}, nodes = 4) {
  const cluster = PlannedCluster.ofNodes(nodes, 10 * GiB);
  const uuid = cluster.uuid();
  const request = volumeRequest(uuid, { replicaCount, ...changes });
  cluster.run((state, uuids) => createVolume(state, request, uuids));
  cluster.carryOut();
  const volume = () => cluster.stored.volumes.get(uuid)!;
  const replicas = () => replicasOf(cluster.state(), uuid);
  const publish = (nodeId: string) => {
    const ask = {
      uuid,
      publishContext: {},
      nodeId,
      reuseExisting: false,
      republish: false,
      frontendNode: null,
    };
    cluster.run((state, uuids) => publishVolume(state, ask, uuids));
    cluster.carryOut();
  };
  const scale = (count: number, victim: string | null = null) =>
    cluster.run((state, uuids) => setReplicaCount(state, uuid, count, victim, uuids));
  return { cluster, uuid, volume, replicas, publish, scale };
}

describe("one more replica", () => {
  test("is placed on another node, and served to the nexus's node", () => {
    const { cluster, volume, replicas, publish, scale } = withVolume(2);
    publish("node-1");
    scale(3);
    expect(volume().replicaCount).toBe(3);
    const [added] = replicas().filter(({ status }) => status === "Creating");
    expect(added).toMatchObject({ healthy: false, nodeId: "node-3" });
    expect(added?.allowedHosts).toEqual(["nqn.2019-05.io.openebs:node-name:node-1"]);
    expect(new Set(replicas().map(({ nodeId }) => nodeId)).size).toBe(3);
    cluster.carryOut();
    const again = refusal(() => scale(4));
    expect(again.message).toContain("Degraded");
  });

  test("of a volume that was never written holds everything at once", () => {
    const { cluster, replicas, scale } = withVolume(1);
    scale(2);
    cluster.carryOut();
    expect(replicas().every(({ healthy }) => healthy)).toBe(true);
    scale(3);
    expect(replicas()).toHaveLength(3);
  });

  test("needs an Online volume, a pool, and goes one by one", () => {
    const { cluster, replicas, scale } = withVolume(2, {}, 2);
    expect(refusal(() => scale(2)).code).toBe("FailedPrecondition");
    expect(refusal(() => scale(4)).code).toBe("FailedPrecondition");
    expect(refusal(() => scale(0)).code).toBe("InvalidArgument");
    expect(refusal(() => scale(3, replicas()[0]!.uuid)).code).toBe("InvalidArgument");
    const full = refusal(() => scale(3));
    expect(full.code).toBe("ResourceExhausted");
    expect(full.message).toContain("1 needed, 0 found");
    expect(full.message).toContain("pool-1: node node-1 has a replica of the volume");
    cluster.setNode("node-2", "Offline");
    expect(refusal(() => scale(3)).code).toBe("FailedPrecondition");
  });

  test("keeps a replica that was about to be given up", () => {
    const { replicas, scale, volume } = withVolume(3);
    scale(2);
    expect(volume().victimReplica).not.toBeNull();
    scale(3);
    expect(volume().victimReplica).toBeNull();
    expect(replicas()).toHaveLength(3);
  });
});

describe("one less replica", () => {
  test("records which goes: the one named, else the planner's choice", () => {
    const { cluster, uuid, volume, replicas, publish, scale } = withVolume(3);
    publish("node-1");
    const [local] = replicas().filter(({ nodeId }) => nodeId === "node-1");
    scale(2, local!.uuid);
    expect(volume()).toMatchObject({ replicaCount: 2, victimReplica: local!.uuid });
    expect(replicaToRemove(cluster.state(), volume())?.uuid).toBe(local!.uuid);
    const other = withVolume(3);
    other.publish("node-1");
    other.scale(2);
    const victim = other.cluster.stored.replicas.get(other.volume().victimReplica!);
    expect(victim?.nodeId).not.toBe("node-1");
    expect(refusal(() => scale(1, cluster.uuid())).code).toBe("NotFound");
    expect(cluster.stored.volumes.get(uuid)?.replicaCount).toBe(2);
  });

  test("never the last healthy one that can be reached", () => {
    const { cluster, replicas, scale } = withVolume(2);
    const [a, b] = replicas();
    cluster.edit("replicas", b!.uuid, { healthy: false });
    const error = refusal(() => scale(1, a!.uuid));
    expect(error.code).toBe("FailedPrecondition");
    expect(error.message).toContain("no healthy one is left");
    scale(1);
    expect(cluster.stored.volumes.get(a!.volumeUuid!)?.victimReplica).toBe(b!.uuid);
    expect(refusal(() => scale(0)).code).toBe("InvalidArgument");
  });

  test("of a volume that lacks one already, none goes", () => {
    const { cluster, replicas, volume, scale } = withVolume(2);
    cluster.put({ table: "replicas", remove: replicas()[1]!.uuid });
    scale(1);
    expect(volume()).toMatchObject({ replicaCount: 1, victimReplica: null });
  });

  test("of an affinity group keeps the remaining single replicas apart", () => {
    const { cluster, uuid, replicas, volume, scale } = withVolume(2, { affinityGroup: "db" }, 2);
    const other = cluster.uuid();
    const request = volumeRequest(other, { affinityGroup: "db", replicaCount: 1 });
    cluster.run((state, uuids) => createVolume(state, request, uuids));
    cluster.carryOut();
    const [taken] = replicasOf(cluster.state(), other);
    const clash = replicas().find(({ nodeId }) => nodeId !== taken!.nodeId)!;
    expect(refusal(() => scale(1, clash.uuid)).message).toContain("affinity group db");
    scale(1);
    const victim = cluster.stored.replicas.get(volume().victimReplica!)!;
    expect(victim.nodeId).toBe(taken!.nodeId);
    expect(victim.volumeUuid).toBe(uuid);
  });
});

describe("the number of snapshots", () => {
  test("is set, confirmed, and not below what is there", () => {
    const { cluster, uuid, volume } = withVolume(1);
    const set = (max: number | null) => cluster.run((state) => setMaxSnapshots(state, uuid, max));
    set(2);
    expect(volume().maxSnapshots).toBe(2);
    expect(set(2)).toEqual(nothing);
    for (let n = 0; n < 2; n += 1) {
      cluster.run((state, uuids) => createSnapshot(state, uuid, cluster.uuid(), uuids));
      cluster.carryOut();
    }
    expect(refusal(() => set(1)).code).toBe("OutOfRange");
    expect(refusal(() => set(1.5)).code).toBe("InvalidArgument");
    const third = refusal(() =>
      createSnapshot(cluster.state(), uuid, cluster.uuid(), cluster.uuids()),
    );
    expect(third.code).toBe("OutOfRange");
    set(null);
    cluster.run((state, uuids) => createSnapshot(state, uuid, cluster.uuid(), uuids));
    expect(cluster.stored.snapshots.size).toBe(3);
  });
});

describe("size", () => {
  test("grows: volume, replicas, nexus", () => {
    const { cluster, uuid, volume, replicas, publish } = withVolume(2);
    publish("node-1");
    cluster.run((state) => resizeVolume(state, uuid, 2 * GiB + 1));
    expect(volume().sizeBytes).toBe(2 * GiB + 1);
    expect(targetNexus(cluster.state(), volume())?.sizeBytes).toBe(2 * GiB + 4096);
    for (const { sizeBytes } of replicas()) expect(sizeBytes).toBe(2 * GiB + 1);
  });

  test("does not shrink or stay", () => {
    const { cluster, uuid } = withVolume(1);
    for (const size of [GiB, GiB - 1]) {
      const error = refusal(() => resizeVolume(cluster.state(), uuid, size));
      expect(error.code).toBe("NotAcceptable");
    }
    expect(refusal(() => resizeVolume(cluster.state(), uuid, 0)).code).toBe("InvalidArgument");
  });

  test("needs room in every pool, and says which has none", () => {
    const { cluster, uuid, replicas } = withVolume(2);
    const [first] = replicas();
    cluster.engines.get(first!.nodeId)!.pools.get(first!.poolId)!.capacityBytes = 3 * GiB;
    const error = refusal(() => resizeVolume(cluster.state(), uuid, 4 * GiB));
    expect(error.code).toBe("ResourceExhausted");
    expect(error.message).toContain(`${first!.poolId}: no room`);
    expect(error.message).not.toContain(replicas()[1]!.poolId);
  });

  test("needs every replica there and up to date", () => {
    const { cluster, uuid, replicas } = withVolume(2);
    cluster.edit("replicas", replicas()[0]!.uuid, { healthy: false });
    const error = refusal(() => resizeVolume(cluster.state(), uuid, 2 * GiB));
    expect(error.code).toBe("FailedPrecondition");
    expect(error.message).toContain(replicas()[0]!.uuid);
  });

  test("two volumes cannot grow into the same room", () => {
    const { cluster, uuid } = withVolume(1, { sizeBytes: 4 * GiB }, 1);
    const other = cluster.uuid();
    const request = volumeRequest(other, { sizeBytes: 4 * GiB });
    cluster.run((state, uuids) => createVolume(state, request, uuids));
    cluster.carryOut();
    cluster.run((state) => resizeVolume(state, uuid, 6 * GiB));
    const error = refusal(() => resizeVolume(cluster.state(), other, 6 * GiB));
    expect(error.code).toBe("ResourceExhausted");
  });
});

describe("a move of a replica", () => {
  test("builds another first, then gives the old one up", () => {
    const { cluster, uuid, volume, replicas, publish } = withVolume(2);
    publish("node-1");
    const [moved] = replicas().filter(({ nodeId }) => nodeId === "node-2");
    cluster.run((state, uuids) => moveReplica(state, moved!.uuid, "pool-4", uuids));
    expect(volume()).toMatchObject({ replicaCount: 2, victimReplica: moved!.uuid });
    const [successor] = replicas().filter(({ status }) => status === "Creating");
    expect(successor).toMatchObject({ poolId: "pool-4", healthy: false });
    cluster.carryOut();
    expect(replicaToRemove(cluster.state(), volume())).toBeNull();
    cluster.rebuild(uuid);
    expect(replicaToRemove(cluster.state(), volume())?.uuid).toBe(moved!.uuid);
  });

  test("is confirmed when asked again, and one at a time", () => {
    const { cluster, replicas } = withVolume(2);
    const [a, b] = replicas();
    const move = (uuid: string, pool: string | null) =>
      cluster.run((state, uuids) => moveReplica(state, uuid, pool, uuids));
    move(a!.uuid, "pool-3");
    expect(move(a!.uuid, "pool-3")).toEqual(nothing);
    expect(move(a!.uuid, null)).toEqual(nothing);
    expect(refusal(() => move(a!.uuid, "pool-4")).code).toBe("InUse");
    expect(refusal(() => move(b!.uuid, null)).code).toBe("InUse");
  });

  test("may stay on its node, never go to that of another replica", () => {
    const { cluster, replicas, scale } = withVolume(2);
    const [a, b] = replicas();
    cluster.addPool("pool-x", a!.nodeId, 10 * GiB);
    const move = (pool: string) =>
      cluster.run((state, uuids) => moveReplica(state, a!.uuid, pool, uuids));
    expect(refusal(() => move(a!.poolId)).code).toBe("InvalidArgument");
    expect(refusal(() => move("nowhere")).code).toBe("NotFound");
    const error = refusal(() => move(b!.poolId));
    expect(error.code).toBe("ResourceExhausted");
    expect(error.message).toContain(`${b!.poolId}: node ${b!.nodeId} has a replica`);
    move("pool-x");
    expect(replicas().map(({ poolId }) => poolId)).toContain("pool-x");
    // Another count now could keep both on the node.
    for (const count of [1, 3]) expect(refusal(() => scale(count)).message).toContain("is moving");
  });

  test("needs a source", () => {
    const { cluster, replicas, publish } = withVolume(1);
    publish("node-1");
    const [only] = replicas();
    cluster.edit("replicas", only!.uuid, { healthy: false });
    const error = refusal(() => moveReplica(cluster.state(), only!.uuid, null, cluster.uuids()));
    expect(error.code).toBe("FailedPrecondition");
    const unknown = refusal(() =>
      moveReplica(cluster.state(), cluster.uuid(), null, cluster.uuids()),
    );
    expect(unknown.code).toBe("NotFound");
  });
});

describe("a snapshot", () => {
  test("is recorded with one of each replica, and makes the volume thin from then on", () => {
    const { cluster, uuid, volume, replicas } = withVolume(2);
    const snapshot = cluster.uuid();
    cluster.run((state, uuids) => createSnapshot(state, uuid, snapshot, uuids));
    const record = cluster.stored.snapshots.get(snapshot)!;
    expect(record).toMatchObject({ volumeUuid: uuid, sizeBytes: GiB, status: "Creating" });
    expect(record).toMatchObject({ txnId: 1, takenAtMs: null });
    const sources = record.replicas.map(({ sourceUuid }) => sourceUuid).sort();
    expect(sources).toEqual(replicas().map((replica) => replica.uuid));
    expect(volume().asThin).toBe(true);
    const again = () => createSnapshot(cluster.state(), uuid, snapshot, cluster.uuids());
    expect(again()).toEqual(nothing);
    cluster.carryOut();
    expect(again()).toEqual(nothing);
  });

  test("needs every replica healthy and there, and room", () => {
    const { cluster, uuid, replicas } = withVolume(2);
    const take = () => createSnapshot(cluster.state(), uuid, cluster.uuid(), cluster.uuids());
    const [first] = replicas();
    const pool = cluster.engines.get(first!.nodeId)!.pools.get(first!.poolId)!;
    pool.capacityBytes = GiB + 100 * MiB;
    const full = refusal(take);
    expect(full.code).toBe("ResourceExhausted");
    expect(full.message).toContain(`${first!.poolId}: no room`);
    cluster.edit("replicas", first!.uuid, { healthy: false });
    expect(refusal(take).code).toBe("FailedPrecondition");
  });

  test("of replicas that may differ is not taken before a nexus has made them equal", () => {
    const { cluster, uuid, publish } = withVolume(2);
    const take = () => createSnapshot(cluster.state(), uuid, cluster.uuid(), cluster.uuids());
    cluster.edit("volumes", uuid, { cleanShutdown: false });
    const error = refusal(take);
    expect(error.code).toBe("FailedPrecondition");
    expect(error.message).toContain("not closed in order");
    publish("node-1");
    expect(take().changes).not.toEqual([]);
  });

  test("has an id of its own, of a volume that is there", () => {
    const { cluster, uuid } = withVolume(1);
    const other = cluster.uuid();
    const request = volumeRequest(other);
    cluster.run((state, uuids) => createVolume(state, request, uuids));
    cluster.carryOut();
    const snapshot = cluster.uuid();
    cluster.run((state, uuids) => createSnapshot(state, uuid, snapshot, uuids));
    const take = (of: string, as: string) =>
      refusal(() => createSnapshot(cluster.state(), of, as, cluster.uuids())).code;
    expect(take(other, snapshot)).toBe("Conflict");
    expect(take(cluster.uuid(), cluster.uuid())).toBe("NotFound");
    expect(take(uuid, "x")).toBe("InvalidArgument");
  });

  test("goes; again is confirmed; of another volume it is not found", () => {
    const { cluster, uuid } = withVolume(1);
    const snapshot = cluster.uuid();
    cluster.run((state, uuids) => createSnapshot(state, uuid, snapshot, uuids));
    cluster.carryOut();
    const wrong = refusal(() => destroySnapshot(cluster.state(), snapshot, cluster.uuid()));
    expect(wrong.code).toBe("NotFound");
    cluster.run((state) => destroySnapshot(state, snapshot, uuid));
    expect(destroySnapshot(cluster.state(), snapshot, null)).toEqual(nothing);
    const take = () => createSnapshot(cluster.state(), uuid, snapshot, cluster.uuids());
    expect(refusal(take).code).toBe("Deleting");
    cluster.carryOut();
    expect(refusal(() => destroySnapshot(cluster.state(), snapshot, null)).code).toBe("NotFound");
  });
});
