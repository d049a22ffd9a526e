/** One member on its own: what it refuses, how it ends, what it has when it is opened again. */
import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { existsSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Message, MessageType } from "../../../../src/control/raft/engine.ts";
import type { RaftLimits } from "../../../../src/control/raft/limits.ts";
import type { RaftNode, RaftTransport, StateMachine } from "../../../../src/control/raft/raft.ts";
import { openRaftNode } from "../../../../src/control/raft/raft-node.ts";
import { recoverRaft } from "../../../../src/control/raft/recovery.ts";
import { encodeMessage } from "../../../../src/control/raft/wire.ts";
import { TrilithError } from "../../../../src/errors.ts";
import { createKvTables, kvGet, kvMachine } from "../../../support/raft/kv-machine.ts";
import { tempFolders } from "../../../support/temp-folder.ts";

const folder = tempFolders();

interface Opened {
  readonly node: RaftNode;
  readonly db: Database;
  readonly path: string;
  readonly failures: unknown[];
  readonly problems: string[];
  readonly commits: () => number;
}

/** Counts the transactions of a file. */
class CountingDatabase extends Database {
  commits = 0;
  override run(...statement: Parameters<Database["run"]>): ReturnType<Database["run"]> {
    if (statement[0] === "COMMIT") this.commits++;
    return super.run(...statement);
  }
}

function open(
  options: {
    path?: string;
    raftId?: string;
    limits?: Partial<RaftLimits>;
    machine?: StateMachine;
    isJoining?: boolean;
    sendSnapshot?: RaftTransport["sendSnapshot"];
  } = {},
): Opened {
  const path = options.path ?? join(folder(), "node.db");
  const db = new CountingDatabase(path);
  createKvTables(db);
  const failures: unknown[] = [];
  const problems: string[] = [];
  const node = openRaftNode({
    raftId: options.raftId ?? "n1",
    db,
    folder: `${path}.snapshots`,
    stateMachine: options.machine ?? kvMachine(),
    transport: {
      send: () => {},
      sendSnapshot: options.sendSnapshot ?? (() => Promise.reject(new Error("nobody"))),
    },
    limits: { tickMs: 10, ...options.limits },
    onFailure: (error) => failures.push(error),
    onProblem: (what) => problems.push(what),
    ...(options.isJoining === true ? {} : { bootstrap: { context: "here" } }),
  });
  return { node, db, path, failures, problems, commits: () => db.commits };
}

function set(key: string, value: string): string {
  return JSON.stringify({ op: "set", key, value });
}

async function leading(node: RaftNode): Promise<number> {
  return new Promise((resolve) => {
    const unlisten = node.onLeadership((term) => {
      if (term === null) return;
      unlisten();
      resolve(term);
    });
  });
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return "none";
  } catch (error) {
    return error instanceof TrilithError ? error.code : String(error);
  }
}

test("a node alone leads, applies, reads, and has everything when it is opened again", async () => {
  const first = open();
  await leading(first.node);
  const { index, result } = await first.node.propose(set("a", "1"), 5_000);
  expect(result).toBe(true);
  expect(await first.node.readIndex(5_000)).toBeGreaterThanOrEqual(index);
  expect(kvGet(first.db, "a")).toBe("1");
  await first.node.stop();
  first.db.close();

  const again = open({ path: first.path });
  expect(kvGet(again.db, "a")).toBe("1");
  expect(again.node.status().appliedIndex).toBe(index);
  expect(await leading(again.node)).toBe(3);
  expect(again.node.status().contextOf?.get("n1")).toBe("here");
  await again.node.stop();
  again.db.close();
});

test("many proposals of one turn are one transaction", async () => {
  const { node, db, commits } = open();
  await leading(node);
  const before = commits();
  const proposals = Array.from({ length: 500 }, (_, at) => node.propose(set(`k${at}`, "1"), 5_000));
  const outcomes = await Promise.all(proposals);
  expect(commits() - before).toBe(1);
  expect(outcomes.map(({ index }) => index)).toEqual(
    Array.from({ length: 500 }, (_, at) => outcomes[0]!.index + at),
  );
  await node.stop();
  db.close();
});

