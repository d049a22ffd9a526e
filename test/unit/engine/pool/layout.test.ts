import { expect, test } from "bun:test";
import { Area } from "../../../../src/engine/pool/area.ts";
import {
  checkpointSlotBytes,
  journalBytesFor,
  objectCheckpointBytes,
  planLayout,
} from "../../../../src/engine/pool/layout.ts";
import { GRANULE_BYTES } from "../../../../src/engine/pool/limits.ts";
import {
  decodeSuperblock,
  encodeSuperblock,
  metadataClusters,
} from "../../../../src/engine/pool/superblock.ts";
import { TrilithError } from "../../../../src/errors.ts";
import { KIB, MIB } from "./fixture.ts";

const GIB = 1024 * MIB;
const TIB = 1024 * GIB;

function superblockOf(deviceBytes: number, clusterBytes: number) {
  const plan = planLayout(deviceBytes, clusterBytes);
  return {
    name: "p",
    uuid: "0c0ffee0-1234-4abc-8def-0123456789ab",
    tag: 1,
    blockSize: 512,
    clusterBytes,
    clusterCount: plan.clusterCount,
    deviceBytes,
    generation: 1,
    compatible: 0,
    slots: plan.slots,
    rings: plan.rings,
  };
}

test("plans for all sizes are valid geometry with room for data", () => {
  for (let shift = 16; shift <= 30; shift++) {
    const clusterBytes = 2 ** shift;
    for (const deviceBytes of [16 * MIB, 100 * MIB + 4096, 10 * GIB, 3 * TIB]) {
      const clusters = Math.floor(deviceBytes / clusterBytes);
      if (clusters < 8 || clusters > 2 ** 26) continue;
      const superblock = superblockOf(deviceBytes, clusterBytes);
      // Decoding checks alignment, bounds and overlaps.
      expect(decodeSuperblock(encodeSuperblock(superblock)).kind).toBe("valid");
      const metadata = metadataClusters(superblock).length;
      expect(metadata).toBeLessThan(clusters);
      // Metadata is a small part of all but the smallest pools.
      if (clusters > 1000) expect(metadata / clusters).toBeLessThan(0.05);
    }
  }
});

test("both slots hold a checkpoint of a pool that one replica maps in the worst way", () => {
  for (const [deviceBytes, clusterBytes] of [
    [64 * MIB, 64 * KIB],
    [TIB, 4 * MIB],
    [4 * GIB, 64 * KIB],
  ] as const) {
    const { slots, clusterCount } = planLayout(deviceBytes, clusterBytes);
    const worst = objectCheckpointBytes(deviceBytes, clusterBytes, 4096);
    const needed = checkpointSlotBytes(worst, clusterCount);
    for (const slot of slots) expect(new Area(slot).bytes).toBeGreaterThanOrEqual(needed);
    expect(needed).toBeGreaterThan(clusterCount * 4);
  }
});

test("the halves lie at the two ends of the disk", () => {
  const { slots, rings } = planLayout(64 * GIB, 4 * MIB);
  expect(rings[0][0]!.offset).toBe(GRANULE_BYTES);
  expect(rings[1][0]!.offset).toBeGreaterThan(63 * GIB);
  expect(slots[1][0]!.offset).toBeGreaterThan(63 * GIB);
});

test("a disk that is too small is refused with a size that is not", () => {
  for (const clusterBytes of [64 * KIB, 4 * MIB, GIB]) {
    let minimum = 0;
    try {
      planLayout(clusterBytes, clusterBytes);
    } catch (error) {
      expect(error).toBeInstanceOf(TrilithError);
      expect((error as TrilithError).code).toBe("InvalidArgument");
      minimum = Number(/at least (\d+) bytes/.exec((error as TrilithError).remedy)?.[1]);
    }
    expect(minimum).toBeGreaterThan(0);
    expect(() => planLayout(minimum, clusterBytes)).not.toThrow();
    expect(() => planLayout(minimum - clusterBytes, clusterBytes)).toThrow("too few");
  }
});

test("too many clusters are refused with the cluster size that would do", () => {
  expect(() => planLayout(8 * TIB, 64 * KIB)).toThrow("clusters of 65536 bytes");
  try {
    planLayout(8 * TIB, 64 * KIB);
  } catch (error) {
    expect((error as TrilithError).code).toBe("ResourceExhausted");
    expect((error as TrilithError).remedy).toContain("at least 131072 bytes");
  }
  expect(() => planLayout(8 * TIB, 128 * KIB)).not.toThrow();
});

test("cluster sizes are powers of two from 64 KiB to 1 GiB", () => {
  for (const wrong of [0, 1, 32 * KIB, 96 * KIB, 2 * GIB, Number.NaN, 65537]) {
    expect(() => planLayout(TIB, wrong)).toThrow("power of two");
  }
});

test("journal rings grow with the disk between their limits", () => {
  expect(journalBytesFor(10 * MIB)).toBe(512 * KIB);
  expect(journalBytesFor(8 * GIB)).toBe(4 * MIB);
  expect(journalBytesFor(100 * TIB)).toBe(16 * MIB);
});

test("an area maps its bytes over its extents", () => {
  const area = new Area([
    { offset: 100, bytes: 10 },
    { offset: 500, bytes: 20 },
  ]);
  expect(area.bytes).toBe(30);
  expect([area.offsetOf(0), area.offsetOf(9), area.offsetOf(10), area.offsetOf(29)]).toEqual([
    100, 109, 500, 519,
  ]);
  expect(area.pieces(5, 10)).toEqual([
    { offset: 105, bytes: 5 },
    { offset: 500, bytes: 5 },
  ]);
  expect(area.pieces(0, 0)).toEqual([]);
  expect(() => area.pieces(25, 10)).toThrow("inside its area");
});
