/**
 * A control process: everything of `src/control` put together for one member of the cluster, and the
 * API on top. Owns no behaviour of its own; may import all of `control`, the API, metrics and the
 * engine's client.
 *
 * Each part is made in the order in which it is needed and stopped in the reverse one. What serves
 * others comes last, so that nobody is answered by half a node.
 */
import { Database } from "bun:sqlite";
import { join } from "node:path";
import { createApi } from "../api/app.ts";
import { type Listen, serveApi, type TlsFiles } from "../api/serve.ts";
import { type RecorderServer, serveRecorder } from "../engine/main/recorder-server.ts";
import { recorderHandlers } from "../engine/recorder.ts";
import type { EngineClient } from "../engine/rpc/client.ts";
import { recorderContract } from "../engine/rpc/records.ts";
import { contractApp } from "../engine/rpc.ts";
import { fromErrorBody, TrilithError } from "../errors.ts";
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
import { Executor } from "./executor/executor.ts";
import { type LeaderChannel, leaderChannel } from "./leader-channel.ts";
import { memberWarnings } from "./membership/attention.ts";
import type { DataDir } from "./membership/data-dir.ts";
import { type EngineLink, openEngine } from "./membership/engine-link.ts";
import { startKeeper } from "./membership/keeper.ts";
import { lockDataDir } from "./membership/lock.ts";
import { memberDirectory } from "./membership/members-table.ts";
import { createToken, removeMember, transferLeadership } from "./membership/operations.ts";
import { type PeerServer, servePeers } from "./membership/peer-server.ts";
import { type PeerTransport, peerTransport } from "./membership/peer-transport.ts";
import { startRenewal } from "./membership/renewal.ts";
import { type Announcement, membershipRoutes } from "./membership/routes.ts";
import { checkToken, parseToken } from "./membership/tokens.ts";
import type { NodeRecord } from "./model.ts";
import { Observer } from "./observer/observer.ts";
import { volumeStatus } from "./planner/status.ts";
import { openRaftNode } from "./raft/raft-node.ts";
import { controlRecorder, type RecordRequest } from "./recorder/recorder.ts";
import { makeSettingsReader } from "./service/settings.ts";
import { createService, type Service } from "./service.ts";
import { StoreMachine } from "./store/machine.ts";
import { openStore, type ReplicatedStore } from "./store/replicated-store.ts";
import { keepUpgraded } from "./store/upgrade.ts";

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

/** Things to stop, the last one first. */
class Stack {
  readonly #stops: (() => unknown)[] = [];

  add<T>(thing: T, stop: (thing: T) => unknown): T {
    this.#stops.push(() => stop(thing));
    return thing;
  }

  async stop(log: Log): Promise<void> {
    for (const stop of this.#stops.splice(0).reverse()) {
      try {
        await stop();
      } catch (error) {
        log("warn", "a part of the node did not stop in order", { error });
      }
    }
  }
}

/** Raft, the store over it, and the way to the others. */
interface Core {
  readonly store: ReplicatedStore;
  readonly machine: StoreMachine;
  readonly raft: ReturnType<typeof openRaftNode>;
  readonly transport: PeerTransport;
  readonly leader: LeaderChannel;
  readonly directory: ReturnType<typeof memberDirectory>;
}

