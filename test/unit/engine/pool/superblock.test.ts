import { expect, test } from "bun:test";
import { crc32cOf } from "../../../../ffi/index.ts";
import {
  decodeSuperblock,
  encodeSuperblock,
  metadataClusters,
  type Superblock,
} from "../../../../src/engine/pool/superblock.ts";
import { KIB, MIB } from "./fixture.ts";

const sample: Superblock = {
  name: "pool-on-node-1",
  uuid: "0c0ffee0-1234-4abc-8def-0123456789ab",
  tag: 0xfedcba98,
  blockSize: 512,
  clusterBytes: 4 * MIB,
  clusterCount: 100,
  deviceBytes: 401 * MIB,
  generation: 7,
  compatible: 0x80000001,
  slots: [
    [
      { offset: 576 * KIB, bytes: 448 * KIB },
      { offset: 1088 * KIB, bytes: 512 * KIB },
    ],
    [{ offset: 396 * MIB + 512 * KIB, bytes: MIB }],
  ],
  rings: [[{ offset: 64 * KIB, bytes: 512 * KIB }], [{ offset: 396 * MIB, bytes: 512 * KIB }]],
};

function seal(bytes: Uint8Array): Uint8Array {
  const view = new DataView(bytes.buffer);
  view.setUint32(12, 0, true);
  view.setUint32(12, crc32cOf(bytes), true);
  return bytes;
}

/** The superblock with some bytes replaced and a checksum that fits. */
function altered(changes: (view: DataView) => void, of = sample): Uint8Array {
  const bytes = encodeSuperblock(of);
  changes(new DataView(bytes.buffer));
  return seal(bytes);
}

test("a superblock survives encoding and decoding", () => {
  expect(decodeSuperblock(encodeSuperblock(sample))).toEqual({ kind: "valid", superblock: sample });
});

test("metadata clusters are those of the superblocks and the extents", () => {
  expect(metadataClusters(sample)).toEqual([0, 99]);
  const small = { ...sample, clusterBytes: 64 * KIB, clusterCount: 6400 };
  const clusters = metadataClusters(small);
  expect(clusters).toContain(0);
  expect(clusters).toContain(16); // copy B, which no extent covers
  expect(clusters.length).toBe(1 + 8 + 7 + 1 + 8 + 8 + 16);
});

test("zeroes are no superblock, and every single flipped bit is noticed", () => {
  expect(decodeSuperblock(new Uint8Array(4096)).kind).toBe("absent");
  const bytes = encodeSuperblock(sample);
  for (let bit = 0; bit < 1100 * 8; bit += 3) {
    bytes[bit >> 3] = bytes[bit >> 3]! ^ (1 << (bit & 7));
    expect(decodeSuperblock(bytes).kind).toBe(bit < 64 ? "absent" : "damaged");
    bytes[bit >> 3] = bytes[bit >> 3]! ^ (1 << (bit & 7));
  }
  expect(decodeSuperblock(bytes).kind).toBe("valid");
});

test("unknown incompatible features and newer versions are refused by name", () => {
  const encrypted = decodeSuperblock(altered((view) => view.setUint32(16, 1, true)));
  expect(encrypted).toMatchObject({ kind: "unsupported", why: "encryption", name: sample.name });
  const several = decodeSuperblock(altered((view) => view.setUint32(16, 2 | (1 << 9), true)));
  expect(several).toMatchObject({ kind: "unsupported", why: "block checksums, feature bit 9" });
  const newer = decodeSuperblock(altered((view) => view.setUint32(8, 2, true)));
  expect(newer).toMatchObject({ kind: "unsupported", why: "format version 2", uuid: sample.uuid });
});

test("unknown compatible features do not matter", () => {
  const copy = decodeSuperblock(altered((view) => view.setUint32(20, 0xffffffff, true)));
  expect(copy.kind).toBe("valid");
});

test("a fitting checksum does not make an impossible geometry valid", () => {
  const wrong: [string, (view: DataView) => void][] = [
    ["block size", (view) => view.setUint32(44, 1024, true)],
    ["cluster size", (view) => view.setUint32(48, 3 * MIB, true)],
    ["cluster size", (view) => view.setUint32(48, 32 * KIB, true)],
    ["clusters exceed", (view) => view.setUint32(56, 1000, true)],
    ["0 clusters", (view) => view.setUint32(56, 0, true)],
    ["too many extents", (view) => view.setUint16(80, 5000, true)],
    ["name", (view) => view.setUint16(88, 0, true)],
    ["name", (view) => view.setUint16(88, 200, true)],
    ["not UTF-8", (view) => view.setUint8(96, 0xff)],
    ["53 bits", (view) => view.setUint32(60, 0xffffffff, true)],
    ["whole granules", (view) => view.setUint32(896, 576 * KIB + 512, true)],
    ["leaves the disk", (view) => view.setUint32(896, 0xfff00000, true)],
    ["overlap", (view) => view.setUint32(896, 64 * KIB, true)],
    ["overlap", (view) => view.setUint32(896, 0, true)],
    ["rings differ", (view) => view.setUint32(896 + 3 * 16 + 8, 448 * KIB, true)],
  ];
  for (const [what, change] of wrong) {
    const copy = decodeSuperblock(altered(change));
    expect(copy.kind).toBe("damaged");
    expect(copy.kind === "damaged" ? copy.why : "").toContain(what);
  }
});
