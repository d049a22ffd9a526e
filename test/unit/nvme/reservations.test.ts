import { describe, expect, test } from "bun:test";
import {
  reservationAcquireCommand,
  reservationRegisterCommand,
  reservationReleaseCommand,
} from "../../../src/nvme/host-commands.ts";
import { decodeReservationReport } from "../../../src/nvme/identify-decode.ts";
import {
  decodeAcquire,
  decodeRegister,
  decodeRelease,
  encodeReservationReport,
} from "../../../src/nvme/reservations.ts";

describe("reservation commands (Base 2.0, 7.2 to 7.5)", () => {
  const data = Uint8Array.from({ length: 16 }, (_, i) => i + 1);

  test("golden bits of Register", () => {
    const keys = { currentKey: 0x0807060504030201n, newKey: 0x100f0e0d0c0b0a09n };
    expect(decodeRegister(0, data)).toEqual({
      action: 0,
      ignoresKey: false,
      persist: undefined,
      ...keys,
    });
    expect(decodeRegister(0x8000000a | 0, data)).toMatchObject({
      action: 2,
      ignoresKey: true,
      persist: false,
    });
    expect(decodeRegister(0xc0000001, data)).toMatchObject({ action: 1, persist: true });
    expect(decodeRegister(0x40000001, data)).toMatchObject({ persist: "reserved" });
  });

  test("golden bits of Acquire and Release", () => {
    expect(decodeAcquire(0x602, data)).toEqual({
      action: 2,
      ignoresKey: false,
      type: 6,
      currentKey: 0x0807060504030201n,
      preemptKey: 0x100f0e0d0c0b0a09n,
    });
    expect(decodeRelease(0x309, data)).toEqual({
      action: 1,
      ignoresKey: true,
      type: 3,
      currentKey: 0x0807060504030201n,
    });
  });

  test("what a host encodes is decoded", () => {
    const register = reservationRegisterCommand(1, {
      action: "replace",
      currentKey: 1n,
      newKey: 2n,
      ignoreExistingKey: true,
      persist: true,
    });
    expect(decodeRegister(register.sqe[10]!, register.data)).toEqual({
      action: 2,
      ignoresKey: true,
      persist: true,
      currentKey: 1n,
      newKey: 2n,
    });
    const acquire = reservationAcquireCommand(1, {
      action: "preempt",
      type: 2,
      currentKey: 3n,
      preemptKey: 4n,
    });
    expect(decodeAcquire(acquire.sqe[10]!, acquire.data)).toEqual({
      action: 1,
      ignoresKey: false,
      type: 2,
      currentKey: 3n,
      preemptKey: 4n,
    });
    const release = reservationReleaseCommand(1, { action: "clear", type: 5, currentKey: 6n });
    expect(decodeRelease(release.sqe[10]!, release.data)).toEqual({
      action: 1,
      ignoresKey: false,
      type: 5,
      currentKey: 6n,
    });
  });
});

describe("the reservation report (figure 452)", () => {
  const report = {
    generation: 0x01020304,
    type: 2,
    persistent: true,
    controllers: [
      {
        controllerId: 7,
        holds: true,
        hostId: "00112233445566778899aabbccddeeff",
        key: 0x1122334455667788n,
      },
      { controllerId: 0xffff, holds: false, hostId: "ff".repeat(16), key: 1n },
    ],
  };

  test("golden bytes", () => {
    const bytes = encodeReservationReport(report);
    expect(bytes.byteLength).toBe(64 + 2 * 64);
    const hex = (at: number, length: number) =>
      Buffer.from(bytes.subarray(at, at + length)).toString("hex");
    expect(hex(0, 24)).toBe(`0403020102020000000100${"00".repeat(13)}`);
    expect(hex(24, 40)).toBe("00".repeat(40));
    expect(hex(64, 32)).toBe("0700010000000000887766554433221100112233445566778899aabbccddeeff");
    expect(hex(128, 16)).toBe("ffff0000000000000100000000000000");
  });

  test("is decoded by a host", () => {
    const decoded = decodeReservationReport(encodeReservationReport(report));
    expect(decoded).toMatchObject({ generation: 0x01020304, type: 2, persistent: true });
    expect(decoded.registrants.map((r) => [r.controllerId, r.holdsReservation, r.key])).toEqual([
      [7, true, 0x1122334455667788n],
      [0xffff, false, 1n],
    ]);
  });
});
