/**
 * Engines in memory that behave to a control plane as real ones do: pools that have to be imported
 * after a restart, replicas with generations and reservations, nexuses that record losses before they
 * acknowledge. Writes are numbers, so that a test can tell which replica holds what.
 */
import type {
  EngineInfo,
  EngineNexus,
  EnginePool,
  EngineReplica,
  EngineSnapshot,
} from "../../../src/control/cluster-state.ts";
import { replicaOfUri } from "../../../src/control/planner/reconcile/uris.ts";
import type { FaultRecorder } from "../../../src/engine/nexus/recorder.ts";
import type { EngineClient } from "../../../src/engine/rpc/client.ts";
import { TrilithError } from "../../../src/errors.ts";

const MIB = 1 << 20;

interface Disk {
  readonly poolName: string;
  readonly poolUuid: string;
  readonly capacityBytes: number;
  readonly replicas: Map<string, Replica>;
  readonly snapshots: Map<
    string,
    {
      readonly uuid: string;
      readonly sourceUuid: string;
      readonly sizeBytes: number;
      readonly holds: ReadonlySet<number>;
      readonly txnId: string;
    }
  >;
}

export interface Replica {
  readonly uuid: string;
  readonly volumeUuid: string;
  readonly entityId: string;
  readonly snapshotUuid: string | null;
  sizeBytes: number;
  readonly thin: boolean;
  hosts: string[] | null;
  /** Highest epoch that has reserved it. */
  reserved: number;
  epoch: number;
  generation: number;
  base: number;
  clean: boolean;
  /** Numbers of the writes that it holds. */
  holds: Set<number>;
}

interface Child {
  readonly uri: string;
  readonly replica: string;
  phase: "in-sync" | "rebuilding" | "failing" | "out";
  reason: EngineNexus["children"][number]["reason"];
  recordedHealthy: boolean;
  /** Process that its connection leads to. */
  instance: string;
  /** Generation that its replica was last seen to have. */
  generation: number;
}

export interface FakeNexus {
  readonly uuid: string;
  readonly volumeUuid: string;
  readonly epoch: number;
  sizeBytes: number;
  generation: number;
  base: number;
  children: Child[];
  isSuperseded: boolean;
  isPaused: boolean;
  share: { readonly hosts: string[] | null; readonly min: number; readonly max: number } | null;
}

function notFound(what: string): TrilithError {
  return new TrilithError("NotFound", `there is no ${what}`);
}

/** What all engines of a test share. */
export interface FakeNetwork {
  readonly engines: Map<string, FakeEngine>;
  readonly recorder: FaultRecorder;
  /** A nexus has acknowledged a write. */
  acknowledged(nexus: FakeNexus, write: number): void;
  /** A replica with its data is about to go. */
  destroying(replica: Replica): void;
}

export class FakeEngine {
  readonly node: string;
  readonly #network: FakeNetwork;
  readonly disks = new Map<string, Disk>();
  readonly imported = new Set<string>();
  readonly nexuses = new Map<string, FakeNexus>();
  #instances = 0;
  isUp = true;
  /** Nodes cannot reach each other's replicas from or on it. */
  isCut = false;

  constructor(node: string, network: FakeNetwork) {
    this.node = node;
    this.#network = network;
    network.engines.set(node, this);
  }

  get hostNqn(): string {
    return `nqn.2019-05.io.openebs:node-name:${this.node}`;
  }

  get instance(): string {
    return `${this.node}-${this.#instances}`;
  }

  /** As after a power failure: what is on disks stays, the rest is gone. */
  restart(): void {
    this.#instances++;
    this.imported.clear();
    this.nexuses.clear();
  }

  // ------------------------------------------------------------------------------------- reporting

  info(): EngineInfo {
    return {
      nodeName: this.node,
      instanceUuid: this.instance,
      hostNqn: this.hostNqn,
      address: this.node,
      nvmf: [{ address: this.node, port: 8420 }],
      version: "0",
    } as unknown as EngineInfo;
  }

