/**
 * The network between simulated machines: what is sent arrives late, in whatever order, or not at all,
 * and ways can be cut in one direction. On top of it, thin models of what the product gets from its host:
 * connections (TCP: in order, what is lost is sent again, a reset when nobody is there any more) and
 * calls (HTTP over such a connection: one request, one answer, a time-out).
 */
import { causedBy, fromErrorBody, TrilithError, toErrorBody } from "../../../src/errors.ts";
import type { Process, Timer, World } from "./world.ts";

/** What is lost on a connection is sent again after this long. */
const RETRANSMIT_MS = 200;

export class Network {
  readonly world: World;
  /** Ways that lead nowhere: `from>to`. */
  readonly cuts = new Set<string>();
  /** Machines without power. */
  readonly off = new Set<string>();
  /** Chance that a message is lost, and how slow messages are; raised and taken back by troubles. */
  loss = 0;
  slowMs = 0;
  sent = 0;

  constructor(world: World) {
    this.world = world;
  }

  isCut(from: string, to: string): boolean {
    return this.cuts.has(`${from}>${to}`) || this.off.has(from) || this.off.has(to);
  }

  delayMs(from: string, to: string): number {
    const { random } = this.world;
    if (from === to) return 0.01 + random.next() * 0.05;
    return 0.05 + random.next() * 0.3 + (this.slowMs > 0 ? random.next() * this.slowMs : 0);
  }

  /** One message on its own: it may be lost, and overtaken. `run` is part of the receiver. */
  datagram(from: string, to: Process, run: () => void): void {
    this.sent++;
    if (this.isCut(from, to.machine) || this.world.random.chance(this.loss)) return;
    this.world.after(this.delayMs(from, to.machine), null, () => {
      if (!this.isCut(from, to.machine)) this.world.after(0, to, run);
    });
  }
}

/** One end of a connection. */
interface End {
  readonly process: Process;
  /** Under way from this end, in order. */
  readonly queue: (() => void)[];
  isSending: boolean;
  lastMs: number;
  onClosed: (reason: string) => void;
}

/** A connection between two processes. Messages of one direction arrive in order, or the end does. */
export class Connection {
  readonly #network: Network;
  readonly #ends: readonly [End, End];
  #isClosed = false;

  constructor(network: Network, from: Process, to: Process) {
    this.#network = network;
    const end = (process: Process): End => ({
      process,
      queue: [],
      isSending: false,
      lastMs: 0,
      onClosed: () => {},
    });
    this.#ends = [end(from), end(to)];
    for (const { process } of this.#ends) {
      // The kernel of the machine closes the sockets of what was killed; without power nobody does.
      process.onEnd((death) => {
        if (death === "killed") this.close(process, "connection reset by peer");
      });
    }
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  #endOf(process: Process): { mine: End; other: End } {
    const [a, b] = this.#ends;
    return process === a.process ? { mine: a, other: b } : { mine: b, other: a };
  }

  onClosed(process: Process, call: (reason: string) => void): void {
    this.#endOf(process).mine.onClosed = call;
  }

