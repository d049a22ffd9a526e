/**
 * What a pool's metadata says, and the one function that changes it: `applyRecord`. Pure.
 *
 * Import runs the records of a checkpoint and of the journal through it; the running pool runs each
 * record through it at the moment the record has become durable. Records from a disk are not
 * trusted: what cannot be is `Corrupted`.
 */
import { corrupted, type Decoder } from "./codec.ts";
import { INTENT_REGION_BYTES, OBJECT_CLUSTERS_MAX, OBJECTS_MAX } from "./limits.ts";
import {
  type AttributeMap,
  type CreateRecord,
  decodeAttributes,
  decodeCreate,
  FLAG_THIN,
  KIND_REPLICA,
  KIND_SNAPSHOT,
  RecordType,
} from "./records.ts";

/**
 * An entry of a cluster map: negative when the cluster is not mapped, else the number of the
 * physical cluster with two flags that exist in memory only. An entry without flags may be written
 * to directly: `entry >>> SHARED_SHIFT === 0` asks for it in one step.
 */
export const UNMAPPED = -1;
/** Not mapped, and an operation on it is under way. */
export const UNMAPPED_BUSY = -2;
/** Another object refers to the cluster too: it is copied before it is written. */
export const SHARED = 1 << 29;
/** An operation on the entry is under way: writes wait for it. */
export const BUSY = 1 << 30;
export const SHARED_SHIFT = 29;
export const CLUSTER_MASK = SHARED - 1;

/** Ids are counted up and never used again. */
const ID_MAX = 2 ** 31 - 1;

/** A replica or snapshot. */
export interface PoolObject {
  readonly id: number;
  /** `KIND_REPLICA` or `KIND_SNAPSHOT`. */
  readonly kind: number;
  readonly uuid: string;
  readonly family: number;
  readonly origin: number;
  sizeBytes: number;
  thin: boolean;
  /** Replaced, never changed in place. */
  attributes: AttributeMap;
  /** Entries by logical cluster. Replaced when the object is resized. */
  map: Int32Array;
  /** Write-intent: a bit per region, 1 when dirty. Replaced when the object is resized. */
  intents: Uint8Array;
  /** Entries that are mapped, and those of them that are shared. */
  mapped: number;
  shared: number;
  /** Clusters promised to operations under way. */
  promised: number;
  /** Free clusters kept back so that a thick replica never runs out. */
  reserved: number;
  /** A snapshot is being taken: everything is about to be shared. */
  pinned: boolean;
}

/** Told about changes, in the order in which they happen. */
export interface StateEffects {
  /** `source` is what the map was copied from, or null. */
  created(object: PoolObject, source: PoolObject | null): void;
  /** The object is no longer listed; its map is as it was. */
  deleted(object: PoolObject): void;
  /** Entries of the map are about to change. */
  mapWillChange(object: PoolObject): void;
  /** Entry `index` was `before` (with flags) and is now `cluster`, or `UNMAPPED`. */
  mapped(object: PoolObject, index: number, before: number, cluster: number): void;
  /** The write-intent bitmap is about to change. */
  intentsWillChange(object: PoolObject): void;
  /** Size, kind of provisioning or attributes are different now. */
  changed(object: PoolObject): void;
  /** A free cluster is no longer known to be zeroes. */
  tainted(cluster: number): void;
  /** Free clusters of which a checkpoint says that they were zeroes. */
  zeroed(firstByte: number, bits: Uint8Array): void;
  /** The checkpoint is complete. */
  ended(objects: number, mapped: number): void;
}

/** Metadata of one pool. */
export class PoolState {
  readonly blockSize: number;
  readonly clusterBytes: number;
  clusterCount: number;
  /** Entries that all maps may have together; the room for checkpoints bounds it. */
  entriesMax: number;
  entries = 0;
  nextId = 1;
  /** Counts objects made, deleted and resized: what is computed over several objects can be kept. */
  version = 0;
  readonly objects = new Map<number, PoolObject>();
  readonly byUuid = new Map<string, PoolObject>();
  readonly families = new Map<number, PoolObject[]>();

  constructor(blockSize: number, clusterBytes: number, clusterCount: number, entriesMax: number) {
    this.blockSize = blockSize;
    this.clusterBytes = clusterBytes;
    this.clusterCount = clusterCount;
    this.entriesMax = entriesMax;
  }

  /** Clusters of a device of `sizeBytes`. */
  clustersOf(sizeBytes: number): number {
    return Math.ceil(sizeBytes / this.clusterBytes);
  }
}

/** Bytes of the write-intent bitmap of a device of `sizeBytes`. */
export function intentBytesOf(sizeBytes: number): number {
  return Math.ceil(Math.ceil(sizeBytes / INTENT_REGION_BYTES) / 8);
}

function objectOf(state: PoolState, id: number): PoolObject {
  const object = state.objects.get(id);
  if (object === undefined) throw corrupted(`a record names object ${id}, which does not exist`);
  return object;
}

