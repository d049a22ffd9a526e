/**
 * Watches this thread's event loop: a timer that fires late tells that a turn held everybody else up.
 * Costs four wake-ups a second. A turn shorter than the timer's period is seen only when the timer was
 * due in it: what happens often shows, and what lasts long shows always.
 */

/** How often a loop is looked at. */
const LOOP_CHECK_MS = 250;
/** A turn that holds the loop up for longer counts as a stall. */
const LOOP_STALL_MS = 50;

export interface LoopStalls {
  /** Turns that took longer than the limit. */
  readonly stalls: number;
  /** The longest of all turns seen, in milliseconds. */
  readonly stallMsMax: number;
  /** Sum of what turns beyond the limit took, in milliseconds. */
  readonly stallMsSum: number;
}

export interface LoopWatch {
  read(): LoopStalls;
  stop(): void;
}

export interface LoopWatchOptions {
  /** Default: 250 ms. */
  readonly everyMs?: number;
  /** Default: 50 ms. */
  readonly limitMs?: number;
  /** Milliseconds of a steady clock. Default: the process's. */
  readonly now?: () => number;
  /** Told of each stall. */
  readonly onStall?: (ms: number) => void;
}

/** Begins to watch. The timer keeps no process alive. */
export function watchEventLoop(options: LoopWatchOptions = {}): LoopWatch {
  const { everyMs = LOOP_CHECK_MS, limitMs = LOOP_STALL_MS } = options;
  const now = options.now ?? (() => performance.now());
  let stalls = 0;
  let stallMsMax = 0;
  let stallMsSum = 0;
  let dueMs = now() + everyMs;
  const timer = setInterval(() => {
    const atMs = now();
    const lateMs = Math.max(0, atMs - dueMs);
    dueMs = atMs + everyMs;
    stallMsMax = Math.max(stallMsMax, lateMs);
    if (lateMs <= limitMs) return;
    stalls++;
    stallMsSum += lateMs;
    options.onStall?.(lateMs);
  }, everyMs);
  timer.unref();
  return {
    read: () => ({ stalls, stallMsMax, stallMsSum }),
    stop: () => clearInterval(timer),
  };
}
