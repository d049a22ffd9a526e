/** The admin queue pair of a controller (Base 2.0, 5). */
import {
  AdminOpcode,
  FABRICS_OPCODE,
  FeatureId,
  FLAGS_SGL,
  STATUS_DNR,
  Status,
} from "../../nvme/constants.ts";
import { IDENTIFY_BYTES } from "../../nvme/identify.ts";
import { CommandQueue } from "./command-queue.ts";
import type { Controller } from "./controller.ts";
import { executeFabrics } from "./fabrics.ts";
import {
  type FeatureResult,
  getFeature,
  setFeature,
  setReservationPersistence,
} from "./features.ts";
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
    const first = this.arena.i32[sqe >> 2]!;
    const isFabrics = (first & 0xff) === FABRICS_OPCODE;
    if (!isFabrics && ((first >>> 8) & 0xff) !== FLAGS_SGL) {
      return this.refuse(first >>> 16, Status.INVALID_FIELD | STATUS_DNR);
    }
    return this.start(sqe, data, dataBytes);
  }

  protected execute(slot: number): void {
    const { requests, controller } = this;
    const opcode = requests.opcode(slot);
    if (opcode === FABRICS_OPCODE) {
      executeFabrics(this, controller, slot);
      return;
    }
    if (!controller.enabled) {
      this.finish(slot, Status.COMMAND_SEQUENCE_ERROR | STATUS_DNR, 0, 0);
      return;
    }
    const nsid = requests.namespaceId(slot);
    const dword10 = requests.dword(slot, 10);
    const dword11 = requests.dword(slot, 11);
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
        if ((dword10 & 0xff) === FeatureId.RESERVATION_PERSISTENCE) {
          setReservationPersistence(controller, nsid, dword10, dword11).then(
            (status) => this.finish(slot, status, 0, 0),
            () => this.finish(slot, Status.INTERNAL_ERROR, 0, 0),
          );
          return;
        }
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
    const { requests } = this;
    const dwords = ([10, 11, 12, 13, 14] as const).map((n) => requests.dword(slot, n));
    const request = logPageRequest(requests.namespaceId(slot), dwords);
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
    const aborted = queue?.abort(commandId, Status.ABORT_REQUESTED) === true;
    this.finish(slot, Status.SUCCESS, aborted ? 0 : NOT_ABORTED, 0);
  }

  override abort(commandId: number, status: number): boolean {
    const isEvent = (slot: number): boolean => (this.io.tagA[slot]! & 0xffff) === commandId;
    const slot = this.controller.events.withdraw(isEvent);
    if (slot === undefined) return super.abort(commandId, status);
    this.finish(slot, status, 0, 0);
    return true;
  }

  protected onFailure(cid: number, status: number, _slot: number, dw0: number): void {
    this.controller.failed(this.queueId, cid, status, 0, 0, dw0);
  }

  ioDone(): void {
    throw new Error("admin commands do not reach a device");
  }

  onHostLeft(): void {
    this.controller.hostLeft();
  }

  protected onDrained(): void {
    this.drained = true;
    this.controller.adminClosed();
  }

  protected override idleRequests(): readonly number[] {
    return this.controller.events.reset();
  }
}
