/**
 * Who may use a replica, and what its nexus asks of it beyond blocks (DESIGN 6.4, 6.5): one for every
 * replica, answering a nexus of this engine by call and those of other nodes by vendor commands.
 *
 * A nexus takes a replica by a reservation (exclusive access; its key carries the epoch, and it lasts
 * through power loss), and writes its epoch to the replica with the first state. A lower epoch never
 * gets in again, whichever way it comes.
 */
import { facesOf, TrilithError, toErrorBody } from "../../errors.ts";
import { STATUS_DNR, Status } from "../../nvme/constants.ts";
import {
  AcquireAction,
  RegisterAction,
  ReleaseAction,
  ReservationKind,
} from "../../nvme/reservations.ts";
import type { Allocation, Claim, ReplicaLink, SyncState } from "../nexus/index.ts";
import type { Attributes, Pool, Replica } from "../pool/index.ts";
import {
  acquire,
  holds,
  type ReservationOutcome,
  register,
  release,
} from "../target/reservation-state.ts";
import { type ReservationState, Reservations } from "../target/reservations.ts";
import type { VendorCommand, VendorCommands } from "../target/vendor.ts";
import { ReadLeases } from "./read-leases.ts";
import {
  decodeClaim,
  decodeRegions,
  decodeState,
  encodeState,
  epochOfKey,
  isOutranked,
  ReplicaOpcode,
  rangesOf,
  reservationKey,
} from "./replica-wire.ts";
import { decodeReservations, encodeReservations } from "./reservation-codec.ts";
import type { ShardContext } from "./shard.ts";

const REGISTER = {
  action: RegisterAction.REPLACE,
  ignoresKey: true,
  persist: true,
  currentKey: 0n,
} as const;

/**
 * Registers a host and takes the reservation for it, from whoever holds it, in one step. A holder
 * with a higher epoch stays, and the outcome is a reservation conflict.
 */
export function takeOver(state: ReservationState, hostId: string, key: bigint): ReservationOutcome {
  const conflict = (): ReservationOutcome => ({
    status: Status.RESERVATION_CONFLICT,
    state,
    notices: [],
    preempted: [],
    aborts: false,
  });
  const holder = state.registrants.find((registrant) => holds(state, registrant.hostId));
  if (holder !== undefined && isOutranked(key, holder.key)) return conflict();
  const registered = register(state, hostId, { ...REGISTER, newKey: key }, true);
  if (registered.status !== 0) return conflict();
  const isMine =
    holds(registered.state, hostId) && registered.state.type === ReservationKind.EXCLUSIVE_ACCESS;
  if (isMine) return registered;
  const isTaken = holder !== undefined && holder.hostId !== hostId;
  const taken = acquire(registered.state, hostId, {
    action: isTaken ? AcquireAction.PREEMPT_AND_ABORT : AcquireAction.ACQUIRE,
    ignoresKey: false,
    type: ReservationKind.EXCLUSIVE_ACCESS,
    currentKey: key,
    preemptKey: isTaken ? holder.key : 0n,
  });
  if (taken.status !== 0) return conflict();
  return { ...taken, notices: [...registered.notices, ...taken.notices] };
}

/** Gives the reservation and the registration up, if the host still has them with this key. */
export function giveUp(state: ReservationState, hostId: string, key: bigint): ReservationOutcome {
  const unchanged = { status: 0, state, notices: [], preempted: [], aborts: false };
  const mine = state.registrants.find((registrant) => registrant.hostId === hostId);
  if (mine?.key !== key) return unchanged;
  const released = release(state, hostId, {
    action: ReleaseAction.RELEASE,
    ignoresKey: false,
    type: state.type,
    currentKey: key,
  });
  if (released.status !== 0) return unchanged;
  const command = { ...REGISTER, action: RegisterAction.UNREGISTER, newKey: 0n };
  const left = register(released.state, hostId, command, true);
  return left.status === 0 ? left : released;
}

/** A host identifier as reservations know it. */
export function hostIdHex(hostId: string): string {
  return hostId.replaceAll("-", "");
}

/**
 * True for a replica whose machine was started anew while a nexus was writing to it: what was written
 * and not flushed may be gone. `bootId` is that of the present start.
 */
export function mayLack(
  attributes: Pick<Attributes, "bootId" | "clean" | "healthGeneration">,
  bootId: string,
): boolean {
  const isSameBoot = attributes.bootId === "" || attributes.bootId === bootId;
  return !isSameBoot && !attributes.clean && attributes.healthGeneration > 0;
}

interface Claimant {
  readonly epoch: number;
  readonly nexusUuid: string;
  /** Tells a nexus of this engine that it has lost the replica. */
  readonly onFenced: () => void;
}

