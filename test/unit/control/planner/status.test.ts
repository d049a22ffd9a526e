import { describe, expect, test } from "bun:test";
import { createVolume, publishVolume } from "../../../../src/control/planner/decide/index.ts";
import {
  childOf,
  isReplicaUsable,
  nexusStatus,
  nodeStatus,
  poolStatus,
  replicaStatus,
  replicasOf,
  targetNexus,
  volumeHealth,
  volumeStatus,
  volumeUsage,
} from "../../../../src/control/planner/status.ts";
import { MiB, PlannedCluster, volumeRequest } from "../../../support/planned-cluster.ts";
import { volumeRecord } from "../../../support/store-records.ts";

function withVolume(replicaCount: number, isPublished = false) {
  const cluster = PlannedCluster.ofNodes(3);
  const uuid = cluster.uuid();
  cluster.run((state, uuids) => createVolume(state, volumeRequest(uuid, { replicaCount }), uuids));
  cluster.carryOut();
  if (isPublished) {
    const request = {
      uuid,
      publishContext: {},
      nodeId: "node-1",
      reuseExisting: false,
      republish: false,
      frontendNode: null,
    };
    cluster.run((state, uuids) => publishVolume(state, request, uuids));
    cluster.carryOut();
  }
  const volume = () => cluster.stored.volumes.get(uuid)!;
  const replicas = () => replicasOf(cluster.state(), uuid);
  return { cluster, uuid, volume, replicas };
}

describe("a node", () => {
  test("is what was heard of it, and Unknown when nobody has", () => {
    const cluster = PlannedCluster.ofNodes(1);
    expect(nodeStatus(cluster.state(), "node-1")).toBe("Online");
    cluster.setNode("node-1", "Offline");
    expect(nodeStatus(cluster.state(), "node-1")).toBe("Offline");
    expect(nodeStatus(cluster.state(), "nobody")).toBe("Unknown");
  });
});

describe("a pool", () => {
  test("is Unknown while its node is away, whatever it was before", () => {
    const cluster = PlannedCluster.ofNodes(1);
    const pool = cluster.stored.pools.get("pool-1")!;
    expect(poolStatus(cluster.state(), pool)).toBe("Online");
    cluster.setNode("node-1", "Offline");
    expect(poolStatus(cluster.state(), pool)).toBe("Unknown");
    cluster.setNode("node-1", "Unknown");
    expect(poolStatus(cluster.state(), pool)).toBe("Unknown");
  });

  test("is as its engine says; a disk that is gone is Faulted", () => {
    const cluster = PlannedCluster.ofNodes(1);
    const pool = cluster.stored.pools.get("pool-1")!;
    for (const [state, status] of [
      ["degraded", "Degraded"],
      ["faulted", "Faulted"],
      ["offline", "Faulted"],
    ] as const) {
      cluster.engines.get("node-1")!.pools.get("pool-1")!.state = state;
      expect(poolStatus(cluster.state(), pool)).toBe(status);
    }
  });

  test("that its engine does not have is Faulted, one that is still to be made Unknown", () => {
    const cluster = PlannedCluster.ofNodes(1);
    cluster.engines.get("node-1")!.pools.clear();
    const pool = cluster.stored.pools.get("pool-1")!;
    expect(poolStatus(cluster.state(), pool)).toBe("Faulted");
    expect(poolStatus(cluster.state(), { ...pool, status: "Creating" })).toBe("Unknown");
  });
});

describe("a replica", () => {
  test("is as well as its pool, Unknown with its node, Faulted when its pool lacks it", () => {
    const { cluster, replicas } = withVolume(1);
    const [replica] = replicas();
    const status = () => replicaStatus(cluster.state(), replica!);
    expect(status()).toBe("Online");
    cluster.engines.get(replica!.nodeId)!.pools.get(replica!.poolId)!.state = "faulted";
    expect(status()).toBe("Faulted");
    cluster.engines.get(replica!.nodeId)!.replicas.clear();
    expect(status()).toBe("Faulted");
    expect(replicaStatus(cluster.state(), { ...replica!, status: "Creating" })).toBe("Unknown");
    cluster.setNode(replica!.nodeId, "Offline");
    expect(status()).toBe("Unknown");
  });

  test("can be used when it holds everything and its pool serves it", () => {
    const { cluster, replicas } = withVolume(1);
    const [replica] = replicas();
    expect(isReplicaUsable(cluster.state(), replica!)).toBe(true);
    expect(isReplicaUsable(cluster.state(), { ...replica!, healthy: false })).toBe(false);
    expect(isReplicaUsable(cluster.state(), { ...replica!, status: "Deleting" })).toBe(false);
    cluster.setNode(replica!.nodeId, "Offline");
    expect(isReplicaUsable(cluster.state(), replica!)).toBe(false);
  });
});

