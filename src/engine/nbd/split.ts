/**
 * The request of a connection that is longer than a device takes at once, carried out in pieces.
 * There is one at a time; a second one waits in the receive buffer.
 *
 * | request               | pieces                                                             |
 * |-----------------------|--------------------------------------------------------------------|
 * | write                 | one per mebibyte of payload as it comes; several are under way     |
 * | read                  | one after the other; each is sent before the next is read          |
 * | trim, write of zeroes | one after the other, at most one per turn on synchronous devices   |
 *
 * While a read is carried out no further request is looked at. A structured read answers each piece
 * with a chunk. A simple one sends its head with the first piece, and from then on the stream is its
 * own until the last: an error can then no longer be told, and ends the connection ("NBD_CMD_READ").
 */
import { assert, unreachable } from "../../assert.ts";
import { IoOp } from "../reactor/io-table.ts";
import { PIECE_BYTES_MAX, RANGE_PIECE_BYTES_MAX } from "./limits.ts";
import { NbdError, swap32 } from "./protocol.ts";
import { Tag } from "./requests.ts";
import type { Transmission } from "./transmission.ts";

const NONE = -1;
const TWO_32 = 4294967296;

const State = {
  /** There is no split request. */
  IDLE: 0,
  /** The next piece is to be given to the device, as soon as there is room for it. */
  ISSUE: 1,
  /** A piece is under way. */
  WAIT: 2,
  /** A piece has been read and is to be sent. */
  SEND: 3,
  /** Other work has its turn. */
  PAUSE: 4,
  /** A write: the payload of the pieces is being received. */
  WRITE: 5,
} as const;
type State = (typeof State)[keyof typeof State];

export class SplitRequest {
  readonly #owner: Transmission;
  #state: State = State.IDLE;
  /** Slot of the request itself. */
  #slot = NONE;
  #op = 0;
  #ioFlags = 0;
  /** `Tag` bits of the last piece. */
  #lastTag = 0;
  /** Where the next piece begins, and how much is left from there. */
  #offset = 0;
  #left = 0;
  /** First error of a write's pieces. */
  #error = 0;
  /** Pieces of a write that have not ended. */
  #out = 0;
  /** The piece to be sent, in state SEND. */
  #piece = NONE;
  #headSent = false;
  #isDriving = false;

  constructor(owner: Transmission) {
    this.#owner = owner;
  }

  get active(): boolean {
    return this.#state !== State.IDLE;
  }

  /** No further request may be looked at. */
  get holdsParser(): boolean {
    return this.#state !== State.IDLE && this.#op === IoOp.READ;
  }

  /** Nothing else may be sent: a simple reply is in the middle of its data. */
  get ownsStream(): boolean {
    return this.#headSent;
  }

  /** The next bytes of the connection are payload for which `beginWrite` makes a piece. */
  get wantsPayload(): boolean {
    return this.#state === State.WRITE && this.#left > 0;
  }

