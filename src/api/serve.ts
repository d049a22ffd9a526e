/**
 * Where the HTTP API listens: a unix socket that only its owner may open, the loopback without TLS,
 * and other addresses with TLS and a bearer token.
 */
import { chmodSync, rmSync } from "node:fs";
import { TrilithError } from "../errors.ts";
import { endpointText } from "../names.ts";
import { freeSocketPath, placeInUse } from "../net/unix-socket.ts";
import type { Log } from "../ops/log.ts";
import type { Admission } from "./admission.ts";
import type { Api } from "./app.ts";
import { BODY_BYTES_MAX } from "./limits.ts";

/** Port of the API as Mayastor's clients know it. */
export const API_PORT = 8081;

/** Certificate and key, in PEM. */
export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
}

export type Listen =
  /** Path of a unix socket; only its owner may open it. */
  | { readonly kind: "unix"; readonly path: string }
  | {
      readonly kind: "tcp";
      readonly address: string;
      /** 0 takes a free one. */
      readonly port: number;
      /** Has to be there for any address that is not of the loopback; clients need a token then. */
      readonly tls?: TlsFiles;
    };
type ListenTcp = Extract<Listen, { kind: "tcp" }>;

export interface ServedApi {
  /** Where it listens, in the order that was given: `http://127.0.0.1:8081`, `unix:/run/...`. */
  readonly urls: readonly string[];
  /** From now on new connections get this certificate; those that are open go on. */
  renew(tls: TlsFiles): void;
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
  readonly renew: (tls: TlsFiles) => void;
  readonly stop: () => Promise<void>;
}

function inUse(where: string, error: unknown): TrilithError {
  return placeInUse("the API", where, error instanceof Error ? error.message : String(error));
}

function fetchWith(api: Api, admission: Admission) {
  return (request: Request): Response | Promise<Response> => api.fetch(request, { admission });
}

async function serveUnix(api: Api, path: string): Promise<Served> {
  await freeSocketPath(path, "the API");
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
    return { url: `unix:${path}`, renew: () => {}, stop };
  } catch (error) {
    throw inUse(path, error);
  } finally {
    process.umask(before);
  }
}

type Fetch = (request: Request) => Response | Promise<Response>;

function bind(at: ListenTcp, fetch: Fetch, tls?: TlsFiles) {
  try {
    return Bun.serve({
      hostname: at.address,
      port: at.port,
      idleTimeout: 0,
      maxRequestBodySize: BODY_BYTES_MAX + BODY_SLACK_BYTES,
      ...(tls === undefined ? {} : { reusePort: true, tls: { cert: tls.cert, key: tls.key } }),
      fetch,
    });
  } catch (error) {
    throw inUse(endpointText(at.address, at.port), error);
  }
}

function serveTls(at: ListenTcp, fetch: Fetch, tls: TlsFiles): Served {
  // Sharing a port is for our own next server: somebody else's has to be noticed first.
  if (at.port !== 0) void bind(at, fetch).stop(true);
  let server = bind(at, fetch, tls);
  const port = server.port!;
  /** Servers of former certificates, some of whose connections may be open. */
  const former = new Set<ReturnType<typeof bind>>();
  return {
    url: `https://${endpointText(at.address, port)}`,
    renew(next) {
      const old = server;
      // Both have the port for a moment: nobody is refused.
      server = bind({ ...at, port }, fetch, next);
      former.add(old);
      void old.stop(false).finally(() => former.delete(old));
    },
    async stop() {
      await Promise.all([server, ...former].map((one) => one.stop(true)));
    },
  };
}

function serveTcp(api: Api, at: ListenTcp): Served {
  const loopback = isLoopback(at.address);
  const admission = { requiresToken: !loopback, requiresAddressAsHost: loopback };
  const fetch = fetchWith(api, admission);
  if (at.tls !== undefined) return serveTls(at, fetch, at.tls);
  if (!loopback) {
    throw new TrilithError(
      "InvalidArgument",
      `the API is not served on ${at.address} without TLS`,
      "listen on 127.0.0.1, or give a certificate and a key",
    );
  }
  const server = bind(at, fetch);
  return {
    url: `http://${endpointText(at.address, server.port!)}`,
    renew: () => {},
    stop: () => server.stop(true),
  };
}

/**
 * Serves the API. `InvalidArgument` for an address that needs TLS and has none, `InUse` when an
 * address is taken; nothing stays open then.
 */
export async function serveApi(api: Api, listens: readonly Listen[], log: Log): Promise<ServedApi> {
  const served: Served[] = [];
  const stop = async (): Promise<void> => {
    await Promise.all(served.splice(0).map((one) => one.stop()));
  };
  try {
    for (const at of listens) {
      served.push(at.kind === "unix" ? await serveUnix(api, at.path) : serveTcp(api, at));
    }
  } catch (error) {
    await stop();
    throw error;
  }
  const urls = served.map(({ url }) => url);
  log("info", "API is served", { urls });
  const renew = (tls: TlsFiles) => {
    for (const one of served) one.renew(tls);
  };
  return { urls, renew, stop };
}
