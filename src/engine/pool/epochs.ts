/**
 * Tells when all requests that were submitted before a moment have ended.
 *
 * Every request that a pool submits for its replicas carries the current epoch as its owner. To wait
 * for the past, the other epoch becomes the current one and the old one is left to run dry. Two
 * objects and two counters serve the whole pool: nothing is kept per request.
 */
import { IoStatus } from "../../errors.ts";
import type { IoOwner, IoTable } from "../reactor/io-table.ts";

/** Owner of the requests submitted while it was current. */
export class Epoch implements IoOwner {
  /** Requests under way. Whoever pushes the epoch adds one. */
  count = 0;
  draining = false;
  readonly #epochs: Epochs;
  readonly #io: IoTable;

  constructor(epochs: Epochs, io: IoTable) {
    this.#epochs = epochs;
    this.#io = io;
  }

  ioDone(slot: number): void {
    const status = this.#io.status[slot]!;
    const isLast = --this.count === 0 && this.draining;
    if (status !== IoStatus.OK) this.#epochs.onError(this.#io.op[slot]!, status);
    this.#io.complete(slot, status);
    if (isLast) this.#epochs.ranDry();
  }

  /** For whoever counted itself without being a request. */
  leave(): void {
    if (--this.count === 0 && this.draining) this.#epochs.ranDry();
  }
}

export class Epochs {
  /** What new requests carry. */
  current: Epoch;
  /** Told of every request of a replica that failed. */
  readonly onError: (op: number, status: number) => void;
  #other: Epoch;
  #waiting: (() => void)[] = [];
  #next: (() => void)[] = [];

  constructor(io: IoTable, onError: (op: number, status: number) => void) {
    this.onError = onError;
    this.current = new Epoch(this, io);
    this.#other = new Epoch(this, io);
  }

  /** Resolves when every request submitted before the call has ended. */
  grace(): Promise<void> {
    return new Promise((resolve) => {
      this.#next.push(resolve);
      if (!this.#other.draining) this.#turnOver();
    });
  }

  /** The draining epoch has no requests left. */
  ranDry(): void {
    this.#other.draining = false;
    const done = this.#waiting;
    this.#waiting = [];
    for (const resolve of done) resolve();
    if (this.#next.length > 0 && !this.#other.draining) this.#turnOver();
  }

  #turnOver(): void {
    const old = this.current;
    this.current = this.#other;
    this.#other = old;
    old.draining = true;
    this.#waiting = this.#next;
    this.#next = [];
    if (old.count === 0) this.ranDry();
  }
}
