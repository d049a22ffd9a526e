/** Stores of three members over raft itself: the same everywhere, whoever leads. */
import { afterEach, expect, test } from "bun:test";
import type { ReplicatedStore } from "../../../../src/control/store/replicated-store.ts";
import { type ErrorCode, TrilithError } from "../../../../src/errors.ts";
import { dumpOf, Members } from "../../../support/control/members.ts";
import { until } from "../../../support/engine-process.ts";
import { withSeed } from "../../../support/random.ts";
import { newEvent, replicaRecord, volumeRecord } from "../../../support/store-records.ts";
import { tempFolders } from "../../../support/temp-folder.ts";

const makeFolder = tempFolders();
const opened: Members[] = [];
afterEach(async () => {
  for (const members of opened.splice(0)) await members.stopAll();
});

async function three(limits: ConstructorParameters<typeof Members>[0]["limits"] = {}) {
  const members = new Members({ folder: makeFolder(), limits });
  opened.push(members);
  await members.grow(3);
  return members;
}

/** Raises the epoch of a volume, which is made when there is none. */
function raise(
  store: ReplicatedStore,
  uuid: string,
  idempotencyKey?: string,
  timeoutMs = 10_000,
): Promise<number> {
  return store.transact(
    (view) => {
      const before = view.volumes.get(uuid) ?? volumeRecord(uuid);
      const put = { ...before, epoch: before.epoch + 1 };
      return {
        changes: [{ table: "volumes", put }],
        events: [newEvent(uuid)],
        value: put.epoch,
      };
    },
    { timeoutMs, ...(idempotencyKey === undefined ? {} : { idempotencyKey }) },
  );
}

async function codeOf(promise: Promise<unknown>): Promise<ErrorCode | "resolved"> {
  try {
    await promise;
    return "resolved";
  } catch (error) {
    if (error instanceof TrilithError) return error.code;
    throw error;
  }
}

function expectSame(members: Members): void {
  const [first, ...others] = members.running.map(({ db }) => dumpOf(db));
  for (const other of others) expect(other).toBe(first!);
}

test("what the leader commits is on every member, and followers decide nothing", async () => {
  const members = await three();
  const { store } = await members.leader();
  for (let n = 1; n <= 20; n++) await raise(store, "v1");
  await members.settled();
  expectSame(members);
  for (const member of members.running) {
    // A follower's latest view has whatever was acknowledged before.
    expect((await member.store.latest()).volumes.get("v1")!.epoch).toBe(20);
    expect(member.store.events(0, 100).events).toHaveLength(20);
    expect(member.store.status().members.map(({ nodeId }) => nodeId)).toEqual([
      "node-1",
      "node-2",
      "node-3",
    ]);
    if (member.store !== store) expect(await codeOf(raise(member.store, "v1"))).toBe("Unavailable");
  }
}, 30_000);

test("a leader that is cut off acknowledges nothing, and what it was asked is safe to repeat", async () => {
  const members = await three();
  const old = await members.leader();
  await raise(old.store, "v1", "first");
  const told: (number | null)[] = [];
  old.store.onLeadership((term) => told.push(term));
  members.cutOff(old.raftId);
  const lost = codeOf(raise(old.store, "v1", "second", 1_000));
  const next = await members.leader();
  expect(next.raftId).not.toBe(old.raftId);
  expect(await raise(next.store, "v1", "second")).toBe(2);
  expect(["Timeout", "Unavailable"]).toContain(await lost);
  // A view that might be old is not given out as the latest.
  expect(await codeOf(old.store.latest())).toBe("Unavailable");
  members.rejoin(old.raftId);
  await members.settled();
  expect(await raise((await members.leader()).store, "v1", "second")).toBe(2);
  expect(told[0]).toBeNull();
  await members.settled();
  expectSame(members);
  expect(members.member(old.raftId).store.view().volumes.get("v1")!.epoch).toBe(2);
}, 60_000);

test("a member that comes back after the log was cut gets a snapshot, and tells its listeners", async () => {
  const members = await three({ logEntriesMax: 40, logEntriesKept: 10 });
  const leader = await members.leader();
  await raise(leader.store, "old");
  const absent = members.running.find(({ raftId }) => raftId !== leader.raftId)!;
  await until(
    "the absent member having the first volume",
    () => absent.store.view().volumes.has("old"),
    (has) => has,
  );
  const held = absent.store.view();
  const touched = new Set<string>();
  const said: number[] = [];
  absent.store.onEvent(({ id }) => said.push(id));
  absent.store.subscribe((names) => {
    for (const name of names) touched.add(name);
  });
  members.cutOff(absent.raftId);
  await leader.store.transact(() => ({
    changes: [
      { table: "volumes", remove: "old" },
      { table: "volumes", put: volumeRecord("new") },
      { table: "replicas", put: replicaRecord("r1", "new", "pool-1") },
    ],
    events: [],
    value: null,
  }));
  for (let n = 0; n < 100; n++) await raise(leader.store, "new", `request-${n}`);
  expect(leader.raft.status().firstIndex).toBeGreaterThan(absent.raft.status().appliedIndex + 1);
  members.rejoin(absent.raftId);
  await members.settled();
  expectSame(members);
  const view = absent.store.view();
  expect([...view.volumes.keys()]).toEqual(["new"]);
  expect([...view.replicasOfVolume.get("new")!]).toEqual(["r1"]);
  expect([...held.volumes.keys()]).toEqual(["old"]);
  for (const name of ["volumes/old", "volumes/new", "replicas/r1"]) expect(touched).toContain(name);
  expect(said).toEqual(Array.from({ length: 100 }, (_, at) => at + 2));
  // What was applied before the snapshot is known after it.
  const { raft } = await members.leader();
  await raft.transferLeadership(absent.raftId);
  await until(
    "the returned member leading",
    () => absent.store.isLeader(),
    (leads) => leads,
  );
  expect(await raise(absent.store, "new", "request-5")).toBe(6);
}, 60_000);

test("random work while members stop, start and lead in turn: nothing acknowledged is lost", async () => {
  const members = await three({ logEntriesMax: 60, logEntriesKept: 20 });
  await withSeed(import.meta.path, async (random) => {
    const acknowledged = new Map<string, number>();
    let isOver = false;
    const client = async (name: string): Promise<void> => {
      for (let n = 1; !isOver; n++) {
        // The same request, with the same key, until somebody has carried it out.
        for (;;) {
          const { store } = await members.leader();
          try {
            acknowledged.set(name, await raise(store, name, `${name}-${n}`, 1_000));
            break;
          } catch (error) {
            if (!(error instanceof TrilithError)) throw error;
            await new Promise(setImmediate);
          }
        }
        expect(acknowledged.get(name)).toBe(n);
      }
    };
    const clients = ["a", "b", "c"].map(client);
    const total = () => [...acknowledged.values()].reduce((sum, count) => sum + count, 0);
    const progressed = async () => {
      const before = total();
      await until("progress", total, (now) => now >= before + 15);
    };
    for (let round = 0; round < 4; round++) {
      const raftId = random.pick(["1", "2", "3"]);
      if (random.chance(0.5)) {
        await members.stop(raftId);
        await progressed();
        members.start(raftId);
      } else {
        members.cutOff(raftId);
        await progressed();
        members.rejoin(raftId);
      }
      await progressed();
    }
    isOver = true;
    await Promise.all(clients);
    await members.settled();
    expectSame(members);
    for (const [name, count] of acknowledged) {
      const view = await (await members.leader()).store.latest();
      expect(view.volumes.get(name)!.epoch).toBe(count);
    }
  });
}, 120_000);
