import { afterEach, describe, expect, test } from "bun:test";
import { StoreMachine } from "../../../../src/control/store/machine.ts";
import { openStore, type ReplicatedStore } from "../../../../src/control/store/replicated-store.ts";
import { TrilithError } from "../../../../src/errors.ts";
import type { Log } from "../../../../src/ops/log.ts";
import { type LocalRaft, localRaft } from "../../../support/local-raft.ts";
import {
  newEvent,
  poolRecord,
  replicaRecord,
  volumeRecord,
} from "../../../support/store-records.ts";

interface Rig {
  readonly store: ReplicatedStore;
  readonly raft: LocalRaft;
  readonly logged: string[];
}

const rigs: Rig[] = [];

function makeRig(): Rig {
  const machine = new StoreMachine();
  const raft = localRaft(machine);
  const logged: string[] = [];
  const log: Log = (_level, text) => logged.push(text);
  const rig = {
    store: openStore({ machine, raft, log, now: () => 1_700_000_000_000 }),
    raft,
    logged,
  };
  rigs.push(rig);
  return rig;
}

afterEach(async () => {
  for (const { store, raft } of rigs.splice(0)) {
    store.close();
    await raft.stop();
  }
});

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return "resolved";
  } catch (error) {
    return error instanceof TrilithError ? error.code : String(error);
  }
}

const put = (volume: ReturnType<typeof volumeRecord>) =>
  ({ table: "volumes", put: volume }) as const;

