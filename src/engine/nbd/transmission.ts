/**
 * The transmission phase of one connection ("Transmission"): requests are taken where they lie in
 * the receive buffer, carried out by the export's device, and answered in whatever order they end.
 *
 * A request under way is a slot of the request table. `tagA` and `tagB` are its cookie, in the order
 * of the wire; `tagC` says how its data is held and what is still to be done (`Tag`); `parent` is the
 * error it is answered with while it waits for room. What is longer than a device takes at once is
 * the business of `SplitRequest`.
 */
import { copyMemory } from "../../../ffi/index.ts";
import { assert } from "../../assert.ts";
import { IoStatus } from "../../errors.ts";
import type { Bdev } from "../bdev/bdev.ts";
import type { Arena, Waiter } from "../reactor/arena.ts";
import { IoFlag, IoOp, type IoOwner, type IoTable } from "../reactor/io-table.ts";
import { ARENA_RESERVE_BYTES, CLOSE_LINGER_MS } from "../reactor/limits.ts";
import type { Reactor, TurnEnd } from "../reactor/reactor.ts";
import type { TcpStream } from "../reactor/tcp-stream.ts";
import { Answers } from "./answers.ts";
import type { NbdConnection, Phase } from "./connection.ts";
import type { NbdExport } from "./export.ts";
import { fillExtents } from "./extents.ts";
import {
  EXTENTS_MAX,
  GATHER_BYTES_MAX,
  PIECE_BYTES_MAX,
  RANGE_PIECE_BYTES_MAX,
  REQUEST_BYTES_MAX,
  REQUESTS_MAX,
  WHOLE_WRITE_BYTES_MAX,
  WRITE_BYTES_MAX,
} from "./limits.ts";
import { PayloadReceiver } from "./payload.ts";
import {
  CommandFlag,
  commandFlagsKnown,
  NbdBytes,
  NbdCommand,
  NbdError,
  NbdWord,
  swap32,
  wide,
} from "./protocol.ts";
import { Replies } from "./replies.ts";
import { nbdErrorOf, type RequestNotes, Tag } from "./requests.ts";
import { SplitRequest } from "./split.ts";

const NONE = -1;

export class Transmission implements Phase, IoOwner, Waiter, TurnEnd {
  readonly reactor: Reactor;
  readonly stream: TcpStream;
  readonly arena: Arena;
  readonly io: IoTable;
  readonly bdev: Bdev;
  readonly replies: Replies;
  readonly notes: RequestNotes;
  queued = false;
  /** The stream has ended. */
  closed = false;

  readonly #connection: NbdConnection;
  readonly #target: NbdExport;
  readonly #hasContext: boolean;
  readonly #split: SplitRequest;
  readonly #extents: Float64Array;
  /** Requests taken and not answered, the pieces of a split one counted too. */
  #inFlight = 0;
  /** Arena memory that those hold. */
  #heldBytes = 0;
  readonly #payload: PayloadReceiver;
  readonly #answers: Answers;
  #waiting = false;
  #held = false;
  #drainReason: string | undefined;

  constructor(
    connection: NbdConnection,
    target: NbdExport,
    structured: boolean,
    hasContext: boolean,
  ) {
    const { server, stream } = connection;
    this.#connection = connection;
    this.#target = target;
    this.#hasContext = hasContext;
    this.reactor = server.reactor;
    this.stream = stream;
    this.arena = this.reactor.arena;
    this.io = this.reactor.io;
    this.bdev = target.bdev;
    this.notes = server.notes;
    this.replies = new Replies(stream, this.arena, structured);
    this.#answers = new Answers(this);
    this.#payload = new PayloadReceiver(stream, this.arena);
    this.#split = new SplitRequest(this);
    this.#extents = new Float64Array(hasContext ? EXTENTS_MAX * 2 : 0);
  }

  // -------------------------------------------------------------------------------- receiving

