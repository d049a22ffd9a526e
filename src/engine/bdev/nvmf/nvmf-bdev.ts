/**
 * A namespace reached over NVMe/TCP as a block device.
 *
 * Requests go to the I/O queues of the present association, in pieces when they are longer than
 * what one command carries; what finds no room waits in order, linked through `io.next`. When the
 * association is lost a new one is made, with growing pauses, until the controller loss time-out.
 *
 * Per request: `deviceA` is what has been issued (reads and writes: bytes; zeroing and discarding:
 * pieces that have ended); `deviceB` holds
 * | bits  | holds                                                         |
 * |-------|---------------------------------------------------------------|
 * | 0-11  | commands in flight for it                                     |
 * | 12    | one of them was lost with its connection                      |
 * | 13    | ... and had timed out                                         |
 * | 16-23 | I/O status of the first command that failed                   |
 * | 24-31 | index of its Dataset Management range                         |
 */
import { createHash } from "node:crypto";
import { assert } from "../../../assert.ts";
import { IoStatus, TrilithError } from "../../../errors.ts";
import { IoOpcode } from "../../../nvme/constants.ts";
import {
  DSM_DEALLOCATE,
  DSM_RANGE_BYTES,
  IoDword12,
  type ReservationAcquire,
  type ReservationRegister,
  type ReservationRelease,
} from "../../../nvme/host-commands.ts";
import { type ReservationReport, uuidFromHex } from "../../../nvme/identify-decode.ts";
import type { Arena, Waiter } from "../../reactor/arena.ts";
import { IoFlag, IoOp, type IoTable } from "../../reactor/io-table.ts";
import { BUFFER_BYTES_MAX } from "../../reactor/limits.ts";
import type { Reactor } from "../../reactor/reactor.ts";
import type { Timer } from "../../reactor/timers.ts";
import { type Bdev, type BdevListener, BdevListeners } from "../bdev.ts";
import { rangeStatus } from "../range.ts";
import type { NvmfUri } from "../uri.ts";
import { Direction } from "./command-table.ts";
import type { Completion } from "./control-commands.ts";
import { Controller, type ControllerUser, type NamespaceFacts } from "./controller.ts";
import { DISCARD_BYTES_MAX, WRITE_ZEROES_BLOCKS_MAX, ZERO_BYTES } from "./limits.ts";
import type { NvmeHost, NvmfSettings } from "./options.ts";
import * as passthrough from "./passthrough.ts";
import type { QueuePair } from "./queue-pair.ts";
import { nvmeIoStatus, STATUS_CODE_MASK } from "./status.ts";

const NONE = -1;
const COUNT_MASK = 0xfff;
const LOST = 1 << 12;
const TIMED_OUT = 1 << 13;
const STATUS_SHIFT = 16;
const STATUS_BITS = 0xff << STATUS_SHIFT;
const RANGE_SHIFT = 24;
const RANGES = 256;
const TWO_32 = 4294967296;

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

/** Lower-case UUID of a namespace: its own, else its NGUID, else one made from its name. */
function uuidOf(facts: NamespaceFacts, nqn: string): string {
  if (facts.uuid !== undefined) return facts.uuid;
  if (facts.nguid !== undefined) return uuidFromHex(facts.nguid);
  return uuidFromHex(createHash("sha256").update(`${nqn}#${facts.nsid}`).digest("hex"));
}

function canonicalUri(uri: NvmfUri, uuid: string): string {
  const host = uri.address.includes(":") ? `[${uri.address}]` : uri.address;
  const encode = (name: string): string => encodeURIComponent(name).replaceAll("%3A", ":");
  const parameters = [`uuid=${uuid}`];
  if (uri.hostNqn !== undefined) parameters.push(`hostnqn=${encode(uri.hostNqn)}`);
  if (uri.headerDigest) parameters.push("hdgst=true");
  if (uri.dataDigest) parameters.push("ddgst=true");
  if (uri.queues !== undefined) parameters.push(`queues=${uri.queues}`);
  return `nvmf+tcp://${host}:${uri.port}/${encode(uri.nqn)}?${parameters.join("&")}`;
}