function openCore(
  options: ControlNodeOptions,
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
async function memberVersions(core: Core, ownRaftId: string): Promise<ReadonlyMap<string, number>> {
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

/** Hands a record of lost children to the leader. */
async function forwardRecord(leader: LeaderChannel, request: RecordRequest): Promise<void> {
  const { volumeUuid, ...body } = request;
  const response = await leader.ask(
    new Request(`https://peer.invalid/v1/records/${volumeUuid}`, {
      method: "PUT",
      body: JSON.stringify(body),
      headers: { "content-type": "application/json" },
    }),
  );
  if (response.ok) return;
  const text = await response.text();
  let error: TrilithError;
  try {
    error = fromErrorBody(JSON.parse(text));
  } catch {
    error = new TrilithError("Unavailable", `the leader answered ${response.status}: ${text}`);
  }
  throw error;
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
  const { store, raft, transport, leader } = core;
  const now = Date.now;
  const settings = makeSettingsReader();
  const links = new Map<string, EngineLink>();
  parts.add(links, (open) => {
    for (const link of open.values()) link.close();
  });
  const engineOf = ({ id, engineEndpoint }: NodeRecord): EngineClient => {
    links.get(id)?.close();
    const link = openEngine({
      endpoint: engineEndpoint,
      clusterId: identity.clusterId,
      nodeId: id,
      credentials: () => dataDir.credentials(),
    });
    links.set(id, link);
    return link.client;
  };
  const observer = parts.add(
    new Observer({
      clientOf: (node) => (node.id === identity.nodeId ? options.ownEngine : engineOf(node)),
      nodeDeadlineMs: () => settings(store.view().settings).nodeDeadlineMs,
      log,
      nowMs: now,
    }),
    (open) => open.stop(),
  );
  const executor = parts.add(
    new Executor({
      store,
      observer,
      settings: (view) => settings(view.settings),
      log,
      nowMs: now,
      instruments,
    }),
    (open) => open.stop(),
  );
  const membership = { dataDir, store, raft, now };
  const service = parts.add(
    createService({
      store,
      observation: observer,
      execution: executor,
      membership: {
        createToken: (kind, validMs, note) => createToken(membership, kind, validMs, note),
        transferLeadership: (toNode) => transferLeadership(membership, toNode),
        removeMember: (nodeId) => removeMember(membership, nodeId),
      },
      plan: (state) => {
        const made = executor.planNow(state);
        const ofMembers = memberWarnings(store.status(), transport.status());
        return { ...made, warnings: [...ofMembers, ...made.warnings] };
      },
      log,
      now,
    }),
    (open) => open.close(),
  );
  const recorder = controlRecorder({
    store,
    forward: (request) => forwardRecord(leader, request),
    nowMs: now,
    log,
  });
  parts.add(
    service.onEvent((event) => instruments.happened(event)),
    (unlisten) => unlisten(),
  );
  parts.add(
    store.onLeadership(() => instruments.leadershipChanged()),
    (unlisten) => unlisten(),
  );
  const api = createApi(service, {
    log,
    leadership: () => leader.leadership(),
    forward: (request) => leader.forward(request),
    localState: () => service.localState(),
    verifyToken: (token) => isApiToken(store, token, now()),
    answered: ({ method, operation, status, durationMs }) =>
      instruments.requested(method, operation, status, durationMs),
  });
  const routes = membershipRoutes({
    dataDir,
    store,
    now,
    toLeader: (request) => leader.ask(request),
  });
  const recorderApp = contractApp(recorderContract, recorderHandlers(recorder), log);
  const peers: PeerServer = parts.add(
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
  const self: Announcement = {
    peerEndpoint: identity.peerEndpoint,
    engineEndpoint: identity.engineEndpoint,
    hostNqn: options.hostNqn,
    version: buildInfo.version,
  };
  parts.add(
    startKeeper({
      dataDir,
      store,
      raft,
      log,
      now,
      self,
      onMembersChanged() {
        transport.directoryChanged();
        peers.dropRemoved();
      },
      announce: (said) => announce(leader, said),
    }),
    (open) => open.stop(),
  );
  executor.start();
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
  parts.add(
    startRenewal({
      dataDir,
      log,
      now,
      onRenewed() {
        transport.credentialsChanged();
        peers.setCredentials(dataDir.credentials());
        for (const link of links.values()) link.credentialsChanged();
        served.renew(tlsFiles(dataDir));
      },
    }),
    (end) => end(),
  );
  const records: RecorderServer = parts.add(
    serveRecorder(recorder, options.recorder, log),
    (open) => open.stop(),
  );
  const loop = parts.add(
    watchEventLoop({
      onStall: (ms) => log("debug", "event loop stalled", { ms: Math.round(ms) }),
    }),
    (watch) => watch.stop(),
  );
  const metrics = createMetrics({
    engine: options.ownEngine,
    raft: () => store.status(),
    cluster: () => {
      if (!store.isLeader()) return null;
      const state = service.localState();
      const ofMembers = memberWarnings(store.status(), transport.status());
      const warnings = [...ofMembers, ...executor.lastWarnings];
      return { state, warnings, volumeStatus };
    },
    instruments,
    loop,
    log,
  });
  const metricsServer: MetricsServer | null =
    options.metrics === null
      ? null
      : parts.add(serveMetrics(metrics, options.metrics, log), (open) => open.stop());
  log("info", "control process serves", {
    node: identity.nodeId,
    cluster: identity.clusterId,
    api: served.urls.join(","),
    peers: `${peers.address}:${peers.port}`,
    recorder: records.url,
    metrics: metricsServer?.url,
  });
  return {
    service,
    store,
    apiUrls: served.urls,
    peerPort: peers.port,
    stop: () => parts.stop(log),
  };
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
