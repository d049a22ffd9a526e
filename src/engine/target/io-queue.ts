/**
 * An I/O queue pair of the target: the NVM command set over one namespace (NVM Command Set 1.0c,
 * section 3). Reads and writes take the short way; the rest goes through `start` and `execute`.
 */
import { copyMemory, equalMemory } from "../../../ffi/index.ts";
import { IoStatus, ioStatusNvme } from "../../errors.ts";
import { FABRICS_OPCODE, IoOpcode, SglId, STATUS_DNR, Status } from "../../nvme/constants.ts";
import { IoFlag, IoOp } from "../reactor/io-table.ts";
import { ARENA_RESERVE_BYTES } from "../reactor/limits.ts";
import { CommandQueue, DATA_KIND_MASK, DataKind, KEPT_WORDS } from "./command-queue.ts";
import type { Connection } from "./connection.ts";
import type { Controller } from "./controller.ts";
import { executeFabrics } from "./fabrics.ts";
import { GATHER_BYTES_MAX, TRANSFER_BYTES_MAX } from "./limits.ts";
import { executeReservation, isReservation, ReservationAccess } from "./reservations.ts";
import type { Namespace, Subsystem } from "./subsystem.ts";

const TWO_32 = 4294967296;
/** Second flags byte of a command that uses an SGL and is not fused (Base 2.0, figure 88). */
const FLAGS_SGL = 0x40;
const DSM_RANGE_BYTES = 16;
const DSM_DEALLOCATE = 4;

