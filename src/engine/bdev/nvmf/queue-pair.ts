/**
 * One queue pair of the initiator: a TCP connection, the PDUs on it, and the commands in flight
 * (NVM Express TCP Transport 1.0). What the commands mean is the business of the user above.
 *
 * Command capsules are written straight into the send chunk of the stream. Data of up to 8 KiB is
 * copied behind its header, larger data is sent from where it lies; read data is copied out of the
 * receive buffer or, when much is still to come, received straight into its place.
 *
 * A command is over for its user only when the connection has no more to do with its buffer.
 */
import { copyMemory, crc32c } from "../../../../ffi/index.ts";
import { assert } from "../../../assert.ts";
import { Status } from "../../../nvme/constants.ts";
import {
  decodeIc,
  decodeTermReq,
  encodeIc,
  encodeTermReq,
  PduBytes,
  PduFlag,
  PduType,
  pduWord0,
  TermError,
  termErrorNames,
} from "../../../nvme/pdu.ts";
import type { Arena, Waiter } from "../../reactor/arena.ts";
import { RECV_BUFFER_BYTES } from "../../reactor/limits.ts";
import type { Reactor } from "../../reactor/reactor.ts";
import { recvBuffersOf, type StreamOwner, TcpStream } from "../../reactor/tcp-stream.ts";
import { CommandState, CommandTable, Direction } from "./command-table.ts";
import {
  COPY_BYTES_MAX,
  H2C_DATA_BYTES_MIN,
  LARGE_READ_BYTES_MIN,
  R2T_PER_COMMAND_MAX,
  RECEIVE_INTO_BYTES_MIN,
  TERM_LINGER_MS,
} from "./limits.ts";
import { R2tRing } from "./r2t-ring.ts";

const NONE = -1;
/** PSDT: the data pointer is an SGL, as all commands over fabrics have it (Base 2.0, figure 86). */
const PSDT_SGL = 1 << 14;
/** SGL identifiers in the last byte of the descriptor. */
const SGL_IN_CAPSULE = 0x01 << 24;
const SGL_TRANSPORT = 0x5a << 24;
/** Flags of a C2HData header that vary from one to the next. */
const C2H_VARYING = (PduFlag.LAST | PduFlag.SUCCESS) << 8;
const HEADER_MASK = 0x00ffffff;

/** What the user of a queue pair is told. */
export interface QueueUser {
  /** A command has ended; `status` is SCT << 8 | SC with DNR in bit 14, `queue.dword0` its result. */
  commandDone(queue: QueuePair, tag: number, status: number): void;
  /** The connection ended before the command did. Told in the order in which commands were started. */
  commandLost(queue: QueuePair, tag: number, wasAborting: boolean): void;
  /** Commands may be started that could not before. */
  queueRoom(queue: QueuePair): void;
  /** The connection is about to be shut down from this side. */
  queueClosing(): void;
  /** The connection is gone and every command was told of. */
  queueClosed(queue: QueuePair, reason: string): void;
}

/** What is asked for, and therefore demanded, in the negotiation. */
export interface Digests {
  readonly headerDigest: boolean;
  readonly dataDigest: boolean;
}

export class QueuePair implements StreamOwner, Waiter {
  /** 0 is the admin queue. */
  readonly id: number;
  readonly stream: TcpStream;
  readonly commands: CommandTable;
  /** Largest data that travels in a command capsule. */
  inCapsuleBytes: number;
  /** First two dwords of the completion that `commandDone` tells of. */
  dword0 = 0;
  dword1 = 0;
  /** Set between a successful negotiation and the end of the connection. */
  open = false;

