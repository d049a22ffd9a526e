/** A random workload over a pool on a simulated disk, noted in the model as it goes. */
import { assert } from "../../../src/assert.ts";
import type { Bdev } from "../../../src/engine/bdev/bdev.ts";
import {
  INTENT_REGION_BYTES,
  type Pool,
  RESERVATION_BYTES_MAX,
  type Replica,
} from "../../../src/engine/pool/index.ts";
import { IoFlag, IoOp } from "../../../src/engine/reactor/io-table.ts";
import { ioPromise, type Reactor } from "../../../src/engine/reactor/reactor.ts";
import { IoStatus, TrilithError } from "../../../src/errors.ts";
import type { Random } from "../../support/random.ts";
import { type Event, fillSectors, ModelDevice, type Version, versionIn } from "./model.ts";
import { SECTOR_BYTES, type SimDisk } from "./sim-disk.ts";

const NEVER = Number.POSITIVE_INFINITY;
const DEVICES_MAX = 10;
const LONG_WRITE_SECTORS = 1024;

/** Errors that a full or busy pool may answer with. */
const TOLERATED = new Set(["NoSpace", "ResourceExhausted", "NotFound"]);

export interface WorkloadOptions {
  readonly reactor: Reactor;
  readonly disk: SimDisk;
  readonly pool: Pool;
  readonly random: Random;
  readonly devices: ModelDevice[];
  /** Sizes of new replicas, in sectors. */
  readonly sectorsMax: number;
  readonly operations: number;
  readonly workers: number;
  /** Numbers that tell this run's data from earlier ones. */
  readonly firstVersion: number;
  readonly firstFamily: number;
  /** Grow the disk to this size somewhere on the way. */
  readonly growTo?: number;
  /** Collects the spans of time in which control operations were under way. */
  readonly windows?: (readonly [number, number])[];
}

/** A UUID that the seed determines. */
function uuidFrom(random: Random): string {
  const hex = () =>
    random
      .below(2 ** 32)
      .toString(16)
      .padStart(8, "0");
  const [a, b, c, d] = [hex(), hex(), hex(), hex()];
  return `${a}-${b.slice(0, 4)}-4${b.slice(5)}-8${c.slice(1, 4)}-${c.slice(4)}${d}`;
}

export class Workload {
  readonly #o: WorkloadOptions;
  version: number;
  family: number;
  #left: number;
  #grown = false;

  constructor(options: WorkloadOptions) {
    this.#o = options;
    this.version = options.firstVersion;
    this.family = options.firstFamily;
    this.#left = options.operations;
  }

