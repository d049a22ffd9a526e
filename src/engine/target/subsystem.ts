/**
 * Subsystems of the target: one NQN, the hosts that may connect, and the controllers that exist. An
 * NVM subsystem offers one namespace over a device; everything of it lives on the reactor of that
 * device.
 */
import { assert } from "../../assert.ts";
import { TrilithError } from "../../errors.ts";
import { asyncEvents } from "../../nvme/async-events.ts";
import { AnaState, Status } from "../../nvme/constants.ts";
import type { Bdev } from "../bdev/bdev.ts";
import { IoStatistics } from "../reactor/io-statistics.ts";
import type { Controller } from "./controller.ts";
import { CONTROLLERS_MAX } from "./limits.ts";
import type { ReservationOutcome } from "./reservation-state.ts";
import { Reservations } from "./reservations.ts";
import type { VendorCommands } from "./vendor.ts";

/** The only namespace id in use. */
export const NAMESPACE_ID = 1;
/** The only ANA group in use. */
export const ANA_GROUP_ID = 1;

/** What every kind of subsystem is made from. */
export interface SubsystemIdentity {
  readonly nqn: string;
  /** 20 characters at most. */
  readonly serial: string;
  /** 40 characters at most. */
  readonly model: string;
  /** Host NQNs admitted; undefined admits every host. */
  readonly hosts: readonly string[] | undefined;
  /** Controller ids given out, both ends included; 1 to 0xffef. */
  readonly controllerIds: { readonly min: number; readonly max: number };
}

export interface SubsystemOptions extends SubsystemIdentity {
  readonly anaState: AnaState;
  /**
   * Identity of the namespace when it is not that of the device: a volume keeps its own whichever
   * device serves it. `uuid` is lower case with dashes.
   */
  readonly namespace?: { readonly uuid: string; readonly thin?: boolean } | undefined;
  /**
   * Reservations of the namespace when its owner makes them (to keep them through power loss, or to
   * take part in them); else they live and die with the subsystem.
   */
  readonly reservations?: Reservations | undefined;
  /** Carries out vendor specific I/O commands; without it they are invalid. */
  readonly vendor?: VendorCommands | undefined;
}

/** What NVM and discovery subsystems have in common. */
export abstract class SubsystemBase {
  readonly nqn: string;
  readonly serial: string;
  readonly model: string;
  readonly controllerIds: { readonly min: number; readonly max: number };
  readonly controllers = new Map<number, Controller>();
  #hosts: ReadonlySet<string> | undefined;
  #nextId: number;
  #ended = false;
  #onEmpty: (() => void)[] = [];
  #onGone: (() => void)[] = [];

  constructor(identity: SubsystemIdentity) {
    const { min, max } = identity.controllerIds;
    assert(min >= 1 && min <= max && max <= 0xffef, "controller ids are 1 to 0xffef");
    this.nqn = identity.nqn;
    this.serial = identity.serial;
    this.model = identity.model;
    this.controllerIds = identity.controllerIds;
    this.#hosts = identity.hosts === undefined ? undefined : new Set(identity.hosts);
    this.#nextId = min;
  }

  /** True when a host with this NQN may connect. */
  admits(hostNqn: string): boolean {
    return this.#hosts === undefined || this.#hosts.has(hostNqn);
  }

  /** Host NQNs admitted; undefined admits every host. */
  get hosts(): ReadonlySet<string> | undefined {
    return this.#hosts;
  }

  /** Changes who may connect; controllers of hosts that are no longer admitted end. */
  setHosts(hosts: readonly string[] | undefined): void {
    this.#hosts = hosts === undefined ? undefined : new Set(hosts);
    for (const controller of [...this.controllers.values()]) {
      if (!this.admits(controller.hostNqn)) controller.end("host no longer admitted");
    }
  }

  /** A controller id that is free; throws `ResourceExhausted` when the range is used up. */
  takeControllerId(): number {
    const { min, max } = this.controllerIds;
    const span = max - min + 1;
    for (let tried = 0; tried < span && this.controllers.size < CONTROLLERS_MAX; tried++) {
      const id = this.#nextId;
      this.#nextId = id === max ? min : id + 1;
      if (!this.controllers.has(id)) return id;
    }
    throw new TrilithError("ResourceExhausted", `${this.nqn}: no controller id is free`);
  }

