/**
 * The inside of an open pool: its parts, what ties them together, and its health. `Pool` is the
 * outside.
 */
import { assert } from "../../assert.ts";
import { IoStatus, ioError, TrilithError } from "../../errors.ts";
import type { Bdev } from "../bdev/bdev.ts";
import { IoOp, type IoTable } from "../reactor/io-table.ts";
import type { Reactor } from "../reactor/reactor.ts";
import { Area } from "./area.ts";
import type { CheckpointHeader } from "./checkpoint-format.ts";
import { Checkpointer } from "./checkpointer.ts";
import { Cleaner } from "./cleaner.ts";
import { ClusterOps } from "./cluster-ops.ts";
import type { PoolDevice } from "./device.ts";
import { Epochs } from "./epochs.ts";
import { Journal, type JournalHost } from "./journal.ts";
import type { JournalPosition } from "./journal-format.ts";
import { forEachRecord } from "./records.ts";
import { Gate, Replica } from "./replica.ts";
import { Space } from "./space.ts";
import { Spans } from "./spans.ts";
import { applyRecord, type PoolObject, type PoolState, type StateEffects } from "./state.ts";
import type { Superblock } from "./superblock.ts";

/**
 * Online: all is well. Degraded: metadata reaches only one of its two copies. Faulted: metadata can
 * not be written; what is mapped can be read. Offline: the disk is gone.
 */
export type PoolStatus = "Online" | "Degraded" | "Faulted" | "Offline";

/** Health of a pool and its disk since the pool was opened. */
export interface PoolHealth {
  readonly status: PoolStatus;
  /** Why it is not Online, or "". */
  readonly reason: string;
  readonly readErrors: number;
  readonly writeErrors: number;
  readonly metadataErrors: number;
}

/** What a pool is opened with, as it was loaded and verified. */
export interface CoreOptions {
  readonly device: PoolDevice;
  readonly superblock: Superblock;
  readonly state: PoolState;
  readonly references: Uint16Array;
  readonly metadata: readonly number[];
  readonly zeroed: Uint8Array;
  readonly newest: CheckpointHeader;
  readonly newestSlot: 0 | 1;
  readonly position: JournalPosition;
  readonly retainedFrom: number;
  readonly incarnation: number;
  /** Arena buffer of `Journal.bufferBytes`. */
  readonly journalBuffer: number;
}

export class PoolCore implements JournalHost, StateEffects {
  readonly bdev: Bdev;
  readonly device: PoolDevice;
  readonly reactor: Reactor;
  readonly io: IoTable;
  readonly clusterBytes: number;
  readonly state: PoolState;
  readonly space: Space;
  readonly epochs: Epochs;
  readonly journal: Journal;
  readonly checkpointer: Checkpointer;
  readonly cleaner: Cleaner;
  readonly ops: ClusterOps;
  readonly spans: Spans;
  readonly slots: readonly [Area, Area];
  /** Replicas and snapshots by object id. */
  readonly replicas = new Map<number, Replica>();
  superblock: Superblock;

  #status: PoolStatus = "Online";
  #reason = "";
  #readErrors = 0;
  #writeErrors = 0;
  #metadataErrors = 0;
  #held = 0;
  readonly #healthListeners = new Set<(health: PoolHealth) => void>();

