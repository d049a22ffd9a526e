/**
 * One NBD connection: a stream, and the phase it is in. It begins with the handshake, or in the
 * middle of it when another reactor accepted it, and goes over to the transmission of one export.
 */
import { type StreamOwner, TcpStream } from "../reactor/tcp-stream.ts";
import type { NbdExport } from "./export.ts";
import { Handshake, type Negotiated } from "./handshake.ts";
import type { NbdServer } from "./server.ts";
import { Transmission } from "./transmission.ts";

/** What a connection does with what arrives. */
export interface Phase {
  onBytes(): void;
  onReceivedInto(): void;
  onSent(): void;
  /** Ends the connection as soon as nothing of it is under way. */
  drain(reason: string): void;
  /** The stream has ended; whatever the phase holds is to be given back. */
  onClosed(): void;
}

export class NbdConnection implements StreamOwner {
  readonly server: NbdServer;
  readonly stream: TcpStream;
  #phase: Phase;
  #handshake: Handshake | null;

  /** `negotiated` is what was agreed on before another reactor handed the connection over. */
  constructor(server: NbdServer, fd: number, negotiated?: Negotiated) {
    this.server = server;
    this.stream = new TcpStream(server.reactor, server.buffers, fd, this);
    this.#handshake = new Handshake(this, negotiated);
    this.#phase = this.#handshake;
  }

  /** Greets the client and begins to receive. */
  start(): void {
    this.#handshake?.greet();
    this.stream.start();
  }

  /** Goes on where another reactor stopped; `bytes` were received there and not parsed. */
  startWith(bytes: Uint8Array): void {
    const { stream } = this;
    if (stream.closing || stream.startWith(bytes)) return;
    this.server.reactor.waitForResources({ resume: () => this.startWith(bytes) });
  }

  /** The handshake is over: what follows are requests to `target`. */
  enter(target: NbdExport, structured: boolean, hasContext: boolean): void {
    this.#handshake = null;
    this.#phase = new Transmission(this, target, structured, hasContext);
    target.attach(this);
  }

  drain(reason: string): void {
    this.#phase.drain(reason);
  }

  onBytes(): void {
    // A request may follow the handshake in the same bytes.
    const before = this.#phase;
    before.onBytes();
    if (this.#phase !== before) this.#phase.onBytes();
  }

  onReceivedInto(): void {
    this.#phase.onReceivedInto();
  }

  onSent(): void {
    this.#phase.onSent();
  }

  onClosed(reason: string): void {
    this.server.options.log("debug", "nbd connection ended", { reason });
    this.#phase.onClosed();
  }
}
