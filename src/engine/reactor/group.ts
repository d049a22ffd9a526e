/**
 * The reactors of an engine, as the main thread sees them: starts a thread each, one after the
 * other, calls them, and stops them. A reactor that dies takes the process with it: what it served
 * cannot be told apart from what it left half done.
 */
import { assert } from "../../assert.ts";
import type { MainMethods, ShardMethods, ShardOptions } from "../shard/methods.ts";
import type { Mailbox } from "./mailbox.ts";
import { type ReactorThread, startReactorThread } from "./thread.ts";

type ShardCall = Mailbox<MainMethods, ShardMethods>["call"];

export interface GroupOptions {
  /** What the main thread does for reactor `index`. */
  readonly serve: (index: number) => Omit<MainMethods, "ready">;
  /** A reactor has died. */
  readonly onDeath: (index: number, error: unknown) => void;
}

export class ReactorGroup {
  readonly #options: GroupOptions;
  readonly #threads: ReactorThread<MainMethods, ShardMethods>[] = [];
  #stopping = false;

  constructor(options: GroupOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#threads.length;
  }

  /** Starts one more reactor; resolves when its loop runs. */
  async start(shard: ShardOptions): Promise<void> {
    const { index } = shard;
    assert(index === this.#threads.length, "reactors start in order");
    this.#threads.push(
      await startReactorThread<MainMethods, ShardMethods>({
        name: `reactor ${index}`,
        url: new URL("./worker.ts", import.meta.url),
        input: { shard },
        local: this.#options.serve(index),
        onDeath: (error) => {
          if (!this.#stopping) this.#options.onDeath(index, error);
        },
      }),
    );
  }

  #thread(index: number): ReactorThread<MainMethods, ShardMethods> {
    const thread = this.#threads[index];
    assert(thread !== undefined, `reactor ${index} exists`);
    return thread;
  }

  /** Calls one reactor. */
  call<K extends keyof ShardMethods>(
    index: number,
    method: K,
    input: Parameters<ShardMethods[K]>[0],
  ): ReturnType<ShardMethods[K]> {
    const { mailbox } = this.#thread(index);
    return (mailbox.call as ShardCall).call(mailbox, method, input as never) as ReturnType<
      ShardMethods[K]
    >;
  }

  /** Calls every reactor; rejects with the first error. Results are in the order of reactors. */
  callAll<K extends keyof ShardMethods>(
    method: K,
    input: Parameters<ShardMethods[K]>[0],
  ): Promise<Awaited<ReturnType<ShardMethods[K]>>[]> {
    const calls = this.#threads.map((_thread, index) => this.call(index, method, input));
    return Promise.all(calls) as Promise<Awaited<ReturnType<ShardMethods[K]>>[]>;
  }

  /** Tells one reactor something without waiting for it. */
  tell<K extends keyof ShardMethods>(
    index: number,
    method: K,
    input: Parameters<ShardMethods[K]>[0],
  ): void {
    this.#thread(index).mailbox.tell(method, input as never);
  }

  /** Has every reactor end what it serves, then ends the loops and threads. */
  async stop(): Promise<void> {
    await this.callAll("drainFront", {});
    await this.callAll("drainDevices", {});
    this.#stopping = true;
    for (const { mailbox } of this.#threads) mailbox.tell("stop", {});
    await Promise.all(this.#threads.map(({ ended }) => ended));
    for (const thread of this.#threads) thread.release();
  }
}
