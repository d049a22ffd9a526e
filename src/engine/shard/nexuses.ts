/** Nexuses of one reactor: opened, published, changed, closed and reported. */
import { TrilithError } from "../../errors.ts";
import {
  type Nexus,
  type NexusContext,
  type NexusEvent,
  NexusRequests,
  openNexus,
  REBUILD_ARENA_SHARE,
  RebuildMemory,
  type RebuildRecord,
} from "../nexus/index.ts";
import type { Nexus as NexusBody, Rebuild as RebuildBody } from "../rpc/nexuses.ts";
import type { ShareNvmf } from "../rpc/shares.ts";
import { Serial } from "../serial.ts";
import type { ChildOpener } from "./children.ts";
import { NEXUSES_MAX } from "./limits.ts";
import type { ShardMethods } from "./methods.ts";
import { type ScrubMethods, scrubBody, scrubEvent, scrubMethods } from "./nexus-scrubs.ts";
import type { ShardContext } from "./shard.ts";
import type { Shares } from "./shares.ts";
import type { Standbys } from "./standbys.ts";

type NexusMethods = ScrubMethods &
  Pick<
    ShardMethods,
    | "createNexus"
    | "destroyNexus"
    | "shutdownNexus"
    | "listNexuses"
    | "getNexus"
    | "resizeNexus"
    | "wantNexusChildren"
    | "pauseNexus"
    | "resumeNexus"
    | "shareNexusNvmf"
    | "shareNexusNbd"
    | "unshareNexus"
    | "getNexusAnaState"
    | "setNexusAnaState"
    | "addNexusChild"
    | "removeNexusChild"
    | "onlineNexusChild"
    | "offlineNexusChild"
    | "faultNexusChild"
    | "startRebuild"
    | "stopRebuild"
    | "pauseRebuild"
    | "resumeRebuild"
    | "getRebuild"
    | "listRebuilds"
    | "configureRebuilds"
  >;

type Create = Parameters<NexusMethods["createNexus"]>[0];

interface Open {
  readonly nexus: Nexus;
  /** URIs of the children that it was asked for with. */
  readonly childUris: readonly string[];
  /** Size that it was asked for with. */
  readonly sizeBytes: number | undefined;
  isShutdown: boolean;
}

function rebuildBody(record: RebuildRecord): RebuildBody {
  const { etaMs, endTimeMs, error, blocksTotal, blocksRecovered } = record;
  return {
    ...record,
    progressPercent: blocksTotal === 0 ? 100 : Math.floor((blocksRecovered * 100) / blocksTotal),
    etaMs: etaMs ?? null,
    endTimeMs: endTimeMs ?? null,
    error: error ?? null,
  };
}

export class Nexuses {
  readonly methods: NexusMethods;
  readonly #context: ShardContext;
  readonly #nexusContext: NexusContext;
  readonly #shares: Shares;
  readonly #standbys: Standbys;
  readonly #open = new Map<string, Open>();
  readonly #serial = new Serial();
  /** Nexuses whose hosts were sent to other paths, by UUID. */
  readonly #turnedAway = new Set<string>();

