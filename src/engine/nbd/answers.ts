/**
 * Answers to requests that have ended, given at once or, when there is no room, later and in the
 * order in which they ended. The error of a request is in `parent`, its cookie in `tagA` and `tagB`.
 */
import { copyMemory } from "../../../ffi/index.ts";
import { GATHER_BYTES_MAX } from "./limits.ts";
import { NbdError } from "./protocol.ts";
import { Tag } from "./requests.ts";
import type { Transmission } from "./transmission.ts";

const NONE = -1;

export class Answers {
  /** Requests that wait for room to be answered. */
  waiting = 0;
  readonly #owner: Transmission;
  #head = NONE;
  #tail = NONE;

  constructor(owner: Transmission) {
    this.#owner = owner;
  }

  /** Answers a request, unless it is to wait or there is no room: then it is kept, and false. */
  give(slot: number, mayAnswer: boolean): boolean {
    if (mayAnswer && this.#head === NONE && this.#answer(slot)) return true;
    const { io } = this.#owner;
    io.next[slot] = NONE;
    if (this.#head === NONE) this.#head = slot;
    else io.next[this.#tail] = slot;
    this.#tail = slot;
    this.waiting++;
    return false;
  }

  /** Answers what waits, oldest first. False when there is no room for all of it. */
  giveWaiting(): boolean {
    while (this.#head !== NONE) {
      const slot = this.#head;
      // Answering may end the connection, which drops what waits: the request is taken off first.
      this.#head = this.#owner.io.next[slot]!;
      this.waiting--;
      if (this.#answer(slot)) continue;
      this.#head = slot;
      this.waiting++;
      return false;
    }
    return true;
  }

  /** Gives back what waits; nobody is there to be answered. */
  drop(): void {
    let slot = this.#head;
    this.#head = NONE;
    this.waiting = 0;
    while (slot !== NONE) {
      const next = this.#owner.io.next[slot]!;
      this.#owner.release(slot);
      slot = next;
    }
  }

  /** Queues the answer of a request and releases it. False: no room, nothing was queued. */
  #answer(slot: number): boolean {
    const owner = this.#owner;
    const { io } = owner;
    const error = io.parent[slot]!;
    if ((io.tagC[slot]! & Tag.READ) === 0 || error !== NbdError.OK) {
      if (!owner.replies.status(io.tagA[slot]!, io.tagB[slot]!, error)) return false;
      owner.release(slot);
      return true;
    }
    return this.#answerWithData(slot);
  }

  #answerWithData(slot: number): boolean {
    const owner = this.#owner;
    const { io, stream, arena } = owner;
    const length = io.length[slot]!;
    const head = owner.replies.dataHeadBytes;
    if (length <= GATHER_BYTES_MAX) {
      const at = stream.reserve(head + length);
      if (at < 0) return false;
      this.dataHead(at, slot, length);
      copyMemory(arena.address + at + head, arena.address + io.buffer[slot]!, length);
      owner.release(slot);
      return true;
    }
    // There is room for both the head and the data, or for neither.
    if (!stream.sendRoom) return false;
    const at = stream.reserve(head);
    if (at < 0) return false;
    this.dataHead(at, slot, length);
    owner.sendBuffer(slot);
    return true;
  }

  /** Fills the head, at arena offset `at`, of the data that answers a request. */
  dataHead(at: number, slot: number, length: number): void {
    const { io, replies, notes, arena } = this.#owner;
    replies.dataHead(at, io.tagA[slot]!, io.tagB[slot]!, length, true);
    if (replies.structured) notes.putOffset(slot, arena.i32, replies.offsetWord(at));
  }
}
