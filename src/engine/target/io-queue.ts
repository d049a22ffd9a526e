/**
 * An I/O queue pair of the target: the NVM command set over one namespace (NVM Command Set 1.0c,
 * section 3). Reads and writes take the short way; the rest goes through `start` and `execute`.
 */
import { copyMemory, equalMemory } from "../../../ffi/index.ts";
import { IoStatus, ioStatusNvme } from "../../errors.ts";
import {
  FLAGS_SGL,
  IoOpcode,
  NSID_BROADCAST,
  SglId,
  STATUS_DNR,
  Status,
  VENDOR_OPCODE_FIRST,
} from "../../nvme/constants.ts";
import { IoFlag, IoOp } from "../reactor/io-table.ts";
import { ARENA_RESERVE_BYTES } from "../reactor/limits.ts";
import {
  CommandQueue,
  DATA_KIND_MASK,
  DataKind,
  KEPT_WORDS,
  READ_COUNTED,
} from "./command-queue.ts";
import type { Connection } from "./connection.ts";
import type { Controller } from "./controller.ts";
import { GATHER_BYTES_MAX, READ_BYTES_MAX, TRANSFER_BYTES_MAX } from "./limits.ts";
import { executeReservation } from "./reservation-commands.ts";
import { Access } from "./reservations.ts";
import type { Namespace, Subsystem } from "./subsystem.ts";
import { executeVendor } from "./vendor.ts";

const TWO_32 = 4294967296;
/** Bits of dword 12 (NVM Command Set, 3.2). */
const CDW12_DEALLOCATE = 0x02000000;
const CDW12_FUA = 0x40000000;
const DSM_RANGE_BYTES = 16;
const DSM_DEALLOCATE = 4;

/** I/O statuses whose commands would fail again: they carry Do Not Retry. */
const permanent: ReadonlySet<number> = new Set([
  IoStatus.OUT_OF_RANGE,
  IoStatus.INVALID,
  IoStatus.UNSUPPORTED,
  IoStatus.NO_SPACE,
  IoStatus.MISCOMPARE,
]);

/** NVMe status of an I/O status; a failed write is told as a write fault. */
export function nvmeStatus(status: number, op: number): number {
  if (status === IoStatus.OK) return 0;
  // A newer path exists: the host shall look for it rather than fail the command.
  if (status === IoStatus.SUPERSEDED) return Status.INTERNAL_PATH_ERROR;
  if (status === IoStatus.DEVICE_IO && op !== IoOp.READ) return Status.WRITE_FAULT;
  return ioStatusNvme[status]! | (permanent.has(status) ? STATUS_DNR : 0);
}

export class IoQueue extends CommandQueue {
  readonly controller: Controller;
  readonly subsystem: Subsystem;
  readonly namespace: Namespace;
  readonly queueId: number;
  protected readonly slotsPerCommand: number;

  constructor(
    connection: Connection,
    controller: Controller,
    subsystem: Subsystem,
    queueId: number,
    entries: number,
    flowControlOff: boolean,
  ) {
    super(connection, entries, flowControlOff);
    this.controller = controller;
    this.subsystem = subsystem;
    this.namespace = subsystem.namespace;
    this.queueId = queueId;
    this.slotsPerCommand = this.namespace.bdev.slotsPerIo + 1;
  }

  onCapsule(sqe: number, data: number, dataBytes: number): boolean {
    const first = this.arena.i32[sqe >> 2]!;
    const opcode = first & 0xff;
    if (this.inFlight >= this.entries) {
      this.connection.violation();
      return false;
    }
    if (((first >>> 8) & 0xff) !== FLAGS_SGL) {
      return this.refuse(first >>> 16, Status.INVALID_FIELD | STATUS_DNR);
    }
    if (opcode === IoOpcode.READ) return this.#read(sqe, first >>> 16);
    if (opcode === IoOpcode.WRITE) return this.#write(sqe, first >>> 16, data, dataBytes);
    return this.start(sqe, data, dataBytes);
  }