test("what cannot be a command is refused", async () => {
  const { node, db } = open({ limits: { commandLengthMax: 100 } });
  await leading(node);
  expect(await codeOf(node.propose("x".repeat(101), 1_000))).toBe("InvalidArgument");
  expect(await codeOf(node.propose("lone \ud800", 1_000))).toBe("InvalidArgument");
  expect(await codeOf(node.propose("nul \0", 1_000))).toBe("InvalidArgument");
  await node.stop();
  db.close();
});

test("a full queue refuses; what is in it is applied", async () => {
  const { node, db } = open({ limits: { proposalsQueuedMax: 10, proposalsPerBatch: 3 } });
  await leading(node);
  const proposals = Array.from({ length: 30 }, () => codeOf(node.propose(set("a", "1"), 5_000)));
  const codes = await Promise.all(proposals);
  expect(codes.filter((code) => code === "none").length).toBe(10);
  expect(codes.filter((code) => code === "Unavailable").length).toBe(20);
  await node.stop();
  db.close();
});

test("a node that waits to be added neither proposes nor reads", async () => {
  const { node, db } = open({ isJoining: true });
  expect(node.status()).toMatchObject({ role: "learner", leader: null, term: 0 });
  expect(await codeOf(node.propose(set("a", "1"), 50))).toBe("Unavailable");
  expect(await codeOf(node.readIndex(50))).toBe("Unavailable");
  expect(await codeOf(node.addLearner("n2", ""))).toBe("Unavailable");
  await node.stop();
  db.close();
});

test("a node that was stopped answers everything, once, as ended", async () => {
  const { node, db } = open();
  await leading(node);
  const waiting = codeOf(node.propose(set("a", "1"), 5_000));
  await node.stop();
  expect(await waiting).toBe("Unavailable");
  expect(await codeOf(node.propose(set("a", "1"), 5_000))).toBe("Unavailable");
  expect(await codeOf(node.readIndex(5_000))).toBe("Unavailable");
  expect(await codeOf(node.promote("n2"))).toBe("Unavailable");
  expect(kvGet(db, "a")).toBe("");
  db.close();
});

test("a command that cannot be carried out ends the node, with nothing of its transaction kept", async () => {
  const machine = kvMachine();
  const failing: StateMachine = {
    ...machine,
    apply(db, index, command) {
      const result = machine.apply(db, index, command);
      if (command.includes("poison")) throw new Error("cannot");
      return result;
    },
  };
  const { node, db, failures } = open({ machine: failing });
  await leading(node);
  const before = node.status().appliedIndex;
  const both = [node.propose(set("a", "1"), 5_000), node.propose(set("poison", "1"), 5_000)];
  expect(await Promise.all(both.map(codeOf))).toEqual(["Timeout", "Timeout"]);
  expect(failures.map(String)).toEqual(["Error: cannot"]);
  expect(kvGet(db, "a")).toBe("");
  const row = db
    .query<{ value: string }, []>("SELECT value FROM raft_meta WHERE name = 'hard'")
    .get();
  expect(JSON.parse(row!.value).applied).toBe(before);
  expect(await codeOf(node.propose(set("a", "1"), 5_000))).toBe("Unavailable");
  db.close();
});

test("the log is cut, by its length too, and goes on", async () => {
  const limits = {
    logEntriesMax: 50,
    logEntriesKept: 10,
    logLengthMax: 20_000,
    logLengthKept: 3_000,
  };
  const { node, db } = open({ limits });
  await leading(node);
  for (let at = 0; at < 200; at++) await node.propose(set("a", String(at)), 5_000);
  const { firstIndex, appliedIndex } = node.status();
  expect(appliedIndex - firstIndex).toBeLessThan(51);
  for (let at = 0; at < 10; at++) await node.propose(set("a", "x".repeat(5_000)), 5_000);
  const after = node.status();
  expect(after.appliedIndex - after.firstIndex).toBeLessThan(10);
  const rows = db.query<{ count: number }, []>("SELECT count(*) AS count FROM raft_log").get();
  expect(rows!.count).toBe(after.appliedIndex - after.firstIndex + 1);
  await node.stop();
  db.close();
});

