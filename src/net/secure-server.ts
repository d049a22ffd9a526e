/**
 * A server of HTTP/2 and HTTP/1.1 over mutual TLS with a handler of the web's kind (`Request` in,
 * `Response` out) that also learns whose certificate the caller has shown. `Bun.serve` asks for
 * certificates too but does not say whose they are, so this stands on node's `http2`, which does.
 */
import {
  createSecureServer,
  type Http2SecureServer,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type Http2Session,
} from "node:http2";
import type { AddressInfo, Socket } from "node:net";
import type { Readable, Writable } from "node:stream";
import type { TLSSocket } from "node:tls";
import { facesOf, TrilithError, toErrorBody } from "../errors.ts";
import { pumpBody, webBody } from "./bodies.ts";
import {
  HEADER_BYTES_MAX,
  STRANGER_BODY_BYTES_MAX,
  STRANGER_LIFE_MS,
  STRANGERS_MAX,
  STREAMS_MAX,
} from "./limits.ts";
import { type Credentials, type PeerCertificate, peerOf } from "./peer-certificate.ts";

/** Takes the body of a request as it comes, without the detour over web streams. */
export interface RawRequest {
  readonly path: string;
  readonly query: URLSearchParams;
  readonly body: Readable;
  /** Answers with a status and a short body; at most once. */
  readonly answer: (status: number, body: string) => void;
  /** Ends the request without an answer. */
  readonly destroy: () => void;
}

export interface SecureServerOptions {
  readonly address: string;
  /** 0 takes a free one. */
  readonly port: number;
  readonly credentials: Credentials;
  /**
   * Decides whether a request may be served at all: throws, or returns. `peer` is null when the caller
   * has shown no certificate of the authority (a stranger).
   */
  readonly admit: (peer: PeerCertificate | null, path: string) => void;
  readonly fetch: (request: Request, peer: PeerCertificate | null) => Promise<Response> | Response;
  /** Takes a request away from `fetch`; false leaves it. Strangers' requests never come here. */
  readonly raw?: (request: RawRequest, peer: PeerCertificate) => boolean;
  readonly now: () => number;
}

export interface SecureServer {
  readonly address: string;
  readonly port: number;
  /** From now on, new connections get this certificate. */
  setCredentials(credentials: Credentials): void;
  /** Ends connections for which it says true, in the middle of what they do. */
  disconnect(which: (peer: PeerCertificate | null) => boolean): void;
  /** Closes the port and ends all connections. */
  stop(): Promise<void>;
}

/** An error as an answer, in the shape that every API of the product has. */
export function errorResponse(error: unknown): Response {
  const body = toErrorBody(error);
  const status = error instanceof TrilithError ? facesOf(error.code).http : 500;
  return Response.json(body, { status });
}

/** Fields that describe one connection; HTTP/2 forbids them. */
const connectionFields = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "transfer-encoding",
  "upgrade",
  "http2-settings",
]);

function requestHeaders(req: Http2ServerRequest): Headers {
  const headers = new Headers();
  for (const [name, value] of Object.entries(req.headers)) {
    if (name.startsWith(":") || connectionFields.has(name) || value === undefined) continue;
    for (const one of Array.isArray(value) ? value : [value]) headers.append(name, one);
  }
  return headers;
}

/** The whole body of a stranger's request. `InvalidArgument` beyond the limit. */
function boundedBody(source: Readable): Promise<Uint8Array<ArrayBuffer>> {
  return new Promise((resolve, reject) => {
    const chunks: Uint8Array<ArrayBuffer>[] = [];
    let bytes = 0;
    source.on("data", (chunk: Uint8Array<ArrayBuffer>) => {
      bytes += chunk.length;
      if (bytes <= STRANGER_BODY_BYTES_MAX) chunks.push(chunk);
    });
    source.on("end", () => {
      if (bytes > STRANGER_BODY_BYTES_MAX) {
        reject(new TrilithError("InvalidArgument", "the request's body is too large"));
      } else resolve(new Uint8Array(Buffer.concat(chunks)));
    });
    source.on("error", reject);
    source.on("close", () => reject(new TrilithError("Aborted", "the connection ended")));
  });
}

async function webRequest(
  req: Http2ServerRequest,
  url: URL,
  isStranger: boolean,
  signal: AbortSignal,
): Promise<Request> {
  const init = { method: req.method, headers: requestHeaders(req), signal };
  if (req.method === "GET" || req.method === "HEAD") return new Request(url.href, init);
  const source = req as unknown as Readable;
  const body = isStranger ? await boundedBody(source) : webBody(source, () => source.resume());
  return new Request(url.href, { ...init, body });
}

async function sendResponse(res: Http2ServerResponse, response: Response): Promise<void> {
  const headers: Record<string, string> = {};
  for (const [name, value] of response.headers) {
    if (!connectionFields.has(name)) headers[name] = value;
  }
  res.writeHead(response.status, headers);
  try {
    await pumpBody(response.body, res as unknown as Writable);
  } catch {
    // The body failed half-way: the caller must not take what it has for all of it.
    if (res.stream === undefined) (res as unknown as { socket: Socket | null }).socket?.destroy();
    // Without an error the stream would end as if all had been sent.
    else res.stream.destroy(new Error("the answer's body failed"));
  }
}

