/** Nodes of a cluster for tests: authority, certificates, data directories, and ports for other nodes. */
import { join } from "node:path";
import { createRequest, signNodeCertificate } from "../../src/control/membership/certificates.ts";
import { createDataDir, type DataDir } from "../../src/control/membership/data-dir.ts";
import { initCluster } from "../../src/control/membership/init.ts";
import type { MemberDirectory } from "../../src/control/membership/members.ts";
import {
  type PeerServer,
  type PeerServerOptions,
  servePeers,
} from "../../src/control/membership/peer-server.ts";
import {
  type PeerTransport,
  type PeerTransportOptions,
  peerTransport,
} from "../../src/control/membership/peer-transport.ts";
import type { Credentials } from "../../src/net/peer-certificate.ts";
import type { Log } from "../../src/ops/log.ts";

const DAY_MS = 24 * 3600_000;

/** A new cluster whose first node has its data in `folder`. */
export function newCluster(folder: string, nodeId = "n1"): Promise<DataDir> {
  return initCluster({
    dataDir: join(folder, nodeId),
    nodeId,
    peerEndpoint: "127.0.0.1:10126",
    engineEndpoint: "127.0.0.1:10124",
    nowMs: Date.now(),
  });
}

/** A certificate of a cluster's authority, as a node with this name and raft id would have it. */
export async function credentialsFor(
  cluster: DataDir,
  nodeId: string,
  raftId: string,
  changes: { readonly nowMs?: number; readonly lifeMs?: number; readonly clusterId?: string } = {},
): Promise<Credentials> {
  const { keyPem, csrPem } = await createRequest();
  const certPem = await signNodeCertificate({
    authority: cluster.authority(),
    csrPem,
    member: { clusterId: changes.clusterId ?? cluster.identity.clusterId, nodeId, raftId },
    addresses: ["127.0.0.1"],
    nowMs: changes.nowMs ?? Date.now(),
    lifeMs: changes.lifeMs ?? 90 * DAY_MS,
  });
  return { keyPem, certPem, caPem: cluster.credentials().caPem };
}

/** The data directory of a further node, made without joining. */
export async function furtherNode(
  cluster: DataDir,
  folder: string,
  nodeId: string,
  raftId: string,
  nowMs = Date.now(),
): Promise<DataDir> {
  const { keyPem, certPem } = await credentialsFor(cluster, nodeId, raftId, { nowMs });
  const { clusterId } = cluster.identity;
  return createDataDir(
    join(folder, nodeId),
    {
      ...{ clusterId, nodeId, raftId, createdAtMs: Date.now(), isFirst: false },
      peerEndpoint: "127.0.0.1:10126",
      engineEndpoint: "127.0.0.1:10124",
    },
    cluster.authority(),
    { keyPem, certPem },
    [],
  );
}

/** A log that keeps its lines. */
export function keptLog(): { readonly log: Log; readonly lines: string[] } {
  const lines: string[] = [];
  return {
    lines,
    log: (level, text, fields = {}) => lines.push(`${level} ${text} ${JSON.stringify(fields)}`),
  };
}

/** Who is a member, as a test says. */
export function directoryOf(clusterId: string): MemberDirectory & {
  readonly members: Map<string, { nodeId: string; peerEndpoint: string }>;
  readonly removed: Set<string>;
} {
  const members = new Map<string, { nodeId: string; peerEndpoint: string }>();
  const removed = new Set<string>();
  return {
    clusterId,
    members,
    removed,
    find: (raftId) => members.get(raftId),
    isRemoved: (raftId) => removed.has(raftId),
  };
}

/** A port of the loopback that nobody listens on at the moment. */
export async function freePort(): Promise<number> {
  const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = listener;
  listener.stop(true);
  return port;
}

/** Resolves when `isSo` is true; rejects after ten seconds. */
export async function until(what: string, isSo: () => boolean): Promise<void> {
  const endMs = performance.now() + 10_000;
  while (!isSo()) {
    if (performance.now() > endMs) throw new Error(`it did not happen: ${what}`);
    await Bun.sleep(2);
  }
}

export interface TestPeers {
  serve(
    options: Partial<PeerServerOptions> & Pick<PeerServerOptions, "credentials" | "directory">,
  ): Promise<PeerServer>;
  transport(
    options: Partial<PeerTransportOptions> &
      Pick<PeerTransportOptions, "credentials" | "directory">,
  ): PeerTransport;
  stop(): Promise<void>;
}

/** Servers and transports that end with the test; `folder` is for incoming snapshots. */
export function testPeers(folder: () => string): TestPeers {
  const stops: (() => unknown)[] = [];
  return {
    async serve(options) {
      const server = await servePeers({
        address: "127.0.0.1",
        port: 0,
        incomingFolder: join(folder(), "incoming"),
        log: keptLog().log,
        now: Date.now,
        raft: () => undefined,
        forwarded: () => new Response("forwarded"),
        join: () => new Response("joined"),
        ...options,
      });
      stops.push(() => server.stop());
      return server;
    },
    transport(options) {
      const made = peerTransport({
        log: keptLog().log,
        monotonicMs: () => performance.now(),
        ...options,
      });
      stops.push(() => made.stop());
      return made;
    },
    async stop() {
      for (const stop of stops.splice(0).reverse()) await stop();
    },
  };
}
