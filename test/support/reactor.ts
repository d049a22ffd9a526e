/** A reactor on the test's own thread: `withReactor` drives its loop until the test's promise settles. */
import { type Bdev, bdevBytes } from "../../src/engine/bdev/bdev.ts";
import { IoOp } from "../../src/engine/reactor/io-table.ts";
import { ioPromise, Reactor } from "../../src/engine/reactor/reactor.ts";

const TEST_ARENA_BYTES = 32 << 20;

/** Runs `body` with a fresh reactor and closes it afterwards. Synchronous: the loop blocks. */
export function withReactor<T>(body: (reactor: Reactor) => Promise<T>): T {
  const reactor = new Reactor({ index: 0, arenaBytes: TEST_ARENA_BYTES });
  try {
    return reactor.runUntil(body(reactor));
  } finally {
    reactor.close();
  }
}

/** Promise-style access to a device with plain byte arrays, for tests. */
export interface BdevProbe {
  read(offset: number, length: number): Promise<{ status: number; bytes: Uint8Array }>;
  write(offset: number, bytes: Uint8Array, flags?: number): Promise<number>;
  /** FLUSH, WRITE_ZEROES or DISCARD. */
  control(op: number, offset?: number, length?: number, flags?: number): Promise<number>;
  readonly bytes: number;
}

/** Wraps a device. Buffers and slots are given back after every call. */
export function probeBdev(bdev: Bdev): BdevProbe {
  const { reactor } = bdev;
  const { arena, io } = reactor;
  const run = async (op: number, offset: number, length: number, buffer: number, flags: number) => {
    if (!io.promise(bdev.slotsPerIo + 1)) throw new Error("request slots are used up");
    const slot = io.take(op, offset, length, buffer, flags, reactor.now);
    const status = await ioPromise(reactor, slot, (s) => bdev.submit(s));
    io.release(bdev.slotsPerIo + 1);
    return status;
  };
  return {
    bytes: bdevBytes(bdev),
    async read(offset, length) {
      const buffer = arena.alloc(length, 0);
      const status = await run(IoOp.READ, offset, length, buffer, 0);
      const bytes = arena.u8.slice(buffer, buffer + length);
      arena.free(buffer);
      return { status, bytes };
    },
    async write(offset, bytes, flags = 0) {
      const buffer = arena.alloc(bytes.byteLength, 0);
      arena.u8.set(bytes, buffer);
      const status = await run(IoOp.WRITE, offset, bytes.byteLength, buffer, flags);
      arena.free(buffer);
      return status;
    },
    control: (op, offset = 0, length = 0, flags = 0) => run(op, offset, length, -1, flags),
  };
}
