/**
 * The NVMe/TCP target of one reactor: its listeners, its connections, and the subsystems that live
 * here. Which reactor a subsystem lives on is known to all of them, so that a connection accepted
 * anywhere finds its place.
 */

import { NativeError } from "../../../ffi/errno.ts";
import { closeFd, tuneConnection } from "../../../ffi/index.ts";
import { assert } from "../../assert.ts";
import { TrilithError } from "../../errors.ts";
import { SQE_BYTES } from "../../nvme/constants.ts";
import { Listener } from "../reactor/listener.ts";
import type { Reactor } from "../reactor/reactor.ts";
import type { RecvBuffers } from "../reactor/tcp-stream.ts";
import type { Timer } from "../reactor/timers.ts";
import { Connection, type Negotiated } from "./connection.ts";
import { type DiscoveryOptions, DiscoverySubsystem } from "./discovery.ts";
import { Handshake } from "./handshake.ts";
import { HostData } from "./host-data.ts";
import {
  CONNECTIONS_MAX,
  DISABLED_TIMEOUT_MS,
  DISCOVERY_IDLE_MS,
  HAND_OVERS_MAX,
  HANDSHAKE_TIMEOUT_MS,
  HANDSHAKES_MAX,
  STALL_SCANS,
  STALLED_MS,
} from "./limits.ts";
import { RequestTable } from "./request-table.ts";
import type { Subsystem, SubsystemBase } from "./subsystem.ts";

export type LogLevel = "debug" | "info" | "warn" | "error";
export type Log = (level: LogLevel, text: string, fields?: Record<string, unknown>) => void;

export interface TargetOptions {
  /** MAXH2CDATA. */
  readonly h2cDataBytes: number;
  /** Firmware revision of Identify, 8 characters at most. */
  readonly firmware: string;
  /** The discovery subsystem; undefined: this target has none. */
  readonly discovery?: DiscoveryOptions | undefined;
  readonly log: Log;
  /** Passes a connection to another reactor. */
  readonly handOver: (moved: HandedOver) => void;
  /** Limits other than those of limits.ts. */
  readonly limits?: Partial<TargetLimits> | undefined;
}

/** Limits of a target that can be set; what happens when they are reached is said in limits.ts. */
export interface TargetLimits {
  readonly connections: number;
  readonly handshakes: number;
  readonly handshakeMs: number;
  readonly stalledMs: number;
  readonly discoveryIdleMs: number;
  readonly disabledMs: number;
}

/** A connection on its way between reactors. */
export interface HandedOver {
  readonly reactorIndex: number;
  readonly fd: number;
  readonly negotiated: Negotiated;
  /** Received and not yet parsed, starting at the Connect capsule. */
  readonly bytes: Uint8Array;
  /** Reactors that have passed it on so far. */
  readonly passed: number;
}

export class Target {
  readonly reactor: Reactor;
  readonly buffers: RecvBuffers;
  readonly options: TargetOptions;
  readonly limits: TargetLimits;
  readonly requests: RequestTable;
  readonly hostData: HostData;
  /** Arena offset of memory in which a parked command is looked at again. */
  readonly scratch: number;
  readonly connections = new Set<Connection>();
  /** What hosts can discover; filled in by the owner of all reactors. */
  readonly discovery: DiscoverySubsystem | undefined;
  readonly #subsystems = new Map<string, Subsystem>();
  readonly #listeners = new Map<number, Listener>();
  /** Connections without a queue yet, oldest first. */
  readonly #handshakes = new Set<Connection>();
  #routes: ReadonlyMap<string, number> = new Map();
  #stallScan: Timer | null = null;
  #onEmpty: (() => void)[] = [];
  #closed = false;

  constructor(reactor: Reactor, buffers: RecvBuffers, options: TargetOptions) {
    this.reactor = reactor;
    this.buffers = buffers;
    this.options = options;
    this.limits = {
      connections: CONNECTIONS_MAX,
      handshakes: HANDSHAKES_MAX,
      handshakeMs: HANDSHAKE_TIMEOUT_MS,
      stalledMs: STALLED_MS,
      discoveryIdleMs: DISCOVERY_IDLE_MS,
      disabledMs: DISABLED_TIMEOUT_MS,
      ...options.limits,
    };
    if (options.discovery !== undefined) this.discovery = new DiscoverySubsystem(options.discovery);
    this.requests = new RequestTable(reactor.io.capacity);
    this.hostData = new HostData(reactor.io, reactor.arena.byteLength);
    this.scratch = reactor.arena.alloc(SQE_BYTES, 0);
    assert(this.scratch >= 0, "a new target has room for one command");
  }

  // -------------------------------------------------------------------------------- subsystems

  /** Which reactor each subsystem lives on, by NQN. */
  setRoutes(routes: ReadonlyMap<string, number>): void {
    this.#routes = routes;
  }

  /** Reactor of a subsystem, or undefined when nobody has it. */
  reactorOf(nqn: string): number | undefined {
    if (this.subsystem(nqn) !== undefined) return this.reactor.index;
    return this.#routes.get(nqn);
  }

  addSubsystem(subsystem: Subsystem): void {
    if (this.subsystem(subsystem.nqn) !== undefined) {
      throw new TrilithError("AlreadyExists", `subsystem ${subsystem.nqn} exists already`);
    }
    this.#subsystems.set(subsystem.nqn, subsystem);
  }

