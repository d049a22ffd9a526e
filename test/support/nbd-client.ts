/** A scripted NBD client on the same reactor as the server under test: it says exactly what it is told. */
import { allocNative, closeFd, MsgFlag, type NativeMemory, Op } from "../../ffi/index.ts";
import { NbdBytes, NbdOption, NbdReply } from "../../src/engine/nbd/protocol.ts";
import type { Reactor } from "../../src/engine/reactor/reactor.ts";

const PIECE_BYTES = 256 << 10;
/** A server that says nothing for so long has failed the test. */
const SILENCE_MS = 5_000;

/** Big-endian fields, one after the other: `[bits, value]`, text, or bytes. */
export function fields(...parts: ([8 | 16 | 32 | 64, number | bigint] | string | Uint8Array)[]) {
  const pieces = parts.map((part) => {
    if (typeof part === "string") return new TextEncoder().encode(part);
    if (part instanceof Uint8Array) return part;
    const [bits, value] = part;
    const bytes = new Uint8Array(bits / 8);
    let left = BigInt(value);
    for (let i = bytes.length - 1; i >= 0; i--) {
      bytes[i] = Number(left & 0xffn);
      left >>= 8n;
    }
    return bytes;
  });
  return new Uint8Array(Buffer.concat(pieces));
}

/** A string behind its 32-bit length. */
export function lengthAndText(text: string): Uint8Array {
  return fields([32, Buffer.byteLength(text)], text);
}

export interface OptionReply {
  readonly option: number;
  readonly type: number;
  readonly data: Uint8Array;
}

export interface NbdRequest {
  readonly type: number;
  readonly flags?: number;
  readonly cookie?: bigint;
  readonly offset?: number | bigint;
  readonly length?: number;
  readonly data?: Uint8Array;
}

/** A simple reply, or one chunk of a structured one. */
export type NbdAnswer =
  | { readonly kind: "simple"; readonly error: number; readonly cookie: bigint }
  | {
      readonly kind: "chunk";
      readonly flags: number;
      readonly type: number;
      readonly cookie: bigint;
      readonly payload: DataView;
      readonly bytes: Uint8Array;
    };

export function encodeRequest(request: NbdRequest): Uint8Array {
  return fields(
    [32, 0x25609513],
    [16, request.flags ?? 0],
    [16, request.type],
    [64, request.cookie ?? 1n],
    [64, request.offset ?? 0],
    [32, request.length ?? request.data?.byteLength ?? 0],
    request.data ?? new Uint8Array(0),
  );
}

export class NbdClient {
  readonly reactor: Reactor;
  readonly fd: number;
  readonly #in: NativeMemory = allocNative(PIECE_BYTES);
  readonly #out: NativeMemory = allocNative(PIECE_BYTES);
  /** What was received and not taken yet. */
  #pieces: Uint8Array[] = [];
  #received = 0;
  #ended = false;
  #closed = false;

  constructor(reactor: Reactor, fd: number) {
    this.reactor = reactor;
    this.fd = fd;
  }

