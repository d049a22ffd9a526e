import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readdirSync, readlinkSync } from "node:fs";
import { Worker } from "node:worker_threads";
import {
  allocNative,
  CancelFlag,
  CQE_BUFFER_SHIFT,
  CqeFlag,
  closeFd,
  Errno,
  eventFd,
  libraryFds,
  mapMemory,
  type NativeError,
  Op,
  Ring,
  SqeFlag,
  unmapMemory,
  wakeEventFd,
} from "../../../ffi/index.ts";

interface Completion {
  readonly token: number;
  readonly handler: number;
  readonly result: number;
  readonly flags: number;
}

/** Takes every completion that has been published. */
function reap(ring: Ring): Completion[] {
  const out: Completion[] = [];
  let head = ring.cqHead;
  for (; head !== ring.cqTail(); head = (head + 1) | 0) {
    const at = ring.cqeAt(head);
    const [token, handler, result, flags] = ring.cqes.subarray(at, at + 4);
    out.push({ token: token!, handler: handler!, result: result!, flags: flags! });
  }
  ring.advance(head);
  return out;
}

describe("a ring", () => {
  let ring: Ring;
  beforeEach(() => {
    ring = new Ring({ entries: 8, completions: 16, deferTaskrun: true });
  });
  afterEach(() => {
    ring.close();
  });

  /** Submits and waits until `count` completions have been taken. */
  function complete(count: number): Completion[] {
    const out: Completion[] = [];
    while (out.length < count) {
      const result = ring.enter(1, 5e9);
      if (result < 0) throw new Error(`enter: ${result}`);
      out.push(...reap(ring));
    }
    return out;
  }

  test("has the sizes that were asked for", () => {
    expect(ring.sqEntries).toBe(8);
    expect(ring.cqEntries).toBe(16);
    expect(ring.sqes.length).toBe(8 * 16);
    expect(ring.unsubmitted).toBe(0);
  });

  test("supports every operation that the product uses", () => {
    const supported = ring.supportedOps();
    for (const [name, op] of Object.entries(Op)) {
      expect(`${name} ${supported.has(op)}`).toBe(`${name} true`);
    }
    expect(supported.has(255)).toBe(false);
  });

  test("carries token and handler through, whatever their bits", () => {
    ring.prep(Op.NOP, -1, 0, 0, 0, 0, -1, 0x7fffffff);
    ring.prep(Op.NOP, -1, 0, 0, 0, 0, 0x12345678, -2);
    expect(ring.unsubmitted).toBe(2);
    expect(complete(2)).toEqual([
      { token: -1, handler: 0x7fffffff, result: 0, flags: 0 },
      { token: 0x12345678, handler: -2, result: 0, flags: 0 },
    ]);
    expect(ring.unsubmitted).toBe(0);
  });

  test("loses no entry when more are queued than it holds", () => {
    const seen = new Set<number>();
    for (let i = 0; i < 100; i++) {
      ring.prep(Op.NOP, -1, 0, 0, 0, 0, i, 1);
      if (i % 10 === 9) for (const { token } of complete(1)) seen.add(token);
    }
    while (seen.size < 100) for (const { token } of complete(1)) seen.add(token);
    expect(Math.max(...seen)).toBe(99);
  });

  test("loses no completion when more come than its queue holds", () => {
    const tokens: number[] = [];
    for (let i = 0; i < 64; i++) ring.prep(Op.NOP, -1, 0, 0, 0, 0, i, 1);
    while (tokens.length < 64) tokens.push(...complete(1).map(({ token }) => token));
    expect(tokens.sort((a, b) => a - b)).toEqual(Array.from({ length: 64 }, (_, i) => i));
  });

  test("counts on across the wrap of its indexes", () => {
    for (let i = 0; i < 70_000; i++) {
      ring.prep(Op.NOP, -1, 0, 0, 0, 0, i, 1);
      const [only] = complete(1);
      if (only!.token !== i) throw new Error(`${only!.token} instead of ${i}`);
    }
  });

  test("waits at most as long as it is told", () => {
    expect(ring.enter(1, 1e6)).toBe(-Errno.ETIME);
    const startNs = Bun.nanoseconds();
    expect(ring.enter(1, 3e6)).toBe(-Errno.ETIME);
    expect(Bun.nanoseconds() - startNs).toBeGreaterThanOrEqual(3e6);
  });

  test("a wait that runs out of time has still submitted", () => {
    const fd = eventFd();
    const memory = allocNative(8);
    ring.prep(Op.READ, fd, memory.address, 8, 0, 0, 7, 1);
    ring.enter(1, 1e6);
    expect(ring.unsubmitted).toBe(0);
    wakeEventFd(fd);
    expect(complete(1)).toEqual([{ token: 7, handler: 1, result: 8, flags: 0 }]);
    expect(memory.u32[0]).toBe(1);
    closeFd(fd);
  });

  test("addresses and offsets beyond 32 bits arrive whole", () => {
    const offset = 5 * 2 ** 32 + 12345;
    const address = 0x7f12_3456_7890;
    const at = ring.prep(Op.NOP, 3, address, 4096, offset, 9, 1, 2);
    const words = new Uint32Array(ring.sqes.buffer, ring.sqes.byteOffset + at * 4, 16);
    expect([...words]).toEqual([
      Op.NOP,
      3,
      12345,
      5,
      address % 2 ** 32,
      Math.floor(address / 2 ** 32),
      4096,
      9,
      1,
      2,
      0,
      0,
      0,
      0,
      0,
      0,
    ]);
    ring.sqes.fill(0, at + 2, at + 8);
    complete(1);
  });

  test("reads and writes a registered buffer", () => {
    const memory = mapMemory(8192, { huge: false });
    ring.registerBuffer(memory.address, memory.byteLength);
    const fd = eventFd();
    memory.u32[0] = 5;
    ring.prep(Op.WRITE_FIXED, fd, memory.address, 8, 0, 0, 1, 1);
    expect(complete(1)[0]!.result).toBe(8);
    ring.prep(Op.READ_FIXED, fd, memory.address + 4096, 8, 0, 0, 2, 1);
    expect(complete(1)[0]!.result).toBe(8);
    expect(memory.u32[1024]).toBe(5);
    // Outside the registered range it is refused.
    ring.prep(Op.READ_FIXED, fd, memory.address + 8192, 8, 0, 0, 3, 1);
    expect(complete(1)[0]!.result).toBe(-14); // EFAULT
    closeFd(fd);
    unmapMemory(memory);
  });

  test("picks provided buffers and says which", () => {
    const GROUP = 3;
    const memory = mapMemory(3 * 4096, { huge: false });
    ring.registerBufferRing(memory.address, 2, GROUP);
    for (let id = 0; id < 2; id++) {
      const at = id * 16;
      memory.view.setBigUint64(at, BigInt(memory.address + 4096 * (id + 1)), true);
      memory.u32[(at + 8) >> 2] = 4096;
      memory.view.setUint16(at + 12, id, true);
    }
    memory.view.setUint16(14, 2, true);
    const fd = eventFd();
    const results: Completion[] = [];
    for (let i = 0; i < 3; i++) {
      wakeEventFd(fd);
      const at = ring.prep(Op.READ | SqeFlag.BUFFER_SELECT, fd, 0, 8, 0, 0, i, 1);
      ring.sqes[at + 10] = GROUP;
      results.push(...complete(1));
    }
    for (let id = 0; id < 2; id++) {
      expect(results[id]!.result).toBe(8);
      expect(results[id]!.flags & CqeFlag.BUFFER).toBe(CqeFlag.BUFFER);
      expect(results[id]!.flags >>> CQE_BUFFER_SHIFT).toBe(id);
      expect(memory.u32[((id + 1) * 4096) >> 2]).toBe(1);
    }
    expect(results[2]!.result).toBe(-Errno.ENOBUFS);
    ring.unregisterBufferRing(GROUP);
    expect(() => ring.unregisterBufferRing(GROUP)).toThrow(
      "io_uring_register(unregister PBUF_RING)",
    );
    closeFd(fd);
    unmapMemory(memory);
  });

  test("cancels what is outstanding on a descriptor", () => {
    const fd = eventFd();
    const memory = allocNative(8);
    ring.prep(Op.READ, fd, memory.address, 8, 0, 0, 1, 1);
    ring.submit();
    ring.prep(Op.ASYNC_CANCEL, fd, 0, 0, 0, CancelFlag.ALL | CancelFlag.FD, 2, 1);
    const byToken = new Map(complete(2).map((each) => [each.token, each.result]));
    expect(byToken.get(1)).toBe(-Errno.ECANCELED);
    expect(byToken.get(2)).toBe(1);
    closeFd(fd);
  });

  test("a registration that the kernel refuses is an error with its name", () => {
    expect(() => ring.registerBuffer(4096, 4096)).toThrow("io_uring_register(BUFFERS): errno 14");
  });
});

