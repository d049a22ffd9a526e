/**
 * What lives on one reactor: opened devices, pools, replicas, nexuses, and the front ends that serve
 * them. Everything of one volume is on one reactor; the main thread knows which, and calls here.
 */
import { heapStats } from "bun:jsc";
import { discoveryNqnOf } from "../../names.ts";
import type { Log } from "../../ops/log.ts";
import { buildInfo } from "../../version.ts";
import { openBdev } from "../bdev/open.ts";
import { NbdServer } from "../nbd/server.ts";
import type { Nexus } from "../nexus/index.ts";
import type { Replica } from "../pool/index.ts";
import { LOG_LINES_PER_SEC } from "../reactor/limits.ts";
import type { Reactor } from "../reactor/reactor.ts";
import { recvBuffersOf } from "../reactor/tcp-stream.ts";
import type { ReactorState } from "../rpc/info.ts";
import { H2C_DATA_BYTES_DEFAULT } from "../target/limits.ts";
import { Target } from "../target/target.ts";
import { Bdevs } from "./bdevs.ts";
import { ChildOpener } from "./children.ts";
import { Faults } from "./faults.ts";
import type { MainMethods, ObjectKind, ShardEvent, ShardMethods, ShardOptions } from "./methods.ts";
import { Nexuses } from "./nexuses.ts";
import { Replicas } from "./replicas.ts";
import { MODEL, Shares, serialOf } from "./shares.ts";
import { Standbys } from "./standbys.ts";
import { Stats } from "./stats.ts";

/** The way to the main thread, and what the thread gives. */
export interface MainLink {
  call<K extends keyof MainMethods>(
    method: K,
    input: Parameters<MainMethods[K]>[0],
  ): ReturnType<MainMethods[K]>;
  tell<K extends keyof MainMethods>(method: K, input: Parameters<MainMethods[K]>[0]): void;
  /** Ends the loop after the messages that were posted. */
  stop(): void;
  /** Milliseconds since 1970. */
  clockMs(): number;
}

/** What the parts of a shard need of each other. */
export interface ShardContext {
  readonly reactor: Reactor;
  readonly options: ShardOptions;
  readonly log: Log;
  readonly main: MainLink;
  readonly event: (event: ShardEvent) => void;
  /** Milliseconds since 1970. */
  readonly clockMs: () => number;
  /** The reactor's time when it started. */
  readonly startedNs: number;
  /** Opens devices by their URIs. */
  readonly openBdev: typeof openBdev;
}

/** Passes log lines on to the main thread, at most so many in a second. */
function boundedLog(reactor: Reactor, main: MainLink): Log {
  let secondNs = reactor.now;
  let lines = 0;
  let left = 0;
  return (level, text, fields = {}) => {
    if (reactor.now - secondNs >= 1e9) {
      if (left > 0) {
        main.tell("log", { level: "warn", text: "log lines left out", fields: { lines: left } });
      }
      secondNs = reactor.now;
      lines = 0;
      left = 0;
    }
    if (lines++ < LOG_LINES_PER_SEC) main.tell("log", { level, text, fields });
    else left++;
  };
}

export class Shard {
  readonly methods: ShardMethods;
  readonly #context: ShardContext;
  /** What serves NVMe hosts. */
  readonly target: Target;
  readonly #nbd: NbdServer;
  readonly #shares: Shares;
  readonly #bdevs: Bdevs;
  readonly #replicas: Replicas;
  readonly #nexuses: Nexuses;
  readonly #standbys: Standbys;
  readonly #faults: Faults;
  readonly #stats: Stats;

