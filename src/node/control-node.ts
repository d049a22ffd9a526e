/**
 * A control process: everything of `src/control` put together for one member of the cluster, and the
 * API on top. Owns no behaviour of its own; may import all of `control`, the API, metrics and the
 * engine's client.
 *
 * Each part is made in the order in which it is needed and stopped in the reverse one. What serves
 * others comes last, so that nobody is answered by half a node.
 */
import { join } from "node:path";
import { type Api, createApi } from "../api/app.ts";
import { type Listen, type ServedApi, serveApi, type TlsFiles } from "../api/serve.ts";
import type { LeaderChannel } from "../control/leader-channel.ts";
import type { DataDir } from "../control/membership/data-dir.ts";
import { startKeeper } from "../control/membership/keeper.ts";
import { lockDataDir } from "../control/membership/lock.ts";
import { type PeerServer, servePeers } from "../control/membership/peer-server.ts";
import { startRenewal } from "../control/membership/renewal.ts";
import { type Announcement, membershipRoutes } from "../control/membership/routes.ts";
import { checkToken, parseToken } from "../control/membership/tokens.ts";
import { scrubReading } from "../control/planner/scrub-record.ts";
import { volumeStatus } from "../control/planner/status.ts";
import { controlRecorder } from "../control/recorder/recorder.ts";
import type { Service } from "../control/service.ts";
import type { ReplicatedStore } from "../control/store/replicated-store.ts";
import { keepUpgraded } from "../control/store/upgrade.ts";
import { type DriverOptions, startDriver } from "../csi/driver.ts";
import { type RecorderServer, serveRecorder } from "../engine/main/recorder-server.ts";
import { type Recorder, recorderHandlers } from "../engine/recorder.ts";
import { type EngineClient, httpClient } from "../engine/rpc/client.ts";
import { recorderContract } from "../engine/rpc/records.ts";
import { contractApp } from "../engine/rpc.ts";
import { TrilithError } from "../errors.ts";
import { endpointText } from "../names.ts";
import { watchEventLoop } from "../ops/event-loop.ts";
import type { Log } from "../ops/log.ts";
import {
  type ControlInstruments,
  controlInstruments,
  createMetrics,
  type MetricsServer,
  serveMetrics,
} from "../ops/metrics/index.ts";
import { buildInfo } from "../version.ts";
import { type Core, memberVersions, openCore } from "./core.ts";
import { type Decisions, openDecisions } from "./decisions.ts";
import { type KubernetesOptions, keepKubernetes } from "./kubernetes.ts";
import { ownRest } from "./own-rest.ts";
import { Stack } from "./stack.ts";
import { vacate } from "./vacation.ts";

export interface Endpoint {
  readonly address: string;
  /** 0 takes a free one. */
  readonly port: number;
}

export interface ControlNodeOptions {
  readonly dataDir: DataDir;
  /** Where other nodes reach this one; what the identity says by default. */
  readonly peerListen: Endpoint;
  /** Where the HTTP API listens; where it is asked for, with the node's certificate. */
  readonly apiListen: (tls: TlsFiles) => readonly Listen[];
  /** Null: no metrics. */
  readonly metrics: Endpoint | null;
  /** Where engines record lost children. */
  readonly recorder: Endpoint;
  /** The engine of this node. */
  readonly ownEngine: EngineClient;
  readonly hostNqn: string;
  /** Null: this cluster is not operated from Kubernetes by this member. */
  readonly kubernetes: KubernetesOptions | null;
  /** Where the CSI controller is served; null: nowhere by this process. */
  readonly csi: Pick<DriverOptions, "driverName" | "socket" | "controller"> | null;
  readonly log: Log;
  /** Called once when the node cannot go on: it was removed from the cluster, or its disk failed. */
  readonly onEnd: (reason: TrilithError) => void;
}

export interface ControlNode {
  readonly service: Service;
  readonly store: ReplicatedStore;
  readonly apiUrls: readonly string[];
  readonly peerPort: number;
  stop(): Promise<void>;
}

