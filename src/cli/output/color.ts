/** Colour, for terminals only and never against the user's word (NO_COLOR). */

/** What a text is to say by its colour. */
export type Tone = "good" | "warn" | "bad" | "dim" | "bold";
/** Gives a text a tone. */
export type Paint = (tone: Tone, text: string) => string;

export const plainPaint: Paint = (_tone, text) => text;

const codes: Readonly<Record<Tone, string>> = {
  good: "32",
  warn: "33",
  bad: "31",
  dim: "2",
  bold: "1",
};

const ansiPaint: Paint = (tone, text) => `\u001b[${codes[tone]}m${text}\u001b[0m`;

/** Colours when the output is a terminal that can, and NO_COLOR is not set (no-color.org). */
export function paintFor(
  isTerminal: boolean,
  env: Readonly<Record<string, string | undefined>>,
): Paint {
  const refused = (env.NO_COLOR ?? "") !== "" || env.TERM === "dumb";
  const forced = (env.CLICOLOR_FORCE ?? "0") !== "0" && env.CLICOLOR_FORCE !== "";
  return !refused && (isTerminal || forced) ? ansiPaint : plainPaint;
}

const tones: Readonly<Record<string, Tone>> = {
  Online: "good",
  Completed: "good",
  Created: "good",
  Degraded: "warn",
  Creating: "warn",
  Deleting: "warn",
  Rebuilding: "warn",
  Unknown: "warn",
  Faulted: "bad",
  Offline: "bad",
  Failed: "bad",
};

/** A status as a cell in its colour. Composed ones (`Online, Cordoned`) go by their first word. */
export function statusCell(status: string | null | undefined) {
  if (status === null || status === undefined) return undefined;
  const [first, ...more] = status.split(", ");
  const tone = tones[first!];
  if (tone === undefined) return status;
  return { text: status, tone: more.length > 0 && tone === "good" ? ("warn" as const) : tone };
}
