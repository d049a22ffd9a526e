/**
 * Makes certificates: the cluster's authority, requests of nodes, and what the authority signs. ECDSA
 * on P-256 with SHA-256 throughout. The library is loaded at the first use: it costs a start 30 ms and
 * is needed when a node joins or its certificate is renewed.
 */

import { isIP } from "node:net";
import type { Pkcs10CertificateRequest } from "@peculiar/x509";
import { TrilithError } from "../../errors.ts";
import { ADDRESSES_MAX, CA_LIFE_MS, CLOCK_SKEW_MS, CSR_CHARS_MAX } from "./limits.ts";
import { isNodeName, type MemberName, uriOf } from "./names.ts";

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;

/** A key and the certificate over it, both PEM. */
export interface KeyAndCertificate {
  readonly keyPem: string;
  readonly certPem: string;
}

async function library() {
  // The library's own dependency injection asks for it.
  await import("reflect-metadata");
  return import("@peculiar/x509");
}

function generateKeys(): Promise<CryptoKeyPair> {
  return crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
}

async function privateKeyPem(key: CryptoKey): Promise<string> {
  const { PemConverter } = await library();
  return PemConverter.encode(await crypto.subtle.exportKey("pkcs8", key), "PRIVATE KEY");
}

async function readPrivateKey(pem: string): Promise<CryptoKey> {
  const { PemConverter } = await library();
  const [der] = PemConverter.decode(pem);
  if (der === undefined) throw new TrilithError("Corrupted", "the file holds no private key");
  return crypto.subtle.importKey("pkcs8", der, algorithm, false, ["sign"]);
}

/** The authority of a new cluster. */
export async function createAuthority(
  clusterId: string,
  nowMs: number,
): Promise<KeyAndCertificate> {
  const x509 = await library();
  const keys = await generateKeys();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: [{ CN: ["Trilith cluster"] }, { O: [clusterId] }],
    keys,
    signingAlgorithm: algorithm,
    notBefore: new Date(nowMs - CLOCK_SKEW_MS),
    notAfter: new Date(nowMs + CA_LIFE_MS),
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { keyPem: await privateKeyPem(keys.privateKey), certPem: certificate.toString("pem") };
}

/** SHA-256 of a certificate, hexadecimal: what a token carries of the authority. */
export async function fingerprintOf(certPem: string): Promise<string> {
  const { X509Certificate } = await library();
  try {
    const { rawData } = new X509Certificate(certPem);
    return new Bun.CryptoHasher("sha256").update(rawData).digest("hex");
  } catch {
    throw new TrilithError("Corrupted", "this is not a certificate");
  }
}

/** From when until when a certificate is valid; the text may hold its key too. */
export async function validityOf(
  certPem: string,
): Promise<{ readonly fromMs: number; readonly toMs: number }> {
  const { PemConverter, X509Certificate } = await library();
  const [der] = PemConverter.decodeWithHeaders(certPem)
    .filter(({ type }) => type === PemConverter.CertificateTag)
    .map(({ rawData }) => rawData);
  if (der === undefined) throw new TrilithError("Corrupted", "the file holds no certificate");
  const { notBefore, notAfter } = new X509Certificate(der);
  return { fromMs: notBefore.getTime(), toMs: notAfter.getTime() };
}

/** A new key and the request to sign it. Who it is for is not in the request: the authority decides. */
export async function createRequest(): Promise<{
  readonly keyPem: string;
  readonly csrPem: string;
}> {
  const x509 = await library();
  const keys = await generateKeys();
  const csr = await x509.Pkcs10CertificateRequestGenerator.create({
    name: [{ CN: ["Trilith node"] }],
    keys,
    signingAlgorithm: algorithm,
  });
  return { keyPem: await privateKeyPem(keys.privateKey), csrPem: csr.toString("pem") };
}

/** Reads a request and checks that whoever made it has the key. `InvalidArgument` when not. */
async function readRequest(csrPem: string): Promise<Pkcs10CertificateRequest> {
  const x509 = await library();
  if (csrPem.length <= CSR_CHARS_MAX) {
    try {
      const csr = new x509.Pkcs10CertificateRequest(csrPem);
      const { name, namedCurve } = csr.publicKey.algorithm as {
        name?: string;
        namedCurve?: string;
      };
      const isOurs = name === algorithm.name && namedCurve === algorithm.namedCurve;
      if (isOurs && (await csr.verify())) return csr;
    } catch {
      // Not a request at all.
    }
  }
  throw new TrilithError(
    "InvalidArgument",
    "the certificate request is malformed or not signed with its own key",
  );
}

/** SHA-256 of the public key in a request, hexadecimal: tells whether two come from the same node. */
export async function requestKeyDigest(csrPem: string): Promise<string> {
  const { publicKey } = await readRequest(csrPem);
  return new Bun.CryptoHasher("sha256").update(publicKey.rawData).digest("hex");
}

export interface NodeCertificateOptions {
  readonly authority: KeyAndCertificate;
  readonly csrPem: string;
  readonly member: MemberName;
  /** Addresses, numeric or names, that others reach the node at. */
  readonly addresses: readonly string[];
  readonly nowMs: number;
  readonly lifeMs: number;
}

/** Signs a node's certificate. Names come from `member`, never from the request. */
export async function signNodeCertificate(options: NodeCertificateOptions): Promise<string> {
  const x509 = await library();
  const { authority, member, nowMs } = options;
  if (!isNodeName(member.nodeId)) {
    throw new TrilithError("InvalidArgument", `"${member.nodeId}" cannot be the name of a node`);
  }
  if (options.addresses.length > ADDRESSES_MAX) {
    throw new TrilithError("InvalidArgument", `more than ${ADDRESSES_MAX} addresses`);
  }
  const csr = await readRequest(options.csrPem);
  const issuer = new x509.X509Certificate(authority.certPem);
  const addresses = [...new Set(options.addresses)].filter((one) => one !== member.nodeId);
  const certificate = await x509.X509CertificateGenerator.create({
    subject: [{ CN: [member.nodeId] }, { O: [member.clusterId] }],
    issuer: issuer.subject,
    publicKey: csr.publicKey,
    signingKey: await readPrivateKey(authority.keyPem),
    signingAlgorithm: algorithm,
    notBefore: new Date(nowMs - CLOCK_SKEW_MS),
    notAfter: new Date(nowMs + options.lifeMs),
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([
        x509.ExtendedKeyUsage.serverAuth,
        x509.ExtendedKeyUsage.clientAuth,
      ]),
      new x509.SubjectAlternativeNameExtension([
        { type: "dns", value: member.nodeId },
        ...addresses.map((value) => ({ type: isIP(value) === 0 ? "dns" : "ip", value }) as const),
        { type: "url", value: uriOf(member) },
      ]),
      await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
    ],
  });
  return certificate.toString("pem");
}
