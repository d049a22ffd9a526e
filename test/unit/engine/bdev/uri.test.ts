import { describe, expect, test } from "bun:test";
import { isUuid, parseBdevUri } from "../../../../src/engine/bdev/uri.ts";
import { TrilithError } from "../../../../src/errors.ts";

const UUID = "6b0e2f5c-9d7b-4f5e-8a5a-0d8f3e1f7a11";

describe("device URIs", () => {
  test("memory", () => {
    expect(parseBdevUri(`malloc:///disk0?size_mb=64&blk_size=4096&uuid=${UUID}`)).toEqual({
      driver: "malloc",
      name: "disk0",
      blockSize: 4096,
      blockCount: 16384,
      uuid: UUID,
    });
    expect(parseBdevUri("null:///n-1?num_blocks=100")).toEqual({
      driver: "null",
      name: "n-1",
      blockSize: 512,
      blockCount: 100,
      uuid: undefined,
    });
  });

  test("files and disks", () => {
    const plain = { driver: "uring", path: "/dev/sdb", blockSize: undefined, uuid: undefined };
    expect(parseBdevUri("/dev/sdb")).toEqual(plain as never);
    expect(parseBdevUri("uring:///dev/sdb")).toEqual(plain as never);
    expect(parseBdevUri("aio:///var/a%20b?blk_size=512")).toEqual({
      driver: "aio",
      path: "/var/a b",
      blockSize: 512,
      uuid: undefined,
    });
    // A plain path is taken as it is.
    expect(parseBdevUri("/tmp/a?b#c")).toMatchObject({ path: "/tmp/a?b#c" });
  });

  test("NVMe/TCP", () => {
    const nqn = "nqn.2019-05.io.openebs:x";
    expect(parseBdevUri(`nvmf+tcp://10.0.0.1:4420/${nqn}`)).toEqual({
      driver: "nvmf",
      address: "10.0.0.1",
      port: 4420,
      nqn,
      uuid: undefined,
      hostNqn: undefined,
      headerDigest: false,
      dataDigest: false,
      queues: undefined,
    });
    const all = `nvmf://[fd00::1]/${nqn}?uuid=${UUID.toUpperCase()}&hostnqn=nqn.h&hdgst&ddgst=1&queues=4`;
    expect(parseBdevUri(all)).toEqual({
      driver: "nvmf",
      address: "fd00::1",
      port: 8420,
      nqn,
      uuid: UUID,
      hostNqn: "nqn.h",
      headerDigest: true,
      dataDigest: true,
      queues: 4,
    });
  });

  test("devices that are open", () => {
    expect(parseBdevUri("bdev:///disk0")).toEqual({ driver: "bdev", name: "disk0" });
    expect(parseBdevUri(`loopback:///disk0?uuid=${UUID}`)).toMatchObject({ driver: "bdev" });
  });

  const wrong: readonly (readonly [string, string])[] = [
    ["", "neither an absolute path nor a URI"],
    ["disk0", "neither an absolute path nor a URI"],
    ["iscsi://10.0.0.1/x", 'unknown scheme "iscsi"'],
    ["malloc:///x", '"size_mb" and "num_blocks"'],
    ["malloc:///x?size_mb=1&num_blocks=1", '"size_mb" and "num_blocks"'],
    ["malloc:///x?size_mb=0", 'parameter "size_mb"'],
    ["malloc:///x?size_mb=-1", 'parameter "size_mb"'],
    ["malloc:///x?size_mb=1e3", 'parameter "size_mb"'],
    ["malloc:///x?size_mb=99999999999", 'parameter "size_mb"'],
    ["malloc:///x?size_mb=1&size_mb=2", "given twice"],
    ["malloc:///x?size_mb=1&blk_size=1024", 'parameter "blk_size"'],
    ["malloc:///x?size_mb=1&uuid=1-2-3", 'parameter "uuid"'],
    ["malloc:///x?size_mb=1&sise=2", 'unknown parameter "sise"'],
    ["malloc:///?size_mb=1", "the name"],
    ["malloc:///a/b?size_mb=1", "the name"],
    ["malloc://x?size_mb=1", "has a host"],
    ["uring://dev/sdb", "has a host"],
    ["uring:///", "names no path"],
    ["uring:///dev/sdb?size_mb=1", 'unknown parameter "size_mb"'],
    ["uring:///dev/%zz", "percent-encoding"],
    ["uring:///dev/a%00b", "zero byte"],
    ["uring:///dev/sdb#part", "fragment"],
    ["nvmf:///nqn.x", "names no host"],
    ["nvmf://10.0.0.1/", "NQN"],
    [`nvmf://10.0.0.1/${"n".repeat(224)}`, "NQN"],
    ["nvmf://10.0.0.1/nqn.x?queues=0", 'parameter "queues"'],
    ["nvmf://10.0.0.1/nqn.x?queues=129", 'parameter "queues"'],
    ["nvmf://10.0.0.1/nqn.x?hdgst=maybe", 'parameter "hdgst"'],
    ["nvmf://10.0.0.1/nqn.x?transport=rdma", 'unknown parameter "transport"'],
    ["nvmf://10.0.0.1:99999/nqn.x", "neither an absolute path nor a URI"],
    ["bdev:///x?size_mb=1", 'unknown parameter "size_mb"'],
  ];
  for (const [uri, complaint] of wrong) {
    test(`refuses "${uri.slice(0, 60)}"`, () => {
      let caught: unknown;
      try {
        parseBdevUri(uri);
      } catch (error) {
        caught = error;
      }
      expect(caught).toBeInstanceOf(TrilithError);
      const error = caught as TrilithError;
      expect(error.code).toBe("InvalidArgument");
      expect(error.message).toContain(complaint);
    });
  }

  test("malformed percent-encoding of an NQN is a typed error too", () => {
    expect(() => parseBdevUri("nvmf://10.0.0.1/%zz")).toThrow(TrilithError);
  });

  test("UUIDs are lower case with dashes", () => {
    expect(isUuid(UUID)).toBe(true);
    for (const text of [UUID.toUpperCase(), UUID.slice(1), `${UUID}0`, ""]) {
      expect(isUuid(text)).toBe(false);
    }
  });
});
