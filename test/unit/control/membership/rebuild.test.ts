/** Records made of what disks say, when the store is lost. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import type {
  EngineNexus,
  EnginePool,
  EngineReplica,
  EngineSnapshot,
  StoreView,
} from "../../../../src/control/cluster-state.ts";
import { deriveRecords } from "../../../../src/control/membership/rebuild/derive.ts";
import type { FoundNode } from "../../../../src/control/membership/rebuild/found.ts";
import type { TableName, Tables } from "../../../../src/control/model.ts";
import type { Change } from "../../../../src/control/planner/plan.ts";
import { recordSchemas } from "../../../../src/control/store/records.ts";

const GIB = 2 ** 30;
const V1 = "11111111-1111-4111-8111-111111111111";
const V2 = "22222222-2222-4222-8222-222222222222";
const uuid = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, "0")}`;

function pool(name: string, number: number): EnginePool {
  return {
    name,
    uuid: uuid(900 + number),
    disks: [`/dev/disk/by-id/${name}`],
    clusterSizeBytes: 4 << 20,
  } as unknown as EnginePool;
}

function replica(
  number: number,
  poolName: string,
  volumeUuid: string,
  changes: {
    generation?: number;
    epoch?: number;
    clean?: boolean;
    sizeBytes?: number;
    thin?: boolean;
    entityId?: string;
    hosts?: string[];
  } = {},
): EngineReplica {
  const { generation = 5, epoch = 3, clean = true, sizeBytes = GIB, thin = false } = changes;
  const share = { protocol: "nvmf", uri: "", nqn: null, anaState: null };
  return {
    uuid: uuid(number),
    poolName,
    kind: "regular",
    sizeBytes,
    thin,
    entityId: changes.entityId ?? volumeUuid,
    snapshotUuid: null,
    shares: changes.hosts === undefined ? [] : [{ ...share, allowedHosts: changes.hosts }],
    sync: { volumeUuid, epoch, generation, baseGeneration: 0, clean, dirtyRegions: 0 },
  } as unknown as EngineReplica;
}

function node(nodeId: string, parts: Partial<FoundNode>): FoundNode {
  return { nodeId, pools: [], replicas: [], snapshots: [], nexuses: [], problems: [], ...parts };
}

/** Records of a table that changes put; each is checked as the store checks it. */
function puts<T extends TableName>(groups: readonly (readonly Change[])[], table: T): Tables[T][] {
  return groups.flat().flatMap((change) => {
    if (change.table !== table || !("put" in change)) return [];
    v.parse(recordSchemas[table], change.put);
    return [change.put as Tables[T]];
  });
}

/** What the store has of these tables. */
function stored(
  records: {
    pools?: Tables["pools"][];
    volumes?: Tables["volumes"][];
    replicas?: Tables["replicas"][];
  } = {},
): StoreView {
  const { pools = [], volumes = [], replicas = [] } = records;
  const nodes = ["n1", "n2", "n3"].map((id, index) => ({ id, raftId: String(index + 1) }));
  return {
    nodes: new Map(nodes.map((record) => [record.id, record])),
    pools: new Map(pools.map((record) => [record.id, record])),
    volumes: new Map(volumes.map((record) => [record.uuid, record])),
    replicas: new Map(replicas.map((record) => [record.uuid, record])),
    nexuses: new Map(),
    snapshots: new Map(),
  } as unknown as StoreView;
}

const empty = stored();

