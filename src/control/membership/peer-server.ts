/**
 * What a node offers to the other nodes: one port, mutual TLS.
 *
 * | path               | who may   | what |
 * |--------------------|-----------|------|
 * | POST /raft/messages| members   | a stream of raft messages (`frames.ts`) |
 * | POST /raft/snapshot| members   | a snapshot (`snapshot-stream.ts`) |
 * | GET /join/authority| everybody | the authority's certificate: the joiner checks its fingerprint |
 * | POST /join         | everybody | a token and a request to sign (`join-service.ts`) |
 * | everything else    | members   | requests that a node forwards, e.g. of the HTTP API |
 */
import { randomUUID } from "node:crypto";
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { facesOf, TrilithError, toErrorBody } from "../../errors.ts";
import type { Credentials, PeerCertificate } from "../../net/peer-certificate.ts";
import {
  errorResponse,
  type RawRequest,
  type SecureServer,
  serveSecure,
} from "../../net/secure-server.ts";
import type { Log } from "../../ops/log.ts";
import type { NodeId } from "../model.ts";
import { FrameReader } from "./frames.ts";
import { MESSAGE_BYTES_MAX, SNAPSHOT_SILENCE_MS, SNAPSHOTS_INCOMING_MAX } from "./limits.ts";
import { admitMember, type MemberDirectory } from "./members.ts";
import type { MemberName } from "./names.ts";
import { readSnapshot } from "./snapshot-stream.ts";

export interface PeerServerOptions {
  readonly address: string;
  /** 0 takes a free one. */
  readonly port: number;
  readonly credentials: Credentials;
  readonly directory: MemberDirectory;
  /** Folder for snapshots that come in; on the file system of the store. Emptied at the start. */
  readonly incomingFolder: string;
  readonly log: Log;
  readonly now: () => number;
  /** Takes what comes from raft members; absent until raft runs: messages are dropped. */
  readonly raft: () => RaftReceiver | undefined;
  /** Serves a request that another node forwards. */
  readonly forwarded: (request: Request, peer: NodeId) => Promise<Response> | Response;
  /** Serves what everybody may ask: paths `/join` and below. */
  readonly join: (request: Request) => Promise<Response> | Response;
}

/** The side of a raft node that takes what comes in. */
export interface RaftReceiver {
  receive(bytes: Uint8Array): void;
  receiveSnapshot(message: Uint8Array, path: string): Promise<void>;
}

export interface PeerServer {
  readonly address: string;
  readonly port: number;
  setCredentials(credentials: Credentials): void;
  /** Ends connections of members that were removed meanwhile. */
  dropRemoved(): void;
  stop(): Promise<void>;
}

function isForStrangers(path: string): boolean {
  return path === "/join" || path.startsWith("/join/");
}

/** Serves the other nodes. `InUse` when the address is taken. */
export async function servePeers(options: PeerServerOptions): Promise<PeerServer> {
  const { directory, log } = options;
  rmSync(options.incomingFolder, { recursive: true, force: true });
  mkdirSync(options.incomingFolder, { recursive: true, mode: 0o700 });

  const admit = (peer: PeerCertificate | null, path: string): void => {
    if (isForStrangers(path)) return;
    if (peer === null) {
      throw new TrilithError(
        "Unauthenticated",
        "a certificate of this cluster is required",
        "nodes get one with `trilith join`; the HTTP API has an address of its own",
      );
    }
    admitMember(directory, peer);
  };

  const messages = (request: RawRequest, from: MemberName): void => {
    const reader = new FrameReader(MESSAGE_BYTES_MAX);
    request.body.on("data", (chunk: Uint8Array) => {
      // Asked at each chunk: the stream outlives its member's removal otherwise.
      if (directory.isRemoved(from.raftId)) {
        request.destroy();
        return;
      }
      try {
        for (const message of reader.push(chunk)) options.raft()?.receive(message);
      } catch (error) {
        log("error", "raft messages of a peer are malformed", { peer: from.nodeId, error });
        request.destroy();
      }
    });
    request.body.on("error", () => {});
    request.body.on("end", () => request.answer(204, ""));
  };

  let incoming = 0;
  const snapshot = async (request: RawRequest, from: MemberName): Promise<void> => {
    const path = join(options.incomingFolder, `${randomUUID()}.sqlite`);
    const raft = options.raft();
    if (raft === undefined || incoming >= SNAPSHOTS_INCOMING_MAX) {
      request.answer(503, "not now");
      return;
    }
    incoming++;
    try {
      const message = await readSnapshot(request.body, path, SNAPSHOT_SILENCE_MS);
      await raft.receiveSnapshot(message, path);
      request.answer(204, "");
    } catch (error) {
      log("warn", "a snapshot was not taken", { peer: from.nodeId, error });
      const { kind, message } = toErrorBody(error);
      request.answer(facesOf(kind).http, message);
    } finally {
      incoming--;
    }
  };

  const server: SecureServer = await serveSecure({
    address: options.address,
    port: options.port,
    credentials: options.credentials,
    now: options.now,
    admit,
    raw(request, peer) {
      if (!request.path.startsWith("/raft/")) return false;
      const from = admitMember(directory, peer);
      if (request.path === "/raft/messages") messages(request, from);
      else if (request.path === "/raft/snapshot") void snapshot(request, from);
      else request.answer(404, "");
      return true;
    },
    fetch(request, peer) {
      const { pathname } = new URL(request.url);
      if (isForStrangers(pathname)) return options.join(request);
      // `admit` has been there before.
      const from = admitMember(directory, peer!);
      if (directory.find(from.raftId) !== undefined) {
        return options.forwarded(request, from.nodeId);
      }
      return errorResponse(
        new TrilithError(
          "Unavailable",
          `node ${from.nodeId} is not known here yet`,
          "try again in a moment",
        ),
      );
    },
  });
  return {
    address: server.address,
    port: server.port,
    setCredentials: (credentials) => server.setCredentials(credentials),
    dropRemoved() {
      server.disconnect((peer) => {
        if (peer === null) return false;
        try {
          admitMember(directory, peer);
          return false;
        } catch {
          return true;
        }
      });
    },
    async stop() {
      await server.stop();
      rmSync(options.incomingFolder, { recursive: true, force: true });
    },
  };
}
