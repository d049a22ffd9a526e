/** Clients of engines: over mutual TLS on other nodes, plain on this machine's loopback. */
import { type EngineClient, engineClient } from "../../engine/rpc/client.ts";
import { TrilithError } from "../../errors.ts";
import type { Credentials } from "../../net/peer-certificate.ts";
import { secureClient } from "../../net/secure-client.ts";
import { ENGINE_PORT_DEFAULT } from "./limits.ts";
import { memberOf, parsePeerEndpoint } from "./names.ts";

export interface EngineLink {
  readonly client: EngineClient;
  /** The certificate was replaced: the next request makes a new connection. */
  credentialsChanged(): void;
  close(): void;
}

export interface EngineLinkOptions {
  /** `address:port`, or a URL that begins with `http://` for an engine of this machine. */
  readonly endpoint: string;
  readonly clusterId: string;
  /** Node that the engine belongs to: the one whose certificate it shows. */
  readonly nodeId: string;
  readonly credentials: () => Credentials;
  readonly timeoutMs?: number;
}

/** A client of an engine. Nothing happens before the first call. */
export function openEngine(options: EngineLinkOptions): EngineLink {
  const { endpoint, clusterId, nodeId } = options;
  const timeout = options.timeoutMs === undefined ? {} : { timeoutMs: options.timeoutMs };
  if (endpoint.startsWith("http://")) {
    const client = engineClient(endpoint, timeout);
    return { client, credentialsChanged() {}, close() {} };
  }
  const link = secureClient({
    ...parsePeerEndpoint(endpoint, ENGINE_PORT_DEFAULT),
    credentials: options.credentials,
    check(certificate) {
      const member = memberOf(certificate);
      if (member.clusterId === clusterId && member.nodeId === nodeId) return;
      throw new TrilithError(
        "PermissionDenied",
        `the engine at ${endpoint} should be of node ${nodeId}, but is of ${member.nodeId} ` +
          `(cluster ${member.clusterId})`,
      );
    },
  });
  const client = engineClient(`https://${endpoint}`, {
    ...timeout,
    send: (url, init) => link.fetch(new Request(url, init)),
  });
  return { client, credentialsChanged: () => link.renew(), close: () => link.close() };
}
