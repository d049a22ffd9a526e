/**
 * An engine's reactor in a simulated cluster: the arena, the table of requests and the end of turns are
 * the product's, a turn is an event of the world. It has no ring; what needs one (files, sockets) is stood
 * in for by `disk.ts` and `fabric.ts`.
 */
import { Arena, type Waiter } from "../../../src/engine/reactor/arena.ts";
import { IoTable } from "../../../src/engine/reactor/io-table.ts";
import type { Reactor, TurnEnd } from "../../../src/engine/reactor/reactor.ts";
import type { Process, Timer } from "./world.ts";

const ARENA_BYTES = 32 << 20;

class ClusterReactor {
  readonly index = 0;
  readonly arena = new Arena(ARENA_BYTES);
  readonly io = new IoTable();
  readonly ring = { registerBufferRing() {} };
  readonly stats = {};
  readonly handlerCount = 0;
  activity = "";
  readonly timers: { readonly count: number; at(atNs: number, run: () => void): Timer };
  readonly #process: Process;
  #turnEnds: TurnEnd[] = [];
  #waiters: Waiter[] = [];

  constructor(process: Process) {
    this.#process = process;
    const { world } = process;
    this.timers = {
      count: 0,
      at: (atNs, run) => world.after((atNs - this.now) / 1e6, process, run),
    };
    process.settle = () => this.#settle();
    // Nothing of the process runs any more once this event is over.
    process.onEnd(() => world.after(0, null, () => this.arena.close()));
  }

  get now(): number {
    return 1e9 + this.#process.world.nowMs * 1e6;
  }

  atTurnEnd(work: TurnEnd): void {
    if (work.queued) return;
    work.queued = true;
    this.#turnEnds.push(work);
  }

  waitForResources(waiter: Waiter): void {
    this.#waiters.push(waiter);
  }

  get waiterCount(): number {
    return this.#waiters.length;
  }

  after(delayMs: number, run: () => void): Timer {
    return this.#process.world.after(delayMs, this.#process, run);
  }

  sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      this.after(delayMs, resolve);
    });
  }

  background(promise: Promise<unknown>): void {
    promise.catch((error: unknown) => this.fail(error));
  }

  fail(error: unknown): void {
    this.#process.world.fail(error);
  }

  /** What the loop does at the end of a turn; true when there was something. */
  #settle(): boolean {
    const ends = this.#turnEnds;
    this.#turnEnds = [];
    for (const work of ends) {
      work.queued = false;
      work.endTurn();
    }
    if (!this.arena.freed && !this.io.freed) return ends.length > 0;
    this.arena.freed = false;
    this.io.freed = false;
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter.resume();
    return ends.length > 0 || waiters.length > 0;
  }
}

export function clusterReactor(process: Process): Reactor {
  return new ClusterReactor(process) as unknown as Reactor;
}
