/**
 * The engine's API on the main thread: finds the reactor that has the thing asked for, or the one
 * with the least to do for a new thing, and passes the request on.
 */
import { readdirSync } from "node:fs";
import { TrilithError } from "../../errors.ts";
import { buildInfo } from "../../version.ts";
import { parseBdevUri } from "../bdev/uri.ts";
import type { ReactorGroup } from "../reactor/group.ts";
import type { EngineHandlers, EngineRequest, EngineResult } from "../rpc/contract.ts";
import type { EngineInfo } from "../rpc/info.ts";
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
  readonly instanceUuid: string;
  readonly startedAt: Date;
  readonly endpoints: () => Pick<EngineInfo, "nvmf" | "discovery" | "nbd" | "rpc">;
}

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
      const key = keyOf(request);
      const index = await this.find(kind, key);
      if (index === undefined) throw new TrilithError("NotFound", `there is no ${kind} "${key}"`);
      return this.call(index, method, request);
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
      "bdev",
      ({ uri }) => bdevNameOf(parseBdevUri(uri)),
      () => dispatch.leastLoaded(),
    ),
    listBdevs: dispatch.toAll("listBdevs"),
    getBdev: dispatch.toOwner("getBdev", "bdev", nameOf),
    destroyBdev: dispatch.toOwner("destroyBdev", "bdev", nameOf),
    shareBdevNvmf: dispatch.toOwner("shareBdevNvmf", "bdev", nameOf),
    shareBdevNbd: dispatch.toOwner("shareBdevNbd", "bdev", nameOf),
    unshareBdev: dispatch.toOwner("unshareBdev", "bdev", nameOf),
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
      return {
        uptimeMs: Date.now() - state.startedAt.getTime(),
        userUs: user,
        systemUs: system,
        rssBytes: memory.rss,
        mainHeapBytes: memory.heapUsed,
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

/** All handlers of the engine's API. */
export function engineHandlers(state: EngineState): EngineHandlers {
  const dispatch = new Dispatch(state.group);
  return { ...infoHandlers(state), ...bdevHandlers(dispatch) };
}
