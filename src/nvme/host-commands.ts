/**
 * Commands as a host builds them: submission queue entries and the data of Connect, reservations
 * and Dataset Management (NVM Express Base 2.0c; NVM Command Set 1.0c). Pure.
 *
 * An entry is sixteen 32-bit words. Command id and data pointer (words 0 upper half and 6 to 9) are
 * left zero: the queue that sends the entry fills them in.
 */
import { AdminOpcode, FABRICS_OPCODE, FabricsType, IoOpcode, NQN_BYTES_MAX } from "./constants.ts";

/** A submission queue entry without command id and data pointer: sixteen words. */
export type SqeWords = Int32Array;

/** All namespaces, in the NSID field (Base 2.0, 3.2.1.2). */
export const NSID_ALL = 0xffffffff;

/** Controller id in Connect data that asks for any controller (Base 2.0, 6.3). */
export const CNTLID_DYNAMIC = 0xffff;

/** Bytes of the data of a Connect command (Base 2.0, figure 381). */
export const CONNECT_DATA_BYTES = 1024;

/** Bytes of one Dataset Management range (NVM Command Set, figure 37). */
export const DSM_RANGE_BYTES = 16;

/** Identify: values of CNS that a host asks for (Base 2.0, figure 273). */
export const IdentifyCns = {
  NAMESPACE: 0x00,
  CONTROLLER: 0x01,
  ACTIVE_NAMESPACES: 0x02,
  NAMESPACE_DESCRIPTORS: 0x03,
  /** With CSI 0: limits of the NVM command set (NVM Command Set, figure 102). */
  COMMAND_SET_CONTROLLER: 0x06,
} as const;

/** Log pages that a host reads (Base 2.0, figure 202). */
export const LogPage = { CHANGED_NAMESPACES: 0x04, ANA: 0x0c } as const;

/** Features that a host sets or reads (Base 2.0, figure 317). */
export const Feature = {
  NUMBER_OF_QUEUES: 0x07,
  ASYNC_EVENT_CONFIGURATION: 0x0b,
  KEEP_ALIVE_TIMER: 0x0f,
} as const;

/** Bits of command dword 12 of I/O commands (NVM Command Set, 3.2). */
export const IoDword12 = {
  DEALLOCATE: 1 << 25,
  FUA: 1 << 30,
} as const;

/** Attribute bit of Dataset Management, dword 11. */
export const DSM_DEALLOCATE = 1 << 2;

/** Notice bits of Async Event Configuration and OAES (Base 2.0, figure 326). */
export const AsyncNotice = {
  NAMESPACE_ATTRIBUTE: 1 << 8,
  ANA_CHANGE: 1 << 11,
} as const;

function entry(opcode: number, nsid: number, dwords: readonly number[] = []): SqeWords {
  const words = new Int32Array(16);
  words[0] = opcode;
  words[1] = nsid;
  words.set(dwords, 10);
  return words;
}

/** Connect (Base 2.0, 6.3). `entries` counts queue entries; `keepAliveMs` is for the admin queue. */
export function connectCommand(queueId: number, entries: number, keepAliveMs: number): SqeWords {
  const dwords = [queueId << 16, entries - 1, keepAliveMs];
  return entry(FABRICS_OPCODE, FabricsType.CONNECT, dwords);
}

/** Who connects to what. */
export interface ConnectIdentity {
  /** 16 bytes, the host's UUID. */
  readonly hostId: Uint8Array;
  readonly hostNqn: string;
  readonly subsystemNqn: string;
  readonly controllerId: number;
}

/** The data of a Connect command, 1,024 bytes (Base 2.0, figure 381). */
export function connectData(identity: ConnectIdentity): Uint8Array {
  const data = new Uint8Array(CONNECT_DATA_BYTES);
  const encoder = new TextEncoder();
  const put = (text: string, at: number): void => {
    data.set(encoder.encode(text).subarray(0, NQN_BYTES_MAX), at);
  };
  data.set(identity.hostId.subarray(0, 16), 0);
  new DataView(data.buffer).setUint16(16, identity.controllerId, true);
  put(identity.subsystemNqn, 256);
  put(identity.hostNqn, 512);
  return data;
}

