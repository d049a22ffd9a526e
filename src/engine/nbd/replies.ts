/** Writes replies into the send chunk of a connection, in place, a word at a time. */
import type { Arena } from "../reactor/arena.ts";
import type { TcpStream } from "../reactor/tcp-stream.ts";
import {
  ALLOCATION_CONTEXT_ID,
  errorPayloads,
  NbdBytes,
  NbdError,
  NbdWord,
  swap32,
} from "./protocol.ts";

const CONTEXT_ID_WORD = swap32(ALLOCATION_CONTEXT_ID);

export class Replies {
  /** Structured replies were negotiated. */
  readonly structured: boolean;
  /** Bytes in front of the data of a read. */
  readonly dataHeadBytes: number;
  readonly #stream: TcpStream;
  readonly #arena: Arena;

  constructor(stream: TcpStream, arena: Arena, structured: boolean) {
    this.structured = structured;
    this.dataHeadBytes = structured ? NbdBytes.DATA_CHUNK : NbdBytes.SIMPLE;
    this.#stream = stream;
    this.#arena = arena;
  }

  /**
   * Queues a reply without data. An error says what is the matter when structured replies were
   * negotiated. The cookie is given as its two words in the order of the wire. False: no room.
   */
  status(cookieA: number, cookieB: number, error: number): boolean {
    if (error !== NbdError.OK && this.structured) return this.#errorChunk(cookieA, cookieB, error);
    const at = this.#stream.reserve(NbdBytes.SIMPLE);
    if (at < 0) return false;
    const words = this.#arena.i32;
    const w = at >> 2;
    words[w] = NbdWord.SIMPLE_MAGIC;
    words[w + 1] = swap32(error);
    words[w + 2] = cookieA;
    words[w + 3] = cookieB;
    return true;
  }

  #errorChunk(cookieA: number, cookieB: number, error: number): boolean {
    const payload = errorPayloads.get(error)!;
    const at = this.#stream.reserve(NbdBytes.CHUNK + payload.byteLength);
    if (at < 0) return false;
    this.#chunkHead(at >> 2, NbdWord.ERROR_DONE, cookieA, cookieB, payload.byteLength);
    this.#arena.u8.set(payload, at + NbdBytes.CHUNK);
    return true;
  }

  #chunkHead(w: number, kind: number, cookieA: number, cookieB: number, length: number): void {
    const words = this.#arena.i32;
    words[w] = NbdWord.CHUNK_MAGIC;
    words[w + 1] = kind;
    words[w + 2] = cookieA;
    words[w + 3] = cookieB;
    words[w + 4] = swap32(length);
  }

  /**
   * Fills the head, reserved at arena offset `at`, of `length` bytes of data. A structured head
   * still lacks the offset, at word `offsetWord(at)`. `isLast`: nothing more comes for the request.
   */
  dataHead(at: number, cookieA: number, cookieB: number, length: number, isLast: boolean): void {
    const w = at >> 2;
    if (this.structured) {
      const kind = isLast ? NbdWord.DATA_DONE : NbdWord.DATA;
      this.#chunkHead(w, kind, cookieA, cookieB, length + 8);
      return;
    }
    const words = this.#arena.i32;
    words[w] = NbdWord.SIMPLE_MAGIC;
    words[w + 1] = 0;
    words[w + 2] = cookieA;
    words[w + 3] = cookieB;
  }

  /** Word index of the offset in a structured head at arena offset `at`. */
  offsetWord(at: number): number {
    return (at + NbdBytes.CHUNK) >> 2;
  }

  /** Queues `count` extents, pairs of length and flags, of `base:allocation`. False: no room. */
  extents(cookieA: number, cookieB: number, extents: Float64Array, count: number): boolean {
    const length = 4 + count * NbdBytes.EXTENT;
    const at = this.#stream.reserve(NbdBytes.CHUNK + length);
    if (at < 0) return false;
    const words = this.#arena.i32;
    let w = at >> 2;
    this.#chunkHead(w, NbdWord.STATUS_DONE, cookieA, cookieB, length);
    words[w + 5] = CONTEXT_ID_WORD;
    w += 6;
    for (let i = 0; i < count * 2; i++) words[w + i] = swap32(extents[i]!);
    return true;
  }
}
