/** Pools: made, imported when their node is back, destroyed. */
import type { PoolRecord } from "../../model.ts";
import type { Work } from "../plan.ts";
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
  switch (pool.status) {
    case "Creating":
      return creating(p, pool);
    case "Created":
      return created(p, pool);
    case "Deleting":
      return deleting(p, pool);
  }
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
    } else if (observed.state !== "online") {
      p.warn(
        "critical",
        subject,
        `the pool is ${observed.state}: ${observed.stateReason}`,
        `check the disk ${pool.disks.join(", ")} on ${pool.nodeId} (smartctl, dmesg); once it works again, restart trilith-engine there`,
      );
    }
    return null;
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
