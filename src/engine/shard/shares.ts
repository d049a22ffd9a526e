/** What one reactor serves to hosts: its NVMe subsystems and NBD exports, and the devices behind. */
import { createHash } from "node:crypto";
import { assert } from "../../assert.ts";
import { TrilithError } from "../../errors.ts";
import { endpointText, nqnOf } from "../../names.ts";
import { AnaState } from "../../nvme/constants.ts";
import { type Bdev, bdevBytes } from "../bdev/bdev.ts";
import type { NbdExport } from "../nbd/export.ts";
import type { AllocationSource } from "../nbd/extents.ts";
import type { NbdServer } from "../nbd/server.ts";
import type { IoStatistics } from "../reactor/io-statistics.ts";
import type { AnaStateName, Share } from "../rpc/fields.ts";
import type {
  NbdExport as NbdExportBody,
  ShareNbd,
  ShareNvmf,
  ShareProtocol,
  Subsystem as SubsystemBody,
} from "../rpc/shares.ts";
import type { Reservations } from "../target/reservations.ts";
import { Subsystem } from "../target/subsystem.ts";
import type { Target } from "../target/target.ts";
import type { VendorCommands } from "../target/vendor.ts";
import type { ShardMethods } from "./methods.ts";
import type { ShardContext } from "./shard.ts";

export const MODEL = "Trilith NVMe controller";
/** Controller ids of what is shared without a range of its own. */
export const CONTROLLER_IDS = { min: 1, max: 0xffef };

const anaStates: Record<AnaStateName, AnaState> = {
  optimized: AnaState.OPTIMIZED,
  "non-optimized": AnaState.NON_OPTIMIZED,
  inaccessible: AnaState.INACCESSIBLE,
  "persistent-loss": AnaState.PERSISTENT_LOSS,
  change: AnaState.CHANGE,
};

function anaNameOf(state: AnaState): AnaStateName {
  const found = Object.entries(anaStates).find(([, value]) => value === state);
  return found![0] as AnaStateName;
}

/** Serial number that stays with a UUID: a host takes another one for another disk. */
export function serialOf(uuid: string): string {
  return `TRI${createHash("sha256").update(uuid).digest("hex").slice(0, 17).toUpperCase()}`;
}

function sameHosts(a: ReadonlySet<string> | undefined, b: readonly string[] | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return a.size === new Set(b).size && b.every((host) => a.has(host));
}

/** What the owner of a device adds to its namespace. */
export interface NamespaceHooks {
  readonly thin?: boolean;
  readonly reservations?: Reservations;
  readonly vendor?: VendorCommands;
}

interface Shared {
  readonly bdev: Bdev;
  subsystem: Subsystem | null;
  nbd: NbdExport | null;
}

export class Shares {
  readonly methods: Pick<ShardMethods, "listSubsystems" | "listNbdExports">;
  readonly #context: ShardContext;
  readonly #target: Target;
  readonly #nbd: NbdServer;
  readonly #shared = new Map<Bdev, Shared>();

  constructor(context: ShardContext, target: Target, nbd: NbdServer) {
    this.#context = context;
    this.#target = target;
    this.#nbd = nbd;
    this.methods = {
      listSubsystems: async ({ nqn }) => this.#listSubsystems(nqn),
      listNbdExports: async () => this.#listNbdExports(),
    };
  }

  get subsystemCount(): number {
    return [...this.#shared.values()].filter(({ subsystem }) => subsystem !== null).length;
  }

  /** How a device can be reached. */
  sharesOf(bdev: Bdev): Share[] {
    const shared = this.#shared.get(bdev);
    const { address, nvmfPort } = this.#context.options;
    const shares: Share[] = [];
    const subsystem = shared?.subsystem ?? null;
    if (subsystem !== null) {
      shares.push({
        protocol: "nvmf",
        uri: `nvmf+tcp://${endpointText(address, nvmfPort)}/${subsystem.nqn}?uuid=${bdev.uuid}`,
        nqn: subsystem.nqn,
        allowedHosts: subsystem.hosts === undefined ? null : [...subsystem.hosts],
        anaState: anaNameOf(subsystem.anaState),
      });
    }
    const nbd = shared?.nbd ?? null;
    if (nbd !== null) {
      const uri = this.#nbdUri(nbd.name);
      shares.push({ protocol: "nbd", uri, nqn: null, allowedHosts: null, anaState: null });
    }
    return shares;
  }

  #nbdUri(name: string): string {
    const { address, nbdPort } = this.#context.options;
    return `nbd://${endpointText(address, nbdPort ?? 0)}/${encodeURIComponent(name)}`;
  }

