/**
 * Replicas that were given up while they were away, and are there again before anybody could destroy
 * them: what they hold is worth more than a copy from the beginning. One is taken back where the volume
 * lacks a replica, or has a successor that still needs more bytes than it does.
 */
import type { ReplicaRecord, VolumeRecord } from "../../model.ts";
import type { Work } from "../plan.ts";
import { isNodeCordoned } from "../status.ts";
import { childOfReplica } from "./children.ts";
import { INTENT_REGION_BYTES } from "./limits.ts";
import type { Planning } from "./planning.ts";
import { event, put, store, unchanged, work } from "./steps.ts";
import { isServing } from "./target.ts";

/** Bytes that would have to be copied to bring a given-up replica up to date; null: it is of no use. */
function missingBytes(p: Planning, volume: VolumeRecord, replica: ReplicaRecord): number | null {
  if (replica.status !== "Deleting" || replica.healthy) return null;
  const node = p.stored.nodes.get(replica.nodeId);
  const pool = p.stored.pools.get(replica.poolId);
  if (node === undefined || isNodeCordoned(node)) return null;
  if (pool === undefined || pool.cordoned || pool.status !== "Created") return null;
  const seen = p.replica(replica);
  if (seen === undefined || !isServing(seen) || seen.sync.volumeUuid !== volume.uuid) return null;
  // It never held anything that counts: its rebuild had not come to its end.
  if (seen.sync.generation === 0) return null;
  let dirtyBytes: number | null = null;
  for (const other of p.replicasOf(volume)) {
    const { healthy, status } = other;
    const sync = healthy && status === "Created" ? p.replica(other)?.sync : undefined;
    if (sync === undefined) continue;
    // Beyond its log nobody knows what the replica has missed.
    const bytes =
      seen.sync.generation >= sync.baseGeneration
        ? Math.min(volume.sizeBytes, sync.dirtyRegions * INTENT_REGION_BYTES)
        : volume.sizeBytes;
    dirtyBytes = Math.max(dirtyBytes ?? 0, bytes);
  }
  return dirtyBytes;
}

/** Bytes that a successor still needs; null: it has no rebuild before it, or holds everything. */
function bytesLeft(p: Planning, volume: VolumeRecord, successor: ReplicaRecord): number | null {
  if (successor.healthy || successor.status !== "Created") return null;
  for (const nexus of p.nexusesOf(volume)) {
    const seen = nexus.phase === "Open" ? p.nexus(nexus) : undefined;
    const rebuild = seen && childOfReplica(seen, successor)?.rebuild;
    if (rebuild != null) return rebuild.blocksRemaining * rebuild.blockSize;
  }
  // One that has data of its own is no fresh copy: it is being brought back itself.
  return p.replica(successor)?.sync.generation === 0 ? volume.sizeBytes : null;
}

interface Return {
  readonly replica: ReplicaRecord;
  /** What is given up instead; null: the volume lacks a replica anyhow. */
  readonly instead: ReplicaRecord | null;
  readonly reason: string;
}

function returnOf(p: Planning, volume: VolumeRecord): Return | null {
  if (volume.status !== "Created" || !volume.selfHeal) return null;
  const all = p.replicasOf(volume);
  if (!all.some(({ status }) => status === "Deleting")) return null;
  const owned = all.filter(({ status }) => status !== "Deleting");
  const able = all
    .flatMap((replica) => {
      const bytes = missingBytes(p, volume, replica);
      return bytes === null ? [] : [{ replica, bytes }];
    })
    .sort((a, b) => a.bytes - b.bytes || (a.replica.uuid < b.replica.uuid ? -1 : 1));
  for (const { replica, bytes } of able) {
    const twin = owned.find(({ nodeId }) => nodeId === replica.nodeId);
    if (owned.length < volume.replicaCount && twin === undefined) {
      return { replica, instead: null, reason: "it is back, and the volume lacks a replica" };
    }
    if (owned.length !== volume.replicaCount || volume.victimReplica !== null) continue;
    for (const successor of owned) {
      if (twin !== undefined && twin !== successor) continue;
      const left = bytesLeft(p, volume, successor);
      if (left === null || left <= bytes) continue;
      const reason = `it is back and lacks ${bytes} bytes, its successor in ${successor.poolId} still ${left}`;
      return { replica, instead: successor, reason };
    }
  }
  return null;
}

/** It is about to be taken back: it is not to be destroyed. */
export function isReturning(p: Planning, replica: ReplicaRecord): boolean {
  const volume = p.stored.volumes.get(replica.volumeUuid ?? "");
  return volume !== undefined && returnOf(p, volume)?.replica.uuid === replica.uuid;
}

/** Takes a given-up replica back where that is the cheaper way. */
export function planReturn(p: Planning, volume: VolumeRecord): Work | null {
  const found = returnOf(p, volume);
  if (found === null) return null;
  const { replica, instead, reason } = found;
  const back = { ...replica, status: "Created", faultedAtMs: null } as const;
  const message = `replica in ${replica.poolId} is taken back: ${reason}`;
  const step = store(
    message,
    [
      put("replicas", back),
      put("volumes", { ...volume, victimReplica: instead?.uuid ?? volume.victimReplica }),
      ...(instead === null ? [] : [unchanged("replicas", instead)]),
    ],
    [event("Replica", "StateChange", replica.uuid, replica.nodeId, message)],
  );
  return work(`volume/${volume.uuid}`, step);
}
