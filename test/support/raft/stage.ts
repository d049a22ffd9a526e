/**
 * A cluster on a stage: nothing happens but what the script says. Ticks, deliveries and losses are
 * commands; what members do is told as text. For transcripts of scenarios.
 */
import { drainMicrotasks } from "bun:jsc";
import { Database } from "bun:sqlite";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EntryType, Message, MessageType } from "../../../src/control/raft/engine.ts";
import type { RaftLimits } from "../../../src/control/raft/limits.ts";
import type { RaftNode } from "../../../src/control/raft/raft.ts";
import { openRaftNode } from "../../../src/control/raft/raft-node.ts";
import { recoverRaft } from "../../../src/control/raft/recovery.ts";
import { decodeMessage, encodeMessage, REMOVED_NOTICE } from "../../../src/control/raft/wire.ts";
import { TrilithError } from "../../../src/errors.ts";
import { createKvTables, kvGet, kvMachine } from "./kv-machine.ts";

const TICK_MS = 100;
const DELIVERIES_MAX = 2_000;

interface Parcel {
  readonly from: string;
  readonly to: string;
  readonly message: Message;
  readonly bytes: Uint8Array;
  /** For a snapshot. */
  readonly path: string | null;
  readonly answer: (error: Error | null) => void;
}

interface Actor {
  readonly raftId: string;
  readonly db: Database;
  node: RaftNode | null;
  tick: () => void;
  nowMs: number;
  soon: (() => void)[];
  told: string;
}

/** One that says nothing but that its sender is there. They would fill the transcripts. */
function isPlainHeartbeat({ type, context }: Message): boolean {
  const isHeartbeat = type === MessageType.MsgHeartbeat || type === MessageType.MsgHeartbeatResp;
  return isHeartbeat && context === null;
}

/** `from->to Type` and what matters of it. */
export function describeMessage(message: Message): string {
  const { type, from, to, term, index, logTerm, commit, entries, snapshot } = message;
  const name = (type as number) === REMOVED_NOTICE ? "RemovedNotice" : MessageType[type];
  const parts = [`${from}->${to} ${name}`];
  if (term > 0) parts.push(`term ${term}`);
  if (
    type === MessageType.MsgApp ||
    type === MessageType.MsgVote ||
    type === MessageType.MsgPreVote
  )
    parts.push(`after ${index}/${logTerm}`);
  if (type === MessageType.MsgAppResp && !message.reject) parts.push(`has ${index}`);
  if (type === MessageType.MsgReadIndexResp) parts.push(`at ${index}`);
  if (type === MessageType.MsgHeartbeat || type === MessageType.MsgHeartbeatResp) {
    parts.push(`reads ${message.context}`);
  }
  if (message.reject) parts.push("rejected");
  if (commit > 0) parts.push(`commit ${commit}`);
  if (type === MessageType.MsgApp) {
    const kinds = entries.map((e) => (e.type === EntryType.EntryNormal ? "" : "*"));
    parts.push(...entries.map((e, at) => `[${e.index}/${e.term}${kinds[at]}]`));
  }
  if (snapshot.metadata.index > 0) {
    parts.push(`snapshot ${snapshot.metadata.index}/${snapshot.metadata.term}`);
  }
  return parts.join(" ");
}

export class Stage {
  readonly #actors = new Map<string, Actor>();
  readonly #folder = mkdtempSync(join(tmpdir(), "trilith-raft-stage-"));
  readonly #cut = new Set<string>();
  #parcels: Parcel[] = [];
  #lines: string[] = [];
  #limits: Partial<RaftLimits> = {};
  #files = 0;
  #isQuiet = false;

  /** What happened since the last call, a line each. */
  takeLines(): string[] {
    return this.#lines.splice(0);
  }

  #tell(line: string): void {
    if (!this.#isQuiet) this.#lines.push(line);
  }

