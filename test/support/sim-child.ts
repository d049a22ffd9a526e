/**
 * A simulated replica: a disk that survives crashes of its users, answers late and in any order,
 * and fails on command; with the durable state and write-intent log of a real one.
 */

import { type Bdev, BdevListeners } from "../../src/engine/bdev/bdev.ts";
import { rangeStatus } from "../../src/engine/bdev/range.ts";
import type {
  Allocation,
  ChildDevice,
  Claim,
  ReplicaLink,
  SyncState,
} from "../../src/engine/nexus/index.ts";
import { READ_LEASE_HELD_MS, REGION_BYTES } from "../../src/engine/nexus/index.ts";
import { IoFlag, IoOp } from "../../src/engine/reactor/io-table.ts";
import type { Reactor } from "../../src/engine/reactor/reactor.ts";
import { IoStatus, TrilithError } from "../../src/errors.ts";
import type { Random } from "./random.ts";

export const SIM_CLUSTER_BYTES = 1 << 20;

interface Connection {
  open: boolean;
  /** Nothing comes through in either direction, and neither side has heard of an end. */
  silent: boolean;
  /** Until when the read lease that was granted over it is valid, by whoever granted it. */
  leaseUntilNs: number;
  onLoss: (() => void) | null;
  /** What came while it was silent: each ends when the connection does. */
  readonly swallowed: (() => void)[];
}

function end(connection: Connection): void {
  connection.onLoss?.();
  connection.open = false;
  connection.silent = false;
  for (const run of connection.swallowed.splice(0)) run();
}

/** The disk. It outlives nexuses; every `open` is a new connection to it. */
export class SimReplica {
  readonly name: string;
  readonly data: Uint8Array;
  readonly written: Uint8Array;
  readonly reactor: Reactor;
  readonly random: Random;
  readonly isLocal: boolean;
  readonly blockSize = 512;
  state: SyncState = { epoch: 0, generation: 0, baseGeneration: 0, clean: true, mayLack: false };
  readonly dirty: Uint8Array;
  /** Cannot be reached: requests end UNAVAILABLE after a while, opening fails. */
  down = false;
  /** Status that the next writes end with, without being stored. */
  failWrites: number = IoStatus.OK;
  failReads: number = IoStatus.OK;
  /** Blocks that cannot be read until they are written again. */
  readonly badBlocks = new Set<number>();
  /** Requests wait until this is false. */
  stalled = false;
  maxDelayMs = 2;
  reads = 0;
  writes = 0;
  flushes = 0;
  readonly #listeners: BdevListeners[] = [];
  /** Set by a test to look at writes as they are stored. */
  onStore: ((offset: number, length: number) => void) | null = null;
  /** Blocks stored since the last flush, with what was there before: lost when power is. */
  readonly #unflushed = new Map<number, Uint8Array>();
  #claim: Claim | null = null;
  #claimedOver: Connection | null = null;
  #connections: Connection[] = [];
  readonly #stalledRuns: (() => void)[] = [];

  constructor(
    reactor: Reactor,
    random: Random,
    options: { name: string; bytes: number; isLocal?: boolean },
  ) {
    this.reactor = reactor;
    this.random = random;
    this.name = options.name;
    this.isLocal = options.isLocal ?? false;
    this.data = new Uint8Array(options.bytes);
    this.written = new Uint8Array(Math.ceil(options.bytes / SIM_CLUSTER_BYTES));
    this.dirty = new Uint8Array(Math.ceil(Math.ceil(options.bytes / REGION_BYTES) / 8));
  }

  get uri(): string {
    return `sim:///${this.name}`;
  }