  readonly #reactor: Reactor;
  readonly #arena: Arena;
  readonly #i32: Int32Array;
  readonly #address: number;
  readonly #user: QueueUser;
  readonly #digests: Digests;
  readonly #headerDigest: number;
  readonly #dataDigest: number;
  readonly #r2ts: R2tRing;
  readonly #responseWord0: number;
  readonly #dataWord0: number;
  readonly #r2tWord0: number;
  readonly #capsuleWord0: number;
  readonly #capsuleBytes: number;
  #capsuleDataWord0 = 0;
  #capsuleDataAt = 0;
  #hostDataWord0 = 0;
  #hostDataAt = 0;
  #hostDataMax = H2C_DATA_BYTES_MIN;
  #onOpen: (() => void) | null = null;
  #waiting = false;
  #answered = 0;
  // The C2HData PDU being received: its command, where its data goes, what is still to come.
  #inIndex = NONE;
  #inAt = 0;
  #inLeft = 0;
  #inBytes = 0;
  #inEnds = false;
  #lastDataBytes = 0;

  constructor(
    reactor: Reactor,
    fd: number,
    id: number,
    depth: number,
    inCapsuleBytes: number,
    digests: Digests,
    user: QueueUser,
  ) {
    this.id = id;
    this.inCapsuleBytes = inCapsuleBytes;
    this.#reactor = reactor;
    this.#arena = reactor.arena;
    this.#i32 = reactor.arena.i32;
    this.#address = reactor.arena.address;
    this.#user = user;
    this.#digests = digests;
    this.#headerDigest = digests.headerDigest ? PduBytes.DIGEST : 0;
    this.#dataDigest = digests.dataDigest ? PduBytes.DIGEST : 0;
    this.commands = new CommandTable(depth);
    this.#r2ts = new R2tRing(depth * R2T_PER_COMMAND_MAX);
    const header = digests.headerDigest ? PduFlag.HEADER_DIGEST : 0;
    const both = header | (digests.dataDigest ? PduFlag.DATA_DIGEST : 0);
    this.#responseWord0 = pduWord0(PduType.CAPSULE_RESP, header, PduBytes.CAPSULE_RESP, 0);
    this.#r2tWord0 = pduWord0(PduType.R2T, header, PduBytes.R2T, 0);
    this.#dataWord0 = pduWord0(PduType.C2H_DATA, both, PduBytes.DATA, 0);
    this.#capsuleWord0 = pduWord0(PduType.CAPSULE_CMD, header, PduBytes.CAPSULE_CMD, 0);
    this.#capsuleBytes = PduBytes.CAPSULE_CMD + this.#headerDigest;
    this.stream = new TcpStream(reactor, recvBuffersOf(reactor), fd, this);
  }

  // -------------------------------------------------------------------------- opening and closing

