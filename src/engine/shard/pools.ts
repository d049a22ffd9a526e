/** Pools of one reactor: made, imported, exported, grown and reported. */
import { TrilithError } from "../../errors.ts";
import type { Bdev } from "../bdev/bdev.ts";
import { parseBdevUri } from "../bdev/uri.ts";
import {
  checkPool,
  createPool,
  importPool,
  type Pool,
  type PoolHealth,
  type Replica,
} from "../pool/index.ts";
import type { Pool as PoolBody, PoolCheck } from "../rpc/pools.ts";
import { Serial } from "../serial.ts";
import { DiskCheck } from "./disk-check.ts";
import { DiskWatch, Flaps } from "./disk-watch.ts";
import { POOLS_MAX } from "./limits.ts";
import type { ShardMethods } from "./methods.ts";
import { openDevice } from "./open-device.ts";
import type { ShardContext } from "./shard.ts";

type PoolMethods = Pick<
  ShardMethods,
  | "createPool"
  | "importPool"
  | "exportPool"
  | "destroyPool"
  | "growPool"
  | "listPools"
  | "getPool"
  | "checkPool"
>;

/** What happens to the replicas of a pool that opens or closes. */
export interface PoolUser {
  /** The pool is open: what was shared before is shared again. */
  poolOpened(pool: Pool): Promise<void>;
  /** Throws `InUse` when the pool may not be closed now. */
  assertIdle(pool: Pool): void;
  /** The pool is about to close: nothing of it may be served any more. */
  poolCloses(pool: Pool): Promise<void>;
}

interface Open {
  readonly pool: Pool;
  /** URI of the disk as it was asked for. */
  readonly disk: string;
  readonly check: DiskCheck;
  /** Set while the pool has failed. */
  watch: DiskWatch | null;
}

export type PoolState = PoolBody["state"];

const states: Record<PoolHealth["status"], PoolState> = {
  Online: "online",
  Degraded: "degraded",
  Faulted: "faulted",
  Offline: "offline",
};

export function poolStateOf(pool: Pool): PoolState {
  return states[pool.health.status];
}

/** Nothing can be done with it until it is imported anew. */
export function hasFailed(pool: Pool): boolean {
  const { status } = pool.health;
  return status === "Faulted" || status === "Offline";
}

export class Pools {
  /** Told of each pool that was opened, and its disk. */
  onOpened: (pool: Pool) => void = () => {};
  readonly methods: PoolMethods;
  readonly #context: ShardContext;
  readonly #user: PoolUser;
  readonly #open = new Map<string, Open>();
  readonly #serial = new Serial();
  readonly #flaps: Flaps;