describe("setting a ring up", () => {
  test("with sizes that the kernel refuses says so", () => {
    for (const entries of [0, 1 << 20]) {
      let message = "";
      try {
        new Ring({ entries, completions: 16, deferTaskrun: true });
      } catch (error) {
        message = (error as NativeError).message;
      }
      expect(message).toStartWith("io_uring_setup (");
      expect(message).toEndWith("EINVAL");
    }
  });

  test("gives everything back when it is closed", () => {
    const rings = () =>
      readdirSync("/proc/self/fd").filter((fd) => linkOf(fd).includes("io_uring")).length;
    const linkOf = (fd: string) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`);
      } catch {
        return ""; // the descriptor with which the folder was read
      }
    };
    const open = new Ring({ entries: 8, completions: 16, deferTaskrun: true });
    expect(rings()).toBe(1);
    open.close();
    for (let i = 0; i < 20; i++) {
      new Ring({ entries: 8, completions: 16, deferTaskrun: true }).close();
    }
    expect(rings()).toBe(0);
  });

  test("works in a Worker, with the libraries that the main thread opened", async () => {
    const code = `
      const { parentPort, workerData } = require("node:worker_threads");
      const { Ring, Op, libraryFds } = await import(workerData.ffi);
      const ring = new Ring({ entries: 8, completions: 16, deferTaskrun: true });
      ring.prep(Op.NOP, -1, 0, 0, 0, 0, 42, 1);
      ring.enter(1, 5e9);
      parentPort.postMessage({ token: ring.cqes[ring.cqeAt(0)], fds: libraryFds() });
      ring.close();
    `;
    const worker = new Worker(code, {
      eval: true,
      workerData: { libraries: libraryFds(), ffi: `${import.meta.dir}/../../../ffi/index.ts` },
    });
    const message = await new Promise((resolve, reject) => {
      worker.once("message", resolve);
      worker.once("error", reject);
    });
    await worker.terminate();
    expect(message).toEqual({ token: 42, fds: libraryFds() });
  });
});
