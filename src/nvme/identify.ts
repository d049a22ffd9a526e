/** Identify data structures (Base 2.0, 5.17.2; NVM Command Set 1.0c, 4.1.5). Pure. */
import { NVME_VERSION } from "./constants.ts";

/** Bytes of every Identify data structure. */
export const IDENTIFY_BYTES = 4096;

/** CNS values that are answered (Base 2.0, figure 274). */
export const Cns = {
  NAMESPACE: 0x00,
  CONTROLLER: 0x01,
  ACTIVE_NAMESPACES: 0x02,
  NAMESPACE_DESCRIPTORS: 0x03,
  COMMAND_SET_NAMESPACE: 0x05,
  COMMAND_SET_CONTROLLER: 0x06,
  COMMAND_SET_ACTIVE_NAMESPACES: 0x07,
  NAMESPACE_INDEPENDENT: 0x08,
  COMMAND_SETS: 0x1c,
} as const;

/** What Identify Controller says of a controller. */
export interface ControllerIdentity {
  readonly controllerId: number;
  readonly serial: string;
  readonly model: string;
  readonly firmware: string;
  readonly subsystemNqn: string;
  readonly isDiscovery: boolean;
  /** Largest transfer as a power of two of 4 KiB pages. */
  readonly transferPagesLog2: number;
  /** Bytes of data that fit a command capsule. */
  readonly inCapsuleBytes: number;
  readonly asyncEvents: number;
  /** Entries of the error log. */
  readonly errorEntries: number;
  /** Granularity of the keep-alive timer in units of 100 ms. */
  readonly keepAliveGranularity: number;
  readonly namespaces: number;
  readonly queueEntries: number;
}

/** What Identify Namespace says of a namespace. */
export interface NamespaceIdentity {
  readonly blockCount: number;
  readonly blockSize: number;
  /** 36 characters, lower case, with dashes. */
  readonly uuid: string;
  readonly anaGroupId: number;
  /** Blocks may be allocated only as they are written. */
  readonly thin: boolean;
  /** Deallocated blocks read as zeroes. */
  readonly discardZeroes: boolean;
  /** Reservations can persist through power loss. */
  readonly reservationsPersist: boolean;
}

/** Reservation capabilities (NVM Command Set, figure 97, RESCAP): all types, IEKEY as since 1.3. */
function reservationCapabilities(ns: NamespaceIdentity): number {
  return 0xfe | (ns.reservationsPersist ? 1 : 0);
}

function text(bytes: Uint8Array, at: number, length: number, value: string): void {
  bytes.fill(0x20, at, at + length);
  bytes.set(new TextEncoder().encode(value).subarray(0, length), at);
}

function uuidBytes(uuid: string): Uint8Array {
  return Uint8Array.from(Buffer.from(uuid.replaceAll("-", ""), "hex"));
}

/** Identify Controller (CNS 01h). */
export function encodeController(c: ControllerIdentity): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_BYTES);
  const view = new DataView(bytes.buffer);
  text(bytes, 4, 20, c.serial);
  text(bytes, 24, 40, c.model);
  text(bytes, 64, 8, c.firmware);
  bytes[72] = 6; // RAB
  bytes[76] = 0x01 | 0x02 | (c.isDiscovery ? 0 : 0x08); // CMIC: several ports, controllers; ANA
  bytes[77] = c.transferPagesLog2; // MDTS
  view.setUint16(78, c.controllerId, true);
  view.setUint32(80, NVME_VERSION, true);
  view.setUint32(84, 0x1e8480, true); // RTD3R: 2 s
  view.setUint32(88, 0x1e8480, true); // RTD3E
  // OAES: namespace attribute changes (8), ANA changes (11); discovery: log page changes (31).
  view.setUint32(92, c.isDiscovery ? 0x80000000 : 0x900, true);
  // CTRATT: 128-bit host id. Not traffic-based keep alive, although commands count as life: hosts would
  // put their own keep-alives off, and notice half a time-out later that a controller stands still.
  view.setUint32(96, 0x1, true);
  bytes[111] = c.isDiscovery ? 2 : 1; // CNTRLTYPE
  view.setUint16(256, 0, true); // OACS
  bytes[258] = 7; // ACL: 8 Abort commands at once
  bytes[259] = c.asyncEvents - 1; // AERL
  bytes[260] = 3; // FRMW: one slot, read only
  // LPA: extended Get Log Page data, commands supported and effects, SMART per namespace.
  bytes[261] = c.isDiscovery ? 0x04 : 0x04 | 0x02 | 0x01;
  bytes[262] = c.errorEntries - 1; // ELPE
  view.setUint16(266, 0x157, true); // WCTEMP
  view.setUint16(268, 0x175, true); // CCTEMP
  view.setUint16(320, c.keepAliveGranularity, true); // KAS
  if (!c.isDiscovery) {
    bytes[342] = 10; // ANATT: seconds in the change state at most
    // ANACAP: all states. Not "group ids stay" (0x40), true as it is: told so, nvme-cli 2.3 reads the
    // ANA log without the namespace ids.
    bytes[343] = 0x01 | 0x02 | 0x04 | 0x08 | 0x10;
    view.setUint32(344, 1, true); // ANAGRPMAX
    view.setUint32(348, 1, true); // NANAGRPID
  }
  view.setUint16(514, c.queueEntries, true); // MAXCMD
  if (!c.isDiscovery) {
    bytes[512] = 0x66; // SQES: 64 bytes
    bytes[513] = 0x44; // CQES: 16 bytes
    view.setUint32(516, c.namespaces, true); // NN
    // ONCS: compare, dataset management, write zeroes, save/select, reservations, verify.
    view.setUint16(520, 0x01 | 0x04 | 0x08 | 0x10 | 0x20 | 0x80, true);
    bytes[525] = 0x07; // VWC: a volatile write cache, and flush of all namespaces
    view.setUint32(540, c.namespaces, true); // MNAN
  } else bytes[1806] = 1; // DCTYPE: direct discovery controller
  view.setUint32(536, 0x00300001, true); // SGLS: data blocks, offsets, transport data blocks
  bytes.set(new TextEncoder().encode(c.subsystemNqn).subarray(0, 223), 768);
  view.setUint32(1792, 4 + c.inCapsuleBytes / 16, true); // IOCCSZ
  view.setUint32(1796, 1, true); // IORCSZ
  bytes[1803] = 1; // MSDBD
  return bytes;
}

