/**
 * The engine's API on the main thread: finds the reactor that has the thing asked for, or the one
 * with the least to do for a new thing, and passes the request on.
 */
import { readdirSync } from "node:fs";
import { TrilithError } from "../../errors.ts";
import type { LoopWatch } from "../../ops/event-loop.ts";
import { buildInfo } from "../../version.ts";
import { parseBdevUri } from "../bdev/uri.ts";
import type { ReactorGroup } from "../reactor/group.ts";
import { type Recorder, recorderHandlers } from "../recorder.ts";
import type { EngineHandlers, EngineRequest, EngineResult } from "../rpc/contract.ts";
import type { FaultTarget } from "../rpc/faults.ts";
import type { EngineInfo } from "../rpc/info.ts";
import type { nexusRoutes } from "../rpc/nexuses.ts";
import type { scrubRoutes } from "../rpc/scrubs.ts";
import { Serial } from "../serial.ts";
import type { EngineSettings } from "../settings.ts";
import { bdevNameOf } from "../shard/bdevs.ts";
import type { ObjectKind, ShardRoute } from "../shard/methods.ts";
import { listBlockDevices } from "./block-devices.ts";
import type { EventLog } from "./events.ts";

/** What handlers need to know of the engine. */
export interface EngineState {
  readonly settings: EngineSettings;
  readonly group: ReactorGroup;
  readonly events: EventLog;
  readonly recorder: Recorder;
  readonly instanceUuid: string;
  readonly startedAt: Date;
  /** The main thread's event loop. */
  readonly loop: LoopWatch;
  readonly endpoints: () => Pick<EngineInfo, "nvmf" | "discovery" | "nbd" | "rpc">;
}

/** Routes about one nexus, which name it by `uuid`. */
type NexusRoute = Exclude<keyof typeof nexusRoutes, "listNexuses"> | keyof typeof scrubRoutes;

class Dispatch {
  readonly #group: ReactorGroup;
  readonly #serial = new Serial();

  constructor(group: ReactorGroup) {
    this.#group = group;
  }

  async find(kind: ObjectKind, key: string): Promise<number | undefined> {
    const found = await this.#group.callAll("find", { kind, key });
    const index = found.indexOf(true);
    return index < 0 ? undefined : index;
  }

  /** Reactor of a thing that must exist. */
  async require(kind: ObjectKind, key: string): Promise<number> {
    const index = await this.find(kind, key);
    if (index === undefined) throw new TrilithError("NotFound", `there is no ${kind} "${key}"`);
    return index;
  }

  async leastLoaded(): Promise<number> {
    const loads = await this.#group.callAll("load", {});
    return loads.indexOf(Math.min(...loads));
  }

  call<K extends ShardRoute>(
    index: number,
    method: K,
    request: EngineRequest<K>,
  ): Promise<EngineResult<K>> {
    return this.#group.call(index, method, request as never) as Promise<EngineResult<K>>;
  }

  /** A handler for something that exists: it goes where the thing lives. */
  toOwner<K extends ShardRoute>(
    method: K,
    kind: ObjectKind,
    keyOf: (request: EngineRequest<K>) => string,
  ): (request: EngineRequest<K>) => Promise<EngineResult<K>> {
    return async (request) => {
      return this.call(await this.require(kind, keyOf(request)), method, request);
    };
  }

  /** A handler that asks every reactor and puts the lists together. */
  toAll<K extends ShardRoute>(
    method: K & (EngineResult<K> extends readonly unknown[] ? K : never),
  ): (request: EngineRequest<K>) => Promise<EngineResult<K>> {
    return async (request) => {
      const lists = (await this.#group.callAll(method, request as never)) as unknown[][];
      return lists.flat() as EngineResult<K>;
    };
  }

  /**
   * A handler for something that may be new: where it lives, else where `place` says. Requests for
   * the same thing follow each other, so that it is not made twice.
   */
  toPlace<K extends ShardRoute>(
    method: K,
    kind: ObjectKind,
    keyOf: (request: EngineRequest<K>) => string,
    place: (request: EngineRequest<K>) => Promise<number>,
  ): (request: EngineRequest<K>) => Promise<EngineResult<K>> {
    return (request) => {
      const key = keyOf(request);
      return this.#serial.run(`${kind} ${key}`, async () => {
        const index = (await this.find(kind, key)) ?? (await place(request));
        return this.call(index, method, request);
      });
    };
  }
}

