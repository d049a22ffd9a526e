/** The executor over a store and engines in memory. */
import { afterEach, expect, setDefaultTimeout, test } from "bun:test";
import type { ObservedNode } from "../../../../src/control/cluster-state.ts";
import { Executor } from "../../../../src/control/executor/executor.ts";
import type { NodeChange } from "../../../../src/control/observer/observer.ts";
import { takeOver } from "../../../../src/control/observer/read-engine.ts";
import type { Change } from "../../../../src/control/planner/plan.ts";
import { settingsDefault } from "../../../../src/control/service/settings.ts";
import { TrilithError } from "../../../../src/errors.ts";
import { FakeEngine } from "../../../support/control/fake-engine.ts";
import { MemoryStore } from "../../../support/control/memory-store.ts";
import { seenNode } from "../../../support/control/states.ts";
import { until } from "../../../support/engine-process.ts";
import {
  nodeRecord,
  poolRecord,
  replicaRecord,
  volumeRecord,
} from "../../../support/store-records.ts";

setDefaultTimeout(60_000);
const executors: Executor[] = [];

afterEach(async () => {
  for (const executor of executors.splice(0)) await executor.stop();
});

type Call = (node: string, method: string, run: () => Promise<unknown>) => Promise<unknown>;

/** Nodes that are read when somebody asks, and otherwise stay as they were. */
function setting(names: readonly string[], records: readonly Change[]) {
  const engines = new Map<string, FakeEngine>();
  const recorder = { record: async () => {} };
  const network = { engines, recorder, acknowledged: () => {}, destroying: () => {} };
  const store = new MemoryStore();
  const observed = new Map<string, ObservedNode>();
  const listeners = new Set<(change: NodeChange) => void>();
  const calls: string[] = [];
  const it = {
    store,
    engines,
    calls,
    call: ((_node, _method, run) => run()) as Call,
    readable: true,
  };
  for (const name of names) {
    new FakeEngine(name, network);
    observed.set(name, seenNode(name));
  }
  store.seed(
    ...names.map((name): Change => ({ table: "nodes", put: nodeRecord(name) })),
    ...records,
  );
  const byKey = <T>(list: readonly T[], key: (one: T) => string) =>
    new Map(list.map((one) => [key(one), one]));
  const observer = {
    observation: () => new Map(observed),
    engine: (id: string) =>
      engines.get(id)!.client((method, run) => {
        calls.push(`${id} ${method}`);
        return it.call(id, method, run);
      }),
    refresh: async (id: string) => {
      await Promise.resolve();
      if (!it.readable) return false;
      const engine = engines.get(id)!;
      const { node, change } = takeOver(observed.get(id)!, {
        info: engine.info(),
        pools: byKey(engine.pools(), ({ name }) => name),
        replicas: byKey(engine.replicas(), ({ uuid }) => uuid),
        snapshots: new Map(),
        nexuses: new Map(),
      });
      observed.set(id, node);
      for (const listener of listeners)
        listener({ nodeId: id, isWhole: change.havePoolsChanged, ...change });
      return true;
    },
    onNodeChange: (listener: (change: NodeChange) => void) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    onEngineEvent: () => () => {},
    setNodes: () => {},
    stop: () => {},
    tell: () => {},
  };
  const settings = () => settingsDefault;
  const executor = new Executor({
    store,
    observer,
    settings,
    log: () => {},
    nowMs: () => Date.now(),
  });
  executors.push(executor);
  return { ...it, it, executor };
}

const pool = (node: string): Change => ({
  table: "pools",
  put: poolRecord(`p-${node}`, node, { status: "Creating", createdAtMs: Date.now() }),
});

test("carries out what is recorded, and rests then", async () => {
  const { store, engines, executor, calls } = setting(["a", "b"], [pool("a"), pool("b")]);
  executor.start();
  await until(
    "pools",
    () => [...store.view().pools.values()].map(({ status }) => status),
    (all) => all.every((s) => s === "Created"),
  );
  await until(
    "rest",
    () => executor.isIdle,
    (idle) => idle,
  );
  expect(engines.get("a")!.imported.has("p-a")).toBe(true);
  expect(calls.toSorted()).toEqual(["a createPool", "b createPool"]);
});

test("tells of failures, tries again, and forgets them after success", async () => {
  const { it, store, executor } = setting(["a"], [pool("a")]);
  let refusals = 2;
  it.call = (_node, _method, run) => {
    if (refusals-- > 0) return Promise.reject(new TrilithError("Unavailable", "refused"));
    return run();
  };
  const seen = new Set<number>();
  executor.start();
  await until(
    "the pool",
    () => {
      const failure = executor.lastFailure("pool/p-a");
      if (failure !== null) seen.add(failure.sequence);
      return store.view().pools.get("p-a")!.status;
    },
    (status) => status === "Created",
  );
  expect(seen.size).toBeGreaterThan(0);
  expect(executor.lastFailure("pool/p-a")).toBeNull();
});

