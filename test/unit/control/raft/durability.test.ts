/** What members say and answer before their disks have what they wrote, and what only after it. */
import { drainMicrotasks } from "bun:jsc";
import { Database } from "bun:sqlite";
import { afterEach, expect, test } from "bun:test";
import { join } from "node:path";
import { type Message, MessageType } from "../../../../src/control/raft/engine.ts";
import { WAL_PAGES_MAX } from "../../../../src/control/raft/limits.ts";
import type { RaftNode } from "../../../../src/control/raft/raft.ts";
import { openRaftNode } from "../../../../src/control/raft/raft-node.ts";
import { decodeMessage } from "../../../../src/control/raft/wire.ts";
import { createKvTables, kvGet, kvMachine } from "../../../support/raft/kv-machine.ts";
import { tempFolders } from "../../../support/temp-folder.ts";

const folder = tempFolders();

interface Member {
  readonly node: RaftNode;
  readonly db: Database;
  readonly soon: (() => void)[];
  readonly failures: unknown[];
  tick(): void;
  /** True: what is to be on the disk waits for `release`. */
  isHeld: boolean;
  readonly waiting: ((error: Error | null) => void)[];
  syncs: number;
}

interface Parcel {
  readonly to: string;
  readonly bytes: Uint8Array;
  readonly message: Message;
}

/** Members with disks that a test holds; messages lie in `parcels` until they are delivered. */
class Table {
  readonly members = new Map<string, Member>();
  parcels: Parcel[] = [];
  /** Last entry in a leader's tables when it had its messages leave. */
  flushedAt: number | null = null;

  open(raftId: string, bootstrap = false, db = new Database(":memory:")): Member {
    createKvTables(db);
    let tick = () => {};
    const soon: (() => void)[] = [];
    const failures: unknown[] = [];
    const node = openRaftNode({
      raftId,
      db,
      folder: join(folder(), raftId),
      stateMachine: kvMachine(),
      transport: {
        send: (to, bytes) => this.parcels.push({ to, bytes, message: decodeMessage(bytes) }),
        flush: () => {
          const last = "SELECT max(idx) AS idx FROM raft_log";
          this.flushedAt = db.query<{ idx: number }, []>(last).get()!.idx;
        },
        sendSnapshot: async (to, bytes, path) => {
          await this.member(to).node.receiveSnapshot(bytes, path);
        },
      },
      disk: {
        sync: (done) => {
          member.syncs++;
          member.waiting.push(done);
        },
        close: () => {},
      },
      limits: { tickMs: 1, electionTicks: 10 },
      clock: {
        nowMs: () => 0,
        every: (_, call) => {
          tick = call;
          return () => {
            tick = () => {};
          };
        },
        soon: (call) => soon.push(call),
      },
      random: () => 0,
      onFailure: (error) => failures.push(error),
      ...(bootstrap ? { bootstrap: { context: "" } } : {}),
    });
    const waiting: ((error: Error | null) => void)[] = [];
    const rest = { soon, failures, waiting, syncs: 0, isHeld: false };
    const member: Member = { node, db, tick: () => tick(), ...rest };
    this.members.set(raftId, member);
    return member;
  }

  member(raftId: string): Member {
    return this.members.get(raftId)!;
  }

  /** Runs what members have put off; disks that are not held take what they get. */
  settle(): void {
    for (let isBusy = true; isBusy; ) {
      drainMicrotasks();
      isBusy = false;
      for (const member of this.members.values()) {
        const due = member.soon.splice(0);
        const written = member.isHeld ? [] : member.waiting.splice(0);
        isBusy ||= due.length + written.length > 0;
        for (const call of due) call();
        for (const done of written) done(null);
      }
    }
  }

  /** Delivers until nothing is under way any more. */
  deliver(): void {
    this.settle();
    while (this.parcels.length > 0) {
      for (const { to, bytes } of this.parcels.splice(0)) this.member(to).node.receive(bytes);
      this.settle();
    }
  }

