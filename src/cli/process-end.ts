/** What asks a process to end. */

/** Resolves with what first asks the process to end: a signal, or the end of its parent. */
export function endSignal(watchesStdin: boolean): Promise<string> {
  return new Promise((resolve) => {
    const end = (why: string) => {
      // A standard input that is still read would keep the process from ending by itself.
      if (watchesStdin) process.stdin.destroy();
      resolve(why);
    };
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      process.once(signal, () => end(signal));
    }
    if (!watchesStdin) return;
    process.stdin.once("close", () => end("end of standard input"));
    process.stdin.once("end", () => end("end of standard input"));
    process.stdin.resume();
  });
}
