import { describe, expect, test } from "bun:test";
import type { VolumeRecord } from "../../../../../src/control/model.ts";
import { createVolume, publishVolume } from "../../../../../src/control/planner/decide/index.ts";
import {
  removalOrder,
  replicasToAttach,
  replicaToRemove,
} from "../../../../../src/control/planner/placement/replica-choice.ts";
import {
  childUri,
  chooseChildren,
  chooseTargetNode,
  rankTargetNodes,
} from "../../../../../src/control/planner/placement/target.ts";
import { replicasOf } from "../../../../../src/control/planner/status.ts";
import {
  GiB,
  PlannedCluster,
  refusal,
  volumeRequest,
} from "../../../../support/planned-cluster.ts";
import { replicaRecord } from "../../../../support/store-records.ts";

function publish(cluster: PlannedCluster, uuid: string, nodeId: string | null): void {
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

/** A volume with replicas on the first nodes of a cluster. */
function volumeOn(cluster: PlannedCluster, nodes: readonly string[], changes = {}): string {
  const uuid = cluster.uuid();
  const topology = {
    node: { explicit: { allowedNodes: [...nodes], preferredNodes: [] } },
    pool: null,
  };
  const request = volumeRequest(uuid, { replicaCount: nodes.length, topology, ...changes });
  cluster.run((state, uuids) => createVolume(state, request, uuids));
  cluster.carryOut();
  cluster.edit("volumes", uuid, { topology: null });
  return uuid;
}

const volumeIn = (cluster: PlannedCluster, uuid: string): VolumeRecord =>
  cluster.stored.volumes.get(uuid)!;

function ranked(cluster: PlannedCluster, uuid: string, not: string[] = []): string[] {
  const nodes = rankTargetNodes(cluster.state(), volumeIn(cluster, uuid), new Set(not));
  return nodes.map(({ id }) => id);
}

describe("the node of a target", () => {
  test("has a replica, and few targets", () => {
    const cluster = PlannedCluster.ofNodes(4);
    const first = volumeOn(cluster, ["node-2", "node-3"]);
    expect(ranked(cluster, first)).toEqual(["node-2", "node-3", "node-1", "node-4"]);
    publish(cluster, first, null);
    expect(volumeIn(cluster, first).target?.nodeId).toBe("node-2");
    const second = volumeOn(cluster, ["node-2", "node-3"]);
    expect(ranked(cluster, second)).toEqual(["node-3", "node-2", "node-1", "node-4"]);
  });

  test("is one without another target of the affinity group, before anything else", () => {
    const cluster = PlannedCluster.ofNodes(2);
    const first = volumeOn(cluster, ["node-1"], { affinityGroup: "db" });
    publish(cluster, first, null);
    const second = volumeOn(cluster, ["node-2"], { affinityGroup: "db" });
    publish(cluster, second, "node-1");
    const third = volumeOn(cluster, ["node-1", "node-2"], { affinityGroup: "db" });
    expect(ranked(cluster, third)).toEqual(["node-2", "node-1"]);
  });

  test("is a preferred one, replica or not", () => {
    const cluster = PlannedCluster.ofNodes(3);
    const uuid = volumeOn(cluster, ["node-1"]);
    const topology = {
      node: { explicit: { allowedNodes: [], preferredNodes: ["node-3"] } },
      pool: null,
    };
    cluster.edit("volumes", uuid, { topology });
    expect(ranked(cluster, uuid)[0]).toBe("node-3");
  });

  test("is Online, not cordoned, and not the one to leave; the error names each", () => {
    const cluster = PlannedCluster.ofNodes(3);
    const uuid = volumeOn(cluster, ["node-1"]);
    cluster.setNode("node-2", "Offline");
    cluster.edit("nodes", "node-3", { cordonLabels: ["x"] });
    expect(ranked(cluster, uuid, ["node-1"])).toEqual([]);
    const error = refusal(() =>
      chooseTargetNode(cluster.state(), volumeIn(cluster, uuid), new Set(["node-1"])),
    );
    expect(error.code).toBe("FailedPrecondition");
    for (const why of ["node-1 serves it now", "node-2 is Offline", "node-3 is cordoned (x)"]) {
      expect(error.message).toContain(why);
    }
  });
});

describe("children of a new nexus", () => {
  test("are healthy replicas that are there, those on the nexus's node first", () => {
    const cluster = PlannedCluster.ofNodes(3);
    const uuid = volumeOn(cluster, ["node-1", "node-2", "node-3"]);
    const replicas = replicasOf(cluster.state(), uuid);
    const on = (nodeId: string) => replicas.find((one) => one.nodeId === nodeId)!;
    const children = () =>
      chooseChildren(cluster.state(), volumeIn(cluster, uuid), "node-2").map(
        ({ replicaUuid }) => replicaUuid,
      );
    expect(children()[0]).toBe(on("node-2").uuid);
    expect(children()).toHaveLength(3);
    cluster.edit("replicas", on("node-1").uuid, { healthy: false });
    cluster.setNode("node-3", "Offline");
    expect(children()).toEqual([on("node-2").uuid]);
    cluster.edit("replicas", on("node-2").uuid, { healthy: false });
    const error = refusal(children);
    expect(error.code).toBe("FailedPrecondition");
    expect(error.message).toContain("no healthy replica can be reached");
    expect(error.message).toContain("node-3 (Offline): healthy");
  });

  test("are as large as the volume", () => {
    const cluster = PlannedCluster.ofNodes(2);
    const uuid = volumeOn(cluster, ["node-1", "node-2"]);
    const [small] = replicasOf(cluster.state(), uuid);
    const engine = cluster.engines.get(small!.nodeId)!;
    const record = { ...small!, sizeBytes: GiB / 2 };
    engine.replicas.set(small!.uuid, { record, allocatedBytes: 0 });
    const children = chooseChildren(cluster.state(), volumeIn(cluster, uuid), "node-1");
    expect(children).toHaveLength(1);
    expect(children[0]?.replicaUuid).not.toBe(small!.uuid);
  });

  test("are reached locally, or by the URI that their engine gives", () => {
    const cluster = PlannedCluster.ofNodes(2);
    const replica = replicaRecord(cluster.uuid(), null, "pool-2", { nodeId: "node-2" });
    const { uuid } = replica;
    expect(childUri(cluster.state(), "node-2", replica)).toBe(`bdev:///${uuid}`);
    expect(childUri(cluster.state(), "node-1", replica)).toBe(
      `nvmf+tcp://10.0.0.2:8420/nqn.2019-05.io.openebs:${uuid}?uuid=${uuid}`,
    );
    expect(childUri(cluster.state(), "node-1", { ...replica, nodeId: "gone" })).toBeNull();
  });
});

describe("the replica to attach next", () => {
  test("is local, then healthy, then in the pool with most free space", () => {
    const cluster = PlannedCluster.ofNodes(4);
    cluster.addNode("node-5");
    cluster.addPool("pool-5", "node-5", 900 * GiB);
    const uuid = volumeOn(cluster, ["node-1"]);
    publish(cluster, uuid, "node-2");
    for (const n of [2, 3, 4, 5]) {
      const record = replicaRecord(cluster.uuid(), uuid, `pool-${n}`, {
        nodeId: `node-${n}`,
        healthy: n === 3,
      });
      cluster.put({ table: "replicas", put: record });
    }
    cluster.carryOut();
    const order = replicasToAttach(cluster.state(), volumeIn(cluster, uuid));
    expect(order.map(({ nodeId }) => nodeId)).toEqual(["node-2", "node-3", "node-5", "node-4"]);
    cluster.setNode("node-3", "Offline");
    expect(replicasToAttach(cluster.state(), volumeIn(cluster, uuid))).toHaveLength(3);
    cluster.edit("volumes", uuid, { target: null });
    expect(replicasToAttach(cluster.state(), volumeIn(cluster, uuid))).toEqual([]);
  });
});

describe("the replica to give up", () => {
  function published() {
    const cluster = PlannedCluster.ofNodes(4);
    const uuid = volumeOn(cluster, ["node-1", "node-2", "node-3"]);
    publish(cluster, uuid, "node-1");
    cluster.edit("volumes", uuid, { replicaCount: 2 });
    const replicas = replicasOf(cluster.state(), uuid);
    const on = (nodeId: string) => replicas.find((one) => one.nodeId === nodeId)!;
    const first = () => replicaToRemove(cluster.state(), volumeIn(cluster, uuid))?.nodeId;
    return { cluster, uuid, on, first };
  }

  test("is none while there are not more than wanted", () => {
    const { cluster, uuid, first } = published();
    cluster.edit("volumes", uuid, { replicaCount: 3 });
    expect(first()).toBeUndefined();
  });

  test("is remote rather than local", () => {
    const { cluster, uuid } = published();
    const order = removalOrder(cluster.state(), volumeIn(cluster, uuid));
    expect(order.at(-1)?.nodeId).toBe("node-1");
  });

  test("is the one that lacks data, although it is local", () => {
    const { cluster, on, first } = published();
    cluster.edit("replicas", on("node-1").uuid, { healthy: false });
    cluster.engines.get("node-1")!.nexuses.clear();
    expect(first()).toBe("node-1");
  });

  test("is out of reach rather than serving", () => {
    const { cluster, first } = published();
    cluster.setNode("node-3", "Offline");
    expect(first()).toBe("node-3");
  });

  test("is on a cordoned node rather than on another", () => {
    for (const id of ["node-2", "node-3"]) {
      const { cluster, first } = published();
      cluster.edit("nodes", id, { cordonLabels: ["x"] });
      expect(first()).toBe(id);
    }
  });

  test("is where its topology would not have it now", () => {
    const { cluster, uuid, first } = published();
    const labels = { exclusion: {}, inclusion: { zone: "a" }, affinityKey: [] };
    cluster.edit("volumes", uuid, { topology: { node: { labelled: labels }, pool: null } });
    for (const id of ["node-1", "node-2"]) cluster.edit("nodes", id, { labels: { zone: "a" } });
    expect(first()).toBe("node-3");
  });

  test("is the rebuild that is least advanced", () => {
    const { cluster, uuid, on, first } = published();
    const engine = cluster.engines.get("node-1")!;
    const nexusUuid = volumeIn(cluster, uuid).target!.nexusUuid;
    const nexus = engine.nexuses.get(nexusUuid)!;
    const progress = { "node-2": 70, "node-3": 20 } as const;
    const children = nexus.children.map((child) => {
      const nodeId = (["node-2", "node-3"] as const).find((id) => child.uri.includes(on(id).uuid));
      if (nodeId === undefined) return child;
      cluster.edit("replicas", on(nodeId).uuid, { healthy: false });
      const rebuild = { progressPercent: progress[nodeId] } as NonNullable<typeof child.rebuild>;
      return { ...child, state: "degraded" as const, rebuild };
    });
    engine.nexuses.set(nexusUuid, { ...nexus, children });
    expect(first()).toBe("node-3");
  });

  test("is the named victim, but one that serves only when enough others do", () => {
    const { cluster, uuid, on, first } = published();
    cluster.edit("volumes", uuid, { victimReplica: on("node-1").uuid });
    expect(first()).toBe("node-1");
    cluster.edit("replicas", on("node-2").uuid, { healthy: false });
    expect(first()).toBeUndefined();
  });

  test("is none when no other would serve", () => {
    const { cluster, on, first } = published();
    for (const id of ["node-2", "node-3"]) {
      cluster.edit("replicas", on(id).uuid, { healthy: false });
    }
    cluster.setNode("node-1", "Offline");
    expect(first()).toBeUndefined();
  });
});