  onBytes(): void {
    const { stream } = this;
    const words = this.arena.i32;
    for (;;) {
      if (stream.closing || stream.blocked || !this.#takePayload()) return;
      if (stream.end - stream.pos < NbdBytes.REQUEST) return;
      if ((stream.pos & 3) !== 0) stream.realign();
      const w = stream.pos >> 2;
      if (words[w] !== NbdWord.REQUEST_MAGIC) {
        this.#violation("not an NBD request");
        return;
      }
      if (!stream.sendRoom) {
        stream.block();
        return;
      }
      if (this.#isFull) {
        this.#hold();
        return;
      }
      const kind = words[w + 1]!;
      if (kind === NbdWord.READ) {
        if (!this.#read(w, 0)) return;
      } else if (kind === NbdWord.WRITE) {
        if (!this.#write(w, 0)) return;
      } else if (!this.#takeOther(w)) return;
    }
  }

  get #isFull(): boolean {
    return (
      this.#inFlight >= REQUESTS_MAX ||
      this.#heldBytes >= REQUEST_BYTES_MAX ||
      this.#split.holdsParser
    );
  }

  /** Commands other than plain reads and writes. False: it stays, or the connection ends. */
  #takeOther(w: number): boolean {
    const words = this.arena.i32;
    const word = swap32(words[w + 1]!);
    const flags = word >>> 16;
    const command = word & 0xffff;
    const payloadBytes = command === NbdCommand.WRITE ? swap32(words[w + 6]!) >>> 0 : 0;
    const known = commandFlagsKnown[command];
    if (known === undefined || (flags & ~known) !== 0) {
      return this.#refuse(w, NbdError.EINVAL, payloadBytes);
    }
    switch (command) {
      case NbdCommand.READ:
        return this.#read(w, flags);
      case NbdCommand.WRITE:
        return this.#write(w, flags);
      case NbdCommand.FLUSH:
        return this.#flush(w);
      case NbdCommand.TRIM:
      case NbdCommand.WRITE_ZEROES:
        return this.#range(w, command, flags);
      case NbdCommand.BLOCK_STATUS:
        return this.#blockStatus(w, flags);
      case NbdCommand.DISC:
        this.stream.pos += NbdBytes.REQUEST;
        this.drain("disconnected by the client");
        return false;
      default:
        return this.#refuse(w, NbdError.EINVAL, 0);
    }
  }

  /**
   * Answers a request that is not carried out; its payload, if any, is dropped. False: no room for
   * the answer, or the payload is too long.
   */
  #refuse(w: number, error: number, payloadBytes: number): boolean {
    if (payloadBytes > WRITE_BYTES_MAX) {
      this.#violation("a write is too long");
      return false;
    }
    const words = this.arena.i32;
    if (!this.replies.status(words[w + 2]!, words[w + 3]!, error)) return this.waitForRoom();
    this.stream.pos += NbdBytes.REQUEST;
    if (payloadBytes > 0) this.#payload.drop(payloadBytes);
    return true;
  }

  #violation(what: string): void {
    this.#connection.server.options.log("warn", "nbd connection ended", { reason: what });
    this.stream.close(what);
  }

