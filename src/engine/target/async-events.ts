/**
 * Asynchronous events of one controller (Base 2.0, 5.2). At most one event of each kind is kept, so
 * the queue is bounded by the number of kinds. A kind that was reported is masked until the host
 * reads its log page without "retain" (RAE).
 */
import { type AsyncEventKind, asyncEventDword0 } from "../../nvme/async-events.ts";
import { Status } from "../../nvme/constants.ts";
import { ASYNC_EVENTS_MAX } from "./limits.ts";

export class AsyncEvents {
  /** Async Event Configuration (feature 0Bh). */
  configuration = 0;
  readonly #finish: (slot: number, status: number, dw0: number) => void;
  /** Requests that wait for an event, oldest first. */
  #requests: number[] = [];
  /** Events that wait for a request, oldest first. */
  #pending: AsyncEventKind[] = [];
  readonly #masked = new Set<AsyncEventKind>();

  constructor(finish: (slot: number, status: number, dw0: number) => void) {
    this.#finish = finish;
  }

  /** Takes a request. False when the host has too many outstanding. */
  request(slot: number): boolean {
    if (this.#requests.length >= ASYNC_EVENTS_MAX) return false;
    this.#requests.push(slot);
    this.#report();
    return true;
  }

  /** Takes a request back, for Abort: the first that `matches`. */
  withdraw(matches: (slot: number) => boolean): number | undefined {
    const slot = this.#requests.find(matches);
    this.#requests = this.#requests.filter((request) => request !== slot);
    return slot;
  }

  /** Something happened. Kinds that the host has not enabled are dropped. */
  raise(kind: AsyncEventKind): void {
    const { enableBit } = kind;
    if (enableBit !== undefined && ((this.configuration >>> enableBit) & 1) === 0) return;
    if (this.#masked.has(kind) || this.#pending.includes(kind)) return;
    this.#pending.push(kind);
    this.#report();
  }

  /** The host has read a log page without retaining its event: the kind may be reported again. */
  cleared(logPage: number): void {
    for (const kind of this.#masked) if (kind.logPage === logPage) this.#masked.delete(kind);
    this.#pending = this.#pending.filter((kind) => kind.logPage !== logPage);
  }

  /** Forgets events and configuration (controller reset); returns the requests outstanding. */
  reset(): number[] {
    const requests = this.#requests;
    this.#requests = [];
    this.#pending = [];
    this.#masked.clear();
    this.configuration = 0;
    return requests;
  }

  #report(): void {
    while (this.#pending.length > 0 && this.#requests.length > 0) {
      const kind = this.#pending.shift()!;
      const slot = this.#requests.shift()!;
      this.#masked.add(kind);
      this.#finish(slot, Status.SUCCESS, asyncEventDword0(kind));
    }
  }
}