  /**
   * Serves a device over NVMe/TCP; `hooks` go with a replica; `identity` is the UUID that NQN and serial number are made of.
   * A device that is served already keeps its subsystem: who may connect and the ANA state change,
   * another NQN or range of controller ids is `Conflict`.
   */
  async nvmf(
    bdev: Bdev,
    identity: string,
    options: ShareNvmf,
    hooks: NamespaceHooks = {},
  ): Promise<void> {
    const nqn = options.nqn ?? nqnOf(identity);
    const present = this.#shared.get(bdev)?.subsystem;
    if (present !== null && present !== undefined) {
      await this.#change(present, nqn, options);
      return;
    }
    const subsystem = new Subsystem(
      {
        nqn,
        serial: serialOf(identity),
        model: MODEL,
        hosts: options.allowedHosts,
        controllerIds: options.controllerIds ?? CONTROLLER_IDS,
        anaState: anaStates[options.anaState ?? "optimized"],
        namespace: { uuid: bdev.uuid, thin: hooks.thin ?? false },
        reservations: hooks.reservations,
        vendor: hooks.vendor,
      },
      bdev,
    );
    this.#target.addSubsystem(subsystem);
    try {
      await this.#announce(subsystem);
    } catch (error) {
      await this.#target.removeSubsystem(nqn);
      throw error;
    }
    this.#of(bdev).subsystem = subsystem;
  }

