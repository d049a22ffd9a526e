/** Timers of one reactor: a binary heap over deadlines. For control work; I/O time-outs are scanned. */

import { assert } from "../../assert.ts";

/** A timer that was set; `cancel` is idempotent. */
export interface Timer {
  cancel(): void;
}

interface Entry extends Timer {
  readonly atNs: number;
  readonly seq: number;
  run: (() => void) | null;
}

function earlier(a: Entry, b: Entry): boolean {
  return a.atNs < b.atNs || (a.atNs === b.atNs && a.seq < b.seq);
}

export class Timers {
  readonly #heap: Entry[] = [];
  #seq = 0;

  /** Calls `run` once, in the first turn at or after `atNs` (the reactor's clock). */
  at(atNs: number, run: () => void): Timer {
    assert(Number.isFinite(atNs), "a deadline is a time");
    const entry: Entry = {
      atNs,
      seq: this.#seq++,
      run,
      cancel() {
        entry.run = null;
      },
    };
    const heap = this.#heap;
    heap.push(entry);
    let i = heap.length - 1;
    while (i > 0) {
      const up = (i - 1) >> 1;
      if (!earlier(heap[i]!, heap[up]!)) break;
      this.#swap(i, up);
      i = up;
    }
    return entry;
  }

  /** Timers that are set, for leak checks. */
  get count(): number {
    return this.#heap.filter((entry) => entry.run !== null).length;
  }

  /** Deadline of the earliest live timer, or Infinity. */
  nextNs(): number {
    this.#dropCancelled();
    return this.#heap[0]?.atNs ?? Number.POSITIVE_INFINITY;
  }

  /**
   * Runs every timer due at `nowNs`; returns how many ran. A timer that is set meanwhile waits for
   * the next turn, so that one which sets itself again cannot hold the loop.
   */
  runDue(nowNs: number): number {
    const seqEnd = this.#seq;
    let count = 0;
    for (;;) {
      this.#dropCancelled();
      const first = this.#heap[0];
      if (first === undefined || first.atNs > nowNs || first.seq >= seqEnd) return count;
      this.#pop();
      const run = first.run;
      first.run = null;
      run?.();
      count++;
    }
  }

  #dropCancelled(): void {
    while (this.#heap[0] !== undefined && this.#heap[0].run === null) this.#pop();
  }

  #swap(a: number, b: number): void {
    const heap = this.#heap;
    const entry = heap[a]!;
    heap[a] = heap[b]!;
    heap[b] = entry;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    heap[0] = last;
    let i = 0;
    for (;;) {
      const left = i * 2 + 1;
      if (left >= heap.length) return;
      const right = left + 1;
      const child = right < heap.length && earlier(heap[right]!, heap[left]!) ? right : left;
      if (!earlier(heap[child]!, heap[i]!)) return;
      this.#swap(child, i);
      i = child;
    }
  }
}
