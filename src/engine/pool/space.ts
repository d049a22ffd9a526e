/**
 * The clusters of a pool: what each is used for, how many objects refer to it, and what is promised
 * to whom. All of it is derived from the maps at import; only "known to be zeroes" is remembered
 * across restarts.
 *
 * A cluster goes round: free and dirty -> zeroing -> free and zeroed -> taken by an operation ->
 * used -> limbo (no longer referred to, but requests may still be under way to it) -> free and
 * dirty. Only a zeroed cluster is ever mapped; a cluster that becomes a copy of another is
 * overwritten as a whole before it is mapped.
 *
 * Free clusters (limbo included: they come back by themselves) always cover what thick replicas may
 * still claim (`reserved`) and what operations under way were promised (`promised`).
 */
import { assert } from "../../assert.ts";
import {
  BUSY,
  CLUSTER_MASK,
  type PoolObject,
  type PoolState,
  SHARED,
  SHARED_SHIFT,
} from "./state.ts";

export const ClusterUse = {
  DIRTY: 0,
  ZEROED: 1,
  ZEROING: 2,
  LIMBO: 3,
  TAKEN: 4,
  USED: 5,
  METADATA: 6,
} as const;
export type ClusterUse = (typeof ClusterUse)[keyof typeof ClusterUse];

export class Space {
  readonly #state: PoolState;
  use: Uint8Array;
  references: Uint16Array;
  /** Clusters that are dirty, zeroing, zeroed or in limbo. */
  free: number;
  zeroed = 0;
  dirty = 0;
  metadata: number;
  /** Free clusters that thick replicas may still claim. */
  reserved = 0;
  /** Free clusters promised to operations that have not taken them yet. */
  promised = 0;
  /** Clusters in limbo, in the order in which they came. */
  readonly #limbo: number[] = [];
  /** Clusters that only one object refers to any more, as (family, index, cluster). */
  readonly #lone: number[] = [];
  /** Objects that were deleted and whose clusters are still being given back. */
  readonly #dying: { readonly object: PoolObject; at: number }[] = [];
  #takeAt = 0;
  #zeroAt = 0;

  /**
   * `references` and `metadata` as `verifyState` counted them, `zeroedBits` as they were loaded: a
   * bit counts for free clusters only.
   */
  constructor(
    state: PoolState,
    references: Uint16Array,
    metadata: readonly number[],
    zeroedBits: Uint8Array,
  ) {
    this.#state = state;
    this.references = references;
    this.metadata = metadata.length;
    const count = state.clusterCount;
    const use = new Uint8Array(count);
    this.use = use;
    for (const c of metadata) use[c] = ClusterUse.METADATA;
    let zeroed = 0;
    let dirty = 0;
    for (let c = 0; c < count; c++) {
      if (use[c] === ClusterUse.METADATA) continue;
      if (references[c] !== 0) use[c] = ClusterUse.USED;
      else if ((zeroedBits[c >> 3]! & (1 << (c & 7))) !== 0) {
        use[c] = ClusterUse.ZEROED;
        zeroed++;
      } else dirty++;
    }
    this.zeroed = zeroed;
    this.dirty = dirty;
    this.free = zeroed + dirty;
    for (const object of state.objects.values()) this.#adopt(object);
  }