/** NVMe status of an I/O status; errors that would repeat carry Do Not Retry. */
function nvmeStatus(status: number): number {
  const isPermanent =
    status === IoStatus.OUT_OF_RANGE ||
    status === IoStatus.INVALID ||
    status === IoStatus.UNSUPPORTED ||
    status === IoStatus.NO_SPACE ||
    status === IoStatus.MISCOMPARE;
  return ioStatusNvme[status]! | (isPermanent ? STATUS_DNR : 0);
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
    if (namespaceId !== namespace.id) return Status.INVALID_NAMESPACE | STATUS_DNR;
    if (subsystem.refusal !== 0) return subsystem.refusal;
    const { bdev } = namespace;
    if (offset + length > bdev.blockCount * bdev.blockSize) {
      return Status.LBA_OUT_OF_RANGE | STATUS_DNR;
    }
    if (namespace.reservations.held && !namespace.reservations.allows(this.controller, access)) {
      return Status.RESERVATION_CONFLICT;
    }
    return 0;
  }

  #read(sqe: number, cid: number): boolean {
    const { arena, io, connection } = this;
    const { u32, i32 } = arena;
    const { bdev } = this.namespace;
    const w = sqe >> 2;
    const offset = (u32[w + 10]! + u32[w + 11]! * TWO_32) * bdev.blockSize;
    const length = ((i32[w + 12]! & 0xffff) + 1) * bdev.blockSize;
    let status = this.#refusal(i32[w + 1]!, offset, length, ReservationAccess.READ);
    if (arena.u8[sqe + 39] !== SglId.TRANSPORT_DATA_BLOCK) {
      status = Status.SGL_DESCRIPTOR_TYPE_INVALID | STATUS_DNR;
    } else if (i32[w + 8] !== length) status = Status.DATA_SGL_LENGTH_INVALID | STATUS_DNR;
    else if (length > TRANSFER_BYTES_MAX) status = Status.INVALID_FIELD | STATUS_DNR;
    if (status !== 0) return this.refuse(cid, status);
    if (!io.promise(this.slotsPerCommand)) return false;
    const inChunk = bdev.synchronous && length <= GATHER_BYTES_MAX;
    const buffer = inChunk
      ? connection.reserveData(length)
      : arena.alloc(length, ARENA_RESERVE_BYTES);
    if (buffer < 0) {
      io.release(this.slotsPerCommand);
      return false;
    }
    this.begin();
    const slot = io.take(IoOp.READ, offset, length, buffer, 0, connection.reactor.now);
    io.tagA[slot] = cid | (inChunk ? DataKind.IN_CHUNK : DataKind.OWN);
    io.push(slot, this);
    bdev.submit(slot);
    return true;
  }

  #write(sqe: number, cid: number, data: number, dataBytes: number): boolean {
    const { arena, io, connection } = this;
    const { u32, i32 } = arena;
    const { bdev } = this.namespace;
    const w = sqe >> 2;
    const offset = (u32[w + 10]! + u32[w + 11]! * TWO_32) * bdev.blockSize;
    const length = ((i32[w + 12]! & 0xffff) + 1) * bdev.blockSize;
    let status = this.#refusal(i32[w + 1]!, offset, length, ReservationAccess.WRITE);
    const sglId = data < 0 ? SglId.TRANSPORT_DATA_BLOCK : SglId.DATA_BLOCK_OFFSET;
    if (arena.u8[sqe + 39] !== sglId) status = Status.SGL_DESCRIPTOR_TYPE_INVALID | STATUS_DNR;
    else if (i32[w + 8] !== length || (data >= 0 && dataBytes !== length)) {
      status = Status.DATA_SGL_LENGTH_INVALID | STATUS_DNR;
    } else if (length > TRANSFER_BYTES_MAX) status = Status.INVALID_FIELD | STATUS_DNR;
    if (!connection.capsuleIntact) status = Status.TRANSIENT_TRANSPORT_ERROR;
    if (status !== 0) return this.refuse(cid, status);
    if (!io.promise(this.slotsPerCommand)) return false;
    const inReceive = data >= 0 && bdev.synchronous;
    const buffer = inReceive ? data : arena.alloc(length, ARENA_RESERVE_BYTES);
    if (buffer < 0) {
      io.release(this.slotsPerCommand);
      return false;
    }
    const flags = (i32[w + 12]! & 0x40000000) !== 0 ? IoFlag.FUA : 0;
    const slot = io.take(IoOp.WRITE, offset, length, buffer, flags, connection.reactor.now);
    io.tagA[slot] = cid | (inReceive ? DataKind.IN_RECEIVE : DataKind.OWN);
    if (data < 0) {
      if (connection.requestHostData(slot)) {
        this.begin();
        return true;
      }
      arena.free(buffer);
      io.give(slot);
      io.release(this.slotsPerCommand);
      return false;
    }
    this.begin();
    if (!inReceive) copyMemory(arena.address + buffer, arena.address + data, length);
    io.push(slot, this);
    bdev.submit(slot);
    return true;
  }

  /** Also where a write goes on once its data has come. */
  protected execute(slot: number): void {
    const { io } = this;
    if ((io.tagA[slot]! & KEPT_WORDS) === 0) {
      io.push(slot, this);
      this.namespace.bdev.submit(slot);
      return;
    }
    const opcode = this.words.opcode(slot);
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
      case FABRICS_OPCODE:
        executeFabrics(this, this.controller, slot);
        return;
      default:
        if (isReservation(opcode)) executeReservation(this, slot);
        else this.finish(slot, Status.INVALID_OPCODE | STATUS_DNR, 0, 0);
    }
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
    const block = this.words.dword(slot, 10) + this.words.dword(slot, 11) * TWO_32;
    const blocks = (this.words.dword(slot, 12) & 0xffff) + 1;
    return { offset: block * blockSize, length: blocks * blockSize };
  }

  #flush(slot: number): void {
    const id = this.words.namespaceId(slot);
    const all = id === 0xffffffff;
    const nsid = all ? this.namespace.id : id;
    const status = this.#refusal(nsid, 0, 0, ReservationAccess.WRITE);
    if (status !== 0) this.finish(slot, status, 0, 0);
    else this.#submit(slot, IoOp.FLUSH, 0, 0, 0);
  }

  #writeZeroes(slot: number): void {
    const { offset, length } = this.#range(slot);
    const dword12 = this.words.dword(slot, 12);
    const nsid = this.words.namespaceId(slot);
    const status = this.#refusal(nsid, offset, length, ReservationAccess.WRITE);
    if (status !== 0) {
      this.finish(slot, status, 0, 0);
      return;
    }
    const fua = (dword12 & 0x40000000) !== 0 ? IoFlag.FUA : 0;
    const deallocate = (dword12 & 0x02000000) !== 0 ? IoFlag.UNMAP : 0;
    this.#submit(slot, IoOp.WRITE_ZEROES, offset, length, fua | deallocate);
  }

  /** Dataset Management (NVM Command Set, 3.2.3): only deallocation does something. */
  #deallocate(slot: number): void {
    const { io, arena, words } = this;
    const ranges = (words.dword(slot, 10) & 0xff) + 1;
    if (io.length[slot]! < ranges * DSM_RANGE_BYTES) {
      this.finish(slot, Status.DATA_SGL_LENGTH_INVALID | STATUS_DNR, 0, 0);
      return;
    }
    const { blockSize } = this.namespace.bdev;
    const nsid = words.namespaceId(slot);
    let status = this.#refusal(nsid, 0, 0, ReservationAccess.WRITE);
    for (let i = 0; i < ranges && status === 0; i++) {
      const w = (io.buffer[slot]! + i * DSM_RANGE_BYTES) >> 2;
      const length = arena.u32[w + 1]! * blockSize;
      const offset = (arena.u32[w + 2]! + arena.u32[w + 3]! * TWO_32) * blockSize;
      status = this.#refusal(nsid, offset, length, ReservationAccess.WRITE);
    }
    if (status !== 0 || (words.dword(slot, 11) & DSM_DEALLOCATE) === 0) {
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
    const nsid = this.words.namespaceId(slot);
    let status = this.#refusal(nsid, offset, length, ReservationAccess.READ);
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
    let status = nvmeStatus(ioStatus);
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
    else if (status !== IoStatus.OK) this.finish(slot, nvmeStatus(status), 0, 0);
    else if (io.op[slot] === IoOp.READ) this.finishWithData(slot, io.length[slot]!);
    else this.finish(slot, Status.SUCCESS, 0, 0);
  }

  #commandDone(slot: number, status: number): void {
    const opcode = this.words.opcode(slot);
    if (opcode === IoOpcode.COMPARE || opcode === IoOpcode.VERIFY) {
      this.#readBackDone(slot, opcode, status);
    } else if (status === IoStatus.OK && opcode === IoOpcode.DATASET_MANAGEMENT) {
      this.#deallocateNext(slot);
    } else this.finish(slot, nvmeStatus(status), 0, 0);
  }

  /** A read whose data was put straight into the send chunk. */
  #answerInChunk(slot: number, status: number): void {
    const { io, connection } = this;
    const length = io.length[slot]!;
    const cid = io.tagA[slot]! & 0xffff;
    io.tagA[slot] = cid;
    if (status !== IoStatus.OK) {
      connection.dropData(length);
      this.finish(slot, nvmeStatus(status), 0, 0);
      return;
    }
    const success = this.headMayLag();
    connection.finishData(io.buffer[slot]!, length, cid, success);
    if (success) this.release(slot, false);
    else this.finish(slot, Status.SUCCESS, 0, 0);
  }

  abort(_commandId: number): boolean {
    return false;
  }

  protected onDrained(): void {
    this.controller.queueClosed(this);
  }
}
