/**
 * A disk of a simulated machine: it outlives the engines that use it. It has a volatile cache (after a
 * power loss each sector that no flush has covered may hold what it held before), answers late and in any
 * order, and fails as it is told: sectors that cannot be read, errors of everything, gone altogether,
 * swapped for a blank one.
 */
import { type Bdev, type BdevListener, BdevListeners } from "../../../src/engine/bdev/bdev.ts";
import { rangeStatus } from "../../../src/engine/bdev/range.ts";
import { IoFlag, IoOp } from "../../../src/engine/reactor/io-table.ts";
import type { Reactor } from "../../../src/engine/reactor/reactor.ts";
import { IoStatus, TrilithError } from "../../../src/errors.ts";
import type { Process, World } from "./world.ts";

export const SECTOR_BYTES = 512;
const PAGE_BYTES = 64 << 10;

/** Bytes of a disk, of which only those that are not zero take memory. */
class Image {
  readonly #pages = new Map<number, Uint8Array>();

  read(offset: number, target: Uint8Array): void {
    for (let at = 0; at < target.byteLength; ) {
      const inPage = (offset + at) % PAGE_BYTES;
      const length = Math.min(PAGE_BYTES - inPage, target.byteLength - at);
      const page = this.#pages.get(Math.floor((offset + at) / PAGE_BYTES));
      if (page === undefined) target.fill(0, at, at + length);
      else target.set(page.subarray(inPage, inPage + length), at);
      at += length;
    }
  }

  write(offset: number, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.byteLength; ) {
      const index = Math.floor((offset + at) / PAGE_BYTES);
      const inPage = (offset + at) % PAGE_BYTES;
      const length = Math.min(PAGE_BYTES - inPage, bytes.byteLength - at);
      let page = this.#pages.get(index);
      if (page === undefined) {
        page = new Uint8Array(PAGE_BYTES);
        this.#pages.set(index, page);
      }
      page.set(bytes.subarray(at, at + length), inPage);
      at += length;
    }
  }

  zero(offset: number, length: number): void {
    for (let at = 0; at < length; ) {
      const index = Math.floor((offset + at) / PAGE_BYTES);
      const inPage = (offset + at) % PAGE_BYTES;
      const size = Math.min(PAGE_BYTES - inPage, length - at);
      if (size === PAGE_BYTES) this.#pages.delete(index);
      else this.#pages.get(index)?.fill(0, inPage, inPage + size);
      at += size;
    }
  }

  /** True when the sector at `offset` is not zero. */
  holds(offset: number): boolean {
    const page = this.#pages.get(Math.floor(offset / PAGE_BYTES));
    const at = offset % PAGE_BYTES;
    return page?.subarray(at, at + SECTOR_BYTES).some((byte) => byte !== 0) ?? false;
  }

  copy(): Image {
    const image = new Image();
    for (const [index, page] of this.#pages) image.#pages.set(index, page.slice());
    return image;
  }
}

/** Something that changes the disk. */
interface Change {
  readonly offset: number;
  readonly length: number;
  /** Null: zeroes. */
  readonly data: Uint8Array | null;
}

function applyTo(image: Image, { offset, length, data }: Change): void {
  if (data === null) image.zero(offset, length);
  else image.write(offset, data);
}

export class Disk {
  readonly world: World;
  readonly name: string;
  readonly bytes: number;
  /** What every request ends with instead of being carried out. */
  failure: IoStatus = IoStatus.OK;
  /** Pulled out. */
  isGone = false;
  maxDelayMs = 0.6;
  /** Sectors that cannot be read until they are written. */
  readonly badSectors = new Set<number>();
  #current = new Image();
  #durable = new Image();
  /** Completed and not flushed, in order, numbered. */
  #volatile: { readonly change: Change; readonly number: number }[] = [];
  #number = 0;
  readonly #inFlight = new Set<Change>();
  #user: OpenDisk | null = null;

  constructor(world: World, name: string, bytes: number) {
    this.world = world;
    this.name = name;
    this.bytes = bytes;
  }

  /** Everything on it can be read. */
  get isWell(): boolean {
    return this.failure === IoStatus.OK && !this.isGone && this.badSectors.size === 0;
  }

