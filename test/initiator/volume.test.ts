/** What becomes of a volume while a host uses it: it grows, fills up, fails, is copied, is closed. */
import { afterAll, afterEach, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { randomUUID } from "node:crypto";
import type { EngineClient } from "../../src/engine/rpc/client.ts";
import { DiskFolder, IO_PORT, nqnOf, TestEngine } from "./engine.ts";
import { SET_UP_TIMEOUT_MS, TEST_TIMEOUT_MS } from "./limits.ts";
import { Guest, hostNqnOf } from "./vm.ts";

const MIB = 1 << 20;
const POOL = "pool";
const POOL_MIB = 128;

const disks = new DiskFolder();
let engine: TestEngine;
let rpc: EngineClient;
let guest: Guest;
/** Replica and nexus (the same UUID) of each volume made so far. */
const made: string[] = [];

setDefaultTimeout(TEST_TIMEOUT_MS);

beforeAll(async () => {
  engine = await TestEngine.start([]);
  rpc = engine.rpc;
  disks.disk("disk", POOL_MIB, "");
  await rpc.createPool({ name: POOL, disks: [disks.uri("disk")], clusterSizeBytes: MIB });
  guest = await Guest.boot();
}, SET_UP_TIMEOUT_MS);

afterAll(async () => {
  await guest?.stop();
  await engine?.end();
  disks.remove();
});

afterEach(async () => {
  await guest.ok("detach_all");
  for (const uuid of made.splice(0)) {
    await rpc.destroyNexus({ uuid });
    await rpc.destroyReplica({ uuid });
  }
});

/** Makes and publishes a volume of one thin replica; returns its UUID and the host's device. */
async function publish(sizeMib: number): Promise<{ uuid: string; device: string }> {
  const uuid = randomUUID();
  const sizeBytes = sizeMib * MIB;
  await rpc.createReplica({ uuid, poolName: POOL, sizeBytes, thin: true, volumeUuid: uuid });
  await rpc.createNexus({ uuid, epoch: 1, children: [{ uri: `bdev:///${uuid}` }] });
  await rpc.shareNexusNvmf({ uuid });
  made.push(uuid);
  return { uuid, device: await attach(uuid) };
}

function attach(uuid: string): Promise<string> {
  return guest.ok(`attach ${nqnOf(uuid)} ${engine.address} ${IO_PORT} -c 1`);
}

test("a host sees a volume grow", async () => {
  const { uuid, device } = await publish(32);
  await guest.ok(`mkfs.ext4 -q ${device}; mount ${device} /mnt`);
  await rpc.resizeReplica({ uuid, sizeBytes: 64 * MIB });
  await rpc.resizeNexus({ uuid, sizeBytes: 64 * MIB });
  await guest.ok(`
    has_grown() { [ $(blockdev --getsize64 ${device}) = ${64 * MIB} ]; }
    wait_for 20 has_grown
    verified_io ${device} 4m --offset=48m
    umount /mnt
    e2fsck -fn ${device}
  `);
});

test("a pool that is full ends writes with ENOSPC and leaves the rest readable", async () => {
  const { device } = await publish(POOL_MIB * 2);
  const script = `
    head -c 4194304 /dev/urandom >/tmp/first
    dd if=/tmp/first of=${device} bs=1M oflag=direct status=none
    if dd if=/dev/zero of=${device} bs=1M seek=4 oflag=direct 2>/tmp/said; then
      echo nothing was refused
      exit 1
    fi
    cat /tmp/said
    dd if=${device} of=/tmp/back bs=1M count=4 iflag=direct status=none
    cmp /tmp/first /tmp/back
    # What is there can be written again.
    dd if=/tmp/first of=${device} bs=1M oflag=direct status=none
  `;
  expect(await guest.ok(script)).toContain("No space left on device");
});

test("an unreadable range ends reads with an error until it can be read again", async () => {
  const { uuid, device } = await publish(16);
  await guest.ok(`verified_io ${device} 4m`);
  await rpc.createFault({
    id: "unreadable",
    target: { kind: "replica", uuid },
    action: { kind: "error", status: "device-io" },
    ops: ["read"],
    range: { offsetBytes: MIB, lengthBytes: 4096 },
  });
  const read = (block: number) =>
    `dd if=${device} of=/dev/null bs=4k count=1 skip=${block} iflag=direct`;
  const refused = await guest.run(read(256));
  // ENODATA: how Linux tells of an unrecovered read error.
  expect(refused.output).toContain("No data available");
  expect(refused.status).toBe(1);
  await guest.ok(read(0));
  await rpc.destroyFault({ id: "unreadable" });
  await guest.ok(read(256));
});

test("a clone holds what was there when its snapshot was taken", async () => {
  const { uuid, device } = await publish(32);
  await guest.ok(`mkfs.ext4 -q ${device}; mount ${device} /mnt; cp /host/* /mnt; sync`);
  const [snapshot, clone] = [randomUUID(), randomUUID()];
  await rpc.createSnapshot({ uuid: snapshot, sourceUuid: uuid });
  await guest.ok(`rm /mnt/*.sh; sync; verified_io /mnt 4m`);
  await rpc.createClone({ uuid: snapshot, cloneUuid: clone, volumeUuid: clone });
  await rpc.createNexus({ uuid: clone, epoch: 1, children: [{ uri: `bdev:///${clone}` }] });
  await rpc.shareNexusNvmf({ uuid: clone });
  const copy = await attach(clone);
  // The journal is replayed on the clone: it was taken of a mounted file system.
  await guest.ok(`
    umount /mnt
    mount ${copy} /mnt
    for file in /host/*; do cmp $file /mnt/\${file##*/}; done
    umount /mnt
    e2fsck -fn ${copy}
    e2fsck -fn ${device}
  `);
  await guest.ok("detach_all");
  await rpc.destroyNexus({ uuid: clone });
  await rpc.destroyReplica({ uuid: clone });
  await rpc.destroySnapshot({ uuid: snapshot });
});

test("hosts that are no longer admitted are put out", async () => {
  const { uuid } = await publish(16);
  const nqn = nqnOf(uuid);
  await rpc.shareNexusNvmf({ uuid, allowedHosts: [hostNqnOf(randomUUID())] });
  await guest.ok(`wait_for 20 has_live_paths ${nqn} 0`);
  await rpc.shareNexusNvmf({ uuid, allowedHosts: [guest.hostNqn] });
  await guest.ok(`wait_for 60 has_live_paths ${nqn} 1; verified_io $(device_of ${nqn}) 1m`);
});
