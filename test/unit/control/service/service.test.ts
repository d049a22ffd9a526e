/** How operations wait, end and fail. Engines are values that the test sets. */
import { afterEach, describe, expect, test } from "bun:test";
import type { ObservedNode } from "../../../../src/control/cluster-state.ts";
import type { CreateVolumeRequest, RequestContext } from "../../../../src/control/control.ts";
import type { NodeId } from "../../../../src/control/model.ts";
import type { Change } from "../../../../src/control/planner/plan.ts";
import { noFailures, plan } from "../../../../src/control/planner/reconcile/index.ts";
import type { StepFailure } from "../../../../src/control/service/ports.ts";
import { createService, type Service } from "../../../../src/control/service.ts";
import { StoreMachine } from "../../../../src/control/store/machine.ts";
import { openStore, type ReplicatedStore } from "../../../../src/control/store/replicated-store.ts";
import type { EngineClient } from "../../../../src/engine/rpc/client.ts";
import { type ErrorCode, TrilithError } from "../../../../src/errors.ts";
import type { Log } from "../../../../src/ops/log.ts";
import { type LocalRaft, localRaft } from "../../../support/local-raft.ts";
import { nodeRecord, poolRecord, volumeRecord } from "../../../support/store-records.ts";

const GIB = 2 ** 30;

class World {
  readonly raft: LocalRaft;
  readonly store: ReplicatedStore;
  readonly service: Service;
  readonly woken: string[] = [];
  readonly calls: { url: string; body: unknown }[] = [];
  readonly removed: string[] = [];
  readonly refreshed: string[] = [];
  onRefresh = (): void => {};
  engine: () => EngineClient = () => {
    throw new TrilithError("NotFound", "no engines here");
  };
  #observed: ReadonlyMap<NodeId, ObservedNode> = new Map();
  readonly #listeners = new Set<() => void>();
  readonly #failures = new Map<string, StepFailure>();
  #sequence = 0;
  #uuids = 0;

  constructor() {
    const machine = new StoreMachine();
    this.raft = localRaft(machine);
    const log: Log = () => {};
    this.store = openStore({ machine, raft: this.raft, log });
    this.service = createService({
      store: this.store,
      observation: {
        observation: () => this.#observed,
        onChange: (listener) => {
          this.#listeners.add(listener);
          return () => this.#listeners.delete(listener);
        },
        engine: () => this.engine(),
        refresh: async (nodeId) => {
          this.refreshed.push(nodeId);
          this.onRefresh();
          return true;
        },
      },
      execution: {
        wake: (subject) => this.woken.push(subject),
        lastFailure: (subject) => this.#failures.get(subject) ?? null,
      },
      membership: {
        createToken: async (kind, validMs) => ({ id: "t", token: kind, expiresAtMs: validMs }),
        transferLeadership: async () => {},
        removeMember: async (nodeId) => {
          this.removed.push(nodeId);
        },
      },
      plan: (state) => plan(state, noFailures),
      log,
      newUuid: () => `00000000-0000-4000-8000-${String(++this.#uuids).padStart(12, "0")}`,
      callWatch: async (url, body) => {
        this.calls.push({ url, body: JSON.parse(body) });
      },
    });
  }

  /** Listeners of observations that wait. */
  get waiting(): number {
    return this.#listeners.size;
  }

  put(...changes: Change[]): Promise<unknown> {
    return this.store.transact(() => ({ changes, events: [], value: null }));
  }

