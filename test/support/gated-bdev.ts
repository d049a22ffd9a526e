/** A block device over memory whose requests end when the test says so. */
import { type Bdev, type BdevListener, BdevListeners } from "../../src/engine/bdev/bdev.ts";
import { openMemoryBdev } from "../../src/engine/bdev/memory.ts";
import { IoFlag, type IoOwner, ioOpNames } from "../../src/engine/reactor/io-table.ts";
import type { Reactor } from "../../src/engine/reactor/reactor.ts";

/** A request that has come, as a test sees it. */
export interface SeenRequest {
  readonly op: (typeof ioOpNames)[number];
  readonly offset: number;
  readonly length: number;
  readonly fua: boolean;
  readonly unmap: boolean;
}

export class GatedBdev implements Bdev, IoOwner {
  readonly name = "gated";
  readonly uri = "malloc:///gated";
  readonly driver = "malloc";
  readonly uuid = "00000000-0000-4000-8000-000000000001";
  readonly reactor: Reactor;
  readonly blockSize: number;
  readonly synchronous = false;
  readonly slotsPerIo = 0;
  readonly discardZeroes = true;
  readonly volatileCache = true;
  blockCount: number;
  /** Requests that have come since the start. */
  readonly seen: SeenRequest[] = [];
  /** Slots that wait to be let through, oldest first. */
  readonly held: number[] = [];
  /** While true, requests are held back. */
  gate = false;
  /** Status that the next requests end with instead of being carried out, oldest first. */
  readonly failures: number[] = [];

  readonly #memory: Bdev;
  readonly #listeners = new BdevListeners();
  #waiters: { count: number; resolve: () => void }[] = [];

  constructor(reactor: Reactor, blockCount: number, blockSize: 512 | 4096 = 512) {
    this.reactor = reactor;
    this.blockSize = blockSize;
    this.blockCount = blockCount;
    this.#memory = openMemoryBdev(reactor, {
      driver: "malloc",
      name: "gated",
      blockSize,
      blockCount,
      uuid: this.uuid,
    });
  }

  submit(slot: number): void {
    const { io } = this.reactor;
    const flags = io.flags[slot]!;
    this.seen.push({
      op: ioOpNames[io.op[slot]!]!,
      offset: io.offset[slot]!,
      length: io.length[slot]!,
      fua: (flags & IoFlag.FUA) !== 0,
      unmap: (flags & IoFlag.UNMAP) !== 0,
    });
    this.held.push(slot);
    if (!this.gate) this.reactor.after(0, () => this.#pass(slot));
    this.#waiters = this.#waiters.filter(({ count, resolve }) => {
      if (this.seen.length < count) return true;
      resolve();
      return false;
    });
  }

  /** Resolves when `count` requests have come since the start. */
  came(count: number): Promise<void> {
    if (this.seen.length >= count) return Promise.resolve();
    return new Promise((resolve) => this.#waiters.push({ count, resolve }));
  }

  /** Lets the request held at `index` through, the oldest by default. */
  pass(index = 0): void {
    this.#pass(this.held[index]!);
  }

  /** Opens the gate and lets everything through. */
  open(): void {
    this.gate = false;
    for (const slot of [...this.held]) this.#pass(slot);
  }

  #pass(slot: number): void {
    const at = this.held.indexOf(slot);
    if (at < 0) return;
    this.held.splice(at, 1);
    const failure = this.failures.shift() ?? 0;
    if (failure !== 0) {
      this.reactor.io.complete(slot, failure);
      return;
    }
    this.reactor.io.push(slot, this);
    this.#memory.submit(slot);
  }

  ioDone(slot: number): void {
    const { io } = this.reactor;
    io.complete(slot, io.status[slot]!);
  }

  listen(listener: BdevListener): () => void {
    return this.#listeners.add(listener);
  }

  async close(): Promise<void> {
    await this.#memory.close();
  }
}
