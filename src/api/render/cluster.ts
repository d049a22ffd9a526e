/** The cluster as a whole as the API shows it. */

import type { ClusterState } from "../../control/cluster-state.ts";
import type { Control } from "../../control/control.ts";
import type { NexusRecord, StoredEvent, VolumeRecord } from "../../control/model.ts";
import type { Plan, Warning as PlanWarning, Step } from "../../control/planner/plan.ts";
import { keptScrub, volumeOfScrubKey } from "../../control/planner/scrub-record.ts";
import {
  isNodeCordoned,
  nodeStatus,
  poolStatus,
  type VolumeStatus,
  volumeStatus,
} from "../../control/planner/status.ts";
import { STATUS_REBUILDS_MAX, STATUS_VOLUMES_MAX } from "../limits.ts";
import { sorted } from "../records.ts";
import type { Cluster, Event, PlanView, Specs, Status, Warning } from "../schemas/index.ts";
import { renderNexusSpec, renderQueuedRebuilds, renderRunningRebuilds } from "./nexuses.ts";
import { renderPoolSpec, renderReplicaSpec } from "./pools.ts";
import { renderScrub } from "./scrubs.ts";
import { timeText } from "./time.ts";
import { renderVolumeSpec } from "./volumes.ts";

/** Nexuses that each replica is a child of. */
function nexusesOfReplicas(nexuses: Iterable<NexusRecord>): ReadonlyMap<string, string[]> {
  const found = new Map<string, string[]>();
  for (const nexus of nexuses) {
    for (const { replicaUuid } of nexus.children) {
      if (replicaUuid === null) continue;
      found.set(replicaUuid, [...(found.get(replicaUuid) ?? []), nexus.uuid]);
    }
  }
  return found;
}

export function renderSpecs(state: ClusterState): Specs {
  const { stored } = state;
  const owners = nexusesOfReplicas(stored.nexuses.values());
  return {
    nexuses: sorted(stored, "nexuses").map(renderNexusSpec),
    pools: sorted(stored, "pools").map(renderPoolSpec),
    replicas: sorted(stored, "replicas").map((replica) =>
      renderReplicaSpec(state, replica, owners.get(replica.uuid) ?? []),
    ),
    volumes: sorted(stored, "volumes").map((volume) => renderVolumeSpec(state, volume)),
  };
}

export function renderEvent(event: StoredEvent): Event {
  const { id, category, action, target, component, message } = event;
  return {
    id,
    at: timeText(event.atMs),
    category,
    action,
    target,
    ...(event.nodeId === null ? {} : { node: event.nodeId }),
    component,
    message,
  };
}

/** Membership and state of the store, as this node sees them. */
export function renderCluster(control: Pick<Control, "members" | "raft">): Cluster {
  const members = control.members();
  const { raftId, role, term, leader, commitIndex, appliedIndex, firstIndex } = control.raft();
  const leaderNode = members.find((member) => member.isLeader)?.nodeId;
  return {
    ...(leaderNode === undefined ? {} : { leader: leaderNode }),
    members: members.map(({ nodeId, raftId: id, isVoter, isLeader, matchIndex }) => ({
      node: nodeId,
      raftId: id,
      voter: isVoter,
      leader: isLeader,
      ...(matchIndex === null ? {} : { matchIndex }),
    })),
    raft: {
      raftId,
      role,
      term,
      ...(leader === null ? {} : { leader }),
      commitIndex,
      appliedIndex,
      firstIndex,
    },
  };
}

function renderStep(step: Step): PlanView["works"][number]["steps"][number] {
  if (step.kind === "engine") {
    // Inputs of calls stay out: they may carry secrets of hosts.
    const { kind, reason, nodeId, call } = step;
    return { kind, reason, node: nodeId, method: call.method };
  }
  const changes = step.changes.map((change) => {
    if ("remove" in change) return `remove ${change.table}/${change.remove}`;
    const record: object = change.put;
    const key = "uuid" in record ? record.uuid : "id" in record ? record.id : "";
    return `put ${change.table}/${String("key" in record ? record.key : key)}`;
  });
  return { kind: "store", reason: step.reason, changes };
}

function renderWarning({ severity, subject, message, remedy }: PlanWarning): Warning {
  return { severity, subject, message, remedy };
}

/** What the planner would do now. */
export function renderPlan(plan: Plan): PlanView {
  return {
    works: plan.works.map(({ subject, steps }) => ({ subject, steps: steps.map(renderStep) })),
    warnings: plan.warnings.map(renderWarning),
    ...(plan.wakeAtMs === null ? {} : { wakeAt: timeText(plan.wakeAtMs) }),
  };
}

