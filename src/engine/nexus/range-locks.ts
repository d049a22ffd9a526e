/**
 * Locks that a rebuild holds on the ranges it is copying. While a range is locked, host writes to it
 * wait; a lock is granted once the writes that were in flight there have ended. Exists only while a
 * rebuild runs, and starts with no write in flight.
 */
import { assert } from "../../assert.ts";

interface Lock {
  readonly start: number;
  readonly end: number;
  granted: (() => void) | null;
}

export class RangeLocks {
  readonly #chunkBytes: number;
  readonly #inFlight: Uint16Array;
  readonly #locks: Lock[] = [];
  #waiting = 0;
  /** Starts and ends of the writes that were turned away since a range was last unlocked. */
  #turnedAway: number[] = [];
  /** Locks that let those writes go first. */
  #behind: (() => void)[] = [];
  readonly #onRelease: () => void;

  /**
   * Ranges are locked in whole chunks of `chunkBytes`; `onRelease` is called when writes that were
   * turned away may be tried again.
   */
  constructor(deviceBytes: number, chunkBytes: number, onRelease: () => void) {
    this.#chunkBytes = chunkBytes;
    this.#inFlight = new Uint16Array(Math.ceil(deviceBytes / chunkBytes));
    this.#onRelease = onRelease;
  }

  /**
   * A write to the range has to wait. No lock is taken on any of it before it has had its turn: one that
   * reaches over many chunks would hardly ever find all of them unlocked.
   */
  turnedAway(offset: number, length: number): void {
    this.#turnedAway.push(offset, offset + length);
  }

  #isAwaited(start: number, end: number): boolean {
    const ranges = this.#turnedAway;
    for (let i = 0; i < ranges.length; i += 2) {
      if (start < ranges[i + 1]! && ranges[i]! < end) return true;
    }
    return false;
  }

  /** True when a write to the range must wait. */
  blocks(offset: number, length: number): boolean {
    const end = offset + length;
    const locks = this.#locks;
    for (let i = 0; i < locks.length; i++) {
      const lock = locks[i]!;
      if (offset < lock.end && lock.start < end) return true;
    }
    return false;
  }

  /** Counts a write in. */
  begin(offset: number, length: number): void {
    const last = Math.floor((offset + length - 1) / this.#chunkBytes);
    for (let c = Math.floor(offset / this.#chunkBytes); c <= last; c++) {
      this.#inFlight[c] = this.#inFlight[c]! + 1;
    }
  }

  /** Counts a write out and grants what waited for it. */
  end(offset: number, length: number): void {
    const last = Math.floor((offset + length - 1) / this.#chunkBytes);
    for (let c = Math.floor(offset / this.#chunkBytes); c <= last; c++) {
      assert(this.#inFlight[c]! > 0, "a counted write ends once");
      this.#inFlight[c] = this.#inFlight[c]! - 1;
    }
    if (this.#waiting > 0) this.#grant();
  }

  /**
   * Locks a range that starts at a chunk and is no longer than one (the last may be cut short by
   * the device's end); resolves with the unlock once no write is in flight there.
   */
  async acquire(offset: number, length: number): Promise<() => void> {
    const lock: Lock = { start: offset, end: offset + length, granted: null };
    assert(offset % this.#chunkBytes === 0 && length <= this.#chunkBytes, "a lock is one chunk");
    while (this.#isAwaited(lock.start, lock.end)) {
      await new Promise<void>((resolve) => this.#behind.push(resolve));
    }
    assert(!this.blocks(offset, length), "locked ranges do not overlap");
    this.#locks.push(lock);
    if (!this.#isIdle(lock)) {
      this.#waiting++;
      await new Promise<void>((resolve) => {
        lock.granted = resolve;
      });
    }
    return () => {
      this.#locks.splice(this.#locks.indexOf(lock), 1);
      // Those that are still in the way of a lock are turned away again.
      this.#turnedAway = [];
      this.#onRelease();
      for (const resolve of this.#behind.splice(0)) resolve();
    };
  }

  #isIdle(lock: Lock): boolean {
    const last = Math.floor((lock.end - 1) / this.#chunkBytes);
    for (let c = Math.floor(lock.start / this.#chunkBytes); c <= last; c++) {
      if (this.#inFlight[c] !== 0) return false;
    }
    return true;
  }

  #grant(): void {
    for (const lock of this.#locks) {
      if (lock.granted === null || !this.#isIdle(lock)) continue;
      const granted = lock.granted;
      lock.granted = null;
      this.#waiting--;
      granted();
    }
  }
}
