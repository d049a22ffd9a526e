/**
 * Seeded randomness for tests. A test takes its seed from `TRILITH_SEED` when set, else from the
 * clock, and prints the seed with the command that replays it when it fails (`withSeed`).
 */

/** Uniform random numbers from a 32-bit seed (the mulberry32 sequence). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 0 <= x < 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }

  /** An integer, 0 <= n < `end`. */
  below(end: number): number {
    return Math.floor(this.next() * end);
  }

  /** An integer, `from` <= n <= `to`. */
  between(from: number, to: number): number {
    return from + this.below(to - from + 1);
  }

  /** True with probability `p`. */
  chance(p: number): boolean {
    return this.next() < p;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!;
  }

  bytes(length: number): Uint8Array {
    const out = new Uint8Array(length);
    for (let i = 0; i < length; i++) out[i] = this.below(256);
    return out;
  }
}

/** The seed of this run: `TRILITH_SEED`, or one of its own. */
export function testSeed(): number {
  const given = process.env.TRILITH_SEED;
  return given !== undefined ? Number(given) >>> 0 : (Date.now() ^ (process.pid << 16)) >>> 0;
}

/**
 * Runs `body` with seeded randomness; when it throws, says how to replay it. `file` is
 * `import.meta.path` of the test.
 */
export function withSeed<T>(file: string, body: (random: Random, seed: number) => T): T {
  const seed = testSeed();
  const path = file.slice(file.indexOf("/test/") + 1);
  const tell = () => console.error(`replay: TRILITH_SEED=${seed} bun test ${path}`);
  try {
    const result = body(new Random(seed), seed);
    if (result instanceof Promise) result.catch(tell);
    return result;
  } catch (error) {
    tell();
    throw error;
  }
}