  tell(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  /** What engines report: every node with its pools and replicas as recorded, all empty. */
  observe(status: ObservedNode["status"] = "Online", capacityBytes = 100 * GIB): void {
    const { stored } = this.service.localState();
    const nodes = new Map<NodeId, ObservedNode>();
    for (const id of stored.nodes.keys()) {
      const pools = [...stored.pools.values()].filter((pool) => pool.nodeId === id);
      const replicas = [...stored.replicas.values()].filter((replica) => replica.nodeId === id);
      nodes.set(id, {
        id,
        status,
        lastSeenMs: 1,
        offlineSinceMs: null,
        info: null,
        pools: new Map(
          pools.map((pool) => [
            pool.id,
            {
              name: pool.id,
              uuid: pool.uuid,
              state: "online",
              capacityBytes,
              usedBytes: 0,
              committedBytes: 0,
              clusterSizeBytes: 4 << 20,
            } as never,
          ]),
        ),
        replicas: new Map(
          replicas.map((replica) => [
            replica.uuid,
            {
              uuid: replica.uuid,
              poolName: replica.poolId,
              state: "online",
              sizeBytes: replica.sizeBytes,
              shares: [],
              space: { allocatedBytes: 0, allocatedBytesSnapshots: 0 },
            } as never,
          ]),
        ),
        snapshots: new Map(),
        nexuses: new Map(),
      });
    }
    this.#observed = nodes;
    this.tell();
  }

  fail(subject: string, code: ErrorCode, message: string): void {
    this.#sequence++;
    this.#failures.set(subject, {
      sequence: this.#sequence,
      error: new TrilithError(code, message, "do this"),
    });
    this.tell();
  }

  /** As the executor would: what is `Creating` is there now. */
  async finishVolume(uuid: string): Promise<void> {
    const view = this.store.view();
    const replicas = [...view.replicasOfVolume.get(uuid)!].map((key) => view.replicas.get(key)!);
    await this.put(
      { table: "volumes", put: { ...view.volumes.get(uuid)!, status: "Created" } },
      ...replicas.map(
        (replica): Change => ({ table: "replicas", put: { ...replica, status: "Created" } }),
      ),
    );
  }

  async rollVolumeBack(uuid: string): Promise<void> {
    const view = this.store.view();
    const replicas = [...view.replicasOfVolume.get(uuid)!];
    await this.put({ table: "volumes", put: { ...view.volumes.get(uuid)!, status: "Deleting" } });
    await this.put(
      { table: "volumes", remove: uuid },
      ...replicas.map((key): Change => ({ table: "replicas", remove: key })),
    );
  }

  async close(): Promise<void> {
    this.service.close();
    this.store.close();
    await this.raft.stop();
  }
}

const worlds: World[] = [];
afterEach(async () => {
  for (const world of worlds.splice(0)) await world.close();
});

async function clusterOf(nodes: number): Promise<World> {
  const world = new World();
  worlds.push(world);
  for (let n = 1; n <= nodes; n++) {
    await world.put(
      { table: "nodes", put: nodeRecord(`node-${n}`) },
      { table: "pools", put: poolRecord(`pool-${n}`, `node-${n}`) },
    );
  }
  world.observe();
  return world;
}

let volumes = 0;
function request(changes: Partial<CreateVolumeRequest> = {}): CreateVolumeRequest {
  volumes++;
  return {
    uuid: `11111111-0000-4000-8000-${String(volumes).padStart(12, "0")}`,
    sizeBytes: GIB,
    replicaCount: 2,
    thin: true,
    selfHeal: true,
    topology: null,
    labels: {},
    affinityGroup: null,
    maxSnapshots: null,
    ...changes,
  };
}

const context: RequestContext = { requestId: "test" };

async function errorOf(promise: Promise<unknown>): Promise<TrilithError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof TrilithError) return error;
    throw error;
  }
  throw new Error("it did not reject");
}

/** Resolves when the store holds what is asked for. */
function recorded(world: World, isSo: () => boolean): Promise<void> {
  if (isSo()) return Promise.resolve();
  const { promise, resolve } = Promise.withResolvers<void>();
  const forget = world.store.subscribe(() => {
    if (isSo()) resolve();
  });
  return promise.finally(forget);
}

function isCreating(world: World, uuid: string): () => boolean {
  return () => world.store.view().volumes.get(uuid)?.status === "Creating";
}

/** True when the promise is settled after all that is ready to run has run. */
async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  const note = () => {
    settled = true;
  };
  promise.then(note, note);
  for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
  return settled;
}

