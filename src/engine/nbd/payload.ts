/** Moves the payload of writes from a connection to where it belongs, or drops it. */
import { copyMemory } from "../../../ffi/index.ts";
import { assert } from "../../assert.ts";
import type { Arena } from "../reactor/arena.ts";
import type { TcpStream } from "../reactor/tcp-stream.ts";
import { RECEIVE_INTO_BYTES_MIN } from "./limits.ts";

const NONE = -1;

export class PayloadReceiver {
  /** The write whose payload is being received, or -1. */
  slot = NONE;
  readonly #stream: TcpStream;
  readonly #arena: Arena;
  /** Where the next byte goes, and how many are still to come. */
  #at = 0;
  #left = 0;
  /** Bytes to be dropped before anything else. */
  #skip = 0;

  constructor(stream: TcpStream, arena: Arena) {
    this.#stream = stream;
    this.#arena = arena;
  }

  /** The next `length` bytes belong to `slot` and go to arena offset `at`. */
  begin(slot: number, at: number, length: number): void {
    assert(this.slot === NONE && this.#skip === 0, "one payload is received at a time");
    this.slot = slot;
    this.#at = at;
    this.#left = length;
  }

  /** The next `length` bytes are of no use. */
  drop(length: number): void {
    assert(this.slot === NONE && this.#skip === 0, "one payload is received at a time");
    this.#skip = length;
  }

  /** Takes what has been received. False while more of the payload must come first. */
  take(): boolean {
    const stream = this.#stream;
    if (this.#skip > 0) {
      const n = Math.min(this.#skip, stream.end - stream.pos);
      stream.pos += n;
      this.#skip -= n;
      return this.#skip === 0;
    }
    if (this.slot === NONE) return true;
    const n = Math.min(this.#left, stream.end - stream.pos);
    if (n > 0) {
      const { address } = this.#arena;
      copyMemory(address + this.#at, address + stream.pos, n);
      stream.pos += n;
      this.#at += n;
      this.#left -= n;
    }
    if (this.#left >= RECEIVE_INTO_BYTES_MIN) stream.receiveInto(this.#at, this.#left);
    return this.#left === 0;
  }

  /** What `take` had the stream receive in place has come. */
  receivedInto(): void {
    this.#left = 0;
  }

  /** Returns the write whose payload is complete, or will not come any more, and forgets it. */
  end(): number {
    const { slot } = this;
    this.slot = NONE;
    return slot;
  }
}