  constructor(options: CoreOptions) {
    const { device, superblock, state } = options;
    this.device = device;
    this.bdev = device.bdev;
    this.reactor = device.reactor;
    this.io = device.reactor.io;
    this.superblock = superblock;
    this.clusterBytes = superblock.clusterBytes;
    this.state = state;
    this.slots = [new Area(superblock.slots[0]), new Area(superblock.slots[1])];
    this.space = new Space(state, options.references, options.metadata, options.zeroed);
    this.epochs = new Epochs(this.io, (op, status) => this.#onIoError(op, status));
    this.ops = new ClusterOps(this);
    this.spans = new Spans(this);
    const spawn = (task: () => Promise<void>) => this.spawn(task);
    this.journal = new Journal(
      {
        bdev: this.bdev,
        rings: [new Area(superblock.rings[0]), new Area(superblock.rings[1])],
        tag: superblock.tag,
        incarnation: options.incarnation,
        position: options.position,
        retainedFrom: options.retainedFrom,
        host: this,
      },
      options.journalBuffer,
    );
    this.checkpointer = new Checkpointer({
      device,
      state,
      space: this.space,
      journal: this.journal,
      slots: this.slots,
      tag: superblock.tag,
      newest: options.newest,
      newestSlot: options.newestSlot,
      onFailure: (status) => this.fault(status, "a checkpoint could not be written"),
      spawn,
    });
    this.cleaner = new Cleaner({
      device,
      space: this.space,
      epochs: this.epochs,
      clusterBytes: this.clusterBytes,
      demand: () => this.ops.demand,
      onSupply: () => this.ops.onSupply(),
      onFailure: (status) => this.#onCleanFailure(status),
      spawn,
    });
    for (const object of state.objects.values()) {
      this.replicas.set(object.id, new Replica(this, object));
    }
  }

  /** Runs work in the background. What it throws is a defect and ends the process. */
  spawn(task: () => Promise<void>): void {
    this.reactor.background(task());
  }

  // ------------------------------------------------------------------------------------ health

  get health(): PoolHealth {
    return {
      status: this.#status,
      reason: this.#reason,
      readErrors: this.#readErrors,
      writeErrors: this.#writeErrors,
      metadataErrors: this.#metadataErrors,
    };
  }

  /** Calls `listener` whenever the status changes; returns the function that takes it off. */
  onHealth(listener: (health: PoolHealth) => void): () => void {
    this.#healthListeners.add(listener);
    return () => {
      this.#healthListeners.delete(listener);
    };
  }

  #setStatus(status: PoolStatus, reason: string): void {
    this.#status = status;
    this.#reason = reason;
    for (const listener of [...this.#healthListeners]) listener(this.health);
  }

  get isFaulted(): boolean {
    return this.#status === "Faulted" || this.#status === "Offline";
  }

  /** Nothing can be made durable any more: writes are refused, reads go on as far as they can. */
  fault(status: IoStatus, what: string): void {
    this.#metadataErrors++;
    this.#stopWrites(
      status === IoStatus.DEVICE_GONE ? "Offline" : "Faulted",
      `${what}: ${ioError(status, this.bdev.name).message}`,
    );
  }

  /** As `fault`, for an error that was thrown. */
  failMetadata(error: unknown, what: string): void {
    this.#metadataErrors++;
    const text = error instanceof Error ? error.message : String(error);
    const isGone = error instanceof TrilithError && error.code === "DeviceGone";
    this.#stopWrites(isGone ? "Offline" : "Faulted", `${what}: ${text}`);
  }

  /** The disk is gone. */
  lose(reason: string): void {
    if (this.#status === "Offline") return;
    this.#stopWrites("Offline", `the disk ${this.bdev.name} is gone: ${reason}`);
  }

  #stopWrites(status: PoolStatus, reason: string): void {
    const isFirst = !this.isFaulted;
    this.#setStatus(status, reason);
    if (!isFirst) return;
    for (const replica of this.replicas.values()) replica.gate |= Gate.FAULTED;
    this.journal.fail();
    this.ops.onNoSupply(this.refusal());
    // Whoever uses a replica turns to others now, not at its next write.
    for (const replica of this.replicas.values()) replica.tell({ kind: "removed", reason });
  }

  /** The status of a write to a pool that has failed. */
  refusal(): IoStatus {
    return this.#status === "Offline" ? IoStatus.DEVICE_GONE : IoStatus.DEVICE_IO;
  }

  /** The error of control work on a pool that has failed. */
  failure(what: string): TrilithError {
    return new TrilithError(
      this.#status === "Offline" ? "DeviceGone" : "DeviceIo",
      `${what}: pool ${this.superblock.name} is ${this.#status} (${this.#reason})`,
      "check the disk; export and import the pool when it works again",
    );
  }

  #onIoError(op: number, status: number): void {
    if (op === IoOp.READ) this.#readErrors++;
    else this.#writeErrors++;
    if (status === IoStatus.DEVICE_GONE) this.lose("it no longer answers");
    else if (op !== IoOp.READ && (status === IoStatus.DEVICE_IO || status === IoStatus.TIMEOUT)) {
      // A disk that fails writes, or to flush them, keeps none of its promises from here on. One that
      // cannot read a block may have all others: whoever asked for that one is told.
      const error = ioError(status, this.bdev.name).message;
      this.#stopWrites("Faulted", `a write or flush failed: ${error}`);
    }
  }

  #onCleanFailure(status: IoStatus): void {
    this.#writeErrors++;
    if (status === IoStatus.DEVICE_GONE) this.lose("it no longer answers");
    this.ops.onNoSupply(status);
  }

  // ---------------------------------------------------------------------------- JournalHost

  apply(records: Uint8Array, from: number, to: number): void {
    forEachRecord(records, from, to, (type, payload) => {
      applyRecord(this.state, type, payload, this);
    });
    if (this.space.hasReleased) this.cleaner.kick();
  }

  afterCommit(): void {
    if (this.checkpointer.isDue) this.checkpointer.start();
  }

  ringFull(): void {
    this.checkpointer.start();
  }

  journalFailed(status: IoStatus): void {
    this.fault(status, "the journal could not be written");
  }

  journalDegraded(copy: number, status: IoStatus): void {
    this.#metadataErrors++;
    if (this.#status !== "Online") return;
    const what = copy === 0 ? "the journal" : "the mirror of the journal";
    this.#setStatus("Degraded", `${what}: ${ioError(status, this.bdev.name).message}`);
  }

  /** Queues records and resolves when they are durable and applied. Throws when they cannot be. */
  async commit(records: Uint8Array, length: number, what: string): Promise<void> {
    const isDurable = await new Promise<boolean>((committed) => {
      this.journal.append(records, length, { committed });
    });
    if (!isDurable) throw this.failure(what);
  }

  /**
   * Keeps clusters free for a record that will claim them (a thick replica made or grown). Control
   * operations go one at a time, so there is one such claim at most.
   */
  hold(clusters: number): void {
    assert(this.#held === 0, "one claim is held at a time");
    this.#held = clusters;
    this.space.promised += clusters;
  }

  /** The claim has become a reservation, or nothing. */
  releaseHold(): void {
    this.space.promised -= this.#held;
    this.#held = 0;
  }

  // --------------------------------------------------------------------------- StateEffects

  created(object: PoolObject, source: PoolObject | null): void {
    this.releaseHold();
    this.space.created(object, source);
    this.replicas.set(object.id, new Replica(this, object));
  }

  deleted(object: PoolObject): void {
    this.space.deleted(object);
    this.replicas.delete(object.id);
    this.cleaner.reap();
  }

  mapWillChange(object: PoolObject): void {
    this.checkpointer.source?.mapWillChange(object);
  }

  mapped(object: PoolObject, index: number, before: number, cluster: number): void {
    this.space.mapped(object, index, before, cluster);
  }

  intentsWillChange(object: PoolObject): void {
    this.checkpointer.source?.intentsWillChange(object);
  }

  changed(object: PoolObject): void {
    this.releaseHold();
    this.space.updateReserve(object);
    this.replicas.get(object.id)?.onChanged();
  }

  tainted(): void {}

  zeroed(): void {}

  ended(): void {}
}
