/**
 * An engine process of a simulated machine: the product's shard with everything on it (pools, replicas,
 * nexuses, shares, standbys, reservations) and the handlers of its API, over a simulated reactor, disks and
 * fabric. The main thread's part (routes between reactors, events, the way to the recorder) is played here, as
 * `engine/engine.ts` does it, for one reactor.
 */
import type { OpenOptions } from "../../../src/engine/bdev/open.ts";
import { type BdevUri, parseBdevUri } from "../../../src/engine/bdev/uri.ts";
import { EventLog } from "../../../src/engine/main/events.ts";
import { type EngineState, engineHandlers } from "../../../src/engine/main/handlers.ts";
import { Routes } from "../../../src/engine/main/routes.ts";
import type { NexusRecord } from "../../../src/engine/nexus/index.ts";
import type { Reactor } from "../../../src/engine/reactor/reactor.ts";
import type { Recorder } from "../../../src/engine/recorder.ts";
import type { EngineClient } from "../../../src/engine/rpc/client.ts";
import {
  type EngineHandlers,
  type EngineMethod,
  engineContract,
} from "../../../src/engine/rpc/contract.ts";
import { checkedRequest } from "../../../src/engine/rpc.ts";
import type { MainMethods } from "../../../src/engine/shard/methods.ts";
import { Shard } from "../../../src/engine/shard/shard.ts";
import { TrilithError } from "../../../src/errors.ts";
import { nodeHostNqn } from "../../../src/names.ts";
import type { Disk } from "./disk.ts";
import type { FabricTarget } from "./fabric.ts";
import { call, type Network } from "./network.ts";
import { clusterReactor } from "./reactor.ts";
import { openRemoteDevice, type RemoteOptions } from "./remote-device.ts";
import type { Process } from "./world.ts";

const NVMF_PORT = 8420;

export interface EngineOptions {
  readonly process: Process;
  readonly network: Network;
  readonly nodeName: string;
  readonly address: string;
  readonly hostId: string;
  /** Another one after a power loss. */
  readonly bootId: string;
  /** Raised by every start. */
  readonly instance: number;
  /** By path. */
  readonly disks: ReadonlyMap<string, Disk>;
  readonly machineAt: RemoteOptions["machineAt"];
  /** Hands a record of lost children to the control process of this machine. */
  readonly record: (record: NexusRecord) => Promise<void>;
}

export interface Engine extends FabricTarget {
  readonly process: Process;
  readonly reactor: Reactor;
  readonly shard: Shard;
  readonly handlers: EngineHandlers;
}

/** A UUID that only this start of this engine has. */
function instanceUuid(nodeName: string, instance: number): string {
  const text = `${nodeName.replace(/\D/g, "")}${String(instance).padStart(6, "0")}`;
  return `00000000-0000-4000-9000-${text.padStart(12, "0")}`;
}

/** Starts an engine; called as part of its process. */
export function startSimEngine(options: EngineOptions): Engine {
  const { process, network, nodeName, address, hostId, disks } = options;
  const { world } = process;
  const reactor = clusterReactor(process);
  const events = new EventLog(() => new Date(process.wallMs()));
  const routes = new Routes([{ address, port: NVMF_PORT }]);
  const host = { nqn: nodeHostNqn(nodeName), id: hostId };
  const open = async (_reactor: Reactor, uri: string | BdevUri, given: OpenOptions = {}) => {
    const parsed = typeof uri === "string" ? parseBdevUri(uri) : uri;
    if (parsed.driver === "uring" || parsed.driver === "aio") {
      const disk = disks.get(parsed.path);
      if (disk !== undefined) return disk.open(reactor, process, parsed.path);
    }
    if (parsed.driver !== "nvmf") throw new TrilithError("NotFound", `no such device: ${uri}`);
    return openRemoteDevice({
      network,
      process,
      reactor,
      uri: parsed,
      uriText: typeof uri === "string" ? uri : `nvmf+tcp://${parsed.address}/${parsed.nqn}`,
      host: given.host ?? host,
      settings: given.nvmf ?? {},
      machineAt: options.machineAt,
    });
  };
  const main: MainMethods = {
    ready: async () => {},
    log: async ({ level, text, fields }) => {
      if (level !== "debug") world.note(`${nodeName} engine ${text} ${JSON.stringify(fields)}`);
    },
    event: async (event) => events.add({ ...event, reactor: 0 }),
    handOverNvmf: async () => {},
    handOverNbd: async () => {},
    announce: async ({ hosts, ...served }) => {
      routes.set(served, { reactor: 0, hosts });
      await shard.methods.setRoutes(routes.table);
    },
    withdraw: async (served) => {
      routes.remove(served, 0);
      await shard.methods.setRoutes(routes.table);
    },
    record: options.record,
  };
  const shard: Shard = new Shard(
    reactor,
    {
      index: 0,
      arenaBytes: reactor.arena.byteLength,
      spinNs: 0,
      core: null,
      nodeName,
      bootId: options.bootId,
      host,
      address,
      nvmfPort: NVMF_PORT,
      nbdPort: null,
    },
    {
      call: (method, input) => main[method](input as never) as never,
      tell: (method, input) => void main[method](input as never),
      stop: () => {},
      clockMs: () => Math.trunc(process.wallMs()),
    },
    open,
  );
  const methods = shard.methods as unknown as Record<string, (input: unknown) => Promise<unknown>>;
  const group = {
    size: 1,
    call: (_index: number, method: string, input: unknown) => methods[method]!(input),
    callAll: async (method: string, input: unknown) => [await methods[method]!(input)],
  };
  const handlers = engineHandlers({
    settings: { nodeName, hostNqn: host.nqn, hostId, address },
    group,
    events,
    recorder: {} as Recorder,
    instanceUuid: instanceUuid(nodeName, options.instance),
    startedAt: new Date(process.wallMs()),
    loop: { read: () => ({ stalls: 0, stallMsMax: 0 }) },
    endpoints: () => ({
      nvmf: [{ address, port: NVMF_PORT }],
      discovery: [],
      nbd: [],
      rpc: [],
    }),
  } as unknown as EngineState);
  events.add({
    kind: "engine-started",
    subject: nodeName,
    message: "",
    reactor: null,
    fields: {},
  });
  return { process, reactor, shard, target: shard.target, handlers };
}

/** The client of a machine's engine, as part of `from`. */
export function simEngineClient(
  network: Network,
  from: Process,
  machine: string,
  engine: () => Engine | null,
): EngineClient {
  const client: Record<string, unknown> = {};
  for (const method of Object.keys(engineContract) as EngineMethod[]) {
    client[method] = (
      input: Record<string, unknown> = {},
      options: { signal?: AbortSignal; timeoutMs?: number } = {},
    ) => {
      const request = JSON.parse(JSON.stringify(input)) as Record<string, unknown>;
      return call(network, {
        from,
        machine,
        listener: () => engine()?.process ?? null,
        what: `${method} at ${machine}`,
        timeoutMs: options.timeoutMs ?? 60_000,
        signal: options.signal,
        serve: async () => {
          const handler = engine()!.handlers[method] as (input: unknown) => Promise<unknown>;
          return handler(checkedRequest(engineContract[method], request));
        },
      });
    };
  }
  return client as unknown as EngineClient;
}
