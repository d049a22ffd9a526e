/**
 * A cluster in which there is something of everything: nodes that answer and one that does not,
 * volumes published, rebuilding and faulted, snapshots, a clone, nexuses and replicas made by hand.
 */
import type { EngineNexus } from "../../../src/control/cluster-state.ts";
import * as decide from "../../../src/control/planner/decide/index.ts";
import { GiB, PlannedCluster, volumeRequest } from "../planned-cluster.ts";

const uuid = (n: number) => `00000000-0000-4000-9000-${n.toString(16).padStart(12, "0")}`;

/** UUIDs of what is there, by what it is. */
export const ids = {
  plain: uuid(1),
  published: uuid(2),
  thin: uuid(3),
  clone: uuid(4),
  snapshot: uuid(5),
  handReplica: uuid(6),
  handNexus: uuid(7),
  absent: uuid(0xff),
  pool: (n: number) => uuid(0x100 + n),
} as const;

/** Makes the first child of a nexus one that is rebuilt, and has run out of room. */
export function makeRebuilding(cluster: PlannedCluster, nodeId: string, nexusUuid: string): void {
  const nexuses = cluster.engines.get(nodeId)!.nexuses;
  const nexus = nexuses.get(nexusUuid)!;
  const [first, ...others] = nexus.children;
  const rebuilt: EngineNexus["children"][number] = {
    ...first!,
    state: "degraded",
    reason: "no-space",
    rebuild: {
      childUri: first!.uri,
      srcUri: others[0]?.uri ?? "",
      state: "rebuilding",
      blocksTotal: 1000,
      blocksRecovered: 333,
      blocksTransferred: 300,
      blocksRemaining: 667,
      blockSize: 512,
      progressPercent: 33.3,
      isPartial: true,
      startTimeMs: cluster.nowMs,
      endTimeMs: null,
      bytesPerSec: 1e6,
      etaMs: 1234,
      error: null,
    },
  };
  nexuses.set(nexusUuid, {
    ...nexus,
    state: "degraded",
    rebuilds: 1,
    children: [rebuilt, ...others],
    deviceUri: `nvmf+tcp://10.0.0.1:8420/nqn.2019-05.io.openebs:${nexus.name}`,
  });
}

/** Builds it. The same every time. */
export function furnishedCluster(): PlannedCluster {
  const cluster = new PlannedCluster();
  for (let n = 1; n <= 4; n += 1) {
    cluster.addNode(`node-${n}`, { labels: n === 1 ? { "openebs.io/zone": "a" } : {} });
    cluster.addPool(`pool-${n}`, `node-${n}`, 100 * GiB, { uuid: ids.pool(n) });
  }
  const run = (make: Parameters<PlannedCluster["run"]>[0]) => {
    cluster.run(make);
    cluster.carryOut();
  };
  const create = (id: string, changes = {}) =>
    run((state, uuids) => decide.createVolume(state, volumeRequest(id, changes), uuids));
  create(ids.plain, { replicaCount: 2, labels: { app: "db" } });
  create(ids.published, {
    replicaCount: 3,
    affinityGroup: "group/one",
    topology: {
      node: { explicit: { allowedNodes: ["node-1", "node-2", "node-3"], preferredNodes: [] } },
      pool: null,
    },
  });
  create(ids.thin, {
    thin: true,
    maxSnapshots: 5,
    topology: { node: { explicit: { allowedNodes: ["node-2"], preferredNodes: [] } }, pool: null },
  });
  run((state, uuids) => decide.createSnapshot(state, ids.thin, ids.snapshot, uuids));
  run((state, uuids) => {
    const request = volumeRequest(ids.clone, { thin: true });
    return decide.restoreVolume(state, ids.snapshot, request, uuids);
  });
  run((state, uuids) =>
    decide.publishVolume(
      state,
      {
        uuid: ids.published,
        publishContext: { ioTimeout: "30" },
        nodeId: "node-1",
        reuseExisting: false,
        republish: false,
        frontendNode: { name: "app-1", nqn: "nqn.2019-05.io.openebs:node-name:app-1" },
      },
      uuids,
    ),
  );
  run((state) =>
    decide.createReplica(state, {
      poolId: "pool-1",
      uuid: ids.handReplica,
      sizeBytes: GiB,
      thin: false,
      share: false,
      allowedHosts: [],
    }),
  );
  run((state) =>
    decide.createNexus(state, {
      nodeId: "node-1",
      uuid: ids.handNexus,
      sizeBytes: GiB,
      children: [`bdev:///${ids.handReplica}`, "malloc:///spare?size_mb=1100"],
    }),
  );
  run((state) => decide.registerAppNode(state, "app-1", "10.0.0.9:10199", { rack: "r1" }));
  run((state) => decide.addWatch(state, ids.plain, "http://127.0.0.1:9999/told"));
  const nexus = cluster.stored.volumes.get(ids.published)!.target!.nexusUuid;
  makeRebuilding(cluster, "node-1", nexus);
  cluster.put({
    table: "rebuildHistory",
    put: {
      revision: 0,
      id: `${nexus} 1 x`,
      volumeUuid: ids.published,
      nexusUuid: nexus,
      childUri: "bdev:///x",
      sourceUri: "bdev:///y",
      state: "Completed",
      blocksTotal: 10,
      blocksRecovered: 10,
      blocksTransferred: 9,
      blocksRemaining: 0,
      blockSize: 512,
      isPartial: false,
      startTimeMs: cluster.nowMs - 1000,
      endTimeMs: cluster.nowMs,
    },
  });
  cluster.setNode("node-4", "Offline");
  return cluster;
}