/** Identify Namespace (CNS 00h). */
export function encodeNamespace(ns: NamespaceIdentity): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_BYTES);
  const view = new DataView(bytes.buffer);
  const blocks = BigInt(ns.blockCount);
  view.setBigUint64(0, blocks, true); // NSZE
  view.setBigUint64(8, blocks, true); // NCAP
  view.setBigUint64(16, blocks, true); // NUSE
  // NSFEAT: thin provisioning, identifiers are never reused, preferred write and discard sizes.
  bytes[24] = (ns.thin ? 0x01 : 0) | 0x08 | 0x10;
  bytes[30] = 0x01; // NMIC: may be shared between controllers
  bytes[31] = reservationCapabilities(ns);
  // DLFEAT: what deallocated blocks read as; write zeroes can deallocate.
  bytes[33] = (ns.discardZeroes ? 0x01 : 0x00) | 0x08;
  const grain = Math.max(1, 4096 / ns.blockSize) - 1;
  view.setUint16(64, grain, true); // NPWG
  view.setUint16(66, grain, true); // NPWA
  view.setUint16(68, grain, true); // NPDG
  view.setUint16(70, grain, true); // NPDA
  view.setUint32(92, ns.anaGroupId, true); // ANAGRPID
  bytes.set(uuidBytes(ns.uuid), 104); // NGUID
  view.setUint32(128, Math.log2(ns.blockSize) << 16, true); // LBAF0
  return bytes;
}

/** Active Namespace ID list (CNS 02h, 07h): ids above `after`. */
export function encodeNamespaceList(ids: readonly number[], after: number): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_BYTES);
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const id of ids) {
    if (id > after && at < IDENTIFY_BYTES) {
      view.setUint32(at, id, true);
      at += 4;
    }
  }
  return bytes;
}

/** Namespace Identification Descriptor list (CNS 03h): NGUID, UUID, command set. */
export function encodeDescriptors(uuid: string): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_BYTES);
  const id = uuidBytes(uuid);
  const NGUID = 2;
  const UUID = 3;
  const CSI = 4;
  bytes.set([NGUID, 16], 0);
  bytes.set(id, 4);
  bytes.set([UUID, 16], 20);
  bytes.set(id, 24);
  bytes.set([CSI, 1], 40); // value 0 at byte 44: the NVM command set
  return bytes;
}

/** I/O Command Set specific Identify Controller for the NVM command set (CNS 06h). */
export function encodeNvmController(transferPagesLog2: number): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_BYTES);
  bytes[0] = transferPagesLog2; // VSL: verify size limit
  bytes[1] = 0; // WZSL: no limit
  bytes[3] = 0; // DMRL: no limit
  return bytes;
}

/** I/O Command Set Independent Identify Namespace (CNS 08h). */
export function encodeIndependentNamespace(ns: NamespaceIdentity): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_BYTES);
  const view = new DataView(bytes.buffer);
  bytes[0] = 0x08; // NSFEAT: identifiers are never reused
  bytes[1] = 0x01; // NMIC
  bytes[2] = reservationCapabilities(ns);
  view.setUint32(4, ns.anaGroupId, true);
  bytes[14] = 0x01; // NSTAT: ready
  return bytes;
}

/** Identify I/O Command Set (CNS 1Ch): one combination, the NVM command set alone. */
export function encodeCommandSets(): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_BYTES);
  bytes[0] = 1;
  return bytes;
}
