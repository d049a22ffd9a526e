/** Reservation notifications of one controller (Base 2.0, 5.16.1.20): a bounded queue of log pages. */
import { encodeReservationNotification, ReservationNotice } from "../../nvme/log-pages.ts";
import { RESERVATION_NOTICES_MAX } from "./limits.ts";
import { NAMESPACE_ID } from "./subsystem.ts";

export class ReservationNotices {
  /** Pages made since the controller began. */
  #count = 0;
  #types: number[] = [];

  /** Adds a page of one of the types of `ReservationNotice`; the oldest is dropped when full. */
  add(type: number): void {
    this.#count++;
    this.#types.push(type);
    if (this.#types.length > RESERVATION_NOTICES_MAX) this.#types.shift();
  }

  /** Pages not read yet. */
  get length(): number {
    return this.#types.length;
  }

  /** The oldest page, or an empty one. */
  encode(): Uint8Array {
    const left = this.#types.length;
    if (left === 0) return encodeReservationNotification(0, ReservationNotice.EMPTY, 0, 0);
    const number = this.#count - left + 1;
    return encodeReservationNotification(number, this.#types[0]!, left - 1, NAMESPACE_ID);
  }

  /** The oldest page was read. */
  drop(): void {
    this.#types.shift();
  }

  clear(): void {
    this.#types = [];
  }
}
