/**
 * A simulated disk with a volatile cache: requests end later, in random order; everything that was
 * written is recorded, so that the disk can be had as it may look after a crash at any moment.
 *
 * After a crash, what a completed flush covers and what was written with FUA is there; of everything
 * else each sector of 512 bytes is there or not, independently. Discarded sectors turn into garbage
 * (another disk might return the old data, or zeroes).
 */
import { assert } from "../../../src/assert.ts";
import {
  type Bdev,
  type BdevEvent,
  type BdevListener,
  BdevListeners,
} from "../../../src/engine/bdev/bdev.ts";
import { rangeStatus } from "../../../src/engine/bdev/range.ts";
import { IoFlag, IoOp } from "../../../src/engine/reactor/io-table.ts";
import type { Reactor, TurnEnd } from "../../../src/engine/reactor/reactor.ts";
import { IoStatus } from "../../../src/errors.ts";
import { Random } from "../../support/random.ts";

export const SECTOR_BYTES = 512;
/** What a disk holds that nobody has written to. */
const GROWN = 0xee;
/** Turns that a slow request takes at most. */
const SLOW_TURNS = 80;
const NEVER = Number.POSITIVE_INFINITY;

/** Something that changed the disk. */
interface Change {
  readonly offset: number;
  readonly length: number;
  /** What it wrote; null: zeroes. */
  readonly data: Uint8Array | null;
  readonly fua: boolean;
  readonly submitted: number;
  completed: number;
  /** From when on it is certain to survive. */
  durable: number;
}

interface Pending {
  readonly slot: number;
  readonly change: Change | null;
  /** For a write: what the buffer held when it was submitted. */
  readonly data: Uint8Array | null;
  readonly submitted: number;
  /** Turns that it takes at least. */
  delay: number;
}

export interface SimDiskOptions {
  readonly reactor: Reactor;
  readonly image: Uint8Array;
  readonly seed: number;
  /** Keep what is needed for `crash`. */
  readonly record?: boolean;
  /** Share of the outstanding requests that end in one turn. Default: half. */
  readonly pace?: number;
  /** Share of the requests that take much longer than the others. Default: none. */
  readonly slow?: number;
}

export class SimDisk implements Bdev, TurnEnd {
  /** For the reactor. */
  queued = false;
  readonly name = "sim";
  readonly uri = "sim:///disk";
  readonly driver = "fault";
  readonly uuid = "00000000-0000-4000-8000-000000000000";
  readonly reactor: Reactor;
  readonly blockSize = SECTOR_BYTES;
  readonly synchronous = false;
  readonly slotsPerIo = 0;
  readonly discardZeroes = false;
  readonly volatileCache = true;
  blockCount: number;

  /** What the disk holds now. */
  image: Uint8Array;
  /** Counts submissions and completions: the moments at which a crash can happen. */
  clock = 0;
  /** The status that a request shall end with instead of being carried out. */
  failure: (op: number, offset: number, length: number) => IoStatus = () => IoStatus.OK;
  /** Requests that shall not end for now. */
  stalled: (op: number, offset: number, length: number) => boolean = () => false;
  /** Requests seen, by `IoOp`. */
  readonly counts = new Float64Array(8);

  readonly #initial: Uint8Array;
  readonly #record: boolean;
  readonly #pace: number;
  readonly #slow: number;
  readonly #random: Random;
  readonly #changes: Change[] = [];
  readonly #listeners = new BdevListeners();
  #pending: Pending[] = [];
  #ticking = false;
  #gone = false;

  constructor(options: SimDiskOptions) {
    this.reactor = options.reactor;
    this.image = options.image;
    this.#record = options.record ?? false;
    this.#initial = this.#record ? options.image.slice() : options.image;
    this.#random = new Random(options.seed);
    this.#pace = options.pace ?? 0.5;
    this.#slow = options.slow ?? 0;
    this.blockCount = options.image.byteLength / SECTOR_BYTES;
  }