/** Starts the node that a data directory belongs to. Rejects when something it needs is taken. */
export async function startControlNode(options: ControlNodeOptions): Promise<ControlNode> {
  const parts = new Stack();
  try {
    return await assemble(options, parts);
  } catch (error) {
    await parts.stop(options.log);
    throw error;
  }
}

async function assemble(options: ControlNodeOptions, parts: Stack): Promise<ControlNode> {
  const { dataDir, log } = options;
  const { identity } = dataDir;
  parts.add(lockDataDir(dataDir.path), (unlock) => unlock());
  const instruments = controlInstruments();
  const core = openCore(options, instruments, parts);
  const { store } = core;
  const decisions = openDecisions({ ...options, instruments }, core, parts);
  const recorder = recorderOf(core, log);
  const api = apiOf(decisions.service, core, instruments, log);
  const peers = await servePeersOf(options, core, recorder, api, parts);
  keepMembership(options, core, peers, parts);
  decisions.executor.start();
  parts.add(
    keepUpgraded({
      store,
      knownVersion: core.machine.knownVersion,
      memberVersions: () => memberVersions(core, identity.raftId),
      log,
    }),
    (end) => end(),
  );
  const served = parts.add(await serveApi(api, options.apiListen(tlsFiles(dataDir)), log), (open) =>
    open.stop(),
  );
  keepCertificates(options, core, { peers, served, decisions }, parts);
  const records: RecorderServer = parts.add(
    serveRecorder(recorder, options.recorder, log, {
      vacate: async ({ instanceUuid, timeoutMs }) => {
        const { nodeId } = identity;
        const at = { nodeId, view: () => store.view(), api, log };
        return { isVacant: await vacate(at, instanceUuid, timeoutMs) };
      },
    }),
    (open) => open.stop(),
  );
  const metrics = serveMetricsOf(options, core, decisions, instruments, parts);
  if (options.kubernetes !== null) {
    parts.add(keepKubernetes(options.kubernetes, store, decisions.service, api, log), (end) =>
      end(),
    );
  }
  if (options.csi !== null) {
    const driver = await startDriver({ ...options.csi, client: ownRest(api), node: null, log });
    parts.add(driver, (open) => open.stop());
  }
  log("info", "control process serves", {
    node: identity.nodeId,
    cluster: identity.clusterId,
    api: served.urls.join(","),
    peers: endpointText(peers.address, peers.port),
    recorder: records.url,
    metrics: metrics?.url,
  });
  return {
    service: decisions.service,
    store,
    apiUrls: served.urls,
    peerPort: peers.port,
    stop: () => parts.stop(log),
  };
}

/** Records lost children: here when this node leads, else by asking the leader. */
function recorderOf({ store, leader }: Core, log: Log): Recorder {
  const ofLeader = httpClient(recorderContract, "https://peer.invalid", {
    send: (url, init) => leader.ask(new Request(url, init)),
  });
  return controlRecorder({
    store,
    forward: async (request) => {
      await ofLeader.putRecord(request);
    },
    nowMs: Date.now,
    log,
  });
}

function apiOf(service: Service, core: Core, instruments: ControlInstruments, log: Log): Api {
  const { store, leader } = core;
  return createApi(service, {
    log,
    leadership: () => leader.leadership(),
    forward: (request) => leader.forward(request),
    localState: () => service.localState(),
    verifyToken: (token) => isApiToken(store, token, Date.now()),
    answered: ({ method, operation, status, durationMs }) =>
      instruments.requested(method, operation, status, durationMs),
  });
}

