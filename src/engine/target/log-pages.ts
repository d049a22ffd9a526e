/** Get Log Page (Base 2.0, 5.16): which pages exist, what they hold, and what reading them clears. */
import { asyncEvents } from "../../nvme/async-events.ts";
import {
  AdminOpcode,
  FABRICS_OPCODE,
  IoOpcode,
  LogPageId,
  NSID_BROADCAST,
  STATUS_DNR,
  Status,
} from "../../nvme/constants.ts";
import {
  type CommandEffect,
  encodeAnaLog,
  encodeChangedNamespaces,
  encodeCommandEffects,
  encodeFirmwareSlots,
  encodeHealth,
  encodeSupportedLogPages,
} from "../../nvme/log-pages.ts";
import { IoOp } from "../reactor/io-table.ts";
import type { Controller } from "./controller.ts";
import { TRANSFER_BYTES_MAX } from "./limits.ts";
import { ANA_GROUP_ID, type Subsystem } from "./subsystem.ts";

const INVALID_FIELD = Status.INVALID_FIELD | STATUS_DNR;
const INVALID_LOG_PAGE = Status.INVALID_LOG_PAGE | STATUS_DNR;
/** LSP bit of the ANA page: Return Groups Only. */
const ANA_GROUPS_ONLY = 1;
const KELVIN = 273;
const NS_PER_HOUR = 3.6e12;

/** The dwords of a Get Log Page command, taken apart (5.16, figures 197 to 201). */
export interface LogPageRequest {
  readonly nsid: number;
  readonly id: number;
  readonly specific: number;
  readonly retain: boolean;
  /** Bytes asked for: a multiple of four, as large as 16 GiB. */
  readonly length: number;
  readonly offset: number;
  readonly isIndexOffset: boolean;
}

/** Reads the fields out of command dwords 10 to 14. */
export function logPageRequest(nsid: number, dwords: readonly number[]): LogPageRequest {
  const [dword10, dword11, dword12, dword13, dword14] = dwords as [
    number,
    number,
    number,
    number,
    number,
  ];
  return {
    nsid,
    id: dword10 & 0xff,
    specific: (dword10 >>> 8) & 0x7f,
    retain: ((dword10 >>> 15) & 1) === 1,
    length: ((dword10 >>> 16) + (dword11 & 0xffff) * 65536 + 1) * 4,
    offset: dword12 + dword13 * 2 ** 32,
    isIndexOffset: ((dword14 >>> 23) & 1) === 1,
  };
}

const nvmPages = [
  LogPageId.SUPPORTED,
  LogPageId.ERROR,
  LogPageId.HEALTH,
  LogPageId.FIRMWARE_SLOT,
  LogPageId.CHANGED_NAMESPACES,
  LogPageId.COMMAND_EFFECTS,
  LogPageId.ANA,
  LogPageId.RESERVATION_NOTIFICATION,
];
const discoveryPages = [LogPageId.SUPPORTED, LogPageId.ERROR, LogPageId.DISCOVERY];

const adminEffects: readonly CommandEffect[] = [
  ...Object.values(AdminOpcode).map((opcode) => ({ opcode, changesBlocks: false })),
  { opcode: FABRICS_OPCODE, changesBlocks: false },
];
const ioEffects: readonly CommandEffect[] = [
  { opcode: IoOpcode.FLUSH, changesBlocks: false },
  { opcode: IoOpcode.WRITE, changesBlocks: true },
  { opcode: IoOpcode.READ, changesBlocks: false },
  { opcode: IoOpcode.COMPARE, changesBlocks: false },
  { opcode: IoOpcode.WRITE_ZEROES, changesBlocks: true },
  { opcode: IoOpcode.DATASET_MANAGEMENT, changesBlocks: true },
  { opcode: IoOpcode.VERIFY, changesBlocks: false },
  { opcode: IoOpcode.RESERVATION_REGISTER, changesBlocks: false },
  { opcode: IoOpcode.RESERVATION_REPORT, changesBlocks: false },
  { opcode: IoOpcode.RESERVATION_ACQUIRE, changesBlocks: false },
  { opcode: IoOpcode.RESERVATION_RELEASE, changesBlocks: false },
];

