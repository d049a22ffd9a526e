/** A listening TCP socket on a reactor: accepts for as long as it is open. */
import { ACCEPT_MULTISHOT, CqeFlag, closeFd, Op } from "../../../ffi/index.ts";
import { assert } from "../../assert.ts";
import { ACCEPT_RETRY_MS } from "./limits.ts";
import { type CqeHandler, cancelFd, type Reactor } from "./reactor.ts";

export class Listener implements CqeHandler {
  readonly fd: number;
  readonly #reactor: Reactor;
  readonly #accepted: (fd: number) => void;
  readonly #handler: number;
  #armed = false;
  #closed = false;
  #onQuiet: (() => void) | null = null;

  /** Begins to accept on `fd`, which stays the caller's; each new socket is given to `accepted`. */
  constructor(reactor: Reactor, fd: number, accepted: (fd: number) => void) {
    this.fd = fd;
    this.#reactor = reactor;
    this.#accepted = accepted;
    this.#handler = reactor.addHandler(this);
    this.#accept();
  }

  #accept(): void {
    if (this.#closed) return;
    this.#armed = true;
    const op = Op.ACCEPT | ACCEPT_MULTISHOT;
    this.#reactor.ring.prep(op, this.fd, 0, 0, 0, 0, 0, this.#handler);
  }

  onCqe(_token: number, result: number, flags: number): void {
    if ((flags & CqeFlag.MORE) === 0) this.#armed = false;
    if (result >= 0) {
      if (this.#closed) closeFd(result);
      else this.#accepted(result);
    }
    if (this.#armed) return;
    if (this.#closed) this.#onQuiet?.();
    // The kernel ended the multishot. After an error (out of descriptors, say) it rests a little.
    else if (result >= 0) this.#accept();
    else this.#reactor.after(ACCEPT_RETRY_MS, () => this.#accept());
  }

  /** Stops accepting. Resolves when nothing is outstanding; the descriptor can then be closed. */
  async close(): Promise<void> {
    assert(!this.#closed, "a listener is closed once");
    this.#closed = true;
    if (this.#armed) {
      const quiet = new Promise<void>((resolve) => {
        this.#onQuiet = resolve;
      });
      await cancelFd(this.#reactor, this.fd);
      await quiet;
    }
    this.#reactor.removeHandler(this.#handler);
  }
}
