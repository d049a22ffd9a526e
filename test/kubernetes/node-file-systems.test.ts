/**
 * The CSI node service on this machine's kernel: file systems are made, mounted, checked, grown and taken
 * away for real, on loop devices in the place of volumes. Needs root.
 */
import {
  afterAll,
  afterEach,
  beforeEach,
  describe,
  expect,
  setDefaultTimeout,
  test,
} from "bun:test";
import { spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import {
  closeSync,
  copyFileSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type RunCommand, runCommand } from "../../src/csi/node/command.ts";
import { encodeMark, markOffset } from "../../src/csi/node/format-mark.ts";
import { nodeService } from "../../src/csi/node/node-service.ts";
import { type ErrorCode, TrilithError } from "../../src/errors.ts";
import { mountsAt, parseMountinfo } from "../../src/host/mountinfo.ts";
import { canMakeLoopDevices } from "../support/loop-device.ts";
import { type LoopHost, loopHost } from "../support/loop-host.ts";
import { kubelet } from "../support/node-calls.ts";
import { withSeed } from "../support/random.ts";

const MIB = 1 << 20;
const VOLUME_BYTES = 320 * MIB;
const GROWN_BYTES = 448 * MIB;
const fileSystems = ["ext4", "xfs", "btrfs"] as const;

setDefaultTimeout(120_000);

let folder: string;
let files: Map<string, string>;
const machines: Machine[] = [];

/** A node: its own agent, records and paths. */
class Machine {
  readonly name: string;
  readonly host: LoopHost;
  readonly staging: string;
  readonly target: string;
  constructor(name: string) {
    this.name = name;
    this.host = loopHost(files);
    this.staging = join(folder, name, "globalmount");
    this.target = join(folder, name, "pod", "mount");
    mkdirSync(join(folder, name, "pod"), { recursive: true });
    machines.push(this);
  }
  /** Its kubelet; commands run through `run`, calls are given up with `signal`. */
  kubelet(run: RunCommand = runCommand, signal?: AbortSignal) {
    const node = nodeService(
      { nodeName: this.name, topology: {}, agent: this.host, client: null, log: () => {} },
      { recordsDir: join(folder, this.name, "records"), run },
    );
    return kubelet(node, signal);
  }
  mounts(path: string) {
    return mountsAt(parseMountinfo(readFileSync("/proc/self/mountinfo", "utf8")), path);
  }
}

function newVolume(bytes = VOLUME_BYTES): string {
  const uuid = randomUUID();
  const file = join(folder, `${uuid}.disk`);
  const fd = openSync(file, "w");
  ftruncateSync(fd, bytes);
  closeSync(fd);
  files.set(uuid, file);
  return uuid;
}

function shell(...command: string[]): string {
  const result = spawnSync(command[0]!, command.slice(1), { encoding: "utf8" });
  if (result.status !== 0)
    throw new Error(`${command.join(" ")}: ${result.stderr}${result.stdout}`);
  return result.stdout;
}

function writeAt(file: string, offset: number, bytes: Uint8Array): void {
  const fd = openSync(file, "r+");
  try {
    writeSync(fd, bytes, 0, bytes.length, offset);
  } finally {
    closeSync(fd);
  }
}

/** The kernel lets an ext4 grow while it is mounted for those who have CAP_SYS_RESOURCE (24). */
function mayGrowMounted(fsType: string): boolean {
  const effective = /^CapEff:\s+(\S+)$/m.exec(readFileSync("/proc/self/status", "utf8"))![1]!;
  return fsType !== "ext4" || ((BigInt(`0x${effective}`) >> 24n) & 1n) === 1n;
}

async function errorOf(call: Promise<unknown>): Promise<TrilithError> {
  const outcome = await call.then(
    () => null,
    (error: unknown) => error,
  );
  if (outcome instanceof TrilithError) return outcome;
  throw new Error(`not a typed error: ${outcome instanceof Error ? outcome.stack : outcome}`);
}

async function fails(call: Promise<unknown>, code: ErrorCode, saying: RegExp): Promise<void> {
  const error = await errorOf(call);
  expect(`${error.code}: ${error.message}`).toMatch(new RegExp(`^${code}: `));
  expect(`${error.message} (${error.remedy})`).toMatch(saying);
  expect(error.remedy).not.toBe("");
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "trilith-csi-node-"));
  files = new Map();
});

