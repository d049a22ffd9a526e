import { describe, expect, test } from "bun:test";
import type { PublishRequest } from "../../../../../src/control/control.ts";
import {
  controllerIdsOf,
  createVolume,
  destroyShutdownTargets,
  publishVolume,
  shareVolume,
  unpublishVolume,
  unshareVolume,
} from "../../../../../src/control/planner/decide/index.ts";
import { FRONTEND_NODES_MAX } from "../../../../../src/control/planner/limits.ts";
import { replicasOf, targetNexus } from "../../../../../src/control/planner/status.ts";
import {
  defaultSettings,
  GiB,
  PlannedCluster,
  Refused,
  refusal,
  volumeRequest,
} from "../../../../support/planned-cluster.ts";

const nothing = { changes: [], events: [] };
const host = { name: "app-1", nqn: "nqn.2014-08.org.nvmexpress:uuid:app-1" };

function withVolume(nodes = 3, replicaCount = 2) {
  const cluster = PlannedCluster.ofNodes(nodes);
  const uuid = cluster.uuid();
  const request = volumeRequest(uuid, { replicaCount, sizeBytes: GiB + 1 });
  cluster.run((state, uuids) => createVolume(state, request, uuids));
  cluster.carryOut();
  const ask = (changes: Partial<PublishRequest> = {}): PublishRequest => ({
    uuid,
    publishContext: {},
    nodeId: null,
    reuseExisting: false,
    republish: false,
    frontendNode: null,
    ...changes,
  });
  const decide = (changes: Partial<PublishRequest> = {}) =>
    publishVolume(cluster.state(), ask(changes), cluster.uuids());
  const publish = (changes: Partial<PublishRequest> = {}) => {
    cluster.put(...decide(changes).changes);
    cluster.carryOut();
  };
  const volume = () => cluster.stored.volumes.get(uuid)!;
  const nexus = () => targetNexus(cluster.state(), volume())!;
  const replicas = () => replicasOf(cluster.state(), uuid);
  return { cluster, uuid, decide, publish, volume, nexus, replicas };
}

describe("controller ids", () => {
  test("are a range of each node's own, which do not meet until they begin again below 0xffef", () => {
    expect(controllerIdsOf({ raftId: "1" })).toEqual({ min: 1, max: 64 });
    expect(controllerIdsOf({ raftId: "2" })).toEqual({ min: 65, max: 128 });
    const nodes = 1_023;
    expect(controllerIdsOf({ raftId: String(nodes + 1) })).toEqual({ min: 1, max: 64 });
    let next = 1;
    for (let raftId = 1; raftId <= nodes; raftId += 1) {
      const { min, max } = controllerIdsOf({ raftId: String(raftId) });
      expect([min, max]).toEqual([next, next + 63]);
      next = max + 1;
    }
    expect(next - 1).toBeLessThan(0xffef);
    expect(controllerIdsOf({ raftId: "9223372036854775807" }).min).toBeGreaterThan(0);
  });
});

