/**
 * The metadata of a pool as it was at one moment, turned into records a page at a time while the
 * pool goes on changing.
 *
 * What is captured at the start is cheap: references to maps, bitmaps and attributes. Before the
 * pool changes a map or bitmap that was captured and not yet written out, it says so, and the old
 * content is set aside (`mapWillChange`, `intentsWillChange`). Attributes are replaced as a whole,
 * never changed, so a reference to them is a copy.
 */
import { PAGE_PAYLOAD_BYTES } from "./checkpoint-format.ts";
import { BITMAP_CHUNK_BYTES, MAP_CHUNK_ENTRIES } from "./limits.ts";
import { type AttributeMap, attributeBytes, type RecordEncoder } from "./records.ts";
import { CLUSTER_MASK, type PoolObject, type PoolState } from "./state.ts";

interface Captured {
  readonly object: PoolObject;
  readonly sizeBytes: number;
  readonly thin: boolean;
  readonly attributes: AttributeMap;
  map: Int32Array;
  intents: Uint8Array;
}

/** Head of a record and the fields before a list of entries. */
const FIXED_BYTES = 64;
/** Runs of neighbours pay as long as they take less than the raw form. */
const RUN_BYTES = 20;

export class CheckpointSource {
  readonly #items: Captured[] = [];
  readonly #byObject = new Map<PoolObject, Captured>();
  readonly #nextId: number;
  readonly #zeroed: Uint8Array;
  /** The item being written out, and how far: -1 nothing, 0.. entries of the map. */
  #item = 0;
  #mapAt = -1;
  #intentAt = 0;
  #zeroedAt = 0;
  #begun = false;
  #mapped = 0;

  /** `zeroed` is a bitmap of the free clusters known to be zeroes; the source keeps it. */
  constructor(state: PoolState, zeroed: Uint8Array) {
    this.#nextId = state.nextId;
    this.#zeroed = zeroed;
    for (const object of state.objects.values()) {
      const { sizeBytes, thin, attributes, map, intents } = object;
      const item = { object, sizeBytes, thin, attributes, map, intents };
      this.#items.push(item);
      this.#byObject.set(object, item);
    }
  }

  /** The object's map is about to change. */
  mapWillChange(object: PoolObject): void {
    const item = this.#byObject.get(object);
    if (item !== undefined && item.map === object.map) item.map = object.map.slice();
  }

  /** The object's write-intent bitmap is about to change. */
  intentsWillChange(object: PoolObject): void {
    const item = this.#byObject.get(object);
    if (item !== undefined && item.intents === object.intents)
      item.intents = object.intents.slice();
  }

  /** Adds records to `e`, one page's worth at most. True when the last one was added. */
  fill(e: RecordEncoder): boolean {
    if (!this.#begun) {
      e.begin(this.#nextId);
      this.#begun = true;
    }
    while (this.#item < this.#items.length) {
      if (!this.#fillItem(e, this.#items[this.#item]!)) return false;
      this.#byObject.delete(this.#items[this.#item]!.object);
      this.#item++;
      this.#mapAt = -1;
      this.#intentAt = 0;
    }
    while (this.#zeroedAt < this.#zeroed.byteLength) {
      if (!fits(e, BITMAP_CHUNK_BYTES)) return false;
      const chunk = this.#zeroed.subarray(this.#zeroedAt, this.#zeroedAt + BITMAP_CHUNK_BYTES);
      if (!isZero(chunk)) e.zeroedRaw(this.#zeroedAt, chunk);
      this.#zeroedAt += BITMAP_CHUNK_BYTES;
    }
    if (!fits(e, 0)) return false;
    e.end(this.#items.length, this.#mapped);
    return true;
  }

  /** Goes on with one object; false when the page is full. */
  #fillItem(e: RecordEncoder, item: Captured): boolean {
    const { id, kind, family, origin, uuid } = item.object;
    if (this.#mapAt < 0) {
      if (!fits(e, attributeBytes(item.attributes))) return false;
      const { thin, sizeBytes, attributes } = item;
      e.create({ id, kind, thin, copyMap: false, family, origin, uuid, sizeBytes, attributes });
      this.#mapAt = 0;
    }
    while (this.#mapAt < item.map.length) {
      const end = Math.min(item.map.length, this.#mapAt + MAP_CHUNK_ENTRIES);
      if (!fits(e, (end - this.#mapAt) * 4)) return false;
      this.#mapped += encodeChunk(e, id, item.map, this.#mapAt, end);
      this.#mapAt = end;
    }
    while (this.#intentAt < item.intents.byteLength) {
      if (!fits(e, BITMAP_CHUNK_BYTES)) return false;
      const chunk = item.intents.subarray(this.#intentAt, this.#intentAt + BITMAP_CHUNK_BYTES);
      if (!isZero(chunk)) e.intentRaw(id, this.#intentAt, chunk);
      this.#intentAt += BITMAP_CHUNK_BYTES;
    }
    return true;
  }
}

function fits(e: RecordEncoder, variableBytes: number): boolean {
  return e.at + FIXED_BYTES + variableBytes <= PAGE_PAYLOAD_BYTES;
}

function isZero(bytes: Uint8Array): boolean {
  for (const byte of bytes) if (byte !== 0) return false;
  return true;
}

/** Where the run of neighbours that starts at `from` ends. An unmapped entry is a run of its own. */
function runEnd(map: Int32Array, from: number, to: number): number {
  const first = map[from]! & CLUSTER_MASK;
  let end = from + 1;
  while (end < to && map[end]! >= 0 && (map[end]! & CLUSTER_MASK) === first + (end - from)) end++;
  return end;
}

/** Writes entries [from, to) in the shorter of the two forms; returns how many are mapped. */
function encodeChunk(
  e: RecordEncoder,
  id: number,
  map: Int32Array,
  from: number,
  to: number,
): number {
  let runs = 0;
  let mapped = 0;
  for (let i = from; i < to; ) {
    if (map[i]! < 0) {
      i++;
      continue;
    }
    const end = runEnd(map, i, to);
    runs++;
    mapped += end - i;
    i = end;
  }
  if (runs === 0) return 0;
  if (runs * RUN_BYTES > (to - from) * 4) {
    e.mapRaw(id, map, from, to, CLUSTER_MASK);
    return mapped;
  }
  for (let i = from; i < to; ) {
    if (map[i]! < 0) {
      i++;
      continue;
    }
    const end = runEnd(map, i, to);
    e.mapRun(id, i, end - i, map[i]! & CLUSTER_MASK);
    i = end;
  }
  return mapped;
}
