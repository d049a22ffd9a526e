/** Times as the API shows them. */

/** RFC 3339, of milliseconds since 1970. */
export function timeText(ms: number): string {
  return new Date(ms).toISOString();
}