  release(): void {
    this.stalled = false;
    for (const run of this.#stalledRuns.splice(0)) run();
  }

  /** What was sent on the connections that exist now and has not arrived, never does. */
  disconnect(): void {
    for (const connection of this.#connections.splice(0)) {
      end(connection);
    }
  }

  /** Nothing comes through on the connections that exist now, and nobody hears of it. */
  cut(): void {
    for (const connection of this.#connections) connection.silent = true;
  }

  /** Resolves when no read lease is valid that was granted over another connection. */
  async #leasesOver(own: Connection): Promise<void> {
    const untilNs = (): number =>
      Math.max(
        0,
        ...this.#connections.filter((c) => c !== own && c.open).map((c) => c.leaseUntilNs),
      );
    while (untilNs() > this.reactor.now) await this.reactor.sleep(1);
  }

  /** The node loses power: any of the blocks not flushed may be what they were before. */
  losePower(): void {
    for (const [block, before] of this.#unflushed) {
      if (this.random.chance(0.5)) this.data.set(before, block * this.blockSize);
    }
    this.#unflushed.clear();
    this.#claim = null;
    this.state = { ...this.state, mayLack: !this.state.clean && this.state.generation > 0 };
  }

  /** Its devices are gone, as those are told who have it open. */
  vanish(): void {
    for (const listeners of this.#listeners)
      listeners.tell({ kind: "removed", reason: "vanished" });
  }

  #remember(offset: number, length: number): void {
    for (let b = offset / this.blockSize; b < (offset + length) / this.blockSize; b++) {
      if (this.#unflushed.has(b)) continue;
      this.#unflushed.set(b, this.data.slice(b * this.blockSize, (b + 1) * this.blockSize));
    }
  }

  /** Runs after a random delay, and not before the disk stops stalling. */
  #later(run: () => void): void {
    this.reactor.after(this.random.next() * this.maxDelayMs, () => {
      if (this.stalled) this.#stalledRuns.push(run);
      else run();
    });
  }

  #call<T>(connection: Connection, body: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      const run = (): void => {
        if (connection.silent) {
          connection.swallowed.push(run);
          return;
        }
        if (this.down || !connection.open) {
          reject(new TrilithError("Unavailable", `${this.name} cannot be reached`));
          return;
        }
        try {
          resolve(body());
        } catch (error) {
          reject(error);
        }
      };
      this.#later(run);
    });
  }

  #assertHolder(claim: Claim | null): void {
    if (claim === null || this.#claim !== claim) {
      throw new TrilithError("ReservationConflict", `${this.name} is held by another nexus`);
    }
  }

  async open(): Promise<ChildDevice> {
    const connection: Connection = {
      open: true,
      silent: false,
      leaseUntilNs: 0,
      onLoss: null,
      swallowed: [],
    };
    this.#connections.push(connection);
    await this.#call(connection, () => undefined);
    const holder: { claim: Claim | null } = { claim: null };
    const bdev = this.#bdev(connection, holder);
    return {
      bdev,
      link: this.#link(connection, holder),
      isLocal: this.isLocal,
      abandon: () => end(connection),
      close: () => {
        end(connection);
        return Promise.resolve();
      },
    };
  }

  #link(connection: Connection, holder: { claim: Claim | null }): ReplicaLink {
    const grant = (): void => {
      connection.leaseUntilNs = this.reactor.now + READ_LEASE_HELD_MS * 1e6;
    };
    const lease = {
      renew: () =>
        this.#call(connection, () => {
          this.#assertHolder(holder.claim);
          grant();
        }),
      onLoss: (listener: () => void) => {
        connection.onLoss = listener;
      },
    };
    return {
      ...(this.isLocal ? {} : { lease }),
      acquire: async (claim) => {
        await this.#call(connection, () => {
          const before = this.#claim;
          if (this.state.epoch > claim.epoch || (before !== null && before.epoch > claim.epoch)) {
            throw new TrilithError(
              "Superseded",
              `${this.name}: epoch ${this.state.epoch} is newer`,
            );
          }
          this.#claim = claim;
          holder.claim = claim;
          const isOther = before !== null && before.nexusUuid !== claim.nexusUuid;
          if (isOther && !this.#claimedOver?.silent) before.onFenced();
          this.#claimedOver = connection;
        });
        if (!claim.isServing) await this.#leasesOver(connection);
        if (!this.isLocal) grant();
      },
      release: () =>
        this.#call(connection, () => {
          if (this.#claim === holder.claim) this.#claim = null;
        }),
      readState: () => this.#call(connection, () => this.state),
      writeState: (state) =>
        this.#call(connection, () => {
          this.#assertHolder(holder.claim);
          this.state = state;
        }),
      readDirty: () => this.#call(connection, () => this.dirty.slice()),
      markDirty: (regions) =>
        this.#call(connection, () => {
          this.#assertHolder(holder.claim);
          for (const r of regions) this.dirty[r >> 3] = this.dirty[r >> 3]! | (1 << (r & 7));
        }),
      clearDirty: (regions) =>
        this.#call(connection, () => {
          this.#assertHolder(holder.claim);
          this.#assertFlushed(regions);
          for (const r of regions) this.dirty[r >> 3] = this.dirty[r >> 3]! & ~(1 << (r & 7));
        }),
      readAllocation: () => this.#call(connection, () => this.#allocation()),
    };
  }

  /** The rule of the log (DESIGN 6.4): a region is clean only once it is on the disk. */
  #assertFlushed(regions: readonly number[]): void {
    for (const block of this.#unflushed.keys()) {
      const region = Math.floor((block * this.blockSize) / REGION_BYTES);
      if (!regions.includes(region)) continue;
      throw new Error(`${this.name}: region ${region} is cleared before it is flushed`);
    }
  }

  #allocation(): Allocation {
    const bitmap = new Uint8Array(Math.ceil(this.written.byteLength / 8));
    for (let c = 0; c < this.written.byteLength; c++) {
      if (this.written[c] !== 0) bitmap[c >> 3] = bitmap[c >> 3]! | (1 << (c & 7));
    }
    return { clusterBytes: SIM_CLUSTER_BYTES, bitmap };
  }

  #bdev(connection: Connection, holder: { claim: Claim | null }): Bdev {
    const { reactor } = this;
    const { io } = reactor;
    const listeners = new BdevListeners();
    this.#listeners.push(listeners);
    return {
      name: this.name,
      uri: this.uri,
      driver: "replica",
      uuid: "00000000-0000-0000-0000-000000000000",
      reactor,
      blockSize: this.blockSize,
      blockCount: this.data.byteLength / this.blockSize,
      synchronous: false,
      slotsPerIo: 0,
      discardZeroes: true,
      volatileCache: true,
      submit: (slot) => {
        const run = (): void => {
          if (connection.silent) {
            connection.swallowed.push(run);
            return;
          }
          let status: number;
          if (this.down || !connection.open) status = IoStatus.UNAVAILABLE;
          else if (this.#claim !== holder.claim) status = IoStatus.RESERVATION_CONFLICT;
          else status = this.#carryOut(slot);
          // The answer takes its time too, so that requests overlap in every way.
          this.#later(() => {
            const isLost = (this.down || !connection.open) && status === IoStatus.OK;
            io.complete(slot, isLost ? IoStatus.UNAVAILABLE : status);
          });
        };
        this.#later(run);
      },
      listen: (listener) => listeners.add(listener),
      close: () => Promise.resolve(),
    };
  }

  #touchesBad(offset: number, length: number): boolean {
    for (const b of this.badBlocks) {
      const at = b * this.blockSize;
      if (at + this.blockSize > offset && at < offset + length) return true;
    }
    return false;
  }

  #carryOut(slot: number): number {
    const { io, arena } = this.reactor;
    const status = rangeStatus(io, slot, this.data.byteLength, this.blockSize);
    if (status !== IoStatus.OK) return status;
    const op = io.op[slot]!;
    const offset = io.offset[slot]!;
    const length = io.length[slot]!;
    const buffer = io.buffer[slot]!;
    if (op === IoOp.READ) {
      this.reads++;
      if (this.failReads !== IoStatus.OK) return this.failReads;
      if (this.#touchesBad(offset, length)) return IoStatus.DEVICE_IO;
      arena.u8.set(this.data.subarray(offset, offset + length), buffer);
      return IoStatus.OK;
    }
    if (op === IoOp.FLUSH) {
      this.flushes++;
      if (this.failWrites === IoStatus.OK) this.#unflushed.clear();
      return this.failWrites;
    }
    if (this.failWrites !== IoStatus.OK) return this.failWrites;
    this.writes++;
    if ((io.flags[slot]! & IoFlag.FUA) === 0) this.#remember(offset, length);
    for (let b = offset / this.blockSize; b < (offset + length) / this.blockSize; b++) {
      this.badBlocks.delete(b);
    }
    if (op === IoOp.WRITE) this.data.set(arena.u8.subarray(buffer, buffer + length), offset);
    else this.data.fill(0, offset, offset + length);
    const last = Math.floor((offset + length - 1) / SIM_CLUSTER_BYTES);
    for (let c = Math.floor(offset / SIM_CLUSTER_BYTES); c <= last; c++) this.written[c] = 1;
    this.onStore?.(offset, length);
    return IoStatus.OK;
  }
}
