import { expect, test } from "bun:test";
import {
  openPage,
  PAGE_BYTES,
  PAGE_HEADER_BYTES,
  PAGE_PAYLOAD_BYTES,
  sealPage,
} from "../../../../src/engine/pool/checkpoint-format.ts";
import { CheckpointSource } from "../../../../src/engine/pool/checkpoint-source.ts";
import { forEachRecord, KIND_REPLICA, RecordEncoder } from "../../../../src/engine/pool/records.ts";
import {
  applyRecord,
  BUSY,
  PoolState,
  SHARED,
  type StateEffects,
  UNMAPPED_BUSY,
} from "../../../../src/engine/pool/state.ts";
import { withSeed } from "../../../support/random.ts";
import { KIB, MIB } from "./fixture.ts";

const CLUSTERS = 1 << 20;
const C = 64 * KIB;

const none: StateEffects = {
  created() {},
  deleted() {},
  mapWillChange() {},
  mapped() {},
  intentsWillChange() {},
  changed() {},
  tainted() {},
  zeroed() {},
  ended() {},
};

function state(): PoolState {
  return new PoolState(512, C, CLUSTERS, 1 << 24);
}

/** Applies what was encoded since the last call. */
function applyAll(target: PoolState, e: RecordEncoder, effects = none): void {
  forEachRecord(e.bytes, 0, e.at, (type, payload) => applyRecord(target, type, payload, effects));
  e.reset();
}

function uuid(id: number): string {
  return `00000000-0000-4000-8000-${id.toString(16).padStart(12, "0")}`;
}

function create(
  target: PoolState,
  e: RecordEncoder,
  id: number,
  sizeBytes: number,
  attributes = 9,
) {
  e.create({
    id,
    kind: KIND_REPLICA,
    thin: id % 2 === 0,
    copyMap: false,
    family: id,
    origin: 0,
    uuid: uuid(id),
    sizeBytes,
    attributes: new Map([[200, new Uint8Array(attributes).fill(id)]]),
  });
  applyAll(target, e);
  return target.objects.get(id)!;
}

/** Everything that a checkpoint has to preserve. */
function content(of: PoolState) {
  return {
    nextId: of.nextId,
    objects: [...of.objects.values()].map((o) => ({
      id: o.id,
      uuid: o.uuid,
      sizeBytes: o.sizeBytes,
      thin: o.thin,
      attributes: [...o.attributes],
      map: o.map.map((entry) => (entry < 0 ? -1 : entry & ~(SHARED | BUSY))),
      intents: o.intents.slice(),
    })),
  };
}

/** Writes a source out, calling `between` after each page, and loads the pages again. */
function rewritten(source: CheckpointSource, between: (page: number) => void) {
  const loaded = state();
  const zeroed = new Uint8Array(CLUSTERS / 8);
  const effects = {
    ...none,
    zeroed: (firstByte: number, bits: Uint8Array) => zeroed.set(bits, firstByte),
  };
  const e = new RecordEncoder(PAGE_PAYLOAD_BYTES);
  let pages = 0;
  for (let last = false; !last; pages++) {
    last = source.fill(e);
    applyAll(loaded, e, effects);
    between(pages);
  }
  return { loaded, zeroed, pages };
}

test("a checkpoint holds the state of one moment while everything changes", () => {
  withSeed(import.meta.path, (random) => {
    const pool = state();
    const e = new RecordEncoder(1 << 20);
    for (let id = 1; id <= 12; id++) {
      const object = create(
        pool,
        e,
        id,
        (1 + random.below(60_000)) * C - 512,
        random.below(20_000),
      );
      const { length } = object.map;
      for (let i = 0; i < 200; i++) {
        const index = random.below(length);
        const count = Math.min(length - index, 1 + random.below(i % 10 === 0 ? 3000 : 3));
        e.mapRun(id, index, count, random.below(CLUSTERS - count));
      }
      for (let i = 0; i < 3000 && id % 3 === 0; i++) {
        e.mapRun(id, random.below(length), 1, random.below(CLUSTERS)); // dense and scattered
      }
      e.intent(true, id, [random.below(Math.ceil(object.sizeBytes / (4 * MIB))), 1]);
      applyAll(pool, e);
    }
    const zeroed = random.bytes(CLUSTERS / 8).fill(0, 1000, 50_000);
    const before = content(pool);
    const source = new CheckpointSource(pool, zeroed.slice());
    const tell: StateEffects = {
      ...none,
      mapWillChange: (object) => source.mapWillChange(object),
      intentsWillChange: (object) => source.intentsWillChange(object),
    };
    const {
      loaded,
      zeroed: kept,
      pages,
    } = rewritten(source, () => {
      const ids = [...pool.objects.keys()];
      for (let i = 0; i < 3; i++) {
        const id = random.pick(ids);
        const object = pool.objects.get(id);
        if (object === undefined) continue;
        e.mapRun(id, random.below(object.map.length), 1, random.below(CLUSTERS));
        e.unmap(id, random.below(object.map.length), 1);
        e.intent(random.chance(0.5), id, [0, 1]);
        e.set(id, random.chance(0.5), new Map([[201, Uint8Array.of(i)]]));
      }
      applyAll(pool, e, tell);
      const id = random.pick(ids);
      const object = pool.objects.get(id);
      if (object !== undefined && random.chance(0.5)) e.resize(id, object.sizeBytes + 3 * C);
      if (object !== undefined && random.chance(0.2)) e.delete(id);
      applyAll(pool, e, tell);
    });
    expect(pages).toBeGreaterThan(5);
    expect(content(loaded)).toEqual(before);
    expect(Buffer.compare(kept, zeroed)).toBe(0);
  });
});

