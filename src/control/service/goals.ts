/** When what an operation began is done: conditions on records and on what engines report. Pure. */
import type { ClusterState, EngineNexus, EngineReplica } from "../cluster-state.ts";
import type { NexusRecord, NodeId, PoolId, ReplicaRecord, Uuid, VolumeRecord } from "../model.ts";
import { sameHosts, servedTo } from "../planner/reconcile/uris.ts";
import { childOf, nexusesOf, replicasOf, targetNexus } from "../planner/status.ts";
import { WAIT_MS } from "./limits.ts";
import { done, failed, type Goal, type Progress, waiting } from "./wait.ts";

const rolledBack: Progress<never> = { kind: "rolledBack", isOver: true };
const rollingBack: Progress<never> = { kind: "rolledBack", isOver: false };

function isOnline(state: ClusterState, nodeId: NodeId): boolean {
  return state.observed.get(nodeId)?.status === "Online";
}

function livingReplicas(state: ClusterState, uuid: Uuid): ReplicaRecord[] {
  return replicasOf(state, uuid).filter(({ status }) => status !== "Deleting");
}

/** A replica's engine reports it. What it would say of one on a node that is away is not waited for. */
function isReplicaSeen(
  state: ClusterState,
  replica: ReplicaRecord,
  isSo: (seen: EngineReplica) => boolean = () => true,
): boolean {
  const node = state.observed.get(replica.nodeId);
  if (node?.status !== "Online") return true;
  const seen = node.replicas.get(replica.uuid);
  return seen !== undefined && isSo(seen);
}

function nexusSeen(state: ClusterState, nexus: NexusRecord): EngineNexus | undefined {
  return state.observed.get(nexus.nodeId)?.nexuses.get(nexus.uuid);
}

function volumeSubjects(uuid: Uuid): (state: ClusterState) => readonly string[] {
  return (state) => [
    `volume/${uuid}`,
    ...replicasOf(state, uuid).map((replica) => `replica/${replica.uuid}`),
    ...nexusesOf(state, uuid).map((nexus) => `nexus/${nexus.uuid}`),
  ];
}

function only(subject: string): () => readonly string[] {
  return () => [subject];
}

// ------------------------------------------------------------------------------- pools and replicas

export function poolCreated(id: PoolId): Goal<void> {
  return {
    what: `creation of pool ${id}`,
    timeoutMs: WAIT_MS.poolImport,
    subjects: only(`pool/${id}`),
    endsOnFailure: false,
    progress: (state) => {
      const pool = state.stored.pools.get(id);
      if (pool === undefined) return rolledBack;
      if (pool.status === "Deleting") return rollingBack;
      if (pool.status === "Creating") return waiting;
      const node = state.observed.get(pool.nodeId);
      return node?.status === "Online" && !node.pools.has(id) ? waiting : done();
    },
  };
}

export function poolGone(id: PoolId): Goal<void> {
  return {
    what: `deletion of pool ${id}`,
    timeoutMs: WAIT_MS.pool,
    subjects: only(`pool/${id}`),
    endsOnFailure: true,
    progress: (state) => (state.stored.pools.has(id) ? waiting : done()),
  };
}

export function poolExpanded(id: PoolId, capacityBytes: number): Goal<void> {
  return {
    what: `expansion of pool ${id}`,
    timeoutMs: WAIT_MS.pool,
    subjects: only(`pool/${id}`),
    endsOnFailure: true,
    progress: (state) => {
      const pool = state.stored.pools.get(id);
      if (pool === undefined) return failed("NotFound", `pool ${id} was deleted meanwhile`);
      const node = state.observed.get(pool.nodeId);
      const seen = node?.status === "Online" ? node.pools.get(id) : undefined;
      return seen !== undefined && seen.capacityBytes < capacityBytes ? waiting : done();
    },
  };
}

export function replicaCreated(uuid: Uuid): Goal<void> {
  return {
    what: `creation of replica ${uuid}`,
    timeoutMs: WAIT_MS.replica,
    subjects: only(`replica/${uuid}`),
    endsOnFailure: true,
    progress: (state) => {
      const replica = state.stored.replicas.get(uuid);
      if (replica === undefined) return rolledBack;
      if (replica.status === "Deleting") return rollingBack;
      if (replica.status === "Creating") return waiting;
      const isServed = (seen: EngineReplica) => sameHosts(servedTo(seen), replica.allowedHosts);
      return isReplicaSeen(state, replica, isServed) ? done() : waiting;
    },
  };
}

export function replicaGone(uuid: Uuid): Goal<void> {
  return {
    what: `deletion of replica ${uuid}`,
    timeoutMs: WAIT_MS.replica,
    subjects: only(`replica/${uuid}`),
    endsOnFailure: true,
    progress: (state) => (state.stored.replicas.has(uuid) ? waiting : done()),
  };
}

