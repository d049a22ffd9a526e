/** What the disks of a cluster say, and what is made of it. Types only. */
import type {
  EngineNexus,
  EnginePool,
  EngineReplica,
  EngineSnapshot,
} from "../../cluster-state.ts";
import type { NodeId, PoolId, Uuid } from "../../model.ts";
import type { Change } from "../../planner/plan.ts";

/** A pool on a device that is no disk of the machine, e.g. a file. */
export interface NamedDisk {
  readonly nodeId: NodeId;
  readonly poolName: string;
  readonly uri: string;
}

/** What one node's engine has. */
export interface FoundNode {
  readonly nodeId: NodeId;
  readonly pools: readonly EnginePool[];
  readonly replicas: readonly EngineReplica[];
  readonly snapshots: readonly EngineSnapshot[];
  readonly nexuses: readonly EngineNexus[];
  /** What could not be read or opened there; empty when all could. */
  readonly problems: readonly string[];
}

/** `create`: its record is made; `present`: it has one; `left`: it gets none, see the problems. */
export type RebuildAction = "create" | "present" | "left";

export interface RebuiltPool {
  readonly id: PoolId;
  readonly nodeId: NodeId;
  readonly uuid: Uuid;
  readonly action: RebuildAction;
}

export interface RebuiltVolume {
  readonly uuid: Uuid;
  readonly sizeBytes: number;
  /** The number of replicas that were found: how many there should be is on no disk. */
  readonly replicaCount: number;
  readonly healthyReplicas: number;
  readonly thin: boolean;
  readonly epoch: number;
  /** Node whose engine serves it now; null: none does. */
  readonly servedBy: NodeId | null;
  readonly action: RebuildAction;
}

/** What a rebuild found, makes, and leaves. */
export interface RebuildReport {
  /** False: this is what would be made. */
  readonly applied: boolean;
  readonly pools: readonly RebuiltPool[];
  readonly volumes: readonly RebuiltVolume[];
  /** Records of replicas, snapshots and nexuses that are made. */
  readonly replicas: number;
  readonly snapshots: number;
  readonly nexuses: number;
  readonly problems: readonly string[];
}

export interface Rebuild {
  /**
   * Changes that belong together, volume by volume; those of the pools last: as long as a pool has no
   * record, nothing in it is taken for garbage.
   */
  readonly groups: readonly (readonly Change[])[];
  readonly report: Omit<RebuildReport, "applied">;
}
