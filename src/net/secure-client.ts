/**
 * A client that keeps one HTTP/2 connection over mutual TLS to one server, made when it is needed and
 * made again when it has broken. The other end's certificate is judged by the caller.
 */
import { type ClientHttp2Session, type ClientHttp2Stream, connect } from "node:http2";
import { isIP } from "node:net";
import type { Readable, Writable } from "node:stream";
import { causedBy, TrilithError } from "../errors.ts";
import { pumpBody, webBody } from "./bodies.ts";
import { CONNECT_TIMEOUT_MS, PING_INTERVAL_MS, PING_TIMEOUT_MS } from "./limits.ts";
import { type Credentials, type PeerCertificate, plainCertificate } from "./peer-certificate.ts";

export interface SecureClientOptions {
  readonly address: string;
  readonly port: number;
  /** Without certificate and key: a stranger, who can join. */
  readonly credentials: () => Credentials | { readonly caPem: string };
  /** Says whether this is the server that was meant; throws when not. */
  readonly check: (certificate: PeerCertificate) => void;
  readonly connectTimeoutMs?: number;
  readonly pingIntervalMs?: number;
  readonly pingTimeoutMs?: number;
}

export interface SecureClient {
  /** As the web's `fetch`; the URL's host is ignored. Rejects with `Unavailable` when there is no answer. */
  fetch(request: Request): Promise<Response>;
  /** A request whose body is written piece by piece. Resolves when the connection is there. */
  open(path: string, headers?: Record<string, string>): Promise<ClientHttp2Stream>;
  /** The next request makes a new connection; requests under way go on over the old one. */
  renew(): void;
  /** Ends the connection and everything on it. */
  close(): void;
}

const connectionFields = new Set([
  "connection",
  "keep-alive",
  "transfer-encoding",
  "upgrade",
  "host",
]);

function unavailable(where: string, error: unknown): TrilithError {
  if (error instanceof TrilithError) return error;
  const text = error instanceof Error ? error.message : String(error);
  return causedBy(
    new TrilithError("Unavailable", `${where}: ${text}`, "check that the node runs there"),
    error,
  );
}

/** Why a request whose signal was given ended early. */
function givenUp({ reason }: AbortSignal, where: string): TrilithError {
  if (reason instanceof DOMException && reason.name === "TimeoutError") {
    return new TrilithError("Timeout", `${where}: no answer in time`);
  }
  return new TrilithError("Aborted", `${where}: given up`);
}

/** Ends a session whose other end has stopped to answer: TCP alone would notice after minutes. */
function watch(session: ClientHttp2Session, intervalMs: number, timeoutMs: number): void {
  let lastAnswerMs = performance.now();
  const timer = setInterval(() => {
    if (performance.now() - lastAnswerMs > timeoutMs) {
      session.destroy(new Error("the other end does not answer"));
      return;
    }
    try {
      session.ping((error) => {
        if (error === null) lastAnswerMs = performance.now();
      });
    } catch {
      // It is being closed.
    }
  }, intervalMs);
  timer.unref();
  session.on("close", () => clearInterval(timer));
}

/** A client of one server. Nothing happens before the first request. */
export function secureClient(options: SecureClientOptions): SecureClient {
  const host = isIP(options.address) === 6 ? `[${options.address}]` : options.address;
  const where = `${host}:${options.port}`;
  let current: Promise<ClientHttp2Session> | undefined;
  const sessions = new Set<ClientHttp2Session>();
  let closed = false;

  const dial = (): Promise<ClientHttp2Session> => {
    const forget = () => {
      if (current === attempt) current = undefined;
    };
    const attempt: Promise<ClientHttp2Session> = new Promise((resolve, reject) => {
      const { caPem, ...own } = options.credentials();
      let refusal: unknown;
      const session = connect(`https://${where}`, {
        ca: caPem,
        ...("certPem" in own ? { cert: own.certPem, key: own.keyPem } : {}),
        minVersion: "TLSv1.3",
        rejectUnauthorized: true,
        checkServerIdentity: (_host, certificate) => {
          try {
            options.check(plainCertificate(certificate));
            return undefined;
          } catch (error) {
            refusal = error;
            return error instanceof Error ? error : new Error(String(error));
          }
        },
      });
      sessions.add(session);
      const timer = setTimeout(
        () => session.destroy(new Error("no connection in time")),
        options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS,
      );
      session.on("connect", () => {
        clearTimeout(timer);
        watch(
          session,
          options.pingIntervalMs ?? PING_INTERVAL_MS,
          options.pingTimeoutMs ?? PING_TIMEOUT_MS,
        );
        resolve(session);
      });
      let last: unknown;
      session.on("error", (error) => {
        last = error;
      });
      session.on("goaway", forget);
      session.on("close", () => {
        clearTimeout(timer);
        sessions.delete(session);
        forget();
        reject(unavailable(where, refusal ?? last ?? new Error("the connection ended")));
      });
    });
    return attempt;
  };

  const session = (): Promise<ClientHttp2Session> => {
    if (closed) return Promise.reject(new TrilithError("Aborted", `${where}: given up`));
    current ??= dial();
    return current;
  };

  const open = async (
    method: string,
    path: string,
    headers: Record<string, string>,
  ): Promise<ClientHttp2Stream> => {
    const s = await session();
    return s.request({ ...headers, ":method": method, ":path": path }, { endStream: false });
  };

  return {
    async fetch(request) {
      const url = new URL(request.url);
      const headers: Record<string, string> = {};
      for (const [name, value] of request.headers) {
        if (!connectionFields.has(name)) headers[name] = value;
      }
      if (request.signal.aborted) throw givenUp(request.signal, where);
      const stream = await open(request.method, url.pathname + url.search, headers);
      return answerTo(stream, request, where);
    },
    open: (path, headers = {}) => open("POST", path, headers),
    renew() {
      const old = current;
      current = undefined;
      old?.then((s) => s.close()).catch(() => {});
    },
    close() {
      closed = true;
      current = undefined;
      for (const s of [...sessions]) s.destroy();
    },
  };
}

/** Sends a request's body on its stream and makes a `Response` of what comes back. */
function answerTo(stream: ClientHttp2Stream, request: Request, where: string): Promise<Response> {
  return new Promise((resolve, reject) => {
    let failure: unknown;
    // With an error: without, the stream would end as if all had come.
    const end = (error: Error) => {
      failure ??= error;
      stream.destroy(error);
    };
    const abort = () => end(givenUp(request.signal, where));
    request.signal.addEventListener("abort", abort, { once: true });
    stream.on("error", (error) => {
      failure ??= error;
    });
    const whyEnded = () => unavailable(where, failure ?? new Error("the connection ended"));
    stream.on("close", () => {
      request.signal.removeEventListener("abort", abort);
      reject(whyEnded());
    });
    stream.on("response", (fields) => {
      const status = Number(fields[":status"]);
      const headers = new Headers();
      for (const [name, value] of Object.entries(fields)) {
        if (name.startsWith(":") || value === undefined) continue;
        for (const one of Array.isArray(value) ? value : [String(value)]) headers.append(name, one);
      }
      const isEmpty = status === 204 || status === 304 || request.method === "HEAD";
      if (isEmpty) stream.resume();
      const body = isEmpty
        ? null
        : webBody(stream as unknown as Readable, () => end(new Error("given up")), whyEnded);
      resolve(new Response(body, { status, headers }));
    });
    pumpBody(request.body, stream as unknown as Writable).catch((error: unknown) => {
      end(error instanceof Error ? error : new Error(String(error)));
    });
  });
}
