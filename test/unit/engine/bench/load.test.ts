/** The load generator on memory devices, some of which misbehave. */
import { describe, expect, test } from "bun:test";
import type { Bdev } from "../../../../src/engine/bdev/bdev.ts";
import { openBdev } from "../../../../src/engine/bdev/open.ts";
import { type LoadOptions, type LoadResult, startLoad } from "../../../../src/engine/bench/load.ts";
import { IoOp, type IoOwner } from "../../../../src/engine/reactor/io-table.ts";
import type { Reactor } from "../../../../src/engine/reactor/reactor.ts";
import { IoStatus, TrilithError } from "../../../../src/errors.ts";
import { withReactor } from "../../../support/reactor.ts";

const BLOCK = 512;

/** A request as a misbehaving device sees it before or after it is carried out. */
interface Seen {
  readonly reactor: Reactor;
  readonly slot: number;
  readonly op: number;
  readonly unit: number;
  /** How many requests of this kind there have been. */
  readonly count: number;
}

/** What a misbehaving device does beside what it is told. */
interface Mischief {
  /** A status ends the request at once. */
  before?(seen: Seen): number | undefined;
  /** May change the data or the status. */
  after?(seen: Seen): void;
}

/** A memory device with mischief in front of it. */
class Mischievous implements Bdev, IoOwner {
  readonly name = "mischief";
  readonly uri = "mischief";
  readonly driver = "fault" as const;
  readonly uuid: string;
  readonly reactor: Reactor;
  readonly blockSize: number;
  readonly blockCount: number;
  readonly synchronous = false;
  readonly slotsPerIo = 0;
  readonly discardZeroes = true;
  readonly volatileCache = false;
  readonly #below: Bdev;
  readonly #mischief: Mischief;
  readonly #counts = new Map<number, number>();

  constructor(below: Bdev, mischief: Mischief) {
    this.#below = below;
    this.#mischief = mischief;
    this.reactor = below.reactor;
    this.uuid = below.uuid;
    this.blockSize = below.blockSize;
    this.blockCount = below.blockCount;
  }

  #seen(slot: number): Seen {
    const { io } = this.reactor;
    const op = io.op[slot]!;
    const unit = io.offset[slot]! / io.length[slot]!;
    return { reactor: this.reactor, slot, op, unit, count: this.#counts.get(op) ?? 0 };
  }

  submit(slot: number): void {
    const { io } = this.reactor;
    const op = io.op[slot]!;
    this.#counts.set(op, (this.#counts.get(op) ?? 0) + 1);
    const status = this.#mischief.before?.(this.#seen(slot));
    if (status !== undefined) {
      io.complete(slot, status);
      return;
    }
    io.push(slot, this);
    this.#below.submit(slot);
  }

  ioDone(slot: number): void {
    this.#mischief.after?.(this.#seen(slot));
    this.reactor.io.complete(slot, this.reactor.io.status[slot]!);
  }

  listen() {
    return () => {};
  }

  close(): Promise<void> {
    return this.#below.close();
  }
}

const BASE: Omit<LoadOptions, "bdev"> = {
  pattern: "randrw",
  readPercent: 50,
  requestBytes: 8 * BLOCK,
  queueDepth: 8,
  jobs: 1,
  seed: 7,
};

/** Runs a load of `requests` requests on a device with mischief; nothing may be left over. */
function runLoad(
  options: Partial<LoadOptions>,
  mischief: Mischief = {},
  requests = 3000,
): LoadResult {
  return withReactor(async (reactor) => {
    const below = await openBdev(reactor, "malloc:///disk?size_mb=1");
    let issued = 0;
    const bdev = new Mischievous(below, {
      ...mischief,
      before(seen) {
        if (++issued === requests) load.stop();
        return mischief.before?.(seen);
      },
    });
    const { arena, io } = reactor;
    const before = [arena.freeBytes, io.free, reactor.handlerCount];
    const load = startLoad({ ...BASE, bdev, ...options });
    const result = await load.done;
    expect([arena.freeBytes, io.free, reactor.handlerCount]).toEqual(before);
    expect(load.stats().phase).toBe("done");
    await bdev.close();
    return result;
  });
}

