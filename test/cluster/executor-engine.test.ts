/** Observer, planner, executor and recorder over a real engine process. */
import { afterEach, expect, setDefaultTimeout, test } from "bun:test";
import { randomUUID } from "node:crypto";
import type { ClusterState } from "../../src/control/cluster-state.ts";
import { Executor } from "../../src/control/executor/executor.ts";
import { Observer } from "../../src/control/observer/observer.ts";
import * as decide from "../../src/control/planner/decide/index.ts";
import type { Decision } from "../../src/control/planner/plan.ts";
import { plan } from "../../src/control/planner/reconcile/index.ts";
import { volumeStatus } from "../../src/control/planner/status.ts";
import { controlRecorder } from "../../src/control/recorder/recorder.ts";
import { settingsDefault } from "../../src/control/service/settings.ts";
import { startDemoLoad } from "../../src/demo/load.ts";
import { serveRecorder } from "../../src/engine/main/recorder-server.ts";
import { engineClient } from "../../src/engine/rpc/client.ts";
import { MemoryStore } from "../support/control/memory-store.ts";
import { EngineProcess, endEngines, until } from "../support/engine-process.ts";
import { testSeed } from "../support/random.ts";
import {
  nexusRecord,
  nodeRecord,
  poolRecord,
  replicaRecord,
  volumeRecord,
} from "../support/store-records.ts";

setDefaultTimeout(60_000);
const MIB = 1 << 20;
const ends: (() => Promise<unknown> | unknown)[] = [];

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
  await endEngines();
});

function controlPlane() {
  const store = new MemoryStore();
  const log = () => {};
  const nowMs = () => Date.now();
  const observer = new Observer({
    clientOf: (node) => engineClient(`http://${node.engineEndpoint}`),
    nodeDeadlineMs: () => settingsDefault.nodeDeadlineMs,
    log,
    nowMs,
  });
  const settings = () => settingsDefault;
  const executor = new Executor({ store, observer, settings, log, nowMs });
  const forward = () => Promise.reject(new Error("there is one node only"));
  const recorder = controlRecorder({ store, forward, nowMs, log });
  const server = serveRecorder(recorder, { address: "127.0.0.1", port: 0 }, log);
  executor.start();
  ends.push(
    () => server.stop(),
    () => executor.stop(),
  );
  /** Nothing is left to do, and every volume is well: no rebuild runs. */
  const settled = () =>
    until(
      "nothing being left to do",
      () => {
        const state = executor.state();
        const volumes = [...state.stored.volumes.values()];
        return {
          idle: executor.isIdle,
          works: plan(state).works,
          statuses: volumes.map((volume) => volumeStatus(state, volume)),
        };
      },
      ({ idle, works, statuses }) =>
        idle && works.length === 0 && statuses.every((status) => status === "Online"),
    );
  return { store, executor, recorderUrl: server.url, settled };
}

const engineOptions = (recorderUrl: string) => [
  ...["--reactors", "1", "--discovery-port", "none", "--nbd-port", "none"],
  ...["--recorder", recorderUrl],
];

