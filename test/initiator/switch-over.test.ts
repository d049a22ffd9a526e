/**
 * A volume of a whole cluster under a Linux host that knows all its paths: whatever happens to the node
 * that serves it, the host goes on over another one and mounts nothing anew.
 */

import {
  afterAll,
  afterEach,
  beforeAll,
  beforeEach,
  expect,
  setDefaultTimeout,
  test,
} from "bun:test";
import { randomUUID } from "node:crypto";
import { Cluster, type ClusterNode, endClusters, waitUntil } from "../support/cluster.ts";
import { isWholeWith, servingNode } from "../support/cluster-volumes.ts";
import { IO_PORT, nqnOf } from "./engine.ts";
import { LOAD_TIMEOUT_MS, SET_UP_TIMEOUT_MS, TEST_TIMEOUT_MS } from "./limits.ts";
import { moreWritten, underLoad } from "./load.ts";
import { Guest } from "./vm.ts";

const MIB = 1 << 20;
const POOL_BYTES = 256 * MIB;
const VOLUME_BYTES = 96 * MIB;
/** As the kernel takes them: reconnect every second, for ten minutes; keep-alive after five seconds. */
const KERNEL_OPTIONS = "reconnect_delay=1,ctrl_loss_tmo=600,keep_alive_tmo=5";
const CONNECT_OPTIONS = "-c 1 -l 600 -k 5";
/** Synchronous writes now and then, so that the journal commits all the time. */
const LOAD_OPTIONS = "--fsync=8";

let guest: Guest;
let cluster: Cluster;
let uuid: string;
let nqn: string;
let device: string;

setDefaultTimeout(TEST_TIMEOUT_MS);

beforeAll(async () => {
  [guest, cluster] = await Promise.all([Guest.boot(), Cluster.start(3)]);
  for (const node of cluster.nodes) await cluster.createPool(node, `pool-${node.name}`, POOL_BYTES);
}, SET_UP_TIMEOUT_MS);

afterAll(async () => {
  await guest?.stop();
  await endClusters();
});

const isWhole = isWholeWith(3);

/** Waits until all nodes are paths again and the host is connected to each, as the leader knows. */
async function allPaths(): Promise<void> {
  await waitUntil(
    "a host on every standby",
    () => cluster.rest.paths(uuid),
    (paths) =>
      paths.length === 3 &&
      paths.every(({ role, state, hosts }) =>
        role === "target" ? state === "serving" : state === "listening" && hosts === 1,
      ),
  );
  await guest.ok(`wait_for 60 has_live_paths ${nqn} 3`);
  await cluster.volumeUntil("three copies", uuid, isWhole);
}

beforeEach(async () => {
  const [first, second, third] = cluster.nodes as [ClusterNode, ClusterNode, ClusterNode];
  uuid = randomUUID();
  nqn = nqnOf(uuid);
  await cluster.rest.createVolume(uuid, {
    size: VOLUME_BYTES,
    replicas: 3,
    thin: false,
    policy: { self_heal: true },
  });
  const to = { protocol: "nvmf", node: first.name, publish_context: {} } as const;
  await cluster.rest.publishVolume(uuid, to);
  await waitUntil(
    "two standbys",
    () => cluster.rest.paths(uuid),
    (paths) => paths.filter(({ state }) => state === "listening").length === 2,
  );
  device = await guest.ok(`attach ${nqn} ${first.address} ${IO_PORT} ${CONNECT_OPTIONS}`);
  for (const { address } of [second, third]) {
    await guest.ok(`add_path ${nqn} ${address} ${IO_PORT} ${KERNEL_OPTIONS}`);
  }
  await allPaths();
  await guest.ok(`mkfs.ext4 -q ${device}; mount ${device} /mnt; mkdir /mnt/pause`);
});

afterEach(async () => {
  await guest.ok(`umount /mnt; fsck.ext4 -fn ${device}`);
  await guest.ok("detach_all");
  await cluster.rest.unpublishVolume(uuid, false);
  expect(await replicaSums()).toHaveLength(1);
  for (const node of cluster.nodes) {
    await waitUntil(
      "no standby left",
      () => node.engine.listStandbys(),
      (standbys) => standbys.length === 0,
    );
  }
  await cluster.rest.deleteVolume(uuid);
  // I/O errors would be among its complaints.
  expect(guest.complaints()).toEqual([]);
});

/** The different contents that the volume's replicas have. */
async function replicaSums(): Promise<string[]> {
  const sums = new Set<string>();
  for (const node of cluster.nodes) {
    for (const { uuid: replica, sync } of await node.engine.listReplicas()) {
      if (sync.volumeUuid !== uuid) continue;
      const { checksum } = await node.engine.wipeReplica({ uuid: replica, method: "checksum" });
      sums.add(String(checksum));
    }
  }
  return [...sums];
}

/** Runs `during` under two loads: one that is verified, and small synchronous writes that are timed. */
async function underBoth(what: string, during: () => Promise<void>): Promise<void> {
  const timed = guest.ok(
    `
    rm -f /tmp/stop-timing
    worst=0
    until [ -e /tmp/stop-timing ]; do
      before=\${EPOCHREALTIME/./}
      dd if=/dev/zero of=/mnt/pause/block bs=4k count=1 oflag=direct,sync conv=notrunc 2>/tmp/dd ||
        { cat /tmp/dd >&2; exit 1; }
      took=$(( (\${EPOCHREALTIME/./} - before) / 1000 ))
      if [ $took -gt $worst ]; then worst=$took; fi
    done
    echo $worst
  `,
    { timeoutMs: LOAD_TIMEOUT_MS },
  );
  await underLoad(guest, { target: "/mnt", options: LOAD_OPTIONS }, during);
  await guest.ok("touch /tmp/stop-timing");
  console.log(`${what}: the longest of the synchronous writes took ${(await timed).trim()} ms`);
}

test("the target's node is killed: another one serves, and it comes back as a standby", async () => {
  const first = await servingNode(cluster, uuid, () => true);
  await underBoth("kill -9 of the target's node", async () => {
    await moreWritten(guest, nqn, first.address);
    await first.kill();
    const next = await servingNode(cluster, uuid, (node) => node !== first);
    await moreWritten(guest, nqn, next.address);
    await first.start();
    await allPaths();
    expect(await servingNode(cluster, uuid, () => true)).toBe(next);
    await moreWritten(guest, nqn, next.address);
  });
});

test("the target's node stands still and goes on later: nothing that it has left to write counts", async () => {
  const first = await servingNode(cluster, uuid, () => true);
  await underBoth("SIGSTOP of the target's node", async () => {
    await moreWritten(guest, nqn, first.address);
    first.pause();
    const next = await servingNode(cluster, uuid, (node) => node !== first);
    await moreWritten(guest, nqn, next.address);
    first.resume();
    await allPaths();
    expect(await servingNode(cluster, uuid, () => true)).toBe(next);
    await moreWritten(guest, nqn, next.address);
  });
});

test("the target's node is drained: the target moves, and hosts keep their connections", async () => {
  const first = await servingNode(cluster, uuid, () => true);
  await underBoth("drain of the target's node", async () => {
    await moreWritten(guest, nqn, first.address);
    await cluster.rest.drainNode(first.name, "service", false);
    const next = await servingNode(cluster, uuid, (node) => node !== first);
    await moreWritten(guest, nqn, next.address);
    await cluster.rest.uncordonNode(first.name, "service");
    await allPaths();
    await moreWritten(guest, nqn, next.address);
  });
});
