/** What a nexus asks of a replica on another node: reservations, and vendor commands. */
import { TrilithError } from "../../errors.ts";
import { Status } from "../../nvme/constants.ts";
import { ReservationType } from "../../nvme/host-commands.ts";
import { bdevBytes } from "../bdev/bdev.ts";
import type { NvmfBdev, VendorCommand } from "../bdev/nvmf/nvmf-bdev.ts";
import { nvmeError, STATUS_CODE_MASK } from "../bdev/nvmf/status.ts";
import { type Allocation, type Claim, REGION_BYTES, type ReplicaLink } from "../nexus/index.ts";
import {
  BITMAP_PIECE_BYTES,
  decodeState,
  encodeClaim,
  encodeRegions,
  encodeState,
  isOutranked,
  REGIONS_PER_COMMAND,
  ReplicaOpcode,
  reservationKey,
  STATE_BYTES,
} from "./replica-wire.ts";

/** Attempts to take a reservation that others take at the same time. */
const ACQUIRE_ATTEMPTS = 5;
const TYPE = ReservationType.EXCLUSIVE_ACCESS;

/** Runs a vendor command; throws what its status stands for. */
async function run(bdev: NvmfBdev, command: VendorCommand, what: string) {
  const completion = await bdev.vendorCommand(command);
  if (completion.status === 0) return completion;
  const code = completion.status & STATUS_CODE_MASK;
  if (code === Status.RESERVATION_CONFLICT) {
    throw new TrilithError("Superseded", `${what} of ${bdev.nqn}: a newer nexus has the replica`);
  }
  throw nvmeError(completion.status, `${what} of ${bdev.nqn}`);
}

/** True when the device is a replica of an engine: it answers what only those know. */
export async function isReplica(bdev: NvmfBdev): Promise<boolean> {
  const command = { opcode: ReplicaOpcode.READ_STATE, dataInBytes: STATE_BYTES };
  const { status } = await bdev.vendorCommand(command);
  const code = status & STATUS_CODE_MASK;
  if (code === Status.INVALID_OPCODE) return false;
  // A conflict means that another nexus has it at the moment.
  if (status === 0 || code === Status.RESERVATION_CONFLICT) return true;
  throw nvmeError(status, `state of ${bdev.nqn}`);
}

async function readBitmap(
  bdev: NvmfBdev,
  opcode: number,
  byteLength: number,
  what: string,
): Promise<{ bitmap: Uint8Array; dword0: number }> {
  const bitmap = new Uint8Array(byteLength);
  let dword0 = 0;
  for (let at = 0; at < byteLength; at += BITMAP_PIECE_BYTES) {
    const length = Math.min(BITMAP_PIECE_BYTES, byteLength - at);
    const dataInBytes = (length + 3) & ~3;
    const piece = await run(bdev, { opcode, dwords: [at], dataInBytes }, what);
    bitmap.set(piece.data.subarray(0, length), at);
    dword0 = piece.dword0;
  }
  return { bitmap, dword0 };
}

async function sendRegions(
  bdev: NvmfBdev,
  opcode: number,
  regions: readonly number[],
  what: string,
): Promise<void> {
  for (let at = 0; at < regions.length; at += REGIONS_PER_COMMAND) {
    const dataOut = encodeRegions(regions.slice(at, at + REGIONS_PER_COMMAND));
    await run(bdev, { opcode, dataOut }, what);
  }
}

/**
 * Registers with `key` and takes the reservation, from whoever holds it with a lower epoch. Answers
 * "preempt and abort" only when what the former holder had in flight has ended.
 */
