/** Observer, planner, executor and recorder over a real engine process. */
import { afterEach, expect, setDefaultTimeout, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { Executor } from "../../src/control/executor/executor.ts";
import { Observer } from "../../src/control/observer/observer.ts";
import { plan } from "../../src/control/planner/reconcile/index.ts";
import { controlRecorder } from "../../src/control/recorder/recorder.ts";
import { settingsDefault } from "../../src/control/service/settings.ts";
import { serveRecorder } from "../../src/engine/main/recorder-server.ts";
import { engineClient } from "../../src/engine/rpc/client.ts";
import { MemoryStore } from "../support/control/memory-store.ts";
import { EngineProcess, endEngines, until } from "../support/engine-process.ts";
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
  const settled = () =>
    until(
      "nothing being left to do",
      () => ({ idle: executor.isIdle, works: plan(executor.state()).works }),
      ({ idle, works }) => idle && works.length === 0,
    );
  return { store, executor, recorderUrl: server.url, settled };
}

test("a volume is created, published, served again after a crash, unpublished and destroyed", async () => {
  const { store, executor, recorderUrl, settled } = controlPlane();
  const engine = new EngineProcess({
    options: [
      "--reactors",
      "1",
      "--discovery-port",
      "none",
      "--nbd-port",
      "none",
      "--recorder",
      recorderUrl,
    ],
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
