/**
 * The Network Block Device protocol as pure code: constants, the codec of the handshake, and the
 * word layout of the transmission phase. Source: the protocol document of the NBD project
 * (doc/proto.md), named here by its headings. Imports nothing of ours.
 *
 * All fields are big-endian. The handshake runs once per connection and is read and written through
 * `DataView`. The transmission phase is read and written as 32-bit words where they lie: whole words
 * are compared with, or taken from, constants that are byte-swapped once (`swap32`).
 *
 * Request, client to server (28 bytes, "Request message"):
 * | word | holds                                             |
 * |------|---------------------------------------------------|
 * | 0    | magic 0x25609513                                  |
 * | 1    | command flags (16 bits), type (16 bits)           |
 * | 2-3  | cookie, given back as it came                     |
 * | 4-5  | offset in bytes                                   |
 * | 6    | length in bytes; that much data follows a write   |
 *
 * Simple reply (16 bytes): magic 0x67446698, error, cookie (2 words); then the data of a read.
 *
 * Structured reply chunk (20 bytes): magic 0x668e33ef, flags and type (16 bits each), cookie
 * (2 words), payload length; then the payload. Data payload: offset (2 words), data. Error payload:
 * error, message length (16 bits), message. Block status payload: context id, then pairs of extent
 * length and flags.
 */

/** Swaps the four bytes of a word; the result is signed, as `Int32Array` holds it. */
export function swap32(word: number): number {
  return (
    ((word & 0xff) << 24) |
    ((word & 0xff00) << 8) |
    ((word >>> 8) & 0xff00) |
    ((word >>> 24) & 0xff)
  );
}

const TWO_32 = 4294967296;

// ------------------------------------------------------------------------------------- handshake

/** "NBDMAGIC", "IHAVEOPT" and the magic of option replies. */
const MAGIC = 0x4e42444d41474943n;
const OPTION_MAGIC = 0x49484156454f5054n;
const OPTION_REPLY_MAGIC = 0x0003e889045565a9n;

/** Handshake flags of the server, and the client's answers to them. */
export const HandshakeFlag = { FIXED_NEWSTYLE: 1, NO_ZEROES: 2 } as const;

/** Option types. */
export const NbdOption = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
  EXTENDED_HEADERS: 11,
} as const;

/** Option reply types; errors have the top bit set. */
export const NbdReply = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: 0x80000001,
  ERR_POLICY: 0x80000002,
  ERR_INVALID: 0x80000003,
  ERR_UNKNOWN: 0x80000006,
  ERR_SHUTDOWN: 0x80000007,
  ERR_TOO_BIG: 0x80000009,
} as const;

/** Kinds of information about an export. */
export const NbdInfo = { EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3 } as const;

/** Transmission flags: what an export can do. */
export const TransmissionFlag = {
  HAS_FLAGS: 1 << 0,
  READ_ONLY: 1 << 1,
  SEND_FLUSH: 1 << 2,
  SEND_FUA: 1 << 3,
  SEND_TRIM: 1 << 5,
  SEND_WRITE_ZEROES: 1 << 6,
  SEND_DF: 1 << 7,
  CAN_MULTI_CONN: 1 << 8,
  SEND_FAST_ZERO: 1 << 11,
} as const;

/** Lengths of the fixed parts of the handshake, in bytes. */
export const HandshakeBytes = { GREETING: 18, CLIENT_FLAGS: 4, OPTION: 16, REPLY: 20 } as const;

/** Longest string that the protocol allows ("Values"), in bytes of UTF-8. */
export const STRING_BYTES_MAX = 4096;

/** The one metadata context there is, and the id it is selected under. */
export const ALLOCATION_CONTEXT = "base:allocation";
export const ALLOCATION_CONTEXT_ID = 1;

/** Flags of an extent in `base:allocation`. */
export const ExtentFlag = { HOLE: 1, ZERO: 2 } as const;

