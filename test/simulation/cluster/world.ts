/**
 * Time, processes and randomness of a simulated cluster. Everything that happens is an event: at a
 * moment, in a process, in an order that depends on nothing but the seed. After each event what hangs
 * on promises runs, still in that process; nothing passes from one process to another but by an event.
 *
 * The product's control code takes its timers from the runtime. While a world is installed those are the
 * world's: `setTimeout`, `setInterval`, `setImmediate`, `performance.now`, `Date.now`, `Bun.sleep`. A timer belongs
 * to the process that set it, stands still while that is paused, and never fires after its death.
 */

import { drainMicrotasks } from "bun:jsc";
import type { Bdev } from "../../../src/engine/bdev/bdev.ts";
import { EventQueue, type Timed } from "../../support/event-queue.ts";
import { Random } from "../../support/random.ts";

/** What the clocks of all machines show at the beginning: milliseconds since 1970. */
const EPOCH_MS = 1_700_000_000_000;
const NOTES_MAX = 4_000;
const SETTLE_ROUNDS_MAX = 10_000;

/** How a process ended: by itself or by a signal (its machine closes its sockets), or with its machine. */
export type Death = "killed" | "power";

export interface Timer {
  cancel(): void;
}

interface Event extends Timed {
  readonly process: Process | null;
  run: (() => void) | null;
}

/** Something that runs on a machine, can be killed at any event, and can stand still. */
export class Process {
  readonly world: World;
  readonly name: string;
  /** The machine it runs on, as the network knows it. */
  readonly machine: string;
  death: Death | null = null;
  /** What its wall clock differs by; its other clocks never jump. */
  wallOffsetMs = 0;
  /** Work deferred to the end of an event; true while there was some. */
  settle: () => boolean = () => false;
  readonly #onEnd = new Set<(death: Death) => void>();
  #isPaused = false;
  #backlog: (() => void)[] = [];

