/**
 * What a pool keeps about each replica and snapshot besides its data: who it belongs to and how
 * healthy it was known to be, so that the control plane's store can be rebuilt from disks alone.
 *
 * | tag | attribute           | encoding                                             |
 * |-----|---------------------|------------------------------------------------------|
 * | 1   | name                | UTF-8                                                |
 * | 2   | volume UUID         | 16 bytes                                             |
 * | 3   | entity id           | UTF-8                                                |
 * | 4   | epoch               | u64                                                  |
 * | 5   | health generation   | u64                                                  |
 * | 6   | dirty base          | u64: generation since which write-intent is complete |
 * | 7   | clean               | u8: its last nexus was closed in an orderly way      |
 * | 8   | share protocol      | u8: 0 none, 1 nvmf, 2 nbd                            |
 * | 9   | allowed hosts       | each: length u16, UTF-8                              |
 * | 10  | reservation state   | bytes that belong to the NVMe target                 |
 * | 11  | transaction id      | UTF-8 (snapshots)                                    |
 * | 12  | creation time       | u64, ms since 1970                                   |
 * | 13  | source UUID         | 16 bytes: replica of a snapshot, snapshot of a clone |
 * | 14  | boot id             | 16 bytes: of the machine on which it was last whole  |
 *
 * An attribute of length 0, or none, has its default (empty, zero, false, none).
 */
import { TrilithError } from "../../errors.ts";
import { isUuid } from "../bdev/uri.ts";
import { corrupted, Decoder, Encoder, textOf, utf8, uuidBytes, uuidText } from "./codec.ts";
import {
  ALLOWED_HOSTS_MAX,
  ATTRIBUTE_BYTES_MAX,
  ID_BYTES_MAX,
  NAME_BYTES_MAX,
  NQN_BYTES_MAX,
  RESERVATION_BYTES_MAX,
} from "./limits.ts";
import { type AttributeMap, attributeBytes } from "./records.ts";

const Tag = {
  NAME: 1,
  VOLUME: 2,
  ENTITY: 3,
  EPOCH: 4,
  HEALTH: 5,
  DIRTY_BASE: 6,
  CLEAN: 7,
  SHARE: 8,
  HOSTS: 9,
  RESERVATION: 10,
  TXN: 11,
  CREATED: 12,
  SOURCE: 13,
  BOOT: 14,
} as const;

/** How a replica is shared. */
export type ShareProtocol = "none" | "nvmf" | "nbd";
const SHARES: readonly ShareProtocol[] = ["none", "nvmf", "nbd"];

/** The attributes of a replica or snapshot. */
export interface Attributes {
  /** Unique in the pool among replicas and snapshots. */
  readonly name: string;
  /** The volume it is a copy of, or "". */
  readonly volumeUuid: string;
  /** Id of whatever the caller relates it to (Mayastor's entity id), or "". */
  readonly entityId: string;
  /** Epoch of the volume that last wrote to it (design 6.5). */
  readonly epoch: number;
  /** Generation of the volume's health record that counts it in or out (design 6.6). */
  readonly healthGeneration: number;
  /** Health generation since which the write-intent bitmap is complete. */
  readonly dirtyBaseGeneration: number;
  /** The last nexus over it was closed in an orderly way: in-sync copies are identical. */
  readonly clean: boolean;
  readonly share: ShareProtocol;
  /** Host NQNs that may connect; empty: as the target's default says. */
  readonly allowedHosts: readonly string[];
  /** Reservation state of its namespace (PTPL); the target's own encoding, at most 16 KiB. */
  readonly reservation: Uint8Array;
  /** Transaction that took the snapshot, or "". */
  readonly txnId: string;
  /** Milliseconds since 1970, as given by the creator; 0 when not given. */
  readonly createdAtMs: number;
  /** The replica a snapshot was taken of, or the snapshot a clone was made from, or "". */
  readonly sourceUuid: string;
  /**
   * Boot id of the machine when a nexus last said that it holds everything, or "". While the machine has not been
   * started anew since, nothing that was written to it is missing, flushed or not.
   */
  readonly bootId: string;
}

function number64(value: number): Uint8Array {
  return new Encoder(8).u64(value).bytes;
}

function invalid(what: string): TrilithError {
  return new TrilithError("InvalidArgument", what);
}

function textValue(what: string, text: string, max: number): Uint8Array {
  const bytes = utf8(text);
  if (bytes.byteLength > max) throw invalid(`${what} is longer than ${max} bytes`);
  if (text.includes("\0")) throw invalid(`${what} contains a zero byte`);
  return bytes;
}

function uuidValue(what: string, uuid: string): Uint8Array {
  if (uuid === "") return new Uint8Array(0);
  if (!isUuid(uuid)) throw invalid(`${what} "${uuid}" is not a UUID in lower case`);
  return uuidBytes(uuid);
}

function countValue(what: string, value: number): Uint8Array {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw invalid(`${what} ${value} is not a whole number from 0 on`);
  }
  return number64(value);
}