function health(c: Controller, nvm: Subsystem): Uint8Array {
  const { ops, bytes, errors } = nvm.namespace.statistics;
  return encodeHealth({
    temperature: KELVIN + 25,
    bytesRead: bytes[IoOp.READ]!,
    bytesWritten: bytes[IoOp.WRITE]!,
    readCommands: ops[IoOp.READ]!,
    writeCommands: ops[IoOp.WRITE]!,
    powerOnHours: (c.target.reactor.now - c.startedNs) / NS_PER_HOUR,
    mediaErrors: errors[IoOp.READ]! + errors[IoOp.WRITE]!,
    errorEntries: c.errors.count,
  });
}

function ana(nvm: Subsystem, specific: number): Uint8Array {
  const { namespace, anaChangeCount: changeCount, anaState: state } = nvm;
  const namespaces = namespace.active ? [namespace.id] : [];
  const group = { id: ANA_GROUP_ID, state, changeCount, namespaces };
  return encodeAnaLog(changeCount, [group], (specific & ANA_GROUPS_ONLY) !== 0);
}

/** A whole page, or the status that refuses it. The discovery page is not made here. */
function page(c: Controller, request: LogPageRequest): Uint8Array | number {
  const { id, nsid, specific } = request;
  if (id === LogPageId.ERROR) return c.errors.encode();
  const { nvm } = c;
  if (id === LogPageId.SUPPORTED) {
    return encodeSupportedLogPages(nvm === undefined ? discoveryPages : nvmPages);
  }
  if (nvm === undefined) return INVALID_LOG_PAGE;
  switch (id) {
    case LogPageId.HEALTH: {
      const known = nsid === 0 || nsid === NSID_BROADCAST || nsid === nvm.namespace.id;
      return known ? health(c, nvm) : Status.INVALID_NAMESPACE | STATUS_DNR;
    }
    case LogPageId.FIRMWARE_SLOT:
      return encodeFirmwareSlots(c.target.options.firmware);
    case LogPageId.CHANGED_NAMESPACES:
      return encodeChangedNamespaces([...c.changedNamespaces]);
    case LogPageId.COMMAND_EFFECTS:
      return encodeCommandEffects(adminEffects, ioEffects);
    case LogPageId.ANA:
      return ana(nvm, specific);
    case LogPageId.RESERVATION_NOTIFICATION:
      return c.notices.encode();
    default:
      return INVALID_LOG_PAGE;
  }
}

/** The bytes that a Get Log Page command returns, or the status that refuses it. */
export function readLogPage(c: Controller, request: LogPageRequest): Uint8Array | number {
  const { id, offset, length, retain } = request;
  if (request.isIndexOffset || offset % 4 !== 0) return INVALID_FIELD;
  if (length > TRANSFER_BYTES_MAX) return INVALID_FIELD;
  let bytes: Uint8Array;
  if (id === LogPageId.DISCOVERY && c.discovery !== undefined) {
    if (offset > c.discovery.logBytes(c)) return INVALID_FIELD;
    bytes = c.discovery.logPage(c, offset, length);
  } else {
    const whole = page(c, request);
    if (typeof whole === "number") return whole;
    if (offset > whole.byteLength) return INVALID_FIELD;
    bytes = new Uint8Array(length);
    bytes.set(whole.subarray(offset, offset + length));
  }
  if (!retain) consumed(c, id);
  return bytes;
}

/** A page was read without "retain": its event may be reported again, and what it told is told. */
function consumed(c: Controller, id: number): void {
  c.events.cleared(id);
  if (id === LogPageId.CHANGED_NAMESPACES) c.changedNamespaces.clear();
  if (id === LogPageId.RESERVATION_NOTIFICATION) {
    c.notices.drop();
    if (c.notices.length > 0) c.events.raise(asyncEvents.reservationNotice);
  }
}
