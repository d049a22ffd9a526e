/** Extents of the disk that together hold one metadata structure, addressed as one range of bytes. */
import { assert } from "../../assert.ts";

/** A range of the disk, in bytes; multiples of `GRANULE_BYTES`. */
export interface Extent {
  readonly offset: number;
  readonly bytes: number;
}

/** The concatenation of extents. Grows at its end only, so an address once valid stays valid. */
export class Area {
  extents: Extent[];
  bytes: number;

  constructor(extents: readonly Extent[]) {
    this.extents = [...extents];
    this.bytes = extents.reduce((sum, extent) => sum + extent.bytes, 0);
  }

  /** Takes over a longer list that begins as the present one does. */
  replace(extents: readonly Extent[]): void {
    const bytes = extents.reduce((sum, extent) => sum + extent.bytes, 0);
    assert(bytes >= this.bytes, "an area does not shrink");
    this.extents = [...extents];
    this.bytes = bytes;
  }

  /** Where byte `at` of the area lies on the disk. */
  offsetOf(at: number): number {
    let start = 0;
    for (const extent of this.extents) {
      if (at < start + extent.bytes) return extent.offset + (at - start);
      start += extent.bytes;
    }
    throw new RangeError(`byte ${at} lies outside a metadata area of ${this.bytes}`);
  }

  /** How many bytes from `at` on lie next to each other on the disk. */
  contiguousAt(at: number): number {
    let start = 0;
    for (const extent of this.extents) {
      if (at < start + extent.bytes) return start + extent.bytes - at;
      start += extent.bytes;
    }
    return 0;
  }

  /** The pieces of [at, at + length) on the disk. */
  pieces(at: number, length: number): Extent[] {
    assert(at >= 0 && at + length <= this.bytes, "a metadata access stays inside its area");
    const pieces: Extent[] = [];
    let done = 0;
    while (done < length) {
      const bytes = Math.min(this.contiguousAt(at + done), length - done);
      pieces.push({ offset: this.offsetOf(at + done), bytes });
      done += bytes;
    }
    return pieces;
  }
}