  /** Error that refuses a range, or OK. `beyond` is the one for ranges that leave the export. */
  #rangeError(w: number, offset: number, length: number, beyond: number): number {
    const { bdev } = this;
    const mask = bdev.blockSize - 1;
    if (length === 0 || ((swap32(this.arena.i32[w + 5]!) | length) & mask) !== 0) {
      return NbdError.EINVAL;
    }
    return offset + length > bdev.blockCount * bdev.blockSize ? beyond : NbdError.OK;
  }

  // --------------------------------------------------------------------------------- commands

  #read(w: number, flags: number): boolean {
    const { arena, io, stream, bdev, replies } = this;
    const words = arena.i32;
    const offset = wide(words, w + 4);
    const length = swap32(words[w + 6]!) >>> 0;
    let error = this.#rangeError(w, offset, length, NbdError.EINVAL);
    if ((flags & CommandFlag.DF) !== 0) {
      if (!replies.structured) error = NbdError.EINVAL;
      else if (length > PIECE_BYTES_MAX && error === 0) error = NbdError.EOVERFLOW;
    }
    if (error !== NbdError.OK) return this.#refuse(w, error, 0);
    if (length > PIECE_BYTES_MAX) return this.#beginSplit(w, IoOp.READ, offset, length, 0, 0);
    const promised = this.promise();
    if (promised === 0) return false;
    const head = replies.dataHeadBytes;
    const inChunk = bdev.synchronous && length <= GATHER_BYTES_MAX;
    let buffer = inChunk ? stream.reserve(head + length) : this.allocate(length);
    if (buffer < 0) {
      io.withdraw(promised);
      return this.waitForRoom();
    }
    if (inChunk) buffer += head;
    const slot = io.take(IoOp.READ, offset, length, buffer, 0, this.reactor.now);
    this.#keepRequest(slot, w, promised, (inChunk ? Tag.IN_CHUNK : Tag.OWN) | Tag.READ);
    this.submit(slot);
    return true;
  }

  #write(w: number, flags: number): boolean {
    const { arena, io, stream, bdev } = this;
    const words = arena.i32;
    const offset = wide(words, w + 4);
    const length = swap32(words[w + 6]!) >>> 0;
    const error = this.#target.readOnly
      ? NbdError.EPERM
      : this.#rangeError(w, offset, length, NbdError.ENOSPC);
    if (error !== NbdError.OK || length > WRITE_BYTES_MAX) return this.#refuse(w, error, length);
    const ioFlags = (flags & CommandFlag.FUA) !== 0 ? IoFlag.FUA : 0;
    if (length > PIECE_BYTES_MAX) {
      return this.#beginSplit(w, IoOp.WRITE, offset, length, ioFlags, 0);
    }
    const data = stream.pos + NbdBytes.REQUEST;
    const isWhole = stream.end - data >= length;
    if (!isWhole && length <= WHOLE_WRITE_BYTES_MAX) return false;
    const promised = this.promise();
    if (promised === 0) return false;
    const inReceive = isWhole && bdev.synchronous;
    const buffer = inReceive ? data : this.allocate(length);
    if (buffer < 0) {
      io.withdraw(promised);
      return this.waitForRoom();
    }
    const slot = io.take(IoOp.WRITE, offset, length, buffer, ioFlags, this.reactor.now);
    this.#keepRequest(slot, w, promised, inReceive ? Tag.IN_RECEIVE : Tag.OWN);
    if (!isWhole) {
      this.receivePayload(slot);
      return true;
    }
    if (!inReceive) copyMemory(arena.address + buffer, arena.address + data, length);
    stream.pos = data + length;
    this.submit(slot);
    return true;
  }

  #flush(w: number): boolean {
    const { io } = this;
    const words = this.arena.i32;
    if ((words[w + 4]! | words[w + 5]! | words[w + 6]!) !== 0) {
      return this.#refuse(w, NbdError.EINVAL, 0);
    }
    const promised = this.promise();
    if (promised === 0) return false;
    const slot = io.take(IoOp.FLUSH, 0, 0, NONE, 0, this.reactor.now);
    this.#keepRequest(slot, w, promised, 0);
    this.submit(slot);
    return true;
  }

  /** TRIM and WRITE_ZEROES. */
  #range(w: number, command: number, flags: number): boolean {
    const { io } = this;
    const words = this.arena.i32;
    const offset = wide(words, w + 4);
    const length = swap32(words[w + 6]!) >>> 0;
    const isTrim = command === NbdCommand.TRIM;
    const beyond = isTrim ? NbdError.EINVAL : NbdError.ENOSPC;
    let error = this.#target.readOnly
      ? NbdError.EPERM
      : this.#rangeError(w, offset, length, beyond);
    if (error === 0 && (flags & CommandFlag.FAST_ZERO) !== 0 && !this.#target.fastZeroes) {
      error = NbdError.ENOTSUP;
    }
    if (error !== NbdError.OK) return this.#refuse(w, error, 0);
    const isDurable = (flags & CommandFlag.FUA) !== 0;
    const op = isTrim ? IoOp.DISCARD : IoOp.WRITE_ZEROES;
    // Discarding has no durable form of its own, so a flush follows.
    const tag = isTrim && isDurable ? Tag.FLUSH_AFTER : 0;
    let ioFlags = 0;
    if (!isTrim && isDurable) ioFlags |= IoFlag.FUA;
    if (!isTrim && (flags & CommandFlag.NO_HOLE) === 0) ioFlags |= IoFlag.UNMAP;
    if (length > RANGE_PIECE_BYTES_MAX) {
      return this.#beginSplit(w, op, offset, length, ioFlags, tag);
    }
    const promised = this.promise();
    if (promised === 0) return false;
    const slot = io.take(op, offset, length, NONE, ioFlags, this.reactor.now);
    this.#keepRequest(slot, w, promised, tag);
    this.submit(slot);
    return true;
  }

  #blockStatus(w: number, flags: number): boolean {
    const words = this.arena.i32;
    const offset = wide(words, w + 4);
    const length = swap32(words[w + 6]!) >>> 0;
    const error = this.#hasContext
      ? this.#rangeError(w, offset, length, NbdError.EINVAL)
      : NbdError.EINVAL;
    if (error !== NbdError.OK) return this.#refuse(w, error, 0);
    const countMax = (flags & CommandFlag.REQ_ONE) !== 0 ? 1 : EXTENTS_MAX;
    const { allocation } = this.#target;
    const count = fillExtents(allocation, offset, length, this.#extents, countMax);
    if (!this.replies.extents(words[w + 2]!, words[w + 3]!, this.#extents, count)) {
      return this.waitForRoom();
    }
    this.stream.pos += NbdBytes.REQUEST;
    return true;
  }

  /** A request that is carried out in pieces; there is one at a time. False: it stays. */
  #beginSplit(
    w: number,
    op: number,
    offset: number,
    length: number,
    ioFlags: number,
    tag: number,
  ): boolean {
    if (this.#split.active) {
      this.#hold();
      return false;
    }
    const { io } = this;
    if (!io.promise(1)) return this.waitForRoom();
    const slot = io.take(op, offset, length, NONE, ioFlags, this.reactor.now);
    this.#keepRequest(slot, w, 1, op === IoOp.READ ? Tag.READ : 0);
    this.#split.begin(slot, tag);
    return true;
  }

  /** Moves what identifies a request from its header at word `w` to its slot, and counts it in. */
  #keepRequest(slot: number, w: number, promised: number, tag: number): void {
    const { io } = this;
    const words = this.arena.i32;
    io.tagA[slot] = words[w + 2]!;
    io.tagB[slot] = words[w + 3]!;
    io.tagC[slot] = tag;
    this.notes.promised[slot] = promised;
    this.notes.keepOffset(slot, words[w + 4]!, words[w + 5]!);
    this.stream.pos += NbdBytes.REQUEST;
    this.#inFlight++;
  }

  /** Promises the slots of one request to the device and returns how many; 0: it is to wait. */
  promise(): number {
    const slots = this.bdev.slotsPerIo + 1;
    if (this.io.promise(slots)) return slots;
    this.waitForRoom();
    return 0;
  }

  /** For pieces: counts one in. */
  begun(): void {
    this.#inFlight++;
  }

  /** Passes a request on to the device. */
  submit(slot: number): void {
    this.io.push(slot, this);
    this.bdev.submit(slot);
  }

  // ---------------------------------------------------------------------------------- payload

  /** Makes the payload of `slot` the next thing received; then the request is submitted. */
  receivePayload(slot: number): void {
    this.#payload.begin(slot, this.io.buffer[slot]!, this.io.length[slot]!);
  }

  /** Takes the payload that comes first. True when the next bytes are a request. */
  #takePayload(): boolean {
    const payload = this.#payload;
    for (;;) {
      if (!payload.take()) return false;
      if (payload.slot !== NONE) {
        this.submit(payload.end());
        continue;
      }
      if (!this.#split.wantsPayload) return true;
      if (this.#heldBytes >= REQUEST_BYTES_MAX) {
        this.#hold();
        return false;
      }
      if (!this.#split.beginWrite()) return false;
    }
  }

  onReceivedInto(): void {
    this.#payload.receivedInto();
    this.submit(this.#payload.end());
  }

  // ------------------------------------------------------------------------------- completion

  ioDone(slot: number): void {
    const { io } = this;
    const tag = io.tagC[slot]!;
    const status = io.status[slot]!;
    this.#target.statistics.count(io, slot, this.reactor.now);
    if ((tag & Tag.FLUSH_AFTER) !== 0 && status === IoStatus.OK) {
      io.tagC[slot] = tag & ~Tag.FLUSH_AFTER;
      io.op[slot] = IoOp.FLUSH;
      io.offset[slot] = 0;
      io.length[slot] = 0;
      this.submit(slot);
      return;
    }
    const error = status === IoStatus.OK ? NbdError.OK : nbdErrorOf(io.op[slot]!, status);
    if ((tag & Tag.PIECE) !== 0) this.#split.pieceDone(slot, error);
    else if ((tag & Tag.DATA_MASK) === Tag.IN_CHUNK) this.#answerInChunk(slot, error);
    else this.finish(slot, error);
  }

  /** A read whose data was put straight into the send chunk. */
  #answerInChunk(slot: number, error: number): void {
    const { io, replies } = this;
    const length = io.length[slot]!;
    io.tagC[slot] = Tag.READ;
    if (error !== NbdError.OK) {
      this.stream.giveBack(replies.dataHeadBytes + length);
      this.finish(slot, error);
      return;
    }
    this.#answers.dataHead(io.buffer[slot]! - replies.dataHeadBytes, slot, length);
    this.release(slot);
  }

  /** Ends a request: answers it, now or when there is room, and gives everything back. */
  finish(slot: number, error: number): void {
    if (this.closed) {
      this.release(slot);
      return;
    }
    this.io.parent[slot] = error;
    const { ownsStream } = this.#split;
    if (!this.#answers.give(slot, !ownsStream) && !ownsStream) this.waitForRoom();
  }

  /** Sends the data of a request from its buffer, which is the stream's from now on; ends it. */
  sendBuffer(slot: number): void {
    const { io } = this;
    const buffer = io.buffer[slot]!;
    const isQueued = this.stream.attach(buffer, io.length[slot]!, buffer);
    assert(isQueued, "a stream with room takes a segment");
    this.#heldBytes -= this.arena.sizeOf(buffer);
    io.tagC[slot] = io.tagC[slot]! & ~Tag.DATA_MASK;
    this.release(slot);
  }

  /** Arena memory for a request's data; -1 when there is none. */
  allocate(length: number): number {
    const buffer = this.arena.alloc(length, ARENA_RESERVE_BYTES);
    if (buffer >= 0) this.#heldBytes += this.arena.sizeOf(buffer);
    return buffer;
  }

  /** Gives back everything a request holds and counts it out. */
  release(slot: number): void {
    const { io } = this;
    const tag = io.tagC[slot]!;
    if ((tag & Tag.DATA_MASK) === Tag.OWN) {
      const buffer = io.buffer[slot]!;
      this.#heldBytes -= this.arena.sizeOf(buffer);
      this.arena.free(buffer);
    }
    io.give(slot);
    io.release(this.notes.promised[slot]!);
    this.#inFlight--;
    assert(this.#inFlight >= 0, "requests end once");
    if (this.closed) {
      if (this.#inFlight === 0) this.#gone();
    } else if (this.#drainReason !== undefined) this.#settle();
    else if (this.#held) {
      this.#held = false;
      this.reactor.atTurnEnd(this);
    }
  }

  // ------------------------------------------------------------------------------------- room

  /** Stops reading until a request has ended. */
  #hold(): void {
    this.#held = true;
    this.stream.block();
  }

  /** Stops reading until memory or slots were given back. Always false. */
  waitForRoom(): false {
    this.stream.block();
    if (!this.#waiting) {
      this.#waiting = true;
      this.reactor.waitForResources(this);
    }
    return false;
  }

  resume(): void {
    this.#waiting = false;
    this.#goOn();
  }

  onSent(): void {
    this.#goOn();
  }

  endTurn(): void {
    this.#goOn();
  }

  #goOn(): void {
    const { stream } = this;
    if (stream.closing) return;
    this.answerPending();
    if (this.#waiting || this.#drainReason !== undefined) return;
    if (stream.blocked && stream.sendRoom) stream.unblock();
  }

  /** Answers what waited for room, oldest first. */
  answerPending(): void {
    const split = this.#split;
    split.goOn();
    if (split.ownsStream || this.#answers.giveWaiting()) return;
    this.waitForRoom();
  }

  // ------------------------------------------------------------------------------- the end of it

  /** Takes no more requests and ends the connection once those under way are answered. */
  drain(reason: string): void {
    if (this.#drainReason !== undefined || this.closed) return;
    this.#drainReason = reason;
    this.stream.block();
    this.#settle();
    if (!this.stream.closing) this.#lingerOver();
  }

  /** Requests that are whole and neither answered nor waiting for the client to take answers. */
  get #atDevice(): number {
    const receiving = this.#payload.slot;
    const isPiece = receiving !== NONE && (this.io.tagC[receiving]! & Tag.PIECE) !== 0;
    const wholes = isPiece || this.#split.wantsPayload ? 1 : 0;
    const unfinished = (receiving === NONE ? 0 : 1) + wholes;
    return this.#inFlight - unfinished - this.#answers.waiting - this.#split.waitingForClient;
  }

  /** Ends a draining connection when everything that can be answered is. */
  #settle(): void {
    const isAnswered = this.#answers.waiting === 0 && this.#split.waitingForClient === 0;
    if (isAnswered && this.#atDevice === 0) this.stream.closeAfterSend(this.#drainReason!);
  }

  /** Gives a client that does not take its answers up after a while. */
  #lingerOver(): void {
    this.reactor.after(CLOSE_LINGER_MS, () => {
      if (this.stream.closing) return;
      if (this.#atDevice === 0) this.stream.close(this.#drainReason!);
      else this.#lingerOver();
    });
  }

  onClosed(): void {
    this.closed = true;
    const isIdle = this.#inFlight === 0;
    this.#answers.drop();
    const receiving = this.#payload.end();
    if (receiving !== NONE) {
      if ((this.io.tagC[receiving]! & Tag.PIECE) !== 0) this.#split.pieceDropped(receiving);
      else this.release(receiving);
    }
    this.#split.onClosed();
    if (isIdle) this.#gone();
  }

  #gone(): void {
    this.#target.detach(this.#connection);
    this.#connection.server.connectionEnded(this.#connection);
  }
}
