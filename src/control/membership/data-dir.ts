/**
 * What a control process keeps in its data directory, and who may open it.
 *
 * | path                   | mode | holds |
 * |------------------------|------|-------|
 * | `cluster/identity.json`| 0600 | version, cluster id, node name, raft id, endpoints |
 * | `cluster/ca.crt`       | 0644 | the cluster's authority |
 * | `cluster/ca.key`       | 0600 | the authority's key |
 * | `cluster/node.pem`     | 0600 | this node's key and certificate: one file, so that they always belong together |
 * | `cluster/members.json` | 0600 | members as they were last known: whom to speak to before the store is open |
 * | `cluster/recovered.json` | 0600 | there after `trilith cluster recover`, until its loss is on record |
 * | `control.lock`         | 0600 | locked by the control process that runs |
 * | `store.sqlite`         | 0600 | the replicated store and raft's log (owned by `control/store`) |
 *
 * The folder itself is 0700. Every member holds the authority's key, protected at rest by the file's
 * mode alone: any of them can let nodes join and renews its own certificate, also while it is cut off
 * from the others. Whoever reads this file of one node can make himself a node; so can whoever is root
 * on a node anyway. The key travels once, when a node joins, over mutual TLS.
 *
 * Files are replaced whole: written beside, flushed, renamed. `identity.json` is written last when a
 * node is made, so a directory without it holds no node, whatever else lies there.
 */
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { TrilithError } from "../../errors.ts";
import type { Credentials } from "../../net/peer-certificate.ts";
import { writeFileWhole } from "../../ops/durable-file.ts";
import type { KeyAndCertificate } from "./certificates.ts";

const IDENTITY_VERSION = 1;

const Identity = v.object({
  version: v.literal(IDENTITY_VERSION),
  clusterId: v.pipe(v.string(), v.uuid()),
  nodeId: v.pipe(v.string(), v.regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/)),
  raftId: v.pipe(v.string(), v.regex(/^[1-9][0-9]{0,18}$/)),
  /** `address:port` of the control process, as others reach it. */
  peerEndpoint: v.string(),
  /** `address:port` of the engine's RPC, as others reach it. */
  engineEndpoint: v.string(),
  createdAtMs: v.number(),
  /** The node made the cluster: its store begins with itself. Others wait to be told. */
  isFirst: v.boolean(),
});
/** Who a data directory belongs to. */
export type Identity = v.InferOutput<typeof Identity>;

const KnownMembers = v.array(
  v.object({ raftId: v.string(), nodeId: v.string(), peerEndpoint: v.string() }),
);
/** A member and where its control process answers. */
export type KnownMember = v.InferOutput<typeof KnownMembers>[number];

const Recovered = v.object({ atMs: v.number(), lostRaftIds: v.array(v.string()) });
/** What `trilith cluster recover` leaves for the process that starts afterwards. */
export type Recovered = v.InferOutput<typeof Recovered>;

/** Paths in a data directory. */
export function pathsIn(dataDir: string) {
  const folder = join(dataDir, "cluster");
  return {
    folder,
    identity: join(folder, "identity.json"),
    caCert: join(folder, "ca.crt"),
    caKey: join(folder, "ca.key"),
    nodePem: join(folder, "node.pem"),
    members: join(folder, "members.json"),
    recovered: join(folder, "recovered.json"),
    lock: join(dataDir, "control.lock"),
    store: join(dataDir, "store.sqlite"),
  } as const;
}

/** A data directory that belongs to a node. */
export interface DataDir {
  readonly path: string;
  readonly identity: Identity;
  readonly storePath: string;
  /** Read anew at each call: renewal replaces them. */
  credentials(): Credentials;
  authority(): KeyAndCertificate;
  setCertificate(certificate: KeyAndCertificate): void;
  /** The node goes on under another raft id; open the directory again afterwards. */
  setRaftId(raftId: string): void;
  members(): readonly KnownMember[];
  setMembers(members: readonly KnownMember[]): void;
  recovered(): Recovered | null;
  setRecovered(recovered: Recovered | null): void;
}

function readJson<S extends v.GenericSchema>(path: string, schema: S): v.InferOutput<S> {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    throw new TrilithError("Corrupted", `${path}: ${text}`, "restore the file from a backup");
  }
  const parsed = v.safeParse(schema, value);
  if (parsed.success) return parsed.output;
  const issue = parsed.issues[0];
  throw new TrilithError(
    "Corrupted",
    `${path}: ${v.getDotPath(issue) ?? "it"}: ${issue.message}`,
    "it may have been written by a newer version; else restore it from a backup",
  );
}

