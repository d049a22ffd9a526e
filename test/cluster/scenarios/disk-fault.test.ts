/**
 * Scenario One of Mayastor's replica operations: two pools on each of two nodes; the disk of one
 * fails under a volume in use. Every state named there is looked for, through the API.
 */
import { afterAll, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import type { Volume } from "../../../src/client/types.ts";
import {
  Cluster,
  endClusters,
  replicaPools,
  waitUntil,
  watchVolume,
} from "../../support/cluster.ts";
import { type Application, startApplication } from "../../support/cluster-load.ts";
import { enginesMatch, expectSameBytes } from "../../support/cluster-replicas.ts";

const MIB = 1 << 20;
const POOL_BYTES = 512 * MIB;
const VOLUME_BYTES = 96 * MIB;
const TEST_MS = 180_000;
let application: Application | undefined;

afterAll(async () => {
  await application?.terminate();
  await endClusters();
});

test(
  "scenario one: a faulted replica is replaced by one in another pool of its node",
  async () => {
    // The third node votes and holds nothing: a cluster of two could lose no one.
    const cluster = await Cluster.start(3);
    const [one, two] = cluster.nodes;
    for (const letter of ["a", "b"]) {
      await cluster.createPool(one!, `pool-1-${letter}`, POOL_BYTES);
      await cluster.createPool(two!, `pool-2-${letter}`, POOL_BYTES);
    }
    // A replica that is away is given up soon: the test does not wait ten minutes for that.
    await cluster.set({ faultedChildWaitMs: 1000 });
    const uuid = randomUUID();
    const created = await cluster.rest.createVolume(uuid, {
      size: VOLUME_BYTES,
      replicas: 2,
      thin: false,
      policy: { self_heal: true },
    });
    // One replica on each node, in the first of its pools, all being equal.
    expect(created.spec.status).toBe("Created");
    expect(created.state.status).toBe("Online");
    expect(replicaPools(created)).toEqual(["pool-1-a", "pool-2-a"]);

    const published = await cluster.rest.publishVolume(uuid, {
      protocol: "nvmf",
      node: "node-1",
      publish_context: {},
    });
    expect(published.state.target).toMatchObject({ node: "node-1", state: "Online" });
    expect(published.state.target!.children.map(({ state }) => state)).toEqual([
      "Online",
      "Online",
    ]);
    application = await startApplication(published, 32 * MIB);
    await application.progresses();

    const seen = watchVolume(cluster, uuid);
    const faulty = replicaIn(created, "pool-2-a");
    await cluster.failDisk(two!, "pool-2-a");
    // The volume goes on being read and written.
    await application.progresses();
    const healed = await cluster.volumeUntil(
      "a new replica in the other pool, in sync",
      uuid,
      ({ state }) =>
        state.status === "Online" &&
        Object.keys(state.replica_topology).length === 2 &&
        state.replica_topology[faulty] === undefined &&
        state.target?.children.length === 2,
    );
    await seen.stop();
    // On its way: the child is faulted, the volume degraded; the nexus without it is online.
    expect([...seen.children]).toContain("pool-2-a Faulted");
    expect([...seen.volume]).toContain("Degraded");
    expect([...seen.nexus]).not.toContain("Faulted");
    expect([...seen.counts]).toContain("Online 1");
    expect([...seen.children]).toContain("pool-2-b Degraded");
    expect(replicaPools(healed)).toEqual(["pool-1-a", "pool-2-b"]);
    expect(healed.state.target!.state).toBe("Online");

    await application.progresses();
    await application.endsIntact();
    await cluster.rest.unpublishVolume(uuid, false);
    await cluster.volumeUntil(
      "the volume being online without a target",
      uuid,
      ({ state }) => state.status === "Online" && state.target == null,
    );
    await expectSameBytes(cluster, uuid);

    // A pool whose disk is not coming back is forgotten although its engine has it open, and closed.
    await cluster.poolIs("pool-2-a", "Faulted");
    await cluster.failDisk(one!, "pool-1-b");
    await cluster.poolIs("pool-1-b", "Faulted");
    await cluster.rest.deletePool("pool-1-b", {
      purge: true,
      accept: true,
      accept_volume_loss: false,
      accept_snapshot_loss: false,
    });
    const open = () => one!.engine.listPools({});
    await waitUntil("the pool being closed", open, (pools) =>
      pools.every(({ name }) => name !== "pool-1-b"),
    );
    // One whose disk returns is taken back in, and what was replaced is removed from it.
    await cluster.mendDisk(two!, "pool-2-a");
    await enginesMatch(cluster);
  },
  TEST_MS,
);

/** UUID of the replica in a pool. */
function replicaIn({ state }: Volume, pool: string): string {
  return Object.entries(state.replica_topology).find(([, one]) => one.pool === pool)![0];
}