  subsystem(nqn: string): SubsystemBase | undefined {
    if (this.discovery?.isNamed(nqn) === true) return this.discovery;
    return this.#subsystems.get(nqn);
  }

  /**
   * Takes a subsystem out: nobody can connect any more, its controllers end. Resolves when nothing
   * of them is in flight, so that the device may be closed. Throws `NotFound`.
   */
  async removeSubsystem(nqn: string): Promise<void> {
    const subsystem = this.#subsystems.get(nqn);
    if (subsystem === undefined) {
      throw new TrilithError("NotFound", `subsystem ${nqn} does not exist`);
    }
    await subsystem.end("subsystem removed");
    this.#subsystems.delete(nqn);
  }

  // ------------------------------------------------------------------------------- connections

  /** Starts accepting on a listening socket, which stays the caller's. */
  listen(fd: number): void {
    const listener = new Listener(this.reactor, fd, (accepted) => this.accepted(accepted));
    this.#listeners.set(fd, listener);
  }

  /** Stops accepting on a socket; what was accepted stays. */
  async unlisten(fd: number): Promise<void> {
    const listener = this.#listeners.get(fd);
    assert(listener !== undefined, "the socket is listened on");
    this.#listeners.delete(fd);
    await listener.close();
  }

  /** For listeners: a socket was accepted. */
  accepted(fd: number): void {
    if (!this.#admits(fd)) return;
    try {
      tuneConnection(fd);
    } catch (error) {
      // The host has gone again already.
      if (!(error instanceof NativeError)) throw error;
      closeFd(fd);
      return;
    }
    this.#begin(new Connection(this, fd, 0, (c) => new Handshake(c))).stream.start();
  }

  /** Takes a connection that another reactor accepted. */
  takeOver(moved: HandedOver): void {
    if (!this.#admits(moved.fd)) return;
    const connection = new Connection(this, moved.fd, moved.passed, (c) => new Handshake(c));
    this.#begin(connection).resumeAt(moved.negotiated, moved.bytes);
  }

  /** False: there are too many connections, or the target is closing; the socket is closed. */
  #admits(fd: number): boolean {
    if (!this.#closed && this.connections.size < this.limits.connections) return true;
    this.options.log("warn", "connection refused", { limit: this.limits.connections });
    closeFd(fd);
    return false;
  }

  #begin(connection: Connection): Connection {
    if (this.#handshakes.size >= this.limits.handshakes) {
      const [oldest] = this.#handshakes;
      oldest?.close("too many connections without Connect");
    }
    this.connections.add(connection);
    this.#handshakes.add(connection);
    this.#scanForStalled();
    return connection;
  }

  #scanForStalled(): void {
    const everyMs = this.limits.stalledMs / STALL_SCANS;
    this.#stallScan ??= this.reactor.after(everyMs, () => this.#endStalled());
  }

  /** True when a connection may be passed on once more. */
  mayHandOver(connection: Connection): boolean {
    return connection.passed < HAND_OVERS_MAX;
  }

  /** Passes a connection on; its stream is detached already. */
  handOver(connection: Connection, reactorIndex: number, bytes: Uint8Array): void {
    this.#forget(connection);
    const { fd } = connection.stream;
    const negotiated = connection.negotiated!;
    const passed = connection.passed + 1;
    this.options.handOver({ reactorIndex, fd, negotiated, bytes, passed });
  }

  /** For connections: Connect has made a queue. */
  connected(connection: Connection): void {
    this.#handshakes.delete(connection);
  }

  connectionClosed(connection: Connection, reason: string): void {
    this.options.log("debug", "connection closed", { reason });
    this.#forget(connection);
  }

  #forget(connection: Connection): void {
    this.connections.delete(connection);
    this.#handshakes.delete(connection);
    if (this.connections.size === 0) for (const done of this.#onEmpty.splice(0)) done();
  }

  /** While somebody waits for memory: ends the connections that hold some and do not move. */
  #endStalled(): void {
    this.#stallScan = null;
    if (this.reactor.waiterCount > 0 || this.buffers.waiting > 0) {
      for (const connection of [...this.connections]) {
        if (connection.isStalled) connection.close("stalled while memory is short");
      }
    }
    if (this.connections.size > 0) this.#scanForStalled();
  }

  /**
   * Ends everything: listeners, connections, subsystems. Resolves when nothing is in flight. The
   * listening sockets and the devices are the caller's to close.
   */
  async close(): Promise<void> {
    assert(!this.#closed, "a target is closed once");
    this.#closed = true;
    await Promise.all([...this.#listeners.keys()].map((fd) => this.unlisten(fd)));
    const subsystems: SubsystemBase[] = [...this.#subsystems.values()];
    if (this.discovery !== undefined) subsystems.push(this.discovery);
    const ended = subsystems.map((subsystem) => subsystem.end("target closed"));
    for (const connection of [...this.connections]) connection.close("target closed");
    await Promise.all(ended);
    if (this.connections.size > 0) {
      await new Promise<void>((resolve) => {
        this.#onEmpty.push(resolve);
      });
    }
    this.#subsystems.clear();
    this.#stallScan?.cancel();
    this.reactor.arena.free(this.scratch);
  }
}
