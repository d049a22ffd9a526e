/**
 * Reservation commands and the reservation report as a controller sees them (Base 2.0, 7.2 to 7.5
 * and 8.19). Pure.
 */

/** Reservation types (figure 445). */
export const ReservationKind = {
  NONE: 0,
  WRITE_EXCLUSIVE: 1,
  EXCLUSIVE_ACCESS: 2,
  WRITE_EXCLUSIVE_REGISTRANTS: 3,
  EXCLUSIVE_ACCESS_REGISTRANTS: 4,
  WRITE_EXCLUSIVE_ALL: 5,
  EXCLUSIVE_ACCESS_ALL: 6,
} as const;

/** Actions of Reservation Register (RREGA), Acquire (RACQA) and Release (RRELA). */
export const RegisterAction = { REGISTER: 0, UNREGISTER: 1, REPLACE: 2 } as const;
export const AcquireAction = { ACQUIRE: 0, PREEMPT: 1, PREEMPT_AND_ABORT: 2 } as const;
export const ReleaseAction = { RELEASE: 0, CLEAR: 1 } as const;

/** Bytes of data that the commands need at least. */
export const REGISTER_DATA_BYTES = 16;
export const ACQUIRE_DATA_BYTES = 16;
export const RELEASE_DATA_BYTES = 8;

export interface RegisterCommand {
  readonly action: number;
  /** IEKEY: the current key is not compared. */
  readonly ignoresKey: boolean;
  /** CPTPL: new value of "persist through power loss"; undefined: as it is. "reserved": malformed. */
  readonly persist: boolean | undefined | "reserved";
  readonly currentKey: bigint;
  readonly newKey: bigint;
}

export interface AcquireCommand {
  readonly action: number;
  readonly ignoresKey: boolean;
  readonly type: number;
  readonly currentKey: bigint;
  readonly preemptKey: bigint;
}

export interface ReleaseCommand {
  readonly action: number;
  readonly ignoresKey: boolean;
  readonly type: number;
  readonly currentKey: bigint;
}

const IGNORE_KEY = 1 << 3;
const persistValues = [undefined, "reserved", false, true] as const;

function keyAt(data: Uint8Array, at: number): bigint {
  return new DataView(data.buffer, data.byteOffset).getBigUint64(at, true);
}

/** Reads Reservation Register; `data` has at least 16 bytes. */
export function decodeRegister(dword10: number, data: Uint8Array): RegisterCommand {
  return {
    action: dword10 & 7,
    ignoresKey: (dword10 & IGNORE_KEY) !== 0,
    persist: persistValues[dword10 >>> 30],
    currentKey: keyAt(data, 0),
    newKey: keyAt(data, 8),
  };
}

/** Reads Reservation Acquire; `data` has at least 16 bytes. */
export function decodeAcquire(dword10: number, data: Uint8Array): AcquireCommand {
  return {
    action: dword10 & 7,
    ignoresKey: (dword10 & IGNORE_KEY) !== 0,
    type: (dword10 >>> 8) & 0xff,
    currentKey: keyAt(data, 0),
    preemptKey: keyAt(data, 8),
  };
}

/** Reads Reservation Release; `data` has at least 8 bytes. */
export function decodeRelease(dword10: number, data: Uint8Array): ReleaseCommand {
  return {
    action: dword10 & 7,
    ignoresKey: (dword10 & IGNORE_KEY) !== 0,
    type: (dword10 >>> 8) & 0xff,
    currentKey: keyAt(data, 0),
  };
}

/** One registered controller of a report. */
export interface ReportedController {
  /** 0xffff: the host has no controller at present. */
  readonly controllerId: number;
  readonly holds: boolean;
  /** 32 hex digits. */
  readonly hostId: string;
  readonly key: bigint;
}

/** A report before it is encoded. */
export interface ReportedReservation {
  readonly generation: number;
  readonly type: number;
  readonly persistent: boolean;
  readonly controllers: readonly ReportedController[];
}

const HEADER_BYTES = 64;
const CONTROLLER_BYTES = 64;

/** Reservation Status with 128-bit host identifiers (figure 452). */
export function encodeReservationReport(report: ReportedReservation): Uint8Array {
  const { controllers } = report;
  const bytes = new Uint8Array(HEADER_BYTES + controllers.length * CONTROLLER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, report.generation, true);
  bytes[4] = report.type;
  view.setUint16(5, controllers.length, true);
  bytes[9] = report.persistent ? 1 : 0;
  controllers.forEach((controller, i) => {
    const at = HEADER_BYTES + i * CONTROLLER_BYTES;
    view.setUint16(at, controller.controllerId, true);
    bytes[at + 2] = controller.holds ? 1 : 0;
    view.setBigUint64(at + 8, controller.key, true);
    bytes.set(Buffer.from(controller.hostId, "hex"), at + 16);
  });
  return bytes;
}
