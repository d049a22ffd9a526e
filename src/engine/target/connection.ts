/**
 * The PDU layer of one NVMe/TCP connection (TCP transport 1.0, section 3): negotiation, framing,
 * digests, host data by R2T, controller data, responses. What the commands mean is the business of
 * the `CommandHandler` above: the handshake first, then an I/O queue or an admin queue.
 *
 * A command in progress is a request slot. While a connection holds it, `tagA` is the command id and
 * `tagB` the bytes of host data received so far.
 */
import { copyMemory, crc32c } from "../../../ffi/index.ts";
import { assert } from "../../assert.ts";
import {
  decodeIc,
  encodeIc,
  encodeTermReq,
  PduBytes,
  PduFlag,
  PduType,
  pduWord0,
  TermError,
  termErrorNames,
} from "../../nvme/pdu.ts";
import type { Arena, Waiter } from "../reactor/arena.ts";
import type { IoTable } from "../reactor/io-table.ts";
import type { Reactor } from "../reactor/reactor.ts";
import { type StreamOwner, TcpStream } from "../reactor/tcp-stream.ts";
import type { Timer } from "../reactor/timers.ts";
import {
  IN_CAPSULE_BYTES,
  LARGE_DATA_BYTES,
  RECEIVE_BYTES_BEFORE_DATA,
  RECEIVE_INTO_BYTES_MIN,
} from "./limits.ts";
import { RequestState, type RequestTable } from "./request-table.ts";
import type { Target } from "./target.ts";

const NONE = -1;
const CAPSULE_BYTES_MAX =
  PduBytes.CAPSULE_CMD + PduBytes.DIGEST + 128 + IN_CAPSULE_BYTES + PduBytes.DIGEST;
const CAPSULE_RESP_WORD0 = pduWord0(PduType.CAPSULE_RESP, 0, PduBytes.CAPSULE_RESP, 0);
const R2T_WORD0 = pduWord0(PduType.R2T, 0, PduBytes.R2T, 0);

/** What the two ends agreed on before Connect; it travels along when a connection is handed over. */
export interface Negotiated {
  readonly headerDigest: boolean;
  readonly dataDigest: boolean;
  /** The data of C2HData PDUs starts at a multiple of this many bytes. */
  readonly dataAlign: number;
}

/** The meaning of commands on a connection. */
export interface CommandHandler {
  /**
   * A command has arrived: `sqe` is the arena offset of its 64 bytes, `data` that of the data in
   * the capsule (-1: none). All of it is gone after the call. False when there is no room for the
   * command now: it is offered again when there may be.
   */
  onCapsule(sqe: number, data: number, dataBytes: number): boolean;
  /** The data asked for by `requestHostData` is in the request's buffer, or its digest was wrong. */
  onHostData(slot: number, intact: boolean): void;
  /** A data PDU of an aborted request has passed by. `isLast`: its host data is complete. */
  onDiscarded(slot: number, isLast: boolean): void;
  /** Responses can be queued again, or what `wantRoom` was called for may be there. */
  onRoom(): void;
  /** True while the host owes data that it was asked for. */
  readonly awaitsHost: boolean;
  /** The host's side has closed the connection; `onClosed` follows. */
  onHostLeft(): void;
  /** The connection is gone and nothing of it is outstanding in the ring. */
  onClosed(): void;
}

export class Connection implements StreamOwner, Waiter {
  readonly target: Target;
  readonly reactor: Reactor;
  /** Reactors that have passed the connection on before this one. */
  readonly passed: number;
  readonly stream: TcpStream;
  readonly arena: Arena;
  readonly io: IoTable;
  readonly requests: RequestTable;
  handler: CommandHandler;
  /** Number of the queue that the connection carries; 0 during the handshake. */
  queueNumber = 0;
  /** Arena bytes of reads that a device fills or that wait to be sent. */
  readBytes = 0;
  negotiated: Negotiated | null = null;
  /** Time of the last bytes from the host, for the keep-alive timer. */
  lastSeenNs: number;