describe("publication", () => {
  test("records target, nexus and who may reach the replicas", () => {
    const { cluster, uuid, decide, volume, nexus, replicas } = withVolume();
    const publishContext = { ioTimeout: "30" };
    const { changes, events } = decide({ nodeId: "node-1", frontendNode: host, publishContext });
    cluster.put(...changes);
    expect(events).toHaveLength(1);
    expect(volume()).toMatchObject({ epoch: 1, incarnation: 1 });
    expect(volume().target).toEqual({
      nexusUuid: nexus().uuid,
      nodeId: "node-1",
      protocol: "nvmf",
      frontendNodes: [host],
      publishContext,
    });
    expect(nexus()).toMatchObject({
      volumeUuid: uuid,
      name: uuid,
      nodeId: "node-1",
      epoch: 1,
      status: "Creating",
      phase: "Open",
      share: "nvmf",
      allowedHosts: [host.nqn],
      controllerIds: { min: 1, max: 64 },
      sizeBytes: GiB + 4096, // whole blocks
    });
    const order = nexus().children.map(
      ({ replicaUuid }) => cluster.stored.replicas.get(replicaUuid!)!.nodeId,
    );
    expect(order).toEqual(["node-1", "node-2"]);
    for (const { nodeId, allowedHosts } of replicas()) {
      const expected = nodeId === "node-1" ? null : ["nqn.2019-05.io.openebs:node-name:node-1"];
      expect(allowedHosts).toEqual(expected);
    }
  });

  test("without a host, and where hosts are not restricted, everybody is let in", () => {
    const open = withVolume();
    open.publish({ nodeId: "node-1" });
    expect(open.nexus().allowedHosts).toEqual([]);
    const loose = withVolume();
    loose.cluster.settings = { ...defaultSettings, restrictHosts: false };
    loose.publish({ nodeId: "node-1", frontendNode: host });
    expect(loose.nexus().allowedHosts).toEqual([]);
    const remote = loose.replicas().find(({ nodeId }) => nodeId !== "node-1");
    expect(remote?.allowedHosts).toEqual([]);
  });

  test("needs a volume, a node that can serve it, and a healthy replica", () => {
    const { cluster, decide, replicas } = withVolume();
    const code = (changes: Partial<PublishRequest>) => refusal(() => decide(changes)).code;
    expect(code({ uuid: cluster.uuid() })).toBe("NotFound");
    expect(code({ nodeId: "nowhere" })).toBe("FailedPrecondition");
    cluster.edit("nodes", "node-3", { cordonLabels: ["x"] });
    expect(code({ nodeId: "node-3" })).toBe("FailedPrecondition");
    cluster.setNode("node-3", "Offline");
    expect(code({ nodeId: "node-3" })).toBe("FailedPrecondition");
    expect(code({ frontendNode: { name: "a", nqn: "iqn.x" } })).toBe("InvalidArgument");
    for (const { uuid } of replicas()) cluster.edit("replicas", uuid, { healthy: false });
    expect(code({})).toBe("FailedPrecondition");
  });

  test("on a node that is removed, or cordoned, on the same view is refused", () => {
    const { cluster, decide } = withVolume();
    const { changes } = decide({ nodeId: "node-3" });
    cluster.edit("nodes", "node-3", { cordonLabels: ["x"] });
    expect(() => cluster.put(...changes)).toThrow(Refused);
  });

  test("a volume that is not finished, or on its way out, is not published", () => {
    const { cluster, uuid, decide } = withVolume();
    cluster.edit("volumes", uuid, { status: "Creating" });
    expect(refusal(() => decide()).code).toBe("Aborted");
    cluster.edit("volumes", uuid, { status: "Deleting" });
    expect(refusal(() => decide()).code).toBe("Deleting");
  });

  test("twice is refused; one that is under way, or may be reused, is confirmed when equal", () => {
    const { cluster, decide } = withVolume();
    cluster.put(...decide({ nodeId: "node-1" }).changes);
    expect(decide({ nodeId: "node-1" })).toEqual(nothing);
    expect(decide()).toEqual(nothing);
    expect(refusal(() => decide({ nodeId: "node-2" })).code).toBe("AlreadyPublished");
    cluster.carryOut();
    expect(refusal(() => decide()).code).toBe("AlreadyPublished");
    expect(decide({ reuseExisting: true })).toEqual(nothing);
    const other = { reuseExisting: true, frontendNode: host };
    expect(refusal(() => decide(other)).code).toBe("AlreadyPublished");
  });
});