  #openDisks(): Disk[] {
    return [...this.disks.values()].filter(({ poolName }) => this.imported.has(poolName));
  }

  pools(): EnginePool[] {
    return this.#openDisks().map((disk) => {
      let used = 0;
      let committed = 0;
      for (const { sizeBytes, thin } of disk.replicas.values()) {
        committed += sizeBytes;
        used += thin ? MIB : sizeBytes;
      }
      return {
        name: disk.poolName,
        uuid: disk.poolUuid,
        disks: [`/dev/${disk.poolName}`],
        state: "online",
        stateReason: "",
        clusterSizeBytes: MIB,
        capacityBytes: disk.capacityBytes,
        usedBytes: used,
        committedBytes: committed,
        replicas: disk.replicas.size,
      } as unknown as EnginePool;
    });
  }

  uriOf(replica: Replica): string {
    if (replica.hosts === null) return `bdev:///${replica.uuid}`;
    const nqn = `nqn.2019-05.io.openebs:${replica.uuid}`;
    return `nvmf+tcp://${this.node}:8420/${nqn}?uuid=${replica.uuid}`;
  }

  replicas(): EngineReplica[] {
    return this.#openDisks().flatMap((disk) =>
      [...disk.replicas.values()].map((replica) => {
        const { hosts } = replica;
        const allowedHosts = hosts === null || hosts.length === 0 ? null : [...hosts];
        const share = {
          protocol: "nvmf",
          uri: this.uriOf(replica),
          nqn: "",
          allowedHosts,
          anaState: null,
        };
        return {
          uuid: replica.uuid,
          name: replica.uuid,
          poolName: disk.poolName,
          poolUuid: disk.poolUuid,
          kind: replica.snapshotUuid === null ? "regular" : "clone",
          state: "online",
          sizeBytes: replica.sizeBytes,
          thin: replica.thin,
          entityId: replica.entityId,
          snapshotUuid: replica.snapshotUuid,
          uri: this.uriOf(replica),
          shares: hosts === null ? [] : [share],
          claimedBy: this.#claimant(replica.uuid),
          space: { allocatedBytes: MIB, clusterSizeBytes: MIB },
          sync: {
            volumeUuid: replica.volumeUuid,
            epoch: replica.epoch,
            generation: replica.generation,
            baseGeneration: replica.base,
            clean: replica.clean,
            dirtyRegions: 0,
          },
        } as unknown as EngineReplica;
      }),
    );
  }

  #claimant(uuid: string): string | null {
    for (const nexus of this.nexuses.values()) {
      const child = nexus.children.find(({ uri }) => uri === `bdev:///${uuid}`);
      if (child !== undefined && child.phase !== "out" && !nexus.isSuperseded) return nexus.uuid;
    }
    return null;
  }

  snapshots(): EngineSnapshot[] {
    return this.#openDisks().flatMap((disk) =>
      [...disk.snapshots.values()].map(({ uuid, sourceUuid, sizeBytes, txnId }) => {
        return {
          uuid,
          sourceUuid,
          sizeBytes,
          txnId,
          poolName: disk.poolName,
        } as unknown as EngineSnapshot;
      }),
    );
  }

  nexusList(): EngineNexus[] {
    return [...this.nexuses.values()].map((nexus) => this.describe(nexus));
  }

  describe(nexus: FakeNexus): EngineNexus {
    const { uuid, volumeUuid, epoch, generation, sizeBytes, children, isPaused, share } = nexus;
    const inSync = children.filter(({ phase }) => phase === "in-sync").length;
    const allowedHosts = share?.hosts == null || share.hosts.length === 0 ? null : [...share.hosts];
    const state = nexus.isSuperseded
      ? "shutdown"
      : inSync === 0
        ? "faulted"
        : inSync === children.length
          ? "online"
          : "degraded";
    return {
      uuid,
      name: volumeUuid,
      volumeUuid,
      epoch,
      generation,
      sizeBytes,
      state,
      children: children.map(({ uri, phase, reason }) => ({
        uri,
        state:
          phase === "in-sync"
            ? "online"
            : phase === "rebuilding" || (phase === "out" && reason === "out-of-sync")
              ? "degraded"
              : "faulted",
        reason,
        isLocal: uri.startsWith("bdev:"),
        rebuild: null,
      })),
      deviceUri: share === null ? "" : `nvmf+tcp://${this.node}:8420/${volumeUuid}`,
      shares:
        share === null
          ? []
          : [{ protocol: "nvmf", uri: "", nqn: "", allowedHosts, anaState: null }],
      rebuilds: children.filter(({ phase }) => phase === "rebuilding").length,
      isPaused,
    } as unknown as EngineNexus;
  }

  // ------------------------------------------------------------------------------ pools and replicas

  #disk(poolName: string): Disk {
    const disk = this.disks.get(poolName);
    if (disk === undefined || !this.imported.has(poolName)) throw notFound(`pool ${poolName}`);
    return disk;
  }

  find(uuid: string): { readonly disk: Disk; readonly replica: Replica } {
    for (const disk of this.#openDisks()) {
      const replica = disk.replicas.get(uuid);
      if (replica !== undefined) return { disk, replica };
    }
    throw notFound(`replica ${uuid}`);
  }

  #handlers: Partial<{ [K in keyof EngineClient]: (input: never) => unknown }> = {
    getInfo: () => this.info(),
    listPools: () => this.pools(),
    listReplicas: () => this.replicas(),
    listSnapshots: () => this.snapshots(),
    listNexuses: () => this.nexusList(),
    // As engines of before there were standbys.
    listStandbys: () => Promise.reject(notFound("GET /v1/standbys")),
    createPool: ({ name, uuid }: { name: string; uuid: string }) => {
      const disk = this.disks.get(name);
      if (disk !== undefined && disk.poolUuid !== uuid) throw new TrilithError("ForeignDisk", name);
      if (disk === undefined) {
        const capacityBytes = 4096 * MIB;
        const empty = { replicas: new Map(), snapshots: new Map() };
        this.disks.set(name, { poolName: name, poolUuid: uuid, capacityBytes, ...empty });
      }
      this.imported.add(name);
    },
    importPool: ({ name, uuid }: { name: string; uuid: string }) => {
      if (this.disks.get(name)?.poolUuid !== uuid) throw notFound(`pool ${name} on its disk`);
      this.imported.add(name);
    },
    destroyPool: ({ name }: { name: string }) => {
      for (const replica of this.#disk(name).replicas.values()) this.#network.destroying(replica);
      this.disks.delete(name);
      this.imported.delete(name);
    },
    createReplica: (input: {
      uuid: string;
      poolName: string;
      sizeBytes: number;
      thin: boolean;
      volumeUuid?: string;
      entityId?: string;
      share?: string;
      allowedHosts?: string[];
    }) => {
      const disk = this.#disk(input.poolName);
      const hosts = input.share === "nvmf" ? [...(input.allowedHosts ?? [])] : null;
      const present = disk.replicas.get(input.uuid);
      if (present !== undefined) {
        if (hosts !== null) present.hosts = hosts;
        return;
      }
      disk.replicas.set(input.uuid, {
        ...blankReplica(input.uuid, input.volumeUuid ?? "", input.sizeBytes, input.thin),
        hosts,
      });
    },
    destroyReplica: ({ uuid }: { uuid: string }) => {
      const { disk, replica } = this.find(uuid);
      if (this.#claimant(uuid) !== null) throw new TrilithError("InUse", `replica ${uuid} is used`);
      this.#network.destroying(replica);
      disk.replicas.delete(uuid);
    },
    shareReplicaNvmf: ({ uuid, allowedHosts }: { uuid: string; allowedHosts?: string[] }) => {
      this.find(uuid).replica.hosts = [...(allowedHosts ?? [])];
    },
    unshareReplica: ({ uuid }: { uuid: string }) => {
      const { replica } = this.find(uuid);
      if (replica.hosts === null) throw notFound(`share of ${uuid}`);
      replica.hosts = null;
    },
    resizeReplica: ({ uuid, sizeBytes }: { uuid: string; sizeBytes: number }) => {
      this.find(uuid).replica.sizeBytes = sizeBytes;
    },
    createSnapshot: ({
      uuid,
      sourceUuid,
      txnId,
    }: {
      uuid: string;
      sourceUuid: string;
      txnId: string;
    }) => {
      const { disk, replica } = this.find(sourceUuid);
      if (disk.snapshots.has(uuid)) return;
      const { sizeBytes } = replica;
      disk.snapshots.set(uuid, {
        uuid,
        sourceUuid,
        sizeBytes,
        txnId,
        holds: new Set(replica.holds),
      });
    },
    destroySnapshot: ({ uuid }: { uuid: string }) => {
      for (const disk of this.#openDisks()) if (disk.snapshots.delete(uuid)) return;
      throw notFound(`snapshot ${uuid}`);
    },
    createClone: ({
      uuid,
      cloneUuid,
      volumeUuid,
    }: {
      uuid: string;
      cloneUuid: string;
      volumeUuid: string;
    }) => {
      for (const disk of this.#openDisks()) {
        const snapshot = disk.snapshots.get(uuid);
        if (snapshot === undefined) continue;
        if (disk.replicas.has(cloneUuid)) return;
        const blank = blankReplica(cloneUuid, volumeUuid, snapshot.sizeBytes, true);
        disk.replicas.set(cloneUuid, {
          ...blank,
          snapshotUuid: uuid,
          holds: new Set(snapshot.holds),
        });
        return;
      }
      throw notFound(`snapshot ${uuid}`);
    },
    createNexus: (input: never) => this.#createNexus(input),
    destroyNexus: ({ uuid }: { uuid: string }) => this.#closeNexus(this.nexus(uuid)),
    addNexusChild: ({ uuid, childUri }: { uuid: string; childUri: string }) =>
      this.#addChild(this.nexus(uuid), childUri),
    onlineNexusChild: ({ uuid, childUri }: { uuid: string; childUri: string }) =>
      this.#bringIn(this.nexus(uuid), this.#child(this.nexus(uuid), childUri)),
    removeNexusChild: ({ uuid, childUri }: { uuid: string; childUri: string }) =>
      this.#removeChild(this.nexus(uuid), childUri),
    resizeNexus: ({ uuid, sizeBytes }: { uuid: string; sizeBytes: number }) => {
      const nexus = this.nexus(uuid);
      for (const child of nexus.children) {
        if (child.phase === "rebuilding")
          throw new TrilithError("FailedPrecondition", "a rebuild runs");
        if (child.phase !== "in-sync") continue;
        if (this.#device(child.uri).replica.sizeBytes < sizeBytes)
          throw new TrilithError("InvalidArgument", "too small");
      }
      nexus.sizeBytes = sizeBytes;
    },
    pauseNexus: ({ uuid }: { uuid: string }) => {
      this.nexus(uuid).isPaused = true;
    },
    resumeNexus: ({ uuid }: { uuid: string }) => {
      const nexus = this.nexus(uuid);
      if (!nexus.isPaused) throw new TrilithError("FailedPrecondition", "it is not paused");
      nexus.isPaused = false;
    },
    shareNexusNvmf: ({
      uuid,
      allowedHosts,
      controllerIds,
    }: {
      uuid: string;
      allowedHosts?: string[];
      controllerIds: { min: number; max: number };
    }) => {
      this.nexus(uuid).share = { hosts: [...(allowedHosts ?? [])], ...controllerIds };
    },
    unshareNexus: ({ uuid }: { uuid: string }) => {
      const nexus = this.nexus(uuid);
      if (nexus.share === null) throw notFound("share");
      nexus.share = null;
    },
  };

  /** Carries a call out now, whether anybody hears the answer or not. */
  async carryOut(method: keyof EngineClient, input: unknown): Promise<unknown> {
    if (!this.isUp) throw new TrilithError("Unavailable", `${this.node} is down`);
    const handler = this.#handlers[method];
    if (handler === undefined) throw new Error(`the fake engine has no ${method}`);
    return await (handler(input as never) as Promise<unknown>);
  }

  /** A client, with `call` between it and the engine. */
  client(
    call: (method: keyof EngineClient, run: () => Promise<unknown>) => Promise<unknown>,
  ): EngineClient {
    const methods = Object.keys(this.#handlers) as (keyof EngineClient)[];
    const entries = methods.map((method) => [
      method,
      (input: unknown) => call(method, () => this.carryOut(method, input)),
    ]);
    return Object.fromEntries(entries) as EngineClient;
  }

  // ----------------------------------------------------------------------------------------- nexuses

  nexus(uuid: string): FakeNexus {
    const nexus = this.nexuses.get(uuid);
    if (nexus === undefined) throw notFound(`nexus ${uuid}`);
    return nexus;
  }

  #child(nexus: FakeNexus, uri: string): Child {
    const child = nexus.children.find((one) => one.uri === uri);
    if (child === undefined) throw notFound(`child ${uri}`);
    return child;
  }

  /** The replica behind a URI, as this engine reaches it. */
  #device(uri: string): { readonly engine: FakeEngine; readonly replica: Replica } {
    const uuid = replicaOfUri(uri) ?? "";
    if (uri.startsWith("bdev:")) return { engine: this, replica: this.find(uuid).replica };
    const node = /^nvmf\+tcp:\/\/([^:]+):/.exec(uri)?.[1] ?? "";
    const engine = this.#network.engines.get(node);
    const isCut = this.isCut || engine?.isCut === true;
    if (engine === undefined || !engine.isUp || isCut)
      throw new TrilithError("Unavailable", `${uri}: away`);
    let replica: Replica;
    try {
      replica = engine.find(uuid).replica;
    } catch {
      throw new TrilithError("Unavailable", `${uri}: not served`);
    }
    const { hosts } = replica;
    if (hosts === null || (hosts.length > 0 && !hosts.includes(this.hostNqn))) {
      throw new TrilithError("PermissionDenied", `${uri}: not served to ${this.node}`);
    }
    return { engine, replica };
  }

  /** The device of a child that was opened before, if its connection still stands. */
  #connected(child: Child): Replica | null {
    try {
      const { engine, replica } = this.#device(child.uri);
      return engine.instance === child.instance ? replica : null;
    } catch {
      return null;
    }
  }

  #claim(nexus: FakeNexus, child: Child): Replica {
    const { engine, replica } = this.#device(child.uri);
    if (replica.sizeBytes < nexus.sizeBytes) throw new TrilithError("InvalidArgument", "too small");
    if (replica.reserved > nexus.epoch || replica.epoch > nexus.epoch) {
      throw new TrilithError("Superseded", `${child.uri} is taken by a newer nexus`);
    }
    replica.reserved = nexus.epoch;
    child.instance = engine.instance;
    return replica;
  }

  async #record(nexus: FakeNexus, lost: readonly Child[], cleanShutdown = false): Promise<boolean> {
    const { uuid, volumeUuid, epoch } = nexus;
    const children = nexus.children.map((child) => ({
      uri: child.uri,
      healthy: child.recordedHealthy && !lost.includes(child),
    }));
    try {
      await this.#network.recorder.record({
        volumeUuid,
        nexusUuid: uuid,
        epoch,
        children,
        cleanShutdown,
      });
      return true;
    } catch (error) {
      if (error instanceof TrilithError && error.code === "Superseded") nexus.isSuperseded = true;
      return false;
    }
  }

  async #createNexus(input: {
    uuid: string;
    volumeUuid?: string;
    sizeBytes: number;
    epoch: number;
    children: { uri: string; healthy: boolean }[];
  }): Promise<void> {
    const { uuid, epoch, sizeBytes, volumeUuid = uuid } = input;
    const present = this.nexuses.get(uuid);
    if (present !== undefined) {
      if (present.epoch === epoch) return;
      throw new TrilithError("Conflict", `nexus ${uuid} exists with other parameters`);
    }
    for (const other of this.nexuses.values()) {
      if (other.volumeUuid === volumeUuid) throw new TrilithError("InUse", "the volume is served");
    }
    const nexus: FakeNexus = {
      uuid,
      volumeUuid,
      epoch,
      sizeBytes,
      generation: 0,
      base: 0,
      children: [],
      isSuperseded: false,
      isPaused: false,
      share: null,
    };
    const claimed: { child: Child; replica: Replica }[] = [];
    for (const { uri, healthy } of input.children) {
      const replica = replicaOfUri(uri) ?? "";
      const reason = healthy ? "cannot-open" : "out-of-sync";
      const child: Child = {
        uri,
        replica,
        phase: "out",
        reason,
        recordedHealthy: healthy,
        instance: "",
        generation: 0,
      };
      nexus.children.push(child);
      if (!healthy) continue;
      try {
        claimed.push({ child, replica: this.#claim(nexus, child) });
      } catch (error) {
        const code = error instanceof TrilithError ? error.code : "Internal";
        if (code !== "Unavailable" && code !== "PermissionDenied" && code !== "NotFound")
          throw error;
      }
    }
    const highest = Math.max(0, ...claimed.map(({ replica }) => replica.generation));
    const isBlank = highest === 0;
    const missing = nexus.children.filter((c) => c.recordedHealthy && c.instance === "");
    if (isBlank && (missing.length > 0 || claimed.some(({ replica }) => replica.epoch > 0))) {
      throw new TrilithError("FailedPrecondition", "no child is known to hold the data");
    }
    const current = claimed.filter(({ replica }) => replica.generation === highest);
    if (current.length === 0)
      throw new TrilithError("Unavailable", "no healthy child can be opened");
    nexus.generation = highest + 1;
    nexus.base = isBlank
      ? nexus.generation
      : Math.max(...current.map(({ replica }) => replica.base));
    for (const { child } of claimed) child.reason = "out-of-sync";
    for (const { child } of current) {
      child.phase = "in-sync";
      child.reason = "none";
    }
    const lost = nexus.children.filter((c) => c.recordedHealthy && c.phase === "out");
    if (!(await this.#record(nexus, lost))) {
      throw nexus.isSuperseded
        ? new TrilithError("Superseded", "a newer epoch is recorded")
        : new TrilithError("Unavailable", "the recorder cannot be reached");
    }
    for (const child of lost) child.recordedHealthy = false;
    // After a crash the others are resynced from one: unacknowledged writes become the same everywhere.
    const first = current[0]!.replica;
    for (const { child, replica } of current) {
      replica.holds = new Set(first.holds);
      this.#writeState(nexus, replica, false, child);
    }
    this.nexuses.set(uuid, nexus);
  }

  #writeState(nexus: FakeNexus, replica: Replica, clean: boolean, child: Child): void {
    child.generation = nexus.generation;
    replica.epoch = nexus.epoch;
    replica.generation = nexus.generation;
    replica.base = nexus.base;
    replica.clean = clean;
  }

  async #closeNexus(nexus: FakeNexus): Promise<void> {
    const inSync = nexus.children.filter(({ phase }) => phase === "in-sync");
    const isFailing = nexus.children.some(({ phase }) => phase === "failing");
    if (!nexus.isSuperseded && inSync.length > 0 && !isFailing) {
      let isWritten = true;
      for (const child of inSync) {
        const replica = this.#connected(child);
        if (replica === null || replica.reserved > nexus.epoch) isWritten = false;
        else this.#writeState(nexus, replica, true, child);
      }
      if (isWritten) await this.#record(nexus, [], true);
    }
    this.nexuses.delete(nexus.uuid);
  }

  async #addChild(nexus: FakeNexus, uri: string): Promise<void> {
    this.#assertUsable(nexus);
    if (nexus.children.some((child) => child.uri === uri)) {
      throw new TrilithError("AlreadyExists", `child ${uri} is there`);
    }
    const replica = replicaOfUri(uri) ?? "";
    const child: Child = {
      uri,
      replica,
      phase: "out",
      reason: "none",
      recordedHealthy: false,
      instance: "",
      generation: 0,
    };
    nexus.children.push(child);
    try {
      if (!(await this.#record(nexus, []))) throw new TrilithError("Unavailable", "no recorder");
      this.#bringIn(nexus, child);
    } catch (error) {
      nexus.children = nexus.children.filter((other) => other !== child);
      throw error;
    }
  }

  #assertUsable(nexus: FakeNexus): void {
    if (nexus.isSuperseded)
      throw new TrilithError("Superseded", `nexus ${nexus.uuid} is superseded`);
  }

  #bringIn(nexus: FakeNexus, child: Child): void {
    this.#assertUsable(nexus);
    if (child.phase === "in-sync" || child.phase === "rebuilding") return;
    if (child.phase === "failing")
      throw new TrilithError("FailedPrecondition", "loss not recorded");
    const replica = this.#claim(nexus, child);
    if (!nexus.children.some(({ phase }) => phase === "in-sync")) {
      throw new TrilithError("FailedPrecondition", "no child to copy from");
    }
    if (replica.generation > nexus.generation)
      throw new TrilithError("FailedPrecondition", "newer");
    const isPartial = replica.generation > 0 && replica.generation >= nexus.base;
    if (!isPartial) {
      replica.generation = 0;
      replica.epoch = nexus.epoch;
    }
    child.phase = "rebuilding";
    child.reason = "out-of-sync";
  }

  async #removeChild(nexus: FakeNexus, uri: string): Promise<void> {
    this.#assertUsable(nexus);
    const child = this.#child(nexus, uri);
    const others = nexus.children.filter((c) => c !== child && c.phase === "in-sync");
    if (child.phase !== "out") {
      if (others.length === 0)
        throw new TrilithError("FailedPrecondition", "the last in-sync child");
      if (!(await this.#lose(nexus, [child], "by-client"))) {
        throw new TrilithError("Unavailable", "the loss could not be recorded");
      }
    }
    nexus.children = nexus.children.filter((other) => other !== child);
    await this.#record(nexus, []);
  }

  /** Takes children out: recorded first, then as a higher generation on those that remain. */
  async #lose(nexus: FakeNexus, lost: readonly Child[], reason: Child["reason"]): Promise<boolean> {
    for (const child of lost) {
      child.phase = child.recordedHealthy ? "failing" : "out";
      child.reason = reason;
    }
    const failing = nexus.children.filter(({ phase }) => phase === "failing");
    const survivors = nexus.children.filter(({ phase }) => phase === "in-sync");
    if (failing.length === 0) return true;
    if (survivors.length === 0) return false;
    if (!(await this.#record(nexus, failing))) return false;
    nexus.generation++;
    for (const child of failing) {
      child.recordedHealthy = false;
      child.phase = "out";
    }
    for (const child of survivors) {
      const replica = this.#connected(child);
      if (replica === null) continue; // Found at the next write.
      if (replica.reserved > nexus.epoch) nexus.isSuperseded = true;
      else this.#writeState(nexus, replica, false, child);
    }
    return !nexus.isSuperseded;
  }

  /** A host writes: every child that counts has to have it, or its loss be recorded. */
  async write(nexus: FakeNexus, write: number): Promise<void> {
    if (nexus.isSuperseded || nexus.isPaused) return;
    this.#revive(nexus);
    const lost: Child[] = [];
    for (const child of nexus.children) {
      if (child.phase !== "in-sync" && child.phase !== "rebuilding") continue;
      const replica = this.#connected(child);
      if (replica === null) {
        lost.push(child);
        continue;
      }
      if (replica.reserved > nexus.epoch) {
        nexus.isSuperseded = true;
        return;
      }
      replica.holds.add(write);
    }
    const isSettled = await this.#lose(nexus, lost, "io-failure");
    const inSync = nexus.children.filter(({ phase }) => phase === "in-sync");
    const isHeld = inSync.some((child) => this.#connected(child)?.holds.has(write) !== true);
    if (!isSettled || nexus.isSuperseded || inSync.length === 0 || isHeld) return;
    if (this.nexuses.get(nexus.uuid) !== nexus) return;
    this.#network.acknowledged(nexus, write);
  }

  /** What a nexus does by itself: lost connections are noticed, their losses recorded, again and again. */
  async settle(nexus: FakeNexus): Promise<void> {
    if (nexus.isSuperseded) return;
    this.#revive(nexus);
    const lost = nexus.children.filter(
      (child) =>
        (child.phase === "in-sync" || child.phase === "rebuilding") &&
        this.#connected(child) === null,
    );
    await this.#lose(nexus, lost, "io-failure");
  }

  /** Without a child left it waits for one of the last to come back. */
  #revive(nexus: FakeNexus): void {
    if (nexus.children.some(({ phase }) => phase === "in-sync")) return;
    for (const child of nexus.children) {
      if (child.phase !== "failing") continue;
      try {
        const replica = this.#claim(nexus, child);
        if (replica.generation < child.generation) continue;
        child.phase = "in-sync";
        child.reason = "none";
        return;
      } catch (error) {
        if (error instanceof TrilithError && error.code === "Superseded") nexus.isSuperseded = true;
      }
    }
  }

  /** One rebuild ends, if one can. */
  async rebuildOne(nexus: FakeNexus): Promise<void> {
    const child = nexus.children.find(({ phase }) => phase === "rebuilding");
    const source = nexus.children.find(({ phase }) => phase === "in-sync");
    if (child === undefined || source === undefined || nexus.isSuperseded) return;
    const from = this.#connected(source);
    const to = this.#connected(child);
    if (from === null) return;
    if (to === null || nexus.children.some(({ phase }) => phase === "failing")) {
      if (to === null) await this.#lose(nexus, [child], "rebuild-failed");
      return;
    }
    if (to.reserved > nexus.epoch) {
      nexus.isSuperseded = true;
      return;
    }
    to.holds = new Set(from.holds);
    child.recordedHealthy = true;
    this.#writeState(nexus, to, false, child);
    if (!(await this.#record(nexus, []))) {
      child.phase = "failing"; // Its replica carries the generation: its loss has to be recorded.
      child.reason = "rebuild-failed";
      return;
    }
    child.phase = "in-sync";
    child.reason = "none";
  }
}

function blankReplica(uuid: string, volumeUuid: string, sizeBytes: number, thin: boolean): Replica {
  return {
    uuid,
    volumeUuid,
    entityId: volumeUuid,
    snapshotUuid: null,
    sizeBytes,
    thin,
    hosts: null,
    reserved: 0,
    epoch: 0,
    generation: 0,
    base: 0,
    clean: true,
    holds: new Set(),
  };
}