function bdevHandlers(dispatch: Dispatch) {
  const nameOf = ({ name }: { name: string }): string => name;
  return {
    listBlockDevices: async ({ all }) => listBlockDevices(all),
    createBdev: dispatch.toPlace(
      "createBdev",
      "device",
      ({ uri }) => bdevNameOf(parseBdevUri(uri)),
      () => dispatch.leastLoaded(),
    ),
    listBdevs: dispatch.toAll("listBdevs"),
    getBdev: dispatch.toOwner("getBdev", "device", nameOf),
    destroyBdev: dispatch.toOwner("destroyBdev", "device", nameOf),
    shareBdevNvmf: dispatch.toOwner("shareBdevNvmf", "device", nameOf),
    shareBdevNbd: dispatch.toOwner("shareBdevNbd", "device", nameOf),
    unshareBdev: dispatch.toOwner("unshareBdev", "device", nameOf),
    listSubsystems: dispatch.toAll("listSubsystems"),
    listNbdExports: dispatch.toAll("listNbdExports"),
  } satisfies Partial<EngineHandlers>;
}

function infoHandlers(state: EngineState) {
  const { settings, group, events } = state;
  return {
    getInfo: async () => ({
      nodeName: settings.nodeName,
      ...buildInfo,
      apiVersions: ["v1"],
      instanceUuid: state.instanceUuid,
      pid: process.pid,
      startedAt: state.startedAt.toISOString(),
      hostNqn: settings.hostNqn,
      hostId: settings.hostId,
      address: settings.address,
      ...state.endpoints(),
      reactors: group.size,
      features: {
        asymmetricNamespaceAccess: true,
        nbd: true,
        writeIntentLog: true,
        replicaSnapshots: true,
        poolGrow: true,
      },
    }),
    getSettings: async () => ({
      ...settings,
      cores: settings.cores === null ? null : [...settings.cores],
      nvmfListen: [...settings.nvmfListen],
      rpcListen: [...settings.rpcListen],
    }),
    getUsage: async () => {
      const { user, system } = process.cpuUsage();
      const memory = process.memoryUsage();
      const { stalls, stallMsMax } = state.loop.read();
      return {
        uptimeMs: Date.now() - state.startedAt.getTime(),
        userUs: user,
        systemUs: system,
        rssBytes: memory.rss,
        mainHeapBytes: memory.heapUsed,
        mainStalls: stalls,
        mainStallMsMax: stallMsMax,
        openFiles: readdirSync("/proc/self/fd").length,
        reactors: await group.callAll("state", {}),
      };
    },
    listEvents: async ({ since, waitMs, limit }) => {
      await events.wait(since, waitMs);
      return { instanceUuid: state.instanceUuid, ...events.after(since, limit) };
    },
  } satisfies Partial<EngineHandlers>;
}