function statusNodes(state: ClusterState): Status["nodes"] {
  const { stored } = state;
  const replicas = new Map<string, number>();
  for (const { nodeId } of stored.replicas.values()) {
    replicas.set(nodeId, (replicas.get(nodeId) ?? 0) + 1);
  }
  const targets = new Map<string, number>();
  for (const { nodeId, phase } of stored.nexuses.values()) {
    if (phase === "Open") targets.set(nodeId, (targets.get(nodeId) ?? 0) + 1);
  }
  return sorted(stored, "nodes").map((node) => ({
    id: node.id,
    status: nodeStatus(state, node.id),
    version: state.observed.get(node.id)?.info?.version ?? node.version,
    cordoned: isNodeCordoned(node),
    drain: node.drainPhase,
    pools: stored.poolsOfNode.get(node.id)?.size ?? 0,
    replicas: replicas.get(node.id) ?? 0,
    targets: targets.get(node.id) ?? 0,
  }));
}

function statusPools(state: ClusterState): Status["pools"] {
  return sorted(state.stored, "pools").map((pool) => {
    const seen = state.observed.get(pool.nodeId)?.pools.get(pool.id);
    return {
      id: pool.id,
      node: pool.nodeId,
      status: poolStatus(state, pool),
      capacity: seen?.capacityBytes ?? 0,
      used: seen?.usedBytes ?? 0,
      committed: seen?.committedBytes ?? 0,
      cordoned: pool.cordoned,
      replicas: state.stored.replicasOfPool.get(pool.id)?.size ?? 0,
    };
  });
}

function needsAttention(volume: VolumeRecord, status: VolumeStatus): boolean {
  return status !== "Online" || volume.status !== "Created";
}

function statusVolumes(state: ClusterState): Status["volumes"] {
  const byStatus: Record<VolumeStatus, number> = {
    Unknown: 0,
    Online: 0,
    Degraded: 0,
    Faulted: 0,
    Shutdown: 0,
  };
  const attention: Status["volumes"]["attention"] = [];
  let published = 0;
  let sizeBytes = 0;
  for (const volume of sorted(state.stored, "volumes")) {
    const status = volumeStatus(state, volume);
    byStatus[status] += 1;
    if (volume.target !== null) published += 1;
    sizeBytes += volume.sizeBytes;
    if (!needsAttention(volume, status) || attention.length >= STATUS_VOLUMES_MAX) continue;
    attention.push({
      uuid: volume.uuid,
      status,
      spec: volume.status,
      replicas: state.stored.replicasOfVolume.get(volume.uuid)?.size ?? 0,
      replicasWanted: volume.replicaCount,
      ...(volume.target === null ? {} : { node: volume.target.nodeId }),
    });
  }
  return { total: state.stored.volumes.size, byStatus, published, sizeBytes, attention };
}

function statusRebuilds(state: ClusterState): Status["rebuilds"] {
  const running: Status["rebuilds"]["running"] = [];
  let total = 0;
  for (const nexus of state.stored.nexuses.values()) {
    if (nexus.volumeUuid === null) continue;
    for (const rebuild of renderRunningRebuilds(state, nexus)) {
      total += 1;
      if (running.length >= STATUS_REBUILDS_MAX) continue;
      running.push({ volume: nexus.volumeUuid, node: nexus.nodeId, rebuild });
    }
  }
  const queued = renderQueuedRebuilds(state);
  const shown = queued.slice(0, STATUS_REBUILDS_MAX);
  return { total, running, queuedTotal: queued.length, queued: shown };
}

/** Scrubs that run or wait, as many as fit. */
function statusScrubs(state: ClusterState): Pick<Status, "scrubs"> {
  const scrubs: NonNullable<Status["scrubs"]> = [];
  for (const key of state.stored.settings.keys()) {
    const volume = state.stored.volumes.get(volumeOfScrubKey(key) ?? "");
    if (volume === undefined || scrubs.length >= STATUS_REBUILDS_MAX) continue;
    if (keptScrub(state.stored, volume.uuid)?.state !== "Running") continue;
    scrubs.push(renderScrub(state, volume));
  }
  return scrubs.length === 0 ? {} : { scrubs };
}

/** What a one-screen status needs. */
export function renderStatus(
  state: ClusterState,
  cluster: Cluster,
  warnings: readonly PlanWarning[],
): Status {
  return {
    at: timeText(state.nowMs),
    cluster,
    nodes: statusNodes(state),
    pools: statusPools(state),
    volumes: statusVolumes(state),
    snapshots: state.stored.snapshots.size,
    rebuilds: statusRebuilds(state),
    ...statusScrubs(state),
    warnings: warnings.map(renderWarning),
  };
}