/** Starts to listen. `InUse` when the address is taken. */
export async function serveSecure(options: SecureServerOptions): Promise<SecureServer> {
  const tls = (credentials: Credentials) => ({
    cert: credentials.certPem,
    key: credentials.keyPem,
    ca: credentials.caPem,
  });
  const server: Http2SecureServer = createSecureServer({
    ...tls(options.credentials),
    minVersion: "TLSv1.3",
    requestCert: true,
    // Strangers come in to join; `admit` sees who is one, at every request.
    rejectUnauthorized: false,
    allowHTTP1: true,
    maxHeaderListPairs: 128,
    maxSessionMemory: 64,
    settings: { maxConcurrentStreams: STREAMS_MAX, maxHeaderListSize: HEADER_BYTES_MAX },
  });
  const peers = new Map<TLSSocket, PeerCertificate | null>();
  let strangers = 0;
  let isStopping = false;
  // Connections as they come in, before they have shown anything.
  const connections = new Set<Socket>();
  server.on("connection", (socket: Socket) => {
    connections.add(socket);
    const timer = setTimeout(() => {
      if (!peers.has(socket as TLSSocket)) socket.destroy();
    }, STRANGER_LIFE_MS);
    socket.on("close", () => {
      clearTimeout(timer);
      connections.delete(socket);
    });
  });
  server.on("secureConnection", (socket: TLSSocket) => {
    // It was accepted before the port was closed, and would keep the process from ending.
    if (isStopping) {
      socket.destroy();
      return;
    }
    const peer = peerOf(socket);
    peers.set(socket, peer);
    socket.setNoDelay(true);
    let life: ReturnType<typeof setTimeout> | undefined;
    if (peer === null) {
      strangers++;
      if (strangers > STRANGERS_MAX) socket.destroy();
      life = setTimeout(() => socket.destroy(), STRANGER_LIFE_MS);
    }
    socket.on("error", () => socket.destroy());
    socket.on("close", () => {
      peers.delete(socket);
      clearTimeout(life);
      if (peer === null) strangers--;
    });
  });
  // The socket that a session shows is a stand-in: it tells the same, but is another object.
  const sessionPeers = new WeakMap<Http2Session, PeerCertificate | null>();
  server.on("session", (session) => {
    sessionPeers.set(session, peerOf(session.socket as TLSSocket));
    session.on("error", () => {});
  });
  const peerOfRequest = (req: Http2ServerRequest): PeerCertificate | null => {
    const session = req.stream?.session;
    const peer =
      session === undefined ? peers.get(req.socket as TLSSocket) : sessionPeers.get(session);
    return peer ?? null;
  };
  // Broken handshakes and frames end their connection; nobody else is concerned.
  server.on("sessionError", () => {});
  server.on("tlsClientError", (_error, socket) => socket.destroy());

  const serve = async (req: Http2ServerRequest, res: Http2ServerResponse): Promise<void> => {
    const peer = peerOfRequest(req);
    const gone = new AbortController();
    res.on("close", () => gone.abort());
    for (const end of [req, res, req.stream]) end?.on("error", () => {});
    let response: Response;
    try {
      const url = new URL(req.url, "https://peer.invalid");
      if (peer !== null && peer.validToMs < options.now()) {
        throw new TrilithError("PermissionDenied", "the certificate has expired");
      }
      options.admit(peer, url.pathname);
      if (peer !== null && options.raw !== undefined) {
        const raw: RawRequest = {
          path: url.pathname,
          query: url.searchParams,
          body: req as unknown as Readable,
          answer: (status, body) => {
            res.writeHead(status, { "content-type": "text/plain" });
            res.end(body);
          },
          destroy: () => req.stream?.destroy(new Error("the request is not served any more")),
        };
        if (options.raw(raw, peer)) return;
      }
      response = await options.fetch(await webRequest(req, url, peer === null, gone.signal), peer);
    } catch (error) {
      response = errorResponse(error);
    }
    await sendResponse(res, response);
  };
  server.on("request", (req, res) => void serve(req, res));

  await new Promise<void>((resolve, reject) => {
    const refused = (error: Error) =>
      reject(
        new TrilithError(
          "InUse",
          `cannot listen on ${options.address}:${options.port}: ${error.message}`,
          `see \`ss -ltnp sport = :${options.port}\`, or choose another port`,
        ),
      );
    server.once("error", refused);
    server.listen(options.port, options.address, () => {
      server.off("error", refused);
      server.on("error", () => {});
      resolve();
    });
  });
  const disconnect = (which: (peer: PeerCertificate | null) => boolean): void => {
    for (const [socket, peer] of [...peers]) if (which(peer)) socket.destroy();
  };
  return {
    address: options.address,
    port: (server.address() as AddressInfo).port,
    setCredentials: (credentials) => server.setSecureContext(tls(credentials)),
    disconnect,
    stop: () =>
      new Promise((resolve) => {
        isStopping = true;
        // First: closing alone would let streams that are cut off look complete.
        disconnect(() => true);
        for (const socket of [...connections]) socket.destroy();
        server.close(() => resolve());
      }),
  };
}