/** The replica is served as its record says. The value is its URI. */
export function replicaServed(uuid: Uuid): Goal<string> {
  return {
    what: `sharing of replica ${uuid}`,
    timeoutMs: WAIT_MS.replica,
    subjects: only(`replica/${uuid}`),
    endsOnFailure: true,
    progress: (state) => {
      const replica = state.stored.replicas.get(uuid);
      if (replica === undefined || replica.status === "Deleting") {
        return failed("NotFound", `replica ${uuid} was deleted meanwhile`);
      }
      const seen = state.observed.get(replica.nodeId)?.replicas.get(uuid);
      if (seen === undefined || !isOnline(state, replica.nodeId)) return waiting;
      return sameHosts(servedTo(seen), replica.allowedHosts) ? done(seen.uri) : waiting;
    },
  };
}

// ------------------------------------------------------------------------------------------ nexuses

/** A nexus that was made by hand is as its record says: open, served, with its children. */
export function nexusAsRecorded(uuid: Uuid, what: string): Goal<string> {
  return {
    what: `${what} of nexus ${uuid}`,
    timeoutMs: WAIT_MS.nexus,
    subjects: only(`nexus/${uuid}`),
    endsOnFailure: true,
    progress: (state) => {
      const nexus = state.stored.nexuses.get(uuid);
      if (nexus === undefined) return rolledBack;
      if (nexus.status === "Deleting" || nexus.phase === "Shutdown") return rollingBack;
      if (nexus.status === "Creating" || !isOnline(state, nexus.nodeId)) return waiting;
      const seen = nexusSeen(state, nexus);
      if (seen === undefined) return waiting;
      const wanted = nexus.share === "nvmf" ? nexus.allowedHosts : null;
      const children = new Set(seen.children.map(({ uri }) => uri));
      const isSo =
        sameHosts(servedTo(seen), wanted) &&
        children.size === nexus.children.length &&
        nexus.children.every(({ uri }) => children.has(uri));
      return isSo ? done(seen.deviceUri) : waiting;
    },
  };
}

export function nexusGone(uuid: Uuid): Goal<void> {
  return {
    what: `deletion of nexus ${uuid}`,
    timeoutMs: WAIT_MS.nexus,
    subjects: only(`nexus/${uuid}`),
    endsOnFailure: true,
    progress: (state) => (state.stored.nexuses.has(uuid) ? waiting : done()),
  };
}

// ------------------------------------------------------------------------------------------ volumes

export function volumeCreated(uuid: Uuid): Goal<void> {
  return {
    what: `creation of volume ${uuid}`,
    timeoutMs: WAIT_MS.volume,
    subjects: volumeSubjects(uuid),
    endsOnFailure: false,
    progress: (state) => {
      const volume = state.stored.volumes.get(uuid);
      if (volume === undefined) return rolledBack;
      if (volume.status === "Deleting") return rollingBack;
      if (volume.status === "Creating") return waiting;
      const replicas = livingReplicas(state, uuid);
      return replicas.every((replica) => isReplicaSeen(state, replica)) ? done() : waiting;
    },
  };
}

export function volumeGone(uuid: Uuid): Goal<void> {
  return {
    what: `deletion of volume ${uuid}`,
    timeoutMs: WAIT_MS.volume,
    subjects: volumeSubjects(uuid),
    endsOnFailure: false,
    progress: (state) => (state.stored.volumes.has(uuid) ? waiting : done()),
  };
}

function gone(uuid: Uuid): Progress<never> {
  return failed("Aborted", `volume ${uuid} was deleted meanwhile`);
}

function living(state: ClusterState, uuid: Uuid): VolumeRecord | null {
  const volume = state.stored.volumes.get(uuid);
  return volume === undefined || volume.status === "Deleting" ? null : volume;
}

/** The volume is served as its target says. The value is the URI that hosts connect to. */
export function volumePublished(uuid: Uuid, what: string): Goal<string> {
  return {
    what: `${what} of volume ${uuid}`,
    timeoutMs: WAIT_MS.publish,
    subjects: volumeSubjects(uuid),
    endsOnFailure: true,
    progress: (state) => {
      const volume = living(state, uuid);
      if (volume === null) return gone(uuid);
      const nexus = targetNexus(state, volume);
      if (volume.target === null || nexus === undefined) {
        return failed("Aborted", `volume ${uuid} was unpublished meanwhile`);
      }
      if (nexus.status === "Creating" || !isOnline(state, nexus.nodeId)) return waiting;
      const seen = nexusSeen(state, nexus);
      if (seen === undefined) return waiting;
      const wanted = nexus.share === "nvmf" ? nexus.allowedHosts : null;
      return sameHosts(servedTo(seen), wanted) ? done(seen.deviceUri) : waiting;
    },
  };
}

