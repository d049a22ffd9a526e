/**
 * A dynamic controller: what one host's association with a subsystem consists of (Base 2.0, 3.1).
 * It comes into being with Connect on the admin queue and ends with that queue, a keep-alive
 * time-out, a change of the hosts admitted, or the subsystem.
 */
import { assert } from "../../assert.ts";
import { asyncEvents } from "../../nvme/async-events.ts";
import { NVME_VERSION, STATUS_DNR, Status } from "../../nvme/constants.ts";
import type { Timer } from "../reactor/timers.ts";
import type { AdminQueue } from "./admin-queue.ts";
import { AsyncEvents } from "./async-events.ts";
import { DiscoverySubsystem } from "./discovery.ts";
import { ErrorLog } from "./error-log.ts";
import { defaultFeatures } from "./features.ts";
import type { IoQueue } from "./io-queue.ts";
import {
  IO_QUEUE_ENTRIES_MAX,
  IO_QUEUES_MAX,
  KEEP_ALIVE_GRANULARITY,
  READY_TIMEOUT,
} from "./limits.ts";
import { ReservationNotices } from "./reservation-notices.ts";
import { Subsystem, type SubsystemBase } from "./subsystem.ts";
import type { Target } from "./target.ts";

// Controller Configuration (Base 2.0, 3.1.3.5).
const CC_ENABLE = 1;
/** CSS, MPS, AMS: one command set, 4 KiB pages, round robin. All zero. */
const CC_FIXED_MASK = 0x3ff0;
const CC_SHUTDOWN_SHIFT = 14;
const CC_IOSQES_SHIFT = 16;
const CC_IOCQES_SHIFT = 20;
const IOSQES = 6;
const IOCQES = 4;
// Controller Status (Base 2.0, 3.1.3.6).
const CSTS_READY = 1;
const CSTS_FATAL = 2;
const CSTS_SHUTDOWN_COMPLETE = 8;

/** Who connected, as Connect told it. */
export interface HostIdentity {
  readonly nqn: string;
  /** 16 bytes as 32 lower-case hex digits. */
  readonly id: string;
  readonly keepAliveMs: number;
}

export class Controller {
  readonly target: Target;
  readonly subsystem: SubsystemBase;
  /** The subsystem when it is one with a namespace; else undefined. */
  readonly nvm: Subsystem | undefined;
  /** The subsystem when it is a discovery subsystem; else undefined. */
  readonly discovery: DiscoverySubsystem | undefined;
  readonly id: number;
  readonly hostNqn: string;
  /** 16 bytes as 32 lower-case hex digits. */
  readonly hostId: string;
  readonly admin: AdminQueue;
  readonly queues = new Map<number, IoQueue>();
  readonly events: AsyncEvents;
  readonly errors = new ErrorLog();
  features = defaultFeatures();
  /** Namespaces whose attributes changed since the host last read the list. */
  readonly changedNamespaces = new Set<number>();
  readonly notices = new ReservationNotices();
  readonly startedNs: number;
  /** Accesses (bits of `Access`) that a reservation denies this host. */
  denied = 0;
  /** Most I/O queues the host may connect (feature 07h). */
  queueLimit = IO_QUEUES_MAX;
  configuration = 0;
  status = 0;
  #keepAliveMs = 0;
  #keepAlive: Timer | null = null;
  #disabled: Timer | null = null;
  #ended = false;
  #endListeners: ((isByHost: boolean) => void)[] = [];

  constructor(subsystem: SubsystemBase, admin: AdminQueue, host: HostIdentity) {
    this.subsystem = subsystem;
    this.nvm = subsystem instanceof Subsystem ? subsystem : undefined;
    this.discovery = subsystem instanceof DiscoverySubsystem ? subsystem : undefined;
    this.target = admin.connection.target;
    this.admin = admin;
    this.id = subsystem.takeControllerId();
    this.hostNqn = host.nqn;
    this.hostId = host.id;
    this.startedNs = this.target.reactor.now;
    this.events = new AsyncEvents((slot, status, dw0) => admin.finish(slot, status, dw0, 0));
    this.denied = this.nvm?.namespace.reservations.deniedTo(host.id) ?? 0;
    subsystem.controllers.set(this.id, this);
    this.keepAliveMs = host.keepAliveMs;
  }

  // -------------------------------------------------------------------------------- properties

  /** CAP (Base 2.0, 3.1.3.1), low and high word. */
  get capabilities(): { low: number; high: number } {
    const contiguousQueues = 1 << 16;
    const low = (IO_QUEUE_ENTRIES_MAX - 1) | contiguousQueues | (READY_TIMEOUT << 24);
    // CSS: the NVM command set alone. Announcing selectable sets would make hosts ask for the logs of
    // sets that are not there; the Identify pages by command set are answered all the same.
    // NSSRS stays 0: one host shall not reset the controllers of all others.
    const nvmCommandSet = 1 << 5;
    return { low, high: nvmCommandSet };
  }

  get version(): number {
    return NVME_VERSION;
  }

  /** A write of CC: enable, disable (a controller reset) and shutdown (Base 2.0, 3.1.3.5). */
  configure(value: number): void {
    const wasEnabled = (this.configuration & CC_ENABLE) !== 0;
    const isEnabled = (value & CC_ENABLE) !== 0;
    this.configuration = value;
    if (isEnabled && !wasEnabled) this.#enable(value);
    if (wasEnabled && !isEnabled) this.#reset();
    // Data that was acknowledged is on the device already, so a shutdown is complete at once.
    if (((value >>> CC_SHUTDOWN_SHIFT) & 3) !== 0) this.status |= CSTS_SHUTDOWN_COMPLETE;
  }

