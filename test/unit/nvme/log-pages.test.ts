import { describe, expect, test } from "bun:test";
import { asyncEventDword0, asyncEvents } from "../../../src/nvme/async-events.ts";
import {
  DiscoveryFlag,
  DiscoverySubtype,
  encodeDiscoveryEntry,
  encodeDiscoveryHeader,
} from "../../../src/nvme/discovery.ts";
import {
  encodeAnaLog,
  encodeChangedNamespaces,
  encodeCommandEffects,
  encodeFirmwareSlots,
  encodeHealth,
  encodeReservationNotification,
  encodeSupportedLogPages,
  putErrorEntry,
  ReservationNotice,
} from "../../../src/nvme/log-pages.ts";

function hex(bytes: Uint8Array, from: number, length: number): string {
  return Buffer.from(bytes.subarray(from, from + length)).toString("hex");
}

describe("log pages (Base 2.0, 5.16.1)", () => {
  test("error entry (figure 205)", () => {
    const view = new DataView(new ArrayBuffer(128));
    putErrorEntry(view, 64, {
      count: 0x1_0000_0002,
      queueId: 3,
      commandId: 0x1234,
      status: 0x4002,
      location: 0xffff,
      lba: 0x2_0000_0001,
      namespaceId: 1,
      result: 0xabcd,
    });
    expect(hex(new Uint8Array(view.buffer), 64, 64)).toBe(
      [
        "0200000001000000",
        "0300",
        "3412",
        "0480",
        "ffff",
        "0100000002000000",
        "01000000",
        "00",
        "03",
        "0000",
        "cdab000000000000",
        "00".repeat(24),
      ].join(""),
    );
    expect(hex(new Uint8Array(view.buffer), 0, 64)).toBe("00".repeat(64));
  });

  test("health (figure 207)", () => {
    const bytes = encodeHealth({
      temperature: 298,
      bytesRead: 512_000,
      bytesWritten: 512_001,
      readCommands: 5,
      writeCommands: 6,
      powerOnHours: 7.9,
      mediaErrors: 8,
      errorEntries: 9,
    });
    expect(bytes.byteLength).toBe(512);
    expect(hex(bytes, 0, 8)).toBe("002a01640a000000");
    const at = (offset: number) => Number(new DataView(bytes.buffer).getBigUint64(offset, true));
    expect([32, 48, 64, 80, 96, 112, 128, 144, 160, 176].map(at)).toEqual([
      1, 2, 5, 6, 0, 1, 7, 0, 8, 9,
    ]);
  });

  test("firmware slots (figure 208)", () => {
    const bytes = encodeFirmwareSlots("0.1.0");
    expect([bytes.byteLength, hex(bytes, 0, 17)]).toEqual([
      512,
      `01${"00".repeat(7)}302e312e3020202000`,
    ]);
  });

  test("changed namespaces (5.16.1.5)", () => {
    expect(hex(encodeChangedNamespaces([1, 0xffffffff]), 0, 12)).toBe("01000000ffffffff00000000");
    const many = encodeChangedNamespaces(Array.from({ length: 2000 }, (_, i) => i + 1));
    expect([many.byteLength, hex(many, 4092, 4)]).toEqual([4096, "00040000"]);
  });

  test("commands supported and effects (figure 210)", () => {
    const bytes = encodeCommandEffects(
      [{ opcode: 6, changesBlocks: false }],
      [{ opcode: 1, changesBlocks: true }],
    );
    expect([hex(bytes, 24, 4), hex(bytes, 1028, 4)]).toEqual(["01000000", "03000000"]);
    expect(bytes.reduce((sum, byte) => sum + byte, 0)).toBe(4);
  });

  test("supported log pages (figure 203)", () => {
    const bytes = encodeSupportedLogPages([0, 0x80]);
    expect([bytes.byteLength, hex(bytes, 0, 8), hex(bytes, 512, 4)]).toEqual([
      1024,
      "0100000000000000",
      "01000000",
    ]);
  });

  test("ANA (figure 220)", () => {
    const groups = [
      { id: 1, state: 2, changeCount: 5, namespaces: [1, 7] },
      { id: 2, state: 15, changeCount: 0, namespaces: [] },
    ];
    const full = encodeAnaLog(9, groups, false);
    expect(hex(full, 0, full.byteLength)).toBe(
      [
        "0900000000000000",
        "0200",
        "00".repeat(6),
        [
          "01000000",
          "02000000",
          "0500000000000000",
          "02",
          "00".repeat(15),
          "0100000007000000",
        ].join(""),
        ["02000000", "00000000", "0000000000000000", "0f", "00".repeat(15)].join(""),
      ].join(""),
    );
    const short = encodeAnaLog(9, groups, true);
    expect([short.byteLength, hex(short, 16, 8)]).toEqual([16 + 64, "0100000000000000"]);
  });

  test("reservation notification (figure 255)", () => {
    const bytes = encodeReservationNotification(
      258,
      ReservationNotice.RESERVATION_PREEMPTED,
      300,
      1,
    );
    expect([bytes.byteLength, hex(bytes, 0, 16)]).toEqual([64, "020100000000000003ff000001000000"]);
  });
});

describe("discovery (figures 263 and 264)", () => {
  test("header", () => {
    const bytes = encodeDiscoveryHeader(7, 3);
    expect([bytes.byteLength, hex(bytes, 0, 18)]).toEqual([
      1024,
      "070000000000000003000000000000000000",
    ]);
  });

  test("entry", () => {
    const entry = {
      subtype: DiscoverySubtype.NVM,
      nqn: "nqn.2019-05.io.openebs:a",
      address: "192.0.2.1",
      port: 8420,
      portId: 2,
      adminEntries: 128,
      flags: DiscoveryFlag.DUPLICATE | DiscoveryFlag.PERSISTENT,
    };
    const bytes = encodeDiscoveryEntry(entry);
    expect(bytes.byteLength).toBe(1024);
    // TCP, IPv4, NVM subsystem, TREQ 0 ("not specified").
    expect(hex(bytes, 0, 12)).toBe("030102000200ffff80000300");
    const text = (at: number, length: number) =>
      Buffer.from(bytes.subarray(at, at + length)).toString();
    expect(text(32, 32)).toBe("8420".padEnd(32));
    expect(text(256, 256)).toBe("nqn.2019-05.io.openebs:a".padEnd(256, "\0"));
    expect(text(512, 256)).toBe("192.0.2.1".padEnd(256));
    expect(hex(bytes, 768, 256)).toBe("00".repeat(256));
    expect(encodeDiscoveryEntry({ ...entry, address: "2001:db8::1" })[1]).toBe(2);
  });
});

test("dword 0 of asynchronous events (figure 145)", () => {
  const words = Object.entries(asyncEvents).map(([name, kind]) => [
    name,
    asyncEventDword0(kind).toString(16),
  ]);
  expect(words).toEqual([
    ["internalError", "10400"],
    ["namespaceChanged", "40002"],
    ["anaChanged", "c0302"],
    ["discoveryChanged", "70f002"],
    ["reservationNotice", "800006"],
  ]);
});