  #orSilence<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const timer = this.reactor.after(SILENCE_MS, () => reject(new Error("the server is silent")));
      const done = () => timer.cancel();
      work.then(resolve, reject).then(done, done);
    });
  }

  async send(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.byteLength; ) {
      const piece = bytes.subarray(at, at + PIECE_BYTES);
      this.#out.u8.set(piece);
      const flags = MsgFlag.NOSIGNAL | MsgFlag.WAITALL;
      const { address } = this.#out;
      const n = await this.#orSilence(
        this.reactor.submit(Op.SEND, this.fd, address, piece.byteLength, 0, flags),
      );
      if (n <= 0) throw new Error(`sending failed: ${n}`);
      at += n;
    }
  }

  /** Receives once. False at the end of the stream. */
  async #receive(): Promise<boolean> {
    if (this.#ended) return false;
    const { address, byteLength } = this.#in;
    const n = await this.#orSilence(
      this.reactor.submit(Op.RECV, this.fd, address, byteLength, 0, 0),
    );
    // A reset is an end too: the server does not read what it has no use for.
    if (n <= 0) this.#ended = true;
    else {
      this.#pieces.push(this.#in.u8.slice(0, n));
      this.#received += n;
    }
    return n > 0;
  }

  /** The next `length` bytes. */
  async take(length: number): Promise<Uint8Array> {
    while (this.#received < length) {
      if (!(await this.#receive())) throw new Error("the server has closed the connection");
    }
    const [first] = this.#pieces;
    const isInFirst = first !== undefined && first.byteLength >= length;
    if (isInFirst) {
      this.#pieces[0] = first.subarray(length);
      this.#received -= length;
      return new Uint8Array(first.subarray(0, length));
    }
    const all = Buffer.concat(this.#pieces);
    this.#pieces = [all.subarray(length)];
    this.#received -= length;
    return new Uint8Array(all.subarray(0, length));
  }

  async #view(length: number): Promise<DataView> {
    return new DataView((await this.take(length)).buffer);
  }

  /** Waits for the server to end the connection; returns what it sent before. */
  async rest(): Promise<Uint8Array> {
    while (await this.#receive()) {}
    return this.take(this.#received);
  }

  /** Nothing may be outstanding. */
  close(): void {
    if (!this.#closed) closeFd(this.fd);
    this.#closed = true;
  }

  // ------------------------------------------------------------------------------- handshake

  /** Reads the greeting and answers it. */
  async greet(flags = 3): Promise<Uint8Array> {
    const greeting = await this.take(18);
    await this.send(fields([32, flags]));
    return greeting;
  }

  async sendOption(option: number, data: Uint8Array = new Uint8Array(0)): Promise<void> {
    await this.send(fields([64, 0x49484156454f5054n], [32, option], [32, data.byteLength], data));
  }

  async optionReply(): Promise<OptionReply> {
    const head = await this.#view(20);
    if (head.getBigUint64(0) !== 0x0003e889045565a9n) throw new Error("wrong option reply magic");
    const data = await this.take(head.getUint32(16));
    return { option: head.getUint32(8), type: head.getUint32(12), data };
  }

  /** Sends an option and collects its replies up to the final one. */
  async option(option: number, data?: Uint8Array): Promise<OptionReply[]> {
    await this.sendOption(option, data);
    const replies: OptionReply[] = [];
    for (;;) {
      const reply = await this.optionReply();
      replies.push(reply);
      if (reply.type === NbdReply.ACK || reply.type >= 0x80000000) return replies;
    }
  }

  /** Greets, negotiates and enters the transmission phase. */
  async enter(name: string, options: { structured?: boolean; context?: boolean } = {}) {
    await this.greet();
    if (options.structured) await this.option(NbdOption.STRUCTURED_REPLY);
    if (options.context) {
      const data = fields(lengthAndText(name), [32, 1], lengthAndText("base:allocation"));
      await this.option(NbdOption.SET_META_CONTEXT, data);
    }
    const replies = await this.option(NbdOption.GO, fields(lengthAndText(name), [16, 0]));
    const last = replies.at(-1)!;
    if (last.type !== NbdReply.ACK) throw new Error(`GO was refused: ${last.type.toString(16)}`);
  }

  // ---------------------------------------------------------------------------- transmission

  async request(request: NbdRequest): Promise<void> {
    await this.send(encodeRequest(request));
  }

  async answer(): Promise<NbdAnswer> {
    const magic = (await this.#view(4)).getUint32(0);
    if (magic === 0x67446698) {
      const head = await this.#view(NbdBytes.SIMPLE - 4);
      return { kind: "simple", error: head.getUint32(0), cookie: head.getBigUint64(4) };
    }
    if (magic !== 0x668e33ef) throw new Error(`wrong reply magic ${magic.toString(16)}`);
    const head = await this.#view(NbdBytes.CHUNK - 4);
    const bytes = await this.take(head.getUint32(12));
    return {
      kind: "chunk",
      flags: head.getUint16(0),
      type: head.getUint16(2),
      cookie: head.getBigUint64(4),
      payload: new DataView(bytes.buffer),
      bytes,
    };
  }

  /** Sends a request without data in its reply and returns the error it is answered with. */
  async errorOf(request: NbdRequest): Promise<number> {
    await this.request(request);
    const answer = await this.answer();
    if (answer.kind === "simple") return answer.error;
    if (answer.type !== 0x8001) throw new Error(`unexpected chunk of type ${answer.type}`);
    return answer.payload.getUint32(0);
  }

  /** Reads over simple replies; throws on an error. */
  async readSimple(offset: number, length: number): Promise<Uint8Array> {
    const error = await this.errorOf({ type: 0, offset, length });
    if (error !== 0) throw new Error(`read failed: ${error}`);
    return this.take(length);
  }
}
