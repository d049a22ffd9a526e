/**
 * The commands of the replicated log, as JSON texts: transactions, and changes of the tables' version.
 * What the leader writes is checked in full; what a member reads from the log is taken as it was
 * written, and a text that is no command of a version known here stops the process: to skip it would
 * let this member's tables differ from the others'.
 */
import * as v from "valibot";
import { TrilithError } from "../../errors.ts";
import type { NewEvent, TableName } from "../model.ts";
import type { Change } from "../planner/plan.ts";
import { COMMAND_BYTES_MAX, MESSAGE_LENGTH_MAX, TRANSACTION_PARTS_MAX } from "./limits.ts";
import { EventSchema, Id, recordSchemas } from "./records.ts";
import { tableNames } from "./tables.ts";

/** What a transaction expects of a record: its revision, 0 for none. */
export interface Check {
  readonly table: TableName;
  readonly key: string;
  readonly revision: number;
}

export interface TransactionCommand {
  readonly kind: "transaction";
  /** The leader's clock. */
  readonly nowMs: number;
  readonly checks: readonly Check[];
  readonly changes: readonly Change[];
  readonly events: readonly NewEvent[];
  /** Idempotency key, and JSON of what the request is answered. */
  readonly request: { readonly key: string; readonly outcome: string } | null;
}

export interface MigrateCommand {
  readonly kind: "migrate";
  readonly nowMs: number;
  readonly toVersion: number;
}

export type Command = TransactionCommand | MigrateCommand;

const Count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const Table = v.picklist(tableNames);
const Check = v.object({ table: Table, key: v.string(), revision: Count });

/** The outline of commands, which members of all versions agree on: no bounds, they might change. */
const Outline = v.variant("kind", [
  v.object({
    kind: v.literal("transaction"),
    nowMs: Count,
    checks: v.array(Check),
    changes: v.array(
      v.union([
        v.object({ table: Table, put: v.looseObject({}) }),
        v.object({ table: Table, remove: v.string() }),
      ]),
    ),
    events: v.array(v.looseObject({})),
    request: v.nullable(v.object({ key: v.string(), outcome: v.string() })),
  }),
  v.object({ kind: v.literal("migrate"), nowMs: Count, toVersion: Count }),
]);

function refuse(what: string, issue: v.BaseIssue<unknown>): TrilithError {
  const path = v.getDotPath(issue);
  return new TrilithError(
    "Internal",
    `${what}${path === null ? "" : `.${path}`}: ${issue.message}`,
  );
}

function checkChange(change: Change): void {
  if (!("put" in change)) return;
  const checked = v.safeParse(recordSchemas[change.table], change.put);
  if (!checked.success) throw refuse(change.table, checked.issues[0]);
}

/** Messages come from anywhere (a disk's model, an engine's error): what cannot be stored is replaced. */
function storableEvent(event: NewEvent): NewEvent {
  const message = event.message.slice(0, MESSAGE_LENGTH_MAX).toWellFormed();
  return { ...event, message: message.replaceAll("\0", "\ufffd") };
}

/** Refuses what members could not apply: they would all stop at it. */
function checkTransaction(command: TransactionCommand): void {
  const parts = command.changes.length + command.checks.length + command.events.length;
  if (parts > TRANSACTION_PARTS_MAX) {
    throw new TrilithError("ResourceExhausted", `a transaction of ${parts} parts is too large`);
  }
  const keys = command.checks.map(({ key }) => key);
  if (command.request !== null) keys.push(command.request.key);
  for (const change of command.changes) {
    checkChange(change);
    if ("remove" in change) keys.push(change.remove);
  }
  for (const key of keys) {
    const checked = v.safeParse(Id, key);
    if (!checked.success) throw refuse("key", checked.issues[0]);
  }
  for (const event of command.events) {
    const checked = v.safeParse(EventSchema, event);
    if (!checked.success) throw refuse("event", checked.issues[0]);
  }
}

/**
 * A command as a text. `Internal` when a record is not what its table holds, `ResourceExhausted` when
 * it is too large.
 */
export function encodeCommand(given: Command): string {
  const command =
    given.kind === "transaction" ? { ...given, events: given.events.map(storableEvent) } : given;
  const outline = v.safeParse(Outline, command);
  if (!outline.success) throw refuse("command", outline.issues[0]);
  if (command.kind === "transaction") checkTransaction(command);
  const text = JSON.stringify(command);
  if (text.length > COMMAND_BYTES_MAX) {
    throw new TrilithError("ResourceExhausted", `a command of ${text.length} bytes is too large`);
  }
  return text;
}

/** The command that a text of the log stands for; throws `Corrupted` when it is none. */
export function decodeCommand(text: string): Command {
  const parsed = v.safeParse(Outline, JSON.parse(text));
  if (parsed.success) return parsed.output as unknown as Command;
  throw new TrilithError(
    "Corrupted",
    `the log holds a command that is not known here: ${parsed.issues[0].message}`,
    "run the version of Trilith that the other nodes run",
  );
}
