import { describe, expect, test } from "bun:test";
import {
  createVolume,
  destroySnapshot,
  destroyVolume,
  publishVolume,
  restoreVolume,
} from "../../../../../src/control/planner/decide/index.ts";
import { createSnapshot } from "../../../../../src/control/planner/decide/snapshots.ts";
import { REPLICAS_MAX, VOLUME_BYTES_MAX } from "../../../../../src/control/planner/limits.ts";
import {
  defaultSettings,
  GiB,
  PlannedCluster,
  Refused,
  refusal,
  volumeRequest,
} from "../../../../support/planned-cluster.ts";

const nothing = { changes: [], events: [] };

function refused(cluster: PlannedCluster, changes: Parameters<typeof volumeRequest>[1]) {
  const request = volumeRequest(cluster.uuid(), changes);
  return refusal(() => createVolume(cluster.state(), request, cluster.uuids()));
}

describe("creation of a volume", () => {
  test("records it and its replicas as Creating, and touches the pools", () => {
    const cluster = PlannedCluster.ofNodes(3);
    const uuid = cluster.uuid();
    const request = volumeRequest(uuid, { replicaCount: 2, labels: { app: "db" }, thin: true });
    const { changes, events } = createVolume(cluster.state(), request, cluster.uuids());
    expect(changes.map(({ table }) => table)).toEqual([
      "volumes",
      "replicas",
      "replicas",
      "pools",
      "pools",
    ]);
    expect(events).toEqual([]);
    cluster.put(...changes);
    expect(cluster.stored.volumes.get(uuid)).toMatchObject({
      ...request,
      status: "Creating",
      target: null,
      epoch: 0,
      incarnation: 0,
      cleanShutdown: true,
      asThin: false,
      createdAtMs: cluster.nowMs,
      operation: { operation: "Create", result: null },
    });
    for (const replica of cluster.stored.replicas.values()) {
      expect(replica).toMatchObject({
        volumeUuid: uuid,
        sizeBytes: GiB,
        thin: true,
        status: "Creating",
        healthy: true,
        allowedHosts: null,
        kind: "Regular",
      });
    }
  });

  test("an equal request is confirmed, before and after it is carried out", () => {
    const cluster = PlannedCluster.ofNodes(3);
    const request = volumeRequest(cluster.uuid(), {
      replicaCount: 2,
      labels: { a: "1", b: "2" },
      topology: { node: null, pool: { exclusion: {}, inclusion: {}, affinityKey: [] } },
    });
    cluster.run((state, uuids) => createVolume(state, request, uuids));
    const again = { ...request, labels: { b: "2", a: "1" } };
    expect(createVolume(cluster.state(), again, [])).toEqual(nothing);
    cluster.carryOut();
    expect(createVolume(cluster.state(), again, [])).toEqual(nothing);
  });

  test("a request that differs is a conflict that names what differs", () => {
    const cluster = PlannedCluster.ofNodes(3);
    const request = volumeRequest(cluster.uuid());
    cluster.run((state, uuids) => createVolume(state, request, uuids));
    for (const changes of [
      { sizeBytes: 2 * GiB },
      { replicaCount: 2 },
      { thin: true },
      { selfHeal: false },
      { labels: { a: "b" } },
      { affinityGroup: "g" },
      { maxSnapshots: 3 },
      { topology: { node: null, pool: null } },
    ]) {
      const error = refusal(() => createVolume(cluster.state(), { ...request, ...changes }, []));
      expect(error.code).toBe("Conflict");
      expect(error.message).toContain(Object.keys(changes)[0]!);
    }
  });

  test("one that is on its way out is not confirmed", () => {
    const cluster = PlannedCluster.ofNodes(1);
    const request = volumeRequest(cluster.uuid());
    cluster.run((state, uuids) => createVolume(state, request, uuids));
    cluster.run((state) => destroyVolume(state, request.uuid));
    expect(refusal(() => createVolume(cluster.state(), request, [])).code).toBe("Deleting");
  });

  test("bad arguments are named", () => {
    const cluster = PlannedCluster.ofNodes(3);
    const wrong: [Parameters<typeof volumeRequest>[1], string][] = [
      [{ uuid: "V" }, "volume"],
      [{ sizeBytes: 0 }, "size"],
      [{ sizeBytes: 1.5 }, "size"],
      [{ sizeBytes: VOLUME_BYTES_MAX + 1 }, "size"],
      [{ replicaCount: 0 }, "replica count"],
      [{ replicaCount: REPLICAS_MAX + 1 }, "replica count"],
      [{ maxSnapshots: -1 }, "snapshots"],
      [{ affinityGroup: "" }, "affinity group"],
      [
        {
          topology: {
            node: null,
            pool: { exclusion: {}, inclusion: { "a b": "" }, affinityKey: [] },
          },
        },
        "label key",
      ],
      [
        {
          topology: {
            node: null,
            pool: { exclusion: { zone: "a" }, inclusion: { zone: "a" }, affinityKey: [] },
          },
        },
        "both included and excluded",
      ],
      [
        {
          topology: {
            node: { labelled: { exclusion: { zone: "" }, inclusion: {}, affinityKey: ["zone"] } },
            pool: null,
          },
        },
        "agree and to differ",
      ],
    ];
    for (const [changes, text] of wrong) {
      const error = refused(cluster, changes);
      expect([error.code, error.message]).toEqual(["InvalidArgument", error.message]);
      expect(error.message).toContain(text);
    }
  });

  test("so many at a time", () => {
    const cluster = PlannedCluster.ofNodes(1);
    cluster.settings = { ...defaultSettings, maxVolumeCreates: 2 };
    for (let n = 0; n < 2; n += 1) {
      const request = volumeRequest(cluster.uuid());
      cluster.run((state, uuids) => createVolume(state, request, uuids));
    }
    expect(refused(cluster, {}).code).toBe("Aborted");
    cluster.carryOut();
    const request = volumeRequest(cluster.uuid());
    expect(createVolume(cluster.state(), request, cluster.uuids()).changes).not.toEqual([]);
  });

  test("two decisions on one view cannot both take the last room of a pool", () => {
    const cluster = PlannedCluster.ofNodes(1, GiB);
    const state = cluster.state();
    const decide = () => createVolume(state, volumeRequest(cluster.uuid()), cluster.uuids());
    const [first, second] = [decide(), decide()];
    cluster.put(...first.changes);
    expect(() => cluster.put(...second.changes)).toThrow(Refused);
    expect(refused(cluster, {}).code).toBe("ResourceExhausted");
  });
});

