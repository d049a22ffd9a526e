/**
 * Prometheus' text format, version 0.0.4: collects samples by metric and writes them down. Samples of
 * the same metric with the same labels are added up, so that nothing is exported twice.
 */
import type { MetricDefinition } from "./definition.ts";

export const CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** A distribution: how many observations were at most each bound (seconds), and their sum. */
export interface Distribution {
  /** Upper bounds, rising; the bucket beyond the last is implied. */
  readonly bounds: readonly number[];
  /** Observations per bucket, not cumulative: one more than `bounds`. */
  readonly counts: readonly number[];
  readonly sum: number;
}

interface Family {
  readonly definition: MetricDefinition;
  /** By the labels as they are written. */
  readonly values: Map<string, number>;
  readonly distributions: Map<string, Distribution>;
}

function escapeHelp(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
}

function escapeLabel(text: string): string {
  return /["\\\n]/.test(text)
    ? text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n")
    : text;
}

/** A number as the format wants it. */
export function sampleText(value: number): string {
  if (value === Infinity) return "+Inf";
  if (value === -Infinity) return "-Inf";
  return String(value);
}

/** `node="n1",name="p1"`; empty without labels. */
function labelText(definition: MetricDefinition, values: readonly string[]): string {
  if (values.length !== definition.labels.length) {
    throw new Error(`${definition.name} has the labels ${definition.labels.join(", ")}`);
  }
  return values.map((value, i) => `${definition.labels[i]}="${escapeLabel(value)}"`).join(",");
}

function merged(a: Distribution | undefined, b: Distribution): Distribution {
  if (a === undefined) return b;
  return { ...b, counts: b.counts.map((count, i) => count + a.counts[i]!), sum: a.sum + b.sum };
}

export class Exposition {
  readonly #families = new Map<string, Family>();

  #family(definition: MetricDefinition): Family {
    let family = this.#families.get(definition.name);
    if (family === undefined) {
      family = { definition, values: new Map(), distributions: new Map() };
      this.#families.set(definition.name, family);
    }
    return family;
  }

  /** Adds a sample of a gauge or counter; `labels` are the values in the definition's order. */
  add(definition: MetricDefinition, labels: readonly string[], value: number): void {
    const { values } = this.#family(definition);
    const key = labelText(definition, labels);
    values.set(key, (values.get(key) ?? 0) + value);
  }

  /** Adds observations of a histogram. All of one metric have the same bounds. */
  addDistribution(
    definition: MetricDefinition,
    labels: readonly string[],
    distribution: Distribution,
  ): void {
    const { distributions } = this.#family(definition);
    const key = labelText(definition, labels);
    distributions.set(key, merged(distributions.get(key), distribution));
  }

  /** All samples, grouped by metric. */
  text(): string {
    const lines: string[] = [];
    for (const { definition, values, distributions } of this.#families.values()) {
      const { name, help, type } = definition;
      lines.push(`# HELP ${name} ${escapeHelp(help)}`, `# TYPE ${name} ${type}`);
      for (const [labels, value] of values) {
        lines.push(`${name}${labels === "" ? "" : `{${labels}}`} ${sampleText(value)}`);
      }
      for (const [labels, distribution] of distributions) {
        pushDistribution(lines, name, labels, distribution);
      }
    }
    return lines.length === 0 ? "" : `${lines.join("\n")}\n`;
  }
}

function pushDistribution(
  lines: string[],
  name: string,
  labels: string,
  { bounds, counts, sum }: Distribution,
): void {
  const front = labels === "" ? "" : `${labels},`;
  let total = 0;
  counts.forEach((count, i) => {
    total += count;
    const bound = sampleText(bounds[i] ?? Infinity);
    lines.push(`${name}_bucket{${front}le="${bound}"} ${total}`);
  });
  const braces = labels === "" ? "" : `{${labels}}`;
  lines.push(`${name}_sum${braces} ${sampleText(sum)}`, `${name}_count${braces} ${total}`);
}
