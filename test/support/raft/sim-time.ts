/** Time of a simulation: events in order of their moment, then of their making. Nothing else moves. */
import { drainMicrotasks } from "bun:jsc";
import { EventQueue, type Timed } from "../event-queue.ts";

interface Event extends Timed {
  readonly run: () => void;
}

export class SimTime {
  readonly #events = new EventQueue<Event>();
  #order = 0;
  #nowMs = 0;

  get nowMs(): number {
    return this.#nowMs;
  }

  get eventCount(): number {
    return this.#order;
  }

  after(delayMs: number, run: () => void): void {
    this.#events.push({ atMs: this.#nowMs + delayMs, order: ++this.#order, run });
  }

  /** Runs events, and what hangs on promises after each, until `isDone` or the time is over. */
  run(durationMs: number, isDone: () => boolean = () => false): boolean {
    const endMs = this.#nowMs + durationMs;
    drainMicrotasks();
    for (;;) {
      if (isDone()) return true;
      const event = this.#events.first;
      if (event === undefined || event.atMs > endMs) {
        this.#nowMs = endMs;
        return false;
      }
      this.#events.shift();
      this.#nowMs = event.atMs;
      event.run();
      drainMicrotasks();
    }
  }
}
