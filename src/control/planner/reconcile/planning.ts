/** What the parts of reconciliation share: the state with look-ups, failures, warnings, wake-ups. */
import type { ErrorCode } from "../../../errors.ts";
import type {
  ClusterState,
  EngineNexus,
  EnginePool,
  EngineReplica,
  ObservedNode,
} from "../../cluster-state.ts";
import type {
  NexusRecord,
  NodeId,
  PoolRecord,
  ReplicaRecord,
  SnapshotRecord,
  Uuid,
  VolumeRecord,
} from "../../model.ts";
import type { Warning } from "../plan.ts";
import { type QueuedRebuild, queuedRebuilds } from "./rebuild-queue.ts";

/** The last thing that went wrong with a subject, since its last success. */
export interface SubjectFailure {
  readonly code: ErrorCode;
  readonly message: string;
  readonly remedy: string;
}
/** Failures by subject. They only ever speed up giving up, or explain; nothing rests on them. */
export type Failures = ReadonlyMap<string, SubjectFailure>;

export const noFailures: Failures = new Map();

/** Codes that say that the engine has decided, not that it could not be asked. */
export function isDefinite(failure: SubjectFailure): boolean {
  switch (failure.code) {
    case "Unavailable":
    case "Timeout":
    case "DeadlineExceeded":
    case "Aborted":
    case "InUse":
    case "ResourceExhausted":
      return false;
    default:
      return true;
  }
}

/** As `isDefinite`, for things in a pool: one that is not found may be about to be imported. */
export function isRefused(failure: SubjectFailure): boolean {
  return failure.code !== "NotFound" && isDefinite(failure);
}

/** `txnId` of a snapshot that nobody has begun to take. */
const NOT_BEGUN = 1;

/** It is being taken, or was when whoever took it died. */
export function isBegun(snapshot: SnapshotRecord): boolean {
  return snapshot.status === "Creating" && snapshot.txnId > NOT_BEGUN;
}

export class Planning {
  readonly state: ClusterState;
  readonly failures: Failures;
  readonly warnings: Warning[] = [];
  wakeAtMs: number | null = null;
  /** Volumes whose scrub may begin now; found out when the first one is due. */
  scrubsToBegin: ReadonlySet<Uuid> | null = null;
  #queued: ReadonlyMap<Uuid, QueuedRebuild> | null = null;

  constructor(state: ClusterState, failures: Failures) {
    this.state = state;
    this.failures = failures;
  }

  get stored() {
    return this.state.stored;
  }

  get nowMs(): number {
    return this.state.nowMs;
  }

  warn(severity: Warning["severity"], subject: string, message: string, remedy: string): void {
    this.warnings.push({ severity, subject, message, remedy });
  }

  /** Has the plan made again at this time, or earlier. */
  wakeAt(ms: number): void {
    if (this.wakeAtMs === null || ms < this.wakeAtMs) this.wakeAtMs = ms;
  }

  // ----------------------------------------------------------------------------------- the nodes

  /** What is known of a node that can be asked at present; undefined otherwise. */
  online(id: NodeId): ObservedNode | undefined {
    const node = this.state.observed.get(id);
    return node?.status === "Online" ? node : undefined;
  }

  /** It does not answer, or there is no such node any more: waiting for it may take for ever. */
  isGone(id: NodeId): boolean {
    if (!this.stored.nodes.has(id)) return true;
    return this.state.observed.get(id)?.status === "Offline";
  }

  // -------------------------------------------------------------------------------- what is there

  /** The pool as its engine reports it now, if it is the one of the record. */
  pool(record: PoolRecord | undefined): EnginePool | undefined {
    if (record === undefined) return undefined;
    const pool = this.online(record.nodeId)?.pools.get(record.id);
    return pool?.uuid === record.uuid ? pool : undefined;
  }

  /** The replica as its engine reports it now, if it is in the pool of the record. */
  replica(record: ReplicaRecord): EngineReplica | undefined {
    const replica = this.online(record.nodeId)?.replicas.get(record.uuid);
    return replica?.poolName === record.poolId ? replica : undefined;
  }

  nexus(record: NexusRecord): EngineNexus | undefined {
    return this.online(record.nodeId)?.nexuses.get(record.uuid);
  }

  // --------------------------------------------------------------------------- what belongs together

  replicasOf(volume: VolumeRecord): ReplicaRecord[] {
    return this.#records(this.stored.replicasOfVolume.get(volume.uuid), this.stored.replicas);
  }

  nexusesOf(volume: VolumeRecord): NexusRecord[] {
    return this.#records(this.stored.nexusesOfVolume.get(volume.uuid), this.stored.nexuses);
  }

  snapshotsOf(volume: VolumeRecord): SnapshotRecord[] {
    return this.#records(this.stored.snapshotsOfVolume.get(volume.uuid), this.stored.snapshots);
  }

  #records<T>(keys: ReadonlySet<Uuid> | undefined, table: ReadonlyMap<Uuid, T>): T[] {
    if (keys === undefined) return [];
    const found: T[] = [];
    for (const key of keys) {
      const record = table.get(key);
      if (record !== undefined) found.push(record);
    }
    return found;
  }

  /** Why the rebuild of a volume's replica has to wait for others; null: it may begin. */
  whyQueued(replica: ReplicaRecord): string | null {
    this.#queued ??= queuedRebuilds(this.state);
    return this.#queued.get(replica.uuid)?.reason ?? null;
  }
}
