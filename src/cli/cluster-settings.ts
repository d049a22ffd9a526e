/**
 * The cluster's settings as people write them: `nodeDeadlineMs` is `node-deadline`, with a duration
 * for its value. Which there are the API says.
 */

import type { Settings } from "../client/types.ts";
import { TrilithError } from "../errors.ts";
import { humanDuration, parseDuration } from "./output/size.ts";

/** `node-deadline` of `nodeDeadlineMs`. */
export function settingName(key: string): string {
  return key.replace(/Ms$/, "").replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** A value as text that `settingValue` reads again. */
export function settingText(key: string, value: Settings[string]): string {
  if (value === null) return "none";
  if (typeof value !== "number" || !key.endsWith("Ms")) return String(value);
  const text = humanDuration(value);
  return parseDuration(text) === value ? text : `${value}ms`;
}

/** The key that a name stands for. Throws `NotFound`. */
function keyOf(settings: Settings, name: string): string {
  const found = Object.keys(settings).find((key) => key === name || settingName(key) === name);
  if (found !== undefined) return found;
  throw new TrilithError(
    "NotFound",
    `there is no setting "${name}"`,
    `there are: ${Object.keys(settings).map(settingName).sort().join(", ")}`,
  );
}

/** What to send for a setting and the text of its value. `none` and `default` give it up. */
export function settingChange(settings: Settings, name: string, text: string): Settings {
  const key = keyOf(settings, name);
  if (text === "none" || text === "default") return { [key]: null };
  const wrong = (wanted: string) =>
    new TrilithError(
      "InvalidArgument",
      `${name} cannot be "${text}"`,
      `give ${wanted}, or default`,
    );
  if (typeof settings[key] === "boolean") {
    if (text !== "true" && text !== "false") throw wrong("true or false");
    return { [key]: text === "true" };
  }
  if (key.endsWith("Ms")) {
    const ms = parseDuration(text);
    if (ms === undefined) throw wrong("a duration such as 10s");
    return { [key]: ms };
  }
  if (key.endsWith("Window")) return { [key]: text };
  if (!/^\d{1,15}$/.test(text)) throw wrong("a whole number");
  return { [key]: Number(text) };
}