  #headerDigest = 0;
  #dataDigest = 0;
  /** Bytes from the start of a C2HData PDU to its data. */
  #dataAt: number = PduBytes.DATA;
  /** Registered with the reactor to be resumed. */
  #waiting = false;
  /** Not receiving until there is room for what came or for what is to be answered. */
  #held = false;
  /** Not receiving until the host has taken some of what is queued for it. */
  #backlogged = false;
  #handshakeTimer: Timer;
  // The H2CData PDU being received: its request, where the next byte goes (-1: nowhere, the request
  // was aborted), what is still to come.
  #inSlot = NONE;
  #inAt = 0;
  #inLeft = 0;
  #inBytes = 0;
  #inActive = false;
  /** Requests whose large data the host has been asked for and that is not in yet. */
  #largeAwaited = 0;

  constructor(
    target: Target,
    fd: number,
    passed: number,
    makeHandler: (connection: Connection) => CommandHandler,
  ) {
    this.target = target;
    this.passed = passed;
    this.reactor = target.reactor;
    this.arena = this.reactor.arena;
    this.io = this.reactor.io;
    this.requests = target.requests;
    this.lastSeenNs = this.reactor.now;
    this.stream = new TcpStream(this.reactor, target.buffers, fd, this);
    this.handler = makeHandler(this);
    this.#handshakeTimer = this.reactor.after(target.limits.handshakeMs, () => {
      this.stream.close("no Connect in time");
    });
  }

  /** True once Connect has succeeded. */
  get ready(): boolean {
    return this.queueNumber !== 0;
  }

  /** For the handshake: its work is done, here or because another reactor goes on with it. */
  endHandshake(): void {
    this.#handshakeTimer.cancel();
  }

  /** Goes on with a connection that another reactor accepted; `bytes` start at its Connect. */
  resumeAt(negotiated: Negotiated, bytes: Uint8Array): void {
    if (this.negotiated === null) this.#agree(negotiated);
    if (this.stream.closing || this.stream.startWith(bytes)) return;
    this.reactor.waitForResources({ resume: () => this.resumeAt(negotiated, bytes) });
  }

  #agree(negotiated: Negotiated): void {
    this.negotiated = negotiated;
    this.#headerDigest = negotiated.headerDigest ? PduBytes.DIGEST : 0;
    this.#dataDigest = negotiated.dataDigest ? PduBytes.DIGEST : 0;
    const align = negotiated.dataAlign;
    this.#dataAt = Math.ceil((PduBytes.DATA + this.#headerDigest) / align) * align;
  }

  // -------------------------------------------------------------------------------- receiving

  onBytes(): void {
    const stream = this.stream;
    const i32 = this.arena.i32;
    this.lastSeenNs = this.reactor.now;
    for (;;) {
      if (stream.closing || stream.blocked) return;
      if (this.#inActive && !this.#takeHostData()) return;
      if ((stream.pos & 3) !== 0) stream.realign();
      const at = stream.pos;
      const have = stream.end - at;
      if (have < PduBytes.COMMON) return;
      const word0 = i32[at >> 2]!;
      const bytes = i32[(at >> 2) + 1]!;
      const type = word0 & 0xff;
      if (type === PduType.CAPSULE_CMD && this.negotiated !== null) {
        if (!this.#checkCapsule(word0, bytes) || have < bytes) return;
        if (!this.#takeCapsule(at, word0, bytes)) return;
      } else if (type === PduType.H2C_DATA && this.ready) {
        if (have < PduBytes.DATA + this.#headerDigest || have < word0 >>> 24) return;
        if (!this.#takeDataHeader(at, word0, bytes)) return;
      } else if (!this.#takeOther(at, have, type, bytes)) return;
    }
  }

  /** ICReq, termination requests, and what has no place here. False: nothing more can be parsed. */
  #takeOther(at: number, have: number, type: number, bytes: number): boolean {
    if (type === PduType.IC_REQ && this.negotiated === null) {
      if (bytes !== PduBytes.IC) return this.#fatal(TermError.INVALID_HEADER_FIELD, 4);
      if (have < PduBytes.IC) return false;
      return this.#takeIcRequest(at);
    }
    if (type === PduType.H2C_TERM_REQ) {
      this.stream.close("terminated by the host");
      return false;
    }
    const ours =
      type === PduType.IC_REQ || type === PduType.CAPSULE_CMD || type === PduType.H2C_DATA;
    return this.#fatal(ours ? TermError.PDU_SEQUENCE : TermError.INVALID_HEADER_FIELD, 0);
  }

  #takeIcRequest(at: number): boolean {
    const view = new DataView(this.arena.u8.buffer, at, PduBytes.IC);
    if (view.getUint8(2) !== PduBytes.IC) return this.#fatal(TermError.INVALID_HEADER_FIELD, 2);
    const request = decodeIc(view);
    if (request.version !== 0) return this.#fatal(TermError.UNSUPPORTED_PARAMETER, 8);
    if (request.dataAlign > 31) return this.#fatal(TermError.INVALID_HEADER_FIELD, 10);
    const to = this.stream.reserve(PduBytes.IC);
    if (to < 0) return this.waitForRoom();
    const { headerDigest, dataDigest } = request;
    const max = this.target.options.h2cDataBytes;
    const response = { version: 0, dataAlign: 0, headerDigest, dataDigest, max };
    this.arena.u8.set(encodeIc("response", response), to);
    this.stream.pos = at + PduBytes.IC;
    this.#agree({ headerDigest, dataDigest, dataAlign: (request.dataAlign + 1) * 4 });
    return true;
  }

  /** Checks a command capsule's header before anything behind it is looked at (3.6.2.5). */
  #checkCapsule(word0: number, bytes: number): boolean {
    const flags = (word0 >>> 8) & 0xff;
    if ((flags & ~this.#digestFlags) !== 0) return this.#fatal(TermError.INVALID_HEADER_FIELD, 1);
    if (((word0 >>> 16) & 0xff) !== PduBytes.CAPSULE_CMD) {
      return this.#fatal(TermError.INVALID_HEADER_FIELD, 2);
    }
    const headerEnd = PduBytes.CAPSULE_CMD + this.#headerDigest;
    if (bytes < headerEnd || bytes > CAPSULE_BYTES_MAX) {
      return this.#fatal(TermError.INVALID_HEADER_FIELD, 4);
    }
    const hasData = bytes > headerEnd;
    const dataAt = word0 >>> 24;
    const dataEnd = bytes - this.#dataDigest;
    if (hasData && (dataAt < headerEnd || dataAt > dataEnd || (dataAt & 3) !== 0)) {
      return this.#fatal(TermError.INVALID_HEADER_FIELD, 3);
    }
    // Digests that were agreed on must be there (3.3.1).
    const wanted = hasData ? this.#digestFlags : this.#digestFlags & PduFlag.HEADER_DIGEST;
    if ((flags & wanted) !== wanted) return this.#fatal(TermError.INVALID_HEADER_FIELD, 1);
    return true;
  }

  get #digestFlags(): number {
    return (
      (this.#headerDigest > 0 ? PduFlag.HEADER_DIGEST : 0) |
      (this.#dataDigest > 0 ? PduFlag.DATA_DIGEST : 0)
    );
  }

  /** Hands a whole capsule to the handler. False: it stays, or the connection ends. */
  #takeCapsule(at: number, word0: number, bytes: number): boolean {
    if (this.#headerDigest > 0 && !this.#digestHolds(at, PduBytes.CAPSULE_CMD)) {
      return this.#fatal(TermError.HEADER_DIGEST, this.#wordAt(at + PduBytes.CAPSULE_CMD));
    }
    if (!this.stream.sendRoom) return this.#waitForSent();
    const hasData = bytes > PduBytes.CAPSULE_CMD + this.#headerDigest;
    const dataAt = word0 >>> 24;
    const dataBytes = hasData ? bytes - dataAt - this.#dataDigest : 0;
    const data = dataBytes > 0 ? at + dataAt : NONE;
    this.capsuleIntact =
      this.#dataDigest === 0 || dataBytes === 0 || this.#digestHolds(at + dataAt, dataBytes);
    if (!this.handler.onCapsule(at + PduBytes.COMMON, data, dataBytes)) {
      if (!this.stream.closing && !this.detached) return this.waitForRoom();
      return false;
    }
    if (this.stream.closing || this.detached) return false;
    this.stream.pos = at + bytes;
    return true;
  }

  /** False when the data digest of the capsule being handled does not hold. */
  capsuleIntact = true;

  /** The four bytes at any arena offset, as an unsigned number. */
  #wordAt(at: number): number {
    const { u8 } = this.arena;
    return (u8[at]! | (u8[at + 1]! << 8) | (u8[at + 2]! << 16) | (u8[at + 3]! << 24)) >>> 0;
  }

  /** True when the 4 bytes behind `length` bytes at arena offset `at` are their CRC-32C. */
  #digestHolds(at: number, length: number): boolean {
    return crc32c(this.arena.address + at, length) === this.#wordAt(at + length);
  }

  /**
   * Ends the connection with a termination request (3.6.2.4). `info` is the offset of the faulty
   * field, or the digest that did not hold. Always false.
   */
  #fatal(status: number, info: number): false {
    const { stream, arena } = this;
    if (stream.closing) return false;
    const cause = arena.u8.subarray(stream.pos, Math.min(stream.end, stream.pos + 128));
    const pdu = encodeTermReq("controller", status, info, cause);
    const at = stream.reserve(pdu.byteLength);
    if (at >= 0) arena.u8.set(pdu, at);
    const field = status === TermError.HEADER_DIGEST ? "" : ` (byte ${info})`;
    const reason = `protocol error: ${termErrorNames[status]}${field}`;
    this.target.options.log("warn", "connection ended", { reason });
    stream.closeAfterSend(reason);
    return false;
  }

  /** For handlers: the host broke a rule of the queue (too many commands, a reused id). */
  violation(): void {
    this.#fatal(TermError.PDU_SEQUENCE, 0);
  }

  /** Stops receiving until memory or slots were given back; `onRoom` is called then. Always false. */
  waitForRoom(): false {
    this.#held = true;
    this.stream.block();
    this.wantRoom();
    return false;
  }

  /** Has `onRoom` called when memory or slots were given back, and goes on receiving meanwhile. */
  wantRoom(): void {
    if (this.#waiting) return;
    this.#waiting = true;
    this.reactor.waitForResources(this);
  }

  /** Stops receiving until the host has taken some of what is queued for it. Always false. */
  #waitForSent(): false {
    this.#backlogged = true;
    this.stream.block();
    return false;
  }

  resume(): void {
    this.#waiting = false;
    if (this.stream.closing || this.detached) return;
    this.#held = false;
    this.handler.onRoom();
    if (!this.#held && !this.#backlogged) this.stream.unblock();
  }

  onSent(): void {
    this.handler.onRoom();
    if (!this.#backlogged || !this.stream.sendRoom) return;
    this.#backlogged = false;
    if (!this.#held) this.stream.unblock();
  }

  /**
   * True when the connection holds memory and its host has let it wait too long: with data to take,
   * with data to send, or with the rest of a PDU.
   */
  get isStalled(): boolean {
    const { stream, reactor } = this;
    const sinceNs = reactor.now - this.target.limits.stalledMs * 1e6;
    const { sendingSinceNs } = stream;
    if (sendingSinceNs > 0 && sendingSinceNs < sinceNs) return true;
    if (stream.blocked || this.lastSeenNs > sinceNs) return false;
    return stream.holdsBuffer || this.#inActive || this.handler.awaitsHost;
  }

  // -------------------------------------------------------------------------------- host data

  /** Asks for `io.length[slot]` bytes into `io.buffer[slot]`. False when there is no room for it. */
  requestHostData(slot: number): boolean {
    const at = this.stream.reserve(PduBytes.R2T + this.#headerDigest);
    if (at < 0) return false;
    const words = this.arena.i32;
    const w = at >> 2;
    words[w] = R2T_WORD0;
    words[w + 1] = PduBytes.R2T;
    words[w + 2] = (this.io.tagA[slot]! & 0xffff) | (slot << 16);
    words[w + 3] = 0;
    words[w + 4] = this.io.length[slot]!;
    words[w + 5] = 0;
    if (this.#headerDigest > 0) this.#signHeader(at, PduBytes.R2T);
    this.io.tagB[slot] = 0;
    if (this.io.length[slot]! >= LARGE_DATA_BYTES) {
      // What lands in a receive buffer has to be copied: of large data that shall be little.
      this.#largeAwaited++;
      this.stream.receiveBytes = RECEIVE_BYTES_BEFORE_DATA;
    }
    return true;
  }

  /** Checks the header of an H2CData PDU (3.6.2.9) and makes its data the next thing received. */
  #takeDataHeader(at: number, word0: number, bytes: number): boolean {
    if (this.#headerDigest > 0 && !this.#digestHolds(at, PduBytes.DATA)) {
      return this.#fatal(TermError.HEADER_DIGEST, this.#wordAt(at + PduBytes.DATA));
    }
    const words = this.arena.i32;
    const w = at >> 2;
    const flags = (word0 >>> 8) & 0xff;
    if ((flags & ~PduFlag.LAST) !== this.#digestFlags) {
      return this.#fatal(TermError.INVALID_HEADER_FIELD, 1);
    }
    if (((word0 >>> 16) & 0xff) !== PduBytes.DATA) {
      return this.#fatal(TermError.INVALID_HEADER_FIELD, 2);
    }
    const dataAt = word0 >>> 24;
    const dataOffset = words[w + 3]!;
    const dataBytes = words[w + 4]!;
    if (dataAt < PduBytes.DATA + this.#headerDigest || (dataAt & 3) !== 0) {
      return this.#fatal(TermError.INVALID_HEADER_FIELD, 3);
    }
    if (dataBytes < 0 || dataBytes > this.target.options.h2cDataBytes) {
      return this.#fatal(TermError.TRANSFER_LIMIT, 16);
    }
    if (dataBytes === 0 || (dataBytes & 3) !== 0) {
      return this.#fatal(TermError.INVALID_HEADER_FIELD, 16);
    }
    if (bytes !== dataAt + dataBytes + this.#dataDigest) {
      return this.#fatal(TermError.INVALID_HEADER_FIELD, 4);
    }
    const slot = words[w + 2]! >>> 16;
    const { queueOf, state } = this.requests;
    const awaits = state[slot] === RequestState.AWAITS_DATA;
    if (
      queueOf[slot] !== this.queueNumber ||
      (!awaits && state[slot] !== RequestState.DISCARDS_DATA)
    ) {
      return this.#fatal(TermError.INVALID_HEADER_FIELD, 10);
    }
    if ((words[w + 2]! & 0xffff) !== (this.io.tagA[slot]! & 0xffff)) {
      return this.#fatal(TermError.INVALID_HEADER_FIELD, 8);
    }
    const received = this.io.tagB[slot]!;
    if (dataOffset !== received || received + dataBytes > this.io.length[slot]!) {
      return this.#fatal(TermError.OUT_OF_RANGE, 12);
    }
    const isLast = received + dataBytes === this.io.length[slot]!;
    if (isLast !== ((flags & PduFlag.LAST) !== 0)) {
      return this.#fatal(TermError.INVALID_HEADER_FIELD, 1);
    }
    this.stream.pos = at + dataAt;
    this.#inSlot = slot;
    this.#inAt = awaits ? this.io.buffer[slot]! + received : NONE;
    this.#inLeft = dataBytes;
    this.#inBytes = dataBytes;
    this.#inActive = true;
    return true;
  }

  /** True while data for this request is being received: its buffer must stay. */
  receivesFor(slot: number): boolean {
    return this.#inActive && this.#inSlot === slot;
  }

  /** Moves received host data to its place. True when the PDU is complete. */
  #takeHostData(): boolean {
    const { stream, arena } = this;
    if (this.#inLeft > 0) {
      const n = Math.min(this.#inLeft, stream.end - stream.pos);
      if (n > 0) {
        if (this.#inAt >= 0) {
          copyMemory(arena.address + this.#inAt, arena.address + stream.pos, n);
          this.#inAt += n;
        }
        stream.pos += n;
        this.#inLeft -= n;
      }
      if (this.#inLeft > 0) {
        if (this.#inLeft >= RECEIVE_INTO_BYTES_MIN && this.#inAt >= 0) {
          stream.receiveInto(this.#inAt, this.#inLeft);
        }
        return false;
      }
    }
    let intact = true;
    if (this.#dataDigest > 0) {
      if (stream.end - stream.pos < PduBytes.DIGEST) return false;
      if (this.#inAt >= 0) {
        const start = this.#inAt - this.#inBytes;
        intact = crc32c(arena.address + start, this.#inBytes) === this.#wordAt(stream.pos);
      }
      stream.pos += PduBytes.DIGEST;
    }
    this.#finishDataPdu(intact);
    return true;
  }

  onReceivedInto(): void {
    this.lastSeenNs = this.reactor.now;
    this.#inAt += this.#inLeft;
    this.#inLeft = 0;
    // The digest, if any, comes with the bytes that follow.
    if (this.#dataDigest === 0) this.#finishDataPdu(true);
  }

  #finishDataPdu(intact: boolean): void {
    const slot = this.#inSlot;
    const { damaged, state } = this.requests;
    this.#inActive = false;
    const received = this.io.tagB[slot]! + this.#inBytes;
    this.io.tagB[slot] = received;
    const isLast = received === this.io.length[slot]!;
    if (isLast && this.io.length[slot]! >= LARGE_DATA_BYTES && --this.#largeAwaited === 0) {
      this.stream.receiveBytes = TcpStream.unitBytesMax;
    }
    if (!intact) damaged[slot] = 1;
    const allIntact = damaged[slot] === 0;
    if (isLast) damaged[slot] = 0;
    if (state[slot] === RequestState.DISCARDS_DATA) this.handler.onDiscarded(slot, isLast);
    else if (isLast) this.handler.onHostData(slot, allIntact);
  }

  // ---------------------------------------------------------------------------------- sending

  /** Appends a digest behind the `length` header bytes at `at` and corrects flags and PLEN. */
  #signHeader(at: number, length: number): void {
    const { arena } = this;
    const words = arena.i32;
    const w = at >> 2;
    words[w] = words[w]! | (PduFlag.HEADER_DIGEST << 8);
    words[w + 1] = words[w + 1]! + PduBytes.DIGEST;
    words[(at + length) >> 2] = crc32c(arena.address + at, length);
  }

  /** Queues a response capsule. `status` is SCT << 8 | SC, with STATUS_DNR. False: no room. */
  respond(cid: number, status: number, sqHead: number, dw0: number, dw1: number): boolean {
    const at = this.stream.reserve(PduBytes.CAPSULE_RESP + this.#headerDigest);
    if (at < 0) return false;
    const words = this.arena.i32;
    const w = at >> 2;
    words[w] = CAPSULE_RESP_WORD0;
    words[w + 1] = PduBytes.CAPSULE_RESP;
    words[w + 2] = dw0;
    words[w + 3] = dw1;
    words[w + 4] = sqHead;
    words[w + 5] = cid | (status << 17);
    if (this.#headerDigest > 0) this.#signHeader(at, PduBytes.CAPSULE_RESP);
    return true;
  }

  /** True when a response can be queued now. */
  hasResponseRoom(): boolean {
    const length = PduBytes.CAPSULE_RESP + this.#headerDigest;
    if (this.stream.reserve(length) < 0) return false;
    this.stream.giveBack(length);
    return true;
  }

  /**
   * Room for a C2HData PDU with `length` bytes of data in the send chunk; returns the arena offset
   * of the data, or -1. To be followed in the same turn by `finishData` or `dropData`.
   */
  reserveData(length: number): number {
    const at = this.stream.reserve(this.#dataAt + length + this.#dataDigest);
    return at < 0 ? NONE : at + this.#dataAt;
  }

  /** Completes a PDU begun by `reserveData`; `last` also says that no response capsule follows. */
  finishData(data: number, length: number, cid: number, success: boolean): void {
    this.#dataHeader(data - this.#dataAt, length, cid, success);
    if (this.#dataDigest > 0) {
      this.#putWord(data + length, crc32c(this.arena.address + data, length));
    }
  }

  /** Takes back what `reserveData` reserved. */
  dropData(length: number): void {
    this.stream.giveBack(this.#dataAt + length + this.#dataDigest);
  }

  /**
   * Queues a C2HData PDU whose data is sent from the buffer at `data`, which is given back to the
   * arena once sent. False: no room, the buffer stays the caller's.
   */
  sendData(data: number, length: number, cid: number, success: boolean): boolean {
    const { stream } = this;
    if (!stream.sendRoom) return false;
    const at = stream.reserve(this.#dataAt + this.#dataDigest);
    if (at < 0) return false;
    this.#dataHeader(at, length, cid, success);
    // With `sendRoom`, the pieces of one PDU always find their places in the queue.
    if (this.#dataDigest === 0) return stream.attach(data, length, data);
    this.#putWord(at + this.#dataAt, crc32c(this.arena.address + data, length));
    return stream.attachBefore(PduBytes.DIGEST, data, length, data);
  }

  #dataHeader(at: number, length: number, cid: number, success: boolean): void {
    const words = this.arena.i32;
    const w = at >> 2;
    const flags = PduFlag.LAST | (success ? PduFlag.SUCCESS : 0);
    const digest = this.#dataDigest > 0 ? PduFlag.DATA_DIGEST : 0;
    words[w] = pduWord0(PduType.C2H_DATA, flags | digest, PduBytes.DATA, this.#dataAt);
    words[w + 1] = this.#dataAt + length + this.#dataDigest - this.#headerDigest;
    words[w + 2] = cid;
    words[w + 3] = 0;
    words[w + 4] = length;
    words[w + 5] = 0;
    if (this.#headerDigest > 0) this.#signHeader(at, PduBytes.DATA);
    for (let pad = at + PduBytes.DATA + this.#headerDigest; pad < at + this.#dataAt; pad += 4) {
      words[pad >> 2] = 0;
    }
  }

  #putWord(at: number, value: number): void {
    assert((at & 3) === 0, "digests are aligned");
    this.arena.i32[at >> 2] = value;
  }

  // ------------------------------------------------------------------------------- the end of it

  /** True once another reactor has taken the connection. */
  detached = false;

  /** Ends the connection. */
  close(reason: string): void {
    this.stream.close(reason);
  }

  onClosed(reason: string): void {
    this.endHandshake();
    if (this.stream.closedByPeer) this.handler.onHostLeft();
    this.handler.onClosed();
    this.target.connectionClosed(this, reason);
  }
}
