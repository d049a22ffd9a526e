/**
 * The state of a pool's object, the same for DiskPool and MayastorPool, and how each of them shows it
 * (mayastor.md 7.1). Pure.
 */
import type { Pool, PoolStatus } from "../../client/types.ts";
import type { KubeObject } from "../client/objects.ts";

export type CrState = "Creating" | "Created" | "Terminating";

/** Why a pool is not what its object says: Mayastor's codes, and what a person can do. */
export interface PoolProblem {
  readonly code: string;
  readonly message: string;
}

export interface PoolView {
  readonly crState: CrState;
  readonly poolStatus: PoolStatus;
  /** Bytes. */
  readonly capacity: number;
  readonly used: number;
  readonly diskCapacity: number;
  readonly clusterSize: number;
  readonly problem: PoolProblem | null;
}

/** An object that declares a pool, as Kubernetes has it. */
export interface PoolObject extends KubeObject {
  readonly spec?: unknown;
  readonly status?: PoolObjectStatus;
}
export interface PoolObjectStatus {
  readonly cr_state?: CrState;
  readonly pool_status?: PoolStatus;
  readonly error?: PoolProblem | null;
  readonly conditions?: readonly Condition[];
  /** MayastorPool's. */
  readonly state?: string;
  readonly reason?: string | null;
  readonly [other: string]: unknown;
}
interface Condition {
  readonly type: string;
  readonly status: string;
  readonly reason?: string;
  readonly message?: string;
  readonly lastTransitionTime?: string;
  readonly observedGeneration?: number;
}

export function isMayastorPool({ kind }: PoolObject): boolean {
  return kind === "MayastorPool";
}

/** What an object says that its pool was when it was last written. */
export function recordedView(
  object: PoolObject,
): Pick<PoolView, "crState" | "poolStatus" | "problem"> {
  const status = object.status ?? {};
  if (isMayastorPool(object)) {
    const state = status.state ?? "PENDING";
    const shown = (["Online", "Degraded", "Faulted"] as const).find(
      (one) => one.toUpperCase() === state,
    );
    const reason = status.reason ?? "";
    return {
      crState: state === "PENDING" ? "Creating" : "Created",
      poolStatus: shown ?? "Unknown",
      problem: reason === "" ? null : { code: "", message: reason },
    };
  }
  return {
    crState: status.cr_state ?? "Creating",
    poolStatus: status.pool_status ?? "Unknown",
    problem: status.error ?? null,
  };
}

/** What has become of an object: it never falls back from Created, so that a pool is made once. */
export function crStateOf(object: PoolObject, pool: Pool | null): CrState {
  if (object.metadata.deletionTimestamp !== undefined) return "Terminating";
  if (recordedView(object).crState === "Created") return "Created";
  return pool?.spec?.status === "Created" ? "Created" : "Creating";
}

/** What a pool is, as far as the API tells. */
export function viewOf(pool: Pool | null, crState: CrState, problem: PoolProblem | null): PoolView {
  const state = pool?.state;
  return {
    crState,
    poolStatus: state?.status ?? "Unknown",
    capacity: state?.capacity ?? 0,
    used: state?.used ?? 0,
    diskCapacity: state?.disk_capacity ?? 0,
    clusterSize: state?.cluster_size ?? 0,
    problem,
  };
}

/** Bytes as Kubernetes writes quantities: the largest unit that divides, or leaves two decimals. */
export function quantity(bytes: number): string {
  const units = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${Number.isInteger(value) ? value : value.toFixed(2)}${units[unit]}`;
}

function conditionOf(object: PoolObject, view: PoolView, now: string): Condition {
  const status =
    view.poolStatus === "Online"
      ? "True"
      : view.poolStatus === "Unknown" && view.problem === null
        ? "Unknown"
        : "False";
  const before = object.status?.conditions?.find(({ type }) => type === "PoolReady");
  const since = before?.status === status ? before.lastTransitionTime : undefined;
  const { generation } = object.metadata;
  return {
    type: "PoolReady",
    status,
    reason: view.problem?.code || view.poolStatus,
    message: view.problem?.message ?? "",
    lastTransitionTime: since ?? now,
    ...(generation === undefined ? {} : { observedGeneration: generation }),
  };
}

/** The status of a DiskPool, in the fields of all its versions. Null takes a field away. */
function diskPoolStatus(object: PoolObject, view: PoolView, now: string): PoolObjectStatus {
  const available = Math.max(0, view.capacity - view.used);
  return {
    cr_state: view.crState,
    pool_status: view.poolStatus,
    status: view.poolStatus,
    capacity: view.capacity,
    used: view.used,
    available,
    capacity_q: quantity(view.capacity),
    used_q: quantity(view.used),
    available_q: quantity(available),
    diskCapacity: view.diskCapacity === 0 ? null : quantity(view.diskCapacity),
    clusterSize: view.clusterSize === 0 ? null : quantity(view.clusterSize),
    encrypted: false,
    error: view.problem,
    conditions: [conditionOf(object, view, now)],
  };
}

function mayastorPoolStatus(pool: Pool | null, view: PoolView): PoolObjectStatus {
  const state =
    view.crState === "Creating"
      ? "PENDING"
      : view.poolStatus === "Unknown"
        ? "OFFLINE"
        : view.poolStatus.toUpperCase();
  return {
    state,
    reason: view.problem?.message ?? "",
    node: pool?.spec?.node ?? null,
    disks: pool?.spec?.disks ?? null,
    capacity: view.capacity,
    used: view.used,
    avail: Math.max(0, view.capacity - view.used),
  };
}

/** The status that an object is to show. `now`: RFC 3339, for what has changed. */
export function statusOf(
  object: PoolObject,
  pool: Pool | null,
  view: PoolView,
  now: string,
): PoolObjectStatus {
  return isMayastorPool(object)
    ? mayastorPoolStatus(pool, view)
    : diskPoolStatus(object, view, now);
}

/** Whether an object shows this already: null is what is not there. */
export function isShown(status: PoolObjectStatus, object: PoolObject): boolean {
  const shown = object.status ?? {};
  return Object.entries(status).every(([key, value]) =>
    Bun.deepEquals(value ?? undefined, shown[key] ?? undefined),
  );
}
