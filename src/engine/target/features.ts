/**
 * Get Features and Set Features (Base 2.0, 5.15 and 5.27; NVM Command Set 1.0c, 4.1.3). Nothing is
 * saveable: a Set with SV is refused, and the "saved" value is the default.
 */
import { assert } from "../../assert.ts";
import { asyncEvents } from "../../nvme/async-events.ts";
import { FeatureId, NSID_BROADCAST, STATUS_DNR, Status } from "../../nvme/constants.ts";
import type { Controller } from "./controller.ts";
import { IO_QUEUES_MAX } from "./limits.ts";
import { setPersistent } from "./reservation-state.ts";
import { NAMESPACE_ID } from "./subsystem.ts";

const INVALID_FIELD = Status.INVALID_FIELD | STATUS_DNR;
/** Default of the over-temperature threshold: WCTEMP of Identify Controller, in Kelvin. */
const TEMPERATURE_MAX = 0x157;
/** Bytes of Host Behavior Support (figure 350). */
export const HOST_BEHAVIOR_BYTES = 512;

/** Values of one controller's features; what is not here is fixed or lives with its owner. */
export interface FeatureValues {
  arbitration: number;
  temperatureOver: number;
  temperatureUnder: number;
  errorRecovery: number;
  writeAtomicity: number;
  reservationMask: number;
  hostBehavior: Uint8Array;
}

/** The values that a controller starts with, and goes back to when it is reset. */
export function defaultFeatures(): FeatureValues {
  return {
    arbitration: 0,
    temperatureOver: TEMPERATURE_MAX,
    temperatureUnder: 0,
    errorRecovery: 0,
    writeAtomicity: 0,
    reservationMask: 0,
    hostBehavior: new Uint8Array(HOST_BEHAVIOR_BYTES),
  };
}

/** A feature whose value is one dword. Setters return an NVMe status, 0 when the value was taken. */
interface Feature {
  readonly id: number;
  readonly perNamespace?: boolean;
  readonly forDiscovery?: boolean;
  readonly initial: number | ((dword11: number) => number);
  readonly get: (c: Controller, dword11: number) => number;
  /** Absent: not changeable. */
  readonly set?: (c: Controller, dword11: number) => number;
}

/** Bits of Async Event Configuration that can be set: SMART warnings never occur but may be asked. */
function asyncEventBits(c: Controller): number {
  if (c.discovery !== undefined) return (1 << asyncEvents.discoveryChanged.enableBit) >>> 0;
  const { namespaceChanged, anaChanged } = asyncEvents;
  return 0xff | (1 << namespaceChanged.enableBit) | (1 << anaChanged.enableBit);
}

/** Temperature Threshold (5.27.1.3): composite temperature only (TMPSEL 0, or Fh for all). */
function temperatureSensor(dword11: number): "over" | "under" | undefined {
  const select = (dword11 >>> 16) & 15;
  const type = (dword11 >>> 20) & 3;
  if ((select !== 0 && select !== 15) || type > 1) return undefined;
  return type === 0 ? "over" : "under";
}

/** Set by `setReservationPersistence`, because its change waits for the owner's store. */
const persistence: Feature = {
  id: FeatureId.RESERVATION_PERSISTENCE,
  perNamespace: true,
  initial: 0,
  get: (c) => (c.nvm?.namespace.reservations.state.persistent === true ? 1 : 0),
  set: () => INVALID_FIELD,
};

