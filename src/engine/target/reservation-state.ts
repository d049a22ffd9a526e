/**
 * Reservations of one namespace as a state machine (Base 2.0, 8.19). Pure: a command turns a state
 * into another, and says who is to be told.
 */
import { STATUS_DNR, Status } from "../../nvme/constants.ts";
import { ReservationNotice } from "../../nvme/log-pages.ts";
import {
  AcquireAction,
  type AcquireCommand,
  RegisterAction,
  type RegisterCommand,
  ReleaseAction,
  type ReleaseCommand,
  ReservationKind,
} from "../../nvme/reservations.ts";
import { REGISTRANTS_MAX } from "./limits.ts";

/** Accesses to a namespace, as bits. */
export const Access = { READ: 1, WRITE: 2 } as const;

export interface Registrant {
  /** Host identifier, 32 lower-case hex digits. */
  readonly hostId: string;
  readonly key: bigint;
}

export interface ReservationState {
  /** Counts registrations, preemptions and clears. */
  readonly generation: number;
  /** A value of `ReservationKind`; NONE: no reservation is held. */
  readonly type: number;
  /** Host that holds the reservation; undefined without one, and with an "all registrants" type. */
  readonly holder: string | undefined;
  /** Persist through power loss (PTPL). */
  readonly persistent: boolean;
  readonly registrants: readonly Registrant[];
}

export const noReservations: ReservationState = {
  generation: 0,
  type: ReservationKind.NONE,
  holder: undefined,
  persistent: false,
  registrants: [],
};

/** What a command did. */
export interface ReservationOutcome {
  /** NVMe status; other than 0, `state` is unchanged. */
  readonly status: number;
  readonly state: ReservationState;
  /** Notifications for the controllers of hosts, of the types of `ReservationNotice`. */
  readonly notices: readonly { readonly hostId: string; readonly type: number }[];
  /** Hosts that lost their registration, or their reservation, to somebody else. */
  readonly preempted: readonly string[];
  /** Commands of the preempted hosts are to be aborted. */
  readonly aborts: boolean;
}

/** True when every registrant holds a reservation of this type. */
export function isAllRegistrants(type: number): boolean {
  return (
    type === ReservationKind.WRITE_EXCLUSIVE_ALL || type === ReservationKind.EXCLUSIVE_ACCESS_ALL
  );
}

/** True when registrants other than the holder may write under this type. */
function isForRegistrants(type: number): boolean {
  return type >= ReservationKind.WRITE_EXCLUSIVE_REGISTRANTS;
}

/** True when hosts without a registration may read under this type. */
function isWriteExclusive(type: number): boolean {
  return (type & 1) === 1;
}

/** True when this host holds the reservation. */
export function holds(state: ReservationState, hostId: string): boolean {
  if (state.type === ReservationKind.NONE) return false;
  if (isAllRegistrants(state.type)) return registrantOf(state, hostId) !== undefined;
  return state.holder === hostId;
}

function registrantOf(state: ReservationState, hostId: string): Registrant | undefined {
  return state.registrants.find((registrant) => registrant.hostId === hostId);
}

/** Accesses (bits of `Access`) that the reservation denies a host (8.19, figure 441). */
export function deniedTo(state: ReservationState, hostId: string): number {
  const { type } = state;
  if (type === ReservationKind.NONE || holds(state, hostId)) return 0;
  if (isForRegistrants(type) && registrantOf(state, hostId) !== undefined) return 0;
  return isWriteExclusive(type) ? Access.WRITE : Access.READ | Access.WRITE;
}

function refused(state: ReservationState, status: number): ReservationOutcome {
  return { status: status | STATUS_DNR, state, notices: [], preempted: [], aborts: false };
}

function conflict(state: ReservationState): ReservationOutcome {
  return { ...refused(state, 0), status: Status.RESERVATION_CONFLICT };
}

function done(state: ReservationState, more: Partial<ReservationOutcome> = {}): ReservationOutcome {
  return { status: 0, state, notices: [], preempted: [], aborts: false, ...more };
}

function next(state: ReservationState, change: Partial<ReservationState>): ReservationState {
  return { ...state, ...change, generation: (state.generation + 1) >>> 0 };
}

const released = { type: ReservationKind.NONE, holder: undefined } as const;

/** Registrants without some hosts, and what becomes of the reservation when those leave. */
function without(
  state: ReservationState,
  leaves: (registrant: Registrant) => boolean,
): Partial<ReservationState> {
  const registrants = state.registrants.filter((registrant) => !leaves(registrant));
  const { type, holder } = state;
  const isHeld = isAllRegistrants(type)
    ? registrants.length > 0
    : registrants.some(({ hostId }) => hostId === holder);
  return isHeld || type === ReservationKind.NONE ? { registrants } : { registrants, ...released };
}

/** Notices of one type for every registrant but `except`. */
function tellOthers(
  registrants: readonly Registrant[],
  except: string,
  type: number,
): { hostId: string; type: number }[] {
  return registrants
    .filter(({ hostId }) => hostId !== except)
    .map(({ hostId }) => ({ hostId, type }));
}