export class ReplicaAccess implements VendorCommands {
  readonly reservations: Reservations;
  readonly #context: ShardContext;
  readonly #pool: Pool;
  readonly #replica: Replica;
  readonly #hostId: string;
  readonly #leases: ReadLeases;
  /** Nexus of this engine that has it. */
  #local: Claimant | null = null;

  constructor(context: ShardContext, pool: Pool, replica: Replica) {
    this.#context = context;
    this.#pool = pool;
    this.#replica = replica;
    this.#hostId = hostIdHex(context.options.host.id);
    this.reservations = new Reservations({
      load: () => decodeReservations(replica.attributes.reservation),
      save: (state) => pool.setAttributes(replica.uuid, { reservation: encodeReservations(state) }),
    });
    this.#leases = new ReadLeases(context.reactor, this.#mayHaveGranted());
    this.reservations.listen({
      preempted: (hostIds) => (hostIds.includes(this.#hostId) ? this.#fence() : undefined),
    });
  }

  /** Nexus of this engine that uses the replica; null when there is none. */
  get claimedBy(): string | null {
    return this.#local?.nexusUuid ?? null;
  }

  /**
   * Read leases may be valid of which this process knows nothing: not when nobody had the replica, nor when
   * a nexus of this engine had come as far as to write its epoch.
   */
  #mayHaveGranted(): boolean {
    const { state } = this.reservations;
    const holder = state.registrants.find(({ hostId }) => holds(state, hostId));
    if (holder === undefined) return false;
    const isMine = holder.hostId === this.#hostId;
    return !isMine || epochOfKey(holder.key) !== this.#replica.attributes.epoch;
  }

  // ------------------------------------------------------------------- what both ways come down to

  /** Throws `Superseded` unless the epoch may use the replica. */
  #assertEpoch(epoch: number): void {
    const { epoch: known } = this.#replica.attributes;
    if (epoch >= known) return;
    throw new TrilithError(
      "Superseded",
      `replica ${this.#replica.uuid} has been taken by epoch ${known} of its volume, not ${epoch}`,
      "publish the volume again with a higher epoch",
    );
  }

