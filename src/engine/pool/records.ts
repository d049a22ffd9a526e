/**
 * Records: what a pool's journal and checkpoints consist of. Pure. Little-endian.
 *
 * A record is absolute ("cluster 7 of object 3 is now 1234") and one record is one step: it happens
 * as a whole or not at all. Journal and checkpoint use the same records, and the running pool
 * changes its memory by the same function that import uses (state.ts), so what is in memory is by
 * construction what a restart would find.
 *
 * Every record: type u16, payload length u16, payload.
 *
 * | type | name          | payload                                                                  |
 * |------|---------------|--------------------------------------------------------------------------|
 * | 1    | CREATE        | id u32, kind u8 (1 replica, 2 snapshot), flags u8 (1 thin, 2 copy map),  |
 * |      |               | family u32, origin u32, uuid 16, size u64, attributes                    |
 * | 2    | DELETE        | id u32                                                                   |
 * | 3    | RESIZE        | id u32, size u64                                                         |
 * | 4    | SET           | id u32, flags u8 (1 thin), attributes to replace                         |
 * | 5    | MAP_RUN       | id u32, index u32, count u32, cluster u32: neighbours map to neighbours  |
 * | 6    | UNMAP         | id u32, index u32, count u32                                             |
 * | 7    | MAP_RAW       | id u32, index u32, count x cluster i32 (-1: unmapped)                    |
 * | 8    | INTENT_SET    | id u32, count x (first region u32, regions u32)                          |
 * | 9    | INTENT_CLEAR  | as INTENT_SET                                                            |
 * | 10   | INTENT_RAW    | id u32, first byte u32, bytes of the bitmap                              |
 * | 11   | ZEROED_RAW    | first byte u32, bytes of the bitmap of free clusters known to be zeroes  |
 * | 12   | TAINT         | cluster u32: free, and no longer known to be zeroes                      |
 * | 13   | BEGIN         | next object id u32; first record of a checkpoint                         |
 * | 14   | END           | objects u32, mapped clusters u64; last record of a checkpoint            |
 *
 * CREATE with "copy map" takes the map of its origin as it is at that point: that is a snapshot
 * (kind 2) or a clone (kind 1). Objects that share clusters have the same family.
 *
 * Attributes are a list of: tag u8, length u16, bytes (attributes.ts). Unknown tags are kept.
 */
import { corrupted, Decoder, Encoder } from "./codec.ts";
import { ATTRIBUTE_BYTES_MAX } from "./limits.ts";

export const RecordType = {
  CREATE: 1,
  DELETE: 2,
  RESIZE: 3,
  SET: 4,
  MAP_RUN: 5,
  UNMAP: 6,
  MAP_RAW: 7,
  INTENT_SET: 8,
  INTENT_CLEAR: 9,
  INTENT_RAW: 10,
  ZEROED_RAW: 11,
  TAINT: 12,
  BEGIN: 13,
  END: 14,
} as const;
export type RecordType = (typeof RecordType)[keyof typeof RecordType];

export const KIND_REPLICA = 1;
export const KIND_SNAPSHOT = 2;
export const FLAG_THIN = 1;
export const FLAG_COPY_MAP = 2;

export const RECORD_HEADER_BYTES = 4;
/** The longest record: a CREATE with all the attributes an object may have. */
export const RECORD_BYTES_MAX = ATTRIBUTE_BYTES_MAX + 256;

/** Attributes as they are stored: bytes by tag. Never changed in place. */
export type AttributeMap = ReadonlyMap<number, Uint8Array>;

/** The fields of a CREATE. */
export interface CreateRecord {
  readonly id: number;
  readonly kind: number;
  readonly thin: boolean;
  readonly copyMap: boolean;
  readonly family: number;
  /** The object it was made from, 0 when none. It need not exist any more. */
  readonly origin: number;
  readonly uuid: string;
  readonly sizeBytes: number;
  readonly attributes: AttributeMap;
}

/** Bytes that attributes take in a record. */
export function attributeBytes(attributes: AttributeMap): number {
  let bytes = 0;
  for (const value of attributes.values()) bytes += 3 + value.byteLength;
  return bytes;
}

/** Encodes records one after the other into its buffer; whoever uses it takes `bytes[0..at)`. */
export class RecordEncoder extends Encoder {
  #start = 0;

  constructor(byteLength = RECORD_BYTES_MAX) {
    super(byteLength);
  }