async function reserve(bdev: NvmfBdev, hostId: string, key: bigint): Promise<void> {
  await bdev.reservationRegister({
    action: "replace",
    currentKey: 0n,
    newKey: key,
    ignoreExistingKey: true,
    persist: true,
  });
  for (let attempt = 1; ; attempt++) {
    const { registrants } = await bdev.reservationReport();
    const holder = registrants.find(({ holdsReservation }) => holdsReservation);
    if (holder?.hostId === hostId) return;
    if (holder !== undefined && isOutranked(key, holder.key)) {
      throw new TrilithError("Superseded", `${bdev.nqn} is reserved by a newer nexus`);
    }
    try {
      await bdev.reservationAcquire(
        holder === undefined
          ? { action: "acquire", type: TYPE, currentKey: key }
          : { action: "preempt-and-abort", type: TYPE, currentKey: key, preemptKey: holder.key },
      );
      return;
    } catch (error) {
      // Somebody else was faster, or took our registration: look again at who it is.
      const isConflict = error instanceof TrilithError && error.code === "ReservationConflict";
      if (!isConflict || attempt === ACQUIRE_ATTEMPTS) throw error;
    }
  }
}

/** The link of a nexus to a replica behind an NVMe/TCP device. `hostId`: with which it connects. */
export function remoteLink(bdev: NvmfBdev, hostId: string): ReplicaLink {
  let key = 0n;
  const release = async (): Promise<void> => {
    await bdev.reservationRelease({ action: "release", type: TYPE, currentKey: key });
    await bdev.reservationRegister({ action: "unregister", currentKey: key, newKey: 0n });
  };
  /** Data of the claim, as renewals repeat it. */
  let claimed: Uint8Array = new Uint8Array(0);
  return {
    lease: {
      async renew() {
        const { status } = await bdev.vendorCommand({
          opcode: ReplicaOpcode.RENEW,
          dataOut: claimed,
        });
        const code = status & STATUS_CODE_MASK;
        // Engines of before there were leases do not wait for them either.
        if (status === 0 || code === Status.INVALID_OPCODE) return;
        if (code === Status.RESERVATION_CONFLICT) {
          throw new TrilithError("Superseded", `${bdev.nqn}: a newer nexus has the replica`);
        }
        throw nvmeError(status, `renewal of ${bdev.nqn}`);
      },
      onLoss: (listener) => bdev.listenLoss(listener),
    },
    async acquire({ epoch, nexusUuid, isServing }: Claim) {
      key = reservationKey(epoch, nexusUuid);
      claimed = encodeClaim(epoch, nexusUuid, isServing);
      await reserve(bdev, hostId, key);
      try {
        await run(bdev, { opcode: ReplicaOpcode.CLAIM, dataOut: claimed }, "claim");
      } catch (error) {
        // Held for nothing it would only be in the way; what went wrong matters more.
        await release().catch(() => undefined);
        throw error;
      }
    },
    release,
    async readState() {
      const command = { opcode: ReplicaOpcode.READ_STATE, dataInBytes: STATE_BYTES };
      return decodeState((await run(bdev, command, "state")).data);
    },
    async writeState(state) {
      const dataOut = encodeState(state);
      await run(bdev, { opcode: ReplicaOpcode.WRITE_STATE, dataOut }, "state");
    },
    async readDirty() {
      const bytes = Math.ceil(Math.ceil(bdevBytes(bdev) / REGION_BYTES) / 8);
      const what = "dirty regions";
      return (await readBitmap(bdev, ReplicaOpcode.READ_DIRTY, bytes, what)).bitmap;
    },
    markDirty: (regions) => sendRegions(bdev, ReplicaOpcode.MARK_DIRTY, regions, "marking"),
    clearDirty: (regions) => sendRegions(bdev, ReplicaOpcode.CLEAR_DIRTY, regions, "clearing"),
    async readAllocation(): Promise<Allocation> {
      const opcode = ReplicaOpcode.READ_ALLOCATION;
      // The first piece tells the cluster size, from which the length of all follows.
      const first = await run(bdev, { opcode, dwords: [0], dataInBytes: 4 }, "allocation");
      const clusterBytes = first.dword0;
      if (!(clusterBytes > 0)) {
        throw new TrilithError("Unavailable", `${bdev.nqn} tells no cluster size`);
      }
      const bytes = Math.ceil(Math.ceil(bdevBytes(bdev) / clusterBytes) / 8);
      const { bitmap } = await readBitmap(bdev, opcode, bytes, "allocation");
      return { clusterBytes, bitmap };
    },
  };
}