  /** Throws `Superseded` unless the reservation is held with this key. */
  #assertHolder(key: bigint): void {
    const { state } = this.reservations;
    const holder = state.registrants.find(({ hostId }) => holds(state, hostId));
    if (holder?.key === key) return;
    throw new TrilithError(
      "Superseded",
      `replica ${this.#replica.uuid} is reserved by another nexus`,
      "publish the volume again with a higher epoch",
    );
  }

  /** The local nexus has lost the replica: it is told, and what it had under way has ended. */
  async #fence(): Promise<void> {
    const local = this.#local;
    if (local === null) return;
    this.#local = null;
    local.onFenced();
    // Writes that it had sent before are let through and awaited; it sends no more.
    await this.#replica.hold();
    this.#replica.unhold();
  }

  readState(): SyncState {
    const { attributes } = this.#replica;
    const { epoch, healthGeneration, dirtyBaseGeneration, clean } = attributes;
    return {
      epoch,
      generation: healthGeneration,
      baseGeneration: dirtyBaseGeneration,
      clean,
      mayLack: mayLack(attributes, this.#context.options.bootId),
    };
  }

  async #writeState(state: SyncState): Promise<void> {
    this.#assertEpoch(state.epoch);
    await this.#pool.setAttributes(this.#replica.uuid, {
      epoch: state.epoch,
      healthGeneration: state.generation,
      dirtyBaseGeneration: state.baseGeneration,
      clean: state.clean,
      ...(state.mayLack ? {} : { bootId: this.#context.options.bootId }),
    });
  }

  // ------------------------------------------------------------------------------- by call

  /**
   * The link of a nexus of this engine, and what lets go of it when the nexus closes the device: the
   * reservation stays until it is released or taken.
   */
  open(): { readonly link: ReplicaLink; readonly letGo: () => void } {
    const { intent } = this.#replica;
    let key = 0n;
    let mine: Claimant | null = null;
    const assertMine = (): void => {
      if (mine !== null && this.#local === mine) return;
      throw new TrilithError(
        "Superseded",
        `replica ${this.#replica.uuid} is used by another nexus`,
      );
    };
    const link: ReplicaLink = {
      acquire: async (claim) => {
        key = reservationKey(claim.epoch, claim.nexusUuid);
        mine = await this.#acquireLocally(claim, key);
      },
      release: async () => {
        if (mine === null || this.#local !== mine) return;
        this.#local = null;
        await this.reservations.run((state) => giveUp(state, this.#hostId, key));
      },
      readState: async () => this.readState(),
      writeState: async (state) => {
        assertMine();
        await this.#writeState(state);
      },
      readDirty: async () => intent.bitmap.slice(),
      markDirty: async (regions) => {
        assertMine();
        await intent.markDirty(rangesOf(regions));
      },
      clearDirty: async (regions) => {
        assertMine();
        intent.clearDirty(rangesOf(regions));
      },
      readAllocation: async () => this.#allocation(),
    };
    const letGo = (): void => {
      if (mine !== null && this.#local === mine) this.#local = null;
    };
    return { link, letGo };
  }

  async #acquireLocally(claim: Claim, key: bigint): Promise<Claimant> {
    const { epoch, nexusUuid, onFenced } = claim;
    const what = `replica ${this.#replica.uuid}`;
    this.#assertEpoch(epoch);
    const before = this.#local;
    if (before !== null && before.nexusUuid !== nexusUuid && before.epoch >= epoch) {
      throw new TrilithError(
        "Superseded",
        `${what} is used by nexus ${before.nexusUuid} of epoch ${before.epoch}`,
        "destroy that nexus first, or publish with a higher epoch",
      );
    }
    const status = await this.reservations.run((state) => takeOver(state, this.#hostId, key));
    if (status !== 0) {
      throw status === Status.RESERVATION_CONFLICT
        ? new TrilithError("Superseded", `${what} is reserved by a newer nexus`)
        : new TrilithError("DeviceIo", `${what}: its reservation could not be stored`);
    }
    // Another nexus of this engine has the same host id: reservations do not tell it.
    if (this.#local !== null && this.#local.nexusUuid !== nexusUuid) await this.#fence();
    const mine: Claimant = { epoch, nexusUuid, onFenced };
    this.#local = mine;
    if (!claim.isServing) await this.#leases.othersOver(key);
    if (this.#local !== mine) {
      throw new TrilithError("Superseded", `${what} was taken by a newer nexus meanwhile`);
    }
    return mine;
  }

  #allocation(): Allocation {
    return {
      clusterBytes: this.#pool.clusterBytes,
      bitmap: this.#replica.allocationBitmap(),
    };
  }

  // -------------------------------------------------------------------- by command, from elsewhere

  execute(command: VendorCommand): void {
    this.#context.reactor.background(this.#execute(command));
  }

  async #execute(command: VendorCommand): Promise<void> {
    try {
      await this.#serve(command);
    } catch (error) {
      if (!(error instanceof TrilithError)) throw error;
      const isFenced = error.code === "Superseded";
      const status = isFenced ? Status.RESERVATION_CONFLICT : facesOf(error.code).nvme;
      this.#context.log("warn", "replica command failed", {
        replica: this.#replica.uuid,
        opcode: command.opcode,
        host: command.hostNqn,
        reason: toErrorBody(error).message,
      });
      command.respond(status | STATUS_DNR);
    }
  }

  async #serve(command: VendorCommand): Promise<void> {
    const { intent } = this.#replica;
    switch (command.opcode) {
      case ReplicaOpcode.READ_STATE:
        command.respond(0, encodeState(this.readState()).subarray(0, command.room));
        return;
      case ReplicaOpcode.WRITE_STATE:
        await this.#writeState(decodeState(command.data));
        break;
      case ReplicaOpcode.CLAIM: {
        const { epoch, nexusUuid, isServing } = decodeClaim(command.data);
        this.#assertEpoch(epoch);
        // The reservation keeps other hosts out. This one may have been here before, on connections
        // that it has given up and that still hold commands of its.
        await command.endFormerControllers();
        if (!isServing) await this.#leases.othersOver(reservationKey(epoch, nexusUuid));
        // Another may have taken it meanwhile.
        this.#assertEpoch(epoch);
        this.#leases.grant(command.association, reservationKey(epoch, nexusUuid));
        break;
      }
      case ReplicaOpcode.RENEW: {
        const { epoch, nexusUuid } = decodeClaim(command.data);
        this.#assertEpoch(epoch);
        const key = reservationKey(epoch, nexusUuid);
        this.#assertHolder(key);
        this.#leases.grant(command.association, key);
        break;
      }
      case ReplicaOpcode.MARK_DIRTY:
        await intent.markDirty(rangesOf(decodeRegions(command.data)));
        break;
      case ReplicaOpcode.CLEAR_DIRTY:
        intent.clearDirty(rangesOf(decodeRegions(command.data)));
        break;
      case ReplicaOpcode.READ_DIRTY:
        this.#respondPart(command, intent.bitmap, 0);
        return;
      case ReplicaOpcode.READ_ALLOCATION: {
        const { bitmap, clusterBytes } = this.#allocation();
        this.#respondPart(command, bitmap, clusterBytes);
        return;
      }
      default:
        command.respond(Status.INVALID_OPCODE | STATUS_DNR);
        return;
    }
    command.respond(0);
  }

  #respondPart(command: VendorCommand, bitmap: Uint8Array, dword0: number): void {
    const from = command.dword(10);
    command.respond(0, bitmap.slice(from, from + command.room), dword0);
  }
}
