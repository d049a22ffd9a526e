/** How steps and works are written down. */
import type { NewEvent, NodeId, TableName, Tables } from "../../model.ts";
import type { Change, EngineCall, Step, Work } from "../plan.ts";
import type { SubjectFailure } from "./planning.ts";

/** A put of a record. Its revision is that of the record it was made from. */
export function put<T extends TableName>(table: T, record: Tables[T]): Change {
  return { table, put: record } as unknown as Change;
}

/** A put that changes nothing: the transaction is refused when the record has changed meanwhile. */
export const unchanged = put;

/** A removal of the record as it is known. */
export function remove<T extends TableName>(table: T, key: string, record: Tables[T]): Change {
  return { table, remove: key, revision: record.revision } as unknown as Change;
}

export function store(
  reason: string,
  changes: readonly Change[],
  events: readonly NewEvent[] = [],
): Step {
  return { kind: "store", changes, events, reason };
}

export function engine(
  nodeId: NodeId,
  call: EngineCall,
  reason: string,
  doneWhen: readonly string[] = [],
  timeoutMs?: number,
): Step {
  const limit = timeoutMs === undefined ? {} : { timeoutMs };
  return { kind: "engine", nodeId, call, doneWhen, ...limit, reason };
}

export function work(subject: string, ...steps: Step[]): Work {
  return { subject, steps };
}

/** A work that gives something up: whoever waits for the subject is told why. */
export function givingUp(subject: string, failure: SubjectFailure, ...steps: Step[]): Work {
  return { subject, steps, failure };
}

export function event(
  category: NewEvent["category"],
  action: string,
  target: string,
  nodeId: NodeId | null,
  message = "",
): NewEvent {
  return { category, action, target, nodeId, component: "planner", message };
}
