import { describe, expect, test } from "bun:test";
import { Histogram } from "../../../../src/engine/bench/histogram.ts";
import { withSeed } from "../../../support/random.ts";

describe("latency histogram", () => {
  test("is empty at first", () => {
    expect(new Histogram().summary()).toEqual({
      count: 0,
      minNs: 0,
      avgNs: 0,
      p50Ns: 0,
      p90Ns: 0,
      p99Ns: 0,
      p999Ns: 0,
      maxNs: 0,
    });
  });

  test("one value is every percentile", () => {
    for (const ns of [0, 1, 15, 16, 1023, 1024, 1025, 123_456_789, 60e9, 100e9]) {
      const h = new Histogram();
      h.add(ns);
      const s = h.summary();
      expect([s.minNs, s.avgNs, s.maxNs]).toEqual([ns, ns, ns]);
      expect([s.p50Ns, s.p999Ns]).toEqual([ns, ns]);
    }
  });

  test("percentiles are within a step of those of the sorted values", () => {
    withSeed(import.meta.path, (random) => {
      for (let round = 0; round < 20; round++) {
        const h = new Histogram();
        const scale = 10 ** random.between(2, 9);
        const values = Array.from({ length: random.between(1, 5000) }, () =>
          Math.floor(random.next() ** 3 * scale),
        );
        for (const value of values) h.add(value);
        values.sort((a, b) => a - b);
        for (const share of [0, 0.01, 0.5, 0.9, 0.99, 0.999, 1]) {
          const exact = values[Math.max(1, Math.ceil(values.length * share)) - 1]!;
          const got = h.percentile(share);
          expect(Math.abs(got - exact)).toBeLessThanOrEqual(exact / 64 + 16);
        }
      }
    });
  });

  test("merging is as adding everything to one", () => {
    const [a, b, both] = [new Histogram(), new Histogram(), new Histogram()];
    for (let i = 1; i < 1000; i++) {
      (i % 3 === 0 ? a : b).add(i * i);
      both.add(i * i);
    }
    a.merge(b);
    expect(a.summary()).toEqual(both.summary());
    a.merge(new Histogram());
    expect(a.summary()).toEqual(both.summary());
  });
});
