/** A node of a cluster as far as membership goes: store, raft, port for other nodes, keeper. Real sockets. */
import { Database } from "bun:sqlite";
import { join } from "node:path";
import { type LeaderChannel, leaderChannel } from "../../src/control/leader-channel.ts";
import type { DataDir } from "../../src/control/membership/data-dir.ts";
import { type Keeper, startKeeper } from "../../src/control/membership/keeper.ts";
import { lockDataDir } from "../../src/control/membership/lock.ts";
import { memberDirectory } from "../../src/control/membership/members-table.ts";
import { type PeerServer, servePeers } from "../../src/control/membership/peer-server.ts";
import { type PeerTransport, peerTransport } from "../../src/control/membership/peer-transport.ts";
import { membershipRoutes } from "../../src/control/membership/routes.ts";
import type { RaftNode } from "../../src/control/raft/raft.ts";
import { openRaftNode } from "../../src/control/raft/raft-node.ts";
import { StoreMachine } from "../../src/control/store/machine.ts";
import { openStore, type ReplicatedStore } from "../../src/control/store/replicated-store.ts";
import { keptLog } from "./membership.ts";

export interface MembershipNode {
  readonly dataDir: DataDir;
  readonly store: ReplicatedStore;
  readonly raft: RaftNode;
  readonly transport: PeerTransport;
  readonly server: PeerServer;
  readonly leader: LeaderChannel;
  readonly lines: readonly string[];
  /** What raft and transport said about its removal. */
  readonly removals: readonly string[];
  stop(): Promise<void>;
}

export interface MembershipNodeOptions {
  /** The joining service's clock. */
  readonly now?: () => number;
  /** Without it, what a leader leaves half done stays so. */
  readonly keeps?: boolean;
  /** Answers requests of members itself; undefined: leaves them. */
  readonly intercept?: (request: Request) => Response | undefined;
}

/** Elections within a fraction of a second. */
const limits = { tickMs: 50 };

/** Starts the node of a data directory, on the address and port of its identity. */
export async function startMembershipNode(
  dataDir: DataDir,
  options: MembershipNodeOptions = {},
): Promise<MembershipNode> {
  const { clusterId, nodeId, raftId, isFirst, peerEndpoint, engineEndpoint } = dataDir.identity;
  const { log, lines } = keptLog();
  const removals: string[] = [];
  const unlock = lockDataDir(dataDir.path);
  const db = new Database(dataDir.storePath, { create: true, strict: true });
  const machine = new StoreMachine();
  let opened: ReplicatedStore | undefined;
  const directory = memberDirectory(
    clusterId,
    () => opened?.view(),
    () => dataDir.members(),
  );
  const transport = peerTransport({
    directory,
    credentials: () => dataDir.credentials(),
    log,
    monotonicMs: () => performance.now(),
    onRemoved: (message) => removals.push(message),
  });
  const raft = openRaftNode({
    raftId,
    db,
    folder: dataDir.path,
    stateMachine: machine,
    transport,
    limits,
    ...(isFirst ? { bootstrap: { context: nodeId } } : {}),
    onRemoved: () => removals.push("raft"),
  });
  const store = openStore({ machine, raft, log });
  opened = store;
  const leader = leaderChannel(raft, transport, () => store.isLeader());
  const now = options.now ?? Date.now;
  const routes = membershipRoutes({ dataDir, store, now, toLeader: leader.ask });
  const [address, port] = peerEndpoint.split(":");
  const server = await servePeers({
    address: address!,
    port: Number(port),
    credentials: dataDir.credentials(),
    directory,
    incomingFolder: join(dataDir.path, "incoming"),
    log,
    now: Date.now,
    raft: () => raft,
    join: routes.join,
    forwarded: (request, peer) =>
      options.intercept?.(request) ??
      routes.members(request, peer) ??
      new Response("unknown", { status: 404 }),
  });
  const self = { peerEndpoint, engineEndpoint, hostNqn: `nqn.test:${nodeId}`, version: "1" };
  const keeper: Keeper | undefined =
    options.keeps === false
      ? undefined
      : startKeeper({
          ...{ dataDir, store, raft, log, now, self },
          onMembersChanged() {
            transport.directoryChanged();
            server.dropRemoved();
          },
          async announce(said) {
            const body = JSON.stringify(said);
            const init = { method: "POST", body };
            await leader.ask(new Request("https://x/membership/announcement", init));
          },
        });
  return {
    ...{ dataDir, store, raft, transport, server, leader, lines, removals },
    async stop() {
      keeper?.stop();
      await server.stop();
      store.close();
      await raft.stop();
      transport.stop();
      db.close();
      unlock();
    },
  };
}
