import { describe, expect, test } from "bun:test";
import type {
  CreateNexusRequest,
  CreateReplicaRequest,
} from "../../../../../src/control/control.ts";
import {
  addNexusChild,
  createNexus,
  createReplica,
  createVolume,
  destroyNexus,
  destroyReplica,
  publishVolume,
  removeNexusChild,
  shareNexus,
  shareReplica,
  unshareNexus,
  unshareReplica,
} from "../../../../../src/control/planner/decide/index.ts";
import { REPLICAS_MAX } from "../../../../../src/control/planner/limits.ts";
import {
  GiB,
  PlannedCluster,
  refusal,
  volumeRequest,
} from "../../../../support/planned-cluster.ts";

const nothing = { changes: [], events: [] };
const hostA = "nqn.2014-08.org.nvmexpress:uuid:a";
const hostB = "nqn.2014-08.org.nvmexpress:uuid:b";

function published() {
  const cluster = PlannedCluster.ofNodes(1);
  const uuid = cluster.uuid();
  cluster.run((state, uuids) => createVolume(state, volumeRequest(uuid), uuids));
  cluster.carryOut();
  const request = {
    uuid,
    publishContext: {},
    nodeId: null,
    reuseExisting: false,
    republish: false,
    frontendNode: null,
  };
  cluster.run((state, uuids) => publishVolume(state, request, uuids));
  cluster.carryOut();
  const replica = [...cluster.stored.replicas.keys()][0]!;
  const nexus = [...cluster.stored.nexuses.keys()][0]!;
  return { cluster, replica, nexus };
}

describe("a replica made by hand", () => {
  function withReplica(changes: Partial<CreateReplicaRequest> = {}) {
    const cluster = PlannedCluster.ofNodes(2, 10 * GiB);
    const request: CreateReplicaRequest = {
      poolId: "pool-1",
      uuid: cluster.uuid(),
      sizeBytes: GiB,
      thin: false,
      share: false,
      allowedHosts: [],
      ...changes,
    };
    cluster.run((state) => createReplica(state, request));
    const record = () => cluster.stored.replicas.get(request.uuid)!;
    return { cluster, request, record };
  }

  test("is recorded, confirmed when equal, a conflict when not", () => {
    const { cluster, request, record } = withReplica({ share: true, allowedHosts: [hostB, hostA] });
    expect(record()).toMatchObject({
      volumeUuid: null,
      poolId: "pool-1",
      nodeId: "node-1",
      status: "Creating",
      healthy: true,
      allowedHosts: [hostA, hostB],
    });
    const same = { ...request, allowedHosts: [hostA, hostB] };
    expect(createReplica(cluster.state(), same)).toEqual(nothing);
    for (const changes of [
      { poolId: "pool-2" },
      { sizeBytes: 2 * GiB },
      { thin: true },
      { allowedHosts: [hostA] },
    ]) {
      const error = refusal(() => createReplica(cluster.state(), { ...request, ...changes }));
      expect(error.code).toBe("Conflict");
      expect(error.message).toContain(Object.keys(changes)[0]!);
    }
  });

  test("needs a pool that is there, and room", () => {
    const { cluster, request } = withReplica();
    const code = (changes: Partial<CreateReplicaRequest>) =>
      refusal(() =>
        createReplica(cluster.state(), { ...request, uuid: cluster.uuid(), ...changes }),
      ).code;
    expect(code({ poolId: "nowhere" })).toBe("NotFound");
    expect(code({ sizeBytes: 10 * GiB })).toBe("ResourceExhausted");
    expect(code({ sizeBytes: 0 })).toBe("InvalidArgument");
    expect(code({ uuid: "x" })).toBe("InvalidArgument");
    expect(code({ allowedHosts: ["x"] })).toBe("InvalidArgument");
    cluster.setNode("node-1", "Offline");
    expect(code({})).toBe("FailedPrecondition");
    cluster.edit("pools", "pool-1", { status: "Creating" });
    expect(code({})).toBe("Aborted");
    cluster.edit("pools", "pool-1", { status: "Deleting" });
    expect(code({})).toBe("Deleting");
  });

  test("is shared and unshared", () => {
    const { cluster, request, record } = withReplica();
    const share = (hosts: string[], pool: string | null = null) =>
      cluster.run((state) => shareReplica(state, request.uuid, pool, hosts));
    expect(refusal(() => unshareReplica(cluster.state(), request.uuid, null)).code).toBe(
      "NotShared",
    );
    expect(refusal(() => share([hostA], "pool-2")).code).toBe("NotFound");
    share([hostA]);
    expect(share([hostA])).toEqual(nothing);
    expect(refusal(() => share([hostB])).code).toBe("AlreadyShared");
    cluster.run((state) => unshareReplica(state, request.uuid, "pool-1"));
    expect(record().allowedHosts).toBeNull();
  });

  test("goes when nothing uses it", () => {
    const { cluster, request } = withReplica();
    const nexus = cluster.uuid();
    const ask = { nodeId: "node-1", uuid: nexus, sizeBytes: GiB };
    const children = [`bdev:///${request.uuid}`];
    cluster.run((state) => createNexus(state, { ...ask, children }));
    const destroy = (pool: string | null = null) =>
      cluster.run((state) => destroyReplica(state, request.uuid, pool));
    expect(refusal(() => destroy("pool-2")).code).toBe("NotFound");
    expect(refusal(() => destroy()).message).toContain(nexus);
    cluster.run((state) => destroyNexus(state, nexus, null));
    cluster.carryOut();
    destroy();
    expect(destroy()).toEqual(nothing);
    expect(refusal(() => shareReplica(cluster.state(), request.uuid, null, [])).code).toBe(
      "Deleting",
    );
    cluster.carryOut();
    expect(refusal(() => destroy()).code).toBe("NotFound");
  });

  test("of a volume is the volume's affair", () => {
    const { cluster, replica } = published();
    expect(refusal(() => destroyReplica(cluster.state(), replica, null)).code).toBe("InUse");
    expect(refusal(() => shareReplica(cluster.state(), replica, null, [])).code).toBe("InUse");
    expect(refusal(() => unshareReplica(cluster.state(), replica, null)).code).toBe("InUse");
  });
});

