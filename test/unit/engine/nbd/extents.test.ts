import { describe, expect, test } from "bun:test";
import { clusterAllocation, fillExtents } from "../../../../src/engine/nbd/extents.ts";
import { CLUSTERS_PER_RUN_MAX, EXTENTS_MAX } from "../../../../src/engine/nbd/limits.ts";

/** A source whose blocks of 512 bytes are data where `map` has a "d". */
function sourceOf(map: string, runMax = Number.POSITIVE_INFINITY) {
  return {
    runAt(offset: number, lengthMax: number) {
      let end = offset / 512;
      const kind = map[end];
      while (map[end] === kind && end - offset / 512 < runMax) end++;
      const length = Math.min(lengthMax, end * 512 - offset);
      return kind === "d" ? length : -length;
    },
  };
}

function extentsOf(map: string, offset: number, length: number, countMax = 128, runMax?: number) {
  const extents = new Float64Array(countMax * 2);
  const count = fillExtents(sourceOf(map, runMax), offset, length, extents, countMax);
  return [...extents.subarray(0, count * 2)];
}

describe("extents", () => {
  test("are one of data when nobody knows better", () => {
    const extents = new Float64Array(2);
    expect(fillExtents(undefined, 512, 4096, extents, 1)).toBe(1);
    expect([...extents]).toEqual([4096, 0]);
  });

  test("tell holes that read as zeroes from data", () => {
    expect(extentsOf("ddhhhd", 0, 6 * 512)).toEqual([1024, 0, 1536, 3, 512, 0]);
    expect(extentsOf("ddhhhd", 512, 4 * 512)).toEqual([512, 0, 1536, 3]);
  });

  test("are joined when the source gives them in pieces", () => {
    expect(extentsOf("ddddhh", 0, 6 * 512, 128, 1)).toEqual([2048, 0, 1024, 3]);
  });

  test("stop at the number asked for", () => {
    expect(extentsOf("ddhhd", 0, 5 * 512, 1)).toEqual([1024, 0]);
    expect(extentsOf("dhdhd", 0, 5 * 512, 3)).toEqual([512, 0, 512, 3, 512, 0]);
  });

  test("stop after a bounded number of questions", () => {
    const blocks = EXTENTS_MAX * 3;
    expect(extentsOf("d".repeat(blocks), 0, blocks * 512, 128, 1)).toEqual([EXTENTS_MAX * 512, 0]);
  });
});

describe("clusters", () => {
  const CLUSTER = 65536;
  const device = (map: string) => ({
    isAllocated: (offset: number, length: number) =>
      map.slice(Math.floor(offset / CLUSTER), Math.ceil((offset + length) / CLUSTER)).includes("d"),
  });
  const run = (map: string, offset: number, lengthMax: number) =>
    clusterAllocation(device(map), CLUSTER).runAt(offset, lengthMax);

  test("make runs, of data or of nothing", () => {
    expect(run("dd--d", 0, 5 * CLUSTER)).toBe(2 * CLUSTER);
    expect(run("dd--d", 2 * CLUSTER, 3 * CLUSTER)).toBe(-2 * CLUSTER);
    expect(run("dd--d", 4 * CLUSTER, CLUSTER)).toBe(CLUSTER);
  });

  test("may be entered and left in the middle", () => {
    expect(run("dd--d", 512, 5 * CLUSTER - 512)).toBe(2 * CLUSTER - 512);
    expect(run("dd--d", 3 * CLUSTER - 512, 1024)).toBe(-1024);
    expect(run("dd--d", 512, 1024)).toBe(1024);
  });

  test("are looked at in bounded numbers", () => {
    const blocks = CLUSTERS_PER_RUN_MAX * 2;
    expect(run("d".repeat(blocks), 0, blocks * CLUSTER)).toBe(CLUSTERS_PER_RUN_MAX * CLUSTER);
  });
});
