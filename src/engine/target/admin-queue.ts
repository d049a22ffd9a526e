/** The admin queue pair of a controller (Base 2.0, 5). */
import { AdminOpcode, FABRICS_OPCODE, STATUS_DNR, Status } from "../../nvme/constants.ts";
import { IDENTIFY_BYTES } from "../../nvme/identify.ts";
import { CommandQueue } from "./command-queue.ts";
import type { Controller } from "./controller.ts";
import { executeFabrics } from "./fabrics.ts";
import { type FeatureResult, getFeature, setFeature } from "./features.ts";
import { identify } from "./identify.ts";
import { logPageRequest, readLogPage } from "./log-pages.ts";

/** Abort could not abort the command: bit 0 of its result (Base 2.0, 5.1). */
const NOT_ABORTED = 1;

export class AdminQueue extends CommandQueue {
  controller!: Controller;
  readonly queueId = 0;
  drained = false;
  protected readonly slotsPerCommand = 1;

  onCapsule(sqe: number, data: number, dataBytes: number): boolean {
    if (this.inFlight >= this.entries) {
      this.connection.violation();
      return false;
    }
    return this.start(sqe, data, dataBytes);
  }

  protected execute(slot: number): void {
    const { words, controller } = this;
    const opcode = words.opcode(slot);
    if (opcode === FABRICS_OPCODE) {
      executeFabrics(this, controller, slot);
      return;
    }
    if (!controller.enabled) {
      this.finish(slot, Status.COMMAND_SEQUENCE_ERROR | STATUS_DNR, 0, 0);
      return;
    }
    const nsid = words.namespaceId(slot);
    const dword10 = words.dword(slot, 10);
    const dword11 = words.dword(slot, 11);
    switch (opcode) {
      case AdminOpcode.IDENTIFY:
        this.#reply(slot, identify(controller, nsid, dword10, dword11), IDENTIFY_BYTES);
        return;
      case AdminOpcode.GET_LOG_PAGE:
        this.#logPage(slot);
        return;
      case AdminOpcode.GET_FEATURES:
        this.#feature(slot, getFeature(controller, nsid, dword10, dword11));
        return;
      case AdminOpcode.SET_FEATURES:
        this.#feature(slot, setFeature(controller, nsid, dword10, dword11, this.#hostData(slot)));
        return;
      case AdminOpcode.KEEP_ALIVE:
        this.finish(slot, Status.SUCCESS, 0, 0);
        return;
      case AdminOpcode.ABORT:
        this.#abort(slot, dword10 & 0xffff, dword10 >>> 16);
        return;
      case AdminOpcode.ASYNC_EVENT_REQUEST:
        if (!controller.events.request(slot)) {
          this.finish(slot, Status.ASYNC_EVENT_LIMIT_EXCEEDED | STATUS_DNR, 0, 0);
        }
        return;
      default:
        this.finish(slot, Status.INVALID_OPCODE | STATUS_DNR, 0, 0);
    }
  }

  /** A copy of the data that the host sent with a command, or undefined. */
  #hostData(slot: number): Uint8Array | undefined {
    const length = this.io.length[slot]!;
    const buffer = this.io.buffer[slot]!;
    return length === 0 ? undefined : this.arena.u8.slice(buffer, buffer + length);
  }

  /** Returns `outcome` when the host made room for exactly `length` bytes, or refuses. */
  #reply(slot: number, outcome: Uint8Array | number, length: number, dword0 = 0): void {
    if (typeof outcome === "number") {
      this.finish(slot, outcome, 0, 0);
    } else if (this.io.length[slot] !== length) {
      this.finish(slot, Status.DATA_SGL_LENGTH_INVALID | STATUS_DNR, 0, 0);
    } else {
      this.arena.u8.set(outcome, this.io.buffer[slot]!);
      this.finishWithData(slot, length, dword0);
    }
  }

  #logPage(slot: number): void {
    const { words } = this;
    const dwords = ([10, 11, 12, 13, 14] as const).map((n) => words.dword(slot, n));
    const request = logPageRequest(words.namespaceId(slot), dwords);
    // The length is compared before the page is read, because reading it may clear something.
    const outcome =
      this.io.length[slot] === request.length
        ? readLogPage(this.controller, request)
        : Status.DATA_SGL_LENGTH_INVALID | STATUS_DNR;
    this.#reply(slot, outcome, request.length);
  }

  #feature(slot: number, result: FeatureResult): void {
    const { status, dword0 = 0, data } = result;
    if (status !== 0 || data === undefined) this.finish(slot, status, dword0, 0);
    else this.#reply(slot, data, data.byteLength, dword0);
  }

  /**
   * Abort (Base 2.0, 5.1): event requests and commands that wait for their data end at once; what a
   * device has begun goes on, and the answer says so.
   */
  #abort(slot: number, queueId: number, commandId: number): void {
    const queue = queueId === 0 ? this : this.controller.queues.get(queueId);
    const aborted = queue?.abort(commandId) === true;
    this.finish(slot, Status.SUCCESS, aborted ? 0 : NOT_ABORTED, 0);
  }

  abort(_commandId: number): boolean {
    return false;
  }

  ioDone(): void {
    throw new Error("admin commands do not reach a device");
  }

  protected onDrained(): void {
    this.drained = true;
    this.controller.adminClosed();
  }

  override onClosed(awaiting: readonly number[]): void {
    super.onClosed([...awaiting, ...this.controller.events.reset()]);
  }
}
