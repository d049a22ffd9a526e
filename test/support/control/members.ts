/**
 * Several members with stores in one process, on files, with raft itself between them. Messages are
 * handed over at once; a member can be cut off, stopped and started again.
 */
import { Database } from "bun:sqlite";
import { copyFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import type { RaftLimits } from "../../../src/control/raft/limits.ts";
import type { RaftNode, RaftTransport } from "../../../src/control/raft/raft.ts";
import { openRaftNode } from "../../../src/control/raft/raft-node.ts";
import { StoreMachine } from "../../../src/control/store/machine.ts";
import { openStore, type ReplicatedStore } from "../../../src/control/store/replicated-store.ts";
import { until } from "../engine-process.ts";

export interface Member {
  readonly raftId: string;
  readonly db: Database;
  readonly raft: RaftNode;
  readonly store: ReplicatedStore;
}

export interface MembersOptions {
  readonly folder: string;
  readonly limits?: Partial<RaftLimits>;
}

export class Members {
  readonly #options: MembersOptions;
  readonly #running = new Map<string, Member>();
  readonly #cutOff = new Set<string>();
  #files = 0;

  constructor(options: MembersOptions) {
    this.#options = options;
  }

  get running(): Member[] {
    return [...this.#running.values()];
  }

  member(raftId: string): Member {
    return this.#running.get(raftId)!;
  }

  #reach(from: string, to: string): Member | undefined {
    if (this.#cutOff.has(from) || this.#cutOff.has(to)) return undefined;
    return this.#running.get(to);
  }

  #transport(from: string): RaftTransport {
    return {
      send: (to, bytes) => {
        const copy = bytes.slice();
        setImmediate(() => this.#reach(from, to)?.raft.receive(copy));
      },
      sendSnapshot: async (to, message, path) => {
        const target = this.#reach(from, to);
        if (target === undefined) throw new Error(`${to} cannot be reached`);
        const arrived = join(this.#options.folder, `arrived-${++this.#files}`);
        copyFileSync(path, arrived);
        await target.raft.receiveSnapshot(message, arrived);
      },
    };
  }

  start(raftId: string, isFirst = false): Member {
    const folder = join(this.#options.folder, raftId);
    mkdirSync(folder, { recursive: true });
    const db = new Database(join(folder, "store.sqlite"), { create: true, strict: true });
    const machine = new StoreMachine();
    const raft = openRaftNode({
      raftId,
      db,
      folder,
      stateMachine: machine,
      transport: this.#transport(raftId),
      limits: { tickMs: 20, ...this.#options.limits },
      ...(isFirst ? { bootstrap: { context: `node-${raftId}` } } : {}),
    });
    const store = openStore({ machine, raft, log: () => {} });
    const member = { raftId, db, raft, store };
    this.#running.set(raftId, member);
    return member;
  }

  async stop(raftId: string): Promise<void> {
    const member = this.member(raftId);
    this.#running.delete(raftId);
    member.store.close();
    await member.raft.stop();
    member.db.close();
  }

  async stopAll(): Promise<void> {
    for (const { raftId } of this.running) await this.stop(raftId);
  }

  cutOff(raftId: string): void {
    this.#cutOff.add(raftId);
  }

  rejoin(raftId: string): void {
    this.#cutOff.delete(raftId);
  }

  /** Begins with one member and adds the others, as voters. */
  async grow(count: number): Promise<void> {
    this.start("1", true);
    for (let id = 2; id <= count; id++) {
      const raftId = String(id);
      this.start(raftId);
      const { raft } = await this.leader();
      await raft.addLearner(raftId, `node-${raftId}`);
      await raft.promote(raftId);
    }
    // Before, losing the leader could leave members who do not know yet that they are three.
    await this.settled();
  }

  /** The member that leads and may decide. */
  leader(): Promise<Member> {
    const reachable = () => this.running.filter(({ raftId }) => !this.#cutOff.has(raftId));
    return until(
      "a leader",
      () => reachable().find(({ store }) => store.isLeader()),
      (found) => found !== undefined,
    ) as Promise<Member>;
  }

  /** Resolves when all that run have applied the same. */
  async settled(): Promise<void> {
    await until(
      "all members having applied the same",
      () => this.running.map(({ raft }) => raft.status().appliedIndex),
      (indexes) => new Set(indexes).size === 1,
    );
  }
}

/** All rows of all tables that are not raft's own, as text. */
export function dumpOf(db: Database): string {
  const tables = db
    .prepare(
      "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'raft%' ORDER BY name",
    )
    .all() as { name: string; sql: string }[];
  const parts = tables.map(({ name, sql }) => {
    const rows = db.prepare(`SELECT * FROM "${name}" ORDER BY 1`).values();
    return [sql, ...rows.map((row) => JSON.stringify(row))].join("\n");
  });
  return parts.join("\n\n");
}