  /** Lets time pass until a promise is there. */
  async done(promise: Promise<unknown>): Promise<void> {
    let isDone = false;
    const watched = promise.then(() => {
      isDone = true;
    });
    while (!isDone) {
      this.deliver();
      for (const member of this.members.values()) member.tick();
      // Snapshots are real files.
      await new Promise((resolve) => setImmediate(resolve));
    }
    await watched;
    this.deliver();
  }

  types(to?: string): string[] {
    const meant = this.parcels.filter((parcel) => to === undefined || parcel.to === to);
    return meant.map(({ message }) => MessageType[message.type]!);
  }
}

let table = new Table();

afterEach(async () => {
  for (const { node, db } of table.members.values()) {
    await node.stop();
    db.close();
  }
  table = new Table();
});

function set(key: string, value: string): string {
  return JSON.stringify({ op: "set", key, value });
}

/** What a proposal has come to: null while nothing. */
function follow(node: RaftNode, command: string): () => string | null {
  let outcome: string | null = null;
  node.propose(command, 1_000_000).then(
    () => {
      outcome = "applied";
    },
    (error: unknown) => {
      outcome = String(error);
    },
  );
  return () => outcome;
}

/** Three voters, of which `1` leads. */
async function three(): Promise<Member> {
  const first = table.open("1", true);
  table.settle();
  for (const raftId of ["2", "3"]) {
    table.open(raftId);
    await table.done(first.node.addLearner(raftId, ""));
    await table.done(first.node.promote(raftId));
  }
  return first;
}

test("a leader sends entries before its disk has them, but does not count itself before", async () => {
  const leader = await three();
  leader.isHeld = true;
  const outcome = follow(leader.node, set("a", "1"));
  table.settle();
  expect(table.types()).toEqual(["MsgApp", "MsgApp"]);
  expect(table.flushedAt).toBe(table.parcels[0]!.message.index);
  expect(leader.waiting).toHaveLength(1);
  // One of the others has it: with the leader that would be a majority.
  table.parcels = table.parcels.filter(({ to }) => to === "2");
  table.deliver();
  expect(outcome()).toBeNull();
  expect(leader.node.status().commitIndex).toBe(leader.node.status().appliedIndex);
  leader.isHeld = false;
  table.settle();
  expect(outcome()).toBe("applied");
});

test("followers acknowledge what their disks have", async () => {
  const leader = await three();
  const followers = ["2", "3"].map((raftId) => table.member(raftId));
  for (const follower of followers) follower.isHeld = true;
  const outcome = follow(leader.node, set("a", "1"));
  table.deliver();
  expect(followers.map(({ waiting }) => waiting.length)).toEqual([1, 1]);
  expect(outcome()).toBeNull();
  followers[1]!.isHeld = false;
  table.deliver();
  expect(outcome()).toBe("applied");
});

test("the effect of what is committed waits for no disk, neither at the leader nor elsewhere", async () => {
  const leader = await three();
  const follower = table.member("2");
  follow(leader.node, set("a", "1"));
  table.settle();
  const before = [leader.syncs, follower.syncs];
  table.deliver();
  expect(kvGet(leader.db, "a")).toBe("1");
  expect(kvGet(follower.db, "a")).toBe("1");
  // The follower's entry needed its disk; what it did to the tables, and the leader's, did not.
  expect([leader.syncs, follower.syncs]).toEqual([before[0]!, before[1]! + 1]);
});

test("what is committed is answered though the leader's disk is at what came after it", async () => {
  const leader = await three();
  const first = follow(leader.node, set("a", "1"));
  table.settle();
  // The answers of the others come together with the next proposal.
  for (const { to, bytes } of table.parcels.splice(0)) table.member(to).node.receive(bytes);
  for (const raftId of ["2", "3"]) {
    const { soon, waiting } = table.member(raftId);
    for (const call of soon.splice(0)) call();
    for (const done of waiting.splice(0)) done(null);
  }
  for (const { to, bytes } of table.parcels.splice(0)) table.member(to).node.receive(bytes);
  leader.isHeld = true;
  const second = follow(leader.node, set("b", "1"));
  table.settle();
  expect(leader.waiting).toHaveLength(1);
  expect([first(), second()]).toEqual(["applied", null]);
  leader.isHeld = false;
  table.deliver();
  expect(second()).toBe("applied");
});