  /** Sends ICReq (3.6.2.1) and begins to receive; `onOpen` is called when ICResp has been accepted. */
  negotiate(onOpen: () => void): boolean {
    const at = this.stream.reserve(PduBytes.IC);
    if (at < 0) return false;
    const max = R2T_PER_COMMAND_MAX - 1;
    const request = encodeIc("request", { version: 0, dataAlign: 0, ...this.#digests, max });
    this.#arena.u8.set(request, at);
    this.#onOpen = onOpen;
    this.stream.start();
    return true;
  }

  /** Takes an ICResp (3.6.2.2). Returns whether it was in order. */
  #takeIcResponse(at: number): boolean {
    const ic = decodeIc(new DataView(this.#arena.u8.buffer, at, PduBytes.IC));
    if (ic.version !== 0) return this.#fatal(TermError.UNSUPPORTED_PARAMETER, 8);
    if (ic.dataAlign > 31) return this.#fatal(TermError.INVALID_HEADER_FIELD, 10);
    const { headerDigest, dataDigest } = this.#digests;
    if (ic.headerDigest !== headerDigest || ic.dataDigest !== dataDigest) {
      return this.#fatal(TermError.UNSUPPORTED_PARAMETER, 11);
    }
    if (ic.max < H2C_DATA_BYTES_MIN) return this.#fatal(TermError.INVALID_HEADER_FIELD, 12);
    this.#hostDataMax = ic.max & ~3;
    const align = (ic.dataAlign + 1) * 4;
    const aligned = (bytes: number): number => Math.ceil(bytes / align) * align;
    const header = headerDigest ? PduFlag.HEADER_DIGEST : 0;
    const both = header | (dataDigest ? PduFlag.DATA_DIGEST : 0);
    const { CAPSULE_CMD } = PduBytes;
    this.#capsuleDataAt = aligned(this.#capsuleBytes);
    this.#capsuleDataWord0 = pduWord0(PduType.CAPSULE_CMD, both, CAPSULE_CMD, this.#capsuleDataAt);
    this.#hostDataAt = aligned(PduBytes.DATA + this.#headerDigest);
    this.#hostDataWord0 = pduWord0(PduType.H2C_DATA, both, PduBytes.DATA, this.#hostDataAt);
    this.stream.pos = at + PduBytes.IC;
    this.open = true;
    this.#onOpen?.();
    return true;
  }

  /** Ends the connection; commands in flight are lost. */
  close(reason: string): void {
    this.open = false;
    this.stream.close(reason);
  }

  /** Ends the connection with a termination request (3.6.2.3). Always false. */
  #fatal(status: number, info: number): false {
    const { stream } = this;
    if (stream.closing) return false;
    this.open = false;
    const cause = this.#arena.u8.subarray(stream.pos, Math.min(stream.end, stream.pos + 128));
    const pdu = encodeTermReq("host", status, info, cause);
    const at = stream.reserve(pdu.byteLength);
    if (at >= 0) this.#arena.u8.set(pdu, at);
    const name = termErrorNames[status];
    const reason = `protocol error: ${name} (byte ${info} of PDU type ${cause[0] ?? 0})`;
    stream.closeAfterSend(reason);
    // Requests wait for the end of the connection, so that is not left to the peer's reading.
    this.#reactor.after(TERM_LINGER_MS, () => stream.close(reason));
    return false;
  }

  onClosing(): void {
    this.#user.queueClosing();
  }

  onClosed(reason: string): void {
    this.open = false;
    const { commands } = this;
    for (const index of commands.inOrder()) {
      const tag = commands.tag[index]!;
      const state = commands.state[index]!;
      if (state === CommandState.ANSWERED) this.#finish(index, commands.status[index]!);
      else {
        commands.release(index);
        this.#user.commandLost(this, tag, state === CommandState.ABORTING);
      }
    }
    this.#user.queueClosed(this, reason);
  }

  // ------------------------------------------------------------------------------------- sending

  /**
   * Queues a command. Returns its index in `commands`, or -1 when there is no room: `queueRoom`
   * tells when there may be. Data (a multiple of four bytes, at arena offset `dataAt`) must stay
   * until the command has ended.
   */
  start(
    tag: number,
    opcode: number,
    nsid: number,
    direction: number,
    dataAt: number,
    dataBytes: number,
    deadlineNs: number,
    dword10: number,
    dword11: number,
    dword12: number,
    dword13: number,
    dword14: number,
    dword15: number,
  ): number {
    const { stream, commands } = this;
    if (!this.open || commands.full || !stream.sendRoom) return NONE;
    const inCapsule = direction === Direction.OUT && dataBytes <= this.inCapsuleBytes;
    const headerBytes = inCapsule ? this.#capsuleDataAt : this.#capsuleBytes;
    const digestBytes = inCapsule ? this.#dataDigest : 0;
    const copied = inCapsule && dataBytes <= COPY_BYTES_MAX ? dataBytes : 0;
    const at = stream.reserve(headerBytes + copied + digestBytes);
    if (at < 0) {
      this.#waitForMemory();
      return NONE;
    }
    const index = commands.take(tag, direction, dataAt, dataBytes, deadlineNs);
    const i32 = this.#i32;
    const w = at >> 2;
    i32[w] = inCapsule ? this.#capsuleDataWord0 : this.#capsuleWord0;
    i32[w + 1] = inCapsule ? headerBytes + dataBytes + digestBytes : headerBytes;
    i32[w + 2] = opcode | PSDT_SGL | (commands.cid[index]! << 16);
    i32[w + 3] = nsid;
    i32[w + 4] = 0;
    i32[w + 5] = 0;
    i32[w + 6] = 0;
    i32[w + 7] = 0;
    i32[w + 8] = 0;
    i32[w + 9] = 0;
    i32[w + 10] = dataBytes;
    i32[w + 11] = inCapsule ? SGL_IN_CAPSULE : SGL_TRANSPORT;
    i32[w + 12] = dword10;
    i32[w + 13] = dword11;
    i32[w + 14] = dword12;
    i32[w + 15] = dword13;
    i32[w + 16] = dword14;
    i32[w + 17] = dword15;
    if (this.#headerDigest > 0) {
      i32[w + 18] = crc32c(this.#address + at, PduBytes.CAPSULE_CMD);
    }
    if (inCapsule) {
      for (let i = w + (this.#capsuleBytes >> 2); i < (at + headerBytes) >> 2; i++) i32[i] = 0;
      // All data was asked for, in the sense of R2Ts: it goes out with the command.
      commands.dataDone[index] = dataBytes;
      this.#sendData(index, at + headerBytes, dataAt, dataBytes, copied > 0);
    }
    return index;
  }

  /**
   * Puts data behind a header that ends at `to`, with its digest. When copied, room for both is
   * reserved there; else only the digest's is. `sendRoom` keeps segments enough for all of it.
   */
  #sendData(index: number, to: number, from: number, bytes: number, copied: boolean): void {
    const { stream } = this;
    const digest = this.#dataDigest;
    if (copied) {
      copyMemory(this.#address + to, this.#address + from, bytes);
      if (digest > 0) this.#i32[(to + bytes) >> 2] = crc32c(this.#address + to, bytes);
      return;
    }
    let attached: boolean;
    if (digest > 0) {
      this.#i32[to >> 2] = crc32c(this.#address + from, bytes);
      attached = stream.attachBefore(digest, from, bytes, NONE);
    } else attached = stream.attach(from, bytes, NONE);
    assert(attached, "a stream with room takes a header, its data and a digest");
    this.commands.sentMark[index] = stream.bytesSent + stream.sendBytes;
  }

  /** Answers R2Ts with H2CData PDUs (3.6.2.9) as far as the connection takes them. */
  #sendHostData(): void {
    const { stream, commands } = this;
    const r2ts = this.#r2ts;
    while (r2ts.count > 0 && stream.sendRoom) {
      const command = r2ts.command;
      const index = commands.find(command & 0xffff);
      if (index === NONE) {
        r2ts.shift(); // The command has ended without waiting for this data.
        continue;
      }
      const offset = r2ts.offset;
      const bytes = Math.min(r2ts.left, this.#hostDataMax);
      const copied = bytes <= COPY_BYTES_MAX;
      const headerBytes = this.#hostDataAt;
      const at = stream.reserve(headerBytes + (copied ? bytes : 0) + this.#dataDigest);
      if (at < 0) {
        this.#waitForMemory();
        return;
      }
      r2ts.advance(bytes);
      const isLast = r2ts.left === 0;
      const i32 = this.#i32;
      const w = at >> 2;
      i32[w] = this.#hostDataWord0 | (isLast ? PduFlag.LAST << 8 : 0);
      i32[w + 1] = headerBytes + bytes + this.#dataDigest;
      i32[w + 2] = command;
      i32[w + 3] = offset;
      i32[w + 4] = bytes;
      i32[w + 5] = 0;
      if (this.#headerDigest > 0) i32[w + 6] = crc32c(this.#address + at, PduBytes.DATA);
      const headerEnd = PduBytes.DATA + this.#headerDigest;
      for (let i = (at + headerEnd) >> 2; i < (at + headerBytes) >> 2; i++) i32[i] = 0;
      this.#sendData(index, at + headerBytes, commands.dataAt[index]! + offset, bytes, copied);
      if (isLast) {
        commands.r2ts[index] = commands.r2ts[index]! - 1;
        r2ts.shift();
      }
    }
  }

  #waitForMemory(): void {
    if (this.#waiting) return;
    this.#waiting = true;
    this.#reactor.waitForResources(this);
  }

  resume(): void {
    this.#waiting = false;
    if (this.open) this.#useRoom();
  }

  onSent(): void {
    if (this.#answered > 0) this.#finishAnswered();
    if (this.open) this.#useRoom();
  }

  #useRoom(): void {
    if (this.#r2ts.count > 0) this.#sendHostData();
    this.#user.queueRoom(this);
  }

  // ----------------------------------------------------------------------------------- receiving

  onBytes(): void {
    this.#parse();
    this.#expect();
  }

  /**
   * When nothing but large read data is to come, only the next header is received, so that the data
   * goes straight to its place.
   */
  #expect(): void {
    const { commands, stream } = this;
    const onlyLarge =
      commands.largeReads > 0 &&
      commands.largeReads === commands.inFlight &&
      this.#lastDataBytes >= LARGE_READ_BYTES_MIN;
    stream.receiveBytes = onlyLarge
      ? (this.#inIndex === NONE ? 0 : this.#dataDigest) + PduBytes.DATA + this.#headerDigest
      : RECV_BUFFER_BYTES;
  }

  #parse(): void {
    const { stream } = this;
    const i32 = this.#i32;
    while (!stream.closing && !stream.blocked) {
      if (this.#inIndex !== NONE && !this.#takeData()) return;
      if (stream.closing) return;
      if ((stream.pos & 3) !== 0) stream.realign();
      const at = stream.pos;
      const have = stream.end - at;
      if (have < PduBytes.COMMON) return;
      const word0 = i32[at >> 2]!;
      const header = word0 & HEADER_MASK;
      if ((header & ~C2H_VARYING) === this.#dataWord0 && this.open) {
        const dataAt = word0 >>> 24;
        if (dataAt < PduBytes.DATA + this.#headerDigest) {
          this.#fatal(TermError.INVALID_HEADER_FIELD, 3);
          return;
        }
        if (have < dataAt) return;
        if (!this.#takeDataHeader(at, word0, dataAt)) return;
      } else if (header === this.#responseWord0 && this.open) {
        const bytes = PduBytes.CAPSULE_RESP + this.#headerDigest;
        if (have < bytes) return;
        if (!this.#takeResponse(at, bytes)) return;
      } else if (header === this.#r2tWord0 && this.open) {
        const bytes = PduBytes.R2T + this.#headerDigest;
        if (have < bytes) return;
        if (!this.#takeR2t(at, bytes)) return;
      } else if (!this.#takeOther(at, have, word0)) return;
    }
  }

  /** ICResp, termination requests, and what has no place here. False: nothing more can be parsed. */
  #takeOther(at: number, have: number, word0: number): boolean {
    const type = word0 & 0xff;
    const bytes = this.#i32[(at >> 2) + 1]!;
    if (type === PduType.IC_RESP && !this.open) {
      if (((word0 >>> 16) & 0xff) !== PduBytes.IC || bytes !== PduBytes.IC) {
        return this.#fatal(TermError.INVALID_HEADER_FIELD, 2);
      }
      return have >= PduBytes.IC && this.#takeIcResponse(at);
    }
    if (type === PduType.C2H_TERM_REQ) {
      if (have < PduBytes.TERM_REQ) return false;
      const view = new DataView(this.#arena.u8.buffer, at, PduBytes.TERM_REQ);
      const { status, info } = decodeTermReq(view);
      const name = termErrorNames[status] ?? `status ${status}`;
      this.close(`terminated by the controller: ${name} (byte ${info})`);
      return false;
    }
    const known =
      type === PduType.IC_RESP ||
      type === PduType.CAPSULE_RESP ||
      type === PduType.C2H_DATA ||
      type === PduType.R2T;
    if (known && !this.open) return this.#fatal(TermError.PDU_SEQUENCE, 0);
    if (type === PduType.IC_RESP) return this.#fatal(TermError.PDU_SEQUENCE, 0);
    // A known type whose flags or header length are not those agreed on, or an unknown type.
    return this.#fatal(TermError.INVALID_HEADER_FIELD, known ? 1 : 0);
  }

  #headerIntact(at: number, bytes: number): boolean {
    if (this.#headerDigest === 0) return true;
    const expected = this.#i32[(at + bytes) >> 2]! >>> 0;
    return crc32c(this.#address + at, bytes) === expected;
  }

  /** A response capsule (3.6.2.6): the completion entry is words 2 to 5. */
  #takeResponse(at: number, bytes: number): boolean {
    const i32 = this.#i32;
    const w = at >> 2;
    if (i32[w + 1] !== bytes) return this.#fatal(TermError.INVALID_HEADER_FIELD, 4);
    if (!this.#headerIntact(at, PduBytes.CAPSULE_RESP)) {
      return this.#fatal(TermError.HEADER_DIGEST, 0);
    }
    const word5 = i32[w + 5]!;
    const { commands } = this;
    const index = commands.find(word5 & 0xffff);
    if (index === NONE) return this.#fatal(TermError.INVALID_HEADER_FIELD, 20);
    this.stream.pos = at + bytes;
    let status = word5 >>> 17;
    if (status === 0 && this.#isIncomplete(index)) {
      status = Status.DATA_TRANSFER_ERROR;
    }
    this.#end(index, status, i32[w + 2]!, i32[w + 3]!);
    return true;
  }

  /** True when a command that is said to have succeeded has not moved all of its data. */
  #isIncomplete(index: number): boolean {
    const { dataDone, dataBytes, r2ts } = this.commands;
    return dataDone[index] !== dataBytes[index] || r2ts[index] !== 0;
  }

  /** An R2T (3.6.2.10): words 2 to 4 are command id and tag, offset, length. */
  #takeR2t(at: number, bytes: number): boolean {
    const i32 = this.#i32;
    const w = at >> 2;
    if (i32[w + 1] !== bytes) return this.#fatal(TermError.INVALID_HEADER_FIELD, 4);
    if (!this.#headerIntact(at, PduBytes.R2T)) return this.#fatal(TermError.HEADER_DIGEST, 0);
    const { commands } = this;
    const command = i32[w + 2]!;
    const offset = i32[w + 3]!;
    const length = i32[w + 4]!;
    const index = commands.find(command & 0xffff);
    if (index === NONE) return this.#fatal(TermError.INVALID_HEADER_FIELD, 8);
    if (commands.direction[index] !== Direction.OUT) {
      return this.#fatal(TermError.PDU_SEQUENCE, 8);
    }
    const asked = commands.dataDone[index]!;
    const total = commands.dataBytes[index]!;
    if (length <= 0 || length > total - asked) return this.#fatal(TermError.OUT_OF_RANGE, 16);
    if (offset < 0 || offset + length > total) return this.#fatal(TermError.OUT_OF_RANGE, 12);
    if (commands.r2ts[index]! >= R2T_PER_COMMAND_MAX) {
      return this.#fatal(TermError.TRANSFER_LIMIT, 0);
    }
    this.stream.pos = at + bytes;
    commands.dataDone[index] = asked + length;
    commands.r2ts[index] = commands.r2ts[index]! + 1;
    this.#r2ts.push(command, offset, length);
    this.#sendHostData();
    return true;
  }

  /** The header of a C2HData PDU (3.6.2.8): words 2 to 4 are command id, offset, length. */
  #takeDataHeader(at: number, word0: number, dataAt: number): boolean {
    const i32 = this.#i32;
    const w = at >> 2;
    if (!this.#headerIntact(at, PduBytes.DATA)) return this.#fatal(TermError.HEADER_DIGEST, 0);
    const { commands } = this;
    const index = commands.find(i32[w + 2]! & 0xffff);
    if (index === NONE) return this.#fatal(TermError.INVALID_HEADER_FIELD, 8);
    if (commands.direction[index] !== Direction.IN) return this.#fatal(TermError.PDU_SEQUENCE, 8);
    const done = commands.dataDone[index]!;
    const total = commands.dataBytes[index]!;
    const offset = i32[w + 3]!;
    const length = i32[w + 4]!;
    if (offset !== done) return this.#fatal(TermError.OUT_OF_RANGE, 12);
    if (length <= 0 || length > total - done) return this.#fatal(TermError.OUT_OF_RANGE, 16);
    if (i32[w + 1] !== dataAt + length + this.#dataDigest) {
      return this.#fatal(TermError.INVALID_HEADER_FIELD, 4);
    }
    const ends = (word0 & (PduFlag.SUCCESS << 8)) !== 0;
    const isLast = (word0 & (PduFlag.LAST << 8)) !== 0;
    if (ends && (!isLast || length !== total - done)) {
      return this.#fatal(TermError.INVALID_HEADER_FIELD, 1);
    }
    this.stream.pos = at + dataAt;
    this.#inIndex = index;
    this.#inAt = commands.dataAt[index]! + offset;
    this.#inLeft = length;
    this.#inBytes = length;
    this.#lastDataBytes = length;
    this.#inEnds = ends;
    return true;
  }

  /** Moves what has come of the present data PDU. False: more has to come first. */
  #takeData(): boolean {
    const { stream } = this;
    if (this.#inLeft > 0) {
      const bytes = Math.min(stream.end - stream.pos, this.#inLeft);
      if (bytes > 0) copyMemory(this.#address + this.#inAt, this.#address + stream.pos, bytes);
      stream.pos += bytes;
      this.#inAt += bytes;
      this.#inLeft -= bytes;
      if (this.#inLeft > 0) {
        if (this.#inLeft >= RECEIVE_INTO_BYTES_MIN) stream.receiveInto(this.#inAt, this.#inLeft);
        return false;
      }
    }
    return this.#endData();
  }

  onReceivedInto(): void {
    this.#inAt += this.#inLeft;
    this.#inLeft = 0;
    if (this.#dataDigest === 0) this.#endData();
    this.#expect();
  }

  /** All data of the present PDU is in place: checks the digest behind it. False: it is not there. */
  #endData(): boolean {
    const index = this.#inIndex;
    const { commands, stream } = this;
    const bytes = this.#inBytes;
    if (this.#dataDigest > 0) {
      if (stream.end - stream.pos < PduBytes.DIGEST) return false;
      const u8 = this.#arena.u8;
      const at = stream.pos;
      const low = u8[at]! | (u8[at + 1]! << 8) | (u8[at + 2]! << 16);
      const expected = (low | (u8[at + 3]! << 24)) >>> 0;
      stream.pos = at + PduBytes.DIGEST;
      const actual = crc32c(this.#address + this.#inAt - bytes, bytes);
      if (actual !== expected) commands.damaged[index] = 1;
    }
    this.#inIndex = NONE;
    commands.dataDone[index] = commands.dataDone[index]! + bytes;
    if (this.#inEnds) this.#end(index, Status.SUCCESS, 0, 0);
    return true;
  }

  // -------------------------------------------------------------------------------- completions

  /** The controller has ended a command. */
  #end(index: number, status: number, dword0: number, dword1: number): void {
    const { commands } = this;
    if (status === 0 && commands.damaged[index] === 1) status = Status.TRANSIENT_TRANSPORT_ERROR;
    commands.dword0[index] = dword0;
    commands.dword1[index] = dword1;
    if (commands.sentMark[index]! > this.stream.bytesSent) {
      commands.state[index] = CommandState.ANSWERED;
      commands.status[index] = status;
      this.#answered++;
      return;
    }
    this.#finish(index, status);
  }

  #finish(index: number, status: number): void {
    const { commands } = this;
    this.dword0 = commands.dword0[index]!;
    this.dword1 = commands.dword1[index]!;
    const tag = commands.tag[index]!;
    commands.release(index);
    this.#user.commandDone(this, tag, status);
  }

  /** Ends commands that were answered while their data was still being sent. */
  #finishAnswered(): void {
    const { commands, stream } = this;
    for (let index = 0; index < commands.depth && this.#answered > 0; index++) {
      if (commands.state[index] !== CommandState.ANSWERED) continue;
      if (commands.sentMark[index]! > stream.bytesSent) continue;
      this.#answered--;
      this.#finish(index, commands.status[index]!);
    }
  }
}
