/**
 * The handshake of one connection ("Newstyle negotiation"): greeting, options, and the choice of an
 * export. When an option names an export of another reactor, the connection moves there and the
 * option is taken again.
 *
 * Control work: replies are built as byte arrays and sent from arena buffers of their own, so that
 * what the transmission phase queues behind them stays aligned.
 */
import type { Waiter } from "../reactor/arena.ts";
import { ARENA_RESERVE_BYTES, SEND_CHUNK_BYTES } from "../reactor/limits.ts";
import type { Timer } from "../reactor/timers.ts";
import type { NbdConnection, Phase } from "./connection.ts";
import type { NbdExport } from "./export.ts";
import { HANDSHAKE_TIMEOUT_MS, OPTION_BYTES_MAX, OPTION_SKIP_BYTES_MAX } from "./limits.ts";
import {
  ALLOCATION_CONTEXT,
  ALLOCATION_CONTEXT_ID,
  decodeClientFlags,
  decodeContextRequest,
  decodeInfoRequest,
  decodeOptionHeader,
  decodeString,
  encodeContext,
  encodeExportNameAnswer,
  encodeGreeting,
  encodeInfo,
  encodeOptionReply,
  encodeServer,
  encodeText,
  HandshakeBytes,
  type InfoRequest,
  NbdInfo,
  NbdOption,
  NbdReply,
  selectsAllocation,
} from "./protocol.ts";

const EMPTY = new Uint8Array(0);

/** What the two ends agreed on so far; it travels along when a connection is handed over. */
export interface Negotiated {
  /** The client knows the fixed newstyle: it may use options and expects replies to them. */
  readonly fixed: boolean;
  /** EXPORT_NAME is answered without padding. */
  readonly noZeroes: boolean;
  readonly structured: boolean;
  /** Export for which `base:allocation` was selected. */
  readonly contextExport: string | undefined;
}

export class Handshake implements Phase, Waiter {
  readonly #connection: NbdConnection;
  #negotiated: Negotiated | undefined;
  #timer: Timer;
  #lastOptionNs: number;
  /** Replies not looked at by `pump` yet; the bytes it is at, and how many of them are queued. */
  #replies: Uint8Array[] = [];
  #bytes: Uint8Array = EMPTY;
  #bytesAt = 0;
  /** Bytes of a too long option still to be dropped. */
  #skip = 0;
  /** The export chosen, once the answer that says so is queued. */
  #chosen: NbdExport | undefined;
  #entered = false;
  #waiting = false;
  /** Another reactor has sent the connection here for the option that comes first. */
  #sentHere: boolean;
  /** Why the connection ends once the replies are sent. */
  #endReason: string | undefined;

  constructor(connection: NbdConnection, negotiated: Negotiated | undefined) {
    this.#connection = connection;
    this.#negotiated = negotiated;
    this.#sentHere = negotiated !== undefined;
    this.#lastOptionNs = connection.server.reactor.now;
    this.#timer = this.#startTimer(HANDSHAKE_TIMEOUT_MS);
  }

  #startTimer(delayMs: number): Timer {
    const { server, stream } = this.#connection;
    return server.reactor.after(delayMs, () => {
      const leftMs = HANDSHAKE_TIMEOUT_MS - (server.reactor.now - this.#lastOptionNs) / 1e6;
      if (leftMs <= 0) stream.close("the handshake took too long");
      else this.#timer = this.#startTimer(leftMs);
    });
  }

  /** Says who we are. */
  greet(): void {
    this.#queue(encodeGreeting());
    this.#pump();
  }

  // -------------------------------------------------------------------------------- receiving

