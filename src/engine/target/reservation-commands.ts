/** The reservation commands of I/O queues (Base 2.0, 7.2 to 7.5). */
import { IoOpcode, STATUS_DNR, Status } from "../../nvme/constants.ts";
import {
  ACQUIRE_DATA_BYTES,
  decodeAcquire,
  decodeRegister,
  decodeRelease,
  encodeReservationReport,
  REGISTER_DATA_BYTES,
  RELEASE_DATA_BYTES,
  type ReportedController,
} from "../../nvme/reservations.ts";
import type { IoQueue } from "./io-queue.ts";
import { RequestState } from "./request-table.ts";
import {
  acquire,
  holds,
  type ReservationOutcome,
  type ReservationState,
  register,
  release,
} from "./reservation-state.ts";

const CONTROLLER_NONE = 0xffff;
const LENGTH_INVALID = Status.DATA_SGL_LENGTH_INVALID | STATUS_DNR;

/** Carries out a reservation command and finishes its request. */
export function executeReservation(queue: IoQueue, slot: number, opcode: number): void {
  // Reservations have rules of their own; no access is asked for here.
  const refusal = queue.accessRefusal(slot, 0);
  if (refusal !== 0) {
    queue.finish(slot, refusal, 0, 0);
    return;
  }
  if (opcode === IoOpcode.RESERVATION_REPORT) {
    report(queue, slot);
    return;
  }
  const change = changeOf(queue, slot, opcode);
  if (change === undefined) {
    queue.finish(slot, LENGTH_INVALID, 0, 0);
    return;
  }
  // In line, a request must not be taken for one that a device works on: what comes before it may
  // wait for those.
  queue.requests.state[slot] = RequestState.RESERVES;
  queue.namespace.reservations.run(change).then(
    (status) => queue.finish(slot, status, 0, 0),
    () => queue.finish(slot, Status.INTERNAL_ERROR, 0, 0),
  );
}

/** The change that a command asks for, or undefined when its data is too short. */
function changeOf(
  queue: IoQueue,
  slot: number,
  opcode: number,
): ((state: ReservationState) => ReservationOutcome) | undefined {
  const dword10 = queue.requests.dword(slot, 10);
  const data = queue.hostDataOf(slot);
  const { hostId } = queue.controller;
  const { canPersist } = queue.namespace.reservations;
  switch (opcode) {
    case IoOpcode.RESERVATION_REGISTER: {
      if (data.byteLength < REGISTER_DATA_BYTES) return undefined;
      const command = decodeRegister(dword10, data);
      return (state) => register(state, hostId, command, canPersist);
    }
    case IoOpcode.RESERVATION_ACQUIRE: {
      if (data.byteLength < ACQUIRE_DATA_BYTES) return undefined;
      const command = decodeAcquire(dword10, data);
      return (state) => acquire(state, hostId, command);
    }
    default: {
      if (data.byteLength < RELEASE_DATA_BYTES) return undefined;
      const command = decodeRelease(dword10, data);
      return (state) => release(state, hostId, command);
    }
  }
}

/** Reservation Report (7.4). Hosts have 128-bit identifiers, so EDS must be set. */
function report(queue: IoQueue, slot: number): void {
  const { requests, namespace, subsystem } = queue;
  const isExtended = (requests.dword(slot, 11) & 1) === 1;
  if (!isExtended) {
    queue.finish(slot, Status.HOST_ID_INCONSISTENT | STATUS_DNR, 0, 0);
    return;
  }
  const length = (requests.dword(slot, 10) + 1) * 4;
  if (queue.io.length[slot] !== length) {
    queue.finish(slot, LENGTH_INVALID, 0, 0);
    return;
  }
  const { state } = namespace.reservations;
  const controllers: ReportedController[] = [];
  for (const { hostId, key } of state.registrants) {
    const ids = [...subsystem.controllers.values()]
      .filter((controller) => controller.hostId === hostId)
      .map((controller) => controller.id);
    for (const controllerId of ids.length === 0 ? [CONTROLLER_NONE] : ids) {
      controllers.push({ controllerId, hostId, key, holds: holds(state, hostId) });
    }
  }
  const { generation, type, persistent } = state;
  const bytes = encodeReservationReport({ generation, type, persistent, controllers });
  queue.finishWithBytes(slot, bytes, 0);
}
