/**
 * The nexus's view of the write-intent log (DESIGN 6.4): which 4 MiB regions are marked dirty on
 * every child, which have writes in flight, and which have been idle long enough to be cleaned.
 *
 * A write may start only when all its regions are DIRTY. MARKING and CLEANING are the two states in
 * which a region's writes wait; both end in `Regions.settle`.
 */
import { assert } from "../../assert.ts";
import { REGION_BYTES, REGIONS_AHEAD } from "./limits.ts";

/** State of a region. */
export const RegionState = {
  /** Not known to be marked: a write must mark it first. */
  CLEAN: 0,
  /** A mark is on its way to the children. */
  MARKING: 1,
  /** Marked durably on every child that takes writes. */
  DIRTY: 2,
  /** The marks are being taken off. */
  CLEANING: 3,
} as const;

export class Regions {
  #count: number;
  #state: Uint8Array;
  #inFlight: Uint16Array;
  /** Period (modulo 256) in which the region was last written. */
  #touched: Uint8Array;
  #period = 0;
  #wanted: number[] = [];
  /** Regions in state DIRTY. */
  readonly #dirty = new Set<number>();

  constructor(deviceBytes: number) {
    this.#count = Math.ceil(deviceBytes / REGION_BYTES);
    this.#state = new Uint8Array(this.#count);
    this.#inFlight = new Uint16Array(this.#count);
    this.#touched = new Uint8Array(this.#count);
  }

  get count(): number {
    return this.#count;
  }

  /** Follows a device that grew. */
  grow(deviceBytes: number): void {
    const count = Math.ceil(deviceBytes / REGION_BYTES);
    assert(count >= this.#count, "a nexus does not shrink");
    const larger = <T extends Uint8Array | Uint16Array>(from: T, to: T): T => {
      to.set(from);
      return to;
    };
    this.#state = larger(this.#state, new Uint8Array(count));
    this.#inFlight = larger(this.#inFlight, new Uint16Array(count));
    this.#touched = larger(this.#touched, new Uint8Array(count));
    this.#count = count;
  }

  stateOf(region: number): number {
    return this.#state[region]!;
  }

  /** Dirty regions, in no particular order. */
  dirty(): number[] {
    return [...this.#dirty];
  }

  get dirtyCount(): number {
    return this.#dirty.size;
  }

  /**
   * Counts a write in when all its regions are dirty. Otherwise nothing is counted, the missing
   * regions are added to those wanted, and the write has to wait.
   */
  begin(offset: number, length: number): boolean {
    const first = Math.floor(offset / REGION_BYTES);
    const last = Math.floor((offset + length - 1) / REGION_BYTES);
    const state = this.#state;
    for (let r = first; r <= last; r++) {
      if (state[r] !== RegionState.DIRTY) {
        this.#want(r, last);
        return false;
      }
    }
    for (let r = first; r <= last; r++) {
      this.#inFlight[r] = this.#inFlight[r]! + 1;
      this.#touched[r] = this.#period;
    }
    return true;
  }

  /**
   * Counts in what is stored without a mark, so that the regions are not cleaned meanwhile; to be
   * counted out like a write. False: one is being cleaned, nothing is counted.
   */
  hold(offset: number, length: number): boolean {
    const first = Math.floor(offset / REGION_BYTES);
    const last = Math.floor((offset + length - 1) / REGION_BYTES);
    for (let r = first; r <= last; r++) {
      if (this.#state[r] === RegionState.CLEANING) return false;
    }
    for (let r = first; r <= last; r++) this.#inFlight[r] = this.#inFlight[r]! + 1;
    return true;
  }

  /** Counts a write out. */
  end(offset: number, length: number): void {
    const first = Math.floor(offset / REGION_BYTES);
    const last = Math.floor((offset + length - 1) / REGION_BYTES);
    for (let r = first; r <= last; r++) {
      assert(this.#inFlight[r]! > 0, "a write ends once");
      this.#inFlight[r] = this.#inFlight[r]! - 1;
    }
  }

  #want(first: number, last: number): void {
    const isMovingForward = first > 0 && this.#state[first - 1] === RegionState.DIRTY;
    const until = Math.min(this.#count - 1, isMovingForward ? last + REGIONS_AHEAD : last);
    for (let r = first; r <= until; r++) {
      if (this.#state[r] !== RegionState.CLEAN) continue;
      this.#state[r] = RegionState.MARKING;
      this.#wanted.push(r);
    }
  }

  /** Regions to be marked now; they stay in MARKING until `settle`. */
  takeWanted(): number[] {
    const wanted = this.#wanted;
    this.#wanted = [];
    return wanted;
  }

  get hasWanted(): boolean {
    return this.#wanted.length > 0;
  }

  /** Ends MARKING or CLEANING of regions: they are DIRTY or CLEAN now. */
  settle(regions: readonly number[], state: 0 | 2): void {
    for (const r of regions) {
      const before = this.#state[r];
      assert(
        before === RegionState.MARKING || before === RegionState.CLEANING,
        "region in transit",
      );
      this.#state[r] = state;
      if (state === RegionState.DIRTY) {
        this.#dirty.add(r);
        this.#touched[r] = this.#period;
      } else this.#dirty.delete(r);
    }
  }

  /** Takes regions as marked: at open, when the children's logs were read and made equal. */
  assume(regions: readonly number[]): void {
    for (const r of regions) {
      if (this.#state[r] === RegionState.DIRTY) continue;
      assert(this.#state[r] === RegionState.CLEAN, "regions are assumed before they are used");
      this.#state[r] = RegionState.DIRTY;
      this.#touched[r] = this.#period;
      this.#dirty.add(r);
    }
  }

  /**
   * Starts the next period and puts at most `limit` dirty regions without writes for
   * `idlePeriods` into CLEANING, keeping `keep` dirty ones. Returns them.
   */
  takeIdle(idlePeriods: number, keep: number, limit: number): number[] {
    this.#period = (this.#period + 1) & 0xff;
    const idle: number[] = [];
    for (const r of this.#dirty) {
      if (idle.length >= limit || this.#dirty.size - idle.length <= keep) break;
      const age = (this.#period - this.#touched[r]!) & 0xff;
      if (age < idlePeriods || this.#inFlight[r] !== 0) continue;
      idle.push(r);
    }
    for (const r of idle) this.#state[r] = RegionState.CLEANING;
    // An age beyond 255 periods would look young again: what is old stays just old enough.
    for (const r of this.#dirty) {
      const age = (this.#period - this.#touched[r]!) & 0xff;
      if (age > 200) this.#touched[r] = (this.#period - 200) & 0xff;
    }
    return idle;
  }

  /** Puts every dirty region into CLEANING (orderly close, with no write in flight). */
  takeAll(): number[] {
    const all = [...this.#dirty];
    for (const r of all) {
      assert(this.#inFlight[r] === 0, "no write is in flight");
      this.#state[r] = RegionState.CLEANING;
    }
    return all;
  }
}
