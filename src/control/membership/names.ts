/**
 * Names of members in certificates. A node's certificate says which cluster, node and raft member it
 * is for in one name of kind URI:
 *
 *   trilith://<cluster id>/<node name>/<raft id>
 *
 * The raft id is given out once. So the certificate of a node that was removed does not become valid
 * again when another node takes its name.
 */
import { TrilithError } from "../../errors.ts";
import type { PeerCertificate } from "../../net/peer-certificate.ts";

/** One member of a cluster. */
export interface MemberName {
  readonly clusterId: string;
  readonly nodeId: string;
  /** Decimal. */
  readonly raftId: string;
}

const nodeName = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;
const memberUri = new RegExp(
  `^trilith://([0-9a-f-]{36})/(${nodeName.source.slice(1, -1)})/([1-9][0-9]{0,18})$`,
);

/** True for what may be the name of a node. */
export function isNodeName(text: string): boolean {
  return nodeName.test(text);
}

export function uriOf({ clusterId, nodeId, raftId }: MemberName): string {
  return `trilith://${clusterId}/${nodeId}/${raftId}`;
}

/** The member that a certificate is for. `PermissionDenied` when it is for none, or not for exactly one. */
export function memberOf(certificate: PeerCertificate): MemberName {
  const matches = certificate.uris.map((uri) => memberUri.exec(uri)).filter((m) => m !== null);
  const [match] = matches;
  if (match === undefined || matches.length !== 1) {
    throw new TrilithError(
      "PermissionDenied",
      "the certificate does not name a node of a cluster",
      "certificates are made by `trilith init` and `trilith join`",
    );
  }
  return { clusterId: match[1]!, nodeId: match[2]!, raftId: match[3]! };
}

/** `10.0.0.1:10126`, `[::1]:10126`, `host:10126`, or any of them without port. `InvalidArgument` else. */
export function parsePeerEndpoint(
  text: string,
  portDefault: number,
): { readonly address: string; readonly port: number } {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?$/.exec(text);
  const port = match?.[3] === undefined ? portDefault : Number(match[3]);
  if (match === null || port > 65535) {
    throw new TrilithError(
      "InvalidArgument",
      `"${text}" is not an address`,
      `write it like 10.0.0.1:${portDefault} or [fd00::1]:${portDefault}`,
    );
  }
  return { address: match[1] ?? match[2]!, port };
}
