/**
 * NVMe/TCP protocol data units (NVM Express TCP Transport Specification 1.0, section 3.6).
 *
 * Every PDU starts with the common header; all lengths that occur are multiples of four bytes, so
 * the I/O path reads and writes headers as 32-bit little-endian words.
 *
 * | byte  | common header                                                        |
 * |-------|----------------------------------------------------------------------|
 * | 0     | PDU type                                                             |
 * | 1     | flags                                                                |
 * | 2     | HLEN: length of the header                                           |
 * | 3     | PDO: offset of the data from the start of the PDU, 0 without data    |
 * | 4-7   | PLEN: length of the whole PDU, digests included                      |
 */

/** PDU types (3.6.1, figure 15). */
export const PduType = {
  IC_REQ: 0x00,
  IC_RESP: 0x01,
  H2C_TERM_REQ: 0x02,
  C2H_TERM_REQ: 0x03,
  CAPSULE_CMD: 0x04,
  CAPSULE_RESP: 0x05,
  H2C_DATA: 0x06,
  C2H_DATA: 0x07,
  R2T: 0x09,
} as const;

/** Flag bits of the common header. */
export const PduFlag = {
  HEADER_DIGEST: 1,
  DATA_DIGEST: 2,
  /** H2CData and C2HData: last PDU of the data transfer. */
  LAST: 4,
  /** C2HData: the command succeeded, no response capsule follows. */
  SUCCESS: 8,
} as const;

/** Header lengths in bytes. */
export const PduBytes = {
  COMMON: 8,
  IC: 128,
  TERM_REQ: 24,
  CAPSULE_CMD: 72,
  CAPSULE_RESP: 24,
  DATA: 24,
  R2T: 24,
  DIGEST: 4,
} as const;

/** Most bytes of a faulty PDU that a termination request quotes (3.6.2.3). */
export const TERM_REQ_DATA_MAX = 128;

/** Fatal error status of a termination request (3.6.2.3, figure 22). */
export const TermError = {
  INVALID_HEADER_FIELD: 1,
  PDU_SEQUENCE: 2,
  HEADER_DIGEST: 3,
  OUT_OF_RANGE: 4,
  TRANSFER_LIMIT: 5,
  UNSUPPORTED_PARAMETER: 6,
} as const;

/** Names of the fatal error statuses, for logs. */
export const termErrorNames = [
  "",
  "invalid PDU header field",
  "PDU sequence error",
  "header digest error",
  "data transfer out of range",
  "data transfer limit exceeded",
  "unsupported parameter",
] as const;

/** First word of a PDU: type, flags, header length, data offset. */
export function pduWord0(type: number, flags: number, headerBytes: number, dataAt: number): number {
  return type | (flags << 8) | (headerBytes << 16) | (dataAt << 24);
}

/** An initialize-connection request or response (3.6.2.1, 3.6.2.2). */
export interface IcPdu {
  /** PDU format version; 0 is the only one. */
  readonly version: number;
  /** Alignment of data the sender wants: data starts at multiples of (value + 1) * 4 bytes. */
  readonly dataAlign: number;
  readonly headerDigest: boolean;
  readonly dataDigest: boolean;
  /** Request: most R2Ts outstanding per command, 0-based. Response: MAXH2CDATA in bytes. */
  readonly max: number;
}

/** Reads the part of an ICReq or ICResp behind the common header. `view` starts at the PDU. */
export function decodeIc(view: DataView): IcPdu {
  const digests = view.getUint8(11);
  return {
    version: view.getUint16(8, true),
    dataAlign: view.getUint8(10),
    headerDigest: (digests & 1) !== 0,
    dataDigest: (digests & 2) !== 0,
    max: view.getUint32(12, true),
  };
}

/** A whole ICReq or ICResp, 128 bytes. */
export function encodeIc(type: "request" | "response", ic: IcPdu): Uint8Array {
  const bytes = new Uint8Array(PduBytes.IC);
  const view = new DataView(bytes.buffer);
  const pduType = type === "request" ? PduType.IC_REQ : PduType.IC_RESP;
  view.setUint32(0, pduWord0(pduType, 0, PduBytes.IC, 0), true);
  view.setUint32(4, PduBytes.IC, true);
  view.setUint16(8, ic.version, true);
  view.setUint8(10, ic.dataAlign);
  view.setUint8(11, (ic.headerDigest ? 1 : 0) | (ic.dataDigest ? 2 : 0));
  view.setUint32(12, ic.max, true);
  return bytes;
}

/**
 * A termination request: why the connection ends and the start of the PDU that caused it
 * (3.6.2.3, 3.6.2.4). `info` is the byte offset of the faulty field, or 0.
 */
export function encodeTermReq(
  type: "host" | "controller",
  status: number,
  info: number,
  cause: Uint8Array,
): Uint8Array {
  const quoted = cause.subarray(0, TERM_REQ_DATA_MAX);
  const bytes = new Uint8Array(PduBytes.TERM_REQ + ((quoted.byteLength + 3) & ~3));
  const view = new DataView(bytes.buffer);
  const pduType = type === "host" ? PduType.H2C_TERM_REQ : PduType.C2H_TERM_REQ;
  view.setUint32(0, pduWord0(pduType, 0, PduBytes.TERM_REQ, 0), true);
  view.setUint32(4, bytes.byteLength, true);
  view.setUint16(8, status, true);
  view.setUint32(10, info, true);
  bytes.set(quoted, PduBytes.TERM_REQ);
  return bytes;
}

/** The fields of a termination request. */
export function decodeTermReq(view: DataView): { status: number; info: number } {
  return { status: view.getUint16(8, true), info: view.getUint32(10, true) };
}
