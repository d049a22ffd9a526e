/**
 * The base device as the pool's own work sees it: promise-style, with a bounded number of requests
 * in flight. Control work only; replicas submit to the device directly.
 */
import { IoStatus, ioError, TrilithError } from "../../errors.ts";
import type { Bdev } from "../bdev/bdev.ts";
import { IoFlag, IoOp, type IoOwner } from "../reactor/io-table.ts";
import type { Reactor } from "../reactor/reactor.ts";
import { LOAD_BYTES, POOL_IOS } from "./limits.ts";

export class PoolDevice implements IoOwner {
  readonly bdev: Bdev;
  readonly reactor: Reactor;
  readonly #resolvers = new Map<number, (status: number) => void>();
  readonly #waiting: (() => void)[] = [];
  #free = POOL_IOS;

  /** Throws `ResourceExhausted` when the reactor cannot promise the request slots. */
  constructor(bdev: Bdev) {
    this.bdev = bdev;
    this.reactor = bdev.reactor;
    if (!this.reactor.io.promise(POOL_IOS * (bdev.slotsPerIo + 1))) {
      throw new TrilithError(
        "ResourceExhausted",
        `the reactor has no request slots left for the pool on ${bdev.name}`,
        "spread pools over more reactors",
      );
    }
  }

  /** Gives the promised slots back. Nothing may be outstanding. */
  release(): void {
    this.reactor.io.release(POOL_IOS * (this.bdev.slotsPerIo + 1));
  }

  ioDone(slot: number): void {
    const { io } = this.reactor;
    const status = io.status[slot]!;
    const resolve = this.#resolvers.get(slot)!;
    this.#resolvers.delete(slot);
    io.give(slot);
    const next = this.#waiting.shift();
    if (next === undefined) this.#free++;
    else next();
    resolve(status);
  }

  async #run(
    op: number,
    offset: number,
    length: number,
    buffer: number,
    flags: number,
  ): Promise<IoStatus> {
    if (this.#free > 0) this.#free--;
    else {
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve);
      });
    }
    const { io, now } = this.reactor;
    const slot = io.take(op, offset, length, buffer, flags | IoFlag.BACKGROUND, now);
    return await new Promise<IoStatus>((resolve) => {
      this.#resolvers.set(slot, (status) => resolve(status as IoStatus));
      io.push(slot, this);
      this.bdev.submit(slot);
    });
  }

  /** Reads into the arena. */
  read(offset: number, length: number, buffer: number): Promise<IoStatus> {
    return this.#run(IoOp.READ, offset, length, buffer, 0);
  }

  /** Writes from the arena. */
  write(offset: number, length: number, buffer: number, flags = 0): Promise<IoStatus> {
    return this.#run(IoOp.WRITE, offset, length, buffer, flags);
  }

  /** Zeroes a range; with `unmap` the device may deallocate it. */
  zero(offset: number, length: number, unmap: boolean): Promise<IoStatus> {
    return this.#run(IoOp.WRITE_ZEROES, offset, length, -1, unmap ? IoFlag.UNMAP : 0);
  }

  discard(offset: number, length: number): Promise<IoStatus> {
    return this.#run(IoOp.DISCARD, offset, length, -1, 0);
  }

  flush(): Promise<IoStatus> {
    if (!this.bdev.volatileCache) return Promise.resolve(IoStatus.OK);
    return this.#run(IoOp.FLUSH, 0, 0, -1, 0);
  }

  /** An arena buffer for work already begun; waits until there is one. */
  async buffer(byteLength: number): Promise<number> {
    const { arena } = this.reactor;
    for (;;) {
      const buffer = arena.alloc(byteLength, 0);
      if (buffer >= 0) return buffer;
      await new Promise<void>((resume) => {
        this.reactor.waitForResources({ resume });
      });
    }
  }

  /** A copy of a range of the disk. Throws the device's error. */
  async readBytes(offset: number, length: number): Promise<Uint8Array> {
    const out = new Uint8Array(new ArrayBuffer(length));
    const buffer = await this.buffer(Math.min(length, LOAD_BYTES));
    const { arena } = this.reactor;
    try {
      for (let done = 0; done < length; done += LOAD_BYTES) {
        const bytes = Math.min(LOAD_BYTES, length - done);
        const status = await this.read(offset + done, bytes, buffer);
        must(status, `reading ${bytes} bytes at ${offset + done} of ${this.bdev.name}`);
        out.set(arena.u8.subarray(buffer, buffer + bytes), done);
      }
    } finally {
      arena.free(buffer);
    }
    return out;
  }

  /** Writes a range of at most 1 MiB durably. Throws the device's error. */
  async writeBytes(offset: number, bytes: Uint8Array): Promise<void> {
    const buffer = await this.buffer(bytes.byteLength);
    const { arena } = this.reactor;
    try {
      arena.u8.set(bytes, buffer);
      const status = await this.write(offset, bytes.byteLength, buffer, IoFlag.FUA);
      must(status, `writing ${bytes.byteLength} bytes at ${offset} of ${this.bdev.name}`);
    } finally {
      arena.free(buffer);
    }
  }
}

/** Throws the error of a failed request. */
export function must(status: IoStatus, what: string): void {
  if (status !== IoStatus.OK) throw ioError(status, what);
}
