/** Reservations of a namespace (Base 2.0, 8.19). */
import type { Controller } from "./controller.ts";
import type { IoQueue } from "./io-queue.ts";

/** How a command touches the namespace, as far as reservations care. */
export const ReservationAccess = { READ: 0, WRITE: 1 } as const;

export class Reservations {
  /** True while a host holds a reservation; only then `allows` needs to be asked. */
  held = false;
  readonly canPersist = false;

  allows(_controller: Controller, _access: number): boolean {
    return true;
  }
}

export function isReservation(_opcode: number): boolean {
  return false;
}

export function executeReservation(queue: IoQueue, slot: number): void {
  queue.finish(slot, 1, 0, 0);
}
