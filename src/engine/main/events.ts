/** What happened in an engine, for whoever asks: the latest events, numbered, with long polling. */
import type { EngineEvent } from "../rpc/info.ts";
import { EVENTS_KEPT } from "../rpc/limits.ts";

export type NewEvent = Omit<EngineEvent, "sequence" | "at">;

interface Waiter {
  readonly since: number;
  readonly wake: () => void;
}

export class EventLog {
  readonly #now: () => Date;
  #events: EngineEvent[] = [];
  #next = 1;
  readonly #waiters = new Set<Waiter>();
  readonly #listeners = new Set<(event: EngineEvent) => void>();

  constructor(now: () => Date) {
    this.#now = now;
  }

  add(event: NewEvent): void {
    const full: EngineEvent = { ...event, sequence: this.#next++, at: this.#now().toISOString() };
    this.#events.push(full);
    // Dropped in halves, so that adding stays cheap.
    if (this.#events.length > EVENTS_KEPT * 2) this.#events = this.#events.slice(-EVENTS_KEPT);
    for (const waiter of [...this.#waiters]) waiter.wake();
    for (const listener of this.#listeners) listener(full);
  }

  /** Has `listener` told of every event from now on; returns what ends that. */
  listen(listener: (event: EngineEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  /** Events numbered above `since`, the oldest first, and how many of those are not kept any more. */
  after(since: number, limit: number): { events: EngineEvent[]; next: number; lost: number } {
    const first = this.#events[0]?.sequence ?? this.#next;
    const from = Math.max(since + 1, first);
    const events = this.#events.slice(from - first, from - first + limit);
    const lost = Math.max(0, first - since - 1);
    return { events, next: events.at(-1)?.sequence ?? Math.min(since, this.#next - 1), lost };
  }

  /** Resolves when there is an event above `since`, or after `waitMs`, or when `signal` fires. */
  wait(since: number, waitMs: number): Promise<void> {
    if (this.#next - 1 > since || waitMs === 0) return Promise.resolve();
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#waiters.delete(waiter);
        resolve();
      };
      const waiter: Waiter = { since, wake: done };
      const timer = setTimeout(done, waitMs);
      this.#waiters.add(waiter);
    });
  }

  /** Lets everybody who waits go. */
  close(): void {
    for (const waiter of [...this.#waiters]) waiter.wake();
  }
}
