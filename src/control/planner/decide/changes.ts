/** Building blocks of decisions: changes, events, comparisons. Pure. */
import { assert } from "../../../assert.ts";
import type { NewEvent, TableName, Tables, Uuid } from "../../model.ts";
import type { Change, Decision } from "../plan.ts";

/** It is so, or is being done, already. */
export const nothing: Decision = { changes: [], events: [] };

export function put<T extends TableName>(table: T, record: Tables[T]): Change {
  return { table, put: record } as Change;
}

/**
 * Puts a record as it is: of two decisions that touch the same record one is refused and made again,
 * with what the other has done in view.
 */
export function touch<T extends TableName>(table: T, record: Tables[T]): Change {
  return put(table, record);
}

export function remove(table: TableName, key: string, revision: number): Change {
  return { table, remove: key, revision } as Change;
}

export function event(
  category: NewEvent["category"],
  action: string,
  target: string,
  message: string,
  nodeId: string | null = null,
): NewEvent {
  return { category, action, target, nodeId, component: "api", message };
}

/** Fresh UUIDs that a decision may give out, as many as `decisionUuids`. */
export type FreshUuids = readonly Uuid[];

/** UUIDs that a caller hands to any decision. */
export const decisionUuids = 16;

/** The fresh UUID at a place. */
export function fresh(uuids: FreshUuids, at: number): Uuid {
  const uuid = uuids[at];
  assert(uuid !== undefined, `${decisionUuids} fresh UUIDs are handed to a decision`);
  return uuid;
}

/** A value as text in which the order of an object's keys does not matter. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "undefined";
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([key, inner]) => `${key}:${canonical(inner)}`).join(",")}}`;
}

/** Equal in every field, whatever the order of keys. */
export function isEqual(a: unknown, b: unknown): boolean {
  return canonical(a) === canonical(b);
}

/** Names of the fields of `wanted` that differ in what is there. */
export function differing<T extends object>(
  wanted: T,
  there: { [K in keyof T]: unknown },
): string[] {
  return Object.keys(wanted).filter(
    (key) => !isEqual(wanted[key as keyof T], there[key as keyof T]),
  );
}
