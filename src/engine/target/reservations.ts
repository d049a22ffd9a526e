/**
 * Reservations of one namespace at run time: commands one after the other, kept through power loss
 * where the namespace's owner has a place for them, and everybody told who must know. Hosts are
 * known by their identifier alone, so that the engine's own users of a namespace can take part.
 */
import { assert } from "../../assert.ts";
import { Status } from "../../nvme/constants.ts";
import {
  deniedTo,
  noReservations,
  type ReservationOutcome,
  type ReservationState,
} from "./reservation-state.ts";

export { Access, type ReservationState } from "./reservation-state.ts";

/** Where the owner of a namespace keeps its reservations. */
export interface ReservationStore {
  /** What was saved last, or undefined. */
  load(): ReservationState | undefined;
  /** Resolves when `state` is on stable storage. */
  save(state: ReservationState): Promise<void>;
}

/** Somebody who must know of changes. Called in the order of registration. */
export interface ReservationListener {
  /** The state has changed; before the command that changed it is answered. */
  changed?(outcome: ReservationOutcome): void;
  /**
   * Hosts were preempted. The command that did it is answered once the promise resolves: when
   * nothing that those hosts began can reach the device any more.
   */
  preempted?(hostIds: readonly string[], aborts: boolean): void | Promise<void>;
}

export class Reservations {
  readonly #store: ReservationStore | undefined;
  readonly #listeners = new Set<ReservationListener>();
  #state: ReservationState;
  /** The last command in line. */
  #tail: Promise<unknown> = Promise.resolve();

  constructor(store?: ReservationStore) {
    this.#store = store;
    const saved = store?.load();
    this.#state = saved?.persistent === true ? saved : noReservations;
  }

  get state(): ReservationState {
    return this.#state;
  }

  /** True when reservations can persist through power loss. */
  get canPersist(): boolean {
    return this.#store !== undefined;
  }

  /** Accesses (bits of `Access`) that are denied to a host at present. */
  deniedTo(hostId: string): number {
    return deniedTo(this.#state, hostId);
  }

  /** Registers a listener; returns the function that takes it off. */
  listen(listener: ReservationListener): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  /**
   * Applies a command to the state, after those that came before it. Resolves with its NVMe status
   * once the new state is saved and hosts that it preempted have nothing under way. When it cannot be
   * saved nothing changes, and the status is "internal error".
   */
  run(command: (state: ReservationState) => ReservationOutcome): Promise<number> {
    const turn = this.#tail.then(() => this.#apply(command(this.#state)));
    this.#tail = turn;
    return turn;
  }

  async #apply(outcome: ReservationOutcome): Promise<number> {
    const { status, state, preempted, aborts } = outcome;
    if (status !== 0) {
      assert(state === this.#state, "a refused command changes nothing");
      return status;
    }
    const mustSave = state !== this.#state && (state.persistent || this.#state.persistent);
    if (mustSave && this.#store !== undefined) {
      try {
        await this.#store.save(state);
      } catch {
        return Status.INTERNAL_ERROR;
      }
    }
    this.#state = state;
    for (const listener of this.#listeners) listener.changed?.(outcome);
    if (preempted.length > 0) {
      await Promise.all([...this.#listeners].map((l) => l.preempted?.(preempted, aborts)));
    }
    return 0;
  }
}
