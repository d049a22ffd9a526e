/** Verified writes that go on in a guest for as long as a test does something else. */
import { expect } from "bun:test";
import { LOAD_TIMEOUT_MS } from "./limits.ts";
import { type Guest, quote } from "./vm.ts";

/** What is written to while something happens. */
export interface Load {
  /** A device, or a folder of a mounted file system. */
  readonly target: string;
  /** Options of fio, see `verified_io` in guest/functions.sh. */
  readonly options?: string;
  /** How long it may last. Default: `LOAD_TIMEOUT_MS`. */
  readonly timeoutMs?: number;
}

/**
 * Writes new data and verifies it, round after round, while `during` runs. Fails when a round
 * fails, or when the load did not last until `during` was over. Returns how many rounds it took.
 */
export async function underLoad(
  guest: Guest,
  load: Load,
  during: () => Promise<void>,
): Promise<number> {
  // One per target, so that loads can go on at once.
  const stop = `/tmp/stop-${load.target.replaceAll("/", "-")}`;
  const rounds = guest.ok(
    `
    rm -f ${stop}
    verified_rounds ${stop} ${load.target} 4m ${load.options ?? ""}
  `,
    { timeoutMs: load.timeoutMs ?? LOAD_TIMEOUT_MS },
  );
  let ended = false;
  const noteEnd = () => {
    ended = true;
  };
  void rounds.then(noteEnd, noteEnd);
  await during();
  // How it failed says more than that it ended.
  if (ended) await rounds;
  expect(ended).toBe(false);
  await guest.ok(`touch ${stop}`);
  const count = Number(await rounds);
  expect(count).toBeGreaterThan(0);
  return count;
}

/** Waits until the paths to a subsystem through the given addresses have been written to anew. */
export async function moreWritten(
  guest: Guest,
  nqn: string,
  ...addresses: readonly string[]
): Promise<void> {
  await guest.ok(`more_written ${quote(nqn)} ${addresses.map(quote).join(" ")}`);
}
