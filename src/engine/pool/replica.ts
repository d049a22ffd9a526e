/**
 * A replica: a block device whose clusters come from a pool. A snapshot is one that cannot be
 * written.
 *
 * A request inside one cluster that is mapped, and for a write not shared, goes straight to the base
 * device with its offset rewritten. Everything else takes the longer way (spans.ts). What was never
 * written, or discarded, reads as zeroes.
 */
import { assert } from "../../assert.ts";
import { IoStatus, TrilithError } from "../../errors.ts";
import { type Bdev, type BdevEvent, type BdevListener, BdevListeners } from "../bdev/bdev.ts";
import { rangeStatus } from "../bdev/range.ts";
import { IoOp } from "../reactor/io-table.ts";
import type { Reactor } from "../reactor/reactor.ts";
import { type Attributes, decodeAttributeMap } from "./attributes.ts";
import type { PoolCore } from "./core.ts";
import { Epochs } from "./epochs.ts";
import { Intent } from "./intent.ts";
import { SPLIT_PIECES } from "./limits.ts";
import { KIND_SNAPSHOT } from "./records.ts";
import { CLUSTER_MASK, type PoolObject, SHARED_SHIFT } from "./state.ts";

const NONE = -1;

/** Why requests may not go straight through. Reads do unless the replica is closed. */
export const Gate = {
  /** Writes are held back for a moment (a snapshot is being taken). */
  HELD: 1,
  /** A snapshot. */
  READONLY: 2,
  /** The pool has failed: nothing can be made durable. */
  FAULTED: 4,
  CLOSED: 8,
} as const;

/** Kinds as they are reported (Mayastor's ReplicaKind). */
export type ReplicaKind = "Regular" | "Snapshot" | "SnapshotClone";

export class Replica implements Bdev {
  readonly driver = "replica";
  readonly reactor: Reactor;
  readonly uuid: string;
  readonly blockSize: number;
  /** A write may have to wait for a cluster, whatever the base device: its data must be kept. */
  readonly synchronous = false;
  readonly slotsPerIo: number;
  /** Discarded blocks read as zeroes, whatever the base device does. */
  readonly discardZeroes = true;
  readonly volatileCache: boolean;
  /** Write-intent (design 6.4). */
  readonly intent: Intent;

  /** For the pool's own layers. */
  readonly object: PoolObject;
  /** `Gate` bits. */
  gate = 0;
  /** Operations on the map under way. */
  ops = 0;
  /** Counts the requests on the longer way, from when they come until they end. */
  readonly requests: Epochs;

  readonly #core: PoolCore;
  readonly #bdev: Bdev;
  readonly #clusterBytes: number;
  readonly #clustersPerByte: number;
  readonly #listeners = new BdevListeners();
  #bytes: number;
  /** Requests held back, linked by `io.next`. */
  #heldHead = NONE;
  #heldTail = NONE;
  #lastHold: Promise<void> = Promise.resolve();
  #endHold: () => void = () => {};
  #opsWaiters: (() => void)[] = [];
  #attributes: Attributes;

  constructor(core: PoolCore, object: PoolObject) {
    this.#core = core;
    this.object = object;
    this.reactor = core.reactor;
    this.uuid = object.uuid;
    this.blockSize = core.state.blockSize;
    this.#bdev = core.bdev;
    this.slotsPerIo = SPLIT_PIECES * (core.bdev.slotsPerIo + 1);
    this.volatileCache = core.bdev.volatileCache;
    this.#clusterBytes = core.clusterBytes;
    this.#clustersPerByte = 1 / core.clusterBytes;
    this.#bytes = object.sizeBytes;
    this.#attributes = decodeAttributeMap(object.attributes);
    this.requests = new Epochs(core.io, () => {});
    this.intent = new Intent(core, object, () => this.isClosed);
    if (object.kind === KIND_SNAPSHOT) this.gate |= Gate.READONLY;
  }

  /** Its name in the pool. */
  get name(): string {
    return this.#attributes.name;
  }

  get uri(): string {
    return `bdev:///${this.uuid}?uuid=${this.uuid}`;
  }

  get blockCount(): number {
    return this.#bytes / this.blockSize;
  }

  get sizeBytes(): number {
    return this.#bytes;
  }

  get thin(): boolean {
    return this.object.thin;
  }

  get kind(): ReplicaKind {
    if (this.object.kind === KIND_SNAPSHOT) return "Snapshot";
    return this.object.origin === 0 ? "Regular" : "SnapshotClone";
  }

  get attributes(): Attributes {
    return this.#attributes;
  }

  get isClosed(): boolean {
    return (this.gate & Gate.CLOSED) !== 0;
  }

