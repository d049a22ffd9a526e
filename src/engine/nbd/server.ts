/**
 * The NBD front end of one reactor: its listeners, its connections, and the exports that live here.
 * Which reactor an export lives on is known to all of them, so that a connection accepted anywhere
 * finds its place.
 *
 * This folder speaks the Network Block Device protocol over any block device. It may import the
 * reactor, the block device interface, and the target's statistics.
 */
import { closeFd, tuneConnection } from "../../../ffi/index.ts";
import { TrilithError } from "../../errors.ts";
import { Listener } from "../reactor/listener.ts";
import type { Reactor } from "../reactor/reactor.ts";
import type { RecvBuffers } from "../reactor/tcp-stream.ts";
import type { Log } from "../target/target.ts";
import { NbdConnection } from "./connection.ts";
import { NbdExport, type NbdExportOptions } from "./export.ts";
import type { Negotiated } from "./handshake.ts";
import {
  CONNECTIONS_MAX,
  DESCRIPTION_BYTES_MAX,
  EXPORT_NAME_BYTES_MAX,
  EXPORTS_MAX,
} from "./limits.ts";
import { RequestNotes } from "./requests.ts";

export interface NbdServerOptions {
  readonly log: Log;
  /** Passes a connection to another reactor, whose server takes it with `takeOver`. */
  readonly handOver: (moved: NbdHandedOver) => void;
}

/** A connection on its way between reactors. */
export interface NbdHandedOver {
  readonly reactorIndex: number;
  readonly fd: number;
  readonly negotiated: Negotiated;
  /** Received and not yet parsed, starting at the option that named the export. */
  readonly bytes: Uint8Array;
}

export class NbdServer {
  readonly reactor: Reactor;
  readonly buffers: RecvBuffers;
  readonly options: NbdServerOptions;
  readonly notes: RequestNotes;
  /** Connections that are open or still have requests under way. */
  readonly connections = new Set<NbdConnection>();
  readonly #exports = new Map<string, NbdExport>();
  #listeners: Listener[] = [];
  #routes: ReadonlyMap<string, number> = new Map();
  #closing = false;
  #onEmpty: (() => void) | null = null;

  constructor(reactor: Reactor, buffers: RecvBuffers, options: NbdServerOptions) {
    this.reactor = reactor;
    this.buffers = buffers;
    this.options = options;
    this.notes = new RequestNotes(reactor.io.capacity);
  }

  /** Starts accepting on a listening socket, which stays the caller's. */
  listen(fd: number): void {
    this.#listeners.push(new Listener(this.reactor, fd, (accepted) => this.accepted(accepted)));
  }

  // ---------------------------------------------------------------------------------- exports

  /**
   * Offers a device under a name. Errors: InvalidArgument (name or description), AlreadyExists,
   * ResourceExhausted, FailedPrecondition (the server is closing).
   */
  addExport(options: NbdExportOptions): NbdExport {
    const { name, description = "" } = options;
    if (this.#closing) {
      throw new TrilithError("FailedPrecondition", "the NBD server is being closed");
    }
    const nameBytes = Buffer.byteLength(name);
    if (nameBytes < 1 || nameBytes > EXPORT_NAME_BYTES_MAX || name.includes("\0")) {
      throw new TrilithError(
        "InvalidArgument",
        `NBD export name "${name}" is not 1 to ${EXPORT_NAME_BYTES_MAX} bytes without a zero byte`,
      );
    }
    if (Buffer.byteLength(description) > DESCRIPTION_BYTES_MAX || description.includes("\0")) {
      throw new TrilithError(
        "InvalidArgument",
        `description of NBD export "${name}" is not at most ${DESCRIPTION_BYTES_MAX} bytes without a zero byte`,
      );
    }
    if (this.#exports.has(name)) {
      throw new TrilithError("AlreadyExists", `NBD export "${name}" exists already`);
    }
    if (this.#exports.size >= EXPORTS_MAX) {
      throw new TrilithError("ResourceExhausted", `${EXPORTS_MAX} NBD exports exist on a reactor`);
    }
    const added = new NbdExport(options);
    this.#exports.set(name, added);
    return added;
  }

  /**
   * Takes an export away: from now on nobody finds it, requests under way are carried out and
   * answered, its connections are closed. Resolves when all of that is done; the device can then be
   * closed. Errors: NotFound.
   */
  async removeExport(name: string): Promise<void> {
    const removed = this.#exports.get(name);
    if (removed === undefined) {
      throw new TrilithError("NotFound", `there is no NBD export "${name}"`);
    }
    this.#exports.delete(name);
    await removed.disconnect("the export was removed");
  }

  /** The export of that name on this reactor. */
  export(name: string): NbdExport | undefined {
    return this.#exports.get(name);
  }

  /** Which reactor each export of the engine lives on, by name. */
  setRoutes(routes: ReadonlyMap<string, number>): void {
    this.#routes = routes;
  }

  /** Reactor of an export that lives elsewhere, or undefined when nobody has it. */
  reactorOf(name: string): number | undefined {
    return this.#routes.get(name);
  }

  /** All exports of the engine, as clients are shown them. */
  *list(): Generator<{ name: string; description: string }> {
    for (const { name, description } of this.#exports.values()) yield { name, description };
    for (const [name, reactorIndex] of this.#routes) {
      if (reactorIndex !== this.reactor.index) yield { name, description: "" };
    }
  }

  // ------------------------------------------------------------------------------ connections

  /** A socket was accepted; it is the server's now. */
  accepted(fd: number): void {
    if (this.connections.size >= CONNECTIONS_MAX || this.#closing) {
      this.options.log("warn", "nbd connection refused", { limit: CONNECTIONS_MAX });
      closeFd(fd);
      return;
    }
    tuneConnection(fd);
    const connection = new NbdConnection(this, fd);
    this.connections.add(connection);
    connection.start();
  }

  /** Passes a connection on; its stream is detached already. */
  handOver(connection: NbdConnection, moved: NbdHandedOver): void {
    this.connectionEnded(connection);
    this.options.handOver(moved);
  }

  /** Takes a connection that another reactor accepted. */
  takeOver(moved: NbdHandedOver): void {
    if (this.connections.size >= CONNECTIONS_MAX || this.#closing) {
      this.options.log("warn", "nbd connection refused", { limit: CONNECTIONS_MAX });
      closeFd(moved.fd);
      return;
    }
    const connection = new NbdConnection(this, moved.fd, moved.negotiated);
    this.connections.add(connection);
    connection.startWith(moved.bytes);
  }

  /** A connection is gone, and nothing of it is under way any more. */
  connectionEnded(connection: NbdConnection): void {
    this.connections.delete(connection);
    if (this.connections.size === 0) this.#onEmpty?.();
  }

  /**
   * Stops accepting, takes all exports away, and ends every connection once its requests are
   * answered. Resolves when nothing is left. Devices and listening descriptors stay the caller's.
   */
  async close(): Promise<void> {
    this.#closing = true;
    const listeners = this.#listeners;
    this.#listeners = [];
    await Promise.all(listeners.map((listener) => listener.close()));
    this.#exports.clear();
    if (this.connections.size === 0) return;
    await new Promise<void>((resolve) => {
      this.#onEmpty = resolve;
      for (const connection of [...this.connections]) connection.drain("the server is closing");
    });
  }
}
