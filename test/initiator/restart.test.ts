/** The engine is killed while the host writes and verifies, and comes back: nobody notices. */
import { afterAll, afterEach, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { DiskFolder, IO_PORT, nqnOf, TestEngine } from "./engine.ts";
import { SET_UP_TIMEOUT_MS, TEST_TIMEOUT_MS } from "./limits.ts";
import { moreWritten, underLoad } from "./load.ts";
import { Guest } from "./vm.ts";

const NQN = nqnOf("restarted");
const UUID = "7f3d5c2e-0002-4000-8000-000000000001";
/** Reconnect every second, for ten minutes. */
const CONNECT_OPTIONS = "-c 1 -l 600 -k 5";
const KILLS = 3;

const disks = new DiskFolder();
let engine: TestEngine;
let guest: Guest;

setDefaultTimeout(TEST_TIMEOUT_MS);

beforeAll(async () => {
  const device = disks.disk("disk", 512, `uuid=${UUID}`);
  engine = await TestEngine.start([{ nqn: NQN, device }]);
  guest = await Guest.boot();
}, SET_UP_TIMEOUT_MS);

afterAll(async () => {
  await guest?.stop();
  await engine?.end();
  disks.remove();
});

afterEach(() => guest.ok("detach_all"));

/** Everything that names the namespace to the host. */
function identityOf(device: string): Promise<string> {
  return guest.ok(`
    cat /sys/class/block/${device.slice(5)}/wwid
    nvme id-ns ${device} -o json | jq -c '[.nguid, .nsze, .flbas]'
    nvme id-ctrl /dev/$(controllers_of ${NQN}) -o json | jq -c '[.sn, .mn, .subnqn]'
  `);
}

const moreWrites = () => moreWritten(guest, NQN, engine.address);

/** Has the kernel notice that the engine is gone. */
const noticeLoss = () => guest.ok(`wait_for 20 has_live_paths ${NQN} 0`);

/** Kills and restarts the engine under a load of verified writes to a device or folder. */
async function killUnderLoad(target: string): Promise<void> {
  await underLoad(guest, { target, options: "--offset=8m" }, async () => {
    for (let i = 0; i < KILLS; i++) {
      await moreWrites();
      await engine.kill();
      await noticeLoss();
      await engine.start();
      await guest.ok(`wait_for 60 has_live_paths ${NQN} 1`);
    }
    await moreWrites();
  });
}

test("a raw device keeps its name, its identity and its data", async () => {
  const device = await guest.ok(`attach ${NQN} ${engine.address} ${IO_PORT} ${CONNECT_OPTIONS}`);
  const before = await identityOf(device);
  await guest.ok(`
    head -c 4194304 /dev/urandom >/tmp/first
    dd if=/tmp/first of=${device} bs=64k oflag=direct
  `);
  await killUnderLoad(device);
  expect(await guest.ok(`device_of ${NQN}`)).toBe(device);
  expect(await identityOf(device)).toBe(before);
  await guest.ok(
    `dd if=${device} of=/tmp/back bs=64k count=64 iflag=direct; cmp /tmp/first /tmp/back`,
  );
});

test("a mounted file system goes on, with digests", async () => {
  const options = `${CONNECT_OPTIONS} -g -G`;
  const device = await guest.ok(`attach ${NQN} ${engine.address} ${IO_PORT} ${options}`);
  await guest.ok(`wipefs -qa ${device}; mkfs.ext4 -q ${device}; mount ${device} /mnt`);
  await killUnderLoad("/mnt");
  await guest.ok(`umount /mnt; e2fsck -fn ${device}`);
});

test("an engine that stops in good order is waited for, too", async () => {
  const device = await guest.ok(`attach ${NQN} ${engine.address} ${IO_PORT} ${CONNECT_OPTIONS}`);
  await underLoad(guest, { target: device }, async () => {
    await moreWrites();
    await engine.stop();
    await noticeLoss();
    await engine.start();
    await moreWrites();
  });
});

test("the kernel complained of nothing", () => {
  expect(guest.complaints()).toEqual([]);
});
