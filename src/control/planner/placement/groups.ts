/** Affinity groups: volumes whose replicas and targets keep away from each other. Pure. */
import type { ClusterState } from "../../cluster-state.ts";
import type { NodeId, PoolId, Uuid, VolumeRecord } from "../../model.ts";

type Volumes = ClusterState["stored"]["volumes"];
const groupsOfVolumes = new WeakMap<Volumes, ReadonlyMap<string, readonly VolumeRecord[]>>();

/** Volumes of a group, by UUID. */
export function volumesOfGroup(state: ClusterState, group: string): readonly VolumeRecord[] {
  let groups = groupsOfVolumes.get(state.stored.volumes);
  if (groups === undefined) {
    const made = new Map<string, VolumeRecord[]>();
    for (const volume of state.stored.volumes.values()) {
      if (volume.affinityGroup === null) continue;
      const members = made.get(volume.affinityGroup);
      if (members === undefined) made.set(volume.affinityGroup, [volume]);
      else members.push(volume);
    }
    for (const members of made.values()) members.sort((a, b) => (a.uuid < b.uuid ? -1 : 1));
    groups = made;
    groupsOfVolumes.set(state.stored.volumes, groups);
  }
  return groups.get(group) ?? [];
}

/** Replicas of the group's other volumes, by where they lie. */
export interface GroupCounts {
  readonly byPool: ReadonlyMap<PoolId, number>;
  readonly byNode: ReadonlyMap<NodeId, number>;
}

/** Counts the replicas of a group's volumes, `except` one volume. */
export function groupReplicas(state: ClusterState, group: string, except: Uuid): GroupCounts {
  const byPool = new Map<PoolId, number>();
  const byNode = new Map<NodeId, number>();
  for (const volume of volumesOfGroup(state, group)) {
    if (volume.uuid === except) continue;
    for (const uuid of state.stored.replicasOfVolume.get(volume.uuid) ?? []) {
      const replica = state.stored.replicas.get(uuid);
      if (replica === undefined || replica.status === "Deleting") continue;
      byPool.set(replica.poolId, (byPool.get(replica.poolId) ?? 0) + 1);
      byNode.set(replica.nodeId, (byNode.get(replica.nodeId) ?? 0) + 1);
    }
  }
  return { byPool, byNode };
}

/** Nodes that hold the only replica of another volume of the group. */
export function nodesOfSingleReplicas(
  state: ClusterState,
  group: string,
  except: Uuid,
): ReadonlySet<NodeId> {
  const nodes = new Set<NodeId>();
  for (const volume of volumesOfGroup(state, group)) {
    if (volume.uuid === except || volume.replicaCount !== 1) continue;
    for (const uuid of state.stored.replicasOfVolume.get(volume.uuid) ?? []) {
      const replica = state.stored.replicas.get(uuid);
      if (replica !== undefined && replica.status !== "Deleting") nodes.add(replica.nodeId);
    }
  }
  return nodes;
}

/** Targets of the group's other volumes, by node. */
export function groupTargets(
  state: ClusterState,
  group: string,
  except: Uuid,
): ReadonlyMap<NodeId, number> {
  const byNode = new Map<NodeId, number>();
  for (const { uuid, target } of volumesOfGroup(state, group)) {
    if (uuid === except || target === null) continue;
    byNode.set(target.nodeId, (byNode.get(target.nodeId) ?? 0) + 1);
  }
  return byNode;
}
