/** What a device over NVMe/TCP offers beyond a block device. */
import type {
  ReservationAcquire,
  ReservationRegister,
  ReservationRelease,
} from "../../../nvme/host-commands.ts";
import type { ReservationReport } from "../../../nvme/identify-decode.ts";
import type { Bdev } from "../bdev.ts";
import type { Completion } from "./control-commands.ts";

/** How the device stands with its controller. */
export type NvmfState =
  /** Connected, and the namespace lets commands through. */
  | "live"
  /** Connected, but the ANA state of the namespace is inaccessible: requests end UNAVAILABLE. */
  | "inaccessible"
  /** The connection is lost and being made again. */
  | "reconnecting"
  /** Given up, or the namespace has vanished: requests end DEVICE_GONE. */
  | "gone"
  | "closed";

/** A vendor command on an I/O queue (opcode 0x80 to 0xff). */
export interface VendorCommand {
  readonly opcode: number;
  /** Command dwords 10 to 15; those left out are 0. */
  readonly dwords?: readonly number[];
  /** Data to the controller: a multiple of four bytes, at most 1 MiB. */
  readonly dataOut?: Uint8Array;
  /** Bytes wanted from the controller: a multiple of four, at most 1 MiB. */
  readonly dataInBytes?: number;
}

/** A remote namespace: a block device, and what only NVMe has. */
export interface NvmfBdev extends Bdev {
  readonly driver: "nvmf";
  readonly nqn: string;
  readonly hostNqn: string;
  readonly state: NvmfState;
  /** Times the association was lost since the device was opened. */
  readonly losses: number;
  /** Calls `listener` at every change of `state`; returns the function that takes it off. */
  listenState(listener: (state: NvmfState, reason: string) => void): () => void;
  /** Calls `listener` whenever an association is given up, before its connections are shut down. */
  listenLoss(listener: () => void): void;
  /** Reject with `ReservationConflict`, `Unimplemented`, `InvalidArgument` or `Unavailable`. */
  reservationRegister(r: ReservationRegister): Promise<void>;
  reservationAcquire(r: ReservationAcquire): Promise<void>;
  reservationRelease(r: ReservationRelease): Promise<void>;
  reservationReport(): Promise<ReservationReport>;
  /** Resolves with the completion whatever its status; rejects when the connection is lost. */
  vendorCommand(command: VendorCommand): Promise<Completion>;
  /** Drops the association, as a time-out would, and makes a new one. */
  reset(reason: string): void;
}
