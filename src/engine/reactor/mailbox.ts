/**
 * Calls between threads: a typed request and its response, and messages that want none, over a
 * `MessagePort`. Both ends are the same; each says what it serves and what the other one does.
 *
 * What crosses is plain data (structured clone). Errors cross as `ErrorBody`.
 */
import { AssertionError, assert } from "../../assert.ts";
import { type ErrorBody, fromErrorBody, TrilithError, toErrorBody } from "../../errors.ts";
import { MAILBOX_CALLS_MAX } from "./limits.ts";

/** What one end of a mailbox serves: functions of one plain argument. */
export type Serves<T> = { [K in keyof T]: (input: never) => Promise<unknown> };

type InputOf<F> = F extends (input: infer I) => Promise<unknown> ? I : never;
type OutputOf<F> = F extends (input: never) => Promise<infer O> ? O : never;

/** One message between two ends. */
export type Envelope =
  | { readonly kind: "call"; readonly id: number; readonly method: string; readonly input: unknown }
  | { readonly kind: "tell"; readonly method: string; readonly input: unknown }
  | { readonly kind: "result"; readonly id: number; readonly value: unknown }
  | { readonly kind: "error"; readonly id: number; readonly error: ErrorBody };

interface Pending {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: TrilithError) => void;
}

export interface MailboxOptions<Local> {
  /** Sends one message to the other end and wakes it. */
  readonly post: (envelope: Envelope) => void;
  readonly local: Local;
  /** A failed assertion, or a message without response that failed: the process has to end. */
  readonly onFatal: (error: unknown) => void;
}

export class Mailbox<Local extends Serves<Local>, Remote extends Serves<Remote>> {
  readonly #post: (envelope: Envelope) => void;
  readonly #local: Map<string, (input: never) => Promise<unknown>>;
  readonly #onFatal: (error: unknown) => void;
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;
  #closed: string | null = null;

  constructor(options: MailboxOptions<Local>) {
    this.#post = options.post;
    this.#local = new Map(Object.entries(options.local));
    this.#onFatal = options.onFatal;
  }

  /** Calls beginning here that have not been answered. */
  get pendingCount(): number {
    return this.#pending.size;
  }

  /**
   * Has the other end do something. Rejects with what it threw; `ResourceExhausted` when too many
   * calls are under way, `Aborted` when the other end has gone.
   */
  call<K extends keyof Remote & string>(
    method: K,
    input: InputOf<Remote[K]>,
  ): Promise<OutputOf<Remote[K]>> {
    if (this.#closed !== null) {
      return Promise.reject(new TrilithError("Aborted", `${method}: ${this.#closed}`));
    }
    if (this.#pending.size >= MAILBOX_CALLS_MAX) {
      const what = `${method}: ${MAILBOX_CALLS_MAX} requests are under way`;
      return Promise.reject(new TrilithError("ResourceExhausted", what, "try again later"));
    }
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve: resolve as (value: unknown) => void, reject });
      this.#post({ kind: "call", id, method, input });
    });
  }

  /** Tells the other end something; whether it could be done is not reported back. */
  tell<K extends keyof Remote & string>(method: K, input: InputOf<Remote[K]>): void {
    if (this.#closed === null) this.#post({ kind: "tell", method, input });
  }

  /** Takes a message that the other end posted. */
  receive(envelope: Envelope): void {
    switch (envelope.kind) {
      case "call":
        void this.#serve(envelope.id, envelope.method, envelope.input);
        return;
      case "tell":
        this.#run(envelope.method, envelope.input).catch(this.#onFatal);
        return;
      case "result":
        this.#take(envelope.id)?.resolve(envelope.value);
        return;
      case "error":
        this.#take(envelope.id)?.reject(fromErrorBody(envelope.error));
    }
  }

  /** Ends every call under way with `Aborted`; later ones fail at once. */
  close(reason: string): void {
    this.#closed ??= reason;
    for (const pending of this.#pending.values()) {
      pending.reject(new TrilithError("Aborted", reason));
    }
    this.#pending.clear();
  }

  #take(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    // After `close` answers still arrive that nobody waits for.
    assert(pending !== undefined || this.#closed !== null, `answer ${id} belongs to a call`);
    this.#pending.delete(id);
    return pending;
  }

  async #run(method: string, input: unknown): Promise<unknown> {
    const serve = this.#local.get(method);
    if (serve === undefined) throw new AssertionError(`method ${method} is served`);
    return serve(input as never);
  }

  async #serve(id: number, method: string, input: unknown): Promise<void> {
    try {
      const value = await this.#run(method, input);
      this.#post({ kind: "result", id, value });
    } catch (error) {
      this.#post({ kind: "error", id, error: toErrorBody(error) });
      if (error instanceof AssertionError) this.#onFatal(error);
    }
  }
}
