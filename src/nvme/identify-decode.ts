/**
 * Identify data, log pages and reservation reports as a host reads them (NVM Express Base 2.0c, 5.17
 * and 5.16; NVM Command Set 1.0c, 4.1.5). Pure. Every function expects at least the bytes that its
 * structure defines and ignores what it does not know.
 */

/** What a host needs of Identify Controller (figure 275). */
export interface ControllerIdentity {
  readonly serial: string;
  readonly model: string;
  readonly firmware: string;
  readonly controllerId: number;
  readonly version: number;
  /** Largest transfer as a power of two of the minimum page size; 0: no limit. */
  readonly mdts: number;
  /** Asymmetric namespace access is reported (CMIC bit 3). */
  readonly reportsAna: boolean;
  /** ANA groups; the log page has at most this many descriptors. */
  readonly anaGroups: number;
  /** Async events that can be enabled (OAES). */
  readonly asyncEvents: number;
  /** Abort commands that may be outstanding. */
  readonly abortLimit: number;
  /** Keep-alive granularity in ms; 0: keep-alive is not supported. */
  readonly keepAliveGranularityMs: number;
  readonly supportsDatasetManagement: boolean;
  readonly supportsWriteZeroes: boolean;
  readonly supportsReservations: boolean;
  readonly volatileCache: boolean;
  readonly subsystemNqn: string;
  /** Bytes of data that fit a command capsule of an I/O queue. */
  readonly inCapsuleBytes: number;
  /** Offset of data in a capsule behind the entry, in bytes; 0 over TCP. */
  readonly inCapsuleOffset: number;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function text(bytes: Uint8Array, from: number, to: number): string {
  const end = bytes.subarray(from, to).indexOf(0);
  const part = bytes.subarray(from, end < 0 ? to : from + end);
  return new TextDecoder().decode(part).trim();
}

/** Reads Identify Controller data, 4,096 bytes. */
export function decodeIdentifyController(bytes: Uint8Array): ControllerIdentity {
  const view = viewOf(bytes);
  const optional = view.getUint16(520, true);
  const capsule = view.getUint32(1792, true) * 16;
  return {
    serial: text(bytes, 4, 24),
    model: text(bytes, 24, 64),
    firmware: text(bytes, 64, 72),
    controllerId: view.getUint16(78, true),
    version: view.getUint32(80, true),
    mdts: view.getUint8(77),
    reportsAna: (view.getUint8(76) & 8) !== 0,
    anaGroups: view.getUint32(348, true),
    asyncEvents: view.getUint32(92, true),
    abortLimit: view.getUint8(258) + 1,
    keepAliveGranularityMs: view.getUint16(320, true) * 100,
    supportsDatasetManagement: (optional & 4) !== 0,
    supportsWriteZeroes: (optional & 8) !== 0,
    supportsReservations: (optional & 32) !== 0,
    volatileCache: (view.getUint8(525) & 1) !== 0,
    subsystemNqn: text(bytes, 768, 1024),
    inCapsuleBytes: Math.max(0, capsule - 64),
    inCapsuleOffset: view.getUint16(1800, true) * 16,
  };
}

/** Limits of the NVM command set (NVM Command Set, figure 102); 0 everywhere means no limit. */
export interface NvmLimits {
  /** Largest Write Zeroes as a power of two of the minimum page size. */
  readonly writeZeroesSize: number;
  /** Most blocks of one Dataset Management range. */
  readonly dsmRangeBlocks: number;
}

/** Reads Identify Controller data of the NVM command set. */
export function decodeNvmLimits(bytes: Uint8Array): NvmLimits {
  const view = viewOf(bytes);
  return { writeZeroesSize: view.getUint8(1), dsmRangeBlocks: view.getUint32(4, true) };
}

/** What a host needs of Identify Namespace (NVM Command Set, figure 97). */
export interface NamespaceIdentity {
  /** Size in blocks; 0: the namespace is not active. */
  readonly blockCount: number;
  readonly blockSize: number;
  readonly metadataBytes: number;
  /** Deallocated blocks read as zeroes (DLFEAT). */
  readonly deallocatedReadsZero: boolean;
  /** Write Zeroes may deallocate (DLFEAT bit 3). */
  readonly writeZeroesDeallocates: boolean;
  readonly anaGroup: number;
  /** 32 hex digits, or undefined when all zero. */
  readonly nguid: string | undefined;
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
}

/** 32 hex digits as a UUID with dashes. */
export function uuidFromHex(digits: string): string {
  const part = (from: number, to: number): string => digits.slice(from, to);
  return [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-");
}

/** The 16 bytes of a UUID, in the order in which it is written. */
export function uuidBytes(uuid: string): Uint8Array {
  const digits = uuid.replaceAll("-", "");
  return Uint8Array.from({ length: 16 }, (_, i) =>
    Number.parseInt(digits.slice(i * 2, i * 2 + 2), 16),
  );
}

/** Reads Identify Namespace data, 4,096 bytes. */
export function decodeIdentifyNamespace(bytes: Uint8Array): NamespaceIdentity {
  const view = viewOf(bytes);
  const formatted = view.getUint8(26);
  const format = view.getUint32(128 + ((formatted & 15) | ((formatted >> 1) & 0x30)) * 4, true);
  const deallocate = view.getUint8(33);
  const nguid = bytes.subarray(104, 120);
  return {
    blockCount: Number(view.getBigUint64(0, true)),
    blockSize: 2 ** ((format >>> 16) & 0xff),
    metadataBytes: format & 0xffff,
    deallocatedReadsZero: (deallocate & 7) === 1,
    writeZeroesDeallocates: (deallocate & 8) !== 0,
    anaGroup: view.getUint32(92, true),
    nguid: nguid.every((b) => b === 0) ? undefined : hex(nguid),
  };
}

/** Active namespace ids, ascending (Base 2.0, 5.17.2.2). */
export function decodeActiveNamespaces(bytes: Uint8Array): number[] {
  const view = viewOf(bytes);
  const ids: number[] = [];
  for (let at = 0; at + 4 <= bytes.byteLength; at += 4) {
    const id = view.getUint32(at, true);
    if (id === 0) break;
    ids.push(id);
  }
  return ids;
}

/** The namespace's UUID and NGUID among its identification descriptors (Base 2.0, 5.17.2.3). */
export function decodeNamespaceDescriptors(bytes: Uint8Array): {
  readonly uuid: string | undefined;
  readonly nguid: string | undefined;
} {
  const NGUID = 2;
  const UUID = 3;
  let uuid: string | undefined;
  let nguid: string | undefined;
  for (let at = 0; at + 4 <= bytes.byteLength; ) {
    const type = bytes[at]!;
    const length = bytes[at + 1]!;
    if (length === 0 || at + 4 + length > bytes.byteLength) break;
    const id = bytes.subarray(at + 4, at + 4 + length);
    if (type === UUID && length === 16) uuid = uuidFromHex(hex(id));
    if (type === NGUID && length === 16) nguid = hex(id);
    at += 4 + length;
  }
  return { uuid, nguid };
}

/** Bytes of an ANA log page with `groups` descriptors and no namespace lists. */
export function anaLogBytes(groups: number): number {
  return 16 + groups * 32;
}

/** State of each ANA group, from a log page (Base 2.0, figure 220), its namespace lists allowed. */
export function decodeAnaLog(bytes: Uint8Array): Map<number, number> {
  const view = viewOf(bytes);
  const states = new Map<number, number>();
  const count = view.getUint16(8, true);
  let at = 16;
  for (let i = 0; i < count && at + 32 <= bytes.byteLength; i++) {
    states.set(view.getUint32(at, true), view.getUint8(at + 16) & 15);
    at += 32 + view.getUint32(at + 4, true) * 4;
  }
  return states;
}

/** One registrant of a reservation. */
export interface Registrant {
  readonly controllerId: number;
  readonly holdsReservation: boolean;
  readonly key: bigint;
  /** UUID of the host. */
  readonly hostId: string;
}

/** State of a namespace's reservations (Base 2.0, figure 451). */
export interface ReservationReport {
  readonly generation: number;
  /** 0: no reservation is held. */
  readonly type: number;
  readonly persistent: boolean;
  readonly registrants: readonly Registrant[];
}

/** Bytes of an extended report with `registrants` entries. */
export function reservationReportBytes(registrants: number): number {
  return 64 + registrants * 64;
}

/** Number of registrants that a report's header announces. */
export function reservationReportCount(bytes: Uint8Array): number {
  return viewOf(bytes).getUint16(5, true);
}

/** Reads an extended report; registrants beyond its end are left out. */
export function decodeReservationReport(bytes: Uint8Array): ReservationReport {
  const view = viewOf(bytes);
  const registrants: Registrant[] = [];
  const count = reservationReportCount(bytes);
  for (let i = 0; i < count; i++) {
    const at = 64 + i * 64;
    if (at + 64 > bytes.byteLength) break;
    registrants.push({
      controllerId: view.getUint16(at, true),
      holdsReservation: (view.getUint8(at + 2) & 1) !== 0,
      key: view.getBigUint64(at + 8, true),
      hostId: uuidFromHex(hex(bytes.subarray(at + 16, at + 32))),
    });
  }
  return {
    generation: view.getUint32(0, true),
    type: view.getUint8(4),
    persistent: view.getUint8(9) !== 0,
    registrants,
  };
}
