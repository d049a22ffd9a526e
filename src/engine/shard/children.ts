/** Opens what the nexuses of one reactor are made of: replicas here and elsewhere, other devices. */
import { TrilithError } from "../../errors.ts";
import type { Bdev } from "../bdev/bdev.ts";
import type { NvmfBdev } from "../bdev/nvmf/nvmf-bdev.ts";
import { parseBdevUri } from "../bdev/uri.ts";
import type { ChildDevice } from "../nexus/index.ts";
import type { Bdevs } from "./bdevs.ts";
import { hasFailed } from "./pools.ts";
import { isReplica, remoteLink } from "./remote-link.ts";
import type { Replicas } from "./replicas.ts";
import type { ShardContext } from "./shard.ts";

/** An open device of this reactor: a replica by its UUID, or a device by its name. */
function openLocal(name: string, bdevs: Bdevs, replicas: Replicas): ChildDevice {
  const found = replicas.pools.findReplica(name);
  if (found !== undefined) {
    if (found.replica.kind === "Snapshot") {
      throw new TrilithError("InvalidArgument", `${name} is a snapshot, which cannot be written`);
    }
    if (hasFailed(found.pool)) {
      const { status, reason } = found.pool.health;
      throw new TrilithError("DeviceGone", `pool ${found.pool.name} is ${status}: ${reason}`);
    }
    const { link, letGo } = replicas.accessTo(found.pool, found.replica).open();
    return { bdev: found.replica, link, isLocal: true, close: async () => letGo() };
  }
  if (bdevs.has(name)) {
    const release = bdevs.use(name);
    return { bdev: bdevs.get(name), link: undefined, isLocal: true, close: async () => release() };
  }
  throw new TrilithError(
    "NotFound",
    `there is no replica or device "${name}" on this reactor`,
    "import its pool; when it lives on another reactor of the engine, share it and use its NVMe URI",
  );
}

async function openRemote(context: ShardContext, uri: string): Promise<ChildDevice> {
  const { host } = context.options;
  const bdev = (await context.openBdev(context.reactor, uri, {
    host,
    // A replica that was out of sight may have lost what no flush had covered: it is not used again
    // before the nexus has looked at it, even when nothing was under way.
    nvmf: {
      onLoss: "fail",
      controllerLossMs: 0,
      log: (level, message) => context.log(level, message),
    },
  })) as NvmfBdev;
  try {
    const link = (await isReplica(bdev)) ? remoteLink(bdev, host.id) : undefined;
    const abandon = (): void => bdev.reset("its nexus does without it");
    return { bdev, link, isLocal: false, abandon, close: () => bdev.close() };
  } catch (error) {
    await bdev.close();
    throw error;
  }
}

/** Opens children for the nexuses of one reactor. */
export class ChildOpener {
  readonly #context: ShardContext;
  readonly #bdevs: Bdevs;
  readonly #replicas: Replicas;
  /** Told of every child that was opened. */
  onOpened: (uri: string, bdev: Bdev) => void = () => {};

  constructor(context: ShardContext, bdevs: Bdevs, replicas: Replicas) {
    this.#context = context;
    this.#bdevs = bdevs;
    this.#replicas = replicas;
  }

  /** Opens the device behind a child URI. Errors are those of `openBdev`. */
  async open(uri: string): Promise<ChildDevice> {
    const device = await this.#open(uri);
    this.onOpened(uri, device.bdev);
    return device;
  }

  async #open(uri: string): Promise<ChildDevice> {
    const parsed = parseBdevUri(uri);
    if (parsed.driver === "bdev") return openLocal(parsed.name, this.#bdevs, this.#replicas);
    if (parsed.driver === "nvmf") return openRemote(this.#context, uri);
    const bdev = await this.#context.openBdev(this.#context.reactor, parsed);
    return { bdev, link: undefined, isLocal: true, close: () => bdev.close() };
  }
}
