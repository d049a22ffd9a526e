/** Nexuses, their children and rebuilds as the API shows them. */
import type { ClusterState, EngineNexus } from "../../control/cluster-state.ts";
import type { NexusRecord, RebuildHistoryRecord } from "../../control/model.ts";
import { queuedRebuilds } from "../../control/planner/reconcile/rebuild-queue.ts";
import { nexusStatus, observedNexus } from "../../control/planner/status.ts";
import type {
  Child,
  Nexus,
  NexusSpec,
  QueuedRebuild,
  RebuildRecord,
  RunningRebuild,
} from "../schemas/index.ts";
import { timeText } from "./time.ts";

type EngineChild = EngineNexus["children"][number];
type EngineRebuild = NonNullable<EngineChild["rebuild"]>;

const childStates = {
  online: "Online",
  degraded: "Degraded",
  faulted: "Faulted",
  unknown: "Unknown",
} as const satisfies Record<EngineChild["state"], Child["state"]>;

const rebuildStates = {
  init: "Init",
  rebuilding: "Rebuilding",
  paused: "Paused",
  stopped: "Stopped",
  failed: "Failed",
  completed: "Completed",
} as const satisfies Record<EngineRebuild["state"], RebuildRecord["rebuildJobState"]>;

/** The contract knows one reason only. */
export function childReason(child: EngineChild): "OutOfSpace" | undefined {
  return child.reason === "no-space" ? "OutOfSpace" : undefined;
}

export function childState(child: EngineChild): Child["state"] {
  return childStates[child.state];
}

/** Whole percent of a rebuild that runs; undefined when none does. */
export function childProgress(child: EngineChild): number | undefined {
  if (child.rebuild === null) return undefined;
  return Math.min(100, Math.max(0, Math.floor(child.rebuild.progressPercent)));
}

function renderChild(child: EngineChild): Child {
  const state_reason = childReason(child);
  const rebuildProgress = childProgress(child);
  return {
    ...(rebuildProgress === undefined ? {} : { rebuildProgress }),
    state: childState(child),
    ...(state_reason === undefined ? {} : { state_reason }),
    uri: child.uri,
  };
}

/** Where hosts connect to. A nexus that lets one host in says which, as Mayastor's do. */
function deviceUriOf({ allowedHosts }: NexusRecord, uri: string): string {
  const [host] = allowedHosts;
  if (uri === "" || host === undefined || allowedHosts.length > 1) return uri;
  const name = encodeURIComponent(host).replaceAll("%3A", ":");
  return `${uri}${uri.includes("?") ? "&" : "?"}hostnqn=${name}`;
}

/** A nexus. While its engine does not report it, its children are those on record, in state `Unknown`. */
export function renderNexus(state: ClusterState, nexus: NexusRecord): Nexus {
  const seen = observedNexus(state, nexus);
  const share = seen?.shares.find(({ protocol }) => protocol === "nvmf");
  const protocol =
    seen === undefined ? nexus.share : share !== undefined ? "nvmf" : seen.shares[0]?.protocol;
  return {
    children:
      seen === undefined
        ? nexus.children.map(({ uri }) => ({ state: "Unknown" as const, uri }))
        : seen.children.map(renderChild),
    deviceUri: deviceUriOf(nexus, seen?.deviceUri ?? ""),
    node: nexus.nodeId,
    rebuilds: seen?.rebuilds ?? 0,
    protocol: protocol ?? "none",
    size: seen?.sizeBytes ?? nexus.sizeBytes,
    state: nexusStatus(state, nexus),
    uuid: nexus.uuid,
  };
}

export function renderNexusSpec(nexus: NexusRecord): NexusSpec {
  return {
    children: nexus.children.map(({ uri }) => uri),
    managed: nexus.volumeUuid !== null,
    node: nexus.nodeId,
    ...(nexus.volumeUuid === null ? {} : { owner: nexus.volumeUuid }),
    share: nexus.share,
    size: nexus.sizeBytes,
    status: nexus.status,
    uuid: nexus.uuid,
  };
}

/** A rebuild that ended. */
export function renderRebuildRecord(record: RebuildHistoryRecord): RebuildRecord {
  return {
    childUri: record.childUri,
    srcUri: record.sourceUri,
    rebuildJobState: record.state,
    blocksTotal: record.blocksTotal,
    blocksRecovered: record.blocksRecovered,
    blocksTransferred: record.blocksTransferred,
    blocksRemaining: record.blocksRemaining,
    blockSize: record.blockSize,
    isPartial: record.isPartial,
    startTime: timeText(record.startTimeMs),
    endTime: timeText(record.endTimeMs),
  };
}

function replicaOfChild(nexus: NexusRecord, uri: string): string | undefined {
  for (const child of nexus.children) {
    if (child.replicaUuid === null) continue;
    if (child.uri === uri || uri.includes(child.replicaUuid)) return child.replicaUuid;
  }
  return undefined;
}

function renderRunning(nexus: NexusRecord, rebuild: EngineRebuild): RunningRebuild {
  const replica = replicaOfChild(nexus, rebuild.childUri);
  return {
    ...(replica === undefined ? {} : { replica }),
    childUri: rebuild.childUri,
    srcUri: rebuild.srcUri,
    rebuildJobState: rebuildStates[rebuild.state],
    blocksTotal: rebuild.blocksTotal,
    blocksRecovered: rebuild.blocksRecovered,
    blocksTransferred: rebuild.blocksTransferred,
    blocksRemaining: rebuild.blocksRemaining,
    blockSize: rebuild.blockSize,
    isPartial: rebuild.isPartial,
    startTime: timeText(rebuild.startTimeMs),
    progressPercent: rebuild.progressPercent,
    bytesPerSec: rebuild.bytesPerSec,
    ...(rebuild.etaMs === null ? {} : { etaMs: rebuild.etaMs }),
  };
}

/** Rebuilds that run in a nexus now. */
export function renderRunningRebuilds(state: ClusterState, nexus: NexusRecord): RunningRebuild[] {
  const children = observedNexus(state, nexus)?.children ?? [];
  return children.flatMap(({ rebuild }) =>
    rebuild === null ? [] : [renderRunning(nexus, rebuild)],
  );
}

/** Rebuilds that wait for others to end, who comes first at the top. */
export function renderQueuedRebuilds(state: ClusterState): QueuedRebuild[] {
  return [...queuedRebuilds(state).values()].map((one) => ({
    volume: one.volume.uuid,
    replica: one.replica.uuid,
    node: one.replica.nodeId,
    pool: one.replica.poolId,
    goodCopies: one.goodCopies,
    since: timeText(one.sinceMs),
    reason: one.reason,
  }));
}
