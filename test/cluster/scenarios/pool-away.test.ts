/**
 * Scenarios Two and Three of Mayastor's replica operations: one pool on each of three nodes. The disk
 * under one replica of two is detached, the replica is replaced on the third node; then the disk comes
 * back and the volume is scaled up to three.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { Cluster, endClusters, replicaPools, watchVolume } from "../../support/cluster.ts";
import { type Application, startApplication } from "../../support/cluster-load.ts";
import { enginesMatch, expectSameBytes } from "../../support/cluster-replicas.ts";

const MIB = 1 << 20;
const POOL_BYTES = 512 * MIB;
const VOLUME_BYTES = 96 * MIB;
const TEST_MS = 180_000;
const uuid = randomUUID();
let cluster: Cluster;
let application: Application | undefined;

beforeAll(async () => {
  cluster = await Cluster.start(3);
  for (const [index, node] of cluster.nodes.entries()) {
    await cluster.createPool(node, `pool-${index + 1}`, POOL_BYTES);
  }
  // A replica that is away is given up soon: the test does not wait ten minutes for that.
  await cluster.set({ faultedChildWaitMs: 1000 });
}, TEST_MS);

afterAll(async () => {
  await application?.terminate();
  await endClusters();
});

test(
  "scenario two: a replica whose disk is detached is replaced on the third node",
  async () => {
    const created = await cluster.rest.createVolume(uuid, {
      size: VOLUME_BYTES,
      replicas: 2,
      thin: false,
      policy: { self_heal: true },
    });
    expect(created.state.status).toBe("Online");
    expect(replicaPools(created)).toEqual(["pool-1", "pool-2"]);
    const target = { protocol: "nvmf", node: "node-1", publish_context: {} } as const;
    const published = await cluster.rest.publishVolume(uuid, target);
    application = await startApplication(published, 32 * MIB);
    await application.progresses();

    const seen = watchVolume(cluster, uuid);
    await cluster.failDisk(cluster.node("node-2"), "pool-2");
    await application.progresses();
    const healed = await cluster.volumeUntil(
      "a replica on the third node, in sync",
      uuid,
      (volume) =>
        volume.state.status === "Online" &&
        Bun.deepEquals(replicaPools(volume), ["pool-1", "pool-3"]),
    );
    await seen.stop();
    expect([...seen.children]).toContain("pool-2 Faulted");
    expect([...seen.volume]).toContain("Degraded");
    expect([...seen.children]).toContain("pool-3 Degraded");
    expect(healed.spec.num_replicas).toBe(2);
    expect(healed.state.target).toMatchObject({ node: "node-1", state: "Online" });
    await application.progresses();
  },
  TEST_MS,
);

test(
  "scenario three: scaled up, the volume gets its third replica where the disk is back",
  async () => {
    await cluster.mendDisk(cluster.node("node-2"), "pool-2");
    const seen = watchVolume(cluster, uuid);
    const scaled = await cluster.rest.setReplicaCount(uuid, 3);
    expect(scaled.spec.num_replicas).toBe(3);
    const whole = await cluster.volumeUntil(
      "three replicas in sync",
      uuid,
      (volume) =>
        volume.state.status === "Online" &&
        Bun.deepEquals(replicaPools(volume), ["pool-1", "pool-2", "pool-3"]),
    );
    await seen.stop();
    // The difference between what is and what is wanted shows until the copy is made.
    expect([...seen.volume].sort()).toEqual(["Degraded", "Online"]);
    expect([...seen.children]).toContain("pool-2 Degraded");
    expect(whole.state.target!.children.map(({ state }) => state)).toEqual([
      "Online",
      "Online",
      "Online",
    ]);
    await application!.progresses();
    await application!.endsIntact();
    // The replica that was given up is gone from its pool.
    await enginesMatch(cluster);
    await cluster.rest.unpublishVolume(uuid, false);
    await expectSameBytes(cluster, uuid);
  },
  TEST_MS,
);
