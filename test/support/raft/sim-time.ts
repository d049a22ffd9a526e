/** Time of a simulation: events in order of their moment, then of their making. Nothing else moves. */
import { drainMicrotasks } from "bun:jsc";

interface Event {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

export class SimTime {
  /** A heap: the next event is the first. */
  #events: Event[] = [];
  #order = 0;
  #nowMs = 0;

  get nowMs(): number {
    return this.#nowMs;
  }

  get eventCount(): number {
    return this.#order;
  }

  after(delayMs: number, run: () => void): void {
    const events = this.#events;
    const event = { atMs: this.#nowMs + delayMs, order: ++this.#order, run };
    let at = events.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(event, events[parent]!)) break;
      events[at] = events[parent]!;
      at = parent;
    }
    events[at] = event;
  }

  #next(): Event | undefined {
    const events = this.#events;
    const first = events[0];
    const last = events.pop();
    if (first === undefined || last === undefined || events.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= events.length) break;
      if (child + 1 < events.length && isBefore(events[child + 1]!, events[child]!)) child++;
      if (!isBefore(events[child]!, last)) break;
      events[at] = events[child]!;
      at = child;
    }
    events[at] = last;
    return first;
  }

  /** Runs events, and what hangs on promises after each, until `isDone` or the time is over. */
  run(durationMs: number, isDone: () => boolean = () => false): boolean {
    const endMs = this.#nowMs + durationMs;
    drainMicrotasks();
    for (;;) {
      if (isDone()) return true;
      const event = this.#events[0];
      if (event === undefined || event.atMs > endMs) {
        this.#nowMs = endMs;
        return false;
      }
      this.#next();
      this.#nowMs = event.atMs;
      event.run();
      drainMicrotasks();
    }
  }
}
