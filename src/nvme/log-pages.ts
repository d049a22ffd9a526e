/** Log pages as a controller returns them (Base 2.0, 5.16.1). Pure. */

/** Bytes of one entry of the error log. */
export const ERROR_ENTRY_BYTES = 64;
/** Bytes of the header of an ANA log page, and of each group descriptor. */
export const ANA_HEADER_BYTES = 16;
export const ANA_GROUP_BYTES = 32;
/** Parameter error location that means "not known" (figure 205). */
export const ERROR_LOCATION_UNKNOWN = 0xffff;

function page(byteLength: number): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(byteLength);
  return { bytes, view: new DataView(bytes.buffer) };
}

/** Supported Log Pages (LID 00h, 5.16.1.1): 256 entries of four bytes. */
export function encodeSupportedLogPages(supported: readonly number[]): Uint8Array {
  const { bytes, view } = page(1024);
  for (const id of supported) view.setUint32(id * 4, 1, true);
  return bytes;
}

/** A command that failed, as the error log tells it (LID 01h, 5.16.1.2, figure 205). */
export interface ErrorEntry {
  /** Number of this error since the controller began, from 1. */
  readonly count: number;
  readonly queueId: number;
  readonly commandId: number;
  /** SCT << 8 | SC, with Do Not Retry. */
  readonly status: number;
  /** Byte (bits 7:0) and bit (10:8) of the faulty parameter, or `ERROR_LOCATION_UNKNOWN`. */
  readonly location: number;
  readonly lba: number;
  readonly namespaceId: number;
  /** Dword 0 of the completion. */
  readonly result: number;
}

const TRANSPORT_TCP = 3;

/** Writes an error log entry, 64 bytes, at byte `at`. */
export function putErrorEntry(view: DataView, at: number, entry: ErrorEntry): void {
  view.setUint32(at, entry.count >>> 0, true);
  view.setUint32(at + 4, Math.floor(entry.count / 2 ** 32), true);
  view.setUint16(at + 8, entry.queueId, true);
  view.setUint16(at + 10, entry.commandId, true);
  view.setUint16(at + 12, (entry.status << 1) & 0xfffe, true); // The phase tag is not used.
  view.setUint16(at + 14, entry.location, true);
  view.setUint32(at + 16, entry.lba >>> 0, true);
  view.setUint32(at + 20, Math.floor(entry.lba / 2 ** 32), true);
  view.setUint32(at + 24, entry.namespaceId, true);
  view.setUint8(at + 28, 0);
  view.setUint8(at + 29, TRANSPORT_TCP);
  view.setUint16(at + 30, 0, true);
  view.setUint32(at + 32, entry.result, true);
  for (let i = at + 36; i < at + ERROR_ENTRY_BYTES; i += 4) view.setUint32(i, 0, true);
}

/** What the SMART / Health log tells (LID 02h, 5.16.1.3). */
export interface Health {
  /** Kelvin. */
  readonly temperature: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
  readonly readCommands: number;
  readonly writeCommands: number;
  readonly powerOnHours: number;
  readonly mediaErrors: number;
  readonly errorEntries: number;
}

/** SMART / Health Information, 512 bytes. Data units are thousands of 512 bytes, rounded up. */
export function encodeHealth(health: Health): Uint8Array {
  const { bytes, view } = page(512);
  const put = (at: number, value: number): void => {
    view.setBigUint64(at, BigInt(Math.floor(value)), true);
  };
  const units = (byteLength: number): number => Math.ceil(byteLength / 512_000);
  view.setUint16(1, health.temperature, true);
  bytes[3] = 100; // available spare, percent
  bytes[4] = 10; // its threshold
  put(32, units(health.bytesRead));
  put(48, units(health.bytesWritten));
  put(64, health.readCommands);
  put(80, health.writeCommands);
  put(112, 1); // power cycles
  put(128, health.powerOnHours);
  put(160, health.mediaErrors);
  put(176, health.errorEntries);
  return bytes;
}