/** Reservation Register (7.3). `canPersist`: the namespace can keep its reservations. */
export function register(
  state: ReservationState,
  hostId: string,
  command: RegisterCommand,
  canPersist: boolean,
): ReservationOutcome {
  const { persist } = command;
  if (persist === "reserved" || (persist === true && !canPersist)) {
    return refused(state, Status.INVALID_FIELD);
  }
  const persistent = persist ?? state.persistent;
  const present = registrantOf(state, hostId);
  const keyFits = command.ignoresKey || present?.key === command.currentKey;
  switch (command.action) {
    case RegisterAction.REGISTER:
      if (present !== undefined && present.key !== command.newKey) return conflict(state);
      return enrol(state, hostId, command.newKey, persistent);
    case RegisterAction.REPLACE:
      if (!keyFits || (present === undefined && !command.ignoresKey)) return conflict(state);
      return enrol(state, hostId, command.newKey, persistent);
    case RegisterAction.UNREGISTER: {
      if (present === undefined || !keyFits) return conflict(state);
      const change = without(state, (registrant) => registrant === present);
      const after = next(state, { ...change, persistent });
      // Registrants that wrote under the reservation hear that it is gone (8.19.4).
      const isGone = change.type === ReservationKind.NONE && isForRegistrants(state.type);
      const notice = ReservationNotice.RESERVATION_RELEASED;
      return done(after, { notices: isGone ? tellOthers(after.registrants, hostId, notice) : [] });
    }
    default:
      return refused(state, Status.INVALID_FIELD);
  }
}

/** Adds a registrant or changes its key. A key of zero means "none" elsewhere and is refused. */
function enrol(
  state: ReservationState,
  hostId: string,
  key: bigint,
  persistent: boolean,
): ReservationOutcome {
  if (key === 0n) return refused(state, Status.INVALID_FIELD);
  const others = state.registrants.filter((registrant) => registrant.hostId !== hostId);
  if (others.length >= REGISTRANTS_MAX) return refused(state, Status.CAPACITY_EXCEEDED);
  return done(next(state, { persistent, registrants: [...others, { hostId, key }] }));
}

/** Reservation Acquire (7.2). */
export function acquire(
  state: ReservationState,
  hostId: string,
  command: AcquireCommand,
): ReservationOutcome {
  const { type, action, ignoresKey } = command;
  // IEKEY is for Register alone since revision 1.3 (RESCAP bit 7).
  const isKnown =
    type >= ReservationKind.WRITE_EXCLUSIVE && type <= ReservationKind.EXCLUSIVE_ACCESS_ALL;
  if (ignoresKey || !isKnown || action > AcquireAction.PREEMPT_AND_ABORT) {
    return refused(state, Status.INVALID_FIELD);
  }
  if (registrantOf(state, hostId)?.key !== command.currentKey) return conflict(state);
  if (action !== AcquireAction.ACQUIRE) return preempt(state, hostId, command);
  if (state.type === ReservationKind.NONE) return done({ ...state, ...heldBy(hostId, type) });
  return holds(state, hostId) && state.type === type ? done(state) : conflict(state);
}

function heldBy(hostId: string, type: number): Pick<ReservationState, "type" | "holder"> {
  return { type, holder: isAllRegistrants(type) ? undefined : hostId };
}

/** Preempt, with or without abort (8.19.7). */
function preempt(
  state: ReservationState,
  hostId: string,
  command: AcquireCommand,
): ReservationOutcome {
  const { preemptKey, type } = command;
  const isAll = isAllRegistrants(state.type);
  const isEverybody = isAll && preemptKey === 0n;
  if (preemptKey === 0n && !isAll) return refused(state, Status.INVALID_FIELD);
  const matches = ({ key }: Registrant): boolean => isEverybody || key === preemptKey;
  if (!state.registrants.some(matches)) return conflict(state);
  const leaving = state.registrants.filter((r) => matches(r) && r.hostId !== hostId);
  const holderKey = state.registrants.find((r) => r.hostId === state.holder)?.key;
  const takes = isEverybody || (holderKey !== undefined && holderKey === preemptKey);
  const change = without(state, (registrant) => leaving.includes(registrant));
  const after = next(state, takes ? { ...change, ...heldBy(hostId, type) } : change);
  const notices = leaving.map((registrant) => ({
    hostId: registrant.hostId,
    type: ReservationNotice.REGISTRATION_PREEMPTED as number,
  }));
  // Those that stay hear that the rules have changed.
  const isReleased = state.type !== ReservationKind.NONE && after.type !== state.type;
  if (isReleased) {
    notices.push(...tellOthers(after.registrants, hostId, ReservationNotice.RESERVATION_RELEASED));
  }
  const preempted = leaving.map((registrant) => registrant.hostId);
  return done(after, {
    notices,
    preempted,
    aborts: command.action === AcquireAction.PREEMPT_AND_ABORT,
  });
}

/** Reservation Release (7.5). */
export function release(
  state: ReservationState,
  hostId: string,
  command: ReleaseCommand,
): ReservationOutcome {
  const { action, ignoresKey } = command;
  if (ignoresKey || action > ReleaseAction.CLEAR) return refused(state, Status.INVALID_FIELD);
  if (registrantOf(state, hostId)?.key !== command.currentKey) return conflict(state);
  if (action === ReleaseAction.CLEAR) {
    const notice = ReservationNotice.RESERVATION_PREEMPTED;
    const notices = tellOthers(state.registrants, hostId, notice);
    const preempted = notices.map((n) => n.hostId);
    return done(next(state, { registrants: [], ...released }), { notices, preempted });
  }
  if (!holds(state, hostId)) return done(state);
  if (state.type !== command.type) return refused(state, Status.INVALID_FIELD);
  const isTold = isForRegistrants(state.type);
  const notice = ReservationNotice.RESERVATION_RELEASED;
  return done(
    { ...state, ...released },
    { notices: isTold ? tellOthers(state.registrants, hostId, notice) : [] },
  );
}

/** Changes "persist through power loss" on its own (feature 83h). */
export function setPersistent(state: ReservationState, persistent: boolean): ReservationOutcome {
  return done({ ...state, persistent });
}