test("two single replicas of an affinity group cannot take two pools of one node on one view", () => {
  const cluster = PlannedCluster.ofNodes(1);
  cluster.addPool("pool-2", "node-1", 100 * GiB);
  const state = cluster.state();
  const decide = (sizeBytes: number) => {
    const request = volumeRequest(cluster.uuid(), { affinityGroup: "db", sizeBytes });
    return createVolume(state, request, cluster.uuids());
  };
  cluster.put(...decide(GiB).changes);
  expect(() => cluster.put(...decide(2 * GiB).changes)).toThrow(Refused);
});

describe("destruction of a volume", () => {
  function published() {
    const cluster = PlannedCluster.ofNodes(3);
    const uuid = cluster.uuid();
    const request = volumeRequest(uuid, { replicaCount: 2 });
    cluster.run((state, uuids) => createVolume(state, request, uuids));
    cluster.carryOut();
    cluster.run((state, uuids) =>
      publishVolume(
        state,
        {
          uuid,
          publishContext: {},
          nodeId: null,
          reuseExisting: false,
          republish: false,
          frontendNode: null,
        },
        uuids,
      ),
    );
    cluster.carryOut();
    return { cluster, uuid };
  }

  test("takes down its target and destroys its replicas", () => {
    const { cluster, uuid } = published();
    cluster.run((state) => destroyVolume(state, uuid));
    expect(cluster.stored.volumes.get(uuid)).toMatchObject({ status: "Deleting", target: null });
    for (const { status, allowedHosts } of cluster.stored.replicas.values()) {
      expect([status, allowedHosts]).toEqual(["Deleting", null]);
    }
    for (const { phase } of cluster.stored.nexuses.values()) expect(phase).toBe("Shutdown");
    expect(destroyVolume(cluster.state(), uuid)).toEqual(nothing);
    cluster.carryOut();
    for (const table of ["volumes", "replicas", "nexuses"] as const) {
      expect(cluster.stored[table].size).toBe(0);
    }
    expect(refusal(() => destroyVolume(cluster.state(), uuid)).code).toBe("NotFound");
  });
});

