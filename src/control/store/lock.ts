/** A lock that is handed on in the order of asking, and waiting with a time limit. */
import { TrilithError } from "../../errors.ts";

/** Resolves or rejects as `promise` does, or rejects with `late()` after `timeoutMs`. */
export async function withinTime<T>(
  promise: Promise<T>,
  timeoutMs: number,
  late: () => TrilithError,
): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const limit = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(late()), Math.max(0, timeoutMs));
  });
  try {
    return await Promise.race([promise, limit]);
  } finally {
    clearTimeout(timer);
  }
}

export interface Lock {
  /** Resolves with the function that gives it back; rejects with `Timeout`. */
  acquire(timeoutMs: number): Promise<() => void>;
  /** Nobody holds it or waits for it. */
  isFree(): boolean;
}

export function makeLock(what: string): Lock {
  let holders = 0;
  let last: Promise<void> = Promise.resolve();
  return {
    isFree: () => holders === 0,
    async acquire(timeoutMs) {
      holders++;
      const before = last;
      const { promise, resolve } = Promise.withResolvers<void>();
      last = promise;
      let isReleased = false;
      const release = () => {
        if (isReleased) return;
        isReleased = true;
        holders--;
        resolve();
      };
      try {
        const late = () => new TrilithError("Timeout", `${what}: others took too long`);
        await withinTime(before, timeoutMs, late);
      } catch (error) {
        // The turn comes all the same, and is passed on then.
        void before.then(release);
        throw error;
      }
      return release;
    },
  };
}
