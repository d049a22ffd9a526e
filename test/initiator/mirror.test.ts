/** A volume mirrored three times keeps its data while its replicas, and its nexus, die. */
import {
  afterAll,
  afterEach,
  beforeAll,
  beforeEach,
  expect,
  setDefaultTimeout,
  test,
} from "bun:test";
import { IO_PORT } from "./engine.ts";
import { SET_UP_TIMEOUT_MS, TEST_TIMEOUT_MS } from "./limits.ts";
import { moreWritten, underLoad } from "./load.ts";
import { MirroredVolume } from "./mirror.ts";
import { Guest } from "./vm.ts";

const SIZE_MIB = 64;
/** Reconnect every second, for ten minutes. */
const CONNECT_OPTIONS = "-c 1 -l 600 -k 5";
/** Where the load writes: behind what `fill` has written. */
const LOAD_OPTIONS = "--offset=8m";

let guest: Guest;
let volume: MirroredVolume;

setDefaultTimeout(TEST_TIMEOUT_MS);

beforeAll(async () => {
  guest = await Guest.boot();
}, SET_UP_TIMEOUT_MS);

afterAll(() => guest?.stop());

beforeEach(async () => {
  volume = await MirroredVolume.create(SIZE_MIB);
});

afterEach(async () => {
  try {
    await guest.ok("detach_all");
  } finally {
    await volume.remove();
  }
});

const addressOf = (engine: number) => volume.engines[engine]!.address;

/** Connects to the nexus on an engine. */
function attach(engine: number): Promise<string> {
  return guest.ok(`attach ${volume.nqn} ${addressOf(engine)} ${IO_PORT} ${CONNECT_OPTIONS}`);
}

/** Connects to the nexus on another engine while the first path may be stuck. */
const addPath = (engine: number) =>
  guest.ok(
    `add_path ${volume.nqn} ${addressOf(engine)} ${IO_PORT} reconnect_delay=1,ctrl_loss_tmo=600`,
  );

/** Waits until more was written to the nexus on an engine. */
const moreWrites = (engine: number) => moreWritten(guest, volume.nqn, addressOf(engine));

/** Writes what must still be there at the end. */
async function fill(device: string): Promise<void> {
  await guest.ok(`
    head -c 4194304 /dev/urandom >/tmp/first
    dd if=/tmp/first of=${device} bs=64k oflag=direct
  `);
}

async function expectFirst(device: string): Promise<void> {
  await guest.ok(`
    dd if=${device} of=/tmp/back bs=64k count=64 iflag=direct
    cmp /tmp/first /tmp/back
  `);
}

/** SHA-256 of the whole device. */
const digestOf = (device: string) =>
  guest.ok(`dd if=${device} bs=1M iflag=direct status=none | sha256sum`);

/** Closes the nexus and looks at each replica by itself. */
async function expectEqualReplicas(): Promise<void> {
  await guest.ok("detach_all");
  await volume.unpublish();
  const [first, ...others] = await volume.checksums();
  expect(first).not.toBeNull();
  for (const other of others) expect(other).toBe(first!);
}

test("replicas die and are rebuilt under verified writes", async () => {
  await volume.publish(0);
  const device = await attach(0);
  await fill(device);
  await underLoad(guest, { target: device, options: LOAD_OPTIONS }, async () => {
    await moreWrites(0);
    await volume.engines[1]!.kill();
    await moreWrites(0);
    const { children } = await volume.waitForState("degraded");
    expect(children.map(({ state }) => state)).toEqual(["online", "faulted", "online"]);
    await volume.restart(1);
    await volume.bringBack(1);
    await moreWrites(0);
    await volume.engines[2]!.kill();
    await moreWrites(0);
    await volume.waitForState("degraded");
  });
  await expectFirst(device);
  // What is read now comes from the local replica, then from the rebuilt one, the only one left.
  const local = await digestOf(device);
  await volume.takeOut(0);
  expect(await digestOf(device)).toBe(local);
  await expectFirst(device);

  await volume.restart(2);
  await volume.bringBack(2);
  await volume.bringBack(0);
  await expectEqualReplicas();
});

test("the engine of the nexus is killed under a mounted file system", async () => {
  await volume.publish(0);
  const device = await attach(0);
  await guest.ok(`mkfs.ext4 -q ${device}; mount ${device} /mnt`);
  await underLoad(guest, { target: "/mnt" }, async () => {
    await moreWrites(0);
    await volume.engines[0]!.kill();
    await guest.ok(`wait_for 20 has_live_paths ${volume.nqn} 0`);
    await volume.restart(0);
    await volume.publish(0);
    await guest.ok(`wait_for 60 has_live_paths ${volume.nqn} 1`);
    await moreWrites(0);
    await volume.waitForState("online");
    await moreWrites(0);
  });
  await guest.ok(`umount /mnt; fsck.ext4 -fn ${device}`);
  await expectEqualReplicas();
});

test("a volume moves to another node when the engine of its nexus is killed", async () => {
  await volume.publish(0);
  const device = await attach(0);
  await fill(device);
  await underLoad(guest, { target: device, options: LOAD_OPTIONS }, async () => {
    await moreWrites(0);
    await volume.engines[0]!.kill();
    await volume.publish(1, [0]);
    await addPath(1);
    await moreWrites(1);
    await volume.restart(0);
    await volume.bringBack(0);
    await moreWrites(1);
  });
  await expectFirst(device);
  await expectEqualReplicas();
});

test("a nexus that was only frozen cannot acknowledge once the volume has moved", async () => {
  await volume.publish(0);
  const device = await attach(0);
  await fill(device);
  await underLoad(guest, { target: device, options: LOAD_OPTIONS }, async () => {
    await moreWrites(0);
    volume.engines[0]!.freeze();
    await volume.publish(1, [0]);
    await addPath(1);
    await moreWrites(1);
    // What the host had sent meanwhile is found by an engine that does not know it was replaced.
    volume.engines[0]!.thaw();
    await moreWrites(1);
    await volume.bringBack(0);
    await moreWrites(1);
  });
  await expectFirst(device);
  await expectEqualReplicas();
});

test("the kernel complained of nothing", () => {
  expect(guest.complaints()).toEqual([]);
});
