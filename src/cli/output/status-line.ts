/** One line at the bottom of a terminal that says how far something is. Nothing when there is none. */
import type { CliContext } from "../context.ts";

export interface StatusLine {
  /** There is a terminal to show it on. */
  readonly shows: boolean;
  readonly set: (text: string) => void;
  readonly clear: () => void;
}

/** A status line on the context's terminal, if it has one and the line is `wanted`. */
export function statusLine(context: CliContext, wanted = true): StatusLine {
  const { terminal } = context;
  if (terminal === undefined || !wanted) {
    return { shows: false, set: () => {}, clear: () => {} };
  }
  let last = "";
  return {
    shows: true,
    set(text) {
      const cut =
        Bun.stringWidth(text) < terminal.columns ? text : text.slice(0, terminal.columns - 1);
      if (cut === last) return;
      last = cut;
      terminal.write(`\r\u001b[K${cut}`);
    },
    clear() {
      if (last !== "") terminal.write("\r\u001b[K");
      last = "";
    },
  };
}
