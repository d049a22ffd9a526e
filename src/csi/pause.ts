/** A pause that an end cuts short, and that keeps no process running when it has. */

/** Resolves after so many milliseconds, or as soon as `ending` is aborted. */
export function pauseUnless(ending: AbortSignal, ms: number): Promise<void> {
  if (ending.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      ending.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    ending.addEventListener("abort", end);
  });
}