describe("an unpublished volume", () => {
  test("is Online with all its replicas, Degraded with some, Faulted with none that can be reached", () => {
    const { cluster, volume, replicas } = withVolume(2);
    const status = () => volumeStatus(cluster.state(), volume());
    expect(status()).toBe("Online");
    const [first, second] = replicas();
    cluster.setNode(first!.nodeId, "Offline");
    expect(status()).toBe("Degraded");
    cluster.setNode(second!.nodeId, "Offline");
    expect(status()).toBe("Faulted");
  });

  test("sees a dead pool under a replica that is recorded as good", () => {
    const { cluster, volume, replicas } = withVolume(1);
    const [replica] = replicas();
    cluster.engines.get(replica!.nodeId)!.pools.get(replica!.poolId)!.state = "faulted";
    expect(volumeStatus(cluster.state(), volume())).toBe("Faulted");
  });

  test("does not count a replica that lacks data", () => {
    const { cluster, volume, replicas } = withVolume(2);
    cluster.edit("replicas", replicas()[0]!.uuid, { healthy: false });
    expect(volumeStatus(cluster.state(), volume())).toBe("Degraded");
  });

  test("is Unknown as long as a new leader has not heard of the nodes that decide", () => {
    const { cluster, volume, replicas } = withVolume(2);
    const [first, second] = replicas();
    cluster.setNode(first!.nodeId, "Unknown");
    expect(volumeStatus(cluster.state(), volume())).toBe("Unknown");
    cluster.setNode(second!.nodeId, "Offline");
    expect(volumeStatus(cluster.state(), volume())).toBe("Unknown");
    cluster.setNode(first!.nodeId, "Offline");
    expect(volumeStatus(cluster.state(), volume())).toBe("Faulted");
  });

  test("is Unknown while it is being created", () => {
    const cluster = PlannedCluster.ofNodes(1);
    const volume = volumeRecord(cluster.uuid(), { status: "Creating" });
    expect(volumeStatus(cluster.state(), volume)).toBe("Unknown");
  });
});

describe("a published volume", () => {
  test("is what its nexus is", () => {
    const { cluster, volume } = withVolume(2, true);
    const nexus = targetNexus(cluster.state(), volume())!;
    const engine = cluster.engines.get("node-1")!;
    for (const [state, status, nexusIs] of [
      ["online", "Online", "Online"],
      ["degraded", "Degraded", "Degraded"],
      ["faulted", "Faulted", "Faulted"],
      ["shutdown", "Shutdown", "Shutdown"],
      ["shutting-down", "Shutdown", "ShuttingDown"],
      ["init", "Unknown", "Unknown"],
    ] as const) {
      engine.nexuses.set(nexus.uuid, { ...engine.nexuses.get(nexus.uuid)!, state });
      expect(nexusStatus(cluster.state(), nexus)).toBe(nexusIs);
      expect(volumeStatus(cluster.state(), volume())).toBe(status);
    }
    engine.nexuses.clear();
    expect(volumeStatus(cluster.state(), volume())).toBe("Unknown");
    cluster.setNode("node-1", "Offline");
    expect(volumeStatus(cluster.state(), volume())).toBe("Unknown");
  });

  test("is Degraded with another number of children than wanted", () => {
    const { cluster, uuid, volume } = withVolume(2, true);
    expect(volumeStatus(cluster.state(), volume())).toBe("Online");
    cluster.edit("volumes", uuid, { replicaCount: 3 });
    expect(volumeStatus(cluster.state(), volume())).toBe("Degraded");
    cluster.edit("volumes", uuid, { replicaCount: 1 });
    expect(volumeStatus(cluster.state(), volume())).toBe("Degraded");
  });

  test("knows which child each replica is", () => {
    const { cluster, volume, replicas } = withVolume(2, true);
    for (const replica of replicas()) {
      const isLocal = replica.nodeId === "node-1";
      expect(childOf(cluster.state(), volume(), replica.uuid)?.isLocal).toBe(isLocal);
    }
    expect(childOf(cluster.state(), volume(), cluster.uuid())).toBeUndefined();
  });
});

describe("health", () => {
  test("counts what is healthy, clean, reachable and live", () => {
    const { cluster, uuid, volume, replicas } = withVolume(3, true);
    cluster.edit("volumes", uuid, { cleanShutdown: false });
    const remote = replicas().filter(({ nodeId }) => nodeId !== "node-1");
    cluster.edit("replicas", remote[0]!.uuid, { healthy: false });
    cluster.setNode(remote[1]!.nodeId, "Offline");
    expect(volumeHealth(cluster.state(), volume())).toEqual({
      cleanShutdown: false,
      healthyReplicas: 2,
      cleanReplicas: 1,
      onlineHealthyReplicas: 1,
      onlineCleanReplicas: 1,
      liveHealthyReplicas: 2, // The nexus still counts the one whose node has just gone.
    });
  });

  test("of an orderly closed volume: all healthy replicas are clean", () => {
    const { cluster, volume } = withVolume(3);
    expect(volumeHealth(cluster.state(), volume())).toEqual({
      cleanShutdown: true,
      healthyReplicas: 3,
      cleanReplicas: 3,
      onlineHealthyReplicas: 3,
      onlineCleanReplicas: 3,
      liveHealthyReplicas: 3,
    });
  });
});

describe("usage", () => {
  test("takes the largest healthy replica, and sums all of them", () => {
    const { cluster, volume, replicas } = withVolume(3);
    const [a, b, c] = replicas();
    cluster.allocate(a!.uuid, 8 * MiB);
    cluster.allocate(b!.uuid, 12 * MiB);
    cluster.allocate(c!.uuid, 40 * MiB);
    cluster.edit("replicas", c!.uuid, { healthy: false });
    const usage = volumeUsage(cluster.state(), volume());
    expect(usage.capacityBytes).toBe(volume().sizeBytes);
    expect(usage.allocatedBytes).toBe(12 * MiB);
    expect(usage.allocatedReplicaBytes).toBe(12 * MiB);
    expect(usage.totalAllocatedBytes).toBe(60 * MiB);
    expect(usage.totalAllocatedReplicasBytes).toBe(60 * MiB);
    expect(usage.totalAllocatedSnapshotsBytes).toBe(0);
  });
});
