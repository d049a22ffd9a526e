/** An open pool: what its owner can ask of it. */
import { TrilithError } from "../../errors.ts";
import { type Bdev, bdevBytes } from "../bdev/bdev.ts";
import { isUuid } from "../bdev/uri.ts";
import type { Reactor } from "../reactor/reactor.ts";
import { checkDisk, type DiskAnswer, diskAnswer } from "./answer.ts";
import { type Attributes, checkName, encodeAttributes, mergeAttributes } from "./attributes.ts";
import type { PoolCore, PoolHealth } from "./core.ts";
import { must } from "./device.ts";
import { Geometry } from "./geometry.ts";
import { objectCheckpointBytes } from "./layout.ts";
import { NAME_BYTES_MAX, OBJECT_CLUSTERS_MAX, OBJECTS_MAX } from "./limits.ts";
import {
  type AttributeMap,
  attributeBytes,
  KIND_REPLICA,
  KIND_SNAPSHOT,
  RecordEncoder,
} from "./records.ts";
import type { Replica } from "./replica.ts";
import type { PoolObject } from "./state.ts";
import {
  replicaUsage,
  type SnapshotUsage,
  type SpaceUsage,
  snapshotsOf,
  snapshotUsage,
} from "./usage.ts";

/** A replica to be made. */
export interface CreateReplica {
  readonly uuid: string;
  readonly name: string;
  /** A multiple of the block size; the device has exactly this size. */
  readonly sizeBytes: number;
  readonly thin: boolean;
  readonly attributes?: Partial<Attributes>;
}

/** A snapshot to be taken. */
export interface CreateSnapshot {
  readonly uuid: string;
  readonly name: string;
  readonly txnId?: string;
  readonly entityId?: string;
  readonly createdAtMs?: number;
}

/** A clone to be made of a snapshot; it is thin. */
export interface CreateClone {
  readonly uuid: string;
  readonly name: string;
  readonly attributes?: Partial<Attributes>;
}

/** What can be changed about a replica. */
export interface ReplicaChanges extends Partial<Omit<Attributes, "sourceUuid">> {
  /** Making a replica thick needs the room for all of it. */
  readonly thin?: boolean;
}

/** A pool in figures. */
export interface PoolInfo {
  readonly name: string;
  readonly uuid: string;
  readonly diskUri: string;
  readonly health: PoolHealth;
  readonly blockSize: number;
  readonly clusterBytes: number;
  /** Bytes that can hold data. */
  readonly capacityBytes: number;
  /** Bytes that hold data or are reserved for thick replicas. */
  readonly usedBytes: number;
  /** Sizes of all replicas, and what snapshots hold alone. */
  readonly committedBytes: number;
  readonly metadataBytes: number;
  /** Size of the disk. Larger than the pool: it can grow. */
  readonly diskBytes: number;
  readonly replicaCount: number;
  readonly snapshotCount: number;
}

function exists(what: string, same: boolean): TrilithError {
  return same
    ? new TrilithError("AlreadyExists", `${what} exists already`)
    : new TrilithError("Conflict", `${what} exists already with other parameters`);
}

export class Pool {
  readonly bdev: Bdev;
  readonly reactor: Reactor;
  readonly name: string;
  readonly uuid: string;
  readonly clusterBytes: number;
  readonly blockSize: number;
  readonly #core: PoolCore;
  readonly #geometry: Geometry;
  readonly #closeBdev: boolean;
  readonly #unlisten: () => void;
  #isClosed = false;
  #checking: Promise<void> = Promise.resolve();
  /** The end of the queue of control operations. */
  #last: Promise<unknown> = Promise.resolve();

