/**
 * Nodes are killed under a stream of volume creates: leaders, followers, whole hosts, at random
 * moments. What was acknowledged is there afterwards, and nothing half-made stays.
 */
import { afterAll, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import type { Volume } from "../../../src/client/types.ts";
import { TrilithError } from "../../../src/errors.ts";
import { Cluster, type ClusterNode, endClusters, waitUntil } from "../../support/cluster.ts";
import { enginesMatch } from "../../support/cluster-replicas.ts";
import { type Random, withSeed } from "../../support/random.ts";

const MIB = 1 << 20;
const VOLUME_BYTES = 8 * MIB;
const STREAMS = 4;
/** Which node is killed, one after the other. */
const VICTIMS = ["leader", "follower", "leader", "follower"] as const;
const TEST_MS = 300_000;

afterAll(endClusters);

interface Stream {
  readonly acknowledged: Set<string>;
  /** Asked for, with an outcome that is not known, or refused. */
  readonly asked: Set<string>;
  readonly refusals: TrilithError[];
  stop(): Promise<void>;
}

/** Creates volumes without a pause, several at a time, each through some running node. */
function createVolumes(cluster: Cluster, random: Random): Stream {
  const acknowledged = new Set<string>();
  const asked = new Set<string>();
  const refusals: TrilithError[] = [];
  let stopped = false;
  const one = async (): Promise<void> => {
    while (!stopped) {
      const node = random.pick(cluster.nodes);
      const uuid = randomUUID();
      asked.add(uuid);
      try {
        const volume = await node.rest.createVolume(uuid, {
          size: VOLUME_BYTES,
          replicas: 2 + random.below(2),
          thin: true,
          policy: { self_heal: true },
        });
        expect(volume.spec.status).toBe("Created");
        acknowledged.add(uuid);
      } catch (error) {
        if (!(error instanceof TrilithError)) throw error;
        refusals.push(error);
        // A node that does not run refuses at once.
        await Bun.sleep(20);
      }
    }
  };
  const streams = Promise.all(Array.from({ length: STREAMS }, one));
  return {
    acknowledged,
    asked,
    refusals,
    async stop() {
      stopped = true;
      await streams;
    },
  };
}

async function victimOf(cluster: Cluster, kind: (typeof VICTIMS)[number], random: Random) {
  const leader = await cluster.leader();
  if (kind === "leader") return leader;
  return random.pick(cluster.nodes.filter((node) => node !== leader));
}

/** Waits until `count` more volumes are acknowledged. */
async function progress(stream: Stream, count: number): Promise<void> {
  const before = stream.acknowledged.size;
  await waitUntil(
    "creates being acknowledged",
    () => ({ done: stream.acknowledged.size, last: stream.refusals.at(-1)?.message }),
    ({ done }) => done >= before + count,
  );
}

function isWhole({ spec, state }: Volume): boolean {
  const nodes = Object.values(state.replica_topology).map(({ node }) => node);
  return (
    spec.status === "Created" &&
    state.status === "Online" &&
    nodes.length === spec.num_replicas &&
    new Set(nodes).size === nodes.length
  );
}

async function killAndBringBack(cluster: Cluster, stream: Stream, victim: ClusterNode) {
  await victim.kill();
  await cluster.leader();
  // Two of three nodes are left: volumes of two replicas still can be made.
  await progress(stream, 3);
  await victim.start();
  await cluster.isWhole();
  await progress(stream, 5);
}

test(
  "killed nodes lose no acknowledged volume and leave no half-made one",
  () =>
    withSeed(import.meta.path, async (random) => {
      const cluster = await Cluster.start(3);
      for (const [index, node] of cluster.nodes.entries()) {
        await cluster.createPool(node, `pool-${index + 1}`, 4096 * MIB);
      }
      const stream = createVolumes(cluster, random);
      try {
        await progress(stream, 5);
        for (const kind of VICTIMS) {
          await killAndBringBack(cluster, stream, await victimOf(cluster, kind, random));
        }
      } catch (error) {
        console.error(cluster.logs());
        throw error;
      } finally {
        await stream.stop();
      }
      await cluster.isWhole();
      await cluster.isSettled();
      const volumes = await waitUntil(
        "every volume being whole",
        () => cluster.rest.volumes(),
        (all) => all.every(isWhole),
      );
      const present = new Set(volumes.map(({ spec }) => spec.uuid));
      expect([...stream.acknowledged].filter((uuid) => !present.has(uuid))).toEqual([]);
      // Others may be there whole: their answers were lost. None that nobody asked for.
      expect([...present].filter((uuid) => !stream.asked.has(uuid))).toEqual([]);
      await enginesMatch(cluster);
      // Every node has the same state.
      const lists = await Promise.all(cluster.nodes.map((node) => node.rest.volumes()));
      const ids = lists.map((list) => list.map(({ spec }) => spec.uuid).sort());
      expect(ids[1]).toEqual(ids[0]!);
      expect(ids[2]).toEqual(ids[0]!);
      console.log(`${stream.acknowledged.size} acknowledged, ${stream.refusals.length} refused`);
    }),
  TEST_MS,
);
