/** Reservations and vendor commands of a remote namespace, by promise on an I/O queue. */
import { TrilithError } from "../../../errors.ts";
import {
  type CommandWithData,
  type ReservationAcquire,
  type ReservationRegister,
  type ReservationRelease,
  reservationAcquireCommand,
  reservationRegisterCommand,
  reservationReleaseCommand,
  reservationReportCommand,
  transferDirection,
  vendorEntry,
} from "../../../nvme/host-commands.ts";
import {
  decodeReservationReport,
  type ReservationReport,
  reservationReportBytes,
  reservationReportCount,
} from "../../../nvme/identify-decode.ts";
import type { Completion } from "./control-commands.ts";
import type { Controller } from "./controller.ts";
import type { VendorCommand } from "./interface.ts";
import { CONTROL_BYTES_MAX, REGISTRANTS_MAX } from "./limits.ts";
import { nvmeError } from "./status.ts";

/** Registrants that a first report has room for; a longer one is asked for again. */
const REGISTRANTS_FIRST = 16;

async function reservation(
  controller: Controller,
  command: CommandWithData,
  what: string,
): Promise<void> {
  const { status } = await controller.ioCommand(command.sqe, { data: command.data });
  if (status !== 0) throw nvmeError(status, what);
}

export function reservationRegister(
  controller: Controller,
  nsid: number,
  name: string,
  r: ReservationRegister,
): Promise<void> {
  const what = `reservation ${r.action} on ${name}`;
  return reservation(controller, reservationRegisterCommand(nsid, r), what);
}

export function reservationAcquire(
  controller: Controller,
  nsid: number,
  name: string,
  r: ReservationAcquire,
): Promise<void> {
  const what = `reservation ${r.action} on ${name}`;
  return reservation(controller, reservationAcquireCommand(nsid, r), what);
}

export function reservationRelease(
  controller: Controller,
  nsid: number,
  name: string,
  r: ReservationRelease,
): Promise<void> {
  const what = `reservation ${r.action} on ${name}`;
  return reservation(controller, reservationReleaseCommand(nsid, r), what);
}

export async function reservationReport(
  controller: Controller,
  nsid: number,
  name: string,
): Promise<ReservationReport> {
  const read = async (registrants: number): Promise<Uint8Array> => {
    const receiveBytes = reservationReportBytes(registrants);
    const sqe = reservationReportCommand(nsid, receiveBytes);
    const { status, data } = await controller.ioCommand(sqe, { receiveBytes });
    if (status !== 0) throw nvmeError(status, `reservation report of ${name}`);
    return data;
  };
  const first = await read(REGISTRANTS_FIRST);
  const count = Math.min(reservationReportCount(first), REGISTRANTS_MAX);
  return decodeReservationReport(count > REGISTRANTS_FIRST ? await read(count) : first);
}

export async function vendorCommand(
  controller: Controller,
  nsid: number,
  name: string,
  command: VendorCommand,
): Promise<Completion> {
  const { opcode, dwords = [], dataOut, dataInBytes } = command;
  const direction = transferDirection(opcode);
  const bytes = dataOut?.byteLength ?? dataInBytes ?? 0;
  const fits =
    opcode >= 0x80 &&
    opcode <= 0xff &&
    (dataOut === undefined || (dataInBytes === undefined && direction === "host-to-controller")) &&
    (dataInBytes === undefined || direction === "controller-to-host");
  if (!fits || bytes > CONTROL_BYTES_MAX || bytes % 4 !== 0 || dwords.length > 6) {
    throw new TrilithError(
      "InvalidArgument",
      `vendor command 0x${opcode.toString(16)} to ${name}: its opcode, data or dwords are not valid`,
      "opcodes are 0x80 to 0xff; bits 1:0 give the direction; data is whole dwords up to 1 MiB",
    );
  }
  const sqe = vendorEntry(opcode, nsid, dwords);
  if (dataOut !== undefined && bytes > 0) return controller.ioCommand(sqe, { data: dataOut });
  if (bytes > 0) return controller.ioCommand(sqe, { receiveBytes: bytes });
  return controller.ioCommand(sqe);
}