  constructor(context: ShardContext, shares: Shares, standbys: Standbys, children: ChildOpener) {
    const { reactor, main } = context;
    this.#context = context;
    this.#shares = shares;
    this.#standbys = standbys;
    this.#nexusContext = {
      reactor,
      requests: new NexusRequests(reactor.io),
      rebuildMemory: new RebuildMemory(reactor.arena.byteLength / REBUILD_ARENA_SHARE),
      openChild: (uri) => children.open(uri),
      recorder: { record: (record) => main.call("record", record) },
      onEvent: (uuid, event) => this.#onEvent(uuid, event),
      clockMs: context.clockMs,
    };
    this.methods = {
      ...this.#lifeMethods(),
      ...this.#childMethods(),
      ...this.#rebuildMethods(),
      ...scrubMethods((uuid) => this.get(uuid)),
    };
  }

  #lifeMethods() {
    return {
      createNexus: (request) => this.#serial.run(request.uuid, () => this.#create(request)),
      destroyNexus: ({ uuid }) => this.#serial.run(uuid, () => this.#destroy(uuid)),
      shutdownNexus: ({ uuid }) =>
        this.#serial.run(uuid, async () => {
          await this.#shutdown(this.#find(uuid));
          return this.#describe(this.#find(uuid));
        }),
      listNexuses: async ({ volumeUuid, name }) =>
        [...this.#open.values()]
          .map((open) => this.#describe(open))
          .filter((body) => volumeUuid === undefined || body.volumeUuid === volumeUuid)
          .filter((body) => name === undefined || body.name === name),
      getNexus: async ({ uuid }) => this.#describe(this.#find(uuid)),
      resizeNexus: ({ uuid, sizeBytes }) => this.#changed(uuid, (nexus) => nexus.resize(sizeBytes)),
      wantNexusChildren: ({ uuid, count }) =>
        this.#changed(uuid, async (nexus) => nexus.wantChildren(count)),
      pauseNexus: ({ uuid }) => this.#changed(uuid, (nexus) => nexus.pause()),
      resumeNexus: ({ uuid }) => this.#changed(uuid, async (nexus) => nexus.resume()),
      shareNexusNvmf: ({ uuid, ...options }) =>
        this.#changed(uuid, (nexus) => this.#publish(nexus, options)),
      shareNexusNbd: ({ uuid, ...options }) =>
        this.#changed(uuid, (nexus) => this.#shares.nbd(nexus, nexus.uuid, options)),
      unshareNexus: ({ uuid, protocol }) =>
        this.#changed(uuid, (nexus) => this.#shares.unshare(nexus, protocol)),
      getNexusAnaState: async ({ uuid }) => ({
        anaState: this.#shares.anaStateOf(this.#find(uuid).nexus),
      }),
      setNexusAnaState: ({ uuid, anaState }) =>
        this.#serial.run(uuid, async () => {
          this.#shares.setAnaState(this.#find(uuid).nexus, anaState);
          return { anaState };
        }),
    } satisfies Partial<NexusMethods>;
  }

  #childMethods() {
    return {
      addNexusChild: ({ uuid, childUri }) =>
        this.#changed(uuid, (nexus) => nexus.addChild(childUri)),
      removeNexusChild: ({ uuid, childUri }) =>
        this.#changed(uuid, (nexus) => nexus.removeChild(childUri)),
      onlineNexusChild: ({ uuid, childUri }) =>
        this.#changed(uuid, (nexus) => nexus.onlineChild(childUri)),
      offlineNexusChild: ({ uuid, childUri }) =>
        this.#changed(uuid, (nexus) => nexus.offlineChild(childUri, "offline")),
      faultNexusChild: ({ uuid, childUri }) =>
        this.#changed(uuid, (nexus) => nexus.offlineChild(childUri, "by-client")),
    } satisfies Partial<NexusMethods>;
  }

  #rebuildMethods() {
    return {
      startRebuild: ({ uuid, childUri }) =>
        this.#changed(uuid, (nexus) => nexus.onlineChild(childUri)),
      stopRebuild: ({ uuid, childUri }) =>
        this.#changed(uuid, async (nexus) => nexus.rebuilds.stop(childUri)),
      pauseRebuild: async ({ uuid, childUri }) => {
        const { nexus } = this.#find(uuid);
        nexus.rebuilds.pause(childUri);
        return this.#rebuild(nexus, childUri);
      },
      resumeRebuild: async ({ uuid, childUri }) => {
        const { nexus } = this.#find(uuid);
        nexus.rebuilds.resume(childUri);
        return this.#rebuild(nexus, childUri);
      },
      getRebuild: async ({ uuid, childUri }) => this.#rebuild(this.#find(uuid).nexus, childUri),
      listRebuilds: async ({ uuid }) => {
        const { nexus } = this.#find(uuid);
        const { rebuilds } = nexus;
        const running = nexus.info().children.flatMap(({ rebuild }) => rebuild ?? []);
        return {
          running: running.map(rebuildBody),
          waiting: rebuilds.waiting(),
          history: rebuilds.history().map(rebuildBody),
          segmentBytes: rebuilds.settings.segmentBytes,
          bytesPerSecLimit: rebuilds.settings.bytesPerSec,
        };
      },
      configureRebuilds: async ({ uuid, segmentBytes, bytesPerSecLimit }) => {
        const { rebuilds } = this.#find(uuid).nexus;
        rebuilds.configure({
          ...(segmentBytes === undefined ? {} : { segmentBytes }),
          ...(bytesPerSecLimit === undefined ? {} : { bytesPerSec: bytesPerSecLimit }),
        });
        const { settings } = rebuilds;
        return { segmentBytes: settings.segmentBytes, bytesPerSecLimit: settings.bytesPerSec };
      },
    } satisfies Partial<NexusMethods>;
  }

  // ------------------------------------------------------------------------------------- finding

  get count(): number {
    return this.#open.size;
  }

  has(uuid: string): boolean {
    return this.#open.has(uuid);
  }

  all(): Nexus[] {
    return [...this.#open.values()].map(({ nexus }) => nexus);
  }

  /** A nexus; `NotFound` otherwise. */
  get(uuid: string): Nexus {
    return this.#find(uuid).nexus;
  }

  #find(uuid: string): Open {
    const open = this.#open.get(uuid);
    if (open === undefined) throw new TrilithError("NotFound", `there is no nexus ${uuid}`);
    return open;
  }

  #rebuild(nexus: Nexus, childUri: string): RebuildBody {
    const record =
      nexus.rebuilds.progress(childUri) ??
      nexus.rebuilds.history().findLast((ended) => ended.childUri === childUri);
    if (record !== undefined) return rebuildBody(record);
    throw new TrilithError("NotFound", `${childUri} has not been rebuilt by nexus ${nexus.name}`);
  }

  /** Carries a change out, after others of the same nexus, and reports what it is now. */
  #changed(uuid: string, change: (nexus: Nexus) => Promise<void>): Promise<NexusBody> {
    return this.#serial.run(uuid, async () => {
      const open = this.#find(uuid);
      await change(open.nexus);
      return this.#describe(open);
    });
  }

  /** Serves a nexus to hosts; those of a standby here go on with it, and are told that they may. */
  async #publish(nexus: Nexus, options: ShareNvmf): Promise<void> {
    const isTakenOver = await this.#standbys.takeOver(nexus, options);
    const { anaState = "optimized" } = options;
    await this.#shares.nvmf(nexus, nexus.uuid, isTakenOver ? { ...options, anaState } : options);
  }

  // ------------------------------------------------------------------------- making and closing

  async #create(request: Create): Promise<NexusBody> {
    const { uuid, volumeUuid = uuid, name = volumeUuid, sizeBytes, epoch, children } = request;
    const childUris = children.map(({ uri }) => uri);
    const present = this.#open.get(uuid);
    if (present !== undefined) {
      const { core } = present.nexus;
      const isSame =
        !present.isShutdown &&
        core.identity.volumeUuid === volumeUuid &&
        core.identity.name === name &&
        core.identity.epoch === epoch &&
        present.sizeBytes === sizeBytes &&
        present.childUris.join("\n") === childUris.join("\n");
      if (isSame) return this.#describe(present);
      throw new TrilithError(
        "Conflict",
        `nexus ${uuid} exists with other parameters`,
        "destroy it first, or ask for it with the same parameters",
      );
    }
    this.#assertVolumeFree(volumeUuid);
    if (this.#open.size >= NEXUSES_MAX) {
      throw new TrilithError("ResourceExhausted", `${NEXUSES_MAX} nexuses exist on a reactor`);
    }
    const nexus = await openNexus(this.#nexusContext, {
      name,
      uuid,
      volumeUuid,
      epoch,
      sizeBytes,
      children,
    });
    const open: Open = { nexus, childUris, sizeBytes, isShutdown: false };
    this.#open.set(uuid, open);
    return this.#describe(open);
  }

  /** One volume, one nexus: a second one on the same engine could not be told apart by replicas. */
  #assertVolumeFree(volumeUuid: string): void {
    for (const { nexus, isShutdown } of this.#open.values()) {
      if (isShutdown || nexus.core.identity.volumeUuid !== volumeUuid) continue;
      throw new TrilithError(
        "InUse",
        `volume ${volumeUuid} is served by nexus ${nexus.core.identity.uuid}`,
        "shut that nexus down first",
      );
    }
  }

  async #shutdown(open: Open): Promise<void> {
    if (open.isShutdown) return;
    const { nexus } = open;
    if (this.#standbys.beginStay(nexus)) {
      // Connections stay: hosts were sent to their other paths, and what is in flight ends by the close.
      await nexus.close();
      await this.#standbys.stay(nexus);
      await this.#shares.unshareAll(nexus);
    } else {
      // Requests that wait in the nexus end when it closes, so the front ends are not waited for first.
      await Promise.all([this.#shares.unshareAll(nexus), nexus.close()]);
    }
    open.isShutdown = true;
  }

  async #destroy(uuid: string): Promise<undefined> {
    await this.#shutdown(this.#find(uuid));
    this.#open.delete(uuid);
    return undefined;
  }

  /** Closes every nexus in order, without taking its shares off one by one. */
  async closeAll(): Promise<void> {
    const live = [...this.#open.values()].filter(({ isShutdown }) => !isShutdown);
    await Promise.all(live.map(({ nexus }) => nexus.close()));
    this.#open.clear();
  }

  // ----------------------------------------------------------------------------------- reporting

  #onEvent(uuid: string, event: NexusEvent): void {
    const { log } = this.#context;
    const tell = this.#context.event;
    switch (event.kind) {
      case "child-state": {
        const { uri, state, reason } = event;
        const kind = state === "online" ? "child-online" : "child-faulted";
        log(state === "online" ? "info" : "warn", "child changed", { nexus: uuid, ...event });
        if (state !== "degraded" || reason !== "out-of-sync") {
          tell({ kind, subject: uuid, message: reason, fields: { uri, state, reason } });
        }
        return;
      }
      case "rebuild-started":
      case "rebuild-ended": {
        const { childUri, state, isPartial, blocksTransferred, blockSize } = event.rebuild;
        const fields = {
          uri: childUri,
          state,
          isPartial,
          transferredBytes: blocksTransferred * blockSize,
        };
        log("info", event.kind, { nexus: uuid, ...fields, error: event.rebuild.error });
        tell({
          kind: event.kind,
          subject: uuid,
          message: event.rebuild.error ?? "",
          fields,
        });
        return;
      }
      case "scrub-started":
      case "scrub-ended":
      case "scrub-mismatch": {
        const told = scrubEvent(uuid, event);
        const level = event.kind === "scrub-mismatch" ? "warn" : "info";
        log(level, event.kind, { nexus: uuid, ...told.fields, reason: told.message });
        tell(told);
        return;
      }
      case "io-held":
        log("error", "no in-sync child is left: requests wait", { nexus: uuid, ...event });
        tell({ kind: "nexus-state", subject: uuid, message: event.reason, fields: { held: true } });
        return;
      case "unsettled": {
        const open = this.#open.get(uuid);
        if (open !== undefined) this.#turnAway(open.nexus);
        log("warn", "the loss of a child cannot be recorded", { nexus: uuid, ...event });
        return;
      }
      case "io-resumed":
        this.#welcome(uuid);
        log("info", "requests go on", { nexus: uuid });
        tell({ kind: "nexus-state", subject: uuid, message: "", fields: { held: false } });
        return;
      case "superseded": {
        const open = this.#open.get(uuid);
        if (open !== undefined) this.#shares.sendHostsElsewhere(open.nexus);
        log("warn", "nexus superseded", { nexus: uuid, reason: event.reason });
        tell({ kind: "nexus-superseded", subject: uuid, message: event.reason, fields: {} });
      }
    }
  }

  /**
   * Hosts look for other paths while this nexus cannot acknowledge: cut off from the others it would keep
   * for ever what its successor can do. Those over NBD have no other path, so everybody waits then.
   */
  #turnAway(nexus: Nexus): void {
    const shares = this.#shares.sharesOf(nexus);
    if (shares.length === 0 || shares.some(({ protocol }) => protocol !== "nvmf")) return;
    this.#shares.sendHostsElsewhere(nexus);
    nexus.turnAway();
    this.#turnedAway.add(nexus.core.identity.uuid);
  }

  #welcome(uuid: string): void {
    const open = this.#open.get(uuid);
    if (!this.#turnedAway.delete(uuid) || open === undefined || open.isShutdown) return;
    this.#shares.setAnaState(open.nexus, "optimized");
  }

  #describe({ nexus, isShutdown }: Open): NexusBody {
    const info = nexus.info();
    const shares = this.#shares.sharesOf(nexus);
    const children = info.children.map(({ rebuild, ...child }) => ({
      ...child,
      rebuild: rebuild === undefined ? null : rebuildBody(rebuild),
    }));
    const running = children.filter(({ rebuild }) => rebuild !== null).length;
    return {
      ...info,
      scrub: info.scrub === undefined ? null : scrubBody(info.scrub),
      state: isShutdown ? "shutdown" : info.state,
      children,
      deviceUri: shares.find(({ protocol }) => protocol === "nvmf")?.uri ?? "",
      shares,
      controllers: this.#shares.controllerCount(nexus),
      rebuilds: running + nexus.rebuilds.waiting().length,
      reactor: this.#context.reactor.index,
    };
  }
}
