/** What holds for every route of the engine's API. */
import { describe, expect, test } from "bun:test";
import { engineContract } from "../../../../src/engine/rpc/contract.ts";
import { recorderContract } from "../../../../src/engine/rpc/records.ts";
import type { Route } from "../../../../src/engine/rpc/route.ts";

for (const [name, contract] of Object.entries({ engineContract, recorderContract })) {
  describe(name, () => {
    const all: [string, Route][] = Object.entries(contract);

    test("no two routes have the same method and path", () => {
      const places = all.map(([, { method, path }]) => `${method} ${path.replace(/:\w+/g, ":")}`);
      expect(new Set(places).size).toBe(places.length);
    });

    test("the parameters of a path are those that are checked", () => {
      for (const [route, { path, params }] of all) {
        const inPath = [...path.matchAll(/:(\w+)/g)].map((match) => match[1]).sort();
        const checked = Object.keys(params?.entries ?? {}).sort();
        expect<unknown>({ route, names: checked }).toEqual({ route, names: inPath });
      }
    });

    test("the parts of a request have no name in common", () => {
      for (const [route, { params, query, body }] of all) {
        const names = [params, query, body].flatMap((part) => Object.keys(part?.entries ?? {}));
        expect({ route, count: new Set(names).size }).toEqual({ route, count: names.length });
      }
    });

    test("reading has no body, and every part refuses unknown fields", () => {
      for (const [route, { method, params, query, body }] of all) {
        if (method === "GET" || method === "DELETE")
          expect<unknown>({ route, body }).toEqual({ route, body: undefined });
        for (const part of [params, query, body]) {
          if (part !== undefined)
            expect({ route, type: part.type }).toEqual({ route, type: "strict_object" });
        }
      }
    });
  });
}