  /** Counts and marks the entries of an object that was loaded. */
  #adopt(object: PoolObject): void {
    const { map } = object;
    for (let i = 0; i < map.length; i++) {
      const entry = map[i]!;
      if (entry < 0) continue;
      object.mapped++;
      if (this.references[entry]! > 1) {
        map[i] = entry | SHARED;
        object.shared++;
      }
    }
    this.updateReserve(object);
  }

  /** Free clusters that anybody may have. */
  get available(): number {
    return this.free - this.reserved - this.promised;
  }

  /** Clusters that can hold data, used or not. */
  get usable(): number {
    return this.#state.clusterCount - this.metadata;
  }

  /** Recomputes what is kept back for an object. */
  updateReserve(object: PoolObject): void {
    const own = object.pinned ? 0 : object.mapped - object.shared;
    // A copy under way may lose its reason: the cluster is no longer shared, the promise is still out.
    const need = object.thin ? 0 : Math.max(0, object.map.length - own - object.promised);
    this.reserved += need - object.reserved;
    object.reserved = need;
  }

  // ------------------------------------------------------------------------- taking clusters

  /** Promises one cluster to an operation on the object; false when there is no room (thin only). */
  admit(object: PoolObject): boolean {
    if (object.thin ? this.available <= 0 : object.reserved <= 0) return false;
    object.promised++;
    this.promised++;
    this.updateReserve(object);
    return true;
  }

  /** Takes back a promise whose cluster was never taken. */
  retract(object: PoolObject): void {
    object.promised--;
    this.promised--;
    this.updateReserve(object);
  }

  /** Takes a zeroed cluster that was promised, or -1 when none is ready. */
  takeZeroed(): number {
    return this.zeroed === 0 ? -1 : this.#take(ClusterUse.ZEROED);
  }

  /** Takes a cluster that will be overwritten as a whole: a dirty one if possible. -1: none is ready. */
  takeAny(): number {
    if (this.dirty > 0) return this.#take(ClusterUse.DIRTY);
    return this.takeZeroed();
  }

  #take(use: ClusterUse): number {
    let cluster = this.use.indexOf(use, this.#takeAt);
    if (cluster < 0) cluster = this.use.indexOf(use);
    assert(cluster >= 0, "a counted cluster is found");
    if (use === ClusterUse.ZEROED) this.zeroed--;
    else this.dirty--;
    this.use[cluster] = ClusterUse.TAKEN;
    this.#takeAt = cluster + 1;
    this.free--;
    this.promised--;
    return cluster;
  }

  /** Gives back a cluster that was taken and never mapped; what was written to it makes it dirty. */
  putBack(object: PoolObject, cluster: number, isZeroed: boolean): void {
    assert(this.use[cluster] === ClusterUse.TAKEN, "what is put back was taken");
    this.use[cluster] = isZeroed ? ClusterUse.ZEROED : ClusterUse.DIRTY;
    if (isZeroed) this.zeroed++;
    else this.dirty++;
    this.free++;
    object.promised--;
    this.updateReserve(object);
  }

  /** Takes a run of up to `max` free clusters for metadata; [first, count], or null when none is ready. */
  takeMetadataRun(max: number): readonly [number, number] | null {
    const isFree = (c: number) =>
      this.use[c] === ClusterUse.DIRTY || this.use[c] === ClusterUse.ZEROED;
    let best = -1;
    let bestCount = 0;
    for (let c = 0; c < this.use.length && bestCount < max; c++) {
      if (!isFree(c)) continue;
      let end = c + 1;
      while (end < this.use.length && end - c < max && isFree(end)) end++;
      if (end - c > bestCount) {
        best = c;
        bestCount = end - c;
      }
      c = end;
    }
    if (best < 0) return null;
    for (let c = best; c < best + bestCount; c++) {
      if (this.use[c] === ClusterUse.ZEROED) this.zeroed--;
      else this.dirty--;
      this.use[c] = ClusterUse.METADATA;
    }
    this.free -= bestCount;
    this.metadata += bestCount;
    return [best, bestCount];
  }

  // --------------------------------------------------------------------- changes of the maps

  /** A map entry changed: `before` with flags, `cluster` the new one or negative. */
  mapped(object: PoolObject, index: number, before: number, cluster: number): void {
    if (before >= 0) {
      object.mapped--;
      if ((before & SHARED) !== 0) object.shared--;
      this.#release(object, index, before & CLUSTER_MASK);
    }
    if (cluster >= 0) {
      assert(this.use[cluster] === ClusterUse.TAKEN, "a mapped cluster was taken for it");
      this.use[cluster] = ClusterUse.USED;
      this.references[cluster] = 1;
      object.mapped++;
      object.promised--;
    }
    this.updateReserve(object);
  }

  /** An object was made; `source` is what its map was copied from. */
  created(object: PoolObject, source: PoolObject | null): void {
    if (source !== null) {
      const { map } = object;
      for (let i = 0; i < map.length; i++) {
        const cluster = map[i]!;
        if (cluster < 0) continue;
        this.references[cluster] = this.references[cluster]! + 1;
        map[i] = cluster | SHARED;
        object.mapped++;
        if (source.map[i]! >>> SHARED_SHIFT === 0) {
          source.map[i] = cluster | SHARED;
          source.shared++;
        }
      }
      object.shared = object.mapped;
      this.updateReserve(source);
    }
    this.updateReserve(object);
  }

  /** An object was deleted: its clusters are given back by `reap`. */
  deleted(object: PoolObject): void {
    this.reserved -= object.reserved;
    object.reserved = 0;
    this.#dying.push({ object, at: 0 });
  }

  /** Gives back clusters of deleted objects, `entries` map entries at most; true when none is left. */
  reap(entries: number): boolean {
    let left = entries;
    for (;;) {
      const dying = this.#dying[0];
      if (dying === undefined) return true;
      const { object } = dying;
      const { map } = object;
      const end = Math.min(map.length, dying.at + left);
      for (let i = dying.at; i < end; i++) {
        if (map[i]! >= 0) this.#release(object, i, map[i]! & CLUSTER_MASK);
      }
      left -= end - dying.at;
      dying.at = end;
      if (end < map.length) return false;
      this.#dying.shift();
    }
  }

  /** Takes one reference off a cluster that stood at `index` of an object. */
  #release(object: PoolObject, index: number, cluster: number): void {
    const left = this.references[cluster]! - 1;
    assert(left >= 0 && this.use[cluster] === ClusterUse.USED, "a released cluster was in use");
    this.references[cluster] = left;
    if (left === 0) {
      this.use[cluster] = ClusterUse.LIMBO;
      this.#limbo.push(cluster);
      this.free++;
    } else if (left === 1) this.#lone.push(object.family, index, cluster);
  }

  // -------------------------------------------------------------------- the way back to free

  /** True when requests to given-up clusters have to be waited for. */
  get hasReleased(): boolean {
    return this.#limbo.length > 0 || this.#lone.length > 0;
  }

  /**
   * What was given up since the last call: clusters that nobody refers to any more (ascending; they
   * count as free), and those that only one object refers to. Reads of the objects that gave them up
   * may still be under way, so neither may be written to yet.
   */
  takeReleased(): { readonly limbo: Int32Array; readonly lone: readonly number[] } {
    const limbo = Int32Array.from(this.#limbo).sort();
    const lone = this.#lone.slice();
    this.#limbo.length = 0;
    this.#lone.length = 0;
    return { limbo, lone };
  }

  /** No request is under way any more to clusters that were in limbo. */
  limboOver(clusters: Int32Array): void {
    for (const cluster of clusters) {
      assert(this.use[cluster] === ClusterUse.LIMBO, "the cluster was in limbo");
      this.use[cluster] = ClusterUse.DIRTY;
    }
    this.dirty += clusters.length;
  }

  /** The only objects left that refer to these clusters may write to them without a copy again. */
  unshare(lone: readonly number[]): void {
    for (let i = 0; i < lone.length; i += 3) {
      const [family, index, cluster] = [lone[i]!, lone[i + 1]!, lone[i + 2]!];
      if (this.references[cluster] !== 1) continue;
      for (const object of this.#state.families.get(family) ?? []) {
        const entry = object.map[index] ?? -1;
        if (entry < 0 || (entry & CLUSTER_MASK) !== cluster || (entry & SHARED) === 0) continue;
        object.map[index] = entry & ~SHARED;
        object.shared--;
        this.updateReserve(object);
      }
    }
  }

  /** Takes a run of dirty clusters for zeroing: [first, count], or null when there is none. */
  takeDirtyRun(max: number): readonly [number, number] | null {
    if (this.dirty === 0) return null;
    let first = this.use.indexOf(ClusterUse.DIRTY, this.#zeroAt);
    if (first < 0) first = this.use.indexOf(ClusterUse.DIRTY);
    let end = first;
    while (end < this.use.length && end - first < max && this.use[end] === ClusterUse.DIRTY) {
      this.use[end++] = ClusterUse.ZEROING;
    }
    this.#zeroAt = end;
    this.dirty -= end - first;
    return [first, end - first];
  }

  /** A run was zeroed durably, or could not be. */
  zeroingOver(first: number, count: number, isZeroed: boolean): void {
    for (let c = first; c < first + count; c++) {
      assert(this.use[c] === ClusterUse.ZEROING, "the cluster was being zeroed");
      this.use[c] = isZeroed ? ClusterUse.ZEROED : ClusterUse.DIRTY;
    }
    if (isZeroed) this.zeroed += count;
    else this.dirty += count;
  }

  /** Bitmap of the clusters that are free and known to be zeroes. */
  zeroedBitmap(): Uint8Array {
    const { use } = this;
    const bits = new Uint8Array(Math.ceil(use.length / 8));
    for (
      let c = use.indexOf(ClusterUse.ZEROED);
      c >= 0;
      c = use.indexOf(ClusterUse.ZEROED, c + 1)
    ) {
      bits[c >> 3] = bits[c >> 3]! | (1 << (c & 7));
    }
    return bits;
  }

  /** The pool has more clusters now; the first `metadata` new ones hold metadata, the others are free. */
  grow(clusterCount: number, metadata: number): void {
    const first = this.use.length;
    const added = clusterCount - first - metadata;
    assert(added >= 0, "a pool does not shrink");
    const use = new Uint8Array(clusterCount);
    use.set(this.use);
    use.fill(ClusterUse.METADATA, first, first + metadata);
    const references = new Uint16Array(clusterCount);
    references.set(this.references);
    this.use = use;
    this.references = references;
    this.free += added;
    this.dirty += added;
    this.metadata += metadata;
  }
}

/** True when an operation on the entry is under way. */
export function isBusy(entry: number): boolean {
  return entry < 0 ? entry !== -1 : (entry & BUSY) !== 0;
}