test("a vote is given when the disk has it", async () => {
  await three();
  const [candidate, voter] = [table.member("2"), table.member("3")];
  voter.isHeld = true;
  candidate.isHeld = true;
  // The leader is silent for long enough.
  for (let at = 0; at < 12; at++) {
    candidate.tick();
    voter.tick();
  }
  table.parcels = [];
  for (let at = 0; at < 12; at++) candidate.tick();
  table.settle();
  expect(table.types("3")).toContain("MsgPreVote");
  const deliverTo = (raftId: string) => {
    const meant = table.parcels.filter(({ to }) => to === raftId);
    table.parcels = [];
    for (const { bytes } of meant) table.member(raftId).node.receive(bytes);
    table.settle();
  };
  deliverTo("3");
  expect(table.types("2")).toEqual(["MsgPreVoteResp"]);
  deliverTo("2");
  // It is to vote for itself first, and its disk does not have that.
  expect(candidate.waiting).toHaveLength(1);
  expect(table.types()).not.toContain("MsgVote");
  candidate.isHeld = false;
  table.settle();
  expect(table.types("3")).toEqual(["MsgVote"]);
  deliverTo("3");
  expect(voter.waiting).toHaveLength(1);
  expect(table.types("2")).toEqual([]);
  voter.isHeld = false;
  table.settle();
  expect(table.types("2")).toEqual(["MsgVoteResp"]);
});

test("the only voter calls nothing committed that its disk does not have", async () => {
  const leader = table.open("1", true);
  table.settle();
  table.open("2");
  await table.done(leader.node.addLearner("2", ""));
  const before = leader.node.status().commitIndex;
  leader.isHeld = true;
  const outcome = follow(leader.node, set("a", "1"));
  table.settle();
  expect(outcome()).toBeNull();
  for (const { message } of table.parcels) expect(message.commit).toBeLessThanOrEqual(before);
  table.deliver();
  expect(kvGet(table.member("2").db, "a")).toBe("");
  leader.isHeld = false;
  table.deliver();
  expect(outcome()).toBe("applied");
  expect(kvGet(table.member("2").db, "a")).toBe("1");
});

test("the only voter says nothing under a new term that its disk does not have", async () => {
  const former = table.open("1", true);
  table.settle();
  table.open("2");
  await table.done(former.node.addLearner("2", ""));
  await former.node.stop();
  const leader = table.open("1", false, former.db);
  leader.isHeld = true;
  // Alone among the voters it leads as soon as it runs.
  leader.tick();
  table.settle();
  expect(leader.node.status().role).toBe("leader");
  expect(table.parcels).toEqual([]);
  leader.isHeld = false;
  table.settle();
  expect(table.types("2")).toContain("MsgHeartbeat");
});

test("a member whose disk fails ends, and acknowledges nothing any more", async () => {
  const leader = await three();
  const follower = table.member("2");
  follower.isHeld = true;
  follow(leader.node, set("a", "1"));
  table.deliver();
  const failure = new Error("input/output error");
  for (const done of follower.waiting.splice(0)) done(failure);
  table.settle();
  expect(follower.failures).toEqual([failure]);
  expect(table.types("1")).toEqual([]);
});

test("a file's commits wait for the disk by themselves only while its member is opened", async () => {
  const path = join(folder(), "node.db");
  const db = new Database(path);
  const node = openRaftNode({
    raftId: "1",
    db,
    folder: folder(),
    stateMachine: kvMachine(),
    transport: { send: () => {}, sendSnapshot: () => Promise.reject(new Error("nobody")) },
    bootstrap: { context: "" },
  });
  const leads = new Promise((resolve) => node.onLeadership(resolve));
  expect(await leads).toBe(2);
  expect(await node.propose(set("a", "1"), 5_000)).toMatchObject({ result: true });
  expect(db.query("PRAGMA synchronous").get()).toEqual({ synchronous: 1 });
  expect(db.query("PRAGMA journal_mode").get()).toEqual({ journal_mode: "wal" });
  expect(db.query("PRAGMA wal_autocheckpoint").values()).toEqual([[WAL_PAGES_MAX]]);
  await node.stop();
  db.close();
});
