/**
 * Commands of one queue whose host data finds no room yet, oldest first. Only their 64 bytes are
 * kept, so that the connection can go on receiving: the data of commands before them comes behind
 * them in the same stream.
 */
import { assert } from "../../assert.ts";

const WORDS = 16;
const FIRST_CAPACITY = 16;
const CID_SHIFT = 16;

export class ParkedCommands {
  readonly #most: number;
  /** A ring of entries of 16 words; grows to what is needed, at most the queue's entries. */
  #ring = new Int32Array(0);
  #head = 0;
  #length = 0;

  constructor(most: number) {
    this.#most = most;
  }

  get length(): number {
    return this.#length;
  }

  /** Keeps the entry at word `w`. */
  push(words: Int32Array, w: number): void {
    assert(this.#length < this.#most, "a queue parks no more commands than it has entries");
    if (this.#length * WORDS === this.#ring.length) this.#grow();
    const at = this.#at(this.#length);
    for (let i = 0; i < WORDS; i++) this.#ring[at + i] = words[w + i]!;
    this.#length++;
  }

  /** Copies the oldest entry to word `w`. */
  peek(words: Int32Array, w: number): void {
    assert(this.#length > 0, "a command is parked");
    const at = this.#at(0);
    for (let i = 0; i < WORDS; i++) words[w + i] = this.#ring[at + i]!;
  }

  /** Takes the oldest entry out. */
  drop(): void {
    assert(this.#length > 0, "a command is parked");
    this.#head = (this.#head + WORDS) % this.#ring.length;
    this.#length--;
  }

  /** Puts the entry that `drop` took back to its place; none was pushed meanwhile. */
  putBack(): void {
    this.#head = (this.#head === 0 ? this.#ring.length : this.#head) - WORDS;
    this.#length++;
  }

  has(commandId: number): boolean {
    return this.commandIds().includes(commandId);
  }

  /** Ids of the parked commands, oldest first. */
  commandIds(): number[] {
    return Array.from({ length: this.#length }, (_, i) => this.#ring[this.#at(i)]! >>> CID_SHIFT);
  }

  /** Takes the command with this id out. False when it is not here. */
  remove(commandId: number): boolean {
    for (let i = 0; i < this.#length; i++) {
      if (this.#ring[this.#at(i)]! >>> CID_SHIFT !== commandId) continue;
      for (let j = i; j < this.#length - 1; j++) {
        const to = this.#at(j);
        const from = this.#at(j + 1);
        this.#ring.copyWithin(to, from, from + WORDS);
      }
      this.#length--;
      return true;
    }
    return false;
  }

  clear(): void {
    this.#length = 0;
  }

  /** First word of the entry `index` places behind the oldest. */
  #at(index: number): number {
    return (this.#head + index * WORDS) % this.#ring.length;
  }

  #grow(): void {
    const capacity = Math.min(this.#most, Math.max(FIRST_CAPACITY, this.#length * 2));
    const ring = new Int32Array(capacity * WORDS);
    for (let i = 0; i < this.#length; i++) {
      const at = this.#at(i);
      ring.set(this.#ring.subarray(at, at + WORDS), i * WORDS);
    }
    this.#ring = ring;
    this.#head = 0;
  }
}