describe("a nexus made by hand", () => {
  function withNexus(changes: Partial<CreateNexusRequest> = {}) {
    const cluster = PlannedCluster.ofNodes(1);
    const request: CreateNexusRequest = {
      nodeId: "node-1",
      uuid: cluster.uuid(),
      sizeBytes: GiB,
      children: ["malloc:///a?size_mb=1024", "malloc:///b?size_mb=1024"],
      ...changes,
    };
    cluster.run((state) => createNexus(state, request));
    const record = () => cluster.stored.nexuses.get(request.uuid)!;
    return { cluster, request, record };
  }

  test("is recorded, confirmed when equal, a conflict when not", () => {
    const { cluster, request, record } = withNexus();
    expect(record()).toMatchObject({
      volumeUuid: null,
      nodeId: "node-1",
      status: "Creating",
      phase: "Open",
      share: "none",
      epoch: 1,
    });
    expect(createNexus(cluster.state(), request)).toEqual(nothing);
    for (const changes of [{ sizeBytes: 1 }, { children: ["malloc:///a"] }, { nodeId: "n" }]) {
      const error = refusal(() => createNexus(cluster.state(), { ...request, ...changes }));
      expect(error.code).toBe("Conflict");
    }
  });

  test("needs a node that answers and children, each once", () => {
    const { cluster, request } = withNexus();
    const code = (changes: Partial<CreateNexusRequest>) =>
      refusal(() => createNexus(cluster.state(), { ...request, uuid: cluster.uuid(), ...changes }))
        .code;
    const many = Array.from({ length: REPLICAS_MAX + 1 }, (_, n) => `malloc:///${n}`);
    expect(code({ nodeId: "nobody" })).toBe("FailedPrecondition");
    expect(code({ children: [] })).toBe("InvalidArgument");
    expect(code({ children: many })).toBe("InvalidArgument");
    expect(code({ children: ["x", "x"] })).toBe("InvalidArgument");
    expect(code({ children: [""] })).toBe("InvalidArgument");
    cluster.setNode("node-1", "Offline");
    expect(code({})).toBe("FailedPrecondition");
  });

  test("is shared, unshared and destroyed", () => {
    const { cluster, request, record } = withNexus();
    const { uuid } = request;
    expect(refusal(() => unshareNexus(cluster.state(), uuid, null)).code).toBe("NotShared");
    expect(refusal(() => shareNexus(cluster.state(), uuid, "node-9")).code).toBe("NotFound");
    cluster.run((state) => shareNexus(state, uuid, "node-1"));
    expect(record().share).toBe("nvmf");
    expect(shareNexus(cluster.state(), uuid, null)).toEqual(nothing);
    cluster.run((state) => unshareNexus(state, uuid, null));
    expect(record().share).toBe("none");
    cluster.run((state) => destroyNexus(state, uuid, null));
    expect(record().status).toBe("Deleting");
    expect(destroyNexus(cluster.state(), uuid, null)).toEqual(nothing);
    expect(refusal(() => createNexus(cluster.state(), request)).code).toBe("Deleting");
    expect(refusal(() => shareNexus(cluster.state(), uuid, null)).code).toBe("Deleting");
    cluster.carryOut();
    expect(refusal(() => destroyNexus(cluster.state(), uuid, null)).code).toBe("NotFound");
  });

  test("gains and loses children, never the last", () => {
    const { cluster, request, record } = withNexus();
    const { uuid } = request;
    const add = (uri: string) => cluster.run((state) => addNexusChild(state, uuid, null, uri));
    const drop = (uri: string) => cluster.run((state) => removeNexusChild(state, uuid, null, uri));
    add("malloc:///c");
    expect(add("malloc:///c")).toEqual(nothing);
    expect(record().children).toHaveLength(3);
    drop(request.children[0]!);
    drop(request.children[1]!);
    expect(refusal(() => drop(request.children[1]!)).code).toBe("NotFound");
    expect(refusal(() => drop("malloc:///c")).code).toBe("FailedPrecondition");
    for (let n = 1; n < REPLICAS_MAX; n += 1) add(`malloc:///${n}`);
    expect(refusal(() => add("malloc:///more")).code).toBe("ResourceExhausted");
  });

  test("of a volume is the volume's affair, and so are its replicas", () => {
    const { cluster, nexus, replica } = published();
    const uri = `bdev:///${replica}`;
    for (const decide of [
      () => destroyNexus(cluster.state(), nexus, null),
      () => shareNexus(cluster.state(), nexus, null),
      () => unshareNexus(cluster.state(), nexus, null),
      () => addNexusChild(cluster.state(), nexus, null, "malloc:///x"),
      () => removeNexusChild(cluster.state(), nexus, null, uri),
      () =>
        createNexus(cluster.state(), {
          nodeId: "node-1",
          uuid: cluster.uuid(),
          sizeBytes: GiB,
          children: [uri],
        }),
    ]) {
      expect(refusal(decide).code).toBe("InUse");
    }
  });
});
