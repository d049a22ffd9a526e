/** The port for other nodes over real sockets: who is let in, messages, snapshots, requests. */
import { afterEach, beforeAll, describe, expect, test } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { DataDir } from "../../../../src/control/membership/data-dir.ts";
import { renewCertificate } from "../../../../src/control/membership/renewal.ts";
import { secureClient } from "../../../../src/net/secure-client.ts";
import {
  credentialsFor,
  directoryOf,
  furtherNode,
  keptLog,
  newCluster,
  testPeers,
  until,
} from "../../../support/membership.ts";
import { tempFolders } from "../../../support/temp-folder.ts";

const folder = tempFolders();
const peers = testPeers(folder);
afterEach(() => peers.stop());

let lasting: string;
let cluster: DataDir;
let other: DataDir;
beforeAll(async () => {
  lasting = mkdtempSync(join(tmpdir(), "trilith-test-"));
  cluster = await newCluster(lasting);
  other = await newCluster(lasting, "stranger");
  process.on("exit", () => rmSync(lasting, { recursive: true, force: true }));
});

/** Node n1 serves; node n2 (raft id 2) is to call it. */
async function pair(
  raft: {
    receive?: (bytes: Uint8Array) => void;
    snapshot?: (message: Uint8Array, path: string) => Promise<void>;
  } = {},
) {
  const directory = directoryOf(cluster.identity.clusterId);
  const { log, lines } = keptLog();
  const incoming = folder();
  const server = await peers.serve({
    credentials: cluster.credentials(),
    directory,
    log,
    incomingFolder: incoming,
    raft: () => ({
      receive: (bytes) => raft.receive?.(bytes),
      receiveSnapshot: async (message, path) => raft.snapshot?.(message, path),
    }),
    forwarded: async (request, peer) => {
      const { pathname, search } = new URL(request.url);
      const body = await request.text();
      return Response.json(
        {
          peer,
          method: request.method,
          path: pathname + search,
          body,
          accept: request.headers.get("accept"),
        },
        { status: 201, headers: { "x-answer": "yes" } },
      );
    },
  });
  const endpoint = `127.0.0.1:${server.port}`;
  directory.members.set("1", { nodeId: "n1", peerEndpoint: endpoint });
  directory.members.set("2", { nodeId: "n2", peerEndpoint: "127.0.0.1:1" });
  return { directory, server, endpoint, lines, incoming };
}

async function ask(
  port: number,
  credentials: Parameters<typeof secureClient>[0]["credentials"],
  path = "/v0/nodes",
) {
  const client = secureClient({ address: "127.0.0.1", port, credentials, check: () => {} });
  try {
    const response = await client.fetch(new Request(`https://x${path}`));
    const text = await response.text();
    return { status: response.status, text };
  } finally {
    client.close();
  }
}

function kindOf(text: string): string {
  return (JSON.parse(text) as { kind: string }).kind;
}

