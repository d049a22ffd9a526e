/**
 * `trilith cluster recover`: the way out when a majority of the members is lost for good. The node that
 * it is run on, stopped, becomes the only member of its cluster with what it has; what only the lost
 * ones had is lost. They must never be started with their old data again: they are shut out by their raft
 * ids, and join anew with empty data directories. Their disks keep their pools, and their nodes' records
 * stay in the store, so that they come back under their names.
 *
 * Run it on the survivor with the most complete log: highest term of the last entry, then highest index.
 */
import { Database } from "bun:sqlite";
import { existsSync } from "node:fs";
import { TrilithError } from "../../errors.ts";
import { secureClient } from "../../net/secure-client.ts";
import { describeRaft, recoverRaft, type StoredRaft } from "../raft/recovery.ts";
import { createRequest, signNodeCertificate } from "./certificates.ts";
import { type DataDir, type KnownMember, openDataDir } from "./data-dir.ts";
import { addressesOf } from "./init.ts";
import {
  NODE_LIFE_MS_DEFAULT,
  PEER_PORT_DEFAULT,
  RECOVERY_ASK_MS,
  RECOVERY_RAFT_ID_STEP,
} from "./limits.ts";
import { lockDataDir } from "./lock.ts";
import { memberOf, parsePeerEndpoint } from "./names.ts";

export interface RecoverOptions {
  readonly dataDir: string;
  readonly nowMs: number;
  /** Go on although other members answer. */
  readonly force: boolean;
  /** Only say what would be done. */
  readonly dryRun: boolean;
}

export interface Recovery {
  readonly nodeId: string;
  readonly clusterId: string;
  readonly before: StoredRaft;
  /** Null after a dry run. */
  readonly raftId: string | null;
  /** Other members as they were last known, and whether they answer. */
  readonly others: readonly (KnownMember & { readonly answers: boolean })[];
}

/** Whether a member's control process answers as that member. */
async function answers(dataDir: DataDir, member: KnownMember): Promise<boolean> {
  const client = secureClient({
    ...parsePeerEndpoint(member.peerEndpoint, PEER_PORT_DEFAULT),
    credentials: () => dataDir.credentials(),
    connectTimeoutMs: RECOVERY_ASK_MS,
    check: (certificate) => {
      if (memberOf(certificate).raftId !== member.raftId) {
        throw new TrilithError("Unavailable", "another node answers there");
      }
    },
  });
  try {
    // Whatever it says: it is there.
    await client.fetch(
      new Request("https://peer.invalid/membership/ping", {
        signal: AbortSignal.timeout(RECOVERY_ASK_MS),
      }),
    );
    return true;
  } catch {
    return false;
  } finally {
    client.close();
  }
}

/** A raft id that nobody was given, also not by members that this node has not heard of. */
function unusedRaftId(dataDir: DataDir, before: StoredRaft): string {
  const known = [
    dataDir.identity.raftId,
    before.raftId,
    ...before.voters,
    ...before.learners,
    ...dataDir.members().map(({ raftId }) => raftId),
  ].map(Number);
  const highest = Math.max(...known);
  return String((Math.floor(highest / RECOVERY_RAFT_ID_STEP) + 1) * RECOVERY_RAFT_ID_STEP);
}

/**
 * Makes this stopped node the only member. `InUse` while its process runs, `FailedPrecondition` when
 * other members answer and `force` is not given. Interrupted, it can be run again.
 */
export async function recoverCluster(options: RecoverOptions): Promise<Recovery> {
  const dataDir = openDataDir(options.dataDir);
  const { identity } = dataDir;
  if (!existsSync(dataDir.storePath)) {
    throw new TrilithError(
      "FailedPrecondition",
      `there is no store in ${options.dataDir}: this node has never run`,
      "run this on a node that was a member, or see `trilith cluster rebuild-from-disks`",
    );
  }
  const unlock = lockDataDir(options.dataDir);
  const db = new Database(dataDir.storePath, { readwrite: true });
  try {
    const before = describeRaft(db);
    const others = await Promise.all(
      dataDir
        .members()
        .filter(({ raftId }) => raftId !== identity.raftId)
        .map(async (member) => ({ ...member, answers: await answers(dataDir, member) })),
    );
    const found = { nodeId: identity.nodeId, clusterId: identity.clusterId, before, others };
    if (options.dryRun) return { ...found, raftId: null };
    const alive = others.filter((member) => member.answers).map(({ nodeId }) => nodeId);
    if (alive.length > 0 && !options.force) {
      throw new TrilithError(
        "FailedPrecondition",
        `other members answer: ${alive.join(", ")}`,
        "recover only when a majority is lost for good, with all others stopped; " +
          "`--force` goes on all the same",
      );
    }
    const raftId = unusedRaftId(dataDir, before);
    const lost = new Set([
      ...(dataDir.recovered()?.lostRaftIds ?? []),
      identity.raftId,
      ...before.voters,
      ...before.learners,
      ...others.map((member) => member.raftId),
    ]);
    // In this order: interrupted anywhere, another run finds what it needs.
    dataDir.setRecovered({ atMs: options.nowMs, lostRaftIds: [...lost] });
    recoverRaft(db, raftId, identity.nodeId);
    const { keyPem, csrPem } = await createRequest();
    const certPem = await signNodeCertificate({
      authority: dataDir.authority(),
      csrPem,
      member: { clusterId: identity.clusterId, nodeId: identity.nodeId, raftId },
      addresses: addressesOf(identity),
      nowMs: options.nowMs,
      lifeMs: NODE_LIFE_MS_DEFAULT,
    });
    dataDir.setCertificate({ keyPem, certPem });
    dataDir.setRaftId(raftId);
    dataDir.setMembers([{ raftId, nodeId: identity.nodeId, peerEndpoint: identity.peerEndpoint }]);
    return { ...found, raftId };
  } finally {
    db.close();
    unlock();
  }
}
