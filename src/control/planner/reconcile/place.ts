/** One more replica of a volume: where, and its record. */
import type { PoolId, ReplicaRecord, VolumeRecord } from "../../model.ts";
import { largestAllocation } from "../capacity.ts";
import { describeRejections, placeReplicas } from "../placement/place.ts";
import type { Change } from "../plan.ts";
import { derivedUuid } from "./derived-uuid.ts";
import type { Planning } from "./planning.ts";
import { put, unchanged } from "./steps.ts";

/** Changes that add a replica, or why there is no place for one. */
export type NewReplica =
  | { readonly replica: ReplicaRecord; readonly changes: readonly Change[] }
  | { readonly why: string };

export interface NewReplicaOptions {
  /** Replicas of the volume that stay: the new one avoids their nodes. */
  readonly staying: readonly ReplicaRecord[];
  readonly notPools?: ReadonlySet<PoolId>;
}

/**
 * Places one replica. It is not healthy unless the volume has never held anything: a rebuild makes it
 * so. Its pool's record is put unchanged, so that no other decision on the same state takes the room.
 */
export function newReplica(
  p: Planning,
  volume: VolumeRecord,
  { staying, notPools = new Set() }: NewReplicaOptions,
): NewReplica {
  const { chosen, rejected } = placeReplicas(p.state, {
    volumeUuid: volume.uuid,
    sizeBytes: volume.sizeBytes,
    thin: volume.thin || volume.asThin,
    replicaCount: volume.replicaCount,
    topology: volume.topology,
    affinityGroup: volume.affinityGroup,
    count: 1,
    staying,
    allocatedBytes: largestAllocation(p.state, staying),
    commitmentPercent: p.state.settings.volumeCommitmentPercent,
    onlyPools: null,
    notPools,
  });
  const pool = chosen[0]?.pool;
  if (pool === undefined) {
    return { why: rejected.length === 0 ? "there are no pools" : describeRejections(rejected) };
  }
  const replica: ReplicaRecord = {
    revision: 0,
    // The transaction changes the volume's revision: no other replica is ever given this UUID.
    uuid: derivedUuid("replica", volume.uuid, volume.revision, pool.id),
    volumeUuid: volume.uuid,
    poolId: pool.id,
    nodeId: pool.nodeId,
    sizeBytes: volume.sizeBytes,
    thin: volume.thin || volume.asThin,
    kind: "Regular",
    snapshotUuid: null,
    status: "Creating",
    healthy: isBlank(volume),
    faultedAtMs: null,
    allowedHosts: null,
    createdAtMs: p.nowMs,
  };
  return { replica, changes: [put("replicas", replica), unchanged("pools", pool)] };
}

/** It was never published and is no copy: every replica of it holds the same nothing. */
export function isBlank(volume: VolumeRecord): boolean {
  return volume.epoch === 0 && volume.contentSource === null;
}
