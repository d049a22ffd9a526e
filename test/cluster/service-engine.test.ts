/** The operations of the control plane over three real engines, with store and raft on a file. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import type { CreateVolumeRequest, RequestContext } from "../../src/control/control.ts";
import { Executor } from "../../src/control/executor/executor.ts";
import { Observer } from "../../src/control/observer/observer.ts";
import { plan } from "../../src/control/planner/reconcile/index.ts";
import { volumeStatus } from "../../src/control/planner/status.ts";
import { controlRecorder } from "../../src/control/recorder/recorder.ts";
import { makeSettingsReader } from "../../src/control/service/settings.ts";
import { createService, type Service } from "../../src/control/service.ts";
import { serveRecorder } from "../../src/engine/main/recorder-server.ts";
import { engineClient } from "../../src/engine/rpc/client.ts";
import { type ErrorCode, TrilithError } from "../../src/errors.ts";
import { openOneMember } from "../support/control/one-member.ts";
import { EngineProcess, endEngines, until } from "../support/engine-process.ts";
import { nodeRecord } from "../support/store-records.ts";
import { tempFolders } from "../support/temp-folder.ts";

const MIB = 1 << 20;
const makeFolder = tempFolders();
const ends: (() => Promise<unknown> | unknown)[] = [];

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
  await endEngines();
});

interface Plane {
  readonly service: Service;
  readonly executor: Executor;
  readonly observer: Observer;
  readonly store: ReturnType<typeof openOneMember>["store"];
  readonly recorderUrl: string;
  stop(): Promise<void>;
}

function controlPlane(folder: string): Plane {
  const member = openOneMember(folder);
  const { store } = member;
  const log = () => {};
  const nowMs = () => Date.now();
  const read = makeSettingsReader();
  const settings = (view: { settings: Parameters<typeof read>[0] }) => read(view.settings);
  const observer = new Observer({
    clientOf: (node) => engineClient(`http://${node.engineEndpoint}`),
    nodeDeadlineMs: () => settings(store.view()).nodeDeadlineMs,
    log,
    nowMs,
  });
  const executor = new Executor({ store, observer, settings, log, nowMs });
  const forward = () => Promise.reject(new Error("there is one member only"));
  const recorder = controlRecorder({ store, forward, nowMs, log });
  const server = serveRecorder(recorder, { address: "127.0.0.1", port: 0 }, log);
  executor.start();
  const refuse = () => Promise.reject(new Error("no membership here"));
  const service = createService({
    store,
    observation: observer,
    execution: executor,
    membership: { createToken: refuse, transferLeadership: refuse, removeMember: refuse },
    plan,
    log,
  });
  let isStopped = false;
  const stop = async () => {
    if (isStopped) return;
    isStopped = true;
    service.close();
    await executor.stop();
    await server.stop();
    await member.close();
  };
  ends.push(stop);
  return { service, executor, observer, store, recorderUrl: server.url, stop };
}

let requests = 0;
function context(extra: Partial<RequestContext> = {}): RequestContext {
  requests++;
  return { requestId: `test-${requests}`, ...extra };
}

async function errorOf(promise: Promise<unknown>): Promise<TrilithError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof TrilithError) return error;
    throw error;
  }
  throw new Error("it did not reject");
}

async function codeOf(promise: Promise<unknown>): Promise<ErrorCode> {
  return (await errorOf(promise)).code;
}

function volumeRequest(changes: Partial<CreateVolumeRequest> = {}): CreateVolumeRequest {
  return {
    uuid: randomUUID(),
    sizeBytes: 32 * MIB,
    replicaCount: 3,
    thin: true,
    selfHeal: true,
    topology: null,
    labels: {},
    affinityGroup: null,
    maxSnapshots: null,
    ...changes,
  };
}

describe("three engines", () => {
  let plane: Plane;
  let engines: EngineProcess[];
  let folder: string;

  beforeEach(async () => {
    folder = makeFolder();
    plane = controlPlane(folder);
    const options = ["--reactors", "1", "--discovery-port", "none", "--nbd-port", "none"];
    engines = Array.from(
      { length: 3 },
      () => new EngineProcess({ options: [...options, "--recorder", plane.recorderUrl] }),
    );
    await Promise.all(engines.map((engine) => engine.start()));
    await plane.store.transact(() => ({
      changes: engines.map((engine, at) => ({
        table: "nodes",
        put: nodeRecord(engine.address, {
          raftId: String(at + 1),
          engineEndpoint: new URL(engine.rpcUrl).host,
          hostNqn: engine.hostNqn,
        }),
      })),
      events: [],
      value: null,
    }));
  });

  const poolOf = (at: number) => ({
    nodeId: engines[at]!.address,
    poolId: `pool-${at}`,
    disks: [engines[at]!.disk()],
    labels: {},
    clusterSizeBytes: null,
    force: false,
  });
  const createPools = () =>
    Promise.all([0, 1, 2].map((at) => plane.service.createPool(poolOf(at), context())));

  test("a volume's life, each operation done when it says so", async () => {
    const { service } = plane;
    await createPools();
    const local = () => service.localState();
    expect([...local().stored.pools.values()].map(({ status }) => status)).toEqual(
      Array(3).fill("Created"),
    );

    const request = volumeRequest();
    const { uuid } = request;
    await service.createVolume(request, context());
    const volume = () => local().stored.volumes.get(uuid)!;
    expect(volume().status).toBe("Created");
    expect(volumeStatus(local(), volume())).toBe("Online");
    for (const engine of engines) expect(await engine.rpc.listReplicas({})).toHaveLength(1);
    // An equal one is confirmed, another of the same name is not.
    await service.createVolume(request, context());
    expect(await codeOf(service.createVolume({ ...request, thin: false }, context()))).toBe(
      "Conflict",
    );

    const publication = {
      uuid,
      publishContext: {},
      nodeId: engines[0]!.address,
      reuseExisting: false,
      republish: false,
      frontendNode: null,
    };
    await service.publishVolume(publication, context());
    expect(volumeStatus(local(), volume())).toBe("Online");
    const [nexus] = await engines[0]!.rpc.listNexuses({});
    expect(nexus!.deviceUri).toContain(`nqn.2019-05.io.openebs:${uuid}`);
    expect(nexus!.children).toHaveLength(3);

    await service.setReplicaCount(uuid, 2, null, context());
    expect(local().stored.replicasOfVolume.get(uuid)!.size).toBe(2);
    await service.setReplicaCount(uuid, 3, null, context());
    expect((await engines[0]!.rpc.listNexuses({}))[0]!.children).toHaveLength(3);

    await service.unpublishVolume(uuid, false, null, context());
    expect(await engines[0]!.rpc.listNexuses({})).toEqual([]);
    await service.destroyVolume(uuid, context());
    for (const engine of engines) expect(await engine.rpc.listReplicas({})).toEqual([]);
    await service.destroyPool("pool-0", null, notForced, context());
    expect(await engines[0]!.rpc.listPools({})).toEqual([]);
    const actions = service
      .events(0, 1000)
      .events.map(({ category, action, target }) => [category, action, target].join(" "));
    expect(actions).toContain(`Volume Create ${uuid}`);
    expect(actions).toContain(`Volume Delete ${uuid}`);
    expect(actions).toContain("Pool Delete pool-0");
  }, 60_000);

  const notForced = { purge: false, acceptVolumeLoss: false, acceptSnapshotLoss: false };

  test("a creation that cannot be carried out says why, and leaves nothing", async () => {
    const { service } = plane;
    const missing = { ...poolOf(0), disks: ["/dev/disk/by-id/that-is-not-there"] };
    const refused = await errorOf(service.createPool(missing, context()));
    expect(refused.message).toContain("creation of pool pool-0 failed");
    expect(refused.code).not.toBe("Timeout");
    expect(service.localState().stored.pools.size).toBe(0);
    await service.createPool(poolOf(0), context());

    const tooMany = await errorOf(service.createVolume(volumeRequest(), context()));
    expect(tooMany.code).toBe("ResourceExhausted");
    expect(service.localState().stored.volumes.size).toBe(0);
  }, 60_000);

  test("a request that is repeated with its key is carried out once, over a restart too", async () => {
    const { service } = plane;
    await createPools();
    const request = volumeRequest({ replicaCount: 1 });
    const idempotencyKey = randomUUID();
    await service.createVolume(request, context({ idempotencyKey }));
    await service.createVolume(request, context({ idempotencyKey }));
    const other = service.createVolume(volumeRequest(), context({ idempotencyKey }));
    expect(await codeOf(other)).toBe("InvalidArgument");

    const labelKey = randomUUID();
    const label = (target: Service) =>
      target.labelNode(
        engines[0]!.address,
        "zone",
        "a",
        false,
        context({ idempotencyKey: labelKey }),
      );
    await label(service);
    await plane.stop();
    const next = controlPlane(folder);
    await next.store.latest();
    await label(next.service);
    const again = next.service.labelNode(engines[0]!.address, "zone", "a", false, context());
    expect(await codeOf(again)).toBe("AlreadyExists");
    expect(next.service.localState().stored.volumes.get(request.uuid)!.status).toBe("Created");
    await next.service.destroyVolume(request.uuid, context());
  }, 60_000);

  test("many volumes at once are all there, in the pools they were counted for", async () => {
    const { service } = plane;
    await createPools();
    const wanted = Array.from({ length: 12 }, () => volumeRequest({ replicaCount: 2 }));
    await Promise.all(wanted.map((request) => service.createVolume(request, context())));
    const { stored } = service.localState();
    for (const { uuid } of wanted) {
      expect(stored.volumes.get(uuid)!.status).toBe("Created");
      const nodes = [...stored.replicasOfVolume.get(uuid)!].map(
        (replica) => stored.replicas.get(replica)!.nodeId,
      );
      expect(new Set(nodes).size).toBe(2);
    }
    const counted = await Promise.all(engines.map((engine) => engine.rpc.listReplicas({})));
    expect(counted.flat()).toHaveLength(24);
    await Promise.all(wanted.map(({ uuid }) => service.destroyVolume(uuid, context())));
    const left = await Promise.all(engines.map((engine) => engine.rpc.listReplicas({})));
    expect(left.flat()).toEqual([]);
  }, 60_000);

  test("a node that stops answering fails the creation, and what it made goes when it is back", async () => {
    const { service } = plane;
    await createPools();
    const request = volumeRequest();
    const hanging = engines[1]!;
    process.kill(hanging.pid, "SIGSTOP");
    try {
      const error = await errorOf(service.createVolume(request, context()));
      expect(error.message).toContain(`creation of volume ${request.uuid} failed`);
      expect(error.code).toBe("Unavailable");
      expect(service.localState().stored.volumes.has(request.uuid)).toBe(false);
    } finally {
      process.kill(hanging.pid, "SIGCONT");
    }
    const left = () => Promise.all(engines.map((engine) => engine.rpc.listReplicas({})));
    await until(
      "nothing being left of it",
      async () => [(await left()).flat().length, service.localState().stored.replicas.size],
      ([replicas, records]) => replicas === 0 && records === 0,
    );
    await service.createVolume(request, context());
  }, 90_000);

  test("a control process that ends in the middle is followed by one that goes on", async () => {
    await createPools();
    const wanted = Array.from({ length: 6 }, () => volumeRequest({ replicaCount: 2 }));
    const keys = wanted.map(() => randomUUID());
    const create = (service: Service, at: number) =>
      service.createVolume(wanted[at]!, context({ idempotencyKey: keys[at]! }));
    const interrupted = wanted.map((_, at) => create(plane.service, at).catch(() => "cut off"));
    await until(
      "some being recorded",
      () => plane.store.view().volumes.size,
      (size) => size >= 3,
    );
    await plane.stop();
    const next = controlPlane(folder);
    await next.store.latest();
    await Promise.all(wanted.map((_, at) => create(next.service, at)));
    await Promise.all(interrupted);
    const { stored } = next.service.localState();
    expect(stored.volumes.size).toBe(6);
    expect([...stored.volumes.values()].every(({ status }) => status === "Created")).toBe(true);
    const there = await Promise.all(engines.map((engine) => engine.rpc.listReplicas({})));
    expect(there.flat()).toHaveLength(12);
    expect(stored.replicas.size).toBe(12);
  }, 90_000);

  test("room is promised once, however many ask at the same time", async () => {
    const { service } = plane;
    await createPools();
    // Each pool has room for two of these.
    const wanted = Array.from({ length: 9 }, () =>
      volumeRequest({ replicaCount: 1, thin: false, sizeBytes: 96 * MIB }),
    );
    const outcomes = await Promise.all(
      wanted.map((request) =>
        service.createVolume(request, context()).then(
          () => "created",
          (error: unknown) => (error as TrilithError).code,
        ),
      ),
    );
    expect(outcomes.toSorted()).toEqual([
      ...Array(3).fill("ResourceExhausted"),
      ...Array(6).fill("created"),
    ]);
    const { stored } = service.localState();
    expect(stored.volumes.size).toBe(6);
    for (const replicas of stored.replicasOfPool.values()) expect(replicas.size).toBe(2);
  }, 60_000);

  test("a volume grows, is snapshotted, restored and moved", async () => {
    const { service } = plane;
    await createPools();
    const request = volumeRequest({ replicaCount: 2 });
    const { uuid } = request;
    await service.createVolume(request, context());
    const local = () => service.localState();
    const replicas = (of: string) =>
      [...local().stored.replicasOfVolume.get(of)!].map((key) => local().stored.replicas.get(key)!);
    const seen = () => Promise.all(engines.map((engine) => engine.rpc.listReplicas({})));

    await service.resizeVolume(uuid, 64 * MIB, context());
    for (const { sizeBytes } of (await seen()).flat()) expect(sizeBytes).toBe(64 * MIB);
    expect(await codeOf(service.resizeVolume(uuid, 32 * MIB, context()))).toBe("NotAcceptable");
    expect(await codeOf(service.resizeVolume(uuid, 2 ** 40, context()))).toBe("ResourceExhausted");

    await service.publishVolume(
      {
        uuid,
        publishContext: {},
        nodeId: null,
        reuseExisting: false,
        republish: false,
        frontendNode: { name: "host", nqn: "nqn.2014-08.org.nvmexpress:host" },
      },
      context(),
    );
    await service.resizeVolume(uuid, 96 * MIB, context());
    const nexuses = await Promise.all(engines.map((engine) => engine.rpc.listNexuses({})));
    expect(nexuses.flat().map(({ sizeBytes }) => sizeBytes)).toEqual([96 * MIB]);

    const snapshotUuid = randomUUID();
    await service.createSnapshot(uuid, snapshotUuid, context());
    const listed = await Promise.all(engines.map((engine) => engine.rpc.listSnapshots({})));
    expect(listed.flat()).toHaveLength(2);
    await service.createSnapshot(uuid, snapshotUuid, context());

    const clone = volumeRequest({ replicaCount: 2, sizeBytes: 96 * MIB });
    await service.restoreVolume(snapshotUuid, clone, context());
    expect(replicas(clone.uuid).map(({ kind }) => kind)).toEqual([
      "SnapshotClone",
      "SnapshotClone",
    ]);

    const [moving] = replicas(uuid);
    await service.moveReplica(moving!.uuid, null, context());
    await until(
      "the replica having moved",
      () => replicas(uuid),
      (now) =>
        now.length === 2 &&
        now.every((replica) => replica.status === "Created" && replica.healthy) &&
        now.every((replica) => replica.uuid !== moving!.uuid),
    );

    await service.destroyVolume(clone.uuid, context());
    await service.destroySnapshot(snapshotUuid, null, context());
    const left = await Promise.all(engines.map((engine) => engine.rpc.listSnapshots({})));
    expect(left.flat()).toEqual([]);
    await service.unpublishVolume(uuid, false, null, context());
    await service.destroyVolume(uuid, context());
    expect((await seen()).flat()).toEqual([]);
  }, 90_000);

  test("replicas and nexuses made by hand, shares, disks and watches", async () => {
    const { service } = plane;
    await createPools();
    const uuids = [randomUUID(), randomUUID()];
    const uris: string[] = [];
    for (const [at, uuid] of uuids.entries()) {
      const asked = { poolId: `pool-${at}`, uuid, sizeBytes: 16 * MIB, thin: true };
      await service.createReplica({ ...asked, share: false, allowedHosts: [] }, context());
      uris.push(await service.shareReplica(uuid, `pool-${at}`, [], context()));
      expect(uris[at]).toContain(`nqn.2019-05.io.openebs:${uuid}`);
    }
    const nexus = randomUUID();
    const nodeId = engines[2]!.address;
    const asked = { nodeId, uuid: nexus, sizeBytes: 16 * MIB, children: [uris[0]!] };
    await service.createNexus(asked, context());
    const deviceUri = await service.shareNexus(nexus, nodeId, context());
    expect(deviceUri).toStartWith("nvmf+tcp://");
    await service.addNexusChild(nexus, nodeId, uris[1]!, context());
    expect((await engines[2]!.rpc.getNexus({ uuid: nexus })).children).toHaveLength(2);
    await service.removeNexusChild(nexus, nodeId, uris[0]!, context());
    const { children } = await engines[2]!.rpc.getNexus({ uuid: nexus });
    expect(children.map(({ uri }) => uri)).toEqual([uris[1]!]);
    expect(await codeOf(service.destroyReplica(uuids[1]!, null, context()))).toBe("InUse");
    await service.unshareNexus(nexus, null, context());
    await service.destroyNexus(nexus, null, context());
    await service.unshareReplica(uuids[0]!, null, context());
    for (const uuid of uuids) await service.destroyReplica(uuid, null, context());
    expect(service.localState().stored.replicas.size).toBe(0);
    expect(Array.isArray(await service.blockDevices(nodeId, true))).toBe(true);
    expect(await codeOf(service.blockDevices("nobody", true))).toBe("NotFound");

    const called: unknown[] = [];
    const receiver = Bun.serve({
      port: 0,
      fetch: async (request) => {
        called.push(await request.json());
        return new Response();
      },
    });
    ends.push(() => receiver.stop(true));
    const watched = volumeRequest({ replicaCount: 1 });
    await service.createVolume(watched, context());
    await service.addWatch(watched.uuid, `http://127.0.0.1:${receiver.port}/`, context());
    await service.destroyVolume(watched.uuid, context());
    const last = await until(
      "the watch being told of the end",
      () => called.at(-1),
      (body) => (body as { deleted?: boolean } | undefined)?.deleted === true,
    );
    expect(last).toMatchObject({ resource: `volumes/${watched.uuid}` });
  }, 90_000);
});