  /** Runs to its end. */
  async run(): Promise<void> {
    const workers = Array.from({ length: this.#o.workers }, () => this.#work());
    await Promise.all(workers);
  }

  async #work(): Promise<void> {
    while (this.#left-- > 0) {
      try {
        await this.#operation();
      } catch (error) {
        if (!(error instanceof TrilithError) || !TOLERATED.has(error.code)) throw error;
      }
    }
  }

  #operation(): Promise<void> {
    const { random, devices, growTo } = this.#o;
    if (growTo !== undefined && !this.#grown && this.#left < this.#o.operations / 2) {
      this.#grown = true;
      this.#o.disk.grow(growTo);
      return this.#control(async () => {
        await this.#o.pool.grow();
      });
    }
    const alive = devices.filter((device) => device.isAlive);
    const writable = alive.filter((device) => !device.isSnapshot);
    const dice = random.below(1000);
    if (writable.length < 2 || (dice < 15 && alive.length < DEVICES_MAX)) return this.#create();
    const device = random.pick(writable);
    if (dice < 30) {
      return alive.length < DEVICES_MAX ? this.#snapshot(device) : this.#delete(random.pick(alive));
    }
    if (dice < 40) return this.#clone(alive);
    if (dice < 50) return alive.length > 3 ? this.#delete(random.pick(alive)) : this.#idle();
    if (dice < 60) return this.#resize(device);
    if (dice < 90) return this.#attributes(device);
    if (dice < 125) return this.#mark(device);
    if (dice < 145) return this.#clear(device);
    if (dice < 150) return this.#control(() => this.#o.pool.checkpoint());
    if (dice < 240) return this.#read(random.pick(alive));
    if (dice < 330) return this.#flush(device);
    if (dice < 420) return this.#zero(device, IoOp.DISCARD);
    if (dice < 460) return this.#zero(device, IoOp.WRITE_ZEROES);
    return this.#write(device);
  }

  /** Runs a control operation and notes when. */
  async #control<T>(operation: () => Promise<T>): Promise<T> {
    const from = this.#now();
    try {
      return await operation();
    } finally {
      this.#o.windows?.push([from, this.#now()]);
    }
  }

  async #idle(): Promise<void> {
    await this.#o.reactor.sleep(0);
  }

  #now(): number {
    return this.#o.disk.clock;
  }

  // ---------------------------------------------------------------------------------- control

  async #create(): Promise<void> {
    const { random, pool, devices, sectorsMax } = this.#o;
    const sectors = 1 + random.below(sectorsMax);
    const thin = random.chance(0.7);
    const uuid = uuidFrom(random);
    const device = new ModelDevice(uuid, false, thin, this.family++, sectors, this.#now());
    devices.push(device);
    try {
      const sizeBytes = sectors * SECTOR_BYTES;
      await this.#control(() => pool.createReplica({ uuid, name: uuid, sizeBytes, thin }));
      device.created.completed = this.#now();
    } catch (error) {
      devices.splice(devices.indexOf(device), 1);
      throw error;
    }
  }

  async #snapshot(source: ModelDevice): Promise<void> {
    const { random, pool, devices } = this.#o;
    const uuid = uuidFrom(random);
    const submitted = this.#now();
    const snapshot = new ModelDevice(uuid, true, true, source.family, source.sectors, submitted);
    devices.push(snapshot);
    try {
      const replica = await this.#control(() =>
        pool.createSnapshot(source.uuid, { uuid, name: uuid }),
      );
      const sectors = replica.sizeBytes / SECTOR_BYTES;
      snapshot.sizes[0] = { value: sectors, submitted, completed: submitted };
      snapshot.baseline = await this.#contentOf(replica, source, submitted);
      snapshot.created.completed = this.#now();
    } catch (error) {
      devices.splice(devices.indexOf(snapshot), 1);
      throw error;
    }
  }

  /** What a snapshot holds; it must be what its source held between then and now. */
  async #contentOf(replica: Replica, source: ModelDevice, submitted: number): Promise<Uint32Array> {
    const versions = await readVersions(this.#o.reactor, replica, source.family);
    for (let sector = 0; sector < versions.length; sector++) {
      const version = versions[sector]!;
      const isKnown =
        source.mayRead(sector, version, submitted) || source.wasEver(sector, version, submitted);
      if (!isKnown) {
        throw new Error(`snapshot ${replica.uuid} holds ${version} in sector ${sector}`);
      }
    }
    return versions;
  }

  async #clone(alive: readonly ModelDevice[]): Promise<void> {
    const { random, pool, devices } = this.#o;
    const snapshots = alive.filter((device) => device.isSnapshot);
    if (snapshots.length === 0 || alive.length >= DEVICES_MAX) return;
    const source = random.pick(snapshots);
    const uuid = uuidFrom(random);
    const submitted = this.#now();
    const clone = new ModelDevice(uuid, false, true, source.family, source.sectors, submitted);
    clone.baseline = source.baseline.slice();
    devices.push(clone);
    try {
      await this.#control(() => pool.createClone(source.uuid, { uuid, name: uuid }));
      clone.created.completed = this.#now();
    } catch (error) {
      devices.splice(devices.indexOf(clone), 1);
      throw error;
    }
  }

  async #delete(device: ModelDevice): Promise<void> {
    device.deleted = { value: true, submitted: this.#now(), completed: NEVER };
    await this.#control(() => this.#o.pool.delete(device.uuid));
    device.deleted.completed = this.#now();
  }

  async #resize(device: ModelDevice): Promise<void> {
    const { random, pool } = this.#o;
    if (device.sizes.some((size) => size.completed === NEVER)) return;
    const sectors = device.sectors + 1 + random.below(200);
    if (sectors > this.#o.sectorsMax * 2) return;
    const event: Event<number> = { value: sectors, submitted: this.#now(), completed: NEVER };
    device.sizes.push(event);
    try {
      await this.#control(() => pool.resize(device.uuid, sectors * SECTOR_BYTES));
      event.completed = this.#now();
    } catch (error) {
      device.sizes.splice(device.sizes.indexOf(event), 1);
      throw error;
    }
  }

  async #attributes(device: ModelDevice): Promise<void> {
    if (device.epochs.some((epoch) => epoch.completed === NEVER)) return;
    const epoch = device.epochs.at(-1)!.value + 1;
    const event: Event<number> = { value: epoch, submitted: this.#now(), completed: NEVER };
    device.epochs.push(event);
    const { random } = this.#o;
    // Long attributes make checkpoints of several pages: the pool changes while they are written.
    const reservation = new Uint8Array(random.below(RESERVATION_BYTES_MAX)).fill(epoch);
    const changes = { epoch, healthGeneration: epoch, reservation };
    await this.#control(() => this.#o.pool.setAttributes(device.uuid, changes));
    event.completed = this.#now();
  }

  async #mark(device: ModelDevice): Promise<void> {
    const { random, pool } = this.#o;
    const region = random.below(Math.ceil((device.sectors * SECTOR_BYTES) / INTENT_REGION_BYTES));
    const events = device.intentEvents(region);
    if (events.at(-1)!.completed === NEVER && events.at(-1)!.value) return;
    const event: Event<boolean> = { value: true, submitted: this.#now(), completed: NEVER };
    events.push(event);
    await pool.get(device.uuid).intent.markDirty([{ first: region, count: 1 }]);
    event.completed = this.#now();
  }

  async #clear(device: ModelDevice): Promise<void> {
    for (const [region, events] of device.intents) {
      if (events.at(-1)!.completed === NEVER) continue;
      events.push({ value: false, submitted: this.#now(), completed: NEVER });
      this.#o.pool.get(device.uuid).intent.clearDirty([{ first: region, count: 1 }]);
      return;
    }
  }

  // --------------------------------------------------------------------------------------- I/O

  /** A range that no exclusive request is under way to, or null. */
  #range(device: ModelDevice, longest: number): readonly [number, number] | null {
    const { random } = this.#o;
    const { sectors } = device;
    const from = random.below(sectors);
    const count = Math.min(sectors - from, 1 + random.below(longest));
    return device.isFree(from, from + count) ? [from, from + count] : null;
  }

  async #write(device: ModelDevice): Promise<void> {
    const { random, reactor } = this.#o;
    const longest = random.chance(0.1) ? LONG_WRITE_SECTORS : 48;
    const range = this.#range(device, longest);
    const bytes = range === null ? 0 : (range[1] - range[0]) * SECTOR_BYTES;
    const buffer = range === null ? -1 : reactor.arena.alloc(bytes, 0);
    if (range === null || buffer < 0) return;
    const fua = random.chance(0.1);
    const version = this.#begin(device, range, false);
    const [from, to] = range;
    const at = reactor.arena.u8.subarray(buffer, buffer + bytes);
    fillSectors(at, device.family, version.number, from, to - from);
    const status = await this.#io(device, IoOp.WRITE, range, buffer, fua ? IoFlag.FUA : 0);
    reactor.arena.free(buffer);
    this.#end(device, range, version, status, fua);
  }

  async #zero(device: ModelDevice, op: number): Promise<void> {
    const longest = this.#o.random.chance(0.3) ? device.sectors : 300;
    const from = this.#o.random.below(device.sectors);
    const count = Math.min(device.sectors - from, 1 + this.#o.random.below(longest));
    const range = [from, from + count] as const;
    const version = this.#begin(device, range, true);
    const status = await this.#io(device, op, range, -1, 0);
    this.#end(device, range, version, status, false);
  }

  #begin(device: ModelDevice, range: readonly [number, number], isZero: boolean): Version {
    const submitted = this.#now();
    const number = this.version++;
    const version = {
      number,
      isZero,
      submitted,
      completed: NEVER,
      ended: NEVER,
      durable: NEVER,
    };
    // Writes may overlap what zeroes: that is how a cluster is given up while data is on its way to it.
    if (!isZero) device.busy.add(range);
    device.change(version, range[0], range[1]);
    return version;
  }

  #end(
    device: ModelDevice,
    range: readonly [number, number],
    version: Version,
    status: number,
    fua: boolean,
  ): void {
    device.busy.delete(range);
    version.ended = this.#now();
    if (status === IoStatus.OK) {
      version.completed = this.#now();
      if (fua) version.durable = version.completed;
      return;
    }
    const isGone = status === IoStatus.DEVICE_GONE && device.deleted !== null;
    const isFull = status === IoStatus.NO_SPACE && device.thin;
    assert(isGone || isFull, `a write to ${device.uuid} ended with ${status}`);
  }

  async #flush(device: ModelDevice): Promise<void> {
    const submitted = this.#now();
    const status = await this.#io(device, IoOp.FLUSH, [0, 0], -1, 0);
    if (status === IoStatus.OK) device.flushed(submitted, this.#now());
  }

  async #read(device: ModelDevice): Promise<void> {
    const { reactor } = this.#o;
    const range = this.#range(device, 200);
    const bytes = range === null ? 0 : (range[1] - range[0]) * SECTOR_BYTES;
    const buffer = range === null ? -1 : reactor.arena.alloc(bytes, 0);
    if (range === null || buffer < 0) return;
    device.busy.add(range);
    const submitted = this.#now();
    const status = await this.#io(device, IoOp.READ, range, buffer, 0);
    device.busy.delete(range);
    const words = new Uint32Array(reactor.arena.u8.slice(buffer, buffer + bytes).buffer);
    reactor.arena.free(buffer);
    if (status === IoStatus.DEVICE_GONE && device.deleted !== null) return;
    assert(status === IoStatus.OK, `a read of ${device.uuid} ended with ${status}`);
    for (let sector = range[0]; sector < range[1]; sector++) {
      const at = ((sector - range[0]) * SECTOR_BYTES) / 4;
      const version = versionIn(words, at, device.family, sector);
      const isKnown =
        device.mayRead(sector, version, submitted) || device.wasEver(sector, version, submitted);
      if (version >= 0 && isKnown) continue;
      throw new Error(`read of ${device.uuid} sector ${sector}: found version ${version}`);
    }
  }

  async #io(
    device: ModelDevice,
    op: number,
    range: readonly [number, number],
    buffer: number,
    flags: number,
  ): Promise<number> {
    const replica = this.#o.pool.find(device.uuid);
    if (replica === undefined) return IoStatus.DEVICE_GONE;
    const offset = range[0] * SECTOR_BYTES;
    const length = (range[1] - range[0]) * SECTOR_BYTES;
    return request(this.#o.reactor, replica, op, offset, length, buffer, flags);
  }
}