function hostsValue(hosts: readonly string[]): Uint8Array {
  if (hosts.length > ALLOWED_HOSTS_MAX) {
    throw invalid(`${hosts.length} allowed hosts, at most ${ALLOWED_HOSTS_MAX} are possible`);
  }
  const e = new Encoder(hosts.length * (NQN_BYTES_MAX + 2));
  for (const host of hosts) {
    if (host === "") throw invalid("an allowed host is empty");
    e.sized(textValue(`allowed host "${host}"`, host, NQN_BYTES_MAX));
  }
  return e.bytes.slice(0, e.at);
}

function reservationValue(bytes: Uint8Array): Uint8Array {
  if (bytes.byteLength > RESERVATION_BYTES_MAX) {
    throw invalid(`the reservation state exceeds ${RESERVATION_BYTES_MAX} bytes`);
  }
  return bytes.slice();
}

/** Throws `InvalidArgument` unless it can be the name of a pool, replica or snapshot. */
export function checkName(what: string, name: string): void {
  if (!/^[A-Za-z0-9][A-Za-z0-9._:-]*$/.test(name) || utf8(name).byteLength > NAME_BYTES_MAX) {
    throw invalid(
      `${what} "${name}" is not 1 to ${NAME_BYTES_MAX} letters, digits, or any of . _ : -`,
    );
  }
}

/** The given attributes as they are stored. Throws `InvalidArgument` that names the one at fault. */
export function encodeAttributes(given: Partial<Attributes>): AttributeMap {
  const out = new Map<number, Uint8Array>();
  const put = <K extends keyof Attributes>(
    key: K,
    tag: number,
    encode: (value: Attributes[K]) => Uint8Array,
  ) => {
    const value = given[key];
    if (value !== undefined) out.set(tag, encode(value as Attributes[K]));
  };
  put("name", Tag.NAME, (name) => {
    checkName("name", name);
    return utf8(name);
  });
  put("volumeUuid", Tag.VOLUME, (v) => uuidValue("volume", v));
  put("entityId", Tag.ENTITY, (v) => textValue("entity id", v, ID_BYTES_MAX));
  put("epoch", Tag.EPOCH, (v) => countValue("epoch", v));
  put("healthGeneration", Tag.HEALTH, (v) => countValue("health generation", v));
  put("dirtyBaseGeneration", Tag.DIRTY_BASE, (v) => countValue("dirty base generation", v));
  put("clean", Tag.CLEAN, (v) => Uint8Array.of(v ? 1 : 0));
  put("share", Tag.SHARE, (v) => Uint8Array.of(SHARES.indexOf(v)));
  put("allowedHosts", Tag.HOSTS, hostsValue);
  put("reservation", Tag.RESERVATION, reservationValue);
  put("txnId", Tag.TXN, (v) => textValue("transaction id", v, ID_BYTES_MAX));
  put("createdAtMs", Tag.CREATED, (v) => countValue("creation time", v));
  put("sourceUuid", Tag.SOURCE, (v) => uuidValue("source", v));
  put("bootId", Tag.BOOT, (v) => uuidValue("boot id", v));
  return out;
}

/** `present` with `changes` put over it. Throws `InvalidArgument` when together they are too long. */
export function mergeAttributes(present: AttributeMap, changes: AttributeMap): AttributeMap {
  const merged = new Map(present);
  for (const [tag, value] of changes) merged.set(tag, value);
  if (attributeBytes(merged) > ATTRIBUTE_BYTES_MAX) {
    throw invalid(`the attributes exceed ${ATTRIBUTE_BYTES_MAX} bytes together`);
  }
  return merged;
}

function decodeHosts(bytes: Uint8Array): string[] {
  const hosts: string[] = [];
  const d = new Decoder(bytes);
  while (d.left > 0) hosts.push(textOf(d.sized()));
  return hosts;
}

/** The attributes that are stored. Throws `Corrupted` when one does not have its form. */
export function decodeAttributeMap(map: AttributeMap): Attributes {
  const bytes = (tag: number) => map.get(tag) ?? new Uint8Array(0);
  const text = (tag: number) => textOf(bytes(tag));
  const count = (tag: number) => {
    const value = bytes(tag);
    return value.byteLength === 0 ? 0 : new Decoder(value).u64();
  };
  const uuid = (tag: number) => {
    const value = bytes(tag);
    if (value.byteLength === 0) return "";
    if (value.byteLength !== 16) throw corrupted("a UUID does not have 16 bytes");
    return uuidText(value, 0);
  };
  const share = SHARES[bytes(Tag.SHARE)[0] ?? 0];
  if (share === undefined) throw corrupted("unknown share protocol");
  return {
    name: text(Tag.NAME),
    volumeUuid: uuid(Tag.VOLUME),
    entityId: text(Tag.ENTITY),
    epoch: count(Tag.EPOCH),
    healthGeneration: count(Tag.HEALTH),
    dirtyBaseGeneration: count(Tag.DIRTY_BASE),
    clean: bytes(Tag.CLEAN)[0] === 1,
    share,
    allowedHosts: decodeHosts(bytes(Tag.HOSTS)),
    reservation: bytes(Tag.RESERVATION).slice(),
    txnId: text(Tag.TXN),
    createdAtMs: count(Tag.CREATED),
    sourceUuid: uuid(Tag.SOURCE),
    bootId: uuid(Tag.BOOT),
  };
}