/** Firmware Slot Information (LID 03h, 5.16.1.4): one slot, active. */
export function encodeFirmwareSlots(revision: string): Uint8Array {
  const { bytes } = page(512);
  bytes[0] = 1;
  bytes.fill(0x20, 8, 16);
  bytes.set(new TextEncoder().encode(revision).subarray(0, 8), 8);
  return bytes;
}

/** Changed Namespace List (LID 04h, 5.16.1.5): at most 1,024 ids, ascending. */
export function encodeChangedNamespaces(ids: readonly number[]): Uint8Array {
  const { bytes, view } = page(4096);
  ids.slice(0, 1024).forEach((id, i) => {
    view.setUint32(i * 4, id, true);
  });
  return bytes;
}

/** A supported command, and whether it may change the data of logical blocks. */
export interface CommandEffect {
  readonly opcode: number;
  readonly changesBlocks: boolean;
}

/** Commands Supported and Effects (LID 05h, 5.16.1.6): admin commands, then I/O commands. */
export function encodeCommandEffects(
  admin: readonly CommandEffect[],
  io: readonly CommandEffect[],
): Uint8Array {
  const { bytes, view } = page(4096);
  const SUPPORTED = 1;
  const CONTENT_CHANGE = 2;
  const put = (base: number, effect: CommandEffect): void => {
    const bits = SUPPORTED | (effect.changesBlocks ? CONTENT_CHANGE : 0);
    view.setUint32(base + effect.opcode * 4, bits, true);
  };
  for (const effect of admin) put(0, effect);
  for (const effect of io) put(1024, effect);
  return bytes;
}

/** An ANA group and the namespaces attached to the controller that belong to it. */
export interface AnaGroup {
  readonly id: number;
  readonly state: number;
  readonly changeCount: number;
  readonly namespaces: readonly number[];
}

/**
 * Asymmetric Namespace Access (LID 0Ch, 5.16.1.13). With `groupsOnly` (RGO) the descriptors carry
 * no namespace ids.
 */
export function encodeAnaLog(
  changeCount: number,
  groups: readonly AnaGroup[],
  groupsOnly: boolean,
): Uint8Array {
  const idsOf = (group: AnaGroup): readonly number[] => (groupsOnly ? [] : group.namespaces);
  const length = groups.reduce(
    (sum, group) => sum + ANA_GROUP_BYTES + idsOf(group).length * 4,
    ANA_HEADER_BYTES,
  );
  const { bytes, view } = page(length);
  view.setBigUint64(0, BigInt(changeCount), true);
  view.setUint16(8, groups.length, true);
  let at = ANA_HEADER_BYTES;
  for (const group of groups) {
    const ids = idsOf(group);
    view.setUint32(at, group.id, true);
    view.setUint32(at + 4, ids.length, true);
    view.setBigUint64(at + 8, BigInt(group.changeCount), true);
    view.setUint8(at + 16, group.state);
    at += ANA_GROUP_BYTES;
    for (const id of ids) {
      view.setUint32(at, id, true);
      at += 4;
    }
  }
  return bytes;
}

/** Types of reservation notifications (figure 255). */
export const ReservationNotice = {
  EMPTY: 0,
  REGISTRATION_PREEMPTED: 1,
  RESERVATION_RELEASED: 2,
  RESERVATION_PREEMPTED: 3,
} as const;

/** Reservation Notification (LID 80h, 5.16.1.20), 64 bytes. `further` pages are left behind it. */
export function encodeReservationNotification(
  count: number,
  type: number,
  further: number,
  namespaceId: number,
): Uint8Array {
  const { bytes, view } = page(64);
  view.setBigUint64(0, BigInt(count), true);
  bytes[8] = type;
  bytes[9] = Math.min(255, further);
  view.setUint32(12, namespaceId, true);
  return bytes;
}