  /**
   * Carries out a request (see `Bdev`). The slot's offset is rewritten where it goes straight
   * through. Beyond what the base device ends requests with: NO_SPACE when a thin replica finds the
   * pool full, UNSUPPORTED for writes to a snapshot, DEVICE_IO or DEVICE_GONE for writes to a pool
   * that has failed.
   */
  submit(slot: number): void {
    const { io, epochs } = this.#core;
    const op = io.op[slot]!;
    const gate = this.gate;
    if (op <= IoOp.WRITE && gate < (op === IoOp.READ ? Gate.CLOSED : Gate.HELD)) {
      const offset = io.offset[slot]!;
      const index = (offset * this.#clustersPerByte) | 0;
      const within = offset - index * this.#clusterBytes;
      const length = io.length[slot]!;
      if (offset >= 0 && within + length <= this.#clusterBytes && offset + length <= this.#bytes) {
        const entry = this.object.map[index]!;
        // The base device checks alignment and length: whole clusters lie at whole clusters.
        if (op === IoOp.READ ? entry >= 0 : entry >>> SHARED_SHIFT === 0) {
          io.offset[slot] = (entry & CLUSTER_MASK) * this.#clusterBytes + within;
          const epoch = epochs.current;
          epoch.count++;
          io.push(slot, epoch);
          this.#bdev.submit(slot);
          return;
        }
      }
    }
    this.#submitSlowly(slot, op);
  }

  #submitSlowly(slot: number, op: number): void {
    const { io, epochs, spans } = this.#core;
    if ((this.gate & Gate.CLOSED) !== 0) {
      io.complete(slot, IoStatus.DEVICE_GONE);
      return;
    }
    const status = rangeStatus(io, slot, this.#bytes, this.blockSize);
    if (status !== IoStatus.OK) {
      io.complete(slot, status);
    } else if (op === IoOp.FLUSH) {
      const epoch = epochs.current;
      epoch.count++;
      io.push(slot, epoch);
      this.#bdev.submit(slot);
    } else if ((this.gate & Gate.HELD) !== 0 && op !== IoOp.READ) {
      this.#park(slot);
    } else spans.begin(this, slot);
  }

  /** What a write is refused with when it may not be carried out at all. */
  refusal(): IoStatus {
    return (this.gate & Gate.READONLY) !== 0 ? IoStatus.UNSUPPORTED : this.#core.refusal();
  }

  listen(listener: BdevListener): () => void {
    return this.#listeners.add(listener);
  }

  /** True when anything of the range may differ from zeroes: what a rebuild must copy. */
  isAllocated(offset: number, length: number): boolean {
    const { map } = this.object;
    const last = Math.min(map.length - 1, Math.floor((offset + length - 1) / this.#clusterBytes));
    for (let i = Math.floor(offset / this.#clusterBytes); i <= last; i++) {
      if (map[i] !== -1) return true;
    }
    return false;
  }

  /** A bit per cluster (bit 0 of byte 0 is the first), 1 where it may differ from zeroes. */
  allocationBitmap(): Uint8Array {
    const { map } = this.object;
    const bits = new Uint8Array(Math.ceil(map.length / 8));
    for (let i = 0; i < map.length; i++) {
      if (map[i] !== -1) bits[i >> 3] = bits[i >> 3]! | (1 << (i & 7));
    }
    return bits;
  }

  /**
   * Waits for outstanding requests and takes the device out of service. The pool does this when it
   * is exported or the replica is deleted; whoever merely uses a replica does not close it.
   */
  async close(): Promise<void> {
    this.gate |= Gate.CLOSED;
    await this.settle();
    await this.#opsDone();
  }

  /**
   * Resolves when every request sent before the call has ended, but for writes that are just being
   * held back. Later ones are not waited for.
   */
  async settle(): Promise<void> {
    await Promise.all([this.requests.grace(), this.#core.epochs.grace()]);
  }

  /**
   * Holds later writes back and resolves when all those sent before have ended, also those that an
   * earlier hold has kept. Holds follow each other; each is ended by one `unhold`.
   */
  async hold(): Promise<void> {
    const before = this.#lastHold;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#lastHold = promise;
    await before;
    this.#endHold = resolve;
    this.gate |= Gate.HELD;
    await this.settle();
    await this.#opsDone();
  }

  /** Lets writes through again. */
  unhold(): void {
    assert((this.gate & Gate.HELD) !== 0, "what is let go was held");
    this.gate &= ~Gate.HELD;
    const { io } = this.#core;
    let slot = this.#heldHead;
    this.#heldHead = NONE;
    this.#heldTail = NONE;
    while (slot !== NONE) {
      const next = io.next[slot]!;
      this.#submitSlowly(slot, io.op[slot]!);
      slot = next;
    }
    this.#endHold();
  }

  // ------------------------------------------------------------------- for the pool's own layers

  /** Takes over what a durable record has changed. */
  onChanged(): void {
    this.#attributes = decodeAttributeMap(this.object.attributes);
    if (this.object.sizeBytes === this.#bytes) return;
    this.#bytes = this.object.sizeBytes;
    this.tell({ kind: "resized", blockCount: this.blockCount });
  }

  tell(event: BdevEvent): void {
    this.#listeners.tell(event);
  }

  /** Keeps a request until writes are let through again. */
  #park(slot: number): void {
    const { next } = this.#core.io;
    next[slot] = NONE;
    if (this.#heldTail === NONE) this.#heldHead = slot;
    else next[this.#heldTail] = slot;
    this.#heldTail = slot;
  }

  /** Operations can outlive the request that began them, when it failed. */
  async #opsDone(): Promise<void> {
    while (this.ops > 0) {
      await new Promise<void>((resolve) => {
        this.#opsWaiters.push(resolve);
      });
    }
  }

  onOpsDone(): void {
    const waiters = this.#opsWaiters;
    this.#opsWaiters = [];
    for (const resolve of waiters) resolve();
  }

  /** Throws unless the replica is in service. */
  mustBeOpen(): void {
    if (!this.isClosed) return;
    throw new TrilithError("NotFound", `replica ${this.name} is no longer open`);
  }
}
