/** The discovery log page (Base 2.0, 5.16.1.23; TCP transport 1.0, 3.1.1). Pure. */

/** Bytes of the page's header and of each entry. */
export const DISCOVERY_ENTRY_BYTES = 1024;

/** Kinds of subsystems that an entry names (figure 264). */
export const DiscoverySubtype = {
  /** Another discovery subsystem. */
  REFERRAL: 1,
  NVM: 2,
  /** The discovery subsystem that returns the entry. */
  CURRENT: 3,
} as const;

/** Entry flags (figure 264, EFLAGS). */
export const DiscoveryFlag = {
  /** The same entries are returned through every port of the subsystem. */
  DUPLICATE: 1,
  /** Persistent connections (a keep-alive time-out above zero) are supported. */
  PERSISTENT: 2,
} as const;

/** One way to reach a subsystem. */
export interface DiscoveryEntry {
  readonly subtype: number;
  readonly nqn: string;
  /** Numeric IPv4 or IPv6 address. */
  readonly address: string;
  readonly port: number;
  /** Number of the port (address and TCP port) among those of this node. */
  readonly portId: number;
  /** Largest admin submission queue. */
  readonly adminEntries: number;
  readonly flags: number;
}

const TRANSPORT_TCP = 3;
const FAMILY_IPV4 = 1;
const FAMILY_IPV6 = 2;
const CONTROLLER_ID_DYNAMIC = 0xffff;

/** The header: generation, number of entries, record format 0. 1,024 bytes. */
export function encodeDiscoveryHeader(generation: number, entries: number): Uint8Array {
  const bytes = new Uint8Array(DISCOVERY_ENTRY_BYTES);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(generation), true);
  view.setBigUint64(8, BigInt(entries), true);
  view.setUint16(16, 0, true);
  return bytes;
}

/**
 * One entry, 1,024 bytes. TREQ stays 0 ("not specified"): hosts that know about secure channels take
 * anything else as a demand for TLS.
 */
export function encodeDiscoveryEntry(entry: DiscoveryEntry): Uint8Array {
  const bytes = new Uint8Array(DISCOVERY_ENTRY_BYTES);
  const view = new DataView(bytes.buffer);
  const encoder = new TextEncoder();
  const put = (value: string, at: number, length: number, fill: number): void => {
    bytes.fill(fill, at, at + length);
    bytes.set(encoder.encode(value).subarray(0, length), at);
  };
  bytes[0] = TRANSPORT_TCP;
  bytes[1] = entry.address.includes(":") ? FAMILY_IPV6 : FAMILY_IPV4;
  bytes[2] = entry.subtype;
  view.setUint16(4, entry.portId, true);
  view.setUint16(6, CONTROLLER_ID_DYNAMIC, true);
  view.setUint16(8, entry.adminEntries, true);
  view.setUint16(10, entry.flags, true);
  put(String(entry.port), 32, 32, 0x20);
  put(entry.nqn, 256, 256, 0);
  put(entry.address, 512, 256, 0x20);
  return bytes; // TSAS at 768: security type 0, none.
}
