/** Texts of volumes are kept while nothing changes, and never beyond that. */
import { expect, test } from "bun:test";
import { renderVolume, volumeText } from "../../../src/api/render/volumes.ts";
import type { ClusterState, ObservedNode } from "../../../src/control/cluster-state.ts";
import * as decide from "../../../src/control/planner/decide/index.ts";
import { furnishedCluster, ids, makeRebuilding } from "../../support/api/furnished-cluster.ts";
import type { PlannedCluster } from "../../support/planned-cluster.ts";
import { withSeed } from "../../support/random.ts";

/** The state with everything equal the same thing as before, as the observer leaves it. */
function settled(before: ClusterState | null, now: ClusterState): ClusterState {
  if (before === null) return now;
  const same = <K, T>(old: ReadonlyMap<K, T> | undefined, map: ReadonlyMap<K, T>) =>
    new Map(
      [...map].map(([key, value]) => {
        const known = old?.get(key);
        return [key, known !== undefined && Bun.deepEquals(known, value) ? known : value];
      }),
    );
  const observed = [...now.observed].map(([id, node]): [string, ObservedNode] => {
    const old = before.observed.get(id);
    return [
      id,
      {
        ...node,
        pools: same(old?.pools, node.pools),
        replicas: same(old?.replicas, node.replicas),
        nexuses: same(old?.nexuses, node.nexuses),
      },
    ];
  });
  return { ...now, observed: new Map(observed) };
}

const changes: readonly ((cluster: PlannedCluster, n: number) => void)[] = [
  (cluster, n) => cluster.setNode(`node-${1 + (n % 4)}`, "Offline"),
  (cluster, n) => cluster.setNode(`node-${1 + (n % 4)}`, "Unknown"),
  (cluster, n) => cluster.setNode(`node-${1 + (n % 4)}`, "Online"),
  (cluster, n) => {
    const node = `node-${1 + (n % 4)}`;
    cluster.engines.get(node)!.pools.get(`pool-${1 + (n % 4)}`)!.state =
      n % 2 === 0 ? "faulted" : "online";
  },
  (cluster, n) => {
    const all = [...cluster.stored.replicas.values()];
    const one = all[n % all.length]!;
    cluster.edit("replicas", one.uuid, { healthy: !one.healthy });
  },
  (cluster, n) => {
    const all = [...cluster.stored.replicas.keys()];
    const uuid = all[n % all.length]!;
    const { nodeId } = cluster.stored.replicas.get(uuid)!;
    if (cluster.engines.get(nodeId)!.replicas.has(uuid)) cluster.allocate(uuid, n * 4096);
  },
  (cluster, n) => cluster.edit("volumes", ids.plain, { labels: { n: String(n) } }),
  (cluster) => {
    const nexus = cluster.stored.volumes.get(ids.published)!.target!.nexusUuid;
    cluster.carryOut();
    if (cluster.engines.get("node-1")!.nexuses.has(nexus)) makeRebuilding(cluster, "node-1", nexus);
  },
  (cluster) => cluster.carryOut(),
  (cluster, n) => {
    const [uuid] = [...cluster.stored.snapshots.keys()].slice(n % 3);
    if (uuid === undefined) return;
    cluster.put({ table: "snapshots", remove: uuid });
  },
  (cluster) => {
    try {
      cluster.run((state, uuids) => decide.createSnapshot(state, ids.thin, cluster.uuid(), uuids));
    } catch {
      // A node is away: there is no snapshot then.
    }
  },
];

test("after any change the text is that of the volume as it is", () => {
  withSeed(import.meta.path, (random) => {
    const cluster = furnishedCluster();
    let state: ClusterState | null = null;
    let kept = 0;
    for (let n = 0; n < 400; n += 1) {
      random.pick(changes)(cluster, random.below(1000));
      const before = new Map<string, string>();
      const old = state;
      if (old !== null) {
        for (const volume of old.stored.volumes.values()) {
          before.set(volume.uuid, volumeText(old, volume));
        }
      }
      const now: ClusterState = settled(old, cluster.state());
      state = now;
      for (const volume of now.stored.volumes.values()) {
        const text = volumeText(now, volume);
        expect(JSON.parse(text)).toEqual(JSON.parse(JSON.stringify(renderVolume(now, volume))));
        if (text === before.get(volume.uuid)) kept += 1;
      }
    }
    expect(kept).toBeGreaterThan(100);
  });
});