/** Throws unless the namespace is one that this initiator can serve and the one that was meant. */
function checkNamespace(facts: NamespaceFacts, uri: NvmfUri): void {
  const what = `namespace ${facts.nsid} of ${uri.nqn}`;
  if (facts.blockCount === 0) throw new TrilithError("NotFound", `${what} is not active`);
  if (facts.blockSize !== 512 && facts.blockSize !== 4096) {
    throw new TrilithError("Unimplemented", `${what} has blocks of ${facts.blockSize} bytes`);
  }
  if (facts.metadataBytes !== 0) {
    throw new TrilithError("Unimplemented", `${what} has metadata in its blocks`);
  }
  if (uri.uuid === undefined) return;
  const nguid = facts.nguid === undefined ? undefined : uuidFromHex(facts.nguid);
  if (facts.uuid !== uri.uuid && nguid !== uri.uuid) {
    throw new TrilithError(
      "Conflict",
      `${what} has UUID ${facts.uuid ?? nguid ?? "none"}, not ${uri.uuid}`,
      "another volume or replica answers at this address; check the URI",
    );
  }
}

class NvmfDevice implements NvmfBdev, ControllerUser, Waiter {
  readonly driver = "nvmf" as const;
  readonly synchronous = false;
  readonly slotsPerIo = 0;
  readonly name: string;
  readonly uri: string;
  readonly uuid: string;
  readonly reactor: Reactor;
  readonly nqn: string;
  readonly hostNqn: string;
  readonly blockSize: number;
  readonly discardZeroes: boolean;
  readonly volatileCache: boolean;
  blockCount: number;
  losses = 0;

  readonly #io: IoTable;
  readonly #arena: Arena;
  readonly #settings: NvmfSettings;
  readonly #host: NvmeHost;
  readonly #parsed: NvmfUri;
  readonly #listeners = new BdevListeners();
  readonly #stateListeners = new Set<(state: NvmfState, reason: string) => void>();
  readonly #ioTimeoutNs: number;
  readonly #nsid: number;
  readonly #ranges: number;
  readonly #freeRanges = Uint8Array.from({ length: RANGES }, (_, i) => i);
  #freeRangeCount = RANGES;
  #state: NvmfState = "live";
  #controller: Controller;
  #queues: readonly QueuePair[] = [];
  #nextQueue = 0;
  #bytes: number;
  #pieceBytes = 0;
  #zeroPieceBytes = 0;
  #discardPieceBytes = 0;
  #zeroBuffer = NONE;
  #deallocates = false;
  #discards = false;
  #outstanding = 0;
  #writesZeroes = false;
  #waitHead = NONE;
  #waitTail = NONE;
  #retryHead = NONE;
  #retryTail = NONE;
  #waitingForMemory = false;
  #drained: (() => void) | null = null;
  #attempt: Controller | null = null;
  #reconnecting: Promise<void> | null = null;
  #pause: { timer: Timer; end: () => void } | null = null;

  constructor(
    reactor: Reactor,
    uri: NvmfUri,
    host: NvmeHost,
    settings: NvmfSettings,
    controller: Controller,
    ranges: number,
  ) {
    const facts = controller.namespace;
    this.reactor = reactor;
    this.#io = reactor.io;
    this.#arena = reactor.arena;
    this.#settings = settings;
    this.#host = host;
    this.#parsed = uri;
    this.#nsid = facts.nsid;
    this.#ranges = ranges;
    this.#controller = controller;
    this.#ioTimeoutNs = settings.ioTimeoutMs * 1e6;
    this.nqn = uri.nqn;
    this.hostNqn = host.nqn;
    this.name = `${uri.address}:${uri.port}/${uri.nqn}n${facts.nsid}`;
    this.uuid = uuidOf(facts, uri.nqn);
    this.uri = canonicalUri(uri, this.uuid);
    this.blockSize = facts.blockSize;
    this.blockCount = facts.blockCount;
    this.#bytes = facts.blockCount * facts.blockSize;
    this.discardZeroes = facts.deallocatedReadsZero;
    this.volatileCache = controller.identity.volatileCache;
    this.#adopt(controller);
  }

  get state(): NvmfState {
    return this.#state;
  }

