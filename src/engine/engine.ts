/**
 * The engine process: the main thread, which serves the RPC and starts the reactors, and the
 * reactors, which own everything else. It decides nothing: it does what it is told and reports.
 */
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { closeFd, OpenFlag, openFd, tryLockFd } from "../../ffi/index.ts";
import { TrilithError } from "../errors.ts";
import { endpointText } from "../names.ts";
import { watchEventLoop } from "../ops/event-loop.ts";
import type { Log } from "../ops/log.ts";
import { EventLog } from "./main/events.ts";
import { engineHandlers } from "./main/handlers.ts";
import { Routes } from "./main/routes.ts";
import { serveRpcTls, type TlsRpc } from "./main/rpc-tls.ts";
import { type Endpoint, openSockets, type Sockets } from "./main/sockets.ts";
import { ReactorGroup } from "./reactor/group.ts";
import { openFileRecorder, openHttpRecorder } from "./recorder.ts";
import { engineApp } from "./rpc.ts";
import { type EngineSettings, isAnyAddress } from "./settings.ts";
import type { MainMethods, ShardOptions } from "./shard/methods.ts";

/** The engine's own recorder, in its data directory. */
const RECORDER_FILE = "records.sqlite";
/** A recorder that does not answer by then is asked again by the nexus. */
const RECORDER_TIMEOUT_MS = 5_000;

export interface EngineOptions {
  readonly settings: EngineSettings;
  readonly log: Log;
  /** A reactor has died; the process has to end. */
  readonly onFatal: (error: unknown) => void;
}

/** A running engine. */
export interface Engine {
  /** Base URLs of the RPC. */
  readonly rpcUrls: readonly string[];
  /** Serves the RPC over mutual TLS too. `InUse` when the address is taken. */
  serveTls(tls: NonNullable<EngineSettings["rpcTls"]>): Promise<void>;
  /** Reads the certificate files again. Throws what reading them throws; the old ones stay in use. */
  reload(): void;
  /** This process, as the RPC names it. */
  readonly instanceUuid: string;
  /** Ends everything in order: connections, nexuses, pools, reactors. */
  stop(): Promise<void>;
}

/**
 * Keeps a second engine out of the data directory: both would use the same host id, and replicas
 * could not tell their nexuses apart.
 */
function lockDataDir(dataDir: string): number {
  const path = join(dataDir, "engine.lock");
  const fd = openFd(path, OpenFlag.RDWR | OpenFlag.CREAT);
  if (tryLockFd(fd)) return fd;
  closeFd(fd);
  throw new TrilithError(
    "InUse",
    `the data directory ${dataDir} is used by another engine`,
    `see \`fuser -v ${path}\`, or name another one with --data-dir`,
  );
}

type Server = ReturnType<typeof Bun.serve>;

function serveRpc(at: Endpoint, fetch: (request: Request) => Response | Promise<Response>): Server {
  try {
    // Long polls stay silent for longer than the default time-out.
    return Bun.serve({ hostname: at.address, port: at.port, idleTimeout: 120, fetch });
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    throw new TrilithError(
      "InUse",
      `cannot serve the engine's RPC on ${at.address}:${at.port}: ${text}`,
      `see \`ss -ltnp sport = :${at.port}\`, or choose another port with --rpc`,
    );
  }
}

function urlOf(server: Server): string {
  return `http://${endpointText(server.hostname!, server.port!)}`;
}