describe("a creation", () => {
  test("is done when records and engines say so, not before", async () => {
    const world = await clusterOf(3);
    const asked = request();
    const creation = world.service.createVolume(asked, context);
    await recorded(world, isCreating(world, asked.uuid));
    expect(await isSettled(creation)).toBe(false);
    expect(world.woken).toEqual([`volume/${asked.uuid}`]);
    await world.finishVolume(asked.uuid);
    // Recorded, but no engine has reported the replicas yet.
    expect(await isSettled(creation)).toBe(false);
    world.observe();
    await creation;
    expect(world.waiting).toBe(0);
  });

  test("that is rolled back rejects with the cause, once nothing is left", async () => {
    const world = await clusterOf(3);
    world.fail("volume/other", "Internal", "somebody else's trouble");
    const asked = request();
    const creation = errorOf(world.service.createVolume(asked, context));
    await recorded(world, isCreating(world, asked.uuid));
    world.fail(`volume/${asked.uuid}`, "NoSpace", "pool-1 is full");
    expect(await isSettled(creation)).toBe(false);
    await world.rollVolumeBack(asked.uuid);
    const error = await creation;
    expect(error.code).toBe("NoSpace");
    expect(error.message).toContain("pool-1 is full");
    expect(error.remedy).toBe("do this");
    // The next one of the same name is not blamed for it.
    const again = errorOf(world.service.createVolume(asked, context));
    await recorded(world, isCreating(world, asked.uuid));
    await world.rollVolumeBack(asked.uuid);
    expect((await again).code).toBe("Aborted");
  });

  test("goes on when the caller has gone", async () => {
    const world = await clusterOf(3);
    const asked = request();
    const caller = new AbortController();
    const creation = errorOf(
      world.service.createVolume(asked, { ...context, signal: caller.signal }),
    );
    await recorded(world, isCreating(world, asked.uuid));
    caller.abort();
    expect((await creation).code).toBe("Aborted");
    expect(isCreating(world, asked.uuid)()).toBe(true);
    expect(world.waiting).toBe(0);
  });

  test("goes on when this node leads no more", async () => {
    const world = await clusterOf(3);
    const asked = request();
    const creation = errorOf(world.service.createVolume(asked, context));
    await recorded(world, isCreating(world, asked.uuid));
    world.raft.lead(false);
    expect((await creation).code).toBe("Unavailable");
    expect(isCreating(world, asked.uuid)()).toBe(true);
    expect((await errorOf(world.service.createVolume(request(), context))).code).toBe(
      "Unavailable",
    );
  });

  test("waits for its turn when as many as allowed are under way", async () => {
    const world = await clusterOf(3);
    await world.service.changeSettings({ maxVolumeCreates: 1 }, context);
    const [first, second] = [request(), request()];
    const creations = [first, second].map((one) => world.service.createVolume(one, context));
    await recorded(world, isCreating(world, first.uuid));
    expect(await isSettled(creations[1]!)).toBe(false);
    expect(world.store.view().volumes.has(second.uuid)).toBe(false);
    await world.finishVolume(first.uuid);
    world.observe();
    await creations[0];
    await recorded(world, isCreating(world, second.uuid));
    await world.finishVolume(second.uuid);
    world.observe();
    await creations[1];
  });

  test("repeated with its key joins the first, and records it once", async () => {
    const world = await clusterOf(3);
    const asked = request();
    const keyed = { ...context, idempotencyKey: "key-1" };
    const both = [
      world.service.createVolume(asked, keyed),
      world.service.createVolume(asked, keyed),
    ];
    await recorded(world, isCreating(world, asked.uuid));
    await world.finishVolume(asked.uuid);
    world.observe();
    await Promise.all(both);
    const different = world.service.createVolume({ ...asked, sizeBytes: 5 }, keyed);
    expect((await errorOf(different)).code).toBe("InvalidArgument");
  });

  test("waits for news of the nodes when this node has just begun to lead", async () => {
    const world = await clusterOf(3);
    world.observe("Unknown");
    const asked = request();
    const creation = world.service.createVolume(asked, context);
    expect(await isSettled(creation)).toBe(false);
    expect(world.store.view().volumes.size).toBe(0);
    world.observe();
    await recorded(world, isCreating(world, asked.uuid));
    await world.finishVolume(asked.uuid);
    world.observe();
    await creation;
  });
});

describe("other operations", () => {
  test("end at a failure that will not pass, and wait through others", async () => {
    const world = await clusterOf(2);
    const deletion = world.service.destroyPool("pool-1", null, notForced, context);
    const outcome = errorOf(deletion);
    await recorded(world, () => world.store.view().pools.get("pool-1")?.status === "Deleting");
    world.fail("pool/pool-1", "Unavailable", "the engine does not answer");
    expect(await isSettled(deletion)).toBe(false);
    world.fail("pool/pool-1", "DeviceIo", "the disk is broken");
    const error = await outcome;
    expect(error.code).toBe("DeviceIo");
    expect(error.message).toBe("deletion of pool pool-1 failed: the disk is broken");
  });

  const notForced = { purge: false, acceptVolumeLoss: false, acceptSnapshotLoss: false };

  test("that only record something are done with the transaction", async () => {
    const world = await clusterOf(1);
    await world.service.labelNode("node-1", "zone", "a", false, context);
    await world.service.cordonNode("node-1", "repair", context);
    await world.service.drainNode({ nodeId: "node-1", label: "go", evacuate: false }, context);
    const node = world.service.localState().stored.nodes.get("node-1")!;
    expect(node).toMatchObject({
      labels: { zone: "a" },
      cordonLabels: ["repair"],
      drainLabels: ["go"],
    });
    expect(world.woken).toEqual(["node/node-1"]);
    const events = world.service.events(0, 10).events;
    expect(events.map(({ target }) => target)).toEqual(["node-1", "node-1", "node-1"]);
  });

  test("the last node is not removed, another is with its member", async () => {
    const world = await clusterOf(2);
    const remove = (id: string) =>
      world.service.removeNode(
        id,
        { purge: true, acceptVolumeLoss: true, acceptSnapshotLoss: true },
        context,
      );
    // The stand-in for raft has one member, which is the first node's.
    world.observe("Offline");
    expect((await errorOf(remove("node-1"))).code).toBe("FailedPrecondition");
    expect(world.store.view().pools.size).toBe(2);
    await remove("node-2");
    expect(world.removed).toEqual(["node-2"]);
    expect([...world.store.view().pools.keys()]).toEqual(["pool-1"]);
  });
});