function checkRange(object: PoolObject, index: number, count: number): void {
  if (count < 1 || index + count > object.map.length) {
    throw corrupted(`a record names cluster ${index} of object ${object.id}, beyond its end`);
  }
}

function checkSize(state: PoolState, sizeBytes: number, entriesBefore: number): number {
  if (sizeBytes < state.blockSize || sizeBytes % state.blockSize !== 0) {
    throw corrupted(`an object has ${sizeBytes} bytes`);
  }
  const clusters = state.clustersOf(sizeBytes);
  if (clusters > OBJECT_CLUSTERS_MAX) throw corrupted(`an object has ${clusters} clusters`);
  if (state.entries - entriesBefore + clusters > state.entriesMax) {
    throw corrupted("the objects have more clusters than a checkpoint has room for");
  }
  return clusters;
}

function sourceOf(state: PoolState, r: CreateRecord): PoolObject | null {
  if (!r.copyMap) return null;
  const source = objectOf(state, r.origin);
  if (source.family !== r.family || source.sizeBytes !== r.sizeBytes) {
    throw corrupted(`object ${r.id} does not match object ${r.origin}, of which it is a copy`);
  }
  return source;
}

function create(state: PoolState, r: CreateRecord, effects: StateEffects): void {
  if (r.kind !== KIND_REPLICA && r.kind !== KIND_SNAPSHOT) {
    throw corrupted(`object ${r.id} is of unknown kind ${r.kind}`);
  }
  if (r.id > ID_MAX || r.family > ID_MAX) throw corrupted(`object id ${r.id} is out of range`);
  if (r.id === 0 || state.objects.has(r.id) || state.byUuid.has(r.uuid)) {
    throw corrupted(`object ${r.id} (${r.uuid}) is created twice`);
  }
  if (state.objects.size >= OBJECTS_MAX) throw corrupted("the pool has too many objects");
  const clusters = checkSize(state, r.sizeBytes, 0);
  const source = sourceOf(state, r);
  const map = new Int32Array(clusters).fill(UNMAPPED);
  if (source !== null) {
    for (let i = 0; i < clusters; i++) {
      const entry = source.map[i]!;
      if (entry >= 0) map[i] = entry & CLUSTER_MASK;
    }
  }
  const object: PoolObject = {
    id: r.id,
    kind: r.kind,
    uuid: r.uuid,
    family: r.family,
    origin: r.origin,
    sizeBytes: r.sizeBytes,
    thin: r.thin,
    attributes: r.attributes,
    map,
    intents: new Uint8Array(intentBytesOf(r.sizeBytes)),
    mapped: 0,
    shared: 0,
    promised: 0,
    reserved: 0,
    pinned: false,
  };
  state.objects.set(r.id, object);
  state.byUuid.set(r.uuid, object);
  state.entries += clusters;
  state.version++;
  state.nextId = Math.max(state.nextId, r.id + 1);
  const family = state.families.get(r.family);
  if (family === undefined) state.families.set(r.family, [object]);
  else family.push(object);
  effects.created(object, source);
}

function remove(state: PoolState, object: PoolObject, effects: StateEffects): void {
  state.objects.delete(object.id);
  state.byUuid.delete(object.uuid);
  state.entries -= object.map.length;
  state.version++;
  const family = state.families.get(object.family)!;
  family.splice(family.indexOf(object), 1);
  if (family.length === 0) state.families.delete(object.family);
  effects.deleted(object);
}

function resize(
  state: PoolState,
  object: PoolObject,
  sizeBytes: number,
  effects: StateEffects,
): void {
  if (sizeBytes < object.sizeBytes) throw corrupted(`object ${object.id} shrinks`);
  const clusters = checkSize(state, sizeBytes, object.map.length);
  state.entries += clusters - object.map.length;
  state.version++;
  effects.mapWillChange(object);
  effects.intentsWillChange(object);
  const map = new Int32Array(clusters).fill(UNMAPPED);
  map.set(object.map);
  const intents = new Uint8Array(intentBytesOf(sizeBytes));
  intents.set(object.intents);
  object.map = map;
  object.intents = intents;
  object.sizeBytes = sizeBytes;
  effects.changed(object);
}

function setEntry(
  state: PoolState,
  object: PoolObject,
  index: number,
  cluster: number,
  effects: StateEffects,
): void {
  if (cluster >= state.clusterCount) {
    throw corrupted(`object ${object.id} refers to cluster ${cluster}, beyond the pool's end`);
  }
  const before = object.map[index]!;
  object.map[index] = cluster;
  effects.mapped(object, index, before, cluster);
}

function mapRun(state: PoolState, d: Decoder, effects: StateEffects): void {
  const object = objectOf(state, d.u32());
  const index = d.u32();
  const count = d.u32();
  const cluster = d.u32();
  checkRange(object, index, count);
  if (cluster + count > state.clusterCount) {
    throw corrupted(`object ${object.id} refers to cluster ${cluster}, beyond the pool's end`);
  }
  effects.mapWillChange(object);
  for (let i = 0; i < count; i++) setEntry(state, object, index + i, cluster + i, effects);
}