const features: readonly Feature[] = [
  persistence,
  {
    id: FeatureId.ARBITRATION,
    initial: 0,
    get: (c) => c.features.arbitration,
    set: (c, value) => {
      c.features.arbitration = value;
      return 0;
    },
  },
  {
    id: FeatureId.POWER_MANAGEMENT,
    initial: 0,
    get: () => 0,
    set: (_c, value) => ((value & 31) === 0 ? 0 : INVALID_FIELD),
  },
  {
    id: FeatureId.TEMPERATURE_THRESHOLD,
    initial: (dword11) => (temperatureSensor(dword11) === "under" ? 0 : TEMPERATURE_MAX),
    get: (c, dword11) =>
      temperatureSensor(dword11) === "under"
        ? c.features.temperatureUnder
        : c.features.temperatureOver,
    set: (c, value) => {
      const sensor = temperatureSensor(value);
      if (sensor === undefined) return INVALID_FIELD;
      if (sensor === "under") c.features.temperatureUnder = value & 0xffff;
      else c.features.temperatureOver = value & 0xffff;
      return 0;
    },
  },
  {
    id: FeatureId.ERROR_RECOVERY,
    perNamespace: true,
    initial: 0,
    get: (c) => c.features.errorRecovery,
    set: (c, value) => {
      // Deallocated blocks always read; DULBE (bit 16) would make that an error.
      if ((value & ~0xffff) !== 0) return INVALID_FIELD;
      c.features.errorRecovery = value;
      return 0;
    },
  },
  {
    id: FeatureId.VOLATILE_WRITE_CACHE,
    initial: 1,
    get: () => 1,
    set: (_c, value) => ((value & 1) === 1 ? 0 : Status.FEATURE_NOT_CHANGEABLE | STATUS_DNR),
  },
  {
    id: FeatureId.NUMBER_OF_QUEUES,
    initial: (IO_QUEUES_MAX - 1) * 0x10001,
    get: (c) => (c.queueLimit - 1) * 0x10001,
    set: (c, value) => {
      const submission = value & 0xffff;
      const completion = value >>> 16;
      if (submission === 0xffff || completion === 0xffff) return INVALID_FIELD;
      if (c.queues.size > 0) return Status.COMMAND_SEQUENCE_ERROR | STATUS_DNR;
      c.queueLimit = Math.min(submission + 1, completion + 1, IO_QUEUES_MAX);
      return 0;
    },
  },
  {
    id: FeatureId.WRITE_ATOMICITY,
    initial: 0,
    get: (c) => c.features.writeAtomicity,
    set: (c, value) => {
      c.features.writeAtomicity = value & 1;
      return 0;
    },
  },
  {
    id: FeatureId.ASYNC_EVENT_CONFIGURATION,
    forDiscovery: true,
    initial: 0,
    get: (c) => c.events.configuration,
    set: (c, value) => {
      if ((value & ~asyncEventBits(c)) !== 0) return INVALID_FIELD;
      c.events.configuration = value;
      return 0;
    },
  },
  {
    id: FeatureId.KEEP_ALIVE_TIMER,
    forDiscovery: true,
    initial: 0,
    get: (c) => c.keepAliveMs,
    set: (c, value) => {
      c.keepAliveMs = value;
      return 0;
    },
  },
  {
    id: FeatureId.RESERVATION_NOTIFICATION_MASK,
    perNamespace: true,
    initial: 0,
    get: (c) => c.features.reservationMask,
    set: (c, value) => {
      c.features.reservationMask = value & 0x0e;
      return 0;
    },
  },
];

const byId = new Map(features.map((feature) => [feature.id, feature]));
assert(byId.size === features.length, "features are listed once");

/** How a feature command ended; `data` goes to the host. */
export interface FeatureResult {
  readonly status: number;
  readonly dword0?: number;
  readonly data?: Uint8Array;
}

const CHANGEABLE = 4;
const PER_NAMESPACE = 2;

function namespaceRefusal(feature: Feature, nsid: number): number {
  if (feature.perNamespace === true) {
    const known = nsid === NAMESPACE_ID || nsid === NSID_BROADCAST;
    return known ? 0 : Status.INVALID_NAMESPACE | STATUS_DNR;
  }
  const whole = nsid === 0 || nsid === NSID_BROADCAST;
  return whole ? 0 : Status.FEATURE_NOT_NAMESPACE_SPECIFIC | STATUS_DNR;
}

function find(c: Controller, id: number): Feature | undefined {
  const feature = byId.get(id);
  if (c.discovery !== undefined && feature?.forDiscovery !== true) return undefined;
  return feature;
}