/** What a data directory is expected to belong to. */
export interface ExpectedOwner {
  readonly clusterId?: string;
  readonly nodeId?: string;
}

/**
 * Opens the data directory of a node. `FailedPrecondition` when it belongs to none, or to another
 * cluster or node than expected; `Corrupted` when it cannot be read.
 */
export function openDataDir(dataDir: string, expected: ExpectedOwner = {}): DataDir {
  const paths = pathsIn(dataDir);
  if (!existsSync(paths.identity)) {
    throw new TrilithError(
      "FailedPrecondition",
      `the data directory ${dataDir} belongs to no node of a cluster`,
      "make a cluster with `trilith init`, or join one with `trilith join`",
    );
  }
  const identity = readJson(paths.identity, Identity);
  for (const [what, is, wanted] of [
    ["cluster", identity.clusterId, expected.clusterId],
    ["node", identity.nodeId, expected.nodeId],
  ] as const) {
    if (wanted !== undefined && wanted !== is) {
      throw new TrilithError(
        "FailedPrecondition",
        `the data directory ${dataDir} belongs to ${what} ${is}, not to ${what} ${wanted}`,
        "name the right one with --data-dir; a directory is never taken over by another node",
      );
    }
  }
  const text = (path: string) => readFileSync(path, "utf8");
  return {
    path: dataDir,
    identity,
    storePath: paths.store,
    credentials() {
      const pem = text(paths.nodePem);
      return { certPem: pem, keyPem: pem, caPem: text(paths.caCert) };
    },
    authority: () => ({ keyPem: text(paths.caKey), certPem: text(paths.caCert) }),
    setCertificate(certificate) {
      writeFileWhole(paths.nodePem, pemOf(certificate), 0o600);
    },
    setRaftId(raftId) {
      writeIdentity(paths.identity, { ...identity, raftId });
    },
    members: () => (existsSync(paths.members) ? readJson(paths.members, KnownMembers) : []),
    setMembers(members) {
      writeFileWhole(paths.members, `${JSON.stringify(members, null, 2)}\n`, 0o600);
    },
    recovered: () => (existsSync(paths.recovered) ? readJson(paths.recovered, Recovered) : null),
    setRecovered(recovered) {
      writeFileWhole(paths.recovered, recovered && `${JSON.stringify(recovered)}\n`, 0o600);
    },
  };
}

/** Like `openDataDir`; null while the data directory belongs to no node. */
export function findDataDir(dataDir: string, expected: ExpectedOwner = {}): DataDir | null {
  return existsSync(pathsIn(dataDir).identity) ? openDataDir(dataDir, expected) : null;
}

function pemOf({ keyPem, certPem }: KeyAndCertificate): string {
  return `${keyPem.trimEnd()}\n${certPem.trimEnd()}\n`;
}

function writeIdentity(path: string, identity: Identity): void {
  writeFileWhole(path, `${JSON.stringify(identity, null, 2)}\n`, 0o600);
}

/** `AlreadyExists` when a directory holds a node already, or the store of one. Changes nothing. */
export function checkVacant(dataDir: string): void {
  const paths = pathsIn(dataDir);
  if (existsSync(paths.identity)) {
    const { nodeId, clusterId } = readJson(paths.identity, Identity);
    throw new TrilithError(
      "AlreadyExists",
      `the data directory ${dataDir} belongs to node ${nodeId} of cluster ${clusterId}`,
      "name another one with --data-dir, or remove the folder `cluster` and the store by hand",
    );
  }
  if (existsSync(paths.store)) {
    throw new TrilithError(
      "AlreadyExists",
      `the data directory ${dataDir} holds a store (${paths.store}) but no identity`,
      "restore the folder `cluster` from a backup, or remove the store by hand",
    );
  }
}

/** Puts a new node into a data directory; the identity last. */
export function createDataDir(
  dataDir: string,
  identity: Omit<Identity, "version">,
  authority: KeyAndCertificate,
  certificate: KeyAndCertificate,
  members: readonly KnownMember[],
): DataDir {
  checkVacant(dataDir);
  const paths = pathsIn(dataDir);
  mkdirSync(paths.folder, { recursive: true, mode: 0o700 });
  writeFileWhole(paths.caCert, authority.certPem, 0o644);
  writeFileWhole(paths.caKey, authority.keyPem, 0o600);
  writeFileWhole(paths.nodePem, pemOf(certificate), 0o600);
  writeFileWhole(paths.members, `${JSON.stringify(members, null, 2)}\n`, 0o600);
  writeIdentity(paths.identity, { version: IDENTITY_VERSION, ...identity });
  return openDataDir(dataDir);
}
