/** What the engines of a test's cluster hold, beside what the control plane says of it. */
import { expect } from "bun:test";
import { type Cluster, waitUntil } from "./cluster.ts";

/** UUIDs of all replicas that the engines of running nodes hold, with their nodes, in order. */
export async function replicasOnEngines(cluster: Cluster): Promise<string[]> {
  const running = cluster.nodes.filter((node) => node.isRunning);
  const lists = await Promise.all(
    running.map(async (node) => {
      const replicas = await node.engine.listReplicas();
      return replicas.map(({ uuid }) => `${node.name} ${uuid}`);
    }),
  );
  return lists.flat().sort();
}

/** UUIDs of all replicas that the control plane wants on running nodes, with their nodes, in order. */
export async function replicasWanted(cluster: Cluster): Promise<string[]> {
  const volumes = await cluster.rest.volumes();
  return volumes
    .flatMap(({ state }) => Object.entries(state.replica_topology))
    .map(([uuid, { node }]) => `${node} ${uuid}`)
    .filter((text) => cluster.nodes.some((n) => n.isRunning && text.startsWith(`${n.name} `)))
    .sort();
}

/** Waits until engines hold what the control plane wants, no more and no less. */
export async function enginesMatch(cluster: Cluster): Promise<void> {
  await waitUntil(
    "engines holding the replicas of volumes and nothing else",
    async () => ({
      held: await replicasOnEngines(cluster),
      wanted: await replicasWanted(cluster),
    }),
    ({ held, wanted }) => Bun.deepEquals(held, wanted),
  );
}

/** All replicas of an unpublished volume hold the same bytes. */
export async function expectSameBytes(cluster: Cluster, volume: string): Promise<void> {
  const { state } = await cluster.rest.volume(volume);
  const checksums: (number | null)[] = [];
  for (const [uuid, { node }] of Object.entries(state.replica_topology)) {
    const request = { uuid, method: "checksum" } as const;
    checksums.push((await cluster.node(node!).engine.wipeReplica(request)).checksum);
  }
  expect(checksums.length).toBeGreaterThan(1);
  expect(new Set(checksums).size).toBe(1);
}
