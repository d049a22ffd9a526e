/** The checker itself: it must say no where no order explains a history, and yes where one does. */
import { expect, test } from "bun:test";
import { isLinearizable, type RegisterOperation } from "../../../support/raft/linearizability.ts";
import { withSeed } from "../../../support/random.ts";

const never = Number.POSITIVE_INFINITY;

function set(value: string, callAt: number, returnAt: number): RegisterOperation {
  return { kind: "set", value, callAt, returnAt };
}

function read(result: string, callAt: number, returnAt: number): RegisterOperation {
  return { kind: "read", result, callAt, returnAt };
}

function cas(
  from: string,
  value: string,
  result: boolean | null,
  callAt: number,
  returnAt: number,
): RegisterOperation {
  const known = result === null ? {} : { result };
  return { kind: "cas", from, value, ...known, callAt, returnAt };
}

const cases: [name: string, history: RegisterOperation[], verdict: boolean][] = [
  ["nothing", [], true],
  ["a read of what was written", [set("a", 1, 2), read("a", 3, 4)], true],
  ["a read of nothing after a write", [set("a", 1, 2), read("", 3, 4)], false],
  [
    "either value while a write is under way",
    [set("a", 1, 9), read("", 2, 3), read("a", 4, 5)],
    true,
  ],
  ["the old value after the new", [set("a", 1, 9), read("a", 2, 3), read("", 4, 5)], false],
  [
    "two writes at once, seen in one order",
    [set("a", 1, 4), set("b", 2, 5), read("a", 6, 7)],
    true,
  ],
  [
    "two writes at once, seen in both orders",
    [set("a", 1, 4), set("b", 2, 5), read("a", 6, 7), read("b", 8, 9)],
    false,
  ],
  [
    "a write nobody knows of, seen late",
    [set("a", 1, never), read("", 5, 6), read("a", 7, 8)],
    true,
  ],
  [
    "a write nobody knows of, seen before it was asked for",
    [read("a", 1, 2), set("a", 3, never)],
    false,
  ],
  ["a swap that hit", [set("a", 1, 2), cas("a", "b", true, 3, 4), read("b", 5, 6)], true],
  ["a swap that hit the wrong value", [set("a", 1, 2), cas("x", "b", true, 3, 4)], false],
  ["a swap that missed the right value", [set("a", 1, 2), cas("a", "b", false, 3, 4)], false],
  [
    "a swap that missed because of a write nobody knows of, nor ever saw",
    [set("a", 1, 2), set("x", 3, never), cas("a", "b", false, 4, 5)],
    true,
  ],
  [
    "two swaps of one value, both hit",
    [set("a", 1, 2), cas("a", "b", true, 3, 6), cas("a", "c", true, 4, 5)],
    false,
  ],
  [
    "a swap of unknown outcome seen, and not seen again",
    [cas("", "b", null, 1, never), read("b", 2, 3), read("", 4, 5)],
    false,
  ],
];

for (const [name, history, verdict] of cases) {
  test(`${verdict ? "linearizable" : "not linearizable"}: ${name}`, () => {
    expect(isLinearizable(history)).toBe(verdict);
  });
}

/** A register with several clients; each operation takes effect at a random moment of its time. */
function trueHistory(next: () => number, count: number): RegisterOperation[] {
  const planned = Array.from({ length: count }, (_, at) => {
    const callAt = next() * count;
    const length = 0.1 + next() * 4;
    const effectAt = callAt + next() * length;
    const isUnknown = next() < 0.1;
    return { at, callAt, effectAt, returnAt: isUnknown ? never : callAt + length, kind: next() };
  }).sort((a, b) => a.effectAt - b.effectAt);
  let state = "";
  return planned.flatMap(({ at, callAt, returnAt, kind }): RegisterOperation[] => {
    const isUnknown = returnAt === never;
    if (kind < 0.4) return isUnknown ? [] : [read(state, callAt, returnAt)];
    const from = kind < 0.6 ? state : "other";
    const isHit = kind >= 0.8 || state === from;
    if (isHit) state = `v${at}`;
    if (kind >= 0.8) return [set(`v${at}`, callAt, returnAt)];
    return [cas(from, `v${at}`, isUnknown ? null : isHit, callAt, returnAt)];
  });
}

test("says yes to what a register did, and no once a read is changed to a value long gone", () => {
  withSeed(import.meta.path, (random) => {
    let wrong = 0;
    for (let round = 0; round < 60; round++) {
      const history = trueHistory(() => random.next(), 80);
      expect(isLinearizable(history)).toBe(true);
      const reads = history.filter(({ kind }) => kind === "read");
      const last = reads.reduce((a, b) => (b.callAt > a.callAt ? b : a));
      const first = reads.reduce((a, b) => (b.returnAt < a.returnAt ? b : a));
      if (first.result === last.result) continue;
      const changed = history.map((operation) =>
        operation === last ? { ...operation, result: "never written" } : operation,
      );
      expect(isLinearizable(changed)).toBe(false);
      wrong++;
    }
    expect(wrong).toBeGreaterThan(30);
  });
});
