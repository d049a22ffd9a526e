import { describe, expect, test } from "bun:test";
import {
  deviceBytes,
  largestAllocation,
  type PoolRoom,
  poolRoom,
  whyNoRoom,
  whyNoRoomForSnapshot,
  whyNoRoomToGrow,
} from "../../../../src/control/planner/capacity.ts";
import { createReplica } from "../../../../src/control/planner/decide/index.ts";
import { defaultSettings, GiB, MiB, PlannedCluster } from "../../../support/planned-cluster.ts";

function room(changes: Partial<PoolRoom> = {}): PoolRoom {
  return {
    poolId: "pool-1",
    capacityBytes: 10 * GiB,
    usedBytes: 0,
    freeBytes: 10 * GiB,
    committedBytes: 0,
    clusterBytes: 4 * MiB,
    replicas: 0,
    ...changes,
  };
}

function thick(sizeBytes: number) {
  return { sizeBytes, thin: false, allocatedBytes: 0, commitmentPercent: 40 };
}

function thin(sizeBytes: number, allocatedBytes = 0) {
  return { sizeBytes, thin: true, allocatedBytes, commitmentPercent: 40 };
}

const settings = defaultSettings;

describe("the size of a device", () => {
  test("is what was asked for, in whole blocks", () => {
    expect(deviceBytes(GiB)).toBe(GiB);
    expect(deviceBytes(1)).toBe(4096);
    expect(deviceBytes(10_485_761)).toBe(10_489_856);
  });
});

describe("a thick replica", () => {
  test("needs free clusters for all of it", () => {
    expect(whyNoRoom(settings, room({ freeBytes: GiB }), thick(GiB))).toBeNull();
    expect(whyNoRoom(settings, room({ freeBytes: GiB - 1 }), thick(GiB))).toContain("needed");
    // Not a whole number of clusters: one more is taken.
    expect(whyNoRoom(settings, room({ freeBytes: GiB }), thick(GiB + 1))).toContain("needed");
    expect(whyNoRoom(settings, room({ freeBytes: GiB + 4 * MiB }), thick(GiB + 1))).toBeNull();
  });

  test("is never larger than its pool", () => {
    const why = whyNoRoom(settings, room(), thick(11 * GiB));
    expect(why).toBe("its capacity is 10.0 GiB, 11.0 GiB needed");
  });
});

describe("a thin replica", () => {
  test("needs more than 16 MiB free whatever its size", () => {
    expect(whyNoRoom(settings, room({ freeBytes: 16 * MiB }), thin(MiB))).toContain("16.0 MiB");
    expect(whyNoRoom(settings, room({ freeBytes: 16 * MiB + 1 }), thin(MiB))).toBeNull();
  });

  test("is promised until the pool's commitment is reached", () => {
    const limit = 25 * GiB; // 250 % of 10 GiB
    const below = room({ committedBytes: limit - GiB - 4096 });
    expect(whyNoRoom(settings, below, thin(GiB))).toBeNull();
    const at = room({ committedBytes: limit - GiB });
    expect(whyNoRoom(settings, at, thin(GiB))).toContain("committed, limit 25.0 GiB (250%");
  });

  test("needs a share of its size free, and what it holds at once; never more than its size", () => {
    const share = (GiB * 40) / 100;
    expect(whyNoRoom(settings, room({ freeBytes: share }), thin(GiB))).toContain("needed");
    expect(whyNoRoom(settings, room({ freeBytes: share + 1 }), thin(GiB))).toBeNull();
    const held = GiB / 2;
    expect(whyNoRoom(settings, room({ freeBytes: share + held }), thin(GiB, held))).not.toBeNull();
    expect(whyNoRoom(settings, room({ freeBytes: share + held + 1 }), thin(GiB, held))).toBeNull();
    expect(whyNoRoom(settings, room({ freeBytes: GiB + 1 }), thin(GiB, GiB))).toBeNull();
  });
});

describe("growth", () => {
  test("of a thick replica takes the difference in clusters", () => {
    const replica = { sizeBytes: GiB, thin: false };
    const tight = room({ freeBytes: GiB });
    expect(whyNoRoomToGrow(settings, tight, replica, 2 * GiB)).toBeNull();
    expect(whyNoRoomToGrow(settings, tight, replica, 2 * GiB + 1)).toContain("needed");
    expect(whyNoRoomToGrow(settings, room(), replica, 11 * GiB)).toContain("capacity");
  });

  test("of a thin replica is bound by commitment", () => {
    const replica = { sizeBytes: GiB, thin: true };
    const committed = room({ freeBytes: 0, committedBytes: 23 * GiB });
    expect(whyNoRoomToGrow(settings, committed, replica, 2 * GiB)).toBeNull();
    expect(whyNoRoomToGrow(settings, committed, replica, 3 * GiB)).toContain("committed");
  });
});