  /** Sends something that the other end runs when it arrives. */
  send(process: Process, run: () => void): void {
    const { mine } = this.#endOf(process);
    if (this.#isClosed) return;
    mine.queue.push(run);
    if (!mine.isSending) this.#transmit(process, 0);
  }

  #transmit(process: Process, extraMs: number): void {
    const { world } = this.#network;
    const { mine, other } = this.#endOf(process);
    mine.isSending = true;
    const from = process.machine;
    const to = other.process.machine;
    const isLost = world.random.chance(this.#network.loss);
    const atMs = world.nowMs + this.#network.delayMs(from, to) + extraMs;
    mine.lastMs = Math.max(mine.lastMs, atMs);
    this.#network.sent++;
    world.after(mine.lastMs - world.nowMs, null, () => {
      if (this.#isClosed) return;
      if (isLost || this.#network.isCut(from, to)) {
        this.#transmit(process, RETRANSMIT_MS);
        return;
      }
      if (other.process.death !== null) {
        // The machine is there and knows no such connection.
        this.#isClosed = true;
        this.#told(mine, "connection reset by peer");
        return;
      }
      // All that has queued up meanwhile travels together.
      const batch = mine.queue.splice(0);
      mine.isSending = false;
      for (const run of batch) world.after(0, other.process, run);
    });
  }

  #told(end: End, reason: string): void {
    this.#network.world.after(0, end.process, () => end.onClosed(reason));
  }

  /** Closes from one end: what it had sent before is delivered first, if the way is open. */
  close(process: Process, reason: string): void {
    if (this.#isClosed) return;
    const { world } = this.#network;
    const { mine, other } = this.#endOf(process);
    const from = process.machine;
    const to = other.process.machine;
    this.#isClosed = true;
    const last = mine.queue.splice(0);
    const arrive = (): void => {
      if (other.process.death !== null) return;
      if (this.#network.isCut(from, to)) {
        world.after(RETRANSMIT_MS, null, arrive);
        return;
      }
      for (const run of last) world.after(0, other.process, run);
      this.#told(other, reason);
    };
    const atMs = Math.max(mine.lastMs, world.nowMs + this.#network.delayMs(from, to));
    world.after(atMs - world.nowMs, null, arrive);
  }
}

/** What a peer sees instead of an answer. */
function refused(what: string): TrilithError {
  const cause = Object.assign(new Error("connection refused"), { code: "ECONNREFUSED" });
  return causedBy(new TrilithError("Unavailable", `${what}: connection refused`), cause);
}

/** Plain data, as it is after a journey as JSON. */
export function travelled<T>(value: T): T {
  return value === undefined ? value : (JSON.parse(JSON.stringify(value)) as T);
}

export interface CallOptions<T> {
  readonly from: Process;
  /** Machine that is called, and the process that listens there now (null: nobody). */
  readonly machine: string;
  readonly listener: () => Process | null;
  readonly what: string;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** Runs as part of the listener. */
  readonly serve: (listener: Process) => Promise<T>;
}

/** A call over the network: resolves or rejects as part of the caller. */
export function call<T>(network: Network, options: CallOptions<T>): Promise<T> {
  const { from, machine, listener, what, timeoutMs, signal, serve } = options;
  const { world } = network;
  return new Promise<T>((resolve, reject) => {
    let isOver = false;
    let timer: Timer | null = null;
    const end = (outcome: () => void): void => {
      if (isOver) return;
      isOver = true;
      timer?.cancel();
      signal?.removeEventListener("abort", aborted);
      outcome();
    };
    function aborted(): void {
      end(() => reject(new TrilithError("Aborted", `${what}: given up`)));
    }
    if (signal?.aborted === true) {
      aborted();
      return;
    }
    signal?.addEventListener("abort", aborted);
    timer = world.after(timeoutMs, from, () =>
      end(() => reject(new TrilithError("Timeout", `${what}: no answer in time`))),
    );
    /** Carries something to a machine as TCP does: again and again while the caller waits. */
    const carry = (a: string, b: string, arrive: () => void): void => {
      network.sent++;
      world.after(network.delayMs(a, b), null, () => {
        if (isOver) return;
        if (network.isCut(a, b) || world.random.chance(network.loss)) {
          world.after(RETRANSMIT_MS, null, () => carry(a, b, arrive));
        } else arrive();
      });
    };
    const answer = (outcome: () => void): void =>
      carry(machine, from.machine, () => world.after(0, from, () => end(outcome)) as unknown);
    carry(from.machine, machine, () => {
      const process = listener();
      if (process === null || process.death !== null) {
        answer(() => reject(refused(what)));
        return;
      }
      const unlisten = process.onEnd((death) => {
        if (death !== "killed") return;
        answer(() => reject(new TrilithError("Unavailable", `${what}: connection reset by peer`)));
      });
      world.after(0, process, () => {
        serve(process).then(
          (value) => {
            unlisten();
            const copy = travelled(value);
            answer(() => resolve(copy));
          },
          (error: unknown) => {
            unlisten();
            const body = toErrorBody(error);
            if (body.kind === "Internal") world.note(`${what}: ${body.message} ${body.details}`);
            answer(() => reject(fromErrorBody(body)));
          },
        );
      });
    });
  });
}
