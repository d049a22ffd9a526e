/**
 * Labelled topology: which labels a node or pool must carry, and how those of the chosen ones must
 * differ or agree (mayastor.md 3.1). Pure.
 *
 * | entry                    | a resource passes when                                            |
 * |--------------------------|-------------------------------------------------------------------|
 * | inclusion `key: value`   | it carries the label                                              |
 * | inclusion `key: ""`      | it carries the key, with any value                                |
 * | exclusion `key: value`   | it does not carry the label                                       |
 * | exclusion `key: ""`      | it carries the key, and no other chosen one has the same value    |
 * | affinityKey `key`        | it carries the key, and all other chosen ones have the same value |
 */
import type { LabelledTopology, Labels } from "../../model.ts";

/** Why a resource with these labels cannot be chosen, whatever else is; null: it can. */
export function whyLabelsExclude(labels: Labels, topology: LabelledTopology): string | null {
  for (const [key, value] of Object.entries(topology.inclusion)) {
    const own = labels[key];
    if (own === undefined) return `no label ${key}`;
    if (value !== "" && own !== value) return `label ${key}=${own}, ${value} needed`;
  }
  for (const [key, value] of Object.entries(topology.exclusion)) {
    const own = labels[key];
    if (value === "" && own === undefined) return `no label ${key} to spread over`;
    if (value !== "" && own === value) return `label ${key}=${value} is excluded`;
  }
  for (const key of topology.affinityKey) {
    if (labels[key] === undefined) return `no label ${key} to agree on`;
  }
  return null;
}

/** Why two resources cannot be chosen together; null: they can. Absent labels do not conflict. */
export function whyLabelsConflict(a: Labels, b: Labels, topology: LabelledTopology): string | null {
  for (const [key, value] of Object.entries(topology.exclusion)) {
    if (value === "" && a[key] !== undefined && a[key] === b[key]) return `same ${key}=${a[key]}`;
  }
  for (const key of topology.affinityKey) {
    if (a[key] !== undefined && b[key] !== undefined && a[key] !== b[key]) {
      return `${key}=${a[key]} differs from ${b[key]}`;
    }
  }
  return null;
}

/** Keys whose values differ on all that are chosen together. */
export function spreadKeys(topology: LabelledTopology): readonly string[] {
  return Object.keys(topology.exclusion).filter((key) => topology.exclusion[key] === "");
}

/** The values of some labels as one text. */
export function valuesText(labels: Labels, keys: readonly string[]): string {
  return keys.length === 0 ? "" : JSON.stringify(keys.map((key) => labels[key] ?? null));
}
