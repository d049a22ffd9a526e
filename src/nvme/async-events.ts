/** Asynchronous events (Base 2.0, 5.2): what a controller tells a host without being asked. Pure. */
import { LogPageId } from "./constants.ts";

/** Event types (figure 146). */
export const AsyncEventType = {
  ERROR: 0,
  SMART: 1,
  NOTICE: 2,
  COMMAND_SET: 6,
} as const;

/** One kind of event: what its completion says, and the bit that enables it. */
export interface AsyncEventKind {
  readonly name: string;
  readonly type: number;
  readonly information: number;
  readonly logPage: number;
  /** Bit of Async Event Configuration (figure 326), or undefined: it cannot be disabled there. */
  readonly enableBit: number | undefined;
}

/** The kinds that the target raises (figures 147 to 151). */
export const asyncEvents = {
  internalError: {
    name: "transient internal error",
    type: AsyncEventType.ERROR,
    information: 4,
    logPage: LogPageId.ERROR,
    enableBit: undefined,
  },
  namespaceChanged: {
    name: "namespace attribute changed",
    type: AsyncEventType.NOTICE,
    information: 0,
    logPage: LogPageId.CHANGED_NAMESPACES,
    enableBit: 8,
  },
  anaChanged: {
    name: "asymmetric namespace access change",
    type: AsyncEventType.NOTICE,
    information: 3,
    logPage: LogPageId.ANA,
    enableBit: 11,
  },
  discoveryChanged: {
    name: "discovery log page change",
    type: AsyncEventType.NOTICE,
    information: 0xf0,
    logPage: LogPageId.DISCOVERY,
    enableBit: 31,
  },
  reservationNotice: {
    name: "reservation log page available",
    type: AsyncEventType.COMMAND_SET,
    information: 0,
    logPage: LogPageId.RESERVATION_NOTIFICATION,
    enableBit: undefined,
  },
} as const satisfies Record<string, AsyncEventKind>;

/** Dword 0 of the completion that reports an event (figure 145). */
export function asyncEventDword0(kind: AsyncEventKind): number {
  return kind.type | (kind.information << 8) | (kind.logPage << 16);
}