describe("load", () => {
  test("counts what it does", () => {
    const result = runLoad({});
    expect(result.reads + result.writes).toBeGreaterThanOrEqual(3000);
    expect(result.reads).toBeGreaterThan(1000);
    expect(result.writes).toBeGreaterThan(1000);
    expect(result.readBytes).toBe(result.reads * 8 * BLOCK);
    expect(result.latency.count).toBe(result.reads + result.writes);
    expect(result.latency.minNs).toBeLessThanOrEqual(result.latency.p50Ns);
    expect(result.latency.p999Ns).toBeLessThanOrEqual(result.latency.maxNs);
    expect([result.errorCount, result.mismatches, result.blocksVerified]).toEqual([0, 0, 0]);
  });

  for (const [pattern, reads, writes] of [
    ["read", true, false],
    ["randread", true, false],
    ["write", false, true],
    ["randwrite", false, true],
    ["rw", true, true],
  ] as const) {
    test(`${pattern} does what its name says`, () => {
      const result = runLoad({ pattern });
      expect([result.reads > 0, result.writes > 0]).toEqual([reads, writes]);
    });
  }

  test("sequential jobs walk through parts of their own", () => {
    const units: number[] = [];
    runLoad(
      { pattern: "write", jobs: 4, queueDepth: 1, requestBytes: 4096 },
      { before: (seen) => void units.push(seen.unit) },
      256 + 4,
    );
    // 256 units in four parts: the first round covers every unit once, then it begins again.
    expect([...units.slice(0, 256)].sort((a, b) => a - b)).toEqual([...Array(256).keys()]);
    for (const part of [0, 1, 2, 3]) {
      const mine = units.filter((unit) => Math.floor(unit / 64) === part);
      expect(mine.slice(0, 64)).toEqual([...Array(64).keys()].map((i) => part * 64 + i));
      expect(mine[64]).toBe(part * 64);
    }
  });

  test("keeps to its range", () => {
    const offset = 64 << 10;
    const size = 128 << 10;
    let outside = 0;
    runLoad(
      { offset, size },
      {
        before: ({ reactor, slot }) => {
          const at = reactor.io.offset[slot]!;
          if (at < offset || at + reactor.io.length[slot]! > offset + size) outside++;
          return undefined;
        },
      },
    );
    expect(outside).toBe(0);
  });

  test("the same seed gives the same requests, another seed others", () => {
    const requestsOf = (seed: number): string => {
      const seen: string[] = [];
      runLoad({ seed, queueDepth: 4 }, { before: (s) => void seen.push(`${s.op} ${s.unit}`) }, 500);
      return seen.slice(0, 500).join();
    };
    expect(requestsOf(1)).toBe(requestsOf(1));
    expect(requestsOf(1)).not.toBe(requestsOf(2));
  });

  test("never has more in flight than it was told", () => {
    let inFlight = 0;
    let most = 0;
    runLoad(
      { queueDepth: 3, jobs: 5 },
      {
        before: () => {
          most = Math.max(most, ++inFlight);
          return undefined;
        },
        after: () => void inFlight--,
      },
    );
    expect(most).toBeLessThanOrEqual(15);
    expect(inFlight).toBe(0);
  });

  test("a rate is not exceeded", () => {
    const result = runLoad({ ratePerSec: 5000 }, {}, 200);
    const seconds = result.elapsedNs / 1e9;
    expect(result.reads + result.writes).toBeLessThanOrEqual(seconds * 5000 + 16);
  });

  test("ends by itself after its run time", () => {
    const result = runLoad({ runtimeMs: 30 }, {}, Number.POSITIVE_INFINITY);
    expect(result.elapsedNs).toBeGreaterThanOrEqual(30e6);
    expect(result.reads).toBeGreaterThan(0);
  });

  test("failed requests are counted by kind, and the load goes on", () => {
    const result = runLoad(
      {},
      {
        before: ({ op, count }) => {
          if (op === IoOp.READ && count === 10) return IoStatus.TIMEOUT;
          return op === IoOp.WRITE && count % 500 === 0 ? IoStatus.NO_SPACE : undefined;
        },
      },
    );
    expect(result.errors).toEqual({ Timeout: 1, NoSpace: Math.floor(result.writes / 499) });
    expect(result.errorCount).toBe(1 + result.errors.NoSpace!);
  });

  test("what cannot be done is refused", () => {
    const wrong: readonly Partial<LoadOptions>[] = [
      { requestBytes: 100 },
      { requestBytes: 2 << 20 },
      { queueDepth: 0 },
      { queueDepth: 5000, jobs: 2 },
      { readPercent: 101 },
      { verify: true, pattern: "randread" },
      { offset: 100 },
      { offset: 1 << 20 },
      { size: 100 },
    ];
    for (const options of wrong) {
      const refused = () => runLoad(options);
      expect(refused).toThrow(TrilithError);
    }
    expect(() => runLoad({ requestBytes: 1 << 20, queueDepth: 64 })).toThrow("no memory");
  });
});

