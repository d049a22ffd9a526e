/**
 * Commands by promise, for control work: the handshake, admin commands, reservations, vendor
 * commands. They share the queues with I/O; their tags are negative. Data is copied through the
 * arena. Commands that find no room wait in order.
 */
import { assert } from "../../../assert.ts";
import { TrilithError } from "../../../errors.ts";
import type { SqeWords } from "../../../nvme/host-commands.ts";
import type { Reactor } from "../../reactor/reactor.ts";
import { Direction } from "./command-table.ts";
import { CONTROL_BYTES_MAX } from "./limits.ts";
import type { QueuePair } from "./queue-pair.ts";

const NONE = -1;
const TAG_MASK = 0x3fffffff;

/** How a control command ended. */
export interface Completion {
  /** SCT << 8 | SC, DNR in bit 14; 0 is success. */
  readonly status: number;
  readonly dword0: number;
  readonly dword1: number;
  /** What was asked for with `receiveBytes`, zeroes where nothing came; else empty. */
  readonly data: Uint8Array;
}

export interface ControlData {
  /** Data to be sent, a multiple of four bytes. */
  readonly data?: Uint8Array;
  /** Bytes to be received, a multiple of four. */
  readonly receiveBytes?: number;
  /** Infinity: it may stay as long as the connection. */
  readonly timeoutMs: number;
}

interface Control {
  readonly tag: number;
  readonly queue: QueuePair;
  readonly sqe: SqeWords;
  readonly direction: Direction;
  readonly buffer: number;
  readonly bytes: number;
  readonly timeoutMs: number;
  readonly resolve: (completion: Completion) => void;
  readonly reject: (error: TrilithError) => void;
}

export class ControlCommands {
  readonly #reactor: Reactor;
  readonly #started: () => void;
  readonly #active = new Map<number, Control>();
  #waiting: Control[] = [];
  #tags = 0;

  /** `started` is called whenever a command has been started. */
  constructor(reactor: Reactor, started: () => void) {
    this.#reactor = reactor;
    this.#started = started;
  }

  /** Runs one command. Rejects with `Unavailable` when the connection ends before it does. */
  async run(queue: QueuePair, sqe: SqeWords, options: ControlData): Promise<Completion> {
    const { arena } = this.#reactor;
    const bytes = options.data?.byteLength ?? options.receiveBytes ?? 0;
    assert(
      bytes <= CONTROL_BYTES_MAX && bytes % 4 === 0,
      "control data is bounded and whole dwords",
    );
    let direction: Direction = Direction.NONE;
    let buffer = NONE;
    if (bytes > 0) {
      direction = options.data === undefined ? Direction.IN : Direction.OUT;
      buffer = arena.alloc(bytes, 0);
      while (buffer < 0) {
        await new Promise<void>((resolve) => {
          this.#reactor.waitForResources({ resume: resolve });
        });
        buffer = arena.alloc(bytes, 0);
      }
      if (options.data !== undefined) arena.u8.set(options.data, buffer);
      else arena.u8.fill(0, buffer, buffer + bytes);
    }
    return new Promise((resolve, reject) => {
      const tag = NONE - (this.#tags++ & TAG_MASK);
      const { timeoutMs } = options;
      this.#waiting.push({
        tag,
        queue,
        sqe,
        direction,
        buffer,
        bytes,
        timeoutMs,
        resolve,
        reject,
      });
      if (queue.open) this.room(queue);
      else this.closed(queue, "not connected");
    });
  }

  /** Starts what waits for this queue, as far as it has room. */
  room(queue: QueuePair): void {
    while (this.#waiting.length > 0) {
      const at = this.#waiting.findIndex((control) => control.queue === queue);
      if (at < 0) return;
      const control = this.#waiting[at]!;
      const { sqe } = control;
      const deadlineNs = this.#reactor.now + control.timeoutMs * 1e6;
      const index = queue.start(
        control.tag,
        sqe[0]!,
        sqe[1]!,
        control.direction,
        control.buffer,
        control.bytes,
        deadlineNs,
        sqe[10]!,
        sqe[11]!,
        sqe[12]!,
        sqe[13]!,
        sqe[14]!,
        sqe[15]!,
      );
      if (index < 0) return;
      this.#waiting.splice(at, 1);
      this.#active.set(control.tag, control);
      this.#started();
    }
  }

  /** True when commands wait for room. */
  get waiting(): boolean {
    return this.#waiting.length > 0;
  }

  /** A command with a negative tag has ended. */
  done(queue: QueuePair, tag: number, status: number): void {
    const control = this.#active.get(tag);
    assert(control !== undefined, "an ended control command was started");
    this.#active.delete(tag);
    const { dword0, dword1 } = queue;
    let data = new Uint8Array(0);
    if (control.direction === Direction.IN) {
      data = this.#reactor.arena.u8.slice(control.buffer, control.buffer + control.bytes);
    }
    this.#free(control);
    control.resolve({ status, dword0, dword1, data });
  }

  /** A command with a negative tag was lost with its connection. */
  lost(tag: number, reason: string): void {
    const control = this.#active.get(tag);
    assert(control !== undefined, "a lost control command was started");
    this.#active.delete(tag);
    this.#free(control);
    control.reject(new TrilithError("Unavailable", reason));
  }

  /** The queue is closed: what waits for it is rejected. */
  closed(queue: QueuePair, reason: string): void {
    const rejected = this.#waiting.filter((control) => control.queue === queue);
    this.#waiting = this.#waiting.filter((control) => control.queue !== queue);
    for (const control of rejected) {
      this.#free(control);
      control.reject(new TrilithError("Unavailable", reason));
    }
  }

  #free(control: Control): void {
    if (control.buffer !== NONE) this.#reactor.arena.free(control.buffer);
  }
}