/** Serves what other members ask: raft, joins, and what they pass on to the leader. */
async function servePeersOf(
  options: ControlNodeOptions,
  core: Core,
  recorder: Recorder,
  api: Api,
  parts: Stack,
): Promise<PeerServer> {
  const { dataDir, log } = options;
  const { store, raft, leader } = core;
  const now = Date.now;
  const routes = membershipRoutes({
    dataDir,
    store,
    now,
    toLeader: (request) => leader.ask(request),
  });
  const recorderApp = contractApp(recorderContract, recorderHandlers(recorder), log);
  return parts.add(
    await servePeers({
      ...options.peerListen,
      credentials: dataDir.credentials(),
      directory: core.directory,
      incomingFolder: join(dataDir.path, "incoming"),
      log,
      now,
      raft: () => raft,
      join: (request) => routes.join(request),
      forwarded(request, peer) {
        const { pathname } = new URL(request.url);
        if (pathname === "/control/store-version") {
          return Response.json({ version: core.machine.knownVersion });
        }
        if (pathname.startsWith("/v1/records/")) return recorderApp.fetch(request);
        return routes.members(request, peer) ?? api.fetch(request);
      },
    }),
    (open) => open.stop(),
  );
}

/** Tells the others about this node, and follows who is a member. */
function keepMembership(
  { dataDir, hostNqn, log }: ControlNodeOptions,
  { store, raft, transport, leader }: Core,
  peers: PeerServer,
  parts: Stack,
): void {
  const { peerEndpoint, engineEndpoint } = dataDir.identity;
  parts.add(
    startKeeper({
      dataDir,
      store,
      raft,
      log,
      now: Date.now,
      self: { peerEndpoint, engineEndpoint, hostNqn, version: buildInfo.version },
      onMembersChanged() {
        transport.directoryChanged();
        peers.dropRemoved();
      },
      announce: (said) => announce(leader, said),
    }),
    (open) => open.stop(),
  );
}

/** Renews the node's certificate in time, and has everything use the new one. */
function keepCertificates(
  { dataDir, log }: ControlNodeOptions,
  { transport }: Core,
  users: { readonly peers: PeerServer; readonly served: ServedApi; readonly decisions: Decisions },
  parts: Stack,
): void {
  parts.add(
    startRenewal({
      dataDir,
      log,
      now: Date.now,
      onRenewed() {
        transport.credentialsChanged();
        users.peers.setCredentials(dataDir.credentials());
        users.decisions.links.credentialsChanged();
        users.decisions.members.credentialsChanged();
        users.served.renew(tlsFiles(dataDir));
      },
    }),
    (end) => end(),
  );
}

function serveMetricsOf(
  { ownEngine, metrics, log }: ControlNodeOptions,
  { store }: Core,
  { service, warnings }: Decisions,
  instruments: ControlInstruments,
  parts: Stack,
): MetricsServer | null {
  const loop = parts.add(
    watchEventLoop({
      onStall: (ms) => log("debug", "event loop stalled", { ms: Math.round(ms) }),
    }),
    (watch) => watch.stop(),
  );
  if (metrics === null) return null;
  const made = createMetrics({
    engine: ownEngine,
    raft: () => store.status(),
    cluster: () =>
      store.isLeader()
        ? {
            state: service.localState(),
            warnings: warnings(),
            volumeStatus,
            scrubOf: scrubReading,
          }
        : null,
    instruments,
    loop,
    log,
  });
  return parts.add(serveMetrics(made, metrics, log), (open) => open.stop());
}

function tlsFiles(dataDir: DataDir): TlsFiles {
  const { certPem, keyPem } = dataDir.credentials();
  return { cert: certPem, key: keyPem };
}

/** True for a token of kind `api` that is known and has not run out. */
function isApiToken(store: ReplicatedStore, token: string, nowMs: number): boolean {
  try {
    checkToken(store.view().tokens, "api", parseToken(token), nowMs);
    return true;
  } catch (error) {
    if (error instanceof TrilithError) return false;
    throw error;
  }
}

async function announce(leader: LeaderChannel, self: Announcement): Promise<void> {
  const response = await leader.ask(
    new Request("https://peer.invalid/membership/announcement", {
      method: "POST",
      body: JSON.stringify(self),
      headers: { "content-type": "application/json" },
    }),
  );
  if (response.ok) return;
  throw new TrilithError("Unavailable", `HTTP ${response.status}: ${await response.text()}`);
}