  onBytes(): void {
    const { stream, server } = this.#connection;
    const { arena } = server.reactor;
    for (;;) {
      if (stream.closing || stream.blocked) return;
      if (!this.#pump()) {
        stream.block();
        return;
      }
      if (this.#chosen !== undefined) {
        this.#enter(this.#chosen);
        return;
      }
      if (this.#skip > 0) {
        const n = Math.min(this.#skip, stream.end - stream.pos);
        stream.pos += n;
        this.#skip -= n;
        if (this.#skip > 0) return;
      }
      const at = stream.pos;
      const have = stream.end - at;
      if (this.#negotiated === undefined) {
        if (have < HandshakeBytes.CLIENT_FLAGS) return;
        this.#takeFlags(new DataView(arena.u8.buffer, at, HandshakeBytes.CLIENT_FLAGS));
        continue;
      }
      if (have < HandshakeBytes.OPTION) return;
      const header = decodeOptionHeader(new DataView(arena.u8.buffer, at, HandshakeBytes.OPTION));
      if (header === undefined) {
        stream.close("not an NBD option");
        return;
      }
      const { option, byteLength } = header;
      if (byteLength > OPTION_BYTES_MAX) {
        this.#refuseLong(option, byteLength);
        continue;
      }
      if (have < HandshakeBytes.OPTION + byteLength) return;
      const data = arena.u8.slice(
        at + HandshakeBytes.OPTION,
        at + HandshakeBytes.OPTION + byteLength,
      );
      if (!this.#takeOption(option, data)) return;
      stream.pos = at + HandshakeBytes.OPTION + byteLength;
      this.#lastOptionNs = server.reactor.now;
      this.#sentHere = false;
    }
  }

  #takeFlags(view: DataView): void {
    const { stream } = this.#connection;
    const flags = decodeClientFlags(view);
    if (flags === undefined) {
      stream.close("unknown client flags");
      return;
    }
    stream.pos += HandshakeBytes.CLIENT_FLAGS;
    this.#negotiated = { ...flags, structured: false, contextExport: undefined };
  }

  #refuseLong(option: number, byteLength: number): void {
    const { stream } = this.#connection;
    if (byteLength > OPTION_SKIP_BYTES_MAX || option === NbdOption.EXPORT_NAME) {
      stream.close("an option is too long");
      return;
    }
    stream.pos += HandshakeBytes.OPTION;
    this.#skip = byteLength;
    this.#answer(option, NbdReply.ERR_TOO_BIG);
  }

  /** Carries out an option. False: it stays, because the connection ends or moves. */
  #takeOption(option: number, data: Uint8Array): boolean {
    const { stream } = this.#connection;
    if (!this.#negotiated!.fixed && option !== NbdOption.EXPORT_NAME) {
      stream.close("an option from a client that does not know the fixed newstyle");
      return false;
    }
    switch (option) {
      case NbdOption.EXPORT_NAME:
        return this.#exportName(data);
      case NbdOption.ABORT:
        this.#answer(option, NbdReply.ACK);
        this.#end("aborted by the client");
        return true;
      case NbdOption.LIST:
        if (data.byteLength === 0) this.#list();
        else this.#answer(option, NbdReply.ERR_INVALID, "LIST takes no data");
        return true;
      case NbdOption.INFO:
      case NbdOption.GO:
        return this.#info(option, decodeInfoRequest(data));
      case NbdOption.STRUCTURED_REPLY:
        if (data.byteLength === 0) {
          this.#negotiated = { ...this.#negotiated!, structured: true };
          this.#answer(option, NbdReply.ACK);
        } else this.#answer(option, NbdReply.ERR_INVALID, "STRUCTURED_REPLY takes no data");
        return true;
      case NbdOption.LIST_META_CONTEXT:
      case NbdOption.SET_META_CONTEXT:
        return this.#context(option, data);
      case NbdOption.STARTTLS:
        this.#answer(option, NbdReply.ERR_UNSUP, "TLS is not offered here");
        return true;
      default:
        this.#answer(option, NbdReply.ERR_UNSUP);
        return true;
    }
  }

  // ---------------------------------------------------------------------------------- options