test("a mirrored volume loses a node, gets it back, moves, grows, and is whole", async () => {
  const { store, executor, recorderUrl, settled } = controlPlane();
  const engines: EngineProcess[] = [];
  const uuids = () => Array.from({ length: decide.decisionUuids }, () => randomUUID());
  const apply = (make: (state: ClusterState) => Decision) => {
    store.seed(...make(executor.state()).changes);
  };
  for (let i = 0; i < 3; i++) {
    const engine = new EngineProcess({ options: engineOptions(recorderUrl) });
    engines.push(engine);
    await engine.start();
    const { address, hostNqn, rpcUrl } = engine;
    const engineEndpoint = new URL(rpcUrl).host;
    store.seed({ table: "nodes", put: nodeRecord(address, { hostNqn, engineEndpoint }) });
    await until(
      "the node",
      () => executor.state().observed.get(address)?.status,
      (status) => status === "Online",
    );
    const request = {
      nodeId: address,
      poolId: `pool-${i}`,
      disks: [engine.disk()],
      labels: {},
      force: false,
    };
    apply((state) => decide.createPool(state, { ...request, clusterSizeBytes: MIB }, uuids()));
  }
  await settled();
  const [first, , last] = engines as [EngineProcess, EngineProcess, EngineProcess];
  const volume = randomUUID();
  const shape = {
    sizeBytes: 64 * MIB,
    replicaCount: 3,
    thin: true,
    selfHeal: true,
    topology: null,
  };
  const rest = { labels: {}, affinityGroup: null, maxSnapshots: null };
  apply((state) => decide.createVolume(state, { uuid: volume, ...shape, ...rest }, uuids()));
  await settled();
  const publication = {
    publishContext: {},
    reuseExisting: false,
    republish: false,
    frontendNode: null,
  };
  apply((state) =>
    decide.publishVolume(state, { uuid: volume, nodeId: first.address, ...publication }, uuids()),
  );
  await settled();
  const servedBy = async (engine: EngineProcess) => {
    const [nexus] = await engine.rpc.listNexuses({ volumeUuid: volume });
    return nexus;
  };
  const health = () => [...store.view().replicas.values()].filter(({ healthy }) => healthy).length;
  const before = await servedBy(first);
  expect(before).toMatchObject({
    state: "online",
    epoch: 1,
    children: [{ isLocal: true }, {}, {}],
  });
  const seed = testSeed();
  console.log(`load with seed ${seed}`);
  const load = await startDemoLoad(
    {
      uri: before!.deviceUri,
      requestBytes: 4096,
      queueDepth: 4,
      readPercent: 30,
      size: 16 * MIB,
      seed,
    },
    (error) => {
      throw error;
    },
  );
  ends.push(() => load.terminate());
  const progress = async () => {
    const count = async () => (await load.stats()).writes;
    const from = await count();
    await until("writes", count, (now) => now > from + 100);
  };
  await progress();

  await last.kill();
  await progress();
  expect(health()).toBe(2);
  await last.start();
  await until("the rebuild", health, (count) => count === 3);
  await settled();
  await until(
    "its history",
    () => [...store.view().rebuildHistory.values()],
    ([entry]) => entry?.state === "Completed" && entry.isPartial,
  );

  await first.kill();
  await first.start();
  await until(
    "the next epoch",
    () => servedBy(first),
    (nexus) => nexus?.epoch === 2,
  );
  await progress();
  const { mismatches, errorCount } = await load.finish();
  expect({ mismatches, errorCount }).toEqual({ mismatches: 0, errorCount: 0 });

  const snapshot = randomUUID();
  await settled();
  apply((state) => decide.createSnapshot(state, volume, snapshot, uuids()));
  await settled();
  expect(store.view().snapshots.get(snapshot)).toMatchObject({ status: "Created" });
  expect((await servedBy(first))!.isPaused).toBe(false);
  for (const engine of engines) expect(await engine.rpc.listSnapshots({})).toHaveLength(1);

  apply((state) => decide.drainNode(state, { nodeId: first.address, label: "x", evacuate: false }));
  await settled();
  expect(store.view().nodes.get(first.address)!.drainPhase).toBe("drained");
  const target = store.view().volumes.get(volume)!.target!;
  const other = engines.find(({ address }) => address === target.nodeId)!;
  expect(other).not.toBe(first);
  expect(await first.rpc.listNexuses({})).toEqual([]);
  expect(await servedBy(other)).toMatchObject({ state: "online", epoch: 3 });

  apply((state) => decide.resizeVolume(state, volume, 96 * MIB));
  await settled();
  expect(await servedBy(other)).toMatchObject({ state: "online", sizeBytes: 96 * MIB });

  const restored = randomUUID();
  apply((state) => decide.uncordonNode(state, first.address, "x"));
  const copy = { uuid: restored, ...shape, ...rest };
  apply((state) => decide.restoreVolume(state, snapshot, copy, uuids()));
  await settled();
  apply((state) =>
    decide.publishVolume(state, { uuid: restored, nodeId: last.address, ...publication }, uuids()),
  );
  await settled();
  const [again] = await last.rpc.listNexuses({ volumeUuid: restored });
  expect(again).toMatchObject({ state: "online", children: [{}, {}, {}] });

  for (const uuid of [volume, restored])
    apply((state) => decide.unpublishVolume(state, uuid, false));
  await settled();
  for (const uuid of [volume, restored]) {
    const sums = [];
    for (const replica of store.view().replicasOfVolume.get(uuid)!) {
      const { nodeId } = store.view().replicas.get(replica)!;
      const { rpc } = engines.find(({ address }) => address === nodeId)!;
      sums.push((await rpc.wipeReplica({ uuid: replica, method: "checksum" })).checksum);
    }
    expect(new Set(sums).size).toBe(1);
  }
  apply((state) => decide.setReplicaCount(state, restored, 2, null, uuids()));
  await settled();
  apply((state) => decide.destroyVolume(state, volume));
  apply((state) => decide.destroyVolume(state, restored));
  apply((state) => decide.destroySnapshot(state, snapshot, null));
  await settled();
  expect(store.view().replicas.size + store.view().volumes.size + store.view().snapshots.size).toBe(
    0,
  );
  for (const { rpc } of engines) {
    expect(await rpc.listReplicas({})).toEqual([]);
    expect(await rpc.listSnapshots({})).toEqual([]);
  }
});

