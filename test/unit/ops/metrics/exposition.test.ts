import { describe, expect, test } from "bun:test";
import { counter, gauge, histogram } from "../../../../src/ops/metrics/definition.ts";
import { Exposition } from "../../../../src/ops/metrics/exposition.ts";
import { CounterInstrument, HistogramInstrument } from "../../../../src/ops/metrics/instruments.ts";
import { latencyDistribution } from "../../../../src/ops/metrics/io.ts";
import { SERIES_MAX } from "../../../../src/ops/metrics/limits.ts";
import { parseExposition } from "../../../support/exposition-parser.ts";

describe("the exposition", () => {
  test("is Prometheus' text, with everything escaped that has to be", () => {
    const out = new Exposition();
    const load = gauge("load", "Back\\slash and\nnewline", "name");
    out.add(load, ['quote " slash \\ line \n end'], 1.5);
    out.add(gauge("limit", "No limit"), [], Infinity);
    const text = out.text();
    expect(text).toBe(
      "# HELP load Back\\\\slash and\\nnewline\n# TYPE load gauge\n" +
        'load{name="quote \\" slash \\\\ line \\n end"} 1.5\n' +
        "# HELP limit No limit\n# TYPE limit gauge\nlimit +Inf\n",
    );
    const [sample] = parseExposition(text).get("load")!.samples;
    expect(sample!.labels.name).toBe('quote " slash \\ line \n end');
  });

  test("keeps samples of a metric together and adds up what has the same labels", () => {
    const out = new Exposition();
    const a = counter("a_total", "A", "x");
    const b = counter("b_total", "B");
    out.add(a, ["1"], 2);
    out.add(b, [], 5);
    out.add(a, ["2"], 3);
    out.add(a, ["1"], 4);
    const families = parseExposition(out.text());
    expect(families.get("a_total")!.samples.map(({ value }) => value)).toEqual([6, 3]);
    expect(families.get("b_total")!.samples.map(({ value }) => value)).toEqual([5]);
  });

  test("refuses labels that do not fit the definition", () => {
    expect(() => new Exposition().add(gauge("a", "A", "x", "y"), ["1"], 1)).toThrow("x, y");
  });

  test("writes histograms with cumulative buckets", () => {
    const out = new Exposition();
    const took = histogram("took_seconds", "Took", "op");
    const distribution = { bounds: [0.1, 1], counts: [3, 2, 1], sum: 4.5 };
    out.addDistribution(took, ["read"], distribution);
    out.addDistribution(took, ["read"], distribution);
    const { samples } = parseExposition(out.text()).get("took_seconds")!;
    expect(samples.map(({ name, labels, value }) => [name, labels.le, value])).toEqual([
      ["took_seconds_bucket", "0.1", 6],
      ["took_seconds_bucket", "1", 10],
      ["took_seconds_bucket", "+Inf", 12],
      ["took_seconds_sum", undefined, 9],
      ["took_seconds_count", undefined, 12],
    ]);
  });
});

describe("instruments", () => {
  test("a bound belongs to the bucket below it, what is above the last one is counted too", () => {
    const took = new HistogramInstrument(histogram("took_seconds", "Took"), [1, 2]);
    for (const value of [0, 1, 1.5, 2, 2.1]) took.observe(value);
    const out = new Exposition();
    took.collect(out);
    const { samples } = parseExposition(out.text()).get("took_seconds")!;
    expect(samples.map(({ value }) => value)).toEqual([2, 4, 5, 6.6, 5]);
  });

  test("more label values than the limit go together under `other`", () => {
    const asked = new CounterInstrument(counter("asked_total", "Asked", "who"));
    for (let i = 0; i < SERIES_MAX + 10; i++) asked.add([`host-${i}`]);
    const out = new Exposition();
    asked.collect(out);
    const { samples } = parseExposition(out.text()).get("asked_total")!;
    expect(samples.length).toBe(SERIES_MAX + 1);
    expect(samples.find(({ labels }) => labels.who === "other")!.value).toBe(10);
  });

  test("the engine's latency counts keep their totals, whatever lies outside the bounds", () => {
    const latencyCounts = Array.from({ length: 32 }, (_, entry) => entry + 1);
    const total = latencyCounts.reduce((sum, count) => sum + count, 0);
    const op = { ops: total, bytes: 0, errors: 0, latencyUs: 2_500_000, latencyCounts };
    const { bounds, counts, sum } = latencyDistribution(op);
    expect(counts.reduce((a, b) => a + b, 0)).toBe(total);
    expect(sum).toBe(2.5);
    // Entry b counts what is below 2^b * 1.024 us: entries 0 to 4 are below 16.384 us.
    expect(bounds[0]).toBeCloseTo(16.384e-6, 12);
    expect(counts[0]).toBe(1 + 2 + 3 + 4 + 5);
    expect(counts[1]).toBe(6);
    expect(bounds.length).toBe(counts.length - 1);
  });
});

describe("the strict reader", () => {
  const head = "# HELP a A\n# TYPE a gauge\n";
  const refused: [why: string, text: string][] = [
    ["no end of line", `${head}a 1`],
    ["a sample twice", `${head}a{x="1"} 1\na{x="1"} 2\n`],
    ["a metric in pieces", `${head}a 1\n# HELP b B\n# TYPE b gauge\nb 1\na{x="1"} 1\n`],
    ["no type", "a 1\n"],
    ["no help", "# TYPE a gauge\na 1\n"],
    ["a bare quote", `${head}a{x="""} 1\n`],
    ["a number that is none", `${head}a undefined\n`],
    ["a falling counter", "# HELP a A\n# TYPE a counter\na -1\n"],
    [
      "buckets without an end",
      '# HELP a A\n# TYPE a histogram\na_bucket{le="1"} 1\na_sum 1\na_count 1\n',
    ],
  ];
  for (const [why, text] of refused) {
    test(`refuses ${why}`, () => {
      expect(() => parseExposition(text)).toThrow();
    });
  }
});
