/** What the kernel shows of its NVMe controllers, from recorded attributes. */
import { describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import {
  controllersOf,
  diskOf,
  isServing,
  parseKernelView,
  pathOf,
} from "../../../src/host/kernel-view.ts";
import { readSysfs } from "../../../src/host/sysfs.ts";
import { isAboutNvme } from "../../../src/host/uevents.ts";
import {
  HOST_ID,
  HOST_NQN,
  NQN,
  THREE_PATHS,
  threePaths,
  treeOf,
  VOLUME,
} from "../../support/host-kernel.ts";
import { tempFolders } from "../../support/temp-folder.ts";

const newFolder = tempFolders();

describe("the controllers of a kernel", () => {
  test("are read with address, state and namespace, by ascending number", () => {
    const { controllers } = threePaths();
    expect(controllers.map(({ name }) => name)).toEqual(["nvme0", "nvme1", "nvme10"]);
    expect(controllers[2]).toEqual({
      name: "nvme10",
      nqn: NQN,
      transport: "tcp",
      address: "127.222.180.3",
      port: 8420,
      state: "connecting",
      hostNqn: HOST_NQN,
      hostId: HOST_ID,
      namespaces: [{ name: "nvme0c10n1", uuid: VOLUME, ana: "inaccessible", sizeBytes: 64 << 20 }],
    });
    expect(controllers.map((one) => isServing(one, VOLUME))).toEqual([true, false, false]);
    expect(controllersOf(threePaths(), "nqn.other")).toEqual([]);
    expect(pathOf(controllers[0]!)).toEqual({
      controller: "nvme0",
      address: "127.222.180.1",
      port: 8420,
      state: "live",
      ana: "optimized",
    });
  });

  test("share one disk, which is that of the volume's UUID", () => {
    const view = threePaths();
    const disk = { name: "nvme0n1", nqn: NQN, uuid: VOLUME, sizeBytes: 64 << 20, dev: "259:1" };
    expect(view.disks).toEqual([disk]);
    expect(diskOf(view, NQN, VOLUME)).toEqual(disk);
    expect(diskOf(view, NQN, HOST_ID)).toBeUndefined();
  });

  test("have a disk each without multipath, and no ANA state without ANA", () => {
    const view = parseKernelView(
      treeOf(`
        nvme/nvme4/subsysnqn ${NQN}
        nvme/nvme4/transport tcp
        nvme/nvme4/address traddr=fd00::1,trsvcid=8420
        nvme/nvme4/state live
        nvme/nvme4/nvme4n1/uuid ${VOLUME}
        nvme/nvme4/nvme4n1/size 8
        nvme/nvme4/nvme4n1/dev 259:7
      `),
    );
    expect(view.controllers[0]).toMatchObject({ address: "fd00::1", port: 8420, hostNqn: "" });
    expect(view.controllers[0]!.namespaces[0]!.ana).toBe("unknown");
    expect(isServing(view.controllers[0]!, VOLUME)).toBe(true);
    expect(view.disks.map(({ name, dev }) => [name, dev])).toEqual([["nvme4n1", "259:7"]]);
  });

  test("that go while they are read, and local disks, do no harm", () => {
    const view = parseKernelView(
      treeOf(`
        nvme/nvme0/address 0000:00:1f.0
        nvme/nvme0/transport pcie
        nvme/nvme0/nvme0n1/size 100
        nvme/nvme7/state deleting
        nvme-subsystem/nvme-subsys7/nvme7n1/size 1
      `),
    );
    expect(view.controllers.map(({ name, port, state }) => [name, port, state])).toEqual([
      ["nvme0", 0, "unknown"],
      ["nvme7", 0, "deleting"],
    ]);
    expect(diskOf(view, NQN, VOLUME)).toBeUndefined();
    expect(parseKernelView(new Map())).toEqual({ controllers: [], disks: [] });
  });

  test("are found below the folder of sysfs, and nothing else is", () => {
    const root = newFolder();
    for (const [path, text] of THREE_PATHS) {
      const at = join(root, "class", path);
      mkdirSync(dirname(at), { recursive: true });
      writeFileSync(at, text);
    }
    mkdirSync(join(root, "class/nvme/nvme0/power"));
    writeFileSync(join(root, "class/nvme/nvme0/delete_controller"), "");
    expect(new Map(readSysfs(root))).toEqual(new Map(THREE_PATHS));
    expect(readSysfs(join(root, "none")).size).toBe(0);
  });
});

test("events of the kernel are told apart", () => {
  const event = (...words: string[]) => words.map((word) => `${word}\0`).join("");
  const nvme = event("remove@/devices/virtual/nvme-fabrics/ctl/nvme1", "SUBSYSTEM=nvme");
  const disk = event("add@/devices/virtual/x/nvme0n1", "SUBSYSTEM=block", "DEVNAME=nvme0n1");
  const other = event("add@/devices/virtual/block/loop0", "SUBSYSTEM=block", "DEVNAME=loop0");
  expect([nvme, disk, other, ""].map(isAboutNvme)).toEqual([true, true, false, false]);
  expect(isAboutNvme(other + nvme)).toBe(true);
});
