/** Makes a cluster of one node. */
import { randomUUID } from "node:crypto";
import { TrilithError } from "../../errors.ts";
import { createAuthority, createRequest, signNodeCertificate } from "./certificates.ts";
import { checkVacant, createDataDir, type DataDir } from "./data-dir.ts";
import { NODE_LIFE_MS_DEFAULT, PEER_PORT_DEFAULT } from "./limits.ts";
import { isNodeName, parsePeerEndpoint } from "./names.ts";

/** What a node says about itself when it becomes a member. */
export interface NewNodeOptions {
  readonly dataDir: string;
  readonly nodeId: string;
  /** `address:port` of the control process, as others reach it. */
  readonly peerEndpoint: string;
  /** `address:port` of the engine's RPC, as others reach it. */
  readonly engineEndpoint: string;
  readonly nowMs: number;
}

/** Throws `InvalidArgument` for what no node can be called or reached at. */
export function checkNewNode(options: NewNodeOptions): void {
  if (!isNodeName(options.nodeId)) {
    throw new TrilithError(
      "InvalidArgument",
      `"${options.nodeId}" cannot be the name of a node`,
      "use up to 63 letters, digits, `.`, `_` and `-`, beginning with a letter or digit",
    );
  }
  parsePeerEndpoint(options.peerEndpoint, PEER_PORT_DEFAULT);
  parsePeerEndpoint(options.engineEndpoint, PEER_PORT_DEFAULT);
}

/** The addresses of a node, without ports. */
export function addressesOf(node: {
  readonly peerEndpoint: string;
  readonly engineEndpoint: string;
}): string[] {
  const { address } = parsePeerEndpoint(node.peerEndpoint, PEER_PORT_DEFAULT);
  return [...new Set([address, parsePeerEndpoint(node.engineEndpoint, 0).address])];
}

/**
 * Makes a new cluster whose first node has its data in `dataDir`: authority, certificate, identity with
 * raft id 1. `AlreadyExists` when the directory belongs to a node already.
 */
export async function initCluster(
  options: NewNodeOptions & { readonly certificateLifeMs?: number },
): Promise<DataDir> {
  checkNewNode(options);
  checkVacant(options.dataDir);
  const { nodeId, peerEndpoint, engineEndpoint, nowMs } = options;
  const member = { clusterId: randomUUID(), nodeId, raftId: "1" };
  const authority = await createAuthority(member.clusterId, nowMs);
  const { keyPem, csrPem } = await createRequest();
  const certPem = await signNodeCertificate({
    authority,
    csrPem,
    member,
    addresses: addressesOf(options),
    nowMs,
    lifeMs: options.certificateLifeMs ?? NODE_LIFE_MS_DEFAULT,
  });
  return createDataDir(
    options.dataDir,
    { ...member, peerEndpoint, engineEndpoint, createdAtMs: nowMs, isFirst: true },
    authority,
    { keyPem, certPem },
    [{ raftId: member.raftId, nodeId, peerEndpoint }],
  );
}
