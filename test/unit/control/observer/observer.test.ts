/** The observer over engines in memory, with a clock that the test moves. */
import { afterEach, expect, setDefaultTimeout, test } from "bun:test";
import { SILENCE_CHECK_MS } from "../../../../src/control/observer/limits.ts";
import { type NodeChange, Observer } from "../../../../src/control/observer/observer.ts";
import type { EngineClient } from "../../../../src/engine/rpc/client.ts";
import { causedBy, TrilithError } from "../../../../src/errors.ts";
import { FakeEngine } from "../../../support/control/fake-engine.ts";
import { until } from "../../../support/engine-process.ts";
import { nodeRecord } from "../../../support/store-records.ts";

setDefaultTimeout(60_000);
const DEADLINE_MS = 1_000;
const observers: Observer[] = [];

afterEach(() => {
  for (const observer of observers.splice(0)) observer.stop();
});

function setting(...names: string[]) {
  const engines = new Map<string, FakeEngine>();
  const recorder = { record: async () => {} };
  const network = { engines, recorder, acknowledged: () => {}, destroying: () => {} };
  const silent = new Set<string>();
  const refusing = new Set<string>();
  let checks = 0;
  const events = new Map<string, (() => void)[]>();
  let monotonicMs = 0;
  const clientOf = (id: string): EngineClient => {
    const client = engines.get(id)!.client((_method, run) => {
      if (refusing.has(id)) {
        const refused = Object.assign(new Error("refused"), { code: "ECONNREFUSED" });
        return Promise.reject(causedBy(new TrilithError("Unavailable", `${id} is down`), refused));
      }
      // A call that never gets an answer: it ends with the watch that made it.
      return silent.has(id) ? new Promise(() => {}) : run();
    });
    const listEvents = () =>
      new Promise((resolve) => {
        const told = () =>
          resolve({ instanceUuid: engines.get(id)!.instance, events: [], next: 0, lost: 1 });
        events.set(id, [...(events.get(id) ?? []), told]);
      });
    return { ...client, listEvents } as unknown as EngineClient;
  };
  for (const name of names) new FakeEngine(name, network);
  const observer = new Observer({
    clientOf: ({ id }) => clientOf(id),
    nodeDeadlineMs: () => {
      checks++;
      return DEADLINE_MS;
    },
    log: () => {},
    nowMs: () => 1_000_000 + monotonicMs,
    monotonicMs: () => monotonicMs,
  });
  observers.push(observer);
  const changes: NodeChange[] = [];
  observer.onNodeChange((change) => changes.push(change));
  observer.setNodes(new Map(names.map((name) => [name, nodeRecord(name)])));
  const it = {
    observer,
    engines,
    silent,
    refusing,
    changes,
    /** Time during which the observer looks at its nodes as often as it should. */
    async passMs(ms: number) {
      for (let left = ms; left > 0; left -= SILENCE_CHECK_MS) {
        monotonicMs += Math.min(left, SILENCE_CHECK_MS);
        await it.looked();
      }
    },
    /** Time during which the observer's process stands still. */
    standStillMs(ms: number) {
      monotonicMs += ms;
    },
    /** Resolves when it has looked at all nodes once more. */
    async looked() {
      const before = checks;
      await until(
        "a look at all nodes",
        () => checks,
        (now) => now > before,
      );
    },
    tell: (id: string) => {
      for (const told of events.get(id)?.splice(0) ?? []) told();
    },
    status: (id: string) => observer.observation().get(id)?.status,
  };
  return it;
}

const online = async ({ status }: ReturnType<typeof setting>, ...ids: string[]) => {
  for (const id of ids)
    await until(
      `${id} online`,
      () => status(id),
      (now) => now === "Online",
    );
};

test("nodes are Unknown until they have been read, and forgotten when they are removed", async () => {
  const it = setting("a", "b");
  expect(it.status("a")).toBe("Unknown");
  await online(it, "a", "b");
  expect(it.observer.observation().get("a")?.info?.instanceUuid).toBe("a-0");
  it.observer.setNodes(new Map([["b", nodeRecord("b")]]));
  expect(it.status("a")).toBeUndefined();
  expect(() => it.observer.engine("a")).toThrow(TrilithError);
});