afterEach(() => {
  const left = parseMountinfo(readFileSync("/proc/self/mountinfo", "utf8"))
    .filter(({ path }) => path.startsWith(`${folder}/`))
    .reverse();
  for (const { path } of left) shell("umount", path);
  for (const machine of machines.splice(0)) machine.host.end();
  rmSync(folder, { recursive: true });
});

describe.if(canMakeLoopDevices)("the node service", () => {
  describe.each([...fileSystems])("%s", (fsType) => {
    test("what is written on one node is there on the next; every call may be repeated", async () => {
      const uuid = newVolume();
      const a = new Machine("a");
      const first = a.kubelet();
      const text = randomUUID();
      for (const again of [false, true]) {
        await first.stage(uuid, a.staging, { fsType });
        await first.publish(uuid, a.staging, a.target, { fsType });
        if (!again) writeFileSync(join(a.target, "file"), text);
      }
      expect(a.mounts(a.staging)).toHaveLength(1);
      expect(a.mounts(a.target)).toHaveLength(1);
      expect(a.mounts(a.target)[0]!.fsType).toBe(fsType);
      for (const _ of [1, 2]) await first.unpublish(uuid, a.target);
      expect(existsSync(a.target)).toBe(false);
      for (const _ of [1, 2]) await first.unstage(uuid, a.staging);
      expect(a.mounts(a.staging)).toEqual([]);
      expect(await a.host.list()).toEqual([]);

      const b = new Machine("b");
      const second = b.kubelet();
      await second.stage(uuid, b.staging, { fsType });
      await second.publish(uuid, b.staging, b.target, { fsType }, true);
      expect(readFileSync(join(b.target, "file"), "utf8")).toBe(text);
      expect(() => writeFileSync(join(b.target, "other"), "")).toThrow("EROFS");
      await second.unpublish(uuid, b.target);
      await second.unstage(uuid, b.staging);
    });

    test.if(mayGrowMounted(fsType))(
      "it grows while it is mounted, and at the next stage when it grew meanwhile",
      async () => {
        const uuid = newVolume();
        const a = new Machine("a");
        const calls = a.kubelet();
        await calls.stage(uuid, a.staging, { fsType });
        await calls.publish(uuid, a.staging, a.target, { fsType });
        const sizeOf = async () => (await calls.stats(uuid, a.target)).usage![0]!.total as bigint;
        const before = await sizeOf();
        truncateSync(files.get(uuid)!, GROWN_BYTES);
        for (const _ of [1, 2]) {
          const answer = await calls.expand(uuid, a.target, GROWN_BYTES);
          expect(answer.capacityBytes).toBe(BigInt(GROWN_BYTES));
        }
        const grown = await sizeOf();
        expect(grown - before).toBeGreaterThan(BigInt(100 * MIB));
        await calls.unpublish(uuid, a.target);
        await calls.unstage(uuid, a.staging);

        truncateSync(files.get(uuid)!, GROWN_BYTES + 128 * MIB);
        await calls.stage(uuid, a.staging, { fsType });
        const staged = (await calls.stats(uuid, a.staging)).usage![0]!.total as bigint;
        expect(staged - grown).toBeGreaterThan(BigInt(100 * MIB));
        await calls.unstage(uuid, a.staging);
      },
    );

    test("a clone gets the UUID it is to have, and lives beside its source", async () => {
      const source = newVolume();
      const a = new Machine("a");
      const calls = a.kubelet();
      await calls.stage(source, a.staging, { fsType });
      writeFileSync(join(a.staging, "file"), "of the source");
      await calls.unstage(source, a.staging);
      const clone = newVolume();
      copyFileSync(files.get(source)!, files.get(clone)!);
      await calls.stage(source, a.staging, { fsType });
      const path = join(folder, "clone");
      await calls.stage(clone, path, { fsType }, { fsId: clone });
      expect(readFileSync(join(path, "file"), "utf8")).toBe("of the source");
      const uuid = shell("blkid", "-p", "-o", "value", "-s", "UUID", a.host.deviceOf(clone));
      expect(uuid.trim()).toBe(clone);
      // A repeated stage changes nothing, also with the UUID in it.
      await calls.stage(clone, path, { fsType }, { fsId: clone });
      await calls.unstage(clone, path);
      await calls.unstage(source, a.staging);
    });

    test("given up at any command, a stage and an unstage are finished by the next", async () => {
      const uuid = newVolume();
      const a = new Machine("a");
      let stages = 0;
      for (let at = 0; ; at++) {
        // The caller gives up when command number `at` begins.
        const caller = new AbortController();
        let count = 0;
        const run: RunCommand = (command, options) => {
          if (count++ === at) caller.abort();
          return runCommand(command, options);
        };
        const cutOff = a.kubelet(run, caller.signal);
        const outcome = await cutOff
          .stage(uuid, a.staging, { fsType }, { fsId: uuid })
          .catch((error: unknown) => error);
        if (count > at && outcome instanceof Error) {
          expect((outcome as TrilithError).code).toBe("Aborted");
        }
        stages++;
        const calls = a.kubelet();
        await calls.stage(uuid, a.staging, { fsType }, { fsId: uuid });
        expect(a.mounts(a.staging)).toHaveLength(1);
        writeFileSync(join(a.staging, `file-${at}`), "");
        expect(existsSync(join(a.staging, "file-0"))).toBe(true);
        await calls.unstage(uuid, a.staging);
        expect(await a.host.list()).toEqual([]);
        if (count <= at) break;
      }
      expect(stages).toBeGreaterThan(2);
    });

    test("cut off in the middle of mkfs, it is made anew, and only then", async () => {
      const uuid = newVolume();
      const file = files.get(uuid)!;
      const a = new Machine("a");
      const calls = a.kubelet();
      // What a machine leaves that loses its power: the mark, and something of a file system.
      shell(`mkfs.${fsType}`, "-q", file);
      writeAt(file, 300 * 1024, Buffer.alloc(64 * 1024, 0xa5));
      writeAt(file, markOffset(VOLUME_BYTES)!, encodeMark(uuid));
      await calls.stage(uuid, a.staging, { fsType });
      writeFileSync(join(a.staging, "file"), "kept");
      await calls.unstage(uuid, a.staging);
      await calls.stage(uuid, a.staging, { fsType });
      expect(readFileSync(join(a.staging, "file"), "utf8")).toBe("kept");
      await calls.unstage(uuid, a.staging);
      // The mark of another volume, as a copy of a half-made one would have it, counts for nothing.
      writeAt(file, markOffset(VOLUME_BYTES)!, encodeMark(randomUUID()));
      await calls.stage(uuid, a.staging, { fsType });
      expect(readFileSync(join(a.staging, "file"), "utf8")).toBe("kept");
      await calls.unstage(uuid, a.staging);
    });
  });

  describe("what a volume holds already", () => {
    const untouched = async (uuid: string, fsType: string, code: ErrorCode, saying: RegExp) => {
      const file = files.get(uuid)!;
      const before = shell("sha256sum", file);
      const a = new Machine("a");
      await fails(a.kubelet().stage(uuid, a.staging, { fsType }), code, saying);
      expect(shell("sha256sum", file)).toBe(before);
      expect(await a.host.list()).toEqual([]);
      expect(a.mounts(a.staging)).toEqual([]);
    };

    test("another file system is named and left alone", async () => {
      const uuid = newVolume();
      shell("mkfs.xfs", "-q", files.get(uuid)!);
      await untouched(uuid, "ext4", "ForeignDisk", /xfs.*fsType xfs/);
    });

    test("so are a partition table, swap, and bytes that nobody knows", async () => {
      const table = newVolume();
      // One partition of a DOS label, and the label's signature.
      const entry = [0x80, 0, 2, 0, 0x83, 0xff, 0xff, 0xff, 0, 8, 0, 0, 0, 0, 1, 0];
      writeAt(files.get(table)!, 446, Buffer.from(entry));
      writeAt(files.get(table)!, 510, Buffer.from([0x55, 0xaa]));
      await untouched(table, "ext4", "ForeignDisk", /partition table \(dos\)/);
      const swap = newVolume();
      shell("mkswap", "-q", files.get(swap)!);
      await untouched(swap, "xfs", "ForeignDisk", /swap/);
      const bytes = newVolume();
      writeAt(files.get(bytes)!, 777_777, Buffer.from("data"));
      await untouched(
        bytes,
        "ext4",
        "ForeignDisk",
        /without a known signature \(first at byte 777777\)/,
      );
    });

    test("a blank volume for reading only is told of", async () => {
      const uuid = newVolume();
      const a = new Machine("a");
      const use = { fsType: "ext4", flags: ["ro"] };
      await fails(a.kubelet().stage(uuid, a.staging, use), "FailedPrecondition", /blank/);
    });

    test("one too small for its file system is told of, and not connected any more", async () => {
      const uuid = newVolume(64 * MIB);
      const a = new Machine("a");
      await fails(a.kubelet().stage(uuid, a.staging, { fsType: "xfs" }), "OutOfRange", /at least/);
      expect(await a.host.list()).toEqual([]);
    });

    test("an ext4 with errors is repaired where that is safe, and else told of", async () => {
      const uuid = newVolume();
      const file = files.get(uuid)!;
      const a = new Machine("a");
      const calls = a.kubelet();
      await calls.stage(uuid, a.staging, { fsType: "ext4" });
      writeFileSync(join(a.staging, "file"), "kept");
      await calls.unstage(uuid, a.staging);
      // Free blocks miscounted: e2fsck -p mends it.
      shell("debugfs", "-w", "-R", "set_super_value free_blocks_count 17", file);
      shell("debugfs", "-w", "-R", "set_super_value state 2", file);
      await calls.stage(uuid, a.staging, { fsType: "ext4" });
      expect(readFileSync(join(a.staging, "file"), "utf8")).toBe("kept");
      await calls.unstage(uuid, a.staging);
      // A root folder that is none asks for a decision.
      shell("debugfs", "-w", "-R", "set_inode_field <2> mode 0100644", file);
      shell("debugfs", "-w", "-R", "set_super_value state 2", file);
      await fails(calls.stage(uuid, a.staging, { fsType: "ext4" }), "Corrupted", /e2fsck -f/);
      expect(a.mounts(a.staging)).toEqual([]);
    });
  });

  describe("requests that contradict what is there", () => {
    test("a second stage of another kind is a conflict, the same one is not", async () => {
      const uuid = newVolume();
      const a = new Machine("a");
      const calls = a.kubelet();
      const use = { fsType: "ext4", flags: ["noatime", "nodev"] };
      await calls.stage(uuid, a.staging, use);
      await calls.stage(uuid, a.staging, { fsType: "ext4", flags: ["nodev", "noatime"] });
      await fails(calls.stage(uuid, a.staging, { fsType: "xfs" }), "Conflict", /staged at/);
      await fails(calls.stage(uuid, a.staging, { fsType: "ext4" }), "Conflict", /staged at/);
      await fails(calls.stage(uuid, a.staging, { block: true }), "Conflict", /staged at/);
      await fails(calls.stage(uuid, join(folder, "x"), use), "Conflict", /staged at/);
      expect(a.mounts(a.staging)).toHaveLength(1);
      // The record is gone, the mount tells the same.
      rmSync(join(folder, "a", "records"), { recursive: true });
      await fails(calls.stage(uuid, a.staging, { fsType: "xfs" }), "Conflict", /mounted at/);
      await fails(calls.stage(uuid, a.staging, { block: true }), "Conflict", /mounted at/);
      await fails(calls.stage(uuid, join(folder, "x"), use), "Conflict", /mounted at/);
      await calls.stage(uuid, a.staging, use);
      await calls.unstage(uuid, a.staging);
    });

    test("a publication stays as it was asked for; one for reading that was cut off is finished", async () => {
      const uuid = newVolume();
      const a = new Machine("a");
      const calls = a.kubelet();
      const use = { fsType: "ext4" };
      await fails(
        calls.publish(uuid, a.staging, a.target, use),
        "FailedPrecondition",
        /not staged/,
      );
      await calls.stage(uuid, a.staging, use);
      await calls.publish(uuid, a.staging, a.target, use);
      await fails(calls.publish(uuid, a.staging, a.target, use, true), "Conflict", /writable/);
      await fails(calls.publish(uuid, a.staging, a.target, { block: true }), "Conflict", /staged/);
      const reader = join(folder, "a", "pod", "reader");
      mkdirSync(reader);
      shell("mount", "--bind", a.staging, reader);
      await calls.publish(uuid, a.staging, reader, use, true);
      expect(() => writeFileSync(join(reader, "x"), "")).toThrow("EROFS");
      await fails(calls.publish(uuid, a.staging, reader, use), "Conflict", /read-only/);
      await fails(calls.unstage(uuid, a.staging), "InUse", new RegExp(`${a.target}.*unpublished`));
      expect(a.mounts(a.staging)).toHaveLength(1);
      await calls.unpublish(uuid, a.target);
      await calls.unpublish(uuid, reader);
      await calls.unstage(uuid, a.staging);
    });

    test("a driver that has lost its records publishes what is staged, and as it is staged", async () => {
      const [uuid, raw] = [newVolume(), newVolume()];
      const a = new Machine("a");
      const calls = a.kubelet();
      const use = { fsType: "xfs" };
      await calls.stage(uuid, a.staging, use);
      await calls.stage(raw, join(folder, "raw"), { block: true });
      rmSync(join(folder, "a", "records"), { recursive: true });
      const other = calls.publish(uuid, a.staging, a.target, { fsType: "ext4" });
      await fails(other, "FailedPrecondition", /not staged/);
      await fails(
        calls.publish(uuid, a.staging, a.target, { block: true }),
        "FailedPrecondition",
        /not/,
      );
      await calls.publish(uuid, a.staging, a.target, use);
      expect(a.mounts(a.target)).toHaveLength(1);
      const path = join(folder, "a", "raw");
      await calls.publish(raw, join(folder, "raw"), path, { block: true });
      expect(statSync(path).isBlockDevice()).toBe(true);
      await calls.unpublish(raw, path);
      await calls.unstage(raw, join(folder, "raw"));
      await calls.unpublish(uuid, a.target);
      await calls.unstage(uuid, a.staging);
    });

    test("what was written beside the volume is not deleted with its folder", async () => {
      const uuid = newVolume();
      const a = new Machine("a");
      mkdirSync(a.target, { recursive: true });
      writeFileSync(join(a.target, "stray"), "");
      await fails(a.kubelet().unpublish(uuid, a.target), "FailedPrecondition", /not on the volume/);
      expect(existsSync(join(a.target, "stray"))).toBe(true);
    });
  });

  test("a busy volume is not unstaged: the error says by whom, and nothing is lost", async () => {
    const uuid = newVolume();
    const a = new Machine("a");
    const calls = a.kubelet();
    await calls.stage(uuid, a.staging, { fsType: "ext4" });
    const holder = Bun.spawn(["sleep", "600"], { cwd: a.staging, stdin: "ignore" });
    try {
      const saying = new RegExp(`sleep \\(process ${holder.pid}\\) works in`);
      await fails(calls.unstage(uuid, a.staging), "InUse", saying);
      expect(a.mounts(a.staging)).toHaveLength(1);
      expect(a.host.calls.disconnect).toBe(0);
    } finally {
      holder.kill("SIGKILL");
      await holder.exited;
    }
    await calls.unstage(uuid, a.staging);
    expect(await a.host.list()).toEqual([]);
  });

  test("a raw block device: written on one node, read on the next, grown, read-only", async () => {
    const uuid = newVolume();
    const a = new Machine("a");
    const calls = a.kubelet();
    const use = { block: true };
    const bytes = Buffer.from(randomUUID());
    for (const _ of [1, 2]) {
      await calls.stage(uuid, a.staging, use);
      await calls.publish(uuid, a.staging, a.target, use);
    }
    expect(statSync(a.target).isBlockDevice()).toBe(true);
    expect(a.mounts(a.target)).toHaveLength(1);
    await fails(calls.unstage(uuid, a.staging), "InUse", /is mounted at /);
    writeAt(a.target, 4096, bytes);
    const stats = await calls.stats(uuid, a.target);
    expect(stats.usage![0]!.total).toBe(BigInt(VOLUME_BYTES));
    truncateSync(files.get(uuid)!, GROWN_BYTES);
    expect((await calls.expand(uuid, a.target, GROWN_BYTES)).capacityBytes).toBe(
      BigInt(GROWN_BYTES),
    );
    const holder = Bun.spawn(["sleep", "600"], { stdin: Bun.file(a.target) });
    try {
      const saying = new RegExp(`sleep \\(process ${holder.pid}\\) has .* open`);
      await fails(calls.unpublish(uuid, a.target), "InUse", saying);
    } finally {
      holder.kill("SIGKILL");
      await holder.exited;
    }
    await calls.unpublish(uuid, a.target);
    expect(existsSync(a.target)).toBe(false);
    await calls.unstage(uuid, a.staging);

    const b = new Machine("b");
    const second = b.kubelet();
    await second.stage(uuid, b.staging, use);
    await second.publish(uuid, b.staging, b.target, use, true);
    expect(readFileSync(files.get(uuid)!).subarray(4096, 4096 + bytes.length)).toEqual(bytes);
    expect(() => writeAt(b.target, 0, bytes)).toThrow("EPERM");
    await second.unpublish(uuid, b.target);
    await second.unstage(uuid, b.staging);
  });

  test("its condition tells of lost paths and of a file system that has become read-only", async () => {
    const uuid = newVolume();
    const a = new Machine("a");
    const calls = a.kubelet();
    await fails(calls.stats(uuid, a.target), "NotFound", /not at/);
    await calls.stage(uuid, a.staging, { fsType: "ext4" });
    await fails(calls.stats(uuid, a.target), "NotFound", /not at/);
    const well = await calls.stats(uuid, a.staging);
    expect(well.volumeCondition).toMatchObject({ abnormal: false });
    const [bytes, inodes] = well.usage!;
    expect(Number(bytes!.total)).toBeGreaterThan(VOLUME_BYTES / 2);
    expect(bytes!.used! + bytes!.available!).toBeLessThanOrEqual(bytes!.total!);
    expect(Number(inodes!.total)).toBeGreaterThan(1000);
    a.host.troubles.set(uuid, new TrilithError("Unavailable", "1 of 2 paths is not live"));
    shell("mount", "-o", "remount,ro", a.staging);
    const ill = await calls.stats(uuid, a.staging);
    expect(ill.volumeCondition!.abnormal).toBe(true);
    expect(ill.volumeCondition!.message).toMatch(/1 of 2 paths.*read-only after an error/);
    await calls.unstage(uuid, a.staging);
  });

  test("two calls of one volume do not overlap, and those of others do not wait", async () => {
    const uuid = newVolume();
    const other = newVolume();
    const a = new Machine("a");
    const run: RunCommand = async (command, options) => {
      // The other call comes while mkfs runs.
      if (command[0] === "mkfs.ext4" && !command.includes(a.host.deviceOf(other))) {
        await fails(calls.stage(uuid, a.staging, { fsType: "ext4" }), "Aborted", /under way/);
        await calls.stage(other, join(folder, "other"), { fsType: "ext4" });
      }
      return await runCommand(command, options);
    };
    const calls = a.kubelet(run);
    await a.host.connect({ volumeUuid: other } as never);
    await calls.stage(uuid, a.staging, { fsType: "ext4" });
    expect(a.mounts(join(folder, "other"))).toHaveLength(1);
    await calls.unstage(uuid, a.staging);
    await calls.unstage(other, join(folder, "other"));
  });

  test("mount options that the kernel does not know are told of", async () => {
    const uuid = newVolume();
    const a = new Machine("a");
    const use = { fsType: "ext4", flags: ["no-such-option"] };
    const error = await errorOf(a.kubelet().stage(uuid, a.staging, use));
    expect(error.message).toContain("no-such-option");
    expect(error.remedy).toContain("mountOptions");
    expect(await a.host.list()).toEqual([]);
  });
});