/** Set Features; `data` is what the host sent. */
export function setFeature(
  c: Controller,
  nsid: number,
  dword10: number,
  dword11: number,
  data: Uint8Array | undefined,
): FeatureResult {
  const id = dword10 & 0xff;
  const isSave = dword10 >>> 31 === 1;
  if (id === FeatureId.HOST_BEHAVIOR && c.nvm !== undefined) {
    if (isSave) return { status: Status.FEATURE_NOT_SAVEABLE | STATUS_DNR };
    if (data?.byteLength !== HOST_BEHAVIOR_BYTES) {
      return { status: Status.DATA_SGL_LENGTH_INVALID | STATUS_DNR };
    }
    c.features.hostBehavior = data;
    return { status: 0 };
  }
  // Fabrics hosts told their identifier with Connect and may not change it (5.27.1.25).
  if (id === FeatureId.HOST_IDENTIFIER && c.nvm !== undefined) {
    return { status: Status.COMMAND_SEQUENCE_ERROR | STATUS_DNR };
  }
  const feature = find(c, id);
  if (feature === undefined) return { status: INVALID_FIELD };
  if (isSave) return { status: Status.FEATURE_NOT_SAVEABLE | STATUS_DNR };
  const refusal = namespaceRefusal(feature, nsid);
  if (refusal !== 0) return { status: refusal };
  if (feature.set === undefined) return { status: Status.FEATURE_NOT_CHANGEABLE | STATUS_DNR };
  const status = feature.set(c, dword11);
  return {
    status,
    dword0: status === 0 && id === FeatureId.NUMBER_OF_QUEUES ? feature.get(c, 0) : 0,
  };
}

/** Set Features of Reservation Persistence (5.27.1.27): resolves with an NVMe status. */
export function setReservationPersistence(
  c: Controller,
  nsid: number,
  dword10: number,
  dword11: number,
): Promise<number> {
  const refuse = (status: number): Promise<number> => Promise.resolve(status | STATUS_DNR);
  if (c.nvm === undefined) return refuse(Status.INVALID_FIELD);
  if (dword10 >>> 31 === 1) return refuse(Status.FEATURE_NOT_SAVEABLE);
  const isKnown = nsid === NAMESPACE_ID || nsid === NSID_BROADCAST;
  if (!isKnown) return refuse(Status.INVALID_NAMESPACE);
  const { reservations } = c.nvm.namespace;
  const isOn = (dword11 & 1) === 1;
  if (isOn && !reservations.canPersist) return refuse(Status.INVALID_FIELD);
  return reservations.run((state) => setPersistent(state, isOn));
}

/** Get Features, with SEL: current, default, saved, supported capabilities. */
export function getFeature(
  c: Controller,
  nsid: number,
  dword10: number,
  dword11: number,
): FeatureResult {
  const id = dword10 & 0xff;
  const select = (dword10 >>> 8) & 7;
  if (select > 3) return { status: INVALID_FIELD };
  if (id === FeatureId.HOST_BEHAVIOR && c.nvm !== undefined) {
    if (select === 3) return { status: 0, dword0: CHANGEABLE };
    const data = select === 0 ? c.features.hostBehavior : new Uint8Array(HOST_BEHAVIOR_BYTES);
    return { status: 0, data };
  }
  if (id === FeatureId.HOST_IDENTIFIER && c.nvm !== undefined) {
    if (select === 3) return { status: 0, dword0: 0 };
    // EXHID: over Fabrics the identifier has 128 bits.
    if ((dword11 & 1) === 0) return { status: INVALID_FIELD };
    return { status: 0, dword0: 1, data: Uint8Array.from(Buffer.from(c.hostId, "hex")) };
  }
  const feature = find(c, id);
  if (feature === undefined) return { status: INVALID_FIELD };
  if (feature.perNamespace === true && nsid !== NAMESPACE_ID) {
    return { status: Status.INVALID_NAMESPACE | STATUS_DNR };
  }
  if (select === 3) {
    const changeable = feature.set === undefined ? 0 : CHANGEABLE;
    return { status: 0, dword0: changeable | (feature.perNamespace === true ? PER_NAMESPACE : 0) };
  }
  if (id === FeatureId.TEMPERATURE_THRESHOLD && temperatureSensor(dword11) === undefined) {
    return { status: INVALID_FIELD };
  }
  const { initial } = feature;
  if (select === 0) return { status: 0, dword0: feature.get(c, dword11) };
  return { status: 0, dword0: typeof initial === "number" ? initial : initial(dword11) };
}
