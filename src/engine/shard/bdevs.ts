/** Devices of one reactor that were opened by URI through the API and belong to nobody else. */
import { TrilithError } from "../../errors.ts";
import { type Bdev, bdevBytes } from "../bdev/bdev.ts";
import { type BdevUri, parseBdevUri } from "../bdev/uri.ts";
import type { Bdev as BdevBody } from "../rpc/bdevs.ts";
import { Serial } from "../serial.ts";
import { BDEVS_MAX } from "./limits.ts";
import type { ShardMethods } from "./methods.ts";
import { openDevice } from "./open-device.ts";
import type { ShardContext } from "./shard.ts";
import type { Shares } from "./shares.ts";

/** Name of the device that a URI opens; it identifies the device in the engine. */
export function bdevNameOf(uri: BdevUri): string {
  switch (uri.driver) {
    case "malloc":
    case "null":
    case "bdev":
      return uri.name;
    case "uring":
    case "aio":
      return uri.path;
    case "nvmf":
      return uri.nqn;
  }
}

type BdevMethods = Pick<
  ShardMethods,
  | "createBdev"
  | "listBdevs"
  | "getBdev"
  | "destroyBdev"
  | "shareBdevNvmf"
  | "shareBdevNbd"
  | "unshareBdev"
>;

interface Open {
  readonly bdev: Bdev;
  /** Nexuses that have it as a child. */
  users: number;
  /** URI as it was asked for: asking for it again confirms. */
  readonly asked: string;
}

export class Bdevs {
  readonly methods: BdevMethods;
  readonly #context: ShardContext;
  readonly #shares: Shares;
  readonly #open = new Map<string, Open>();
  readonly #serial = new Serial();

  constructor(context: ShardContext, shares: Shares) {
    this.#context = context;
    this.#shares = shares;
    this.methods = {
      createBdev: ({ uri }) => this.#create(uri),
      listBdevs: async () => [...this.#open.values()].map(({ bdev }) => this.#describe(bdev)),
      getBdev: async ({ name }) => this.#describe(this.get(name)),
      destroyBdev: ({ name }) => this.#serial.run(name, () => this.#destroy(name)),
      shareBdevNvmf: ({ name, ...options }) =>
        this.#serial.run(name, async () => {
          const bdev = this.get(name);
          await this.#shares.nvmf(bdev, bdev.uuid, options);
          return this.#describe(bdev);
        }),
      shareBdevNbd: ({ name, ...options }) =>
        this.#serial.run(name, async () => {
          const bdev = this.get(name);
          await this.#shares.nbd(bdev, bdev.uuid, options);
          return this.#describe(bdev);
        }),
      unshareBdev: ({ name, protocol }) =>
        this.#serial.run(name, async () => {
          const bdev = this.get(name);
          await this.#shares.unshare(bdev, protocol);
          return this.#describe(bdev);
        }),
    };
  }

  get count(): number {
    return this.#open.size;
  }

  has(name: string): boolean {
    return this.#open.has(name);
  }

  /** An open device; `NotFound` otherwise. */
  get(name: string): Bdev {
    const open = this.#open.get(name);
    if (open === undefined) throw new TrilithError("NotFound", `no open device is named "${name}"`);
    return open.bdev;
  }

  /** Notes that a nexus uses the device; returns what ends that. */
  use(name: string): () => void {
    const open = this.#open.get(name);
    if (open === undefined) throw new TrilithError("NotFound", `no open device is named "${name}"`);
    open.users++;
    return () => {
      open.users--;
    };
  }

  async #create(asked: string): Promise<BdevBody> {
    const uri = parseBdevUri(asked);
    if (uri.driver === "bdev") {
      throw new TrilithError(
        "InvalidArgument",
        `device URI "${asked}" names a device that is open already`,
        "use the URI of the device below",
      );
    }
    const name = bdevNameOf(uri);
    return this.#serial.run(name, async () => {
      const present = this.#open.get(name);
      if (present !== undefined) {
        if (present.asked === asked || present.bdev.uri === asked) {
          return this.#describe(present.bdev);
        }
        throw new TrilithError(
          "Conflict",
          `device "${name}" is open with other parameters: ${present.asked}`,
          "destroy it first, or ask for it with the same parameters",
        );
      }
      if (this.#open.size >= BDEVS_MAX) {
        throw new TrilithError("ResourceExhausted", `${BDEVS_MAX} devices are open on a reactor`);
      }
      const bdev = await openDevice(this.#context, uri, `opening ${name}`);
      bdev.listen((what) => {
        const subject = name;
        if (what.kind === "removed") {
          this.#tell({ kind: "bdev-removed", subject, message: what.reason, fields: {} });
        } else {
          const fields = { blockCount: what.blockCount };
          this.#tell({ kind: "bdev-resized", subject, message: "", fields });
        }
      });
      this.#open.set(name, { bdev, asked, users: 0 });
      return this.#describe(bdev);
    });
  }

  #tell(event: Parameters<ShardContext["event"]>[0]): void {
    this.#context.event(event);
  }

  async #destroy(name: string): Promise<undefined> {
    const bdev = this.get(name);
    if (this.#shares.sharesOf(bdev).length > 0) {
      throw new TrilithError("InUse", `device "${name}" is shared`, "unshare it first");
    }
    if (this.#open.get(name)!.users > 0) {
      throw new TrilithError("InUse", `device "${name}" is a child of a nexus`);
    }
    this.#open.delete(name);
    await bdev.close();
    return undefined;
  }

  #describe(bdev: Bdev): BdevBody {
    return {
      // What the paths of the API know it by; a device may have a fuller name for its log lines.
      name: bdevNameOf(parseBdevUri(bdev.uri)),
      uuid: bdev.uuid,
      uri: bdev.uri,
      driver: bdev.driver,
      blockSize: bdev.blockSize,
      blockCount: bdev.blockCount,
      sizeBytes: bdevBytes(bdev),
      shares: this.#shares.sharesOf(bdev),
      reactor: this.#context.reactor.index,
    };
  }

  /** Closes everything, shared or not; the front ends have stopped before. */
  async closeAll(): Promise<void> {
    for (const [name, { bdev }] of [...this.#open]) {
      await bdev.close();
      this.#open.delete(name);
    }
  }
}