describe("transactions", () => {
  test("what was put is in the view, under the index that wrote it", async () => {
    const { store } = makeRig();
    const value = await store.transact(() => ({
      changes: [put(volumeRecord("v1", { labels: { a: "b" } }))],
      events: [newEvent("v1")],
      value: 7,
    }));
    expect(value).toBe(7);
    expect(store.view().volumes.get("v1")).toEqual(
      volumeRecord("v1", { labels: { a: "b" }, revision: 1 }),
    );
    expect(store.view().appliedIndex).toBe(1);
    expect(store.events(0, 10)).toEqual({
      events: [{ id: 1, atMs: 1_700_000_000_000, ...newEvent("v1") }],
      oldestId: 1,
    });
  });

  test("a view that was handed out stays as it was", async () => {
    const { store } = makeRig();
    await store.transact(() => ({ changes: [put(volumeRecord("v1"))], events: [], value: 0 }));
    const before = store.view();
    await store.transact((view) => ({
      changes: [
        put({ ...view.volumes.get("v1")!, sizeBytes: 5 }),
        { table: "replicas", put: replicaRecord("r1", "v1", "pool-1") },
      ],
      events: [],
      value: 0,
    }));
    expect(before.volumes.get("v1")?.sizeBytes).toBe(2 ** 30);
    expect(before.replicas.size).toBe(0);
    expect([...before.replicas.values()]).toEqual([]);
    expect(before.replicasOfVolume.get("v1")).toBeUndefined();
    expect(store.view().volumes.get("v1")?.sizeBytes).toBe(5);
    expect([...store.view().replicasOfVolume.get("v1")!]).toEqual(["r1"]);
  });

  test("a change made from an older revision is refused, and changes nothing", async () => {
    const { store } = makeRig();
    await store.transact(() => ({ changes: [put(volumeRecord("v1"))], events: [], value: 0 }));
    const old = store.view().volumes.get("v1")!;
    await store.transact(() => ({
      changes: [put({ ...old, sizeBytes: 2 })],
      events: [],
      value: 0,
    }));
    const refused = store.transact(() => ({
      changes: [put(volumeRecord("v2")), put({ ...old, sizeBytes: 3 })],
      events: [newEvent("v2")],
      value: 0,
    }));
    expect(await codeOf(refused)).toBe("Conflict");
    expect(store.view().volumes.get("v1")?.sizeBytes).toBe(2);
    expect(store.view().volumes.has("v2")).toBe(false);
    expect(store.events(0, 10).events).toEqual([]);
  });

  test("counting up by many at once loses nothing", async () => {
    const { store } = makeRig();
    await store.transact(() => ({
      changes: [put(volumeRecord("v1", { epoch: 0 }))],
      events: [],
      value: 0,
    }));
    const raise = () =>
      store.transact((view) => {
        const volume = view.volumes.get("v1")!;
        return { changes: [put({ ...volume, epoch: volume.epoch + 1 })], events: [], value: 0 };
      });
    await Promise.all(Array.from({ length: 100 }, raise));
    expect(store.view().volumes.get("v1")?.epoch).toBe(100);
  });

  test("what is decided from the absence of a record holds when it is applied", async () => {
    const { store } = makeRig();
    await store.transact(() => ({
      changes: [{ table: "pools", put: poolRecord("pool-1", "node-1") }],
      events: [],
      value: 0,
    }));
    // Each takes a place of the pool, which has three.
    const take = (uuid: string) =>
      store.transact((view) => {
        const taken = view.replicasOfPool.get("pool-1")?.size ?? 0;
        if (taken >= 3) throw new TrilithError("NoSpace", "full");
        const replica = replicaRecord(uuid, null, "pool-1");
        return { changes: [{ table: "replicas", put: replica }], events: [], value: 0 };
      });
    const codes = await Promise.all(
      Array.from({ length: 10 }, (_, number) => codeOf(take(`r${number}`))),
    );
    expect(codes.filter((code) => code === "resolved")).toHaveLength(3);
    expect(codes.filter((code) => code === "NoSpace")).toHaveLength(7);
    expect(store.view().replicasOfPool.get("pool-1")?.size).toBe(3);
  });

  test("a record that is not what its table holds is a defect, found before it is proposed", async () => {
    const { store, raft } = makeRig();
    const wrong = { ...volumeRecord("v1"), sizeBytes: 1.5 };
    const refused = store.transact(() => ({ changes: [put(wrong)], events: [], value: 0 }));
    expect(await codeOf(refused)).toBe("Internal");
    expect(raft.commands).toEqual([]);
  });

  test("the same record twice in one transaction is a defect", async () => {
    const { store } = makeRig();
    const twice = store.transact(() => ({
      changes: [put(volumeRecord("v1")), { table: "volumes", remove: "v1" } as const],
      events: [],
      value: 0,
    }));
    expect(await codeOf(twice)).toBe("Internal");
  });

  test("an error of the decision is the caller's, and nothing is proposed", async () => {
    const { store, raft } = makeRig();
    const refused = store.transact(() => {
      throw new TrilithError("NotFound", "no such volume");
    });
    expect(await codeOf(refused)).toBe("NotFound");
    expect(raft.commands).toEqual([]);
  });

  test("one that waits too long for others is given up, and lets those behind it pass", async () => {
    const { store, raft } = makeRig();
    const make = (uuid: string, timeoutMs: number) =>
      store.transact(() => ({ changes: [put(volumeRecord(uuid))], events: [], value: 0 }), {
        timeoutMs,
      });
    await make("v0", 10_000);
    raft.hold();
    const first = make("v1", 10_000);
    const second = codeOf(make("v2", 20));
    const third = make("v3", 10_000);
    expect(await second).toBe("Timeout");
    raft.release();
    await Promise.all([first, third]);
    expect([...store.view().volumes.keys()].sort()).toEqual(["v0", "v1", "v3"]);
  });
});

