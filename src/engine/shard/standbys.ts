/**
 * Standbys of one reactor: subsystems of volumes whose nexus is elsewhere. A standby has the volume's
 * identity and size over a device that takes nothing. When the nexus comes to this reactor the same
 * subsystem goes on over it, and when the nexus leaves in order the subsystem can stay as a standby: hosts
 * keep their connections either way and hear of it by the change of the ANA state.
 */
import { assert } from "../../assert.ts";
import { IoStatus, TrilithError } from "../../errors.ts";
import { nqnOf } from "../../names.ts";
import { type Bdev, type BdevListener, BdevListeners } from "../bdev/bdev.ts";
import { CHILDREN_MAX } from "../nexus/limits.ts";
import type { Reactor } from "../reactor/reactor.ts";
import type { ShareNvmf } from "../rpc/shares.ts";
import type { Standby as StandbyBody } from "../rpc/standbys.ts";
import { Serial } from "../serial.ts";
import { STANDBYS_MAX } from "./limits.ts";
import type { ShardMethods } from "./methods.ts";
import type { ShardContext } from "./shard.ts";
import { CONTROLLER_IDS, type Shares } from "./shares.ts";

type StandbyMethods = Pick<ShardMethods, "createStandby" | "listStandbys" | "removeStandby">;
type Create = Parameters<StandbyMethods["createStandby"]>[0];

/**
 * What stands in for the volume's device. Requests that reach it all the same (they had passed the look
 * at the ANA state) end UNAVAILABLE, which sends hosts to another path.
 */
class StandbyDevice implements Bdev {
  readonly driver = "standby";
  readonly synchronous = false;
  readonly discardZeroes = false;
  readonly volatileCache = true;
  readonly reactor: Reactor;
  readonly uuid: string;
  readonly blockSize: number;
  /**
   * Queues that are connected here keep this number when a nexus takes over: what one needs whose
   * children are on other nodes but one, as many as there can be.
   */
  readonly slotsPerIo = CHILDREN_MAX + 4;
  readonly #listeners = new BdevListeners();
  #blockCount: number;

  constructor(reactor: Reactor, volumeUuid: string, sizeBytes: number, blockSize: number) {
    this.reactor = reactor;
    this.uuid = volumeUuid;
    this.blockSize = blockSize;
    this.#blockCount = sizeBytes / blockSize;
  }

  get name(): string {
    return `standby-${this.uuid}`;
  }

  get uri(): string {
    return `standby:///${this.uuid}`;
  }

  get blockCount(): number {
    return this.#blockCount;
  }

  resize(sizeBytes: number): void {
    const blockCount = sizeBytes / this.blockSize;
    if (blockCount === this.#blockCount) return;
    this.#blockCount = blockCount;
    this.#listeners.tell({ kind: "resized", blockCount });
  }

  submit(slot: number): void {
    this.reactor.io.complete(slot, IoStatus.UNAVAILABLE);
  }

  listen(listener: BdevListener): () => void {
    return this.#listeners.add(listener);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

interface Standby {
  readonly device: StandbyDevice;
  readonly share: ShareNvmf;
}

export class Standbys {
  readonly methods: StandbyMethods;
  readonly #context: ShardContext;
  readonly #shares: Shares;
  readonly #standbys = new Map<string, Standby>();
  readonly #serial = new Serial();

  constructor(context: ShardContext, shares: Shares) {
    this.#context = context;
    this.#shares = shares;
    this.methods = {
      createStandby: (request) => this.#serial.run(request.volumeUuid, () => this.#create(request)),
      listStandbys: async () =>
        [...this.#standbys.values()].map((standby) => this.#describe(standby)),
      removeStandby: ({ volumeUuid }) =>
        this.#serial.run(volumeUuid, () => this.#remove(volumeUuid)),
    };
  }

  get count(): number {
    return this.#standbys.size;
  }

  has(volumeUuid: string): boolean {
    return this.#standbys.has(volumeUuid);
  }

  async #create(request: Create): Promise<StandbyBody> {
    const { volumeUuid, sizeBytes, blockSize, allowedHosts, controllerIds } = request;
    if (sizeBytes % blockSize !== 0) {
      const what = `${sizeBytes} bytes are not whole blocks of ${blockSize}`;
      throw new TrilithError("InvalidArgument", `standby of ${volumeUuid}: ${what}`);
    }
    const share: ShareNvmf = {
      ...(allowedHosts === undefined ? {} : { allowedHosts }),
      ...(controllerIds === undefined ? {} : { controllerIds }),
      anaState: "inaccessible",
    };
    let present = this.#standbys.get(volumeUuid);
    if (present !== undefined && !isLike(present, blockSize, share)) {
      // Hosts cannot follow such a change over a connection.
      await this.#remove(volumeUuid);
      present = undefined;
    }
    if (present === undefined && this.#standbys.size >= STANDBYS_MAX) {
      throw new TrilithError("ResourceExhausted", `${STANDBYS_MAX} standbys exist on a reactor`);
    }
    const { reactor } = this.#context;
    const device = present?.device ?? new StandbyDevice(reactor, volumeUuid, sizeBytes, blockSize);
    const standby: Standby = { device, share };
    if (this.#shares.servedAs(nqnOf(volumeUuid)) === undefined || this.#isListening(standby)) {
      await this.#shares.nvmf(device, volumeUuid, share);
    }
    device.resize(sizeBytes);
    this.#standbys.set(volumeUuid, standby);
    return this.#describe(standby);
  }

  #isListening({ device }: Standby): boolean {
    return this.#shares.servedAs(nqnOf(device.uuid))?.bdev === device;
  }

  async #remove(volumeUuid: string): Promise<undefined> {
    const standby = this.#standbys.get(volumeUuid);
    if (standby === undefined) {
      throw new TrilithError("NotFound", `there is no standby of volume ${volumeUuid}`);
    }
    this.#standbys.delete(volumeUuid);
    await this.#shares.unshareAll(standby.device);
    return undefined;
  }

  /**
   * A nexus is about to be shared: hosts that are connected to the standby go on with it. What the
   * nexus is shared with counts from then on. Resolves to whether there was a standby to take over.
   */
  takeOver(nexus: Bdev, options: ShareNvmf): Promise<boolean> {
    return this.#serial.run(nexus.uuid, async () => {
      const standby = this.#standbys.get(nexus.uuid);
      if (standby === undefined || !this.#isListening(standby)) return false;
      const isSame = (options.nqn ?? nqnOf(nexus.uuid)) === nqnOf(nexus.uuid);
      if (!isSame || !isLike(standby, nexus.blockSize, options)) {
        await this.#remove(nexus.uuid);
        return false;
      }
      this.#standbys.delete(nexus.uuid);
      this.#shares.replace(standby.device, nexus);
      return true;
    });
  }

