/**
 * What the blocks of a volume may hold. Writes to one block follow each other (a host never has two under
 * way to the same block); each is numbered, and a block's bytes say which write made them. A read may return
 * the last write that was acknowledged when it was begun, or any later one; nothing older, and nothing of
 * another block or volume.
 *
 * A power cut of every machine at once may take acknowledged writes that no flush has covered: then any write
 * from the last flushed one on may be found, and what is found first stays.
 */
export const BLOCK_BYTES = 512;
const MAGIC = 0x51ab1e00;
const WORDS = BLOCK_BYTES / 4;

/** Writes to a block, oldest first. Number 0 is a block of zeroes. */
interface Block {
  readonly history: { readonly number: number; readonly isZero: boolean }[];
  /** Index of the last acknowledged one, and of the last that a flush has covered. */
  acknowledged: number;
  durable: number;
  isWriting: boolean;
  /** A power cut may have taken writes: what is found first stays. */
  isUnsure: boolean;
}

/** A read or write that was begun. */
export interface Begun {
  readonly first: number;
  readonly count: number;
  /** For a read: the index that each block must at least show. */
  readonly least: readonly number[];
  /** Power cuts so far. */
  readonly cuts: number;
}

export class VolumeChecker {
  readonly #volume: number;
  readonly #blocks = new Map<number, Block>();
  #number = 0;
  #cuts = 0;
  writes = 0;
  reads = 0;

  constructor(volume: number) {
    this.#volume = volume;
  }

  #block(index: number): Block {
    let block = this.#blocks.get(index);
    if (block === undefined) {
      const history = [{ number: 0, isZero: true }];
      block = { history, acknowledged: 0, durable: 0, isWriting: false, isUnsure: false };
      this.#blocks.set(index, block);
    }
    return block;
  }

  isWriting(first: number, count: number): boolean {
    for (let i = first; i < first + count; i++) if (this.#block(i).isWriting) return true;
    return false;
  }

  /** Begins a write; what it writes. */
  beginWrite(first: number, count: number, isZero: boolean): { begun: Begun; data: Uint8Array } {
    const number = ++this.#number;
    const data = new Uint8Array(count * BLOCK_BYTES);
    const words = new Uint32Array(data.buffer);
    for (let i = 0; i < count; i++) {
      const block = this.#block(first + i);
      block.isWriting = true;
      block.history.push({ number, isZero });
      if (isZero) continue;
      for (let w = 0; w < WORDS; w++) words[i * WORDS + w] = this.#word(first + i, number, w);
    }
    return { begun: { first, count, least: [], cuts: this.#cuts }, data };
  }

  #word(block: number, number: number, w: number): number {
    const values = [MAGIC + this.#volume, block, number, Math.imul(number, 0x9e3779b1) + w];
    return values[w & 3]! >>> 0;
  }

  endWrite({ first, count }: Begun, isDurable: boolean): void {
    this.writes++;
    for (let i = first; i < first + count; i++) {
      const block = this.#block(i);
      block.isWriting = false;
      block.acknowledged = block.history.length - 1;
      block.isUnsure = false;
      if (isDurable) block.durable = block.acknowledged;
    }
  }

  /**
   * What a flush that begins now will have covered; to be called when it has ended. One that a host sends
   * again after a power cut cannot bring back what was lost before it came: it covers nothing here.
   */
  beginFlush(): () => void {
    const covered = [...this.#blocks.values()].map((block) => [block, block.acknowledged] as const);
    const cuts = this.#cuts;
    return () => {
      if (cuts !== this.#cuts) return;
      for (const [block, index] of covered) block.durable = Math.max(block.durable, index);
    };
  }

  beginRead(first: number, count: number): Begun {
    const least = Array.from({ length: count }, (_, i) => this.#block(first + i).acknowledged);
    return { first, count, least, cuts: this.#cuts };
  }

  /** Null, or what is wrong with what was read. */
  endRead({ first, least, cuts }: Begun, data: Uint8Array): string | null {
    this.reads++;
    const words = new Uint32Array(data.buffer, data.byteOffset, data.byteLength / 4);
    for (const [i, index] of least.entries()) {
      const found = words.subarray(i * WORDS, (i + 1) * WORDS);
      const wrong = this.#wrong(first + i, index, found);
      if (wrong !== null) return wrong;
      if (cuts === this.#cuts) this.#found(this.#block(first + i), found);
    }
    return null;
  }

  #wrong(index: number, least: number, words: Uint32Array): string | null {
    const { history } = this.#block(index);
    const allowed = history.slice(Math.min(least, this.#block(index).acknowledged));
    const isZero = words.every((word) => word === 0);
    const name = `volume ${this.#volume}, block ${index}`;
    const expected = allowed.map((one) => (one.isZero ? "zeroes" : `write ${one.number}`));
    if (isZero) {
      if (allowed.some((one) => one.isZero)) return null;
      return `${name}: reads as zeroes instead of ${expected.join(" or ")}`;
    }
    const [magic, block, number] = [words[0]!, words[1]!, words[2]!];
    const isOurs =
      magic === MAGIC + this.#volume &&
      block === index &&
      words.every((word, w) => word === this.#word(index, number, w));
    if (!isOurs)
      return `${name}: holds foreign or torn bytes (${magic.toString(16)}, ${block}, ${number})`;
    if (allowed.some((one) => one.number === number && !one.isZero)) return null;
    const isOld = history.some((one) => one.number === number);
    return `${name}: holds ${isOld ? "older" : "unknown"} write ${number} instead of ${expected.join(" or ")}`;
  }

  /** Every machine has lost power: what no flush has covered may be lost. */
  powerCut(): void {
    this.#cuts++;
    for (const block of this.#blocks.values()) {
      block.isUnsure = block.acknowledged > block.durable;
      block.acknowledged = block.durable;
    }
  }

  /** What is found first after a power cut is what the block holds from then on. */
  #found(block: Block, words: Uint32Array): void {
    if (!block.isUnsure || block.isWriting) return;
    const number = words.every((word) => word === 0) ? null : words[2]!;
    const index = block.history.findLastIndex(
      (one, at) => at >= block.durable && (number === null ? one.isZero : one.number === number),
    );
    block.history.length = index + 1;
    block.acknowledged = index;
    block.isUnsure = false;
  }

  /** Blocks that were ever written. */
  written(): number[] {
    return [...this.#blocks.keys()].sort((a, b) => a - b);
  }
}