function unmap(state: PoolState, d: Decoder, effects: StateEffects): void {
  const object = objectOf(state, d.u32());
  const index = d.u32();
  const count = d.u32();
  checkRange(object, index, count);
  effects.mapWillChange(object);
  for (let i = index; i < index + count; i++) setEntry(state, object, i, UNMAPPED, effects);
}

function mapRaw(state: PoolState, d: Decoder, effects: StateEffects): void {
  const object = objectOf(state, d.u32());
  const index = d.u32();
  const count = d.left >> 2;
  checkRange(object, index, count);
  effects.mapWillChange(object);
  for (let i = 0; i < count; i++) {
    const entry = d.u32() | 0;
    setEntry(state, object, index + i, entry < 0 ? UNMAPPED : entry, effects);
  }
}

function intentRanges(state: PoolState, d: Decoder, dirty: boolean, effects: StateEffects): void {
  const object = objectOf(state, d.u32());
  effects.intentsWillChange(object);
  const bits = object.intents;
  const regions = Math.ceil(object.sizeBytes / INTENT_REGION_BYTES);
  while (d.left > 0) {
    const first = d.u32();
    const count = d.u32();
    if (first + count > regions) throw corrupted(`a dirty region of object ${object.id} is beyond`);
    for (let region = first; region < first + count; region++) {
      const at = region >> 3;
      const bit = 1 << (region & 7);
      bits[at] = dirty ? bits[at]! | bit : bits[at]! & ~bit;
    }
  }
}

function intentRaw(state: PoolState, d: Decoder, effects: StateEffects): void {
  const object = objectOf(state, d.u32());
  const firstByte = d.u32();
  if (firstByte + d.left > object.intents.byteLength) {
    throw corrupted(`a dirty region of object ${object.id} is beyond its end`);
  }
  effects.intentsWillChange(object);
  object.intents.set(d.raw(d.left), firstByte);
}

function zeroedRaw(state: PoolState, d: Decoder, effects: StateEffects): void {
  const firstByte = d.u32();
  const bits = d.raw(d.left);
  if ((firstByte + bits.byteLength - 1) * 8 >= state.clusterCount) {
    throw corrupted("the map of zeroed clusters is longer than the pool");
  }
  effects.zeroed(firstByte, bits);
}

function set(state: PoolState, d: Decoder, effects: StateEffects): void {
  const object = objectOf(state, d.u32());
  object.thin = (d.u8() & FLAG_THIN) !== 0;
  const merged = new Map(object.attributes);
  for (const [tag, value] of decodeAttributes(d)) merged.set(tag, value);
  object.attributes = merged;
  effects.changed(object);
}

function taint(state: PoolState, cluster: number, effects: StateEffects): void {
  if (cluster >= state.clusterCount) throw corrupted(`cluster ${cluster} is beyond the pool's end`);
  effects.tainted(cluster);
}

/** Carries out one record. Throws `Corrupted` when the record is not possible in this state. */
export function applyRecord(
  state: PoolState,
  type: number,
  d: Decoder,
  effects: StateEffects,
): void {
  switch (type as RecordType) {
    case RecordType.CREATE:
      create(state, decodeCreate(d), effects);
      break;
    case RecordType.DELETE:
      remove(state, objectOf(state, d.u32()), effects);
      break;
    case RecordType.RESIZE:
      resize(state, objectOf(state, d.u32()), d.u64(), effects);
      break;
    case RecordType.SET:
      set(state, d, effects);
      break;
    case RecordType.MAP_RUN:
      mapRun(state, d, effects);
      break;
    case RecordType.UNMAP:
      unmap(state, d, effects);
      break;
    case RecordType.MAP_RAW:
      mapRaw(state, d, effects);
      break;
    case RecordType.INTENT_SET:
      intentRanges(state, d, true, effects);
      break;
    case RecordType.INTENT_CLEAR:
      intentRanges(state, d, false, effects);
      break;
    case RecordType.INTENT_RAW:
      intentRaw(state, d, effects);
      break;
    case RecordType.ZEROED_RAW:
      zeroedRaw(state, d, effects);
      break;
    case RecordType.TAINT:
      taint(state, d.u32(), effects);
      break;
    case RecordType.BEGIN:
      state.nextId = Math.max(state.nextId, d.u32());
      break;
    case RecordType.END:
      effects.ended(d.u32(), d.u64());
      break;
    default:
      throw corrupted(`a record is of unknown type ${type}`);
  }
  d.finish("a record");
}

/** A replica or snapshot as errors and reports name it. */
export function objectName(object: PoolObject): string {
  return object.kind === KIND_SNAPSHOT ? `snapshot ${object.uuid}` : `replica ${object.uuid}`;
}