test("says why it gave something up, also when the record is gone", async () => {
  const { it, store, executor } = setting(["a"], [pool("a")]);
  it.call = (_node, method, run) =>
    method === "createPool"
      ? Promise.reject(new TrilithError("ForeignDisk", "it holds ext4"))
      : run();
  executor.start();
  await until(
    "rollback",
    () => store.view().pools.size,
    (size) => size === 0,
  );
  expect(executor.lastFailure("pool/p-a")?.error).toMatchObject({
    code: "ForeignDisk",
    message: "it holds ext4",
  });
});

test("a volume whose replica cannot be made anywhere is rolled back with the cause", async () => {
  const poolA: Change = { table: "pools", put: poolRecord("p-a", "a") };
  const volume = "00000000-0000-4000-8000-000000000001";
  const replica = "00000000-0000-4000-8000-000000000002";
  const createdAtMs = Date.now();
  const { it, engines, store, executor } = setting(
    ["a"],
    [
      poolA,
      { table: "volumes", put: volumeRecord(volume, { status: "Creating", createdAtMs }) },
      {
        table: "replicas",
        put: replicaRecord(replica, volume, "p-a", {
          nodeId: "a",
          status: "Creating",
          createdAtMs,
        }),
      },
    ],
  );
  await engines.get("a")!.carryOut("createPool", { name: "p-a", uuid: "uuid-of-p-a" });
  engines.get("a")!.restart();
  it.call = (_node, method, run) =>
    method === "createReplica" ? Promise.reject(new TrilithError("NoSpace", "it is full")) : run();
  executor.start();
  await until(
    "rollback",
    () => store.view().volumes.size + store.view().replicas.size,
    (size) => size === 0,
  );
  expect(executor.lastFailure(`volume/${volume}`)?.error).toMatchObject({ code: "NoSpace" });
});

test("does nothing while another node leads, and stops at once when it does not lead any more", async () => {
  const { it, store, executor, calls } = setting(["a"], [pool("a")]);
  store.setLeader(false);
  executor.start();
  executor.wake("pool/p-a");
  let answer: (() => void) | null = null;
  it.call = (_node, _method, run) =>
    new Promise((resolve) => {
      answer = () => resolve(run());
    });
  expect(calls).toEqual([]);
  store.setLeader(true);
  await until(
    "the call",
    () => answer !== null,
    (isThere) => isThere,
  );
  store.setLeader(false);
  answer!();
  await executor.stop();
  // What the call did is there; that it is done is for the next leader to find out.
  expect(store.view().pools.get("p-a")!.status).toBe("Creating");
  expect(calls).toEqual(["a createPool"]);
});

test("does not plan a subject again before its node has been read", async () => {
  const { it, store, executor, calls } = setting(["a"], [pool("a")]);
  it.readable = false;
  // The call does its work, but the answer is lost: only looking tells.
  it.call = async (_node, _method, run) => {
    await run();
    throw new TrilithError("Timeout", "no answer");
  };
  executor.start();
  await until(
    "the failure",
    () => executor.lastFailure("pool/p-a"),
    (failure) => failure !== null,
  );
  executor.wake("pool/p-a");
  executor.wake("pool/p-a");
  await Promise.resolve();
  expect(calls).toEqual(["a createPool"]);
  it.readable = true;
  await until(
    "the pool",
    () => store.view().pools.get("p-a")!.status,
    (status) => status === "Created",
  );
  expect(calls).toEqual(["a createPool"]);
});

test("a plan that is out of date is made anew", async () => {
  const { it, store, executor } = setting(["a"], [pool("a")]);
  it.call = async (_node, _method, run) => {
    const record = store.view().pools.get("p-a")!;
    store.seed({ table: "pools", put: { ...record, labels: { changed: "meanwhile" } } });
    return run();
  };
  executor.start();
  await until(
    "the pool",
    () => store.view().pools.get("p-a")!,
    ({ status }) => status === "Created",
  );
  expect(store.view().pools.get("p-a")!.labels).toEqual({ changed: "meanwhile" });
});

test("keeps what was warned of when everything was planned last, while it leads", async () => {
  const { it, executor } = setting(["a"], [pool("a")]);
  it.call = () => Promise.reject(new TrilithError("Unavailable", "refused"));
  expect(executor.lastWarnings).toEqual([]);
  executor.start();
  await until(
    "the warning",
    () => executor.lastWarnings,
    (warnings) => warnings.some(({ message }) => message.includes("refused")),
  );
  await executor.stop();
  expect(executor.lastWarnings).toEqual([]);
});
