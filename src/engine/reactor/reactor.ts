/**
 * One reactor: a thread, a ring, an arena, a table of requests, and the loop that drives them.
 *
 * The loop never returns to JavaScript's event loop. One turn is: hand over what was queued and
 * wait (one system call), handle the completions, run what was deferred to the end of the turn, let
 * those that waited for memory or slots try again, run due timers, and let promises advance. Work
 * that happens per I/O is callbacks by integer handler id; promises are for control work only.
 *
 * It sleeps when there is nothing to do. When wake-ups follow each other within a few tens of
 * microseconds and bring too little to batch, it spins for a moment before it sleeps.
 */
import { drainMicrotasks } from "bun:jsc";
import { Errno, NativeError, Op, Ring, threadId } from "../../../ffi/index.ts";
import { assert } from "../../assert.ts";
import { Arena, type Waiter } from "./arena.ts";
import { type IoOwner, IoTable } from "./io-table.ts";
import {
  COMPLETIONS_PER_TURN,
  HANDLERS_MAX,
  RING_COMPLETIONS,
  RING_ENTRIES,
  SPIN_COMPLETIONS_MAX,
  SPIN_GAP_NS,
  SPIN_MISSES_MAX,
  SPIN_NS_MAX,
  STALL_NS,
} from "./limits.ts";
import { type Timer, Timers } from "./timers.ts";

/** Receives the completions of the submission entries that carry its id. */
export interface CqeHandler {
  /** `token` is what the entry carried, `result` the kernel's answer (negative: -errno). */
  onCqe(token: number, result: number, flags: number): void;
}

/** Something to be done once at the end of the turn. */
export interface TurnEnd {
  /** True while queued; owned by the reactor. */
  queued: boolean;
  endTurn(): void;
}

/** Counters of a reactor since its start. */
export interface ReactorStats {
  turns: number;
  completions: number;
  busyNs: number;
  sleeps: number;
  spins: number;
  stalls: number;
  stallNsMax: number;
}

/** A stall, as it is logged. */
export interface Stall {
  readonly durationNs: number;
  readonly completions: number;
  readonly activity: string;
}

export interface ReactorOptions {
  readonly index: number;
  readonly arenaBytes: number;
  /** 0 never spins. */
  readonly spinNs?: number;
  readonly onStall?: (stall: Stall) => void;
}

const RETRYABLE = new Set([Errno.EINTR, Errno.EAGAIN, Errno.EBUSY, Errno.ETIME]);

export class Reactor {
  readonly index: number;
  readonly ring: Ring;
  readonly arena: Arena;
  readonly io = new IoTable();
  readonly timers = new Timers();
  readonly stats: ReactorStats = {
    turns: 0,
    completions: 0,
    busyNs: 0,
    sleeps: 0,
    spins: 0,
    stalls: 0,
    stallNsMax: 0,
  };
  /** Time of this turn in ns since an arbitrary start; never goes back. */
  now = Bun.nanoseconds();
  /** What the reactor is doing, for the stall log; control work sets it. */
  activity = "";

  readonly #handlers: (CqeHandler | null)[] = [null];
  readonly #freeHandlers: number[] = [];
  readonly #threadId = threadId();
  readonly #spinNs: number;
  readonly #onStall: ((stall: Stall) => void) | undefined;
  #turnEnds: TurnEnd[] = [];
  #turnEndCount = 0;
  #waiters: Waiter[] = [];
  #resumeFirst = 0;
  #running = false;
  #failure: { readonly error: unknown } | null = null;
  #closeGaps = 0;
  #spinMisses = 0;

  constructor(options: ReactorOptions) {
    this.index = options.index;
    this.#spinNs = options.spinNs ?? SPIN_NS_MAX;
    this.#onStall = options.onStall;
    this.ring = new Ring({
      entries: RING_ENTRIES,
      completions: RING_COMPLETIONS,
      deferTaskrun: true,
    });
    this.arena = new Arena(options.arenaBytes);
    this.ring.registerBuffer(this.arena.address, this.arena.byteLength);
    // Mapping the arena takes its time: what is timed before the first turn starts from here.
    this.now = Bun.nanoseconds();
  }