  constructor(world: World, name: string, machine: string) {
    this.world = world;
    this.name = name;
    this.machine = machine;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** Milliseconds since 1970 by the clock of its machine. */
  wallMs(): number {
    return EPOCH_MS + this.world.nowMs + this.wallOffsetMs;
  }

  onEnd(call: (death: Death) => void): () => void {
    this.#onEnd.add(call);
    return () => this.#onEnd.delete(call);
  }

  end(death: Death): void {
    if (this.death !== null) return;
    this.death = death;
    this.#backlog = [];
    for (const call of [...this.#onEnd]) call(death);
    this.#onEnd.clear();
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    for (const run of this.#backlog.splice(0)) this.world.after(0, this, run);
  }

  /** Keeps what would have happened while it stands still. */
  postpone(run: () => void): void {
    this.#backlog.push(run);
  }
}

export class World {
  readonly random: Random;
  nowMs = 0;
  current: Process | null = null;
  readonly notes: string[] = [];
  /** Told of every request that a device behind a subsystem has carried out for a host. */
  onServed: (bdev: Bdev, op: number) => void = () => {};
  /** Told of every note; for looking at a failing seed. */
  onNote: ((line: string) => void) | null = null;
  readonly #events = new EventQueue<Event>();
  #order = 0;
  #failure: unknown = null;
  #hash = 0x811c9dc5;
  #done = 0;

  constructor(seed: number) {
    this.random = new Random(seed);
  }

  // -------------------------------------------------------------------------------------- events

  /** Runs something of `process` (null: of nobody's) after a while, if it lives then. */
  after(delayMs: number, process: Process | null, run: () => void): Timer {
    const event: Event = {
      atMs: this.nowMs + Math.max(0, delayMs),
      order: ++this.#order,
      process,
      run,
    };
    this.#events.push(event);
    return {
      cancel() {
        event.run = null;
      },
    };
  }

  /** Runs something now as part of a process, with all that follows from it. */
  enter(process: Process | null, run: () => void): void {
    const before = this.current;
    this.current = process;
    try {
      run();
      drainMicrotasks();
      if (process !== null) {
        for (let round = 0; process.death === null && process.settle(); round++) {
          if (round > SETTLE_ROUNDS_MAX) throw new Error(`${process.name} does not come to rest`);
          drainMicrotasks();
        }
      }
    } catch (error) {
      this.fail(error);
    } finally {
      this.current = before;
    }
  }

  #carryOut(event: Event): void {
    const { process, run } = event;
    if (run === null) return;
    if (process !== null) {
      if (process.death !== null) return;
      if (process.isPaused) {
        // Looked at again when it goes on: a timer may be cancelled until then.
        process.postpone(() => {
          event.run?.();
          event.run = null;
        });
        return;
      }
    }
    this.#done++;
    this.mix(event.order, Math.trunc(event.atMs * 1_000));
    event.run = null;
    this.enter(process, run);
  }

  /** Lets time pass until `isDone`, or for so long; true: done. Throws what went wrong. */
  run(durationMs: number, isDone: () => boolean = () => false): boolean {
    const endMs = this.nowMs + durationMs;
    drainMicrotasks();
    for (;;) {
      if (this.#failure !== null) throw this.#failure;
      if (isDone()) return true;
      const first = this.#events.first;
      if (first === undefined || first.atMs > endMs) {
        this.nowMs = endMs;
        return false;
      }
      this.#events.shift();
      this.nowMs = first.atMs;
      this.#carryOut(first);
    }
  }

  /** Runs what is left to do now, whatever has failed; the world has ended. */
  drain(): void {
    this.#failure = null;
    this.run(0);
  }

  /** Lets time pass until a promise settles; its outcome. */
  await<T>(promise: Promise<T>, durationMs: number, what: string): T {
    let outcome: { value: T } | { error: unknown } | null = null;
    promise.then(
      (value) => {
        outcome = { value };
      },
      (error: unknown) => {
        outcome = { error };
      },
    );
    this.run(durationMs, () => outcome !== null);
    const settled = outcome as { value: T } | { error: unknown } | null;
    if (settled === null) throw new Error(`${what}: not settled within ${durationMs} ms`);
    if ("error" in settled) throw settled.error;
    return settled.value;
  }

  // ----------------------------------------------------------------------------- trace and failure

  /** Takes something that happened into the trace. */
  mix(...numbers: readonly number[]): void {
    for (const n of numbers) {
      this.#hash = Math.imul(this.#hash ^ (n | 0), 0x01000193) >>> 0;
      this.#hash = (this.#hash ^ (this.#hash >>> 15)) >>> 0;
    }
  }

  /** A number that stands for everything that happened: equal for equal seeds. */
  get trace(): string {
    return `${this.#done} events, ${this.#hash.toString(16).padStart(8, "0")}`;
  }

  note(text: string): void {
    const line = `${(this.nowMs / 1_000).toFixed(4).padStart(9)} ${text}`;
    this.onNote?.(line);
    this.notes.push(line);
    if (this.notes.length > NOTES_MAX) this.notes.shift();
  }

  /** The run has failed; the first failure counts. */
  fail(error: unknown): void {
    if (this.#failure !== null) return;
    this.note(`FAILS: ${error instanceof Error ? error.message : String(error)}`);
    this.#failure = error instanceof Error ? error : new Error(String(error));
  }

  // ------------------------------------------------------------------------------------- the runtime

  #owner(): Process {
    if (this.current === null) throw new Error("a timer is set outside of any process");
    return this.current;
  }

  /** Puts this world's time in the place of the runtime's. What is returned takes it back. */
  install(): () => void {
    const saved = {
      setTimeout: globalThis.setTimeout,
      clearTimeout: globalThis.clearTimeout,
      setInterval: globalThis.setInterval,
      clearInterval: globalThis.clearInterval,
      setImmediate: globalThis.setImmediate,
      now: performance.now,
      date: Date.now,
      sleep: Bun.sleep,
    };
    const handle = (timer: Timer) => ({ ...timer, ref() {}, unref() {} });
    const clear = (timer: Timer | undefined | null) => timer?.cancel();
    const timeout = (run: (...args: unknown[]) => void, ms = 0, ...args: unknown[]) =>
      handle(this.after(ms, this.#owner(), () => run(...args)));
    const interval = (run: () => void, ms: number) => {
      const process = this.#owner();
      let timer: Timer;
      const again = () => {
        timer = this.after(ms, process, () => {
          again();
          run();
        });
      };
      again();
      return handle({ cancel: () => timer.cancel() });
    };
    Object.assign(globalThis, {
      setTimeout: timeout,
      clearTimeout: clear,
      setInterval: interval,
      clearInterval: clear,
      setImmediate: (run: () => void) => timeout(run, 0),
    });
    performance.now = () => this.nowMs;
    Date.now = () => this.current?.wallMs() ?? EPOCH_MS + this.nowMs;
    Bun.sleep = (ms) => new Promise((resolve) => void timeout(() => resolve(), Number(ms)));
    return () => {
      const { now, date, sleep, ...timers } = saved;
      Object.assign(globalThis, timers);
      performance.now = now;
      Date.now = date;
      Bun.sleep = sleep;
    };
  }
}