  constructor(context: ShardContext, user: PoolUser) {
    this.#context = context;
    this.#user = user;
    this.#flaps = new Flaps(context.options.diskSteadyMs);
    const serially = <T>(name: string, work: () => Promise<T>): Promise<T> =>
      this.#serial.run(name, work);
    this.methods = {
      createPool: (request) => serially(request.name, () => this.#create(request)),
      importPool: (request) => serially(request.name, () => this.#import(request)),
      exportPool: ({ name }) => serially(name, () => this.#close(name, (pool) => pool.export())),
      destroyPool: ({ name }) => serially(name, () => this.#close(name, (pool) => pool.destroy())),
      growPool: ({ name }) => serially(name, () => this.#grow(name)),
      listPools: async ({ name, uuid }) =>
        [...this.#open.values()]
          .map(({ pool }) => this.#describe(pool))
          .filter((body) => name === undefined || body.name === name)
          .filter((body) => uuid === undefined || body.uuid === uuid),
      getPool: async ({ name }) => this.#describe(this.get(name)),
      checkPool: ({ disk }) => this.#check(disk),
    };
  }

  get count(): number {
    return this.#open.size;
  }

  has(name: string): boolean {
    return this.#open.has(name);
  }

  all(): Pool[] {
    return [...this.#open.values()].map(({ pool }) => pool);
  }

  /** An open pool; `NotFound` otherwise. */
  get(name: string): Pool {
    const open = this.#open.get(name);
    if (open === undefined) throw new TrilithError("NotFound", `there is no pool "${name}"`);
    return open.pool;
  }

  /** The replica or snapshot with this UUID in any pool. */
  findReplica(uuid: string): { readonly pool: Pool; readonly replica: Replica } | undefined {
    for (const { pool } of this.#open.values()) {
      const replica = pool.find(uuid);
      if (replica !== undefined) return { pool, replica };
    }
    return undefined;
  }

  async #openDisk(disk: string, what: string): Promise<Bdev> {
    const uri = parseBdevUri(disk);
    if (uri.driver === "bdev") {
      throw new TrilithError(
        "InvalidArgument",
        `disk "${disk}" names a device that is open already`,
        "use the URI of the device itself",
      );
    }
    return openDevice(this.#context, uri, what);
  }

  /** The pool of that name that is open, when it is what was asked for; `Conflict` when it is not. */
  #confirmed(request: {
    readonly name: string;
    readonly disks: readonly string[];
    readonly uuid?: string | undefined;
    readonly clusterSizeBytes?: number | undefined;
  }): Pool | undefined {
    const open = this.#open.get(request.name);
    if (open === undefined) return undefined;
    const { pool, disk } = open;
    const [asked] = request.disks;
    const isSame =
      (asked === disk || asked === pool.bdev.uri || asked === pool.bdev.name) &&
      (request.uuid === undefined || request.uuid === pool.uuid) &&
      (request.clusterSizeBytes === undefined || request.clusterSizeBytes === pool.clusterBytes);
    if (isSame) return pool;
    throw new TrilithError(
      "Conflict",
      `pool "${request.name}" is open with other parameters (${pool.uuid} on ${disk})`,
      "choose another name, or ask for it with the same parameters",
    );
  }

  async #create(request: Parameters<PoolMethods["createPool"]>[0]): Promise<PoolBody> {
    const confirmed = this.#confirmed(request);
    if (confirmed !== undefined) return this.#describe(confirmed);
    const { name, uuid, clusterSizeBytes, force } = request;
    return this.#enter(request.disks[0]!, `creating pool ${name}`, (bdev) =>
      createPool(bdev, {
        name,
        force,
        ...(uuid === undefined ? {} : { uuid }),
        ...(clusterSizeBytes === undefined ? {} : { clusterBytes: clusterSizeBytes }),
      }),
    );
  }

  async #import(request: Parameters<PoolMethods["importPool"]>[0]): Promise<PoolBody> {
    const confirmed = this.#confirmed(request);
    const { name, uuid } = request;
    if (confirmed !== undefined) {
      if (!hasFailed(confirmed)) return this.#describe(confirmed);
      await this.#close(name, (pool) => pool.export());
    }
    return this.#enter(request.disks[0]!, `importing pool ${name}`, (bdev) =>
      importPool(bdev, { name, ...(uuid === undefined ? {} : { uuid }) }),
    );
  }

  /** Opens a disk, has `open` make a pool of it, and takes the pool into service. */
  async #enter(disk: string, what: string, open: (bdev: Bdev) => Promise<Pool>): Promise<PoolBody> {
    if (this.#open.size >= POOLS_MAX) {
      throw new TrilithError("ResourceExhausted", `${POOLS_MAX} pools are open on a reactor`);
    }
    const bdev = await this.#openDisk(disk, what);
    const { reactor } = this.#context;
    let pool: Pool;
    reactor.activity = what;
    try {
      pool = await open(bdev);
    } catch (error) {
      await bdev.close();
      throw error;
    } finally {
      reactor.activity = "";
    }
    const opened: Open = { pool, disk, check: new DiskCheck(this.#context, pool), watch: null };
    this.#open.set(pool.name, opened);
    this.onOpened(pool);
    pool.onHealth(({ status, reason }) => {
      this.#context.log("warn", "pool health changed", { pool: pool.name, status, reason });
      if (status === "Online") return;
      this.#watchFailed(opened);
      const fields = { status: states[status] };
      this.#context.event({
        kind: "pool-faulted",
        subject: pool.name,
        message: reason,
        fields,
      });
    });
    this.#watchFailed(opened);
    await this.#user.poolOpened(pool);
    return this.#describe(pool);
  }

  /** Begins to look for the disk of a pool that has failed. */
  #watchFailed(open: Open): void {
    const { pool, disk } = open;
    if (!hasFailed(pool) || open.watch !== null || this.#open.get(pool.name) !== open) return;
    const steadyMs = this.#flaps.failed(pool.uuid, this.#context.reactor.now);
    open.watch = new DiskWatch(this.#context, pool, disk, steadyMs);
  }

  async #endWatch(open: Open | undefined): Promise<void> {
    open?.check.stop();
    await open?.watch?.stop();
  }

  async #close(name: string, end: (pool: Pool) => Promise<void>): Promise<undefined> {
    const pool = this.get(name);
    // Of a pool that has failed nobody has anything any more.
    if (!hasFailed(pool)) this.#user.assertIdle(pool);
    await this.#endWatch(this.#open.get(name));
    await this.#user.poolCloses(pool);
    this.#open.delete(name);
    await end(pool);
    return undefined;
  }

  async #grow(name: string): Promise<{ previous: PoolBody; current: PoolBody }> {
    const pool = this.get(name);
    const previous = this.#describe(pool);
    await pool.grow();
    return { previous, current: this.#describe(pool) };
  }

  async #check(disk: string): Promise<PoolCheck> {
    const bdev = await this.#openDisk(disk, `checking the pool on ${disk}`);
    try {
      const { clusterBytes, ...report } = await checkPool(bdev);
      return {
        ...report,
        clusterSizeBytes: clusterBytes,
        structures: [...report.structures],
        replicas: [...report.replicas],
        errors: [...report.errors],
        warnings: [...report.warnings],
      };
    } finally {
      await bdev.close();
    }
  }

  #describe(pool: Pool): PoolBody {
    const info = pool.info();
    const watch = this.#open.get(info.name)?.watch ?? null;
    return {
      name: info.name,
      uuid: info.uuid,
      disks: [info.diskUri],
      state: states[info.health.status],
      stateReason: info.health.reason,
      ...(watch === null ? {} : { disk: watch.state }),
      readErrors: info.health.readErrors,
      writeErrors: info.health.writeErrors,
      metadataErrors: info.health.metadataErrors,
      blockSize: info.blockSize,
      clusterSizeBytes: info.clusterBytes,
      capacityBytes: info.capacityBytes,
      usedBytes: info.usedBytes,
      committedBytes: info.committedBytes,
      metadataBytes: info.metadataBytes,
      diskCapacityBytes: info.diskBytes,
      replicas: info.replicaCount,
      snapshots: info.snapshotCount,
      reactor: this.#context.reactor.index,
    };
  }

  /** Exports every pool; front ends and nexuses have ended before. */
  async closeAll(): Promise<void> {
    await Promise.all(
      [...this.#open.values()].map(async (open) => {
        await this.#endWatch(open);
        await open.pool.export();
      }),
    );
    this.#open.clear();
  }
}