test("a volume is created, published, served again after a crash, unpublished and destroyed", async () => {
  const { store, executor, recorderUrl, settled } = controlPlane();
  const engine = new EngineProcess({
    options: engineOptions(recorderUrl),
  });
  await engine.start();
  const node = engine.address;
  const poolUuid = randomUUID();
  store.seed(
    { table: "nodes", put: nodeRecord(node, { engineEndpoint: new URL(engine.rpcUrl).host }) },
    {
      table: "pools",
      put: poolRecord("pool", node, {
        uuid: poolUuid,
        disks: [engine.disk()],
        status: "Creating",
        createdAtMs: Date.now(),
      }),
    },
  );
  await until(
    "the pool",
    () => store.view().pools.get("pool")!.status,
    (s) => s === "Created",
  );

  const volume = randomUUID();
  const replica = randomUUID();
  const sizeBytes = 64 * MIB;
  const createdAtMs = Date.now();
  store.seed(
    { table: "volumes", put: volumeRecord(volume, { sizeBytes, status: "Creating", createdAtMs }) },
    {
      table: "replicas",
      put: replicaRecord(replica, volume, "pool", {
        nodeId: node,
        sizeBytes,
        status: "Creating",
        createdAtMs,
      }),
    },
  );
  await until(
    "the volume",
    () => store.view().volumes.get(volume)!.status,
    (s) => s === "Created",
  );
  expect((await engine.rpc.getReplica({ uuid: replica })).entityId).toBe(volume);

  const nexus = randomUUID();
  const created = store.view().volumes.get(volume)!;
  const target = {
    nexusUuid: nexus,
    nodeId: node,
    protocol: "nvmf",
    frontendNodes: [],
    publishContext: {},
  } as const;
  store.seed(
    { table: "volumes", put: { ...created, epoch: 1, incarnation: 1, target } },
    {
      table: "nexuses",
      put: nexusRecord(nexus, {
        volumeUuid: volume,
        nodeId: node,
        sizeBytes,
        epoch: 1,
        status: "Creating",
        share: "nvmf",
      }),
    },
  );
  await settled();
  const served = await engine.rpc.getNexus({ uuid: nexus });
  expect(served).toMatchObject({ state: "online", epoch: 1, volumeUuid: volume });
  expect(served.deviceUri).toContain(`nqn.2019-05.io.openebs:${volume}`);
  expect(store.view().nexuses.get(nexus)).toMatchObject({
    status: "Created",
    children: [{ uri: `bdev:///${replica}`, replicaUuid: replica }],
  });

  await engine.kill();
  await engine.start();
  await until(
    "the nexus of the next epoch",
    () => engine.rpc.listNexuses({}),
    ([again]) => again?.epoch === 2 && again.deviceUri !== "",
  );
  await settled();

  const published = store.view().volumes.get(volume)!;
  store.seed(
    { table: "volumes", put: { ...published, target: null } },
    { table: "nexuses", put: { ...store.view().nexuses.get(nexus)!, phase: "Shutdown" } },
  );
  await until(
    "closing",
    () => store.view().nexuses.size,
    (size) => size === 0,
  );
  await settled();
  expect(await engine.rpc.listNexuses({})).toEqual([]);
  expect(store.view().volumes.get(volume)!.cleanShutdown).toBe(true);

  store.seed({
    table: "volumes",
    put: { ...store.view().volumes.get(volume)!, status: "Deleting" },
  });
  await until(
    "the end of the volume",
    () => store.view().volumes.size,
    (size) => size === 0,
  );
  expect(store.view().replicas.size).toBe(0);
  expect(await engine.rpc.listReplicas({})).toEqual([]);
  store.seed({ table: "pools", put: { ...store.view().pools.get("pool")!, status: "Deleting" } });
  await until(
    "the end of the pool",
    () => store.view().pools.size,
    (size) => size === 0,
  );
  expect(await engine.rpc.listPools({})).toEqual([]);
  expect(executor.lastFailure(`volume/${volume}`)).toBeNull();
});