  /** Opens it for an engine; `InUse`, `NotFound`. */
  open(reactor: Reactor, process: Process, uri: string): Bdev {
    if (this.isGone) throw new TrilithError("NotFound", `${uri}: no such file`);
    if (this.#user !== null) throw new TrilithError("InUse", `${uri} is in use`);
    const user = new OpenDisk(this, reactor, process, uri);
    this.#user = user;
    process.onEnd((death) => {
      if (this.#user !== user) return;
      this.#user = null;
      if (death === "killed") this.#finishInFlight();
    });
    return user;
  }

  closed(user: OpenDisk): void {
    if (this.#user === user) this.#user = null;
  }

  begin(change: Change): void {
    this.#inFlight.add(change);
  }

  /** A change has been carried out, or (`isDone` false) has not. */
  end(change: Change, isDone: boolean, fua: boolean): void {
    this.#inFlight.delete(change);
    if (!isDone) return;
    applyTo(this.#current, change);
    const first = Math.floor(change.offset / SECTOR_BYTES);
    const last = Math.floor((change.offset + change.length - 1) / SECTOR_BYTES);
    for (const sector of this.badSectors) {
      if (sector >= first && sector <= last) this.badSectors.delete(sector);
    }
    if (!fua) {
      this.#keep(change);
      return;
    }
    // What the cache holds of the same place is older: it must not come to the disk after this, nor what is
    // older still after that.
    const end = change.offset + change.length;
    const newest = this.#volatile.findLastIndex(
      ({ change: older }) => older.offset < end && older.offset + older.length > change.offset,
    );
    for (const { change: older } of this.#volatile.splice(0, newest + 1)) {
      applyTo(this.#durable, older);
    }
    applyTo(this.#durable, change);
  }

  #keep(change: Change): void {
    this.#volatile.push({ change, number: ++this.#number });
  }

  /** Number of the last change that was completed. */
  get lastNumber(): number {
    return this.#number;
  }

  /** What had been completed up to this number is durable. */
  flushed(number: number): void {
    const isLater = this.#volatile.findIndex((entry) => entry.number > number);
    const count = isLater < 0 ? this.#volatile.length : isLater;
    for (const { change } of this.#volatile.splice(0, count)) applyTo(this.#durable, change);
  }

  read(offset: number, target: Uint8Array): void {
    this.#current.read(offset, target);
  }

  isBad(offset: number, length: number): boolean {
    for (const sector of this.badSectors) {
      const at = sector * SECTOR_BYTES;
      if (at >= offset && at < offset + length) return true;
    }
    return false;
  }

  /** Its engine has died: what it had sent may or may not have been carried out. */
  #finishInFlight(): void {
    for (const change of this.#inFlight) {
      for (const part of this.#someOf(change)) {
        applyTo(this.#current, part);
        this.#keep(part);
      }
    }
    this.#inFlight.clear();
  }

  /** Nothing, all, or any of the sectors of a change. */
  #someOf(change: Change): Change[] {
    const { random } = this.world;
    const style = random.below(3);
    if (style === 0) return [];
    if (style === 1 || change.length > 1 << 20) return [change];
    const parts: Change[] = [];
    for (let at = 0; at < change.length; at += SECTOR_BYTES) {
      if (random.chance(0.5)) continue;
      const data = change.data?.subarray(at, at + SECTOR_BYTES) ?? null;
      parts.push({ offset: change.offset + at, length: SECTOR_BYTES, data });
    }
    return parts;
  }

  /** The power goes: of what was not flushed, anything may be lost. */
  losePower(): void {
    this.#user = null;
    const unsure = [...this.#volatile.map(({ change }) => change), ...this.#inFlight];
    for (const change of unsure) {
      for (const part of this.#someOf(change)) applyTo(this.#durable, part);
    }
    this.#volatile = [];
    this.#inFlight.clear();
    this.#current = this.#durable.copy();
  }

  /** Pulls it out: it is without power then, too. */
  remove(): void {
    const user = this.#user;
    this.losePower();
    this.isGone = true;
    user?.removed();
  }

  putBack(): void {
    this.isGone = false;
  }

  /** Another, blank disk takes its place. */
  swap(): void {
    this.remove();
    this.isGone = false;
    this.#current = new Image();
    this.#durable = new Image();
    this.#volatile = [];
    this.#inFlight.clear();
    this.badSectors.clear();
  }

  /** Makes a sector unreadable that holds something, until it is written again. */
  spoilSector(): void {
    const sector = this.world.random.below(this.bytes / SECTOR_BYTES);
    for (let i = 0; i < this.bytes / SECTOR_BYTES; i += 101) {
      const at = (sector + i) % (this.bytes / SECTOR_BYTES);
      if (!this.#current.holds(at * SECTOR_BYTES)) continue;
      this.badSectors.add(at);
      return;
    }
  }
}

/** A disk as one engine has it open. */
class OpenDisk implements Bdev {
  readonly driver = "uring";
  readonly uuid = "00000000-0000-4000-8000-000000000000";
  readonly blockSize = SECTOR_BYTES;
  readonly synchronous = false;
  readonly slotsPerIo = 0;
  readonly discardZeroes = false;
  readonly volatileCache = true;
  readonly name: string;
  readonly uri: string;
  readonly reactor: Reactor;
  readonly blockCount: number;
  readonly #disk: Disk;
  readonly #process: Process;
  readonly #listeners = new BdevListeners();
  #outstanding = 0;
  #isClosed = false;
  #isRemoved = false;
  #onIdle: (() => void)[] = [];

  constructor(disk: Disk, reactor: Reactor, process: Process, uri: string) {
    this.#disk = disk;
    this.#process = process;
    this.reactor = reactor;
    this.name = disk.name;
    this.uri = uri;
    this.blockCount = disk.bytes / SECTOR_BYTES;
  }

  submit(slot: number): void {
    const { io, arena } = this.reactor;
    const { world } = this.#disk;
    const op = io.op[slot]!;
    const offset = io.offset[slot]!;
    const length = io.length[slot]!;
    const buffer = io.buffer[slot]!;
    const isGone = this.#isRemoved || this.#isClosed;
    const status = isGone
      ? IoStatus.DEVICE_GONE
      : rangeStatus(io, slot, this.#disk.bytes, SECTOR_BYTES);
    if (status !== IoStatus.OK) {
      io.complete(slot, status);
      return;
    }
    const isChange = op === IoOp.WRITE || op === IoOp.WRITE_ZEROES || op === IoOp.DISCARD;
    const data = op === IoOp.WRITE ? arena.u8.slice(buffer, buffer + length) : null;
    const change: Change | null = isChange ? { offset, length, data } : null;
    if (change !== null) this.#disk.begin(change);
    const covered = this.#disk.lastNumber;
    const fua = (io.flags[slot]! & IoFlag.FUA) !== 0;
    this.#outstanding++;
    const delayMs = 0.02 + world.random.next() * this.#disk.maxDelayMs;
    world.after(delayMs, this.#process, () => {
      this.#outstanding--;
      io.complete(slot, this.#carryOut(op, offset, length, buffer, change, fua, covered));
      if (this.#outstanding === 0) for (const done of this.#onIdle.splice(0)) done();
    });
  }

  #carryOut(
    op: number,
    offset: number,
    length: number,
    buffer: number,
    change: Change | null,
    fua: boolean,
    covered: number,
  ): IoStatus {
    const disk = this.#disk;
    let status: IoStatus = this.#isRemoved ? IoStatus.DEVICE_GONE : disk.failure;
    if (op === IoOp.READ && disk.isBad(offset, length)) status = IoStatus.DEVICE_IO;
    const isDone = status === IoStatus.OK;
    if (change !== null) disk.end(change, isDone, fua);
    if (!isDone) return status;
    if (op === IoOp.FLUSH) disk.flushed(covered);
    if (op === IoOp.READ) {
      disk.read(offset, this.reactor.arena.u8.subarray(buffer, buffer + length));
    }
    return status;
  }

  removed(): void {
    this.#isRemoved = true;
    const { world } = this.#disk;
    world.after(0, this.#process, () =>
      this.#listeners.tell({ kind: "removed", reason: "pulled out" }),
    );
  }

  listen(listener: BdevListener): () => void {
    return this.#listeners.add(listener);
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (this.#outstanding > 0) await new Promise<void>((resolve) => this.#onIdle.push(resolve));
    this.#disk.closed(this);
  }
}
