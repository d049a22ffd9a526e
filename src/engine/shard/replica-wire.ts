/**
 * The vendor commands by which a nexus reaches what a remote replica keeps beside its blocks. Pure.
 *
 * | opcode | name            | dword 10    | data                                                   |
 * |--------|-----------------|-------------|--------------------------------------------------------|
 * | C1h    | write state     |             | to the replica: 64 bytes, see below                    |
 * | C2h    | read state      |             | from it: 64 bytes, see below                           |
 * | C5h    | mark dirty      |             | to it: regions, u32 each; durable when answered        |
 * | C6h    | read dirty      | byte offset | from it: that part of the bitmap of dirty regions      |
 * | C9h    | clear dirty     |             | to it: regions, u32 each                               |
 * | CAh    | read allocation | byte offset | from it: that part of the bitmap of allocated clusters |
 * | CDh    | claim           |             | to it: 64 bytes, see below                             |
 * | D1h    | renew           |             | to it: a claim; grants the read lease anew             |
 *
 * Result dword 0 of "read allocation" is the cluster size. State: magic u32, version u32, epoch u64,
 * generation u64, base generation u64, clean u8, may lack writes u8, zeroes. Claim: magic u32, version u32, epoch u64,
 * nexus UUID 16 bytes, serving u8 (the nexus serves already: leases of others are not waited for), zeroes.
 */
import { TrilithError } from "../../errors.ts";
import type { SyncState } from "../nexus/index.ts";

export const ReplicaOpcode = {
  WRITE_STATE: 0xc1,
  READ_STATE: 0xc2,
  MARK_DIRTY: 0xc5,
  READ_DIRTY: 0xc6,
  CLEAR_DIRTY: 0xc9,
  READ_ALLOCATION: 0xca,
  CLAIM: 0xcd,
  RENEW: 0xd1,
} as const;

export const STATE_BYTES = 64;
/** Bytes of a bitmap that one command carries. */
export const BITMAP_PIECE_BYTES = 256 << 10;
/** Regions that one command names. */
export const REGIONS_PER_COMMAND = 4096;

const STATE_MAGIC = 0x53524c54; // "TLRS"
const CLAIM_MAGIC = 0x43524c54; // "TLRC"
const VERSION = 1;

function begin(magic: number): DataView {
  const view = new DataView(new ArrayBuffer(STATE_BYTES));
  view.setUint32(0, magic, true);
  view.setUint32(4, VERSION, true);
  return view;
}

function opened(bytes: Uint8Array, magic: number, what: string): DataView {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const isWhole =
    bytes.byteLength >= STATE_BYTES &&
    view.getUint32(0, true) === magic &&
    view.getUint32(4, true) === VERSION;
  if (isWhole) return view;
  throw new TrilithError(
    "InvalidArgument",
    `${what} is malformed or of another version`,
    "run the same version on both nodes",
  );
}

function countAt(view: DataView, at: number, what: string): number {
  const value = view.getBigUint64(at, true);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new TrilithError("InvalidArgument", `${what} ${value} is out of range`);
  }
  return Number(value);
}

export function encodeState(state: SyncState): Uint8Array {
  const view = begin(STATE_MAGIC);
  view.setBigUint64(8, BigInt(state.epoch), true);
  view.setBigUint64(16, BigInt(state.generation), true);
  view.setBigUint64(24, BigInt(state.baseGeneration), true);
  view.setUint8(32, state.clean ? 1 : 0);
  view.setUint8(33, state.mayLack ? 1 : 0);
  return new Uint8Array(view.buffer);
}

/** Throws `InvalidArgument`. */
export function decodeState(bytes: Uint8Array): SyncState {
  const view = opened(bytes, STATE_MAGIC, "the state of a replica");
  return {
    epoch: countAt(view, 8, "epoch"),
    generation: countAt(view, 16, "generation"),
    baseGeneration: countAt(view, 24, "base generation"),
    clean: view.getUint8(32) === 1,
    mayLack: view.getUint8(33) === 1,
  };
}

export function encodeClaim(epoch: number, nexusUuid: string, isServing: boolean): Uint8Array {
  const view = begin(CLAIM_MAGIC);
  view.setBigUint64(8, BigInt(epoch), true);
  const bytes = new Uint8Array(view.buffer);
  bytes.set(Buffer.from(nexusUuid.replaceAll("-", ""), "hex"), 16);
  view.setUint8(32, isServing ? 1 : 0);
  return bytes;
}

/** Throws `InvalidArgument`. */
export function decodeClaim(bytes: Uint8Array): {
  epoch: number;
  nexusUuid: string;
  isServing: boolean;
} {
  const view = opened(bytes, CLAIM_MAGIC, "a claim");
  const hex = Buffer.from(bytes.subarray(16, 32)).toString("hex");
  const nexusUuid = hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
  return { epoch: countAt(view, 8, "epoch"), nexusUuid, isServing: view.getUint8(32) === 1 };
}

/** Region numbers as a command carries them. */
export function encodeRegions(regions: readonly number[]): Uint8Array {
  return new Uint8Array(Uint32Array.from(regions).buffer);
}

/** Throws `InvalidArgument` when the data is not whole numbers, or too many. */
export function decodeRegions(bytes: Uint8Array): number[] {
  if (bytes.byteLength % 4 !== 0 || bytes.byteLength / 4 > REGIONS_PER_COMMAND) {
    throw new TrilithError("InvalidArgument", `${bytes.byteLength} bytes are no list of regions`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.byteLength / 4 }, (_, i) => view.getUint32(i * 4, true));
}

/** Regions, in any order, as runs of neighbours. */
export function rangesOf(regions: readonly number[]): { first: number; count: number }[] {
  const ranges: { first: number; count: number }[] = [];
  for (const region of [...regions].sort((a, b) => a - b)) {
    const last = ranges.at(-1);
    if (last !== undefined && region < last.first + last.count) continue;
    if (last !== undefined && region === last.first + last.count) last.count++;
    else ranges.push({ first: region, count: 1 });
  }
  return ranges;
}

/** Bits of a reservation key that do not hold the epoch. */
const KEY_TAG_BITS = 28n;

/** Reservation key of a nexus: its epoch, and a part of its UUID to tell equal epochs apart. */
export function reservationKey(epoch: number, nexusUuid: string): bigint {
  const tag = BigInt(`0x${nexusUuid.replaceAll("-", "").slice(-7)}`);
  return (BigInt(epoch) << KEY_TAG_BITS) | tag;
}

/** The epoch in a reservation key. */
export function epochOfKey(key: bigint): number {
  return Number(key >> KEY_TAG_BITS);
}

/** True when a nexus with `key` must give way to the holder of `held`. */
export function isOutranked(key: bigint, held: bigint): boolean {
  const mine = epochOfKey(key);
  const theirs = epochOfKey(held);
  return theirs > mine || (theirs === mine && held !== key);
}