describe("a snapshot", () => {
  test("needs a share of the volume's size free", () => {
    const share = (GiB * 40) / 100;
    expect(whyNoRoomForSnapshot(settings, room({ freeBytes: share + 1 }), GiB)).toBeNull();
    expect(whyNoRoomForSnapshot(settings, room({ freeBytes: share }), GiB)).toContain("free");
  });
});

describe("the room of a pool", () => {
  const request = (uuid: string, sizeBytes: number, isThin = false) =>
    ({ poolId: "pool-1", uuid, sizeBytes, thin: isThin, share: false, allowedHosts: [] }) as const;

  test("counts replicas that are recorded and not made yet, and no replica twice", () => {
    const cluster = PlannedCluster.ofNodes(1, 10 * GiB);
    const uuid = cluster.uuid();
    cluster.run((state) => createReplica(state, request(uuid, GiB)));
    const recorded = poolRoom(cluster.state(), "pool-1")!;
    expect(recorded.usedBytes).toBe(GiB);
    expect(recorded.committedBytes).toBe(GiB);
    expect(recorded.replicas).toBe(1);
    cluster.carryOut();
    expect(poolRoom(cluster.state(), "pool-1")).toEqual(recorded);
  });

  test("adds what is not made yet to whatever the pool holds already", () => {
    const cluster = PlannedCluster.ofNodes(1, 10 * GiB);
    cluster.run((state) => createReplica(state, request(cluster.uuid(), GiB)));
    const state = cluster.state();
    const node = state.observed.get("node-1")!;
    // Snapshots and replicas that nobody has recorded.
    const held = { ...node.pools.get("pool-1")!, usedBytes: 7 * GiB, committedBytes: 6 * GiB };
    const observed = new Map([["node-1", { ...node, pools: new Map([["pool-1", held]]) }]]);
    expect(poolRoom({ ...state, observed }, "pool-1")).toMatchObject({
      usedBytes: 8 * GiB,
      freeBytes: 2 * GiB,
      committedBytes: 7 * GiB,
    });
  });

  test("counts thin replicas as promised, not as used", () => {
    const cluster = PlannedCluster.ofNodes(1, 10 * GiB);
    const uuid = cluster.uuid();
    cluster.run((state) => createReplica(state, request(uuid, GiB, true)));
    expect(poolRoom(cluster.state(), "pool-1")).toMatchObject({
      usedBytes: 0,
      committedBytes: GiB,
    });
    cluster.carryOut();
    cluster.allocate(uuid, 8 * MiB);
    expect(poolRoom(cluster.state(), "pool-1")).toMatchObject({
      usedBytes: 8 * MiB,
      committedBytes: GiB,
    });
  });

  test("counts a replica that is to grow by what it will have", () => {
    const cluster = PlannedCluster.ofNodes(1, 10 * GiB);
    const uuid = cluster.uuid();
    cluster.run((state) => createReplica(state, request(uuid, GiB)));
    cluster.carryOut();
    cluster.edit("replicas", uuid, { sizeBytes: 3 * GiB });
    cluster.edit("pools", "pool-1", {});
    expect(poolRoom(cluster.state(), "pool-1")).toMatchObject({
      usedBytes: 3 * GiB,
      committedBytes: 3 * GiB,
    });
  });

  test("does not fall below what is recorded when the engine's sums are older than its list", () => {
    const cluster = PlannedCluster.ofNodes(1, 10 * GiB);
    const uuid = cluster.uuid();
    cluster.run((state) => createReplica(state, request(uuid, GiB)));
    cluster.carryOut();
    const state = cluster.state();
    const node = state.observed.get("node-1")!;
    const stale = { ...node.pools.get("pool-1")!, usedBytes: 0, committedBytes: 0 };
    const observed = new Map([["node-1", { ...node, pools: new Map([["pool-1", stale]]) }]]);
    expect(poolRoom({ ...state, observed }, "pool-1")).toMatchObject({
      usedBytes: GiB,
      committedBytes: GiB,
    });
  });

  test("is not known of a pool that nobody has reported", () => {
    const cluster = PlannedCluster.ofNodes(1);
    cluster.engines.get("node-1")!.pools.clear();
    expect(poolRoom(cluster.state(), "pool-1")).toBeNull();
    expect(poolRoom(cluster.state(), "nowhere")).toBeNull();
  });

  test("a copy will hold what the fullest replica holds", () => {
    const cluster = PlannedCluster.ofNodes(2);
    const [a, b] = [cluster.uuid(), cluster.uuid()];
    cluster.run((state) => createReplica(state, request(a, GiB, true)));
    cluster.run((state) => createReplica(state, { ...request(b, GiB, true), poolId: "pool-2" }));
    cluster.carryOut();
    cluster.allocate(a, MiB);
    cluster.allocate(b, 5 * MiB);
    const replicas = [...cluster.stored.replicas.values()];
    expect(largestAllocation(cluster.state(), replicas)).toBe(5 * MiB);
    expect(largestAllocation(cluster.state(), [])).toBe(0);
  });
});
