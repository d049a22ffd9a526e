/** Replicas, snapshots and clones of the pools of one reactor. */
import { CRC32C_START, crc32cFinish, crc32cUpdate } from "../../../ffi/index.ts";
import { ioError, TrilithError } from "../../errors.ts";
import { type Bdev, bdevBytes } from "../bdev/bdev.ts";
import { clusterAllocation } from "../nbd/extents.ts";
import { deviceIo, takeBuffer } from "../nexus/child-io.ts";
import type { Pool, Replica } from "../pool/index.ts";
import { IoFlag, IoOp } from "../reactor/io-table.ts";
import { BUFFER_BYTES_MAX } from "../reactor/limits.ts";
import type { Replica as ReplicaBody, Snapshot as SnapshotBody } from "../rpc/replicas.ts";
import { Serial } from "../serial.ts";
import type { ShardMethods } from "./methods.ts";
import { Pools, type PoolUser, poolStateOf } from "./pools.ts";
import { mayLack, ReplicaAccess } from "./replica-access.ts";
import type { ShardContext } from "./shard.ts";
import type { Shares } from "./shares.ts";

type ReplicaMethods = Pick<
  ShardMethods,
  | "createReplica"
  | "destroyReplica"
  | "listReplicas"
  | "getReplica"
  | "resizeReplica"
  | "setReplicaAttributes"
  | "shareReplicaNvmf"
  | "shareReplicaNbd"
  | "unshareReplica"
  | "wipeReplica"
  | "createSnapshot"
  | "destroySnapshot"
  | "listSnapshots"
  | "getSnapshot"
  | "createClone"
  | "listClones"
>;

type Create = Parameters<ReplicaMethods["createReplica"]>[0];

/** Bytes zeroed by one request of a wipe. */
const WIPE_BYTES = 64 << 20;

/** Result of `make`, or of `confirm` when the thing exists already as asked for. */
async function madeOrConfirmed<T>(make: () => Promise<T>, confirm: () => T): Promise<T> {
  try {
    return await make();
  } catch (error) {
    if (error instanceof TrilithError && error.code === "AlreadyExists") return confirm();
    throw error;
  }
}

export class Replicas implements PoolUser {
  readonly methods: ReplicaMethods;
  readonly pools: Pools;
  readonly #context: ShardContext;
  readonly #shares: Shares;
  readonly #serial = new Serial();
  /** Who may use each replica of an open pool; made when it is asked for. */
  readonly #access = new WeakMap<Replica, ReplicaAccess>();

