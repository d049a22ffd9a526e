import { describe, expect, test } from "bun:test";
import {
  decodeIc,
  decodeTermReq,
  encodeIc,
  encodeTermReq,
  PduType,
  pduWord0,
  TermError,
} from "../../../src/nvme/pdu.ts";

/** The first bytes of what was encoded. */
function head(bytes: Uint8Array, length: number): number[] {
  return [...bytes.subarray(0, length)];
}

describe("ICReq and ICResp (TCP transport 1.0, 3.6.2.1 and 3.6.2.2)", () => {
  test("golden bytes", () => {
    const request = encodeIc("request", {
      version: 0,
      dataAlign: 3,
      headerDigest: true,
      dataDigest: false,
      max: 15,
    });
    expect(request.byteLength).toBe(128);
    expect(head(request, 16)).toEqual([0, 0, 128, 0, 128, 0, 0, 0, 0, 0, 3, 1, 15, 0, 0, 0]);
    const response = encodeIc("response", {
      version: 0,
      dataAlign: 0,
      headerDigest: false,
      dataDigest: true,
      max: 1 << 20,
    });
    expect(head(response, 16)).toEqual([1, 0, 128, 0, 128, 0, 0, 0, 0, 0, 0, 2, 0, 0, 16, 0]);
    for (const bytes of [request, response]) {
      expect(bytes.subarray(16).every((byte) => byte === 0)).toBe(true);
    }
  });

  test("what is encoded is decoded", () => {
    for (const headerDigest of [false, true]) {
      for (const dataDigest of [false, true]) {
        const ic = { version: 7, dataAlign: 31, headerDigest, dataDigest, max: 0xfffffffc };
        expect(decodeIc(new DataView(encodeIc("request", ic).buffer))).toEqual(ic);
      }
    }
  });
});

describe("termination requests (3.6.2.3 and 3.6.2.4)", () => {
  test("golden bytes", () => {
    const cause = Uint8Array.of(4, 0, 99, 0, 72, 0, 0, 0);
    const bytes = encodeTermReq("controller", TermError.INVALID_HEADER_FIELD, 2, cause);
    expect([...bytes]).toEqual([
      ...[3, 0, 24, 0, 32, 0, 0, 0],
      ...[1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
      ...cause,
    ]);
    expect(encodeTermReq("host", TermError.PDU_SEQUENCE, 0, cause)[0]).toBe(PduType.H2C_TERM_REQ);
  });

  test("quote at most 128 bytes, padded to a multiple of four", () => {
    expect(encodeTermReq("controller", 1, 0, new Uint8Array(1000)).byteLength).toBe(24 + 128);
    expect(encodeTermReq("controller", 1, 0, new Uint8Array(5)).byteLength).toBe(24 + 8);
    expect(encodeTermReq("controller", 1, 0, new Uint8Array(0)).byteLength).toBe(24);
  });

  test("what is encoded is decoded", () => {
    const bytes = encodeTermReq(
      "controller",
      TermError.HEADER_DIGEST,
      0xdeadbeef,
      new Uint8Array(8),
    );
    expect(decodeTermReq(new DataView(bytes.buffer))).toEqual({ status: 3, info: 0xdeadbeef });
  });
});

test("the first word of a PDU: type, flags, header length, data offset", () => {
  expect(pduWord0(PduType.C2H_DATA, 0x0c, 24, 24) >>> 0).toBe(0x18180c07);
  expect(pduWord0(PduType.C2H_DATA, 0, 24, 128) >>> 0).toBe(0x80180007);
});
