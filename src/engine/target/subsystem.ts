/**
 * A subsystem of the target: one NQN, one namespace over a device, the hosts that may connect, and
 * the controllers that exist. Everything of it lives on the reactor of its device.
 */
import { assert } from "../../assert.ts";
import { TrilithError } from "../../errors.ts";
import { AnaState, Status } from "../../nvme/constants.ts";
import type { Bdev } from "../bdev/bdev.ts";
import type { Controller } from "./controller.ts";
import { CONTROLLERS_MAX } from "./limits.ts";
import { Reservations } from "./reservations.ts";
import { IoStatistics } from "./statistics.ts";

/** The only namespace id in use. */
export const NAMESPACE_ID = 1;
/** The only ANA group in use. */
export const ANA_GROUP_ID = 1;

export interface SubsystemOptions {
  readonly nqn: string;
  /** 20 characters at most. */
  readonly serial: string;
  /** 40 characters at most. */
  readonly model: string;
  /** Host NQNs admitted; undefined admits every host. */
  readonly hosts: readonly string[] | undefined;
  /** Controller ids given out, both ends included; 1 to 0xffef. */
  readonly controllerIds: { readonly min: number; readonly max: number };
  readonly anaState: AnaState;
}

/** What a subsystem offers under its namespace id. */
export class Namespace {
  readonly id = NAMESPACE_ID;
  readonly bdev: Bdev;
  readonly statistics = new IoStatistics();
  readonly reservations = new Reservations();
  constructor(bdev: Bdev) {
    this.bdev = bdev;
  }
}

export class Subsystem {
  readonly nqn: string;
  readonly serial: string;
  readonly model: string;
  readonly controllerIds: { readonly min: number; readonly max: number };
  readonly namespace: Namespace;
  readonly controllers = new Map<number, Controller>();
  hosts: ReadonlySet<string> | undefined;
  anaState: AnaState;
  anaChangeCount = 0;
  #nextId: number;

  constructor(options: SubsystemOptions, bdev: Bdev) {
    this.nqn = options.nqn;
    this.serial = options.serial;
    this.model = options.model;
    this.controllerIds = options.controllerIds;
    this.hosts = options.hosts === undefined ? undefined : new Set(options.hosts);
    this.anaState = options.anaState;
    this.namespace = new Namespace(bdev);
    this.#nextId = options.controllerIds.min;
  }

  /** True when a host with this NQN may connect. */
  admits(hostNqn: string): boolean {
    return this.hosts === undefined || this.hosts.has(hostNqn);
  }

  /** True when commands may be served under the present ANA state. */
  get accessible(): boolean {
    return this.anaState === AnaState.OPTIMIZED || this.anaState === AnaState.NON_OPTIMIZED;
  }

  /** Status that commands get while the namespace is not accessible here. */
  get inaccessibleStatus(): number {
    if (this.anaState === AnaState.PERSISTENT_LOSS) return Status.ANA_PERSISTENT_LOSS;
    if (this.anaState === AnaState.CHANGE) return Status.ANA_TRANSITION;
    return Status.ANA_INACCESSIBLE;
  }

  /** A controller id that is free; throws `ResourceExhausted` when the range is used up. */
  takeControllerId(): number {
    const { min, max } = this.controllerIds;
    const span = max - min + 1;
    assert(span > 0, "a controller id range is not empty");
    for (let tried = 0; tried < span && this.controllers.size < CONTROLLERS_MAX; tried++) {
      const id = this.#nextId;
      this.#nextId = id === max ? min : id + 1;
      if (!this.controllers.has(id)) return id;
    }
    throw new TrilithError("ResourceExhausted", `${this.nqn}: no controller id is free`);
  }
}
