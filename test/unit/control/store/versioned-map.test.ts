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
