/** What a member of the cluster keeps for the others: raft, the store over it, and the ways to them. */
import { Database } from "bun:sqlite";
import { type LeaderChannel, leaderChannel } from "../control/leader-channel.ts";
import type { DataDir } from "../control/membership/data-dir.ts";
import { memberDirectory } from "../control/membership/members-table.ts";
import { type PeerTransport, peerTransport } from "../control/membership/peer-transport.ts";
import { openRaftNode } from "../control/raft/raft-node.ts";
import { StoreMachine } from "../control/store/machine.ts";
import { openStore, type ReplicatedStore } from "../control/store/replicated-store.ts";
import { TrilithError } from "../errors.ts";
import type { Log } from "../ops/log.ts";
import type { ControlInstruments } from "../ops/metrics/index.ts";
import type { Stack } from "./stack.ts";

export interface CoreOptions {
  readonly dataDir: DataDir;
  readonly log: Log;
  /** Called once when the member cannot go on: it was removed, or its disk failed. */
  readonly onEnd: (reason: TrilithError) => void;
}

/** Raft, the store over it, and the way to the others. */
export interface Core {
  readonly store: ReplicatedStore;
  readonly machine: StoreMachine;
  readonly raft: ReturnType<typeof openRaftNode>;
  readonly transport: PeerTransport;
  readonly leader: LeaderChannel;
  readonly directory: ReturnType<typeof memberDirectory>;
}

export function openCore(
  options: CoreOptions,
  instruments: ControlInstruments,
  parts: Stack,
): Core {
  const { dataDir, log } = options;
  const { clusterId, nodeId, raftId, isFirst } = dataDir.identity;
  const db = parts.add(new Database(dataDir.storePath, { create: true, strict: true }), (open) =>
    open.close(),
  );
  const machine = new StoreMachine();
  let opened: ReplicatedStore | undefined;
  const known = dataDir.members();
  let hasEnded = false;
  const end = (reason: TrilithError): void => {
    if (hasEnded) return;
    hasEnded = true;
    options.onEnd(reason);
  };
  const removed = (message = `node ${nodeId} was removed from the cluster`): void =>
    end(
      new TrilithError(
        "FailedPrecondition",
        message,
        "to bring it back, clear its data directory and join it again",
      ),
    );
  const directory = memberDirectory(
    clusterId,
    () => opened?.view(),
    () => known,
  );
  const transport = parts.add(
    peerTransport({
      directory,
      credentials: () => dataDir.credentials(),
      log,
      monotonicMs: () => performance.now(),
      onRemoved: removed,
    }),
    (open) => open.stop(),
  );
  const raft = parts.add(
    openRaftNode({
      raftId,
      db,
      folder: dataDir.path,
      stateMachine: machine,
      transport,
      ...(isFirst ? { bootstrap: { context: nodeId } } : {}),
      onRemoved: () => removed(),
      onProblem: (what, error) => log("warn", what, { error }),
      onFailure: (error) => {
        const text = error instanceof Error ? error.message : String(error);
        end(new TrilithError("DeviceIo", `the store cannot go on: ${text}`));
      },
    }),
    (open) => open.stop(),
  );
  const store = parts.add(
    openStore({ machine, raft, log, proposed: instruments.proposed }),
    (open) => open.close(),
  );
  opened = store;
  const leader = leaderChannel(raft, transport, () => store.isLeader());
  return { store, machine, raft, transport, leader, directory };
}

/** Asks every member which version of the tables it knows. */
export async function memberVersions(
  core: Core,
  ownRaftId: string,
): Promise<ReadonlyMap<string, number>> {
  const versions = new Map([[ownRaftId, core.machine.knownVersion]]);
  const others = core.store.status().members.filter(({ raftId }) => raftId !== ownRaftId);
  await Promise.all(
    others.map(async ({ raftId }) => {
      const request = new Request("https://peer.invalid/control/store-version");
      const response = await core.transport.forward(raftId, request);
      const body = (await response.json()) as { readonly version?: unknown };
      if (typeof body.version === "number") versions.set(raftId, body.version);
    }),
  );
  return versions;
}
