/** What the node service makes of messages, of blkid's answers and of sizes: the pure parts. */
import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import {
  VolumeCapability_AccessMode_Mode as Mode,
  type VolumeCapability,
  VolumeCapabilitySchema,
} from "../../../../src/csi/generated/csi_pb.js";
import { fileSystemOf } from "../../../../src/csi/node/file-systems.ts";
import { encodeMark, markOffset } from "../../../../src/csi/node/format-mark.ts";
import { isSameAccess } from "../../../../src/csi/node/records.ts";
import { pathOf, useOf, uuidOf, volumePathOf } from "../../../../src/csi/node/requests.ts";
import { contentOf, foreignContent, parseProbe } from "../../../../src/csi/node/signatures.ts";
import { volumeTurns } from "../../../../src/csi/node/volume-turns.ts";
import { TrilithError } from "../../../../src/errors.ts";
import { capabilityOf } from "../../../support/node-calls.ts";

function codeOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof TrilithError) return error.code;
    throw error;
  }
  return "none";
}

describe("requests", () => {
  test("paths are absolute, and written without detours", () => {
    expect(pathOf("x", "/a//b/../c/")).toBe("/a/c");
    expect(pathOf("x", "/")).toBe("/");
    for (const path of ["", "a/b", "/a\0b"]) {
      expect(codeOf(() => pathOf("target_path", path))).toBe("InvalidArgument");
    }
    expect(codeOf(() => volumePathOf(""))).toBe("InvalidArgument");
    expect(codeOf(() => volumePathOf("some/path"))).toBe("NotFound");
  });

  test("volume handles are UUIDs; others are nobody's", () => {
    const uuid = "EC4E66FD-3B33-4439-B504-D49ABA53DA26";
    expect(uuidOf(uuid)).toBe(uuid.toLowerCase());
    for (const id of ["pvc-1", `${uuid}0`, "../../etc/passwd"]) expect(uuidOf(id)).toBeNull();
  });

  test("a capability tells file system, flags and who writes", () => {
    expect(useOf(capabilityOf({ flags: ["noatime,nodev", "", "ro"] }))).toEqual({
      access: { kind: "mount", fsType: "ext4", flags: ["noatime", "nodev", "ro"] },
      readOnly: false,
      singlePublication: false,
    });
    expect(useOf(capabilityOf({ block: true, mode: Mode.MULTI_NODE_MULTI_WRITER })).access).toEqual(
      {
        kind: "block",
      },
    );
    const reader = useOf(capabilityOf({ mode: Mode.MULTI_NODE_READER_ONLY }));
    expect(reader.readOnly).toBe(true);
    const pod = useOf(capabilityOf({ mode: Mode.SINGLE_NODE_SINGLE_WRITER }));
    expect(pod.singlePublication).toBe(true);
  });

  const wrong: [string, VolumeCapability | undefined][] = [
    ["none", undefined],
    [
      "without access",
      create(VolumeCapabilitySchema, { accessMode: { mode: Mode.SINGLE_NODE_WRITER } }),
    ],
    ["without mode", capabilityOf({ mode: Mode.UNKNOWN })],
    ["a file system of several writers", capabilityOf({ mode: Mode.MULTI_NODE_MULTI_WRITER })],
    ["an unknown file system", capabilityOf({ fsType: "zfs" })],
    ["a flag that is an option of mount", capabilityOf({ flags: ["--bind"] })],
    ["a flag with a space", capabilityOf({ flags: ["ro /etc"] })],
    ["endless flags", capabilityOf({ flags: ["x".repeat(5_000)] })],
  ];
  test.each(wrong)("a capability that is refused: %s", (_, capability) => {
    expect(codeOf(() => useOf(capability))).toBe("InvalidArgument");
  });

  test("the same access is the same in any order of flags", () => {
    const mount = (fsType: string, ...flags: string[]) =>
      ({ kind: "mount", fsType, flags }) as const;
    expect(isSameAccess(mount("xfs", "a", "b"), mount("xfs", "b", "a"))).toBe(true);
    expect(isSameAccess(mount("xfs", "a"), mount("xfs"))).toBe(false);
    expect(isSameAccess(mount("xfs"), mount("ext4"))).toBe(false);
    expect(isSameAccess(mount("xfs"), { kind: "block" })).toBe(false);
    expect(isSameAccess({ kind: "block" }, { kind: "block" })).toBe(true);
  });
});