test("flags that exist in memory only do not get into a checkpoint", () => {
  const pool = state();
  const e = new RecordEncoder();
  const object = create(pool, e, 1, 10 * C);
  e.mapRun(1, 0, 4, 100);
  applyAll(pool, e);
  const before = content(pool);
  for (const [i, flags] of [
    [0, SHARED],
    [1, BUSY],
    [2, SHARED | BUSY],
  ] as const) {
    object.map[i] = object.map[i]! | flags;
  }
  object.map[7] = UNMAPPED_BUSY;
  const { loaded } = rewritten(new CheckpointSource(pool, new Uint8Array(0)), () => {});
  expect(content(loaded)).toEqual(before);
});

test("pages are checked as a whole", () => {
  const bytes = new Uint8Array(new ArrayBuffer(PAGE_BYTES));
  bytes.fill(0x77, PAGE_HEADER_BYTES, PAGE_HEADER_BYTES + 1000);
  const page = {
    number: 2 ** 33 + 1,
    position: { seq: 2 ** 34 + 7, chain: 0xfffffffe },
    incarnation: 5,
    page: 3,
    length: 1000,
    last: true,
  };
  sealPage(bytes, new DataView(bytes.buffer), 0, 42, page);
  expect(openPage(bytes, 42)).toEqual(page);
  expect(openPage(bytes, 43)).toBeNull();
  for (let at = 0; at < PAGE_BYTES; at += 61) {
    bytes[at] = bytes[at]! ^ 4;
    expect(openPage(bytes, 42)).toBeNull();
    bytes[at] = bytes[at]! ^ 4;
  }
  expect(openPage(bytes, 42)).toEqual(page);
});

test("impossible records are Corrupted", () => {
  const wrong: [string, (e: RecordEncoder) => void][] = [
    ["does not exist", (e) => e.delete(9)],
    ["does not exist", (e) => e.mapRun(9, 0, 1, 5)],
    ["beyond its end", (e) => e.mapRun(1, 10, 1, 5)],
    ["beyond its end", (e) => e.unmap(1, 9, 2)],
    ["beyond its end", (e) => e.unmap(1, 0, 0)],
    ["beyond the pool's end", (e) => e.mapRun(1, 0, 2, CLUSTERS - 1)],
    ["beyond the pool's end", (e) => e.taint(CLUSTERS)],
    ["shrinks", (e) => e.resize(1, C)],
    ["an object has 655871 bytes", (e) => e.resize(1, 10 * C + 511)],
    ["more clusters", (e) => e.resize(1, 2 ** 41)],
    ["dirty region", (e) => e.intent(true, 1, [1, 1])],
    ["dirty region", (e) => e.intentRaw(1, 0, new Uint8Array(2))],
    ["longer than the pool", (e) => e.zeroedRaw(CLUSTERS / 8, new Uint8Array(1))],
    ["unknown type", (e) => e.u16(99).u16(0)],
    ["longer than what holds it", (e) => e.u16(2).u16(8).u32(1)],
    ["before its last field", (e) => e.u16(2).u16(2).u16(1)],
    ["longer than its fields", (e) => e.u16(2).u16(8).u32(1).u32(1)],
  ];
  for (const [what, encode] of wrong) {
    const pool = state();
    const e = new RecordEncoder();
    create(pool, e, 1, 10 * C);
    encode(e);
    expect(() => applyAll(pool, e)).toThrow(what);
  }
  const base = {
    id: 2,
    kind: KIND_REPLICA,
    thin: true,
    copyMap: false,
    family: 2,
    origin: 0,
    uuid: uuid(2),
    sizeBytes: C,
    attributes: new Map<number, Uint8Array>(),
  };
  const creates: [string, Partial<typeof base>][] = [
    ["created twice", { id: 1 }],
    ["created twice", { uuid: uuid(1) }],
    ["created twice", { id: 0 }],
    ["unknown kind", { kind: 7 }],
    ["out of range", { id: 2 ** 31 }],
    ["0 bytes", { sizeBytes: 0 }],
    ["does not exist", { copyMap: true, origin: 5 }],
    ["of which it is a copy", { copyMap: true, origin: 1 }],
    ["of which it is a copy", { copyMap: true, origin: 1, family: 1 }],
  ];
  for (const [what, change] of creates) {
    const pool = state();
    const e = new RecordEncoder();
    create(pool, e, 1, 10 * C);
    e.create({ ...base, ...change });
    expect(() => applyAll(pool, e)).toThrow(what);
  }
});
