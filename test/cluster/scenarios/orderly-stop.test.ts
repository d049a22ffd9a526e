/** A node that is stopped in order hands over what it serves before its engine ends. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { Cluster, endClusters, waitUntil } from "../../support/cluster.ts";

const MIB = 1 << 20;
const TEST_MS = 120_000;
let cluster: Cluster;

beforeAll(async () => {
  cluster = await Cluster.start(3);
  for (const [index, node] of cluster.nodes.entries()) {
    await cluster.createPool(node, `pool-${index + 1}`, 256 * MIB);
  }
}, TEST_MS);

afterAll(endClusters);

async function publishOn(node: string, replicas: number): Promise<string> {
  const uuid = randomUUID();
  await cluster.rest.createVolume(uuid, {
    size: 16 * MIB,
    replicas,
    thin: true,
    policy: { self_heal: true },
    ...(replicas > 1
      ? {}
      : {
          topology: { node_topology: { explicit: { allowed_nodes: [node], preferred_nodes: [] } } },
        }),
  });
  await cluster.rest.publishVolume(uuid, { protocol: "nvmf", node, publish_context: {} });
  return uuid;
}

test(
  "its targets move first, and it is used again when it is back",
  async () => {
    const leader = await cluster.leader();
    // One that does not lead: the leader has to be asked.
    const node = cluster.nodes.find((one) => one !== leader)!;
    const served = [await publishOn(node.name, 2), await publishOn(node.name, 3)];
    const single = await publishOn(node.name, 1);
    expect(await node.stop()).toBe(0);
    // Already: nobody has noticed that the node is away by now.
    for (const uuid of served) {
      const { state } = await leader.rest.volume(uuid);
      expect(state.target?.node).not.toBe(node.name);
      expect(["Online", "Degraded"]).toContain(state.target!.state);
    }
    expect(node.log()).toContain("its targets move");
    // What lies on it alone stays, and comes back with it.
    expect((await leader.rest.volume(single)).state.target?.node).toBe(node.name);
    await node.start();
    await cluster.isWhole();
    await cluster.volumeUntil(
      "the volume with the only replica being served again",
      single,
      ({ state }) => state.status === "Online" && state.target?.node === node.name,
    );
    const labels = await waitUntil(
      "the drain having ended",
      async () => (await cluster.rest.node(node.name)).spec?.cordondrainstate ?? null,
      (state) => state === null,
    );
    expect(labels).toBeNull();
    for (const uuid of served) {
      await cluster.volumeUntil("all replicas", uuid, ({ state }) => state.status === "Online");
    }
  },
  TEST_MS,
);
