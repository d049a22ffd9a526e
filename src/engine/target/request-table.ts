/**
 * What the target knows of the requests of one reactor beside `IoTable`: their state, the queue they
 * belong to, and the command words of those that are not plain reads or writes.
 */

/**
 * Where a request of the target is. Requests that a synchronous device ends at once stay at NONE.
 *
 * ```
 * NONE -> AWAITS_DATA -> EXECUTES -> ENDED -> NONE        (R2T sent, data in, device done, answered)
 * NONE -> EXECUTES -> ENDED -> NONE                       (no data, or data in the capsule)
 * AWAITS_DATA -> DISCARDS_DATA -> NONE                    (aborted; the host may still send)
 * EXECUTES -> FENCED -> ENDED                             (somebody waits for its end)
 * EXECUTES -> RESERVES -> ENDED                           (in line for the reservations)
 * ```
 */
export const RequestState = {
  NONE: 0,
  AWAITS_DATA: 1,
  DISCARDS_DATA: 2,
  EXECUTES: 3,
  FENCED: 4,
  RESERVES: 5,
  ENDED: 6,
} as const;

const WORDS = 8;

export class RequestTable {
  readonly state: Uint8Array;
  /** Number of the queue that a request belongs to; 0: none. */
  readonly queueOf: Int32Array;
  /** 1 when some data PDU of the transfer had a wrong digest. */
  readonly damaged: Uint8Array;
  readonly #words: Uint32Array;
  #lastQueue = 0;

  constructor(slots: number) {
    this.state = new Uint8Array(slots);
    this.queueOf = new Int32Array(slots);
    this.damaged = new Uint8Array(slots);
    this.#words = new Uint32Array(slots * WORDS);
  }

  /** A number for a new queue, never 0. */
  nextQueue(): number {
    this.#lastQueue = (this.#lastQueue % 0x7fffffff) + 1;
    return this.#lastQueue;
  }

  /** Keeps opcode, namespace id and command dwords 10 to 15 of the entry at word `w`. */
  keep(slot: number, u32: Uint32Array, w: number): void {
    const to = slot * WORDS;
    this.#words[to] = u32[w]! & 0xff;
    this.#words[to + 1] = u32[w + 1]!;
    for (let i = 0; i < 6; i++) this.#words[to + 2 + i] = u32[w + 10 + i]!;
  }

  opcode(slot: number): number {
    return this.#words[slot * WORDS]!;
  }

  namespaceId(slot: number): number {
    return this.#words[slot * WORDS + 1]!;
  }

  /** Command dword 10 .. 15. */
  dword(slot: number, number: 10 | 11 | 12 | 13 | 14 | 15): number {
    return this.#words[slot * WORDS + number - 8]!;
  }
}
