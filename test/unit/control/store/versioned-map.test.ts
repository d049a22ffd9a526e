import { expect, test } from "bun:test";
import { AssertionError } from "../../../../src/assert.ts";
import {
  type MapChange,
  VersionedMap,
  VersionedSet,
} from "../../../../src/control/store/versioned-map.ts";
import { withSeed } from "../../../support/random.ts";

test("every version reads as a copy made then", () => {
  withSeed(import.meta.path, (random) => {
    const first = new Map([["k1", 1]]);
    const versions: [VersionedMap<number>, Map<string, number>][] = [
      [VersionedMap.of(new Map(first)), first],
    ];
    for (let step = 0; step < 200; step++) {
      const [newest, model] = versions.at(-1)!;
      const copy = new Map(model);
      const changes: MapChange<number>[] = [];
      for (let count = random.below(4); count > 0; count--) {
        const key = `k${random.below(20)}`;
        if (random.chance(0.4)) {
          changes.push([key, undefined]);
          copy.delete(key);
        } else {
          changes.push([key, step]);
          copy.set(key, step);
        }
      }
      versions.push([newest.with(changes), copy]);
    }
    for (const [version, model] of versions) {
      expect(version.size).toBe(model.size);
      expect([...version].sort()).toEqual([...model].sort());
      expect([...version.keys()].sort()).toEqual([...model.keys()].sort());
      expect([...version.values()].sort()).toEqual([...model.values()].sort());
      for (let key = 0; key < 20; key++) {
        expect(version.get(`k${key}`)).toBe(model.get(`k${key}`));
        expect(version.has(`k${key}`)).toBe(model.has(`k${key}`));
      }
    }
  });
});

test("a loop goes over the version that it began with", () => {
  const before = VersionedMap.of(
    new Map([
      ["a", 1],
      ["b", 2],
      ["c", 3],
    ]),
  );
  const seen: string[] = [];
  let newest = before;
  for (const [key] of before) {
    seen.push(key);
    newest = newest.with([
      [key, undefined],
      [`${key}${key}`, 9],
    ]);
  }
  expect(seen).toEqual(["a", "b", "c"]);
  expect([...newest.keys()]).toEqual(["aa", "bb", "cc"]);
});

test("only the newest version is changed", () => {
  const first = VersionedMap.of(new Map([["a", 1]]));
  first.with([]);
  expect(() => first.with([])).toThrow(AssertionError);
});

test("sets have members of their version", () => {
  const first = VersionedSet.of(["a", "b"]);
  const second = first.with(
    new Map([
      ["a", false],
      ["c", true],
    ]),
  );
  expect([...first].sort()).toEqual(["a", "b"]);
  expect([...second]).toEqual(["b", "c"]);
  expect(second.union(first)).toEqual(new Set(["b", "c", "a"]));
  expect([...second.intersection(first)]).toEqual(["b"]);
  expect([...second.difference(first)]).toEqual(["c"]);
  expect([...second.symmetricDifference(first)].sort()).toEqual(["a", "c"]);
  expect(first.isSubsetOf(new Set(["a", "b", "c"]))).toBe(true);
  expect(first.isSupersetOf(new Set(["a"]))).toBe(true);
  expect(first.isDisjointFrom(new Set(["z"]))).toBe(true);
  expect([...first.entries()].sort()).toEqual([
    ["a", "a"],
    ["b", "b"],
  ]);
});

test("a change copies nothing of what it does not change", () => {
  class Untouched extends Map<string, number> {
    #refuse(): never {
      throw new Error("the whole map is gone through");
    }
    override [Symbol.iterator](): MapIterator<[string, number]> {
      return this.#refuse();
    }
    override entries(): MapIterator<[string, number]> {
      return this.#refuse();
    }
    override keys(): MapIterator<string> {
      return this.#refuse();
    }
    override values(): MapIterator<number> {
      return this.#refuse();
    }
    override forEach(): void {
      this.#refuse();
    }
  }
  const map = new Untouched();
  for (let n = 0; n < 100; n++) map.set(`k${n}`, n);
  const before = VersionedMap.of(map);
  const after = before.with([
    ["k1", -1],
    ["k2", undefined],
    ["new", 1],
  ]);
  expect([before.get("k1"), before.get("k2"), before.has("new")]).toEqual([1, 2, false]);
  expect([after.get("k1"), after.get("k2"), after.get("new")]).toEqual([-1, undefined, 1]);
  expect([before.size, after.size]).toEqual([100, 100]);
  expect(() => [...after]).toThrow("gone through");
});