describe("what a device holds", () => {
  const probe = (text: string) => contentOf(parseProbe(text));

  test("a file system is told by type and UUID", () => {
    const text = "DEVNAME=/dev/x\nLABEL=a\\ b=c\nUUID=1-2\nTYPE=ext4\nUSAGE=filesystem\n";
    expect(probe(text)).toEqual({ kind: "file system", type: "ext4", uuid: "1-2" });
    expect(parseProbe(text).get("LABEL")).toBe("a b=c");
  });

  test("anything else that is known is no file system, and nothing is nothing", () => {
    expect(probe("TYPE=LVM2_member\nUSAGE=raid\n")?.kind).toBe("other");
    expect(probe("TYPE=crypto_LUKS\nUSAGE=crypto\n")).toEqual({
      kind: "other",
      what: "crypto_LUKS (crypto)",
    });
    expect(probe("PTTYPE=gpt\n")).toEqual({ kind: "other", what: "a partition table (gpt)" });
    expect(probe("DEVNAME=/dev/x\n")).toBeNull();
  });

  test("the error says what was found, and what to do with each", () => {
    const xfs = { kind: "file system", type: "xfs", uuid: "" } as const;
    const error = foreignContent("/dev/x", xfs, "ext4");
    expect(error.code).toBe("ForeignDisk");
    expect(error.message).toMatch(/ext4 .* xfs \(UUID none\); it is left as it is/);
    expect(error.remedy).toContain("fsType xfs");
    expect(foreignContent("/dev/x", { kind: "other", what: "swap" }, "ext4").remedy).toContain(
      "raw block",
    );
  });
});

describe("the mark of an unfinished mkfs", () => {
  test("lies in a block of its own, clear of both ends", () => {
    for (const bytes of [8 << 20, 100_000_000, 2 ** 40 + 12_345]) {
      const offset = markOffset(bytes)!;
      expect(offset % 4096).toBe(0);
      expect(offset).toBeGreaterThan(4 << 20);
      expect(bytes - offset).toBeGreaterThanOrEqual(3 << 20);
      expect(bytes - offset).toBeLessThan((3 << 20) + 4096);
    }
    expect(markOffset((8 << 20) - 1)).toBeNull();
  });

  test("is of one volume", () => {
    const [a, b] = [crypto.randomUUID(), crypto.randomUUID()];
    expect(encodeMark(a)).toHaveLength(4096);
    expect(Buffer.from(encodeMark(a)).equals(encodeMark(a))).toBe(true);
    expect(Buffer.from(encodeMark(a)).equals(encodeMark(b))).toBe(false);
  });
});

test("mkfs is forced only where something half made is to be overwritten", () => {
  for (const type of ["ext4", "xfs", "btrfs"]) {
    const { mkfs } = fileSystemOf(type);
    const flag = type === "ext4" ? "-F" : "-f";
    const plain = mkfs("/dev/x", { force: false, further: [] });
    const forced = mkfs("/dev/x", { force: true, further: ["-L", "name"], uuid: "1-2" });
    expect(plain).not.toContain(flag);
    expect(forced).toContain(flag);
    expect(forced.join(" ")).toMatch(/1-2.*-L name \/dev\/x$/);
    expect(plain[0]).toBe(`mkfs.${type}`);
  }
});

test("calls of one volume do not overlap, and a failed one leaves the turn to the next", async () => {
  const turns = volumeTurns();
  const gate = Promise.withResolvers<void>();
  const first = turns.take("v", "NodeStageVolume", () => gate.promise);
  const second = turns.take("v", "NodeUnstageVolume", async () => {});
  const refused = await second.catch((error: unknown) => error);
  expect((refused as TrilithError).code).toBe("Aborted");
  expect((refused as TrilithError).message).toContain("NodeStageVolume");
  await turns.take("w", "NodeStageVolume", async () => {});
  gate.reject(new Error("no"));
  await first.catch(() => undefined);
  expect(await turns.take("v", "NodeUnstageVolume", async () => 1)).toBe(1);
});
