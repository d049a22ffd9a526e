/**
 * The NVMe/TCP target of one reactor: its listeners, its connections, and the subsystems that live
 * here. Which reactor a subsystem lives on is known to all of them, so that a connection accepted
 * anywhere finds its place.
 */
import { closeFd, tuneConnection } from "../../../ffi/index.ts";
import { TrilithError } from "../../errors.ts";
import { Listener } from "../reactor/listener.ts";
import type { Reactor } from "../reactor/reactor.ts";
import type { RecvBuffers } from "../reactor/tcp-stream.ts";
import { CommandWords } from "./command-queue.ts";
import { Connection, type Negotiated } from "./connection.ts";
import { type DiscoveryOptions, DiscoverySubsystem } from "./discovery.ts";
import { Handshake } from "./handshake.ts";
import { CONNECTIONS_MAX } from "./limits.ts";
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
}

/** A connection on its way between reactors. */
export interface HandedOver {
  readonly reactorIndex: number;
  readonly fd: number;
  readonly negotiated: Negotiated;
  /** Received and not yet parsed, starting at the Connect capsule. */
  readonly bytes: Uint8Array;
}

export class Target {
  readonly reactor: Reactor;
  readonly buffers: RecvBuffers;
  readonly options: TargetOptions;
  readonly words: CommandWords;
  /** Connection that a request slot waits for host data from. */
  readonly awaiting: (Connection | null)[];
  /** 1 when some data PDU of the slot's transfer had a wrong digest. */
  readonly damaged: Uint8Array;
  readonly connections = new Set<Connection>();
  /** What hosts can discover; filled in by the owner of all reactors. */
  readonly discovery: DiscoverySubsystem | undefined;
  readonly #subsystems = new Map<string, Subsystem>();
  readonly #listeners: Listener[] = [];
  #routes: ReadonlyMap<string, number> = new Map();

  constructor(reactor: Reactor, buffers: RecvBuffers, options: TargetOptions) {
    this.reactor = reactor;
    this.buffers = buffers;
    this.options = options;
    if (options.discovery !== undefined) this.discovery = new DiscoverySubsystem(options.discovery);
    const slots = reactor.io.capacity;
    this.words = new CommandWords(slots);
    this.awaiting = new Array<Connection | null>(slots).fill(null);
    this.damaged = new Uint8Array(slots);
  }

  /** Starts accepting on a listening socket. */
  listen(fd: number): void {
    this.#listeners.push(new Listener(this.reactor, fd, (accepted) => this.accepted(accepted)));
  }

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
    if (this.#subsystems.has(subsystem.nqn)) {
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
   * of them is in flight, so that the device may be closed.
   */
  async removeSubsystem(nqn: string): Promise<void> {
    const subsystem = this.#subsystems.get(nqn);
    if (subsystem === undefined) {
      throw new TrilithError("NotFound", `subsystem ${nqn} does not exist`);
    }
    await subsystem.end("subsystem removed");
    this.#subsystems.delete(nqn);
  }

  /** For listeners: a socket was accepted. */
  accepted(fd: number): void {
    if (this.connections.size >= CONNECTIONS_MAX) {
      this.options.log("warn", "connection refused", { limit: CONNECTIONS_MAX });
      closeFd(fd);
      return;
    }
    tuneConnection(fd);
    const connection = new Connection(this, fd, (c) => new Handshake(c));
    this.connections.add(connection);
    connection.stream.start();
  }

  /** Passes a connection on; its stream is detached already. */
  handOver(connection: Connection, reactorIndex: number, bytes: Uint8Array): void {
    this.connections.delete(connection);
    const { fd } = connection.stream;
    const negotiated = connection.negotiated!;
    this.options.handOver({ reactorIndex, fd, negotiated, bytes });
  }

  /** Takes a connection that another reactor accepted. */
  takeOver(moved: HandedOver): void {
    const connection = new Connection(this, moved.fd, (c) => new Handshake(c));
    this.connections.add(connection);
    connection.resumeAt(moved.negotiated, moved.bytes);
  }

  connectionClosed(connection: Connection, _reason: string): void {
    this.connections.delete(connection);
  }
}