/** One request by promise. */
export async function request(
  reactor: Reactor,
  bdev: Bdev,
  op: number,
  offset: number,
  length: number,
  buffer: number,
  flags: number,
): Promise<number> {
  const { io } = reactor;
  const slots = bdev.slotsPerIo + 1;
  assert(io.promise(slots), "the test stays within the request slots");
  const slot = io.take(op, offset, length, buffer, flags, reactor.now);
  const status = await ioPromise(reactor, slot, (s) => bdev.submit(s));
  io.release(slots);
  return status;
}

/** Reads a whole device; throws where a sector holds what does not belong there. */
export async function readVersions(
  reactor: Reactor,
  bdev: Bdev,
  family: number,
): Promise<Uint32Array> {
  const sectors = (bdev.blockCount * bdev.blockSize) / SECTOR_BYTES;
  const versions = new Uint32Array(sectors);
  const step = 2048;
  const buffer = reactor.arena.alloc(step * SECTOR_BYTES, 0);
  assert(buffer >= 0, "the test stays within the arena");
  for (let from = 0; from < sectors; from += step) {
    const count = Math.min(step, sectors - from);
    const bytes = count * SECTOR_BYTES;
    const offset = from * SECTOR_BYTES;
    const status = await request(reactor, bdev, IoOp.READ, offset, bytes, buffer, 0);
    assert(status === IoStatus.OK, `a read of ${bdev.name} ended with ${status}`);
    const words = new Uint32Array(reactor.arena.u8.slice(buffer, buffer + bytes).buffer);
    for (let s = 0; s < count; s++) {
      const version = versionIn(words, (s * SECTOR_BYTES) / 4, family, from + s);
      if (version < 0) {
        throw new Error(
          `${bdev.name} sector ${from + s} holds foreign bytes: ${words.slice((s * SECTOR_BYTES) / 4, (s * SECTOR_BYTES) / 4 + 4).join(" ")}`,
        );
      }
      versions[from + s] = version;
    }
  }
  reactor.arena.free(buffer);
  return versions;
}
