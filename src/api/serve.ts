/**
 * Where the HTTP API listens: a unix socket that only its owner may open, the loopback without TLS,
 * and other addresses with TLS and a bearer token.
 */
import { chmodSync, lstatSync, mkdirSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { dirname } from "node:path";
import { TrilithError } from "../errors.ts";
import type { Log } from "../ops/log.ts";
import type { Admission } from "./admission.ts";
import type { Api } from "./app.ts";
import { BODY_BYTES_MAX } from "./limits.ts";

/** Port of the API as Mayastor's clients know it. */
export const API_PORT = 8081;

/** Certificate and key of this node, in PEM. */
export interface TlsCredentials {
  readonly certPem: string;
  readonly keyPem: string;
}

export interface Endpoint {
  readonly address: string;
  /** 0 takes a free one. */
  readonly port: number;
}

/** Where to listen. */
export interface ApiListeners {
  /** Path of a unix socket; only its owner may open it. */
  readonly unix?: string;
  /** Addresses of the loopback, without TLS. Others are refused. */
  readonly loopback?: readonly Endpoint[];
  /** Addresses with TLS, whose clients need a bearer token. */
  readonly tls?: readonly Endpoint[];
}

export interface ServeApiOptions extends ApiListeners {
  readonly log: Log;
  /** Has to be there for `tls`. Read at the start, and again by `renewed`. */
  readonly credentials?: () => TlsCredentials;
}

export interface ApiServers {
  /** Where it listens: `unix:/run/...`, `http://127.0.0.1:8081`, `https://...`. */
  readonly urls: readonly string[];
  /** The certificate is another one now: new connections get it, those that are open go on. */
  renewed(): void;
  /** Takes nothing new, and ends what is open (event streams with it). */
  stop(): Promise<void>;
}

/** True when nobody but this machine reaches an address. */
export function isLoopback(address: string): boolean {
  return /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(address) || ["::1", "localhost"].includes(address);
}

const BODY_SLACK_BYTES = 64 * 1024;

interface Served {
  readonly url: string;
  readonly renewed: () => void;
  readonly stop: () => Promise<void>;
}

function inUse(where: string, error: unknown): TrilithError {
  const text = error instanceof Error ? error.message : String(error);
  return new TrilithError(
    "InUse",
    `cannot serve the API on ${where}: ${text}`,
    "see who listens there (`ss -ltnpx`), or choose another place",
  );
}

function fetchWith(api: Api, admission: Admission) {
  return (request: Request): Response | Promise<Response> => api.fetch(request, { admission });
}

/** True when somebody answers at a socket's path. */
function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

async function serveUnix(api: Api, path: string): Promise<Served> {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const present = lstatSync(path, { throwIfNoEntry: false });
  if (present !== undefined) {
    // A process that was killed leaves its socket behind.
    if (!present.isSocket()) throw inUse(path, "a file is there that is no socket");
    if (await isAnswered(path)) throw inUse(path, "another process answers there");
    rmSync(path);
  }
  const before = process.umask(0o177);
  try {
    // Idle connections of event streams: Bun closes none on a unix socket.
    const server = Bun.serve({
      unix: path,
      maxRequestBodySize: BODY_BYTES_MAX + BODY_SLACK_BYTES,
      fetch: fetchWith(api, { requiresToken: false, requiresAddressAsHost: false }),
    });
    chmodSync(path, 0o600);
    const stop = async (): Promise<void> => {
      await server.stop(true);
      rmSync(path, { force: true });
    };
    return { url: `unix:${path}`, renewed: () => {}, stop };
  } catch (error) {
    throw inUse(path, error);
  } finally {
    process.umask(before);
  }
}

function hostText({ address }: Endpoint): string {
  return address.includes(":") ? `[${address}]` : address;
}

function serveTcp(
  at: Endpoint,
  fetch: (request: Request) => Response | Promise<Response>,
  tls?: TlsCredentials,
) {
  try {
    return Bun.serve({
      hostname: at.address,
      port: at.port,
      idleTimeout: 0,
      maxRequestBodySize: BODY_BYTES_MAX + BODY_SLACK_BYTES,
      ...(tls === undefined
        ? {}
        : { reusePort: true, tls: { cert: tls.certPem, key: tls.keyPem } }),
      fetch,
    });
  } catch (error) {
    throw inUse(`${hostText(at)}:${at.port}`, error);
  }
}

function serveLoopback(api: Api, at: Endpoint): Served {
  if (!isLoopback(at.address)) {
    throw new TrilithError(
      "InvalidArgument",
      `the API is not served on ${at.address} without TLS`,
      "listen on 127.0.0.1, or with TLS",
    );
  }
  const fetch = fetchWith(api, { requiresToken: false, requiresAddressAsHost: true });
  const server = serveTcp(at, fetch);
  return {
    url: `http://${hostText(at)}:${server.port}`,
    renewed: () => {},
    stop: () => server.stop(true),
  };
}

function serveTls(api: Api, at: Endpoint, credentials: () => TlsCredentials): Served {
  const fetch = fetchWith(api, { requiresToken: true, requiresAddressAsHost: false });
  // Sharing a port is for our own next server: somebody else's has to be noticed first.
  if (at.port !== 0) void serveTcp(at, fetch).stop(true);
  let server = serveTcp(at, fetch, credentials());
  const port = server.port!;
  /** Servers of former certificates, some of whose connections may be open. */
  const former = new Set<ReturnType<typeof serveTcp>>();
  return {
    url: `https://${hostText(at)}:${port}`,
    renewed() {
      const old = server;
      // Both have the port for a moment: nobody is refused.
      server = serveTcp({ ...at, port }, fetch, credentials());
      former.add(old);
      void old.stop(false).finally(() => former.delete(old));
    },
    async stop() {
      await Promise.all([server, ...former].map((one) => one.stop(true)));
    },
  };
}

/**
 * Serves the API. `InvalidArgument` for an address that needs TLS and has none, `InUse` when an
 * address is taken; nothing stays open then.
 */
export async function serveApi(api: Api, options: ServeApiOptions): Promise<ApiServers> {
  const { unix, loopback = [], tls = [], credentials, log } = options;
  const served: Served[] = [];
  const stop = async (): Promise<void> => {
    await Promise.all(served.splice(0).map((one) => one.stop()));
  };
  try {
    if (unix !== undefined) served.push(await serveUnix(api, unix));
    for (const at of loopback) served.push(serveLoopback(api, at));
    for (const at of tls) {
      if (credentials === undefined) {
        throw new TrilithError("InvalidArgument", `there is no certificate for ${at.address}`);
      }
      served.push(serveTls(api, at, credentials));
    }
  } catch (error) {
    await stop();
    throw error;
  }
  const urls = served.map(({ url }) => url);
  log("info", "API is served", { urls });
  const renewed = () => {
    for (const one of served) one.renewed();
  };
  return { urls, renewed, stop };
}