  #begin(type: RecordType): this {
    this.#start = this.at;
    return this.u16(type).u16(0);
  }

  #end(): this {
    this.view.setUint16(this.#start + 2, this.at - this.#start - RECORD_HEADER_BYTES, true);
    return this;
  }

  #attributes(attributes: AttributeMap): this {
    for (const [tag, value] of attributes) this.u8(tag).sized(value);
    return this;
  }

  create(r: CreateRecord): this {
    const flags = (r.thin ? FLAG_THIN : 0) | (r.copyMap ? FLAG_COPY_MAP : 0);
    this.#begin(RecordType.CREATE).u32(r.id).u8(r.kind).u8(flags).u32(r.family).u32(r.origin);
    return this.uuid(r.uuid).u64(r.sizeBytes).#attributes(r.attributes).#end();
  }

  delete(id: number): this {
    return this.#begin(RecordType.DELETE).u32(id).#end();
  }

  resize(id: number, sizeBytes: number): this {
    return this.#begin(RecordType.RESIZE).u32(id).u64(sizeBytes).#end();
  }

  set(id: number, thin: boolean, attributes: AttributeMap): this {
    this.#begin(RecordType.SET).u32(id);
    return this.u8(thin ? FLAG_THIN : 0)
      .#attributes(attributes)
      .#end();
  }

  mapRun(id: number, index: number, count: number, cluster: number): this {
    this.#begin(RecordType.MAP_RUN).u32(id).u32(index);
    return this.u32(count).u32(cluster).#end();
  }

  unmap(id: number, index: number, count: number): this {
    return this.#begin(RecordType.UNMAP).u32(id).u32(index).u32(count).#end();
  }

  /** `map[from, to)` with everything above `mask` taken off the entries that are mapped. */
  mapRaw(id: number, map: Int32Array, from: number, to: number, mask: number): this {
    this.#begin(RecordType.MAP_RAW).u32(id).u32(from);
    for (let i = from; i < to; i++) {
      const entry = map[i]!;
      this.view.setInt32(this.at, entry < 0 ? -1 : entry & mask, true);
      this.at += 4;
    }
    return this.#end();
  }

  /** Sets or clears ranges of regions, given as pairs (first, count). */
  intent(set: boolean, id: number, ranges: ArrayLike<number>): this {
    this.#begin(set ? RecordType.INTENT_SET : RecordType.INTENT_CLEAR).u32(id);
    for (let i = 0; i < ranges.length; i++) this.u32(ranges[i]!);
    return this.#end();
  }

  intentRaw(id: number, firstByte: number, bytes: Uint8Array): this {
    return this.#begin(RecordType.INTENT_RAW).u32(id).u32(firstByte).raw(bytes).#end();
  }

  zeroedRaw(firstByte: number, bytes: Uint8Array): this {
    return this.#begin(RecordType.ZEROED_RAW).u32(firstByte).raw(bytes).#end();
  }

  taint(cluster: number): this {
    return this.#begin(RecordType.TAINT).u32(cluster).#end();
  }

  begin(nextId: number): this {
    return this.#begin(RecordType.BEGIN).u32(nextId).#end();
  }

  end(objects: number, mapped: number): this {
    return this.#begin(RecordType.END).u32(objects).u64(mapped).#end();
  }
}

/** Reads the attributes up to the end of the record. */
export function decodeAttributes(d: Decoder): Map<number, Uint8Array> {
  const attributes = new Map<number, Uint8Array>();
  while (d.left > 0) attributes.set(d.u8(), d.sized());
  return attributes;
}

/** Reads the payload of a CREATE. */
export function decodeCreate(d: Decoder): CreateRecord {
  const id = d.u32();
  const kind = d.u8();
  const flags = d.u8();
  const family = d.u32();
  const origin = d.u32();
  const uuid = d.uuid();
  const sizeBytes = d.u64();
  const attributes = decodeAttributes(d);
  const thin = (flags & FLAG_THIN) !== 0;
  const copyMap = (flags & FLAG_COPY_MAP) !== 0;
  return { id, kind, thin, copyMap, family, origin, uuid, sizeBytes, attributes };
}

/**
 * Calls `apply` for each record in `bytes[from, to)` with a decoder set to its payload. Throws
 * `Corrupted` when a record leaves the range.
 */
export function forEachRecord(
  bytes: Uint8Array,
  from: number,
  to: number,
  apply: (type: number, payload: Decoder) => void,
): void {
  const d = new Decoder(bytes, from, to);
  const payload = new Decoder(bytes, from, from);
  while (d.left > 0) {
    const type = d.u16();
    const length = d.u16();
    if (length > d.left) throw corrupted("a record is longer than what holds it");
    payload.at = d.at;
    d.at += length;
    payload.end = d.at;
    apply(type, payload);
  }
}