describe("who is let in", () => {
  test("a member with its certificate", async () => {
    const { server } = await pair();
    const own = await credentialsFor(cluster, "n2", "2");
    expect((await ask(server.port, () => own)).status).toBe(201);
  });

  test("nobody without a certificate, but for joining", async () => {
    const { server } = await pair();
    const { caPem } = cluster.credentials();
    const refused = await ask(server.port, () => ({ caPem }));
    expect([refused.status, kindOf(refused.text)]).toEqual([401, "Unauthenticated"]);
    const raft = await ask(server.port, () => ({ caPem }), "/raft/messages");
    expect(raft.status).toBe(401);
    const joins = await ask(server.port, () => ({ caPem }), "/join");
    expect([joins.status, joins.text]).toEqual([200, "joined"]);
  });

  test("nobody with a certificate of another authority, whatever it says", async () => {
    const { server } = await pair();
    const { clusterId } = cluster.identity;
    const { keyPem, certPem } = await credentialsFor(other, "n2", "2", { clusterId });
    const forged = { keyPem, certPem, caPem: cluster.credentials().caPem };
    const refused = await ask(server.port, () => forged);
    expect([refused.status, kindOf(refused.text)]).toEqual([401, "Unauthenticated"]);
  });

  test("nobody with a certificate for another cluster, or for no node", async () => {
    const { server } = await pair();
    const clusterId = "00000000-0000-4000-8000-000000000000";
    const own = await credentialsFor(cluster, "n2", "2", { clusterId });
    const refused = await ask(server.port, () => own);
    expect([refused.status, kindOf(refused.text)]).toEqual([401, "PermissionDenied"]);
  });

  test("nobody with the raft id of another node", async () => {
    const { server } = await pair();
    const own = await credentialsFor(cluster, "n3", "2");
    expect(kindOf((await ask(server.port, () => own)).text)).toBe("PermissionDenied");
  });

  test("nobody whose certificate has run out", async () => {
    const { server } = await pair();
    const nowMs = Date.now() - 100_000;
    const own = await credentialsFor(cluster, "n2", "2", { nowMs, lifeMs: 50_000 });
    const refused = await ask(server.port, () => own);
    expect(refused.status).toBe(401);
  });

  test("no removed member; its connections end", async () => {
    const received: Uint8Array[] = [];
    const { server, directory } = await pair({ receive: (bytes) => received.push(bytes) });
    const own = await credentialsFor(cluster, "n2", "2");
    const told: string[] = [];
    const transport = peers.transport({
      directory: { ...directory, isRemoved: () => false },
      credentials: () => own,
      onRemoved: (message) => told.push(message),
    });
    transport.send("1", new Uint8Array([1]));
    await until("the message came", () => received.length === 1);
    directory.removed.add("2");
    server.dropRemoved();
    await until("the connection ended", () => !transport.status()[0]!.isConnected);
    await until("it was told", () => {
      transport.send("1", new Uint8Array([2]));
      return told.length > 0;
    });
    expect(told[0]).toContain("n2 (raft id 2) was removed");
    expect(received.length).toBe(1);
    expect(kindOf((await ask(server.port, () => own)).text)).toBe("Unauthorized");
  });

  test("a member that is not known here yet: raft's messages, nothing else", async () => {
    const received: Uint8Array[] = [];
    const { server, directory } = await pair({ receive: (bytes) => received.push(bytes) });
    const own = await credentialsFor(cluster, "n7", "7");
    const transport = peers.transport({ directory, credentials: () => own });
    transport.send("1", new Uint8Array([7]));
    await until("the message came", () => received.length === 1);
    expect((await ask(server.port, () => own)).status).toBe(503);
  });

  test("a server that is not the member meant is not spoken to", async () => {
    const received: Uint8Array[] = [];
    const { directory, endpoint } = await pair({ receive: (bytes) => received.push(bytes) });
    directory.members.set("5", { nodeId: "n5", peerEndpoint: endpoint });
    const own = await credentialsFor(cluster, "n2", "2");
    const { log, lines } = keptLog();
    const transport = peers.transport({ directory, credentials: () => own, log });
    const asked = transport.forward("5", new Request("https://x/secret"));
    await expect(asked).rejects.toMatchObject({ code: "PermissionDenied" });
    transport.send("5", new Uint8Array([1]));
    await until("it was noticed", () => lines.some((line) => line.includes("should be node n5")));
    expect(received.length).toBe(0);
  });

  test("a server of another authority is not spoken to", async () => {
    const directory = directoryOf(cluster.identity.clusterId);
    let asked = 0;
    const impostor = await peers.serve({
      credentials: other.credentials(),
      directory,
      forwarded: () => {
        asked++;
        return new Response("secret please");
      },
    });
    directory.members.set("1", { nodeId: "n1", peerEndpoint: `127.0.0.1:${impostor.port}` });
    const own = await credentialsFor(cluster, "n2", "2");
    const transport = peers.transport({ directory, credentials: () => own });
    const answer = transport.forward("1", new Request("https://x/"));
    await expect(answer).rejects.toMatchObject({ code: "Unavailable" });
    expect(asked).toBe(0);
  });
});

