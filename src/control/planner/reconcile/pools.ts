/** Pools: made, imported when their node is back, destroyed. */
import type { EnginePool } from "../../cluster-state.ts";
import type { NodeId, PoolRecord } from "../../model.ts";
import type { Work } from "../plan.ts";
import { hasFailed } from "../status.ts";
import { CREATE_PATIENCE_MS } from "./limits.ts";
import { isDefinite, type Planning, type SubjectFailure } from "./planning.ts";
import { engine, event, givingUp, put, remove, store, work } from "./steps.ts";

/** The disk cannot be read as this pool: there is nothing left that could be destroyed. */
const NO_SUCH_POOL = [
  "NotFound",
  "InvalidArgument",
  "ForeignDisk",
  "FailedPrecondition",
  "Corrupted",
  "DeviceGone",
  "Unimplemented",
];

export function planPool(p: Planning, pool: PoolRecord): Work | null {
  const stray = planStrayPool(p, pool.nodeId, pool.id);
  if (stray !== null) return stray;
  switch (pool.status) {
    case "Creating":
      return creating(p, pool);
    case "Created":
      return created(p, pool);
    case "Deleting":
      return deleting(p, pool);
  }
}

/**
 * A pool that was forgotten when it had failed is still open on its node: it is closed, which leaves
 * its disk as it is and free for other use.
 */
export function planStrayPool(p: Planning, nodeId: NodeId, name: string): Work | null {
  const seen = p.online(nodeId)?.pools.get(name);
  if (seen === undefined || !hasFailed(seen)) return null;
  for (const { uuid } of p.stored.pools.values()) if (uuid === seen.uuid) return null;
  const call = { method: "exportPool", input: { name } } as const;
  const reason = "nobody knows it, and its disk has failed";
  return work(`pool/${name}`, engine(nodeId, call, reason, ["NotFound"]));
}

/** As `planStrayPool`, on whatever node it is. */
export function planOrphanPool(p: Planning, name: string): Work | null {
  for (const id of p.state.observed.keys()) {
    const stray = planStrayPool(p, id, name);
    if (stray !== null) return stray;
  }
  return null;
}

function creating(p: Planning, pool: PoolRecord): Work | null {
  const subject = `pool/${pool.id}`;
  const done = store(
    "the pool is there",
    [put("pools", { ...pool, status: "Created", force: false })],
    [event("Pool", "Create", pool.id, pool.nodeId)],
  );
  if (p.pool(pool) !== undefined) return work(subject, done);
  const failure = p.failures.get(subject);
  const cause = failure ?? silence(p, pool);
  const isLate = p.nowMs - pool.createdAtMs > CREATE_PATIENCE_MS;
  // Whoever holds the disk holds it for long, and it was never this pool's: there is nothing to undo.
  if (cause?.code === "InUse") {
    const step = store(
      `creating failed: ${cause.message}`,
      [remove("pools", pool.id, pool)],
      [event("Pool", "Delete", pool.id, pool.nodeId, `not created: ${cause.message}`)],
    );
    return givingUp(subject, cause, step);
  }
  if (cause !== undefined && (isLate || isDefinite(cause))) {
    const step = store(
      `creating failed: ${cause.message}`,
      [put("pools", { ...pool, status: "Deleting" })],
      [event("Pool", "StateChange", pool.id, pool.nodeId, `creating failed: ${cause.message}`)],
    );
    return givingUp(subject, cause, step);
  }
  if (p.online(pool.nodeId) === undefined) {
    p.wakeAt(pool.createdAtMs + CREATE_PATIENCE_MS + 1);
    return null;
  }
  const { id: name, uuid, disks, clusterSizeBytes, force } = pool;
  const size = clusterSizeBytes === null ? {} : { clusterSizeBytes };
  const input = { name, uuid, disks: [...disks], force, ...size };
  return work(
    subject,
    engine(pool.nodeId, { method: "createPool", input }, "the pool is to be created"),
    done,
  );
}

function silence(p: Planning, pool: PoolRecord): SubjectFailure | undefined {
  if (p.online(pool.nodeId) !== undefined) return undefined;
  return {
    code: "Unavailable",
    message: `node ${pool.nodeId} cannot be reached`,
    remedy: `check trilith-engine.service on ${pool.nodeId}`,
  };
}

