/**
 * Write-intent of one replica (design 6.4): which 4 MiB regions may differ from the other copies of
 * its volume.
 *
 * It lies in the pool's journal and checkpoints instead of an area of its own: marks are then durable
 * by the same group commit as everything else, cost one record for any number of regions, and need
 * no room that is fixed when the replica is made.
 */
import { assert } from "../../assert.ts";
import { TrilithError } from "../../errors.ts";
import type { PoolCore } from "./core.ts";
import type { CommitWaiter } from "./journal.ts";
import { INTENT_REGION_BYTES } from "./limits.ts";
import { RECORD_BYTES_MAX, RecordEncoder } from "./records.ts";
import { intentBytesOf, type PoolObject } from "./state.ts";

/** Ranges of one record: each takes two words. */
const RANGES_PER_RECORD = Math.floor((RECORD_BYTES_MAX - 64) / 8);

/** Regions [first, first + count). */
export interface RegionRange {
  readonly first: number;
  readonly count: number;
}

export class Intent {
  readonly #core: PoolCore;
  readonly #object: PoolObject;
  readonly #isClosed: () => boolean;
  readonly #record = new RecordEncoder(64);
  /** What may be relied on: 1 only when the disk says so, too. */
  #view: Uint8Array;
  #marking: RegionRange[] = [];

  constructor(core: PoolCore, object: PoolObject, isClosed: () => boolean) {
    this.#core = core;
    this.#object = object;
    this.#isClosed = isClosed;
    this.#view = object.intents.slice();
  }

  /** Regions of the replica, 4 MiB each, the last one perhaps shorter. */
  get regionCount(): number {
    return Math.ceil(this.#object.sizeBytes / INTENT_REGION_BYTES);
  }

  /** Bitmap of dirty regions (bit 0 of byte 0 is the first). Do not change it; copy it to keep it. */
  get bitmap(): Uint8Array {
    return this.#view;
  }

  /** True when the region is durably marked: a write to it needs no further mark. */
  isDirty(region: number): boolean {
    return (this.#view[region >> 3]! & (1 << (region & 7))) !== 0;
  }

  /** Number of dirty regions. */
  get dirtyCount(): number {
    let count = 0;
    for (let byte of this.#view) for (; byte !== 0; byte &= byte - 1) count++;
    return count;
  }

  /**
   * Marks regions [first, first + count) dirty, on the path of a host's write. `waiter` is told when
   * that is durable, or that it cannot be; never before this call returns.
   */
  mark(first: number, count: number, waiter: CommitWaiter): void {
    assert(first >= 0 && count > 0 && first + count <= this.regionCount, "regions are in range");
    if (this.#isClosed()) {
      this.#core.reactor.after(0, () => waiter.committed(false));
      return;
    }
    const range = { first, count };
    this.#marking.push(range);
    const record = this.#record.reset().intent(true, this.#object.id, [first, count]);
    this.#core.journal.append(record.bytes, record.at, {
      committed: (isDurable) => {
        this.#marking.splice(this.#marking.indexOf(range), 1);
        if (isDurable) this.#set(range, true);
        waiter.committed(isDurable);
      },
    });
  }

  /** Marks any number of regions dirty; resolves when all are durable. */
  async markDirty(regions: readonly RegionRange[]): Promise<void> {
    this.#checkRegions(regions);
    if (this.#isClosed()) {
      throw new TrilithError("NotFound", `replica ${this.#object.uuid} is no longer open`);
    }
    const marks = regions
      .filter(({ first, count }) => !this.#isAll(first, count))
      .map(
        ({ first, count }) =>
          new Promise<boolean>((committed) => {
            this.mark(first, count, { committed });
          }),
      );
    const results = await Promise.all(marks);
    if (results.includes(false)) throw this.#core.failure("marking regions dirty");
  }

  /**
   * Clears regions, lazily: they may be found dirty again after a crash. Regions that are just being
   * marked stay dirty. The caller has flushed what was written to them on every copy.
   */
  clearDirty(regions: readonly RegionRange[]): void {
    this.#checkRegions(regions);
    if (this.#isClosed()) return;
    let pairs: number[] = [];
    for (const range of regions) {
      const { first, count } = range;
      if (this.#marking.some((m) => m.first < first + count && first < m.first + m.count)) continue;
      this.#set(range, false);
      pairs.push(first, count);
      if (pairs.length === RANGES_PER_RECORD * 2) pairs = this.#appendClear(pairs);
    }
    if (pairs.length > 0) this.#appendClear(pairs);
  }

  #appendClear(pairs: readonly number[]): number[] {
    const record = new RecordEncoder(64 + pairs.length * 4).intent(false, this.#object.id, pairs);
    this.#core.journal.append(record.bytes, record.at, null, true);
    return [];
  }

  #isAll(first: number, count: number): boolean {
    for (let region = first; region < first + count; region++) {
      if (!this.isDirty(region)) return false;
    }
    return true;
  }

  #set(range: RegionRange, dirty: boolean): void {
    const bytes = intentBytesOf(this.#object.sizeBytes);
    if (this.#view.byteLength < bytes) {
      const view = new Uint8Array(bytes);
      view.set(this.#view);
      this.#view = view;
    }
    const view = this.#view;
    for (let region = range.first; region < range.first + range.count; region++) {
      const at = region >> 3;
      const bit = 1 << (region & 7);
      view[at] = dirty ? view[at]! | bit : view[at]! & ~bit;
    }
  }

  #checkRegions(regions: readonly RegionRange[]): void {
    for (const { first, count } of regions) {
      const isRange = Number.isInteger(first) && Number.isInteger(count) && first >= 0 && count > 0;
      if (isRange && first + count <= this.regionCount) continue;
      throw new TrilithError(
        "OutOfRange",
        `regions ${first} to ${first + count} are not all among the ${this.regionCount} of the replica`,
      );
    }
  }
}
