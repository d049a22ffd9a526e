/** The dashboard and the alert rules name only metrics and labels that exist. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { verbs } from "../../../../src/cli/verbs.ts";
import { catalog, sampleNames } from "../../../../src/ops/metrics/index.ts";
import { projectRoot } from "../../../support/executable.ts";

interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly gridPos: {
    readonly h: number;
    readonly w: number;
    readonly x: number;
    readonly y: number;
  };
  readonly targets?: readonly { readonly expr: string; readonly legendFormat: string }[];
}
interface Dashboard {
  readonly panels: readonly Panel[];
  readonly templating: {
    readonly list: readonly { readonly name: string; readonly query: unknown }[];
  };
}
interface Rule {
  readonly alert: string;
  readonly expr: string;
  readonly labels: { readonly severity: string };
  readonly annotations: { readonly summary: string; readonly remedy: string };
}

const read = (name: string) => readFileSync(join(projectRoot, "images", name), "utf8");
const dashboard = JSON.parse(read("grafana-dashboard.json")) as Dashboard;
const alerts = Bun.YAML.parse(read("prometheus-alerts.yaml")) as {
  groups: { name: string; rules: Rule[] }[];
};
const rules = alerts.groups.flatMap((group) => group.rules);

/** Labels by name of the sample; Prometheus adds `instance` and `job` to each. */
const labelsOf = new Map(
  catalog.flatMap((definition) =>
    sampleNames(definition).map((name) => {
      const own = definition.type === "histogram" && name.endsWith("_bucket") ? ["le"] : [];
      return [name, new Set([...definition.labels, ...own, "instance", "job"])] as const;
    }),
  ),
);
const words = new Set(
  (
    "sum count max min avg by without rate increase delta absent predict_linear and or unless " +
    "on ignoring histogram_quantile label_values"
  ).split(" "),
);

interface Named {
  readonly metrics: string[];
  readonly labels: string[];
}

/** Metrics and labels that an expression of PromQL names. */
function namesIn(expr: string): Named {
  const labels: string[] = [];
  const bare = expr
    .replace(/\[[^\]]*\]/g, " ")
    .replace(/\{([^}]*)\}/g, (_all, matchers: string) => {
      for (const [, label] of matchers.matchAll(/(\w+)\s*(?:=~|!~|!=|=)\s*"[^"]*"/g)) {
        labels.push(label!);
      }
      return " ";
    })
    .replace(/\b(?:by|without|on|ignoring)\s*\(([^)]*)\)/g, (_all, list: string) => {
      labels.push(...list.split(",").map((label) => label.trim()));
      return " ";
    });
  const metrics = [...bare.matchAll(/[a-zA-Z_:][\w:]*/g)]
    .map(([name]) => name)
    .filter((name) => !words.has(name));
  return { metrics, labels };
}

/** What is wrong with an expression. */
function faults(expr: string): string[] {
  const { metrics, labels } = namesIn(expr);
  if (metrics.length === 0) return ["names no metric"];
  const unknown = metrics.filter((name) => !labelsOf.has(name));
  if (unknown.length > 0) return unknown.map((name) => `there is no metric ${name}`);
  return labels
    .filter((label) => !metrics.some((name) => labelsOf.get(name)!.has(label)))
    .map((label) => `no metric has the label ${label}`);
}

test("the reader of expressions finds metrics and labels, and what is wrong", () => {
  const expr = 'sum by (node, le) (rate(no_such{kind="x"}[5m])) / trilith_nexus_rebuilds';
  expect(namesIn(expr)).toEqual({
    metrics: ["no_such", "trilith_nexus_rebuilds"],
    labels: ["kind", "node", "le"],
  });
  expect(faults(expr)).toEqual(["there is no metric no_such"]);
  expect(faults('trilith_nexus_rebuilds{colour="red"}')).toEqual([
    "no metric has the label colour",
  ]);
});

describe("the dashboard", () => {
  const drawn = dashboard.panels.filter((panel) => panel.type !== "row");
  for (const panel of drawn) {
    test(`"${panel.title}" (${panel.id}) shows what exists`, () => {
      expect(panel.targets!.length).toBeGreaterThan(0);
      for (const { expr, legendFormat } of panel.targets!) {
        expect({ expr, faults: faults(expr) }).toEqual({ expr, faults: [] });
        const { metrics } = namesIn(expr);
        for (const [, label] of legendFormat.matchAll(/\{\{(\w+)\}\}/g)) {
          expect(metrics.some((name) => labelsOf.get(name)!.has(label!))).toBe(true);
        }
      }
    });
  }

  test("has variables that exist, and uses no other", () => {
    const names = dashboard.templating.list.map(({ name }) => name);
    for (const [, used] of JSON.stringify(dashboard.panels).matchAll(/\$\{?(?!__)(\w+)/g)) {
      expect(names).toContain(used!);
    }
    for (const { query } of dashboard.templating.list) {
      const text = (query as { query?: string }).query;
      if (text === undefined) continue;
      const [, metric, label] = /^label_values\((\w+), (\w+)\)$/.exec(text)!;
      expect(labelsOf.get(metric!)?.has(label!)).toBe(true);
    }
  });

  test("has panels of their own number and place", () => {
    expect(new Set(dashboard.panels.map(({ id }) => id)).size).toBe(dashboard.panels.length);
    const cells = new Set<string>();
    for (const { gridPos, title } of dashboard.panels) {
      expect(gridPos.x + gridPos.w).toBeLessThanOrEqual(24);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          if (cells.has(`${x},${y}`)) throw new Error(`"${title}" covers another panel`);
          cells.add(`${x},${y}`);
        }
      }
    }
  });
});

describe("the alert rules", () => {
  for (const { alert, expr, labels, annotations } of rules) {
    test(`${alert} asks for what exists, and says what to do`, () => {
      expect({ expr, faults: faults(expr) }).toEqual({ expr, faults: [] });
      expect(["info", "warning", "critical"]).toContain(labels.severity);
      expect(annotations.summary.length).toBeGreaterThan(10);
      expect(annotations.remedy.length).toBeGreaterThan(10);
      const { metrics } = namesIn(expr);
      const text = annotations.summary + annotations.remedy;
      for (const [, label] of text.matchAll(/\$labels\.(\w+)/g)) {
        expect(metrics.some((name) => labelsOf.get(name)!.has(label!))).toBe(true);
      }
      for (const [, verb] of text.matchAll(/(?<!-u )\btrilith ([a-z]\w*)/g)) {
        expect(verbs.map(({ name }) => name)).toContain(verb!);
      }
    });
  }

  test("have different names", () => {
    expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length);
  });
});
