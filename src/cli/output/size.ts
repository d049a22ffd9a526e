/** Sizes and durations as people write and read them. */
import { InvalidArgumentError } from "commander";
import { parseSize } from "../../kube/size.ts";

const binaryUnits = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/** `0 B`, `512 B`, `10.5GiB`: binary, one decimal, none when it is zero (mayastor.md 2). */
export function humanSize(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  let value = bytes;
  let unit = -1;
  do {
    value /= 1024;
    unit++;
  } while (roundedTenth(value) >= 1024 && unit < binaryUnits.length - 1);
  const rounded = roundedTenth(value);
  return `${Number.isInteger(rounded) ? rounded : rounded.toFixed(1)}${binaryUnits[unit]}`;
}

function roundedTenth(value: number): number {
  return Math.round(value * 10) / 10;
}

/** For options and arguments of commander. */
export function sizeArgument(text: string): number {
  const bytes = parseSize(text);
  if (bytes === undefined || bytes === 0) {
    throw new InvalidArgumentError(`"${text}" is no size; write it like 10GiB or 10737418240.`);
  }
  return bytes;
}

/** Milliseconds of `10s`, `1h30m`, `500ms`, `2 days`; seconds without a unit. */
export function parseDuration(text: string): number | undefined {
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000;
  const units: Readonly<Record<string, number>> = { ms: 1, s: 1e3, m: 60e3, h: 3600e3, d: 86400e3 };
  const part = /(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)[a-z]*\s*/gy;
  let total = 0;
  let end = 0;
  for (let match = part.exec(text); match !== null; match = part.exec(text)) {
    total += Number(match[1]) * units[match[2]!]!;
    end = part.lastIndex;
  }
  return end === text.length && text !== "" ? Math.round(total) : undefined;
}

/** For options and arguments of commander. */
export function durationArgument(text: string): number {
  const ms = parseDuration(text.trim());
  if (ms === undefined || ms <= 0) {
    throw new InvalidArgumentError(`"${text}" is no duration; write it like 10s, 5m or 1h30m.`);
  }
  return ms;
}

/** `850ms`, `12s`, `3m 20s`, `2h 5m`, `4d 1h`. */
export function humanDuration(ms: number): string {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))}ms`;
  const seconds = Math.round(ms / 1000);
  const steps: [name: string, seconds: number][] = [
    ["d", 86_400],
    ["h", 3_600],
    ["m", 60],
    ["s", 1],
  ];
  const first = steps.findIndex(([, length]) => seconds >= length);
  let rest = seconds;
  const parts: string[] = [];
  for (const [name, length] of steps.slice(first, first + 2)) {
    const count = Math.floor(rest / length);
    rest -= count * length;
    if (count > 0) parts.push(`${count}${name}`);
  }
  return parts.join(" ");
}
