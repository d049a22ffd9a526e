/**
 * How messages reach a reactor, whose loop never returns to the thread's event loop: a read of an
 * eventfd is always outstanding on the ring, and when it completes the port is emptied.
 */
import { type MessagePort, receiveMessageOnPort } from "node:worker_threads";
import { allocNative, Op } from "../../../ffi/index.ts";
import type { Envelope } from "./mailbox.ts";
import { type CqeHandler, cancelFd, type Reactor } from "./reactor.ts";

/** A port, and the eventfd that is written after each message on it. */
export interface DoorbellInput {
  readonly port: MessagePort;
  readonly wakeFd: number;
}

/** Takes messages off the port whenever its eventfd was written. */
export class Doorbell implements CqeHandler {
  readonly #reactor: Reactor;
  readonly #port: MessagePort;
  readonly #fd: number;
  readonly #counter = allocNative(8);
  readonly #handler: number;
  readonly #onMessage: (envelope: Envelope) => void;
  #closing: (() => void) | null = null;

  constructor(reactor: Reactor, input: DoorbellInput, onMessage: (envelope: Envelope) => void) {
    this.#reactor = reactor;
    this.#port = input.port;
    this.#fd = input.wakeFd;
    this.#onMessage = onMessage;
    this.#handler = reactor.addHandler(this);
    this.#arm();
  }

  #arm(): void {
    const { address } = this.#counter;
    this.#reactor.ring.prep(Op.READ, this.#fd, address, 8, 0, 0, 0, this.#handler);
  }

  onCqe(): void {
    if (this.#closing !== null) {
      this.#reactor.removeHandler(this.#handler);
      this.#closing();
      return;
    }
    // Armed before the port is emptied: a message that comes later rings again.
    this.#arm();
    for (;;) {
      const message = receiveMessageOnPort(this.#port);
      if (message === undefined) return;
      this.#onMessage(message.message as Envelope);
    }
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.#closing = resolve;
    });
    await cancelFd(this.#reactor, this.#fd);
    await closed;
  }
}
