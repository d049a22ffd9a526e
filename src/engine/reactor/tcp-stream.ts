/**
 * A TCP connection on a reactor, for every protocol the engine speaks.
 *
 * Receiving: an idle connection holds no memory. Bytes arrive in a receive buffer that the kernel
 * picks from the reactor's shared set; the owner parses in place and, when nothing is left over, the
 * buffer goes back. Large payloads are received straight into their destination (`receiveInto`).
 *
 * Sending: small pieces are gathered in a chunk, large ones are sent from where they lie; one send
 * per turn carries them all, and at most one send is outstanding.
 *
 * Back-pressure: an owner that lacks memory or slots calls `block`; nothing more is received until
 * `unblock`. The set of receive buffers being empty delays only those that receive.
 */
import {
  allocNative,
  CQE_BUFFER_SHIFT,
  CqeFlag,
  closeFd,
  Errno,
  errnoName,
  MsgFlag,
  type NativeMemory,
  Op,
  RecvSendFlag,
  SqeFlag,
  shutdownSocket,
} from "../../../ffi/index.ts";
import { assert } from "../../assert.ts";
import type { Arena } from "./arena.ts";
import {
  CLOSE_LINGER_MS,
  RECV_ARENA_SHARE,
  RECV_BUFFER_BYTES,
  RECV_ROOM_MIN,
  SEND_CHUNK_BYTES,
  SEND_QUEUE_BYTES_MAX,
  SEND_SEGMENTS,
} from "./limits.ts";
import type { CqeHandler, Reactor, TurnEnd } from "./reactor.ts";

const TOKEN_RECV = 0;
const TOKEN_DIRECT = 1;
const TOKEN_SEND = 2;
const BUFFER_GROUP = 1;
const NONE = -1;
const MSGHDR_BYTES = 56;
const IOVEC_BYTES = 16;

/** The receive buffers that all streams of one reactor share. */
export class RecvBuffers {
  readonly count: number;
  readonly #arena: Arena;
  readonly #offsets: Int32Array;
  readonly #ring: NativeMemory;
  readonly #tail: Uint16Array;
  readonly #mask: number;
  readonly #waiting: TcpStream[] = [];
  #published = 0;
  /** Buffers in the kernel's set, as far as completions have told. */
  #free = 0;

