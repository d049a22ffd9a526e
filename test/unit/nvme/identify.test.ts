import { describe, expect, test } from "bun:test";
import {
  type ControllerIdentity,
  encodeCommandSets,
  encodeController,
  encodeDescriptors,
  encodeIndependentNamespace,
  encodeNamespace,
  encodeNamespaceList,
  encodeNvmController,
} from "../../../src/nvme/identify.ts";

const controller: ControllerIdentity = {
  controllerId: 0x1234,
  serial: "SER",
  model: "A model",
  firmware: "1.2.3",
  subsystemNqn: "nqn.2019-05.io.openebs:a",
  isDiscovery: false,
  transferPagesLog2: 8,
  inCapsuleBytes: 8192,
  asyncEvents: 4,
  errorEntries: 64,
  keepAliveGranularity: 10,
  namespaces: 1,
  queueEntries: 1024,
};
const namespace = {
  blockCount: 0x1_0000_0001,
  blockSize: 4096,
  uuid: "00112233-4455-6677-8899-aabbccddeeff",
  anaGroupId: 1,
  thin: true,
  discardZeroes: true,
  reservationsPersist: true,
};

/** Fields at their places: [offset, bytes as hex]. */
function expectFields(bytes: Uint8Array, fields: readonly (readonly [number, string])[]): void {
  for (const [at, hex] of fields) {
    const found = Buffer.from(bytes.subarray(at, at + hex.length / 2)).toString("hex");
    expect([at, found]).toEqual([at, hex]);
  }
}

function ascii(text: string): string {
  return Buffer.from(text).toString("hex");
}

describe("Identify Controller (Base 2.0, figure 275)", () => {
  test("golden fields of an I/O controller", () => {
    const bytes = encodeController(controller);
    expect(bytes.byteLength).toBe(4096);
    expectFields(bytes, [
      [4, ascii("SER".padEnd(20))],
      [24, ascii("A model".padEnd(40))],
      [64, ascii("1.2.3   ")],
      [76, "0b"], // CMIC: ports, controllers, ANA
      [77, "08"], // MDTS
      [78, "3412"], // CNTLID
      [80, "00000200"], // VER 2.0
      [92, "00090000"], // OAES: namespace attributes, ANA
      [96, "01000000"], // CTRATT: 128-bit host id
      [111, "01"], // CNTRLTYPE
      [259, "03"], // AERL
      [261, "07"], // LPA
      [262, "3f"], // ELPE
      [320, "0a00"], // KAS
      [342, "0a"], // ANATT
      [343, "1f"], // ANACAP
      [344, "0100000001000000"], // ANAGRPMAX, NANAGRPID
      [512, "6644"], // SQES, CQES
      [514, "0004"], // MAXCMD
      [516, "01000000"], // NN
      [520, "bd00"], // ONCS
      [522, "0000"], // FUSES
      [525, "07"], // VWC
      [536, "01003000"], // SGLS
      [540, "01000000"], // MNAN
      [768, ascii("nqn.2019-05.io.openebs:a\0")],
      [1792, "0402000001000000"], // IOCCSZ, IORCSZ
      [1800, "0000"], // ICDOFF
      [1803, "01"], // MSDBD
    ]);
  });

  test("a discovery controller claims nothing of namespaces", () => {
    expectFields(encodeController({ ...controller, isDiscovery: true }), [
      [76, "03"],
      [92, "00000080"], // OAES: discovery log change
      [111, "02"],
      [261, "04"],
      [342, "00000000"],
      [512, "0000"],
      [516, "0000000000000000"],
      [525, "00"],
      [1806, "01"], // DCTYPE
    ]);
  });

  test("texts that are too long are cut", () => {
    const bytes = encodeController({
      ...controller,
      serial: "x".repeat(99),
      firmware: "123456789",
    });
    expectFields(bytes, [
      [4, ascii("x".repeat(20))],
      [24, ascii("A model")],
      [64, ascii("12345678")],
      [72, "06"],
    ]);
  });
});

describe("Identify Namespace (NVM Command Set 1.0c, figure 97)", () => {
  test("golden fields", () => {
    expectFields(encodeNamespace(namespace), [
      [0, "0100000001000000"], // NSZE
      [8, "0100000001000000"], // NCAP
      [24, "19"], // NSFEAT
      [25, "00"], // NLBAF
      [26, "00"], // FLBAS
      [30, "01"], // NMIC
      [31, "ff"], // RESCAP
      [33, "09"], // DLFEAT
      [64, "0000000000000000"], // NPWG, NPWA, NPDG, NPDA: one block of 4 KiB
      [92, "01000000"], // ANAGRPID
      [104, "00112233445566778899aabbccddeeff"], // NGUID
      [128, "00000c00"], // LBAF0: 4,096 bytes, no metadata
    ]);
    const other = {
      ...namespace,
      blockSize: 512,
      thin: false,
      discardZeroes: false,
      reservationsPersist: false,
    };
    expectFields(encodeNamespace(other), [
      [24, "18"],
      [31, "fe"],
      [33, "08"],
      [64, "0700070007000700"],
      [128, "00000900"],
    ]);
  });

  test("independent of the command set (Base 2.0, figure 280)", () => {
    expectFields(encodeIndependentNamespace(namespace), [
      [0, "0801ff00"],
      [4, "01000000"],
      [14, "01"],
    ]);
  });

  test("descriptors: NGUID, UUID, command set (Base 2.0, figure 277)", () => {
    const id = "00112233445566778899aabbccddeeff";
    expectFields(encodeDescriptors(namespace.uuid), [
      [0, `02100000${id}`],
      [20, `03100000${id}`],
      [40, "0401000000"],
      [45, "00000000"],
    ]);
  });

  test("lists hold the ids above a given one", () => {
    const list = (after: number) =>
      new Uint32Array(encodeNamespaceList([1, 5, 9], after).buffer).slice(0, 4);
    expect([...list(0)]).toEqual([1, 5, 9, 0]);
    expect([...list(1)]).toEqual([5, 9, 0, 0]);
    expect([...list(9)]).toEqual([0, 0, 0, 0]);
  });
});

test("limits and combinations of the NVM command set", () => {
  expectFields(encodeNvmController(8), [[0, "08000000"]]);
  expectFields(encodeCommandSets(), [[0, "0100000000000000"]]);
});
