/**
 * Tables as plain text: columns as wide as their widest cell on a terminal, two spaces between
 * them, headings as given, nothing after the last cell. What is absent shows as `<none>`.
 */
import { type Paint, plainPaint, type Tone } from "./color.ts";

export const NONE = "<none>";

/** A cell: text, or text with a tone (which shows on a terminal only). Absent: `<none>`. */
export type Cell =
  | string
  | number
  | boolean
  | null
  | undefined
  | { readonly text: string; readonly tone: Tone };

function textOf(cell: Cell): string {
  if (cell === null || cell === undefined || cell === "") return NONE;
  return typeof cell === "object" ? cell.text : String(cell);
}

/** Keeps a cell on one line and free of what would steer a terminal. */
function harmless(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is to be taken out
  return text.replace(/[\u0000-\u001f\u007f-\u009f]+/g, " ");
}

/** The table's lines, without one at the end. */
export function renderTable(
  headings: readonly string[],
  rows: readonly (readonly Cell[])[],
  paint: Paint = plainPaint,
): string {
  const texts = [headings, ...rows.map((row) => row.map(textOf))].map((row) => row.map(harmless));
  const widths = headings.map((_heading, column) =>
    texts.reduce((widest, row) => Math.max(widest, Bun.stringWidth(row[column] ?? "")), 0),
  );
  return texts
    .map((row, index) => {
      const cells = index === 0 ? [] : rows[index - 1]!;
      return row
        .map((text, column) => {
          const cell = cells[column];
          const tone = typeof cell === "object" && cell !== null ? cell.tone : undefined;
          const shown = tone === undefined ? text : paint(tone, text);
          const gap = " ".repeat(Math.max(0, widths[column]! - Bun.stringWidth(text)));
          return column === row.length - 1 ? shown : shown + gap;
        })
        .join("  ")
        .trimEnd();
    })
    .join("\n");
}

/**
 * First cell of row `index` of the `count` rows that belong to one thing: its id, then branches.
 */
export function treeCell(id: string, index: number, count: number): string {
  if (index === 0) return id;
  return index === count - 1 ? "└─" : "├─";
}
