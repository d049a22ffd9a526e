/**
 * A volume of a whole cluster under a Linux host: the nodes decide for themselves what to do when one of
 * them dies, the host only goes on.
 */

import { afterAll, afterEach, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { Cluster, type ClusterNode, endClusters } from "../support/cluster.ts";
import { isWholeWith } from "../support/cluster-volumes.ts";
import { IO_PORT, nqnOf } from "./engine.ts";
import { SET_UP_TIMEOUT_MS, TEST_TIMEOUT_MS } from "./limits.ts";
import { moreWritten, underLoad } from "./load.ts";
import { Guest } from "./vm.ts";

const MIB = 1 << 20;
const POOL_BYTES = 256 * MIB;
const VOLUME_BYTES = 96 * MIB;
/** Reconnect every second, for ten minutes. */
const CONNECT_OPTIONS = "-c 1 -l 600 -k 5";

let guest: Guest;
let cluster: Cluster;

setDefaultTimeout(TEST_TIMEOUT_MS);

beforeAll(async () => {
  [guest, cluster] = await Promise.all([Guest.boot(), Cluster.start(3)]);
  for (const node of cluster.nodes) await cluster.createPool(node, `pool-${node.name}`, POOL_BYTES);
}, SET_UP_TIMEOUT_MS);

afterAll(async () => {
  await guest?.stop();
  await endClusters();
});

afterEach(() => guest.ok("detach_all"));

/** Publishes a new volume of three replicas on a node and connects the host to it. */
async function published(node: ClusterNode): Promise<{ uuid: string; device: string }> {
  const uuid = randomUUID();
  await cluster.rest.createVolume(uuid, {
    size: VOLUME_BYTES,
    replicas: 3,
    thin: false,
    policy: { self_heal: true },
  });
  await cluster.rest.publishVolume(uuid, {
    protocol: "nvmf",
    node: node.name,
    publish_context: {},
  });
  const device = await guest.ok(
    `attach ${nqnOf(uuid)} ${node.address} ${IO_PORT} ${CONNECT_OPTIONS}`,
  );
  return { uuid, device };
}

const isWhole = isWholeWith(3);

test("nodes die under a mounted file system, the target's too, and come back by themselves", async () => {
  const [first, , third] = cluster.nodes as [ClusterNode, ClusterNode, ClusterNode];
  const { uuid, device } = await published(first);
  const nqn = nqnOf(uuid);
  const moreWrites = () => moreWritten(guest, nqn, first.address);
  await guest.ok(`mkfs.ext4 -q ${device}; mount ${device} /mnt`);
  await underLoad(guest, { target: "/mnt" }, async () => {
    await moreWrites();
    await third.kill();
    await cluster.volumeUntil("two of three copies", uuid, ({ state }) => {
      return state.status === "Degraded";
    });
    await moreWrites();
    await third.start();
    await cluster.volumeUntil("three copies again", uuid, isWhole);
    await first.kill();
    await guest.ok(`wait_for 20 has_live_paths ${nqn} 0`);
    await first.start();
    await guest.ok(`wait_for 60 has_live_paths ${nqn} 1`);
    await moreWrites();
    await cluster.volumeUntil("three copies after the target's end", uuid, isWhole);
  });
  await guest.ok(`umount /mnt; fsck.ext4 -fn ${device}`);
  await guest.ok("detach_all");
  await cluster.rest.unpublishVolume(uuid, false);
  await cluster.rest.deleteVolume(uuid);
});

test("a volume is moved to another node under a mounted file system", async () => {
  const [first, second] = cluster.nodes as [ClusterNode, ClusterNode];
  const { uuid, device } = await published(first);
  const nqn = nqnOf(uuid);
  await guest.ok(`mkfs.ext4 -q ${device}; mount ${device} /mnt`);
  await underLoad(guest, { target: "/mnt" }, async () => {
    await moreWritten(guest, nqn, first.address);
    await cluster.rest.publishVolume(uuid, {
      protocol: "nvmf",
      node: second.name,
      publish_context: {},
      republish: true,
    });
    await guest.ok(
      `add_path ${nqn} ${second.address} ${IO_PORT} reconnect_delay=1,ctrl_loss_tmo=600`,
    );
    await moreWritten(guest, nqn, second.address);
  });
  await guest.ok(`umount /mnt; fsck.ext4 -fn ${device}`);
  await guest.ok("detach_all");
  await cluster.rest.unpublishVolume(uuid, false);
  await cluster.rest.deleteVolume(uuid);
});

test("the kernel complained of nothing", () => {
  expect(guest.complaints()).toEqual([]);
});
