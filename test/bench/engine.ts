/** The engine that is measured: the compiled executable, told what to do over its RPC. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type EngineClient, engineClient } from "../../src/engine/rpc/client.ts";
import { START_TIMEOUT_MS } from "./limits.ts";
import type { Subsystem } from "./loads.ts";
import { freePorts } from "./machine.ts";
import { type Place, Service } from "./processes.ts";

export interface BenchEngineOptions {
  readonly executable: string;
  readonly place: Place;
  readonly folder: string;
  /** Has the JavaScript engine log every collection and how long it kept the program waiting. */
  readonly logCollections?: boolean;
}

/** A pause in which a JavaScript heap was collected. */
export interface Collection {
  /** Size of the heap when the collection began. A reactor's includes its arena. */
  readonly heapKib: number;
  /** Longest time for which the program stood still. */
  readonly pauseMs: number;
}

export class BenchEngine {
  readonly rpc: EngineClient;
  readonly service: Service;
  readonly #nvmfPort: number;

  private constructor(service: Service, rpc: EngineClient, nvmfPort: number) {
    this.service = service;
    this.rpc = rpc;
    this.#nvmfPort = nvmfPort;
  }

  /** Starts an engine with one reactor; `pollMs` is how often it is asked whether it serves. */
  static async start(options: BenchEngineOptions, pollMs?: number): Promise<BenchEngine> {
    const { executable, place, folder } = options;
    const [nvmf, nbd, rpcPort] = freePorts(3) as [number, number, number];
    const command = [executable, "engine", "--node-name", "bench", "--listen", "127.0.0.1"];
    command.push("--data-dir", join(folder, `engine-${rpcPort}`));
    command.push("--port", String(nvmf), "--nbd-port", String(nbd), "--discovery-port", "none");
    command.push("--rpc", `127.0.0.1:${rpcPort}`);
    command.push("--reactors", "1", "--cores", String(place.core), "--log-level", "warn");
    const env: Record<string, string> =
      options.logCollections === true ? { BUN_JSC_logGC: "1" } : {};
    const service = new Service("engine", command, place, folder, env);
    const rpc = engineClient(`http://127.0.0.1:${rpcPort}`);
    const answers = () => rpc.getInfo().then(Boolean, () => false);
    try {
      await service.serves(answers, START_TIMEOUT_MS, pollMs);
    } catch (error) {
      await service.stop();
      throw error;
    }
    return new BenchEngine(service, rpc, nvmf);
  }

  #subsystem(nqn: string): Subsystem {
    return { address: "127.0.0.1", port: this.#nvmfPort, nqn };
  }

  /** Opens a device by URI and serves it over NVMe/TCP. */
  async serveDevice(uri: string): Promise<{ name: string; at: Subsystem; uri: string }> {
    const { name, uuid } = await this.rpc.createBdev({ uri });
    const nqn = `nqn.2019-05.io.openebs:${uuid}`;
    await this.rpc.shareBdevNvmf({ name, nqn });
    const at = this.#subsystem(nqn);
    return { name, at, uri: nvmfUri(at) };
  }

  /** Opens a nexus over children and serves it over NVMe/TCP. */
  async serveNexus(uuid: string, childUris: readonly string[]): Promise<Subsystem> {
    const children = childUris.map((uri) => ({ uri }));
    const nexus = await this.rpc.createNexus({ uuid, epoch: 1, children });
    if (nexus.state !== "online") throw new Error(`nexus is ${nexus.state}`);
    const nqn = `nqn.2019-05.io.openebs:${uuid}`;
    await this.rpc.shareNexusNvmf({ uuid, nqn });
    return this.#subsystem(nqn);
  }

  /** Makes a replica in a pool and serves it over NVMe/TCP. */
  async serveReplica(
    poolName: string,
    uuid: string,
    mib: number,
    thin: boolean,
  ): Promise<Subsystem> {
    const sizeBytes = mib * (1 << 20);
    const { shares } = await this.rpc.createReplica({
      poolName,
      uuid,
      sizeBytes,
      thin,
      share: "nvmf",
    });
    return this.#subsystem(shares[0]!.nqn!);
  }

  /** Collections logged so far, with `logCollections`. */
  collections(): Collection[] {
    const log = readFileSync(this.service.logPath, "utf8");
    const collections: Collection[] = [];
    // A line for each time the program stood still: `[GC<heap>: START M <size>kb => ... p=<pause>ms`,
    // the later ones of a collection without START and size.
    const sizes = new Map<string, number>();
    for (const line of log.split("\n")) {
      const heap = /^\[GC<(0x[0-9a-f]+)>:/.exec(line)?.[1];
      if (heap === undefined) continue;
      const size = /START M (\d+)kb/.exec(line)?.[1];
      if (size !== undefined) sizes.set(heap, Number(size));
      const pause = /\bp=([\d.]+)ms/.exec(line)?.[1];
      if (pause === undefined) continue;
      collections.push({ heapKib: sizes.get(heap) ?? 0, pauseMs: Number(pause) });
    }
    return collections;
  }

  async stop(): Promise<void> {
    await this.service.stop();
  }
}

/** What starting engines takes from the benchmark. */
export interface EngineSetting {
  readonly options: { readonly executable: string; readonly baseline: string | null };
  readonly server: Place;
  readonly folder: string;
}

/** Runs `use` with an engine of the executable that is measured. */
export async function withEngine<T>(
  { options, server, folder }: EngineSetting,
  use: (engine: BenchEngine) => Promise<T>,
): Promise<T> {
  const { executable } = options;
  const engine = await BenchEngine.start({ executable, place: server, folder });
  try {
    return await use(engine);
  } finally {
    await engine.stop();
  }
}

/** Runs `use` with an engine of the other build, or null when none is to be a peer. */
export async function withBaseline<T>(
  setting: EngineSetting,
  use: (engine: BenchEngine | null) => Promise<T>,
): Promise<T> {
  const { baseline } = setting.options;
  if (baseline === null) return await use(null);
  return await withEngine({ ...setting, options: { executable: baseline, baseline } }, use);
}

/** A memory device's URI. */
export function mallocUri(name: string, mib: number, blockSize = 512): string {
  return `malloc:///${name}?size_mb=${mib}&blk_size=${blockSize}`;
}

/** URI of a subsystem for the built-in initiator. */
export function nvmfUri({ address, port, nqn }: Subsystem): string {
  return `nvmf+tcp://${address}:${port}/${nqn}`;
}
