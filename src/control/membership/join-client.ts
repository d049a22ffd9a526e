/**
 * `trilith join`: makes a data directory's node a member of a cluster. First the authority's
 * certificate is fetched from whoever answers, and compared with the fingerprint in the token; from then
 * on only a server with a certificate of that authority is spoken to, and the secret is shown to it.
 */
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { connect } from "node:tls";
import * as v from "valibot";
import { ErrorBodySchema } from "../../engine/rpc/fields.ts";
import { fromErrorBody, TrilithError } from "../../errors.ts";
import { type SecureClient, secureClient } from "../../net/secure-client.ts";
import { writeFileWhole } from "../../ops/durable-file.ts";
import { createRequest, fingerprintOf } from "./certificates.ts";
import { checkVacant, createDataDir, type DataDir, pathsIn } from "./data-dir.ts";
import { checkNewNode, type NewNodeOptions } from "./init.ts";
import { JoinAnswer, type JoinRequest } from "./join-service.ts";
import { CONNECT_ATTEMPT_MS, JOIN_TIMEOUT_MS, PEER_PORT_DEFAULT } from "./limits.ts";
import { memberOf, parsePeerEndpoint } from "./names.ts";
import { parseToken } from "./tokens.ts";

export interface JoinOptions extends NewNodeOptions {
  /** Address of any node of the cluster, with or without port. */
  readonly contact: string;
  readonly token: string;
  readonly hostNqn: string;
  readonly version: string;
  readonly timeoutMs?: number;
}

/**
 * The authority's certificate as the server sends it along with its own, which proves nothing: whoever
 * asks compares it with what he knows.
 */
function shownAuthority(address: string, port: number, timeoutMs: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const where = `${address}:${port}`;
    const fail = (why: string) => {
      socket.destroy();
      reject(
        new TrilithError(
          "Unavailable",
          `${where}: ${why}`,
          "check the address, and that a node of the cluster runs there",
        ),
      );
    };
    // Nothing is sent over this connection but the question for the certificate.
    const socket = connect({ host: address, port, rejectUnauthorized: false });
    const timer = setTimeout(() => fail("no answer in time"), timeoutMs);
    let text = "";
    socket.on("secureConnect", () => {
      socket.write(`GET /join/authority HTTP/1.1\r\nHost: ${where}\r\nConnection: close\r\n\r\n`);
    });
    socket.on("data", (chunk) => {
      text += chunk.toString();
      if (text.length > 64 * 1024) fail("the answer is too long");
    });
    socket.on("error", (error) => fail(error.message));
    socket.on("close", () => {
      clearTimeout(timer);
      const pem = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/.exec(
        text,
      );
      if (pem === null) fail("what answers there is not a node of a cluster");
      else resolve(pem[0]);
    });
  });
}

/** The error that an answer other than 2xx carries. */
async function refusal(response: Response, where: string): Promise<TrilithError> {
  const text = await response.text();
  try {
    const body = v.safeParse(ErrorBodySchema, JSON.parse(text));
    if (body.success) return fromErrorBody(body.output);
  } catch {
    // Not JSON: something else answered.
  }
  return new TrilithError("Unavailable", `${where}: HTTP ${response.status}`);
}

/** The key that this node asks with; the same one when it asks again. */
async function joiningKey(dataDir: string): Promise<{ keyPem: string; csrPem: string }> {
  const { folder } = pathsIn(dataDir);
  const path = join(folder, "joining.json");
  if (existsSync(path)) {
    const kept = v.safeParse(
      v.object({ keyPem: v.string(), csrPem: v.string() }),
      JSON.parse(readFileSync(path, "utf8")),
    );
    if (kept.success) return kept.output;
  }
  const made = await createRequest();
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  writeFileWhole(path, JSON.stringify(made), 0o600);
  return made;
}

async function send(client: SecureClient, request: Request, where: string): Promise<Response> {
  const response = await client.fetch(request);
  if (response.ok) return response;
  throw await refusal(response, where);
}

/**
 * The authority's key, over mutual TLS with the new certificate. A node that has yet to hear of the new
 * member says so; it is asked again until the time is over.
 */
async function fetchAuthorityKey(
  client: SecureClient,
  where: string,
  deadlineMs: number,
): Promise<string> {
  for (;;) {
    try {
      const request = new Request("https://peer.invalid/membership/authority-key");
      return await (await send(client, request, where)).text();
    } catch (error) {
      const isPassing = error instanceof TrilithError && error.code === "Unavailable";
      if (!isPassing || performance.now() > deadlineMs) throw error;
      await Bun.sleep(CONNECT_ATTEMPT_MS);
    }
  }
}

/**
 * Joins; resolves with the node's data directory. Rejects with what the cluster says (`Unauthenticated`
 * for a token that is wrong, expired or used; `AlreadyExists` for a name that is taken), with
 * `PermissionDenied` when the server is not of the cluster that made the token, or `Unavailable`; the
 * directory then belongs to no node, as before.
 */
export async function joinCluster(options: JoinOptions): Promise<DataDir> {
  checkNewNode(options);
  checkVacant(options.dataDir);
  const token = parseToken(options.token);
  if (token.fingerprint === null) {
    throw new TrilithError(
      "InvalidArgument",
      "this is a token for the HTTP API, not for joining",
      "make one with `trilith token create`",
    );
  }
  const timeoutMs = options.timeoutMs ?? JOIN_TIMEOUT_MS;
  const deadlineMs = performance.now() + timeoutMs;
  const contact = parsePeerEndpoint(options.contact, PEER_PORT_DEFAULT);
  const where = options.contact;
  const caPem = await shownAuthority(contact.address, contact.port, timeoutMs);
  if ((await fingerprintOf(caPem)) !== token.fingerprint) {
    throw new TrilithError(
      "PermissionDenied",
      `${where} is not a node of the cluster that made the token`,
      "check the address, and make the token on a node of the cluster that is to be joined",
    );
  }
  const { keyPem, csrPem } = await joiningKey(options.dataDir);
  const check = memberOf;
  const stranger = secureClient({ ...contact, credentials: () => ({ caPem }), check });
  let answer: JoinAnswer;
  try {
    const { nodeId, peerEndpoint, engineEndpoint, hostNqn, version } = options;
    const said: JoinRequest = {
      token: options.token,
      ...{ nodeId, csrPem, peerEndpoint, engineEndpoint, hostNqn, version },
    };
    const request = new Request("https://peer.invalid/join", {
      method: "POST",
      body: JSON.stringify(said),
      signal: AbortSignal.timeout(timeoutMs),
    });
    const response = await send(stranger, request, where);
    answer = v.parse(JoinAnswer, await response.json());
  } finally {
    stranger.close();
  }
  const own = { certPem: answer.certPem, keyPem, caPem };
  const member = secureClient({ ...contact, credentials: () => own, check });
  try {
    const authorityKeyPem = await fetchAuthorityKey(member, where, deadlineMs);
    const { nodeId, peerEndpoint, engineEndpoint, nowMs } = options;
    const { clusterId, raftId, certPem } = answer;
    const dataDir = createDataDir(
      options.dataDir,
      {
        clusterId,
        nodeId,
        raftId,
        peerEndpoint,
        engineEndpoint,
        createdAtMs: nowMs,
        isFirst: false,
      },
      { keyPem: authorityKeyPem, certPem: caPem },
      { keyPem, certPem },
      answer.members,
    );
    writeFileWhole(join(pathsIn(options.dataDir).folder, "joining.json"), null, 0o600);
    return dataDir;
  } finally {
    member.close();
  }
}