  /** Admits a handler and returns its id, to be put into submission entries. */
  addHandler(handler: CqeHandler): number {
    const id = this.#freeHandlers.pop() ?? this.#handlers.length;
    assert(id < HANDLERS_MAX, "handlers within their limit");
    this.#handlers[id] = handler;
    return id;
  }

  /** Forgets a handler. None of its entries may be outstanding. */
  removeHandler(id: number): void {
    assert(this.#handlers[id] != null, "removed handler exists");
    this.#handlers[id] = null;
    this.#freeHandlers.push(id);
  }

  /** Handlers in use, for limits and leak checks. */
  get handlerCount(): number {
    return this.#handlers.length - 1 - this.#freeHandlers.length;
  }

  /** Queues `work` for the end of this turn, once however often it is asked. */
  atTurnEnd(work: TurnEnd): void {
    if (work.queued) return;
    work.queued = true;
    this.#turnEnds[this.#turnEndCount++] = work;
  }

  /** Has `waiter` resumed when memory or slots were given back. */
  waitForResources(waiter: Waiter): void {
    this.#waiters.push(waiter);
  }

  /** How many wait for memory or slots. */
  get waiterCount(): number {
    return this.#waiters.length;
  }

  /** A timer `delayMs` from now. */
  after(delayMs: number, run: () => void): Timer {
    return this.timers.at(this.now + delayMs * 1e6, run);
  }

  /** A promise that resolves after `delayMs`. */
  sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      this.after(delayMs, resolve);
    });
  }

  /** Submits one entry by promise, for control work; resolves with the result (negative: -errno). */
  submit(
    opAndFlags: number,
    fd: number,
    address: number,
    length: number,
    offset: number,
    opFlags: number,
  ): Promise<number> {
    return new Promise((resolve) => {
      const id = this.addHandler({
        onCqe: (_token, result) => {
          this.removeHandler(id);
          resolve(result);
        },
      });
      this.ring.prep(opAndFlags, fd, address, length, offset, opFlags, 0, id);
    });
  }

  /** Ends the loop: `run` throws `error` at the end of this turn, which ends the process. */
  fail(error: unknown): void {
    this.#failure ??= { error };
  }

  /**
   * For a promise that nobody awaits. Rejections are not reported by the runtime while the loop
   * runs, so one that is not expected has to end the loop from here.
   */
  background(promise: Promise<unknown>): void {
    promise.catch((error: unknown) => this.fail(error));
  }

  /** Runs turns until `stop` is called. */
  run(): void {
    assert(threadId() === this.#threadId, "a reactor runs on the thread that made it");
    this.#running = true;
    while (this.#running) this.#turn();
  }

  /** Ends `run` after the present turn. */
  stop(): void {
    this.#running = false;
  }

  /** Runs turns until the promise settles, and returns or throws its outcome. For tests and tools. */
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
    if (this.#failure !== null) throw this.#failure.error;
    while (outcome === undefined) this.#turn();
    if (outcome.ok) return outcome.value;
    throw outcome.error;
  }

  /** Frees ring and arena. Nothing may be outstanding. */
  close(): void {
    this.ring.close();
    this.arena.close();
  }

  /** One turn of the loop. */
  #turn(): void {
    this.#wait();
    const startNs = Bun.nanoseconds();
    const gapNs = startNs - this.now;
    this.now = startNs;
    const completions = this.#reap();
    this.#closeGaps =
      completions > 0 && completions <= SPIN_COMPLETIONS_MAX && gapNs < SPIN_GAP_NS
        ? this.#closeGaps + 1
        : 0;
    if (this.#turnEndCount > 0) this.#endTurn();
    if (this.arena.freed || this.io.freed) this.#resumeWaiters();
    this.timers.runDue(this.now);
    drainMicrotasks();
    if (this.#failure !== null) throw this.#failure.error;
    const busyNs = Bun.nanoseconds() - startNs;
    const stats = this.stats;
    stats.turns++;
    stats.completions += completions;
    stats.busyNs += busyNs;
    if (busyNs > STALL_NS) this.#noteStall(busyNs, completions);
  }

  #noteStall(durationNs: number, completions: number): void {
    this.stats.stalls++;
    if (durationNs > this.stats.stallNsMax) this.stats.stallNsMax = durationNs;
    this.#onStall?.({ durationNs, completions, activity: this.activity });
  }

  /**
   * True when something can be done without a completion: completions left over, or what timers and
   * promises, which come last in a turn, have deferred or given back.
   */
  #mayNotSleep(): boolean {
    const ring = this.ring;
    return (
      ring.cqTail() !== ring.cqHead ||
      this.#turnEndCount > 0 ||
      ((this.arena.freed || this.io.freed) && this.#waiters.length > 0)
    );
  }

  #wait(): void {
    if (this.#mayNotSleep()) {
      this.#enter(0, 0);
      return;
    }
    if (this.#closeGaps >= 4 && this.#spinNs > 0 && this.#spinMisses < SPIN_MISSES_MAX) {
      if (this.#spin()) return;
    } else if (this.#closeGaps === 0) {
      this.#spinMisses = 0;
    }
    const nextNs = this.timers.nextNs();
    this.stats.sleeps++;
    if (nextNs === Number.POSITIVE_INFINITY) this.#enter(1, 0);
    else this.#enter(1, Math.max(1000, nextNs - Bun.nanoseconds()));
  }

  /** Polls for a short while; true when something completed. */
  #spin(): boolean {
    const ring = this.ring;
    const untilNs = Bun.nanoseconds() + this.#spinNs;
    this.stats.spins++;
    do {
      this.#enter(0, 0);
      if (ring.cqTail() !== ring.cqHead) {
        this.#spinMisses = 0;
        return true;
      }
    } while (Bun.nanoseconds() < untilNs);
    this.#spinMisses++;
    return false;
  }

  #enter(waitFor: number, timeoutNs: number): void {
    const result = this.ring.enter(waitFor, timeoutNs);
    if (result < 0 && !RETRYABLE.has(-result as (typeof Errno)["EINTR"])) {
      throw new NativeError("io_uring_enter", -result);
    }
  }

  #reap(): number {
    const ring = this.ring;
    const cqes = ring.cqes;
    let head = ring.cqHead;
    const tail = ring.cqTail();
    let count = 0;
    while (head !== tail && count < COMPLETIONS_PER_TURN) {
      const at = ring.cqeAt(head);
      const token = cqes[at]!;
      const handler = this.#handlers[cqes[at + 1]!];
      const result = cqes[at + 2]!;
      const flags = cqes[at + 3]!;
      head = (head + 1) | 0;
      assert(handler != null, "a completion finds its handler");
      handler.onCqe(token, result, flags);
      count++;
    }
    ring.advance(head);
    return count;
  }

  #endTurn(): void {
    // What is queued meanwhile is served in the same pass: the list grows while it is walked.
    for (let i = 0; i < this.#turnEndCount; i++) {
      const work = this.#turnEnds[i]!;
      work.queued = false;
      work.endTurn();
    }
    this.#turnEndCount = 0;
  }

  #resumeWaiters(): void {
    this.arena.freed = false;
    this.io.freed = false;
    if (this.#waiters.length === 0) return;
    const waiters = this.#waiters;
    this.#waiters = [];
    // Each pass begins with another waiter, so that none always finds what others left.
    const first = this.#resumeFirst++ % waiters.length;
    for (let i = 0; i < waiters.length; i++) waiters[(first + i) % waiters.length]!.resume();
    if (this.#turnEndCount > 0) this.#endTurn();
  }
}

/** Turns a callback-style request into a promise of its status. The slot is freed. For control work. */
export function ioPromise(
  reactor: Reactor,
  slot: number,
  submit: (slot: number) => void,
): Promise<number> {
  return new Promise((resolve) => {
    const owner: IoOwner = {
      ioDone(done) {
        const status = reactor.io.status[done]!;
        reactor.io.give(done);
        resolve(status);
      },
    };
    reactor.io.push(slot, owner);
    submit(slot);
  });
}

/** Cancels every outstanding entry on a descriptor. Their completions arrive with -ECANCELED. */
export function cancelFd(reactor: Reactor, fd: number): Promise<number> {
  const CANCEL_ALL_BY_FD = 1 | 2;
  return reactor.submit(Op.ASYNC_CANCEL, fd, 0, 0, 0, CANCEL_ALL_BY_FD);
}
