import { describe, expect, test } from "bun:test";
import {
  decodeConnectCommand,
  decodeConnectData,
  encodeConnectData,
} from "../../../src/nvme/fabrics.ts";
import { connectCommand, connectData } from "../../../src/nvme/host-commands.ts";

const HOST_ID = "00112233445566778899aabbccddeeff";
const identity = {
  hostId: HOST_ID,
  controllerId: 0xffff,
  subsystemNqn: "nqn.2019-05.io.openebs:a",
  hostNqn: "nqn.2014-08.org.nvmexpress:uuid:b",
};

describe("Connect (Base 2.0, 6.3)", () => {
  test("golden bytes of its data", () => {
    const bytes = encodeConnectData(identity);
    expect(bytes.byteLength).toBe(1024);
    expect(Buffer.from(bytes.subarray(0, 18)).toString("hex")).toBe(`${HOST_ID}ffff`);
    expect(bytes.subarray(18, 256).every((byte) => byte === 0)).toBe(true);
    const text = (at: number, length: number) =>
      Buffer.from(bytes.subarray(at, at + length)).toString();
    expect(text(256, 25)).toBe("nqn.2019-05.io.openebs:a\0");
    expect(text(512, 34)).toBe("nqn.2014-08.org.nvmexpress:uuid:b\0");
    expect(bytes.subarray(768).every((byte) => byte === 0)).toBe(true);
  });

  test("what either side encodes is decoded", () => {
    expect(decodeConnectData(encodeConnectData(identity))).toEqual(identity);
    const theirs = connectData({ ...identity, hostId: Buffer.from(HOST_ID, "hex") });
    expect(decodeConnectData(theirs)).toEqual(identity);
  });

  test("names must end, and the subsystem's must begin", () => {
    const good = encodeConnectData(identity);
    expect(decodeConnectData(good.slice().fill(0x61, 256, 512))).toEqual({ invalidAt: 256 });
    expect(decodeConnectData(good.slice().fill(0, 256, 512))).toEqual({ invalidAt: 256 });
    expect(decodeConnectData(good.slice().fill(0x61, 512, 768))).toEqual({ invalidAt: 512 });
    expect(decodeConnectData(good.slice().fill(0xff, 512, 520))).toEqual({ invalidAt: 512 });
    expect(decodeConnectData(good.slice().fill(0, 512, 768))).toEqual({ ...identity, hostNqn: "" });
  });

  test("the command's fields", () => {
    const words = connectCommand(3, 128, 15_000);
    const view = new DataView(words.buffer);
    expect(decodeConnectCommand(view)).toEqual({
      recordFormat: 0,
      queueId: 3,
      entries: 128,
      flowControlOff: false,
      keepAliveMs: 15_000,
    });
    view.setUint8(46, 4);
    view.setUint16(44, 0xffff, true);
    expect(decodeConnectCommand(view)).toMatchObject({ flowControlOff: true, entries: 65536 });
  });
});