  constructor(reactor: Reactor) {
    const arena = reactor.arena;
    this.#arena = arena;
    const wanted = Math.floor(arena.byteLength / RECV_ARENA_SHARE / RECV_BUFFER_BYTES);
    this.count = 1 << (31 - Math.clz32(wanted));
    this.#offsets = new Int32Array(this.count);
    // The ring of buffer descriptors lives in arena memory, which is page-aligned.
    const ringOffset = arena.alloc(this.count * 16, 0);
    assert(ringOffset >= 0, "a new arena has room for the buffer ring");
    const address = arena.address + ringOffset;
    this.#ring = {
      address,
      byteLength: this.count * 16,
      u8: arena.u8.subarray(ringOffset, ringOffset + this.count * 16),
      i32: new Int32Array(arena.u8.buffer, ringOffset, this.count * 4),
      u32: new Uint32Array(arena.u8.buffer, ringOffset, this.count * 4),
      view: new DataView(arena.u8.buffer, ringOffset, this.count * 16),
    };
    this.#tail = new Uint16Array(arena.u8.buffer, ringOffset + 14, 1);
    this.#mask = this.count - 1;
    for (let id = 0; id < this.count; id++) {
      const offset = arena.alloc(RECV_BUFFER_BYTES, 0);
      assert(offset >= 0, "a new arena has room for its receive buffers");
      this.#offsets[id] = offset;
    }
    reactor.ring.registerBufferRing(address, this.count, BUFFER_GROUP);
    for (let id = 0; id < this.count; id++) this.give(id);
  }

  /** Notes that the kernel has picked a buffer, and returns its arena offset. */
  take(id: number): number {
    this.#free--;
    return this.#offsets[id]!;
  }

  /** Gives a buffer back to the kernel's set, and lets a stream that found none try again. */
  give(id: number): void {
    const at = (this.#published & this.#mask) * 4;
    const address = this.#arena.address + this.#offsets[id]!;
    const words = this.#ring.i32;
    words[at] = address;
    words[at + 1] = address / 4294967296;
    words[at + 2] = RECV_BUFFER_BYTES;
    // Word 3: buffer id below; its upper half of entry 0 is the ring's tail and must stay.
    this.#ring.view.setUint16(at * 4 + 12, id, true);
    this.#published = (this.#published + 1) & 0xffff;
    Atomics.store(this.#tail, 0, this.#published);
    this.#free++;
    this.wakeNext();
  }

  /** A buffer may be free: lets the stream that has waited longest, and can use it, try again. */
  wakeNext(): void {
    for (;;) {
      const stream = this.#waiting.shift();
      if (stream === undefined || stream.rearm()) return;
    }
  }

  /** Remembers a stream that found no buffer. One may have been given back since it looked. */
  wait(stream: TcpStream): void {
    this.#waiting.push(stream);
    if (this.#free > 0) this.wakeNext();
  }

  /** Buffers that no stream holds, for leak checks. */
  get free(): number {
    return this.#free;
  }

  /** Streams that wait for a buffer. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** A waiting stream has ended. */
  forget(stream: TcpStream): void {
    const at = this.#waiting.indexOf(stream);
    if (at >= 0) this.#waiting.splice(at, 1);
  }
}

const sharedBuffers = new WeakMap<Reactor, RecvBuffers>();

/** The receive buffers of a reactor, made at their first use: target and initiator share them. */
export function recvBuffersOf(reactor: Reactor): RecvBuffers {
  let buffers = sharedBuffers.get(reactor);
  if (buffers === undefined) {
    buffers = new RecvBuffers(reactor);
    sharedBuffers.set(reactor, buffers);
  }
  return buffers;
}

/** The protocol above a stream. */
export interface StreamOwner {
  /**
   * There are bytes from `stream.pos` to `stream.end` (arena offsets). The owner parses what is
   * whole, moves `pos`, and may call `receiveInto` or `block`. Called again when more has come.
   */
  onBytes(): void;
  /** What `receiveInto` asked for has arrived in full. */
  onReceivedInto(): void;
  /** Queued bytes have been sent, so there is room again. */
  onSent(): void;
  /** The connection is about to be shut down from this side: the peer cannot have heard of it yet. */
  onClosing?(): void;
  /** The connection has ended and nothing of it is outstanding. `reason` is for the log. */
  onClosed(reason: string): void;
}

export class TcpStream implements CqeHandler, TurnEnd {
  readonly fd: number;
  readonly reactor: Reactor;
  /** Range of received bytes not parsed yet, as arena offsets. */
  pos = 0;
  end = 0;
  queued = false;
  /** Bytes queued or being sent. */
  sendBytes = 0;
  bytesReceived = 0;
  bytesSent = 0;
  /** The peer has ended the connection (FIN or RST), before this side did. */
  closedByPeer = false;
  /** Set once `close` was called or the peer went away. */
  closing = false;
  /**
   * Most bytes that a receive into an empty buffer takes. An owner that knows a header comes next,
   * and then much data that it has a place for, asks for the header alone.
   */
  receiveBytes = RECV_BUFFER_BYTES;

  readonly #owner: StreamOwner;
  readonly #buffers: RecvBuffers;
  readonly #arena: Arena;
  readonly #handler: number;
  #reason = "";
  #closeWhenSent = false;
  #finished = false;
  #outstanding = 0;
  #detached = false;
  // receiving
  #bufferId = NONE;
  #base = 0;
  #armed = false;
  #blocked = false;
  #starved = false;
  #more = false;
  #intoAt = 0;
  #intoLeft = 0;
  // sending
  readonly #segAt = new Int32Array(SEND_SEGMENTS);
  readonly #segLen = new Int32Array(SEND_SEGMENTS);
  readonly #segFree = new Int32Array(SEND_SEGMENTS);
  #segHead = 0;
  #segCount = 0;
  #segSending = 0;
  #sendStartNs = 0;
  #chunk = NONE;
  #chunkEnd = 0;
  #chunkSeg = NONE;
  #message: NativeMemory | null = null;

  constructor(reactor: Reactor, buffers: RecvBuffers, fd: number, owner: StreamOwner) {
    this.reactor = reactor;
    this.fd = fd;
    this.#owner = owner;
    this.#buffers = buffers;
    this.#arena = reactor.arena;
    this.#handler = reactor.addHandler(this);
  }

  /** Begins to receive. */
  start(): void {
    this.#arm();
  }

  /**
   * Begins with bytes that were received elsewhere (a connection handed over by another reactor).
   * False when no receive buffer is free; the caller tries again later.
   */
  startWith(bytes: Uint8Array): boolean {
    assert(bytes.byteLength <= RECV_BUFFER_BYTES, "handed-over bytes fit a receive buffer");
    if (bytes.byteLength === 0) {
      this.#arm();
      return true;
    }
    const at = this.#arena.alloc(RECV_BUFFER_BYTES, 0);
    if (at < 0) return false;
    this.#arena.u8.set(bytes, at);
    this.#bufferId = -2 - at; // a buffer of its own, not of the shared set
    this.#base = at;
    this.pos = at;
    this.end = at + bytes.byteLength;
    this.#parse();
    return true;
  }

  // -------------------------------------------------------------------------------- receiving

  /** Stops receiving until `unblock`: the owner cannot take more now. */
  block(): void {
    this.#blocked = true;
  }

  /** True between `block` and `unblock`. */
  get blocked(): boolean {
    return this.#blocked;
  }

  /** Parses what is left over, then goes on receiving. Without effect after `closeAfterSend`. */
  unblock(): void {
    if (!this.#blocked || this.#closeWhenSent) return;
    this.#blocked = false;
    if (this.closing || this.#armed) return;
    if (this.#intoLeft === 0 && this.pos < this.end) this.#parse();
    else this.#arm();
  }

  /**
   * Receives the next `length` bytes of the stream straight to arena offset `at`. To be called from
   * `onBytes` with all received bytes parsed (`pos === end`); ends with `onReceivedInto`.
   */
  receiveInto(at: number, length: number): void {
    assert(this.pos === this.end && this.#intoLeft === 0, "nothing received is left unparsed");
    this.#intoAt = at;
    this.#intoLeft = length;
  }

  /** Moves left-over bytes to the start of the buffer, so that `pos` is aligned to 4 bytes again. */
  realign(): void {
    const length = this.end - this.pos;
    this.#arena.u8.copyWithin(this.#base, this.pos, this.end);
    this.pos = this.#base;
    this.end = this.#base + length;
  }

  /** Most bytes that a unit of the protocol may have to be parsed in one piece. */
  static readonly unitBytesMax = RECV_BUFFER_BYTES;

  #parse(): void {
    this.#owner.onBytes();
    if (!this.closing && !this.#detached) this.#arm();
  }

  /** For the buffer set: a buffer is free again. False when this stream has no use for it now. */
  rearm(): boolean {
    this.#starved = false;
    if (this.closing || this.#blocked) return false;
    this.#arm();
    return true;
  }

  #releaseBuffer(): void {
    const id = this.#bufferId;
    if (id === NONE) return;
    this.#bufferId = NONE;
    this.pos = 0;
    this.end = 0;
    if (id >= 0) this.#buffers.give(id);
    else this.#arena.free(-2 - id);
  }

  #arm(): void {
    if (this.#armed || this.#blocked || this.#starved) return;
    const ring = this.reactor.ring;
    if (this.#intoLeft > 0) {
      if (this.pos === this.end) this.#releaseBuffer();
      const address = this.#arena.address + this.#intoAt;
      const flags = MsgFlag.WAITALL | MsgFlag.NOSIGNAL;
      ring.prep(Op.RECV, this.fd, address, this.#intoLeft, 0, flags, TOKEN_DIRECT, this.#handler);
    } else if (this.pos === this.end) {
      this.#releaseBuffer();
      const poll = this.#more ? 0 : RecvSendFlag.POLL_FIRST;
      const op = Op.RECV | SqeFlag.BUFFER_SELECT | poll;
      const at = ring.prep(op, this.fd, 0, this.receiveBytes, 0, 0, TOKEN_RECV, this.#handler);
      ring.sqes[at + 10] = BUFFER_GROUP;
    } else {
      if (this.#base + RECV_BUFFER_BYTES - this.end < RECV_ROOM_MIN || (this.pos & 3) !== 0) {
        this.realign();
      }
      const room = this.#base + RECV_BUFFER_BYTES - this.end;
      assert(room > 0, "a receive buffer holds the largest unit of every protocol");
      const address = this.#arena.address + this.end;
      ring.prep(Op.RECV, this.fd, address, room, 0, 0, TOKEN_RECV, this.#handler);
    }
    this.#armed = true;
    this.#outstanding++;
  }

  #onRecv(result: number, flags: number): void {
    this.#armed = false;
    const picked = (flags & CqeFlag.BUFFER) !== 0 ? flags >>> CQE_BUFFER_SHIFT : NONE;
    const base = picked === NONE ? NONE : this.#buffers.take(picked);
    if (result <= 0) {
      if (result === -Errno.ENOBUFS && !this.closing) {
        this.#starved = true;
        this.#buffers.wait(this);
        return;
      }
      // Whoever was woken for a buffer and does not use it passes the chance on.
      if (picked !== NONE) this.#buffers.give(picked);
      else if (this.#bufferId === NONE) this.#buffers.wakeNext();
      if (result === -Errno.EINTR || result === -Errno.EAGAIN) this.#arm();
      else this.#lost(result);
      return;
    }
    this.#more = (flags & CqeFlag.SOCK_NONEMPTY) !== 0;
    this.bytesReceived += result;
    if (picked !== NONE) {
      this.#bufferId = picked;
      this.#base = base;
      this.pos = this.#base;
      this.end = this.#base + result;
    } else {
      this.end += result;
    }
    // What comes while the owner is blocked is parsed by `unblock`.
    if (!this.closing && !this.#blocked) this.#parse();
  }

  #onReceivedInto(result: number): void {
    this.#armed = false;
    if (result <= 0) {
      if (result === -Errno.EINTR || result === -Errno.EAGAIN) this.#arm();
      else this.#lost(result);
      return;
    }
    this.#more = true;
    this.bytesReceived += result;
    this.#intoAt += result;
    this.#intoLeft -= result;
    if (this.closing) return;
    if (this.#intoLeft === 0 && !this.#closeWhenSent) {
      this.#owner.onReceivedInto();
      if (this.closing || this.#detached) return;
    }
    this.#arm();
  }

  // ---------------------------------------------------------------------------------- sending

  /** True while responses may be queued without exceeding this connection's share of memory. */
  get sendRoom(): boolean {
    return this.sendBytes < SEND_QUEUE_BYTES_MAX && this.#segCount < SEND_SEGMENTS - 4;
  }

  /** Since when a send has been outstanding (the reactor's clock), or 0: none is. */
  get sendingSinceNs(): number {
    return this.#segSending > 0 ? this.#sendStartNs : 0;
  }

  /** True while a receive buffer is held: part of a unit has arrived. */
  get holdsBuffer(): boolean {
    return this.#bufferId !== NONE;
  }

  /**
   * Queues `length` (at most `SEND_CHUNK_BYTES`) bytes that the caller writes at the arena offset
   * returned, before the turn ends. -1 when no memory is free, and after `closeAfterSend`.
   */
  reserve(length: number): number {
    assert(length > 0 && length <= SEND_CHUNK_BYTES, "a queued piece fits a send chunk");
    if (this.#closeWhenSent) return NONE;
    const chunk = this.#chunk;
    if (chunk !== NONE) {
      const at = this.#chunkEnd;
      if (at + length <= chunk + SEND_CHUNK_BYTES) {
        const last = (this.#segHead + this.#segCount - 1) % SEND_SEGMENTS;
        if (this.#chunkSeg === last) {
          this.#segLen[last] = this.#segLen[last]! + length;
        } else {
          if (this.#segCount === SEND_SEGMENTS) return NONE;
          this.#chunkSeg = this.#addSegment(at, length, NONE);
        }
        this.#chunkEnd = at + length;
        this.sendBytes += length;
        if (!this.queued) this.reactor.atTurnEnd(this);
        return at;
      }
    }
    return this.#reserveInNewChunk(length);
  }

  #reserveInNewChunk(length: number): number {
    if (this.#segCount === SEND_SEGMENTS) return NONE;
    const chunk = this.#arena.alloc(SEND_CHUNK_BYTES, 0);
    if (chunk < 0) return NONE;
    this.#sealChunk();
    this.#chunk = chunk;
    this.#chunkEnd = chunk + length;
    this.#chunkSeg = this.#addSegment(chunk, length, NONE);
    this.sendBytes += length;
    if (!this.queued) this.reactor.atTurnEnd(this);
    return chunk;
  }

  /** Takes back the last `length` bytes of what the latest `reserve` of this turn queued. */
  giveBack(length: number): void {
    assert(this.#chunkSeg !== NONE && this.#segLen[this.#chunkSeg]! >= length, "bytes were queued");
    this.#segLen[this.#chunkSeg] = this.#segLen[this.#chunkSeg]! - length;
    this.#chunkEnd -= length;
    this.sendBytes -= length;
  }

  /**
   * Queues `length` bytes at arena offset `at` to be sent from there; they must stay until sent.
   * Then the buffer at `free` (-1: none) is given back to the arena. False when the queue is full.
   */
  attach(at: number, length: number, free: number): boolean {
    if (this.#segCount >= SEND_SEGMENTS) return false;
    this.#addSegment(at, length, free);
    this.sendBytes += length;
    if (!this.queued) this.reactor.atTurnEnd(this);
    return true;
  }

  /**
   * Like `attach`, but the last `tail` bytes of what the latest `reserve` of this turn queued are
   * sent behind the attached ones: a digest, say, that no lack of memory can then keep back.
   */
  attachBefore(tail: number, at: number, length: number, free: number): boolean {
    if (this.#segCount > SEND_SEGMENTS - 2) return false;
    const last = this.#chunkSeg;
    assert(last !== NONE && this.#segLen[last]! >= tail, "the tail was reserved");
    this.#segLen[last] = this.#segLen[last]! - tail;
    this.#addSegment(at, length, free);
    this.#chunkSeg = this.#addSegment(this.#chunkEnd - tail, tail, NONE);
    this.sendBytes += length;
    if (!this.queued) this.reactor.atTurnEnd(this);
    return true;
  }

  #addSegment(at: number, length: number, free: number): number {
    const seg = (this.#segHead + this.#segCount) % SEND_SEGMENTS;
    this.#segAt[seg] = at;
    this.#segLen[seg] = length;
    this.#segFree[seg] = free;
    this.#segCount++;
    return seg;
  }

  /** The present chunk takes no more bytes; it is freed when its last piece is sent. */
  #sealChunk(): void {
    if (this.#chunk === NONE) return;
    this.#segFree[this.#chunkSeg] = this.#chunk;
    this.#chunk = NONE;
    this.#chunkSeg = NONE;
  }

  /** Sends what was queued. Called by the reactor at the end of the turn. */
  endTurn(): void {
    if (this.#segSending > 0 || this.#segCount === 0 || this.closing) return;
    this.#sealChunk();
    if (this.sendBytes > 0) this.#send();
    else while (this.#segCount > 0) this.#dropSegment(); // All of it was given back.
  }

  #send(): void {
    const count = this.#segCount;
    const ring = this.reactor.ring;
    this.#segSending = count;
    this.#sendStartNs = this.reactor.now;
    this.#outstanding++;
    const flags = MsgFlag.WAITALL | MsgFlag.NOSIGNAL;
    if (count === 1) {
      const address = this.#arena.address + this.#segAt[this.#segHead]!;
      const length = this.#segLen[this.#segHead]!;
      ring.prep(Op.SEND, this.fd, address, length, 0, flags, TOKEN_SEND, this.#handler);
      return;
    }
    const message = this.#gather(count);
    ring.prep(Op.SENDMSG, this.fd, message.address, 1, 0, flags, TOKEN_SEND, this.#handler);
  }

  /** Fills a msghdr whose iovecs are the first `count` queued segments. */
  #gather(count: number): NativeMemory {
    this.#message ??= allocNative(MSGHDR_BYTES + SEND_SEGMENTS * IOVEC_BYTES);
    const message = this.#message;
    const words = message.i32;
    const iovecs = message.address + MSGHDR_BYTES;
    words[4] = iovecs;
    words[5] = iovecs / 4294967296;
    words[6] = count;
    let at = MSGHDR_BYTES >> 2;
    let seg = this.#segHead;
    for (let i = 0; i < count; i++) {
      const address = this.#arena.address + this.#segAt[seg]!;
      words[at] = address;
      words[at + 1] = address / 4294967296;
      words[at + 2] = this.#segLen[seg]!;
      words[at + 3] = 0;
      at += 4;
      seg = seg + 1 === SEND_SEGMENTS ? 0 : seg + 1;
    }
    return message;
  }

  #onSend(result: number): void {
    const sent = this.#segSending;
    this.#segSending = 0;
    if (result < 0) {
      if (result === -Errno.EINTR || result === -Errno.EAGAIN) this.#send();
      else this.#lost(result);
      return;
    }
    this.bytesSent += result;
    this.sendBytes -= result;
    let left = result;
    for (let i = 0; i < sent; i++) {
      const seg = this.#segHead;
      const length = this.#segLen[seg]!;
      if (left < length) {
        // A short send: the rest goes out with the next one.
        this.#segAt[seg] = this.#segAt[seg]! + left;
        this.#segLen[seg] = length - left;
        break;
      }
      left -= length;
      this.#dropSegment();
    }
    if (this.closing) return;
    if (this.#closeWhenSent && this.#segCount === 0) {
      this.close(this.#reason);
      return;
    }
    if (!this.#closeWhenSent) this.#owner.onSent();
    if (this.#segCount > 0) this.reactor.atTurnEnd(this);
  }

  #dropSegment(): void {
    const free = this.#segFree[this.#segHead]!;
    if (free !== NONE) this.#arena.free(free);
    this.#segHead = (this.#segHead + 1) % SEND_SEGMENTS;
    this.#segCount--;
  }

  // ----------------------------------------------------------------------------- the end of it

  onCqe(token: number, result: number, flags: number): void {
    this.#outstanding--;
    if (token === TOKEN_RECV) this.#onRecv(result, flags);
    else if (token === TOKEN_SEND) this.#onSend(result);
    else this.#onReceivedInto(result);
    if (this.closing) this.#finishClose();
  }

  /** A receive or send has ended with `result`: the peer has gone, or the connection has failed. */
  #lost(result: number): void {
    // EPIPE says nothing of who ended it.
    if (!this.closing) this.closedByPeer = result === 0 || result === -Errno.ECONNRESET;
    this.close(result === 0 ? "closed by the peer" : errnoName(result));
  }

  /**
   * Ends the connection: what is queued is dropped; `onClosed` is called once nothing is
   * outstanding, possibly before this returns.
   */
  close(reason: string): void {
    if (this.closing) return;
    this.closing = true;
    this.#reason = reason;
    this.#owner.onClosing?.();
    shutdownSocket(this.fd);
    this.#finishClose();
  }

  /**
   * Ends the connection once what is queued has been sent (a termination request, say), or after
   * `CLOSE_LINGER_MS` when the peer does not take it. Nothing more is received, and of the owner
   * only `onClosed` is called any more.
   */
  closeAfterSend(reason: string): void {
    if (this.closing || this.#closeWhenSent) return;
    this.block();
    if (this.#segCount === 0) {
      this.close(reason);
      return;
    }
    this.#closeWhenSent = true;
    this.#reason = reason;
    this.reactor.after(CLOSE_LINGER_MS, () => this.close(reason));
  }

  #finishClose(): void {
    if (this.#outstanding > 0 || this.#finished || this.#detached) return;
    this.#finished = true;
    if (this.#starved) this.#buffers.forget(this);
    this.#releaseAll();
    closeFd(this.fd);
    this.reactor.removeHandler(this.#handler);
    this.#owner.onClosed(this.#reason);
  }

  #releaseAll(): void {
    this.#sealChunk();
    while (this.#segCount > 0) this.#dropSegment();
    this.sendBytes = 0;
    this.#releaseBuffer();
  }

  /**
   * Takes the connection off this reactor without closing it, for another reactor to go on with.
   * To be called from `onBytes`; returns the unparsed bytes, or undefined while a send is
   * outstanding (then it is to be tried again from `onSent`).
   */
  detach(): Uint8Array | undefined {
    assert(!this.#armed && !this.closing, "only a quiet connection is handed over");
    if (this.#outstanding > 0 || this.#segCount > 0) return undefined;
    const rest = this.#arena.u8.slice(this.pos, this.end);
    this.#detached = true;
    this.#releaseAll();
    this.reactor.removeHandler(this.#handler);
    return rest;
  }
}
