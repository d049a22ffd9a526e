/** A volume that three engines mirror, each with a replica in a pool of its own. */
import { randomUUID } from "node:crypto";
import type { EngineResult } from "../../src/engine/rpc/contract.ts";
import { DiskFolder, nqnOf, startRecorder, TestEngine } from "./engine.ts";
import { CONDITION_POLL_MS, CONDITION_TIMEOUT_MS } from "./limits.ts";

type Nexus = EngineResult<"getNexus">;

const POOL = "pool";
const COPIES = 3;
/** Controller ids of one publication. */
const CONTROLLER_IDS = 100;

/** Asks until `probe` returns something other than undefined; fails after a while, saying `what`. */
export async function eventually<T>(what: string, probe: () => Promise<T | undefined>): Promise<T> {
  const deadline = Date.now() + CONDITION_TIMEOUT_MS;
  for (;;) {
    const found = await probe();
    if (found !== undefined) return found;
    if (Date.now() > deadline) throw new Error(`waited in vain: ${what}`);
    await Bun.sleep(CONDITION_POLL_MS);
  }
}

export class MirroredVolume {
  readonly uuid = randomUUID();
  readonly nqn = nqnOf(this.uuid);
  readonly engines: readonly TestEngine[];
  readonly #replicaUuids = Array.from({ length: COPIES }, () => randomUUID());
  readonly #replicaUris: string[] = [];
  readonly #disks: DiskFolder;
  readonly #recorder: { stop(): void };
  #epoch = 0;
  #nexusUuid = "";
  /** Engine that the nexus runs on. */
  #at = 0;

  private constructor(
    engines: readonly TestEngine[],
    disks: DiskFolder,
    recorder: { stop(): void },
  ) {
    this.engines = engines;
    this.#disks = disks;
    this.#recorder = recorder;
  }

  /** Starts three engines, makes a pool and a replica of `sizeMib` on each. Nothing is published. */
  static async create(sizeMib: number): Promise<MirroredVolume> {
    const disks = new DiskFolder();
    const recorder = startRecorder();
    const engines: TestEngine[] = [];
    for (let i = 0; i < COPIES; i++) {
      engines.push(await TestEngine.start([], { recorder: recorder.url }));
    }
    const volume = new MirroredVolume(engines, disks, recorder);
    for (const [i, { rpc }] of engines.entries()) {
      disks.disk(`disk${i}`, sizeMib * 2 + 64, "");
      await volume.#openPool(i);
      const replica = await rpc.createReplica({
        uuid: volume.#replicaUuids[i]!,
        poolName: POOL,
        sizeBytes: sizeMib << 20,
        thin: true,
        volumeUuid: volume.uuid,
        share: "nvmf",
      });
      volume.#replicaUris.push(replica.uri);
    }
    return volume;
  }

  /** Stops the engines and removes everything. Throws when an engine did not end in good order. */
  async remove(): Promise<void> {
    const ends = await Promise.allSettled(this.engines.map((engine) => engine.end()));
    this.#recorder.stop();
    this.#disks.remove();
    for (const end of ends) if (end.status === "rejected") throw end.reason;
  }

  /**
   * Opens the nexus on an engine, under a new epoch, and publishes it. Children whose engines are in
   * `lost` are known to be out of date.
   */
  async publish(at: number, lost: readonly number[] = []): Promise<void> {
    this.#at = at;
    this.#epoch++;
    this.#nexusUuid = randomUUID();
    const { rpc } = this.engines[at]!;
    await rpc.createNexus({
      uuid: this.#nexusUuid,
      volumeUuid: this.uuid,
      epoch: this.#epoch,
      children: this.engines.map((_, i) => ({ uri: this.childUri(i), healthy: !lost.includes(i) })),
    });
    const min = 1 + (this.#epoch - 1) * CONTROLLER_IDS;
    const controllerIds = { min, max: min + CONTROLLER_IDS - 1 };
    await rpc.shareNexusNvmf({ uuid: this.#nexusUuid, nqn: this.nqn, controllerIds });
  }

  /** Closes the nexus in good order. */
  async unpublish(): Promise<void> {
    await this.engines[this.#at]!.rpc.destroyNexus({ uuid: this.#nexusUuid });
  }

  /** URI of a replica as the nexus, where it runs now, opens it. */
  childUri(engine: number): string {
    const isLocal = engine === this.#at;
    return isLocal ? `bdev:///${this.#replicaUuids[engine]!}` : this.#replicaUris[engine]!;
  }

  nexus(): Promise<Nexus> {
    return this.engines[this.#at]!.rpc.getNexus({ uuid: this.#nexusUuid });
  }

  /** Starts an engine that was killed and opens its pool. */
  async restart(engine: number): Promise<void> {
    await this.engines[engine]!.start();
    await this.#openPool(engine);
  }

  /** Has the nexus take a child back and rebuild what it has missed; waits until it is in sync. */
  async bringBack(engine: number): Promise<void> {
    const childUri = this.childUri(engine);
    await this.engines[this.#at]!.rpc.onlineNexusChild({ uuid: this.#nexusUuid, childUri });
    await this.#waitFor(`${childUri} online`, ({ children }) =>
      children.some(({ uri, state }) => uri === childUri && state === "online"),
    );
  }

  /** Has the nexus do without a child. */
  async takeOut(engine: number): Promise<void> {
    const child = { uuid: this.#nexusUuid, childUri: this.childUri(engine) };
    await this.engines[this.#at]!.rpc.offlineNexusChild(child);
  }

  waitForState(state: Nexus["state"]): Promise<Nexus> {
    return this.#waitFor(`nexus ${state}`, (nexus) => nexus.state === state);
  }

  async #waitFor(what: string, isSo: (nexus: Nexus) => boolean): Promise<Nexus> {
    let last: Nexus | undefined;
    try {
      return await eventually(what, async () => {
        last = await this.nexus();
        return isSo(last) ? last : undefined;
      });
    } catch (error) {
      throw new Error(`${error}; last it was ${JSON.stringify(last, undefined, 2)}`);
    }
  }

  /** CRC32C of each replica as it is in its pool. No nexus may have them open. */
  async checksums(): Promise<(number | null)[]> {
    const sums: (number | null)[] = [];
    for (const [i, { rpc }] of this.engines.entries()) {
      const uuid = this.#replicaUuids[i]!;
      sums.push((await rpc.wipeReplica({ uuid, method: "checksum" })).checksum);
    }
    return sums;
  }

  async #openPool(engine: number): Promise<void> {
    const disks = [this.#disks.uri(`disk${engine}`)];
    await this.engines[engine]!.rpc.createPool({ name: POOL, disks });
  }
}
