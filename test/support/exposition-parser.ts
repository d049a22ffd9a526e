/**
 * A strict reader of Prometheus' text format 0.0.4: refuses whatever the format does not allow, and
 * what Prometheus would reject or silently drop (samples twice, metrics in pieces, buckets that fall).
 */

export interface ParsedSample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface ParsedFamily {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  readonly samples: ParsedSample[];
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const TYPES = new Set(["counter", "gauge", "histogram", "summary", "untyped"]);

class Reader {
  readonly families = new Map<string, ParsedFamily>();
  readonly #seen = new Set<string>();
  #current: ParsedFamily | null = null;
  #help: { readonly name: string; readonly text: string } | null = null;

  line(text: string, fail: (why: string) => never): void {
    const help = /^# HELP (\S+) (.+)$/.exec(text);
    if (help !== null) {
      if (this.families.has(help[1]!)) fail("the metric was described already");
      this.#help = { name: help[1]!, text: help[2]! };
      return;
    }
    const type = /^# TYPE (\S+) (\S+)$/.exec(text);
    if (type !== null) {
      this.#type(type[1]!, type[2]!, fail);
      return;
    }
    if (text.startsWith("#")) fail("neither HELP nor TYPE");
    this.#sample(text, fail);
  }

  #type(name: string, type: string, fail: (why: string) => never): void {
    if (!NAME.test(name)) fail("not a metric's name");
    if (!TYPES.has(type)) fail("no such type");
    if (this.families.has(name)) fail("the metric was there before: its samples are not together");
    if (this.#help?.name !== name) fail("TYPE without HELP");
    this.#current = { name, type, help: this.#help!.text, samples: [] };
    this.families.set(name, this.#current);
  }

  #sample(text: string, fail: (why: string) => never): undefined {
    const match = /^([^\s{]+)(?:\{(.*)\})? (\S+)$/.exec(text);
    if (match === null) return fail("not a sample");
    const [, name, labelText, valueText] = match;
    const family = this.#current;
    if (family === null) return fail("a sample before any TYPE");
    const suffix = name!.slice(family.name.length);
    const suffixes = family.type === "histogram" ? ["_bucket", "_sum", "_count"] : [""];
    if (!name!.startsWith(family.name) || !suffixes.includes(suffix)) {
      fail(`not a sample of ${family.name}`);
    }
    const labels = labelsOf(labelText, fail);
    const key = `${name} ${JSON.stringify(Object.entries(labels).sort())}`;
    if (this.#seen.has(key)) fail("the same sample twice");
    this.#seen.add(key);
    family.samples.push({ name: name!, labels, value: numberOf(valueText!, fail) });
  }
}

function numberOf(text: string, fail: (why: string) => never): number {
  if (text === "+Inf") return Infinity;
  if (text === "-Inf") return -Infinity;
  if (text === "NaN") return NaN;
  if (!/^-?\d+(\.\d+)?(e[+-]?\d+)?$/.test(text)) fail("not a number");
  return Number(text);
}

function labelsOf(text: string | undefined, fail: (why: string) => never): Record<string, string> {
  const labels: Record<string, string> = {};
  if (text === undefined) return labels;
  const one = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)/y;
  while (one.lastIndex < text.length) {
    const match = one.exec(text);
    if (match === null) return fail("not labels");
    const [, name, value] = match;
    if (name!.startsWith("__")) fail("a reserved label");
    if (name! in labels) fail("a label twice");
    labels[name!] = value!.replace(/\\(.)/g, (_all, c: string) => (c === "n" ? "\n" : c));
  }
  return labels;
}

/** Buckets rise, end with +Inf, and agree with the count. */
function checkHistogram({ name, samples }: ParsedFamily): void {
  const series = new Map<string, { buckets: [number, number][]; count: number; sums: number }>();
  for (const sample of samples) {
    const { le, ...rest } = sample.labels;
    const key = JSON.stringify(Object.entries(rest).sort());
    const one = series.get(key) ?? { buckets: [], count: NaN, sums: 0 };
    series.set(key, one);
    if (sample.name.endsWith("_bucket")) {
      one.buckets.push([le === "+Inf" ? Infinity : Number(le), sample.value]);
    } else if (sample.name.endsWith("_count")) one.count = sample.value;
    else one.sums++;
  }
  for (const [key, { buckets, count, sums }] of series) {
    const rises = buckets.every(([bound, total], i) => {
      const before = buckets[i - 1];
      return before === undefined || (bound > before[0] && total >= before[1]);
    });
    const [bound, total] = buckets.at(-1) ?? [NaN, NaN];
    if (!rises || bound !== Infinity || total !== count || sums !== 1) {
      throw new Error(`${name} ${key}: buckets, count and sum do not fit together`);
    }
  }
}

/** The metrics in `text`, by name. Throws with the line that is wrong. */
export function parseExposition(text: string): Map<string, ParsedFamily> {
  if (text !== "" && !text.endsWith("\n")) throw new Error("the last line has no end");
  const reader = new Reader();
  text.split("\n").forEach((line, index) => {
    if (line === "") return;
    reader.line(line, (why) => {
      throw new Error(`line ${index + 1}: ${why}: ${line}`);
    });
  });
  for (const family of reader.families.values()) {
    if (family.type === "histogram") checkHistogram(family);
    if (family.type === "counter" && family.samples.some(({ value }) => !(value >= 0))) {
      throw new Error(`${family.name} is a counter with a negative value`);
    }
  }
  return reader.families;
}