describe("a volume of a snapshot", () => {
  function snapshotted() {
    const cluster = PlannedCluster.ofNodes(4);
    const source = cluster.uuid();
    const snapshot = cluster.uuid();
    const request = volumeRequest(source, { replicaCount: 2 });
    cluster.run((state, uuids) => createVolume(state, request, uuids));
    cluster.carryOut();
    cluster.run((state, uuids) => createSnapshot(state, source, snapshot, uuids));
    return { cluster, source, snapshot };
  }
  const clone = (cluster: PlannedCluster, changes = {}) =>
    volumeRequest(cluster.uuid(), { thin: true, replicaCount: 2, ...changes });

  test("has clones in the snapshot's pools", () => {
    const { cluster, source, snapshot } = snapshotted();
    cluster.carryOut();
    const request = clone(cluster);
    cluster.run((state, uuids) => restoreVolume(state, snapshot, request, uuids));
    const contentSource = { snapshotUuid: snapshot, volumeUuid: source };
    expect(cluster.stored.volumes.get(request.uuid)?.contentSource).toEqual(contentSource);
    const { replicas } = cluster.stored.snapshots.get(snapshot)!;
    for (const uuid of cluster.stored.replicasOfVolume.get(request.uuid)!) {
      const replica = cluster.stored.replicas.get(uuid)!;
      const origin = replicas.find(({ poolId }) => poolId === replica.poolId);
      expect(replica).toMatchObject({ kind: "SnapshotClone", thin: true, healthy: true });
      expect(replica.snapshotUuid).toBe(origin!.uuid);
    }
    expect(restoreVolume(cluster.state(), snapshot, request, [])).toEqual(nothing);
    expect(refusal(() => createVolume(cluster.state(), request, [])).code).toBe("Conflict");
    const going = refusal(() => destroySnapshot(cluster.state(), snapshot, null));
    expect(going.code).toBe("InUse");
  });

  test("is thin, of the same size, with no more replicas, of a snapshot that is taken", () => {
    const { cluster, snapshot } = snapshotted();
    const code = (changes: object, from = snapshot) =>
      refusal(() => restoreVolume(cluster.state(), from, clone(cluster, changes), cluster.uuids()))
        .code;
    expect(code({})).toBe("FailedPrecondition");
    cluster.carryOut();
    expect(code({}, cluster.uuid())).toBe("NotFound");
    expect(code({ thin: false })).toBe("InvalidArgument");
    expect(code({ sizeBytes: 2 * GiB })).toBe("OutOfRange");
    expect(code({ replicaCount: 3 })).toBe("InvalidArgument");
    const [first] = cluster.stored.snapshots.get(snapshot)!.replicas;
    cluster.setNode(first!.nodeId, "Offline");
    expect(code({})).toBe("ResourceExhausted");
    const one = clone(cluster, { replicaCount: 1 });
    const { changes } = restoreVolume(cluster.state(), snapshot, one, cluster.uuids());
    expect(changes).not.toEqual([]);
  });
});