/** Property Get of 4 or 8 bytes (Base 2.0, 6.5). */
export function propertyGetCommand(offset: number, bytes: 4 | 8): SqeWords {
  return entry(FABRICS_OPCODE, FabricsType.PROPERTY_GET, [bytes === 8 ? 1 : 0, offset]);
}

/** Property Set of 4 bytes (Base 2.0, 6.6). */
export function propertySetCommand(offset: number, value: number): SqeWords {
  return entry(FABRICS_OPCODE, FabricsType.PROPERTY_SET, [0, offset, value]);
}

/** Identify (Base 2.0, 5.17). The answer has 4,096 bytes. */
export function identifyCommand(cns: number, nsid: number): SqeWords {
  return entry(AdminOpcode.IDENTIFY, nsid, [cns]);
}

/**
 * Get Log Page (Base 2.0, 5.16) of `bytes` (a multiple of four) from its start. Reading clears the
 * event that announced the page. `specific` is the LSP field.
 */
export function getLogPageCommand(
  page: number,
  nsid: number,
  bytes: number,
  specific = 0,
): SqeWords {
  const dwords = bytes / 4 - 1;
  return entry(AdminOpcode.GET_LOG_PAGE, nsid, [
    page | (specific << 8) | ((dwords & 0xffff) << 16),
    dwords >>> 16,
  ]);
}

/** LSP of the ANA log page: group descriptors without namespace lists (Base 2.0, 5.16.1.13). */
export const ANA_LOG_GROUPS_ONLY = 1;

/** Set Features (Base 2.0, 5.27). */
export function setFeaturesCommand(feature: number, value: number): SqeWords {
  return entry(AdminOpcode.SET_FEATURES, 0, [feature, value]);
}

/** Get Features, the current value (Base 2.0, 5.15). */
export function getFeaturesCommand(feature: number): SqeWords {
  return entry(AdminOpcode.GET_FEATURES, 0, [feature]);
}

/** Abort of a command of a submission queue (Base 2.0, 5.1). */
export function abortCommand(queueId: number, commandId: number): SqeWords {
  return entry(AdminOpcode.ABORT, 0, [queueId | (commandId << 16)]);
}

/** Keep Alive (Base 2.0, 5.18). */
export function keepAliveCommand(): SqeWords {
  return entry(AdminOpcode.KEEP_ALIVE, 0);
}

/** Asynchronous Event Request (Base 2.0, 5.2). */
export function asyncEventRequestCommand(): SqeWords {
  return entry(AdminOpcode.ASYNC_EVENT_REQUEST, 0);
}

/** An asynchronous event, from dword 0 of its completion (Base 2.0, figure 147). */
export interface AsyncEvent {
  readonly kind: "namespace-changed" | "ana-changed" | "other";
  readonly type: number;
  readonly information: number;
  readonly logPage: number;
}

/** Reads dword 0 of the completion of an Asynchronous Event Request. */
export function decodeAsyncEvent(dword0: number): AsyncEvent {
  const NOTICE = 2;
  const type = dword0 & 7;
  const information = (dword0 >>> 8) & 0xff;
  let kind: AsyncEvent["kind"] = "other";
  if (type === NOTICE && information === 0) kind = "namespace-changed";
  if (type === NOTICE && information === 3) kind = "ana-changed";
  return { kind, type, information, logPage: (dword0 >>> 16) & 0xff };
}

// ---------------------------------------------------------------------------------- reservations

/** Reservation types (Base 2.0, figure 445). */
export const ReservationType = {
  WRITE_EXCLUSIVE: 1,
  EXCLUSIVE_ACCESS: 2,
  WRITE_EXCLUSIVE_REGISTRANTS_ONLY: 3,
  EXCLUSIVE_ACCESS_REGISTRANTS_ONLY: 4,
  WRITE_EXCLUSIVE_ALL_REGISTRANTS: 5,
  EXCLUSIVE_ACCESS_ALL_REGISTRANTS: 6,
} as const;
export type ReservationType = (typeof ReservationType)[keyof typeof ReservationType];

/** A command entry and the data that goes with it. */
export interface CommandWithData {
  readonly sqe: SqeWords;
  readonly data: Uint8Array;
}