  async #announce(subsystem: Subsystem): Promise<void> {
    const hosts = subsystem.hosts === undefined ? undefined : [...subsystem.hosts];
    await this.#context.main.call("announce", { protocol: "nvmf", name: subsystem.nqn, hosts });
  }

  async #change(subsystem: Subsystem, nqn: string, options: ShareNvmf): Promise<void> {
    const { min, max } = options.controllerIds ?? subsystem.controllerIds;
    const isSame = min === subsystem.controllerIds.min && max === subsystem.controllerIds.max;
    if (nqn !== subsystem.nqn || !isSame) {
      throw new TrilithError(
        "Conflict",
        `the device is shared as ${subsystem.nqn} with other parameters`,
        "unshare it first, or ask for it with the same parameters",
      );
    }
    if (!sameHosts(subsystem.hosts, options.allowedHosts)) {
      subsystem.setHosts(options.allowedHosts);
      await this.#announce(subsystem);
    }
    if (options.anaState !== undefined) subsystem.setAnaState(anaStates[options.anaState]);
  }

  /**
   * Serves a device over NBD; a device that is served so already under the same terms stays.
   * `allocation` knows which parts of the device hold nothing, when anybody does.
   */
  async nbd(
    bdev: Bdev,
    identity: string,
    options: ShareNbd,
    allocation?: AllocationSource,
  ): Promise<void> {
    const name = options.exportName ?? identity;
    if (this.#context.options.nbdPort === null) {
      throw new TrilithError(
        "FailedPrecondition",
        "this engine does not listen for NBD",
        "start it with an --nbd-port",
      );
    }
    const present = this.#shared.get(bdev)?.nbd;
    if (present != null) {
      if (present.name === name && present.readOnly === options.readOnly) return;
      throw new TrilithError(
        "Conflict",
        `the device is shared over NBD as "${present.name}" with other parameters`,
        "unshare it first, or ask for it with the same parameters",
      );
    }
    const holes = allocation === undefined ? {} : { allocation };
    const added = this.#nbd.addExport({ name, bdev, readOnly: options.readOnly, ...holes });
    try {
      await this.#context.main.call("announce", { protocol: "nbd", name, hosts: undefined });
    } catch (error) {
      await this.#nbd.removeExport(name);
      throw error;
    }
    this.#of(bdev).nbd = added;
  }

  #of(bdev: Bdev): Shared {
    let shared = this.#shared.get(bdev);
    if (shared === undefined) {
      shared = { bdev, subsystem: null, nbd: null };
      this.#shared.set(bdev, shared);
    }
    return shared;
  }

  #subsystemOf(bdev: Bdev): Subsystem {
    const subsystem = this.#shared.get(bdev)?.subsystem;
    if (subsystem != null) return subsystem;
    throw new TrilithError(
      "FailedPrecondition",
      `"${bdev.name}" is not shared over NVMe/TCP`,
      "share it first",
    );
  }

  /** Controllers that hosts have over a device. */
  controllerCount(bdev: Bdev): number {
    return this.#shared.get(bdev)?.subsystem?.controllers.size ?? 0;
  }

  /** `FailedPrecondition` when the device is not served over NVMe/TCP. */
  anaStateOf(bdev: Bdev): AnaStateName {
    return anaNameOf(this.#subsystemOf(bdev).anaState);
  }

  /** `FailedPrecondition` when the device is not served over NVMe/TCP. */
  setAnaState(bdev: Bdev, state: AnaStateName): void {
    this.#subsystemOf(bdev).setAnaState(anaStates[state]);
  }

  /**
   * The volume behind a device has moved on: hosts that are connected here, and that would try this
   * path again and again, are told to use their others.
   */
  sendHostsElsewhere(bdev: Bdev): void {
    this.#shared.get(bdev)?.subsystem?.setAnaState(AnaState.INACCESSIBLE);
  }

  /** What is served over NVMe/TCP under an NQN, and the device behind; undefined: nothing is. */
  servedAs(nqn: string): { readonly bdev: Bdev; readonly subsystem: Subsystem } | undefined {
    const subsystem = this.#target.subsystem(nqn);
    if (!(subsystem instanceof Subsystem)) return undefined;
    const { bdev } = subsystem.namespace;
    return this.#shared.get(bdev)?.subsystem === subsystem ? { bdev, subsystem } : undefined;
  }

  /** The subsystem over one device goes on over another of the same identity; hosts stay connected. */
  replace(from: Bdev, to: Bdev): void {
    const shared = this.#shared.get(from);
    assert(shared != null && shared.subsystem !== null, "what is replaced is served");
    const { subsystem } = shared;
    subsystem.replaceDevice(to);
    shared.subsystem = null;
    this.#forgetEmpty(shared);
    this.#of(to).subsystem = subsystem;
  }

  /** Stops serving a device by one protocol. `NotFound` when it is not served that way. */
  async unshare(bdev: Bdev, protocol: ShareProtocol): Promise<void> {
    const shared = this.#shared.get(bdev);
    if (protocol === "nvmf" && shared != null && shared.subsystem !== null) {
      await this.#removeSubsystem(shared);
      return;
    }
    if (protocol === "nbd" && shared != null && shared.nbd !== null) {
      await this.#removeNbd(shared);
      return;
    }
    throw new TrilithError("NotFound", `"${bdev.name}" is not shared over ${protocol}`);
  }

  async #removeSubsystem(shared: Shared): Promise<void> {
    const { nqn } = shared.subsystem!;
    await this.#context.main.call("withdraw", { protocol: "nvmf", name: nqn });
    await this.#target.removeSubsystem(nqn);
    shared.subsystem = null;
    this.#forgetEmpty(shared);
  }

  async #removeNbd(shared: Shared): Promise<void> {
    const { name } = shared.nbd!;
    await this.#context.main.call("withdraw", { protocol: "nbd", name });
    await this.#nbd.removeExport(name);
    shared.nbd = null;
    this.#forgetEmpty(shared);
  }

  #forgetEmpty(shared: Shared): void {
    if (shared.subsystem === null && shared.nbd === null) this.#shared.delete(shared.bdev);
  }

  /** Stops serving a device in every way, because it goes away. */
  async unshareAll(bdev: Bdev): Promise<void> {
    const shared = this.#shared.get(bdev);
    if (shared == null) return;
    if (shared.subsystem !== null) await this.#removeSubsystem(shared);
    if (shared.nbd !== null) await this.#removeNbd(shared);
  }

  /** Counters of everything that is served. */
  statistics(): { kind: "subsystem" | "nbd"; name: string; statistics: IoStatistics }[] {
    const list: { kind: "subsystem" | "nbd"; name: string; statistics: IoStatistics }[] = [];
    for (const { subsystem, nbd } of this.#shared.values()) {
      if (subsystem !== null) {
        const { statistics } = subsystem.namespace;
        list.push({ kind: "subsystem", name: subsystem.nqn, statistics });
      }
      if (nbd !== null) list.push({ kind: "nbd", name: nbd.name, statistics: nbd.statistics });
    }
    return list;
  }

  /** Counters of what hosts ask of one device, over all protocols. */
  statisticsOf(bdev: Bdev): IoStatistics[] {
    const { subsystem, nbd } = this.#shared.get(bdev) ?? { subsystem: null, nbd: null };
    return [subsystem?.namespace.statistics, nbd?.statistics].filter((s) => s !== undefined);
  }

  /** Stops listening and ends every connection. */
  async closeAll(): Promise<void> {
    await Promise.all([this.#target.close(), this.#nbd.close()]);
    this.#shared.clear();
  }

  #listSubsystems(nqn: string | undefined): SubsystemBody[] {
    const list: SubsystemBody[] = [];
    for (const { bdev, subsystem } of this.#shared.values()) {
      if (subsystem === null || (nqn !== undefined && subsystem.nqn !== nqn)) continue;
      list.push({
        nqn: subsystem.nqn,
        bdev: bdev.name,
        bdevUuid: bdev.uuid,
        serial: subsystem.serial,
        model: subsystem.model,
        allowedHosts: subsystem.hosts === undefined ? null : [...subsystem.hosts],
        anaState: anaNameOf(subsystem.anaState),
        controllers: [...subsystem.controllers.values()].map((controller) => ({
          id: controller.id,
          hostNqn: controller.hostNqn,
          hostId: controller.hostId,
          ioQueues: controller.queues.size,
          keepAliveMs: controller.keepAliveMs,
          hostAddress: null,
        })),
        reactor: this.#context.reactor.index,
      });
    }
    return list;
  }

  #listNbdExports(): NbdExportBody[] {
    const list: NbdExportBody[] = [];
    for (const { bdev, nbd } of this.#shared.values()) {
      if (nbd === null) continue;
      list.push({
        name: nbd.name,
        bdev: bdev.name,
        sizeBytes: bdevBytes(bdev),
        readOnly: nbd.readOnly,
        connections: nbd.connections.size,
        uri: this.#nbdUri(nbd.name),
        reactor: this.#context.reactor.index,
      });
    }
    return list;
  }
}
