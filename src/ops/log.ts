/**
 * The log of a process: one line per entry on standard error, as text for people or as JSON, from
 * `info` up unless said otherwise. systemd's journal adds time, unit and priority of its own.
 */

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
}

function plain(value: unknown): string {
  if (typeof value === "string") {
    return /^[\x21\x23-\x7e]+$/.test(value) ? value : JSON.stringify(value);
  }
  if (value instanceof Error) return JSON.stringify(value.stack ?? value.message);
  return JSON.stringify(value) ?? String(value);
}

/** `2026-01-31T12:00:00.000Z warn  connection refused limit=4096` */
function textLine(at: string, level: LogLevel, text: string, fields: Record<string, unknown>) {
  let line = `${at} ${level.padEnd(5)} ${text}`;
  for (const [name, value] of Object.entries(fields)) {
    if (value !== undefined) line += ` ${name}=${plain(value)}`;
  }
  return line;
}

function jsonLine(at: string, level: LogLevel, text: string, fields: Record<string, unknown>) {
  const plainFields = Object.entries(fields).map(([name, value]) => [
    name,
    value instanceof Error ? (value.stack ?? value.message) : value,
  ]);
  return JSON.stringify({ at, level, text, ...Object.fromEntries(plainFields) });
}

/** A log with the given form. */
export function makeLog(options: LogOptions): Log {
  const least = logLevels.indexOf(options.level);
  const write = options.write ?? ((line: string) => process.stderr.write(`${line}\n`));
  const now = options.now ?? (() => new Date());
  return (level, text, fields = {}) => {
    if (logLevels.indexOf(level) < least) return;
    const at = now().toISOString();
    write(
      options.format === "json"
        ? jsonLine(at, level, text, fields)
        : textLine(at, level, text, fields),
    );
  };
}
