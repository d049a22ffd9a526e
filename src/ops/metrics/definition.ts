/** What a metric is called, what it counts in, and what tells its samples apart. */

export type MetricType = "gauge" | "counter" | "histogram";

export interface MetricDefinition {
  readonly name: string;
  readonly type: MetricType;
  /** One sentence, with the unit where the name does not carry it. */
  readonly help: string;
  /** Names of its labels, in the order in which their values are given. */
  readonly labels: readonly string[];
}

export function gauge(name: string, help: string, ...labels: string[]): MetricDefinition {
  return { name, type: "gauge", help, labels };
}

/** Rises only, or begins again at zero; its name ends in `_total`. */
export function counter(name: string, help: string, ...labels: string[]): MetricDefinition {
  return { name, type: "counter", help, labels };
}

export function histogram(name: string, help: string, ...labels: string[]): MetricDefinition {
  return { name, type: "histogram", help, labels };
}