function poolHandlers(dispatch: Dispatch) {
  const nameOf = ({ name }: { name: string }): string => name;
  const uuidOf = ({ uuid }: { uuid: string }): string => uuid;
  const leastLoaded = () => dispatch.leastLoaded();
  return {
    createPool: dispatch.toPlace("createPool", "pool", nameOf, leastLoaded),
    importPool: dispatch.toPlace("importPool", "pool", nameOf, leastLoaded),
    exportPool: dispatch.toOwner("exportPool", "pool", nameOf),
    destroyPool: dispatch.toOwner("destroyPool", "pool", nameOf),
    growPool: dispatch.toOwner("growPool", "pool", nameOf),
    listPools: dispatch.toAll("listPools"),
    getPool: dispatch.toOwner("getPool", "pool", nameOf),
    checkPool: async (request) => dispatch.call(await leastLoaded(), "checkPool", request),
    createReplica: dispatch.toPlace("createReplica", "replica", uuidOf, ({ poolName }) =>
      dispatch.require("pool", poolName),
    ),
    destroyReplica: dispatch.toOwner("destroyReplica", "replica", uuidOf),
    listReplicas: dispatch.toAll("listReplicas"),
    getReplica: dispatch.toOwner("getReplica", "replica", uuidOf),
    resizeReplica: dispatch.toOwner("resizeReplica", "replica", uuidOf),
    setReplicaAttributes: dispatch.toOwner("setReplicaAttributes", "replica", uuidOf),
    shareReplicaNvmf: dispatch.toOwner("shareReplicaNvmf", "replica", uuidOf),
    shareReplicaNbd: dispatch.toOwner("shareReplicaNbd", "replica", uuidOf),
    unshareReplica: dispatch.toOwner("unshareReplica", "replica", uuidOf),
    wipeReplica: dispatch.toOwner("wipeReplica", "replica", uuidOf),
    createSnapshot: dispatch.toPlace("createSnapshot", "snapshot", uuidOf, ({ sourceUuid }) =>
      dispatch.require("replica", sourceUuid),
    ),
    destroySnapshot: dispatch.toOwner("destroySnapshot", "snapshot", uuidOf),
    listSnapshots: dispatch.toAll("listSnapshots"),
    getSnapshot: dispatch.toOwner("getSnapshot", "snapshot", uuidOf),
    createClone: dispatch.toPlace(
      "createClone",
      "replica",
      ({ cloneUuid }) => cloneUuid,
      ({ uuid }) => dispatch.require("snapshot", uuid),
    ),
    listClones: dispatch.toOwner("listClones", "snapshot", uuidOf),
  } satisfies Partial<EngineHandlers>;
}

/** Name in a `bdev:///` URI of a child; undefined for children that are opened anew. */
function localNameOf(uri: string): string | undefined {
  const parsed = parseBdevUri(uri);
  return parsed.driver === "bdev" ? parsed.name : undefined;
}

/** Where the first local child of a nexus lives, else its standby, else the reactor with the least to do. */
async function placeNexus(
  dispatch: Dispatch,
  { uuid, volumeUuid = uuid, children }: EngineRequest<"createNexus">,
): Promise<number> {
  for (const { uri } of children) {
    const name = localNameOf(uri);
    if (name === undefined) continue;
    const index = (await dispatch.find("replica", name)) ?? (await dispatch.find("device", name));
    if (index !== undefined) return index;
  }
  return (await dispatch.find("standby", volumeUuid)) ?? dispatch.leastLoaded();
}

/** Where the nexus of the volume is, else the replica, else the reactor with the least to do. */
async function placeStandby(
  dispatch: Dispatch,
  { volumeUuid, replicaUuid }: EngineRequest<"createStandby">,
): Promise<number> {
  const [nexus] = await dispatch.toAll("listNexuses")({ volumeUuid });
  if (nexus !== undefined) return nexus.reactor;
  const index = replicaUuid === undefined ? undefined : await dispatch.find("replica", replicaUuid);
  return index ?? dispatch.leastLoaded();
}

/** A standby on another reactor cannot be taken over: hosts have to connect anew. */
async function endDistantStandby(dispatch: Dispatch, uuid: string): Promise<void> {
  const at = await dispatch.require("nexus", uuid);
  const { volumeUuid } = await dispatch.call(at, "getNexus", { uuid });
  const standby = await dispatch.find("standby", volumeUuid);
  if (standby === undefined || standby === at) return;
  await dispatch.call(standby, "removeStandby", { volumeUuid });
}

function standbyHandlers(dispatch: Dispatch) {
  const volumeOf = ({ volumeUuid }: { volumeUuid: string }): string => volumeUuid;
  return {
    createStandby: dispatch.toPlace("createStandby", "standby", volumeOf, (request) =>
      placeStandby(dispatch, request),
    ),
    listStandbys: dispatch.toAll("listStandbys"),
    removeStandby: dispatch.toOwner("removeStandby", "standby", volumeOf),
  } satisfies Partial<EngineHandlers>;
}

