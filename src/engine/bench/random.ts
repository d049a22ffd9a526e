/** A small seeded generator of random numbers (xorshift, 32 bits), for loads that can be replayed. */
export class Random {
  #state: number;

  constructor(seed: number) {
    // A state of zero would stay zero; the multiplication spreads small seeds over all bits.
    this.#state = Math.imul(seed | 0, 0x9e3779b1) | 0 || 0x6d2b79f5;
    for (let i = 0; i < 8; i++) this.next();
  }

  /** An unsigned 32-bit number. */
  next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return x >>> 0;
  }

  /** A whole number from 0 to `bound` - 1; `bound` may be up to 2^53. */
  below(bound: number): number {
    if (bound <= 0x100000000) return Math.floor((this.next() / 0x100000000) * bound);
    const high = this.next() & 0x1fffff;
    return (high * 0x100000000 + this.next()) % bound;
  }
}