  #enable(value: number): void {
    this.#disabled?.cancel();
    this.#disabled = null;
    const entrySizesFit =
      this.discovery !== undefined ||
      (((value >>> CC_IOSQES_SHIFT) & 15) === IOSQES &&
        ((value >>> CC_IOCQES_SHIFT) & 15) === IOCQES);
    const isSupported = (value & CC_FIXED_MASK) === 0 && entrySizesFit;
    this.status = isSupported ? CSTS_READY : CSTS_FATAL;
  }

  /**
   * Controller reset: I/O queues end, features go back to their defaults, events are forgotten. The
   * admin queue stays, so that the host can enable the controller again (Base 2.0, 3.7.2).
   */
  #reset(): void {
    this.status = 0;
    for (const queue of [...this.queues.values()]) queue.connection.close("controller reset");
    for (const slot of this.events.reset()) {
      this.admin.finish(slot, Status.ABORT_REQUESTED | STATUS_DNR, 0, 0);
    }
    this.features = defaultFeatures();
    this.queueLimit = IO_QUEUES_MAX;
    this.changedNamespaces.clear();
    this.notices.clear();
    this.#disabled = this.target.reactor.after(this.target.limits.disabledMs, () => {
      this.end("disabled for too long");
    });
  }

  /** True when the controller takes commands other than those of Fabrics. */
  get enabled(): boolean {
    return (this.status & (CSTS_READY | CSTS_FATAL)) === CSTS_READY;
  }

  /** A command failed: it goes into the error log, unless only the path was to blame. */
  failed(
    queueId: number,
    cid: number,
    status: number,
    namespaceId: number,
    lba: number,
    result: number,
  ): void {
    const PATH_RELATED = 3;
    if (((status >>> 8) & 7) === PATH_RELATED) return;
    this.errors.record(queueId, cid, status, namespaceId, lba, result);
    if ((status & 0x7ff) === Status.INTERNAL_ERROR) this.events.raise(asyncEvents.internalError);
  }

  // -------------------------------------------------------------------------------- keep alive

  /** Keep-alive time-out in ms; 0 is off. */
  get keepAliveMs(): number {
    return this.#keepAliveMs;
  }

  /** Sets the time-out, rounded up to the granularity (Base 2.0, 3.9), and starts it anew. */
  set keepAliveMs(value: number) {
    const granularityMs = KEEP_ALIVE_GRANULARITY * 100;
    this.#keepAliveMs = Math.ceil(value / granularityMs) * granularityMs;
    this.#armKeepAlive();
  }

  /**
   * (Re)starts the timer. Commands on any queue count as life. A discovery controller
   * without a time-out has the fixed one of 5.18.
   */
  #armKeepAlive(): void {
    this.#keepAlive?.cancel();
    this.#keepAlive = null;
    const { discoveryIdleMs } = this.target.limits;
    const afterMs = this.#keepAliveMs || (this.discovery !== undefined ? discoveryIdleMs : 0);
    if (afterMs === 0 || this.#ended) return;
    const { reactor } = this.target;
    const dueNs = this.#lastSeenNs() + afterMs * 1e6;
    this.#keepAlive = reactor.timers.at(Math.max(dueNs, reactor.now + 1e6), () => {
      if (this.#lastSeenNs() + afterMs * 1e6 > reactor.now) this.#armKeepAlive();
      else this.end("keep-alive time-out");
    });
  }

  /** A connection that we do not read from, for lack of memory, counts as alive. */
  #lastSeenNs(): number {
    let last = this.admin.connection.lastSeenNs;
    if (this.admin.connection.stream.blocked) return this.target.reactor.now;
    for (const { connection } of this.queues.values()) {
      last = Math.max(last, connection.lastSeenNs);
    }
    return last;
  }

  // ------------------------------------------------------------------------------- the end of it

  onEnd(listener: (isByHost: boolean) => void): void {
    this.#endListeners.push(listener);
  }

  /** The host's side has closed a connection: an association does not survive that. */
  hostLeft(): void {
    for (const tell of this.#endListeners.splice(0)) tell(true);
  }

  /** Ends the association: every connection of it is closed. */
  end(reason: string): void {
    if (this.#ended) return;
    this.#ended = true;
    for (const tell of this.#endListeners.splice(0)) tell(false);
    this.#keepAlive?.cancel();
    this.#disabled?.cancel();
    this.target.options.log("info", "controller ended", {
      nqn: this.subsystem.nqn,
      host: this.hostNqn,
      controller: this.id,
      reason,
    });
    for (const queue of [...this.queues.values()]) queue.connection.close(reason);
    this.admin.connection.close(reason);
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** An I/O queue's connection is closed and nothing of it is in flight. */
  queueClosed(queue: IoQueue): void {
    assert(this.queues.get(queue.queueId) === queue, "a closed queue belongs to its controller");
    this.queues.delete(queue.queueId);
    this.#leaveWhenDrained();
  }

  /** The admin queue's connection is closed, and with it the controller. */
  adminClosed(): void {
    this.end("admin queue closed");
    this.#leaveWhenDrained();
  }

  #leaveWhenDrained(): void {
    if (!this.#ended || this.queues.size > 0 || !this.admin.drained) return;
    if (this.subsystem.controllers.get(this.id) === this) this.subsystem.controllerGone(this);
  }
}
