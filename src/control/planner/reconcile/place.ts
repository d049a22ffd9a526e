/** One more replica of a volume: where, and its record. */
import type { PoolId, ReplicaRecord, VolumeRecord } from "../../model.ts";
import { largestAllocation } from "../capacity.ts";
import { placementOf, newReplica as replicaRecord } from "../decide/volumes.ts";
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
  const allocated = largestAllocation(p.state, staying);
  const { chosen, rejected } = placeReplicas(p.state, {
    ...placementOf(p.state, volume, 1, staying, allocated),
    notPools,
  });
  const pool = chosen[0]?.pool;
  if (pool === undefined) {
    return { why: describeRejections(rejected, staying.length) };
  }
  // The transaction changes the volume's revision: no other replica is ever given this UUID.
  const uuid = derivedUuid("replica", volume.uuid, volume.revision, pool.id);
  const replica = replicaRecord(p.state, volume, uuid, chosen[0]!, isBlank(volume));
  return { replica, changes: [put("replicas", replica), unchanged("pools", pool)] };
}

/** It was never published and is no copy: every replica of it holds the same nothing. */
export function isBlank(volume: VolumeRecord): boolean {
  return volume.epoch === 0 && volume.contentSource === null;
}
