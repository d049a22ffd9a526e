import { expect, test } from "bun:test";
import { watchEventLoop } from "../../../src/ops/event-loop.ts";

/** Resolves with what the watch said when it told of a stall. */
function stallOf(jumpsMs: readonly number[]) {
  let nowMs = 0;
  const jumps = [...jumpsMs];
  return new Promise<{ stalls: number; stallMsMax: number; stallMsSum: number }>((resolve) => {
    const told: number[] = [];
    const watch = watchEventLoop({
      everyMs: 1,
      limitMs: 50,
      // Each look at the clock is one turn of the timer; the first is that of the start.
      now: () => {
        const atMs = nowMs;
        nowMs += jumps.shift() ?? 1;
        if (jumps.length > 0) return atMs;
        watch?.stop();
        resolve({ ...watch.read() });
        return atMs;
      },
      onStall: (ms) => told.push(ms),
    });
    // Nothing else keeps the test alive while the timer does not.
    const alive = setInterval(() => jumps.length === 0 && clearInterval(alive), 1);
  });
}

test("turns beyond the limit are counted, with the longest and the sum", async () => {
  // Timer due after 1 ms each: late by 0, 60, 10 and 100 ms.
  const read = await stallOf([1, 61, 11, 101, 1, 1, 1]);
  expect(read).toEqual({ stalls: 2, stallMsMax: 100, stallMsSum: 160 });
});

test("a thread that gets round to everything has no stalls", async () => {
  const read = await stallOf([1, 1, 1, 40, 1, 1]);
  expect(read.stalls).toBe(0);
  expect(read.stallMsMax).toBe(39);
});
