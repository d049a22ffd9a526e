/** Requests over HTTP as fast as they are answered, by a number of clients, each one at a time. */

export interface HttpRates {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** The value below which `share` (0 to 1) of the values lie. */
export function quantile(values: readonly number[], share: number): number {
  if (values.length === 0) throw new Error("quantile of nothing");
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)]!;
}

/**
 * Runs `ask` (which rejects when a request fails) by `clients` clients for `seconds`. `ask` is given a
 * number that no other call has.
 */
export async function httpLoad(
  clients: number,
  seconds: number,
  ask: (n: number) => Promise<void>,
): Promise<HttpRates> {
  const tookMs: number[] = [];
  const startMs = performance.now();
  const untilMs = startMs + seconds * 1000;
  let next = 0;
  const client = async (): Promise<void> => {
    for (let nowMs = performance.now(); nowMs < untilMs; ) {
      await ask(next++);
      const endMs = performance.now();
      tookMs.push(endMs - nowMs);
      nowMs = endMs;
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
  const elapsed = (performance.now() - startMs) / 1000;
  return {
    perSecond: tookMs.length / elapsed,
    p50Ms: quantile(tookMs, 0.5),
    p99Ms: quantile(tookMs, 0.99),
  };
}
