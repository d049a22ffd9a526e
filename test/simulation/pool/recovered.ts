/** Checks a pool that was imported after a crash against the model, and that it can be used. */
import { expect } from "bun:test";
import { PoolDevice } from "../../../src/engine/pool/device.ts";
import { checkPool, importPool, type Pool, type Replica } from "../../../src/engine/pool/index.ts";
import { loadPool } from "../../../src/engine/pool/load.ts";
import { SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS } from "../../../src/engine/pool/superblock.ts";
import { IoOp } from "../../../src/engine/reactor/io-table.ts";
import type { Reactor } from "../../../src/engine/reactor/reactor.ts";
import { IoStatus } from "../../../src/errors.ts";
import type { Random } from "../../support/random.ts";
import { expectSound } from "../../unit/engine/pool/fixture.ts";
import { type Event, ModelDevice, possible } from "./model.ts";
import { SECTOR_BYTES, SimDisk } from "./sim-disk.ts";
import { readVersions, request } from "./workload.ts";

const NEVER = Number.POSITIVE_INFINITY;

/**
 * Damages one of the two copies of some metadata: a superblock, a ring of the journal, or, when there
 * are two checkpoints, the newest of them. Returns what it did.
 */
export async function damageOneCopy(
  reactor: Reactor,
  image: Uint8Array,
  random: Random,
): Promise<string> {
  const disk = new SimDisk({ reactor, image, seed: 1, pace: 1 });
  const device = new PoolDevice(disk);
  const loaded = await loadPool(device);
  device.release();
  const { superblock, slots, slot } = loaded;
  const spoil = (offset: number, bytes: number) => {
    image.fill(random.below(256), offset, offset + bytes);
  };
  const dice = random.below(5);
  if (dice < 2) {
    spoil(SUPERBLOCK_OFFSETS[dice]!, SUPERBLOCK_BYTES);
    return `superblock ${dice}`;
  }
  if (dice < 4) {
    for (const { offset, bytes } of superblock.rings[dice - 2]!) spoil(offset, bytes);
    return `ring ${dice - 2}`;
  }
  if (slots.some(({ header }) => header === null)) return "nothing";
  spoil(superblock.slots[slot]![0]!.offset + random.below(16) * 4096, 4096);
  return `slot ${slot}`;
}

/** Opens the pool in an image; every structure must be readable. */
export async function recover(
  reactor: Reactor,
  image: Uint8Array,
  seed: number,
  record: boolean,
): Promise<{ disk: SimDisk; pool: Pool }> {
  const disk = new SimDisk({ reactor, image, seed, record, pace: 1 });
  const report = await checkPool(disk);
  expect(report.errors).toEqual([]);
  expect(["sound", "degraded"]).toContain(report.verdict);
  const pool = await importPool(disk, { closeBdev: false });
  await expectSound(pool);
  return { disk, pool };
}

/** Compares everything in the pool with what is possible after a crash at `moment`. */
export async function expectModel(
  pool: Pool,
  devices: readonly ModelDevice[],
  moment: number,
): Promise<void> {
  const known = new Set<string>();
  for (const device of devices) {
    known.add(device.uuid);
    const replica = pool.find(device.uuid);
    const { created, deleted } = device;
    const isCertain = created.completed <= moment && (deleted?.submitted ?? NEVER) > moment;
    const isPossible = created.submitted <= moment && (deleted?.completed ?? NEVER) > moment;
    if (replica === undefined) {
      if (isCertain) throw new Error(`${device.uuid} is lost`);
      continue;
    }
    if (!isPossible) throw new Error(`${device.uuid} should not exist`);
    await expectDevice(pool, replica, device, moment);
  }
  for (const replica of [...pool.replicas(), ...pool.snapshots()]) {
    if (!known.has(replica.uuid)) throw new Error(`${replica.uuid} came out of nowhere`);
  }
}

async function expectDevice(
  pool: Pool,
  replica: Replica,
  device: ModelDevice,
  moment: number,
): Promise<void> {
  const sectors = replica.sizeBytes / SECTOR_BYTES;
  expect([...possible(device.sizes, moment)]).toContain(sectors);
  expect([...possible(device.epochs, moment)]).toContain(replica.attributes.epoch);
  for (const [region, events] of device.intents) {
    if (region >= replica.intent.regionCount) continue;
    expect([...possible(events, moment)]).toContain(replica.intent.isDirty(region));
  }
  const versions = await readVersions(pool.reactor, replica, device.family);
  for (let sector = 0; sector < sectors; sector++) {
    if (device.mayHold(sector, versions[sector]!, moment)) continue;
    throw new Error(`${device.uuid} sector ${sector} holds version ${versions[sector]}`);
  }
}

/**
 * Takes all the space that is left with a new replica, writes a sector here and there and expects
 * zeroes everywhere else: no byte of anybody else may ever show through.
 */
export async function expectUsable(pool: Pool, random: Random): Promise<void> {
  const { reactor, clusterBytes } = pool;
  const uuid = "ffffffff-0000-4000-8000-ffffffffffff";
  const info = pool.info();
  const sizeBytes = Math.min(info.capacityBytes, 64 * clusterBytes);
  const replica = await pool.createReplica({ uuid, name: "usable", sizeBytes, thin: true });
  const buffer = reactor.arena.alloc(clusterBytes, 0);
  const u8 = reactor.arena.u8;
  let full = false;
  for (let at = 0; at < sizeBytes && !full; at += clusterBytes) {
    u8.fill(0xab, buffer, buffer + SECTOR_BYTES);
    const offset = at + random.below(clusterBytes / SECTOR_BYTES) * SECTOR_BYTES;
    const wrote = await request(reactor, replica, IoOp.WRITE, offset, SECTOR_BYTES, buffer, 0);
    full = wrote === IoStatus.NO_SPACE;
    if (!full) expect(wrote).toBe(IoStatus.OK);
    const read = await request(reactor, replica, IoOp.READ, at, clusterBytes, buffer, 0);
    expect(read).toBe(IoStatus.OK);
    for (let i = 0; i < clusterBytes; i++) {
      const inside = !full && i >= offset - at && i < offset - at + SECTOR_BYTES;
      if (u8[buffer + i] !== (inside ? 0xab : 0)) {
        throw new Error(`a fresh cluster shows foreign bytes at ${at + i}`);
      }
    }
  }
  reactor.arena.free(buffer);
  expect(await request(reactor, replica, IoOp.FLUSH, 0, 0, -1, 0)).toBe(IoStatus.OK);
  await pool.delete(uuid);
}

/** The model of a pool as it is now: the start of another run. */
export async function rebase(pool: Pool, devices: readonly ModelDevice[]): Promise<ModelDevice[]> {
  const fresh: ModelDevice[] = [];
  const settled = <T>(value: T): Event<T> => ({ value, submitted: 0, completed: 0 });
  for (const old of devices) {
    const replica = pool.find(old.uuid);
    if (replica === undefined) continue;
    const sectors = replica.sizeBytes / SECTOR_BYTES;
    const { uuid, isSnapshot, family } = old;
    const device = new ModelDevice(uuid, isSnapshot, replica.thin, family, sectors, 0);
    device.created = settled(true);
    device.epochs[0] = settled(replica.attributes.epoch);
    device.baseline = await readVersions(pool.reactor, replica, family);
    for (let region = 0; region < replica.intent.regionCount; region++) {
      device.intents.set(region, [settled(replica.intent.isDirty(region))]);
    }
    fresh.push(device);
  }
  return fresh;
}
