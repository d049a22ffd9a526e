/**
 * All nodes lose power at the same time, under load, and return in every order: the volume comes back by
 * itself with everything that was acknowledged, also where the first to return is the one that had
 * missed the last writes.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { Cluster, type ClusterNode, endClusters, waitUntil } from "../../support/cluster.ts";
import { type Application, startApplication } from "../../support/cluster-load.ts";
import { expectSameBytes } from "../../support/cluster-replicas.ts";

const MIB = 1 << 20;
const POOL_BYTES = 256 * MIB;
const VOLUME_BYTES = 64 * MIB;
const TEST_MS = 240_000;
const uuid = randomUUID();
let cluster: Cluster;
let application: Application | undefined;

beforeAll(async () => {
  cluster = await Cluster.start(3);
  for (const [index, node] of cluster.nodes.entries()) {
    await cluster.createPool(node, `pool-${index + 1}`, POOL_BYTES);
  }
  await cluster.rest.createVolume(uuid, {
    size: VOLUME_BYTES,
    replicas: 3,
    thin: true,
    policy: { self_heal: true },
  });
  const target = { protocol: "nvmf", node: "node-1", publish_context: {} } as const;
  application = await startApplication(await cluster.rest.publishVolume(uuid, target), 16 * MIB);
  await application.progresses();
}, TEST_MS);

afterAll(async () => {
  await application?.terminate();
  await endClusters();
});

/** Starts a node and waits until its engine answers. */
async function powerOn(node: ClusterNode): Promise<void> {
  node.spawn();
  await waitUntil(
    `the engine of ${node.name} answering`,
    () =>
      node.engine.getInfo({}).then(
        () => true,
        () => false,
      ),
    (answers) => answers,
  );
}

async function returns(order: readonly ClusterNode[]): Promise<void> {
  for (const node of order) await powerOn(node);
  await cluster.isWhole();
  await application!.progresses();
  await cluster.volumeUntil("all replicas in sync", uuid, ({ state }) => state.status === "Online");
}

const orders = [
  [0, 1, 2],
  [0, 2, 1],
  [1, 0, 2],
  [1, 2, 0],
  [2, 0, 1],
  [2, 1, 0],
] as const;

for (const order of orders) {
  test(
    `the nodes return in the order ${order.map((at) => at + 1).join(", ")}`,
    async () => {
      await Promise.all(cluster.nodes.map((node) => node.kill()));
      await returns(order.map((at) => cluster.nodes[at]!));
    },
    TEST_MS,
  );
}

test(
  "the first to return had missed the last writes",
  async () => {
    const [one, two, three] = cluster.nodes as [ClusterNode, ClusterNode, ClusterNode];
    await three.kill();
    await cluster.volumeUntil(
      "the volume going on without the third node",
      uuid,
      ({ state }) => state.status === "Degraded",
    );
    await application!.progresses(2_000);
    await Promise.all([one.kill(), two.kill()]);
    await returns([three, two, one]);
    // Every block that was ever acknowledged is read back.
    await application!.endsIntact();
    await cluster.rest.unpublishVolume(uuid, false);
    await cluster.volumeUntil(
      "the volume being online without a target",
      uuid,
      ({ state }) => state.status === "Online" && state.target == null,
    );
    await expectSameBytes(cluster, uuid);
    expect(Object.keys((await cluster.rest.volume(uuid)).state.replica_topology)).toHaveLength(3);
  },
  TEST_MS,
);