/** Starts an engine; resolves when it serves. */
export async function startEngine(options: EngineOptions): Promise<Engine> {
  const { settings, log } = options;
  const startedAt = new Date();
  const instanceUuid = randomUUID();
  const events = new EventLog(() => new Date());
  const lock = lockDataDir(settings.dataDir);
  let sockets: Sockets;
  try {
    sockets = await openSockets(settings);
  } catch (error) {
    closeFd(lock);
    throw error;
  }
  const loop = watchEventLoop();
  const servers: Server[] = [];
  const tlsServers: TlsRpc[] = [];
  const recorder =
    settings.recorder === null
      ? openFileRecorder(join(settings.dataDir, RECORDER_FILE), () => new Date())
      : openHttpRecorder(settings.recorder, RECORDER_TIMEOUT_MS);
  const routes = new Routes(
    sockets.nvmf.map(({ address, port }) => ({
      address: isAnyAddress(address) ? settings.address : address,
      port,
    })),
  );

  const serve = (index: number): Omit<MainMethods, "ready"> => ({
    log: async ({ level, text, fields }) => log(level, text, { reactor: index, ...fields }),
    event: async (event) => {
      if (event.kind === "reactor-stalled") log("warn", "reactor stalled", event.fields);
      events.add({ ...event, reactor: index });
    },
    handOverNvmf: async (moved) => group.tell(moved.reactorIndex, "takeOverNvmf", moved),
    handOverNbd: async (moved) => group.tell(moved.reactorIndex, "takeOverNbd", moved),
    announce: async ({ hosts, ...served }) => {
      routes.set(served, { reactor: index, hosts });
      await group.callAll("setRoutes", routes.table);
    },
    withdraw: async (served) => {
      routes.remove(served, index);
      await group.callAll("setRoutes", routes.table);
    },
    record: (record) => recorder.record(record),
  });
  const group: ReactorGroup = new ReactorGroup({
    serve,
    onDeath: (index, error) => {
      log("error", "reactor died", { reactor: index, error });
      options.onFatal(error);
    },
  });

  const stop = async (): Promise<void> => {
    loop.stop();
    events.close();
    await Promise.all([...servers, ...tlsServers].map((server) => server.stop(true)));
    await group.stop();
    sockets.close();
    recorder.close();
    closeFd(lock);
  };

  let serveTls: Engine["serveTls"];
  try {
    for (let index = 0; index < settings.reactors; index++) {
      await group.start(shardOptions(settings, index, sockets));
    }
    const app = engineApp(
      engineHandlers({
        settings,
        group,
        events,
        recorder,
        instanceUuid,
        startedAt,
        loop,
        endpoints: () => ({
          nvmf: sockets.nvmf.map(endpointOf),
          discovery: sockets.discovery.map(endpointOf),
          nbd: sockets.nbd.map(endpointOf),
          rpc: [
            ...servers.map((server) => ({ address: server.hostname!, port: server.port! })),
            ...tlsServers.map(endpointOf),
          ],
        }),
      }),
      log,
    );
    for (const at of settings.rpcListen) servers.push(serveRpc(at, app.fetch));
    serveTls = async (tls) => {
      for (const at of tls.listen) tlsServers.push(await serveRpcTls(at, tls, app.fetch));
    };
    if (settings.rpcTls !== null) await serveTls(settings.rpcTls);
    const nvmf = [...sockets.nvmf, ...sockets.discovery].map(({ fd }) => fd);
    await group.callAll("listen", { nvmf, nbd: sockets.nbd.map(({ fd }) => fd) });
  } catch (error) {
    await stop();
    throw error;
  }
  events.add({
    kind: "engine-started",
    subject: settings.nodeName,
    message: "",
    reactor: null,
    fields: {},
  });
  return {
    instanceUuid,
    rpcUrls: [...servers.map(urlOf), ...tlsServers.map(({ url }) => url)],
    serveTls,
    reload() {
      for (const server of tlsServers) server.reload();
    },
    stop,
  };
}

function endpointOf({ address, port }: Endpoint): Endpoint {
  return { address, port };
}

/** The kernel's id of this boot. */
function bootId(): string {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  } catch {
    return "";
  }
}

function shardOptions(settings: EngineSettings, index: number, sockets: Sockets): ShardOptions {
  return {
    index,
    arenaBytes: settings.arenaBytes,
    spinNs: settings.spinNs,
    core: settings.cores?.[index] ?? null,
    nodeName: settings.nodeName,
    bootId: bootId(),
    host: { nqn: settings.hostNqn, id: settings.hostId },
    address: settings.address,
    nvmfPort: sockets.nvmf[0]!.port,
    nbdPort: sockets.nbd[0]?.port ?? null,
  };
}