describe("raft's messages", () => {
  test("arrive whole and in order, small ones and large ones", async () => {
    const received: Uint8Array[] = [];
    const { directory } = await pair({ receive: (bytes) => received.push(bytes) });
    const own = await credentialsFor(cluster, "n2", "2");
    const transport = peers.transport({ directory, credentials: () => own });
    const sent = Array.from({ length: 500 }, (_, i) => {
      const bytes = new Uint8Array(i % 50 === 0 ? 300_000 : i % 97).fill(i);
      return bytes;
    });
    for (const [i, bytes] of sent.entries()) {
      transport.send("1", bytes);
      if (i % 100 === 99) await until("so many came", () => received.length === i + 1);
    }
    expect(received.map((b) => createHash("md5").update(b).digest("hex"))).toEqual(
      sent.map((b) => createHash("md5").update(b).digest("hex")),
    );
  });

  test("are dropped, not kept, while the member is away; it is reached again when it is back", async () => {
    const received: Uint8Array[] = [];
    const { directory, server } = await pair({ receive: (bytes) => received.push(bytes) });
    const own = await credentialsFor(cluster, "n2", "2");
    const { log, lines } = keptLog();
    const transport = peers.transport({ directory, credentials: () => own, log });
    transport.send("1", new Uint8Array([1]));
    await until("the message came", () => received.length === 1);
    await server.stop();
    await until("the connection ended", () => !transport.status()[0]!.isConnected);
    for (let i = 0; i < 100_000; i++) transport.send("1", new Uint8Array(1000));
    expect(transport.status()[0]!.droppedMessages).toBeGreaterThan(90_000);
    await peers.serve({
      credentials: cluster.credentials(),
      directory,
      port: server.port,
      raft: () => ({ receive: (b) => received.push(b), receiveSnapshot: async () => {} }),
    });
    await until("it is reached again", () => {
      transport.send("1", new Uint8Array([2]));
      return received.length > 1;
    });
    expect(lines.some((line) => line.includes("peer is reachable again"))).toBe(true);
  });

  test("nothing unbounded is kept for a member that does not read", async () => {
    // A server that takes connections and never answers: the stream is never open.
    const deaf = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const directory = directoryOf(cluster.identity.clusterId);
    directory.members.set("1", { nodeId: "n1", peerEndpoint: `127.0.0.1:${deaf.port}` });
    const own = await credentialsFor(cluster, "n2", "2");
    const transport = peers.transport({ directory, credentials: () => own });
    for (let i = 0; i < 10_000; i++) transport.send("1", new Uint8Array(10));
    expect(transport.status()[0]!.droppedMessages).toBe(10_000 - 4096);
    deaf.stop(true);
  });
});

describe("snapshots", () => {
  const digest = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

  test("of 50 MB arrive whole, while messages go on", async () => {
    let taken: { message: Uint8Array; sum: string } | undefined;
    let messages = 0;
    const { directory } = await pair({
      receive: () => {
        messages++;
      },
      snapshot: async (message, path) => {
        taken = { message, sum: digest(readFileSync(path)) };
        rmSync(path);
      },
    });
    const own = await credentialsFor(cluster, "n2", "2");
    const transport = peers.transport({ directory, credentials: () => own });
    const bytes = randomBytes(50 << 20);
    const path = join(folder(), "snapshot");
    writeFileSync(path, bytes);
    const sending = transport.sendSnapshot("1", new Uint8Array([9, 9]), path);
    const beat = setInterval(() => transport.send("1", new Uint8Array(8)), 1);
    await sending;
    clearInterval(beat);
    expect(taken).toEqual({ message: new Uint8Array([9, 9]), sum: digest(bytes) });
    expect(messages).toBeGreaterThan(0);
  });

  test("with one byte changed, cut short or too long are not taken, and leave nothing behind", async () => {
    let taken = 0;
    const { server, incoming } = await pair({
      snapshot: async () => {
        taken++;
      },
    });
    const own = await credentialsFor(cluster, "n2", "2");
    const client = secureClient({
      address: "127.0.0.1",
      port: server.port,
      credentials: () => own,
      check: () => {},
    });
    const file = randomBytes(50 << 20);
    const whole = Buffer.alloc(12 + 3 + file.length + 32);
    whole.writeUInt32LE(3, 0);
    whole.writeBigUInt64LE(BigInt(file.length), 4);
    whole.set([1, 2, 3], 12);
    whole.set(file, 15);
    whole.set(createHash("sha256").update(whole.subarray(0, -32)).digest(), whole.length - 32);
    const send = async (bytes: Uint8Array) => {
      const request = new Request("https://x/raft/snapshot", { method: "POST", body: bytes });
      const response = await client.fetch(request);
      return `${response.status} ${await response.text()}`;
    };
    const flipped = Buffer.from(whole);
    flipped[30 << 20]! ^= 0x10;
    expect(await send(flipped)).toBe("500 the snapshot's checksum is wrong");
    expect(await send(whole.subarray(0, 40 << 20))).toBe("500 the snapshot is cut short");
    expect(await send(Buffer.concat([whole, Buffer.from([0])]))).toBe(
      "500 the snapshot is longer than it says",
    );
    expect(readdirSync(incoming)).toEqual([]);
    expect(taken).toBe(0);
    expect(await send(whole)).toBe("204 ");
    expect(taken).toBe(1);
    client.close();
  });

  test("are refused with the reason when the member cannot take them", async () => {
    const { directory } = await pair({
      snapshot: async () => {
        throw new Error("disk full");
      },
    });
    const own = await credentialsFor(cluster, "n2", "2");
    const transport = peers.transport({ directory, credentials: () => own });
    const path = join(folder(), "snapshot");
    writeFileSync(path, "x");
    const sending = transport.sendSnapshot("1", new Uint8Array(), path);
    await expect(sending).rejects.toMatchObject({ code: "Unavailable" });
    await expect(sending).rejects.toThrow("disk full");
  });
});