  submit(slot: number): void {
    const { io, arena } = this.reactor;
    const status = this.#gone
      ? IoStatus.DEVICE_GONE
      : rangeStatus(io, slot, this.image.byteLength, this.blockSize);
    if (status !== IoStatus.OK) {
      io.complete(slot, status);
      return;
    }
    const op = io.op[slot]!;
    this.counts[op] = this.counts[op]! + 1;
    const submitted = ++this.clock;
    const length = io.length[slot]!;
    const buffer = io.buffer[slot]!;
    const data = op === IoOp.WRITE ? arena.u8.slice(buffer, buffer + length) : null;
    let change: Change | null = null;
    if (op === IoOp.WRITE || op === IoOp.WRITE_ZEROES || op === IoOp.DISCARD) {
      change = {
        offset: io.offset[slot]!,
        length,
        data: op === IoOp.DISCARD ? this.#garbage(length) : data,
        fua: (io.flags[slot]! & IoFlag.FUA) !== 0,
        submitted,
        completed: NEVER,
        durable: NEVER,
      };
      if (this.#record) this.#changes.push(change);
    }
    const delay = this.#random.chance(this.#slow) ? this.#random.below(SLOW_TURNS) : 0;
    this.#pending.push({ slot, change, data, submitted, delay });
    this.#tick();
  }

  #garbage(length: number): Uint8Array {
    return new Uint8Array(length).fill(0xd0 | this.#random.below(16));
  }

  /** Has requests end in the next turn. A microtask gets there without the reactor going to sleep. */
  #tick(): void {
    if (this.#ticking) return;
    this.#ticking = true;
    queueMicrotask(() => this.reactor.atTurnEnd(this));
  }

  endTurn(): void {
    this.#ticking = false;
    this.#completeSome();
    if (this.#pending.some((p) => !this.#isStalled(p))) this.#tick();
  }

  #isStalled({ slot }: Pending): boolean {
    const { io } = this.reactor;
    return this.stalled(io.op[slot]!, io.offset[slot]!, io.length[slot]!);
  }

  /** Lets requests go on that were stalled. */
  release(): void {
    this.stalled = () => false;
    this.#tick();
  }

  #completeSome(): void {
    const pending = this.#pending;
    this.#pending = [];
    const kept: Pending[] = [];
    const ended: Pending[] = [];
    for (const p of pending) {
      const isDue = p.delay-- <= 0 && this.#random.chance(this.#pace);
      if (!this.#isStalled(p) && (this.#gone || isDue))
        ended.splice(this.#random.below(ended.length + 1), 0, p);
      else kept.push(p);
    }
    this.#pending = kept;
    for (const p of ended) this.#complete(p);
  }

  #complete(p: Pending): void {
    const { io, arena } = this.reactor;
    const { slot, change, data } = p;
    const op = io.op[slot]!;
    const offset = io.offset[slot]!;
    const length = io.length[slot]!;
    const buffer = io.buffer[slot]!;
    const status = this.#gone ? IoStatus.DEVICE_GONE : this.failure(op, offset, length);
    this.clock++;
    if (data !== null) {
      const isSame = Buffer.compare(arena.u8.subarray(buffer, buffer + length), data) === 0;
      assert(isSame, "the buffer of a write stays as it is until the write ends");
    }
    if (status === IoStatus.OK) {
      if (op === IoOp.READ) arena.u8.set(this.image.subarray(offset, offset + length), buffer);
      if (op === IoOp.FLUSH) this.#flushed(p.submitted);
      if (change !== null) {
        apply(this.image, change);
        change.completed = this.clock;
        if (change.fua) change.durable = this.clock;
      }
    }
    io.complete(slot, status);
  }

  /** A flush that was submitted at `submitted` has ended: what had ended before is durable. */
  #flushed(submitted: number): void {
    for (const change of this.#changes) {
      if (change.completed < submitted && change.durable === NEVER) change.durable = this.clock;
    }
  }

  /**
   * The disk as it may look after a crash at `moment` (a value that `clock` had). With `random`, what
   * is not certain is there sector by sector at random; "all" and "none" are the extremes.
   */
  crash(moment: number, random: Random | "all" | "none"): Uint8Array {
    assert(this.#record, "the disk records");
    const image = new Uint8Array(this.image.byteLength).fill(GROWN);
    image.set(this.#initial);
    const changes = this.#changes
      .filter((change) => change.submitted <= moment)
      .sort((a, b) => a.completed - b.completed);
    for (const change of changes) {
      if (change.durable <= moment) apply(image, change);
      else if (random === "all") apply(image, change);
      else if (random !== "none") applySome(image, change, random);
    }
    return image;
  }

  /** Makes the disk larger; what it holds there is garbage. */
  grow(bytes: number): void {
    const image = new Uint8Array(bytes).fill(GROWN);
    image.set(this.image);
    this.image = image;
    this.blockCount = bytes / SECTOR_BYTES;
    this.#tell({ kind: "resized", blockCount: this.blockCount });
  }

  /** Pulls the disk out: what is outstanding and what comes ends DEVICE_GONE. */
  remove(): void {
    this.#gone = true;
    this.#tell({ kind: "removed", reason: "pulled out" });
    if (this.#pending.length > 0) this.#tick();
  }

  #tell(event: BdevEvent): void {
    this.#listeners.tell(event);
  }

  listen(listener: BdevListener): () => void {
    return this.#listeners.add(listener);
  }

  async close(): Promise<void> {
    while (this.#pending.length > 0) await this.reactor.sleep(0);
    this.#gone = true;
  }
}

function apply(image: Uint8Array, change: Change): void {
  if (change.data === null) image.fill(0, change.offset, change.offset + change.length);
  else image.set(change.data, change.offset);
}

/** Applies each sector or not. Often whole runs survive or get lost together. */
function applySome(image: Uint8Array, change: Change, random: Random): void {
  const style = random.below(3);
  if (style === 0) return;
  if (style === 1) {
    apply(image, change);
    return;
  }
  for (let at = 0; at < change.length; at += SECTOR_BYTES) {
    if (random.chance(0.5)) continue;
    const offset = change.offset + at;
    if (change.data === null) image.fill(0, offset, offset + SECTOR_BYTES);
    else image.set(change.data.subarray(at, at + SECTOR_BYTES), offset);
  }
}