/** Former targets are closed, as far as their nodes answer. */
export function formerTargetsClosed(uuid: Uuid, what: string): Goal<void> {
  return {
    what: `${what} of volume ${uuid}`,
    timeoutMs: WAIT_MS.unpublish,
    subjects: volumeSubjects(uuid),
    endsOnFailure: true,
    progress: (state) => {
      const former = nexusesOf(state, uuid).filter(({ phase }) => phase === "Shutdown");
      return former.some(({ nodeId }) => isOnline(state, nodeId)) ? waiting : done();
    },
  };
}

/**
 * What an unpublishing asked for is so. From a host: as long as the target is another host's, too, it
 * goes on without that one; former targets are closed in any case.
 */
export function volumeUnpublished(uuid: Uuid, fromHost: string | null): Goal<void> {
  const closed = formerTargetsClosed(uuid, "unpublishing");
  if (fromHost === null) return closed;
  const served = volumePublished(uuid, "unpublishing");
  return {
    ...closed,
    progress: (state) => {
      const volume = living(state, uuid);
      if (volume === null || volume.target === null) return closed.progress(state);
      const progress = served.progress(state);
      return progress.kind === "done" ? closed.progress(state) : progress;
    },
  };
}

/** As many replicas as wanted are there and take part; those that are to go are gone. */
export function replicaCountReached(uuid: Uuid): Goal<void> {
  return {
    what: `change of the replica count of volume ${uuid}`,
    timeoutMs: WAIT_MS.replicaCount,
    subjects: volumeSubjects(uuid),
    endsOnFailure: false,
    progress: (state) => {
      const volume = living(state, uuid);
      if (volume === null) return gone(uuid);
      const replicas = livingReplicas(state, uuid);
      const going = replicasOf(state, uuid).filter(({ status }) => status === "Deleting");
      if (replicas.length !== volume.replicaCount) return waiting;
      if (replicas.some(({ status }) => status === "Creating")) return waiting;
      if (going.some(({ nodeId }) => isOnline(state, nodeId))) return waiting;
      const nexus = targetNexus(state, volume);
      if (nexus === undefined || !isOnline(state, nexus.nodeId)) return done();
      const takesPart = (replica: ReplicaRecord) =>
        childOf(state, volume, replica.uuid) !== undefined;
      return replicas.every(takesPart) ? done() : waiting;
    },
  };
}

export function volumeResized(uuid: Uuid): Goal<void> {
  return {
    what: `growth of volume ${uuid}`,
    timeoutMs: WAIT_MS.resize,
    subjects: volumeSubjects(uuid),
    endsOnFailure: true,
    progress: (state) => {
      const volume = living(state, uuid);
      if (volume === null) return gone(uuid);
      const { sizeBytes } = volume;
      const isLarge = (seen: { readonly sizeBytes: number }) => seen.sizeBytes >= sizeBytes;
      const replicas = livingReplicas(state, uuid);
      if (!replicas.every((replica) => isReplicaSeen(state, replica, isLarge))) return waiting;
      const nexus = targetNexus(state, volume);
      if (nexus === undefined || !isOnline(state, nexus.nodeId)) return done();
      const seen = nexusSeen(state, nexus);
      return seen !== undefined && isLarge(seen) ? done() : waiting;
    },
  };
}

// ---------------------------------------------------------------------------------------- snapshots

export function snapshotCreated(uuid: Uuid): Goal<void> {
  return {
    what: `creation of snapshot ${uuid}`,
    timeoutMs: WAIT_MS.snapshot,
    subjects: only(`snapshot/${uuid}`),
    endsOnFailure: false,
    progress: (state) => {
      const snapshot = state.stored.snapshots.get(uuid);
      if (snapshot === undefined) return rolledBack;
      if (snapshot.status === "Deleting") return rollingBack;
      if (snapshot.status === "Creating") return waiting;
      const isSeen = snapshot.replicas.every((replica) => {
        const node = state.observed.get(replica.nodeId);
        return (
          replica.status !== "Created" ||
          node?.status !== "Online" ||
          node.snapshots.has(replica.uuid)
        );
      });
      return isSeen ? done() : waiting;
    },
  };
}

export function snapshotGone(uuid: Uuid): Goal<void> {
  return {
    what: `deletion of snapshot ${uuid}`,
    timeoutMs: WAIT_MS.snapshot,
    subjects: only(`snapshot/${uuid}`),
    endsOnFailure: true,
    progress: (state) => (state.stored.snapshots.has(uuid) ? waiting : done()),
  };
}