describe("forwarded requests", () => {
  test("arrive with method, path, body and the caller's name; answers with status and fields", async () => {
    const { directory } = await pair();
    const own = await credentialsFor(cluster, "n2", "2");
    const transport = peers.transport({ directory, credentials: () => own });
    const response = await transport.forward(
      "1",
      new Request("http://localhost:8081/v0/volumes?max_entries=3", {
        method: "PUT",
        body: "x".repeat(1 << 20),
        headers: { accept: "application/json", connection: "keep-alive" },
      }),
    );
    expect([response.status, response.headers.get("x-answer")]).toEqual([201, "yes"]);
    const seen = (await response.json()) as Record<string, string>;
    expect<unknown>({ ...seen, body: seen.body!.length }).toEqual({
      peer: "n2",
      method: "PUT",
      path: "/v0/volumes?max_entries=3",
      body: 1 << 20,
      accept: "application/json",
    });
  });

  test("event streams come piece by piece, and end at the server when the caller goes", async () => {
    const directory = directoryOf(cluster.identity.clusterId);
    let emit: (text: string) => void = () => {};
    let isCancelled = false;
    let isAborted = false;
    const server = await peers.serve({
      credentials: cluster.credentials(),
      directory,
      forwarded: (request) => {
        request.signal.addEventListener("abort", () => {
          isAborted = true;
        });
        const body = new ReadableStream<Uint8Array>({
          start(controller) {
            emit = (text) => controller.enqueue(new TextEncoder().encode(text));
          },
          cancel() {
            isCancelled = true;
          },
        });
        return new Response(body, { headers: { "content-type": "text/event-stream" } });
      },
    });
    directory.members.set("1", { nodeId: "n1", peerEndpoint: `127.0.0.1:${server.port}` });
    directory.members.set("2", { nodeId: "n2", peerEndpoint: "127.0.0.1:1" });
    const own = await credentialsFor(cluster, "n2", "2");
    const transport = peers.transport({ directory, credentials: () => own });
    const gone = new AbortController();
    const response = await transport.forward(
      "1",
      new Request("https://x/v0/events", { signal: gone.signal }),
    );
    const reader = response.body!.getReader();
    for (const text of ["data: 1\n\n", "data: 2\n\n"]) {
      emit(text);
      const { value } = await reader.read();
      expect(new TextDecoder().decode(value)).toBe(text);
    }
    gone.abort();
    await expect(reader.read()).rejects.toMatchObject({ code: "Aborted" });
    await until("the server noticed", () => isCancelled && isAborted);
  });

  test("a server that goes in the middle of an answer is noticed", async () => {
    const directory = directoryOf(cluster.identity.clusterId);
    const server = await peers.serve({
      credentials: cluster.credentials(),
      directory,
      forwarded: () =>
        new Response(
          new ReadableStream<Uint8Array>({
            start(controller) {
              controller.enqueue(new Uint8Array([1]));
            },
          }),
        ),
    });
    directory.members.set("1", { nodeId: "n1", peerEndpoint: `127.0.0.1:${server.port}` });
    directory.members.set("2", { nodeId: "n2", peerEndpoint: "127.0.0.1:1" });
    const own = await credentialsFor(cluster, "n2", "2");
    const transport = peers.transport({ directory, credentials: () => own });
    const response = await transport.forward("1", new Request("https://x/"));
    const reader = response.body!.getReader();
    await reader.read();
    const outcome = reader.read().then(
      () => "it ended as if complete",
      (error: unknown) => error,
    );
    await server.stop();
    expect(await outcome).toMatchObject({ code: "Unavailable" });
  });

  test("a time limit is kept, and a member that is not there is unavailable", async () => {
    const { directory, server } = await pair();
    const own = await credentialsFor(cluster, "n2", "2");
    const transport = peers.transport({ directory, credentials: () => own });
    await server.stop();
    const answer = transport.forward("1", new Request("https://x/"));
    await expect(answer).rejects.toMatchObject({ code: "Unavailable" });
    const silent = await peers.serve({
      credentials: cluster.credentials(),
      directory,
      forwarded: () => new Promise<Response>(() => {}),
    });
    directory.members.set("1", { nodeId: "n1", peerEndpoint: `127.0.0.1:${silent.port}` });
    transport.directoryChanged();
    const signal = AbortSignal.timeout(50);
    const late = transport.forward("1", new Request("https://x/", { signal }));
    await expect(late).rejects.toMatchObject({ code: "Timeout" });
  });
});