function nexusHandlers(dispatch: Dispatch) {
  const uuidOf = ({ uuid }: { uuid: string }): string => uuid;
  const toNexus = <K extends NexusRoute>(method: K) =>
    dispatch.toOwner(method, "nexus", uuidOf as (request: EngineRequest<K>) => string);
  return {
    createNexus: dispatch.toPlace("createNexus", "nexus", uuidOf, (request) =>
      placeNexus(dispatch, request),
    ),
    destroyNexus: toNexus("destroyNexus"),
    shutdownNexus: toNexus("shutdownNexus"),
    listNexuses: dispatch.toAll("listNexuses"),
    getNexus: toNexus("getNexus"),
    resizeNexus: toNexus("resizeNexus"),
    wantNexusChildren: toNexus("wantNexusChildren"),
    pauseNexus: toNexus("pauseNexus"),
    resumeNexus: toNexus("resumeNexus"),
    shareNexusNvmf: async (request) => {
      await endDistantStandby(dispatch, request.uuid);
      return toNexus("shareNexusNvmf")(request);
    },
    shareNexusNbd: toNexus("shareNexusNbd"),
    unshareNexus: toNexus("unshareNexus"),
    getNexusAnaState: toNexus("getNexusAnaState"),
    setNexusAnaState: toNexus("setNexusAnaState"),
    addNexusChild: toNexus("addNexusChild"),
    removeNexusChild: toNexus("removeNexusChild"),
    onlineNexusChild: toNexus("onlineNexusChild"),
    offlineNexusChild: toNexus("offlineNexusChild"),
    faultNexusChild: toNexus("faultNexusChild"),
    startRebuild: toNexus("startRebuild"),
    stopRebuild: toNexus("stopRebuild"),
    pauseRebuild: toNexus("pauseRebuild"),
    resumeRebuild: toNexus("resumeRebuild"),
    getRebuild: toNexus("getRebuild"),
    listRebuilds: toNexus("listRebuilds"),
    configureRebuilds: toNexus("configureRebuilds"),
    startScrub: toNexus("startScrub"),
    getScrub: toNexus("getScrub"),
    stopScrub: toNexus("stopScrub"),
    pauseScrub: toNexus("pauseScrub"),
    resumeScrub: toNexus("resumeScrub"),
    configureScrub: toNexus("configureScrub"),
  } satisfies Partial<EngineHandlers>;
}

/** Kind and key of the thing that a fault is injected into. */
function faultOwner(target: FaultTarget): { kind: ObjectKind; key: string } {
  switch (target.kind) {
    case "bdev":
      return { kind: "device", key: target.name };
    case "pool":
      return { kind: "pool", key: target.name };
    case "replica":
      return { kind: "replica", key: target.uuid };
    case "nexus":
      return { kind: "nexus", key: target.uuid };
    case "child":
      return { kind: "nexus", key: target.nexusUuid };
  }
}

function testHandlers(state: EngineState, dispatch: Dispatch) {
  const idOf = ({ id }: { id: string }): string => id;
  return {
    listStats: dispatch.toAll("listStats"),
    resetStats: async (request) => {
      await state.group.callAll("resetStats", request);
      return undefined;
    },
    createFault: dispatch.toPlace("createFault", "fault", idOf, ({ target }) => {
      const { kind, key } = faultOwner(target);
      return dispatch.require(kind, key);
    }),
    listFaults: dispatch.toAll("listFaults"),
    destroyFault: dispatch.toOwner("destroyFault", "fault", idOf),
  } satisfies Partial<EngineHandlers>;
}

/** All handlers of the engine's API. */
export function engineHandlers(state: EngineState): EngineHandlers {
  const dispatch = new Dispatch(state.group);
  const { listRecords, getRecord, deleteRecord } = recorderHandlers(state.recorder);
  return {
    ...infoHandlers(state),
    ...bdevHandlers(dispatch),
    ...poolHandlers(dispatch),
    ...nexusHandlers(dispatch),
    ...standbyHandlers(dispatch),
    ...testHandlers(state, dispatch),
    listRecords,
    getRecord,
    deleteRecord,
  };
}