test("replicas and a nexus made by hand are as recorded, also after a crash", async () => {
  const { store, executor, recorderUrl, settled } = controlPlane();
  const engine = new EngineProcess({ options: engineOptions(recorderUrl) });
  await engine.start();
  const node = engine.address;
  const engineEndpoint = new URL(engine.rpcUrl).host;
  store.seed({ table: "nodes", put: nodeRecord(node, { engineEndpoint }) });
  const uuids = Array.from({ length: decide.decisionUuids }, () => randomUUID());
  const apply = (make: (state: ClusterState) => Decision) => {
    store.seed(...make(executor.state()).changes);
  };
  const online = () => executor.state().observed.get(node)?.status;
  await until("the node", online, (status) => status === "Online");
  const disks = [engine.disk()];
  const pool = {
    nodeId: node,
    poolId: "pool",
    disks,
    labels: {},
    force: false,
    clusterSizeBytes: MIB,
  };
  apply((state) => decide.createPool(state, pool, uuids));
  await settled();
  const [a, b, nexus] = [randomUUID(), randomUUID(), randomUUID()];
  for (const uuid of [a, b]) {
    const replica = { poolId: "pool", uuid, sizeBytes: 32 * MIB, thin: true };
    apply((state) => decide.createReplica(state, { ...replica, share: false, allowedHosts: [] }));
  }
  await settled();
  const children = [`bdev:///${a}`];
  apply((state) =>
    decide.createNexus(state, { uuid: nexus, nodeId: node, sizeBytes: 32 * MIB, children }),
  );
  await settled();
  apply((state) => decide.shareNexus(state, nexus, node));
  apply((state) => decide.addNexusChild(state, nexus, node, `bdev:///${b}`));
  const seen = () => engine.rpc.getNexus({ uuid: nexus });
  await until(
    "both children",
    seen,
    ({ state, children }) => state === "online" && children.length === 2,
  );
  await settled();
  expect((await seen()).deviceUri).toContain(nexus);

  await engine.kill();
  await engine.start();
  const all = () => engine.rpc.listNexuses({});
  await until("the next epoch", all, ([again]) => again?.epoch === 2 && again.state === "online");
  await settled();
  expect((await seen()).children).toHaveLength(2);
  apply((state) => decide.destroyNexus(state, nexus, node));
  await until(
    "its end",
    () => store.view().nexuses.size,
    (size) => size === 0,
  );
  expect([...store.view().settings.keys()]).toEqual([]);
  for (const uuid of [a, b]) apply((state) => decide.destroyReplica(state, uuid, null));
  await settled();
  expect(await engine.rpc.listReplicas({})).toEqual([]);
});
