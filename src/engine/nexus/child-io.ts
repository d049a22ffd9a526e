/** Requests to one child by promise: flushes, and what a rebuild reads and writes. */
import { equalMemory } from "../../../ffi/index.ts";
import type { Bdev } from "../bdev/bdev.ts";
import { IoFlag } from "../reactor/io-table.ts";
import { ioPromise, type Reactor } from "../reactor/reactor.ts";

/** Resolves once `take` has found what it needs; it is tried again whenever something is freed. */
function whenFree(reactor: Reactor, take: () => boolean): Promise<void> {
  if (take()) return Promise.resolve();
  return new Promise((resolve) => {
    const waiter = {
      resume() {
        if (take()) resolve();
        else reactor.waitForResources(waiter);
      },
    };
    reactor.waitForResources(waiter);
  });
}

/** An arena buffer for background work; waits for memory. To be given back with `arena.free`. */
export async function takeBuffer(reactor: Reactor, byteLength: number): Promise<number> {
  let buffer = -1;
  await whenFree(reactor, () => {
    buffer = reactor.arena.alloc(byteLength, 0);
    return buffer >= 0;
  });
  return buffer;
}

/** One request to a device; resolves with its `IoStatus`. `buffer` is an arena offset, or -1. */
export async function deviceIo(
  bdev: Bdev,
  op: number,
  offset: number,
  length: number,
  buffer: number,
  flags = 0,
): Promise<number> {
  const { reactor } = bdev;
  const { io } = reactor;
  const credit = bdev.slotsPerIo + 1;
  await whenFree(reactor, () => io.promise(credit));
  const slot = io.take(op, offset, length, buffer, flags | IoFlag.BACKGROUND, reactor.now);
  const status = await ioPromise(reactor, slot, (taken) => bdev.submit(taken));
  io.release(credit);
  return status;
}

/** Arena memory that all rebuilds of one reactor may use together; tasks wait their turn. */
export class RebuildMemory {
  #free: number;
  #waiting: {
    readonly bytes: number;
    readonly of: object;
    readonly go: (isTaken: boolean) => void;
  }[] = [];

  constructor(bytes: number) {
    this.#free = bytes;
  }

  /** Takes `bytes` when they are free and nobody waits; to be given back with `release`. */
  tryAcquire(bytes: number): boolean {
    if (this.#waiting.length > 0 || this.#free < bytes) return false;
    this.#free -= bytes;
    return true;
  }

  /**
   * Resolves with true when `bytes` are taken, to be given back with `release`; with false when `of` has
   * given up meanwhile.
   */
  async acquire(bytes: number, of: object): Promise<boolean> {
    if (this.tryAcquire(bytes)) return true;
    return new Promise<boolean>((go) => this.#waiting.push({ bytes, of, go }));
  }

  /** Whatever `of` waits for it needs no more: others may hold the memory for hours. */
  giveUp(of: object): void {
    const given = this.#waiting.filter((one) => one.of === of);
    this.#waiting = this.#waiting.filter((one) => one.of !== of);
    for (const { go } of given) go(false);
    this.release(0);
  }

  release(bytes: number): void {
    this.#free += bytes;
    for (let first = this.#waiting[0]; first !== undefined; first = this.#waiting[0]) {
      if (first.bytes > this.#free) return;
      this.#waiting.shift();
      this.#free -= first.bytes;
      first.go(true);
    }
  }
}

/** True when two arena buffers hold the same bytes. */
export function sameBytes(reactor: Reactor, a: number, b: number, length: number): boolean {
  const { address } = reactor.arena;
  return equalMemory(address + a, address + b, length);
}

/** True when an arena buffer holds only zeroes. */
export function isZero(reactor: Reactor, buffer: number, length: number): boolean {
  const words = reactor.arena.i32;
  const first = buffer >> 2;
  if (words[first] !== 0) return false;
  // A range is all zeroes when it equals itself shifted by its first, zero, word.
  const { address } = reactor.arena;
  return equalMemory(address + buffer, address + buffer + 4, length - 4);
}