  /** `open`: other than what opens real devices, for simulations. */
  constructor(reactor: Reactor, options: ShardOptions, main: MainLink, open = openBdev) {
    const log = boundedLog(reactor, main);
    const event = (what: ShardEvent): void => main.tell("event", what);
    const clockMs = (): number => main.clockMs();
    const startedNs = reactor.now;
    const context = { reactor, options, log, main, event, clockMs, startedNs, openBdev: open };
    const buffers = recvBuffersOf(reactor);
    this.#context = context;
    this.target = new Target(reactor, buffers, {
      h2cDataBytes: H2C_DATA_BYTES_DEFAULT,
      firmware: buildInfo.version,
      discovery: {
        nqn: discoveryNqnOf(options.nodeName),
        serial: serialOf(options.host.id),
        model: MODEL,
      },
      log,
      handOver: (moved) => main.tell("handOverNvmf", moved),
    });
    this.#nbd = new NbdServer(reactor, buffers, {
      log,
      handOver: (moved) => main.tell("handOverNbd", moved),
    });
    this.#shares = new Shares(context, this.target, this.#nbd);
    this.#bdevs = new Bdevs(context, this.#shares);
    this.#replicas = new Replicas(context, this.#shares);
    this.#standbys = new Standbys(context, this.#shares);
    const children = new ChildOpener(context, this.#bdevs, this.#replicas);
    this.#nexuses = new Nexuses(context, this.#shares, this.#standbys, children);
    const things = { bdevs: this.#bdevs, replicas: this.#replicas, nexuses: this.#nexuses };
    this.#faults = new Faults(context, things);
    children.onOpened = (uri, bdev) => this.#faults.childOpened(uri, bdev);
    this.#replicas.pools.onOpened = ({ name, bdev }) => this.#faults.poolOpened(name, bdev);
    this.#stats = new Stats(context, this.#shares, things);
    this.methods = this.#makeMethods();
  }

  /** A nexus of this reactor, for who looks from outside; undefined: there is none. */
  nexusOf(uuid: string): Nexus | undefined {
    return this.#nexuses.has(uuid) ? this.#nexuses.get(uuid) : undefined;
  }

  /** A replica of this reactor; undefined: there is none. */
  findReplica(uuid: string): Replica | undefined {
    return this.#replicas.pools.findReplica(uuid)?.replica;
  }

  #makeMethods(): ShardMethods {
    const { main } = this.#context;
    const target = this.target;
    return {
      listen: async ({ nvmf, nbd }) => {
        for (const fd of nvmf) target.listen(fd);
        for (const fd of nbd) this.#nbd.listen(fd);
      },
      find: async ({ kind, key }) => this.#has(kind, key),
      load: async () => this.#bdevs.count + this.#replicas.pools.count + this.#nexuses.count,
      state: async () => this.#state(),
      setRoutes: async ({ nvmf, nbd, discovery }) => {
        target.setRoutes(nvmf);
        target.discovery!.setData(discovery);
        this.#nbd.setRoutes(nbd);
      },
      takeOverNvmf: async (moved) => target.takeOver(moved),
      takeOverNbd: async (moved) => this.#nbd.takeOver(moved),
      drainFront: () => this.#drainFront(),
      drainDevices: () => this.#drainDevices(),
      stop: async () => main.stop(),
      ...this.#bdevs.methods,
      ...this.#shares.methods,
      ...this.#replicas.pools.methods,
      ...this.#replicas.methods,
      ...this.#nexuses.methods,
      ...this.#standbys.methods,
      ...this.#faults.methods,
      ...this.#stats.methods,
    };
  }

  #has(kind: ObjectKind, key: string): boolean {
    switch (kind) {
      case "device":
        return this.#bdevs.has(key);
      case "pool":
        return this.#replicas.pools.has(key);
      case "replica":
      case "snapshot":
        return this.#replicas.has(key);
      case "nexus":
        return this.#nexuses.has(key);
      case "standby":
        return this.#standbys.has(key);
      case "fault":
        return this.#faults.has(key);
    }
  }

  #state(): ReactorState {
    const { reactor, options } = this.#context;
    const { arena, io, stats } = reactor;
    return {
      index: reactor.index,
      core: options.core,
      ...stats,
      arenaBytes: arena.byteLength,
      arenaFreeBytes: arena.freeBytes,
      arenaPages: arena.memory.hugePages,
      slots: io.capacity,
      slotsFree: io.free,
      handlers: reactor.handlerCount,
      timers: reactor.timers.count,
      connections: this.target.connections.size + this.#nbd.connections.size,
      heapBytes: heapStats().heapSize,
      bdevs: this.#bdevs.count,
      pools: this.#replicas.pools.count,
      nexuses: this.#nexuses.count,
      subsystems: this.#shares.subsystemCount,
    };
  }

  /** Stops serving: listeners, connections, nexuses. What the nexuses stand on is still there. */
  async #drainFront(): Promise<void> {
    this.#faults.releaseAll();
    // Requests that wait in a nexus end when it closes, and connections only then.
    await Promise.all([this.#shares.closeAll(), this.#nexuses.closeAll()]);
  }

  /** Closes pools and devices, once no nexus of any reactor uses them. */
  async #drainDevices(): Promise<void> {
    await this.#replicas.pools.closeAll();
    await this.#bdevs.closeAll();
  }
}
