/**
 * A member as a process, with a real file, and unix sockets for a network. To be killed.
 *
 *   bun member-process.ts <raft id> <folder> [--bootstrap]
 *
 * On `<folder>/<raft id>.sock`: POST /message, /snapshot (path in a header), /propose, /change/<kind>/<id>;
 * GET /status, /value/<key> after a ReadIndex, /local/<key> as it is here.
 */
import { Database } from "bun:sqlite";
import { copyFileSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { openRaftNode } from "../../../src/control/raft/raft-node.ts";
import { toErrorBody } from "../../../src/errors.ts";
import { createKvTables, kvChain, kvGet, kvMachine } from "./kv-machine.ts";

const TIMEOUT_MS = 3_000;
const [raftId, folder, option] = process.argv.slice(2);
if (raftId === undefined || folder === undefined) throw new Error("which member, and where?");

const socketOf = (id: string) => join(folder, `${id}.sock`);
const own = join(folder, raftId);
mkdirSync(own, { recursive: true });
const db = new Database(join(own, "node.db"));
createKvTables(db);

async function post(to: string, path: string, body: Uint8Array, file = ""): Promise<void> {
  const answer = await fetch(`http://member${path}`, {
    method: "POST",
    unix: socketOf(to),
    body,
    headers: { "x-file": file },
  });
  if (!answer.ok) throw new Error(await answer.text());
}

const node = openRaftNode({
  raftId,
  db,
  folder: join(own, "snapshots"),
  stateMachine: kvMachine(),
  transport: {
    send: (to, bytes) => {
      // As good as lost when nobody is there.
      post(to, "/message", bytes).catch(() => {});
    },
    sendSnapshot: async (to, message, path) => {
      const copy = join(folder, `${raftId}-to-${to}.db`);
      copyFileSync(path, copy);
      try {
        await post(to, "/snapshot", message, copy);
      } finally {
        rmSync(copy, { force: true });
      }
    },
  },
  limits: { tickMs: 20, logEntriesMax: 300, logEntriesKept: 50 },
  ...(option === "--bootstrap" ? { bootstrap: { context: "" } } : {}),
});

async function answer(request: Request): Promise<unknown> {
  const [, what = "", kind = "", id = ""] = new URL(request.url).pathname.split("/");
  switch (what) {
    case "message":
      node.receive(await request.bytes());
      return null;
    case "snapshot":
      await node.receiveSnapshot(await request.bytes(), request.headers.get("x-file") ?? "");
      return null;
    case "propose":
      return node.propose(await request.text(), TIMEOUT_MS);
    case "change":
      if (kind === "add-learner") await node.addLearner(id, "");
      else await node.promote(id);
      return null;
    case "value":
      await node.readIndex(TIMEOUT_MS);
      return kvGet(db, kind);
    case "all":
      return { chain: kvChain(db), keys: db.query("SELECT key, value FROM kv").all() };
    default: {
      const { role, term, leader, appliedIndex, firstIndex, voters } = node.status();
      return { role, term, leader, appliedIndex, firstIndex, voters };
    }
  }
}

rmSync(socketOf(raftId), { force: true });
Bun.serve({
  unix: socketOf(raftId),
  async fetch(request) {
    try {
      return Response.json(await answer(request));
    } catch (error) {
      return Response.json(toErrorBody(error), { status: 500 });
    }
  },
});
