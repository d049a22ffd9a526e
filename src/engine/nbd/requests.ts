/** What is known of a request under way beyond the request table's own fields, and how it ends. */
import { IoStatus } from "../../errors.ts";
import { IoOp } from "../reactor/io-table.ts";
import { NbdError } from "./protocol.ts";

/** Bits of a request's `tagC`. The two lowest say how its data is held. */
export const Tag = {
  /** In an arena buffer that belongs to the request. */
  OWN: 1,
  /** In the send chunk, behind its head; the device is synchronous. */
  IN_CHUNK: 2,
  /** In the receive buffer; the device is synchronous. */
  IN_RECEIVE: 3,
  DATA_MASK: 3,
  /** Success is answered with data. */
  READ: 4,
  /** The device is flushed before the request is answered. */
  FLUSH_AFTER: 8,
  /** Part of the split request. */
  PIECE: 16,
} as const;

/** What is noted of every request by its slot. One per reactor. */
export class RequestNotes {
  /** Slots promised for the request; what a device needs may change while it is under way. */
  readonly promised: Int32Array;
  readonly #offsets: Int32Array;

  constructor(slots: number) {
    this.promised = new Int32Array(slots);
    this.#offsets = new Int32Array(slots * 2);
  }

  /**
   * Keeps the offset as it came, two words in the order of the wire: structured replies repeat it,
   * while the table's own is rewritten by layers that map addresses.
   */
  keepOffset(slot: number, high: number, low: number): void {
    this.#offsets[slot * 2] = high;
    this.#offsets[slot * 2 + 1] = low;
  }

  /** Writes the offset kept for `slot` to word index `w`. */
  putOffset(slot: number, words: Int32Array, w: number): void {
    words[w] = this.#offsets[slot * 2]!;
    words[w + 1] = this.#offsets[slot * 2 + 1]!;
  }
}

/** Errors that clients are told, by I/O status; what is not named is EIO. */
const errorOfStatus: readonly number[] = (() => {
  const errors: number[] = [];
  errors[IoStatus.OK] = NbdError.OK;
  errors[IoStatus.NO_SPACE] = NbdError.ENOSPC;
  errors[IoStatus.OUT_OF_RANGE] = NbdError.EINVAL;
  errors[IoStatus.INVALID] = NbdError.EINVAL;
  // Clients take ENOTSUP as "not faster than writing" and nothing else.
  errors[IoStatus.UNSUPPORTED] = NbdError.EINVAL;
  errors[IoStatus.RESERVATION_CONFLICT] = NbdError.EPERM;
  errors[IoStatus.SUPERSEDED] = NbdError.ESHUTDOWN;
  return errors;
})();

/** What a client is told of a request of kind `op` that ended with `status`. */
export function nbdErrorOf(op: number, status: number): number {
  // A trim is a hint; a device that cannot take it has done what was asked.
  if (status === IoStatus.UNSUPPORTED && op === IoOp.DISCARD) return NbdError.OK;
  return errorOfStatus[status] ?? NbdError.EIO;
}