describe("verification", () => {
  const verify = { verify: true } as const;

  test("finds nothing wrong with a device that works", () => {
    for (const pattern of ["randrw", "rw", "write", "randwrite"] as const) {
      const result = runLoad({ ...verify, pattern });
      expect([result.mismatches, result.unreadable]).toEqual([0, 0]);
      expect(result.blocksVerified).toBeGreaterThan(0);
    }
  });

  test("reads everything that was written again at the end", () => {
    const written = new Set<number>();
    let stoppedAt = -1;
    const afterwards = new Set<number>();
    const result = runLoad(
      { ...verify, pattern: "randwrite" },
      {
        before: ({ op, unit }) => {
          if (op === IoOp.WRITE) written.add(unit);
          else {
            stoppedAt = written.size;
            afterwards.add(unit);
          }
          return undefined;
        },
      },
      100,
    );
    expect(afterwards).toEqual(written);
    expect(stoppedAt).toBe(written.size);
    expect(result.blocksVerified).toBe(written.size * 8);
  });

  test("more workers than units, and single units", () => {
    for (const size of [8 * BLOCK, 24 * BLOCK]) {
      const result = runLoad({ ...verify, size, queueDepth: 64 });
      expect(result.mismatches).toBe(0);
    }
  });

  const kinds: readonly (readonly [string, string, Mischief])[] = [
    [
      "a flipped bit",
      "damaged",
      {
        after: ({ reactor: { arena, io }, slot, op, count }) => {
          if (op !== IoOp.READ || count !== 700) return;
          const at = io.buffer[slot]! + 1234;
          arena.u8[at] = arena.u8[at]! ^ 0x10;
        },
      },
    ],
    [
      "a lost write",
      "stale",
      {
        before: ({ op, count }) =>
          op === IoOp.WRITE && count > 1200 && count < 1240 ? IoStatus.OK : undefined,
      },
    ],
    [
      "a misdirected read",
      "misplaced",
      {
        before: ({ reactor: { io }, slot, op, count }) => {
          if (op !== IoOp.READ || count < 1000 || count > 1040) return undefined;
          io.offset[slot] = io.offset[slot] === 0 ? 8 * BLOCK : io.offset[slot]! - 8 * BLOCK;
          return undefined;
        },
      },
    ],
    [
      "zeroes",
      "not ours",
      {
        after: ({ reactor: { arena, io }, slot, op, count }) => {
          if (op !== IoOp.READ || count < 1000 || count > 1040) return;
          arena.u8.fill(0, io.buffer[slot]!, io.buffer[slot]! + BLOCK);
        },
      },
    ],
  ];
  for (const [what, kind, mischief] of kinds) {
    test(`finds ${what}`, () => {
      const result = runLoad(verify, mischief);
      expect(result.mismatches).toBeGreaterThan(0);
      expect(result.firstMismatches[0]!.kind).toBe(kind as "stale");
    });
  }

  test("a torn write is found when it was acknowledged", () => {
    const torn: Mischief = {
      before: ({ reactor: { io }, slot, op, count }) => {
        // Only the first half of the unit is written.
        if (op === IoOp.WRITE && count > 1200 && count < 1240) io.length[slot] = 4 * BLOCK;
        return undefined;
      },
    };
    const result = runLoad(verify, torn);
    expect(result.mismatches).toBeGreaterThan(0);
    expect(result.firstMismatches[0]!.kind).toBe("stale");
  });

  test("a write that failed may have happened, or not, or in part", () => {
    const result = runLoad(verify, {
      before: ({ op, count }) =>
        op === IoOp.WRITE && count % 40 === 0 ? IoStatus.TIMEOUT : undefined,
      after: ({ reactor: { io }, slot, op, count }) => {
        if (op === IoOp.WRITE && count % 40 === 20) io.status[slot] = IoStatus.TIMEOUT;
      },
    });
    expect(result.errorCount).toBeGreaterThan(20);
    expect(result.mismatches).toBe(0);
  });

  test("the final pass tries again what cannot be read for a while, and tells what never can", () => {
    let final = false;
    const failing: Mischief = {
      before: ({ op, count, unit }) => {
        if (op === IoOp.WRITE || (count > 5 && unit > 0)) return undefined;
        final = true;
        return IoStatus.UNAVAILABLE;
      },
    };
    const result = runLoad({ ...verify, pattern: "write", size: 32 * 8 * BLOCK }, failing, 64);
    expect(final).toBe(true);
    expect(result.finalErrors).toBeGreaterThan(5);
    expect(result.unreadable).toBe(1);
    expect([result.mismatches, result.errorCount]).toEqual([0, 0]);
  });
});
