import { expect, test } from "bun:test";
import {
  type Attributes,
  decodeAttributeMap,
  encodeAttributes,
  mergeAttributes,
} from "../../../../src/engine/pool/attributes.ts";

const full: Attributes = {
  name: "replica-1",
  volumeUuid: "11111111-2222-4333-8444-555555555555",
  entityId: "volume/ü",
  epoch: 2 ** 40 + 5,
  healthGeneration: 17,
  dirtyBaseGeneration: 16,
  clean: true,
  share: "nvmf",
  allowedHosts: ["nqn.2014-08.org.nvmexpress:uuid:a", "nqn.2019-05.io.openebs:node-name:n1"],
  reservation: Uint8Array.of(1, 2, 3),
  txnId: "txn-1",
  createdAtMs: 1_700_000_000_000,
  sourceUuid: "aaaaaaaa-2222-4333-8444-555555555555",
  bootId: "bbbbbbbb-2222-4333-8444-555555555555",
};

const none: Attributes = {
  name: "",
  volumeUuid: "",
  entityId: "",
  epoch: 0,
  healthGeneration: 0,
  dirtyBaseGeneration: 0,
  clean: false,
  share: "none",
  allowedHosts: [],
  reservation: new Uint8Array(0),
  txnId: "",
  createdAtMs: 0,
  sourceUuid: "",
  bootId: "",
};

test("attributes survive encoding and decoding", () => {
  expect(decodeAttributeMap(encodeAttributes(full))).toEqual(full);
  expect(decodeAttributeMap(new Map())).toEqual(none);
});

test("changes replace what they name, and only that", () => {
  const changed = mergeAttributes(
    encodeAttributes(full),
    encodeAttributes({ epoch: 9, volumeUuid: "", allowedHosts: [] }),
  );
  expect(decodeAttributeMap(changed)).toEqual({
    ...full,
    epoch: 9,
    volumeUuid: "",
    allowedHosts: [],
  });
});

test("tags of later versions are kept", () => {
  const later = new Map([[200, Uint8Array.of(9)]]);
  const merged = mergeAttributes(later, encodeAttributes({ epoch: 1 }));
  expect(merged.get(200)).toEqual(Uint8Array.of(9));
});

test("what cannot be stored is refused by name", () => {
  const wrong: [Partial<Attributes>, string][] = [
    [{ name: "" }, "name"],
    [{ name: "with space" }, "name"],
    [{ name: "-x" }, "name"],
    [{ name: "x".repeat(129) }, "name"],
    [{ volumeUuid: "xyz" }, "volume"],
    [{ volumeUuid: full.volumeUuid.toUpperCase().replace("1", "A") }, "volume"],
    [{ epoch: -1 }, "epoch"],
    [{ epoch: 0.5 }, "epoch"],
    [{ healthGeneration: 2 ** 53 }, "health generation"],
    [{ entityId: "x".repeat(257) }, "entity id"],
    [{ txnId: "a\0b" }, "transaction id"],
    [{ allowedHosts: [""] }, "allowed host"],
    [{ allowedHosts: ["x".repeat(224)] }, "allowed host"],
    [{ allowedHosts: Array.from({ length: 65 }, (_, i) => `nqn${i}`) }, "65 allowed hosts"],
    [{ reservation: new Uint8Array(16385) }, "reservation"],
  ];
  for (const [given, what] of wrong) expect(() => encodeAttributes(given)).toThrow(what);
  const long = new Map([[200, new Uint8Array(40000)]]);
  const more = encodeAttributes({ reservation: new Uint8Array(16384) });
  expect(() => mergeAttributes(long, more)).toThrow("exceed");
});

test("what is on the disk is not trusted", () => {
  const wrong: [number, number[]][] = [
    [1, [0xff]],
    [2, [1, 2, 3]],
    [4, [1]],
    [8, [7]],
    [9, [5, 0, 1]],
  ];
  for (const [tag, bytes] of wrong) {
    expect(() => decodeAttributeMap(new Map([[tag, Uint8Array.from(bytes)]]))).toThrow();
  }
});