  /** NVMe status that refuses access to a byte range, or 0. */
  #refusal(namespaceId: number, offset: number, length: number, access: number): number {
    const { namespace, subsystem } = this;
    if (namespaceId !== namespace.id || !namespace.active) {
      return Status.INVALID_NAMESPACE | STATUS_DNR;
    }
    if (subsystem.refusal !== 0) return subsystem.refusal;
    const { bdev } = namespace;
    // Sums beyond 2^53 are rounded, but then they are beyond every device as well.
    if (offset + length > bdev.blockCount * bdev.blockSize) {
      return Status.LBA_OUT_OF_RANGE | STATUS_DNR;
    }
    return (this.controller.denied & access) === 0 ? 0 : Status.RESERVATION_CONFLICT;
  }

  #read(sqe: number, cid: number): boolean {
    const { arena, io, connection } = this;
    const { u32, i32 } = arena;
    const { bdev } = this.namespace;
    const w = sqe >> 2;
    const offset = (u32[w + 10]! + u32[w + 11]! * TWO_32) * bdev.blockSize;
    const length = ((i32[w + 12]! & 0xffff) + 1) * bdev.blockSize;
    let status = this.#refusal(i32[w + 1]!, offset, length, Access.READ);
    if (arena.u8[sqe + 39] !== SglId.TRANSPORT_DATA_BLOCK) {
      status = Status.SGL_DESCRIPTOR_TYPE_INVALID | STATUS_DNR;
    } else if (length > TRANSFER_BYTES_MAX) status = Status.INVALID_FIELD | STATUS_DNR;
    else if (i32[w + 8] !== length) status = Status.DATA_SGL_LENGTH_INVALID | STATUS_DNR;
    if (status !== 0) return this.refuse(cid, status);
    if (!io.promise(this.slotsPerCommand)) return false;
    const inChunk = bdev.synchronous && length <= GATHER_BYTES_MAX;
    const buffer = inChunk ? this.#chunkFor(length) : this.#bufferFor(length);
    if (buffer < 0) {
      io.release(this.slotsPerCommand);
      return false;
    }
    this.begin();
    const slot = io.take(IoOp.READ, offset, length, buffer, 0, connection.reactor.now);
    if (inChunk) io.tagA[slot] = cid | DataKind.IN_CHUNK;
    else {
      io.tagA[slot] = cid | DataKind.OWN | READ_COUNTED;
      this.own(slot);
    }
    io.push(slot, this);
    bdev.submit(slot);
    return true;
  }

  /** Room for a read in the send chunk, or -1. Chunks come out of what commands may use, too. */
  #chunkFor(length: number): number {
    if (this.arena.freeBytes < ARENA_RESERVE_BYTES) return -1;
    return this.connection.reserveData(length);
  }

  /** A buffer for a read, counted to its connection, or -1. */
  #bufferFor(length: number): number {
    const { arena, connection } = this;
    if (connection.readBytes >= READ_BYTES_MAX) return -1;
    const buffer = arena.alloc(length, ARENA_RESERVE_BYTES);
    if (buffer >= 0) connection.readBytes += arena.sizeOf(buffer);
    return buffer;
  }

  #write(sqe: number, cid: number, data: number, dataBytes: number): boolean {
    const { arena, io, connection } = this;
    const { u32, i32 } = arena;
    const { bdev } = this.namespace;
    const w = sqe >> 2;
    const offset = (u32[w + 10]! + u32[w + 11]! * TWO_32) * bdev.blockSize;
    const length = ((i32[w + 12]! & 0xffff) + 1) * bdev.blockSize;
    let status = this.#refusal(i32[w + 1]!, offset, length, Access.WRITE);
    const sglId = data < 0 ? SglId.TRANSPORT_DATA_BLOCK : SglId.DATA_BLOCK_OFFSET;
    if (arena.u8[sqe + 39] !== sglId) status = Status.SGL_DESCRIPTOR_TYPE_INVALID | STATUS_DNR;
    else if (length > TRANSFER_BYTES_MAX) status = Status.INVALID_FIELD | STATUS_DNR;
    else if (i32[w + 8] !== length || (data >= 0 && dataBytes !== length)) {
      status = Status.DATA_SGL_LENGTH_INVALID | STATUS_DNR;
    } else if (data >= 0 && (i32[w + 6] !== 0 || i32[w + 7] !== 0)) {
      status = Status.SGL_OFFSET_INVALID | STATUS_DNR;
    }
    if (!connection.capsuleIntact) status = Status.TRANSIENT_TRANSPORT_ERROR;
    if (status !== 0) return this.refuse(cid, status);
    const flags = (i32[w + 12]! & CDW12_FUA) !== 0 ? IoFlag.FUA : 0;
    if (data < 0) return this.takeByR2t(sqe, IoOp.WRITE, offset, length, flags);
    if (!io.promise(this.slotsPerCommand)) return false;
    const inReceive = bdev.synchronous;
    const buffer = inReceive ? data : arena.alloc(length, ARENA_RESERVE_BYTES);
    if (buffer < 0) {
      io.release(this.slotsPerCommand);
      return false;
    }
    const slot = io.take(IoOp.WRITE, offset, length, buffer, flags, connection.reactor.now);
    this.begin();
    if (inReceive) io.tagA[slot] = cid | DataKind.IN_RECEIVE;
    else {
      io.tagA[slot] = cid | DataKind.OWN;
      this.own(slot);
      copyMemory(arena.address + buffer, arena.address + data, length);
    }
    io.push(slot, this);
    bdev.submit(slot);
    return true;
  }

  /** Also where a write goes on once its data has come. */
  protected execute(slot: number): void {
    const { io } = this;
    if ((io.tagA[slot]! & KEPT_WORDS) === 0) {
      this.#executeWrite(slot);
      return;
    }
    const opcode = this.requests.opcode(slot);
    switch (opcode) {
      case IoOpcode.FLUSH:
        this.#flush(slot);
        return;
      case IoOpcode.WRITE_ZEROES:
        this.#writeZeroes(slot);
        return;
      case IoOpcode.DATASET_MANAGEMENT:
        this.#deallocate(slot);
        return;
      case IoOpcode.COMPARE:
      case IoOpcode.VERIFY:
        this.#readBack(slot, opcode);
        return;
      case IoOpcode.RESERVATION_REGISTER:
      case IoOpcode.RESERVATION_ACQUIRE:
      case IoOpcode.RESERVATION_RELEASE:
      case IoOpcode.RESERVATION_REPORT:
        executeReservation(this, slot, opcode);
        return;
      default:
        if (opcode >= VENDOR_OPCODE_FIRST) executeVendor(this, slot, opcode);
        else this.finish(slot, Status.INVALID_OPCODE | STATUS_DNR, 0, 0);
    }
  }

  /**
   * A plain write whose data has come. Access is checked again: the state of the group may have
   * changed meanwhile, and a host that was preempted must not write any more.
   */
  #executeWrite(slot: number): void {
    const { io, namespace } = this;
    const status = this.#refusal(namespace.id, io.offset[slot]!, io.length[slot]!, Access.WRITE);
    if (status !== 0) {
      this.finish(slot, status, 0, 0);
      return;
    }
    io.push(slot, this);
    namespace.bdev.submit(slot);
  }

  /** For reservation and vendor commands: NVMe status that refuses them, or 0. */
  accessRefusal(slot: number, access: number): number {
    return this.#refusal(this.requests.namespaceId(slot), 0, 0, access);
  }

  /** A copy of the data that the host sent with a command; empty when there is none. */
  hostDataOf(slot: number): Uint8Array {
    const buffer = this.io.buffer[slot]!;
    const toController = (this.requests.opcode(slot) & 3) === 1;
    if (buffer < 0 || !toController) return new Uint8Array(0);
    return this.arena.u8.slice(buffer, buffer + this.io.length[slot]!);
  }

  /**
   * Ends a command with data for the host, whose first bytes are `bytes`; the rest of what the host
   * made room for is zero.
   */
  finishWithBytes(slot: number, bytes: Uint8Array, dw0: number): void {
    const room = this.io.length[slot]!;
    if (room === 0) {
      this.finish(slot, Status.SUCCESS, dw0, 0);
      return;
    }
    this.arena.u8.set(bytes.subarray(0, room), this.io.buffer[slot]!);
    this.finishWithData(slot, room, dw0);
  }

  #submit(slot: number, op: number, offset: number, length: number, flags: number): void {
    const { io } = this;
    io.op[slot] = op;
    io.offset[slot] = offset;
    io.length[slot] = length;
    io.flags[slot] = flags;
    io.push(slot, this);
    this.namespace.bdev.submit(slot);
  }

  /** Byte offset and length that dwords 10 to 12 of a command name. */
  #range(slot: number): { offset: number; length: number } {
    const { blockSize } = this.namespace.bdev;
    const block = this.requests.dword(slot, 10) + this.requests.dword(slot, 11) * TWO_32;
    const blocks = (this.requests.dword(slot, 12) & 0xffff) + 1;
    return { offset: block * blockSize, length: blocks * blockSize };
  }

  #flush(slot: number): void {
    const id = this.requests.namespaceId(slot);
    const nsid = id === NSID_BROADCAST ? this.namespace.id : id;
    const status = this.#refusal(nsid, 0, 0, Access.WRITE);
    if (status !== 0) this.finish(slot, status, 0, 0);
    else this.#submit(slot, IoOp.FLUSH, 0, 0, 0);
  }

  #writeZeroes(slot: number): void {
    const { offset, length } = this.#range(slot);
    const dword12 = this.requests.dword(slot, 12);
    const nsid = this.requests.namespaceId(slot);
    const status = this.#refusal(nsid, offset, length, Access.WRITE);
    if (status !== 0) {
      this.finish(slot, status, 0, 0);
      return;
    }
    const fua = (dword12 & CDW12_FUA) !== 0 ? IoFlag.FUA : 0;
    const deallocate = (dword12 & CDW12_DEALLOCATE) !== 0 ? IoFlag.UNMAP : 0;
    this.#submit(slot, IoOp.WRITE_ZEROES, offset, length, fua | deallocate);
  }

  /** Dataset Management (NVM Command Set, 3.2.3): only deallocation does something. */
  #deallocate(slot: number): void {
    const { io, arena, requests } = this;
    const ranges = (requests.dword(slot, 10) & 0xff) + 1;
    if (io.length[slot]! < ranges * DSM_RANGE_BYTES) {
      this.finish(slot, Status.DATA_SGL_LENGTH_INVALID | STATUS_DNR, 0, 0);
      return;
    }
    const { blockSize } = this.namespace.bdev;
    const nsid = requests.namespaceId(slot);
    let status = this.#refusal(nsid, 0, 0, Access.WRITE);
    for (let i = 0; i < ranges && status === 0; i++) {
      const w = (io.buffer[slot]! + i * DSM_RANGE_BYTES) >> 2;
      const length = arena.u32[w + 1]! * blockSize;
      const offset = (arena.u32[w + 2]! + arena.u32[w + 3]! * TWO_32) * blockSize;
      status = this.#refusal(nsid, offset, length, Access.WRITE);
    }
    if (status !== 0 || (requests.dword(slot, 11) & DSM_DEALLOCATE) === 0) {
      this.finish(slot, status, 0, 0);
      return;
    }
    io.tagC[slot] = ranges;
    this.#deallocateNext(slot);
  }

  /** Discards the ranges of a Dataset Management command one after the other, last one first. */
  #deallocateNext(slot: number): void {
    const { io, arena } = this;
    const { blockSize } = this.namespace.bdev;
    for (;;) {
      const left = io.tagC[slot]!;
      if (left === 0) {
        this.finish(slot, Status.SUCCESS, 0, 0);
        return;
      }
      io.tagC[slot] = left - 1;
      const w = (io.buffer[slot]! + (left - 1) * DSM_RANGE_BYTES) >> 2;
      const length = arena.u32[w + 1]! * blockSize;
      if (length === 0) continue;
      const offset = (arena.u32[w + 2]! + arena.u32[w + 3]! * TWO_32) * blockSize;
      this.#submit(slot, IoOp.DISCARD, offset, length, 0);
      return;
    }
  }

  /** Compare and Verify: reads the range into memory of its own; the data stays in the request's. */
  #readBack(slot: number, opcode: number): void {
    const { io, arena, connection } = this;
    const { offset, length } = this.#range(slot);
    const nsid = this.requests.namespaceId(slot);
    let status = this.#refusal(nsid, offset, length, Access.READ);
    if (length > TRANSFER_BYTES_MAX) status = Status.INVALID_FIELD | STATUS_DNR;
    else if (opcode === IoOpcode.COMPARE && io.length[slot] !== length) {
      status = Status.DATA_SGL_LENGTH_INVALID | STATUS_DNR;
    }
    if (status !== 0) {
      this.finish(slot, status, 0, 0);
      return;
    }
    const second = arena.alloc(length, 0);
    if (second < 0) {
      connection.reactor.waitForResources({ resume: () => this.#readBack(slot, opcode) });
      return;
    }
    // The host's data moves to tagC, the memory read into takes its place.
    io.tagC[slot] = io.buffer[slot]!;
    io.buffer[slot] = second;
    this.#submit(slot, IoOp.READ, offset, length, 0);
  }

  #readBackDone(slot: number, opcode: number, ioStatus: number): void {
    const { io, arena } = this;
    const second = io.buffer[slot]!;
    const expected = io.tagC[slot]!;
    io.buffer[slot] = expected;
    let status = nvmeStatus(ioStatus, IoOp.READ);
    if (status === 0 && opcode === IoOpcode.COMPARE) {
      const length = io.length[slot]!;
      const same = equalMemory(arena.address + second, arena.address + expected, length);
      if (!same) status = Status.COMPARE_FAILURE | STATUS_DNR;
    }
    arena.free(second);
    this.finish(slot, status, 0, 0);
  }

  ioDone(slot: number): void {
    const { io } = this;
    const tag = io.tagA[slot]!;
    const status = io.status[slot]!;
    this.namespace.statistics.count(io, slot, this.connection.reactor.now);
    if ((tag & KEPT_WORDS) !== 0) this.#commandDone(slot, status);
    else if ((tag & DATA_KIND_MASK) === DataKind.IN_CHUNK) this.#answerInChunk(slot, status);
    else if (status !== IoStatus.OK) this.finish(slot, nvmeStatus(status, io.op[slot]!), 0, 0);
    else if (io.op[slot] === IoOp.READ) this.finishWithData(slot, io.length[slot]!);
    else this.finish(slot, Status.SUCCESS, 0, 0);
  }

  #commandDone(slot: number, status: number): void {
    const { io } = this;
    const opcode = this.requests.opcode(slot);
    if (opcode === IoOpcode.COMPARE || opcode === IoOpcode.VERIFY) {
      this.#readBackDone(slot, opcode, status);
    } else if (status === IoStatus.OK && opcode === IoOpcode.DATASET_MANAGEMENT) {
      this.#deallocateNext(slot);
    } else this.finish(slot, nvmeStatus(status, io.op[slot]!), 0, 0);
  }

  /** A read whose data was put straight into the send chunk. */
  #answerInChunk(slot: number, status: number): void {
    const { io, connection } = this;
    const length = io.length[slot]!;
    const cid = io.tagA[slot]! & 0xffff;
    io.tagA[slot] = cid;
    if (status !== IoStatus.OK) {
      connection.dropData(length);
      this.finish(slot, nvmeStatus(status, io.op[slot]!), 0, 0);
      return;
    }
    const success = this.headMayLag();
    connection.finishData(io.buffer[slot]!, length, cid, success);
    if (success) this.release(slot, false);
    else this.finish(slot, Status.SUCCESS, 0, 0);
  }

  protected onFailure(cid: number, status: number, slot: number, dw0: number): void {
    const { io, namespace } = this;
    const lba = slot < 0 ? 0 : Math.floor(io.offset[slot]! / namespace.bdev.blockSize);
    this.controller.failed(this.queueId, cid, status, namespace.id, lba, dw0);
  }

  onHostLeft(): void {
    this.controller.hostLeft();
  }

  protected onDrained(): void {
    this.controller.queueClosed(this);
  }
}