  /**
   * A nexus is about to close. True: its subsystem is to stay, and hosts are sent to their other paths
   * from now on; `stay` has to follow when the nexus is closed.
   */
  beginStay(nexus: Bdev): boolean {
    if (!this.#standbys.has(nexus.uuid)) return false;
    if (this.#shares.servedAs(nqnOf(nexus.uuid))?.bdev !== nexus) return false;
    this.#shares.sendHostsElsewhere(nexus);
    return true;
  }

  /** The nexus is closed, nothing of it is in flight: its subsystem becomes the standby. */
  stay(nexus: Bdev): Promise<void> {
    return this.#serial.run(nexus.uuid, async () => {
      const standby = this.#standbys.get(nexus.uuid);
      const served = this.#shares.servedAs(nqnOf(nexus.uuid));
      if (standby === undefined || served?.bdev !== nexus) return;
      const { controllerIds = CONTROLLER_IDS } = standby.share;
      const isSame =
        standby.device.blockSize === nexus.blockSize &&
        controllerIds.min === served.subsystem?.controllerIds.min &&
        controllerIds.max === served.subsystem.controllerIds.max;
      if (isSame) {
        this.#shares.replace(nexus, standby.device);
      } else await this.#shares.unshareAll(nexus);
      await this.#shares.nvmf(standby.device, nexus.uuid, standby.share);
    });
  }

  #describe({ device, share }: Standby): StandbyBody {
    const served = this.#shares.servedAs(nqnOf(device.uuid));
    const isListening = served?.bdev === device;
    const uri = served === undefined ? undefined : this.#shares.sharesOf(served.bdev);
    return {
      volumeUuid: device.uuid,
      nqn: nqnOf(device.uuid),
      state: isListening ? "listening" : "serving",
      sizeBytes: device.blockCount * device.blockSize,
      blockSize: device.blockSize,
      allowedHosts: share.allowedHosts === undefined ? null : [...share.allowedHosts],
      controllerIds: { ...(share.controllerIds ?? CONTROLLER_IDS) },
      controllers: served?.subsystem?.controllers.size ?? 0,
      uri: uri?.find(({ protocol }) => protocol === "nvmf")?.uri ?? "",
      reactor: this.#context.reactor.index,
    };
  }
}

/** Hosts that are connected to the standby can stay so. */
function isLike({ device, share }: Standby, blockSize: number, wanted: ShareNvmf): boolean {
  assert(blockSize > 0, "blocks have a size");
  const have = share.controllerIds ?? CONTROLLER_IDS;
  const want = wanted.controllerIds ?? CONTROLLER_IDS;
  return device.blockSize === blockSize && have.min === want.min && have.max === want.max;
}