  #actor(raftId: string): Actor {
    const actor = this.#actors.get(raftId);
    if (actor === undefined) throw new Error(`there is no ${raftId}`);
    return actor;
  }

  #node(raftId: string): RaftNode {
    const { node } = this.#actor(raftId);
    if (node === null) throw new Error(`${raftId} does not run`);
    return node;
  }

  /** Runs what members have put off, and what hangs on promises, until nothing is left. */
  #settle(): void {
    for (let isBusy = true; isBusy; ) {
      drainMicrotasks();
      isBusy = false;
      for (const actor of this.#actors.values()) {
        for (const call of actor.soon.splice(0)) {
          isBusy = true;
          call();
          drainMicrotasks();
        }
      }
    }
    for (const actor of this.#actors.values()) this.#tellRole(actor);
  }

  #tellRole(actor: Actor): void {
    if (actor.node === null) return;
    const { role, term, leader } = actor.node.status();
    const text = `${actor.raftId} ${role} in term ${term}${role === "leader" ? "" : `, leader ${leader ?? "none"}`}`;
    if (text === actor.told) return;
    actor.told = text;
    this.#tell(text);
  }

  start(raftId: string, options: { bootstrap?: boolean } = {}): void {
    let actor = this.#actors.get(raftId);
    if (actor === undefined) {
      const db = new Database(":memory:");
      createKvTables(db);
      actor = { raftId, db, node: null, tick: () => {}, nowMs: 0, soon: [], told: "" };
      this.#actors.set(raftId, actor);
    }
    this.#open(actor, options.bootstrap === true);
    this.#settle();
  }

  #open(actor: Actor, bootstrap: boolean): void {
    const { raftId, db } = actor;
    const watcher = {
      applying: (index: number, command: string) => {
        const { key, value } = JSON.parse(command) as { key: string; value: string };
        this.#tell(`${raftId} applies ${index}: ${key}=${value}`);
      },
    };
    const machine = kvMachine(watcher);
    actor.node = openRaftNode({
      raftId,
      db,
      folder: join(this.#folder, raftId),
      stateMachine: {
        ...machine,
        restored: (database, index) => {
          machine.restored(database, index);
          this.#tell(`${raftId} has the state of ${index}`);
        },
      },
      transport: {
        send: (to, bytes) => this.#send(raftId, to, bytes, null, () => {}),
        sendSnapshot: (to, bytes, path) =>
          new Promise((resolve, reject) => {
            const copy = join(this.#folder, `wire-${++this.#files}.db`);
            copyFileSync(path, copy);
            const answer = (error: Error | null) => (error === null ? resolve() : reject(error));
            this.#send(raftId, to, bytes, copy, answer);
          }),
      },
      limits: { tickMs: TICK_MS, electionTicks: 10, ...this.#limits },
      clock: {
        nowMs: () => actor.nowMs,
        every: (_, call) => {
          actor.tick = call;
          return () => {
            actor.tick = () => {};
          };
        },
        soon: (call) => actor.soon.push(call),
      },
      // Election time-outs of 10, 12, 14, ... ticks for members 1, 2, 3, ...
      random: () => (Number.parseInt(raftId, 10) - 1) / 5,
      onRemoved: () => this.#tell(`${raftId} was removed`),
      onFailure: (error) => this.#tell(`${raftId} failed: ${String(error)}`),
      ...(bootstrap ? { bootstrap: { context: "" } } : {}),
    });
    actor.node.onLeadership((term) =>
      this.#tell(
        term === null ? `${raftId} may not decide any more` : `${raftId} decides in term ${term}`,
      ),
    );
  }

  #send(
    from: string,
    to: string,
    bytes: Uint8Array,
    path: string | null,
    answer: Parcel["answer"],
  ): void {
    const message = decodeMessage(bytes);
    this.#parcels.push({ from, to, message, bytes, path, answer });
  }

  #deliver(parcel: Parcel): void {
    const { from, to, message, bytes, path, answer } = parcel;
    const node = this.#actors.get(to)?.node ?? null;
    const isLost = node === null || this.#cut.has(`${from}>${to}`);
    if (!isPlainHeartbeat(message)) {
      this.#tell(`${describeMessage(message)}${isLost ? " (lost)" : ""}`);
    }
    if (path === null && !isLost) node.receive(bytes);
    else if (path !== null && isLost) answer(new Error("lost"));
    else if (path !== null) node!.receiveSnapshot(bytes, path).then(() => answer(null), answer);
    this.#settle();
  }

  #stabilize(): void {
    this.#settle();
    for (let count = 0; this.#parcels.length > 0; count++) {
      if (count > DELIVERIES_MAX) throw new Error("it does not come to rest");
      this.#deliver(this.#parcels.shift()!);
    }
  }

  #tick(raftId: string, count: number): void {
    const actor = this.#actor(raftId);
    for (let at = 0; at < count; at++) {
      actor.nowMs += TICK_MS;
      actor.tick();
      this.#settle();
    }
  }

  /** Tells what becomes of a promise. */
  #follow(what: string, promise: Promise<unknown>): void {
    promise.then(
      (value) => this.#tell(`${what}: ${describeOutcome(value)}`),
      (error) => this.#tell(`${what}: ${describeError(error)}`),
    );
  }

  /** Carries out one line of a script. */
  run(line: string): void {
    this.#run(line);
    this.#settle();
  }

  #run(line: string): void {
    const [command = "", ...words] = line.split(/\s+/);
    const [first = "", second = "", third = ""] = words;
    const node = () => this.#node(first);
    switch (command) {
      case "limits":
        this.#limits = Object.fromEntries(
          words.map((word) => word.split("=")).map(([name, value]) => [name, Number(value)]),
        );
        return;
      case "cluster":
        this.#isQuiet = true;
        this.start(first, { bootstrap: true });
        for (const raftId of words.slice(1)) {
          this.start(raftId);
          this.#follow("", node().addLearner(raftId, ""));
          this.#stabilize();
          this.#tick(first, 1);
          this.#stabilize();
          this.#follow("", node().promote(raftId));
          this.#stabilize();
        }
        this.#tick(first, 1);
        this.#stabilize();
        this.#isQuiet = false;
        this.#describe();
        return;
      case "start":
        this.start(first);
        return;
      case "restart":
        this.#stop(first);
        this.start(first);
        return;
      case "stop":
        this.#stop(first);
        return;
      case "recover":
        this.#recover(first, second);
        return;
      case "tick":
        this.#tick(first, Number(second === "" ? 1 : second));
        return;
      case "pass":
        // Time goes by for all alike.
        for (let round = 0; round < Number(first); round++) {
          for (const actor of this.#actors.values())
            if (actor.node !== null) this.#tick(actor.raftId, 1);
          this.#stabilize();
        }
        return;
      case "deliver":
        // Those under way now, in order; `deliver 1>2` only those of one way.
        for (const parcel of this.#take(first)) this.#deliver(parcel);
        return;
      case "lose":
        for (const parcel of this.#take(first)) {
          if (!isPlainHeartbeat(parcel.message)) {
            this.#tell(`${describeMessage(parcel.message)} (lost)`);
          }
          parcel.answer(new Error("lost"));
        }
        return;
      case "stabilize":
        this.#stabilize();
        return;
      case "cut":
        for (const other of this.#actors.keys()) {
          if (second !== "" && second !== other) continue;
          this.#cut.add(`${first}>${other}`);
          this.#cut.add(`${other}>${first}`);
        }
        return;
      case "cut-way":
        this.#cut.add(`${first}>${second}`);
        return;
      case "heal":
        this.#cut.clear();
        return;
      case "propose":
        this.#follow(
          `propose ${second}=${third} at ${first}`,
          node().propose(JSON.stringify({ op: "set", key: second, value: third }), 3_000),
        );
        return;
      case "read": {
        const { db } = this.#actor(first);
        for (const key of second.split(",")) {
          const read = node().readIndex(3_000);
          const told = read.then((at) => `${JSON.stringify(kvGet(db, key))} at ${at}`);
          this.#follow(`read ${key} at ${first}`, told);
        }
        return;
      }
      case "vote": {
        // A request for a vote: `vote 1 3 5` from 1 to 3 in term 5, with as long a log as 3 has.
        const last = this.#lastEntry(second);
        const type = MessageType.MsgVote;
        const request = { type, from: first, to: second, term: Number(third), ...last };
        this.#send(first, second, encodeMessage(new Message(request)), null, () => {});
        for (const parcel of this.#take(`${first}>${second}`)) this.#deliver(parcel);
        return;
      }
      case "add-learner":
        this.#follow(line, node().addLearner(second, ""));
        return;
      case "promote":
        this.#follow(line, node().promote(second));
        return;
      case "remove":
        this.#follow(line, node().remove(second));
        return;
      case "transfer":
        this.#follow(line, node().transferLeadership(second));
        return;
      case "status":
        this.#describe();
        return;
      case "log":
        this.#describeLog(first);
        return;
      default:
        throw new Error(`unknown command: ${line}`);
    }
  }

  #lastEntry(raftId: string): { index: number; logTerm: number } {
    const row = this.#actor(raftId)
      .db.query<{ idx: number; term: number }, []>("SELECT max(idx) AS idx, term FROM raft_log")
      .get()!;
    return { index: row.idx, logTerm: row.term };
  }

  #take(way: string): Parcel[] {
    const isMeant = ({ from, to }: Parcel) => way === "" || way === `${from}>${to}`;
    const taken = this.#parcels.filter(isMeant);
    this.#parcels = this.#parcels.filter((parcel) => !isMeant(parcel));
    return taken;
  }

  /** The process ends, as by a crash: nobody is told. */
  #stop(raftId: string): void {
    const actor = this.#actor(raftId);
    actor.node = null;
    actor.tick = () => {};
    actor.soon = [];
  }

  #recover(raftId: string, newId: string): void {
    this.#stop(raftId);
    const actor = this.#actor(raftId);
    try {
      const { voters, lastIndex } = recoverRaft(actor.db, newId, "");
      this.#tell(`${raftId} of ${voters} goes on alone as ${newId} with all up to ${lastIndex}`);
      this.#actors.set(newId, { ...actor, raftId: newId, told: "" });
      this.#actors.delete(raftId);
    } catch (error) {
      this.#tell(describeError(error));
    }
  }

  #describe(): void {
    for (const { raftId, node } of this.#actors.values()) {
      if (node === null) {
        this.#tell(`${raftId} does not run`);
        continue;
      }
      const { role, term, leader, commitIndex, appliedIndex, firstIndex, voters, learners } =
        node.status();
      const members = `voters ${voters}${learners.length > 0 ? ` learners ${learners}` : ""}`;
      this.#tell(
        `${raftId} ${role} term ${term} leader ${leader ?? "none"} log from ${firstIndex} ` +
          `committed ${commitIndex} applied ${appliedIndex} ${members}`,
      );
    }
  }

  #describeLog(raftId: string): void {
    const rows = this.#actor(raftId)
      .db.query<{ idx: number; term: number; data: string | null }, []>(
        "SELECT idx, term, data FROM raft_log ORDER BY idx",
      )
      .all();
    for (const { idx, term, data } of rows) this.#tell(`${idx}/${term} ${data ?? "-"}`);
  }

  close(): void {
    for (const { db } of this.#actors.values()) db.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

function describeOutcome(value: unknown): string {
  if (typeof value === "string") return value;
  if (typeof value === "object" && value !== null && "index" in value)
    return `done at ${value.index}`;
  return "done";
}

function describeError(error: unknown): string {
  return error instanceof TrilithError ? `${error.code}: ${error.message}` : String(error);
}
