/**
 * Maps that keep their old versions readable. The newest version *is* a native map, so that reading it
 * costs what a map costs; a change writes that map in place and leaves, in the version before, what
 * was there (Baker's shallow binding). An old version looks through the changes since, newest last, so
 * reading it is slower the longer it is held; when nobody holds it, it is gone.
 *
 * Chosen over hash tries (HAMT) because nearly all reads are of the newest version, and a pass of the
 * planner makes hundreds of thousands of them; over copying because one change of a map of 30,000
 * would copy it all.
 */
import { assert } from "../../assert.ts";

/** What stands for "was not there". */
const ABSENT = Symbol("absent");

/** The native map under all versions, and its contents as arrays, made when first asked for. */
interface Root<V> {
  readonly map: Map<string, V>;
  keys: readonly string[] | null;
  values: readonly V[] | null;
}

/** A change: the new value, or `undefined` to remove the key. */
export type MapChange<V> = readonly [key: string, value: V | undefined];

export class VersionedMap<V> implements ReadonlyMap<string, V> {
  readonly size: number;
  readonly #root: Root<V>;
  /** Set once there is a newer version: what it changed, as it was here. */
  #before: Map<string, V | typeof ABSENT> | null = null;
  #newer: VersionedMap<V> | null = null;

  private constructor(root: Root<V>) {
    this.#root = root;
    this.size = root.map.size;
  }

  /** The first version. The map is taken over: nobody else may change it. */
  static of<V>(map: Map<string, V>): VersionedMap<V> {
    return new VersionedMap({ map, keys: null, values: null });
  }

  /** The version after the changes, which are applied in order. Only of the newest version. */
  with(changes: Iterable<MapChange<V>>): VersionedMap<V> {
    assert(this.#newer === null, "only the newest version is changed");
    const { map } = this.#root;
    const before = new Map<string, V | typeof ABSENT>();
    for (const [key, value] of changes) {
      if (!before.has(key)) before.set(key, map.has(key) ? (map.get(key) as V) : ABSENT);
      if (value === undefined) map.delete(key);
      else map.set(key, value);
    }
    this.#root.keys = null;
    this.#root.values = null;
    const newer = new VersionedMap(this.#root);
    this.#before = before;
    this.#newer = newer;
    return newer;
  }

  #find(key: string): V | typeof ABSENT {
    let version: VersionedMap<V> = this;
    while (version.#before !== null) {
      const was = version.#before.get(key);
      if (was !== undefined) return was;
      version = version.#newer!;
    }
    return this.#root.map.get(key) ?? ABSENT;
  }

  get(key: string): V | undefined {
    if (this.#before === null) return this.#root.map.get(key);
    const found = this.#find(key);
    return found === ABSENT ? undefined : found;
  }

  has(key: string): boolean {
    if (this.#before === null) return this.#root.map.has(key);
    return this.#find(key) !== ABSENT;
  }

  /** The contents of an old version, as a map of its own. */
  #materialised(): Map<string, V> {
    const was = new Map<string, V | typeof ABSENT>();
    for (let at: VersionedMap<V> = this; at.#before !== null; at = at.#newer!) {
      for (const [key, value] of at.#before) if (!was.has(key)) was.set(key, value);
    }
    const all = new Map(this.#root.map);
    for (const [key, value] of was) {
      if (value === ABSENT) all.delete(key);
      else all.set(key, value);
    }
    return all;
  }

  // Iteration goes over an array that belongs to the version, so that changes which come in between
  // (a loop that awaits) do not show.
  #keys(): readonly string[] {
    if (this.#before !== null) return [...this.#materialised().keys()];
    this.#root.keys ??= [...this.#root.map.keys()];
    return this.#root.keys;
  }

  #values(): readonly V[] {
    if (this.#before !== null) return [...this.#materialised().values()];
    this.#root.values ??= [...this.#root.map.values()];
    return this.#root.values;
  }

  keys(): MapIterator<string> {
    return this.#keys().values();
  }

  values(): MapIterator<V> {
    return this.#values().values();
  }

  *entries(): MapIterator<[string, V]> {
    const all = this.#before === null ? null : this.#materialised();
    const keys = all === null ? this.#keys() : [...all.keys()];
    const values = all === null ? this.#values() : [...all.values()];
    for (let index = 0; index < keys.length; index++) yield [keys[index]!, values[index]!];
  }

  [Symbol.iterator](): MapIterator<[string, V]> {
    return this.entries();
  }

  forEach(visit: (value: V, key: string, map: ReadonlyMap<string, V>) => void): void {
    for (const [key, value] of this.entries()) visit(value, key, this);
  }
}

/** Sets of strings with the same properties: a versioned map whose values do not matter. */
export class VersionedSet implements ReadonlySet<string> {
  readonly #map: VersionedMap<true>;

  private constructor(map: VersionedMap<true>) {
    this.#map = map;
  }

  static of(members: Iterable<string>): VersionedSet {
    const map = new Map<string, true>();
    for (const member of members) map.set(member, true);
    return new VersionedSet(VersionedMap.of(map));
  }

  /** The version with a member more (`true`) or less (`false`), per change. */
  with(changes: ReadonlyMap<string, boolean>): VersionedSet {
    const parts: MapChange<true>[] = [];
    for (const [member, isIn] of changes) parts.push([member, isIn ? true : undefined]);
    return new VersionedSet(this.#map.with(parts));
  }

  get size(): number {
    return this.#map.size;
  }
  has(member: string): boolean {
    return this.#map.has(member);
  }
  keys(): SetIterator<string> {
    return this.#map.keys();
  }
  values(): SetIterator<string> {
    return this.#map.keys();
  }
  *entries(): SetIterator<[string, string]> {
    for (const member of this.#map.keys()) yield [member, member];
  }
  [Symbol.iterator](): SetIterator<string> {
    return this.#map.keys();
  }
  forEach(visit: (member: string, again: string, set: ReadonlySet<string>) => void): void {
    for (const member of this.#map.keys()) visit(member, member, this);
  }
  union<U>(other: ReadonlySetLike<U>): Set<string | U> {
    return new Set(this).union(other);
  }
  intersection<U>(other: ReadonlySetLike<U>): Set<string & U> {
    return new Set(this).intersection(other);
  }
  difference<U>(other: ReadonlySetLike<U>): Set<string> {
    return new Set(this).difference(other);
  }
  symmetricDifference<U>(other: ReadonlySetLike<U>): Set<string | U> {
    return new Set(this).symmetricDifference(other);
  }
  isSubsetOf(other: ReadonlySetLike<unknown>): boolean {
    return new Set(this).isSubsetOf(other);
  }
  isSupersetOf(other: ReadonlySetLike<unknown>): boolean {
    return new Set(this).isSupersetOf(other);
  }
  isDisjointFrom(other: ReadonlySetLike<unknown>): boolean {
    return new Set(this).isDisjointFrom(other);
  }
}
