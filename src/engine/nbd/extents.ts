/** Answers to BLOCK_STATUS: which parts of a range hold data ("base:allocation metadata context"). */
import { assert } from "../../assert.ts";
import { CLUSTERS_PER_RUN_MAX, EXTENTS_MAX } from "./limits.ts";
import { ExtentFlag } from "./protocol.ts";

/** Knows which parts of a device hold nothing. */
export interface AllocationSource {
  /**
   * Length in bytes (whole blocks, at least one, at most `lengthMax`) of a run that starts at
   * `offset`; negative when the run is not allocated and reads as zeroes. Both arguments are whole
   * blocks inside the device. Called on the device's reactor; must not block.
   */
  runAt(offset: number, lengthMax: number): number;
}

/** A device that holds its data in clusters and can tell of each range whether it holds any. */
export interface ClusteredDevice {
  isAllocated(offset: number, length: number): boolean;
}

/** The allocation of a device whose clusters have `clusterBytes` (a power of two). */
export function clusterAllocation(device: ClusteredDevice, clusterBytes: number): AllocationSource {
  return {
    runAt(offset, lengthMax) {
      const isAllocated = device.isAllocated(offset, 1);
      const first = offset - (offset % clusterBytes);
      const end = Math.min(offset + lengthMax, first + CLUSTERS_PER_RUN_MAX * clusterBytes);
      let at = first + clusterBytes;
      while (at < end && device.isAllocated(at, 1) === isAllocated) at += clusterBytes;
      const length = Math.min(at, end) - offset;
      return isAllocated ? length : -length;
    },
  };
}

/**
 * Fills `extents` with pairs of length in bytes and flags for the range from `offset`, and returns
 * how many pairs. Neighbours with equal flags are one extent. Without a source all of it is data.
 * The range may be covered in part only, at least by one block. `extents` holds `2 * countMax`.
 */
export function fillExtents(
  source: AllocationSource | undefined,
  offset: number,
  length: number,
  extents: Float64Array,
  countMax: number,
): number {
  assert(length > 0 && extents.length >= countMax * 2, "a range and room for its extents");
  if (source === undefined) {
    extents[0] = length;
    extents[1] = 0;
    return 1;
  }
  let count = 0;
  let at = offset;
  const end = offset + length;
  for (let asked = 0; asked < EXTENTS_MAX && at < end; asked++) {
    const run = source.runAt(at, end - at);
    const runBytes = Math.abs(run);
    assert(runBytes > 0 && runBytes <= end - at, "a run lies inside what was asked for");
    const flags = run < 0 ? ExtentFlag.HOLE | ExtentFlag.ZERO : 0;
    if (count > 0 && extents[count * 2 - 1] === flags) {
      extents[count * 2 - 2] = extents[count * 2 - 2]! + runBytes;
    } else {
      if (count === countMax) break;
      extents[count * 2] = runBytes;
      extents[count * 2 + 1] = flags;
      count++;
    }
    at += runBytes;
  }
  return count;
}