describe.if(canMakeLoopDevices)("calls in any order", () => {
  const CALLS = 1_000;

  test("repeated, reordered, given up and cut off at any command, they lose and leave nothing", async () => {
    await withSeed(import.meta.path, async (random) => {
      const uses = [{ fsType: "ext4" }, { fsType: "xfs" }, { block: true }];
      const volumes = uses.map((use) => ({ uuid: newVolume(), use, written: new Set<string>() }));
      const a = new Machine("a");
      const staging = (uuid: string) => join(folder, "a", uuid, "globalmount");
      const target = (uuid: string) => join(folder, "a", uuid, "pod");
      /** What is called, by a kubelet whose driver may be cut off. */
      const act = (
        calls: ReturnType<Machine["kubelet"]>,
        { uuid, use }: (typeof volumes)[number],
      ) => [
        () => calls.stage(uuid, staging(uuid), use),
        () => calls.publish(uuid, staging(uuid), target(uuid), use),
        () => calls.unpublish(uuid, target(uuid)),
        () => calls.unstage(uuid, staging(uuid)),
      ];
      /** After so many commands the caller gives up, or the driver dies right after the command. */
      const cutAt = (at: number, dies: boolean): [RunCommand, AbortSignal] => {
        const caller = new AbortController();
        let count = 0;
        const run: RunCommand = async (command, options) => {
          const isIt = count++ === at;
          if (isIt && !dies) caller.abort();
          const result = await runCommand(command, options);
          if (isIt && dies) throw new TrilithError("Aborted", "the driver has died", "start it");
          return result;
        };
        return [run, caller.signal];
      };
      for (let round = 0; round < CALLS; round++) {
        const volume = random.pick(volumes);
        const cut = random.chance(0.5) ? cutAt(random.below(5), random.chance(0.5)) : null;
        const calls = cut === null ? a.kubelet() : a.kubelet(...cut);
        const which = random.below(4);
        const outcome = await act(calls, volume)[which]!().catch((error: unknown) => error);
        if (outcome instanceof Error) {
          const { code } = outcome as TrilithError;
          // Cut off, or not possible in this order.
          expect(["Aborted", "InUse", "FailedPrecondition"]).toContain(code);
          continue;
        }
        const path = target(volume.uuid);
        if (which !== 1 || volume.use.fsType === undefined) continue;
        for (const name of volume.written) expect(existsSync(join(path, name))).toBe(true);
        writeFileSync(join(path, `round-${round}`), "");
        volume.written.add(`round-${round}`);
      }
      for (const volume of volumes) {
        const [stage, publish, unpublish, unstage] = act(a.kubelet(), volume);
        // Whatever is there, it can be taken away, and used again.
        await unpublish!();
        await unstage!();
        await stage!();
        await publish!();
        const path = target(volume.uuid);
        for (const name of volume.written) expect(existsSync(join(path, name))).toBe(true);
        await unpublish!();
        await unstage!();
      }
      expect(await a.host.list()).toEqual([]);
      const left = parseMountinfo(readFileSync("/proc/self/mountinfo", "utf8"));
      expect(left.filter(({ path }) => path.startsWith(folder))).toEqual([]);
      expect(readdirSync(join(folder, "a", "records"))).toEqual([]);
    });
  });
});

afterAll(() => {
  expect(machines).toEqual([]);
});
