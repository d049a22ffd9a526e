/**
 * A dynamic controller: what one host's association with a subsystem consists of (Base 2.0, 3.1).
 * It comes into being with Connect on the admin queue and ends with that queue, a reset, a
 * keep-alive time-out, or the subsystem.
 */
import { assert } from "../../assert.ts";
import { NVME_VERSION } from "../../nvme/constants.ts";
import type { Timer } from "../reactor/timers.ts";
import type { AdminQueue } from "./admin-queue.ts";
import type { IoQueue } from "./io-queue.ts";
import { IO_QUEUE_ENTRIES_MAX, READY_TIMEOUT } from "./limits.ts";
import type { Subsystem } from "./subsystem.ts";
import type { Target } from "./target.ts";

const CC_ENABLE = 1;
const CC_SHUTDOWN_SHIFT = 14;
const CSTS_READY = 1;
const CSTS_FATAL = 2;
const CSTS_SHUTDOWN_COMPLETE = 8;

export class Controller {
  readonly target: Target;
  readonly subsystem: Subsystem;
  readonly id: number;
  readonly hostNqn: string;
  /** 16 bytes as 32 lower-case hex digits. */
  readonly hostId: string;
  readonly admin: AdminQueue;
  readonly queues = new Map<number, IoQueue>();
  /** Keep-alive time-out in ms; 0 is off. */
  keepAliveMs: number;
  configuration = 0;
  status = 0;
  #keepAlive: Timer | null = null;
  #ended = false;

  constructor(
    subsystem: Subsystem,
    admin: AdminQueue,
    host: { nqn: string; id: string; keepAliveMs: number },
  ) {
    this.subsystem = subsystem;
    this.target = admin.connection.target;
    this.admin = admin;
    this.id = subsystem.takeControllerId();
    this.hostNqn = host.nqn;
    this.hostId = host.id;
    this.keepAliveMs = host.keepAliveMs;
    subsystem.controllers.set(this.id, this);
    this.armKeepAlive();
  }

  /** CAP (Base 2.0, 3.1.3.1), low and high word. */
  get capabilities(): { low: number; high: number } {
    const contiguousQueues = 1 << 16;
    const low = (IO_QUEUE_ENTRIES_MAX - 1) | contiguousQueues | (READY_TIMEOUT << 24);
    // CSS: the NVM command set alone. Announcing selectable sets would make hosts ask for the logs of
    // sets that are not there; the Identify pages by command set are answered all the same.
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
    if (((value >>> CC_SHUTDOWN_SHIFT) & 3) !== 0) this.status |= CSTS_SHUTDOWN_COMPLETE;
    if (isEnabled && !wasEnabled) this.status = CSTS_READY;
    if (wasEnabled && !isEnabled) {
      this.status &= ~(CSTS_READY | CSTS_FATAL);
      for (const queue of [...this.queues.values()]) queue.connection.close("controller reset");
    }
  }

  get enabled(): boolean {
    return (this.status & CSTS_READY) !== 0 && (this.status & CSTS_FATAL) === 0;
  }

  /** (Re)starts the keep-alive timer. Commands on any queue count as life (CTRATT.TBKAS). */
  armKeepAlive(): void {
    this.#keepAlive?.cancel();
    this.#keepAlive = null;
    if (this.keepAliveMs === 0 || this.#ended) return;
    const { reactor } = this.target;
    const dueNs = this.#lastSeenNs() + this.keepAliveMs * 1e6;
    this.#keepAlive = reactor.timers.at(Math.max(dueNs, reactor.now + 1e6), () => {
      if (this.#lastSeenNs() + this.keepAliveMs * 1e6 > reactor.now) this.armKeepAlive();
      else this.end("keep-alive time-out");
    });
  }

  #lastSeenNs(): number {
    let last = this.admin.connection.lastSeenNs;
    for (const queue of this.queues.values()) {
      last = Math.max(last, queue.connection.lastSeenNs);
    }
    return last;
  }

  /** Ends the association: every connection of it is closed. */
  end(reason: string): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#keepAlive?.cancel();
    this.target.options.log("info", "controller ended", {
      nqn: this.subsystem.nqn,
      host: this.hostNqn,
      controller: this.id,
      reason,
    });
    for (const queue of [...this.queues.values()]) queue.connection.close(reason);
    this.admin.connection.close(reason);
    if (this.queues.size === 0 && this.admin.drained) this.#forget();
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** An I/O queue's connection is closed and nothing of it is in flight. */
  queueClosed(queue: IoQueue): void {
    assert(this.queues.get(queue.queueId) === queue, "a closed queue belongs to its controller");
    this.queues.delete(queue.queueId);
    if (this.#ended && this.queues.size === 0 && this.admin.drained) this.#forget();
  }

  /** The admin queue's connection is closed: so is the controller. */
  adminClosed(): void {
    this.end("admin queue closed");
    if (this.queues.size === 0) this.#forget();
  }

  #forget(): void {
    this.subsystem.controllers.delete(this.id);
  }
}
