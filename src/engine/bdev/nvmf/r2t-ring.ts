/** R2Ts that were received and not answered in full, in their order. Capacity is fixed. */
import { assert } from "../../../assert.ts";

export class R2tRing {
  count = 0;
  readonly #capacity: number;
  readonly #command: Int32Array;
  readonly #offset: Int32Array;
  readonly #length: Int32Array;
  readonly #done: Int32Array;
  #head = 0;

  constructor(capacity: number) {
    this.#capacity = capacity;
    this.#command = new Int32Array(capacity);
    this.#offset = new Int32Array(capacity);
    this.#length = new Int32Array(capacity);
    this.#done = new Int32Array(capacity);
  }

  /** `command` is word 2 of the R2T: command id below, transfer tag above. */
  push(command: number, offset: number, length: number): void {
    assert(this.count < this.#capacity, "R2Ts are bounded per command, so the ring has room");
    const at = (this.#head + this.count++) % this.#capacity;
    this.#command[at] = command;
    this.#offset[at] = offset;
    this.#length[at] = length;
    this.#done[at] = 0;
  }

  /** Word 2 of the first R2T. */
  get command(): number {
    return this.#command[this.#head]!;
  }

  /** Offset in the command's data of the next byte to be sent. */
  get offset(): number {
    return this.#offset[this.#head]! + this.#done[this.#head]!;
  }

  /** Bytes of the first R2T that are still to be sent. */
  get left(): number {
    return this.#length[this.#head]! - this.#done[this.#head]!;
  }

  /** Counts `bytes` of the first R2T as sent. */
  advance(bytes: number): void {
    this.#done[this.#head] = this.#done[this.#head]! + bytes;
  }

  /** Drops the first R2T. */
  shift(): void {
    assert(this.count > 0, "a ring that is shifted holds something");
    this.#head = (this.#head + 1) % this.#capacity;
    this.count--;
  }
}
