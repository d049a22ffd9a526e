/**
 * The way to the other members: raft's messages and snapshots, and requests that are forwarded. To
 * each member there are up to two connections, made when they are needed: one for raft's messages, so
 * that nothing large stands before them, and one for everything else.
 */
import type { ClientHttp2Stream } from "node:http2";
import type { Writable } from "node:stream";
import * as v from "valibot";
import { ErrorBodySchema } from "../../engine/rpc/fields.ts";
import { fromErrorBody, TrilithError } from "../../errors.ts";
import type { Credentials } from "../../net/peer-certificate.ts";
import { type SecureClient, secureClient } from "../../net/secure-client.ts";
import type { Log } from "../../ops/log.ts";
import type { RaftTransport } from "../raft/raft.ts";
import { joinFrames } from "./frames.ts";
import {
  PEER_PORT_DEFAULT,
  QUEUED_BYTES_MAX,
  QUEUED_MESSAGES_MAX,
  RETRY_MS_MAX,
  RETRY_MS_MIN,
} from "./limits.ts";
import type { MemberDirectory } from "./members.ts";
import { memberOf, parsePeerEndpoint } from "./names.ts";
import { writeSnapshot } from "./snapshot-stream.ts";

/** So much of a refusal is read. */
const ANSWER_CHARS_MAX = 4096;

export interface PeerTransportOptions {
  readonly directory: MemberDirectory;
  /** Asked at each new connection. */
  readonly credentials: () => Credentials;
  readonly log: Log;
  /** Milliseconds by a clock that does not jump. */
  readonly monotonicMs: () => number;
  /** A member says that this node was removed from the cluster. May be called more than once. */
  readonly onRemoved?: (message: string) => void;
}

/** How the way to one member fares. */
export interface PeerLinkStatus {
  readonly raftId: string;
  readonly isConnected: boolean;
  readonly sentMessages: number;
  /** Messages that were thrown away because the member could not take them. */
  readonly droppedMessages: number;
  /** When the certificate that the member has shown last ends; null before it has shown one. */
  readonly certificateEndsMs: number | null;
}

export interface PeerTransport extends RaftTransport {
  /** Sends a request to a member. `Unavailable` when it cannot be reached. */
  forward(raftId: string, request: Request): Promise<Response>;
  /** The certificate was replaced: connections are made anew, without losing what is under way. */
  credentialsChanged(): void;
  /** Ends connections to members that were removed or have another address now. */
  directoryChanged(): void;
  status(): readonly PeerLinkStatus[];
  stop(): void;
}

interface Link {
  readonly endpoint: string;
  readonly raft: SecureClient;
  readonly bulk: SecureClient;
  /** What the member has shown last; null before. */
  certificateEndsMs: number | null;
}

/** The connections to one member, as long as its address stays. */
function openLink(options: PeerTransportOptions, raftId: string): Link {
  const found = options.directory.find(raftId);
  if (found === undefined || options.directory.isRemoved(raftId)) {
    throw new TrilithError("Unavailable", `raft member ${raftId} has no known address`);
  }
  const { nodeId, peerEndpoint } = found;
  const client = () =>
    secureClient({
      ...parsePeerEndpoint(peerEndpoint, PEER_PORT_DEFAULT),
      credentials: options.credentials,
      check(certificate) {
        const member = memberOf(certificate);
        if (member.clusterId === options.directory.clusterId && member.raftId === raftId) {
          link.certificateEndsMs = certificate.validToMs;
          return;
        }
        throw new TrilithError(
          "PermissionDenied",
          `${peerEndpoint} should be node ${nodeId} (raft id ${raftId}), but is node ` +
            `${member.nodeId} (raft id ${member.raftId}) of cluster ${member.clusterId}`,
        );
      },
    });
  const link: Link = {
    endpoint: peerEndpoint,
    raft: client(),
    bulk: client(),
    certificateEndsMs: null,
  };
  return link;
}

/** Raft's messages to one member: a queue, and the stream that empties it. */
class MessagePipe {
  readonly #options: PeerTransportOptions;
  readonly #raftId: string;
  readonly #client: () => SecureClient;
  #queue: Uint8Array[] = [];
  #queuedBytes = 0;
  #stream: ClientHttp2Stream | undefined;
  #isOpening = false;
  #isFlushing = false;
  #isStopped = false;
  #retryMs = RETRY_MS_MIN;
  #notBeforeMs = 0;
  #isReported = false;
  sent = 0;
  dropped = 0;

