/**
 * Vendor specific commands of I/O queues (opcodes C0h to FFh): passed to a hook of the namespace,
 * which a replica uses for what its nexus asks of it beyond blocks.
 */
import { assert } from "../../assert.ts";
import { STATUS_DNR, Status } from "../../nvme/constants.ts";
import type { IoQueue } from "./io-queue.ts";
import { VENDOR_COMMANDS_MAX } from "./limits.ts";
import { Access } from "./reservations.ts";

/** The association that a command came over. */
export interface Association {
  /** Calls the listener once it is over. `isByHost`: the host's side has closed a connection of it. */
  onEnd(listener: (isByHost: boolean) => void): void;
}

/** A command on its way through the hook. */
export interface VendorCommand {
  /** 0xc0 to 0xff; its low two bits tell which way data moves (Base 2.0, figure 88). */
  readonly opcode: number;
  /** Who sent it: NQN and identifier (32 hex digits) of the host. */
  readonly hostNqn: string;
  readonly hostId: string;
  readonly association: Association;
  /** The data that the host sent; empty without. A copy. */
  readonly data: Uint8Array;
  /** Bytes that the host takes; 0 unless data moves to the host. */
  readonly room: number;
  /**
   * Ends the other controllers that this host has on the subsystem; resolves when nothing that they
   * began is under way. What a connection that is thought lost still carries cannot arrive later.
   */
  endFormerControllers(): Promise<void>;
  /** Command dword 10 .. 15. */
  dword(number: 10 | 11 | 12 | 13 | 14 | 15): number;
  /**
   * Answers, once: `status` is SCT << 8 | SC, with STATUS_DNR; `data` (at most `room` bytes, the
   * rest is zero) goes with status 0; `dword0` is the result dword.
   */
  respond(status: number, data?: Uint8Array, dword0?: number): void;
}

/** Carries out vendor commands of a namespace, on its reactor. */
export interface VendorCommands {
  /** Must end with `respond`, now or later. */
  execute(command: VendorCommand): void;
}

/** Passes a command to the namespace's hook. */
export function executeVendor(queue: IoQueue, slot: number, opcode: number): void {
  const { namespace, controller, requests, io } = queue;
  const { vendor } = namespace;
  const direction = opcode & 3;
  if (vendor === undefined || direction === 3) {
    queue.finish(slot, Status.INVALID_OPCODE | STATUS_DNR, 0, 0);
    return;
  }
  const access = direction === 2 ? Access.READ : Access.WRITE;
  const refusal = queue.accessRefusal(slot, access);
  if (refusal !== 0) {
    queue.finish(slot, refusal, 0, 0);
    return;
  }
  if (namespace.vendorInFlight >= VENDOR_COMMANDS_MAX) {
    queue.finish(slot, Status.COMMAND_INTERRUPTED, 0, 0);
    return;
  }
  namespace.vendorInFlight++;
  let isAnswered = false;
  vendor.execute({
    opcode,
    hostNqn: controller.hostNqn,
    hostId: controller.hostId,
    association: controller,
    data: queue.hostDataOf(slot),
    room: direction === 2 ? io.length[slot]! : 0,
    endFormerControllers: () => controller.subsystem.endOthers(controller),
    dword: (number) => {
      assert(!isAnswered, "a vendor command is read before it is answered");
      return requests.dword(slot, number);
    },
    respond: (status, data, dword0 = 0) => {
      assert(!isAnswered, "a vendor command is answered once");
      isAnswered = true;
      namespace.vendorInFlight--;
      if (status !== 0 || direction !== 2) queue.finish(slot, status, dword0, 0);
      else queue.finishWithBytes(slot, data ?? new Uint8Array(0), dword0);
    },
  });
}
