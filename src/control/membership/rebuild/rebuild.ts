/**
 * `trilith cluster rebuild-from-disks`: when the whole store is lost (every node's data directory), the
 * disks still say which pools, replicas, volumes and snapshots there are. A new cluster is made
 * (`trilith init`, `trilith join`), and then this asks every engine what it has, opens pools that are
 * closed, and writes the records down.
 */
import type { EngineClient } from "../../../engine/rpc/client.ts";
import { TrilithError } from "../../../errors.ts";
import type { StoreView } from "../../cluster-state.ts";
import type { NodeId } from "../../model.ts";
import type { Change } from "../../planner/plan.ts";
import type { Store } from "../../store/store.ts";
import { REBUILD_CHANGES_MAX } from "../limits.ts";
import { deriveRecords } from "./derive.ts";
import type { FoundNode, NamedDisk, RebuildReport } from "./found.ts";

export interface RebuildOptions {
  readonly store: Store;
  readonly engineOf: (nodeId: NodeId) => EngineClient;
  readonly now: () => number;
  /** Disks beside those that engines see by themselves. */
  readonly disks: readonly NamedDisk[];
  /** False: only say what would be written. Pools are opened all the same, to be read. */
  readonly apply: boolean;
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Has an engine open the pools on its disks that are not open. Returns what could not be. */
async function openPools(
  engine: EngineClient,
  nodeId: NodeId,
  disks: readonly NamedDisk[],
): Promise<string[]> {
  const open = new Set((await engine.listPools()).map(({ uuid }) => uuid));
  const devices = await engine.listBlockDevices({ all: true });
  const closed = devices.flatMap(({ pool, devname, devlinks }) => {
    if (pool === undefined || open.has(pool.uuid)) return [];
    // A name that stays when disks are put in another order.
    const disk = devlinks.find((link) => link.startsWith("/dev/disk/by-id/")) ?? devname;
    return [{ name: pool.name, uuid: pool.uuid, disks: [disk] }];
  });
  const named = disks
    .filter((disk) => disk.nodeId === nodeId)
    .map(({ poolName, uri }) => ({ name: poolName, disks: [uri] }));
  const problems: string[] = [];
  for (const request of [...closed, ...named]) {
    try {
      await engine.importPool(request);
    } catch (error) {
      problems.push(`pool ${request.name} on ${nodeId} (${request.disks[0]}): ${textOf(error)}`);
    }
  }
  return problems;
}

/** What one engine has. An engine that does not answer is a problem, not an error. */
export async function askEngine(
  engine: EngineClient,
  nodeId: NodeId,
  disks: readonly NamedDisk[],
): Promise<FoundNode> {
  try {
    const problems = await openPools(engine, nodeId, disks);
    const [pools, replicas, snapshots, nexuses] = await Promise.all([
      engine.listPools(),
      engine.listReplicas(),
      engine.listSnapshots(),
      engine.listNexuses(),
    ]);
    return { nodeId, pools, replicas, snapshots, nexuses, problems };
  } catch (error) {
    const problems = [`node ${nodeId} could not be asked, its disks are missing: ${textOf(error)}`];
    return { nodeId, pools: [], replicas: [], snapshots: [], nexuses: [], problems };
  }
}

/** Groups of changes as transactions that are not too large; a group is never split. */
function batchesOf(groups: readonly (readonly Change[])[]): Change[][] {
  const batches: Change[][] = [];
  let batch: Change[] = [];
  for (const group of groups) {
    if (batch.length > 0 && batch.length + group.length > REBUILD_CHANGES_MAX) {
      batches.push(batch);
      batch = [];
    }
    batch.push(...group);
  }
  if (batch.length > 0) batches.push(batch);
  return batches;
}

function checkDisks(view: StoreView, disks: readonly NamedDisk[]): void {
  const unknown = disks.find(({ nodeId }) => !view.nodes.has(nodeId));
  if (unknown === undefined) return;
  throw new TrilithError(
    "NotFound",
    `there is no node ${unknown.nodeId}`,
    "let every node that has disks join first",
  );
}

/** Finds out what there is, and writes it down with `apply`; on the leader. May be repeated. */
export async function rebuildFromDisks(options: RebuildOptions): Promise<RebuildReport> {
  const { store } = options;
  const view = await store.latest();
  checkDisks(view, options.disks);
  const found = await Promise.all(
    [...view.nodes.keys()].map((nodeId) =>
      askEngine(options.engineOf(nodeId), nodeId, options.disks),
    ),
  );
  const { groups, report } = deriveRecords(view, found, Math.floor(options.now()));
  if (!options.apply) return { ...report, applied: false };
  for (const changes of batchesOf(groups)) {
    await store.transact(() => ({
      value: null,
      changes,
      events: [
        {
          category: "Cluster",
          action: "Rebuild",
          target: "store",
          nodeId: null,
          component: "membership",
          message: `${changes.length} records were made from what the disks say`,
        },
      ],
    }));
  }
  return { ...report, applied: true };
}
