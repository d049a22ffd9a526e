/**
 * `src/net`: HTTP/2 (and 1.1) over mutual TLS, for whoever speaks to other nodes. It knows
 * certificates and their names, nothing of clusters. Imports node's modules and `errors.ts` only.
 */
import type {
  DetailedPeerCertificate,
  TLSSocket,
  PeerCertificate as TlsCertificate,
} from "node:tls";

/** A certificate and its key, and the authority that both ends trust; all PEM. */
export interface Credentials {
  readonly certPem: string;
  readonly keyPem: string;
  readonly caPem: string;
}

/** What is known of the other end of a connection whose certificate the authority has signed. */
export interface PeerCertificate {
  /** Names of kind URI that the certificate holds. */
  readonly uris: readonly string[];
  readonly validToMs: number;
}

/**
 * Names of kind URI in node's text form of a subject's alternative names, e.g.
 * `DNS:a, IP Address:10.0.0.1, URI:x://y`. Names that hold what would need quoting are left out: the
 * authority signs none.
 */
function urisOf(names: string | undefined): string[] {
  if (names === undefined || names.includes('"')) return [];
  return names
    .split(", ")
    .filter((name) => name.startsWith("URI:"))
    .map((name) => name.slice("URI:".length));
}

/** The plain form of a certificate as node's TLS gives it. */
export function plainCertificate(
  certificate: TlsCertificate | DetailedPeerCertificate,
): PeerCertificate {
  return {
    uris: urisOf(certificate.subjectaltname),
    validToMs: Date.parse(certificate.valid_to),
  };
}

/** Who is at the other end of a connection; null when it has shown no certificate of the authority. */
export function peerOf(socket: TLSSocket): PeerCertificate | null {
  if (!socket.authorized) return null;
  const certificate = socket.getPeerCertificate();
  // Without a certificate node gives an empty object.
  if (certificate?.subjectaltname === undefined) return null;
  return plainCertificate(certificate);
}