  constructor(context: ShardContext, shares: Shares) {
    this.#context = context;
    this.#shares = shares;
    this.pools = new Pools(context, this);
    const serially = <T>(uuid: string, work: () => Promise<T>): Promise<T> =>
      this.#serial.run(uuid, work);
    this.methods = {
      createReplica: (request) => serially(request.uuid, () => this.#create(request)),
      destroyReplica: ({ uuid }) => serially(uuid, () => this.#destroy(uuid)),
      listReplicas: async ({ poolName, entityId }) =>
        this.#each(poolName, (pool) => pool.replicas())
          .filter(
            ({ replica }) => entityId === undefined || replica.attributes.entityId === entityId,
          )
          .map((found) => this.describe(found)),
      getReplica: async ({ uuid }) => this.describe(this.#replica(uuid)),
      resizeReplica: ({ uuid, sizeBytes }) =>
        this.#changed(uuid, (pool) => pool.resize(uuid, sizeBytes)),
      setReplicaAttributes: ({ uuid, name, entityId, volumeUuid, thin }) =>
        this.#changed(uuid, (pool) =>
          pool.setAttributes(uuid, {
            ...(name === undefined ? {} : { name }),
            ...(entityId === undefined ? {} : { entityId }),
            ...(volumeUuid === undefined ? {} : { volumeUuid }),
            ...(thin === undefined ? {} : { thin }),
          }),
        ),
      shareReplicaNvmf: ({ uuid, allowedHosts }) =>
        this.#changed(uuid, (pool, replica) => this.#shareNvmf(pool, replica, allowedHosts)),
      shareReplicaNbd: ({ uuid, ...options }) =>
        this.#changed(uuid, (pool, replica) => {
          const allocation = clusterAllocation(replica, pool.clusterBytes);
          return this.#shares.nbd(replica, uuid, options, allocation);
        }),
      unshareReplica: ({ uuid, protocol }) =>
        this.#changed(uuid, async (pool, replica) => {
          await this.#shares.unshare(replica, protocol);
          if (protocol === "nvmf") await pool.setAttributes(uuid, { share: "none" });
        }),
      wipeReplica: ({ uuid, method }) => this.#wipe(uuid, method),
      ...this.#snapshotMethods(serially),
    };
  }

  #snapshotMethods(serially: <T>(uuid: string, work: () => Promise<T>) => Promise<T>) {
    return {
      createSnapshot: (request) =>
        serially(request.sourceUuid, async () => {
          const { uuid, sourceUuid, name = uuid, txnId = "", entityId = "" } = request;
          const { pool } = this.#replica(sourceUuid);
          const createdAtMs = request.createdAtMs ?? this.#context.clockMs();
          const replica = await madeOrConfirmed(
            () => pool.createSnapshot(sourceUuid, { uuid, name, txnId, entityId, createdAtMs }),
            () => pool.get(uuid),
          );
          return this.#describeSnapshot({ pool, replica });
        }),
      destroySnapshot: ({ uuid }) =>
        serially(uuid, async () => {
          const { pool } = this.#snapshot(uuid);
          await pool.delete(uuid);
          return undefined;
        }),
      listSnapshots: async ({ poolName, sourceUuid }) =>
        this.#each(poolName, (pool) => pool.snapshots())
          .filter(
            ({ replica }) =>
              sourceUuid === undefined || replica.attributes.sourceUuid === sourceUuid,
          )
          .map((found) => this.#describeSnapshot(found)),
      getSnapshot: async ({ uuid }) => this.#describeSnapshot(this.#snapshot(uuid)),
      createClone: (request) =>
        serially(request.cloneUuid, async () => {
          const { uuid, cloneUuid, name = cloneUuid, entityId, volumeUuid } = request;
          const { pool } = this.#snapshot(uuid);
          const attributes = {
            ...(entityId === undefined ? {} : { entityId }),
            ...(volumeUuid === undefined ? {} : { volumeUuid }),
          };
          const replica = await madeOrConfirmed(
            () => pool.createClone(uuid, { uuid: cloneUuid, name, attributes }),
            () => pool.get(cloneUuid),
          );
          return this.describe({ pool, replica });
        }),
      listClones: async ({ uuid }) => {
        const { pool } = this.#snapshot(uuid);
        return this.#clonesOf(pool, uuid).map((replica) => this.describe({ pool, replica }));
      },
    } satisfies Partial<ReplicaMethods>;
  }

  // ------------------------------------------------------------------------------------- finding

  /** True when a pool of this reactor has a replica or snapshot with this UUID. */
  has(uuid: string): boolean {
    return this.pools.findReplica(uuid) !== undefined;
  }

  /** A replica or clone; `NotFound` otherwise. */
  get(uuid: string): Replica {
    return this.#replica(uuid).replica;
  }

  #replica(uuid: string): { readonly pool: Pool; readonly replica: Replica } {
    const found = this.pools.findReplica(uuid);
    if (found !== undefined && found.replica.kind !== "Snapshot") return found;
    throw new TrilithError("NotFound", `there is no replica ${uuid}`);
  }

  #snapshot(uuid: string): { readonly pool: Pool; readonly replica: Replica } {
    const found = this.pools.findReplica(uuid);
    if (found?.replica.kind === "Snapshot") return found;
    throw new TrilithError("NotFound", `there is no snapshot ${uuid}`);
  }

  #each(poolName: string | undefined, of: (pool: Pool) => Replica[]) {
    const pools = this.pools
      .all()
      .filter((pool) => poolName === undefined || pool.name === poolName);
    return pools.flatMap((pool) => of(pool).map((replica) => ({ pool, replica })));
  }

  #clonesOf(pool: Pool, snapshotUuid: string): Replica[] {
    return pool.replicas().filter(({ attributes }) => attributes.sourceUuid === snapshotUuid);
  }

  // ------------------------------------------------------------------------------------ changing

  async #create(request: Create): Promise<ReplicaBody> {
    const { uuid, name = uuid, sizeBytes, thin, entityId, volumeUuid } = request;
    const pool = this.pools.get(request.poolName);
    const attributes = {
      ...(entityId === undefined ? {} : { entityId }),
      ...(volumeUuid === undefined ? {} : { volumeUuid }),
    };
    const replica = await madeOrConfirmed(
      () => pool.createReplica({ uuid, name, sizeBytes, thin, attributes }),
      () => pool.get(uuid),
    );
    if (request.share === "nvmf") await this.#shareNvmf(pool, replica, request.allowedHosts);
    return this.describe({ pool, replica });
  }

  /** Carries a change out, after others of the same replica, and reports what it is now. */
  #changed(
    uuid: string,
    change: (pool: Pool, replica: Replica) => Promise<void>,
  ): Promise<ReplicaBody> {
    return this.#serial.run(uuid, async () => {
      const found = this.#replica(uuid);
      await change(found.pool, found.replica);
      return this.describe(found);
    });
  }

  async #shareNvmf(pool: Pool, replica: Replica, hosts: readonly string[] | undefined) {
    await this.#serve(pool, replica, hosts);
    // Remembered in the pool, so that it is served again when the pool is imported.
    await pool.setAttributes(replica.uuid, { share: "nvmf", allowedHosts: hosts ?? [] });
  }

  async #serve(pool: Pool, replica: Replica, hosts: readonly string[] | undefined): Promise<void> {
    const access = this.accessTo(pool, replica);
    await this.#shares.nvmf(
      replica,
      replica.uuid,
      { ...(hosts === undefined ? {} : { allowedHosts: [...hosts] }) },
      { thin: replica.thin, reservations: access.reservations, vendor: access },
    );
  }

  /** Who may use a replica. */
  accessTo(pool: Pool, replica: Replica): ReplicaAccess {
    let access = this.#access.get(replica);
    if (access === undefined) {
      access = new ReplicaAccess(this.#context, pool, replica);
      this.#access.set(replica, access);
    }
    return access;
  }

  #claimantOf(replica: Replica): string | null {
    return this.#access.get(replica)?.claimedBy ?? null;
  }

  #assertUnclaimed(replica: Replica, what: string): void {
    const nexus = this.#claimantOf(replica);
    if (nexus === null) return;
    throw new TrilithError(
      "InUse",
      `replica ${replica.uuid} is a child of nexus ${nexus}: it cannot be ${what}`,
      "remove it from the nexus first",
    );
  }

  async #destroy(uuid: string): Promise<undefined> {
    const { pool, replica } = this.#replica(uuid);
    this.#assertUnclaimed(replica, "destroyed");
    await this.#shares.unshareAll(replica);
    await pool.delete(uuid);
    return undefined;
  }

  // ---------------------------------------------------------------------------------- all bytes

  async #wipe(uuid: string, method: "none" | "write-zeroes" | "checksum") {
    const { replica } = this.#replica(uuid);
    if (method === "none") return { wipedBytes: 0, checksum: null };
    if (method === "checksum") {
      return { wipedBytes: 0, checksum: await checksumOf(replica) };
    }
    this.#assertUnclaimed(replica, "wiped");
    if (this.#shares.sharesOf(replica).length > 0) {
      throw new TrilithError("InUse", `replica ${uuid} is shared`, "unshare it first");
    }
    const bytes = bdevBytes(replica);
    for (let at = 0; at < bytes; at += WIPE_BYTES) {
      const length = Math.min(WIPE_BYTES, bytes - at);
      const status = await deviceIo(replica, IoOp.WRITE_ZEROES, at, length, -1, IoFlag.UNMAP);
      if (status !== 0) throw ioError(status, `wiping replica ${uuid} at byte ${at}`);
    }
    const flushed = await deviceIo(replica, IoOp.FLUSH, 0, 0, -1, 0);
    if (flushed !== 0) throw ioError(flushed, `flushing replica ${uuid}`);
    return { wipedBytes: bytes, checksum: null };
  }

  // ---------------------------------------------------------------------- opening and closing pools

  async poolOpened(pool: Pool): Promise<void> {
    for (const replica of pool.replicas()) {
      const { share, allowedHosts } = replica.attributes;
      if (share !== "nvmf") continue;
      try {
        await this.#serve(pool, replica, allowedHosts.length === 0 ? undefined : allowedHosts);
      } catch (error) {
        if (!(error instanceof TrilithError)) throw error;
        // The pool is open all the same; whoever misses the share asks for it and gets the reason.
        const fields = { replica: replica.uuid, reason: error.message };
        this.#context.log("error", "replica cannot be shared again", fields);
      }
    }
  }

  assertIdle(pool: Pool): void {
    for (const replica of pool.replicas()) {
      this.#assertUnclaimed(replica, `taken away with its pool ${pool.name}`);
    }
  }

  async poolCloses(pool: Pool): Promise<void> {
    for (const replica of pool.replicas()) await this.#shares.unshareAll(replica);
  }

  // ----------------------------------------------------------------------------------- reporting

  describe({ pool, replica }: { readonly pool: Pool; readonly replica: Replica }): ReplicaBody {
    const { attributes } = replica;
    const shares = this.#shares.sharesOf(replica);
    const { clusterBytes, ...space } = pool.usage(replica);
    return {
      uuid: replica.uuid,
      name: replica.name,
      poolName: pool.name,
      poolUuid: pool.uuid,
      kind: replica.kind === "Regular" ? "regular" : "clone",
      state: poolStateOf(pool),
      sizeBytes: replica.sizeBytes,
      blockSize: replica.blockSize,
      thin: replica.thin,
      entityId: attributes.entityId,
      snapshotUuid: attributes.sourceUuid === "" ? null : attributes.sourceUuid,
      uri: shares.find(({ protocol }) => protocol === "nvmf")?.uri ?? replica.uri,
      shares,
      claimedBy: this.#claimantOf(replica),
      space: { ...space, clusterSizeBytes: clusterBytes },
      sync: {
        volumeUuid: attributes.volumeUuid,
        epoch: attributes.epoch,
        generation: attributes.healthGeneration,
        baseGeneration: attributes.dirtyBaseGeneration,
        clean: attributes.clean,
        mayLack: mayLack(attributes, this.#context.options.bootId),
        dirtyRegions: replica.intent.dirtyCount,
      },
      reactor: this.#context.reactor.index,
    };
  }

  #describeSnapshot({ pool, replica }: { pool: Pool; replica: Replica }): SnapshotBody {
    const { attributes } = replica;
    return {
      uuid: replica.uuid,
      name: replica.name,
      sourceUuid: attributes.sourceUuid,
      poolName: pool.name,
      poolUuid: pool.uuid,
      sizeBytes: replica.sizeBytes,
      txnId: attributes.txnId,
      entityId: attributes.entityId,
      createdAtMs: attributes.createdAtMs,
      ...pool.snapshotUsage(replica),
      clones: this.#clonesOf(pool, replica.uuid).map((clone) => clone.uuid),
      reactor: this.#context.reactor.index,
    };
  }
}