test("an engine that is silent for too long is Offline, the others are not; it comes back read anew", async () => {
  const it = setting("a", "b");
  await online(it, "a", "b");
  const pool = { name: "p", uuid: "u", disks: ["/dev/p"] };
  it.silent.add("a");
  await it.passMs(DEADLINE_MS + 1);
  await until(
    "a offline",
    () => it.status("a"),
    (now) => now === "Offline",
  );
  // The other one was heard of after the clock had moved, or will be at its next heartbeat.
  await online(it, "b");
  expect(it.observer.observation().get("a")?.offlineSinceMs).toBeGreaterThan(
    1_000_000 + DEADLINE_MS,
  );
  await it.engines.get("a")!.carryOut("createPool", pool);
  it.silent.delete("a");
  // Watched anew, as calls that were lost never end here.
  it.observer.setNodes(
    new Map([
      ["a", nodeRecord("a", { engineEndpoint: "127.0.0.2:1" })],
      ["b", nodeRecord("b")],
    ]),
  );
  await online(it, "a");
  expect([...it.observer.observation().get("a")!.pools.keys()]).toEqual(["p"]);
});

test("an engine where nobody listens any more is Offline after half of that", async () => {
  const it = setting("a", "b");
  await online(it, "a", "b");
  it.refusing.add("a");
  const begun = it.observer.observation().get("a")!.lastSeenMs!;
  await until(
    "a offline",
    async () => {
      await it.passMs(SILENCE_CHECK_MS);
      return it.status("a");
    },
    (now) => now === "Offline",
  );
  const { offlineSinceMs } = it.observer.observation().get("a")!;
  expect(offlineSinceMs! - begun).toBeGreaterThan(DEADLINE_MS / 2);
  expect(it.status("b")).toBe("Online");
  it.refusing.delete("a");
  await online(it, "a");
});

test("time in which the observer itself stood still does not count against anybody", async () => {
  const it = setting("a");
  await online(it, "a");
  await it.looked();
  it.silent.add("a");
  it.standStillMs(10 * DEADLINE_MS);
  await it.looked();
  await it.looked();
  expect(it.status("a")).toBe("Online");
  await it.passMs(DEADLINE_MS + SILENCE_CHECK_MS);
  expect(it.status("a")).toBe("Offline");
});

test("what was done before a refresh is seen after it; equal values stay the same objects", async () => {
  const it = setting("a");
  await online(it, "a");
  const engine = it.engines.get("a")!;
  await engine.carryOut("createPool", { name: "p", uuid: "u", disks: [] });
  expect(await it.observer.refresh("a")).toBe(true);
  const before = it.observer.observation().get("a")!;
  expect([...before.pools.keys()]).toEqual(["p"]);
  const replica = { uuid: "r", poolName: "p", sizeBytes: 1 << 20, thin: true };
  await engine.carryOut("createReplica", replica);
  it.changes.splice(0);
  expect(await it.observer.refresh("a")).toBe(true);
  expect(it.changes).toMatchObject([
    { nodeId: "a", isWhole: false, pools: ["p"], replicas: ["r"], nexuses: [] },
  ]);
  const seen = it.observer.observation().get("a")!;
  it.changes.splice(0);
  expect(await it.observer.refresh("a")).toBe(true);
  expect(it.changes).toEqual([]);
  expect(it.observer.observation().get("a")!.replicas).toBe(seen.replicas);
});

test("an event has the engine read at once; a restart changes everything", async () => {
  const it = setting("a");
  await online(it, "a");
  const engine = it.engines.get("a")!;
  await engine.carryOut("createPool", { name: "p", uuid: "u", disks: [] });
  await until(
    "the pool",
    () => {
      it.tell("a");
      return it.observer.observation().get("a")!.pools.size;
    },
    (size) => size === 1,
  );
  it.changes.splice(0);
  engine.restart();
  expect(await it.observer.refresh("a")).toBe(true);
  expect(it.changes).toMatchObject([{ nodeId: "a", isWhole: true, pools: ["p"] }]);
});

test("a refresh of a node that cannot be read says so", async () => {
  const it = setting("a");
  await online(it, "a");
  it.engines.get("a")!.isUp = false;
  expect(await it.observer.refresh("a")).toBe(false);
  expect(await it.observer.refresh("nobody")).toBe(false);
});
