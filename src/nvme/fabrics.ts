/** Connect, the first command on every Fabrics queue (Base 2.0, 6.3). Pure. */

/** Bytes of the Connect data. */
export const CONNECT_DATA_BYTES = 1024;
/** Controller id that asks for a new (dynamic) controller. */
export const CONTROLLER_ID_DYNAMIC = 0xffff;

const HOST_ID_BYTES = 16;
const NQN_FIELD_BYTES = 256;
const AT_CONTROLLER_ID = 16;
const AT_SUBSYSTEM_NQN = 256;
const AT_HOST_NQN = 512;

/** The command part of Connect. */
export interface ConnectCommand {
  readonly recordFormat: number;
  readonly queueId: number;
  /** Entries of the queue, 1-based. */
  readonly entries: number;
  readonly flowControlOff: boolean;
  readonly keepAliveMs: number;
}

/** The data part of Connect. */
export interface ConnectData {
  /** 32 lower-case hex digits. */
  readonly hostId: string;
  readonly controllerId: number;
  readonly subsystemNqn: string;
  readonly hostNqn: string;
}

/** Reads the Connect fields of a submission queue entry that starts at `view`. */
export function decodeConnectCommand(view: DataView): ConnectCommand {
  return {
    recordFormat: view.getUint16(40, true),
    queueId: view.getUint16(42, true),
    entries: view.getUint16(44, true) + 1,
    flowControlOff: (view.getUint8(46) & 4) !== 0,
    keepAliveMs: view.getUint32(48, true),
  };
}

function decodeNqn(bytes: Uint8Array): string | undefined {
  const end = bytes.indexOf(0);
  if (end < 0) return undefined;
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(0, end));
  } catch {
    return undefined;
  }
}

/**
 * Reads Connect data, or says at which byte the field is that is wrong. Some hosts leave their NQN
 * empty; that is let through as "", which no list of admitted hosts contains.
 */
export function decodeConnectData(bytes: Uint8Array): ConnectData | { readonly invalidAt: number } {
  const subsystemNqn = decodeNqn(
    bytes.subarray(AT_SUBSYSTEM_NQN, AT_SUBSYSTEM_NQN + NQN_FIELD_BYTES),
  );
  if (subsystemNqn === undefined || subsystemNqn === "") return { invalidAt: AT_SUBSYSTEM_NQN };
  const hostNqn = decodeNqn(bytes.subarray(AT_HOST_NQN, AT_HOST_NQN + NQN_FIELD_BYTES));
  if (hostNqn === undefined) return { invalidAt: AT_HOST_NQN };
  return {
    hostId: Buffer.from(bytes.subarray(0, HOST_ID_BYTES)).toString("hex"),
    controllerId: bytes[AT_CONTROLLER_ID]! | (bytes[AT_CONTROLLER_ID + 1]! << 8),
    subsystemNqn,
    hostNqn,
  };
}

/** The 1,024 bytes of Connect data. */
export function encodeConnectData(data: ConnectData): Uint8Array {
  const bytes = new Uint8Array(CONNECT_DATA_BYTES);
  bytes.set(Buffer.from(data.hostId, "hex"), 0);
  bytes[AT_CONTROLLER_ID] = data.controllerId & 0xff;
  bytes[AT_CONTROLLER_ID + 1] = data.controllerId >> 8;
  bytes.set(new TextEncoder().encode(data.subsystemNqn), AT_SUBSYSTEM_NQN);
  bytes.set(new TextEncoder().encode(data.hostNqn), AT_HOST_NQN);
  return bytes;
}
