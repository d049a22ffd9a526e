/** Numbers as the demonstration shows them. Pure. */

/** `1.5 GiB` */
export function bytesText(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let i = 0;
  for (; value >= 1024 && i < units.length - 1; i++) value /= 1024;
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${units[i]}`;
}

/** `12,345` */
export function countText(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

/** `812 us`, `3.2 ms`, `1.24 s` */
export function timeText(ns: number): string {
  if (ns < 1e6) return `${(ns / 1e3).toFixed(0)} us`;
  if (ns < 1e9) return `${(ns / 1e6).toFixed(1)} ms`;
  return `${(ns / 1e9).toFixed(2)} s`;
}

/** Lines of two columns, the first as wide as its longest cell. */
export function table(rows: readonly (readonly [name: string, value: string])[]): string {
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `  ${name.padEnd(width)}   ${value}`).join("\n");
}