test("a server stops though connections are half made and peers keep coming back", async () => {
  const { directory, server } = await pair();
  const own = await credentialsFor(cluster, "n2", "2");
  // Never says a word.
  const silent = await Bun.connect({
    hostname: "127.0.0.1",
    port: server.port,
    socket: { data() {}, error() {} },
  });
  const transport = peers.transport({ directory, credentials: () => own });
  await transport.forward("1", new Request("https://x/"));
  const beat = setInterval(() => transport.send("1", new Uint8Array(1)), 1);
  await until("it is connected", () => transport.status()[0]?.isConnected === true);
  await server.stop();
  clearInterval(beat);
  const answer = await transport.forward("1", new Request("https://x/")).catch((error) => error);
  expect(answer).toMatchObject({ code: "Unavailable" });
  silent.end();
});

test("certificates are renewed while messages and an event stream go on", async () => {
  const base = folder();
  const DAY_MS = 24 * 3600_000;
  const n2 = await furtherNode(cluster, base, "n2", "2", Date.now() - 61 * DAY_MS);
  const received: number[] = [];
  const { directory, server } = await pair({ receive: (bytes) => received.push(bytes[0]!) });
  const transport = peers.transport({ directory, credentials: () => n2.credentials() });
  const before = n2.credentials().certPem;
  transport.send("1", new Uint8Array([1]));
  await until("the first came", () => received.length === 1);
  const log = keptLog().log;
  const options = {
    dataDir: n2,
    log,
    now: Date.now,
    onRenewed: () => transport.credentialsChanged(),
  };
  const twoDaysAgo = Date.now() - 2 * DAY_MS;
  expect(await renewCertificate({ ...options, now: () => twoDaysAgo })).toBe(false);
  expect(n2.credentials().certPem).toBe(before);
  expect(await renewCertificate(options)).toBe(true);
  expect(n2.credentials().certPem).not.toBe(before);
  // The server's too.
  server.setCredentials(await credentialsFor(cluster, "n1", "1"));
  for (let i = 2; i <= 20; i++) {
    transport.send("1", new Uint8Array([i]));
    await until(`message ${i} came`, () => received.length === i);
  }
  expect(received).toEqual(Array.from({ length: 20 }, (_, i) => i + 1));
  const response = await transport.forward("1", new Request("https://x/v0"));
  expect(response.status).toBe(201);
});
