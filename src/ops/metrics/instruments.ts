/** Counters and histograms that running code fills and a scrape reads. */
import type { MetricDefinition } from "./definition.ts";
import type { Distribution, Exposition } from "./exposition.ts";
import { SERIES_MAX } from "./limits.ts";

/** 100 us to 100 s, for what disks and networks are part of. */
export const DURATION_BOUNDS_S: readonly number[] = [
  0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
  30, 100,
];

const OTHER = "other";

/** Values per set of labels. Beyond `SERIES_MAX` sets the rest goes together. */
class Series<T> {
  readonly #definition: MetricDefinition;
  readonly #make: () => T;
  readonly #items = new Map<string, { readonly labels: readonly string[]; readonly item: T }>();

  constructor(definition: MetricDefinition, make: () => T) {
    this.#definition = definition;
    this.#make = make;
  }

  at(labels: readonly string[]): T {
    const key = labels.join("\n");
    const present = this.#items.get(key);
    if (present !== undefined) return present.item;
    if (this.#items.size >= SERIES_MAX && !labels.every((label) => label === OTHER)) {
      return this.at(this.#definition.labels.map(() => OTHER));
    }
    const item = this.#make();
    this.#items.set(key, { labels, item });
    return item;
  }

  all(): Iterable<{ readonly labels: readonly string[]; readonly item: T }> {
    return this.#items.values();
  }
}

export class CounterInstrument {
  readonly definition: MetricDefinition;
  readonly #series: Series<{ value: number }>;

  constructor(definition: MetricDefinition) {
    this.definition = definition;
    this.#series = new Series(definition, () => ({ value: 0 }));
    if (definition.labels.length === 0) this.#series.at([]);
  }

  add(labels: readonly string[] = [], by = 1): void {
    this.#series.at(labels).value += by;
  }

  collect(out: Exposition): void {
    for (const { labels, item } of this.#series.all()) {
      out.add(this.definition, labels, item.value);
    }
  }
}

interface MutableDistribution extends Distribution {
  readonly counts: number[];
  sum: number;
}

export class HistogramInstrument {
  readonly definition: MetricDefinition;
  readonly #bounds: readonly number[];
  readonly #series: Series<MutableDistribution>;

  constructor(definition: MetricDefinition, bounds: readonly number[] = DURATION_BOUNDS_S) {
    this.definition = definition;
    this.#bounds = bounds;
    this.#series = new Series(definition, () => ({
      bounds,
      counts: new Array<number>(bounds.length + 1).fill(0),
      sum: 0,
    }));
    if (definition.labels.length === 0) this.#series.at([]);
  }

  /** `value` in the metric's unit: seconds. */
  observe(value: number, labels: readonly string[] = []): void {
    const item = this.#series.at(labels);
    const found = this.#bounds.findIndex((bound) => value <= bound);
    const bucket = found < 0 ? this.#bounds.length : found;
    item.counts[bucket] = item.counts[bucket]! + 1;
    item.sum += value;
  }

  collect(out: Exposition): void {
    for (const { labels, item } of this.#series.all()) {
      out.addDistribution(this.definition, labels, item);
    }
  }
}