describe("republication", () => {
  test("moves to another node: the epoch rises, controller ids are that node's, the former target shuts down", () => {
    const { cluster, uuid, decide, publish, volume, nexus, replicas } = withVolume();
    publish({ nodeId: "node-1", frontendNode: host });
    const former = nexus();
    cluster.setNode("node-1", "Offline");
    const { changes, events } = decide({ republish: true, frontendNode: host });
    cluster.put(...changes);
    expect(events[0]?.action).toBe("SwitchOver");
    expect(volume()).toMatchObject({ epoch: 2, incarnation: 2 });
    expect(volume().target).toMatchObject({ nodeId: "node-2", frontendNodes: [host] });
    expect(nexus()).toMatchObject({ epoch: 2, controllerIds: { min: 65, max: 128 } });
    expect(nexus().allowedHosts).toEqual([host.nqn]);
    expect(cluster.stored.nexuses.get(former.uuid)?.phase).toBe("Shutdown");
    const away = replicas().find(({ nodeId }) => nodeId === "node-1");
    expect(away?.allowedHosts).toEqual(["nqn.2019-05.io.openebs:node-name:node-2"]);
    expect(nexus().children.map(({ replicaUuid }) => replicaUuid)).not.toContain(away!.uuid);
    expect(cluster.stored.nexusesOfVolume.get(uuid)?.size).toBe(2);
  });

  test("with reuse keeps a target that serves, and makes it anew where its node answers", () => {
    const { cluster, decide, publish, nexus } = withVolume();
    publish({ nodeId: "node-1" });
    const again = { republish: true, reuseExisting: true };
    expect(decide(again)).toEqual(nothing);
    cluster.engines.get("node-1")!.nexuses.clear();
    const former = nexus().uuid;
    cluster.put(...decide(again).changes);
    expect(nexus().uuid).not.toBe(former);
    expect(nexus()).toMatchObject({ nodeId: "node-1", epoch: 2 });
    cluster.setNode("node-1", "Offline");
    cluster.put(...decide(again).changes);
    expect(nexus().nodeId).toBe("node-2");
  });

  test("needs a published volume, and a host that it is published to", () => {
    const { decide, publish } = withVolume();
    expect(refusal(() => decide({ republish: true })).code).toBe("NotPublished");
    publish({ frontendNode: host });
    const stranger = { name: "app-2", nqn: "nqn.2014-08.org.nvmexpress:uuid:app-2" };
    const error = refusal(() => decide({ republish: true, frontendNode: stranger }));
    expect(error.code).toBe("PermissionDenied");
  });

  test("leaves targets that were shut down before as they are", () => {
    const { cluster, decide, publish, nexus } = withVolume();
    publish({ nodeId: "node-1" });
    const first = nexus().uuid;
    cluster.setNode("node-1", "Offline");
    cluster.put(...decide({ republish: true }).changes);
    const { changes } = decide({ republish: true, nodeId: "node-3" });
    const nexuses = changes.filter((change) => change.table === "nexuses");
    expect(nexuses).toHaveLength(2);
    expect(JSON.stringify(nexuses)).not.toContain(`"uuid":"${first}"`);
  });

  test("without another node it is refused, and nothing changes", () => {
    const { cluster, decide, publish } = withVolume(1, 1);
    publish();
    const before = cluster.stored;
    expect(refusal(() => decide({ republish: true })).code).toBe("FailedPrecondition");
    expect(cluster.stored).toBe(before);
  });
});

