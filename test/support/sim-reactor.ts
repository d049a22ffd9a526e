/**
 * A reactor without a kernel: virtual time, no ring, everything in one thread and in an order that
 * depends on nothing but the program. For simulations; same seed, same run.
 */
import { drainMicrotasks } from "bun:jsc";
import { Arena, type Waiter } from "../../src/engine/reactor/arena.ts";
import { IoTable } from "../../src/engine/reactor/io-table.ts";
import type { Reactor, TurnEnd } from "../../src/engine/reactor/reactor.ts";
import { type Timer, Timers } from "../../src/engine/reactor/timers.ts";

const SIM_ARENA_BYTES = 32 << 20;
const SIM_HANG_NS = 3600e9;

class SimReactorCore {
  readonly index = 0;
  readonly arena = new Arena(SIM_ARENA_BYTES);
  readonly io = new IoTable();
  readonly timers = new Timers();
  now = 1e9;
  activity = "";
  #turnEnds: TurnEnd[] = [];
  #waiters: Waiter[] = [];

  atTurnEnd(work: TurnEnd): void {
    if (work.queued) return;
    work.queued = true;
    this.#turnEnds.push(work);
  }

  waitForResources(waiter: Waiter): void {
    this.#waiters.push(waiter);
  }

  after(delayMs: number, run: () => void): Timer {
    return this.timers.at(this.now + delayMs * 1e6, run);
  }

  sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      this.after(delayMs, resolve);
    });
  }

  /** Advances virtual time to the next timer and runs what follows from it. */
  turn(): void {
    drainMicrotasks();
    this.#settle();
    const next = this.timers.nextNs();
    if (next === Number.POSITIVE_INFINITY)
      throw new Error("simulation: nothing can happen any more");
    this.now = Math.max(this.now, next);
    this.timers.runDue(this.now);
    drainMicrotasks();
    this.#settle();
  }

  #settle(): void {
    for (let round = 0; round < 1000; round++) {
      const ends = this.#turnEnds;
      this.#turnEnds = [];
      for (const work of ends) {
        work.queued = false;
        work.endTurn();
      }
      if (this.arena.freed || this.io.freed) {
        this.arena.freed = false;
        this.io.freed = false;
        const waiters = this.#waiters;
        this.#waiters = [];
        for (const waiter of waiters) waiter.resume();
      } else if (ends.length === 0) return;
      drainMicrotasks();
    }
  }

  runUntil<T>(promise: Promise<T>): T {
    let outcome: { ok: true; value: T } | { ok: false; error: unknown } | undefined;
    promise.then(
      (value) => {
        outcome = { ok: true, value };
      },
      (error: unknown) => {
        outcome = { ok: false, error };
      },
    );
    drainMicrotasks();
    const limitNs = this.now + SIM_HANG_NS;
    while (outcome === undefined) {
      if (this.now > limitNs) throw new Error("simulation: hangs (a simulated hour has passed)");
      this.turn();
    }
    if (outcome.ok) return outcome.value;
    throw outcome.error;
  }

  close(): void {
    this.arena.close();
  }
}

/** What a simulation holds: the reactor as the engine sees it, and the means to drive it. */
export interface SimReactor {
  readonly reactor: Reactor;
  /** One step of virtual time. */
  turn(): void;
  runUntil<T>(promise: Promise<T>): T;
  close(): void;
}

/** Makes a simulated reactor. What needs a ring (files, sockets) must not be used with it. */
export function makeSimReactor(): SimReactor {
  const core = new SimReactorCore();
  return {
    reactor: core as unknown as Reactor,
    turn: () => core.turn(),
    runUntil: (promise) => core.runUntil(promise),
    close: () => core.close(),
  };
}
