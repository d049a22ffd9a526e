/**
 * Scenarios Four, Five and Six of Mayastor's replica operations: three nodes with two pools each and
 * a volume of three replicas. A host goes down; the volume is scaled down to what is left, and up
 * again when the host is back.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import {
  Cluster,
  endClusters,
  replicaNodes,
  replicaPools,
  watchVolume,
} from "../../support/cluster.ts";
import { type Application, startApplication } from "../../support/cluster-load.ts";
import { enginesMatch, expectSameBytes } from "../../support/cluster-replicas.ts";

const MIB = 1 << 20;
const POOL_BYTES = 512 * MIB;
const VOLUME_BYTES = 96 * MIB;
const TEST_MS = 240_000;
const uuid = randomUUID();
let cluster: Cluster;
let application: Application | undefined;

beforeAll(async () => {
  cluster = await Cluster.start(3);
  for (const [index, node] of cluster.nodes.entries()) {
    for (const letter of ["a", "b"]) {
      await cluster.createPool(node, `pool-${index + 1}-${letter}`, POOL_BYTES);
    }
  }
  // A replica that is away is given up soon: the test does not wait ten minutes for that.
  await cluster.set({ faultedChildWaitMs: 1000 });
}, TEST_MS);

afterAll(async () => {
  await application?.terminate();
  await endClusters();
});

test(
  "scenario four: without another node for it the lost replica is not replaced",
  async () => {
    const created = await cluster.rest.createVolume(uuid, {
      size: VOLUME_BYTES,
      replicas: 3,
      thin: false,
      policy: { self_heal: true },
    });
    expect(created.state.status).toBe("Online");
    expect(replicaPools(created)).toEqual(["pool-1-a", "pool-2-a", "pool-3-a"]);
    const target = { protocol: "nvmf", node: "node-1", publish_context: {} } as const;
    const published = await cluster.rest.publishVolume(uuid, target);
    application = await startApplication(published, 32 * MIB);
    await application.progresses();

    const seen = watchVolume(cluster, uuid);
    await cluster.node("node-3").kill();
    await application.progresses();
    await cluster.leader();
    // It is the volume's no more in the end, though its node cannot be told.
    const degraded = await cluster.volumeUntil(
      "the lost replica leaving nexus and volume, and the nexus being online again",
      uuid,
      (volume) =>
        volume.state.status === "Degraded" &&
        volume.state.target?.state === "Online" &&
        volume.state.target.children.length === 2 &&
        Bun.deepEquals(replicaNodes(volume), ["node-1", "node-2"]),
    );
    await seen.stop();
    expect([...seen.children]).toContain("pool-3-a Faulted");
    expect(degraded.spec.num_replicas).toBe(3);
    // There is no node for another one: nothing is left to do, and the volume stays degraded.
    await cluster.isSettled();
    const later = await cluster.rest.volume(uuid);
    expect(later.state.status).toBe("Degraded");
    expect(replicaNodes(later)).toEqual(["node-1", "node-2"]);
    await application.progresses();
  },
  TEST_MS,
);

test(
  "scenario five: scaled down to what is left, the volume is online",
  async () => {
    await cluster.rest.setReplicaCount(uuid, 2);
    const online = await cluster.volumeUntil(
      "the volume being online",
      uuid,
      ({ state }) => state.status === "Online",
    );
    expect(online.spec.num_replicas).toBe(2);
    expect(replicaNodes(online)).toEqual(["node-1", "node-2"]);
    expect(online.state.target!.children.map(({ state }) => state)).toEqual(["Online", "Online"]);
    await application!.progresses();
  },
  TEST_MS,
);

test(
  "scenario six: the host is back, and scaled up the volume has a replica there again",
  async () => {
    await cluster.node("node-3").start();
    await cluster.isWhole();
    await cluster.poolIs("pool-3-a", "Online");
    await cluster.poolIs("pool-3-b", "Online");
    // What was left there of the volume is cleared away.
    await enginesMatch(cluster);
    const seen = watchVolume(cluster, uuid);
    await cluster.rest.setReplicaCount(uuid, 3);
    const whole = await cluster.volumeUntil(
      "three replicas in sync",
      uuid,
      (volume) =>
        volume.state.status === "Online" &&
        Bun.deepEquals(replicaNodes(volume), ["node-1", "node-2", "node-3"]),
    );
    await seen.stop();
    expect([...seen.volume].sort()).toEqual(["Degraded", "Online"]);
    expect(whole.spec.num_replicas).toBe(3);
    await application!.progresses();
    await application!.endsIntact();
    await cluster.rest.unpublishVolume(uuid, false);
    await enginesMatch(cluster);
    await expectSameBytes(cluster, uuid);
  },
  TEST_MS,
);
