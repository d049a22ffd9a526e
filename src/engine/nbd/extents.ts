/** Answers to BLOCK_STATUS: which parts of a range hold data ("base:allocation metadata context"). */
import { assert } from "../../assert.ts";
import type { AllocationSource } from "./export.ts";
import { EXTENTS_MAX } from "./limits.ts";
import { ExtentFlag } from "./protocol.ts";

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
