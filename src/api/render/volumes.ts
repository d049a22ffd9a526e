/** Volumes and their snapshots as the API shows them. */
import type { ClusterState, EngineReplica, StoreView } from "../../control/cluster-state.ts";
import type {
  LabelledTopology,
  ReplicaRecord,
  ReplicaSnapshotRecord,
  SnapshotRecord,
  Topology,
  VolumeRecord,
} from "../../control/model.ts";
import { ownWait } from "../../control/planner/patience.ts";
import { scrubKey } from "../../control/planner/scrub-record.ts";
import {
  childOf,
  replicaStatus,
  replicasOf,
  targetNexus,
  volumeHealth,
  volumeStatus,
  volumeUsage,
} from "../../control/planner/status.ts";
import type {
  ReplicaTopology,
  Volume,
  VolumeSnapshot,
  VolumeSpec,
  VolumeUsage,
} from "../schemas/index.ts";
import { childProgress, childReason, childState, renderNexus } from "./nexuses.ts";
import { renderScrubSummary } from "./scrubs.ts";
import { timeText } from "./time.ts";

function labelled(topology: LabelledTopology) {
  return {
    exclusion: { ...topology.exclusion },
    inclusion: { ...topology.inclusion },
    affinity_key: [...topology.affinityKey],
  };
}

function renderTopology({ node, pool }: Topology): NonNullable<VolumeSpec["topology"]> {
  const node_topology =
    node === null
      ? undefined
      : "explicit" in node
        ? {
            explicit: {
              allowed_nodes: [...node.explicit.allowedNodes],
              preferred_nodes: [...node.explicit.preferredNodes],
            },
          }
        : { labelled: labelled(node.labelled) };
  return {
    ...(node_topology === undefined ? {} : { node_topology }),
    ...(pool === null ? {} : { pool_topology: { labelled: labelled(pool) } }),
  };
}

function renderOperation(operation: NonNullable<VolumeRecord["operation"]>) {
  const { operation: name, result } = operation;
  return result === null ? { operation: name } : { operation: name, result };
}

export function renderVolumeSpec(state: ClusterState, volume: VolumeRecord): VolumeSpec {
  const { target, contentSource, affinityGroup, topology, maxSnapshots, operation } = volume;
  const wait = ownWait(state.stored, volume.uuid);
  return {
    labels: { ...volume.labels },
    num_replicas: volume.replicaCount,
    ...(operation === null ? {} : { operation: renderOperation(operation) }),
    size: volume.sizeBytes,
    status: volume.status,
    ...(target === null
      ? {}
      : {
          target: {
            node: target.nodeId,
            protocol: target.protocol,
            frontend_nodes: target.frontendNodes.map(({ name, nqn }) => ({ name, nqn })),
          },
        }),
    uuid: volume.uuid,
    ...(topology === null ? {} : { topology: renderTopology(topology) }),
    policy: { self_heal: volume.selfHeal },
    thin: volume.thin,
    ...(volume.asThin ? { as_thin: true } : {}),
    ...(affinityGroup === null ? {} : { affinity_group: { id: affinityGroup } }),
    ...(contentSource === null
      ? {}
      : {
          content_source: {
            snapshot: { snapshot: contentSource.snapshotUuid, volume: contentSource.volumeUuid },
          },
        }),
    num_snapshots: state.stored.snapshotsOfVolume.get(volume.uuid)?.size ?? 0,
    ...(maxSnapshots === null ? {} : { max_snapshots: maxSnapshots }),
    ...(wait === undefined ? {} : { faulted_child_wait: Number(wait.value) }),
  };
}

function replicaUsage(space: EngineReplica["space"]): NonNullable<ReplicaTopology["usage"]> {
  return {
    capacity: space.capacityBytes,
    allocated: space.allocatedBytes,
    allocated_snapshots: space.allocatedBytesSnapshots,
    allocated_all_snapshots: space.allocatedBytesAllSnapshots,
  };
}