/** Opens the pool that its disk holds. Nothing is ever formatted here. */
function created(p: Planning, pool: PoolRecord): Work | null {
  const node = p.online(pool.nodeId);
  if (node === undefined) return null;
  const subject = `pool/${pool.id}`;
  const observed = node.pools.get(pool.id);
  if (observed !== undefined) {
    if (observed.uuid !== pool.uuid) {
      p.warn(
        "critical",
        subject,
        `node ${pool.nodeId} has another pool of this name open (${observed.uuid})`,
        "export that pool or rename it, so that the right one can be imported",
      );
      return null;
    }
    return observed.state === "online" ? null : failing(p, pool, observed);
  }
  const failure = p.failures.get(subject);
  if (failure !== undefined) {
    p.warn(
      "critical",
      subject,
      `the pool cannot be imported: ${failure.message}`,
      `${failure.remedy === "" ? `check ${pool.disks.join(", ")} on ${pool.nodeId}` : failure.remedy}; ` +
        `if the disk is lost for good: trilith delete pool ${pool.id} --purge`,
    );
  }
  const input = { name: pool.id, disks: [...pool.disks], uuid: pool.uuid };
  const reason = "the node is there and its pool is not open";
  return work(subject, engine(pool.nodeId, { method: "importPool", input }, reason));
}

/**
 * A pool that is open and does not work as it should: an operator is told; it is opened anew when its
 * disk has answered for so long that this is worth while. What was replaced meanwhile is garbage then.
 */
function failing(p: Planning, pool: PoolRecord, observed: EnginePool): Work | null {
  const subject = `pool/${pool.id}`;
  const disk = `the disk ${pool.disks.join(", ")} on ${pool.nodeId}`;
  const { state, stateReason } = observed;
  if (!hasFailed(observed)) {
    p.warn(
      "critical",
      subject,
      `the pool is ${state}: ${stateReason}`,
      `check ${disk} (smartctl, dmesg)`,
    );
    return null;
  }
  const lost = `if it is lost for good: trilith delete pool ${pool.id} --purge`;
  const isAnswering = observed.disk === "answering" || observed.disk === "steady";
  p.warn(
    "critical",
    subject,
    `the pool is ${state}: ${stateReason}${isAnswering ? "; its disk answers again" : ""}`,
    isAnswering
      ? "nothing: it is imported again when the disk has answered for a while"
      : `check ${disk} (smartctl, dmesg); once it works again the pool is imported by itself; ${lost}`,
  );
  if (observed.disk !== "steady") return null;
  const input = { name: pool.id, disks: [...pool.disks], uuid: pool.uuid };
  const reason = "its disk answers again";
  return work(subject, engine(pool.nodeId, { method: "importPool", input }, reason));
}

function deleting(p: Planning, pool: PoolRecord): Work | null {
  const subject = `pool/${pool.id}`;
  const forget = store(
    "the pool is gone",
    [remove("pools", pool.id, pool)],
    [event("Pool", "Delete", pool.id, pool.nodeId)],
  );
  if (!p.stored.nodes.has(pool.nodeId)) return work(subject, forget);
  const node = p.online(pool.nodeId);
  if (node === undefined) {
    if (!p.isGone(pool.nodeId)) return null;
    p.warn(
      "warning",
      subject,
      `the pool is to be deleted and node ${pool.nodeId} cannot be reached`,
      `bring ${pool.nodeId} back, or forget the pool: trilith delete pool ${pool.id} --purge`,
    );
    return null;
  }
  const observed = node.pools.get(pool.id);
  // Somebody else's pool of the same name is left alone.
  if (observed !== undefined && observed.uuid !== pool.uuid) return work(subject, forget);
  const destroy = engine(
    pool.nodeId,
    { method: "destroyPool", input: { name: pool.id } },
    "the pool is to be deleted",
    ["NotFound"],
  );
  if (observed !== undefined) return work(subject, destroy, forget);
  // It may lie on its disk unopened; the name and UUID make sure that it is this one.
  const input = { name: pool.id, disks: [...pool.disks], uuid: pool.uuid };
  const open = engine(
    pool.nodeId,
    { method: "importPool", input },
    "the pool is to be deleted and is not open",
    NO_SUCH_POOL,
  );
  return work(subject, open, destroy, forget);
}
