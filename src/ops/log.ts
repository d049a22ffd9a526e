/**
 * The log of a process: one line per entry on standard error, as text for people or as JSON, from
 * `info` up unless said otherwise. Where standard error is systemd's journal, each line says its
 * priority (sd-daemon(3)) and leaves out the time, which the journal knows. Entries made while a
 * request is worked on carry its id. Values that look like secrets are never written.
 */
import { fstatSync } from "node:fs";
import { TrilithError } from "../errors.ts";
import { currentRequestId } from "./request-id.ts";

export type LogLevel = "debug" | "info" | "warn" | "error";
/** What happened, and named values that go with it. Secrets are never passed. */
export type Log = (level: LogLevel, text: string, fields?: Record<string, unknown>) => void;

export const logLevels: readonly LogLevel[] = ["debug", "info", "warn", "error"];

export type LogFormat = "text" | "json";

export interface LogOptions {
  readonly format: LogFormat;
  readonly level: LogLevel;
  /** Receives each line, without its end. Default: standard error. */
  readonly write?: (line: string) => void;
  /** Default: the wall clock. */
  readonly now?: () => Date;
  /** Lines go to systemd's journal. Default: when standard error does. */
  readonly journal?: boolean;
}

type Fields = Readonly<Record<string, unknown>>;

/** Priorities of syslog(3) by level. */
const priorities: Readonly<Record<LogLevel, number>> = { debug: 7, info: 6, warn: 4, error: 3 };

/** Names of fields whose values are secrets whatever they are. */
const SECRET_NAME = /secret|token|passw|authorization|privatekey|keypem/i;
/** Secrets by their form: NVMe in-band authentication, NVMe TLS keys, PEM keys, bearer tokens. */
const SECRET_TEXT =
  /DHHC-1:\d\d:[^:\s"]+:|NVMeTLSkey-1:\d\d:[^:\s"]+:|-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(-----END [A-Z ]*PRIVATE KEY-----)?|\bBearer\s+[\w.~+/=-]+/g;
const HIDDEN = "(hidden)";

function withoutSecrets(text: string): string {
  return text.replace(SECRET_TEXT, HIDDEN);
}

function plain(name: string, value: unknown): unknown {
  if (SECRET_NAME.test(name)) return HIDDEN;
  // An error of the closed list says what happened by itself; where a defect comes from its stack says.
  if (value instanceof TrilithError && value.code !== "Internal") {
    return `${value.code}: ${value.message}`;
  }
  if (value instanceof Error) return value.stack ?? value.message;
  return value;
}

/** JSON of a value; of what JSON cannot carry, its text. */
function jsonText(value: unknown): string {
  try {
    const text = JSON.stringify(value, (name, inner) =>
      typeof inner === "bigint" ? inner.toString() : plain(name, inner),
    );
    return text ?? String(value);
  } catch {
    return JSON.stringify(String(value));
  }
}

function fieldText(value: unknown): string {
  return typeof value === "string" && /^[\x21\x23-\x7e]+$/.test(value) ? value : jsonText(value);
}

/** `2026-01-31T12:00:00.000Z warn  connection refused limit=4096` */
function textLine(front: string, text: string, fields: Fields): string {
  let line = `${front} ${text.replaceAll("\n", "\\n")}`;
  for (const [name, value] of Object.entries(fields)) {
    if (value !== undefined) line += ` ${name}=${fieldText(plain(name, value))}`;
  }
  return line;
}

/** True when standard error is the journal's socket (systemd.exec(5), JOURNAL_STREAM). */
export function isJournal(environment = process.env, fd = 2): boolean {
  const named = environment.JOURNAL_STREAM;
  if (named === undefined || named === "") return false;
  try {
    const { dev, ino } = fstatSync(fd, { bigint: true });
    return named === `${dev}:${ino}`;
  } catch {
    return false;
  }
}

/** A log with the given form. */
export function makeLog(options: LogOptions): Log {
  const least = logLevels.indexOf(options.level);
  const write = options.write ?? ((line: string) => process.stderr.write(`${line}\n`));
  const now = options.now ?? (() => new Date());
  const journal = options.journal ?? (options.write === undefined && isJournal());
  return (level, text, given = {}) => {
    if (logLevels.indexOf(level) < least) return;
    const requestId = currentRequestId();
    const fields = requestId === undefined ? given : { requestId, ...given };
    const priority = journal ? `<${priorities[level]}>` : "";
    const at = now().toISOString();
    const line =
      options.format === "json"
        ? jsonText({ at, level, text, ...fields })
        : textLine(journal ? level.padEnd(5) : `${at} ${level.padEnd(5)}`, text, fields);
    write(priority + withoutSecrets(line));
  };
}

/** A log whose entries all carry these values too. */
export function logWith(log: Log, fields: Fields): Log {
  return (level, text, more = {}) => log(level, text, { ...fields, ...more });
}