/** What the server says first ("Newstyle negotiation"). */
export function encodeGreeting(): Uint8Array {
  const bytes = new Uint8Array(HandshakeBytes.GREETING);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, MAGIC);
  view.setBigUint64(8, OPTION_MAGIC);
  view.setUint16(16, HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES);
  return bytes;
}

/** The client's answer to the greeting; undefined when it sets a flag that was not offered. */
export function decodeClientFlags(
  view: DataView,
): { fixed: boolean; noZeroes: boolean } | undefined {
  const flags = view.getUint32(0);
  const offered: number = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES;
  if ((flags & ~offered) !== 0) return undefined;
  return {
    fixed: (flags & HandshakeFlag.FIXED_NEWSTYLE) !== 0,
    noZeroes: (flags & HandshakeFlag.NO_ZEROES) !== 0,
  };
}

/** Option type and data length of an option's first 16 bytes; undefined when the magic is wrong. */
export function decodeOptionHeader(
  view: DataView,
): { option: number; byteLength: number } | undefined {
  if (view.getBigUint64(0) !== OPTION_MAGIC) return undefined;
  return { option: view.getUint32(8), byteLength: view.getUint32(12) };
}

/** One reply to an option. */
export function encodeOptionReply(
  option: number,
  type: number,
  data: Uint8Array = new Uint8Array(0),
): Uint8Array {
  const bytes = new Uint8Array(HandshakeBytes.REPLY + data.byteLength);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, OPTION_REPLY_MAGIC);
  view.setUint32(8, option);
  view.setUint32(12, type);
  view.setUint32(16, data.byteLength);
  bytes.set(data, HandshakeBytes.REPLY);
  return bytes;
}

const utf8 = new TextEncoder();
const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Text of a string field; undefined when it is too long, has a zero byte or is not UTF-8. */
export function decodeString(bytes: Uint8Array): string | undefined {
  if (bytes.byteLength > STRING_BYTES_MAX || bytes.includes(0)) return undefined;
  try {
    return strictUtf8.decode(bytes);
  } catch {
    return undefined;
  }
}

/** Reads fields one after the other; after a field that does not fit, everything is undefined. */
class FieldReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get left(): number {
    return this.#bytes.byteLength - this.#at;
  }

  #advance(byteLength: number): number | undefined {
    if (this.left < byteLength) {
      this.#at = this.#bytes.byteLength;
      return undefined;
    }
    this.#at += byteLength;
    return this.#at - byteLength;
  }

  u16(): number | undefined {
    const at = this.#advance(2);
    return at === undefined ? undefined : this.#view.getUint16(at);
  }

  u32(): number | undefined {
    const at = this.#advance(4);
    return at === undefined ? undefined : this.#view.getUint32(at);
  }

  /** A string behind its 32-bit length. */
  string(): string | undefined {
    const length = this.u32();
    const at = length === undefined ? undefined : this.#advance(length);
    if (length === undefined || at === undefined) return undefined;
    return decodeString(this.#bytes.subarray(at, at + length));
  }
}

/** What INFO and GO ask for. */
export interface InfoRequest {
  readonly name: string;
  /** Kinds of information wanted, `NbdInfo` and others. */
  readonly wanted: readonly number[];
}

/** Data of INFO and GO; undefined when it is malformed. */
export function decodeInfoRequest(data: Uint8Array): InfoRequest | undefined {
  const fields = new FieldReader(data);
  const name = fields.string();
  const count = fields.u16();
  if (name === undefined || count === undefined || fields.left !== count * 2) return undefined;
  const wanted: number[] = [];
  for (let i = 0; i < count; i++) wanted.push(fields.u16()!);
  return { name, wanted };
}

/** What LIST_META_CONTEXT and SET_META_CONTEXT ask for. */
export interface ContextRequest {
  readonly name: string;
  readonly queries: readonly string[];
}

