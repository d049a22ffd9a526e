/**
 * The reactors of an engine, as the main thread sees them: starts a Worker each, one after the
 * other, calls them, and stops them. A reactor that dies takes the process with it: what it served
 * cannot be told apart from what it left half done.
 */
import { MessageChannel, type MessagePort, Worker } from "node:worker_threads";
import { closeFd, eventFd, libraryFds, wakeEventFd } from "../../../ffi/index.ts";
import { assert } from "../../assert.ts";
import { TrilithError } from "../../errors.ts";
import type { MainMethods, ShardMethods, ShardOptions } from "../shard/methods.ts";
import { REACTOR_START_MS } from "./limits.ts";
import { type Envelope, Mailbox } from "./mailbox.ts";
import type { WorkerInput } from "./worker-input.ts";

type ShardMailbox = Mailbox<MainMethods, ShardMethods>;
type ShardCall = ShardMailbox["call"];

interface Member {
  readonly worker: Worker;
  readonly port: MessagePort;
  readonly wakeFd: number;
  readonly mailbox: ShardMailbox;
  /** Resolves when the Worker has ended. */
  readonly ended: Promise<void>;
}

export interface GroupOptions {
  /** What the main thread does for reactor `index`. */
  readonly serve: (index: number) => Omit<MainMethods, "ready">;
  /** A reactor has died. */
  readonly onDeath: (index: number, error: unknown) => void;
}

export class ReactorGroup {
  readonly #options: GroupOptions;
  readonly #members: Member[] = [];
  #stopping = false;

  constructor(options: GroupOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#members.length;
  }

  /** Starts one more reactor; resolves when its loop runs. */
  async start(shard: ShardOptions): Promise<void> {
    const { index } = shard;
    assert(index === this.#members.length, "reactors start in order");
    const wakeFd = eventFd();
    const { port1: port, port2 } = new MessageChannel();
    const input: WorkerInput = { libraries: libraryFds(), port: port2, wakeFd, shard };
    const worker = new Worker(new URL("./worker.ts", import.meta.url), {
      workerData: input,
      transferList: [port2],
    });
    const ready = Promise.withResolvers<void>();
    const ended = Promise.withResolvers<void>();
    let isReady = false;
    const die = (error: unknown): void => {
      if (!isReady) ready.reject(error);
      else if (!this.#stopping) this.#options.onDeath(index, error);
    };
    const mailbox: ShardMailbox = new Mailbox<MainMethods, ShardMethods>({
      post: (envelope) => {
        port.postMessage(envelope);
        wakeEventFd(wakeFd);
      },
      local: {
        ...this.#options.serve(index),
        ready: async () => {
          isReady = true;
          ready.resolve();
        },
      },
      onFatal: die,
    });
    port.on("message", (envelope: Envelope) => mailbox.receive(envelope));
    worker.on("error", die);
    worker.on("exit", () => {
      ended.resolve();
      mailbox.close(`reactor ${index} has ended`);
      die(new Error("its thread has ended"));
    });
    this.#members.push({ worker, port, wakeFd, mailbox, ended: ended.promise });
    const timer = setTimeout(() => {
      ready.reject(new TrilithError("Timeout", `reactor ${index} did not start in time`));
    }, REACTOR_START_MS);
    try {
      await ready.promise;
    } catch (error) {
      this.#members.pop();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  #member(index: number): Member {
    const member = this.#members[index];
    assert(member !== undefined, `reactor ${index} exists`);
    return member;
  }

  /** Calls one reactor. */
  call<K extends keyof ShardMethods>(
    index: number,
    method: K,
    input: Parameters<ShardMethods[K]>[0],
  ): ReturnType<ShardMethods[K]> {
    const { mailbox } = this.#member(index);
    return (mailbox.call as ShardCall)(method, input as never) as ReturnType<ShardMethods[K]>;
  }

  /** Calls every reactor; rejects with the first error. Results are in the order of reactors. */
  callAll<K extends keyof ShardMethods>(
    method: K,
    input: Parameters<ShardMethods[K]>[0],
  ): Promise<Awaited<ReturnType<ShardMethods[K]>>[]> {
    const calls = this.#members.map((_member, index) => this.call(index, method, input));
    return Promise.all(calls) as Promise<Awaited<ReturnType<ShardMethods[K]>>[]>;
  }

  /** Tells one reactor something without waiting for it. */
  tell<K extends keyof ShardMethods>(
    index: number,
    method: K,
    input: Parameters<ShardMethods[K]>[0],
  ): void {
    this.#member(index).mailbox.tell(method, input as never);
  }

  /** Has every reactor end what it serves, then ends the loops and threads. */
  async stop(): Promise<void> {
    await this.callAll("drainFront", {});
    await this.callAll("drainDevices", {});
    this.#stopping = true;
    for (const { mailbox } of this.#members) mailbox.tell("stop", {});
    await Promise.all(this.#members.map(({ ended }) => ended));
    for (const { port, wakeFd } of this.#members) {
      port.close();
      closeFd(wakeFd);
    }
  }
}