  /**
   * The export of a name, when it is here; "moved" when the connection has moved to the reactor that
   * has it, or will as soon as what is queued for the client has been sent.
   */
  #find(name: string): NbdExport | "moved" | undefined {
    const { server, stream } = this.#connection;
    const here = server.export(name);
    if (here !== undefined) return here;
    const reactorIndex = server.reactorOf(name);
    if (reactorIndex === undefined || reactorIndex === server.reactor.index) return undefined;
    // Reactors that disagree, because the export is on its way, do not send a connection in circles.
    if (this.#sentHere) return undefined;
    const bytes = stream.detach();
    if (bytes === undefined) {
      stream.block();
      return "moved";
    }
    this.#timer.cancel();
    const { fd } = stream;
    server.handOver(this.#connection, {
      reactorIndex,
      fd,
      negotiated: this.#negotiated!,
      bytes,
    });
    return "moved";
  }

  #exportName(data: Uint8Array): boolean {
    const { stream } = this.#connection;
    const name = decodeString(data);
    const found = name === undefined ? undefined : this.#find(name);
    if (found === "moved") return false;
    if (found === undefined) {
      stream.close("unknown export");
      return false;
    }
    const { structured, noZeroes } = this.#negotiated!;
    this.#queue(encodeExportNameAnswer(found.info(structured), noZeroes));
    this.#chosen = found;
    return true;
  }

  #info(option: number, request: InfoRequest | undefined): boolean {
    if (request === undefined) {
      this.#answer(option, NbdReply.ERR_INVALID, "malformed request for information");
      return true;
    }
    const found = this.#find(request.name);
    if (found === "moved") return false;
    if (found === undefined) {
      this.#answer(option, NbdReply.ERR_UNKNOWN, `there is no export "${request.name}"`);
      return true;
    }
    const info = found.info(this.#negotiated!.structured);
    // Size and block sizes are always told; a client ignores what it does not know.
    const kinds = new Set<number>([NbdInfo.EXPORT, NbdInfo.BLOCK_SIZE, ...request.wanted]);
    for (const kind of kinds) {
      const data = encodeInfo(kind, info);
      if (data !== undefined) this.#queue(encodeOptionReply(option, NbdReply.INFO, data));
    }
    this.#answer(option, NbdReply.ACK);
    if (option === NbdOption.GO) this.#chosen = found;
    return true;
  }

  #list(): void {
    for (const { name, description } of this.#connection.server.list()) {
      const data = encodeServer(name, description);
      this.#queue(encodeOptionReply(NbdOption.LIST, NbdReply.SERVER, data));
    }
    this.#answer(NbdOption.LIST, NbdReply.ACK);
  }

  #context(option: number, data: Uint8Array): boolean {
    const isSet = option === NbdOption.SET_META_CONTEXT;
    const request = decodeContextRequest(data);
    if (isSet) this.#negotiated = { ...this.#negotiated!, contextExport: undefined };
    if (request === undefined || !this.#negotiated!.structured) {
      const why = request === undefined ? "malformed request" : "structured replies come first";
      this.#answer(option, NbdReply.ERR_INVALID, why);
      return true;
    }
    const found = this.#find(request.name);
    if (found === "moved") return false;
    if (found === undefined) {
      this.#answer(option, NbdReply.ERR_UNKNOWN, `there is no export "${request.name}"`);
      return true;
    }
    if (selectsAllocation(option, request.queries)) {
      const id = isSet ? ALLOCATION_CONTEXT_ID : 0;
      const context = encodeContext(id, ALLOCATION_CONTEXT);
      this.#queue(encodeOptionReply(option, NbdReply.META_CONTEXT, context));
      if (isSet) this.#negotiated = { ...this.#negotiated!, contextExport: found.name };
    }
    this.#answer(option, NbdReply.ACK);
    return true;
  }

  // ---------------------------------------------------------------------------------- sending

  #answer(option: number, type: number, text = ""): void {
    this.#queue(encodeOptionReply(option, type, encodeText(text)));
  }

  #queue(bytes: Uint8Array): void {
    this.#replies.push(bytes);
  }

  /** Queues replies as far as there is room. True when all of them are queued. */
  #pump(): boolean {
    const { stream, server } = this.#connection;
    const { arena } = server.reactor;
    if (this.#bytesAt === this.#bytes.byteLength) this.#nextBytes();
    while (this.#bytesAt < this.#bytes.byteLength) {
      if (!stream.sendRoom) return false;
      const length = Math.min(SEND_CHUNK_BYTES, this.#bytes.byteLength - this.#bytesAt);
      const at = arena.alloc(length, ARENA_RESERVE_BYTES);
      if (at < 0) {
        this.#waitForMemory();
        return false;
      }
      arena.u8.set(this.#bytes.subarray(this.#bytesAt, this.#bytesAt + length), at);
      if (!stream.attach(at, length, at)) {
        arena.free(at);
        return false;
      }
      this.#bytesAt += length;
      if (this.#bytesAt === this.#bytes.byteLength) this.#nextBytes();
    }
    return true;
  }

  #nextBytes(): void {
    this.#bytes = this.#replies.length === 0 ? EMPTY : new Uint8Array(Buffer.concat(this.#replies));
    this.#bytesAt = 0;
    this.#replies = [];
  }

  #waitForMemory(): void {
    if (this.#waiting) return;
    this.#waiting = true;
    this.#connection.server.reactor.waitForResources(this);
  }

  resume(): void {
    this.#waiting = false;
    this.#goOn();
  }

  onSent(): void {
    if (!this.#waiting) this.#goOn();
  }

  /** There is room again: queues what is left to be said, and then does what comes after it. */
  #goOn(): void {
    const { stream } = this.#connection;
    if (stream.closing || this.#entered || !this.#pump()) return;
    if (this.#endReason !== undefined) stream.closeAfterSend(this.#endReason);
    else {
      if (this.#chosen !== undefined) this.#enter(this.#chosen);
      stream.unblock();
    }
  }

  // ------------------------------------------------------------------------------- the end of it

  #enter(target: NbdExport): void {
    const { structured, contextExport } = this.#negotiated!;
    this.#timer.cancel();
    this.#entered = true;
    this.#connection.enter(target, structured, contextExport === target.name);
  }

  /** Ends the connection once the replies are sent. */
  #end(reason: string): void {
    this.#endReason = reason;
    this.#connection.stream.block();
    if (this.#pump()) this.#connection.stream.closeAfterSend(reason);
  }

  drain(reason: string): void {
    this.#connection.stream.close(reason);
  }

  onReceivedInto(): void {
    throw new Error("the handshake receives nothing straight into a buffer");
  }

  onClosed(): void {
    this.#timer.cancel();
    this.#connection.server.connectionEnded(this.#connection);
  }
}