/** Data of LIST_META_CONTEXT and SET_META_CONTEXT; undefined when it is malformed. */
export function decodeContextRequest(data: Uint8Array): ContextRequest | undefined {
  const fields = new FieldReader(data);
  const name = fields.string();
  const count = fields.u32();
  if (name === undefined || count === undefined) return undefined;
  // Every query takes 4 bytes at least, so a count beyond the data is found out before the loop.
  if (count * 4 > fields.left) return undefined;
  const queries: string[] = [];
  for (let i = 0; i < count; i++) {
    const query = fields.string();
    if (query === undefined) return undefined;
    queries.push(query);
  }
  return fields.left === 0 ? { name, queries } : undefined;
}

/**
 * True when the queries of a request find `base:allocation` ("The base: metadata namespace"): named
 * in full, or, when listing, by the bare namespace or by no query at all.
 */
export function selectsAllocation(option: number, queries: readonly string[]): boolean {
  if (queries.includes(ALLOCATION_CONTEXT)) return true;
  const isList = option === NbdOption.LIST_META_CONTEXT;
  return isList && (queries.length === 0 || queries.includes("base:"));
}

/** What a client is told of an export before it uses it. */
export interface ExportInfo {
  readonly name: string;
  readonly description: string;
  readonly sizeBytes: number;
  readonly transmissionFlags: number;
  readonly blockBytesMin: number;
  readonly blockBytesPreferred: number;
  readonly payloadBytesMax: number;
}

/** Answer to EXPORT_NAME: the only one that is no option reply. */
export function encodeExportNameAnswer(info: ExportInfo, noZeroes: boolean): Uint8Array {
  const PADDING_BYTES = 124;
  const bytes = new Uint8Array(10 + (noZeroes ? 0 : PADDING_BYTES));
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(info.sizeBytes));
  view.setUint16(8, info.transmissionFlags);
  return bytes;
}

/** Data of one INFO reply; undefined for kinds that there is nothing to say about. */
export function encodeInfo(kind: number, info: ExportInfo): Uint8Array | undefined {
  const withText = (text: string) => {
    const encoded = utf8.encode(text);
    const bytes = new Uint8Array(2 + encoded.byteLength);
    new DataView(bytes.buffer).setUint16(0, kind);
    bytes.set(encoded, 2);
    return bytes;
  };
  switch (kind) {
    case NbdInfo.EXPORT: {
      const bytes = new Uint8Array(12);
      const view = new DataView(bytes.buffer);
      view.setUint16(0, kind);
      view.setBigUint64(2, BigInt(info.sizeBytes));
      view.setUint16(10, info.transmissionFlags);
      return bytes;
    }
    case NbdInfo.BLOCK_SIZE: {
      const bytes = new Uint8Array(14);
      const view = new DataView(bytes.buffer);
      view.setUint16(0, kind);
      view.setUint32(2, info.blockBytesMin);
      view.setUint32(6, info.blockBytesPreferred);
      view.setUint32(10, info.payloadBytesMax);
      return bytes;
    }
    case NbdInfo.NAME:
      return withText(info.name);
    case NbdInfo.DESCRIPTION:
      return info.description === "" ? undefined : withText(info.description);
    default:
      return undefined;
  }
}

/** Data of a SERVER reply: one export of the list. */
export function encodeServer(name: string, description: string): Uint8Array {
  const nameBytes = utf8.encode(name);
  const descriptionBytes = utf8.encode(description);
  const bytes = new Uint8Array(4 + nameBytes.byteLength + descriptionBytes.byteLength);
  new DataView(bytes.buffer).setUint32(0, nameBytes.byteLength);
  bytes.set(nameBytes, 4);
  bytes.set(descriptionBytes, 4 + nameBytes.byteLength);
  return bytes;
}

/** Data of a META_CONTEXT reply. */
export function encodeContext(id: number, name: string): Uint8Array {
  const nameBytes = utf8.encode(name);
  const bytes = new Uint8Array(4 + nameBytes.byteLength);
  new DataView(bytes.buffer).setUint32(0, id);
  bytes.set(nameBytes, 4);
  return bytes;
}

