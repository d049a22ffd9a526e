/**
 * Targets that were left behind: a volume moves away from a node that does not know, because it stands still
 * or is cut off. Whatever hosts ask of it then, it acknowledges no write and returns no old data.
 */

import { afterEach, expect, setDefaultTimeout, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { tmpdir } from "node:os";
import {
  Cluster,
  type ClusterNode,
  endClusters,
  type Place,
  waitUntil,
} from "../support/cluster.ts";
import { expectSameBytes } from "../support/cluster-replicas.ts";
import { isWholeWith } from "../support/cluster-volumes.ts";
import { canMakeNetworks, NetLab } from "../support/net-lab.ts";
import { endPathHosts, PathHost } from "../support/path-hosts.ts";

const MIB = 1 << 20;
const NODES = 3;
const DEPTH = 8;
/** Numbers of the host that comes after the move. */
const LATER = 1_000_000;

setDefaultTimeout(180_000);

let lab: NetLab | undefined;

afterEach(async () => {
  endPathHosts();
  await endClusters();
  lab?.end();
  lab = undefined;
});

interface Published {
  readonly cluster: Cluster;
  readonly uuid: string;
  readonly target: ClusterNode;
  readonly others: readonly ClusterNode[];
  /** Device URIs of the volume through a node. */
  readonly path: (node: ClusterNode) => string;
}

/** A cluster with a volume of three copies that a follower serves, and all paths to it. */
async function published(places: readonly Place[] = []): Promise<Published> {
  const cluster = await Cluster.start(NODES, tmpdir(), [], places);
  for (const node of cluster.nodes) await cluster.createPool(node, `pool-${node.name}`, 128 * MIB);
  const uuid = randomUUID();
  const policy = { self_heal: true };
  await cluster.rest.createVolume(uuid, { size: 32 * MIB, replicas: NODES, thin: false, policy });
  const leader = await cluster.leader();
  const target = cluster.nodes.find((node) => node !== leader)!;
  const to = { protocol: "nvmf", node: target.name, publish_context: {} } as const;
  await cluster.rest.publishVolume(uuid, to);
  const paths = await waitUntil(
    "all paths",
    () => cluster.rest.paths(uuid),
    (all) => all.length === NODES && all.every(({ state }) => state !== "pending"),
  );
  const path = (node: ClusterNode): string => paths.find((one) => one.node === node.name)!.uri;
  return { cluster, uuid, target, others: cluster.nodes.filter((n) => n !== target), path };
}

async function hasMoved({ cluster, uuid, target }: Published): Promise<void> {
  await cluster.volumeUntil("the target elsewhere", uuid, ({ state }) => {
    const isOpen = state.target?.state === "Online" || state.target?.state === "Degraded";
    return isOpen && state.target?.node !== target.name;
  });
}

async function isWhole({ cluster, uuid }: Published): Promise<void> {
  await cluster.volumeUntil("three copies", uuid, isWholeWith(NODES));
}

test("a target that stood still while the volume moved acknowledges and stores nothing that was not there then", async () => {
  const volume = await published();
  const { cluster, uuid, target, others, path } = volume;
  const former = new PathHost({ writers: [path(target)], readers: [], depth: DEPTH });
  await former.writes(300);
  const witness = new PathHost({ writers: [], readers: others.map(path), depth: DEPTH });
  await waitUntil(
    "a host on every standby",
    () => cluster.rest.paths(uuid),
    (paths) => paths.every(({ role, hosts }) => role === "target" || hosts === 1),
  );
  target.pause();
  await hasMoved(volume);
  await witness.until("all blocks read", ({ found }) => found.every((number) => number >= 0));
  const { found } = witness.report;
  const later = new PathHost({ writers: others.map(path), readers: [], depth: DEPTH, base: LATER });
  await later.writes(300);
  // What the former host had sent lies in the sockets of a process that goes on now.
  target.resume();
  await isWhole(volume);
  await later.writes(300);
  // What every replica had before may be acknowledged late; anything else would be acknowledged and gone.
  for (const [block, number] of former.report.acknowledged.entries()) {
    expect(number).toBeLessThanOrEqual(found[block]!);
  }
  endPathHosts();
  const reader = new PathHost({ writers: [], readers: others.map(path), depth: DEPTH });
  await reader.until("all blocks read", ({ found }) => found.every((number) => number >= 0));
  for (const number of reader.report.found) expect(number).toBeGreaterThan(LATER);
  endPathHosts();
  await cluster.rest.unpublishVolume(uuid, false);
  await expectSameBytes(cluster, uuid);
});

test.skipIf(!canMakeNetworks)(
  "a target that is cut off from all nodes but not from its host returns no old data",
  async () => {
    lab = new NetLab(NODES + 1);
    const volume = await published(lab.hosts.slice(0, NODES));
    const { cluster, target, others, path } = volume;
    const hostOf = (node: ClusterNode) => lab!.hosts[cluster.nodes.indexOf(node)]!;
    const host = new PathHost(
      { writers: others.map(path), readers: [path(target), ...others.map(path)] },
      lab.hosts[NODES]!.within,
    );
    await host.until("reads of the target", ({ reads }) => reads[0]! > 200);
    for (const other of others) {
      hostOf(target).loseTo(hostOf(other));
      hostOf(other).loseTo(hostOf(target));
    }
    target.isCutOff = true;
    await hasMoved(volume);
    await host.writes(500);
    const { reads } = host.report;
    expect(reads[0]).toBeGreaterThan(200);
    lab.heal();
    target.isCutOff = false;
    await isWhole(volume);
    await host.writes(200);
    const { stale, staleText } = host.report;
    expect({ stale, staleText }).toEqual({ stale: 0, staleText: "" });
  },
);