/** CRC32C of all bytes of a device: read in pieces, the next one under way while one is summed. */
async function checksumOf(bdev: Bdev): Promise<number> {
  const { arena } = bdev.reactor;
  const bytes = bdevBytes(bdev);
  const buffers: number[] = [];
  for (let i = 0; i < 2; i++) buffers.push(await takeBuffer(bdev.reactor, BUFFER_BYTES_MAX));
  const lengthAt = (at: number): number => Math.min(BUFFER_BYTES_MAX, bytes - at);
  const read = (at: number, buffer: number): Promise<number> =>
    deviceIo(bdev, IoOp.READ, at, lengthAt(at), buffer, IoFlag.BACKGROUND);
  let state = CRC32C_START;
  try {
    let [mine, other] = [buffers[0]!, buffers[1]!];
    let underWay = read(0, mine);
    for (let at = 0; at < bytes; at += BUFFER_BYTES_MAX) {
      const status = await underWay;
      const next = at + BUFFER_BYTES_MAX;
      if (status === 0 && next < bytes) underWay = read(next, other);
      if (status !== 0) throw ioError(status, `reading ${bdev.name} at byte ${at}`);
      state = crc32cUpdate(state, arena.address + mine, lengthAt(at));
      [mine, other] = [other, mine];
    }
  } finally {
    for (const buffer of buffers) arena.free(buffer);
  }
  return crc32cFinish(state) >>> 0;
}