  /** Slots in use that wait until the client has taken what was sent before. */
  get waitingForClient(): number {
    if (this.#op !== IoOp.READ) return 0;
    if (this.#state === State.SEND) return 2;
    return this.#state === State.ISSUE ? 1 : 0;
  }

  /** Takes a request over; `slot` holds its operation, range and flags. `lastTag`: see there. */
  begin(slot: number, lastTag: number): void {
    assert(this.#state === State.IDLE, "one request is split at a time");
    const { io } = this.#owner;
    this.#slot = slot;
    this.#op = io.op[slot]!;
    this.#ioFlags = io.flags[slot]!;
    this.#lastTag = lastTag;
    this.#offset = io.offset[slot]!;
    this.#left = io.length[slot]!;
    this.#error = NbdError.OK;
    this.#out = 0;
    this.#state = this.#op === IoOp.WRITE ? State.WRITE : State.ISSUE;
    this.goOn();
  }

  /** Does what can be done now. Called whenever there may be room again. */
  goOn(): void {
    if (this.#isDriving) return;
    this.#isDriving = true;
    while (this.#step()) {}
    this.#isDriving = false;
  }

  /** One step; true when another may follow. */
  #step(): boolean {
    switch (this.#state) {
      case State.IDLE:
      case State.WAIT:
      case State.PAUSE:
      case State.WRITE:
        return false;
      case State.ISSUE:
        return this.#issue();
      case State.SEND:
        return this.#send();
      default:
        return unreachable(this.#state);
    }
  }

  /** Takes a slot, and memory for data, for the next piece. NONE: no room. */
  #takePiece(lengthMax: number, hasData: boolean): number {
    const owner = this.#owner;
    const { io } = owner;
    const length = Math.min(lengthMax, this.#left);
    const promised = owner.promise();
    if (promised === 0) return NONE;
    const buffer = hasData ? owner.allocate(length) : NONE;
    if (hasData && buffer < 0) {
      io.withdraw(promised);
      owner.waitForRoom();
      return NONE;
    }
    const now = owner.reactor.now;
    const slot = io.take(this.#op, this.#offset, length, buffer, this.#ioFlags, now);
    const isLast = length === this.#left;
    io.tagC[slot] = Tag.PIECE | (hasData ? Tag.OWN : 0) | (isLast ? this.#lastTag : 0);
    owner.notes.keepOffset(slot, swap32(this.#offset / TWO_32), swap32(this.#offset));
    owner.notes.promised[slot] = promised;
    owner.begun();
    this.#offset += length;
    this.#left -= length;
    return slot;
  }

  // ------------------------------------------------------------------- reads, trims and zeroes

  #issue(): boolean {
    const owner = this.#owner;
    const isRead = this.#op === IoOp.READ;
    if (owner.stream.closing || (isRead && !owner.stream.sendRoom)) return false;
    const piece = this.#takePiece(isRead ? PIECE_BYTES_MAX : RANGE_PIECE_BYTES_MAX, isRead);
    if (piece === NONE) return false;
    this.#state = State.WAIT;
    owner.submit(piece);
    return true;
  }

  /** Queues the data of a piece that was read. */
  #send(): boolean {
    const owner = this.#owner;
    const { stream, io, replies } = owner;
    if (stream.closing || !stream.sendRoom) return false;
    const slot = this.#slot;
    const piece = this.#piece;
    const isLast = this.#left === 0;
    if (replies.structured || !this.#headSent) {
      const at = stream.reserve(replies.dataHeadBytes);
      if (at < 0) {
        owner.waitForRoom();
        return false;
      }
      replies.dataHead(at, io.tagA[slot]!, io.tagB[slot]!, io.length[piece]!, isLast);
      if (replies.structured) {
        owner.notes.putOffset(piece, owner.arena.i32, replies.offsetWord(at));
      } else this.#headSent = true;
    }
    this.#piece = NONE;
    this.#state = isLast ? State.IDLE : State.ISSUE;
    owner.sendBuffer(piece);
    if (isLast) this.#readEnded();
    return !isLast;
  }

  #readEnded(): void {
    const slot = this.#slot;
    this.#slot = NONE;
    this.#headSent = false;
    this.#owner.release(slot);
    this.#owner.answerPending();
  }

  // ------------------------------------------------------------------------------------ writes

  /** Makes the next payload bytes a piece. False: no room; it is called again when there may be. */
  beginWrite(): boolean {
    const piece = this.#takePiece(PIECE_BYTES_MAX, true);
    if (piece === NONE) return false;
    this.#out++;
    this.#owner.receivePayload(piece);
    return true;
  }

  #writeDone(error: number): void {
    this.#out--;
    if (this.#error === NbdError.OK) this.#error = error;
    if (this.#out === 0 && this.#left === 0) this.#end(this.#error);
  }

  // --------------------------------------------------------------------------- ends of pieces

  /** A piece has ended with an error for the client, or OK. */
  pieceDone(piece: number, error: number): void {
    const owner = this.#owner;
    if (this.#op === IoOp.WRITE) {
      owner.release(piece);
      this.#writeDone(error);
      return;
    }
    assert(this.#state === State.WAIT, "a piece was under way");
    if (this.#op === IoOp.READ && error === NbdError.OK && !owner.closed) {
      this.#piece = piece;
      this.#state = State.SEND;
      this.goOn();
      return;
    }
    owner.release(piece);
    if (error !== NbdError.OK || this.#left === 0 || owner.closed) this.#end(error);
    else this.#pauseOrGoOn();
  }

  /** Long ranges on a device that works inside `submit` would hold the reactor: others come first. */
  #pauseOrGoOn(): void {
    const owner = this.#owner;
    if (!owner.bdev.synchronous) {
      this.#state = State.ISSUE;
      this.goOn();
      return;
    }
    this.#state = State.PAUSE;
    const slot = this.#slot;
    owner.reactor.after(0, () => {
      if (this.#state !== State.PAUSE || this.#slot !== slot) return;
      this.#state = State.ISSUE;
      this.goOn();
    });
  }

  /** Ends the request: answers it with an error or, unless it is a read, with success. */
  #end(error: number): void {
    const slot = this.#slot;
    const isCut = this.#headSent;
    this.#slot = NONE;
    this.#state = State.IDLE;
    this.#headSent = false;
    if (isCut && !this.#owner.closed) {
      this.#owner.stream.close("a read failed in the middle of its simple reply");
      this.#owner.release(slot);
    } else this.#owner.finish(slot, error);
  }

  /** A piece whose payload will not come any more. */
  pieceDropped(piece: number): void {
    this.#owner.release(piece);
    this.#out--;
  }

  /** The connection has ended: gives back what is not with the device. */
  onClosed(): void {
    const owner = this.#owner;
    if (this.#state === State.IDLE || this.#state === State.WAIT) return;
    if (this.#state === State.SEND) {
      owner.release(this.#piece);
      this.#piece = NONE;
    }
    this.#left = 0;
    if (this.#out === 0) this.#end(NbdError.EIO);
  }
}
