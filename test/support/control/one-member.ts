/** The store over raft itself, as the only member of a cluster, on a file. */
import { Database } from "bun:sqlite";
import { join } from "node:path";
import type { RaftNode } from "../../../src/control/raft/raft.ts";
import { openRaftNode } from "../../../src/control/raft/raft-node.ts";
import { StoreMachine } from "../../../src/control/store/machine.ts";
import { openStore, type ReplicatedStore } from "../../../src/control/store/replicated-store.ts";

export interface OneMember {
  readonly store: ReplicatedStore;
  readonly raft: RaftNode;
  readonly db: Database;
  /** Stops it and closes its file. */
  close(): Promise<void>;
}

/** Opens what the folder holds; begins a cluster when that is nothing. */
export function openOneMember(folder: string, migrations?: readonly string[]): OneMember {
  const db = new Database(join(folder, "store.sqlite"), { create: true, strict: true });
  const machine = new StoreMachine(migrations);
  const raft = openRaftNode({
    raftId: "1",
    db,
    folder,
    stateMachine: machine,
    transport: { send() {}, sendSnapshot: () => Promise.reject(new Error("there is nobody")) },
    bootstrap: { context: "" },
  });
  const store = openStore({ machine, raft, log: () => {} });
  return {
    store,
    raft,
    db,
    async close() {
      store.close();
      await raft.stop();
      db.close();
    },
  };
}
