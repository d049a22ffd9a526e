/** Work on the same thing one after the other: control operations of one name do not overlap. */
export class Serial {
  readonly #tails = new Map<string, Promise<unknown>>();

  /** Runs `work` when everything asked before under `key` has ended, however it ended. */
  async run<T>(key: string, work: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(key);
    const mine = before === undefined ? work() : before.then(work, work);
    this.#tails.set(key, mine);
    try {
      return await mine;
    } finally {
      if (this.#tails.get(key) === mine) this.#tails.delete(key);
    }
  }
}