describe("records from disks", () => {
  test("of pools, volumes and replicas; who is behind is not healthy", () => {
    const found = [
      node("n1", { pools: [pool("p1", 1)], replicas: [replica(1, "p1", V1, { hosts: ["h"] })] }),
      node("n2", { pools: [pool("p2", 2)], replicas: [replica(2, "p2", V1, { generation: 4 })] }),
      node("n3", {
        pools: [pool("p3", 3)],
        replicas: [replica(3, "p3", V1), replica(4, "p3", V2, { epoch: 0, generation: 0 })],
      }),
    ];
    const { groups, report } = deriveRecords(empty, found, 1_000);
    expect(puts(groups, "pools").map(({ id, nodeId, disks }) => [id, nodeId, disks])).toEqual([
      ["p1", "n1", ["/dev/disk/by-id/p1"]],
      ["p2", "n2", ["/dev/disk/by-id/p2"]],
      ["p3", "n3", ["/dev/disk/by-id/p3"]],
    ]);
    expect(
      puts(groups, "replicas").map((r) => [r.uuid, r.volumeUuid, r.healthy, r.allowedHosts]),
    ).toEqual([
      [uuid(1), V1, true, ["h"]],
      [uuid(2), V1, false, null],
      [uuid(3), V1, true, null],
      [uuid(4), V2, true, null],
    ]);
    expect(
      puts(groups, "volumes").map((r) => [r.uuid, r.replicaCount, r.epoch, r.target, r.sizeBytes]),
    ).toEqual([
      [V1, 3, 3, null, GIB],
      [V2, 1, 0, null, GIB],
    ]);
    expect(report).toMatchObject({ replicas: 4, snapshots: 0, nexuses: 0, problems: [] });
    expect(report.volumes.map(({ healthyReplicas }) => healthyReplicas)).toEqual([2, 1]);
    // Pools come last: until then nothing in them can be taken for garbage.
    expect(groups.at(-1)!.every(({ table }) => table === "pools")).toBe(true);
  });

  test("a volume that was not closed in order is not taken for one that was", () => {
    const one = node("n1", {
      pools: [pool("p1", 1)],
      replicas: [replica(1, "p1", V1, { clean: false }), replica(2, "p1", V2)],
    });
    const { groups } = deriveRecords(empty, [one], 0);
    expect(puts(groups, "volumes").map(({ cleanShutdown }) => cleanShutdown)).toEqual([
      false,
      true,
    ]);
  });

  test("a volume that is being served stays so; a superseded nexus gets no record", () => {
    const nexus = (number: number, epoch: number, state = "online") =>
      ({
        uuid: uuid(number),
        name: V1,
        volumeUuid: V1,
        epoch,
        sizeBytes: GIB,
        state,
        children: [{ uri: `bdev:///${uuid(1)}` }, { uri: `nvmf://10.0.0.2/nqn?uuid=${uuid(2)}` }],
        shares: [
          { protocol: "nvmf", uri: "", nqn: "q", allowedHosts: ["nqn.host"], anaState: null },
        ],
      }) as unknown as EngineNexus;
    const found = [
      node("n1", {
        pools: [pool("p1", 1)],
        replicas: [replica(1, "p1", V1, { epoch: 7 })],
        nexuses: [nexus(50, 7)],
      }),
      node("n2", {
        pools: [pool("p2", 2)],
        replicas: [replica(2, "p2", V1, { epoch: 7 })],
        nexuses: [nexus(51, 6)],
      }),
    ];
    const { groups, report } = deriveRecords(empty, found, 0);
    const [volume] = puts(groups, "volumes");
    expect(volume).toMatchObject({ epoch: 7, incarnation: 7, cleanShutdown: false });
    expect(volume!.target).toMatchObject({
      nexusUuid: uuid(50),
      nodeId: "n1",
      frontendNodes: [{ name: "nqn.host", nqn: "nqn.host" }],
    });
    const nexuses = puts(groups, "nexuses");
    expect(nexuses.map((r) => [r.uuid, r.epoch, r.allowedHosts])).toEqual([
      [uuid(50), 7, ["nqn.host"]],
    ]);
    expect(nexuses[0]!.children.map(({ replicaUuid }) => replicaUuid)).toEqual([uuid(1), uuid(2)]);
    expect(report.volumes[0]!.servedBy).toBe("n1");
    // A newer replica than any nexus: none of them is the volume's any more.
    const behind = deriveRecords(empty, [node("n1", { ...found[0]!, nexuses: [nexus(52, 6)] })], 0);
    expect(puts(behind.groups, "volumes")[0]!.target).toBeNull();
    expect(puts(behind.groups, "nexuses")).toEqual([]);
  });

  test("pools of one name on two nodes are left, with what is in them, and told", () => {
    const found = [
      node("n1", { pools: [pool("p1", 1)], replicas: [replica(1, "p1", V1)] }),
      node("n2", { pools: [pool("p1", 2)], replicas: [replica(2, "p1", V2)] }),
    ];
    const { groups, report } = deriveRecords(empty, found, 0);
    expect(groups).toEqual([]);
    expect(report.pools.map(({ action }) => action)).toEqual(["left", "left"]);
    expect(report.problems.length).toBe(2);
  });

  test("snapshots belong together by what they were taken for; an attempt that failed is left out", () => {
    const snapshot = (number: number, source: number, poolName: string, txnId: string) =>
      ({
        uuid: uuid(number),
        sourceUuid: uuid(source),
        poolName,
        sizeBytes: GIB,
        txnId,
        entityId: uuid(70),
        createdAtMs: 500,
      }) as unknown as EngineSnapshot;
    const found = [
      node("n1", {
        pools: [pool("p1", 1)],
        replicas: [replica(1, "p1", V1)],
        snapshots: [snapshot(80, 1, "p1", "1"), snapshot(81, 1, "p1", "2")],
      }),
      node("n2", {
        pools: [pool("p2", 2)],
        replicas: [replica(2, "p2", V1)],
        snapshots: [snapshot(82, 2, "p2", "2"), snapshot(83, 99, "p2", "1")],
      }),
    ];
    const { groups, report } = deriveRecords(empty, found, 0);
    const [record, ...more] = puts(groups, "snapshots");
    expect(more).toEqual([]);
    expect(record).toMatchObject({ uuid: uuid(70), volumeUuid: V1, txnId: 2, takenAtMs: 500 });
    expect(record!.replicas.map((one) => one.uuid)).toEqual([uuid(81), uuid(82)]);
    expect(report.problems.length).toBe(1);
  });

  test("replicas without a volume stay alone; sizes that differ are told", () => {
    const found = [
      node("n1", {
        pools: [pool("p1", 1)],
        replicas: [
          replica(1, "p1", "", { entityId: "by hand" }),
          replica(2, "p1", V1, { sizeBytes: 2 * GIB }),
          replica(3, "p1", V1),
        ],
      }),
    ];
    const { groups, report } = deriveRecords(empty, found, 0);
    expect(puts(groups, "replicas").find((r) => r.uuid === uuid(1))!.volumeUuid).toBeNull();
    expect(puts(groups, "volumes")[0]!.sizeBytes).toBe(GIB);
    expect(report.problems[0]).toContain("differ in size");
  });

  test("what has a record already gets none", () => {
    const found = [node("n1", { pools: [pool("p1", 1)], replicas: [replica(1, "p1", V1)] })];
    const first = deriveRecords(empty, found, 0);
    const known = stored({
      pools: puts(first.groups, "pools"),
      volumes: puts(first.groups, "volumes"),
      replicas: puts(first.groups, "replicas"),
    });
    const again = deriveRecords(known, found, 0);
    expect(again.groups).toEqual([]);
    expect(again.report.pools[0]!.action).toBe("present");
    expect(again.report.volumes[0]!.action).toBe("present");
  });
});
