/** One full read of an engine: what it is and all that it has, from one and the same process. */
import type { EngineClient } from "../../engine/rpc/client.ts";
import { TrilithError } from "../../errors.ts";
import type {
  EngineInfo,
  EngineNexus,
  EnginePool,
  EngineReplica,
  EngineSnapshot,
  EngineStandby,
  ObservedNode,
} from "../cluster-state.ts";
import { READ_TIMEOUT_MS } from "./limits.ts";

/** What an engine reported; lists as maps by key. */
export interface EngineReading {
  readonly info: EngineInfo;
  readonly pools: ReadonlyMap<string, EnginePool>;
  readonly replicas: ReadonlyMap<string, EngineReplica>;
  readonly snapshots: ReadonlyMap<string, EngineSnapshot>;
  readonly nexuses: ReadonlyMap<string, EngineNexus>;
  /** By volume; undefined: the engine knows no standbys. */
  readonly standbys?: ReadonlyMap<string, EngineStandby> | undefined;
}

/** Ids of what differs between two readings. */
export interface ReadingChange {
  readonly isRestarted: boolean;
  /** Pools came, went, or changed their state: all that lies in them is concerned. */
  readonly havePoolsChanged: boolean;
  readonly pools: readonly string[];
  readonly replicas: readonly string[];
  readonly snapshots: readonly string[];
  readonly nexuses: readonly string[];
  /** Volumes whose standbys differ. */
  readonly standbys: readonly string[];
}

/**
 * Reads everything. Pools are read before replicas: a pool that is listed has all its replicas in
 * the later list, so that a replica that is not there is really missing. An engine that restarted
 * half-way is read again by whoever asked: it rejects with `Aborted`.
 */
export async function readEngine(
  client: EngineClient,
  signal: AbortSignal,
): Promise<EngineReading> {
  const options = { signal, timeoutMs: READ_TIMEOUT_MS };
  const before = await client.getInfo({}, options);
  const pools = await client.listPools({}, options);
  const [replicas, snapshots] = await Promise.all([
    client.listReplicas({}, options),
    client.listSnapshots({}, options),
  ]);
  const [nexuses, standbys] = await Promise.all([
    client.listNexuses({}, options),
    readStandbys(client, options),
  ]);
  const info = await client.getInfo({}, options);
  if (info.instanceUuid !== before.instanceUuid) {
    throw new TrilithError("Aborted", `engine of ${info.nodeName} restarted while it was read`);
  }
  return {
    info,
    pools: new Map(pools.map((pool) => [pool.name, pool])),
    replicas: new Map(replicas.map((replica) => [replica.uuid, replica])),
    snapshots: new Map(snapshots.map((snapshot) => [snapshot.uuid, snapshot])),
    nexuses: new Map(nexuses.map((nexus) => [nexus.uuid, nexus])),
    standbys,
  };
}

/** Engines of before there were standbys do not know the question. */
async function readStandbys(
  client: EngineClient,
  options: { readonly signal: AbortSignal; readonly timeoutMs: number },
): Promise<ReadonlyMap<string, EngineStandby> | undefined> {
  try {
    const standbys = await client.listStandbys({}, options);
    return new Map(standbys.map((standby) => [standby.volumeUuid, standby]));
  } catch (error) {
    if (error instanceof TrilithError && error.code === "NotFound") return undefined;
    throw error;
  }
}

const none: ReadonlyMap<string, EngineStandby> = new Map();

/** `next` with the values of `before` where they are equal, and the keys of those that are not. */
function merged<T>(
  before: ReadonlyMap<string, T>,
  next: ReadonlyMap<string, T>,
): { readonly map: ReadonlyMap<string, T>; readonly changed: string[] } {
  const changed: string[] = [];
  const map = new Map<string, T>();
  for (const [key, value] of next) {
    const old = before.get(key);
    const isSame = old !== undefined && Bun.deepEquals(old, value);
    if (!isSame) changed.push(key);
    map.set(key, isSame ? old : value);
  }
  for (const key of before.keys()) if (!next.has(key)) changed.push(key);
  return changed.length === 0 ? { map: before, changed } : { map, changed };
}

/** Takes a reading over into what is known of a node, and says what changed by it. */
export function takeOver(
  node: ObservedNode,
  reading: EngineReading,
): { readonly node: ObservedNode; readonly change: ReadingChange } {
  const pools = merged(node.pools, reading.pools);
  const replicas = merged(node.replicas, reading.replicas);
  const snapshots = merged(node.snapshots, reading.snapshots);
  const nexuses = merged(node.nexuses, reading.nexuses);
  const standbys = merged(node.standbys ?? none, reading.standbys ?? none);
  const isSameInfo = node.info !== null && Bun.deepEquals(node.info, reading.info);
  const { standbys: _, ...rest } = node;
  return {
    node: {
      ...rest,
      info: isSameInfo ? node.info : reading.info,
      pools: pools.map,
      replicas: replicas.map,
      snapshots: snapshots.map,
      nexuses: nexuses.map,
      ...(reading.standbys === undefined ? {} : { standbys: standbys.map }),
    },
    change: {
      isRestarted: node.info?.instanceUuid !== reading.info.instanceUuid,
      havePoolsChanged: pools.changed.some(
        (name) => node.pools.get(name)?.state !== pools.map.get(name)?.state,
      ),
      pools: pools.changed,
      replicas: replicas.changed,
      snapshots: snapshots.changed,
      nexuses: nexuses.changed,
      standbys: standbys.changed,
    },
  };
}