  /** For controllers: one has ended and nothing of it is in flight. */
  controllerGone(controller: Controller): void {
    assert(this.controllers.get(controller.id) === controller, "a controller leaves once");
    this.controllers.delete(controller.id);
    for (const look of this.#onGone.splice(0)) look();
    if (this.controllers.size === 0) for (const done of this.#onEmpty.splice(0)) done();
  }

  /** Ends the other controllers of a controller's host; resolves when nothing of them is in flight. */
  async endOthers(controller: Controller): Promise<void> {
    const isOther = (c: Controller): boolean => c !== controller && c.hostId === controller.hostId;
    const others = (): Controller[] => [...this.controllers.values()].filter(isOther);
    for (const other of others()) other.end("its host has connected anew");
    while (others().length > 0) {
      await new Promise<void>((resolve) => this.#onGone.push(resolve));
    }
  }

  /** True once `end` was called: no controller is made any more. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Ends every controller; resolves when nothing of them is in flight. */
  end(reason: string): Promise<void> {
    this.#ended = true;
    for (const controller of [...this.controllers.values()]) controller.end(reason);
    if (this.controllers.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#onEmpty.push(resolve);
    });
  }
}

/** What a subsystem offers under its namespace id. */
export class Namespace {
  readonly id = NAMESPACE_ID;
  /** The device behind it; another one of the same shape may take its place. */
  bdev: Bdev;
  /** Lower case with dashes; NGUID and UUID of the namespace. */
  readonly uuid: string;
  readonly thin: boolean;
  readonly statistics = new IoStatistics();
  readonly reservations: Reservations;
  readonly vendor: VendorCommands | undefined;
  /** Vendor commands that the hook has not answered yet. */
  vendorInFlight = 0;
  /** False once the device was removed. */
  active = true;

  constructor(bdev: Bdev, options: SubsystemOptions) {
    this.bdev = bdev;
    this.uuid = options.namespace?.uuid ?? bdev.uuid;
    this.thin = options.namespace?.thin ?? true;
    this.reservations = options.reservations ?? new Reservations();
    this.vendor = options.vendor;
  }
}

export class Subsystem extends SubsystemBase {
  readonly namespace: Namespace;
  /** NVMe status that I/O commands get under the present ANA state; 0: they are served. */
  refusal = 0;
  anaChangeCount = 0;
  #anaState: AnaState;
  readonly #unlisten: () => void;
  #unlistenBdev: () => void;

  constructor(options: SubsystemOptions, bdev: Bdev) {
    super(options);
    this.#anaState = options.anaState;
    this.refusal = refusalOf(options.anaState);
    this.namespace = new Namespace(bdev, options);
    this.#unlistenBdev = this.#listenTo(bdev);
    this.#unlisten = this.namespace.reservations.listen({
      changed: (outcome) => this.#reservationsChanged(outcome),
      preempted: (hostIds, aborts) => this.#fence(hostIds, aborts),
    });
  }

  #listenTo(bdev: Bdev): () => void {
    return bdev.listen((event) => {
      if (event.kind === "removed") this.namespace.active = false;
      this.#namespaceChanged();
    });
  }

  /**
   * Puts another device behind the namespace, while hosts stay connected and are refused by the ANA
   * state: nothing may be in flight on the device that is there. Identity and block size are the same;
   * hosts hear of another size.
   */
  replaceDevice(bdev: Bdev): void {
    const { namespace } = this;
    const before = namespace.bdev;
    assert(this.refusal !== 0, "a device is replaced while hosts are sent elsewhere");
    assert(
      before.uuid === bdev.uuid && before.blockSize === bdev.blockSize,
      "the namespace stays what it is to hosts",
    );
    this.#unlistenBdev();
    this.#unlistenBdev = this.#listenTo(bdev);
    namespace.bdev = bdev;
    if (before.blockCount !== bdev.blockCount) this.#namespaceChanged();
  }

  get anaState(): AnaState {
    return this.#anaState;
  }

  /**
   * Changes the state of the ANA group (Base 2.0, 8.1). Commands that a device has begun go on;
   * later ones, and those that still wait for their data, meet the new state.
   */
  setAnaState(state: AnaState): void {
    if (state === this.#anaState) return;
    this.#anaState = state;
    this.refusal = refusalOf(state);
    this.anaChangeCount++;
    for (const { events } of this.controllers.values()) events.raise(asyncEvents.anaChanged);
  }

  /** Size or presence of the namespace changed: every controller hears of it. */
  #namespaceChanged(): void {
    for (const controller of this.controllers.values()) {
      controller.changedNamespaces.add(this.namespace.id);
      controller.events.raise(asyncEvents.namespaceChanged);
    }
  }

  #reservationsChanged({ notices }: ReservationOutcome): void {
    const { reservations } = this.namespace;
    for (const controller of this.controllers.values()) {
      controller.denied = reservations.deniedTo(controller.hostId);
      for (const { hostId, type } of notices) {
        if (hostId !== controller.hostId) continue;
        if (((controller.features.reservationMask >>> type) & 1) === 1) continue;
        controller.notices.add(type);
        controller.events.raise(asyncEvents.reservationNotice);
      }
    }
  }

  /** Resolves when nothing that these hosts began before is under way (Base 2.0, 8.19.7). */
  async #fence(hostIds: readonly string[], aborts: boolean): Promise<void> {
    const fences: Promise<void>[] = [];
    for (const controller of this.controllers.values()) {
      if (!hostIds.includes(controller.hostId)) continue;
      for (const queue of controller.queues.values()) {
        if (aborts) queue.abortAwaiting(Status.PREEMPTED);
        fences.push(new Promise((resolve) => queue.fence(resolve)));
      }
    }
    await Promise.all(fences);
  }

  override end(reason: string): Promise<void> {
    this.#unlistenBdev();
    this.#unlisten();
    return super.end(reason);
  }
}

/** Status of commands to a namespace whose group is in `state` (Base 2.0, 8.1.3). */
function refusalOf(state: AnaState): number {
  switch (state) {
    case AnaState.OPTIMIZED:
    case AnaState.NON_OPTIMIZED:
      return 0;
    case AnaState.INACCESSIBLE:
      return Status.ANA_INACCESSIBLE;
    case AnaState.PERSISTENT_LOSS:
      return Status.ANA_PERSISTENT_LOSS;
    case AnaState.CHANGE:
      return Status.ANA_TRANSITION;
  }
}