describe("unpublication", () => {
  test("shuts the target down and serves the replicas to nobody", () => {
    const { cluster, uuid, publish, volume, replicas } = withVolume();
    publish({ nodeId: "node-1" });
    cluster.run((state) => unpublishVolume(state, uuid, false));
    expect(volume()).toMatchObject({ target: null, epoch: 1 });
    for (const { phase } of cluster.stored.nexuses.values()) expect(phase).toBe("Shutdown");
    for (const { allowedHosts } of replicas()) expect(allowedHosts).toBeNull();
    const again = refusal(() => unpublishVolume(cluster.state(), uuid, false));
    expect(again.code).toBe("NotPublished");
  });

  test("from a node that is away takes force; the target there is remembered", () => {
    const { cluster, uuid, publish, volume } = withVolume();
    publish({ nodeId: "node-1" });
    cluster.setNode("node-1", "Offline");
    const error = refusal(() => unpublishVolume(cluster.state(), uuid, false));
    expect(error.code).toBe("FailedPrecondition");
    expect(error.remedy).toContain("force");
    cluster.run((state) => unpublishVolume(state, uuid, true));
    cluster.carryOut();
    expect(volume().target).toBeNull();
    expect(cluster.stored.nexuses.size).toBe(1);
    expect(destroyShutdownTargets(cluster.state(), uuid)).toEqual(nothing);
    cluster.setNode("node-1", "Online");
    cluster.carryOut();
    expect(cluster.stored.nexuses.size).toBe(0);
  });

  test("is not forced on hosts that are connected", () => {
    const { cluster, uuid, publish, volume } = withVolume();
    publish({ nodeId: "node-1" });
    cluster.carryOut();
    const state = cluster.state();
    const [seen] = state.observed.get("node-1")!.nexuses.values();
    (seen as { controllers?: number }).controllers = 2;
    const error = refusal(() => unpublishVolume(state, uuid, true));
    expect(error.code).toBe("FailedPrecondition");
    expect(error.message).toContain("2 connections of hosts to node node-1 are open");
    expect(error.remedy).toContain("nvme disconnect -n nqn.2019-05.io.openebs:");
    (seen as { controllers?: number }).controllers = 0;
    expect(unpublishVolume(state, uuid, true).changes).not.toEqual([]);
    expect(volume().target).not.toBeNull();
  });

  test("from a host that it is not published to changes nothing", () => {
    const { cluster, uuid, publish, volume } = withVolume();
    publish({ frontendNode: host });
    const late = refusal(() => unpublishVolume(cluster.state(), uuid, true, "app-2"));
    expect(late.code).toBe("NotPublished");
    expect(late.message).toContain("app-1");
    expect(volume().target).not.toBeNull();
    cluster.run((state) => unpublishVolume(state, uuid, true, host.nqn));
    expect(volume().target).toBeNull();
  });

  test("from one of several hosts leaves the target to the others", () => {
    const { cluster, uuid, decide, publish, volume, nexus } = withVolume();
    const other = { name: "app-2", nqn: "nqn.2014-08.org.nvmexpress:uuid:app-2" };
    const shared = { publishContext: { severalHosts: "true" }, reuseExisting: true };
    publish({ ...shared, frontendNode: host });
    publish({ ...shared, frontendNode: other });
    expect(volume().target?.frontendNodes).toEqual([host, other]);
    expect(nexus().allowedHosts).toEqual([host.nqn, other.nqn]);
    expect(decide({ ...shared, frontendNode: host })).toEqual(nothing);
    const alone = refusal(() => decide({ reuseExisting: true, frontendNode: host }));
    expect(alone.code).toBe("AlreadyPublished");
    cluster.run((state) => unpublishVolume(state, uuid, true, "app-1"));
    expect(volume().target?.frontendNodes).toEqual([other]);
    expect(nexus()).toMatchObject({ allowedHosts: [other.nqn], phase: "Open" });
    cluster.run((state) => unpublishVolume(state, uuid, true, "app-2"));
    expect(volume().target).toBeNull();
  });

  test("for one host is not opened to another that asks for several", () => {
    const { decide, publish } = withVolume();
    publish({ frontendNode: host });
    const other = { name: "app-2", nqn: "nqn.2014-08.org.nvmexpress:uuid:app-2" };
    const shared = { publishContext: { severalHosts: "true" }, reuseExisting: true };
    expect(refusal(() => decide({ ...shared, frontendNode: other })).code).toBe("AlreadyPublished");
  });

  test("raises the epoch at the next publication", () => {
    const { cluster, uuid, publish, nexus } = withVolume();
    for (const n of [1, 2, 3]) {
      publish();
      expect(nexus()).toMatchObject({ epoch: n });
      cluster.run((state) => unpublishVolume(state, uuid, false));
      cluster.carryOut();
    }
  });
});

describe("the share of a volume", () => {
  test("admits hosts one by one, up to a bound", () => {
    const { cluster, uuid, publish, nexus, volume } = withVolume();
    expect(refusal(() => shareVolume(cluster.state(), uuid, null)).code).toBe("NotPublished");
    publish({ frontendNode: host });
    expect(refusal(() => shareVolume(cluster.state(), uuid, null)).code).toBe("AlreadyShared");
    expect(refusal(() => shareVolume(cluster.state(), uuid, host)).code).toBe("AlreadyShared");
    for (let n = 2; n <= FRONTEND_NODES_MAX; n += 1) {
      const other = { name: `app-${n}`, nqn: `nqn.2014-08.org.nvmexpress:uuid:app-${n}` };
      cluster.run((state) => shareVolume(state, uuid, other));
      expect(nexus().allowedHosts).toHaveLength(n);
      expect(volume().target?.frontendNodes).toHaveLength(n);
    }
    const tooMany = { name: "app-9", nqn: "nqn.2014-08.org.nvmexpress:uuid:app-9" };
    const error = refusal(() => shareVolume(cluster.state(), uuid, tooMany));
    expect(error.code).toBe("ResourceExhausted");
  });

  test("ends, and begins again", () => {
    const { cluster, uuid, publish, nexus } = withVolume();
    expect(refusal(() => unshareVolume(cluster.state(), uuid)).code).toBe("NotPublished");
    publish();
    cluster.run((state) => unshareVolume(state, uuid));
    expect(nexus().share).toBe("none");
    expect(refusal(() => unshareVolume(cluster.state(), uuid)).code).toBe("NotShared");
    cluster.run((state) => shareVolume(state, uuid, null));
    expect(nexus().share).toBe("nvmf");
  });

  test("that every host may use is not closed by naming one", () => {
    const { cluster, uuid, publish, nexus } = withVolume();
    publish();
    cluster.run((state) => shareVolume(state, uuid, host));
    expect(nexus().allowedHosts).toEqual([]);
  });
});