describe("settings", () => {
  test("have defaults, are changed by name, and go back", async () => {
    const world = await clusterOf(1);
    expect(world.service.localState().settings).toMatchObject({
      maxVolumeCreates: 10,
      maxRebuilds: null,
      poolCommitmentPercent: 250,
    });
    const changed = await world.service.changeSettings(
      { maxRebuilds: 3, poolCommitmentPercent: 300 },
      context,
    );
    expect(changed).toMatchObject({ maxRebuilds: 3, poolCommitmentPercent: 300 });
    const back = await world.service.changeSettings(
      { maxRebuilds: null, poolCommitmentPercent: null },
      context,
    );
    expect(back).toMatchObject({ maxRebuilds: null, poolCommitmentPercent: 250 });
  });

  test("that are unknown or impossible are refused by name, all or nothing", async () => {
    const world = await clusterOf(1);
    const change = (changes: object) => errorOf(world.service.changeSettings(changes, context));
    for (const wrong of [{ maxVolumeCreates: 0 }, { nodeDeadlineMs: "1" }, { colour: 1 }]) {
      const error = await change({ maxRebuilds: 9, ...wrong });
      expect(error.code).toBe("InvalidArgument");
      expect(error.message).toContain(Object.keys(wrong)[0]!);
    }
    expect(world.service.localState().settings.maxRebuilds).toBeNull();
  });
});

describe("watches", () => {
  test("are called when their volume changes and when it goes, and no others", async () => {
    const world = await clusterOf(1);
    const uuid = "22222222-0000-4000-8000-000000000001";
    const other = "22222222-0000-4000-8000-000000000002";
    await world.put(
      { table: "volumes", put: volumeRecord(uuid) },
      { table: "volumes", put: volumeRecord(other) },
    );
    await world.service.addWatch(uuid, "http://callback.test/a", context);
    expect(world.calls).toEqual([]);
    await world.put({
      table: "volumes",
      put: { ...world.store.view().volumes.get(other)!, epoch: 1 },
    });
    expect(world.calls).toEqual([]);
    await world.service.setMaxSnapshots(uuid, 3, context);
    const { revision } = world.store.view().volumes.get(uuid)!;
    expect(world.calls).toEqual([
      {
        url: "http://callback.test/a",
        body: { resource: `volumes/${uuid}`, revision, deleted: false },
      },
    ]);
    const id = `${uuid} http://callback.test/a`;
    await world.put({ table: "volumes", remove: uuid }, { table: "watches", remove: id });
    expect(world.calls.at(-1)!.body).toMatchObject({ deleted: true });
    expect(world.calls).toHaveLength(2);
  });
});

test("there is no plan where nobody leads, and it is said at once", async () => {
  const world = await clusterOf(1);
  expect((await world.service.plan()).works).toEqual([]);
  world.raft.lead(false);
  // As raft does while it looks for a leader.
  Object.assign(world.raft, { readIndex: () => new Promise(() => {}) });
  expect((await errorOf(world.service.plan())).code).toBe("Unavailable");
});

test("a pool that has grown is read at once: its engine does not tell", async () => {
  const world = await clusterOf(1);
  const growPool = async () => ({ current: { capacityBytes: 200 * GIB } });
  world.engine = () => ({ growPool }) as unknown as EngineClient;
  world.onRefresh = () => world.observe("Online", 200 * GIB);
  await world.service.expandPool("pool-1", context);
  expect(world.refreshed).toEqual(["node-1"]);
});