  constructor(options: PeerTransportOptions, raftId: string, client: () => SecureClient) {
    this.#options = options;
    this.#raftId = raftId;
    this.#client = client;
  }

  get isConnected(): boolean {
    return this.#stream !== undefined;
  }

  push(message: Uint8Array): void {
    if (this.#isStopped) return;
    if (
      this.#queue.length >= QUEUED_MESSAGES_MAX ||
      this.#queuedBytes + message.length > QUEUED_BYTES_MAX
    ) {
      this.dropped++;
      return;
    }
    this.#queue.push(message);
    this.#queuedBytes += message.length;
    if (this.#stream === undefined) this.#open();
    else if (!this.#isFlushing) {
      // What raft sends in one turn goes out as one piece.
      this.#isFlushing = true;
      queueMicrotask(() => this.flush());
    }
  }

  /** Sends what is queued. */
  flush(): void {
    this.#isFlushing = false;
    const stream = this.#stream;
    if (stream === undefined || stream.writableNeedDrain || this.#queue.length === 0) return;
    const messages = this.#queue;
    this.#queue = [];
    this.#queuedBytes = 0;
    this.sent += messages.length;
    stream.write(joinFrames(messages));
  }

  #open(): void {
    if (this.#isOpening || this.#options.monotonicMs() < this.#notBeforeMs) {
      // Old messages say nothing new to a member that was away; raft repeats what matters.
      if (!this.#isOpening) this.#dropAll();
      return;
    }
    this.#isOpening = true;
    const opening = async () => {
      const stream = await this.#client().open("/raft/messages", {
        "content-type": "application/octet-stream",
      });
      if (this.#isStopped) {
        stream.destroy();
        return;
      }
      this.#adopt(stream);
    };
    opening()
      .catch((error: unknown) => this.#failed(error))
      .finally(() => {
        this.#isOpening = false;
      });
  }

  #adopt(stream: ClientHttp2Stream): void {
    this.#stream = stream;
    const openedMs = this.#options.monotonicMs();
    let refusal: unknown;
    let answer = "";
    stream.on("response", (fields) => {
      // It answers only when it does not want more.
      refusal = new TrilithError("Unavailable", `HTTP ${fields[":status"]}`);
      stream.end();
    });
    stream.on("data", (chunk: Uint8Array) => {
      if (answer.length < ANSWER_CHARS_MAX) answer += Buffer.from(chunk).toString();
    });
    stream.on("error", (error) => {
      refusal ??= error;
    });
    stream.on("drain", () => this.flush());
    stream.on("close", () => {
      if (this.#stream !== stream) return;
      this.#stream = undefined;
      if (answer !== "") refusal = this.#refusalIn(answer);
      // One that takes the stream and ends it at once is no better than one that is away.
      if (this.#options.monotonicMs() - openedMs > RETRY_MS_MAX) this.#retryMs = RETRY_MS_MIN;
      this.#failed(refusal ?? new Error("the connection ended"));
    });
    this.flush();
    if (this.#isReported) {
      this.#options.log("info", "peer is reachable again", { raftId: this.#raftId });
    }
    this.#isReported = false;
  }

  /** The error that an answer carries. The server is of this cluster: what it says of removal counts. */
  #refusalIn(answer: string): Error {
    try {
      const body = v.parse(ErrorBodySchema, JSON.parse(answer));
      if (body.kind === "Unauthorized") this.#options.onRemoved?.(body.message);
      return fromErrorBody(body);
    } catch {
      return new TrilithError("Unavailable", answer.slice(0, ANSWER_CHARS_MAX));
    }
  }

  #failed(error: unknown): void {
    this.#dropAll();
    if (this.#isStopped) return;
    this.#notBeforeMs = this.#options.monotonicMs() + this.#retryMs;
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MS_MAX);
    if (this.#isReported) return;
    this.#isReported = true;
    const text = error instanceof Error ? error.message : String(error);
    this.#options.log("warn", "peer cannot be reached", { raftId: this.#raftId, error: text });
  }

  #dropAll(): void {
    this.dropped += this.#queue.length;
    this.#queue = [];
    this.#queuedBytes = 0;
  }

  /** The next message opens a new stream. What was written before still arrives. */
  restart(): void {
    const stream = this.#stream;
    this.#stream = undefined;
    this.#notBeforeMs = 0;
    this.#retryMs = RETRY_MS_MIN;
    stream?.end();
  }

  stop(): void {
    this.#isStopped = true;
    this.#dropAll();
    const stream = this.#stream;
    this.#stream = undefined;
    stream?.destroy();
  }
}

/** Carries raft's messages and forwarded requests to the other members. */
export function peerTransport(options: PeerTransportOptions): PeerTransport {
  const links = new Map<string, Link>();
  const pipes = new Map<string, MessagePipe>();

  const closeLink = (raftId: string): void => {
    const link = links.get(raftId);
    links.delete(raftId);
    link?.raft.close();
    link?.bulk.close();
  };
  const linkTo = (raftId: string): Link => {
    let link = links.get(raftId);
    if (link === undefined) {
      link = openLink(options, raftId);
      links.set(raftId, link);
    }
    return link;
  };
  const pipeTo = (raftId: string): MessagePipe => {
    let pipe = pipes.get(raftId);
    if (pipe === undefined) {
      pipe = new MessagePipe(options, raftId, () => linkTo(raftId).raft);
      pipes.set(raftId, pipe);
    }
    return pipe;
  };

  return {
    send: (toRaftId, bytes) => pipeTo(toRaftId).push(bytes),
    flush() {
      for (const pipe of pipes.values()) pipe.flush();
    },
    async sendSnapshot(toRaftId, message, path) {
      const stream = await linkTo(toRaftId).bulk.open("/raft/snapshot", {
        "content-type": "application/octet-stream",
      });
      await sendWhole(stream, message, path);
    },
    forward: (raftId, request) => linkTo(raftId).bulk.fetch(request),
    credentialsChanged() {
      for (const [raftId, link] of links) {
        pipes.get(raftId)?.restart();
        link.raft.renew();
        link.bulk.renew();
      }
    },
    directoryChanged() {
      for (const [raftId, link] of [...links]) {
        const found = options.directory.find(raftId);
        if (found?.peerEndpoint === link.endpoint && !options.directory.isRemoved(raftId)) continue;
        closeLink(raftId);
        if (found === undefined || options.directory.isRemoved(raftId)) {
          pipes.get(raftId)?.stop();
          pipes.delete(raftId);
        }
      }
    },
    status: () =>
      [...pipes].map(([raftId, pipe]) => ({
        raftId,
        isConnected: pipe.isConnected,
        sentMessages: pipe.sent,
        droppedMessages: pipe.dropped,
        certificateEndsMs: links.get(raftId)?.certificateEndsMs ?? null,
      })),
    stop() {
      for (const pipe of pipes.values()) pipe.stop();
      pipes.clear();
      for (const raftId of [...links.keys()]) closeLink(raftId);
    },
  };
}

/** Sends a snapshot on its stream; resolves when the member has said that it has it. */
async function sendWhole(
  stream: ClientHttp2Stream,
  message: Uint8Array,
  path: string,
): Promise<void> {
  let text = "";
  const answered = new Promise<number>((resolve, reject) => {
    let status: number | undefined;
    stream.on("response", (fields) => {
      status = Number(fields[":status"]);
    });
    stream.on("data", (chunk: Uint8Array) => {
      text += Buffer.from(chunk).toString();
    });
    stream.on("error", reject);
    stream.on("close", () => {
      if (status === undefined) reject(new Error("the connection ended"));
      else resolve(status);
    });
  });
  const written = writeSnapshot(stream as unknown as Writable, message, path).then(
    () => {
      stream.end();
    },
    (error: unknown) => {
      stream.destroy();
      throw error;
    },
  );
  // An answer may come before all is written: then it is a refusal, and the rest is not sent.
  const outcome = await Promise.allSettled([answered, written]);
  const [answer, sending] = outcome;
  if (answer.status === "fulfilled" && answer.value === 204 && sending.status === "fulfilled")
    return;
  const reason =
    answer.status === "fulfilled"
      ? `HTTP ${answer.value} ${text.slice(0, 200)}`
      : String(answer.reason);
  throw new TrilithError("Unavailable", `the snapshot was not taken: ${reason}`);
}
