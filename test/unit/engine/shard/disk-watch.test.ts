/** Disks that fail and return under a pool: when it can be opened again, and what its nexus does. */
import { afterEach, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openBdev } from "../../../../src/engine/bdev/open.ts";
import type { Reactor } from "../../../../src/engine/reactor/reactor.ts";
import { recvBuffersOf } from "../../../../src/engine/reactor/tcp-stream.ts";
import { Flaps } from "../../../../src/engine/shard/disk-watch.ts";
import {
  DISK_STEADY_MS,
  DISK_STEADY_MS_MAX,
  FLAP_MEMORY_MS,
} from "../../../../src/engine/shard/limits.ts";
import { nodeHostNqn } from "../../../../src/names.ts";
import { probeBdev, withReactor } from "../../../support/reactor.ts";
import { codeOf, TestShard } from "../../../support/shard.ts";

const MIB = 1 << 20;
const folders: string[] = [];

afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

/** A file of 64 MiB to be a pool's disk. */
function makeDisk(): string {
  const folder = mkdtempSync(join(tmpdir(), "trilith-disk-"));
  folders.push(folder);
  const path = join(folder, "disk");
  writeFileSync(path, "");
  truncateSync(path, 64 * MIB);
  return path;
}

function withShard(body: (shard: TestShard, reactor: Reactor) => Promise<void>): void {
  withReactor(async (reactor) => {
    recvBuffersOf(reactor);
    const shard = await new TestShard(reactor).listen();
    try {
      await body(shard, reactor);
    } finally {
      await shard.close();
    }
    expect(reactor.io.free).toBe(reactor.io.capacity);
    expect(reactor.handlerCount).toBe(0);
  });
}

async function until(reactor: Reactor, condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await reactor.sleep(2);
}

test("a disk that fails again and again has to answer for longer each time, up to a bound", () => {
  const flaps = new Flaps();
  const times = Array.from({ length: 9 }, (_, i) => flaps.failed("pool", i * 1e9));
  expect(times.slice(0, 3)).toEqual([DISK_STEADY_MS, 2 * DISK_STEADY_MS, 4 * DISK_STEADY_MS]);
  expect(times.at(-1)).toBe(DISK_STEADY_MS_MAX);
  expect(flaps.failed("another", 9e9)).toBe(DISK_STEADY_MS);
  const laterNs = 8e9 + FLAP_MEMORY_MS * 1e6;
  expect(flaps.failed("pool", laterNs)).toBe(DISK_STEADY_MS);
});

test("a pool whose disk has answered long enough is imported again; a fault of the disk stays its fault", () => {
  withShard(async (shard, reactor) => {
    const name = "p";
    const disks = [makeDisk()];
    await shard.call("createPool", { name, disks, clusterSizeBytes: MIB });
    const uuid = randomUUID();
    const sizeBytes = 8 * MIB;
    await shard.call("createReplica", { uuid, poolName: name, sizeBytes, thin: true });
    const id = "pulled";
    const target = { kind: "pool", name } as const;
    await shard.call("createFault", { id, target, action: { kind: "error" } });
    const change = shard.call("setReplicaAttributes", { uuid, name: "other" });
    expect(await codeOf(change)).toBe("DeviceIo");
    expect(await shard.call("getPool", { name })).toMatchObject({ state: "faulted" });
    expect((await shard.call("getPool", { name })).disk).toBe("failed");
    // Whoever imports it all the same has it opened, but its disk is as bad as it was.
    await shard.call("importPool", { name, disks });
    expect(await codeOf(shard.call("setReplicaAttributes", { uuid, name: "other" }))).toBe(
      "DeviceIo",
    );
    await shard.call("destroyFault", { id });
    await until(reactor, async () => (await shard.call("getPool", { name })).disk === "steady");
    const back = await shard.call("importPool", { name, disks });
    expect(back.state).toBe("online");
    expect(back.disk).toBeUndefined();
    expect((await shard.call("setReplicaAttributes", { uuid, name: "other" })).name).toBe("other");
  });
});

test("the only replica of a volume fails and returns: the host's write waits, and is kept", () => {
  withShard(async (shard, reactor) => {
    const name = "p";
    const disks = [makeDisk()];
    await shard.call("createPool", { name, disks, clusterSizeBytes: MIB });
    const replicaUuid = randomUUID();
    await shard.call("createReplica", {
      uuid: replicaUuid,
      poolName: name,
      sizeBytes: 8 * MIB,
      thin: true,
    });
    const uuid = randomUUID();
    const children = [{ uri: `bdev:///${replicaUuid}` }];
    await shard.call("createNexus", { uuid, epoch: 1, children });
    const { deviceUri } = await shard.call("shareNexusNvmf", { uuid });
    const host = { nqn: nodeHostNqn("host"), id: randomUUID() };
    const bdev = await openBdev(reactor, deviceUri, { host });
    const probe = probeBdev(bdev);
    expect(await probe.write(0, new Uint8Array(4096).fill(1))).toBe(0);

    const id = "pulled";
    const target = { kind: "pool", name } as const;
    await shard.call("createFault", { id, target, action: { kind: "error" } });
    const held = probe.write(4096, new Uint8Array(4096).fill(2));
    await until(reactor, async () => (await shard.call("getPool", { name })).state === "faulted");
    await shard.call("destroyFault", { id });
    await until(reactor, async () => (await shard.call("getPool", { name })).disk === "steady");
    await shard.call("importPool", { name, disks });
    expect(await held).toBe(0);
    const read = await probe.read(0, 8192);
    expect([read.bytes[0], read.bytes[4096]]).toEqual([1, 2]);
    await bdev.close();
    // In order, and with all data on the disk.
    await shard.call("destroyNexus", { uuid });
    await shard.call("exportPool", { name });
    await shard.call("importPool", { name, disks });
    expect((await shard.call("getReplica", { uuid: replicaUuid })).sync.clean).toBe(true);
  });
});
