/** What asks a process to end. */

/** Resolves with what first asks the process to end: a signal, or the end of its parent. */
export function endSignal(watchesStdin: boolean): Promise<string> {
  return new Promise((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      process.once(signal, () => resolve(signal));
    }
    if (!watchesStdin) return;
    process.stdin.once("close", () => resolve("end of standard input"));
    process.stdin.once("end", () => resolve("end of standard input"));
    process.stdin.resume();
  });
}
