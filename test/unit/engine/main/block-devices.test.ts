/** The list of the machine's disks, over a made-up sysfs, and over a real loop device. */
import { describe, expect, test } from "bun:test";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { listBlockDevices } from "../../../../src/engine/main/block-devices.ts";
import { tempFolders } from "../../../support/temp-folder.ts";

const tempFolder = tempFolders();
const MIB = 1 << 20;

interface Machine {
  readonly root: string;
  /** Adds a disk, or a partition of `parent`, with these bytes. */
  add(name: string, number: string, bytes: Uint8Array, more?: Record<string, string>): void;
  list(all: boolean): ReturnType<typeof listBlockDevices>;
}

function makeMachine(mounts = "", swaps = ""): Machine {
  const root = tempFolder();
  const put = (path: string, content: string | Uint8Array): void => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), content);
  };
  put("proc/self/mountinfo", mounts);
  put("proc/swaps", `Filename Type Size Used Priority\n${swaps}`);
  mkdirSync(join(root, "sys/class/block"), { recursive: true });
  return {
    root,
    add(name, number, bytes, more = {}) {
      const parent = more.parent;
      const place =
        parent === undefined
          ? `sys/devices/pci0/virtio1/block/${name}`
          : `sys/devices/pci0/virtio1/block/${parent}/${name}`;
      put(`${place}/dev`, `${number}\n`);
      put(`${place}/size`, `${bytes.byteLength / 512}\n`);
      put(`${place}/ro`, `${more.ro ?? "0"}\n`);
      put(`${place}/queue/rotational`, `${more.rotational ?? "0"}\n`);
      if (more.model !== undefined) put(`${place}/device/model`, `${more.model}\n`);
      if (parent !== undefined) put(`${place}/partition`, `${name.slice(parent.length)}\n`);
      if (more.holder !== undefined) put(`${place}/holders/${more.holder}`, "");
      if (more.udev !== undefined) put(`udev/data/b${number}`, more.udev);
      put(`dev/${name}`, bytes);
      symlinkSync(`../../${place.slice(4)}`, join(root, "sys/class/block", name));
    },
    list: (all) =>
      listBlockDevices(all, {
        sys: join(root, "sys/class/block"),
        dev: join(root, "dev"),
        proc: join(root, "proc"),
        udev: join(root, "udev"),
      }),
  };
}

function blank(): Uint8Array {
  return new Uint8Array(4 * MIB);
}

/** The beginning of an ext4 file system, as far as it is looked at. */
function ext4(): Uint8Array {
  const bytes = blank();
  const view = new DataView(bytes.buffer);
  view.setUint16(1024 + 0x38, 0xef53, true);
  view.setUint32(1024 + 0x60, 0x40, true);
  bytes.set(Buffer.from("000102030405060708090a0b0c0d0e0f", "hex"), 1024 + 0x68);
  bytes.set(new TextEncoder().encode("data"), 1024 + 0x78);
  return bytes;
}

describe("block devices", () => {
  test("that nobody uses and that are blank are available", async () => {
    const machine = makeMachine();
    machine.add("vdb", "254:16", blank(), { model: "QEMU", rotational: "1" });
    expect(await machine.list(false)).toEqual([
      {
        devname: join(machine.root, "dev/vdb"),
        devtype: "disk",
        devmajor: 254,
        devminor: 16,
        model: "QEMU",
        devpath: "/devices/pci0/virtio1/block/vdb",
        devlinks: [],
        sizeBytes: 4 * MIB,
        isRotational: true,
        connectionType: "virtio",
        available: true,
        unavailableReason: "",
        filesystem: null,
        partition: null,
      },
    ]);
  });

  test("that are in use are only in the list of all, with the reason", async () => {
    const mounts = "27 1 254:32 / /mnt/my\\040disk rw - ext4 /dev/vdc rw";
    const machine = makeMachine(mounts);
    machine.add("vdb", "254:16", ext4());
    machine.add("vdc", "254:32", blank());
    machine.add("vdd", "254:48", blank());
    machine.add("vdd1", "254:49", blank(), { parent: "vdd" });
    machine.add("vde", "254:64", blank(), { holder: "dm-0" });
    machine.add("vdf", "254:80", blank(), { ro: "1" });
    machine.add("vdg", "254:96", blank().fill(7, 2 * 512, 3 * 512));
    machine.add("zram0", "253:0", blank());
    expect((await machine.list(false)).map(({ devname }) => devname)).toEqual([
      join(machine.root, "dev/vdd1"),
    ]);
    const reasons = Object.fromEntries(
      (await machine.list(true)).map((d) => [d.devname.split("/").at(-1), d.unavailableReason]),
    );
    expect(reasons).toEqual({
      vdb: "it holds an ext2, ext3 or ext4 file system",
      vdc: "it is mounted at /mnt/my disk",
      vdd: "it has partitions",
      vdd1: "",
      vde: "it is used by dm-0",
      vdf: "it is read-only",
      vdg: "it holds unknown data at byte 1024",
    });
  });

  test("tell of file systems and partitions", async () => {
    const machine = makeMachine();
    machine.add("vdb", "254:16", blank());
    const udev = [
      "S:disk/by-id/virtio-1-part2",
      "E:ID_PART_ENTRY_NAME=data",
      "E:ID_PART_ENTRY_SCHEME=gpt",
      "E:ID_PART_ENTRY_TYPE=0fc63daf-8483-4772-8e79-3d69d8477de4",
      "E:ID_PART_ENTRY_UUID=11111111-2222-3333-4444-555555555555",
    ].join("\n");
    machine.add("vdb2", "254:18", ext4(), { parent: "vdb", udev });
    const partition = (await machine.list(true)).find(({ devtype }) => devtype === "partition");
    expect(partition).toMatchObject({
      devlinks: ["/dev/disk/by-id/virtio-1-part2"],
      filesystem: {
        fstype: "ext4",
        label: "data",
        uuid: "00010203-0405-0607-0809-0a0b0c0d0e0f",
        mountpoint: "",
      },
      partition: {
        parent: join(machine.root, "dev/vdb"),
        number: 2,
        name: "data",
        scheme: "gpt",
        uuid: "11111111-2222-3333-4444-555555555555",
      },
    });
  });

  test("of this machine can be listed", async () => {
    for (const device of await listBlockDevices(true)) {
      expect(device.available).toBe(device.unavailableReason === "");
    }
  });
});