describe("idempotency keys", () => {
  test("a repeated request is applied once and has the answer of the first", async () => {
    const { store, raft } = makeRig();
    let decisions = 0;
    const request = () =>
      store.transact(
        (view) => {
          decisions++;
          const existing = view.volumes.get("v1");
          if (existing !== undefined) throw new TrilithError("AlreadyExists", "v1 exists");
          return {
            changes: [put(volumeRecord("v1"))],
            events: [newEvent("v1")],
            value: { attempt: decisions },
          };
        },
        { idempotencyKey: "request-1" },
      );
    const first = await request();
    expect(await request()).toEqual(first);
    expect(raft.commands).toHaveLength(1);
    expect(store.events(0, 10).events).toHaveLength(1);
  });

  test("one whose answer was lost is not applied again", async () => {
    const { store, raft } = makeRig();
    const request = () =>
      store.transact(
        (view) => ({
          changes: [put(volumeRecord(`v${view.volumes.size}`))],
          events: [],
          value: view.volumes.size,
        }),
        { idempotencyKey: "request-1" },
      );
    raft.loseAnswers(1);
    expect(await codeOf(request())).toBe("Timeout");
    expect(await request()).toBe(0);
    expect([...store.view().volumes.keys()]).toEqual(["v0"]);
  });

  test("two of the same at once are applied once", async () => {
    const { store } = makeRig();
    const request = () =>
      store.transact(
        (view) => ({
          changes: [
            { table: "settings", put: { key: `k${view.settings.size}`, revision: 0, value: "1" } },
          ],
          events: [newEvent("x")],
          value: view.settings.size,
        }),
        { idempotencyKey: "request-1" },
      );
    expect(await Promise.all([request(), request(), request()])).toEqual([0, 0, 0]);
    expect(store.view().settings.size).toBe(1);
    expect(store.events(0, 10).events).toHaveLength(1);
  });

  test("a request without effect is remembered too", async () => {
    const { store } = makeRig();
    const request = () =>
      store.transact((view) => ({ changes: [], events: [], value: view.volumes.size }), {
        idempotencyKey: "request-1",
      });
    expect(await request()).toBe(0);
    await store.transact(() => ({ changes: [put(volumeRecord("v1"))], events: [], value: 0 }));
    expect(await request()).toBe(0);
  });
});

describe("leadership", () => {
  test("elsewhere than at the leader a transaction is refused", async () => {
    const { store, raft } = makeRig();
    await store.latest();
    raft.lead(false);
    const refused = store.transact(() => ({ changes: [], events: [], value: 0 }));
    expect(await codeOf(refused)).toBe("Unavailable");
    expect(await codeOf(store.latest())).toBe("Unavailable");
    expect(store.isLeader()).toBe(false);
  });

  test("is told once all of former terms is applied, and taken back", async () => {
    const { store, raft } = makeRig();
    await store.transact(() => ({ changes: [], events: [], value: 0 }));
    const terms: (number | null)[] = [];
    store.onLeadership((term) => terms.push(term));
    raft.lead(false);
    expect(terms).toEqual([null]);
    raft.lead(true);
    await store.transact(() => ({ changes: [], events: [], value: 0 }));
    expect(terms).toEqual([null, 2]);
  });

  test("a read that nobody answers ends as soon as leadership does, and the next one begins anew", async () => {
    const { store, raft } = makeRig();
    await store.latest();
    raft.hold("reads");
    const first = codeOf(store.latest());
    const second = codeOf(store.latest());
    raft.lead(false);
    expect(await first).toBe("Unavailable");
    expect(await second).toBe("Unavailable");
    raft.release();
    raft.lead(true);
    await store.transact(() => ({ changes: [], events: [], value: 0 }));
    expect(await codeOf(store.latest())).toBe("resolved");
  });

  test("proposals of a leader that is none any more are refused, not forgotten", async () => {
    const { store, raft } = makeRig();
    await store.latest();
    raft.hold();
    const pending = codeOf(
      store.transact(() => ({ changes: [put(volumeRecord("v1"))], events: [], value: 0 })),
    );
    await store.latest();
    raft.lead(false);
    expect(await pending).toBe("Unavailable");
  });
});

describe("listeners", () => {
  test("hear of each transaction in order, and one that fails harms nobody", async () => {
    const { store, logged } = makeRig();
    const heard: string[][] = [];
    const events: number[] = [];
    store.subscribe(() => {
      throw new Error("broken listener");
    });
    store.subscribe((touched, view) => {
      expect(view).toBe(store.view());
      heard.push([...touched]);
    });
    const forget = store.onEvent((event) => events.push(event.id));
    await store.transact(() => ({
      changes: [put(volumeRecord("v1"))],
      events: [newEvent("v1"), newEvent("v1")],
      value: 0,
    }));
    forget();
    await store.transact((view) => ({
      changes: [{ table: "volumes", remove: "v1", revision: view.volumes.get("v1")!.revision }],
      events: [newEvent("v1")],
      value: 0,
    }));
    expect(heard).toEqual([["volumes/v1"], ["volumes/v1"]]);
    expect(events).toEqual([1, 2]);
    expect(logged).toEqual(["a listener of the store failed", "a listener of the store failed"]);
  });
});
