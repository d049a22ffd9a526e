/**
 * The ways out of great losses, with real processes: a majority that is gone for good, and a store that
 * is gone on every node.
 */
import { afterEach, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Cluster, type ClusterNode, endClusters, waitUntil } from "../../support/cluster.ts";
import { expectSameBytes } from "../../support/cluster-replicas.ts";

const MIB = 1 << 20;
const VOLUME_BYTES = 64 * MIB;
const TEST_MS = 240_000;

afterEach(endClusters);

/** What makes a data directory a member's: gone, as with a lost system disk. */
function loseStore(node: ClusterNode): void {
  for (const name of readdirSync(node.dataDir)) {
    if (name === "cluster" || name.startsWith("store.sqlite") || name === "control.lock") {
      rmSync(join(node.dataDir, name), { recursive: true });
    }
  }
}

/** What a command says when it fails. (`expect().rejects` waits in a way in which processes stand still.) */
function failureOf(command: Promise<string>): Promise<string> {
  return command.then(
    () => "it did not fail",
    (error: Error) => error.message,
  );
}

async function twoNodesWithVolume() {
  const cluster = await Cluster.start(2);
  const [one, two] = cluster.nodes as [ClusterNode, ClusterNode];
  await cluster.createPool(one, "pool-1", 256 * MIB);
  await cluster.createPool(two, "pool-2", 256 * MIB);
  const uuid = randomUUID();
  const body = { size: VOLUME_BYTES, replicas: 2, thin: false, policy: { self_heal: true } };
  await cluster.rest.createVolume(uuid, body);
  await cluster.rest.publishVolume(uuid, { protocol: "nvmf", node: one.name, publish_context: {} });
  await cluster.rest.unpublishVolume(uuid, false);
  await cluster.isSettled();
  return { cluster, one, two, uuid };
}

test(
  "a store that is lost on every node is made again of what the disks hold",
  async () => {
    const { cluster, one, two, uuid } = await twoNodesWithVolume();
    const before = await cluster.rest.volume(uuid);
    await Promise.all([one.kill(), two.kill()]);
    loseStore(one);
    loseStore(two);
    await one.init();
    await one.start();
    await two.join(one);
    await two.start();
    await cluster.isWhole();
    expect(await cluster.rest.volumes()).toEqual([]);

    const rebuild = async (...more: string[]) => {
      const disks = [one, two].flatMap((node, index) => {
        const pool = `pool-${index + 1}`;
        return ["--disk", `${node.name}=${pool}=${join(node.folder, `${pool}.img`)}`];
      });
      const args = ["rebuild-from-disks", "--rest", one.restUrl, ...disks, ...more];
      return one.run("cluster", ...args);
    };
    // Without agreement nothing is written.
    expect(await rebuild()).toContain(uuid);
    expect(await cluster.rest.volumes()).toEqual([]);
    const text = await rebuild("--yes");
    expect(text).toContain("records of 2 replicas, 0 snapshots and 0 targets made");

    await cluster.poolIs("pool-1", "Online");
    await cluster.poolIs("pool-2", "Online");
    const after = await cluster.volumeUntil(
      "the volume being online",
      uuid,
      ({ state }) => state.status === "Online",
    );
    expect(after.spec).toMatchObject({
      uuid,
      size: VOLUME_BYTES,
      num_replicas: 2,
      status: "Created",
    });
    expect(Object.keys(after.state.replica_topology).toSorted()).toEqual(
      Object.keys(before.state.replica_topology).toSorted(),
    );
    // It can be used again, and a repetition finds nothing to do.
    const published = await cluster.rest.publishVolume(uuid, {
      protocol: "nvmf",
      node: two.name,
      publish_context: {},
    });
    expect(published.state.target).toMatchObject({ node: two.name, state: "Online" });
    expect(await rebuild("--yes")).toContain("records of 0 replicas, 0 snapshots and 0 targets");
    await cluster.rest.unpublishVolume(uuid, false);
    await cluster.isSettled();
    await expectSameBytes(cluster, uuid);
  },
  TEST_MS,
);

test(
  "the survivor of a lost majority goes on alone; the lost node comes back under its name",
  async () => {
    const { cluster, one, two, uuid } = await twoNodesWithVolume();
    const recover = (...more: string[]) =>
      one.run("cluster", "recover", "--data-dir", one.dataDir, ...more);
    expect(await failureOf(recover("--yes"))).toContain("is used by another control process");
    await one.stop();
    expect(await failureOf(recover("--yes"))).toContain("other members answer: node-2");
    await two.kill();
    expect(await failureOf(recover())).toContain("nothing was changed");
    expect(await recover("--yes")).toContain("is the only member now (raft id 1000000)");
    await one.start();
    await waitUntil(
      "node-1 leading alone",
      () => one.rest.cluster(),
      ({ leader, members }) => leader === "node-1" && members.length === 1,
    );
    const [known] = await one.rest.volumes();
    expect(known!.spec.uuid).toBe(uuid);
    // Changes are possible again.
    await one.rest.labelNode("node-1", "survivor", "yes", false);
    loseStore(two);
    await two.join(one);
    await two.start();
    await cluster.isWhole();
    await cluster.volumeUntil("the volume being whole", uuid, ({ state }) => {
      const replicas = Object.values(state.replica_topology);
      return state.status === "Online" && replicas.length === 2;
    });
  },
  TEST_MS,
);
