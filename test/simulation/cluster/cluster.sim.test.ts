/** The whole cluster in one process: fixed seeds hold, and a seed is one run, always the same. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { runSeed } from "./run.ts";

setDefaultTimeout(120_000);
const SEEDS = [2, 3];

for (const seed of SEEDS) {
  test(`seed ${seed} (npm run simulate -- --seeds 1 --from ${seed})`, () => {
    const result = runSeed(seed);
    expect(result.writes).toBeGreaterThan(100);
  });
}

test("a seed replays bit by bit", () => {
  const first = runSeed(1, { troubleMs: 20_000 });
  const second = runSeed(1, { troubleMs: 20_000 });
  expect(second).toEqual(first);
});