/** Text that goes with an error reply. */
export function encodeText(text: string): Uint8Array {
  return utf8.encode(text);
}

// ---------------------------------------------------------------------------------- transmission

/** Command types. */
export const NbdCommand = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
} as const;

/** Command flags. */
export const CommandFlag = {
  FUA: 1 << 0,
  NO_HOLE: 1 << 1,
  DF: 1 << 2,
  REQ_ONE: 1 << 3,
  FAST_ZERO: 1 << 4,
} as const;

/** Flags that mean something with a command, by command type. FUA is accepted with every one. */
export const commandFlagsKnown: readonly number[] = [
  CommandFlag.FUA | CommandFlag.DF,
  CommandFlag.FUA,
  CommandFlag.FUA,
  CommandFlag.FUA,
  CommandFlag.FUA,
  CommandFlag.FUA,
  CommandFlag.FUA | CommandFlag.NO_HOLE | CommandFlag.FAST_ZERO,
  CommandFlag.FUA | CommandFlag.REQ_ONE,
];

/** Error values ("Error values"). */
export const NbdError = {
  OK: 0,
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;

/** Lengths of the fixed parts of the transmission phase, in bytes. */
export const NbdBytes = { REQUEST: 28, SIMPLE: 16, CHUNK: 20, DATA_CHUNK: 28, EXTENT: 8 } as const;

/** A read of this length or less must be answered in one chunk when the client asks for that. */
export const UNFRAGMENTED_BYTES_MIN = 65536;

/** Words of requests and replies as they lie in memory. */
export const NbdWord = {
  REQUEST_MAGIC: swap32(0x25609513),
  SIMPLE_MAGIC: swap32(0x67446698),
  CHUNK_MAGIC: swap32(0x668e33ef),
  /** Word 1 of a read and of a write without flags. */
  READ: swap32(NbdCommand.READ),
  WRITE: swap32(NbdCommand.WRITE),
  /** Word 1 of chunks: flags and type. */
  DATA: swap32(1),
  DATA_DONE: swap32((1 << 16) | 1),
  NONE_DONE: swap32(1 << 16),
  STATUS_DONE: swap32((1 << 16) | 5),
  ERROR_DONE: swap32((1 << 16) | 0x8001),
} as const;

/** A 64-bit number of two words that lie in memory at word index `w`. Exact below 2^53. */
export function wide(words: Int32Array, w: number): number {
  return (swap32(words[w]!) >>> 0) * TWO_32 + (swap32(words[w + 1]!) >>> 0);
}

const errorTexts = new Map<number, string>([
  [NbdError.EPERM, "not permitted: the export is read-only or reserved by another host"],
  [NbdError.EIO, "the device reported an I/O error"],
  [NbdError.ENOMEM, "out of memory"],
  [NbdError.EINVAL, "malformed, unaligned or beyond the end of the export"],
  [NbdError.ENOSPC, "no space left, or beyond the end of the export"],
  [NbdError.EOVERFLOW, "too long to be answered in one piece"],
  [NbdError.ENOTSUP, "not supported by the device, or not faster than writing"],
  [NbdError.ESHUTDOWN, "the volume has moved elsewhere"],
]);

/**
 * Payloads of error chunks by error: error, message length, message. The message is padded with
 * spaces so that the chunk is a whole number of words and what follows it stays aligned.
 */
export const errorPayloads: ReadonlyMap<number, Uint8Array> = new Map(
  [...errorTexts].map(([error, text]) => {
    const message = utf8.encode(text.padEnd(text.length + ((4 - ((text.length + 2) & 3)) & 3)));
    const bytes = new Uint8Array(6 + message.byteLength);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, error);
    view.setUint16(4, message.byteLength);
    bytes.set(message, 6);
    return [error, bytes];
  }),
);