  /** Use `createPool` or `importPool`. */
  constructor(core: PoolCore, closeBdev: boolean) {
    const { superblock } = core;
    this.#core = core;
    this.#geometry = new Geometry(core);
    this.#closeBdev = closeBdev;
    this.bdev = core.bdev;
    this.reactor = core.reactor;
    this.name = superblock.name;
    this.uuid = superblock.uuid;
    this.clusterBytes = superblock.clusterBytes;
    this.blockSize = superblock.blockSize;
    this.#unlisten = core.bdev.listen((event) => {
      if (event.kind === "removed") core.lose(event.reason);
      else if (event.kind === "resized") core.spawn(() => this.#growQuietly());
    });
  }

  // ------------------------------------------------------------------------------------ looking

  get health(): PoolHealth {
    return this.#core.health;
  }

  /** Calls `listener` whenever the status changes; returns the function that takes it off. */
  onHealth(listener: (health: PoolHealth) => void): () => void {
    return this.#core.onHealth(listener);
  }

  /** Asks the disk of a pool that has failed whether it answers again; nothing else writes to it. */
  diskAnswer(): Promise<DiskAnswer> {
    return this.#exclusive(() => {
      if (!this.#core.isFaulted) return Promise.resolve("answers" as const);
      return diskAnswer(this.#core.device, this.uuid);
    });
  }

  /** Reads the superblock: a disk that is gone, or has none any more, faults the pool. Never rejects. */
  checkDisk(): Promise<void> {
    if (this.#core.isFaulted || this.#isClosed) return Promise.resolve();
    this.#checking = checkDisk(this.#core, () => this.#isClosed);
    return this.#checking;
  }

  /** The disk has not answered a read for so long (ms): nothing more is sent to it. */
  diskStalled(forMs: number): void {
    if (this.#core.isFaulted || this.#isClosed) return;
    const text = `it has not answered for ${Math.round(forMs / 1000)} s`;
    this.#core.failMetadata(new Error(text), `the disk ${this.bdev.name}`);
  }

  /** True once the pool was exported or destroyed. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  info(): PoolInfo {
    const { space, state, superblock } = this.#core;
    let committed = 0;
    let snapshots = 0;
    for (const object of state.objects.values()) {
      if (object.kind === KIND_SNAPSHOT) {
        snapshots++;
        committed += (object.mapped - object.shared) * this.clusterBytes;
      } else committed += object.map.length * this.clusterBytes;
    }
    return {
      name: this.name,
      uuid: this.uuid,
      diskUri: this.bdev.uri,
      health: this.health,
      blockSize: this.blockSize,
      clusterBytes: this.clusterBytes,
      capacityBytes: space.usable * this.clusterBytes,
      usedBytes: (space.usable - space.free + space.reserved) * this.clusterBytes,
      committedBytes: committed,
      metadataBytes: (superblock.clusterCount - space.usable) * this.clusterBytes,
      diskBytes: bdevBytes(this.bdev),
      replicaCount: state.objects.size - snapshots,
      snapshotCount: snapshots,
    };
  }

  /** All replicas (clones among them), without snapshots. */
  replicas(): Replica[] {
    return this.#ofKind(KIND_REPLICA);
  }

  /** All snapshots, or those of one replica. */
  snapshots(of?: Replica): Replica[] {
    if (of === undefined) return this.#ofKind(KIND_SNAPSHOT);
    const { state, replicas } = this.#core;
    return snapshotsOf(state, of.object).map((object) => replicas.get(object.id)!);
  }

  #ofKind(kind: number): Replica[] {
    return [...this.#core.replicas.values()].filter((replica) => replica.object.kind === kind);
  }

  /** The replica or snapshot with this UUID, or undefined. */
  find(uuid: string): Replica | undefined {
    const object = this.#core.state.byUuid.get(uuid);
    return object === undefined ? undefined : this.#core.replicas.get(object.id);
  }

  /** The replica or snapshot with this UUID; throws `NotFound`. */
  get(uuid: string): Replica {
    const replica = this.find(uuid);
    if (replica !== undefined) return replica;
    throw new TrilithError("NotFound", `pool ${this.name} has no replica or snapshot ${uuid}`);
  }

  usage(replica: Replica): SpaceUsage {
    return replicaUsage(this.#core.state, replica.object);
  }

  snapshotUsage(snapshot: Replica): SnapshotUsage {
    return snapshotUsage(this.#core.state, snapshot.object);
  }

  // ----------------------------------------------------------------------------------- changing

  /**
   * Makes a replica; resolves when it is durable. Errors: `InvalidArgument`, `AlreadyExists` (equal)
   * or `Conflict` (different), `NoSpace` (thick: not enough free; or no room for its metadata),
   * `ResourceExhausted` (too many replicas).
   */
  createReplica(request: CreateReplica): Promise<Replica> {
    return this.#exclusive(async () => {
      const { uuid, name, sizeBytes, thin } = request;
      const { state } = this.#core;
      const present = this.find(uuid);
      if (present !== undefined) {
        const same =
          present.kind === "Regular" &&
          present.name === name &&
          present.sizeBytes === sizeBytes &&
          present.thin === thin;
        throw exists(`replica ${uuid}`, same);
      }
      const attributes = this.#checkNew(uuid, { ...request.attributes, name });
      this.#checkSize(sizeBytes);
      await this.#ensureObject(sizeBytes, attributes);
      const clusters = state.clustersOf(sizeBytes);
      if (!thin) this.#hold(clusters, `thick replica ${name}`);
      const id = state.nextId;
      const record = new RecordEncoder().create({
        id,
        kind: KIND_REPLICA,
        thin,
        copyMap: false,
        family: id,
        origin: 0,
        uuid,
        sizeBytes,
        attributes,
      });
      await this.#commit(record, `creating replica ${name}`);
      return this.get(uuid);
    });
  }

  /**
   * Deletes a replica or snapshot and gives its space back. What other snapshots and clones share
   * with it stays theirs: deleting a snapshot that has clones is possible at any time and takes
   * effect at once, so no "discarded" snapshot is ever left to be seen. Requests still sent to it
   * end DEVICE_GONE. Errors: `NotFound`.
   */
  delete(uuid: string): Promise<void> {
    return this.#exclusive(async () => {
      const replica = this.get(uuid);
      if (this.#core.isFaulted) throw this.#core.failure(`deleting ${replica.name}`);
      await replica.close();
      const record = new RecordEncoder(64).delete(replica.object.id);
      await this.#commit(record, `deleting ${replica.name}`);
      replica.tell({ kind: "removed", reason: "deleted" });
    });
  }

  /**
   * Changes attributes; resolves when they are durable. Errors: `InvalidArgument`, `NotFound`,
   * `Conflict` (name taken), `NoSpace` (made thick without the room, or no room for metadata).
   */
  setAttributes(uuid: string, changes: ReplicaChanges): Promise<void> {
    return this.#exclusive(async () => {
      const replica = this.get(uuid);
      replica.mustBeOpen();
      const { object } = replica;
      const { thin, ...rest } = changes;
      if (rest.name !== undefined && rest.name !== replica.name) this.#checkNameFree(rest.name);
      const encoded = encodeAttributes(rest);
      const merged = mergeAttributes(object.attributes, encoded);
      await this.#geometry.ensureRoom(
        objectCheckpointBytes(object.sizeBytes, this.clusterBytes, attributeBytes(merged)),
        object,
      );
      const isThin = object.kind === KIND_SNAPSHOT ? object.thin : (thin ?? object.thin);
      const own = object.mapped - object.shared + object.promised;
      if (object.thin && !isThin) {
        this.#hold(object.map.length - own, `making replica ${replica.name} thick`);
      }
      const record = new RecordEncoder().set(object.id, isThin, encoded);
      await this.#commit(record, `setting attributes of ${replica.name}`);
    });
  }

  /**
   * Grows a replica online. Errors: `InvalidArgument` (smaller, or not whole blocks), `NotFound`,
   * `NoSpace`, `FailedPrecondition` (a snapshot).
   */
  resize(uuid: string, sizeBytes: number): Promise<void> {
    return this.#exclusive(async () => {
      const replica = this.get(uuid);
      const { object } = replica;
      if (object.kind === KIND_SNAPSHOT) {
        throw new TrilithError("FailedPrecondition", `snapshot ${replica.name} cannot be resized`);
      }
      if (sizeBytes === object.sizeBytes) return;
      this.#checkSize(sizeBytes);
      if (sizeBytes < object.sizeBytes) {
        throw new TrilithError(
          "InvalidArgument",
          `replica ${replica.name} has ${object.sizeBytes} bytes and cannot shrink to ${sizeBytes}`,
        );
      }
      await this.#geometry.ensureRoom(
        objectCheckpointBytes(sizeBytes, this.clusterBytes, attributeBytes(object.attributes)),
        object,
      );
      const more = this.#core.state.clustersOf(sizeBytes) - object.map.length;
      if (!object.thin) this.#hold(more, `growing replica ${replica.name}`);
      const record = new RecordEncoder(64).resize(object.id, sizeBytes);
      await this.#commit(record, `resizing replica ${replica.name}`);
    });
  }

  /**
   * Takes a snapshot of a replica: holds its writes, lets those under way end, flushes, writes one
   * record. The snapshot is a device that can be read. A thick replica stays thick: the room to
   * rewrite all of it is reserved anew, or the snapshot fails with `NoSpace`. Errors as
   * `createReplica`, and `NotFound`.
   */
  createSnapshot(replicaUuid: string, request: CreateSnapshot): Promise<Replica> {
    return this.#exclusive(async () => {
      const source = this.get(replicaUuid);
      const { uuid, name } = request;
      const present = this.find(uuid);
      if (present !== undefined) {
        const same = present.name === name && present.attributes.sourceUuid === replicaUuid;
        throw exists(`snapshot ${uuid}`, same && present.kind === "Snapshot");
      }
      this.#mustBeWritable(source);
      const attributes = this.#checkNew(uuid, {
        name,
        txnId: request.txnId ?? "",
        entityId: request.entityId ?? "",
        createdAtMs: request.createdAtMs ?? 0,
        volumeUuid: source.attributes.volumeUuid,
        sourceUuid: source.uuid,
      });
      await this.#ensureObject(source.sizeBytes, attributes);
      await source.hold();
      try {
        const what = `taking snapshot ${name}`;
        must(await this.#core.device.flush(), what);
        this.#pin(source.object, what);
        await this.#copy(source, KIND_SNAPSHOT, uuid, attributes, what);
      } finally {
        this.#unpin(source.object);
        source.unhold();
      }
      return this.get(uuid);
    });
  }

  /** Makes a writable, thin replica of a snapshot. Errors as `createReplica`, and `NotFound`. */
  createClone(snapshotUuid: string, request: CreateClone): Promise<Replica> {
    return this.#exclusive(async () => {
      const snapshot = this.get(snapshotUuid);
      const { uuid, name } = request;
      const present = this.find(uuid);
      if (present !== undefined) {
        const same = present.name === name && present.attributes.sourceUuid === snapshotUuid;
        throw exists(`replica ${uuid}`, same && present.kind === "SnapshotClone");
      }
      if (snapshot.object.kind !== KIND_SNAPSHOT) {
        throw new TrilithError(
          "InvalidArgument",
          `${snapshot.name} is not a snapshot`,
          "take a snapshot of the replica and clone that",
        );
      }
      const attributes = this.#checkNew(uuid, {
        ...request.attributes,
        name,
        sourceUuid: snapshotUuid,
      });
      await this.#ensureObject(snapshot.sizeBytes, attributes);
      const what = `cloning snapshot ${snapshot.name}`;
      await this.#copy(snapshot, KIND_REPLICA, uuid, attributes, what);
      return this.get(uuid);
    });
  }

  /**
   * Takes in what the disk has grown by; returns the capacity then. Happens by itself when the base
   * device tells that it was resized. Errors: `FailedPrecondition` (the disk shrank),
   * `ResourceExhausted` (too many clusters), `NoSpace` (no room for the metadata).
   */
  grow(): Promise<number> {
    return this.#exclusive(async () => {
      await this.#geometry.grow();
      return this.#core.space.usable * this.clusterBytes;
    });
  }

  /** Writes a checkpoint now: the next import has less to replay. */
  checkpoint(): Promise<void> {
    return this.#exclusive(async () => {
      await this.#core.journal.drain();
      await this.#core.checkpointer.take();
      if (this.#core.isFaulted) throw this.#core.failure("writing a checkpoint");
    });
  }

  // ------------------------------------------------------------------------------------- ending

  /**
   * Closes the pool in order: waits for requests, writes a checkpoint, releases the disk. The replicas
   * end further requests with DEVICE_GONE. Also works for a pool that has failed.
   */
  export(): Promise<void> {
    return this.#exclusive(() => this.#close("exported"));
  }

  /** Closes the pool and wipes its superblocks: its disk is free for other use. */
  destroy(): Promise<void> {
    return this.#exclusive(async () => {
      await this.#close("destroyed", async () => {
        if (this.health.status !== "Offline") await this.#geometry.wipe();
      });
    });
  }

  async #close(reason: string, last: () => Promise<void> = () => Promise.resolve()): Promise<void> {
    const core = this.#core;
    this.#unlisten();
    await this.#checking;
    const replicas = [...core.replicas.values()];
    for (const replica of replicas) await replica.close();
    await core.cleaner.stop();
    await core.journal.drain();
    await core.checkpointer.idle();
    if (!core.isFaulted) await core.checkpointer.take();
    this.#isClosed = true;
    try {
      await last();
    } finally {
      core.journal.release();
      core.device.release();
      for (const replica of replicas) replica.tell({ kind: "removed", reason });
      if (this.#closeBdev) await this.bdev.close();
    }
  }

  // ------------------------------------------------------------------------------------- inside

  /** Runs control operations one after the other. */
  #exclusive<T>(operation: () => Promise<T>): Promise<T> {
    const run = this.#last.then(() => {
      if (this.#isClosed) throw new TrilithError("NotFound", `pool ${this.name} is not open`);
      return operation();
    });
    this.#last = run.catch(() => {});
    return run;
  }

  async #growQuietly(): Promise<void> {
    try {
      await this.grow();
    } catch (error) {
      // The pool stays as it is; an explicit `grow` tells the operator why.
      if (!(error instanceof TrilithError)) throw error;
    }
  }

  async #commit(record: RecordEncoder, what: string): Promise<void> {
    try {
      await this.#core.commit(record.bytes, record.at, what);
    } finally {
      this.#core.releaseHold();
    }
  }

  #copy(
    source: Replica,
    kind: number,
    uuid: string,
    attributes: AttributeMap,
    what: string,
  ): Promise<void> {
    const record = new RecordEncoder().create({
      id: this.#core.state.nextId,
      kind,
      thin: true,
      copyMap: true,
      family: source.object.family,
      origin: source.object.id,
      uuid,
      sizeBytes: source.sizeBytes,
      attributes,
    });
    return this.#commit(record, what);
  }

  /** Keeps `clusters` free for the record about to be written; ends when it is applied or failed. */
  #hold(clusters: number, what: string): void {
    this.#mustHave(clusters, what);
    this.#core.hold(clusters);
  }

  /** From now on room to rewrite all of a thick replica is reserved, as after a snapshot. */
  #pin(object: PoolObject, what: string): void {
    if (!object.thin) this.#mustHave(object.mapped - object.shared, what);
    object.pinned = true;
    this.#core.space.updateReserve(object);
  }

  #unpin(object: PoolObject): void {
    object.pinned = false;
    this.#core.space.updateReserve(object);
  }

  #mustHave(clusters: number, what: string): void {
    const { available } = this.#core.space;
    if (clusters <= available) return;
    throw new TrilithError(
      "NoSpace",
      `pool ${this.name} lacks ${(clusters - available) * this.clusterBytes} bytes for ${what}`,
      "grow the pool, delete or move replicas or snapshots, or use a thin replica",
    );
  }

  #ensureObject(sizeBytes: number, attributes: AttributeMap): Promise<void> {
    const bytes = objectCheckpointBytes(sizeBytes, this.clusterBytes, attributeBytes(attributes));
    return this.#geometry.ensureRoom(bytes, null);
  }

  #checkNew(uuid: string, given: Partial<Attributes>): AttributeMap {
    const { state } = this.#core;
    if (this.#core.isFaulted) throw this.#core.failure("creating a replica or snapshot");
    if (!isUuid(uuid)) throw new TrilithError("InvalidArgument", `"${uuid}" is not a UUID`);
    this.#checkNameFree(given.name ?? "");
    if (state.objects.size >= OBJECTS_MAX) {
      throw new TrilithError(
        "ResourceExhausted",
        `pool ${this.name} has ${OBJECTS_MAX} replicas and snapshots, the most possible`,
        "delete snapshots, or use another pool",
      );
    }
    return mergeAttributes(new Map(), encodeAttributes(given));
  }

  #checkNameFree(name: string): void {
    checkName(`name (at most ${NAME_BYTES_MAX} bytes)`, name);
    for (const replica of this.#core.replicas.values()) {
      if (replica.name === name) {
        throw new TrilithError("Conflict", `pool ${this.name} has a replica or snapshot ${name}`);
      }
    }
  }

  #checkSize(sizeBytes: number): void {
    const { state } = this.#core;
    if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes % this.blockSize !== 0) {
      throw new TrilithError(
        "InvalidArgument",
        `size ${sizeBytes} is not a positive multiple of ${this.blockSize} bytes`,
      );
    }
    if (state.clustersOf(sizeBytes) > OBJECT_CLUSTERS_MAX) {
      throw new TrilithError(
        "ResourceExhausted",
        `a replica of ${sizeBytes} bytes has more than ${OBJECT_CLUSTERS_MAX} clusters`,
        "use a pool with a larger cluster size",
      );
    }
  }

  #mustBeWritable(replica: Replica): void {
    replica.mustBeOpen();
    if (this.#core.isFaulted) throw this.#core.failure(`using replica ${replica.name}`);
    if (replica.object.kind === KIND_SNAPSHOT) {
      throw new TrilithError("InvalidArgument", `${replica.name} is a snapshot already`);
    }
  }

  /** The inside, for tests of its invariants. */
  get core(): PoolCore {
    return this.#core;
  }
}