function renderReplicaTopology(
  state: ClusterState,
  volume: VolumeRecord,
  replica: ReplicaRecord,
): ReplicaTopology {
  const child = volume.target === null ? undefined : childOf(state, volume, replica.uuid);
  const reason = child === undefined ? undefined : childReason(child);
  const progress = child === undefined ? undefined : childProgress(child);
  const space = state.observed.get(replica.nodeId)?.replicas.get(replica.uuid)?.space;
  return {
    node: replica.nodeId,
    pool: replica.poolId,
    state: replicaStatus(state, replica),
    ...(child === undefined ? {} : { "child-status": childState(child) }),
    ...(reason === undefined ? {} : { "child-status-reason": reason }),
    ...(space === undefined ? {} : { usage: replicaUsage(space) }),
    ...(progress === undefined ? {} : { "rebuild-progress": progress }),
    healthy: replica.healthy,
  };
}

function renderUsage(state: ClusterState, volume: VolumeRecord): VolumeUsage {
  const usage = volumeUsage(state, volume);
  return {
    capacity: usage.capacityBytes,
    allocated: usage.allocatedBytes,
    allocated_replica: usage.allocatedReplicaBytes,
    allocated_snapshots: usage.allocatedSnapshotsBytes,
    allocated_all_snapshots: usage.allocatedAllSnapshotsBytes,
    total_allocated: usage.totalAllocatedBytes,
    total_allocated_replicas: usage.totalAllocatedReplicasBytes,
    total_allocated_snapshots: usage.totalAllocatedSnapshotsBytes,
  };
}

/** A volume: what was asked for, and how it is. */
export function renderVolume(state: ClusterState, volume: VolumeRecord): Volume {
  const nexus = targetNexus(state, volume);
  const scrub = renderScrubSummary(state, volume);
  const replica_topology: Record<string, ReplicaTopology> = {};
  for (const replica of replicasOf(state, volume.uuid)) {
    // Given up: it is the volume's no more, though its node may not have been told yet.
    if (replica.status === "Deleting") continue;
    replica_topology[replica.uuid] = renderReplicaTopology(state, volume, replica);
  }
  return {
    spec: renderVolumeSpec(state, volume),
    state: {
      ...(nexus === undefined ? {} : { target: renderNexus(state, nexus) }),
      size: volume.sizeBytes,
      status: volumeStatus(state, volume),
      uuid: volume.uuid,
      replica_topology,
      usage: renderUsage(state, volume),
      health: { ...volumeHealth(state, volume) },
      ...(scrub === undefined ? {} : { scrub }),
    },
  };
}

/**
 * Everything that the form of a volume is made of, one thing beside the other. Records and what the
 * engines report never change in place: when all of these are the same things, so is the form.
 */
function partsOf(state: ClusterState, volume: VolumeRecord): unknown[] {
  const { stored, observed } = state;
  const nexus = targetNexus(state, volume);
  const target = nexus === undefined ? undefined : observed.get(nexus.nodeId);
  const parts: unknown[] = [
    stored.snapshotsOfVolume.get(volume.uuid)?.size,
    stored.settings.get(scrubKey(volume.uuid)),
    nexus,
    target?.status,
    nexus === undefined ? undefined : target?.nexuses.get(nexus.uuid),
  ];
  for (const uuid of stored.replicasOfVolume.get(volume.uuid) ?? []) {
    const replica = stored.replicas.get(uuid);
    if (replica === undefined) continue;
    const node = observed.get(replica.nodeId);
    const pool = node?.pools.get(replica.poolId)?.state;
    parts.push(replica, node?.status, pool, node?.replicas.get(uuid));
  }
  return parts;
}

interface Remembered {
  readonly parts: readonly unknown[];
  readonly text: string;
}
const textOf = new WeakMap<VolumeRecord, Remembered>();

/**
 * A volume as JSON text. The text is kept as long as nothing that it is made of changes: most of ten
 * thousand volumes are the same from one list to the next.
 */
