/**
 * The engine's RPC over mutual TLS, for control processes of other nodes. Whoever shows a certificate that
 * the cluster's authority has made for a node is let in, with everything that the RPC can do; strangers
 * are refused.
 */
import { readFileSync } from "node:fs";
import { TrilithError } from "../../errors.ts";
import { endpointText } from "../../names.ts";
import type { Credentials } from "../../net/peer-certificate.ts";
import { serveSecure } from "../../net/secure-server.ts";
import type { EngineSettings } from "../settings.ts";

/** How the names of nodes begin in certificates. */
const NODE_URI = "trilith://";

type TlsFiles = Omit<NonNullable<EngineSettings["rpcTls"]>, "listen">;

export interface TlsRpc {
  readonly address: string;
  readonly port: number;
  readonly url: string;
  /** Reads the certificate files again. */
  reload(): void;
  stop(): Promise<void>;
}

function read({ certFile, keyFile, caFile }: TlsFiles): Credentials {
  const text = (path: string) => readFileSync(path, "utf8");
  return { certPem: text(certFile), keyPem: text(keyFile), caPem: text(caFile) };
}

/** Serves `fetch`. `InUse` when the address is taken. */
export async function serveRpcTls(
  at: { readonly address: string; readonly port: number },
  files: TlsFiles,
  fetch: (request: Request) => Response | Promise<Response>,
): Promise<TlsRpc> {
  const server = await serveSecure({
    ...at,
    credentials: read(files),
    now: Date.now,
    admit(peer) {
      if (peer?.uris.some((uri) => uri.startsWith(NODE_URI)) === true) return;
      throw new TrilithError(
        "Unauthenticated",
        "the engine is told what to do by nodes of its cluster only",
        "show the certificate of a node",
      );
    },
    fetch,
  });
  return {
    address: server.address,
    port: server.port,
    url: `https://${endpointText(server.address, server.port)}`,
    reload: () => server.setCredentials(read(files)),
    stop: () => server.stop(),
  };
}
