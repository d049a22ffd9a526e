/** Carries the steps of one work out, in order, until one fails. */
import type { CallOptions, EngineClient } from "../../engine/rpc/client.ts";
import type { EngineMethod } from "../../engine/rpc/contract.ts";
import { TrilithError } from "../../errors.ts";
import type { Log } from "../../ops/log.ts";
import type { StoreView } from "../cluster-state.ts";
import type { NodeId } from "../model.ts";
import type { Change, EngineCall, Step, Work } from "../planner/plan.ts";
import type { Store } from "../store/store.ts";
import { keyOf } from "../store/tables.ts";
import { CALL_TIMEOUT_MS, LONG_CALL_TIMEOUT_MS, TRANSACT_TIMEOUT_MS } from "./limits.ts";

export interface RunContext {
  readonly store: Store;
  readonly engine: (nodeId: NodeId) => EngineClient;
  readonly log: Log;
  /** Fires when this node does not lead any more: no further step is begun. */
  readonly signal: AbortSignal;
  readonly monotonicMs: () => number;
  readonly requestId: string | undefined;
  readonly instruments?: {
    stepped(call: string, ms: number, code: string | null): void;
  };
  /** Awaited before each step: a test that models its death stops it there. */
  readonly beforeStep?: () => Promise<void>;
}

export type Outcome =
  | { readonly kind: "done" }
  /** The state has moved on since the plan was made: it is to be made again. */
  | { readonly kind: "stale" }
  | { readonly kind: "failed"; readonly error: TrilithError };

/** The records have changed since the plan was made. */
class StalePlan extends Error {}

/** What the work has put so far: further puts of these records follow on them. */
class Written {
  readonly #revisions = new Map<string, number>();

  rebased(change: Change): Change {
    if (!("put" in change)) return change;
    const revision = this.#revisions.get(nameOf(change));
    if (revision === undefined) return change;
    return { ...change, put: { ...change.put, revision } } as Change;
  }

  /** Notes revisions of records that are still as they were put; others have been changed since. */
  note(changes: readonly Change[], view: StoreView): void {
    for (const change of changes) {
      if (!("put" in change)) continue;
      const record = recordOf(view, change);
      if (record === undefined) continue;
      const { revision } = record;
      if (Bun.deepEquals(record, { ...change.put, revision })) {
        this.#revisions.set(nameOf(change), revision);
      }
    }
  }
}

interface WorkContext extends RunContext {
  readonly written: Written;
}

function keyOfChange(change: Change): string {
  return "put" in change ? keyOf(change.table, change.put) : change.remove;
}

function nameOf(change: Change): string {
  return `${change.table}/${keyOfChange(change)}`;
}

function recordOf(view: StoreView, change: Change): { readonly revision: number } | undefined {
  const table: ReadonlyMap<string, { readonly revision: number }> = view[change.table];
  return table.get(keyOfChange(change));
}

/** Revision of the record that a change is about, as it is now; 0: there is none. */
function revisionNow(
  view: StoreView,
  change: Change,
): { readonly now: number; readonly expected: number } {
  const now = recordOf(view, change)?.revision ?? 0;
  return { now, expected: "put" in change ? change.put.revision : (change.revision ?? now) };
}

const longMethods: ReadonlySet<EngineMethod> = new Set([
  "createPool",
  "importPool",
  "destroyPool",
  "createNexus",
  "destroyNexus",
  "shutdownNexus",
]);

async function callEngine(
  client: EngineClient,
  { call, timeoutMs: given }: { readonly call: EngineCall; readonly timeoutMs?: number },
  signal: AbortSignal,
) {
  const usual = longMethods.has(call.method) ? LONG_CALL_TIMEOUT_MS : CALL_TIMEOUT_MS;
  const timeoutMs = given ?? usual;
  const method = client[call.method] as (input: unknown, options: CallOptions) => Promise<unknown>;
  await method(call.input, { signal, timeoutMs });
}

async function runStep(step: Step, context: WorkContext): Promise<void> {
  const { store, signal } = context;
  if (signal.aborted) throw new TrilithError("Aborted", "this node does not lead any more");
  if (step.kind === "engine") {
    try {
      await callEngine(context.engine(step.nodeId), step, signal);
    } catch (error) {
      if (!(error instanceof TrilithError) || !step.doneWhen.includes(error.code)) throw error;
    }
    return;
  }
  const { events } = step;
  const changes = step.changes.map((change) => context.written.rebased(change));
  await store.transact(
    (view) => {
      for (const change of changes) {
        const { now, expected } = revisionNow(view, change);
        if (now !== expected) throw new StalePlan(`${change.table} has changed`);
      }
      return { changes, events, value: undefined };
    },
    { timeoutMs: TRANSACT_TIMEOUT_MS },
  );
  context.written.note(changes, store.view());
}

function fieldsOf(step: Step): Record<string, unknown> {
  if (step.kind === "engine") return { node: step.nodeId, call: step.call.method };
  return { store: step.changes.map(({ table }) => table).join(",") };
}

async function runLogged(subject: string, step: Step, context: WorkContext): Promise<Outcome> {
  const { log, monotonicMs, requestId, signal } = context;
  const startedMs = monotonicMs();
  const fields = { subject, ...fieldsOf(step), reason: step.reason, requestId };
  const ms = () => Math.round(monotonicMs() - startedMs);
  const ended = (code: string | null): void => {
    const call = step.kind === "engine" ? step.call.method : "store";
    context.instruments?.stepped(call, monotonicMs() - startedMs, code);
  };
  try {
    await runStep(step, context);
    ended(null);
    log("info", "step done", { ...fields, ms: ms() });
    return { kind: "done" };
  } catch (error) {
    const isConflict = error instanceof TrilithError && error.code === "Conflict";
    if (error instanceof StalePlan || (isConflict && step.kind === "store")) {
      log("debug", "step is out of date", { ...fields, ms: ms() });
      return { kind: "stale" };
    }
    const failed =
      error instanceof TrilithError ? error : new TrilithError("Internal", String(error));
    const text = { error: failed.message, code: failed.code };
    ended(failed.code);
    if (!signal.aborted) log("warn", "step failed", { ...fields, ...text, ms: ms() });
    if (!(error instanceof TrilithError)) log("error", "defect in a step", { ...fields, error });
    return { kind: "failed", error: failed };
  }
}

/** Runs a work. Never throws. */
export async function runWork(work: Work, given: RunContext): Promise<Outcome> {
  const context: WorkContext = { ...given, written: new Written() };
  let outcome: Outcome = { kind: "done" };
  let isBegun = false;
  for (const step of work.steps) {
    await context.beforeStep?.();
    outcome = await runLogged(work.subject, step, context);
    if (outcome.kind !== "done") break;
    isBegun = true;
  }
  if (!isBegun) return outcome;
  for (const step of work.cleanup ?? []) {
    await context.beforeStep?.();
    const cleaned = await runLogged(work.subject, step, context);
    if (outcome.kind === "done") outcome = cleaned;
  }
  return outcome;
}
