/** Certificates for tests of TLS, each of an authority of its own. */
import {
  createAuthority,
  createRequest,
  signNodeCertificate,
} from "../../../src/control/membership/certificates.ts";

/** A certificate for 127.0.0.1, its key, and what signed it; in PEM. */
export async function selfSigned(
  nodeId: string,
): Promise<{ readonly cert: string; readonly key: string; readonly ca: string }> {
  const nowMs = Date.now();
  const authority = await createAuthority("test", nowMs);
  const { keyPem, csrPem } = await createRequest();
  const cert = await signNodeCertificate({
    authority,
    csrPem,
    member: { clusterId: "test", nodeId, raftId: "1" },
    addresses: ["127.0.0.1"],
    nowMs,
    lifeMs: 60 * 60_000,
  });
  return { cert, key: keyPem, ca: authority.certPem };
}