function keys(...values: readonly bigint[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(values.length * 8));
  values.forEach((value, i) => {
    view.setBigUint64(i * 8, value, true);
  });
  return new Uint8Array(view.buffer);
}

/** Register, replace or remove this host's reservation key. */
export interface ReservationRegister {
  readonly action: "register" | "unregister" | "replace";
  /** The key registered now; 0 when there is none. */
  readonly currentKey: bigint;
  readonly newKey: bigint;
  /** Do not compare `currentKey` (IEKEY). */
  readonly ignoreExistingKey?: boolean;
  /** Change of "persist through power loss" (CPTPL); absent: no change. */
  readonly persist?: boolean;
}

const REGISTER_ACTIONS = { register: 0, unregister: 1, replace: 2 } as const;
const ACQUIRE_ACTIONS = { acquire: 0, preempt: 1, "preempt-and-abort": 2 } as const;
const RELEASE_ACTIONS = { release: 0, clear: 1 } as const;

/** Reservation Register (Base 2.0, 7.3). */
export function reservationRegisterCommand(nsid: number, r: ReservationRegister): CommandWithData {
  const persist = r.persist === undefined ? 0 : r.persist ? 3 : 2;
  const ignore = r.ignoreExistingKey === true ? 8 : 0;
  const dword10 = REGISTER_ACTIONS[r.action] | ignore | (persist << 30);
  return {
    sqe: entry(IoOpcode.RESERVATION_REGISTER, nsid, [dword10]),
    data: keys(r.currentKey, r.newKey),
  };
}

/** Take the reservation, or take it from another registrant. */
export interface ReservationAcquire {
  readonly action: "acquire" | "preempt" | "preempt-and-abort";
  readonly type: ReservationType;
  readonly currentKey: bigint;
  /** The key to be preempted; 0 otherwise. */
  readonly preemptKey?: bigint;
  readonly ignoreExistingKey?: boolean;
}

/** Reservation Acquire (Base 2.0, 7.2). */
export function reservationAcquireCommand(nsid: number, r: ReservationAcquire): CommandWithData {
  const ignore = r.ignoreExistingKey === true ? 8 : 0;
  const dword10 = ACQUIRE_ACTIONS[r.action] | ignore | (r.type << 8);
  return {
    sqe: entry(IoOpcode.RESERVATION_ACQUIRE, nsid, [dword10]),
    data: keys(r.currentKey, r.preemptKey ?? 0n),
  };
}

/** Give the reservation up, or clear all registrations. */
export interface ReservationRelease {
  readonly action: "release" | "clear";
  readonly type: ReservationType;
  readonly currentKey: bigint;
  readonly ignoreExistingKey?: boolean;
}

/** Reservation Release (Base 2.0, 7.5). */
export function reservationReleaseCommand(nsid: number, r: ReservationRelease): CommandWithData {
  const ignore = r.ignoreExistingKey === true ? 8 : 0;
  const dword10 = RELEASE_ACTIONS[r.action] | ignore | (r.type << 8);
  return {
    sqe: entry(IoOpcode.RESERVATION_RELEASE, nsid, [dword10]),
    data: keys(r.currentKey),
  };
}

/** Reservation Report with 128-bit host ids, `bytes` long (Base 2.0, 7.4). */
export function reservationReportCommand(nsid: number, bytes: number): SqeWords {
  return entry(IoOpcode.RESERVATION_REPORT, nsid, [bytes / 4 - 1, 1]);
}

// ----------------------------------------------------------------------------------------- vendor

/** A vendor-specific command: opcode 0x80 to 0xff, command dwords 10 to 15. */
export function vendorEntry(opcode: number, nsid: number, dwords: readonly number[]): SqeWords {
  return entry(opcode, nsid, dwords.slice(0, 6));
}

/** Which way the data of a command moves: bits 1:0 of its opcode (Base 2.0, figure 87). */
export function transferDirection(
  opcode: number,
): "none" | "host-to-controller" | "controller-to-host" | "both" {
  return (["none", "host-to-controller", "controller-to-host", "both"] as const)[opcode & 3]!;
}