  /** Begins to use an association that has been opened. */
  #adopt(controller: Controller): void {
    const { identity, limits, namespace } = controller;
    const { blockSize } = this;
    this.#controller = controller;
    this.#queues = controller.queues;
    this.#nextQueue = 0;
    const transferBytes = Math.min(controller.transferBytes, BUFFER_BYTES_MAX);
    this.#pieceBytes = Math.floor(transferBytes / blockSize) * blockSize;
    this.#deallocates = namespace.writeZeroesDeallocates;
    this.#discards = identity.supportsDatasetManagement;
    this.#zeroPieceBytes = Math.min(ZERO_BYTES, this.#pieceBytes);
    this.#writesZeroes = identity.supportsWriteZeroes;
    if (this.#writesZeroes) {
      const limit =
        limits.writeZeroesSize === 0
          ? Infinity
          : controller.pageBytes * 2 ** limits.writeZeroesSize;
      this.#zeroPieceBytes = Math.min(WRITE_ZEROES_BLOCKS_MAX * blockSize, limit);
    }
    const rangeBlocks = limits.dsmRangeBlocks === 0 ? Infinity : limits.dsmRangeBlocks;
    this.#discardPieceBytes = Math.min(DISCARD_BYTES_MAX, rangeBlocks * blockSize);
  }

  // ------------------------------------------------------------------------------- requests

  submit(slot: number): void {
    const io = this.#io;
    const op = io.op[slot]!;
    let status: IoStatus = rangeStatus(io, slot, this.#bytes, this.blockSize);
    if (status === IoStatus.OK && this.#state !== "live") status = this.#statusOffline();
    const isFormality =
      (op === IoOp.FLUSH && !this.volatileCache) || (op === IoOp.DISCARD && !this.#discards);
    if (status !== IoStatus.OK || (isFormality && this.#state === "live")) {
      io.complete(slot, status);
      return;
    }
    this.#outstanding++;
    io.deviceA[slot] = 0;
    io.deviceB[slot] = 0;
    if (this.#waitHead !== NONE || !this.#issue(slot)) this.#wait(slot);
  }

  /** What a request ends with now, or OK when it is to wait for the reconnect. */
  #statusOffline(): IoStatus {
    if (this.#state === "gone" || this.#state === "closed") return IoStatus.DEVICE_GONE;
    if (this.#state === "reconnecting" && this.#settings.onLoss === "retry") return IoStatus.OK;
    return IoStatus.UNAVAILABLE;
  }

  /** Queues the commands of a request as far as there is room. True when all of it is queued. */
  #issue(slot: number): boolean {
    const op = this.#io.op[slot]!;
    if (op === IoOp.READ || op === IoOp.WRITE) return this.#issueTransfer(slot, op === IoOp.WRITE);
    if (op === IoOp.WRITE_ZEROES) return this.#issueZeroes(slot);
    if (op === IoOp.DISCARD) return this.#issueDiscard(slot);
    return this.#start(slot, IoOpcode.FLUSH, Direction.NONE, 0, 0, 0, 0, 0);
  }

  #issueTransfer(slot: number, isWrite: boolean): boolean {
    const io = this.#io;
    const { blockSize } = this;
    const length = io.length[slot]!;
    const buffer = io.buffer[slot]!;
    const fua = (io.flags[slot]! & IoFlag.FUA) !== 0 ? IoDword12.FUA : 0;
    const opcode = isWrite ? IoOpcode.WRITE : IoOpcode.READ;
    const direction = isWrite ? Direction.OUT : Direction.IN;
    let done = io.deviceA[slot]!;
    while (done < length) {
      const bytes = Math.min(this.#pieceBytes, length - done);
      const lba = (io.offset[slot]! + done) / blockSize;
      const dword12 = (bytes / blockSize - 1) | fua;
      if (!this.#start(slot, opcode, direction, buffer + done, bytes, lba, dword12, 0))
        return false;
      done += bytes;
      io.deviceA[slot] = done;
    }
    return true;
  }

  #issueZeroes(slot: number): boolean {
    const io = this.#io;
    const { blockSize } = this;
    const done = io.deviceA[slot]! * this.#zeroPieceBytes;
    const bytes = Math.min(this.#zeroPieceBytes, io.length[slot]! - done);
    const lba = (io.offset[slot]! + done) / blockSize;
    let dword12 = bytes / blockSize - 1;
    if ((io.flags[slot]! & IoFlag.FUA) !== 0) dword12 |= IoDword12.FUA;
    if (this.#writesZeroes) {
      const unmap = (io.flags[slot]! & IoFlag.UNMAP) !== 0 && this.#deallocates;
      if (unmap) dword12 |= IoDword12.DEALLOCATE;
      return this.#start(slot, IoOpcode.WRITE_ZEROES, Direction.NONE, 0, 0, lba, dword12, 0);
    }
    if (this.#zeroBuffer === NONE) {
      this.#zeroBuffer = this.#arena.alloc(ZERO_BYTES, 0);
      if (this.#zeroBuffer === NONE) {
        this.#waitForMemory();
        return false;
      }
      this.#arena.u8.fill(0, this.#zeroBuffer, this.#zeroBuffer + ZERO_BYTES);
    }
    const { WRITE } = IoOpcode;
    return this.#start(slot, WRITE, Direction.OUT, this.#zeroBuffer, bytes, lba, dword12, 0);
  }

  /** One Dataset Management command with one range (NVM Command Set, 3.2.3). */
  #issueDiscard(slot: number): boolean {
    if (this.#freeRangeCount === 0) return false;
    const io = this.#io;
    const { blockSize } = this;
    const done = io.deviceA[slot]! * this.#discardPieceBytes;
    const bytes = Math.min(this.#discardPieceBytes, io.length[slot]! - done);
    const lba = (io.offset[slot]! + done) / blockSize;
    const range = this.#freeRanges[this.#freeRangeCount - 1]!;
    const at = this.#ranges + range * DSM_RANGE_BYTES;
    const i32 = this.#arena.i32;
    const w = at >> 2;
    i32[w] = 0;
    i32[w + 1] = bytes / blockSize;
    i32[w + 2] = lba;
    i32[w + 3] = lba / TWO_32;
    const { DATASET_MANAGEMENT } = IoOpcode;
    const length = DSM_RANGE_BYTES;
    if (!this.#start(slot, DATASET_MANAGEMENT, Direction.OUT, at, length, 0, 0, DSM_DEALLOCATE)) {
      return false;
    }
    this.#freeRangeCount--;
    io.deviceB[slot] = (io.deviceB[slot]! & ((1 << RANGE_SHIFT) - 1)) | (range << RANGE_SHIFT);
    return true;
  }

  /** Starts one command of a request on a queue that has room. `lba` fills dwords 10 and 11. */
  #start(
    slot: number,
    opcode: number,
    direction: number,
    dataAt: number,
    dataBytes: number,
    lba: number,
    dword12: number,
    dword11: number,
  ): boolean {
    const queues = this.#queues;
    const deadlineNs = this.reactor.now + this.#ioTimeoutNs;
    const high = (lba / TWO_32) | dword11;
    for (let tried = 0; tried < queues.length; tried++) {
      const queue = queues[this.#nextQueue]!;
      this.#nextQueue = this.#nextQueue + 1 < queues.length ? this.#nextQueue + 1 : 0;
      const index = queue.start(
        slot,
        opcode,
        this.#nsid,
        direction,
        dataAt,
        dataBytes,
        deadlineNs,
        lba,
        high,
        dword12,
        0,
        0,
        0,
      );
      if (index >= 0) {
        this.#io.deviceB[slot] = this.#io.deviceB[slot]! + 1;
        if (!this.#controller.watching) this.#controller.watch();
        return true;
      }
    }
    return false;
  }

  // -------------------------------------------------------------------------------- waiting

  #wait(slot: number): void {
    const { next } = this.#io;
    next[slot] = NONE;
    if (this.#waitHead === NONE) this.#waitHead = slot;
    else next[this.#waitTail] = slot;
    this.#waitTail = slot;
  }

  #unwait(): number {
    const slot = this.#waitHead;
    this.#waitHead = this.#io.next[slot]!;
    return slot;
  }

  /** Issues waiting requests while there is room. */
  #pump(): void {
    const io = this.#io;
    while (this.#waitHead !== NONE) {
      const slot = this.#waitHead;
      if ((io.deviceB[slot]! & STATUS_BITS) !== 0) {
        // A piece has failed: the rest is not sent, and the request ends with its last command.
        this.#unwait();
        io.deviceA[slot] = io.length[slot]!;
        if ((io.deviceB[slot]! & COUNT_MASK) === 0) this.#settle(slot);
      } else if (this.#issue(slot)) {
        assert(this.#waitHead === slot, "a request that is being issued stays first");
        this.#unwait();
      } else return;
    }
  }

  #waitForMemory(): void {
    if (this.#waitingForMemory) return;
    this.#waitingForMemory = true;
    this.reactor.waitForResources(this);
  }

  resume(): void {
    this.#waitingForMemory = false;
    this.#pump();
  }

  ioRoom(): void {
    if (this.#waitHead !== NONE) this.#pump();
  }

  // ------------------------------------------------------------------------------ completions

  ioDone(slot: number, status: number): void {
    const io = this.#io;
    let state = io.deviceB[slot]! - 1;
    if (status !== 0 && (state & STATUS_BITS) === 0) {
      state |= nvmeIoStatus[status & STATUS_CODE_MASK]! << STATUS_SHIFT;
    }
    io.deviceB[slot] = state;
    if ((state & COUNT_MASK) === 0) this.#settle(slot);
    if (this.#waitHead !== NONE) this.#pump();
  }

  ioLost(slot: number, timedOut: boolean): void {
    const io = this.#io;
    const state = (io.deviceB[slot]! - 1) | LOST | (timedOut ? TIMED_OUT : 0);
    io.deviceB[slot] = state;
    if ((state & COUNT_MASK) === 0) this.#settle(slot);
  }

  /** No command of the request is in flight any more: it goes on, starts again, or ends. */
  #settle(slot: number): void {
    const io = this.#io;
    const op = io.op[slot]!;
    const state = io.deviceB[slot]!;
    const isTransfer = op === IoOp.READ || op === IoOp.WRITE;
    const length = io.length[slot]!;
    if (op === IoOp.DISCARD) this.#freeRanges[this.#freeRangeCount++] = state >>> RANGE_SHIFT;
    const status = ((state & STATUS_BITS) >> STATUS_SHIFT) as IoStatus;
    const isWaiting = isTransfer && io.deviceA[slot]! < length;
    if ((state & LOST) !== 0 && status === IoStatus.OK) {
      if (this.#settings.onLoss === "retry") {
        io.deviceA[slot] = 0;
        io.deviceB[slot] = 0;
        if (!isWaiting) this.#retryLater(slot);
      } else if (!isWaiting) {
        const isTimeout = (state & TIMED_OUT) !== 0;
        this.#end(slot, isTimeout ? IoStatus.TIMEOUT : IoStatus.UNAVAILABLE);
      }
      return;
    }
    if (isWaiting) return;
    if (status !== IoStatus.OK || isTransfer || op === IoOp.FLUSH) {
      this.#end(slot, status);
      return;
    }
    const pieces = io.deviceA[slot]! + 1;
    const pieceBytes = op === IoOp.DISCARD ? this.#discardPieceBytes : this.#zeroPieceBytes;
    io.deviceA[slot] = pieces;
    io.deviceB[slot] = 0;
    // Behind what waits: a long range is worked off beside other requests, not before them.
    if (pieces * pieceBytes >= length) this.#end(slot, IoStatus.OK);
    else if (this.#waitHead !== NONE || !this.#issue(slot)) this.#wait(slot);
  }

  #retryLater(slot: number): void {
    const { next } = this.#io;
    next[slot] = NONE;
    if (this.#retryHead === NONE) this.#retryHead = slot;
    else next[this.#retryTail] = slot;
    this.#retryTail = slot;
  }

  #end(slot: number, status: IoStatus): void {
    this.#outstanding--;
    this.#io.complete(slot, status);
    if (this.#outstanding === 0) this.#drained?.();
  }

  /** Ends everything that waits. None of it has a command in flight. */
  #failWaiting(status: IoStatus): void {
    this.#requeueRetries();
    while (this.#waitHead !== NONE) this.#end(this.#unwait(), status);
  }

  /** Puts requests that were lost in front of those that wait; all of them start from the beginning. */
  #requeueRetries(): void {
    const { next, deviceA } = this.#io;
    if (this.#retryHead !== NONE) {
      next[this.#retryTail] = this.#waitHead;
      if (this.#waitHead === NONE) this.#waitTail = this.#retryTail;
      this.#waitHead = this.#retryHead;
      this.#retryHead = NONE;
    }
    // The next association may have other limits, so progress counted in pieces means nothing.
    for (let slot = this.#waitHead; slot !== NONE; slot = next[slot]!) deviceA[slot] = 0;
  }

  // ------------------------------------------------------------------ losing and reconnecting

  #setState(state: NvmfState, reason: string): void {
    if (this.#state === state || this.#state === "closed") return;
    this.#state = state;
    this.#settings.log(
      state === "live" || state === "closed" ? "info" : "warn",
      `${this.name}: ${state} (${reason})`,
    );
    for (const listener of [...this.#stateListeners]) listener(state, reason);
  }

  controllerLost(reason: string): void {
    this.losses++;
    this.#queues = [];
    if (this.#state === "closed" || this.#state === "gone") {
      this.#failWaiting(IoStatus.DEVICE_GONE);
      return;
    }
    this.#setState("reconnecting", reason);
    if (this.#settings.onLoss === "fail") this.#failWaiting(IoStatus.UNAVAILABLE);
    else this.#requeueRetries();
    if (this.#reconnecting === null) {
      this.#reconnecting = this.#reconnect(reason).finally(() => {
        this.#reconnecting = null;
      });
    }
  }

  async #reconnect(reason: string): Promise<void> {
    const { reconnectDelayMs, reconnectDelayMaxMs, controllerLossMs } = this.#settings;
    const untilNs = this.reactor.now + controllerLossMs * 1e6;
    let delayMs = reconnectDelayMs;
    let lastReason = reason;
    while (this.#state === "reconnecting") {
      const leftMs = (untilNs - this.reactor.now) / 1e6;
      if (leftMs <= 0) {
        this.#vanish(`no connection for ${controllerLossMs} ms: ${lastReason}`);
        return;
      }
      await this.#sleep(Math.min(delayMs, leftMs));
      if (this.#state !== "reconnecting") return;
      delayMs = Math.min(delayMs * 2, reconnectDelayMaxMs);
      const controller = makeController(
        this.reactor,
        this.#parsed,
        this.#host,
        this.#settings,
        this,
      );
      this.#attempt = controller;
      try {
        await controller.open();
      } catch (error) {
        lastReason = error instanceof Error ? error.message : String(error);
        this.#settings.log("warn", `${this.name}: ${lastReason}`);
        continue;
      } finally {
        this.#attempt = null;
      }
      this.#resumeWith(controller);
    }
  }

  /** Goes on with a new association, if it leads to the same namespace. */
  #resumeWith(controller: Controller): void {
    if (controller.ending) return;
    if (this.#state !== "reconnecting") {
      controller.lose("no longer wanted");
      return;
    }
    const facts = controller.namespace;
    const isSame =
      facts.nsid === this.#nsid &&
      uuidOf(facts, this.nqn) === this.uuid &&
      facts.blockSize === this.blockSize &&
      facts.metadataBytes === 0;
    if (!isSame) {
      this.#vanish("another namespace answers under this name");
      controller.lose("another namespace");
      return;
    }
    this.#adopt(controller);
    this.#setState("live", "connected again");
    this.namespaceRead();
    this.#pump();
  }

  namespaceRead(): void {
    const { namespace, accessible } = this.#controller;
    if (this.#state !== "live" && this.#state !== "inaccessible") return;
    if (namespace.blockCount === 0 || uuidOf(namespace, this.nqn) !== this.uuid) {
      this.#vanish("the namespace was removed or replaced");
      return;
    }
    if (namespace.blockCount !== this.blockCount) {
      this.blockCount = namespace.blockCount;
      this.#bytes = namespace.blockCount * this.blockSize;
      this.#listeners.tell({ kind: "resized", blockCount: this.blockCount });
    }
    this.#setState(accessible ? "live" : "inaccessible", "ANA state");
  }

  /** The device is lost for good. What is in flight or waits ends with the association. */
  #vanish(reason: string): void {
    this.#setState("gone", reason);
    if (this.#controller.ending) this.#failWaiting(IoStatus.DEVICE_GONE);
    else this.#controller.lose(reason);
    this.#listeners.tell({ kind: "removed", reason });
  }

  /** A pause that `close` can end early. */
  #sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      const end = (): void => {
        this.#pause = null;
        resolve();
      };
      this.#pause = { timer: this.reactor.after(delayMs, end), end };
    });
  }

  reset(reason: string): void {
    this.#controller.lose(reason);
  }

  // -------------------------------------------------------------------------------- control

  listen(listener: BdevListener): () => void {
    return this.#listeners.add(listener);
  }

  listenState(listener: (state: NvmfState, reason: string) => void): () => void {
    this.#stateListeners.add(listener);
    return () => {
      this.#stateListeners.delete(listener);
    };
  }

  reservationRegister(r: ReservationRegister): Promise<void> {
    return passthrough.reservationRegister(this.#controller, this.#nsid, this.name, r);
  }

  reservationAcquire(r: ReservationAcquire): Promise<void> {
    return passthrough.reservationAcquire(this.#controller, this.#nsid, this.name, r);
  }

  reservationRelease(r: ReservationRelease): Promise<void> {
    return passthrough.reservationRelease(this.#controller, this.#nsid, this.name, r);
  }

  reservationReport(): Promise<ReservationReport> {
    return passthrough.reservationReport(this.#controller, this.#nsid, this.name);
  }

  vendorCommand(command: VendorCommand): Promise<Completion> {
    return passthrough.vendorCommand(this.#controller, this.#nsid, this.name, command);
  }

  async close(): Promise<void> {
    if (this.#state === "closed") return;
    const wasConnected = this.#state === "live" || this.#state === "inaccessible";
    this.#setState("closed", "closed by its user");
    this.#pause?.timer.cancel();
    this.#pause?.end();
    this.#attempt?.lose("the device is being closed");
    if (!wasConnected) this.#failWaiting(IoStatus.DEVICE_GONE);
    if (this.#outstanding > 0) {
      await new Promise<void>((resolve) => {
        this.#drained = resolve;
      });
    }
    await this.#reconnecting;
    await this.#controller.shutdown();
    this.#arena.free(this.#ranges);
    if (this.#zeroBuffer !== NONE) this.#arena.free(this.#zeroBuffer);
  }
}

function makeController(
  reactor: Reactor,
  uri: NvmfUri,
  host: NvmeHost,
  settings: NvmfSettings,
  user: ControllerUser,
): Controller {
  const target = { ...uri, queues: uri.queues ?? settings.queues };
  return new Controller(reactor, target, host, settings, user);
}

/** Users come after their first association: this one stands in until the device is there. */
class UserSeat implements ControllerUser {
  device: NvmfDevice | null = null;
  ioDone(slot: number, status: number): void {
    this.device!.ioDone(slot, status);
  }
  ioLost(slot: number, timedOut: boolean): void {
    this.device!.ioLost(slot, timedOut);
  }
  ioRoom(): void {
    this.device?.ioRoom();
  }
  namespaceRead(): void {
    this.device?.namespaceRead();
  }
  controllerLost(reason: string): void {
    this.device?.controllerLost(reason);
  }
}

/**
 * Connects to the namespace that the URI names. Rejects with what the first attempt met:
 * `InvalidArgument`, `Unavailable`, `Timeout`, `PermissionDenied`, `NotFound`, `Conflict` (another
 * UUID), `Unimplemented` (block format).
 */
export async function openNvmfBdev(
  reactor: Reactor,
  uri: NvmfUri,
  host: NvmeHost,
  settings: NvmfSettings,
): Promise<NvmfBdev> {
  const seat = new UserSeat();
  const controller = makeController(reactor, uri, host, settings, seat);
  await controller.open();
  try {
    checkNamespace(controller.namespace, uri);
    const ranges = reactor.arena.alloc(RANGES * DSM_RANGE_BYTES, 0);
    if (ranges < 0) throw new TrilithError("ResourceExhausted", "the reactor's arena is full");
    const device = new NvmfDevice(reactor, uri, host, settings, controller, ranges);
    seat.device = device;
    device.namespaceRead();
    return device;
  } catch (error) {
    await controller.shutdown();
    throw error;
  }
}