test("what is no message, or for somebody else, does no harm", async () => {
  const { node, db, failures } = open();
  const term = await leading(node);
  const encode = (fields: unknown) => new TextEncoder().encode(JSON.stringify(fields));
  node.receive(new Uint8Array(0));
  node.receive(new Uint8Array([1, 2, 3]));
  node.receive(encode([1, 5, "n2", "n3", 99, 9, 9, 0, 0, false, 0, null, [], null]));
  // A proposal from elsewhere, and a member's local messages.
  node.receive(encode([1, 2, "n1", "n3", 0, 0, 0, 0, 0, false, 0, null, [[0, 0, 0, "x"]], null]));
  node.receive(encode([1, 0, "n1", "n3", 0, 0, 0, 0, 0, false, 0, null, [], null]));
  await node.propose(set("a", "1"), 5_000);
  expect(node.status()).toMatchObject({ role: "leader", term });
  expect(failures).toEqual([]);
  expect(await codeOf(node.receiveSnapshot(new Uint8Array([1]), "/nonexistent"))).toBe(
    "InvalidArgument",
  );
  await node.stop();
  db.close();
});

/** What a member that lacks everything answers to an append. */
function rejection(term: number, index: number): Uint8Array {
  const type = MessageType.MsgAppResp;
  return encodeMessage(new Message({ type, from: "n2", to: "n1", term, index, reject: true }));
}

/** A leader that is asked for everything by a member that was just added; returns its term. */
async function askedForSnapshot(node: RaftNode): Promise<number> {
  const term = await leading(node);
  await node.addLearner("n2", "");
  node.receive(rejection(term, node.status().appliedIndex - 1));
  return term;
}

test("a snapshot that cannot be made leaves the others undisturbed", async () => {
  const path = join(folder(), "node.db");
  const { node, db, failures, problems } = open({ path });
  rmSync(`${path}.snapshots`, { recursive: true });
  writeFileSync(`${path}.snapshots`, "no folder");
  const term = await askedForSnapshot(node);
  await node.propose(set("a", "1"), 5_000);
  expect(failures).toEqual([]);
  expect(problems).toEqual(["a snapshot for raft member n2 could not be made"]);
  expect(node.status()).toMatchObject({ role: "leader", term });
  await node.stop();
  db.close();
});

test("a snapshot that is never answered is given up, and sent again", async () => {
  const sent: string[] = [];
  const sendSnapshot = (_: string, __: Uint8Array, file: string) => {
    sent.push(file);
    return new Promise<void>(() => {});
  };
  const path = join(folder(), "node.db");
  const { node, db } = open({ path, limits: { snapshotTimeoutMs: 30 }, sendSnapshot });
  const term = await askedForSnapshot(node);
  while (sent.length < 2) {
    // It is still there, and still lacks everything.
    const type = MessageType.MsgHeartbeatResp;
    node.receive(encodeMessage(new Message({ type, from: "n2", to: "n1", term })));
    node.receive(rejection(term, node.status().appliedIndex));
    await Bun.sleep(5);
  }
  expect(existsSync(sent[0]!)).toBe(false);
  await node.stop();
  db.close();
});

test("a node that has lost the others goes on alone, once it is told to", async () => {
  const first = open();
  await leading(first.node);
  await first.node.propose(set("a", "1"), 5_000);
  await first.node.addLearner("n2", "");
  await first.node.stop();
  expect(() => recoverRaft(first.db, "n2", "")).toThrow("was used before");
  expect(() => recoverRaft(first.db, "n1", "")).toThrow("was used before");
  expect(recoverRaft(first.db, "n3", "new")).toMatchObject({ raftId: "n1", learners: ["n2"] });
  first.db.close();
  expect(() => open({ path: first.path })).toThrow("belongs to raft member n3");

  const again = open({ path: first.path, raftId: "n3" });
  await leading(again.node);
  expect(again.node.status()).toMatchObject({ voters: ["n3"], learners: [] });
  expect(kvGet(again.db, "a")).toBe("1");
  await again.node.propose(set("a", "2"), 5_000);
  expect(await codeOf(again.node.addLearner("n1", ""))).toBe("FailedPrecondition");
  await again.node.stop();
  again.db.close();
});

test("a blank file cannot be recovered", () => {
  const db = new Database(":memory:");
  expect(() => recoverRaft(db, "n1", "")).toThrow("never part of a cluster");
});