export function volumeText(state: ClusterState, volume: VolumeRecord): string {
  const parts = partsOf(state, volume);
  const known = textOf.get(volume);
  const isSame =
    known?.parts.length === parts.length && parts.every((part, at) => part === known.parts[at]);
  if (known !== undefined && isSame) return known.text;
  const text = JSON.stringify(renderVolume(state, volume));
  textOf.set(volume, { parts, text });
  return text;
}

interface Restores {
  readonly appliedIndex: number;
  readonly counts: ReadonlyMap<string, number>;
}
const restoresOfView = new WeakMap<StoreView, Restores>();
const none: ReadonlyMap<string, number> = new Map();

/** How many volumes were made of each snapshot; counted once per view. */
function restores(view: StoreView): ReadonlyMap<string, number> {
  if (view.snapshots.size === 0) return none;
  const known = restoresOfView.get(view);
  if (known?.appliedIndex === view.appliedIndex) return known.counts;
  const counts = new Map<string, number>();
  for (const { contentSource } of view.volumes.values()) {
    if (contentSource === null) continue;
    counts.set(contentSource.snapshotUuid, (counts.get(contentSource.snapshotUuid) ?? 0) + 1);
  }
  restoresOfView.set(view, { appliedIndex: view.appliedIndex, counts });
  return counts;
}

/** What the engine of a snapshot of a replica reports of it; undefined: nothing now. */
function observedSnapshot(state: ClusterState, one: ReplicaSnapshotRecord) {
  const node = state.observed.get(one.nodeId);
  return node?.status === "Online" ? node.snapshots.get(one.uuid) : undefined;
}

/** A pool that is gone leaves its snapshots' uuid unknown: all zeros. */
const NIL_UUID = "00000000-0000-0000-0000-000000000000";

function renderReplicaSnapshot(
  state: ClusterState,
  one: ReplicaSnapshotRecord,
): VolumeSnapshot["state"]["replica_snapshots"][number] {
  const seen = observedSnapshot(state, one);
  const identity = {
    uuid: one.uuid,
    source_id: one.sourceUuid,
    pool_id: one.poolId,
    pool_uuid: state.stored.pools.get(one.poolId)?.uuid ?? NIL_UUID,
  };
  if (seen === undefined) return { offline: identity };
  return {
    online: {
      ...identity,
      timestamp: timeText(seen.createdAtMs),
      size: seen.sizeBytes,
      allocated_size: seen.allocatedBytes,
      predecessor_alloc_size: seen.predecessorBytes,
    },
  };
}

/** A snapshot of a volume. */
export function renderSnapshot(state: ClusterState, snapshot: SnapshotRecord): VolumeSnapshot {
  const { uuid, volumeUuid, status, takenAtMs } = snapshot;
  const txn_id = String(snapshot.txnId);
  const replica_snapshots = snapshot.replicas.map((one) => renderReplicaSnapshot(state, one));
  const online = replica_snapshots.flatMap((one) => ("online" in one ? [one.online] : []));
  const allocated = online.map(({ allocated_size }) => allocated_size);
  const timestamp = takenAtMs === null ? {} : { timestamp: timeText(takenAtMs) };
  const sum = allocated.reduce((total, bytes) => total + bytes, 0);
  return {
    definition: {
      metadata: {
        status,
        ...timestamp,
        size: online[0]?.size ?? snapshot.sizeBytes,
        spec_size: snapshot.sizeBytes,
        total_allocated_size: sum,
        txn_id,
        transactions: {
          [txn_id]: snapshot.replicas.map((one) => ({
            uuid: one.uuid,
            source_id: one.sourceUuid,
            status: one.status,
          })),
        },
        num_restores: restores(state.stored).get(uuid) ?? 0,
        num_snapshot_replicas: snapshot.replicas.length,
      },
      spec: { uuid, source_volume: volumeUuid },
    },
    state: {
      uuid,
      allocated_size: Math.max(0, ...allocated),
      source_volume: volumeUuid,
      ...timestamp,
      ready_as_source: status === "Created" && online.length > 0,
      replica_snapshots,
    },
  };
}
