import { describe, expect, test } from "bun:test";
import {
  decodeContextRequest,
  decodeInfoRequest,
  decodeString,
  encodeExportNameAnswer,
  encodeInfo,
  errorPayloads,
  NbdBytes,
  NbdError,
  NbdInfo,
  NbdOption,
  STRING_BYTES_MAX,
  selectsAllocation,
  swap32,
  wide,
} from "../../../../src/engine/nbd/protocol.ts";
import { fields, lengthAndText } from "../../../support/nbd-client.ts";

const info = {
  name: "volume",
  description: "for humans",
  sizeBytes: 2 ** 40 + 512,
  transmissionFlags: 0x1ff,
  blockBytesMin: 512,
  blockBytesPreferred: 4096,
  payloadBytesMax: 1 << 20,
};

describe("words", () => {
  test("are swapped as DataView reads them", () => {
    const bytes = Uint8Array.from([0x00, 0x20, 0x00, 0x01, 0xff, 0xee, 0xdd, 0xcc]);
    const words = new Int32Array(bytes.buffer);
    const view = new DataView(bytes.buffer);
    expect(swap32(words[0]!)).toBe(view.getInt32(0));
    expect(swap32(words[1]!)).toBe(view.getInt32(4));
    expect(wide(words, 0)).toBe(0x200001 * 2 ** 32 + 0xffeeddcc);
  });
});

describe("requests for information", () => {
  test("carry a name and what is wanted", () => {
    const data = fields(lengthAndText("größe"), [16, 2], [16, NbdInfo.NAME], [16, 77]);
    expect(decodeInfoRequest(data)).toEqual({ name: "größe", wanted: [NbdInfo.NAME, 77] });
    expect(decodeInfoRequest(fields(lengthAndText(""), [16, 0]))).toEqual({ name: "", wanted: [] });
  });

  test.each([
    ["nothing", fields()],
    ["a name that ends early", fields([32, 7], "volume")],
    ["no count", fields(lengthAndText("volume"))],
    ["half a count", fields(lengthAndText("volume"), [8, 0])],
    ["more wanted than is there", fields(lengthAndText("v"), [16, 2], [16, 0])],
    ["more there than is wanted", fields(lengthAndText("v"), [16, 1], [16, 0], [16, 0])],
    ["a name as long as a number can say", fields([32, 0xffffffff], "v")],
    ["a name with a zero byte", fields(lengthAndText("a\0b"), [16, 0])],
    ["a name that is not UTF-8", fields([32, 2], Uint8Array.of(0xc3, 0x28), [16, 0])],
  ])("with %s are malformed", (_what, data) => {
    expect(decodeInfoRequest(data)).toBeUndefined();
  });
});

describe("requests for contexts", () => {
  test("carry a name and queries", () => {
    const queries = fields(lengthAndText("base:"), lengthAndText("x-mine:all"));
    const data = fields(lengthAndText("volume"), [32, 2], queries);
    expect(decodeContextRequest(data)).toEqual({
      name: "volume",
      queries: ["base:", "x-mine:all"],
    });
  });

  test.each([
    ["nothing", fields()],
    ["no count", fields(lengthAndText("volume"))],
    ["more queries than are there", fields(lengthAndText("v"), [32, 2], lengthAndText("base:"))],
    ["a count that no data could hold", fields(lengthAndText("v"), [32, 0xffffffff])],
    ["a query that ends early", fields(lengthAndText("v"), [32, 1], [32, 9], "base:")],
    ["bytes behind the last query", fields(lengthAndText("v"), [32, 0], [8, 0])],
  ])("with %s are malformed", (_what, data) => {
    expect(decodeContextRequest(data)).toBeUndefined();
  });

  test("find base:allocation by name; wildcards only list", () => {
    const { LIST_META_CONTEXT: list, SET_META_CONTEXT: set } = NbdOption;
    const cases: [number, string[], boolean][] = [
      [set, ["base:allocation"], true],
      [list, ["base:allocation"], true],
      [set, ["qemu:dirty-bitmap:a", "base:allocation"], true],
      [list, ["base:"], true],
      [set, ["base:"], false],
      [list, [], true],
      [set, [], false],
      [list, ["base:other"], false],
      [set, ["allocation"], false],
    ];
    for (const [option, queries, found] of cases) {
      expect([option, queries, selectsAllocation(option, queries)]).toEqual([
        option,
        queries,
        found,
      ]);
    }
  });
});

describe("strings", () => {
  test("have a longest length", () => {
    expect(decodeString(new Uint8Array(STRING_BYTES_MAX).fill(97))).toBe(
      "a".repeat(STRING_BYTES_MAX),
    );
    expect(decodeString(new Uint8Array(STRING_BYTES_MAX + 1).fill(97))).toBeUndefined();
  });
});

describe("what is said about an export", () => {
  test("has the lengths that the protocol gives", () => {
    expect(encodeInfo(NbdInfo.EXPORT, info)).toEqual(
      fields([16, 0], [64, info.sizeBytes], [16, 0x1ff]),
    );
    expect(encodeInfo(NbdInfo.BLOCK_SIZE, info)).toEqual(
      fields([16, 3], [32, 512], [32, 4096], [32, 1 << 20]),
    );
    expect(encodeInfo(NbdInfo.NAME, info)).toEqual(fields([16, 1], "volume"));
    expect(encodeInfo(NbdInfo.DESCRIPTION, info)).toEqual(fields([16, 2], "for humans"));
    expect(encodeInfo(NbdInfo.DESCRIPTION, { ...info, description: "" })).toBeUndefined();
    expect(encodeInfo(99, info)).toBeUndefined();
  });

  test("is padded for old clients", () => {
    const short = fields([64, info.sizeBytes], [16, 0x1ff]);
    expect(encodeExportNameAnswer(info, true)).toEqual(short);
    expect(encodeExportNameAnswer(info, false)).toEqual(fields(short, new Uint8Array(124)));
  });
});

describe("error payloads", () => {
  test("exist for every error and leave what follows them aligned", () => {
    const errors = Object.values(NbdError).filter((error) => error !== 0);
    expect([...errorPayloads.keys()].sort()).toEqual([...errors].sort());
    for (const [error, payload] of errorPayloads) {
      const view = new DataView(payload.buffer);
      expect(view.getUint32(0)).toBe(error);
      expect(view.getUint16(4)).toBe(payload.byteLength - 6);
      expect((NbdBytes.CHUNK + payload.byteLength) % 4).toBe(0);
    }
  });
});
