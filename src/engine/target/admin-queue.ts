/** The admin queue pair of a controller (Base 2.0, 5). */
import { AdminOpcode, FABRICS_OPCODE, STATUS_DNR, Status } from "../../nvme/constants.ts";
import {
  Cns,
  encodeCommandSets,
  encodeController,
  encodeDescriptors,
  encodeIndependentNamespace,
  encodeNamespace,
  encodeNamespaceList,
  encodeNvmController,
  IDENTIFY_BYTES,
  type NamespaceIdentity,
} from "../../nvme/identify.ts";
import { CommandQueue } from "./command-queue.ts";
import type { Controller } from "./controller.ts";
import { executeFabrics } from "./fabrics.ts";
import {
  ASYNC_EVENTS_MAX,
  IN_CAPSULE_BYTES,
  IO_QUEUE_ENTRIES_MAX,
  IO_QUEUES_MAX,
  KEEP_ALIVE_GRANULARITY,
  TRANSFER_BYTES_MAX,
} from "./limits.ts";
import { ANA_GROUP_ID, NAMESPACE_ID } from "./subsystem.ts";

const INVALID_FIELD = Status.INVALID_FIELD | STATUS_DNR;
const TRANSFER_PAGES_LOG2 = Math.log2(TRANSFER_BYTES_MAX / 4096);

export class AdminQueue extends CommandQueue {
  controller!: Controller;
  drained = false;
  protected readonly slotsPerCommand = 1;
  readonly #events: number[] = [];

  onCapsule(sqe: number, data: number, dataBytes: number): boolean {
    if (this.inFlight >= this.entries) {
      this.connection.violation();
      return false;
    }
    return this.start(sqe, data, dataBytes);
  }

  protected execute(slot: number): void {
    const opcode = this.words.opcode(slot);
    switch (opcode) {
      case FABRICS_OPCODE:
        executeFabrics(this, this.controller, slot);
        return;
      case AdminOpcode.IDENTIFY:
        this.#identify(slot);
        return;
      case AdminOpcode.GET_LOG_PAGE:
        this.finishWithData(slot, this.io.length[slot]!);
        return;
      case AdminOpcode.KEEP_ALIVE:
        this.finish(slot, Status.SUCCESS, 0, 0);
        return;
      case AdminOpcode.SET_FEATURES:
      case AdminOpcode.GET_FEATURES: {
        const isQueues = (this.words.dword(slot, 10) & 0xff) === 7;
        const granted = (IO_QUEUES_MAX - 1) | ((IO_QUEUES_MAX - 1) << 16);
        this.finish(slot, Status.SUCCESS, isQueues ? granted : 0, 0);
        return;
      }
      case AdminOpcode.ASYNC_EVENT_REQUEST:
        if (this.#events.length >= ASYNC_EVENTS_MAX) {
          this.finish(slot, Status.ASYNC_EVENT_LIMIT_EXCEEDED | STATUS_DNR, 0, 0);
        } else this.#events.push(slot);
        return;
      default:
        this.finish(slot, Status.INVALID_OPCODE | STATUS_DNR, 0, 0);
    }
  }

  /** Returns `bytes` as the command's data, cut to what the host asked for. */
  #return(slot: number, bytes: Uint8Array): void {
    const length = Math.min(bytes.byteLength, this.io.length[slot]!);
    if (length === 0) {
      this.finish(slot, Status.DATA_SGL_LENGTH_INVALID | STATUS_DNR, 0, 0);
      return;
    }
    this.arena.u8.set(bytes.subarray(0, length), this.io.buffer[slot]!);
    this.finishWithData(slot, this.io.length[slot]!);
  }

  #namespaceIdentity(): NamespaceIdentity {
    const { bdev } = this.controller.subsystem.namespace;
    return {
      blockCount: bdev.blockCount,
      blockSize: bdev.blockSize,
      uuid: bdev.uuid,
      anaGroupId: ANA_GROUP_ID,
      thin: true,
      transferBlocks: TRANSFER_BYTES_MAX / bdev.blockSize,
    };
  }

  #identify(slot: number): void {
    const cns = this.words.dword(slot, 10) & 0xff;
    const nsid = this.words.namespaceId(slot);
    const known = nsid === NAMESPACE_ID;
    const { subsystem } = this.controller;
    switch (cns) {
      case Cns.CONTROLLER:
        this.#return(
          slot,
          encodeController({
            controllerId: this.controller.id,
            serial: subsystem.serial,
            model: subsystem.model,
            firmware: this.connection.target.options.firmware,
            subsystemNqn: subsystem.nqn,
            isDiscovery: false,
            transferPagesLog2: TRANSFER_PAGES_LOG2,
            inCapsuleBytes: IN_CAPSULE_BYTES,
            asyncEvents: ASYNC_EVENTS_MAX,
            keepAliveGranularity: KEEP_ALIVE_GRANULARITY,
            namespaces: 1,
            queueEntries: IO_QUEUE_ENTRIES_MAX,
          }),
        );
        return;
      case Cns.NAMESPACE:
        if (known) this.#return(slot, encodeNamespace(this.#namespaceIdentity()));
        else this.#return(slot, new Uint8Array(IDENTIFY_BYTES));
        return;
      case Cns.ACTIVE_NAMESPACES:
        this.#return(slot, encodeNamespaceList([NAMESPACE_ID], nsid));
        return;
      case Cns.NAMESPACE_DESCRIPTORS:
        if (!known) this.finish(slot, Status.INVALID_NAMESPACE | STATUS_DNR, 0, 0);
        else this.#return(slot, encodeDescriptors(subsystem.namespace.bdev.uuid));
        return;
      case Cns.COMMAND_SET_CONTROLLER:
        this.#return(slot, encodeNvmController(TRANSFER_PAGES_LOG2));
        return;
      case Cns.NAMESPACE_INDEPENDENT:
        this.#return(slot, encodeIndependentNamespace(this.#namespaceIdentity()));
        return;
      case Cns.COMMAND_SET_NAMESPACE:
        this.#return(slot, new Uint8Array(IDENTIFY_BYTES));
        return;
      case Cns.COMMAND_SETS:
        this.#return(slot, encodeCommandSets());
        return;
      default:
        this.finish(slot, INVALID_FIELD, 0, 0);
    }
  }

  ioDone(): void {
    throw new Error("admin commands do not reach a device");
  }

  protected onDrained(): void {
    this.drained = true;
    this.controller.adminClosed();
  }

  override onClosed(awaiting: readonly number[]): void {
    super.onClosed([...awaiting, ...this.#events.splice(0)]);
  }
}
