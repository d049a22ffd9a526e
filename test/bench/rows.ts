/** Rows of the result: medians, ratios of pairs, and the table they are shown in. */

/** One line of the result. `theirs` and `ratio` are null where nothing is compared. */
export interface Row {
  readonly case: string;
  readonly peer: string | null;
  readonly ours: number;
  readonly theirs: number | null;
  /** Ours to theirs: the median over the pairs. */
  readonly ratio: number | null;
  readonly unit: string;
  /** The ratios of the pairs, in the order in which they were measured. */
  readonly pairs: readonly number[];
  /** What the ratio, or `ours` where there is none, is meant to reach; null: no aim is set. */
  readonly aim: Aim | null;
  /** Round trip of a cache line between the two cores while the row was measured, in ns. */
  readonly coreToCoreNs: number | null;
}

/** A bound that a value is meant to keep. */
export interface Aim {
  readonly atLeast?: number;
  readonly atMost?: number;
}

export function median(values: readonly number[]): number {
  if (values.length === 0) throw new Error("median of nothing");
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** What a row says beside its values. */
export interface RowFrame {
  readonly case: string;
  readonly unit: string;
  readonly aim?: Aim;
  readonly coreToCoreNs?: number | null;
}

/** A row without a peer. */
export function plainRow(frame: RowFrame, ours: number): Row {
  return {
    case: frame.case,
    peer: null,
    ours,
    theirs: null,
    ratio: null,
    unit: frame.unit,
    pairs: [],
    aim: frame.aim ?? null,
    coreToCoreNs: frame.coreToCoreNs ?? null,
  };
}

/** A row from pairs of values: `ours[i]` and `theirs[i]` were measured one after the other. */
export function pairedRow(
  frame: RowFrame,
  peer: string,
  ours: readonly number[],
  theirs: readonly number[],
): Row {
  const ratios = ours.map((value, i) => value / theirs[i]!);
  return {
    ...plainRow(frame, median(ours)),
    peer,
    theirs: median(theirs),
    ratio: median(ratios),
    pairs: ratios,
  };
}

/** Three significant digits, thousands as k, millions as M. */
export function shortNumber(value: number): string {
  const size = Math.abs(value);
  if (size >= 999_500) return `${(value / 1e6).toFixed(size >= 9.995e6 ? 1 : 2)}M`;
  if (size >= 9_995) return `${(value / 1e3).toFixed(size >= 99_950 ? 0 : 1)}k`;
  if (size >= 100) return value.toFixed(0);
  if (size >= 10 || size === 0) return value.toFixed(1);
  return value.toFixed(size >= 1 ? 2 : 3);
}

function aimText({ aim }: Row): string {
  if (aim === null) return "";
  return aim.atLeast === undefined ? `<= ${aim.atMost}` : `>= ${aim.atLeast}`;
}

/** True when a row misses what it is meant to reach. */
export function missesAim({ aim, ratio, ours }: Row): boolean {
  if (aim === null) return false;
  const value = ratio ?? ours;
  return value < (aim.atLeast ?? -Infinity) || value > (aim.atMost ?? Infinity);
}

function cells(row: Row): string[] {
  const { ratio, pairs, coreToCoreNs } = row;
  const range = `${Math.min(...pairs).toFixed(2)}..${Math.max(...pairs).toFixed(2)}`;
  return [
    row.case,
    row.peer ?? "",
    shortNumber(row.ours),
    row.theirs === null ? "" : shortNumber(row.theirs),
    ratio === null ? "" : ratio.toFixed(2),
    pairs.length > 1 ? range : "",
    aimText(row) + (missesAim(row) ? " !" : ""),
    row.unit,
    coreToCoreNs === null ? "" : `${coreToCoreNs.toFixed(0)} ns`,
  ];
}

const HEAD = ["case", "peer", "ours", "theirs", "ratio", "pairs", "aim", "unit", "core to core"];
/** Columns of words; the others are of numbers. */
const LEFT = new Set([0, 1, 6, 7]);

/** The rows as a table. A row that misses its aim is marked with an exclamation mark. */
export function tableText(rows: readonly Row[]): string {
  const lines = [HEAD, ...rows.map(cells)];
  const widths = HEAD.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)));
  return lines
    .map((line) =>
      line
        .map((cell, i) => (LEFT.has(i) ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}
