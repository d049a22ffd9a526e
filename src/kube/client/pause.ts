/** How long to wait before the next attempt. Pure. */
import { PAUSE_MAX_MS, PAUSE_MIN_MS } from "./limits.ts";

/**
 * Milliseconds before attempt `failures` + 1: doubling from one to the next up to a limit, and of
 * that between a half and all, so that many clients do not come back together. `random` is in 0..1.
 */
export function pauseMs(failures: number, random: number): number {
  const full = Math.min(PAUSE_MAX_MS, PAUSE_MIN_MS * 2 ** Math.min(failures, 20));
  return Math.round(full / 2 + (full / 2) * random);
}
